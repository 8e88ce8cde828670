//! A value that fits a JSON schema.

use serde_json::{Map, Value, json};

const MAX_DEPTH: usize = 12;

/// A plausible value: required members only, the smallest that fits.
pub(crate) fn sample(schema: &Value) -> Value {
    value(schema, schema, 0)
}

fn value(schema: &Value, root: &Value, depth: usize) -> Value {
    if depth > MAX_DEPTH {
        return Value::Null;
    }
    let deeper = |schema: &Value| value(schema, root, depth + 1);
    for fixed in ["const", "default"] {
        if let Some(found) = schema.get(fixed) {
            return found.clone();
        }
    }
    for list in ["enum", "examples"] {
        if let Some(found) = schema.get(list).and_then(|list| list.get(0)) {
            return found.clone();
        }
    }
    if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
        let target = target.strip_prefix('#').and_then(|pointer| root.pointer(pointer));
        return target.map_or(Value::Null, deeper);
    }
    for alternatives in ["anyOf", "oneOf"] {
        if let Some(first) = schema.get(alternatives).and_then(|list| list.get(0)) {
            return deeper(first);
        }
    }
    if let Some(parts) = schema.get("allOf").and_then(Value::as_array) {
        let mut merged = Map::new();
        for part in parts {
            match deeper(part) {
                Value::Object(members) => merged.extend(members),
                other => return other,
            }
        }
        return Value::Object(merged);
    }
    let kind = match schema.get("type") {
        Some(Value::String(kind)) => kind.as_str(),
        Some(Value::Array(kinds)) => {
            kinds.iter().filter_map(Value::as_str).find(|kind| *kind != "null").unwrap_or("null")
        }
        _ if schema.get("properties").is_some() => "object",
        _ => "string",
    };
    // Google writes types in capitals.
    match kind.to_ascii_lowercase().as_str() {
        "object" => {
            let mut members = Map::new();
            for name in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
                if let Some(name) = name.as_str() {
                    let member = schema.get("properties").and_then(|properties| properties.get(name));
                    members.insert(name.to_owned(), member.map_or(json!("sample"), deeper));
                }
            }
            Value::Object(members)
        }
        "array" => {
            let items = schema.get("items").unwrap_or(&Value::Null);
            let length = schema.get("minItems").and_then(Value::as_u64).unwrap_or(1).min(16);
            (0..length).map(|_| deeper(items)).collect()
        }
        "integer" => json!(lowest(schema).ceil() as i64),
        "number" => json!(lowest(schema)),
        "boolean" => json!(true),
        "null" => Value::Null,
        _ => Value::String(text(schema)),
    }
}

fn lowest(schema: &Value) -> f64 {
    let bound = |name| schema.get(name).and_then(Value::as_f64);
    match (bound("minimum"), bound("exclusiveMinimum"), bound("maximum"), bound("exclusiveMaximum")) {
        (Some(minimum), ..) => minimum,
        (_, Some(below), ..) => below + 1.0,
        (.., Some(maximum), _) => maximum.min(1.0),
        (.., Some(above)) => (above - 1.0).min(1.0),
        _ => 1.0,
    }
}

fn text(schema: &Value) -> String {
    let sample = match schema.get("format").and_then(Value::as_str) {
        Some("date") => "2025-01-31",
        Some("date-time") => "2025-01-31T12:00:00Z",
        Some("time") => "12:00:00Z",
        Some("email") => "sample@example.com",
        Some("uri" | "url") => "https://example.com/",
        Some("uuid") => "00000000-0000-4000-8000-000000000000",
        _ => "sample",
    };
    let bound = |name| schema.get(name).and_then(Value::as_u64).and_then(|bound| usize::try_from(bound).ok());
    let mut text = sample.to_owned();
    while text.len() < bound("minLength").unwrap_or(0).min(1000) {
        text.push('x');
    }
    text.truncate(bound("maxLength").unwrap_or(usize::MAX));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_fit_their_schemas() {
        for (schema, expected) in [
            (json!({}), json!("sample")),
            (json!({"type": "object"}), json!({})),
            (json!({"type": "object", "properties": {"a": {"type": "integer"}}}), json!({})),
            (
                json!({"type": "object", "required": ["city", "n", "tags", "unit", "at", "deep"],
                    "properties": {
                        "city": {"type": "string", "minLength": 8},
                        "n": {"type": ["null", "integer"], "minimum": 3},
                        "tags": {"type": "array", "items": {"type": "boolean"}, "minItems": 2},
                        "unit": {"enum": ["c", "f"]},
                        "at": {"type": "string", "format": "date"},
                        "deep": {"$ref": "#/$defs/node"}},
                    "$defs": {"node": {"anyOf": [{"type": "number", "maximum": 0.5}, {"type": "null"}]}}}),
                json!({"city": "samplexx", "n": 3, "tags": [true, true], "unit": "c", "at": "2025-01-31",
                    "deep": 0.5}),
            ),
            (
                json!({"allOf": [{"properties": {"a": {"const": 1}}, "required": ["a"]},
                    {"properties": {"b": {"default": "x"}}, "required": ["b"]}]}),
                json!({"a": 1, "b": "x"}),
            ),
        ] {
            assert_eq!(sample(&schema), expected, "{schema}");
        }
    }

    #[test]
    fn recursive_schemas_end() {
        let schema = json!({"type": "object", "required": ["next"], "properties": {"next": {"$ref": "#"}}});
        assert!(sample(&schema).to_string().len() < 1000);
    }
}
