//! Writing a conversation as messages.

use std::{borrow::Cow, collections::HashSet};

use bytes::BytesMut;
use omniroute_wire::json_out::{Array, Object};

use super::{
    super::{ID, stream, wire::CallOut},
    parts::{Mark, Part, PartKind, Said, result_text, write_content, write_result},
};
use crate::{
    CacheMarks, Caps, DialectId, EncodeError, anthropic, ids,
    ir::{
        self, Block, BlockKind, ChatRequest, File, Loss, LossAction, MediaSource, Role, Signature,
        ToolResult, Turn,
    },
    media,
    pairing::Pairing,
    registry, tool_list,
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
        custom: if native || caps.custom_tools { tool_list::custom_names(request) } else { HashSet::new() },
        pairing: if native { Pairing::default() } else { Pairing::of(&request.turns)? },
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

struct Writer<'a, 'l> {
    request: &'a ChatRequest,
    turns: &'a [Turn],
    caps: &'a Caps,
    /// Whether the request came in this dialect.
    native: bool,
    /// The tools that take free text and are offered as such.
    custom: HashSet<&'a str>,
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
            let BlockKind::Text(text) = &block.kind else {
                self.losses.push(ir::loss(format!("system[{at}]"), LossAction::Dropped));
                continue;
            };
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
                let mut parts: Vec<Part<'_>> = Vec::new();
                for (n, block) in turn.blocks.iter().enumerate() {
                    match &block.kind {
                        BlockKind::Text(text) => {
                            let mark = self.mark(block, || turn.place(n).into_owned());
                            parts.push(Part::text(text, mark));
                        }
                        _ if self.native => parts.extend(self.part(block, &turn.place(n))?),
                        _ => {
                            return Err(unsupported(&turn.place(n), "anything but text in a system message"));
                        }
                    }
                }
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
            self.opaque_in(result, &turn.path)?;
            let (text, shown) = result_text(result, None);
            let mark = self.result_mark(block, result, &turn.path);
            parts.push(Part::text(format!("[tool result {}] {text}", result.call_id), mark));
            for (_, block) in shown {
                parts.extend(self.part(block, &turn.path)?);
            }
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
        said.prefix = is_last && !self.native && self.caps.prefix_mark;
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
                    write_result(&call.id, "Error: tool call was not executed", None, messages);
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
                let whole = said.text.get_or_insert_default();
                whole.push_str(text);
                let end = whole.len();
                if end > said.marks.last().map_or(0, |(end, _)| *end) {
                    said.marks.extend(self.mark(block, || turn.path.clone()).map(|mark| (end, mark)));
                } else {
                    // There is no text that could have it.
                    self.unmark(block, &turn.path);
                }
            }
            BlockKind::Refusal(text) => {
                self.unmark(block, &turn.path);
                said.refusal.get_or_insert_default().push_str(text);
            }
            BlockKind::ToolCall(call) if call.name.trim().is_empty() && !self.native => {
                self.losses.push(ir::loss(turn.path.clone(), LossAction::Dropped));
            }
            BlockKind::ToolCall(call) => {
                // What the model called has no place for a mark.
                self.unmark(block, &turn.path);
                let custom = self.custom.contains(call.name.as_str());
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
                self.unmark(block, &turn.path);
                if let Some(text) = text {
                    said.text.get_or_insert_default().push_str(&text);
                }
            }
            BlockKind::WebSearch(search) => {
                self.losses.push(ir::loss(turn.path.clone(), LossAction::Mapped));
                self.unmark(block, &turn.path);
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
        self.opaque_in(result, path)?;
        let (text, shown) = result_text(result, Some(&id));
        let mark = self.result_mark(block, result, path);
        write_result(call_id, &text, mark, messages);
        let mut parts = Vec::new();
        for (label, block) in shown {
            self.losses.push(ir::quiet(path.to_owned(), LossAction::Mapped));
            parts.push(Part::text(format!("{label}:"), None));
            parts.extend(self.part(block, path)?);
        }
        Ok(parts)
    }

    /// Records what only another dialect has and becomes text here; what has no words is refused.
    fn opaque_in(&mut self, result: &ToolResult, path: &str) -> Result<(), EncodeError> {
        for block in &result.blocks {
            let BlockKind::Opaque { origin, raw } = &block.kind else { continue };
            if registry::opaque_as_text(*origin, raw).is_none() {
                return Err(unsupported(path, &format!("content that only the `{origin}` dialect has")));
            }
            self.losses.push(ir::loss(path.to_owned(), LossAction::Mapped));
        }
        Ok(())
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
                MediaSource::Base64 { .. } if !self.native && media::unread_picture(image).is_some() => {
                    let kind = media::unread_picture(image).unwrap_or_default();
                    Err(unsupported(path, &format!("images of type `{kind}`")))
                }
                MediaSource::Base64 { .. } | MediaSource::Url(_) => Ok(Some(PartKind::Image(image))),
                MediaSource::FileId { .. } | MediaSource::Text(_) => {
                    Err(unsupported(path, "images by file id"))
                }
            },
            BlockKind::Audio { .. } if !self.caps.audio_input => Err(unsupported(path, "audio")),
            BlockKind::Audio { format, .. }
                if !self.native && self.caps.developer_role && !matches!(&**format, "wav" | "mp3") =>
            {
                Err(unsupported(path, &format!("audio of type `{format}`")))
            }
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
            CacheMarks::Breakpoint if !mark.one_hour => Some(Mark::Breakpoint),
            CacheMarks::Breakpoint => {
                // How long it is kept is not for the client to say there.
                self.losses.push(ir::loss(format!("{}.cache_control.ttl", path()), LossAction::Dropped));
                Some(Mark::Breakpoint)
            }
            CacheMarks::Control => Some(Mark::Control(mark)),
            CacheMarks::None if self.native => Some(Mark::Control(mark)),
            CacheMarks::None => {
                let path = format!("{}.cache_control", path());
                let silent = !mark.one_hour;
                self.losses.push(Loss { silent, ..ir::loss(path, LossAction::Dropped) });
                None
            }
        }
    }

    /// The mark of a result, which is one text here with its mark at the end. Marks before that one are recorded; those of
    /// pictures and documents go with these.
    fn result_mark(&mut self, block: &Block, result: &ToolResult, path: &str) -> Option<Mark> {
        let texts = result.blocks.iter().filter(|inner| {
            let is_shown =
                matches!(inner.kind, BlockKind::Image(_) | BlockKind::File(_) | BlockKind::Audio { .. });
            !is_shown && inner.cache_mark.is_some()
        });
        let mut marked: Vec<&Block> =
            texts.chain(Some(block).filter(|block| block.cache_mark.is_some())).collect();
        let last = marked.pop();
        marked.into_iter().for_each(|other| self.unmark(other, path));
        last.and_then(|block| self.mark(block, || path.to_owned()))
    }

    /// Records a mark for which there is no place.
    fn unmark(&mut self, block: &Block, path: &str) {
        if let Some(mark) = block.cache_mark {
            let path = format!("{path}.cache_control").into();
            self.losses.push(Loss { path, action: LossAction::Dropped, silent: !mark.one_hour });
        }
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

fn unsupported(path: &str, what: &str) -> EncodeError {
    EncodeError {
        code: "unsupported_content",
        param: Some(path.to_owned()),
        message: format!("the target does not take {what}; use a model that does"),
    }
}
