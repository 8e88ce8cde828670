//! What vendors left of their quotas, from time to time. Written behind the requests' backs, for people to look at.

use omniroute_engine::ports::QuotaRow;

use crate::error::StoreError;
use crate::pool::{with_read, with_write};
use crate::store::Store;
use crate::text::{clip, to_json};

/// Most rows that are kept; the oldest go first.
const MAX_ROWS: i64 = 100_000;
const MAX_KEY: usize = 256;

pub(crate) const INSERT: &str =
    "INSERT INTO quota_snapshots (provider, connection_id, window_key, remaining_percentage,
     is_exhausted, next_reset_at, raw_data, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
pub(crate) const FORGET_CONNECTION: &str = "DELETE FROM quota_snapshots WHERE connection_id = $1";

/// Access to the snapshots.
#[derive(Debug, Clone, Copy)]
pub struct QuotaSnapshots<'a>(pub(crate) &'a Store);

/// What was left at a time.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct QuotaSnapshot {
    /// Provider id.
    pub provider: String,
    /// The account.
    pub connection_id: String,
    /// Of what: a model and one of its limits (`gpt-4o:requests`), or `account`.
    pub window_key: String,
    /// In hundredths.
    pub remaining_percentage: f64,
    /// Whether nothing was left.
    pub is_exhausted: bool,
    /// When there is more again.
    pub next_reset_at: Option<i64>,
    /// When that was.
    pub created_at: i64,
}

/// A snapshot as it is stored.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) provider: String,
    pub(crate) connection: String,
    pub(crate) key: String,
    pub(crate) percent: f64,
    pub(crate) until: Option<i64>,
    pub(crate) raw: Option<String>,
    pub(crate) at: i64,
}

impl Stored {
    pub(crate) fn of(row: &QuotaRow) -> Result<Self, StoreError> {
        let scarcest = row.limits.as_ref().and_then(|limits| {
            let shares = limits.windows(row.at).filter_map(|(name, window)| Some((name, window.share()?)));
            shares.min_by(|a, b| a.1.total_cmp(&b.1))
        });
        if let Some((window, share)) = &row.plan {
            return Ok(Self {
                provider: row.provider.to_string(),
                connection: row.connection.to_string(),
                key: clip(&format!("plan:{window}"), MAX_KEY),
                percent: share * 100.0,
                until: row.until,
                raw: None,
                at: row.at,
            });
        }
        let key = match (&row.model, scarcest) {
            (Some(model), Some((name, _))) => format!("{model}:{name}"),
            (Some(model), None) => model.clone(),
            (None, _) => "account".to_owned(),
        };
        Ok(Self {
            provider: row.provider.to_string(),
            connection: row.connection.to_string(),
            key: clip(&key, MAX_KEY),
            percent: scarcest.map_or(0.0, |(_, share)| share * 100.0),
            until: row.until,
            raw: row.limits.as_ref().map(to_json).transpose()?,
            at: row.at,
        })
    }
}

impl QuotaSnapshots<'_> {
    /// Newest first, of one account or of all.
    pub async fn list(&self, connection: Option<&str>, limit: u32) -> Result<Vec<QuotaSnapshot>, StoreError> {
        Ok(with_read!(self.0.pool(), |db| {
            sqlx::query_as(
                "SELECT provider, connection_id, window_key, remaining_percentage, is_exhausted, next_reset_at, created_at
                 FROM quota_snapshots WHERE $1 IS NULL OR connection_id = $1 ORDER BY created_at DESC, id DESC LIMIT $2",
            )
            .bind(connection)
            .bind(i64::from(limit))
            .fetch_all(&mut *db)
            .await?
        }))
    }

    /// Deletes what is older than `before_ms`, and what there is too much of.
    pub(crate) async fn trim(&self, before_ms: i64) -> Result<u64, StoreError> {
        Ok(with_write!(self.0.pool(), |db| {
            sqlx::query(
                "DELETE FROM quota_snapshots WHERE created_at < $1 OR id <=
                 (SELECT COALESCE(MAX(id), 0) FROM quota_snapshots) - $2",
            )
            .bind(before_ms)
            .bind(MAX_ROWS)
            .execute(&mut *db)
            .await?
            .rows_affected()
        }))
    }
}
