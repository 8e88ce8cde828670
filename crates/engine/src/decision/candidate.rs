//! One of a decision's candidates, as it is read.

use std::sync::Arc;

use omniroute_domain::combo::Planned;
use omniroute_domain::resolve::Target;
use omniroute_domain::routing::Score;
use omniroute_domain::snapshot::{ConnectionState, IdleAccount, ProviderState};

use crate::preview::{self, Skip};

/// An account for a target, or a target whose turn never came, or a step that led to none; as a [`Decision`](super::Decision) has it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct RecordedCandidate<'a> {
    /// Whose names it has; `None` where the step led to none.
    pub whose: Option<Whose<'a>>,
    /// Provider id; `None` where the step led to none.
    pub provider: Option<&'a str>,
    /// The model as the provider knows it, or what the step says.
    pub model: &'a str,
    /// The account's id and its name.
    pub connection: Option<(&'a str, &'a str)>,
    /// Dialect in which it was to be asked.
    pub dialect: Option<&'static str>,
    /// Why it was not to be asked.
    pub skip: Option<Skip<&'a str>>,
    /// What the request was to cost there, in billionths of a US dollar; `None` = unknown.
    pub cost_nano: Option<i64>,
    /// What spoke for it, where `auto` chose.
    pub score: Option<&'a Score>,
    /// When its target was to be asked, counted from 1: targets with the same number start together.
    pub wave: Option<usize>,
}

/// The account of a candidate, or its provider where there is none. As long as one is kept, what is found at the same place is
/// the same.
#[derive(Clone, Copy)]
pub enum Whose<'a> {
    /// An account.
    Account(&'a Arc<ConnectionState>),
    /// A provider.
    Provider(&'a Arc<ProviderState>),
}

impl Whose<'_> {
    /// Where it is kept.
    pub fn place(&self) -> usize {
        match self {
            Self::Account(account) => Arc::as_ptr(account).addr(),
            Self::Provider(provider) => Arc::as_ptr(provider).addr(),
        }
    }
}

impl PartialEq for Whose<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.place() == other.place()
    }
}

impl std::fmt::Debug for Whose<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Account(account) => f.debug_tuple("Account").field(&account.id).finish(),
            Self::Provider(provider) => f.debug_tuple("Provider").field(&provider.id).finish(),
        }
    }
}

impl<'a> RecordedCandidate<'a> {
    /// Without an account.
    pub(super) fn of(planned: &'a Planned, skip: Option<Skip<&'a str>>) -> Self {
        Self {
            skip,
            cost_nano: planned.cost_nano,
            score: planned.score.as_deref(),
            ..Self::at(&planned.target)
        }
    }

    /// A target, without an account.
    pub(super) fn at(target: &'a Target) -> Self {
        Self {
            whose: Some(Whose::Provider(&target.provider)),
            provider: Some(target.provider.id.as_str()),
            model: &target.model,
            ..Self::default()
        }
    }

    /// An account that nobody asks.
    pub(super) fn idle(model: &'a str, account: &'a IdleAccount) -> Self {
        Self {
            provider: Some(account.provider.as_str()),
            model,
            connection: Some((account.id.as_str(), &account.name)),
            skip: Some(Skip { rule: preview::IDLE, reason: account.why.as_str(), until: None }),
            ..Self::default()
        }
    }
}
