//! Errors: read from upstreams, written for clients.

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use omniroute_wire::json_out::Object;

use crate::{
    error_text,
    ir::{ErrorKind, PublicError, UpstreamError},
};

/// Reads an upstream's error.
pub(super) fn decode(status: StatusCode, body: &[u8]) -> UpstreamError {
    error_text::read(status.as_u16(), body)
}

/// Writes an error for a client.
pub(crate) fn encode(error: &PublicError) -> (StatusCode, Bytes) {
    let mut out = BytesMut::with_capacity(256);
    write(error, true, &mut out);
    let status = StatusCode::from_u16(error.kind.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, out.freeze())
}

/// Writes an error for a client whose stream has begun. Nothing follows it.
pub(super) fn encode_stream(error: &PublicError) -> Bytes {
    let mut out = BytesMut::with_capacity(256);
    out.extend_from_slice(b"data: ");
    write(error, false, &mut out);
    out.extend_from_slice(b"\n\n");
    out.freeze()
}

fn write(error: &PublicError, with_attempts: bool, out: &mut BytesMut) {
    let mut whole = Object::begin(out);
    let mut object = whole.object("error");
    object
        .str("message", &error.message)
        .str("type", type_of(error.kind))
        .str_or_null("param", error.param.as_deref());
    object.str("code", error.told_code());
    if with_attempts && (!error.attempts.is_empty() || error.retry_at.is_some()) {
        let mut details = object.object("omniroute");
        let mut attempts = details.array("attempts");
        for note in &error.attempts {
            let mut attempt = attempts.object();
            attempt.str("provider", &note.provider).str("model", &note.model);
            match note.status {
                Some(status) => attempt.u64("status", u64::from(status)),
                None => attempt.raw("status", "null"),
            };
            attempt.str("code", &note.code).str("reason", &note.reason);
            attempt.end();
        }
        attempts.end();
        details.str_or_null("retry_at", error.retry_at.as_deref()).str("request_id", &error.request_id);
        details.end();
    }
    object.end();
    whole.end();
}

/// The type of a kind of error.
fn type_of(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::InvalidRequest
        | ErrorKind::NotFound
        | ErrorKind::MethodNotAllowed
        | ErrorKind::TooLarge
        | ErrorKind::UriTooLong
        | ErrorKind::Unprocessable
        | ErrorKind::HeadTooLarge
        | ErrorKind::Cancelled => "invalid_request_error",
        ErrorKind::Authentication => "authentication_error",
        ErrorKind::Billing => "billing_error",
        ErrorKind::Permission => "permission_error",
        ErrorKind::RequestTimeout => "timeout_error",
        ErrorKind::Conflict => "conflict_error",
        ErrorKind::RateLimited => "rate_limit_error",
        ErrorKind::Internal
        | ErrorKind::BadGateway
        | ErrorKind::Unavailable
        | ErrorKind::Overloaded
        | ErrorKind::GatewayTimeout => "server_error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::AttemptNote;

    fn error() -> PublicError {
        PublicError {
            kind: ErrorKind::RateLimited,
            code: None,
            message: "say \"please\"".to_owned(),
            param: None,
            request_id: "req-1".to_owned(),
            attempts: Vec::new(),
            retry_at: None,
        }
    }

    #[test]
    fn all_four_members_are_always_there() {
        let (status, body) = encode(&error());
        assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(
            body,
            r#"{"error":{"message":"say \"please\"","type":"rate_limit_error","param":null,"code":"rate_limit_exceeded"}}"#
        );
        let stream = encode_stream(&error());
        assert!(stream.starts_with(b"data: {\"error\":") && stream.ends_with(b"}}\n\n"));
    }

    #[test]
    fn attempts_are_told() {
        let mut error = error();
        error.code = Some("model_not_found".into());
        error.param = Some("model".to_owned());
        error.retry_at = Some("2026-01-01T00:00:00Z".to_owned());
        error.attempts.push(AttemptNote {
            provider: "p".to_owned(),
            name: "p".to_owned(),
            model: "m".to_owned(),
            status: None,
            code: "network_error".to_owned(),
            reason: "connection refused".to_owned(),
        });
        let (_, body) = encode(&error);
        assert_eq!(
            body,
            r#"{"error":{"message":"say \"please\"","type":"rate_limit_error","param":"model","code":"model_not_found","omniroute":{"attempts":[{"provider":"p","model":"m","status":null,"code":"network_error","reason":"connection refused"}],"retry_at":"2026-01-01T00:00:00Z","request_id":"req-1"}}}"#
        );
    }
}
