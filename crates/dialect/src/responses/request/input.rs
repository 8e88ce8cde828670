//! Writing a conversation as items.

use std::collections::HashSet;

use bytes::BytesMut;
use omniroute_wire::json_out::{Array, Object};

use super::{super::ID, message::Message, write_tools::takes_custom};
use crate::{
    CacheMarks, Caps, EncodeError, anthropic, arguments, ids,
    ir::{self, Block, BlockKind, ChatRequest, File, Image, Loss, LossAction, MediaSource, Role, ToolCall},
    media,
    pairing::Pairing,
    registry, tool_list,
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
    let custom = if takes_custom(request, caps) { tool_list::custom_names(request) } else { HashSet::new() };
    let custom_calls = if native && !custom.is_empty() { calls_of(&custom, request) } else { HashSet::new() };
    let mut writer = Writer {
        request,
        caps,
        native,
        custom,
        custom_calls,
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

/// The ids of the calls of these tools.
fn calls_of<'a>(tools: &HashSet<&str>, request: &'a ChatRequest) -> HashSet<&'a str> {
    let blocks = request.turns.iter().flat_map(|turn| &turn.blocks);
    let calls = blocks.filter_map(|block| match &block.kind {
        BlockKind::ToolCall(call) if tools.contains(call.name.as_str()) => Some(call.id.as_str()),
        _ => None,
    });
    calls.collect()
}

/// What is asked where nothing is left of a conversation.
const CONTINUE: &[u8] =
    br#"[{"type":"message","role":"user","content":[{"type":"input_text","text":"Continue."}]}]"#;

pub(super) struct Writer<'a, 'l> {
    pub(super) request: &'a ChatRequest,
    caps: &'a Caps,
    /// Whether the request came in this dialect.
    pub(super) native: bool,
    /// The tools that take free text and are offered as such.
    pub(super) custom: HashSet<&'a str>,
    /// The calls of such tools, where their results do not stand with them.
    custom_calls: HashSet<&'a str>,
    /// Empty for a request of this dialect: its results stay where they are.
    pub(super) pairing: Pairing,
    pub(super) losses: &'l mut Vec<Loss>,
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
                    let custom = self.custom_calls.contains(result.call_id.as_str());
                    self.result(result, block, &result.call_id, custom, &turn.path, items)?;
                }
                BlockKind::ToolResult(result) => self.orphan(result, block, &turn.path, &mut message)?,
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
                    if !block.citations.is_empty() && !self.native {
                        // Only what both dialects know of a source goes over.
                        let path = format!("{}.content[{n}].citations", turn.path);
                        self.losses.push(ir::quiet(path, LossAction::Mapped));
                    }
                    // What the model said has no place for a mark.
                    self.mark(block, || turn.path.clone());
                }
                BlockKind::Refusal(text) => {
                    said = true;
                    message.refusal(text);
                    self.mark(block, || turn.path.clone());
                }
                BlockKind::ToolCall(call) if call.name.trim().is_empty() && !self.native => {
                    self.losses.push(ir::loss(turn.path.clone(), LossAction::Dropped));
                }
                BlockKind::ToolCall(call) => {
                    message.write(items);
                    self.call(call, items);
                    self.mark(block, || turn.path.clone());
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
                        self.mark(block, || turn.path.clone());
                    }
                },
                BlockKind::Opaque { origin, raw } if *origin == ID => {
                    message.write(items);
                    items.raw(raw.get());
                }
                BlockKind::Opaque { .. } => {
                    said |= self.opaque(block, &turn.path, &mut message);
                    self.mark(block, || turn.path.clone());
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
        let custom = self.custom.contains(call.name.as_str());
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

    /// Writes a block of a user's turn or of a result as a part.
    pub(super) fn part(
        &mut self,
        block: &Block,
        path: &str,
        message: &mut Message,
    ) -> Result<(), EncodeError> {
        let before = message.parts.len();
        self.unmarked_part(block, path, message)?;
        self.end_mark(block, path, message.parts.len() > before, message);
        Ok(())
    }

    /// Puts a block's mark at the last part, which is its own if it has `any`.
    pub(super) fn end_mark(&mut self, block: &Block, path: &str, any: bool, message: &mut Message) {
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
                if let Some(kind) = media::unread_picture(image).filter(|_| !self.native) {
                    return Err(unsupported(path, &format!("images of type `{kind}`")));
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
    pub(super) fn mark(&mut self, block: &Block, path: impl FnOnce() -> String) {
        if let Some(mark) = block.cache_mark {
            let path = format!("{}.cache_control", path()).into();
            self.losses.push(Loss { path, action: LossAction::Dropped, silent: !mark.one_hour });
        }
    }
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

pub(super) fn unsupported(path: &str, what: &str) -> EncodeError {
    EncodeError {
        code: "unsupported_content",
        param: Some(path.to_owned()),
        message: format!("the target does not take {what}; use a model that does"),
    }
}
