//! The words of the format: what upstreams send, read leniently, and what both directions share.

use std::{borrow::Cow, fmt, marker::PhantomData};

use bytes::BytesMut;
use omniroute_wire::{
    envelope::as_str,
    json_out::{Array, Object},
    text::kind_of,
};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, SeqAccess, Visitor},
};
use serde_json::value::RawValue;
use smallvec::SmallVec;

use crate::{
    Echo, arguments,
    billed::billed_nano,
    error_text::shorten,
    ids,
    ir::{FinishReason, Logprob, Loss, ToolCall, UpstreamError, Usage},
    json_in::{Fields, count_of, list_of},
    logprobs,
};

/// A chunk of a stream or a whole answer. Leaves stay raw: upstreams disagree about their types.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Answer<'a> {
    #[serde(borrow)]
    pub(super) id: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) model: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) created: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) service_tier: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) choices: Option<Choices<'a>>,
    #[serde(borrow)]
    pub(super) usage: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) error: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) x_groq: Option<&'a RawValue>,
}

/// The first alternative, and how many there are.
#[derive(Debug, Default)]
pub(super) struct Choices<'a> {
    pub(super) first: Option<Choice<'a>>,
    pub(super) count: usize,
}

/// One alternative.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Choice<'a> {
    #[serde(borrow)]
    pub(super) index: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) delta: Option<Message<'a>>,
    #[serde(borrow)]
    pub(super) message: Option<Message<'a>>,
    #[serde(borrow)]
    pub(super) finish_reason: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) usage: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) logprobs: Option<&'a RawValue>,
}

/// A message, or a piece of one.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Message<'a> {
    #[serde(borrow)]
    pub(super) content: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) refusal: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) reasoning_content: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) reasoning: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) reasoning_details: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) thinking_blocks: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) tool_calls: Option<Few<Call<'a>>>,
    #[serde(borrow)]
    pub(super) function_call: Option<Function<'a>>,
    #[serde(borrow)]
    pub(super) audio: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) annotations: Option<&'a RawValue>,
}

/// A tool call, or a piece of one.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Call<'a> {
    #[serde(borrow)]
    pub(super) index: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) id: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) function: Option<Function<'a>>,
    #[serde(borrow)]
    pub(super) custom: Option<Custom<'a>>,
    #[serde(borrow)]
    pub(super) extra_content: Option<&'a RawValue>,
}

/// The tool of a call that takes free text.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Custom<'a> {
    #[serde(borrow)]
    pub(super) name: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) input: Option<&'a RawValue>,
}

/// The function of a call.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Function<'a> {
    #[serde(borrow)]
    pub(super) name: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) arguments: Option<&'a RawValue>,
}

/// A list that mostly has one element.
#[derive(Debug)]
pub(super) struct Few<T>(pub(super) SmallVec<[T; 1]>);

impl<'de: 'a, 'a> Deserialize<'de> for Choices<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List<'a>(PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for List<'a> {
            type Value = Choices<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of choices")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Choices<'a>, A::Error> {
                let mut choices = Choices::default();
                while choices.first.is_none() {
                    let Some(choice) = list.next_element::<Choice<'a>>()? else { return Ok(choices) };
                    choices.count += 1;
                    if choice.index.is_none_or(|index| index.get() == "0") {
                        choices.first = Some(choice);
                    }
                }
                while list.next_element::<IgnoredAny>()?.is_some() {
                    choices.count += 1;
                }
                Ok(choices)
            }
        }
        deserializer.deserialize_seq(List(PhantomData))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Few<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
            type Value = Few<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Few<T>, A::Error> {
                let mut few = SmallVec::new();
                while let Some(element) = list.next_element()? {
                    few.push(element);
                }
                Ok(Few(few))
            }
        }
        deserializer.deserialize_seq(List(PhantomData))
    }
}

impl Choice<'_> {
    /// How probable the tokens of the text were.
    pub(super) fn logprobs(&self) -> Vec<Logprob> {
        let fields = self.logprobs.and_then(|raw| Fields::lenient(raw.get(), "").ok());
        let content = fields.as_ref().and_then(|fields| fields.raw("content"));
        content.map(logprobs::read).unwrap_or_default()
    }
}

impl<'a> Message<'a> {
    /// The text of the content: a string, or the text parts of a list.
    pub(super) fn text(&self) -> Option<Cow<'a, str>> {
        let raw = self.content?;
        match raw.get().as_bytes().first() {
            Some(b'"') => as_str(raw.get()),
            Some(b'[') => Some(Cow::Owned(parts_text(raw, "text")?)),
            _ => None,
        }
        .filter(|text| !text.is_empty())
    }

    /// The reasoning text, under whichever of its names comes first.
    pub(super) fn thinking(&self) -> Option<Cow<'a, str>> {
        let named = [self.reasoning_content, self.reasoning];
        let text = named.into_iter().flatten().filter_map(text_of).find(|text| !text.is_empty());
        text.or_else(|| {
            if let Some(details) = self.reasoning_details.filter(|raw| raw.get().starts_with('[')) {
                return parts_text(details, "").map(Cow::Owned);
            }
            let parts = self.content.filter(|raw| raw.get().starts_with('['))?;
            parts_text(parts, "thinking").map(Cow::Owned)
        })
        .filter(|text| !text.is_empty())
    }

    /// Thinking as the vendor whose models sign has it, from proxies in front of those. Its text mostly stands in the other
    /// members too.
    pub(super) fn thinking_blocks(&self) -> Vec<ThinkingIn> {
        let list = self.thinking_blocks.and_then(list_of).unwrap_or_default();
        list.into_iter().filter_map(|raw| ThinkingIn::read(raw.get())).collect()
    }

    /// The refusal.
    pub(super) fn refused(&self) -> Option<Cow<'a, str>> {
        self.refusal.and_then(text_of).filter(|text| !text.is_empty())
    }

    /// Whether there is anything in it for a reader.
    pub(super) fn is_meaningful(&self) -> bool {
        self.text().is_some()
            || self.refused().is_some()
            || self.tool_calls.as_ref().is_some_and(|calls| !calls.0.is_empty())
            || self.function_call.is_some()
            || self.audio.is_some()
            || self.thinking().is_some()
            || !self.thinking_blocks().is_empty()
    }
}

/// One of `thinking_blocks`, or a piece of one.
#[derive(Debug)]
pub(super) enum ThinkingIn {
    /// Either may be empty.
    Text { text: String, signature: String },
    /// What only its origin can read.
    Redacted(String),
}

impl ThinkingIn {
    fn read(raw: &str) -> Option<Self> {
        let block = Fields::lenient(raw, "").ok()?;
        let word = |name| block.raw(name).and_then(text_of).unwrap_or_default().into_owned();
        if word("type") == "redacted_thinking" {
            let data = word("data");
            return (!data.is_empty()).then_some(Self::Redacted(data));
        }
        let (text, signature) = (word("thinking"), word("signature"));
        (!text.is_empty() || !signature.is_empty()).then_some(Self::Text { text, signature })
    }
}

impl Call<'_> {
    /// The signature that Google gives with a call and wants back with it.
    pub(super) fn signature(&self) -> Option<String> {
        call_signature(&Fields::lenient(self.extra_content?.get(), "").ok()?)
    }
}

/// The signature among what a vendor adds to a call.
pub(super) fn call_signature(extra_content: &Fields<'_>) -> Option<String> {
    let signature = extra_content.object_or_none("google")?.raw("thought_signature").and_then(text_of)?;
    (!signature.is_empty()).then(|| signature.into_owned())
}

/// Records what else a vendor added to a call.
pub(super) fn note_unknown_extra(extra_content: &Fields<'_>, losses: &mut Vec<Loss>) {
    extra_content.note_unlisted(&["google"], losses);
    if let Some(google) = extra_content.object_or_none("google") {
        google.note_unlisted(&["thought_signature"], losses);
    }
}

/// A call as it is written.
pub(super) struct CallOut<'a> {
    pub(super) call: &'a ToolCall,
    /// Whether its tool takes free text.
    pub(super) custom: bool,
    /// What is given back with it.
    pub(super) signature: Option<&'a str>,
}

/// Appends calls as a list.
pub(super) fn write_calls<'c>(out: &mut BytesMut, calls: impl Iterator<Item = &'c CallOut<'c>>) {
    let mut list = Array::begin(out);
    for CallOut { call, custom, signature } in calls {
        let mut object = list.object();
        object.str("id", &ids::tool_call_id(&call.id));
        if *custom {
            object.str("type", "custom");
            let mut tool = object.object("custom");
            tool.str("name", &call.name).str("input", &arguments::free_text(&call.arguments));
            tool.end();
        } else {
            object.str("type", "function");
            let mut function = object.object("function");
            let nothing = call.arguments.trim().is_empty();
            function.str("name", &call.name);
            function.str("arguments", if nothing { "{}" } else { &call.arguments });
            function.end();
        }
        if let Some(signature) = signature {
            write_signature(&mut object, signature);
        }
        object.end();
    }
    list.end();
}

/// Writes the log probabilities of a text, given as the elements of their list.
pub(super) fn write_logprobs(out: &mut BytesMut, tokens: &[u8]) {
    out.extend_from_slice(b"{\"content\":[");
    out.extend_from_slice(tokens);
    out.extend_from_slice(b"],\"refusal\":null}");
}

/// Writes a signature where Google has those of calls.
pub(super) fn write_signature(call: &mut Object<'_>, signature: &str) {
    let mut extra = call.object("extra_content");
    let mut google = extra.object("google");
    google.str("thought_signature", signature);
    google.end();
    extra.end();
}

impl<'a> Function<'a> {
    /// The arguments as JSON text; some upstreams send the object itself.
    pub(super) fn arguments(&self) -> Cow<'a, str> {
        match self.arguments {
            Some(raw) => as_str(raw.get()).unwrap_or(Cow::Borrowed(raw.get())),
            None => Cow::Borrowed(""),
        }
    }
}

/// The texts of `reasoning_details` in a row.
pub(super) fn detail_texts(details: &RawValue) -> Option<String> {
    if details.get().starts_with('[') { parts_text(details, "") } else { None }
}

/// A raw value that is a string.
pub(super) fn text_of(raw: &RawValue) -> Option<Cow<'_, str>> {
    as_str(raw.get())
}

/// The texts of the parts of one type (of all, when it is empty) in a row.
fn parts_text(list: &RawValue, wanted: &str) -> Option<String> {
    let mut joined = String::new();
    for part in list_of(list)? {
        let Ok(fields) = Fields::lenient(part.get(), "") else { continue };
        let is_wanted =
            wanted.is_empty() || fields.str("type").is_ok_and(|kind| kind.as_deref() == Some(wanted));
        if !is_wanted {
            continue;
        }
        for name in ["text", "thinking"] {
            let Some(raw) = fields.raw(name) else { continue };
            match kind_of(raw.get()) {
                "a string" => joined.push_str(&text_of(raw).unwrap_or_default()),
                "an array" => joined.push_str(&parts_text(raw, "text").unwrap_or_default()),
                _ => {}
            }
        }
    }
    (!joined.is_empty()).then_some(joined)
}

/// Why an answer ended that has a refusal in it: the usual end of one is no end of an answer elsewhere.
pub(super) fn with_refusal(reason: FinishReason) -> FinishReason {
    if reason == FinishReason::Stop { FinishReason::ContentFilter } else { reason }
}

/// Reads why an answer ended. `called` tells whether it has tool calls.
pub(super) fn finish_reason(word: &str, called: bool) -> FinishReason {
    match word {
        "length" | "max_tokens" | "model_length" => FinishReason::Length,
        "content_filter" | "safety" | "refusal" => FinishReason::ContentFilter,
        _ if called => FinishReason::ToolUse,
        _ => FinishReason::Stop,
    }
}

/// The failure that an answer ended with: some upstreams have no other place for one.
pub(super) fn failed_end(word: &str) -> Option<UpstreamError> {
    let is_malformed = word.to_ascii_lowercase().contains("malformed_function_call");
    if word != "error" && !is_malformed {
        return None;
    }
    Some(UpstreamError {
        status: Some(502),
        code: is_malformed.then(|| "malformed_tool_call".to_owned()),
        message: format!("the upstream ended the answer with finish_reason `{}`", shorten(word)),
        ..UpstreamError::default()
    })
}

/// The word for why an answer ended.
pub(super) fn finish_word(reason: FinishReason, legacy: bool) -> &'static str {
    match reason {
        FinishReason::Stop | FinishReason::StopSequence | FinishReason::Pause => "stop",
        FinishReason::ToolUse if legacy => "function_call",
        FinishReason::ToolUse => "tool_calls",
        FinishReason::Length | FinishReason::ContextWindow => "length",
        FinishReason::ContentFilter => "content_filter",
    }
}

/// Reads usage in any of its spellings. The prompt count contains what was read from and written to caches.
pub(super) fn usage(raw: &RawValue) -> Usage {
    let Ok(fields) = Fields::lenient(raw.get(), "") else { return Usage::default() };
    let count = |fields: &Fields<'_>, name| fields.raw(name).and_then(count_of);
    let [prompts, completions] =
        ["prompt_tokens_details", "completion_tokens_details"].map(|name| fields.object_or_none(name));
    let inner = |group: &Option<Fields<'_>>, name| group.as_ref().and_then(|group| count(group, name));
    let prompt = count(&fields, "prompt_tokens");
    let completion = count(&fields, "completion_tokens");
    let cache_read = inner(&prompts, "cached_tokens")
        .or_else(|| count(&fields, "prompt_cache_hit_tokens"))
        .or_else(|| count(&fields, "cache_read_input_tokens"));
    let cache_write = inner(&prompts, "cache_write_tokens")
        .or_else(|| inner(&prompts, "cache_creation_tokens"))
        .or_else(|| count(&fields, "cache_creation_input_tokens"));
    let reasoning = inner(&completions, "reasoning_tokens");
    let cached = cache_read.unwrap_or(0).saturating_add(cache_write.unwrap_or(0));
    // Some upstreams count reasoning beside the completion; their total tells.
    let beside = match (prompt, completion, reasoning, count(&fields, "total_tokens")) {
        (Some(prompt), Some(completion), Some(reasoning), Some(total)) if reasoning > 0 => {
            prompt.checked_add(completion).and_then(|sum| sum.checked_add(reasoning)) == Some(total)
        }
        _ => false,
    };
    Usage {
        input_uncached: prompt.map(|prompt| prompt.saturating_sub(cached)),
        cache_read,
        cache_write,
        cache_write_1h: None,
        audio_input: inner(&prompts, "audio_tokens"),
        output_total: if beside {
            completion.map(|completion| completion.saturating_add(reasoning.unwrap_or(0)))
        } else {
            completion
        },
        reasoning,
        audio_output: inner(&completions, "audio_tokens"),
        billed_nano: billed_nano(&fields),
        tier: None,
    }
}

/// All tokens of a usage, to find the most complete of several reports.
pub(super) fn total(usage: &Usage) -> u64 {
    usage.input_total().unwrap_or(0).saturating_add(usage.output_total.unwrap_or(0))
}

/// What was used; where the upstream does not tell, an estimate from so many bytes of output.
pub(super) fn known_or_estimated(usage: Usage, echo: &Echo, output_bytes: u64) -> Usage {
    if usage.is_known() {
        return usage;
    }
    Usage {
        input_uncached: Some(echo.estimated_input_tokens),
        output_total: Some(output_bytes.div_ceil(4)),
        ..usage
    }
}

/// Appends usage as a value.
pub(super) fn write_usage(out: &mut BytesMut, usage: &Usage) {
    let prompt = usage.input_total().unwrap_or(0);
    let completion = usage.output_total.unwrap_or(0);
    let mut object = Object::begin(out);
    object.u64("prompt_tokens", prompt).u64("completion_tokens", completion);
    object.u64("total_tokens", prompt.saturating_add(completion));
    let written = match (usage.cache_write, usage.cache_write_1h) {
        (None, None) => None,
        (short, long) => Some(short.unwrap_or(0).saturating_add(long.unwrap_or(0))),
    };
    if usage.cache_read.is_some() || written.is_some() || usage.audio_input.is_some() {
        let mut details = object.object("prompt_tokens_details");
        details.opt_u64("cached_tokens", usage.cache_read).opt_u64("cache_write_tokens", written);
        details.opt_u64("audio_tokens", usage.audio_input);
        details.end();
    }
    if usage.reasoning.is_some() || usage.audio_output.is_some() {
        let mut details = object.object("completion_tokens_details");
        details.opt_u64("reasoning_tokens", usage.reasoning).opt_u64("audio_tokens", usage.audio_output);
        details.end();
    }
    object.end();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Usage {
        usage(serde_json::from_str(json).unwrap())
    }

    #[test]
    fn cache_tokens_are_part_of_the_prompt_and_absent_is_not_zero() {
        let known = read(
            r#"{"prompt_tokens":100,"completion_tokens":20,"total_tokens":120,
                "prompt_tokens_details":{"cached_tokens":60,"cache_write_tokens":10}}"#,
        );
        assert_eq!(known.input_uncached, Some(30));
        assert_eq!(known.input_total(), Some(100));
        let partly = read(r#"{"prompt_tokens":100,"prompt_tokens_details":{"cached_tokens":60}}"#);
        assert_eq!((partly.input_uncached, partly.cache_write, partly.output_total), (Some(40), None, None));
        let zero = read(r#"{"prompt_tokens":8,"prompt_tokens_details":{"cached_tokens":0}}"#);
        assert_eq!(zero.cache_read, Some(0));
        let mut out = BytesMut::new();
        write_usage(&mut out, &zero);
        assert_eq!(
            out,
            r#"{"prompt_tokens":8,"completion_tokens":0,"total_tokens":8,"prompt_tokens_details":{"cached_tokens":0}}"#
        );
        assert_eq!(read("null"), Usage::default());
    }

    #[test]
    fn other_spellings_are_known() {
        assert_eq!(read(r#"{"prompt_tokens":9,"prompt_cache_hit_tokens":4}"#).cache_read, Some(4));
        let proxied =
            read(r#"{"prompt_tokens":9,"cache_read_input_tokens":4,"cache_creation_input_tokens":2}"#);
        assert_eq!((proxied.input_uncached, proxied.cache_write), (Some(3), Some(2)));
        let beside = read(
            r#"{"prompt_tokens":10,"completion_tokens":5,"total_tokens":22,
                "completion_tokens_details":{"reasoning_tokens":7}}"#,
        );
        assert_eq!(beside.output_total, Some(12));
        let within = read(
            r#"{"prompt_tokens":10,"completion_tokens":12,"total_tokens":22,
                "completion_tokens_details":{"reasoning_tokens":7}}"#,
        );
        assert_eq!(within.output_total, Some(12));
    }

    #[test]
    fn reasoning_is_taken_once_whatever_it_is_called() {
        for json in [
            r#"{"reasoning_content":"a","reasoning":"a"}"#,
            r#"{"reasoning_content":"","reasoning":"a"}"#,
            r#"{"reasoning_details":[{"type":"reasoning.text","text":"a"}]}"#,
            r#"{"content":[{"type":"thinking","thinking":[{"type":"text","text":"a"}]},{"type":"text","text":"b"}]}"#,
        ] {
            let message: Message<'_> = serde_json::from_str(json).unwrap();
            assert_eq!(message.thinking().as_deref(), Some("a"), "{json}");
        }
    }
}
