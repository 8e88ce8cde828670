//! What a schema must be like to be strict (<https://platform.openai.com/docs/guides/structured-outputs>).

use serde_json::Value;

use crate::{check::At, refusal::Refusal};

const MAX_DEPTH: usize = 32;

/// Judges a function's parameters that are to be strict.
pub(crate) fn function(parameters: &At<'_>, name: &str) -> Result<(), Refusal> {
    strict(parameters.value, &mut Vec::new()).map_err(|problem| {
        let message = format!("Invalid schema for function '{name}': {problem}");
        Refusal::field(&parameters.path, "invalid_function_parameters", message)
    })
}

/// Judges the schema of an answer that is to be strict.
pub(crate) fn format(schema: &At<'_>, name: &str) -> Result<(), Refusal> {
    strict(schema.value, &mut Vec::new()).map_err(|problem| {
        let message = format!("Invalid schema for response_format '{name}': {problem}");
        Refusal::field(&schema.path, "invalid_json_schema", message)
    })
}

fn strict<'a>(schema: &'a Value, context: &mut Vec<&'a str>) -> Result<(), String> {
    if context.len() > MAX_DEPTH {
        return Err("the schema is nested too deeply.".to_owned());
    }
    let properties = schema.get("properties").and_then(Value::as_object);
    if properties.is_some() || schema.get("type").and_then(Value::as_str) == Some("object") {
        let place = context.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ");
        if schema.get("additionalProperties") != Some(&Value::Bool(false)) {
            return Err(format!(
                "In context=({place}), 'additionalProperties' is required to be supplied and to be false."
            ));
        }
        let required: Vec<&Value> =
            schema.get("required").and_then(Value::as_array).into_iter().flatten().collect();
        let missing = properties
            .into_iter()
            .flatten()
            .find(|(name, _)| !required.contains(&&Value::from(name.as_str())));
        if let Some((name, _)) = missing {
            return Err(format!(
                "In context=({place}), 'required' is required to be supplied and to be an array including every key in \
                 properties. Missing '{name}'."
            ));
        }
    }
    let mut inside = |names: [&'a str; 2], schema: &'a Value| {
        let length = context.len();
        context.extend(names.into_iter().filter(|name| !name.is_empty()));
        let judged = strict(schema, context);
        context.truncate(length);
        judged
    };
    for group in ["properties", "$defs", "definitions"] {
        for (name, member) in schema.get(group).and_then(Value::as_object).into_iter().flatten() {
            inside([group, name], member)?;
        }
    }
    for branch in schema.get("anyOf").and_then(Value::as_array).into_iter().flatten() {
        inside(["anyOf", ""], branch)?;
    }
    match schema.get("items") {
        Some(items) => inside(["items", ""], items),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn strict_schemas_leave_nothing_open() {
        let closed = |more: Value| {
            let mut schema = json!({"type": "object", "additionalProperties": false});
            if let (Some(schema), Value::Object(more)) = (schema.as_object_mut(), more) {
                schema.extend(more);
            }
            schema
        };
        let inner = closed(json!({"properties": {}}));
        for (schema, problem) in [
            (inner.clone(), None),
            (closed(json!({"properties": {"a": inner}, "required": ["a"]})), None),
            (json!({"type": "object"}), Some("In context=(), 'additionalProperties'")),
            (closed(json!({"properties": {"a": {"type": "string"}}})), Some("Missing 'a'")),
            (
                closed(json!({"properties": {"a": {"items": {"type": "object"}}}, "required": ["a"]})),
                Some("In context=('properties', 'a', 'items'), 'additionalProperties'"),
            ),
            (
                closed(json!({"$defs": {"x": {"anyOf": [{"properties": {}}]}}})),
                Some("In context=('$defs', 'x', 'anyOf'), 'additionalProperties'"),
            ),
        ] {
            let judged = strict(&schema, &mut Vec::new());
            match problem {
                None => assert_eq!(judged, Ok(()), "{schema}"),
                Some(problem) => assert!(judged.unwrap_err().contains(problem), "{schema}"),
            }
        }
    }
}
