//! `priority`: as they stand; the next one when the one before failed.

use super::{Choice, Order, Strategy, as_they_stand};

/// The strategy.
pub(super) struct Priority;

impl Strategy for Priority {
    fn name(&self) -> &'static str {
        "priority"
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["fallback"]
    }

    fn describe(&self) -> &'static str {
        "in the order in which they stand, the next one when one fails"
    }

    fn order(&self, choice: &Choice<'_>) -> Order {
        as_they_stand(choice)
    }
}
