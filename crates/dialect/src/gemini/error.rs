//! Errors: an upstream's, and ours for a client.

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use omniroute_wire::json_out::{Array, Object};
use serde_json::value::RawValue;

use crate::{
    error_text,
    ir::{ErrorKind, PublicError, UpstreamError},
    json_in::{Fields, list_of, str_of},
};

/// How deep an error is wrapped at most: in a list, in the member `error`.
const MAX_WRAPPINGS: usize = 3;

/// Reads an upstream's error.
pub(super) fn decode(status: StatusCode, body: &[u8]) -> UpstreamError {
    let mut error = error_text::read(status.as_u16(), body);
    if let Ok(text) = std::str::from_utf8(body) {
        refine(&mut error, text);
    }
    error
}

/// Reads an error that came in a stream or in an answer with a good status.
pub(super) fn decode_value(json: &str) -> UpstreamError {
    let mut error = error_text::read_value(json);
    refine(&mut error, json);
    if error.status.is_none() {
        error.status = error.kind.as_deref().and_then(status_of);
    }
    error
}

/// The code of the format is the status once more; what went wrong in one word, stands in the details.
fn refine(error: &mut UpstreamError, json: &str) {
    if error.code.as_deref().is_some_and(|code| code.bytes().all(|byte| byte.is_ascii_digit())) {
        error.code = None;
    }
    if error.code.is_none() {
        error.code = reason(json.trim(), MAX_WRAPPINGS);
    }
}

/// The reason in the details, like `API_KEY_INVALID`.
fn reason(json: &str, wrappings: usize) -> Option<String> {
    let raw: &RawValue = serde_json::from_str(json).ok()?;
    if let Some(items) = list_of(raw) {
        return reason(items.first().filter(|_| wrappings > 0)?.get(), wrappings - 1);
    }
    let fields = Fields::lenient(raw.get(), "").ok()?;
    if let Some(inner) = fields.raw("error") {
        return reason(Some(inner).filter(|_| wrappings > 0)?.get(), wrappings - 1);
    }
    list_of(fields.raw("details")?)?.into_iter().find_map(|detail| {
        let detail = Fields::lenient(detail.get(), "").ok()?;
        detail.raw("reason").and_then(str_of).map(Into::into)
    })
}

/// Writes an error for a client.
pub(super) fn encode(error: &PublicError) -> (StatusCode, Bytes) {
    let mut out = BytesMut::with_capacity(256);
    write(&mut out, error);
    let status = StatusCode::from_u16(error.kind.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, out.freeze())
}

/// Writes the error document. `error` comes first: clients know it by that.
pub(super) fn write(out: &mut BytesMut, error: &PublicError) {
    let mut document = Object::begin(out);
    let mut inner = document.object("error");
    inner.u64("code", u64::from(error.kind.status())).str("message", &error.message_with_attempts());
    inner.str("status", status_word(error.kind));
    let mut details = inner.array("details");
    write_details(&mut details, error);
    details.end();
    inner.end();
    document.end();
}

fn write_details(details: &mut Array<'_>, error: &PublicError) {
    if let Some(code) = &error.code {
        let mut info = details.object();
        info.str("@type", "type.googleapis.com/google.rpc.ErrorInfo");
        info.str("reason", &code.to_ascii_uppercase()).str("domain", "omniroute");
        info.end();
    }
    if let Some(param) = &error.param {
        let mut bad = details.object();
        bad.str("@type", "type.googleapis.com/google.rpc.BadRequest");
        let mut violations = bad.array("fieldViolations");
        let mut violation = violations.object();
        violation.str("field", param).str("description", &error.message);
        violation.end();
        violations.end();
        bad.end();
    }
    if !error.request_id.is_empty() {
        let mut info = details.object();
        info.str("@type", "type.googleapis.com/google.rpc.RequestInfo").str("requestId", &error.request_id);
        info.end();
    }
}

fn status_word(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::InvalidRequest
        | ErrorKind::TooLarge
        | ErrorKind::UriTooLong
        | ErrorKind::HeadTooLarge
        | ErrorKind::Unprocessable => "INVALID_ARGUMENT",
        ErrorKind::Authentication => "UNAUTHENTICATED",
        ErrorKind::Billing => "FAILED_PRECONDITION",
        ErrorKind::Permission => "PERMISSION_DENIED",
        ErrorKind::NotFound => "NOT_FOUND",
        ErrorKind::MethodNotAllowed => "UNIMPLEMENTED",
        ErrorKind::RequestTimeout | ErrorKind::GatewayTimeout => "DEADLINE_EXCEEDED",
        ErrorKind::Conflict => "ABORTED",
        ErrorKind::Cancelled => "CANCELLED",
        ErrorKind::RateLimited => "RESOURCE_EXHAUSTED",
        ErrorKind::Internal => "INTERNAL",
        ErrorKind::BadGateway | ErrorKind::Unavailable | ErrorKind::Overloaded => "UNAVAILABLE",
    }
}

/// The HTTP status that a status word stands for.
fn status_of(word: &str) -> Option<u16> {
    Some(match word {
        "INVALID_ARGUMENT" | "FAILED_PRECONDITION" | "OUT_OF_RANGE" => 400,
        "UNAUTHENTICATED" => 401,
        "PERMISSION_DENIED" => 403,
        "NOT_FOUND" => 404,
        "ABORTED" | "ALREADY_EXISTS" => 409,
        "RESOURCE_EXHAUSTED" => 429,
        "CANCELLED" => 499,
        "UNIMPLEMENTED" => 501,
        "UNAVAILABLE" => 503,
        "DEADLINE_EXCEEDED" => 504,
        "INTERNAL" | "UNKNOWN" | "DATA_LOSS" => 500,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn errors_have_the_dialects_shape() {
        let error = PublicError {
            kind: ErrorKind::Overloaded,
            code: Some("model_overloaded".into()),
            message: "a \"b\"".into(),
            param: None,
            request_id: "req_1".into(),
            attempts: Vec::new(),
            retry_at: None,
        };
        let (status, body) = encode(&error);
        assert_eq!(status.as_u16(), 503);
        assert_eq!(
            body,
            r#"{"error":{"code":503,"message":"a \"b\"","status":"UNAVAILABLE","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"MODEL_OVERLOADED","domain":"omniroute"},{"@type":"type.googleapis.com/google.rpc.RequestInfo","requestId":"req_1"}]}}"#
        );
    }

    #[test]
    fn upstream_errors_are_read() {
        let key = r#"[{"error":{"code":400,"message":"API key not valid.","status":"INVALID_ARGUMENT","details":[
            {"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"API_KEY_INVALID","domain":"googleapis.com"}]}}]"#;
        let error = decode(StatusCode::BAD_REQUEST, key.as_bytes());
        assert_eq!(
            (error.code.as_deref(), error.kind.as_deref()),
            (Some("API_KEY_INVALID"), Some("INVALID_ARGUMENT"))
        );
        assert_eq!(error.message, "API key not valid.");

        let quota = r#"{"error":{"code":429,"message":"Quota exceeded.","status":"RESOURCE_EXHAUSTED","details":[
            {"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"quotaId":"x"}]},
            {"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"12s"}]}}"#;
        let error = decode(StatusCode::TOO_MANY_REQUESTS, quota.as_bytes());
        assert_eq!((error.status, error.code), (Some(429), None));
        assert_eq!(error.retry_after, Some(Duration::from_secs(12)));

        let error = decode_value(r#"{"message":"busy","status":"UNAVAILABLE"}"#);
        assert_eq!((error.status, error.message.as_str()), (Some(503), "busy"));
        let error = decode_value(
            r#"{"error":{"code":500,"message":"An internal error has occurred","status":"INTERNAL"}}"#,
        );
        assert_eq!((error.status, error.code), (Some(500), None));
        assert_eq!(decode(StatusCode::BAD_GATEWAY, b"<html>").code, None);
    }
}
