//! Whether a JSON schema is one that models can be held to in full.
//!
//! The rules are the vendor's who has the word `strict`: <https://platform.openai.com/docs/guides/structured-outputs>.
//! The walk goes by the place of a schema, not by names: a property may be called `properties`.

use std::collections::HashSet;

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

/// Whether the schema is an object whose properties are all required and to which none can be added, and so are all
/// objects in it.
pub(crate) fn is_legal(schema: &RawValue) -> bool {
    let Ok(Members(members)) = serde_json::from_str(schema.get()) else { return false };
    let is_object = members.iter().any(|(key, raw)| key == "type" && raw.get() == "\"object\"");
    is_object && !members.iter().any(|(key, _)| key == "anyOf") && is_closed(schema.get(), MAX_DEPTH)
}

fn is_closed(text: &str, depth: usize) -> bool {
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
            .all(|(name, raw)| required.contains(&**name) && is_closed(raw.get(), depth - 1));
        if !are_closed {
            return false;
        }
    }
    let list = |name: &str| find(name).and_then(json_in::list_of).unwrap_or_default();
    let map = |name: &str| match find(name).map(|raw| serde_json::from_str::<Members<'_>>(raw.get())) {
        None => true,
        Some(Ok(Members(inner))) => inner.iter().all(|(_, raw)| is_closed(raw.get(), depth - 1)),
        Some(Err(_)) => false,
    };
    find("items").is_none_or(|raw| is_closed(raw.get(), depth - 1))
        && list("anyOf").iter().chain(&list("prefixItems")).all(|raw| is_closed(raw.get(), depth - 1))
        && map("$defs")
        && map("definitions")
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
        let deep = format!(
            r#"{{"type":"object","properties":{{"a":{}1{}}},"required":["a"],"additionalProperties":false}}"#,
            r#"{"items":"#.repeat(200),
            "}".repeat(200)
        );
        let raw: Box<RawValue> = serde_json::from_str(&deep).unwrap();
        assert!(!is_legal(&raw));
    }
}
