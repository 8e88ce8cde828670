//! Refusals in Ollama's words and shape: one line of text.

use bytes::{Bytes, BytesMut};
use omniroute_wire::json_out::Object;
use serde_json::Value;

use crate::{
    check::{Type, Wording},
    ollama::Ollama,
    refusal::Refusal,
};

impl Wording for Ollama {
    fn unknown(&self, path: &str, key: &str) -> Refusal {
        Refusal::request(format!("json: unknown field \"{}\"", self.member(path, key)))
    }

    fn missing(&self, path: &str) -> Refusal {
        Refusal::request(format!("{path} is required"))
    }

    fn mistyped(&self, path: &str, expected: Type, found: &Value) -> Refusal {
        let found = match found {
            Value::Null => "null",
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        let wanted = match expected {
            Type::Object => "map[string]interface {}",
            Type::Array => "[]interface {}",
            Type::String => "string",
            Type::Bool => "bool",
            Type::Integer => "int",
            Type::Number => "float64",
        };
        Refusal::request(format!(
            "json: cannot unmarshal {found} into Go struct field ChatRequest.{path} of type {wanted}"
        ))
    }

    fn wrong(&self, path: &str, message: &str) -> Refusal {
        Refusal::request(format!("{path}: {message}"))
    }

    fn no_key(&self) -> Refusal {
        Refusal::status(401, "unauthorized")
    }

    fn bad_key(&self) -> Refusal {
        Refusal::status(401, "unauthorized")
    }

    fn broke(&self) -> Refusal {
        Refusal::status(429, "you have reached your weekly usage limit, please upgrade to continue")
    }

    fn no_model(&self, name: &str, reason: &str) -> Refusal {
        Refusal::status(404, format!("model '{name}' not found ({reason})"))
    }

    fn too_long(&self, found: u64, limit: u64) -> Refusal {
        Refusal::request(format!("prompt is too long: {found} tokens, the context length is {limit}"))
    }

    fn document(&self, refusal: &Refusal, _: &str) -> Bytes {
        let mut out = BytesMut::with_capacity(128);
        let mut document = Object::begin(&mut out);
        document.str("error", &refusal.message);
        document.end();
        out.freeze()
    }
}
