//! Members of a JSON object, or of one within it, as spans to cut out or rename.

use std::ops::Range;

use crate::envelope::scan;

/// The spans to cut out so that the members for which `unwanted` says yes are gone, each with the comma that goes with
/// it. `from` is where `object` begins in the body that the spans are of. Nothing for what is not an object.
pub fn removals(object: &[u8], from: usize, unwanted: &mut dyn FnMut(&str) -> bool) -> Vec<Range<usize>> {
    let mut spans = Vec::new();
    // Where the last kept or cut member ends; where a run of unwanted ones at the head of the object begins.
    let mut end = None;
    let mut leading = None;
    let scanned = scan(object, &mut |member| {
        if !unwanted(&member.key) {
            if let Some(start) = leading.take() {
                spans.push(from + start..from + member.start);
            }
            end = Some(member.span.end);
        } else if let Some(end) = end.replace(member.span.end).filter(|_| leading.is_none()) {
            spans.push(from + end..from + member.span.end);
        } else {
            leading.get_or_insert(member.start);
        }
    });
    if let Some(start) = leading {
        spans.push(from + start..from + end.unwrap_or(start));
    }
    if scanned.is_ok() { spans } else { Vec::new() }
}

/// The spans to cut out so that the member at this path (`temperature`, `generationConfig.topK`) is gone.
pub fn removal(body: &[u8], path: &str) -> Vec<Range<usize>> {
    let (mut object, mut from, mut rest) = (body, 0, path);
    while let Some((outer, inner)) = rest.split_once('.') {
        let Some(span) = value_of(object, outer) else { return Vec::new() };
        from += span.start;
        object = &object[span];
        rest = inner;
    }
    removals(object, from, &mut |key| key == rest)
}

/// Where the name of a top-level member stands, quotes included.
pub fn name_of(body: &[u8], name: &str) -> Option<Range<usize>> {
    let mut found = None;
    let scanned = scan(body, &mut |member| {
        if member.key == name {
            // Between the name and its value are a colon and perhaps white space.
            let length = body[member.start..member.span.start].iter().rposition(|byte| *byte == b'"');
            found = length.map(|length| member.start..member.start + length + 1);
        }
    });
    found.filter(|_| scanned.is_ok())
}

/// Checks on arbitrary bytes that a member can be cut out of an object, alone or within another, and nothing else goes.
/// The first line is the path.
#[doc(hidden)]
pub fn fuzz_members(data: &[u8]) {
    let (path, body) = match memchr::memchr(b'\n', data) {
        Some(end) => (String::from_utf8_lossy(&data[..end]), &data[end + 1..]),
        None => ("a".into(), data),
    };
    let kept = |body: &[u8]| -> Option<Vec<(String, String)>> {
        let mut kept = Vec::new();
        let scanned = scan(body, &mut |member| {
            if member.key != path {
                kept.push((member.key.into_owned(), member.raw.to_owned()));
            }
        });
        scanned.is_ok().then_some(kept)
    };
    if let Some(name) = name_of(body, &path) {
        assert!(body[name.clone()].starts_with(b"\"") && body[name].ends_with(b"\""));
    }
    let mut splice = crate::splice::Splice::new(bytes::Bytes::copy_from_slice(body));
    for span in removal(body, &path) {
        splice.replace(span, bytes::Bytes::new());
    }
    let cut = splice.to_bytes();
    assert!(removal(&cut, &path).is_empty(), "a member was left");
    match kept(body) {
        None => assert_eq!(cut, body, "what is not an object is left alone"),
        Some(_) if path.contains('.') => assert!(kept(&cut).is_some(), "an object was broken"),
        Some(before) => assert_eq!(kept(&cut), Some(before), "another member was touched"),
    }
}

fn value_of(object: &[u8], name: &str) -> Option<Range<usize>> {
    let mut found = None;
    let scanned = scan(object, &mut |member| {
        if member.key == name {
            found = Some(member.span);
        }
    });
    found.filter(|_| scanned.is_ok())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::splice::Splice;

    fn without(body: &str, path: &str) -> String {
        let mut splice = Splice::new(Bytes::copy_from_slice(body.as_bytes()));
        for span in removal(body.as_bytes(), path) {
            splice.replace(span, Bytes::new());
        }
        String::from_utf8(splice.to_bytes().to_vec()).unwrap()
    }

    #[test]
    fn members_go_with_their_commas() {
        for (body, path, expected) in [
            (r#"{"a":1,"b":2,"c":3}"#, "a", r#"{"b":2,"c":3}"#),
            (r#"{"a":1, "b" : 2 ,"c":3}"#, "b", r#"{"a":1 ,"c":3}"#),
            (r#"{"a":1,"b":2}"#, "b", r#"{"a":1}"#),
            (r#"{"a":1}"#, "a", "{}"),
            (r#"{"a":1,"a":2}"#, "a", "{}"),
            (r#"{"a":1,"b":0,"a":2}"#, "a", r#"{"b":0}"#),
            (r#"{"x":[],"g":{"a":1,"k":{"z":1},"b":2}}"#, "g.k", r#"{"x":[],"g":{"a":1,"b":2}}"#),
            (r#"{"g":{"k":1}}"#, "g.k", r#"{"g":{}}"#),
            (r#"{"g":1}"#, "g.k", r#"{"g":1}"#),
            (r#"{"a":1}"#, "z", r#"{"a":1}"#),
            ("[1]", "a", "[1]"),
        ] {
            assert_eq!(without(body, path), expected, "{body} without {path}");
        }
    }

    #[test]
    fn names_are_found_with_their_quotes() {
        let body = r#"{"a" : 1,"max_tokens" : 5}"#;
        assert_eq!(&body[name_of(body.as_bytes(), "max_tokens").unwrap()], "\"max_tokens\"");
        assert_eq!(name_of(body.as_bytes(), "b"), None);
    }
}
