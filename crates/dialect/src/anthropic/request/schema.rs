//! JSON schemas as this dialect takes them. The walk goes by the place of a schema, not by names: a property
//! may be called `properties`.

use std::{borrow::Cow, collections::HashSet};

use serde_json::value::RawValue;

use crate::json_in::{self, Members};

/// How deep schemas are followed; deeper ones stay as they are.
const MAX_DEPTH: usize = 64;

/// A tool without arguments.
pub(super) const EMPTY: &str = r#"{"type":"object","properties":{}}"#;

/// The schema of a tool's arguments as text, and whether more than its form changed. `None` when the schema
/// does not describe an object.
pub(super) fn arguments(raw: &RawValue) -> Option<(Cow<'_, str>, bool)> {
    let Members(members) = serde_json::from_str(raw.get()).ok()?;
    let find = |name: &str| members.iter().find(|(key, _)| key == name).map(|(_, raw)| *raw);
    let composed = ["anyOf", "oneOf", "allOf"].iter().any(|name| find(name).is_some());
    if composed {
        return Some((Cow::Owned(merged(&members)), true));
    }
    match find("type").map(RawValue::get) {
        Some(r#""object""#) => Some((Cow::Borrowed(raw.get()), false)),
        Some(kind) if kind.starts_with('[') && kind.contains(r#""object""#) => {
            Some((Cow::Owned(with_object_type(&members)), true))
        }
        Some(_) => None,
        None if members.is_empty() => Some((Cow::Borrowed(EMPTY), false)),
        None => Some((Cow::Owned(with_object_type(&members)), false)),
    }
}

/// The schema with `additionalProperties: false` on every object, and whether that changed anything.
pub(super) fn closed(raw: &RawValue) -> (String, bool) {
    let mut out = String::with_capacity(raw.get().len() + 32);
    let changed = write_closed(raw.get(), MAX_DEPTH, &mut out);
    (out, changed)
}

fn with_object_type(members: &[(Cow<'_, str>, &RawValue)]) -> String {
    let mut out = String::from(r#"{"type":"object""#);
    for (key, raw) in members.iter().filter(|(key, _)| key != "type") {
        write_member(&mut out, key, raw.get());
    }
    out.push('}');
    out
}

/// One object schema out of alternatives at the top: all properties, of which those are required that every
/// alternative (for `allOf`: any of them) requires.
fn merged(members: &[(Cow<'_, str>, &RawValue)]) -> String {
    let mut properties: Vec<(Cow<'_, str>, &RawValue)> = Vec::new();
    let mut required: Vec<String> = Vec::new();
    let take = |members: &[(Cow<'_, str>, &RawValue)], required: &mut Vec<String>| {
        for (key, raw) in members {
            if key == "required" {
                required.extend(serde_json::from_str::<Vec<String>>(raw.get()).unwrap_or_default());
            }
        }
    };
    take(members, &mut required);
    collect_properties(members, &mut properties);
    for (key, raw) in members {
        if !matches!(&**key, "anyOf" | "oneOf" | "allOf") {
            continue;
        }
        let mut common: Option<Vec<String>> = None;
        for branch in json_in::list_of(raw).unwrap_or_default() {
            let Ok(Members(branch)) = serde_json::from_str::<Members<'_>>(branch.get()) else { continue };
            collect_properties(&branch, &mut properties);
            let mut needed = Vec::new();
            take(&branch, &mut needed);
            common = Some(match common {
                None => needed,
                Some(mut before) if key == "allOf" => {
                    before.extend(needed);
                    before
                }
                Some(before) => {
                    let needed: HashSet<String> = needed.into_iter().collect();
                    before.into_iter().filter(|name| needed.contains(name)).collect()
                }
            });
        }
        required.extend(common.unwrap_or_default());
    }
    let mut left: HashSet<&str> = properties.iter().map(|(key, _)| &**key).collect();
    required.retain(|name| left.remove(name.as_str()));

    let mut out = String::from(r#"{"type":"object","properties":{"#);
    for (at, (key, raw)) in properties.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        out.push_str(&quoted(key));
        out.push(':');
        out.push_str(raw.get());
    }
    out.push('}');
    if !required.is_empty() {
        write_member(
            &mut out,
            "required",
            &serde_json::to_string(&required).expect("strings are always written"),
        );
    }
    for (key, raw) in members {
        if !matches!(&**key, "type" | "properties" | "required" | "anyOf" | "oneOf" | "allOf") {
            write_member(&mut out, key, raw.get());
        }
    }
    out.push('}');
    out
}

fn collect_properties<'a>(
    members: &[(Cow<'a, str>, &'a RawValue)],
    properties: &mut Vec<(Cow<'a, str>, &'a RawValue)>,
) {
    let found = members.iter().find(|(key, _)| key == "properties");
    let Some(Ok(Members(found))) = found.map(|(_, raw)| serde_json::from_str::<Members<'a>>(raw.get()))
    else {
        return;
    };
    let mut known: HashSet<Cow<'_, str>> = properties.iter().map(|(key, _)| key.clone()).collect();
    properties.extend(found.into_iter().filter(|(key, _)| known.insert(key.clone())));
}

fn write_closed(text: &str, depth: usize, out: &mut String) -> bool {
    let members = if depth > 0 && text.starts_with('{') { serde_json::from_str(text).ok() } else { None };
    let Some(Members(members)) = members else {
        out.push_str(text);
        return false;
    };
    let is_object = members
        .iter()
        .any(|(key, raw)| key == "properties" || (key == "type" && raw.get().contains(r#""object""#)));
    let mut changed = false;
    let mut closed = false;
    out.push('{');
    for (at, (key, raw)) in members.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        out.push_str(&quoted(key));
        out.push(':');
        match &**key {
            "additionalProperties" if is_object => {
                closed = true;
                changed |= raw.get() != "false";
                out.push_str("false");
            }
            "properties" | "$defs" | "definitions" | "patternProperties" => {
                changed |= write_closed_map(raw.get(), depth - 1, out);
            }
            "items" | "prefixItems" | "anyOf" | "oneOf" | "allOf" | "not" => {
                changed |= write_closed_any(raw, depth - 1, out);
            }
            _ => out.push_str(raw.get()),
        }
    }
    if is_object && !closed {
        changed = true;
        if !members.is_empty() {
            out.push(',');
        }
        out.push_str(r#""additionalProperties":false"#);
    }
    out.push('}');
    changed
}

fn write_closed_map(text: &str, depth: usize, out: &mut String) -> bool {
    let Ok(Members(members)) = serde_json::from_str::<Members<'_>>(text) else {
        out.push_str(text);
        return false;
    };
    let mut changed = false;
    out.push('{');
    for (at, (key, raw)) in members.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        out.push_str(&quoted(key));
        out.push(':');
        changed |= write_closed(raw.get(), depth, out);
    }
    out.push('}');
    changed
}

fn write_closed_any(raw: &RawValue, depth: usize, out: &mut String) -> bool {
    let Some(items) = json_in::list_of(raw) else { return write_closed(raw.get(), depth, out) };
    let mut changed = false;
    out.push('[');
    for (at, item) in items.into_iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        changed |= write_closed(item.get(), depth, out);
    }
    out.push(']');
    changed
}

fn write_member(out: &mut String, key: &str, value: &str) {
    out.push(',');
    out.push_str(&quoted(key));
    out.push(':');
    out.push_str(value);
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a string is always written")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        serde_json::from_str(text).expect("valid JSON")
    }

    #[test]
    fn argument_schemas_describe_objects() {
        for (given, expected) in [
            (r#"{"type":"object"}"#, Some((r#"{"type":"object"}"#, false))),
            ("{}", Some((EMPTY, false))),
            (r#"{"properties":{"a":{}}}"#, Some((r#"{"type":"object","properties":{"a":{}}}"#, false))),
            (r#"{"type":"string"}"#, None),
            (r#""x""#, None),
            (
                r#"{"anyOf":[{"properties":{"a":{"type":"string"},"c":{}},"required":["a","c"]},{"properties":{"b":{},"c":{}},"required":["b","c"]}],"description":"d"}"#,
                Some((
                    r#"{"type":"object","properties":{"a":{"type":"string"},"c":{},"b":{}},"required":["c"],"description":"d"}"#,
                    true,
                )),
            ),
            (
                r#"{"type":"object","properties":{"a":{}},"allOf":[{"required":["a"]},{"properties":{"b":{}},"required":["b"]}]}"#,
                Some((r#"{"type":"object","properties":{"a":{},"b":{}},"required":["a","b"]}"#, true)),
            ),
        ] {
            let given = raw(given);
            let found = arguments(&given);
            assert_eq!(found.as_ref().map(|(text, changed)| (&**text, *changed)), expected, "{given}");
        }
    }

    #[test]
    fn every_object_is_closed_and_property_names_are_not_keywords() {
        let (text, changed) = closed(&raw(
            r#"{"type":"object","properties":{"properties":{"type":"string"},"x":{"type":["object","null"],"additionalProperties":true}},"$defs":{"d":{"anyOf":[{"properties":{}},{"type":"array","items":{"type":"object","additionalProperties":false}}]}}}"#,
        ));
        assert!(changed);
        assert_eq!(
            text,
            r#"{"type":"object","properties":{"properties":{"type":"string"},"x":{"type":["object","null"],"additionalProperties":false}},"$defs":{"d":{"anyOf":[{"properties":{},"additionalProperties":false},{"type":"array","items":{"type":"object","additionalProperties":false}}]}},"additionalProperties":false}"#
        );
        assert_eq!(closed(&raw(&text)), (text.clone(), false));
    }
}
