//! Deletes what is older than it has to be kept, in small steps so that writers never wait long.

use std::sync::Arc;
use std::time::Duration;

use omniroute_domain::entity::RuntimeSettings;
use omniroute_engine::{Live, ports::Clock};
use tokio_util::sync::CancellationToken;

use crate::decisions;
use crate::error::StoreError;
use crate::pool::{with_read, with_write};
use crate::reasoning_memory::MAX_BYTES;
use crate::similar_questions::MAX_BYTES as QUESTION_BYTES;
use crate::store::Store;
use crate::usage::{DAY_MS, HOUR_MS, MINUTE_MS};

/// Rows per transaction.
const STEP: i64 = 2000;
/// Hours are needed to begin a period inside a day; the longest period has 90 days.
const HOURLY_DAYS: i64 = 92;
/// The running month has to be there row by row, since its begin can be moved.
const LEDGER_DAYS: i64 = 92;
/// Failed sign-ins count for minutes only.
const LOCKOUT_DAYS: i64 = 1;
/// A process that wrote nothing for so long has ended, and has no batch whose commit is in doubt.
const BATCH_DAYS: i64 = 7;

/// Not while the gateway starts.
const FIRST: Duration = Duration::from_secs(60);
const EVERY: Duration = Duration::from_secs(3600);
/// What traffic adds is looked at more often: an hour of much of it is many times what the log may have.
const LOGS_EVERY: Duration = Duration::from_secs(60);
/// Kept answers are short-lived.
const ANSWERS_EVERY: Duration = Duration::from_secs(300);

/// What was deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Rows of the request log.
    pub call_logs: u64,
    /// Usage by minute and by hour; that by day stays.
    pub usage_sums: u64,
    /// Audit events.
    pub audit_events: u64,
    /// Files of what was said in requests.
    pub bodies: u64,
    /// Everything else.
    pub other: u64,
}

/// Prunes every hour, by the settings in force, and kept answers every few minutes, until cancelled.
pub async fn keep_house(store: Store, live: Arc<Live>, clock: Arc<dyn Clock>, cancel: CancellationToken) {
    let mut hourly = tokio::time::interval_at(tokio::time::Instant::now() + FIRST, EVERY);
    let mut logs = tokio::time::interval_at(tokio::time::Instant::now() + LOGS_EVERY, LOGS_EVERY);
    let mut answers = tokio::time::interval_at(tokio::time::Instant::now() + ANSWERS_EVERY, ANSWERS_EVERY);
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            _ = answers.tick() => {
                match store.prune_answers(clock.now_ms()).await {
                    Ok(deleted) => tracing::debug!(deleted, "kept answers that expired are deleted"),
                    Err(error) => tracing::warn!(%error, "kept answers that expired cannot be deleted now"),
                }
                continue;
            }
            _ = logs.tick() => {
                let settings = live.load().settings.clone();
                match store.prune_full_logs(clock.now_ms(), &settings).await {
                    Ok(deleted) => tracing::debug!(deleted, "rows that the request log had too many"),
                    Err(error) => tracing::warn!(%error, "the request log cannot be shortened now"),
                }
                continue;
            }
            _ = hourly.tick() => {}
        }
        let settings = live.load().settings.clone();
        match store.prune(clock.now_ms(), &settings).await {
            Ok(Pruned { call_logs, usage_sums, audit_events, bodies, other }) => {
                tracing::debug!(call_logs, usage_sums, audit_events, bodies, other, "old rows deleted");
            }
            Err(error) => tracing::warn!(%error, "old rows cannot be deleted now"),
        }
    }
}

/// Deletes by one condition until nothing is left, counting.
macro_rules! delete_steps {
    ($store:expr, $sql:expr, $($value:expr),+) => {{
        let mut deleted = 0;
        loop {
            let step = with_write!($store.pool(), |db| {
                sqlx::query($sql)$(.bind($value))+.bind(STEP).execute(&mut *db).await?.rows_affected()
            });
            deleted += step;
            if step < STEP.unsigned_abs() {
                break deleted;
            }
        }
    }};
}

/// Deletes all but the newest rows of a table, so many of them, counting. What is too old is found by an index alone: rows are
/// large, and none has to be read to be counted.
macro_rules! delete_beyond {
    ($store:expr, $table:literal, $time:literal, $most:expr) => {{
        let most: i64 = $most;
        let newest_too_many: Option<i64> = with_read!($store.pool(), |db| {
            sqlx::query_scalar(concat!(
                "SELECT ",
                $time,
                " FROM ",
                $table,
                " ORDER BY ",
                $time,
                " DESC LIMIT 1 OFFSET $1"
            ))
            .bind(most)
            .fetch_optional(&mut *db)
            .await?
        });
        let mut deleted = 0;
        if let Some(time) = newest_too_many {
            deleted += delete_steps!(
                $store,
                concat!(
                    "DELETE FROM ",
                    $table,
                    " WHERE seq IN
                     (SELECT seq FROM ",
                    $table,
                    " WHERE ",
                    $time,
                    " < $1 LIMIT $2)"
                ),
                time
            );
            let left: i64 = with_read!($store.pool(), |db| {
                sqlx::query_scalar(concat!("SELECT COUNT(", $time, ") FROM ", $table))
                    .fetch_one(&mut *db)
                    .await?
            });
            // Of the same moment.
            deleted += with_write!($store.pool(), |db| {
                sqlx::query(concat!(
                    "DELETE FROM ",
                    $table,
                    " WHERE seq IN
                     (SELECT seq FROM ",
                    $table,
                    " WHERE ",
                    $time,
                    " = $1 ORDER BY id LIMIT $2)"
                ))
                .bind(time)
                .bind(left.saturating_sub(most).max(0))
                .execute(&mut *db)
                .await?
                .rows_affected()
            });
        }
        deleted
    }};
}

impl Store {
    /// Deletes kept answers and questions that have expired, and of the former those that end first where there are too many.
    pub async fn prune_answers(&self, now_ms: i64) -> Result<u64, StoreError> {
        let expired = delete_steps!(
            self,
            "DELETE FROM semantic_cache WHERE signature IN
             (SELECT signature FROM semantic_cache WHERE expires_at <= $1 LIMIT $2)",
            now_ms
        );
        let questions = delete_steps!(
            self,
            "DELETE FROM similar_questions WHERE signature IN
             (SELECT signature FROM similar_questions WHERE expires_at <= $1 LIMIT $2)",
            now_ms
        );
        Ok(expired + questions + self.answers().trim().await?)
    }

    /// Shortens the request log, its decisions and its bodies to the newest rows where there are a quarter more than there may
    /// be, counting rows.
    pub async fn prune_full_logs(&self, now_ms: i64, settings: &RuntimeSettings) -> Result<u64, StoreError> {
        let most = i64::from(settings.call_log_max_entries);
        // Rows are numbered as they come, so that none has to be counted. SQLite looks at the first and the last alone where each
        // is asked for by itself.
        const SPAN: &str =
            "SELECT COALESCE((SELECT MAX(seq) FROM call_logs) - (SELECT MIN(seq) FROM call_logs) + 1, 0)";
        let span: i64 = with_read!(self.pool(), |db| sqlx::query_scalar(SPAN).fetch_one(&mut *db).await?);
        if span <= most.saturating_add(most / 4) {
            return Ok(0);
        }
        let deleted = self.prune_logs(most).await? + self.prune_decisions(most).await?;
        self.prune_bodies(now_ms, settings).await?;
        Ok(deleted)
    }

    async fn prune_logs(&self, most: i64) -> Result<u64, StoreError> {
        Ok(delete_beyond!(self, "call_logs", "timestamp", most))
    }

    async fn prune_decisions(&self, most: i64) -> Result<u64, StoreError> {
        Ok(delete_beyond!(self, "routing_decisions", "created_at", most))
    }

    /// Deletes what the settings say is too old or too much. Meant to run hourly.
    pub async fn prune(&self, now_ms: i64, settings: &RuntimeSettings) -> Result<Pruned, StoreError> {
        let days = |count: i64| now_ms.saturating_sub(count.saturating_mul(DAY_MS));
        let retention = i64::from(settings.log_retention_days);
        let mut pruned = Pruned::default();
        pruned.call_logs += delete_logs_before(self, days(retention)).await?;
        let most = i64::from(settings.call_log_max_entries);
        pruned.call_logs += self.prune_logs(most).await?;
        pruned.other += delete_steps!(
            self,
            "DELETE FROM routing_decisions WHERE seq IN
             (SELECT seq FROM routing_decisions WHERE created_at < $1 LIMIT $2)",
            days(retention)
        );
        pruned.other += self.prune_decisions(most).await?;
        let oldest: Option<i64> = with_read!(self.pool(), |db| {
            sqlx::query_scalar("SELECT MIN(created_at) FROM routing_decisions").fetch_one(&mut *db).await?
        });
        pruned.other += delete_steps!(
            self,
            "DELETE FROM routing_names WHERE (page, place) IN
             (SELECT page, place FROM routing_names WHERE created_at < $1 LIMIT $2)",
            oldest.unwrap_or(now_ms).saturating_sub(decisions::NEEDED_MS)
        );
        pruned.audit_events += delete_steps!(
            self,
            "DELETE FROM audit_log WHERE id IN (SELECT id FROM audit_log WHERE timestamp < $1 LIMIT $2)",
            days(retention.saturating_mul(2))
        );
        pruned.other += delete_steps!(
            self,
            "DELETE FROM domain_lockout_state WHERE identifier IN
             (SELECT identifier FROM domain_lockout_state WHERE updated_at < $1 LIMIT $2)",
            days(LOCKOUT_DAYS)
        );
        pruned.other += delete_steps!(
            self,
            "DELETE FROM written_batches WHERE writer IN
             (SELECT writer FROM written_batches WHERE written_at < $1 LIMIT $2)",
            days(BATCH_DAYS)
        );
        pruned.other += delete_steps!(
            self,
            "DELETE FROM reasoning_memory WHERE (tenant, key) IN
             (SELECT tenant, key FROM reasoning_memory WHERE expires_at <= $1 LIMIT $2)",
            now_ms
        );
        pruned.other += delete_steps!(
            self,
            "DELETE FROM response_owners WHERE (api_key_id, response_id) IN
             (SELECT api_key_id, response_id FROM response_owners WHERE expires_at <= $1 LIMIT $2)",
            now_ms
        );
        pruned.other += self.prune_answers(now_ms).await?;
        let most = settings.semantic_cache_similarity.max_entries_per_key;
        pruned.other += self.similar_questions().trim(most, QUESTION_BYTES).await?;
        pruned.other += self.response_owners().trim().await?;
        pruned.other += self.learned_limits().trim(now_ms).await?;
        pruned.other += self.key_states().trim().await?;
        pruned.other += self.quota_snapshots().trim(days(retention)).await?;
        pruned.other += self.session_affinity().trim(now_ms).await?;
        pruned.other += self.context_handoffs().trim(now_ms).await?;
        pruned.other += self.resilience().trim(now_ms).await?;
        pruned.other += self.reasoning_memory().trim(MAX_BYTES).await?;
        for (sql, before) in [
            ("DELETE FROM minute_usage_summary WHERE bucket < $1", days(retention)),
            ("DELETE FROM hourly_usage_summary WHERE bucket < $1", days(HOURLY_DAYS)),
        ] {
            pruned.usage_sums += with_write!(self.pool(), |db| {
                sqlx::query(sql).bind(before).execute(&mut *db).await?.rows_affected()
            });
        }
        for (step, before) in [(MINUTE_MS, days(retention)), (HOUR_MS, days(HOURLY_DAYS))] {
            pruned.usage_sums += with_write!(self.pool(), |db| {
                sqlx::query("DELETE FROM kind_usage_summary WHERE step_ms = $1 AND bucket < $2")
                    .bind(step)
                    .bind(before)
                    .execute(&mut *db)
                    .await?
                    .rows_affected()
            });
        }
        pruned.other += self.ledger().fold(days(retention.max(LEDGER_DAYS))).await?;
        pruned.other += delete_steps!(
            self,
            "DELETE FROM domain_budget_reset_logs WHERE id IN
             (SELECT id FROM domain_budget_reset_logs WHERE reset_at < $1 LIMIT $2)",
            days(retention.max(LEDGER_DAYS))
        );
        pruned.other += self.revoked_tokens().purge(now_ms).await?;
        pruned.bodies = self.prune_bodies(now_ms, settings).await?;
        Ok(pruned)
    }
}

/// Deletes rows of the request log, counting.
pub(crate) async fn delete_logs_before(store: &Store, before_ms: i64) -> Result<u64, StoreError> {
    Ok(delete_steps!(
        store,
        "DELETE FROM call_logs WHERE seq IN (SELECT seq FROM call_logs WHERE timestamp < $1 LIMIT $2)",
        before_ms
    ))
}
