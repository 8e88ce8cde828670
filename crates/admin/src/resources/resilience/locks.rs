//! Models that are locked on connections: `/api/resilience/model-cooldowns`.

use omniroute_domain::entity::Reset;
use omniroute_store::ConnectionFilter;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::connections;
use super::super::health::{ModelLockView, blocks};
use super::{end, named};
use crate::auth::Management;
use crate::endpoint::{Body, Json};
use crate::error::{AdminResult, invalid_field, not_found};

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ModelCooldowns {
    model_cooldowns: Vec<ModelLockView>,
    count: usize,
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct LockDraft {
    /// Id, alias or prefix.
    provider: String,
    /// The connection's id or name; absent = every connection of the provider.
    connection: Option<String>,
    /// As the provider knows it; absent = every model.
    model: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Unlocked {
    ok: bool,
    /// Locks that were in force.
    cleared: usize,
}

pub(crate) async fn list_locks(access: Management) -> AdminResult<Json<ModelCooldowns>> {
    let rows = connections::all(&access.admin, &ConnectionFilter::default()).await?;
    let (_, model_cooldowns) = blocks(&access.admin, &rows, access.now_ms);
    Ok(Json(ModelCooldowns { count: model_cooldowns.len(), model_cooldowns }))
}

pub(crate) async fn forget_locks(
    access: Management,
    Body(draft): Body<LockDraft>,
) -> AdminResult<Json<Unlocked>> {
    let admin = &access.admin;
    let Some(provider) = named(admin, Some(&draft.provider)).await? else {
        return Err(invalid_field("provider", "is required"));
    };
    let snapshot = admin.live.load();
    let is_meant = |name: &str, id: &str| {
        draft.connection.as_ref().is_none_or(|wanted| *wanted == *id || *wanted == *name)
    };
    let meant: Vec<_> = snapshot
        .connections()
        .filter(|state| state.provider == provider && is_meant(&state.name, state.id.as_str()))
        .map(|state| state.id.clone())
        .collect();
    if meant.is_empty() {
        return Err(not_found("Connection"));
    }
    drop(snapshot);
    let of = |connection| Reset::Locks {
        provider: Some(provider.clone()),
        connection,
        model: draft.model.clone(),
    };
    let resets = match draft.connection {
        Some(_) => meant.into_iter().map(|id| of(Some(id))).collect(),
        None => vec![of(None)],
    };
    let cleared: usize = end(&access, &resets).await?.into_iter().sum();
    access.audit("resilience.reset", "model_lockout", provider.as_str(), &cleared.to_string()).await;
    Ok(Json(Unlocked { ok: true, cleared }))
}
