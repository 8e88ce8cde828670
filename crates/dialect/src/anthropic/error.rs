//! Errors: an upstream's, and ours for a client.

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use omniroute_wire::json_out::Object;

use crate::{
    error_text,
    ir::{ErrorKind, PublicError, UpstreamError},
};

/// What clients of the dialect look for when the prompt does not fit, to make it shorter and try again.
const TOO_LONG: &str = "prompt is too long";

/// Reads an upstream's error.
pub(super) fn decode(status: StatusCode, body: &[u8]) -> UpstreamError {
    let mut error = error_text::read(status.as_u16(), body);
    // Every error of the dialect is wrapped in an object of the type `error`, which says nothing.
    if error.kind.as_deref() == Some("error") {
        error.kind = None;
    }
    error
}

/// Writes an error for a client.
pub(super) fn encode(error: &PublicError) -> (StatusCode, Bytes) {
    let status = match error.kind {
        ErrorKind::Overloaded => 529,
        kind => kind.status(),
    };
    let mut out = BytesMut::with_capacity(256);
    write(&mut out, error);
    (StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), out.freeze())
}

/// Writes an error for a client whose stream has begun.
pub(super) fn encode_in_stream(error: &PublicError) -> Bytes {
    let mut out = BytesMut::with_capacity(256);
    out.extend_from_slice(b"event: error\ndata: ");
    write(&mut out, error);
    out.extend_from_slice(b"\n\n");
    out.freeze()
}

/// The HTTP status that an error type of the dialect stands for.
pub(super) fn status_of(kind: &str) -> Option<u16> {
    Some(match kind {
        "invalid_request_error" => 400,
        "authentication_error" => 401,
        "billing_error" => 402,
        "permission_error" => 403,
        "not_found_error" => 404,
        "conflict_error" => 409,
        "request_too_large" => 413,
        "rate_limit_error" => 429,
        "api_error" => 500,
        "timeout_error" => 504,
        "overloaded_error" => 529,
        _ => return None,
    })
}

fn write(out: &mut BytesMut, error: &PublicError) {
    let mut object = Object::begin(out);
    object.str("type", "error");
    let mut inner = object.object("error");
    inner.str("type", type_of(error.kind)).str("message", &message(error));
    inner.end();
    object.str("request_id", &error.request_id);
    object.end();
}

fn type_of(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::InvalidRequest
        | ErrorKind::MethodNotAllowed
        | ErrorKind::Unprocessable
        | ErrorKind::UriTooLong
        | ErrorKind::HeadTooLarge
        | ErrorKind::Cancelled => "invalid_request_error",
        ErrorKind::Authentication => "authentication_error",
        ErrorKind::Billing => "billing_error",
        ErrorKind::Permission => "permission_error",
        ErrorKind::NotFound => "not_found_error",
        ErrorKind::RequestTimeout | ErrorKind::GatewayTimeout => "timeout_error",
        ErrorKind::Conflict => "conflict_error",
        ErrorKind::TooLarge => "request_too_large",
        ErrorKind::RateLimited => "rate_limit_error",
        ErrorKind::Internal | ErrorKind::BadGateway => "api_error",
        ErrorKind::Unavailable | ErrorKind::Overloaded => "overloaded_error",
    }
}

/// The message as clients of the dialect expect it.
fn message(error: &PublicError) -> String {
    let message = error.message_with_attempts();
    if error.code.as_deref() == Some("context_length_exceeded") && !message.starts_with(TOO_LONG) {
        format!("{TOO_LONG}: {message}")
    } else {
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::AttemptNote;

    fn public(kind: ErrorKind, message: &str) -> PublicError {
        PublicError {
            kind,
            code: None,
            message: message.into(),
            param: None,
            request_id: "req_1".into(),
            attempts: Vec::new(),
            retry_at: None,
        }
    }

    #[test]
    fn errors_have_the_dialects_shape() {
        let (status, body) = encode(&public(ErrorKind::Overloaded, "a \"b\""));
        assert_eq!(status.as_u16(), 529);
        assert_eq!(
            body,
            r#"{"type":"error","error":{"type":"overloaded_error","message":"a \"b\""},"request_id":"req_1"}"#
        );
        let stream = encode_in_stream(&public(ErrorKind::BadGateway, "x"));
        assert_eq!(
            stream,
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":\"x\"},\"request_id\":\"req_1\"}\n\n"
        );
    }

    #[test]
    fn messages_tell_of_full_contexts_and_of_attempts() {
        let mut error = public(ErrorKind::InvalidRequest, "[p/m] maximum context length is 8");
        error.code = Some("context_length_exceeded".into());
        assert_eq!(message(&error), "prompt is too long: [p/m] maximum context length is 8");
        error.message = "prompt is too long: 9 > 8".into();
        let attempt = |status, code: &str| AttemptNote {
            provider: "p".into(),
            name: "p".into(),
            model: "m".into(),
            status,
            code: code.into(),
            reason: String::new(),
        };
        error.attempts = vec![attempt(Some(429), "rate_limited"), attempt(None, "connect")];
        assert_eq!(
            message(&error),
            "prompt is too long: 9 > 8 (attempts: p/m 429 rate_limited; p/m connect)"
        );
    }

    #[test]
    fn upstream_errors_are_read() {
        let body = br#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"},"request_id":"req_up"}"#;
        let error = decode(StatusCode::from_u16(529).expect("a status"), body);
        assert_eq!((error.status, error.kind.as_deref()), (Some(529), Some("overloaded_error")));
        assert_eq!(error.message, "Overloaded");
        assert_eq!(decode(StatusCode::BAD_GATEWAY, br#"{"type":"error"}"#).kind, None);
    }
}
