//! The words of the format, and the parts of what is written.

use std::borrow::Cow;

use bytes::BytesMut;
use omniroute_wire::json_out::{self, Object};
use serde_json::value::RawValue;

use crate::{
    billed::billed_nano,
    ir::{CacheMark, FinishReason, Tier, Usage},
    json_in::{self, Fields},
    service_tier::is_word,
};

/// The event that says nothing.
pub(super) const PING: &[u8] = b"event: ping\ndata: {\"type\":\"ping\"}\n\n";

/// A block as it is written.
#[derive(Debug)]
pub(super) enum BlockOut<'a> {
    Text {
        text: Cow<'a, str>,
        cache: Option<CacheMark>,
    },
    Image {
        source: SourceOut<'a>,
        cache: Option<CacheMark>,
    },
    Document {
        source: SourceOut<'a>,
        title: Option<&'a str>,
        extras: &'a [(String, Box<RawValue>)],
        cache: Option<CacheMark>,
    },
    Thinking {
        text: &'a str,
        signature: Option<&'a str>,
    },
    RedactedThinking {
        data: &'a str,
    },
    ToolUse {
        id: Cow<'a, str>,
        name: &'a str,
        input: Cow<'a, RawValue>,
        cache: Option<CacheMark>,
    },
    ToolResult {
        id: Cow<'a, str>,
        content: Vec<BlockOut<'a>>,
        is_error: bool,
        cache: Option<CacheMark>,
    },
    /// A text with its sources, as JSON.
    Cited {
        text: &'a str,
        citations: Vec<Cow<'a, str>>,
        cache: Option<CacheMark>,
    },
    Raw(&'a RawValue),
    /// Blocks that belong together.
    Raws(Vec<Cow<'a, str>>),
}

/// Where the bytes of an image or a document are.
#[derive(Debug)]
pub(super) enum SourceOut<'a> {
    Base64 { media_type: Cow<'a, str>, data: &'a str },
    Url(&'a str),
    File(&'a str),
    Text(Cow<'a, str>),
}

impl BlockOut<'_> {
    /// A text without a mark.
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Text { text: Cow::Owned(text.into()), cache: None }
    }

    /// Appends the block.
    pub(super) fn write(&self, out: &mut BytesMut) {
        if let Self::Raw(raw) = self {
            out.extend_from_slice(raw.get().as_bytes());
            return;
        }
        if let Self::Raws(blocks) = self {
            out.extend_from_slice(blocks.join(",").as_bytes());
            return;
        }
        let mut object = Object::begin(out);
        match self {
            Self::Raw(_) | Self::Raws(_) => {}
            Self::Cited { text, citations, cache } => {
                object.str("type", "text").str("text", text);
                write_list(object.key("citations"), citations.iter(), |out, citation| {
                    out.extend_from_slice(citation.as_bytes());
                });
                write_cache(&mut object, *cache);
            }
            Self::Text { text, cache } => {
                object.str("type", "text").str("text", text);
                write_cache(&mut object, *cache);
            }
            Self::Image { source, cache } => {
                object.str("type", "image");
                source.write(object.key("source"));
                write_cache(&mut object, *cache);
            }
            Self::Document { source, title, extras, cache } => {
                object.str("type", "document");
                source.write(object.key("source"));
                object.opt_str("title", *title);
                for (name, raw) in *extras {
                    object.raw(name, raw.get());
                }
                write_cache(&mut object, *cache);
            }
            Self::Thinking { text, signature } => {
                object.str("type", "thinking").str("thinking", text).opt_str("signature", *signature);
            }
            Self::RedactedThinking { data } => {
                object.str("type", "redacted_thinking").str("data", data);
            }
            Self::ToolUse { id, name, input, cache } => {
                object.str("type", "tool_use").str("id", id).str("name", name).raw("input", input.get());
                write_cache(&mut object, *cache);
            }
            Self::ToolResult { id, content, is_error, cache } => {
                object.str("type", "tool_result").str("tool_use_id", id);
                if !content.is_empty() {
                    write_content(object.key("content"), content);
                }
                if *is_error {
                    object.bool("is_error", true);
                }
                write_cache(&mut object, *cache);
            }
        }
        object.end();
    }
}

impl SourceOut<'_> {
    fn write(&self, out: &mut BytesMut) {
        let mut object = Object::begin(out);
        match self {
            Self::Base64 { media_type, data } => {
                object.str("type", "base64").str("media_type", media_type).str("data", data)
            }
            Self::Url(url) => object.str("type", "url").str("url", url),
            Self::File(id) => object.str("type", "file").str("file_id", id),
            Self::Text(text) => object.str("type", "text").str("media_type", "text/plain").str("data", text),
        };
        object.end();
    }
}

/// Appends content: a single unmarked text as a string, everything else as a list.
pub(super) fn write_content(out: &mut BytesMut, blocks: &[BlockOut<'_>]) {
    if let [BlockOut::Text { text, cache: None }] = blocks {
        json_out::string(out, text);
    } else {
        write_list(out, blocks.iter(), |out, block| block.write(out));
    }
}

/// Appends a list.
pub(super) fn write_list<T>(
    out: &mut BytesMut,
    items: impl Iterator<Item = T>,
    mut write: impl FnMut(&mut BytesMut, T),
) {
    out.extend_from_slice(b"[");
    for (at, item) in items.enumerate() {
        if at > 0 {
            out.extend_from_slice(b",");
        }
        write(out, item);
    }
    out.extend_from_slice(b"]");
}

/// Appends a cache mark, when there is one.
pub(super) fn write_cache(object: &mut Object<'_>, mark: Option<CacheMark>) {
    match mark {
        None => {}
        Some(CacheMark { one_hour: false }) => {
            object.raw("cache_control", r#"{"type":"ephemeral"}"#);
        }
        Some(CacheMark { one_hour: true }) => {
            object.raw("cache_control", r#"{"type":"ephemeral","ttl":"1h"}"#);
        }
    }
}

/// Why an answer ended, in the format's word.
pub(super) fn stop_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "end_turn",
        FinishReason::StopSequence => "stop_sequence",
        FinishReason::ToolUse => "tool_use",
        FinishReason::Length => "max_tokens",
        FinishReason::ContextWindow => "model_context_window_exceeded",
        FinishReason::ContentFilter => "refusal",
        FinishReason::Pause => "pause_turn",
    }
}

/// Why an answer ended; a word from the future counts as an ordinary end.
pub(super) fn finish_reason(word: &str) -> FinishReason {
    match word {
        "stop_sequence" => FinishReason::StopSequence,
        "tool_use" => FinishReason::ToolUse,
        "max_tokens" => FinishReason::Length,
        "model_context_window_exceeded" => FinishReason::ContextWindow,
        "refusal" => FinishReason::ContentFilter,
        "pause_turn" => FinishReason::Pause,
        _ => FinishReason::Stop,
    }
}

/// The tier of a usage object, in the form's word: a fast answer is one of a tier, where the format speaks of a speed.
pub(super) fn service_tier<'a>(usage: &'a Fields<'_>) -> Option<Cow<'a, str>> {
    if is_fast(usage) {
        return Some(Cow::Borrowed(FAST));
    }
    let word = usage.raw("service_tier").and_then(json_in::str_of)?;
    if word == "standard" { Some(Cow::Borrowed("default")) } else { Some(word).filter(|word| is_word(word)) }
}

fn is_fast(usage: &Fields<'_>) -> bool {
    usage.raw("speed").and_then(json_in::str_of).is_some_and(|speed| speed == FAST)
}

/// The tier in the format's words, when it is known.
pub(super) fn write_tier(usage: &mut Object<'_>, tier: Option<&str>) {
    let Some(tier) = tier else { return };
    let is_usual = matches!(tier, "default" | FLEX | FAST);
    usage.str("service_tier", if is_usual { "standard" } else { tier });
    if tier == FAST {
        usage.str("speed", FAST);
    }
}

/// A tier that the format has no word for but the usual one.
pub(super) const FLEX: &str = "flex";
/// A tier that the format calls a speed.
pub(super) const FAST: &str = "fast";

/// Takes a later report of the same answer over. The vendor tells only in the first how long what was written to caches
/// stays there, and in the last how much it was in all: what stays for an hour counts once.
pub(super) fn update(known: &mut Usage, later: &Fields<'_>) {
    let tells_total = later.raw("cache_creation_input_tokens").and_then(json_in::count_of).is_some();
    let mut later = usage(later);
    if tells_total && later.cache_write_1h.is_none() {
        later.cache_write =
            later.cache_write.map(|all| all.saturating_sub(known.cache_write_1h.unwrap_or(0)));
    }
    known.update(&later);
}

/// Reads a usage object; members that are absent, `null` or no numbers stay unknown.
pub(super) fn usage(fields: &Fields<'_>) -> Usage {
    let count = |fields: &Fields<'_>, name: &str| fields.raw(name).and_then(json_in::count_of);
    let split = fields.object_or_none("cache_creation");
    let hour = split.as_ref().and_then(|split| count(split, "ephemeral_1h_input_tokens"));
    let five = split.as_ref().and_then(|split| count(split, "ephemeral_5m_input_tokens"));
    let written = count(fields, "cache_creation_input_tokens");
    Usage {
        input_uncached: count(fields, "input_tokens"),
        cache_read: count(fields, "cache_read_input_tokens"),
        cache_write: written.map(|all| all.saturating_sub(hour.unwrap_or(0))).or(five),
        cache_write_1h: hour,
        output_total: count(fields, "output_tokens"),
        reasoning: fields
            .object_or_none("output_tokens_details")
            .and_then(|details| count(&details, "thinking_tokens")),
        billed_nano: billed_nano(fields),
        tier: service_tier(fields).and_then(|word| Tier::of_answer(&word)),
        ..Usage::default()
    }
}

/// Appends a whole usage object.
pub(super) fn write_whole_usage(out: &mut BytesMut, usage: &Usage) {
    let mut object = Object::begin(out);
    object.u64("input_tokens", usage.input_uncached.unwrap_or(0));
    write_input_usage(&mut object, usage);
    object.u64("output_tokens", usage.output_total.unwrap_or(0));
    write_output_details(&mut object, usage);
    object.end();
}

/// The prompt's share of a usage object.
pub(super) fn write_input_usage(object: &mut Object<'_>, usage: &Usage) {
    let written = match (usage.cache_write, usage.cache_write_1h) {
        (None, None) => None,
        (five, hour) => Some(five.unwrap_or(0) + hour.unwrap_or(0)),
    };
    count_or_null(object, "cache_creation_input_tokens", written);
    count_or_null(object, "cache_read_input_tokens", usage.cache_read);
    if let Some(hour) = usage.cache_write_1h {
        let mut split = Object::begin(object.key("cache_creation"));
        split.u64("ephemeral_5m_input_tokens", usage.cache_write.unwrap_or(0));
        split.u64("ephemeral_1h_input_tokens", hour);
        split.end();
    }
}

/// The reasoning share of a usage object, when it is known.
pub(super) fn write_output_details(object: &mut Object<'_>, usage: &Usage) {
    if let Some(reasoning) = usage.reasoning {
        let mut details = Object::begin(object.key("output_tokens_details"));
        details.u64("thinking_tokens", reasoning);
        details.end();
    }
}

fn count_or_null(object: &mut Object<'_>, name: &str, count: Option<u64>) {
    match count {
        Some(count) => object.u64(name, count),
        None => object.raw(name, "null"),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_speed_is_a_tier() {
        for (json, tier) in [
            (r#"{"service_tier":"standard","speed":"fast"}"#, Some("fast")),
            (r#"{"service_tier":"standard","speed":"standard"}"#, Some("default")),
            (r#"{"service_tier":"priority"}"#, Some("priority")),
            (r#"{"speed":7}"#, None),
        ] {
            let fields = Fields::lenient(json, "").expect("an object");
            assert_eq!(service_tier(&fields).as_deref(), tier, "{json}");
        }
        let mut out = BytesMut::new();
        let mut usage = Object::begin(&mut out);
        write_tier(&mut usage, Some("fast"));
        usage.end();
        assert_eq!(out, r#"{"service_tier":"standard","speed":"fast"}"#);
    }

    #[test]
    fn absent_counts_stay_unknown_and_zeros_stay_zero() {
        let read = |text: &str| usage(&Fields::lenient(text, "").expect("an object"));
        let found =
            read(r#"{"input_tokens":30,"cache_read_input_tokens":0,"cache_creation_input_tokens":null}"#);
        assert_eq!((found.input_uncached, found.cache_read, found.cache_write), (Some(30), Some(0), None));
        let found = read(
            r#"{"cache_creation_input_tokens":10,"cache_creation":{"ephemeral_5m_input_tokens":4,"ephemeral_1h_input_tokens":6}}"#,
        );
        assert_eq!((found.cache_write, found.cache_write_1h, found.output_total), (Some(4), Some(6), None));
        assert_eq!(found.tier, None);
        for (json, tier) in [
            (r#"{"output_tokens":1,"speed":"fast"}"#, Tier::Fast),
            (r#"{"output_tokens":1,"service_tier":"standard"}"#, Tier::Standard),
            (r#"{"output_tokens":1,"service_tier":"priority"}"#, Tier::Priority),
            (r#"{"output_tokens":1,"service_tier":"unheard_of"}"#, Tier::Other),
        ] {
            assert_eq!(read(json).tier, Some(tier), "{json}");
        }
    }

    #[test]
    fn what_was_written_for_an_hour_counts_once() {
        let told = |reports: &[&str]| {
            let mut known = Usage::default();
            for report in reports {
                update(&mut known, &Fields::lenient(report, "").expect("an object"));
            }
            (known.cache_write, known.cache_write_1h, known.input_total(), known.output_total)
        };
        let first = r#"{"input_tokens":3,"cache_creation_input_tokens":100,"cache_creation":{"ephemeral_5m_input_tokens":40,"ephemeral_1h_input_tokens":60},"output_tokens":1}"#;
        let last = r#"{"input_tokens":3,"cache_creation_input_tokens":100,"output_tokens":7}"#;
        assert_eq!(told(&[first, last]), (Some(40), Some(60), Some(103), Some(7)));
        assert_eq!(told(&[first, r#"{"output_tokens":7}"#]), (Some(40), Some(60), Some(103), Some(7)));
        // Only what stays for five minutes, which is no total.
        let split = r#"{"cache_creation":{"ephemeral_5m_input_tokens":40},"output_tokens":7}"#;
        assert_eq!(told(&[first, split]), (Some(40), Some(60), Some(103), Some(7)));
        assert_eq!(told(&[last, last]), (Some(100), None, Some(103), Some(7)));
    }
}
