//! The conversation of a request of another dialect as this one wants it: users and assistants take turns, a user begins, and the results
//! of all tool calls of a turn open the user's turn behind it, in the order of the calls.

use std::{borrow::Cow, collections::BTreeSet};

use super::{media, native::own_search};
use crate::{
    Caps, EncodeError,
    anthropic::{ID, wire::BlockOut},
    arguments,
    ids::{invented_call_id, tool_call_id},
    ir::{
        Block, BlockKind, CacheMark, ChatRequest, Loss, LossAction, Reader, Role, ToolResult, Turn, loss,
        quiet,
    },
    pairing::{Answers, nameless},
    registry,
};

/// System text and messages as they are written.
#[derive(Debug, Default)]
pub(super) struct Conversation<'a> {
    pub(super) system: Vec<BlockOut<'a>>,
    pub(super) messages: Vec<Message<'a>>,
    /// Whether the last message is the model's, to be continued.
    pub(super) prefilled: bool,
}

/// One message.
#[derive(Debug)]
pub(super) struct Message<'a> {
    pub(super) role: &'static str,
    pub(super) content: Vec<BlockOut<'a>>,
}

impl<'a> Conversation<'a> {
    /// The names of the tools that were called, in order.
    pub(super) fn called_tools(&self) -> impl Iterator<Item = &'a str> {
        self.messages.iter().flat_map(|message| &message.content).filter_map(|block| match block {
            BlockOut::ToolUse { name, .. } => Some(*name),
            _ => None,
        })
    }
}

/// Writes the conversation of a request that came in another dialect.
pub(super) fn translated<'a>(
    request: &'a ChatRequest,
    caps: &'a Caps,
    losses: &mut Vec<Loss>,
) -> Result<Conversation<'a>, EncodeError> {
    Builder::new(request, caps, losses).build(request)
}

/// A refusal to translate.
pub(super) fn refused(
    code: &'static str,
    path: impl Into<String>,
    message: impl Into<String>,
) -> EncodeError {
    EncodeError { code, param: Some(path.into()), message: message.into() }
}

/// A call of the last assistant message.
struct OpenCall<'a> {
    turn: usize,
    id: &'a str,
    written_id: Cow<'a, str>,
    path: String,
}

struct Builder<'a, 'm> {
    caps: &'a Caps,
    reader: &'a Reader,
    losses: &'m mut Vec<Loss>,
    out: Conversation<'a>,
    answers: Answers<'a>,
    open_calls: Vec<OpenCall<'a>>,
    reminders: Vec<BlockOut<'a>>,
    several_names: bool,
    resumes: bool,
    /// Where the instructions in a row end that the last one belongs to.
    instructed_until: usize,
}

impl<'a, 'm> Builder<'a, 'm> {
    fn new(request: &'a ChatRequest, caps: &'a Caps, losses: &'m mut Vec<Loss>) -> Self {
        let names: BTreeSet<_> = request
            .turns
            .iter()
            .filter(|turn| turn.role == Role::User)
            .filter_map(|turn| turn.name.as_deref())
            .collect();
        Self {
            caps,
            reader: &request.reader,
            losses,
            out: Conversation::default(),
            answers: Answers::of(&request.turns),
            open_calls: Vec::new(),
            reminders: Vec::new(),
            several_names: names.len() > 1,
            resumes: request.resumes,
            instructed_until: 0,
        }
    }

    fn build(mut self, request: &'a ChatRequest) -> Result<Conversation<'a>, EncodeError> {
        let leading = request.turns.iter().take_while(|turn| turn.role == Role::System).count();
        let (leading, turns) = request.turns.split_at(leading);
        for (place, block) in request.system.iter().enumerate() {
            self.system_block(block, || format!("system[{place}]"))?;
        }
        for turn in leading {
            self.unnamed(turn);
            for (place, block) in turn.blocks.iter().enumerate() {
                self.system_block(block, || block_path(turn, place))?;
            }
        }
        for (at, turn) in turns.iter().enumerate() {
            let index = leading.len() + at;
            match turn.role {
                Role::User => self.user(index, turn, &turns[at + 1..])?,
                Role::Assistant => self.assistant(index, turn, at + 1 == turns.len())?,
                Role::System => self.instruction(index, turn, &turns[at + 1..])?,
            }
        }
        self.finish(turns)
    }

    fn system_block(&mut self, block: &'a Block, path: impl Fn() -> String) -> Result<(), EncodeError> {
        let cache = block.cache_mark;
        match &block.kind {
            BlockKind::Text(text) if is_blank(text) => self.blank(text, cache, path),
            BlockKind::Text(text) => {
                self.out.system.push(BlockOut::Text { text: Cow::Borrowed(text), cache });
            }
            _ => return Err(refused("unsupported_content", path(), "system messages may only hold text")),
        }
        Ok(())
    }

    /// An instruction within the conversation: a message of its own where the model and the place allow it,
    /// else a note in the next user message.
    fn instruction(&mut self, index: usize, turn: &'a Turn, rest: &'a [Turn]) -> Result<(), EncodeError> {
        self.unnamed(turn);
        let mut texts = Vec::new();
        for (place, block) in turn.blocks.iter().enumerate() {
            let cache = block.cache_mark;
            match &block.kind {
                BlockKind::Text(text) if is_blank(text) => {
                    self.blank(text, cache, || block_path(turn, place));
                }
                BlockKind::Text(text) => texts.push((text.as_str(), cache)),
                _ => {
                    let path = block_path(turn, place);
                    return Err(refused("unsupported_content", path, "system messages may only hold text"));
                }
            }
        }
        if texts.is_empty() {
            return Ok(());
        }
        if self.instructed_until <= index {
            // Once for all that stand in a row.
            let more = rest.iter().take_while(|turn| turn.role == Role::System).count();
            self.instructed_until = index + 1 + more;
        }
        let next = rest.get(self.instructed_until - index - 1);
        let follows_well = match self.out.messages.last() {
            Some(last) => last.role != "assistant" || matches!(last.content.last(), Some(BlockOut::Raw(_))),
            None => false,
        };
        let leads_well = next.is_none_or(|turn| turn.role == Role::Assistant);
        if self.caps.mid_conversation_system && follows_well && leads_well && self.open_calls.is_empty() {
            let blocks =
                texts.into_iter().map(|(text, cache)| BlockOut::Text { text: Cow::Borrowed(text), cache });
            self.append("system", blocks.collect());
        } else {
            self.losses.push(loss(format!("{}.role", turn.path), LossAction::Mapped));
            // A mark stands at the end of a block: that of the last text is at the end of them all.
            let marked = texts.iter().rposition(|(_, cache)| cache.is_some());
            let cache = marked.and_then(|last| texts[last].1);
            for (_, other) in texts.iter().take(marked.unwrap_or_default()) {
                self.unmark(*other, || turn.path.clone());
            }
            let texts: Vec<_> = texts.into_iter().map(|(text, _)| text).collect();
            let reminder = format!("<system-reminder>{}</system-reminder>", texts.join("\n\n"));
            self.reminders.push(BlockOut::Text { text: Cow::Owned(reminder), cache });
        }
        Ok(())
    }

    fn assistant(&mut self, index: usize, turn: &'a Turn, is_last: bool) -> Result<(), EncodeError> {
        self.unnamed(turn);
        let mut content = Vec::new();
        for (place, block) in turn.blocks.iter().enumerate() {
            let path = || block_path(turn, place);
            let cache = block.cache_mark;
            match &block.kind {
                BlockKind::Text(text) | BlockKind::Refusal(text) => {
                    if !block.citations.is_empty() {
                        self.losses.push(quiet(format!("{}.citations", path()), LossAction::Dropped));
                    }
                    if is_blank(text) {
                        self.blank(text, cache, path);
                    } else {
                        content.push(BlockOut::Text { text: Cow::Borrowed(text), cache });
                    }
                }
                BlockKind::Thinking { text, signature: Some(signature), origin }
                    if *origin == ID && self.reader.can_read(signature) =>
                {
                    content.push(BlockOut::Thinking { text, signature: Some(&signature.data) });
                }
                BlockKind::RedactedThinking { data, origin } if *origin == ID => {
                    content.push(BlockOut::RedactedThinking { data });
                }
                BlockKind::Thinking { .. } | BlockKind::RedactedThinking { .. } => {
                    self.losses.push(quiet(path(), LossAction::Dropped));
                }
                BlockKind::ToolCall(call) if is_blank(&call.name) => {
                    self.losses.push(loss(path(), LossAction::Dropped));
                    self.answers.claim(&call.id, index);
                }
                BlockKind::ToolCall(call) => {
                    let input = arguments::object(&call.arguments);
                    if input.changed {
                        self.losses.push(quiet(format!("{}.arguments", path()), LossAction::Mapped));
                    }
                    let written_id = if call.id.is_empty() {
                        Cow::Owned(invented_call_id(&format!("{index}{}", call.arguments), place, &call.name))
                    } else {
                        tool_call_id(&call.id)
                    };
                    self.open_calls.push(OpenCall {
                        turn: index,
                        id: &call.id,
                        written_id: written_id.clone(),
                        path: path(),
                    });
                    content.push(BlockOut::ToolUse {
                        id: written_id,
                        name: &call.name,
                        input: input.object,
                        cache,
                    });
                }
                BlockKind::Opaque { origin, raw } if *origin == ID => content.push(BlockOut::Raw(raw)),
                BlockKind::WebSearch(search) => content.push(own_search(search).unwrap_or_else(|| {
                    self.losses.push(loss(path(), LossAction::Mapped));
                    BlockOut::text(search.as_text())
                })),
                BlockKind::Image(_) | BlockKind::File(_) | BlockKind::Audio { .. } => {
                    self.losses.push(loss(path(), LossAction::Mapped));
                    content.push(BlockOut::text("[media omitted]"));
                }
                BlockKind::ToolResult(_) => {}
                BlockKind::Opaque { origin, raw } => {
                    let text = registry::opaque_as_text(*origin, raw);
                    let action = if text.is_some() { LossAction::Mapped } else { LossAction::Dropped };
                    self.losses.push(loss(path(), action));
                    content.extend(text.map(BlockOut::text));
                }
            }
        }
        if content.is_empty() {
            let continues = self.out.messages.last().is_some_and(|last| last.role == "assistant");
            if is_last || continues {
                self.losses.push(quiet(turn.path.clone(), LossAction::Dropped));
                return Ok(());
            }
            content.push(BlockOut::text("(no content)"));
        }
        self.append("assistant", content);
        Ok(())
    }

    fn user(&mut self, index: usize, turn: &'a Turn, rest: &'a [Turn]) -> Result<(), EncodeError> {
        if !self.open_calls.is_empty() {
            let until = rest.iter().position(|turn| turn.role == Role::Assistant).unwrap_or(rest.len());
            self.answer_calls(index + until)?;
        }

        let mut content = std::mem::take(&mut self.reminders);
        let mut speaker = turn.name.as_deref();
        let mut has_results = false;
        for (place, block) in turn.blocks.iter().enumerate() {
            let path = || block_path(turn, place);
            match &block.kind {
                BlockKind::ToolResult(result) => {
                    has_results = true;
                    if !self.answers.is_claimed((index, place)) {
                        let cache = block.cache_mark;
                        self.orphan(result, cache, &path(), &mut content)?;
                    }
                }
                BlockKind::Text(text) => {
                    let cache = block.cache_mark;
                    if is_blank(text) {
                        self.blank(text, cache, path);
                        continue;
                    }
                    let text = match speaker.take().filter(|_| self.several_names) {
                        Some(name) => Cow::Owned(format!("{name}: {text}")),
                        None => Cow::Borrowed(text.as_str()),
                    };
                    content.push(BlockOut::Text { text, cache });
                }
                _ => content.push(self.part(block, &path())?),
            }
        }
        if let Some(name_path) = turn.name.is_some().then(|| format!("{}.name", turn.path)) {
            let action = if self.several_names { LossAction::Mapped } else { LossAction::Dropped };
            let silent = self.several_names;
            self.losses.push(Loss { path: name_path.into(), action, silent });
        }
        let follows_user = self.out.messages.last().is_some_and(|last| last.role == "user");
        if content.is_empty() && !has_results && !follows_user {
            content.push(BlockOut::text("(no content)"));
        }
        if !content.is_empty() {
            self.append("user", content);
        }
        Ok(())
    }

    /// Writes the results of the open calls, in the order of the calls. Results without an id answer calls
    /// without a result as long as they stand before the next assistant turn, which is `until`.
    fn answer_calls(&mut self, until: usize) -> Result<(), EncodeError> {
        let calls = std::mem::take(&mut self.open_calls);
        let asked: Vec<_> = calls.iter().map(|call| (call.id, call.turn)).collect();
        let found = self.answers.claim_all(&asked, until);
        let mut content = Vec::with_capacity(calls.len());
        for (call, found) in calls.into_iter().zip(found) {
            content.push(match found {
                Some(answer) => {
                    let content = self.result_content(answer.result, &answer.path())?;
                    let cache = answer.block.cache_mark;
                    let is_error = answer.result.is_error;
                    BlockOut::ToolResult { id: call.written_id, content, is_error, cache }
                }
                None => {
                    self.losses.push(loss(call.path, LossAction::Invented));
                    BlockOut::ToolResult {
                        id: call.written_id,
                        content: vec![BlockOut::text("tool call was not executed")],
                        is_error: true,
                        cache: None,
                    }
                }
            });
        }
        self.append("user", content);
        Ok(())
    }

    /// A result that no call claimed becomes text.
    fn orphan(
        &mut self,
        result: &'a ToolResult,
        cache: Option<CacheMark>,
        path: &str,
        content: &mut Vec<BlockOut<'a>>,
    ) -> Result<(), EncodeError> {
        if result.call_id.is_empty() {
            return Err(nameless(path.to_owned()));
        }
        self.losses.push(loss(path.to_owned(), LossAction::Mapped));
        let mut label = format!("[tool result {}]", result.call_id);
        let mut cache = cache;
        let mut rest = Vec::new();
        for (place, block) in result.blocks.iter().enumerate() {
            match &block.kind {
                BlockKind::Text(text) => {
                    if block.cache_mark.is_some() {
                        // It is one text here, with one mark at its end.
                        self.unmark(cache, || path.to_owned());
                        cache = block.cache_mark;
                    }
                    if !is_blank(text) {
                        label.push(' ');
                        label.push_str(text);
                    }
                }
                _ => rest.push(self.part(block, &format!("{path}.content[{place}]"))?),
            }
        }
        content.push(BlockOut::Text { text: Cow::Owned(label), cache });
        content.extend(rest);
        Ok(())
    }

    fn result_content(
        &mut self,
        result: &'a ToolResult,
        path: &str,
    ) -> Result<Vec<BlockOut<'a>>, EncodeError> {
        let mut content = Vec::new();
        for (place, block) in result.blocks.iter().enumerate() {
            let path = format!("{path}.content[{place}]");
            match &block.kind {
                BlockKind::Text(text) if is_blank(text) => {
                    self.blank(text, block.cache_mark, || path.clone());
                }
                _ => content.push(self.part(block, &path)?),
            }
        }
        Ok(content)
    }

    /// Content that a user turn or a result may hold.
    fn part(&mut self, block: &'a Block, path: &str) -> Result<BlockOut<'a>, EncodeError> {
        let cache = block.cache_mark;
        match &block.kind {
            BlockKind::Text(text) | BlockKind::Refusal(text) => {
                Ok(BlockOut::Text { text: Cow::Borrowed(text), cache })
            }
            BlockKind::Image(image) => {
                let source = media::image(image, self.caps, path)?;
                if image.detail.as_deref().is_some_and(|detail| detail != "auto") {
                    self.losses.push(loss(format!("{path}.image_url.detail"), LossAction::Dropped));
                }
                Ok(BlockOut::Image { source, cache })
            }
            BlockKind::File(file) => {
                let source = media::document(file, self.caps, path)?;
                Ok(BlockOut::Document { source, title: file.name.as_deref(), extras: &[], cache })
            }
            BlockKind::Audio { .. } => {
                Err(refused("unsupported_content", path, "this model's provider takes no audio"))
            }
            BlockKind::Opaque { origin, raw } if *origin == ID => Ok(BlockOut::Raw(raw)),
            BlockKind::Opaque { origin, raw } => {
                let Some(text) = registry::opaque_as_text(*origin, raw) else {
                    return Err(foreign(*origin, path.to_owned()));
                };
                self.losses.push(loss(path.to_owned(), LossAction::Mapped));
                Ok(BlockOut::Text { text: Cow::Owned(text), cache })
            }
            BlockKind::Thinking { .. }
            | BlockKind::RedactedThinking { .. }
            | BlockKind::ToolCall(_)
            | BlockKind::WebSearch(_)
            | BlockKind::ToolResult(_) => {
                Err(refused("invalid_value", path, "this block cannot stand in a user turn"))
            }
        }
    }

    /// Leaves a blank text out, which is refused here.
    fn blank(&mut self, text: &str, cache: Option<CacheMark>, path: impl Fn() -> String) {
        if !text.is_empty() {
            self.losses.push(quiet(path(), LossAction::Dropped));
        }
        self.unmark(cache, path);
    }

    /// Records a mark for which there is no place any more.
    fn unmark(&mut self, cache: Option<CacheMark>, path: impl FnOnce() -> String) {
        if let Some(mark) = cache {
            let path = format!("{}.cache_control", path()).into();
            self.losses.push(Loss { path, action: LossAction::Dropped, silent: !mark.one_hour });
        }
    }

    /// Tells of the name of a speaker other than the user.
    fn unnamed(&mut self, turn: &Turn) {
        if turn.name.is_some() {
            self.losses.push(loss(format!("{}.name", turn.path), LossAction::Dropped));
        }
    }

    fn append(&mut self, role: &'static str, content: Vec<BlockOut<'a>>) {
        match self.out.messages.last_mut() {
            Some(last) if last.role == role => last.content.extend(content),
            _ => self.out.messages.push(Message { role, content }),
        }
    }

    fn finish(mut self, turns: &'a [Turn]) -> Result<Conversation<'a>, EncodeError> {
        if let Some(call) = self.open_calls.first() {
            let message = "the conversation ends with a tool call that has no result; add the result";
            return Err(refused("unpaired_tool_call", call.path.clone(), message));
        }
        let reminders = std::mem::take(&mut self.reminders);
        if !reminders.is_empty() {
            self.append("user", reminders);
        }
        match self.out.messages.first().map(|first| first.role) {
            None => {
                self.losses.push(loss("messages", LossAction::Invented));
                self.append("user", vec![BlockOut::text("Continue.")]);
            }
            Some("user") => {}
            Some(_) => {
                self.losses.push(loss("messages", LossAction::Invented));
                let content = vec![BlockOut::text("(conversation resumed)")];
                self.out.messages.insert(0, Message { role: "user", content });
            }
        }
        let is_open = self.out.messages.last().is_some_and(|last| last.role == "assistant");
        if is_open && !self.resumes {
            let path = turns.last().map_or_else(|| "messages".to_owned(), |turn| turn.path.clone());
            if !self.caps.prefill {
                let message =
                    "this model cannot continue a trailing assistant message; end with a user message";
                return Err(refused("unsupported_prefill", path, message));
            }
            self.out.prefilled = true;
            if let Some(BlockOut::Text { text, .. }) =
                self.out.messages.last_mut().and_then(|last| last.content.last_mut())
                && text.trim_end().len() < text.len()
            {
                *text = Cow::Owned(text.trim_end().to_owned());
                self.losses.push(quiet(path, LossAction::Clamped));
            }
        }
        Ok(self.out)
    }
}

pub(super) fn block_path(turn: &Turn, place: usize) -> String {
    format!("{}.content[{place}]", turn.path)
}

fn is_blank(text: &str) -> bool {
    text.trim().is_empty()
}

fn foreign(origin: crate::DialectId, path: String) -> EncodeError {
    let message = format!("this content exists only in the `{origin}` dialect; send it to such a model");
    refused("unsupported_content", path, message)
}
