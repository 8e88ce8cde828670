//! Reading a client's request.

use bytes::Bytes;
use serde_json::value::RawValue;

use super::{
    super::{ID, envelope},
    messages,
};
use crate::{
    DecodeError, Dialect as _, Head, client_body, custom_format, effort, ids,
    ir::{
        self, ChatRequest, Loss, LossAction, Native, OutputFormat, Reasoning, ReasoningAmount, Sampling,
        Tool, ToolChoice, ToolKind, WebSearchTool,
    },
    json_in::{Fields, is_object, missing, str_of, text, wrong_type, wrong_value},
    responses::Responses,
    tool_list::{ToolList, check_choice},
    web_search::place,
};

/// Members that have a place in the canonical form.
const KNOWN: &[&str] = &[
    "model",
    "messages",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "top_k",
    "frequency_penalty",
    "presence_penalty",
    "seed",
    "logit_bias",
    "logprobs",
    "top_logprobs",
    "n",
    "stop",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "functions",
    "function_call",
    "response_format",
    "reasoning_effort",
    "web_search_options",
    "prompt_cache_key",
    "service_tier",
    "user",
    "safety_identifier",
    "metadata",
    "store",
    "verbosity",
];

/// Reads a request into the canonical form.
pub(in crate::openai) fn decode(head: Head<'_>, body: &Bytes) -> Result<ChatRequest, DecodeError> {
    let text = text(body)?;
    if let Err(error) = omniroute_wire::envelope::scan_str(&text, &mut |_| {}) {
        return Err(client_body::not_json(&error));
    }
    let fields = Fields::strict(&text, "")?;
    if fields.raw("messages").is_none() && fields.raw("input").is_some() {
        // A body of the vendor's other dialect, which some editors send to this one's path.
        return Responses.decode_request(head, body);
    }
    let mut request = ChatRequest {
        model: fields.need_str("model")?.into_owned(),
        stream: fields.bool("stream")?.unwrap_or_else(|| client_body::wants_events(head)),
        include_usage: fields.raw("stream_options").is_some_and(|raw| envelope::includes_usage(raw.get())),
        sampling: sampling(&fields)?,
        stop: stop(&fields)?,
        reasoning: reasoning(&fields)?,
        prompt_cache_key: fields.str("prompt_cache_key")?.map(Into::into),
        service_tier: fields.str("service_tier")?.map(Into::into),
        parallel_tool_calls: fields.bool("parallel_tool_calls")?,
        metadata: fields.object("metadata")?.and(fields.raw("metadata")).map(ToOwned::to_owned),
        store: fields.bool("store")?,
        verbosity: fields.str("verbosity")?.map(Into::into),
        ..ChatRequest::default()
    };
    request.output_format = output_format(&fields, &mut request.losses)?;
    if let Some(options) = fields.object_or_none("stream_options") {
        options.note_unlisted(&["include_usage"], &mut request.losses);
    }
    request.max_output_tokens = match fields.count("max_completion_tokens")? {
        Some(limit) => Some(limit),
        None => fields.count("max_tokens")?,
    };
    let user = fields.str("user")?;
    match fields.str("safety_identifier")? {
        Some(id) => {
            request.user = Some(id.into_owned());
            request.user_is_safety_id = true;
            if let Some(raw) = fields.raw("user") {
                request.extras.members.push(("user".to_owned(), raw.to_owned()));
            }
        }
        None => request.user = user.map(Into::into),
    }
    tools(&fields, &mut request)?;
    let search = web_search(&fields, &mut request.losses)?;
    request.tools.extend(search);
    request.tool_choice = tool_choice(&fields, &mut request.losses)?;
    check_choice(&request)?;
    messages::decode(&fields, &mut request)?;
    request.extras.origin = Some(ID);
    for (name, raw) in fields.unlisted(KNOWN) {
        if client_body::is_unwanted(name) {
            request.losses.push(ir::quiet(name.to_owned(), LossAction::Dropped));
        } else {
            request.extras.members.push((name.to_owned(), raw.to_owned()));
        }
    }
    Ok(request)
}

fn sampling(fields: &Fields<'_>) -> Result<Sampling, DecodeError> {
    let logit_bias = match fields.raw("logit_bias") {
        Some(raw) if !is_object(raw) => return Err(wrong_type("logit_bias", "an object")),
        Some(raw) if raw.get()[1..].trim_start().starts_with('}') => None,
        other => other.map(ToOwned::to_owned),
    };
    Ok(Sampling {
        temperature: fields.number("temperature")?,
        top_p: fields.number("top_p")?,
        top_k: fields.number("top_k")?,
        frequency_penalty: fields.number("frequency_penalty")?,
        presence_penalty: fields.number("presence_penalty")?,
        seed: fields.number("seed")?,
        logit_bias,
        logprobs: fields.bool("logprobs")?.unwrap_or(false),
        top_logprobs: fields.count("top_logprobs")?,
        n: fields.count("n")?,
    })
}

fn stop(fields: &Fields<'_>) -> Result<Vec<String>, DecodeError> {
    let Some(raw) = fields.raw("stop") else { return Ok(Vec::new()) };
    if let Some(single) = str_of(raw) {
        return Ok(vec![single.into_owned()]);
    }
    let list = fields.list("stop").map_err(|_| wrong_type("stop", "a string or a list of strings"))?;
    let texts = list.unwrap_or_default().into_iter().enumerate().map(|(at, raw)| {
        str_of(raw).map(Into::into).ok_or_else(|| wrong_type(format!("stop[{at}]"), "a string"))
    });
    texts.collect()
}

fn output_format(fields: &Fields<'_>, losses: &mut Vec<Loss>) -> Result<OutputFormat, DecodeError> {
    let format = fields.object_of("response_format", &["type", "json_schema"], losses)?;
    let Some(format) = format else { return Ok(OutputFormat::Text) };
    match &*format.need_str("type")? {
        "text" => Ok(OutputFormat::Text),
        "json_object" => Ok(OutputFormat::JsonObject),
        "json_schema" => {
            let known = &["name", "description", "schema", "strict"];
            let inner = format.object_of("json_schema", known, losses)?;
            let Some(inner) = inner else { return Err(missing("response_format")) };
            let Some(schema) = inner.raw("schema") else {
                return Err(missing("response_format.json_schema.schema"));
            };
            if !is_object(schema) {
                return Err(wrong_type("response_format.json_schema.schema", "an object"));
            }
            Ok(OutputFormat::JsonSchema {
                name: inner.str("name")?.map(Into::into),
                description: inner.str("description")?.map(Into::into),
                schema: schema.to_owned(),
                strict: inner.bool("strict")?,
            })
        }
        _ => Err(wrong_value("response_format.type", "`text`, `json_object` or `json_schema`")),
    }
}

fn reasoning(fields: &Fields<'_>) -> Result<Reasoning, DecodeError> {
    let Some(word) = fields.str("reasoning_effort")? else { return Ok(Reasoning::default()) };
    let amount = match &*word {
        "none" => ReasoningAmount::Off,
        word => match effort::of_word(word) {
            Some(effort) => ReasoningAmount::Effort(effort),
            None => return Err(wrong_value("reasoning_effort", effort::WORDS)),
        },
    };
    let show = Some(amount != ReasoningAmount::Off);
    Ok(Reasoning { amount, show })
}

fn tools(fields: &Fields<'_>, request: &mut ChatRequest) -> Result<(), DecodeError> {
    let mut list = ToolList::default();
    for (group, legacy) in [("tools", false), ("functions", true)] {
        for (at, raw) in fields.list(group)?.unwrap_or_default().into_iter().enumerate() {
            let path = format!("{group}[{at}]");
            let losses = &mut request.losses;
            let tool = if legacy { function(raw, &path, losses)? } else { tool(raw, &path, losses)? };
            list.push(tool, raw.get(), path, request)?;
        }
    }
    Ok(())
}

/// The switch for searches of the web, which are a tool elsewhere.
fn web_search(fields: &Fields<'_>, losses: &mut Vec<Loss>) -> Result<Option<Tool>, DecodeError> {
    let known = &["search_context_size", "user_location"];
    let Some(options) = fields.object_of("web_search_options", known, losses)? else { return Ok(None) };
    let place = match options.object_of("user_location", &["type", "approximate"], losses)? {
        Some(user) => place(&user, "approximate", losses)?,
        None => None,
    };
    let raw = fields.raw("web_search_options").into_iter().map(ToOwned::to_owned);
    let search = WebSearchTool {
        native: Native { origin: ID, raw: raw.collect() },
        allowed_domains: Vec::new(),
        blocked_domains: Vec::new(),
        max_uses: None,
        context_size: options.str("search_context_size")?.map(Into::into),
        place,
    };
    let kind = ToolKind::WebSearch(Box::new(search));
    // Chat Completions has a switch in the place of this tool.
    Ok(Some(Tool::at("web_search_options", kind)))
}

fn tool(raw: &RawValue, path: &str, losses: &mut Vec<Loss>) -> Result<Tool, DecodeError> {
    let fields = Fields::strict(raw.get(), path)?;
    let kind = fields.str("type")?;
    match kind.as_deref() {
        Some("function") | None => {
            let Some(inner) = fields.raw("function") else { return Err(fields.missing("function")) };
            let mut tool = function(inner, &fields.path_of("function"), losses)?;
            path.clone_into(&mut tool.path);
            tool.cache_mark = messages::cache_mark(&fields, losses);
            let known = ["type", "function", "cache_control", "prompt_cache_breakpoint"];
            tool.extras.extend(fields.unlisted(&known).map(|(name, raw)| (name.to_owned(), raw.to_owned())));
            Ok(tool)
        }
        Some("custom") => {
            fields.tell_unlisted(&["type", "custom"], losses);
            let inner = fields.object_of("custom", &["name", "description", "format"], losses)?;
            let Some(inner) = inner else { return Err(fields.missing("custom")) };
            let name = inner.need_str("name")?;
            if name.trim().is_empty() {
                return Err(wrong_value(inner.path_of("name"), "a tool's name, not an empty string"));
            }
            let kind = ToolKind::Custom {
                name: name.into_owned(),
                description: inner.str("description")?.map(Into::into),
                format: inner.raw("format").map(|raw| custom_format::flat(raw).into_owned()),
            };
            Ok(Tool::at(path, kind))
        }
        Some(word) => {
            let inner = fields.object_or_none(word);
            let name = inner.and_then(|inner| inner.str("name").ok().flatten().map(Into::into));
            let kind = ToolKind::Opaque { origin: ID, name, raw: raw.to_owned() };
            Ok(Tool::at(path, kind))
        }
    }
}

fn function(raw: &RawValue, path: &str, losses: &mut Vec<Loss>) -> Result<Tool, DecodeError> {
    let fields = Fields::strict(raw.get(), path)?;
    fields.tell_unlisted(&["name", "description", "parameters", "strict"], losses);
    let name = fields.need_str("name")?;
    if name.trim().is_empty() {
        return Err(wrong_value(fields.path_of("name"), "a function's name, not an empty string"));
    }
    let schema = fields.raw("parameters");
    if schema.is_some_and(|schema| !is_object(schema)) {
        let wrong = wrong_type(fields.path_of("parameters"), "a JSON schema object");
        return Err(DecodeError { code: "invalid_tool_schema", ..wrong });
    }
    let kind = ToolKind::Function {
        name: name.into_owned(),
        description: fields.str("description")?.map(Into::into),
        schema: schema.map(ToOwned::to_owned),
        strict: fields.bool("strict")?,
    };
    Ok(Tool::at(path, kind))
}

fn tool_choice(fields: &Fields<'_>, losses: &mut Vec<Loss>) -> Result<Option<ToolChoice>, DecodeError> {
    let (member, raw) = match (fields.raw("tool_choice"), fields.raw("function_call")) {
        (Some(raw), _) => ("tool_choice", raw),
        (None, Some(raw)) => ("function_call", raw),
        (None, None) => return Ok(None),
    };
    let expected = "`none`, `auto`, `required` or an object that names a tool";
    if let Some(word) = str_of(raw) {
        return match &*word {
            "none" => Ok(Some(ToolChoice::None)),
            "auto" => Ok(Some(ToolChoice::Auto)),
            "required" | "any" => Ok(Some(ToolChoice::Required)),
            _ => Err(wrong_value(member, expected)),
        };
    }
    let choice = Fields::strict(raw.get(), member).map_err(|_| wrong_type(member, expected))?;
    if member == "function_call" {
        choice.tell_unlisted(&["name"], losses);
        return Ok(Some(ToolChoice::Named(choice.need_str("name")?.into_owned())));
    }
    match choice.str("type")?.as_deref() {
        Some(kind @ ("function" | "custom")) => {
            choice.tell_unlisted(&["type", kind], losses);
            let inner = choice.object_of(kind, &["name"], losses)?;
            let Some(inner) = inner else { return Err(choice.missing(kind)) };
            Ok(Some(ToolChoice::Named(inner.need_str("name")?.into_owned())))
        }
        Some("allowed_tools") => {
            choice.tell_unlisted(&["type", "allowed_tools"], losses);
            let inner = choice.object_of("allowed_tools", &["mode", "tools"], losses)?;
            let Some(inner) = inner else { return Err(choice.missing("allowed_tools")) };
            let mut names = Vec::new();
            for (at, raw) in inner.list("tools")?.unwrap_or_default().into_iter().enumerate() {
                let path = format!("tool_choice.allowed_tools.tools[{at}]");
                let entry = Fields::strict(raw.get(), path)?;
                let kind = entry.str("type")?.unwrap_or_else(|| "function".into());
                entry.tell_unlisted(&["type", &*kind], losses);
                let named = entry.object_of(&kind, &["name"], losses)?;
                let Some(named) = named else { return Err(entry.missing(&kind)) };
                names.push(named.need_str("name")?.into_owned());
            }
            let required = inner.str("mode")?.as_deref() == Some("required");
            Ok(Some(ToolChoice::Allowed { required, names }))
        }
        _ => Err(wrong_value("tool_choice.type", "`function`, `custom` or `allowed_tools`")),
    }
}

/// The id of a call in the superseded form, which has none.
pub(super) fn legacy_call_id(message: usize, name: &str) -> String {
    ids::invented_call_id(&format!("messages[{message}]"), message, name)
}
