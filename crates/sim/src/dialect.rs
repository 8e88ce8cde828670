//! The wire formats that are spoken, and what each of them must be able to do.
//!
//! A dialect is one folder with the same files: `mod.rs` (who it is: keys, headers, lists of models), `request.rs`
//! (a request judged, but for its conversation), `turns.rs` (the conversation judged), `answer.rs` (what is said, whole
//! and as a stream) and `error.rs` (how it is refused).

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, request::Parts};
use serde_json::Value;

use crate::{
    anthropic::Anthropic,
    ask::Ask,
    check::{At, Wording},
    frame::{Event, Frames},
    gemini::Gemini,
    ollama::Ollama,
    openai::OpenAi,
    refusal::Refusal,
    reply::Reply,
    responses::Responses,
    route::Streaming,
    script::Script,
    stage::Ids,
};

/// A wire format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Dialect {
    OpenAi,
    Responses,
    Anthropic,
    Gemini,
    Ollama,
}

impl Dialect {
    /// What it does.
    pub(crate) fn wire(self) -> &'static dyn Wire {
        match self {
            Self::OpenAi => &OpenAi,
            Self::Responses => &Responses,
            Self::Anthropic => &Anthropic,
            Self::Gemini => &Gemini,
            Self::Ollama => &Ollama,
        }
    }
}

/// A request whose model is known.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Incoming<'a> {
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: &'a Value,
    pub(crate) model: &'a str,
    pub(crate) script: &'a Script,
    /// What the path says about streaming.
    pub(crate) stream: Option<Streaming>,
    /// Whether the path is the one for completions.
    pub(crate) completes: bool,
}

/// What is to be said.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer<'a> {
    pub(crate) script: &'a Script,
    pub(crate) ask: &'a Ask,
    pub(crate) reply: &'a Reply,
    pub(crate) ids: Ids,
}

/// A wire format, seen from the provider's side.
pub(crate) trait Wire: Wording {
    /// The caller's key.
    fn key(&self, parts: &Parts) -> Option<String>;

    /// Whether nobody needs a key.
    fn open(&self) -> bool {
        false
    }

    /// Whether bodies must say that they are JSON.
    fn typed(&self) -> bool {
        true
    }

    /// How a stream is written, unless the path says so.
    fn frames(&self) -> Frames {
        Frames::Sse
    }

    /// Whether answers are streams unless the request says otherwise.
    fn streams_unasked(&self) -> bool {
        false
    }

    /// The model that a body names.
    fn model_name(&self, body: &Value) -> Result<String, Refusal>;

    /// Judges a request for an answer and reads what it asks for.
    fn read(&self, incoming: &Incoming<'_>) -> Result<Ask, Refusal>;

    /// Judges a request for the number of tokens and answers it.
    fn count(&self, _: &Incoming<'_>) -> Result<Bytes, Refusal> {
        Err(Refusal { code: None, ..Refusal::status(404, "this API does not count tokens") })
    }

    /// The answer as one document.
    fn whole(&self, answer: &Answer<'_>) -> Bytes;

    /// The answer as the events of a stream.
    fn events(&self, answer: &Answer<'_>) -> Vec<Event>;

    /// What goes wrong in the middle of a stream: after these events, of which so many were sent.
    fn broken(&self, refusal: &Refusal, answer: &Answer<'_>, _sent: usize) -> Event {
        self.event(refusal, &answer.ids.request())
    }

    /// Headers that the vendor sends along.
    fn headers(&self, headers: &mut HeaderMap, request_id: HeaderValue);

    /// The list of models.
    fn models(&self, names: &[&str], ids: Ids) -> Bytes;

    /// One model.
    fn model(&self, name: &str, ids: Ids) -> Bytes;

    /// The version of the vendor's software.
    fn version(&self) -> Bytes {
        Bytes::from_static(b"{}")
    }
}

/// The string that a body's `model` is.
pub(crate) fn named_in_body(body: &Value, wording: &'static dyn Wording) -> Result<String, Refusal> {
    Ok(At::root(body, wording).need("model")?.text()?.to_owned())
}

/// The token of an `Authorization` header.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<String> {
    let value = headers.get("authorization")?.to_str().ok()?;
    Some(value.strip_prefix("Bearer ")?.trim().to_owned())
}

/// A header that is text.
pub(crate) fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}
