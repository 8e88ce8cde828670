//! One request over one connection.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Uri};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use omniroute_wire::splice::Pieces;

use super::connect::Connector;
use super::origin_form;
use super::pool::{Lane, Line, Origin, Pool, Trunk};
use super::sending::Sending;
use crate::ports::{Attachment, Departure, TransportError, UpstreamBody};

/// Most headers of an answer.
const MAX_HEADERS: usize = 200;
/// Most bytes of an answer's head, and of what is read at once.
const READ_BUFFER: usize = 32 * 1024;

/// A request that can be sent more than once.
pub(super) struct Outbound {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) body: Pieces,
    pub(super) attachment: Option<Box<Attachment>>,
    pub(super) departure: Departure,
}

impl Outbound {
    fn request(&self, uri: Uri) -> Request<Sending> {
        let mut request =
            Request::new(Sending::new(self.body.clone(), self.attachment.as_deref(), self.departure.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = self.headers.clone();
        request
    }
}

/// Sends a request and waits for the answer's head. A kept connection that turns out to be closed before the request
/// was sent is no reason to fail.
pub(super) async fn run(
    connector: &Connector,
    pool: &Arc<Pool>,
    origin: Origin,
    outbound: Outbound,
) -> Result<Response<UpstreamBody>, TransportError> {
    if origin.is_encrypted()
        && let Some((trunk, lane)) = pool.board(&origin)
    {
        return over_trunk(trunk, lane, &origin, &outbound).await;
    }
    while let Some(line) = pool.take(&origin) {
        match over_line(line, pool, &origin, &outbound).await {
            Err(Unsent::Stale) => {}
            Err(Unsent::Failed(error)) => return Err(error),
            Ok(response) => return Ok(response),
        }
    }
    // Boxed so that requests over kept connections do not carry the room that opening one needs.
    Box::pin(over_another(connector, pool, origin, outbound)).await
}

/// Opens a connection, and sends the request over it.
async fn over_another(
    connector: &Connector,
    pool: &Arc<Pool>,
    origin: Origin,
    outbound: Outbound,
) -> Result<Response<UpstreamBody>, TransportError> {
    let opened = connector.open(&origin).await?;
    let broken = |error: &hyper::Error| broken(&origin, error);
    if opened.is_http2 {
        let (sender, driver) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .adaptive_window(true)
            .keep_alive_interval(Some(std::time::Duration::from_secs(30)))
            .handshake(opened.stream)
            .await
            .map_err(|error| broken(&error))?;
        drive_apart(driver);
        let (trunk, lane) = pool.share(origin.clone(), sender);
        return over_trunk(trunk, lane, &origin, &outbound).await;
    }
    let (sender, driver) = http1::Builder::new()
        .max_headers(MAX_HEADERS)
        .max_buf_size(READ_BUFFER)
        .handshake(opened.stream)
        .await
        .map_err(|error| broken(&error))?;
    let line = Line { sender, driver: Box::pin(driver) };
    match over_line(line, pool, &origin, &outbound).await {
        Ok(response) => Ok(response),
        Err(Unsent::Failed(error)) => Err(error),
        Err(Unsent::Stale) => {
            Err(TransportError::Broken { host: origin.host().to_owned(), reason: "closed at once".into() })
        }
    }
}

/// A shared connection belongs to no request, so it gets a task; it ends when the last request and the pool let go.
#[allow(clippy::disallowed_methods, reason = "lives as long as its connection, which an orderly stop closes")]
fn drive_apart(driver: http2::Connection<super::connect::Stream, Sending, TokioExecutor>) {
    tokio::spawn(async move {
        if let Err(error) = driver.await {
            tracing::debug!(%error, "shared connection ended");
        }
    });
}

async fn over_trunk(
    mut trunk: Trunk,
    lane: Lane,
    origin: &Origin,
    outbound: &Outbound,
) -> Result<Response<UpstreamBody>, TransportError> {
    let mut request = outbound.request(outbound.uri.clone());
    request.headers_mut().remove(http::header::HOST);
    let response = trunk.sender.send_request(request).await.map_err(|error| broken(origin, &error))?;
    Ok(response.map(|body| UpstreamBody::Network(NetworkBody { body, held: Held::Lane(lane) })))
}

/// Why a connection did not do.
enum Unsent {
    /// It was closed before the request was sent.
    Stale,
    /// It failed.
    Failed(TransportError),
}

async fn over_line(
    mut line: Line,
    pool: &Arc<Pool>,
    origin: &Origin,
    outbound: &Outbound,
) -> Result<Response<UpstreamBody>, Unsent> {
    let Line { sender, driver } = &mut line;
    let mut sending = pin!(sender.try_send_request(outbound.request(origin_form(&outbound.uri))));
    let mut is_closed = false;
    let sent = std::future::poll_fn(|cx| {
        if let Poll::Ready(sent) = sending.as_mut().poll(cx) {
            return Poll::Ready(sent);
        }
        if !is_closed {
            is_closed = driver.as_mut().poll(cx).is_ready();
        }
        sending.as_mut().poll(cx)
    })
    .await;
    match sent {
        Ok(response) => {
            let held =
                Held::Line { line: (!is_closed).then_some(line), pool: pool.clone(), origin: origin.clone() };
            Ok(response.map(|body| UpstreamBody::Network(NetworkBody { body, held })))
        }
        Err(mut error) => match error.take_message() {
            Some(_) => Err(Unsent::Stale),
            None => Err(Unsent::Failed(broken(origin, error.error()))),
        },
    }
}

fn broken(origin: &Origin, error: &hyper::Error) -> TransportError {
    let cause = std::error::Error::source(error).map_or_else(String::new, |cause| format!(": {cause}"));
    TransportError::Broken { host: origin.host().to_owned(), reason: format!("{error}{cause}") }
}

/// The body of an upstream's answer, and the connection it comes over.
pub struct NetworkBody {
    body: Incoming,
    held: Held,
}

enum Held {
    /// A connection of its own; back to the pool at the end, closed when dropped before.
    Line { line: Option<Line>, pool: Arc<Pool>, origin: Origin },
    /// A place on a shared one.
    #[allow(dead_code, reason = "held for its Drop")]
    Lane(Lane),
}

impl Body for NetworkBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = &mut *self;
        let Held::Line { line, .. } = &mut this.held else {
            return Pin::new(&mut this.body)
                .poll_frame(cx)
                .map(|frame| frame.map(|done| done.map_err(io::Error::other)));
        };
        // Whatever comes next comes through the driver, which is polled right below: nobody else needs to wake us.
        let mut nobody = Context::from_waker(Waker::noop());
        let mut frame = Pin::new(&mut this.body).poll_frame(&mut nobody);
        if frame.is_pending() {
            match line {
                Some(open) => {
                    if open.driver.as_mut().poll(cx).is_ready() {
                        *line = None;
                    }
                    frame = Pin::new(&mut this.body).poll_frame(&mut nobody);
                }
                None => return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into()))),
            }
        }
        let frame = ready!(frame);
        if frame.is_none() {
            this.give_back();
        }
        Poll::Ready(frame.map(|done| done.map_err(io::Error::other)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

impl NetworkBody {
    fn give_back(&mut self) {
        if let Held::Line { line, pool, origin } = &mut self.held
            && let Some(line) = line.take()
        {
            pool.keep(origin.clone(), line);
        }
    }
}

impl Drop for NetworkBody {
    fn drop(&mut self) {
        // Readers that know the length stop before the end is announced.
        if self.body.is_end_stream() {
            self.give_back();
        }
    }
}
