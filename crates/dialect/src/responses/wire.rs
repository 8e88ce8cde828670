//! The words of the format that both directions share.

use bytes::BytesMut;
use omniroute_wire::json_out::Object;
use serde_json::value::RawValue;

use super::ID;
use crate::{
    billed::billed_nano,
    error_text,
    ir::{Citation, FinishReason, Native, SearchResult, UpstreamError, Usage, WebSearch},
    json_in::{self, Fields, count_of, list_of, str_of},
};

/// What `include` names to get reasoning in a form that can be sent back.
pub(super) const ENCRYPTED: &str = "reasoning.encrypted_content";
/// What `include` names to get log probabilities.
pub(super) const LOGPROBS: &str = "message.output_text.logprobs";
/// What `include` names to get the pages that a search found.
pub(super) const SOURCES: &str = "web_search_call.action.sources";

/// A string; whatever else stands there counts as absent.
pub(super) fn text(fields: &Fields<'_>, name: &str) -> Option<String> {
    fields.raw(name).and_then(str_of).map(Into::into)
}

/// The name of a tool within a namespace, for those who know no namespaces.
pub(super) fn flat_name(namespace: Option<&str>, name: &str) -> String {
    match namespace.filter(|namespace| !namespace.is_empty()) {
        Some(namespace) => format!("{namespace}__{name}"),
        None => name.to_owned(),
    }
}

/// Whether a tool of this type is the vendor's search of the web; it exists in several editions.
pub(super) fn is_web_search(kind: &str) -> bool {
    kind == "web_search" || kind.starts_with("web_search_preview") || kind.starts_with("web_search_20")
}

/// The JSON for the dialect alone, in one line.
pub(super) fn native(raw: &RawValue) -> Option<Native> {
    let raw = RawValue::from_string(json_in::compact(raw.get())).ok()?;
    Some(Native { origin: ID, raw: vec![raw] })
}

/// Reads a source of a text.
pub(super) fn citation(raw: &RawValue) -> Option<Citation> {
    let fields = Fields::lenient(raw.get(), "").ok()?;
    let place = |name| fields.raw(name).and_then(count_of).and_then(|place| usize::try_from(place).ok());
    Some(Citation {
        url: text(&fields, "url").filter(|url| !url.is_empty()),
        title: text(&fields, "title").or_else(|| text(&fields, "filename")),
        cited_text: None,
        span: place("start_index").zip(place("end_index")),
        native: native(raw),
    })
}

/// Writes a source of a text that is so long, in characters; false for what the dialect has no form for.
pub(super) fn write_citation(out: &mut BytesMut, citation: &Citation, length: usize) -> bool {
    if let Some(native) = citation.native.as_ref().filter(|native| native.origin == ID) {
        native.raw.iter().for_each(|raw| out.extend_from_slice(raw.get().as_bytes()));
        return !native.raw.is_empty();
    }
    let Some(url) = &citation.url else { return false };
    let (start, end) = citation.span.unwrap_or((0, length));
    let mut object = Object::begin(out);
    object.str("type", "url_citation").str("url", url);
    object.str("title", citation.title.as_deref().unwrap_or_default());
    object.u64("start_index", start as u64).u64("end_index", end as u64);
    object.end();
    true
}

/// Reads a search.
pub(super) fn web_search(raw: &RawValue, fields: &Fields<'_>) -> WebSearch {
    let action = fields.object_or_none("action");
    let mut search = WebSearch { id: text(fields, "id").unwrap_or_default(), ..WebSearch::default() };
    if let Some(action) = action {
        search.queries.extend(
            action
                .raw("queries")
                .and_then(list_of)
                .into_iter()
                .flatten()
                .filter_map(|query| str_of(query).map(Into::into)),
        );
        if search.queries.is_empty() {
            search.queries.extend(text(&action, "query"));
        }
        for source in action.raw("sources").and_then(list_of).into_iter().flatten() {
            let Ok(source) = Fields::lenient(source.get(), "") else { continue };
            if let Some(url) = text(&source, "url") {
                search.results.push(SearchResult { url, title: text(&source, "title").unwrap_or_default() });
            }
        }
    }
    search.native = native(raw);
    search
}

/// Reads usage. The input contains what was read from and written to caches.
pub(super) fn usage(raw: &str) -> Usage {
    let Ok(fields) = Fields::lenient(raw, "") else { return Usage::default() };
    let count = |name| fields.raw(name).and_then(count_of);
    let inputs = fields.object_or_none("input_tokens_details");
    let inner = |group: &Option<Fields<'_>>, name| group.as_ref()?.raw(name).and_then(count_of);
    let cache_read = inner(&inputs, "cached_tokens");
    let cache_write = inner(&inputs, "cache_write_tokens");
    let cached = cache_read.unwrap_or(0).saturating_add(cache_write.unwrap_or(0));
    Usage {
        input_uncached: count("input_tokens").map(|input| input.saturating_sub(cached)),
        cache_read,
        cache_write,
        cache_write_1h: None,
        audio_input: None,
        output_total: count("output_tokens"),
        reasoning: inner(&fields.object_or_none("output_tokens_details"), "reasoning_tokens"),
        audio_output: None,
        billed_nano: billed_nano(&fields),
        tier: None,
    }
}

/// Appends usage as a value. All members are required, so what is not known is zero.
pub(super) fn write_usage(out: &mut BytesMut, usage: &Usage) {
    let input = usage.input_total().unwrap_or(0);
    let output = usage.output_total.unwrap_or(0);
    let mut object = Object::begin(out);
    object.u64("input_tokens", input);
    let mut details = object.object("input_tokens_details");
    details.u64("cached_tokens", usage.cache_read.unwrap_or(0));
    details.u64(
        "cache_write_tokens",
        usage.cache_write.unwrap_or(0).saturating_add(usage.cache_write_1h.unwrap_or(0)),
    );
    details.end();
    object.u64("output_tokens", output);
    let mut details = object.object("output_tokens_details");
    details.u64("reasoning_tokens", usage.reasoning.unwrap_or(0));
    details.end();
    object.u64("total_tokens", input.saturating_add(output));
    object.end();
}

/// Reads why an answer ended. `called` tells whether it has calls of the client's tools, `refused` whether it has a
/// refusal.
pub(super) fn finish_reason(response: &Fields<'_>, called: bool, refused: bool) -> FinishReason {
    let incomplete = text(response, "status").as_deref() == Some("incomplete");
    let reason = response.object_or_none("incomplete_details").and_then(|details| text(&details, "reason"));
    match reason.as_deref() {
        Some("content_filter") => FinishReason::ContentFilter,
        Some("max_output_tokens") => FinishReason::Length,
        None if incomplete => FinishReason::Length,
        _ if called => FinishReason::ToolUse,
        _ if refused => FinishReason::ContentFilter,
        _ => FinishReason::Stop,
    }
}

/// The status of an answer that ended so, and why it is incomplete if it is.
pub(super) fn status(reason: FinishReason) -> (&'static str, Option<&'static str>) {
    match reason {
        FinishReason::Stop | FinishReason::StopSequence | FinishReason::ToolUse | FinishReason::Pause => {
            ("completed", None)
        }
        FinishReason::Length | FinishReason::ContextWindow => ("incomplete", Some("max_output_tokens")),
        FinishReason::ContentFilter => ("incomplete", Some("content_filter")),
    }
}

/// Reads an error that came within a stream or a successful answer: the value of an `error` member, or an event.
pub(super) fn error(json: &str) -> UpstreamError {
    let mut error = error_text::read_value(json);
    // That it is an error is no kind of one.
    error.kind.take_if(|kind| kind == "error");
    if error.status.is_none() {
        error.status = match error.code.as_deref() {
            Some("rate_limit_exceeded" | "insufficient_quota" | "usage_limit_reached") => Some(429),
            Some("server_is_overloaded" | "slow_down") => Some(503),
            Some("server_error") => Some(500),
            Some(
                "invalid_prompt" | "context_length_exceeded" | "invalid_encrypted_content" | "content_filter",
            ) => Some(400),
            _ => None,
        };
    }
    error
}

/// Reads why an answer failed.
pub(super) fn failure(response: &Fields<'_>) -> UpstreamError {
    match response.raw("error") {
        Some(raw) => error(raw.get()),
        None => UpstreamError {
            status: Some(502),
            message: "the answer failed at the upstream, which does not say why".to_owned(),
            ..UpstreamError::default()
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_read_and_written_in_full() {
        let json = r#"{"input_tokens":100,"input_tokens_details":{"cached_tokens":60,"cache_write_tokens":10},"output_tokens":20,"output_tokens_details":{"reasoning_tokens":5},"total_tokens":120}"#;
        let known = usage(json);
        assert_eq!(
            (known.input_uncached, known.input_total(), known.reasoning),
            (Some(30), Some(100), Some(5))
        );
        let mut out = BytesMut::new();
        write_usage(&mut out, &known);
        assert_eq!(out, json);
        let zero = usage(r#"{"input_tokens":8,"input_tokens_details":{"cached_tokens":0}}"#);
        assert_eq!((zero.cache_read, zero.cache_write, zero.output_total), (Some(0), None, None));
        out.clear();
        write_usage(&mut out, &Usage::default());
        assert!(out.ends_with(b"\"total_tokens\":0}"));
        assert_eq!(usage("null"), Usage::default());
    }

    #[test]
    fn the_reason_of_the_end_is_told_by_status_and_content() {
        for (json, called, refused, expected) in [
            (r#"{"status":"completed"}"#, false, false, FinishReason::Stop),
            (r#"{"status":"completed","incomplete_details":null}"#, true, false, FinishReason::ToolUse),
            (r#"{"status":"completed"}"#, false, true, FinishReason::ContentFilter),
            (r#"{"status":"incomplete"}"#, true, false, FinishReason::Length),
            (
                r#"{"status":"incomplete","incomplete_details":{"reason":"max_output_tokens"}}"#,
                true,
                false,
                FinishReason::Length,
            ),
            (
                r#"{"status":"incomplete","incomplete_details":{"reason":"content_filter"}}"#,
                false,
                false,
                FinishReason::ContentFilter,
            ),
            (
                r#"{"status":"incomplete","incomplete_details":{"reason":"steered"}}"#,
                false,
                false,
                FinishReason::Stop,
            ),
            ("{}", true, false, FinishReason::ToolUse),
        ] {
            let fields = Fields::lenient(json, "").unwrap();
            assert_eq!(finish_reason(&fields, called, refused), expected, "{json}");
        }
    }

    #[test]
    fn errors_have_the_status_of_their_code() {
        for (json, status) in [
            (r#"{"type":"error","code":"rate_limit_exceeded","message":"m"}"#, Some(429)),
            (r#"{"type":"error","error":{"code":"server_error","message":"m"}}"#, Some(500)),
            (r#"{"code":"something","message":"m"}"#, None),
        ] {
            let error = error(json);
            assert_eq!((error.status, error.kind, error.message.as_str()), (status, None, "m"), "{json}");
        }
    }

    #[test]
    fn a_foreign_source_covers_the_text_it_stands_at() {
        let web = Citation { url: Some("https://a".into()), ..Citation::default() };
        let mut out = BytesMut::new();
        assert!(write_citation(&mut out, &web, 7));
        assert_eq!(
            out,
            r#"{"type":"url_citation","url":"https://a","title":"","start_index":0,"end_index":7}"#
        );
        let raw = RawValue::from_string(String::from_utf8_lossy(&out).into_owned()).unwrap();
        let back = citation(&raw).unwrap();
        assert_eq!((back.url.as_deref(), back.span), (Some("https://a"), Some((0, 7))));
        let document = Citation { cited_text: Some("words".into()), ..Citation::default() };
        assert!(
            !write_citation(&mut out, &document, 7),
            "what is no page on the web is not passed off as one"
        );
    }
}
