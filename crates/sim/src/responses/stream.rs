//! Answers in Responses, as events.

use bytes::BytesMut;
use omniroute_wire::json_out::Object;

use crate::{
    dialect::Answer,
    frame::Event,
    refusal::Refusal,
    reply::{Call, Finish},
    responses::answer::{
        Stage, call_item, content_part, end, has_message, item_id, item_status, message_item, reasoning_id,
        reasoning_item, response,
    },
    script::UsageScript,
};

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
