//! `round-robin`: each in turn, for a number of requests.
//!
//! Steps of a combo go round by the number of the request. Accounts come and go with their cooldowns, so that numbers would
//! not be fair to them: of these the one whose turn is longest ago is next.

use super::{Choice, Order, Strategy, Wants, rotated, sorted_by};

/// The strategy.
pub(super) struct RoundRobin;

impl Strategy for RoundRobin {
    fn name(&self) -> &'static str {
        "round-robin"
    }

    fn describe(&self) -> &'static str {
        "each in turn, for a number of requests"
    }

    fn wants(&self) -> Wants {
        Wants { turns: true, ..Wants::default() }
    }

    fn queues(&self) -> bool {
        true
    }

    fn remembers(&self) -> bool {
        true
    }

    fn order(&self, choice: &Choice<'_>) -> Order {
        if choice.candidates.is_empty() {
            return Order::new();
        }
        if choice.leader.is_some() || choice.candidates.iter().any(|candidate| candidate.last_turn > 0) {
            let mut order = sorted_by(choice, |candidate| candidate.last_turn);
            if let Some((leader, in_row)) = choice.leader
                && in_row < choice.sticky.max(1)
                && let Some(place) = order.iter().position(|place| *place == leader)
            {
                order.remove(place);
                order.insert(0, leader);
            }
            return order;
        }
        let round = choice.turn / u64::from(choice.sticky.max(1));
        let first = usize::try_from(round % choice.candidates.len() as u64).unwrap_or(0);
        rotated(choice, first)
    }
}
