//! Answers in Responses.

use bytes::{Bytes, BytesMut};
use omniroute_wire::json_out::Object;

use crate::{
    ask::Ask,
    dialect::Answer,
    refusal::Refusal,
    reply::{Finish, Tokens},
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
pub(super) enum Stage<'a> {
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

/// The response itself.
pub(super) fn response(out: &mut BytesMut, answer: &Answer<'_>, stage: Stage<'_>, with_usage: bool) {
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
pub(super) fn end(answer: &Answer<'_>) -> (&'static str, Option<&'static str>) {
    match answer.reply.finish {
        Finish::Stop | Finish::StopSequence(_) | Finish::Tools | Finish::Refused => ("completed", None),
        Finish::Length => ("incomplete", Some("max_output_tokens")),
        Finish::Filtered | Finish::Blocked => ("incomplete", Some("content_filter")),
    }
}

/// The status of a message at the end.
pub(super) fn item_status(answer: &Answer<'_>) -> &'static str {
    end(answer).0
}

/// Whether there is a message.
pub(super) fn has_message(answer: &Answer<'_>) -> bool {
    answer.reply.calls.is_empty() && answer.reply.finish != Finish::Blocked
}

/// The id of the thoughts.
pub(super) fn reasoning_id(ids: Ids) -> String {
    ids.call("rs_", 0)
}

/// Ids of calls that thoughts led to say so, as the vendor remembers it.
pub(super) fn item_id(answer: &Answer<'_>, position: usize) -> String {
    let free_text = answer.reply.calls.get(position).is_some_and(|call| call.free_text);
    let prefix = match (free_text, answer.reply.thoughts.is_some()) {
        (false, false) => "fc_",
        (false, true) => "fc_r",
        (true, false) => "ctc_",
        (true, true) => "ctc_r",
    };
    answer.ids.call(prefix, position)
}

/// The members of thoughts.
pub(super) fn reasoning_item(item: &mut Object<'_>, answer: &Answer<'_>) {
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

/// The members of a message.
pub(super) fn message_item(item: &mut Object<'_>, answer: &Answer<'_>, status: &str, with_text: bool) {
    item.str("id", &answer.ids.answer("msg_")).str("type", "message").str("status", status);
    let mut content = item.array("content");
    if with_text {
        content_part(content.object(), answer.reply.finish == Finish::Refused, &answer.reply.text);
    }
    content.end();
    item.str("role", "assistant");
}

/// The only part of a message.
pub(super) fn content_part(mut part: Object<'_>, refused: bool, text: &str) {
    if refused {
        part.str("type", "refusal").str("refusal", text);
    } else {
        part.str("type", "output_text").raw("annotations", "[]").raw("logprobs", "[]").str("text", text);
    }
    part.end();
}

/// The members of a call.
pub(super) fn call_item(
    item: &mut Object<'_>,
    answer: &Answer<'_>,
    position: usize,
    status: &str,
    arguments: &str,
) {
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
