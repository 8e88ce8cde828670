//! The small traits that others implement, so that the engine knows neither sockets nor databases.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use omniroute_dialect::{
    DialectId,
    ir::{Loss, Usage},
};
use omniroute_domain::breaker::BreakerRecord;
use omniroute_domain::budget::Event;
use omniroute_domain::combo::Place;
use omniroute_domain::entity::{ApiKeyId, ConnectionId, ConnectionStatus};
use omniroute_domain::handoff::{Handoff, HandoffKey};
use omniroute_domain::health::ModelLock;
use omniroute_domain::limit::Standing;
use omniroute_domain::limiter::LearnedLimits;
use omniroute_domain::price::Units;
use omniroute_domain::session::{Affinity, SessionKey};
use omniroute_provider::ProviderId;
use omniroute_provider::quota_api::ToldQuota;
use smallvec::SmallVec;

use crate::bodies::{BodyNote, CopiedBody, RequestBodies};
use crate::decision::Decision;
use crate::spool::Spooled;

pub use crate::row_id::RowId;

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

/// What is known beyond one request, and should outlive the process.
#[derive(Debug, Clone, PartialEq)]
pub enum Memory {
    /// Reasoning of an answer.
    Reasoning(ReasoningRow),
    /// Who made an answer.
    Owner(OwnerRow),
    /// What a vendor said of its limits.
    Limits(LimitsRow),
    /// What is left of a quota, for the history.
    Quota(QuotaRow),
    /// A conversation stays with an account.
    Pinned(Affinity),
    /// A conversation was ended.
    Unpinned(SessionKey),
    /// What a conversation takes with it to another account.
    Handoff(Box<HandoffRow>),
    /// It is told no more.
    HandoffGone(HandoffKey),
    /// A provider's breaker changed its state.
    Breaker(BreakerRecord),
    /// A model is locked on an account.
    Lock(LockRow),
    /// A lock ended before its time.
    Unlock {
        /// The account.
        connection: ConnectionId,
        /// The model.
        model: String,
    },
    /// An answer for whoever asks for the same.
    Answer(AnswerRow),
    /// A question, so that others that are close to it are found.
    Question(QuestionRow),
    /// An answer was given again.
    AnswerUsed {
        /// Which.
        signature: String,
        /// How often since it was last said.
        times: u32,
    },
    /// Answers were deleted: those of a model (as it was asked for), under a signature, or all.
    AnswersCleared {
        /// Of this model alone.
        model: Option<String>,
        /// Under this signature alone.
        signature: Option<String>,
        /// Made until then, in epoch milliseconds.
        until: i64,
    },
}

/// A summary of a conversation for the account that answers next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandoffRow {
    /// Which conversation.
    pub key: HandoffKey,
    /// The summary.
    pub handoff: Handoff,
}

/// An answer that is kept for whoever asks for the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerRow {
    /// Whose it is and what it answers: the tenant, a point and the digest of the question.
    pub signature: String,
    /// Whose it is: the id of a client key, or `_`.
    pub tenant: String,
    /// The answer.
    pub answer: Arc<KeptAnswer>,
    /// When it was made, in epoch milliseconds.
    pub created_at: i64,
    /// Until when it may be given.
    pub expires_at: i64,
}

/// A question that was answered, as it is compared with others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuestionRow {
    /// Where its answer is.
    pub signature: String,
    /// Whose it is: the id of a client key, or `_`.
    pub tenant: String,
    /// What it may be compared with at all.
    pub bucket: [u8; 32],
    /// The model as it was asked for.
    pub asked: String,
    /// The question.
    pub text: String,
    /// Its vector of length one: floating-point numbers of four bytes, the least one first.
    pub vector: Bytes,
    /// When it was answered, in epoch milliseconds.
    pub created_at: i64,
    /// Until when that answer may be given.
    pub expires_at: i64,
}

/// An answer, and what it would cost to get it anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptAnswer {
    /// The model as it was asked for.
    pub asked: String,
    /// Who answered.
    pub provider: ProviderId,
    /// Its name of the model.
    pub model: Arc<str>,
    /// The dialect in which it is written.
    pub dialect: DialectId,
    /// Tokens that were read and made.
    pub tokens: u64,
    /// What it cost in billionths of a US dollar; `None` = unknown.
    pub cost_nano: Option<i64>,
    /// The whole answer, JSON.
    pub body: Bytes,
}

/// Answers that outlive the process.
pub trait Shelf: Send + Sync {
    /// The answer under this signature, unless it has expired. A failure is nothing to a request, but is counted and told.
    fn find<'a>(
        &'a self,
        signature: &'a str,
        now_ms: i64,
    ) -> BoxFuture<'a, Result<Option<AnswerRow>, Unreadable>>;
}

/// Answers that vendors make in the background, as all processes on one database know them.
pub trait Claims: Send + Sync {
    /// Whether this process is the one to bill what an answer came to, under a tenant and the vendor's id.
    fn claim<'a>(&'a self, tenant: &'a str, id: &'a str) -> BoxFuture<'a, Result<bool, Unreadable>>;
}

/// The shelf cannot say what it has, for this reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(pub String);

/// What a vendor said of its limits for one model on one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitsRow {
    /// The account.
    pub connection: ConnectionId,
    /// The upstream's name of the model.
    pub model: String,
    /// The limits.
    pub limits: LearnedLimits,
    /// When that was, in epoch milliseconds.
    pub updated_at: i64,
}

/// What was left of a quota at a time.
#[derive(Debug, Clone, PartialEq)]
pub struct QuotaRow {
    /// The provider.
    pub provider: ProviderId,
    /// The account, or the id of the state of one of its keys.
    pub connection: ConnectionId,
    /// Of which model; `None` = of the whole account.
    pub model: Option<String>,
    /// What the vendor said; `None` where it refused a request because nothing is left, for a plan, and where
    /// it was asked.
    pub limits: Option<LearnedLimits>,
    /// A window of the account's plan, and the share that is left of it by our own count.
    pub plan: Option<(Arc<str>, f64)>,
    /// What the vendor said of a limit or a purse when it was asked.
    pub told: Option<Box<ToldQuota>>,
    /// When there is more again, in epoch milliseconds.
    pub until: Option<i64>,
    /// When that was.
    pub at: i64,
}

/// A model that is locked on an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockRow {
    /// The provider.
    pub provider: ProviderId,
    /// The account, or one of its keys.
    pub connection: ConnectionId,
    /// The lock.
    pub lock: ModelLock,
}

/// Which account made an answer, or a part of one, that the vendor keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerRow {
    /// The vendor's id.
    pub response_id: String,
    /// Who asked for it: the id of a client key, or `-`.
    pub tenant: String,
    /// The account.
    pub connection: ConnectionId,
    /// The model that was asked for.
    pub asked: String,
    /// The account's name of the model.
    pub model: String,
    /// What was billed of it, where it was not finished when its request ended: the rest is billed when it is seen to be.
    pub unfinished: Option<Unfinished>,
    /// Until when it may be named, in epoch milliseconds.
    pub expires_at: i64,
}

/// Tokens that were billed of an answer before it was finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unfinished {
    /// Of its prompt, by estimate.
    pub input: u64,
    /// Of what was heard of it.
    pub output: u64,
}

/// Reasoning of one answer, for the turn that a client makes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReasoningRow {
    /// Whose conversation: the id of a client key, or `-`.
    pub tenant: String,
    /// By what the turn is recognised.
    pub key: String,
    /// The reasoning, as the dialects write it down.
    pub parts: Bytes,
    /// When it was thought, in epoch milliseconds.
    pub created_at: i64,
    /// Until when a conversation may go on with it.
    pub expires_at: i64,
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

/// [`RequestRow::request_type`] of conversations, and of what belongs to them.
pub const CHAT: &str = "chat";
/// [`RequestRow::request_type`] of the gateway's own calls that sum a conversation up.
pub const HANDOFF: &str = "handoff";
/// [`RequestRow::source`] of answers that were made for a question which is close.
pub const SIMILAR: &str = "similar";

/// One finished request, as it is logged and counted.
#[derive(Debug, Clone)]
pub struct RequestRow {
    /// Row id; contains the time of the arrival.
    pub id: RowId,
    /// The gateway's id of the request.
    pub request_id: Arc<str>,
    /// HTTP method.
    pub method: http::Method,
    /// Path, without the query.
    pub path: Arc<str>,
    /// What was asked for: [`CHAT`], [`HANDOFF`], or [`omniroute_provider::Capability::request_type`].
    pub request_type: &'static str,
    /// Status the client got; 499 when it went away.
    pub status: u16,
    /// Model the client asked for; empty when the body could not be read.
    pub requested_model: Arc<str>,
    /// Upstream model of the last attempt.
    pub model: Arc<str>,
    /// Provider of the last attempt.
    pub provider: Option<ProviderId>,
    /// Connection of the last attempt.
    pub connection: Option<ConnectionId>,
    /// Its name at the time.
    pub connection_name: Option<Arc<str>>,
    /// The client's key.
    pub api_key: Option<ApiKeyId>,
    /// Its name at the time.
    pub api_key_name: Option<Arc<str>>,
    /// Dialect of the client.
    pub client_dialect: DialectId,
    /// Dialect of the upstream.
    pub upstream_dialect: Option<DialectId>,
    /// Whether the client asked for a stream.
    pub stream: bool,
    /// From arrival to the last byte.
    pub duration_ms: i64,
    /// From arrival to the first meaningful event.
    pub ttft_ms: Option<i64>,
    /// From arrival to the first upstream call: what the gateway itself took before sending.
    pub overhead_us: i64,
    /// Tokens of all attempts together; absent members were not reported.
    pub usage: Usage,
    /// What all attempts together used beside tokens, if anything.
    pub units: Option<Box<Units>>,
    /// Whether any of the tokens are estimates.
    pub usage_estimated: bool,
    /// Cost of all attempts together in billionths of a US dollar; `None` = unknown.
    pub cost_nano: Option<i64>,
    /// Where the price came from (`catalog`, `user`, `inferred`, …); `None` = unpriced.
    pub price_source: Option<&'static str>,
    /// Short hash of the price row.
    pub price_version: Option<Arc<str>>,
    /// Who answered: `upstream`, `semantic` for the cache, [`SIMILAR`] for its answer to a question that is close, or
    /// `idempotent` for the answer to the same request a moment before.
    pub source: &'static str,
    /// How close that question is; where somebody was asked, one whose answer would have been given.
    pub similarity: Option<f64>,
    /// The combo that was asked for.
    pub combo: Option<Arc<str>>,
    /// The id of its step that was asked last.
    pub combo_step: Option<Arc<str>>,
    /// What is paid for it, by attempt; together they are the cost.
    pub bills: Vec<BillRow>,
    /// Every upstream attempt, oldest first.
    pub attempts: Vec<AttemptRow>,
    /// What went wrong in the end, scrubbed.
    pub error: Option<String>,
    /// Its code.
    pub error_code: Option<String>,
    /// What translation changed, at most 50.
    pub losses: Vec<Loss>,
    /// How it was routed, where that is to be written down.
    pub decision: Option<Box<Decision>>,
    /// What became of what was said in it.
    pub bodies: BodyNote,
}

impl RequestRow {
    /// What it would have cost where nobody had to be asked; `None` where somebody was, or that is not known.
    pub fn saved_nano(&self) -> Option<i64> {
        self.bills.iter().find(|bill| bill.is_saved).and_then(|bill| bill.amount_nano)
    }
}

/// What one attempt is billed: a row of the ledger.
#[derive(Debug, Clone, PartialEq)]
pub struct BillRow {
    /// Which of the attempts, from 1.
    pub attempt: u32,
    /// Provider.
    pub provider: ProviderId,
    /// Upstream model.
    pub model: Arc<str>,
    /// What was used.
    pub usage: Usage,
    /// What was used beside tokens, if anything.
    pub units: Option<Box<Units>>,
    /// Whether that is an estimate.
    pub estimated: bool,
    /// In billionths of a US dollar; `None` = unknown.
    pub amount_nano: Option<i64>,
    /// Where the price came from; `None` = unpriced.
    pub price_source: Option<&'static str>,
    /// Short hash of the price row.
    pub price_version: Option<Arc<str>>,
    /// When it was counted, in epoch milliseconds.
    pub settled_ms: i64,
    /// Whether nobody is billed: the answer was there already, and this is what it would have cost.
    pub is_saved: bool,
}

/// One upstream attempt.
#[derive(Debug, Clone)]
pub struct AttemptRow {
    /// Provider.
    pub provider: ProviderId,
    /// Upstream model.
    pub model: Arc<str>,
    /// Connection.
    pub connection: ConnectionId,
    /// Connection's name at the time.
    pub connection_name: Arc<str>,
    /// The steps of combos that led to it, the outermost combo's first; empty where there is no combo.
    pub path: SmallVec<[Place; 1]>,
    /// Upstream status, if there was an answer.
    pub status: Option<u16>,
    /// Class of the failure; `None` for the one that answered.
    pub failure: Option<&'static str>,
    /// In words, scrubbed.
    pub message: Option<String>,
    /// How long it took.
    pub duration_ms: i64,
    /// Tokens that it used, as far as they were seen.
    pub usage: Usage,
    /// Whether the prompt among them is an estimate, because the call was given up before anything was told of it.
    pub estimated: bool,
    /// What it used beside tokens, if anything.
    pub units: Option<Box<Units>>,
    /// What they cost in billionths of a US dollar; `None` = unknown.
    pub cost_nano: Option<i64>,
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
/// as soon as all of the request is handed to a connection: from then on an upstream may work on it, and bill that.
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
