//! A stream that stays in its dialect, while its reasoning is noted for a client that will not bring it back.

use std::{fmt, time::Duration};

use bytes::BytesMut;

use super::{StreamError, StreamPipe, StreamWatch, Transcoder};
use crate::{
    Dialect, Echo,
    ir::PublicError,
    shape::{Notes, Shape},
};

/// A pipe whose bytes are read once more beside it. Worth its price only where the upstream wants its reasoning back.
pub struct Noted {
    pipe: Box<dyn StreamPipe>,
    reader: Transcoder,
    unused: BytesMut,
}

impl Noted {
    /// Around a pipe between an upstream and a client of one dialect.
    pub fn new(pipe: Box<dyn StreamPipe>, dialect: &'static dyn Dialect) -> Self {
        let reader = Transcoder::new(dialect, dialect, Echo::default(), Shape::none(dialect));
        Self { pipe, reader, unused: BytesMut::new() }
    }
}

impl StreamPipe for Noted {
    fn push(&mut self, bytes: &[u8], out: &mut BytesMut) -> Result<(), StreamError> {
        // What the reader cannot make sense of the pipe judges; there is nothing to be noted then.
        let _ = self.reader.push(bytes, &mut self.unused);
        self.unused.clear();
        self.pipe.push(bytes, out)
    }

    fn finish(&mut self, out: &mut BytesMut) -> Result<(), StreamError> {
        let _ = self.reader.finish(&mut self.unused);
        self.unused.clear();
        self.pipe.finish(out)
    }

    fn fail(&mut self, error: &PublicError, out: &mut BytesMut) {
        self.pipe.fail(error, out);
    }

    fn watch(&self) -> &StreamWatch {
        self.pipe.watch()
    }

    fn kept_ids(&self) -> &[String] {
        self.pipe.kept_ids()
    }

    fn notes(&self) -> Option<&Notes> {
        self.reader.notes()
    }

    fn time_passed(&mut self, since_arrival: Duration) {
        self.pipe.time_passed(since_arrival);
    }
}

impl fmt::Debug for Noted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Noted").field("watch", self.watch()).finish_non_exhaustive()
    }
}
