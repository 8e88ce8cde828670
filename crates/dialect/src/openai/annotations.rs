//! Sources of a text: places in the content of a message.

use bytes::BytesMut;
use omniroute_wire::json_out::Array;
use serde_json::value::RawValue;

use super::{ID, wire::text_of};
use crate::{
    ir::{Citation, Native},
    json_in::{Fields, compact, count_of, list_of},
};

/// More sources than this in one answer are left out.
const MAX: usize = 1024;

/// Reads annotations. Places are counted in characters from the beginning of the content, of which `before` belong to
/// earlier blocks.
pub(super) fn read(raw: &RawValue, before: usize) -> Vec<Citation> {
    let list = list_of(raw).unwrap_or_default().into_iter().take(MAX);
    list.filter_map(|raw| citation(raw, before)).collect()
}

/// A source that is not on the web is the vendor's own and has no place elsewhere; that it was there can be told.
fn citation(raw: &RawValue, before: usize) -> Option<Citation> {
    let entry = Fields::lenient(raw.get(), "").ok()?;
    let inner = entry.object_or_none("url_citation");
    // Some send the members without the object around them.
    let fields = inner.as_ref().unwrap_or(&entry);
    let text = |name| fields.raw(name).and_then(text_of).filter(|text| !text.is_empty());
    let place = |name| {
        let number = fields.raw(name).and_then(count_of)?;
        Some(usize::try_from(number).ok()?.saturating_sub(before))
    };
    let kind = entry.raw("type").and_then(text_of);
    if inner.is_none() && kind.is_some_and(|kind| kind != "url_citation") {
        let native = RawValue::from_string(compact(raw.get())).ok()?;
        let title = text("filename").or_else(|| text("title")).map(Into::into);
        let native = Some(Native { origin: ID, raw: vec![native] });
        return Some(Citation { title, native, ..Citation::default() });
    }
    let span = place("start_index").zip(place("end_index")).filter(|(start, end)| start <= end);
    Some(Citation {
        url: Some(text("url")?.into_owned()),
        title: text("title").map(Into::into),
        cited_text: text("content").map(Into::into),
        span,
        native: None,
    })
}

/// Annotations of an answer as they are written.
#[derive(Debug, Default)]
pub(super) struct Annotations {
    list: Vec<Annotation>,
    /// Where the open text begins in the content, and where it ends so far.
    start: usize,
    end: usize,
}

#[derive(Debug)]
enum Annotation {
    /// A page on the web.
    Page {
        url: String,
        title: String,
        start: usize,
        /// `None` until the text that it is about is complete.
        end: Option<usize>,
    },
    /// As the vendor wrote it.
    Own(Box<RawValue>),
}

impl Annotations {
    /// A text begins.
    pub(super) fn begin(&mut self) {
        self.start = self.end;
    }

    /// More of it.
    pub(super) fn text(&mut self, text: &str) {
        self.end += text.chars().count();
    }

    /// A source of the open text; false for one that is neither on the web nor the vendor's own, which the dialect has
    /// no place for, and for one too many.
    pub(super) fn add(&mut self, citation: &Citation) -> bool {
        if self.list.len() >= MAX {
            return false;
        }
        if let Some(own) = citation.native.as_ref().filter(|native| native.origin == ID) {
            self.list.extend(own.raw.iter().map(|raw| Annotation::Own(raw.clone())));
            return true;
        }
        let Some(url) = citation.url.clone() else { return false };
        let title = citation.title.clone().unwrap_or_default();
        let (start, end) = match citation.span {
            Some((start, end)) => (self.start + start, Some(self.start + end)),
            None => (self.start, None),
        };
        self.list.push(Annotation::Page { url, title, start, end });
        true
    }

    /// The text is complete.
    pub(super) fn end(&mut self) {
        for annotation in self.list.iter_mut().rev() {
            let Annotation::Page { start, end, .. } = annotation else { continue };
            if *start < self.start {
                break;
            }
            *end = Some(end.unwrap_or(self.end).min(self.end));
            *start = (*start).min(self.end);
        }
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Appends them as a list.
    pub(super) fn write(&self, out: &mut BytesMut) {
        let mut list = Array::begin(out);
        for annotation in &self.list {
            let (url, title, start, end) = match annotation {
                Annotation::Own(raw) => {
                    list.element().extend_from_slice(raw.get().as_bytes());
                    continue;
                }
                Annotation::Page { url, title, start, end } => (url, title, *start, end.unwrap_or(self.end)),
            };
            let mut entry = list.object();
            entry.str("type", "url_citation");
            let mut inner = entry.object("url_citation");
            inner.u64("start_index", start as u64).u64("end_index", end as u64);
            inner.str("title", title).str("url", url);
            inner.end();
            entry.end();
        }
        list.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(url: &str, span: Option<(usize, usize)>) -> Citation {
        Citation { url: Some(url.to_owned()), span, ..Citation::default() }
    }

    #[test]
    fn places_are_characters_of_the_whole_content() {
        let mut annotations = Annotations::default();
        annotations.begin();
        annotations.text("äö");
        assert!(annotations.add(&source("a", None)));
        annotations.text("ü");
        annotations.end();
        annotations.begin();
        annotations.text("🙂🙂🙂");
        assert!(annotations.add(&source("b", Some((1, 2)))) && annotations.add(&source("c", Some((0, 99)))));
        assert!(!annotations.add(&Citation::default()));
        annotations.end();
        let mut out = BytesMut::new();
        annotations.write(&mut out);
        let raw: Box<RawValue> = serde_json::from_slice(&out).unwrap();
        let spans: Vec<_> =
            read(&raw, 0).into_iter().map(|one| (one.url.unwrap(), one.span.unwrap())).collect();
        assert_eq!(spans, [("a".to_owned(), (0, 3)), ("b".to_owned(), (4, 5)), ("c".to_owned(), (3, 6))]);
    }

    #[test]
    fn annotations_of_others_are_read() {
        let raw: Box<RawValue> = serde_json::from_str(
            r#"[{"type":"url_citation","url":"u","title":"t","content":"words"},{"type":"file_citation"},
                {"url_citation":{"url":"v","start_index":9,"end_index":3}}]"#,
        )
        .unwrap();
        let found = read(&raw, 0);
        assert_eq!((found[0].title.as_deref(), found[0].cited_text.as_deref()), (Some("t"), Some("words")));
        let file = found[1].native.as_ref().map(|native| native.raw[0].get());
        assert_eq!((found.len(), file, &found[1].url), (3, Some(r#"{"type":"file_citation"}"#), &None));
        assert_eq!((found[0].span, found[2].span), (None, None));
    }
}
