//! What is known beyond one request, and who keeps it.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use omniroute_dialect::DialectId;
use omniroute_domain::breaker::BreakerRecord;
use omniroute_domain::entity::ConnectionId;
use omniroute_domain::handoff::{Handoff, HandoffKey};
use omniroute_domain::health::ModelLock;
use omniroute_domain::limiter::LearnedLimits;
use omniroute_domain::session::{Affinity, SessionKey};
use omniroute_provider::ProviderId;
use omniroute_provider::quota_api::ToldQuota;

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
