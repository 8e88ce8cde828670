//! The items of a conversation.

use crate::{
    ask::Ask,
    check::At,
    refusal::Refusal,
    responses::answer::required_reasoning,
    signature::{self, Kind},
};

const MARK: &[&str] = &["prompt_cache_breakpoint"];
/// Calls of tools that the vendor runs itself, and other items that are taken as they come.
const OTHERS: &[&str] = &[
    "web_search_call",
    "file_search_call",
    "code_interpreter_call",
    "computer_call",
    "computer_call_output",
    "image_generation_call",
    "local_shell_call",
    "local_shell_call_output",
    "shell_call",
    "shell_call_output",
    "apply_patch_call",
    "apply_patch_call_output",
    "mcp_list_tools",
    "mcp_approval_request",
    "mcp_approval_response",
    "mcp_call",
    "tool_search_call",
    "tool_search_output",
    "additional_tools",
    "compaction",
    "compaction_trigger",
];

#[derive(Default)]
struct Reader {
    /// Calls without a result so far.
    open: Vec<String>,
    /// Results since the last other item.
    results: Vec<String>,
    /// A `reasoning` item that stands directly before.
    thought: Option<String>,
    /// All `reasoning` items so far.
    thoughts: Vec<String>,
    /// How many there were when the user last said something.
    thoughts_before: usize,
    /// What to say of the first call since then that has none before it.
    unthought: Option<String>,
    /// The script wants calls since then to have thoughts before them.
    replay: bool,
}

/// Judges the input: its items, their parts, that calls and results belong together, and that reasoning is as it was.
pub(crate) fn read(input: &At<'_>, replay: bool, ask: &mut Ask) -> Result<(), Refusal> {
    if let Some(text) = input.value.as_str() {
        ask.messages = 1;
        ask.characters += text.chars().count();
        text.clone_into(&mut ask.last_text);
        return Ok(());
    }
    let mut reader = Reader { replay, ..Reader::default() };
    for item in input.list()? {
        let kind = match item.get("type") {
            Some(kind) => kind.str()?,
            None if item.get("role").is_some() => "message",
            None if item.get("id").is_some() => "item_reference",
            None => return Err(item.need("type").err().unwrap_or_else(|| item.wrong("has no type"))),
        };
        reader.item(&item, kind, ask)?;
    }
    if let Some(id) = reader.thought {
        return Err(alone(&id));
    }
    if let Some(call) = reader.open.first() {
        return Err(Refusal::field(
            "input",
            "invalid_value",
            format!("No tool output found for function call {call}."),
        ));
    }
    if let Some(message) = reader.unthought {
        return Err(Refusal::field("input", "invalid_value", message));
    }
    ask.tool_result = (!reader.results.is_empty()).then(|| reader.results.join("\n"));
    Ok(())
}

impl Reader {
    fn item(&mut self, item: &At<'_>, kind: &str, ask: &mut Ask) -> Result<(), Refusal> {
        let before = self.thought.take();
        let is_result = kind.ends_with("_output");
        if !is_result {
            self.results.clear();
        }
        let said_by_model = match kind {
            "message" => {
                ask.messages += 1;
                let role = self.message(item, ask)?;
                if role == "user" {
                    self.thoughts_before = self.thoughts.len();
                    self.unthought = None;
                }
                role == "assistant"
            }
            "function_call" | "custom_tool_call" => {
                ask.messages += 1;
                self.call(item, kind, ask)?;
                true
            }
            "function_call_output" | "custom_tool_call_output" => {
                ask.messages += 1;
                self.result(item, ask)?;
                false
            }
            "reasoning" => {
                self.reasoning(item, ask.forgets)?;
                true
            }
            "item_reference" => {
                let id = item.need("id")?.text()?;
                return Err(missing(id, ask.forgets));
            }
            other if OTHERS.contains(&other) => !is_result,
            other => {
                let at = item.need("type")?;
                return Err(at.wrong(&format!("Invalid value: '{other}'")));
            }
        };
        match before {
            Some(id) if !said_by_model => Err(alone(&id)),
            _ => Ok(()),
        }
    }

    fn message<'a>(&self, item: &At<'a>, ask: &mut Ask) -> Result<&'a str, Refusal> {
        item.known(&[&["type", "role", "content", "status", "id", "phase"]])?;
        prefixed(item, "msg")?;
        let role = item.need("role")?.one_of(&["user", "assistant", "system", "developer"])?;
        if let Some(phase) = item.get("phase") {
            phase.one_of(&["commentary", "final_answer"])?;
        }
        let mut text = String::new();
        let content = item.need("content")?;
        if role == "assistant" {
            parts(&content, &["output_text", "refusal"], ask, &mut text)?;
        } else {
            parts(&content, &["input_text", "input_image", "input_file"], ask, &mut text)?;
        }
        if role == "user" {
            ask.last_text = text;
        }
        Ok(role)
    }

    fn call(&mut self, item: &At<'_>, kind: &str, ask: &mut Ask) -> Result<(), Refusal> {
        let (prefix, field) = if kind == "function_call" { ("fc", "arguments") } else { ("ctc", "input") };
        item.known(&[&["type", "id", "call_id", "name", "namespace", "status", "caller", field]])?;
        prefixed(item, prefix)?;
        let call_id = call_id(item)?;
        if self.open.iter().any(|open| open == call_id) {
            return Err(item.need("call_id")?.wrong("is the id of another call"));
        }
        self.open.push(call_id.to_owned());
        item.need("name")?.name(64)?;
        ask.characters += item.need(field)?.str()?.chars().count();
        if self.replay && self.thoughts.len() == self.thoughts_before && self.unthought.is_none() {
            self.unthought = Some(format!(
                "Item '{call_id}' of type '{kind}' was provided without its required 'reasoning' item."
            ));
        }
        // The vendor remembers which reasoning led to a call, unless it is told to forget.
        if let Some(id) = item.get("id").filter(|_| !ask.forgets).map(|id| id.str()).transpose()?
            && let Some(needed) = required_reasoning(id)
            && !self.thoughts.contains(&needed)
        {
            let message = format!(
                "Item '{id}' of type '{kind}' was provided without its required 'reasoning' item: '{needed}'."
            );
            return Err(Refusal::field("input", "invalid_value", message));
        }
        Ok(())
    }

    fn result(&mut self, item: &At<'_>, ask: &mut Ask) -> Result<(), Refusal> {
        item.known(&[&["type", "id", "call_id", "output", "status", "caller", "name", "namespace"]])?;
        let call_id = call_id(item)?;
        let Some(at) = self.open.iter().position(|open| open == call_id) else {
            let message = format!("No tool call found for function call output with call_id {call_id}.");
            return Err(Refusal::field("input", "invalid_value", message));
        };
        self.open.remove(at);
        let mut text = String::new();
        parts(&item.need("output")?, &["input_text", "input_image", "input_file"], ask, &mut text)?;
        self.results.push(text);
        Ok(())
    }

    fn reasoning(&mut self, item: &At<'_>, forgets: bool) -> Result<(), Refusal> {
        item.known(&[&["type", "id", "summary", "content", "encrypted_content", "status"]])?;
        prefixed(item, "rs")?;
        let id = item.need("id")?.text()?;
        for part in item.need("summary")?.array()? {
            part.known(&[&["type", "text"]])?;
            part.need("type")?.one_of(&["summary_text"])?;
            part.need("text")?.str()?;
        }
        for part in item.get("content").map(|content| content.array()).transpose()?.unwrap_or_default() {
            part.need("type")?.one_of(&["reasoning_text"])?;
            part.need("text")?.str()?;
        }
        match item.get("encrypted_content") {
            Some(blob) if !signature::holds(blob.str()?, Kind::Reasoning, &[id]) => {
                let start: String = blob.str()?.chars().take(16).collect();
                let reason = if signature::ours(blob.str()?) {
                    "Encrypted content item_id did not match the target item id."
                } else {
                    "Encrypted content could not be decrypted or parsed."
                };
                let message =
                    format!("The encrypted content {start}... could not be verified. Reason: {reason}");
                return Err(Refusal::field(&blob.path, "invalid_encrypted_content", message));
            }
            Some(_) => {}
            None if !forgets && id.starts_with("rs_sim") => {}
            None => return Err(missing(id, forgets)),
        }
        self.thoughts.push(id.to_owned());
        self.thought = Some(id.to_owned());
        Ok(())
    }
}

fn alone(id: &str) -> Refusal {
    let message =
        format!("Item '{id}' of type 'reasoning' was provided without its required following item.");
    Refusal::field("input", "invalid_value", message)
}

fn missing(id: &str, forgets: bool) -> Refusal {
    let hint = if forgets {
        " Items are not persisted when `store` is set to false. Try again with `store` set to true, or remove this \
         item from your input."
    } else {
        ""
    };
    let message = format!("Item with id '{id}' not found.{hint}");
    Refusal { param: Some("input".to_owned()), code: None, ..Refusal::status(404, message) }
}

/// Ids of items begin with a prefix that tells their kind.
fn prefixed(item: &At<'_>, prefix: &str) -> Result<(), Refusal> {
    match item.get("id") {
        Some(id) if !id.text()?.starts_with(prefix) => {
            Err(id.wrong(&format!("Expected an ID that begins with '{prefix}'.")))
        }
        _ => Ok(()),
    }
}

fn call_id<'a>(item: &At<'a>) -> Result<&'a str, Refusal> {
    let at = item.need("call_id")?;
    match at.text()? {
        id if id.len() > 64 => Err(at.wrong("is too long, 64 characters at most")),
        id => Ok(id),
    }
}

/// A string or parts of these types; their text goes to `text`.
fn parts(content: &At<'_>, allowed: &[&str], ask: &mut Ask, text: &mut String) -> Result<(), Refusal> {
    if let Some(plain) = content.value.as_str() {
        ask.characters += plain.chars().count();
        text.push_str(plain);
        return Ok(());
    }
    for part in content.array()? {
        match part.need("type")?.one_of(allowed)? {
            kind @ ("input_text" | "output_text") => {
                let extras: &[&str] = if kind == "output_text" { &["annotations", "logprobs"] } else { MARK };
                part.known(&[&["type", "text"], extras])?;
                let said = part.need("text")?.str()?;
                ask.characters += said.chars().count();
                text.push_str(said);
            }
            "refusal" => {
                part.known(&[&["type", "refusal"]])?;
                part.need("refusal")?.str()?;
            }
            "input_image" => {
                part.known(&[&["type", "detail", "image_url", "file_id"], MARK])?;
                match (part.get("image_url"), part.get("file_id")) {
                    (Some(url), None) => crate::openai::image(&url)?,
                    (None, Some(id)) => {
                        id.text()?;
                    }
                    _ => return Err(part.wrong("needs either 'image_url' or 'file_id'")),
                }
                if let Some(detail) = part.get("detail") {
                    detail.one_of(&["auto", "low", "high", "original"])?;
                }
                ask.images += 1;
            }
            _ => {
                part.known(&[&["type", "detail", "file_data", "file_id", "file_url", "filename"], MARK])?;
                if !["file_data", "file_id", "file_url"].iter().any(|name| part.get(name).is_some()) {
                    return Err(part.wrong("needs 'file_data', 'file_id' or 'file_url'"));
                }
            }
        }
    }
    Ok(())
}
