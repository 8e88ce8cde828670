//! A stream of one dialect as a stream of another.

use std::{fmt, time::Duration};

use bytes::{Bytes, BytesMut};

use super::{
    EventSink, Intake, StreamDecoder, StreamEncoder, StreamError, StreamEvent, StreamPipe, StreamWatch,
    replay,
};
use crate::{
    Dialect, Echo, error_text,
    ir::{Loss, PublicError},
    shape::{Notes, Shape},
};

/// Framer, decoder, shape and encoder in a row.
///
/// Text goes from the frame straight into the output. An error of the upstream is noted in the watch and not written:
/// whether the client sees it is not decided here.
pub struct Transcoder {
    upstream: &'static dyn Dialect,
    intake: Intake,
    decoder: Box<dyn StreamDecoder>,
    shape: Shape,
    encoder: Box<dyn StreamEncoder>,
    watch: StreamWatch,
}

impl Transcoder {
    /// Between an upstream and a client. `shape` is what the request asks for beyond their dialects.
    pub fn new(upstream: &'static dyn Dialect, client: &dyn Dialect, echo: Echo, shape: Shape) -> Self {
        Self {
            upstream,
            intake: Intake::new(upstream.framing()),
            decoder: upstream.stream_decoder(),
            shape,
            encoder: client.stream_encoder(echo),
            watch: StreamWatch::default(),
        }
    }

    fn frames(&mut self, out: &mut BytesMut) -> Result<(), StreamError> {
        while !self.watch.is_over() {
            let Some(found) = self.intake.next_frame() else { break };
            let writer = Writer { encoder: self.encoder.as_mut(), watch: &mut self.watch, out };
            self.decoder.frame(found?.frame, &mut Shaped { shape: &mut self.shape, writer })?;
        }
        Ok(())
    }
}

impl StreamPipe for Transcoder {
    fn push(&mut self, bytes: &[u8], out: &mut BytesMut) -> Result<(), StreamError> {
        if self.watch.is_over() {
            return Ok(());
        }
        self.intake.push(bytes)?;
        self.frames(out)
    }

    fn finish(&mut self, out: &mut BytesMut) -> Result<(), StreamError> {
        self.intake.finish();
        self.frames(out)?;
        if self.watch.is_over() {
            return Ok(());
        }
        let writer = Writer { encoder: self.encoder.as_mut(), watch: &mut self.watch, out };
        let mut sink = Shaped { shape: &mut self.shape, writer };
        if let Some(body) = self.intake.take_body() {
            return whole_body(self.upstream, &body.into(), &mut sink);
        }
        if self.intake.is_html() {
            return sink.event(StreamEvent::Error(error_text::html(200)));
        }
        self.decoder.finish(&mut sink)
    }

    fn fail(&mut self, error: &PublicError, out: &mut BytesMut) {
        self.encoder.fail(error, out);
    }

    fn watch(&self) -> &StreamWatch {
        &self.watch
    }

    fn notes(&self) -> Option<&Notes> {
        self.shape.notes()
    }

    fn take_losses(&mut self) -> Vec<Loss> {
        let mut losses = self.decoder.take_losses();
        losses.extend(self.encoder.take_losses());
        losses
    }

    fn time_passed(&mut self, since_arrival: Duration) {
        self.encoder.time_passed(since_arrival);
    }
}

impl fmt::Debug for Transcoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transcoder")
            .field("upstream", &self.upstream.id())
            .field("watch", &self.watch)
            .finish()
    }
}

/// The events of a whole answer, or of an error, that came in place of a stream.
pub(super) fn whole_body(
    upstream: &dyn Dialect,
    body: &Bytes,
    sink: &mut dyn EventSink,
) -> Result<(), StreamError> {
    if let Some(error) = error_text::error_in_success(body) {
        return sink.event(StreamEvent::Error(error));
    }
    match upstream.decode_response(body) {
        Ok(response) => replay(&response, sink),
        Err(error) => sink.event(StreamEvent::Error(error_text::malformed(&error.message))),
    }
}

/// Changes events before they are written.
struct Shaped<'a> {
    shape: &'a mut Shape,
    writer: Writer<'a>,
}

impl EventSink for Shaped<'_> {
    fn event(&mut self, event: StreamEvent<'_>) -> Result<(), StreamError> {
        self.shape.event(event, &mut self.writer)
    }
}

struct Writer<'a> {
    encoder: &'a mut dyn StreamEncoder,
    watch: &'a mut StreamWatch,
    out: &'a mut BytesMut,
}

impl EventSink for Writer<'_> {
    fn event(&mut self, event: StreamEvent<'_>) -> Result<(), StreamError> {
        if self.watch.is_over() {
            return Ok(());
        }
        self.watch.observe(&event);
        if matches!(event, StreamEvent::Error(_)) { Ok(()) } else { self.encoder.event(event, self.out) }
    }
}
