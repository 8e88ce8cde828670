//! What to make of times that are still to come: the clock was set back since.

/// So far may the clock of another process be ahead.
const AHEAD_MS: i64 = 10_000;

/// Whether something that was noted at `at` is of a time that is still to come, and not of a process whose clock is a little
/// ahead. What was to last for a while from then on would last longer than it was to. Both in epoch milliseconds.
pub(crate) fn is_from_later(at: i64, now_ms: i64) -> bool {
    at > now_ms.saturating_add(AHEAD_MS)
}
