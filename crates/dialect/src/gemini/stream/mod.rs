//! Streams: from an upstream of this dialect, and for a client of it.

mod chunk;
mod decoder;
mod encoder;
mod frames;

pub(super) use chunk::{Candidate, Feedback, read_chunk};
pub(super) use decoder::{Decoder, bad_call};
pub(super) use encoder::Encoder;
pub(super) use frames::Frames;

/// Any bytes as a stream: the events keep to the grammar, and cuts make no difference.
#[doc(hidden)]
pub fn fuzz_gemini_stream(data: &[u8]) {
    crate::stream::fuzz_stream(&super::Gemini, data);
}

#[cfg(test)]
mod tests;
