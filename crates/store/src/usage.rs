//! What was used: counters over a period, by provider, model, account and client key.
//!
//! Minutes, hours and days are counted in summaries that never lose a request (see `writer`). A period takes the rest
//! of the minute in which it begins from the request log, then whole minutes, whole hours and whole days.

use std::collections::BTreeMap;

use omniroute_domain::entity::{ApiKeyId, ConnectionId};

use crate::error::StoreError;
use crate::pool::{with_read, with_snapshot};
use crate::store::Store;

pub(crate) const HOUR_MS: i64 = 3_600_000;
pub(crate) const DAY_MS: i64 = 24 * HOUR_MS;
pub(crate) const MINUTE_MS: i64 = 60_000;

/// Access to the counters.
#[derive(Debug, Clone, Copy)]
pub struct Usage<'a>(pub(crate) &'a Store);

/// A period that ends now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Period {
    /// `1h`
    Hour,
    /// `24h`
    Day,
    /// `7d`
    Week,
    /// `30d`
    Month,
    /// `90d`
    Quarter,
    /// `all`
    #[default]
    All,
}

impl Period {
    /// From the word of a query.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Hour, Self::Day, Self::Week, Self::Month, Self::Quarter, Self::All]
            .into_iter()
            .find(|period| period.as_str() == text)
    }

    /// The word of a query.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "1h",
            Self::Day => "24h",
            Self::Week => "7d",
            Self::Month => "30d",
            Self::Quarter => "90d",
            Self::All => "all",
        }
    }

    /// When it began; `None` = always.
    pub const fn since(self, now_ms: i64) -> Option<i64> {
        match self {
            Self::Hour => Some(now_ms - HOUR_MS),
            Self::Day => Some(now_ms - DAY_MS),
            Self::Week => Some(now_ms - 7 * DAY_MS),
            Self::Month => Some(now_ms - 30 * DAY_MS),
            Self::Quarter => Some(now_ms - 90 * DAY_MS),
            Self::All => None,
        }
    }
}

/// Counters of some requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UsageCounters {
    /// Requests that reached a provider.
    pub requests: i64,
    /// Those that failed, or whose client went away.
    pub errors: i64,
    /// All prompt tokens.
    pub prompt_tokens: i64,
    /// All produced tokens.
    pub completion_tokens: i64,
    /// Prompt tokens read from a cache.
    pub cached_tokens: i64,
    /// Prompt tokens written to a cache.
    pub cache_creation_tokens: i64,
    /// Produced tokens spent on reasoning.
    pub reasoning_tokens: i64,
    /// Requests whose tokens are estimates.
    pub estimated: i64,
    /// Known cost in billionths of a US dollar.
    pub cost_nano: i64,
    /// Requests of unknown cost; they are not in `cost_nano`.
    pub unpriced: i64,
    /// Sum of the durations.
    pub latency_sum_ms: i64,
    /// Arrival of the latest; 0 = none.
    pub last_used_at: i64,
}

impl UsageCounters {
    pub(crate) fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.errors += other.errors;
        self.prompt_tokens += other.prompt_tokens;
        self.completion_tokens += other.completion_tokens;
        self.cached_tokens += other.cached_tokens;
        self.cache_creation_tokens += other.cache_creation_tokens;
        self.reasoning_tokens += other.reasoning_tokens;
        self.estimated += other.estimated;
        self.cost_nano += other.cost_nano;
        self.unpriced += other.unpriced;
        self.latency_sum_ms += other.latency_sum_ms;
        self.last_used_at = self.last_used_at.max(other.last_used_at);
    }
}

/// Counters over a period.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UsageHistory {
    /// Everything.
    pub total: UsageCounters,
    /// By provider, by id.
    pub by_provider: Vec<ProviderUsage>,
    /// By upstream model and provider.
    pub by_model: Vec<ModelUsage>,
    /// By upstream model and account.
    pub by_account: Vec<AccountUsage>,
    /// By client key; requests without a key are not among them.
    pub by_api_key: Vec<ApiKeyUsage>,
}

/// Counters of a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderUsage {
    /// The provider.
    pub provider: String,
    /// Its counters.
    pub counters: UsageCounters,
}

/// Counters of a model at a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelUsage {
    /// The upstream model.
    pub model: String,
    /// The provider.
    pub provider: String,
    /// Its counters.
    pub counters: UsageCounters,
}

/// Counters of a model on an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountUsage {
    /// The upstream model.
    pub model: String,
    /// The provider.
    pub provider: String,
    /// The account's id; it may be gone.
    pub connection_id: String,
    /// Its name when it was last used.
    pub account_name: String,
    /// Its counters.
    pub counters: UsageCounters,
}

/// Counters of a client key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKeyUsage {
    /// The key's id; it may be gone.
    pub api_key_id: String,
    /// Its name when it was last used.
    pub api_key_name: String,
    /// Its counters.
    pub counters: UsageCounters,
}

/// What one account used lately.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConnectionUsage {
    /// Within 24 hours.
    pub last_day: UsageCounters,
    /// Within 30 days.
    pub last_month: UsageCounters,
}

/// The columns that all summaries have.
macro_rules! summary {
    ($table:literal) => {
        concat!(
            "SELECT provider, model, connection_id, api_key_id, connection_name, api_key_name, requests, successes, \
             tokens_input, tokens_output, tokens_cache_read, tokens_cache_creation, tokens_reasoning, estimated, \
             cost_nano, unpriced, latency_sum_ms, last_used_at FROM ",
            $table,
            " WHERE bucket >= "
        )
    };
}

/// The rows of a period: `$1` its begin, `$2` the first whole minute, `$3` the first whole hour, `$4` the first whole
/// day. A request that reached no provider is no usage.
macro_rules! parts {
    () => {
        concat!(
            "(",
            summary!("daily_usage_summary"),
            "$4 UNION ALL ",
            summary!("hourly_usage_summary"),
            "$3 AND bucket < $4 UNION ALL ",
            summary!("minute_usage_summary"),
            "$2 AND bucket < $3 UNION ALL \
             SELECT provider, model, COALESCE(connection_id, ''), COALESCE(api_key_id, ''), COALESCE(account, ''), \
             COALESCE(api_key_name, ''), CAST(1 AS BIGINT), \
             CASE WHEN status < 400 AND error_summary IS NULL AND error_code IS NULL THEN 1 ELSE 0 END, \
             COALESCE(tokens_in, 0), COALESCE(tokens_out, 0), COALESCE(tokens_cache_read, 0), \
             COALESCE(tokens_cache_creation, 0), COALESCE(tokens_reasoning, 0), \
             CASE WHEN estimated THEN 1 ELSE 0 END, COALESCE(cost_nano, 0), \
             CASE WHEN cost_nano IS NULL THEN 1 ELSE 0 END, duration, timestamp FROM call_logs \
             WHERE provider IS NOT NULL AND timestamp >= $1 AND timestamp < $2) AS parts"
        )
    };
}

/// The sums of all summaries.
macro_rules! sums {
    () => {
        "COALESCE(CAST(SUM(requests) AS BIGINT), 0) AS requests, \
         COALESCE(CAST(SUM(requests - successes) AS BIGINT), 0) AS errors, \
         COALESCE(CAST(SUM(tokens_input) AS BIGINT), 0) AS prompt_tokens, \
         COALESCE(CAST(SUM(tokens_output) AS BIGINT), 0) AS completion_tokens, \
         COALESCE(CAST(SUM(tokens_cache_read) AS BIGINT), 0) AS cached_tokens, \
         COALESCE(CAST(SUM(tokens_cache_creation) AS BIGINT), 0) AS cache_creation_tokens, \
         COALESCE(CAST(SUM(tokens_reasoning) AS BIGINT), 0) AS reasoning_tokens, \
         COALESCE(CAST(SUM(estimated) AS BIGINT), 0) AS estimated, \
         COALESCE(CAST(SUM(cost_nano) AS BIGINT), 0) AS cost_nano, \
         COALESCE(CAST(SUM(unpriced) AS BIGINT), 0) AS unpriced, \
         COALESCE(CAST(SUM(latency_sum_ms) AS BIGINT), 0) AS latency_sum_ms, \
         COALESCE(MAX(last_used_at), 0) AS last_used_at"
    };
}
pub(crate) use sums;

const GROUPS: &str = concat!(
    "SELECT provider, model, connection_id, api_key_id, MAX(connection_name) AS connection_name, \
     MAX(api_key_name) AS api_key_name, ",
    sums!(),
    " FROM ",
    parts!(),
    " GROUP BY provider, model, connection_id, api_key_id"
);

const OF_CONNECTION: &str = concat!("SELECT ", sums!(), " FROM ", parts!(), " WHERE connection_id = $5");

const TODAY: &str = "SELECT api_key_id, CAST(SUM(requests) AS BIGINT) FROM daily_usage_summary
     WHERE bucket = $1 AND api_key_id <> '' GROUP BY api_key_id ORDER BY api_key_id";

const MINUTES: &str = concat!(
    "SELECT (bucket - $1) / 60000 AS minute, ",
    sums!(),
    " FROM minute_usage_summary WHERE bucket >= $1 AND bucket < $2 GROUP BY 1"
);

impl Usage<'_> {
    /// Counters over a period that ends now.
    pub async fn history(&self, period: Period, now_ms: i64) -> Result<UsageHistory, StoreError> {
        let edges = Edges::of(period.since(now_ms));
        let groups: Vec<Group> = with_read!(self.0.pool(), |db| {
            sqlx::query_as(GROUPS)
                .bind(edges.begin)
                .bind(edges.first_minute)
                .bind(edges.first_hour)
                .bind(edges.first_day)
                .fetch_all(&mut *db)
                .await?
        });
        Ok(fold(groups))
    }

    /// Ten counters of one minute each, oldest first; the last one is the running minute.
    pub async fn last_ten_minutes(&self, now_ms: i64) -> Result<[UsageCounters; 10], StoreError> {
        let begin = now_ms - now_ms.rem_euclid(MINUTE_MS) - 9 * MINUTE_MS;
        let minutes: Vec<Minute> = with_read!(self.0.pool(), |db| {
            sqlx::query_as(MINUTES).bind(begin).bind(begin + 10 * MINUTE_MS).fetch_all(&mut *db).await?
        });
        let mut buckets = [UsageCounters::default(); 10];
        for minute in minutes {
            if let Some(bucket) = usize::try_from(minute.minute).ok().and_then(|at| buckets.get_mut(at)) {
                *bucket = minute.counters.into();
            }
        }
        Ok(buckets)
    }

    /// How many requests of each client key reached a provider in the running UTC day.
    pub async fn requests_today(&self, now_ms: i64) -> Result<Vec<(ApiKeyId, i64)>, StoreError> {
        let rows: Vec<(String, i64)> = with_read!(self.0.pool(), |db| {
            sqlx::query_as(TODAY).bind(now_ms - now_ms.rem_euclid(DAY_MS)).fetch_all(&mut *db).await?
        });
        Ok(rows.into_iter().map(|(key, requests)| (key.as_str().into(), requests)).collect())
    }

    /// What one account used since a time.
    pub async fn of_connection_since(
        &self,
        id: &ConnectionId,
        since_ms: i64,
    ) -> Result<UsageCounters, StoreError> {
        let edges = Edges::of(Some(since_ms));
        let sums: Sums = with_read!(self.0.pool(), |db| {
            sqlx::query_as(OF_CONNECTION)
                .bind(edges.begin)
                .bind(edges.first_minute)
                .bind(edges.first_hour)
                .bind(edges.first_day)
                .bind(id.as_str())
                .fetch_one(&mut *db)
                .await?
        });
        Ok(sums.into())
    }

    /// What one account used lately.
    pub async fn by_connection(&self, id: &ConnectionId, now_ms: i64) -> Result<ConnectionUsage, StoreError> {
        let (day, month): (Sums, Sums) = with_snapshot!(self.0.pool(), |db| {
            let mut both = Vec::with_capacity(2);
            for period in [Period::Day, Period::Month] {
                let edges = Edges::of(period.since(now_ms));
                let sums: Sums = sqlx::query_as(OF_CONNECTION)
                    .bind(edges.begin)
                    .bind(edges.first_minute)
                    .bind(edges.first_hour)
                    .bind(edges.first_day)
                    .bind(id.as_str())
                    .fetch_one(&mut *db)
                    .await?;
                both.push(sums);
            }
            (both[0], both[1])
        });
        Ok(ConnectionUsage { last_day: day.into(), last_month: month.into() })
    }
}

/// Where single rows end and whole minutes, then whole hours, then whole days begin.
pub(crate) struct Edges {
    pub(crate) begin: i64,
    pub(crate) first_minute: i64,
    pub(crate) first_hour: i64,
    pub(crate) first_day: i64,
}

impl Edges {
    pub(crate) fn of(since: Option<i64>) -> Self {
        let begin = since.unwrap_or(0);
        let up = |step: i64| begin + (step - begin.rem_euclid(step)) % step;
        Self { begin, first_minute: up(MINUTE_MS), first_hour: up(HOUR_MS), first_day: up(DAY_MS) }
    }
}

#[derive(Debug, Clone, Copy, sqlx::FromRow)]
pub(crate) struct Sums {
    requests: i64,
    errors: i64,
    prompt_tokens: i64,
    completion_tokens: i64,
    cached_tokens: i64,
    cache_creation_tokens: i64,
    reasoning_tokens: i64,
    estimated: i64,
    cost_nano: i64,
    unpriced: i64,
    latency_sum_ms: i64,
    last_used_at: i64,
}

impl From<Sums> for UsageCounters {
    fn from(sums: Sums) -> Self {
        Self {
            requests: sums.requests,
            errors: sums.errors,
            prompt_tokens: sums.prompt_tokens,
            completion_tokens: sums.completion_tokens,
            cached_tokens: sums.cached_tokens,
            cache_creation_tokens: sums.cache_creation_tokens,
            reasoning_tokens: sums.reasoning_tokens,
            estimated: sums.estimated,
            cost_nano: sums.cost_nano,
            unpriced: sums.unpriced,
            latency_sum_ms: sums.latency_sum_ms,
            last_used_at: sums.last_used_at,
        }
    }
}

#[derive(sqlx::FromRow)]
struct Group {
    provider: String,
    model: String,
    connection_id: String,
    api_key_id: String,
    connection_name: String,
    api_key_name: String,
    #[sqlx(flatten)]
    counters: Sums,
}

#[derive(sqlx::FromRow)]
struct Minute {
    minute: i64,
    #[sqlx(flatten)]
    counters: Sums,
}

fn fold(groups: Vec<Group>) -> UsageHistory {
    let mut total = UsageCounters::default();
    let mut by_provider: BTreeMap<String, UsageCounters> = BTreeMap::new();
    let mut by_model: BTreeMap<(String, String), UsageCounters> = BTreeMap::new();
    let mut by_account: BTreeMap<(String, String, String), (String, UsageCounters)> = BTreeMap::new();
    let mut by_api_key: BTreeMap<String, (String, UsageCounters)> = BTreeMap::new();
    for group in groups {
        let counters = UsageCounters::from(group.counters);
        total.add(&counters);
        by_provider.entry(group.provider.clone()).or_default().add(&counters);
        by_model.entry((group.model.clone(), group.provider.clone())).or_default().add(&counters);
        let latest = |known: &mut (String, UsageCounters), name: String| {
            if counters.last_used_at >= known.1.last_used_at {
                known.0 = name;
            }
            known.1.add(&counters);
        };
        let account = by_account.entry((group.model, group.provider, group.connection_id)).or_default();
        latest(account, group.connection_name);
        if !group.api_key_id.is_empty() {
            latest(by_api_key.entry(group.api_key_id).or_default(), group.api_key_name);
        }
    }
    UsageHistory {
        total,
        by_provider: by_provider
            .into_iter()
            .map(|(provider, counters)| ProviderUsage { provider, counters })
            .collect(),
        by_model: by_model
            .into_iter()
            .map(|((model, provider), counters)| ModelUsage { model, provider, counters })
            .collect(),
        by_account: by_account
            .into_iter()
            .map(|((model, provider, connection_id), (account_name, counters))| AccountUsage {
                model,
                provider,
                connection_id,
                account_name,
                counters,
            })
            .collect(),
        by_api_key: by_api_key
            .into_iter()
            .map(|(api_key_id, (api_key_name, counters))| ApiKeyUsage { api_key_id, api_key_name, counters })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_is_cut_at_whole_minutes_hours_and_days() {
        let cut = |since| {
            let Edges { begin, first_minute, first_hour, first_day } = Edges::of(since);
            [begin, first_minute, first_hour, first_day]
        };
        let after = DAY_MS + 1;
        assert_eq!(cut(Some(after)), [after, DAY_MS + MINUTE_MS, DAY_MS + HOUR_MS, 2 * DAY_MS]);
        assert_eq!(cut(Some(DAY_MS)), [DAY_MS; 4]);
        assert_eq!(cut(None), [0; 4]);
    }

    #[test]
    fn periods_are_read_back() {
        for text in ["1h", "24h", "7d", "30d", "90d", "all"] {
            assert_eq!(Period::parse(text).map(Period::as_str), Some(text));
        }
        assert_eq!(Period::parse("1y"), None);
    }
}
