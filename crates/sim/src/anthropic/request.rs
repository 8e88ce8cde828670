//! What stands around the conversation.

use http::HeaderMap;
use serde_json::Value;

use crate::{
    anthropic::Anthropic,
    ask::{Ask, Choice, Format, Tool, Wish},
    check::At,
    dialect::Incoming,
    refusal::Refusal,
    script::Thinking,
};

const FIELDS: &[&str] = &[
    "model",
    "messages",
    "system",
    "tools",
    "tool_choice",
    "thinking",
    "output_config",
    "cache_control",
    "context_management",
    "diagnostics",
    "speed",
    "inference_geo",
];
const CALL_FIELDS: &[&str] = &[
    "max_tokens",
    "stop_sequences",
    "stream",
    "metadata",
    "service_tier",
    "container",
    "temperature",
    "top_p",
    "top_k",
    "mcp_servers",
];
const SYSTEM_BETA: &str = "mid-conversation-system-2026-04-07";
const SPEED_BETA: &str = "fast-mode-2026-02-01";
const MAX_CACHE_MARKS: usize = 4;
const MAX_DEPTH: usize = 32;

/// A request while it is read.
pub(crate) struct Reader {
    pub(crate) ask: Ask,
    cache_marks: usize,
    /// The request wants thoughts.
    pub(crate) thinking: bool,
    /// The request asks for thoughts by their number of tokens, and the model has some.
    pub(crate) gives_thoughts: bool,
}

/// Judges a request and reads what it asks for.
pub(crate) fn read(incoming: &Incoming<'_>, counting: bool) -> Result<Ask, Refusal> {
    version(incoming.headers)?;
    let root = At::root(incoming.body, &Anthropic);
    if counting {
        root.known(&[FIELDS])?;
    } else {
        root.known(&[FIELDS, CALL_FIELDS])?;
    }
    let ask = Ask { model: incoming.model.to_owned(), answers: 1, ..Ask::default() };
    let mut reader = Reader { ask, cache_marks: 0, thinking: false, gives_thoughts: false };
    if !counting {
        reader.ask.max_tokens = Some(root.need("max_tokens")?.integer(0)?);
    }
    reader.mark(&root)?;
    reader.options(&root)?;
    reader.speed(&root, incoming.headers)?;
    let enabled = incoming.body.pointer("/thinking/type").and_then(Value::as_str) == Some("enabled");
    reader.gives_thoughts = enabled && incoming.script.thinking != Thinking::Never;
    reader.tools(&root)?;
    if let Some(system) = root.get("system") {
        reader.blocks(&system, &["text"], &mut String::new())?;
    }
    reader.messages(&root.need("messages")?, has_beta(incoming.headers, SYSTEM_BETA))?;
    if reader.cache_marks > MAX_CACHE_MARKS {
        let found = reader.cache_marks;
        return Err(Refusal::request(format!(
            "at most {MAX_CACHE_MARKS} blocks may have cache_control, found {found}"
        )));
    }
    Ok(reader.ask)
}

fn version(headers: &HeaderMap) -> Result<(), Refusal> {
    match headers.get("anthropic-version").map(|version| version.to_str()) {
        None => {
            Err(Refusal::field("anthropic-version", "missing_required_parameter", "this header is required"))
        }
        Some(Ok("2026-10-21" | "2023-06-01" | "2023-01-01")) => Ok(()),
        Some(_) => Err(Refusal::field("anthropic-version", "invalid_value", "there is no such version")),
    }
}

fn has_beta(headers: &HeaderMap, name: &str) -> bool {
    headers
        .get_all("anthropic-beta")
        .iter()
        .any(|betas| betas.to_str().is_ok_and(|betas| betas.contains(name)))
}

impl Reader {
    /// A speed needs its beta, whatever it is.
    fn speed(&mut self, root: &At<'_>, headers: &HeaderMap) -> Result<(), Refusal> {
        let Some(speed) = root.get("speed") else { return Ok(()) };
        if !has_beta(headers, SPEED_BETA) {
            return Err(speed.wrong("Extra inputs are not permitted"));
        }
        self.ask.fast = speed.one_of(&["standard", "fast"])? == "fast";
        Ok(())
    }

    fn options(&mut self, root: &At<'_>) -> Result<(), Refusal> {
        if let Some(stream) = root.get("stream") {
            self.ask.stream = stream.bool()?;
        }
        for name in ["temperature", "top_p"] {
            if let Some(number) = root.get(name) {
                number.number(0.0, 1.0)?;
            }
        }
        if let Some(k) = root.get("top_k") {
            k.integer(0)?;
        }
        for stop in root.get("stop_sequences").map(|stops| stops.array()).transpose()?.unwrap_or_default() {
            if stop.str()?.trim().is_empty() {
                return Err(stop.wrong("each stop sequence must contain non-whitespace"));
            }
            self.ask.stops.push(stop.str()?.to_owned());
        }
        if let Some(metadata) = root.get("metadata") {
            metadata.known(&[&["user_id"]])?;
            if let Some(user) = metadata.get("user_id") {
                user.str()?;
            }
        }
        if let Some(tier) = root.get("service_tier") {
            tier.one_of(&["auto", "standard_only"])?;
        }
        if let Some(thinking) = root.get("thinking") {
            thinking.known(&[&["type", "budget_tokens", "display"]])?;
            match thinking.need("type")?.one_of(&["enabled", "adaptive", "disabled", "between_tools"])? {
                "enabled" => {
                    let budget = thinking.need("budget_tokens")?;
                    let tokens = budget.integer(1024)?;
                    if self.ask.max_tokens.is_some_and(|limit| limit <= tokens) {
                        return Err(budget.wrong("must be less than max_tokens"));
                    }
                    self.thinking = true;
                }
                "disabled" => {}
                _ => self.thinking = true,
            }
            let display = thinking.get("display").map(|display| display.one_of(&["summarized", "omitted"]));
            self.ask.wish = match display.transpose()? {
                _ if !self.thinking => Wish::Off,
                Some("omitted") => Wish::Hidden,
                _ => Wish::Shown,
            };
        }
        if self.thinking {
            if let Some(temperature) = root.get("temperature")
                && temperature.value.as_f64() != Some(1.0)
            {
                return Err(temperature.wrong("can only be 1 while thinking is on"));
            }
            if let Some(k) = root.get("top_k") {
                return Err(k.wrong("cannot be set while thinking is on"));
            }
        }
        if let Some(output) = root.get("output_config") {
            output.known(&[&["effort", "format"]])?;
            if let Some(effort) = output.get("effort") {
                effort.one_of(&["low", "medium", "high", "xhigh", "max"])?;
            }
            if let Some(format) = output.get("format") {
                format.known(&[&["type", "schema"]])?;
                format.need("type")?.one_of(&["json_schema"])?;
                let schema = format.need("schema")?;
                schema.object()?;
                closed(&schema, 0)?;
                self.ask.format = Format::Schema(schema.value.clone());
            }
        }
        Ok(())
    }

    fn tools(&mut self, root: &At<'_>) -> Result<(), Refusal> {
        for tool in root.get("tools").map(|tools| tools.array()).transpose()?.unwrap_or_default() {
            self.mark(&tool)?;
            let name_at = tool.need("name")?;
            if tool.get("type").is_none_or(|kind| kind.value.as_str() == Some("custom")) {
                tool.known(&[&[
                    "type",
                    "name",
                    "description",
                    "input_schema",
                    "cache_control",
                    "strict",
                    "defer_loading",
                    "input_examples",
                    "eager_input_streaming",
                    "allowed_callers",
                ]])?;
                if let Some(description) = tool.get("description") {
                    description.str()?;
                }
                let schema = tool.need("input_schema")?;
                if schema.object()?.get("type").and_then(Value::as_str) != Some("object") {
                    return Err(schema.wrong("type must be 'object'"));
                }
                if ["oneOf", "allOf", "anyOf"].iter().any(|name| schema.value.get(name).is_some()) {
                    return Err(schema.wrong("does not support oneOf, allOf, or anyOf at the top level"));
                }
                let name = name_at.name(128)?.to_owned();
                if self.ask.tools.iter().any(|known| known.name == name) {
                    return Err(name_at.wrong("tool names must be unique"));
                }
                self.ask.tools.push(Tool { name, schema: schema.value.clone(), free_text: false });
            } else {
                tool.need("type")?.text()?;
                name_at.text()?;
            }
        }
        let Some(choice) = root.get("tool_choice") else { return Ok(()) };
        choice.known(&[&["type", "name", "disable_parallel_tool_use"]])?;
        let kind = choice.need("type")?.one_of(&["auto", "any", "tool", "none"])?;
        if root.get("tools").is_none_or(|tools| tools.value.as_array().is_none_or(Vec::is_empty)) {
            return Err(choice.wrong("may only be given together with tools"));
        }
        if let Some(single) = choice.get("disable_parallel_tool_use") {
            if kind == "none" {
                return Err(single.wrong("extra fields are not permitted"));
            }
            self.ask.one_call = single.bool()?;
        }
        if self.thinking && matches!(kind, "any" | "tool") {
            return Err(choice.wrong("cannot force a tool while thinking is on"));
        }
        self.ask.choice = match kind {
            "auto" => Choice::Auto,
            "any" => Choice::Any,
            "none" => Choice::Never,
            _ => {
                let name = choice.need("name")?;
                if !self.ask.tools.iter().any(|tool| Some(tool.name.as_str()) == name.value.as_str()) {
                    return Err(name.wrong("there is no such tool"));
                }
                Choice::Named(name.str()?.to_owned())
            }
        };
        Ok(())
    }

    /// Counts a cache mark, if there is one.
    pub(crate) fn mark(&mut self, holder: &At<'_>) -> Result<(), Refusal> {
        if let Some(mark) = holder.get("cache_control") {
            mark.known(&[&["type", "ttl", "scope"]])?;
            mark.need("type")?.one_of(&["ephemeral"])?;
            if let Some(ttl) = mark.get("ttl") {
                ttl.one_of(&["5m", "1h"])?;
            }
            self.cache_marks += 1;
        }
        Ok(())
    }
}

/// Objects of an answer's schema must say that there is nothing else in them.
fn closed(schema: &At<'_>, depth: usize) -> Result<(), Refusal> {
    if depth > MAX_DEPTH {
        return Err(schema.wrong("schema is nested too deeply"));
    }
    let Some(members) = schema.value.as_object() else { return Ok(()) };
    let is_object = members.get("type").and_then(Value::as_str) == Some("object");
    if is_object && members.get("additionalProperties") != Some(&Value::Bool(false)) {
        return Err(schema.wrong("For 'object' type, 'additionalProperties' must be explicitly set to false"));
    }
    for group in ["properties", "$defs", "definitions"] {
        for name in members.get(group).and_then(Value::as_object).into_iter().flatten().map(|(name, _)| name)
        {
            closed(&schema.verbatim(group).verbatim(name), depth + 1)?;
        }
    }
    for list in ["anyOf", "allOf"] {
        if members.get(list).is_some_and(Value::is_array) {
            for branch in schema.verbatim(list).array()? {
                closed(&branch, depth + 1)?;
            }
        }
    }
    if members.contains_key("items") { closed(&schema.verbatim("items"), depth + 1) } else { Ok(()) }
}
