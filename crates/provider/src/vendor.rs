//! Whose a model is by its name alone: `claude-…` is Anthropic's, wherever else it is served.

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

/// The id of the provider that makes models of this name.
pub fn vendor_of(model: &str) -> Option<&'static str> {
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
        for (_, id) in VENDORS {
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
            assert_eq!(vendor_of(model), vendor, "{model}");
        }
    }
}
