//! JSON strings: unescaping that accepts what appears in practice.

use std::{borrow::Cow, ops::Range};

/// The kind of a JSON value in words, for error messages.
pub fn kind_of(raw: &str) -> &'static str {
    match raw.as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        Some(_) => "a number",
        None => "nothing",
    }
}

/// Resolves the escapes between the quotes of a valid JSON string. Borrows when there are none.
pub fn unescape(inner: &str) -> Cow<'_, str> {
    let Some(first) = memchr::memchr(b'\\', inner.as_bytes()) else { return Cow::Borrowed(inner) };
    let mut text = String::with_capacity(inner.len());
    let mut rest = inner;
    let mut next = Some(first);
    while let Some(at) = next {
        text.push_str(&rest[..at]);
        let bytes = rest.as_bytes();
        let mut used = 2;
        match bytes.get(at + 1) {
            Some(b'n') => text.push('\n'),
            Some(b't') => text.push('\t'),
            Some(b'r') => text.push('\r'),
            Some(b'b') => text.push('\u{8}'),
            Some(b'f') => text.push('\u{c}'),
            Some(b'u') => {
                let unit = hex4(bytes, at + 2).unwrap_or(0xfffd);
                used = 6;
                let low = match bytes.get(at + 6..at + 8) {
                    Some(b"\\u") if (0xd800..0xdc00).contains(&unit) => {
                        hex4(bytes, at + 8).filter(|low| (0xdc00..0xe000).contains(low))
                    }
                    _ => None,
                };
                if let Some(low) = low {
                    used = 12;
                    let point = 0x10000 + ((u32::from(unit) - 0xd800) << 10) + (u32::from(low) - 0xdc00);
                    text.push(char::from_u32(point).unwrap_or('\u{fffd}'));
                } else {
                    text.push(char::from_u32(u32::from(unit)).unwrap_or('\u{fffd}'));
                }
            }
            Some(other) if other.is_ascii() => text.push(char::from(*other)),
            _ => {
                text.push('\u{fffd}');
                used = 1;
            }
        }
        rest = rest.get(at + used..).unwrap_or_default();
        next = memchr::memchr(b'\\', rest.as_bytes());
    }
    text.push_str(rest);
    Cow::Owned(text)
}

/// Shows the span of every lone surrogate escape (`\ud83d` without its pair) in JSON text.
pub fn lone_surrogates(json: &[u8], visit: &mut dyn FnMut(Range<usize>)) {
    let finder = memchr::memmem::Finder::new(b"\\u");
    let mut position = 0;
    while let Some(found) = json.get(position..).and_then(|rest| finder.find(rest)) {
        let at = position + found;
        let escaping = json[..at].iter().rev().take_while(|byte| **byte == b'\\').count();
        if escaping % 2 == 1 {
            position = at + 2;
            continue;
        }
        position = at + 6;
        match hex4(json, at + 2) {
            Some(0xd800..0xdc00) => {
                let pair = json.get(at + 6..at + 8) == Some(b"\\u")
                    && matches!(hex4(json, at + 8), Some(0xdc00..0xe000));
                if pair {
                    position = at + 12;
                } else {
                    visit(at..at + 6);
                }
            }
            Some(0xdc00..0xe000) => visit(at..at + 6),
            Some(_) => {}
            None => position = at + 2,
        }
    }
}

fn hex4(bytes: &[u8], at: usize) -> Option<u16> {
    let digits = bytes.get(at..at + 4)?;
    digits.iter().try_fold(0, |unit: u16, digit| {
        let value = char::from(*digit).to_digit(16)?;
        Some(unit << 4 | u16::try_from(value).ok()?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_resolved() {
        for (inner, expected) in [
            ("plain ✓", "plain ✓"),
            (r#"a\n\t\r\b\f\"\\\/"#, "a\n\t\r\u{8}\u{c}\"\\/"),
            (r"\u00e9\u4f60", "é你"),
            (r"\ud83d\ude00!", "😀!"),
            (r"\ud83d", "\u{fffd}"),
            (r"\ud83dx\ude00", "\u{fffd}x\u{fffd}"),
            (r"\ud83d\u0041", "\u{fffd}A"),
        ] {
            assert_eq!(unescape(inner), expected, "{inner}");
        }
    }

    #[test]
    fn lone_surrogates_are_found_and_pairs_are_not() {
        let json =
            br#"{"a":"\ud83d","b":"\ud83d\ude00","c":"\\ud83d","d":"\\\uDE00","e":"\ud83d\ud83d\ude00"}"#;
        let mut found = Vec::new();
        lone_surrogates(json, &mut |span| found.push(String::from_utf8_lossy(&json[span]).into_owned()));
        assert_eq!(found, [r"\ud83d", r"\uDE00", r"\ud83d"]);
    }

    proptest::proptest! {
        #[test]
        fn unescaping_agrees_with_the_parser(text in ".*") {
            let json = serde_json::to_string(&text).unwrap();
            proptest::prop_assert_eq!(crate::envelope::as_str(&json).unwrap(), text);
        }

        #[test]
        fn surrogate_search_never_panics(data in r"[\\ud8c0-9x]{0,40}") {
            lone_surrogates(data.as_bytes(), &mut |span| assert!(span.end <= data.len()));
            let _ = unescape(&data);
        }
    }
}
