//! A load generator that costs little: prepared requests, kept connections, and just enough of HTTP/1.1 to find the
//! end of an answer. One thread, one task per connection.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use hdrhistogram::Histogram;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::Instant,
};

/// An answer that takes longer means that something is stuck.
const PATIENCE: Duration = Duration::from_secs(30);
/// Largest answer.
const MAX_ANSWER: usize = 16 << 20;

/// What is sent, where, how often at once and for how long.
#[derive(Debug, Clone)]
pub(super) struct Load {
    pub(super) address: SocketAddr,
    /// In turn on each connection, which do not all begin with the same one; never empty.
    pub(super) requests: Arc<[Bytes]>,
    pub(super) connections: usize,
    pub(super) duration: Duration,
    /// Texts that must be in an answer, each so often.
    pub(super) marks: &'static [(&'static str, usize)],
    /// Bytes of a good answer's body; 0 = not known yet.
    pub(super) length: usize,
}

/// What happened.
#[derive(Debug, Clone)]
pub(super) struct Outcome {
    pub(super) requests: u64,
    pub(super) elapsed: Duration,
    /// Nanoseconds to the end of the answer.
    pub(super) whole: Histogram<u64>,
    /// Nanoseconds to the first byte of its body.
    pub(super) first: Histogram<u64>,
}

/// One answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

/// Asks each once and checks what comes: the length of the last is that of all further answers.
pub(super) async fn verified_length(load: &Load) -> Result<usize> {
    let mut length = 0;
    for request in &*load.requests {
        let answer = once(load.address, request).await?;
        let text = String::from_utf8_lossy(&answer.body);
        ensure!(answer.status == 200, "status {}: {}", answer.status, shortened(&text));
        for (mark, count) in load.marks {
            let found = text.matches(mark).count();
            ensure!(
                found == *count,
                "expected {count} times `{mark}`, found {found} in: {}",
                shortened(&text)
            );
        }
        length = answer.body.len();
    }
    Ok(length)
}

/// Asks once, on a connection of its own.
pub(super) async fn once(address: SocketAddr, request: &[u8]) -> Result<Answer> {
    let asking = async {
        let mut connection = Connection::open(address, 0).await?;
        let exchange = connection.exchange(request).await?;
        Ok(Answer { status: exchange.status, body: connection.body })
    };
    match tokio::time::timeout(PATIENCE, asking).await {
        Ok(answer) => answer,
        Err(_) => bail!("no answer from {address} within {PATIENCE:?}"),
    }
}

/// Sends the load from a thread of its own. The first answer that is not as it should be ends it with an error.
pub(super) async fn run(load: Load) -> Result<Outcome> {
    let thread = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(drive(&load))
    };
    tokio::task::spawn_blocking(thread).await.context("the load generator panicked")?
}

async fn drive(load: &Load) -> Result<Outcome> {
    let mut opening = JoinSet::new();
    for place in 0..load.connections {
        let load = load.clone();
        opening.spawn(async move {
            let mut connection = Connection::open(load.address, place).await?;
            connection.checked(&load).await?;
            Ok::<_, anyhow::Error>(connection)
        });
    }
    let mut connections = Vec::with_capacity(load.connections);
    while let Some(opened) = within_patience(opening.join_next()).await? {
        connections.push(opened.context("a connection's task panicked")??);
    }

    let start = Instant::now();
    let deadline = start + load.duration;
    let mut running = JoinSet::new();
    for mut connection in connections {
        let load = load.clone();
        running.spawn(async move {
            let mut times = Vec::with_capacity(4096);
            while Instant::now() < deadline {
                times.push(connection.checked(&load).await?);
            }
            Ok::<_, anyhow::Error>(times)
        });
    }
    let mut outcome =
        Outcome { requests: 0, elapsed: Duration::ZERO, whole: histogram()?, first: histogram()? };
    let limit = tokio::time::sleep(load.duration + PATIENCE);
    tokio::pin!(limit);
    loop {
        let joined = tokio::select! {
            joined = running.join_next() => joined,
            () = &mut limit => bail!("answers are missing {PATIENCE:?} after the end of the load"),
        };
        let Some(joined) = joined else { break };
        for (whole, first) in joined.context("a connection's task panicked")?? {
            outcome.requests += 1;
            outcome.whole.saturating_record(whole);
            outcome.first.saturating_record(first);
        }
    }
    outcome.elapsed = start.elapsed();
    ensure!(outcome.requests > 0, "no request was answered in {:?}", outcome.elapsed);
    Ok(outcome)
}

async fn within_patience<T>(future: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(PATIENCE, future).await.with_context(|| format!("no answer within {PATIENCE:?}"))
}

fn histogram() -> Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).context("histogram")
}

fn nanos(from: Instant, to: Instant) -> u64 {
    u64::try_from(to.duration_since(from).as_nanos()).unwrap_or(u64::MAX)
}

fn shortened(text: &str) -> &str {
    &text[..text.floor_char_boundary(400)]
}

struct Connection {
    socket: TcpStream,
    /// Bytes read and not yet taken apart.
    buffer: Vec<u8>,
    /// The body of the last answer, without framing.
    body: Vec<u8>,
    /// Which request is next.
    turn: usize,
}

struct Exchange {
    status: u16,
    start: Instant,
    first: Instant,
    end: Instant,
}

enum Framing {
    Length(usize),
    Chunked,
}

impl Connection {
    async fn open(address: SocketAddr, turn: usize) -> Result<Self> {
        let socket =
            TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
        socket.set_nodelay(true)?;
        Ok(Self { socket, buffer: Vec::with_capacity(64 << 10), body: Vec::new(), turn })
    }

    /// One exchange whose answer is as it should be: nanoseconds to its end and to its first byte.
    async fn checked(&mut self, load: &Load) -> Result<(u64, u64)> {
        let request = &load.requests[self.turn % load.requests.len()];
        self.turn = self.turn.wrapping_add(1);
        let exchange = self.exchange(request).await?;
        let length = self.body.len();
        // Ids and times may differ by a few digits.
        if exchange.status != 200
            || (load.length > 0 && length.abs_diff(load.length) > 16 + load.length / 100)
        {
            let text = String::from_utf8_lossy(&self.body);
            bail!(
                "expected status 200 with {} bytes, got status {} with {length}: {}",
                load.length,
                exchange.status,
                shortened(&text)
            );
        }
        Ok((nanos(exchange.start, exchange.end), nanos(exchange.start, exchange.first)))
    }

    async fn exchange(&mut self, request: &[u8]) -> Result<Exchange> {
        self.buffer.clear();
        self.body.clear();
        let start = Instant::now();
        self.socket.write_all(request).await?;
        let head_end = loop {
            if let Some(at) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            self.more().await?;
        };
        let (status, framing) = head(&self.buffer[..head_end])?;
        let mut first = None;
        if self.buffer.len() > head_end {
            first = Some(Instant::now());
        }
        let mut at = head_end;
        match framing {
            Framing::Length(length) => {
                ensure!(length <= MAX_ANSWER, "an answer of {length} bytes");
                while self.buffer.len() < head_end + length {
                    self.more().await?;
                    first.get_or_insert_with(Instant::now);
                }
                self.body.extend_from_slice(&self.buffer[head_end..head_end + length]);
            }
            Framing::Chunked => loop {
                let line_end = loop {
                    if let Some(length) = self.buffer[at..].iter().position(|byte| *byte == b'\n') {
                        break at + length + 1;
                    }
                    self.more().await?;
                    first.get_or_insert_with(Instant::now);
                };
                let size = chunk_size(&self.buffer[at..line_end])?;
                ensure!(self.body.len() + size <= MAX_ANSWER, "an answer of more than {MAX_ANSWER} bytes");
                while self.buffer.len() < line_end + size + 2 {
                    self.more().await?;
                    first.get_or_insert_with(Instant::now);
                }
                if size == 0 {
                    break;
                }
                self.body.extend_from_slice(&self.buffer[line_end..line_end + size]);
                at = line_end + size + 2;
            },
        }
        let end = Instant::now();
        Ok(Exchange { status, start, first: first.unwrap_or(end), end })
    }

    async fn more(&mut self) -> Result<()> {
        let read = self.socket.read_buf(&mut self.buffer).await?;
        ensure!(read > 0, "the connection was closed within an answer of {} bytes so far", self.buffer.len());
        Ok(())
    }
}

fn head(bytes: &[u8]) -> Result<(u16, Framing)> {
    let text = std::str::from_utf8(bytes).context("the head of an answer is not text")?;
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok());
    let Some(status) = status else { bail!("not an HTTP answer: {}", shortened(text)) };
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { continue };
        if name.eq_ignore_ascii_case("content-length") {
            let length = value.trim().parse().with_context(|| format!("content-length{value}"))?;
            return Ok((status, Framing::Length(length)));
        }
        if name.eq_ignore_ascii_case("transfer-encoding") {
            return Ok((status, Framing::Chunked));
        }
    }
    bail!("an answer without length: {}", shortened(text))
}

fn chunk_size(line: &[u8]) -> Result<usize> {
    let text = std::str::from_utf8(line).unwrap_or_default();
    let digits = text.split(';').next().unwrap_or_default().trim();
    usize::from_str_radix(digits, 16).with_context(|| format!("chunk size {text:?}"))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// Sends the bytes of an answer one by one to whoever asks, over and over.
    async fn answering(answer: &'static [u8]) -> (SocketAddr, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            socket.set_nodelay(true).unwrap();
            let mut request = [0; 4];
            while socket.read_exact(&mut request).await.is_ok() {
                for byte in answer {
                    socket.write_all(&[*byte]).await.unwrap();
                    tokio::task::yield_now().await;
                }
            }
        });
        (address, tasks)
    }

    #[tokio::test]
    async fn answers_are_read_whatever_their_framing() {
        for (answer, body) in [
            (&b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"[..], "hello"),
            (
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n",
                "hello",
            ),
            (b"HTTP/1.1 204 No\r\ncontent-length: 0\r\n\r\n", ""),
        ] {
            let (address, _tasks) = answering(answer).await;
            let mut connection = Connection::open(address, 0).await.unwrap();
            for _ in 0..3 {
                connection.exchange(b"ask\n").await.unwrap();
                assert_eq!(connection.body, body.as_bytes());
            }
        }
    }

    #[tokio::test]
    async fn a_connection_asks_each_request_in_turn() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = [0; 4];
            while socket.read_exact(&mut request).await.is_ok() {
                socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n").await.unwrap();
                socket.write_all(&request).await.unwrap();
            }
        });
        let requests = ["one\n", "two\n", "six\n"].map(|text| Bytes::from_static(text.as_bytes()));
        let load = Load {
            address,
            requests: requests.into(),
            connections: 1,
            duration: Duration::ZERO,
            marks: &[],
            length: 4,
        };
        let mut connection = Connection::open(address, 5).await.unwrap();
        let mut asked = Vec::new();
        for _ in 0..4 {
            connection.checked(&load).await.unwrap();
            asked.extend_from_slice(&connection.body);
        }
        assert_eq!(asked, b"six\none\ntwo\nsix\n");
    }

    #[tokio::test]
    async fn wrong_answers_end_the_load() {
        let (address, _tasks) = answering(b"HTTP/1.1 500 No\r\ncontent-length: 4\r\n\r\noops").await;
        let load = Load {
            address,
            requests: [Bytes::from_static(b"ask\n")].into(),
            connections: 1,
            duration: Duration::from_secs(5),
            marks: &[],
            length: 4,
        };
        let error = run(load).await.unwrap_err().to_string();
        assert!(error.contains("got status 500") && error.contains("oops"), "{error}");
    }
}
