//! Notices that the configuration was changed, by this process or another.

use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::postgres::PgListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::pool::Pool;
use crate::store::Store;

/// SQLite tells nobody, so it is asked.
const POLL: Duration = Duration::from_secs(1);
/// Postgres notifies; asking is for notices that were lost.
const SAFETY_POLL: Duration = Duration::from_secs(15);

/// Calls back with every new revision, until cancelled. The callback also hears of changes that this process made
/// itself: it compares with the revision in force.
pub fn watch<F>(store: &Store, tracker: &TaskTracker, cancel: CancellationToken, on_change: F)
where
    F: Fn(u64) -> BoxFuture<'static, ()> + Send + Sync + 'static,
{
    let store = store.clone();
    tracker.spawn(async move {
        tokio::select! {
            () = cancel.cancelled() => {}
            () = run(&store, on_change) => {}
        }
    });
}

async fn run<F>(store: &Store, on_change: F)
where
    F: Fn(u64) -> BoxFuture<'static, ()>,
{
    let mut known = store.revision().await.unwrap_or(0);
    let mut failing = false;
    let mut listener = listen(store).await;
    loop {
        match &mut listener {
            Some(notices) => {
                tokio::select! {
                    notice = notices.recv() => if let Err(error) = notice {
                        tracing::warn!(%error, "configuration notices are lost; asking instead");
                        listener = None;
                    },
                    () = tokio::time::sleep(SAFETY_POLL) => {}
                }
            }
            None => {
                tokio::time::sleep(POLL).await;
                if failing {
                    listener = listen(store).await;
                }
            }
        }
        match store.revision().await {
            Ok(revision) => {
                failing = false;
                if revision != known {
                    known = revision;
                    on_change(revision).await;
                }
            }
            Err(error) => {
                if !failing {
                    tracing::warn!(%error, "the configuration's revision cannot be read");
                }
                failing = true;
            }
        }
    }
}

async fn listen(store: &Store) -> Option<PgListener> {
    let Pool::Postgres(pool) = store.pool() else { return None };
    let mut listener = PgListener::connect_with(pool).await.ok()?;
    listener.listen("omniroute_configuration").await.ok()?;
    Some(listener)
}
