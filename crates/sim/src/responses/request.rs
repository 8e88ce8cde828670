//! What stands around the conversation.

use serde_json::{Value, json};

use crate::{
    ask::{Ask, Choice, Format, Tool, Wish},
    check::At,
    dialect::Incoming,
    openai::{metadata, schema},
    refusal::Refusal,
    responses::{Responses, turns},
};

const FIELDS: &[&str] = &[
    "model",
    "input",
    "instructions",
    "conversation",
    "parallel_tool_calls",
    "previous_response_id",
    "reasoning",
    "text",
    "tool_choice",
    "tools",
    "truncation",
];
const CALL_FIELDS: &[&str] = &[
    "background",
    // Not in the reference, but the vendor takes it from its own command-line client.
    "client_metadata",
    "context_management",
    "include",
    "max_output_tokens",
    "max_tool_calls",
    "metadata",
    "moderation",
    "prompt",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
    "store",
    "stream",
    "stream_options",
    "temperature",
    "top_logprobs",
    "top_p",
    "user",
];
const COUNT_FIELDS: &[&str] = &["personality"];
const EFFORTS: &[&str] = &["none", "minimal", "low", "medium", "high", "xhigh", "max"];
const INCLUDABLE: &[&str] = &[
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
    "reasoning.encrypted_content",
    "message.output_text.logprobs",
];
/// Tools that the vendor runs itself, or whose shape it knows.
const HOSTED: &[&str] = &[
    "web_search",
    "web_search_2025_08_26",
    "web_search_preview",
    "web_search_preview_2025_03_11",
    "file_search",
    "code_interpreter",
    "computer",
    "computer_use_preview",
    "image_generation",
    "mcp",
    "local_shell",
    "shell",
    "apply_patch",
    "tool_search",
];

/// Judges a request and reads what it asks for.
pub(crate) fn read(incoming: &Incoming<'_>) -> Result<Ask, Refusal> {
    let root = At::root(incoming.body, &Responses);
    root.known(&[FIELDS, CALL_FIELDS])?;
    let mut ask = begin(incoming);
    options(&root, &mut ask)?;
    conversation(&root, incoming.script.replay, &mut ask)?;
    Ok(ask)
}

/// Judges a request for a number of tokens.
pub(crate) fn counted(incoming: &Incoming<'_>) -> Result<Ask, Refusal> {
    let root = At::root(incoming.body, &Responses);
    root.known(&[FIELDS, COUNT_FIELDS])?;
    let mut ask = begin(incoming);
    conversation(&root, incoming.script.replay, &mut ask)?;
    Ok(ask)
}

fn begin(incoming: &Incoming<'_>) -> Ask {
    let mut ask = Ask { model: incoming.model.to_owned(), answers: 1, ..Ask::default() };
    for (name, value) in incoming.body.as_object().into_iter().flatten().filter(|(name, _)| *name != "input")
    {
        ask.echo.insert(name.clone(), value.clone());
    }
    ask
}

/// What decides the answer and counts as prompt.
fn conversation(root: &At<'_>, replay: bool, ask: &mut Ask) -> Result<(), Refusal> {
    for (name, code) in [
        ("previous_response_id", "previous_response_not_found"),
        ("conversation", "conversation_not_found"),
        ("prompt", "prompt_not_found"),
    ] {
        // Nothing is kept here, so there is nothing to go on from.
        if let Some(id) = root.get(name) {
            let id = id.value.get("id").unwrap_or(id.value);
            return Err(Refusal::field(name, code, format!("'{name}' with id {id} not found.")));
        }
    }
    if let Some(reasoning) = root.get("reasoning") {
        ask.wish = wish(&reasoning)?;
    }
    if let Some(text) = root.get("text") {
        text.known(&[&["format", "verbosity"]])?;
        if let Some(verbosity) = text.get("verbosity") {
            verbosity.one_of(&["low", "medium", "high"])?;
        }
        if let Some(wanted) = text.get("format") {
            ask.format = format(&wanted)?;
        }
    }
    if let Some(truncation) = root.get("truncation") {
        truncation.one_of(&["auto", "disabled"])?;
    }
    tools(root, ask)?;
    if let Some(instructions) = root.get("instructions") {
        ask.characters += instructions.str()?.chars().count();
    }
    turns::read(&root.need("input")?, replay, ask)
}

fn options(root: &At<'_>, ask: &mut Ask) -> Result<(), Refusal> {
    if let Some(stream) = root.get("stream") {
        ask.stream = stream.bool()?;
    }
    if let Some(options) = root.get("stream_options") {
        options.known(&[&["include_obfuscation"]])?;
        if !ask.stream {
            return Err(options.wrong("is only allowed when 'stream' is true"));
        }
        if let Some(obfuscation) = options.get("include_obfuscation") {
            obfuscation.bool()?;
        }
    }
    if let Some(store) = root.get("store") {
        ask.forgets = !store.bool()?;
    }
    if let Some(background) = root.get("background")
        && background.bool()?
    {
        return Err(background.wrong("nothing is kept here, so nothing can be fetched later"));
    }
    for (name, max) in [("temperature", 2.0), ("top_p", 1.0)] {
        if let Some(number) = root.get(name) {
            number.number(0.0, max)?;
        }
    }
    if let Some(top) = root.get("top_logprobs")
        && top.integer(0)? > 20
    {
        return Err(top.wrong("is at most 20"));
    }
    if let Some(calls) = root.get("max_tool_calls") {
        calls.integer(1)?;
    }
    if let Some(limit) = root.get("max_output_tokens") {
        ask.max_tokens = Some(limit.integer(16)?);
    }
    for name in ["user", "safety_identifier", "prompt_cache_key"] {
        if let Some(text) = root.get(name) {
            text.str()?;
        }
    }
    for (name, allowed) in [
        ("service_tier", &["auto", "default", "flex", "scale", "priority", "fast"][..]),
        ("prompt_cache_retention", &["in_memory", "24h"]),
    ] {
        if let Some(choice) = root.get(name) {
            choice.one_of(allowed)?;
        }
    }
    for wanted in root.get("include").map(|list| list.array()).transpose()?.unwrap_or_default() {
        ask.encrypted |= wanted.one_of(INCLUDABLE)? == "reasoning.encrypted_content";
    }
    for name in ["client_metadata", "prompt_cache_options", "moderation"] {
        if let Some(object) = root.get(name) {
            object.object()?;
        }
    }
    metadata(root)
}

fn wish(reasoning: &At<'_>) -> Result<Wish, Refusal> {
    reasoning.known(&[&["effort", "summary", "generate_summary", "context", "mode"]])?;
    let effort = reasoning.get("effort").map(|effort| effort.one_of(EFFORTS)).transpose()?;
    let summary = reasoning.get("summary").or_else(|| reasoning.get("generate_summary"));
    let summary = summary.map(|summary| summary.one_of(&["auto", "concise", "detailed"])).transpose()?;
    Ok(match (effort, summary) {
        (Some("none"), _) => Wish::Off,
        (_, Some(_)) => Wish::Shown,
        (Some(_), None) => Wish::Hidden,
        (None, None) => Wish::Unsaid,
    })
}

fn format(format: &At<'_>) -> Result<Format, Refusal> {
    match format.need("type")?.one_of(&["text", "json_object", "json_schema"])? {
        "text" => {
            format.known(&[&["type"]])?;
            Ok(Format::Text)
        }
        "json_object" => {
            format.known(&[&["type"]])?;
            Ok(Format::Object)
        }
        _ => {
            format.known(&[&["type", "name", "description", "schema", "strict"]])?;
            let name = format.need("name")?.name(64)?;
            let wanted = format.need("schema")?;
            wanted.object()?;
            if format.get("strict").map(|strict| strict.bool()).transpose()? == Some(true) {
                schema::format(&wanted, name)?;
            }
            Ok(Format::Schema(wanted.value.clone()))
        }
    }
}

fn tools(root: &At<'_>, ask: &mut Ask) -> Result<(), Refusal> {
    for tool in root.get("tools").map(|tools| tools.array()).transpose()?.unwrap_or_default() {
        let kind = tool.need("type")?;
        match kind.str()? {
            "function" => {
                let function = function(&tool)?;
                if ask.tools.iter().any(|known| known.name == function.name) {
                    return Err(tool.wrong(&format!("there is another tool named '{}'", function.name)));
                }
                ask.tools.push(function);
            }
            "custom" => {
                tool.known(&[&[
                    "type",
                    "name",
                    "description",
                    "format",
                    "defer_loading",
                    "allowed_callers",
                ]])?;
                if let Some(format) = tool.get("format") {
                    format.known(&[&["type", "syntax", "definition"]])?;
                }
                let name = tool.need("name")?.name(64)?.to_owned();
                ask.tools.push(Tool { name, schema: Value::Null, free_text: true });
            }
            "namespace" => {
                tool.known(&[&["type", "name", "description", "tools"]])?;
                tool.need("name")?.name(64)?;
                for inner in tool.need("tools")?.list()? {
                    // These are not called here, as a call would have to name the space as well.
                    if inner.need("type")?.one_of(&["function", "custom"])? == "function" {
                        function(&inner)?;
                    }
                }
            }
            hosted if HOSTED.contains(&hosted) => {}
            _ => {
                return Err(
                    kind.wrong(&format!("is not one of function, custom, namespace, {}", HOSTED.join(", ")))
                );
            }
        }
    }
    if let Some(parallel) = root.get("parallel_tool_calls") {
        ask.one_call = !parallel.bool()?;
    }
    let Some(choice) = root.get("tool_choice") else { return Ok(()) };
    if choice.value.is_string() {
        ask.choice = match choice.one_of(&["none", "auto", "required"])? {
            "none" => Choice::Never,
            "required" if ask.tools.is_empty() => {
                return Err(choice.wrong("'required' needs 'tools'"));
            }
            "required" => Choice::Any,
            _ => Choice::Auto,
        };
        return Ok(());
    }
    match choice.need("type")?.str()? {
        "function" | "custom" => {
            let name = choice.need("name")?;
            choice.known(&[&["type", "name"]])?;
            if !ask.tools.iter().any(|tool| Some(tool.name.as_str()) == name.value.as_str()) {
                return Err(name.wrong("is not the name of a tool in 'tools'"));
            }
            ask.choice = Choice::Named(name.str()?.to_owned());
        }
        "allowed_tools" => {
            choice.known(&[&["type", "mode", "tools"]])?;
            if choice.need("mode")?.one_of(&["auto", "required"])? == "required" {
                ask.choice = Choice::Any;
            }
            let mut names = Vec::new();
            for allowed in choice.need("tools")?.list()? {
                allowed.known(&[&["type", "name", "server_label"]])?;
                if let Some(name) = allowed.get("name") {
                    names.push(name.text()?.to_owned());
                }
            }
            ask.tools.retain(|tool| names.contains(&tool.name));
        }
        hosted if HOSTED.contains(&hosted) => {}
        _ => return Err(choice.need("type")?.wrong("is not a tool that can be chosen")),
    }
    Ok(())
}

fn function(tool: &At<'_>) -> Result<Tool, Refusal> {
    tool.known(&[&[
        "type",
        "name",
        "description",
        "parameters",
        "strict",
        "defer_loading",
        "output_schema",
        "allowed_callers",
    ]])?;
    let name = tool.need("name")?.name(64)?.to_owned();
    if let Some(description) = tool.get("description") {
        description.str()?;
    }
    let strict = tool.get("strict").map(|strict| strict.bool()).transpose()?;
    let mut wanted = json!({"type": "object", "properties": {}});
    if let Some(parameters) = tool.get("parameters") {
        let members = parameters.object()?;
        if !members.is_empty() && members.get("type").and_then(Value::as_str) != Some("object") {
            return Err(parameters.wrong("must be a schema of type 'object'"));
        }
        if strict == Some(true) {
            schema::function(&parameters, &name)?;
        }
        if !members.is_empty() {
            wanted = parameters.value.clone();
        }
    }
    Ok(Tool { name, schema: wanted, free_text: false })
}
