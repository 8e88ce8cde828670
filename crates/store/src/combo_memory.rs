//! What traffic found out about combos, for the time after a restart: whose turn it is and who answered last as rows of
//! `rrCounters` and `lkgp` in `key_value`, counts from the request log, since they were cleared (`comboCountsCleared`).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use omniroute_domain::combo::{ComboMark, ComboState};
use omniroute_domain::entity::{ComboId, CountsCleared};
use omniroute_domain::routing::Manner;
use omniroute_domain::routing::auto::POOL;
use omniroute_domain::snapshot::Snapshot;
use omniroute_engine::Live;
use omniroute_engine::ports::COUNT;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::call_logs::StoredAttempt;
use crate::error::StoreError;
use crate::pool::{bump_revision, with_read, with_write};
use crate::store::{REVISION, Store, revision_of};
use crate::text::to_json;

/// How often what changed is written.
const EVERY: Duration = Duration::from_secs(5);
/// Most logged requests from which counts are made again.
const MAX_RECOUNTED: i64 = 20_000;

/// Failures that say nothing about a target: the client went away, an operator ended the request, or another target was
/// quicker.
const SAYS_NOTHING: [&str; 3] = ["client_abort", "operator_abort", "cancelled"];

const CLEARED: &str = "comboCountsCleared";
/// Every combo whose counts were cleared, and when.
pub(crate) const SELECT_CLEARED: &str =
    "SELECT key, value FROM key_value WHERE namespace = 'comboCountsCleared' ORDER BY key";
const SELECT: &str = "SELECT namespace, key, value FROM key_value
     WHERE namespace IN ('rrCounters', 'lkgp', 'comboCountsCleared')";
const UPSERT: &str = "INSERT INTO key_value (namespace, key, value) VALUES ($1, $2, $3)
     ON CONFLICT (namespace, key) DO UPDATE SET value = excluded.value";
const DELETE: &str = "DELETE FROM key_value WHERE namespace = $1 AND key = $2";

/// Access to what is kept of combos.
#[derive(Debug, Clone, Copy)]
pub struct ComboMemories<'a>(pub(crate) &'a Store);

/// Who answered last.
#[derive(Serialize, Deserialize)]
struct LastGood {
    step: String,
    at: i64,
}

/// A combo whose logged requests are counted again.
struct Counted<'a> {
    combo: &'a Arc<ComboState>,
    /// Its counts begin behind this time.
    since: i64,
    /// Those of its steps. All that choose among every model share them.
    steps_since: i64,
}

impl ComboMemories<'_> {
    /// Gives the combos of a snapshot back what earlier processes knew of them; how many logged requests were counted again.
    pub async fn recall(&self, snapshot: &Snapshot) -> Result<u64, StoreError> {
        let combos = by_id(snapshot);
        let rows: Vec<(String, String, String)> =
            with_read!(self.0.pool(), |db| sqlx::query_as(SELECT).fetch_all(&mut *db).await?);
        let mut marks: HashMap<String, ComboMark> = HashMap::new();
        let mut cleared: HashMap<ComboId, CountsCleared> = HashMap::new();
        for (namespace, key, value) in rows {
            // A row that cannot be read costs a turn, not the start.
            if namespace == CLEARED {
                cleared.extend(parse_cleared((key, value)));
                continue;
            }
            let mark = marks.entry(key).or_default();
            match namespace.as_str() {
                "lkgp" => {
                    let last: Option<LastGood> = serde_json::from_str(&value).ok();
                    mark.last_good = last.map(|last| (last.step.into(), last.at));
                }
                _ => mark.turn = value.parse().unwrap_or(0),
            }
        }
        for (id, mark) in &marks {
            if let Some(combo) = combos.get(id.as_str()) {
                combo.memory.restore(mark);
            }
        }
        let since = |id: &str| cleared.get(&ComboId::from(id)).map_or(i64::MIN, |cleared| cleared.at);
        let tracked = combos.into_iter().filter(|(_, combo)| combo.policy.tracks_metrics);
        let counted = tracked.map(|(id, combo)| {
            let since_of_steps = if snapshot.chooses_from_pool(combo) { POOL } else { id };
            (id, Counted { combo, since: since(id), steps_since: since(since_of_steps) })
        });
        self.recount(&counted.collect()).await
    }

    /// Has the counts of these combos begin anew, in every process: each clears them when it reloads. `and_pool` if any of
    /// the combos chooses among every model.
    pub async fn clear(&self, ids: &[ComboId], and_pool: bool, now_ms: i64) -> Result<(), StoreError> {
        let pool = and_pool.then_some(POOL);
        with_write!(self.0.pool(), |db| {
            bump_revision!(db);
            let revision: String = sqlx::query_scalar(REVISION).fetch_one(&mut *db).await?;
            let cleared = to_json(&CountsCleared { at: now_ms, revision: revision_of(&revision)? })?;
            for key in ids.iter().map(ComboId::as_str).chain(pool) {
                sqlx::query(UPSERT).bind(CLEARED).bind(key).bind(&cleared).execute(&mut *db).await?;
            }
        });
        Ok(())
    }

    /// Counts the logged requests of combos again, oldest first. Those that count tokens were counted nowhere.
    async fn recount(&self, combos: &HashMap<&str, Counted<'_>>) -> Result<u64, StoreError> {
        const LOGGED: &str =
            "SELECT timestamp, status, ttft, duration, attempt_details, combo_step_id FROM call_logs
             WHERE combo_name IS NOT NULL AND attempt_details IS NOT NULL AND COALESCE(request_type, '') <> $2
             ORDER BY timestamp DESC, id DESC LIMIT $1";
        let mut logged: Vec<Logged> = with_read!(self.0.pool(), |db| {
            sqlx::query_as(LOGGED).bind(MAX_RECOUNTED).bind(COUNT).fetch(&mut *db).try_collect().await?
        });
        logged.reverse();
        for Logged { timestamp, status, ttft, duration, attempt_details, combo_step_id: step } in &logged {
            let attempts = StoredAttempt::all(attempt_details, step.as_deref());
            let is_single = attempts.len() == 1;
            let took = u64::try_from(ttft.unwrap_or(*duration)).unwrap_or(0);
            let answered = (*status < 400).then_some(took);
            count_request(combos, &attempts, answered, *timestamp, timestamp.saturating_add(*duration));
            // The accounts of one target are one request of its step.
            for target in attempts.chunk_by(|one, next| one.steps == next.steps) {
                let Some(last) = target.last() else { continue };
                let took = if is_single { ttft.unwrap_or(*duration) } else { last.duration_ms };
                let latency = last.failure.is_none().then(|| u64::try_from(took).unwrap_or(0));
                if last.failure.as_deref().is_some_and(|failure| SAYS_NOTHING.contains(&failure)) {
                    continue;
                }
                for (combo, step) in &last.steps {
                    let Some(counted) = combos.get(&**combo) else { continue };
                    if *timestamp <= counted.steps_since {
                        continue;
                    }
                    if let Some(step) = counted.combo.steps.iter().find(|own| *own.id == **step) {
                        step.stats.note(latency, timestamp.saturating_add(*duration));
                    }
                }
            }
        }
        Ok(logged.len() as u64)
    }

    /// Writes what differs from `known`, and what is known then.
    pub async fn keep(
        &self,
        snapshot: &Snapshot,
        known: &mut HashMap<ComboId, ComboMark>,
    ) -> Result<(), StoreError> {
        let combos = by_id(snapshot);
        known.retain(|id, _| combos.contains_key(id.as_str()));
        let mut changed = Vec::new();
        for combo in combos.values() {
            let mark = combo.memory.mark();
            if known.get(&combo.id).map_or(mark != ComboMark::default(), |before| *before != mark) {
                changed.push((combo.id.clone(), mark));
            }
        }
        if changed.is_empty() {
            return Ok(());
        }
        // All writers go by the same order, so that they cannot lock each other out.
        changed.sort_by(|a, b| a.0.cmp(&b.0));
        let last_good = |mark: &ComboMark| {
            let (step, at) = mark.last_good.as_ref()?;
            serde_json::to_string(&LastGood { step: step.to_string(), at: *at }).ok()
        };
        with_write!(self.0.pool(), |db| {
            for (id, mark) in &changed {
                let turn = mark.turn.to_string();
                sqlx::query(UPSERT).bind("rrCounters").bind(id.as_str()).bind(turn).execute(&mut *db).await?;
                match last_good(mark) {
                    Some(value) => {
                        sqlx::query(UPSERT)
                            .bind("lkgp")
                            .bind(id.as_str())
                            .bind(value)
                            .execute(&mut *db)
                            .await?
                    }
                    None => sqlx::query(DELETE).bind("lkgp").bind(id.as_str()).execute(&mut *db).await?,
                };
            }
        });
        known.extend(changed);
        Ok(())
    }
}

/// When the counts of a combo were cleared, of a row; one that cannot be read clears nothing. Older rows are the time alone,
/// which was before every revision that a process may know.
pub(crate) fn parse_cleared((id, value): (String, String)) -> Option<(ComboId, CountsCleared)> {
    let earlier = || Some(CountsCleared { at: value.parse().ok()?, revision: 0 });
    let cleared = serde_json::from_str(&value).ok().or_else(earlier)?;
    Some((id.into(), cleared))
}

/// What is counted of a logged request.
#[derive(sqlx::FromRow)]
struct Logged {
    timestamp: i64,
    status: i64,
    ttft: Option<i64>,
    duration: i64,
    attempt_details: String,
    combo_step_id: Option<String>,
}

/// Counts a logged request once in every combo that it went through. `latency` is that of its answer, if it got one; it came at
/// `timestamp`.
fn count_request(
    combos: &HashMap<&str, Counted<'_>>,
    attempts: &[StoredAttempt<'_>],
    latency: Option<u64>,
    timestamp: i64,
    ended_at: i64,
) {
    let is_cut = |attempt: &StoredAttempt<'_>| {
        matches!(attempt.failure.as_deref(), Some("client_abort" | "operator_abort"))
    };
    let Some(asked) = attempts.first().and_then(|first| first.steps.first()).map(|(asked, _)| asked) else {
        return;
    };
    if attempts.iter().any(is_cut) {
        return;
    }
    let mut answered: BTreeMap<&str, bool> = BTreeMap::new();
    for attempt in attempts {
        for (combo, _) in &attempt.steps {
            *answered.entry(combo).or_default() |= attempt.failure.is_none();
        }
    }
    for (id, has_answered) in answered {
        let Some(Counted { combo, since, .. }) = combos.get(id) else { continue };
        if timestamp <= *since {
            continue;
        }
        let is_asked = id == &**asked;
        combo.memory.stats.note(latency.filter(|_| is_asked || has_answered), ended_at);
        if is_asked && latency.is_some() && is_fallback(attempts, combo) {
            combo.memory.fallbacks.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Whether another than the combo's first choice answered, or not at once. Of older rows the calls have to tell.
fn is_fallback(attempts: &[StoredAttempt<'_>], combo: &ComboState) -> bool {
    let looks_for_one = || matches!(combo.strategy.manner(), Manner::OneByOne | Manner::Race);
    let is_told = attempts.first().and_then(|first| first.fallback);
    is_told.unwrap_or_else(|| attempts.len() > 1 && looks_for_one())
}

/// Writes every few seconds what changed in combos and in the turns of accounts, and once more at the end.
pub async fn keep_combos(store: Store, live: Arc<Live>, cancel: CancellationToken) {
    let (mut known, mut turns) = (HashMap::new(), HashMap::new());
    let mut is_last = false;
    while !is_last {
        is_last = tokio::time::timeout(EVERY, cancel.cancelled()).await.is_ok();
        let snapshot = live.load().clone();
        if let Err(error) = store.combo_memories().keep(&snapshot, &mut known).await {
            tracing::warn!(%error, "whose turn it is in combos cannot be written now; it is tried again");
        }
        if let Err(error) = store.rotation_memories().keep(&snapshot, &mut turns).await {
            tracing::warn!(%error, "whose turn it is among accounts cannot be written now; it is tried again");
        }
    }
}

/// Every combo, those without a row among them, by its id.
fn by_id(snapshot: &Snapshot) -> HashMap<&str, &Arc<ComboState>> {
    let all = snapshot.combos().into_iter().chain(snapshot.auto_variants());
    all.map(|combo| (combo.id.as_str(), combo)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_rows_say_the_time_alone() {
        let cleared =
            |value: &str| parse_cleared(("c".to_owned(), value.to_owned())).map(|(_, cleared)| cleared);
        assert_eq!(cleared("1700000000000"), Some(CountsCleared { at: 1_700_000_000_000, revision: 0 }));
        let newer = CountsCleared { at: 5, revision: 7 };
        assert_eq!(cleared(&to_json(&newer).unwrap()), Some(newer));
        assert_eq!(cleared("soon"), None);
    }
}
