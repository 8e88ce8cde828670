//! Answers in Chat Completions.

use bytes::{Bytes, BytesMut};
use omniroute_wire::json_out::Object;

use crate::{
    ask::Ask,
    dialect::Answer,
    frame::Event,
    reply::{Call, Finish, Reply, Tokens, thirds},
    script::UsageScript,
    stage::Ids,
};

/// The answer as one document.
pub(crate) fn whole(answer: &Answer<'_>) -> Bytes {
    let Answer { script, ask, reply, ids } = *answer;
    let mut out = BytesMut::with_capacity(512 + reply.text.len());
    let mut document = Object::begin(&mut out);
    envelope(&mut document, "chat.completion", ask, ids);
    let mut choices = document.array("choices");
    for index in 0..ask.answers {
        let mut choice = choices.object();
        choice.u64("index", index as u64);
        let mut message = choice.object("message");
        message.str("role", "assistant");
        message.str_or_null("content", reply.calls.is_empty().then_some(&reply.text));
        message.raw("refusal", "null");
        message.opt_str("reasoning_content", reply.reasoning);
        if !reply.calls.is_empty() {
            let mut calls = message.array("tool_calls");
            for (position, call) in reply.calls.iter().enumerate() {
                let mut object = calls.object();
                object.str("id", &ids.call("call_", index * 100 + position));
                named(&mut object, call, &call.arguments);
                object.end();
            }
            calls.end();
        }
        message.raw("annotations", "[]");
        message.end();
        choice.raw("logprobs", "null").str("finish_reason", finish(reply));
        choice.end();
    }
    choices.end();
    if script.usage != UsageScript::Never {
        usage(document.key("usage"), times(reply.usage, ask.answers));
    }
    document.str("service_tier", "default");
    document.end();
    out.freeze()
}

/// The answer as the events of a stream.
pub(crate) fn events(answer: &Answer<'_>) -> Vec<Event> {
    let Answer { script, ask, reply, ids } = *answer;
    let mut writer = Writer {
        ask,
        ids,
        nulls: ask.include_usage && script.usage != UsageScript::Never,
        events: Vec::new(),
    };
    for index in 0..ask.answers {
        writer.chunk(index, false, None, |delta| {
            delta.str("role", "assistant");
            delta.str_or_null("content", reply.calls.is_empty().then_some(""));
            delta.raw("refusal", "null");
        });
        for piece in reply.reasoning.iter().flat_map(|thoughts| thoughts.split_inclusive(' ')) {
            writer.chunk(index, true, None, |delta| {
                delta.str("reasoning_content", piece);
            });
        }
        for piece in reply.pieces(script.chunks) {
            writer.chunk(index, true, None, |delta| {
                delta.str("content", piece);
            });
        }
        for (position, call) in reply.calls.iter().enumerate() {
            let id = ids.call("call_", index * 100 + position);
            writer.chunk(index, true, None, |delta| {
                tool_call(delta, position, |object| {
                    object.str("id", &id);
                    named(object, call, "");
                });
            });
            for piece in thirds(&call.arguments) {
                writer.chunk(index, true, None, |delta| {
                    tool_call(delta, position, |object| {
                        let (group, field) = group(call);
                        let mut inner = object.object(group);
                        inner.str(field, piece);
                        inner.end();
                    });
                });
            }
        }
        if script.usage == UsageScript::Early && index + 1 == ask.answers {
            writer.usage(times(reply.usage, ask.answers));
        }
        writer.chunk(index, false, Some(finish(reply)), |_| {});
    }
    if ask.include_usage && script.usage == UsageScript::Normal {
        writer.usage(times(reply.usage, ask.answers));
    }
    let mut events = writer.events;
    events.push(Event { name: None, data: Bytes::from_static(b"[DONE]"), content: false });
    events
}

struct Writer<'a> {
    ask: &'a Ask,
    ids: Ids,
    /// Chunks say that usage comes later.
    nulls: bool,
    events: Vec<Event>,
}

impl Writer<'_> {
    fn chunk(
        &mut self,
        index: usize,
        content: bool,
        finish: Option<&str>,
        fill: impl FnOnce(&mut Object<'_>),
    ) {
        let nulls = self.nulls;
        self.event(content, |chunk| {
            let mut choices = chunk.array("choices");
            let mut choice = choices.object();
            choice.u64("index", index as u64);
            let mut delta = choice.object("delta");
            fill(&mut delta);
            delta.end();
            choice.raw("logprobs", "null").str_or_null("finish_reason", finish);
            choice.end();
            choices.end();
            if nulls {
                chunk.raw("usage", "null");
            }
        });
    }

    fn usage(&mut self, tokens: Tokens) {
        self.event(false, |chunk| {
            chunk.raw("choices", "[]");
            usage(chunk.key("usage"), tokens);
        });
    }

    fn event(&mut self, content: bool, fill: impl FnOnce(&mut Object<'_>)) {
        let mut out = BytesMut::with_capacity(256);
        let mut chunk = Object::begin(&mut out);
        envelope(&mut chunk, "chat.completion.chunk", self.ask, self.ids);
        fill(&mut chunk);
        chunk.end();
        self.events.push(Event { name: None, data: out.freeze(), content });
    }
}

fn envelope(document: &mut Object<'_>, object: &str, ask: &Ask, ids: Ids) {
    document.str("id", &ids.answer("chatcmpl-"));
    document.str("object", object);
    document.u64("created", ids.created());
    document.str("model", &ask.model);
}

fn tool_call(delta: &mut Object<'_>, position: usize, fill: impl FnOnce(&mut Object<'_>)) {
    let mut calls = delta.array("tool_calls");
    let mut object = calls.object();
    object.u64("index", position as u64);
    fill(&mut object);
    object.end();
    calls.end();
}

fn named(object: &mut Object<'_>, call: &Call, arguments: &str) {
    let (group, field) = group(call);
    object.str("type", group);
    let mut inner = object.object(group);
    inner.str("name", &call.name).str(field, arguments);
    inner.end();
}

fn group(call: &Call) -> (&'static str, &'static str) {
    if call.free_text { ("custom", "input") } else { ("function", "arguments") }
}

fn finish(reply: &Reply) -> &'static str {
    match reply.finish {
        Finish::Stop | Finish::StopSequence(_) => "stop",
        Finish::Length => "length",
        Finish::Tools => "tool_calls",
    }
}

fn times(usage: Tokens, answers: usize) -> Tokens {
    let answers = answers as u64;
    Tokens { output: usage.output * answers, reasoning: usage.reasoning * answers, ..usage }
}

fn usage(out: &mut BytesMut, usage: Tokens) {
    let mut object = Object::begin(out);
    object
        .u64("prompt_tokens", usage.prompt)
        .u64("completion_tokens", usage.output)
        .u64("total_tokens", usage.prompt + usage.output);
    let mut prompt = object.object("prompt_tokens_details");
    prompt.u64("cached_tokens", usage.cached).u64("audio_tokens", 0);
    prompt.end();
    let mut completion = object.object("completion_tokens_details");
    completion
        .u64("reasoning_tokens", usage.reasoning)
        .u64("audio_tokens", 0)
        .u64("accepted_prediction_tokens", 0)
        .u64("rejected_prediction_tokens", 0);
    completion.end();
    object.end();
}
