//! Searches and sources: `groundingMetadata`.
//!
//! The format counts in bytes of the answer's text, the canonical form in characters of a block.

use std::{borrow::Cow, ops::Range};

use omniroute_wire::json_out::{self, Object};
use serde_json::value::RawValue;

use super::ID;
use crate::{
    ir::{Citation, Native, SearchResult, WebSearch},
    json_in::{Fields, compact, count_of, list_of, str_of},
};

/// Most text that is kept to count its characters; sources of what follows are told without a place.
pub(super) const MAX_TEXT: usize = 4 << 20;
/// Most sources and most passages that are read.
const MAX_ENTRIES: usize = 1024;

/// What an upstream tells about its sources.
#[derive(Debug, Default)]
pub(super) struct Grounding {
    queries: Vec<String>,
    sources: Vec<SearchResult>,
    passages: Vec<Passage>,
    raw: Option<Box<RawValue>>,
}

/// A passage of the answer and what it rests on.
#[derive(Debug)]
struct Passage {
    start: usize,
    end: usize,
    sources: Vec<usize>,
    told: bool,
}

impl Grounding {
    /// Reads `groundingMetadata`; `None` when there is nothing in it that others could use.
    pub(super) fn read(raw: &RawValue) -> Option<Self> {
        let fields = Fields::lenient(raw.get(), "").ok()?;
        let list =
            |name: &str| fields.raw(name).and_then(list_of).unwrap_or_default().into_iter().take(MAX_ENTRIES);
        let queries = list("webSearchQueries").filter_map(str_of).map(Cow::into_owned).collect();
        let sources = list("groundingChunks").map(source).collect();
        let passages = list("groundingSupports").filter_map(passage).collect();
        let raw = RawValue::from_string(compact(raw.get())).ok();
        let found = Self { queries, sources, passages, raw };
        (!found.queries.is_empty() || !found.sources.is_empty()).then_some(found)
    }

    /// Takes in `citationMetadata`: passages that the model knows from elsewhere. What is told again is taken in once.
    pub(super) fn recite(&mut self, raw: &RawValue) {
        let Ok(fields) = Fields::lenient(raw.get(), "") else { return };
        let list =
            ["citations", "citationSources"].iter().find_map(|name| fields.raw(name).and_then(list_of));
        for raw in list.unwrap_or_default() {
            let Ok(found) = Fields::lenient(raw.get(), "") else { continue };
            let text = |name: &str| found.raw(name).and_then(str_of).unwrap_or_default().into_owned();
            let source = SearchResult { url: text("uri"), title: text("title") };
            let Some((start, end)) = place(&found).filter(|_| !source.url.is_empty()) else { continue };
            let is_known = self.passages.iter().any(|one| {
                (one.start, one.end) == (start, end)
                    && one.sources.iter().any(|at| self.sources.get(*at) == Some(&source))
            });
            if is_known || self.passages.len() >= MAX_ENTRIES || self.sources.len() >= MAX_ENTRIES {
                continue;
            }
            self.passages.push(Passage { start, end, sources: vec![self.sources.len()], told: false });
            self.sources.push(source);
        }
    }

    /// The sources of a block of text that begins at this byte of the answer and is complete, each once.
    pub(super) fn cite(&mut self, begin: usize, text: &str) -> Vec<Citation> {
        let mut found = Vec::new();
        for passage in self.passages.iter_mut().filter(|passage| !passage.told) {
            let place = (passage.start.checked_sub(begin), passage.end.checked_sub(begin));
            let (Some(start), Some(end)) = place else { continue };
            if end > text.len() {
                continue;
            }
            passage.told = true;
            let span = match (text.get(..start), text.get(start..end)) {
                (Some(before), Some(within)) => {
                    let first = before.chars().count();
                    Some((first, first + within.chars().count()))
                }
                _ => None,
            };
            let sources = passage.sources.iter().filter_map(|at| self.sources.get(*at));
            found.extend(sources.filter(|source| !source.url.is_empty()).map(|source| Citation {
                url: Some(source.url.clone()),
                title: (!source.title.is_empty()).then(|| source.title.clone()),
                span,
                ..Citation::default()
            }));
        }
        found
    }

    /// The search itself, if there was one.
    pub(super) fn into_search(mut self) -> Option<WebSearch> {
        self.sources.retain(|source| !source.url.is_empty());
        if self.queries.is_empty() && self.sources.is_empty() {
            return None;
        }
        let native = self.raw.map(|raw| Native { origin: ID, raw: vec![raw] });
        Some(WebSearch { id: String::new(), queries: self.queries, results: self.sources, native })
    }
}

fn source(chunk: &RawValue) -> SearchResult {
    let read = || {
        let chunk = Fields::lenient(chunk.get(), "").ok()?;
        let page = ["web", "retrievedContext", "maps"].iter().find_map(|name| chunk.object_or_none(name))?;
        let text = |name: &str| page.raw(name).and_then(str_of).unwrap_or_default().into_owned();
        Some(SearchResult { url: text("uri"), title: text("title") })
    };
    // Passages name sources by their place, so one that cannot be read keeps its own.
    read().unwrap_or_default()
}

fn passage(support: &RawValue) -> Option<Passage> {
    let support = Fields::lenient(support.get(), "").ok()?;
    let (start, end) = place(&support.object_or_none("segment")?)?;
    let sources = list_of(support.raw("groundingChunkIndices")?)?;
    let sources =
        sources.into_iter().take(MAX_ENTRIES).filter_map(count_of).filter_map(|at| usize::try_from(at).ok());
    Some(Passage { start, end, sources: sources.collect(), told: false })
}

/// Where a passage stands, in bytes of the answer.
fn place(fields: &Fields<'_>) -> Option<(usize, usize)> {
    let count =
        |name: &str| fields.raw(name).and_then(count_of).and_then(|count| usize::try_from(count).ok());
    // Zeros are left out.
    let (start, end) = (count("startIndex").unwrap_or(0), count("endIndex")?);
    (start < end).then_some((start, end))
}

/// What a client is told about the sources of an answer.
#[derive(Debug, Default)]
pub(super) struct Told {
    queries: Vec<String>,
    sources: Vec<SearchResult>,
    /// Where they stand, their words, and the places of their sources.
    passages: Vec<(Range<usize>, String, Vec<usize>)>,
}

impl Told {
    /// Takes in a search.
    pub(super) fn search(&mut self, search: &WebSearch) {
        let room = MAX_ENTRIES.saturating_sub(self.queries.len());
        self.queries.extend(search.queries.iter().take(room).cloned());
        let room = MAX_ENTRIES.saturating_sub(self.sources.len());
        for result in search.results.iter().take(room) {
            self.source(&result.url, &result.title);
        }
    }

    /// Takes in a source of a block of text that begins at this byte of the answer; false for one that is not on the
    /// web, which the format has no place for, and for one too many.
    pub(super) fn citation(&mut self, citation: &Citation, begin: usize, text: &str) -> bool {
        let Some(url) = citation.url.as_ref().filter(|_| self.passages.len() < MAX_ENTRIES) else {
            return false;
        };
        let source = self.source(url, citation.title.as_deref().unwrap_or_default());
        let bytes = |characters: usize| text.char_indices().nth(characters).map_or(text.len(), |(at, _)| at);
        let (start, end) = citation.span.map_or((0, text.len()), |(start, end)| (bytes(start), bytes(end)));
        let words = text.get(start..end).unwrap_or_default();
        let place = begin + start..begin + end;
        match self.passages.last_mut() {
            Some((last, _, sources)) if *last == place => sources.push(source),
            _ if words.is_empty() => {}
            _ => self.passages.push((place, words.to_owned(), vec![source])),
        }
        true
    }

    /// Writes `groundingMetadata`, if there is anything to tell.
    pub(super) fn write(&self, candidate: &mut Object<'_>) {
        if self.queries.is_empty() && self.sources.is_empty() {
            return;
        }
        let mut metadata = candidate.object("groundingMetadata");
        if !self.queries.is_empty() {
            let mut list = metadata.array("webSearchQueries");
            self.queries.iter().for_each(|query| {
                list.str(query);
            });
            list.end();
        }
        let mut list = metadata.array("groundingChunks");
        for source in &self.sources {
            let mut chunk = list.object();
            let mut web = chunk.object("web");
            web.str("uri", &source.url).str("title", &source.title);
            web.end();
            chunk.end();
        }
        list.end();
        if !self.passages.is_empty() {
            let mut list = metadata.array("groundingSupports");
            for (place, words, sources) in &self.passages {
                let mut support = list.object();
                let mut segment = support.object("segment");
                segment.u64("startIndex", place.start as u64).u64("endIndex", place.end as u64);
                segment.str("text", words);
                segment.end();
                let mut indices = support.array("groundingChunkIndices");
                sources.iter().for_each(|source| json_out::u64(indices.element(), *source as u64));
                indices.end();
                support.end();
            }
            list.end();
        }
        metadata.end();
    }

    fn source(&mut self, url: &str, title: &str) -> usize {
        if let Some(at) = self.sources.iter().position(|source| source.url == url) {
            return at;
        }
        self.sources.push(SearchResult { url: url.to_owned(), title: title.to_owned() });
        self.sources.len() - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_become_characters_and_back() {
        let text = "Über 9 km. Ja.";
        let raw: Box<RawValue> = serde_json::from_str(
            r#"{"webSearchQueries":["q"],"groundingChunks":[{"web":{"uri":"https://a","title":"A"}},{"x":1},{"web":{"uri":"https://b"}}],
            "groundingSupports":[{"segment":{"endIndex":11},"groundingChunkIndices":[0,2,9]},{"segment":{"startIndex":12,"endIndex":15},"groundingChunkIndices":[0]},
            {"segment":{"startIndex":12,"endIndex":99},"groundingChunkIndices":[0]},{"segment":{"startIndex":1,"endIndex":5},"groundingChunkIndices":[0]}]}"#,
        )
        .expect("JSON");
        let mut found = Grounding::read(&raw).expect("sources");
        let citations = found.cite(0, text);
        let seen: Vec<_> = citations.iter().map(|one| (one.url.as_deref(), one.span)).collect();
        assert_eq!(
            seen,
            [
                (Some("https://a"), Some((0, 10))),
                (Some("https://b"), Some((0, 10))),
                (Some("https://a"), Some((11, 14))),
                // It begins within a character.
                (Some("https://a"), None),
            ]
        );
        assert!(found.cite(0, text).is_empty());

        let mut told = Told::default();
        assert!(told.citation(&citations[2], 100, text));
        assert!(!told.citation(&Citation::default(), 100, text), "what is not on the web has no place");
        assert_eq!(told.passages, [(112..115, "Ja.".to_owned(), vec![0])]);
        let search = found.into_search().expect("a search");
        assert_eq!((search.queries.len(), search.results.len()), (1, 2));
        told.search(&search);
        assert_eq!(told.sources.len(), 2);
    }

    #[test]
    fn recited_passages_have_their_sources_once() {
        let mut found = Grounding::default();
        for list in ["citations", "citationSources", "citations"] {
            let raw = format!(
                r#"{{"{list}":[{{"endIndex":5,"uri":"https://a","license":"mit"}},{{"startIndex":5,"endIndex":5,"uri":"https://b"}},{{"startIndex":6,"endIndex":9}}]}}"#
            );
            found.recite(&RawValue::from_string(raw).expect("JSON"));
        }
        let citations = found.cite(0, "Über uns");
        let seen: Vec<_> = citations.iter().map(|one| (one.url.as_deref(), one.span)).collect();
        assert_eq!(seen, [(Some("https://a"), Some((0, 4)))]);
    }

    #[test]
    fn what_tells_nothing_is_nothing() {
        for raw in ["{}", "[]", r#"{"searchEntryPoint":{"renderedContent":"x"}}"#] {
            let raw: Box<RawValue> = serde_json::from_str(raw).expect("JSON");
            assert!(Grounding::read(&raw).is_none());
        }
    }
}
