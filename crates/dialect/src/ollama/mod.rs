//! Ollama's own chat.
//!
//! `wire` holds the words of the format; `request`, `response`, `stream` and `error` go between them and the canonical
//! form; `envelope` and `relay` pass on what stays in the dialect. Streams are lines of JSON, and one is asked for by
//! saying nothing. Completions (`/api/generate`) are the dialect's older form: one text is asked, and lines have the text
//! where those of a chat have a message.

mod envelope;
mod error;
mod relay;
mod request;
mod response;
mod rewrite;
mod stream;
mod wire;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use omniroute_wire::{
    json_out::{self, Object},
    splice::Splice,
};

use crate::{
    Caps, DecodeError, Dialect, DialectId, Echo, EncodeError, Encoded, Envelope, Framing, Head, KeepAlive,
    NameRule, Relayed, Rewrite,
    dialect::supply_member,
    ir::{ChatRequest, ChatResponse, PublicError, UpstreamError, Usage},
    stream::{Relay, StreamDecoder, StreamEncoder, StreamPipe},
};

/// The dialect's id.
pub(crate) const ID: DialectId = DialectId("ollama");

/// The dialect.
#[derive(Debug)]
pub struct Ollama;

impl Dialect for Ollama {
    fn id(&self) -> DialectId {
        ID
    }

    fn long_name(&self) -> &'static str {
        "ollama"
    }

    fn framing(&self) -> Framing {
        Framing::Ndjson
    }

    fn envelope(&self, head: Head<'_>, body: &Bytes) -> Result<Envelope, DecodeError> {
        envelope::read(head.path, body)
    }

    fn immediate_answer(&self, envelope: &Envelope, body: &Bytes, echo: &dyn Fn() -> Echo) -> Option<Bytes> {
        envelope::loading(envelope, body, echo)
    }

    fn bare_model<'a>(&self, model: &'a str) -> &'a str {
        model.strip_suffix(":latest").unwrap_or(model)
    }

    fn edit_request(&self, body: &Bytes, envelope: &Envelope, upstream_model: &str) -> Splice {
        envelope::edit(body, envelope, upstream_model)
    }

    fn path_as_asked(&self, chat_path: &str, envelope: &Envelope) -> Option<String> {
        let base = chat_path.strip_suffix("/chat").filter(|_| envelope.legacy)?;
        Some(format!("{base}/generate"))
    }

    fn rewrite(&self, body: &Bytes, rewrite: &Rewrite, caps: &Caps) -> Bytes {
        rewrite::rewrite(body, rewrite, caps)
    }

    fn decode_request(&self, head: Head<'_>, body: &Bytes) -> Result<ChatRequest, DecodeError> {
        match envelope::is_of_completions(head.path) {
            true => request::decode_completion(body),
            false => request::decode(body),
        }
    }

    fn encode_request(&self, request: &ChatRequest, caps: &Caps) -> Result<Encoded, EncodeError> {
        request.in_own_words(request::encode(request, caps))
    }

    fn decode_response(&self, body: &Bytes) -> Result<ChatResponse, DecodeError> {
        response::decode(body)
    }

    fn encode_response(&self, response: &ChatResponse, echo: &Echo) -> Encoded {
        response::encode(response, echo)
    }

    fn relay_response(&self, body: &Bytes, echo: &Echo) -> Result<Relayed, DecodeError> {
        relay::whole(body, echo)
    }

    fn supply_usage(&self, body: &Bytes, usage: &Usage) -> Splice {
        let prompt = usage.input_total().unwrap_or(0);
        let with_prompt =
            supply_member(body, "prompt_eval_count", |out| json_out::u64(out, prompt)).to_bytes();
        let output = usage.output_total.unwrap_or(0);
        supply_member(&with_prompt, "eval_count", |out| json_out::u64(out, output))
    }

    fn decode_error(&self, status: StatusCode, body: &[u8]) -> UpstreamError {
        error::decode(status, body)
    }

    fn encode_error(&self, error: &PublicError) -> (StatusCode, Bytes) {
        error::encode(error)
    }

    fn encode_stream_error(&self, error: &PublicError, _framing: Framing) -> Bytes {
        error::encode_in_stream(error)
    }

    fn stream_decoder(&self) -> Box<dyn StreamDecoder> {
        Box::new(stream::Decoder::default())
    }

    fn stream_encoder(&self, echo: Echo) -> Box<dyn StreamEncoder> {
        Box::new(stream::Encoder::new(echo))
    }

    fn stream_relay(&self, echo: Echo) -> Box<dyn StreamPipe> {
        Box::new(Relay::new(&Ollama, relay::Tap::new(echo)))
    }

    /// Clients read every line as data, so there is nothing less than a line that says nothing. Its time is that of
    /// the request's arrival: no other is known here, and there are clients that take no line without one.
    fn keep_alive(
        &self,
        style: KeepAlive,
        _framing: Framing,
        model: &str,
        arrived_ms: i64,
        legacy: bool,
    ) -> Bytes {
        if style == KeepAlive::Off {
            return Bytes::new();
        }
        let mut out = BytesMut::with_capacity(96);
        let mut object = Object::begin(&mut out);
        object.str("model", model);
        let stamp = object.key("created_at");
        stamp.extend_from_slice(b"\"");
        wire::write_stamp(stamp, &Echo::arrived_at(arrived_ms), Duration::ZERO);
        stamp.extend_from_slice(b"\"");
        envelope::write_nothing(&mut object, legacy);
        object.bool("done", false);
        object.end();
        out.extend_from_slice(b"\n");
        out.freeze()
    }

    /// The server takes any name, but some models' templates use the dot for themselves.
    fn tool_names(&self) -> NameRule {
        NameRule { max: 128, others: "-", letter_first: false }
    }

    /// A message has a place for the text of reasoning and none for anything that signs it.
    fn signs_as(&self) -> Option<DialectId> {
        None
    }

    fn takes_image_urls(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_a_stream_alive_is_a_line_with_all_that_lines_must_have() {
        let sent = |style| Ollama.keep_alive(style, Framing::Ndjson, "a\"b", 1_005, false);
        let line = "{\"model\":\"a\\\"b\",\"created_at\":\"1970-01-01T00:00:01.005Z\",\
                    \"message\":{\"role\":\"assistant\",\"content\":\"\"},\"done\":false}\n";
        for style in [KeepAlive::Comment, KeepAlive::Chunk] {
            assert_eq!(sent(style), line);
        }
        assert!(sent(KeepAlive::Off).is_empty());
        let completion = Ollama.keep_alive(KeepAlive::Comment, Framing::Ndjson, "m", 0, true);
        let line = "{\"model\":\"m\",\"created_at\":\"1970-01-01T00:00:00.000Z\",\"response\":\"\",\"done\":false}\n";
        assert_eq!(completion, line);
    }
}
