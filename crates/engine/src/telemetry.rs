//! What the gateway measures of itself: percentiles over the last minutes, hours and day, counters for Prometheus, and
//! the requests that are running. Lives in memory only; the database keeps what must survive.
//!
//! Everything here is bounded: the number of series by [`MAX_PROVIDERS`] and [`MAX_MODELS`] (what comes later is
//! counted as `other`), a series by its rings of slots, a slot by the number of buckets of a histogram.

mod active;
mod exposition;
mod histogram;
mod phases;
mod pulse;
mod window;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;

use crate::ports::RequestRow;
use crate::record::CLIENT_CLOSED_REQUEST;

pub use active::{ActiveRequest, Running};
pub use exposition::{Extra, ExtraKind};
pub use histogram::Quantiles;
pub use phases::{Phase, Phases};
pub(crate) use pulse::Pulse;
pub use window::{SeriesSummary, Window};

use exposition::{Exposition, ProviderCounters};
use phases::PHASES;
use window::{Sample, Series};

/// Most providers with a series of their own.
pub const MAX_PROVIDERS: usize = 160;
/// Most models with a series of their own.
pub const MAX_MODELS: usize = 256;
/// Where everything beyond is counted.
pub const OTHER: &str = "other";

/// Measurements of one process.
#[derive(Debug)]
pub struct Telemetry {
    started_ms: i64,
    measured: Mutex<Measured>,
    exposition: Exposition,
    active: Arc<active::Active>,
}

/// Percentiles over a window.
#[derive(Debug, Clone)]
pub struct Summary {
    /// The window.
    pub window: Window,
    /// Everything together.
    pub total: SeriesSummary,
    /// What the gateway itself took before the first upstream call, in microseconds.
    pub overhead_us: Quantiles,
    /// How long each phase took, in microseconds, of those that requests went through.
    pub phases_us: Vec<(Phase, Quantiles)>,
    /// By provider id.
    pub providers: BTreeMap<String, SeriesSummary>,
    /// By `provider/model`.
    pub models: BTreeMap<String, SeriesSummary>,
    /// Requests since the start.
    pub requests_since_start: u64,
    /// When the process started.
    pub started_ms: i64,
}

#[derive(Debug, Default)]
struct Measured {
    requests: u64,
    total: Series,
    phases: Series<PHASES>,
    providers: HashMap<String, ProviderSeries, RandomState>,
    model_count: usize,
}

#[derive(Debug)]
struct ProviderSeries {
    series: Series,
    models: HashMap<String, Series, RandomState>,
    counters: ProviderCounters,
}

impl Telemetry {
    /// Nothing measured yet.
    pub fn new(started_ms: i64) -> Self {
        Self { started_ms, measured: Mutex::default(), exposition: Exposition::new(), active: Arc::default() }
    }

    /// Counts a finished request. Takes one short lock and, for a model seen before, allocates nothing but a bucket
    /// now and then.
    pub fn observe(&self, row: &RequestRow, phases: &Phases, now_ms: i64) {
        let sample = Sample::of(row);
        let mut measured = self.measured();
        let Measured { requests, total, phases: by_phase, providers, model_count } = &mut *measured;
        *requests += 1;
        total.record(now_ms, &sample);
        // How far a client that went away had the patience to wait says nothing of the gateway.
        if row.status != CLIENT_CLOSED_REQUEST {
            by_phase.record(now_ms, &phases.sample());
        }
        let provider = row.provider.as_ref().map_or("none", |id| id.as_str());
        let provider = if providers.contains_key(provider) || providers.len() < MAX_PROVIDERS {
            provider
        } else {
            OTHER
        };
        if !providers.contains_key(provider) {
            let series = ProviderSeries {
                series: Series::default(),
                models: HashMap::default(),
                counters: self.exposition.provider(provider),
            };
            providers.insert(provider.to_owned(), series);
        }
        let Some(entry) = providers.get_mut(provider) else { return };
        entry.series.record(now_ms, &sample);
        entry.counters.count(row);
        self.exposition.count_attempts(row);
        if row.model.is_empty() || row.provider.is_none() {
            return;
        }
        let model = if entry.models.contains_key(&*row.model) || *model_count < MAX_MODELS {
            &row.model
        } else {
            OTHER
        };
        if !entry.models.contains_key(model) {
            *model_count += 1;
            entry.models.insert(model.to_owned(), Series::default());
        }
        if let Some(series) = entry.models.get_mut(model) {
            series.record(now_ms, &sample);
        }
    }

    /// Notes that a request is running, until the returned value is dropped.
    pub fn begin(&self, request_id: &str, model: &str, stream: bool, now_ms: i64) -> Running {
        self.exposition.in_flight.inc();
        active::Active::begin(
            &self.active,
            request_id,
            model,
            stream,
            now_ms,
            self.exposition.in_flight.clone(),
        )
    }

    /// Requests that are running, oldest first.
    pub fn active(&self) -> Vec<ActiveRequest> {
        self.active.list()
    }

    /// Ends the running requests with this id, with an error for their clients; how many there are.
    pub fn cancel(&self, request_id: &str) -> usize {
        self.active.cancel(request_id)
    }

    /// When the process started, in milliseconds since the epoch.
    pub fn started_ms(&self) -> i64 {
        self.started_ms
    }

    /// How many requests are running.
    pub fn in_flight(&self) -> usize {
        self.active.count()
    }

    /// Percentiles over a window that ends now.
    pub fn summary(&self, window: Window, now_ms: i64) -> Summary {
        let measured = self.measured();
        let mut providers = BTreeMap::new();
        let mut models = BTreeMap::new();
        for (provider, entry) in &measured.providers {
            let summary = entry.series.summary(window, now_ms);
            if summary.count > 0 {
                providers.insert(provider.clone(), summary);
            }
            for (model, series) in &entry.models {
                let summary = series.summary(window, now_ms);
                if summary.count > 0 {
                    models.insert(format!("{provider}/{model}"), summary);
                }
            }
        }
        Summary {
            window,
            total: measured.total.summary(window, now_ms),
            overhead_us: measured.total.overhead(window, now_ms),
            phases_us: Phase::ALL
                .map(|phase| (phase, measured.phases.quantiles(phase as usize, window, now_ms)))
                .into_iter()
                .filter(|(_, quantiles)| quantiles.count > 0)
                .collect(),
            providers,
            models,
            requests_since_start: measured.requests,
            started_ms: self.started_ms,
        }
    }

    /// The measurements as OpenMetrics text, with values that others keep.
    pub fn metrics(&self, extras: &[Extra<'_>]) -> String {
        self.exposition.text(extras)
    }

    fn measured(&self) -> MutexGuard<'_, Measured> {
        self.measured.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
