//! Tools and the choice among them.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
};

use serde_json::value::RawValue;

use super::{
    conversation::refused,
    encode::{Choice, Knobs, ToolOut},
    schema,
};
use crate::{
    Caps, EncodeError,
    anthropic::{ID, search},
    ir::{ChatRequest, Function, Loss, LossAction, Tool, ToolChoice, ToolKind, loss, quiet},
    tool_list,
};

/// The tools as they are written.
pub(super) fn tools<'a>(
    request: &'a ChatRequest,
    caps: &Caps,
    losses: &mut Vec<Loss>,
) -> Result<Vec<ToolOut<'a>>, EncodeError> {
    if !caps.tools && !request.tools.is_empty() {
        return Err(refused("unsupported_tool", "tools", "this model takes no tools"));
    }
    let mut out: Vec<ToolOut<'_>> = Vec::with_capacity(request.tools.len());
    let mut named: HashMap<&str, &Tool> = HashMap::new();
    for (at, tool) in request.tools.iter().enumerate() {
        let path = || format!("tools[{at}]");
        let written = match &tool.kind {
            ToolKind::Function { .. } | ToolKind::Custom { .. } => {
                let Some(Function { name, schema, .. }) = tool.as_function() else { continue };
                let schema = match schema {
                    None => Cow::Borrowed(schema::EMPTY),
                    Some(raw) => {
                        let (text, changed) = schema::arguments(raw).ok_or_else(|| {
                            let message = format!("the parameters of tool `{name}` must be an object schema");
                            refused("invalid_tool_schema", path(), message)
                        })?;
                        if changed {
                            losses.push(loss(format!("{}.function.parameters", path()), LossAction::Mapped));
                        }
                        text
                    }
                };
                for (name, _) in &tool.extras {
                    losses.push(loss(format!("{}.{name}", path()), LossAction::Dropped));
                }
                if matches!(tool.kind, ToolKind::Custom { .. }) {
                    losses.push(quiet(path(), LossAction::Mapped));
                }
                if let Some(earlier) = named.get(name) {
                    if same_tool(earlier, tool) {
                        losses.push(quiet(path(), LossAction::Dropped));
                        continue;
                    }
                    let message = format!("tool `{name}` is defined twice in different ways");
                    return Err(refused("invalid_value", path(), message));
                }
                Some(schema)
            }
            ToolKind::Opaque { origin, .. } if *origin == ID => None,
            ToolKind::WebSearch(search) if caps.web_search => {
                search::tool_losses(search, &path(), losses);
                None
            }
            ToolKind::WebSearch(_) | ToolKind::Opaque { .. } => {
                let origin = match &tool.kind {
                    ToolKind::WebSearch(search) => search.native.origin,
                    ToolKind::Opaque { origin, .. } => *origin,
                    ToolKind::Function { .. } | ToolKind::Custom { .. } => ID,
                };
                let forced = match (&request.tool_choice, tool.name()) {
                    (Some(ToolChoice::Named(wanted)), Some(name)) => wanted == name,
                    (Some(ToolChoice::WebSearch), None) => true,
                    _ => false,
                };
                if request.tools.len() == 1 || forced || !tool_list::is_spare(tool) {
                    let message = format!("this tool exists only in the `{origin}` dialect");
                    return Err(refused("unsupported_tool", path(), message));
                }
                losses.push(loss(path(), LossAction::Dropped));
                continue;
            }
        };
        if let Some(name) = tool.name() {
            named.entry(name).or_insert(tool);
        }
        out.push(ToolOut { tool, schema: written, cache: tool.cache_mark, extras: &[] });
    }
    Ok(out)
}

fn same_tool(one: &Tool, other: &Tool) -> bool {
    let (Some(one), Some(other)) = (one.as_function(), other.as_function()) else { return false };
    one.description == other.description
        && one.schema.map(RawValue::get) == other.schema.map(RawValue::get)
        && one.strict == other.strict
}

/// Which tool the model shall call.
pub(super) fn tool_choice<'a>(
    request: &'a ChatRequest,
    caps: &Caps,
    knobs: &mut Knobs<'a>,
    losses: &mut Vec<Loss>,
) -> Result<(), EncodeError> {
    let defined = |tools: &[ToolOut<'_>], name: &str| {
        if tools.iter().any(|tool| tool.tool.name() == Some(name)) {
            return Ok(());
        }
        let message = format!("`tool_choice` names the tool `{name}`, which is not defined");
        Err(refused("invalid_value", "tool_choice", message))
    };
    if knobs.tools.is_empty() {
        if let Some(ToolChoice::Named(name)) = &request.tool_choice {
            defined(&knobs.tools, name)?;
        }
        if request.tool_choice.is_some() {
            losses.push(quiet("tool_choice", LossAction::Dropped));
        }
        return Ok(());
    }
    knobs.tool_choice = match &request.tool_choice {
        None => None,
        Some(ToolChoice::Auto) => Some(Choice::Auto),
        Some(ToolChoice::None) => Some(Choice::None),
        Some(ToolChoice::Required) => Some(Choice::Any),
        Some(ToolChoice::WebSearch) => {
            let searches = knobs.tools.iter().any(|out| matches!(out.tool.kind, ToolKind::WebSearch(_)));
            // Otherwise the tool itself was left out before.
            searches.then_some(Choice::Tool(search::NAME))
        }
        Some(ToolChoice::Named(name)) => {
            defined(&knobs.tools, name)?;
            Some(Choice::Tool(name))
        }
        Some(ToolChoice::Allowed { required, names }) => {
            let known: HashSet<&str> = knobs.tools.iter().filter_map(|tool| tool.tool.name()).collect();
            if let Some(name) = names.iter().find(|name| !known.contains(name.as_str())) {
                defined(&[], name)?;
            }
            losses.push(quiet("tool_choice", LossAction::Mapped));
            if let ([name], true) = (names.as_slice(), required) {
                Some(Choice::Tool(name))
            } else {
                let allowed: HashSet<&str> = names.iter().map(String::as_str).collect();
                knobs.tools.retain(|tool| tool.tool.name().is_some_and(|name| allowed.contains(name)));
                Some(if *required { Choice::Any } else { Choice::Auto })
            }
        }
    };
    if let Some(choice) = knobs.tool_choice.filter(|choice| choice.is_forced() && !caps.forced_calls) {
        unforced(choice, knobs, losses)?;
    }
    if request.parallel_tool_calls == Some(false) && knobs.tool_choice != Some(Choice::None) {
        knobs.one_call = true;
        knobs.tool_choice.get_or_insert(Choice::Auto);
    }
    Ok(())
}

/// The choice for a model that cannot be made to call a tool: it sees no other than the one that it should call, and may
/// still answer without. Of several none is more wanted than the others.
fn unforced(choice: Choice<'_>, knobs: &mut Knobs<'_>, losses: &mut Vec<Loss>) -> Result<(), EncodeError> {
    match choice {
        Choice::Tool(wanted) => {
            let is_it = |tool: &Tool| match &tool.kind {
                ToolKind::WebSearch(_) => wanted == search::NAME,
                _ => tool.name() == Some(wanted),
            };
            knobs.tools.retain(|out| is_it(out.tool));
        }
        _ if knobs.tools.len() == 1 => {}
        _ => {
            let message =
                "this model cannot be made to call a tool; leave the choice to it, or name one tool";
            return Err(refused("unsupported_tool_choice", "tool_choice", message));
        }
    }
    knobs.tool_choice = Some(Choice::Auto);
    losses.push(loss("tool_choice", LossAction::Mapped));
    Ok(())
}
