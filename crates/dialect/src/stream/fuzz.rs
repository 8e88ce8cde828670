//! What every stream decoder must hold to, on any bytes.

use super::{EventSink, GrammarCheck, StreamCollector, StreamError, StreamEvent};
use crate::{Dialect, Echo};
use bytes::BytesMut;

/// Events as text.
#[derive(Debug, Default)]
struct Log(Vec<String>);

impl EventSink for Log {
    fn event(&mut self, event: StreamEvent<'_>) -> Result<(), StreamError> {
        self.0.push(format!("{event:?}"));
        Ok(())
    }
}

/// Panics at the first event that is out of place.
struct Strict(GrammarCheck<Log>);

impl EventSink for Strict {
    fn event(&mut self, event: StreamEvent<'_>) -> Result<(), StreamError> {
        if let Err(error) = self.0.event(event) {
            panic!("{error}");
        }
        Ok(())
    }
}

/// Checks the decoder and the relay of a dialect: events are well-nested and end once, and the cuts do not matter.
#[doc(hidden)]
pub fn fuzz_stream(dialect: &'static dyn Dialect, data: &[u8]) {
    let whole = events(dialect, &mut std::iter::once(data));
    let piped = relay(dialect, &mut std::iter::once(data));
    for size in [1, 7] {
        assert_eq!(events(dialect, &mut data.chunks(size)), whole, "in pieces of {size}");
        assert_eq!(relay(dialect, &mut data.chunks(size)), piped, "in pieces of {size}");
    }
    let mut collector = StreamCollector::new(dialect);
    if collector.push(data).is_ok() {
        let _ = collector.finish();
    }
}

fn events(
    dialect: &'static dyn Dialect,
    pieces: &mut dyn Iterator<Item = &[u8]>,
) -> Result<Vec<String>, StreamError> {
    let mut decoder = dialect.stream_decoder();
    let mut intake = super::Intake::new(dialect.framing());
    let mut check = Strict(GrammarCheck::new(Log::default()));
    for piece in pieces {
        intake.push(piece)?;
        while let Some(found) = intake.next_frame() {
            decoder.frame(found?.frame, &mut check)?;
        }
    }
    intake.finish();
    while let Some(found) = intake.next_frame() {
        decoder.frame(found?.frame, &mut check)?;
    }
    decoder.finish(&mut check)?;
    match check.0.finish() {
        Ok(log) => Ok(log.0),
        Err(error) => panic!("{error}"),
    }
}

fn relay(
    dialect: &'static dyn Dialect,
    pieces: &mut dyn Iterator<Item = &[u8]>,
) -> (Result<(), StreamError>, Vec<u8>, String) {
    let echo = Echo { model: "asked".to_owned(), request_id: "r".to_owned(), ..Echo::default() };
    let mut pipe = dialect.stream_relay(echo);
    let mut out = BytesMut::new();
    let mut result = Ok(());
    for piece in pieces {
        result = pipe.push(piece, &mut out);
        if result.is_err() {
            break;
        }
    }
    if result.is_ok() {
        result = pipe.finish(&mut out);
        if result.is_ok() {
            assert!(pipe.watch().is_over());
        }
    }
    (result, out.to_vec(), format!("{:?}", pipe.watch()))
}
