//! Streams as machines without IO: bytes in, bytes out, one state per side.

mod collector;
mod grammar;
mod intake;
mod last_chunk;
#[cfg(test)]
mod lines;
mod losses;
mod noted;
mod pause;
mod relay;
mod replay;
mod transcoder;

use std::{borrow::Cow, time::Duration};

use bytes::BytesMut;
use omniroute_wire::sse::{Frame, FrameError};

use crate::{
    ir::{Block, Citation, FinishReason, Logprob, Loss, PublicError, Tier, UpstreamError, Usage, WebSearch},
    shape::Notes,
};

pub use collector::{Collector, StreamCollector};
pub use grammar::GrammarCheck;
pub(crate) use intake::Intake;
pub(crate) use last_chunk::LastChunk;
#[cfg(test)]
pub(crate) use lines::Lines;
pub(crate) use losses::StreamLosses;
pub use noted::Noted;
pub use pause::MAX_PAUSES;
pub(crate) use pause::Pauses;
pub(crate) use relay::{Relay, Tap};
pub use replay::replay;
pub use transcoder::Transcoder;

/// One step of an answer. Well-nested: `Start (BlockStart Delta* BlockStop)* Usage* Finish`, blocks strictly one
/// after the other with indices 0, 1, 2, …; exactly one `Finish` or `Error` ends a stream. Usage and the tier may be told
/// at any time after the start.
#[derive(Debug, Clone)]
pub enum StreamEvent<'a> {
    /// The answer begins.
    Start {
        /// The upstream's id of the answer; may be empty.
        id: Cow<'a, str>,
        /// The upstream's name of the model; may be empty.
        model: Cow<'a, str>,
    },
    /// A block begins.
    BlockStart {
        /// Its place in the answer.
        index: u32,
        /// What it is.
        block: BlockHead<'a>,
    },
    /// More of the open block.
    Delta {
        /// The open block.
        index: u32,
        /// What is added.
        delta: Delta<'a>,
    },
    /// The open block is complete.
    BlockStop {
        /// The block.
        index: u32,
    },
    /// What was used so far; later ones override the members that they have.
    Usage(Usage),
    /// The tier in which the answer is served, in OpenAI's words; a later one overrides it.
    ServiceTier(Cow<'a, str>),
    /// The answer is complete.
    Finish {
        /// Why.
        reason: FinishReason,
        /// The stop sequence that was met, if that is why.
        stop_sequence: Option<Cow<'a, str>>,
    },
    /// The answer failed.
    Error(UpstreamError),
    /// Nothing happened, but the upstream is alive.
    Ping,
}

/// What kind of block begins.
#[derive(Debug, Clone)]
pub enum BlockHead<'a> {
    /// Text for the reader.
    Text,
    /// Reasoning.
    Thinking {
        /// The origin's id of the item, where it has one and the signature depends on it.
        item: Option<Cow<'a, str>>,
    },
    /// Reasoning that only its origin can read; complete, no deltas follow.
    RedactedThinking {
        /// The opaque data.
        data: Cow<'a, str>,
    },
    /// A tool call; its arguments follow as deltas.
    ToolCall {
        /// The call's id.
        id: Cow<'a, str>,
        /// The tool's name.
        name: Cow<'a, str>,
    },
    /// The model declines.
    Refusal,
    /// The vendor searched the web; complete, no deltas follow.
    WebSearch(Cow<'a, WebSearch>),
    /// A picture that the model made; complete, no deltas follow.
    Image {
        /// Its media type.
        media_type: Cow<'a, str>,
        /// Base64.
        data: Cow<'a, str>,
    },
}

/// What is added to the open block.
#[derive(Debug, Clone)]
pub enum Delta<'a> {
    /// Text of a text block or a refusal.
    Text(Cow<'a, str>),
    /// Text of a thinking block.
    Thinking(Cow<'a, str>),
    /// The signature of a thinking block; once, last.
    Signature(Cow<'a, str>),
    /// A piece of a tool call's arguments as JSON text.
    ToolArgs(Cow<'a, str>),
    /// A source of the text so far.
    Citation(Cow<'a, Citation>),
    /// How probable the tokens of the text were that comes next, or of the text so far where nothing comes any more.
    Logprobs(Cow<'a, [Logprob]>),
}

/// Why a stream cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// A frame is larger than the limit.
    #[error("stream event exceeds {limit} bytes")]
    FrameTooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// A frame cannot be read.
    #[error("{0}")]
    Protocol(String),
}

impl From<FrameError> for StreamError {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::TooLarge { limit } => Self::FrameTooLarge { limit },
        }
    }
}

/// Receives the events of a decoder.
pub trait EventSink {
    /// Takes one event.
    fn event(&mut self, event: StreamEvent<'_>) -> Result<(), StreamError>;
}

/// Reads an upstream's frames.
pub trait StreamDecoder: Send {
    /// Reads one frame.
    fn frame(&mut self, frame: Frame<'_>, sink: &mut dyn EventSink) -> Result<(), StreamError>;
    /// The upstream closed; a stream that did not end properly becomes an `Error` event.
    fn finish(&mut self, sink: &mut dyn EventSink) -> Result<(), StreamError>;
    /// What was read that the form has no place for, once.
    fn take_losses(&mut self) -> Vec<Loss> {
        Vec::new()
    }
    /// Whether the answer has said why it ended, so that nothing but its usage and the mark of the end can follow.
    fn is_ending(&self) -> bool {
        false
    }
    /// Asks for what it reads to be kept, for [`Self::take_paused`]. Called before the first frame.
    fn keep_content(&mut self) {}
    /// The blocks of an answer that its upstream paused, as they came. `None` where the answer did not end so, or where
    /// they were not kept.
    fn take_paused(&mut self) -> Option<Vec<Block>> {
        None
    }
}

/// Writes a client's stream.
pub trait StreamEncoder: Send {
    /// Appends what the event means in the dialect.
    fn event(&mut self, event: StreamEvent<'_>, out: &mut BytesMut) -> Result<(), StreamError>;
    /// Appends an error as the last thing the client gets.
    fn fail(&mut self, error: &PublicError, out: &mut BytesMut);
    /// What the dialect had no word for, once, when the stream is over.
    fn take_losses(&mut self) -> Vec<Loss> {
        Vec::new()
    }
    /// Tells how long ago the request arrived, before events; for dialects whose answers tell times.
    fn time_passed(&mut self, since_arrival: Duration) {
        let _ = since_arrival;
    }
}

/// What a stream has shown so far; how it is judged at its end.
#[derive(Debug, Clone, Default)]
pub struct StreamWatch {
    /// A content, tool or reasoning delta, a refusal or a clean end was seen: the commit point is passed.
    pub meaningful: bool,
    /// The dialect's proper end was seen.
    pub complete: bool,
    /// Why the answer ended.
    pub finish: Option<FinishReason>,
    /// What was used; absent members were not reported.
    pub usage: Usage,
    /// The error the upstream sent within the stream, or that its end amounts to.
    pub error: Option<UpstreamError>,
    /// Bytes of text, reasoning and arguments so far, for estimates.
    pub output_bytes: u64,
}

impl StreamWatch {
    /// Takes note of an event.
    pub fn observe(&mut self, event: &StreamEvent<'_>) {
        match event {
            StreamEvent::Start { .. } | StreamEvent::BlockStop { .. } | StreamEvent::Ping => {}
            StreamEvent::ServiceTier(word) => {
                self.usage.tier = Tier::of_answer(word).or(self.usage.tier);
            }
            StreamEvent::BlockStart { block, .. } => {
                self.meaningful |= match block {
                    BlockHead::ToolCall { .. }
                    | BlockHead::RedactedThinking { .. }
                    | BlockHead::WebSearch(_)
                    | BlockHead::Image { .. } => true,
                    BlockHead::Text | BlockHead::Thinking { .. } | BlockHead::Refusal => false,
                };
            }
            StreamEvent::Delta { delta, .. } => {
                let (Delta::Text(text)
                | Delta::Thinking(text)
                | Delta::Signature(text)
                | Delta::ToolArgs(text)) = delta
                else {
                    return;
                };
                self.meaningful |= !text.is_empty();
                if !matches!(delta, Delta::Signature(_)) {
                    self.output_bytes += text.len() as u64;
                }
            }
            StreamEvent::Usage(usage) => self.usage.update(usage),
            StreamEvent::Finish { reason, .. } => {
                self.meaningful = true;
                self.complete = true;
                self.finish = Some(*reason);
            }
            StreamEvent::Error(error) => self.error = Some(error.clone()),
        }
    }

    /// Whether the stream is over, properly or not.
    pub fn is_over(&self) -> bool {
        self.complete || self.error.is_some()
    }
}

/// What the end of a stream amounts to when the answer was not complete.
pub(crate) fn truncated() -> UpstreamError {
    UpstreamError {
        status: Some(502),
        code: Some("upstream_stream_truncated".to_owned()),
        message: "the upstream closed the stream before the answer was complete".to_owned(),
        ..UpstreamError::default()
    }
}

/// Upstream bytes in, client bytes out. Implemented by the same-dialect relays and by the transcoder.
pub trait StreamPipe: Send {
    /// Takes bytes of the upstream, cut anywhere, and appends bytes for the client.
    fn push(&mut self, bytes: &[u8], out: &mut BytesMut) -> Result<(), StreamError>;
    /// The upstream closed. Sets `watch().error` when the stream had not ended properly; writes no error itself.
    fn finish(&mut self, out: &mut BytesMut) -> Result<(), StreamError>;
    /// Writes an error for the client as the last thing it gets; nothing is pushed after it.
    fn fail(&mut self, error: &PublicError, out: &mut BytesMut);
    /// What was seen so far.
    fn watch(&self) -> &StreamWatch;
    /// [`crate::Dialect::kept_ids`] of the answer, as far as it has come.
    fn kept_ids(&self) -> &[String] {
        &[]
    }
    /// Reasoning of the answer so far that the client may not bring back; `None` where there is none to keep.
    fn notes(&self) -> Option<&Notes> {
        None
    }
    /// How many pictures it was, where pictures are what is billed.
    fn pictures(&self) -> Option<u64> {
        None
    }
    /// What could not be carried over, once, when the stream is over: the client cannot be told any more.
    fn take_losses(&mut self) -> Vec<Loss> {
        Vec::new()
    }
    /// Tells how long ago the request arrived, before bytes are pushed; see [`StreamEncoder::time_passed`].
    fn time_passed(&mut self, since_arrival: Duration) {
        let _ = since_arrival;
    }
    /// Whether the answer has said why it ended, and nothing but its usage and the mark of the end can follow. Some
    /// upstreams forget to close.
    fn is_ending(&self) -> bool {
        false
    }
    /// The blocks of an answer that its upstream paused and whose client cannot be told so, once: it goes on when they
    /// are sent back. After [`Self::resume`] its bytes are pushed as if they were of the same stream.
    fn take_paused(&mut self) -> Option<Vec<Block>> {
        None
    }
    /// The bytes that come are those of another answer, which goes on with the paused one.
    fn resume(&mut self) {}
}
