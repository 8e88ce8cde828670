//! Refusals in Anthropic's words and shape.

use bytes::{Bytes, BytesMut};
use omniroute_wire::json_out::Object;

use crate::{anthropic::Anthropic, check::Wording, frame::Event, refusal::Refusal};

impl Wording for Anthropic {
    fn element(&self, path: &str, index: usize) -> String {
        format!("{path}.{index}")
    }

    fn unknown(&self, path: &str, key: &str) -> Refusal {
        Refusal::field(&self.member(path, key), "invalid_request", "extra fields are not permitted")
    }

    fn wrong(&self, path: &str, message: &str) -> Refusal {
        Refusal::field(path, "invalid_value", message)
    }

    fn no_key(&self) -> Refusal {
        Refusal::status(401, "the API key is missing: send it as 'x-api-key'")
    }

    fn broke(&self) -> Refusal {
        Refusal::request("credit balance is too low for this call, buy credits to go on")
    }

    fn too_long(&self, found: u64, limit: u64) -> Refusal {
        Refusal::request(format!("prompt is too long: {found} tokens > {limit} maximum"))
    }

    fn document(&self, refusal: &Refusal, request_id: &str) -> Bytes {
        let mut out = BytesMut::with_capacity(256);
        let mut document = Object::begin(&mut out);
        document.str("type", "error");
        let mut error = document.object("error");
        error.str("type", kind(refusal));
        match &refusal.param {
            Some(param) => error.str("message", &format!("{param}: {}", refusal.message)),
            None => error.str("message", &refusal.message),
        };
        error.end();
        document.str("request_id", request_id);
        document.end();
        out.freeze()
    }

    fn event(&self, refusal: &Refusal, request_id: &str) -> Event {
        Event { name: Some("error"), data: self.document(refusal, request_id), content: false }
    }
}

fn kind(refusal: &Refusal) -> &'static str {
    match refusal.status {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        504 => "timeout_error",
        529 => "overloaded_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    }
}
