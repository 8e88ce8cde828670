//! Patterns of JSON, and where they are found.

use serde_json::Value;

/// Whether a body holds all of these patterns, wherever they are in it. A list among them holds alternatives. Nothing is
/// held when there are no patterns.
pub(super) fn holds(body: &Value, patterns: &[Value]) -> bool {
    !patterns.is_empty()
        && patterns.iter().all(|pattern| match pattern {
            Value::Array(any) => any.iter().any(|pattern| is_within(body, pattern)),
            one => is_within(body, one),
        })
}

/// Texts and numbers of a body that another does not have.
pub(super) fn only_in(body: &Value, other: &Value) -> Vec<String> {
    let (mut mine, mut theirs) = (Vec::new(), Vec::new());
    leaves(body, &mut mine);
    leaves(other, &mut theirs);
    mine.retain(|leaf| !theirs.contains(leaf));
    mine
}

fn leaves(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => members.values().for_each(|inner| leaves(inner, found)),
        Value::Array(list) => list.iter().for_each(|inner| leaves(inner, found)),
        Value::String(text) if text.len() > 1 => found.push(text.clone()),
        Value::Number(number) => found.push(number.to_string()),
        _ => {}
    }
}

fn is_within(body: &Value, pattern: &Value) -> bool {
    matches(body, pattern)
        || match body {
            Value::Object(members) => members.values().any(|inner| is_within(inner, pattern)),
            Value::Array(list) => list.iter().any(|inner| is_within(inner, pattern)),
            _ => false,
        }
}

/// Objects may have more members, lists more entries between. `?` is any text that is not empty, `~a` any that has `a`.
fn matches(value: &Value, pattern: &Value) -> bool {
    match (value, pattern) {
        (Value::Object(value), Value::Object(pattern)) => {
            pattern.iter().all(|(key, pattern)| value.get(key).is_some_and(|value| matches(value, pattern)))
        }
        (Value::Array(value), Value::Array(pattern)) => {
            let mut rest = value.iter();
            pattern.iter().all(|pattern| rest.any(|value| matches(value, pattern)))
        }
        (Value::String(value), Value::String(pattern)) => match pattern.strip_prefix('~') {
            Some(part) => value.contains(part),
            None => value == pattern || (pattern == "?" && !value.is_empty()),
        },
        (Value::Number(value), Value::Number(pattern)) => value.as_f64() == pattern.as_f64(),
        _ => value == pattern,
    }
}

#[test]
fn patterns_find_what_is_there_and_nothing_else() {
    let body = serde_json::json!({"a": [{"b": 1, "c": "xyz"}, {"b": 2.0}]});
    for (pattern, found) in [
        (serde_json::json!({"b": 2}), true),
        (serde_json::json!({"b": 3}), false),
        (serde_json::json!({"b": 1, "c": "~y"}), true),
        (serde_json::json!({"b": 2, "c": "~y"}), false),
        (serde_json::json!({"a": [{"b": 2}]}), true),
        (serde_json::json!({"a": [{"b": 2}, {"b": 1}]}), false),
        (serde_json::json!({"c": "?"}), true),
        (serde_json::json!({"d": "?"}), false),
    ] {
        assert_eq!(holds(&body, std::slice::from_ref(&pattern)), found, "{pattern}");
    }
    assert!(!holds(&body, &[]), "no pattern is no proof");
    assert_eq!(only_in(&body, &serde_json::json!([1])), ["xyz", "2.0"]);
}
