//! `reset-aware`: what is left of a quota is lost when the vendor counts anew, so whoever has most to lose soonest is used first.

use super::{Candidate, Choice, Order, Strategy, Wants, as_they_stand};

/// With less than this left one is saved for when nobody else can serve.
const GUARD: f64 = 0.10;
/// Those within so much of the best are as good as it.
const BAND: f64 = 0.05;

/// The strategy.
pub(super) struct ResetAware;

impl Strategy for ResetAware {
    fn name(&self) -> &'static str {
        "reset-aware"
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["reset-window"]
    }

    fn describe(&self) -> &'static str {
        "who loses most of its quota soonest first; then who says nothing, then who has less than a tenth left"
    }

    fn wants(&self) -> Wants {
        Wants { quota: true, ..Wants::default() }
    }

    fn order(&self, choice: &Choice<'_>) -> Order {
        let mut left = as_they_stand(choice);
        let mut order = Order::new();
        while !left.is_empty() {
            let worth = |place: u16| worth(&choice.candidates[usize::from(place)]);
            let best = left.iter().map(|place| worth(*place)).fold(f64::NEG_INFINITY, f64::max);
            let is_as_good = |place: u16| worth(place) >= best - BAND * best.abs();
            order.extend(left.iter().copied().filter(|place| is_as_good(*place)));
            left.retain(|place| !is_as_good(*place));
        }
        order
    }
}

/// Share of the quota for each millisecond that it is still good for. Below nothing: who says nothing comes before who has
/// little left, of those who has more.
fn worth(candidate: &Candidate) -> f64 {
    match candidate.quota {
        None => -1.0,
        Some(quota) if quota.left < GUARD => -2.0 - (GUARD - quota.left.max(0.0)) / GUARD,
        Some(quota) => quota.loss_per_ms,
    }
}
