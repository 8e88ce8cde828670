//! An upstream on a real socket that does exactly what it is told.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpStream},
    sync::Notify,
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

/// How long the waiting calls wait before the test has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// One thing an answer's body does.
#[derive(Debug, Clone)]
pub enum Step {
    /// Sends bytes, as one write and one chunk.
    Send(Bytes),
    /// Waits.
    Pause(Duration),
    /// Sends nothing more and keeps the connection open.
    Hang,
    /// Resets the connection.
    Abort,
}

/// What is answered to one request.
#[derive(Debug, Clone)]
pub struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) head_after: Duration,
    pub(crate) steps: Vec<Step>,
    /// The steps are everything that is sent: status line, headers and framing included.
    raw: bool,
}

impl Answer {
    /// An answer with a body of this type; further bytes may follow.
    pub fn new(status: u16, content_type: &'static str) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        Self { status, headers, head_after: Duration::ZERO, steps: Vec::new(), raw: false }
    }

    /// A JSON document.
    pub fn json(status: u16, body: impl Into<Bytes>) -> Self {
        Self::new(status, "application/json").send(body)
    }

    /// A stream of events, each its own piece.
    pub fn sse(events: &[&str]) -> Self {
        let answer = Self::new(200, "text/event-stream");
        events.iter().fold(answer, |answer, event| answer.send((*event).to_owned()))
    }

    /// Bytes instead of an HTTP answer; the connection is closed behind them.
    pub fn raw(bytes: impl Into<Bytes>) -> Self {
        Self { raw: true, ..Self::new(200, "text/plain") }.send(bytes)
    }

    /// Adds a header.
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        let value = HeaderValue::from_str(value).unwrap_or_else(|error| panic!("{name}: {error}"));
        self.headers.append(HeaderName::from_static(name), value);
        self
    }

    /// Waits before the head.
    pub fn after(mut self, pause: Duration) -> Self {
        self.head_after = pause;
        self
    }

    /// Adds a piece of the body.
    pub fn send(mut self, bytes: impl Into<Bytes>) -> Self {
        self.steps.push(Step::Send(bytes.into()));
        self
    }

    /// Waits before the next piece.
    pub fn pause(mut self, pause: Duration) -> Self {
        self.steps.push(Step::Pause(pause));
        self
    }

    /// Never ends.
    pub fn hang(mut self) -> Self {
        self.steps.push(Step::Hang);
        self
    }

    /// Breaks off.
    pub fn abort(mut self) -> Self {
        self.steps.push(Step::Abort);
        self
    }
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Captured {
    /// Method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Headers; names in lower case, in the order they came.
    pub headers: Vec<(String, String)>,
    /// Body, without chunk framing.
    pub body: Bytes,
    /// Number of the connection, from 0.
    pub connection: usize,
}

impl Captured {
    /// The first header of that name (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// A server on a loopback port. Ends when it is dropped.
#[derive(Debug)]
pub struct ScriptedUpstream {
    address: SocketAddr,
    state: Arc<State>,
    _stop: DropGuard,
}

#[derive(Debug, Default)]
struct State {
    answers: Mutex<VecDeque<Answer>>,
    /// Given when the queue is empty.
    fallback: Mutex<Option<Answer>>,
    requests: Mutex<Vec<Captured>>,
    connections: Mutex<usize>,
    /// Connections that the client closed while an answer was under way.
    hung_up: Mutex<usize>,
    changed: Notify,
}

impl ScriptedUpstream {
    /// Listens on a free loopback port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap_or_else(|error| panic!("no loopback port: {error}"));
        let address = listener.local_addr().unwrap_or_else(|error| panic!("no address: {error}"));
        let state = Arc::new(State::default());
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        tasks.spawn(accept(listener, Arc::clone(&state), stop.clone(), tasks.clone()));
        Self { address, state, _stop: stop.drop_guard() }
    }

    /// Adds the answer to a later request.
    pub fn answer(&self, answer: Answer) -> &Self {
        lock(&self.state.answers).push_back(answer);
        self
    }

    /// The answer to all requests that have none of their own. Without one such a request gets a 599.
    pub fn always(&self, answer: Answer) -> &Self {
        *lock(&self.state.fallback) = Some(answer);
        self
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<Captured> {
        lock(&self.state.requests).clone()
    }

    /// Number of connections so far.
    pub fn connections(&self) -> usize {
        *lock(&self.state.connections)
    }

    /// Waits until so many requests have come, and shows the last of them.
    pub async fn request(&self, count: usize) -> Captured {
        self.wait(&format!("request number {count}"), || lock(&self.state.requests).len() >= count).await;
        lock(&self.state.requests)[count - 1].clone()
    }

    /// Waits until so many clients have gone away before their answer's end.
    pub async fn hung_up(&self, count: usize) {
        self.wait(&format!("hang-up number {count}"), || *lock(&self.state.hung_up) >= count).await;
    }

    async fn wait(&self, what: &str, mut done: impl FnMut() -> bool) {
        let waiting = async {
            loop {
                let changed = self.state.changed.notified();
                if done() {
                    return;
                }
                changed.await;
            }
        };
        if tokio::time::timeout(PATIENCE, waiting).await.is_err() {
            panic!("{what} did not come within {PATIENCE:?}");
        }
    }
}

async fn accept(listener: TcpListener, state: Arc<State>, stop: CancellationToken, tasks: TaskTracker) {
    loop {
        let socket = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let Ok((socket, _)) = socket else { continue };
        let number = {
            let mut connections = lock(&state.connections);
            *connections += 1;
            *connections - 1
        };
        let (state, stop) = (Arc::clone(&state), stop.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = serve(socket, number, &state) => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

/// Requests of one connection, one after the other.
async fn serve(mut socket: TcpStream, connection: usize, state: &State) {
    // Every write is to be a packet of its own.
    let _ = socket.set_nodelay(true);
    let mut buffer = Vec::new();
    while let Some(captured) = read_request(&mut socket, &mut buffer, connection).await {
        lock(&state.requests).push(captured);
        state.changed.notify_waiters();
        let queued = lock(&state.answers).pop_front();
        let answer = queued.or_else(|| lock(&state.fallback).clone());
        let answer =
            answer.unwrap_or_else(|| Answer::json(599, r#"{"error":"no answer is left in the script"}"#));
        let close = answer.raw;
        let outcome = tokio::select! {
            outcome = play(&socket, answer) => outcome,
            // Further bytes from the client would be a pipelined request, which no client of ours sends.
            () = gone(&socket) => Outcome::HungUp,
        };
        match outcome {
            Outcome::Ended if !close => {}
            Outcome::Ended => break,
            Outcome::Aborted => {
                let _ = socket.set_zero_linger();
                break;
            }
            Outcome::HungUp => {
                *lock(&state.hung_up) += 1;
                state.changed.notify_waiters();
                break;
            }
        }
    }
}

enum Outcome {
    Ended,
    Aborted,
    HungUp,
}

async fn play(socket: &TcpStream, answer: Answer) -> Outcome {
    tokio::time::sleep(answer.head_after).await;
    if !answer.raw {
        let reason = StatusCode::from_u16(answer.status).ok().and_then(|status| status.canonical_reason());
        let mut head = format!("HTTP/1.1 {} {}\r\n", answer.status, reason.unwrap_or("Scripted"));
        for (name, value) in &answer.headers {
            head.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap_or_default()));
        }
        head.push_str("transfer-encoding: chunked\r\n\r\n");
        if write_all(socket, head.as_bytes()).await.is_err() {
            return Outcome::HungUp;
        }
    }
    for step in answer.steps {
        let written = match step {
            Step::Send(bytes) if answer.raw => write_all(socket, &bytes).await,
            Step::Send(bytes) if bytes.is_empty() => Ok(()),
            Step::Send(bytes) => {
                let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
                chunk.extend_from_slice(&bytes);
                chunk.extend_from_slice(b"\r\n");
                write_all(socket, &chunk).await
            }
            Step::Pause(pause) => {
                tokio::time::sleep(pause).await;
                Ok(())
            }
            Step::Hang => std::future::pending().await,
            Step::Abort => return Outcome::Aborted,
        };
        if written.is_err() {
            return Outcome::HungUp;
        }
    }
    if !answer.raw && write_all(socket, b"0\r\n\r\n").await.is_err() {
        return Outcome::HungUp;
    }
    Outcome::Ended
}

/// Writes through a shared reference, so that the reading side can be watched meanwhile.
async fn write_all(socket: &TcpStream, mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        socket.writable().await?;
        match socket.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Returns when the client has closed its side.
async fn gone(socket: &TcpStream) {
    let mut byte = [0];
    loop {
        match socket.peek(&mut byte).await {
            Ok(0) | Err(_) => return,
            // A request is waiting already; it will be read when this answer has ended.
            Ok(_) => std::future::pending::<()>().await,
        }
    }
}

async fn read_request(socket: &mut TcpStream, buffer: &mut Vec<u8>, connection: usize) -> Option<Captured> {
    let head_end = loop {
        if let Some(at) = find(buffer, b"\r\n\r\n") {
            break at;
        }
        more(socket, buffer).await?;
    };
    let head = String::from_utf8_lossy(&buffer[..head_end]).into_owned();
    buffer.drain(..head_end + 4);
    let mut lines = head.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let header =
        |name: &str| headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let body = if header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
        chunked(socket, buffer).await?
    } else {
        let length = header("content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
        while buffer.len() < length {
            more(socket, buffer).await?;
        }
        buffer.drain(..length).collect()
    };
    Some(Captured { method, target, headers, body: body.into(), connection })
}

async fn chunked(socket: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line_end = loop {
            if let Some(at) = find(buffer, b"\r\n") {
                break at;
            }
            more(socket, buffer).await?;
        };
        let size = usize::from_str_radix(std::str::from_utf8(&buffer[..line_end]).ok()?.trim(), 16).ok()?;
        while buffer.len() < line_end + 2 + size + 2 {
            more(socket, buffer).await?;
        }
        body.extend_from_slice(&buffer[line_end + 2..line_end + 2 + size]);
        buffer.drain(..line_end + 2 + size + 2);
        if size == 0 {
            return Some(body);
        }
    }
}

async fn more(socket: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<()> {
    match socket.read_buf(buffer).await {
        Ok(0) | Err(_) => None,
        Ok(_) => Some(()),
    }
}

fn find(buffer: &[u8], mark: &[u8]) -> Option<usize> {
    buffer.windows(mark.len()).position(|window| window == mark)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    async fn exchange(upstream: &ScriptedUpstream, request: &str) -> (TcpStream, String) {
        let mut socket = TcpStream::connect(upstream.address()).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut text = Vec::new();
        while find(&text, b"\r\n\r\n").is_none_or(|at| find(&text[at..], b"2\r\nhi").is_none()) {
            assert_ne!(socket.read_buf(&mut text).await.unwrap(), 0);
        }
        (socket, String::from_utf8(text).unwrap())
    }

    #[tokio::test]
    async fn requests_are_captured_and_answers_sent_as_scripted() {
        let upstream = ScriptedUpstream::start().await;
        upstream.answer(Answer::json(429, "hi").header("retry-after", "3"));
        let request = "POST /v1/x?y=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
        let (_socket, text) = exchange(&upstream, request).await;
        assert!(
            text.starts_with("HTTP/1.1 429 Too Many Requests\r\n") && text.contains("retry-after: 3\r\n")
        );
        let captured = upstream.request(1).await;
        assert_eq!((captured.method.as_str(), captured.target.as_str()), ("POST", "/v1/x?y=1"));
        assert_eq!((captured.header("host"), &captured.body[..]), (Some("a"), &b"abc"[..]));
    }

    #[tokio::test]
    async fn chunked_requests_are_put_together() {
        let upstream = ScriptedUpstream::start().await;
        upstream.always(Answer::json(200, "hi"));
        let request = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        exchange(&upstream, request).await;
        assert_eq!(upstream.request(1).await.body, "abcde");
    }

    #[tokio::test]
    async fn clients_that_leave_are_noticed_and_aborts_are_resets() {
        let upstream = ScriptedUpstream::start().await;
        upstream
            .answer(Answer::sse(&["hi"]).hang())
            .answer(Answer::sse(&["hi"]).pause(Duration::from_millis(1)).abort());
        let (socket, _) = exchange(&upstream, "GET / HTTP/1.1\r\n\r\n").await;
        drop(socket);
        upstream.hung_up(1).await;
        let (mut socket, _) = exchange(&upstream, "GET / HTTP/1.1\r\n\r\n").await;
        let error = socket.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        assert_eq!(upstream.connections(), 2);
    }
}
