//! The circuit breaker of one base URL of a provider: a state machine over (now, outcome). Holds no clock.
//!
//! It counts what says that the upstream itself is out of order, never what concerns one account or one request. CLOSED and
//! DEGRADED let everything through. OPEN lets nothing through until its time is over; then the next request is a probe
//! (HALF_OPEN), one at a time, and what becomes of it decides. Nothing runs in the background: the passage of time is noticed by
//! whoever looks.
//!
//! Where nearly all failures are of one model, it is shut for that model alone: the others go on as if it were closed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use omniroute_provider::{Failure, FailureKind, ProviderId};
use smallvec::SmallVec;

use crate::entity::ConnectionId;

/// Failures of one connection within this time belong to one outage and count once.
const BURST_MS: i64 = 100;
/// Most connections whose last failure is kept for that.
const MAX_RECENT: usize = 256;
/// Most models whose failures are told apart; those of others are everybody's.
const MAX_MODELS: usize = 64;
/// So many failed probes have the usual pause; each further one doubles it.
const PATIENT_PROBES: u32 = 3;
/// The longest pause, in usual ones.
const MAX_FACTOR: i64 = 16;
/// When to come back while a probe is under way.
const PROBE_PAUSE_MS: i64 = 1_000;

/// When a breaker opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerPolicy {
    /// Failures after which it opens; at least 1.
    pub failure_threshold: u32,
    /// Failures after which it is shown as degraded; at least 1.
    pub degradation_threshold: u32,
    /// How long it stays open, in milliseconds.
    pub reset_timeout_ms: i64,
}

/// What a breaker does with requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BreakerState {
    /// Lets them through.
    #[default]
    Closed,
    /// Lets them through, although many failed.
    Degraded,
    /// Lets none through.
    Open,
    /// Lets one through at a time.
    HalfOpen,
}

impl BreakerState {
    /// The word stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "CLOSED",
            Self::Degraded => "DEGRADED",
            Self::Open => "OPEN",
            Self::HalfOpen => "HALF_OPEN",
        }
    }

    /// The state of this word.
    pub fn of_word(word: &str) -> Option<Self> {
        [Self::Closed, Self::Degraded, Self::Open, Self::HalfOpen]
            .into_iter()
            .find(|state| state.as_str() == word)
    }
}

/// Whether a failure says that the upstream itself is out of order: 408, 5xx, the network, and silence. Refusals of
/// the account, the model or the request do not, nor does anything that the gateway decided by itself.
pub fn counts(failure: &Failure) -> bool {
    match failure.kind {
        FailureKind::Timeout | FailureKind::Connect | FailureKind::Protocol => true,
        FailureKind::Unavailable | FailureKind::Overloaded | FailureKind::Unknown => {
            failure.upstream.status.is_some_and(|status| status == 408 || status >= 500)
        }
        FailureKind::RateLimited
        | FailureKind::QuotaSpent
        | FailureKind::AuthRejected
        | FailureKind::Forbidden
        | FailureKind::Banned
        | FailureKind::ModelMissing
        | FailureKind::AddressBlocked
        | FailureKind::NotAllowed
        | FailureKind::ContextTooLong
        | FailureKind::Refused
        | FailureKind::BadRequest
        | FailureKind::Empty
        | FailureKind::InvalidResponse
        | FailureKind::ClientAbort => false,
    }
}

/// Whether a failure that counts says something of the model that was asked for. Whoever cannot be reached at all fails with each.
const fn is_of_model(kind: FailureKind) -> bool {
    !matches!(kind, FailureKind::Connect)
}

/// The breaker of one base URL of a provider. Asking a calm one takes no lock.
#[derive(Debug)]
pub struct Breaker {
    /// The provider's id; with the base URL where that is not the usual one.
    pub name: Arc<str>,
    /// The provider.
    pub provider: ProviderId,
    /// Whether anybody is held back.
    is_shut: AtomicBool,
    /// Whether any failure is counted.
    is_troubled: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Debug, Clone, Default)]
struct Inner {
    state: BreakerState,
    failures: u32,
    /// How many of them were failures of which model; each at least 1.
    of_models: SmallVec<[(Arc<str>, u32); 2]>,
    /// The one model that it is shut for; `None` = all, as long as it is shut.
    only: Option<Arc<str>>,
    /// So many failures make it degraded; as the last failure's policy said.
    degraded_at: u32,
    last_failure: Option<i64>,
    cause: Option<FailureKind>,
    /// When it was opened, for how long, and the end of that.
    opened_at: i64,
    span_ms: i64,
    open_until: i64,
    failed_probes: u32,
    /// The probe that is under way.
    probe: Option<u64>,
    next_probe: u64,
    changed_at: i64,
    recent: Vec<(ConnectionId, i64)>,
}

/// A change of state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// The one model that it is about; `None` = all.
    pub model: Option<Arc<str>>,
    /// Before.
    pub from: BreakerState,
    /// After.
    pub to: BreakerState,
    /// When.
    pub at: i64,
    /// Why: a class of failure, `probe`, `answered` or `operator`.
    pub cause: &'static str,
    /// When it will be tried again.
    pub until: Option<i64>,
}

/// Nobody may pass now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shut {
    /// When to try again.
    pub until: i64,
    /// The last failure that counted.
    pub cause: FailureKind,
}

/// What is known of a breaker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakerRecord {
    /// Its name.
    pub name: Arc<str>,
    /// Its state.
    pub state: BreakerState,
    /// Failures that are counted.
    pub failure_count: u32,
    /// How many of them were failures of which model.
    pub of_models: Vec<(Arc<str>, u32)>,
    /// The one model that nobody is let through for, where that is so.
    pub model: Option<Arc<str>>,
    /// The last of them.
    pub last_failure: Option<i64>,
    /// Its class.
    pub cause: Option<FailureKind>,
    /// End of the pause while it is open.
    pub open_until: Option<i64>,
    /// How long the pause is.
    pub span_ms: i64,
    /// Probes that failed in a row.
    pub failed_probes: u32,
    /// The last change of state.
    pub changed_at: i64,
}

/// Leave to ask the upstream. A probe's place is given back when this is dropped without a word.
#[derive(Debug)]
#[must_use = "whoever passes says how it went"]
pub struct Pass {
    breaker: Option<Arc<Breaker>>,
    probe: Option<u64>,
}

impl Pass {
    /// For upstreams that have no breaker.
    pub const fn free() -> Self {
        Self { breaker: None, probe: None }
    }

    /// The upstream answered for the model.
    pub fn answered(mut self, model: &str, now_ms: i64) -> Option<Transition> {
        let probe = self.probe.take();
        self.breaker.as_ref()?.answered(probe, model, now_ms)
    }

    /// The upstream failed. What does not count ends a probe without a verdict.
    pub fn failed(
        mut self,
        failure: &Failure,
        model: &str,
        connection: &ConnectionId,
        policy: &BreakerPolicy,
        now_ms: i64,
    ) -> Option<Transition> {
        let breaker = self.breaker.clone()?;
        if !counts(failure) {
            return None;
        }
        breaker.failed(self.probe.take(), failure.kind, (model, connection), policy, now_ms)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let (Some(breaker), Some(probe)) = (&self.breaker, self.probe) {
            let mut inner = breaker.inner();
            if inner.probe == Some(probe) {
                inner.probe = None;
            }
        }
    }
}

impl Breaker {
    /// A closed one.
    pub fn new(name: Arc<str>, provider: ProviderId) -> Self {
        Self {
            name,
            provider,
            is_shut: AtomicBool::new(false),
            is_troubled: AtomicBool::new(false),
            inner: Mutex::default(),
        }
    }

    /// Leave to ask the upstream for a model, and what that changed; or when to try again.
    pub fn admit(self: &Arc<Self>, model: &str, now_ms: i64) -> Result<(Pass, Option<Transition>), Shut> {
        let pass = |probe| Pass { breaker: Some(self.clone()), probe };
        if !self.is_shut.load(Ordering::Acquire) {
            return Ok((pass(None), None));
        }
        let mut inner = self.inner();
        inner.mind_the_clock(now_ms);
        inner.refuses(model, now_ms).map_or(Ok(()), Err)?;
        if !inner.state.is_shut() || !inner.concerns(model) {
            return Ok((pass(None), None));
        }
        let probe = inner.next_probe;
        inner.next_probe += 1;
        inner.probe = Some(probe);
        let transition = (inner.state == BreakerState::Open)
            .then(|| inner.turn(BreakerState::HalfOpen, "probe", None, now_ms));
        Ok((pass(Some(probe)), transition))
    }

    /// Whether anybody may pass with a model now; takes no probe's place.
    pub fn check(&self, model: &str, now_ms: i64) -> Result<(), Shut> {
        if !self.is_shut.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut inner = self.inner();
        inner.mind_the_clock(now_ms);
        inner.refuses(model, now_ms).map_or(Ok(()), Err)
    }

    /// The state that the next request for a model would find.
    pub fn state(&self, model: &str, now_ms: i64) -> BreakerState {
        if !self.is_shut.load(Ordering::Acquire) && !self.is_troubled.load(Ordering::Acquire) {
            return BreakerState::Closed;
        }
        let mut inner = self.inner();
        inner.mind_the_clock(now_ms);
        match inner.found(now_ms) {
            state if !state.is_shut() || inner.concerns(model) => state,
            _ => BreakerState::Closed,
        }
    }

    /// An answer broke off after it had begun.
    pub fn broke_off(
        &self,
        failure: &Failure,
        model: &str,
        connection: &ConnectionId,
        policy: &BreakerPolicy,
        now_ms: i64,
    ) -> Option<Transition> {
        if !counts(failure) {
            return None;
        }
        self.failed(None, failure.kind, (model, connection), policy, now_ms)
    }

    /// Closes it, whatever it is.
    pub fn reset(&self, now_ms: i64) -> Option<Transition> {
        let mut inner = self.inner();
        inner.forget();
        inner.recent.clear();
        let transition = (inner.state != BreakerState::Closed)
            .then(|| inner.turn(BreakerState::Closed, "operator", None, now_ms));
        self.publish(&inner);
        transition
    }

    /// What is known of it.
    pub fn record(&self, now_ms: i64) -> BreakerRecord {
        let mut inner = self.inner();
        inner.mind_the_clock(now_ms);
        let is_open = inner.state == BreakerState::Open;
        BreakerRecord {
            name: self.name.clone(),
            state: inner.found(now_ms),
            failure_count: inner.failures,
            of_models: inner.of_models.to_vec(),
            model: inner.only.clone().filter(|_| inner.state.is_shut()),
            last_failure: inner.last_failure,
            cause: inner.cause,
            open_until: is_open.then_some(inner.open_until),
            span_ms: inner.span_ms,
            failed_probes: inner.failed_probes,
            changed_at: inner.changed_at,
        }
    }

    /// Takes over what an earlier process knew. A pause that has time left goes on; one that is over, or was being probed,
    /// is followed by a probe.
    pub fn restore(&self, record: &BreakerRecord, now_ms: i64) {
        let mut inner = self.inner();
        inner.state = match record.state {
            BreakerState::HalfOpen => BreakerState::Open,
            state => state,
        };
        inner.failures = record.failure_count;
        inner.of_models = record.of_models.iter().take(MAX_MODELS).cloned().collect();
        inner.only.clone_from(&record.model);
        // The policy is not known here; one answer too few shows it as well again.
        inner.degraded_at = record.failure_count.max(1);
        inner.last_failure = record.last_failure;
        inner.cause = record.cause;
        inner.span_ms = record.span_ms.max(0);
        inner.open_until = record.open_until.unwrap_or(now_ms).min(now_ms.saturating_add(inner.span_ms));
        inner.opened_at = inner.open_until.saturating_sub(inner.span_ms);
        inner.failed_probes = record.failed_probes;
        inner.changed_at = record.changed_at;
        self.publish(&inner);
    }

    fn answered(&self, probe: Option<u64>, model: &str, now_ms: i64) -> Option<Transition> {
        if !self.is_troubled.load(Ordering::Acquire) {
            return None;
        }
        let mut inner = self.inner();
        let transition = match inner.state {
            BreakerState::Closed | BreakerState::Degraded => {
                inner.take_back(model);
                let is_over = inner.state == BreakerState::Degraded && inner.failures < inner.degraded_at;
                is_over.then(|| inner.turn(BreakerState::Closed, "answered", None, now_ms))
            }
            BreakerState::HalfOpen if probe.is_some() && inner.probe == probe => {
                match inner.only.clone() {
                    Some(only) => inner.forget_model(&only),
                    None => inner.forget(),
                }
                inner.failed_probes = 0;
                let is_troubled = inner.failures >= inner.degraded_at.max(1);
                let to = if is_troubled { BreakerState::Degraded } else { BreakerState::Closed };
                Some(inner.turn(to, "answered", None, now_ms))
            }
            BreakerState::Open | BreakerState::HalfOpen if !inner.concerns(model) => {
                inner.take_back(model);
                None
            }
            // An answer to a question from before the outage.
            BreakerState::Open | BreakerState::HalfOpen => None,
        };
        self.publish(&inner);
        transition
    }

    fn failed(
        &self,
        probe: Option<u64>,
        kind: FailureKind,
        (model, connection): (&str, &ConnectionId),
        policy: &BreakerPolicy,
        now_ms: i64,
    ) -> Option<Transition> {
        let mut inner = self.inner();
        inner.last_failure = Some(now_ms);
        inner.cause = Some(kind);
        inner.degraded_at = policy.degradation_threshold.max(1);
        let transition = match inner.state {
            BreakerState::Closed | BreakerState::Degraded => {
                if inner.is_same_burst(connection, now_ms) {
                    None
                } else {
                    inner.count(kind, model);
                    inner.judge(policy, kind, now_ms)
                }
            }
            BreakerState::HalfOpen if probe.is_some() && inner.probe == probe => {
                inner.failed_probes = inner.failed_probes.saturating_add(1);
                inner.count(kind, model);
                Some(inner.open(policy, kind, now_ms))
            }
            // So it is not that model alone.
            BreakerState::Open | BreakerState::HalfOpen if !inner.concerns(model) => {
                if !inner.is_same_burst(connection, now_ms) {
                    inner.count(kind, model);
                }
                let is_of_all = inner.is_of_all(policy.failure_threshold);
                is_of_all.then(|| inner.open(policy, kind, now_ms))
            }
            BreakerState::Open | BreakerState::HalfOpen => None,
        };
        self.publish(&inner);
        transition
    }

    fn publish(&self, inner: &Inner) {
        self.is_shut.store(inner.state.is_shut(), Ordering::Release);
        let is_troubled = inner.failures > 0 || inner.state != BreakerState::Closed;
        self.is_troubled.store(is_troubled, Ordering::Release);
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BreakerState {
    const fn is_shut(self) -> bool {
        matches!(self, Self::Open | Self::HalfOpen)
    }
}

impl Inner {
    /// Whether it is shut for a model, where it is shut.
    fn concerns(&self, model: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only == model)
    }

    /// One more failure.
    fn count(&mut self, kind: FailureKind, model: &str) {
        self.failures = self.failures.saturating_add(1);
        if !is_of_model(kind) {
            return;
        }
        if let Some((_, count)) = self.of_models.iter_mut().find(|(other, _)| **other == *model) {
            *count = count.saturating_add(1);
        } else if self.of_models.len() < MAX_MODELS {
            self.of_models.push((model.into(), 1));
        }
    }

    /// One failure less: of the model that answered, or of nobody's in particular.
    fn take_back(&mut self, model: &str) {
        let of_models: u32 = self.of_models.iter().map(|(_, count)| *count).sum();
        if let Some(at) = self.of_models.iter().position(|(other, _)| **other == *model) {
            self.of_models[at].1 -= 1;
            if self.of_models[at].1 == 0 {
                self.of_models.swap_remove(at);
            }
        } else if of_models >= self.failures {
            return;
        }
        self.failures = self.failures.saturating_sub(1);
    }

    fn forget(&mut self) {
        self.failures = 0;
        self.of_models.clear();
    }

    fn forget_model(&mut self, model: &str) {
        if let Some(at) = self.of_models.iter().position(|(other, _)| **other == *model) {
            let (_, count) = self.of_models.swap_remove(at);
            self.failures = self.failures.saturating_sub(count);
        }
    }

    /// The model with the most failures.
    fn worst(&self) -> Option<&(Arc<str>, u32)> {
        self.of_models.iter().max_by_key(|(_, count)| *count)
    }

    /// Whether half of the failures that open it were not of the model with the most of them.
    fn is_of_all(&self, threshold: u32) -> bool {
        let others = self.failures - self.worst().map_or(0, |(_, count)| *count).min(self.failures);
        others.saturating_mul(2) >= threshold.max(1)
    }

    /// Why nobody may pass with a model now.
    fn refuses(&self, model: &str, now_ms: i64) -> Option<Shut> {
        if !self.concerns(model) {
            return None;
        }
        let cause = self.cause.unwrap_or(FailureKind::Unavailable);
        match self.state {
            BreakerState::Open if now_ms < self.open_until => Some(Shut { until: self.open_until, cause }),
            BreakerState::HalfOpen if self.probe.is_some() => {
                Some(Shut { until: now_ms.saturating_add(PROBE_PAUSE_MS), cause })
            }
            BreakerState::Closed | BreakerState::Degraded | BreakerState::Open | BreakerState::HalfOpen => {
                None
            }
        }
    }

    /// The state as whoever looks after its time finds it: what the next request would.
    fn found(&self, now_ms: i64) -> BreakerState {
        match self.state {
            BreakerState::Open if self.open_until <= now_ms => BreakerState::HalfOpen,
            state => state,
        }
    }

    /// A clock that was set back must not lengthen the pause.
    fn mind_the_clock(&mut self, now_ms: i64) {
        if self.state == BreakerState::Open && now_ms < self.opened_at {
            self.opened_at = now_ms;
            self.open_until = now_ms.saturating_add(self.span_ms);
        }
    }

    /// After one more failure.
    fn judge(&mut self, policy: &BreakerPolicy, kind: FailureKind, now_ms: i64) -> Option<Transition> {
        if self.failures >= policy.failure_threshold.max(1) {
            Some(self.open(policy, kind, now_ms))
        } else if self.failures >= self.degraded_at && self.state == BreakerState::Closed {
            Some(self.turn(BreakerState::Degraded, kind.as_str(), None, now_ms))
        } else {
            None
        }
    }

    fn open(&mut self, policy: &BreakerPolicy, kind: FailureKind, now_ms: i64) -> Transition {
        let only = self.only.take().or_else(|| self.worst().map(|(model, _)| model.clone()));
        let only = only.filter(|_| !self.is_of_all(policy.failure_threshold));
        let doublings = (self.failed_probes + 1).saturating_sub(PATIENT_PROBES).min(10);
        let factor = (1_i64 << doublings).min(MAX_FACTOR);
        self.span_ms = policy.reset_timeout_ms.max(0).saturating_mul(factor);
        self.opened_at = now_ms;
        self.open_until = now_ms.saturating_add(self.span_ms);
        let until = Some(self.open_until);
        let transition = self.turn(BreakerState::Open, kind.as_str(), until, now_ms);
        self.only.clone_from(&only);
        Transition { model: only, ..transition }
    }

    fn turn(&mut self, to: BreakerState, cause: &'static str, until: Option<i64>, now_ms: i64) -> Transition {
        let from = std::mem::replace(&mut self.state, to);
        self.changed_at = now_ms;
        if to != BreakerState::HalfOpen {
            self.probe = None;
        }
        if to == BreakerState::Closed {
            self.failed_probes = 0;
        }
        let model = if to.is_shut() { self.only.clone() } else { self.only.take() };
        Transition { model, from, to, at: now_ms, cause, until }
    }

    /// Whether a failure belongs to one of the same connection that was counted just before.
    fn is_same_burst(&mut self, connection: &ConnectionId, now_ms: i64) -> bool {
        self.recent.retain(|(_, at)| (0..BURST_MS).contains(&now_ms.saturating_sub(*at)));
        if self.recent.iter().any(|(other, _)| other == connection) {
            return true;
        }
        if self.recent.len() < MAX_RECENT {
            self.recent.push((connection.clone(), now_ms));
        }
        false
    }
}

mod apart;
#[cfg(test)]
mod tests;
