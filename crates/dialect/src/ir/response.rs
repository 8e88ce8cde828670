//! A whole answer.

use serde_json::value::RawValue;

use super::{Block, BlockKind, Usage};

/// An answer in canonical form. Alternatives beyond the first (`n` > 1) exist only in same-dialect traffic.
#[derive(Debug, Clone, Default)]
pub struct ChatResponse {
    /// The upstream's id; may be empty.
    pub id: String,
    /// The upstream's name of the model; may be empty.
    pub model: String,
    /// What the model said, in order: text, thinking, tool calls, refusals.
    pub blocks: Vec<Block>,
    /// Why it ended.
    pub finish: Option<FinishReason>,
    /// The stop sequence that was met, if that is why.
    pub stop_sequence: Option<String>,
    /// The tier in which it was served, in OpenAI's words (`default`, `priority`, `flex`, …).
    pub service_tier: Option<String>,
    /// What was used.
    pub usage: Usage,
}

impl ChatResponse {
    /// Whether there is anything in it; an answer without content is a failure of the upstream, unless the content was
    /// withheld.
    pub fn is_meaningful(&self) -> bool {
        !self.blocks.is_empty()
            || self.usage.output_total.is_some_and(|tokens| tokens > 0)
            || self.finish == Some(FinishReason::ContentFilter)
    }

    /// Bytes of what the model wrote, for estimates.
    pub fn output_bytes(&self) -> u64 {
        let length = |block: &Block| match &block.kind {
            BlockKind::Text(text) | BlockKind::Refusal(text) | BlockKind::Thinking { text, .. } => text.len(),
            BlockKind::ToolCall(call) => call.name.len() + call.arguments.len(),
            _ => 0,
        };
        self.blocks.iter().map(length).sum::<usize>() as u64
    }
}

/// A token of a text and how probable it was.
#[derive(Debug, Clone)]
pub struct Logprob {
    /// The token.
    pub token: String,
    /// The logarithm of its probability, a number as it was written; `None` where the upstream does not say.
    pub logprob: Option<Box<RawValue>>,
    /// Its bytes, a list as it was written; `None` where they are those of the token's text.
    pub bytes: Option<Box<RawValue>>,
    /// The most probable tokens at its place.
    pub others: Vec<Logprob>,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FinishReason {
    /// The model was done.
    Stop,
    /// A stop sequence was met.
    StopSequence,
    /// The model wants tools to be run.
    ToolUse,
    /// The output limit was met.
    Length,
    /// The context window was full.
    ContextWindow,
    /// Withheld or refused.
    ContentFilter,
    /// The upstream paused a long turn; it wants to be called again.
    Pause,
}

impl FinishReason {
    /// Whether the model had no room to go on: a call that was not whole then never will be.
    pub(crate) const fn is_cut_off(self) -> bool {
        matches!(self, Self::Length | Self::ContextWindow)
    }
}
