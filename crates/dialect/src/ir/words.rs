//! What a client calls what it asked for, for losses that are told to it.

use std::borrow::Cow;

use super::ChatRequest;
use crate::{EncodeError, Encoded};

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
    /// Whether the reasoning is shown.
    Show,
}

impl ChatRequest {
    /// The path of a member in the dialect in which the request came.
    pub(crate) fn word(&self, word: Word) -> &'static str {
        let words = match self.origin() {
            "responses" => [
                "reasoning.effort",
                "max_output_tokens",
                "text.format",
                "text.format.schema",
                "stop",
                "user",
                "reasoning.summary",
            ],
            "anthropic" => [
                "thinking",
                "max_tokens",
                "output_config.format",
                "output_config.format.schema",
                "stop_sequences",
                "metadata.user_id",
                "thinking.display",
            ],
            "gemini" => [
                "generationConfig.thinkingConfig",
                "generationConfig.maxOutputTokens",
                "generationConfig.responseMimeType",
                "generationConfig.responseJsonSchema",
                "generationConfig.stopSequences",
                "labels",
                "generationConfig.thinkingConfig.includeThoughts",
            ],
            "ollama" => ["think", "options.num_predict", "format", "format", "options.stop", "user", "think"],
            _ => [
                "reasoning_effort",
                "max_tokens",
                "response_format",
                "response_format.json_schema.schema",
                "stop",
                "user",
                "reasoning_effort",
            ],
        };
        words[word as usize]
    }

    /// Names members in what was written, or in why it was not, as the client does. Writers name what all dialects have
    /// under some name as Chat Completions does.
    pub(crate) fn in_own_words(
        &self,
        mut written: Result<Encoded, EncodeError>,
    ) -> Result<Encoded, EncodeError> {
        match &mut written {
            Ok(encoded) => {
                // Those of the reader come first, and are in the client's words.
                for loss in encoded.losses.iter_mut().skip(self.losses.len()) {
                    if let Some(own) = self.own_path(&loss.path) {
                        loss.path = own;
                    }
                }
            }
            Err(error) => {
                let own = error.param.as_deref().and_then(|param| self.own_path(param));
                if let Some(own) = own {
                    error.param = Some(own.into_owned());
                }
            }
        }
        written
    }

    fn own_path(&self, path: &str) -> Option<Cow<'static, str>> {
        let Some((at, rest)) = path.strip_prefix("tools[").and_then(|rest| rest.split_once(']')) else {
            return own_name(self.origin(), path).map(Cow::Borrowed).or_else(|| self.own_place(path));
        };
        let tool = self.tools.get(at.parse::<usize>().ok()?)?;
        let rest = match (rest, self.origin()) {
            (".function.parameters", "anthropic") => ".input_schema",
            (".function.parameters", "responses" | "gemini") => ".parameters",
            (".function.parameters", _) if tool.path.starts_with("functions[") => ".parameters",
            (".strict", "openai") => ".function.strict",
            _ => rest,
        };
        (!tool.path.is_empty()).then(|| format!("{}{rest}", tool.path).into())
    }

    /// A place in the conversation where the client's dialect has another word for content, or none for its parts.
    fn own_place(&self, path: &str) -> Option<Cow<'static, str>> {
        const DETAIL: &str = ".image_url.detail";
        let origin = self.origin();
        let (place, detail) = match (path.strip_suffix(DETAIL), origin) {
            (Some(place), "responses") => (place, ".detail"),
            (Some(place), "gemini") => (place, ".mediaResolution"),
            (place, _) => (place.unwrap_or(path), if place.is_some() { DETAIL } else { "" }),
        };
        match (place.split_once(".content["), origin) {
            (Some((turn, part)), "gemini") => Some(format!("{turn}.parts[{part}{detail}").into()),
            (Some((turn, _)), "ollama") => Some(turn.to_owned().into()),
            _ if place.len() < path.len() && detail != DETAIL => Some(format!("{place}{detail}").into()),
            _ => None,
        }
    }

    fn origin(&self) -> &'static str {
        self.extras.origin.map_or("", |origin| origin.as_str())
    }
}

/// What another dialect calls a member of Chat Completions; `None` where it is called the same, or where it has none.
fn own_name(origin: &str, name: &str) -> Option<&'static str> {
    Some(match (origin, name) {
        ("responses", "logprobs") => "top_logprobs",
        ("responses", "verbosity") => "text.verbosity",
        ("responses", "response_format") => "text.format",
        ("responses", "messages") => "input",
        ("anthropic", "parallel_tool_calls") => "tool_choice.disable_parallel_tool_use",
        ("anthropic", "response_format") => "output_config.format",
        ("gemini", "temperature") => "generationConfig.temperature",
        ("gemini", "top_p") => "generationConfig.topP",
        ("gemini", "top_k") => "generationConfig.topK",
        ("gemini", "presence_penalty") => "generationConfig.presencePenalty",
        ("gemini", "frequency_penalty") => "generationConfig.frequencyPenalty",
        ("gemini", "seed") => "generationConfig.seed",
        ("gemini", "logprobs") => "generationConfig.responseLogprobs",
        ("gemini", "top_logprobs") => "generationConfig.logprobs",
        ("gemini", "n") => "generationConfig.candidateCount",
        ("gemini", "response_format") => "generationConfig.responseMimeType",
        ("gemini", "tool_choice") => "toolConfig.functionCallingConfig",
        ("gemini", "service_tier") => "serviceTier",
        ("gemini", "messages") => "contents",
        ("gemini", "metadata") => "labels",
        ("ollama", "temperature") => "options.temperature",
        ("ollama", "top_p") => "options.top_p",
        ("ollama", "top_k") => "options.top_k",
        ("ollama", "presence_penalty") => "options.presence_penalty",
        ("ollama", "frequency_penalty") => "options.frequency_penalty",
        ("ollama", "seed") => "options.seed",
        ("ollama", "response_format") => "format",
        _ => return None,
    })
}
