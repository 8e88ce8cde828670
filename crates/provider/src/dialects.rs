//! What has to be known of dialects in order to build URLs: their usual paths. What they say is not known here.

use omniroute_dialect::{Dialect, registry};

/// The usual paths of a dialect. `{model}` stays for later.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paths {
    name: &'static str,
    /// Other name in settings.
    short: &'static str,
    /// The chat operation; `None` where there is none.
    pub(crate) chat: Option<&'static str>,
    /// The chat operation when streaming, where it differs.
    pub(crate) chat_stream: Option<&'static str>,
}

const fn chat(name: &'static str, short: &'static str, path: &'static str) -> Paths {
    Paths { name, short, chat: Some(path), chat_stream: None }
}

const fn other(name: &'static str) -> Paths {
    Paths { name, short: name, chat: None, chat_stream: None }
}

/// Every dialect a provider file may name, spoken by the gateway or not.
static DECLARED: &[Paths] = &[
    chat(OPENAI_CHAT, "openai", "/chat/completions"),
    chat(OPENAI_RESPONSES, "responses", "/responses"),
    chat(ANTHROPIC, "anthropic", "/messages"),
    Paths {
        name: GEMINI,
        short: "gemini",
        chat: Some("/models/{model}:generateContent"),
        chat_stream: Some("/models/{model}:streamGenerateContent?alt=sse"),
    },
    chat(OLLAMA, "ollama", "/api/chat"),
    Paths {
        name: "bedrock-converse",
        short: "bedrock",
        chat: Some("/model/{model}/converse"),
        chat_stream: Some("/model/{model}/converse-stream"),
    },
    chat("watsonx", "watsonx", "/text/chat"),
    other("openai-embeddings"),
    other("openai-images"),
    other("deepgram"),
    other("assemblyai"),
    other("elevenlabs"),
    other("cartesia"),
    other("fal"),
    other("stability"),
    other("bfl"),
    other("replicate"),
];

/// OpenAI's Chat Completions.
pub(crate) const OPENAI_CHAT: &str = "openai-chat";
/// OpenAI's Responses.
pub(crate) const OPENAI_RESPONSES: &str = "openai-responses";
/// Anthropic's Messages.
pub(crate) const ANTHROPIC: &str = "anthropic-messages";
/// Google's generateContent.
pub(crate) const GEMINI: &str = "gemini";
/// Ollama's own.
pub(crate) const OLLAMA: &str = "ollama";

/// Whether a provider file may name it.
pub(crate) fn is_declared(name: &str) -> bool {
    DECLARED.iter().any(|paths| paths.name == name)
}

/// The names a provider file may use.
pub(crate) fn declared() -> Vec<&'static str> {
    DECLARED.iter().map(|paths| paths.name).collect()
}

/// The usual paths of the dialect with this long name.
pub(crate) fn paths(name: &str) -> Option<&'static Paths> {
    DECLARED.iter().find(|paths| paths.name == name)
}

/// Whether `asked`, a long or short name, means the dialect with this long name.
pub(crate) fn is_called(long_name: &str, asked: &str) -> bool {
    long_name == asked || paths(long_name).is_some_and(|paths| paths.short == asked)
}

/// The dialect, if the gateway speaks it.
pub(crate) fn spoken(long_name: &str) -> Option<&'static dyn Dialect> {
    registry::by_name(long_name)
}

/// Whether the credential is expected as `Authorization: Bearer`.
pub(crate) fn wants_bearer(long_name: &str) -> bool {
    long_name == OPENAI_CHAT || long_name == OPENAI_RESPONSES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spoken_dialect_is_declared() {
        for dialect in registry::DIALECTS {
            let paths = paths(dialect.long_name());
            assert!(paths.is_some_and(|paths| paths.chat.is_some()), "{}", dialect.long_name());
            assert!(is_called(dialect.long_name(), dialect.id().as_str()), "{}", dialect.id());
        }
    }
}
