//! A token bucket for requests per minute, as one number: the time up to which its tokens are spoken for.

/// A minute in microseconds, so that many requests a minute need no fractions.
const MINUTE_US: i64 = 60_000_000;
/// So far may what two threads take for the time be apart.
const APART_US: i64 = 100_000;

/// The bucket.
#[derive(Debug, Clone, Default)]
pub(super) struct Bucket {
    /// In microseconds since the epoch.
    spoken_for: i64,
}

impl Bucket {
    /// When the next request may start, in milliseconds; `None` = at once.
    pub(super) fn next(&self, per_minute: u32, now_ms: i64) -> Option<i64> {
        let (burst, interval) = shape(per_minute)?;
        if self.is_from_later(burst, interval, now_ms) {
            return None;
        }
        let next_us = self.spoken_for - (burst - 1) * interval;
        // Rounded up, so that nobody comes too early.
        let next_ms = next_us.div_euclid(1_000) + i64::from(next_us.rem_euclid(1_000) > 0);
        (next_ms > now_ms).then_some(next_ms)
    }

    /// What is left of it, between 0 and 1; `None` where nothing is limited.
    pub(super) fn left(&self, per_minute: u32, now_ms: i64) -> Option<f64> {
        let (burst, interval) = shape(per_minute)?;
        let is_from_later = self.is_from_later(burst, interval, now_ms);
        let taken = if is_from_later { 0 } else { self.spoken_for - now_ms.saturating_mul(1_000) }.max(0);
        #[allow(clippy::cast_precision_loss, reason = "a share")]
        let taken = taken as f64 / (burst * interval) as f64;
        Some((1.0 - taken).max(0.0))
    }

    /// A request starts.
    pub(super) fn take(&mut self, per_minute: u32, now_ms: i64) {
        let Some((burst, interval)) = shape(per_minute) else { return };
        let now_us = now_ms.saturating_mul(1_000);
        self.spoken_for = match self.is_from_later(burst, interval, now_ms) {
            // Nobody knows how many went in the last minute, so all that may come at once is taken to have come.
            true => now_us.saturating_add(burst * interval),
            false => self.spoken_for.max(now_us).saturating_add(interval),
        };
    }

    /// Whether more is spoken for than the bucket holds: the clock was set back, or more is allowed than when it was. A token more may
    /// be, or a little time: threads look at the clock one after the other.
    fn is_from_later(&self, burst: i64, interval: i64, now_ms: i64) -> bool {
        let most = burst * interval + interval.max(APART_US);
        self.spoken_for > now_ms.saturating_mul(1_000).saturating_add(most)
    }
}

/// How many may come at once, and how long a token takes to come back. A tenth may come at once, and the rest comes
/// back so slowly that no minute, wherever it begins, has more than what is allowed.
fn shape(per_minute: u32) -> Option<(i64, i64)> {
    let allowed = i64::from(per_minute);
    let burst = (allowed / 10).max(1);
    let steady = allowed - burst + 1;
    (allowed > 0).then(|| (burst, (MINUTE_US + steady - 1) / steady))
}
