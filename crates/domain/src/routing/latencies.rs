//! The latest latencies of a candidate: enough of them for a percentile, and no more. Written and read without a lock.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// How many are remembered.
const KEPT: usize = 64;
/// What stands for a latency that was never measured.
const NONE: u32 = u32::MAX;

/// A ring of the latest latencies, in milliseconds.
pub(super) struct Latencies {
    ring: [AtomicU32; KEPT],
    next: AtomicU32,
    /// The spread when so many had been noted; found out again when somebody asks after more were. Two that ask at once may
    /// mix old and new, which differ by one latency.
    known: [AtomicU64; 2],
    known_at: AtomicU32,
}

/// How latencies are spread.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// 95 of 100 were not longer, in milliseconds.
    pub p95_ms: f64,
    /// Standard deviation, in milliseconds.
    pub deviation_ms: f64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self {
            ring: [const { AtomicU32::new(NONE) }; KEPT],
            next: AtomicU32::new(0),
            known: [const { AtomicU64::new(0) }; 2],
            known_at: AtomicU32::new(0),
        }
    }
}

impl std::fmt::Debug for Latencies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Latencies").field(&self.spread()).finish()
    }
}

impl Latencies {
    /// A copy that goes its own way.
    pub(super) fn apart(&self) -> Self {
        let small = |it: &AtomicU32| AtomicU32::new(it.load(Ordering::Relaxed));
        Self {
            ring: self.ring.each_ref().map(small),
            next: small(&self.next),
            known: self.known.each_ref().map(|bits| AtomicU64::new(bits.load(Ordering::Relaxed))),
            known_at: small(&self.known_at),
        }
    }

    pub(super) fn note(&self, latency_ms: u64) {
        let place = self.next.fetch_add(1, Ordering::Relaxed) as usize % KEPT;
        let latency = u32::try_from(latency_ms).unwrap_or(NONE - 1).min(NONE - 1);
        self.ring[place].store(latency, Ordering::Relaxed);
    }

    pub(super) fn clear(&self) {
        for slot in &self.ring {
            slot.store(NONE, Ordering::Relaxed);
        }
        self.next.store(0, Ordering::Relaxed);
        self.known_at.store(0, Ordering::Relaxed);
    }

    pub(super) fn spread(&self) -> Option<Spread> {
        let noted = self.next.load(Ordering::Relaxed);
        if noted == 0 {
            return None;
        }
        let [p95, deviation] = &self.known;
        if self.known_at.load(Ordering::Relaxed) == noted {
            let read = |bits: &AtomicU64| f64::from_bits(bits.load(Ordering::Relaxed));
            return Some(Spread { p95_ms: read(p95), deviation_ms: read(deviation) });
        }
        let spread = self.measured()?;
        p95.store(spread.p95_ms.to_bits(), Ordering::Relaxed);
        deviation.store(spread.deviation_ms.to_bits(), Ordering::Relaxed);
        self.known_at.store(noted, Ordering::Relaxed);
        Some(spread)
    }

    fn measured(&self) -> Option<Spread> {
        let mut known = [0; KEPT];
        let mut count = 0;
        for slot in &self.ring {
            let latency = slot.load(Ordering::Relaxed);
            if latency != NONE {
                known[count] = latency;
                count += 1;
            }
        }
        let known = known.get_mut(..count).filter(|known| !known.is_empty())?;
        // The smallest that at least 95 of 100 are not above.
        let place = (known.len() * 95).div_ceil(100) - 1;
        let (_, p95, _) = known.select_nth_unstable(place);
        let p95_ms = f64::from(*p95);
        #[allow(clippy::cast_precision_loss, reason = "at most 64")]
        let count = known.len() as f64;
        let mean = known.iter().map(|latency| f64::from(*latency)).sum::<f64>() / count;
        let variance = known.iter().map(|latency| (f64::from(*latency) - mean).powi(2)).sum::<f64>() / count;
        Some(Spread { p95_ms, deviation_ms: variance.sqrt() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_is_that_of_the_latest() {
        let latencies = Latencies::default();
        assert_eq!(latencies.spread(), None);
        latencies.note(40);
        assert_eq!(latencies.spread(), Some(Spread { p95_ms: 40.0, deviation_ms: 0.0 }));
        for latency in 1..=1_000 {
            latencies.note(latency);
        }
        // The last 64 are 937 to 1,000: 61 of them are 95 of 100.
        let spread = latencies.spread().unwrap();
        assert!((spread.p95_ms - 997.0).abs() < f64::EPSILON, "{spread:?}");
        // Of n numbers in a row: the root of (n² - 1) / 12.
        assert!((spread.deviation_ms - (4_095.0_f64 / 12.0).sqrt()).abs() < 1e-9, "{spread:?}");
        latencies.note(u64::MAX);
        assert!(latencies.spread().unwrap().p95_ms < 1_001.0, "one outlier is not the percentile");
        latencies.clear();
        assert_eq!(latencies.spread(), None);
    }
}
