//! A message as it is written, part by part.

use bytes::BytesMut;
use omniroute_wire::json_out::{Array, Object};

use super::super::wire;
use crate::ir::Block;

/// The parts of a message.
pub(super) struct Message {
    role: &'static str,
    /// The type of its texts.
    text: &'static str,
    pub(super) parts: BytesMut,
    /// Whether there is nothing but text in it.
    pub(super) is_text: bool,
    phase: Option<Box<str>>,
}

impl Message {
    pub(super) fn new(role: &'static str, text: &'static str) -> Self {
        Self { role, text, parts: BytesMut::new(), is_text: true, phase: None }
    }

    /// What follows is of this phase, which a message has as a whole.
    pub(super) fn enter(&mut self, phase: Option<&str>, items: &mut Array<'_>) {
        if self.phase.as_deref() != phase {
            self.write(items);
            self.phase = phase.map(Into::into);
        }
    }

    /// Adds a text; an empty one says nothing and is refused at some places.
    pub(super) fn text(&mut self, text: &str, block: &Block) {
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

    pub(super) fn refusal(&mut self, text: &str) {
        let mut part = self.begin();
        part.str("type", "refusal").str("refusal", text);
        part.end();
    }

    /// Begins a part that is no text.
    pub(super) fn begin(&mut self) -> Object<'_> {
        self.is_text = false;
        if !self.parts.is_empty() {
            self.parts.extend_from_slice(b",");
        }
        Object::begin(&mut self.parts)
    }

    /// Marks the last part, once: the prompt may be cached up to there.
    pub(super) fn mark(&mut self) {
        const MARK: &[u8] = br#","prompt_cache_breakpoint":{"mode":"explicit"}}"#;
        if self.parts.ends_with(MARK) {
            return;
        }
        self.parts.truncate(self.parts.len().saturating_sub(1));
        self.parts.extend_from_slice(MARK);
        self.is_text = false;
    }

    /// Puts a text before the parts.
    pub(super) fn prepend(&mut self, text: &str) {
        let mut first = BytesMut::new();
        let mut part = Object::begin(&mut first);
        part.str("type", self.text).str("text", text);
        part.end();
        first.extend_from_slice(b",");
        first.extend_from_slice(&self.parts);
        self.parts = first;
    }

    /// Writes the message and begins another, unless there is nothing in it.
    pub(super) fn write(&mut self, items: &mut Array<'_>) {
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
