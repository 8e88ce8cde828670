//! Reading the tools of a request, and the choice among them.
//!
//! Tools may stand in namespaces, and some come within the conversation. Both become plain tools here: one in a
//! namespace is called after it, and answers name it as the client does ([`namespaces`]).

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::super::{
    ID,
    wire::{flat_name, is_web_search, text},
};
use crate::{
    DecodeError,
    ir::{ChatRequest, Loss, LossAction, Native, Tool, ToolChoice, ToolKind, WebSearchTool, loss, quiet},
    json_in::{Fields, is_object, list_of, str_of, wrong_type, wrong_value},
    strict_schema,
    tool_list::{ToolList, check_choice},
    web_search::{domains, place},
};

/// Members of a function's or a custom tool's entry that have a place in the canonical form.
const KNOWN: &[&str] = &["type", "name", "description", "parameters", "strict", "format"];

/// The tool by which Codex changes files, and how the description says that its input is free text.
const PATCH: &str = "apply_patch";
const FREEFORM: &str = "FREEFORM";

/// Reads `tools`, the tools within the conversation, and `tool_choice`.
pub(super) fn decode(fields: &Fields<'_>, request: &mut ChatRequest) -> Result<(), DecodeError> {
    let mut list = ToolList::default();
    for (at, raw) in fields.list("tools")?.unwrap_or_default().into_iter().enumerate() {
        entry(raw, format!("tools[{at}]"), &mut list, request)?;
    }
    for (at, raw) in input_items(fields).into_iter().enumerate() {
        let Some(item) = additional(raw) else { continue };
        for (n, raw) in item.into_iter().enumerate() {
            entry(raw, format!("input[{at}].tools[{n}]"), &mut list, request)?;
        }
    }
    request.tool_choice = choice(fields, request)?;
    check_choice(request)
}

/// The tools of a request that stand in namespaces: as they are called elsewhere, the namespace, and their own name.
pub(in crate::responses) fn namespaces(fields: &Fields<'_>) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    let listed = fields.raw("tools").and_then(list_of).unwrap_or_default();
    let added = input_items(fields).into_iter().filter_map(additional).flatten();
    for raw in listed.into_iter().chain(added) {
        let Ok(entry) = Fields::lenient(raw.get(), "") else { continue };
        if text(&entry, "type").as_deref() != Some("namespace") {
            continue;
        }
        let namespace = text(&entry, "name").unwrap_or_default();
        for raw in entry.raw("tools").and_then(list_of).unwrap_or_default() {
            if let Some(name) = Fields::lenient(raw.get(), "").ok().and_then(|tool| text(&tool, "name")) {
                found.push((flat_name(Some(&namespace), &name), namespace.clone(), name));
            }
        }
    }
    found
}

fn input_items<'a>(fields: &Fields<'a>) -> Vec<&'a RawValue> {
    fields.raw("input").and_then(list_of).unwrap_or_default()
}

/// The tools of an item that adds some.
fn additional(raw: &RawValue) -> Option<Vec<&RawValue>> {
    // Looked for in every item of a long conversation, so not by reading it.
    memchr::memmem::find(raw.get().as_bytes(), b"\"additional_tools\"")?;
    let fields = Fields::lenient(raw.get(), "").ok()?;
    let is_one = text(&fields, "type").as_deref() == Some("additional_tools");
    fields.raw("tools").filter(|_| is_one).and_then(list_of)
}

/// One entry: a tool, or a namespace of several.
fn entry<'a>(
    raw: &'a RawValue,
    path: String,
    list: &mut ToolList<'a>,
    request: &mut ChatRequest,
) -> Result<(), DecodeError> {
    let fields = Fields::strict(raw.get(), path.as_str())?;
    if fields.str("type")?.as_deref() != Some("namespace") {
        let tool = tool(raw, &fields, None, request)?;
        return list.push(tool, raw.get(), path, request);
    }
    let namespace = fields.need_str("name")?;
    fields.tell_unlisted(&["type", "name", "description", "tools"], &mut request.losses);
    let mut about = text(&fields, "description").filter(|text| !text.trim().is_empty());
    for (at, raw) in fields.list("tools")?.unwrap_or_default().into_iter().enumerate() {
        let path = format!("{path}.tools[{at}]");
        let fields = Fields::strict(raw.get(), path.as_str())?;
        let mut tool = tool(raw, &fields, Some(&namespace), request)?;
        // What is said about all of them is said to the first.
        if let (ToolKind::Function { description, .. } | ToolKind::Custom { description, .. }, Some(about)) =
            (&mut tool.kind, about.take())
        {
            let own = description.take().unwrap_or_default();
            *description = Some(format!("{about}\n\n{own}").trim_end().to_owned());
        }
        list.push(tool, raw.get(), path, request)?;
    }
    request.losses.push(quiet(path, LossAction::Mapped));
    Ok(())
}

fn tool(
    raw: &RawValue,
    fields: &Fields<'_>,
    namespace: Option<&str>,
    request: &mut ChatRequest,
) -> Result<Tool, DecodeError> {
    let kind = fields.str("type")?.unwrap_or(Cow::Borrowed("function"));
    let name = |what| -> Result<String, DecodeError> {
        let name = fields.need_str("name")?;
        if name.trim().is_empty() {
            return Err(wrong_value(fields.path_of("name"), what));
        }
        Ok(flat_name(namespace, &name))
    };
    let extras = |known: &[&str]| {
        let members = fields.unlisted(known).map(|(name, raw)| (name.to_owned(), raw.to_owned()));
        members.collect::<Vec<_>>()
    };
    let (kind, extras) = match &*kind {
        "function" => {
            let schema = fields.raw("parameters");
            if schema.is_some_and(|schema| !is_object(schema)) {
                let wrong = wrong_type(fields.path_of("parameters"), "a JSON schema object");
                return Err(DecodeError { code: "invalid_tool_schema", ..wrong });
            }
            // Left out it means true here, and where it cannot be, false.
            let strict = fields.bool("strict")?.or(Some(schema.is_some_and(strict_schema::is_surely_legal)));
            let name = name("a function's name, not an empty string")?;
            let description: Option<String> = fields.str("description")?.map(Into::into);
            if name == PATCH && description.as_deref().is_some_and(|text| text.contains(FREEFORM)) {
                // Codex has it as a function where its model knows no others, and means one that takes free text.
                request.losses.push(quiet(fields.path().to_owned(), LossAction::Mapped));
                (ToolKind::Custom { name, description, format: None }, extras(KNOWN))
            } else {
                let schema = schema.map(ToOwned::to_owned);
                (ToolKind::Function { name, description, schema, strict }, extras(KNOWN))
            }
        }
        "custom" => {
            let kind = ToolKind::Custom {
                name: name("a tool's name, not an empty string")?,
                description: fields.str("description")?.map(Into::into),
                format: fields.raw("format").map(ToOwned::to_owned),
            };
            (kind, extras(KNOWN))
        }
        kind if is_web_search(kind) => {
            if fields.bool("external_web_access")? == Some(false) {
                request.losses.push(quiet(fields.path_of("external_web_access"), LossAction::Dropped));
            }
            (ToolKind::WebSearch(Box::new(web_search(raw, fields, &mut request.losses)?)), Vec::new())
        }
        _ => (ToolKind::Opaque { origin: ID, name: None, raw: raw.to_owned() }, Vec::new()),
    };
    Ok(Tool { extras, ..Tool::at(fields.path(), kind) })
}

fn web_search(
    raw: &RawValue,
    fields: &Fields<'_>,
    losses: &mut Vec<Loss>,
) -> Result<WebSearchTool, DecodeError> {
    let known = &["type", "name", "filters", "search_context_size", "user_location", "external_web_access"];
    fields.tell_unlisted(known, losses);
    let filters = fields.object_of("filters", &["allowed_domains", "blocked_domains"], losses)?;
    let listed = |name| filters.as_ref().map_or(Ok(Vec::new()), |filters| domains(filters, name));
    Ok(WebSearchTool {
        native: Native { origin: ID, raw: vec![raw.to_owned()] },
        allowed_domains: listed("allowed_domains")?,
        blocked_domains: listed("blocked_domains")?,
        max_uses: None,
        context_size: fields.str("search_context_size")?.map(Into::into),
        place: place(fields, "user_location", losses)?,
    })
}

fn choice(fields: &Fields<'_>, request: &mut ChatRequest) -> Result<Option<ToolChoice>, DecodeError> {
    let Some(raw) = fields.raw("tool_choice") else { return Ok(None) };
    let expected = "`none`, `auto`, `required` or an object that names a tool";
    if let Some(word) = str_of(raw) {
        return match &*word {
            "none" => Ok(Some(ToolChoice::None)),
            "auto" => Ok(Some(ToolChoice::Auto)),
            "required" => Ok(Some(ToolChoice::Required)),
            _ => Err(wrong_value("tool_choice", expected)),
        };
    }
    let choice = Fields::strict(raw.get(), "tool_choice").map_err(|_| wrong_type("tool_choice", expected))?;
    match &*choice.need_str("type")? {
        "function" | "custom" => Ok(Some(ToolChoice::Named(named(&choice, &mut request.losses)?))),
        "allowed_tools" => {
            choice.tell_unlisted(&["type", "mode", "tools"], &mut request.losses);
            let mut names = Vec::new();
            for (at, raw) in choice.list("tools")?.unwrap_or_default().into_iter().enumerate() {
                let path = format!("tool_choice.tools[{at}]");
                let entry = Fields::strict(raw.get(), path.as_str())?;
                match &*entry.need_str("type")? {
                    "function" | "custom" => names.push(named(&entry, &mut request.losses)?),
                    // Others have no name by which they could be picked elsewhere.
                    _ => request.losses.push(loss(path, LossAction::Dropped)),
                }
            }
            let required = choice.str("mode")?.as_deref() == Some("required");
            Ok(Some(ToolChoice::Allowed { required, names }))
        }
        kind if is_web_search(kind) => {
            choice.tell_unlisted(&["type"], &mut request.losses);
            Ok(Some(ToolChoice::WebSearch))
        }
        // A tool that only this dialect has.
        _ => {
            request.extras.members.push(("tool_choice".to_owned(), raw.to_owned()));
            Ok(None)
        }
    }
}

fn named(choice: &Fields<'_>, losses: &mut Vec<Loss>) -> Result<String, DecodeError> {
    choice.tell_unlisted(&["type", "namespace", "name"], losses);
    Ok(flat_name(choice.str("namespace")?.as_deref(), &choice.need_str("name")?))
}
