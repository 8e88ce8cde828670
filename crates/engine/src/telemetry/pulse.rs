//! What a running request and those who watch it tell each other: how far its answer has come, and that it is to end.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Waker;

use futures_util::task::AtomicWaker;

/// Of one running request. Used again for a later one, like its place in the list of running requests.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    is_cancelled: AtomicBool,
    /// Output so far, where the answer is a stream.
    tokens: AtomicU64,
    /// Who serves the request.
    served_by: AtomicWaker,
}

impl Pulse {
    /// Whether the request is to end.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::Acquire)
    }

    /// The same, for who is about to wait and wants to be woken for it.
    pub(crate) fn is_cancelled_or_wake(&self, waker: &Waker) -> bool {
        self.served_by.register(waker);
        self.is_cancelled()
    }

    /// Notes how many tokens the client has got.
    pub(crate) fn note_tokens(&self, tokens: u64) {
        self.tokens.store(tokens, Ordering::Relaxed);
    }

    pub(super) fn tokens(&self) -> u64 {
        self.tokens.load(Ordering::Relaxed)
    }

    pub(super) fn cancel(&self) {
        self.is_cancelled.store(true, Ordering::Release);
        self.served_by.wake();
    }

    /// For the next request. Nobody may be cancelling at the same time: the list's lock is held.
    pub(super) fn reset(&self) {
        self.is_cancelled.store(false, Ordering::Release);
        self.tokens.store(0, Ordering::Relaxed);
    }

    /// The request has ended.
    pub(super) fn rest(&self) {
        drop(self.served_by.take());
    }
}
