//! A conversation to be continued.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::{Block, BlockKind, Loss, LossAction, Signature, Tool, ToolChoice, loss, quiet};
use crate::{DialectId, EncodeError, gemini, ollama};

/// A request in canonical form.
#[derive(Debug, Clone, Default)]
pub struct ChatRequest {
    /// The model; the client's name after decoding, the upstream's before encoding.
    pub model: String,
    /// For whom it is encoded; decides which signatures go with it.
    pub reader: Reader,
    /// Whether a stream is wanted.
    pub stream: bool,
    /// Whether the client wants usage within the stream.
    pub include_usage: bool,
    /// The leading system text, one entry per message or block, in order.
    pub system: Vec<Block>,
    /// The conversation, oldest first.
    pub turns: Vec<Turn>,
    /// Tools the model may call, in the client's order.
    pub tools: Vec<Tool>,
    /// Which of them it should call.
    pub tool_choice: Option<ToolChoice>,
    /// Whether several calls per answer are allowed; `None` for the target's default.
    pub parallel_tool_calls: Option<bool>,
    /// How to pick tokens.
    pub sampling: Sampling,
    /// Most tokens to produce, as the client set it.
    pub max_output_tokens: Option<u64>,
    /// Sequences that end the answer.
    pub stop: Vec<String>,
    /// The form of the answer.
    pub output_format: OutputFormat,
    /// How much to reason, and whether to show it.
    pub reasoning: Reasoning,
    /// A stable id of the end user, for the vendor's abuse detection.
    pub user: Option<String>,
    /// Whether the client called that id a safety identifier, where its dialect has two names for it.
    pub user_is_safety_id: bool,
    /// The client's key for prompt caches.
    pub prompt_cache_key: Option<String>,
    /// The service tier the client asked for, in the client dialect's words.
    pub service_tier: Option<String>,
    /// The client's own notes on the request, an object of strings.
    pub metadata: Option<Box<RawValue>>,
    /// Whether the vendor may keep the answer.
    pub store: Option<bool>,
    /// How wordy the answer should be: `low`, `medium`, `high`.
    pub verbosity: Option<String>,
    /// Members that have no place in the form; written back only to the dialect they came from.
    pub extras: Extras,
    /// Whether the last turn is an answer that the upstream paused, sent back so that it goes on.
    pub resumes: bool,
    /// What decoding already had to give up or change.
    pub losses: Vec<Loss>,
}

/// Who will read signatures: a model at an account. Members are `None` where it does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reader {
    /// The kind of models.
    pub family: Option<String>,
    /// The account.
    pub account: Option<String>,
}

impl Reader {
    /// Whether reasoning with this signature may be sent there, given that the dialects agree.
    pub fn can_read(&self, signature: &Signature) -> bool {
        fn agree(mine: Option<&String>, theirs: Option<&String>) -> bool {
            mine.is_none() || theirs.is_none() || mine == theirs
        }
        agree(self.family.as_ref(), signature.family.as_ref())
            && agree(self.account.as_ref(), signature.account.as_ref())
    }
}

/// Members of one dialect that others do not have.
#[derive(Debug, Clone, Default)]
pub struct Extras {
    /// Where they came from.
    pub origin: Option<DialectId>,
    /// Top-level members in the client's order: name and raw value.
    pub members: Vec<(String, Box<RawValue>)>,
}

impl Extras {
    /// Whether nobody has to be told that another dialect's target does not get this member: it is about the
    /// vendor's bookkeeping, caches or machines and not about the answer.
    fn is_harmless(name: &str) -> bool {
        const NAMES: &[&str] = &[
            "include",
            "metadata",
            "user",
            "store",
            "stream_options",
            "prompt_cache_options",
            "prompt_cache_retention",
            "keep_alive",
            "truncate",
            "shift",
        ];
        NAMES.contains(&name) || name.starts_with(Self::RUNNER)
    }

    /// What becomes of a member that a target of another dialect does not get: it is left out, or refused where the
    /// answer would be another one without it.
    pub(crate) fn leave_out(&self, name: &str, raw: &RawValue) -> Result<Loss, EncodeError> {
        const BOUND: &[&str] =
            &["container", "previous_response_id", "conversation", "prompt", "cachedContent"];
        let refused = |code, message| Err(EncodeError { code, param: Some(name.to_owned()), message });
        let has = |word: &str| raw.get().contains(word);
        let more_than_text = match name {
            "modalities" => has("\"audio\""),
            "generationConfig.responseModalities" => {
                ["\"AUDIO\"", "\"IMAGE\"", "\"audio\"", "\"image\""].into_iter().any(has)
            }
            _ => false,
        };
        let only_text = matches!(name, "modalities" | "generationConfig.responseModalities")
            && raw.get().to_ascii_lowercase().replace([' ', '\n', '\r', '\t'], "") == "[\"text\"]";
        if more_than_text {
            let message = "the target answers with text alone; ask for text, or use a model that makes more";
            return refused("unsupported_content", message.to_owned());
        }
        if name == "mcp_servers" && raw.get().contains('{') {
            let message =
                "the target has no servers of tools; leave them out, or use a provider that has them";
            return refused("unsupported_tool", message.to_owned());
        }
        // What is left of it is not to think, which the target is told in its own word.
        if name == "thinking" && has("\"between_tools\"") {
            return Ok(quiet(name.to_owned(), LossAction::Mapped));
        }
        // Each picture has it.
        if name == "generationConfig.mediaResolution" && gemini::is_told_of_each(raw) {
            return Ok(quiet(name.to_owned(), LossAction::Mapped));
        }
        if name == "tool_choice" {
            let message = "the target has no such tool; choose another, or use a provider that has it";
            return refused("unsupported_tool", message.to_owned());
        }
        // What upstreams that know it do with it is to show it in another way.
        if name.starts_with("input[") && name.ends_with(".phase") {
            return Ok(quiet(name.to_owned(), LossAction::Dropped));
        }
        // Items that only their provider can read or find have the name of their place.
        if BOUND.contains(&name) || name.starts_with("input[") {
            let message = format!("`{name}` belongs to another provider; leave it out or use that provider");
            return refused("unsupported_parameter", message);
        }
        // Of completions: what surrounds the text, text that is to reach the model as it is, and what was said before in
        // the numbers of one model.
        let is_ollama = self.origin == Some(ollama::ID);
        let is_said = match name {
            _ if !is_ollama => false,
            "suffix" => raw.get() != "\"\"",
            "raw" => raw.get() == "true",
            "context" => !raw.get()[1..].trim_start().starts_with(']'),
            _ => false,
        };
        if is_said && raw.get() != "null" {
            let message =
                format!("only an upstream that completes texts knows `{name}`; leave it out or use one");
            return refused("unsupported_parameter", message);
        }
        if name == "background" && raw.get() == "true" {
            let message = "the target does not answer in the background; leave `background` out";
            return refused("unsupported_parameter", message.to_owned());
        }
        // A mark for the whole prompt is as good as any other.
        let is_mark = name == "cache_control" && !has("\"1h\"");
        let says_nothing = raw.get() == "null"
            || (is_ollama && matches!(name, "raw" | "suffix" | "context"))
            || (is_ollama && name == "template" && raw.get() == "\"\"");
        let silent = Self::is_harmless(name) || is_mark || only_text || says_nothing;
        Ok(Loss { path: name.to_owned().into(), action: LossAction::Dropped, silent })
    }

    /// How the names of members begin that set up the machine which runs the model.
    pub(crate) const RUNNER: &str = "options.";
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The end user. Results of tools are blocks of user turns.
    User,
    /// The model.
    Assistant,
    /// An instruction within the conversation.
    System,
}

/// One contribution to the conversation.
#[derive(Debug, Clone)]
pub struct Turn {
    /// Who speaks.
    pub role: Role,
    /// What is said, in order.
    pub blocks: Vec<Block>,
    /// The speaker's name, where the dialect has one.
    pub name: Option<String>,
    /// Where the turn stood in the client's request (`messages[2]`), for errors and losses.
    pub path: String,
}

impl Turn {
    /// Where a block of it stood in the client's request. A text mostly is all that there is and stands for its turn.
    pub(crate) fn place(&self, block: usize) -> Cow<'_, str> {
        match self.blocks.get(block).map(|block| &block.kind) {
            Some(BlockKind::Text(_)) | None => Cow::Borrowed(&self.path),
            Some(_) => Cow::Owned(format!("{}.content[{block}]", self.path)),
        }
    }
}

/// How tokens are picked. Numbers are kept as the client wrote them.
#[derive(Debug, Clone, Default)]
pub struct Sampling {
    /// 0 to 2.
    pub temperature: Option<Box<RawValue>>,
    /// 0 to 1.
    pub top_p: Option<Box<RawValue>>,
    /// A count.
    pub top_k: Option<Box<RawValue>>,
    /// -2 to 2.
    pub frequency_penalty: Option<Box<RawValue>>,
    /// -2 to 2.
    pub presence_penalty: Option<Box<RawValue>>,
    /// Best-effort determinism.
    pub seed: Option<Box<RawValue>>,
    /// Token id to bias, as JSON.
    pub logit_bias: Option<Box<RawValue>>,
    /// Whether log probabilities are wanted.
    pub logprobs: bool,
    /// How many alternatives per token.
    pub top_logprobs: Option<u64>,
    /// How many answers.
    pub n: Option<u64>,
}

/// The form of the answer.
#[derive(Debug, Clone, Default)]
pub enum OutputFormat {
    /// Free text.
    #[default]
    Text,
    /// Any JSON object.
    JsonObject,
    /// JSON that obeys a schema.
    JsonSchema {
        /// The schema's name.
        name: Option<String>,
        /// What it is for.
        description: Option<String>,
        /// The schema, exactly as the client wrote it.
        schema: Box<RawValue>,
        /// Whether it must be obeyed.
        strict: Option<bool>,
    },
}

/// How much to reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reasoning {
    /// The amount.
    pub amount: ReasoningAmount,
    /// Whether the client wants to see reasoning text; `None` for the target's default.
    pub show: Option<bool>,
}

/// An amount of reasoning.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ReasoningAmount {
    /// What the model does by itself.
    #[default]
    Default,
    /// None.
    Off,
    /// A level.
    Effort(Effort),
    /// At most this many tokens.
    Budget(u64),
    /// As the model sees fit, optionally steered by a level.
    Adaptive(Option<Effort>),
}

/// Levels of effort, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effort {
    /// As little as possible.
    Minimal,
    /// Little.
    Low,
    /// Some.
    Medium,
    /// Much.
    High,
    /// Very much.
    XHigh,
    /// All the model can.
    Max,
}

impl ChatRequest {
    /// What decoding gave up, and what only the dialect that the documents came from could have said of them.
    pub(crate) fn losses_elsewhere(&self) -> Vec<Loss> {
        fn add(blocks: &[Block], path: &str, losses: &mut Vec<Loss>) {
            for (place, block) in blocks.iter().enumerate() {
                match &block.kind {
                    BlockKind::File(file) => losses.extend(file.extras.iter().map(|(name, _)| {
                        loss(format!("{path}.content[{place}].{name}"), LossAction::Dropped)
                    })),
                    BlockKind::ToolResult(result) => {
                        add(&result.blocks, &format!("{path}.content[{place}]"), losses);
                    }
                    _ => {}
                }
            }
        }
        let mut losses = self.losses.clone();
        for turn in &self.turns {
            add(&turn.blocks, &turn.path, &mut losses);
        }
        losses
    }
}
