//! Usage by kind of request, added up in memory until it is written.

use std::collections::BTreeMap;

use omniroute_domain::price::Units;

use super::totals::Total;
use crate::usage::HOUR_MS;

/// More keys than this between two flushes are counted by the hour.
const MAX_KEYS: usize = 1024;

/// The begin of a minute or of a longer bucket, and a kind.
pub(crate) type KindKey = (i64, &'static str);

/// Sums by minute and kind, in the order in which they are written.
#[derive(Debug, Default)]
pub(crate) struct Kinds(BTreeMap<KindKey, KindTotal>);

/// The sums of one kind.
#[derive(Debug, Clone, Default)]
pub(crate) struct KindTotal {
    pub(crate) total: Total,
    pub(crate) units: Units,
}

impl Kinds {
    /// Counts a request.
    pub(crate) fn add(&mut self, (minute, kind): KindKey, one: Total, units: Option<&Units>) {
        let units = units.copied().unwrap_or_default();
        self.merge((minute, kind), KindTotal { total: one, units });
    }

    /// Takes over everything another one counted.
    pub(crate) fn absorb(&mut self, other: Self) {
        for (key, sums) in other.0 {
            self.merge(key, sums);
        }
    }

    /// Forgets what was written.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Everything in buckets of a width, each row of the table once, in one order for all writers.
    pub(crate) fn by_bucket(&self, width: i64) -> BTreeMap<KindKey, KindTotal> {
        let mut buckets: BTreeMap<KindKey, KindTotal> = BTreeMap::new();
        for ((minute, kind), sums) in &self.0 {
            let known = buckets.entry((minute - minute.rem_euclid(width), kind)).or_default();
            known.total.merge(sums.total.clone());
            known.units.add(&sums.units);
        }
        buckets
    }

    fn merge(&mut self, mut key: KindKey, sums: KindTotal) {
        if self.0.len() >= MAX_KEYS && !self.0.contains_key(&key) {
            // A database that cannot be written for hours: the first minute of an hour then stands for all of it.
            key.0 -= key.0.rem_euclid(HOUR_MS);
        }
        let known = self.0.entry(key).or_default();
        known.total.merge(sums.total);
        known.units.add(&sums.units);
    }
}
