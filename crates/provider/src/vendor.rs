//! Whose a model is by its name alone: `claude-…` is Anthropic's, wherever else it is served.

use crate::capability::Capability;

/// What a name begins with, and the id of the vendor. The first hit counts.
static VENDORS: &[(&[&str], &str)] = &[
    (
        &["gpt-", "o1", "o3", "o4", "chatgpt-", "text-embedding-", "dall-e", "gpt-image", "whisper", "tts-"],
        "openai",
    ),
    (&["claude-"], "anthropic"),
    (&["gemini-", "gemma-", "imagen-"], "gemini"),
    (&["grok-"], "xai"),
    (&["deepseek-"], "deepseek"),
    (&["mistral-", "codestral-", "magistral-", "ministral-", "devstral-", "pixtral-", "voxtral-"], "mistral"),
    (&["command-", "embed-", "rerank-"], "cohere"),
    (&["glm-"], "zai"),
    (&["kimi-", "moonshot-"], "moonshot"),
    (&["qwen"], "alibaba"),
    (&["MiniMax-"], "minimax"),
    (&["sonar"], "perplexity"),
    (&["voyage-"], "voyage"),
];

/// The id of the provider that makes models of this name, for what they are to do; `None` of that is chat.
pub fn vendor_of(model: &str, ability: Option<Capability>) -> Option<&'static str> {
    // Amazon has others of this name, which hear and say nothing.
    if matches!(ability, Some(Capability::Transcriptions | Capability::Speech)) && model.starts_with("nova-")
    {
        return Some("deepgram");
    }
    VENDORS
        .iter()
        .find(|(beginnings, _)| beginnings.iter().any(|start| model.starts_with(start)))
        .map(|(_, id)| *id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_vendor_is_in_the_catalogue() {
        for id in VENDORS.iter().map(|(_, id)| *id).chain(["deepgram"]) {
            assert!(crate::catalog::catalog().provider(id).is_some(), "{id}");
        }
    }

    #[test]
    fn names_tell_their_vendor() {
        for (model, vendor) in [
            ("claude-sonnet-4-5", Some("anthropic")),
            ("gpt-5.2", Some("openai")),
            ("qwen3-max", Some("alibaba")),
            ("llama-3.3", None),
        ] {
            assert_eq!(vendor_of(model, None), vendor, "{model}");
        }
        let heard = |ability| vendor_of("nova-3-medical", ability);
        assert_eq!((heard(Some(Capability::Transcriptions)), heard(None)), (Some("deepgram"), None));
    }
}
