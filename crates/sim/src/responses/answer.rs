//! Answers in Responses.

use bytes::{Bytes, BytesMut};
use omniroute_wire::json_out::Object;

use crate::{
    ask::Ask,
    dialect::Answer,
    frame::Event,
    refusal::Refusal,
    reply::{Call, Finish, Tokens},
    responses::error,
    script::UsageScript,
    signature::{self, Kind},
    stage::Ids,
};

/// Members of the request that the answer repeats, and what it says where the request says nothing.
const ECHOED: &[(&str, &str)] = &[
    ("instructions", "null"),
    ("max_output_tokens", "null"),
    ("max_tool_calls", "null"),
    ("parallel_tool_calls", "true"),
    ("previous_response_id", "null"),
    ("prompt_cache_key", "null"),
    ("reasoning", r#"{"effort":null,"summary":null}"#),
    ("safety_identifier", "null"),
    ("store", "true"),
    ("temperature", "1.0"),
    ("text", r#"{"format":{"type":"text"}}"#),
    ("tool_choice", r#""auto""#),
    ("tools", "[]"),
    ("top_logprobs", "0"),
    ("top_p", "1.0"),
    ("truncation", r#""disabled""#),
    ("user", "null"),
    ("metadata", "{}"),
];

/// How far an answer is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage<'a> {
    Begun,
    Ended,
    Failed(&'a Refusal),
}

/// The answer as one document.
pub(crate) fn whole(answer: &Answer<'_>) -> Bytes {
    let mut out = BytesMut::with_capacity(2048 + answer.reply.text.len());
    response(&mut out, answer, Stage::Ended, answer.script.usage != UsageScript::Never);
    out.freeze()
}

/// The answer as the events of a stream.
pub(crate) fn events(answer: &Answer<'_>) -> Vec<Event> {
    let mut writer = Writer { answer, events: Vec::new(), items: 0 };
    let early = matches!(answer.script.usage, UsageScript::Early | UsageScript::Every);
    writer.response("response.created", Stage::Begun, false);
    writer.response("response.in_progress", Stage::Begun, early);
    if answer.reply.thoughts.is_some() {
        writer.reasoning();
    }
    if has_message(answer) {
        writer.message();
    }
    writer.calls();
    let last = if end(answer).1.is_some() { "response.incomplete" } else { "response.completed" };
    writer.response(
        last,
        Stage::Ended,
        !matches!(answer.script.usage, UsageScript::Never | UsageScript::Early),
    );
    writer.events
}

/// The event that ends a stream in which something went wrong.
pub(crate) fn failed(refusal: &Refusal, answer: &Answer<'_>, sent: usize) -> Event {
    let mut out = BytesMut::with_capacity(1024);
    let mut event = Object::begin(&mut out);
    event.str("type", "response.failed");
    response(event.key("response"), answer, Stage::Failed(refusal), false);
    event.u64("sequence_number", sent as u64);
    event.end();
    Event { name: Some("response.failed"), data: out.freeze(), content: false }
}

/// The answer to a question for the number of tokens.
pub(crate) fn count(ask: &Ask) -> Bytes {
    let mut out = BytesMut::with_capacity(64);
    let mut document = Object::begin(&mut out);
    document.str("object", "response.input_tokens").u64("input_tokens", ask.prompt_tokens());
    document.end();
    out.freeze()
}

/// The id of the `reasoning` item without which an item with this id is not complete.
pub(crate) fn required_reasoning(id: &str) -> Option<String> {
    let digits = id.strip_prefix("fc_r").or_else(|| id.strip_prefix("ctc_r"))?.strip_prefix("sim")?;
    Some(reasoning_id(Ids(digits.get(..15)?.parse().ok()?)))
}

struct Writer<'a> {
    answer: &'a Answer<'a>,
    events: Vec<Event>,
    /// Number of items that were begun.
    items: u64,
}

impl Writer<'_> {
    fn event(&mut self, name: &'static str, content: bool, fill: impl FnOnce(&mut Object<'_>)) {
        let mut out = BytesMut::with_capacity(256);
        let mut event = Object::begin(&mut out);
        event.str("type", name);
        fill(&mut event);
        event.u64("sequence_number", self.events.len() as u64);
        event.end();
        self.events.push(Event { name: Some(name), data: out.freeze(), content });
    }

    fn response(&mut self, name: &'static str, stage: Stage<'_>, with_usage: bool) {
        let answer = self.answer;
        self.event(name, false, |event| response(event.key("response"), answer, stage, with_usage));
    }

    /// Begins or ends an item.
    fn item(&mut self, name: &'static str, index: u64, fill: impl FnOnce(&mut Object<'_>)) {
        self.event(name, false, |event| {
            event.u64("output_index", index);
            let mut item = event.object("item");
            fill(&mut item);
            item.end();
        });
    }

    /// Something about a part of an item.
    fn part(
        &mut self,
        name: &'static str,
        content: bool,
        place: (&str, u64, &str),
        fill: impl FnOnce(&mut Object<'_>),
    ) {
        let (id, index, part) = place;
        self.event(name, content, |event| {
            event.str("item_id", id).u64("output_index", index);
            if !part.is_empty() {
                event.u64(part, 0);
            }
            fill(event);
        });
    }

    fn next(&mut self) -> u64 {
        self.items += 1;
        self.items - 1
    }

    fn reasoning(&mut self) {
        let (answer, index) = (self.answer, self.next());
        let id = reasoning_id(answer.ids);
        self.item("response.output_item.added", index, |item| {
            item.str("id", &id).str("type", "reasoning").raw("summary", "[]");
        });
        if let Some(thoughts) = answer.reply.shown() {
            let place = (id.as_str(), index, "summary_index");
            let summary = |event: &mut Object<'_>, text: &str| {
                let mut part = event.object("part");
                part.str("type", "summary_text").str("text", text);
                part.end();
            };
            self.part("response.reasoning_summary_part.added", false, place, |event| summary(event, ""));
            for piece in thoughts.split_inclusive(' ') {
                self.part("response.reasoning_summary_text.delta", true, place, |event| {
                    event.str("delta", piece);
                });
            }
            self.part("response.reasoning_summary_text.done", false, place, |event| {
                event.str("text", thoughts);
            });
            self.part("response.reasoning_summary_part.done", false, place, |event| summary(event, thoughts));
        }
        self.item("response.output_item.done", index, |item| reasoning_item(item, answer));
    }

    fn message(&mut self) {
        let (answer, index) = (self.answer, self.next());
        let id = answer.ids.answer("msg_");
        self.item("response.output_item.added", index, |item| {
            message_item(item, answer, "in_progress", false);
        });
        let place = (id.as_str(), index, "content_index");
        let refused = answer.reply.finish == Finish::Refused;
        self.part("response.content_part.added", false, place, |event| {
            content_part(event.object("part"), refused, "");
        });
        let (delta, done, field) = if refused {
            ("response.refusal.delta", "response.refusal.done", "refusal")
        } else {
            ("response.output_text.delta", "response.output_text.done", "text")
        };
        let pieces: Vec<&str> = answer.reply.pieces(answer.script.chunks);
        for piece in pieces {
            self.part(delta, true, place, |event| {
                event.str("delta", piece);
                if !refused {
                    event.raw("logprobs", "[]");
                }
            });
        }
        self.part(done, false, place, |event| {
            event.str(field, &answer.reply.text);
            if !refused {
                event.raw("logprobs", "[]");
            }
        });
        self.part("response.content_part.done", false, place, |event| {
            content_part(event.object("part"), refused, &answer.reply.text);
        });
        self.item("response.output_item.done", index, |item| {
            message_item(item, answer, item_status(answer), true);
        });
    }

    fn calls(&mut self) {
        let answer = self.answer;
        let begun: Vec<(u64, &Call)> = if answer.script.interleaved {
            answer
                .reply
                .calls
                .iter()
                .enumerate()
                .map(|(position, call)| (self.begin(position), call))
                .collect()
        } else {
            Vec::new()
        };
        if begun.is_empty() {
            for (position, call) in answer.reply.calls.iter().enumerate() {
                let index = self.begin(position);
                for piece in call.fragments(answer.script) {
                    self.fragment(position, index, piece);
                }
                self.finish(position, index);
            }
            return;
        }
        let mut rows: Vec<_> =
            begun.iter().map(|(_, call)| call.fragments(answer.script).into_iter()).collect();
        let mut left = true;
        while left {
            left = false;
            for (position, row) in rows.iter_mut().enumerate() {
                if let Some(piece) = row.next() {
                    self.fragment(position, begun[position].0, piece);
                    left = true;
                }
            }
        }
        for (position, (index, _)) in begun.iter().enumerate() {
            self.finish(position, *index);
        }
    }

    fn begin(&mut self, position: usize) -> u64 {
        let (answer, index) = (self.answer, self.next());
        self.item("response.output_item.added", index, |item| {
            call_item(item, answer, position, "in_progress", "");
        });
        index
    }

    fn fragment(&mut self, position: usize, index: u64, piece: &str) {
        let call = &self.answer.reply.calls[position];
        let name = if call.free_text {
            "response.custom_tool_call_input.delta"
        } else {
            "response.function_call_arguments.delta"
        };
        let id = item_id(self.answer, position);
        self.part(name, true, (&id, index, ""), |event| {
            event.str("delta", piece);
        });
    }

    fn finish(&mut self, position: usize, index: u64) {
        let answer = self.answer;
        let call = &answer.reply.calls[position];
        let (name, field) = if call.free_text {
            ("response.custom_tool_call_input.done", "input")
        } else {
            ("response.function_call_arguments.done", "arguments")
        };
        let id = item_id(answer, position);
        self.part(name, false, (&id, index, ""), |event| {
            event.str(field, &call.arguments);
        });
        self.item("response.output_item.done", index, |item| {
            call_item(item, answer, position, "completed", &call.arguments);
        });
    }
}

/// The response itself.
fn response(out: &mut BytesMut, answer: &Answer<'_>, stage: Stage<'_>, with_usage: bool) {
    let Answer { ask, reply, ids, .. } = *answer;
    let (status, reason) = match stage {
        Stage::Begun => ("in_progress", None),
        Stage::Ended => end(answer),
        Stage::Failed(_) => ("failed", None),
    };
    let mut response = Object::begin(out);
    response.str("id", &ids.answer("resp_")).str("object", "response").u64("created_at", ids.created());
    response.str("status", status).bool("background", false);
    match stage {
        Stage::Failed(refusal) => {
            let mut error = response.object("error");
            error.str("code", error::code(refusal)).str("message", &refusal.message);
            error.end();
        }
        Stage::Begun | Stage::Ended => {
            response.raw("error", "null");
        }
    }
    match reason {
        Some(reason) => {
            let mut details = response.object("incomplete_details");
            details.str("reason", reason);
            details.end();
        }
        None => {
            response.raw("incomplete_details", "null");
        }
    }
    response.str("model", &ask.model).str("service_tier", "default");
    for (name, default) in ECHOED {
        match ask.echo.get(*name).filter(|value| !value.is_null()) {
            Some(value) => response.raw(name, &value.to_string()),
            None => response.raw(name, default),
        };
    }
    let mut output = response.array("output");
    if stage == Stage::Ended {
        if reply.thoughts.is_some() {
            let mut item = output.object();
            reasoning_item(&mut item, answer);
            item.end();
        }
        if has_message(answer) {
            let mut item = output.object();
            message_item(&mut item, answer, item_status(answer), true);
            item.end();
        }
        for (position, call) in reply.calls.iter().enumerate() {
            let mut item = output.object();
            call_item(&mut item, answer, position, "completed", &call.arguments);
            item.end();
        }
    }
    output.end();
    if with_usage {
        usage(response.key("usage"), reply.usage);
    } else {
        response.raw("usage", "null");
    }
    response.end();
}

/// The status at the end, and why it is not a good one.
fn end(answer: &Answer<'_>) -> (&'static str, Option<&'static str>) {
    match answer.reply.finish {
        Finish::Stop | Finish::StopSequence(_) | Finish::Tools | Finish::Refused => ("completed", None),
        Finish::Length => ("incomplete", Some("max_output_tokens")),
        Finish::Filtered | Finish::Blocked => ("incomplete", Some("content_filter")),
    }
}

fn item_status(answer: &Answer<'_>) -> &'static str {
    end(answer).0
}

fn has_message(answer: &Answer<'_>) -> bool {
    answer.reply.calls.is_empty() && answer.reply.finish != Finish::Blocked
}

fn reasoning_id(ids: Ids) -> String {
    ids.call("rs_", 0)
}

/// Ids of calls that thoughts led to say so, as the vendor remembers it.
fn item_id(answer: &Answer<'_>, position: usize) -> String {
    let free_text = answer.reply.calls.get(position).is_some_and(|call| call.free_text);
    let prefix = match (free_text, answer.reply.thoughts.is_some()) {
        (false, false) => "fc_",
        (false, true) => "fc_r",
        (true, false) => "ctc_",
        (true, true) => "ctc_r",
    };
    answer.ids.call(prefix, position)
}

fn reasoning_item(item: &mut Object<'_>, answer: &Answer<'_>) {
    let id = reasoning_id(answer.ids);
    item.str("id", &id).str("type", "reasoning");
    let mut summary = item.array("summary");
    if let Some(thoughts) = answer.reply.shown() {
        let mut part = summary.object();
        part.str("type", "summary_text").str("text", thoughts);
        part.end();
    }
    summary.end();
    if answer.ask.encrypted {
        item.str("encrypted_content", &signature::issue(Kind::Reasoning, answer.ids, &[&id]));
    }
}

fn message_item(item: &mut Object<'_>, answer: &Answer<'_>, status: &str, with_text: bool) {
    item.str("id", &answer.ids.answer("msg_")).str("type", "message").str("status", status);
    let mut content = item.array("content");
    if with_text {
        content_part(content.object(), answer.reply.finish == Finish::Refused, &answer.reply.text);
    }
    content.end();
    item.str("role", "assistant");
}

fn content_part(mut part: Object<'_>, refused: bool, text: &str) {
    if refused {
        part.str("type", "refusal").str("refusal", text);
    } else {
        part.str("type", "output_text").raw("annotations", "[]").raw("logprobs", "[]").str("text", text);
    }
    part.end();
}

fn call_item(item: &mut Object<'_>, answer: &Answer<'_>, position: usize, status: &str, arguments: &str) {
    let call = &answer.reply.calls[position];
    let (kind, field) =
        if call.free_text { ("custom_tool_call", "input") } else { ("function_call", "arguments") };
    item.str("id", &item_id(answer, position)).str("type", kind).str("status", status);
    item.str("call_id", &answer.ids.call("call_", position)).str("name", &call.name).str(field, arguments);
}

fn usage(out: &mut BytesMut, usage: Tokens) {
    let mut object = Object::begin(out);
    object.u64("input_tokens", usage.prompt);
    let mut input = object.object("input_tokens_details");
    input.u64("cached_tokens", usage.cached).u64("cache_write_tokens", 0);
    input.end();
    object.u64("output_tokens", usage.output);
    let mut output = object.object("output_tokens_details");
    output.u64("reasoning_tokens", usage.reasoning);
    output.end();
    object.u64("total_tokens", usage.prompt + usage.output);
    object.end();
}
