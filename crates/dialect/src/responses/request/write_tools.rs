//! Writing the tools of a request, and the choice among them.

use std::collections::HashSet;

use bytes::BytesMut;
use omniroute_wire::json_out::{Array, Object};
use serde_json::value::RawValue;

use super::super::ID;
use crate::{
    Caps, EncodeError,
    ir::{self, ChatRequest, Function, Loss, LossAction, Tool, ToolChoice, ToolKind, WebSearchTool},
    json_in::is_object,
    strict_schema, tool_list,
    web_search::write_place,
};

const EMPTY_SCHEMA: &str = r#"{"type":"object","properties":{}}"#;

/// Whether tools that take free text are offered as such.
pub(super) fn takes_custom(request: &ChatRequest, caps: &Caps) -> bool {
    request.extras.origin == Some(ID) || caps.custom_tools
}

/// Writes `tools`, `tool_choice` and `parallel_tool_calls`.
pub(super) fn write(
    request: &ChatRequest,
    caps: &Caps,
    body: &mut Object<'_>,
    losses: &mut Vec<Loss>,
) -> Result<(), EncodeError> {
    if request.tools.is_empty() {
        for (given, name) in [
            (request.tool_choice.is_some(), "tool_choice"),
            (request.parallel_tool_calls.is_some(), "parallel_tool_calls"),
        ] {
            if given {
                losses.push(ir::quiet(name, LossAction::Dropped));
            }
        }
        return Ok(());
    }
    if !caps.tools {
        return Err(EncodeError {
            code: "unsupported_tool",
            param: Some("tools".to_owned()),
            message: "the target does not call tools; use a model that does".to_owned(),
        });
    }
    let mut writer = Writer {
        request,
        native: request.extras.origin == Some(ID),
        custom: takes_custom(request, caps),
        losses,
    };
    let mut kept = BytesMut::new();
    let mut list = Array::begin(&mut kept);
    for (at, tool) in request.tools.iter().enumerate() {
        writer.tool(at, tool, &mut list)?;
    }
    let any = !list.is_empty();
    list.end();
    if !any {
        return Ok(());
    }
    body.key("tools").extend_from_slice(&kept);
    writer.choice(body);
    if let Some(parallel) = request.parallel_tool_calls {
        body.bool("parallel_tool_calls", parallel);
    }
    Ok(())
}

struct Writer<'a> {
    request: &'a ChatRequest,
    native: bool,
    custom: bool,
    losses: &'a mut Vec<Loss>,
}

impl Writer<'_> {
    fn tool(&mut self, at: usize, tool: &Tool, list: &mut Array<'_>) -> Result<(), EncodeError> {
        match &tool.kind {
            ToolKind::Custom { name, description, format } if self.custom => {
                let mut entry = list.object();
                entry.str("type", "custom").str("name", name);
                entry.opt_str("description", description.as_deref());
                if let Some(format) = format {
                    entry.raw("format", format.get());
                }
                self.extras(at, tool, &mut entry);
                entry.end();
                return Ok(());
            }
            ToolKind::Custom { .. } => {
                self.losses.push(ir::quiet(format!("tools[{at}]"), LossAction::Mapped));
            }
            ToolKind::WebSearch(search) => {
                self.web_search(at, search, list);
                return Ok(());
            }
            ToolKind::Opaque { origin, raw, .. } if *origin == ID => {
                list.raw(raw.get());
                return Ok(());
            }
            ToolKind::Function { .. } | ToolKind::Opaque { .. } => {}
        }
        let Some(function) = tool.as_function() else { return self.foreign(at, tool) };
        if !self.native && function.schema.is_some_and(|schema| !is_object(schema)) {
            return Err(EncodeError {
                code: "invalid_tool_schema",
                param: Some(format!("tools[{at}]")),
                message: format!("the schema of tool `{}` must be an object", function.name),
            });
        }
        let mut entry = list.object();
        self.function(at, tool, function, &mut entry);
        self.extras(at, tool, &mut entry);
        entry.end();
        Ok(())
    }

    fn function(&mut self, at: usize, tool: &Tool, function: Function<'_>, entry: &mut Object<'_>) {
        let Function { name, description, schema, strict } = function;
        let mut description = description.map(std::borrow::Cow::into_owned);
        let examples = tool.extras.iter().find(|(key, _)| !self.native && key == "input_examples");
        if let Some((_, raw)) = examples {
            let text = description.get_or_insert_default();
            text.push_str("\n\nExamples of arguments: ");
            text.push_str(raw.get());
        }
        // Left out it would mean true, and models would fill what is optional.
        let asked = strict.unwrap_or(false);
        let kept = asked && (self.native || schema.is_some_and(strict_schema::is_legal));
        if kept != asked {
            self.losses.push(ir::loss(format!("tools[{at}].strict"), LossAction::Mapped));
        }
        entry.str("type", "function").str("name", name).opt_str("description", description.as_deref());
        entry.raw("parameters", schema.map_or(EMPTY_SCHEMA, RawValue::get)).bool("strict", kept);
    }

    /// Members of the entry that have no place in the form, and the mark for caches.
    fn extras(&mut self, at: usize, tool: &Tool, entry: &mut Object<'_>) {
        for (key, raw) in &tool.extras {
            let path = format!("tools[{at}].{key}");
            if self.native {
                entry.raw(key, raw.get());
            } else if key == "input_examples" {
                self.losses.push(ir::quiet(path, LossAction::Mapped));
            } else {
                self.losses.push(ir::loss(path, LossAction::Dropped));
            }
        }
        if let Some(mark) = tool.cache_mark {
            let path = format!("tools[{at}].cache_control").into();
            self.losses.push(Loss { path, action: LossAction::Dropped, silent: !mark.one_hour });
        }
    }

    fn web_search(&mut self, at: usize, search: &WebSearchTool, list: &mut Array<'_>) {
        if search.native.origin == ID
            && let Some(raw) = search.native.raw.first()
        {
            list.raw(raw.get());
            return;
        }
        let mut entry = list.object();
        entry.str("type", "web_search");
        if !search.allowed_domains.is_empty() {
            let mut filters = entry.object("filters");
            let mut domains = filters.array("allowed_domains");
            search.allowed_domains.iter().for_each(|domain| {
                domains.str(domain);
            });
            domains.end();
            filters.end();
        }
        entry.opt_str("search_context_size", search.context_size.as_deref());
        if let Some(place) = &search.place {
            let mut user = entry.object("user_location");
            user.str("type", "approximate");
            write_place(&mut user, place);
            user.end();
        }
        entry.end();
        self.losses.push(ir::quiet(format!("tools[{at}]"), LossAction::Mapped));
        for (name, given) in
            [("blocked_domains", !search.blocked_domains.is_empty()), ("max_uses", search.max_uses.is_some())]
        {
            if given {
                self.losses.push(ir::loss(format!("tools[{at}].{name}"), LossAction::Dropped));
            }
        }
    }

    /// A tool that the other dialect's vendor runs: left out when there are others, refused when it is wanted.
    fn foreign(&mut self, at: usize, tool: &Tool) -> Result<(), EncodeError> {
        let others = self.request.tools.iter().any(|tool| match &tool.kind {
            ToolKind::Function { .. } | ToolKind::Custom { .. } | ToolKind::WebSearch(_) => true,
            ToolKind::Opaque { origin, .. } => *origin == ID,
        });
        let forced = match (&self.request.tool_choice, tool.name()) {
            (Some(ToolChoice::Named(wanted)), Some(name)) => wanted == name,
            _ => false,
        };
        if forced || !others || !tool_list::is_spare(tool) {
            return Err(EncodeError {
                code: "unsupported_tool",
                param: Some(format!("tools[{at}]")),
                message: "the target has no tool of this kind; use a provider that has, or leave it out"
                    .to_owned(),
            });
        }
        self.losses.push(ir::loss(format!("tools[{at}]"), LossAction::Dropped));
        Ok(())
    }

    fn choice(&mut self, body: &mut Object<'_>) {
        let custom = if self.custom { tool_list::custom_names(self.request) } else { HashSet::new() };
        let word = match &self.request.tool_choice {
            None => return,
            Some(ToolChoice::Auto) => "auto",
            Some(ToolChoice::None) => "none",
            Some(ToolChoice::Required) => "required",
            Some(ToolChoice::WebSearch) => {
                body.raw("tool_choice", &format!(r#"{{"type":"{}"}}"#, self.search_word()));
                return;
            }
            Some(ToolChoice::Named(name)) => {
                let mut choice = body.object("tool_choice");
                write_named(name, &custom, &mut choice);
                choice.end();
                return;
            }
            Some(ToolChoice::Allowed { required, names }) => {
                let mut choice = body.object("tool_choice");
                choice.str("type", "allowed_tools").str("mode", if *required { "required" } else { "auto" });
                let mut list = choice.array("tools");
                for name in names {
                    let mut entry = list.object();
                    write_named(name, &custom, &mut entry);
                    entry.end();
                }
                list.end();
                choice.end();
                return;
            }
        };
        body.str("tool_choice", word);
    }

    /// The type of the search among the tools.
    fn search_word(&self) -> &'static str {
        let is_preview = self.request.tools.iter().any(|tool| match &tool.kind {
            ToolKind::WebSearch(search) => {
                search.native.origin == ID
                    && search.native.raw.iter().any(|raw| raw.get().contains("\"web_search_preview"))
            }
            _ => false,
        });
        if is_preview { "web_search_preview" } else { "web_search" }
    }
}

/// Names a tool; `custom` are those that take free text.
fn write_named(wanted: &str, custom: &HashSet<&str>, entry: &mut Object<'_>) {
    entry.str("type", if custom.contains(wanted) { "custom" } else { "function" }).str("name", wanted);
}
