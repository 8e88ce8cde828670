//! A client that sends exactly what it is told, also what no library would, and shows what comes back.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// After this long a test has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A request.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Call {
    pub(crate) fn new(method: &str, path: &str) -> Self {
        Self { method: method.to_owned(), path: path.to_owned(), headers: Vec::new(), body: Vec::new() }
    }

    pub(crate) fn get(path: &str) -> Self {
        Self::new("GET", path)
    }

    pub(crate) fn post(path: &str, body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), ..Self::new("POST", path) }
    }

    pub(crate) fn method(mut self, method: &str) -> Self {
        self.method = method.to_owned();
        self
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn bearer(self, key: &str) -> Self {
        self.header("authorization", &format!("Bearer {key}"))
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut text = format!("{} {} HTTP/1.1\r\n", self.method, self.path);
        let has = |name: &str| self.headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
        if !has("host") {
            text.push_str("host: 127.0.0.1\r\n");
        }
        if !has("transfer-encoding")
            && !has("content-length")
            && (!self.body.is_empty() || self.method == "POST")
        {
            text.push_str(&format!("content-length: {}\r\n", self.body.len()));
        }
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Response {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// The first header of that name (lower case).
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The member at a JSON pointer, as text.
    pub(crate) fn at(&self, pointer: &str) -> String {
        match self.json().pointer(pointer) {
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => panic!("no {pointer} in {}", self.text()),
        }
    }
}

enum Framing {
    None,
    Length(usize),
    Chunked,
    UntilClose,
}

/// A connection to the gateway.
pub(crate) struct Line {
    socket: TcpStream,
    buffer: Vec<u8>,
    framing: Framing,
}

impl Line {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).await.unwrap_or_else(|error| panic!("{address}: {error}"));
        Self { socket, buffer: Vec::new(), framing: Framing::None }
    }

    /// Writes; the other side may have given up listening, which is for the reading side to find out.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> bool {
        self.socket.write_all(bytes).await.is_ok()
    }

    /// Says that nothing more will be written.
    pub(crate) async fn finish(&mut self) {
        let _ = self.socket.shutdown().await;
    }

    /// Sends a request and reads the whole answer.
    pub(crate) async fn call(&mut self, call: &Call) -> Response {
        self.write(&call.bytes()).await;
        self.answer(call.method == "HEAD").await
    }

    /// The whole next answer.
    pub(crate) async fn answer(&mut self, is_head: bool) -> Response {
        let mut response = self.head().await;
        if !is_head {
            while let Some(bytes) = self.piece().await {
                response.body.extend_from_slice(&bytes);
            }
        }
        response
    }

    /// Status and headers of the next answer; the body is still to be read.
    pub(crate) async fn head(&mut self) -> Response {
        self.try_head().await.unwrap_or_else(|| panic!("the connection was closed without an answer"))
    }

    /// The same, or nothing when the connection is closed first.
    pub(crate) async fn try_head(&mut self) -> Option<Response> {
        let end = loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                break at;
            }
            if !self.more().await {
                return None;
            }
        };
        let text = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        self.buffer.drain(..end + 4);
        let mut lines = text.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let response = Response { status, headers, body: Vec::new() };
        self.framing = match (response.header("transfer-encoding"), response.header("content-length")) {
            _ if matches!(status, 100 | 204 | 304) => Framing::None,
            (Some(_), _) => Framing::Chunked,
            (None, Some(length)) => Framing::Length(length.parse().unwrap()),
            (None, None) => Framing::UntilClose,
        };
        Some(response)
    }

    /// The next piece of the body; nothing at its end, proper or not.
    pub(crate) async fn piece(&mut self) -> Option<Vec<u8>> {
        match self.framing {
            Framing::None => None,
            Framing::UntilClose => {
                if self.buffer.is_empty() && !self.more().await {
                    return None;
                }
                Some(std::mem::take(&mut self.buffer))
            }
            Framing::Length(0) => None,
            Framing::Length(left) => {
                if self.buffer.is_empty() && !self.more().await {
                    return None;
                }
                let take = left.min(self.buffer.len());
                self.framing = Framing::Length(left - take);
                Some(self.buffer.drain(..take).collect())
            }
            Framing::Chunked => {
                let line_end = self.until(b"\r\n").await?;
                let line = String::from_utf8_lossy(&self.buffer[..line_end]).into_owned();
                let size = usize::from_str_radix(line.trim(), 16).unwrap();
                while self.buffer.len() < line_end + 2 + size + 2 {
                    if !self.more().await {
                        return None;
                    }
                }
                let piece = self.buffer[line_end + 2..line_end + 2 + size].to_vec();
                self.buffer.drain(..line_end + 2 + size + 2);
                if size == 0 {
                    self.framing = Framing::None;
                    return None;
                }
                Some(piece)
            }
        }
    }

    /// The body from here until it contains `mark`.
    pub(crate) async fn read_until(&mut self, mark: &str) -> String {
        let mut text = String::new();
        while !text.contains(mark) {
            match self.piece().await {
                Some(piece) => text.push_str(&String::from_utf8_lossy(&piece)),
                None => panic!("the answer ended without `{mark}`: {text}"),
            }
        }
        text
    }

    /// The rest of the body.
    pub(crate) async fn rest(&mut self) -> String {
        let mut text = Vec::new();
        while let Some(piece) = self.piece().await {
            text.extend_from_slice(&piece);
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Whether the other side has closed the connection.
    pub(crate) async fn is_closed(&mut self) -> bool {
        !self.more().await
    }

    async fn until(&mut self, mark: &[u8]) -> Option<usize> {
        loop {
            if let Some(at) = find(&self.buffer, mark) {
                return Some(at);
            }
            if !self.more().await {
                return None;
            }
        }
    }

    async fn more(&mut self) -> bool {
        let read = tokio::time::timeout(PATIENCE, self.socket.read_buf(&mut self.buffer)).await;
        match read {
            Ok(read) => read.is_ok_and(|count| count > 0),
            Err(_) => {
                panic!("nothing came within {PATIENCE:?}; so far: {}", String::from_utf8_lossy(&self.buffer))
            }
        }
    }
}

fn find(buffer: &[u8], mark: &[u8]) -> Option<usize> {
    buffer.windows(mark.len()).position(|window| window == mark)
}
