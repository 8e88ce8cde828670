//! Requests: from a client of this dialect, and for an upstream of it.
//!
//! [`decode`] reads everything but the conversation and the tools, which are up to [`items`] and [`tools`];
//! [`encode`], [`write_tools`] and [`input`] write the three; [`results`] is what tools answered.

mod decode;
mod encode;
mod input;
mod items;
mod message;
mod results;
mod tools;
mod write_tools;

pub(super) use decode::decode;
pub(super) use encode::{encode, json_answer};
pub(super) use items::opaque_as_text;
pub(super) use tools::namespaces;

#[cfg(test)]
mod tests;
