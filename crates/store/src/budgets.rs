//! What keys, or everybody together, may spend.

use omniroute_domain::entity::{ApiKeyId, Budget, Interval, OnExceeded};

use crate::error::StoreError;
use crate::pool::{bump_revision, with_read, with_write};
use crate::store::{RowProblem, Store};

/// Access to the budgets.
#[derive(Debug, Clone, Copy)]
pub struct Budgets<'a>(pub(crate) &'a Store);

/// The id of the budget of everybody together.
pub(crate) const EVERYBODY: &str = "*";

macro_rules! columns {
    () => {
        "api_key_id, daily_limit_nano, weekly_limit_nano, monthly_limit_nano, total_limit_nano, warning_permille, \
         reset_interval, reset_minute, hard_stop, block_unpriced, on_exceeded"
    };
}

/// Every budget.
pub(crate) const SELECT_ALL: &str =
    concat!("SELECT ", columns!(), " FROM domain_budgets ORDER BY api_key_id");

/// The budget of the key `$1`, if it has one, for the key `$2` too.
pub(crate) const COPY: &str = "INSERT INTO domain_budgets (api_key_id, daily_limit_nano, weekly_limit_nano, \
     monthly_limit_nano, total_limit_nano, warning_permille, reset_interval, reset_minute, hard_stop, block_unpriced, \
     on_exceeded) SELECT $2, daily_limit_nano, weekly_limit_nano, monthly_limit_nano, total_limit_nano, \
     warning_permille, reset_interval, reset_minute, hard_stop, block_unpriced, on_exceeded \
     FROM domain_budgets WHERE api_key_id = $1";

impl Budgets<'_> {
    /// Every budget, that of everybody first.
    pub async fn list(&self) -> Result<Vec<Budget>, StoreError> {
        let rows: Vec<Row> =
            with_read!(self.0.pool(), |db| sqlx::query_as(SELECT_ALL).fetch_all(&mut *db).await?);
        Ok(rows.iter().map(|row| parse(row, &mut Vec::new())).collect())
    }

    /// That of a key, or with `None` that of everybody.
    pub async fn get(&self, key: Option<&ApiKeyId>) -> Result<Option<Budget>, StoreError> {
        Ok(self.list().await?.into_iter().find(|budget| budget.key.as_ref() == key))
    }

    /// Sets some, all or none of them, in one piece: `change` makes them of every budget there is, and nobody else's change
    /// comes between reading and writing. When it refuses, nothing is written and its reason comes back; otherwise those
    /// that it made. None is set of a key that is revoked or never was.
    pub async fn change<E>(
        &self,
        change: impl FnOnce(&[Budget]) -> Result<Vec<Budget>, E>,
    ) -> Result<Result<Vec<Budget>, E>, StoreError> {
        let changed = with_write!(self.0.pool(), |db| {
            bump_revision!(db);
            let rows: Vec<Row> = sqlx::query_as(SELECT_ALL).fetch_all(&mut *db).await?;
            let stored: Vec<Budget> = rows.iter().map(|row| parse(row, &mut Vec::new())).collect();
            let budgets = match change(&stored) {
                Ok(budgets) => budgets,
                Err(refusal) => return Ok(Err(refusal)),
            };
            for budget in &budgets {
                if let Some(key) = &budget.key {
                    let usable: Option<String> =
                        sqlx::query_scalar("SELECT id FROM api_keys WHERE id = $1 AND revoked_at IS NULL")
                            .bind(key.as_str())
                            .fetch_optional(&mut *db)
                            .await?;
                    if usable.is_none() {
                        return Err(StoreError::NotFound { what: "API key", id: key.to_string() });
                    }
                }
                sqlx::query(
                    "INSERT INTO domain_budgets (api_key_id, daily_limit_nano, weekly_limit_nano, monthly_limit_nano,
                     total_limit_nano, warning_permille, reset_interval, reset_minute, hard_stop, block_unpriced,
                     on_exceeded) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
                     ON CONFLICT (api_key_id) DO UPDATE SET daily_limit_nano = excluded.daily_limit_nano,
                     weekly_limit_nano = excluded.weekly_limit_nano, monthly_limit_nano = excluded.monthly_limit_nano,
                     total_limit_nano = excluded.total_limit_nano, warning_permille = excluded.warning_permille,
                     reset_interval = excluded.reset_interval, reset_minute = excluded.reset_minute,
                     hard_stop = excluded.hard_stop, block_unpriced = excluded.block_unpriced,
                     on_exceeded = excluded.on_exceeded",
                )
                .bind(budget.key.as_ref().map_or(EVERYBODY, |key| key.as_str()))
                .bind(budget.daily_nano)
                .bind(budget.weekly_nano)
                .bind(budget.monthly_nano)
                .bind(budget.total_nano)
                .bind(i64::from(budget.warning_permille))
                .bind(budget.reset_interval.as_str())
                .bind(i64::from(budget.reset_minute))
                .bind(budget.hard_stop)
                .bind(budget.block_unpriced)
                .bind(budget.on_exceeded.to_string())
                .execute(&mut *db)
                .await?;
            }
            budgets
        });
        Ok(Ok(changed))
    }

    /// Whether there was one.
    pub async fn delete(&self, key: Option<&ApiKeyId>) -> Result<bool, StoreError> {
        let changed = with_write!(self.0.pool(), |db| {
            bump_revision!(db);
            sqlx::query("DELETE FROM domain_budgets WHERE api_key_id = $1")
                .bind(key.map_or(EVERYBODY, |key| key.as_str()))
                .execute(&mut *db)
                .await?
                .rows_affected()
        });
        Ok(changed > 0)
    }

    /// When windows of budgets began anew: whose, which window and what was spent until then; newest first.
    pub async fn resets(&self, limit: u32) -> Result<Vec<(String, String, i64, i64)>, StoreError> {
        Ok(with_read!(self.0.pool(), |db| {
            sqlx::query_as(
                "SELECT api_key_id, reset_interval, previous_spend_nano, reset_at FROM domain_budget_reset_logs
                 ORDER BY id DESC LIMIT $1",
            )
            .bind(i64::from(limit))
            .fetch_all(&mut *db)
            .await?
        }))
    }
}

/// As stored.
#[derive(sqlx::FromRow)]
pub(crate) struct Row {
    api_key_id: String,
    daily_limit_nano: Option<i64>,
    weekly_limit_nano: Option<i64>,
    monthly_limit_nano: Option<i64>,
    total_limit_nano: Option<i64>,
    warning_permille: i64,
    reset_interval: String,
    reset_minute: i64,
    hard_stop: bool,
    block_unpriced: bool,
    on_exceeded: String,
}

/// The budget of a row. What cannot be read of it takes the default; its limits hold.
pub(crate) fn parse(row: &Row, problems: &mut Vec<RowProblem>) -> Budget {
    let mut problem = |message: &str| {
        let (table, id) = ("domain_budgets", row.api_key_id.clone());
        problems.push(RowProblem { table, id, message: message.to_owned() });
    };
    let warning_permille = u16::try_from(row.warning_permille).ok().filter(|permille| *permille <= 1_000);
    if warning_permille.is_none() {
        problem("warning_permille is out of range; warning at 800");
    }
    let reset_interval = Interval::parse(&row.reset_interval);
    if reset_interval.is_none() {
        problem("reset_interval is unknown; showing the day");
    }
    let reset_minute = u16::try_from(row.reset_minute).ok().filter(|minute| *minute < 1_440);
    if reset_minute.is_none() {
        problem("reset_minute is out of range; windows begin at midnight");
    }
    let on_exceeded = OnExceeded::parse(&row.on_exceeded);
    if on_exceeded.is_none() {
        problem("on_exceeded is unknown; requests over a limit are refused");
    }
    Budget {
        key: (row.api_key_id != EVERYBODY).then(|| row.api_key_id.as_str().into()),
        daily_nano: row.daily_limit_nano,
        weekly_nano: row.weekly_limit_nano,
        monthly_nano: row.monthly_limit_nano,
        total_nano: row.total_limit_nano,
        warning_permille: warning_permille.unwrap_or(800),
        reset_interval: reset_interval.unwrap_or(Interval::Daily),
        reset_minute: reset_minute.unwrap_or(0),
        hard_stop: row.hard_stop,
        block_unpriced: row.block_unpriced,
        on_exceeded: on_exceeded.unwrap_or(OnExceeded::Block),
    }
}
