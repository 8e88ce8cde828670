//! The accept loop and the orderly stop.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::socket::Socket;
use super::{Gateway, Side};

/// How long a client may take to send the head of a request.
pub(super) const HEAD_LIMIT: Duration = Duration::from_secs(30);
/// Most bytes of a head.
pub(super) const MAX_HEAD_BYTES: usize = 256 * 1024;
/// Most headers of a request. This is hyper's own limit: another one would cost every request an allocation.
pub(super) const MAX_HEADERS: usize = 100;
/// Most bytes of path and query; hyper's own limit too.
pub(super) const MAX_TARGET_BYTES: usize = 65_534;
/// Most connections at once; further ones wait in the system's queue.
const MAX_CONNECTIONS: usize = 20_000;

/// Serves until `stop`, then lets running requests finish for at most `patience`.
pub(crate) async fn serve(
    gateway: Arc<Gateway>,
    (listener, side): (TcpListener, Side),
    tasks: TaskTracker,
    stop: CancellationToken,
    patience: Duration,
) {
    let server = Arc::new(server());
    let graceful = GracefulShutdown::new();
    let places = Arc::new(tokio::sync::Semaphore::new(MAX_CONNECTIONS));
    loop {
        let place = tokio::select! {
            () = stop.cancelled() => break,
            place = places.clone().acquire_owned() => place,
        };
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: wait for some to come back instead of spinning.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        let (gateway, refuser, server) = (gateway.clone(), gateway.clone(), server.clone());
        let (socket, mut leftover) = Socket::new(socket, HEAD_LIMIT);
        let watcher = graceful.watcher();
        tasks.spawn(async move {
            let service = service_fn(move |request| {
                let gateway = gateway.clone();
                async move { Ok::<_, Infallible>(gateway.handle(request, peer, side).await) }
            });
            let connection = server.serve_connection(TokioIo::new(socket), service);
            let error = watcher.watch(connection).await.err();
            if let Some(error) = &error {
                tracing::debug!(%error, "connection ended");
            }
            if let Ok(left) = leftover.try_recv() {
                refuser.close(left, error.as_deref(), peer, side).await;
            }
            drop(place);
        });
    }
    drop(listener);
    if tokio::time::timeout(patience, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests were still running when the time to stop had passed");
    }
}

/// The server of every connection.
pub(super) fn server() -> Builder<TokioExecutor> {
    let mut server = Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_buf_size(MAX_HEAD_BYTES)
        // Head and body leave in one write. Not `pipeline_flush`, which does the same: it holds an answer back for as
        // long as bytes lie there that are no whole request, such as an empty line after the body.
        .writev(false);
    server
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(256)
        .keep_alive_interval(Some(Duration::from_secs(30)));
    server
}
