//! How combos are carried out that say nothing else: `/api/settings/combo-defaults`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ConfigView;
use crate::auth::Management;
use crate::endpoint::{Body, Json};
use crate::error::AdminResult;
use crate::validation::Problems;

/// What is absent is as built in.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ComboDefaults {
    combo_defaults: ConfigView,
}

pub(crate) async fn show(access: Management) -> AdminResult<Json<ComboDefaults>> {
    let settings = access.admin.store.settings().get().await?;
    Ok(Json(ComboDefaults { combo_defaults: settings.combo_defaults.into() }))
}

pub(crate) async fn update(
    access: Management,
    Body(patch): Body<ComboDefaults>,
) -> AdminResult<Json<ComboDefaults>> {
    let mut problems = Problems::default();
    patch.combo_defaults.check("comboDefaults", &mut problems);
    problems.done()?;
    let store = &access.admin.store;
    let mut settings = store.settings().get().await?;
    settings.combo_defaults = patch.combo_defaults.over(std::mem::take(&mut settings.combo_defaults));
    store.settings().put(&settings).await?;
    access.reload().await?;
    access.audit("settings.updated", "settings", "comboDefaults", "").await;
    Ok(Json(ComboDefaults { combo_defaults: settings.combo_defaults.into() }))
}
