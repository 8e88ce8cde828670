//! `random`: any, then the others in a random order.

use super::shuffle::Draw;
use super::{Choice, Order, Strategy};

/// The strategy.
pub(super) struct Random;

impl Strategy for Random {
    fn name(&self) -> &'static str {
        "random"
    }

    fn describe(&self) -> &'static str {
        "any, each as likely as the others"
    }

    fn order(&self, choice: &Choice<'_>) -> Order {
        Draw::new(choice.random).shuffled(choice.candidates.len())
    }
}
