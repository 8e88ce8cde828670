//! Which path asks for what, and in which dialect.

use http::{Method, request::Parts};

use crate::dialect::Dialect;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) dialect: Dialect,
    pub(crate) operation: Operation,
    /// The model, where the path names it.
    pub(crate) model: Option<String>,
    /// Whether and how to stream, where the path decides.
    pub(crate) stream: Option<Streaming>,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// An answer to a conversation.
    Answer,
    /// The number of tokens of a conversation.
    Count,
    /// All models, or the one that is named.
    Models,
}

/// Streaming that a path asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Streaming {
    Whole,
    Sse,
}

impl Route {
    /// Reads the path: `/v1/…` or that below one segment of any name.
    pub(crate) fn of(parts: &Parts) -> Option<Self> {
        let path = parts.uri.path();
        let tail = match path.strip_prefix("/v1/") {
            Some(tail) => tail,
            None => path.strip_prefix('/')?.split_once('/')?.1.strip_prefix("v1/")?,
        };
        let lister = if parts.headers.contains_key("anthropic-version") {
            Dialect::Anthropic
        } else {
            Dialect::OpenAi
        };
        let (dialect, operation) = match tail {
            "chat/completions" => (Dialect::OpenAi, Operation::Answer),
            "messages" => (Dialect::Anthropic, Operation::Answer),
            "messages/count_tokens" => (Dialect::Anthropic, Operation::Count),
            "models" => (lister, Operation::Models),
            _ => {
                let name = tail.strip_prefix("models/")?;
                return Some(Self {
                    dialect: lister,
                    operation: Operation::Models,
                    model: Some(name.to_owned()),
                    stream: None,
                });
            }
        };
        Some(Self { dialect, operation, model: None, stream: None })
    }

    /// The method that the path wants.
    pub(crate) fn method(&self) -> Method {
        match self.operation {
            Operation::Answer | Operation::Count => Method::POST,
            Operation::Models => Method::GET,
        }
    }
}

/// The dialect in which a request is refused, if even its path is not understood.
pub(crate) fn dialect_of(parts: &Parts) -> Dialect {
    Route::of(parts).map_or(Dialect::OpenAi, |route| route.dialect)
}
