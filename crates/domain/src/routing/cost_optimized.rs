//! `cost-optimized`: the cheapest for this request.

use super::{Choice, Order, Strategy, Wants, sorted_by};

/// The strategy.
pub(super) struct CostOptimized;

impl Strategy for CostOptimized {
    fn name(&self) -> &'static str {
        "cost-optimized"
    }

    fn describe(&self) -> &'static str {
        "the cheapest for this request; what has no price comes last"
    }

    fn wants(&self) -> Wants {
        Wants { cost: true, ..Wants::default() }
    }

    fn order(&self, choice: &Choice<'_>) -> Order {
        sorted_by(choice, |candidate| candidate.cost_nano.unwrap_or(i64::MAX))
    }
}
