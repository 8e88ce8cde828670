//! A schema of the vendor's own kind as JSON Schema.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::{
    MAX_DEPTH,
    text::{Object, quoted},
};
use crate::json_in::{Members, camel, count_of, list_of, str_of};

/// Reads a schema of the vendor's own kind; what is none stays as it is.
pub(in crate::gemini) fn from_own(raw: &RawValue) -> Box<RawValue> {
    let mut out = String::with_capacity(raw.get().len());
    write(raw, MAX_DEPTH, &mut out);
    RawValue::from_string(out).unwrap_or_else(|_| raw.to_owned())
}

fn write(raw: &RawValue, depth: usize, out: &mut String) {
    let members = if depth > 0 { serde_json::from_str::<Members<'_>>(raw.get()).ok() } else { None };
    let Some(Members(members)) = members else {
        out.push_str(raw.get());
        return;
    };
    let name_of = |key: &str| camel(key).unwrap_or_else(|| key.to_owned());
    let nullable = members.iter().any(|(key, raw)| key == "nullable" && raw.get() == "true");
    let mut object = Object::begin(out);
    for (key, raw) in &members {
        let name = name_of(key);
        match &*name {
            "nullable" | "example" => {}
            "type" => {
                let kind = str_of(raw).map(|kind| kind.to_ascii_lowercase());
                match kind.as_deref() {
                    Some("type_unspecified") => {}
                    None => object.raw("type", raw.get()),
                    Some(kind) if nullable => object.raw("type", &format!("[{},\"null\"]", quoted(kind))),
                    Some(kind) => object.raw("type", &quoted(kind)),
                }
            }
            "enum" if nullable => {
                let mut values: Vec<&str> =
                    list_of(raw).unwrap_or_default().into_iter().map(RawValue::get).collect();
                values.push("null");
                object.raw("enum", &format!("[{}]", values.join(",")));
            }
            "properties" | "defs" | "$defs" => {
                let name = if name == "properties" { "properties" } else { "$defs" };
                write_map(raw, depth - 1, object.key(name));
            }
            "ref" => object.raw("$ref", raw.get()),
            "items" | "additionalProperties" => write(raw, depth - 1, object.key(&name)),
            "anyOf" => {
                let out = object.key("anyOf");
                out.push('[');
                for (at, branch) in list_of(raw).unwrap_or_default().into_iter().enumerate() {
                    if at > 0 {
                        out.push(',');
                    }
                    write(branch, depth - 1, out);
                }
                if nullable {
                    out.push_str(",{\"type\":\"null\"}");
                }
                out.push(']');
            }
            // 64 bits are written as strings.
            "minItems" | "maxItems" | "minLength" | "maxLength" | "minProperties" | "maxProperties" => {
                let count = str_of(raw).and_then(|text| text.parse().ok()).or_else(|| count_of(raw));
                let text = count
                    .map_or_else(|| Cow::Borrowed(raw.get()), |count: u64| Cow::Owned(count.to_string()));
                object.raw(&name, &text);
            }
            _ => object.raw(&name, raw.get()),
        }
    }
    object.end();
}

/// Members whose names are the client's own.
fn write_map(raw: &RawValue, depth: usize, out: &mut String) {
    let Ok(Members(members)) = serde_json::from_str::<Members<'_>>(raw.get()) else {
        out.push_str(raw.get());
        return;
    };
    let mut object = Object::begin(out);
    for (key, raw) in &members {
        write(raw, depth, object.key(key));
    }
    object.end();
}
