//! Messages, judged as the vendor's reference describes them (<https://docs.anthropic.com/en/api/messages>).

pub(crate) mod answer;

use http::HeaderMap;
use serde_json::Value;

use crate::{
    Vendor,
    ask::{Ask, Choice, Format, Tool},
    check::At,
    refusal::Refusal,
};

/// Signatures of this simulator begin like this; others are refused, as the vendor refuses those of strangers.
pub(crate) const SIGNATURE: &str = "c2ltdWxhdG9y";

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
const MAX_CACHE_MARKS: usize = 4;

/// Judges a request and reads what it asks for.
pub(crate) fn read(headers: &HeaderMap, body: &Value, counting: bool) -> Result<Ask, Refusal> {
    version(headers)?;
    let root = At::root(body, Vendor::Anthropic);
    if counting {
        root.known(&[FIELDS])?;
    } else {
        root.known(&[FIELDS, CALL_FIELDS])?;
    }
    let mut reader = Reader { ask: Ask { answers: 1, ..Ask::default() }, cache_marks: 0, thinking: false };
    reader.ask.model = root.need("model")?.text()?.to_owned();
    if !counting {
        reader.ask.max_tokens = Some(root.need("max_tokens")?.integer(0)?);
    }
    reader.mark(&root)?;
    reader.options(&root)?;
    reader.tools(&root)?;
    if let Some(system) = root.get("system") {
        reader.blocks(&system, &["text"], &mut String::new())?;
    }
    let betas = headers.get_all("anthropic-beta");
    let system_turns = betas.iter().any(|beta| beta.to_str().is_ok_and(|beta| beta.contains(SYSTEM_BETA)));
    reader.messages(&root.need("messages")?, system_turns)?;
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
        Some(Ok("2023-06-01" | "2023-01-01")) => Ok(()),
        Some(_) => Err(Refusal::field("anthropic-version", "invalid_value", "there is no such version")),
    }
}

struct Reader {
    ask: Ask,
    cache_marks: usize,
    thinking: bool,
}

/// What a message's blocks say to the pairing of calls and results.
#[derive(Default)]
struct Pairing {
    calls: Vec<String>,
    results: Vec<String>,
    result_text: Vec<String>,
    /// A block that is not a result was seen.
    other: bool,
}

impl Reader {
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

    fn messages(&mut self, messages: &At<'_>, system_turns: bool) -> Result<(), Refusal> {
        let list = messages.list()?;
        let last = list.len() - 1;
        let mut open: Vec<String> = Vec::new();
        let mut previous = "";
        for (index, message) in list.iter().enumerate() {
            self.ask.messages += 1;
            message.known(&[&["role", "content"]])?;
            let role_at = message.need("role")?;
            let role = role_at.one_of(&["user", "assistant", "system"])?;
            if role == "system" && !system_turns {
                return Err(role_at.wrong("'system' needs the beta for system messages in a conversation"));
            }
            if index == 0 && role != "user" {
                return Err(role_at.wrong("the first message must be the user's"));
            }
            let mut text = String::new();
            let content = message.need("content")?;
            let empty = match content.value {
                Value::String(text) => text.is_empty(),
                Value::Array(blocks) => blocks.is_empty(),
                _ => false,
            };
            if empty && !(role == "assistant" && index == last) {
                return Err(content.wrong("only the last message of the assistant may be empty"));
            }
            let allowed: &[&str] = match role {
                "user" => &["text", "image", "document", "search_result", "tool_result", "container_upload"],
                "system" => &["text"],
                _ => &[
                    "text",
                    "thinking",
                    "redacted_thinking",
                    "tool_use",
                    "server_tool_use",
                    "web_search_tool_result",
                    "web_fetch_tool_result",
                    "code_execution_tool_result",
                    "bash_code_execution_tool_result",
                    "text_editor_code_execution_tool_result",
                    "tool_search_tool_result",
                ],
            };
            let pairing = if empty { Pairing::default() } else { self.blocks(&content, allowed, &mut text)? };
            // Two messages of one role in a row are one turn.
            if role == "user" {
                if let Some(stranger) = pairing.results.iter().find(|id| !open.contains(id)) {
                    return Err(content
                        .wrong(&format!("tool_result '{stranger}' has no tool_use in the message before")));
                }
                open.retain(|id| !pairing.results.contains(id));
                if pairing.result_text.is_empty() {
                    self.ask.tool_result = None;
                } else {
                    self.ask.tool_result = Some(pairing.result_text.join("\n"));
                }
                if !text.is_empty() {
                    if previous == "user" && self.ask.tool_result.is_none() {
                        self.ask.last_text.push('\n');
                        self.ask.last_text.push_str(&text);
                    } else {
                        self.ask.last_text = text.clone();
                    }
                }
            }
            if !open.is_empty() && role != "system" {
                return Err(Refusal::field(
                    &message.path,
                    "invalid_value",
                    format!("tool_use without a tool_result directly after it: {}", open.join(", ")),
                ));
            }
            if role == "assistant" {
                open = pairing.calls;
                self.ask.tool_result = None;
                if index == last && text.ends_with(char::is_whitespace) {
                    return Err(
                        content.wrong("the final message of the assistant cannot end with whitespace")
                    );
                }
            }
            if role != "system" {
                previous = role;
            }
        }
        if open.is_empty() {
            return Ok(());
        }
        Err(messages.wrong(&format!("tool_use without a tool_result directly after it: {}", open.join(", "))))
    }

    /// A string or blocks of these types; their text goes to `text`.
    fn blocks(&mut self, content: &At<'_>, allowed: &[&str], text: &mut String) -> Result<Pairing, Refusal> {
        let mut pairing = Pairing::default();
        if let Some(plain) = content.value.as_str() {
            self.ask.characters += plain.chars().count();
            text.push_str(plain);
            return Ok(pairing);
        }
        for block in content.array()? {
            self.mark(&block)?;
            let kind = block.need("type")?.one_of(allowed)?;
            if kind == "tool_result" {
                if pairing.other {
                    return Err(block.wrong("tool_result blocks come before all others"));
                }
            } else {
                pairing.other = true;
            }
            match kind {
                "text" => {
                    block.known(&[&["type", "text", "cache_control", "citations"]])?;
                    let said = block.need("text")?;
                    if said.str()?.is_empty() {
                        return Err(said.wrong("text blocks must not be empty"));
                    }
                    self.ask.characters += said.str()?.chars().count();
                    text.push_str(said.str()?);
                }
                "image" => {
                    block.known(&[&["type", "source", "cache_control"]])?;
                    source(&block.need("source")?, &["image/jpeg", "image/png", "image/gif", "image/webp"])?;
                    self.ask.images += 1;
                }
                "document" => {
                    block.known(&[&["type", "source", "title", "context", "citations", "cache_control"]])?;
                    source(&block.need("source")?, &["application/pdf", "text/plain"])?;
                }
                "thinking" => {
                    block.known(&[&["type", "thinking", "signature"]])?;
                    block.need("thinking")?.str()?;
                    let signature = block.need("signature")?;
                    if !signature.str()?.starts_with(SIGNATURE) {
                        return Err(signature.wrong("this signature is not one of ours"));
                    }
                }
                "redacted_thinking" => {
                    block.known(&[&["type", "data"]])?;
                    block.need("data")?.text()?;
                }
                "tool_use" => {
                    block.known(&[&["type", "id", "name", "input", "cache_control", "caller"]])?;
                    let id = block.need("id")?;
                    if pairing.calls.iter().any(|known| Some(known.as_str()) == id.value.as_str()) {
                        return Err(id.wrong("ids of tool_use blocks must be unique"));
                    }
                    pairing.calls.push(id.name(usize::MAX)?.to_owned());
                    block.need("name")?.name(200)?;
                    let input = block.need("input")?;
                    input.object()?;
                    self.ask.characters += input.value.to_string().len();
                }
                "tool_result" => {
                    block.known(&[&["type", "tool_use_id", "content", "is_error", "cache_control"]])?;
                    let id = block.need("tool_use_id")?;
                    if pairing.results.iter().any(|known| Some(known.as_str()) == id.value.as_str()) {
                        return Err(id.wrong("each tool_use has a single result"));
                    }
                    pairing.results.push(id.name(usize::MAX)?.to_owned());
                    if let Some(flag) = block.get("is_error") {
                        flag.bool()?;
                    }
                    let mut result = String::new();
                    if let Some(inner) = block.get("content") {
                        let allowed = ["text", "image", "document", "search_result", "tool_reference"];
                        self.blocks(&inner, &allowed, &mut result)?;
                    }
                    pairing.result_text.push(result);
                }
                // Blocks of the vendor's own tools are taken as they come.
                _ => {}
            }
        }
        Ok(pairing)
    }

    fn mark(&mut self, holder: &At<'_>) -> Result<(), Refusal> {
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

fn source(source: &At<'_>, media_types: &[&str]) -> Result<(), Refusal> {
    match source.need("type")?.one_of(&["base64", "url", "file", "text", "content"])? {
        "base64" => {
            source.known(&[&["type", "media_type", "data"]])?;
            source.need("media_type")?.one_of(media_types)?;
            source.need("data")?.text()?;
        }
        "url" => {
            source.known(&[&["type", "url"]])?;
            let url = source.need("url")?;
            if !(url.text()?.starts_with("https://") || url.text()?.starts_with("http://")) {
                return Err(url.wrong("must be an http(s) address"));
            }
        }
        "file" => {
            source.need("file_id")?.text()?;
        }
        "text" => {
            source.known(&[&["type", "media_type", "data"]])?;
            source.need("data")?.text()?;
        }
        _ => {
            source.need("content")?;
        }
    }
    Ok(())
}
