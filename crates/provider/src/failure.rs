//! What went wrong, as two separate facts: what is broken (scope) and what may help (retry).

use std::time::Duration;

use omniroute_dialect::ir::UpstreamError;

/// The class of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// Too many requests or tokens for now.
    RateLimited,
    /// The account has no quota or credit left.
    QuotaSpent,
    /// The credential was refused.
    AuthRejected,
    /// The account may not do this.
    Forbidden,
    /// The account is closed or suspended.
    Banned,
    /// The account does not have the model.
    ModelMissing,
    /// The upstream has no capacity.
    Overloaded,
    /// The upstream failed or answered 408, 500, 502, 504.
    Unavailable,
    /// No answer within the limit.
    Timeout,
    /// No connection: DNS, TCP or TLS.
    Connect,
    /// The address may not be called.
    AddressBlocked,
    /// "Request not allowed": a passing refusal that says nothing about the account.
    NotAllowed,
    /// The prompt does not fit the model.
    ContextTooLong,
    /// A content policy refused the request.
    Refused,
    /// The request itself is wrong.
    BadRequest,
    /// A successful answer without any content.
    Empty,
    /// The answer is complete, and not what the operator asks of one.
    InvalidResponse,
    /// The answer is not what the dialect says it should be, or it broke off.
    Protocol,
    /// The client went away.
    ClientAbort,
    /// None of the above.
    Unknown,
}

impl FailureKind {
    /// Every class.
    pub const ALL: [Self; 19] = [
        Self::RateLimited,
        Self::QuotaSpent,
        Self::AuthRejected,
        Self::Forbidden,
        Self::Banned,
        Self::ModelMissing,
        Self::Overloaded,
        Self::Unavailable,
        Self::Timeout,
        Self::Connect,
        Self::AddressBlocked,
        Self::NotAllowed,
        Self::ContextTooLong,
        Self::Refused,
        Self::BadRequest,
        Self::Empty,
        Self::Protocol,
        Self::ClientAbort,
        Self::Unknown,
    ];

    /// The class of this word.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    /// The word used in logs and API fields (`rate_limit`, `quota_exhausted`, …).
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RateLimited => "rate_limit",
            Self::QuotaSpent => "quota_exhausted",
            Self::AuthRejected => "auth",
            Self::Forbidden => "forbidden",
            Self::Banned => "banned",
            Self::ModelMissing => "not_found",
            Self::Overloaded => "capacity",
            Self::Unavailable => "transient",
            Self::Timeout => "timeout",
            Self::Connect => "network_error",
            Self::AddressBlocked => "url_blocked",
            Self::NotAllowed => "request_not_allowed",
            Self::ContextTooLong => "context_length",
            Self::Refused => "content_filter",
            Self::BadRequest => "bad_request",
            Self::Empty => "empty_response",
            Self::InvalidResponse => "invalid_response",
            Self::Protocol => "protocol",
            Self::ClientAbort => "client_abort",
            Self::Unknown => "unknown",
        }
    }
}

/// What is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Only this request.
    Request,
    /// The credential, for every model.
    Connection,
    /// The credential for this model.
    ConnectionModel,
    /// The provider's endpoint.
    Provider,
}

/// What may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Nothing: tell the client.
    Never,
    /// Another account of the provider, or another target.
    Elsewhere,
    /// Another model, but not another account of this one.
    OtherModel,
}

/// A judged failure.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The class.
    pub kind: FailureKind,
    /// What is broken.
    pub scope: Scope,
    /// What may help.
    pub retry: Retry,
    /// How long the upstream asked to wait, from headers or body.
    pub retry_after: Option<Duration>,
    /// Whether the upstream said that the account's credit is used up, and not just a quota that comes back.
    pub is_out_of_credit: bool,
    /// What the upstream said.
    pub upstream: UpstreamError,
}
