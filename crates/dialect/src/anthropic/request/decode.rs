//! A client's request as a canonical one.

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::{
    DecodeError,
    anthropic::{
        ID,
        search::{self, Searches},
    },
    ir::{
        Block, BlockKind, CacheMark, ChatRequest, Effort, Extras, File, Image, Loss, LossAction, MediaSource,
        OutputFormat, Reasoning, ReasoningAmount, Role, Tool, ToolCall, ToolChoice, ToolKind, ToolResult,
        Turn, loss,
    },
    json_in::{self, Fields, wrong_value},
    media,
    tool_list::ToolList,
};

/// Top-level members that have a place in the canonical form.
const KNOWN: &[&str] = &[
    "model",
    "messages",
    "max_tokens",
    "system",
    "tools",
    "tool_choice",
    "thinking",
    "output_config",
    "stop_sequences",
    "stream",
    "metadata",
    "service_tier",
    "temperature",
    "top_p",
    "top_k",
];

/// Reads a request.
pub(in crate::anthropic) fn decode(body: &Bytes) -> Result<ChatRequest, DecodeError> {
    let text = json_in::text(body)?;
    let fields = Fields::strict(&text, "")?;
    let mut request = ChatRequest {
        model: fields.need_str("model")?.into_owned(),
        stream: fields.bool("stream")?.unwrap_or(false),
        include_usage: true,
        max_output_tokens: fields.count("max_tokens")?,
        service_tier: fields.str("service_tier")?.map(Into::into),
        ..ChatRequest::default()
    };
    request.sampling.temperature = fields.number("temperature")?;
    request.sampling.top_p = fields.number("top_p")?;
    request.sampling.top_k = fields.number("top_k")?;
    for raw in fields.list("stop_sequences")?.unwrap_or_default() {
        let sequence =
            json_in::str_of(raw).ok_or_else(|| json_in::wrong_type("stop_sequences", "a list of strings"))?;
        request.stop.push(sequence.into_owned());
    }

    let mut losses = Vec::new();
    request.system = system(&fields, &mut losses)?;
    let messages = fields.list("messages")?.ok_or_else(|| fields.missing("messages"))?;
    if messages.is_empty() {
        return Err(json_in::wrong_value("messages", "a list with at least one message"));
    }
    for (at, raw) in messages.into_iter().enumerate() {
        request.turns.push(turn(raw, format!("messages[{at}]"), &mut losses)?);
    }
    let mut list = ToolList::default();
    for (at, raw) in fields.list("tools")?.unwrap_or_default().into_iter().enumerate() {
        let path = format!("tools[{at}]");
        list.push(tool(raw, path.clone(), &mut losses)?, raw.get(), path, &mut request)?;
    }
    losses.append(&mut request.losses);
    tool_choice(&fields, &mut request, &mut losses)?;

    let mut extras = Extras { origin: Some(ID), members: Vec::new() };
    for (name, raw) in fields.unlisted(KNOWN) {
        extras.members.push((name.to_owned(), raw.to_owned()));
    }
    effort_and_format(&fields, &mut request, &mut extras)?;
    user(&fields, &mut request, &mut extras)?;
    request.extras = extras;
    request.losses = losses;
    Ok(request)
}

/// A text that says what a block says which only this dialect has.
pub(in crate::anthropic) fn opaque_as_text(raw: &RawValue) -> Option<String> {
    let fields = Fields::lenient(raw.get(), "").ok()?;
    let words =
        |fields: &Fields<'_>, name: &str| fields.str(name).ok().flatten().map(|text| text.into_owned());
    match &*words(&fields, "type")? {
        "search_result" => {
            let heading = [words(&fields, "title"), words(&fields, "source")];
            let heading = heading.into_iter().flatten().collect::<Vec<_>>().join(" — ");
            Some(with_heading(&heading, &texts_of(fields.raw("content")?)))
        }
        "document" => {
            let source = fields.object_or_none("source")?;
            let heading = words(&fields, "title").unwrap_or_default();
            Some(with_heading(&heading, &texts_of(source.raw("content")?)))
        }
        "server_tool_use" => {
            let name = words(&fields, "name")?;
            let input =
                fields.raw("input").map_or_else(|| "{}".to_owned(), |raw| json_in::compact(raw.get()));
            Some(format!("[{name} {input}]"))
        }
        "web_search_tool_result" | "web_fetch_tool_result" => {
            let results = json_in::list_of(fields.raw("content")?).unwrap_or_default();
            let lines = results.into_iter().filter_map(|result| {
                let result = Fields::lenient(result.get(), "").ok()?;
                let title = words(&result, "title").unwrap_or_default();
                words(&result, "url").map(|url| format!("- {title} {url}"))
            });
            let lines: Vec<_> = std::iter::once("[search results]".to_owned()).chain(lines).collect();
            Some(lines.join("\n"))
        }
        "tool_reference" => words(&fields, "tool_name").map(|name| format!("[tool {name}]")),
        _ => None,
    }
}

fn with_heading(heading: &str, text: &str) -> String {
    if heading.is_empty() { text.to_owned() } else { format!("{heading}\n{text}") }
}

fn texts_of(raw: &RawValue) -> String {
    if let Some(text) = json_in::str_of(raw) {
        return text.into_owned();
    }
    let blocks = json_in::list_of(raw).unwrap_or_default();
    let texts = blocks.into_iter().filter_map(|block| {
        let text = Fields::lenient(block.get(), "").ok()?.str("text").ok()??.into_owned();
        Some(text)
    });
    texts.collect::<Vec<_>>().join("\n")
}

fn system(fields: &Fields<'_>, losses: &mut Vec<Loss>) -> Result<Vec<Block>, DecodeError> {
    let Some(raw) = fields.raw("system") else { return Ok(Vec::new()) };
    if let Some(text) = json_in::str_of(raw) {
        return Ok(if text.is_empty() {
            Vec::new()
        } else {
            vec![BlockKind::Text(text.into_owned()).into()]
        });
    }
    let blocks =
        json_in::list_of(raw).ok_or_else(|| json_in::wrong_type("system", "a string or a list of blocks"))?;
    blocks.into_iter().enumerate().map(|(at, raw)| block(raw, &format!("system[{at}]"), losses)).collect()
}

fn turn(raw: &RawValue, path: String, losses: &mut Vec<Loss>) -> Result<Turn, DecodeError> {
    let fields = Fields::strict(raw.get(), path.clone())?;
    let role = match &*fields.need_str("role")? {
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "system" => Role::System,
        _ => return Err(json_in::wrong_value(fields.path_of("role"), "`user`, `assistant` or `system`")),
    };
    fields.unlisted_as(&["role", "content"], role == Role::Assistant, losses);
    let content = fields.raw("content").ok_or_else(|| fields.missing("content"))?;
    Ok(Turn { role, blocks: content_blocks(content, &fields.path_of("content"), losses)?, name: None, path })
}

fn content_blocks(raw: &RawValue, path: &str, losses: &mut Vec<Loss>) -> Result<Vec<Block>, DecodeError> {
    if let Some(text) = json_in::str_of(raw) {
        return Ok(vec![BlockKind::Text(text.into_owned()).into()]);
    }
    let blocks =
        json_in::list_of(raw).ok_or_else(|| json_in::wrong_type(path, "a string or a list of blocks"))?;
    let mut searches = Searches::of(&blocks, false);
    let mut read = Vec::with_capacity(blocks.len());
    for (at, raw) in blocks.into_iter().enumerate() {
        match searches.at(at) {
            Some(search) => {
                let fields = Fields::lenient(raw.get(), format!("{path}[{at}]"))?;
                let mark = cache_mark(&fields, losses)?;
                read.extend(search.map(|search| Block::marked(BlockKind::WebSearch(search), mark)));
            }
            None => read.push(block(raw, &format!("{path}[{at}]"), losses)?),
        }
    }
    Ok(read)
}

fn block(raw: &RawValue, path: &str, losses: &mut Vec<Loss>) -> Result<Block, DecodeError> {
    let fields = Fields::strict(raw.get(), path)?;
    let kind = fields.need_str("type")?;
    let opaque = || BlockKind::Opaque { origin: ID, raw: raw.to_owned() };
    let mut citations = Vec::new();
    let (kind, known): (_, &[&str]) = match &*kind {
        "text" => {
            let text = fields.need_str("text")?.into_owned();
            citations = fields.list("citations")?.unwrap_or_default();
            (BlockKind::Text(text), &["text", "citations"])
        }
        "image" => {
            let source = source(&fields, losses)?.ok_or_else(|| {
                json_in::wrong_value(format!("{path}.source.type"), "`base64`, `url` or `file`")
            })?;
            (BlockKind::Image(Image { source, detail: None }), &["source"])
        }
        "document" => match source(&fields, losses)? {
            Some(source) => {
                let name = fields.str("title")?.map(Into::into);
                let own = ["context", "citations"].into_iter().filter_map(|name| {
                    let raw = fields.raw(name).filter(|raw| !says_nothing(raw))?;
                    Some((name.to_owned(), raw.to_owned()))
                });
                let extras = own.collect();
                (BlockKind::File(File { source, name, extras }), &["source", "title", "context", "citations"])
            }
            None => return Ok(Block::marked(opaque(), cache_mark(&fields, losses)?)),
        },
        "thinking" => {
            let thinking = BlockKind::Thinking {
                text: fields.str("thinking")?.unwrap_or_default().into_owned(),
                signature: fields
                    .str("signature")?
                    .filter(|text| !text.is_empty())
                    .map(|text| text.into_owned().into()),
                origin: ID,
            };
            (thinking, &["thinking", "signature"])
        }
        "redacted_thinking" => {
            let data = fields.need_str("data")?.into_owned();
            (BlockKind::RedactedThinking { data, origin: ID }, &["data"])
        }
        "tool_use" => {
            let arguments =
                fields.raw("input").map_or_else(|| "{}".to_owned(), |raw| json_in::compact(raw.get()));
            let call = ToolCall {
                id: fields.need_str("id")?.into_owned(),
                name: fields.need_str("name")?.into_owned(),
                arguments,
            };
            (BlockKind::ToolCall(call), &["id", "name", "input"])
        }
        "tool_result" => {
            let blocks = match fields.raw("content") {
                Some(content) => content_blocks(content, &fields.path_of("content"), losses)?,
                None => Vec::new(),
            };
            let result = ToolResult {
                call_id: fields.need_str("tool_use_id")?.into_owned(),
                blocks,
                is_error: fields.bool("is_error")?.unwrap_or(false),
            };
            (BlockKind::ToolResult(result), &["tool_use_id", "content", "is_error"])
        }
        // What it is made of stays within, its mark and all; other dialects may have a place for that.
        _ => return Ok(Block::marked(opaque(), cache_mark(&fields, losses)?)),
    };
    let cache_mark = cache_mark(&fields, losses)?;
    let of_answer = matches!(
        kind,
        BlockKind::ToolCall(_) | BlockKind::Thinking { .. } | BlockKind::RedactedThinking { .. }
    );
    for (name, _) in fields.unlisted(&["type", "cache_control"]) {
        if !known.contains(&name) {
            losses.push(Loss { silent: of_answer, ..loss(fields.path_of(name), LossAction::Dropped) });
        }
    }
    let citations = citations.into_iter().map(search::citation).collect();
    Ok(Block { citations, ..Block::marked(kind, cache_mark) })
}

/// Whether a member of a document is as good as absent.
fn says_nothing(raw: &RawValue) -> bool {
    raw.get() == "null"
        || Fields::lenient(raw.get(), "").is_ok_and(|fields| {
            fields.unlisted(&["enabled"]).next().is_none()
                && fields.raw("enabled").is_none_or(|enabled| enabled.get() != "true")
        })
}

/// Where the bytes are; `None` for a source that is made of blocks or of an unknown type.
fn source(fields: &Fields<'_>, losses: &mut Vec<Loss>) -> Result<Option<MediaSource>, DecodeError> {
    let source = fields.object("source")?.ok_or_else(|| fields.missing("source"))?;
    let mut known = |names: &[&str]| {
        for (name, _) in source.unlisted(names).filter(|(name, _)| *name != "type") {
            losses.push(loss(source.path_of(name), LossAction::Dropped));
        }
    };
    Ok(Some(match &*source.need_str("type")? {
        "base64" => {
            known(&["media_type", "data"]);
            MediaSource::Base64 {
                media_type: source.need_str("media_type")?.into_owned(),
                data: source.need_str("data")?.into_owned(),
            }
        }
        "url" => {
            known(&["url"]);
            let url = source.need_str("url")?;
            if !media::is_on_the_web(&url) {
                return Err(wrong_value(source.path_of("url"), "an http(s) address"));
            }
            MediaSource::Url(url.into_owned())
        }
        "file" => {
            known(&["file_id"]);
            MediaSource::FileId { origin: ID, id: source.need_str("file_id")?.into_owned() }
        }
        "text" => {
            known(&["media_type", "data"]);
            MediaSource::Text(source.need_str("data")?.into_owned())
        }
        _ => return Ok(None),
    }))
}

fn cache_mark(fields: &Fields<'_>, losses: &mut Vec<Loss>) -> Result<Option<CacheMark>, DecodeError> {
    let Some(control) = fields.object("cache_control")? else { return Ok(None) };
    control.note_unlisted(&["type", "ttl"], losses);
    let one_hour = control.str("ttl")?.is_some_and(|ttl| ttl == "1h");
    Ok(Some(CacheMark { one_hour }))
}

fn tool(raw: &RawValue, path: String, losses: &mut Vec<Loss>) -> Result<Tool, DecodeError> {
    let fields = Fields::strict(raw.get(), path.as_str())?;
    if fields.str("type")?.is_some_and(|kind| search::is_tool(&kind)) {
        let kind = ToolKind::WebSearch(Box::new(search::tool(&fields, raw, losses)?));
        return Ok(Tool::at(path, kind));
    }
    if fields.str("type")?.is_some_and(|kind| kind != "custom") {
        let name = fields.str("name")?.map(Into::into);
        let kind = ToolKind::Opaque { origin: ID, name, raw: raw.to_owned() };
        return Ok(Tool::at(path, kind));
    }
    let kind = ToolKind::Function {
        name: fields.need_str("name")?.into_owned(),
        description: fields.str("description")?.map(Into::into),
        schema: fields.raw("input_schema").map(ToOwned::to_owned),
        strict: fields.bool("strict")?,
    };
    let known = &["type", "name", "description", "input_schema", "strict", "cache_control"];
    let extras = fields.unlisted(known).map(|(name, raw)| (name.to_owned(), raw.to_owned())).collect();
    Ok(Tool { cache_mark: cache_mark(&fields, losses)?, extras, ..Tool::at(path, kind) })
}

fn tool_choice(
    fields: &Fields<'_>,
    request: &mut ChatRequest,
    losses: &mut Vec<Loss>,
) -> Result<(), DecodeError> {
    let known = &["type", "name", "disable_parallel_tool_use"];
    let Some(choice) = fields.object_of("tool_choice", known, losses)? else { return Ok(()) };
    let searches = request.tools.iter().any(|tool| matches!(tool.kind, ToolKind::WebSearch(_)));
    request.tool_choice = Some(match &*choice.need_str("type")? {
        "auto" => ToolChoice::Auto,
        "any" => ToolChoice::Required,
        "none" => ToolChoice::None,
        "tool" => match choice.need_str("name")? {
            name if name == search::NAME && searches => ToolChoice::WebSearch,
            name => ToolChoice::Named(name.into_owned()),
        },
        _ => {
            return Err(json_in::wrong_value("tool_choice.type", "`auto`, `any`, `tool` or `none`"));
        }
    });
    request.parallel_tool_calls = choice.bool("disable_parallel_tool_use")?.map(|disabled| !disabled);
    Ok(())
}

/// Reads `thinking` and `output_config`. What the canonical form cannot say exactly also stays as it came.
fn effort_and_format(
    fields: &Fields<'_>,
    request: &mut ChatRequest,
    extras: &mut Extras,
) -> Result<(), DecodeError> {
    let mut keep = |name: &str| {
        if let Some(raw) = fields.raw(name) {
            extras.members.push((name.to_owned(), raw.to_owned()));
        }
    };
    let mut effort = None;
    let mut config_kept = false;
    if let Some(config) = fields.object("output_config")? {
        let word = config.str("effort")?;
        effort = word.as_deref().and_then(effort_of);
        config_kept = (word.is_some() && effort.is_none())
            || config.unlisted(&["effort", "format"]).next().is_some()
            || !format(&config, request)?;
    }
    let mut thinking_kept = false;
    let mut show = None;
    let amount = match fields.object("thinking")? {
        None => effort.map_or(ReasoningAmount::Default, ReasoningAmount::Effort),
        Some(thinking) => {
            let kind = thinking.need_str("type")?;
            show = match thinking.str("display")?.as_deref() {
                // Who gives a budget is shown what it was spent on.
                None => (*kind == *"enabled").then_some(true),
                Some("omitted") => Some(false),
                Some(_) => Some(true),
            };
            thinking_kept = thinking.unlisted(&["type", "budget_tokens", "display"]).next().is_some();
            match &*kind {
                "enabled" => {
                    let budget =
                        thinking.count("budget_tokens")?.ok_or_else(|| thinking.missing("budget_tokens"))?;
                    config_kept |= effort.is_some();
                    ReasoningAmount::Budget(budget)
                }
                "adaptive" => ReasoningAmount::Adaptive(effort),
                "disabled" => {
                    config_kept |= effort.is_some();
                    ReasoningAmount::Off
                }
                "between_tools" => {
                    config_kept |= effort.is_some();
                    thinking_kept = true;
                    ReasoningAmount::Off
                }
                _ => {
                    let words = "`enabled`, `adaptive`, `disabled` or `between_tools`";
                    return Err(json_in::wrong_value("thinking.type", words));
                }
            }
        }
    };
    if thinking_kept {
        keep("thinking");
    }
    if config_kept {
        keep("output_config");
    }
    request.reasoning = Reasoning { amount, show };
    Ok(())
}

/// Reads the form of the answer; false when it is one that the canonical form does not have.
fn format(config: &Fields<'_>, request: &mut ChatRequest) -> Result<bool, DecodeError> {
    let Some(format) = config.object("format")? else { return Ok(true) };
    if format.need_str("type")? != "json_schema" {
        return Ok(false);
    }
    let schema = format.raw("schema").ok_or_else(|| format.missing("schema"))?.to_owned();
    request.output_format = OutputFormat::JsonSchema { name: None, description: None, schema, strict: None };
    Ok(format.unlisted(&["type", "schema"]).next().is_none())
}

fn effort_of(word: &str) -> Option<Effort> {
    Some(match word {
        "low" => Effort::Low,
        "medium" => Effort::Medium,
        "high" => Effort::High,
        "xhigh" => Effort::XHigh,
        "max" => Effort::Max,
        _ => return None,
    })
}

fn user(fields: &Fields<'_>, request: &mut ChatRequest, extras: &mut Extras) -> Result<(), DecodeError> {
    let Some(metadata) = fields.object("metadata")? else { return Ok(()) };
    request.user = metadata.str("user_id")?.map(Into::into);
    if metadata.unlisted(&["user_id"]).next().is_some() {
        extras.members.extend(fields.raw("metadata").map(|raw| ("metadata".to_owned(), raw.to_owned())));
    }
    Ok(())
}
