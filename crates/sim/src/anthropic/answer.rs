//! Answers in Messages.

use bytes::{Bytes, BytesMut};
use omniroute_wire::json_out::Object;

use crate::{
    ask::Ask,
    dialect::Answer,
    frame::Event,
    reply::{Finish, Reply, Thoughts, Tokens},
    script::{Arguments, UsageScript},
    signature::{self, Kind},
    stage::Ids,
};

/// The answer as one document.
pub(crate) fn whole(answer: &Answer<'_>) -> Bytes {
    let Answer { script, ask, reply, ids } = *answer;
    let mut out = BytesMut::with_capacity(512 + reply.text.len());
    let mut document = Object::begin(&mut out);
    document.str("id", &ids.answer("msg_")).str("type", "message").str("role", "assistant");
    document.str("model", &ask.model);
    let mut content = document.array("content");
    match reply.thoughts {
        None => {}
        Some(Thoughts::Redacted) => {
            let mut block = content.object();
            redacted(&mut block, ids);
            block.end();
        }
        Some(Thoughts::Shown(_) | Thoughts::Hidden) => {
            let thoughts = reply.shown().unwrap_or_default();
            let mut block = content.object();
            block.str("type", "thinking").str("thinking", thoughts);
            block.str("signature", &signature::issue(Kind::Thinking, ids, &[thoughts]));
            block.end();
        }
    }
    if !reply.text.is_empty() {
        let mut block = content.object();
        block.str("type", "text").str("text", &reply.text);
        block.end();
    }
    for (position, call) in reply.calls.iter().enumerate() {
        let mut block = content.object();
        block.str("type", "tool_use").str("id", &ids.call("toolu_", position)).str("name", &call.name);
        block.raw("input", if call.arguments.is_empty() { "{}" } else { &call.arguments });
        block.end();
    }
    content.end();
    stop(&mut document, reply);
    if script.usage != UsageScript::Never {
        usage(document.key("usage"), reply.usage, reply.usage.output, ask.fast);
    }
    document.end();
    out.freeze()
}

/// The answer as the events of a stream.
pub(crate) fn events(answer: &Answer<'_>) -> Vec<Event> {
    let Answer { script, ask, reply, ids } = *answer;
    let mut writer = Writer::default();
    writer.event("message_start", false, |event| {
        let mut message = event.object("message");
        message.str("id", &ids.answer("msg_")).str("type", "message").str("role", "assistant");
        message.str("model", &ask.model).raw("content", "[]");
        message.raw("stop_reason", "null").raw("stop_sequence", "null");
        match script.usage {
            UsageScript::Normal | UsageScript::Every => usage(message.key("usage"), reply.usage, 1, ask.fast),
            UsageScript::Early => usage(message.key("usage"), reply.usage, reply.usage.output, ask.fast),
            UsageScript::Finish => usage(message.key("usage"), Tokens::default(), 0, ask.fast),
            UsageScript::Never => {}
        }
        message.end();
    });
    match reply.thoughts {
        None => {}
        Some(Thoughts::Redacted) => {
            writer.start(|block| redacted(block, ids));
            writer.stop();
        }
        Some(Thoughts::Shown(_) | Thoughts::Hidden) => {
            let thoughts = reply.shown().unwrap_or_default();
            writer.start(|block| {
                block.str("type", "thinking").str("thinking", "").str("signature", "");
            });
            for piece in thoughts.split_inclusive(' ') {
                writer.delta(true, "thinking_delta", "thinking", piece);
            }
            let signature = signature::issue(Kind::Thinking, ids, &[thoughts]);
            writer.delta(false, "signature_delta", "signature", &signature);
            writer.stop();
        }
    }
    if !reply.text.is_empty() {
        writer.start(|block| {
            block.str("type", "text").str("text", "");
        });
        for piece in reply.pieces(script.chunks) {
            writer.delta(true, "text_delta", "text", piece);
        }
        writer.stop();
    }
    for (position, call) in reply.calls.iter().enumerate() {
        writer.start(|block| {
            block.str("type", "tool_use").str("id", &ids.call("toolu_", position)).str("name", &call.name);
            block.raw("input", "{}");
        });
        if script.arguments != Arguments::None {
            writer.delta(true, "input_json_delta", "partial_json", "");
        }
        for piece in call.fragments(script) {
            writer.delta(true, "input_json_delta", "partial_json", piece);
        }
        writer.stop();
    }
    writer.event("message_delta", false, |event| {
        let mut delta = event.object("delta");
        stop(&mut delta, reply);
        delta.end();
        if !matches!(script.usage, UsageScript::Never | UsageScript::Early) {
            usage(event.key("usage"), reply.usage, reply.usage.output, ask.fast);
        }
    });
    writer.event("message_stop", false, |_| {});
    writer.events
}

/// The answer to a question for the number of tokens.
pub(crate) fn count(ask: &Ask) -> Bytes {
    let mut out = BytesMut::with_capacity(32);
    let mut document = Object::begin(&mut out);
    document.u64("input_tokens", ask.prompt_tokens());
    document.end();
    out.freeze()
}

#[derive(Default)]
struct Writer {
    events: Vec<Event>,
    /// Number of blocks that were started.
    blocks: u64,
}

impl Writer {
    fn event(&mut self, name: &'static str, content: bool, fill: impl FnOnce(&mut Object<'_>)) {
        let mut out = BytesMut::with_capacity(192);
        let mut event = Object::begin(&mut out);
        event.str("type", name);
        fill(&mut event);
        event.end();
        self.events.push(Event { name: Some(name), data: out.freeze(), content });
    }

    fn start(&mut self, fill: impl FnOnce(&mut Object<'_>)) {
        let index = self.blocks;
        self.blocks += 1;
        self.event("content_block_start", false, |event| {
            event.u64("index", index);
            let mut block = event.object("content_block");
            fill(&mut block);
            block.end();
        });
        if index == 0 {
            self.event("ping", false, |_| {});
        }
    }

    fn delta(&mut self, content: bool, kind: &str, field: &str, text: &str) {
        let index = self.blocks - 1;
        self.event("content_block_delta", content, |event| {
            event.u64("index", index);
            let mut delta = event.object("delta");
            delta.str("type", kind).str(field, text);
            delta.end();
        });
    }

    fn stop(&mut self) {
        let index = self.blocks - 1;
        self.event("content_block_stop", false, |event| {
            event.u64("index", index);
        });
    }
}

fn stop(object: &mut Object<'_>, reply: &Reply) {
    let (reason, sequence) = match &reply.finish {
        Finish::Stop => ("end_turn", None),
        Finish::StopSequence(sequence) => ("stop_sequence", Some(sequence.as_str())),
        Finish::Length => ("max_tokens", None),
        Finish::Tools => ("tool_use", None),
        Finish::Refused | Finish::Filtered | Finish::Blocked => ("refusal", None),
    };
    object.str("stop_reason", reason).str_or_null("stop_sequence", sequence);
    if reason == "refusal" {
        let mut details = object.object("stop_details");
        details.str("type", "refusal").raw("category", "null");
        details.str("explanation", "The model's policies do not allow an answer to this.");
        details.end();
    }
}

fn usage(out: &mut BytesMut, usage: Tokens, output: u64, fast: bool) {
    let mut object = Object::begin(out);
    object
        .u64("input_tokens", usage.prompt - usage.cached)
        .u64("cache_creation_input_tokens", 0)
        .u64("cache_read_input_tokens", usage.cached)
        .u64("output_tokens", output)
        .str("service_tier", "standard")
        .opt_str("speed", fast.then_some("fast"));
    if usage.reasoning > 0 {
        let mut details = object.object("output_tokens_details");
        details.u64("thinking_tokens", usage.reasoning);
        details.end();
    }
    object.end();
}

fn redacted(block: &mut Object<'_>, ids: Ids) {
    block.str("type", "redacted_thinking").str("data", &signature::issue(Kind::Redacted, ids, &[]));
}
