//! `context-optimized`: the one with the most room for the conversation.

use std::cmp::Reverse;

use super::{Choice, Order, Strategy, Wants, sorted_by};

/// The strategy.
pub(super) struct ContextOptimized;

impl Strategy for ContextOptimized {
    fn name(&self) -> &'static str {
        "context-optimized"
    }

    fn describe(&self) -> &'static str {
        "the largest context window first; an unknown one last"
    }

    fn wants(&self) -> Wants {
        Wants { context: true, ..Wants::default() }
    }

    fn orders_accounts(&self) -> bool {
        false
    }

    fn order(&self, choice: &Choice<'_>) -> Order {
        sorted_by(choice, |candidate| Reverse(candidate.context_window.unwrap_or(0)))
    }
}
