//! Cooldowns and locks of connections: a state machine over (now, outcome). Holds no clock and no chance.
//!
//! Two scopes are kept apart: a *lock* concerns one model on one connection, a *cooldown* the whole connection.

mod apart;
mod handover;
mod in_flight;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use omniroute_dialect::DialectId;
use omniroute_provider::{Failure, FailureKind, ProviderId, Scope};

use crate::breaker::{Breaker, BreakerRecord};
use crate::clock::is_from_later;
use crate::combo::ComboMemory;
use crate::entity::{ComboId, ConnectionId, ConnectionStatus, TestStatus};
use crate::limiter::Gate;
use crate::plan::PlanUse;
use crate::rotation::Rotation;
use crate::routing::Stats;
use crate::timeline::Timeline;
use crate::vendor_quota::VendorQuota;

pub use crate::profile::Profile;
pub use in_flight::InFlight;

/// Most model locks kept per connection; the one that ends first makes room.
const MAX_LOCKS: usize = 256;
/// How long it is remembered how often a model failed, while others answer.
const FORGET_MS: i64 = 3_600 * 1_000;

/// What traffic found out of connections, providers and combos, by id. Survives configuration changes.
#[derive(Debug, Default)]
pub struct HealthMap {
    connections: Mutex<HashMap<ConnectionId, Arc<ConnectionHealth>>>,
    combos: Mutex<HashMap<ComboId, Arc<ComboMemory>>>,
    rotations: Mutex<HashMap<ProviderId, Arc<Rotation>>>,
    breakers: Mutex<HashMap<Arc<str>, Arc<Breaker>>>,
    /// What changed of late.
    pub timeline: Timeline,
}

impl HealthMap {
    /// The state of a connection; made when first asked for, from what the row remembers.
    pub fn of(&self, id: &ConnectionId, remembered: &ConnectionStatus) -> Arc<ConnectionHealth> {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.entry(id.clone()).or_insert_with(|| Arc::new(ConnectionHealth::new(remembered))).clone()
    }

    /// The memory of a combo; made when first asked for.
    pub fn combo(&self, id: &ComboId) -> Arc<ComboMemory> {
        self.combos.lock().unwrap_or_else(PoisonError::into_inner).entry(id.clone()).or_default().clone()
    }

    /// Whose turn it is among the accounts of a provider; made when first asked for.
    pub fn rotation(&self, provider: &ProviderId) -> Arc<Rotation> {
        let mut rotations = self.rotations.lock().unwrap_or_else(PoisonError::into_inner);
        rotations.entry(provider.clone()).or_default().clone()
    }

    /// Forgets the turns of providers that are gone.
    pub fn retain_rotations(&self, keep: impl Fn(&ProviderId) -> bool) {
        self.rotations.lock().unwrap_or_else(PoisonError::into_inner).retain(|id, _| keep(id));
    }

    /// The breaker of this name; made when first asked for.
    pub fn breaker(&self, name: &str, provider: &ProviderId) -> Arc<Breaker> {
        let mut breakers = self.breakers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = breakers.get(name) {
            return known.clone();
        }
        let breaker = Arc::new(Breaker::new(name.into(), provider.clone()));
        breakers.insert(breaker.name.clone(), breaker.clone());
        breaker
    }

    /// Takes over what an earlier process knew of a breaker, if there still is one of that name.
    pub fn restore_breaker(&self, record: &BreakerRecord, now_ms: i64) {
        let breakers = self.breakers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(breaker) = breakers.get(&record.name) {
            breaker.restore(record, now_ms);
        }
    }

    /// Forgets breakers that nobody stands behind any more.
    pub fn retain_breakers(&self, keep: impl Fn(&str) -> bool) {
        self.breakers.lock().unwrap_or_else(PoisonError::into_inner).retain(|name, _| keep(name));
    }

    /// Forgets connections that are gone.
    pub fn retain(&self, keep: impl Fn(&ConnectionId) -> bool) {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner).retain(|id, _| keep(id));
    }

    /// Forgets combos that are gone.
    pub fn retain_combos(&self, keep: impl Fn(&ComboId) -> bool) {
        self.combos.lock().unwrap_or_else(PoisonError::into_inner).retain(|id, _| keep(id));
    }
}

/// State of one connection. Reading it on the request path takes no lock unless a model is locked.
#[derive(Debug)]
pub struct ConnectionHealth {
    /// End of the cooldown in epoch milliseconds; 0 when there is none.
    cooldown_until: AtomicI64,
    cooldown_level: AtomicU32,
    auth_failures: AtomicU32,
    terminal: AtomicBool,
    /// Whether something is remembered that a success would clear, beside what the other members say.
    has_error: AtomicBool,
    in_flight: AtomicU32,
    /// The turn at which it led last; 0 when it never did.
    last_led: AtomicU64,
    /// How often one of several keys was chosen.
    key_turn: AtomicU64,
    /// Counts of its calls.
    pub stats: Stats,
    /// Holds requests back before the upstream has to.
    pub gate: Gate,
    /// What was used of its plan.
    pub plan: PlanUse,
    /// What its vendor says is left, when it is asked.
    pub vendor: VendorQuota,
    has_locks: AtomicBool,
    has_missing_dialects: AtomicBool,
    detail: Mutex<Detail>,
}

#[derive(Debug, Clone, Default)]
struct Detail {
    /// Dialects that the upstream does not serve after all, and until when that is believed.
    missing_dialects: Vec<(DialectId, i64)>,
    locks: HashMap<String, Lock>,
    cooldown_reason: Option<FailureKind>,
    status: ConnectionStatus,
}

#[derive(Debug, Clone, Copy)]
struct Lock {
    until: i64,
    level: u32,
    reason: FailureKind,
    since: i64,
}

/// Why a connection cannot be used now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blocked {
    /// What caused it.
    pub reason: FailureKind,
    /// When it ends; `None` = when the operator acts, or another request is done.
    pub until: Option<i64>,
    /// What is out of use.
    pub hold: Hold,
}

/// What is out of use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// The account.
    Connection,
    /// One model on it.
    Model,
    /// The provider, as far as it is reached at the same address.
    Provider,
}

/// A model lock, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelLock {
    /// The upstream model.
    pub model: String,
    /// What caused it.
    pub reason: FailureKind,
    /// When it ends.
    pub until: i64,
    /// How often in a row.
    pub failure_count: u32,
    /// When it was set.
    pub locked_at: i64,
}

/// What a failure changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Damage {
    /// The status to store.
    pub status: Option<ConnectionStatus>,
    /// The lock in force on the model, if the failure set or moved it.
    pub lock: Option<ModelLock>,
    /// End of the cooldown, if the failure set or moved it.
    pub cooldown: Option<i64>,
    /// Whether the lock or the cooldown was set, and not one in force moved.
    pub is_new: bool,
    /// The state that only the operator ends, if the failure led there.
    pub terminal: Option<TestStatus>,
}

/// What a success changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The status to store.
    pub status: Option<ConnectionStatus>,
    /// Whether it ended a lock of the model.
    pub was_locked: bool,
    /// Whether it ended a cooldown.
    pub was_cooling: bool,
}

impl ConnectionHealth {
    fn new(remembered: &ConnectionStatus) -> Self {
        Self {
            cooldown_until: AtomicI64::new(remembered.rate_limited_until.unwrap_or(0)),
            cooldown_level: AtomicU32::new(u32::try_from(remembered.backoff_level).unwrap_or(0)),
            auth_failures: AtomicU32::new(0),
            terminal: AtomicBool::new(remembered.test_status.is_terminal()),
            has_error: AtomicBool::new(has_error(remembered)),
            in_flight: AtomicU32::new(0),
            last_led: AtomicU64::new(0),
            key_turn: AtomicU64::new(0),
            stats: Stats::default(),
            gate: Gate::default(),
            plan: PlanUse::default(),
            vendor: VendorQuota::default(),
            has_locks: AtomicBool::new(false),
            has_missing_dialects: AtomicBool::new(false),
            detail: Mutex::new(Detail {
                cooldown_reason: remembered.last_error_type.as_deref().and_then(FailureKind::of_word),
                status: remembered.clone(),
                ..Detail::default()
            }),
        }
    }

    /// Whether the connection may serve `model` now.
    pub fn check(&self, model: &str, now_ms: i64) -> Result<(), Blocked> {
        if self.terminal.load(Ordering::Acquire) {
            let reason = self.detail().cooldown_reason.unwrap_or(FailureKind::Banned);
            return Err(Blocked { reason, until: None, hold: Hold::Connection });
        }
        let until = self.cooldown_until.load(Ordering::Acquire);
        if until > now_ms {
            let detail = self.detail();
            if !detail.is_from_later(now_ms) {
                let reason = detail.cooldown_reason.unwrap_or(FailureKind::RateLimited);
                return Err(Blocked { reason, until: Some(until), hold: Hold::Connection });
            }
        }
        if self.has_locks.load(Ordering::Acquire)
            && let Some(lock) = self.detail().locks.get(model)
            && lock.holds(now_ms)
        {
            return Err(Blocked { reason: lock.reason, until: Some(lock.until), hold: Hold::Model });
        }
        Ok(())
    }

    /// Takes a place for a running request, if `limit` leaves one.
    pub fn enter(self: &Arc<Self>, limit: Option<u32>) -> Option<InFlight> {
        let before = self.in_flight.fetch_add(1, Ordering::AcqRel);
        let place = InFlight { health: self.clone(), held_by: None };
        limit.is_none_or(|limit| before < limit).then_some(place)
    }

    /// The upstream has no such path: its endpoint of this dialect is passed over until `until`.
    pub fn dialect_is_missing(&self, dialect: DialectId, until: i64) {
        let mut detail = self.detail();
        detail.missing_dialects.retain(|(other, _)| *other != dialect);
        detail.missing_dialects.push((dialect, until));
        self.has_missing_dialects.store(true, Ordering::Release);
    }

    /// Whether the endpoint of this dialect is passed over.
    pub fn is_dialect_missing(&self, dialect: DialectId, now_ms: i64) -> bool {
        self.has_missing_dialects.load(Ordering::Acquire)
            && self.detail().missing_dialects.iter().any(|(it, until)| *it == dialect && *until > now_ms)
    }

    /// Requests running now.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Acquire)
    }

    /// It leads the accounts of its provider at this turn.
    pub(crate) fn led_at(&self, turn: u64) {
        self.last_led.store(turn, Ordering::Release);
    }

    /// The turn at which it led last; 0 when it never did.
    pub(crate) fn last_led(&self) -> u64 {
        self.last_led.load(Ordering::Acquire)
    }

    /// How often one of several keys was chosen before.
    pub(crate) fn take_key_turn(&self) -> u64 {
        self.key_turn.fetch_add(1, Ordering::AcqRel)
    }

    /// What speaks for it, from 0 to 100: less for cooldowns in a row, for an error that stands, and for cooling down now.
    /// Of accounts that are alike the one with fewer running requests is a little better.
    pub fn standing(&self, now_ms: i64) -> f64 {
        let level = f64::from(self.cooldown_level.load(Ordering::Acquire));
        let has_error = if self.detail().status.last_error.is_some() { 20.0 } else { 0.0 };
        let is_cooling = if self.is_cooling(&self.detail(), now_ms) { 30.0 } else { 0.0 };
        let running = f64::from(self.in_flight());
        (100.0 - 10.0 * level - has_error - is_cooling).max(0.0) - running / (running + 1.0)
    }

    /// A call went well: no cooldown, no lock of the model, no error any more; what counts failures is halved. Returns
    /// what that changed.
    pub fn succeeded(&self, model: &str, now_ms: i64) -> Recovery {
        // What only the operator ends is not ended by the answer to an earlier question.
        if self.is_clean() || self.terminal.load(Ordering::Acquire) {
            return Recovery::default();
        }
        self.auth_failures.store(0, Ordering::Release);
        let was_cooling = self.cooldown_until.swap(0, Ordering::AcqRel) > now_ms;
        let level = self.cooldown_level.load(Ordering::Acquire) / 2;
        self.cooldown_level.store(level, Ordering::Release);
        let mut detail = self.detail();
        let mut was_locked = false;
        if let Some(lock) = detail.locks.get_mut(model) {
            was_locked = lock.holds(now_ms);
            lock.until = lock.until.min(now_ms);
            match lock.level.div_ceil(2) {
                0 => drop(detail.locks.remove(model)),
                count => lock.level = count - 1,
            }
        }
        detail.locks.retain(|_, lock| lock.until > now_ms.saturating_sub(FORGET_MS));
        self.has_locks.store(!detail.locks.is_empty(), Ordering::Release);
        self.has_error.store(false, Ordering::Release);
        detail.cooldown_reason = None;
        let status = ConnectionStatus {
            test_status: TestStatus::Active,
            last_tested: detail.status.last_tested,
            last_used_at: Some(now_ms),
            backoff_level: i64::from(level),
            ..ConnectionStatus::default()
        };
        let changed = status.backoff_level != detail.status.backoff_level
            || detail.status.rate_limited_until.is_some()
            || detail.status.last_error.is_some()
            || detail.status.test_status != TestStatus::Active;
        detail.status = status.clone();
        Recovery { status: changed.then_some(status), was_locked, was_cooling }
    }

    /// A call failed. `jitter` is in -1.0..=1.0 and moves the duration by up to a tenth. Returns what that changed.
    pub fn failed(
        &self,
        model: &str,
        failure: &Failure,
        profile: &Profile,
        now_ms: i64,
        jitter: f64,
    ) -> Damage {
        let mut damage = Damage::default();
        let mut detail = self.detail();
        match failure.scope {
            Scope::Request | Scope::Provider => {}
            Scope::ConnectionModel => {
                self.lock(&mut detail, model, failure, profile, now_ms, jitter, &mut damage);
            }
            Scope::Connection => {
                let before = self.cooldown_until.load(Ordering::Acquire);
                let before = if detail.is_from_later(now_ms) { before.min(now_ms) } else { before };
                let level = self.cooldown_level.load(Ordering::Acquire);
                let level = if before != 0 && before <= now_ms { level.saturating_add(1) } else { level };
                let duration = profile.cooldown_ms(failure, level, jitter);
                let end = now_ms.saturating_add(duration);
                let end = if profile.hint_ms(failure).is_some() { end } else { before.max(end) };
                self.cooldown_until.store(end, Ordering::Release);
                self.cooldown_level.store(level, Ordering::Release);
                detail.cooldown_reason = Some(failure.kind);
                damage.cooldown = Some(end);
                damage.is_new = before <= now_ms;
            }
        }
        if failure.scope == Scope::Request {
            return damage;
        }
        let test_status = match failure.kind {
            FailureKind::Banned => Some(TestStatus::Banned),
            FailureKind::QuotaSpent if failure.is_out_of_credit => Some(TestStatus::CreditsExhausted),
            FailureKind::AuthRejected => {
                let count = self.auth_failures.fetch_add(1, Ordering::AcqRel) + 1;
                (count >= 3).then_some(TestStatus::Error)
            }
            _ => None,
        };
        let was_terminal = self.terminal.load(Ordering::Acquire);
        let status = &mut detail.status;
        if let Some(test_status) = test_status {
            status.test_status = test_status;
            self.terminal.store(test_status.is_terminal(), Ordering::Release);
            damage.terminal = Some(test_status).filter(|status| status.is_terminal() && !was_terminal);
        }
        status.last_used_at = Some(now_ms);
        status.last_error = Some(failure.upstream.message.clone());
        status.last_error_at = Some(now_ms);
        status.last_error_type = Some(failure.kind.as_str().to_owned());
        status.last_error_source =
            Some(if failure.upstream.status.is_some() { "upstream" } else { "local" }.to_owned());
        status.error_code = failure.upstream.status.map(i64::from);
        if damage.cooldown.is_some() {
            status.rate_limited_until = damage.cooldown;
            status.backoff_level = i64::from(self.cooldown_level.load(Ordering::Acquire));
        }
        self.has_error.store(true, Ordering::Release);
        damage.status = Some(status.clone());
        damage
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "the members of one call; a struct would only be taken apart again"
    )]
    fn lock(
        &self,
        detail: &mut Detail,
        model: &str,
        failure: &Failure,
        profile: &Profile,
        now_ms: i64,
        jitter: f64,
        damage: &mut Damage,
    ) {
        let previous = detail.locks.get(model).copied();
        let has_ended = previous.is_none_or(|lock| !lock.holds(now_ms));
        let level =
            previous.map_or(0, |lock| if has_ended { lock.level.saturating_add(1) } else { lock.level });
        let Some(duration) = profile.lock_ms(failure, level, jitter) else { return };
        if detail.locks.len() >= MAX_LOCKS && previous.is_none() {
            let first =
                detail.locks.iter().min_by_key(|(_, lock)| lock.until).map(|(model, _)| model.clone());
            if let Some(first) = first {
                detail.locks.remove(&first);
            }
        }
        let end = now_ms.saturating_add(duration);
        let until = match previous {
            Some(lock) if !has_ended && profile.hint_ms(failure).is_none() => lock.until.max(end),
            _ => end,
        };
        let since = previous.filter(|_| !has_ended).map_or(now_ms, |lock| lock.since);
        let lock = Lock { until, level, reason: failure.kind, since };
        detail.locks.insert(model.to_owned(), lock);
        self.has_locks.store(true, Ordering::Release);
        damage.lock = Some(lock.told(model));
        damage.is_new = has_ended;
    }

    /// Takes over a lock that an earlier process set.
    pub fn restore_lock(&self, lock: ModelLock) {
        let mut detail = self.detail();
        if detail.locks.len() >= MAX_LOCKS {
            return;
        }
        let ModelLock { model, reason, until, failure_count, locked_at } = lock;
        let level = failure_count.saturating_sub(1);
        detail.locks.insert(model, Lock { until, level, reason, since: locked_at });
        self.has_locks.store(true, Ordering::Release);
    }

    /// The operator ends locks, of one model or of all. How many there were in force.
    pub fn unlock(&self, model: Option<&str>, now_ms: i64) -> usize {
        let mut detail = self.detail();
        let mut ended = 0;
        detail.locks.retain(|name, lock| {
            let is_meant = model.is_none_or(|model| model == name);
            ended += usize::from(is_meant && lock.holds(now_ms));
            !is_meant
        });
        self.has_locks.store(!detail.locks.is_empty(), Ordering::Release);
        ended
    }

    /// The operator ends the cooldown. The status to store, if there was one in force.
    pub fn warm_up(&self, now_ms: i64) -> Option<ConnectionStatus> {
        let mut detail = self.detail();
        let was_cooling = self.is_cooling(&detail, now_ms);
        self.cooldown_until.store(0, Ordering::Release);
        self.cooldown_level.store(0, Ordering::Release);
        detail.status.rate_limited_until = None;
        detail.status.backoff_level = 0;
        was_cooling.then(|| detail.status.clone())
    }

    /// The operator acted, or a test went well: no cooldown, no lock, no terminal state.
    pub fn clear(&self, status: ConnectionStatus) {
        self.cooldown_until.store(status.rate_limited_until.unwrap_or(0), Ordering::Release);
        self.cooldown_level.store(0, Ordering::Release);
        self.auth_failures.store(0, Ordering::Release);
        self.terminal.store(status.test_status.is_terminal(), Ordering::Release);
        self.vendor.forget();
        let mut detail = self.detail();
        detail.locks.clear();
        detail.missing_dialects.clear();
        detail.cooldown_reason = None;
        self.has_error.store(has_error(&status), Ordering::Release);
        detail.status = status;
        self.has_locks.store(false, Ordering::Release);
        self.has_missing_dialects.store(false, Ordering::Release);
    }

    /// Whether there is nothing that a success would clear.
    fn is_clean(&self) -> bool {
        self.cooldown_until.load(Ordering::Acquire) == 0
            && self.cooldown_level.load(Ordering::Acquire) == 0
            && self.auth_failures.load(Ordering::Acquire) == 0
            && !self.has_locks.load(Ordering::Acquire)
            && !self.has_error.load(Ordering::Acquire)
    }

    /// What is known, a cooldown that has ended left out.
    pub fn status(&self, now_ms: i64) -> ConnectionStatus {
        let detail = self.detail();
        let mut status = detail.status.clone();
        let is_over = detail.is_from_later(now_ms);
        status.rate_limited_until = status.rate_limited_until.filter(|until| *until > now_ms && !is_over);
        status
    }

    /// The model locks in force.
    pub fn locks(&self, now_ms: i64) -> Vec<ModelLock> {
        let detail = self.detail();
        let mut locks: Vec<_> = detail
            .locks
            .iter()
            .filter(|(_, lock)| lock.holds(now_ms))
            .map(|(model, lock)| lock.told(model))
            .collect();
        locks.sort_by(|a, b| a.model.cmp(&b.model));
        locks
    }

    fn is_cooling(&self, detail: &Detail, now_ms: i64) -> bool {
        self.cooldown_until.load(Ordering::Acquire) > now_ms && !detail.is_from_later(now_ms)
    }

    fn detail(&self) -> std::sync::MutexGuard<'_, Detail> {
        self.detail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Detail {
    /// Whether the last error is of a time that is still to come: the clock was set back, and a cooldown would be longer by that.
    fn is_from_later(&self, now_ms: i64) -> bool {
        self.status.last_error_at.is_some_and(|at| is_from_later(at, now_ms))
    }
}

impl Lock {
    /// Whether it is in force. One from a time that is still to come is not: it would hold for longer than it was to.
    fn holds(&self, now_ms: i64) -> bool {
        self.until > now_ms && !is_from_later(self.since, now_ms)
    }

    fn told(self, model: &str) -> ModelLock {
        ModelLock {
            model: model.to_owned(),
            reason: self.reason,
            until: self.until,
            failure_count: self.level.saturating_add(1),
            locked_at: self.since,
        }
    }
}

/// Whether a success has something to clear.
fn has_error(status: &ConnectionStatus) -> bool {
    status.last_error.is_some() || matches!(status.test_status, TestStatus::Error | TestStatus::Unavailable)
}
