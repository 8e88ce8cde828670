//! The words of the format: what upstreams send, read leniently, and what both directions share.

use std::{borrow::Cow, time::Duration};

use bytes::BytesMut;
use omniroute_wire::{
    envelope::as_str,
    json_out::{Array, Object},
};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    Echo, arguments, ids,
    ir::{FinishReason, Logprob, ToolCall, Usage},
    json_in::{self, Fields, count_of, list_of},
    logprobs,
};

/// A line of a stream or a whole answer. Leaves stay raw: servers disagree about their types.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Line<'a> {
    #[serde(borrow)]
    pub(super) model: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) created_at: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) message: Option<Message<'a>>,
    /// The text of a completion, which has no message around it, and its reasoning.
    #[serde(borrow)]
    pub(super) response: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) thinking: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) done: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) done_reason: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) prompt_eval_count: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) eval_count: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) error: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) logprobs: Option<&'a RawValue>,
}

/// A message, or a piece of one.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub(super) struct Message<'a> {
    #[serde(borrow)]
    pub(super) content: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) thinking: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) images: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) tool_calls: Option<&'a RawValue>,
}

impl<'a> Line<'a> {
    /// Whether it is the last.
    pub(super) fn is_done(&self) -> bool {
        self.done.is_some_and(|done| done.get() == "true")
    }

    /// What is said, in either form.
    pub(super) fn said(&self) -> Option<Message<'a>> {
        let is_completion = self.response.is_some() || self.thinking.is_some();
        let completion = Message { content: self.response, thinking: self.thinking, ..Message::default() };
        self.message.or_else(|| is_completion.then_some(completion))
    }

    /// Whether it tells of a failure.
    pub(super) fn is_error(&self) -> bool {
        self.error.is_some_and(|error| !matches!(error.get(), "null" | "{}" | "\"\"" | "false"))
    }

    /// The upstream's name of the model.
    pub(super) fn model(&self) -> Cow<'a, str> {
        self.model.and_then(text_of).unwrap_or_default()
    }

    /// When the upstream wrote it, in its own words.
    pub(super) fn stamp(&self) -> Cow<'a, str> {
        self.created_at.and_then(text_of).unwrap_or_default()
    }

    /// The word for why the answer ended.
    pub(super) fn reason(&self) -> Cow<'a, str> {
        self.done_reason.and_then(text_of).unwrap_or_default()
    }

    /// How probable the tokens of the text were.
    pub(super) fn logprobs(&self) -> Vec<Logprob> {
        self.logprobs.map(logprobs::read).unwrap_or_default()
    }

    /// What was used. A prompt that the server had in its memory is not counted, so zeros may be left out.
    pub(super) fn usage(&self) -> Usage {
        Usage {
            input_uncached: self.prompt_eval_count.and_then(count_of),
            output_total: self.eval_count.and_then(count_of),
            ..Usage::default()
        }
    }
}

impl<'a> Message<'a> {
    /// The text for the reader.
    pub(super) fn text(&self) -> Option<Cow<'a, str>> {
        self.content.and_then(text_of).filter(|text| !text.is_empty())
    }

    /// The reasoning.
    pub(super) fn thought(&self) -> Option<Cow<'a, str>> {
        self.thinking.and_then(text_of).filter(|text| !text.is_empty())
    }

    /// Pictures, base64.
    pub(super) fn pictures(&self) -> impl Iterator<Item = Cow<'a, str>> {
        let list = self.images.and_then(list_of).unwrap_or_default();
        list.into_iter().filter_map(text_of).filter(|data| !data.is_empty())
    }

    /// The tool calls as they came.
    pub(super) fn calls(&self) -> Vec<&'a RawValue> {
        self.tool_calls.and_then(list_of).unwrap_or_default()
    }

    /// Whether there is anything in it for a reader.
    pub(super) fn is_meaningful(&self) -> bool {
        self.text().is_some()
            || self.thought().is_some()
            || self.tool_calls.is_some_and(|calls| calls.get().starts_with("[{"))
            || self.images.is_some_and(|images| images.get().starts_with("[\""))
    }
}

/// A raw value that is a string.
pub(super) fn text_of(raw: &RawValue) -> Option<Cow<'_, str>> {
    as_str(raw.get())
}

/// The `n`th call of an answer. One without an id gets one that depends on the call alone and on when it was made, so
/// that reading it again gives the same. `None` for a call without a name.
pub(super) fn call(raw: &RawValue, n: usize, stamp: &str) -> Option<ToolCall> {
    let call = Fields::lenient(raw.get(), "").ok()?;
    let function = call.object_or_none("function")?;
    let text = |fields: &Fields<'_>, name| fields.raw(name).and_then(json_in::str_of).map(Cow::into_owned);
    let name = text(&function, "name").filter(|name| !name.trim().is_empty())?;
    let arguments = call_arguments(&function);
    let id = match text(&call, "id").filter(|id| !id.is_empty()) {
        Some(id) => id,
        None => ids::invented_call_id(&format!("{stamp} {arguments}"), n, &name),
    };
    Some(ToolCall { id, name, arguments })
}

/// The arguments of a function as JSON text. They are an object; some clients and servers send its text.
pub(super) fn call_arguments(function: &Fields<'_>) -> String {
    let text = function.raw("arguments").map_or_else(String::new, |raw| match json_in::str_of(raw) {
        Some(text) => text.into_owned(),
        None => json_in::compact(raw.get()),
    });
    if text.trim().is_empty() { "{}".to_owned() } else { text }
}

/// Why an answer ended.
pub(super) fn finish_reason(word: &str, called: bool) -> FinishReason {
    match word {
        "length" => FinishReason::Length,
        _ if called => FinishReason::ToolUse,
        _ => FinishReason::Stop,
    }
}

/// The word for why an answer ended; the format has two.
pub(super) fn done_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Length | FinishReason::ContextWindow => "length",
        FinishReason::Stop
        | FinishReason::StopSequence
        | FinishReason::ToolUse
        | FinishReason::ContentFilter
        | FinishReason::Pause => "stop",
    }
}

/// Appends the calls of a message; `first` is the place of the first one in the answer.
pub(super) fn write_calls<'c>(out: &mut BytesMut, first: u64, calls: impl Iterator<Item = &'c ToolCall>) {
    let mut list = Array::begin(out);
    for (index, call) in (first..).zip(calls) {
        let mut object = list.object();
        object.str("id", &ids::tool_call_id(&call.id));
        let mut function = object.object("function");
        function.u64("index", index).str("name", &call.name);
        function.raw("arguments", arguments::object(&call.arguments).object.get());
        function.end();
        object.end();
    }
    list.end();
}

/// When an answer was made, in nanoseconds where it is told at all.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Times {
    /// From the arrival of the request to the upstream's call.
    pub(super) asked: Option<Duration>,
    /// From the arrival of the request to the first piece of the answer, or the head of one that came whole.
    pub(super) first: Option<Duration>,
    /// From the arrival of the request to the end.
    pub(super) end: Option<Duration>,
    /// Whether the answer came whole: then nobody knows when it was begun, and both times are all that it took.
    pub(super) whole: bool,
}

/// Writes the members that close an answer. What was not measured is left out.
pub(super) fn write_end(
    object: &mut Object<'_>,
    reason: FinishReason,
    times: &Times,
    prompt_tokens: u64,
    output_tokens: u64,
) {
    object.bool("done", true).str("done_reason", done_reason(reason));
    let since = |later: Option<Duration>, earlier: Option<Duration>| Some(later?.saturating_sub(earlier?));
    object.opt_u64("total_duration", times.end.map(nanos));
    object.opt_u64("load_duration", times.asked.map(nanos));
    object.u64("prompt_eval_count", prompt_tokens);
    object.opt_u64("prompt_eval_duration", since(times.first, times.asked).map(nanos));
    object.u64("eval_count", output_tokens);
    let begun = times.first.filter(|_| !times.whole).or(times.asked);
    object.opt_u64("eval_duration", since(times.end, begun).map(nanos));
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Appends a time as RFC 3339 in UTC to the millisecond: the request's arrival and what passed since.
pub(super) fn write_stamp(out: &mut BytesMut, echo: &Echo, since_arrival: Duration) {
    let arrived = u64::try_from(echo.created).unwrap_or(0).saturating_mul(1000);
    let passed = u64::try_from(since_arrival.as_millis()).unwrap_or(u64::MAX);
    let millis = arrived.saturating_add(u64::from(echo.created_millis)).saturating_add(passed).min(LAST);
    let (days, millis) = (millis / DAY, millis % DAY);
    let (year, month, day) = date(days);
    let mut put = |number: u64, width: u32, behind: u8| {
        for digit in (0..width).rev() {
            // A remainder of ten is a digit.
            out.extend_from_slice(&[b'0' + (number / 10_u64.pow(digit) % 10) as u8]);
        }
        out.extend_from_slice(&[behind]);
    };
    put(year, 4, b'-');
    put(month, 2, b'-');
    put(day, 2, b'T');
    put(millis / 3_600_000, 2, b':');
    put(millis / 60_000 % 60, 2, b':');
    put(millis / 1000 % 60, 2, b'.');
    put(millis % 1000, 3, b'Z');
}

const DAY: u64 = 24 * 3_600_000;
/// The last millisecond of the year 9999.
const LAST: u64 = 253_402_300_799_999;

/// Year, month and day of a day since 1970-01-01: Gregorian, in cycles of 400 years that begin on a first of March.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (cycle, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let in_month = day - (153 * month + 2) / 5 + 1;
    let (year, month) = if month < 10 { (year, month + 3) } else { (year + 1, month - 9) };
    (cycle * 400 + year, month, in_month)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_dates() {
        for (created, millis, passed, expected) in [
            (0, 0, 0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, 123, 0, "2000-02-29T00:00:00.123Z"),
            (951_868_799, 999, 1, "2000-03-01T00:00:00.000Z"),
            (1_709_164_800, 7, 86_400_000, "2024-03-01T00:00:00.007Z"),
            (1_798_761_599, 0, 1500, "2027-01-01T00:00:00.500Z"),
            (4_107_542_399, 0, 1000, "2100-03-01T00:00:00.000Z"),
            (-5, 0, 0, "1970-01-01T00:00:00.000Z"),
            (i64::MAX, 0, u64::MAX, "9999-12-31T23:59:59.999Z"),
        ] {
            let echo = Echo { created, created_millis: millis, ..Echo::default() };
            let mut out = BytesMut::new();
            write_stamp(&mut out, &echo, Duration::from_millis(passed));
            assert_eq!(out, expected, "{created}");
        }
    }

    #[test]
    fn calls_without_an_id_get_one_that_does_not_change() {
        let raw = |text: &str| serde_json::from_str::<Box<RawValue>>(text).unwrap();
        let given = raw(r#"{"function":{"name":"f","arguments":{ "x" : 1.0 }}}"#);
        let read = call(&given, 0, "t1").unwrap();
        assert_eq!((read.name.as_str(), read.arguments.as_str()), ("f", r#"{"x":1.0}"#));
        assert_eq!(read.id, call(&given, 0, "t1").unwrap().id);
        assert!(read.id.starts_with("call_0_"));
        assert_ne!(read.id, call(&given, 1, "t1").unwrap().id);
        assert_ne!(read.id, call(&given, 0, "t2").unwrap().id);
        let named = call(&raw(r#"{"id":"c","function":{"name":"f","arguments":"{}"}}"#), 0, "").unwrap();
        assert_eq!((named.id.as_str(), named.arguments.as_str()), ("c", "{}"));
        assert!(call(&raw(r#"{"function":{"name":" "}}"#), 0, "").is_none());
        assert_eq!(call(&raw(r#"{"function":{"name":"f"}}"#), 0, "").unwrap().arguments, "{}");
    }
}
