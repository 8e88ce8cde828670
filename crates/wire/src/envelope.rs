//! The top-level members of a JSON object as spans: one validating pass, no tree.

use std::{borrow::Cow, ops::Range};

use serde::de::IgnoredAny;

use crate::{
    skip::{self, Walk},
    text::unescape,
};

/// A member of the top-level object.
#[derive(Debug, Clone)]
pub struct Member<'a> {
    /// Its name, unescaped.
    pub key: Cow<'a, str>,
    /// The JSON text of its value.
    pub raw: &'a str,
    /// Where the value stands in the body.
    pub span: Range<usize>,
    /// Where the member begins: the opening quote of its name.
    pub start: usize,
}

/// Where a member can be added to the object, and what was seen in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Just behind the last member, or behind the opening brace when there is none.
    pub end: usize,
    /// Whether there is a member before that place.
    pub has_members: bool,
    /// Whether any string of the object has escapes of surrogates, in pairs or not.
    pub has_surrogates: bool,
    /// With which of the marks that were looked for a string of the object begins: bit n for the mark at n.
    pub marks: u32,
}

/// Why a body has no members to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScanError {
    /// Not JSON.
    #[error("body is not valid JSON (byte {offset})")]
    NotJson {
        /// The first byte that does not fit.
        offset: usize,
    },
    /// JSON of another kind.
    #[error("body is not a JSON object")]
    NotAnObject,
    /// Not text.
    #[error("body is not valid UTF-8 (byte {offset})")]
    NotUtf8 {
        /// The first byte that does not fit.
        offset: usize,
    },
}

/// Shows every member of the object that `body` is, in order; repeated names are shown each time.
///
/// The whole body is checked to be JSON; members of one that is not may have been shown before that is found out. A
/// byte-order mark is tolerated, and so are lone surrogates in strings.
pub fn scan<'a>(body: &'a [u8], visit: &mut dyn FnMut(Member<'a>)) -> Result<Extent, ScanError> {
    scan_for(body, &[], visit)
}

/// The same, and a look at how each string of the object begins: [`Extent::marks`]. Up to 32 marks.
pub fn scan_for<'a>(
    body: &'a [u8],
    marks: &'static [&'static str],
    visit: &mut dyn FnMut(Member<'a>),
) -> Result<Extent, ScanError> {
    let Ok(whole) = simdutf8::basic::from_utf8(body) else {
        // Where is found out only when it is asked.
        let offset = std::str::from_utf8(body).map_or_else(|error| error.valid_up_to(), str::len);
        return Err(ScanError::NotUtf8 { offset });
    };
    scan_text(whole, marks, visit)
}

/// As [`scan`], for a body that is known to be UTF-8.
pub fn scan_str<'a>(whole: &'a str, visit: &mut dyn FnMut(Member<'a>)) -> Result<Extent, ScanError> {
    scan_text(whole, &[], visit)
}

fn scan_text<'a>(
    whole: &'a str,
    marks: &'static [&'static str],
    visit: &mut dyn FnMut(Member<'a>),
) -> Result<Extent, ScanError> {
    let text = whole.strip_prefix('\u{feff}').unwrap_or(whole);
    let skipped = whole.len() - text.len();
    let brace = skipped + text.len() - text.trim_start_matches([' ', '\t', '\n', '\r']).len();
    if whole.as_bytes().get(brace) == Some(&b'{')
        && let Some(extent) = members(whole, brace, marks, visit)
    {
        return Ok(extent);
    }
    Err(match serde_json::from_str::<IgnoredAny>(text) {
        Ok(_) => ScanError::NotAnObject,
        Err(error) => ScanError::NotJson { offset: skipped + offset_of(text, &error) },
    })
}

/// The text of a JSON string; lone surrogates become U+FFFD. `None` for other kinds of values.
pub fn as_str(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    Some(unescape(inner))
}

/// The value of a JSON boolean.
pub fn as_bool(raw: &str) -> Option<bool> {
    match raw {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

/// The value of a non-negative whole JSON number.
pub fn as_u64(raw: &str) -> Option<u64> {
    if raw.starts_with(|first: char| first.is_ascii_digit()) { raw.parse().ok() } else { None }
}

/// Checks the scanner on arbitrary bytes.
#[doc(hidden)]
pub fn fuzz_scan(data: &[u8]) {
    let mut last = 0;
    let scanned = scan(data, &mut |member| {
        assert_eq!(&data[member.span.clone()], member.raw.as_bytes());
        assert!(data[member.start] == b'"' && member.start < member.span.start);
        assert!(member.span.start > last);
        last = member.span.end;
        let _ = as_str(member.raw);
    });
    match scanned {
        Ok(extent) => {
            assert!(extent.end >= last && extent.end < data.len());
            assert!(
                serde_json::from_slice::<IgnoredAny>(data.strip_prefix(b"\xef\xbb\xbf").unwrap_or(data))
                    .is_ok()
            );
        }
        Err(ScanError::NotJson { offset } | ScanError::NotUtf8 { offset }) => assert!(offset <= data.len()),
        Err(ScanError::NotAnObject) => {
            let start = data.strip_prefix(b"\xef\xbb\xbf").unwrap_or(data).trim_ascii_start();
            assert_ne!(start.first(), Some(&b'{'), "an object was refused");
        }
    }
}

/// Walks over the object that begins at `brace` and is all there is; `None` when it is not JSON.
fn members<'a>(
    whole: &'a str,
    brace: usize,
    marks: &'static [&'static str],
    visit: &mut dyn FnMut(Member<'a>),
) -> Option<Extent> {
    let bytes = whole.as_bytes();
    let mut walk = Walk::over(bytes, marks);
    let Object { end, has_members, behind } = object(whole, brace, &mut walk, visit)?;
    let Walk { has_surrogates, found: marks, .. } = walk;
    let extent = Extent { end, has_members, has_surrogates, marks };
    (skip::space(bytes, behind) == bytes.len()).then_some(extent)
}

/// Where an object ends.
pub(crate) struct Object {
    /// As in [`Extent`].
    end: usize,
    has_members: bool,
    /// Just behind the closing brace.
    pub(crate) behind: usize,
}

/// Walks over the object that begins at `brace`, whatever follows it; `None` when it is not JSON.
pub(crate) fn object<'a>(
    whole: &'a str,
    brace: usize,
    walk: &mut Walk<'_>,
    visit: &mut dyn FnMut(Member<'a>),
) -> Option<Object> {
    let bytes = whole.as_bytes();
    let mut object = Object { end: brace + 1, has_members: false, behind: 0 };
    let mut at = skip::space(bytes, brace + 1);
    while object.has_members || *bytes.get(at)? != b'}' {
        let start = at;
        let (key_end, behind_colon) = walk.name(start)?;
        let begin = skip::space(bytes, behind_colon);
        let end = walk.value(begin)?;
        let (key, raw) = (whole.get(start..key_end)?, whole.get(begin..end)?);
        (object.end, object.has_members) = (end, true);
        visit(Member { key: as_str(key).unwrap_or(Cow::Borrowed(key)), raw, span: begin..end, start });
        at = skip::space(bytes, end);
        match *bytes.get(at)? {
            b',' => at = skip::space(bytes, at + 1),
            b'}' => break,
            _ => return None,
        }
    }
    object.behind = at + 1;
    Some(object)
}

/// Lines and columns of the parser, counted from one, as a byte offset.
fn offset_of(text: &str, error: &serde_json::Error) -> usize {
    let before: usize = text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
    (before + error.column().saturating_sub(1)).min(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(body: &str) -> Result<(Vec<(String, String)>, Extent), ScanError> {
        let mut seen = Vec::new();
        let extent = scan(body.as_bytes(), &mut |member| {
            assert_eq!(&body[member.span.clone()], member.raw);
            seen.push((member.key.into_owned(), member.raw.to_owned()));
        })?;
        Ok((seen, extent))
    }

    #[test]
    fn members_are_shown_with_their_places() {
        let body = "\u{feff} {\"model\" : \"a\\u0062\", \"n\":1e-9 ,\"model\":[1, {\"x\":2}] } ";
        let (seen, extent) = members(body).unwrap();
        assert_eq!(
            seen,
            [("model", "\"a\\u0062\""), ("n", "1e-9"), ("model", "[1, {\"x\":2}]")]
                .map(|(key, raw)| (key.to_owned(), raw.to_owned()))
        );
        assert!(extent.has_members);
        assert_eq!(&body[extent.end..], " } ");
        assert_eq!(as_str(&seen[0].1).unwrap(), "ab");
    }

    #[test]
    fn an_empty_object_has_a_place_for_a_member() {
        assert_eq!(
            members(" { }").unwrap().1,
            Extent { end: 2, has_members: false, has_surrogates: false, marks: 0 }
        );
    }

    #[test]
    fn lone_surrogates_are_accepted_anywhere() {
        let (seen, _) = members(r#"{"\ud83d":"x\ud83d","pair":"\ud83d\ude00"}"#).unwrap();
        assert_eq!(seen[0].0, "\u{fffd}");
        assert_eq!(as_str(&seen[0].1).unwrap(), "x\u{fffd}");
        assert_eq!(as_str(&seen[1].1).unwrap(), "😀");
    }

    #[test]
    fn marks_are_found_where_strings_begin() {
        for (body, expected) in [
            (r#"{"a":[{"b":"mark-1"}]}"#, 2),
            (r#"{"a":{"mark-2":1}}"#, 2),
            (r#"{"a":"mark-"}"#, 2),
            (r#"{"mark-":"others"}"#, 3),
            (r#"{"a":"mark"}"#, 0),
            (r#"{"a":" mark-1"}"#, 0),
            (r#"{"a":"\"mark-1"}"#, 0),
            ("{}", 0),
        ] {
            let extent = scan_for(body.as_bytes(), &["other", "mark-"], &mut |_| {}).unwrap();
            assert_eq!(extent.marks, expected, "{body}");
        }
    }

    #[test]
    fn what_is_not_an_object_is_named() {
        for (body, expected) in [
            ("", ScanError::NotJson { offset: 0 }),
            ("[1]", ScanError::NotAnObject),
            ("null", ScanError::NotAnObject),
            ("hello", ScanError::NotJson { offset: 0 }),
            ("{\"a\":1} x", ScanError::NotJson { offset: 8 }),
            ("{\"a\":01}", ScanError::NotJson { offset: 6 }),
        ] {
            assert_eq!(members(body).unwrap_err(), expected, "{body}");
        }
        assert_eq!(scan(b"{\"a\":\"\xff\"}", &mut |_| {}), Err(ScanError::NotUtf8 { offset: 6 }));
        let long = [b"{\"a\":\"", "ä".repeat(500).as_bytes(), b"\xc3\"}"].concat();
        assert_eq!(scan(&long, &mut |_| {}), Err(ScanError::NotUtf8 { offset: 1_006 }));
        assert!(matches!(members("{\n\"a\": tru\n}"), Err(ScanError::NotJson { offset: 8..=11 })));
    }

    #[test]
    fn deep_nesting_does_not_exhaust_the_stack() {
        let body = format!("{{\"a\":{}{}}}", "[".repeat(200_000), "]".repeat(200_000));
        assert!(members(&body).is_ok());
    }

    #[test]
    fn small_values_are_read() {
        assert_eq!(as_bool("true"), Some(true));
        assert_eq!(as_bool("\"true\""), None);
        assert_eq!(as_u64("42"), Some(42));
        assert_eq!(as_u64("4.2"), None);
        assert_eq!(as_u64("-1"), None);
        assert_eq!(as_str("1"), None);
    }

    proptest::proptest! {
        #[test]
        fn scanning_never_panics(data in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            fuzz_scan(&data);
        }

        #[test]
        fn near_json_never_panics(data in r#"[{}\[\]",:\\u0-9a-f dtrue]{0,60}"#) {
            fuzz_scan(data.as_bytes());
        }
    }
}
