//! Writing a conversation as messages.

use std::borrow::Cow;

use bytes::BytesMut;
use omniroute_wire::json_out::{Array, Object};

use super::super::{
    ID, stream,
    wire::{self, CallOut},
};
use crate::{
    CacheMarks, Caps, DialectId, EncodeError, anthropic, ids,
    ir::{
        self, Block, BlockKind, CacheMark, ChatRequest, File, Image, Loss, LossAction, MediaSource, Role,
        Signature, ToolResult, Turn,
    },
    media,
    pairing::Pairing,
    registry,
};

/// Writes `messages`.
pub(super) fn write(
    request: &ChatRequest,
    caps: &Caps,
    note: Option<&str>,
    out: &mut BytesMut,
    losses: &mut Vec<Loss>,
) -> Result<(), EncodeError> {
    let native = request.extras.origin == Some(ID);
    let mut writer = Writer {
        request,
        turns: &request.turns,
        caps,
        native,
        pairing: if native { Pairing::default() } else { Pairing::of(&request.turns) },
        carried: Vec::new(),
        losses,
    };
    let mut messages = Array::begin(out);
    writer.system(&request.system, note, &mut messages);
    for at in 0..writer.turns.len() {
        writer.turn(at, &mut messages)?;
    }
    writer.flush(&mut messages);
    if messages.is_empty() {
        // Upstreams want something to answer to.
        writer.losses.push(ir::loss("messages", LossAction::Invented));
        let mut message = messages.object();
        message.str("role", "user").str("content", "Continue.");
        message.end();
    }
    messages.end();
    Ok(())
}

/// A part of a message's content, and the mark at it.
struct Part<'a> {
    kind: PartKind<'a>,
    mark: Option<Mark>,
}

enum PartKind<'a> {
    Text(Cow<'a, str>),
    Image(&'a Image),
    Audio { data: &'a str, format: &'a str },
    File(&'a File),
}

/// A cache mark as it is written.
#[derive(Clone, Copy)]
enum Mark {
    Control(CacheMark),
    Breakpoint,
}

impl<'a> Part<'a> {
    fn text(text: impl Into<Cow<'a, str>>, mark: Option<Mark>) -> Self {
        Self { kind: PartKind::Text(text.into()), mark }
    }
}

struct Writer<'a, 'l> {
    request: &'a ChatRequest,
    turns: &'a [Turn],
    caps: &'a Caps,
    /// Whether the request came in this dialect.
    native: bool,
    /// Empty for a request of this dialect: its results stay where they are.
    pairing: Pairing,
    /// Images of tool results, which stand in the user message that follows.
    carried: Vec<Part<'a>>,
    losses: &'l mut Vec<Loss>,
}

impl<'a> Writer<'a, '_> {
    fn system(&mut self, blocks: &'a [Block], note: Option<&'a str>, messages: &mut Array<'_>) {
        let mut parts = Vec::new();
        for (at, block) in blocks.iter().enumerate() {
            let BlockKind::Text(text) = &block.kind else { continue };
            if at == 0 && !self.native && anthropic::is_billing_line(text) {
                self.losses.push(ir::quiet("system[0]", LossAction::Dropped));
                continue;
            }
            let mark = self.mark(block, || format!("system[{at}]"));
            parts.push(Part::text(text, mark));
        }
        parts.extend(note.map(|note| Part::text(note, None)));
        if parts.is_empty() {
            return;
        }
        let mut message = messages.object();
        message.str("role", "system");
        self.system_content(&parts, &mut message);
        message.end();
    }

    /// One text, or several: as parts where they are known to be taken, otherwise with blank lines between.
    fn system_content(&self, parts: &[Part<'_>], message: &mut Object<'_>) {
        let is_marked = parts.iter().any(|part| part.mark.is_some());
        if parts.len() > 1 && !self.native && !self.caps.developer_role && !is_marked {
            let texts: Vec<&str> = parts
                .iter()
                .filter_map(|part| if let PartKind::Text(text) = &part.kind { Some(&**text) } else { None })
                .collect();
            message.str("content", &texts.join("\n\n"));
        } else {
            write_content(parts, message);
        }
    }

    fn turn(&mut self, at: usize, messages: &mut Array<'_>) -> Result<(), EncodeError> {
        let turn = &self.turns[at];
        match turn.role {
            Role::System => {
                self.flush(messages);
                let texts = turn.blocks.iter().filter_map(|block| match &block.kind {
                    BlockKind::Text(text) => Some(Part::text(text, None)),
                    _ => None,
                });
                let parts: Vec<Part<'_>> = texts.collect();
                if !parts.is_empty() {
                    let mut message = messages.object();
                    message.str("role", "system").opt_str("name", turn.name.as_deref());
                    self.system_content(&parts, &mut message);
                    message.end();
                }
                Ok(())
            }
            Role::User => self.user(at, messages),
            Role::Assistant => {
                self.flush(messages);
                self.assistant(at, messages)
            }
        }
    }

    fn user(&mut self, at: usize, messages: &mut Array<'_>) -> Result<(), EncodeError> {
        let turn = &self.turns[at];
        let mut parts = std::mem::take(&mut self.carried);
        for (n, block) in turn.blocks.iter().enumerate() {
            let BlockKind::ToolResult(result) = &block.kind else {
                parts.extend(self.part(block, &turn.place(n))?);
                continue;
            };
            if self.pairing.is_claimed((at, n)) {
                continue;
            }
            if self.native {
                // As it came: the upstream judges.
                let images = self.result(result, &result.call_id, block, &turn.path, messages)?;
                parts.extend(images);
                continue;
            }
            self.losses.push(ir::loss(turn.path.clone(), LossAction::Mapped));
            let text = format!("[tool result {}] {}", result.call_id, result_text(result, None).0);
            parts.push(Part::text(text, None));
        }
        if parts.is_empty() {
            return Ok(());
        }
        let mut message = messages.object();
        message.str("role", "user").opt_str("name", turn.name.as_deref());
        write_content(&parts, &mut message);
        message.end();
        Ok(())
    }

    fn assistant(&mut self, at: usize, messages: &mut Array<'_>) -> Result<(), EncodeError> {
        let turn = &self.turns[at];
        let mut said = Said::default();
        for (n, block) in turn.blocks.iter().enumerate() {
            let before_call =
                turn.blocks.get(n + 1).is_some_and(|next| matches!(next.kind, BlockKind::ToolCall(_)));
            self.say(block, (at, n), before_call, turn, &mut said)?;
        }
        let is_last = at + 1 == self.turns.len();
        if is_last && !self.native && said.calls.is_empty() {
            if said.text.as_deref().is_none_or(|text| text.trim().is_empty()) && said.refusal.is_none() {
                self.losses.push(ir::quiet(turn.path.clone(), LossAction::Dropped));
                return Ok(());
            }
            if !self.caps.prefill {
                return Err(EncodeError {
                    code: "unsupported_prefill",
                    param: Some(turn.path.clone()),
                    message:
                        "the target does not continue a trailing assistant message; end with a user message"
                            .to_owned(),
                });
            }
        }
        if !self.native && self.caps.reasoning_in_history {
            said.must_think = !said.calls.is_empty();
            if !said.must_think && !said.thinking.is_empty() {
                said.thinking.clear();
                self.losses.push(ir::quiet(turn.path.clone(), LossAction::Dropped));
            }
        }
        said.write(turn, messages);
        for (place, CallOut { call, .. }) in said.calls {
            match self.pairing.answer(place) {
                Some((answer, n)) => {
                    let from = &self.turns[answer];
                    let block = &from.blocks[n];
                    if let BlockKind::ToolResult(result) = &block.kind {
                        let images = self.result(result, &call.id, block, &from.path, messages)?;
                        self.carried.extend(images);
                    }
                }
                None if self.native => {}
                None if is_last => {
                    return Err(EncodeError {
                        code: "unpaired_tool_call",
                        param: Some(turn.path.clone()),
                        message: format!("`{}` ends with a tool call that has no result", turn.path),
                    });
                }
                None => {
                    self.losses.push(ir::loss(turn.path.clone(), LossAction::Invented));
                    write_result(&call.id, "Error: tool call was not executed", messages);
                }
            }
        }
        Ok(())
    }

    fn say(
        &mut self,
        block: &'a Block,
        place: (usize, usize),
        before_call: bool,
        turn: &'a Turn,
        said: &mut Said<'a>,
    ) -> Result<(), EncodeError> {
        match &block.kind {
            BlockKind::Text(text) => {
                if !said.calls.is_empty() {
                    self.losses.push(ir::loss(turn.path.clone(), LossAction::Mapped));
                }
                if !block.citations.is_empty() {
                    self.losses.push(ir::quiet(format!("{}.citations", turn.path), LossAction::Dropped));
                }
                said.text.get_or_insert_default().push_str(text);
                if let Some(mark) = block.cache_mark {
                    self.unmarked(mark, &turn.path);
                }
            }
            BlockKind::Refusal(text) => said.refusal.get_or_insert_default().push_str(text),
            BlockKind::ToolCall(call) if call.name.trim().is_empty() => {
                self.losses.push(ir::loss(turn.path.clone(), LossAction::Dropped));
            }
            BlockKind::ToolCall(call) => {
                let custom =
                    (self.native || self.caps.custom_tools) && self.request.is_custom_tool(&call.name);
                let signature = said.call_signature.take();
                said.calls.push((place, CallOut { call, custom, signature }));
            }
            BlockKind::Thinking { text, signature: Some(signature), origin }
                if before_call && text.is_empty() && (self.native || self.is_own(*origin, signature)) =>
            {
                said.call_signature = Some(&signature.data);
            }
            // Given back if there are calls behind it.
            BlockKind::Thinking { text, signature: None, origin }
                if *origin == ID && !self.native && self.caps.reasoning_in_history =>
            {
                said.thinking.push_str(text);
            }
            BlockKind::Thinking { text, signature: Some(signature), origin }
                if !self.native && self.is_own(*origin, signature) =>
            {
                said.signed.push(stream::thinking_block(text, &signature.data));
                if self.caps.reasoning_in_history {
                    said.thinking.push_str(text);
                }
            }
            BlockKind::Thinking { text, signature, origin, .. } => {
                if !self.native {
                    self.losses.push(ir::quiet(turn.path.clone(), LossAction::Dropped));
                } else if let Some(signature) = signature.as_ref().filter(|_| *origin != ID) {
                    said.signed.push(stream::thinking_block(text, &signature.data));
                } else {
                    said.thinking.push_str(text);
                }
            }
            BlockKind::RedactedThinking { data, origin } => {
                if self.native || *origin == ID {
                    said.signed.push(stream::redacted_block(data));
                } else {
                    self.losses.push(ir::quiet(turn.path.clone(), LossAction::Dropped));
                }
            }
            BlockKind::Opaque { origin, raw } => {
                let text = registry::opaque_as_text(*origin, raw);
                let action = if text.is_some() { LossAction::Mapped } else { LossAction::Dropped };
                self.losses.push(ir::loss(turn.path.clone(), action));
                if let Some(text) = text {
                    said.text.get_or_insert_default().push_str(&text);
                }
            }
            BlockKind::WebSearch(search) => {
                self.losses.push(ir::loss(turn.path.clone(), LossAction::Mapped));
                let text = said.text.get_or_insert_default();
                text.push_str(&search.as_text());
                text.push_str("\n\n");
            }
            BlockKind::Image(_) | BlockKind::File(_) | BlockKind::Audio { .. } | BlockKind::ToolResult(_) => {
                self.losses.push(ir::loss(turn.path.clone(), LossAction::Dropped));
            }
        }
        Ok(())
    }

    /// Whether an upstream of this dialect made the signature, and this one can read it.
    fn is_own(&self, origin: DialectId, signature: &Signature) -> bool {
        origin == ID && self.request.reader.can_read(signature)
    }

    /// Writes a result and gives back its images, which have no place in it.
    fn result(
        &mut self,
        result: &'a ToolResult,
        call_id: &str,
        block: &Block,
        path: &str,
        messages: &mut Array<'_>,
    ) -> Result<Vec<Part<'a>>, EncodeError> {
        let id = ids::tool_call_id(call_id);
        let (text, shown) = result_text(result, Some(&id));
        write_result(call_id, &text, messages);
        if let Some(mark) = block.cache_mark {
            self.unmarked(mark, path);
        }
        let mut parts = Vec::new();
        for (label, block) in shown {
            self.losses.push(ir::quiet(path.to_owned(), LossAction::Mapped));
            parts.push(Part::text(format!("{label}:"), None));
            parts.extend(self.part(block, path)?);
        }
        for block in &result.blocks {
            if let BlockKind::Opaque { .. } | BlockKind::Audio { .. } = block.kind {
                self.losses.push(ir::loss(path.to_owned(), LossAction::Mapped));
            }
        }
        Ok(parts)
    }

    /// A block of a user turn.
    fn part(&mut self, block: &'a Block, path: &str) -> Result<Option<Part<'a>>, EncodeError> {
        let Some(kind) = self.part_kind(block, path)? else { return Ok(None) };
        let mark = self.mark(block, || path.to_owned());
        Ok(Some(Part { kind, mark }))
    }

    fn part_kind(&mut self, block: &'a Block, path: &str) -> Result<Option<PartKind<'a>>, EncodeError> {
        match &block.kind {
            BlockKind::Text(text) | BlockKind::Refusal(text) => Ok(Some(PartKind::Text(Cow::Borrowed(text)))),
            BlockKind::Image(_) if !self.caps.vision => Err(unsupported(path, "images")),
            BlockKind::Image(image) => match &image.source {
                MediaSource::Base64 { .. } | MediaSource::Url(_) => Ok(Some(PartKind::Image(image))),
                MediaSource::FileId { .. } | MediaSource::Text(_) => {
                    Err(unsupported(path, "images by file id"))
                }
            },
            BlockKind::Audio { .. } if !self.caps.audio_input => Err(unsupported(path, "audio")),
            BlockKind::Audio { data, format } => Ok(Some(PartKind::Audio { data, format })),
            BlockKind::File(file) => self.file(file, path).map(Some),
            BlockKind::Opaque { origin, raw } => {
                let Some(text) = registry::opaque_as_text(*origin, raw) else {
                    return Err(unsupported(path, &format!("content that only the `{origin}` dialect has")));
                };
                self.losses.push(ir::loss(path.to_owned(), LossAction::Mapped));
                Ok(Some(PartKind::Text(Cow::Owned(text))))
            }
            BlockKind::Thinking { .. }
            | BlockKind::RedactedThinking { .. }
            | BlockKind::ToolCall(_)
            | BlockKind::WebSearch(_)
            | BlockKind::ToolResult(_) => {
                self.losses.push(ir::loss(path.to_owned(), LossAction::Dropped));
                Ok(None)
            }
        }
    }

    fn file(&mut self, file: &'a File, path: &str) -> Result<PartKind<'a>, EncodeError> {
        match &file.source {
            MediaSource::Text(text) => {
                self.losses.push(ir::quiet(path.to_owned(), LossAction::Mapped));
                let text = media::document_text(file.name.as_deref(), text);
                Ok(PartKind::Text(Cow::Owned(text)))
            }
            MediaSource::Base64 { media_type, data } if !self.native && media::is_text(media_type) => {
                self.losses.push(ir::quiet(path.to_owned(), LossAction::Mapped));
                let text = media::text(data, path)?;
                let text = media::document_text(file.name.as_deref(), &text);
                Ok(PartKind::Text(Cow::Owned(text)))
            }
            MediaSource::Base64 { .. } if !self.caps.pdf => Err(unsupported(path, "documents")),
            MediaSource::Base64 { .. } => Ok(PartKind::File(file)),
            MediaSource::FileId { origin, .. } if *origin == ID => Ok(PartKind::File(file)),
            MediaSource::FileId { .. } => Err(unsupported(path, "files by an id of another provider")),
            MediaSource::Url(_) => Err(unsupported(path, "documents by address")),
        }
    }

    /// The cache mark as far as it is written: most targets of other dialects' requests cache by themselves.
    fn mark(&mut self, block: &Block, path: impl FnOnce() -> String) -> Option<Mark> {
        let mark = block.cache_mark?;
        match self.caps.cache_marks {
            _ if self.native => return Some(Mark::Control(mark)),
            CacheMarks::Control => return Some(Mark::Control(mark)),
            CacheMarks::Breakpoint if !mark.one_hour => return Some(Mark::Breakpoint),
            CacheMarks::Breakpoint => {
                // How long it is kept is not for the client to say there.
                self.losses.push(ir::loss(format!("{}.cache_control.ttl", path()), LossAction::Dropped));
                return Some(Mark::Breakpoint);
            }
            CacheMarks::None => {}
        }
        self.unmarked(mark, &path());
        None
    }

    /// Takes note of a mark at a place that has none here.
    fn unmarked(&mut self, mark: CacheMark, path: &str) {
        let path = format!("{path}.cache_control");
        self.losses.push(Loss { path: path.into(), action: LossAction::Dropped, silent: !mark.one_hour });
    }

    /// Writes images of results that no user turn follows.
    fn flush(&mut self, messages: &mut Array<'_>) {
        if self.carried.is_empty() {
            return;
        }
        let mut message = messages.object();
        message.str("role", "user");
        write_content(&std::mem::take(&mut self.carried), &mut message);
        message.end();
    }
}

/// What an assistant turn says, in the one order that a message has.
#[derive(Default)]
struct Said<'a> {
    text: Option<String>,
    refusal: Option<String>,
    thinking: String,
    /// Whether the target refuses the message without its thinking; what is not known any more is empty then.
    must_think: bool,
    signed: Vec<String>,
    calls: Vec<((usize, usize), CallOut<'a>)>,
    /// The signature that goes with the next call.
    call_signature: Option<&'a str>,
}

impl Said<'_> {
    fn write(&self, turn: &Turn, messages: &mut Array<'_>) {
        let mut message = messages.object();
        message.str("role", "assistant").opt_str("name", turn.name.as_deref());
        let nothing = self.text.is_none() && self.calls.is_empty() && self.refusal.is_none();
        message.str_or_null("content", if nothing { Some("") } else { self.text.as_deref() });
        message.opt_str("refusal", self.refusal.as_deref());
        if !self.thinking.is_empty() || self.must_think {
            message.str("reasoning_content", &self.thinking);
        }
        if !self.signed.is_empty() {
            let mut list = message.array("thinking_blocks");
            for block in &self.signed {
                list.raw(block);
            }
            list.end();
        }
        if !self.calls.is_empty() {
            wire::write_calls(message.key("tool_calls"), self.calls.iter().map(|(_, call)| call));
        }
        message.end();
    }
}

/// A result as text, and the images and documents in it with their labels. Without an id those are only counted.
fn result_text<'a>(result: &'a ToolResult, id: Option<&str>) -> (String, Vec<(String, &'a Block)>) {
    let mut text = String::new();
    let mut shown = Vec::new();
    for block in &result.blocks {
        let piece: Cow<'_, str> = match &block.kind {
            BlockKind::Text(text) => Cow::Borrowed(text),
            BlockKind::Image(_) | BlockKind::File(_) => {
                let what = if matches!(block.kind, BlockKind::Image(_)) { "image" } else { "document" };
                match id {
                    Some(id) => {
                        let label = format!("{id}#{}", shown.len() + 1);
                        let piece = format!("[{what} attached below: {label}]");
                        shown.push((label, block));
                        Cow::Owned(piece)
                    }
                    None => Cow::Owned(format!("[{what}]")),
                }
            }
            BlockKind::Opaque { origin, raw } => {
                Cow::Owned(registry::opaque_as_text(*origin, raw).unwrap_or_default())
            }
            _ => continue,
        };
        if !text.is_empty() && !piece.is_empty() {
            text.push('\n');
        }
        text.push_str(&piece);
    }
    if result.is_error && !text.starts_with("Error: ") {
        text.insert_str(0, "Error: ");
    }
    if text.is_empty() {
        "(no output)".clone_into(&mut text);
    }
    (text, shown)
}

fn write_result(call_id: &str, text: &str, messages: &mut Array<'_>) {
    let mut message = messages.object();
    message.str("role", "tool").str("tool_call_id", &ids::tool_call_id(call_id)).str("content", text);
    message.end();
}

fn write_content(parts: &[Part<'_>], message: &mut Object<'_>) {
    if let [Part { kind: PartKind::Text(text), mark: None }] = parts {
        message.str("content", text);
        return;
    }
    let mut list = message.array("content");
    for part in parts {
        let mut object = list.object();
        match &part.kind {
            PartKind::Text(text) => {
                object.str("type", "text").str("text", text);
            }
            PartKind::Image(image) => {
                object.str("type", "image_url");
                let mut inner = object.object("image_url");
                inner
                    .str("url", &media::source_url(&image.source))
                    .opt_str("detail", image.detail.as_deref());
                inner.end();
            }
            PartKind::Audio { data, format } => {
                object.str("type", "input_audio");
                let mut inner = object.object("input_audio");
                inner.str("data", data).str("format", format);
                inner.end();
            }
            PartKind::File(file) => {
                object.str("type", "file");
                let mut inner = object.object("file");
                if let MediaSource::FileId { id, .. } = &file.source {
                    inner.str("file_id", id).opt_str("filename", file.name.as_deref());
                } else {
                    inner.str("file_data", &media::source_url(&file.source));
                    inner.str("filename", file.name.as_deref().unwrap_or("file.pdf"));
                }
                inner.end();
            }
        }
        match part.mark {
            None => {}
            Some(Mark::Breakpoint) => {
                object.raw("prompt_cache_breakpoint", r#"{"mode":"explicit"}"#);
            }
            Some(Mark::Control(mark)) => {
                let mut control = object.object("cache_control");
                control.str("type", "ephemeral").opt_str("ttl", mark.one_hour.then_some("1h"));
                control.end();
            }
        }
        object.end();
    }
    list.end();
}

fn unsupported(path: &str, what: &str) -> EncodeError {
    EncodeError {
        code: "unsupported_content",
        param: Some(path.to_owned()),
        message: format!("the target does not take {what}; use a model that does"),
    }
}
