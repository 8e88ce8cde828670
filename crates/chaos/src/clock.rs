//! Virtual time: it stands still while anybody works and jumps to the next thing to happen when everybody waits.

use std::time::Instant;

use omniroute_engine::ports::Clock;

/// When every run begins, in epoch milliseconds: a midnight, UTC.
pub(crate) const START_MS: i64 = 1_795_392_000_000 / 86_400_000 * 86_400_000;

/// The paused clock of the runtime.
#[derive(Debug)]
pub(crate) struct VirtualClock {
    began: tokio::time::Instant,
}

impl VirtualClock {
    /// A clock that begins now; the runtime's time has to stand still.
    pub(crate) fn new() -> Self {
        Self { began: tokio::time::Instant::now() }
    }

    /// Milliseconds since the run began.
    pub(crate) fn since_start_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Clock for VirtualClock {
    fn now_ms(&self) -> i64 {
        START_MS.saturating_add(i64::try_from(self.since_start_ms()).unwrap_or(i64::MAX))
    }

    fn instant(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }
}
