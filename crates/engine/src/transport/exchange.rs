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

use super::connect::{Connector, Stream};
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
/// was sent, or was looked at, is no reason to fail.
pub(super) async fn run(
    connector: &Connector,
    pool: &Arc<Pool>,
    origin: Origin,
    outbound: Outbound,
) -> Result<Response<UpstreamBody>, TransportError> {
    if origin.is_encrypted()
        && let Some((trunk, lane)) = pool.board(&origin)
    {
        match over_trunk(trunk, lane, &origin, &outbound).await {
            Err(Unsent::Stale(_)) => {}
            Err(Unsent::Failed(error)) => return Err(error),
            Ok(response) => return Ok(response),
        }
    }
    while let Some(line) = pool.take(&origin) {
        match over_line(line, pool, &origin, &outbound).await {
            Err(Unsent::Stale(_)) => {}
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
        let (trunk, lane) = trunk(pool, &origin, opened.stream).await.map_err(|error| broken(&error))?;
        return over_trunk(trunk, lane, &origin, &outbound).await.map_err(Unsent::into_error);
    }
    let (sender, driver) = http1::Builder::new()
        .max_headers(MAX_HEADERS)
        .max_buf_size(READ_BUFFER)
        .handshake(opened.stream)
        .await
        .map_err(|error| broken(&error))?;
    let line = Line { sender, driver: Box::pin(driver) };
    over_line(line, pool, &origin, &outbound).await.map_err(Unsent::into_error)
}

/// Shares a connection that speaks HTTP/2.
async fn trunk(pool: &Pool, origin: &Origin, stream: Stream) -> hyper::Result<(Trunk, Lane)> {
    let (sender, driver) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .adaptive_window(true)
        .keep_alive_interval(Some(std::time::Duration::from_secs(30)))
        .handshake(stream)
        .await?;
    drive_apart(driver);
    Ok(pool.share(origin.clone(), sender))
}

/// A shared connection belongs to no request, so it gets a task; it ends when the last request and the pool let go.
#[allow(clippy::disallowed_methods, reason = "lives as long as its connection, which an orderly stop closes")]
fn drive_apart(driver: http2::Connection<Stream, Sending, TokioExecutor>) {
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
) -> Result<Response<UpstreamBody>, Unsent> {
    let mut request = outbound.request(outbound.uri.clone());
    request.headers_mut().remove(http::header::HOST);
    match trunk.sender.try_send_request(request).await {
        Ok(response) => {
            Ok(response.map(|body| UpstreamBody::Network(NetworkBody { body, held: Held::Lane(lane) })))
        }
        Err(mut error) => {
            let is_unsent = error.take_message().is_some() || is_unseen(error.error());
            let broken = broken(origin, error.error());
            if !is_unsent {
                return Err(Unsent::Failed(broken));
            }
            outbound.departure.recall();
            Err(Unsent::Stale(broken))
        }
    }
}

/// Whether the upstream says that it has not looked at the request (RFC 9113, section 8.7): it refused the stream, or that comes
/// behind the last one of its GOAWAY. Streams up to that one, where they come to nothing, break with their connection.
fn is_unseen(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.is_some_and(|cause| {
        let is_refused = cause.is_reset() && cause.reason() == Some(h2::Reason::REFUSED_STREAM);
        cause.is_remote() && (cause.is_go_away() || is_refused)
    })
}

/// Why a connection did not do.
enum Unsent {
    /// It ended before the request was sent, or was looked at: another one may do.
    Stale(TransportError),
    /// It failed.
    Failed(TransportError),
}

impl Unsent {
    /// What there is to say where no other connection is tried.
    fn into_error(self) -> TransportError {
        match self {
            Self::Stale(error) | Self::Failed(error) => error,
        }
    }
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
            Some(_) => {
                let host = origin.host().to_owned();
                Err(Unsent::Stale(TransportError::Broken { host, reason: "closed at once".into() }))
            }
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::time::SystemClock;

    const RST_STREAM: u8 = 3;
    const SETTINGS: u8 = 4;
    const GOAWAY: u8 = 7;
    /// Reasons: the connection ends in order, the upstream failed, the stream was not looked at.
    const NO_ERROR: u32 = 0;
    const INTERNAL_ERROR: u32 = 2;
    const REFUSED_STREAM: u32 = 7;

    fn frame(kind: u8, stream: u32, words: &[u32]) -> Vec<u8> {
        let length = u8::try_from(words.len() * 4).unwrap();
        let mut frame = vec![0, 0, length, kind, 0];
        frame.extend(stream.to_be_bytes());
        frame.extend(words.iter().flat_map(|word| word.to_be_bytes()));
        frame
    }

    /// An upstream that answers the whole of a first request with some frames and ends the connection.
    async fn answer_with(socket: &mut TcpStream, frames: &[u8]) {
        let mut preface = [0; 24];
        socket.read_exact(&mut preface).await.unwrap();
        socket.write_all(&frame(SETTINGS, 0, &[])).await.unwrap();
        loop {
            let mut head = [0; 9];
            socket.read_exact(&mut head).await.unwrap();
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut rest = vec![0; usize::try_from(length).unwrap()];
            socket.read_exact(&mut rest).await.unwrap();
            // DATA with END_STREAM.
            if head[3] == 0 && head[4] & 1 == 1 {
                break;
            }
        }
        socket.write_all(frames).await.unwrap();
        socket.shutdown().await.unwrap();
    }

    /// What becomes of a request over a shared connection whose upstream says that: the error, whether another connection was
    /// opened for it, and whether it has left.
    async fn sent(frames: Vec<u8>) -> (TransportError, bool, bool) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri: Uri = format!("https://{}/chat", listener.local_addr().unwrap()).parse().unwrap();
        let origin = Origin::of(&uri, true).unwrap();
        let pool = Arc::new(Pool::new(Arc::new(SystemClock)));
        let upstream = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            answer_with(&mut socket, &frames).await;
            // Whoever comes next is not served.
            listener.accept().await.unwrap();
        };
        let departure = Departure::watched();
        let asking = async {
            let socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (_, lane) = trunk(&pool, &origin, Stream::Http(TokioIo::new(socket))).await.unwrap();
            drop(lane);
            let outbound = Outbound {
                method: Method::POST,
                uri,
                headers: HeaderMap::new(),
                body: [Bytes::from_static(b"hello")].into_iter().collect(),
                attachment: None,
                departure: departure.clone(),
            };
            let connector = Connector::new(Duration::from_secs(5));
            run(&connector, &pool, origin.clone(), outbound).await.map(drop).unwrap_err()
        };
        let (mut upstream, mut asking) = (pin!(upstream), pin!(asking));
        let (error, is_another_opened) = tokio::select! {
            error = &mut asking => (error, false),
            () = &mut upstream => (asking.await, true),
        };
        (error, is_another_opened, departure.has_left())
    }

    #[tokio::test]
    async fn what_an_upstream_has_not_looked_at_goes_over_another_connection_and_has_not_left() {
        for frames in [frame(RST_STREAM, 1, &[REFUSED_STREAM]), frame(GOAWAY, 0, &[0, NO_ERROR])] {
            let (error, is_another_opened, has_left) = sent(frames).await;
            assert!(matches!(error, TransportError::Connect { .. }), "{error}");
            assert!(is_another_opened && !has_left, "{error}");
        }
    }

    #[tokio::test]
    async fn what_an_upstream_may_have_looked_at_is_not_repeated() {
        let frames = [
            frame(RST_STREAM, 1, &[INTERNAL_ERROR]),
            frame(GOAWAY, 0, &[1, NO_ERROR]),
            frame(GOAWAY, 0, &[1, INTERNAL_ERROR]),
        ];
        for frames in frames {
            let (error, is_another_opened, has_left) = sent(frames).await;
            assert!(matches!(error, TransportError::Broken { .. }), "{error}");
            assert!(!is_another_opened && has_left, "{error}");
        }
    }
}
