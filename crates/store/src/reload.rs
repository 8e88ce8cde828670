//! From rows to the configuration in force.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use omniroute_domain::entity::ApiKeyId;
use omniroute_domain::snapshot::{BuildOptions, Snapshot};
use omniroute_engine::ports::Recorder;
use omniroute_engine::{Live, chronicle};
use omniroute_provider::catalog::Catalog;

use crate::cleared::Cleared;
use crate::error::StoreError;
use crate::store::Store;

/// Builds a snapshot from the rows and puts it in force. What is wrong with single rows disables those and goes to
/// the log. Where windows of budgets begin at another time, the ledger says what was spent in them, and what is reached of a budget
/// that was changed is told anew, whoever changed it; and what operators ended since is ended, whichever process they asked. Gives the
/// revision now in force.
pub async fn reload(
    store: &Store,
    live: &Live,
    catalog: &'static Catalog,
    options: &BuildOptions,
    recorder: &dyn Recorder,
    now_ms: i64,
) -> Result<u64, StoreError> {
    let _one_after_the_other = store.reloading().lock().await;
    let entities = store.entities().await?;
    let snapshot = Snapshot::build(&entities, catalog, &live.health, options);
    for problem in &snapshot.problems {
        tracing::warn!(entity = problem.entity, id = problem.id, message = problem.message, "row is off");
    }
    let (before, budgets) = (Arc::clone(&live.load()), &snapshot.budgets);
    let is_moved = |key: Option<&ApiKeyId>| budgets.calendar_of(key) != before.budgets.calendar_of(key);
    // Before the swap, after which nothing may fail: what is spent meanwhile is known to be missing in the ledger.
    let recounted = match budgets.have_moved(&before.budgets) {
        true => store.ledger().sums_of(budgets, is_moved, now_ms).await?,
        false => Vec::new(),
    };
    let ended = store.states_cleared().between(before.revision, entities.revision).await?;
    live.swap(snapshot, recorder);
    // What this process knew of it, and was about to write, is over.
    for cleared in ended {
        let id = match cleared {
            Cleared::Errors(id) => id,
            Cleared::Reset(reset) => {
                chronicle::reset(live, recorder, &reset, now_ms);
                continue;
            }
        };
        let Some(account) = live.load().connection(&id).cloned() else { continue };
        let row = entities.connections.iter().find(|row| row.id == id);
        // Not as the row has it: a process that had not heard of it yet may have written there what was cleared.
        let status = row.map(|row| row.status.without_errors()).unwrap_or_default();
        chronicle::clear(live, recorder, &account, status.clone(), now_ms);
        recorder.connection_status(&id, status);
    }
    for (key, sums) in recounted {
        live.spending.restore(&live.load().budgets, key.as_ref(), &sums, now_ms);
    }
    for key in live.load().budgets.changed_since(&before.budgets) {
        live.spending.changed(key);
    }
    store.in_force().store(entities.revision, Ordering::Relaxed);
    Ok(entities.revision)
}
