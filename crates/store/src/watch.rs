//! Notices that the configuration was changed, by this process or another.

use std::sync::atomic::Ordering;
use std::time::Duration;

use sqlx::postgres::PgListener;
use tokio_util::sync::CancellationToken;

use crate::pool::Pool;
use crate::store::Store;

/// SQLite tells nobody, so it is asked.
const POLL: Duration = Duration::from_secs(1);
/// Postgres notifies; asking is for notices that were lost.
const SAFETY_POLL: Duration = Duration::from_secs(15);

/// Calls back when the configuration is no longer the known one, until cancelled. Start it with the revision in
/// force, and let the callback [`reload`](crate::reload()) and tell whether it could; if not, it is called again.
/// What was reloaded by then is passed over.
pub async fn watch<F, R>(store: Store, known: u64, cancel: CancellationToken, on_change: F)
where
    F: Fn() -> R + Send + Sync,
    R: Future<Output = bool> + Send,
{
    tokio::select! {
        () = cancel.cancelled() => {}
        () = run(&store, known, on_change) => {}
    }
}

async fn run<F, R>(store: &Store, mut known: u64, on_change: F)
where
    F: Fn() -> R,
    R: Future<Output = bool>,
{
    let (mut failing, mut behind) = (false, false);
    let mut listener = listen(store).await;
    // What was changed before the listener listened is noticed at once.
    let mut first_look = true;
    loop {
        match &mut listener {
            _ if first_look => first_look = false,
            Some(notices) => {
                tokio::select! {
                    notice = notices.recv() => if let Err(error) = notice {
                        tracing::warn!(%error, "configuration notices are lost; asking instead");
                        listener = None;
                    },
                    () = tokio::time::sleep(if behind { POLL } else { SAFETY_POLL }) => {}
                }
            }
            None => {
                tokio::time::sleep(POLL).await;
                listener = listen(store).await;
            }
        }
        match store.revision().await {
            Ok(revision) => {
                failing = false;
                known = known.max(store.in_force().load(Ordering::Relaxed));
                behind = revision != known && !on_change().await;
                if !behind {
                    known = revision;
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
