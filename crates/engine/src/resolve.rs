//! From the asked model to the accounts that could serve it, in the order in which they are tried.

use std::sync::Arc;

use omniroute_domain::health::Blocked;
use omniroute_domain::resolve::{self, Target};
use omniroute_domain::routing::Choice;
use omniroute_domain::snapshot::ConnectionState;
use smallvec::SmallVec;

use crate::admit;
use crate::ctx::RequestCtx;
use crate::error::GatewayError;

/// Accounts in the order in which they are tried.
pub(crate) type Candidates = SmallVec<[Arc<ConnectionState>; 4]>;

/// An account that cannot serve now, and why.
pub(crate) struct Skipped {
    pub(crate) blocked: Blocked,
}

/// The target of the request; checked against the key.
pub(crate) fn target(ctx: &RequestCtx) -> Result<Target, GatewayError> {
    let requested = &ctx.envelope()?.model;
    let mut target = match &ctx.arrival.provider {
        Some(provider) => resolve::resolve_at(&ctx.snapshot, provider, requested)?,
        None => resolve::resolve(&ctx.snapshot, requested)?,
    };
    if let Some(name) = &target.connection_name
        && !admit::may_pin(ctx.caller.as_ref())
    {
        target.model = format!("{}@{name}", target.model);
        target.connection_name = None;
    }
    admit::check_model(ctx, requested, &target)?;
    Ok(target)
}

/// The accounts that may serve the target now, and those that may later. `tried` are left out.
pub(crate) fn candidates(
    ctx: &RequestCtx,
    target: &Target,
    tried: &[Arc<ConnectionState>],
    now_ms: i64,
) -> (Candidates, SmallVec<[Skipped; 4]>) {
    let mut eligible = Candidates::new();
    let mut skipped = SmallVec::new();
    for connection in &target.provider.connections {
        let is_tried = tried.iter().any(|other| Arc::ptr_eq(other, connection));
        let is_other = target.connection_name.as_ref().is_some_and(|name| **name != *connection.name);
        let is_denied = ctx.caller.as_ref().is_some_and(|caller| !caller.allows_connection(&connection.id));
        if is_tried || is_other || is_denied || connection.excludes(&target.model) {
            continue;
        }
        match connection.health.check(&target.model, now_ms) {
            Ok(()) => eligible.push(connection.clone()),
            Err(blocked) => skipped.push(Skipped { blocked }),
        }
    }
    if eligible.len() < 2 {
        return (eligible, skipped);
    }
    let choice = Choice {
        candidates: eligible.len(),
        turn: ctx.engine.turn(&target.provider.id),
        sticky_limit: ctx.snapshot.settings.sticky_round_robin_limit,
        random: ctx.engine.random(),
    };
    let order = ctx.snapshot.strategy.order(&choice);
    let ordered = order.iter().filter_map(|index| eligible.get(usize::from(*index)).cloned()).collect();
    (ordered, skipped)
}
