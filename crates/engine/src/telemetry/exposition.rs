//! Counters in the form Prometheus reads.

use std::fmt::Write as _;
use std::sync::atomic::AtomicU64;

use omniroute_domain::policy::Observed;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram};
use prometheus_client::registry::{Registry, Unit};

use crate::ports::RequestRow;

const DURATION_BUCKETS: [f64; 12] = [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];
const OVERHEAD_BUCKETS: [f64; 8] = [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.1];
const STATUS_CLASSES: [&str; 5] = ["2xx", "3xx", "4xx", "499", "5xx"];
const TOKEN_TYPES: [&str; 4] = ["input", "cache_read", "cache_write", "output"];

/// A value that somebody else keeps.
#[derive(Debug, Clone, Copy)]
pub struct Extra<'a> {
    /// The metric's name, without `_total`.
    pub name: &'a str,
    /// What it is.
    pub help: &'a str,
    /// What may happen to it.
    pub kind: ExtraKind,
    /// Its value now.
    pub value: u64,
}

/// What may happen to a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtraKind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
}

#[derive(Debug)]
pub(super) struct Exposition {
    registry: Registry,
    requests: Family<StatusLabels, Counter<u64, AtomicU64>>,
    tokens: Family<TokenLabels, Counter<u64, AtomicU64>>,
    duration: Family<ProviderLabels, Histogram>,
    ttft: Family<ProviderLabels, Histogram>,
    overhead: Histogram,
    attempts: Counter,
    failed_attempts: Counter,
    fallbacks: Counter,
    observed_policies: Counter,
    pub(super) in_flight: Gauge,
}

/// The counters of one provider, looked up once.
#[derive(Debug)]
pub(super) struct ProviderCounters {
    by_status: [Counter<u64, AtomicU64>; STATUS_CLASSES.len()],
    by_token_type: [Counter<u64, AtomicU64>; TOKEN_TYPES.len()],
    duration: Histogram,
    ttft: Histogram,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProviderLabels {
    provider: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabels {
    provider: String,
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TokenLabels {
    provider: String,
    r#type: &'static str,
}

impl Exposition {
    pub(super) fn new() -> Self {
        let mut this = Self {
            registry: Registry::with_prefix("omniroute"),
            requests: Family::default(),
            tokens: Family::default(),
            duration: Family::new_with_constructor(|| Histogram::new(DURATION_BUCKETS)),
            ttft: Family::new_with_constructor(|| Histogram::new(DURATION_BUCKETS)),
            overhead: Histogram::new(OVERHEAD_BUCKETS),
            attempts: Counter::default(),
            failed_attempts: Counter::default(),
            fallbacks: Counter::default(),
            observed_policies: Counter::default(),
            in_flight: Gauge::default(),
        };
        let registry = &mut this.registry;
        registry.register("requests", "Finished client requests", this.requests.clone());
        registry.register("tokens", "Tokens as upstreams reported them", this.tokens.clone());
        let seconds = || Unit::Seconds;
        registry.register_with_unit(
            "request_duration",
            "From arrival to the last byte",
            seconds(),
            this.duration.clone(),
        );
        registry.register_with_unit(
            "time_to_first_event",
            "From arrival to the first event",
            seconds(),
            this.ttft.clone(),
        );
        registry.register_with_unit(
            "gateway_overhead",
            "From arrival to the first upstream call",
            seconds(),
            this.overhead.clone(),
        );
        registry.register("attempts", "Upstream attempts", this.attempts.clone());
        registry.register("failed_attempts", "Upstream attempts that failed", this.failed_attempts.clone());
        registry.register("fallbacks", "Requests that needed more than one attempt", this.fallbacks.clone());
        registry.register(
            "policies_observed",
            "Policies that only observe and would have acted, each once for a request",
            this.observed_policies.clone(),
        );
        registry.register("requests_in_flight", "Running client requests", this.in_flight.clone());
        this
    }

    pub(super) fn provider(&self, provider: &str) -> ProviderCounters {
        let labels = ProviderLabels { provider: provider.to_owned() };
        ProviderCounters {
            by_status: STATUS_CLASSES.map(|status| {
                self.requests.get_or_create_owned(&StatusLabels { provider: provider.to_owned(), status })
            }),
            by_token_type: TOKEN_TYPES.map(|token_type| {
                self.tokens
                    .get_or_create_owned(&TokenLabels { provider: provider.to_owned(), r#type: token_type })
            }),
            duration: self.duration.get_or_create_owned(&labels),
            ttft: self.ttft.get_or_create_owned(&labels),
        }
    }

    pub(super) fn count_attempts(&self, row: &RequestRow) {
        self.attempts.inc_by(row.attempts.len() as u64);
        let failed = row.attempts.iter().filter(|attempt| attempt.failure.is_some()).count();
        self.failed_attempts.inc_by(failed as u64);
        if row.attempts.len() > 1 {
            self.fallbacks.inc();
        }
        if let Some(decision) = &row.decision {
            self.observed_policies.inc_by(acting(&decision.observed));
        }
        #[allow(clippy::cast_precision_loss)]
        self.overhead.observe(row.overhead_us as f64 / 1e6);
    }

    pub(super) fn text(&self, extras: &[Extra<'_>]) -> String {
        let mut out = String::with_capacity(8 * 1024);
        // Writing to a `String` cannot fail.
        let _ = text::encode_registry(&mut out, &self.registry);
        for Extra { name, help, kind, value } in extras {
            let (word, suffix) = match kind {
                ExtraKind::Counter => ("counter", "_total"),
                ExtraKind::Gauge => ("gauge", ""),
            };
            let _ = writeln!(
                out,
                "# HELP omniroute_{name} {help}.\n# TYPE omniroute_{name} {word}\nomniroute_{name}{suffix} {value}"
            );
        }
        let _ = text::encode_eof(&mut out);
        out
    }
}

/// How many policies would have acted; one says something else of each target.
fn acting(observed: &[Observed]) -> u64 {
    let is_first =
        |(at, one): &(usize, &Observed)| !observed[..*at].iter().any(|other| other.policy == one.policy);
    observed.iter().enumerate().filter(is_first).count() as u64
}

impl ProviderCounters {
    pub(super) fn count(&self, row: &RequestRow) {
        let class = match row.status {
            499 => 3,
            ..300 => 0,
            300..400 => 1,
            400..500 => 2,
            500.. => 4,
        };
        self.by_status[class].inc();
        let usage = &row.usage;
        let written = match (usage.cache_write, usage.cache_write_1h) {
            (None, None) => None,
            (short, long) => Some(short.unwrap_or(0) + long.unwrap_or(0)),
        };
        let amounts = [usage.input_uncached, usage.cache_read, written, usage.output_total];
        for (counter, amount) in self.by_token_type.iter().zip(amounts) {
            if let Some(amount) = amount {
                counter.inc_by(amount);
            }
        }
        #[allow(clippy::cast_precision_loss)]
        let seconds = |ms: i64| ms as f64 / 1e3;
        self.duration.observe(seconds(row.duration_ms));
        if let Some(ttft) = row.ttft_ms {
            self.ttft.observe(seconds(ttft));
        }
    }
}
