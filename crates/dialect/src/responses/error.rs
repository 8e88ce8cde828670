//! Errors: read from upstreams, written for clients.

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use omniroute_wire::json_out::Object;

use super::object::{ResponseObject, State};
use crate::{
    error_text,
    ir::{ErrorKind, PublicError, UpstreamError},
    openai,
};

/// Codes that clients of the dialect act upon; all others are told as one of the two that stand for any.
const KNOWN_CODES: &[&str] = &[
    "context_length_exceeded",
    "insufficient_quota",
    "invalid_prompt",
    "rate_limit_exceeded",
    "server_is_overloaded",
    "usage_not_included",
];

/// Reads an upstream's error.
pub(super) fn decode(status: StatusCode, body: &[u8]) -> UpstreamError {
    error_text::read(status.as_u16(), body)
}

/// Writes an error for a client: the same as in the vendor's other dialect.
pub(super) fn encode(error: &PublicError) -> (StatusCode, Bytes) {
    openai::error::encode(error)
}

/// Writes an error for a client whose stream has begun, but not the answer in it. Nothing follows it.
pub(super) fn encode_stream(error: &PublicError) -> Bytes {
    let mut out = BytesMut::with_capacity(256);
    write_event("error", &mut 0, &mut out, |event| {
        event.str("code", error.told_code()).str("message", &error.message);
        event.str_or_null("param", error.param.as_deref());
    });
    out.freeze()
}

/// Writes that an answer failed, with the items that were done.
pub(super) fn write_failed(
    error: &PublicError,
    object: &ResponseObject,
    output: &[u8],
    mut sequence: u64,
    out: &mut BytesMut,
) {
    let code = match error.code.as_deref() {
        Some(code) if KNOWN_CODES.contains(&code) => code,
        _ if error.kind == ErrorKind::RateLimited => "rate_limit_exceeded",
        _ => "server_error",
    };
    let state = State { status: "failed", error: Some((code, &error.message)), output, ..State::BEGUN };
    write_event("response.failed", &mut sequence, out, |event| {
        object.write(event.key("response"), &state);
    });
}

/// Writes an event with these members.
pub(super) fn write_event(
    name: &str,
    sequence: &mut u64,
    out: &mut BytesMut,
    members: impl FnOnce(&mut Object<'_>),
) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\ndata: ");
    let mut event = Object::begin(out);
    event.str("type", name).u64("sequence_number", *sequence);
    members(&mut event);
    event.end();
    out.extend_from_slice(b"\n\n");
    *sequence += 1;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Echo;

    fn error(kind: ErrorKind, code: Option<&'static str>) -> PublicError {
        PublicError {
            kind,
            code: code.map(Into::into),
            message: "no \"more\"".to_owned(),
            param: None,
            request_id: "r".to_owned(),
            attempts: Vec::new(),
            retry_at: None,
        }
    }

    #[test]
    fn before_the_answer_an_error_is_an_event_of_its_own() {
        assert_eq!(
            encode_stream(&error(ErrorKind::RateLimited, None)),
            "event: error\ndata: {\"type\":\"error\",\"sequence_number\":0,\"code\":\"rate_limit_exceeded\",\
             \"message\":\"no \\\"more\\\"\",\"param\":null}\n\n"
        );
    }

    #[test]
    fn a_failed_answer_has_a_code_that_clients_know() {
        let object = ResponseObject::new(&Echo::default(), "");
        for (kind, code, expected) in [
            (ErrorKind::RateLimited, None, "rate_limit_exceeded"),
            (ErrorKind::BadGateway, Some("upstream_stream_truncated"), "server_error"),
            (ErrorKind::InvalidRequest, Some("context_length_exceeded"), "context_length_exceeded"),
        ] {
            let mut out = BytesMut::new();
            write_failed(&error(kind, code), &object, b"{\"a\":1}", 7, &mut out);
            let text = std::str::from_utf8(&out).unwrap();
            assert!(text.starts_with("event: response.failed\n") && text.contains("\"sequence_number\":7"));
            assert!(
                text.contains("\"status\":\"failed\"") && text.contains("\"output\":[{\"a\":1}]"),
                "{text}"
            );
            assert!(text.contains(&format!("\"error\":{{\"code\":\"{expected}\"")), "{text}");
        }
    }
}
