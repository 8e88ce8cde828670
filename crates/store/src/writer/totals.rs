//! Usage added up in memory until it is written. Bounded by the number of different keys, never dropped.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use foldhash::fast::RandomState;
use omniroute_dialect::ir::Usage;
use omniroute_domain::entity::{ApiKeyId, ConnectionId};
use omniroute_engine::ports::RequestRow;
use omniroute_provider::ProviderId;

use super::kinds::{KindKey, KindTotal, Kinds};
use crate::text::{clip_shared, signed};
use crate::usage::{HOUR_MS, MINUTE_MS};

/// More different keys than this between two flushes are counted by the hour, and then under one model name.
const MAX_KEYS: usize = 4096;
/// That name.
const OTHER_MODEL: &str = "(other)";
/// Longest model name in the summaries.
const MAX_MODEL: usize = 256;

/// Sums by minute, provider, model, account and client key; and by minute and kind of request.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    sums: HashMap<TotalKey, Total, RandomState>,
    kinds: Kinds,
}

/// What is counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TotalKey {
    /// Begin of the minute.
    pub(crate) minute: i64,
    /// Provider.
    pub(crate) provider: ProviderId,
    /// Upstream model.
    pub(crate) model: Arc<str>,
    /// Account.
    pub(crate) connection: Option<ConnectionId>,
    /// Client key.
    pub(crate) api_key: Option<ApiKeyId>,
}

/// The sums of one key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Total {
    pub(crate) connection_name: Option<Arc<str>>,
    pub(crate) api_key_name: Option<Arc<str>>,
    pub(crate) requests: i64,
    pub(crate) successes: i64,
    pub(crate) tokens_input: i64,
    pub(crate) tokens_output: i64,
    pub(crate) tokens_cache_read: i64,
    pub(crate) tokens_cache_creation: i64,
    pub(crate) tokens_reasoning: i64,
    pub(crate) estimated: i64,
    pub(crate) cost_nano: i64,
    pub(crate) unpriced: i64,
    pub(crate) latency_sum_ms: i64,
    pub(crate) last_used_at: i64,
}

impl Totals {
    /// Counts a request, if it reached a provider: it is one of the account that was asked last. What other accounts made
    /// for it is theirs.
    pub(crate) fn add(&mut self, row: &RequestRow) {
        let Some(provider) = &row.provider else { return };
        let timestamp_ms = row.id.timestamp_ms();
        let key = TotalKey {
            minute: timestamp_ms - timestamp_ms.rem_euclid(MINUTE_MS),
            provider: provider.clone(),
            model: clip_shared(&row.model, MAX_MODEL),
            connection: row.connection.clone(),
            api_key: row.api_key.clone(),
        };
        let mut one = Total {
            connection_name: row.connection_name.clone(),
            api_key_name: row.api_key_name.clone(),
            requests: 1,
            successes: i64::from(is_success(row)),
            estimated: i64::from(row.usage_estimated),
            cost_nano: known_cost(row),
            unpriced: i64::from(row.cost_nano.is_none()),
            latency_sum_ms: row.duration_ms,
            last_used_at: timestamp_ms,
            ..Total::of(&row.usage)
        };
        self.kinds.add((key.minute, row.request_type), one.clone(), row.units.as_deref());
        let others = row.attempts.split_last().map_or(&[][..], |(_, others)| others);
        for other in others.iter().filter(|other| other.usage.is_known() || other.cost_nano.is_some()) {
            let theirs = Total {
                connection_name: Some(other.connection_name.clone()),
                api_key_name: row.api_key_name.clone(),
                cost_nano: other.cost_nano.unwrap_or(0),
                last_used_at: timestamp_ms,
                ..Total::of(&other.usage)
            };
            one.lose(&theirs);
            let key = TotalKey {
                provider: other.provider.clone(),
                model: clip_shared(&other.model, MAX_MODEL),
                connection: Some(other.connection.clone()),
                ..key.clone()
            };
            self.merge(key, theirs);
        }
        self.merge(key, one);
    }

    /// Takes over everything another one counted.
    pub(crate) fn absorb(&mut self, other: Self) {
        for (key, total) in other.sums {
            self.merge(key, total);
        }
        self.kinds.absorb(other.kinds);
    }

    /// Whether there is nothing to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.sums.is_empty()
    }

    /// Forgets what was written.
    pub(crate) fn clear(&mut self) {
        self.sums.clear();
        self.sums.shrink_to(64);
        self.kinds.clear();
    }

    /// Everything, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&TotalKey, &Total)> {
        self.sums.iter()
    }

    /// Everything in buckets of a width, each row of the table once, in the order of the table's key: all writers take
    /// rows in this order, so that they cannot lock each other out. The minute of the key is one of several.
    pub(crate) fn by_bucket(&self, width: i64) -> Vec<((i64, &TotalKey), Total)> {
        let place = |key: &TotalKey| key.minute - key.minute.rem_euclid(width);
        let mut all: Vec<_> = self.sums.iter().map(|(key, total)| ((place(key), key), total)).collect();
        all.sort_unstable_by(|((a_bucket, a), _), ((b_bucket, b), _)| {
            a_bucket.cmp(b_bucket).then_with(|| a.beside_time().cmp(&b.beside_time()))
        });
        let mut merged: Vec<((i64, &TotalKey), Total)> = Vec::with_capacity(all.len());
        for ((bucket, key), total) in all {
            match merged.last_mut() {
                Some(((known, of), sum)) if *known == bucket && of.beside_time() == key.beside_time() => {
                    sum.merge(total.clone());
                }
                _ => merged.push(((bucket, key), total.clone())),
            }
        }
        merged
    }

    /// The same by kind.
    pub(crate) fn kinds_by_bucket(&self, width: i64) -> BTreeMap<KindKey, KindTotal> {
        self.kinds.by_bucket(width)
    }

    fn merge(&mut self, mut key: TotalKey, total: Total) {
        if self.sums.len() >= MAX_KEYS && !self.sums.contains_key(&key) {
            // A database that cannot be written for hours: the first minute of an hour then stands for all of it.
            key.minute -= key.minute.rem_euclid(HOUR_MS);
            if !self.sums.contains_key(&key) {
                key.model = OTHER_MODEL.into();
            }
        }
        self.sums.entry(key).or_default().merge(total);
    }
}

impl TotalKey {
    /// What is counted apart within a bucket.
    fn beside_time(&self) -> (&ProviderId, &str, Option<&ConnectionId>, Option<&ApiKeyId>) {
        (&self.provider, &self.model, self.connection.as_ref(), self.api_key.as_ref())
    }
}

impl Total {
    /// The tokens of a usage, and nothing else.
    fn of(usage: &Usage) -> Self {
        let count = |tokens: Option<u64>| signed(tokens.unwrap_or(0));
        Self {
            tokens_input: count(usage.input_total()),
            tokens_output: count(usage.output_total),
            tokens_cache_read: count(usage.cache_read),
            tokens_cache_creation: count(cache_creation(usage)),
            tokens_reasoning: count(usage.reasoning),
            ..Self::default()
        }
    }

    /// Takes off what another account made.
    fn lose(&mut self, other: &Self) {
        self.tokens_input -= other.tokens_input;
        self.tokens_output -= other.tokens_output;
        self.tokens_cache_read -= other.tokens_cache_read;
        self.tokens_cache_creation -= other.tokens_cache_creation;
        self.tokens_reasoning -= other.tokens_reasoning;
        self.cost_nano -= other.cost_nano;
    }

    pub(super) fn merge(&mut self, other: Self) {
        if other.last_used_at >= self.last_used_at {
            self.last_used_at = other.last_used_at;
            self.connection_name = other.connection_name;
            self.api_key_name = other.api_key_name;
        }
        self.requests = self.requests.saturating_add(other.requests);
        self.successes = self.successes.saturating_add(other.successes);
        self.tokens_input = self.tokens_input.saturating_add(other.tokens_input);
        self.tokens_output = self.tokens_output.saturating_add(other.tokens_output);
        self.tokens_cache_read = self.tokens_cache_read.saturating_add(other.tokens_cache_read);
        self.tokens_cache_creation = self.tokens_cache_creation.saturating_add(other.tokens_cache_creation);
        self.tokens_reasoning = self.tokens_reasoning.saturating_add(other.tokens_reasoning);
        self.estimated = self.estimated.saturating_add(other.estimated);
        self.cost_nano = self.cost_nano.saturating_add(other.cost_nano);
        self.unpriced = self.unpriced.saturating_add(other.unpriced);
        self.latency_sum_ms = self.latency_sum_ms.saturating_add(other.latency_sum_ms);
    }
}

/// Whether the client got what it asked for.
fn is_success(row: &RequestRow) -> bool {
    row.status < 400 && row.error.is_none() && row.error_code.is_none()
}

/// What is known of the cost, as the ledger has it.
fn known_cost(row: &RequestRow) -> i64 {
    match row.cost_nano {
        Some(cost) => cost,
        None => row.bills.iter().filter_map(|bill| bill.amount_nano).fold(0, i64::saturating_add),
    }
}

/// Prompt tokens written to caches of any duration.
pub(crate) fn cache_creation(usage: &Usage) -> Option<u64> {
    match (usage.cache_write, usage.cache_write_1h) {
        (None, None) => None,
        (short, long) => Some(short.unwrap_or(0).saturating_add(long.unwrap_or(0))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::DAY_MS;

    fn key(minute: i64, provider: &str, model: &str) -> TotalKey {
        TotalKey {
            minute: minute * MINUTE_MS,
            provider: provider.into(),
            model: model.into(),
            connection: None,
            api_key: None,
        }
    }

    #[test]
    fn rows_of_a_table_are_taken_once_and_in_the_order_of_their_keys() {
        let mut totals = Totals::default();
        let one = Total { requests: 1, ..Total::default() };
        for key in [key(61, "a", "m"), key(1, "b", "m"), key(2, "a", "n"), key(3, "b", "m"), key(0, "a", "m")]
        {
            totals.merge(key, one.clone());
        }
        let rows = |width: i64| -> Vec<(i64, String, String, i64)> {
            let rows = totals.by_bucket(width).into_iter();
            rows.map(|((bucket, key), total)| {
                (bucket / MINUTE_MS, key.provider.to_string(), key.model.to_string(), total.requests)
            })
            .collect()
        };
        let row = |bucket, provider: &str, model: &str, requests| {
            (bucket, provider.to_owned(), model.to_owned(), requests)
        };
        let minutes = [
            row(0, "a", "m", 1),
            row(1, "b", "m", 1),
            row(2, "a", "n", 1),
            row(3, "b", "m", 1),
            row(61, "a", "m", 1),
        ];
        assert_eq!(rows(MINUTE_MS), minutes);
        let hours = [row(0, "a", "m", 1), row(0, "a", "n", 1), row(0, "b", "m", 2), row(60, "a", "m", 1)];
        assert_eq!(rows(HOUR_MS), hours);
        assert_eq!(rows(DAY_MS), [row(0, "a", "m", 2), row(0, "a", "n", 1), row(0, "b", "m", 2)]);
    }
}
