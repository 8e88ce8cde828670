//! Latencies and error rates over a window: `/api/telemetry/summary`.

use std::collections::BTreeMap;

use omniroute_engine::telemetry::{Quantiles, SeriesSummary, Window};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::health::{SessionCounts, memory_rss, session_counts};
use crate::auth::Management;
use crate::endpoint::{Filter, Json};
use crate::error::{AdminResult, invalid_field};

#[derive(Deserialize, IntoParams)]
pub(crate) struct WindowQuery {
    /// `5m`, `1h` (default) or `24h`.
    window: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TelemetrySummary {
    window: &'static str,
    count: u64,
    avg: f64,
    p50: u64,
    p95: u64,
    p99: u64,
    /// Parts of the time, in milliseconds, of those that requests went through; `gateway` is everything before the first call.
    phase_breakdown: BTreeMap<String, Phase>,
    gateway_overhead_ms: OverheadQuantiles,
    /// Since the start.
    total_requests: u64,
    avg_latency_ms: f64,
    sessions: SessionCounts,
    uptime: f64,
    memory_usage: MemoryUsage,
    active_connections: usize,
    in_flight: usize,
    error_rate: f64,
    providers: BTreeMap<String, SeriesView>,
    models: BTreeMap<String, SeriesView>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Phase {
    count: u64,
    avg: f64,
    p50: f64,
    p95: f64,
}

impl Phase {
    fn of(took: &Quantiles) -> Self {
        Self { count: took.count, avg: took.avg / 1e3, p50: ms(took.p50), p95: ms(took.p95) }
    }
}

#[derive(Serialize, ToSchema)]
pub(crate) struct OverheadQuantiles {
    p50: f64,
    p95: f64,
    p99: f64,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct MemoryUsage {
    /// Bytes; null where it cannot be read.
    rss: Option<u64>,
}

/// Percentiles of a provider or model; times in milliseconds.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SeriesView {
    count: u64,
    avg: f64,
    p50: u64,
    p95: u64,
    p99: u64,
    ttft: Percentiles,
    tokens_per_second: Median,
    error_rate: f64,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Percentiles {
    p50: u64,
    p95: u64,
    p99: u64,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Median {
    p50: u64,
}

pub(crate) async fn summary(
    access: Management,
    Filter(query): Filter<WindowQuery>,
) -> AdminResult<Json<TelemetrySummary>> {
    let window = query.window.as_deref().map_or(Some(Window::Hour), Window::parse);
    let window = window.ok_or_else(|| invalid_field("window", "must be 5m, 1h or 24h"))?;
    let telemetry = &access.admin.telemetry;
    let summary = telemetry.summary(window, access.now_ms);
    let Quantiles { count, avg, p50, p95, p99 } = summary.total.duration_ms;
    let overhead = summary.overhead_us;
    let mut phases: BTreeMap<String, Phase> =
        summary.phases_us.iter().map(|(phase, took)| (phase.as_str().to_owned(), Phase::of(took))).collect();
    phases.insert("gateway".to_owned(), Phase::of(&overhead));
    Ok(Json(TelemetrySummary {
        window: window.as_str(),
        count,
        avg,
        p50,
        p95,
        p99,
        phase_breakdown: phases,
        gateway_overhead_ms: OverheadQuantiles {
            p50: ms(overhead.p50),
            p95: ms(overhead.p95),
            p99: ms(overhead.p99),
        },
        total_requests: summary.requests_since_start,
        avg_latency_ms: avg,
        sessions: session_counts(&access.admin, access.now_ms),
        uptime: uptime_secs(access.now_ms - summary.started_ms),
        memory_usage: MemoryUsage { rss: memory_rss() },
        active_connections: access.admin.live.load().connection_count(),
        in_flight: telemetry.in_flight(),
        error_rate: summary.total.error_rate(),
        providers: summary.providers.iter().map(|(id, series)| (id.clone(), view(series))).collect(),
        models: summary.models.iter().map(|(id, series)| (id.clone(), view(series))).collect(),
    }))
}

/// Milliseconds as seconds.
#[allow(clippy::cast_precision_loss)]
pub(super) fn uptime_secs(ms: i64) -> f64 {
    ms.max(0) as f64 / 1e3
}

#[allow(clippy::cast_precision_loss)]
fn ms(us: u64) -> f64 {
    us as f64 / 1e3
}

fn view(series: &SeriesSummary) -> SeriesView {
    let Quantiles { avg, p50, p95, p99, .. } = series.duration_ms;
    let ttft = series.ttft_ms;
    SeriesView {
        count: series.count,
        avg,
        p50,
        p95,
        p99,
        ttft: Percentiles { p50: ttft.p50, p95: ttft.p95, p99: ttft.p99 },
        tokens_per_second: Median { p50: series.tokens_per_second.p50 },
        error_rate: series.error_rate(),
    }
}
