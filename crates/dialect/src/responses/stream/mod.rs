//! Streams of typed events: read from upstreams, written for clients.

mod decoder;
mod encoder;
mod event;
mod item;
mod items;
mod order;

pub(super) use decoder::Decoder;
pub(super) use encoder::Encoder;
pub(super) use event::Event;

/// Any bytes as a stream: the events keep to the grammar, and cuts make no difference.
#[doc(hidden)]
pub fn fuzz_responses_stream(data: &[u8]) {
    crate::stream::fuzz_stream(&super::Responses, data);
}

#[cfg(test)]
mod tests;
