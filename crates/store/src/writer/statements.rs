//! The texts of what the writer sends, and how many rows become few statements.

use std::fmt::Write as _;
use std::sync::Arc;

use sqlx::query::Query;
use sqlx::{Arguments as _, AssertSqlSafe, Database, IntoArguments};

use super::ledger;
use crate::decisions;
use crate::pool::Pool;
use crate::usage::{DAY_MS, HOUR_MS, MINUTE_MS};

/// Rows per insert: each size is prepared once, and a batch is cut into the fewest of them.
const SIZES: [usize; 3] = [32, 8, 1];

pub(super) const CALL_LOG_COLUMNS: [&str; 43] = [
    "id",
    "timestamp",
    "request_id",
    "method",
    "path",
    "status",
    "model",
    "requested_model",
    "provider",
    "account",
    "connection_id",
    "api_key_id",
    "api_key_name",
    "source_format",
    "target_format",
    "stream",
    "duration",
    "ttft",
    "overhead_us",
    "tokens_in",
    "tokens_out",
    "tokens_cache_read",
    "tokens_cache_creation",
    "tokens_reasoning",
    "estimated",
    "cost_nano",
    "price_source",
    "price_version",
    "attempts",
    "attempt_details",
    "error_summary",
    "error_code",
    "losses",
    "cache_source",
    "combo_name",
    "combo_step_id",
    "request_type",
    "units",
    "saved_nano",
    "cache_similarity",
    "bodies",
    "bodies_at",
    "service_tier",
];

macro_rules! upsert {
    ($table:literal) => {
        concat!(
            "INSERT INTO ",
            $table,
            " AS t (bucket, provider, model, connection_id, api_key_id, connection_name, api_key_name, requests, \
             successes, tokens_input, tokens_output, tokens_cache_read, tokens_cache_creation, tokens_reasoning, \
             estimated, cost_nano, unpriced, latency_sum_ms, last_used_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19) \
             ON CONFLICT (bucket, provider, model, connection_id, api_key_id) DO UPDATE SET \
             connection_name = excluded.connection_name, api_key_name = excluded.api_key_name, \
             requests = t.requests + excluded.requests, successes = t.successes + excluded.successes, \
             tokens_input = t.tokens_input + excluded.tokens_input, \
             tokens_output = t.tokens_output + excluded.tokens_output, \
             tokens_cache_read = t.tokens_cache_read + excluded.tokens_cache_read, \
             tokens_cache_creation = t.tokens_cache_creation + excluded.tokens_cache_creation, \
             tokens_reasoning = t.tokens_reasoning + excluded.tokens_reasoning, \
             estimated = t.estimated + excluded.estimated, cost_nano = t.cost_nano + excluded.cost_nano, \
             unpriced = t.unpriced + excluded.unpriced, \
             latency_sum_ms = t.latency_sum_ms + excluded.latency_sum_ms, \
             last_used_at = CASE WHEN excluded.last_used_at > t.last_used_at THEN excluded.last_used_at \
             ELSE t.last_used_at END"
        )
    };
}

/// Sums, by the width of their table's buckets.
pub(super) const UPSERTS: [(&str, i64); 3] = [
    (upsert!("minute_usage_summary"), MINUTE_MS),
    (upsert!("hourly_usage_summary"), HOUR_MS),
    (upsert!("daily_usage_summary"), DAY_MS),
];

/// Sums by kind of request.
pub(super) const KIND_UPSERT: &str = "INSERT INTO kind_usage_summary AS t (step_ms, bucket, request_type, requests, successes, \
     tokens_input, tokens_output, tokens_cache_read, tokens_cache_creation, tokens_reasoning, estimated, cost_nano, \
     unpriced, latency_sum_ms, last_used_at, images, millis_in, millis_out, characters, queries) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20) \
     ON CONFLICT (step_ms, bucket, request_type) DO UPDATE SET requests = t.requests + excluded.requests, \
     successes = t.successes + excluded.successes, tokens_input = t.tokens_input + excluded.tokens_input, \
     tokens_output = t.tokens_output + excluded.tokens_output, \
     tokens_cache_read = t.tokens_cache_read + excluded.tokens_cache_read, \
     tokens_cache_creation = t.tokens_cache_creation + excluded.tokens_cache_creation, \
     tokens_reasoning = t.tokens_reasoning + excluded.tokens_reasoning, \
     estimated = t.estimated + excluded.estimated, cost_nano = t.cost_nano + excluded.cost_nano, \
     unpriced = t.unpriced + excluded.unpriced, latency_sum_ms = t.latency_sum_ms + excluded.latency_sum_ms, \
     last_used_at = CASE WHEN excluded.last_used_at > t.last_used_at THEN excluded.last_used_at \
     ELSE t.last_used_at END, images = t.images + excluded.images, millis_in = t.millis_in + excluded.millis_in, \
     millis_out = t.millis_out + excluded.millis_out, characters = t.characters + excluded.characters, \
     queries = t.queries + excluded.queries";

/// Prepared texts of the multi-row inserts.
#[derive(Debug)]
pub(crate) struct Statements {
    pub(super) call_logs: [Arc<str>; SIZES.len()],
    pub(super) ledger: [Arc<str>; SIZES.len()],
    pub(super) decisions: [Arc<str>; SIZES.len()],
    pub(super) names: [Arc<str>; SIZES.len()],
    /// Changes nothing where the batch of that number is written already.
    pub(super) mark: &'static str,
}

macro_rules! mark {
    ($now:literal) => {
        concat!(
            "INSERT INTO written_batches AS t (writer, number, written_at) VALUES ($1, $2, ",
            $now,
            ") ON CONFLICT (writer) DO UPDATE SET number = excluded.number, written_at = excluded.written_at \
             WHERE t.number < excluded.number"
        )
    };
}

impl Statements {
    /// The texts for an engine.
    pub(crate) fn new(pool: &Pool) -> Self {
        // SQLite looks named parameters up one by one, which is slow for hundreds of them.
        let numbered = match pool {
            Pool::Sqlite { .. } => false,
            Pool::Postgres(_) => true,
        };
        Self {
            call_logs: SIZES.map(|rows| insert("call_logs", &CALL_LOG_COLUMNS, rows, numbered)),
            ledger: SIZES.map(|rows| insert("cost_ledger", &ledger::COLUMNS, rows, numbered)),
            decisions: SIZES.map(|rows| insert("routing_decisions", &decisions::COLUMNS, rows, numbered)),
            mark: match pool {
                Pool::Sqlite { .. } => mark!("CAST(strftime('%s', 'now') AS INTEGER) * 1000"),
                Pool::Postgres(_) => mark!("CAST(EXTRACT(EPOCH FROM now()) * 1000 AS BIGINT)"),
            },
            names: SIZES.map(|rows| {
                let sql = insert("routing_names", &decisions::NAME_COLUMNS, rows, numbered);
                // A transaction may be tried again that went through after all.
                format!("{sql} ON CONFLICT (page, place) DO NOTHING").into()
            }),
        }
    }
}

/// A statement with room for its rows of so many columns; to grow with each of them costs more than to bind it.
pub(super) fn roomy<'q, DB>(sql: Arc<str>, rows: usize, columns: usize) -> Query<'q, DB, DB::Arguments>
where
    DB: Database,
    DB::Arguments: IntoArguments<DB>,
{
    /// Bytes of most values.
    const USUAL: usize = 24;
    let mut arguments = DB::Arguments::default();
    let count = rows * columns;
    arguments.reserve(count, count * USUAL);
    sqlx::query_with(AssertSqlSafe(sql), arguments)
}

/// Cuts rows into the prepared sizes.
pub(super) fn chunks<'a, T>(
    rows: &'a [T],
    statements: &'a [Arc<str>; SIZES.len()],
) -> Vec<(&'a [T], Arc<str>)> {
    let mut cut = Vec::new();
    let mut rest = rows;
    for (size, sql) in SIZES.iter().zip(statements) {
        while rest.len() >= *size {
            let (chunk, after) = rest.split_at(*size);
            cut.push((chunk, Arc::clone(sql)));
            rest = after;
        }
    }
    cut
}

fn insert(table: &str, columns: &[&str], rows: usize, numbered: bool) -> Arc<str> {
    let mut sql = format!("INSERT INTO {table} ({}) VALUES ", columns.join(", "));
    let mut number = 0;
    for row in 0..rows {
        sql.push_str(if row == 0 { "(" } else { ", (" });
        for column in 0..columns.len() {
            number += 1;
            let comma = if column == 0 { "" } else { ", " };
            let _ = if numbered { write!(sql, "{comma}${number}") } else { write!(sql, "{comma}?") };
        }
        sql.push(')');
    }
    sql.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_cut_into_prepared_sizes() {
        let statements = ["a", "b", "c"].map(Arc::from);
        let rows: Vec<u8> = (0..75).collect();
        let cut = chunks(&rows, &statements);
        let sizes: Vec<usize> = cut.iter().map(|(chunk, _)| chunk.len()).collect();
        assert_eq!(sizes, [32, 32, 8, 1, 1, 1]);
        assert_eq!(cut.iter().flat_map(|(chunk, _)| chunk.iter().copied()).collect::<Vec<_>>(), rows);
    }

    #[test]
    fn parameters_are_numbered_where_the_engine_wants_it() {
        assert_eq!(&*insert("t", &["a", "b"], 2, true), "INSERT INTO t (a, b) VALUES ($1, $2), ($3, $4)");
        assert_eq!(&*insert("t", &["a", "b"], 2, false), "INSERT INTO t (a, b) VALUES (?, ?), (?, ?)");
    }
}
