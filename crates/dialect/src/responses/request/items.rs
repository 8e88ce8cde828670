//! Reading the conversation of a request.
//!
//! The dialect has a flat list of items. What the model said in a row (reasoning, messages, calls) becomes one turn, and
//! so do the results that come in a row.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::super::{
    ID,
    wire::{self, flat_name, text},
};
use crate::{
    DecodeError, arguments,
    ir::{
        Block, BlockKind, CacheMark, ChatRequest, File, Image, Loss, MediaSource, Role, Signature, ToolCall,
        ToolResult, Turn,
    },
    json_in::{self, Fields, list_of, missing, str_of, wrong_type, wrong_value},
    media,
    open_calls::OpenCalls,
};

/// Members of a part that are read, or that mean nothing to whoever gets the history.
const PART: &[&str] = &[
    "type",
    "text",
    "annotations",
    "logprobs",
    "refusal",
    "image_url",
    "detail",
    "file_id",
    "file_url",
    "file_data",
    "filename",
    "input_audio",
    "prompt_cache_breakpoint",
];

/// The same of an item; `None` for items that are kept as they are.
fn known(kind: &str) -> Option<&'static [&'static str]> {
    Some(match kind {
        "message" => &["type", "id", "status", "role", "content", "phase"],
        "function_call" => &["type", "id", "status", "call_id", "name", "namespace", "arguments"],
        "custom_tool_call" => &["type", "id", "status", "call_id", "name", "namespace", "input"],
        "function_call_output" | "custom_tool_call_output" => &["type", "id", "status", "call_id", "output"],
        "reasoning" => &["type", "id", "status", "summary", "content", "encrypted_content"],
        "additional_tools" => &["type", "id", "role", "tools"],
        _ => return None,
    })
}

/// Reads `input`.
pub(super) fn decode(fields: &Fields<'_>, request: &mut ChatRequest) -> Result<(), DecodeError> {
    let stored = ["previous_response_id", "conversation", "prompt"];
    let Some(raw) = fields.raw("input") else {
        let is_stored = stored.iter().any(|name| fields.raw(name).is_some());
        return if is_stored { Ok(()) } else { Err(missing("input")) };
    };
    if let Some(input) = str_of(raw) {
        if input.is_empty() {
            return Err(wrong_value("input", "a text or a list of items, not empty"));
        }
        request.turns.push(turn(Role::User, BlockKind::Text(input.into_owned()).into(), "input".to_owned()));
        return Ok(());
    }
    let Some(list) = list_of(raw) else { return Err(wrong_type("input", "a text or a list of items")) };
    if list.is_empty() && !stored.iter().any(|name| fields.raw(name).is_some()) {
        return Err(wrong_value("input", "a list with at least one item"));
    }
    let mut reader = Reader { request, open: OpenCalls::default() };
    for (at, raw) in list.into_iter().enumerate() {
        let item = Fields::strict(raw.get(), format!("input[{at}]"))?;
        reader.item(raw, &item, format!("input[{at}]"))?;
    }
    Ok(())
}

/// A text for an item that only this dialect has.
pub(in crate::responses) fn opaque_as_text(raw: &RawValue) -> Option<String> {
    let fields = Fields::lenient(raw.get(), "").ok()?;
    let kind = text(&fields, "type")?;
    let said = |names: &[&str]| {
        let values = names.iter().filter_map(|name| fields.raw(name));
        let words = values.map(|raw| str_of(raw).map_or_else(|| json_in::compact(raw.get()), Into::into));
        words.collect::<Vec<String>>().join(" ")
    };
    let what = match kind.as_str() {
        "image_generation_call" => "image generated".to_owned(),
        "code_interpreter_call" => said(&["code"]),
        "file_search_call" => said(&["queries", "results"]),
        "mcp_call" => said(&["name", "arguments", "output", "error"]),
        "mcp_approval_request" => said(&["name", "arguments"]),
        "mcp_approval_response" => said(&["approve", "reason"]),
        "tool_search_call" => said(&["arguments"]),
        // Long lists of tools, which the request has where tools belong.
        "mcp_list_tools" | "tool_search_output" => String::new(),
        kind if kind.ends_with("_output") => said(&["output"]),
        kind if kind.ends_with("_call") => said(&["action", "operation"]),
        _ => return None,
    };
    let kind = kind.replace('_', " ");
    Some(if what.is_empty() { format!("[{kind}]") } else { format!("[{kind}: {what}]") })
}

struct Reader<'r> {
    request: &'r mut ChatRequest,
    /// Calls without a result so far, for results that do not say whose they are.
    open: OpenCalls,
}

impl Reader<'_> {
    fn item(&mut self, raw: &RawValue, item: &Fields<'_>, path: String) -> Result<(), DecodeError> {
        // A message may come without its type, and a reference with nothing but an id.
        let kind = match item.str("type")? {
            Some(kind) => kind,
            None if item.raw("role").is_some() => Cow::Borrowed("message"),
            None if item.raw("id").is_some() => Cow::Borrowed("item_reference"),
            None => return Err(item.missing("type")),
        };
        if let Some(known) = known(&kind) {
            let of_client = kind.ends_with("_output") || kind == "additional_tools";
            let said = if kind == "message" {
                text(item, "role").as_deref() == Some("assistant")
            } else {
                !of_client
            };
            item.unlisted_as(known, said, &mut self.request.losses);
        }
        match &*kind {
            "message" => self.message(item, path),
            "function_call" | "custom_tool_call" => {
                let name = item.str("name")?.unwrap_or_default();
                let call = ToolCall {
                    id: item.need_str("call_id")?.into_owned(),
                    name: flat_name(item.str("namespace")?.as_deref(), &name),
                    arguments: if kind == "function_call" {
                        item.str("arguments")?.unwrap_or_default().into_owned()
                    } else {
                        arguments::of_free_text(&item.str("input")?.unwrap_or_default())
                    },
                };
                self.open.push(&call.id, &call.name);
                self.said(BlockKind::ToolCall(call).into(), path);
                Ok(())
            }
            "function_call_output" | "custom_tool_call_output" => {
                let call_id = self.answered(item)?;
                self.open.close(&call_id);
                let blocks = content(item, "output", &mut self.request.losses)?;
                self.answer(ToolResult { call_id, blocks, is_error: false }, path);
                Ok(())
            }
            "reasoning" => {
                if let Some(block) = reasoning(item) {
                    self.said(block, path);
                }
                Ok(())
            }
            "web_search_call" => {
                self.said(BlockKind::WebSearch(wire::web_search(raw, item)).into(), path);
                Ok(())
            }
            // Read with the tools.
            "additional_tools" => Ok(()),
            kind => {
                // What is stored at the vendor or can only be read there is needed there and useless elsewhere.
                if matches!(
                    kind,
                    "item_reference" | "compaction" | "compaction_summary" | "compaction_trigger"
                ) {
                    self.request.extras.members.push((path.clone(), raw.to_owned()));
                }
                let block = Block::from(BlockKind::Opaque { origin: ID, raw: raw.to_owned() });
                let of_client = kind.ends_with("_output") || kind.ends_with("_response");
                if of_client {
                    self.request.turns.push(turn(Role::User, block, path));
                } else {
                    self.said(block, path);
                }
                Ok(())
            }
        }
    }

    fn message(&mut self, item: &Fields<'_>, path: String) -> Result<(), DecodeError> {
        let mut blocks = content(item, "content", &mut self.request.losses)?;
        if let (Some(phase), Some(raw)) = (item.str("phase")?, item.raw("phase")) {
            self.request.extras.members.push((item.path_of("phase"), raw.to_owned()));
            blocks.iter_mut().for_each(|block| block.phase = Some(phase.as_ref().into()));
        }
        let role = match &*item.need_str("role")? {
            "user" => Role::User,
            "assistant" => {
                // A message behind a message is another turn, so that their texts do not run into each other.
                let goes_on = self.request.turns.last().is_none_or(|last| {
                    let said = last.blocks.last().map(|block| &block.kind);
                    last.role != Role::Assistant
                        || !matches!(said, Some(BlockKind::Text(_) | BlockKind::Refusal(_)))
                });
                let mut blocks = blocks.into_iter();
                if let Some(first) = blocks.next() {
                    if goes_on {
                        self.said(first, path.clone());
                    } else {
                        self.request.turns.push(turn(Role::Assistant, first, path.clone()));
                    }
                } else if goes_on {
                    self.request
                        .turns
                        .push(Turn { blocks: Vec::new(), ..empty(Role::Assistant, path.clone()) });
                }
                blocks.for_each(|block| self.said(block, path.clone()));
                return Ok(());
            }
            "system" | "developer" => {
                if self.request.turns.is_empty() {
                    self.request.system.extend(blocks);
                    return Ok(());
                }
                Role::System
            }
            _ => {
                let expected = "`user`, `assistant`, `system` or `developer`";
                return Err(wrong_value(item.path_of("role"), expected));
            }
        };
        self.request.turns.push(Turn { blocks, ..empty(role, path) });
        Ok(())
    }

    /// Adds what the model said to its turn.
    fn said(&mut self, block: Block, path: String) {
        match self.request.turns.last_mut() {
            Some(last) if last.role == Role::Assistant => last.blocks.push(block),
            _ => self.request.turns.push(turn(Role::Assistant, block, path)),
        }
    }

    fn answer(&mut self, result: ToolResult, path: String) {
        let block = Block::from(BlockKind::ToolResult(result));
        let is_results = |turn: &Turn| {
            turn.role == Role::User
                && turn.blocks.last().is_some_and(|block| matches!(block.kind, BlockKind::ToolResult(_)))
        };
        match self.request.turns.last_mut() {
            Some(last) if is_results(last) => last.blocks.push(block),
            _ => self.request.turns.push(turn(Role::User, block, path)),
        }
    }

    /// The call that a result belongs to; without an id, the oldest that is unanswered.
    fn answered(&mut self, item: &Fields<'_>) -> Result<String, DecodeError> {
        if let Some(id) = item.str("call_id")?.filter(|id| !id.is_empty()) {
            return Ok(id.into_owned());
        }
        let oldest = self.open.oldest().and_then(|at| self.open.id(at)).map(str::to_owned);
        oldest.ok_or_else(|| {
            let param = item.path_of("call_id");
            let message = format!("`{param}` is required: no tool call is waiting for a result");
            DecodeError { code: "unpaired_tool_call", param: Some(param), message }
        })
    }
}

fn empty(role: Role, path: String) -> Turn {
    Turn { role, blocks: Vec::new(), name: None, path }
}

fn turn(role: Role, block: Block, path: String) -> Turn {
    Turn { blocks: vec![block], ..empty(role, path) }
}

/// Reasoning of an earlier answer: its summary or else its text, and what only its maker can read. `None` for an item
/// that says nothing.
fn reasoning(item: &Fields<'_>) -> Option<Block> {
    let parts = |name: &str| -> Vec<String> {
        let list = item.raw(name).and_then(list_of).unwrap_or_default();
        let read = |raw: &RawValue| text(&Fields::lenient(raw.get(), "").ok()?, "text");
        list.into_iter().filter_map(read).filter(|text| !text.is_empty()).collect()
    };
    let mut texts = parts("summary");
    if texts.is_empty() {
        texts = parts("content");
    }
    let encrypted = text(item, "encrypted_content").filter(|data| !data.is_empty());
    let signature = encrypted.map(|data| Signature { data, item: text(item, "id"), ..Signature::default() });
    if texts.is_empty() && signature.is_none() {
        return None;
    }
    Some(BlockKind::Thinking { text: texts.join("\n\n"), signature, origin: ID }.into())
}

fn content(item: &Fields<'_>, name: &str, losses: &mut Vec<Loss>) -> Result<Vec<Block>, DecodeError> {
    let Some(raw) = item.raw(name) else { return Ok(Vec::new()) };
    if let Some(text) = str_of(raw) {
        return Ok(match text.is_empty() {
            true => Vec::new(),
            false => vec![BlockKind::Text(text.into_owned()).into()],
        });
    }
    let path = item.path_of(name);
    let Some(list) = list_of(raw) else { return Err(wrong_type(path, "a text or a list of parts")) };
    list.into_iter().enumerate().map(|(at, raw)| part(raw, format!("{path}[{at}]"), losses)).collect()
}

fn part(raw: &RawValue, path: String, losses: &mut Vec<Loss>) -> Result<Block, DecodeError> {
    let part = Fields::strict(raw.get(), path)?;
    let kind = part.need_str("type")?;
    let of_answer = matches!(&*kind, "output_text" | "refusal" | "summary_text" | "reasoning_text");
    part.unlisted_as(PART, of_answer, losses);
    let kind = match &*kind {
        "input_text" | "output_text" | "text" | "summary_text" | "reasoning_text" => {
            let mut block = Block::from(BlockKind::Text(part.need_str("text")?.into_owned()));
            let annotations = part.raw("annotations").and_then(list_of).unwrap_or_default();
            block.citations = annotations.into_iter().filter_map(wire::citation).collect();
            block.cache_mark = cache_mark(&part, losses);
            return Ok(block);
        }
        "refusal" => BlockKind::Refusal(part.need_str("refusal")?.into_owned()),
        "input_image" => BlockKind::Image(image(&part)?),
        "input_file" => BlockKind::File(file(&part)?),
        "input_audio" => {
            let audio = part.object_of("input_audio", &["data", "format"], losses)?;
            let Some(audio) = audio else { return Err(part.missing("input_audio")) };
            BlockKind::Audio {
                data: audio.need_str("data")?.into_owned(),
                format: audio.need_str("format")?.into_owned(),
            }
        }
        _ => {
            let expected =
                "`input_text`, `output_text`, `input_image`, `input_file`, `input_audio` or `refusal`";
            return Err(wrong_value(part.path_of("type"), expected));
        }
    };
    Ok(Block::marked(kind, cache_mark(&part, losses)))
}

/// A mark that the prompt may be cached up to here.
fn cache_mark(part: &Fields<'_>, losses: &mut Vec<Loss>) -> Option<CacheMark> {
    let mark = part.object_or_none("prompt_cache_breakpoint")?;
    mark.note_unlisted(&["mode"], losses);
    Some(CacheMark { one_hour: false })
}

fn image(part: &Fields<'_>) -> Result<Image, DecodeError> {
    let detail = part.str("detail")?.map(Cow::into_owned);
    if let Some(id) = part.str("file_id")? {
        return Ok(Image { source: MediaSource::FileId { origin: ID, id: id.into_owned() }, detail });
    }
    match media::source_of_url(&part.need_str("image_url")?) {
        Some(source) => Ok(Image { source, detail }),
        None => Err(wrong_value(part.path_of("image_url"), "an http(s) address or a base64 data URL")),
    }
}

fn file(part: &Fields<'_>) -> Result<File, DecodeError> {
    let name = part.str("filename")?.map(Cow::into_owned);
    let source = if let Some(id) = part.str("file_id")? {
        MediaSource::FileId { origin: ID, id: id.into_owned() }
    } else if let Some(url) = part.str("file_url")? {
        if !media::is_on_the_web(&url) {
            return Err(wrong_value(part.path_of("file_url"), "an http(s) address"));
        }
        MediaSource::Url(url.into_owned())
    } else {
        media::source_of_data(&part.need_str("file_data")?)
    };
    Ok(File { name, ..source.into() })
}
