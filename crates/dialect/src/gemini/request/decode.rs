//! A client's request as a canonical one.

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::contents;
use crate::{
    DecodeError, Head,
    gemini::{
        ID,
        path::{self, Asked},
        schema, unreadable,
    },
    ir::{
        Block, BlockKind, ChatRequest, Effort, Extras, Loss, LossAction, Native, OutputFormat, Reasoning,
        ReasoningAmount, Tool, ToolChoice, ToolKind, Turn, WebSearchTool, loss, quiet,
    },
    json_in::{self, Fields, is_object, list_of, str_of, wrong_type, wrong_value},
    tool_list::ToolList,
};

/// Top-level members that have a place in the canonical form. `model` is said by the path.
const KNOWN: &[&str] = &[
    "model",
    "contents",
    "systemInstruction",
    "tools",
    "toolConfig",
    "generationConfig",
    "serviceTier",
    "labels",
    "store",
];

/// Members of `generationConfig` that have a place in the canonical form.
const KNOWN_CONFIG: &[&str] = &[
    "temperature",
    "topP",
    "topK",
    "candidateCount",
    "maxOutputTokens",
    "stopSequences",
    "seed",
    "presencePenalty",
    "frequencyPenalty",
    "responseLogprobs",
    "logprobs",
    "responseMimeType",
    "responseSchema",
    "responseJsonSchema",
    "_responseJsonSchema",
    "thinkingConfig",
];

/// How closely to look at all pictures.
pub(super) const RESOLUTION: &str = "mediaResolution";

/// How members of `generationConfig` are named among the extras.
pub(super) const CONFIG: &str = "generationConfig.";

/// Reads a request.
pub(in crate::gemini) fn decode(head: Head<'_>, body: &Bytes) -> Result<ChatRequest, DecodeError> {
    let asked = path::read(head.path)?;
    let text = checked(body)?;
    request(asked, &Fields::strict_camel(&text, "")?)
}

/// Reads a request whose tokens are to be counted: the conversation alone, or a whole request within.
pub(in crate::gemini) fn decode_count(head: Head<'_>, body: &Bytes) -> Result<ChatRequest, DecodeError> {
    let asked = path::read_count(head.path)?;
    let text = checked(body)?;
    let fields = Fields::strict_camel(&text, "")?;
    match fields.object("generateContentRequest")? {
        Some(whole) => request(asked, &whole),
        None => request(asked, &fields),
    }
}

fn checked(body: &Bytes) -> Result<Cow<'_, str>, DecodeError> {
    let text = json_in::text(body)?;
    match omniroute_wire::envelope::scan_str(&text, &mut |_| {}) {
        Ok(_) => Ok(text),
        Err(error) => Err(unreadable(&error)),
    }
}

fn request(asked: Asked<'_>, fields: &Fields<'_>) -> Result<ChatRequest, DecodeError> {
    let mut losses = Vec::new();
    let mut request = ChatRequest {
        model: asked.model.to_owned(),
        stream: asked.stream,
        include_usage: true,
        service_tier: fields.str("serviceTier")?.and_then(|tier| tier_word(&tier)),
        metadata: fields.raw("labels").map(ToOwned::to_owned),
        store: fields.bool("store")?,
        extras: Extras { origin: Some(ID), members: Vec::new() },
        ..ChatRequest::default()
    };
    request.system = system(fields, &mut losses)?;
    request.turns = contents::turns(fields, &mut losses)?;
    let mut list = ToolList::default();
    for (at, raw) in one_or_more(fields, "tools")?.into_iter().enumerate() {
        tools(raw, format!("tools[{at}]"), &mut list, &mut request)?;
    }
    losses.append(&mut request.losses);
    for (name, raw) in fields.unlisted(KNOWN) {
        request.extras.members.push((name.to_owned(), raw.to_owned()));
    }
    tool_choice(fields, &mut request, &mut losses)?;
    if let Some(config) = fields.object("generationConfig")? {
        generation(&config, &mut request, &mut losses)?;
    }
    request.losses = losses;
    Ok(request)
}

/// A list; an object stands for a list of one.
pub(super) fn one_or_more<'a>(fields: &Fields<'a>, name: &str) -> Result<Vec<&'a RawValue>, DecodeError> {
    let Some(raw) = fields.raw(name) else { return Ok(Vec::new()) };
    if is_object(raw) {
        return Ok(vec![raw]);
    }
    list_of(raw).ok_or_else(|| wrong_type(fields.path_of(name), "a list"))
}

/// The system text: a content, or leniently a string or the parts alone.
fn system(fields: &Fields<'_>, losses: &mut Vec<Loss>) -> Result<Vec<Block>, DecodeError> {
    let Some(raw) = fields.raw("systemInstruction") else { return Ok(Vec::new()) };
    let path = fields.path_of("systemInstruction");
    if let Some(text) = str_of(raw) {
        return Ok(vec![BlockKind::Text(text.into_owned()).into()]);
    }
    let (parts, path) = match list_of(raw) {
        Some(parts) => (parts, path),
        None => {
            let content = Fields::strict_camel(raw.get(), path)?;
            content.tell_unlisted(&["role", "parts"], losses);
            (one_or_more(&content, "parts")?, content.path_of("parts"))
        }
    };
    let mut blocks = Vec::new();
    for (at, part) in parts.into_iter().enumerate() {
        let part = Fields::strict_camel(part.get(), format!("{path}[{at}]"))?;
        part.tell_unlisted(&["text"], losses);
        blocks.push(BlockKind::Text(part.need_str("text")?.into_owned()).into());
    }
    Ok(blocks)
}

/// The tier in the word that other dialects have for it. `None` for the usual one.
fn tier_word(tier: &str) -> Option<String> {
    let word = match tier.to_ascii_lowercase().as_str() {
        "" | "unspecified" | "service_tier_unspecified" => return None,
        "standard" => "default".to_owned(),
        other => other.to_owned(),
    };
    Some(word)
}

/// Reads an entry of `tools`: any number of functions, and tools that the vendor runs.
fn tools<'a>(
    raw: &'a RawValue,
    path: String,
    list: &mut ToolList<'a>,
    request: &mut ChatRequest,
) -> Result<(), DecodeError> {
    let fields = Fields::strict_camel(raw.get(), path)?;
    let path = fields.path_of("functionDeclarations");
    for (at, raw) in one_or_more(&fields, "functionDeclarations")?.into_iter().enumerate() {
        let path = format!("{path}[{at}]");
        list.push(function(raw, path.clone())?, raw.get(), path, request)?;
    }
    for (name, value) in fields.unlisted(&["functionDeclarations"]) {
        let kind = match name {
            "googleSearch" | "googleSearchRetrieval" => {
                let path = fields.path_of(name);
                ToolKind::WebSearch(Box::new(search(name, value, path, &mut request.losses)?))
            }
            _ => ToolKind::Opaque { origin: ID, name: None, raw: entry(name, value) },
        };
        request.tools.push(Tool::at(fields.path_of(name), kind));
    }
    Ok(())
}

/// A tool as the only one of an entry.
fn entry(name: &str, value: &RawValue) -> Box<RawValue> {
    let name = serde_json::to_string(name).expect("a string is always written");
    RawValue::from_string(format!("{{{name}:{}}}", value.get())).expect("composed of valid JSON")
}

fn search(
    name: &str,
    value: &RawValue,
    path: String,
    losses: &mut Vec<Loss>,
) -> Result<WebSearchTool, DecodeError> {
    let options = Fields::strict_camel(value.get(), path)?;
    options.tell_unlisted(&["excludeDomains"], losses);
    let mut blocked_domains = Vec::new();
    for raw in options.list("excludeDomains")?.unwrap_or_default() {
        let domain =
            str_of(raw).ok_or_else(|| wrong_type(options.path_of("excludeDomains"), "a list of strings"))?;
        blocked_domains.push(domain.into_owned());
    }
    Ok(WebSearchTool {
        native: Native { origin: ID, raw: vec![entry(name, value)] },
        allowed_domains: Vec::new(),
        blocked_domains,
        max_uses: None,
        context_size: None,
        place: None,
    })
}

fn function(raw: &RawValue, path: String) -> Result<Tool, DecodeError> {
    let fields = Fields::strict_camel(raw.get(), path.as_str())?;
    let schema = match (fields.raw("parametersJsonSchema"), fields.raw("parameters")) {
        (Some(schema), None) => Some(schema.to_owned()),
        (None, Some(own)) => Some(schema::from_own(own)),
        (None, None) => None,
        (Some(_), Some(_)) => {
            let what = "left out where `parametersJsonSchema` is given";
            return Err(wrong_value(fields.path_of("parameters"), what));
        }
    };
    let kind = ToolKind::Function {
        name: fields.need_str("name")?.into_owned(),
        description: fields.str("description")?.map(Into::into),
        schema,
        strict: None,
    };
    let known = &["name", "description", "parameters", "parametersJsonSchema"];
    let extras = fields.unlisted(known).map(|(name, raw)| (name.to_owned(), raw.to_owned())).collect();
    Ok(Tool { extras, ..Tool::at(path, kind) })
}

fn tool_choice(
    fields: &Fields<'_>,
    request: &mut ChatRequest,
    losses: &mut Vec<Loss>,
) -> Result<(), DecodeError> {
    let Some(config) = fields.object("toolConfig")? else { return Ok(()) };
    let mut kept = config.unlisted(&["functionCallingConfig"]).next().is_some();
    if let Some(calling) = config.object("functionCallingConfig")? {
        kept |= calling.unlisted(&["mode", "allowedFunctionNames"]).next().is_some();
        let mut names = Vec::new();
        let path = calling.path_of("allowedFunctionNames");
        for raw in calling.list("allowedFunctionNames")?.unwrap_or_default() {
            names.push(str_of(raw).ok_or_else(|| wrong_type(&*path, "a list of strings"))?.into_owned());
        }
        let mode = calling.str("mode")?.unwrap_or_default().to_ascii_uppercase();
        if !names.is_empty() && !matches!(mode.as_str(), "ANY" | "VALIDATED") {
            // The vendor takes names with these modes alone.
            losses.push(loss(path.clone(), LossAction::Dropped));
        }
        request.tool_choice = match mode.as_str() {
            "" | "MODE_UNSPECIFIED" => None,
            "AUTO" => Some(ToolChoice::Auto),
            "NONE" => Some(ToolChoice::None),
            "ANY" if names.is_empty() => Some(ToolChoice::Required),
            "ANY" if names.len() == 1 => names.pop().map(ToolChoice::Named),
            "ANY" => Some(ToolChoice::Allowed { required: true, names }),
            "VALIDATED" if names.is_empty() => {
                // That calls obey their schemas is what other dialects do by themselves, or on terms that the
                // schemas here need not meet.
                losses.push(quiet(calling.path_of("mode"), LossAction::Mapped));
                Some(ToolChoice::Auto)
            }
            "VALIDATED" => Some(ToolChoice::Allowed { required: false, names }),
            _ => return Err(wrong_value(calling.path_of("mode"), "`AUTO`, `ANY`, `NONE` or `VALIDATED`")),
        };
    }
    if kept && let Some(raw) = fields.raw("toolConfig") {
        request.extras.members.push(("toolConfig".to_owned(), raw.to_owned()));
    }
    Ok(())
}

fn generation(
    config: &Fields<'_>,
    request: &mut ChatRequest,
    losses: &mut Vec<Loss>,
) -> Result<(), DecodeError> {
    request.max_output_tokens = config.count("maxOutputTokens")?;
    for raw in config.list("stopSequences")?.unwrap_or_default() {
        let text =
            str_of(raw).ok_or_else(|| wrong_type(config.path_of("stopSequences"), "a list of strings"))?;
        request.stop.push(text.into_owned());
    }
    let sampling = &mut request.sampling;
    sampling.temperature = config.number("temperature")?;
    sampling.top_p = config.number("topP")?;
    sampling.top_k = config.number("topK")?;
    sampling.seed = config.number("seed")?;
    sampling.presence_penalty = config.number("presencePenalty")?;
    sampling.frequency_penalty = config.number("frequencyPenalty")?;
    sampling.logprobs = config.bool("responseLogprobs")?.unwrap_or(false);
    sampling.top_logprobs = config.count("logprobs")?;
    sampling.n = config.count("candidateCount")?;
    request.output_format = format(config)?;
    if let Some(thinking) = config.object("thinkingConfig")? {
        request.reasoning = reasoning(&thinking)?;
        for (name, _) in thinking.unlisted(&["includeThoughts", "thinkingBudget", "thinkingLevel"]) {
            losses.push(loss(thinking.path_of(name), LossAction::Dropped));
        }
    }
    if let Some(level) = config.str(RESOLUTION)? {
        // What holds for all pictures is said of each elsewhere.
        if let Some(detail) = contents::detail_of(&level) {
            looked_at(&mut request.turns, detail);
        }
    }
    for (name, raw) in config.unlisted(KNOWN_CONFIG) {
        request.extras.members.push((format!("{CONFIG}{name}"), raw.to_owned()));
    }
    Ok(())
}

/// Says how closely to look at each picture of which nothing is said.
fn looked_at(turns: &mut [Turn], detail: &str) {
    fn all(blocks: &mut [Block], wanted: &str) {
        for block in blocks {
            match &mut block.kind {
                BlockKind::Image(image) if image.detail.is_none() => image.detail = Some(wanted.to_owned()),
                BlockKind::ToolResult(result) => all(&mut result.blocks, wanted),
                _ => {}
            }
        }
    }
    turns.iter_mut().for_each(|turn| all(&mut turn.blocks, detail));
}

fn format(config: &Fields<'_>) -> Result<OutputFormat, DecodeError> {
    let json = config.raw("responseJsonSchema").or_else(|| config.raw("_responseJsonSchema"));
    let schema = match (json, config.raw("responseSchema")) {
        (Some(schema), None) => Some(schema.to_owned()),
        (None, Some(own)) => Some(schema::from_own(own)),
        (None, None) => None,
        (Some(_), Some(_)) => {
            let what = "left out where `responseJsonSchema` is given";
            return Err(wrong_value(config.path_of("responseSchema"), what));
        }
    };
    let kind = config.str("responseMimeType")?.unwrap_or_default();
    Ok(match (&*kind, schema) {
        (_, Some(schema)) => OutputFormat::JsonSchema { name: None, description: None, schema, strict: None },
        ("" | "text/plain", None) => OutputFormat::Text,
        ("application/json", None) => OutputFormat::JsonObject,
        (_, None) => {
            let what = "`text/plain` or `application/json`, or go with a schema";
            return Err(wrong_value(config.path_of("responseMimeType"), what));
        }
    })
}

fn reasoning(thinking: &Fields<'_>) -> Result<Reasoning, DecodeError> {
    let show = thinking.bool("includeThoughts")?;
    let budget = thinking.raw("thinkingBudget").map(|raw| (raw.get(), json_in::count_of(raw)));
    let level = thinking.str("thinkingLevel")?.map(|level| level.to_ascii_uppercase());
    let amount = match (budget, level.as_deref()) {
        (Some(_), Some(_)) => {
            let what = "left out where `thinkingLevel` is given";
            return Err(wrong_value(thinking.path_of("thinkingBudget"), what));
        }
        (None, None | Some("" | "THINKING_LEVEL_UNSPECIFIED")) => ReasoningAmount::Default,
        (Some(("-1", _)), None) => ReasoningAmount::Adaptive(None),
        (Some((_, Some(0))), None) => ReasoningAmount::Off,
        (Some((_, Some(tokens))), None) => ReasoningAmount::Budget(tokens),
        (Some(_), None) => {
            return Err(wrong_value(thinking.path_of("thinkingBudget"), "a whole number, -1 or more"));
        }
        (None, Some(level)) => {
            let what = "`MINIMAL`, `LOW`, `MEDIUM`, `HIGH` or `XHIGH`";
            let effort =
                effort_of(level).ok_or_else(|| wrong_value(thinking.path_of("thinkingLevel"), what))?;
            ReasoningAmount::Effort(effort)
        }
    };
    Ok(Reasoning { amount, show })
}

fn effort_of(level: &str) -> Option<Effort> {
    Some(match level {
        "MINIMAL" => Effort::Minimal,
        "LOW" => Effort::Low,
        "MEDIUM" => Effort::Medium,
        "HIGH" => Effort::High,
        "XHIGH" => Effort::XHigh,
        _ => return None,
    })
}
