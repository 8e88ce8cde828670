//! Writing a conversation as messages.

use std::{borrow::Cow, collections::HashMap};

use bytes::BytesMut;
use omniroute_wire::json_out::{Array, Object};

use super::{super::ID, tools::refused};
use crate::{
    Caps, EncodeError, anthropic, arguments, ids,
    ir::{
        self, Block, BlockKind, ChatRequest, File, Image, Loss, LossAction, MediaSource, Role, ToolCall,
        ToolResult, Turn,
    },
    media,
    pairing::Pairing,
    registry,
};

/// What stands between texts that were apart.
const BREAK: &str = "\n\n";
const UNSUPPORTED: &str = "unsupported_content";

/// Writes `messages`.
pub(super) fn write(
    request: &ChatRequest,
    caps: &Caps,
    out: &mut BytesMut,
    losses: &mut Vec<Loss>,
) -> Result<(), EncodeError> {
    let native = request.extras.origin == Some(ID);
    let mut writer = Writer {
        turns: &request.turns,
        caps,
        native,
        pairing: if native { Pairing::default() } else { Pairing::of(&request.turns)? },
        names: request
            .turns
            .iter()
            .rev()
            .flat_map(|turn| turn.blocks.iter().rev())
            .filter_map(call_of)
            .collect(),
        several_names: has_several_names(&request.turns),
        losses,
    };
    let mut messages = Array::begin(out);
    writer.system(&request.system, &mut messages);
    for at in 0..writer.turns.len() {
        writer.turn(at, &mut messages)?;
    }
    if messages.is_empty() {
        // An upstream without messages loads the model and says nothing.
        writer.losses.push(ir::loss("messages", LossAction::Invented));
        write_text("user", "Continue.", &mut messages);
    }
    messages.end();
    Ok(())
}

struct Writer<'a, 'l> {
    turns: &'a [Turn],
    caps: &'a Caps,
    /// Whether the request came in this dialect.
    native: bool,
    /// Empty for a request of this dialect: its results stay where they are.
    pairing: Pairing,
    /// The tools of calls by their ids: results are told by the tool's name. One id twice means the first.
    names: HashMap<&'a str, &'a str>,
    /// Whether users have to be told apart.
    several_names: bool,
    losses: &'l mut Vec<Loss>,
}

/// What a message says, in the one order that it has.
#[derive(Default)]
struct Said<'a> {
    texts: Vec<Cow<'a, str>>,
    thinking: String,
    images: Vec<&'a str>,
    calls: Vec<((usize, usize), &'a ToolCall)>,
}

impl<'a> Writer<'a, '_> {
    fn system(&mut self, blocks: &'a [Block], messages: &mut Array<'_>) {
        let mut texts = Vec::new();
        for (at, block) in blocks.iter().enumerate() {
            let BlockKind::Text(text) = &block.kind else {
                self.losses.push(ir::loss(format!("system[{at}]"), LossAction::Dropped));
                continue;
            };
            self.mark(block, || format!("system[{at}]"));
            if at == 0 && !self.native && anthropic::is_billing_line(text) {
                self.losses.push(ir::quiet("system[0]", LossAction::Dropped));
                continue;
            }
            texts.push(text.as_str());
        }
        if self.native {
            for text in texts {
                write_text("system", text, messages);
            }
        } else if !texts.is_empty() {
            // Many templates have place for one.
            write_text("system", &texts.join(BREAK), messages);
        }
    }

    fn turn(&mut self, at: usize, messages: &mut Array<'_>) -> Result<(), EncodeError> {
        let turn = &self.turns[at];
        if turn.name.is_some() {
            let told_apart = self.several_names && turn.role == Role::User;
            let action = if told_apart { LossAction::Mapped } else { LossAction::Dropped };
            self.losses.push(Loss { silent: told_apart, ..ir::loss(format!("{}.name", turn.path), action) });
        }
        match turn.role {
            Role::System => {
                let mut said = Said::default();
                for block in &turn.blocks {
                    self.part(block, &turn.path, &mut said)?;
                }
                said.write("system", self.native, messages);
                Ok(())
            }
            Role::User => self.user(at, messages),
            Role::Assistant => self.assistant(at, messages),
        }
    }

    fn user(&mut self, at: usize, messages: &mut Array<'_>) -> Result<(), EncodeError> {
        let turn = &self.turns[at];
        let mut said = Said::default();
        for (n, block) in turn.blocks.iter().enumerate() {
            let BlockKind::ToolResult(result) = &block.kind else {
                self.part(block, &turn.place(n), &mut said)?;
                continue;
            };
            if self.pairing.is_claimed((at, n)) {
                continue;
            }
            if self.native {
                // As it came: the upstream judges.
                self.result(result, block, &turn.path, messages)?;
                continue;
            }
            self.losses.push(ir::loss(turn.path.clone(), LossAction::Mapped));
            self.mark(block, || turn.path.clone());
            let mut inner = self.result_parts(result, &turn.path)?;
            said.texts.push(Cow::Owned(format!("[tool result {}] {}", result.call_id, inner.text("\n"))));
            said.images.append(&mut inner.images);
        }
        if let (true, Some(name), Some(text)) = (self.several_names, &turn.name, said.texts.first_mut()) {
            *text = Cow::Owned(format!("{name}: {text}"));
        }
        let only_results = !turn.blocks.is_empty()
            && turn.blocks.iter().all(|block| matches!(block.kind, BlockKind::ToolResult(_)));
        if !said.is_empty() || (self.native && !only_results) {
            said.write("user", self.native, messages);
        }
        Ok(())
    }

    fn assistant(&mut self, at: usize, messages: &mut Array<'_>) -> Result<(), EncodeError> {
        let turn = &self.turns[at];
        let mut said = Said::default();
        for (n, block) in turn.blocks.iter().enumerate() {
            self.say(block, (at, n), turn, &mut said)?;
        }
        let is_last = at + 1 == self.turns.len();
        if is_last && !self.native && said.calls.is_empty() {
            if said.text(BREAK).trim().is_empty() {
                self.losses.push(ir::quiet(turn.path.clone(), LossAction::Dropped));
                return Ok(());
            }
            if !self.caps.prefill {
                let message =
                    "the target does not continue a trailing assistant message; end with a user message";
                return Err(refused("unsupported_prefill", &turn.path, message));
            }
        }
        said.write("assistant", self.native, messages);
        for (place, _) in said.calls {
            self.answer(place, is_last, turn, messages)?;
        }
        Ok(())
    }

    /// Writes the result of a call behind it.
    fn answer(
        &mut self,
        call: (usize, usize),
        is_last: bool,
        turn: &'a Turn,
        messages: &mut Array<'_>,
    ) -> Result<(), EncodeError> {
        if let Some((answer, n)) = self.pairing.answer(call) {
            let from = &self.turns[answer];
            let block = &from.blocks[n];
            if let BlockKind::ToolResult(result) = &block.kind {
                return self.result(result, block, &from.path, messages);
            }
        }
        if self.native {
            return Ok(());
        }
        if is_last {
            let message = format!("`{}` ends with a tool call that has no result", turn.path);
            return Err(refused("unpaired_tool_call", &turn.path, &message));
        }
        self.losses.push(ir::loss(turn.path.clone(), LossAction::Invented));
        let name = call_of(&turn.blocks[call.1]).map_or("", |(_, name)| name);
        let mut message = messages.object();
        message
            .str("role", "tool")
            .str("content", "Error: tool call was not executed")
            .str("tool_name", name);
        message.end();
        Ok(())
    }

    fn say(
        &mut self,
        block: &'a Block,
        place: (usize, usize),
        turn: &'a Turn,
        said: &mut Said<'a>,
    ) -> Result<(), EncodeError> {
        match &block.kind {
            BlockKind::ToolCall(call) if call.name.trim().is_empty() && !self.native => {
                self.losses.push(ir::loss(turn.path.clone(), LossAction::Dropped));
            }
            BlockKind::ToolCall(call) => {
                if arguments::object(&call.arguments).changed {
                    self.losses.push(ir::quiet(format!("{}.tool_calls", turn.path), LossAction::Mapped));
                }
                self.mark(block, || turn.path.clone());
                said.calls.push((place, call));
            }
            BlockKind::Thinking { text, origin, .. } if *origin == ID => said.thinking.push_str(text),
            BlockKind::Thinking { .. } | BlockKind::RedactedThinking { .. } => {
                self.losses.push(ir::quiet(turn.path.clone(), LossAction::Dropped));
            }
            BlockKind::WebSearch(search) => {
                self.losses.push(ir::loss(turn.path.clone(), LossAction::Mapped));
                self.mark(block, || turn.path.clone());
                said.texts.push(Cow::Owned(search.as_text()));
            }
            BlockKind::Opaque { origin, raw } => {
                let text = registry::opaque_as_text(*origin, raw);
                let action = if text.is_some() { LossAction::Mapped } else { LossAction::Dropped };
                self.losses.push(ir::loss(turn.path.clone(), action));
                self.mark(block, || turn.path.clone());
                said.texts.extend(text.map(Cow::Owned));
            }
            BlockKind::Image(_) | BlockKind::File(_) | BlockKind::Audio { .. } if !self.native => {
                self.losses.push(ir::loss(turn.path.clone(), LossAction::Mapped));
                self.mark(block, || turn.path.clone());
                said.texts.push(Cow::Borrowed("[media omitted]"));
            }
            _ => {
                if !said.calls.is_empty() {
                    self.losses.push(ir::loss(turn.path.clone(), LossAction::Mapped));
                }
                if !block.citations.is_empty() {
                    self.losses.push(ir::quiet(format!("{}.citations", turn.path), LossAction::Dropped));
                }
                self.part(block, &turn.path, said)?;
            }
        }
        Ok(())
    }

    /// Writes a result.
    fn result(
        &mut self,
        result: &'a ToolResult,
        block: &Block,
        path: &str,
        messages: &mut Array<'_>,
    ) -> Result<(), EncodeError> {
        self.mark(block, || path.to_owned());
        let said = self.result_parts(result, path)?;
        let text = said.text("\n");
        let mut message = messages.object();
        message
            .str("role", "tool")
            .str("content", if text.is_empty() && !self.native { "(no output)" } else { &text });
        write_images(&said.images, &mut message);
        let name = self.names.get(result.call_id.as_str()).copied();
        message.opt_str("tool_name", name);
        if self.native && !ids::is_invented(&result.call_id) {
            message.str("tool_call_id", &result.call_id);
        }
        message.end();
        Ok(())
    }

    fn result_parts(&mut self, result: &'a ToolResult, path: &str) -> Result<Said<'a>, EncodeError> {
        let mut said = Said::default();
        for block in &result.blocks {
            self.part(block, path, &mut said)?;
        }
        if result.is_error && !said.texts.first().is_some_and(|text| text.starts_with("Error: ")) {
            let first = said.texts.first().cloned().unwrap_or_default();
            let marked = Cow::Owned(format!("Error: {first}"));
            match said.texts.first_mut() {
                Some(text) => *text = marked,
                None => said.texts.push(marked),
            }
        }
        Ok(said)
    }

    /// A block of a user turn, of an instruction or of a result.
    fn part(&mut self, block: &'a Block, path: &str, said: &mut Said<'a>) -> Result<(), EncodeError> {
        self.mark(block, || path.to_owned());
        match &block.kind {
            BlockKind::Text(text) | BlockKind::Refusal(text) => said.texts.push(Cow::Borrowed(text)),
            BlockKind::Image(image) => said.images.push(self.image(image, path)?),
            BlockKind::File(file) => said.texts.push(Cow::Owned(self.file(file, path)?)),
            BlockKind::Audio { .. } => {
                return Err(refused(
                    UNSUPPORTED,
                    path,
                    "the target does not take audio; use a model that does",
                ));
            }
            BlockKind::Opaque { origin, raw } => {
                let Some(text) = registry::opaque_as_text(*origin, raw) else {
                    let message =
                        format!("the target does not take content that only the `{origin}` dialect has");
                    return Err(refused(UNSUPPORTED, path, &message));
                };
                self.losses.push(ir::loss(path.to_owned(), LossAction::Mapped));
                said.texts.push(Cow::Owned(text));
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

    fn image(&mut self, image: &'a Image, path: &str) -> Result<&'a str, EncodeError> {
        if !self.caps.vision && !self.native {
            return Err(refused(UNSUPPORTED, path, "the target does not take images; use a model that does"));
        }
        let MediaSource::Base64 { data, .. } = &image.source else {
            let message = match &image.source {
                MediaSource::Url(_) => "the target does not fetch images; send the image itself",
                _ => "the image belongs to another provider; send the image itself",
            };
            return Err(refused(UNSUPPORTED, path, message));
        };
        if let Some(kind @ ("image/bmp" | "image/tiff" | "image/svg+xml" | "image/heic")) =
            media::sniffed(data)
            && !self.native
        {
            let message = format!("images of type `{kind}` are not accepted; send JPEG, PNG or WebP");
            return Err(refused(UNSUPPORTED, path, &message));
        }
        if image.detail.as_deref().is_some_and(|detail| detail != "auto") {
            self.losses.push(ir::loss(format!("{path}.image_url.detail"), LossAction::Dropped));
        }
        Ok(data)
    }

    /// A document, which has to be text.
    fn file(&mut self, file: &File, path: &str) -> Result<String, EncodeError> {
        let text = match &file.source {
            MediaSource::Text(text) => Cow::Borrowed(text.as_str()),
            MediaSource::Base64 { media_type, data }
                if media_type.starts_with("text/") || media_type.starts_with("application/json") =>
            {
                Cow::Owned(media::text(data, path)?)
            }
            MediaSource::Base64 { .. } | MediaSource::Url(_) | MediaSource::FileId { .. } => {
                return Err(refused(
                    UNSUPPORTED,
                    path,
                    "the target takes no documents but text; send the text",
                ));
            }
        };
        self.losses.push(ir::quiet(path.to_owned(), LossAction::Mapped));
        let name = file.name.as_deref().unwrap_or("file.txt").replace('"', "'");
        Ok(format!("<document name=\"{name}\">\n{text}\n</document>"))
    }

    /// The server caches by itself and takes no marks.
    fn mark(&mut self, block: &Block, path: impl FnOnce() -> String) {
        if let Some(mark) = block.cache_mark {
            let path = format!("{}.cache_control", path());
            self.losses.push(Loss { path: path.into(), action: LossAction::Dropped, silent: !mark.one_hour });
        }
    }
}

impl Said<'_> {
    fn is_empty(&self) -> bool {
        self.texts.is_empty() && self.images.is_empty()
    }

    fn text(&self, between: &str) -> String {
        self.texts.join(between)
    }

    /// Ids are for clients of this dialect that gave them; the models' templates go by names.
    fn write(&self, role: &str, with_ids: bool, messages: &mut Array<'_>) {
        let mut message = messages.object();
        message.str("role", role).str("content", &self.text(BREAK));
        if !self.thinking.is_empty() {
            message.str("thinking", &self.thinking);
        }
        write_images(&self.images, &mut message);
        if !self.calls.is_empty() {
            let mut list = message.array("tool_calls");
            for (_, call) in &self.calls {
                let mut object = list.object();
                object.opt_str("id", (with_ids && !ids::is_invented(&call.id)).then_some(&call.id));
                let mut function = object.object("function");
                function.str("name", &call.name);
                function.raw("arguments", arguments::object(&call.arguments).object.get());
                function.end();
                object.end();
            }
            list.end();
        }
        message.end();
    }
}

fn has_several_names(turns: &[Turn]) -> bool {
    let mut names =
        turns.iter().filter(|turn| turn.role == Role::User).filter_map(|turn| turn.name.as_deref());
    let first = names.next();
    names.any(|name| Some(name) != first)
}

fn call_of(block: &Block) -> Option<(&str, &str)> {
    match &block.kind {
        BlockKind::ToolCall(call) => Some((&call.id, &call.name)),
        _ => None,
    }
}

fn write_images(images: &[&str], message: &mut Object<'_>) {
    if images.is_empty() {
        return;
    }
    let mut list = message.array("images");
    for data in images {
        list.str(data);
    }
    list.end();
}

fn write_text(role: &str, text: &str, messages: &mut Array<'_>) {
    let mut message = messages.object();
    message.str("role", role).str("content", text);
    message.end();
}
