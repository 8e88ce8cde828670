//! A sparse log-linear histogram: 32 buckets per power of two, so a quantile is at most 3 % off. Only the buckets that
//! were hit take memory, which is what makes a day of slots per model affordable.

/// Buckets per power of two, as a power of two.
const PRECISION: u32 = 5;
/// Largest value told apart: about 19 hours in milliseconds.
const MAX_VALUE: u64 = (1 << 26) - 1;

/// How values are distributed.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Quantiles {
    /// How many values.
    pub count: u64,
    /// Their mean.
    pub avg: f64,
    /// The median.
    pub p50: u64,
    /// 95 % are at most this.
    pub p95: u64,
    /// 99 % are at most this.
    pub p99: u64,
}

/// Counts by bucket, in order of the bucket.
#[derive(Debug, Clone, Default)]
pub(super) struct Histogram {
    buckets: Vec<(u16, u32)>,
    sum: u64,
}

impl Histogram {
    pub(super) fn record(&mut self, value: u64) {
        let value = value.min(MAX_VALUE);
        self.sum = self.sum.saturating_add(value);
        self.add(bucket_of(value), 1);
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.sum = self.sum.saturating_add(other.sum);
        for &(bucket, count) in &other.buckets {
            self.add(bucket, count);
        }
    }

    /// Forgets the values and keeps the memory.
    pub(super) fn clear(&mut self) {
        self.buckets.clear();
        self.sum = 0;
    }

    pub(super) fn quantiles(&self) -> Quantiles {
        let count: u64 = self.buckets.iter().map(|&(_, count)| u64::from(count)).sum();
        if count == 0 {
            return Quantiles::default();
        }
        #[allow(clippy::cast_precision_loss)]
        let avg = self.sum as f64 / count as f64;
        let at = |hundredths: u64| self.value_at((count * hundredths).div_ceil(100).max(1));
        Quantiles { count, avg, p50: at(50), p95: at(95), p99: at(99) }
    }

    fn value_at(&self, rank: u64) -> u64 {
        let mut seen = 0;
        for &(bucket, count) in &self.buckets {
            seen += u64::from(count);
            if seen >= rank {
                return middle_of(bucket);
            }
        }
        0
    }

    fn add(&mut self, bucket: u16, count: u32) {
        match self.buckets.binary_search_by_key(&bucket, |entry| entry.0) {
            Ok(at) => self.buckets[at].1 = self.buckets[at].1.saturating_add(count),
            Err(at) => self.buckets.insert(at, (bucket, count)),
        }
    }
}

fn bucket_of(value: u64) -> u16 {
    let bits = 64 - value.leading_zeros();
    let shift = bits.saturating_sub(PRECISION + 1);
    // Below 64 the bucket is the value; above, each power of two has 32 buckets.
    u16::try_from(u64::from(shift << PRECISION) + (value >> shift)).unwrap_or(u16::MAX)
}

fn middle_of(bucket: u16) -> u64 {
    let bucket = u64::from(bucket);
    let width = 1 << PRECISION;
    if bucket < 2 * width {
        return bucket;
    }
    let shift = bucket / width - 1;
    let low = (bucket - shift * width) << shift;
    low + ((1 << shift) >> 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_never_more_than_three_percent_wide() {
        for value in (0..2_000).chain((1..26).map(|power| (1 << power) - 1)).chain([MAX_VALUE]) {
            let back = middle_of(bucket_of(value));
            assert!(back.abs_diff(value) * 100 <= value * 3, "{value} became {back}");
        }
    }

    #[test]
    fn buckets_are_in_the_order_of_values() {
        let mut last = 0;
        for value in 0..100_000 {
            let bucket = bucket_of(value);
            assert!(bucket == last || bucket == last + 1, "{value}");
            last = bucket;
        }
    }

    #[test]
    fn quantiles_of_a_known_distribution() {
        let mut histogram = Histogram::default();
        for value in 1..=1_000 {
            histogram.record(value);
        }
        let quantiles = histogram.quantiles();
        assert_eq!(quantiles.count, 1_000);
        assert!((quantiles.avg - 500.5).abs() < f64::EPSILON);
        for (got, want) in [(quantiles.p50, 500), (quantiles.p95, 950), (quantiles.p99, 990)] {
            assert!(u64::abs_diff(got, want) * 100 <= want * 3, "{got} instead of {want}");
        }
    }
}
