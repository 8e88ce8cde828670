//! Reading the conversation of a request.

use std::{borrow::Cow, collections::HashSet};

use serde_json::value::RawValue;

use super::{
    super::{ID, wire},
    decode::legacy_call_id,
};
use crate::{
    DecodeError, DialectId, arguments,
    ir::{
        self, Block, BlockKind, CacheMark, ChatRequest, File, Image, Loss, LossAction, MediaSource, Role,
        ToolCall, ToolResult, Turn,
    },
    json_in::{Fields, list_of, missing, str_of, wrong_type, wrong_value},
    media,
    open_calls::OpenCalls,
};

/// Signed thinking that comes back from a client is the other dialect's: this one has no signatures of its own.
const SIGNER: DialectId = crate::anthropic::ID;
/// The same of the signatures of calls.
const CALL_SIGNER: DialectId = crate::gemini::ID;

/// Members of a message that are read, or that mean nothing to whoever gets the history.
const KNOWN: &[&str] = &[
    "role",
    "content",
    "name",
    "tool_calls",
    "tool_call_id",
    "function_call",
    "refusal",
    "audio",
    "annotations",
    "reasoning_content",
    "reasoning",
    "reasoning_details",
    "thinking_blocks",
    "cache_control",
    "prompt_cache_breakpoint",
];
/// The same of a part.
const PART: &[&str] = &[
    "type",
    "text",
    "refusal",
    "image_url",
    "input_audio",
    "file",
    "annotations",
    "logprobs",
    "cache_control",
    "prompt_cache_breakpoint",
];

/// Reads `messages` into system text and turns.
pub(super) fn decode(fields: &Fields<'_>, request: &mut ChatRequest) -> Result<(), DecodeError> {
    let Some(list) = fields.list("messages")? else { return Err(missing("messages")) };
    if list.is_empty() {
        return Err(wrong_value("messages", "a list with at least one message"));
    }
    // Calls without a result so far, for results that do not say whose they are.
    let mut open = OpenCalls::default();
    let last = list.len() - 1;
    for (at, raw) in list.into_iter().enumerate() {
        let path = format!("messages[{at}]");
        let message = Fields::strict(raw.get(), path.as_str())?;
        let role = message.need_str("role")?;
        // What the model said before is history; the last one is to be gone on with, and `prefix` or `partial` say how.
        let is_history = role == "assistant" && at < last;
        message.unlisted_as(KNOWN, is_history, &mut request.losses);
        let name = message.str("name")?.map(Cow::into_owned);
        match &*role {
            "system" | "developer" => {
                let blocks = content(&message, &mut request.losses)?;
                // One with a name is a turn of its own, which has a place for it.
                if request.turns.is_empty() && name.is_none() {
                    request.system.extend(blocks);
                } else {
                    request.turns.push(Turn { role: Role::System, blocks, name, path });
                }
            }
            "user" => {
                let blocks = content(&message, &mut request.losses)?;
                request.turns.push(Turn { role: Role::User, blocks, name, path });
            }
            "assistant" => {
                let blocks = assistant(&message, at, request)?;
                for block in &blocks {
                    if let BlockKind::ToolCall(call) = &block.kind {
                        open.push(&call.id, &call.name);
                    }
                }
                request.turns.push(Turn { role: Role::Assistant, blocks, name, path });
            }
            "tool" | "function" => {
                let call_id = answered_call(&message, &role, name.as_deref(), &mut open)?;
                open.close(&call_id);
                let result =
                    ToolResult { call_id, blocks: content(&message, &mut request.losses)?, is_error: false };
                let cache_mark = cache_mark(&message, &mut request.losses);
                let block = Block::marked(BlockKind::ToolResult(result), cache_mark);
                match request.turns.last_mut() {
                    Some(turn) if turn.role == Role::User && is_results(turn) => turn.blocks.push(block),
                    _ => request.turns.push(Turn { role: Role::User, blocks: vec![block], name: None, path }),
                }
            }
            _ => {
                let expected = "`system`, `developer`, `user`, `assistant`, `tool` or `function`";
                return Err(wrong_value(message.path_of("role"), expected));
            }
        }
    }
    Ok(())
}

/// A mark that the prompt may be cached up to here, in this dialect's form or in the one that proxies take.
pub(super) fn cache_mark(fields: &Fields<'_>, losses: &mut Vec<Loss>) -> Option<CacheMark> {
    if let Some(control) = fields.object_or_none("cache_control") {
        control.note_unlisted(&["type", "ttl"], losses);
        let one_hour = control.str("ttl").is_ok_and(|ttl| ttl.as_deref() == Some("1h"));
        return Some(CacheMark { one_hour });
    }
    let mark = fields.object_or_none("prompt_cache_breakpoint")?;
    mark.note_unlisted(&["mode"], losses);
    Some(CacheMark { one_hour: false })
}

/// Whether a turn of the user holds results, which no other turn holds here.
fn is_results(turn: &Turn) -> bool {
    turn.blocks.last().is_some_and(|block| matches!(block.kind, BlockKind::ToolResult(_)))
}

/// The call that a result belongs to; without an id, the oldest that is unanswered.
fn answered_call(
    message: &Fields<'_>,
    role: &str,
    name: Option<&str>,
    open: &mut OpenCalls,
) -> Result<String, DecodeError> {
    if let Some(id) = message.str("tool_call_id")?.filter(|id| !id.is_empty()) {
        return Ok(id.into_owned());
    }
    let by_name = name.filter(|_| role == "function").and_then(|name| open.of_tool(name));
    match by_name.or_else(|| open.oldest()).and_then(|at| open.id(at)) {
        Some(id) => Ok(id.to_owned()),
        None => {
            let param = message.path_of("tool_call_id");
            let message = format!("`{param}` is required: no tool call is waiting for a result");
            Err(DecodeError { code: "unpaired_tool_call", param: Some(param), message })
        }
    }
}

fn assistant(message: &Fields<'_>, at: usize, request: &mut ChatRequest) -> Result<Vec<Block>, DecodeError> {
    let mut blocks = thinking(message, &mut request.losses)?;
    let mut signed: HashSet<String> = blocks.iter().filter_map(signature_of).collect();
    blocks.extend(content(message, &mut request.losses)?);
    if let Some(refusal) = message.str("refusal")?.filter(|refusal| !refusal.is_empty()) {
        blocks.push(BlockKind::Refusal(refusal.into_owned()).into());
    }
    if message.raw("audio").is_some() {
        request.losses.push(ir::loss(message.path_of("audio"), LossAction::Dropped));
    }
    for (n, raw) in message.list("tool_calls")?.unwrap_or_default().into_iter().enumerate() {
        let path = message.path_of(&format!("tool_calls[{n}]"));
        let call = Fields::strict(raw.get(), path)?;
        let is_custom = call.str("type")?.as_deref() == Some("custom");
        let (group, text) = if is_custom { ("custom", "input") } else { ("function", "arguments") };
        call.note_unlisted(&["id", "type", "index", group, "extra_content"], &mut request.losses);
        let Some(function) = call.object(group)? else { return Err(call.missing(group)) };
        function.note_unlisted(&["name", text], &mut request.losses);
        let name = function.need_str("name")?;
        let text = match function.raw(text) {
            // Some clients send the object itself.
            Some(raw) => str_of(raw).unwrap_or(Cow::Borrowed(raw.get())).into_owned(),
            None => String::new(),
        };
        let arguments = if is_custom { arguments::of_free_text(&text) } else { text };
        let id = match call.str("id")?.filter(|id| !id.is_empty()) {
            Some(id) => id.into_owned(),
            None => legacy_call_id(at, &format!("{n} {name}")),
        };
        let extra = call.object_or_none("extra_content");
        if let Some(extra) = &extra {
            wire::note_unknown_extra(extra, &mut request.losses);
        }
        if let Some(data) =
            extra.as_ref().and_then(wire::call_signature).filter(|data| signed.insert(data.clone()))
        {
            let text = String::new();
            let kind = BlockKind::Thinking { text, signature: Some(data.into()), origin: CALL_SIGNER };
            blocks.push(kind.into());
        }
        let call = ToolCall { id, name: name.into_owned(), arguments };
        blocks.push(BlockKind::ToolCall(call).into());
    }
    if let Some(function) = message.object("function_call")? {
        function.note_unlisted(&["name", "arguments"], &mut request.losses);
        let name = function.need_str("name")?.into_owned();
        let arguments = function.str("arguments")?.unwrap_or_default().into_owned();
        let id = legacy_call_id(at, &name);
        blocks.push(BlockKind::ToolCall(ToolCall { id, name, arguments }).into());
    }
    Ok(blocks)
}

/// The signature that came with its thinking, and so not with the call it belongs to.
fn signature_of(block: &Block) -> Option<String> {
    match &block.kind {
        BlockKind::Thinking { signature: Some(signature), .. } => Some(signature.data.clone()),
        _ => None,
    }
}

/// Reasoning of an earlier answer: blocks with their signatures, or plain text.
fn thinking(message: &Fields<'_>, losses: &mut Vec<Loss>) -> Result<Vec<Block>, DecodeError> {
    let mut blocks = Vec::new();
    for (at, raw) in
        message.raw("thinking_blocks").and_then(list_of).unwrap_or_default().into_iter().enumerate()
    {
        let path = message.path_of(&format!("thinking_blocks[{at}]"));
        let Ok(block) = Fields::lenient(raw.get(), path) else { continue };
        block.note_unlisted(&["type", "thinking", "signature", "data"], losses);
        let text = |name| block.str(name).ok().flatten().map(Cow::into_owned);
        let kind = match text("type").as_deref() {
            Some("redacted_thinking") => {
                BlockKind::RedactedThinking { data: text("data").unwrap_or_default(), origin: SIGNER }
            }
            _ => {
                let signature = text("signature").filter(|signature| !signature.is_empty()).map(Into::into);
                let origin = if signature.is_some() { SIGNER } else { ID };
                BlockKind::Thinking { text: text("thinking").unwrap_or_default(), signature, origin }
            }
        };
        blocks.push(Block::from(kind));
    }
    for name in ["reasoning_content", "reasoning"] {
        if !blocks.is_empty() {
            break;
        }
        let text = message.raw(name).and_then(str_of).filter(|text| !text.is_empty());
        if let Some(text) = text {
            let kind = BlockKind::Thinking { text: text.into_owned(), signature: None, origin: ID };
            blocks.push(Block::from(kind));
        }
    }
    if let Some(details) = message.raw("reasoning_details") {
        if blocks.is_empty() {
            let text = wire::detail_texts(details);
            blocks.extend(
                text.map(|text| Block::from(BlockKind::Thinking { text, signature: None, origin: ID })),
            );
        }
        // Who wrote them, and proofs of it, have no place.
        losses.push(ir::quiet(message.path_of("reasoning_details"), LossAction::Dropped));
    }
    Ok(blocks)
}

fn content(message: &Fields<'_>, losses: &mut Vec<Loss>) -> Result<Vec<Block>, DecodeError> {
    let Some(raw) = message.raw("content") else { return Ok(Vec::new()) };
    if let Some(text) = str_of(raw) {
        if text.is_empty() {
            return Ok(Vec::new());
        }
        let kind = BlockKind::Text(text.into_owned());
        return Ok(vec![Block::marked(kind, cache_mark(message, losses))]);
    }
    let path = message.path_of("content");
    let Some(list) = list_of(raw) else { return Err(wrong_type(path, "a string or a list of parts")) };
    list.into_iter().enumerate().map(|(at, raw)| part(raw, format!("{path}[{at}]"), losses)).collect()
}

fn part(raw: &RawValue, path: String, losses: &mut Vec<Loss>) -> Result<Block, DecodeError> {
    if let Some(text) = str_of(raw) {
        return Ok(BlockKind::Text(text.into_owned()).into());
    }
    let part = Fields::strict(raw.get(), path)?;
    let kind = match &*part.need_str("type")? {
        "text" | "input_text" | "output_text" => BlockKind::Text(part.need_str("text")?.into_owned()),
        "refusal" => BlockKind::Refusal(part.need_str("refusal")?.into_owned()),
        "image_url" => BlockKind::Image(image(&part, losses)?),
        "input_audio" => {
            let audio = part.object_of("input_audio", &["data", "format"], losses)?;
            let Some(audio) = audio else { return Err(part.missing("input_audio")) };
            BlockKind::Audio {
                data: audio.need_str("data")?.into_owned(),
                format: audio.need_str("format")?.into_owned(),
            }
        }
        "file" => BlockKind::File(file(&part, losses)?),
        _ => {
            let expected = "`text`, `image_url`, `input_audio`, `file` or `refusal`";
            return Err(wrong_value(part.path_of("type"), expected));
        }
    };
    part.tell_unlisted(PART, losses);
    Ok(Block::marked(kind, cache_mark(&part, losses)))
}

fn image(part: &Fields<'_>, losses: &mut Vec<Loss>) -> Result<Image, DecodeError> {
    let Some(raw) = part.raw("image_url") else { return Err(part.missing("image_url")) };
    let path = part.path_of("image_url.url");
    let (url, detail) = match str_of(raw) {
        Some(url) => (url, None),
        None => {
            let inner = Fields::strict(raw.get(), part.path_of("image_url"))?;
            inner.tell_unlisted(&["url", "detail"], losses);
            (inner.need_str("url")?, inner.str("detail")?.map(Cow::into_owned))
        }
    };
    let Some(source) = media::source_of_url(&url) else {
        return Err(wrong_value(path, "an http(s) address or a base64 data URL"));
    };
    Ok(Image { source, detail })
}

fn file(part: &Fields<'_>, losses: &mut Vec<Loss>) -> Result<File, DecodeError> {
    let file = part.object_of("file", &["filename", "file_id", "file_data"], losses)?;
    let Some(file) = file else { return Err(part.missing("file")) };
    let name = file.str("filename")?.map(Cow::into_owned);
    if let Some(id) = file.str("file_id")? {
        return Ok(File { name, ..MediaSource::FileId { origin: ID, id: id.into_owned() }.into() });
    }
    let source = media::source_of_data(&file.need_str("file_data")?);
    Ok(File { name, ..source.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_without_a_place_are_noted() {
        let body = r#"{"messages":[
            {"role":"user","mood":"glad","content":[{"type":"text","text":"x","weight":2,"cache_control":{"type":"ephemeral"}}]},
            {"role":"assistant","content":"y","refusal":null,"annotations":[]}]}"#;
        let fields = Fields::strict(body, "").unwrap();
        let mut request = ChatRequest::default();
        decode(&fields, &mut request).unwrap();
        let noted: Vec<_> = request.losses.iter().map(|loss| (&*loss.path, loss.silent)).collect();
        assert_eq!(noted, [("messages[0].mood", false), ("messages[0].content[0].weight", false)]);
    }
}
