//! Writing a conversation as items.

use std::borrow::Cow;

use bytes::BytesMut;
use omniroute_wire::json_out::{Array, Object};

use super::{super::ID, super::wire, write_tools::takes_custom};
use crate::{
    CacheMarks, Caps, EncodeError, anthropic, arguments, ids,
    ir::{
        self, Block, BlockKind, ChatRequest, File, Image, Loss, LossAction, MediaSource, Role, ToolCall,
        ToolResult, Turn,
    },
    media,
    pairing::Pairing,
    registry,
};

/// Writes `instructions` and `input`.
pub(super) fn write(
    request: &ChatRequest,
    caps: &Caps,
    note: Option<&str>,
    body: &mut Object<'_>,
    losses: &mut Vec<Loss>,
) -> Result<(), EncodeError> {
    let native = request.extras.origin == Some(ID);
    let mut writer = Writer {
        request,
        caps,
        native,
        custom: takes_custom(request, caps),
        pairing: if native { Pairing::default() } else { Pairing::of(&request.turns)? },
        losses,
    };
    let instructions = writer.instructions(note);
    if !instructions.is_empty() {
        body.str("instructions", &instructions);
    }
    let mut input = BytesMut::new();
    let mut items = Array::begin(&mut input);
    for at in 0..request.turns.len() {
        writer.turn(at, &mut items)?;
    }
    let nothing = items.is_empty();
    items.end();
    // Upstreams want something to answer to; that may be stored there.
    let stored = ["previous_response_id", "conversation", "prompt"];
    let is_stored = request.extras.members.iter().any(|(name, _)| stored.contains(&name.as_str()));
    if nothing && !(native && is_stored) {
        writer.losses.push(ir::loss("messages", LossAction::Invented));
        body.key("input").extend_from_slice(CONTINUE);
    } else if !nothing {
        body.key("input").extend_from_slice(&input);
    }
    Ok(())
}

/// What is asked where nothing is left of a conversation.
const CONTINUE: &[u8] =
    br#"[{"type":"message","role":"user","content":[{"type":"input_text","text":"Continue."}]}]"#;

struct Writer<'a, 'l> {
    request: &'a ChatRequest,
    caps: &'a Caps,
    /// Whether the request came in this dialect.
    native: bool,
    /// Whether tools that take free text are offered as such.
    custom: bool,
    /// Empty for a request of this dialect: its results stay where they are.
    pairing: Pairing,
    losses: &'l mut Vec<Loss>,
}

impl<'a> Writer<'a, '_> {
    fn instructions(&mut self, note: Option<&'a str>) -> String {
        let mut texts = Vec::new();
        for (at, block) in self.request.system.iter().enumerate() {
            let BlockKind::Text(text) = &block.kind else {
                self.losses.push(ir::loss(format!("system[{at}]"), LossAction::Dropped));
                continue;
            };
            if at == 0 && !self.native && anthropic::is_billing_line(text) {
                self.losses.push(ir::quiet("system[0]", LossAction::Dropped));
                continue;
            }
            // A string has no place for a mark.
            self.mark(block, || format!("system[{at}]"));
            texts.push(text.as_str());
        }
        texts.extend(note);
        texts.join("\n\n")
    }

    fn turn(&mut self, at: usize, items: &mut Array<'_>) -> Result<(), EncodeError> {
        let turn = &self.request.turns[at];
        if turn.name.is_some() {
            self.losses.push(ir::loss(format!("{}.name", turn.path), LossAction::Dropped));
        }
        match turn.role {
            Role::System => {
                let mut message = Message::new("developer", "input_text");
                for (n, block) in turn.blocks.iter().enumerate() {
                    if !self.native && !matches!(block.kind, BlockKind::Text(_)) {
                        return Err(unsupported(&turn.place(n), "anything but text in a system message"));
                    }
                    self.part(block, &turn.place(n), &mut message)?;
                }
                message.write(items);
                Ok(())
            }
            Role::User => self.user(at, items),
            Role::Assistant => self.assistant(at, items),
        }
    }

    fn user(&mut self, at: usize, items: &mut Array<'_>) -> Result<(), EncodeError> {
        let turn = &self.request.turns[at];
        let mut message = Message::new("user", "input_text");
        for (n, block) in turn.blocks.iter().enumerate() {
            match &block.kind {
                BlockKind::ToolResult(_) if self.pairing.is_claimed((at, n)) => {}
                BlockKind::ToolResult(result) if self.native => {
                    // As it came: the upstream judges.
                    message.write(items);
                    let custom = self.answers_custom(result);
                    self.result(result, block, &result.call_id, custom, &turn.path, items)?;
                }
                BlockKind::ToolResult(result) => {
                    self.losses.push(ir::loss(turn.path.clone(), LossAction::Mapped));
                    message.text(&format!("[tool result {}] {}", result.call_id, plain(result)), block);
                    // It is one text here, with its mark at the end.
                    let mut inner = result.blocks.iter().filter(|_| block.cache_mark.is_none());
                    let marked = inner.rfind(|inner| inner.cache_mark.is_some()).unwrap_or(block);
                    self.end_mark(marked, &turn.path, true, &mut message);
                }
                BlockKind::Opaque { origin, raw } if *origin == ID => {
                    message.write(items);
                    items.raw(raw.get());
                }
                _ => self.part(block, &turn.place(n), &mut message)?,
            }
        }
        message.write(items);
        Ok(())
    }

    fn assistant(&mut self, at: usize, items: &mut Array<'_>) -> Result<(), EncodeError> {
        let turn = &self.request.turns[at];
        let mut message = Message::new("assistant", "output_text");
        let mut calls = Vec::new();
        let mut said = false;
        for (n, block) in turn.blocks.iter().enumerate() {
            match &block.kind {
                BlockKind::Text(text) => {
                    said |= !text.trim().is_empty();
                    message.enter(block.phase.as_deref(), items);
                    message.text(text, block);
                    // What the model said has no place for a mark.
                    self.mark(block, || turn.path.clone());
                }
                BlockKind::Refusal(text) => {
                    said = true;
                    message.refusal(text);
                }
                BlockKind::ToolCall(call) if call.name.trim().is_empty() => {
                    self.losses.push(ir::loss(turn.path.clone(), LossAction::Dropped));
                }
                BlockKind::ToolCall(call) => {
                    message.write(items);
                    self.call(call, items);
                    calls.push(((at, n), call));
                }
                BlockKind::Thinking { text, signature: Some(signature), origin }
                    if *origin == ID && self.request.reader.can_read(signature) =>
                {
                    message.write(items);
                    let mut item = items.object();
                    item.str("type", "reasoning").opt_str("id", signature.item.as_deref());
                    write_summary(text, &mut item);
                    item.str("encrypted_content", &signature.data);
                    item.end();
                }
                BlockKind::RedactedThinking { data, origin } if *origin == ID => {
                    message.write(items);
                    let mut item = items.object();
                    item.str("type", "reasoning").raw("summary", "[]").str("encrypted_content", data);
                    item.end();
                }
                BlockKind::Thinking { .. } | BlockKind::RedactedThinking { .. } => {
                    self.losses.push(ir::quiet(turn.path.clone(), LossAction::Dropped));
                }
                BlockKind::WebSearch(search) => match search.native.as_ref().filter(|one| one.origin == ID) {
                    Some(native) => {
                        message.write(items);
                        native.raw.iter().for_each(|raw| {
                            items.raw(raw.get());
                        });
                    }
                    None => {
                        said = true;
                        self.losses.push(ir::loss(turn.path.clone(), LossAction::Mapped));
                        message.text(&search.as_text(), block);
                    }
                },
                BlockKind::Opaque { origin, raw } if *origin == ID => {
                    message.write(items);
                    items.raw(raw.get());
                }
                BlockKind::Opaque { .. } => {
                    said |= self.opaque(block, &turn.path, &mut message);
                }
                BlockKind::Image(_)
                | BlockKind::File(_)
                | BlockKind::Audio { .. }
                | BlockKind::ToolResult(_) => {
                    self.losses.push(ir::loss(turn.path.clone(), LossAction::Dropped));
                }
            }
        }
        let is_last = at + 1 == self.request.turns.len();
        if is_last && !self.native && calls.is_empty() {
            if !said {
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
        message.write(items);
        if self.native { Ok(()) } else { self.results(&calls, turn, is_last, items) }
    }

    fn call(&self, call: &ToolCall, items: &mut Array<'_>) {
        let mut item = items.object();
        let custom = self.custom && self.request.is_custom_tool(&call.name);
        item.str("type", if custom { "custom_tool_call" } else { "function_call" });
        item.str("call_id", &ids::tool_call_id(&call.id)).str("name", &call.name);
        if custom {
            item.str("input", &arguments::free_text(&call.arguments));
        } else {
            let nothing = call.arguments.trim().is_empty();
            item.str("arguments", if nothing { "{}" } else { &call.arguments });
        }
        item.end();
    }

    /// Writes the results of calls behind them, in their order.
    fn results(
        &mut self,
        calls: &[((usize, usize), &'a ToolCall)],
        turn: &Turn,
        is_last: bool,
        items: &mut Array<'_>,
    ) -> Result<(), EncodeError> {
        for (place, call) in calls {
            let custom = self.custom && self.request.is_custom_tool(&call.name);
            match self.pairing.answer(*place) {
                Some((answer, n)) => {
                    let from = &self.request.turns[answer];
                    let block = &from.blocks[n];
                    if let BlockKind::ToolResult(result) = &block.kind {
                        self.result(result, block, &call.id, custom, &from.path, items)?;
                    }
                }
                None if is_last => {
                    return Err(EncodeError {
                        code: "unpaired_tool_call",
                        param: Some(turn.path.clone()),
                        message: format!("`{}` ends with a tool call that has no result", turn.path),
                    });
                }
                None => {
                    self.losses.push(ir::loss(turn.path.clone(), LossAction::Invented));
                    let mut item = begin_result(&call.id, custom, items);
                    item.str("output", "Error: tool call was not executed");
                    item.end();
                }
            }
        }
        Ok(())
    }

    /// Writes a result: as a text, or as parts where there is more in it.
    fn result(
        &mut self,
        result: &'a ToolResult,
        block: &Block,
        call_id: &str,
        custom: bool,
        path: &str,
        items: &mut Array<'_>,
    ) -> Result<(), EncodeError> {
        let mut message = Message::new("", "input_text");
        for block in &result.blocks {
            self.part(block, path, &mut message)?;
        }
        self.end_mark(block, path, !message.parts.is_empty(), &mut message);
        let mut item = begin_result(call_id, custom, items);
        if message.is_text {
            let mut text = plain(result);
            if text.is_empty() && !self.native {
                "(no output)".clone_into(&mut text);
            }
            item.str("output", &text);
        } else {
            if result.is_error {
                message.prepend("Error:");
            }
            let list = item.key("output");
            list.extend_from_slice(b"[");
            list.extend_from_slice(&message.parts);
            list.extend_from_slice(b"]");
        }
        item.end();
        Ok(())
    }

    /// Whether a result answers the call of a tool that takes free text.
    fn answers_custom(&self, result: &ToolResult) -> bool {
        self.request.turns.iter().flat_map(|turn| &turn.blocks).any(|block| {
            matches!(&block.kind, BlockKind::ToolCall(call)
                if call.id == result.call_id && self.request.is_custom_tool(&call.name))
        })
    }

    /// Writes a block of a user's turn or of a result as a part.
    fn part(&mut self, block: &Block, path: &str, message: &mut Message) -> Result<(), EncodeError> {
        let before = message.parts.len();
        self.unmarked_part(block, path, message)?;
        self.end_mark(block, path, message.parts.len() > before, message);
        Ok(())
    }

    /// Puts a block's mark at the last part, which is its own if it has `any`.
    fn end_mark(&mut self, block: &Block, path: &str, any: bool, message: &mut Message) {
        match block.cache_mark {
            Some(mark) if any && (self.native || self.caps.cache_marks == CacheMarks::Breakpoint) => {
                message.mark();
                if mark.one_hour {
                    // How long it is kept is not for the client to say here.
                    self.losses.push(ir::loss(format!("{path}.cache_control.ttl"), LossAction::Dropped));
                }
            }
            _ => self.mark(block, || path.to_owned()),
        }
    }

    fn unmarked_part(&mut self, block: &Block, path: &str, message: &mut Message) -> Result<(), EncodeError> {
        match &block.kind {
            BlockKind::Text(text) | BlockKind::Refusal(text) => message.text(text, block),
            BlockKind::Image(image) => {
                if !self.caps.vision {
                    return Err(unsupported(path, "images"));
                }
                write_image(image, path, message)?;
            }
            BlockKind::File(file) => self.file(file, block, path, message)?,
            BlockKind::Audio { .. } => return Err(unsupported(path, "audio")),
            BlockKind::Opaque { origin, .. } => {
                if !self.opaque(block, path, message) && *origin != ID {
                    return Err(unsupported(path, &format!("content that only the `{origin}` dialect has")));
                }
            }
            BlockKind::Thinking { .. }
            | BlockKind::RedactedThinking { .. }
            | BlockKind::ToolCall(_)
            | BlockKind::WebSearch(_)
            | BlockKind::ToolResult(_) => {
                self.losses.push(ir::loss(path.to_owned(), LossAction::Dropped));
            }
        }
        Ok(())
    }

    fn file(
        &mut self,
        file: &File,
        block: &Block,
        path: &str,
        message: &mut Message,
    ) -> Result<(), EncodeError> {
        match &file.source {
            MediaSource::Text(text) => {
                self.losses.push(ir::quiet(path.to_owned(), LossAction::Mapped));
                message.text(&media::document_text(file.name.as_deref(), text), block);
            }
            MediaSource::Base64 { media_type, data } if !self.native && media::is_text(media_type) => {
                self.losses.push(ir::quiet(path.to_owned(), LossAction::Mapped));
                let text = media::text(data, path)?;
                message.text(&media::document_text(file.name.as_deref(), &text), block);
            }
            MediaSource::FileId { origin, .. } if *origin != ID => {
                return Err(unsupported(path, "files by an id of another provider"));
            }
            _ if !self.caps.pdf => return Err(unsupported(path, "documents")),
            MediaSource::Base64 { .. } => {
                let mut part = message.begin();
                part.str("type", "input_file").str("filename", file.name.as_deref().unwrap_or("file.pdf"));
                part.str("file_data", &media::source_url(&file.source));
                part.end();
            }
            MediaSource::Url(url) => {
                let mut part = message.begin();
                part.str("type", "input_file").opt_str("filename", file.name.as_deref());
                part.str("file_url", url);
                part.end();
            }
            MediaSource::FileId { id, .. } => {
                let mut part = message.begin();
                part.str("type", "input_file").opt_str("filename", file.name.as_deref());
                part.str("file_id", id);
                part.end();
            }
        }
        Ok(())
    }

    /// Writes what a block of another dialect says in words; whether there are any.
    fn opaque(&mut self, block: &Block, path: &str, message: &mut Message) -> bool {
        let BlockKind::Opaque { origin, raw } = &block.kind else { return false };
        let text = registry::opaque_as_text(*origin, raw);
        let action = if text.is_some() { LossAction::Mapped } else { LossAction::Dropped };
        self.losses.push(ir::loss(path.to_owned(), action));
        if let Some(text) = &text {
            message.text(text, block);
        }
        text.is_some()
    }

    /// Notes a cache mark, which upstreams that cache by themselves do not need.
    fn mark(&mut self, block: &Block, path: impl FnOnce() -> String) {
        if let Some(mark) = block.cache_mark {
            let path = format!("{}.cache_control", path()).into();
            self.losses.push(Loss { path, action: LossAction::Dropped, silent: !mark.one_hour });
        }
    }
}

/// The parts of a message.
struct Message {
    role: &'static str,
    /// The type of its texts.
    text: &'static str,
    parts: BytesMut,
    /// Whether there is nothing but text in it.
    is_text: bool,
    phase: Option<Box<str>>,
}

impl Message {
    fn new(role: &'static str, text: &'static str) -> Self {
        Self { role, text, parts: BytesMut::new(), is_text: true, phase: None }
    }

    /// What follows is of this phase, which a message has as a whole.
    fn enter(&mut self, phase: Option<&str>, items: &mut Array<'_>) {
        if self.phase.as_deref() != phase {
            self.write(items);
            self.phase = phase.map(Into::into);
        }
    }

    /// Adds a text; an empty one says nothing and is refused at some places.
    fn text(&mut self, text: &str, block: &Block) {
        if text.is_empty() {
            return;
        }
        let kind = self.text;
        let (is_text, is_said) = (self.is_text, kind == "output_text");
        let mut part = self.begin();
        part.str("type", kind).str("text", text);
        if is_said && !block.citations.is_empty() {
            let mut list = part.array("annotations");
            for citation in &block.citations {
                let mut written = BytesMut::new();
                if wire::write_citation(&mut written, citation, text.chars().count()) {
                    list.element().extend_from_slice(&written);
                }
            }
            list.end();
        }
        part.end();
        self.is_text = is_text;
    }

    fn refusal(&mut self, text: &str) {
        let mut part = self.begin();
        part.str("type", "refusal").str("refusal", text);
        part.end();
    }

    /// Begins a part that is no text.
    fn begin(&mut self) -> Object<'_> {
        self.is_text = false;
        if !self.parts.is_empty() {
            self.parts.extend_from_slice(b",");
        }
        Object::begin(&mut self.parts)
    }

    /// Marks the last part, once: the prompt may be cached up to there.
    fn mark(&mut self) {
        const MARK: &[u8] = br#","prompt_cache_breakpoint":{"mode":"explicit"}}"#;
        if self.parts.ends_with(MARK) {
            return;
        }
        self.parts.truncate(self.parts.len().saturating_sub(1));
        self.parts.extend_from_slice(MARK);
        self.is_text = false;
    }

    /// Puts a text before the parts.
    fn prepend(&mut self, text: &str) {
        let mut first = BytesMut::new();
        let mut part = Object::begin(&mut first);
        part.str("type", self.text).str("text", text);
        part.end();
        first.extend_from_slice(b",");
        first.extend_from_slice(&self.parts);
        self.parts = first;
    }

    /// Writes the message and begins another, unless there is nothing in it.
    fn write(&mut self, items: &mut Array<'_>) {
        if self.parts.is_empty() {
            return;
        }
        let parts = std::mem::take(&mut self.parts);
        let mut item = items.object();
        item.str("type", "message").str("role", self.role).opt_str("phase", self.phase.as_deref());
        let list = item.key("content");
        list.extend_from_slice(b"[");
        list.extend_from_slice(&parts);
        list.extend_from_slice(b"]");
        item.end();
        self.is_text = true;
    }
}

fn begin_result<'o>(call_id: &str, custom: bool, items: &'o mut Array<'_>) -> Object<'o> {
    let mut item = items.object();
    item.str("type", if custom { "custom_tool_call_output" } else { "function_call_output" });
    item.str("call_id", &ids::tool_call_id(call_id));
    item
}

/// The texts of a result in a row.
fn plain(result: &ToolResult) -> String {
    let mut text = String::new();
    for block in &result.blocks {
        let piece = match &block.kind {
            BlockKind::Text(text) => Cow::Borrowed(text.as_str()),
            BlockKind::Image(_) => Cow::Borrowed("[image]"),
            BlockKind::File(_) => Cow::Borrowed("[document]"),
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
    text
}

fn write_image(image: &Image, path: &str, message: &mut Message) -> Result<(), EncodeError> {
    if let MediaSource::FileId { origin, .. } = &image.source
        && *origin != ID
    {
        return Err(unsupported(path, "images by an id of another provider"));
    }
    if matches!(image.source, MediaSource::Text(_)) {
        return Err(unsupported(path, "images as text"));
    }
    let mut part = message.begin();
    part.str("type", "input_image");
    match &image.source {
        MediaSource::FileId { id, .. } => part.str("file_id", id),
        source => part.str("image_url", &media::source_url(source)),
    };
    part.opt_str("detail", image.detail.as_deref());
    part.end();
    Ok(())
}

fn write_summary(text: &str, item: &mut Object<'_>) {
    let mut summary = item.array("summary");
    if !text.is_empty() {
        let mut part = summary.object();
        part.str("type", "summary_text").str("text", text);
        part.end();
    }
    summary.end();
}

fn unsupported(path: &str, what: &str) -> EncodeError {
    EncodeError {
        code: "unsupported_content",
        param: Some(path.to_owned()),
        message: format!("the target does not take {what}; use a model that does"),
    }
}
