//! OpenAI Chat Completions.
//!
//! `wire` holds the words of the format; `request`, `response`, `stream` and `error` go between them and
//! the canonical form; `envelope` and `relay` pass on what stays in the dialect.

mod annotations;
mod envelope;
pub(crate) mod error;
mod finders;
mod history;
mod relay;
mod request;
mod response;
mod rewrite;
mod stream;
mod system;
mod wire;

use bytes::Bytes;
use http::StatusCode;
use omniroute_wire::splice::Splice;

use crate::{
    Caps, DecodeError, Dialect, DialectId, Echo, EncodeError, Encoded, Envelope, Framing, Head, JsonAnswer,
    KeepAlive, Mend, Progress, Relayed, Rewrite,
    dialect::supply_member,
    ir::{ChatRequest, ChatResponse, PublicError, UpstreamError, Usage},
    mend,
    stream::{Relay, StreamDecoder, StreamEncoder, StreamPipe},
};

/// A chunk that says nothing, for clients that read every line as one.
const KEEP_ALIVE_CHUNK: &[u8] = b"data: {\"id\":\"\",\"object\":\"chat.completion.chunk\",\"created\":0,\"model\":\"\",\"choices\":[]}\n\n";

/// The dialect's id.
pub(crate) const ID: DialectId = DialectId("openai");

/// The dialect.
#[derive(Debug)]
pub struct OpenAi;

impl Dialect for OpenAi {
    fn id(&self) -> DialectId {
        ID
    }

    fn long_name(&self) -> &'static str {
        "openai-chat"
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

    fn plain_roles(&self, body: &Bytes) -> Splice {
        history::plain_roles(body)
    }

    fn mend(&self, body: &Bytes, mend: Mend) -> Splice {
        match mend {
            Mend::ShortDescriptions(most) => mend::short_descriptions(body, Some("function"), most),
            Mend::OneSystemMessage => system::one_message(body),
        }
    }

    fn rewrite(&self, body: &Bytes, rewrite: &Rewrite, caps: &Caps) -> Bytes {
        rewrite::rewrite(body, rewrite, caps)
    }

    fn return_reasoning(&self, body: &Bytes, thoughts: &dyn Fn(usize) -> String) -> Splice {
        history::return_reasoning(body, thoughts)
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
        supply_member(body, "usage", |out| wire::write_usage(out, usage))
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
        Box::new(Relay::new(&OpenAi, relay::Tap::new(echo)))
    }

    fn keep_alive(
        &self,
        style: KeepAlive,
        _framing: Framing,
        _model: &str,
        _arrived_ms: i64,
        _legacy: bool,
    ) -> Bytes {
        Bytes::from_static(match style {
            KeepAlive::Comment => b": keep-alive\n\n",
            KeepAlive::Chunk => KEEP_ALIVE_CHUNK,
            KeepAlive::Off => b"",
        })
    }

    /// The vendor's libraries hand an event out as a chunk whatever its name is, and look into its `choices`.
    fn progress(&self, progress: &Progress) -> Option<String> {
        Some(progress.event("\"object\":\"omniroute.progress\",\"choices\":[],"))
    }

    fn end_mark(&self) -> Option<&'static [u8]> {
        Some(b"data: [DONE]")
    }

    /// `thinking_blocks` are in the form of the vendor whose models sign.
    fn signs_as(&self) -> Option<DialectId> {
        Some(crate::anthropic::ID)
    }

    fn wants_reasoning_text(&self) -> bool {
        true
    }

    fn takes_document_urls(&self) -> bool {
        false
    }

    fn max_stop_sequences(&self) -> Option<usize> {
        Some(4)
    }
}
