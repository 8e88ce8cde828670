//! What upstreams write when something failed: read the same way whatever the dialect.

use std::{borrow::Cow, time::Duration};

use omniroute_wire::{
    envelope::{self, Member, ScanError},
    text::kind_of,
};
use serde_json::value::RawValue;

use crate::{
    ir::UpstreamError,
    json_in::{Fields, list_of},
};

/// Longest message that is kept, in characters.
const MAX_MESSAGE: usize = 500;
/// How many nested values are looked into: three wrappings of an object within an object or a string.
const MAX_LAYERS: usize = 6;
/// Longest wait that is believed.
const MAX_WAIT: Duration = Duration::from_secs(366 * 24 * 3600);

/// Reads the body of an answer with an error status. What cannot be read becomes its text, shortened.
pub(crate) fn read(status: u16, body: &[u8]) -> UpstreamError {
    let text = String::from_utf8_lossy(body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body));
    let mut error = if is_html(&text) { html(status) } else { read_text(&text) };
    error.status = Some(status);
    if error.message.is_empty() {
        error.message = format!("upstream returned status {status} without a message");
    }
    error
}

/// Reads the value of an `error` member, or a whole error document, that came within a successful answer.
pub(crate) fn read_value(json: &str) -> UpstreamError {
    let mut error = read_text(json);
    if error.message.is_empty() {
        "the upstream reported an error without a message".clone_into(&mut error.message);
    }
    error
}

/// The error that a successful answer carries in its body, if it does.
pub fn error_in_success(body: &[u8]) -> Option<UpstreamError> {
    let mut disguise = Disguise::default();
    match envelope::scan(body, &mut |member| disguise.note(&member)) {
        Ok(_) => disguise.error(body),
        // Some put their documents into a list.
        Err(ScanError::NotAnObject) => {
            let items: Vec<&RawValue> = serde_json::from_slice(body).ok()?;
            let first = items.first()?.get().as_bytes();
            first.starts_with(b"{").then(|| error_in_success(first))?
        }
        Err(ScanError::NotJson { .. } | ScanError::NotUtf8 { .. }) => None,
    }
}

/// Tells an error that came as a success by the members of its body, for those who go over them anyway.
#[derive(Debug, Default)]
pub(crate) struct Disguise {
    has_error: bool,
    has_answer: bool,
}

impl Disguise {
    /// Takes note of a top-level member.
    pub(crate) fn note(&mut self, member: &Member<'_>) {
        match &*member.key {
            "error" => self.has_error = matches!(member.raw.as_bytes().first(), Some(b'{' | b'"')),
            "choices" | "content" | "candidates" => self.has_answer |= !matches!(member.raw, "null" | "[]"),
            _ => {}
        }
    }

    /// The error, if it is one, of the body that all members were noted of.
    pub(crate) fn error(&self, body: &[u8]) -> Option<UpstreamError> {
        (self.has_error && !self.has_answer).then(|| read_value(&String::from_utf8_lossy(body)))
    }
}

/// That a web page came instead of an answer.
pub(crate) fn html(status: u16) -> UpstreamError {
    UpstreamError {
        status: Some(if status < 400 { 502 } else { status }),
        message: format!("upstream returned HTML (status {status})"),
        ..UpstreamError::default()
    }
}

/// That an answer could not be read.
pub(crate) fn malformed(what: &str) -> UpstreamError {
    UpstreamError {
        status: Some(502),
        code: Some("bad_gateway".to_owned()),
        message: format!("the upstream sent an answer that cannot be read: {}", shorten(what)),
        ..UpstreamError::default()
    }
}

/// Whether a text is a web page.
pub(crate) fn is_html(text: &str) -> bool {
    let start = text.trim_start();
    let Some(head) = start.as_bytes().get(..start.len().min(512)) else { return false };
    let head = head.to_ascii_lowercase();
    head.starts_with(b"<")
        && [&b"<!doctype html"[..], b"<html", b"<head", b"<body"]
            .iter()
            .any(|tag| memchr::memmem::find(&head, tag).is_some())
}

/// The first characters of a text.
pub(crate) fn shorten(text: &str) -> &str {
    let text = text.trim();
    text.char_indices().nth(MAX_MESSAGE).map_or(text, |(end, _)| &text[..end])
}

fn read_text(text: &str) -> UpstreamError {
    let mut error = UpstreamError::default();
    read_layer(text, MAX_LAYERS, &mut error);
    error.message = shorten(&error.message).to_owned();
    if error.retry_after.is_none() {
        error.retry_after = wait_in_text(&error.message);
    }
    if is_context_overflow(&error.message) {
        error.code = Some("context_length_exceeded".to_owned());
    }
    error
}

/// Reads JSON, or JSON within a string, or plain text.
fn read_layer(text: &str, layers: usize, error: &mut UpstreamError) {
    let text = text.trim();
    let parsed: Option<&RawValue> =
        text.starts_with(['{', '[', '"']).then(|| serde_json::from_str(text).ok()).flatten();
    let Some(value) = parsed.filter(|_| layers > 0) else {
        if is_html(text) {
            error.message = html(error.status.unwrap_or(200)).message;
        } else if !text.is_empty() {
            text.clone_into(&mut error.message);
        }
        return;
    };
    match kind_of(value.get()) {
        "a string" => {
            if let Some(inner) = envelope::as_str(value.get()) {
                read_layer(&inner, layers - 1, error);
            }
        }
        "an array" => {
            if let Some(first) = list_of(value).and_then(|items| items.first().copied()) {
                read_layer(first.get(), layers - 1, error);
            }
        }
        _ => {
            if let Ok(fields) = Fields::lenient(value.get(), "") {
                read_object(&fields, layers, error);
            }
        }
    }
}

fn read_object(fields: &Fields<'_>, layers: usize, error: &mut UpstreamError) {
    let status = |name: &str| {
        let number = envelope::as_u64(fields.raw(name)?.get())?;
        u16::try_from(number).ok().filter(|status| (400..600).contains(status))
    };
    if let Some(inner) = fields.raw("error")
        && matches!(kind_of(inner.get()), "an object" | "a string" | "an array")
    {
        read_layer(inner.get(), layers - 1, error);
        if !error.message.is_empty() {
            error.status = error.status.or_else(|| ["status", "status_code"].into_iter().find_map(status));
            return;
        }
    }
    let text = |name| fields.raw(name).and_then(|raw| envelope::as_str(raw.get()));
    if let Some(kind) = text("type").or_else(|| text("status")).filter(|kind| !kind.is_empty()) {
        error.kind = Some(kind.into_owned());
    }
    if let Some(param) = text("param") {
        error.param = Some(param.into_owned());
    }
    for name in ["code", "status", "status_code"] {
        let Some(raw) = fields.raw(name) else { continue };
        error.status = status(name).or(error.status);
        if name == "code" {
            error.code = Some(envelope::as_str(raw.get()).unwrap_or(Cow::Borrowed(raw.get())).into_owned());
        }
    }
    error.retry_after = wait_in(fields).or(error.retry_after);
    let raw_of_metadata = fields.object_or_none("metadata").and_then(|metadata| metadata.raw("raw"));
    if let Some(raw) = raw_of_metadata.filter(|raw| raw.get().starts_with('"')) {
        read_layer(raw.get(), layers - 1, error);
        if !error.message.is_empty() {
            return;
        }
    }
    for name in ["message", "detail", "errors", "msg", "err_msg"] {
        let Some(raw) = fields.raw(name) else { continue };
        match kind_of(raw.get()) {
            "a string" => read_layer(raw.get(), layers, error),
            "an array" => error.message = join_messages(raw),
            "an object" => read_layer(raw.get(), layers - 1, error),
            _ => {}
        }
        if !error.message.is_empty() {
            return;
        }
    }
}

/// The messages of a list of errors, `loc` of validation errors before each.
fn join_messages(list: &RawValue) -> String {
    let mut joined = String::new();
    for item in list_of(list).unwrap_or_default().into_iter().take(8) {
        let text = match Fields::lenient(item.get(), "") {
            Ok(fields) => ["message", "msg"]
                .iter()
                .find_map(|name| fields.raw(name).and_then(|raw| envelope::as_str(raw.get())))
                .map(Cow::into_owned),
            Err(_) => envelope::as_str(item.get()).map(Cow::into_owned),
        };
        if let Some(text) = text {
            if !joined.is_empty() {
                joined.push_str("; ");
            }
            joined.push_str(&text);
        }
    }
    joined
}

fn wait_in(fields: &Fields<'_>) -> Option<Duration> {
    for name in ["resets_in_seconds", "retry_after", "retry_after_seconds", "retryDelay"] {
        let Some(raw) = fields.raw(name) else { continue };
        let wait = match envelope::as_str(raw.get()) {
            Some(text) => duration(&text),
            None => raw.get().parse().ok().and_then(seconds),
        };
        if wait.is_some() {
            return wait;
        }
    }
    let details = fields.raw("details")?;
    list_of(details)?.into_iter().find_map(|item| wait_in(&Fields::lenient(item.get(), "").ok()?))
}

/// The wait that a message names: `try again in 20s`, `reset after 2h7m23s`.
fn wait_in_text(message: &str) -> Option<Duration> {
    let lower = message.to_ascii_lowercase();
    ["again in ", "reset after ", "retry after ", "retry in ", "resets in "]
        .iter()
        .find_map(|lead| duration(&lower[lower.find(lead)? + lead.len()..]))
}

/// A leading duration: `2h7m23s`, `1.5s`, `20 seconds`, `120ms`.
fn duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut any = false;
    let mut rest = text.trim_start();
    loop {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let Ok(number) = rest[..digits].trim_end_matches('.').parse::<f64>() else { break };
        let after = rest[digits..].trim_start();
        let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let unit = match &after[..letters] {
            "ms" | "millisecond" | "milliseconds" => 0.001,
            "s" | "sec" | "secs" | "second" | "seconds" => 1.0,
            "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
            "h" | "hour" | "hours" => 3600.0,
            "d" | "day" | "days" => 86_400.0,
            _ => break,
        };
        total += seconds(number * unit)?;
        any = true;
        rest = after[letters..].trim_start();
    }
    any.then_some(total.min(MAX_WAIT))
}

fn seconds(number: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(number).ok().map(|wait| wait.min(MAX_WAIT))
}

/// Whether a message says that the prompt does not fit the model, in any vendor's words.
fn is_context_overflow(message: &str) -> bool {
    let lower = message.to_ascii_lowercase();
    [
        "prompt is too long",
        "maximum context length",
        "exceeds the maximum number of tokens",
        "exceed context limit",
        "exceeds the context window",
        "exceeds the available context size",
        "context_length_exceeded",
    ]
    .iter()
    .any(|words| lower.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_unwrapped() {
        for (body, message) in [
            (r#"{"error":{"message":"a","type":"t"}}"#, "a"),
            (r#"{"error":"b"}"#, "b"),
            (r#"{"message":"c"}"#, "c"),
            (r#"{"detail":"d"}"#, "d"),
            (r#"{"err_code":"INVALID_AUTH","err_msg":"i","request_id":"r"}"#, "i"),
            (r#"{"detail":[{"loc":["body"],"msg":"x"},{"msg":"y"}]}"#, "x; y"),
            (r#"{"errors":[{"message":"e"}]}"#, "e"),
            (r#"[{"error":{"message":"f","status":"X"}}]"#, "f"),
            (r#"{"error":{"message":"{\"error\":{\"message\":\"g\"}}"}}"#, "g"),
            (
                r#"{"error":{"message":"Provider returned error","metadata":{"raw":"{\"error\":\"h\"}"}}}"#,
                "h",
            ),
            ("plain text", "plain text"),
            ("", "upstream returned status 500 without a message"),
            ("{}", "upstream returned status 500 without a message"),
            ("<!DOCTYPE html><title>x</title>", "upstream returned HTML (status 500)"),
            ("{\"error\":", "{\"error\":"),
        ] {
            assert_eq!(read(500, body.as_bytes()).message, message, "{body}");
        }
        assert_eq!(read(500, "é".repeat(900).as_bytes()).message.chars().count(), 500);
        assert_eq!(read(500, b"\xff\xfe").message, "\u{fffd}\u{fffd}");
        let nested = format!("{}1{}", "{\"error\":".repeat(10_000), "}".repeat(10_000));
        read(500, nested.as_bytes());
    }

    #[test]
    fn kinds_codes_and_waits_are_kept() {
        let body = r#"{"error":{"message":"Rate limit reached. Please try again in 1m2.5s. Visit us","type":"tokens",
            "param":null,"code":"rate_limit_exceeded"}}"#;
        let error = read(429, body.as_bytes());
        assert_eq!(error.kind.as_deref(), Some("tokens"));
        assert_eq!(error.code.as_deref(), Some("rate_limit_exceeded"));
        assert_eq!(error.param, None);
        assert_eq!(error.retry_after, Some(Duration::from_millis(62_500)));

        let body = r#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","message":"x","details":[{"@type":"q"},
            {"retryDelay":"12s"}]}}"#;
        let error = read(429, body.as_bytes());
        assert_eq!(error.retry_after, Some(Duration::from_secs(12)));
        assert_eq!(error.kind.as_deref(), Some("RESOURCE_EXHAUSTED"));
        assert_eq!(
            read(429, br#"{"error":{"message":"x","resets_in_seconds":7}}"#).retry_after,
            seconds(7.0)
        );
    }

    #[test]
    fn a_full_context_has_one_code() {
        for message in [
            "This model's maximum context length is 8192 tokens.",
            "prompt is too long: 210000 tokens > 200000 maximum",
            "The input token count (2) exceeds the maximum number of tokens allowed (1).",
        ] {
            let body = format!("{{\"error\":{{\"message\":\"{message}\"}}}}");
            assert_eq!(read(400, body.as_bytes()).code.as_deref(), Some("context_length_exceeded"));
        }
    }

    #[test]
    fn an_error_in_a_successful_answer_is_found() {
        let error = error_in_success(br#"{"error":{"code":429,"message":"slow down"}}"#).unwrap();
        assert_eq!((error.status, error.message.as_str()), (Some(429), "slow down"));
        assert!(error_in_success(br#"{"choices":[{}],"error":null}"#).is_none());
        assert!(error_in_success(br#"{"choices":[{}],"error":{"message":"x"}}"#).is_none());
        assert!(error_in_success(b"<html>").is_none());
        assert!(error_in_success(b"[1]").is_none() && error_in_success(b"[[{\"error\":\"x\"}]]").is_none());
        assert_eq!(error_in_success(br#"[{"error":{"message":"x"}}]"#).unwrap().message, "x");
        assert_eq!(error_in_success(br#"{"error":"busy"}"#).unwrap().message, "busy");
    }

    proptest::proptest! {
        #[test]
        fn anything_can_be_read(body in r#"[{}\[\]",:\\a-z0-9 ]{0,80}"#) {
            proptest::prop_assert!(!read(500, body.as_bytes()).message.is_empty());
            let _ = duration(&body);
        }
    }
}
