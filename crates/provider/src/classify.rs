//! Judges failures. What upstreams say is data ([`TABLE`]): the first row that matches decides.
//!
//! Codes and types come before free text, because a message may quote anything; text comes before the status,
//! because a status says little. Wording that sharpens a vague code stands before that code.

use http::{HeaderMap, StatusCode};
use omniroute_dialect::ir::UpstreamError;

use crate::{
    Failure, FailureKind, ProviderSpec, Retry, Scope, address::Blocked, hints, scrub::scrub,
    spec::RateLimitHeaders,
};

mod table;

use table::{Row, TABLE, TOLD_NONE};

/// Longest message that is kept, in characters.
const LONGEST_MESSAGE: usize = 500;

/// Judges what an upstream answered. `status` is that of the answer; for an error within a successful answer or a
/// stream, the status the error names counts, and 502 if it names none.
pub fn classify(
    spec: &ProviderSpec,
    mut error: UpstreamError,
    status: StatusCode,
    headers: &HeaderMap,
    now_ms: i64,
) -> Failure {
    let told = if status.is_success() { told_status(&error) } else { Some(status.as_u16()) };
    let message = error.message.to_lowercase();
    let hint = hints::retry_hint(headers, &error, spec.rate_limit_headers, now_ms);
    let asked = Asked {
        status: told.unwrap_or(TOLD_NONE),
        names: [error.code.as_deref(), error.kind.as_deref()],
        message: &message,
        has_hint: hint.is_some(),
    };
    let row = TABLE.iter().find(|row| asked.matches(row));
    let (kind, by_text) = row.map_or((FailureKind::Unknown, false), |row| (row.kind, !row.is_status_only()));
    let (mut scope, retry) = usual(kind);
    if let Some(row) = row {
        scope = row.scope.unwrap_or(scope);
    }
    if kind == FailureKind::RateLimited && concerns_account(spec, headers) {
        scope = Scope::Connection;
    }
    let mut retry_after = if scope == Scope::Request { None } else { hint };
    if kind == FailureKind::RateLimited && retry_after.is_none() {
        retry_after = hints::first_reset(headers, spec.rate_limit_headers, now_ms);
    }
    if kind == FailureKind::QuotaSpent && retry_after.is_none() && table::is_daily(&message) {
        let pacific = spec.rate_limit_headers == RateLimitHeaders::Google;
        retry_after = Some(hints::until_midnight(now_ms, pacific));
    }
    // Who says when to come back speaks of a quota, whatever the words.
    let is_out_of_credit =
        kind == FailureKind::QuotaSpent && retry_after.is_none() && table::is_credit(asked.names, &message);
    let is_of_bytes = [error.code.as_deref(), error.kind.as_deref()].contains(&Some("request_too_large"));
    if kind == FailureKind::ContextTooLong && by_text && !is_of_bytes {
        // Clients compact their history on this code and on no other.
        error.code = Some("context_length_exceeded".to_owned());
    }
    error.status = Some(told.unwrap_or(502));
    error.message = scrub(&error.message);
    if let Some((end, _)) = error.message.char_indices().nth(LONGEST_MESSAGE) {
        error.message.truncate(end);
    }
    Failure { kind, scope, retry, retry_after, is_out_of_credit, upstream: error }
}

impl Failure {
    /// No answer, or no more of it, within the limit; `what` says which limit.
    pub fn timeout(what: &str) -> Self {
        Self::local(FailureKind::Timeout, 504, what)
    }

    /// No connection; `message` says at which step and why.
    pub fn connect(message: &str) -> Self {
        Self::local(FailureKind::Connect, 502, message)
    }

    /// The host has an address that may not be called.
    pub fn address_blocked(blocked: &Blocked) -> Self {
        let way_out = if blocked.can_be_allowed {
            "; set allowPrivate on the node or connection, or ALLOW_PRIVATE_PROVIDER_URLS=true, to allow it"
        } else {
            ", which is never called"
        };
        // The address itself is told to the operator's log by whoever connects, not to clients.
        let text = format!("the provider's address is {}{way_out}", blocked.what);
        Self::local(FailureKind::AddressBlocked, 502, &text)
    }

    /// A successful answer without content.
    pub fn empty() -> Self {
        Self::local(FailureKind::Empty, 502, "the upstream answered without any content")
    }

    /// An answer that is not what its dialect says it should be; `message` says in which way.
    pub fn protocol(message: &str) -> Self {
        Self::local(FailureKind::Protocol, 502, message)
    }

    /// An answer that is not what the operator asks of one; `objection` says in which way.
    pub fn invalid_response(objection: &str) -> Self {
        Self::local(FailureKind::InvalidResponse, 502, objection)
    }

    /// The client went away.
    pub fn client_abort() -> Self {
        Self::local(FailureKind::ClientAbort, 499, "the client closed the connection")
    }

    fn local(kind: FailureKind, status: u16, message: &str) -> Self {
        let (scope, retry) = usual(kind);
        let upstream = UpstreamError {
            status: Some(status),
            kind: None,
            code: Some(kind.as_str().to_owned()),
            param: None,
            message: scrub(message),
            retry_after: None,
        };
        Self { kind, scope, retry, retry_after: None, is_out_of_credit: false, upstream }
    }
}

/// What is broken and what may help, unless a row knows better.
const fn usual(kind: FailureKind) -> (Scope, Retry) {
    match kind {
        FailureKind::RateLimited
        | FailureKind::Forbidden
        | FailureKind::ModelMissing
        | FailureKind::Overloaded
        | FailureKind::Unavailable
        | FailureKind::Timeout
        | FailureKind::Connect
        | FailureKind::NotAllowed
        | FailureKind::Empty
        | FailureKind::Protocol
        | FailureKind::Unknown => (Scope::ConnectionModel, Retry::Elsewhere),
        FailureKind::QuotaSpent
        | FailureKind::AuthRejected
        | FailureKind::Banned
        | FailureKind::AddressBlocked => (Scope::Connection, Retry::Elsewhere),
        FailureKind::ContextTooLong | FailureKind::Refused | FailureKind::InvalidResponse => {
            (Scope::Request, Retry::OtherModel)
        }
        FailureKind::BadRequest | FailureKind::ClientAbort => (Scope::Request, Retry::Never),
    }
}

/// Generic header sets count a whole account; the vendors' own count per model.
fn concerns_account(spec: &ProviderSpec, headers: &HeaderMap) -> bool {
    let is_spent = |name: &str| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.and_then(|value| value.trim().parse::<f64>().ok()).is_some_and(|left| left <= 0.0)
    };
    spec.rate_limit_headers == RateLimitHeaders::Generic
        && (is_spent("x-ratelimit-remaining") || is_spent("ratelimit-remaining"))
}

/// The status an error within a successful answer names, by itself or as a numeric code.
fn told_status(error: &UpstreamError) -> Option<u16> {
    let is_error = |status: &u16| (400..600).contains(status);
    let code = || error.code.as_deref().and_then(|code| code.parse().ok()).filter(is_error);
    error.status.filter(is_error).or_else(code)
}

/// What is asked of every row.
struct Asked<'a> {
    status: u16,
    names: [Option<&'a str>; 2],
    message: &'a str,
    has_hint: bool,
}

impl Asked<'_> {
    fn matches(&self, row: &Row) -> bool {
        let status = row.statuses.is_empty() || row.statuses.iter().any(|range| range.contains(&self.status));
        let code = row.codes.is_empty()
            || self
                .names
                .iter()
                .flatten()
                .any(|name| row.codes.iter().any(|code| name.eq_ignore_ascii_case(code)));
        let text = row.texts.is_empty() || row.texts.iter().any(|text| contains(self.message, text));
        status && code && text && (!row.with_hint || self.has_hint)
    }
}

/// Whether `message` has the parts of `pattern`, which `*` separates, one after the other.
fn contains(message: &str, pattern: &str) -> bool {
    let mut rest = message;
    pattern.split('*').all(|part| match rest.find(part) {
        Some(at) => {
            rest = &rest[at + part.len()..];
            true
        }
        None => false,
    })
}

#[cfg(test)]
mod tests;
