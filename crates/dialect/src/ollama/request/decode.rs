//! Reading a client's request.

use bytes::Bytes;
use serde_json::value::RawValue;

use super::{super::ID, messages};
use crate::{
    DecodeError, effort,
    ir::{
        ChatRequest, Extras, Loss, LossAction, OutputFormat, Reasoning, ReasoningAmount, Tool, ToolKind, loss,
    },
    json_in::{Fields, is_object, str_of, text, wrong_type, wrong_value},
    tool_list::ToolList,
};

/// Members that have a place in the canonical form.
const KNOWN: &[&str] =
    &["model", "messages", "stream", "tools", "format", "options", "think", "logprobs", "top_logprobs"];
/// The same of `options`.
const KNOWN_OPTIONS: &[&str] = &[
    "num_predict",
    "temperature",
    "top_p",
    "top_k",
    "seed",
    "stop",
    "presence_penalty",
    "frequency_penalty",
];

/// The same of a request for a completion.
const KNOWN_OF_COMPLETIONS: &[&str] = &[
    "model",
    "prompt",
    "images",
    "system",
    "stream",
    "format",
    "options",
    "think",
    "logprobs",
    "top_logprobs",
];
/// Members of chats that completions ignore.
const ONLY_OF_CHATS: &[&str] = &["messages", "tools"];

/// Reads a request into the canonical form.
pub(in crate::ollama) fn decode(body: &Bytes) -> Result<ChatRequest, DecodeError> {
    let text = text(body)?;
    let fields = Fields::strict(&text, "")?;
    let mut request = start(&fields)?;
    tools(&fields, &mut request)?;
    messages::decode(&fields, &mut request)?;
    keep_others(&fields, KNOWN, &mut request);
    Ok(request)
}

/// Reads a request for a completion: what is to be completed is all that the user says.
pub(in crate::ollama) fn decode_completion(body: &Bytes) -> Result<ChatRequest, DecodeError> {
    let text = text(body)?;
    let fields = Fields::strict(&text, "")?;
    let mut request = start(&fields)?;
    messages::decode_completion(&fields, &mut request)?;
    keep_others(&fields, KNOWN_OF_COMPLETIONS, &mut request);
    // They would become active in the chat that is made of it, and take the place of what was written for it.
    let ChatRequest { extras, losses, .. } = &mut request;
    extras.members.retain(|(name, raw)| {
        let is_kept = !ONLY_OF_CHATS.contains(&name.as_str());
        if !is_kept {
            let silent = matches!(raw.get(), "null" | "[]");
            losses.push(Loss { silent, ..loss(name.clone(), LossAction::Dropped) });
        }
        is_kept
    });
    Ok(request)
}

fn keep_others(fields: &Fields<'_>, known: &[&str], request: &mut ChatRequest) {
    for (name, raw) in fields.unlisted(known) {
        request.extras.members.push((name.to_owned(), raw.to_owned()));
    }
}

/// What stands around the conversation.
fn start(fields: &Fields<'_>) -> Result<ChatRequest, DecodeError> {
    let mut request = ChatRequest {
        model: fields.need_str("model")?.into_owned(),
        stream: fields.bool("stream")?.unwrap_or(true),
        include_usage: true,
        output_format: output_format(fields)?,
        reasoning: reasoning(fields)?,
        ..ChatRequest::default()
    };
    request.extras.origin = Some(ID);
    request.sampling.logprobs = fields.bool("logprobs")?.unwrap_or(false);
    request.sampling.top_logprobs = fields.count("top_logprobs")?;
    options(fields, &mut request)?;
    Ok(request)
}

/// Reads `options`. Those about the machine that runs the model stay as they are.
fn options(fields: &Fields<'_>, request: &mut ChatRequest) -> Result<(), DecodeError> {
    let Some(options) = fields.object("options")? else { return Ok(()) };
    let sampling = &mut request.sampling;
    sampling.temperature = options.number("temperature")?;
    sampling.top_p = options.number("top_p")?;
    sampling.top_k = options.number("top_k")?;
    sampling.seed = options.number("seed")?;
    sampling.presence_penalty = options.number("presence_penalty")?;
    sampling.frequency_penalty = options.number("frequency_penalty")?;
    // Negative numbers mean without end, which is what saying nothing means elsewhere.
    request.max_output_tokens = match options.number("num_predict")? {
        Some(raw) if raw.get().starts_with('-') => None,
        _ => options.count("num_predict")?,
    };
    request.stop = stop(&options)?;
    for (name, raw) in options.unlisted(KNOWN_OPTIONS) {
        request.extras.members.push((format!("{}{name}", Extras::RUNNER), raw.to_owned()));
    }
    Ok(())
}

fn stop(options: &Fields<'_>) -> Result<Vec<String>, DecodeError> {
    let Some(raw) = options.raw("stop") else { return Ok(Vec::new()) };
    if let Some(single) = str_of(raw) {
        return Ok(vec![single.into_owned()]);
    }
    let path = options.path_of("stop");
    let list = options.list("stop").map_err(|_| wrong_type(path.clone(), "a string or a list of strings"))?;
    let texts = list.unwrap_or_default().into_iter().enumerate().map(|(at, raw)| {
        str_of(raw).map(Into::into).ok_or_else(|| wrong_type(format!("{path}[{at}]"), "a string"))
    });
    texts.collect()
}

fn output_format(fields: &Fields<'_>) -> Result<OutputFormat, DecodeError> {
    let Some(raw) = fields.raw("format") else { return Ok(OutputFormat::Text) };
    if is_object(raw) {
        return Ok(OutputFormat::JsonSchema {
            name: None,
            description: None,
            schema: raw.to_owned(),
            strict: None,
        });
    }
    match str_of(raw).as_deref() {
        Some("") => Ok(OutputFormat::Text),
        Some("json") => Ok(OutputFormat::JsonObject),
        _ => Err(wrong_value("format", "`json` or a JSON schema")),
    }
}

fn reasoning(fields: &Fields<'_>) -> Result<Reasoning, DecodeError> {
    let Some(raw) = fields.raw("think") else { return Ok(Reasoning::default()) };
    let amount = match raw.get() {
        "true" => ReasoningAmount::Adaptive(None),
        "false" => ReasoningAmount::Off,
        _ => {
            let word = str_of(raw).unwrap_or_default();
            let level = effort::of_word(&word).ok_or_else(|| {
                wrong_value("think", "a boolean, or one of `low`, `medium`, `high` and `max`")
            })?;
            ReasoningAmount::Effort(level)
        }
    };
    let show = Some(amount != ReasoningAmount::Off);
    Ok(Reasoning { amount, show })
}

fn tools(fields: &Fields<'_>, request: &mut ChatRequest) -> Result<(), DecodeError> {
    let mut list = ToolList::default();
    for (at, raw) in fields.list("tools")?.unwrap_or_default().into_iter().enumerate() {
        let path = format!("tools[{at}]");
        list.push(tool(raw, &path, &mut request.losses)?, raw.get(), path, request)?;
    }
    Ok(())
}

fn tool(raw: &RawValue, path: &str, losses: &mut Vec<Loss>) -> Result<Tool, DecodeError> {
    let fields = Fields::strict(raw.get(), path)?;
    if fields.str("type")?.is_some_and(|kind| kind != "function") {
        return Err(wrong_value(fields.path_of("type"), "`function`"));
    }
    let function = fields.object_of("function", &["name", "description", "parameters"], losses)?;
    let Some(function) = function else { return Err(fields.missing("function")) };
    let name = function.need_str("name")?.into_owned();
    if name.trim().is_empty() {
        return Err(wrong_value(function.path_of("name"), "a function's name, not an empty string"));
    }
    let schema = function.raw("parameters");
    if schema.is_some_and(|schema| !is_object(schema)) {
        let wrong = wrong_type(function.path_of("parameters"), "a JSON schema object");
        return Err(DecodeError { code: "invalid_tool_schema", ..wrong });
    }
    let kind = ToolKind::Function {
        name,
        description: function.str("description")?.map(Into::into),
        schema: schema.map(ToOwned::to_owned),
        strict: None,
    };
    let extras = fields.unlisted(&["type", "function"]);
    let extras = extras.map(|(name, raw)| (name.to_owned(), raw.to_owned())).collect();
    Ok(Tool { extras, ..Tool::at(path, kind) })
}
