//! Refusals: the words and the shape of the vendor's other dialect, but for streams.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use omniroute_wire::json_out::Object;

use crate::{check::Wording, frame::Event, openai::OpenAi, refusal::Refusal, responses::Responses};

impl Wording for Responses {
    fn unknown(&self, path: &str, key: &str) -> Refusal {
        OpenAi.unknown(path, key)
    }

    fn wrong(&self, path: &str, message: &str) -> Refusal {
        OpenAi.wrong(path, message)
    }

    fn no_key(&self) -> Refusal {
        OpenAi.no_key()
    }

    fn broke(&self) -> Refusal {
        OpenAi.broke()
    }

    fn too_long(&self, _: u64, _: u64) -> Refusal {
        let message =
            "Your input exceeds the context window of this model. Please adjust your input and try again.";
        Refusal::field("input", "context_length_exceeded", message)
    }

    fn document(&self, refusal: &Refusal, request_id: &str) -> Bytes {
        OpenAi.document(refusal, request_id)
    }

    fn event(&self, refusal: &Refusal, _: &str) -> Event {
        let mut out = BytesMut::with_capacity(256);
        let mut event = Object::begin(&mut out);
        event
            .str("type", "error")
            .str("code", code(refusal))
            .str("message", &refusal.message)
            .str_or_null("param", refusal.param.as_deref())
            .u64("sequence_number", 0);
        event.end();
        Event { name: Some("error"), data: out.freeze(), content: false }
    }

    fn retry(&self, after: Duration, headers: &mut HeaderMap) {
        OpenAi.retry(after, headers);
    }
}

/// The code of an error inside a stream.
pub(crate) fn code(refusal: &Refusal) -> &'static str {
    match (refusal.status, refusal.code) {
        (429, _) => "rate_limit_exceeded",
        (500.., _) => "server_error",
        (_, Some(code)) => code,
        (_, None) => "invalid_prompt",
    }
}
