//! Cooldowns and locks of connections: a state machine over (now, outcome). Holds no clock and no chance.
//!
//! Two scopes are kept apart: a *lock* concerns one model on one connection, a *cooldown* the whole connection.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use omniroute_dialect::DialectId;
use omniroute_provider::{Failure, FailureKind, ProviderId, Scope, spec::ResilienceProfile};

use crate::combo::ComboMemory;
use crate::entity::{ComboId, ConnectionId, ConnectionStatus, TestStatus};
use crate::limiter::Gate;
use crate::rotation::Rotation;
use crate::routing::Stats;

/// Most model locks kept per connection; the one that ends first makes room.
const MAX_LOCKS: usize = 256;

/// What traffic found out of connections and combos, by id. Survives configuration changes.
#[derive(Debug, Default)]
pub struct HealthMap {
    connections: Mutex<HashMap<ConnectionId, Arc<ConnectionHealth>>>,
    combos: Mutex<HashMap<ComboId, Arc<ComboMemory>>>,
    rotations: Mutex<HashMap<ProviderId, Arc<Rotation>>>,
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
    in_flight: AtomicU32,
    /// The turn at which it led last; 0 when it never did.
    last_led: AtomicU64,
    /// How often one of several keys was chosen.
    key_turn: AtomicU64,
    /// Counts of its calls.
    pub stats: Stats,
    /// Holds requests back before the upstream has to.
    pub gate: Gate,
    has_locks: AtomicBool,
    has_missing_dialects: AtomicBool,
    detail: Mutex<Detail>,
}

#[derive(Debug, Default)]
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
}

/// Why a connection cannot be used now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blocked {
    /// What caused it.
    pub reason: FailureKind,
    /// When it ends; `None` = when the operator acts, or another request is done.
    pub until: Option<i64>,
    /// Whether only this model is concerned.
    pub model_only: bool,
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
}

/// Counts a running request; gives its place back when dropped.
#[derive(Debug)]
pub struct InFlight {
    health: Arc<ConnectionHealth>,
    /// Whose limiter counts it too.
    held_by: Option<Arc<ConnectionHealth>>,
}

impl InFlight {
    /// This limiter counts it too.
    pub fn held_by(mut self, health: &Arc<ConnectionHealth>) -> Self {
        self.held_by = Some(health.clone());
        self
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.health.in_flight.fetch_sub(1, Ordering::AcqRel);
        if let Some(holder) = &self.held_by {
            holder.gate.finish();
        }
    }
}

impl ConnectionHealth {
    fn new(remembered: &ConnectionStatus) -> Self {
        Self {
            cooldown_until: AtomicI64::new(remembered.rate_limited_until.unwrap_or(0)),
            cooldown_level: AtomicU32::new(u32::try_from(remembered.backoff_level).unwrap_or(0)),
            auth_failures: AtomicU32::new(0),
            terminal: AtomicBool::new(remembered.test_status.is_terminal()),
            in_flight: AtomicU32::new(0),
            last_led: AtomicU64::new(0),
            key_turn: AtomicU64::new(0),
            stats: Stats::default(),
            gate: Gate::default(),
            has_locks: AtomicBool::new(false),
            has_missing_dialects: AtomicBool::new(false),
            detail: Mutex::new(Detail { status: remembered.clone(), ..Detail::default() }),
        }
    }

    /// Whether the connection may serve `model` now.
    pub fn check(&self, model: &str, now_ms: i64) -> Result<(), Blocked> {
        if self.terminal.load(Ordering::Acquire) {
            return Err(Blocked { reason: FailureKind::Banned, until: None, model_only: false });
        }
        let until = self.cooldown_until.load(Ordering::Acquire);
        if until > now_ms {
            let reason = self.detail().cooldown_reason.unwrap_or(FailureKind::RateLimited);
            return Err(Blocked { reason, until: Some(until), model_only: false });
        }
        if self.has_locks.load(Ordering::Acquire)
            && let Some(lock) = self.detail().locks.get(model)
            && lock.until > now_ms
        {
            return Err(Blocked { reason: lock.reason, until: Some(lock.until), model_only: true });
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
        let is_cooling = if self.cooldown_until.load(Ordering::Acquire) > now_ms { 30.0 } else { 0.0 };
        let running = f64::from(self.in_flight());
        (100.0 - 10.0 * level - has_error - is_cooling).max(0.0) - running / (running + 1.0)
    }

    /// A call went well. Returns the status to store when it changed something.
    pub fn succeeded(&self, model: &str, now_ms: i64) -> Option<ConnectionStatus> {
        let clean = self.cooldown_until.load(Ordering::Acquire) == 0
            && self.cooldown_level.load(Ordering::Acquire) == 0
            && self.auth_failures.load(Ordering::Acquire) == 0
            && !self.has_locks.load(Ordering::Acquire);
        if clean {
            return None;
        }
        self.auth_failures.store(0, Ordering::Release);
        self.cooldown_until.store(0, Ordering::Release);
        let level = self.cooldown_level.load(Ordering::Acquire) / 2;
        self.cooldown_level.store(level, Ordering::Release);
        let mut detail = self.detail();
        if let Some(lock) = detail.locks.get_mut(model) {
            lock.level /= 2;
            lock.until = 0;
            if lock.level == 0 {
                detail.locks.remove(model);
            }
        }
        detail.locks.retain(|_, lock| lock.level > 0 || lock.until > now_ms);
        self.has_locks.store(!detail.locks.is_empty(), Ordering::Release);
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
        changed.then_some(status)
    }

    /// A call failed. `jitter` is in -1.0..=1.0 and moves the duration by up to a tenth. Returns the status to store.
    pub fn failed(
        &self,
        model: &str,
        failure: &Failure,
        profile: &Profile,
        now_ms: i64,
        jitter: f64,
    ) -> Option<ConnectionStatus> {
        let mut detail = self.detail();
        let mut until = None;
        match failure.scope {
            Scope::Request | Scope::Provider => {}
            Scope::ConnectionModel => {
                let previous = detail.locks.get(model).copied();
                let ended = previous.is_none_or(|lock| lock.until <= now_ms);
                let level = previous.map_or(0, |lock| if ended { lock.level + 1 } else { lock.level });
                let duration = profile.cooldown_ms(failure, level.min(profile.max_backoff_level), jitter);
                let kept = previous.map_or(0, |lock| lock.until);
                if detail.locks.len() >= MAX_LOCKS && previous.is_none() {
                    let first = detail
                        .locks
                        .iter()
                        .min_by_key(|(_, lock)| lock.until)
                        .map(|(model, _)| model.clone());
                    if let Some(first) = first {
                        detail.locks.remove(&first);
                    }
                }
                let end = if failure.retry_after.is_some() {
                    now_ms + duration
                } else {
                    kept.max(now_ms + duration)
                };
                detail.locks.insert(model.to_owned(), Lock { until: end, level, reason: failure.kind });
                self.has_locks.store(true, Ordering::Release);
            }
            Scope::Connection => {
                let before = self.cooldown_until.load(Ordering::Acquire);
                let level = self.cooldown_level.load(Ordering::Acquire);
                let level = if before != 0 && before <= now_ms { level + 1 } else { level };
                let duration = profile.cooldown_ms(failure, level.min(profile.max_backoff_level), jitter);
                let end = if failure.retry_after.is_some() {
                    now_ms + duration
                } else {
                    before.max(now_ms + duration)
                };
                self.cooldown_until.store(end, Ordering::Release);
                self.cooldown_level.store(level, Ordering::Release);
                detail.cooldown_reason = Some(failure.kind);
                until = Some(end);
            }
        }
        let test_status = match failure.kind {
            FailureKind::Banned => Some(TestStatus::Banned),
            FailureKind::AuthRejected => {
                let count = self.auth_failures.fetch_add(1, Ordering::AcqRel) + 1;
                (count >= 3).then_some(TestStatus::Error)
            }
            _ => None,
        };
        if failure.scope == Scope::Request {
            return None;
        }
        let status = &mut detail.status;
        if let Some(test_status) = test_status {
            status.test_status = test_status;
            self.terminal.store(test_status.is_terminal(), Ordering::Release);
        }
        status.last_used_at = Some(now_ms);
        status.last_error = Some(failure.upstream.message.clone());
        status.last_error_at = Some(now_ms);
        status.last_error_type = Some(failure.kind.as_str().to_owned());
        status.last_error_source =
            Some(if failure.upstream.status.is_some() { "upstream" } else { "local" }.to_owned());
        status.error_code = failure.upstream.status.map(i64::from);
        if until.is_some() {
            status.rate_limited_until = until;
            status.backoff_level = i64::from(self.cooldown_level.load(Ordering::Acquire));
        }
        Some(status.clone())
    }

    /// The operator acted, or a test went well: no cooldown, no lock, no terminal state.
    pub fn clear(&self, status: ConnectionStatus) {
        self.cooldown_until.store(status.rate_limited_until.unwrap_or(0), Ordering::Release);
        self.cooldown_level.store(0, Ordering::Release);
        self.auth_failures.store(0, Ordering::Release);
        self.terminal.store(status.test_status.is_terminal(), Ordering::Release);
        let mut detail = self.detail();
        detail.locks.clear();
        detail.missing_dialects.clear();
        detail.cooldown_reason = None;
        detail.status = status;
        self.has_locks.store(false, Ordering::Release);
        self.has_missing_dialects.store(false, Ordering::Release);
    }

    /// What is known, a cooldown that has ended left out.
    pub fn status(&self, now_ms: i64) -> ConnectionStatus {
        let mut status = self.detail().status.clone();
        status.rate_limited_until = status.rate_limited_until.filter(|until| *until > now_ms);
        status
    }

    /// The model locks in force.
    pub fn locks(&self, now_ms: i64) -> Vec<ModelLock> {
        let detail = self.detail();
        let mut locks: Vec<_> = detail
            .locks
            .iter()
            .filter(|(_, lock)| lock.until > now_ms)
            .map(|(model, lock)| ModelLock {
                model: model.clone(),
                reason: lock.reason,
                until: lock.until,
                failure_count: lock.level + 1,
            })
            .collect();
        locks.sort_by(|a, b| a.model.cmp(&b.model));
        locks
    }

    fn detail(&self) -> std::sync::MutexGuard<'_, Detail> {
        self.detail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Durations of one kind of connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// First cooldown after an upstream failure, in milliseconds.
    pub transient_cooldown_ms: i64,
    /// First cooldown after a rate limit; 0 = one second.
    pub rate_limit_cooldown_ms: i64,
    /// How often a cooldown doubles.
    pub max_backoff_level: u32,
}

impl Profile {
    /// The profile of a provider.
    pub const fn of(profile: ResilienceProfile) -> Self {
        match profile {
            ResilienceProfile::Oauth => {
                Self { transient_cooldown_ms: 5_000, rate_limit_cooldown_ms: 60_000, max_backoff_level: 8 }
            }
            ResilienceProfile::Apikey => {
                Self { transient_cooldown_ms: 3_000, rate_limit_cooldown_ms: 0, max_backoff_level: 5 }
            }
            ResilienceProfile::Local => {
                Self { transient_cooldown_ms: 2_000, rate_limit_cooldown_ms: 5_000, max_backoff_level: 3 }
            }
        }
    }

    /// How long a failure keeps its target out of use. An upstream's own hint wins, shorter or longer.
    pub fn cooldown_ms(&self, failure: &Failure, level: u32, jitter: f64) -> i64 {
        const MINUTE: i64 = 60_000;
        if let Some(hint) = failure.retry_after {
            let cap = if failure.kind == FailureKind::QuotaSpent { 24 * 60 * MINUTE } else { 30 * MINUTE };
            return i64::try_from(hint.as_millis()).unwrap_or(i64::MAX).clamp(1, cap);
        }
        let rate_limit = if self.rate_limit_cooldown_ms == 0 { 1_000 } else { self.rate_limit_cooldown_ms };
        let (base, cap) = match failure.kind {
            FailureKind::RateLimited => (rate_limit, 30 * MINUTE),
            FailureKind::Overloaded => (rate_limit, 2 * MINUTE),
            FailureKind::QuotaSpent => return 60 * MINUTE,
            FailureKind::AuthRejected | FailureKind::Forbidden | FailureKind::Banned => return 2 * MINUTE,
            FailureKind::ModelMissing => return if level == 0 { 2 * MINUTE } else { 10 * MINUTE },
            FailureKind::NotAllowed => return 5_000,
            FailureKind::AddressBlocked => return 30_000,
            FailureKind::Unavailable
            | FailureKind::Timeout
            | FailureKind::Connect
            | FailureKind::Empty
            | FailureKind::Protocol
            | FailureKind::Unknown => (self.transient_cooldown_ms, 2 * MINUTE),
            FailureKind::ContextTooLong
            | FailureKind::Refused
            | FailureKind::BadRequest
            | FailureKind::ClientAbort => {
                return 0;
            }
        };
        let plain = base.saturating_mul(1 << level.min(20)).min(cap);
        #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
        let moved = (plain as f64 * (1.0 + jitter.clamp(-1.0, 1.0) / 10.0)) as i64;
        moved.clamp(1, cap)
    }
}
