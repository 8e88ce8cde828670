//! `fill-first`: always the first, the next one only when it cannot serve.

use super::{Choice, Order, Strategy, as_they_stand};

/// The strategy.
pub(super) struct FillFirst;

impl Strategy for FillFirst {
    fn name(&self) -> &'static str {
        "fill-first"
    }

    fn describe(&self) -> &'static str {
        "the first as long as it can serve, tried again after a passing failure"
    }

    fn is_loyal(&self) -> bool {
        true
    }

    fn order(&self, choice: &Choice<'_>) -> Order {
        as_they_stand(choice)
    }
}
