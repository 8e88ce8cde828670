//! Requests: from a client of this dialect, and for an upstream of it.
//!
//! [`decode`] reads everything but the conversation, which is up to [`messages`]; [`encode`] and
//! [`conversation`] write the two.

mod conversation;
mod decode;
mod encode;
mod messages;
mod parts;
mod reasoning;

pub(super) use decode::decode;
pub(super) use encode::{encode, json_answer};
pub(super) use reasoning::write as write_reasoning;
