//! A whole answer as the events of a stream.

use std::borrow::Cow;

use super::{BlockHead, Delta, EventSink, StreamError, StreamEvent};
use crate::ir::{BlockKind, ChatResponse, FinishReason, MediaSource};

/// Sends what a stream of this answer would have been.
pub fn replay(response: &ChatResponse, sink: &mut dyn EventSink) -> Result<(), StreamError> {
    sink.event(StreamEvent::Start {
        id: Cow::Borrowed(&response.id),
        model: Cow::Borrowed(&response.model),
    })?;
    if let Some(tier) = &response.service_tier {
        sink.event(StreamEvent::ServiceTier(Cow::Borrowed(tier)))?;
    }
    let mut index = 0;
    let mut called = false;
    for block in &response.blocks {
        let (head, deltas) = match &block.kind {
            BlockKind::Text(text) => {
                let mut deltas = Vec::with_capacity(1);
                if !block.logprobs.is_empty() {
                    deltas.push(Delta::Logprobs(Cow::Borrowed(&block.logprobs)));
                }
                deltas.push(Delta::Text(Cow::Borrowed(text.as_str())));
                deltas.extend(block.citations.iter().map(|one| Delta::Citation(Cow::Borrowed(one))));
                (BlockHead::Text, deltas)
            }
            BlockKind::Refusal(text) => (BlockHead::Refusal, vec![Delta::Text(Cow::Borrowed(text.as_str()))]),
            BlockKind::Thinking { text, signature, .. } => {
                let mut deltas = Vec::new();
                if !text.is_empty() {
                    deltas.push(Delta::Thinking(Cow::Borrowed(text.as_str())));
                }
                deltas.extend(signature.as_ref().map(|one| Delta::Signature(Cow::Borrowed(&one.data))));
                let item = signature.as_ref().and_then(|one| one.item.as_deref());
                (BlockHead::Thinking { item: item.map(Cow::Borrowed) }, deltas)
            }
            BlockKind::RedactedThinking { data, .. } => {
                (BlockHead::RedactedThinking { data: Cow::Borrowed(data.as_str()) }, Vec::new())
            }
            BlockKind::ToolCall(call) => {
                called = true;
                let head =
                    BlockHead::ToolCall { id: Cow::Borrowed(&call.id), name: Cow::Borrowed(&call.name) };
                // Of an answer that was cut off, a call that has said nothing so far is none.
                let empty = match call.arguments.trim() {
                    "" => true,
                    "{}" => !response.finish.is_some_and(FinishReason::is_cut_off),
                    _ => false,
                };
                let deltas = if empty {
                    Vec::new()
                } else {
                    vec![Delta::ToolArgs(Cow::Borrowed(call.arguments.as_str()))]
                };
                (head, deltas)
            }
            BlockKind::WebSearch(search) => (BlockHead::WebSearch(Cow::Borrowed(search)), Vec::new()),
            BlockKind::Image(image) => {
                let MediaSource::Base64 { media_type, data } = &image.source else { continue };
                let head =
                    BlockHead::Image { media_type: Cow::Borrowed(media_type), data: Cow::Borrowed(data) };
                (head, Vec::new())
            }
            // These do not occur in answers that are read into the form.
            BlockKind::File(_)
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
