//! Accounts that nobody asks, as the configuration stands: what an explanation says of them.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;

use omniroute_provider::ProviderId;

use super::{Map, Snapshot};
use crate::entity::{Connection, ConnectionId};
use crate::resolve::ResolveError;

/// Most accounts that are told of for want of which a name leads nowhere, where they are of several providers.
const MAX_TOLD: usize = 160;

/// An account that is there and is asked by no request, until somebody changes something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdleAccount {
    /// Its id.
    pub id: ConnectionId,
    /// Its name.
    pub name: Arc<str>,
    /// Its provider.
    pub provider: ProviderId,
    /// Why nobody asks it.
    pub why: Idleness,
}

/// Why nobody asks an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Idleness {
    /// Its operator switched it off.
    SwitchedOff,
    /// Its operator blocks the provider.
    Blocked,
    /// It cannot be used as it is set up, for this reason.
    Unusable(Box<str>),
}

impl Idleness {
    /// In words for operators: what is set up wrong is theirs to see.
    pub fn as_str(&self) -> &str {
        match self {
            Self::SwitchedOff => "the account is switched off",
            Self::Blocked => "its provider is one of `blockedProviders`",
            Self::Unusable(why) => why,
        }
    }

    /// In words for anybody.
    pub(crate) const fn brief(&self) -> &'static str {
        match self {
            Self::SwitchedOff => "is switched off",
            Self::Blocked => "is one of a blocked provider",
            Self::Unusable(_) => "cannot be used as it is set up",
        }
    }
}

impl IdleAccount {
    pub(super) fn of(row: &Connection, why: Idleness) -> Self {
        Self { id: row.id.clone(), name: row.name.as_str().into(), provider: row.provider.clone(), why }
    }
}

impl Snapshot {
    /// The account of this id, if nobody asks it.
    pub fn idle_account(&self, id: &ConnectionId) -> Option<&IdleAccount> {
        self.idle.values().flat_map(|accounts| accounts.iter()).find(|account| account.id == *id)
    }

    /// The accounts for want of which a name leads nowhere.
    pub(crate) fn idle_for(&self, error: &ResolveError) -> Arc<[IdleAccount]> {
        if let ResolveError::NoAccount { account } = error {
            return account.iter().map(|account| IdleAccount::clone(account)).collect();
        }
        match error.unserved() {
            Some(([provider], _)) => self.idle_accounts(provider),
            Some((providers, _)) => {
                let known = providers.iter().filter_map(|provider| self.idle.get(provider));
                known.flat_map(|accounts| accounts.iter()).take(MAX_TOLD).cloned().collect()
            }
            None => Arc::default(),
        }
    }

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
