//! Whether a JSON schema is one that models can be held to in full.
//!
//! The rules are the vendor's who has the word `strict`: <https://platform.openai.com/docs/guides/structured-outputs>.
//! The walk goes by the place of a schema, not by names: a property may be called `properties`.

use std::{borrow::Cow, collections::HashSet};

use serde_json::value::RawValue;

use crate::json_in::{self, Members};

/// How deep schemas are followed; a deeper one is not taken for strict.
const MAX_DEPTH: usize = 64;
/// Keywords that no strict schema may have.
const REFUSED: &[&str] = &[
    "allOf",
    "not",
    "dependentRequired",
    "dependentSchemas",
    "if",
    "then",
    "else",
    "oneOf",
    "patternProperties",
];

/// Keywords that the vendor lists as taken, or that say nothing.
const LISTED: &[&str] = &[
    "$defs",
    "$ref",
    "$schema",
    "additionalProperties",
    "anyOf",
    "const",
    "definitions",
    "description",
    "enum",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "format",
    "items",
    "maxItems",
    "maximum",
    "minItems",
    "minimum",
    "multipleOf",
    "pattern",
    "properties",
    "required",
    "title",
    "type",
];
/// The formats that it lists.
const FORMATS: &[&str] =
    &["date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uuid"];

/// Whether the schema is an object whose properties are all required and to which none can be added, and so are all
/// objects in it. For whoever asked for strictness: what else the vendor refuses, it says itself.
pub(crate) fn is_legal(schema: &RawValue) -> bool {
    is_closed_object(schema, false)
}

/// Whether the schema besides has nothing but what the vendor lists as taken: where nobody asked for strictness it must not
/// be the reason of a refusal.
pub(crate) fn is_surely_legal(schema: &RawValue) -> bool {
    is_closed_object(schema, true)
}

fn is_closed_object(schema: &RawValue, listed: bool) -> bool {
    let Ok(Members(members)) = serde_json::from_str(schema.get()) else { return false };
    let is_object = members.iter().any(|(key, raw)| key == "type" && raw.get() == "\"object\"");
    is_object && !members.iter().any(|(key, _)| key == "anyOf") && is_closed(schema.get(), listed, MAX_DEPTH)
}

/// `listed` allows no more than the vendor's list.
fn is_closed(text: &str, listed: bool, depth: usize) -> bool {
    if depth == 0 {
        return false;
    }
    let Ok(Members(members)) = serde_json::from_str::<Members<'_>>(text) else {
        // `true` and `false` are schemas, and allow anything or nothing.
        return false;
    };
    let find = |name: &str| members.iter().find(|(key, _)| key == name).map(|(_, raw)| *raw);
    if members.iter().any(|(key, _)| REFUSED.contains(&&**key)) {
        return false;
    }
    if listed && !has_only_listed(&members) {
        return false;
    }
    let of_object = find("type").is_some_and(|kind| kind.get().contains("\"object\""));
    let properties = find("properties").map(RawValue::get);
    if of_object || properties.is_some() {
        if find("additionalProperties").is_none_or(|raw| raw.get() != "false") {
            return false;
        }
        let required: HashSet<String> =
            find("required").and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default();
        let Ok(Members(properties)) = serde_json::from_str::<Members<'_>>(properties.unwrap_or("{}")) else {
            return false;
        };
        let are_closed = properties
            .iter()
            .all(|(name, raw)| required.contains(&**name) && is_closed(raw.get(), listed, depth - 1));
        if !are_closed {
            return false;
        }
    }
    let list = |name: &str| find(name).and_then(json_in::list_of).unwrap_or_default();
    let map = |name: &str| match find(name).map(|raw| serde_json::from_str::<Members<'_>>(raw.get())) {
        None => true,
        Some(Ok(Members(inner))) => inner.iter().all(|(_, raw)| is_closed(raw.get(), listed, depth - 1)),
        Some(Err(_)) => false,
    };
    find("items").is_none_or(|raw| is_closed(raw.get(), listed, depth - 1))
        && list("anyOf").iter().chain(&list("prefixItems")).all(|raw| is_closed(raw.get(), listed, depth - 1))
        && map("$defs")
        && map("definitions")
}

fn has_only_listed(members: &[(Cow<'_, str>, &RawValue)]) -> bool {
    let find = |name: &str| members.iter().find(|(key, _)| key == name).map(|(_, raw)| *raw);
    let has = |name: &str| find(name).is_some();
    let is_typed = has("type") || has("anyOf") || has("$ref");
    // A list says of what, and a reference is all that there is.
    let says_of_what = find("type").is_none_or(|kind| !kind.get().contains("\"array\"")) || has("items");
    let is_alone = !has("$ref") || members.len() == 1;
    let format = find("format").map(json_in::str_of);
    let is_format_listed = format.is_none_or(|format| format.is_some_and(|name| FORMATS.contains(&&*name)));
    is_typed
        && says_of_what
        && is_alone
        && is_format_listed
        && members.iter().all(|(key, _)| LISTED.contains(&&**key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_closed_objects_with_required_properties_are_strict() {
        for (schema, expected) in [
            (r#"{"type":"object","properties":{},"additionalProperties":false}"#, true),
            (r#"{"type":"object","properties":{}}"#, false),
            (
                r#"{"type":"object","properties":{"a":{"type":"string"}},"required":["a"],"additionalProperties":false}"#,
                true,
            ),
            (
                r#"{"type":"object","properties":{"a":{"type":"string"}},"required":[],"additionalProperties":false}"#,
                false,
            ),
            (
                r#"{"type":"object","properties":{"properties":{"type":["object","null"],"additionalProperties":true}},"required":["properties"],"additionalProperties":false}"#,
                false,
            ),
            (
                r##"{"type":"object","properties":{"a":{"type":"array","items":{"$ref":"#/$defs/d"}}},"required":["a"],"additionalProperties":false,"$defs":{"d":{"anyOf":[{"type":"null"},{"type":"object","properties":{},"additionalProperties":false}]}}}"##,
                true,
            ),
            (
                r#"{"type":"object","properties":{"a":{"allOf":[{}]}},"required":["a"],"additionalProperties":false}"#,
                false,
            ),
            (r#"{"anyOf":[{"type":"object"}]}"#, false),
            (r#"{"type":"string"}"#, false),
            ("true", false),
        ] {
            let raw: Box<RawValue> = serde_json::from_str(schema).unwrap();
            assert_eq!(is_legal(&raw), expected, "{schema}");
        }
        let with = |property: &str| {
            let text = format!(
                r##"{{"type":"object","properties":{{"a":{property}}},"required":["a"],"additionalProperties":false,"$defs":{{"d":{{"type":"null"}}}}}}"##
            );
            serde_json::from_str::<Box<RawValue>>(&text).unwrap()
        };
        for (property, sure) in [
            (r#"{"type":"array","items":{"type":"string","pattern":"^a"},"minItems":1}"#, true),
            (r#"{"type":["string","null"],"format":"date-time","description":"d"}"#, true),
            (r##"{"anyOf":[{"$ref":"#/$defs/d"},{"type":"integer","maximum":5}]}"##, true),
            (r#"{"type":"array","items":{"type":"string"},"uniqueItems":true}"#, false),
            (r#"{"type":"array"}"#, false),
            (r#"{"type":"string","default":"x"}"#, false),
            (r#"{"type":"string","format":"uri"}"#, false),
            (r#"{"type":"string","minLength":2}"#, false),
            (r##"{"$ref":"#/$defs/d","description":"d"}"##, false),
            (r#"{"description":"anything"}"#, false),
        ] {
            let schema = with(property);
            assert!(is_legal(&schema), "{property}");
            assert_eq!(is_surely_legal(&schema), sure, "{property}");
        }
        let deep = format!(
            r#"{{"type":"object","properties":{{"a":{}1{}}},"required":["a"],"additionalProperties":false}}"#,
            r#"{"items":"#.repeat(200),
            "}".repeat(200)
        );
        let raw: Box<RawValue> = serde_json::from_str(&deep).unwrap();
        assert!(!is_legal(&raw));
    }
}
