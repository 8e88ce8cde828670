//! What was used of accounts' plans before this process began, from the counters of usage.

use omniroute_domain::budget::Span;
use omniroute_domain::entity::ConnectionId;
use omniroute_domain::plan::PlanWindow;
use omniroute_domain::snapshot::{ConnectionState, Snapshot};

use crate::error::StoreError;
use crate::pool::with_read;
use crate::store::Store;
use crate::usage::{DAY_MS, MINUTE_MS};

/// How far back it is looked for the request with which a window began. Whoever is not silent for the length of a window for so
/// long may have one that begins a little earlier or later than it did.
const LOOK_BACK_MS: i64 = 3 * DAY_MS;

const BY_MINUTE: &str =
    "SELECT bucket, CAST(SUM(successes) AS BIGINT), CAST(SUM(tokens_input + tokens_output) AS BIGINT)
     FROM minute_usage_summary WHERE connection_id = $1 AND bucket >= $2 GROUP BY bucket ORDER BY bucket";

/// Access to what was used of plans.
#[derive(Debug, Clone, Copy)]
pub struct PlanUses<'a>(pub(crate) &'a Store);

impl PlanUses<'_> {
    /// Tells the accounts that have a plan what was used of it. What a failed request took is not counted.
    pub async fn recall(&self, snapshot: &Snapshot, now_ms: i64) -> Result<(), StoreError> {
        for account in snapshot.connections().filter(|account| !account.plan.is_empty()) {
            self.recall_account(account, now_ms).await?;
        }
        Ok(())
    }

    /// The same for one of them.
    pub async fn recall_account(&self, account: &ConnectionState, now_ms: i64) -> Result<(), StoreError> {
        for window in account.plan.iter() {
            let (span, requests, tokens) = match window.opens_for_ms() {
                Some(length_ms) => match self.opened(&account.id, length_ms, now_ms).await? {
                    Some(found) => found,
                    None => continue,
                },
                None => {
                    let span = window.span(now_ms);
                    let used = self.0.usage().of_connection_since(&account.id, span.start_ms).await?;
                    let tokens = used.prompt_tokens.saturating_add(used.completion_tokens);
                    (span, used.requests - used.errors, tokens)
                }
            };
            if requests > 0 {
                restore(account, window, span, (requests, tokens), now_ms);
            }
        }
        Ok(())
    }

    /// The window that runs: each begins with the first minute in which something was asked after the one before it.
    async fn opened(
        &self,
        id: &ConnectionId,
        length_ms: i64,
        now_ms: i64,
    ) -> Result<Option<(Span, i64, i64)>, StoreError> {
        let since = now_ms.saturating_sub(LOOK_BACK_MS);
        let minutes: Vec<(i64, i64, i64)> = with_read!(self.0.pool(), |db| {
            sqlx::query_as(BY_MINUTE)
                .bind(id.as_str())
                .bind(since - since.rem_euclid(MINUTE_MS))
                .fetch_all(&mut *db)
                .await?
        });
        let mut running: Option<(Span, i64, i64)> = None;
        for (minute, requests, tokens) in minutes.into_iter().filter(|(_, requests, _)| *requests > 0) {
            match &mut running {
                Some((span, used, sum)) if minute < span.end_ms => {
                    (*used, *sum) = (used.saturating_add(requests), sum.saturating_add(tokens));
                }
                _ => {
                    let span = Span { start_ms: minute, end_ms: minute.saturating_add(length_ms) };
                    running = Some((span, requests, tokens));
                }
            }
        }
        Ok(running.filter(|(span, ..)| now_ms < span.end_ms))
    }
}

fn restore(
    account: &ConnectionState,
    window: &PlanWindow,
    span: Span,
    (requests, tokens): (i64, i64),
    now_ms: i64,
) {
    let count = |count: i64| u64::try_from(count).unwrap_or(0);
    account.health.plan.restore(window, span, count(requests), count(tokens), now_ms);
}
