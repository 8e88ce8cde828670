//! Requests: from a client of this dialect, and for an upstream of it.
//!
//! [`decode`] reads everything but the conversation, which is up to [`messages`]; [`encode`] and [`conversation`]
//! write the two, [`tools`] the tools.

mod conversation;
mod decode;
mod encode;
mod messages;
mod tools;

pub(super) use decode::{decode, decode_completion};
pub(super) use encode::{encode, think_word};

#[cfg(test)]
mod tests;
