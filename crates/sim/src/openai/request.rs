//! What stands around the conversation.

use serde_json::Value;

use crate::{
    ask::{Ask, Choice, Format, Tool, Wish},
    check::At,
    dialect::Incoming,
    openai::{OpenAi, schema, turns},
    refusal::Refusal,
};

const FIELDS: &[&str] = &[
    "model",
    "messages",
    "audio",
    "frequency_penalty",
    "function_call",
    "functions",
    "logit_bias",
    "logprobs",
    "max_completion_tokens",
    "max_tokens",
    "metadata",
    "modalities",
    "moderation",
    "n",
    "parallel_tool_calls",
    "prediction",
    "presence_penalty",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "reasoning_effort",
    "response_format",
    "safety_identifier",
    "seed",
    "service_tier",
    "stop",
    "store",
    "stream",
    "stream_options",
    "temperature",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "user",
    "verbosity",
    "web_search_options",
];
const EFFORTS: &[&str] = &["none", "minimal", "low", "medium", "high", "xhigh", "max"];

/// Judges a request and reads what it asks for.
pub(crate) fn read(incoming: &Incoming<'_>) -> Result<Ask, Refusal> {
    let root = At::root(incoming.body, &OpenAi);
    root.known(&[FIELDS])?;
    let mut ask = Ask { model: incoming.model.to_owned(), answers: 1, ..Ask::default() };
    options(&root, &mut ask)?;
    tools(&root, &mut ask)?;
    turns::read(&root.need("messages")?, incoming.script, &mut ask)?;
    Ok(ask)
}

fn options(root: &At<'_>, ask: &mut Ask) -> Result<(), Refusal> {
    if let Some(stream) = root.get("stream") {
        ask.stream = stream.bool()?;
    }
    if let Some(options) = root.get("stream_options") {
        options.known(&[&["include_usage", "include_obfuscation"]])?;
        if !ask.stream {
            return Err(options.wrong("is only allowed when 'stream' is true"));
        }
        if let Some(include) = options.get("include_usage") {
            ask.include_usage = include.bool()?;
        }
        if let Some(obfuscation) = options.get("include_obfuscation") {
            obfuscation.bool()?;
        }
    }
    for (name, min, max) in [
        ("temperature", 0.0, 2.0),
        ("top_p", 0.0, 1.0),
        ("frequency_penalty", -2.0, 2.0),
        ("presence_penalty", -2.0, 2.0),
    ] {
        if let Some(number) = root.get(name) {
            number.number(min, max)?;
        }
    }
    for name in ["logprobs", "store", "parallel_tool_calls"] {
        if let Some(flag) = root.get(name) {
            flag.bool()?;
        }
    }
    for name in ["user", "safety_identifier", "prompt_cache_key"] {
        if let Some(text) = root.get(name) {
            text.str()?;
        }
    }
    for (name, allowed) in [
        ("reasoning_effort", EFFORTS),
        ("verbosity", &["low", "medium", "high"]),
        ("service_tier", &["auto", "default", "flex", "scale", "priority", "fast"]),
        ("prompt_cache_retention", &["in_memory", "in-memory", "24h"]),
    ] {
        if let Some(choice) = root.get(name) {
            choice.one_of(allowed)?;
        }
    }
    ask.wish = match root.get("reasoning_effort").and_then(|effort| effort.value.as_str()) {
        None => Wish::Unsaid,
        Some("none") => Wish::Off,
        Some(_) => Wish::Shown,
    };
    if let Some(n) = root.get("n") {
        ask.answers = usize::try_from(n.integer(1)?)
            .ok()
            .filter(|n| *n <= 128)
            .ok_or_else(|| n.wrong("is at most 128"))?;
    }
    if let Some(top) = root.get("top_logprobs") {
        top.integer(0)?;
        if !root.get("logprobs").is_some_and(|flag| *flag.value == Value::Bool(true)) {
            return Err(top.wrong("needs 'logprobs' to be true"));
        }
    }
    if let Some(seed) = root.get("seed")
        && !(seed.value.is_i64() || seed.value.is_u64())
    {
        return Err(seed.wrong("must be a whole number"));
    }
    match (root.get("max_tokens"), root.get("max_completion_tokens")) {
        (Some(old), Some(_)) => return Err(old.wrong("cannot stand beside 'max_completion_tokens'")),
        (Some(limit), None) | (None, Some(limit)) => ask.max_tokens = Some(limit.integer(1)?),
        (None, None) => {}
    }
    if let Some(stop) = root.get("stop") {
        let stops = if stop.value.is_string() { vec![stop.clone()] } else { stop.list()? };
        if stops.len() > 4 {
            return Err(stop.wrong("has at most 4 elements"));
        }
        for stop in stops {
            ask.stops.push(stop.text()?.to_owned());
        }
    }
    metadata(root)?;
    if let Some(bias) = root.get("logit_bias") {
        for token in bias.object()?.keys() {
            bias.need(token)?.number(-100.0, 100.0)?;
        }
    }
    if let Some(format) = root.get("response_format") {
        format.known(&[&["type", "json_schema"]])?;
        ask.format = match format.need("type")?.one_of(&["text", "json_object", "json_schema"])? {
            "text" => Format::Text,
            "json_object" => Format::Object,
            _ => {
                let inner = format.need("json_schema")?;
                inner.known(&[&["name", "description", "schema", "strict"]])?;
                let name = inner.need("name")?.name(64)?;
                let wanted = inner.get("schema");
                if let Some(wanted) = &wanted
                    && inner.get("strict").map(|strict| strict.bool()).transpose()? == Some(true)
                {
                    schema::format(wanted, name)?;
                }
                Format::Schema(wanted.map_or(Value::Null, |wanted| wanted.value.clone()))
            }
        };
    }
    Ok(())
}

/// Judges `metadata`.
pub(crate) fn metadata(root: &At<'_>) -> Result<(), Refusal> {
    let Some(metadata) = root.get("metadata") else { return Ok(()) };
    if metadata.object()?.len() > 16 {
        return Err(metadata.wrong("has at most 16 members"));
    }
    for name in metadata.object()?.keys() {
        metadata.need(name)?.str()?;
    }
    Ok(())
}

fn tools(root: &At<'_>, ask: &mut Ask) -> Result<(), Refusal> {
    if let Some(tools) = root.get("tools") {
        for tool in tools.list()? {
            let found = match tool.need("type")?.one_of(&["function", "custom"])? {
                "function" => {
                    tool.known(&[&["type", "function"]])?;
                    function(&tool.need("function")?)?
                }
                _ => {
                    tool.known(&[&["type", "custom"]])?;
                    let custom = tool.need("custom")?;
                    custom.known(&[&["name", "description", "format"]])?;
                    if let Some(format) = custom.get("format") {
                        format.known(&[&["type", "grammar"]])?;
                    }
                    let name = custom.need("name")?.name(64)?.to_owned();
                    Tool { name, schema: Value::Null, free_text: true }
                }
            };
            if ask.tools.iter().any(|known| known.name == found.name) {
                return Err(tool.wrong(&format!("there is another tool named '{}'", found.name)));
            }
            ask.tools.push(found);
        }
    }
    if let Some(functions) = root.get("functions") {
        for legacy in functions.list()? {
            ask.tools.push(function(&legacy)?);
        }
    }
    if let Some(parallel) = root.get("parallel_tool_calls") {
        if ask.tools.is_empty() {
            return Err(parallel.wrong("is only allowed when 'tools' are given"));
        }
        ask.one_call = !parallel.bool()?;
    }
    let Some(choice) = root.get("tool_choice").or_else(|| root.get("function_call")) else { return Ok(()) };
    if ask.tools.is_empty() {
        return Err(choice.wrong("is only allowed when 'tools' are given"));
    }
    if choice.value.is_string() {
        ask.choice = match choice.one_of(&["none", "auto", "required"])? {
            "none" => Choice::Never,
            "auto" => Choice::Auto,
            _ => Choice::Any,
        };
        return Ok(());
    }
    let name = match choice.get("type") {
        None => choice.need("name")?,
        Some(kind) => match kind.one_of(&["function", "custom", "allowed_tools"])? {
            "allowed_tools" => {
                choice.known(&[&["type", "allowed_tools"]])?;
                let allowed = choice.need("allowed_tools")?;
                allowed.known(&[&["mode", "tools"]])?;
                let mut names = Vec::new();
                for tool in allowed.need("tools")?.list()? {
                    let kind = tool.need("type")?.one_of(&["function", "custom"])?;
                    tool.known(&[&["type", kind]])?;
                    let named = tool.need(kind)?;
                    named.known(&[&["name"]])?;
                    names.push(named.need("name")?.text()?.to_owned());
                }
                ask.tools.retain(|tool| names.contains(&tool.name));
                if allowed.need("mode")?.one_of(&["auto", "required"])? == "required" {
                    ask.choice = Choice::Any;
                }
                return Ok(());
            }
            kind => {
                choice.known(&[&["type", kind]])?;
                let named = choice.need(kind)?;
                named.known(&[&["name"]])?;
                named.need("name")?
            }
        },
    };
    let wanted = name.text()?;
    if !ask.tools.iter().any(|tool| tool.name == wanted) {
        return Err(name.wrong("is not the name of a tool in 'tools'"));
    }
    ask.choice = Choice::Named(wanted.to_owned());
    Ok(())
}

fn function(function: &At<'_>) -> Result<Tool, Refusal> {
    function.known(&[&["name", "description", "parameters", "strict"]])?;
    let name = function.need("name")?.name(64)?.to_owned();
    if let Some(description) = function.get("description") {
        description.str()?;
    }
    let strict = function.get("strict").map(|strict| strict.bool()).transpose()?;
    let mut wanted = Value::Null;
    if let Some(parameters) = function.get("parameters") {
        let members = parameters.object()?;
        if !members.is_empty() && members.get("type").and_then(Value::as_str) != Some("object") {
            return Err(parameters.wrong("must be a schema of type 'object'"));
        }
        if strict == Some(true) {
            schema::function(&parameters, &name)?;
        }
        wanted = parameters.value.clone();
    }
    if wanted.is_null() || wanted.as_object().is_some_and(serde_json::Map::is_empty) {
        wanted = serde_json::json!({ "type": "object", "properties": {} });
    }
    Ok(Tool { name, schema: wanted, free_text: false })
}
