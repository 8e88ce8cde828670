//! Which account a conversation stays with. Written behind the requests' backs; only ever read when a process starts.

use futures_util::TryStreamExt as _;
use omniroute_domain::session::Affinity;

use crate::error::StoreError;
use crate::pool::{with_read, with_write};
use crate::store::Store;
use crate::usage::DAY_MS;

/// Most rows that are kept and read; those silent for longest go first. As many as memory has room for.
const MAX_ROWS: i64 = 10_000;

pub(crate) const UPSERT: &str = "INSERT INTO session_account_affinity
     (api_key_id, session_key, provider, connection_id, created_at, last_seen_at)
     VALUES ($1, $2, $3, $4, $5, $6)
     ON CONFLICT (api_key_id, session_key, provider) DO UPDATE SET connection_id = excluded.connection_id,
     last_seen_at = excluded.last_seen_at";
pub(crate) const FORGET: &str =
    "DELETE FROM session_account_affinity WHERE api_key_id = $1 AND session_key = $2";
pub(crate) const FORGET_TENANT: &str = "DELETE FROM session_account_affinity WHERE api_key_id = $1";
pub(crate) const FORGET_CONNECTION: &str = "DELETE FROM session_account_affinity WHERE connection_id = $1";

/// Access to the accounts of conversations.
#[derive(Debug, Clone, Copy)]
pub struct SessionAffinity<'a>(pub(crate) &'a Store);

impl SessionAffinity<'_> {
    /// Hands over those who spoke since `since_ms`, those silent for longest first; how many that were.
    pub async fn recall(&self, since_ms: i64, mut take: impl FnMut(Affinity)) -> Result<u64, StoreError> {
        const SELECT: &str =
            "SELECT api_key_id, session_key, provider, connection_id, created_at, last_seen_at
             FROM session_account_affinity WHERE last_seen_at > $1 ORDER BY last_seen_at DESC LIMIT $2";
        let mut found = Vec::new();
        with_read!(self.0.pool(), |db| {
            let mut rows = sqlx::query_as::<_, (String, String, String, String, i64, i64)>(SELECT)
                .bind(since_ms)
                .bind(MAX_ROWS)
                .fetch(&mut *db);
            while let Some((tenant, session, provider, connection, created_at, last_seen_at)) =
                rows.try_next().await?
            {
                found.push(Affinity {
                    tenant,
                    session,
                    provider: provider.into(),
                    connection: connection.into(),
                    created_at,
                    last_seen_at,
                });
            }
        });
        let count = found.len() as u64;
        found.into_iter().rev().for_each(&mut take);
        Ok(count)
    }

    /// Deletes those silent for longer than any of them may be kept, and what there is too much of.
    pub(crate) async fn trim(&self, now_ms: i64) -> Result<u64, StoreError> {
        Ok(with_write!(self.0.pool(), |db| {
            sqlx::query(
                "DELETE FROM session_account_affinity WHERE last_seen_at <= $1 OR
                 (api_key_id, session_key, provider) IN
                 (SELECT api_key_id, session_key, provider FROM
                  (SELECT api_key_id, session_key, provider, ROW_NUMBER() OVER
                   (ORDER BY last_seen_at DESC, api_key_id, session_key, provider) AS place
                   FROM session_account_affinity)
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
