//! Asking upstreams: `/api/providers/{id}/test`, `/{id}/models`, `/validate`, `/test-batch`.

use std::collections::BTreeMap;

use futures_util::{StreamExt as _, stream};
use omniroute_dialect::DialectId;
use omniroute_dialect::ir::Usage;
use omniroute_domain::entity::{AuthType, Connection, ConnectionId, ConnectionOptions, TestStatus};
use omniroute_engine::ports::{AttemptRow, CHAT, RequestRow, RowId};
use omniroute_store::ConnectionFilter;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::connection_keys;
use super::connection_options::merge_options;
use super::connections::{all, check_urls, find};
use crate::auth::{Caller, Management};
use crate::endpoint::{Body, Filter, Id, Ignored, Json, OptionalBody};
use crate::error::{AdminResult, bad_request, internal, invalid_field};
use crate::probe::{
    Diagnosis, DiagnosisSource, DiagnosisType, Subject, UpstreamModel, Verdict, dialect_of, list_models,
    parse_models, probe, probe_chat,
};
use crate::provider_lookup::Vendor;
use crate::state::Admin;
use crate::text::iso;
use crate::validation::Problems;

/// Tests that run at once.
const BATCH: usize = 5;
/// Most connections of one batch.
const MAX_BATCH: usize = 500;
/// Under which name tests are logged.
const TEST_MODEL: &str = "connection-test";

#[derive(Deserialize, ToSchema, Default)]
#[serde(default)]
pub(crate) struct TestRequest {
    /// Ask this model instead of the list of models.
    model: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TestResult {
    valid: bool,
    error: Option<String>,
    warning: Option<String>,
    refreshed: bool,
    diagnosis: Diagnosis,
    latency_ms: i64,
    status_code: Option<u16>,
    tested_at: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BatchRequest {
    mode: BatchMode,
    /// For the mode `provider`.
    provider_id: Option<String>,
}

/// Which connections are tested.
#[derive(Serialize, Deserialize, ToSchema, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BatchMode {
    All,
    Provider,
    Oauth,
    Apikey,
    Free,
    Compatible,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BatchResult {
    mode: BatchMode,
    provider_id: Option<String>,
    results: Vec<BatchEntry>,
    tested_at: String,
    summary: BatchSummary,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BatchEntry {
    provider: String,
    connection_id: String,
    connection_name: String,
    auth_type: AuthTypeName,
    #[serde(flatten)]
    #[schema(inline)]
    result: TestResult,
}

/// How a connection authenticates.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AuthTypeName {
    Apikey,
    Oauth,
    None,
    Aws,
    Gcp,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct BatchSummary {
    total: usize,
    passed: usize,
    failed: usize,
}

#[derive(Deserialize, IntoParams)]
pub(crate) struct ModelsQuery {
    /// Ask the upstream even if the answer is known.
    #[serde(default)]
    refresh: bool,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ModelListing {
    provider: String,
    connection_id: String,
    models: Vec<UpstreamModel>,
    source: ModelSource,
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<String>,
}

/// Where a list of models comes from.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ModelSource {
    Api,
    Cache,
    LocalCatalog,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ValidateRequest {
    provider: String,
    api_key: Option<String>,
    base_url: Option<String>,
    #[schema(value_type = Option<Object>)]
    provider_specific_data: Option<BTreeMap<String, Value>>,
    /// Ask this model instead of the list of models.
    model: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct ValidateResult {
    valid: bool,
    error: Option<String>,
    warning: Option<String>,
    /// `models_endpoint`, `chat_probe`, `service_probe` (an account that is not there for chat) or null.
    method: Option<&'static str>,
}

pub(crate) async fn test(
    access: Management,
    Id(id): Id,
    OptionalBody(body): OptionalBody<TestRequest>,
) -> AdminResult<Json<TestResult>> {
    let connection = find(&access.admin, &id).await?;
    let result = test_one(&access, &connection, body.model.as_deref()).await?;
    access.audit("provider.connection.test", "provider_connection", &id, connection.provider.as_str()).await;
    Ok(Json(result))
}

pub(crate) async fn test_batch(
    access: Management,
    Body(body): Body<BatchRequest>,
) -> AdminResult<Json<BatchResult>> {
    let admin = &access.admin;
    let provider = match (body.mode, &body.provider_id) {
        (BatchMode::Provider, None) => {
            return Err(invalid_field("providerId", "is required for the mode `provider`"));
        }
        (BatchMode::Provider, Some(name)) => {
            let vendor = Vendor::find(admin, name).await?;
            Some(
                vendor
                    .ok_or_else(|| invalid_field("providerId", "is neither in the catalogue nor a node"))?
                    .id,
            )
        }
        _ => None,
    };
    let filter = ConnectionFilter { provider, active: Some(true) };
    let mut connections = all(admin, &filter).await?;
    connections.retain(|row| match body.mode {
        BatchMode::All | BatchMode::Provider => true,
        BatchMode::Oauth => row.auth_type == AuthType::Oauth,
        BatchMode::Apikey => row.auth_type == AuthType::Apikey,
        BatchMode::Free => row.auth_type == AuthType::None,
        BatchMode::Compatible => admin.catalog.provider(row.provider.as_str()).is_none(),
    });
    connections.truncate(MAX_BATCH);
    let caller: &Caller = &access;
    let results: Vec<AdminResult<BatchEntry>> = stream::iter(connections)
        .map(|connection| async move {
            let result = test_one(caller, &connection, None).await?;
            Ok(BatchEntry {
                provider: connection.provider.to_string(),
                connection_id: connection.id.to_string(),
                connection_name: connection.name,
                auth_type: connection.auth_type.into(),
                result,
            })
        })
        .buffer_unordered(BATCH)
        .collect()
        .await;
    let results = results.into_iter().collect::<AdminResult<Vec<_>>>()?;
    let passed = results.iter().filter(|entry| entry.result.valid).count();
    let summary = BatchSummary { total: results.len(), passed, failed: results.len() - passed };
    access
        .audit("provider.connection.test", "provider_connection", "batch", &summary.total.to_string())
        .await;
    Ok(Json(BatchResult {
        mode: body.mode,
        provider_id: body.provider_id,
        results,
        tested_at: iso(admin.now_ms()),
        summary,
    }))
}

pub(crate) async fn models(
    access: Management,
    Id(id): Id,
    Filter(query): Filter<ModelsQuery>,
) -> AdminResult<Json<ModelListing>> {
    let admin = &access.admin;
    let connection = find(admin, &id).await?;
    let answer = |models, source, warning| {
        let (provider, connection_id) = (connection.provider.to_string(), connection.id.to_string());
        Ok(Json(ModelListing { provider, connection_id, models, source, warning }))
    };
    if !query.refresh
        && let Some(models) = admin.cached_models(&connection.id).await.and_then(|body| parse_models(&body))
    {
        return answer(models, ModelSource::Cache, None);
    }
    let vendor = vendor_of(admin, &connection).await?;
    let endpoints = vendor.endpoints(&connection)?;
    let subject = Subject {
        provider: vendor.provider.as_ref(),
        endpoints: &endpoints,
        services: &[],
        allow_private: vendor.allows_private(admin, &connection.options),
    };
    let warning = match list_models(admin, &subject).await {
        Some(Ok(listing)) => {
            admin.cache_models(&connection.id, listing.body);
            return answer(listing.models, ModelSource::Api, None);
        }
        Some(Err(failure)) => {
            let told = Verdict { failure: Some(failure), ..Verdict::default() }.message();
            format!("the provider did not answer with a list: {}", told.unwrap_or_default())
        }
        None => "the provider lists no models".to_owned(),
    };
    let local = local_models(admin, &vendor);
    if local.is_empty() {
        return Err(bad_request(format!("{warning}, and none are known")));
    }
    answer(local, ModelSource::LocalCatalog, Some(warning))
}

pub(crate) async fn validate(
    access: Management,
    ignored: Ignored,
    Body(body): Body<ValidateRequest>,
) -> AdminResult<Json<ValidateResult>> {
    let admin = &access.admin;
    let vendor = Vendor::find(admin, &body.provider).await?;
    let vendor = vendor
        .ok_or_else(|| invalid_field("provider", "Invalid provider: neither in the catalogue nor a node"))?;
    let mut options = ConnectionOptions::default();
    let mut problems = Problems::default();
    merge_options(
        &mut options,
        body.provider_specific_data.unwrap_or_default(),
        &vendor,
        &ignored,
        &mut problems,
    );
    problems.done()?;
    if body.base_url.is_some() {
        options.base_url = body.base_url;
    }
    let draft = Connection {
        priority: 1,
        api_key: body.api_key.map(SecretString::from),
        options,
        ..Connection::new(ConnectionId::from("draft"), vendor.id.clone(), "draft", access.now_ms)
    };
    check_urls(admin, &vendor, &draft).await?;
    let (endpoints, services) = vendor.reach(&draft)?;
    let subject = Subject {
        provider: vendor.provider.as_ref(),
        endpoints: &endpoints,
        services: &services,
        allow_private: vendor.allows_private(admin, &draft.options),
    };
    let verdict = match &body.model {
        Some(model) => probe_chat(admin, &subject, model).await,
        None => probe(admin, &subject, probe_model(admin, &vendor, &draft).as_deref()).await,
    };
    if let Some(reason) = verdict.unsupported {
        return Err(bad_request(format!("Provider validation not supported: {reason}")));
    }
    let diagnosis = verdict.diagnosis();
    let told = match diagnosis.r#type {
        DiagnosisType::UpstreamAuthError => Some("Invalid API key".to_owned()),
        _ => verdict.message(),
    };
    let valid = verdict.is_valid();
    let (error, warning) = if valid { (None, told) } else { (told, None) };
    Ok(Json(ValidateResult { valid, error, warning, method: verdict.method.map(|method| method.as_str()) }))
}

/// Tests a connection and writes down what came of it.
async fn test_one(caller: &Caller, connection: &Connection, model: Option<&str>) -> AdminResult<TestResult> {
    let admin = &caller.admin;
    let vendor = vendor_of(admin, connection).await?;
    let now = admin.now_ms();
    if connection.api_key.is_none() && vendor.needs_key() {
        return Ok(not_asked(DiagnosisType::MissingCredentials, "the connection has no key".to_owned(), now));
    }
    let (endpoints, services) = match vendor.reach(connection) {
        Ok(reach) => reach,
        Err(error) => return Ok(not_asked(DiagnosisType::Unsupported, error.message().to_owned(), now)),
    };
    let subject = Subject {
        provider: vendor.provider.as_ref(),
        endpoints: &endpoints,
        services: &services,
        allow_private: vendor.allows_private(admin, &connection.options),
    };
    let verdict = match model {
        Some(model) => probe_chat(admin, &subject, model).await,
        None => probe(admin, &subject, probe_model(admin, &vendor, connection).as_deref()).await,
    };
    let dialect = endpoints.first().map(|endpoint| endpoint.dialect);
    let dialect = dialect.or_else(|| services.first().map(dialect_of));
    if let Some(dialect) = dialect.filter(|_| verdict.unsupported.is_none()) {
        write_down(caller, connection, dialect, &verdict, now).await?;
    }
    let valid = verdict.is_valid();
    let told = verdict.message().or_else(|| verdict.unsupported.clone());
    let (error, warning) = if valid { (None, told) } else { (told, None) };
    Ok(TestResult {
        valid,
        error,
        warning,
        refreshed: false,
        diagnosis: verdict.diagnosis(),
        latency_ms: verdict.latency_ms,
        status_code: verdict.status,
        tested_at: iso(now),
    })
}

async fn write_down(
    caller: &Caller,
    connection: &Connection,
    dialect: DialectId,
    verdict: &Verdict,
    now: i64,
) -> AdminResult<()> {
    let admin = &caller.admin;
    let before = super::connection_view::current_status(admin, connection, now);
    let mut status = verdict.status_after(&before, now);
    let keys = connection.pool_keys();
    if verdict.failure.is_none() {
        // Told to every process, this one too, whatever is known here: locks of models are known to the process that met them.
        if admin.store.connections().clear_errors(&connection.id, &status).await? {
            (admin.reload)().await.map_err(internal)?;
        }
    } else {
        if let Some(first) = keys.first() {
            // Of several keys the first one was tried; what it is refused says nothing of the others.
            let before = connection_keys::statuses(admin, connection, now).remove(&first.state_id);
            let of_key = verdict.status_after(&before.unwrap_or_default(), now);
            admin.store.key_states().set(&first.state_id, &of_key).await?;
            if status.test_status.is_terminal() {
                status.test_status = TestStatus::Error;
            }
        }
        admin.store.connections().set_status(&connection.id, &status).await?;
    }
    let failure = verdict.failure.as_ref();
    admin.recorder.record(RequestRow {
        id: RowId::new(now, rand::random()),
        request_id: caller.request_id.as_str().into(),
        method: http::Method::POST,
        path: format!("/api/providers/{}/test", connection.id).into(),
        // A network failure has no status of its own: 504 for a time limit, 502 else.
        request_type: CHAT,
        status: verdict.status.unwrap_or(match verdict.diagnosis().r#type {
            DiagnosisType::Timeout => 504,
            _ => 502,
        }),
        requested_model: TEST_MODEL.into(),
        model: TEST_MODEL.into(),
        provider: Some(connection.provider.clone()),
        connection: Some(connection.id.clone()),
        connection_name: Some(connection.name.as_str().into()),
        api_key: None,
        api_key_name: None,
        client_dialect: dialect,
        upstream_dialect: Some(dialect),
        stream: false,
        duration_ms: verdict.latency_ms,
        ttft_ms: None,
        overhead_us: 0,
        units: None,
        usage: Usage::default(),
        usage_estimated: false,
        cost_nano: None,
        price_source: None,
        price_version: None,
        source: "upstream",
        similarity: None,
        combo: None,
        combo_step: None,
        is_fallback: false,
        bills: vec![],
        attempts: vec![AttemptRow {
            provider: connection.provider.clone(),
            model: TEST_MODEL.into(),
            connection: connection.id.clone(),
            connection_name: connection.name.as_str().into(),
            path: Default::default(),
            status: verdict.status,
            failure: failure.map(|failure| failure.kind.as_str()),
            message: verdict.message(),
            duration_ms: verdict.latency_ms,
            units: None,
            usage: Usage::default(),
            is_unheard: false,
            cost_nano: None,
        }],
        error: verdict.message(),
        error_code: failure.map(|failure| failure.kind.as_str().to_owned()),
        losses: Vec::new(),
        decision: None,
        bodies: omniroute_engine::bodies::BodyNote::Off,
    });
    Ok(())
}

fn not_asked(r#type: DiagnosisType, message: String, now: i64) -> TestResult {
    TestResult {
        valid: false,
        error: Some(message.clone()),
        warning: None,
        refreshed: false,
        diagnosis: Diagnosis { r#type, source: DiagnosisSource::Local, message: Some(message), code: None },
        latency_ms: 0,
        status_code: None,
        tested_at: iso(now),
    }
}

async fn vendor_of(admin: &Admin, connection: &Connection) -> AdminResult<Vendor> {
    let vendor = Vendor::find(admin, connection.provider.as_str()).await?;
    vendor.ok_or_else(|| bad_request("the provider of this connection is gone; delete the connection"))
}

/// The model a chat would be tried with.
fn probe_model(admin: &Admin, vendor: &Vendor, connection: &Connection) -> Option<String> {
    let chat = |row: &&omniroute_provider::model::ModelSpec| row.mode == "chat";
    connection
        .default_model
        .clone()
        .or_else(|| vendor.provider.spec().models.first().cloned())
        .or_else(|| admin.catalog.models_of(&vendor.id).iter().find(chat).map(|row| row.model.clone()))
}

/// What is known of a provider's models without asking it.
fn local_models(admin: &Admin, vendor: &Vendor) -> Vec<UpstreamModel> {
    let snapshot = admin.live.load();
    let listed = snapshot.provider(&vendor.id).map(|state| state.models.clone()).unwrap_or_default();
    listed
        .into_iter()
        .map(|model| UpstreamModel {
            id: model.id,
            name: model.name,
            owned_by: None,
            context_window: model.context_window,
            max_output: model.max_output,
        })
        .collect()
}

impl From<AuthType> for AuthTypeName {
    fn from(auth_type: AuthType) -> Self {
        match auth_type {
            AuthType::Apikey => Self::Apikey,
            AuthType::Oauth => Self::Oauth,
            AuthType::None => Self::None,
            AuthType::Aws => Self::Aws,
            AuthType::Gcp => Self::Gcp,
        }
    }
}
