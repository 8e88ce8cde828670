//! Reading an upstream's chunks as events.
//!
//! Chunks are flat: blocks are opened and closed here. Tool calls may come interleaved; one at a time is passed on
//! live, in the order of their first appearance, and the others are held until it is complete.

use std::borrow::Cow;

use omniroute_wire::sse::{DEFAULT_FRAME_LIMIT, Frame};

use super::super::annotations;
use super::super::wire::{self, Answer, Call, Choice, Message, ThinkingIn, text_of};
use super::calls::PendingCall;
use crate::{
    error_text,
    ir::{Citation, FinishReason, Logprob, Loss, LossAction, UpstreamError, Usage},
    json_in::last_wins,
    service_tier::Told,
    stream::{
        BlockHead, Delta, EventSink, LastChunk, StreamDecoder, StreamError, StreamEvent, StreamLosses,
        truncated,
    },
};

/// More calls than this in one answer are taken for a fault.
pub(super) const MAX_CALLS: usize = 1024;
/// More sources than this are left out.
const MAX_CITATIONS: usize = 1024;

/// Reads the chunks of one answer.
#[derive(Debug, Default)]
pub(in crate::openai) struct Decoder {
    started: bool,
    over: bool,
    pub(super) blocks: u32,
    pub(super) open: Open,
    pub(super) calls: Vec<PendingCall>,
    /// Text that came while a tool call was open and incomplete.
    pub(super) later: Vec<(Open, String)>,
    pub(super) held_bytes: usize,
    pub(super) id: String,
    emitted: bool,
    refused: bool,
    finish: Option<String>,
    usage: Option<Usage>,
    tier: Told,
    thinks: Thinks,
    /// Signatures that were passed on.
    pub(super) signatures: Vec<String>,
    losses: StreamLosses,
    /// The last chunk that was nothing but text.
    last: LastChunk,
    /// Sources of the text, told when it ends. Their places count from the beginning of the content, of which so many
    /// characters belong to earlier texts and to the open one.
    citations: Vec<Citation>,
    earlier: usize,
    characters: usize,
}

/// The open block.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Open {
    #[default]
    Nothing,
    Text,
    Thinking,
    Refusal,
    Call(usize),
}

/// Where the text of the reasoning comes from: of several names that say the same only one counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Thinks {
    #[default]
    Nothing,
    /// A member that has nothing but the text.
    Beside,
    /// `thinking_blocks`.
    InBlocks,
}

impl StreamDecoder for Decoder {
    fn frame(&mut self, frame: Frame<'_>, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        let data = frame.data.trim_ascii();
        if self.over {
            return Ok(());
        }
        if frame.event.is_none()
            && let Some(text) = self.last.plain(data)
        {
            return if text.is_empty() { Ok(()) } else { self.text(Open::Text, Cow::Borrowed(text), sink) };
        }
        if data.starts_with(b"[DONE]") {
            return self.end(sink);
        }
        if data.first() != Some(&b'{') {
            return Ok(());
        }
        let Ok(text) = std::str::from_utf8(data) else {
            return self.fail(error_text::malformed("stream event is not UTF-8"), sink);
        };
        if frame.event == Some("error") {
            return self.fail(error_text::read_value(text), sink);
        }
        if let Ok(chunk) = serde_json::from_str(text) {
            if let Some(text) = only_text(&chunk) {
                self.last.learn_text(data, text);
            }
            return self.chunk(&chunk, text, sink);
        }
        let repaired = last_wins(text);
        match serde_json::from_str(&repaired) {
            Ok(chunk) => self.chunk(&chunk, text, sink),
            Err(_) => self.fail(error_text::malformed("stream event is not a chunk"), sink),
        }
    }

    fn finish(&mut self, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        if self.over {
            Ok(())
        } else if self.finish.is_some() {
            self.end(sink)
        } else {
            self.fail(truncated(), sink)
        }
    }

    fn is_ending(&self) -> bool {
        self.finish.is_some()
    }

    fn take_losses(&mut self) -> Vec<Loss> {
        self.losses.take()
    }
}

impl Decoder {
    fn chunk(&mut self, chunk: &Answer<'_>, text: &str, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        if chunk.error.is_some_and(|error| !matches!(error.get(), "{}" | "\"\"" | "false")) {
            return self.fail(error_text::read_value(text), sink);
        }
        if let Some(raw) = chunk.usage {
            self.report(wire::usage(raw));
        }
        if let Some(groq) = chunk.x_groq {
            let fields = crate::json_in::Fields::lenient(groq.get(), "").ok();
            if let Some(raw) = fields.and_then(|fields| fields.raw("usage")) {
                self.report(wire::usage(raw));
            }
        }
        let choice = chunk.choices.as_ref().and_then(|choices| choices.first.as_ref());
        if choice.is_some() {
            self.start(chunk, sink)?;
        }
        if self.started
            && let Some(tier) = chunk.service_tier.and_then(text_of)
        {
            self.tier.tell(&tier, sink)?;
        }
        choice.map_or(Ok(()), |choice| self.choice(choice, sink))
    }

    fn choice(&mut self, choice: &Choice<'_>, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        if let Some(raw) = choice.usage {
            self.report(wire::usage(raw));
        }
        let tokens = choice.logprobs();
        if let Some(delta) = &choice.delta {
            if !tokens.is_empty() {
                self.tokens(tokens, delta, sink)?;
            }
            self.delta(delta, sink)?;
        }
        // Some upstreams send the whole message, alone or once more at the end.
        if let Some(message) = choice.message.as_ref().filter(|_| !self.emitted && self.calls.is_empty()) {
            self.delta(message, sink)?;
        }
        if let Some(reason) = choice.finish_reason.and_then(text_of).filter(|reason| !reason.is_empty()) {
            if let Some(error) = wire::failed_end(&reason) {
                return self.fail(error, sink);
            }
            if self.finish.is_none() {
                self.finish = Some(reason.into_owned());
            }
        }
        Ok(())
    }

    /// Tells how probable the tokens of a text were, before the text: where it is about to begin, it does. Those of a
    /// text that has to wait are left out.
    fn tokens(
        &mut self,
        tokens: Vec<Logprob>,
        delta: &Message<'_>,
        sink: &mut dyn EventSink,
    ) -> Result<(), StreamError> {
        let waits = matches!(self.open, Open::Call(at) if !self.calls[at].shape.is_closed());
        if self.open != Open::Text && (waits || delta.thinking().is_some() || delta.text().is_none()) {
            self.losses.quiet_answer("logprobs", LossAction::Dropped);
            return Ok(());
        }
        if self.open != Open::Text {
            self.close(sink)?;
            self.open_block(Open::Text, BlockHead::Text, sink)?;
        }
        sink.event(StreamEvent::Delta { index: self.blocks - 1, delta: Delta::Logprobs(Cow::Owned(tokens)) })
    }

    fn delta(&mut self, delta: &Message<'_>, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        if self.thinks != Thinks::InBlocks
            && let Some(text) = delta.thinking()
        {
            self.thinks = Thinks::Beside;
            self.text(Open::Thinking, text, sink)?;
        }
        if delta.thinking_blocks.is_some() {
            for block in delta.thinking_blocks() {
                self.thinking_block(block, sink)?;
            }
        }
        if let Some(text) = delta.text() {
            self.text(Open::Text, text, sink)?;
        }
        if let Some(raw) = delta.annotations {
            let found = annotations::read(raw, self.earlier);
            if self.citations.len() + found.len() <= MAX_CITATIONS {
                self.citations.extend(found);
            } else {
                self.losses.answer("annotations", LossAction::Dropped);
            }
        }
        if let Some(text) = delta.refused() {
            self.refused = true;
            self.text(Open::Refusal, text, sink)?;
        }
        if let Some(calls) = &delta.tool_calls {
            for (position, call) in calls.0.iter().enumerate() {
                self.call(position, call, sink)?;
            }
        }
        if let Some(function) = &delta.function_call {
            let call = Call { function: Some(function.clone()), ..Call::default() };
            self.call(0, &call, sink)?;
        }
        Ok(())
    }

    /// A piece of the reasoning in the form of the vendor whose models sign.
    fn thinking_block(&mut self, block: ThinkingIn, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        let is_free = !matches!(self.open, Open::Call(at) if !self.calls[at].shape.is_closed());
        match block {
            ThinkingIn::Text { text, signature } => {
                if !text.is_empty() && self.thinks != Thinks::Beside {
                    self.thinks = Thinks::InBlocks;
                    self.text(Open::Thinking, text.into(), sink)?;
                }
                if signature.is_empty() || self.signatures.contains(&signature) {
                    return Ok(());
                }
                if self.open != Open::Thinking {
                    if !is_free {
                        self.losses.quiet_answer("thinking_blocks", LossAction::Dropped);
                        return Ok(());
                    }
                    // It has no text, or comes when that was told and closed: then it still is what has to come back.
                    self.close(sink)?;
                    self.open_block(Open::Thinking, BlockHead::Thinking { item: None }, sink)?;
                }
                self.sign(signature, sink)
            }
            ThinkingIn::Redacted(data) if is_free => {
                self.close(sink)?;
                let head = BlockHead::RedactedThinking { data: data.into() };
                self.open_block(Open::Thinking, head, sink)?;
                self.close(sink)
            }
            ThinkingIn::Redacted(_) => {
                self.losses.quiet_answer("thinking_blocks", LossAction::Dropped);
                Ok(())
            }
        }
    }

    /// Ends the open thinking block with its signature.
    pub(super) fn sign(&mut self, signature: String, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        let delta = Delta::Signature(Cow::Borrowed(&signature));
        sink.event(StreamEvent::Delta { index: self.blocks - 1, delta })?;
        if self.signatures.len() < MAX_CALLS {
            self.signatures.push(signature);
        }
        self.close(sink)
    }

    fn start(&mut self, chunk: &Answer<'_>, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        if std::mem::replace(&mut self.started, true) {
            return Ok(());
        }
        let id = chunk.id.and_then(text_of).unwrap_or_default();
        let model = chunk.model.and_then(text_of).unwrap_or_default();
        self.id.push_str(&id);
        sink.event(StreamEvent::Start { id, model })
    }

    fn text(&mut self, kind: Open, text: Cow<'_, str>, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        if let Open::Call(at) = self.open
            && !self.calls[at].shape.is_closed()
        {
            self.hold(text.len())?;
            match self.later.last_mut() {
                Some((last, held)) if *last == kind => held.push_str(&text),
                _ => self.later.push((kind, text.into_owned())),
            }
            return Ok(());
        }
        self.emit_text(kind, text, sink)
    }

    fn emit_text(
        &mut self,
        kind: Open,
        text: Cow<'_, str>,
        sink: &mut dyn EventSink,
    ) -> Result<(), StreamError> {
        if self.open != kind {
            self.close(sink)?;
            let block = match kind {
                Open::Thinking => BlockHead::Thinking { item: None },
                Open::Refusal => BlockHead::Refusal,
                Open::Nothing | Open::Text | Open::Call(_) => BlockHead::Text,
            };
            self.open_block(kind, block, sink)?;
        }
        if kind == Open::Text {
            self.characters += text.chars().count();
        }
        let delta = if kind == Open::Thinking { Delta::Thinking(text) } else { Delta::Text(text) };
        sink.event(StreamEvent::Delta { index: self.blocks - 1, delta })
    }

    pub(super) fn open_block(
        &mut self,
        open: Open,
        block: BlockHead<'_>,
        sink: &mut dyn EventSink,
    ) -> Result<(), StreamError> {
        self.open = open;
        self.emitted = true;
        self.blocks += 1;
        sink.event(StreamEvent::BlockStart { index: self.blocks - 1, block })
    }

    /// Closes the open block; text that waited for a call follows it.
    pub(super) fn close(&mut self, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        let open = std::mem::take(&mut self.open);
        if open == Open::Nothing {
            return Ok(());
        }
        if open == Open::Text {
            let characters = std::mem::take(&mut self.characters);
            self.earlier += characters;
            for mut citation in std::mem::take(&mut self.citations) {
                citation.span =
                    citation.span.map(|(start, end)| (start.min(characters), end.min(characters)));
                let delta = Delta::Citation(Cow::Owned(citation));
                sink.event(StreamEvent::Delta { index: self.blocks - 1, delta })?;
            }
        }
        sink.event(StreamEvent::BlockStop { index: self.blocks - 1 })?;
        let Open::Call(at) = open else { return Ok(()) };
        self.calls[at].done = true;
        for (kind, text) in std::mem::take(&mut self.later) {
            self.held_bytes = self.held_bytes.saturating_sub(text.len());
            self.emit_text(kind, Cow::Owned(text), sink)?;
        }
        if self.open == Open::Nothing { Ok(()) } else { self.close(sink) }
    }

    fn end(&mut self, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        if !self.started {
            self.start(&Answer::default(), sink)?;
        }
        let word = self.finish.take().unwrap_or_default();
        if wire::finish_reason(&word, true) != FinishReason::Length {
            self.close_custom(sink)?;
        }
        self.close(sink)?;
        for at in 0..self.calls.len() {
            let call = &self.calls[at];
            let cut_off = wire::finish_reason(&word, true) == FinishReason::Length && !call.shape.is_closed();
            if call.done || cut_off {
                continue;
            }
            if call.name.is_empty() {
                let error = UpstreamError {
                    status: Some(502),
                    code: Some("invalid_tool_call".to_owned()),
                    message: "the upstream sent a tool call without a name".to_owned(),
                    ..UpstreamError::default()
                };
                return self.fail(error, sink);
            }
            self.open_call(at, sink)?;
            self.close(sink)?;
        }
        if let Some(usage) = self.usage {
            sink.event(StreamEvent::Usage(usage))?;
        }
        self.over = true;
        let mut reason = wire::finish_reason(&word, !self.calls.is_empty());
        if self.refused {
            reason = wire::with_refusal(reason);
        }
        sink.event(StreamEvent::Finish { reason, stop_sequence: None })
    }

    fn fail(&mut self, error: UpstreamError, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        self.over = true;
        sink.event(StreamEvent::Error(error))
    }

    /// Takes the latest report unless an earlier one was larger.
    fn report(&mut self, usage: Usage) {
        if usage.is_known()
            && self.usage.as_ref().is_none_or(|known| wire::total(&usage) >= wire::total(known))
        {
            self.usage = Some(usage);
        }
    }

    pub(super) fn hold(&mut self, bytes: usize) -> Result<(), StreamError> {
        self.held_bytes += bytes;
        if self.held_bytes > DEFAULT_FRAME_LIMIT {
            return Err(StreamError::Protocol("interleaved tool calls exceed 16 MiB".to_owned()));
        }
        Ok(())
    }
}

/// The text of a chunk that is nothing but text and has no escapes in it.
fn only_text<'a>(chunk: &Answer<'a>) -> Option<&'a str> {
    let choices = chunk.choices.as_ref().filter(|choices| choices.count == 1)?;
    let choice = choices.first.as_ref()?;
    let delta = choice.delta.as_ref()?;
    let has_more = chunk.error.is_some()
        || chunk.usage.is_some()
        || chunk.x_groq.is_some()
        || choice.message.is_some()
        || choice.finish_reason.is_some()
        || choice.usage.is_some()
        || choice.logprobs.is_some()
        || delta.tool_calls.is_some()
        || delta.annotations.is_some()
        || delta.function_call.is_some()
        || delta.thinking().is_some()
        || delta.thinking_blocks.is_some()
        || delta.refused().is_some();
    match delta.text() {
        Some(Cow::Borrowed(text)) if !has_more => Some(text),
        _ => None,
    }
}
