//! What requests cost, on its way to the ledger; and what happened to budgets.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use omniroute_dialect::ir::Tier;
use omniroute_domain::entity::ApiKeyId;
use omniroute_engine::ports::{BillRow, RequestRow};

use super::sql::Batch;
use crate::text::{clip_shared, named};

pub(crate) const COLUMNS: [&str; 12] = [
    "request_id",
    "attempt",
    "api_key_id",
    "kind",
    "amount_nano",
    "price_source",
    "price_version",
    "provider",
    "model",
    "estimated",
    "tokens",
    "timestamp",
];

const MAX_NAME: usize = 256;
/// Stands for several bills whose requests were too many to be listed.
pub(crate) const SUMMED: &str = "summed";

/// A row of the ledger.
pub(crate) struct Entry {
    pub(crate) request_id: Arc<str>,
    /// Which of the attempts; how many bills where there are several in one row.
    pub(crate) attempt: i64,
    pub(crate) api_key: Option<Arc<str>>,
    pub(crate) kind: &'static str,
    pub(crate) amount_nano: Option<i64>,
    pub(crate) price_source: Option<&'static str>,
    pub(crate) price_version: Option<Arc<str>>,
    pub(crate) provider: Arc<str>,
    pub(crate) model: Arc<str>,
    pub(crate) estimated: bool,
    pub(crate) tokens: Option<Arc<str>>,
    pub(crate) timestamp: i64,
}

/// Binds the 12 columns of a row.
macro_rules! bind_entry {
    ($query:expr, $entry:expr, $words:expr) => {{
        let entry: &$crate::writer::ledger::Entry = $entry;
        $query
            .bind(std::sync::Arc::clone(&entry.request_id))
            .bind(entry.attempt)
            .bind(entry.api_key.clone())
            .bind($words.shared(entry.kind))
            .bind(entry.amount_nano)
            .bind(entry.price_source.map(|source| $words.shared(source)))
            .bind(entry.price_version.clone())
            .bind(std::sync::Arc::clone(&entry.provider))
            .bind(std::sync::Arc::clone(&entry.model))
            .bind(entry.estimated)
            .bind(entry.tokens.clone())
            .bind(entry.timestamp)
    }};
}

/// Writes down what happened to a budget: a reset among the resets, the rest in the audit log.
macro_rules! write_event {
    ($db:ident, $event:expr) => {{
        use omniroute_domain::budget::{EventKind, dollars};
        let event: &omniroute_domain::budget::Event = $event;
        let key = event.key.as_ref().map_or($crate::budgets::EVERYBODY, |key| key.as_str());
        let audited = match &event.kind {
            EventKind::Reset { spent_nano, old, new } => {
                sqlx::query(
                    "INSERT INTO domain_budget_reset_logs (api_key_id, reset_interval, previous_spend_nano, reset_at,
                     next_reset_at, period_start, period_end) VALUES ($1, $2, $3, $4, $5, $6, $7)",
                )
                .bind(key)
                .bind(event.window.as_str())
                .bind(*spent_nano)
                .bind(event.at_ms)
                .bind(new.end_ms)
                .bind(old.start_ms)
                .bind(old.end_ms)
                .execute(&mut *$db)
                .await?;
                let window = event.window.as_str();
                ("budget.reset", format!("{window}: {} were spent", dollars(*spent_nano)))
            }
            EventKind::Warning { spent_nano, limit_nano } => {
                let (spent, limit) = (dollars(*spent_nano), dollars(*limit_nano));
                ("budget.warning", format!("{}: {spent} of {limit}", event.window.as_str()))
            }
            EventKind::Exceeded { spent_nano, limit_nano } => {
                let (spent, limit) = (dollars(*spent_nano), dollars(*limit_nano));
                ("budget.exceeded", format!("{}: {spent} of {limit}", event.window.as_str()))
            }
        };
        let (action, note) = audited;
        sqlx::query(
            "INSERT INTO audit_log (timestamp, action, actor, target, resource_type, status, details)
             VALUES ($1, $2, 'system', $3, 'budget', 'success', $4)",
        )
        .bind(event.at_ms)
        .bind(action)
        .bind(key)
        .bind($crate::text::to_json(&std::collections::BTreeMap::from([("note", note)]))?)
        .execute(&mut *$db)
        .await?;
    }};
}

pub(crate) use {bind_entry, write_event};

/// Every row that a batch adds to the ledger.
pub(crate) fn entries(batch: &Batch) -> Vec<Entry> {
    let listed = batch.rows.iter().flat_map(|row| row.bills.iter().map(move |bill| Entry::of(row, bill)));
    listed.chain(batch.unlisted.entries()).collect()
}

impl Entry {
    fn of(row: &RequestRow, bill: &BillRow) -> Self {
        Self {
            request_id: clip_shared(&row.request_id, MAX_NAME),
            attempt: i64::from(bill.attempt),
            api_key: row.api_key.as_ref().map(Arc::from),
            kind: if bill.is_saved { "saved" } else { "settle" },
            amount_nano: bill.amount_nano,
            price_source: bill.price_source,
            price_version: bill.price_version.clone(),
            provider: Arc::from(&bill.provider),
            model: clip_shared(&bill.model, MAX_NAME),
            estimated: bill.estimated,
            tokens: tokens(bill).map(Arc::from),
            timestamp: bill.settled_ms,
        }
    }
}

/// Tokens by their names in the API, those that were told; what was used beside them; and in which tier, if it is not the
/// usual one.
fn tokens(bill: &BillRow) -> Option<String> {
    let usage = &bill.usage;
    let tokens = [
        ("input", usage.input_total()),
        ("cacheRead", usage.cache_read),
        ("cacheWrite", usage.cache_write),
        ("cacheWrite1h", usage.cache_write_1h),
        ("audioIn", usage.audio_input),
        ("output", usage.output_total),
        ("reasoning", usage.reasoning),
        ("audioOut", usage.audio_output),
    ];
    let told = tokens.into_iter().filter_map(|(name, count)| Some((name, count?)));
    let mut tokens = named(told.chain(bill.units.as_deref().into_iter().flat_map(|units| units.named())))?;
    if let Some(tier) = usage.tier.and_then(Tier::as_str) {
        tokens.insert_str(tokens.len() - 1, &format!(r#","serviceTier":"{tier}""#));
    }
    Some(tokens)
}

/// Bills of requests that are not listed one by one: the queue was full, or the database refused the row. Money is not
/// shed: it is summed up by key. Bounded by the number of keys.
#[derive(Debug, Default)]
pub(crate) struct Unlisted {
    sums: HashMap<Option<ApiKeyId>, Sum, RandomState>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Sum {
    bills: i64,
    /// Those of them whose amount is not known.
    unknown: i64,
    amount_nano: i64,
    timestamp: i64,
}

impl Unlisted {
    pub(crate) fn add(&mut self, row: &RequestRow) {
        // What was saved moves no balance: it is shed with the row that tells of it.
        for bill in row.bills.iter().filter(|bill| !bill.is_saved) {
            let one = Sum {
                bills: 1,
                unknown: i64::from(bill.amount_nano.is_none()),
                amount_nano: bill.amount_nano.unwrap_or(0),
                timestamp: bill.settled_ms,
            };
            self.sums.entry(row.api_key.clone()).or_default().add(&one);
        }
    }

    pub(crate) fn absorb(&mut self, other: Self) {
        for (key, sum) in other.sums {
            self.sums.entry(key).or_default().add(&sum);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sums.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.sums.clear();
    }

    fn entries(&self) -> impl Iterator<Item = Entry> {
        self.sums.iter().map(|(key, sum)| Entry {
            request_id: Arc::default(),
            attempt: sum.bills,
            api_key: key.as_ref().map(Arc::from),
            kind: "settle",
            amount_nano: (sum.unknown < sum.bills).then_some(sum.amount_nano),
            price_source: Some(SUMMED),
            price_version: None,
            provider: Arc::default(),
            model: Arc::default(),
            estimated: false,
            tokens: None,
            timestamp: sum.timestamp,
        })
    }
}

impl Sum {
    fn add(&mut self, other: &Self) {
        self.bills += other.bills;
        self.unknown += other.unknown;
        self.amount_nano = self.amount_nano.saturating_add(other.amount_nano);
        self.timestamp = self.timestamp.max(other.timestamp);
    }
}
