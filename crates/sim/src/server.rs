//! The simulator as an HTTP server.

use std::{convert::Infallible, io, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Limited};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{Access, SimBody, Simulator, refusal::Refusal, route};

/// Largest request.
const MAX_REQUEST: usize = 64 << 20;
/// What running answers get to end after the stop was asked for.
const GRACE: Duration = Duration::from_secs(2);

/// Serves the simulator over HTTP/1.1 and HTTP/2 (prior knowledge) until `stop`; every key is welcome but needed.
pub async fn serve(listener: TcpListener, stop: CancellationToken) -> io::Result<()> {
    let simulator = Arc::new(Simulator::new(Access::KeyNeeded));
    let tasks = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((socket, _)) => {
                tasks.spawn(connection(socket, Arc::clone(&simulator), stop.clone()));
            }
            // Out of file descriptors, or the peer is gone already: others may still be served.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
    tasks.close();
    tasks.wait().await;
    Ok(())
}

async fn connection(socket: TcpStream, simulator: Arc<Simulator>, stop: CancellationToken) {
    // Without it small writes wait for the peer; an error here only means slower.
    let _ = socket.set_nodelay(true);
    let service = service_fn(move |request: Request<Incoming>| {
        let simulator = Arc::clone(&simulator);
        async move { Ok::<_, Infallible>(answer(&simulator, request).await) }
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    let mut connection = pin!(builder.serve_connection(TokioIo::new(socket), service));
    // How a connection ends is the peer's business, and of no interest here.
    tokio::select! {
        _ = connection.as_mut() => {}
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            let _ = tokio::time::timeout(GRACE, connection).await;
        }
    }
}

async fn answer(simulator: &Simulator, request: Request<Incoming>) -> Response<SimBody> {
    let (parts, body) = request.into_parts();
    let body: Bytes = match Limited::new(body, MAX_REQUEST).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => {
            return Refusal::status(413, "the request is too large or was cut off").respond(
                route::dialect_of(&parts).wire(),
                "req_sim",
                None,
            );
        }
    };
    simulator.respond(Request::from_parts(parts, body)).await
}
