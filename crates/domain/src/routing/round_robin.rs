//! `round-robin`: every account in turn, each for `stickyRoundRobinLimit` requests.

use super::{Choice, Order, Strategy, rotated};

/// The strategy.
pub(super) struct RoundRobin;

impl Strategy for RoundRobin {
    fn name(&self) -> &'static str {
        "round-robin"
    }

    fn describe(&self) -> &'static str {
        "every account in turn, each for a number of requests"
    }

    fn order(&self, choice: &Choice) -> Order {
        if choice.candidates == 0 {
            return Order::new();
        }
        let round = choice.turn / u64::from(choice.sticky_limit.max(1));
        let first = usize::try_from(round % choice.candidates as u64).unwrap_or(0);
        rotated(choice.candidates, first)
    }
}
