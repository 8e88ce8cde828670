//! An upstream's stream.

use std::borrow::Cow;

use omniroute_wire::sse::{DEFAULT_FRAME_LIMIT, Frame};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::content::Content;
use crate::{
    anthropic::{
        error,
        response::{explanation, lenient_str},
        search,
        wire::{self, finish_reason},
    },
    error_text,
    ids::invented_call_id,
    ir::{Block, FinishReason, Loss, LossAction, UpstreamError, Usage, WebSearch},
    json_in::{self, Fields},
    service_tier::Told,
    stream::{
        BlockHead, Delta, EventSink, LastChunk, StreamDecoder, StreamError, StreamEvent, StreamLosses,
        truncated,
    },
};

/// An event of an upstream. One struct for all of them: the text of a delta, which is nearly all there is, is
/// found in one pass.
#[derive(Default, Deserialize)]
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

#[derive(Default, Deserialize)]
pub(super) struct DeltaIn<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) text: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) thinking: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) signature: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) partial_json: Cow<'a, str>,
    #[serde(borrow)]
    stop_reason: Option<Cow<'a, str>>,
    #[serde(borrow)]
    stop_sequence: Option<Cow<'a, str>>,
    #[serde(borrow)]
    stop_details: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) citation: Option<&'a RawValue>,
}

const CONTENT_BLOCK_DELTA: &str = "content_block_delta";
const TEXT_DELTA: &str = "text_delta";
/// More searches than this without results are not waited for.
const MAX_SEARCHES: usize = 64;

/// Reads an upstream's stream.
#[derive(Debug, Default)]
pub(in crate::anthropic) struct Decoder {
    started: bool,
    ended: bool,
    id: String,
    next_index: u32,
    open: Option<Open>,
    /// Blocks that began before the open one was complete; they follow it.
    waiting: Vec<Waiting>,
    waiting_bytes: usize,
    called: bool,
    /// Searches whose results have not come yet.
    searches: Vec<Question>,
    search_bytes: usize,
    tier: Told,
    usage: Usage,
    finish: Option<FinishReason>,
    stop_sequence: Option<String>,
    explanation: Option<String>,
    /// The last delta of text, and the index that it names.
    last: LastChunk,
    last_index: Option<u32>,
    losses: StreamLosses,
    /// The blocks as they came, where the answer may have to go on from them.
    content: Option<Box<Content>>,
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
    Complete,
    /// Half a search of the web: the other half is to come.
    Question,
    /// Of a type that only this dialect has.
    Skipped,
}

/// A search that the vendor does.
#[derive(Debug)]
struct Question {
    id: String,
    input: String,
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

    fn take_losses(&mut self) -> Vec<Loss> {
        self.losses.take()
    }

    fn is_ending(&self) -> bool {
        self.finish.is_some()
    }

    fn keep_content(&mut self) {
        self.content = Some(Box::default());
    }

    fn take_paused(&mut self) -> Option<Vec<Block>> {
        self.content.take().filter(|_| self.finish == Some(FinishReason::Pause))?.take()
    }
}

impl Decoder {
    fn data(&mut self, data: &[u8], name: &str, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        if let Some(text) = self.last.plain(data) {
            let delta =
                DeltaIn { kind: Cow::Borrowed(TEXT_DELTA), text: Cow::Borrowed(text), ..DeltaIn::default() };
            let kind = Cow::Borrowed(CONTENT_BLOCK_DELTA);
            let event = Event { kind, index: self.last_index, delta: Some(delta), ..Event::default() };
            return self.event(&event, name, data, sink);
        }
        if let Ok(event) = serde_json::from_slice::<Event<'_>>(data) {
            if let Some(text) = only_text(&event) {
                self.last.learn_text(data, text);
                self.last_index = event.index;
            }
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
            CONTENT_BLOCK_DELTA => {
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
        usage.map_or(Ok(()), |usage| self.usage(&usage, sink))
    }

    fn usage(&mut self, fields: &Fields<'_>, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        // Writers begin with what they know before they are told of the tokens.
        if let Some(tier) = wire::service_tier(fields) {
            self.tier.tell(&tier, sink)?;
        }
        wire::update(&mut self.usage, fields);
        if self.usage.is_known() { sink.event(StreamEvent::Usage(self.usage)) } else { Ok(()) }
    }

    fn block_start(
        &mut self,
        upstream: u32,
        block: &RawValue,
        sink: &mut dyn EventSink,
    ) -> Result<(), StreamError> {
        self.start(None, sink)?;
        let Ok(fields) = Fields::lenient(block.get(), "content_block") else { return Ok(()) };
        if let Some(content) = &mut self.content {
            content.begin(upstream, block);
        }
        let text = |name: &str| lenient_str(&fields, name).unwrap_or_default();
        let mut arguments = None;
        let (kind, head) = match &*text("type") {
            "text" => (Kind::Text, BlockHead::Text),
            "thinking" => (Kind::Thinking, BlockHead::Thinking { item: None }),
            "redacted_thinking" => {
                (Kind::Complete, BlockHead::RedactedThinking { data: Cow::Owned(text("data")) })
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
            "web_search_tool_result" if self.asked(&text("tool_use_id")) => {
                let found = self.answered(&text("tool_use_id"), block.get());
                (Kind::Complete, BlockHead::WebSearch(Cow::Owned(found)))
            }
            kind => {
                let is_question = kind == "server_tool_use" && text("name") == search::NAME;
                if is_question && self.searches.len() < MAX_SEARCHES {
                    let given = fields.raw("input").map(|raw| json_in::compact(raw.get()));
                    let input = given.filter(|input| input != "{}").unwrap_or_default();
                    self.searches.push(Question { id: text("id"), input });
                }
                let kind = if is_question { Kind::Question } else { Kind::Skipped };
                if kind == Kind::Skipped {
                    self.losses.quiet_block(upstream, "", LossAction::Dropped);
                }
                let (index, signature) = (0, String::new());
                self.open = Some(Open { upstream, index, kind, arguments: None, signature });
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
            Kind::ToolCall | Kind::Complete | Kind::Question | Kind::Skipped => Ok(()),
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
                TEXT_DELTA => (Kind::Text, BlockHead::Text),
                "thinking_delta" => (Kind::Thinking, BlockHead::Thinking { item: None }),
                _ => return Ok(()),
            };
            self.start(None, sink)?;
            self.open_block(upstream.unwrap_or(self.next_index), kind, head, sink)?;
        }
        let Some(open) = &mut self.open else { return Ok(()) };
        if upstream.is_some_and(|upstream| upstream != open.upstream) {
            return Ok(());
        }
        if let Some(content) = &mut self.content {
            content.add(open.upstream, delta);
        }
        match (&*delta.kind, open.kind) {
            (TEXT_DELTA, Kind::Text) => self.add(Delta::Text(Cow::Borrowed(&delta.text)), sink),
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
            ("citations_delta", Kind::Text) => match delta.citation {
                Some(raw) => self.add(Delta::Citation(Cow::Owned(search::citation(raw))), sink),
                None => Ok(()),
            },
            ("input_json_delta", Kind::Question) => {
                self.search_bytes += delta.partial_json.len();
                if self.search_bytes > DEFAULT_FRAME_LIMIT {
                    return Err(StreamError::FrameTooLarge { limit: DEFAULT_FRAME_LIMIT });
                }
                if let Some(question) = self.searches.last_mut() {
                    question.input.push_str(&delta.partial_json);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Whether a search of this id was begun.
    fn asked(&self, id: &str) -> bool {
        self.searches.iter().any(|question| question.id == id)
    }

    /// The search of this id together with what it found.
    fn answered(&mut self, id: &str, answer: &str) -> WebSearch {
        let at = self.searches.iter().position(|question| question.id == id).unwrap_or_default();
        let Question { id, input } = self.searches.remove(at);
        search::search(&search::question(&id, &input), answer, true)
    }

    /// Sends a piece of the open block, unless it is empty.
    fn add(&mut self, delta: Delta<'_>, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        let is_empty = match &delta {
            Delta::Text(text) | Delta::Thinking(text) | Delta::Signature(text) | Delta::ToolArgs(text) => {
                text.is_empty()
            }
            Delta::Citation(_) | Delta::Logprobs(_) => false,
        };
        match &self.open {
            Some(open) if !is_empty => sink.event(StreamEvent::Delta { index: open.index, delta }),
            _ => Ok(()),
        }
    }

    fn close(&mut self, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let index = open.index;
        let last = match open.kind {
            Kind::Skipped | Kind::Question => return Ok(()),
            Kind::Thinking if !open.signature.is_empty() => {
                Some(Delta::Signature(Cow::Owned(open.signature)))
            }
            Kind::ToolCall => open.arguments.map(|text| Delta::ToolArgs(Cow::Owned(text))),
            Kind::Text | Kind::Thinking | Kind::Complete => None,
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
        fields.map_or(Ok(()), |fields| self.usage(&fields, sink))
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

/// The text of a delta that is nothing but text and has no escapes in it.
fn only_text<'a>(event: &'a Event<'a>) -> Option<&'a str> {
    let delta = event.delta.as_ref().filter(|delta| delta.kind == TEXT_DELTA)?;
    match &delta.text {
        Cow::Borrowed(text) if event.kind == CONTENT_BLOCK_DELTA => Some(text),
        _ => None,
    }
}

/// Reads the error object of a stream.
pub(in crate::anthropic) fn read_error(json: &str) -> UpstreamError {
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
