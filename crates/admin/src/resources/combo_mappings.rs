//! Names of models that mean a combo: `/api/model-combo-mappings`.

use omniroute_domain::entity::{ComboId, MAX_MAPPINGS, ModelComboMapping};
use omniroute_store::StoreError;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Done, present};
use crate::auth::Management;
use crate::endpoint::{Body, Created, Id, Json};
use crate::error::{AdminError, AdminResult, invalid_field, not_found};
use crate::state::Admin;
use crate::text::iso;
use crate::validation::Problems;

#[derive(Serialize, ToSchema)]
pub(crate) struct MappingList {
    mappings: Vec<MappingView>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct MappingAnswer {
    mapping: MappingView,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct MappingView {
    id: String,
    /// Over names of models: `*` is any run of characters, `?` any one.
    pattern: String,
    combo_id: String,
    combo_name: Option<String>,
    /// The lower, the earlier; then the most specific.
    priority: i64,
    enabled: bool,
    description: Option<String>,
    created_at: String,
    updated_at: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MappingPatch {
    /// Over names of models: `*` is any run of characters, `?` any one.
    pattern: Option<String>,
    combo_id: Option<String>,
    /// The lower, the earlier; 100 when it is not given.
    priority: Option<i64>,
    enabled: Option<bool>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    description: Option<Option<String>>,
}

pub(crate) async fn list(access: Management) -> AdminResult<Json<MappingList>> {
    let rows = access.admin.store.combo_mappings().list().await?;
    let names = names(&access.admin).await?;
    Ok(Json(MappingList { mappings: rows.into_iter().map(|row| view(row, &names)).collect() }))
}

pub(crate) async fn show(access: Management, Id(id): Id) -> AdminResult<Json<MappingAnswer>> {
    let mapping = find(&access.admin, &id).await?;
    Ok(Json(MappingAnswer { mapping: view(mapping, &names(&access.admin).await?) }))
}

pub(crate) async fn create(
    access: Management,
    Body(draft): Body<MappingPatch>,
) -> AdminResult<Created<MappingAnswer>> {
    let mut problems = Problems::default();
    for (field, is_there) in [("pattern", draft.pattern.is_some()), ("comboId", draft.combo_id.is_some())] {
        if !is_there {
            problems.add(field, "is required");
        }
    }
    problems.done()?;
    let mut mapping = ModelComboMapping {
        id: Uuid::now_v7().to_string(),
        pattern: String::new(),
        combo_id: ComboId::from(""),
        priority: 100,
        enabled: true,
        description: None,
        created_at: access.now_ms,
        updated_at: access.now_ms,
    };
    let names = names(&access.admin).await?;
    merge(&mut mapping, draft, &names)?;
    access.admin.store.combo_mappings().insert(&mapping, MAX_MAPPINGS).await.map_err(not_kept)?;
    access.reload().await?;
    access.audit("mapping.created", "model_combo_mapping", &mapping.id, &mapping.pattern).await;
    Ok(Created(MappingAnswer { mapping: view(mapping, &names) }))
}

pub(crate) async fn update(
    access: Management,
    Id(id): Id,
    Body(patch): Body<MappingPatch>,
) -> AdminResult<Json<MappingAnswer>> {
    let names = names(&access.admin).await?;
    let change = |mapping: &mut ModelComboMapping| {
        mapping.updated_at = access.now_ms;
        merge(mapping, patch, &names)
    };
    let mapping = access.admin.store.combo_mappings().change(&id, change).await.map_err(not_kept)??;
    access.reload().await?;
    access.audit("mapping.updated", "model_combo_mapping", &mapping.id, &mapping.pattern).await;
    Ok(Json(MappingAnswer { mapping: view(mapping, &names) }))
}

pub(crate) async fn delete(access: Management, Id(id): Id) -> AdminResult<Json<Done>> {
    if !access.admin.store.combo_mappings().delete(&id).await? {
        return Err(not_found("Mapping"));
    }
    access.reload().await?;
    access.audit("mapping.deleted", "model_combo_mapping", &id, "").await;
    Ok(Json(Done::new()))
}

/// A combo may be deleted after it was looked up.
fn not_kept(error: StoreError) -> AdminError {
    match error {
        StoreError::NotFound { what: "combo", .. } => invalid_field("comboId", "is no combo's id"),
        other => other.into(),
    }
}

fn merge(
    mapping: &mut ModelComboMapping,
    patch: MappingPatch,
    combos: &[(ComboId, String)],
) -> AdminResult<()> {
    let mut problems = Problems::default();
    if let Some(pattern) = patch.pattern {
        problems.length("pattern", &pattern, 1..=256);
        if pattern.chars().any(|c| c.is_control() || c.is_whitespace()) {
            problems.add("pattern", "must not contain spaces");
        }
        mapping.pattern = pattern;
    }
    if let Some(id) = patch.combo_id {
        if combos.iter().all(|(known, _)| known.as_str() != id) {
            problems.add("comboId", "is no combo's id");
        }
        mapping.combo_id = ComboId::from(id);
    }
    if let Some(description) = patch.description {
        if let Some(description) = &description {
            problems.length("description", description, 0..=500);
        }
        mapping.description = description;
    }
    mapping.priority = patch.priority.unwrap_or(mapping.priority);
    problems.range("priority", Some(mapping.priority), &(-1_000_000..=1_000_000));
    mapping.enabled = patch.enabled.unwrap_or(mapping.enabled);
    problems.done()
}

async fn find(admin: &Admin, id: &str) -> AdminResult<ModelComboMapping> {
    let rows = admin.store.combo_mappings().list().await?;
    rows.into_iter().find(|row| row.id == id).ok_or_else(|| not_found("Mapping"))
}

/// The names of all combos, by their ids.
async fn names(admin: &Admin) -> AdminResult<Vec<(ComboId, String)>> {
    let combos = admin.store.combos().list().await?;
    Ok(combos.into_iter().map(|combo| (combo.id, combo.name)).collect())
}

fn view(mapping: ModelComboMapping, names: &[(ComboId, String)]) -> MappingView {
    let name = names.iter().find(|(id, _)| *id == mapping.combo_id).map(|(_, name)| name.clone());
    MappingView {
        id: mapping.id,
        pattern: mapping.pattern,
        combo_id: mapping.combo_id.to_string(),
        combo_name: name,
        priority: mapping.priority,
        enabled: mapping.enabled,
        description: mapping.description,
        created_at: iso(mapping.created_at),
        updated_at: iso(mapping.updated_at),
    }
}
