//! Changes in the state of accounts, models and providers: into the log, the timeline, and what is kept for the time
//! after a restart. Nothing is written while nothing changes.

use std::sync::Arc;

use omniroute_domain::breaker::{Breaker, BreakerState, Transition};
use omniroute_domain::entity::{ConnectionStatus, Reset};
use omniroute_domain::health::{Damage, ModelLock, Recovery};
use omniroute_domain::limiter::LearnedLimits;
use omniroute_domain::plan::PlanTurn;
use omniroute_domain::snapshot::{ConnectionState, Moved, MovedLock};
use omniroute_domain::timeline::{EventKind, HealthEvent};
use omniroute_domain::vendor_quota::{Standing, Turn};
use omniroute_provider::quota_api::Reading;
use omniroute_provider::{Failure, FailureKind, ProviderId};

use crate::live::Live;
use crate::ports::{LockRow, Memory, QuotaRow, Recorder};
use crate::quota_look::Looker;
use crate::serve::Engine;

const FREE: &str = "available";
const LOCKED: &str = "locked";
const COOLING: &str = "cooldown";
const ANSWERED: &str = "answered";
const OPERATOR: &str = "operator";

/// The operator ends what would end by itself later. How much of it was in force: breakers that were not closed, or had failures,
/// cooldowns, locks.
pub fn reset(live: &Live, recorder: &dyn Recorder, reset: &Reset, now_ms: i64) -> usize {
    let snapshot = live.load().clone();
    let is_at = |wanted: &Option<ProviderId>, it: &ProviderId| wanted.as_ref().is_none_or(|id| id == it);
    match reset {
        Reset::Breakers { provider } => {
            let breakers = snapshot.breakers().into_iter().filter(|it| is_at(provider, &it.provider));
            breakers.filter(|breaker| reset_breaker(live, recorder, breaker, now_ms)).count()
        }
        Reset::Cooldowns { provider } => {
            let accounts = snapshot.connections().filter(|account| is_at(provider, &account.provider));
            accounts.map(|account| warm_up(live, recorder, account, now_ms)).sum()
        }
        Reset::Locks { provider, connection, model } => {
            let is_meant = |account: &&Arc<ConnectionState>| {
                is_at(provider, &account.provider) && connection.as_ref().is_none_or(|id| *id == account.id)
            };
            let accounts = snapshot.connections().filter(is_meant);
            accounts.map(|account| unlock(live, recorder, account, model.as_deref(), now_ms)).sum()
        }
    }
}

/// Closes a breaker. Whether it was anything else, or had failures.
fn reset_breaker(live: &Live, recorder: &dyn Recorder, breaker: &Breaker, now_ms: i64) -> bool {
    let had_failures = breaker.record(now_ms).failure_count > 0;
    let transition = breaker.reset(now_ms);
    let was_another = transition.is_some();
    note(live, recorder, breaker, transition);
    was_another || had_failures
}

/// Ends the locks of an account and of its keys, of one model or of all. How many were in force.
fn unlock(
    live: &Live,
    recorder: &dyn Recorder,
    connection: &ConnectionState,
    model: Option<&str>,
    now_ms: i64,
) -> usize {
    let ended: Vec<ModelLock> = connection.health.locks(now_ms);
    let mut count = connection.health.unlock(model, now_ms);
    for lock in ended.into_iter().filter(|lock| model.is_none_or(|model| *model == lock.model)) {
        let event = event(connection, EventKind::Lock, (LOCKED, FREE), OPERATOR, now_ms);
        let (connection, model) = (connection.state_id().clone(), lock.model.clone());
        recorder.remember(Memory::Unlock { connection, model });
        add(live, HealthEvent { model: Some(lock.model), ..event });
    }
    for key in &connection.pool {
        count += unlock(live, recorder, key, model, now_ms);
    }
    count
}

/// Ends the cooldowns of an account and of its keys. How many there were.
fn warm_up(live: &Live, recorder: &dyn Recorder, connection: &ConnectionState, now_ms: i64) -> usize {
    let mut count = 0;
    if let Some(status) = connection.health.warm_up(now_ms) {
        add(live, event(connection, EventKind::Cooldown, (COOLING, FREE), OPERATOR, now_ms));
        recorder.connection_status(connection.state_id(), status);
        count += 1;
    }
    for key in &connection.pool {
        count += warm_up(live, recorder, key, now_ms);
    }
    count
}

/// The operator acted, or a test went well: nothing keeps the account or any of its keys back. `status` is what is stored of
/// the account; that of the keys is stored here.
pub fn clear(
    live: &Live,
    recorder: &dyn Recorder,
    connection: &ConnectionState,
    status: ConnectionStatus,
    now_ms: i64,
) {
    unlock(live, recorder, connection, None, now_ms);
    connection.health.clear(status);
    for key in &connection.pool {
        key.health.clear(ConnectionStatus::default());
        recorder.connection_status(key.state_id(), ConnectionStatus::default());
    }
}

/// What is known holds for another account or key than it did, or for none. What is about to be written of the one before, since
/// a moment or by a request that is still running, is written over.
pub(crate) fn moved(recorder: &dyn Recorder, moved: Moved) {
    for (id, status) in moved.statuses {
        recorder.connection_status(&id, status);
    }
    for MovedLock { provider, from, to, lock } in moved.locks {
        recorder.remember(Memory::Unlock { connection: from, model: lock.model.clone() });
        if let Some(connection) = to {
            recorder.remember(Memory::Lock(LockRow { provider, connection, lock }));
        }
    }
}

/// A breaker changed its state, if it did.
pub(crate) fn turned(engine: &Engine, breaker: &Breaker, transition: Option<Transition>) {
    note(&engine.live, &*engine.recorder, breaker, transition);
}

fn note(live: &Live, recorder: &dyn Recorder, breaker: &Breaker, transition: Option<Transition>) {
    let Some(Transition { model, from, to, at, cause, until }) = transition else { return };
    let model = model.as_deref();
    let (name, until_text) = (&*breaker.name, until.map(crate::error::rfc3339));
    match to {
        BreakerState::Open => {
            tracing::warn!(
                breaker = name,
                model,
                from = from.as_str(),
                cause,
                until = until_text,
                "breaker opened"
            );
        }
        BreakerState::Closed | BreakerState::Degraded | BreakerState::HalfOpen => {
            tracing::info!(
                breaker = name,
                model,
                from = from.as_str(),
                to = to.as_str(),
                cause,
                "breaker changed"
            );
        }
    }
    let event = HealthEvent {
        at,
        kind: EventKind::Breaker,
        provider: breaker.provider.clone(),
        breaker: Some(breaker.name.clone()),
        connection: None,
        key: None,
        model: model.map(str::to_owned),
        from: from.as_str(),
        to: to.as_str(),
        cause,
        until,
    };
    live.notices.health(&event);
    live.health.timeline.add(event);
    recorder.remember(Memory::Breaker(breaker.record(at)));
}

/// A call failed.
pub(crate) fn failed(
    engine: &Engine,
    connection: &ConnectionState,
    failure: &Failure,
    damage: Damage,
    now_ms: i64,
) {
    let cause = failure.kind.as_str();
    let Damage { status, lock, cooldown, is_new, terminal } = damage;
    if let Some(lock) = lock {
        if is_new {
            let event = event(connection, EventKind::Lock, (FREE, LOCKED), cause, now_ms);
            add(
                &engine.live,
                HealthEvent { model: Some(lock.model.clone()), until: Some(lock.until), ..event },
            );
        }
        let (provider, connection) = (connection.provider.clone(), connection.state_id().clone());
        engine.recorder.remember(Memory::Lock(LockRow { provider, connection, lock }));
    }
    if let Some(terminal) = terminal {
        add(&engine.live, event(connection, EventKind::Cooldown, (FREE, terminal.as_str()), cause, now_ms));
    } else if let Some(until) = cooldown.filter(|_| is_new) {
        let event = event(connection, EventKind::Cooldown, (FREE, COOLING), cause, now_ms);
        add(&engine.live, HealthEvent { until: Some(until), ..event });
    }
    if let Some(status) = status {
        engine.recorder.connection_status(connection.state_id(), status);
    }
    if failure.kind == FailureKind::QuotaSpent && is_new {
        engine.recorder.remember(Memory::Quota(QuotaRow {
            provider: connection.provider.clone(),
            connection: connection.state_id().clone(),
            model: None,
            limits: None,
            plan: None,
            told: None,
            until: cooldown,
            at: now_ms,
        }));
    }
    if failure.kind == FailureKind::QuotaSpent {
        connection.account().vendor.ask_soon(now_ms);
    }
}

/// The vendor's headers say that little is left.
pub(crate) fn quota_is_low(
    engine: &Engine,
    connection: &ConnectionState,
    model: &str,
    limits: &LearnedLimits,
    now_ms: i64,
) {
    let Some((left, until)) = limits.left(now_ms) else { return };
    let to = if left <= 0.0 { "exhausted" } else { "low" };
    let event = event(connection, EventKind::Quota, (FREE, to), "headers", now_ms);
    add(&engine.live, HealthEvent { model: Some(model.to_owned()), until: Some(until), ..event });
}

/// A window of an account's plan is nearly used up, or wholly; or it is time to write down what is left of it.
pub(crate) fn plan_turned(engine: &Engine, connection: &ConnectionState, turn: PlanTurn, now_ms: i64) {
    let PlanTurn { name, share, until, is_told } = turn;
    if is_told {
        let to = if share <= 0.0 { "exhausted" } else { "low" };
        let event = event(connection, EventKind::Quota, (FREE, to), "plan", now_ms);
        add(&engine.live, HealthEvent { until: Some(until), ..event });
    }
    engine.recorder.remember(Memory::Quota(QuotaRow {
        provider: connection.provider.clone(),
        connection: connection.id.clone(),
        model: None,
        limits: None,
        plan: Some((name, share)),
        told: None,
        until: Some(until),
        at: now_ms,
    }));
}

/// The vendor said, when it was asked, what is left.
pub(crate) fn vendor_told(
    looker: &Looker<'_>,
    connection: &ConnectionState,
    reading: &Reading,
    turn: &Turn,
    now_ms: i64,
) {
    let word = |standing: Standing| match standing {
        Standing::Fine => FREE,
        Standing::Low => "low",
        Standing::Spent => "exhausted",
    };
    if turn.from != turn.to {
        let event = event(connection, EventKind::Quota, (word(turn.from), word(turn.to)), "provider", now_ms);
        add(looker.live, HealthEvent { until: turn.until, ..event });
    }
    if turn.to > turn.from {
        tracing::warn!(
            provider = %connection.provider,
            connection = %connection.id,
            left = turn.share.map(|share| format!("{:.1} %", share * 100.0)),
            until = turn.until.map(crate::error::rfc3339),
            "{}",
            if turn.to == Standing::Spent { "nothing is left at the provider" } else { "little is left at the provider" }
        );
    }
    for quota in reading.quotas.iter().filter(|_| turn.is_noted) {
        looker.recorder.remember(Memory::Quota(QuotaRow {
            provider: connection.provider.clone(),
            connection: connection.id.clone(),
            model: None,
            limits: None,
            plan: None,
            told: Some(Box::new(quota.clone())),
            until: quota.reset_at,
            at: now_ms,
        }));
    }
}

/// A call went well.
pub(crate) fn recovered(
    engine: &Engine,
    connection: &ConnectionState,
    model: &str,
    recovery: Recovery,
    now_ms: i64,
) {
    let Recovery { status, was_locked, was_cooling } = recovery;
    if was_locked {
        let event = event(connection, EventKind::Lock, (LOCKED, FREE), ANSWERED, now_ms);
        add(&engine.live, HealthEvent { model: Some(model.to_owned()), ..event });
        let (connection, model) = (connection.state_id().clone(), model.to_owned());
        engine.recorder.remember(Memory::Unlock { connection, model });
    }
    if was_cooling {
        add(&engine.live, event(connection, EventKind::Cooldown, (COOLING, FREE), ANSWERED, now_ms));
    }
    if let Some(status) = status {
        engine.recorder.connection_status(connection.state_id(), status);
    }
}

/// Takes over what an earlier process knew; what has ended meanwhile, or belongs to nobody any more, is dropped.
pub(crate) fn restore(engine: &Engine, memory: Memory) {
    let now_ms = engine.clock.now_ms();
    match memory {
        Memory::Breaker(record) => engine.live.health.restore_breaker(&record, now_ms),
        Memory::Lock(LockRow { connection, lock, .. }) if lock.until > now_ms => {
            // Of an account, or of one of its keys.
            if let Some(state) = engine.live.load().state(&connection) {
                state.health.restore_lock(lock);
            }
        }
        Memory::Lock(_)
        | Memory::Unlock { .. }
        | Memory::Reasoning(_)
        | Memory::Owner(_)
        | Memory::Limits(_)
        | Memory::Quota(_)
        | Memory::Pinned(_)
        | Memory::Unpinned(_)
        | Memory::Handoff(_)
        | Memory::HandoffGone(_)
        | Memory::Answer(_)
        | Memory::AnswerUsed { .. }
        | Memory::Question(_)
        | Memory::AnswersCleared { .. } => {}
    }
}

fn event(
    connection: &ConnectionState,
    kind: EventKind,
    (from, to): (&'static str, &'static str),
    cause: &'static str,
    at: i64,
) -> HealthEvent {
    HealthEvent {
        at,
        kind,
        provider: connection.provider.clone(),
        breaker: None,
        connection: Some(connection.id.clone()),
        key: connection.key.as_ref().map(|key| key.state_id.clone()),
        model: None,
        from,
        to,
        cause,
        until: None,
    }
}

fn add(live: &Live, event: HealthEvent) {
    tracing::info!(
        provider = %event.provider,
        connection = event.key.as_ref().or(event.connection.as_ref()).map(tracing::field::display),
        model = event.model.as_deref(),
        from = event.from,
        to = event.to,
        cause = event.cause,
        until = event.until.map(crate::error::rfc3339),
        "standing changed"
    );
    live.notices.health(&event);
    live.health.timeline.add(event);
}
