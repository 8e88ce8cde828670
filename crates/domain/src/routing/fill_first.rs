//! `fill-first`: always the account of highest priority, the next one only when it cannot serve.

use super::{Choice, Order, Strategy, rotated};

/// The strategy.
pub(super) struct FillFirst;

impl Strategy for FillFirst {
    fn name(&self) -> &'static str {
        "fill-first"
    }

    fn describe(&self) -> &'static str {
        "the account of highest priority as long as it can serve"
    }

    fn order(&self, choice: &Choice) -> Order {
        if choice.candidates == 0 { Order::new() } else { rotated(choice.candidates, 0) }
    }
}
