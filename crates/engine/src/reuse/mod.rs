//! Answers that serve more than the request they were made for.
//!
//! [`idempotency`]: a request that is sent again within moments gets the answer of the first one, also while that is
//! still being written. [`recording`] is such an answer, in the client's own bytes.

pub(crate) mod idempotency;
pub(crate) mod recording;

pub(crate) use idempotency::{Idempotency, Joined, join};
pub(crate) use recording::Shared;
