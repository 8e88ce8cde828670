//! Streams: from an upstream of this dialect, and for a client of it.

mod chunk;
mod decoder;
mod encoder;
mod frames;

pub(super) use chunk::{Candidate, Feedback, read_chunk};
pub(super) use decoder::{Decoder, bad_call};
pub(super) use encoder::Encoder;
pub(super) use frames::Frames;

#[cfg(test)]
mod tests;
