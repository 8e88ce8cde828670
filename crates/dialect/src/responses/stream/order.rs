//! Blocks one after the other, whatever the order of the events.
//!
//! A call that is being written is not interrupted: what other items say meanwhile is held until it is whole.

use std::borrow::Cow;

use omniroute_wire::{json_out, sse::DEFAULT_FRAME_LIMIT};

use super::{
    decoder::{Decoder, Open, nameless_call},
    items::{Kind, Piece},
};
use crate::{
    ids,
    stream::{BlockHead, Delta, EventSink, StreamError, StreamEvent},
};

impl Decoder {
    /// Passes on what an item says, or holds it while another item's call is being written.
    pub(super) fn emit(
        &mut self,
        at: usize,
        piece: Piece<'_>,
        sink: &mut dyn EventSink,
    ) -> Result<(), StreamError> {
        if self.is_blocked(at, &piece) {
            self.hold(at, piece)?;
        } else {
            self.write(at, piece, sink)?;
        }
        while !self.held.is_empty() {
            let before = self.held.len();
            for (at, piece) in std::mem::take(&mut self.held) {
                if self.is_blocked(at, &piece) {
                    self.held.push((at, piece));
                } else {
                    self.held_bytes = self.held_bytes.saturating_sub(piece.bytes());
                    self.write(at, piece, sink)?;
                }
            }
            if self.held.len() == before {
                break;
            }
        }
        Ok(())
    }

    fn is_blocked(&self, at: usize, piece: &Piece<'_>) -> bool {
        if self.held.iter().any(|(held, _)| *held == at) {
            // Behind what the item said before, which is held.
            return true;
        }
        let nameless = matches!(piece, Piece::Arguments(_)) && self.items[at].name.is_empty();
        let in_the_way = match self.open {
            Open::Call(other) => other != at && !self.items[other].is_whole(),
            Open::Nothing | Open::Text { .. } | Open::Thinking(_) => false,
        };
        nameless || in_the_way
    }

    fn hold(&mut self, at: usize, piece: Piece<'_>) -> Result<(), StreamError> {
        self.held_bytes += piece.bytes();
        if self.held_bytes > DEFAULT_FRAME_LIMIT {
            return Err(StreamError::Protocol("interleaved items exceed 16 MiB".to_owned()));
        }
        let last = self.held.iter_mut().rev().find(|(held, _)| *held == at).map(|(_, last)| last);
        match (last, piece) {
            (Some(Piece::Arguments(held)), Piece::Arguments(more))
            | (Some(Piece::Thinking(held)), Piece::Thinking(more)) => held.to_mut().push_str(&more),
            (
                Some(Piece::Text { part, refusal, text: held }),
                Piece::Text { part: same, refusal: kind, text: more },
            ) if *part == same && *refusal == kind => held.to_mut().push_str(&more),
            (_, piece) => self.held.push((at, piece.into_owned())),
        }
        Ok(())
    }

    fn write(&mut self, at: usize, piece: Piece<'_>, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        if self.over {
            return Ok(());
        }
        match piece {
            Piece::Text { part, refusal, text } => {
                let block = if refusal { BlockHead::Refusal } else { BlockHead::Text };
                self.ensure(Open::Text { item: at, part, refusal }, block, sink)?;
                self.delta(Delta::Text(text), sink)
            }
            Piece::Citation { part, citation } => {
                if self.open == (Open::Text { item: at, part, refusal: false }) {
                    self.delta(Delta::Citation(Cow::Owned(*citation)), sink)?;
                }
                Ok(())
            }
            Piece::Tokens { part, tokens } => {
                self.ensure(Open::Text { item: at, part, refusal: false }, BlockHead::Text, sink)?;
                self.delta(Delta::Logprobs(Cow::Owned(tokens)), sink)
            }
            Piece::Thinking(text) => {
                self.ensure_thinking(at, sink)?;
                self.delta(Delta::Thinking(text), sink)
            }
            Piece::Signature(data) => {
                self.ensure_thinking(at, sink)?;
                self.delta(Delta::Signature(data), sink)?;
                self.close(sink)
            }
            Piece::Arguments(text) => {
                self.open_call(at, sink)?;
                if text.is_empty() || self.open != Open::Call(at) {
                    return Ok(());
                }
                let text = match self.items[at].kind {
                    Kind::Custom => Cow::Owned(escaped(&text)),
                    _ => text,
                };
                self.delta(Delta::ToolArgs(text), sink)
            }
            Piece::Whole(block) => {
                self.close(sink)?;
                self.open_block(Open::Nothing, *block, sink)?;
                sink.event(StreamEvent::BlockStop { index: self.blocks - 1 })
            }
            Piece::End => self.end_item(at, sink),
        }
    }

    fn ensure_thinking(&mut self, at: usize, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        if self.open == Open::Thinking(at) {
            return Ok(());
        }
        let item = Some(self.items[at].id.clone()).filter(|item| !item.is_empty());
        self.ensure(Open::Thinking(at), BlockHead::Thinking { item: item.map(Cow::Owned) }, sink)
    }

    fn end_item(&mut self, at: usize, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        let item = &self.items[at];
        if item.is_call() && !item.begun {
            if item.name.is_empty() {
                return self.fail(nameless_call(), sink);
            }
            self.open_call(at, sink)?;
        }
        let is_open = match self.open {
            Open::Nothing => false,
            Open::Text { item, .. } | Open::Thinking(item) | Open::Call(item) => item == at,
        };
        if is_open { self.close(sink) } else { Ok(()) }
    }

    fn open_call(&mut self, at: usize, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        if std::mem::replace(&mut self.items[at].begun, true) {
            return Ok(());
        }
        self.called = true;
        let item = &mut self.items[at];
        if item.call_id.is_empty() {
            item.call_id = match item.id.is_empty() {
                true => ids::invented_call_id(&self.id, at, &item.name),
                false => item.id.clone(),
            };
        }
        let custom = item.kind == Kind::Custom;
        let block =
            BlockHead::ToolCall { id: Cow::Owned(item.call_id.clone()), name: Cow::Owned(item.name.clone()) };
        self.ensure(Open::Call(at), block, sink)?;
        if custom {
            self.delta(Delta::ToolArgs(Cow::Borrowed("{\"input\":\"")), sink)?;
        }
        Ok(())
    }

    fn delta(&self, delta: Delta<'_>, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        sink.event(StreamEvent::Delta { index: self.blocks - 1, delta })
    }

    fn ensure(
        &mut self,
        open: Open,
        block: BlockHead<'_>,
        sink: &mut dyn EventSink,
    ) -> Result<(), StreamError> {
        if self.open == open {
            return Ok(());
        }
        self.close(sink)?;
        self.open_block(open, block, sink)
    }

    fn open_block(
        &mut self,
        open: Open,
        block: BlockHead<'_>,
        sink: &mut dyn EventSink,
    ) -> Result<(), StreamError> {
        self.open = open;
        self.blocks += 1;
        sink.event(StreamEvent::BlockStart { index: self.blocks - 1, block })
    }

    pub(super) fn close(&mut self, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        match std::mem::take(&mut self.open) {
            _ if self.over => return Ok(()),
            Open::Nothing => return Ok(()),
            Open::Call(at) if self.items[at].kind == Kind::Custom => {
                self.delta(Delta::ToolArgs(Cow::Borrowed("\"}")), sink)?;
            }
            Open::Text { .. } | Open::Thinking(_) | Open::Call(_) => {}
        }
        sink.event(StreamEvent::BlockStop { index: self.blocks - 1 })
    }
}

fn escaped(text: &str) -> String {
    let mut out = bytes::BytesMut::with_capacity(text.len() + 8);
    json_out::escaped(&mut out, text);
    String::from_utf8_lossy(&out).into_owned()
}
