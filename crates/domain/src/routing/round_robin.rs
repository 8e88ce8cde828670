//! `round-robin`: each in turn, for a number of requests.

use super::{Choice, Order, Strategy, rotated};

/// The strategy.
pub(super) struct RoundRobin;

impl Strategy for RoundRobin {
    fn name(&self) -> &'static str {
        "round-robin"
    }

    fn describe(&self) -> &'static str {
        "each in turn, for a number of requests"
    }

    fn order(&self, choice: &Choice<'_>) -> Order {
        if choice.candidates.is_empty() {
            return Order::new();
        }
        let round = choice.turn / u64::from(choice.sticky.max(1));
        let first = usize::try_from(round % choice.candidates.len() as u64).unwrap_or(0);
        rotated(choice, first)
    }
}
