//! What was used, added up: `/api/usage/history`, `/api/usage/{connectionId}`; and what is running: `/api/logs/active`.

use std::collections::BTreeMap;

use omniroute_domain::entity::ConnectionId;
use omniroute_domain::vendor_quota::Known;
use omniroute_engine::quota_look::Looker;
use omniroute_engine::telemetry::ActiveRequest;
use omniroute_store::{AccountUsage, KindUsage, Period, UsageCounters, UsageHistory};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::connections::find;
use super::quota::{self, Quota};
use crate::auth::Management;
use crate::endpoint::{Filter, Id, Json};
use crate::error::{AdminResult, invalid_field};
use crate::state::Admin;
use crate::text::{iso, usd};

/// How much of an account's id tells it apart from others of its name.
const SHORT_ID: usize = 8;

#[derive(Deserialize, IntoParams)]
pub(crate) struct HistoryQuery {
    /// `1h`, `24h`, `7d`, `30d`, `90d` or `all` (default).
    period: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HistoryView {
    total_requests: i64,
    total_prompt_tokens: i64,
    total_completion_tokens: i64,
    /// USD, as far as prices are known; null when no request had a price.
    total_cost: Option<f64>,
    /// Requests whose cost is unknown; they are not in the cost.
    total_unpriced: i64,
    total: Counters,
    by_provider: BTreeMap<String, Counters>,
    by_model: BTreeMap<String, ModelCounters>,
    by_account: BTreeMap<String, AccountCounters>,
    by_api_key: BTreeMap<String, KeyCounters>,
    /// By kind of request: `chat`, `count` (of tokens), `embedding`, `image`, `audio-stt`, `audio-tts`, and `handoff` for summaries of conversations.
    by_request_type: BTreeMap<String, KindCounters>,
    /// Ten minutes, oldest first.
    last10_minutes: Vec<Counters>,
    pending: Pending,
    active_requests: Vec<ActiveRequestView>,
}

/// Sums over some requests.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Counters {
    requests: i64,
    errors: i64,
    prompt_tokens: i64,
    completion_tokens: i64,
    cached_tokens: i64,
    cache_creation_tokens: i64,
    reasoning_tokens: i64,
    /// USD, as far as prices are known; null when no request had a price.
    cost: Option<f64>,
    unpriced: i64,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ModelCounters {
    #[serde(flatten)]
    #[schema(inline)]
    counters: Counters,
    raw_model: String,
    provider: String,
    last_used: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AccountCounters {
    #[serde(flatten)]
    #[schema(inline)]
    counters: Counters,
    raw_model: String,
    provider: String,
    connection_id: String,
    account_name: String,
    last_used: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct KeyCounters {
    #[serde(flatten)]
    #[schema(inline)]
    counters: Counters,
    api_key_id: String,
    api_key_name: String,
    last_used: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct KindCounters {
    #[serde(flatten)]
    #[schema(inline)]
    counters: Counters,
    /// What is billed beside tokens: `images`, `millisIn`, `millisOut`, `characters`, `queries`, as far as there is any.
    units: BTreeMap<String, i64>,
    last_used: Option<String>,
}

/// Requests that are running, counted.
#[derive(Serialize, ToSchema, Default)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Pending {
    by_model: BTreeMap<String, u64>,
    /// By connection.
    by_account: BTreeMap<String, u64>,
    /// By connection and model.
    details: BTreeMap<String, BTreeMap<String, u64>>,
}

/// A request that is running.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ActiveRequestView {
    id: String,
    model: String,
    provider: Option<String>,
    connection_id: Option<String>,
    started_at: String,
    elapsed_ms: i64,
    stream: bool,
    /// How much of the answer has come; null where it does not come bit by bit.
    tokens_so_far: Option<u64>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ActiveRequests {
    active_requests: Vec<ActiveRequestView>,
    count: usize,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ConnectionUsageView {
    connection_id: String,
    provider: String,
    plan: Option<String>,
    /// What is left: by the provider's word where it has an API for it (`provider`), by the headers of its answers (`headers`),
    /// and by our own count of its plan (`local`).
    quotas: Vec<Quota>,
    /// Why the provider, which has such an API, did not say all of it; what it said before is shown.
    error: Option<String>,
    local: LocalUsage,
    /// When the provider said so; now, where it is not asked.
    fetched_at: String,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct LocalUsage {
    requests24h: i64,
    tokens24h: i64,
    /// USD, as far as prices are known; null when no request had a price.
    cost24h: Option<f64>,
    cost30d: Option<f64>,
    /// Requests of unknown cost; they are not in the cost.
    unpriced24h: i64,
    unpriced30d: i64,
}

pub(crate) async fn history(
    access: Management,
    Filter(query): Filter<HistoryQuery>,
) -> AdminResult<Json<HistoryView>> {
    let period = query.period.as_deref().map_or(Some(Period::All), Period::parse);
    let period = period.ok_or_else(|| invalid_field("period", "must be 1h, 24h, 7d, 30d, 90d or all"))?;
    let usage = access.admin.store.usage();
    let history = usage.history(period, access.now_ms).await?;
    let kinds = usage.by_kind(period, access.now_ms).await?;
    let minutes = usage.last_ten_minutes(access.now_ms).await?;
    let active = access.admin.telemetry.active();
    Ok(Json(view(history, kinds, &minutes, &active, access.now_ms)))
}

pub(crate) async fn active(access: Management) -> AdminResult<Json<ActiveRequests>> {
    let active = access.admin.telemetry.active();
    let active_requests: Vec<_> = active.iter().map(|request| active_view(request, access.now_ms)).collect();
    Ok(Json(ActiveRequests { count: active_requests.len(), active_requests }))
}

pub(crate) async fn by_connection(access: Management, Id(id): Id) -> AdminResult<Json<ConnectionUsageView>> {
    let connection = find(&access.admin, &id).await?;
    let usage =
        access.admin.store.usage().by_connection(&ConnectionId::from(id.as_str()), access.now_ms).await?;
    let (day, month) = (usage.last_day, usage.last_month);
    let admin = &access.admin;
    let state = admin.live.load().connection(&connection.id).cloned();
    let asked = match &state {
        Some(state) => looker(admin).look(state, rand::random_range(-1.0..=1.0)).await,
        None => None,
    };
    let now_ms = admin.now_ms();
    let (plan, error, read_at) = match asked {
        Some(Known { reading, read_at, error, asked_at, .. }) => {
            // Another one asks for the first time, and has no answer yet.
            let waiting =
                (asked_at == 0).then(|| "the provider is being asked; look again in some seconds".to_owned());
            let plan = reading.as_ref().and_then(|reading| reading.plan);
            (plan, error.map(|error| error.to_string()).or(waiting), reading.map(|_| read_at))
        }
        None => (None, None, None),
    };
    Ok(Json(ConnectionUsageView {
        connection_id: id,
        provider: connection.provider.to_string(),
        plan: plan.map(str::to_owned),
        quotas: state.map(|state| quota::of_account(&state, now_ms)).unwrap_or_default(),
        error,
        local: LocalUsage {
            requests24h: day.requests,
            tokens24h: day.prompt_tokens + day.completion_tokens,
            cost24h: known_cost(&day),
            cost30d: known_cost(&month),
            unpriced24h: day.unpriced,
            unpriced30d: month.unpriced,
        },
        fetched_at: iso(read_at.unwrap_or(now_ms)),
    }))
}

fn looker(admin: &Admin) -> Looker<'_> {
    Looker {
        live: &admin.live,
        transport: &*admin.transport,
        recorder: &*admin.recorder,
        clock: &*admin.clock,
    }
}

fn view(
    history: UsageHistory,
    kinds: BTreeMap<String, KindUsage>,
    minutes: &[UsageCounters],
    active: &[ActiveRequest],
    now_ms: i64,
) -> HistoryView {
    let total = history.total;
    let last_used =
        |counters: &UsageCounters| (counters.last_used_at > 0).then(|| iso(counters.last_used_at));
    let by_model = history.by_model.into_iter().map(|row| {
        let counters = ModelCounters {
            counters: row.counters.into(),
            last_used: last_used(&row.counters),
            raw_model: row.model.clone(),
            provider: row.provider.clone(),
        };
        (format!("{} ({})", row.model, row.provider), counters)
    });
    let mut by_account = BTreeMap::new();
    for (name, row) in named(history.by_account) {
        let counters = AccountCounters {
            counters: row.counters.into(),
            last_used: last_used(&row.counters),
            raw_model: row.model,
            provider: row.provider,
            connection_id: row.connection_id,
            account_name: row.account_name,
        };
        by_account.insert(name, counters);
    }
    let by_api_key = history.by_api_key.into_iter().map(|row| {
        let name = format!("{} ({})", row.api_key_name, row.api_key_id);
        let counters = KeyCounters {
            counters: row.counters.into(),
            last_used: last_used(&row.counters),
            api_key_id: row.api_key_id,
            api_key_name: row.api_key_name,
        };
        (name, counters)
    });
    let by_request_type = kinds.into_iter().map(|(name, kind)| {
        let last_used = last_used(&kind.counters);
        (name, KindCounters { counters: kind.counters.into(), units: kind.units, last_used })
    });
    HistoryView {
        total_requests: total.requests,
        total_prompt_tokens: total.prompt_tokens,
        total_completion_tokens: total.completion_tokens,
        total_cost: known_cost(&total),
        total_unpriced: total.unpriced,
        total: total.into(),
        by_provider: history.by_provider.into_iter().map(|row| (row.provider, row.counters.into())).collect(),
        by_model: by_model.collect(),
        by_account,
        by_api_key: by_api_key.collect(),
        by_request_type: by_request_type.collect(),
        last10_minutes: minutes.iter().map(|minute| (*minute).into()).collect(),
        pending: pending(active),
        active_requests: active.iter().map(|request| active_view(request, now_ms)).collect(),
    }
}

/// Accounts by model and name. Accounts that have, or had, the same name are told apart by the start of their ids, and by all
/// of them where that is the same too.
fn named(rows: Vec<AccountUsage>) -> BTreeMap<String, AccountUsage> {
    let plain = |row: &AccountUsage| format!("{} ({} - {})", row.model, row.provider, row.account_name);
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for row in &rows {
        *counts.entry(plain(row)).or_default() += 1;
    }
    let mut named = BTreeMap::new();
    for row in rows {
        let with = |id: &str| format!("{} ({} - {} #{id})", row.model, row.provider, row.account_name);
        let short: String = row.connection_id.chars().take(SHORT_ID).collect();
        let name = plain(&row);
        let is_alone = counts.get(&name) == Some(&1);
        let mut name = if is_alone { name } else { with(&short) };
        if named.contains_key(&name) {
            name = with(&row.connection_id);
        }
        // Names are free: one may look like another with an id.
        while named.contains_key(&name) {
            name.push('\'');
        }
        named.insert(name, row);
    }
    named
}

fn pending(active: &[ActiveRequest]) -> Pending {
    let mut pending = Pending::default();
    for request in active {
        let provider = if request.provider.is_empty() { "waiting" } else { &request.provider };
        let model = format!("{} ({provider})", request.model);
        *pending.by_model.entry(model.clone()).or_default() += 1;
        if !request.connection.is_empty() {
            *pending.by_account.entry(request.connection.clone()).or_default() += 1;
            *pending.details.entry(request.connection.clone()).or_default().entry(model).or_default() += 1;
        }
    }
    pending
}

fn active_view(request: &ActiveRequest, now_ms: i64) -> ActiveRequestView {
    let some = |text: &String| (!text.is_empty()).then(|| text.clone());
    ActiveRequestView {
        id: request.id.clone(),
        model: request.model.clone(),
        provider: some(&request.provider),
        connection_id: some(&request.connection),
        started_at: iso(request.started_ms),
        elapsed_ms: (now_ms - request.started_ms).max(0),
        stream: request.stream,
        tokens_so_far: request.stream.then_some(request.tokens),
    }
}

/// What requests cost together. Unknown is not zero: when none of them had a price there is no sum.
fn known_cost(counters: &UsageCounters) -> Option<f64> {
    (counters.requests == 0 || counters.unpriced < counters.requests).then(|| usd(counters.cost_nano))
}

impl From<UsageCounters> for Counters {
    fn from(counters: UsageCounters) -> Self {
        Self {
            requests: counters.requests,
            errors: counters.errors,
            prompt_tokens: counters.prompt_tokens,
            completion_tokens: counters.completion_tokens,
            cached_tokens: counters.cached_tokens,
            cache_creation_tokens: counters.cache_creation_tokens,
            reasoning_tokens: counters.reasoning_tokens,
            cost: known_cost(&counters),
            unpriced: counters.unpriced,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_of_one_name_are_told_apart_and_none_is_lost() {
        let row = |id: &str, name: &str| AccountUsage {
            model: "m".into(),
            provider: "openai".into(),
            connection_id: id.into(),
            account_name: name.into(),
            counters: UsageCounters { requests: 1, ..UsageCounters::default() },
        };
        let names = |rows: &[(&str, &str)]| {
            let rows: Vec<_> = rows.iter().map(|(id, name)| row(id, name)).collect();
            let named = named(rows);
            named.into_iter().map(|(key, row)| (key, row.connection_id)).collect::<Vec<_>>()
        };
        let pair = |key: &str, id: &str| (format!("m (openai - {key})"), id.to_owned());
        let one = names(&[("01890a5d-1", "work"), ("01890a5d-2", "home")]);
        assert_eq!(one, [pair("home", "01890a5d-2"), pair("work", "01890a5d-1")]);
        let two = names(&[("01890a5d-1", "work"), ("11890a5d-2", "work")]);
        assert_eq!(two, [pair("work #01890a5d", "01890a5d-1"), pair("work #11890a5d", "11890a5d-2")]);
        let close = names(&[("01890a5d-1", "work"), ("01890a5d-2", "work"), ("a", "work #01890a5d")]);
        assert_eq!(close.len(), 3, "{close:?}");
        assert!(close.contains(&pair("work #01890a5d-2", "01890a5d-2")), "{close:?}");
    }
}
