//! Models in one flat list, and a tiny question to one of them: `/api/models`, `/api/models/test`.

use std::collections::BTreeMap;

use http::{HeaderMap, Method};
use omniroute_domain::snapshot::ListedModel;
use omniroute_provider::registry;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::aliases::{self, AliasAnswer, AliasDraft};
use super::model_catalog::known_models;
use crate::auth::Management;
use crate::endpoint::{Body, Json};
use crate::error::{AdminResult, invalid_field};
use crate::state::{AskContent, PreviewAsk};

/// Most tokens of the answer to a test.
const TEST_TOKENS: u32 = 16;
/// Most characters of an answer or an error that are shown.
const MAX_SHOWN: usize = 500;

#[derive(Serialize, ToSchema)]
pub(crate) struct ModelList {
    models: Vec<ModelView>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ModelView {
    provider: String,
    model: String,
    name: String,
    /// As clients ask for it.
    full_model: String,
    /// Another name that the operator gave it, else its own.
    alias: String,
    /// Whether its provider has an account.
    available: bool,
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct ModelTest {
    /// As a client would ask for it.
    model: String,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ModelTestResult {
    ok: bool,
    latency_ms: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_text: Option<String>,
}

pub(crate) async fn list(access: Management) -> AdminResult<Json<ModelList>> {
    let admin = &access.admin;
    let snapshot = admin.live.load();
    let aliases: BTreeMap<String, String> =
        admin.store.aliases().list().await?.into_iter().map(|(alias, model)| (model, alias)).collect();
    let mut models = Vec::new();
    let mut add = |provider: &str, prefix: &str, listed: &[ListedModel], available: bool| {
        for model in listed {
            let full_model = format!("{prefix}/{}", model.id);
            let alias = aliases.get(&full_model).or_else(|| aliases.get(&model.id)).unwrap_or(&model.id);
            models.push(ModelView {
                provider: provider.to_owned(),
                name: model.name.as_ref().unwrap_or(&model.id).clone(),
                alias: alias.clone(),
                model: model.id.clone(),
                full_model,
                available,
            });
        }
    };
    for state in snapshot.providers() {
        if state.id.as_str() != registry::SIM {
            add(state.id.as_str(), &state.alias, &state.models, true);
        }
    }
    let is_idle =
        |id: &omniroute_provider::ProviderId| snapshot.provider(id).is_none() && id.as_str() != registry::SIM;
    for spec in admin.catalog.providers().iter().filter(|spec| is_idle(&spec.id)) {
        add(spec.id.as_str(), &spec.alias, &known_models(admin, spec), false);
    }
    Ok(Json(ModelList { models }))
}

pub(crate) async fn set_alias(
    access: Management,
    Body(draft): Body<AliasDraft>,
) -> AdminResult<Json<AliasAnswer>> {
    aliases::put(access, Body(draft)).await
}

pub(crate) async fn test(
    access: Management,
    Body(test): Body<ModelTest>,
) -> AdminResult<Json<ModelTestResult>> {
    if test.model.trim().is_empty() {
        return Err(invalid_field("model", "is required"));
    }
    let body = serde_json::json!({
        "model": test.model,
        "messages": [{ "role": "user", "content": "Answer with the word OK." }],
        "max_tokens": TEST_TOKENS,
        "stream": false,
    });
    let admin = &access.admin;
    let began = admin.clock.instant();
    let ask = PreviewAsk {
        method: Method::POST,
        path: "/v1/chat/completions".to_owned(),
        headers: HeaderMap::new(),
        content: AskContent::Body(body.to_string().into()),
        api_key: None,
        seed: None,
    };
    let answer = admin.previews.ask(ask).await.map_err(|wrong| invalid_field(&wrong.field, wrong.message))?;
    let elapsed = admin.clock.instant().saturating_duration_since(began);
    access.audit("model.tested", "model", &test.model, "").await;
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let text = |pointer: &str| {
        let text = body.pointer(pointer).and_then(serde_json::Value::as_str)?;
        Some(text.chars().take(MAX_SHOWN).collect::<String>())
    };
    let ok = answer.status == 200;
    Ok(Json(ModelTestResult {
        ok,
        latency_ms: i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX),
        error: (!ok).then(|| text("/error/message").unwrap_or_else(|| format!("status {}", answer.status))),
        response_text: if ok { text("/choices/0/message/content") } else { None },
    }))
}
