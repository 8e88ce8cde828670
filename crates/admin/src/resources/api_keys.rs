//! Client keys: `/api/keys`. A key is shown once, when it is made; the database has its hash.

use omniroute_domain::entity::{ApiKey, ApiKeyId, KeyHash, KeyRights, MAX_POLICIES, Scope};
use omniroute_domain::snapshot::parse_network;
use omniroute_store::{StoreError, Successor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::budgets::{self, BudgetView};
use super::cache_similarity::KeySimilarityView;
use super::key_references::{Known, References};
use super::key_rights::{RightsPatch, RightsView, ScheduleView};
use super::transforms::ThinkingView;
use super::{Message, present};
use crate::auth::Management;
use crate::endpoint::{Body, Created, Filter, Id, Json, OptionalBody};
use crate::error::{AdminResult, conflict, gone, internal, invalid_field, not_found};
use crate::state::Admin;
use crate::text::{iso, parse_iso, random_secret};
use crate::validation::Problems;

const PREFIX: &str = "sk-omni-";

/// A key as it is shown, the key itself masked.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ApiKeyView {
    id: String,
    name: String,
    /// First and last characters.
    key: String,
    key_prefix: String,
    machine_id: String,
    is_active: bool,
    no_log: bool,
    allowed_models: Vec<String>,
    denied_models: Vec<String>,
    allowed_connections: Vec<String>,
    allowed_endpoints: Vec<String>,
    scopes: Vec<KeyScope>,
    ip_allowlist: Vec<String>,
    max_requests_per_minute: Option<u32>,
    max_requests_per_day: Option<u32>,
    max_tokens_per_minute: Option<u64>,
    max_concurrent: Option<u32>,
    max_sessions: u32,
    strict: bool,
    /// What it may spend; null = there is no budget.
    budget: Option<BudgetView>,
    #[serde(flatten)]
    #[schema(inline)]
    rights: RightsView,
    expires_at: Option<String>,
    revoked_at: Option<String>,
    last_used_at: Option<String>,
    created_at: String,
}

/// Rights beyond calling models.
#[derive(Serialize, Deserialize, ToSchema, Clone, Copy)]
#[serde(rename_all = "lowercase")]
pub(crate) enum KeyScope {
    /// The management API.
    Manage,
    /// Synchronisation with a peer.
    Sync,
    /// `/metrics`.
    Metrics,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ApiKeyList {
    keys: Vec<ApiKeyView>,
    total: u64,
    next_cursor: Option<String>,
    allow_key_reveal: bool,
}

/// A key that was just made.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NewApiKey {
    /// The whole key; never shown again.
    key: String,
    name: String,
    id: String,
    machine_id: String,
    no_log: bool,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct ApiKeyUpdated {
    message: &'static str,
    key: ApiKeyView,
    /// The members that are others than before.
    #[serde(flatten)]
    #[schema(additional_properties)]
    changed: Map<String, Value>,
}

#[derive(Deserialize, ToSchema, Default)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ApiKeyPatch {
    /// Name for people.
    #[serde(alias = "label")]
    name: Option<String>,
    is_active: Option<bool>,
    /// Keep bodies out of the logs.
    no_log: Option<bool>,
    /// Patterns of models the key may use; empty means all.
    allowed_models: Option<Vec<String>>,
    /// Patterns of models it may not use.
    denied_models: Option<Vec<String>>,
    /// Ids of connections it may use; empty means all.
    allowed_connections: Option<Vec<String>>,
    /// Endpoints it may call (`chat`, `messages`, `models`, …); empty means all.
    allowed_endpoints: Option<Vec<String>>,
    scopes: Option<Vec<KeyScope>>,
    /// Addresses and networks it may be used from; empty means all.
    ip_allowlist: Option<Vec<String>>,
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<u32>)]
    max_requests_per_minute: Option<Option<u32>>,
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<u32>)]
    max_requests_per_day: Option<Option<u32>>,
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<u64>)]
    max_tokens_per_minute: Option<Option<u64>>,
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<u32>)]
    max_concurrent: Option<Option<u32>>,
    /// Conversations at once; 0 = as many as it likes.
    max_sessions: Option<u32>,
    /// Every request as if it asked for strict translation.
    strict: Option<bool>,
    /// Patterns of combos the key may use; empty means all. One that is named brings its targets with it.
    allowed_combos: Option<Vec<String>>,
    /// When it may be used; null means always.
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<ScheduleView>)]
    access_schedule: Option<Option<ScheduleView>>,
    /// Whether a name that several providers have is settled for it, rather than refused.
    auto_resolve: Option<bool>,
    /// Whether its requests neither get kept answers nor leave any.
    no_cache: Option<bool>,
    /// Whether a question of it that is close to another one gets that one's answer. Null means as the setting says.
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<KeySimilarityView>)]
    similarity: Option<Option<KeySimilarityView>>,
    /// The same as `similarity.threshold`.
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<f64>)]
    similarity_threshold: Option<Option<f64>>,
    /// How much its requests reason; comes before the combo's and the setting. Null means as those say.
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<ThinkingView>)]
    thinking_budget: Option<Option<ThinkingView>>,
    /// RFC 3339, in the future.
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    expires_at: Option<Option<String>>,
}

impl ApiKeyPatch {
    /// What it names that must be there.
    fn references(&self) -> References<'_> {
        References {
            endpoints: self.allowed_endpoints.as_ref(),
            combos: self.allowed_combos.as_ref(),
            connections: self.allowed_connections.as_ref(),
        }
    }
}

#[derive(Deserialize, IntoParams)]
pub(crate) struct ApiKeyFilter {
    /// Revoked keys too.
    #[serde(default)]
    revoked: bool,
    /// Page size, 1 to 500.
    limit: Option<u32>,
    /// Rows to skip.
    #[serde(alias = "cursor")]
    offset: Option<u32>,
}

#[derive(Deserialize, ToSchema, Default)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Rotation {
    /// How long the old key still works, 0 to 30 days.
    grace_seconds: u32,
}

pub(crate) async fn list(
    access: Management,
    Filter(filter): Filter<ApiKeyFilter>,
) -> AdminResult<Json<ApiKeyList>> {
    let page = super::page(filter.limit, filter.offset)?;
    let (keys, total) = access.admin.store.api_keys().list(filter.revoked, page.limit, page.offset).await?;
    let machine_id = access.admin.store.meta().machine_id().await?;
    Ok(Json(ApiKeyList {
        keys: keys.into_iter().map(|key| view(&access.admin, key, &machine_id)).collect(),
        total,
        next_cursor: page.next_cursor(total),
        allow_key_reveal: false,
    }))
}

pub(crate) async fn create(
    access: Management,
    Body(draft): Body<ApiKeyPatch>,
) -> AdminResult<Created<NewApiKey>> {
    let (id, secret) = (ApiKeyId::from(Uuid::now_v7().to_string()), new_key());
    let mut key = ApiKey {
        id,
        name: draft.name.clone().ok_or_else(|| invalid_field("name", "is required"))?,
        hash: KeyHash::of(&secret),
        masked: masked(&secret),
        is_active: true,
        no_log: false,
        allowed_models: Vec::new(),
        denied_models: Vec::new(),
        allowed_connections: Vec::new(),
        allowed_endpoints: Vec::new(),
        scopes: Vec::new(),
        ip_allowlist: Vec::new(),
        max_requests_per_minute: None,
        max_requests_per_day: None,
        max_tokens_per_minute: None,
        max_concurrent: None,
        max_sessions: 0,
        strict: false,
        rights: KeyRights::default(),
        expires_at: None,
        revoked_at: None,
        last_used_at: None,
        created_at: access.now_ms,
    };
    let known = Known::of(&access.admin, draft.references()).await?;
    merge(&mut key, &draft, &known, &access)?;
    access.admin.store.api_keys().insert(&key).await?;
    tell(&access, key, secret, "apikey.create").await
}

pub(crate) async fn show(access: Management, Id(id): Id) -> AdminResult<Json<ApiKeyView>> {
    let key = find(&access.admin, &id).await?;
    let machine_id = access.admin.store.meta().machine_id().await?;
    Ok(Json(view(&access.admin, key, &machine_id)))
}

pub(crate) async fn update(
    access: Management,
    Id(id): Id,
    Body(patch): Body<ApiKeyPatch>,
) -> AdminResult<Json<ApiKeyUpdated>> {
    let stored = access.admin.store.api_keys();
    let known = Known::of(&access.admin, patch.references()).await?;
    let mut before = None;
    let change = |key: &mut ApiKey| {
        before = Some(key.clone());
        merge(key, &patch, &known, &access)
    };
    let key = stored.change(&ApiKeyId::from(id.as_str()), change).await??;
    access.reload().await?;
    access.audit("apikey.update", "api_key", &id, &key.name).await;
    let machine_id = access.admin.store.meta().machine_id().await?;
    let before = before.map(|key| view(&access.admin, key, &machine_id));
    let key = view(&access.admin, key, &machine_id);
    let changed = changed(before.as_ref(), &key)?;
    Ok(Json(ApiKeyUpdated { message: "Key updated", key, changed }))
}

/// The members of a key that are others than before.
fn changed(before: Option<&ApiKeyView>, after: &ApiKeyView) -> AdminResult<Map<String, Value>> {
    let before = serde_json::to_value(before).map_err(internal)?;
    let mut members = match serde_json::to_value(after).map_err(internal)? {
        Value::Object(members) => members,
        _ => Map::new(),
    };
    members.retain(|name, value| before.get(name) != Some(value));
    Ok(members)
}

pub(crate) async fn delete(access: Management, Id(id): Id) -> AdminResult<Json<Message>> {
    let key = find(&access.admin, &id).await?;
    if !access.admin.store.api_keys().revoke(&key.id, access.now_ms).await? {
        return Err(not_found("API key"));
    }
    access.reload().await?;
    access.audit("apikey.revoke", "api_key", &id, &key.name).await;
    Ok(Json(Message { message: "Key deleted" }))
}

pub(crate) async fn rotate(
    access: Management,
    Id(id): Id,
    OptionalBody(rotation): OptionalBody<Rotation>,
) -> AdminResult<Created<NewApiKey>> {
    const MAX_GRACE: u32 = 30 * 24 * 3_600;
    let mut problems = Problems::default();
    problems.range("graceSeconds", Some(rotation.grace_seconds), &(0..=MAX_GRACE));
    problems.done()?;
    let grace_ms = i64::from(rotation.grace_seconds) * 1_000;
    let keeps_until = (grace_ms > 0).then_some(access.now_ms + grace_ms);
    let secret = new_key();
    let new = Successor {
        id: ApiKeyId::from(Uuid::now_v7().to_string()),
        hash: KeyHash::of(&secret),
        masked: masked(&secret),
    };
    let stored = access.admin.store.api_keys();
    let policy_id = || Uuid::now_v7().to_string();
    let old = ApiKeyId::from(id.as_str());
    let made = stored.replace(&old, new, keeps_until, access.now_ms, policy_id, MAX_POLICIES).await;
    let key = made.map_err(|error| match error {
        StoreError::NoRoom { most, .. } => conflict(format!(
            "as long as both keys work, policies that name the key are there twice, and there may be {most} policies; rotate \
             it without graceSeconds, or delete some first"
        )),
        other => other.into(),
    })?;
    tell(&access, key, secret, "apikey.rotate").await
}

pub(crate) async fn reveal(access: Management, Id(id): Id) -> AdminResult<Json<Message>> {
    find(&access.admin, &id).await?;
    Err(gone("keys are stored hashed and cannot be shown again; rotate the key to get a new one"))
}

/// Puts a new key in force and shows it, once.
async fn tell(
    access: &Management,
    key: ApiKey,
    secret: String,
    action: &str,
) -> AdminResult<Created<NewApiKey>> {
    access.reload().await?;
    access.audit(action, "api_key", key.id.as_str(), &key.name).await;
    Ok(Created(NewApiKey {
        key: secret,
        name: key.name,
        id: key.id.to_string(),
        machine_id: access.admin.store.meta().machine_id().await?,
        no_log: key.no_log,
    }))
}

async fn find(admin: &Admin, id: &str) -> AdminResult<ApiKey> {
    admin.store.api_keys().get(&ApiKeyId::from(id)).await?.ok_or_else(|| not_found("API key"))
}

fn merge(key: &mut ApiKey, patch: &ApiKeyPatch, known: &Known, access: &Management) -> AdminResult<()> {
    fn put<T: Clone>(target: &mut T, value: Option<&T>) {
        if let Some(value) = value {
            *target = value.clone();
        }
    }
    let mut problems = Problems::default();
    if let Some(name) = &patch.name {
        problems.name("name", name);
    }
    for (field, list) in [
        ("allowedModels", &patch.allowed_models),
        ("deniedModels", &patch.denied_models),
        ("allowedConnections", &patch.allowed_connections),
        ("allowedEndpoints", &patch.allowed_endpoints),
        ("ipAllowlist", &patch.ip_allowlist),
    ] {
        if let Some(list) = list {
            problems.list(field, list, 500);
        }
    }
    for (at, entry) in patch.ip_allowlist.iter().flatten().enumerate() {
        if parse_network(entry).is_none() {
            problems.add(&format!("ipAllowlist[{at}]"), "must be an address or a network like 10.0.0.0/8");
        }
    }
    problems.range("maxRequestsPerMinute", patch.max_requests_per_minute.flatten(), &(1..=1_000_000_000));
    problems.range("maxRequestsPerDay", patch.max_requests_per_day.flatten(), &(1..=1_000_000_000));
    problems.range("maxTokensPerMinute", patch.max_tokens_per_minute.flatten(), &(1..=1_000_000_000_000));
    problems.range("maxConcurrent", patch.max_concurrent.flatten(), &(1..=100_000));
    problems.range("maxSessions", patch.max_sessions, &(0..=10_000));
    if let Some(Some(text)) = &patch.expires_at {
        match parse_iso(text) {
            Some(end) if end > access.now_ms => key.expires_at = Some(end),
            Some(_) => problems.add("expiresAt", "must be in the future"),
            None => problems.add("expiresAt", "must be a time like 2030-01-31T00:00:00Z"),
        }
    } else if patch.expires_at.is_some() {
        key.expires_at = None;
    }
    let rights = RightsPatch {
        allowed_combos: patch.allowed_combos.as_ref(),
        access_schedule: patch.access_schedule.as_ref(),
        auto_resolve: patch.auto_resolve,
        no_cache: patch.no_cache,
        similarity: match patch.similarity_threshold {
            None => patch.similarity,
            Some(threshold) => {
                let stays = || key.rights.similarity.map(Into::into);
                Some(patch.similarity.unwrap_or_else(stays).unwrap_or_default().with_threshold(threshold))
            }
        },
        thinking_budget: patch.thinking_budget,
    };
    rights.check(&mut problems, &access.admin.live.load().settings);
    known.check(patch.references(), key, &mut problems);
    problems.done()?;
    rights.apply(&mut key.rights);
    put(&mut key.name, patch.name.as_ref());
    put(&mut key.is_active, patch.is_active.as_ref());
    put(&mut key.no_log, patch.no_log.as_ref());
    put(&mut key.allowed_models, patch.allowed_models.as_ref());
    put(&mut key.denied_models, patch.denied_models.as_ref());
    put(&mut key.allowed_connections, patch.allowed_connections.as_ref());
    put(&mut key.allowed_endpoints, patch.allowed_endpoints.as_ref());
    put(&mut key.ip_allowlist, patch.ip_allowlist.as_ref());
    put(&mut key.max_requests_per_minute, patch.max_requests_per_minute.as_ref());
    put(&mut key.max_requests_per_day, patch.max_requests_per_day.as_ref());
    put(&mut key.max_tokens_per_minute, patch.max_tokens_per_minute.as_ref());
    put(&mut key.max_concurrent, patch.max_concurrent.as_ref());
    put(&mut key.max_sessions, patch.max_sessions.as_ref());
    put(&mut key.strict, patch.strict.as_ref());
    if let Some(scopes) = &patch.scopes {
        key.scopes = scopes.iter().copied().map(Scope::from).collect();
    }
    Ok(())
}

fn view(admin: &Admin, key: ApiKey, machine_id: &str) -> ApiKeyView {
    ApiKeyView {
        budget: budgets::of_key(admin, &key.id),
        id: key.id.to_string(),
        name: key.name,
        key_prefix: key.masked.split('*').next().unwrap_or("").to_owned(),
        key: key.masked,
        machine_id: machine_id.to_owned(),
        is_active: key.is_active,
        no_log: key.no_log,
        allowed_models: key.allowed_models,
        denied_models: key.denied_models,
        allowed_connections: key.allowed_connections,
        allowed_endpoints: key.allowed_endpoints,
        scopes: key.scopes.into_iter().map(KeyScope::from).collect(),
        ip_allowlist: key.ip_allowlist,
        max_requests_per_minute: key.max_requests_per_minute,
        max_requests_per_day: key.max_requests_per_day,
        max_tokens_per_minute: key.max_tokens_per_minute,
        max_concurrent: key.max_concurrent,
        max_sessions: key.max_sessions,
        strict: key.strict,
        rights: key.rights.into(),
        expires_at: key.expires_at.map(iso),
        revoked_at: key.revoked_at.map(iso),
        last_used_at: key.last_used_at.map(iso),
        created_at: iso(key.created_at),
    }
}

fn new_key() -> String {
    format!("{PREFIX}{}", random_secret())
}

fn masked(key: &str) -> String {
    format!("{PREFIX}****{}", &key[key.len() - 4..])
}

impl From<KeyScope> for Scope {
    fn from(scope: KeyScope) -> Self {
        match scope {
            KeyScope::Manage => Self::Manage,
            KeyScope::Sync => Self::Sync,
            KeyScope::Metrics => Self::Metrics,
        }
    }
}

impl From<Scope> for KeyScope {
    fn from(scope: Scope) -> Self {
        match scope {
            Scope::Manage => Self::Manage,
            Scope::Sync => Self::Sync,
            Scope::Metrics => Self::Metrics,
        }
    }
}
