//! `/api/settings`: what can be changed while the gateway runs, and the password.

use std::collections::BTreeMap;

use omniroute_domain::{
    budget::Calendar,
    entity::{Number, ProviderStrategies, ProviderStrategy, RuntimeSettings, SseKeepalive},
    routing,
};
use omniroute_store::SettingsChange;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::auth::{Secret, attempt};
use super::cache_similarity::{SimilarityPatch, SimilaritySettingsView};
use super::call_log_bodies::{CallLogBodiesPatch, CallLogBodiesView};
use super::present;
use crate::auth::{
    Actor, HasPassword, Management, change_password, has_password, judge_password, new_session,
};
use crate::endpoint::{Body, Json, WithCookie};
use crate::error::{AdminResult, auth_invalid, invalid_field};
use crate::state::Admin;
use crate::validation::Problems;

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SettingsView {
    #[serde(flatten)]
    #[schema(inline)]
    settings: SettingsValues,
    has_password: bool,
    cloud_configured: bool,
    machine_id: String,
    runtime_ports: RuntimePorts,
    version: String,
}

/// The settings themselves.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SettingsValues {
    require_login: bool,
    fallback_strategy: String,
    sticky_round_robin_limit: u32,
    /// What differs by provider.
    #[schema(value_type = Object)]
    provider_strategies: ProviderStrategies,
    session_affinity_ttl_ms: u64,
    provider_order: Vec<String>,
    blocked_providers: Vec<String>,
    request_retry: u32,
    max_retry_interval_sec: u32,
    sse_keepalive: Keepalive,
    auto_cache: bool,
    legacy_model_aliases: bool,
    semantic_cache_enabled: bool,
    semantic_cache_ttl_ms: u32,
    semantic_cache_max_size: u32,
    semantic_cache_similarity: SimilaritySettingsView,
    idempotency_window_ms: u32,
    max_body_size_mb: u32,
    public_url: Option<String>,
    log_retention_days: u32,
    call_log_max_entries: u32,
    call_log_bodies: CallLogBodiesView,
    call_log_pipeline_enabled: bool,
    routing_decision_sample_rate: f64,
    instance_name: Option<String>,
    budgets: BudgetsView,
    quota_checks: QuotaChecksView,
}

/// How budgets count.
#[derive(Serialize, ToSchema)]
pub(crate) struct BudgetsView {
    /// The time zone in which days, weeks and months begin.
    tz: String,
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct BudgetsPatch {
    /// The time zone in which days, weeks and months begin: `UTC`, `Europe/Berlin`, …
    tz: Option<String>,
}

/// How often providers that have an API for it are asked what is left of an account.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct QuotaChecksView {
    /// Whether they are asked unless a person wants to know.
    enabled: bool,
    /// Minutes from one time to the next.
    interval_min: u32,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct QuotaChecksPatch {
    /// Whether they are asked unless a person wants to know.
    enabled: Option<bool>,
    /// Minutes from one time to the next, 5 to 1440.
    interval_min: Option<u32>,
}

/// What keeps silent streams alive.
#[derive(Serialize, Deserialize, ToSchema, Clone, Copy)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Keepalive {
    /// A comment line.
    Comment,
    /// A chunk without choices.
    Chunk,
    /// Nothing.
    Off,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct RuntimePorts {
    main: u16,
    api: Option<u16>,
    dashboard: Option<u16>,
}

/// How the accounts of one provider are chosen.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ProviderStrategyPatch {
    fallback_strategy: Option<String>,
    sticky_round_robin_limit: Option<u32>,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SettingsPatch {
    /// Whether callers from this machine must sign in too; others always must.
    require_login: Option<bool>,
    /// The order in which accounts are tried.
    fallback_strategy: Option<String>,
    /// Requests on one account before round-robin moves on, 1 to 1000.
    sticky_round_robin_limit: Option<u32>,
    /// By provider `{"fallbackStrategy", "stickyRoundRobinLimit"}`, both optional. Merged; null removes one.
    #[schema(value_type = Option<Object>)]
    provider_strategies: Option<BTreeMap<String, Option<ProviderStrategyPatch>>>,
    /// How long a silent conversation stays with its account, in milliseconds, up to a day; 0 = not at all.
    session_affinity_ttl_ms: Option<u64>,
    /// Providers in order of preference for bare model names.
    provider_order: Option<Vec<String>>,
    /// Providers that are never used.
    blocked_providers: Option<Vec<String>>,
    /// How often a request waits for a cooldown to end, 0 to 10.
    request_retry: Option<u32>,
    /// Longest such wait in seconds, 0 to 600.
    max_retry_interval_sec: Option<u32>,
    sse_keepalive: Option<Keepalive>,
    /// Whether long prompts of other dialects are marked for the cache where the provider wants that said.
    auto_cache: Option<bool>,
    /// Whether a model that does not exist any more is asked for by the name of the one that came after it.
    legacy_model_aliases: Option<bool>,
    /// Whether requests that ask for the same answer get the one that was given before.
    semantic_cache_enabled: Option<bool>,
    /// How long an answer is kept for them, 1000 to 2592000000 milliseconds.
    semantic_cache_ttl_ms: Option<u32>,
    /// Most answers kept in memory, 0 to 100000.
    semantic_cache_max_size: Option<u32>,
    /// Whether those that ask nearly the same get it too.
    semantic_cache_similarity: Option<SimilarityPatch>,
    /// How long after an answer the same request gets the same answer, 0 to 3600000 milliseconds; 0 = never.
    idempotency_window_ms: Option<u32>,
    /// Limit of management bodies in megabytes, 1 to 1024.
    max_body_size_mb: Option<u32>,
    /// Where people reach the gateway.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    public_url: Option<Option<String>>,
    /// Days until log rows are deleted, 1 to 3650.
    log_retention_days: Option<u32>,
    /// Most rows in the request log, 0 to 10 million.
    call_log_max_entries: Option<u32>,
    /// Of which requests is kept what was said in them, and how much of it.
    call_log_bodies: Option<CallLogBodiesPatch>,
    /// Whether what the last upstream was sent and answered is kept beside what the client sent and got.
    call_log_pipeline_enabled: Option<bool>,
    /// Share of the requests whose routing is written down, 0 to 1.
    routing_decision_sample_rate: Option<f64>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    instance_name: Option<Option<String>>,
    /// How budgets count.
    budgets: Option<BudgetsPatch>,
    /// How often providers are asked what is left.
    quota_checks: Option<QuotaChecksPatch>,
    /// The password that is in force, to change it.
    current_password: Option<String>,
    /// The new one, 8 to 128 characters.
    new_password: Option<String>,
}

pub(crate) async fn show(access: Management) -> AdminResult<Json<SettingsView>> {
    let settings = access.admin.store.settings().get().await?;
    Ok(Json(view(&access.admin, settings).await?))
}

pub(crate) async fn update(
    access: Management,
    Body(patch): Body<SettingsPatch>,
) -> AdminResult<WithCookie<SettingsView>> {
    let admin = &access.admin;
    // A request that is wrong somewhere must not have changed the password when that is found.
    let mut problems = Problems::default();
    merge(&mut admin.store.settings().get().await?, &patch, admin, &mut problems);
    if let Some(password) = &patch.new_password {
        judge_password(&mut problems, "newPassword", password);
    }
    problems.done()?;
    if patch.require_login == Some(false) && has_password(admin).await? == HasPassword::No {
        return Err(invalid_field("requireLogin", "cannot be false before a password is set"));
    }

    let mut cookie = None;
    if let Some(password) = &patch.new_password {
        if has_password(admin).await? != HasPassword::No {
            let current = patch.current_password.as_deref();
            let current = current
                .ok_or_else(|| invalid_field("currentPassword", "is required to change the password"))?;
            if !attempt(&access, current, Secret::Password).await? {
                access.audit_failure("auth.password.change", "settings", "password").await;
                return Err(auth_invalid("Invalid current password"));
            }
        }
        change_password(admin, password).await?;
        access.audit("auth.password.change", "settings", "password", "").await;
        if matches!(access.actor, Actor::Session(_)) {
            cookie = Some(new_session(admin, access.client).await?);
        }
    }
    let again = |settings: &mut RuntimeSettings| {
        let mut problems = Problems::default();
        merge(settings, &patch, admin, &mut problems);
        problems.done()
    };
    let change = access.change_settings(again).await?;
    if change.is_any() {
        let SettingsChange { before, after } = &change;
        access.audit("settings.update", "settings", "settings", &changed_names(before, after)).await;
    }
    Ok(WithCookie(cookie, view(admin, change.after).await?))
}

fn merge(settings: &mut RuntimeSettings, patch: &SettingsPatch, admin: &Admin, problems: &mut Problems) {
    fn put<T: Clone>(target: &mut T, value: Option<&T>) {
        if let Some(value) = value {
            *target = value.clone();
        }
    }
    if let Some(name) = &patch.fallback_strategy {
        check_strategy("fallbackStrategy", name, problems);
    }
    merge_strategies(settings, patch, admin, problems);
    problems.range("sessionAffinityTtlMs", patch.session_affinity_ttl_ms, &(0..=86_400_000));
    problems.range("stickyRoundRobinLimit", patch.sticky_round_robin_limit, &(1..=1_000));
    problems.range("requestRetry", patch.request_retry, &(0..=10));
    problems.range("maxRetryIntervalSec", patch.max_retry_interval_sec, &(0..=600));
    problems.range("maxBodySizeMb", patch.max_body_size_mb, &(1..=1_024));
    problems.range("logRetentionDays", patch.log_retention_days, &(1..=3_650));
    problems.range("idempotencyWindowMs", patch.idempotency_window_ms, &(0..=3_600_000));
    problems.range("semanticCacheTtlMs", patch.semantic_cache_ttl_ms, &(1_000..=2_592_000_000));
    problems.range("semanticCacheMaxSize", patch.semantic_cache_max_size, &(0..=100_000));
    problems.range("callLogMaxEntries", patch.call_log_max_entries, &(0..=10_000_000));
    problems.range("routingDecisionSampleRate", patch.routing_decision_sample_rate, &(0.0..=1.0));
    for (field, list) in
        [("providerOrder", &patch.provider_order), ("blockedProviders", &patch.blocked_providers)]
    {
        let Some(list) = list else { continue };
        problems.list(field, list, 1_000);
        let snapshot = admin.live.load();
        for (at, name) in list.iter().enumerate() {
            if snapshot.by_prefix(name).is_none() && admin.catalog.provider(name).is_none() {
                problems.add(&format!("{field}[{at}]"), "is neither a provider nor a node");
            }
        }
    }
    if let Some(tz) = patch.budgets.as_ref().and_then(|budgets| budgets.tz.as_ref()) {
        if Calendar::in_zone(tz).is_none() {
            problems.add("budgets.tz", "must be a time zone like UTC or Europe/Berlin");
        }
        settings.budgets.tz.clone_from(tz);
    }
    if let Some(QuotaChecksPatch { enabled, interval_min }) = &patch.quota_checks {
        problems.range("quotaChecks.intervalMin", *interval_min, &(5..=1_440));
        put(&mut settings.quota_checks.enabled, enabled.as_ref());
        put(&mut settings.quota_checks.interval_min, interval_min.as_ref());
    }
    if let Some(bodies) = &patch.call_log_bodies {
        bodies.merge(&mut settings.call_log_bodies, problems);
    }
    put(&mut settings.call_log_bodies.pipeline, patch.call_log_pipeline_enabled.as_ref());
    if let Some(Some(url)) = &patch.public_url
        && !is_public_url(url)
    {
        problems.add("publicUrl", "must be like https://gateway.example");
    }
    if let Some(Some(name)) = &patch.instance_name {
        problems.name("instanceName", name);
    }
    if let Some(similarity) = &patch.semantic_cache_similarity {
        similarity.merge(&mut settings.semantic_cache_similarity, &admin.live.load(), problems);
    }
    put(&mut settings.require_login, patch.require_login.as_ref());
    put(&mut settings.fallback_strategy, patch.fallback_strategy.as_ref());
    put(&mut settings.sticky_round_robin_limit, patch.sticky_round_robin_limit.as_ref());
    put(&mut settings.session_affinity_ttl_ms, patch.session_affinity_ttl_ms.as_ref());
    put(&mut settings.provider_order, patch.provider_order.as_ref());
    put(&mut settings.blocked_providers, patch.blocked_providers.as_ref());
    put(&mut settings.request_retry, patch.request_retry.as_ref());
    put(&mut settings.max_retry_interval_sec, patch.max_retry_interval_sec.as_ref());
    put(&mut settings.auto_cache, patch.auto_cache.as_ref());
    put(&mut settings.legacy_model_aliases, patch.legacy_model_aliases.as_ref());
    put(&mut settings.semantic_cache_enabled, patch.semantic_cache_enabled.as_ref());
    put(&mut settings.semantic_cache_ttl_ms, patch.semantic_cache_ttl_ms.as_ref());
    put(&mut settings.semantic_cache_max_size, patch.semantic_cache_max_size.as_ref());
    put(&mut settings.idempotency_window_ms, patch.idempotency_window_ms.as_ref());
    put(&mut settings.max_body_size_mb, patch.max_body_size_mb.as_ref());
    put(&mut settings.public_url, patch.public_url.as_ref());
    put(&mut settings.log_retention_days, patch.log_retention_days.as_ref());
    put(&mut settings.call_log_max_entries, patch.call_log_max_entries.as_ref());
    put(&mut settings.instance_name, patch.instance_name.as_ref());
    put(
        &mut settings.routing_decision_sample_rate,
        patch.routing_decision_sample_rate.map(Number::from).as_ref(),
    );
    if let Some(keepalive) = patch.sse_keepalive {
        settings.sse_keepalive = match keepalive {
            Keepalive::Comment => SseKeepalive::Comment,
            Keepalive::Chunk => SseKeepalive::Chunk,
            Keepalive::Off => SseKeepalive::Off,
        };
    }
}

fn check_strategy(field: &str, name: &str, problems: &mut Problems) {
    if routing::for_accounts(name).is_none() {
        let known = routing::STRATEGIES.iter().filter(|strategy| strategy.orders_accounts());
        let known: Vec<_> = known.map(|strategy| strategy.name()).collect();
        problems.add(field, format!("must be one of {}", known.join(", ")));
    }
}

/// Takes what the patch says of single providers.
fn merge_strategies(
    settings: &mut RuntimeSettings,
    patch: &SettingsPatch,
    admin: &Admin,
    problems: &mut Problems,
) {
    let snapshot = admin.live.load();
    for (name, own) in patch.provider_strategies.iter().flatten() {
        let field = format!("providerStrategies.{name}");
        let Some(own) = own else {
            settings.provider_strategies.remove(name);
            continue;
        };
        if snapshot.by_prefix(name).is_none() && admin.catalog.provider(name).is_none() {
            problems.add(&field, "is neither a provider nor a node");
        }
        if let Some(strategy) = &own.fallback_strategy {
            check_strategy(&format!("{field}.fallbackStrategy"), strategy, problems);
        }
        let limit = format!("{field}.stickyRoundRobinLimit");
        problems.range(&limit, own.sticky_round_robin_limit, &(1..=1_000));
        let own = ProviderStrategy {
            fallback_strategy: own.fallback_strategy.clone(),
            sticky_round_robin_limit: own.sticky_round_robin_limit,
        };
        settings.provider_strategies.insert(name.clone(), own);
    }
}

fn is_public_url(url: &str) -> bool {
    let Ok(uri) = url.parse::<http::Uri>() else { return false };
    matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty())
}

async fn view(admin: &Admin, settings: RuntimeSettings) -> AdminResult<SettingsView> {
    let ports = admin.settings.ports;
    Ok(SettingsView {
        settings: SettingsValues {
            require_login: settings.require_login,
            fallback_strategy: settings.fallback_strategy,
            sticky_round_robin_limit: settings.sticky_round_robin_limit,
            provider_strategies: settings.provider_strategies,
            session_affinity_ttl_ms: settings.session_affinity_ttl_ms,
            provider_order: settings.provider_order,
            blocked_providers: settings.blocked_providers,
            request_retry: settings.request_retry,
            max_retry_interval_sec: settings.max_retry_interval_sec,
            sse_keepalive: match settings.sse_keepalive {
                SseKeepalive::Comment => Keepalive::Comment,
                SseKeepalive::Chunk => Keepalive::Chunk,
                SseKeepalive::Off => Keepalive::Off,
            },
            auto_cache: settings.auto_cache,
            legacy_model_aliases: settings.legacy_model_aliases,
            semantic_cache_enabled: settings.semantic_cache_enabled,
            semantic_cache_ttl_ms: settings.semantic_cache_ttl_ms,
            semantic_cache_max_size: settings.semantic_cache_max_size,
            semantic_cache_similarity: (&settings.semantic_cache_similarity).into(),
            idempotency_window_ms: settings.idempotency_window_ms,
            max_body_size_mb: settings.max_body_size_mb,
            public_url: settings.public_url,
            log_retention_days: settings.log_retention_days,
            call_log_max_entries: settings.call_log_max_entries,
            call_log_bodies: settings.call_log_bodies.into(),
            call_log_pipeline_enabled: settings.call_log_bodies.pipeline,
            routing_decision_sample_rate: settings.routing_decision_sample_rate.get(),
            instance_name: settings.instance_name,
            budgets: BudgetsView { tz: settings.budgets.tz },
            quota_checks: QuotaChecksView {
                enabled: settings.quota_checks.enabled,
                interval_min: settings.quota_checks.interval_min,
            },
        },
        has_password: has_password(admin).await? != HasPassword::No,
        cloud_configured: false,
        machine_id: admin.store.meta().machine_id().await?,
        runtime_ports: RuntimePorts { main: ports.main, api: ports.api, dashboard: ports.dashboard },
        version: admin.settings.version.clone(),
    })
}

/// The names of settings that differ; values stay out of the audit log.
fn changed_names(before: &RuntimeSettings, after: &RuntimeSettings) -> String {
    let members = |settings: &RuntimeSettings| match serde_json::to_value(settings) {
        Ok(serde_json::Value::Object(members)) => members,
        _ => serde_json::Map::new(),
    };
    let (before, after) = (members(before), members(after));
    let changed = after.iter().filter(|(name, value)| before.get(*name) != Some(*value));
    changed.map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
}
