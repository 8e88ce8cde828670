//! A whole answer as the events of a stream.

use std::borrow::Cow;

use super::{BlockHead, Delta, EventSink, StreamError, StreamEvent};
use crate::ir::{BlockKind, ChatResponse, FinishReason};

/// Sends what a stream of this answer would have been.
pub fn replay(response: &ChatResponse, sink: &mut dyn EventSink) -> Result<(), StreamError> {
    sink.event(StreamEvent::Start {
        id: Cow::Borrowed(&response.id),
        model: Cow::Borrowed(&response.model),
    })?;
    let mut index = 0;
    let mut called = false;
    for block in &response.blocks {
        let (head, deltas) = match &block.kind {
            BlockKind::Text(text) => (BlockHead::Text, vec![Delta::Text(Cow::Borrowed(text.as_str()))]),
            BlockKind::Refusal(text) => (BlockHead::Refusal, vec![Delta::Text(Cow::Borrowed(text.as_str()))]),
            BlockKind::Thinking { text, signature, .. } => {
                let mut deltas = Vec::new();
                if !text.is_empty() {
                    deltas.push(Delta::Thinking(Cow::Borrowed(text.as_str())));
                }
                deltas
                    .extend(signature.as_deref().map(|signature| Delta::Signature(Cow::Borrowed(signature))));
                (BlockHead::Thinking, deltas)
            }
            BlockKind::RedactedThinking { data, .. } => {
                (BlockHead::RedactedThinking { data: Cow::Borrowed(data.as_str()) }, Vec::new())
            }
            BlockKind::ToolCall(call) => {
                called = true;
                let head =
                    BlockHead::ToolCall { id: Cow::Borrowed(&call.id), name: Cow::Borrowed(&call.name) };
                let empty = matches!(call.arguments.trim(), "" | "{}");
                let deltas = if empty {
                    Vec::new()
                } else {
                    vec![Delta::ToolArgs(Cow::Borrowed(call.arguments.as_str()))]
                };
                (head, deltas)
            }
            // These do not occur in answers that are read into the form.
            BlockKind::Image(_)
            | BlockKind::File(_)
            | BlockKind::Audio { .. }
            | BlockKind::ToolResult(_)
            | BlockKind::Opaque { .. } => continue,
        };
        sink.event(StreamEvent::BlockStart { index, block: head })?;
        for delta in deltas {
            sink.event(StreamEvent::Delta { index, delta })?;
        }
        sink.event(StreamEvent::BlockStop { index })?;
        index += 1;
    }
    if response.usage.is_known() {
        sink.event(StreamEvent::Usage(response.usage))?;
    }
    let usual = if called { FinishReason::ToolUse } else { FinishReason::Stop };
    sink.event(StreamEvent::Finish {
        reason: response.finish.unwrap_or(usual),
        stop_sequence: response.stop_sequence.as_deref().map(Cow::Borrowed),
    })
}
