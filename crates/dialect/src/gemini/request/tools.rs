//! Tools and the choice among them.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
};

use serde_json::value::RawValue;

use super::{
    conversation::refused,
    encode::{Mode, ToolsOut},
};
use crate::{
    Caps, EncodeError,
    gemini::{
        ID,
        schema::{self, Change, Written},
    },
    ir::{ChatRequest, Function, Loss, LossAction, Tool, ToolChoice, ToolKind, WebSearchTool, loss, quiet},
    json_in, tool_list,
};

/// A function as it is written.
#[derive(Debug)]
pub(super) struct FunctionOut<'a> {
    pub(super) name: &'a str,
    pub(super) description: Option<Cow<'a, str>>,
    pub(super) parameters: Option<Parameters<'a>>,
    pub(super) extras: &'a [(String, Box<RawValue>)],
}

/// A function's arguments in one of the two kinds of schemas.
#[derive(Debug)]
pub(super) enum Parameters<'a> {
    JsonSchema(Cow<'a, str>),
    Own(Cow<'a, str>),
}

/// The tools of a request that came in this dialect.
pub(super) fn native<'a>(request: &'a ChatRequest, caps: &Caps) -> ToolsOut<'a> {
    let mut out = ToolsOut::default();
    for tool in &request.tools {
        match &tool.kind {
            ToolKind::Function { .. } | ToolKind::Custom { .. } => {
                let Some(function) = tool.as_function() else { continue };
                let parameters = function.schema.and_then(|raw| {
                    if caps.gemini.json_schema {
                        return Some(Parameters::JsonSchema(Cow::Borrowed(raw.get())));
                    }
                    schema::arguments_as_own(raw).flatten().map(|written| Parameters::Own(written.text))
                });
                out.functions.push(FunctionOut {
                    name: function.name,
                    description: function.description,
                    parameters,
                    extras: &tool.extras,
                });
            }
            ToolKind::WebSearch(search) if search.native.origin == ID => {
                out.entries.extend(search.native.raw.iter().map(|raw| Cow::Borrowed(raw.get())));
            }
            ToolKind::Opaque { origin, raw, .. } if *origin == ID => {
                out.entries.push(Cow::Borrowed(raw.get()));
            }
            ToolKind::WebSearch(_) | ToolKind::Opaque { .. } => {}
        }
    }
    out.mode = request.tool_choice.as_ref().and_then(|choice| match choice {
        ToolChoice::Auto => Some(Mode::plain("AUTO")),
        ToolChoice::None => Some(Mode::plain("NONE")),
        ToolChoice::Required => Some(Mode::plain("ANY")),
        ToolChoice::Named(name) => Some(Mode { word: "ANY", names: vec![name] }),
        ToolChoice::Allowed { required, names } => Some(Mode {
            word: if *required { "ANY" } else { "VALIDATED" },
            names: names.iter().map(String::as_str).collect(),
        }),
        ToolChoice::WebSearch => None,
    });
    out
}

/// The tools of a request that came in another dialect.
pub(super) fn translated<'a>(
    request: &'a ChatRequest,
    caps: &Caps,
    losses: &mut Vec<Loss>,
) -> Result<ToolsOut<'a>, EncodeError> {
    let mut out = ToolsOut::default();
    if !caps.tools && !request.tools.is_empty() {
        return Err(refused("unsupported_tool", "tools", "this model takes no tools"));
    }
    let mut kept: HashMap<&str, &Tool> = HashMap::new();
    let mut strict = Vec::new();
    for (at, tool) in request.tools.iter().enumerate() {
        let Some(function) = tool.as_function() else { continue };
        let path = format!("tools[{at}]");
        if let Some(earlier) = kept.get(function.name) {
            if same_tool(earlier, tool) {
                losses.push(quiet(path, LossAction::Dropped));
                continue;
            }
            let message = format!("tool `{}` is defined twice in different ways", function.name);
            return Err(refused("invalid_value", &path, message));
        }
        kept.insert(function.name, tool);
        if function.strict == Some(true) {
            strict.push(path.clone());
        }
        out.functions.push(written(function, tool, &path, caps, losses)?);
    }
    foreign(request, caps, &mut out, losses)?;
    choose(request, &mut out, losses)?;
    if out.functions.is_empty() {
        return Ok(out);
    }
    if request.parallel_tool_calls == Some(false) {
        losses.push(loss("parallel_tool_calls", LossAction::Dropped));
    }
    // A forced call obeys its schema anyway.
    let free = matches!(request.tool_choice, None | Some(ToolChoice::Auto));
    if free && !strict.is_empty() && strict.len() == out.functions.len() {
        out.mode = Some(Mode::plain("VALIDATED"));
        losses.push(quiet("tools", LossAction::Mapped));
    } else if free {
        losses.extend(strict.into_iter().map(|path| loss(format!("{path}.strict"), LossAction::Dropped)));
    }
    Ok(out)
}

fn written<'a>(
    function: Function<'a>,
    tool: &'a Tool,
    path: &str,
    caps: &Caps,
    losses: &mut Vec<Loss>,
) -> Result<FunctionOut<'a>, EncodeError> {
    let mut description = function.description;
    for (name, raw) in &tool.extras {
        let path = format!("{path}.{name}");
        if name == "input_examples" {
            let text = description.get_or_insert_default().to_mut();
            text.push_str("\n\nExamples of arguments: ");
            text.push_str(raw.get());
            losses.push(quiet(path, LossAction::Mapped));
        } else {
            losses.push(loss(path, LossAction::Dropped));
        }
    }
    if let Some(mark) = tool.cache_mark {
        let path = format!("{path}.cache_control").into();
        losses.push(Loss { path, action: LossAction::Dropped, silent: !mark.one_hour });
    }
    if matches!(tool.kind, ToolKind::Custom { .. }) {
        losses.push(quiet(path.to_owned(), LossAction::Mapped));
    }
    let not_an_object = || {
        let message = format!("the parameters of tool `{}` must be an object schema", function.name);
        refused("invalid_tool_schema", path, message)
    };
    let parameters = match function.schema {
        None => None,
        Some(raw) if !json_in::is_object(raw) && raw.get() != "true" => return Err(not_an_object()),
        Some(raw) if caps.gemini.json_schema => {
            let found = schema::arguments_as_json_schema(raw).ok_or_else(not_an_object)?;
            Some(Parameters::JsonSchema(noted(found, path, losses)))
        }
        Some(raw) => {
            let found = schema::arguments_as_own(raw).ok_or_else(not_an_object)?;
            found.map(|found| Parameters::Own(noted(found, path, losses)))
        }
    };
    Ok(FunctionOut { name: function.name, description, parameters, extras: &[] })
}

/// The text of a schema, what became of it recorded.
fn noted<'a>(written: Written<'a>, path: &str, losses: &mut Vec<Loss>) -> Cow<'a, str> {
    let path = format!("{path}.function.parameters");
    match written.change {
        Change::None => {}
        Change::Form => losses.push(quiet(path, LossAction::Mapped)),
        Change::Meaning => losses.push(loss(path, LossAction::Mapped)),
    }
    written.text
}

fn same_tool(one: &Tool, other: &Tool) -> bool {
    let (Some(one), Some(other)) = (one.as_function(), other.as_function()) else { return false };
    one.description == other.description
        && one.schema.map(RawValue::get) == other.schema.map(RawValue::get)
        && one.strict == other.strict
}

/// Tools that a vendor runs. A search goes over unless there are functions: most models take one or the other, and
/// those that take both want parts back that clients of other dialects do not keep.
fn foreign<'a>(
    request: &'a ChatRequest,
    caps: &Caps,
    out: &mut ToolsOut<'a>,
    losses: &mut Vec<Loss>,
) -> Result<(), EncodeError> {
    let searches = |tool: &&Tool| matches!(tool.kind, ToolKind::WebSearch(_));
    let others = !out.functions.is_empty() || request.tools.iter().any(|tool| searches(&tool));
    for (at, tool) in request.tools.iter().enumerate() {
        let path = format!("tools[{at}]");
        let origin = match &tool.kind {
            ToolKind::WebSearch(search) if out.functions.is_empty() => {
                if out.entries.is_empty() {
                    out.entries.push(search_entry(search, caps, &path, losses));
                } else {
                    losses.push(quiet(path, LossAction::Dropped));
                }
                continue;
            }
            ToolKind::WebSearch(search) => search.native.origin,
            ToolKind::Opaque { origin, .. } => *origin,
            ToolKind::Function { .. } | ToolKind::Custom { .. } => continue,
        };
        let forced = match (&request.tool_choice, tool.name()) {
            (Some(ToolChoice::Named(wanted)), Some(name)) => wanted == name,
            _ => false,
        };
        if forced || !others || !tool_list::is_spare(tool) {
            let message = format!("this tool exists only in the `{origin}` dialect");
            return Err(refused("unsupported_tool", &path, message));
        }
        losses.push(loss(path, LossAction::Dropped));
    }
    Ok(())
}

fn search_entry<'a>(
    search: &'a WebSearchTool,
    caps: &Caps,
    path: &str,
    losses: &mut Vec<Loss>,
) -> Cow<'a, str> {
    if let (true, Some(raw)) = (search.native.origin == ID, search.native.raw.first()) {
        return Cow::Borrowed(raw.get());
    }
    let excludes = !search.blocked_domains.is_empty();
    for (given, name) in [
        (excludes && !caps.gemini.excluded_domains, "blocked_domains"),
        (!search.allowed_domains.is_empty(), "allowed_domains"),
        (search.max_uses.is_some(), "max_uses"),
        (search.place.is_some(), "user_location"),
    ] {
        if given {
            losses.push(loss(format!("{path}.{name}"), LossAction::Dropped));
        }
    }
    if search.context_size.is_some() {
        losses.push(quiet(format!("{path}.search_context_size"), LossAction::Dropped));
    }
    losses.push(quiet(path.to_owned(), LossAction::Mapped));
    if !excludes || !caps.gemini.excluded_domains {
        return Cow::Borrowed(r#"{"googleSearch":{}}"#);
    }
    let domains = serde_json::to_string(&search.blocked_domains).expect("strings are always written");
    Cow::Owned(format!(r#"{{"googleSearch":{{"excludeDomains":{domains}}}}}"#))
}

fn choose<'a>(
    request: &'a ChatRequest,
    out: &mut ToolsOut<'a>,
    losses: &mut Vec<Loss>,
) -> Result<(), EncodeError> {
    let Some(choice) = &request.tool_choice else { return Ok(()) };
    let known: HashSet<&str> = out.functions.iter().map(|function| function.name).collect();
    let defined = |name: &'a str| {
        if known.contains(name) {
            return Ok(name);
        }
        let message = format!("`tool_choice` names the tool `{name}`, which is not defined");
        Err(refused("invalid_value", "tool_choice", message))
    };
    let mode = match choice {
        ToolChoice::Named(name) => Mode { word: "ANY", names: vec![defined(name)?] },
        ToolChoice::Allowed { required, names } => {
            let names = names.iter().map(|name| defined(name)).collect::<Result<_, _>>()?;
            Mode { word: if *required { "ANY" } else { "VALIDATED" }, names }
        }
        ToolChoice::WebSearch => {
            let message = "this model's provider cannot be made to search; leave the choice to the model";
            return Err(refused("unsupported_tool_choice", "tool_choice", message));
        }
        ToolChoice::Auto => Mode::plain("AUTO"),
        ToolChoice::None => Mode::plain("NONE"),
        ToolChoice::Required => Mode::plain("ANY"),
    };
    // Without functions there is nothing to choose, and the upstream refuses the member.
    if out.functions.is_empty() {
        losses.push(quiet("tool_choice", LossAction::Dropped));
    } else {
        out.mode = Some(mode);
    }
    Ok(())
}
