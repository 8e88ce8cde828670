//! A stream of one dialect as a stream of another.

use std::{fmt, time::Duration};

use bytes::{Bytes, BytesMut};

use super::{
    EventSink, Intake, Pauses, StreamDecoder, StreamEncoder, StreamError, StreamEvent, StreamPipe,
    StreamWatch, pause::Pausing, replay,
};
use crate::{
    Dialect, Echo, error_text,
    ir::{Block, FinishReason, Loss, PublicError},
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
    /// For an answer that its upstream may pause.
    pauses: Option<Box<Pauses>>,
    /// The blocks of one that is paused.
    paused: Option<Vec<Block>>,
    /// What the parts before the last pause lost.
    losses: Vec<Loss>,
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
            pauses: None,
            paused: None,
            losses: Vec::new(),
        }
    }

    /// For a caller that lets the upstream go on when it pauses, see [`StreamPipe::take_paused`].
    pub fn resumable(mut self) -> Self {
        if self.shape.may_pause() {
            self.pauses = Some(Box::default());
            self.decoder.keep_content();
        }
        self
    }

    fn frames(&mut self, out: &mut BytesMut) -> Result<(), StreamError> {
        while !self.watch.is_over() && self.paused.is_none() {
            let Some(found) = self.intake.next_frame() else { break };
            let writer = Writer { encoder: self.encoder.as_mut(), watch: &mut self.watch, out };
            let mut sink = Shaped { shape: &mut self.shape, writer };
            match &mut self.pauses {
                None => self.decoder.frame(found?.frame, &mut sink)?,
                Some(pauses) => {
                    self.decoder.frame(found?.frame, &mut Pausing { pauses, sink })?;
                    self.settle_pause(out)?;
                }
            }
        }
        Ok(())
    }

    /// After a pause: what has to be sent back, or the end where that is nothing or not known.
    fn settle_pause(&mut self, out: &mut BytesMut) -> Result<(), StreamError> {
        if self.paused.is_some() || !self.pauses.as_ref().is_some_and(|pauses| pauses.is_paused()) {
            return Ok(());
        }
        self.paused = self.decoder.take_paused().filter(|content| !content.is_empty());
        if self.paused.is_some() {
            return Ok(());
        }
        let writer = Writer { encoder: self.encoder.as_mut(), watch: &mut self.watch, out };
        let end = StreamEvent::Finish { reason: FinishReason::Pause, stop_sequence: None };
        Shaped { shape: &mut self.shape, writer }.event(end)
    }
}

impl StreamPipe for Transcoder {
    fn push(&mut self, bytes: &[u8], out: &mut BytesMut) -> Result<(), StreamError> {
        if self.watch.is_over() || self.paused.is_some() {
            return Ok(());
        }
        self.intake.push(bytes)?;
        self.frames(out)
    }

    fn finish(&mut self, out: &mut BytesMut) -> Result<(), StreamError> {
        self.intake.finish();
        self.frames(out)?;
        if self.watch.is_over() || self.paused.is_some() {
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
        match &mut self.pauses {
            None => self.decoder.finish(&mut sink),
            Some(pauses) => {
                self.decoder.finish(&mut Pausing { pauses, sink })?;
                self.settle_pause(out)
            }
        }
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
        let mut losses = std::mem::take(&mut self.losses);
        losses.extend(self.decoder.take_losses());
        losses.extend(self.encoder.take_losses());
        losses
    }

    fn time_passed(&mut self, since_arrival: Duration) {
        self.encoder.time_passed(since_arrival);
    }

    fn is_ending(&self) -> bool {
        self.decoder.is_ending() && self.paused.is_none()
    }

    fn take_paused(&mut self) -> Option<Vec<Block>> {
        let content = self.paused.take()?;
        // Until it goes on, nothing that comes is of the answer.
        self.paused = Some(Vec::new());
        (!content.is_empty()).then_some(content)
    }

    fn resume(&mut self) {
        let Some(pauses) = &mut self.pauses else { return };
        pauses.resume();
        self.losses.extend(self.decoder.take_losses());
        self.intake = Intake::new(self.upstream.framing());
        self.decoder = self.upstream.stream_decoder();
        self.decoder.keep_content();
        self.paused = None;
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
