//! Chance from a seed: the same seed gives the same draw everywhere.

use super::{Order, to_index};

/// SplitMix64: enough to choose with, never for secrets.
pub struct Draw(u64);

impl Draw {
    /// From a seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `limit`, which must not be 0.
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        // The high half of the product: no division, and a bias of less than one in 2^32 for the limits met here.
        let product = u128::from(self.next()) * u128::from(limit);
        u64::try_from(product >> 64).unwrap_or(0)
    }

    /// At least 0 and below 1.
    #[allow(clippy::cast_precision_loss, reason = "53 bits are what an `f64` holds")]
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// `0..count` in a random order.
    pub(super) fn shuffled(&mut self, count: usize) -> Order {
        let mut order: Order = (0..count).map(to_index).collect();
        for last in (1..order.len()).rev() {
            let place = usize::try_from(self.below(last as u64 + 1)).unwrap_or(0);
            order.swap(last, place);
        }
        order
    }
}
