//! From the asked model to the accounts that could serve it, in the order in which they are tried.

use std::sync::Arc;

use omniroute_domain::health::Blocked;
use omniroute_domain::resolve::{self, Route, Target};
use omniroute_domain::routing::{Candidate, Choice};
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

/// Where the request leads; checked against the key.
pub(crate) fn route(ctx: &mut RequestCtx) -> Result<Route, GatewayError> {
    let requested = &ctx.envelope()?.model;
    let route = match &ctx.arrival.provider {
        Some(provider) => Route::Target(Arc::new(resolve::resolve_at(&ctx.snapshot, provider, requested)?)),
        None => resolve::resolve(&ctx.snapshot, requested)?,
    };
    match route {
        Route::Combo(combo) => {
            ctx.combo = Some(combo.name.clone());
            Ok(Route::Combo(combo))
        }
        Route::Target(target) => {
            let target = unpinned(ctx, target);
            admit::check_model(ctx, &ctx.envelope()?.model, &target)?;
            Ok(Route::Target(target))
        }
    }
}

/// `model@account` is part of the name for those who may not choose an account.
fn unpinned(ctx: &RequestCtx, target: Arc<Target>) -> Arc<Target> {
    match &target.connection_name {
        Some(name) if !admit::may_pin(ctx.caller.as_ref()) => Arc::new(Target {
            model: format!("{}@{name}", target.model),
            connection_name: None,
            ..Target::clone(&target)
        }),
        _ => target,
    }
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
        let is_other = is_other || ctx.pinned.as_ref().is_some_and(|pinned| *pinned != connection.id);
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
    let facts: SmallVec<[Candidate; 4]> = match ctx.snapshot.strategy.wants().stats {
        true => eligible.iter().map(|connection| candidate(connection, now_ms)).collect(),
        false => eligible.iter().map(|_| Candidate::default()).collect(),
    };
    let order = ctx.snapshot.strategy.order(&Choice {
        candidates: &facts,
        turn: ctx.engine.turn(&target.provider.id),
        sticky: ctx.snapshot.settings.sticky_round_robin_limit,
        random: ctx.engine.random(),
        seed: 0,
    });
    let ordered = order.iter().filter_map(|index| eligible.get(usize::from(*index)).cloned()).collect();
    (ordered, skipped)
}

/// What is known of an account that can serve.
fn candidate(connection: &ConnectionState, now_ms: i64) -> Candidate {
    let (health, in_flight) = (&connection.health, connection.health.in_flight());
    Candidate {
        success_rate: health.stats.success_rate(now_ms),
        latency_ms: health.stats.latency_ms(),
        uses: health.stats.uses(now_ms) + u64::from(in_flight),
        load: connection.max_concurrent.map_or(0.0, |most| f64::from(in_flight) / f64::from(most.max(1))),
        ..Candidate::default()
    }
}
