//! `lkgp`: the one that answered last, as long as it does.

use super::{Choice, Order, Strategy, Wants, as_they_stand, led_by};

/// The strategy.
pub(super) struct LastGood;

impl Strategy for LastGood {
    fn name(&self) -> &'static str {
        "lkgp"
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["last-known-good"]
    }

    fn describe(&self) -> &'static str {
        "the one that answered last; then the others as they stand"
    }

    fn wants(&self) -> Wants {
        Wants { last_good: true, ..Wants::default() }
    }

    fn orders_accounts(&self) -> bool {
        false
    }

    fn order(&self, choice: &Choice<'_>) -> Order {
        match choice.candidates.iter().position(|candidate| candidate.is_last_good) {
            Some(first) => led_by(choice, first),
            None => as_they_stand(choice),
        }
    }
}
