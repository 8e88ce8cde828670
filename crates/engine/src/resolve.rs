//! From the asked model to the accounts that could serve it. In which order they are tried: `attempt/round.rs`.

use std::sync::Arc;

use omniroute_domain::health::Blocked;
use omniroute_domain::resolve::{self, Route, Target};
use omniroute_domain::snapshot::ConnectionState;
use smallvec::SmallVec;

use crate::admit;
use crate::ctx::RequestCtx;
use crate::error::GatewayError;

/// Accounts of a provider.
pub(crate) type Candidates = SmallVec<[Arc<ConnectionState>; 4]>;

/// Where the request leads; checked against the key.
pub(crate) fn route(ctx: &mut RequestCtx) -> Result<Route, GatewayError> {
    let requested = &ctx.envelope()?.model;
    let bare = ctx.dialect().bare_model(requested);
    let route = match &ctx.arrival.provider {
        Some(provider) => Route::Target(Arc::new(resolve::resolve_at(&ctx.snapshot, provider, requested)?)),
        // The name without what the client's software adds to it, if there is such a model.
        None if bare.len() < requested.len() => {
            resolve::resolve(&ctx.snapshot, bare).or_else(|_| resolve::resolve(&ctx.snapshot, requested))?
        }
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

/// Why an account is not asked.
pub(crate) enum Obstacle {
    /// The request names another account, or an answer of another one.
    Other,
    /// The key may not use it.
    Denied,
    /// The operator keeps the model off it.
    Excluded,
    /// It lacks a tag that the request requires.
    Untagged,
    /// A cooldown, a lock, an open breaker, or a state that only the operator ends.
    Blocked(Blocked),
}

/// What keeps an account from serving the target now.
pub(crate) fn obstacle(
    ctx: &RequestCtx,
    target: &Target,
    connection: &ConnectionState,
    now_ms: i64,
) -> Option<Obstacle> {
    let is_other = target.connection_name.as_ref().is_some_and(|name| **name != *connection.name)
        || ctx.pinned.as_ref().is_some_and(|pinned| *pinned != connection.id);
    if is_other {
        Some(Obstacle::Other)
    } else if ctx.caller.as_ref().is_some_and(|caller| !caller.allows_connection(&connection.id)) {
        Some(Obstacle::Denied)
    } else if connection.excludes(&target.model) {
        Some(Obstacle::Excluded)
    } else if !connection.has_tags(ctx.required_tags.iter().map(|tag| &**tag)) {
        Some(Obstacle::Untagged)
    } else {
        connection.check(&target.model, now_ms).err().map(Obstacle::Blocked)
    }
}

/// The accounts that may serve the target now, by priority, and what keeps those back that may later.
pub(crate) fn standing(
    ctx: &RequestCtx,
    target: &Target,
    now_ms: i64,
) -> (Candidates, SmallVec<[Blocked; 4]>) {
    let (mut eligible, mut blocked) = (Candidates::new(), SmallVec::new());
    for connection in &target.provider.connections {
        match obstacle(ctx, target, connection, now_ms) {
            None => eligible.push(connection.clone()),
            Some(Obstacle::Blocked(why)) => blocked.push(why),
            Some(Obstacle::Other | Obstacle::Denied | Obstacle::Excluded | Obstacle::Untagged) => {}
        }
    }
    (eligible, blocked)
}
