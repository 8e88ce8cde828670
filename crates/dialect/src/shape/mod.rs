//! What lies between two dialects and belongs to neither: names of tools that one side refuses, stop sequences that it
//! does not know, signatures that a client must bring back although it has no slot for them.
//!
//! [`Shape::of`] looks at a request on its way to an upstream and says what has to be done to it and to the answer;
//! the answer's events then pass through [`Shape::event`], or a whole answer through [`Shape::response`].

mod carrier;
mod json_form;
mod names;
mod notes;
mod open;
mod stop;
mod strip;
mod think;

use std::borrow::Cow;

use carrier::Kind;
pub use carrier::Seal;
pub(crate) use carrier::{MARKS, has_carriers, is_bare_carrier, is_carrier};
use json_form::JsonForm;
use names::NameMap;
pub use notes::{Notes, forgotten, recall};
pub use open::open_carriers;
use stop::{Cut, StopCut};
pub use strip::strip_carriers;
use think::ThinkSplit;

use crate::{
    Caps, Dialect, DialectId, JsonAnswer,
    ir::{Block, BlockKind, ChatRequest, ChatResponse, FinishReason, Reader, Signature, ToolKind},
    stream::{BlockHead, Delta, EventSink, StreamError, StreamEvent},
};

/// What has to be done to an answer on its way from an upstream's dialect to a client's.
#[derive(Debug)]
pub struct Shape {
    /// What comes first, where anything has to be done at all.
    inlet: Option<Box<Inlet>>,
    names: NameMap,
    stop: Option<StopCut>,
    /// Who makes the signatures of the answer.
    origin: DialectId,
    reader: Reader,
    /// The key for carriers; `None` where the client's own slots take the signatures as they are, or where it has none.
    seal: Option<Seal>,
    /// Whether the upstream wants its reasoning back although it is not signed.
    returns_text: bool,
    /// Whether the upstream works on its own before it answers and may pause that.
    may_pause: bool,
    notes: Notes,
    open: Open,
    stopped: bool,
}

/// What makes of a model's answer what it was meant to be, before anybody else looks at it.
#[derive(Debug)]
struct Inlet {
    think: Option<ThinkSplit>,
    json: JsonForm,
}

/// The open block.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Open {
    Other,
    Text,
    Thinking { item: Option<String>, signed: bool, any: bool },
}

impl Shape {
    /// Looks at a request. The one to send is another only where something has to be changed in it.
    pub fn of<'a>(
        request: &'a ChatRequest,
        client: &dyn Dialect,
        upstream: &dyn Dialect,
        caps: &Caps,
        seal: Option<&Seal>,
    ) -> (Cow<'a, ChatRequest>, Self) {
        let json = upstream.json_answer(request, caps);
        let think = caps.inline_thinking.then(ThinkSplit::default);
        let has_inlet = think.is_some() || json != JsonAnswer::AsIs;
        let names = NameMap::of(request, upstream.tool_names());
        let mut request = Cow::Borrowed(request);
        if !names.is_empty() {
            names.apply(request.to_mut());
        }
        let too_many = upstream.max_stop_sequences().is_some_and(|most| request.stop.len() > most);
        let takes_native = client.signs_as().is_none_or(|slots| slots == upstream.id());
        let shape = Self {
            inlet: has_inlet.then(|| Box::new(Inlet { think, json: JsonForm::new(json) })),
            stop: too_many.then(|| StopCut::new(&request.stop)),
            origin: upstream.id(),
            reader: request.reader.clone(),
            seal: seal.filter(|_| !takes_native).cloned(),
            returns_text: upstream.wants_reasoning_text(),
            may_pause: client.id() != upstream.id()
                && request.tools.iter().any(|tool| matches!(tool.kind, ToolKind::WebSearch(_))),
            notes: Notes::default(),
            open: Open::Other,
            stopped: false,
            names,
        };
        (request, shape)
    }

    /// For answers that nothing has to be done to but to be noted.
    pub fn none(upstream: &dyn Dialect) -> Self {
        Self::of(&ChatRequest::default(), upstream, upstream, &Caps::permissive(), None).1
    }

    /// Whether the upstream works on its own before it answers and may pause that, which the client cannot be told.
    pub(crate) const fn may_pause(&self) -> bool {
        self.may_pause
    }

    /// Passes an event on, changed where it has to be.
    pub fn event(&mut self, event: StreamEvent<'_>, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        let Some(mut inlet) = self.inlet.take() else { return self.shaped(event, sink) };
        let Inlet { think, json } = &mut *inlet;
        let mut behind = Behind { json, shape: self, sink };
        let passed = match think {
            Some(think) => think.event(event, &mut behind),
            None => behind.event(event),
        };
        self.inlet = Some(inlet);
        passed
    }

    fn shaped(&mut self, event: StreamEvent<'_>, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        if self.stopped {
            // Errors and late usage of an answer that the client has in full are of no interest to it.
            return Ok(());
        }
        match event {
            StreamEvent::BlockStart { index, block } => {
                let block = self.block_start(block);
                sink.event(StreamEvent::BlockStart { index, block })
            }
            StreamEvent::Delta { index, delta } => self.delta(index, delta, sink),
            StreamEvent::BlockStop { index } => self.block_stop(index, sink),
            other => sink.event(other),
        }
    }

    /// Changes a whole answer.
    pub fn response(&mut self, response: &mut ChatResponse) {
        if let Some(inlet) = &self.inlet {
            if inlet.think.is_some() {
                think::split(response, self.origin);
            }
            inlet.json.response(response);
        }
        let mut cut = None;
        for (at, block) in response.blocks.iter_mut().enumerate() {
            self.block(block);
            if let (BlockKind::Text(text), Some(stop)) = (&mut block.kind, &mut self.stop)
                && let Cut::Stopped { text: kept, sequence } = {
                    let found = stop.push(text);
                    stop.rest();
                    found
                }
            {
                *text = kept;
                cut = Some((at, sequence));
                break;
            }
        }
        if let Some((at, sequence)) = cut {
            response.blocks.truncate(at + 1);
            response.finish = Some(FinishReason::StopSequence);
            response.stop_sequence = Some(sequence);
        }
    }

    /// What should be kept of the answer for a client that does not bring it back.
    pub fn notes(&self) -> Option<&Notes> {
        self.notes.is_worth_keeping(self.returns_text).then_some(&self.notes)
    }

    fn block_start<'a>(&mut self, block: BlockHead<'a>) -> BlockHead<'a> {
        self.open = Open::Other;
        match block {
            BlockHead::Thinking { item } => {
                self.notes.thinking(self.origin, item.as_deref());
                let kept = item.as_deref().map(str::to_owned);
                self.open = Open::Thinking { item: kept, signed: false, any: false };
                BlockHead::Thinking { item }
            }
            BlockHead::RedactedThinking { data } => {
                let signature = self.signature(&data, None);
                let data = match &self.seal {
                    Some(seal) => Cow::Owned(seal.close(Kind::Redacted, self.origin, &signature)),
                    None => data,
                };
                self.notes.redacted(self.origin, signature);
                BlockHead::RedactedThinking { data }
            }
            BlockHead::ToolCall { id, name } => {
                let name =
                    if self.names.is_empty() { name } else { Cow::Owned(self.names.back(&name).to_owned()) };
                self.notes.call(&id, &name);
                BlockHead::ToolCall { id, name }
            }
            BlockHead::Text => {
                self.open = Open::Text;
                self.notes.text_block();
                BlockHead::Text
            }
            other => {
                self.notes.text_block();
                other
            }
        }
    }

    fn delta(&mut self, index: u32, delta: Delta<'_>, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        match (&mut self.open, delta) {
            (Open::Text, Delta::Text(text)) => {
                self.notes.text(&text);
                let Some(stop) = &mut self.stop else {
                    return sink.event(StreamEvent::Delta { index, delta: Delta::Text(text) });
                };
                match stop.push(&text) {
                    Cut::Passed(text) if text.is_empty() => Ok(()),
                    Cut::Passed(text) => {
                        sink.event(StreamEvent::Delta { index, delta: Delta::Text(text.into()) })
                    }
                    Cut::Stopped { text, sequence } => {
                        if !text.is_empty() {
                            sink.event(StreamEvent::Delta { index, delta: Delta::Text(text.into()) })?;
                        }
                        sink.event(StreamEvent::BlockStop { index })?;
                        self.stopped = true;
                        let stop_sequence = Some(sequence.into());
                        sink.event(StreamEvent::Finish { reason: FinishReason::StopSequence, stop_sequence })
                    }
                }
            }
            (Open::Thinking { any, .. }, Delta::Thinking(text)) => {
                *any = true;
                self.notes.thinking_text(&text);
                sink.event(StreamEvent::Delta { index, delta: Delta::Thinking(text) })
            }
            (Open::Thinking { item, signed, .. }, Delta::Signature(data)) => {
                *signed = true;
                let item = item.clone();
                let signature = self.signature(&data, item);
                let data = match &self.seal {
                    Some(seal) => Cow::Owned(seal.close(Kind::Signature, self.origin, &signature)),
                    None => data,
                };
                self.notes.signature(signature);
                sink.event(StreamEvent::Delta { index, delta: Delta::Signature(data) })
            }
            (_, delta) => {
                if let Delta::ToolArgs(json) = &delta {
                    self.notes.arguments(json);
                }
                sink.event(StreamEvent::Delta { index, delta })
            }
        }
    }

    fn block_stop(&mut self, index: u32, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        match std::mem::replace(&mut self.open, Open::Other) {
            Open::Text => {
                let rest = self.stop.as_mut().map(StopCut::rest).filter(|rest| !rest.is_empty());
                if let Some(rest) = rest {
                    sink.event(StreamEvent::Delta { index, delta: Delta::Text(rest.into()) })?;
                }
            }
            Open::Thinking { signed: false, any: true, .. } if self.returns_text => {
                if let Some(seal) = &self.seal {
                    let signature = self.signature("", None);
                    let data = seal.close(Kind::Text, self.origin, &signature);
                    sink.event(StreamEvent::Delta { index, delta: Delta::Signature(data.into()) })?;
                }
            }
            Open::Thinking { .. } | Open::Other => {}
        }
        sink.event(StreamEvent::BlockStop { index })
    }

    /// One block of a whole answer; its text is cut by the caller.
    fn block(&mut self, block: &mut Block) {
        match &mut block.kind {
            BlockKind::Thinking { text, signature, origin } => {
                self.notes.thinking(*origin, signature.as_ref().and_then(|one| one.item.as_deref()));
                self.notes.thinking_text(text);
                if let Some(given) = signature {
                    let full = self.signature(&given.data, given.item.take());
                    if let Some(seal) = &self.seal {
                        *given = seal.close(Kind::Signature, *origin, &full).into();
                    }
                    self.notes.signature(full);
                } else if self.returns_text && !text.is_empty() {
                    let empty = self.signature("", None);
                    *signature =
                        self.seal.as_ref().map(|seal| seal.close(Kind::Text, *origin, &empty).into());
                }
            }
            BlockKind::RedactedThinking { data, origin } => {
                let signature = self.signature(data, None);
                if let Some(seal) = &self.seal {
                    *data = seal.close(Kind::Redacted, *origin, &signature);
                }
                self.notes.redacted(*origin, signature);
            }
            BlockKind::ToolCall(call) => {
                if !self.names.is_empty() {
                    call.name = self.names.back(&call.name).to_owned();
                }
                self.notes.call(&call.id, &call.name);
                self.notes.arguments(&call.arguments);
            }
            BlockKind::Text(text) => {
                self.notes.text_block();
                self.notes.text(text);
            }
            _ => self.notes.text_block(),
        }
    }

    fn signature(&self, data: &str, item: Option<String>) -> Signature {
        let Reader { family, account } = self.reader.clone();
        Signature { data: data.to_owned(), item, family, account }
    }
}

/// What follows the splitting of thinking.
struct Behind<'a> {
    json: &'a mut JsonForm,
    shape: &'a mut Shape,
    sink: &'a mut dyn EventSink,
}

impl EventSink for Behind<'_> {
    fn event(&mut self, event: StreamEvent<'_>) -> Result<(), StreamError> {
        self.json.event(event, &mut Last { shape: self.shape, sink: self.sink })
    }
}

/// What follows everything in the inlet.
struct Last<'a> {
    shape: &'a mut Shape,
    sink: &'a mut dyn EventSink,
}

impl EventSink for Last<'_> {
    fn event(&mut self, event: StreamEvent<'_>) -> Result<(), StreamError> {
        self.shape.shaped(event, self.sink)
    }
}
