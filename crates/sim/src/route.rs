//! Which path asks for what, and in which dialect.

use std::borrow::Cow;

use http::{Method, request::Parts};
use percent_encoding::percent_decode_str;

use crate::{dialect::Dialect, embeddings::Form};

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) dialect: Dialect,
    pub(crate) operation: Operation,
    /// The model, where the path names it.
    pub(crate) model: Option<String>,
    /// Whether and how to stream, where the path decides.
    pub(crate) stream: Option<Streaming>,
    /// Whether a text is to be completed, where there is a path of its own for that.
    pub(crate) completes: bool,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// An answer to a conversation.
    Answer,
    /// The number of tokens of a conversation.
    Count,
    /// All models, or the one that the path names.
    Models,
    /// The model that the body names.
    Model,
    /// The version of the vendor's software.
    Version,
    /// Vectors for texts.
    Embed(Form),
}

/// Streaming that a path asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Streaming {
    /// None.
    Whole,
    /// Server-sent events.
    Sse,
    /// One JSON array.
    Array,
}

impl Route {
    /// Reads the path: those of the vendors, or these below one segment of any name.
    pub(crate) fn of(parts: &Parts) -> Option<Self> {
        let path = parts.uri.path();
        vendors(path, parts).or_else(|| {
            let below = path.strip_prefix('/')?;
            vendors(&below[below.find('/')?..], parts)
        })
    }

    /// The method that the path wants.
    pub(crate) fn method(&self) -> Method {
        match self.operation {
            Operation::Answer | Operation::Count | Operation::Model | Operation::Embed(_) => Method::POST,
            Operation::Models | Operation::Version => Method::GET,
        }
    }

    fn new(dialect: Dialect, operation: Operation) -> Self {
        Self { dialect, operation, model: None, stream: None, completes: false }
    }
}

/// The dialect in which a request is refused, if even its path is not understood.
pub(crate) fn dialect_of(parts: &Parts) -> Dialect {
    match Route::of(parts) {
        Some(route) => route.dialect,
        None if parts.uri.path().contains("/v1beta/") => Dialect::Gemini,
        None if parts.uri.path().contains("/api/") => Dialect::Ollama,
        None => Dialect::OpenAi,
    }
}

/// A parameter of the query.
pub(crate) fn query<'a>(parts: &'a Parts, name: &str) -> Option<Cow<'a, str>> {
    let mut pairs = parts.uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(found, _)| *found == name)?;
    percent_decode_str(value).decode_utf8().ok()
}

fn vendors(path: &str, parts: &Parts) -> Option<Route> {
    if let Some(tail) = path.strip_prefix("/v1beta/") {
        return gemini(tail, parts);
    }
    if let Some(tail) = path.strip_prefix("/api/").or_else(|| path.strip_prefix("/v1/api/")) {
        return ollama(tail);
    }
    let tail = path.strip_prefix("/v1/")?;
    // One path, three vendors: their clients are told apart by what only they send.
    let lister = if parts.headers.contains_key("anthropic-version") {
        Dialect::Anthropic
    } else if parts.headers.contains_key("x-goog-api-key") {
        Dialect::Gemini
    } else {
        Dialect::OpenAi
    };
    match tail {
        "chat/completions" => Some(Route::new(Dialect::OpenAi, Operation::Answer)),
        "responses" => Some(Route::new(Dialect::Responses, Operation::Answer)),
        "responses/input_tokens" => Some(Route::new(Dialect::Responses, Operation::Count)),
        "messages" => Some(Route::new(Dialect::Anthropic, Operation::Answer)),
        "messages/count_tokens" => Some(Route::new(Dialect::Anthropic, Operation::Count)),
        "embeddings" => Some(Route::new(Dialect::OpenAi, Operation::Embed(Form::OpenAi))),
        "models" => Some(Route::new(lister, Operation::Models)),
        // Google has a `/v1` too, and its newer clients use it.
        _ if tail.contains(':') => gemini(tail, parts),
        _ => {
            let model = Some(decoded(tail.strip_prefix("models/")?)?);
            Some(Route { model, ..Route::new(lister, Operation::Models) })
        }
    }
}

/// `models`, `models/{model}` or `models/{model}:{action}`; a model's name may have slashes and colons.
fn gemini(tail: &str, parts: &Parts) -> Option<Route> {
    if tail == "models" {
        return Some(Route::new(Dialect::Gemini, Operation::Models));
    }
    let tail = decoded(tail.strip_prefix("models/")?)?;
    let Some((model, action)) = tail.rsplit_once(':') else {
        return Some(Route { model: Some(tail), ..Route::new(Dialect::Gemini, Operation::Models) });
    };
    let (operation, stream) = match action {
        "generateContent" => (Operation::Answer, Some(Streaming::Whole)),
        "streamGenerateContent" if query(parts, "alt").as_deref() == Some("sse") => {
            (Operation::Answer, Some(Streaming::Sse))
        }
        "streamGenerateContent" => (Operation::Answer, Some(Streaming::Array)),
        "countTokens" => (Operation::Count, None),
        "embedContent" => (Operation::Embed(Form::Gemini { several: false }), None),
        "batchEmbedContents" => (Operation::Embed(Form::Gemini { several: true }), None),
        _ => return None,
    };
    Some(Route { model: Some(model.to_owned()), stream, ..Route::new(Dialect::Gemini, operation) })
}

fn ollama(tail: &str) -> Option<Route> {
    let operation = match tail {
        "chat" | "generate" => Operation::Answer,
        "tags" => Operation::Models,
        "show" => Operation::Model,
        "version" => Operation::Version,
        "embed" => Operation::Embed(Form::Ollama { old: false }),
        "embeddings" => Operation::Embed(Form::Ollama { old: true }),
        _ => return None,
    };
    Some(Route { completes: tail == "generate", ..Route::new(Dialect::Ollama, operation) })
}

/// Percent-encoded text as it was.
pub(crate) fn decoded(text: &str) -> Option<String> {
    Some(percent_decode_str(text).decode_utf8().ok()?.into_owned())
}
