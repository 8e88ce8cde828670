//! What a wire format must be able to do.

mod envelope;

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use omniroute_wire::{envelope::scan, json_out, splice::Splice};
use serde_json::value::RawValue;

use crate::{
    Caps, Mend, Progress, Rewrite,
    ir::{Block, ChatRequest, ChatResponse, FinishReason, Loss, PublicError, UpstreamError, Usage},
    stream::{StreamDecoder, StreamEncoder, StreamPipe},
};

pub(crate) use envelope::EnvelopeSpans;
pub use envelope::{Envelope, Kept, KeptCall, KeptName};

/// The id of a dialect as it appears in code, logs, API fields and headers: `openai`, `anthropic`, …
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DialectId(pub(crate) &'static str);

impl DialectId {
    /// The id as text.
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for DialectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl fmt::Debug for DialectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// How a stream of the dialect is cut into frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Server-sent events.
    Sse,
    /// One JSON document per line.
    Ndjson,
    /// One JSON list that is written element by element. Only for clients: upstreams are asked for events.
    JsonList,
}

impl Framing {
    /// The media type of such a stream.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Sse => "text/event-stream",
            Self::Ndjson => "application/x-ndjson",
            Self::JsonList => "application/json",
        }
    }
}

/// What stands outside the body and yet belongs to the request.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// The client's headers.
    pub headers: &'a HeaderMap,
    /// The path below the client prefixes (`/v1beta/models/a/b:generateContent`), percent-decoded, for dialects
    /// that name the model there.
    pub path: &'a str,
    /// The query, as it came, for dialects that say something there.
    pub query: Option<&'a str>,
}

/// What an answer repeats of the request it belongs to.
#[derive(Debug, Clone, Default)]
pub struct Echo {
    /// The model name the client asked for.
    pub model: Arc<str>,
    /// The gateway's id of the request; seeds generated ids.
    pub request_id: Arc<str>,
    /// Seconds since the epoch, for dialects that stamp their answers.
    pub created: i64,
    /// Milliseconds of that second, for those that stamp them finer.
    pub created_millis: u16,
    /// How long after the request's arrival the upstream was asked, for dialects whose answers tell times.
    pub asked_after: Option<Duration>,
    /// How long after the request's arrival the upstream began to answer, for the same.
    pub begun_after: Option<Duration>,
    /// How long after the request's arrival a whole answer was there, for the same. A stream's writer is told the
    /// time as it passes, see [`StreamEncoder::time_passed`].
    pub answered_after: Option<Duration>,
    /// Whether the client asked for usage in the stream.
    pub include_usage: bool,
    /// Estimated prompt tokens, for dialects that must report input before the upstream does.
    pub estimated_input_tokens: u64,
    /// [`Envelope::legacy`] of the request.
    pub legacy: bool,
    /// [`Envelope::framing`] of the request; `None` for the dialect's usual one.
    pub framing: Option<Framing>,
    /// The client's request, for dialects whose answers repeat parts of it.
    pub request: Bytes,
    /// Names of the client's tools that take free text. Calls of them arrive as `{"input": "…"}` and are written
    /// as what the dialect has for such calls.
    pub custom_tools: Arc<[String]>,
}

impl Echo {
    /// Nothing but when the request arrived, in milliseconds since the epoch.
    pub fn arrived_at(ms: i64) -> Self {
        let created_millis = u16::try_from(ms.rem_euclid(1_000)).unwrap_or(0);
        Self { created: ms.div_euclid(1_000), created_millis, ..Self::default() }
    }
}

/// What an operator decided about keeping silent streams alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepAlive {
    /// The least that the dialect's clients accept (a comment, a ping).
    Comment,
    /// Something that is data, for clients that read every line as data.
    Chunk,
    /// Nothing, unless the dialect's clients insist on it.
    Off,
}

/// Which names of tools a dialect's upstreams accept.
#[derive(Debug, Clone, Copy)]
pub struct NameRule {
    /// Most characters.
    pub max: usize,
    /// Characters beside letters, digits and `_`.
    pub others: &'static str,
    /// Whether the first must be a letter or `_`.
    pub letter_first: bool,
}

/// By which means an upstream is made to answer in JSON where it has none of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonAnswer {
    /// By its own, or no JSON was asked for.
    AsIs,
    /// It is asked in words, and may put a fence around what it writes.
    Fenced,
    /// It has to call a tool whose arguments are the answer.
    Tool,
}

/// The name of that tool.
pub(crate) const ANSWER_TOOL: &str = "json_response";

/// A body in the target's dialect and what was lost on the way there.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// The body.
    pub body: Bytes,
    /// What could not be carried over unchanged.
    pub losses: Vec<Loss>,
}

/// A whole upstream answer of the client's own dialect, edited and judged.
#[derive(Debug, Clone)]
pub struct Relayed {
    /// The answer with the asked model name in place.
    pub body: Splice,
    /// What it used, as far as it said.
    pub usage: Usage,
    /// Why it ended, as far as it said.
    pub finish: Option<FinishReason>,
    /// Whether it has any content, tool call or refusal; an answer without is a failure of the upstream.
    pub meaningful: bool,
    /// An error object inside a successful status.
    pub error: Option<UpstreamError>,
}

/// Why a request or answer could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct DecodeError {
    /// A code of client-facing errors: `invalid_json`, `missing_required_parameter`, `invalid_type`, …
    pub code: &'static str,
    /// JSON path of the offending member: `messages[3].content`.
    pub param: Option<String>,
    /// What was wrong and what is expected; never repeats body text.
    pub message: String,
}

/// Why a request cannot be expressed in the target's dialect without changing its meaning.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct EncodeError {
    /// A code of client-facing errors: `unsupported_parameter`, `unsupported_content`, …
    pub code: &'static str,
    /// JSON path of the offending member in the client's request.
    pub param: Option<String>,
    /// What cannot be carried and where it could be.
    pub message: String,
}

/// One wire format, both ways. Stateless; streams get state objects of their own.
pub trait Dialect: Sync + 'static {
    /// The dialect's id.
    fn id(&self) -> DialectId;
    /// The long name used in provider data files.
    fn long_name(&self) -> &'static str;
    /// How streams are framed.
    fn framing(&self) -> Framing;

    /// Reads the envelope of a client's request. Checks that the body is one JSON object, that `model` is a
    /// non-empty string, `stream` a boolean, neither repeated, and the conversation present and non-empty.
    fn envelope(&self, head: Head<'_>, body: &Bytes) -> Result<Envelope, DecodeError>;
    /// The answer to a request that no upstream has to be asked about, whole or as a stream as the envelope says.
    fn immediate_answer(&self, envelope: &Envelope, body: &Bytes, echo: &dyn Fn() -> Echo) -> Option<Bytes> {
        let _ = (envelope, body, echo);
        None
    }
    /// The answer to a request that wants nothing said, for upstreams of other dialects, which would refuse it.
    fn empty_answer(&self, envelope: &Envelope, echo: &dyn Fn() -> Echo) -> Option<Bytes> {
        let _ = (envelope, echo);
        None
    }
    /// A model's name without what clients of this dialect add to names that have no version.
    fn bare_model<'a>(&self, model: &'a str) -> &'a str {
        model
    }
    /// The edits that turn a client's request into one for an upstream of the same dialect.
    fn edit_request(&self, body: &Bytes, envelope: &Envelope, upstream_model: &str) -> Splice;

    /// Where upstreams of this dialect take a request that stays as it is, by the path at which they chat; `None` for
    /// there.
    fn path_as_asked(&self, chat_path: &str, envelope: &Envelope) -> Option<String> {
        let _ = (chat_path, envelope);
        None
    }

    /// Makes an operator's changes in a client's request. Everything else keeps its bytes.
    fn rewrite(&self, body: &Bytes, rewrite: &Rewrite, caps: &Caps) -> Bytes;

    /// Asks an upstream of this dialect for the variant of a model with the longest context, where that has to be said.
    fn ask_for_long_context(&self, headers: &mut HeaderMap) {
        let _ = headers;
    }

    /// Adds headers that upstreams of this dialect want with some of what a request asks for.
    fn ask_for(&self, request: &ChatRequest, caps: &Caps, headers: &mut HeaderMap) {
        let _ = (request, caps, headers);
    }

    /// Puts reasoning back into a request of this dialect, in the messages whose calls came without it. `thoughts` says
    /// it of a message by its place, empty where it is not known. A dialect without unsigned reasoning has none.
    fn return_reasoning(&self, body: &Bytes, thoughts: &dyn Fn(usize) -> String) -> Splice {
        let _ = thoughts;
        Splice::new(body.clone())
    }

    /// Puts the role that every server of this dialect knows in the place of one that only the vendor's own does.
    fn plain_roles(&self, body: &Bytes) -> Splice {
        Splice::new(body.clone())
    }

    /// Changes the form of a request of this dialect. All else keeps its bytes.
    fn mend(&self, body: &Bytes, mend: Mend) -> Splice {
        let _ = mend;
        Splice::new(body.clone())
    }

    /// Reads a client's request into the canonical form.
    fn decode_request(&self, head: Head<'_>, body: &Bytes) -> Result<ChatRequest, DecodeError>;
    /// Writes a request for an upstream of this dialect. `request.model` is already the upstream's name.
    fn encode_request(&self, request: &ChatRequest, caps: &Caps) -> Result<Encoded, EncodeError>;

    /// By which means the answer to such a request is made JSON; [`Self::encode_request`] does its part.
    fn json_answer(&self, request: &ChatRequest, caps: &Caps) -> JsonAnswer {
        let _ = (request, caps);
        JsonAnswer::AsIs
    }

    /// Reads a whole upstream answer.
    fn decode_response(&self, body: &Bytes) -> Result<ChatResponse, DecodeError>;
    /// Writes a whole answer for a client.
    fn encode_response(&self, response: &ChatResponse, echo: &Echo) -> Encoded;
    /// Prepares a whole upstream answer of this dialect for a client of this dialect.
    fn relay_response(&self, body: &Bytes, echo: &Echo) -> Result<Relayed, DecodeError>;

    /// Tells in a whole answer of this dialect what was used, where its upstream does not: estimated by the caller.
    fn supply_usage(&self, body: &Bytes, usage: &Usage) -> Splice;

    /// The blocks of a whole answer that its upstream paused, as they came: it goes on when they are sent back. `None`
    /// where it did not end so.
    fn paused_content(&self, body: &Bytes) -> Option<Vec<Block>> {
        let _ = body;
        None
    }

    /// Whether a whole answer of an upstream of this dialect is still being made.
    fn is_pending(&self, body: &Bytes) -> bool {
        let _ = body;
        false
    }

    /// The ids by which a later request may name a whole answer of an upstream of this dialect, or parts of it.
    fn kept_ids(&self, body: &Bytes) -> Vec<String> {
        let _ = body;
        Vec::new()
    }

    /// Where upstreams of this dialect take such a call, by the path at which they chat. `None` where they keep nothing,
    /// and for ids that none of them gives.
    fn kept_path(&self, chat_path: &str, id: &str, call: KeptCall) -> Option<String> {
        let _ = (chat_path, id, call);
        None
    }

    /// Reads an upstream's error. Never fails: what cannot be read becomes its text, shortened.
    fn decode_error(&self, status: StatusCode, body: &[u8]) -> UpstreamError;
    /// Writes an error for a client: the status it is sent with and the body.
    fn encode_error(&self, error: &PublicError) -> (StatusCode, Bytes);
    /// Writes an error for a client whose stream has begun (keep-alives at most) before any event was written.
    /// Later errors are written by the stream's own [`StreamPipe::fail`].
    fn encode_stream_error(&self, error: &PublicError, framing: Framing) -> Bytes;

    /// A reader of an upstream's stream.
    fn stream_decoder(&self) -> Box<dyn StreamDecoder>;
    /// A writer of a client's stream.
    fn stream_encoder(&self, echo: Echo) -> Box<dyn StreamEncoder>;
    /// A pipe between an upstream and a client that both speak this dialect.
    fn stream_relay(&self, echo: Echo) -> Box<dyn StreamPipe>;
    /// What is sent to a streaming client while nothing else is; empty for nothing. `model` is the asked name,
    /// `arrived_ms` when the request arrived, in milliseconds since the epoch; `legacy` is [`Envelope::legacy`].
    fn keep_alive(
        &self,
        style: KeepAlive,
        framing: Framing,
        model: &str,
        arrived_ms: i64,
        legacy: bool,
    ) -> Bytes;
    /// An event that tells a streaming client how far its answer has come, to be sent between two others. `None` where
    /// clients would not survive it.
    fn progress(&self, progress: &Progress) -> Option<String> {
        let _ = progress;
        None
    }
    /// How the event begins that must stay the last of a stream; the last progress is told before it.
    fn end_mark(&self) -> Option<&'static [u8]> {
        None
    }

    /// Reads a request whose tokens are to be counted.
    fn decode_count(&self, head: Head<'_>, body: &Bytes) -> Result<ChatRequest, DecodeError> {
        self.decode_request(head, body)
    }
    /// The edits that turn a request to count into one for an upstream of the same dialect.
    fn edit_count(&self, body: &Bytes, upstream_model: &str) -> Splice {
        replace_model(body, upstream_model)
    }
    /// Writes a count for a client.
    fn encode_count(&self, tokens: u64) -> Bytes {
        Bytes::from(format!("{{\"input_tokens\":{tokens}}}"))
    }
    /// Whether an upstream's answer is a count.
    fn is_count(&self, body: &[u8]) -> bool {
        #[derive(serde::Deserialize)]
        struct Counted {
            #[serde(rename = "input_tokens")]
            _tokens: u64,
        }
        serde_json::from_slice::<Counted>(body).is_ok()
    }
    /// Where upstreams of this dialect count, by the path at which they chat; `None` where they do not.
    fn count_path(&self, chat_path: &str) -> Option<String> {
        let _ = chat_path;
        None
    }

    /// A header of this dialect's answers that repeats the id of the request, beside the gateway's own.
    fn request_id_header(&self) -> Option<&'static str> {
        None
    }
    /// In which headers the dialect's clients look for what is left of their limits, beside OpenAI's: of requests and of
    /// tokens the limit, what remains, and when all of it is there again.
    fn rate_limit_headers(&self) -> Option<[[&'static str; 3]; 2]> {
        None
    }
    /// Takes over headers of a client that an upstream of this dialect should see.
    fn forward_headers(&self, client: DialectId, from: &HeaderMap, to: &mut HeaderMap) {
        let _ = (client, from, to);
    }

    /// The `Content-Type` of a client's stream.
    fn stream_content_type(&self, framing: Framing) -> &'static str {
        match framing {
            Framing::Sse => "text/event-stream; charset=utf-8",
            Framing::Ndjson | Framing::JsonList => framing.media_type(),
        }
    }

    /// A text that says what a block says that only this dialect has, for the history of other dialects. `None` for
    /// blocks that have no such text.
    fn opaque_as_text(&self, raw: &RawValue) -> Option<String> {
        let _ = raw;
        None
    }

    /// Which names of tools upstreams of this dialect accept.
    fn tool_names(&self) -> NameRule {
        NameRule { max: 64, others: "-", letter_first: false }
    }
    /// How many stop sequences upstreams of this dialect accept; `None` for any number.
    fn max_stop_sequences(&self) -> Option<usize> {
        None
    }
    /// Whose signatures this dialect's clients bring back as they are; those of others go into carriers. `None` where
    /// clients have no place for any.
    fn signs_as(&self) -> Option<DialectId> {
        Some(self.id())
    }
    /// Whether clients of this dialect bring the reasoning of a stream back in the pieces in which it came.
    fn brings_reasoning_in_pieces(&self) -> bool {
        false
    }
    /// Whether upstreams of this dialect want their reasoning back although they do not sign it.
    fn wants_reasoning_text(&self) -> bool {
        false
    }
    /// Whether signatures of this dialect can only be read by the account that made them.
    fn binds_signatures_to_accounts(&self) -> bool {
        false
    }
    /// Whether upstreams of this dialect fetch documents by their address.
    fn takes_document_urls(&self) -> bool {
        true
    }
    /// Whether upstreams of this dialect fetch images by their address.
    fn takes_image_urls(&self) -> bool {
        true
    }
}

/// Puts a member into an answer that lacks it, or has nothing there.
pub(crate) fn supply_member(body: &Bytes, name: &str, write: impl FnOnce(&mut bytes::BytesMut)) -> Splice {
    let mut splice = Splice::new(body.clone());
    let mut place = None;
    let scanned = scan(body, &mut |member| {
        if member.key == name {
            place = Some((member.span, matches!(member.raw, "null" | "{}")));
        }
    });
    let Ok(extent) = scanned else { return splice };
    let mut value = bytes::BytesMut::new();
    match place {
        Some((_, false)) => {}
        Some((span, true)) => {
            write(&mut value);
            splice.replace(span, value.freeze());
        }
        None => {
            value.extend_from_slice(if extent.has_members { b",\"" } else { b"\"" });
            value.extend_from_slice(name.as_bytes());
            value.extend_from_slice(b"\":");
            write(&mut value);
            splice.replace(extent.end..extent.end, value.freeze());
        }
    }
    splice
}

/// A body with another model.
pub(crate) fn replace_model(body: &Bytes, model: &str) -> Splice {
    let mut splice = Splice::new(body.clone());
    let mut place = None;
    let scanned = scan(body, &mut |member| {
        if member.key == "model" {
            place = Some(member.span);
        }
    });
    if let (Ok(_), Some(place)) = (scanned, place) {
        let mut name = bytes::BytesMut::with_capacity(model.len() + 2);
        json_out::string(&mut name, model);
        splice.replace(place, name.freeze());
    }
    splice
}
