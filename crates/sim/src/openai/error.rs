//! Refusals in OpenAI's words and shape.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, header};
use omniroute_wire::json_out::Object;

use crate::{
    check::{Wording, millis},
    openai::OpenAi,
    refusal::Refusal,
};

impl Wording for OpenAi {
    fn unknown(&self, path: &str, key: &str) -> Refusal {
        let path = self.member(path, key);
        Refusal::field(&path, "unknown_parameter", format!("there is no parameter '{path}'"))
    }

    fn wrong(&self, path: &str, message: &str) -> Refusal {
        Refusal::field(path, "invalid_value", format!("'{path}': {message}"))
    }

    fn no_key(&self) -> Refusal {
        Refusal::status(401, "the API key is missing: send it as 'Authorization: Bearer …'")
    }

    fn broke(&self) -> Refusal {
        let message = "this account has used up its quota, check the plan and the billing details";
        Refusal { code: Some("insufficient_quota"), ..Refusal::status(429, message) }
    }

    fn too_long(&self, found: u64, limit: u64) -> Refusal {
        let message =
            format!("the maximum context length of this model is {limit} tokens, the messages have {found}");
        Refusal::field("messages", "context_length_exceeded", message)
    }

    fn document(&self, refusal: &Refusal, _: &str) -> Bytes {
        let mut out = BytesMut::with_capacity(256);
        let mut document = Object::begin(&mut out);
        let mut error = document.object("error");
        error
            .str("message", &refusal.message)
            .str("type", kind(refusal))
            .str_or_null("param", refusal.param.as_deref())
            .str_or_null("code", refusal.code);
        error.end();
        document.end();
        out.freeze()
    }

    fn retry(&self, after: Duration, headers: &mut HeaderMap) {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(millis(after).div_ceil(1000)));
        headers.insert("retry-after-ms", HeaderValue::from(millis(after)));
    }
}

fn kind(refusal: &Refusal) -> &'static str {
    match (refusal.status, refusal.code) {
        (_, Some("insufficient_quota")) => "insufficient_quota",
        (429, _) => "requests",
        (500.., _) => "server_error",
        _ => "invalid_request_error",
    }
}
