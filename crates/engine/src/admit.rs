//! Admission: who is asking, and may they? Before the body is read: key, origin, address, endpoint. After it: model
//! and limits.

use std::net::IpAddr;
use std::sync::Arc;

use http::header::{AUTHORIZATION, FORWARDED, HOST, HeaderName, ORIGIN};
use omniroute_dialect::ir::ErrorKind;
use omniroute_domain::combo::ComboState;
use omniroute_domain::entity::KeyHash;
use omniroute_domain::limit::Meter;
use omniroute_domain::resolve::Target;
use omniroute_domain::snapshot::Caller;
use smallvec::SmallVec;

use crate::ctx::RequestCtx;
use crate::error::GatewayError;
use crate::policy;
use crate::ports::{Charge, Exceeded, Reserving};
use crate::serve::KeyPolicy;

const KEY_HEADERS: [HeaderName; 2] =
    [HeaderName::from_static("x-api-key"), HeaderName::from_static("x-goog-api-key")];

/// Finds out who is asking and whether they may call this endpoint at all.
pub(crate) fn identify(ctx: &mut RequestCtx) -> Result<(), GatewayError> {
    if let Some(caller) = known_caller(ctx) {
        check_key(&caller, ctx)?;
        ctx.caller = Some(caller);
        return Ok(());
    }
    if !is_key_required(ctx) {
        return check_origin(ctx);
    }
    Err(unauthenticated(if sent_keys(ctx).is_empty() {
        "Missing API key; send one of this gateway's keys as `Authorization: Bearer` or `x-api-key`"
    } else {
        "Invalid API key; it is not one of this gateway's keys"
    }))
}

/// Whose key was sent, whether or not it may be used.
pub(crate) fn known_caller(ctx: &RequestCtx) -> Option<Arc<Caller>> {
    sent_keys(ctx).iter().find_map(|key| ctx.snapshot.caller(KeyHash::of(key))).cloned()
}

/// Whether a known key may be used now, from here, for this.
fn check_key(caller: &Caller, ctx: &RequestCtx) -> Result<(), GatewayError> {
    check_term(caller, ctx)?;
    if !caller.allows_address(ctx.arrival.peer.ip()) {
        return Err(forbidden("forbidden", "This API key may not be used from this address"));
    }
    check_use(caller, ctx)
}

/// Whether the key of a request that is only looked at may be used for it. Where from nobody knows.
pub(crate) fn would_identify(ctx: &RequestCtx) -> Result<(), GatewayError> {
    let Some(caller) = &ctx.caller else { return Ok(()) };
    check_term(caller, ctx)?;
    check_use(caller, ctx)
}

fn check_term(caller: &Caller, ctx: &RequestCtx) -> Result<(), GatewayError> {
    if !caller.is_active {
        return Err(unauthenticated("This API key is switched off"));
    }
    if caller.expires_at.is_some_and(|end| end <= ctx.started_ms) {
        return Err(unauthenticated("This API key has expired"));
    }
    Ok(())
}

fn check_use(caller: &Caller, ctx: &RequestCtx) -> Result<(), GatewayError> {
    if !caller.allows_time(ctx.started_ms) {
        return Err(forbidden(
            "forbidden",
            "This API key may not be used at this time; see its accessSchedule",
        ));
    }
    if !caller.allows_endpoint(ctx.arrival.endpoint) {
        let endpoint = ctx.arrival.endpoint;
        return Err(forbidden("forbidden", format!("This API key may not call the endpoint `{endpoint}`")));
    }
    Ok(())
}

/// Whether the key may use the target under any of its names.
pub(crate) fn check_model(ctx: &RequestCtx, requested: &str, target: &Target) -> Result<(), GatewayError> {
    if may_use(ctx, requested, target) {
        return Ok(());
    }
    let message = format!("This API key may not use the model `{requested}`");
    Err(forbidden("model_not_allowed", message).param("model"))
}

/// Whether the key may use a target that was asked for by this name.
pub(crate) fn may_use(ctx: &RequestCtx, requested: &str, target: &Target) -> bool {
    let Some(caller) = ctx.caller.as_ref().filter(|caller| caller.restricts_models()) else { return true };
    let by_alias = target.full_name();
    let by_id = format!("{}/{}", target.provider.id, target.model);
    caller.allows_model(&[requested, &target.model, &by_alias, &by_id])
}

/// Whether the key may ask for a combo at all.
pub(crate) fn check_combo(ctx: &RequestCtx, combo: &ComboState) -> Result<(), GatewayError> {
    let Some(caller) = &ctx.caller else { return Ok(()) };
    let is_denied = || {
        let in_full = format!("combo/{}", combo.name);
        caller.denies_model(&[asked_as(ctx, combo), &combo.name, &in_full])
    };
    if caller.allows_combo(&combo.name) && !(caller.restricts_models() && is_denied()) {
        return Ok(());
    }
    let message = format!("This API key may not use the combo `{}`", combo.name);
    Err(forbidden("model_not_allowed", message).param("model"))
}

/// Whether the key may use a target of a combo. One that it names brings its targets with it, but for denied ones.
pub(crate) fn may_use_in(ctx: &RequestCtx, combo: &ComboState, target: &Target) -> bool {
    let Some(caller) = ctx.caller.as_ref().filter(|caller| caller.restricts_models()) else { return true };
    let by_alias = target.full_name();
    let by_id = format!("{}/{}", target.provider.id, target.model);
    if caller.lists_combo(&combo.name) {
        return !caller.denies_model(&[&target.model, &by_alias, &by_id]);
    }
    let (requested, in_full) = (asked_as(ctx, combo), format!("combo/{}", combo.name));
    caller.allows_model(&[requested, &combo.name, &in_full, &target.model, &by_alias, &by_id])
}

/// What the client calls a combo; one that a budget sends it to it does not call anything.
fn asked_as<'a>(ctx: &'a RequestCtx, combo: &'a ComboState) -> &'a str {
    if ctx.money.thrift.is_some() { &combo.name } else { ctx.requested() }
}

/// Whether a provider has an account that the request may use for a model at all, now or later. Those are passed over that
/// the key may not use, that are for other models, or that lack a label.
pub(crate) fn has_account(ctx: &RequestCtx, combo: &ComboState, target: &Target) -> bool {
    let tags = policy::wanted_tags(ctx);
    target.provider.connections.iter().any(|connection| {
        ctx.pinned.as_ref().is_none_or(|pinned| *pinned == connection.id)
            && target.connection_name.as_ref().is_none_or(|name| **name == *connection.name)
            && ctx.caller.as_ref().is_none_or(|caller| caller.allows_connection(&connection.id))
            && !connection.excludes(&target.model)
            && connection.has_tags(combo.rules.tags.iter().map(String::as_str))
            && connection.has_tags(tags.iter().copied())
    })
}

/// Reserves the request against the key's limits, once; settled when the request is recorded.
pub(crate) async fn reserve(ctx: &mut RequestCtx) -> Result<(), GatewayError> {
    let Some(caller) = ctx.caller.clone() else { return Ok(()) };
    if caller.limits.is_empty() || !ctx.charges.is_empty() {
        return Ok(());
    }
    let charges = charges(ctx, &caller);
    take(ctx, charges).await
}

/// The same for a request whose tokens nobody reads for an answer: it counts as a request only.
pub(crate) async fn reserve_uncounted(ctx: &mut RequestCtx) -> Result<(), GatewayError> {
    let Some(caller) = ctx.caller.clone() else { return Ok(()) };
    let charges = uncounted(ctx, &caller);
    if charges.is_empty() {
        return Ok(());
    }
    take(ctx, charges).await
}

fn uncounted(ctx: &RequestCtx, caller: &Caller) -> Charges {
    let mut charges = charges(ctx, caller);
    charges.retain(|charge| charge.meter != Meter::TokensPerMinute);
    charges
}

async fn take(ctx: &mut RequestCtx, charges: Charges) -> Result<(), GatewayError> {
    let counters = ctx.engine.counters.clone();
    let verdict = match counters.reserve(&charges, ctx.started_ms) {
        Reserving::Ready(verdict) => verdict,
        Reserving::Waiting(pending) => pending.await,
    };
    ctx.standings = verdict.standings;
    match verdict.exceeded {
        None => {
            ctx.charges = charges;
            Ok(())
        }
        Some(exceeded) => Err(limit_exceeded(exceeded)),
    }
}

/// Whether the key's limits have room for a request that is only looked at.
pub(crate) async fn would_reserve(ctx: &RequestCtx) -> Result<(), GatewayError> {
    would_take(ctx, charges).await
}

/// The same for a request whose tokens nobody reads for an answer.
pub(crate) async fn would_reserve_uncounted(ctx: &RequestCtx) -> Result<(), GatewayError> {
    would_take(ctx, uncounted).await
}

async fn would_take(
    ctx: &RequestCtx,
    charges: impl Fn(&RequestCtx, &Caller) -> Charges,
) -> Result<(), GatewayError> {
    let Some(caller) = ctx.caller.as_ref().filter(|caller| !caller.limits.is_empty()) else { return Ok(()) };
    let charges = charges(ctx, caller);
    if charges.is_empty() {
        return Ok(());
    }
    let verdict = match ctx.engine.counters.foresee(&charges, ctx.started_ms) {
        Reserving::Ready(verdict) => verdict,
        Reserving::Waiting(pending) => pending.await,
    };
    verdict.exceeded.map_or(Ok(()), |exceeded| Err(limit_exceeded(exceeded)))
}

/// What a request takes of its key's limits.
type Charges = SmallVec<[Charge; 4]>;

fn charges(ctx: &RequestCtx, caller: &Caller) -> Charges {
    let tokens = i64::try_from(ctx.estimated_input_tokens()).unwrap_or(i64::MAX);
    let charge = |&(meter, limit): &(Meter, u64)| Charge {
        key: caller.id.clone(),
        meter,
        limit,
        amount: if meter == Meter::TokensPerMinute { tokens } else { 1 },
    };
    caller.limits.iter().map(charge).collect()
}

fn limit_exceeded(exceeded: Exceeded) -> GatewayError {
    let Exceeded { meter, limit, retry_after } = exceeded;
    let message = format!("This API key is limited to {limit} {}", meter.describe());
    GatewayError::new(ErrorKind::RateLimited, "rate_limit_exceeded", message)
        .retry_after(Some(retry_after.unwrap_or(std::time::Duration::from_secs(1))))
}

/// Every key the client sent, in the order in which they are believed.
fn sent_keys(ctx: &RequestCtx) -> smallvec::SmallVec<[&str; 2]> {
    let headers = &ctx.arrival.headers;
    let mut keys = smallvec::SmallVec::new();
    if let Some(value) = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok())
        && let Some((scheme, key)) = value.trim().split_once(' ')
        && scheme.eq_ignore_ascii_case("bearer")
        && !key.trim().is_empty()
    {
        keys.push(key.trim());
    }
    for name in &KEY_HEADERS {
        if let Some(key) = headers.get(name).and_then(|value| value.to_str().ok())
            && !key.trim().is_empty()
        {
            keys.push(key.trim());
        }
    }
    keys
}

fn is_key_required(ctx: &RequestCtx) -> bool {
    match ctx.engine.options.key_policy {
        KeyPolicy::Required => true,
        KeyPolicy::Optional => false,
        KeyPolicy::OptionalOnLoopback => {
            // What a proxy on this machine forwards may come from anywhere.
            let headers = &ctx.arrival.headers;
            let is_forwarded = headers.contains_key("x-forwarded-for") || headers.contains_key(FORWARDED);
            is_forwarded || !ctx.arrival.peer.ip().to_canonical().is_loopback()
        }
    }
}

/// No web page may spend a local user's accounts: without a key, a browser's foreign origin is refused, and so is a
/// host name that somebody else's DNS points at this machine.
fn check_origin(ctx: &RequestCtx) -> Result<(), GatewayError> {
    let headers = &ctx.arrival.headers;
    let host = headers.get(HOST).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let public = ctx.snapshot.settings.public_url.as_deref().and_then(host_of_url);
    if let Some(origin) = headers.get(ORIGIN) {
        let origin = origin.to_str().unwrap_or("null");
        let listed = ctx.engine.options.cors_origins.iter().any(|allowed| allowed == origin);
        let is_web = origin == "null" || origin.starts_with("http://") || origin.starts_with("https://");
        let own = host_of_url(origin).is_some_and(|name| {
            is_loopback_name(name) || Some(name) == public || origin_host(origin) == Some(host)
        });
        if is_web && !listed && !own {
            let message = format!(
                "Web pages of `{origin}` may not call this gateway without a key; send one, or add the origin to CORS_ORIGINS"
            );
            return Err(forbidden("origin_not_allowed", message));
        }
    }
    let name = without_port(host);
    let named = host.is_empty() || name == "localhost" || parse_ip(name).is_some() || Some(name) == public;
    if ctx.arrival.peer.ip().to_canonical().is_loopback() && !named {
        let message =
            format!("`{name}` is not a name of this gateway; call it as localhost, or set publicUrl");
        return Err(forbidden("origin_not_allowed", message));
    }
    Ok(())
}

fn origin_host(origin: &str) -> Option<&str> {
    origin.split_once("://").map(|(_, host)| host)
}

fn host_of_url(url: &str) -> Option<&str> {
    let rest = url.split_once("://")?.1;
    let authority = rest.split(['/', '?', '#']).next()?;
    Some(without_port(authority))
}

fn without_port(authority: &str) -> &str {
    if authority.starts_with('[') {
        return authority.split_inclusive(']').next().unwrap_or(authority);
    }
    authority.rsplit_once(':').map_or(authority, |(host, _)| host)
}

fn parse_ip(name: &str) -> Option<IpAddr> {
    name.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

fn is_loopback_name(name: &str) -> bool {
    name == "localhost" || parse_ip(name).is_some_and(|ip| ip.to_canonical().is_loopback())
}

fn unauthenticated(message: &str) -> GatewayError {
    GatewayError::new(ErrorKind::Authentication, "invalid_api_key", message)
}

fn forbidden(code: &'static str, message: impl Into<String>) -> GatewayError {
    GatewayError::new(ErrorKind::Permission, code, message)
}

/// Whether a caller may name the account it wants (`model@account`).
pub(crate) fn may_pin(caller: Option<&Arc<Caller>>) -> bool {
    caller.is_some_and(|caller| {
        caller.has_scope(omniroute_domain::entity::Scope::Manage) || caller.restricts_connections()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_lose_their_port_and_keep_their_brackets() {
        for (authority, host) in [
            ("localhost:20128", "localhost"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
            ("a.example", "a.example"),
        ] {
            assert_eq!(without_port(authority), host);
        }
        assert_eq!(host_of_url("https://gate.example:8443/x"), Some("gate.example"));
        assert!(
            is_loopback_name("[::1]")
                && is_loopback_name("127.0.0.1")
                && !is_loopback_name("127.0.0.1.evil.example")
        );
    }
}
