//! Chance that can be had again: the same seed, the same numbers.

use crate::scenario::Latency;

/// A stream of numbers.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// The stream of this name under a seed; streams of different names have nothing to do with each other.
    pub(crate) fn new(seed: u64, name: u64) -> Self {
        let mut random = Self(seed ^ name.wrapping_mul(0xd1b5_4a32_d192_ed03));
        random.next();
        random
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// In 0.0..1.0.
    #[allow(clippy::cast_precision_loss, reason = "53 bits fit")]
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Whether something happens that happens to this share.
    pub(crate) fn hits(&mut self, share: f64) -> bool {
        self.unit() < share
    }

    /// In `low..=high`.
    pub(crate) fn between(&mut self, [low, high]: [u64; 2]) -> u64 {
        low + self.next() % (high.saturating_sub(low) + 1)
    }

    /// A duration in milliseconds: logarithms of durations are spread normally, as those of upstreams roughly are.
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "milliseconds of some minutes"
    )]
    pub(crate) fn latency(&mut self, spread: Latency, factor: f64) -> u64 {
        // A hundredth of a normal distribution lies beyond 2.326 standard deviations.
        let sigma = (spread.p99.max(1) as f64 / spread.p50.max(1) as f64).ln() / 2.326;
        // The sum of twelve is close to normal, and never more than six deviations off.
        let normal = (0..12).map(|_| self.unit()).sum::<f64>() - 6.0;
        (spread.p50.max(1) as f64 * (sigma * normal).exp() * factor).round().max(1.0) as u64
    }

    /// The pause before the next of `per_second` arrivals that know nothing of each other, in milliseconds.
    pub(crate) fn pause_ms(&mut self, per_second: f64) -> f64 {
        -(1.0 - self.unit()).ln() * 1_000.0 / per_second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_have_the_percentiles_that_were_asked_for() {
        let mut random = Random::new(7, 1);
        let mut drawn: Vec<u64> =
            (0..100_000).map(|_| random.latency(Latency { p50: 400, p99: 2_000 }, 1.0)).collect();
        drawn.sort_unstable();
        assert!((390..=410).contains(&drawn[50_000]), "{}", drawn[50_000]);
        assert!((1_850..=2_150).contains(&drawn[99_000]), "{}", drawn[99_000]);
    }

    #[test]
    fn arrivals_come_at_their_rate_and_streams_differ() {
        let mut random = Random::new(7, 2);
        let total: f64 = (0..100_000).map(|_| random.pause_ms(50.0)).sum();
        assert!((1_980_000.0..2_020_000.0).contains(&total), "{total}");
        let mut other = Random::new(7, 3);
        assert_ne!(random.next(), other.next());
        assert!((0..1_000).all(|_| (5..=9).contains(&random.between([5, 9]))));
    }
}
