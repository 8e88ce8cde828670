//! The messages of a conversation.

use serde_json::Value;

use crate::{
    anthropic::request::Reader,
    check::At,
    refusal::Refusal,
    signature::{self, Kind},
};

/// What a message's blocks say to the pairing of calls and results.
#[derive(Default)]
pub(crate) struct Pairing {
    calls: Vec<String>,
    results: Vec<String>,
    result_text: Vec<String>,
    /// A block that is not a result was seen.
    other: bool,
    /// The last block is a thought.
    ends_in_thoughts: bool,
}

impl Reader {
    /// Judges the messages: their roles, their blocks, and that calls and results belong together.
    pub(crate) fn messages(&mut self, messages: &At<'_>, system_turns: bool) -> Result<(), Refusal> {
        let list = messages.list()?;
        let last = list.len() - 1;
        let mut open: Vec<String> = Vec::new();
        let mut previous = "";
        // Of the assistant's last message.
        let mut first_block: Option<At<'_>> = None;
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
                    return Err(content.wrong(&format!(
                        "unexpected `tool_use_id` found in `tool_result` blocks: {stranger}. Each `tool_result` block \
                         must have a corresponding `tool_use` block in the previous message."
                    )));
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
                return Err(unanswered(message, &open));
            }
            if role == "assistant" {
                if pairing.ends_in_thoughts {
                    return Err(
                        message.wrong("The final block in an assistant message cannot be `thinking`.")
                    );
                }
                open = pairing.calls;
                self.ask.tool_result = None;
                first_block = content.array().ok().and_then(|blocks| blocks.into_iter().next());
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
        if !open.is_empty() {
            return Err(unanswered(list.last().unwrap_or(messages), &open));
        }
        // Thoughts that led to calls are wanted back with their results; no others are.
        if self.gives_thoughts && self.ask.tool_result.is_some() {
            return first_block.map_or(Ok(()), |block| led_by_thoughts(&block));
        }
        Ok(())
    }

    /// A string or blocks of these types; their text goes to `text`.
    pub(crate) fn blocks(
        &mut self,
        content: &At<'_>,
        allowed: &[&str],
        text: &mut String,
    ) -> Result<Pairing, Refusal> {
        let mut pairing = Pairing::default();
        if let Some(plain) = content.value.as_str() {
            self.ask.characters += plain.chars().count();
            text.push_str(plain);
            return Ok(pairing);
        }
        for block in content.array()? {
            self.mark(&block)?;
            let kind = block.need("type")?.one_of(allowed)?;
            pairing.ends_in_thoughts = kind.ends_with("thinking");
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
                        return Err(said.wrong("text content blocks must be non-empty"));
                    }
                    if said.str()?.trim().is_empty() {
                        return Err(said.wrong("text content blocks must contain non-whitespace text"));
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
                    let thoughts = block.need("thinking")?.str()?;
                    let signature = block.need("signature")?.str()?;
                    if !signature::holds(signature, Kind::Thinking, &[thoughts]) {
                        return Err(block.wrong("Invalid `signature` in `thinking` block"));
                    }
                }
                "redacted_thinking" => {
                    block.known(&[&["type", "data"]])?;
                    if !signature::holds(block.need("data")?.text()?, Kind::Redacted, &[]) {
                        return Err(block.wrong("Invalid `data` in `redacted_thinking` block"));
                    }
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
}

fn unanswered(message: &At<'_>, calls: &[String]) -> Refusal {
    message.wrong(&format!(
        "`tool_use` ids were found without `tool_result` blocks immediately after: {}. Each `tool_use` block must have a \
         corresponding `tool_result` block in the next message.",
        calls.join(", ")
    ))
}

fn led_by_thoughts(block: &At<'_>) -> Result<(), Refusal> {
    let kind = block.need("type")?;
    match kind.str()? {
        "thinking" | "redacted_thinking" => Ok(()),
        other => Err(kind.wrong(&format!(
            "Expected `thinking` or `redacted_thinking`, but found `{other}`. When `thinking` is enabled, a final \
             `assistant` message must start with a thinking block (preceeding the lastmost set of `tool_use` and \
             `tool_result` blocks). We recommend you include thinking blocks from previous turns. To avoid this \
             requirement, disable `thinking`."
        ))),
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
