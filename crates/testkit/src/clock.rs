//! Time that moves when the test says so.

use std::{
    sync::atomic::{AtomicI64, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use omniroute_engine::ports::Clock;

/// 2025-01-01T00:00:00Z, where clocks start unless told otherwise.
pub const START_MS: i64 = 1_735_689_600_000;

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub struct TestClock {
    base: Instant,
    now_ms: AtomicI64,
    /// How far the monotonic side has come; it never goes back.
    elapsed_ns: AtomicU64,
}

impl TestClock {
    /// A clock that shows this time.
    pub fn new(now_ms: i64) -> Self {
        // Only differences to this instant are ever seen.
        #[expect(clippy::disallowed_methods, reason = "an instant cannot be made any other way")]
        let base = Instant::now();
        Self { base, now_ms: AtomicI64::new(now_ms), elapsed_ns: AtomicU64::new(0) }
    }

    /// Lets time pass, on both sides.
    pub fn advance(&self, by: Duration) {
        let ms = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        let ns = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.now_ms.fetch_add(ms, Ordering::SeqCst);
        self.elapsed_ns.fetch_add(ns, Ordering::SeqCst);
    }

    /// Sets the wall clock alone, also backwards, as an administrator might.
    pub fn set(&self, now_ms: i64) {
        self.now_ms.store(now_ms, Ordering::SeqCst);
    }
}

impl Default for TestClock {
    fn default() -> Self {
        Self::new(START_MS)
    }
}

impl Clock for TestClock {
    fn now_ms(&self) -> i64 {
        self.now_ms.load(Ordering::SeqCst)
    }

    fn instant(&self) -> Instant {
        self.base + Duration::from_nanos(self.elapsed_ns.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_move_together_and_the_wall_alone() {
        let clock = TestClock::default();
        let start = clock.instant();
        clock.advance(Duration::from_millis(1500));
        assert_eq!(clock.now_ms(), START_MS + 1500);
        assert_eq!(clock.instant() - start, Duration::from_millis(1500));
        clock.set(7);
        assert_eq!((clock.now_ms(), clock.instant() - start), (7, Duration::from_millis(1500)));
    }
}
