//! What a client is told when a request cannot be served. Rendered by the client's dialect at the rim.

use std::borrow::Cow;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use omniroute_dialect::ir::{AttemptNote, ErrorKind, PublicError};
use omniroute_dialect::{DecodeError, EncodeError};
use omniroute_domain::resolve::ResolveError;

/// A request's failure in our words. As small as a pointer: nearly every result that a request hands on could be one, and
/// hardly any is.
#[derive(Debug, Clone)]
pub struct GatewayError(Box<Told>);

/// What there is to be told of a failure.
#[derive(Debug, Clone)]
pub struct Told {
    /// Status class.
    pub kind: ErrorKind,
    /// Machine-readable code; `None` for the kind's usual one.
    pub code: Option<Cow<'static, str>>,
    /// What was wrong, where, and what to do. Scrubbed.
    pub message: String,
    /// JSON path of the offending member.
    pub param: Option<String>,
    /// When to come back.
    pub retry_after: Option<Duration>,
    /// When the first of those can be asked again who were asked, where coming back is no advice.
    pub recovers_in: Option<Duration>,
    /// The attempts behind it.
    pub attempts: Vec<AttemptNote>,
    /// Whether asking again unchanged is pointless.
    pub is_final: bool,
}

impl GatewayError {
    /// An error of our own making; the client should not repeat the request unchanged if it is a 4xx.
    pub fn new(kind: ErrorKind, code: &'static str, message: impl Into<String>) -> Self {
        Self::from(Told {
            kind,
            code: Some(Cow::Borrowed(code)),
            message: message.into(),
            param: None,
            retry_after: None,
            recovers_in: None,
            attempts: Vec::new(),
            is_final: kind.status() < 500
                && !matches!(kind, ErrorKind::RateLimited | ErrorKind::RequestTimeout),
        })
    }

    /// With the member that is to blame.
    pub fn param(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// With the time to come back.
    pub fn retry_after(mut self, wait: Option<Duration>) -> Self {
        self.retry_after = wait;
        self
    }

    /// Its own code, or the usual one of its kind.
    pub fn told_code(&self) -> &str {
        self.code.as_deref().unwrap_or(self.kind.code())
    }

    /// The form that dialects render.
    pub fn public(&self, request_id: &str, now_ms: i64) -> PublicError {
        let recovers_in = self.retry_after.or(self.recovers_in);
        let retry_at = recovers_in.map(|wait| rfc3339(now_ms.saturating_add(crate::time::millis(wait))));
        PublicError {
            kind: self.kind,
            code: self.code.clone(),
            message: self.message.clone(),
            param: self.param.clone(),
            request_id: request_id.to_owned(),
            attempts: self.attempts.clone(),
            retry_at,
        }
    }
}

impl From<Told> for GatewayError {
    fn from(told: Told) -> Self {
        Self(Box::new(told))
    }
}

impl Deref for GatewayError {
    type Target = Told;

    fn deref(&self) -> &Told {
        &self.0
    }
}

impl DerefMut for GatewayError {
    fn deref_mut(&mut self) -> &mut Told {
        &mut self.0
    }
}

impl From<DecodeError> for GatewayError {
    fn from(error: DecodeError) -> Self {
        let mut ours = Self::new(ErrorKind::InvalidRequest, error.code, error.message);
        ours.param = error.param;
        ours
    }
}

impl From<EncodeError> for GatewayError {
    fn from(error: EncodeError) -> Self {
        let mut ours = Self::new(ErrorKind::InvalidRequest, error.code, error.message);
        ours.param = error.param;
        ours
    }
}

impl From<ResolveError> for GatewayError {
    fn from(error: ResolveError) -> Self {
        let kind = match error {
            ResolveError::Hidden { .. }
            | ResolveError::AliasOfNothing { .. }
            | ResolveError::NotFound { .. } => ErrorKind::NotFound,
            ResolveError::Invalid(_)
            | ResolveError::UnknownProvider { .. }
            | ResolveError::NoCredentials { .. }
            | ResolveError::NoAccount { .. }
            | ResolveError::Mismatch { .. }
            | ResolveError::AliasElsewhere { .. }
            | ResolveError::AliasChain { .. }
            | ResolveError::AliasLoop { .. }
            | ResolveError::AliasHops { .. }
            | ResolveError::Ambiguous { .. } => ErrorKind::InvalidRequest,
        };
        Self::new(kind, error.code(), error.to_string()).param("model")
    }
}

/// Epoch milliseconds as RFC 3339 in UTC, to the millisecond.
pub fn rfc3339(ms: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(ms).unwrap_or_default();
    format!("{time:.3}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rendered_in_utc() {
        for (ms, text) in
            [(951_782_400_123, "2000-02-29T00:00:00.123Z"), (1_795_392_000_000, "2026-11-23T00:00:00.000Z")]
        {
            assert_eq!(rfc3339(ms), text);
        }
    }
}
