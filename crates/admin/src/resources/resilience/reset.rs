//! Ends at once what would end by itself later: breakers, cooldowns, locks.

use omniroute_engine::chronicle;
use omniroute_provider::ProviderId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::auth::Management;
use crate::endpoint::{Json, OptionalBody};
use crate::error::{AdminResult, not_found};
use crate::provider_lookup::Vendor;
use crate::state::Admin;

#[derive(Deserialize, ToSchema, Default)]
pub(crate) struct ResetDraft {
    /// Only those of this provider: id, alias or prefix.
    provider: Option<String>,
    scope: Option<ResetScope>,
}

/// What is reset.
#[derive(Deserialize, ToSchema, Default, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ResetScope {
    /// Breakers of providers.
    #[default]
    Breakers,
    /// Cooldowns of connections.
    Cooldowns,
    /// Locks of models.
    Lockouts,
    /// All of it.
    All,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ResetAnswer {
    ok: bool,
    reset_count: usize,
    message: String,
}

pub(crate) async fn reset(
    access: Management,
    OptionalBody(draft): OptionalBody<ResetDraft>,
) -> AdminResult<Json<ResetAnswer>> {
    let admin = &access.admin;
    let provider = named(admin, draft.provider.as_deref()).await?;
    let scope = draft.scope.unwrap_or_default();
    let is_meant = |part| scope == part || scope == ResetScope::All;
    let now_ms = access.now_ms;
    let mut parts = Vec::new();
    if is_meant(ResetScope::Breakers) {
        parts.push((close_all(admin, provider.as_ref(), now_ms), "circuit breaker(s)"));
    }
    if is_meant(ResetScope::Cooldowns) {
        let mut count = 0;
        for connection in admin.live.load().connections() {
            if provider.as_ref().is_none_or(|provider| connection.provider == *provider) {
                count += chronicle::warm_up(&admin.live, &*admin.recorder, connection, now_ms);
            }
        }
        parts.push((count, "cooldown(s)"));
    }
    if is_meant(ResetScope::Lockouts) {
        let mut count = 0;
        for connection in admin.live.load().connections() {
            if provider.as_ref().is_none_or(|provider| connection.provider == *provider) {
                count += chronicle::unlock(&admin.live, &*admin.recorder, connection, None, now_ms);
            }
        }
        parts.push((count, "model lock(s)"));
    }
    let reset_count = parts.iter().map(|(count, _)| count).sum();
    let told: Vec<String> = parts.iter().map(|(count, what)| format!("{count} {what}")).collect();
    let message = format!("Reset {}", told.join(", "));
    let target = provider.as_ref().map_or("*", |provider| provider.as_str());
    access.audit("resilience.reset", "provider", target, &message).await;
    Ok(Json(ResetAnswer { ok: true, reset_count, message }))
}

/// Closes breakers, those of one provider or all; how many were not closed, or had failures.
pub(in super::super) fn close_all(admin: &Admin, provider: Option<&ProviderId>, now_ms: i64) -> usize {
    let snapshot = admin.live.load();
    let mut count = 0;
    for breaker in snapshot.breakers() {
        if provider.is_none_or(|provider| breaker.provider == *provider) {
            let had_failures = breaker.record(now_ms).failure_count > 0;
            let was_shut = chronicle::reset_breaker(&admin.live, &*admin.recorder, breaker, now_ms);
            count += usize::from(was_shut || had_failures);
        }
    }
    count
}

/// The provider of a name, if one is given.
pub(in super::super) async fn named(admin: &Admin, name: Option<&str>) -> AdminResult<Option<ProviderId>> {
    let Some(name) = name else { return Ok(None) };
    if let Some(id) = admin.live.load().by_prefix(name) {
        return Ok(Some(id.clone()));
    }
    match Vendor::find(admin, name).await? {
        Some(vendor) => Ok(Some(vendor.id)),
        None => Err(not_found(&format!("Provider `{name}`"))),
    }
}
