//! `pipeline`: each works on what the one before it answered.

use super::{Choice, Manner, Order, Strategy, as_they_stand};

/// Each works on what the one before it answered.
pub(super) struct Pipeline;

impl Strategy for Pipeline {
    fn name(&self) -> &'static str {
        "pipeline"
    }

    fn describe(&self) -> &'static str {
        "Each works on what the one before it answered; the last one answers the client."
    }

    fn manner(&self) -> Manner {
        Manner::Pipeline
    }

    fn orders_accounts(&self) -> bool {
        false
    }

    fn order(&self, choice: &Choice<'_>) -> Order {
        as_they_stand(choice)
    }
}
