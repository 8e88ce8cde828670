//! `least-used`: the one with the fewest requests of the last hour.

use super::{Choice, Order, Strategy, Wants, sorted_by};

/// The strategy.
pub(super) struct LeastUsed;

impl Strategy for LeastUsed {
    fn name(&self) -> &'static str {
        "least-used"
    }

    fn describe(&self) -> &'static str {
        "the one with the fewest requests within an hour, running ones included"
    }

    fn wants(&self) -> Wants {
        Wants { uses: true, ..Wants::default() }
    }

    fn order(&self, choice: &Choice<'_>) -> Order {
        sorted_by(choice, |candidate| candidate.uses)
    }
}
