//! A scenario as it is written: TOML, every table and member named in `docs/chaos.md`. What does not fit is refused with its
//! line.

use std::collections::BTreeMap;

use omniroute_domain::entity::{ComboConfig, RuntimeSettings};
use serde::Deserialize;
use toml::Spanned;

use crate::error::ScenarioError;

/// A whole scenario.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What it is about.
    pub title: String,
    /// How many requests are sent; the phases are gone through until they have been.
    #[serde(default = "default_requests")]
    pub requests: u64,
    /// What all chance follows from.
    #[serde(default)]
    pub seed: u64,
    /// Settings of `/api/settings` where they differ from the defaults, or from the operator's own.
    #[serde(default)]
    pub settings: Option<Spanned<toml::Table>>,
    /// Limits of time of the process.
    #[serde(default)]
    pub limits: Limits,
    /// How every upstream behaves that says nothing else.
    #[serde(default)]
    pub upstream: Upstream,
    /// The accounts; over an operator's own configuration, how some of them behave.
    #[serde(default, rename = "account")]
    pub accounts: Vec<Account>,
    /// Combos beside those of the configuration.
    #[serde(default, rename = "combo")]
    pub combos: Vec<Combo>,
    /// What all keys together may spend.
    #[serde(default)]
    pub budget: Option<Budget>,
    /// Client keys.
    #[serde(default, rename = "key")]
    pub keys: Vec<Key>,
    /// Who asks for what.
    pub traffic: Vec<Traffic>,
    /// What happens when.
    #[serde(rename = "phase")]
    pub phases: Vec<Phase>,
    /// What must hold over the whole run.
    #[serde(default)]
    pub expect: Expect,
}

const fn default_requests() -> u64 {
    20_000
}

/// Limits of time of the process.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// For the head of an upstream's answer.
    pub first_byte_timeout_ms: Option<u64>,
    /// For silence within it.
    pub stream_idle_timeout_ms: Option<u64>,
}

/// How an upstream behaves while nothing is wrong. Absent members are those of the scenario's `[upstream]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// To the whole answer, or to the first piece of a stream.
    pub latency: Option<Latency>,
    /// From there to the end of a stream.
    pub rest: Option<Latency>,
    /// Tokens of an answer, at least and at most.
    pub output_tokens: Option<[u64; 2]>,
    /// How many requests the vendor takes.
    pub rate: Option<Rate>,
    /// How many it takes in a longer window.
    pub quota: Option<Quota>,
}

/// A spread of durations in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Latency {
    /// Half of them are shorter.
    pub p50: u64,
    /// One in a hundred is longer.
    pub p99: u64,
}

/// A vendor's limit of requests per minute, as a bucket that fills steadily.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Requests per minute.
    pub per_minute: u32,
    /// How many may come at once; a tenth of a minute's where absent.
    pub burst: Option<u32>,
    /// Whether a refusal says when to come again.
    #[serde(default = "yes")]
    pub hint: bool,
    /// Whether answers tell how much is left.
    #[serde(default)]
    pub headers: bool,
}

/// A vendor's quota, which comes back all at once.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// Requests in a window.
    pub requests: u64,
    /// Length of the window in seconds.
    pub every_s: u64,
    /// Whether a refusal says when it comes back.
    #[serde(default = "yes")]
    pub hint: bool,
}

const fn yes() -> bool {
    true
}

/// An account.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// Its name. Over an operator's configuration: the name or id of a connection.
    pub name: Spanned<String>,
    /// A provider of the catalogue; left out over an operator's configuration.
    pub provider: Option<Spanned<String>>,
    /// Its place among the provider's accounts, 1 first.
    pub priority: Option<i64>,
    /// Most requests at once.
    pub max_concurrent: Option<u32>,
    /// Models that it does not serve.
    #[serde(default)]
    pub excluded_models: Vec<String>,
    /// How its upstream behaves.
    #[serde(default)]
    pub upstream: Upstream,
}

/// A combo.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Combo {
    /// What clients ask for.
    pub name: String,
    /// A strategy of `docs/routing.md`.
    pub strategy: Spanned<String>,
    /// Models, as a client would ask for them; `combo:name` leads to another combo.
    pub steps: Vec<Spanned<String>>,
    /// Their shares, for strategies that weigh; as many as there are steps.
    pub weights: Option<Spanned<Vec<u32>>>,
    /// How it is carried out, as `/api/combos` has it.
    #[serde(default)]
    pub config: ComboConfig,
}

/// A client key.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// Its name.
    pub name: Spanned<String>,
    /// Requests per minute.
    pub requests_per_minute: Option<u32>,
    /// Requests per day.
    pub requests_per_day: Option<u32>,
    /// Tokens per minute.
    pub tokens_per_minute: Option<u64>,
    /// Requests at once.
    pub max_concurrent: Option<u32>,
    /// Patterns of models it may use.
    #[serde(default)]
    pub models: Vec<String>,
    /// What it may spend.
    pub budget: Option<Budget>,
}

/// What may be spent, in US dollars.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// In a day.
    pub daily_usd: Option<f64>,
    /// In a week, from Monday.
    pub weekly_usd: Option<f64>,
    /// In a month.
    pub monthly_usd: Option<f64>,
    /// In all.
    pub total_usd: Option<f64>,
    /// Whether requests beyond it are refused.
    #[serde(default = "yes")]
    pub hard_stop: bool,
}

/// A kind of request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Traffic {
    /// The model or combo that is asked for.
    pub model: Spanned<String>,
    /// The key's name; without one a program on this machine asks.
    pub key: Option<Spanned<String>>,
    /// The client's dialect.
    pub dialect: Option<Spanned<String>>,
    /// How much of all there is of it, in comparison with the others.
    #[serde(default = "one")]
    pub share: f64,
    /// How many of them want a stream, 0 to 1.
    #[serde(default)]
    pub stream: f64,
    /// Tokens of the prompt, at least and at most.
    #[serde(default = "default_input")]
    pub input_tokens: [u64; 2],
    /// The limit of output tokens that clients set.
    pub max_tokens: Option<u64>,
    /// How many conversations they belong to; without it each is one of its own.
    pub conversations: Option<u64>,
    /// Clients that do not wait.
    pub impatient: Option<Impatient>,
}

const fn one() -> f64 {
    1.0
}

const fn default_input() -> [u64; 2] {
    [50, 500]
}

/// Clients that hang up.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Impatient {
    /// How many, 0 to 1.
    pub share: f64,
    /// When, at the latest.
    pub after_ms: u64,
}

/// A stretch of time.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    /// Its name in the report.
    pub name: String,
    /// How long it lasts.
    pub seconds: Spanned<u64>,
    /// Requests per second, on average.
    pub rate: Spanned<f64>,
    /// What goes wrong.
    #[serde(default, rename = "fault")]
    pub faults: Vec<Fault>,
    /// What must hold for the requests that arrive in it.
    #[serde(default)]
    pub expect: Expect,
}

/// Something that goes wrong at some accounts for some time.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Names of accounts; `*` for all.
    pub accounts: Vec<Spanned<String>>,
    /// What.
    pub kind: FaultKind,
    /// From this second of the phase.
    #[serde(default)]
    pub from: u64,
    /// To this one; to its end where absent.
    pub to: Option<Spanned<u64>>,
    /// How many of the calls it hits, 0 to 1.
    #[serde(default = "one")]
    pub share: f64,
    /// The status, of an outage.
    pub status: Option<u16>,
    /// What `Retry-After` says, of an outage or a rate limit.
    pub retry_after_ms: Option<u64>,
    /// How many times slower, of slowness.
    pub factor: Option<f64>,
}

/// Kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// Answers with an error of the 5xx family.
    Outage,
    /// Nobody listens.
    Unreachable,
    /// Takes the request and says nothing.
    Hang,
    /// 429: too many requests for this model.
    RateLimit,
    /// 429: the quota of the account is spent.
    Quota,
    /// 401.
    WrongKey,
    /// Takes longer.
    Slow,
    /// 200 and no content.
    Empty,
    /// The connection breaks before the first piece.
    CutBefore,
    /// It breaks after the first piece of a stream.
    CutAfter,
}

/// What must hold. What is absent is not asked for.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// Least share of requests that were answered, of those that were neither refused to the key nor given up.
    pub availability: Option<f64>,
    /// Most avoidable errors, as a share of all requests.
    pub avoidable: Option<f64>,
    /// Longest wait.
    pub longest_wait_ms: Option<u64>,
    /// Wait that one in a hundred exceeds.
    pub p99_wait_ms: Option<u64>,
    /// Most upstream calls per request, on average.
    pub attempts: Option<f64>,
    /// Weights by which answers are to be shared among accounts.
    pub shares: Option<BTreeMap<String, f64>>,
    /// How far a share may be off.
    pub within: Option<f64>,
}

impl Scenario {
    /// Reads a scenario. What is wrong is named with its line.
    pub fn parse(text: &str) -> Result<Self, ScenarioError> {
        toml::from_str(text).map_err(|error| {
            ScenarioError::at(text, error.span().map(|span| span.start), error.message().trim().to_owned())
        })
    }

    /// The settings in force: those given here over `base`.
    pub fn settings_over(&self, base: RuntimeSettings, text: &str) -> Result<RuntimeSettings, ScenarioError> {
        let Some(given) = &self.settings else { return Ok(base) };
        let wrong = |message: String| ScenarioError::at(text, Some(given.span().start), message);
        let stored = toml::Table::try_from(&base).map_err(|error| wrong(error.to_string()))?;
        let merged = merged(stored, given.get_ref());
        let mut unknown = Vec::new();
        let settings = serde_ignored::deserialize(toml::Value::Table(merged), |path| {
            unknown.push(format!("`{path}`"));
        })
        .map_err(|error: toml::de::Error| wrong(format!("[settings]: {}", error.message())))?;
        match unknown.is_empty() {
            true => Ok(settings),
            false => Err(wrong(format!(
                "[settings]: {} is no setting; names are those of /api/settings",
                unknown.join(", ")
            ))),
        }
    }
}

/// `over` laid on `base`, tables member by member.
fn merged(mut base: toml::Table, over: &toml::Table) -> toml::Table {
    for (name, value) in over {
        let value = match (base.remove(name), value) {
            (Some(toml::Value::Table(inner)), toml::Value::Table(value)) => {
                toml::Value::Table(merged(inner, value))
            }
            _ => value.clone(),
        };
        base.insert(name.clone(), value);
    }
    base
}
