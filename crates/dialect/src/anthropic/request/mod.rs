//! Requests: from a client of this dialect, and for an upstream of it.

mod conversation;
mod decode;
mod encode;
mod marks;
mod media;
mod native;
mod reasoning;
mod schema;
mod tools;
mod write;

pub(super) use decode::{decode, opaque_as_text};
pub(super) use encode::{Thinking, encode, json_answer};
pub(super) use reasoning::{adaptive_word, budget_within, off, wanted_budget};

#[cfg(test)]
mod tests;
