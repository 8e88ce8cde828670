//! A stream that stays in its dialect: passed on frame by frame while a tap looks on.

use std::fmt;

use bytes::BytesMut;
use omniroute_wire::sse::RawFrame;

use super::{
    EventSink, Intake, StreamEncoder, StreamError, StreamEvent, StreamPipe, StreamWatch,
    transcoder::whole_body,
};
use crate::{Dialect, error_text, ir::PublicError};

/// What a dialect does with the frames of its own streams.
pub(crate) trait Tap: Send {
    /// Takes note of a frame and writes what the client gets of it. The end of the stream and errors of the
    /// upstream are noted in the watch; errors are not written.
    fn frame(&mut self, found: &RawFrame<'_>, out: &mut BytesMut);
    /// The upstream closed before the dialect's proper end: completes the answer if nothing of it is missing,
    /// else notes that it was cut off.
    fn cut(&mut self, out: &mut BytesMut);
    /// Writes an error for the client as the last thing.
    fn fail(&mut self, error: &PublicError, out: &mut BytesMut);
    /// A writer for an answer that came whole although a stream was asked for.
    fn encoder(&self) -> Box<dyn StreamEncoder>;
    /// What was seen so far.
    fn watch(&self) -> &StreamWatch;
    /// The ids by which a later request may name the answer.
    fn kept_ids(&self) -> &[String] {
        &[]
    }
    /// [`StreamPipe::is_ending`], as far as the stream has come.
    fn is_ending(&self) -> bool {
        false
    }
    /// What was seen so far, to be added to.
    fn watch_mut(&mut self) -> &mut StreamWatch;
}

/// The pipe between an upstream and a client of one dialect.
pub(crate) struct Relay<T> {
    dialect: &'static dyn Dialect,
    intake: Intake,
    tap: T,
}

impl<T: Tap> Relay<T> {
    /// For streams of this dialect.
    pub(crate) fn new(dialect: &'static dyn Dialect, tap: T) -> Self {
        Self { dialect, intake: Intake::new(dialect.framing()), tap }
    }

    fn frames(&mut self, out: &mut BytesMut) -> Result<(), StreamError> {
        while !self.tap.watch().is_over() {
            let Some(found) = self.intake.next_frame() else { break };
            self.tap.frame(&found?, out);
        }
        Ok(())
    }
}

impl<T: Tap> StreamPipe for Relay<T> {
    fn push(&mut self, bytes: &[u8], out: &mut BytesMut) -> Result<(), StreamError> {
        if self.tap.watch().is_over() {
            return Ok(());
        }
        self.intake.push(bytes)?;
        self.frames(out)
    }

    fn finish(&mut self, out: &mut BytesMut) -> Result<(), StreamError> {
        self.intake.finish();
        self.frames(out)?;
        if self.tap.watch().is_over() {
            return Ok(());
        }
        if let Some(body) = self.intake.take_body() {
            let mut encoder = self.tap.encoder();
            let mut sink = Replayed { encoder: encoder.as_mut(), watch: self.tap.watch_mut(), out };
            return whole_body(self.dialect, &body.into(), &mut sink);
        }
        if self.intake.is_html() {
            self.tap.watch_mut().error = Some(error_text::html(200));
        } else {
            self.tap.cut(out);
        }
        Ok(())
    }

    fn fail(&mut self, error: &PublicError, out: &mut BytesMut) {
        self.tap.fail(error, out);
    }

    fn watch(&self) -> &StreamWatch {
        self.tap.watch()
    }

    fn kept_ids(&self) -> &[String] {
        self.tap.kept_ids()
    }

    fn is_ending(&self) -> bool {
        self.tap.is_ending()
    }
}

impl<T: Tap> fmt::Debug for Relay<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay")
            .field("dialect", &self.dialect.id())
            .field("watch", self.tap.watch())
            .finish_non_exhaustive()
    }
}

struct Replayed<'a> {
    encoder: &'a mut dyn StreamEncoder,
    watch: &'a mut StreamWatch,
    out: &'a mut BytesMut,
}

impl EventSink for Replayed<'_> {
    fn event(&mut self, event: StreamEvent<'_>) -> Result<(), StreamError> {
        self.watch.observe(&event);
        if matches!(event, StreamEvent::Error(_)) { Ok(()) } else { self.encoder.event(event, self.out) }
    }
}
