//! Errors: what an upstream said, and what we say.

use std::borrow::Cow;
use std::time::Duration;

/// An upstream's error, read but not judged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UpstreamError {
    /// HTTP status; for an error inside a stream or a 200 the status it amounts to, if it names one.
    pub status: Option<u16>,
    /// The vendor's error type (`rate_limit_error`).
    pub kind: Option<String>,
    /// The vendor's error code (`insufficient_quota`).
    pub code: Option<String>,
    /// The member the vendor names.
    pub param: Option<String>,
    /// The vendor's words, at most 500 characters, unwrapped.
    pub message: String,
    /// How long to wait, if the body says so.
    pub retry_after: Option<Duration>,
}

/// What kind of error a client is told; decides status, type and code in every dialect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// 400.
    InvalidRequest,
    /// 401.
    Authentication,
    /// 402.
    Billing,
    /// 403.
    Permission,
    /// 404.
    NotFound,
    /// 405.
    MethodNotAllowed,
    /// 408.
    RequestTimeout,
    /// 409.
    Conflict,
    /// 413.
    TooLarge,
    /// 414.
    UriTooLong,
    /// 422.
    Unprocessable,
    /// 429.
    RateLimited,
    /// 431.
    HeadTooLarge,
    /// 499: somebody ended the request. SDKs do not repeat it.
    Cancelled,
    /// 500.
    Internal,
    /// 502.
    BadGateway,
    /// 503.
    Unavailable,
    /// 504.
    GatewayTimeout,
    /// 529 in the dialect that has it, 503 elsewhere.
    Overloaded,
}

impl ErrorKind {
    /// The kind for an upstream's status that is passed on.
    pub const fn from_status(status: u16) -> Self {
        match status {
            401 => Self::Authentication,
            402 => Self::Billing,
            403 => Self::Permission,
            404 => Self::NotFound,
            405 => Self::MethodNotAllowed,
            408 => Self::RequestTimeout,
            409 => Self::Conflict,
            413 => Self::TooLarge,
            422 => Self::Unprocessable,
            429 => Self::RateLimited,
            400..=499 => Self::InvalidRequest,
            // Beyond 519 there are words of networks in front of upstreams.
            502 | 520..=523 | 525..=527 | 530 => Self::BadGateway,
            503 => Self::Unavailable,
            504 | 524 => Self::GatewayTimeout,
            529 => Self::Overloaded,
            _ => Self::Internal,
        }
    }

    /// The HTTP status; `Overloaded` is 503 here and 529 in the dialect that knows it.
    pub const fn status(self) -> u16 {
        match self {
            Self::InvalidRequest => 400,
            Self::Authentication => 401,
            Self::Billing => 402,
            Self::Permission => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::RequestTimeout => 408,
            Self::Conflict => 409,
            Self::TooLarge => 413,
            Self::UriTooLong => 414,
            Self::Unprocessable => 422,
            Self::RateLimited => 429,
            Self::HeadTooLarge => 431,
            Self::Cancelled => 499,
            Self::Internal => 500,
            Self::BadGateway => 502,
            Self::Unavailable | Self::Overloaded => 503,
            Self::GatewayTimeout => 504,
        }
    }

    /// The code of errors of the kind that have none of their own, in lower snake case.
    pub const fn code(self) -> &'static str {
        match self {
            Self::InvalidRequest => "bad_request",
            Self::Authentication => "invalid_api_key",
            Self::Billing => "payment_required",
            Self::Permission => "forbidden",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::RequestTimeout => "request_timeout",
            Self::Conflict => "conflict",
            Self::TooLarge => "request_too_large",
            Self::UriTooLong => "uri_too_long",
            Self::Unprocessable => "unprocessable",
            Self::RateLimited => "rate_limit_exceeded",
            Self::HeadTooLarge => "headers_too_large",
            Self::Cancelled => "request_cancelled",
            Self::Internal => "internal_server_error",
            Self::BadGateway => "bad_gateway",
            Self::Unavailable | Self::Overloaded => "service_unavailable",
            Self::GatewayTimeout => "gateway_timeout",
        }
    }
}

/// What a client is told. Rendered by the client's dialect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicError {
    /// Status class.
    pub kind: ErrorKind,
    /// Machine-readable code, lower snake case; `None` for the kind's usual one.
    pub code: Option<Cow<'static, str>>,
    /// What was wrong, where, and what to do. Already scrubbed.
    pub message: String,
    /// JSON path of the offending member.
    pub param: Option<String>,
    /// The gateway's id of the request.
    pub request_id: String,
    /// The attempts behind the error, oldest first.
    pub attempts: Vec<AttemptNote>,
    /// When a target becomes usable again, as RFC 3339.
    pub retry_at: Option<String>,
}

impl PublicError {
    /// Its own code, or the usual one of its kind.
    pub(crate) fn told_code(&self) -> &str {
        self.code.as_deref().unwrap_or(self.kind.code())
    }

    /// The message with the attempts behind it, for dialects that have no other place for them.
    pub(crate) fn message_with_attempts(&self) -> String {
        let mut message = self.message.clone();
        for (at, attempt) in self.attempts.iter().enumerate() {
            message.push_str(if at == 0 { " (attempts: " } else { "; " });
            message.push_str(&format!("{}/{} ", attempt.name, attempt.model));
            if let Some(status) = attempt.status {
                message.push_str(&format!("{status} "));
            }
            message.push_str(&attempt.code);
        }
        if !self.attempts.is_empty() {
            message.push(')');
        }
        message
    }
}

/// One attempt as it is told to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptNote {
    /// Provider id.
    pub provider: String,
    /// The provider as people know it.
    pub name: String,
    /// Upstream model.
    pub model: String,
    /// Upstream status, if there was an answer.
    pub status: Option<u16>,
    /// Upstream code or our class.
    pub code: String,
    /// In words.
    pub reason: String,
}
