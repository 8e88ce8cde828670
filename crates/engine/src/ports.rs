//! The small traits that others implement, so that the engine knows neither sockets nor databases.

mod memory;
mod request;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use omniroute_domain::budget::Event;
use omniroute_domain::entity::{ApiKeyId, ConnectionId, ConnectionStatus};
use omniroute_domain::limit::Standing;
use smallvec::SmallVec;

use crate::bodies::{CopiedBody, RequestBodies};
use crate::spool::Spooled;

pub use crate::row_id::RowId;
pub use memory::{
    AnswerRow, Claims, HandoffRow, KeptAnswer, LimitsRow, LockRow, Memory, OwnerRow, QuestionRow, QuotaRow,
    ReasoningRow, Shelf, Unfinished, Unreadable,
};
pub use request::{AttemptRow, BillRow, CHAT, COUNT, HANDOFF, RequestRow, SIMILAR};

/// Where time comes from.
pub trait Clock: Send + Sync {
    /// UTC in milliseconds since the epoch.
    fn now_ms(&self) -> i64;
    /// A monotonic instant.
    fn instant(&self) -> Instant;
}

/// Takes what happened. Never blocks, never fails; what it cannot take it counts.
pub trait Recorder: Send + Sync {
    /// A client's request is over.
    fn record(&self, row: RequestRow);
    /// What traffic found out about a connection changed.
    fn connection_status(&self, connection: &ConnectionId, status: ConnectionStatus);
    /// Something should be known after a restart too.
    fn remember(&self, memory: Memory);
    /// Something happened to a budget.
    fn budget(&self, event: Event);
    /// Takes what was said in a request whose row comes next, and says which process will keep it. `None` where it is not
    /// kept after all: there is no room, or nobody who would.
    fn keep_bodies(&self, bodies: Box<RequestBodies>) -> Option<Arc<str>> {
        let _ = bodies;
        None
    }
}

/// Bounded storage of values that can be made again.
pub trait Cache: Send + Sync {
    /// The value, unless it has expired.
    fn get<'a>(&'a self, key: &'a str, now_ms: i64) -> BoxFuture<'a, Option<Bytes>>;
    /// Keeps a value for a while.
    fn put(&self, key: &str, value: Bytes, now_ms: i64, ttl: Duration);
    /// Takes a value out, unless it has expired: of many who do so at once, one gets it.
    fn take(&self, key: &str, now_ms: i64) -> Option<Bytes>;
    /// Drops a value that is no longer true.
    fn forget(&self, key: &str) {
        self.take(key, i64::MAX);
    }
}

/// Sends requests to upstreams.
pub trait Transport: Send + Sync {
    /// Sends one request and waits for the answer's head. Dropping the future or the body cancels the call.
    fn send(&self, call: OutboundCall)
    -> BoxFuture<'_, Result<http::Response<UpstreamBody>, TransportError>>;
}

/// One request to an upstream.
#[derive(Debug)]
pub struct OutboundCall {
    /// Usually POST.
    pub method: http::Method,
    /// Absolute.
    pub uri: http::Uri,
    /// Every header but `Host` and `Content-Length`.
    pub headers: http::HeaderMap,
    /// The body, in pieces.
    pub body: omniroute_wire::splice::Pieces,
    /// Files behind it.
    pub attachment: Option<Box<Attachment>>,
    /// Whether private and loopback addresses may be called.
    pub allow_private: bool,
    /// Where the transport says that the request has left.
    pub departure: Departure,
}

/// Whether a request has left for its upstream, for whoever gives the call up before anything is heard. The transport says so
/// as soon as all of the request is handed to a connection: from then on an upstream may work on it, and bill that. It takes that
/// back where the upstream says that it did not.
#[derive(Debug, Clone, Default)]
pub struct Departure(Option<Arc<AtomicBool>>);

impl Departure {
    /// Of a call that somebody asks this about. The default is for those that nobody does.
    pub fn watched() -> Self {
        Self(Some(Arc::default()))
    }

    /// The request has left.
    pub fn note(&self) {
        if let Some(has_left) = &self.0 {
            has_left.store(true, Ordering::Relaxed);
        }
    }

    /// It has not: its upstream says that it has not looked at it.
    pub fn recall(&self) {
        if let Some(has_left) = &self.0 {
            has_left.store(false, Ordering::Relaxed);
        }
    }

    /// Whether it has.
    pub fn has_left(&self) -> bool {
        self.0.as_ref().is_some_and(|has_left| has_left.load(Ordering::Relaxed))
    }
}

/// Files within a body.
#[derive(Debug, Clone)]
pub struct Attachment {
    /// Each of them, and what comes behind it.
    pub files: Vec<(Arc<Spooled>, Bytes)>,
}

/// Why no answer came.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The host resolves to an address that may not be called.
    #[error("{0}")]
    AddressBlocked(omniroute_provider::address::Blocked),
    /// DNS, TCP or TLS failed.
    #[error("cannot connect to {host}: {reason}")]
    Connect {
        /// Whom.
        host: String,
        /// Why.
        reason: String,
    },
    /// No connection within the limit.
    #[error("no connection to {host} within {limit_ms} ms")]
    ConnectTimeout {
        /// Whom.
        host: String,
        /// The limit.
        limit_ms: u64,
    },
    /// The connection broke before the answer's head.
    #[error("connection to {host} broke: {reason}")]
    Broken {
        /// Whom.
        host: String,
        /// Why.
        reason: String,
    },
}

/// The body of an upstream's answer.
pub enum UpstreamBody {
    /// From the network.
    Network(crate::transport::NetworkBody),
    /// Made in this process (simulator, tests).
    Local(http_body_util::combinators::UnsyncBoxBody<Bytes, std::io::Error>),
    /// Either, copied for the log while it is read.
    Copied(Box<CopiedBody>),
}

impl std::fmt::Debug for UpstreamBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Network(_) => "Network",
            Self::Local(_) => "Local",
            Self::Copied(_) => "Copied",
        })
    }
}

impl http_body::Body for UpstreamBody {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, std::io::Error>>> {
        match &mut *self {
            Self::Network(body) => std::pin::Pin::new(body).poll_frame(cx),
            Self::Local(body) => std::pin::Pin::new(body).poll_frame(cx),
            Self::Copied(body) => std::pin::Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Network(body) => body.is_end_stream(),
            Self::Local(body) => body.is_end_stream(),
            Self::Copied(body) => body.is_end_stream(),
        }
    }
}

/// Counts what callers use against their limits.
pub trait Counters: Send + Sync {
    /// Takes all charges or none.
    fn reserve(&self, charges: &[Charge], now_ms: i64) -> Reserving<'_>;
    /// What would become of a reservation; nothing is taken.
    fn foresee(&self, charges: &[Charge], now_ms: i64) -> Reserving<'_>;
    /// Corrects a charge once the actual amount is known, and gives back what was held only while running.
    fn settle(&self, charges: &[Charge], now_ms: i64);
    /// Counts what an earlier process let in, whatever the limits.
    fn restore(&self, charges: &[Charge], now_ms: i64);
}

/// A reservation that is decided, or one that a shared store decides.
pub enum Reserving<'a> {
    /// Decided in this process.
    Ready(Verdict),
    /// Decided elsewhere.
    Waiting(BoxFuture<'a, Verdict>),
}

/// What became of a reservation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The limit that has no room for it; nothing was taken then.
    pub exceeded: Option<Exceeded>,
    /// What is left of each limit now.
    pub standings: SmallVec<[Standing; 4]>,
}

/// An amount against one limit of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    /// Whose limit.
    pub key: ApiKeyId,
    /// Which limit.
    pub meter: omniroute_domain::limit::Meter,
    /// The limit.
    pub limit: u64,
    /// How much; in `settle` the difference to what was reserved.
    pub amount: i64,
}

/// A limit that would be exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exceeded {
    /// Which.
    pub meter: omniroute_domain::limit::Meter,
    /// The limit.
    pub limit: u64,
    /// Until it has room again; `None` when that depends on running requests.
    pub retry_after: Option<Duration>,
}
