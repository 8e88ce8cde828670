//! How far a stream has come, for clients that ask to be told.

use std::time::Duration;

/// What a client is told of its running answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Tokens of the answer so far, counted or estimated.
    pub tokens: u64,
    /// How long ago the request arrived.
    pub elapsed: Duration,
    /// Whether the answer is complete; told once, last.
    pub done: bool,
    /// Whether the client insists, although clients of its dialect may not survive it.
    pub forced: bool,
}

impl Progress {
    /// As an event of its own, with members that the dialect's clients need (each ends with a comma).
    pub(crate) fn event(&self, members: &str) -> String {
        let done = if self.done { ",\"done\":true" } else { "" };
        format!(
            "event: progress\ndata: {{{members}\"tokens_generated\":{},\"elapsed_ms\":{}{done}}}\n\n",
            self.tokens,
            self.elapsed.as_millis()
        )
    }
}
