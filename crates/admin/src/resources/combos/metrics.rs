//! What is counted of combos: `/api/combos/metrics`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use omniroute_domain::combo::ComboState;
use omniroute_domain::entity::{ComboId, Goal};
use omniroute_domain::routing::Totals;
use omniroute_domain::snapshot::Snapshot;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::super::Done;
use crate::auth::Management;
use crate::endpoint::{Filter, Json};
use crate::error::{AdminResult, not_found};
use crate::text::iso;

#[derive(Deserialize, IntoParams)]
pub(crate) struct MetricsQuery {
    /// The name of a combo; absent = all.
    combo: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Metrics {
    metrics: BTreeMap<String, ComboMetrics>,
}

/// Counts since the process started. Rates are 0 to 100.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ComboMetrics {
    total_requests: u64,
    total_successes: u64,
    total_failures: u64,
    /// Requests that were not answered at the first try.
    total_fallbacks: u64,
    total_latency_ms: u64,
    avg_latency_ms: f64,
    success_rate: f64,
    fallback_rate: f64,
    strategy: &'static str,
    last_used_at: Option<String>,
    by_model: BTreeMap<String, Counts>,
    by_target: BTreeMap<String, TargetCounts>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Counts {
    requests: u64,
    successes: u64,
    failures: u64,
    /// Of those that went well, to the first content.
    total_latency_ms: u64,
    avg_latency_ms: f64,
    success_rate: f64,
    /// `ok` or `error`; null when it was never used.
    last_status: Option<&'static str>,
    last_used_at: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct TargetCounts {
    #[serde(flatten)]
    counts: Counts,
    connection_id: Option<String>,
    /// Requests running now.
    in_flight: u32,
    /// Requests that wait for a place at it.
    queued: u32,
    /// Requests that found none, or none in time.
    turned_away: u64,
}

pub(crate) async fn show(
    access: Management,
    Filter(query): Filter<MetricsQuery>,
) -> AdminResult<Json<Metrics>> {
    let snapshot = access.admin.live.load();
    let combos = all(&snapshot);
    let wanted = combos.iter().filter(|combo| query.combo.as_deref().is_none_or(|name| *combo.name == *name));
    let metrics: BTreeMap<_, _> = wanted.map(|combo| (combo.name.to_string(), of(combo))).collect();
    if metrics.is_empty() && query.combo.is_some() {
        return Err(not_found("Combo"));
    }
    Ok(Json(Metrics { metrics }))
}

pub(crate) async fn clear(
    access: Management,
    Filter(query): Filter<MetricsQuery>,
) -> AdminResult<Json<Done>> {
    let snapshot = access.admin.live.load().clone();
    let mut wanted = snapshot.combos();
    wanted.extend(snapshot.auto_variants());
    wanted.retain(|combo| query.combo.as_deref().is_none_or(|name| *combo.name == *name));
    if wanted.is_empty() && query.combo.is_some() {
        return Err(not_found("Combo"));
    }
    begin_anew(&access, &snapshot, &wanted).await?;
    access.audit("combo.metrics.clear", "combo", query.combo.as_deref().unwrap_or("*"), "").await;
    Ok(Json(Done::new()))
}

/// Counts of combos whose requests are counted again begin there: what came before was not to be counted.
pub(crate) async fn begin_where_tracked(access: &Management, before: &Snapshot) -> AdminResult<()> {
    let now = access.admin.live.load().clone();
    let was_not = |id: &ComboId| {
        let mut all = before.combos().into_iter().chain(before.auto_variants());
        all.any(|combo| combo.id == *id && !combo.policy.tracks_metrics)
    };
    let mut begun = now.combos();
    begun.extend(now.auto_variants());
    begun.retain(|combo| combo.policy.tracks_metrics && was_not(&combo.id));
    begin_anew(access, &now, &begun).await
}

/// Counts from nothing again, in every process and after a restart too.
async fn begin_anew(
    access: &Management,
    snapshot: &Snapshot,
    combos: &[&Arc<ComboState>],
) -> AdminResult<()> {
    if combos.is_empty() {
        return Ok(());
    }
    let ids: Vec<ComboId> = combos.iter().map(|combo| combo.id.clone()).collect();
    let and_pool = combos.iter().any(|combo| snapshot.chooses_from_pool(combo));
    access.admin.store.combo_memories().clear(&ids, and_pool, access.now_ms).await?;
    access.reload().await
}

/// The operator's combos, and the variants of `auto` that were asked for.
fn all(snapshot: &Snapshot) -> Vec<&Arc<ComboState>> {
    let used = |combo: &&Arc<ComboState>| combo.memory.stats.totals().requests > 0;
    snapshot.combos().into_iter().chain(snapshot.auto_variants().into_iter().filter(used)).collect()
}

fn of(combo: &ComboState) -> ComboMetrics {
    let totals = combo.memory.stats.totals();
    let fallbacks = combo.memory.fallbacks.load(Ordering::Relaxed);
    let mut by_model: BTreeMap<String, Totals> = BTreeMap::new();
    let mut by_target = BTreeMap::new();
    for step in combo.steps.iter() {
        let (name, connection_id) = match &step.goal {
            Goal::Model { model, connection_id } => (model, connection_id.clone()),
            Goal::ComboRef { combo_name } => (combo_name, None),
        };
        let totals = step.stats.totals();
        let model = by_model.entry(name.clone()).or_default();
        *model = sum(*model, totals);
        let target = TargetCounts {
            counts: counts(totals),
            connection_id,
            in_flight: step.stats.in_flight(),
            queued: step.stats.queued(),
            turned_away: step.stats.turned_away_total(),
        };
        by_target.insert(step.id.to_string(), target);
    }
    ComboMetrics {
        total_requests: totals.requests,
        total_successes: totals.successes,
        total_failures: totals.requests - totals.successes,
        total_fallbacks: fallbacks,
        total_latency_ms: totals.latency_ms,
        avg_latency_ms: ratio(totals.latency_ms, totals.successes),
        success_rate: percent(totals.successes, totals.requests),
        fallback_rate: percent(fallbacks, totals.requests),
        strategy: combo.strategy.name(),
        last_used_at: totals.last_used_at.map(iso),
        by_model: by_model.into_iter().map(|(model, totals)| (model, counts(totals))).collect(),
        by_target,
    }
}

fn sum(one: Totals, other: Totals) -> Totals {
    Totals {
        requests: one.requests + other.requests,
        successes: one.successes + other.successes,
        latency_ms: one.latency_ms + other.latency_ms,
        last_used_at: one.last_used_at.max(other.last_used_at),
        last_failed: if other.last_used_at >= one.last_used_at { other.last_failed } else { one.last_failed },
    }
}

fn counts(totals: Totals) -> Counts {
    Counts {
        requests: totals.requests,
        successes: totals.successes,
        failures: totals.requests - totals.successes,
        total_latency_ms: totals.latency_ms,
        avg_latency_ms: ratio(totals.latency_ms, totals.successes),
        success_rate: percent(totals.successes, totals.requests),
        last_status: totals.last_used_at.map(|_| if totals.last_failed { "error" } else { "ok" }),
        last_used_at: totals.last_used_at.map(iso),
    }
}

/// To one place behind the point; 0 of nothing is 0.
fn ratio(part: u64, whole: u64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "for people")]
    let ratio = if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
    (ratio * 10.0).round() / 10.0
}

fn percent(part: u64, whole: u64) -> f64 {
    ratio(part * 100, whole)
}
