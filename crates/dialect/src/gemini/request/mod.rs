//! Requests: from a client of this dialect, and for an upstream of it.

mod answers;
mod contents;
mod conversation;
mod decode;
mod encode;
mod media;
mod native;
mod reasoning;
mod tools;

pub(crate) use contents::is_told_of_each;
pub(super) use decode::{decode, decode_count};
pub(super) use encode::{encode, thinking_config};

#[cfg(test)]
mod tests;
