//! `weighted`: the first by chance, each as likely as its weight; the others by weight.

use super::shuffle::Draw;
use super::{Choice, Order, Strategy, led_by};

/// The strategy.
pub(super) struct Weighted;

impl Strategy for Weighted {
    fn name(&self) -> &'static str {
        "weighted"
    }

    fn describe(&self) -> &'static str {
        "each as often as its weight says; a weight of 0 only when the others fail"
    }

    fn order(&self, choice: &Choice<'_>) -> Order {
        let sum: u64 = choice.candidates.iter().map(|candidate| u64::from(candidate.weight)).sum();
        let count = choice.candidates.len();
        if count == 0 {
            return Order::new();
        }
        let mut draw = Draw::new(choice.random);
        let first = if sum == 0 {
            usize::try_from(draw.below(count as u64)).unwrap_or(0)
        } else {
            let mut left = draw.below(sum);
            choice
                .candidates
                .iter()
                .position(|candidate| {
                    let weight = u64::from(candidate.weight);
                    let is_hit = left < weight;
                    left = left.saturating_sub(weight);
                    is_hit
                })
                .unwrap_or(0)
        };
        let mut order = led_by(choice, first);
        order[1..].sort_by_key(|place| std::cmp::Reverse(choice.candidates[usize::from(*place)].weight));
        order
    }
}
