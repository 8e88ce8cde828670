//! What answers use of their account's plan, where the operator says what that allows.

use omniroute_dialect::ir::Usage;
use omniroute_domain::entity::ConnectionId;

use crate::chronicle;
use crate::ctx::RequestCtx;

/// Counts an answer that is billed, once: in the windows of the time when its request came, as vendors do, and the log that
/// counts are restored from.
pub(crate) fn count(ctx: &RequestCtx, connection: &ConnectionId, usage: &Usage, now_ms: i64) {
    if !ctx.snapshot.has_plans {
        return;
    }
    let Some(state) = ctx.snapshot.connection(connection).filter(|state| !state.plan.is_empty()) else {
        return;
    };
    let tokens = usage.input_total().unwrap_or(0).saturating_add(usage.output_total.unwrap_or(0));
    for turn in state.health.plan.add(&state.plan, tokens, ctx.started_ms) {
        chronicle::plan_turned(&ctx.engine, state, turn, now_ms);
    }
}
