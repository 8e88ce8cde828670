//! From rows to the configuration in force.

use std::sync::atomic::Ordering;

use omniroute_domain::snapshot::{BuildOptions, Snapshot};
use omniroute_engine::Live;
use omniroute_engine::ports::Recorder;
use omniroute_provider::catalog::Catalog;

use crate::error::StoreError;
use crate::store::Store;

/// Builds a snapshot from the rows and puts it in force. What is wrong with single rows disables those and goes to
/// the log. Gives the revision now in force.
pub async fn reload(
    store: &Store,
    live: &Live,
    catalog: &'static Catalog,
    options: &BuildOptions,
    recorder: &dyn Recorder,
) -> Result<u64, StoreError> {
    let _one_after_the_other = store.reloading().lock().await;
    let entities = store.entities().await?;
    let snapshot = Snapshot::build(&entities, catalog, &live.health, options);
    for problem in &snapshot.problems {
        tracing::warn!(entity = problem.entity, id = problem.id, message = problem.message, "row is off");
    }
    live.swap(snapshot, recorder);
    store.in_force().store(entities.revision, Ordering::Relaxed);
    Ok(entities.revision)
}
