//! The messages of a conversation.

use crate::{ask::Ask, check::At, ollama::request::known, refusal::Refusal, signature};

/// A call that was made.
struct Made {
    name: String,
    id: Option<String>,
}

/// Judges the messages: their roles, their parts, and that results belong to calls.
pub(crate) fn read(messages: &At<'_>, strict: bool, ask: &mut Ask) -> Result<(), Refusal> {
    let mut open: Vec<Made> = Vec::new();
    let mut results: Vec<String> = Vec::new();
    for message in messages.array()? {
        ask.messages += 1;
        let fields = ["role", "content", "thinking", "images", "tool_calls", "tool_name", "tool_call_id"];
        known(&message, strict, &[&fields])?;
        let role_at = message.need("role")?;
        let role = role_at.str()?;
        if !["system", "user", "assistant", "tool"].contains(&role) {
            let message = format!(
                "invalid role {role:?}, must be one of [\"system\", \"user\", \"assistant\", \"tool\"]"
            );
            return Err(role_at.wrong(&message));
        }
        let text = message.get("content").map(|content| content.str()).transpose()?.unwrap_or_default();
        ask.characters += text.chars().count();
        if let Some(thoughts) = message.get("thinking") {
            thoughts.str()?;
        }
        for image in message.get("images").map(|images| images.array()).transpose()?.unwrap_or_default() {
            if signature::decode(image.str()?).is_none_or(|bytes| bytes.is_empty()) {
                return Err(image.wrong("illegal base64 data at input byte 0"));
            }
            ask.images += 1;
        }
        if role != "tool" {
            if let Some(call) = open.first() {
                return Err(message.wrong(&format!("the call of '{}' has no result", call.name)));
            }
            results.clear();
        }
        match role {
            "user" => text.clone_into(&mut ask.last_text),
            "assistant" => open = calls(&message, strict, ask)?,
            "tool" => {
                let name = message.get("tool_name").map(|name| name.str()).transpose()?;
                let id = message.get("tool_call_id").map(|id| id.str()).transpose()?;
                let answers = |call: &Made| match (id, name) {
                    (Some(id), _) if call.id.is_some() => call.id.as_deref() == Some(id),
                    (_, Some(name)) => call.name == name,
                    (Some(_), None) => false,
                    // Some clients leave both out; a template writes results as they come.
                    (None, None) => !strict,
                };
                let Some(at) = open.iter().position(answers) else {
                    let which = name.or(id).unwrap_or_default();
                    let problem =
                        format!("tool_name '{which}' is not the name of a call that waits for a result");
                    return Err(message.wrong(&problem));
                };
                open.remove(at);
                results.push(text.to_owned());
            }
            _ => {}
        }
    }
    if let Some(call) = open.first() {
        return Err(messages.wrong(&format!("the call of '{}' has no result", call.name)));
    }
    ask.tool_result = (!results.is_empty()).then(|| results.join("\n"));
    Ok(())
}

fn calls(message: &At<'_>, strict: bool, ask: &mut Ask) -> Result<Vec<Made>, Refusal> {
    let mut made = Vec::new();
    for call in message.get("tool_calls").map(|calls| calls.array()).transpose()?.unwrap_or_default() {
        known(&call, strict, &[&["id", "type", "function"]])?;
        let function = call.need("function")?;
        known(&function, strict, &[&["index", "name", "arguments"]])?;
        let arguments = function.need("arguments")?;
        arguments.object()?;
        ask.characters += arguments.value.to_string().len();
        made.push(Made {
            name: function.need("name")?.text()?.to_owned(),
            id: call.get("id").map(|id| id.str()).transpose()?.map(str::to_owned),
        });
    }
    if made.is_empty() && message.get("content").is_none() && message.get("thinking").is_none() {
        return Err(message.wrong("says nothing: it has neither content nor tool_calls"));
    }
    Ok(made)
}
