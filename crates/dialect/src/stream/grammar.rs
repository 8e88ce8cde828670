//! Holds a stream of events to its grammar.

use super::{BlockHead, Delta, EventSink, StreamError, StreamEvent};

/// Passes events on and fails at the first that is out of place.
#[derive(Debug)]
pub struct GrammarCheck<S> {
    inner: S,
    started: bool,
    over: bool,
    next_index: u32,
    open: Option<Open>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    Text,
    Thinking,
    Signed,
    /// Complete from the start.
    Complete,
    ToolCall,
}

impl<S: EventSink> GrammarCheck<S> {
    /// Before this sink.
    pub fn new(inner: S) -> Self {
        Self { inner, started: false, over: false, next_index: 0, open: None }
    }

    /// The sink behind the check, which must have seen the end of a stream.
    pub fn finish(self) -> Result<S, StreamError> {
        if self.over { Ok(self.inner) } else { Err(misplaced("end without Finish or Error")) }
    }

    fn check(&mut self, event: &StreamEvent<'_>) -> Result<(), StreamError> {
        if self.over {
            return Err(misplaced("event after the end"));
        }
        match event {
            StreamEvent::Ping => {}
            StreamEvent::Error(_) => self.over = true,
            StreamEvent::Start { .. } if self.started => return Err(misplaced("second Start")),
            StreamEvent::Start { .. } => self.started = true,
            _ if !self.started => return Err(misplaced("event before Start")),
            StreamEvent::BlockStart { index, block } => {
                if self.open.is_some() || *index != self.next_index {
                    return Err(misplaced("BlockStart"));
                }
                self.next_index += 1;
                self.open = Some(match block {
                    BlockHead::Text | BlockHead::Refusal => Open::Text,
                    BlockHead::Thinking { .. } => Open::Thinking,
                    BlockHead::RedactedThinking { .. }
                    | BlockHead::WebSearch(_)
                    | BlockHead::Image { .. } => Open::Complete,
                    BlockHead::ToolCall { id, name } if id.is_empty() || name.is_empty() => {
                        return Err(misplaced("tool call without id or name"));
                    }
                    BlockHead::ToolCall { .. } => Open::ToolCall,
                });
            }
            StreamEvent::Delta { index, delta } => {
                let open = self.open.filter(|_| *index + 1 == self.next_index);
                match (open, delta) {
                    (Some(Open::Text), Delta::Text(_) | Delta::Citation(_) | Delta::Logprobs(_))
                    | (Some(Open::Thinking), Delta::Thinking(_))
                    | (Some(Open::ToolCall), Delta::ToolArgs(_)) => {}
                    (Some(Open::Thinking), Delta::Signature(_)) => self.open = Some(Open::Signed),
                    _ => return Err(misplaced("Delta")),
                }
            }
            StreamEvent::BlockStop { index } => {
                if self.open.take().is_none() || *index + 1 != self.next_index {
                    return Err(misplaced("BlockStop"));
                }
            }
            StreamEvent::Usage(_) | StreamEvent::ServiceTier(_) => {}
            StreamEvent::Finish { .. } if self.open.is_some() => return Err(misplaced("Finish in a block")),
            StreamEvent::Finish { .. } => self.over = true,
        }
        Ok(())
    }
}

impl<S: EventSink> EventSink for GrammarCheck<S> {
    fn event(&mut self, event: StreamEvent<'_>) -> Result<(), StreamError> {
        self.check(&event)?;
        self.inner.event(event)
    }
}

/// Takes events and forgets them.
impl EventSink for () {
    fn event(&mut self, _: StreamEvent<'_>) -> Result<(), StreamError> {
        Ok(())
    }
}

fn misplaced(what: &str) -> StreamError {
    StreamError::Protocol(format!("ill-nested events: {what}"))
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::ir::{FinishReason, UpstreamError, Usage};

    fn check(events: &[StreamEvent<'_>]) -> Result<(), StreamError> {
        let mut check = GrammarCheck::new(());
        for event in events {
            check.event(event.clone())?;
        }
        check.finish()
    }

    #[test]
    fn the_grammar_is_told_from_what_is_not() {
        let start = StreamEvent::Start { id: Cow::Borrowed(""), model: Cow::Borrowed("") };
        let text = |index| StreamEvent::BlockStart { index, block: BlockHead::Text };
        let more = |index| StreamEvent::Delta { index, delta: Delta::Text(Cow::Borrowed("x")) };
        let stop = |index| StreamEvent::BlockStop { index };
        let finish = StreamEvent::Finish { reason: FinishReason::Stop, stop_sequence: None };
        let usage = StreamEvent::Usage(Usage::default());
        let error = StreamEvent::Error(UpstreamError::default());
        let args = StreamEvent::Delta { index: 0, delta: Delta::ToolArgs(Cow::Borrowed("{}")) };

        for good in [
            vec![start.clone(), usage.clone(), text(0), more(0), stop(0), text(1), stop(1), finish.clone()],
            vec![StreamEvent::Ping, error.clone()],
            vec![start.clone(), text(0), error],
        ] {
            assert_eq!(check(&good), Ok(()), "{good:?}");
        }
        for bad in [
            vec![start.clone()],
            vec![text(0)],
            vec![start.clone(), start.clone()],
            vec![start.clone(), text(1)],
            vec![start.clone(), text(0), text(1)],
            vec![start.clone(), text(0), stop(0), more(0)],
            vec![start.clone(), text(0), args],
            vec![start.clone(), text(0), finish.clone()],
            vec![start.clone(), stop(0)],
            vec![start, finish.clone(), finish],
        ] {
            assert!(check(&bad).is_err(), "{bad:?}");
        }
    }
}
