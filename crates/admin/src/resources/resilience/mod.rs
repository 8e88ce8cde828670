//! How failures are answered, and what they led to: `/api/resilience`.

mod breakers;
mod locks;
mod patch;
mod reset;
mod timeline;
mod values;

use std::collections::BTreeMap;

use omniroute_domain::entity::RuntimeSettings;
use omniroute_store::ConnectionFilter;
use serde::Serialize;
use utoipa::ToSchema;

use super::connections;
use super::health::{Cooldown, blocks};
use crate::auth::Management;
use crate::endpoint::{Body, Json};
use crate::error::AdminResult;
use crate::state::Admin;
use crate::validation::Problems;

pub(super) use breakers::{BreakerView, breakers};
pub(crate) use locks::{forget_locks, list_locks};
use patch::ResiliencePatch;
pub(crate) use reset::reset;
pub(super) use reset::{end, named};
pub(crate) use timeline::timeline;
use values::Values;

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ResilienceView {
    /// Present in answers to changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    ok: Option<bool>,
    #[serde(flatten)]
    #[schema(inline)]
    values: Values,
    circuit_breakers: Vec<BreakerView>,
    /// Connections that are cooling down, by `provider:connection`, and single keys, by `provider:connection#key`.
    rate_limit_status: BTreeMap<String, Cooldown>,
}

pub(crate) async fn show(access: Management) -> AdminResult<Json<ResilienceView>> {
    let settings = access.admin.store.settings().get().await?;
    view(&access.admin, &settings, None, access.now_ms).await.map(Json)
}

pub(crate) async fn update(
    access: Management,
    Body(patch): Body<ResiliencePatch>,
) -> AdminResult<Json<ResilienceView>> {
    let admin = &access.admin;
    let merge = |settings: &mut RuntimeSettings| {
        let mut problems = Problems::default();
        patch.merge(settings, &mut problems);
        problems.done()
    };
    let change = access.change_settings(merge).await?;
    if change.is_any() {
        access.audit("resilience.updated", "settings", "resilience", "").await;
    }
    view(admin, &change.after, Some(true), access.now_ms).await.map(Json)
}

async fn view(
    admin: &Admin,
    settings: &RuntimeSettings,
    ok: Option<bool>,
    now_ms: i64,
) -> AdminResult<ResilienceView> {
    let rows = connections::all(admin, &ConnectionFilter::default()).await?;
    let (rate_limit_status, _) = blocks(admin, &rows, now_ms);
    let circuit_breakers = breakers(admin, now_ms);
    Ok(ResilienceView { ok, values: Values::of(settings), circuit_breakers, rate_limit_status })
}
