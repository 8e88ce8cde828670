//! What a client calls what it asked for, for losses that are told to it.

use super::ChatRequest;

/// Something that every dialect has under another name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    /// How much to reason.
    Reasoning,
    /// Most tokens to produce.
    OutputLimit,
    /// The form of the answer.
    Format,
    /// The schema of that form.
    Schema,
    /// What ends the answer.
    Stop,
    /// Who the end user is.
    User,
}

impl ChatRequest {
    /// The path of a member in the dialect in which the request came.
    pub(crate) fn word(&self, word: Word) -> &'static str {
        let words = match self.extras.origin.map_or("", |origin| origin.as_str()) {
            "responses" => {
                ["reasoning.effort", "max_output_tokens", "text.format", "text.format.schema", "stop", "user"]
            }
            "anthropic" => [
                "thinking",
                "max_tokens",
                "output_config.format",
                "output_config.format.schema",
                "stop_sequences",
                "metadata.user_id",
            ],
            "gemini" => [
                "generationConfig.thinkingConfig",
                "generationConfig.maxOutputTokens",
                "generationConfig.responseMimeType",
                "generationConfig.responseJsonSchema",
                "generationConfig.stopSequences",
                "labels",
            ],
            "ollama" => ["think", "options.num_predict", "format", "format", "options.stop", "user"],
            _ => [
                "reasoning_effort",
                "max_tokens",
                "response_format",
                "response_format.json_schema.schema",
                "stop",
                "user",
            ],
        };
        words[word as usize]
    }
}
