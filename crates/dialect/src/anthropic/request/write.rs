//! The bytes of a request.

use std::collections::BTreeSet;

use bytes::BytesMut;
use omniroute_wire::json_out::{self, Object};
use serde_json::value::RawValue;

use super::{
    conversation::Conversation,
    encode::{Choice, Knobs, Thinking, ToolOut},
    schema,
};
use crate::{
    anthropic::{
        ID, search,
        wire::{FAST, write_cache, write_content, write_list},
    },
    dialect::ANSWER_TOOL,
    ir::{ChatRequest, ToolKind},
};

/// Writes a request of these parts; `members` come last, as they are.
pub(super) fn write(
    request: &ChatRequest,
    conversation: &Conversation<'_>,
    knobs: &Knobs<'_>,
    members: &[(String, Box<RawValue>)],
) -> BytesMut {
    let mut out = BytesMut::with_capacity(4096);
    let mut object = Object::begin(&mut out);
    let kept = |name: &str| members.iter().any(|(other, _)| other == name);
    object.str("model", &request.model).opt_u64("max_tokens", knobs.max_tokens);
    if !conversation.system.is_empty() {
        write_content(object.key("system"), &conversation.system);
    }
    write_list(object.key("messages"), conversation.messages.iter(), |out, message| {
        let mut object = Object::begin(out);
        object.str("role", message.role);
        write_content(object.key("content"), &message.content);
        object.end();
    });
    write_tools(&mut object, request, conversation, knobs);
    if let Some(choice) = knobs.tool_choice {
        write_choice(object.object("tool_choice"), choice, knobs.one_call);
    }
    if !kept("thinking") {
        write_thinking(&mut object, knobs);
    }
    if !kept("output_config") && (knobs.effort.is_some() || knobs.schema.is_some()) {
        let mut config = object.object("output_config");
        config.opt_str("effort", knobs.effort);
        if let Some(schema) = &knobs.schema {
            let mut format = config.object("format");
            format.str("type", "json_schema").raw("schema", schema);
            format.end();
        }
        config.end();
    }
    for (name, value) in [("temperature", knobs.temperature), ("top_p", knobs.top_p), ("top_k", knobs.top_k)]
    {
        if let Some(value) = value {
            object.raw(name, value);
        }
    }
    if !knobs.stop.is_empty() {
        write_list(object.key("stop_sequences"), knobs.stop.iter(), |out, text| json_out::string(out, text));
    }
    if let Some(user) = knobs.user.filter(|_| !kept("metadata")) {
        let mut metadata = object.object("metadata");
        metadata.str("user_id", user);
        metadata.end();
    }
    object.opt_str("service_tier", knobs.service_tier).opt_str("speed", knobs.fast.then_some(FAST));
    if request.stream {
        object.bool("stream", true);
    }
    for (name, raw) in members {
        object.raw(name, raw.get());
    }
    object.end();
    out
}

/// Writes the tools, or what stands in for them when only the history knows them.
fn write_tools(
    object: &mut Object<'_>,
    request: &ChatRequest,
    conversation: &Conversation<'_>,
    knobs: &Knobs<'_>,
) {
    if let Some(answer) = &knobs.answer_tool {
        let mut list = object.array("tools");
        let mut tool = list.object();
        tool.str("name", ANSWER_TOOL).str("description", answer.description);
        tool.raw("input_schema", answer.schema);
        tool.end();
        list.end();
    } else if !knobs.tools.is_empty() {
        write_list(object.key("tools"), knobs.tools.iter(), write_tool);
    } else if request.extras.origin != Some(ID) {
        let mut seen = BTreeSet::new();
        let names: Vec<_> = conversation.called_tools().filter(|name| seen.insert(*name)).collect();
        if !names.is_empty() {
            write_list(object.key("tools"), names.into_iter(), |out, name| {
                let mut tool = Object::begin(out);
                tool.str("name", name).raw("input_schema", r#"{"type":"object"}"#);
                tool.end();
            });
        }
    }
}

fn write_tool(out: &mut BytesMut, written: &ToolOut<'_>) {
    let Some(function) = written.tool.as_function() else {
        match &written.tool.kind {
            ToolKind::WebSearch(tool) => search::write_tool(out, tool),
            ToolKind::Opaque { raw, .. } => out.extend_from_slice(raw.get().as_bytes()),
            // These are functions.
            ToolKind::Function { .. } | ToolKind::Custom { .. } => out.extend_from_slice(b"{}"),
        }
        return;
    };
    let mut object = Object::begin(out);
    object.str("name", function.name).opt_str("description", function.description.as_deref());
    object.raw("input_schema", written.schema.as_deref().unwrap_or(schema::EMPTY));
    if let Some(strict) = function.strict {
        object.bool("strict", strict);
    }
    write_cache(&mut object, written.cache);
    for (name, raw) in written.extras {
        object.raw(name, raw.get());
    }
    object.end();
}

fn write_choice(mut object: Object<'_>, choice: Choice<'_>, one_call: bool) {
    match choice {
        Choice::Auto => object.str("type", "auto"),
        Choice::Any => object.str("type", "any"),
        Choice::None => object.str("type", "none"),
        Choice::Tool(name) => object.str("type", "tool").str("name", name),
    };
    if one_call && choice != Choice::None {
        object.bool("disable_parallel_tool_use", true);
    }
    object.end();
}

fn write_thinking(object: &mut Object<'_>, knobs: &Knobs<'_>) {
    if knobs.thinking == Thinking::Unsaid {
        return;
    }
    let mut thinking = object.object("thinking");
    match knobs.thinking {
        Thinking::Unsaid => {}
        Thinking::Disabled => {
            thinking.str("type", "disabled");
        }
        Thinking::BetweenTools => {
            thinking.str("type", "between_tools");
        }
        Thinking::Enabled { budget } => {
            thinking.str("type", "enabled").u64("budget_tokens", budget);
        }
        Thinking::Adaptive => {
            thinking.str("type", "adaptive");
        }
    }
    if !matches!(knobs.thinking, Thinking::Disabled | Thinking::BetweenTools) {
        thinking.opt_str("display", knobs.show.map(|show| if show { "summarized" } else { "omitted" }));
    }
    thinking.end();
}
