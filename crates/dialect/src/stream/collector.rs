//! A stream as a whole answer, for clients that did not ask for a stream.

use std::fmt;

use serde_json::value::RawValue;

use super::{
    BlockHead, Delta, EventSink, Intake, StreamDecoder, StreamError, StreamEvent, StreamWatch,
    transcoder::whole_body, truncated,
};
use crate::{
    Dialect, DialectId, error_text,
    ir::{Block, BlockKind, ChatResponse, Image, MediaSource, Signature, ToolCall, UpstreamError},
    json_in::compact,
};

/// Puts the events of a stream together.
#[derive(Debug)]
pub struct Collector {
    origin: DialectId,
    response: ChatResponse,
    watch: StreamWatch,
}

impl Collector {
    /// For a stream of this dialect.
    pub fn new(origin: DialectId) -> Self {
        Self { origin, response: ChatResponse::default(), watch: StreamWatch::default() }
    }

    /// The answer, if the stream ended properly.
    pub fn into_response(mut self) -> Result<ChatResponse, UpstreamError> {
        if let Some(error) = self.watch.error {
            return Err(error);
        }
        if !self.watch.complete {
            return Err(truncated());
        }
        self.response.usage = self.watch.usage;
        self.response.finish = self.watch.finish;
        Ok(self.response)
    }

    /// What was seen so far.
    pub fn watch(&self) -> &StreamWatch {
        &self.watch
    }

    fn delta(&mut self, delta: &Delta<'_>) {
        let Some(block) = self.response.blocks.last_mut() else { return };
        match (&mut block.kind, delta) {
            (BlockKind::Text(text) | BlockKind::Refusal(text), Delta::Text(more))
            | (BlockKind::Thinking { text, .. }, Delta::Thinking(more)) => text.push_str(more),
            (BlockKind::Thinking { signature, .. }, Delta::Signature(more)) => {
                signature.get_or_insert_default().data.push_str(more);
            }
            (BlockKind::ToolCall(call), Delta::ToolArgs(more)) => call.arguments.push_str(more),
            (BlockKind::Text(_), Delta::Citation(citation)) => {
                block.citations.push(citation.clone().into_owned());
            }
            (BlockKind::Text(_), Delta::Logprobs(tokens)) => block.logprobs.extend_from_slice(tokens),
            _ => {}
        }
    }

    fn block_stop(&mut self) {
        let Some(block) = self.response.blocks.last_mut() else { return };
        match &mut block.kind {
            BlockKind::Text(text) if text.is_empty() => {
                self.response.blocks.pop();
            }
            BlockKind::Thinking { signature, .. } => {
                // An item's id is of no use without what it belongs to.
                signature.take_if(|signature| signature.data.is_empty());
            }
            BlockKind::ToolCall(call) if call.arguments.trim().is_empty() => {
                "{}".clone_into(&mut call.arguments);
            }
            _ => {}
        }
    }
}

impl EventSink for Collector {
    fn event(&mut self, event: StreamEvent<'_>) -> Result<(), StreamError> {
        if self.watch.is_over() {
            return Ok(());
        }
        self.watch.observe(&event);
        match event {
            StreamEvent::Start { id, model } => {
                self.response.id = id.into_owned();
                self.response.model = model.into_owned();
            }
            StreamEvent::BlockStart { block, .. } => {
                let kind = match block {
                    BlockHead::Text => BlockKind::Text(String::new()),
                    BlockHead::Refusal => BlockKind::Refusal(String::new()),
                    BlockHead::Thinking { item } => BlockKind::Thinking {
                        text: String::new(),
                        signature: item
                            .map(|item| Signature { item: Some(item.into_owned()), ..Signature::default() }),
                        origin: self.origin,
                    },
                    BlockHead::RedactedThinking { data } => {
                        BlockKind::RedactedThinking { data: data.into_owned(), origin: self.origin }
                    }
                    BlockHead::ToolCall { id, name } => BlockKind::ToolCall(ToolCall {
                        id: id.into_owned(),
                        name: name.into_owned(),
                        arguments: String::new(),
                    }),
                    BlockHead::WebSearch(search) => BlockKind::WebSearch(search.into_owned()),
                    BlockHead::Image { media_type, data } => BlockKind::Image(Image {
                        source: MediaSource::Base64 {
                            media_type: media_type.into_owned(),
                            data: data.into_owned(),
                        },
                        detail: None,
                    }),
                };
                self.response.blocks.push(Block::from(kind));
            }
            StreamEvent::Delta { delta, .. } => self.delta(&delta),
            StreamEvent::BlockStop { .. } => self.block_stop(),
            StreamEvent::ServiceTier(tier) => self.response.service_tier = Some(tier.into_owned()),
            StreamEvent::Finish { stop_sequence, .. } => {
                self.response.stop_sequence = stop_sequence.map(std::borrow::Cow::into_owned);
            }
            StreamEvent::Usage(_) | StreamEvent::Error(_) | StreamEvent::Ping => {}
        }
        Ok(())
    }
}

/// The bytes of an upstream's stream in, a whole answer out.
pub struct StreamCollector {
    upstream: &'static dyn Dialect,
    intake: Intake,
    decoder: Box<dyn StreamDecoder>,
    collector: Collector,
}

impl StreamCollector {
    /// For an upstream of this dialect.
    pub fn new(upstream: &'static dyn Dialect) -> Self {
        Self {
            upstream,
            intake: Intake::new(upstream.framing()),
            decoder: upstream.stream_decoder(),
            collector: Collector::new(upstream.id()),
        }
    }

    /// Takes bytes of the upstream, cut anywhere.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), StreamError> {
        if self.collector.watch.is_over() {
            return Ok(());
        }
        self.intake.push(bytes)?;
        self.frames()
    }

    /// Takes a whole stream in the form of a list of events.
    pub fn push_list(&mut self, list: &[u8]) -> Result<(), StreamError> {
        let events: Vec<&RawValue> =
            serde_json::from_slice(list).map_err(|error| StreamError::Protocol(error.to_string()))?;
        for event in events {
            self.push(format!("data: {}\n\n", compact(event.get())).as_bytes())?;
        }
        Ok(())
    }

    /// The upstream closed: the answer, or why there is none.
    pub fn finish(mut self) -> Result<ChatResponse, UpstreamError> {
        self.close().map_err(|error| error_text::malformed(&error.to_string()))?;
        self.collector.into_response()
    }

    /// What was seen so far.
    pub fn watch(&self) -> &StreamWatch {
        &self.collector.watch
    }

    fn frames(&mut self) -> Result<(), StreamError> {
        while !self.collector.watch.is_over() {
            let Some(found) = self.intake.next_frame() else { break };
            self.decoder.frame(found?.frame, &mut self.collector)?;
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), StreamError> {
        self.intake.finish();
        self.frames()?;
        if self.collector.watch.is_over() {
            return Ok(());
        }
        if let Some(body) = self.intake.take_body() {
            return whole_body(self.upstream, &body.into(), &mut self.collector);
        }
        if self.intake.is_html() {
            return self.collector.event(StreamEvent::Error(error_text::html(200)));
        }
        self.decoder.finish(&mut self.collector)
    }
}

impl fmt::Debug for StreamCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamCollector").field("collector", &self.collector).finish_non_exhaustive()
    }
}
