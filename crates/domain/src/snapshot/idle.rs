//! Accounts that nobody asks, as the configuration stands: what an explanation says of them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;

use omniroute_provider::ProviderId;

use super::{Map, Snapshot};
use crate::entity::{Connection, ConnectionId};

/// Said of an account that its operator switched off.
pub(super) const SWITCHED_OFF: &str = "the account is switched off";
/// Said of an account whose provider its operator blocks.
pub(super) const BLOCKED: &str = "its provider is one of `blockedProviders`";

/// An account that is there and is asked by no request, until somebody changes something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdleAccount {
    /// Its id.
    pub id: ConnectionId,
    /// Its name.
    pub name: Arc<str>,
    /// Why, in words.
    pub why: Cow<'static, str>,
}

impl IdleAccount {
    pub(super) fn of(row: &Connection, why: impl Into<Cow<'static, str>>) -> Self {
        Self { id: row.id.clone(), name: row.name.as_str().into(), why: why.into() }
    }
}

impl Snapshot {
    /// The accounts of a provider, usable or not, that nobody asks.
    pub fn idle_accounts(&self, provider: &ProviderId) -> Arc<[IdleAccount]> {
        self.idle.get(provider).cloned().unwrap_or_default()
    }
}

/// The same by provider, each list shared from now on.
pub(super) fn shared<S: BuildHasher>(
    idle: HashMap<ProviderId, Vec<IdleAccount>, S>,
) -> Map<ProviderId, Arc<[IdleAccount]>> {
    idle.into_iter().map(|(provider, accounts)| (provider, accounts.into())).collect()
}
