//! What routing needs of a request, the edits that a pass-through makes, and requests that only load a model.

use bytes::{Bytes, BytesMut};
use omniroute_wire::{
    envelope::{self, as_bool, as_str, as_u64},
    json_out::{self, Object},
    splice::Splice,
    text::lone_surrogates,
};

use super::wire::write_stamp;
use crate::{
    DecodeError, Echo, Envelope, Framing,
    dialect::EnvelopeSpans,
    fingerprint::has_zero_temperature,
    json_in::{missing, wrong_type, wrong_value},
    opening::Places,
    shape,
};

/// Whether completions are asked for at a path: the older form, a text instead of messages.
pub(super) fn is_of_completions(path: &str) -> bool {
    path.ends_with("/api/generate")
}

/// Reads the envelope and makes the checks that need no decoding.
pub(super) fn read(path: &str, body: &Bytes) -> Result<Envelope, DecodeError> {
    let legacy = is_of_completions(path);
    let (asked, kind) = if legacy { ("prompt", "a string") } else { ("messages", "a list of messages") };
    let (mut model, mut stream, mut said, mut options) = (None, None, None, None);
    let mut repeated = None;
    let mut places = Places::default();
    let mut asks_to_reason = false;
    let extent = envelope::scan_for(body, shape::MARKS, &mut |member| {
        places.note(&member);
        let slot = match &*member.key {
            "model" => &mut model,
            "stream" => &mut stream,
            name if name == asked => &mut said,
            "options" => &mut options,
            "think" => {
                asks_to_reason = true;
                return;
            }
            _ => return,
        };
        if slot.replace((member.raw, member.span)).is_some() && matches!(&*member.key, "model" | "stream") {
            repeated = Some(member.key.into_owned());
        }
    })
    .map_err(|error| DecodeError { code: "invalid_json", param: None, message: error.to_string() })?;
    if let Some(name) = repeated {
        let message = format!("`{name}` is given more than once");
        return Err(DecodeError { code: "invalid_json", message, param: Some(name) });
    }
    let Some((raw, model_span)) = model.filter(|(raw, _)| *raw != "null") else {
        return Err(missing("model"));
    };
    let model = as_str(raw).ok_or_else(|| wrong_type("model", "a string"))?;
    if model.trim().is_empty() {
        return Err(wrong_value("model", "a model's name, not an empty string"));
    }
    let wants_stream = match &stream {
        None | Some(("null", _)) => true,
        Some((raw, _)) => as_bool(raw).ok_or_else(|| wrong_type("stream", "a boolean"))?,
    };
    if let Some((raw, _)) = &said
        && *raw != "null"
        && !raw.starts_with(if legacy { '"' } else { '[' })
    {
        return Err(wrong_type(asked, kind));
    }
    Ok(Envelope {
        model: (&*model).into(),
        stream: wants_stream,
        include_usage: true,
        session_key: None,
        max_output_tokens: options.as_ref().and_then(|(raw, _)| output_limit(raw)),
        legacy,
        framing: Framing::Ndjson,
        kept: None,
        spans: EnvelopeSpans {
            model: Some(model_span),
            asks_to_reason,
            is_cold: options.as_ref().is_some_and(|(raw, _)| has_zero_temperature(raw)),
            places,
            ..EnvelopeSpans::default().within(&extent)
        },
    })
}

/// The edits that make a client's request one for an upstream. Both take a stream for granted.
pub(super) fn edit(body: &Bytes, envelope: &Envelope, upstream_model: &str) -> Splice {
    let mut splice = Splice::new(body.clone());
    let mut edited = 0..0;
    if let Some(span) = envelope.spans.model.clone().filter(|_| *envelope.model != *upstream_model) {
        let mut name = BytesMut::with_capacity(upstream_model.len() + 2);
        json_out::string(&mut name, upstream_model);
        edited = span.clone();
        splice.replace(span, name.freeze());
    }
    if !envelope.spans.has_surrogates {
        return splice;
    }
    lone_surrogates(body, &mut |span| {
        if !(edited.start < span.end && span.start < edited.end) {
            splice.replace(span, "\\ufffd");
        }
    });
    splice
}

/// The answer to a request that says nothing, which is about the model being in memory. There is none here.
pub(super) fn loading(envelope: &Envelope, body: &Bytes, echo: &dyn Fn() -> Echo) -> Option<Bytes> {
    let (mut says_something, mut unloads) = (false, false);
    envelope::scan(body, &mut |member| match &*member.key {
        "messages" if !envelope.legacy => {
            says_something = member.raw != "null" && !member.raw[1..].trim_start().starts_with(']');
        }
        "prompt" if envelope.legacy => says_something = !matches!(member.raw, "null" | "\"\""),
        "keep_alive" => unloads = is_zero(member.raw),
        _ => {}
    })
    .ok()?;
    if says_something {
        return None;
    }
    let echo = &echo();
    let mut out = BytesMut::with_capacity(192);
    let mut object = Object::begin(&mut out);
    object.str("model", &echo.model);
    let stamp = object.key("created_at");
    stamp.extend_from_slice(b"\"");
    write_stamp(stamp, echo, echo.answered_after.unwrap_or_default());
    stamp.extend_from_slice(b"\"");
    write_nothing(&mut object, envelope.legacy);
    object.bool("done", true).str("done_reason", if unloads { "unload" } else { "load" });
    object.end();
    if envelope.stream {
        out.extend_from_slice(b"\n");
    }
    Some(out.freeze())
}

/// Writes that nothing is said.
pub(super) fn write_nothing(line: &mut Object<'_>, legacy: bool) {
    match legacy {
        true => line.str("response", ""),
        false => line.raw("message", r#"{"role":"assistant","content":""}"#),
    };
}

/// How much may be produced; negative numbers mean without end.
fn output_limit(options: &str) -> Option<u64> {
    let mut limit = None;
    envelope::scan_str(options, &mut |member| {
        if member.key == "num_predict" {
            limit = as_u64(member.raw);
        }
    })
    .ok()?;
    limit
}

/// Whether a duration (seconds, or a number with a unit in a string) is none.
fn is_zero(raw: &str) -> bool {
    let text = as_str(raw);
    let text = text.as_deref().unwrap_or(raw).trim();
    text.trim_end_matches(|c: char| c.is_ascii_alphabetic()).parse::<f64>().is_ok_and(|number| number == 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope_of(body: &str) -> Result<Envelope, DecodeError> {
        read("/api/chat", &Bytes::copy_from_slice(body.as_bytes()))
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
            (r#"{"model":"a","stream":true,"stream":false}"#, "invalid_json", Some("stream")),
            (r#"{"model":"a","stream":"yes"}"#, "invalid_type", Some("stream")),
            (r#"{"model":"a","messages":"hi"}"#, "invalid_type", Some("messages")),
        ] {
            let error = envelope_of(body).unwrap_err();
            assert_eq!((error.code, error.param.as_deref()), (code, param), "{body}");
        }
    }

    #[test]
    fn f36_streams_are_the_default_here() {
        for (stream, expected) in [("", true), (r#","stream":null"#, true), (r#","stream":false"#, false)] {
            let envelope = envelope_of(&format!(r#"{{"model":"a","messages":[{{}}]{stream}}}"#)).unwrap();
            assert_eq!((envelope.stream, envelope.framing), (expected, Framing::Ndjson), "{stream}");
        }
    }

    #[test]
    fn the_output_limit_is_an_option() {
        let limit = |options: &str| {
            envelope_of(&format!(r#"{{"model":"a","options":{options}}}"#)).unwrap().max_output_tokens
        };
        assert_eq!(limit(r#"{"seed":1,"num_predict":7}"#), Some(7));
        assert_eq!(limit(r#"{"num_predict":-1}"#), None);
        assert_eq!(limit("null"), None);
    }

    #[test]
    fn only_the_model_is_edited() {
        let body = Bytes::from_static(br#"{"model": "a","x":1.0,"messages":["\ud83d"]}"#);
        let envelope = read("/api/chat", &body).unwrap();
        assert_eq!(edit(&body, &envelope, "b").to_bytes(), r#"{"model": "b","x":1.0,"messages":["\ufffd"]}"#);
        let body = Bytes::from_static(br#"{"model":"a","messages":[{}]}"#);
        assert!(edit(&body, &read("/api/chat", &body).unwrap(), "a").is_untouched());
    }

    #[test]
    fn a_request_without_messages_is_answered_at_once() {
        let echo = Echo { model: "a".into(), created: 1, created_millis: 5, ..Echo::default() };
        let answer = |body: &str| {
            let body = Bytes::copy_from_slice(body.as_bytes());
            let answer = loading(&read("/api/chat", &body).unwrap(), &body, &|| echo.clone())?;
            Some(String::from_utf8(answer.to_vec()).unwrap())
        };
        let expected = |reason: &str, end: &str| {
            Some(format!(
                "{{\"model\":\"a\",\"created_at\":\"1970-01-01T00:00:01.005Z\",\"message\":{{\"role\":\"assistant\",\
                 \"content\":\"\"}},\"done\":true,\"done_reason\":\"{reason}\"}}{end}"
            ))
        };
        assert_eq!(answer(r#"{"model":"a","messages":[ ]}"#), expected("load", "\n"));
        assert_eq!(answer(r#"{"model":"a","stream":false}"#), expected("load", ""));
        for zero in ["0", "0.0", "\"0\"", "\"0s\""] {
            let body = format!(r#"{{"model":"a","messages":[],"keep_alive":{zero},"stream":false}}"#);
            assert_eq!(answer(&body), expected("unload", ""), "{zero}");
        }
        assert_eq!(answer(r#"{"model":"a","messages":[],"keep_alive":"5m"}"#), expected("load", "\n"));
        assert_eq!(answer(r#"{"model":"a","messages":[{"role":"user"}]}"#), None);
    }

    #[test]
    fn completions_have_a_text_instead_of_messages() {
        let read = |body: &str| read("/api/generate", &Bytes::copy_from_slice(body.as_bytes()));
        let envelope = read(r#"{"model":"a","prompt":"x","stream":false,"messages":7}"#).unwrap();
        assert!(envelope.legacy && !envelope.stream);
        let error = read(r#"{"model":"a","prompt":["x"]}"#).unwrap_err();
        assert_eq!((error.code, error.param.as_deref()), ("invalid_type", Some("prompt")));
        let echo = Echo { model: "a".into(), ..Echo::default() };
        let answer = |body: &str| {
            let answer =
                loading(&read(body).unwrap(), &Bytes::copy_from_slice(body.as_bytes()), &|| echo.clone())?;
            Some(String::from_utf8(answer.to_vec()).unwrap())
        };
        let head = r#"{"model":"a","created_at":"1970-01-01T00:00:00.000Z","response":"","done":true,"done_reason":"#;
        assert_eq!(answer(r#"{"model":"a","stream":false}"#), Some(format!("{head}\"load\"}}")));
        assert_eq!(
            answer(r#"{"model":"a","prompt":"","keep_alive":0}"#),
            Some(format!("{head}\"unload\"}}\n"))
        );
        assert_eq!(answer(r#"{"model":"a","prompt":"x"}"#), None);
    }
}
