//! `race`: the first ones at once, whoever answers first.

use super::{Choice, Manner, Order, Strategy, as_they_stand};

/// The first ones at once, whoever answers first.
pub(super) struct Race;

impl Strategy for Race {
    fn name(&self) -> &'static str {
        "race"
    }

    fn describe(&self) -> &'static str {
        "The first ones are asked at once; whoever has something first answers, and the others are cancelled."
    }

    fn manner(&self) -> Manner {
        Manner::Race
    }

    fn orders_accounts(&self) -> bool {
        false
    }

    fn order(&self, choice: &Choice<'_>) -> Order {
        as_they_stand(choice)
    }
}
