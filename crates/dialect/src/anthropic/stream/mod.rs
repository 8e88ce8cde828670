//! Streams: from an upstream of this dialect, and for a client of it.

mod content;
mod decoder;
mod encoder;

pub(super) use decoder::{Decoder, read_error};
pub(super) use encoder::Encoder;

/// The end of a stream.
pub(super) const MESSAGE_STOP: &[u8] = b"event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";

#[cfg(test)]
mod tests;
