//! The real clock. The only place that reads one.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::ports::Clock;

/// The system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

#[allow(clippy::disallowed_methods, reason = "this is the clock everybody else takes the time from")]
impl Clock for SystemClock {
    fn now_ms(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }

    fn instant(&self) -> Instant {
        Instant::now()
    }
}

/// A duration as whole milliseconds, for rows.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// A duration for people: `300 s`, `1.5 s`, `0.7 s`, `40 ms`.
pub(crate) fn seconds(duration: Duration) -> String {
    let tenths = duration.as_millis().saturating_add(50) / 100;
    match tenths {
        0 => format!("{} ms", duration.as_millis()),
        tenths if tenths >= 100 || tenths % 10 == 0 => format!("{} s", (tenths + 5) / 10),
        tenths => format!("{}.{} s", tenths / 10, tenths % 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_told_of_no_more_digits_than_they_read() {
        for (micros, told) in [
            (699_964, "0.7 s"),
            (0, "0 ms"),
            (40_400, "40 ms"),
            (50_000, "0.1 s"),
            (999_000, "1 s"),
            (1_000_000, "1 s"),
            (1_449_000, "1.4 s"),
            (9_949_000, "9.9 s"),
            (9_960_000, "10 s"),
            (29_500_000, "30 s"),
            (300_000_000, "300 s"),
        ] {
            assert_eq!(seconds(Duration::from_micros(micros)), told, "{micros}");
        }
    }
}
