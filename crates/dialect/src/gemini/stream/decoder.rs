//! An upstream's stream.
//!
//! The dialect has no mark of the end: an answer is complete when it said why it ended and then nothing follows.

use std::borrow::Cow;

use omniroute_wire::sse::Frame;

use super::chunk::{Call, Candidate, Chunk, Part, read_chunk};
use crate::{
    error_text,
    gemini::{
        error,
        grounding::{Grounding, MAX_TEXT},
        logprobs,
        response::code_text,
        wire::{self, End},
    },
    ids::invented_call_id,
    ir::{FinishReason, Logprob, UpstreamError, Usage},
    json_in,
    stream::{BlockHead, Delta, EventSink, StreamDecoder, StreamError, StreamEvent, truncated},
};

/// Most calls of an answer.
const MAX_CALLS: usize = 1024;

/// Reads an upstream's stream.
#[derive(Debug, Default)]
pub(in crate::gemini) struct Decoder {
    started: bool,
    ended: bool,
    id: String,
    next_index: u32,
    open: Option<Open>,
    calls: usize,
    finish: Option<FinishReason>,
    blocked: Option<String>,
    usage: Usage,
    told_usage: Option<Usage>,
    /// Text of the answer, as far as its characters may have to be counted, and where the open block begins in it.
    said: String,
    block_begin: usize,
    overlong: bool,
    grounding: Option<Grounding>,
    /// What it knows from elsewhere.
    recited: Grounding,
    /// Log probabilities of the text that comes next.
    tokens: Vec<Logprob>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    Text,
    Thinking,
}

impl StreamDecoder for Decoder {
    fn is_ending(&self) -> bool {
        self.finish.is_some()
    }

    fn frame(&mut self, frame: Frame<'_>, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        if self.ended || frame.data.first() != Some(&b'{') {
            return Ok(());
        }
        match read_chunk(frame.data, |chunk| self.chunk(chunk, sink)) {
            Some(result) => result,
            None => {
                self.fail(error_text::malformed("a stream event is not valid JSON or has wrong types"), sink)
            }
        }
    }

    fn finish(&mut self, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        if self.ended {
            return Ok(());
        }
        if self.blocked.is_none() && self.finish.is_none() {
            return self.fail(truncated(), sink);
        }
        self.end(sink)
    }
}

impl Decoder {
    /// Takes an answer for complete that did not say why it ended.
    pub(in crate::gemini) fn complete_unless_told(&mut self) {
        self.finish.get_or_insert(FinishReason::Stop);
    }

    fn chunk(&mut self, chunk: &Chunk<'_>, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        if let Some(error) = chunk.error() {
            // Nothing can fail any more once the answer is complete.
            return match self.finish {
                Some(_) => Ok(()),
                None => self.fail(error::decode_value(error), sink),
            };
        }
        let blocked = chunk.prompt_feedback.as_ref().and_then(super::Feedback::blocked);
        if chunk.candidate().is_none() && chunk.usage_metadata.is_none() && blocked.is_none() {
            return sink.event(StreamEvent::Ping);
        }
        self.start(chunk, sink)?;
        if let Some(raw) = chunk.usage_metadata {
            self.usage.update(&wire::usage(raw.get()));
            // Each time: what does not come to its end is billed by the last.
            self.tell_usage(sink)?;
        }
        if let Some(candidate) = chunk.candidate() {
            self.candidate(candidate, sink)?;
        } else if self.blocked.is_none() {
            self.blocked = blocked;
        }
        Ok(())
    }

    fn start(&mut self, chunk: &Chunk<'_>, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        if std::mem::replace(&mut self.started, true) {
            return Ok(());
        }
        chunk.id().clone_into(&mut self.id);
        sink.event(StreamEvent::Start { id: Cow::Borrowed(chunk.id()), model: Cow::Borrowed(chunk.model()) })
    }

    fn tell_usage(&mut self, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        if !self.usage.is_known() || self.told_usage == Some(self.usage) {
            return Ok(());
        }
        self.told_usage = Some(self.usage);
        sink.event(StreamEvent::Usage(self.usage))
    }

    fn candidate(&mut self, candidate: &Candidate<'_>, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        if let Some(found) = candidate.grounding_metadata.and_then(Grounding::read) {
            self.grounding = Some(found);
        }
        if let Some(raw) = candidate.citation_metadata {
            self.recited.recite(raw);
        }
        self.tokens = candidate.logprobs_result.map(logprobs::read).unwrap_or_default();
        for part in candidate.parts() {
            self.part(part, sink)?;
            if self.ended {
                return Ok(());
            }
        }
        if self.open == Some(Open::Text) {
            self.tell_tokens(sink)?;
        }
        match wire::end_of(candidate.finish_reason()) {
            None => Ok(()),
            Some(End::Reason(reason)) => {
                self.finish = Some(reason);
                Ok(())
            }
            Some(End::Failed) => {
                self.fail(bad_call(candidate.finish_reason(), candidate.finish_message()), sink)
            }
        }
    }

    fn part(&mut self, part: &Part<'_>, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        let signature = part.signature();
        if let Some(call) = &part.function_call {
            self.sign(signature, sink)?;
            self.close(sink)?;
            return self.call(call, sink);
        }
        if let Some(blob) = &part.inline_data {
            self.sign(signature, sink)?;
            self.close(sink)?;
            if !blob.media_type().starts_with("image/") {
                return self.whole_text("[media omitted]\n", sink);
            }
            let block = BlockHead::Image {
                media_type: Cow::Borrowed(blob.media_type()),
                data: Cow::Borrowed(blob.data()),
            };
            return self.complete(block, sink);
        }
        if let Some(code) = code_text(part.executable_code, part.code_execution_result) {
            self.sign(signature, sink)?;
            return self.whole_text(&code, sink);
        }
        let Some(text) = part.text() else { return self.sign(signature, sink) };
        if part.is_thought() {
            self.add(Open::Thinking, text, sink)?;
            return self.sign(signature, sink);
        }
        self.sign(signature, sink)?;
        self.add(Open::Text, text, sink)?;
        // A signed part is never mixed with others.
        if signature.is_some() { self.close(sink) } else { Ok(()) }
    }

    /// A signature belongs to its part. It is told with the thoughts that come right before it, or in a block of its
    /// own when there are none.
    fn sign(&mut self, signature: Option<&str>, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        let Some(signature) = signature else { return Ok(()) };
        if self.open != Some(Open::Thinking) {
            self.close(sink)?;
            self.open(Open::Thinking, sink)?;
        }
        let delta = Delta::Signature(Cow::Borrowed(signature));
        sink.event(StreamEvent::Delta { index: self.next_index - 1, delta })?;
        self.close(sink)
    }

    fn call(&mut self, call: &Call<'_>, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        let name = call.name();
        if name.trim().is_empty() {
            return self.fail(nameless_call(), sink);
        }
        if self.calls == MAX_CALLS {
            return self.fail(error_text::malformed("more than 1024 tool calls"), sink);
        }
        let id = match call.id() {
            "" => Cow::Owned(invented_call_id(&self.id, self.calls, name)),
            id => Cow::Borrowed(id),
        };
        self.calls += 1;
        let index = self.next_index;
        self.next_index += 1;
        sink.event(StreamEvent::BlockStart {
            index,
            block: BlockHead::ToolCall { id, name: Cow::Borrowed(name) },
        })?;
        let arguments = call.args.map(|raw| json_in::compact(raw.get()));
        if let Some(arguments) = arguments.filter(|text| !matches!(text.as_str(), "{}" | "null")) {
            sink.event(StreamEvent::Delta { index, delta: Delta::ToolArgs(Cow::Owned(arguments)) })?;
        }
        sink.event(StreamEvent::BlockStop { index })
    }

    /// Adds to the open block of this kind, or to a new one.
    fn add(&mut self, kind: Open, text: &str, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        if text.is_empty() {
            return Ok(());
        }
        if self.open != Some(kind) {
            self.close(sink)?;
            self.open(kind, sink)?;
        }
        let text = Cow::Borrowed(text);
        let delta = match kind {
            Open::Text => {
                self.tell_tokens(sink)?;
                self.overlong |= self.said.len() + text.len() > MAX_TEXT;
                if !self.overlong {
                    self.said.push_str(&text);
                }
                Delta::Text(text)
            }
            Open::Thinking => Delta::Thinking(text),
        };
        sink.event(StreamEvent::Delta { index: self.next_index - 1, delta })
    }

    fn tell_tokens(&mut self, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        if self.tokens.is_empty() {
            return Ok(());
        }
        let delta = Delta::Logprobs(Cow::Owned(std::mem::take(&mut self.tokens)));
        sink.event(StreamEvent::Delta { index: self.next_index - 1, delta })
    }

    /// A text that is not the model's own words, in a block of its own.
    fn whole_text(&mut self, text: &str, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        self.close(sink)?;
        let index = self.next_index;
        self.next_index += 1;
        sink.event(StreamEvent::BlockStart { index, block: BlockHead::Text })?;
        sink.event(StreamEvent::Delta { index, delta: Delta::Text(Cow::Borrowed(text)) })?;
        sink.event(StreamEvent::BlockStop { index })
    }

    fn complete(&mut self, block: BlockHead<'_>, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        let index = self.next_index;
        self.next_index += 1;
        sink.event(StreamEvent::BlockStart { index, block })?;
        sink.event(StreamEvent::BlockStop { index })
    }

    fn open(&mut self, kind: Open, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        let block = match kind {
            Open::Text => BlockHead::Text,
            Open::Thinking => BlockHead::Thinking { item: None },
        };
        self.open = Some(kind);
        self.block_begin = self.said.len();
        let index = self.next_index;
        self.next_index += 1;
        sink.event(StreamEvent::BlockStart { index, block })
    }

    fn close(&mut self, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        let Some(kind) = self.open.take() else { return Ok(()) };
        let index = self.next_index - 1;
        if kind == Open::Text {
            let said = &self.said[self.block_begin..];
            let mut found = self.recited.cite(self.block_begin, said);
            if let Some(grounding) = &mut self.grounding {
                found.extend(grounding.cite(self.block_begin, said));
            }
            for citation in found {
                let delta = Delta::Citation(Cow::Owned(citation));
                sink.event(StreamEvent::Delta { index, delta })?;
            }
        }
        sink.event(StreamEvent::BlockStop { index })
    }

    /// The answer is complete: closes what is open and says why it ended.
    fn end(&mut self, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        self.close(sink)?;
        if let Some(search) = self.grounding.take().and_then(Grounding::into_search) {
            self.complete(BlockHead::WebSearch(Cow::Owned(search)), sink)?;
        }
        if let Some(why) = self.blocked.take() {
            let index = self.next_index;
            sink.event(StreamEvent::BlockStart { index, block: BlockHead::Refusal })?;
            sink.event(StreamEvent::Delta { index, delta: Delta::Text(Cow::Owned(why)) })?;
            sink.event(StreamEvent::BlockStop { index })?;
            self.finish = Some(FinishReason::ContentFilter);
        }
        self.tell_usage(sink)?;
        let reason = match self.finish {
            None | Some(FinishReason::Stop) if self.calls > 0 => FinishReason::ToolUse,
            None => FinishReason::Stop,
            Some(reason) => reason,
        };
        self.ended = true;
        sink.event(StreamEvent::Finish { reason, stop_sequence: None })
    }

    fn fail(&mut self, error: UpstreamError, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        self.ended = true;
        sink.event(StreamEvent::Error(error))
    }
}

/// That the model's answer was no answer.
pub(in crate::gemini) fn bad_call(reason: &str, message: &str) -> UpstreamError {
    let mut text = format!("the model's answer cannot be used: {reason}");
    if !message.is_empty() {
        text.push_str(": ");
        text.push_str(error_text::shorten(message));
    }
    UpstreamError {
        status: Some(502),
        code: Some("malformed_tool_call".to_owned()),
        message: text,
        ..UpstreamError::default()
    }
}

fn nameless_call() -> UpstreamError {
    UpstreamError {
        status: Some(502),
        code: Some("invalid_tool_call".to_owned()),
        message: "the upstream sent a tool call without a name".to_owned(),
        ..UpstreamError::default()
    }
}
