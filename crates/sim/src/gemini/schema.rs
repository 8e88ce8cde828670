//! The two kinds of schemas: the vendor's own, a narrow selection of OpenAPI, and JSON Schema.

use serde_json::Value;

use crate::{
    check::{At, Wording as _},
    gemini::{Gemini, error, request::enumeration},
    refusal::Refusal,
};

/// Everything that the vendor's own schemas may say.
const KEYWORDS: &[&str] = &[
    "type",
    "format",
    "title",
    "description",
    "nullable",
    "enum",
    "maxItems",
    "minItems",
    "properties",
    "required",
    "minProperties",
    "maxProperties",
    "minLength",
    "maxLength",
    "pattern",
    "example",
    "anyOf",
    "propertyOrdering",
    "default",
    "items",
    "minimum",
    "maximum",
];
const TYPES: &[&str] = &["STRING", "NUMBER", "INTEGER", "BOOLEAN", "ARRAY", "OBJECT", "NULL"];
/// What the vendor heeds in a JSON Schema.
const HEEDED: &[&str] = &[
    "$id",
    "$defs",
    "$ref",
    "$anchor",
    "type",
    "format",
    "title",
    "description",
    "enum",
    "items",
    "prefixItems",
    "minItems",
    "maxItems",
    "minimum",
    "maximum",
    "anyOf",
    "oneOf",
    "properties",
    "additionalProperties",
    "required",
    "propertyOrdering",
];
const MAX_DEPTH: usize = 32;

/// Judges a schema of the vendor's own kind.
pub(crate) fn own(schema: &At<'_>, depth: usize) -> Result<(), Refusal> {
    if depth > MAX_DEPTH {
        return Err(schema.wrong("schema is nested too deeply"));
    }
    schema.known(&[KEYWORDS])?;
    let kind = match schema.get("type") {
        Some(kind) if kind.value.is_array() => {
            let what = format!(
                "Unknown name \"type\" at '{}': Proto field is not repeating, cannot start list.",
                schema.path
            );
            return Err(error::payload(&schema.path, &what));
        }
        Some(kind) => Some(enumeration(&kind, TYPES, "Schema.Type")?),
        None if schema.get("anyOf").is_some() => None,
        None => {
            return Err(schema.need("type").err().unwrap_or_else(|| schema.wrong("type is not specified")));
        }
    };
    for name in ["format", "title", "description", "pattern"] {
        if let Some(text) = schema.get(name) {
            text.str()?;
        }
    }
    if let Some(nullable) = schema.get("nullable") {
        nullable.bool()?;
    }
    for name in ["maxItems", "minItems", "minProperties", "maxProperties", "minLength", "maxLength"] {
        if let Some(bound) = schema.get(name) {
            bound.integer(0)?;
        }
    }
    for name in ["minimum", "maximum"] {
        if let Some(bound) = schema.get(name) {
            bound.number(f64::MIN, f64::MAX)?;
        }
    }
    if let Some(values) = schema.get("enum") {
        for value in values.array()? {
            value.str()?;
        }
        if kind.as_deref() != Some("STRING") {
            return Err(values.wrong("only allowed for STRING type"));
        }
    }
    if let Some(format) = schema.get("format") {
        let allowed: &[&str] = match kind.as_deref() {
            Some("STRING") => &["enum", "date-time"],
            Some("INTEGER") => &["int32", "int64"],
            Some("NUMBER") => &["float", "double"],
            _ => &[],
        };
        if !allowed.contains(&format.str()?) {
            let kind = kind.as_deref().unwrap_or("this");
            return Err(format.wrong(&format!("only {allowed:?} are supported for {kind} type")));
        }
    }
    for branch in schema.get("anyOf").map(|list| list.array()).transpose()?.unwrap_or_default() {
        own(&branch, depth + 1)?;
    }
    match schema.get("items") {
        Some(items) => own(&items, depth + 1)?,
        None if kind.as_deref() == Some("ARRAY") => {
            return Err(Gemini.wrong(&format!("{}.items", schema.path), "missing field."));
        }
        None => {}
    }
    members(schema, kind.as_deref(), depth)
}

fn members(schema: &At<'_>, kind: Option<&str>, depth: usize) -> Result<(), Refusal> {
    let properties = schema.get("properties");
    if let Some(properties) = &properties {
        for name in properties.object()?.keys() {
            own(&properties.verbatim(name), depth + 1)?;
        }
    }
    let named = properties.as_ref().and_then(|properties| properties.value.as_object());
    if depth == 0 && kind == Some("OBJECT") && named.is_none_or(serde_json::Map::is_empty) {
        let path = format!("{}.properties", schema.path);
        return Err(Gemini.wrong(&path, "should be non-empty for OBJECT type"));
    }
    for name in ["required", "propertyOrdering"] {
        for property in schema.get(name).map(|list| list.array()).transpose()?.unwrap_or_default() {
            if named.is_none_or(|named| !property.value.as_str().is_some_and(|name| named.contains_key(name)))
            {
                property.str()?;
                return Err(property.wrong("property is not defined"));
            }
        }
    }
    Ok(())
}

/// Judges a JSON Schema: what is not heeded is refused only by a model that is strict.
pub(crate) fn json(schema: &At<'_>, strict: bool, depth: usize) -> Result<(), Refusal> {
    if schema.value.is_boolean() {
        return Ok(());
    }
    if depth > MAX_DEPTH {
        return Err(schema.wrong("schema is nested too deeply"));
    }
    for (keyword, value) in schema.object()? {
        if strict && !HEEDED.contains(&keyword.as_str()) {
            return Err(schema.wrong(&format!("'{keyword}' would not be heeded")));
        }
        let inner = schema.verbatim(keyword);
        match (keyword.as_str(), value) {
            ("properties" | "$defs", Value::Object(members)) => {
                for name in members.keys() {
                    json(&inner.verbatim(name), strict, depth + 1)?;
                }
            }
            ("anyOf" | "oneOf" | "prefixItems", Value::Array(_)) => {
                for branch in inner.array()? {
                    json(&branch, strict, depth + 1)?;
                }
            }
            ("items" | "additionalProperties", _) => json(&inner, strict, depth + 1)?,
            ("properties" | "$defs", _) => {
                inner.object()?;
            }
            ("anyOf" | "oneOf" | "prefixItems" | "required" | "enum", _) => {
                inner.array()?;
            }
            _ => {}
        }
    }
    Ok(())
}
