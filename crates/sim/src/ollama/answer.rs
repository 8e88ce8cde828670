//! Answers of Ollama's chat, and of its completions.

use bytes::{Bytes, BytesMut};
use omniroute_wire::json_out::Object;

use crate::{
    dialect::Answer,
    frame::Event,
    reply::{Call, Finish},
    script::UsageScript,
};

/// Answers are the same every time.
pub(crate) const CREATED_AT: &str = "2025-01-01T00:00:00.123456789Z";
/// Nanoseconds that a token takes.
const PACE: u64 = 1_000_000;

/// The answer as one document.
pub(crate) fn whole(answer: &Answer<'_>) -> Bytes {
    let reply = answer.reply;
    if let Some(reason) = answer.ask.loads {
        return loaded(answer, reason);
    }
    line(answer, |line| {
        said(line, answer, &reply.text, reply.shown().unwrap_or_default(), &reply.calls);
        done(line, answer, answer.script.usage != UsageScript::Never);
    })
}

/// The answer as the lines of a stream.
pub(crate) fn events(answer: &Answer<'_>) -> Vec<Event> {
    let Answer { script, reply, .. } = *answer;
    if let Some(reason) = answer.ask.loads {
        return vec![Event { name: None, data: loaded(answer, reason), content: false }];
    }
    let mut events = Vec::new();
    let mut written = 0;
    let mut piece = |text: &str, thoughts: &str, calls: &[Call]| {
        written += text.len() + thoughts.len() + calls.iter().map(|call| call.arguments.len()).sum::<usize>();
        let data = line(answer, |line| {
            said(line, answer, text, thoughts, calls);
            line.bool("done", false);
            if script.usage == UsageScript::Every {
                let output = (written.div_ceil(4) as u64).min(reply.usage.output);
                line.u64("prompt_eval_count", reply.usage.prompt).u64("eval_count", output);
            }
        });
        events.push(Event { name: None, data, content: true });
    };
    for thoughts in reply.shown().iter().flat_map(|thoughts| thoughts.split_inclusive(' ')) {
        piece("", thoughts, &[]);
    }
    for text in reply.pieces(script.chunks) {
        piece(text, "", &[]);
    }
    // Calls are whole; each comes in a line of its own.
    for position in 0..reply.calls.len() {
        piece("", "", &reply.calls[position..=position]);
    }
    if script.usage == UsageScript::Early {
        let data = line(answer, |line| {
            said(line, answer, "", "", &[]);
            line.bool("done", false);
            counters(line, answer);
        });
        events.push(Event { name: None, data, content: false });
    }
    let data = line(answer, |line| {
        said(line, answer, "", "", &[]);
        done(line, answer, !matches!(script.usage, UsageScript::Never | UsageScript::Early));
    });
    events.push(Event { name: None, data, content: false });
    events
}

fn line(answer: &Answer<'_>, fill: impl FnOnce(&mut Object<'_>)) -> Bytes {
    let mut out = BytesMut::with_capacity(256);
    let mut line = Object::begin(&mut out);
    line.str("model", &answer.ask.model).str("created_at", CREATED_AT);
    fill(&mut line);
    line.end();
    out.freeze()
}

fn said(line: &mut Object<'_>, answer: &Answer<'_>, text: &str, thoughts: &str, calls: &[Call]) {
    if answer.ask.completes {
        line.str("response", text);
        line.opt_str("thinking", Some(thoughts).filter(|thoughts| !thoughts.is_empty()));
        return;
    }
    let mut message = line.object("message");
    message.str("role", "assistant").str("content", text);
    message.opt_str("thinking", Some(thoughts).filter(|thoughts| !thoughts.is_empty()));
    if !calls.is_empty() {
        let mut list = message.array("tool_calls");
        for call in calls {
            let mut object = list.object();
            let mut function = object.object("function");
            function.str("name", &call.name);
            function.raw("arguments", if call.arguments.is_empty() { "{}" } else { &call.arguments });
            function.end();
            object.end();
        }
        list.end();
    }
    message.end();
}

fn done(line: &mut Object<'_>, answer: &Answer<'_>, with_usage: bool) {
    let reason = match answer.reply.finish {
        Finish::Length => "length",
        // There is no word for anything else.
        Finish::Stop
        | Finish::StopSequence(_)
        | Finish::Tools
        | Finish::Refused
        | Finish::Filtered
        | Finish::Blocked => "stop",
    };
    line.bool("done", true).str("done_reason", reason);
    if with_usage {
        counters(line, answer);
    }
}

fn counters(line: &mut Object<'_>, answer: &Answer<'_>) {
    let usage = answer.reply.usage;
    // What is cached need not be evaluated again, but it counts.
    let (reading, writing) = ((usage.prompt - usage.cached) * PACE / 10, usage.output * PACE);
    line.u64("total_duration", PACE + reading + writing)
        .u64("load_duration", PACE)
        .u64("prompt_eval_count", usage.prompt)
        .u64("prompt_eval_duration", reading)
        .u64("eval_count", usage.output)
        .u64("eval_duration", writing);
}

fn loaded(answer: &Answer<'_>, reason: &str) -> Bytes {
    line(answer, |line| {
        said(line, answer, "", "", &[]);
        line.bool("done", true).str("done_reason", reason);
    })
}
