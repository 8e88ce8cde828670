//! What vendors left of their quotas, from time to time. Written behind the requests' backs, for people to look at.

use omniroute_engine::ports::QuotaRow;
use omniroute_provider::quota_api::Amount;
use serde::{Deserialize, Serialize};

use crate::error::StoreError;
use crate::pool::{with_read, with_write};
use crate::store::Store;
use crate::text::{clip, to_json};

/// Most rows that are kept; the oldest go first.
const MAX_ROWS: i64 = 100_000;
const MAX_KEY: usize = 256;
/// What the keys of what vendors told begin with.
const TOLD: &str = "provider:";

/// The key of what is left of a window of a plan.
pub(crate) fn plan_key(window: &str) -> String {
    format!("plan:{window}")
}

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
    /// Of what: a model and one of its limits (`gpt-4o:requests`), `plan:` and a window, `provider:` and what its vendor calls
    /// it, or `account`; of one of several keys with `#` and what tells it from the others behind that.
    pub window_key: String,
    /// In hundredths; `None` where nobody knows how much there is in all.
    pub remaining_percentage: Option<f64>,
    /// Whether nothing was left.
    pub is_exhausted: bool,
    /// When there is more again.
    pub next_reset_at: Option<i64>,
    /// What was said of it, JSON.
    pub raw_data: Option<String>,
    /// When that was.
    pub created_at: i64,
}

/// What a vendor said of a limit or a purse, as it is kept in [`QuotaSnapshot::raw_data`]: amounts as texts, with all their digits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ToldFigures {
    /// What was used.
    pub used: Option<String>,
    /// How much there is in all.
    pub total: Option<String>,
    /// What is left.
    pub remaining: Option<String>,
    /// In what it is counted.
    pub unit: String,
}

impl QuotaSnapshot {
    /// What the vendor said, where it was asked.
    pub fn told(&self) -> Option<ToldFigures> {
        let raw = self.raw_data.as_deref().filter(|_| self.window_key.starts_with(TOLD))?;
        serde_json::from_str(raw).ok()
    }
}

/// A snapshot as it is stored.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) provider: String,
    pub(crate) connection: String,
    pub(crate) key: String,
    pub(crate) percent: Option<f64>,
    pub(crate) is_spent: bool,
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
        let (connection, of_key) = match row.connection.key_parts() {
            Some((connection, key)) => (connection.to_owned(), format!("#{key}")),
            None => (row.connection.to_string(), String::new()),
        };
        let stored = |key: &str, share: Option<f64>, is_spent: bool, raw: Option<String>| Self {
            provider: row.provider.to_string(),
            connection: connection.clone(),
            key: clip(key, MAX_KEY - of_key.len()) + &of_key,
            percent: share.map(|share| share * 100.0),
            is_spent,
            until: row.until,
            raw,
            at: row.at,
        };
        if let Some((window, share)) = &row.plan {
            return Ok(stored(&plan_key(window), Some(*share), *share <= 0.0, None));
        }
        if let Some(told) = &row.told {
            let text = |amount: Option<Amount>| amount.map(|amount| amount.to_string());
            let figures = ToldFigures {
                used: text(told.used),
                total: text(told.total),
                remaining: text(told.remaining),
                unit: told.unit.to_string(),
            };
            let share = told.share().or_else(|| told.is_spent().then_some(0.0));
            return Ok(stored(
                &format!("{TOLD}{}", told.name),
                share,
                told.is_spent(),
                Some(to_json(&figures)?),
            ));
        }
        let key = match (&row.model, scarcest) {
            (Some(model), Some((name, _))) => format!("{model}:{name}"),
            (Some(model), None) => model.clone(),
            (None, _) => "account".to_owned(),
        };
        let share = scarcest.map_or(0.0, |(_, share)| share);
        Ok(stored(&key, Some(share), share <= 0.0, row.limits.as_ref().map(to_json).transpose()?))
    }
}

impl QuotaSnapshots<'_> {
    /// Newest first, of one account or of all.
    pub async fn list(&self, connection: Option<&str>, limit: u32) -> Result<Vec<QuotaSnapshot>, StoreError> {
        Ok(with_read!(self.0.pool(), |db| {
            sqlx::query_as(
                "SELECT provider, connection_id, window_key, remaining_percentage, is_exhausted, next_reset_at, raw_data,
                 created_at FROM quota_snapshots WHERE $1 IS NULL OR connection_id = $1 ORDER BY created_at DESC, id DESC LIMIT $2",
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
