//! Reading an upstream's events.
//!
//! Items are known by their place in the output: ids are empty or change at some servers. What an item says comes in
//! deltas, again as a whole when a part is done, again when the item is done and again at the end of the answer; at
//! some servers only in one of these places. So each whole is compared with what was passed on, and what is missing is
//! supplied.

use std::borrow::Cow;

use omniroute_wire::{envelope::as_str, sse::Frame};
use serde_json::value::RawValue;

use super::{
    super::wire::{self, text},
    event::Event,
    items::{Item, Kind, MAX_ITEMS, Piece, kind_of},
};
use crate::{
    arguments, error_text,
    ir::{FinishReason, Logprob, UpstreamError},
    json_in::{self, Fields, list_of, str_of},
    logprobs,
    service_tier::Told,
    stream::{BlockHead, EventSink, StreamDecoder, StreamError, StreamEvent, truncated},
};

/// Reads the events of one answer.
#[derive(Debug, Default)]
pub(in crate::responses) struct Decoder {
    pub(super) started: bool,
    pub(super) over: bool,
    pub(super) blocks: u32,
    pub(super) open: Open,
    pub(super) items: Vec<Item>,
    /// What came for other items while a call was being written.
    pub(super) held: Vec<(usize, Piece<'static>)>,
    pub(super) held_bytes: usize,
    /// The answer's id, for calls that have none.
    pub(super) id: String,
    /// Whether the answer was cut off: a call that is not whole then is none.
    pub(super) cut_off: bool,
    pub(super) called: bool,
    pub(super) refused: bool,
    tier: Told,
}

/// The open block.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Open {
    #[default]
    Nothing,
    Text {
        item: usize,
        part: u64,
        refusal: bool,
    },
    Thinking(usize),
    Call(usize),
}

impl StreamDecoder for Decoder {
    fn frame(&mut self, frame: Frame<'_>, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        let data = frame.data.trim_ascii();
        if self.over || data.first() != Some(&b'{') {
            return Ok(());
        }
        match Event::read(data, frame.event) {
            Ok(event) if event.is_error() => self.fail(wire::error(&String::from_utf8_lossy(data)), sink),
            Ok(event) => self.event(&event, sink),
            Err(_) => self.fail(error_text::malformed("a stream event is not valid JSON"), sink),
        }
    }

    fn finish(&mut self, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        if self.over { Ok(()) } else { self.fail(truncated(), sink) }
    }
}

impl Decoder {
    /// Reads a whole answer as the end of a stream that said nothing before.
    pub(in crate::responses) fn whole(
        &mut self,
        response: &str,
        sink: &mut dyn EventSink,
    ) -> Result<(), StreamError> {
        self.end(response, false, sink)
    }

    fn event(&mut self, event: &Event<'_>, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        let Some(kind) = event.kind.strip_prefix("response.") else { return Ok(()) };
        match kind {
            "created" | "in_progress" | "queued" => self.start(event.response, sink),
            "completed" | "incomplete" | "done" | "failed" | "cancelled" => {
                let Some(response) = event.response else {
                    return self.fail(error_text::malformed("the last event has no `response`"), sink);
                };
                self.end(response, matches!(kind, "failed" | "cancelled"), sink)
            }
            "output_item.added" | "output_item.done" => {
                self.start(None, sink)?;
                let fields = event.item.and_then(|raw| Fields::lenient(raw, "").ok());
                let (Some(raw), Some(fields)) = (event.item, fields) else { return Ok(()) };
                let at = self.item_of(event, Some(&fields))?;
                if kind == "output_item.done" {
                    self.item_done(at, raw, &fields, sink)
                } else {
                    self.item_added(at, &fields, sink)
                }
            }
            _ => self.piece_of_item(kind, event, sink),
        }
    }

    fn piece_of_item(
        &mut self,
        kind: &str,
        event: &Event<'_>,
        sink: &mut dyn EventSink,
    ) -> Result<(), StreamError> {
        let said = match kind {
            "output_text.delta" | "refusal.delta" => event.delta,
            "output_text.done" | "refusal.done" => event.whole,
            "reasoning_summary_text.delta" | "reasoning_text.delta" => event.delta,
            "function_call_arguments.delta" | "custom_tool_call_input.delta" => event.delta,
            "function_call_arguments.done" | "custom_tool_call_input.done" => event.whole,
            "output_text.annotation.added" => event.annotation,
            // Parts begin and end with their texts; what searches and the like are doing is told by their items.
            _ => return Ok(()),
        };
        self.start(None, sink)?;
        let Some(said) = said else { return Ok(()) };
        let at = self.item_of(event, None)?;
        if kind == "output_text.annotation.added" {
            let raw: Option<&RawValue> = serde_json::from_str(said).ok();
            return self.citation(at, event.part, raw, sink);
        }
        let said = as_str(said).unwrap_or_default();
        if let Some(tokens) = event.logprobs {
            let tokens = serde_json::from_str(tokens).map(logprobs::read).unwrap_or_default();
            match kind {
                "output_text.delta" if !said.is_empty() => self.tokens(at, event.part, tokens, sink)?,
                "output_text.done" => self.all_tokens(at, event.part, tokens, sink)?,
                _ => {}
            }
        }
        match kind {
            "output_text.delta" | "refusal.delta" => {
                self.text(at, event.part, kind.starts_with("refusal"), said, sink)
            }
            "output_text.done" | "refusal.done" => {
                self.whole_text(at, event.part, kind.starts_with("refusal"), &said, sink)
            }
            "reasoning_summary_text.delta" | "reasoning_text.delta" => {
                let is_summary = kind.starts_with("reasoning_summary");
                self.reasoning(at, event.part, is_summary, said, sink)
            }
            "function_call_arguments.delta" | "custom_tool_call_input.delta" => {
                self.arguments(at, said, sink)
            }
            _ => self.whole_arguments(at, &said, sink),
        }
    }

    fn start(&mut self, response: Option<&str>, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        if std::mem::replace(&mut self.started, true) {
            return Ok(());
        }
        let fields = response.and_then(|raw| Fields::lenient(raw, "").ok());
        let word = |name| fields.as_ref().and_then(|fields| text(fields, name)).unwrap_or_default();
        let (id, model) = (word("id"), word("model"));
        let tier = word("service_tier");
        self.id.push_str(&id);
        sink.event(StreamEvent::Start { id: Cow::Owned(id), model: Cow::Owned(model) })?;
        // That is what was asked for; which one it became is told at the end.
        if tier == "auto" { Ok(()) } else { self.tier.tell(&tier, sink) }
    }

    /// The item that an event is about. `given` is the item itself where the event has it.
    fn item_of(&mut self, event: &Event<'_>, given: Option<&Fields<'_>>) -> Result<usize, StreamError> {
        let id = event.item_id.and_then(as_str).or_else(|| given?.raw("id").and_then(str_of));
        let id = id.filter(|id| !id.is_empty()).unwrap_or_default();
        let call_id = given.and_then(|fields| text(fields, "call_id")).unwrap_or_default();
        let kind = given.map_or_else(|| Kind::of_event(&event.kind), kind_of);
        let differs = |known: &str, new: &str| !known.is_empty() && !new.is_empty() && known != new;
        let found = self.items.iter().rposition(|item| {
            let is_there = match event.output_index {
                Some(index) => item.index == index,
                None => id.is_empty() || item.id.is_empty() || item.id == *id,
            };
            // Some servers give all items one place.
            let is_another = differs(&item.call_id, &call_id) || (item.done && differs(&item.id, &id));
            is_there && item.kind == kind && !is_another
        });
        if let Some(at) = found {
            return Ok(at);
        }
        let index = event.output_index.unwrap_or(self.items.len() as u64);
        self.new_item(Item { index, kind, id: id.into_owned(), ..Item::default() })
    }

    fn new_item(&mut self, item: Item) -> Result<usize, StreamError> {
        if self.items.len() == MAX_ITEMS {
            return Err(StreamError::Protocol(format!("more than {MAX_ITEMS} items in one answer")));
        }
        self.items.push(item);
        Ok(self.items.len() - 1)
    }

    fn item_added(
        &mut self,
        at: usize,
        fields: &Fields<'_>,
        sink: &mut dyn EventSink,
    ) -> Result<(), StreamError> {
        self.items[at].learn(fields);
        if self.items[at].is_call() && !self.items[at].name.is_empty() {
            self.emit(at, Piece::Arguments(Cow::Borrowed("")), sink)?;
        }
        Ok(())
    }

    /// Supplies what an item says and was not passed on yet, and ends it.
    fn item_done(
        &mut self,
        at: usize,
        raw: &str,
        fields: &Fields<'_>,
        sink: &mut dyn EventSink,
    ) -> Result<(), StreamError> {
        self.items[at].learn(fields);
        if std::mem::replace(&mut self.items[at].done, true) {
            return Ok(());
        }
        match self.items[at].kind {
            Kind::Message => {
                let content = fields.raw("content").and_then(list_of).unwrap_or_default();
                for (part, raw) in (0..).zip(content) {
                    let Ok(fields) = Fields::lenient(raw.get(), "") else { continue };
                    let refusal = text(&fields, "refusal");
                    let whole = refusal.clone().or_else(|| text(&fields, "text")).unwrap_or_default();
                    if refusal.is_none() && !whole.is_empty() {
                        let tokens = fields.raw("logprobs").map(logprobs::read).unwrap_or_default();
                        self.all_tokens(at, part, tokens, sink)?;
                    }
                    self.whole_text(at, part, refusal.is_some(), &whole, sink)?;
                    let annotations = fields.raw("annotations").and_then(list_of).unwrap_or_default();
                    let known = self.items[at].progress(part).citations;
                    for raw in annotations.into_iter().skip(known) {
                        self.citation(at, part, Some(raw), sink)?;
                    }
                }
            }
            Kind::Reasoning => self.reasoning_done(at, fields, sink)?,
            Kind::Function | Kind::Custom => {
                let whole = match fields.raw("arguments").or_else(|| fields.raw("input")) {
                    // Some servers send the object itself.
                    Some(raw) => str_of(raw).map_or_else(|| json_in::compact(raw.get()), Into::into),
                    None => String::new(),
                };
                let cut_off = self.cut_off || text(fields, "status").as_deref() == Some("incomplete");
                let is_whole = self.items[at].kind == Kind::Custom || arguments::is_complete(&whole);
                if cut_off && !self.items[at].begun && !is_whole {
                    return Ok(());
                }
                self.whole_arguments(at, &whole, sink)?;
            }
            Kind::WebSearch => {
                if let Ok(raw) = serde_json::from_str::<&RawValue>(raw) {
                    let search = wire::web_search(raw, fields);
                    let block = BlockHead::WebSearch(Cow::Owned(search));
                    self.emit(at, Piece::Whole(Box::new(block)), sink)?;
                }
            }
            Kind::Image => {
                if let Some(data) = text(fields, "result").filter(|data| !data.is_empty()) {
                    let format = text(fields, "output_format").unwrap_or_else(|| "png".to_owned());
                    let block = BlockHead::Image {
                        media_type: Cow::Owned(format!("image/{format}")),
                        data: Cow::Owned(data),
                    };
                    self.emit(at, Piece::Whole(Box::new(block)), sink)?;
                }
            }
            Kind::Other => {}
        }
        self.emit(at, Piece::End, sink)
    }

    fn reasoning_done(
        &mut self,
        at: usize,
        fields: &Fields<'_>,
        sink: &mut dyn EventSink,
    ) -> Result<(), StreamError> {
        let texts = |name: &str| -> Vec<String> {
            let parts = fields.raw(name).and_then(list_of).unwrap_or_default();
            let read =
                |raw: &RawValue| Fields::lenient(raw.get(), "").ok().and_then(|part| text(&part, "text"));
            parts.into_iter().filter_map(read).filter(|text| !text.is_empty()).collect()
        };
        let summary = self.items[at].summary;
        let mut parts = if summary == Some(false) { Vec::new() } else { texts("summary") };
        if summary != Some(true) && parts.is_empty() {
            parts = texts("content");
        }
        let whole = parts.join("\n\n");
        if let Some(rest) = self.items[at].progress(0).missing(&whole).map(str::to_owned) {
            self.items[at].progress(0).note(&rest);
            self.emit(at, Piece::Thinking(Cow::Owned(rest)), sink)?;
        }
        let encrypted = text(fields, "encrypted_content").filter(|data| !data.is_empty());
        if let Some(data) = encrypted.filter(|_| !std::mem::replace(&mut self.items[at].signed, true)) {
            self.emit(at, Piece::Signature(Cow::Owned(data)), sink)?;
        }
        Ok(())
    }

    fn text(
        &mut self,
        at: usize,
        part: u64,
        refusal: bool,
        text: Cow<'_, str>,
        sink: &mut dyn EventSink,
    ) -> Result<(), StreamError> {
        if text.is_empty() {
            return Ok(());
        }
        self.refused |= refusal;
        self.items[at].progress(part).note(&text);
        self.emit(at, Piece::Text { part, refusal, text }, sink)
    }

    fn whole_text(
        &mut self,
        at: usize,
        part: u64,
        refusal: bool,
        whole: &str,
        sink: &mut dyn EventSink,
    ) -> Result<(), StreamError> {
        let rest = self.items[at].progress(part).missing(whole).unwrap_or_default();
        self.text(at, part, refusal, Cow::Borrowed(rest), sink)
    }

    fn tokens(
        &mut self,
        at: usize,
        part: u64,
        tokens: Vec<Logprob>,
        sink: &mut dyn EventSink,
    ) -> Result<(), StreamError> {
        if tokens.is_empty() {
            return Ok(());
        }
        self.items[at].progress(part).tokens += tokens.len();
        self.emit(at, Piece::Tokens { part, tokens }, sink)
    }

    /// Supplies the tokens that were not passed on yet. Where the text was, and they belong to none that comes, they
    /// are only told while it is open.
    fn all_tokens(
        &mut self,
        at: usize,
        part: u64,
        mut tokens: Vec<Logprob>,
        sink: &mut dyn EventSink,
    ) -> Result<(), StreamError> {
        let progress = self.items[at].progress(part);
        let known = progress.tokens.min(tokens.len());
        let begun = progress.bytes > 0;
        if begun && self.open != (Open::Text { item: at, part, refusal: false }) {
            return Ok(());
        }
        self.tokens(at, part, tokens.split_off(known), sink)
    }

    fn citation(
        &mut self,
        at: usize,
        part: u64,
        raw: Option<&RawValue>,
        sink: &mut dyn EventSink,
    ) -> Result<(), StreamError> {
        self.items[at].progress(part).citations += 1;
        match raw.and_then(wire::citation) {
            Some(citation) => self.emit(at, Piece::Citation { part, citation: Box::new(citation) }, sink),
            None => Ok(()),
        }
    }

    /// Text of reasoning. Its parts are shown as one, with a blank line between them.
    fn reasoning(
        &mut self,
        at: usize,
        part: u64,
        is_summary: bool,
        text: Cow<'_, str>,
        sink: &mut dyn EventSink,
    ) -> Result<(), StreamError> {
        let item = &mut self.items[at];
        if text.is_empty() || *item.summary.get_or_insert(is_summary) != is_summary {
            return Ok(());
        }
        let last = item.last_part.replace(part);
        let progress = item.progress(0);
        let text =
            if progress.bytes > 0 && last != Some(part) { Cow::Owned(format!("\n\n{text}")) } else { text };
        progress.note(&text);
        self.emit(at, Piece::Thinking(text), sink)
    }

    fn arguments(
        &mut self,
        at: usize,
        text: Cow<'_, str>,
        sink: &mut dyn EventSink,
    ) -> Result<(), StreamError> {
        let item = &mut self.items[at];
        if text.is_empty() || !item.is_call() {
            return Ok(());
        }
        item.progress(0).note(&text);
        if item.kind == Kind::Function {
            item.shape.read(&text);
        }
        self.emit(at, Piece::Arguments(text), sink)
    }

    fn whole_arguments(
        &mut self,
        at: usize,
        whole: &str,
        sink: &mut dyn EventSink,
    ) -> Result<(), StreamError> {
        let rest = self.items[at].progress(0).missing(whole).unwrap_or_default();
        self.arguments(at, Cow::Borrowed(rest), sink)
    }

    /// The last event: what was not said before is said now.
    fn end(&mut self, response: &str, has_failed: bool, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        let Ok(fields) = Fields::lenient(response, "") else {
            return self.fail(error_text::malformed("the answer is not an object"), sink);
        };
        let status = text(&fields, "status");
        if has_failed || matches!(status.as_deref(), Some("failed" | "cancelled")) {
            return self.fail(wire::failure(&fields), sink);
        }
        self.start(Some(response), sink)?;
        self.cut_off = wire::finish_reason(&fields, false, false) == FinishReason::Length;
        for (index, raw) in (0..).zip(fields.raw("output").and_then(list_of).unwrap_or_default()) {
            let Ok(item) = Fields::lenient(raw.get(), "") else { continue };
            let at = match self.find_again(index, &item) {
                Some(at) => at,
                None => self.new_item(Item { index, kind: kind_of(&item), ..Item::default() })?,
            };
            self.item_done(at, raw.get(), &item, sink)?;
        }
        self.close_all(sink)?;
        if self.over {
            return Ok(());
        }
        if let Some(tier) = text(&fields, "service_tier") {
            self.tier.tell(&tier, sink)?;
        }
        let usage = wire::usage(fields.raw("usage").map_or("{}", RawValue::get));
        if usage.is_known() {
            sink.event(StreamEvent::Usage(usage))?;
        }
        self.over = true;
        let reason = wire::finish_reason(&fields, self.called, self.refused);
        sink.event(StreamEvent::Finish { reason, stop_sequence: None })
    }

    /// The item that the last event has at this place.
    fn find_again(&self, index: u64, fields: &Fields<'_>) -> Option<usize> {
        let is = |known: &str, name: &str| {
            !known.is_empty() && fields.raw(name).and_then(str_of).is_some_and(|new| new == known)
        };
        let kind = kind_of(fields);
        let same = |item: &Item| item.kind == kind && (is(&item.id, "id") || is(&item.call_id, "call_id"));
        let there = |item: &Item| item.kind == kind && item.index == index;
        self.items.iter().rposition(same).or_else(|| self.items.iter().rposition(there))
    }

    /// Ends what the upstream left open.
    fn close_all(&mut self, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        if let Open::Call(at) = self.open {
            self.items[at].done = true;
        }
        for at in 0..self.items.len() {
            let item = &mut self.items[at];
            if std::mem::replace(&mut item.done, true) {
                continue;
            }
            let is_whole = item.kind != Kind::Function || item.shape.is_closed();
            if self.cut_off && item.is_call() && !item.begun && !is_whole {
                self.held.retain(|(held, _)| *held != at);
                continue;
            }
            self.emit(at, Piece::End, sink)?;
        }
        if let Open::Call(at) = self.open {
            self.emit(at, Piece::End, sink)?;
        }
        if self.held.iter().any(|(at, _)| self.items[*at].name.is_empty()) && !self.over {
            return self.fail(nameless_call(), sink);
        }
        self.close(sink)
    }

    pub(super) fn fail(&mut self, error: UpstreamError, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        if std::mem::replace(&mut self.over, true) {
            return Ok(());
        }
        sink.event(StreamEvent::Error(error))
    }
}

pub(super) fn nameless_call() -> UpstreamError {
    UpstreamError {
        status: Some(502),
        code: Some("invalid_tool_call".to_owned()),
        message: "the upstream sent a tool call without a name".to_owned(),
        ..UpstreamError::default()
    }
}
