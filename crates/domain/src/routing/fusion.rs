//! `fusion`: the first ones all answer, and a judge writes the reply.

use super::{Choice, Manner, Order, Strategy, as_they_stand};

/// The first ones all answer, and a judge writes the reply.
pub(super) struct Fusion;

impl Strategy for Fusion {
    fn name(&self) -> &'static str {
        "fusion"
    }

    fn describe(&self) -> &'static str {
        "The first ones all answer; a judge reads their answers and writes the reply."
    }

    fn manner(&self) -> Manner {
        Manner::Fusion
    }

    fn orders_accounts(&self) -> bool {
        false
    }

    fn order(&self, choice: &Choice<'_>) -> Order {
        as_they_stand(choice)
    }
}
