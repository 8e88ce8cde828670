//! Edits of JSON bodies by name. What is not edited keeps its bytes; what is not JSON is left alone.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use omniroute_wire::{
    envelope::{as_str, as_u64, scan},
    json_out, members,
    splice::Splice,
};
use serde_json::value::RawValue;

use super::SystemEdit;

/// Where the value of a member stands; of several the last one, as readers take it.
pub(crate) fn member(object: &[u8], name: &str) -> Option<Range<usize>> {
    let mut found = None;
    let scanned = scan(object, &mut |member| {
        if member.key == name {
            found = Some(member.span);
        }
    });
    found.filter(|_| scanned.is_ok())
}

/// The first of these names that the object has.
pub(crate) fn known<'n>(object: &[u8], names: &[&'n str]) -> Option<&'n str> {
    names.iter().copied().find(|name| member(object, name).is_some())
}

/// The value of a member, unless it is `null`.
pub(crate) fn value<'b>(object: &'b [u8], name: &str) -> Option<&'b str> {
    let text = std::str::from_utf8(&object[member(object, name)?]).ok()?;
    (text != "null").then_some(text)
}

/// The number that a member is.
pub(crate) fn number(object: &[u8], name: &str) -> Option<u64> {
    value(object, name).and_then(as_u64)
}

/// The text that a member is.
pub(crate) fn text(object: &[u8], name: &str) -> Option<String> {
    value(object, name).and_then(as_str).map(|text| text.into_owned())
}

/// Sets a member: in its place, or behind the last one.
pub(crate) fn put(object: &Bytes, name: &str, value: &[u8]) -> Bytes {
    let mut splice = Splice::new(object.clone());
    if let Some(span) = member(object, name) {
        splice.replace(span, Bytes::copy_from_slice(value));
        return splice.to_bytes();
    }
    let Ok(extent) = scan(object, &mut |_| {}) else { return object.clone() };
    let mut added = BytesMut::with_capacity(name.len() + value.len() + 4);
    if extent.has_members {
        added.extend_from_slice(b",");
    }
    json_out::string(&mut added, name);
    added.extend_from_slice(b":");
    added.extend_from_slice(value);
    splice.replace(extent.end..extent.end, added.freeze());
    splice.to_bytes()
}

/// Takes members out.
pub(crate) fn take(object: &Bytes, names: &[&str]) -> Bytes {
    let spans = members::removals(object, 0, &mut |key| names.contains(&key));
    if spans.is_empty() {
        return object.clone();
    }
    let mut splice = Splice::new(object.clone());
    for span in spans {
        splice.replace(span, Bytes::new());
    }
    splice.to_bytes()
}

/// Edits the value of a member, if there is one that is not `null`.
pub(crate) fn within(object: &Bytes, name: &str, edit: impl FnOnce(&Bytes) -> Bytes) -> Bytes {
    let Some(span) = member(object, name).filter(|span| object[span.clone()] != b"null"[..]) else {
        return object.clone();
    };
    let inner = object.slice(span.clone());
    let edited = edit(&inner);
    if edited == inner {
        return object.clone();
    }
    let mut splice = Splice::new(object.clone());
    splice.replace(span, edited);
    splice.to_bytes()
}

/// Edits an object that is a member, or makes one.
pub(crate) fn within_object(object: &Bytes, name: &str, edit: impl FnOnce(&Bytes) -> Bytes) -> Bytes {
    if value(object, name).is_some_and(|text| text.starts_with('{')) {
        within(object, name, edit)
    } else {
        put(object, name, &edit(&Bytes::from_static(b"{}")))
    }
}

/// Takes a member out of an object that is a member, and that one too when nothing is left of it.
pub(crate) fn take_within(object: &Bytes, name: &str, names: &[&str]) -> Bytes {
    let edited = within(object, name, |inner| take(inner, names));
    let is_empty = value(&edited, name)
        .is_some_and(|text| text.strip_prefix('{').is_some_and(|rest| rest.trim_start() == "}"));
    if is_empty && edited != *object { take(&edited, &[name]) } else { edited }
}

/// Where the items of a list stand.
pub(crate) fn items(list: &[u8]) -> Vec<Range<usize>> {
    let Ok(items) = serde_json::from_slice::<Vec<&RawValue>>(list) else { return Vec::new() };
    let span = |item: &RawValue| {
        let start = item.get().as_ptr() as usize - list.as_ptr() as usize;
        start..start + item.get().len()
    };
    items.into_iter().map(span).collect()
}

/// Puts an item before the others.
pub(crate) fn push_front(list: &Bytes, item: &[u8]) -> Bytes {
    if list.first() != Some(&b'[') {
        return list.clone();
    }
    let mut added = BytesMut::from(item);
    let at = match items(list).first() {
        Some(first) => {
            added.extend_from_slice(b",");
            first.start
        }
        None => 1,
    };
    let mut splice = Splice::new(list.clone());
    splice.replace(at..at, added.freeze());
    splice.to_bytes()
}

/// Puts an item behind the others.
pub(crate) fn push_back(list: &Bytes, item: &[u8]) -> Bytes {
    let Some(last) = items(list).pop() else { return push_front(list, item) };
    let mut added = BytesMut::from(&b","[..]);
    added.extend_from_slice(item);
    let mut splice = Splice::new(list.clone());
    splice.replace(last.end..last.end, added.freeze());
    splice.to_bytes()
}

/// Keeps the items for which `keep` says yes.
pub(crate) fn retain(list: &Bytes, mut keep: impl FnMut(&[u8]) -> bool) -> Bytes {
    let found = items(list);
    let kept: Vec<bool> = found.iter().map(|span| keep(&list[span.clone()])).collect();
    if kept.iter().all(|kept| *kept) {
        return list.clone();
    }
    let mut splice = Splice::new(list.clone());
    let first_kept = kept.iter().position(|kept| *kept);
    for (at, span) in found.iter().enumerate().filter(|(at, _)| !kept[*at]) {
        // The comma behind it goes with what leads, the comma before it with all else.
        let cut = match (first_kept, at) {
            (Some(first), at) if at < first => span.start..found[at + 1].start,
            (_, 0) => span.clone(),
            (_, at) => found[at - 1].end..span.end,
        };
        splice.replace(cut, Bytes::new());
    }
    splice.to_bytes()
}

/// The name of a tool: the `name` of one of these members or its own, else its `type`.
pub(crate) fn name(tool: &[u8], within: &[&str]) -> String {
    let inner = |holder: &&str| value(tool, holder).and_then(|inner| text(inner.as_bytes(), "name"));
    within
        .iter()
        .find_map(inner)
        .or_else(|| text(tool, "name"))
        .or_else(|| text(tool, "type"))
        .unwrap_or_default()
}

/// A text as JSON.
pub(crate) fn quoted(text: &str) -> Bytes {
    let mut out = BytesMut::with_capacity(text.len() + 2);
    json_out::string(&mut out, text);
    out.freeze()
}

/// `{"type": …, "text": …}`.
pub(crate) fn text_part(kind: Option<&str>, text: &str) -> Bytes {
    let mut out = BytesMut::with_capacity(text.len() + 32);
    let mut part = json_out::Object::begin(&mut out);
    part.opt_str("type", kind).str("text", text);
    part.end();
    out.freeze()
}

/// Puts texts around one that is JSON, joined by a blank line. What stands between the quotes keeps its bytes.
pub(crate) fn surround(json: &Bytes, before: Option<&str>, after: Option<&str>) -> Bytes {
    let is_empty = &json[..] == b"\"\"";
    let mut splice = Splice::new(json.clone());
    let escaped = |text: &str| {
        let quoted = quoted(text);
        quoted.slice(1..quoted.len() - 1)
    };
    if let Some(before) = before {
        let joint = if is_empty && after.is_none() { "" } else { "\n\n" };
        splice.replace(1..1, escaped(&format!("{before}{joint}")));
    }
    if let Some(after) = after {
        let joint = if is_empty { "" } else { "\n\n" };
        let end = json.len() - 1;
        splice.replace(end..end, escaped(&format!("{joint}{after}")));
    }
    splice.to_bytes()
}

/// Puts the operator's text around a client's that is a string or a list of parts; `kind` is the `type` of a part.
pub(crate) fn around(content: &Bytes, edit: &SystemEdit, kind: Option<&str>) -> Bytes {
    let (before, after) = (edit.before.as_deref(), edit.after.as_deref());
    match content.first() {
        Some(b'"') => surround(content, before, after),
        Some(b'[') => {
            let mut list = content.clone();
            if let Some(before) = before {
                list = push_front(&list, &text_part(kind, before));
            }
            if let Some(after) = after {
                list = push_back(&list, &text_part(kind, after));
            }
            list
        }
        _ => quoted(&edit.alone()),
    }
}

/// The system text of a list of messages: around the first message of the system, or in one of its own before all others.
/// A replacement takes the place of those that lead.
pub(crate) fn system_message(list: &Bytes, edit: &SystemEdit) -> Bytes {
    let is_system = |message: &[u8]| matches!(text(message, "role").as_deref(), Some("system" | "developer"));
    let own = || {
        let mut out = BytesMut::new();
        let mut message = json_out::Object::begin(&mut out);
        message.str("role", "system").str("content", &edit.alone());
        message.end();
        out.freeze()
    };
    if edit.replace.is_some() {
        let mut leads = true;
        let rest = retain(list, |message| {
            leads &= is_system(message);
            !leads
        });
        return push_front(&rest, &own());
    }
    let Some(span) = items(list).into_iter().find(|span| is_system(&list[span.clone()])) else {
        return push_front(list, &own());
    };
    let message = list.slice(span.clone());
    let edited = if value(&message, "content").is_some() {
        within(&message, "content", |content| around(content, edit, Some("text")))
    } else {
        put(&message, "content", &quoted(&edit.alone()))
    };
    let mut splice = Splice::new(list.clone());
    splice.replace(span, edited);
    splice.to_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    #[test]
    fn members_are_set_and_taken() {
        for (object, expected) in [
            (r#"{"a":1}"#, r#"{"a":1,"n":7}"#),
            ("{ }", r#"{"n":7 }"#),
            (r#"{"n" : 1.0 , "b":2}"#, r#"{"n" : 7 , "b":2}"#),
            ("[1]", "[1]"),
        ] {
            assert_eq!(put(&bytes(object), "n", b"7"), bytes(expected), "{object}");
        }
        assert_eq!(take(&bytes(r#"{"a":1,"b":2,"c":3}"#), &["a", "c"]), bytes(r#"{"b":2}"#));
        let nested = bytes(r#"{"o":{"a":1},"b":[]}"#);
        assert_eq!(take_within(&nested, "o", &["a"]), bytes(r#"{"b":[]}"#));
        assert_eq!(take_within(&nested, "o", &["z"]), nested);
        assert_eq!(
            within_object(&bytes("{}"), "o", |inner| put(inner, "x", b"1")),
            bytes(r#"{"o":{"x":1}}"#)
        );
    }

    #[test]
    fn lists_lose_and_gain_items() {
        let list = "[ 1, 2 ,3]";
        for (gone, expected) in [
            (&["1"][..], "[ 2 ,3]"),
            (&["2"], "[ 1 ,3]"),
            (&["3"], "[ 1, 2]"),
            (&["1", "2"], "[ 3]"),
            (&["2", "3"], "[ 1]"),
            (&["1", "3"], "[ 2]"),
            (&["1", "2", "3"], "[ ]"),
            (&[], list),
        ] {
            let kept = retain(&bytes(list), |item| !gone.iter().any(|gone| gone.as_bytes() == item));
            assert_eq!(kept, bytes(expected), "{gone:?}");
        }
        assert_eq!(push_front(&bytes("[]"), b"0"), bytes("[0]"));
        assert_eq!(push_front(&bytes("[ 1]"), b"0"), bytes("[ 0,1]"));
        assert_eq!(push_back(&bytes("[1 ]"), b"2"), bytes("[1,2 ]"));
        assert_eq!(push_back(&bytes("[]"), b"2"), bytes("[2]"));
    }

    #[test]
    fn text_is_put_around_what_stands_there() {
        let edit = |before: Option<&str>, after: Option<&str>| SystemEdit {
            replace: None,
            before: before.map(str::to_owned),
            after: after.map(str::to_owned),
        };
        for (content, edit, expected) in [
            (r#""a\u00e4""#, edit(Some("say \"hi\""), None), r#""say \"hi\"\n\na\u00e4""#),
            (r#""a""#, edit(None, Some("z")), r#""a\n\nz""#),
            (r#""""#, edit(Some("x"), Some("z")), r#""x\n\nz""#),
            (r#""""#, edit(None, Some("z")), r#""z""#),
            (
                r#"[{"type":"text","text":"a","cache_control":{}}]"#,
                edit(Some("x"), Some("z")),
                r#"[{"type":"text","text":"x"},{"type":"text","text":"a","cache_control":{}},{"type":"text","text":"z"}]"#,
            ),
            ("7", edit(Some("x"), Some("z")), r#""x\n\nz""#),
        ] {
            assert_eq!(around(&bytes(content), &edit, Some("text")), bytes(expected), "{content}");
        }
    }
}
