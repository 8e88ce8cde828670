//! What was used of accounts' plans before this process began, from the counters of usage. When windows began that begin with
//! a request stands in the history of quotas.

use omniroute_domain::budget::Span;
use omniroute_domain::entity::ConnectionId;
use omniroute_domain::plan::PlanWindow;
use omniroute_domain::snapshot::{ConnectionState, Snapshot};

use crate::error::StoreError;
use crate::pool::with_read;
use crate::quota_snapshots::plan_key;
use crate::store::Store;
use crate::usage::{DAY_MS, MINUTE_MS};

/// How far back it is looked for the silence after which a window began, where nobody wrote down when it did.
const LOOK_BACK_MS: i64 = 3 * DAY_MS;

/// The end of a window that runs, as it was written down when it began and from time to time since; `$3` now, `$4` its length.
const ENDS_AT: &str = "SELECT next_reset_at FROM quota_snapshots
     WHERE connection_id = $1 AND window_key = $2 AND next_reset_at > $3 AND next_reset_at <= $3 + $4
     ORDER BY created_at DESC, id DESC LIMIT 1";

const BY_MINUTE: &str = "SELECT bucket, CAST(SUM(successes) AS BIGINT)
     FROM minute_usage_summary WHERE connection_id = $1 AND bucket >= $2 GROUP BY bucket ORDER BY bucket";

/// Access to what was used of plans.
#[derive(Debug, Clone, Copy)]
pub struct PlanUses<'a>(pub(crate) &'a Store);

impl PlanUses<'_> {
    /// Tells the accounts that have a plan what was used of it.
    pub async fn recall(&self, snapshot: &Snapshot, now_ms: i64) -> Result<(), StoreError> {
        for account in snapshot.connections().filter(|account| !account.plan.is_empty()) {
            self.recall_account(account, |_| true, now_ms).await?;
        }
        Ok(())
    }

    /// The same for some windows of one of them.
    ///
    /// The counters know requests, not what several accounts did for one: all its tokens are the last one's, those of a request
    /// that failed too, which is not among the requests.
    pub async fn recall_account(
        &self,
        account: &ConnectionState,
        is_wanted: impl Fn(&PlanWindow) -> bool,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        for window in account.plan.iter().filter(|window| is_wanted(window)) {
            let span = match window.opens_for_ms() {
                Some(length_ms) => match self.opened(&account.id, window.name(), length_ms, now_ms).await? {
                    Some(span) => span,
                    None => continue,
                },
                None => window.span(now_ms),
            };
            let used = self.0.usage().of_connection_since(&account.id, span.start_ms).await?;
            let tokens = used.prompt_tokens.saturating_add(used.completion_tokens);
            let requests = used.requests - used.errors;
            if requests > 0 {
                restore(account, window, span, (requests, tokens), now_ms);
            }
        }
        Ok(())
    }

    /// The window that runs, if one does: as it was written down, else as far as the counters of minutes tell.
    async fn opened(
        &self,
        id: &ConnectionId,
        name: &str,
        length_ms: i64,
        now_ms: i64,
    ) -> Result<Option<Span>, StoreError> {
        let since = now_ms.saturating_sub(LOOK_BACK_MS);
        let since = since - since.rem_euclid(MINUTE_MS);
        let key = plan_key(name);
        let (end, minutes) = with_read!(self.0.pool(), |db| {
            let end: Option<i64> = sqlx::query_scalar(ENDS_AT)
                .bind(id.as_str())
                .bind(&key)
                .bind(now_ms)
                .bind(length_ms)
                .fetch_optional(&mut *db)
                .await?;
            let minutes: Vec<(i64, i64)> = match end {
                Some(_) => Vec::new(),
                None => sqlx::query_as(BY_MINUTE).bind(id.as_str()).bind(since).fetch_all(&mut *db).await?,
            };
            (end, minutes)
        });
        if let Some(end_ms) = end {
            return Ok(Some(Span { start_ms: end_ms - length_ms, end_ms }));
        }
        let busy = minutes.into_iter().filter(|(_, requests)| *requests > 0).map(|(minute, _)| minute);
        Ok(guessed(busy, since, length_ms, now_ms))
    }
}

/// The window that runs, from the minutes in which something was answered: after a silence as long as a window the next request
/// begins one, and each next one begins with the first request after the one before it. Where there was no such silence nobody
/// can tell when they begin; then half of the window is taken to be over.
fn guessed(busy: impl Iterator<Item = i64>, since: i64, length_ms: i64, now_ms: i64) -> Option<Span> {
    let half = now_ms - length_ms / 2;
    let half = half - half.rem_euclid(MINUTE_MS);
    let (mut is_known, mut last) = (false, since - MINUTE_MS);
    let mut running: Option<Span> = None;
    let mut halfway: Option<i64> = None;
    for minute in busy {
        is_known |= minute - last - MINUTE_MS >= length_ms;
        last = minute;
        if minute >= half {
            halfway.get_or_insert(minute);
        }
        if is_known && running.is_none_or(|span| minute >= span.end_ms) {
            running = Some(Span { start_ms: minute, end_ms: minute.saturating_add(length_ms) });
        }
    }
    if is_known {
        return running.filter(|span| now_ms < span.end_ms);
    }
    halfway.map(|start_ms| Span { start_ms, end_ms: start_ms.saturating_add(length_ms) })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_tells_when_windows_begin_and_without_it_half_is_over() {
        const HOUR: i64 = 60;
        let now = 1_000 * HOUR * MINUTE_MS;
        let since = now - LOOK_BACK_MS;
        // Minutes before now: from, to, one in so many.
        type Busy = &'static [(i64, i64, usize)];
        let cases: [(&str, Busy, i64, Option<i64>); 8] = [
            ("nobody", &[], 5, None),
            ("one request", &[(2 * HOUR, 2 * HOUR, 1)], 5, Some(2 * HOUR)),
            ("it is over", &[(6 * HOUR, 6 * HOUR, 1)], 5, None),
            ("after the night", &[(26 * HOUR, 16 * HOUR, 1), (7 * HOUR, 0, 1)], 5, Some(2 * HOUR)),
            ("never silent", &[(72 * HOUR, 0, 1)], 5, Some(150)),
            ("never silent, by the hour", &[(72 * HOUR, 0, 1)], 1, Some(30)),
            ("never silent, by the day", &[(72 * HOUR, 0, 1)], 24, Some(12 * HOUR)),
            ("never for long", &[(72 * HOUR, 4 * HOUR, 60)], 5, None),
        ];
        for (name, busy, hours, expected) in cases {
            let ago = busy.iter().flat_map(|&(from, to, step)| (to..=from).rev().step_by(step));
            let minutes = ago.map(|ago| now - ago * MINUTE_MS);
            let found = guessed(minutes, since, hours * HOUR * MINUTE_MS, now);
            assert_eq!(found.map(|span| (now - span.start_ms) / MINUTE_MS), expected, "{name}, {hours}h");
            assert!(found.is_none_or(|span| span.end_ms - span.start_ms == hours * HOUR * MINUTE_MS));
        }
    }
}
