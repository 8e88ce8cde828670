//! JSON that a model was made to write by other means than the upstream's own: the arguments of a tool, or a text in
//! which it is fenced.

use std::borrow::Cow;

use crate::{
    JsonAnswer,
    dialect::ANSWER_TOOL,
    ir::{BlockKind, ChatResponse, FinishReason},
    stream::{BlockHead, Delta, EventSink, StreamError, StreamEvent},
};

const FENCE: &str = "```";
/// Longest word behind the opening fence, and longest end that is held back because it may be the closing one.
const MAX_WORD: usize = 16;
const MAX_TAIL: usize = 1024;

/// Makes an answer the JSON that was asked for.
#[derive(Debug)]
pub(super) struct JsonForm {
    form: JsonAnswer,
    /// Whether the open block is the call that is the answer, and whether it has arguments.
    answer: Option<bool>,
    fence: Fence,
}

#[derive(Debug, Default)]
struct Fence {
    state: State,
    held: String,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    /// No text so far.
    #[default]
    Before,
    /// A text that may begin with a fence.
    Opening,
    /// Within a fence.
    Fenced,
    /// A text without a fence, or the first text is over.
    Plain,
}

impl JsonForm {
    pub(super) fn new(form: JsonAnswer) -> Self {
        Self { form, answer: None, fence: Fence::default() }
    }

    /// Passes an event on.
    pub(super) fn event(
        &mut self,
        event: StreamEvent<'_>,
        sink: &mut dyn EventSink,
    ) -> Result<(), StreamError> {
        match self.form {
            JsonAnswer::AsIs => sink.event(event),
            JsonAnswer::Fenced => self.fence.event(event, sink),
            JsonAnswer::Tool => self.unwrap(event, sink),
        }
    }

    /// Does the same to a whole answer.
    pub(super) fn response(&self, response: &mut ChatResponse) {
        match self.form {
            JsonAnswer::AsIs => {}
            JsonAnswer::Fenced => {
                let first = response.blocks.iter_mut().find_map(|block| match &mut block.kind {
                    BlockKind::Text(text) => Some(text),
                    _ => None,
                });
                if let Some(text) = first
                    && let Some(inner) = without_fence(text)
                {
                    *text = inner.to_owned();
                }
            }
            JsonAnswer::Tool => {
                for block in &mut response.blocks {
                    if let BlockKind::ToolCall(call) = &mut block.kind
                        && call.name == ANSWER_TOOL
                    {
                        block.kind = BlockKind::Text(std::mem::take(&mut call.arguments));
                    }
                }
                let calls = |block: &crate::ir::Block| matches!(block.kind, BlockKind::ToolCall(_));
                if response.finish == Some(FinishReason::ToolUse) && !response.blocks.iter().any(calls) {
                    response.finish = Some(FinishReason::Stop);
                }
            }
        }
    }

    fn unwrap(&mut self, event: StreamEvent<'_>, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        match event {
            StreamEvent::BlockStart { index, block: BlockHead::ToolCall { name, .. } }
                if name == ANSWER_TOOL =>
            {
                self.answer = Some(false);
                sink.event(StreamEvent::BlockStart { index, block: BlockHead::Text })
            }
            StreamEvent::Delta { index, delta: Delta::ToolArgs(text) } if self.answer.is_some() => {
                self.answer = Some(true);
                sink.event(StreamEvent::Delta { index, delta: Delta::Text(text) })
            }
            StreamEvent::BlockStop { index } => {
                if self.answer.take() == Some(false) {
                    let delta = Delta::Text(Cow::Borrowed("{}"));
                    sink.event(StreamEvent::Delta { index, delta })?;
                }
                sink.event(StreamEvent::BlockStop { index })
            }
            // The only tool there was is the answer.
            StreamEvent::Finish { reason: FinishReason::ToolUse, stop_sequence } => {
                sink.event(StreamEvent::Finish { reason: FinishReason::Stop, stop_sequence })
            }
            other => sink.event(other),
        }
    }
}

impl Fence {
    fn event(&mut self, event: StreamEvent<'_>, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        match event {
            StreamEvent::BlockStart { index, block } => {
                if self.state == State::Before && matches!(block, BlockHead::Text) {
                    self.state = State::Opening;
                }
                sink.event(StreamEvent::BlockStart { index, block })
            }
            StreamEvent::Delta { index, delta: Delta::Text(text) }
                if matches!(self.state, State::Opening | State::Fenced) =>
            {
                self.held.push_str(&text);
                self.pass(index, sink)
            }
            StreamEvent::BlockStop { index } => {
                if matches!(self.state, State::Opening | State::Fenced) {
                    let held = std::mem::take(&mut self.held);
                    let rest = match self.state {
                        State::Fenced => held.trim_end().strip_suffix(FENCE).map_or(&*held, str::trim_end),
                        _ => &held,
                    };
                    send(index, rest, sink)?;
                    self.state = State::Plain;
                }
                sink.event(StreamEvent::BlockStop { index })
            }
            other => sink.event(other),
        }
    }

    fn pass(&mut self, index: u32, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        if self.state == State::Opening {
            match opening(&self.held) {
                Opening::Unknown => return Ok(()),
                Opening::None => {
                    self.state = State::Plain;
                    return send(index, &std::mem::take(&mut self.held), sink);
                }
                Opening::Until(end) => {
                    self.held.drain(..end);
                    self.state = State::Fenced;
                }
            }
        }
        let kept = self.held.trim_end_matches(['`', '\n', '\r', ' ', '\t']).len();
        let kept = if self.held.len() - kept > MAX_TAIL { self.held.len() } else { kept };
        let tail = self.held.split_off(kept);
        send(index, &std::mem::replace(&mut self.held, tail), sink)
    }
}

/// What the beginning of a text is.
enum Opening {
    /// More of it has to come.
    Unknown,
    /// No fence.
    None,
    /// A fence, so many bytes long.
    Until(usize),
}

fn opening(text: &str) -> Opening {
    let lead = text.trim_start();
    let Some(behind) = lead.strip_prefix(FENCE) else {
        return if FENCE.starts_with(lead) { Opening::Unknown } else { Opening::None };
    };
    match behind.find('\n') {
        Some(end) if matches!(behind[..end].trim(), "" | "json" | "JSON") => {
            Opening::Until(text.len() - behind.len() + end + 1)
        }
        None if behind.len() <= MAX_WORD => Opening::Unknown,
        _ => Opening::None,
    }
}

/// The inside of a text that is nothing but a fence.
fn without_fence(text: &str) -> Option<&str> {
    let Opening::Until(end) = opening(text) else { return None };
    let inner = text.get(end..)?;
    Some(inner.trim_end().strip_suffix(FENCE).map_or(inner, str::trim_end))
}

fn send(index: u32, text: &str, sink: &mut dyn EventSink) -> Result<(), StreamError> {
    if text.is_empty() {
        return Ok(());
    }
    sink.event(StreamEvent::Delta { index, delta: Delta::Text(Cow::Borrowed(text)) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ir::ToolCall,
        stream::{GrammarCheck, Lines},
    };

    fn streamed(form: JsonAnswer, head: &BlockHead<'static>, deltas: &[Delta<'static>]) -> Vec<String> {
        let mut form = JsonForm::new(form);
        let mut check = GrammarCheck::new(Lines::default());
        let mut send = |event| form.event(event, &mut check).unwrap();
        send(StreamEvent::Start { id: "i".into(), model: "m".into() });
        send(StreamEvent::BlockStart { index: 0, block: head.clone() });
        for delta in deltas {
            send(StreamEvent::Delta { index: 0, delta: delta.clone() });
        }
        send(StreamEvent::BlockStop { index: 0 });
        send(StreamEvent::Finish { reason: FinishReason::ToolUse, stop_sequence: None });
        check.finish().unwrap().0
    }

    fn text_of(events: &[String]) -> String {
        events.iter().filter_map(|event| event.strip_prefix("0 + ")).collect()
    }

    #[test]
    fn the_call_that_is_the_answer_becomes_its_text() {
        let head = BlockHead::ToolCall { id: "c".into(), name: ANSWER_TOOL.into() };
        let args = |text: &'static str| Delta::ToolArgs(text.into());
        let events = streamed(JsonAnswer::Tool, &head, &[args("{\"x\""), args(":1}")]);
        assert_eq!(events[1..], ["0 Text", "0 + {\"x\"", "0 + :1}", "0 stop", "finish Stop None"]);
        assert_eq!(text_of(&streamed(JsonAnswer::Tool, &head, &[])), "{}");

        let call = ToolCall { id: "c".into(), name: ANSWER_TOOL.into(), arguments: "{\"x\":1}".into() };
        let mut whole = ChatResponse {
            blocks: vec![BlockKind::ToolCall(call).into()],
            finish: Some(FinishReason::ToolUse),
            ..ChatResponse::default()
        };
        JsonForm::new(JsonAnswer::Tool).response(&mut whole);
        assert!(matches!(&whole.blocks[0].kind, BlockKind::Text(text) if text == "{\"x\":1}"));
        assert_eq!(whole.finish, Some(FinishReason::Stop));
    }

    #[test]
    fn a_fence_is_taken_off_wherever_it_is_cut() {
        for (text, expected) in [
            ("```json\n{\"a\":1}\n```", "{\"a\":1}"),
            ("\n``` \n{\"a\":\"`x` \"}\n```\n", "{\"a\":\"`x` \"}"),
            ("{\"a\":1}\n", "{\"a\":1}\n"),
            ("```json\n{\"cut", "{\"cut"),
            ("```rust\nfn\n```", "```rust\nfn\n```"),
            ("``", "``"),
            ("```", "```"),
        ] {
            for size in [1, 2, 5, 100] {
                let characters: Vec<char> = text.chars().collect();
                let pieces: Vec<Delta<'static>> = characters
                    .chunks(size)
                    .map(|piece| Delta::Text(Cow::Owned(piece.iter().collect())))
                    .collect();
                let events = streamed(JsonAnswer::Fenced, &BlockHead::Text, &pieces);
                assert_eq!(text_of(&events), expected, "{text} in {size}");
            }
            let mut whole = ChatResponse {
                blocks: vec![BlockKind::Text(text.to_owned()).into()],
                ..ChatResponse::default()
            };
            JsonForm::new(JsonAnswer::Fenced).response(&mut whole);
            assert!(matches!(&whole.blocks[0].kind, BlockKind::Text(text) if text == expected), "{whole:?}");
        }
    }
}
