//! OpenAI Chat Completions.
//!
//! `wire` holds the words of the format; `request`, `response`, `stream` and `error` go between them and
//! the canonical form; `envelope` and `relay` pass on what stays in the dialect.

mod envelope;
mod error;
mod relay;
mod request;
mod response;
mod stream;
mod wire;

use bytes::Bytes;
use http::StatusCode;
use omniroute_wire::splice::Splice;

use crate::{
    Caps, DecodeError, Dialect, DialectId, Echo, EncodeError, Encoded, Envelope, Framing, Head, Relayed,
    ir::{ChatRequest, ChatResponse, PublicError, UpstreamError},
    stream::{StreamDecoder, StreamEncoder, StreamPipe},
};

#[doc(hidden)]
pub use stream::fuzz_openai_stream;

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

    fn decode_request(&self, head: Head<'_>, body: &Bytes) -> Result<ChatRequest, DecodeError> {
        request::decode(head, body)
    }

    fn encode_request(&self, request: &ChatRequest, caps: &Caps) -> Result<Encoded, EncodeError> {
        request::encode(request, caps)
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

    fn decode_error(&self, status: StatusCode, body: &[u8]) -> UpstreamError {
        error::decode(status, body)
    }

    fn encode_error(&self, error: &PublicError) -> (StatusCode, Bytes) {
        error::encode(error)
    }

    fn encode_stream_error(&self, error: &PublicError) -> Bytes {
        error::encode_stream(error)
    }

    fn stream_decoder(&self) -> Box<dyn StreamDecoder> {
        Box::new(stream::Decoder::default())
    }

    fn stream_encoder(&self, echo: Echo) -> Box<dyn StreamEncoder> {
        Box::new(stream::Encoder::new(echo))
    }

    fn stream_relay(&self, echo: Echo) -> Box<dyn StreamPipe> {
        Box::new(relay::Relay::new(echo))
    }

    fn keep_alive(&self) -> &'static [u8] {
        b": keep-alive\n\n"
    }

    fn keep_alive_chunk(&self) -> &'static [u8] {
        b"data: {\"id\":\"\",\"object\":\"chat.completion.chunk\",\"created\":0,\"model\":\"\",\"choices\":[]}\n\n"
    }

    fn stream_content_type(&self) -> &'static str {
        "text/event-stream; charset=utf-8"
    }
}
