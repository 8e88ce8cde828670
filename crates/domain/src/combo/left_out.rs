//! Steps that are not tried for a request, and why.

use std::fmt;
use std::sync::Arc;

use crate::resolve::Target;
use crate::snapshot::IdleAccount;

/// A step that is not tried.
#[derive(Clone)]
pub struct LeftOut {
    /// The step's id.
    pub step: Arc<str>,
    /// What it leads to, as the operator wrote it.
    pub goal: String,
    /// The same as a target; `None` where it leads to a combo, or to none.
    pub target: Option<Arc<Target>>,
    /// The accounts for want of which it leads nowhere, where it would otherwise.
    pub idle: Arc<[IdleAccount]>,
    /// What the request would cost there, in billionths of a US dollar; `None` = unknown.
    pub cost_nano: Option<i64>,
    /// What kept it out.
    pub rule: Rule,
    /// In words.
    pub reason: String,
    /// When it ends, in epoch milliseconds; `None` = nobody knows.
    pub until: Option<i64>,
}

impl fmt::Debug for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { step, goal, rule, reason, until, .. } = self;
        write!(f, "{step} ({goal}): {rule:?}, {reason}, until {until:?}")
    }
}

/// What keeps a step out of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Its condition does not hold.
    Condition,
    /// The model lacks something that the request needs.
    Capability,
    /// It leads nowhere: no such model, no active account, no such combo.
    Inactive,
    /// Combos within combos: too deep, too many entries, or in a circle.
    Nesting,
    /// The request would cost more there than it may.
    Budget,
    /// It failed so often in a row that it is left alone for a while.
    Excluded,
}

impl Rule {
    /// The name in explanations.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Condition => "condition",
            Self::Capability => "capability",
            Self::Inactive => "inactive",
            Self::Nesting => "nesting",
            Self::Budget => "budget",
            Self::Excluded => "excluded",
        }
    }
}
