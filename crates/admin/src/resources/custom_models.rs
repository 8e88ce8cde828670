//! Models the operator added to providers: `/api/provider-models`.

use std::collections::BTreeMap;

use omniroute_domain::entity::CustomModel;
use omniroute_provider::ProviderId;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::present;
use crate::auth::Management;
use crate::endpoint::{Body, Filter, Json};
use crate::error::{AdminResult, invalid_field, not_found};
use crate::provider_lookup::{Vendor, not_kept};
use crate::state::Admin;
use crate::validation::Problems;

const SOURCES: &[&str] = &["manual", "imported", "api-sync"];
const FORMATS: &[&str] = &[
    "chat-completions",
    "responses",
    "messages",
    "embeddings",
    "images",
    "rerank",
    "speech",
    "transcriptions",
    "moderations",
];

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CustomModelView {
    id: String,
    name: String,
    source: String,
    api_format: String,
    supported_endpoints: Vec<String>,
    is_hidden: bool,
    context_window: Option<u64>,
    max_output: Option<u64>,
    caps: BTreeMap<String, bool>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct CustomModels {
    models: CustomModelsBody,
}

/// A list for one provider, or lists by provider.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum CustomModelsBody {
    Of(Vec<CustomModelView>),
    All(BTreeMap<String, Vec<CustomModelView>>),
}

#[derive(Serialize, ToSchema)]
pub(crate) struct CustomModelAnswer {
    model: CustomModelView,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Removed {
    removed: bool,
}

#[derive(Deserialize, IntoParams)]
pub(crate) struct CustomModelQuery {
    /// Id, alias or prefix.
    provider: Option<String>,
}

#[derive(Deserialize, IntoParams)]
pub(crate) struct CustomModelId {
    /// Id, alias or prefix.
    provider: String,
    /// Id of the model.
    model: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CustomModelPatch {
    /// Id, alias or prefix.
    provider: String,
    /// The id the provider knows.
    model_id: String,
    /// Name for people.
    model_name: Option<String>,
    /// `manual`, `imported` or `api-sync`.
    source: Option<String>,
    /// `chat-completions`, `responses`, `embeddings`, …
    api_format: Option<String>,
    /// `chat`, `embeddings`, …
    supported_endpoints: Option<Vec<String>>,
    /// Leave it out of lists.
    is_hidden: Option<bool>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<u64>)]
    context_window: Option<Option<u64>>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<u64>)]
    max_output: Option<Option<u64>>,
    /// `vision`, `tools`, …
    caps: Option<BTreeMap<String, bool>>,
}

pub(crate) async fn list(
    access: Management,
    Filter(query): Filter<CustomModelQuery>,
) -> AdminResult<Json<CustomModels>> {
    let models = access.admin.store.custom_models();
    if let Some(name) = &query.provider {
        let provider = provider_of(&access.admin, name).await?;
        let own = models.list(Some(&provider)).await?;
        return Ok(Json(CustomModels { models: CustomModelsBody::Of(own.into_iter().map(view).collect()) }));
    }
    let mut all: BTreeMap<String, Vec<CustomModelView>> = BTreeMap::new();
    for model in models.list(None).await? {
        all.entry(model.provider.to_string()).or_default().push(view(model));
    }
    Ok(Json(CustomModels { models: CustomModelsBody::All(all) }))
}

pub(crate) async fn upsert(
    access: Management,
    Body(draft): Body<CustomModelPatch>,
) -> AdminResult<Json<CustomModelAnswer>> {
    let provider = provider_of(&access.admin, &draft.provider).await?;
    let new = CustomModel {
        provider: provider.clone(),
        id: draft.model_id.clone(),
        name: draft.model_id.clone(),
        source: "manual".to_owned(),
        api_format: "chat-completions".to_owned(),
        supported_endpoints: vec!["chat".to_owned()],
        is_hidden: false,
        context_window: None,
        max_output: None,
        caps: BTreeMap::new(),
    };
    save(&access, &provider, draft, Some(new)).await
}

pub(crate) async fn update(
    access: Management,
    Body(patch): Body<CustomModelPatch>,
) -> AdminResult<Json<CustomModelAnswer>> {
    let provider = provider_of(&access.admin, &patch.provider).await?;
    save(&access, &provider, patch, None).await
}

pub(crate) async fn delete(
    access: Management,
    Filter(id): Filter<CustomModelId>,
) -> AdminResult<Json<Removed>> {
    let provider = provider_of(&access.admin, &id.provider).await?;
    let removed = access.admin.store.custom_models().delete(&provider, &id.model).await?;
    if removed {
        access.reload().await?;
        access.audit("provider.model.delete", "provider_model", &id.model, provider.as_str()).await;
    }
    Ok(Json(Removed { removed }))
}

/// Changes a model; one that is not known is `new`, or is not found.
async fn save(
    access: &Management,
    provider: &ProviderId,
    patch: CustomModelPatch,
    new: Option<CustomModel>,
) -> AdminResult<Json<CustomModelAnswer>> {
    let id = patch.model_id.clone();
    let change = |known: Option<CustomModel>| {
        let mut model = known.or(new).ok_or_else(|| not_found("Model"))?;
        merge(&mut model, patch)?;
        AdminResult::Ok(model)
    };
    let models = access.admin.store.custom_models();
    let model = models.change(provider, &id, change).await.map_err(not_kept)??;
    access.reload().await?;
    access.audit("provider.model.upsert", "provider_model", &model.id, provider.as_str()).await;
    Ok(Json(CustomModelAnswer { model: view(model) }))
}

fn merge(model: &mut CustomModel, patch: CustomModelPatch) -> AdminResult<()> {
    fn put<T>(target: &mut T, value: Option<T>) {
        if let Some(value) = value {
            *target = value;
        }
    }
    let mut problems = Problems::default();
    problems.length("modelId", &model.id, 1..=256);
    if model.id.chars().any(|c| c.is_control() || c.is_whitespace()) {
        problems.add("modelId", "must not contain spaces");
    }
    if let Some(name) = &patch.model_name {
        problems.length("modelName", name, 1..=256);
    }
    for (field, value, known) in
        [("source", &patch.source, SOURCES), ("apiFormat", &patch.api_format, FORMATS)]
    {
        if value.as_deref().is_some_and(|value| !known.contains(&value)) {
            problems.add(field, format!("must be one of {}", known.join(", ")));
        }
    }
    if let Some(endpoints) = &patch.supported_endpoints {
        problems.list("supportedEndpoints", endpoints, 20);
    }
    problems.range("contextWindow", patch.context_window.flatten(), &(1..=1_000_000_000));
    problems.range("maxOutput", patch.max_output.flatten(), &(1..=1_000_000_000));
    if patch.caps.as_ref().is_some_and(|caps| caps.len() > 50) {
        problems.add("caps", "must have at most 50 entries");
    }
    problems.done()?;
    put(&mut model.name, patch.model_name);
    put(&mut model.source, patch.source);
    put(&mut model.api_format, patch.api_format);
    put(&mut model.supported_endpoints, patch.supported_endpoints);
    put(&mut model.is_hidden, patch.is_hidden);
    put(&mut model.context_window, patch.context_window);
    put(&mut model.max_output, patch.max_output);
    put(&mut model.caps, patch.caps);
    Ok(())
}

async fn provider_of(admin: &Admin, name: &str) -> AdminResult<ProviderId> {
    let vendor = Vendor::find(admin, name).await?;
    Ok(vendor.ok_or_else(|| invalid_field("provider", "is neither in the catalogue nor a node"))?.id)
}

fn view(model: CustomModel) -> CustomModelView {
    CustomModelView {
        id: model.id,
        name: model.name,
        source: model.source,
        api_format: model.api_format,
        supported_endpoints: model.supported_endpoints,
        is_hidden: model.is_hidden,
        context_window: model.context_window,
        max_output: model.max_output,
        caps: model.caps,
    }
}
