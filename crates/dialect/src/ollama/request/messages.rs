//! Reading the conversation of a request.

use std::borrow::Cow;

use super::super::{ID, wire};
use crate::{
    DecodeError, ids,
    ir::{Block, BlockKind, ChatRequest, Image, MediaSource, Role, ToolCall, ToolResult, Turn},
    json_in::{Fields, missing, str_of, wrong_type, wrong_value},
    media,
    open_calls::OpenCalls,
};

/// The type of a picture whose bytes do not tell it: the one that most cameras make.
const USUAL_PICTURE: &str = "image/jpeg";

/// Members of a message that are read.
const KNOWN: &[&str] =
    &["role", "content", "thinking", "images", "tool_calls", "tool_name", "name", "tool_call_id"];

/// Reads `messages` into system text and turns.
pub(super) fn decode(fields: &Fields<'_>, request: &mut ChatRequest) -> Result<(), DecodeError> {
    let Some(list) = fields.list("messages")? else { return Err(missing("messages")) };
    if list.is_empty() {
        return Err(wrong_value("messages", "a list with at least one message"));
    }
    // Calls without a result so far: results mostly name the tool and not the call.
    let mut open = OpenCalls::default();
    for (at, raw) in list.into_iter().enumerate() {
        let path = format!("messages[{at}]");
        let message = Fields::strict(raw.get(), path.as_str())?;
        let role = message.need_str("role")?.to_ascii_lowercase();
        message.unlisted_as(KNOWN, role == "assistant", &mut request.losses);
        match role.as_str() {
            "system" => {
                let blocks = content(&message)?;
                if request.turns.is_empty() {
                    request.system.extend(blocks);
                } else {
                    request.turns.push(Turn { role: Role::System, blocks, name: None, path });
                }
            }
            "user" => {
                let blocks = content(&message)?;
                request.turns.push(Turn { role: Role::User, blocks, name: None, path });
            }
            "assistant" => {
                let blocks = assistant(&message, &path, request)?;
                for block in &blocks {
                    if let BlockKind::ToolCall(call) = &block.kind {
                        open.push(&call.id, &call.name);
                    }
                }
                request.turns.push(Turn { role: Role::Assistant, blocks, name: None, path });
            }
            "tool" => {
                let call_id = answered_call(&message, &mut open)?;
                open.close(&call_id);
                let result = ToolResult { call_id, blocks: content(&message)?, is_error: false };
                let block = Block::from(BlockKind::ToolResult(result));
                match request.turns.last_mut() {
                    Some(turn) if turn.role == Role::User && is_results(turn) => turn.blocks.push(block),
                    _ => request.turns.push(Turn { role: Role::User, blocks: vec![block], name: None, path }),
                }
            }
            _ => {
                let expected = "`system`, `user`, `assistant` or `tool`";
                return Err(wrong_value(message.path_of("role"), expected));
            }
        }
    }
    Ok(())
}

/// Reads `system`, `prompt` and `images` of a completion.
pub(super) fn decode_completion(fields: &Fields<'_>, request: &mut ChatRequest) -> Result<(), DecodeError> {
    if let Some(text) = fields.str("system")?.filter(|text| !text.is_empty()) {
        request.system.push(BlockKind::Text(text.into_owned()).into());
    }
    let mut blocks = images(fields)?;
    if let Some(text) = fields.str("prompt")?.filter(|text| !text.is_empty()) {
        blocks.push(BlockKind::Text(text.into_owned()).into());
    }
    request.turns.push(Turn { role: Role::User, blocks, name: None, path: "prompt".to_owned() });
    Ok(())
}

/// Whether a turn of the user holds results, which no other turn holds here.
fn is_results(turn: &Turn) -> bool {
    turn.blocks.last().is_some_and(|block| matches!(block.kind, BlockKind::ToolResult(_)))
}

/// The call that a result belongs to: the one it names, else the oldest open one of the tool it names, else the oldest.
fn answered_call(message: &Fields<'_>, open: &mut OpenCalls) -> Result<String, DecodeError> {
    if let Some(id) = message.str("tool_call_id")?.filter(|id| !id.is_empty()) {
        return Ok(id.into_owned());
    }
    let name = match message.str("tool_name")? {
        Some(name) => Some(name),
        // What it was called once.
        None => message.str("name")?,
    };
    let by_name = name.and_then(|name| open.of_tool(&name));
    match by_name.or_else(|| open.oldest()).and_then(|at| open.id(at)) {
        Some(id) => Ok(id.to_owned()),
        None => {
            let param = message.path_of("tool_name");
            let message = format!("no tool call is waiting for this result ({param})");
            Err(DecodeError { code: "unpaired_tool_call", param: Some(param), message })
        }
    }
}

fn assistant(message: &Fields<'_>, turn: &str, request: &mut ChatRequest) -> Result<Vec<Block>, DecodeError> {
    let mut blocks = Vec::new();
    if let Some(text) = message.str("thinking")?.filter(|text| !text.is_empty()) {
        let kind = BlockKind::Thinking { text: text.into_owned(), signature: None, origin: ID };
        blocks.push(Block::from(kind));
    }
    blocks.extend(content(message)?);
    for (n, raw) in message.list("tool_calls")?.unwrap_or_default().into_iter().enumerate() {
        let call = Fields::strict(raw.get(), message.path_of(&format!("tool_calls[{n}]")))?;
        call.note_unlisted(&["id", "type", "function"], &mut request.losses);
        let Some(function) = call.object("function")? else { return Err(call.missing("function")) };
        function.note_unlisted(&["index", "name", "arguments"], &mut request.losses);
        let name = function.need_str("name")?.into_owned();
        let arguments = wire::call_arguments(&function);
        let id = match call.str("id")?.filter(|id| !id.is_empty()) {
            Some(id) => id.into_owned(),
            // Its place makes it another one than an equal call of another turn has.
            None => ids::invented_call_id(&format!("{turn} {arguments}"), n, &name),
        };
        blocks.push(BlockKind::ToolCall(ToolCall { id, name, arguments }).into());
    }
    Ok(blocks)
}

/// Pictures, which the models' templates put before the text, and the text.
fn content(message: &Fields<'_>) -> Result<Vec<Block>, DecodeError> {
    let mut blocks = images(message)?;
    if let Some(text) = message.str("content")?.filter(|text| !text.is_empty()) {
        blocks.push(BlockKind::Text(text.into_owned()).into());
    }
    Ok(blocks)
}

fn images(message: &Fields<'_>) -> Result<Vec<Block>, DecodeError> {
    let mut blocks = Vec::new();
    for (at, raw) in message.list("images")?.unwrap_or_default().into_iter().enumerate() {
        let path = message.path_of(&format!("images[{at}]"));
        let data = str_of(raw).ok_or_else(|| wrong_type(path, "a string of base64"))?;
        // Clients that were made for others send an address of the kind `data:`.
        let data = media::data_url(&data).map_or(data.clone(), |(_, inner)| Cow::Owned(inner.to_owned()));
        let media_type = media::sniffed(&data).unwrap_or(USUAL_PICTURE).to_owned();
        let source = MediaSource::Base64 { media_type, data: data.into_owned() };
        blocks.push(BlockKind::Image(Image { source, detail: None }).into());
    }
    Ok(blocks)
}
