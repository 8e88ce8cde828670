//! Ends at once what would end by itself later: breakers, cooldowns, locks.

use omniroute_domain::entity::Reset;
use omniroute_domain::resolve::MAX_MODEL_LENGTH;
use omniroute_engine::chronicle;
use omniroute_provider::ProviderId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::auth::Management;
use crate::endpoint::{Json, OptionalBody};
use crate::error::{AdminResult, invalid_field, not_found};
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
    let (mut resets, mut names) = (Vec::new(), Vec::new());
    if is_meant(ResetScope::Breakers) {
        resets.push(Reset::Breakers { provider: provider.clone() });
        names.push("circuit breaker(s)");
    }
    if is_meant(ResetScope::Cooldowns) {
        resets.push(Reset::Cooldowns { provider: provider.clone() });
        names.push("cooldown(s)");
    }
    if is_meant(ResetScope::Lockouts) {
        resets.push(Reset::Locks { provider: provider.clone(), connection: None, model: None });
        names.push("model lock(s)");
    }
    let counts = end(&access, &resets).await?;
    let reset_count = counts.iter().sum();
    let told: Vec<String> = counts.iter().zip(names).map(|(count, what)| format!("{count} {what}")).collect();
    let message = format!("Reset {}", told.join(", "));
    let target = provider.as_ref().map_or("*", |provider| provider.as_str());
    access.audit("resilience.reset", "provider", target, &message).await;
    Ok(Json(ResetAnswer { ok: true, reset_count, message }))
}

/// Ends this in every process on the database. How much of each was in force in this one.
pub(in super::super) async fn end(access: &Management, resets: &[Reset]) -> AdminResult<Vec<usize>> {
    let admin = &access.admin;
    let is_too_long = |reset: &Reset| matches!(reset, Reset::Locks { model: Some(model), .. } if model.len() > MAX_MODEL_LENGTH);
    if resets.iter().any(is_too_long) {
        let message = format!("has more than {MAX_MODEL_LENGTH} bytes, as no model's name has");
        return Err(invalid_field("model", message));
    }
    let end = |reset| chronicle::reset(&admin.live, &*admin.recorder, reset, access.now_ms);
    let counts = resets.iter().map(end).collect();
    admin.store.states_cleared().announce(resets).await?;
    // This one hears of it as well, before anybody is told that it is over.
    access.reload().await?;
    Ok(counts)
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
