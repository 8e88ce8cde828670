//! Items of a client's answer while they are being written.

use bytes::BytesMut;
use omniroute_wire::{json_out::Object, sse::DEFAULT_FRAME_LIMIT};

use super::{super::wire, encoder::Encoder};
use crate::{
    arguments,
    ir::{Citation, Logprob},
    logprobs,
    stream::StreamError,
};

/// A message. Its parts are texts and refusals.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) id: String,
    /// The place of the open part, or else of the next.
    pub(super) part: u64,
    refusal: bool,
    /// Whether the message, and the open part, were told of: not before there is something in them.
    added: bool,
    begun: bool,
    /// The text of the open part, escaped, and how many characters it has.
    text: BytesMut,
    characters: usize,
    citations: BytesMut,
    cited: u64,
    /// The log probabilities of the open part, without the brackets of their list, and how much of them was told.
    tokens: BytesMut,
    told_tokens: usize,
    /// The parts that are done, without the brackets of their list.
    parts: BytesMut,
}

/// Reasoning, shown as a summary: that is what clients show.
#[derive(Debug)]
pub(super) struct Reasoning {
    id: String,
    begun: bool,
    text: BytesMut,
    pub(super) signature: Option<String>,
}

/// A call of one of the client's tools.
#[derive(Debug)]
pub(super) struct Call {
    /// The block in the answer.
    pub(super) index: u32,
    pub(super) id: String,
    pub(super) call_id: String,
    pub(super) name: String,
    pub(super) namespace: Option<String>,
    /// Whether the client gets free text instead of arguments.
    pub(super) custom: bool,
    pub(super) arguments: String,
}

impl Message {
    pub(super) fn new(id: String) -> Self {
        Self {
            id,
            part: 0,
            refusal: false,
            added: false,
            begun: false,
            text: BytesMut::new(),
            characters: 0,
            citations: BytesMut::new(),
            cited: 0,
            tokens: BytesMut::new(),
            told_tokens: 0,
            parts: BytesMut::new(),
        }
    }

    pub(super) fn begin_part(&mut self, refusal: bool) {
        self.refusal = refusal;
    }

    pub(super) fn text(
        &mut self,
        text: &str,
        encoder: &mut Encoder,
        out: &mut BytesMut,
    ) -> Result<(), StreamError> {
        if text.is_empty() {
            return Ok(());
        }
        if !std::mem::replace(&mut self.added, true) {
            let id = &self.id;
            encoder.added(out, |item| {
                item.str("type", "message").str("id", id).str("status", "in_progress");
                item.str("role", "assistant").raw("content", "[]");
            });
        }
        if !std::mem::replace(&mut self.begun, true) {
            let nothing = Part { refusal: self.refusal, text: b"", citations: b"", tokens: b"" };
            self.part_event("response.content_part.added", &nothing, encoder, out);
        }
        let new;
        let (name, rest): (_, &[u8]) = match self.refusal {
            true => ("response.refusal.delta", b""),
            false if self.told_tokens == self.tokens.len() => {
                ("response.output_text.delta", b",\"logprobs\":[]")
            }
            false => {
                new = [b",\"logprobs\":[", self.new_tokens(), b"]"].concat();
                self.told_tokens = self.tokens.len();
                ("response.output_text.delta", &new)
            }
        };
        let escaped = encoder.piece(name, &self.id, Some(("content_index", self.part)), text, rest, out);
        self.text.extend_from_slice(&out[escaped]);
        self.characters += text.chars().count();
        limit(self.text.len())
    }

    /// Adds tokens of the text that comes next.
    pub(super) fn tokens(&mut self, tokens: &[Logprob]) -> Result<(), StreamError> {
        if self.refusal {
            return Ok(());
        }
        logprobs::write_elements(&mut self.tokens, tokens);
        limit(self.tokens.len())
    }

    fn new_tokens(&self) -> &[u8] {
        let new = self.tokens.get(self.told_tokens..).unwrap_or_default();
        new.strip_prefix(b",").unwrap_or(new)
    }

    /// Adds a source of the open part: its place among the sources, and the source as JSON.
    pub(super) fn cite(&mut self, citation: &Citation) -> Option<(u64, BytesMut)> {
        if !self.begun || self.refusal {
            return None;
        }
        let mut written = BytesMut::new();
        if !wire::write_citation(&mut written, citation, self.characters) {
            return None;
        }
        if self.cited > 0 {
            self.citations.extend_from_slice(b",");
        }
        self.citations.extend_from_slice(&written);
        self.cited += 1;
        Some((self.cited - 1, written))
    }

    pub(super) fn end_part(&mut self, encoder: &mut Encoder, out: &mut BytesMut) {
        if !std::mem::take(&mut self.begun) {
            return;
        }
        let (text, citations) = (std::mem::take(&mut self.text), std::mem::take(&mut self.citations));
        let tokens = std::mem::take(&mut self.tokens);
        self.told_tokens = 0;
        let (refusal, id, part, place) = (self.refusal, &self.id, self.part, encoder.place);
        let name = if refusal { "response.refusal.done" } else { "response.output_text.done" };
        encoder.tell(name, out, |event| {
            event.str("item_id", id).u64("output_index", place).u64("content_index", part);
            write_escaped(event.key(if refusal { "refusal" } else { "text" }), &text);
            if !refusal {
                write_bracketed(event.key("logprobs"), &tokens);
            }
        });
        let whole = Part { refusal, text: &text, citations: &citations, tokens: &tokens };
        self.part_event("response.content_part.done", &whole, encoder, out);
        if !self.parts.is_empty() {
            self.parts.extend_from_slice(b",");
        }
        whole.write(&mut self.parts);
        self.part += 1;
        self.characters = 0;
        self.cited = 0;
    }

    pub(super) fn finish(
        mut self,
        status: &str,
        encoder: &mut Encoder,
        out: &mut BytesMut,
    ) -> Result<(), StreamError> {
        self.end_part(encoder, out);
        if !self.added {
            return Ok(());
        }
        encoder.item_done(out, |out| {
            let mut item = Object::begin(out);
            item.str("type", "message").str("id", &self.id).str("status", status).str("role", "assistant");
            let list = item.key("content");
            list.extend_from_slice(b"[");
            list.extend_from_slice(&self.parts);
            list.extend_from_slice(b"]");
            item.end();
        })
    }

    fn part_event(&self, name: &str, part: &Part<'_>, encoder: &mut Encoder, out: &mut BytesMut) {
        let place = encoder.place;
        encoder.tell(name, out, |event| {
            event.str("item_id", &self.id).u64("output_index", place).u64("content_index", self.part);
            part.write(event.key("part"));
        });
    }
}

impl Reasoning {
    pub(super) fn new(id: String) -> Self {
        Self { id, begun: false, text: BytesMut::new(), signature: None }
    }

    pub(super) fn text(
        &mut self,
        text: &str,
        encoder: &mut Encoder,
        out: &mut BytesMut,
    ) -> Result<(), StreamError> {
        if text.is_empty() {
            return Ok(());
        }
        if !std::mem::replace(&mut self.begun, true) {
            self.added(encoder, out);
            self.part_event("response.reasoning_summary_part.added", b"", encoder, out);
        }
        let name = "response.reasoning_summary_text.delta";
        let escaped = encoder.piece(name, &self.id, Some(("summary_index", 0)), text, b"", out);
        self.text.extend_from_slice(&out[escaped]);
        limit(self.text.len())
    }

    pub(super) fn finish(
        self,
        with_signature: bool,
        encoder: &mut Encoder,
        out: &mut BytesMut,
    ) -> Result<(), StreamError> {
        let signature = self.signature.as_deref().filter(|text| with_signature && !text.is_empty());
        if self.begun {
            let (id, place, text) = (&self.id, encoder.place, &self.text);
            encoder.tell("response.reasoning_summary_text.done", out, |event| {
                event.str("item_id", id).u64("output_index", place).u64("summary_index", 0);
                write_escaped(event.key("text"), text);
            });
            self.part_event("response.reasoning_summary_part.done", &self.text, encoder, out);
        } else if signature.is_some() {
            self.added(encoder, out);
        } else {
            return Ok(());
        }
        encoder.item_done(out, |out| {
            let mut item = Object::begin(out);
            item.str("type", "reasoning").str("id", &self.id);
            let mut summary = item.array("summary");
            if self.begun {
                write_summary(summary.element(), &self.text);
            }
            summary.end();
            item.opt_str("encrypted_content", signature);
            item.end();
        })
    }

    fn added(&self, encoder: &mut Encoder, out: &mut BytesMut) {
        encoder.added(out, |item| {
            item.str("type", "reasoning").str("id", &self.id).raw("summary", "[]");
        });
    }

    fn part_event(&self, name: &str, text: &[u8], encoder: &mut Encoder, out: &mut BytesMut) {
        let place = encoder.place;
        encoder.tell(name, out, |event| {
            event.str("item_id", &self.id).u64("output_index", place).u64("summary_index", 0);
            write_summary(event.key("part"), text);
        });
    }
}

impl Call {
    /// Writes the members of the item.
    pub(super) fn write_head(&self, item: &mut Object<'_>, status: &str, said: &str) {
        item.str("type", if self.custom { "custom_tool_call" } else { "function_call" });
        item.str("id", &self.id).str("call_id", &self.call_id).str("name", &self.name);
        item.opt_str("namespace", self.namespace.as_deref());
        item.str(if self.custom { "input" } else { "arguments" }, said).str("status", status);
    }

    /// Whether its arguments are JSON. None at all may be what is left of some.
    pub(super) fn is_whole(&self) -> bool {
        !self.arguments.trim().is_empty() && arguments::is_complete(&self.arguments)
    }

    pub(super) fn piece(
        &mut self,
        text: &str,
        encoder: &mut Encoder,
        out: &mut BytesMut,
    ) -> Result<(), StreamError> {
        if text.is_empty() {
            return Ok(());
        }
        self.arguments.push_str(text);
        limit(self.arguments.len())?;
        // Free text is taken out of its arguments when they are whole.
        if !self.custom {
            encoder.piece("response.function_call_arguments.delta", &self.id, None, text, b"", out);
        }
        Ok(())
    }

    pub(super) fn finish(self, encoder: &mut Encoder, out: &mut BytesMut) -> Result<(), StreamError> {
        let (said, group) = if self.custom {
            (arguments::free_text(&self.arguments), "response.custom_tool_call_input")
        } else if self.arguments.trim().is_empty() {
            ("{}".into(), "response.function_call_arguments")
        } else {
            (self.arguments.as_str().into(), "response.function_call_arguments")
        };
        // What was not told in pieces is one.
        if self.custom || self.arguments.is_empty() {
            encoder.piece(&format!("{group}.delta"), &self.id, None, &said, b"", out);
        }
        let place = encoder.place;
        encoder.tell(&format!("{group}.done"), out, |event| {
            event.str("item_id", &self.id).u64("output_index", place);
            if self.custom {
                event.str("input", &said);
            } else {
                event.str("arguments", &said).str("name", &self.name);
            }
        });
        encoder.item_done(out, |out| {
            let mut item = Object::begin(out);
            self.write_head(&mut item, "completed", &said);
            item.end();
        })
    }
}

/// Writes a text that is escaped already.
fn write_escaped(out: &mut BytesMut, escaped: &[u8]) {
    out.extend_from_slice(b"\"");
    out.extend_from_slice(escaped);
    out.extend_from_slice(b"\"");
}

/// A part of a message; its lists are without their brackets.
struct Part<'a> {
    refusal: bool,
    text: &'a [u8],
    citations: &'a [u8],
    tokens: &'a [u8],
}

impl Part<'_> {
    fn write(&self, out: &mut BytesMut) {
        let mut part = Object::begin(out);
        if self.refusal {
            part.str("type", "refusal");
            write_escaped(part.key("refusal"), self.text);
        } else {
            part.str("type", "output_text");
            write_escaped(part.key("text"), self.text);
            write_bracketed(part.key("annotations"), self.citations);
            write_bracketed(part.key("logprobs"), self.tokens);
        }
        part.end();
    }
}

fn write_bracketed(out: &mut BytesMut, elements: &[u8]) {
    out.extend_from_slice(b"[");
    out.extend_from_slice(elements);
    out.extend_from_slice(b"]");
}

fn write_summary(out: &mut BytesMut, text: &[u8]) {
    let mut part = Object::begin(out);
    part.str("type", "summary_text");
    write_escaped(part.key("text"), text);
    part.end();
}

fn limit(bytes: usize) -> Result<(), StreamError> {
    if bytes > DEFAULT_FRAME_LIMIT {
        return Err(StreamError::Protocol("an item of the answer exceeds 16 MiB".to_owned()));
    }
    Ok(())
}
