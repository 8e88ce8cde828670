//! `headroom`: whoever has the largest share of its quota left.

use super::{Choice, Order, Strategy, Wants, sorted_by};

/// The strategy.
pub(super) struct Headroom;

impl Strategy for Headroom {
    fn name(&self) -> &'static str {
        "headroom"
    }

    fn describe(&self) -> &'static str {
        "the largest share of its quota left first; who says nothing of it may have all"
    }

    fn wants(&self) -> Wants {
        Wants { quota: true, ..Wants::default() }
    }

    fn order(&self, choice: &Choice<'_>) -> Order {
        sorted_by(choice, |candidate| -candidate.quota.map_or(1.0, |quota| quota.left))
    }
}
