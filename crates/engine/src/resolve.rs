//! From the asked model to the accounts that could serve it. In which order they are tried: `attempt/round.rs`.

use std::sync::Arc;

use omniroute_domain::health::Blocked;
use omniroute_domain::policy::Verdict;
use omniroute_domain::resolve::{self, Preference, ResolveError, Route, Suffixes, Target};
use omniroute_domain::snapshot::ConnectionState;
use smallvec::SmallVec;

use crate::admit;
use crate::barred::Unserved;
use crate::ctx::RequestCtx;
use crate::error::GatewayError;
use crate::fallback;
use crate::policy::{self, Steering};
use crate::transform;

/// Accounts of a target.
pub(crate) type Candidates<'t> = SmallVec<[&'t Arc<ConnectionState>; 8]>;

/// Where the request leads; checked against the key.
pub(crate) fn route(ctx: &mut RequestCtx) -> Result<Route, GatewayError> {
    let checked = transform::check(ctx).map_err(Refused::from);
    checked.and_then(|()| allowed_route(ctx)).map_err(|Refused { error, route, unserved, verdict }| {
        match route {
            Some((route, rule)) => ctx.bar(route, rule, &error),
            None => ctx.lose(unserved),
        }
        if let Some(verdict) = verdict {
            ctx.judged(*verdict);
        }
        error
    })
}

/// What the client gets instead of a route.
struct Refused {
    error: GatewayError,
    /// Where the request leads, and the rule that bars it from there.
    route: Option<(Route, &'static str)>,
    /// Whom it leads to where nobody is asked.
    unserved: Vec<Unserved>,
    /// What the policies said, where they had a say in it.
    verdict: Option<Box<Verdict>>,
}

impl From<GatewayError> for Refused {
    fn from(error: GatewayError) -> Self {
        Self { error, route: None, unserved: Vec::new(), verdict: None }
    }
}

impl Refused {
    fn of_policy(error: GatewayError, route: Option<Route>, verdict: &Verdict) -> Self {
        let route = route.map(|route| (route, "policy"));
        Self { route, verdict: Some(Box::new(verdict.clone())), ..Self::from(error) }
    }

    fn of_name(ctx: &RequestCtx, error: ResolveError, verdict: &Verdict) -> Self {
        let unserved = Unserved::of(&ctx.snapshot, &error);
        Self { unserved, verdict: Some(Box::new(verdict.clone())), ..Self::from(GatewayError::from(error)) }
    }

    fn of_key(error: GatewayError, route: Route) -> Self {
        Self { route: Some((route, "key")), ..Self::from(error) }
    }
}

fn allowed_route(ctx: &mut RequestCtx) -> Result<Route, Refused> {
    let requested = ctx.envelope()?.model.clone();
    let mut verdict = policy::of_name(ctx, &requested);
    if let Err(error) = policy::refuse_if_denied(&verdict) {
        let route = found(ctx, &requested, &verdict.preferred_providers).ok().map(|(route, ..)| route);
        return Err(Refused::of_policy(error, route, &verdict));
    }
    let led = found(ctx, &requested, &verdict.preferred_providers);
    let mut rewrite = verdict.rewrite_model.clone();
    let lets_through = |route: &Route, verdict: &Verdict| {
        policy::refuse_if_denied(verdict)
            .map_err(|error| Refused::of_policy(error, Some(route.clone()), verdict))
    };
    match &led {
        Ok((route @ Route::Target(target), ..)) => {
            let verdict = policy::of_target(ctx, &requested, target);
            lets_through(route, &verdict)?;
            rewrite = verdict.rewrite_model.or(rewrite);
        }
        Ok((route @ Route::Combo(combo), ..)) if *combo.name != *requested => {
            verdict = policy::of_combo(ctx, &requested, &combo.name);
            lets_through(route, &verdict)?;
            rewrite.clone_from(&verdict.rewrite_model);
        }
        // What leads nowhere may be another name by a policy.
        Ok((Route::Combo(_), ..)) | Err(_) => {}
    }
    let led = match &rewrite {
        // Once: what a policy makes of a name is final.
        Some(model) => found(ctx, model, &verdict.preferred_providers),
        None => led,
    };
    let (route, mut suffixes, instead_of) = led.map_err(|error| Refused::of_name(ctx, error, &verdict))?;
    if rewrite.is_some() {
        let inner = std::mem::replace(&mut suffixes, resolve::suffixes(&requested));
        suffixes.complete(inner);
        let verdict = match &route {
            Route::Target(target) => policy::of_target(ctx, &requested, target),
            Route::Combo(combo) => policy::of_combo(ctx, &requested, &combo.name),
        };
        lets_through(&route, &verdict)?;
    }
    if suffixes != Suffixes::default() || !verdict.applied.is_empty() || !verdict.observed.is_empty() {
        let (applied, observed) = (verdict.applied.clone(), std::mem::take(&mut verdict.observed));
        ctx.steering = Some(Box::new(Steering { verdict, suffixes, applied, observed }));
    }
    ctx.instead_of = instead_of;
    match route {
        Route::Combo(combo) => {
            if let Err(error) = admit::check_combo(ctx, &combo) {
                return Err(Refused::of_key(error, Route::Combo(combo)));
            }
            ctx.combo = Some(combo.name.clone());
            Ok(Route::Combo(combo))
        }
        Route::Target(target) => {
            let target = unpinned(ctx, target);
            if let Err(error) = admit::check_model(ctx, &ctx.envelope()?.model, &target) {
                return Err(Refused::of_key(error, Route::Target(target)));
            }
            Ok(Route::Target(target))
        }
    }
}

/// Where a name leads, what is said beside it on the way there, and whom it stands in for where that has no account.
type Led = (Route, Suffixes, Vec<Unserved>);

/// Where a name leads, or who stands in where that has no account.
fn found(ctx: &RequestCtx, name: &str, prefer: &[String]) -> Result<Led, ResolveError> {
    let found = match &ctx.arrival.provider {
        Some(provider) => resolve::resolve_at(&ctx.snapshot, provider, name).map(|target| {
            let suffixes = target.suffixes.clone();
            (Route::Target(Arc::new(target)), suffixes)
        }),
        None => {
            let settle = ctx.caller.as_ref().is_some_and(|caller| caller.auto_resolve);
            let preference =
                Preference { prefer, settle, ability: ctx.ability(), caller: ctx.caller.as_deref() };
            let bare = ctx.dialect().bare_model(name);
            let whole = || resolve::resolve_named(&ctx.snapshot, name, preference);
            // The name without what the client's software adds to it, if there is such a model.
            match bare.len() < name.len() {
                true => resolve::resolve_named(&ctx.snapshot, bare, preference).or_else(|_| whole()),
                false => whole(),
            }
        }
    };
    match found {
        Ok((route, suffixes)) => Ok((route, suffixes, Vec::new())),
        Err(error) => match fallback::instead(ctx, name, &error) {
            Some(target) if ctx.arrival.provider.is_none() => {
                let unserved = Unserved::of(&ctx.snapshot, &error);
                Ok((Route::Target(target), resolve::suffixes(name), unserved))
            }
            _ => Err(error),
        },
    }
}

/// `model@account` is part of the name for those who may not choose an account.
fn unpinned(ctx: &RequestCtx, target: Arc<Target>) -> Arc<Target> {
    match &target.connection_name {
        Some(name) if !admit::may_pin(ctx.caller.as_ref()) => Arc::new(Target {
            model: format!("{}@{name}", target.model).into(),
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
    /// It lacks a label that a policy or the combo wants.
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
    obstacle_for(ctx, &policy::wanted_tags(ctx), target, connection, now_ms)
}

/// The same for one of several accounts, of which all need the same labels.
fn obstacle_for(
    ctx: &RequestCtx,
    tags: &[&str],
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
    } else if !connection.has_tags(tags.iter().copied()) {
        Some(Obstacle::Untagged)
    } else {
        connection.check(&target.model, now_ms).err().map(Obstacle::Blocked)
    }
}

/// The accounts that may serve the target now, by priority, and what keeps those back that may later.
pub(crate) fn standing<'t>(
    ctx: &RequestCtx,
    target: &'t Target,
    now_ms: i64,
) -> (Candidates<'t>, SmallVec<[Blocked; 4]>) {
    let tags = policy::wanted_tags(ctx);
    let connections = &target.provider.connections;
    let (mut eligible, mut blocked) = (Candidates::with_capacity(connections.len()), SmallVec::new());
    for connection in connections {
        match obstacle_for(ctx, &tags, target, connection, now_ms) {
            None => eligible.push(connection),
            Some(Obstacle::Blocked(why)) => blocked.push(why),
            Some(Obstacle::Other | Obstacle::Denied | Obstacle::Excluded | Obstacle::Untagged) => {}
        }
    }
    (eligible, blocked)
}
