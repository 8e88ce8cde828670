//! The messages of a conversation.

use crate::{ask::Ask, check::At, refusal::Refusal, script::Script};

const MARK: &[&str] = &["prompt_cache_breakpoint"];
const MAX_ID: usize = 64;

/// Judges the messages: their roles, their parts, and that calls and results belong together.
pub(crate) fn read(messages: &At<'_>, script: &Script, ask: &mut Ask) -> Result<(), Refusal> {
    // Calls that wait for their results, and results since the last other message.
    let mut open: Vec<String> = Vec::new();
    let mut results: Vec<String> = Vec::new();
    // The first message with calls, but without thoughts, since the user last said something.
    let mut unthought: Option<String> = None;
    for message in messages.list()? {
        ask.messages += 1;
        let role_at = message.need("role")?;
        let role = role_at.one_of(&["system", "developer", "user", "assistant", "tool", "function"])?;
        if role != "tool" {
            if !open.is_empty() {
                return Err(unanswered(&message.path, &open));
            }
            results.clear();
        }
        let mut text = String::new();
        match role {
            "system" | "developer" => {
                message.known(&[&["role", "content", "name"], MARK])?;
                content(&message.need("content")?, &["text"], ask, &mut text)?;
            }
            "user" => {
                message.known(&[&["role", "content", "name"], MARK])?;
                content(
                    &message.need("content")?,
                    &["text", "image_url", "input_audio", "file"],
                    ask,
                    &mut text,
                )?;
                ask.last_text = text;
                unthought = None;
            }
            "assistant" => {
                assistant(&message, script.replay, ask, &mut open)?;
                if !open.is_empty() && message.get("reasoning_content").is_none() {
                    unthought.get_or_insert(message.path.clone());
                }
            }
            "tool" => {
                message.known(&[&["role", "content", "tool_call_id"], MARK])?;
                let id_at = message.need("tool_call_id")?;
                let id = id_at.text()?;
                let Some(at) = open.iter().position(|call| call == id) else {
                    return Err(id_at.wrong(
                        "messages with role 'tool' must be a response to a preceeding message with 'tool_calls'",
                    ));
                };
                open.remove(at);
                content(&message.need("content")?, &["text"], ask, &mut text)?;
                results.push(text);
            }
            _ => {
                message.known(&[&["role", "content", "name"]])?;
                message.need("name")?.text()?;
                text = message.need("content")?.str()?.to_owned();
                ask.characters += text.len();
                results.push(text);
            }
        }
    }
    if !open.is_empty() {
        return Err(unanswered(&messages.path, &open));
    }
    if let Some(path) = unthought.filter(|_| script.replay) {
        let path = format!("{path}.reasoning_content");
        let message = format!("Missing `reasoning_content` field in the assistant message at '{path}'");
        return Err(Refusal::field(&path, "missing_required_parameter", message));
    }
    ask.tool_result = (!results.is_empty()).then(|| results.join("\n"));
    Ok(())
}

fn unanswered(path: &str, calls: &[String]) -> Refusal {
    let message = format!(
        "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. The \
         following tool_call_ids did not have response messages: {}",
        calls.join(", ")
    );
    Refusal::field(path, "invalid_value", message)
}

fn assistant(message: &At<'_>, replay: bool, ask: &mut Ask, open: &mut Vec<String>) -> Result<(), Refusal> {
    let known = ["role", "content", "refusal", "tool_calls", "audio", "name", "function_call", "annotations"];
    if replay {
        message.known(&[&known, MARK, &["reasoning_content"]])?;
        if let Some(thoughts) = message.get("reasoning_content") {
            thoughts.str()?;
        }
    } else {
        message.known(&[&known, MARK])?;
    }
    let says_something = ["content", "refusal", "tool_calls", "audio", "function_call"];
    if !says_something.iter().any(|name| message.get(name).is_some()) {
        return Err(message.need("content").err().unwrap_or_else(|| message.wrong("says nothing")));
    }
    if let Some(said) = message.get("content") {
        content(&said, &["text", "refusal"], ask, &mut String::new())?;
    }
    if let Some(refusal) = message.get("refusal") {
        refusal.str()?;
    }
    if let Some(call) = message.get("function_call") {
        call.need("name")?.text()?;
        call.need("arguments")?.str()?;
    }
    let Some(calls) = message.get("tool_calls") else { return Ok(()) };
    for call in calls.list()? {
        let id_at = call.need("id")?;
        let id = id_at.text()?;
        if id.len() > MAX_ID {
            return Err(id_at.wrong(&format!("string too long, {MAX_ID} characters at most")));
        }
        if open.iter().any(|known| known == id) {
            return Err(id_at.wrong("is the id of another call of this message"));
        }
        open.push(id.to_owned());
        let arguments = match call.need("type")?.one_of(&["function", "custom"])? {
            "function" => {
                call.known(&[&["id", "type", "function"]])?;
                let function = call.need("function")?;
                function.known(&[&["name", "arguments"]])?;
                function.need("name")?.name(64)?;
                function.need("arguments")?.str()?
            }
            _ => {
                call.known(&[&["id", "type", "custom"]])?;
                let custom = call.need("custom")?;
                custom.known(&[&["name", "input"]])?;
                custom.need("name")?.name(64)?;
                custom.need("input")?.str()?
            }
        };
        ask.characters += arguments.len();
    }
    Ok(())
}

/// A string or parts of these types; their text goes to `text`.
fn content(content: &At<'_>, allowed: &[&str], ask: &mut Ask, text: &mut String) -> Result<(), Refusal> {
    if let Some(plain) = content.value.as_str() {
        ask.characters += plain.chars().count();
        text.push_str(plain);
        return Ok(());
    }
    for part in content.list()? {
        match part.need("type")?.one_of(allowed)? {
            "text" => {
                part.known(&[&["type", "text"], MARK])?;
                let said = part.need("text")?.str()?;
                ask.characters += said.chars().count();
                text.push_str(said);
            }
            "refusal" => {
                part.known(&[&["type", "refusal"], MARK])?;
                part.need("refusal")?.str()?;
            }
            "image_url" => {
                part.known(&[&["type", "image_url"], MARK])?;
                let image = part.need("image_url")?;
                image.known(&[&["url", "detail"]])?;
                self::image(&image.need("url")?)?;
                if let Some(detail) = image.get("detail") {
                    detail.one_of(&["auto", "low", "high", "original"])?;
                }
                ask.images += 1;
            }
            "input_audio" => {
                part.known(&[&["type", "input_audio"], MARK])?;
                let audio = part.need("input_audio")?;
                audio.known(&[&["data", "format"]])?;
                audio.need("data")?.text()?;
                audio.need("format")?.one_of(&["wav", "mp3"])?;
            }
            _ => {
                part.known(&[&["type", "file"], MARK])?;
                let file = part.need("file")?;
                file.known(&[&["file_data", "file_id", "filename"]])?;
                if file.get("file_data").is_none() && file.get("file_id").is_none() {
                    return Err(file.wrong("needs 'file_data' or 'file_id'"));
                }
            }
        }
    }
    Ok(())
}

/// Judges the address of an image.
pub(crate) fn image(at: &At<'_>) -> Result<(), Refusal> {
    let url = at.text()?;
    let inline = url.strip_prefix("data:image/").and_then(|rest| rest.split_once(";base64,"));
    let fits = match inline {
        Some((kind, data)) => ["png", "jpeg", "jpg", "gif", "webp"].contains(&kind) && !data.is_empty(),
        None => url.starts_with("https://") || url.starts_with("http://"),
    };
    if fits {
        Ok(())
    } else {
        Err(at.wrong("must be an http(s) address or a base64 data address of an image"))
    }
}
