//! Google Gemini, `generateContent`.
//!
//! The model and the operation stand in the [`path`], the body says the rest. [`wire`] holds the words of the format
//! and what is written; [`request`], [`response`], [`stream`] and [`error`] go between them and the canonical form;
//! [`relay`] passes on what stays in the dialect. [`schema`] goes between JSON Schema and the vendor's own kind of
//! schemas, [`grounding`] between sources and the vendor's way to tell them.

mod error;
mod grounding;
mod logprobs;
mod path;
mod relay;
mod request;
mod response;
mod rewrite;
mod schema;
mod stream;
mod wire;

pub(crate) use self::{request::is_told_of_each, wire::usage};

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use omniroute_wire::{
    envelope::{self, ScanError},
    json_out::Object,
    members,
    splice::Splice,
};
use serde_json::value::RawValue;

use crate::{
    Caps, DecodeError, Dialect, DialectId, Echo, EncodeError, Encoded, Envelope, Framing, Head, KeepAlive,
    NameRule, Relayed, Rewrite,
    dialect::{EnvelopeSpans, supply_member},
    fingerprint::has_zero_temperature,
    ir::{ChatRequest, ChatResponse, PublicError, Tier, UpstreamError, Usage},
    json_in,
    opening::Places,
    service_tier::tier_of,
    shape,
    stream::{Relay, StreamDecoder, StreamEncoder, StreamPipe},
};

/// The dialect's id.
pub(crate) const ID: DialectId = DialectId("gemini");

/// Most stop sequences that an upstream takes.
const MAX_STOP: usize = 5;

/// The dialect.
#[derive(Debug)]
pub struct Gemini;

impl Dialect for Gemini {
    fn id(&self) -> DialectId {
        ID
    }

    fn long_name(&self) -> &'static str {
        "gemini"
    }

    fn framing(&self) -> Framing {
        Framing::Sse
    }

    fn envelope(&self, head: Head<'_>, body: &Bytes) -> Result<Envelope, DecodeError> {
        read_envelope(head, body)
    }

    /// The path names the model, so a `model` in the body could only contradict it.
    fn edit_request(&self, body: &Bytes, envelope: &Envelope, _upstream_model: &str) -> Splice {
        if envelope.spans.model.is_some() { without_model(body) } else { Splice::new(body.clone()) }
    }

    fn rewrite(&self, body: &Bytes, rewrite: &Rewrite, caps: &Caps) -> Bytes {
        rewrite::rewrite(body, rewrite, caps)
    }

    fn decode_request(&self, head: Head<'_>, body: &Bytes) -> Result<ChatRequest, DecodeError> {
        request::decode(head, body)
    }

    fn encode_request(&self, request: &ChatRequest, caps: &Caps) -> Result<Encoded, EncodeError> {
        request.in_own_words(request::encode(request, caps))
    }

    fn decode_count(&self, head: Head<'_>, body: &Bytes) -> Result<ChatRequest, DecodeError> {
        request::decode_count(head, body)
    }

    fn edit_count(&self, body: &Bytes, upstream_model: &str) -> Splice {
        edit_count(body, upstream_model)
    }

    fn encode_count(&self, tokens: u64) -> Bytes {
        Bytes::from(format!("{{\"totalTokens\":{tokens}}}"))
    }

    fn is_count(&self, body: &[u8]) -> bool {
        #[derive(serde::Deserialize)]
        struct Counted {
            #[serde(rename = "totalTokens")]
            _tokens: u64,
        }
        serde_json::from_slice::<Counted>(body).is_ok()
    }

    fn count_path(&self, chat_path: &str) -> Option<String> {
        chat_path.strip_suffix(":generateContent").map(|model| format!("{model}:countTokens"))
    }

    fn decode_response(&self, body: &Bytes) -> Result<ChatResponse, DecodeError> {
        response::decode(body)
    }

    fn encode_response(&self, response: &ChatResponse, echo: &Echo) -> Encoded {
        response::encode(response, echo)
    }

    fn relay_response(&self, body: &Bytes, echo: &Echo) -> Result<Relayed, DecodeError> {
        relay::response(body, echo)
    }

    fn supply_usage(&self, body: &Bytes, usage: &Usage) -> Splice {
        supply_member(body, "usageMetadata", |out| wire::write_usage(out, usage, 0, 0))
    }

    fn decode_error(&self, status: StatusCode, body: &[u8]) -> UpstreamError {
        error::decode(status, body)
    }

    fn encode_error(&self, error: &PublicError) -> (StatusCode, Bytes) {
        error::encode(error)
    }

    fn encode_stream_error(&self, error: &PublicError, framing: Framing) -> Bytes {
        let mut out = BytesMut::with_capacity(256);
        stream::Frames::new(framing).error(&mut out, error);
        out.freeze()
    }

    fn stream_decoder(&self) -> Box<dyn StreamDecoder> {
        Box::new(stream::Decoder::default())
    }

    fn stream_encoder(&self, echo: Echo) -> Box<dyn StreamEncoder> {
        Box::new(stream::Encoder::new(echo))
    }

    fn stream_relay(&self, echo: Echo) -> Box<dyn StreamPipe> {
        Box::new(Relay::new(&Gemini, relay::Tap::new(echo)))
    }

    /// Clients read every line as data, so there is nothing less than a chunk; in a list there is white space.
    fn keep_alive(
        &self,
        style: KeepAlive,
        framing: Framing,
        model: &str,
        _arrived_ms: i64,
        _legacy: bool,
    ) -> Bytes {
        match (style, framing) {
            (KeepAlive::Off, _) => Bytes::new(),
            (KeepAlive::Comment | KeepAlive::Chunk, Framing::JsonList) => Bytes::from_static(b"\n"),
            (KeepAlive::Comment | KeepAlive::Chunk, Framing::Sse | Framing::Ndjson) => {
                let mut out = BytesMut::with_capacity(64 + model.len());
                out.extend_from_slice(b"data: ");
                let mut chunk = Object::begin(&mut out);
                chunk.str("responseId", "").str("modelVersion", model);
                chunk.end();
                out.extend_from_slice(b"\n\n");
                out.freeze()
            }
        }
    }

    fn opaque_as_text(&self, raw: &RawValue) -> Option<String> {
        response::opaque_as_text(raw)
    }

    fn tool_names(&self) -> NameRule {
        NameRule { max: 64, others: "-.:", letter_first: true }
    }

    fn max_stop_sequences(&self) -> Option<usize> {
        Some(MAX_STOP)
    }

    fn brings_reasoning_in_pieces(&self) -> bool {
        true
    }

    fn takes_image_urls(&self) -> bool {
        false
    }

    fn takes_document_urls(&self) -> bool {
        false
    }
}

fn read_envelope(head: Head<'_>, body: &Bytes) -> Result<Envelope, DecodeError> {
    let asked = path::read(head.path)?;
    let mut contents = None;
    let mut config = None;
    let mut model = None;
    let mut repeated = false;
    let mut places = Places::default();
    let mut tier = Tier::Standard;
    let extent = envelope::scan_for(body, shape::MARKS, &mut |member| {
        places.note(&member);
        match &*member.key {
            "model" => repeated |= model.replace(member.span).is_some(),
            "contents" => contents = Some(member.raw),
            "generationConfig" | "generation_config" => config = Some(member.raw),
            "serviceTier" | "service_tier" => tier = tier_of(member.raw),
            _ => {}
        }
    })
    .map_err(|error| unreadable(&error))?;
    if repeated {
        return Err(DecodeError {
            code: "invalid_json",
            message: "`model` is given more than once".to_owned(),
            param: Some("model".to_owned()),
        });
    }
    let contents = contents.filter(|raw| *raw != "null").ok_or_else(|| json_in::missing("contents"))?;
    match contents.as_bytes() {
        [b'[', rest @ ..] if rest.trim_ascii_start().starts_with(b"]") => {
            return Err(json_in::wrong_value("contents", "a list with at least one content"));
        }
        [b'[' | b'{', ..] => {}
        _ => return Err(json_in::wrong_type("contents", "a list of contents")),
    }
    Ok(Envelope {
        model: asked.model.into(),
        stream: asked.stream,
        include_usage: true,
        session_key: None,
        max_output_tokens: config.and_then(max_output_tokens),
        legacy: false,
        framing: if path::wants_events(head.query) { Framing::Sse } else { Framing::JsonList },
        kept: None,
        spans: EnvelopeSpans {
            model,
            asks_to_reason: config
                .is_some_and(|raw| raw.contains("thinkingConfig") || raw.contains("thinking_config")),
            is_cold: config.is_some_and(has_zero_temperature),
            tier,
            places,
            ..EnvelopeSpans::default().within(&extent)
        },
    })
}

fn without_model(body: &Bytes) -> Splice {
    let mut splice = Splice::new(body.clone());
    for cut in members::removals(body, 0, &mut |key| key == "model") {
        splice.replace(cut, Bytes::new());
    }
    splice
}

/// Of a whole request within, the upstream wants to be told the model once more, and the same one.
fn edit_count(body: &Bytes, upstream_model: &str) -> Splice {
    let mut splice = Splice::new(body.clone());
    let name = wire::quoted(&format!("models/{upstream_model}"));
    let mut whole = None;
    // A body that is no JSON is for the upstream to judge.
    let _ = envelope::scan(body, &mut |member| {
        if matches!(&*member.key, "generateContentRequest" | "generate_content_request") {
            whole = Some(member.span);
        }
    });
    let Some(whole) = whole else {
        return without_model(body);
    };
    let mut place = None;
    let extent = envelope::scan(&body[whole.clone()], &mut |member| {
        if member.key == "model" {
            place = Some(member.span);
        }
    });
    match (place, extent) {
        (Some(place), Ok(_)) => splice.replace(whole.start + place.start..whole.start + place.end, name),
        (None, Ok(extent)) => {
            let lead: &[u8] = if extent.has_members { b",\"model\":" } else { b"\"model\":" };
            let at = whole.start + extent.end;
            splice.replace(at..at, Bytes::from([lead, &name].concat()));
        }
        (_, Err(_)) => {}
    }
    splice
}

/// The output limit; one of the wrong type is for the upstream to judge.
fn max_output_tokens(config: &str) -> Option<u64> {
    let mut limit = None;
    envelope::scan_str(config, &mut |member| {
        if matches!(&*member.key, "maxOutputTokens" | "max_output_tokens") {
            limit = envelope::as_u64(member.raw);
        }
    })
    .ok()?;
    limit
}

fn unreadable(error: &ScanError) -> DecodeError {
    let message = match error {
        ScanError::NotJson { offset } => format!("the body is not valid JSON at byte {offset}"),
        ScanError::NotAnObject => "the body must be a JSON object".to_owned(),
        ScanError::NotUtf8 { offset } => format!("the body is not valid UTF-8 at byte {offset}"),
    };
    DecodeError { code: "invalid_json", param: None, message }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    fn envelope(body: &str, query: Option<&str>) -> Result<Envelope, (&'static str, Option<String>)> {
        let headers = HeaderMap::new();
        let head = Head { headers: &headers, path: "/v1beta/models/gc/x:streamGenerateContent", query };
        read_envelope(head, &Bytes::copy_from_slice(body.as_bytes()))
            .map_err(|error| (error.code, error.param))
    }

    #[test]
    fn the_envelope_is_checked() {
        let bad = |code, name: &str| Some((code, Some(name.to_owned())));
        for (body, expected) in [
            ("{}", bad("missing_required_parameter", "contents")),
            (r#"{"contents":null}"#, bad("missing_required_parameter", "contents")),
            (r#"{"contents":[ ]}"#, bad("invalid_value", "contents")),
            (r#"{"contents":"hi"}"#, bad("invalid_type", "contents")),
            (r#"{"model":"a","contents":[{}],"model":"b"}"#, bad("invalid_json", "model")),
            ("[]", Some(("invalid_json", None))),
            ("{", Some(("invalid_json", None))),
            (r#"{"contents":[{}]}"#, None),
            (r#"{"contents":{"parts":{"text":"a"}}}"#, None),
        ] {
            assert_eq!(envelope(body, None).err(), expected, "{body}");
        }
        let found =
            envelope(r#"{"contents":[{}],"generation_config":{"max_output_tokens":9}}"#, Some("alt=sse"))
                .expect("valid");
        assert_eq!((&*found.model, found.stream, found.max_output_tokens), ("gc/x", true, Some(9)));
        assert_eq!(found.framing, Framing::Sse);
        assert_eq!(envelope(r#"{"contents":[{}]}"#, None).expect("valid").framing, Framing::JsonList);
    }

    #[test]
    fn a_body_is_sent_on_as_it_came_but_for_the_name_of_the_model() {
        for (given, expected) in [
            (r#"{"contents" : [{"n":1e-9}], "labels":{} }"#, r#"{"contents" : [{"n":1e-9}], "labels":{} }"#),
            (r#"{"model":"models/x", "contents":[{}]}"#, r#"{"contents":[{}]}"#),
            (r#"{"contents":[{}] , "model":"x" }"#, r#"{"contents":[{}] }"#),
            (r#"{"labels":{}, "model":"x", "contents":[{}]}"#, r#"{"labels":{}, "contents":[{}]}"#),
        ] {
            let body = Bytes::copy_from_slice(given.as_bytes());
            let found = envelope(given, None).expect("valid");
            assert_eq!(Gemini.edit_request(&body, &found, "up").to_bytes(), expected);
        }
    }

    #[test]
    fn a_request_to_count_names_the_model_where_it_must() {
        for (given, expected) in [
            (r#"{"contents":[{}],"model":"x"}"#, r#"{"contents":[{}]}"#),
            (
                r#"{"generateContentRequest":{"model":"models/gc/x","contents":[]}}"#,
                r#"{"generateContentRequest":{"model":"models/up","contents":[]}}"#,
            ),
            (
                r#"{"generate_content_request":{"contents":[]} }"#,
                r#"{"generate_content_request":{"contents":[],"model":"models/up"} }"#,
            ),
            ("no JSON", "no JSON"),
        ] {
            let body = Bytes::copy_from_slice(given.as_bytes());
            assert_eq!(Gemini.edit_count(&body, "up").to_bytes(), expected);
        }
        let headers = HeaderMap::new();
        let head = Head { headers: &headers, path: "/v1beta/models/gc/x:countTokens", query: None };
        for body in [
            r#"{"contents":[{"parts":[{"text":"a"}]}]}"#,
            r#"{"generateContentRequest":{"model":"m","contents":{"parts":{"text":"a"}}}}"#,
        ] {
            let request = Gemini.decode_count(head, &Bytes::from_static(body.as_bytes())).expect("readable");
            assert_eq!((request.model.as_str(), request.turns.len()), ("gc/x", 1));
        }
        let counted = Gemini.encode_count(7);
        assert!(Gemini.is_count(&counted) && !Gemini.is_count(b"{}"));
        assert_eq!(
            Gemini.count_path("/v1beta/models/x:generateContent").as_deref(),
            Some("/v1beta/models/x:countTokens")
        );
        assert_eq!(Gemini.count_path("/v1beta/other"), None);
    }

    #[test]
    fn silence_is_kept_alive_in_the_only_ways_that_clients_take() {
        let sent = |style, framing| Gemini.keep_alive(style, framing, "gc/\"x\"", 0, false);
        for style in [KeepAlive::Comment, KeepAlive::Chunk] {
            let expected = "data: {\"responseId\":\"\",\"modelVersion\":\"gc/\\\"x\\\"\"}\n\n";
            assert_eq!(sent(style, Framing::Sse), expected);
            assert_eq!(sent(style, Framing::JsonList), "\n");
        }
        assert!(sent(KeepAlive::Off, Framing::Sse).is_empty());
    }
}
