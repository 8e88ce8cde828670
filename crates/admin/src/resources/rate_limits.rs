//! What requests are held to: `/api/rate-limits` by account, `/api/rate-limit` for all.

use std::collections::BTreeMap;

use omniroute_domain::entity::{Connection, ConnectionId, RuntimeSettings};
use omniroute_domain::limiter::{GateView, LearnedLimits, LearnedWindow};
use omniroute_domain::snapshot::ConnectionState;
use omniroute_store::ConnectionFilter;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::connection_keys::{KeyName, states};
use super::connections;
use super::health::{ModelLockView, locks_of};
use crate::auth::Management;
use crate::endpoint::{Body, Json};
use crate::error::AdminResult;
use crate::state::Admin;
use crate::text::iso;
use crate::validation::Problems;

/// An account, and what its requests are held to.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AccountLimits {
    connection_id: String,
    provider: String,
    name: String,
    /// What the operator said of it.
    rate_limit_protection: bool,
    /// Whether its requests are held back.
    enabled: bool,
    /// Whether anything holds them back now.
    active: bool,
    /// Requests that wait.
    queued: usize,
    /// Requests that run.
    running: u32,
    /// The same; the vendor has each of them.
    executing: u32,
    /// Requests that are over, since the process started.
    done: u64,
    /// What the vendor allows of the scarcest model; null while nothing is known.
    limit: Option<u64>,
    /// What is left of it.
    remaining: Option<u64>,
    /// When the vendor counts anew.
    reset_at: Option<String>,
    /// What is left of the prompts' tokens.
    tokens_remaining: Option<u64>,
    /// Until when the scarcest model is not asked.
    paused_until: Option<String>,
    /// What was learned, model by model.
    models: BTreeMap<String, LearnedView>,
    /// Of several keys each; the members above tell of the one that has most left, and `queued` of all of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    keys: Vec<KeyLimits>,
}

/// One of several keys of an account, and what its requests are held to.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct KeyLimits {
    key: KeyName,
    queued: usize,
    limit: Option<u64>,
    remaining: Option<u64>,
    reset_at: Option<String>,
    tokens_remaining: Option<u64>,
    paused_until: Option<String>,
    models: BTreeMap<String, LearnedView>,
}

/// What a vendor said of one model.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LearnedView {
    /// Requests in all.
    limit: Option<u64>,
    /// Requests that are left.
    remaining: Option<u64>,
    /// Least milliseconds between two.
    min_time: i64,
    /// When the vendor counts anew.
    reset_at: Option<String>,
    /// Tokens of prompts in all.
    tokens_limit: Option<u64>,
    /// Tokens of prompts that are left.
    tokens_remaining: Option<u64>,
    /// Tokens of answers that are left, where they are counted on their own.
    output_tokens_remaining: Option<u64>,
    /// Milliseconds since the epoch.
    last_updated: i64,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct QueueCounts {
    queued: usize,
    running: u32,
    executing: u32,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RateLimits {
    connections: Vec<AccountLimits>,
    /// By `provider:connection`.
    overview: BTreeMap<String, QueueCounts>,
    /// Models that are locked on an account.
    lockouts: Vec<ModelLockView>,
    /// Nothing is cached here.
    #[schema(value_type = Object)]
    cache_stats: Value,
}

/// What holds for accounts that say nothing else; 0 = no ceiling of ours.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Ceilings {
    requests_per_minute: u32,
    min_time_between_requests: u32,
    concurrent_requests: u32,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct EnabledByDefault {
    apikey: bool,
    oauth: bool,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RateLimitSettings {
    connections: Vec<AccountLimits>,
    /// By `provider:connection`.
    overview: BTreeMap<String, QueueCounts>,
    defaults: Ceilings,
    enabled_by_default: EnabledByDefault,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Switch {
    connection_id: String,
    /// Whether its requests are held back.
    enabled: bool,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Switched {
    success: bool,
    connection_id: String,
    enabled: bool,
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct RateLimitPatch {
    defaults: CeilingsPatch,
}

/// What is absent stays.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CeilingsPatch {
    /// Requests within a minute, 0 to 1 million.
    requests_per_minute: Option<u32>,
    /// Least milliseconds between two, 0 to 60,000.
    #[serde(alias = "minTimeBetweenRequestsMs")]
    min_time_between_requests: Option<u32>,
    /// Requests at once, 0 to 100,000.
    concurrent_requests: Option<u32>,
}

pub(crate) async fn list(access: Management) -> AdminResult<Json<RateLimits>> {
    let (connections, overview) = accounts(&access.admin, access.now_ms).await?;
    let lockouts = locks_of(&access.admin, access.now_ms);
    Ok(Json(RateLimits {
        connections,
        overview,
        lockouts,
        cache_stats: Value::Object(serde_json::Map::new()),
    }))
}

pub(crate) async fn show(access: Management) -> AdminResult<Json<RateLimitSettings>> {
    let (connections, overview) = accounts(&access.admin, access.now_ms).await?;
    let settings = access.admin.store.settings().get().await?;
    let queue = settings.resilience.request_queue;
    Ok(Json(RateLimitSettings {
        connections,
        overview,
        defaults: Ceilings {
            requests_per_minute: queue.requests_per_minute,
            min_time_between_requests: queue.min_time_between_requests_ms,
            concurrent_requests: queue.concurrent_requests,
        },
        enabled_by_default: EnabledByDefault { apikey: queue.auto_enable_api_key_providers, oauth: false },
    }))
}

pub(crate) async fn switch(access: Management, Body(wish): Body<Switch>) -> AdminResult<Json<Switched>> {
    let admin = &access.admin;
    connections::check_editable(admin, &wish.connection_id)?;
    let set = |connection: &mut Connection| {
        connection.rate_limit_protection = wish.enabled;
        connection.options.limiter = Some(wish.enabled);
        connection.updated_at = access.now_ms;
        AdminResult::Ok(())
    };
    let id = ConnectionId::from(wish.connection_id.as_str());
    admin.store.connections().change(&id, set).await??;
    access.reload().await?;
    access
        .audit("ratelimit.switch", "provider_connection", &wish.connection_id, &wish.enabled.to_string())
        .await;
    Ok(Json(Switched { success: true, connection_id: wish.connection_id, enabled: wish.enabled }))
}

pub(crate) async fn update(
    access: Management,
    Body(patch): Body<RateLimitPatch>,
) -> AdminResult<Json<RateLimitSettings>> {
    let CeilingsPatch { requests_per_minute, min_time_between_requests, concurrent_requests } =
        patch.defaults;
    let mut problems = Problems::default();
    problems.range("defaults.requestsPerMinute", requests_per_minute, &(0..=1_000_000));
    problems.range("defaults.minTimeBetweenRequests", min_time_between_requests, &(0..=60_000));
    problems.range("defaults.concurrentRequests", concurrent_requests, &(0..=100_000));
    problems.done()?;
    let set = |settings: &mut RuntimeSettings| {
        let queue = &mut settings.resilience.request_queue;
        queue.requests_per_minute = requests_per_minute.unwrap_or(queue.requests_per_minute);
        queue.min_time_between_requests_ms =
            min_time_between_requests.unwrap_or(queue.min_time_between_requests_ms);
        queue.concurrent_requests = concurrent_requests.unwrap_or(queue.concurrent_requests);
        Ok(())
    };
    if access.change_settings(set).await?.is_any() {
        access.audit("ratelimit.update", "settings", "resilience", "requestQueue").await;
    }
    show(access).await
}

/// What was learned, by `provider:connection`, and of single keys by `provider:connection#key`: of the scarcest model.
pub(super) fn learned_limits(
    admin: &Admin,
    rows: &[Connection],
    now_ms: i64,
) -> BTreeMap<String, LearnedView> {
    let snapshot = admin.live.load();
    rows.iter()
        .filter_map(|row| {
            let states = states(snapshot.connection(&row.id)?);
            let known = states.filter_map(|state| {
                let view = state.health.gate.view(now_ms);
                let (_, learned) = view.learned.first()?;
                Some((format!("{}:{}", row.provider, state.state_id()), learned_view(learned, now_ms)))
            });
            Some(known.collect::<Vec<_>>())
        })
        .flatten()
        .collect()
}

async fn accounts(
    admin: &Admin,
    now_ms: i64,
) -> AdminResult<(Vec<AccountLimits>, BTreeMap<String, QueueCounts>)> {
    let rows = connections::all(admin, &ConnectionFilter::default()).await?;
    let snapshot = admin.live.load();
    let with_keys = snapshot.settings.resilience.request_queue.auto_enable_api_key_providers;
    let accounts: Vec<_> = rows
        .iter()
        .map(|row| account(row, snapshot.connection(&row.id).map(|state| &**state), with_keys, now_ms))
        .collect();
    let overview = accounts
        .iter()
        .map(|account| {
            let AccountLimits { queued, running, executing, .. } = *account;
            let name = format!("{}:{}", account.provider, account.connection_id);
            (name, QueueCounts { queued, running, executing })
        })
        .collect();
    Ok((accounts, overview))
}

/// An account that is off has no state: nothing runs, nothing is known.
fn account(row: &Connection, state: Option<&ConnectionState>, with_keys: bool, now_ms: i64) -> AccountLimits {
    let running = state.map_or(0, |state| state.health.in_flight());
    let enabled = row.is_held_to_limits(with_keys);
    let view = state.map_or_else(GateView::default, |state| view_of(state, now_ms));
    let Scarcest { requests, tokens } = Scarcest::of(&view, now_ms);
    let keys = state.map(|state| &*state.pool).unwrap_or_default();
    AccountLimits {
        connection_id: row.id.to_string(),
        provider: row.provider.to_string(),
        name: row.name.clone(),
        rate_limit_protection: row.rate_limit_protection,
        enabled,
        active: enabled && (view.queued > 0 || view.paused_until.is_some()),
        queued: view.queued,
        running,
        executing: running,
        done: state.map_or(0, |state| state.health.stats.totals().requests),
        limit: requests.and_then(|window| window.limit),
        remaining: requests.map(|window| window.remaining),
        reset_at: requests.map(|window| iso(window.until)),
        tokens_remaining: tokens.map(|window| window.remaining),
        paused_until: view.paused_until.filter(|_| enabled).map(iso),
        models: models(&view, now_ms),
        keys: keys.iter().filter_map(|key| key_limits(key, enabled, now_ms)).collect(),
    }
}

fn key_limits(state: &ConnectionState, enabled: bool, now_ms: i64) -> Option<KeyLimits> {
    let view = state.health.gate.view(now_ms);
    let Scarcest { requests, tokens } = Scarcest::of(&view, now_ms);
    Some(KeyLimits {
        key: KeyName::of_state(state)?,
        queued: view.queued,
        limit: requests.and_then(|window| window.limit),
        remaining: requests.map(|window| window.remaining),
        reset_at: requests.map(|window| iso(window.until)),
        tokens_remaining: tokens.map(|window| window.remaining),
        paused_until: view.paused_until.filter(|_| enabled).map(iso),
        models: models(&view, now_ms),
    })
}

/// What holds an account back: of several keys the one that has most left, paused only while all are.
fn view_of(state: &ConnectionState, now_ms: i64) -> GateView {
    let views = state.pool.iter().map(|key| key.health.gate.view(now_ms)).collect::<Vec<_>>();
    // Keys of which nothing is known may have all of it, but there is nothing to show of them.
    let share =
        |view: &GateView| view.learned.first().and_then(|(_, learned)| learned.left(now_ms)).map(|it| it.0);
    let best = views.iter().max_by(|a, b| share(a).unwrap_or(-1.0).total_cmp(&share(b).unwrap_or(-1.0)));
    let Some(best) = best else { return state.health.gate.view(now_ms) };
    let pauses: Option<Vec<i64>> = views.iter().map(|view| view.paused_until).collect();
    GateView {
        queued: views.iter().map(|view| view.queued).sum(),
        paused_until: pauses.and_then(|pauses| pauses.into_iter().min()),
        ..best.clone()
    }
}

/// The limits of the scarcest model.
struct Scarcest {
    requests: Option<LearnedWindow>,
    tokens: Option<LearnedWindow>,
}

impl Scarcest {
    fn of(view: &GateView, now_ms: i64) -> Self {
        let learned = view.learned.first().map(|(_, learned)| learned);
        let counting = |window: &LearnedWindow| window.until > now_ms;
        Self {
            requests: learned.and_then(|learned| learned.requests).filter(counting),
            tokens: learned.and_then(|learned| learned.tokens).filter(counting),
        }
    }
}

fn models(view: &GateView, now_ms: i64) -> BTreeMap<String, LearnedView> {
    view.learned.iter().map(|(model, learned)| (model.clone(), learned_view(learned, now_ms))).collect()
}

fn learned_view(learned: &LearnedLimits, now_ms: i64) -> LearnedView {
    let requests = learned.requests.filter(|window| window.until > now_ms);
    let tokens = learned.tokens.filter(|window| window.until > now_ms);
    let output = learned.output.filter(|window| window.until > now_ms);
    LearnedView {
        limit: requests.and_then(|window| window.limit),
        remaining: requests.map(|window| window.remaining),
        min_time: learned.spacing_ms(now_ms),
        reset_at: requests.map(|window| iso(window.until)),
        tokens_limit: tokens.and_then(|window| window.limit),
        tokens_remaining: tokens.map(|window| window.remaining),
        output_tokens_remaining: output.map(|window| window.remaining),
        last_updated: learned.heard_at,
    }
}
