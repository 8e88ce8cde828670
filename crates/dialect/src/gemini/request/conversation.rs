//! The conversation as this dialect wants it: users and the model take turns, a user begins, and the results of all
//! calls of a turn stand in a content of their own right behind it, in the order of the calls.

use std::{borrow::Cow, collections::BTreeSet};

use serde_json::value::RawValue;

use super::media;
use crate::{
    Caps, EncodeError, anthropic, arguments,
    gemini::{
        ID,
        wire::{CallOut, PartOut, SKIP_SIGNATURE, ValueOut},
    },
    ids,
    ir::{
        Block, BlockKind, CacheMark, ChatRequest, Loss, LossAction, Reader, Role, ToolCall, Turn, loss, quiet,
    },
    json_in,
    pairing::Answers,
    registry,
};

/// System text and contents as they are written.
#[derive(Debug, Default)]
pub(super) struct Conversation<'a> {
    pub(super) system: Vec<Cow<'a, str>>,
    pub(super) contents: Vec<Content<'a>>,
}

/// One content.
#[derive(Debug)]
pub(super) struct Content<'a> {
    pub(super) role: &'static str,
    pub(super) parts: Vec<PartOut<'a>>,
    /// Whether it holds results, which stand alone.
    pub(super) results: bool,
}

pub(super) const USER: &str = "user";
pub(super) const MODEL: &str = "model";

/// Writes the conversation of a request that came in another dialect.
pub(super) fn translated<'a>(
    request: &'a ChatRequest,
    caps: &'a Caps,
    losses: &mut Vec<Loss>,
) -> Result<Conversation<'a>, EncodeError> {
    Builder::new(request, caps, losses).build(request)
}

/// A signature that waits for the part it belongs to.
#[derive(Debug, Default)]
pub(super) struct Signed<'a>(Option<&'a str>);

impl<'a> Signed<'a> {
    pub(super) fn put(&mut self, signature: &'a str, parts: &mut Vec<PartOut<'a>>) {
        self.flush(parts);
        self.0 = Some(signature);
    }

    pub(super) fn take(&mut self) -> Option<Cow<'a, str>> {
        self.0.take().map(Cow::Borrowed)
    }

    /// Writes it on its own: its part is not there.
    pub(super) fn flush(&mut self, parts: &mut Vec<PartOut<'a>>) {
        if let Some(signature) = self.take() {
            parts.push(PartOut::bare_signature(signature));
        }
    }
}

/// A call of the last content of the model.
pub(super) struct OpenCall<'a> {
    pub(super) turn: usize,
    pub(super) call: &'a ToolCall,
    /// The id that was written.
    pub(super) id: Option<Cow<'a, str>>,
    pub(super) path: String,
}

pub(super) struct Builder<'a, 'm> {
    pub(super) caps: &'a Caps,
    pub(super) reader: &'a Reader,
    pub(super) losses: &'m mut Vec<Loss>,
    pub(super) out: Conversation<'a>,
    pub(super) answers: Answers<'a>,
    pub(super) open_calls: Vec<OpenCall<'a>>,
    pub(super) reminders: Vec<PartOut<'a>>,
    pub(super) several_names: bool,
}

impl<'a, 'm> Builder<'a, 'm> {
    fn new(request: &'a ChatRequest, caps: &'a Caps, losses: &'m mut Vec<Loss>) -> Self {
        let users = request.turns.iter().filter(|turn| turn.role == Role::User);
        let names: BTreeSet<_> = users.filter_map(|turn| turn.name.as_deref()).collect();
        Self {
            caps,
            reader: &request.reader,
            losses,
            out: Conversation::default(),
            answers: Answers::of(&request.turns),
            open_calls: Vec::new(),
            reminders: Vec::new(),
            several_names: names.len() > 1,
        }
    }

    fn build(mut self, request: &'a ChatRequest) -> Result<Conversation<'a>, EncodeError> {
        let leading = request.turns.iter().take_while(|turn| turn.role == Role::System).count();
        let (leading, turns) = request.turns.split_at(leading);
        for (place, block) in request.system.iter().enumerate() {
            self.system_block(block, place == 0, || format!("system[{place}]"))?;
        }
        for turn in leading {
            self.unnamed(turn);
            for (place, block) in turn.blocks.iter().enumerate() {
                self.system_block(block, false, || block_path(turn, place))?;
            }
        }
        for (at, turn) in turns.iter().enumerate() {
            let index = leading.len() + at;
            match turn.role {
                Role::User => self.user(index, turn, &turns[at + 1..])?,
                Role::Assistant => self.assistant(index, turn, at + 1 == turns.len())?,
                Role::System => self.instruction(turn)?,
            }
        }
        self.finish(turns)
    }

    fn system_block(
        &mut self,
        block: &'a Block,
        first: bool,
        path: impl Fn() -> String,
    ) -> Result<(), EncodeError> {
        let BlockKind::Text(text) = &block.kind else {
            return Err(media::refused(&path(), "system messages may only hold text"));
        };
        self.mark(block.cache_mark, &path);
        if first && anthropic::is_billing_line(text) {
            self.losses.push(quiet(path(), LossAction::Dropped));
        } else if is_blank(text) {
            self.blank(text, path);
        } else {
            self.out.system.push(Cow::Borrowed(text));
        }
        Ok(())
    }

    /// An instruction within the conversation: a note in the next content of a user.
    fn instruction(&mut self, turn: &'a Turn) -> Result<(), EncodeError> {
        self.unnamed(turn);
        let mut texts = Vec::new();
        for (place, block) in turn.blocks.iter().enumerate() {
            let path = || block_path(turn, place);
            self.mark(block.cache_mark, path);
            match &block.kind {
                BlockKind::Text(text) if is_blank(text) => self.blank(text, path),
                BlockKind::Text(text) => texts.push(text.as_str()),
                _ => {
                    let path = block_path(turn, place);
                    return Err(media::refused(&path, "system messages may only hold text"));
                }
            }
        }
        if !texts.is_empty() {
            self.losses.push(loss(format!("{}.role", turn.path), LossAction::Mapped));
            let reminder = format!("<system-reminder>{}</system-reminder>", texts.join("\n\n"));
            self.reminders.push(PartOut::text(reminder));
        }
        Ok(())
    }

    fn assistant(&mut self, index: usize, turn: &'a Turn, is_last: bool) -> Result<(), EncodeError> {
        self.unnamed(turn);
        let mut parts = Vec::new();
        let mut signed = Signed::default();
        let mut ours = false;
        let first_call = self.open_calls.len();
        for (place, block) in turn.blocks.iter().enumerate() {
            let path = || block_path(turn, place);
            self.mark(block.cache_mark, path);
            match &block.kind {
                BlockKind::Text(text) | BlockKind::Refusal(text) => {
                    if is_blank(text) {
                        self.blank(text, path);
                    } else {
                        parts.push(PartOut::Text { text: Cow::Borrowed(text), signature: signed.take() });
                    }
                    if !block.citations.is_empty() {
                        self.losses.push(quiet(format!("{}.citations", path()), LossAction::Dropped));
                    }
                }
                BlockKind::Thinking { text, signature: Some(signature), origin }
                    if *origin == ID && self.reader.can_read(signature) =>
                {
                    ours = true;
                    // The model wants its signatures back, not the summary of its thoughts.
                    if !text.is_empty() {
                        self.losses.push(quiet(path(), LossAction::Dropped));
                    }
                    signed.put(&signature.data, &mut parts);
                }
                BlockKind::Thinking { .. } | BlockKind::RedactedThinking { .. } => {
                    self.losses.push(quiet(path(), LossAction::Dropped));
                }
                BlockKind::ToolCall(call) if is_blank(&call.name) => {
                    self.losses.push(loss(path(), LossAction::Dropped));
                    self.answers.claim(&call.id, index);
                }
                BlockKind::ToolCall(call) => {
                    let args = arguments::object(&call.arguments);
                    if args.changed {
                        self.losses.push(quiet(format!("{}.arguments", path()), LossAction::Mapped));
                    }
                    let signature = signed.take();
                    parts.push(PartOut::Call(CallOut {
                        id: None,
                        name: &call.name,
                        args: args.object,
                        signature,
                    }));
                    self.open_calls.push(OpenCall { turn: index, call, id: None, path: path() });
                }
                BlockKind::Opaque { origin, raw } if *origin == ID => {
                    signed.flush(&mut parts);
                    parts.push(PartOut::Raw(raw));
                }
                BlockKind::WebSearch(search) => {
                    self.losses.push(loss(path(), LossAction::Mapped));
                    parts.push(PartOut::text(search.as_text()));
                }
                BlockKind::Image(_) | BlockKind::File(_) | BlockKind::Audio { .. } => {
                    self.losses.push(loss(path(), LossAction::Mapped));
                    parts.push(PartOut::text("[media omitted]"));
                }
                BlockKind::ToolResult(_) => {}
                BlockKind::Opaque { origin, raw } => {
                    let text = registry::opaque_as_text(*origin, raw);
                    let action = if text.is_some() { LossAction::Mapped } else { LossAction::Dropped };
                    self.losses.push(loss(path(), action));
                    parts.extend(text.map(PartOut::text));
                }
            }
        }
        signed.flush(&mut parts);
        self.sign_first_call(&mut parts);
        if ours {
            self.give_ids(first_call, &mut parts);
        }
        if parts.is_empty() {
            let continues = self.out.contents.last().is_some_and(|last| last.role == MODEL);
            if is_last || continues {
                self.losses.push(quiet(turn.path.clone(), LossAction::Dropped));
                return Ok(());
            }
            parts.push(PartOut::text("(no content)"));
        }
        self.append(MODEL, parts, false);
        Ok(())
    }

    /// The first call of a step must have a signature for some models. Clients that put all signatures first left its
    /// own with the text before it; if there is none at all, the vendor has a word for that.
    fn sign_first_call(&mut self, parts: &mut [PartOut<'a>]) {
        let Some(first) = parts.iter().position(|part| matches!(part, PartOut::Call(_))) else { return };
        let (before, calls) = parts.split_at_mut(first);
        let Some(PartOut::Call(call)) = calls.first_mut() else { return };
        if call.signature.is_some() {
            return;
        }
        let moved = before.iter_mut().rev().find_map(|part| match part {
            PartOut::Text { text, signature } if !text.is_empty() => signature.take(),
            _ => None,
        });
        // Further contents of the model belong to the same step.
        let continues = self.out.contents.last().is_some_and(|last| last.role == MODEL);
        call.signature = match moved {
            None if self.caps.gemini.signed_calls && !continues => Some(Cow::Borrowed(SKIP_SIGNATURE)),
            moved => moved,
        };
    }

    /// Gives calls their ids back that the upstream made. Others would mean nothing to it.
    fn give_ids(&mut self, first_call: usize, parts: &mut [PartOut<'a>]) {
        let calls = parts.iter_mut().filter_map(|part| match part {
            PartOut::Call(call) => Some(call),
            _ => None,
        });
        for (open, written) in self.open_calls[first_call..].iter_mut().zip(calls) {
            open.id = id_out(&open.call.id, false);
            written.id = open.id.clone();
        }
    }

    fn user(&mut self, index: usize, turn: &'a Turn, rest: &'a [Turn]) -> Result<(), EncodeError> {
        let mut parts = Vec::new();
        if !self.open_calls.is_empty() {
            let until = rest.iter().position(|turn| turn.role == Role::Assistant).unwrap_or(rest.len());
            parts = self.answer_calls(index + until)?;
        }
        parts.append(&mut self.reminders);
        let mut speaker = turn.name.as_deref();
        let mut has_results = false;
        for (place, block) in turn.blocks.iter().enumerate() {
            let path = || block_path(turn, place);
            match &block.kind {
                BlockKind::ToolResult(result) => {
                    has_results = true;
                    self.mark(block.cache_mark, path);
                    if !self.answers.is_claimed((index, place)) {
                        self.orphan(result, &path(), &mut parts)?;
                    }
                }
                BlockKind::Text(text) if is_blank(text) => {
                    self.mark(block.cache_mark, path);
                    self.blank(text, path);
                }
                BlockKind::Text(text) => {
                    self.mark(block.cache_mark, path);
                    parts.push(match speaker.take().filter(|_| self.several_names) {
                        Some(name) => PartOut::text(format!("{name}: {text}")),
                        None => PartOut::text(text.as_str()),
                    });
                }
                _ => parts.extend(self.part(block, &path())?),
            }
        }
        if turn.name.is_some() {
            let action = if self.several_names { LossAction::Mapped } else { LossAction::Dropped };
            let silent = self.several_names;
            self.losses.push(Loss { path: format!("{}.name", turn.path).into(), action, silent });
        }
        let follows_user = self.out.contents.last().is_some_and(|last| last.role == USER);
        if parts.is_empty() && !has_results && !follows_user {
            parts.push(PartOut::text("(no content)"));
        }
        if !parts.is_empty() {
            self.append(USER, parts, false);
        }
        Ok(())
    }

    /// Content that a user's turn or a result may hold.
    pub(super) fn part(&mut self, block: &'a Block, path: &str) -> Result<Vec<PartOut<'a>>, EncodeError> {
        self.mark(block.cache_mark, || path.to_owned());
        Ok(vec![match &block.kind {
            BlockKind::Text(text) | BlockKind::Refusal(text) => PartOut::text(text.as_str()),
            BlockKind::Image(image) => {
                let part = media::image(image, self.caps, path)?;
                let asked = image.detail.as_deref().is_some_and(|detail| detail != "auto");
                if asked && !matches!(part, PartOut::Blob { resolution: Some(_), .. }) {
                    self.losses.push(loss(format!("{path}.image_url.detail"), LossAction::Dropped));
                }
                part
            }
            BlockKind::File(file) => {
                let part = media::document(file, self.caps, path)?;
                if matches!(part, PartOut::Text { .. }) {
                    self.losses.push(quiet(path.to_owned(), LossAction::Mapped));
                }
                part
            }
            BlockKind::Audio { data, format } => media::audio(data, format, self.caps, path)?,
            BlockKind::Opaque { origin, raw } if *origin == ID => PartOut::Raw(raw),
            BlockKind::Opaque { origin, raw } => {
                let Some(text) = registry::opaque_as_text(*origin, raw) else {
                    let message = format!(
                        "this content exists only in the `{origin}` dialect; send it to such a model"
                    );
                    return Err(media::refused(path, message));
                };
                self.losses.push(loss(path.to_owned(), LossAction::Mapped));
                PartOut::text(text)
            }
            BlockKind::WebSearch(search) => {
                self.losses.push(loss(path.to_owned(), LossAction::Mapped));
                PartOut::text(search.as_text())
            }
            BlockKind::Thinking { .. } | BlockKind::RedactedThinking { .. } => {
                self.losses.push(quiet(path.to_owned(), LossAction::Dropped));
                return Ok(Vec::new());
            }
            BlockKind::ToolCall(_) | BlockKind::ToolResult(_) => {
                return Err(refused("invalid_value", path, "this block cannot stand in a user turn"));
            }
        }])
    }

    /// Leaves out a text that says nothing.
    fn blank(&mut self, text: &str, path: impl Fn() -> String) {
        if !text.is_empty() {
            self.losses.push(quiet(path(), LossAction::Dropped));
        }
    }

    /// Tells of the name of a speaker other than the user.
    fn unnamed(&mut self, turn: &Turn) {
        if turn.name.is_some() {
            self.losses.push(loss(format!("{}.name", turn.path), LossAction::Dropped));
        }
    }

    /// The vendor caches by itself and has no marks.
    pub(super) fn mark(&mut self, mark: Option<CacheMark>, path: impl Fn() -> String) {
        if let Some(mark) = mark {
            let path = format!("{}.cache_control", path()).into();
            self.losses.push(Loss { path, action: LossAction::Dropped, silent: !mark.one_hour });
        }
    }

    /// Contents of one role in a row are one, but results stand alone.
    pub(super) fn append(&mut self, role: &'static str, parts: Vec<PartOut<'a>>, results: bool) {
        match self.out.contents.last_mut() {
            Some(last) if last.role == role && !last.results && !results => last.parts.extend(parts),
            _ => self.out.contents.push(Content { role, parts, results }),
        }
    }

    fn finish(mut self, turns: &'a [Turn]) -> Result<Conversation<'a>, EncodeError> {
        if let Some(open) = self.open_calls.first() {
            let message = "the conversation ends with a tool call that has no result; add the result";
            return Err(refused("unpaired_tool_call", &open.path, message));
        }
        let reminders = std::mem::take(&mut self.reminders);
        if !reminders.is_empty() {
            self.append(USER, reminders, false);
        }
        if !self.caps.gemini.system && !self.out.system.is_empty() {
            self.losses.push(loss("system", LossAction::Mapped));
            let parts: Vec<_> = std::mem::take(&mut self.out.system).into_iter().map(PartOut::text).collect();
            match self.out.contents.first_mut() {
                Some(first) if first.role == USER && !first.results => {
                    first.parts.splice(0..0, parts);
                }
                _ => self.out.contents.insert(0, Content { role: USER, parts, results: false }),
            }
        }
        match self.out.contents.first().map(|first| first.role) {
            None => {
                self.losses.push(loss("messages", LossAction::Invented));
                self.append(USER, vec![PartOut::text("Continue.")], false);
            }
            Some(USER) => {}
            Some(_) => {
                self.losses.push(loss("messages", LossAction::Invented));
                let parts = vec![PartOut::text("(conversation resumed)")];
                self.out.contents.insert(0, Content { role: USER, parts, results: false });
            }
        }
        if self.out.contents.last().is_some_and(|last| last.role == MODEL) && !self.caps.prefill {
            let path = turns.last().map_or("messages", |turn| &turn.path);
            let message = "this model cannot continue a trailing assistant message; end with a user message";
            return Err(refused("unsupported_prefill", path, message));
        }
        Ok(self.out)
    }
}

/// A refusal to translate.
pub(super) fn refused(code: &'static str, path: &str, message: impl Into<String>) -> EncodeError {
    EncodeError { code, param: Some(path.to_owned()), message: message.into() }
}

/// An id that the upstream made: not one that was invented here, nor, from another dialect, one of somebody else.
pub(super) fn id_out(id: &str, native: bool) -> Option<Cow<'_, str>> {
    let foreign = ["toolu_", "call_", "fc_", "chatcmpl-tool-"].iter().any(|prefix| id.starts_with(prefix));
    let known = if native { !ids::is_invented(id) } else { !foreign };
    (known && !id.is_empty()).then_some(Cow::Borrowed(id))
}

/// A result's text as it is written: JSON where it is exactly an object or a list.
pub(super) fn value_of(text: Cow<'_, str>) -> ValueOut<'_> {
    let is_json =
        text.trim_start().starts_with(['{', '[']) && serde_json::from_str::<&RawValue>(&text).is_ok();
    if is_json { ValueOut::Json(json_in::last_wins(&json_in::compact(&text))) } else { ValueOut::Text(text) }
}

pub(super) fn block_path(turn: &Turn, place: usize) -> String {
    format!("{}.content[{place}]", turn.path)
}

pub(super) fn is_blank(text: &str) -> bool {
    text.trim().is_empty()
}
