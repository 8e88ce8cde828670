//! How the gateway is: `/api/monitoring/health`, `/healthz`, `/readyz`.

use std::collections::BTreeMap;
use std::time::Duration;

use omniroute_domain::breaker::BreakerState;
use omniroute_domain::entity::{Connection, Reset};
use omniroute_domain::health::ModelLock;
use omniroute_domain::snapshot::ConnectionState;
use omniroute_provider::registry;
use omniroute_store::{ConnectionFilter, Cryptography, DiskFacts, StoreError};
use serde::Serialize;
use utoipa::ToSchema;

use super::connection_keys::{KeyName, states};
use super::connections;
use super::rate_limits::{LearnedView, learned_limits};
use super::resilience::{self, BreakerView};
use super::sessions;
use super::telemetry::uptime_secs;
use crate::auth::{HasPassword, Management, Public, has_password};
use crate::endpoint::{Json, WithStatus};
use crate::error::AdminResult;
use crate::state::Admin;
use crate::text::iso;

/// How long the writer is waited for.
const WRITER_PATIENCE: Duration = Duration::from_secs(2);

/// What everybody sees, and what only managers see.
#[derive(Serialize, ToSchema)]
pub(crate) struct Health {
    /// `healthy`, `degraded` or `unhealthy`.
    status: &'static str,
    version: String,
    /// Seconds.
    uptime: f64,
    #[serde(flatten)]
    #[schema(inline)]
    details: Option<HealthDetails>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HealthDetails {
    timestamp: String,
    system: SystemHealth,
    active_connections: usize,
    in_flight: usize,
    provider_summary: ProviderSummary,
    circuit_breakers: BreakerCounts,
    provider_breakers: Vec<ProviderBreaker>,
    /// The worst of each provider's breakers.
    provider_health: BTreeMap<String, ProviderHealth>,
    /// Connections that are cooling down, by `provider:connection`, and single keys, by `provider:connection#key`.
    rate_limit_status: BTreeMap<String, Cooldown>,
    /// What vendors said of their limits, by `provider:connection`, and of single keys by `provider:connection#key`; of several
    /// models the scarcest.
    learned_limits: BTreeMap<String, LearnedView>,
    /// Models that are locked on a connection.
    lockouts: Vec<ModelLockView>,
    sessions: SessionCounts,
    dedup: Dedup,
    cryptography: CryptographyHealth,
    database: DatabaseHealth,
    /// Null where no file of the gateway's is on a disk of this machine.
    disk: Option<DiskHealth>,
    log: LogHealth,
    setup_complete: bool,
    /// What the operator should know.
    warnings: Vec<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SystemHealth {
    version: String,
    uptime: f64,
    pid: u32,
    platform: &'static str,
    memory_usage: Memory,
    fd_count: Option<usize>,
    threads: Option<u64>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Memory {
    /// Bytes; null where it cannot be read.
    rss: Option<u64>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ProviderSummary {
    catalog_count: usize,
    configured_count: usize,
    active_count: usize,
    monitored_count: usize,
}

/// How many breakers are in which state; those that let everything through are `closed`.
#[derive(Serialize, ToSchema, Default)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BreakerCounts {
    open: usize,
    half_open: usize,
    closed: usize,
    total: usize,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ProviderBreaker {
    provider: String,
    /// `CLOSED`, `DEGRADED`, `OPEN` or `HALF_OPEN`.
    state: &'static str,
    /// The one model that requests are held back for, where it is shut for that alone.
    model: Option<String>,
    failure_count: u32,
    last_failure: Option<String>,
    retry_after_ms: i64,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ProviderHealth {
    state: &'static str,
    failures: u32,
    last_failure: Option<String>,
    retry_after_ms: i64,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct BreakersClosed {
    success: bool,
    /// Breakers that were not closed, or had failures.
    reset: usize,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Cooldown {
    /// Which of the account's keys it is, where it has several.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<KeyName>,
    paused_until: String,
    remaining_ms: i64,
    backoff_level: i64,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ModelLockView {
    provider: String,
    connection_id: String,
    /// Which of the account's keys it is, where it has several.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<KeyName>,
    model: String,
    reason: &'static str,
    remaining_ms: i64,
    until: String,
    failure_count: u32,
}

/// Conversations.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SessionCounts {
    active_count: usize,
    /// Those that stay with an account.
    sticky_bound_count: usize,
    /// The busiest.
    top: Vec<BusySession>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BusySession {
    session_id: String,
    request_count: u64,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct CryptographyHealth {
    /// `ok`, `rotation_pending` or `missing_or_invalid`.
    status: &'static str,
    provider: &'static str,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DatabaseHealth {
    /// Whether it can be read and written.
    ok: bool,
    /// Null where it cannot be found out.
    size_bytes: Option<u64>,
    wal_bytes: Option<u64>,
    schema_version: Option<i64>,
}

/// Requests that are sent again while the first is under way.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Dedup {
    /// Answers under way that they would wait for.
    inflight_requests: usize,
}

/// The disk that the database is on.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DiskHealth {
    /// With less than 5 % of `totalBytes` the gateway is `degraded`.
    free_bytes: u64,
    total_bytes: u64,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LogHealth {
    queued: u64,
    shed_rows: u64,
    written_rows: u64,
    flush_failures: u64,
    /// Requests of which what was said waits to be written.
    queued_bodies: u64,
    written_bodies: u64,
    /// Let go, since too many waited.
    shed_bodies: u64,
    failed_bodies: u64,
    /// On disk.
    body_bytes: u64,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Probe {
    status: &'static str,
}

pub(crate) async fn show(access: Public) -> AdminResult<WithStatus<Health, 503>> {
    let admin = &access.admin;
    let database_ok = admin.store.ping().await.is_ok() && is_writable(admin).await;
    let cryptography = admin.store.cryptography();
    let breakers = resilience::breakers(admin, access.now_ms);
    let status = match (database_ok, &cryptography) {
        (false, _) => "unhealthy",
        (true, Cryptography::MissingOrInvalid { .. }) => "degraded",
        (true, _) if breakers.iter().any(is_open) => "degraded",
        (true, _) if admin.store.disk().is_some_and(|disk| disk.is_scarce()) => "degraded",
        (true, Cryptography::Ok | Cryptography::RotationPending) => "healthy",
    };
    let started = admin.telemetry.started_ms();
    let uptime = uptime_secs(access.now_ms - started);
    let version = admin.settings.version.clone();
    let details = match access.is_manager().await {
        true => Some(details(admin, database_ok, &cryptography, &breakers, uptime, access.now_ms).await?),
        false => None,
    };
    let health = Health { status, version, uptime, details };
    Ok(if database_ok { WithStatus::ok(health) } else { WithStatus::other(health) })
}

/// Whether writes are possible. A database that is busy is.
async fn is_writable(admin: &Admin) -> bool {
    match tokio::time::timeout(WRITER_PATIENCE, admin.store.ping_writer()).await {
        Err(_) | Ok(Ok(()) | Err(StoreError::Busy { .. })) => true,
        Ok(Err(error)) => {
            tracing::warn!(%error, "the database cannot be written to");
            false
        }
    }
}

pub(crate) async fn live(_access: Public) -> AdminResult<Json<Probe>> {
    Ok(Json(Probe { status: "ok" }))
}

pub(crate) async fn ready(access: Public) -> AdminResult<WithStatus<Probe, 503>> {
    match access.admin.store.ping().await {
        Ok(()) => Ok(WithStatus::ok(Probe { status: "ready" })),
        Err(error) => {
            tracing::warn!(%error, "not ready");
            Ok(WithStatus::other(Probe { status: "database unavailable" }))
        }
    }
}

/// Bytes of memory in use.
pub(super) fn memory_rss() -> Option<u64> {
    Some(process_status("VmRSS:")? * 1_024)
}

async fn details(
    admin: &Admin,
    database_ok: bool,
    cryptography: &Cryptography,
    breakers: &[BreakerView],
    uptime: f64,
    now: i64,
) -> AdminResult<HealthDetails> {
    // The rest is worth telling without a database too.
    let rows = connections::all(admin, &ConnectionFilter::default()).await.unwrap_or_default();
    let facts = admin.store.facts().await.ok();
    let setup_complete = has_password(admin).await.is_ok_and(|has| has != HasPassword::No);
    let snapshot = admin.live.load();
    let configured: std::collections::BTreeSet<_> = rows.iter().map(|row| &row.provider).collect();
    let active = snapshot.providers().into_iter().filter(|state| state.id.as_str() != registry::SIM).count();
    let (rate_limit_status, lockouts) = blocks(admin, &rows, now);
    let mut warnings: Vec<String> = snapshot
        .problems
        .iter()
        .map(|problem| format!("{} {}: {}", problem.entity, problem.id, problem.message))
        .collect();
    if admin.settings.open_to_all {
        warnings.push("REQUIRE_API_KEY=false: everybody who reaches the gateway can use it".to_owned());
    }
    if admin.settings.public_bind && !snapshot.settings.require_login {
        warnings.push("requireLogin is off: every program on this machine can manage the gateway".to_owned());
    }
    if let Cryptography::MissingOrInvalid { reason } = cryptography {
        warnings.push(format!("stored secrets cannot be read: {reason}"));
    }
    let disk = admin.store.disk();
    if let Some(disk) = disk.filter(DiskFacts::is_scarce) {
        let megabytes = disk.free_bytes >> 20;
        warnings.push(format!("the disk of the data directory is nearly full: {megabytes} MiB are free"));
    }
    let log = (admin.recorder_stats)();
    Ok(HealthDetails {
        timestamp: iso(now),
        system: SystemHealth {
            version: admin.settings.version.clone(),
            uptime,
            pid: std::process::id(),
            platform: std::env::consts::OS,
            memory_usage: Memory { rss: memory_rss() },
            fd_count: std::fs::read_dir("/proc/self/fd").ok().map(Iterator::count),
            threads: process_status("Threads:"),
        },
        active_connections: snapshot.connection_count(),
        in_flight: admin.telemetry.in_flight(),
        provider_summary: ProviderSummary {
            catalog_count: admin.catalog.count(),
            configured_count: configured.len(),
            active_count: active,
            monitored_count: active,
        },
        circuit_breakers: counts(breakers),
        provider_breakers: breakers.iter().map(provider_breaker).collect(),
        provider_health: provider_health(breakers),
        rate_limit_status,
        learned_limits: learned_limits(admin, &rows, now),
        lockouts,
        sessions: session_counts(admin, now),
        dedup: Dedup { inflight_requests: admin.reuse.shared_answers() },
        cryptography: CryptographyHealth {
            status: match cryptography {
                Cryptography::Ok => "ok",
                Cryptography::RotationPending => "rotation_pending",
                Cryptography::MissingOrInvalid { .. } => "missing_or_invalid",
            },
            provider: "xchacha20-poly1305",
        },
        database: DatabaseHealth {
            ok: database_ok,
            size_bytes: facts.map(|facts| facts.size_bytes),
            wal_bytes: facts.map(|facts| facts.wal_bytes),
            schema_version: facts.map(|facts| facts.schema_version),
        },
        disk: disk.map(|disk| DiskHealth { free_bytes: disk.free_bytes, total_bytes: disk.total_bytes }),
        log: LogHealth {
            queued: log.queued,
            shed_rows: log.shed_rows,
            written_rows: log.written_rows,
            flush_failures: log.flush_failures,
            queued_bodies: log.queued_bodies,
            written_bodies: log.written_bodies,
            shed_bodies: log.shed_bodies,
            failed_bodies: log.failed_bodies,
            body_bytes: log.body_bytes,
        },
        setup_complete,
        warnings,
    })
}

/// How many conversations there are, and the busiest five.
pub(super) fn session_counts(admin: &Admin, now: i64) -> SessionCounts {
    let mut known = sessions::known(admin, now);
    let sticky_bound_count = known.iter().filter(|session| session.connection.is_some()).count();
    let active_count = known.len();
    known.sort_by_key(|session| std::cmp::Reverse(session.requests));
    let top = known.into_iter().take(5).map(|session| BusySession {
        session_id: session.key.id().to_owned(),
        request_count: session.requests,
    });
    SessionCounts { active_count, sticky_bound_count, top: top.collect() }
}

/// The models that are locked on an account that is on.
pub(super) fn locks_of(admin: &Admin, now: i64) -> Vec<ModelLockView> {
    let snapshot = admin.live.load();
    let all = snapshot.providers();
    let accounts = all.iter().flat_map(|provider| &provider.connections);
    accounts.flat_map(|account| states(account)).flat_map(|state| locks(state, now)).collect()
}

fn locks(state: &ConnectionState, now: i64) -> Vec<ModelLockView> {
    let view = |lock: ModelLock| ModelLockView {
        provider: state.provider.to_string(),
        connection_id: state.id.to_string(),
        key: KeyName::of_state(state),
        model: lock.model,
        reason: lock.reason.as_str(),
        remaining_ms: lock.until - now,
        until: iso(lock.until),
        failure_count: lock.failure_count,
    };
    state.health.locks(now).into_iter().map(view).collect()
}

/// Closes every breaker.
pub(crate) async fn reset_breakers(access: Management) -> AdminResult<Json<BreakersClosed>> {
    let every = [Reset::Breakers { provider: None }];
    let reset: usize = resilience::end(&access, &every).await?.into_iter().sum();
    access.audit("resilience.reset", "provider", "*", &reset.to_string()).await;
    Ok(Json(BreakersClosed { success: true, reset }))
}

fn is_open(breaker: &BreakerView) -> bool {
    breaker.state == BreakerState::Open.as_str()
}

fn counts(breakers: &[BreakerView]) -> BreakerCounts {
    let open = breakers.iter().filter(|breaker| is_open(breaker)).count();
    let is_half_open = |breaker: &&BreakerView| breaker.state == BreakerState::HalfOpen.as_str();
    let half_open = breakers.iter().filter(is_half_open).count();
    let total = breakers.len();
    BreakerCounts { open, half_open, closed: total - open - half_open, total }
}

fn provider_breaker(breaker: &BreakerView) -> ProviderBreaker {
    ProviderBreaker {
        provider: breaker.provider.clone(),
        state: breaker.state,
        model: breaker.model.clone(),
        failure_count: breaker.failure_count,
        last_failure: breaker.last_failure_time.clone(),
        retry_after_ms: breaker.retry_after_ms,
    }
}

fn provider_health(breakers: &[BreakerView]) -> BTreeMap<String, ProviderHealth> {
    let badness =
        |state: &str| ["CLOSED", "DEGRADED", "HALF_OPEN", "OPEN"].iter().position(|it| *it == state);
    let mut worst: BTreeMap<String, ProviderHealth> = BTreeMap::new();
    for breaker in breakers {
        let known = worst.get(&breaker.provider);
        if known.is_none_or(|known| badness(known.state) < badness(breaker.state)) {
            let health = ProviderHealth {
                state: breaker.state,
                failures: breaker.failure_count,
                last_failure: breaker.last_failure_time.clone(),
                retry_after_ms: breaker.retry_after_ms,
            };
            worst.insert(breaker.provider.clone(), health);
        }
    }
    worst
}

/// What keeps connections from being used now.
pub(super) fn blocks(
    admin: &Admin,
    rows: &[Connection],
    now: i64,
) -> (BTreeMap<String, Cooldown>, Vec<ModelLockView>) {
    let snapshot = admin.live.load();
    let (mut cooldowns, mut locks) = (BTreeMap::new(), Vec::new());
    for row in rows {
        let Some(state) = snapshot.connection(&row.id) else { continue };
        for state in states(state) {
            let status = state.health.status(now);
            if let Some(until) = status.rate_limited_until {
                let cooldown = Cooldown {
                    key: KeyName::of_state(state),
                    paused_until: iso(until),
                    remaining_ms: until - now,
                    backoff_level: status.backoff_level,
                };
                cooldowns.insert(format!("{}:{}", row.provider, state.state_id()), cooldown);
            }
            locks.extend(self::locks(state, now));
        }
    }
    (cooldowns, locks)
}

/// A number out of what the kernel says about this process.
fn process_status(name: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}
