//! Answers that their upstream pauses, for clients whose dialect has no word for that: what comes when it goes on is made
//! one answer with what was there.

use super::{EventSink, StreamError, StreamEvent};
use crate::ir::{FinishReason, Usage};

/// How often an answer is made to go on; after that it is taken for complete.
pub const MAX_PAUSES: u8 = 5;

/// What is known of an answer that may be paused.
#[derive(Debug, Default)]
pub(crate) struct Pauses {
    /// How often it was.
    count: u8,
    /// Whether it is.
    paused: bool,
    /// The number of blocks in the parts that are complete, and in all.
    before: u32,
    blocks: u32,
    /// What the complete parts used, and the open one.
    used: Usage,
    using: Usage,
}

impl Pauses {
    /// Whether the upstream has just paused.
    pub(crate) const fn is_paused(&self) -> bool {
        self.paused
    }

    /// It goes on.
    pub(crate) fn resume(&mut self) {
        self.count += 1;
        self.paused = false;
        self.before = self.blocks;
        self.used.add(&std::mem::take(&mut self.using));
    }

    /// Passes an event on as one of the whole answer. That the upstream paused is only noted, if it may go on.
    pub(crate) fn event(
        &mut self,
        event: StreamEvent<'_>,
        sink: &mut dyn EventSink,
    ) -> Result<(), StreamError> {
        let before = self.before;
        sink.event(match event {
            StreamEvent::Start { .. } if self.count > 0 => return Ok(()),
            StreamEvent::Finish { reason: FinishReason::Pause, .. } if self.count < MAX_PAUSES => {
                self.paused = true;
                return Ok(());
            }
            StreamEvent::BlockStart { index, block } => {
                let index = before.saturating_add(index);
                self.blocks = self.blocks.max(index.saturating_add(1));
                StreamEvent::BlockStart { index, block }
            }
            StreamEvent::Delta { index, delta } => {
                StreamEvent::Delta { index: before.saturating_add(index), delta }
            }
            StreamEvent::BlockStop { index } => {
                StreamEvent::BlockStop { index: before.saturating_add(index) }
            }
            StreamEvent::Usage(usage) => {
                self.using.update(&usage);
                let mut usage = self.used;
                usage.add(&self.using);
                StreamEvent::Usage(usage)
            }
            other => other,
        })
    }
}

/// Passes events through [`Pauses`].
pub(super) struct Pausing<'a, S> {
    pub(super) pauses: &'a mut Pauses,
    pub(super) sink: S,
}

impl<S: EventSink> EventSink for Pausing<'_, S> {
    fn event(&mut self, event: StreamEvent<'_>) -> Result<(), StreamError> {
        self.pauses.event(event, &mut self.sink)
    }
}
