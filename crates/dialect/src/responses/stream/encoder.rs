//! Writing a client's events.
//!
//! Each item has its whole life told: added, its parts, their pieces, and all of it again when it is done. What was
//! done makes up the output of the last event.

use std::ops::Range;

use bytes::BytesMut;
use omniroute_wire::{
    json_out::{self, Object},
    sse::DEFAULT_FRAME_LIMIT,
};

use super::{
    super::{
        error,
        object::{ResponseObject, State},
        wire,
    },
    item::{Call, Message, Reasoning},
};
use crate::{
    Echo, ids,
    ir::{Citation, FinishReason, Loss, LossAction, PublicError, Usage, WebSearch},
    stream::{BlockHead, Delta, StreamEncoder, StreamError, StreamEvent, StreamLosses},
};

/// What stands where a picture was made, which the dialect has only as the work of a tool.
const NO_IMAGE: &str = "[image omitted]";

/// Writes the events of one answer.
#[derive(Debug)]
pub(in crate::responses) struct Encoder {
    echo: Echo,
    object: Option<ResponseObject>,
    sequence: u64,
    /// The place of the open item, or else of the next.
    pub(super) place: u64,
    open: Open,
    /// The items that are done, without the brackets of their list.
    done: BytesMut,
    usage: Usage,
    tier: Option<String>,
    written_bytes: u64,
    losses: StreamLosses,
}

#[derive(Debug, Default)]
enum Open {
    #[default]
    Nothing,
    Message(Message),
    Reasoning(Reasoning),
    Call(Call),
    /// A call that ended without whole arguments: if the answer was cut off there it is none.
    Broken(Call),
}

impl Encoder {
    pub(in crate::responses) fn new(echo: Echo) -> Self {
        Self {
            echo,
            object: None,
            sequence: 0,
            place: 0,
            open: Open::Nothing,
            done: BytesMut::new(),
            usage: Usage::default(),
            tier: None,
            written_bytes: 0,
            losses: StreamLosses::default(),
        }
    }

    /// The response object of an answer that was written as a whole.
    pub(in crate::responses) fn response(&self, finish: FinishReason) -> BytesMut {
        let mut out = BytesMut::new();
        if let Some(object) = &self.object {
            object.write(&mut out, &self.end_state(finish));
        }
        out
    }

    fn start(&mut self, id: &str, out: &mut BytesMut) {
        let object = ResponseObject::new(&self.echo, id);
        for name in ["response.created", "response.in_progress"] {
            self.tell(name, out, |event| object.write(event.key("response"), &State::BEGUN));
        }
        self.object = Some(object);
    }

    /// Writes an event with these members.
    pub(super) fn tell(&mut self, name: &str, out: &mut BytesMut, members: impl FnOnce(&mut Object<'_>)) {
        error::write_event(name, &mut self.sequence, out, members);
    }

    /// Writes an event that has a piece of text of this item. `index` names the part and tells its place, `rest` is
    /// what follows. Returns where the text stands in `out`, escaped.
    pub(super) fn piece(
        &mut self,
        name: &str,
        item: &str,
        index: Option<(&str, u64)>,
        text: &str,
        rest: &[u8],
        out: &mut BytesMut,
    ) -> Range<usize> {
        out.reserve(text.len() + 2 * name.len() + item.len() + 160);
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\ndata: {\"type\":\"");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\",\"sequence_number\":");
        json_out::u64(out, self.sequence);
        self.sequence += 1;
        out.extend_from_slice(b",\"item_id\":");
        json_out::string(out, item);
        out.extend_from_slice(b",\"output_index\":");
        json_out::u64(out, self.place);
        if let Some((name, at)) = index {
            out.extend_from_slice(b",\"");
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b"\":");
            json_out::u64(out, at);
        }
        out.extend_from_slice(b",\"delta\":\"");
        let start = out.len();
        json_out::escaped(out, text);
        let end = out.len();
        out.extend_from_slice(b"\"");
        out.extend_from_slice(rest);
        out.extend_from_slice(b"}\n\n");
        start..end
    }

    /// Tells that an item begins.
    pub(super) fn added(&mut self, out: &mut BytesMut, item: impl FnOnce(&mut Object<'_>)) {
        let place = self.place;
        self.tell("response.output_item.added", out, |event| {
            event.u64("output_index", place);
            let mut object = event.object("item");
            item(&mut object);
            object.end();
        });
    }

    /// Tells that an item is done, and keeps it for the last event.
    pub(super) fn item_done(
        &mut self,
        out: &mut BytesMut,
        item: impl FnOnce(&mut BytesMut),
    ) -> Result<(), StreamError> {
        if !self.done.is_empty() {
            self.done.extend_from_slice(b",");
        }
        let start = self.done.len();
        item(&mut self.done);
        if self.done.len() > DEFAULT_FRAME_LIMIT {
            return Err(StreamError::Protocol("the answer exceeds 16 MiB".to_owned()));
        }
        let (place, done) = (self.place, std::mem::take(&mut self.done));
        self.tell("response.output_item.done", out, |event| {
            event.u64("output_index", place);
            event.key("item").extend_from_slice(&done[start..]);
        });
        self.done = done;
        self.place += 1;
        Ok(())
    }

    /// An id for the item at the open place.
    pub(super) fn item_id(&self, prefix: &str) -> String {
        let answer = self.object.as_ref().map(|object| object.id.as_str()).unwrap_or_default();
        ids::item_id(prefix, answer, self.place)
    }

    fn block_start(
        &mut self,
        index: u32,
        block: BlockHead<'_>,
        out: &mut BytesMut,
    ) -> Result<(), StreamError> {
        match block {
            BlockHead::Text | BlockHead::Refusal => {
                let refusal = matches!(block, BlockHead::Refusal);
                if !matches!(self.open, Open::Message(_)) {
                    self.close(None, out)?;
                    self.open = Open::Message(Message::new(self.item_id("msg_")));
                }
                if let Open::Message(message) = &mut self.open {
                    message.begin_part(refusal);
                }
            }
            BlockHead::Thinking { item } => {
                self.close(None, out)?;
                let id = item.map_or_else(|| self.item_id("rs_"), |item| item.into_owned());
                self.open = Open::Reasoning(Reasoning::new(id));
            }
            BlockHead::RedactedThinking { data } => {
                self.close(None, out)?;
                let mut reasoning = Reasoning::new(self.item_id("rs_"));
                reasoning.signature = Some(data.into_owned());
                self.open = Open::Reasoning(reasoning);
            }
            BlockHead::ToolCall { id, name } => {
                self.close(None, out)?;
                self.written_bytes += name.len() as u64;
                let custom = self.echo.custom_tools.iter().any(|known| **known == *name);
                let (namespace, own) = match &self.object {
                    Some(object) => object.own_name(&name),
                    None => (None, &*name),
                };
                let call = Call {
                    index,
                    id: self.item_id(if custom { "ctc_" } else { "fc_" }),
                    call_id: ids::tool_call_id(&id).into_owned(),
                    name: own.to_owned(),
                    namespace: namespace.map(str::to_owned),
                    custom,
                    arguments: String::new(),
                };
                self.added(out, |item| call.write_head(item, "in_progress", ""));
                self.open = Open::Call(call);
            }
            BlockHead::WebSearch(search) => {
                self.close(None, out)?;
                self.web_search(&search, out)?;
            }
            BlockHead::Image { .. } => {
                self.losses.block(index, "", LossAction::Dropped);
                self.block_start(index, BlockHead::Text, out)?;
                self.delta(index, Delta::Text(NO_IMAGE.into()), out)?;
            }
        }
        Ok(())
    }

    fn delta(&mut self, index: u32, delta: Delta<'_>, out: &mut BytesMut) -> Result<(), StreamError> {
        let mut open = std::mem::take(&mut self.open);
        match (&mut open, &delta) {
            (Open::Message(message), Delta::Text(text)) => message.text(text, self, out)?,
            (Open::Message(message), Delta::Logprobs(tokens)) => message.tokens(tokens)?,
            (Open::Message(message), Delta::Citation(citation)) => {
                self.citation(index, message, citation, out);
            }
            (Open::Reasoning(reasoning), Delta::Thinking(text)) => reasoning.text(text, self, out)?,
            (Open::Reasoning(reasoning), Delta::Signature(text)) => {
                reasoning.signature = Some((**text).to_owned());
            }
            (Open::Call(call), Delta::ToolArgs(text)) => call.piece(text, self, out)?,
            _ => {}
        }
        self.open = open;
        if let Delta::Text(text) | Delta::Thinking(text) | Delta::ToolArgs(text) = delta {
            self.written_bytes += text.len() as u64;
        }
        Ok(())
    }

    fn citation(&mut self, index: u32, message: &mut Message, citation: &Citation, out: &mut BytesMut) {
        let Some((at, written)) = message.cite(citation) else {
            self.losses.block(index, ".citations", LossAction::Dropped);
            return;
        };
        let (place, part) = (self.place, message.part);
        let id = message.id.clone();
        self.tell("response.output_text.annotation.added", out, |event| {
            event.str("item_id", &id).u64("output_index", place).u64("content_index", part);
            event.u64("annotation_index", at);
            event.key("annotation").extend_from_slice(&written);
        });
    }

    fn web_search(&mut self, search: &WebSearch, out: &mut BytesMut) -> Result<(), StreamError> {
        let with_sources = self.object.as_ref().is_some_and(|object| object.gives_sources);
        let native = search.native.as_ref().filter(|native| native.origin == super::super::ID);
        let raw = native.and_then(|native| native.raw.first());
        let id = match raw {
            Some(_) if !search.id.is_empty() => search.id.clone(),
            _ => self.item_id("ws_"),
        };
        let write = |item: &mut Object<'_>, status: &str| {
            item.str("type", "web_search_call").str("id", &id).str("status", status);
            let mut action = item.object("action");
            action.str("type", "search").str("query", &search.queries.join("; "));
            let mut queries = action.array("queries");
            search.queries.iter().for_each(|query| {
                queries.str(query);
            });
            queries.end();
            if with_sources {
                let mut sources = action.array("sources");
                for result in &search.results {
                    let mut source = sources.object();
                    source.str("type", "url").str("url", &result.url);
                    source.end();
                }
                sources.end();
            }
            action.end();
        };
        self.added(out, |item| write(item, "in_progress"));
        let place = self.place;
        for step in ["in_progress", "searching", "completed"] {
            self.tell(&format!("response.web_search_call.{step}"), out, |event| {
                event.str("item_id", &id).u64("output_index", place);
            });
        }
        self.item_done(out, |out| match raw {
            Some(raw) => out.extend_from_slice(raw.get().as_bytes()),
            None => {
                let mut item = Object::begin(out);
                write(&mut item, "completed");
                item.end();
            }
        })
    }

    fn block_stop(&mut self, out: &mut BytesMut) -> Result<(), StreamError> {
        self.open = match std::mem::take(&mut self.open) {
            Open::Message(mut message) => {
                message.end_part(self, out);
                Open::Message(message)
            }
            Open::Call(call) if call.custom || call.is_whole() => {
                call.finish(self, out)?;
                Open::Nothing
            }
            Open::Call(call) => Open::Broken(call),
            open => open,
        };
        Ok(())
    }

    /// Ends the open item. `finish` tells why the answer ends, if it does.
    fn close(&mut self, finish: Option<FinishReason>, out: &mut BytesMut) -> Result<(), StreamError> {
        let status = finish.map_or("completed", |reason| wire::status(reason).0);
        match std::mem::take(&mut self.open) {
            Open::Nothing => Ok(()),
            Open::Message(message) => message.finish(status, self, out),
            Open::Reasoning(reasoning) => {
                let encrypted = self.object.as_ref().is_some_and(|object| object.gives_encrypted);
                reasoning.finish(encrypted, self, out)
            }
            // A client would run what is left of it.
            Open::Call(call) | Open::Broken(call) if finish.is_some_and(FinishReason::is_cut_off) => {
                self.losses.block(call.index, "", LossAction::Dropped);
                Ok(())
            }
            Open::Call(call) | Open::Broken(call) => call.finish(self, out),
        }
    }

    fn finish(&mut self, reason: FinishReason, out: &mut BytesMut) -> Result<(), StreamError> {
        if self.object.is_none() {
            self.start("", out);
        }
        self.close(Some(reason), out)?;
        if !self.usage.is_known() {
            self.usage.input_uncached = Some(self.echo.estimated_input_tokens);
            self.usage.output_total = Some(self.written_bytes.div_ceil(4));
        }
        let Some(object) = self.object.take() else { return Ok(()) };
        let name = match wire::status(reason) {
            ("completed", _) => "response.completed",
            _ => "response.incomplete",
        };
        let mut sequence = self.sequence;
        error::write_event(name, &mut sequence, out, |event| {
            object.write(event.key("response"), &self.end_state(reason));
        });
        self.sequence = sequence;
        self.object = Some(object);
        Ok(())
    }

    fn end_state(&self, reason: FinishReason) -> State<'_> {
        let (status, incomplete) = wire::status(reason);
        let tier = self.tier.as_deref();
        State { status, incomplete, error: None, output: &self.done, usage: Some(&self.usage), tier }
    }
}

impl StreamEncoder for Encoder {
    fn event(&mut self, event: StreamEvent<'_>, out: &mut BytesMut) -> Result<(), StreamError> {
        match event {
            StreamEvent::Start { id, .. } => self.start(&id, out),
            StreamEvent::BlockStart { index, block } => self.block_start(index, block, out)?,
            StreamEvent::Delta { index, delta } => self.delta(index, delta, out)?,
            StreamEvent::BlockStop { .. } => self.block_stop(out)?,
            StreamEvent::Usage(usage) => self.usage.update(&usage),
            StreamEvent::ServiceTier(tier) => self.tier = Some(tier.into_owned()),
            StreamEvent::Finish { reason, .. } => self.finish(reason, out)?,
            // Whether the client sees an error is decided outside of the stream.
            StreamEvent::Error(_) | StreamEvent::Ping => {}
        }
        Ok(())
    }

    fn fail(&mut self, error: &PublicError, out: &mut BytesMut) {
        match &self.object {
            Some(object) => error::write_failed(error, object, &self.done, self.sequence, out),
            None => out.extend_from_slice(&error::encode_stream(error)),
        }
    }

    fn take_losses(&mut self) -> Vec<Loss> {
        self.losses.take()
    }
}
