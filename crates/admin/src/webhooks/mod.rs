//! Telling other systems what happens: which events there are, how a message is signed, and the task that delivers them.
//!
//! Nothing of this is on a request's path: whoever notices something leaves a notice ([`omniroute_engine::notices`]) and goes
//! on. What is on its way lives in memory and ends with the process.

mod courier;
mod occurrence;
mod sign;

pub use courier::Courier;
pub(crate) use courier::{Outcome, send};
pub(crate) use occurrence::{Occurrence, TEST};
pub(crate) use sign::new_secret;

/// What a webhook may be told of.
pub(crate) const EVENTS: [&str; 6] =
    ["budget.warning", "budget.exceeded", "breaker.opened", "breaker.closed", "account.out", "account.back"];

/// Stands for all of them, those of later versions too.
pub(crate) const EVERYTHING: &str = "*";
