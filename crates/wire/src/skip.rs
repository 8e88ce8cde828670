//! Where JSON values end: a validating walk that builds nothing.
//!
//! `None` is "not JSON"; who wants to know where and why asks serde_json, which accepts exactly the same.

use fearless_simd::Level;

use crate::string;

/// A walk over a text, and what was seen in it.
pub(crate) struct Walk<'a> {
    bytes: &'a [u8],
    level: Level,
    marks: &'static [&'static str],
    /// Which of the marks a string begins with: bit n for the mark at n.
    pub(crate) found: u32,
    /// Whether any string has escapes of surrogates, in pairs or not.
    pub(crate) has_surrogates: bool,
}

impl<'a> Walk<'a> {
    /// Begins at no place in particular.
    pub(crate) fn over(bytes: &'a [u8], marks: &'static [&'static str]) -> Self {
        Self { bytes, level: Level::new(), marks, found: 0, has_surrogates: false }
    }

    /// Just behind the value that begins at `at`, white space before it allowed. Nesting may be of any depth.
    pub(crate) fn value(&mut self, mut at: usize) -> Option<usize> {
        let bytes = self.bytes;
        let mut open = Brackets::default();
        loop {
            at = space(bytes, at);
            match *bytes.get(at)? {
                b'"' => at = self.string(at)?,
                b'{' => {
                    open.push(true);
                    at = space(bytes, at + 1);
                    if *bytes.get(at)? != b'}' {
                        at = self.name(at)?.1;
                        continue;
                    }
                    open.pop();
                    at += 1;
                }
                b'[' => {
                    open.push(false);
                    at = space(bytes, at + 1);
                    if *bytes.get(at)? != b']' {
                        continue;
                    }
                    open.pop();
                    at += 1;
                }
                b'-' | b'0'..=b'9' => at = number(bytes, at)?,
                b't' => at = word(bytes, at, b"true")?,
                b'f' => at = word(bytes, at, b"false")?,
                b'n' => at = word(bytes, at, b"null")?,
                _ => return None,
            }
            // Behind a value: close what ends here, go on with what does not.
            loop {
                if open.depth == 0 {
                    return Some(at);
                }
                at = space(bytes, at);
                match (*bytes.get(at)?, open.is_object()) {
                    (b',', true) => {
                        at = self.name(space(bytes, at + 1))?.1;
                        break;
                    }
                    (b',', false) => {
                        at += 1;
                        break;
                    }
                    (b'}', true) | (b']', false) => {
                        open.pop();
                        at += 1;
                    }
                    _ => return None,
                }
            }
        }
    }

    /// Just behind the string that is a member's name at `at`, and just behind the colon that follows it.
    pub(crate) fn name(&mut self, at: usize) -> Option<(usize, usize)> {
        let bytes = self.bytes;
        if *bytes.get(at)? != b'"' {
            return None;
        }
        let end = self.string(at)?;
        let colon = space(bytes, end);
        (*bytes.get(colon)? == b':').then_some((end, colon + 1))
    }

    /// Just behind the closing quote of the string whose opening quote is at `at`.
    #[inline]
    fn string(&mut self, at: usize) -> Option<usize> {
        let checked = string::check(self.level, self.bytes, at)?;
        self.has_surrogates |= checked.has_surrogates;
        let text = &self.bytes[at + 1..checked.end];
        for (at, mark) in self.marks.iter().enumerate() {
            self.found |= u32::from(text.starts_with(mark.as_bytes())) << at;
        }
        Some(checked.end)
    }
}

/// Just behind the white space at `at`.
pub(crate) fn space(bytes: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\n' | b'\t' | b'\r') = bytes.get(at) {
        at += 1;
        // Indentation.
        while bytes.get(at..).and_then(|rest| rest.first_chunk()) == Some(b"        ") {
            at += 8;
        }
    }
    at
}

/// Just behind the number at `at`.
fn number(bytes: &[u8], mut at: usize) -> Option<usize> {
    at += usize::from(bytes[at] == b'-');
    if *bytes.get(at)? == b'0' {
        at += 1;
    } else {
        at = digits(bytes, at)?;
    }
    if bytes.get(at) == Some(&b'.') {
        at = digits(bytes, at + 1)?;
    }
    if let Some(b'e' | b'E') = bytes.get(at) {
        at += 1;
        if let Some(b'+' | b'-') = bytes.get(at) {
            at += 1;
        }
        at = digits(bytes, at)?;
    }
    // A digit here would follow a leading zero.
    if bytes.get(at).is_some_and(u8::is_ascii_digit) { None } else { Some(at) }
}

/// Just behind the digits at `at`; at least one.
fn digits(bytes: &[u8], at: usize) -> Option<usize> {
    let count = bytes.get(at..)?.iter().take_while(|byte| byte.is_ascii_digit()).count();
    (count > 0).then_some(at + count)
}

fn word(bytes: &[u8], at: usize, word: &[u8]) -> Option<usize> {
    bytes[at..].starts_with(word).then_some(at + word.len())
}

/// The brackets that are open, a bit for each; needs memory only for nesting of more than 64.
#[derive(Default)]
struct Brackets {
    depth: usize,
    /// The innermost ones, the last in the lowest bit: 1 = object.
    inner: u64,
    outer: Vec<u64>,
}

impl Brackets {
    fn push(&mut self, is_object: bool) {
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.outer.push(self.inner);
        }
        self.inner = self.inner << 1 | u64::from(is_object);
        self.depth += 1;
    }

    fn pop(&mut self) {
        self.depth -= 1;
        self.inner >>= 1;
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.inner = self.outer.pop().unwrap_or(0);
        }
    }

    const fn is_object(&self) -> bool {
        self.inner & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::IgnoredAny;

    use super::*;

    /// Whether the text is one JSON value, as we see it.
    fn is_json(text: &str) -> bool {
        Walk::over(text.as_bytes(), &[]).value(0).is_some_and(|end| space(text.as_bytes(), end) == text.len())
    }

    fn agrees(text: &str) {
        assert_eq!(is_json(text), serde_json::from_str::<IgnoredAny>(text).is_ok(), "{text}");
    }

    #[test]
    fn it_accepts_what_serde_json_accepts() {
        for text in [
            "",
            " ",
            "0",
            "-0",
            "01",
            "-",
            "1.",
            "1.5e",
            "1.5e+3",
            "1E5",
            "-1.25E-7 ",
            ".5",
            "+1",
            "1 2",
            "0x1",
            "true",
            "tru",
            "truex",
            "nul",
            "null ",
            "false",
            "\"\"",
            "\"a",
            "\"\\u12G4\"",
            "\"\\ud83d\"",
            "\"\\x\"",
            "\"\\",
            "\"a\u{1}\"",
            "\"a\nb\"",
            "\"ä\u{7f}\"",
            "[]",
            "[ ]",
            "[1,]",
            "[,1]",
            "[1 2]",
            "[1}",
            "{}",
            "{ }",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{\"a\":1 , \"b\" : [ { } , \"\\\"\" ] }",
            "{a:1}",
            "{\"a\":1]",
            "{\"a\" 1}",
            "[[[[{\"x\":[{}]}]]]]",
            "]",
            "}",
            "{\"a\":[1,{\"b\":2]}",
            "\u{a0}1",
        ] {
            agrees(text);
        }
    }

    #[test]
    fn the_place_in_a_word_does_not_matter() {
        for length in 0..300 {
            for odd in ["\"", "\\\"", "\\u00e9", "\u{1f}", "\t", "\u{80}", "\\", "ÿ"] {
                agrees(&format!("\"{}{odd}{}\"", "x".repeat(length), "y".repeat(length % 70)));
            }
        }
    }

    #[test]
    fn depth_is_remembered_across_words_of_bits() {
        for depth in [63, 64, 65, 127, 128, 129, 200, 5_000] {
            let mixed = "[{\"a\":".repeat(depth);
            let back = "}]".repeat(depth);
            agrees(&format!("{mixed}1{back}"));
            assert!(is_json(&format!("{mixed}1{back}")));
            assert!(!is_json(&format!("{mixed}1{}", back.replacen("}]", "]}", 1))));
            assert!(!is_json(&format!("{mixed}1{}", &back[..back.len() - 1])));
        }
    }

    proptest! {
        #[test]
        fn it_agrees_on_what_looks_like_json(text in r#"[{}\[\]",:\\u0-9a-f \-+.eE\n\x01ü]{0,40}"#) {
            agrees(&text);
        }

        #[test]
        fn it_agrees_on_strings(text in r#""[a-z\\"nu0-9é\x1f]{0,90}""#) {
            agrees(&text);
        }

        #[test]
        fn it_agrees_on_long_strings(
            parts in proptest::collection::vec(r#"[a-zäß你😀]{1,40}|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4}"#, 0..60),
            odd in r#"|["\\\x00-\x1f]|\\.|\\u.{0,4}"#,
            place in any::<prop::sample::Index>(),
        ) {
            let at = place.index(parts.len() + 1);
            let text = format!("\"{}{odd}{}\"", parts[..at].concat(), parts[at..].concat());
            agrees(&text);
            agrees(&text[..text.floor_char_boundary(place.index(text.len()))]);
        }

        #[test]
        fn it_agrees_on_indentation(text in r#"\[( {0,20}|\n {0,40}|\t|\r\n)[0-9]( {0,20}|\n {0,40}|\f)(, {0,9})?[0-9]?\]"#) {
            agrees(&text);
        }

        #[test]
        fn it_agrees_on_lists(text in r#"\[("[a-z]{0,20}"|-?[0-9]{1,3}(\.[0-9])?|\{"a":\[(true|null)?\]\}|,| ){0,9}\]"#) {
            agrees(&text);
        }
    }
}
