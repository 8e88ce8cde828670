//! Breakers of providers and locks of models, for the time after a restart. Only ever read when a process starts.

use std::sync::Arc;

use futures_util::TryStreamExt as _;
use omniroute_domain::breaker::{BreakerRecord, BreakerState};
use omniroute_domain::health::ModelLock;
use omniroute_engine::ports::LockRow;
use omniroute_provider::FailureKind;
use serde::{Deserialize, Serialize};

use crate::error::StoreError;
use crate::pool::{with_read, with_write};
use crate::store::Store;
use crate::text::{from_json, to_json};
use crate::usage::DAY_MS;

/// Most locks that are kept; those that end first go first.
const MAX_LOCKS: i64 = 20_000;
/// Most breakers that are read.
const MAX_BREAKERS: i64 = 10_000;
/// Breakers that have not changed for so long say nothing any more.
const STALE_MS: i64 = 7 * DAY_MS;

pub(crate) const UPSERT_BREAKER: &str = "INSERT INTO domain_circuit_breakers AS b
     (name, state, failure_count, last_failure_time, options, changed_at) VALUES ($1, $2, $3, $4, $5, $6)
     ON CONFLICT (name) DO UPDATE SET state = excluded.state, failure_count = excluded.failure_count,
     last_failure_time = excluded.last_failure_time, options = excluded.options, changed_at = excluded.changed_at
     WHERE b.changed_at <= excluded.changed_at";
pub(crate) const UPSERT_LOCK: &str = "INSERT INTO model_lockouts
     (provider, connection_id, model, reason, until, failure_count, locked_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7)
     ON CONFLICT (connection_id, model) DO UPDATE SET provider = excluded.provider, reason = excluded.reason,
     until = excluded.until, failure_count = excluded.failure_count, locked_at = excluded.locked_at";
pub(crate) const UNLOCK: &str = "DELETE FROM model_lockouts WHERE connection_id = $1 AND model = $2";
pub(crate) const FORGET_LOCKS: &str = "DELETE FROM model_lockouts WHERE connection_id = $1";
pub(crate) const MOVE_LOCKS: &str = "UPDATE model_lockouts SET connection_id = $2 WHERE connection_id = $1";
pub(crate) const FORGET_CONNECTION: &str =
    "DELETE FROM model_lockouts WHERE connection_id = $1 OR connection_id LIKE $1 || '#%'";

/// Access to breakers and locks.
#[derive(Debug, Clone, Copy)]
pub struct Resilience<'a>(pub(crate) &'a Store);

/// What a breaker's row holds beside its columns.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Options {
    open_until: Option<i64>,
    span_ms: i64,
    failed_probes: u32,
    cause: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<Arc<str>>,
    /// Failures by model.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    of_models: Vec<(Arc<str>, u32)>,
}

/// The text of the options of a breaker.
pub(crate) fn options(record: &BreakerRecord) -> Result<String, StoreError> {
    to_json(&Options {
        open_until: record.open_until,
        span_ms: record.span_ms,
        failed_probes: record.failed_probes,
        cause: record.cause.map(|cause| cause.as_str().to_owned()),
        model: record.model.clone(),
        of_models: record.of_models.clone(),
    })
}

impl Resilience<'_> {
    /// Hands over the breakers that were not closed. A row that cannot be read is left out and told to the log.
    pub async fn breakers(&self, mut take: impl FnMut(BreakerRecord)) -> Result<(), StoreError> {
        const SELECT: &str = "SELECT name, state, failure_count, last_failure_time, options, changed_at
             FROM domain_circuit_breakers WHERE state <> 'CLOSED' ORDER BY changed_at DESC LIMIT $1";
        with_read!(self.0.pool(), |db| {
            let mut rows = sqlx::query_as::<_, (String, String, i64, Option<i64>, String, i64)>(SELECT)
                .bind(MAX_BREAKERS)
                .fetch(&mut *db);
            while let Some((name, state, failures, last_failure, options, changed_at)) =
                rows.try_next().await?
            {
                let Some(state) = BreakerState::of_word(&state) else {
                    tracing::warn!(name, state, "a stored breaker has an unknown state; it starts closed");
                    continue;
                };
                let options: Options = match from_json("domain_circuit_breakers.options", &options) {
                    Ok(options) => options,
                    Err(message) => {
                        tracing::warn!(name, message, "a stored breaker cannot be read; it starts closed");
                        continue;
                    }
                };
                take(BreakerRecord {
                    name: name.into(),
                    state,
                    failure_count: u32::try_from(failures).unwrap_or(0),
                    last_failure,
                    cause: options.cause.as_deref().and_then(FailureKind::of_word),
                    open_until: options.open_until,
                    span_ms: options.span_ms,
                    failed_probes: options.failed_probes,
                    model: options.model,
                    of_models: options.of_models,
                    changed_at,
                });
            }
        });
        Ok(())
    }

    /// Hands over the locks that have not ended.
    pub async fn locks(&self, now_ms: i64, mut take: impl FnMut(LockRow)) -> Result<(), StoreError> {
        const SELECT: &str = "SELECT provider, connection_id, model, reason, until, failure_count, locked_at
             FROM model_lockouts WHERE until > $1 ORDER BY until DESC LIMIT $2";
        with_read!(self.0.pool(), |db| {
            let mut rows = sqlx::query_as::<_, (String, String, String, String, i64, i64, i64)>(SELECT)
                .bind(now_ms)
                .bind(MAX_LOCKS)
                .fetch(&mut *db);
            while let Some((provider, connection, model, reason, until, count, locked_at)) =
                rows.try_next().await?
            {
                take(LockRow {
                    provider: provider.into(),
                    connection: connection.into(),
                    lock: ModelLock {
                        model,
                        reason: FailureKind::of_word(&reason).unwrap_or(FailureKind::Unknown),
                        until,
                        failure_count: u32::try_from(count).unwrap_or(1),
                        locked_at,
                    },
                });
            }
        });
        Ok(())
    }

    /// Deletes what has ended, what says nothing any more, and what there is too much of.
    pub(crate) async fn trim(&self, now_ms: i64) -> Result<u64, StoreError> {
        Ok(with_write!(self.0.pool(), |db| {
            let mut deleted = 0;
            for (sql, value) in [
                ("DELETE FROM model_lockouts WHERE until <= $1", now_ms),
                (
                    "DELETE FROM model_lockouts WHERE until <=
                     (SELECT until FROM model_lockouts ORDER BY until DESC LIMIT 1 OFFSET $1)",
                    MAX_LOCKS,
                ),
                (
                    "DELETE FROM domain_circuit_breakers WHERE state = 'CLOSED' AND changed_at <= $1",
                    now_ms.saturating_sub(DAY_MS),
                ),
                (
                    "DELETE FROM domain_circuit_breakers WHERE changed_at <= $1",
                    now_ms.saturating_sub(STALE_MS),
                ),
            ] {
                deleted += sqlx::query(sql).bind(value).execute(&mut *db).await?.rows_affected();
            }
            deleted
        }))
    }
}
