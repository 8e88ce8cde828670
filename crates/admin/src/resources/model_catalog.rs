//! Models by provider, with limits and prices: `/api/models/catalog`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use omniroute_domain::entity::CustomModel;
use omniroute_domain::snapshot::ListedModel;
use omniroute_provider::capability::mode_by_name;
use omniroute_provider::{ProviderId, ProviderSpec, registry};
use omniroute_store::ConnectionFilter;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::auth::Management;
use crate::endpoint::{Filter, Json};
use crate::error::{AdminResult, invalid_field};
use crate::state::Admin;
use crate::text::iso;

const TYPES: &[&str] =
    &["chat", "embedding", "image", "audio-stt", "audio-tts", "rerank", "moderation", "other"];

#[derive(Deserialize, IntoParams)]
pub(crate) struct CatalogQuery {
    /// Providers without a connection too.
    #[serde(default)]
    all: bool,
    /// `chat`, `embedding`, `image`, `audio-stt`, `audio-tts`, `rerank` or `moderation`.
    r#type: Option<String>,
    /// Id, alias or prefix.
    provider: Option<String>,
    /// Part of a model's id or name.
    q: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ModelCatalog {
    /// By alias or prefix of the provider.
    catalog: BTreeMap<String, ProviderModels>,
    generated_at: String,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ProviderModels {
    provider: String,
    provider_id: String,
    /// Whether one of its connections is switched on.
    active: bool,
    models: Vec<CatalogModel>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CatalogModel {
    id: String,
    name: String,
    r#type: &'static str,
    custom: bool,
    context_window: Option<u64>,
    max_output: Option<u64>,
    caps: BTreeMap<String, bool>,
    /// USD per million tokens; null when unknown.
    pricing: Option<ModelPricing>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct ModelPricing {
    input: Option<f64>,
    output: Option<f64>,
    cached: Option<f64>,
}

pub(crate) async fn show(
    access: Management,
    Filter(query): Filter<CatalogQuery>,
) -> AdminResult<Json<ModelCatalog>> {
    if query.r#type.as_deref().is_some_and(|wanted| !TYPES.contains(&wanted)) {
        return Err(invalid_field("type", format!("must be one of {}", TYPES.join(", "))));
    }
    let admin = &access.admin;
    let connected = connected(admin).await?;
    let snapshot = admin.live.load();
    let mut catalog = BTreeMap::new();
    let mut add = |spec: &ProviderSpec,
                   alias: &str,
                   active: bool,
                   own: &[CustomModel],
                   listed: &[ListedModel]| {
        let is_wanted = query.provider.as_deref().is_none_or(|wanted| {
            spec.id.as_str() == wanted || alias == wanted || spec.aliases.iter().any(|other| other == wanted)
        });
        if !is_wanted {
            return;
        }
        let models: Vec<_> =
            listed.iter().map(|model| describe(admin, spec, own, model)).filter(|m| query.keeps(m)).collect();
        if !models.is_empty() || (query.r#type.is_none() && query.q.is_none()) {
            let (provider, provider_id) = (spec.name.clone(), spec.id.to_string());
            catalog.insert(alias.to_owned(), ProviderModels { provider, provider_id, active, models });
        }
    };
    let mut seen = BTreeSet::new();
    for state in snapshot.providers() {
        let spec = state.provider.spec();
        if spec.id.as_str() == registry::SIM && !query.all {
            continue;
        }
        seen.insert(state.id.clone());
        let own = connected.iter().find(|(spec, _)| spec.id == state.id).map_or(&[][..], |(_, own)| own);
        add(spec, &state.alias, true, own, &state.models);
    }
    for (spec, own) in connected.iter().filter(|(spec, _)| !seen.contains(&spec.id)) {
        let mut models = known_models(admin, spec);
        models.retain(|model| own.iter().all(|own| own.id != model.id));
        models.extend(own.iter().filter(|own| !own.is_hidden).map(ListedModel::of));
        add(spec, &spec.alias, false, own, &models);
    }
    if query.all {
        seen.extend(connected.iter().map(|(spec, _)| spec.id.clone()));
        for spec in admin.catalog.providers().iter().filter(|spec| !seen.contains(&spec.id)) {
            add(spec, &spec.alias, false, &[], &known_models(admin, spec));
        }
    }
    Ok(Json(ModelCatalog { catalog, generated_at: iso(access.now_ms) }))
}

/// The providers that have connections, whether or not any of them is switched on, and what the operator said of their
/// models.
async fn connected(admin: &Admin) -> AdminResult<Vec<(Arc<ProviderSpec>, Vec<CustomModel>)>> {
    let connections = admin.store.connections().list(&ConnectionFilter::default()).await?;
    let nodes = admin.store.nodes().list().await?;
    let own = admin.store.custom_models().list(None).await?;
    let known: BTreeSet<&ProviderId> = connections.iter().map(|connection| &connection.provider).collect();
    let spec_of = |id: &ProviderId| match nodes.iter().find(|node| node.id == *id) {
        Some(node) => Some(Arc::new(registry::spec_from_node(&node.to_spec()?))),
        None => admin.catalog.provider(id.as_str()).cloned(),
    };
    let of_own = |id: &ProviderId| own.iter().filter(|model| model.provider == *id).cloned().collect();
    Ok(known.into_iter().filter_map(|id| Some((spec_of(id)?, of_own(id)))).collect())
}

/// Every provider of the catalogue and every endpoint of the operator, with what the operator said of its models.
pub(super) async fn all_providers(admin: &Admin) -> AdminResult<Vec<(Arc<ProviderSpec>, Vec<CustomModel>)>> {
    let nodes = admin.store.nodes().list().await?;
    let mut own: BTreeMap<ProviderId, Vec<CustomModel>> = BTreeMap::new();
    for model in admin.store.custom_models().list(None).await? {
        own.entry(model.provider.clone()).or_default().push(model);
    }
    let of_nodes = nodes.iter().filter_map(|node| Some(Arc::new(registry::spec_from_node(&node.to_spec()?))));
    let catalog = admin.catalog.providers().iter().filter(|spec| spec.id.as_str() != registry::SIM).cloned();
    let with_own = |spec: Arc<ProviderSpec>| {
        let own = own.remove(&spec.id).unwrap_or_default();
        (spec, own)
    };
    Ok(catalog.chain(of_nodes).map(with_own).collect())
}

/// The models of a provider that is not in use, also those that are hidden.
pub(super) fn names(admin: &Admin, spec: &ProviderSpec, own: &[CustomModel]) -> impl Iterator<Item = String> {
    let mut known = known_models(admin, spec);
    known.retain(|model| own.iter().all(|own| own.id != model.id));
    let own: Vec<String> = own.iter().map(|own| own.id.clone()).collect();
    known.into_iter().map(|model| model.id).chain(own)
}

impl CatalogQuery {
    fn keeps(&self, model: &CatalogModel) -> bool {
        let contains = |text: &str, part: &str| text.to_lowercase().contains(&part.to_lowercase());
        self.r#type.as_deref().is_none_or(|wanted| model.r#type == wanted)
            && self.q.as_deref().is_none_or(|part| contains(&model.id, part) || contains(&model.name, part))
    }
}

/// What the catalogue knows of a provider that is not in use.
pub(super) fn known_models(admin: &Admin, spec: &ProviderSpec) -> Vec<ListedModel> {
    let rows = admin.catalog.models_of(&spec.id);
    let listed = spec.models.iter().filter(|name| rows.iter().all(|row| row.model != **name));
    let plain = |id: &String| ListedModel {
        id: id.clone(),
        name: None,
        custom: false,
        mode: mode_by_name(id).to_owned(),
        context_window: None,
        max_output: None,
    };
    let mut models: Vec<ListedModel> = listed.map(plain).collect();
    models.extend(rows.iter().map(|row| ListedModel {
        mode: row.mode.clone(),
        context_window: row.context_window,
        max_output: row.max_output,
        ..plain(&row.model)
    }));
    models
}

fn describe(admin: &Admin, spec: &ProviderSpec, own: &[CustomModel], model: &ListedModel) -> CatalogModel {
    let row = admin.catalog.model(&spec.id, &model.id);
    let quote = admin.live.load().quote(&spec.id, &model.id);
    let pricing =
        quote.map(|quote| quote.row.clone()).filter(|row| row.input.is_some() || row.output.is_some());
    let mut caps = row.map(|row| row.caps.clone()).unwrap_or_default();
    // What the operator says comes before what the catalogue says.
    if let Some(own) = own.iter().find(|own| own.id == model.id) {
        caps.extend(own.caps.iter().map(|(name, can)| (name.clone(), *can)));
    }
    CatalogModel {
        id: model.id.clone(),
        name: model.name.clone().unwrap_or_else(|| model.id.clone()),
        r#type: type_of(&model.mode),
        custom: model.custom,
        context_window: model.context_window,
        max_output: model.max_output,
        caps,
        pricing: pricing.map(|row| ModelPricing { input: row.input, output: row.output, cached: row.cached }),
    }
}

fn type_of(mode: &str) -> &'static str {
    match mode {
        "chat" | "responses" => "chat",
        "embedding" => "embedding",
        "image_generation" => "image",
        "audio_transcription" => "audio-stt",
        "audio_speech" => "audio-tts",
        "rerank" => "rerank",
        "moderation" => "moderation",
        _ => "other",
    }
}
