//! The words of the format, and the parts of what is written.

use std::borrow::Cow;

use base64::{
    Engine as _, alphabet,
    engine::{
        DecodePaddingMode,
        general_purpose::{GeneralPurpose, GeneralPurposeConfig},
    },
    prelude::BASE64_STANDARD,
};
use bytes::BytesMut;
use omniroute_wire::json_out::{self, Array, Object};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    ir::{FinishReason, Tier, Usage},
    json_in,
    shape::is_bare_carrier,
};

/// What stands in the place of a signature that nobody knows any more:
/// <https://ai.google.dev/gemini-api/docs/thought-signatures>.
pub(super) const SKIP_SIGNATURE: &str = "skip_thought_signature_validator";

/// How the gateway's own signatures look in the slot, which is for bytes.
const CARRIER_AS_BASE64: &str = "b21yMS";

/// Clients write what was bytes to them in either alphabet, with or without padding.
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// A signature as it is written into the slot.
pub(super) fn to_slot(signature: &str) -> Cow<'_, str> {
    if is_bare_carrier(signature) {
        Cow::Owned(BASE64_STANDARD.encode(signature))
    } else {
        Cow::Borrowed(signature)
    }
}

/// The signature that a client's slot holds.
pub(super) fn from_slot(slot: &str) -> Cow<'_, str> {
    if !slot.starts_with(CARRIER_AS_BASE64) {
        return Cow::Borrowed(slot);
    }
    let bytes = STANDARD.decode(slot).or_else(|_| URL_SAFE.decode(slot)).ok();
    let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    match text.filter(|text| is_bare_carrier(text)) {
        Some(text) => Cow::Owned(text),
        None => Cow::Borrowed(slot),
    }
}

/// A part as it is written.
#[derive(Debug, Clone)]
pub(super) enum PartOut<'a> {
    Text { text: Cow<'a, str>, signature: Option<Cow<'a, str>> },
    Thought { text: &'a str },
    Blob { media_type: Cow<'a, str>, data: &'a str, resolution: Option<&'static str> },
    FileUri { uri: &'a str, media_type: Option<&'static str> },
    Call(CallOut<'a>),
    Result(ResultOut<'a>),
    Raw(&'a RawValue),
}

/// A call as it is written.
#[derive(Debug, Clone)]
pub(super) struct CallOut<'a> {
    pub(super) id: Option<Cow<'a, str>>,
    pub(super) name: &'a str,
    pub(super) args: Cow<'a, RawValue>,
    pub(super) signature: Option<Cow<'a, str>>,
}

/// A call's result as it is written.
#[derive(Debug, Clone)]
pub(super) struct ResultOut<'a> {
    pub(super) id: Option<Cow<'a, str>>,
    pub(super) name: &'a str,
    pub(super) is_error: bool,
    pub(super) value: ValueOut<'a>,
    /// Pictures and documents.
    pub(super) media: Vec<PartOut<'a>>,
}

/// What a tool said.
#[derive(Debug, Clone)]
pub(super) enum ValueOut<'a> {
    Text(Cow<'a, str>),
    Json(String),
}

impl<'a> PartOut<'a> {
    /// A text without a signature.
    pub(super) fn text(text: impl Into<Cow<'a, str>>) -> Self {
        Self::Text { text: text.into(), signature: None }
    }

    /// A place for a signature whose part is not there.
    pub(super) fn bare_signature(signature: Cow<'a, str>) -> Self {
        Self::Text { text: Cow::Borrowed(""), signature: Some(signature) }
    }

    /// Appends the part.
    pub(super) fn write(&self, out: &mut BytesMut) {
        if let Self::Raw(raw) = self {
            out.extend_from_slice(raw.get().as_bytes());
            return;
        }
        let mut part = Object::begin(out);
        match self {
            Self::Raw(_) => {}
            Self::Text { text, signature } => {
                part.str("text", text)
                    .opt_str("thoughtSignature", signature.as_deref().map(to_slot).as_deref());
            }
            Self::Thought { text } => {
                part.str("text", text).bool("thought", true);
            }
            Self::Blob { media_type, data, resolution } => {
                let mut blob = part.object("inlineData");
                blob.str("mimeType", media_type).str("data", data);
                blob.end();
                if let Some(level) = resolution {
                    let mut resolution = part.object("mediaResolution");
                    resolution.str("level", level);
                    resolution.end();
                }
            }
            Self::FileUri { uri, media_type } => {
                let mut file = part.object("fileData");
                file.opt_str("mimeType", *media_type).str("fileUri", uri);
                file.end();
            }
            Self::Call(call) => {
                let mut function = part.object("functionCall");
                function.opt_str("id", call.id.as_deref()).str("name", call.name);
                function.raw("args", call.args.get());
                function.end();
                part.opt_str("thoughtSignature", call.signature.as_deref().map(to_slot).as_deref());
            }
            Self::Result(result) => {
                let mut function = part.object("functionResponse");
                function.opt_str("id", result.id.as_deref()).str("name", result.name);
                let mut response = function.object("response");
                let name = if result.is_error { "error" } else { "output" };
                match &result.value {
                    ValueOut::Text(text) => response.str(name, text),
                    ValueOut::Json(json) => response.raw(name, json),
                };
                response.end();
                if !result.media.is_empty() {
                    write_parts(function.array("parts"), &result.media);
                }
                function.end();
            }
        }
        part.end();
    }
}

/// Writes parts and closes the list.
pub(super) fn write_parts(mut list: Array<'_>, parts: &[PartOut<'_>]) {
    for part in parts {
        part.write(list.element());
    }
    list.end();
}

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// In a way that other dialects know.
    Reason(FinishReason),
    /// The model produced something that is no answer.
    Failed,
}

/// How an answer ended; a word from the future counts as an ordinary end. `None` while it goes on.
pub(super) fn end_of(word: &str) -> Option<End> {
    Some(match word {
        "" | "FINISH_REASON_UNSPECIFIED" => return None,
        "MAX_TOKENS" => End::Reason(FinishReason::Length),
        "SAFETY"
        | "RECITATION"
        | "BLOCKLIST"
        | "PROHIBITED_CONTENT"
        | "SPII"
        | "IMAGE_SAFETY"
        | "IMAGE_PROHIBITED_CONTENT"
        | "IMAGE_RECITATION"
        | "MODEL_ARMOR" => End::Reason(FinishReason::ContentFilter),
        "MALFORMED_FUNCTION_CALL"
        | "MALFORMED_RESPONSE"
        | "UNEXPECTED_TOOL_CALL"
        | "TOO_MANY_TOOL_CALLS"
        | "MISSING_THOUGHT_SIGNATURE" => End::Failed,
        _ => End::Reason(FinishReason::Stop),
    })
}

/// Why an answer ended, in the format's word.
pub(super) fn finish_word(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop | FinishReason::StopSequence | FinishReason::ToolUse | FinishReason::Pause => {
            "STOP"
        }
        FinishReason::Length | FinishReason::ContextWindow => "MAX_TOKENS",
        FinishReason::ContentFilter => "SAFETY",
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct UsageIn<'a> {
    #[serde(borrow)]
    prompt_token_count: Option<&'a RawValue>,
    #[serde(borrow)]
    cached_content_token_count: Option<&'a RawValue>,
    #[serde(borrow)]
    candidates_token_count: Option<&'a RawValue>,
    #[serde(borrow)]
    thoughts_token_count: Option<&'a RawValue>,
    #[serde(borrow)]
    tool_use_prompt_token_count: Option<&'a RawValue>,
    #[serde(borrow)]
    total_token_count: Option<&'a RawValue>,
    #[serde(borrow)]
    prompt_tokens_details: Option<&'a RawValue>,
    #[serde(borrow)]
    candidates_tokens_details: Option<&'a RawValue>,
    #[serde(borrow)]
    service_tier: Option<&'a RawValue>,
    #[serde(borrow)]
    traffic_type: Option<&'a RawValue>,
}

/// Reads usage; members that are absent or no numbers stay unknown.
pub(crate) fn usage(raw: &str) -> Usage {
    let Ok(found) = serde_json::from_str::<UsageIn<'_>>(raw) else { return Usage::default() };
    let count = |raw: Option<&RawValue>| raw.and_then(json_in::count_of);
    let prompt = count(found.prompt_token_count);
    let cached = count(found.cached_content_token_count);
    let tools = count(found.tool_use_prompt_token_count);
    let candidates = count(found.candidates_token_count);
    let thoughts = count(found.thoughts_token_count);
    let total = count(found.total_token_count);
    let input = prompt.unwrap_or(0).saturating_add(tools.unwrap_or(0));
    let output_total = match (candidates, thoughts) {
        // Zeros are left out: what the total leaves over tells whether there was any output yet.
        (None, None) => total.and_then(|total| total.checked_sub(input)),
        // Some in between count the thoughts among the rest: the total tells.
        (Some(candidates), Some(thoughts))
            if thoughts > 0 && total == Some(input.saturating_add(candidates)) =>
        {
            Some(candidates)
        }
        (candidates, thoughts) => Some(candidates.unwrap_or(0).saturating_add(thoughts.unwrap_or(0))),
    };
    Usage {
        input_uncached: (prompt.is_some() || tools.is_some())
            .then(|| input.saturating_sub(cached.unwrap_or(0))),
        cache_read: cached,
        audio_input: found.prompt_tokens_details.and_then(audio),
        output_total,
        reasoning: thoughts,
        audio_output: found.candidates_tokens_details.and_then(audio),
        // The second is how Google's cloud says it.
        tier: found
            .service_tier
            .or(found.traffic_type)
            .and_then(json_in::str_of)
            .and_then(|word| Tier::of_answer(&word)),
        ..Usage::default()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Modality<'a> {
    #[serde(borrow, default)]
    modality: Cow<'a, str>,
    #[serde(borrow)]
    token_count: Option<&'a RawValue>,
}

/// The audio tokens among these.
fn audio(details: &RawValue) -> Option<u64> {
    let details: Vec<Modality<'_>> = serde_json::from_str(details.get()).ok()?;
    let audio = details.into_iter().find(|detail| detail.modality == "AUDIO")?;
    audio.token_count.and_then(json_in::count_of)
}

/// Writes usage. What is not known is estimated: clients of the dialect count with it.
pub(super) fn write_usage(out: &mut BytesMut, usage: &Usage, estimated_input: u64, estimated_output: u64) {
    let input = usage.input_total().unwrap_or(estimated_input);
    let output = usage.output_total.unwrap_or(estimated_output);
    let mut object = Object::begin(out);
    object.u64("promptTokenCount", input).opt_u64("cachedContentTokenCount", usage.cache_read);
    object.u64("candidatesTokenCount", output.saturating_sub(usage.reasoning.unwrap_or(0)));
    object.opt_u64("thoughtsTokenCount", usage.reasoning);
    object.u64("totalTokenCount", input.saturating_add(output));
    for (name, tokens) in
        [("promptTokensDetails", usage.audio_input), ("candidatesTokensDetails", usage.audio_output)]
    {
        if let Some(tokens) = tokens.filter(|tokens| *tokens > 0) {
            let mut list = object.array(name);
            let mut detail = list.object();
            detail.str("modality", "AUDIO").u64("tokenCount", tokens);
            detail.end();
            list.end();
        }
    }
    object.end();
}

/// Whether a client wants one word of a list instead of JSON (`text/x.enum`). Others answer with a JSON string.
pub(super) fn wants_bare_word(request: &[u8]) -> bool {
    memchr::memmem::find(request, b"\"text/x.enum\"").is_some()
}

/// The word in a JSON string; any other text as it is.
pub(super) fn bare_word(text: &str) -> Cow<'_, str> {
    let raw: Option<&RawValue> = serde_json::from_str(text.trim()).ok();
    raw.and_then(json_in::str_of).unwrap_or(Cow::Borrowed(text))
}

/// A JSON string as bytes.
pub(super) fn quoted(text: &str) -> bytes::Bytes {
    let mut out = BytesMut::with_capacity(text.len() + 2);
    json_out::string(&mut out, text);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carriers_are_bytes_in_the_slot() {
        let carrier = "omr1.eyJvIjoiYW50aHJvcGljIn0.0123abcd";
        let slot = to_slot(carrier);
        assert!(slot.starts_with(CARRIER_AS_BASE64));
        assert_eq!(from_slot(&slot), carrier);
        let url_safe = slot.replace('+', "-").replace('/', "_");
        assert_eq!(from_slot(url_safe.trim_end_matches('=')), carrier);
        for native in ["U0lH", "b21yMS", SKIP_SIGNATURE, ""] {
            assert_eq!((&*to_slot(native), &*from_slot(native)), (native, native));
        }
    }

    #[test]
    fn a_word_is_told_from_other_text() {
        for (given, expected) in
            [(" \"red\\n\"\n", "red\n"), ("red", "red"), ("\"red", "\"red"), ("{}", "{}"), ("", "")]
        {
            assert_eq!(bare_word(given), expected);
        }
        assert!(wants_bare_word(br#"{"responseMimeType": "text/x.enum"}"#) && !wants_bare_word(b"x.enum"));
    }

    #[test]
    fn thoughts_count_once() {
        // (uncached, read, output, reasoning)
        for (given, expected) in [
            (
                r#"{"promptTokenCount":100,"cachedContentTokenCount":60,"candidatesTokenCount":20,"thoughtsTokenCount":0,"totalTokenCount":120}"#,
                (Some(40), Some(60), Some(20), Some(0)),
            ),
            (
                r#"{"promptTokenCount":10,"candidatesTokenCount":5,"thoughtsTokenCount":7,"totalTokenCount":22}"#,
                (Some(10), None, Some(12), Some(7)),
            ),
            (
                r#"{"promptTokenCount":10,"candidatesTokenCount":12,"thoughtsTokenCount":7,"totalTokenCount":22}"#,
                (Some(10), None, Some(12), Some(7)),
            ),
            (
                r#"{"promptTokenCount":10,"toolUsePromptTokenCount":4,"candidatesTokenCount":5,"totalTokenCount":19}"#,
                (Some(14), None, Some(5), None),
            ),
            (r#"{"promptTokenCount":10,"totalTokenCount":10}"#, (Some(10), None, Some(0), None)),
            (
                r#"{"promptTokenCount":10,"thoughtsTokenCount":7,"totalTokenCount":17}"#,
                (Some(10), None, Some(7), Some(7)),
            ),
            (r#"{"promptTokenCount":"x"}"#, (None, None, None, None)),
            ("[]", (None, None, None, None)),
        ] {
            let found = usage(given);
            let found = (found.input_uncached, found.cache_read, found.output_total, found.reasoning);
            assert_eq!(found, expected, "{given}");
        }
        let found = usage(
            r#"{"promptTokensDetails":[{"modality":"TEXT","tokenCount":1},{"modality":"AUDIO","tokenCount":9}]}"#,
        );
        assert_eq!(found.audio_input, Some(9));
    }
}
