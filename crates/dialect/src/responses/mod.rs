//! OpenAI Responses.
//!
//! `wire` holds the words of the format; `request`, `response`, `stream` and `error` go between them and the
//! canonical form; `object` is what answers say of themselves; `envelope` and `relay` pass on what stays in the
//! dialect.

mod envelope;
mod error;
mod object;
mod relay;
mod request;
mod response;
mod rewrite;
mod stream;
mod wire;

use bytes::Bytes;
use http::StatusCode;
use omniroute_wire::splice::Splice;
use serde_json::value::RawValue;

use crate::{
    Caps, DecodeError, Dialect, DialectId, Echo, EncodeError, Encoded, Envelope, Framing, Head, JsonAnswer,
    KeepAlive, KeptCall, Mend, Progress, Relayed, Rewrite,
    dialect::supply_member,
    ir::{ChatRequest, ChatResponse, PublicError, UpstreamError, Usage},
    mend,
    stream::{Relay, StreamDecoder, StreamEncoder, StreamPipe},
};

/// The dialect's id.
pub(crate) const ID: DialectId = DialectId("responses");

/// The dialect.
#[derive(Debug)]
pub struct Responses;

impl Dialect for Responses {
    fn id(&self) -> DialectId {
        ID
    }

    fn long_name(&self) -> &'static str {
        "openai-responses"
    }

    fn framing(&self) -> Framing {
        Framing::Sse
    }

    fn envelope(&self, head: Head<'_>, body: &Bytes) -> Result<Envelope, DecodeError> {
        envelope::read(head, body)
    }

    fn edit_request(&self, body: &Bytes, envelope: &Envelope, upstream_model: &str) -> Splice {
        envelope::edit(body, envelope, upstream_model)
    }

    fn mend(&self, body: &Bytes, mend: Mend) -> Splice {
        match mend {
            Mend::ShortDescriptions(most) => mend::short_descriptions(body, None, most),
            // Its servers take system messages wherever they stand.
            Mend::OneSystemMessage => Splice::new(body.clone()),
        }
    }

    fn rewrite(&self, body: &Bytes, rewrite: &Rewrite, caps: &Caps) -> Bytes {
        rewrite::rewrite(body, rewrite, caps)
    }

    fn decode_request(&self, head: Head<'_>, body: &Bytes) -> Result<ChatRequest, DecodeError> {
        request::decode(head, body)
    }

    fn encode_request(&self, request: &ChatRequest, caps: &Caps) -> Result<Encoded, EncodeError> {
        request.in_own_words(request::encode(request, caps))
    }

    fn json_answer(&self, request: &ChatRequest, caps: &Caps) -> JsonAnswer {
        request::json_answer(request, caps)
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
        // One that is made in the background has used nothing that could be told yet.
        if relay::is_pending(body) {
            return Splice::new(body.clone());
        }
        supply_member(body, "usage", |out| wire::write_usage(out, usage))
    }

    fn is_pending(&self, body: &Bytes) -> bool {
        relay::is_pending(body)
    }

    fn kept_ids(&self, body: &Bytes) -> Vec<String> {
        relay::kept_ids(body)
    }

    fn kept_path(&self, chat_path: &str, id: &str, call: KeptCall) -> Option<String> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b':');
        let fits = chat_path.ends_with("/responses") && !id.starts_with('.') && id.bytes().all(is_plain);
        fits.then(|| match call {
            KeptCall::Read | KeptCall::Delete => format!("{chat_path}/{id}"),
            KeptCall::Cancel => format!("{chat_path}/{id}/cancel"),
            KeptCall::Inputs => format!("{chat_path}/{id}/input_items"),
        })
    }

    fn decode_error(&self, status: StatusCode, body: &[u8]) -> UpstreamError {
        error::decode(status, body)
    }

    fn encode_error(&self, error: &PublicError) -> (StatusCode, Bytes) {
        error::encode(error)
    }

    fn encode_stream_error(&self, error: &PublicError, _framing: Framing) -> Bytes {
        error::encode_stream(error)
    }

    fn stream_decoder(&self) -> Box<dyn StreamDecoder> {
        Box::new(stream::Decoder::default())
    }

    fn stream_encoder(&self, echo: Echo) -> Box<dyn StreamEncoder> {
        Box::new(stream::Encoder::new(echo))
    }

    fn stream_relay(&self, echo: Echo) -> Box<dyn StreamPipe> {
        Box::new(Relay::new(&Responses, relay::Tap::new(echo)))
    }

    /// Clients of the dialect take no event that they do not know, so there is none that says nothing.
    fn keep_alive(
        &self,
        style: KeepAlive,
        _framing: Framing,
        _model: &str,
        _arrived_ms: i64,
        _legacy: bool,
    ) -> Bytes {
        Bytes::from_static(match style {
            KeepAlive::Comment | KeepAlive::Chunk => b": keep-alive\n\n",
            KeepAlive::Off => b"",
        })
    }

    /// The stream helper of the vendor's JavaScript library throws on events that it does not know.
    fn progress(&self, progress: &Progress) -> Option<String> {
        progress.forced.then(|| progress.event("\"type\":\"progress\","))
    }

    fn encode_count(&self, tokens: u64) -> Bytes {
        Bytes::from(format!("{{\"object\":\"response.input_tokens\",\"input_tokens\":{tokens}}}"))
    }

    /// Whoever only counts need not say for which model.
    fn decode_count(&self, head: Head<'_>, body: &Bytes) -> Result<ChatRequest, DecodeError> {
        let body = &supply_member(body, "model", |out| out.extend_from_slice(b"\"\"")).to_bytes();
        request::decode(head, body)
    }

    fn count_path(&self, chat_path: &str) -> Option<String> {
        chat_path.ends_with("/responses").then(|| format!("{chat_path}/input_tokens"))
    }

    fn opaque_as_text(&self, raw: &RawValue) -> Option<String> {
        request::opaque_as_text(raw)
    }

    fn max_stop_sequences(&self) -> Option<usize> {
        Some(0)
    }

    fn binds_signatures_to_accounts(&self) -> bool {
        true
    }
}
