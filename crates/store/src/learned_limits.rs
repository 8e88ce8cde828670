//! What vendors said of their limits. Written behind the requests' backs; only ever read when a process starts.

use futures_util::TryStreamExt as _;
use omniroute_domain::limiter::LearnedLimits;
use omniroute_engine::ports::LimitsRow;

use crate::error::StoreError;
use crate::pool::{with_read, with_write};
use crate::store::Store;
use crate::usage::DAY_MS;

/// Most rows that are kept; those heard of longest ago go first.
const MAX_ROWS: i64 = 20_000;

pub(crate) const UPSERT: &str = "INSERT INTO learned_limits (connection_id, model, limits, updated_at)
     VALUES ($1, $2, $3, $4)
     ON CONFLICT (connection_id, model) DO UPDATE SET limits = excluded.limits, updated_at = excluded.updated_at";
pub(crate) const FORGET: &str = "DELETE FROM learned_limits WHERE connection_id = $1";
pub(crate) const MOVE: &str = "UPDATE learned_limits SET connection_id = $2 WHERE connection_id = $1";
pub(crate) const FORGET_CONNECTION: &str =
    "DELETE FROM learned_limits WHERE connection_id = $1 OR connection_id LIKE $1 || '#%'";

/// Access to the learned limits.
#[derive(Debug, Clone, Copy)]
pub struct LearnedLimitRows<'a>(pub(crate) &'a Store);

impl LearnedLimitRows<'_> {
    /// Hands over what was heard within a day; how many that were. Rows that cannot be read are passed over.
    pub async fn recall(&self, now_ms: i64, mut take: impl FnMut(LimitsRow)) -> Result<u64, StoreError> {
        const SELECT: &str = "SELECT connection_id, model, limits, updated_at FROM learned_limits
             WHERE updated_at > $1 ORDER BY updated_at DESC LIMIT $2";
        let mut recalled = 0;
        with_read!(self.0.pool(), |db| {
            let mut rows = sqlx::query_as::<_, (String, String, String, i64)>(SELECT)
                .bind(now_ms.saturating_sub(DAY_MS))
                .bind(MAX_ROWS)
                .fetch(&mut *db);
            while let Some((connection, model, limits, updated_at)) = rows.try_next().await? {
                match serde_json::from_str::<LearnedLimits>(&limits) {
                    Ok(limits) => {
                        recalled += 1;
                        take(LimitsRow { connection: connection.into(), model, limits, updated_at });
                    }
                    Err(error) => tracing::warn!(connection, model, %error, "learned limits cannot be read"),
                }
            }
        });
        Ok(recalled)
    }

    /// Deletes what is older than a day, and what there is too much of.
    pub(crate) async fn trim(&self, now_ms: i64) -> Result<u64, StoreError> {
        Ok(with_write!(self.0.pool(), |db| {
            sqlx::query(
                "DELETE FROM learned_limits WHERE updated_at <= $1 OR (connection_id, model) IN
                 (SELECT connection_id, model FROM
                  (SELECT connection_id, model, ROW_NUMBER() OVER
                   (ORDER BY updated_at DESC, connection_id, model) AS place FROM learned_limits)
                  AS newest WHERE place > $2)",
            )
            .bind(now_ms.saturating_sub(DAY_MS))
            .bind(MAX_ROWS)
            .execute(&mut *db)
            .await?
            .rows_affected()
        }))
    }
}
