//! The request log: one row per client request.

use std::borrow::Cow;
use std::collections::BTreeMap;

use omniroute_engine::ports::{CHAT, RowId};
use serde::{Deserialize, Serialize};

use crate::audit::like;
use crate::bodies::BodyState;
use crate::error::StoreError;
use crate::pool::{with_read, with_snapshot};
use crate::store::Store;

/// Access to the request log.
#[derive(Debug, Clone, Copy)]
pub struct CallLogs<'a>(pub(crate) &'a Store);

/// The source of an answer that somebody was asked for.
pub(crate) const UPSTREAM: &str = "upstream";

/// Which requests to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallLogQuery {
    /// With this status.
    pub status: Option<u16>,
    /// Only those that failed.
    pub errors_only: bool,
    /// Of this model, as requested or upstream.
    pub model: Option<String>,
    /// Of this provider.
    pub provider: Option<String>,
    /// With this client key, by id.
    pub api_key: Option<String>,
    /// On this account, by id.
    pub connection: Option<String>,
    /// Through this combo, by name.
    pub combo: Option<String>,
    /// With this text in a model, provider, account, key name, path, error or request id.
    pub q: Option<String>,
    /// From here on.
    pub since: Option<i64>,
    /// Before here.
    pub until: Option<i64>,
    /// Page size.
    pub limit: u32,
    /// Rows to skip.
    pub offset: u32,
}

/// A logged request.
#[derive(Debug, Clone, PartialEq)]
pub struct CallLog {
    /// Row id.
    pub id: String,
    /// Arrival.
    pub timestamp: i64,
    /// The gateway's id of the request.
    pub request_id: String,
    /// HTTP method.
    pub method: String,
    /// Path.
    pub path: String,
    /// Status the client got.
    pub status: i64,
    /// Upstream model.
    pub model: String,
    /// Model the client asked for.
    pub requested_model: String,
    /// Provider of the last attempt.
    pub provider: Option<String>,
    /// Name of the account of the last attempt.
    pub account: Option<String>,
    /// Its id.
    pub connection_id: Option<String>,
    /// The client's key.
    pub api_key_id: Option<String>,
    /// Its name.
    pub api_key_name: Option<String>,
    /// Dialect of the client.
    pub source_format: String,
    /// Dialect of the upstream.
    pub target_format: Option<String>,
    /// Whether it was a stream.
    pub stream: bool,
    /// Milliseconds from arrival to the last byte.
    pub duration: i64,
    /// Milliseconds from arrival to the first meaningful event.
    pub ttft: Option<i64>,
    /// Microseconds that the gateway itself took before sending.
    pub overhead_us: i64,
    /// Prompt tokens.
    pub tokens_in: Option<i64>,
    /// Produced tokens.
    pub tokens_out: Option<i64>,
    /// Prompt tokens read from a cache.
    pub tokens_cache_read: Option<i64>,
    /// Prompt tokens written to a cache.
    pub tokens_cache_creation: Option<i64>,
    /// Produced tokens spent on reasoning.
    pub tokens_reasoning: Option<i64>,
    /// Whether the tokens are estimates.
    pub estimated: bool,
    /// Cost in billionths of a US dollar; `None` = unknown.
    pub cost_nano: Option<i64>,
    /// Where the price came from.
    pub price_source: Option<String>,
    /// Number of upstream attempts.
    pub attempts: i64,
    /// The attempts, oldest first.
    pub attempt_details: Vec<AttemptDetail>,
    /// What went wrong in the end.
    pub error: Option<String>,
    /// Its code.
    pub error_code: Option<String>,
    /// What translation changed.
    pub losses: Vec<LoggedLoss>,
    /// Who answered: `upstream`, or where else the answer came from.
    pub cache_source: String,
    /// The combo that was asked for.
    pub combo_name: Option<String>,
    /// The id of its step that was asked last.
    pub combo_step_id: Option<String>,
    /// What was asked for: `chat`, `embedding`, …
    pub request_type: String,
    /// What it used beside tokens, by name; empty where that is nothing.
    pub units: BTreeMap<String, i64>,
    /// What it would have cost where a kept answer was given, in billionths of a US dollar.
    pub saved_nano: Option<i64>,
    /// How close its question is to the one whose answer it got; where somebody was asked, would have got.
    pub similarity: Option<f64>,
    /// What became of its bodies.
    pub bodies: BodyState,
    /// Which process has them.
    pub bodies_at: Option<String>,
    /// The tier in which it was served, if it was not the usual one.
    pub service_tier: Option<String>,
}

/// One upstream attempt as logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptDetail {
    /// Provider.
    pub provider: String,
    /// Upstream model.
    pub model: String,
    /// Account.
    pub connection_id: String,
    /// Its name.
    pub connection_name: String,
    /// Upstream status, if there was an answer.
    pub status: Option<u16>,
    /// Class of the failure.
    pub failure: Option<String>,
    /// In words.
    pub message: Option<String>,
    /// How long it took.
    pub duration_ms: i64,
}

/// One upstream attempt as it is stored: what the row itself says is left out, and an ordinary request has one attempt
/// that says the same as its row.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StoredAttempt<'a> {
    pub(crate) provider: Option<Cow<'a, str>>,
    pub(crate) model: Option<Cow<'a, str>>,
    pub(crate) connection_id: Option<Cow<'a, str>>,
    pub(crate) connection_name: Option<Cow<'a, str>>,
    pub(crate) status: Option<u16>,
    pub(crate) failure: Option<Cow<'a, str>>,
    pub(crate) message: Option<Cow<'a, str>>,
    /// The only combo that led to it, by the step that the row names.
    combo: Option<Cow<'a, str>>,
    /// The combos and their steps that led to it, the outermost first.
    #[serde(default, borrow)]
    pub(crate) steps: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    pub(crate) duration_ms: i64,
    /// Of the first one: whether the answer to the request is a fallback of its combo. Absent where there is one attempt and it
    /// is none, and in older rows.
    pub(crate) fallback: Option<bool>,
}

impl<'a> StoredAttempt<'a> {
    /// The attempts of a row, with the steps that led to each.
    pub(crate) fn all(text: &'a str, step: Option<&'a str>) -> Vec<Self> {
        let mut all: Vec<Self> = serde_json::from_str(text).unwrap_or_default();
        for attempt in &mut all {
            if let Some((combo, step)) = attempt.combo.take().zip(step) {
                attempt.steps.push((combo, step.into()));
            }
        }
        all
    }
}

/// One departure of a translation from the original, as logged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoggedLoss {
    /// Where.
    pub path: String,
    /// `mapped`, `clamped`, `dropped` or `invented`.
    pub class: String,
}

/// What a line of the plain log shows.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct CallLogLine {
    /// Arrival.
    pub timestamp: i64,
    /// Upstream model, or the requested one when no upstream was asked.
    pub model: String,
    /// Provider.
    pub provider: Option<String>,
    /// Name of the account.
    pub account: Option<String>,
    /// Prompt tokens.
    pub tokens_in: Option<i64>,
    /// Produced tokens.
    pub tokens_out: Option<i64>,
    /// Status the client got.
    pub status: i64,
}

macro_rules! columns {
    () => {
        "id, timestamp, request_id, method, path, status, model, requested_model, provider, account, connection_id, \
         api_key_id, api_key_name, source_format, target_format, stream, duration, ttft, overhead_us, tokens_in, \
         tokens_out, tokens_cache_read, tokens_cache_creation, tokens_reasoning, estimated, cost_nano, price_source, \
         attempts, attempt_details, error_summary, error_code, losses, cache_source, \
         combo_name, combo_step_id, request_type, units, saved_nano, cache_similarity, bodies, bodies_at, \
         service_tier"
    };
}

macro_rules! condition {
    () => {
        "($1 IS NULL OR status = $1) AND (NOT $2 OR status >= 400) \
         AND ($3 IS NULL OR model = $3 OR requested_model = $3) AND ($4 IS NULL OR provider = $4) \
         AND ($5 IS NULL OR api_key_id = $5) AND ($6 IS NULL OR connection_id = $6) \
         AND ($7 IS NULL OR LOWER(requested_model || ' ' || model || ' ' || COALESCE(provider, '') || ' ' \
         || COALESCE(account, '') || ' ' || COALESCE(api_key_name, '') || ' ' || path || ' ' \
         || COALESCE(error_summary, '') || ' ' || request_id) LIKE $7 ESCAPE '\\') \
         AND ($8 IS NULL OR timestamp >= $8) AND ($9 IS NULL OR timestamp < $9) \
         AND ($10 IS NULL OR combo_name = $10)"
    };
}

macro_rules! bind_query {
    ($sql:expr, $function:ident, $query:expr, $pattern:expr) => {
        sqlx::$function($sql)
            .bind($query.status.map(i64::from))
            .bind($query.errors_only)
            .bind($query.model.as_deref())
            .bind($query.provider.as_deref())
            .bind($query.api_key.as_deref())
            .bind($query.connection.as_deref())
            .bind($pattern.as_deref())
            .bind($query.since)
            .bind($query.until)
            .bind($query.combo.as_deref())
    };
}

impl CallLogs<'_> {
    /// Newest first, with the number of all that match.
    pub async fn list(&self, query: &CallLogQuery) -> Result<(Vec<CallLog>, u64), StoreError> {
        let pattern = query.q.as_deref().map(|text| format!("%{}%", like(&text.to_lowercase())));
        let (rows, total): (Vec<Row>, i64) = with_snapshot!(self.0.pool(), |db| {
            let total = bind_query!(
                concat!("SELECT COUNT(*) FROM call_logs WHERE ", condition!()),
                query_scalar,
                query,
                pattern
            )
            .fetch_one(&mut *db)
            .await?;
            let rows = bind_query!(
                concat!(
                    "SELECT ",
                    columns!(),
                    " FROM call_logs WHERE ",
                    condition!(),
                    " ORDER BY timestamp DESC, id DESC LIMIT $11 OFFSET $12"
                ),
                query_as,
                query,
                pattern
            )
            .bind(i64::from(query.limit))
            .bind(i64::from(query.offset))
            .fetch_all(&mut *db)
            .await?;
            (rows, total)
        });
        Ok((rows.into_iter().map(Row::into_log).collect(), total.unsigned_abs()))
    }

    /// One of them. There is no index of ids: the time that an id contains leads to the row.
    pub async fn get(&self, id: &str) -> Result<Option<CallLog>, StoreError> {
        let Some(id) = RowId::parse(id) else { return Ok(None) };
        let row: Option<Row> = with_read!(self.0.pool(), |db| {
            sqlx::query_as(concat!("SELECT ", columns!(), " FROM call_logs WHERE timestamp = $1 AND id = $2"))
                .bind(id.timestamp_ms())
                .bind(id.to_string())
                .fetch_optional(&mut *db)
                .await?
        });
        Ok(row.map(Row::into_log))
    }

    /// The latest, newest first, for the plain log.
    pub async fn lines(&self, limit: u32) -> Result<Vec<CallLogLine>, StoreError> {
        Ok(with_read!(self.0.pool(), |db| {
            sqlx::query_as(
                "SELECT timestamp, CASE WHEN model = '' THEN requested_model ELSE model END AS model, provider,
                 account, tokens_in, tokens_out, status FROM call_logs ORDER BY timestamp DESC, id DESC LIMIT $1",
            )
            .bind(i64::from(limit))
            .fetch_all(&mut *db)
            .await?
        }))
    }
}

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    timestamp: i64,
    request_id: String,
    method: String,
    path: String,
    status: i64,
    model: String,
    requested_model: String,
    provider: Option<String>,
    account: Option<String>,
    connection_id: Option<String>,
    api_key_id: Option<String>,
    api_key_name: Option<String>,
    source_format: String,
    target_format: Option<String>,
    stream: bool,
    duration: i64,
    ttft: Option<i64>,
    overhead_us: i64,
    tokens_in: Option<i64>,
    tokens_out: Option<i64>,
    tokens_cache_read: Option<i64>,
    tokens_cache_creation: Option<i64>,
    tokens_reasoning: Option<i64>,
    estimated: bool,
    cost_nano: Option<i64>,
    price_source: Option<String>,
    attempts: i64,
    attempt_details: Option<String>,
    error_summary: Option<String>,
    error_code: Option<String>,
    losses: Option<String>,
    cache_source: Option<String>,
    combo_name: Option<String>,
    combo_step_id: Option<String>,
    request_type: Option<String>,
    units: Option<String>,
    saved_nano: Option<i64>,
    cache_similarity: Option<f64>,
    bodies: Option<String>,
    bodies_at: Option<String>,
    service_tier: Option<String>,
}

impl Row {
    fn into_log(self) -> CallLog {
        let attempt_details = self.attempt_details();
        CallLog {
            id: self.id,
            timestamp: self.timestamp,
            request_id: self.request_id,
            method: self.method,
            path: self.path,
            status: self.status,
            model: self.model,
            requested_model: self.requested_model,
            provider: self.provider,
            account: self.account,
            connection_id: self.connection_id,
            api_key_id: self.api_key_id,
            api_key_name: self.api_key_name,
            source_format: self.source_format,
            target_format: self.target_format,
            stream: self.stream,
            duration: self.duration,
            ttft: self.ttft,
            overhead_us: self.overhead_us,
            tokens_in: self.tokens_in,
            tokens_out: self.tokens_out,
            tokens_cache_read: self.tokens_cache_read,
            tokens_cache_creation: self.tokens_cache_creation,
            tokens_reasoning: self.tokens_reasoning,
            estimated: self.estimated,
            cost_nano: self.cost_nano,
            price_source: self.price_source,
            attempts: self.attempts,
            attempt_details,
            error: self.error_summary,
            error_code: self.error_code,
            losses: self.losses.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default(),
            cache_source: self.cache_source.unwrap_or_else(|| UPSTREAM.to_owned()),
            combo_name: self.combo_name,
            combo_step_id: self.combo_step_id,
            request_type: self.request_type.unwrap_or_else(|| CHAT.to_owned()),
            units: self.units.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default(),
            saved_nano: self.saved_nano,
            similarity: self.cache_similarity,
            bodies: BodyState::of_word(self.bodies.as_deref()),
            bodies_at: self.bodies_at,
            service_tier: self.service_tier,
        }
    }

    /// Written by the log's writer; a row of another form still shows its other columns.
    fn attempt_details(&self) -> Vec<AttemptDetail> {
        let step = self.combo_step_id.as_deref();
        let stored =
            self.attempt_details.as_deref().map(|text| StoredAttempt::all(text, step)).unwrap_or_default();
        let or = |own: Option<Cow<'_, str>>, of_row: Option<&String>| {
            own.map(Cow::into_owned).or_else(|| of_row.cloned()).unwrap_or_default()
        };
        let detail = |attempt: StoredAttempt<'_>| AttemptDetail {
            provider: or(attempt.provider, self.provider.as_ref()),
            model: or(attempt.model, Some(&self.model)),
            connection_id: or(attempt.connection_id, self.connection_id.as_ref()),
            connection_name: or(attempt.connection_name, self.account.as_ref()),
            status: attempt.status,
            failure: attempt.failure.map(Cow::into_owned),
            message: attempt.message.map(Cow::into_owned),
            duration_ms: attempt.duration_ms,
        };
        stored.into_iter().map(detail).collect()
    }
}
