//! Writing tools, and the choice among them: the dialect has none, so it is made by what is offered.

use std::collections::HashSet;

use bytes::BytesMut;
use omniroute_wire::json_out::Array;
use serde_json::value::RawValue;

use super::super::ID;
use crate::{
    Caps, EncodeError,
    ir::{self, ChatRequest, Function, Loss, LossAction, Tool, ToolChoice, ToolKind},
    json_in::is_object,
    tool_list,
};

const EMPTY_SCHEMA: &str = r#"{"type":"object","properties":{}}"#;

/// The tools as a JSON list; `None` when there are none to offer.
pub(super) fn write(
    request: &ChatRequest,
    caps: &Caps,
    losses: &mut Vec<Loss>,
) -> Result<Option<BytesMut>, EncodeError> {
    let native = request.extras.origin == Some(ID);
    let offered = choice(request, losses)?;
    if request.tools.is_empty() {
        return Ok(None);
    }
    if !caps.tools && !native {
        return Err(refused(
            "unsupported_tool",
            "tools",
            "the target does not call tools; use a model that does",
        ));
    }
    let mut out = BytesMut::new();
    let mut list = Array::begin(&mut out);
    for (at, tool) in request.tools.iter().enumerate() {
        let Some(function) = tool.as_function() else {
            foreign_tool(request, at, tool, losses)?;
            continue;
        };
        if !native && function.schema.is_some_and(|schema| !is_object(schema)) {
            let message = format!("the schema of tool `{}` must be an object", function.name);
            return Err(refused("invalid_tool_schema", &format!("tools[{at}]"), &message));
        }
        if offered.is_offered(function.name) {
            write_tool(at, tool, &function, native, &mut list, losses);
        }
    }
    let any = !list.is_empty();
    list.end();
    Ok(any.then_some(out))
}

/// Which tools the model gets to see.
enum Offered<'a> {
    All,
    None,
    These(HashSet<&'a str>),
}

impl Offered<'_> {
    fn is_offered(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::These(names) => names.contains(name),
        }
    }
}

fn choice<'a>(request: &'a ChatRequest, losses: &mut Vec<Loss>) -> Result<Offered<'a>, EncodeError> {
    if request.parallel_tool_calls == Some(false) {
        let silent = request.tools.is_empty();
        losses.push(Loss { silent, ..ir::loss("parallel_tool_calls", LossAction::Dropped) });
    }
    let Some(choice) = &request.tool_choice else { return Ok(Offered::All) };
    if request.tools.is_empty() {
        losses.push(ir::quiet("tool_choice", LossAction::Dropped));
        return Ok(Offered::All);
    }
    let names: Vec<&str> = match choice {
        // Where the search itself stays behind is decided with the tools.
        ToolChoice::Auto | ToolChoice::WebSearch => return Ok(Offered::All),
        ToolChoice::None => {
            losses.push(ir::quiet("tool_choice", LossAction::Mapped));
            return Ok(Offered::None);
        }
        // Any of one is that one: so clients ask for structured output.
        ToolChoice::Required => match request.tools.as_slice() {
            [tool] => vec![tool.name().ok_or_else(cannot_force)?],
            _ => return Err(cannot_force()),
        },
        ToolChoice::Named(name) => vec![name],
        ToolChoice::Allowed { required, names } => {
            if *required && names.len() > 1 {
                return Err(cannot_force());
            }
            names.iter().map(String::as_str).collect()
        }
    };
    let defined: HashSet<&str> = request.tools.iter().filter_map(Tool::name).collect();
    if let Some(name) = names.iter().find(|name| !defined.contains(*name)) {
        let message = format!("`tool_choice` names the tool `{name}`, which is not defined");
        return Err(refused("invalid_value", "tool_choice", &message));
    }
    // The model may still answer without a call, so where one was demanded the client is told.
    let silent = matches!(choice, ToolChoice::Allowed { required: false, .. });
    losses.push(Loss { silent, ..ir::loss("tool_choice", LossAction::Mapped) });
    Ok(Offered::These(names.into_iter().collect()))
}

fn cannot_force() -> EncodeError {
    let message = "the target cannot be made to call a tool; leave the choice to it, or name one tool";
    refused("unsupported_tool_choice", "tool_choice", message)
}

fn write_tool(
    at: usize,
    tool: &Tool,
    function: &Function<'_>,
    native: bool,
    list: &mut Array<'_>,
    losses: &mut Vec<Loss>,
) {
    let path = |name: &str| format!("tools[{at}].{name}");
    let mut description = function.description.clone().map(std::borrow::Cow::into_owned);
    let mut extras = Vec::new();
    for (key, raw) in &tool.extras {
        if native {
            extras.push((key, raw));
        } else if key == "input_examples" {
            let text = description.get_or_insert_default();
            text.push_str("\n\nExamples of arguments: ");
            text.push_str(raw.get());
            losses.push(ir::quiet(path(key), LossAction::Mapped));
        } else {
            losses.push(ir::loss(path(key), LossAction::Dropped));
        }
    }
    if matches!(tool.kind, ToolKind::Custom { .. }) {
        losses.push(ir::quiet(format!("tools[{at}]"), LossAction::Mapped));
    }
    if function.strict == Some(true) {
        losses.push(ir::loss(path("strict"), LossAction::Dropped));
    }
    if let Some(mark) = tool.cache_mark {
        losses.push(Loss { silent: !mark.one_hour, ..ir::loss(path("cache_control"), LossAction::Dropped) });
    }
    let mut entry = list.object();
    entry.str("type", "function");
    let mut object = entry.object("function");
    object.str("name", function.name).opt_str("description", description.as_deref());
    object.raw("parameters", function.schema.map_or(EMPTY_SCHEMA, RawValue::get));
    object.end();
    for (key, raw) in extras {
        entry.raw(key, raw.get());
    }
    entry.end();
}

/// A tool that another dialect's vendor runs: left out when there are others, refused when it is wanted.
fn foreign_tool(
    request: &ChatRequest,
    at: usize,
    tool: &Tool,
    losses: &mut Vec<Loss>,
) -> Result<(), EncodeError> {
    let forced = match (&request.tool_choice, tool.name()) {
        (Some(ToolChoice::Named(wanted)), Some(name)) => wanted == name,
        (Some(ToolChoice::WebSearch), None) => true,
        _ => false,
    };
    let any = request.tools.iter().any(|tool| tool.as_function().is_some());
    if forced || !any || !tool_list::is_spare(tool) {
        let message = "the target has no tool of this kind; use a provider that has, or leave it out";
        return Err(refused("unsupported_tool", &format!("tools[{at}]"), message));
    }
    losses.push(ir::loss(format!("tools[{at}]"), LossAction::Dropped));
    Ok(())
}

/// A refusal to translate.
pub(super) fn refused(code: &'static str, path: &str, message: &str) -> EncodeError {
    EncodeError { code, param: Some(path.to_owned()), message: message.to_owned() }
}
