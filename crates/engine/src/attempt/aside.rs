//! A call of the gateway's own, whose answer no client gets.

use std::sync::Arc;

use omniroute_dialect::ir::{ChatResponse, ErrorKind};
use omniroute_domain::resolve::Target;

use super::accounts::{self, Patience};
use crate::ctx::RequestCtx;
use crate::error::GatewayError;

/// Has the canonical form of the request answered. Not where a budget is nearly used up: clients need the rest.
pub(crate) async fn aside(ctx: &mut RequestCtx, target: &Arc<Target>) -> Result<ChatResponse, GatewayError> {
    let now_ms = ctx.engine.clock.now_ms();
    ctx.hold_for(std::iter::once(&**target), 1, now_ms)?;
    if ctx.is_warned() {
        let message = "the budget is nearly used up; what is left is for clients";
        return Err(GatewayError::new(ErrorKind::RateLimited, "budget_exceeded", message));
    }
    ctx.decided(target, now_ms);
    accounts::run(ctx, target, Patience::none(false)).await.map_err(|failed| failed.error)?;
    match ctx.material.take() {
        Some(answer) => Ok(*answer),
        None => Err(GatewayError::new(
            ErrorKind::Internal,
            "internal_server_error",
            "an answer of the gateway's own went astray; this is a bug of the gateway",
        )),
    }
}
