//! Anthropic Messages.
//!
//! [`wire`] holds the words of the format and what is written; [`request`], [`response`], [`stream`] and
//! [`error`] go between them and the canonical form; [`relay`] passes on what stays in the dialect.

mod error;
mod relay;
mod request;
mod response;
mod rewrite;
mod search;
mod shown_search;
mod stream;
mod wire;

use std::ops::Range;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use omniroute_wire::{
    envelope::{self, ScanError},
    json_out,
    splice::Splice,
};
use serde_json::value::RawValue;

use crate::{
    Caps, DecodeError, Dialect, DialectId, Echo, EncodeError, Encoded, Envelope, Framing, Head, JsonAnswer,
    KeepAlive, Progress, Relayed, Rewrite,
    dialect::{EnvelopeSpans, replace_model, supply_member},
    fingerprint::is_zero,
    ir::{Block, ChatRequest, ChatResponse, PublicError, Tier, UpstreamError, Usage},
    json_in,
    opening::Places,
    service_tier::tier_of,
    shape,
    stream::{Relay, StreamDecoder, StreamEncoder, StreamPipe},
};

/// Header of features that are not generally available yet: <https://platform.claude.com/docs/en/api/beta-headers>.
const BETA: HeaderName = HeaderName::from_static("anthropic-beta");

/// The beta of the context of a million tokens.
const LONG_CONTEXT: &str = "context-1m-2025-08-07";

/// The beta of the higher speed. Newer models with it need none and do not mind.
const FAST_MODE: &str = "fast-mode-2026-02-01";

/// The dialect's id.
pub(crate) const ID: DialectId = DialectId("anthropic");

/// The dialect.
#[derive(Debug)]
pub struct Anthropic;

/// Whether a system text is the accounting line that some clients put first. It changes with every call, so
/// writers of other dialects leave it out: it means nothing there and would spoil every prompt cache.
pub(crate) fn is_billing_line(text: &str) -> bool {
    text.trim_start().starts_with("x-anthropic-billing-header:")
}

impl Dialect for Anthropic {
    fn id(&self) -> DialectId {
        ID
    }

    fn long_name(&self) -> &'static str {
        "anthropic-messages"
    }

    fn framing(&self) -> Framing {
        Framing::Sse
    }

    fn envelope(&self, _head: Head<'_>, body: &Bytes) -> Result<Envelope, DecodeError> {
        read_envelope(body)
    }

    fn empty_answer(&self, envelope: &Envelope, echo: &dyn Fn() -> Echo) -> Option<Bytes> {
        (envelope.max_output_tokens == Some(0)).then(|| response::empty(envelope.stream, &echo()))
    }

    fn edit_request(&self, body: &Bytes, envelope: &Envelope, upstream_model: &str) -> Splice {
        let mut splice = Splice::new(body.clone());
        if let Some(span) = envelope.spans.model.clone()
            && *envelope.model != *upstream_model
        {
            splice.replace(span, quoted(upstream_model));
        }
        shown_search::edit(body, &mut splice);
        splice
    }

    fn rewrite(&self, body: &Bytes, rewrite: &Rewrite, caps: &Caps) -> Bytes {
        rewrite::rewrite(body, rewrite, caps)
    }

    fn ask_for_long_context(&self, headers: &mut HeaderMap) {
        add_betas(headers, [LONG_CONTEXT]);
    }

    fn ask_for(&self, request: &ChatRequest, caps: &Caps, headers: &mut HeaderMap) {
        if caps.fast && request.service_tier.as_deref() == Some(wire::FAST) {
            add_betas(headers, [FAST_MODE]);
        }
    }

    fn edit_count(&self, body: &Bytes, upstream_model: &str) -> Splice {
        let mut splice = replace_model(body, upstream_model);
        shown_search::edit(body, &mut splice);
        splice
    }

    fn decode_request(&self, _head: Head<'_>, body: &Bytes) -> Result<ChatRequest, DecodeError> {
        request::decode(body)
    }

    fn encode_request(&self, request: &ChatRequest, caps: &Caps) -> Result<Encoded, EncodeError> {
        request.in_own_words(request::encode(request, caps))
    }

    fn json_answer(&self, request: &ChatRequest, caps: &Caps) -> JsonAnswer {
        request::json_answer(request, caps)
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
        supply_member(body, "usage", |out| wire::write_whole_usage(out, usage))
    }

    fn paused_content(&self, body: &Bytes) -> Option<Vec<Block>> {
        response::paused_content(body)
    }

    fn decode_error(&self, status: StatusCode, body: &[u8]) -> UpstreamError {
        error::decode(status, body)
    }

    fn encode_error(&self, error: &PublicError) -> (StatusCode, Bytes) {
        error::encode(error)
    }

    fn encode_stream_error(&self, error: &PublicError, _framing: Framing) -> Bytes {
        error::encode_in_stream(error)
    }

    fn stream_decoder(&self) -> Box<dyn StreamDecoder> {
        Box::new(stream::Decoder::default())
    }

    fn stream_encoder(&self, echo: Echo) -> Box<dyn StreamEncoder> {
        Box::new(stream::Encoder::new(echo))
    }

    fn stream_relay(&self, echo: Echo) -> Box<dyn StreamPipe> {
        Box::new(Relay::new(&Anthropic, relay::Tap::new(echo)))
    }

    fn keep_alive(
        &self,
        style: KeepAlive,
        _framing: Framing,
        _model: &str,
        _arrived_ms: i64,
        _legacy: bool,
    ) -> Bytes {
        match style {
            KeepAlive::Comment | KeepAlive::Chunk => Bytes::from_static(wire::PING),
            KeepAlive::Off => Bytes::new(),
        }
    }

    fn progress(&self, progress: &Progress) -> Option<String> {
        Some(progress.event("\"type\":\"progress\","))
    }

    fn opaque_as_text(&self, raw: &RawValue) -> Option<String> {
        request::opaque_as_text(raw)
    }

    /// Whoever only counts need not say for which model.
    fn decode_count(&self, _head: Head<'_>, body: &Bytes) -> Result<ChatRequest, DecodeError> {
        let body = &supply_member(body, "model", |out| out.extend_from_slice(b"\"\"")).to_bytes();
        request::decode(body)
    }

    fn count_path(&self, chat_path: &str) -> Option<String> {
        chat_path.ends_with("/messages").then(|| format!("{chat_path}/count_tokens"))
    }

    fn rate_limit_headers(&self) -> Option<[[&'static str; 3]; 2]> {
        Some([
            [
                "anthropic-ratelimit-requests-limit",
                "anthropic-ratelimit-requests-remaining",
                "anthropic-ratelimit-requests-reset",
            ],
            [
                "anthropic-ratelimit-tokens-limit",
                "anthropic-ratelimit-tokens-remaining",
                "anthropic-ratelimit-tokens-reset",
            ],
        ])
    }

    fn request_id_header(&self) -> Option<&'static str> {
        Some("request-id")
    }

    /// Betas that the client asked for are added to those of the provider; the version is the provider's.
    fn forward_headers(&self, client: DialectId, from: &HeaderMap, to: &mut HeaderMap) {
        if client != ID {
            return;
        }
        add_betas(to, from.get_all(BETA).iter().filter_map(|value| value.to_str().ok()));
    }
}

/// Puts betas before those that the headers name already.
fn add_betas<'a>(headers: &mut HeaderMap, more: impl IntoIterator<Item = &'a str>) {
    let mut betas: Vec<String> = Vec::new();
    let mut add = |value: &str| {
        for beta in value.split(',').map(str::trim).filter(|beta| !beta.is_empty()) {
            if !betas.iter().any(|known| known == beta) {
                betas.push(beta.to_owned());
            }
        }
    };
    more.into_iter().for_each(&mut add);
    headers.get_all(BETA).iter().filter_map(|value| value.to_str().ok()).for_each(&mut add);
    if let Ok(value) = HeaderValue::from_str(&betas.join(","))
        && !betas.is_empty()
    {
        headers.insert(BETA, value);
    }
}

/// A JSON string as bytes for a splice.
fn quoted(text: &str) -> Bytes {
    let mut out = bytes::BytesMut::with_capacity(text.len() + 2);
    json_out::string(&mut out, text);
    out.freeze()
}

fn read_envelope(body: &Bytes) -> Result<Envelope, DecodeError> {
    let mut model = None;
    let mut stream = None;
    let mut messages = None;
    let mut max_tokens = None;
    let mut repeated = None;
    let mut places = Places::default();
    let mut asks_to_reason = false;
    let mut is_cold = false;
    let mut tier = Tier::Standard;
    let extent = envelope::scan_for(body, shape::MARKS, &mut |member| {
        places.note(&member);
        let slot = match &*member.key {
            "thinking" => {
                asks_to_reason = true;
                return;
            }
            "temperature" => {
                is_cold = is_zero(member.raw);
                return;
            }
            "output_config" => {
                asks_to_reason |= member.raw.contains("\"effort\"");
                return;
            }
            "service_tier" | "speed" => {
                // Both may be there; the usual one says nothing.
                tier = Some(tier_of(member.raw)).filter(|tier| *tier != Tier::Standard).unwrap_or(tier);
                return;
            }
            "model" => &mut model,
            "stream" => &mut stream,
            "messages" => &mut messages,
            "max_tokens" => &mut max_tokens,
            _ => return,
        };
        if slot.replace((member.raw, member.span)).is_some() && matches!(&*member.key, "model" | "stream") {
            repeated = Some(member.key.into_owned());
        }
    })
    .map_err(|error| unreadable(&error))?;
    if let Some(name) = repeated {
        return Err(DecodeError {
            code: "invalid_json",
            message: format!("`{name}` is given more than once"),
            param: Some(name),
        });
    }

    let (raw, model_span) = present(model).ok_or_else(|| json_in::missing("model"))?;
    let model = envelope::as_str(raw).ok_or_else(|| json_in::wrong_type("model", "a string"))?;
    if model.is_empty() {
        return Err(json_in::wrong_value("model", "the name of a model"));
    }
    let stream = match present(stream) {
        Some((raw, _)) => envelope::as_bool(raw).ok_or_else(|| json_in::wrong_type("stream", "a boolean"))?,
        None => false,
    };
    let (raw, _) = present(messages).ok_or_else(|| json_in::missing("messages"))?;
    match raw.strip_prefix('[') {
        None => return Err(json_in::wrong_type("messages", "a list of messages")),
        Some(rest) if rest.trim_start().starts_with(']') => {
            return Err(json_in::wrong_value("messages", "a list with at least one message"));
        }
        Some(_) => {}
    }
    let (raw, _) = present(max_tokens).ok_or_else(|| json_in::missing("max_tokens"))?;
    let max_tokens = envelope::as_u64(raw)
        .ok_or_else(|| json_in::wrong_type("max_tokens", "a whole number, zero or more"))?;

    Ok(Envelope {
        model: (&*model).into(),
        stream,
        include_usage: true,
        session_key: None,
        max_output_tokens: Some(max_tokens),
        legacy: false,
        framing: Framing::Sse,
        kept: None,
        spans: EnvelopeSpans {
            model: Some(model_span),
            asks_to_reason,
            is_cold,
            tier,
            places,
            ..EnvelopeSpans::default().within(&extent)
        },
    })
}

/// A member that is there and not `null`.
fn present(slot: Option<(&str, Range<usize>)>) -> Option<(&str, Range<usize>)> {
    slot.filter(|(raw, _)| *raw != "null")
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
    use super::*;

    fn envelope(body: &str) -> Result<Envelope, (&'static str, Option<String>)> {
        read_envelope(&Bytes::copy_from_slice(body.as_bytes())).map_err(|error| (error.code, error.param))
    }

    #[test]
    fn the_envelope_is_checked() {
        let missing = |name: &str| Err(("missing_required_parameter", Some(name.to_owned())));
        let bad = |code, name: &str| Err((code, Some(name.to_owned())));
        for (body, expected) in [
            (r#"{"messages":[{}],"max_tokens":1}"#, missing("model")),
            (r#"{"model":"m","messages":[{}]}"#, missing("max_tokens")),
            (r#"{"model":"m","max_tokens":1}"#, missing("messages")),
            (r#"{"model":"m","messages":null,"max_tokens":1}"#, missing("messages")),
            (r#"{"model":"m","messages":[ ],"max_tokens":1}"#, bad("invalid_value", "messages")),
            (r#"{"model":"m","messages":"x","max_tokens":1}"#, bad("invalid_type", "messages")),
            (r#"{"model":"","messages":[{}],"max_tokens":1}"#, bad("invalid_value", "model")),
            (r#"{"model":1,"messages":[{}],"max_tokens":1}"#, bad("invalid_type", "model")),
            (r#"{"model":"m","messages":[{}],"max_tokens":"1"}"#, bad("invalid_type", "max_tokens")),
            (r#"{"model":"m","stream":1,"messages":[{}],"max_tokens":1}"#, bad("invalid_type", "stream")),
            (r#"{"model":"m","model":"n","messages":[{}],"max_tokens":1}"#, bad("invalid_json", "model")),
            ("[]", Err(("invalid_json", None))),
            ("{", Err(("invalid_json", None))),
        ] {
            assert_eq!(envelope(body).map(|found| found.model), expected, "{body}");
        }
    }

    #[test]
    fn only_the_model_is_edited() {
        let body = Bytes::from_static(
            br#"{"max_tokens": 0, "model" : "cc/x", "messages":[{"n":1e-9}],"stream":true}"#,
        );
        let envelope = read_envelope(&body).expect("valid");
        assert!(envelope.stream);
        assert_eq!(envelope.max_output_tokens, Some(0));
        let edited = Anthropic.edit_request(&body, &envelope, "claude-\"5\"").to_bytes();
        assert_eq!(
            edited,
            &br#"{"max_tokens": 0, "model" : "claude-\"5\"", "messages":[{"n":1e-9}],"stream":true}"#[..]
        );
        assert!(Anthropic.edit_request(&body, &envelope, "cc/x").is_untouched());
    }
}
