//! Families of models: those that can read each other's signatures.

/// The family in a model's name, in lower case: `claude` for `us.anthropic.claude-opus-5-v1:0`, `gemini` for
/// `models/gemini-3-pro`. OpenAI's reasoning models are one family. For an unknown name its first word.
pub fn model_family(model: &str) -> String {
    let name = model.rsplit('/').next().unwrap_or(model).to_ascii_lowercase();
    for family in ["claude", "gemini", "gemma", "deepseek", "qwen", "glm", "kimi", "grok"] {
        if name.contains(family) {
            return family.to_owned();
        }
    }
    let is_numbered_o = |rest: &str| rest.starts_with(|c: char| c.is_ascii_digit());
    if name.starts_with("gpt") || name.contains("codex") || name.strip_prefix('o').is_some_and(is_numbered_o)
    {
        return "gpt".to_owned();
    }
    name.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_one_family() {
        for (model, family) in [
            ("us.anthropic.claude-opus-5-v1:0", "claude"),
            ("models/gemini-3-pro", "gemini"),
            ("openai/gpt-5.4-mini", "gpt"),
            ("o3", "gpt"),
            ("olmo-2", "olmo"),
            ("deepseek-ai/DeepSeek-V4", "deepseek"),
            ("echo", "echo"),
        ] {
            assert_eq!(model_family(model), family, "{model}");
        }
    }
}
