//! The tools of a request as they are read: no name twice, and none chosen that is not there.

use std::collections::{HashMap, HashSet};

use crate::{
    DecodeError, EncodeError,
    ir::{ChatRequest, LossAction, Tool, ToolChoice, ToolKind, loss},
    json_in::wrong_value,
};

/// The names so far, each with the text of its entry.
#[derive(Debug, Default)]
pub(crate) struct ToolList<'a> {
    seen: HashMap<String, &'a str>,
}

impl<'a> ToolList<'a> {
    /// Adds a tool to the request. One that is there already in the same words is left out; another of its name is
    /// refused.
    pub(crate) fn push(
        &mut self,
        tool: Tool,
        entry: &'a str,
        path: String,
        request: &mut ChatRequest,
    ) -> Result<(), DecodeError> {
        let Some(name) = tool.name() else {
            request.tools.push(tool);
            return Ok(());
        };
        match self.seen.get(name) {
            Some(other) if *other == entry => request.losses.push(loss(path, LossAction::Dropped)),
            Some(_) => {
                let message = format!("`{path}` has the name of an earlier tool: {name}");
                return Err(DecodeError { message, ..wrong_value(format!("{path}.name"), "") });
            }
            None => {
                self.seen.insert(name.to_owned(), entry);
                request.tools.push(tool);
            }
        }
        Ok(())
    }
}

/// Whether a tool that another vendor runs may be left out as long as there are others. Agents list a search of the web
/// whether they need it or not, and tools that a search among tools would have found are offered without it.
pub(crate) fn is_spare(tool: &Tool) -> bool {
    match &tool.kind {
        ToolKind::WebSearch(_) => true,
        ToolKind::Opaque { raw, .. } => raw.get().contains("\"tool_search_tool_"),
        ToolKind::Function { .. } | ToolKind::Custom { .. } => false,
    }
}

/// The names of the tools that take free text.
pub(crate) fn custom_names(request: &ChatRequest) -> HashSet<&str> {
    let names = request.tools.iter().filter_map(|tool| match &tool.kind {
        ToolKind::Custom { name, .. } => Some(name.as_str()),
        ToolKind::Function { .. } | ToolKind::WebSearch(_) | ToolKind::Opaque { .. } => None,
    });
    names.collect()
}

/// That a choice names tools that are there, in a request that is to be written for another dialect.
pub(crate) fn check_chosen(request: &ChatRequest) -> Result<(), EncodeError> {
    check_choice(request).map_err(|DecodeError { code, param, message }| EncodeError { code, param, message })
}

/// A choice must name tools that are there.
pub(crate) fn check_choice(request: &ChatRequest) -> Result<(), DecodeError> {
    let names: &[String] = match &request.tool_choice {
        Some(ToolChoice::Named(name)) => std::slice::from_ref(name),
        Some(ToolChoice::Allowed { names, .. }) => names,
        _ => return Ok(()),
    };
    let defined: HashSet<&str> = request.tools.iter().filter_map(Tool::name).collect();
    match names.iter().find(|name| !defined.contains(name.as_str())) {
        Some(name) => {
            let message = format!("`tool_choice` names a tool that is not among `tools`: {name}");
            Err(DecodeError { message, ..wrong_value("tool_choice", "") })
        }
        None => Ok(()),
    }
}
