//! What messages are made of: parts with their marks, what an assistant said, and what tools answered.

use std::borrow::Cow;

use omniroute_wire::json_out::{Array, Object};

use super::super::wire::{self, CallOut};
use crate::{
    ids,
    ir::{Block, BlockKind, CacheMark, File, Image, MediaSource, ToolResult, Turn},
    media, registry,
};

/// A part of a message's content, and the mark at it.
pub(super) struct Part<'a> {
    pub(super) kind: PartKind<'a>,
    pub(super) mark: Option<Mark>,
}

/// What a part is.
pub(super) enum PartKind<'a> {
    Text(Cow<'a, str>),
    Image(&'a Image),
    Audio { data: &'a str, format: &'a str },
    File(&'a File),
}

/// A cache mark as it is written.
#[derive(Clone, Copy)]
pub(super) enum Mark {
    Control(CacheMark),
    Breakpoint,
}

impl<'a> Part<'a> {
    /// A text.
    pub(super) fn text(text: impl Into<Cow<'a, str>>, mark: Option<Mark>) -> Self {
        Self { kind: PartKind::Text(text.into()), mark }
    }
}

/// What an assistant turn says, in the one order that a message has.
#[derive(Default)]
pub(super) struct Said<'a> {
    pub(super) text: Option<String>,
    /// Where in the text the prompt may be cached up to.
    pub(super) marks: Vec<(usize, Mark)>,
    pub(super) refusal: Option<String>,
    pub(super) thinking: String,
    /// Whether the target is told that its answer begins so.
    pub(super) prefix: bool,
    /// Whether the target refuses the message without its thinking; what is not known any more is empty then.
    pub(super) must_think: bool,
    pub(super) signed: Vec<String>,
    pub(super) calls: Vec<((usize, usize), CallOut<'a>)>,
    /// The signature that goes with the next call.
    pub(super) call_signature: Option<&'a str>,
}

impl Said<'_> {
    /// Writes the message.
    pub(super) fn write(&self, turn: &Turn, messages: &mut Array<'_>) {
        let mut message = messages.object();
        message.str("role", "assistant").opt_str("name", turn.name.as_deref());
        let nothing = self.text.is_none() && self.calls.is_empty() && self.refusal.is_none();
        match &self.text {
            Some(text) if !self.marks.is_empty() => self.write_marked(text, &mut message),
            text => {
                message.str_or_null("content", if nothing { Some("") } else { text.as_deref() });
            }
        }
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
        if self.prefix {
            message.bool("prefix", true);
        }
        message.end();
    }

    /// The text in pieces, each up to a mark.
    fn write_marked(&self, text: &str, message: &mut Object<'_>) {
        let mut from = 0;
        let mut parts = Vec::new();
        for (end, mark) in &self.marks {
            if *end > from {
                parts.push(Part::text(&text[from..*end], Some(*mark)));
                from = *end;
            }
        }
        if from < text.len() {
            parts.push(Part::text(&text[from..], None));
        }
        write_content(&parts, message);
    }
}

/// A result as text, and the images, documents and sounds in it with their labels. Without an id they are only named.
pub(super) fn result_text<'a>(
    result: &'a ToolResult,
    id: Option<&str>,
) -> (String, Vec<(String, &'a Block)>) {
    let mut text = String::new();
    let mut shown = Vec::new();
    for block in &result.blocks {
        let piece: Cow<'_, str> = match &block.kind {
            BlockKind::Text(text) => Cow::Borrowed(text),
            BlockKind::Image(_) | BlockKind::File(_) | BlockKind::Audio { .. } => {
                let what = match &block.kind {
                    BlockKind::Image(_) => "image",
                    BlockKind::Audio { .. } => "audio",
                    _ => "document",
                };
                let label = id.map(|id| format!("{id}#{}", shown.len() + 1)).unwrap_or_default();
                let piece = match id {
                    Some(_) => format!("[{what} attached below: {label}]"),
                    None => format!("[{what}]"),
                };
                shown.push((label, block));
                Cow::Owned(piece)
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

/// Writes what a tool said, and the mark behind it.
pub(super) fn write_result(call_id: &str, text: &str, mark: Option<Mark>, messages: &mut Array<'_>) {
    let mut message = messages.object();
    message.str("role", "tool").str("tool_call_id", &ids::tool_call_id(call_id));
    write_content(&[Part::text(text, mark)], &mut message);
    message.end();
}

/// Writes `content`: a text, or parts.
pub(super) fn write_content(parts: &[Part<'_>], message: &mut Object<'_>) {
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
