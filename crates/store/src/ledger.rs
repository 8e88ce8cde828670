//! The ledger: what was paid for, one row per billed attempt. Rows are only added, by the writer; its sums are what keys have
//! spent.

use omniroute_domain::budget::{Budgets, Calendar, Spending, Sums, Window};
use omniroute_domain::entity::ApiKeyId;

use crate::error::StoreError;
use crate::meta::TAKE_TURN;
use crate::pool::{with_read, with_write};
use crate::store::Store;
use crate::usage::DAY_MS;

/// Access to the ledger.
#[derive(Debug, Clone, Copy)]
pub struct Ledger<'a>(pub(crate) &'a Store);

/// A row of the ledger, for people.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct LedgerRow {
    /// Which request; empty where one row stands for several.
    pub request_id: String,
    /// Which of its attempts, from 1; how many bills where one row stands for several.
    pub attempt: i64,
    /// Whose key.
    pub api_key_id: Option<String>,
    /// `settle`, `saved` or `adjust`.
    pub kind: String,
    /// In billionths of a US dollar; `None` = unknown.
    pub amount_nano: Option<i64>,
    /// Where the price came from.
    pub price_source: Option<String>,
    /// Short hash of the price row.
    pub price_version: Option<String>,
    /// Provider.
    pub provider: String,
    /// Upstream model.
    pub model: String,
    /// Whether the tokens are estimates.
    pub estimated: bool,
    /// Tokens, as JSON.
    pub tokens: Option<String>,
    /// When it was counted.
    pub timestamp: i64,
}

/// What rows of old days became.
const FOLDED: &str = "folded";

/// `$1` to `$3`: the begin of the day, the week and the month. Money that was saved was not spent.
const SUMS: &str = "SELECT COALESCE(api_key_id, '') AS api_key_id, \
     COALESCE(CAST(SUM(CASE WHEN price_source IN ('summed', 'folded') THEN attempt ELSE 1 END) AS BIGINT), 0) AS entries, \
     COALESCE(CAST(SUM(amount_nano) AS BIGINT), 0) AS total, \
     COALESCE(CAST(SUM(CASE WHEN timestamp >= $1 THEN amount_nano ELSE 0 END) AS BIGINT), 0) AS daily, \
     COALESCE(CAST(SUM(CASE WHEN timestamp >= $2 THEN amount_nano ELSE 0 END) AS BIGINT), 0) AS weekly, \
     COALESCE(CAST(SUM(CASE WHEN timestamp >= $3 THEN amount_nano ELSE 0 END) AS BIGINT), 0) AS monthly \
     FROM cost_ledger WHERE kind <> 'saved' GROUP BY 1 ORDER BY 1";

impl Ledger<'_> {
    /// What every key has spent, and everybody together (`None`), by the windows of a calendar.
    pub async fn sums(
        &self,
        calendar: &Calendar,
        now_ms: i64,
    ) -> Result<Vec<(Option<ApiKeyId>, Sums)>, StoreError> {
        let begin = |window| calendar.span(window, now_ms).start_ms;
        let rows: Vec<(String, i64, i64, i64, i64, i64)> = with_read!(self.0.pool(), |db| {
            sqlx::query_as(SUMS)
                .bind(begin(Window::Daily))
                .bind(begin(Window::Weekly))
                .bind(begin(Window::Monthly))
                .fetch_all(&mut *db)
                .await?
        });
        let mut all = Sums::default();
        let mut sums = Vec::with_capacity(rows.len() + 1);
        for (key, entries, total_nano, daily, weekly, monthly) in rows {
            all.entries += entries;
            all.total_nano += total_nano;
            for (sum, one) in all.windows_nano.iter_mut().zip([daily, weekly, monthly]) {
                *sum += one;
            }
            if !key.is_empty() {
                let windows_nano = [daily, weekly, monthly];
                sums.push((Some(key.as_str().into()), Sums { entries, total_nano, windows_nano }));
            }
        }
        sums.push((None, all));
        Ok(sums)
    }

    /// Newest first.
    pub async fn list(&self, limit: u32) -> Result<Vec<LedgerRow>, StoreError> {
        Ok(with_read!(self.0.pool(), |db| {
            sqlx::query_as(
                "SELECT request_id, attempt, api_key_id, kind, amount_nano, price_source, price_version, provider,
                 model, estimated, tokens, timestamp FROM cost_ledger ORDER BY timestamp DESC, id DESC LIMIT $1",
            )
            .bind(i64::from(limit))
            .fetch_all(&mut *db)
            .await?
        }))
    }

    /// Puts the purses of the process in order: at the start.
    pub async fn restore(
        &self,
        spending: &Spending,
        budgets: &Budgets,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        for (key, sums) in self.sums_of(budgets, |_| true, now_ms).await? {
            spending.restore(budgets, key.as_ref(), &sums, now_ms);
        }
        Ok(())
    }

    /// What those have spent that are meant, each by the windows of its own budget; everybody together is `None`.
    pub(crate) async fn sums_of(
        &self,
        budgets: &Budgets,
        is_meant: impl Fn(Option<&ApiKeyId>) -> bool,
        now_ms: i64,
    ) -> Result<Vec<(Option<ApiKeyId>, Sums)>, StoreError> {
        let mut calendars = vec![budgets.calendar.clone()];
        let mut found = Vec::new();
        let mut at = 0;
        while let Some(calendar) = calendars.get(at).cloned() {
            for (key, sums) in self.sums(&calendar, now_ms).await? {
                let own = budgets.calendar_of(key.as_ref());
                if !calendars.contains(own) {
                    calendars.push(own.clone());
                }
                if *own == calendar && is_meant(key.as_ref()) {
                    found.push((key, sums));
                }
            }
            at += 1;
        }
        Ok(found)
    }

    /// Makes one row per key and day of what is older than `before_ms`; the sums stay the same. Gives the number of rows that
    /// are gone.
    pub(crate) async fn fold(&self, before_ms: i64) -> Result<u64, StoreError> {
        let mut gone = 0;
        loop {
            let oldest: Option<i64> = with_read!(self.0.pool(), |db| {
                sqlx::query_scalar(
                    "SELECT MIN(timestamp) FROM cost_ledger
                     WHERE timestamp < $1 AND (price_source IS NULL OR price_source <> $2)",
                )
                .bind(before_ms)
                .bind(FOLDED)
                .fetch_one(&mut *db)
                .await?
            });
            let Some(oldest) = oldest else { return Ok(gone) };
            let day = oldest - oldest.rem_euclid(DAY_MS);
            let end = (day + DAY_MS).min(before_ms);
            let (deleted, added) = with_write!(self.0.pool(), |db| {
                // Another process that folds the same day now would add its sum to the one of this.
                sqlx::query(TAKE_TURN).execute(&mut *db).await?;
                let added = sqlx::query(
                    "INSERT INTO cost_ledger (request_id, attempt, api_key_id, kind, amount_nano, price_source, provider,
                     model, estimated, timestamp)
                     SELECT '', CAST(SUM(CASE WHEN price_source = 'summed' THEN attempt ELSE 1 END) AS BIGINT),
                     api_key_id, CASE WHEN kind = 'saved' THEN 'saved' ELSE 'adjust' END,
                     CAST(SUM(amount_nano) AS BIGINT), $3, '', '', FALSE, MAX(timestamp)
                     FROM cost_ledger WHERE timestamp >= $1 AND timestamp < $2
                     AND (price_source IS NULL OR price_source <> $3)
                     GROUP BY api_key_id, CASE WHEN kind = 'saved' THEN 'saved' ELSE 'adjust' END",
                )
                .bind(day)
                .bind(end)
                .bind(FOLDED)
                .execute(&mut *db)
                .await?
                .rows_affected();
                let deleted = sqlx::query(
                    "DELETE FROM cost_ledger WHERE timestamp >= $1 AND timestamp < $2
                     AND (price_source IS NULL OR price_source <> $3)",
                )
                .bind(day)
                .bind(end)
                .bind(FOLDED)
                .execute(&mut *db)
                .await?
                .rows_affected();
                (deleted, added)
            });
            gone += deleted.saturating_sub(added);
        }
    }
}
