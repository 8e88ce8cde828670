//! Streams: from an upstream of this dialect, and for a client of it.

use std::borrow::Cow;

use bytes::BytesMut;
use omniroute_wire::{
    json_out::{self, Object},
    sse::{DEFAULT_FRAME_LIMIT, Frame},
};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    error,
    response::{estimated_tokens, explanation, lenient_str, write_stop_details},
    wire::{self, finish_reason, stop_reason, write_input_usage, write_output_details},
};
use crate::{
    Echo, error_text,
    ids::{answer_id, invented_call_id, tool_call_id},
    ir::{FinishReason, UpstreamError, Usage},
    json_in::{self, Fields},
    stream::{
        BlockHead, Delta, EventSink, StreamDecoder, StreamEncoder, StreamError, StreamEvent, truncated,
    },
};

/// An event of an upstream. One struct for all of them: the text of a delta, which is nearly all there is, is
/// found in one pass.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Cow<'a, str>,
    index: Option<u32>,
    #[serde(borrow)]
    delta: Option<DeltaIn<'a>>,
    #[serde(borrow)]
    content_block: Option<&'a RawValue>,
    #[serde(borrow)]
    message: Option<&'a RawValue>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct DeltaIn<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    text: Cow<'a, str>,
    #[serde(borrow, default)]
    thinking: Cow<'a, str>,
    #[serde(borrow, default)]
    signature: Cow<'a, str>,
    #[serde(borrow, default)]
    partial_json: Cow<'a, str>,
    #[serde(borrow)]
    stop_reason: Option<Cow<'a, str>>,
    #[serde(borrow)]
    stop_sequence: Option<Cow<'a, str>>,
    #[serde(borrow)]
    stop_details: Option<&'a RawValue>,
}

/// Reads an upstream's stream.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    started: bool,
    ended: bool,
    id: String,
    next_index: u32,
    open: Option<Open>,
    /// Blocks that began before the open one was complete; they follow it.
    waiting: Vec<Waiting>,
    waiting_bytes: usize,
    called: bool,
    finish: Option<FinishReason>,
    stop_sequence: Option<String>,
    explanation: Option<String>,
}

#[derive(Debug)]
struct Open {
    upstream: u32,
    index: u32,
    kind: Kind,
    /// Arguments that came with the start, for upstreams that send no deltas.
    arguments: Option<String>,
    signature: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Thinking,
    ToolCall,
    /// Complete from its start.
    Redacted,
    /// Of a type that only this dialect has.
    Skipped,
}

#[derive(Debug)]
struct Waiting {
    upstream: u32,
    frames: Vec<Vec<u8>>,
}

impl StreamDecoder for Decoder {
    fn frame(&mut self, frame: Frame<'_>, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        if self.ended || frame.data.first() != Some(&b'{') {
            return Ok(());
        }
        self.data(frame.data, frame.event.unwrap_or_default(), sink)?;
        self.catch_up(sink)
    }

    fn finish(&mut self, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        if self.ended {
            Ok(())
        } else if self.finish.is_some() {
            self.end(sink)
        } else {
            self.fail(truncated(), sink)
        }
    }
}

impl Decoder {
    fn data(&mut self, data: &[u8], name: &str, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        if let Ok(event) = serde_json::from_slice::<Event<'_>>(data) {
            return self.event(&event, name, data, sink);
        }
        // Half characters and repeated members are no reason to give up an answer.
        let repaired = json_in::text(data).map(|text| json_in::last_wins(&text)).unwrap_or_default();
        match serde_json::from_str::<Event<'_>>(&repaired) {
            Ok(event) => self.event(&event, name, repaired.as_bytes(), sink),
            Err(_) => {
                self.fail(error_text::malformed("a stream event is not valid JSON or has wrong types"), sink)
            }
        }
    }

    fn event(
        &mut self,
        event: &Event<'_>,
        name: &str,
        data: &[u8],
        sink: &mut dyn EventSink,
    ) -> Result<(), StreamError> {
        let kind = if event.kind.is_empty() { name } else { &*event.kind };
        match kind {
            "content_block_delta" => {
                if self.belongs_to_waiting(event.index) {
                    return self.wait(event.index, data);
                }
                event.delta.as_ref().map_or(Ok(()), |delta| self.delta(event.index, delta, sink))
            }
            "content_block_start" => {
                let upstream = event.index.unwrap_or(self.next_index);
                if self.open.is_some() {
                    self.waiting.push(Waiting { upstream, frames: Vec::new() });
                    return self.wait(Some(upstream), data);
                }
                event.content_block.map_or(Ok(()), |block| self.block_start(upstream, block, sink))
            }
            "content_block_stop" => {
                if self.belongs_to_waiting(event.index) {
                    return self.wait(event.index, data);
                }
                let is_open = |open: &Open| event.index.is_none_or(|index| index == open.upstream);
                if self.open.as_ref().is_some_and(is_open) { self.close(sink) } else { Ok(()) }
            }
            "message_start" => self.start(event.message, sink),
            "message_delta" => self.message_delta(event, sink),
            "message_stop" => self.end(sink),
            "ping" => sink.event(StreamEvent::Ping),
            "error" => self.fail(read_error(event.error.map_or("{}", RawValue::get)), sink),
            _ => match event.error {
                Some(error) if error.get() != "null" => self.fail(read_error(error.get()), sink),
                _ => Ok(()),
            },
        }
    }

    fn start(&mut self, message: Option<&RawValue>, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        if self.started {
            return Ok(());
        }
        self.started = true;
        let fields = message.and_then(|raw| Fields::lenient(raw.get(), "message").ok());
        let text = |name| fields.as_ref().and_then(|fields| lenient_str(fields, name)).unwrap_or_default();
        self.id = text("id");
        sink.event(StreamEvent::Start { id: Cow::Borrowed(&self.id), model: Cow::Owned(text("model")) })?;
        let usage = fields.and_then(|fields| fields.object_or_none("usage"));
        match usage.as_ref().map(wire::usage) {
            Some(usage) if usage.is_known() => sink.event(StreamEvent::Usage(usage)),
            _ => Ok(()),
        }
    }

    fn block_start(
        &mut self,
        upstream: u32,
        block: &RawValue,
        sink: &mut dyn EventSink,
    ) -> Result<(), StreamError> {
        self.start(None, sink)?;
        let Ok(fields) = Fields::lenient(block.get(), "content_block") else { return Ok(()) };
        let text = |name: &str| lenient_str(&fields, name).unwrap_or_default();
        let mut arguments = None;
        let (kind, head) = match &*text("type") {
            "text" => (Kind::Text, BlockHead::Text),
            "thinking" => (Kind::Thinking, BlockHead::Thinking),
            "redacted_thinking" => {
                (Kind::Redacted, BlockHead::RedactedThinking { data: Cow::Owned(text("data")) })
            }
            "tool_use" => {
                let name = text("name");
                if name.is_empty() {
                    return self.fail(nameless_call(), sink);
                }
                let mut id = text("id");
                if id.is_empty() {
                    id = invented_call_id(&self.id, self.next_index as usize, &name);
                }
                self.called = true;
                arguments = fields
                    .raw("input")
                    .map(|raw| json_in::compact(raw.get()))
                    .filter(|input| input.starts_with('{') && input != "{}");
                (Kind::ToolCall, BlockHead::ToolCall { id: Cow::Owned(id), name: Cow::Owned(name) })
            }
            _ => {
                let (index, signature) = (0, String::new());
                self.open = Some(Open { upstream, index, kind: Kind::Skipped, arguments: None, signature });
                return Ok(());
            }
        };
        self.open_block(upstream, kind, head, sink)?;
        if let Some(open) = &mut self.open {
            open.arguments = arguments;
            if kind == Kind::Thinking {
                open.signature = text("signature");
            }
        }
        match kind {
            Kind::Text => self.add(Delta::Text(Cow::Owned(text("text"))), sink),
            Kind::Thinking => self.add(Delta::Thinking(Cow::Owned(text("thinking"))), sink),
            Kind::ToolCall | Kind::Redacted | Kind::Skipped => Ok(()),
        }
    }

    fn open_block(
        &mut self,
        upstream: u32,
        kind: Kind,
        block: BlockHead<'_>,
        sink: &mut dyn EventSink,
    ) -> Result<(), StreamError> {
        let index = self.next_index;
        self.next_index += 1;
        self.open = Some(Open { upstream, index, kind, arguments: None, signature: String::new() });
        sink.event(StreamEvent::BlockStart { index, block })
    }

    fn delta(
        &mut self,
        upstream: Option<u32>,
        delta: &DeltaIn<'_>,
        sink: &mut dyn EventSink,
    ) -> Result<(), StreamError> {
        if self.open.is_none() {
            // Some upstreams leave out the starts of plain blocks.
            let (kind, head) = match &*delta.kind {
                "text_delta" => (Kind::Text, BlockHead::Text),
                "thinking_delta" => (Kind::Thinking, BlockHead::Thinking),
                _ => return Ok(()),
            };
            self.start(None, sink)?;
            self.open_block(upstream.unwrap_or(self.next_index), kind, head, sink)?;
        }
        let Some(open) = &mut self.open else { return Ok(()) };
        if upstream.is_some_and(|upstream| upstream != open.upstream) {
            return Ok(());
        }
        match (&*delta.kind, open.kind) {
            ("text_delta", Kind::Text) => self.add(Delta::Text(Cow::Borrowed(&delta.text)), sink),
            ("thinking_delta", Kind::Thinking) => {
                self.add(Delta::Thinking(Cow::Borrowed(&delta.thinking)), sink)
            }
            ("signature_delta", Kind::Thinking) => {
                open.signature.push_str(&delta.signature);
                Ok(())
            }
            ("input_json_delta", Kind::ToolCall) => {
                if !delta.partial_json.is_empty() {
                    open.arguments = None;
                }
                self.add(Delta::ToolArgs(Cow::Borrowed(&delta.partial_json)), sink)
            }
            _ => Ok(()),
        }
    }

    /// Sends a piece of the open block, unless it is empty.
    fn add(&mut self, delta: Delta<'_>, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        let (Delta::Text(text) | Delta::Thinking(text) | Delta::Signature(text) | Delta::ToolArgs(text)) =
            &delta;
        match &self.open {
            Some(open) if !text.is_empty() => sink.event(StreamEvent::Delta { index: open.index, delta }),
            _ => Ok(()),
        }
    }

    fn close(&mut self, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let index = open.index;
        let last = match open.kind {
            Kind::Skipped => return Ok(()),
            Kind::Thinking if !open.signature.is_empty() => {
                Some(Delta::Signature(Cow::Owned(open.signature)))
            }
            Kind::ToolCall => open.arguments.map(|text| Delta::ToolArgs(Cow::Owned(text))),
            Kind::Text | Kind::Thinking | Kind::Redacted => None,
        };
        if let Some(delta) = last {
            sink.event(StreamEvent::Delta { index, delta })?;
        }
        sink.event(StreamEvent::BlockStop { index })
    }

    fn message_delta(&mut self, event: &Event<'_>, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        self.start(None, sink)?;
        if let Some(delta) = &event.delta {
            if let Some(reason) = &delta.stop_reason {
                self.finish = Some(finish_reason(reason));
            }
            if let Some(sequence) = &delta.stop_sequence {
                self.stop_sequence = Some(sequence.as_ref().to_owned());
            }
            if let Some(details) = delta.stop_details {
                let wrapped = format!("{{\"stop_details\":{}}}", details.get());
                self.explanation = Fields::lenient(&wrapped, "").ok().as_ref().and_then(explanation);
            }
        }
        let fields = event.usage.and_then(|raw| Fields::lenient(raw.get(), "usage").ok());
        match fields.as_ref().map(wire::usage) {
            Some(usage) if usage.is_known() => sink.event(StreamEvent::Usage(usage)),
            _ => Ok(()),
        }
    }

    /// The answer is complete: closes what is open and says why it ended.
    fn end(&mut self, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        self.start(None, sink)?;
        while self.open.is_some() && !self.ended {
            self.close(sink)?;
            self.catch_up(sink)?;
        }
        if self.ended {
            return Ok(());
        }
        let reason = match self.finish {
            None | Some(FinishReason::Stop) if self.called => FinishReason::ToolUse,
            None => FinishReason::Stop,
            Some(reason) => reason,
        };
        if reason == FinishReason::ContentFilter
            && let Some(explanation) = self.explanation.take()
        {
            self.open_block(self.next_index, Kind::Text, BlockHead::Refusal, sink)?;
            self.add(Delta::Text(Cow::Owned(explanation)), sink)?;
            self.close(sink)?;
        }
        self.ended = true;
        let stop_sequence = self.stop_sequence.take().map(Cow::Owned);
        sink.event(StreamEvent::Finish { reason, stop_sequence })
    }

    fn fail(&mut self, error: UpstreamError, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        self.ended = true;
        sink.event(StreamEvent::Error(error))
    }

    fn belongs_to_waiting(&self, index: Option<u32>) -> bool {
        let is_open = |index: u32| self.open.as_ref().is_some_and(|open| open.upstream == index);
        index.is_some_and(|index| !is_open(index) && self.waiting.iter().any(|block| block.upstream == index))
    }

    fn wait(&mut self, index: Option<u32>, data: &[u8]) -> Result<(), StreamError> {
        let Some(block) = self.waiting.iter_mut().rev().find(|block| Some(block.upstream) == index) else {
            return Ok(());
        };
        self.waiting_bytes += data.len();
        if self.waiting_bytes > DEFAULT_FRAME_LIMIT {
            return Err(StreamError::FrameTooLarge { limit: DEFAULT_FRAME_LIMIT });
        }
        block.frames.push(data.to_vec());
        Ok(())
    }

    /// Sends the blocks that waited, as long as none is open.
    fn catch_up(&mut self, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        while self.open.is_none() && !self.waiting.is_empty() && !self.ended {
            let block = self.waiting.remove(0);
            for data in block.frames {
                self.waiting_bytes -= data.len();
                if !self.ended {
                    self.data(&data, "", sink)?;
                }
            }
        }
        Ok(())
    }
}

/// Reads the error object of a stream.
pub(super) fn read_error(json: &str) -> UpstreamError {
    let mut found = error_text::read_value(json);
    if found.status.is_none() {
        found.status = found.kind.as_deref().and_then(error::status_of);
    }
    found
}

fn nameless_call() -> UpstreamError {
    UpstreamError {
        status: Some(502),
        code: Some("invalid_tool_call".to_owned()),
        message: "the upstream sent a tool call without a name".to_owned(),
        ..UpstreamError::default()
    }
}

/// Writes a client's stream.
#[derive(Debug)]
pub(super) struct Encoder {
    echo: Echo,
    /// The start that is not yet written: usage that follows at once belongs into it.
    start: Option<String>,
    index: u32,
    open: Option<OpenOut>,
    pinged: bool,
    usage: Usage,
    output_bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OpenOut {
    /// A block whose start is written with its first piece, so that there are no empty ones.
    TextToCome,
    ThinkingToCome,
    Text,
    Thinking {
        signed: bool,
    },
    Other,
}

impl Encoder {
    /// For an answer to this request.
    pub(super) fn new(echo: Echo) -> Self {
        Self {
            echo,
            start: None,
            index: 0,
            open: None,
            pinged: false,
            usage: Usage::default(),
            output_bytes: 0,
        }
    }
}

impl StreamEncoder for Encoder {
    fn event(&mut self, event: StreamEvent<'_>, out: &mut BytesMut) -> Result<(), StreamError> {
        match event {
            StreamEvent::Start { id, .. } => {
                self.start = Some(answer_id("msg_", &id, &self.echo.request_id));
            }
            StreamEvent::Usage(usage) => {
                self.usage.update(&usage);
                self.write_start(out);
            }
            StreamEvent::BlockStart { block, .. } => {
                self.write_start(out);
                self.block_start(&block, out);
            }
            StreamEvent::Delta { delta, .. } => self.delta(&delta, out),
            StreamEvent::BlockStop { .. } => self.block_stop(out),
            StreamEvent::Finish { reason, stop_sequence } => {
                self.write_start(out);
                self.finish(reason, stop_sequence.as_deref(), out);
            }
            StreamEvent::Ping => out.extend_from_slice(wire::PING),
            // Whether the client sees an error is decided outside of the stream.
            StreamEvent::Error(_) => {}
        }
        Ok(())
    }
}

impl Encoder {
    fn write_start(&mut self, out: &mut BytesMut) {
        let Some(id) = self.start.take() else { return };
        out.extend_from_slice(b"event: message_start\ndata: ");
        let mut object = Object::begin(out);
        object.str("type", "message_start");
        let mut message = object.object("message");
        message.str("id", &id).str("type", "message").str("role", "assistant");
        message.str("model", &self.echo.model).raw("content", "[]");
        message.raw("stop_reason", "null").raw("stop_sequence", "null");
        let mut usage = message.object("usage");
        usage.u64("input_tokens", self.usage.input_uncached.unwrap_or(self.echo.estimated_input_tokens));
        write_input_usage(&mut usage, &self.usage);
        usage.u64("output_tokens", self.usage.output_total.unwrap_or(1));
        usage.end();
        message.end();
        object.end();
        out.extend_from_slice(b"\n\n");
    }

    fn block_start(&mut self, block: &BlockHead<'_>, out: &mut BytesMut) {
        self.open = Some(match block {
            BlockHead::Text | BlockHead::Refusal => OpenOut::TextToCome,
            BlockHead::Thinking => OpenOut::ThinkingToCome,
            BlockHead::RedactedThinking { data } => {
                self.write_block_start(out, |object| {
                    object.str("type", "redacted_thinking").str("data", data);
                });
                OpenOut::Other
            }
            BlockHead::ToolCall { id, name } => {
                self.output_bytes += name.len() as u64;
                self.write_block_start(out, |object| {
                    object.str("type", "tool_use").str("id", &tool_call_id(id));
                    object.str("name", name).raw("input", "{}");
                });
                OpenOut::Other
            }
        });
    }

    fn write_block_start(&mut self, out: &mut BytesMut, write: impl FnOnce(&mut Object<'_>)) {
        out.extend_from_slice(
            b"event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":",
        );
        json_out::u64(out, u64::from(self.index));
        out.extend_from_slice(b",\"content_block\":");
        let mut object = Object::begin(out);
        write(&mut object);
        object.end();
        out.extend_from_slice(b"}\n\n");
        if !std::mem::replace(&mut self.pinged, true) {
            out.extend_from_slice(wire::PING);
        }
    }

    fn delta(&mut self, delta: &Delta<'_>, out: &mut BytesMut) {
        let (kind, member, text): (_, _, &str) = match delta {
            Delta::Text(text) => ("text_delta", "text", text),
            Delta::Thinking(text) => ("thinking_delta", "thinking", text),
            Delta::Signature(text) => ("signature_delta", "signature", text),
            Delta::ToolArgs(text) => ("input_json_delta", "partial_json", text),
        };
        if text.is_empty() {
            return;
        }
        let is_signature = matches!(delta, Delta::Signature(_));
        match self.open {
            Some(OpenOut::TextToCome) => {
                self.write_block_start(out, |object| {
                    object.str("type", "text").str("text", "");
                });
                self.open = Some(OpenOut::Text);
            }
            Some(OpenOut::ThinkingToCome) => {
                self.write_block_start(out, |object| {
                    object.str("type", "thinking").str("thinking", "").str("signature", "");
                });
                self.open = Some(OpenOut::Thinking { signed: is_signature });
            }
            Some(OpenOut::Thinking { signed }) => {
                self.open = Some(OpenOut::Thinking { signed: signed || is_signature });
            }
            Some(OpenOut::Text | OpenOut::Other) | None => {}
        }
        if !is_signature {
            self.output_bytes += text.len() as u64;
        }
        self.write_delta(kind, member, text, out);
    }

    fn write_delta(&self, kind: &str, member: &str, text: &str, out: &mut BytesMut) {
        out.reserve(text.len() + 160);
        out.extend_from_slice(
            b"event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":",
        );
        json_out::u64(out, u64::from(self.index));
        out.extend_from_slice(b",\"delta\":{\"type\":\"");
        out.extend_from_slice(kind.as_bytes());
        out.extend_from_slice(b"\",\"");
        out.extend_from_slice(member.as_bytes());
        out.extend_from_slice(b"\":");
        json_out::string(out, text);
        out.extend_from_slice(b"}}\n\n");
    }

    fn block_stop(&mut self, out: &mut BytesMut) {
        match self.open.take() {
            None | Some(OpenOut::TextToCome | OpenOut::ThinkingToCome) => return,
            // Clients of the dialect fail on a thinking block without a signature, so there is always one.
            Some(OpenOut::Thinking { signed: false }) => {
                self.write_delta("signature_delta", "signature", "", out);
            }
            Some(OpenOut::Text | OpenOut::Thinking { signed: true } | OpenOut::Other) => {}
        }
        out.extend_from_slice(
            b"event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":",
        );
        json_out::u64(out, u64::from(self.index));
        out.extend_from_slice(b"}\n\n");
        self.index += 1;
    }

    fn finish(&mut self, reason: FinishReason, stop_sequence: Option<&str>, out: &mut BytesMut) {
        out.extend_from_slice(b"event: message_delta\ndata: ");
        let mut object = Object::begin(out);
        object.str("type", "message_delta");
        let mut delta = object.object("delta");
        delta.str("stop_reason", stop_reason(reason)).str_or_null("stop_sequence", stop_sequence);
        if reason == FinishReason::ContentFilter {
            write_stop_details(&mut delta, None);
        }
        delta.end();
        let mut usage = object.object("usage");
        usage.opt_u64("input_tokens", self.usage.input_uncached);
        if self.usage.input_uncached.is_some() {
            write_input_usage(&mut usage, &self.usage);
        }
        let output = self.usage.output_total.unwrap_or_else(|| estimated_tokens(self.output_bytes));
        usage.u64("output_tokens", output);
        write_output_details(&mut usage, &self.usage);
        usage.end();
        object.end();
        out.extend_from_slice(b"\n\n");
        out.extend_from_slice(MESSAGE_STOP);
    }
}

/// The end of a stream.
pub(super) const MESSAGE_STOP: &[u8] = b"event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";

/// Any bytes as a stream: the events keep to the grammar, and cuts make no difference.
#[doc(hidden)]
pub fn fuzz_anthropic_stream(data: &[u8]) {
    use omniroute_wire::sse::SseFramer;

    use crate::stream::{GrammarCheck, StreamPipe as _, Transcoder};

    let mut framer = SseFramer::default();
    framer.push(data);
    framer.finish();
    let mut decoder = Decoder::default();
    let mut check = GrammarCheck::new(());
    let mut read = Ok(());
    while let (Some(Ok(found)), Ok(())) = (framer.next_frame(), &read) {
        read = decoder.frame(found.frame, &mut check);
    }
    let read = read.and_then(|()| decoder.finish(&mut check)).and_then(|()| check.finish().map(drop));
    if let Err(StreamError::Protocol(message)) = read {
        panic!("{message}");
    }

    let piped = |size: usize| {
        let mut pipe = Transcoder::new(&super::Anthropic, &super::Anthropic, Echo::default());
        let mut out = BytesMut::new();
        let mut result = Ok(());
        for piece in data.chunks(size) {
            result = result.and_then(|()| pipe.push(piece, &mut out));
        }
        result = result.and_then(|()| pipe.finish(&mut out));
        (out, result, pipe.watch().error.clone(), pipe.watch().usage)
    };
    let whole = piped(data.len().max(1));
    for size in [1, 3, 64] {
        assert_eq!(piped(size), whole, "in pieces of {size}");
    }
}

#[cfg(test)]
mod tests;
