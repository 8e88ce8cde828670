//! Streams: from an upstream of this dialect, and for a client of it.

mod decoder;
mod encoder;

pub(super) use decoder::Decoder;
pub(super) use encoder::Encoder;
