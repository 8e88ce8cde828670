//! Answers that serve more than the request they were made for.
//!
//! [`idempotency`]: a request that is sent again within moments gets the answer of the first one, also while that is
//! still being written. [`recording`] is such an answer, in the client's own bytes.
//!
//! [`cache`]: a request that asks for the same, by whomever of the same key and in whatever dialect, gets the answer that
//! was given before. [`tier`] is its memory, [`wish`] what clients say of it, [`kept_answer`] how an answer gets in,
//! [`replay`] how it gets out. [`similar`]: the same for a question that is only close to one that was answered before.

pub(crate) mod cache;
pub(crate) mod idempotency;
pub(crate) mod kept_answer;
pub(crate) mod recording;
pub(crate) mod replay;
pub(crate) mod similar;
mod tier;
mod wish;

pub use cache::CacheCounts;
pub(crate) use cache::{AnswerCache, Found, HEADER, Reuse, is_repeatable, look_up};
pub(crate) use idempotency::{Idempotency, Joined, join};
pub(crate) use kept_answer::{Keeping, keep_told, keep_whole};
pub(crate) use recording::Shared;
pub use similar::{Pair, PairOutcome, SimilarityReport};
pub(crate) use similar::{restore, tell};
