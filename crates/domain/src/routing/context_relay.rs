//! `context-relay`: as they stand. What is special comes behind the order: when a conversation changes its account, the next
//! one is told what was said before (see [`crate::handoff`]).

use super::{Choice, Order, Strategy, as_they_stand};

/// The strategy.
pub(super) struct ContextRelay;

impl Strategy for ContextRelay {
    fn name(&self) -> &'static str {
        "context-relay"
    }

    fn describe(&self) -> &'static str {
        "In the order in which they stand; a conversation that changes its account takes a summary with it."
    }

    fn relays(&self) -> bool {
        true
    }

    fn orders_accounts(&self) -> bool {
        false
    }

    fn order(&self, choice: &Choice<'_>) -> Order {
        as_they_stand(choice)
    }
}
