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

#[cfg(test)]
mod tests;
