//! The rows of a request's attempts, and what follows from each for its account.

use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;
use omniroute_dialect::ir::{AttemptNote, Usage};
use omniroute_domain::resolve::Target;
use omniroute_domain::snapshot::ConnectionState;
use omniroute_provider::{Failure, FailureKind, Scope};

use super::Trying;
use crate::chronicle;
use crate::ctx::RequestCtx;
use crate::handoff;
use crate::ports::{AttemptRow, Departure};
use crate::session;
use crate::time::millis;

/// Writes down an attempt that answered.
pub(crate) fn note_success(
    ctx: &mut RequestCtx,
    target: &Arc<Target>,
    connection: &ConnectionState,
    status: Option<StatusCode>,
    sent: Instant,
) {
    if ctx.about.is_some() {
        return push_row(ctx, target, connection, status, None, sent);
    }
    let now_ms = ctx.engine.clock.now_ms();
    let first = ctx.outcome.first_event.unwrap_or_else(|| ctx.engine.clock.instant());
    let latency = u64::try_from(first.saturating_duration_since(sent).as_millis()).unwrap_or(u64::MAX);
    connection.account().stats.note(Some(latency), now_ms);
    with_bearer(ctx, connection, |state| {
        let recovery = state.health.succeeded(&target.model, now_ms);
        chronicle::recovered(&ctx.engine, state, &target.model, recovery, now_ms);
    });
    session::pin(ctx, target, connection);
    if ctx.trying.is_some() {
        handoff::answered(ctx, target, connection);
    }
    push_row(ctx, target, connection, status, None, sent);
}

/// Writes down an attempt that failed, and what follows for the account.
pub(crate) fn note_failure(
    ctx: &mut RequestCtx,
    target: &Target,
    connection: &ConnectionState,
    failure: &Failure,
    status: Option<StatusCode>,
    sent: Instant,
) {
    if ctx.about.is_some() {
        return push_row(ctx, target, connection, status, Some(failure), sent);
    }
    let now_ms = ctx.engine.clock.now_ms();
    let jitter = ctx.engine.jitter();
    if failure.scope != Scope::Request {
        connection.account().stats.note(None, now_ms);
    }
    with_bearer(ctx, connection, |state| {
        let damage = state.health.failed(&target.model, failure, &state.profile, now_ms, jitter);
        chronicle::failed(&ctx.engine, state, failure, damage, now_ms);
    });
    let status =
        status.or_else(|| failure.upstream.status.and_then(|status| StatusCode::from_u16(status).ok()));
    push_row(ctx, target, connection, status, Some(failure), sent);
}

/// Tells what a call found out to that which bears by now what is known of its key: to nobody where that is gone. The account may
/// have got others since the request began.
pub(crate) fn with_bearer(ctx: &RequestCtx, called: &ConnectionState, tell: impl FnOnce(&ConnectionState)) {
    let live = ctx.engine.live.load();
    if Arc::ptr_eq(&live, &ctx.snapshot) {
        tell(called);
    } else if let Some(bearer) = live.bearer(called) {
        tell(bearer);
    }
}

/// Completes the row of the call that is under way.
pub(super) fn push_row(
    ctx: &mut RequestCtx,
    target: &Target,
    connection: &ConnectionState,
    status: Option<StatusCode>,
    failure: Option<&Failure>,
    sent: Instant,
) {
    if ctx.outcome.calling.is_none() {
        open_row(ctx, target, connection, sent);
    }
    if failure.is_some_and(|failure| is_unrefused(failure.kind)) {
        ctx.note_unheard();
    }
    ctx.outcome.calling = None;
    let usage = std::mem::take(&mut ctx.outcome.usage);
    let units = ctx.outcome.units.take();
    let duration = ctx.engine.clock.instant().saturating_duration_since(sent);
    if let Some(row) = ctx.attempts.last_mut() {
        row.status = status.map(|status| status.as_u16());
        row.failure = failure.map(|failure| failure.kind.as_str());
        row.message = failure.map(|failure| omniroute_provider::scrub::scrub(&failure.upstream.message));
        row.duration_ms = millis(duration);
        row.usage = usage;
        row.units = units;
    }
}

/// Whether a call failed without a word of its upstream that refuses it, so that this may bill it.
const fn is_unrefused(kind: FailureKind) -> bool {
    match kind {
        FailureKind::Timeout | FailureKind::Connect | FailureKind::Empty | FailureKind::Protocol => true,
        FailureKind::RateLimited
        | FailureKind::QuotaSpent
        | FailureKind::AuthRejected
        | FailureKind::Forbidden
        | FailureKind::Banned
        | FailureKind::ModelMissing
        | FailureKind::Overloaded
        | FailureKind::Unavailable
        | FailureKind::AddressBlocked
        | FailureKind::NotAllowed
        | FailureKind::ContextTooLong
        | FailureKind::Refused
        | FailureKind::BadRequest
        // Such an answer was counted before it was judged.
        | FailureKind::InvalidResponse
        // Noted when the request ends.
        | FailureKind::ClientAbort
        | FailureKind::Unknown => false,
    }
}

/// Begins a row that stays as it is when the client goes away before anything was heard.
pub(crate) fn open_row(ctx: &mut RequestCtx, target: &Target, connection: &ConnectionState, sent: Instant) {
    ctx.outcome.calling = Some(sent);
    ctx.outcome.departure = Departure::watched();
    if ctx.attempts.is_empty() {
        // Few requests need a second one.
        ctx.attempts.reserve_exact(1);
    }
    ctx.attempts.push(AttemptRow {
        provider: target.provider.id.clone(),
        model: target.model.clone(),
        connection: connection.id.clone(),
        connection_name: connection.name.clone(),
        path: ctx.trying.as_ref().map(Trying::path).unwrap_or_default(),
        status: None,
        failure: Some(FailureKind::ClientAbort.as_str()),
        message: None,
        duration_ms: 0,
        usage: Usage::default(),
        is_unheard: false,
        units: None,
        cost_nano: None,
    });
}

/// Writes down an attempt whose client went away; says nothing about the account.
pub(crate) fn note_abort(ctx: &mut RequestCtx, target: &Target, connection: &ConnectionState, sent: Instant) {
    push_row(ctx, target, connection, Some(StatusCode::OK), None, sent);
    if let Some(row) = ctx.attempts.last_mut() {
        row.failure = Some(FailureKind::ClientAbort.as_str());
    }
}

/// The attempts as the client is told of them.
pub(crate) fn notes(ctx: &RequestCtx) -> Vec<AttemptNote> {
    ctx.attempts
        .iter()
        .map(|attempt| AttemptNote {
            provider: attempt.provider.to_string(),
            name: match ctx.snapshot.provider(&attempt.provider) {
                Some(provider) => provider.called().to_owned(),
                None => attempt.provider.to_string(),
            },
            model: attempt.model.to_string(),
            status: attempt.status,
            code: attempt.failure.unwrap_or("ok").to_owned(),
            reason: attempt.message.clone().unwrap_or_default(),
        })
        .collect()
}
