//! What vendors say of their limits, in the headers of every answer: good ones and failures.

use http::HeaderMap;
use omniroute_domain::limiter::Heard;
use omniroute_domain::resolve::Target;
use omniroute_domain::snapshot::ConnectionState;
use omniroute_provider::allowance::allowances;

use crate::attempt;
use crate::chronicle;
use crate::ctx::RequestCtx;
use crate::ports::{LimitsRow, Memory, QuotaRow};
use crate::serve::Engine;

/// Learns from an answer's head, and has it kept over a restart.
pub(crate) fn learn(ctx: &RequestCtx, target: &Target, connection: &ConnectionState, headers: &HeaderMap) {
    attempt::with_bearer(ctx, connection, |bearer| hear(ctx, target, bearer, headers));
}

fn hear(ctx: &RequestCtx, target: &Target, connection: &ConnectionState, headers: &HeaderMap) {
    let now_ms = ctx.engine.clock.now_ms();
    let said = allowances(headers, target.provider.provider.spec().rate_limit_headers, now_ms);
    let changed = connection.health.gate.learn(&target.model, &said, now_ms);
    // What is known of one of several keys says nothing of the others: it is kept as that key's.
    if let Some(Heard { limits, is_low, is_noted }) = changed {
        if is_low {
            chronicle::quota_is_low(&ctx.engine, connection, &target.model, &limits, now_ms);
        }
        if is_noted {
            ctx.engine.recorder.remember(Memory::Quota(QuotaRow {
                provider: connection.provider.clone(),
                connection: connection.state_id().clone(),
                model: Some(target.model.to_string()),
                limits: Some(limits.clone()),
                plan: None,
                told: None,
                until: limits.left(now_ms).map(|(_, until)| until),
                at: now_ms,
            }));
        }
        ctx.engine.recorder.remember(Memory::Limits(LimitsRow {
            connection: connection.state_id().clone(),
            model: target.model.to_string(),
            limits,
            updated_at: now_ms,
        }));
    }
}

/// Takes over what an earlier process knew.
pub(crate) fn restore(engine: &Engine, row: LimitsRow) {
    let now_ms = engine.clock.now_ms();
    if row.limits.until() > now_ms
        && let Some(state) = engine.live.load().state(&row.connection)
    {
        state.health.gate.restore(&row.model, row.limits, now_ms);
    }
}
