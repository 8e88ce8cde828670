//! A piece of text that looks like the one before it.
//!
//! The events of a stream of text differ in their text and in nothing else, so what was found out about one by
//! parsing it holds for the next one too: if the bytes before and behind the text are the same and the text is one
//! JSON string, only the text is new.

use std::ops::Range;

/// Longest surroundings that are remembered; longer ones are parsed each time.
const MAX_AROUND: usize = 4 * 1024;

/// The surroundings of the last piece of text.
#[derive(Debug, Default)]
pub(crate) struct LastChunk {
    /// Up to the opening quote of the text, that included.
    before: Vec<u8>,
    /// From the closing quote on. Empty while nothing is known.
    after: Vec<u8>,
}

impl LastChunk {
    /// Remembers an event by the place of its text, the inside of a JSON string.
    pub(crate) fn learn(&mut self, event: &[u8], text: &Range<usize>) {
        self.after.clear();
        let is_string = text.start > 0
            && event.get(text.start - 1) == Some(&b'"')
            && event.get(text.end) == Some(&b'"')
            && text.start <= text.end;
        if !is_string || event.len() - text.len() > MAX_AROUND {
            return;
        }
        self.before.clear();
        self.before.extend_from_slice(&event[..text.start]);
        self.after.extend_from_slice(&event[text.end..]);
    }

    /// Remembers an event by its text, a slice of it.
    pub(crate) fn learn_text(&mut self, event: &[u8], text: &str) {
        let start = (text.as_ptr() as usize).wrapping_sub(event.as_ptr() as usize);
        if start.checked_add(text.len()).is_some_and(|end| end <= event.len()) {
            self.learn(event, &(start..start + text.len()));
        }
    }

    /// The inside of the text's JSON string, if everything around it is as it was.
    pub(crate) fn inside<'a>(&self, event: &'a [u8]) -> Option<&'a [u8]> {
        if self.after.is_empty() {
            return None;
        }
        let text = event.strip_prefix(&*self.before)?.strip_suffix(&*self.after)?;
        let mut rest = text;
        while let Some(at) = memchr::memchr2(b'"', b'\\', rest) {
            if rest[at] == b'"' {
                return None;
            }
            // Without an escaped character behind it the backslash would belong to the closing quote.
            rest = rest.get(at + 2..)?;
        }
        Some(text)
    }

    /// The text itself, if everything around it is as it was and nothing in it is escaped.
    pub(crate) fn plain<'a>(&self, event: &'a [u8]) -> Option<&'a str> {
        if self.after.is_empty() {
            return None;
        }
        let text = event.strip_prefix(&*self.before)?.strip_suffix(&*self.after)?;
        let is_plain = text.iter().all(|byte| *byte >= 0x20 && !matches!(byte, b'"' | b'\\'));
        if is_plain { std::str::from_utf8(text).ok() } else { None }
    }

    /// Whether the place is before the text, and so is the same in every event that looks like this one.
    pub(crate) fn is_before(&self, place: &Range<usize>) -> bool {
        !self.after.is_empty() && place.end <= self.before.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learned(event: &str, text: &str) -> LastChunk {
        let mut last = LastChunk::default();
        let start = event.find(text).unwrap();
        last.learn_text(event.as_bytes(), &event[start..start + text.len()]);
        last
    }

    #[test]
    fn only_the_text_may_differ() {
        let last = learned(r#"{"a":1,"t":"one","z":2}"#, "one");
        for (event, inside, plain) in [
            (r#"{"a":1,"t":"two","z":2}"#, Some("two"), Some("two")),
            (r#"{"a":1,"t":"","z":2}"#, Some(""), Some("")),
            (r#"{"a":1,"t":"ü","z":2}"#, Some("ü"), Some("ü")),
            (r#"{"a":1,"t":"a\"b\\","z":2}"#, Some(r#"a\"b\\"#), None),
            (r#"{"a":1,"t":"a\","z":2}"#, None, None),
            (r#"{"a":1,"t":"x","y":"","z":2}"#, None, None),
            (r#"{"a":2,"t":"two","z":2}"#, None, None),
            (r#"{"a":1,"t":"two","z":2} "#, None, None),
            (r#"{"a":1,"t":","z":2}"#, None, None),
            (r#"{"a":1"#, None, None),
            ("{\"a\":1,\"t\":\"a\nb\",\"z\":2}", Some("a\nb"), None),
        ] {
            assert_eq!(last.inside(event.as_bytes()), inside.map(str::as_bytes), "{event}");
            assert_eq!(last.plain(event.as_bytes()), plain, "{event}");
        }
        assert_eq!(last.plain(b"{\"a\":1,\"t\":\"\xff\",\"z\":2}"), None);
    }

    #[test]
    fn what_is_no_string_or_too_long_is_not_remembered() {
        for event in [r#"{"t":one}"#.to_owned(), format!(r#"{{"t":"one","p":"{}"}}"#, "x".repeat(MAX_AROUND))]
        {
            assert_eq!(learned(&event, "one").inside(event.as_bytes()), None);
        }
        let mut last = learned(r#"{"t":"one"}"#, "one");
        assert!(last.is_before(&(2..3)) && !last.is_before(&(8..9)));
        last.learn_text(br#"{"t":"two"}"#, "elsewhere");
        assert_eq!(
            last.inside(br#"{"t":"two"}"#),
            Some(&b"two"[..]),
            "a text from elsewhere changes nothing"
        );
    }
}
