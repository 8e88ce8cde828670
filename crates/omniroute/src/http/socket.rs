//! A client's socket as the HTTP server sees it.
//!
//! hyper answers a head that it cannot read by itself: a status line without a body, in nobody's dialect and without a
//! request id. It has no hook for saying more. So that answer is held back here, and once the server has given the
//! connection up, the socket comes out again with what is needed to answer properly (`refusal`). On the way of every
//! other request this costs a copy of the first bytes read and a glance at the length of what is written.
//!
//! Besides, the server sets no time for the bytes that tell HTTP/1 from HTTP/2; the socket does.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::Method;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tokio::time::{Sleep, sleep};

/// Remembered of a request: enough for the method and the path of every route.
const BEGINNING: usize = 128;
/// What HTTP/2 begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Longer than any answer that hyper makes up.
const BARE_LIMIT: usize = 160;

/// What is handed to the server.
pub(super) struct Socket<S> {
    /// There until the end.
    inner: Option<Leftover<S>>,
    back: Option<oneshot::Sender<Leftover<S>>>,
    /// Until it is clear which version of HTTP is spoken.
    patience: Option<Pin<Box<Sleep>>>,
}

/// What is left when the server has given the connection up.
pub(super) struct Leftover<S> {
    pub(super) io: S,
    pub(super) beginning: Beginning,
    /// The server's own answer, which nobody has seen; empty if it made none.
    pub(super) bare: Vec<u8>,
}

/// The first bytes of the request that was read last.
pub(super) struct Beginning {
    bytes: [u8; BEGINNING],
    len: usize,
    is_answered: bool,
}

impl<S> Socket<S> {
    /// Wraps `io`, which comes out at the other end when the socket is dropped. Its first bytes may take `patience`.
    pub(super) fn new(io: S, patience: Duration) -> (Self, oneshot::Receiver<Leftover<S>>) {
        let (sender, receiver) = oneshot::channel();
        let inner = Leftover { io, beginning: Beginning::new(), bare: Vec::new() };
        let patience = Some(Box::pin(sleep(patience)));
        (Self { inner: Some(inner), back: Some(sender), patience }, receiver)
    }

    fn inner(&mut self) -> io::Result<&mut Leftover<S>> {
        self.inner.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl<S> Drop for Socket<S> {
    fn drop(&mut self) {
        if let (Some(inner), Some(back)) = (self.inner.take(), self.back.take()) {
            // If nobody waits for it, it is closed.
            let _ = back.send(inner);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Socket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { inner, patience, .. } = &mut *self;
        let inner = inner.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        let before = buf.filled().len();
        let read = Pin::new(&mut inner.io).poll_read(cx, buf);
        if read.is_ready() {
            inner.beginning.read(&buf.filled()[before..]);
            if patience.is_some() && !inner.beginning.may_be_preface() {
                *patience = None;
            }
        } else if let Some(patience) = patience
            && patience.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Socket<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let inner = self.inner()?;
        ready!(inner.poll_let_go(cx))?;
        if is_bare(buf) {
            inner.bare = buf.to_vec();
            return Poll::Ready(Ok(buf.len()));
        }
        inner.beginning.is_answered = true;
        Pin::new(&mut inner.io).poll_write(cx, buf)
    }

    /// For HTTP/2 only, which has no bare answers: the HTTP/1 side is told to write from one buffer.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let inner = self.inner()?;
        ready!(inner.poll_let_go(cx))?;
        inner.beginning.is_answered = true;
        Pin::new(&mut inner.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.as_ref().is_some_and(|inner| inner.io.is_write_vectored())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner()?.io).poll_flush(cx)
    }

    /// Leaves the socket open when an answer is still owed.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let inner = self.inner()?;
        if inner.bare.is_empty() { Pin::new(&mut inner.io).poll_shutdown(cx) } else { Poll::Ready(Ok(())) }
    }
}

impl<S: AsyncWrite + Unpin> Leftover<S> {
    /// Sends what was held back, since more is written after it: it only looked like the server's last word.
    fn poll_let_go(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.bare.is_empty() {
            let sent = ready!(Pin::new(&mut self.io).poll_write(cx, &self.bare))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.bare.drain(..sent);
        }
        Poll::Ready(Ok(()))
    }
}

impl Beginning {
    fn new() -> Self {
        Self { bytes: [0; BEGINNING], len: 0, is_answered: false }
    }

    fn read(&mut self, bytes: &[u8]) {
        if self.is_answered {
            (self.len, self.is_answered) = (0, false);
        }
        // Clients may send empty lines before a request.
        let skipped = match self.len {
            0 => bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count(),
            _ => 0,
        };
        let taken = (bytes.len() - skipped).min(BEGINNING - self.len);
        self.bytes[self.len..self.len + taken].copy_from_slice(&bytes[skipped..skipped + taken]);
        self.len += taken;
    }

    fn may_be_preface(&self) -> bool {
        self.len < PREFACE.len() && PREFACE.starts_with(&self.bytes[..self.len])
    }

    /// Whether a request has begun and nothing has been answered to it.
    pub(super) fn is_open(&self) -> bool {
        self.len > 0 && !self.is_answered
    }

    /// Whether the client begins with the greeting of TLS, as it does behind `https://`.
    pub(super) fn is_tls(&self) -> bool {
        self.bytes[..self.len].starts_with(&[0x16, 0x03])
    }

    /// The method and the path, as far as they were remembered; the path is plain ASCII without a query.
    pub(super) fn request_line(&self) -> Option<(Method, String)> {
        let mut words = self.bytes[..self.len].split(|byte| matches!(byte, b' ' | b'\r' | b'\n'));
        let method = words.next().filter(|word| word.iter().all(u8::is_ascii_uppercase))?;
        let method = Method::from_bytes(method).ok()?;
        let target: String =
            words.next()?.iter().copied().take_while(u8::is_ascii_graphic).map(char::from).collect();
        let path = match target.split_once("://") {
            _ if target.starts_with('/') => target.as_str(),
            Some((_, rest)) => &rest[rest.find('/')?..],
            None => return None,
        };
        let end = path.find(['?', '#']).unwrap_or(path.len());
        Some((method, path[..end].to_owned()))
    }
}

/// Whether this is an answer that hyper made up: nothing but a client error's status line, the date and what ends the
/// connection. Ours have a request id.
fn is_bare(buf: &[u8]) -> bool {
    if buf.len() >= BARE_LIMIT || !buf.starts_with(b"HTTP/1.") || buf.get(8..10) != Some(b" 4") {
        return false;
    }
    let Some(lines) = std::str::from_utf8(buf).ok().and_then(|text| text.strip_suffix("\r\n\r\n")) else {
        return false;
    };
    let is_of_hyper =
        |line: &str| matches!(line, "connection: close" | "content-length: 0") || line.starts_with("date: ");
    lines.split("\r\n").skip(1).all(is_of_hyper)
}

#[cfg(test)]
mod tests;
