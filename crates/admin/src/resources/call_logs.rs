//! Single requests: `/api/usage/call-logs`, and the plain lines of `/api/usage/logs` and `/api/usage/request-logs`.

use std::collections::BTreeMap;

use omniroute_store::{AttemptDetail, BodyState, CallLog, CallLogLine, CallLogQuery};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::call_log_bodies::{self, BodiesView};
use super::page;
use super::route_preview::{RouteAnswer, logged};
use crate::auth::Management;
use crate::endpoint::{Filter, Id, Json, WithTotal};
use crate::error::{AdminResult, invalid_field, not_found};
use crate::text::{iso, parse_iso, usd};
use crate::validation::Problems;

#[derive(Deserialize, IntoParams)]
pub(crate) struct LineQuery {
    /// How many, 1 to 1000; 200 where nothing is said.
    limit: Option<u32>,
}

#[derive(Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(rename_all = "camelCase")]
pub(crate) struct RequestLogQuery {
    /// How many, 1 to 1000; 200 where nothing is said.
    limit: Option<u32>,
    /// Rows to skip, with `format=json`.
    #[serde(alias = "cursor")]
    offset: Option<u32>,
    /// `json`: rows instead of lines.
    format: Option<String>,
}

#[derive(Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(rename_all = "camelCase")]
pub(crate) struct CallLogFilter {
    /// An HTTP status, or `error` for everything that failed.
    status: Option<String>,
    model: Option<String>,
    provider: Option<String>,
    api_key_id: Option<String>,
    connection_id: Option<String>,
    /// Through this combo, by name.
    combo_name: Option<String>,
    /// Part of a name, path, error or request id.
    q: Option<String>,
    /// RFC 3339.
    since: Option<String>,
    /// RFC 3339.
    until: Option<String>,
    /// Page size, 1 to 500.
    limit: Option<u32>,
    /// Rows to skip.
    #[serde(alias = "cursor")]
    offset: Option<u32>,
}

/// A logged request.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CallLogView {
    id: String,
    timestamp: String,
    method: String,
    path: String,
    status: i64,
    model: String,
    requested_model: String,
    provider: Option<String>,
    account: Option<String>,
    connection_id: Option<String>,
    /// Milliseconds.
    duration: i64,
    /// Milliseconds to the first event.
    ttft: Option<i64>,
    overhead_us: i64,
    tokens: Tokens,
    /// USD; null when unknown.
    cost: Option<f64>,
    price_source: Option<String>,
    estimated: bool,
    stream: bool,
    /// `upstream`, `semantic` for the cache of answers, `similar` for its answer to a question that is close, or `idempotent`
    /// for the answer to the same request a moment before.
    cache_source: String,
    /// How close that question is. Where the source is `upstream`: of a question whose answer would have been given.
    cache_similarity: Option<f64>,
    /// `chat`, `count` (of tokens), `embedding`, `image`, `audio-stt`, `audio-tts`, or `handoff` for the summary of a conversation.
    request_type: String,
    /// What was used beside tokens, by name (`images`, `millisIn`, …).
    units: BTreeMap<String, i64>,
    /// The tier of service in which it was answered, by what the upstream says: `flex`, `priority`, `fast`, or `other` where it is
    /// one that is not known here; null for the usual one.
    service_tier: Option<String>,
    /// USD that an answer from the cache would have cost; null when unknown, or when somebody was asked.
    saved_cost: Option<f64>,
    source_format: String,
    target_format: Option<String>,
    api_key_id: Option<String>,
    api_key_name: Option<String>,
    combo_name: Option<String>,
    combo_step_id: Option<String>,
    attempts: i64,
    error: Option<String>,
    error_code: Option<String>,
    losses: Vec<LossView>,
    has_request_body: bool,
    has_response_body: bool,
    request_id: String,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Tokens {
    r#in: Option<i64>,
    out: Option<i64>,
    cache_read: Option<i64>,
    cache_write: Option<i64>,
    reasoning: Option<i64>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct LossView {
    path: String,
    class: String,
}

/// A logged request with its attempts, and what was said in it where that is kept.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CallLogDetail {
    #[serde(flatten)]
    #[schema(inline)]
    row: CallLogView,
    #[serde(flatten)]
    #[schema(inline)]
    bodies: BodiesView,
    route: Route,
}

/// Where the request went.
#[derive(Serialize, ToSchema)]
pub(crate) struct Route {
    /// What was decided, in the shape of `/api/route/explain`; null where it was not written down.
    #[serde(flatten)]
    #[schema(inline)]
    decision: Option<RouteAnswer>,
    attempts: Vec<AttemptView>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AttemptView {
    provider: String,
    model: String,
    connection_id: String,
    connection_name: String,
    status: Option<u16>,
    failure: Option<String>,
    message: Option<String>,
    duration_ms: i64,
}

/// Lines or rows.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum RequestLogs {
    Lines(Vec<String>),
    Rows(CallLogPage),
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CallLogPage {
    logs: Vec<CallLogView>,
    total: u64,
    next_cursor: Option<String>,
}

pub(crate) async fn lines(
    access: Management,
    Filter(query): Filter<LineQuery>,
) -> AdminResult<Json<Vec<String>>> {
    Ok(Json(plain(&access, query.limit).await?))
}

pub(crate) async fn request_logs(
    access: Management,
    Filter(query): Filter<RequestLogQuery>,
) -> AdminResult<Json<RequestLogs>> {
    match query.format.as_deref() {
        None | Some("text") => Ok(Json(RequestLogs::Lines(plain(&access, query.limit).await?))),
        Some("json") => {
            let page = page(query.limit, query.offset)?;
            let wanted = CallLogQuery { limit: page.limit, offset: page.offset, ..CallLogQuery::default() };
            let (logs, total) = access.admin.store.call_logs().list(&wanted).await?;
            let next_cursor = page.next_cursor(total);
            let logs = logs.into_iter().map(CallLogView::from).collect();
            Ok(Json(RequestLogs::Rows(CallLogPage { logs, total, next_cursor })))
        }
        Some(_) => Err(invalid_field("format", "must be `text` or `json`")),
    }
}

pub(crate) async fn list(
    access: Management,
    Filter(filter): Filter<CallLogFilter>,
) -> AdminResult<WithTotal<Vec<CallLogView>>> {
    let page = page(filter.limit, filter.offset)?;
    let mut problems = Problems::default();
    let mut time = |field: &str, text: &Option<String>| {
        let ms = text.as_deref().and_then(parse_iso);
        if text.is_some() && ms.is_none() {
            problems.add(field, "must be a time like 2030-01-31T00:00:00Z");
        }
        ms
    };
    let (since, until) = (time("since", &filter.since), time("until", &filter.until));
    let status = match filter.status.as_deref() {
        None | Some("error") => None,
        Some(text) => match text.parse::<u16>().ok().filter(|status| (100..600).contains(status)) {
            Some(status) => Some(status),
            None => {
                problems.add("status", "must be an HTTP status or `error`");
                None
            }
        },
    };
    problems.done()?;
    let query = CallLogQuery {
        status,
        errors_only: filter.status.as_deref() == Some("error"),
        model: filter.model,
        provider: filter.provider,
        api_key: filter.api_key_id,
        connection: filter.connection_id,
        combo: filter.combo_name,
        q: filter.q.filter(|q| !q.is_empty()),
        since,
        until,
        limit: page.limit,
        offset: page.offset,
    };
    let (logs, total) = access.admin.store.call_logs().list(&query).await?;
    Ok(WithTotal(total, logs.into_iter().map(CallLogView::from).collect()))
}

pub(crate) async fn show(access: Management, Id(id): Id) -> AdminResult<Json<CallLogDetail>> {
    let row = access.admin.store.call_logs().get(&id).await?.ok_or_else(|| not_found("Call log"))?;
    let attempts = row.attempt_details.iter().cloned().map(AttemptView::from).collect();
    let decision = access.admin.store.routing_decisions().get(&id).await?;
    let decision = decision.map(|decision| logged(decision, &row));
    let found = access.admin.store.bodies_of(&row, access.now_ms).await;
    let bodies = call_log_bodies::view(found, row.bodies_at.clone());
    Ok(Json(CallLogDetail { row: row.into(), bodies, route: Route { decision, attempts } }))
}

#[derive(Deserialize, IntoParams)]
pub(crate) struct DeleteLogs {
    /// Requests that arrived before this time go. RFC 3339.
    before: String,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct DeletedLogs {
    deleted: u64,
}

pub(crate) async fn delete(
    access: Management,
    Filter(query): Filter<DeleteLogs>,
) -> AdminResult<Json<DeletedLogs>> {
    let Some(before) = parse_iso(&query.before) else {
        return Err(invalid_field("before", "must be a time like 2030-01-31T00:00:00Z"));
    };
    let deleted = access.admin.store.call_logs().delete_before(before).await?;
    access.audit("compliance.cleanup", "call_logs", &query.before, &format!("{deleted} deleted")).await;
    Ok(Json(DeletedLogs { deleted }))
}

async fn plain(access: &Management, limit: Option<u32>) -> AdminResult<Vec<String>> {
    let mut problems = Problems::default();
    problems.range("limit", limit, &(1..=1_000));
    problems.done()?;
    let lines = access.admin.store.call_logs().lines(limit.unwrap_or(200)).await?;
    Ok(lines.iter().map(line).collect())
}

/// Time, model, provider, account, tokens in, tokens out, status.
fn line(row: &CallLogLine) -> String {
    let dash = || "-".to_owned();
    let count = |tokens: Option<i64>| tokens.map_or_else(dash, |tokens| tokens.to_string());
    format!(
        "{} | {} | {} | {} | {} | {} | {}",
        iso(row.timestamp),
        row.model,
        row.provider.as_deref().map_or_else(dash, str::to_uppercase),
        row.account.clone().unwrap_or_else(dash),
        count(row.tokens_in),
        count(row.tokens_out),
        row.status
    )
}

impl From<CallLog> for CallLogView {
    fn from(row: CallLog) -> Self {
        Self {
            id: row.id,
            timestamp: iso(row.timestamp),
            method: row.method,
            path: row.path,
            status: row.status,
            model: row.model,
            requested_model: row.requested_model,
            provider: row.provider,
            account: row.account,
            connection_id: row.connection_id,
            duration: row.duration,
            ttft: row.ttft,
            overhead_us: row.overhead_us,
            tokens: Tokens {
                r#in: row.tokens_in,
                out: row.tokens_out,
                cache_read: row.tokens_cache_read,
                cache_write: row.tokens_cache_creation,
                reasoning: row.tokens_reasoning,
            },
            cost: row.cost_nano.map(usd),
            price_source: row.price_source,
            estimated: row.estimated,
            stream: row.stream,
            cache_source: row.cache_source,
            cache_similarity: row.similarity,
            request_type: row.request_type,
            units: row.units,
            service_tier: row.service_tier,
            saved_cost: row.saved_nano.map(usd),
            source_format: row.source_format,
            target_format: row.target_format,
            api_key_id: row.api_key_id,
            api_key_name: row.api_key_name,
            combo_name: row.combo_name,
            combo_step_id: row.combo_step_id,
            attempts: row.attempts,
            error: row.error,
            error_code: row.error_code,
            losses: row
                .losses
                .into_iter()
                .map(|loss| LossView { path: loss.path, class: loss.class })
                .collect(),
            has_request_body: matches!(row.bodies, BodyState::Kept { request: true, .. }),
            has_response_body: matches!(row.bodies, BodyState::Kept { response: true, .. }),
            request_id: row.request_id,
        }
    }
}

impl From<AttemptDetail> for AttemptView {
    fn from(attempt: AttemptDetail) -> Self {
        Self {
            provider: attempt.provider,
            model: attempt.model,
            connection_id: attempt.connection_id,
            connection_name: attempt.connection_name,
            status: attempt.status,
            failure: attempt.failure,
            message: attempt.message,
            duration_ms: attempt.duration_ms,
        }
    }
}
