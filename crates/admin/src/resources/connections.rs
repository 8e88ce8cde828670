//! Connections, one account or key at one provider each: `/api/providers`. Their tests are in `connection_probes`.

use std::collections::BTreeMap;

use omniroute_domain::entity::{AuthType, Connection, ConnectionId, ConnectionStatus, QuotaWindow};
use omniroute_domain::plan::PlanWindow;
use omniroute_provider::spec::Category;
use omniroute_provider::{ProviderSpec, registry};
use omniroute_store::ConnectionFilter;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::connection_options::{check_key, merge_options};
use super::connection_view::{ConnectionView, view};
use super::{Message, present};
use crate::address::check_url;
use crate::auth::Management;
use crate::endpoint::{Body, Created, Filter, Id, Ignored, Json};
use crate::error::{AdminResult, MAX_ROUNDS, Refusal, conflict, invalid_field, not_found, overtaken};
use crate::provider_lookup::{Vendor, not_kept};
use crate::state::Admin;
use crate::text::parse_iso;
use crate::validation::Problems;

#[derive(Serialize, ToSchema)]
pub(crate) struct ConnectionList {
    connections: Vec<ConnectionView>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct ConnectionAnswer {
    connection: ConnectionView,
}

#[derive(Deserialize, IntoParams)]
pub(crate) struct ConnectionQuery {
    /// Only those of this provider: id, alias or prefix of a node.
    provider: Option<String>,
    /// Only those that are on, or off.
    active: Option<bool>,
}

#[derive(Deserialize, ToSchema, Default)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ConnectionPatch {
    /// Id or alias of a provider, or id or prefix of a node. Required to add one; cannot be changed.
    provider: Option<String>,
    /// Name for people, unique within the provider.
    name: Option<String>,
    api_key: Option<String>,
    /// Place within the provider, 1 first.
    priority: Option<i64>,
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<i64>)]
    global_priority: Option<Option<i64>>,
    is_active: Option<bool>,
    /// The model a test uses.
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    default_model: Option<Option<String>>,
    rate_limit_protection: Option<bool>,
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<u32>)]
    max_concurrent: Option<Option<u32>>,
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<i64>)]
    health_check_interval: Option<Option<i64>>,
    tags: Option<Vec<String>>,
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    group: Option<Option<String>>,
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    display_name: Option<Option<String>>,
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    email: Option<Option<String>>,
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    expires_at: Option<Option<String>>,
    /// `baseUrl`, `allowPrivate`, `dialect`, `extraHeaders`, `excludedModels`, `weight`, `discount`, `limiter`, `quotaWindows`, `apiKeys`, and values of the
    /// provider's URL variables. Merged; null removes a member.
    #[schema(value_type = Option<Object>)]
    provider_specific_data: Option<BTreeMap<String, Value>>,
    /// Forget the last error, cooldown and terminal state.
    clear_error: bool,
}

#[derive(Deserialize, IntoParams)]
pub(crate) struct UpsertQuery {
    /// Change the connection of this provider and name if there is one.
    #[serde(default)]
    upsert: bool,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct ProviderCatalog {
    providers: Vec<CatalogEntry>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct CatalogEntry {
    /// The entry of the catalogue.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    spec: ProviderSpec,
    /// How many connections there are.
    configured: usize,
    /// How many of them are on.
    active: usize,
}

pub(crate) async fn list(
    access: Management,
    Filter(query): Filter<ConnectionQuery>,
) -> AdminResult<Json<ConnectionList>> {
    let admin = &access.admin;
    let provider = match &query.provider {
        Some(name) => match Vendor::find(admin, name).await? {
            Some(vendor) => Some(vendor.id),
            None => return Ok(Json(ConnectionList { connections: Vec::new() })),
        },
        None => None,
    };
    let connections = all(admin, &ConnectionFilter { provider, active: query.active }).await?;
    Ok(Json(ConnectionList { connections: connections.iter().map(|row| view(admin, row)).collect() }))
}

pub(crate) async fn show(access: Management, Id(id): Id) -> AdminResult<Json<ConnectionAnswer>> {
    let connection = find(&access.admin, &id).await?;
    Ok(Json(ConnectionAnswer { connection: view(&access.admin, &connection) }))
}

pub(crate) async fn create(
    access: Management,
    ignored: Ignored,
    Filter(query): Filter<UpsertQuery>,
    Body(draft): Body<ConnectionPatch>,
) -> AdminResult<Created<ConnectionAnswer>> {
    let admin = &access.admin;
    let provider = draft.provider.as_deref().ok_or_else(|| invalid_field("provider", "is required"))?;
    let vendor = Vendor::find(admin, provider).await?;
    let vendor = vendor
        .ok_or_else(|| invalid_field("provider", "Invalid provider: neither in the catalogue nor a node"))?;
    if vendor.id.as_str() == registry::SIM {
        return Err(invalid_field("provider", "is built in and needs no connection"));
    }
    let name = draft.name.clone().ok_or_else(|| invalid_field("name", "is required"))?;
    let filter = ConnectionFilter { provider: Some(vendor.id.clone()), active: None };
    let siblings = if query.upsert { admin.store.connections().list(&filter).await? } else { Vec::new() };
    let stored = match siblings.into_iter().find(|row| row.name == name) {
        Some(known) => take_over(&access, &vendor, &known.id, &draft, &ignored).await?,
        None => {
            let mut connection = Connection::new(
                ConnectionId::from(Uuid::now_v7().to_string()),
                vendor.id.clone(),
                name,
                access.now_ms,
            );
            merge(&vendor, &mut connection, &draft, &ignored)?;
            check_urls(admin, &vendor, &connection).await?;
            if connection.api_key.is_none() {
                if vendor.needs_key() {
                    return Err(invalid_field("apiKey", "is required for this provider"));
                }
                connection.auth_type = AuthType::None;
            }
            vendor.endpoints(&connection)?;
            let stored = admin.store.connections().insert(&connection).await.map_err(not_kept)?;
            access.reload().await?;
            recall_plan(&access, &stored, &[]).await?;
            let (id, provider) = (stored.id.as_str(), stored.provider.as_str());
            access.audit("provider.connection.create", "provider_connection", id, provider).await;
            stored
        }
    };
    Ok(Created(ConnectionAnswer { connection: view(admin, &stored) }))
}

pub(crate) async fn update(
    access: Management,
    Id(id): Id,
    ignored: Ignored,
    Body(patch): Body<ConnectionPatch>,
) -> AdminResult<Json<ConnectionAnswer>> {
    let admin = &access.admin;
    check_editable(admin, &id)?;
    let connection = find(admin, &id).await?;
    let vendor = Vendor::find(admin, connection.provider.as_str()).await?;
    let vendor = vendor
        .ok_or_else(|| invalid_field("provider", "the provider of this connection is gone; delete it"))?;
    if let Some(provider) = &patch.provider
        && Vendor::find(admin, provider).await?.is_none_or(|other| other.id != vendor.id)
    {
        return Err(invalid_field("provider", "cannot be changed; add another connection"));
    }
    let stored = take_over(&access, &vendor, &connection.id, &patch, &ignored).await?;
    Ok(Json(ConnectionAnswer { connection: view(admin, &stored) }))
}

/// Changes a stored connection by what was sent, and puts it in force.
async fn take_over(
    access: &Management,
    vendor: &Vendor,
    id: &ConnectionId,
    patch: &ConnectionPatch,
    ignored: &Ignored,
) -> AdminResult<Connection> {
    let admin = &access.admin;
    let clears = patch.clear_error || patch.api_key.is_some();
    let (before, mut stored) = change(access, vendor, id, patch, ignored).await?;
    if clears {
        let status = ConnectionStatus {
            last_tested: stored.status.last_tested,
            last_used_at: stored.status.last_used_at,
            ..ConnectionStatus::default()
        };
        // Told to every process; this one hears of it as it reloads.
        admin.store.connections().clear_errors(&stored.id, &status).await?;
        stored.status = status;
        stored.key_statuses.clear();
    }
    access.reload().await?;
    recall_plan(access, &stored, &before.options.quota_windows).await?;
    admin.forget_models(&stored.id);
    let provider = stored.provider.as_str();
    access.audit("provider.connection.update", "provider_connection", id.as_str(), provider).await;
    Ok(stored)
}

/// Changes a stored connection in one piece; gives it as it was and as it is. Its URLs are looked at before, since that takes
/// time; when somebody else changes them meanwhile, again.
async fn change(
    access: &Management,
    vendor: &Vendor,
    id: &ConnectionId,
    patch: &ConnectionPatch,
    ignored: &Ignored,
) -> AdminResult<(Connection, Connection)> {
    let admin = &access.admin;
    for _ in 0..MAX_ROUNDS {
        let mut draft = find(admin, id.as_str()).await?;
        merge(vendor, &mut draft, patch, ignored)?;
        check_urls(admin, vendor, &draft).await?;
        let mut before = draft.clone();
        let make = |row: &mut Connection| {
            before.clone_from(row);
            merge(vendor, row, patch, ignored)?;
            if urls(row) != urls(&draft) {
                return Err(Refusal::Overtaken);
            }
            vendor.endpoints(row)?;
            row.updated_at = access.now_ms;
            Ok(())
        };
        match admin.store.connections().change(id, make).await? {
            Ok(stored) => return Ok((before, stored)),
            Err(Refusal::Wrong(error)) => return Err(error),
            Err(Refusal::Overtaken) => {}
        }
    }
    Err(overtaken("connection"))
}

/// What the URLs of a connection are made of, and whether they may be private.
fn urls(row: &Connection) -> (Option<&str>, bool, &BTreeMap<String, String>) {
    (row.options.base_url.as_deref(), row.options.allow_private, &row.options.vars)
}

/// A window that is new to an account counts what was used of it before too. What begins with a request is better known here
/// than to the log; what goes by the clock may have been moved.
async fn recall_plan(access: &Management, row: &Connection, before: &[QuotaWindow]) -> AdminResult<()> {
    if row.options.quota_windows == before {
        return Ok(());
    }
    let snapshot = access.admin.live.load().clone();
    if let Some(state) = snapshot.connection(&row.id) {
        let is_wanted = |window: &PlanWindow| {
            window.opens_for_ms().is_none() || before.iter().all(|known| known.window != window.name())
        };
        access.admin.store.plan_uses().recall_account(state, is_wanted, access.now_ms).await?;
    }
    Ok(())
}

pub(crate) async fn delete(access: Management, Id(id): Id) -> AdminResult<Json<Message>> {
    check_editable(&access.admin, &id)?;
    let connection = find(&access.admin, &id).await?;
    if !access.admin.store.connections().delete(&connection.id).await? {
        return Err(not_found("Connection"));
    }
    access.reload().await?;
    access.admin.forget_models(&connection.id);
    access
        .audit("provider.connection.delete", "provider_connection", &id, connection.provider.as_str())
        .await;
    Ok(Json(Message { message: "Connection deleted" }))
}

pub(crate) async fn catalog(access: Management) -> AdminResult<Json<ProviderCatalog>> {
    let admin = &access.admin;
    let connections = all(admin, &ConnectionFilter::default()).await?;
    let entry = |spec: &ProviderSpec| {
        let own = connections.iter().filter(|row| row.provider == spec.id);
        let (configured, active) =
            own.fold((0, 0), |(all, on), row| (all + 1, on + usize::from(row.is_active)));
        CatalogEntry { spec: spec.clone(), configured, active }
    };
    let mut providers: Vec<CatalogEntry> = admin
        .catalog
        .providers()
        .iter()
        .filter(|spec| spec.id.as_str() != registry::SIM)
        .map(|spec| entry(spec))
        .collect();
    providers.sort_by_key(|entry| entry.spec.category == Category::Custom);
    Ok(Json(ProviderCatalog { providers }))
}

/// Every connection that the filter lets through: those of the database, and those that the environment gives.
pub(super) async fn all(admin: &Admin, filter: &ConnectionFilter) -> AdminResult<Vec<Connection>> {
    let mut rows = admin.store.connections().list(filter).await?;
    let is_wanted = |row: &&Connection| {
        filter.provider.as_ref().is_none_or(|provider| row.provider == *provider)
            && filter.active.is_none_or(|active| row.is_active == active)
    };
    rows.extend(admin.settings.environment.iter().filter(is_wanted).cloned());
    // Stable: within a provider those of the environment stay last.
    rows.sort_by(|a, b| a.provider.cmp(&b.provider));
    Ok(rows)
}

/// A connection of the environment is not the API's to change.
pub(super) fn check_editable(admin: &Admin, id: &str) -> AdminResult<()> {
    let Some(row) = admin.settings.environment.iter().find(|row| row.id.as_str() == id) else {
        return Ok(());
    };
    Err(conflict(format!(
        "the connection comes from the environment variable {}; change it there and restart",
        row.name
    )))
}

/// The connection of this id.
pub(super) async fn find(admin: &Admin, id: &str) -> AdminResult<Connection> {
    if let Some(row) = admin.settings.environment.iter().find(|row| row.id.as_str() == id) {
        return Ok(row.clone());
    }
    let connection = admin.store.connections().get(&ConnectionId::from(id)).await?;
    connection.ok_or_else(|| not_found("Connection"))
}

/// Takes what a draft says into the connection. Nothing is stored; everything wrong is told, but for URLs.
fn merge(
    vendor: &Vendor,
    connection: &mut Connection,
    patch: &ConnectionPatch,
    ignored: &Ignored,
) -> AdminResult<()> {
    fn put<T: Clone>(target: &mut T, value: Option<&T>) {
        if let Some(value) = value {
            target.clone_from(value);
        }
    }
    let mut problems = Problems::default();
    if let Some(name) = &patch.name {
        problems.name("name", name);
    }
    if let Some(key) = &patch.api_key {
        check_key("apiKey", key, &mut problems);
    }
    problems.range("priority", patch.priority, &(1..=1_000_000));
    problems.range("globalPriority", patch.global_priority.flatten(), &(1..=1_000_000));
    problems.range("maxConcurrent", patch.max_concurrent.flatten(), &(1..=100_000));
    problems.range("healthCheckInterval", patch.health_check_interval.flatten(), &(0..=86_400 * 30));
    if let Some(tags) = &patch.tags {
        problems.list("tags", tags, 100);
    }
    for (field, text) in [
        ("defaultModel", &patch.default_model),
        ("group", &patch.group),
        ("displayName", &patch.display_name),
        ("email", &patch.email),
    ] {
        if let Some(Some(text)) = text {
            problems.length(field, text, 1..=256);
        }
    }
    let expires_at = match &patch.expires_at {
        Some(Some(text)) => {
            let end = parse_iso(text);
            if end.is_none() {
                problems.add("expiresAt", "must be a time like 2030-01-31T00:00:00Z");
            }
            Some(end)
        }
        Some(None) => Some(None),
        None => None,
    };
    if let Some(members) = &patch.provider_specific_data {
        merge_options(&mut connection.options, members.clone(), vendor, ignored, &mut problems);
    }
    problems.done()?;
    put(&mut connection.name, patch.name.as_ref());
    if let Some(key) = &patch.api_key {
        connection.api_key = Some(SecretString::from(key.as_str()));
        connection.auth_type = AuthType::Apikey;
    }
    put(&mut connection.priority, patch.priority.as_ref());
    put(&mut connection.global_priority, patch.global_priority.as_ref());
    put(&mut connection.is_active, patch.is_active.as_ref());
    put(&mut connection.default_model, patch.default_model.as_ref());
    put(&mut connection.rate_limit_protection, patch.rate_limit_protection.as_ref());
    put(&mut connection.max_concurrent, patch.max_concurrent.as_ref());
    put(&mut connection.health_check_interval, patch.health_check_interval.as_ref());
    put(&mut connection.tags, patch.tags.as_ref());
    put(&mut connection.group, patch.group.as_ref());
    put(&mut connection.display_name, patch.display_name.as_ref());
    put(&mut connection.email, patch.email.as_ref());
    put(&mut connection.expires_at, expires_at.as_ref());
    Ok(())
}

/// Refuses URLs that may not be called. Those of the catalogue without variables are known to be fine.
pub(super) async fn check_urls(admin: &Admin, vendor: &Vendor, connection: &Connection) -> AdminResult<()> {
    let options = &connection.options;
    let allow_private = vendor.allows_private(admin, options);
    if let Some(url) = &options.base_url {
        return check_url("providerSpecificData.baseUrl", url, allow_private).await;
    }
    if vendor.node.is_some() || !vendor.provider.spec().base_url.contains('{') {
        return Ok(());
    }
    let endpoints = vendor.endpoints(connection)?;
    let url = endpoints.iter().find_map(|endpoint| endpoint.models.as_ref().or(endpoint.chat.as_ref()));
    match url {
        Some(url) => check_url("providerSpecificData", &url.to_string(), allow_private).await,
        None => Ok(()),
    }
}
