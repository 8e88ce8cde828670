//! `random`: any account, then the others in a random order.

use super::{Choice, Order, Strategy, to_index};

/// The strategy.
pub(super) struct Random;

impl Strategy for Random {
    fn name(&self) -> &'static str {
        "random"
    }

    fn describe(&self) -> &'static str {
        "any account, each as likely as the others"
    }

    fn order(&self, choice: &Choice) -> Order {
        let mut order: Order = (0..choice.candidates).map(to_index).collect();
        let mut state = choice.random;
        for last in (1..order.len()).rev() {
            // SplitMix64: enough to shuffle with, and the same everywhere for the same seed.
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = state;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^= mixed >> 31;
            let place = usize::try_from(mixed % (last as u64 + 1)).unwrap_or(0);
            order.swap(last, place);
        }
        order
    }
}
