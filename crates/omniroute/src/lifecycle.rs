//! Stopping and starting again.

use std::sync::atomic::{AtomicU8, Ordering};

use omniroute_admin::Lifecycle;
use tokio_util::sync::CancellationToken;

/// What comes after the orderly stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The process ends.
    Exit,
    /// The process becomes a new one of the same program.
    Restart,
}

/// Tells the accept loop to stop, and remembers why.
#[derive(Debug, Default)]
pub(crate) struct Stopper {
    pub(crate) stop: CancellationToken,
    restart: AtomicU8,
}

impl Stopper {
    pub(crate) fn ending(&self) -> Ending {
        if self.restart.load(Ordering::Acquire) == 1 { Ending::Restart } else { Ending::Exit }
    }
}

impl Lifecycle for Stopper {
    fn restart(&self) {
        self.restart.store(1, Ordering::Release);
        self.stop.cancel();
    }

    fn shutdown(&self) {
        self.stop.cancel();
    }
}
