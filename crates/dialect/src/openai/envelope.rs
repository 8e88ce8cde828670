//! What routing needs of a request, and the edits that a pass-through makes.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use http::header::ACCEPT;
use omniroute_wire::{
    envelope::{self, Member, ScanError, as_bool, as_str, as_u64},
    json_out, members,
    splice::Splice,
    text::{kind_of, lone_surrogates},
};
use smallvec::SmallVec;

use crate::{
    DecodeError, Envelope, Framing, Head,
    dialect::EnvelopeSpans,
    json_in::{missing, wrong_type, wrong_value},
};

/// Reads the envelope and makes the checks that need no decoding.
pub(super) fn read(head: Head<'_>, body: &Bytes) -> Result<Envelope, DecodeError> {
    let mut seen = Seen::default();
    let mut spans = EnvelopeSpans::default();
    let extent = envelope::scan(body, &mut |member| seen.take(member, &mut spans))
        .map_err(|error| not_json(&error))?;
    spans.end = extent.end;
    spans.has_members = extent.has_members;

    if let Some(name) = seen.repeated {
        return Err(DecodeError {
            code: "invalid_json",
            message: format!("`{name}` is given more than once"),
            param: Some(name.to_owned()),
        });
    }
    let model = match seen.model {
        None | Some("null") => return Err(missing("model")),
        Some(raw) => as_str(raw).ok_or_else(|| wrong_type("model", "a string"))?,
    };
    if model.trim().is_empty() {
        return Err(wrong_value("model", "a model's name, not an empty string"));
    }
    let stream = match seen.stream {
        None | Some("null") => wants_events(head),
        Some(raw) => as_bool(raw).ok_or_else(|| wrong_type("stream", "a boolean"))?,
    };
    check_messages(seen.messages, seen.input)?;
    Ok(Envelope {
        model: model.into_owned(),
        stream,
        include_usage: seen.options.is_some_and(includes_usage),
        session_key: seen
            .cache_key
            .and_then(as_str)
            .filter(|key| !key.is_empty())
            .map(|key| key.into_owned()),
        max_output_tokens: seen.max_completion_tokens.or(seen.max_tokens).and_then(as_u64),
        legacy: seen.functions.is_some_and(|raw| raw.starts_with('[')),
        framing: Framing::Sse,
        spans,
    })
}

/// The edits that make a client's request one for an upstream.
pub(super) fn edit(body: &Bytes, envelope: &Envelope, upstream_model: &str) -> Splice {
    let spans = &envelope.spans;
    let mut splice = Splice::new(body.clone());
    let mut edited: SmallVec<[Range<usize>; 2]> = SmallVec::new();
    if let Some(span) = spans.model.clone().filter(|_| envelope.model != upstream_model) {
        let mut name = BytesMut::with_capacity(upstream_model.len() + 2);
        json_out::string(&mut name, upstream_model);
        edited.push(span.clone());
        splice.replace(span, name.freeze());
    }
    if envelope.stream {
        let added: &'static [u8] = match (&spans.stream, &spans.stream_options) {
            (None, None) => b",\"stream\":true,\"stream_options\":{\"include_usage\":true}",
            (None, Some(_)) => b",\"stream\":true",
            (Some(_), None) => b",\"stream_options\":{\"include_usage\":true}",
            (Some(_), Some(_)) => b"",
        };
        if !added.is_empty() {
            splice.replace(spans.end..spans.end, added);
        }
        if let Some(span) = spans.stream.clone().filter(|span| body[span.clone()] == b"null"[..]) {
            splice.replace(span, "true");
        }
        if let Some(span) = spans.stream_options.as_ref().filter(|_| !envelope.include_usage) {
            edited.push(span.clone());
            ask_for_usage(body, span, &mut splice);
        }
    }
    if spans.has_unwanted {
        for span in members::removals(body, 0, &mut is_unwanted) {
            edited.push(span.clone());
            splice.replace(span, Bytes::new());
        }
    }
    lone_surrogates(body, &mut |span| {
        if !edited.iter().any(|other| other.start < span.end && span.start < other.end) {
            splice.replace(span, "\\ufffd");
        }
    });
    splice
}

/// That a body is not what was expected.
pub(super) fn not_json(error: &ScanError) -> DecodeError {
    DecodeError { code: "invalid_json", param: None, message: error.to_string() }
}

/// Whether the client's only wish is a stream of events.
pub(super) fn wants_events(head: Head<'_>) -> bool {
    head.headers.get(ACCEPT).is_some_and(|accept| accept.as_bytes() == b"text/event-stream")
}

/// Whether a member is meant for the gateway, or known to be refused by upstreams.
pub(super) fn is_unwanted(name: &str) -> bool {
    name == "client_metadata" || name.starts_with("omniroute")
}

/// Whether stream options ask for usage.
pub(super) fn includes_usage(options: &str) -> bool {
    let mut wanted = false;
    let scanned = envelope::scan_str(options, &mut |member| {
        if member.key == "include_usage" {
            wanted = member.raw == "true";
        }
    });
    scanned.is_ok() && wanted
}

/// The raw values of the members that matter.
#[derive(Default)]
struct Seen<'a> {
    model: Option<&'a str>,
    stream: Option<&'a str>,
    messages: Option<&'a str>,
    input: bool,
    options: Option<&'a str>,
    cache_key: Option<&'a str>,
    max_tokens: Option<&'a str>,
    max_completion_tokens: Option<&'a str>,
    functions: Option<&'a str>,
    repeated: Option<&'static str>,
}

impl<'a> Seen<'a> {
    fn take(&mut self, member: Member<'a>, spans: &mut EnvelopeSpans) {
        let raw = member.raw;
        match &*member.key {
            "model" => {
                if self.model.replace(raw).is_some() {
                    self.repeated = Some("model");
                }
                spans.model = Some(member.span);
            }
            "stream" => {
                if self.stream.replace(raw).is_some() {
                    self.repeated = Some("stream");
                }
                spans.stream = Some(member.span);
            }
            "stream_options" => {
                self.options = Some(raw);
                spans.stream_options = Some(member.span);
            }
            "messages" => self.messages = Some(raw),
            "input" => self.input = true,
            "prompt_cache_key" => self.cache_key = Some(raw),
            "max_tokens" => self.max_tokens = Some(raw).filter(|raw| *raw != "null"),
            "max_completion_tokens" => self.max_completion_tokens = Some(raw).filter(|raw| *raw != "null"),
            "functions" => self.functions = Some(raw),
            name if is_unwanted(name) => spans.has_unwanted = true,
            _ => {}
        }
    }
}

fn check_messages(messages: Option<&str>, input: bool) -> Result<(), DecodeError> {
    match messages {
        None | Some("null") if input => Err(DecodeError {
            message: "`messages` is required; a body with `input` belongs to /v1/responses".to_owned(),
            ..missing("messages")
        }),
        None | Some("null") => Err(missing("messages")),
        Some(raw) if !raw.starts_with('[') => Err(DecodeError {
            message: format!("`messages` must be a list, found {}", kind_of(raw)),
            ..wrong_type("messages", "a list")
        }),
        Some(raw) if raw[1..].trim_start().starts_with(']') => {
            Err(wrong_value("messages", "a list with at least one message"))
        }
        Some(_) => Ok(()),
    }
}

/// Sets `include_usage` within the stream options.
fn ask_for_usage(body: &Bytes, span: &Range<usize>, splice: &mut Splice) {
    const WHOLE: &[u8] = b"{\"include_usage\":true}";
    let mut present = None;
    let scanned = envelope::scan(&body[span.clone()], &mut |member| {
        if member.key == "include_usage" {
            present = Some(member.span);
        }
    });
    match (scanned, present) {
        (Ok(_), Some(value)) => splice.replace(span.start + value.start..span.start + value.end, "true"),
        (Ok(extent), None) => {
            let added: &[u8] =
                if extent.has_members { b",\"include_usage\":true" } else { b"\"include_usage\":true" };
            let at = span.start + extent.end;
            splice.replace(at..at, Bytes::from_static(added));
        }
        // `null`, or something the upstream would refuse anyway.
        (Err(_), _) => splice.replace(span.clone(), Bytes::from_static(WHOLE)),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;

    fn envelope_of(body: &str) -> Result<Envelope, DecodeError> {
        let headers = HeaderMap::new();
        read(Head { headers: &headers, path: "", query: None }, &Bytes::copy_from_slice(body.as_bytes()))
    }

    fn edited(body: &str, model: &str) -> String {
        let envelope = envelope_of(body).unwrap();
        let bytes = edit(&Bytes::copy_from_slice(body.as_bytes()), &envelope, model).to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[test]
    fn bodies_that_are_no_request_are_named() {
        for (body, code, param) in [
            ("{", "invalid_json", None),
            ("[]", "invalid_json", None),
            ("{}", "missing_required_parameter", Some("model")),
            (r#"{"model":1,"messages":[1]}"#, "invalid_type", Some("model")),
            (r#"{"model":" ","messages":[1]}"#, "invalid_value", Some("model")),
            (r#"{"model":"a","model":"b","messages":[1]}"#, "invalid_json", Some("model")),
            (r#"{"model":"a","stream":true,"stream":false,"messages":[1]}"#, "invalid_json", Some("stream")),
            (r#"{"model":"a","stream":"yes","messages":[1]}"#, "invalid_type", Some("stream")),
            (r#"{"model":"a"}"#, "missing_required_parameter", Some("messages")),
            (r#"{"model":"a","messages":"hi"}"#, "invalid_type", Some("messages")),
            (r#"{"model":"a","messages":[ ]}"#, "invalid_value", Some("messages")),
        ] {
            let error = envelope_of(body).unwrap_err();
            assert_eq!((error.code, error.param.as_deref()), (code, param), "{body}");
        }
        let message = envelope_of("{\"model\": tru}").unwrap_err().message;
        assert!(message.contains("byte 1"), "{message}");
    }

    #[test]
    fn the_envelope_tells_what_routing_needs() {
        let envelope = envelope_of(
            r#"{"messages":[{}],"model":"a\u0062","stream":true,"stream_options":{"include_usage":true},
                "max_tokens":5,"max_completion_tokens":7,"prompt_cache_key":"k","functions":[]}"#,
        )
        .unwrap();
        assert_eq!(envelope.model, "ab");
        assert!(envelope.stream && envelope.include_usage && envelope.legacy);
        assert_eq!((envelope.max_output_tokens, envelope.session_key.as_deref()), (Some(7), Some("k")));
    }

    #[test]
    fn only_an_exact_accept_header_asks_for_a_stream() {
        let body = Bytes::from_static(br#"{"model":"a","messages":[1]}"#);
        let off = Bytes::from_static(br#"{"model":"a","messages":[1],"stream":false}"#);
        for (accept, expected) in
            [("text/event-stream", true), ("text/event-stream, application/json", false), ("*/*", false)]
        {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_static(accept));
            let head = Head { headers: &headers, path: "", query: None };
            assert_eq!(read(head, &body).unwrap().stream, expected, "{accept}");
            assert!(!read(head, &off).unwrap().stream);
        }
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        let envelope = read(Head { headers: &headers, path: "", query: None }, &body).unwrap();
        assert_eq!(
            edit(&body, &envelope, "a").to_bytes(),
            r#"{"model":"a","messages":[1],"stream":true,"stream_options":{"include_usage":true}}"#
        );
    }

    #[test]
    fn edits_touch_nothing_else() {
        for (body, expected) in [
            (r#"{"model":"a","messages":[1],"t":1.0}"#, r#"{"model":"up","messages":[1],"t":1.0}"#),
            (
                r#"{"model":"a","messages":[1],"stream":true }"#,
                r#"{"model":"up","messages":[1],"stream":true,"stream_options":{"include_usage":true} }"#,
            ),
            (
                r#"{"stream_options":{"x":1},"model":"a","messages":[1],"stream":true}"#,
                r#"{"stream_options":{"x":1,"include_usage":true},"model":"up","messages":[1],"stream":true}"#,
            ),
            (
                r#"{"stream_options":{"include_usage":false},"model":"a","messages":[1],"stream":true}"#,
                r#"{"stream_options":{"include_usage":true},"model":"up","messages":[1],"stream":true}"#,
            ),
            (
                r#"{"stream_options":null,"model":"a","messages":[1],"stream":true}"#,
                r#"{"stream_options":{"include_usage":true},"model":"up","messages":[1],"stream":true}"#,
            ),
            (
                r#"{"client_metadata":{}, "omniroute_x":1, "model":"a","omniroute":2,"messages":["\ud83d"],"client_metadata":0}"#,
                r#"{"model":"up","messages":["\ufffd"]}"#,
            ),
            (
                r#"{"model":"a","messages":[1],"stream":true,"omniroute":"\ud83d"}"#,
                r#"{"model":"up","messages":[1],"stream":true,"stream_options":{"include_usage":true}}"#,
            ),
        ] {
            assert_eq!(edited(body, "up"), expected);
        }
        let body = Bytes::from_static(br#"{"model":"a","messages":[1]}"#);
        let envelope = envelope_of(r#"{"model":"a","messages":[1]}"#).unwrap();
        assert!(edit(&body, &envelope, "a").is_untouched());
    }
}
