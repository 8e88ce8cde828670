//! Reasoning that a model writes into its text, `<think>…</think>` before everything else, as what it is.

use std::borrow::Cow;

use crate::{
    ir::{Block, BlockKind, ChatResponse},
    stream::{BlockHead, Delta, EventSink, StreamError, StreamEvent},
};

const OPENING: &str = "<think>";
const CLOSING: &str = "</think>";
/// White space before the opening that is waited through.
const MAX_LEAD: usize = 1024;

/// Splits the first text of an answer.
#[derive(Debug, Default)]
pub(super) struct ThinkSplit {
    state: State,
    /// What may turn out to be a tag or a part of one.
    held: String,
    /// By how much the blocks behind it have other places than the upstream gave them.
    shift: i32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    /// Nothing of the answer so far.
    #[default]
    Before,
    /// A text that may begin with the opening.
    Opening,
    /// Behind the opening; `true` once there is a thinking block.
    Thinking(bool),
    /// Behind the closing, before the first character of the text.
    Closed,
    /// The text, or an answer without such thinking.
    Rest,
}

impl ThinkSplit {
    /// Passes an event on.
    pub(super) fn event(
        &mut self,
        event: StreamEvent<'_>,
        sink: &mut dyn EventSink,
    ) -> Result<(), StreamError> {
        match event {
            StreamEvent::BlockStart { index, block } => {
                if self.state == State::Before {
                    if matches!(block, BlockHead::Text) {
                        // Its start is written when it is known what it is.
                        self.state = State::Opening;
                        return Ok(());
                    }
                    self.state = State::Rest;
                }
                sink.event(StreamEvent::BlockStart { index: self.place(index), block })
            }
            StreamEvent::Delta { index, delta: Delta::Text(text) } if self.state != State::Rest => {
                self.text(index, &text, sink)
            }
            // What will be text and what reasoning is not known, and so not which tokens are whose.
            StreamEvent::Delta { delta: Delta::Logprobs(_), .. } if self.state != State::Rest => Ok(()),
            StreamEvent::Delta { index, delta } => {
                sink.event(StreamEvent::Delta { index: self.place(index), delta })
            }
            StreamEvent::BlockStop { index } if self.state != State::Rest => self.stop(index, sink),
            StreamEvent::BlockStop { index } => {
                sink.event(StreamEvent::BlockStop { index: self.place(index) })
            }
            other => sink.event(other),
        }
    }

    fn text(&mut self, index: u32, text: &str, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        self.held.push_str(text);
        if self.state == State::Opening {
            let lead = self.held.trim_start();
            if let Some(rest) = lead.strip_prefix(OPENING) {
                self.held = rest.to_owned();
                self.state = State::Thinking(false);
            } else if OPENING.starts_with(lead) && self.held.len() <= MAX_LEAD {
                return Ok(());
            } else {
                return self.no_thinking(index, sink);
            }
        }
        if let State::Thinking(_) = self.state {
            let Some(at) = self.held.find(CLOSING) else {
                let keep = overlap(&self.held);
                let rest = self.held.split_off(self.held.len() - keep);
                let text = std::mem::replace(&mut self.held, rest);
                return self.thinking(index, text, sink);
            };
            let rest = self.held.split_off(at + CLOSING.len());
            let text = std::mem::replace(&mut self.held, rest);
            self.thinking(index, text[..at].to_owned(), sink)?;
            if self.state == State::Thinking(true) {
                sink.event(StreamEvent::BlockStop { index })?;
                self.shift = 1;
            }
            self.state = State::Closed;
        }
        let rest = self.held.trim_start();
        if rest.is_empty() {
            self.held.clear();
            return Ok(());
        }
        let text = rest.to_owned();
        self.held.clear();
        self.state = State::Rest;
        let index = self.place(index);
        sink.event(StreamEvent::BlockStart { index, block: BlockHead::Text })?;
        sink.event(StreamEvent::Delta { index, delta: Delta::Text(Cow::Owned(text)) })
    }

    fn thinking(&mut self, index: u32, text: String, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        let begun = self.state == State::Thinking(true);
        let text = if begun { text } else { text.trim_start().to_owned() };
        if text.is_empty() {
            return Ok(());
        }
        if !begun {
            self.state = State::Thinking(true);
            sink.event(StreamEvent::BlockStart { index, block: BlockHead::Thinking { item: None } })?;
        }
        sink.event(StreamEvent::Delta { index, delta: Delta::Thinking(Cow::Owned(text)) })
    }

    /// The text is a text from its beginning.
    fn no_thinking(&mut self, index: u32, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        self.state = State::Rest;
        sink.event(StreamEvent::BlockStart { index, block: BlockHead::Text })?;
        let held = std::mem::take(&mut self.held);
        if held.is_empty() {
            return Ok(());
        }
        sink.event(StreamEvent::Delta { index, delta: Delta::Text(Cow::Owned(held)) })
    }

    fn stop(&mut self, index: u32, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        if self.state == State::Opening {
            self.no_thinking(index, sink)?;
        }
        if let State::Thinking(_) = self.state {
            // It was cut off, or the model forgot the closing: all of it is thinking.
            let held = std::mem::take(&mut self.held);
            self.thinking(index, held, sink)?;
        }
        match std::mem::replace(&mut self.state, State::Rest) {
            // The upstream's one block was nothing but a pair of tags.
            State::Thinking(false) => self.shift = -1,
            // It was nothing but thinking, whose end is told.
            State::Closed => self.shift -= 1,
            State::Before | State::Opening | State::Thinking(true) | State::Rest => {
                sink.event(StreamEvent::BlockStop { index })?;
            }
        }
        Ok(())
    }

    fn place(&self, index: u32) -> u32 {
        index.saturating_add_signed(self.shift)
    }
}

/// Does the same to a whole answer.
pub(super) fn split(response: &mut ChatResponse, origin: crate::DialectId) {
    let Some(first) = response.blocks.first_mut() else { return };
    let BlockKind::Text(text) = &mut first.kind else { return };
    let Some(rest) = text.trim_start().strip_prefix(OPENING) else { return };
    let (thinking, rest) = rest.split_once(CLOSING).unwrap_or((rest, ""));
    let (thinking, rest) = (thinking.trim_start().to_owned(), rest.trim_start().to_owned());
    *text = rest;
    if text.is_empty() {
        response.blocks.remove(0);
    }
    if !thinking.is_empty() {
        let kind = BlockKind::Thinking { text: thinking, signature: None, origin };
        response.blocks.insert(0, Block::from(kind));
    }
}

/// How many bytes at the end of the text are the beginning of the closing.
fn overlap(text: &str) -> usize {
    (1..CLOSING.len()).rev().find(|length| text.ends_with(&CLOSING[..*length])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ir::FinishReason,
        openai,
        stream::{GrammarCheck, Lines},
    };

    /// Events of a text that comes in these pieces, and of a call behind it.
    fn events(pieces: &[&str]) -> Vec<String> {
        let mut split = ThinkSplit::default();
        let mut check = GrammarCheck::new(Lines::default());
        let mut send = |event| split.event(event, &mut check).unwrap();
        send(StreamEvent::Start { id: "i".into(), model: "m".into() });
        send(StreamEvent::BlockStart { index: 0, block: BlockHead::Text });
        for piece in pieces {
            send(StreamEvent::Delta { index: 0, delta: Delta::Text((*piece).into()) });
        }
        send(StreamEvent::BlockStop { index: 0 });
        let call = BlockHead::ToolCall { id: "c".into(), name: "f".into() };
        send(StreamEvent::BlockStart { index: 1, block: call });
        send(StreamEvent::Delta { index: 1, delta: Delta::ToolArgs("{}".into()) });
        send(StreamEvent::BlockStop { index: 1 });
        send(StreamEvent::Finish { reason: FinishReason::ToolUse, stop_sequence: None });
        check.finish().unwrap().0
    }

    /// What is said, without the pieces it came in: `~` thinking, `+` text.
    fn said(events: &[String]) -> String {
        let mut said = String::new();
        for event in events {
            if let Some((_, text)) = event.split_once(" ~ ") {
                said += &format!("~{text}");
            } else if let Some((_, text)) = event.split_once(" + ") {
                said += &format!("+{text}");
            } else if event.contains("stop") {
                said.push('|');
            }
        }
        let joined = said.replace("|~", "\u{1}").replace("|+", "\u{2}").replace(['~', '+'], "");
        joined.replace('\u{1}', "|~").replace('\u{2}', "|+")
    }

    #[test]
    fn thinking_at_the_beginning_is_split_off_wherever_it_is_cut() {
        for (text, expected) in [
            ("<think>\nplan</think>\n\nHi", "plan|+Hi||"),
            (" \n<think>a < b</thin</think>Hi <think>no</think>", "a < b</thin|+Hi <think>no</think>||"),
            ("<think></think>\n\nHi", "Hi||"),
            ("<think>only", "only||"),
            ("<think>only</think>", "only||"),
            ("<think></think>", "|"),
            ("<thin", "<thin||"),
            ("Hi <think>", "Hi <think>||"),
            ("<thinking>x", "<thinking>x||"),
        ] {
            for size in [1, 2, 3, 100] {
                let bytes: Vec<char> = text.chars().collect();
                let pieces: Vec<String> = bytes.chunks(size).map(|piece| piece.iter().collect()).collect();
                let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
                assert_eq!(said(&events(&pieces)), expected, "{text} in {size}");
            }
            let mut whole = ChatResponse {
                blocks: vec![BlockKind::Text(text.to_owned()).into()],
                ..ChatResponse::default()
            };
            split(&mut whole, openai::ID);
            let blocks: Vec<_> = whole
                .blocks
                .iter()
                .map(|block| match &block.kind {
                    BlockKind::Thinking { text, .. } | BlockKind::Text(text) => text.as_str(),
                    other => panic!("{other:?}"),
                })
                .collect();
            let parts: Vec<_> = expected.split('|').map(|part| part.trim_start_matches('+')).collect();
            let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
            assert_eq!(blocks, parts, "{text}");
        }
    }

    #[test]
    fn blocks_behind_it_follow_on() {
        let found = events(&["<think>a</think>b"]);
        assert_eq!(
            found[1..],
            [
                "0 Thinking",
                "0 ~ a",
                "0 stop",
                "1 Text",
                "1 + b",
                "1 stop",
                "2 call c f",
                "2 args {}",
                "2 stop",
                "finish ToolUse None"
            ]
        );
        assert_eq!(events(&["<think></think>"])[1], "0 call c f");
    }
}
