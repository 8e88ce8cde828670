//! Errors: an upstream's, and ours for a client.

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use omniroute_wire::{json_out::Object, ndjson::escape_line_ends};

use crate::{
    error_text,
    ir::{PublicError, UpstreamError},
};

/// Reads an upstream's error.
pub(super) fn decode(status: StatusCode, body: &[u8]) -> UpstreamError {
    error_text::read(status.as_u16(), body)
}

/// Writes an error for a client.
pub(super) fn encode(error: &PublicError) -> (StatusCode, Bytes) {
    let mut out = BytesMut::with_capacity(160);
    write(&mut out, error);
    let status = StatusCode::from_u16(error.kind.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, out.freeze())
}

/// Writes an error for a client whose stream has begun. Nothing follows it.
pub(super) fn encode_in_stream(error: &PublicError) -> Bytes {
    let mut out = BytesMut::with_capacity(160);
    write(&mut out, error);
    escape_line_ends(&mut out, 0);
    out.extend_from_slice(b"\n");
    out.freeze()
}

fn write(out: &mut BytesMut, error: &PublicError) {
    let mut object = Object::begin(out);
    object.str("error", &message(error));
    object.end();
}

/// The message. Clients compare the one about a missing model with the vendor's words.
fn message(error: &PublicError) -> String {
    let unknown = error.message.strip_prefix("model `").and_then(|rest| rest.split_once("` not found"));
    match unknown {
        Some((model, _)) if error.attempts.is_empty() => format!("model '{model}' not found"),
        _ => error.message_with_attempts(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{AttemptNote, ErrorKind};

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
    fn errors_are_one_text() {
        let (status, body) = encode(&public(ErrorKind::RateLimited, "say \"please\""));
        assert_eq!((status.as_u16(), &body[..]), (429, &br#"{"error":"say \"please\""}"#[..]));
        let line = encode_in_stream(&public(ErrorKind::Overloaded, "a\nb"));
        assert_eq!(line, "{\"error\":\"a\\nb\"}\n");
    }

    #[test]
    fn a_missing_model_is_told_in_the_vendors_words() {
        let missing = public(ErrorKind::NotFound, "model `a/b` not found; did you mean `a/c`?");
        let (status, body) = encode(&missing);
        assert_eq!((status.as_u16(), &body[..]), (404, &b"{\"error\":\"model 'a/b' not found\"}"[..]));
        let attempt = AttemptNote {
            provider: "p".into(),
            name: "p".into(),
            model: "m".into(),
            status: Some(404),
            code: "model_not_found".into(),
            reason: String::new(),
        };
        let tried = PublicError { attempts: vec![attempt], ..public(ErrorKind::NotFound, "[p/m] gone") };
        assert_eq!(encode(&tried).1, r#"{"error":"[p/m] gone (attempts: p/m 404 model_not_found)"}"#);
    }

    #[test]
    fn upstream_errors_are_read() {
        let error = decode(StatusCode::NOT_FOUND, br#"{"error":"model 'x' not found"}"#);
        assert_eq!((error.status, error.message.as_str()), (Some(404), "model 'x' not found"));
    }
}
