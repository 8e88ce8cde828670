//! Streams: from an upstream of this dialect, and for a client of it.

mod calls;
mod decoder;
mod encoder;

pub(super) use decoder::Decoder;
pub(super) use encoder::{Encoder, goes_with_call, redacted_block, thinking_block};

#[cfg(test)]
mod tests;
