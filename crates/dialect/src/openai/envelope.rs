//! What routing needs of a request, and the edits that a pass-through makes.

use std::ops::Range;

use bytes::Bytes;
use omniroute_wire::{
    envelope::{self, Member, as_str, as_u64},
    splice::Splice,
    text::kind_of,
};

use super::rewrite::REASONING;
use crate::{
    DecodeError, Dialect as _, Envelope, Framing, Head,
    client_body::{Basics, Edits, not_json},
    dialect::EnvelopeSpans,
    fingerprint::is_zero,
    json_in::{missing, wrong_type, wrong_value},
    responses::Responses,
    service_tier::tier_of,
    shape,
};

/// What strings of a request are looked at for: carriers, and the role that few servers but the vendor's know.
const MARKS: [&str; 3] = [shape::MARKS[0], shape::MARKS[1], "developer"];

/// Reads the envelope and makes the checks that need no decoding.
pub(super) fn read(head: Head<'_>, body: &Bytes) -> Result<Envelope, DecodeError> {
    let mut seen = Seen::default();
    let mut spans = EnvelopeSpans::default();
    let extent = envelope::scan_for(body, &MARKS, &mut |member| seen.take(member, &mut spans))
        .map_err(|error| not_json(&error))?;
    let spans =
        EnvelopeSpans { has_own_roles: extent.marks >> shape::MARKS.len() != 0, ..spans.within(&extent) };

    let model = seen.basics.model()?;
    let stream = seen.basics.stream(head)?;
    if is_of_responses(seen.messages, seen.input) {
        let include_usage = seen.options.is_some_and(includes_usage);
        return foreign(head, body, include_usage);
    }
    check_messages(seen.messages)?;
    Ok(Envelope {
        model,
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
        kept: None,
        spans,
    })
}

/// Whether a body is one of the vendor's other dialect, which some editors send to this one's path.
fn is_of_responses(messages: Option<&str>, input: bool) -> bool {
    input && messages.is_none_or(|messages| messages == "null")
}

/// The envelope of such a body. What the vendor keeps for its clients cannot be named here: answers of this dialect have
/// no ids that it keeps.
fn foreign(head: Head<'_>, body: &Bytes, include_usage: bool) -> Result<Envelope, DecodeError> {
    let mut envelope = Responses.envelope(head, body)?;
    if let Some(name) = envelope.kept.take().and_then(|kept| kept.names.into_iter().next()) {
        return Err(DecodeError {
            code: "unsupported_parameter",
            message: format!("`{}` names an answer that is kept; ask for it at /v1/responses", name.path),
            param: Some(name.path),
        });
    }
    envelope.include_usage = include_usage;
    envelope.spans.is_foreign = true;
    Ok(envelope)
}

/// The edits that make a client's request one for an upstream.
pub(super) fn edit(body: &Bytes, envelope: &Envelope, upstream_model: &str) -> Splice {
    let spans = &envelope.spans;
    let mut edits = Edits::of(body);
    edits.model(envelope, upstream_model);
    if envelope.stream {
        let added: &'static [u8] = match (&spans.stream, &spans.stream_options) {
            (None, None) => b",\"stream\":true,\"stream_options\":{\"include_usage\":true}",
            (None, Some(_)) => b",\"stream\":true",
            (Some(_), None) => b",\"stream_options\":{\"include_usage\":true}",
            (Some(_), Some(_)) => b"",
        };
        if !added.is_empty() {
            edits.insert(spans.end, added);
        }
        if let Some(span) = spans.stream.clone().filter(|span| body[span.clone()] == b"null"[..]) {
            edits.replace(span, "true");
        }
        if let Some(span) = spans.stream_options.as_ref().filter(|_| !envelope.include_usage) {
            ask_for_usage(body, span, &mut edits);
        }
    }
    edits.finish(spans)
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
    basics: Basics<'a>,
    messages: Option<&'a str>,
    input: bool,
    options: Option<&'a str>,
    cache_key: Option<&'a str>,
    max_tokens: Option<&'a str>,
    max_completion_tokens: Option<&'a str>,
    functions: Option<&'a str>,
}

impl<'a> Seen<'a> {
    fn take(&mut self, member: Member<'a>, spans: &mut EnvelopeSpans) {
        if self.basics.take(&member, spans) {
            return;
        }
        let raw = member.raw;
        match &*member.key {
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
            "temperature" => spans.is_cold = is_zero(raw),
            "service_tier" => spans.tier = tier_of(raw),
            name if REASONING.contains(&name) => spans.asks_to_reason = true,
            "chat_template_kwargs" => spans.asks_to_reason |= raw.contains("\"enable_thinking\""),
            _ => {}
        }
    }
}

fn check_messages(messages: Option<&str>) -> Result<(), DecodeError> {
    match messages {
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
fn ask_for_usage(body: &Bytes, span: &Range<usize>, edits: &mut Edits<'_>) {
    const WHOLE: &[u8] = b"{\"include_usage\":true}";
    let mut present = None;
    let scanned = envelope::scan(&body[span.clone()], &mut |member| {
        if member.key == "include_usage" {
            present = Some(member.span);
        }
    });
    match (scanned, present) {
        (Ok(_), Some(value)) => edits.replace(span.start + value.start..span.start + value.end, "true"),
        (Ok(extent), None) => {
            let added: &[u8] =
                if extent.has_members { b",\"include_usage\":true" } else { b"\"include_usage\":true" };
            edits.insert(span.start + extent.end, Bytes::from_static(added));
        }
        // `null`, or something the upstream would refuse anyway.
        (Err(_), _) => edits.replace(span.clone(), Bytes::from_static(WHOLE)),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, header::ACCEPT};

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
        assert_eq!(&*envelope.model, "ab");
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
