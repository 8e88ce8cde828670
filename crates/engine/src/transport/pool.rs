//! Connections that wait for their next request, by origin. Bounded in number and in waiting time.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use http::Uri;
use http::uri::Scheme;
use hyper::client::conn::{http1, http2};

use super::connect::Stream;
use super::sending::Sending;
use crate::ports::{Clock, TransportError};

/// How long a connection waits, if it is one of the few that a quiet gateway keeps.
const MAX_WAIT: Duration = Duration::from_secs(90);
/// How many those are, for each origin.
const KEPT_WHEN_QUIET: usize = 8;
/// How long the others wait: they are left over from a burst.
const BURST_WAIT: Duration = Duration::from_secs(2);
/// Most waiting HTTP/1 connections of an origin.
const MAX_IDLE: usize = 512;
/// Requests at once on an HTTP/2 connection; servers usually allow 100.
const MAX_STREAMS: usize = 90;

/// Where connections lead. Those that may reach private addresses are kept apart from those that may not.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Origin {
    uri: Uri,
    allow_private: bool,
}

/// An HTTP/1 connection, driven by whoever holds it.
pub(super) struct Line {
    pub(super) sender: http1::SendRequest<Sending>,
    pub(super) driver: Pin<Box<http1::Connection<Stream, Sending>>>,
}

/// A shared HTTP/2 connection.
#[derive(Clone)]
pub(super) struct Trunk {
    pub(super) sender: http2::SendRequest<Sending>,
    streams: Arc<AtomicUsize>,
}

/// A stream of a trunk; gives its place back when dropped.
pub(super) struct Lane(Arc<AtomicUsize>);

/// Connections without work, and since when.
type Waiting = VecDeque<(Instant, Line)>;

/// The waiting connections of one transport.
pub(super) struct Pool {
    clock: Arc<dyn Clock>,
    lines: Mutex<HashMap<Origin, Waiting, RandomState>>,
    trunks: Mutex<HashMap<Origin, Vec<Trunk>, RandomState>>,
}

impl Origin {
    pub(super) fn of(uri: &Uri, allow_private: bool) -> Result<Self, TransportError> {
        let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
            return Err(TransportError::Connect {
                host: String::new(),
                reason: format!("`{uri}` has no host"),
            });
        };
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(scheme.clone());
        parts.authority = Some(authority.clone());
        parts.path_and_query = Some(http::uri::PathAndQuery::from_static("/"));
        let uri = Uri::from_parts(parts).map_err(|error| TransportError::Connect {
            host: authority.to_string(),
            reason: error.to_string(),
        })?;
        Ok(Self { uri, allow_private })
    }

    pub(super) fn uri(&self) -> Uri {
        self.uri.clone()
    }

    pub(super) fn host(&self) -> &str {
        self.uri.host().unwrap_or_default()
    }

    pub(super) fn authority(&self) -> &str {
        self.uri.authority().map_or("", |authority| authority.as_str())
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.uri.scheme() == Some(&Scheme::HTTPS)
    }

    pub(super) fn allow_private(&self) -> bool {
        self.allow_private
    }
}

impl Pool {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, lines: Mutex::default(), trunks: Mutex::default() }
    }

    /// The connection that waited least and is still open.
    pub(super) fn take(&self, origin: &Origin) -> Option<Line> {
        loop {
            let (_, mut line) =
                self.lines.lock().unwrap_or_else(PoisonError::into_inner).get_mut(origin)?.pop_back()?;
            if line.is_open() {
                return Some(line);
            }
        }
    }

    /// Keeps a connection whose answer has been read to its end.
    pub(super) fn keep(&self, origin: Origin, mut line: Line) {
        if !line.is_open() {
            return;
        }
        let now = self.clock.instant();
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = lines.entry(origin).or_default();
        if waiting.len() >= MAX_IDLE {
            waiting.pop_front();
        }
        waiting.push_back((now, line));
    }

    /// A place on a shared connection.
    pub(super) fn board(&self, origin: &Origin) -> Option<(Trunk, Lane)> {
        let mut trunks = self.trunks.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = trunks.get_mut(origin)?;
        shared.retain(|trunk| !trunk.sender.is_closed());
        shared.iter().find_map(|trunk| Some((trunk.clone(), trunk.enter()?)))
    }

    /// Shares a new connection.
    pub(super) fn share(&self, origin: Origin, sender: http2::SendRequest<Sending>) -> (Trunk, Lane) {
        let trunk = Trunk { sender, streams: Arc::new(AtomicUsize::new(1)) };
        let lane = Lane(trunk.streams.clone());
        self.trunks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(origin)
            .or_default()
            .push(trunk.clone());
        (trunk, lane)
    }

    /// Closes what has waited too long. A shared connection ends when nobody has its sender any more.
    pub(super) fn sweep(&self) {
        let now = self.clock.instant();
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, waiting| {
            let spare = waiting.len().saturating_sub(KEPT_WHEN_QUIET);
            let mut place = 0;
            waiting.retain_mut(|(since, line)| {
                let limit = if place < spare { BURST_WAIT } else { MAX_WAIT };
                place += 1;
                now.saturating_duration_since(*since) < limit && line.is_open()
            });
            waiting.shrink_to(KEPT_WHEN_QUIET);
            !waiting.is_empty()
        });
        self.trunks.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, shared| {
            shared.retain(|trunk| !trunk.sender.is_closed());
            !shared.is_empty()
        });
    }
}

impl Line {
    /// Lets the connection notice that the other side has closed it, and says whether it can take a request.
    fn is_open(&mut self) -> bool {
        let mut nobody = Context::from_waker(Waker::noop());
        self.driver.as_mut().poll(&mut nobody).is_pending() && self.sender.is_ready()
    }
}

impl Trunk {
    fn enter(&self) -> Option<Lane> {
        let before = self.streams.fetch_add(1, Ordering::AcqRel);
        let lane = Lane(self.streams.clone());
        (before < MAX_STREAMS && self.sender.is_ready()).then_some(lane)
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
