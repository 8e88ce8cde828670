//! Answers in Chat Completions.

use bytes::{Bytes, BytesMut};
use omniroute_wire::json_out::Object;

use crate::{
    ask::Ask,
    dialect::Answer,
    frame::Event,
    reply::{Call, Finish, Reply, Tokens},
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
        message.str_or_null("content", said(reply));
        message.str_or_null("refusal", (reply.finish == Finish::Refused).then_some(&reply.text));
        message.opt_str("reasoning_content", reply.shown());
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
        reply,
        ids,
        nulls: ask.include_usage && matches!(script.usage, UsageScript::Normal | UsageScript::Early),
        every: script.usage == UsageScript::Every,
        written: 0,
        events: Vec::new(),
    };
    for index in 0..ask.answers {
        writer.chunk(index, 0, |delta| {
            delta.str("role", "assistant");
            delta.str_or_null("content", said(reply).map(|_| ""));
            delta.raw("refusal", "null");
        });
        for piece in reply.shown().iter().flat_map(|thoughts| thoughts.split_inclusive(' ')) {
            writer.chunk(index, piece.len(), |delta| {
                delta.str("reasoning_content", piece);
            });
        }
        let field = if reply.finish == Finish::Refused { "refusal" } else { "content" };
        for piece in reply.pieces(script.chunks) {
            writer.chunk(index, piece.len(), |delta| {
                delta.str(field, piece);
            });
        }
        let mut rows: Vec<_> = reply.calls.iter().map(|call| call.fragments(script).into_iter()).collect();
        for (position, call) in reply.calls.iter().enumerate() {
            let id = ids.call("call_", index * 100 + position);
            writer.chunk(index, call.name.len(), |delta| {
                tool_call(delta, position, |object| {
                    object.str("id", &id);
                    named(object, call, "");
                });
            });
            if !script.interleaved {
                rows[position].by_ref().for_each(|piece| writer.fragment(index, position, piece));
            }
        }
        let mut left = true;
        while left {
            left = false;
            for (position, row) in rows.iter_mut().enumerate() {
                if let Some(piece) = row.next() {
                    writer.fragment(index, position, piece);
                    left = true;
                }
            }
        }
        let last = index + 1 == ask.answers;
        let total = times(reply.usage, ask.answers);
        if script.usage == UsageScript::Early && last {
            writer.usage(total);
        }
        let with = matches!(script.usage, UsageScript::Finish | UsageScript::Every) && last;
        writer.choice(index, false, Some(finish(reply)), with.then_some(total), |_| {});
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
    reply: &'a Reply,
    ids: Ids,
    /// Chunks say that usage comes later.
    nulls: bool,
    /// Chunks say how much was used so far.
    every: bool,
    /// Bytes of the answer so far.
    written: usize,
    events: Vec<Event>,
}

impl Writer<'_> {
    /// A piece of so many bytes; the head of an answer has none and counts as no piece.
    fn chunk(&mut self, index: usize, length: usize, fill: impl FnOnce(&mut Object<'_>)) {
        self.written += length;
        let output = (self.written.div_ceil(4) as u64).min(self.reply.usage.output);
        let running = Tokens { output, reasoning: 0, ..self.reply.usage };
        self.choice(index, length > 0, None, self.every.then_some(running), fill);
    }

    /// More of a call's arguments.
    fn fragment(&mut self, index: usize, position: usize, piece: &str) {
        let (group, field) = group(&self.reply.calls[position]);
        self.chunk(index, piece.len(), |delta| {
            tool_call(delta, position, |object| {
                let mut inner = object.object(group);
                inner.str(field, piece);
                inner.end();
            });
        });
    }

    fn choice(
        &mut self,
        index: usize,
        content: bool,
        finish: Option<&str>,
        tokens: Option<Tokens>,
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
            match tokens {
                Some(tokens) => usage(chunk.key("usage"), tokens),
                None if nulls => {
                    chunk.raw("usage", "null");
                }
                None => {}
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

/// The text, where there is to be one.
fn said(reply: &Reply) -> Option<&str> {
    match reply.finish {
        Finish::Tools | Finish::Refused | Finish::Blocked => None,
        Finish::Stop | Finish::StopSequence(_) | Finish::Length | Finish::Filtered => Some(&reply.text),
    }
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
        Finish::Stop | Finish::StopSequence(_) | Finish::Refused => "stop",
        Finish::Length => "length",
        Finish::Tools => "tool_calls",
        Finish::Filtered | Finish::Blocked => "content_filter",
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
