//! Several keys in one account. Each has its own locks, cooldowns and learned limits; the account's priority, its places and
//! its counts are common to all.

use std::sync::Arc;

use omniroute_provider::{Provider, ProviderId};

use super::build::Builder;
use super::{ConnectionState, Snapshot, reach_of};
use crate::entity::{Connection, ConnectionId, ConnectionStatus};
use crate::health::{Blocked, ConnectionHealth, ModelLock};

/// A lock of a model that holds elsewhere from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MovedLock {
    /// Whose provider.
    pub provider: ProviderId,
    /// The account, or the key of one, that it held for.
    pub from: ConnectionId,
    /// That which it holds for now; `None` = it ended with the key.
    pub to: Option<ConnectionId>,
    /// What is locked.
    pub lock: ModelLock,
}

/// What holds elsewhere from now on, or no more, because keys of accounts changed.
#[derive(Debug, Default)]
pub struct Moved {
    /// The locks of models.
    pub locks: Vec<MovedLock>,
    /// What is known from now on of accounts and keys of which something was known.
    pub statuses: Vec<(ConnectionId, ConnectionStatus)>,
}

impl Builder<'_> {
    /// The account with its keys, if it has several. One that makes no endpoint is told and left out.
    pub(super) fn pooled(
        &mut self,
        provider: &dyn Provider,
        row: &Connection,
        state: ConnectionState,
    ) -> ConnectionState {
        let (keys, nothing) = (row.pool_keys(), ConnectionStatus::default());
        let mut pool = Vec::with_capacity(keys.len());
        for key in keys {
            let remembered = row.key_statuses.get(&key.state_id).unwrap_or(&nothing);
            let row = Connection { api_key: Some(key.secret.clone()), ..row.clone() };
            match reach_of(provider, &row) {
                Ok((endpoints, services)) => pool.push(Arc::new(ConnectionState {
                    endpoints,
                    services: services.into(),
                    health: self.health.of(&key.state_id, remembered),
                    part_of: Some(state.health.clone()),
                    state_id: key.state_id.clone(),
                    key: Some(key),
                    pool: Vec::new(),
                    ..state.clone()
                })),
                Err(error) => self.problem("connection", row.id.as_str(), error.to_string()),
            }
        }
        ConnectionState { pool, ..state }
    }
}

impl Snapshot {
    /// What is known of accounts follows their keys from the configuration before into this one: that of an account which has
    /// further keys now is its first key's, and the other way round; that of a key which another one took the place of is over.
    /// Gives what this concerns.
    pub fn follow_keys(&self, before: &Self) -> Moved {
        let mut moved = Moved::default();
        for account in self.connections.values() {
            let Some(old) = before.connections.get(&account.id) else { continue };
            if old.first_key != account.first_key {
                for state in old.pool.iter().chain([old]) {
                    let Some(locks) = state.health.start_anew() else { continue };
                    moved.locks.extend(moved_locks(state, None, locks));
                    moved.statuses.push(state.known());
                }
            } else if old.pool.is_empty() != account.pool.is_empty() {
                let (from, to) = (old.of_first_key(), account.of_first_key());
                if !Arc::ptr_eq(&from.health, &to.health)
                    && let Some(locks) = to.health.take_over(&from.health)
                {
                    moved.locks.extend(moved_locks(from, Some(to), locks));
                    moved.statuses.extend([from.known(), to.known()]);
                }
            }
        }
        moved
    }

    /// That which bears in this configuration what is known of the key that a call was made with in another one: an account, or
    /// one of its keys. `None` where the key is gone, or the account.
    pub fn bearer(&self, called: &ConnectionState) -> Option<&Arc<ConnectionState>> {
        let account = self.connections.get(&called.id)?;
        let key = called.key.as_ref().map(|key| &key.state_id).or(called.first_key.as_ref());
        match account.pool.is_empty() {
            true => Some(account).filter(|account| account.first_key.as_ref() == key),
            false => account.pool.iter().find(|state| Some(&state.state_id) == key),
        }
    }
}

fn moved_locks(
    from: &ConnectionState,
    to: Option<&ConnectionState>,
    locks: Vec<ModelLock>,
) -> impl Iterator<Item = MovedLock> {
    let (provider, from, to) =
        (from.provider.clone(), from.state_id.clone(), to.map(|to| to.state_id.clone()));
    locks.into_iter().map(move |lock| MovedLock {
        provider: provider.clone(),
        from: from.clone(),
        to: to.clone(),
        lock,
    })
}

impl ConnectionState {
    /// What is stored of it, whatever has ended meanwhile.
    fn known(&self) -> (ConnectionId, ConnectionStatus) {
        (self.state_id.clone(), self.health.status(i64::MIN))
    }

    /// That which bears what is known of the first key: the key itself where there are several.
    fn of_first_key(self: &Arc<Self>) -> &Arc<Self> {
        self.pool.iter().find(|key| Some(&key.state_id) == self.first_key.as_ref()).unwrap_or(self)
    }

    /// Whether neither cooldown nor lock keeps the account from serving `model` now: with any of its keys.
    pub(super) fn check_keys(&self, model: &str, now_ms: i64) -> Result<(), Blocked> {
        self.health.check(model, now_ms)?;
        let mut blocks = Vec::new();
        for key in &self.pool {
            let Err(blocked) = key.health.check(model, now_ms) else { return Ok(()) };
            blocks.push(blocked);
        }
        // Told is the one that ends first; those without an end come last.
        blocks.into_iter().min_by_key(|blocked| blocked.until.unwrap_or(i64::MAX)).map_or(Ok(()), Err)
    }

    /// The keys that may serve `model` now, the one whose turn it is first, those with little left last. An account with one key is its own.
    pub fn keys(self: &Arc<Self>, model: &str, now_ms: i64) -> Vec<Arc<Self>> {
        if self.pool.is_empty() {
            return vec![self.clone()];
        }
        let count = self.pool.len();
        let turn = usize::try_from(self.health.take_key_turn() % count as u64).unwrap_or(0);
        let in_turn = (0..count).filter_map(|offset| self.pool.get((turn + offset) % count));
        let able = in_turn.filter(|key| key.health.check(model, now_ms).is_ok());
        let mut keys: Vec<_> = able.cloned().collect();
        // What has little left is saved while others have more.
        keys.sort_by_key(|key| key.health.gate.is_low(model, now_ms));
        keys
    }

    /// Whose places a request takes, and whose counts it is added to: those of the whole account.
    pub fn account(&self) -> &Arc<ConnectionHealth> {
        self.part_of.as_ref().unwrap_or(&self.health)
    }

    /// Under which its state is kept: its id, or for one of several keys that and what tells the key from the others.
    pub fn state_id(&self) -> &ConnectionId {
        &self.state_id
    }

    /// The keys of which what is left counts: those that may serve `model` now, and all where none may.
    pub(super) fn counting_keys(&self, model: &str, now_ms: i64) -> impl Iterator<Item = &Arc<Self>> {
        let may_serve = move |key: &Arc<Self>| key.health.check(model, now_ms).is_ok();
        let are_all = !self.pool.iter().any(may_serve);
        self.pool.iter().filter(move |key| are_all || may_serve(key))
    }

    /// What speaks for the account, from 0 to 100: what speaks for it as a whole, and for the best of its keys.
    pub fn standing(&self, model: &str, now_ms: i64) -> f64 {
        let whole = self.health.standing(now_ms);
        let keys = self.counting_keys(model, now_ms).map(|key| key.health.standing(now_ms));
        let Some(best) = keys.max_by(f64::total_cmp) else { return whole };
        (whole + best - 100.0).max(0.0)
    }
}
