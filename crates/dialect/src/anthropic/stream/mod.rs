//! Streams: from an upstream of this dialect, and for a client of it.

mod decoder;
mod encoder;

pub(super) use decoder::{Decoder, read_error};
pub(super) use encoder::Encoder;

/// The end of a stream.
pub(super) const MESSAGE_STOP: &[u8] = b"event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";

/// Any bytes as a stream: the events keep to the grammar, and cuts make no difference.
#[doc(hidden)]
pub fn fuzz_anthropic_stream(data: &[u8]) {
    crate::stream::fuzz_stream(&super::Anthropic, data);
}

#[cfg(test)]
mod tests;
