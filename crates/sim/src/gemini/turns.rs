//! The contents of a conversation.

use serde_json::Value;

use crate::{
    ask::Ask,
    check::At,
    gemini::{error, request::enumeration},
    refusal::Refusal,
    script::{Script, Thinking},
    signature::{self, Kind},
};

const PART_FIELDS: &[&str] = &[
    "thought",
    "thoughtSignature",
    "videoMetadata",
    "mediaResolution",
    "partMetadata",
    "audioTranscription",
];
/// A part is one of these.
const DATA: &[&str] = &[
    "text",
    "inlineData",
    "fileData",
    "functionCall",
    "functionResponse",
    "executableCode",
    "codeExecutionResult",
    "toolCall",
    "toolResponse",
];
const MEDIA: &[&str] =
    &["image/png", "image/jpeg", "image/webp", "image/heic", "image/heif", "application/pdf"];
/// What may stand in the place of a signature that was lost.
const SKIP: &[&str] = &["skip_thought_signature_validator", "context_engineering_is_the_way_to_go"];

/// A call that was made.
struct Made {
    name: String,
    id: Option<String>,
    signed: bool,
}

/// A result that came back.
struct Back<'a> {
    at: At<'a>,
    name: &'a str,
    id: Option<&'a str>,
    text: String,
}

/// What the parts of one content are.
#[derive(Default)]
struct Parts<'a> {
    text: String,
    calls: Vec<Made>,
    results: Vec<Back<'a>>,
}

/// Judges the system instruction.
pub(crate) fn system(content: &At<'_>, ask: &mut Ask) -> Result<(), Refusal> {
    content.known(&[&["role", "parts"]])?;
    for part in content.need("parts")?.list()? {
        part.known(&[&["text"], PART_FIELDS])?;
        ask.characters += part.need("text")?.str()?.chars().count();
    }
    Ok(())
}

/// Judges the contents: their roles, their parts, that calls and results belong together, and that signatures are back.
pub(crate) fn read(contents: &At<'_>, script: &Script, ask: &mut Ask) -> Result<(), Refusal> {
    let list = contents.array()?;
    if list.is_empty() {
        return Err(contents.wrong("contents is not specified"));
    }
    let mut open: Vec<Made> = Vec::new();
    let mut before = None;
    // First calls of the steps since the user last said something.
    let mut steps: Vec<(usize, String, bool)> = Vec::new();
    for (index, content) in list.iter().enumerate() {
        ask.messages += 1;
        content.known(&[&["role", "parts"]])?;
        let role = match content.get("role") {
            None => "user",
            Some(role) if ["user", "model", "function"].contains(&role.str()?) => role.str()?,
            Some(_) => return Err(Refusal::request("Please use a valid role: user, model.")),
        };
        let parts = parts(content, role, ask)?;
        if parts.results.len() != open.len() && !(parts.results.is_empty() && open.is_empty()) {
            return Err(Refusal::request(if open.is_empty() {
                "Please ensure that function response turn comes immediately after a function call turn."
            } else {
                "Please ensure that the number of function response parts is equal to the number of function call \
                 parts of the function call turn."
            }));
        }
        for (call, result) in open.iter().zip(&parts.results) {
            if call.name != result.name {
                let message = format!("answers '{}' where '{}' was called", result.name, call.name);
                return Err(result.at.wrong(&message));
            }
            if let (Some(call), Some(result_id)) = (&call.id, result.id)
                && call != result_id
            {
                return Err(result.at.wrong(&format!("has the id '{result_id}', the call has '{call}'")));
            }
        }
        if !parts.calls.is_empty() && before.is_none_or(|before| before == "model") {
            return Err(Refusal::request(
                "Please ensure that function call turn comes immediately after a user turn or after a function \
                 response turn.",
            ));
        }
        if role == "model" {
            if let Some(first) = parts.calls.first() {
                steps.push((index, first.name.clone(), first.signed));
            }
            ask.tool_result = None;
        } else if parts.results.is_empty() {
            steps.clear();
            ask.tool_result = None;
            // Contents of one role in a row are one turn.
            if before == Some("user") {
                ask.last_text.push('\n');
                ask.last_text.push_str(&parts.text);
            } else {
                ask.last_text = parts.text;
            }
        } else {
            let texts: Vec<&str> = parts.results.iter().map(|result| result.text.as_str()).collect();
            ask.tool_result = Some(texts.join("\n"));
        }
        open = parts.calls;
        before = Some(if role == "model" {
            "model"
        } else if parts.results.is_empty() {
            "user"
        } else {
            "function"
        });
    }
    if before == Some("model") {
        return Err(Refusal::request(
            "Please ensure that multiturn requests end with a user role or a function response.",
        ));
    }
    // Only models that give signatures out want them back.
    match steps.into_iter().find(|(.., signed)| !signed) {
        Some((index, name, _)) if script.thinking != Thinking::Never => Err(Refusal::request(format!(
            "Function call is missing a thought_signature in functionCall parts. This is required for tools to work \
             correctly, and missing thought_signature may lead to degraded model performance. Additional data, \
             function call `default_api:{name}` , position {}. Please refer to \
             https://ai.google.dev/gemini-api/docs/thought-signatures for more details.",
            index + 1
        ))),
        _ => Ok(()),
    }
}

fn parts<'a>(content: &At<'a>, role: &str, ask: &mut Ask) -> Result<Parts<'a>, Refusal> {
    let mut found = Parts::default();
    let parts = content.get("parts").map(|parts| parts.array()).transpose()?.unwrap_or_default();
    if parts.is_empty() {
        return Err(content.wrong("contents.parts must not be empty."));
    }
    for part in parts {
        part.known(&[DATA, PART_FIELDS])?;
        let there: Vec<&str> = DATA.iter().copied().filter(|name| part.get(name).is_some()).collect();
        let kind = match there.as_slice() {
            [] => return Err(part.wrong("data: required oneof field 'data' must have one initialized field")),
            [kind] => *kind,
            [_, second, ..] => {
                let set = format!("oneof field 'data' is already set. Cannot set '{second}'");
                return Err(error::payload(
                    &part.path,
                    &format!("Invalid value at '{}' (oneof), {set}", part.path),
                ));
            }
        };
        let inner = part.need(kind)?;
        let wrong_role = match kind {
            "functionCall" => role != "model",
            "functionResponse" => role == "model",
            _ => false,
        };
        if wrong_role {
            return Err(inner.wrong(&format!("is not for the role '{role}'")));
        }
        let thought = part.get("thought").map(|thought| thought.bool()).transpose()?.unwrap_or(false);
        let signed = signature(&part, kind, &inner)?;
        match kind {
            "text" => {
                let text = inner.str()?;
                ask.characters += text.chars().count();
                if !thought {
                    found.text.push_str(text);
                }
            }
            "inlineData" => blob(&inner, ask)?,
            "fileData" => {
                inner.known(&[&["mimeType", "fileUri", "displayName"]])?;
                inner.need("fileUri")?.text()?;
            }
            "functionCall" => {
                inner.known(&[&["id", "name", "args"]])?;
                let args = inner.get("args");
                if let Some(args) = &args {
                    args.object()?;
                    ask.characters += args.value.to_string().len();
                }
                let id = inner.get("id").map(|id| id.str()).transpose()?.map(str::to_owned);
                found.calls.push(Made { name: inner.need("name")?.text()?.to_owned(), id, signed });
            }
            "functionResponse" => found.results.push(back(inner, ask)?),
            // What the vendor's own tools left behind is taken as it comes.
            _ => {
                inner.object()?;
            }
        }
    }
    Ok(found)
}

fn back<'a>(response: At<'a>, ask: &mut Ask) -> Result<Back<'a>, Refusal> {
    response.known(&[&["id", "name", "response", "parts", "willContinue", "scheduling"]])?;
    let name_at = response.need("name")?;
    let name = name_at.str()?;
    if name.is_empty() {
        return Err(name_at.wrong("Name cannot be empty."));
    }
    let object = response.need("response")?;
    let members = object.object()?;
    let said = ["output", "result", "error"].iter().find_map(|name| members.get(*name));
    let text = match said.unwrap_or(object.value) {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    ask.characters += object.value.to_string().chars().count();
    for part in response.get("parts").map(|parts| parts.array()).transpose()?.unwrap_or_default() {
        part.known(&[&["inlineData", "fileData"]])?;
        if let Some(data) = part.get("inlineData") {
            blob(&data, ask)?;
        }
    }
    if let Some(scheduling) = response.get("scheduling") {
        enumeration(&scheduling, &["SILENT", "WHEN_IDLE", "INTERRUPT"], "FunctionResponse.Scheduling")?;
    }
    let id = response.get("id").map(|id| id.str()).transpose()?;
    Ok(Back { name, id, text, at: response })
}

fn blob(data: &At<'_>, ask: &mut Ask) -> Result<(), Refusal> {
    data.known(&[&["mimeType", "data", "displayName"]])?;
    let mime = data.need("mimeType")?.str()?;
    if !MEDIA.contains(&mime) && !["audio/", "video/", "text/"].iter().any(|kind| mime.starts_with(kind)) {
        return Err(Refusal::request(format!("Unsupported MIME type: {mime}")));
    }
    base64(&data.need("data")?)?;
    if mime.starts_with("image/") {
        ask.images += 1;
    }
    Ok(())
}

/// Whether the part is signed; a signature must be one of ours for just this part.
fn signature(part: &At<'_>, kind: &str, inner: &At<'_>) -> Result<bool, Refusal> {
    let Some(at) = part.get("thoughtSignature") else { return Ok(false) };
    let bytes = base64(&at)?;
    let text = at.str()?;
    if SKIP.iter().any(|skip| *skip == text || skip.as_bytes() == bytes) {
        return Ok(true);
    }
    let holds = if kind == "functionCall" {
        let args = inner.value.get("args").map_or_else(|| "{}".to_owned(), Value::to_string);
        let name = inner.value.get("name").and_then(Value::as_str).unwrap_or_default();
        signature::holds(text, Kind::Call, &[name, &args])
    } else {
        signature::holds(text, Kind::Said, &[])
    };
    if holds {
        Ok(true)
    } else {
        Err(Refusal::request(format!("Thought signature is not valid. ({})", at.path)))
    }
}

fn base64(at: &At<'_>) -> Result<Vec<u8>, Refusal> {
    let text = at.str()?;
    signature::decode(text).ok_or_else(|| {
        let start: String = text.chars().take(32).collect();
        let what =
            format!("Invalid value at '{}' (TYPE_BYTES), Base64 decoding failed for \"{start}\"", at.path);
        error::payload(&at.path, &what)
    })
}
