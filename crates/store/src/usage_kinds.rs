//! What was used, by kind of request (`chat`, `embedding`, `image`, …), with what is billed beside tokens.
//!
//! The summaries are those of `usage`, without accounts and keys; a period is put together in the same way.

use std::collections::BTreeMap;

use crate::error::StoreError;
use crate::pool::with_snapshot;
use crate::usage::{DAY_MS, Edges, HOUR_MS, MINUTE_MS, Period, Sums, Usage, UsageCounters, sums};

/// Counters of a kind of request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KindUsage {
    /// The counters that all kinds have.
    pub counters: UsageCounters,
    /// What was billed beside tokens, by the names of the API (`images`, `millisIn`, …); nothing where there was none.
    pub units: BTreeMap<String, i64>,
}

const SUMMED: &str = concat!(
    "SELECT request_type, ",
    sums!(),
    ", COALESCE(CAST(SUM(images) AS BIGINT), 0) AS images, COALESCE(CAST(SUM(millis_in) AS BIGINT), 0) AS millis_in, \
     COALESCE(CAST(SUM(millis_out) AS BIGINT), 0) AS millis_out, \
     COALESCE(CAST(SUM(characters) AS BIGINT), 0) AS characters, COALESCE(CAST(SUM(queries) AS BIGINT), 0) AS queries \
     FROM kind_usage_summary WHERE (step_ms = $1 AND bucket >= $2) OR (step_ms = $3 AND bucket >= $4 AND bucket < $2) \
     OR (step_ms = $5 AND bucket >= $6 AND bucket < $4) GROUP BY request_type"
);

/// The rest of the minute in which a period begins: what was used beside tokens is text there, and is added up here.
const SINGLE: &str = concat!(
    "SELECT request_type, units, CAST(COUNT(*) AS BIGINT) AS alike, ",
    sums!(),
    " FROM (SELECT COALESCE(request_type, 'chat') AS request_type, units, CAST(1 AS BIGINT) AS requests, \
     CASE WHEN status < 400 AND error_summary IS NULL AND error_code IS NULL THEN 1 ELSE 0 END AS successes, \
     COALESCE(tokens_in, 0) AS tokens_input, COALESCE(tokens_out, 0) AS tokens_output, \
     COALESCE(tokens_cache_read, 0) AS tokens_cache_read, \
     COALESCE(tokens_cache_creation, 0) AS tokens_cache_creation, COALESCE(tokens_reasoning, 0) AS tokens_reasoning, \
     CASE WHEN estimated THEN 1 ELSE 0 END AS estimated, COALESCE(cost_nano, 0) AS cost_nano, \
     CASE WHEN cost_nano IS NULL THEN 1 ELSE 0 END AS unpriced, duration AS latency_sum_ms, \
     timestamp AS last_used_at FROM call_logs WHERE provider IS NOT NULL AND timestamp >= $1 AND timestamp < $2) \
     AS rows_of_a_minute GROUP BY request_type, units"
);

#[derive(sqlx::FromRow)]
struct Summed {
    request_type: String,
    #[sqlx(flatten)]
    counters: Sums,
    images: i64,
    millis_in: i64,
    millis_out: i64,
    characters: i64,
    queries: i64,
}

#[derive(sqlx::FromRow)]
struct Single {
    request_type: String,
    units: Option<String>,
    /// Rows with these very units.
    alike: i64,
    #[sqlx(flatten)]
    counters: Sums,
}

impl Usage<'_> {
    /// Counters over a period that ends now, by kind of request.
    pub async fn by_kind(
        &self,
        period: Period,
        now_ms: i64,
    ) -> Result<BTreeMap<String, KindUsage>, StoreError> {
        let Edges { begin, first_minute, first_hour, first_day } = Edges::of(period.since(now_ms));
        let (summed, single): (Vec<Summed>, Vec<Single>) = with_snapshot!(self.0.pool(), |db| {
            let summed = sqlx::query_as(SUMMED)
                .bind(DAY_MS)
                .bind(first_day)
                .bind(HOUR_MS)
                .bind(first_hour)
                .bind(MINUTE_MS)
                .bind(first_minute)
                .fetch_all(&mut *db)
                .await?;
            let single = sqlx::query_as(SINGLE).bind(begin).bind(first_minute).fetch_all(&mut *db).await?;
            (summed, single)
        });
        let mut kinds: BTreeMap<String, KindUsage> = BTreeMap::new();
        for row in summed {
            let units = [
                ("images", row.images),
                ("millisIn", row.millis_in),
                ("millisOut", row.millis_out),
                ("characters", row.characters),
                ("queries", row.queries),
            ];
            let kind = kinds.entry(row.request_type).or_default();
            kind.add(row.counters, units.map(|(name, amount)| (name.to_owned(), amount)));
        }
        for row in single {
            let units = row.units.and_then(|text| serde_json::from_str::<BTreeMap<String, i64>>(&text).ok());
            let units = units.unwrap_or_default().into_iter();
            let kind = kinds.entry(row.request_type).or_default();
            kind.add(row.counters, units.map(|(name, amount)| (name, amount.saturating_mul(row.alike))));
        }
        Ok(kinds)
    }
}

impl KindUsage {
    fn add(&mut self, counters: Sums, units: impl IntoIterator<Item = (String, i64)>) {
        self.counters.add(&counters.into());
        for (name, amount) in units.into_iter().filter(|(_, amount)| *amount > 0) {
            let sum = self.units.entry(name).or_default();
            *sum = sum.saturating_add(amount);
        }
    }
}
