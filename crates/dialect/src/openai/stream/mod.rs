//! Streams: from an upstream of this dialect, and for a client of it.

mod decoder;
mod encoder;

pub(super) use decoder::Decoder;
pub(super) use encoder::{Encoder, goes_with_call, redacted_block, thinking_block};

/// Any bytes as a stream: the events keep to the grammar, and cuts make no difference.
#[doc(hidden)]
pub fn fuzz_openai_stream(data: &[u8]) {
    crate::stream::fuzz_stream(&super::OpenAi, data);
}

#[cfg(test)]
mod tests;
