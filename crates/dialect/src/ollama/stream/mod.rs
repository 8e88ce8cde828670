//! Streams: from an upstream of this dialect, and for a client of it.

mod decoder;
mod encoder;

pub(super) use decoder::Decoder;
pub(super) use encoder::Encoder;

/// Any bytes as a stream: the events keep to the grammar, and cuts make no difference.
#[doc(hidden)]
pub fn fuzz_ollama_stream(data: &[u8]) {
    crate::stream::fuzz_stream(&super::Ollama, data);
}
