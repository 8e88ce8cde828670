//! Tool calls of an upstream's stream, put together from fragments that may be mixed up.

use std::borrow::Cow;

use bytes::BytesMut;
use omniroute_wire::{envelope::as_u64, json_out};

use super::{
    super::wire::{Call, text_of},
    decoder::{Decoder, MAX_CALLS, Open},
};
use crate::{
    arguments::Shape,
    ids,
    stream::{BlockHead, Delta, EventSink, StreamError, StreamEvent},
};

/// A tool call that is being put together.
#[derive(Debug, Default)]
pub(super) struct PendingCall {
    pub(super) key: u64,
    pub(super) id: String,
    pub(super) name: String,
    /// Arguments that are not passed on yet.
    pub(super) held: String,
    /// What the vendor wants back with the call.
    pub(super) signature: String,
    /// Whether its tool takes free text: its input is made the arguments of a function, which are closed when another
    /// call begins, or at the end.
    pub(super) custom: bool,
    pub(super) shape: Shape,
    pub(super) begun: bool,
    pub(super) done: bool,
}

impl Decoder {
    pub(super) fn call(
        &mut self,
        position: usize,
        call: &Call<'_>,
        sink: &mut dyn EventSink,
    ) -> Result<(), StreamError> {
        let key = call.index.and_then(|raw| as_u64(raw.get())).unwrap_or(position as u64);
        let id = call.id.and_then(text_of).filter(|id| !id.is_empty());
        let known = self.calls.iter().rposition(|known| known.key == key).filter(|at| {
            let known = &self.calls[*at];
            id.as_ref().is_none_or(|id| known.id == **id || (known.id.is_empty() && !known.begun))
        });
        if known.is_none() {
            if self.calls.len() == MAX_CALLS {
                return Err(StreamError::Protocol(format!("more than {MAX_CALLS} tool calls in one answer")));
            }
            self.close_custom(sink)?;
            self.calls.push(PendingCall { key, ..PendingCall::default() });
        }
        let at = known.unwrap_or(self.calls.len() - 1);
        let pending = &mut self.calls[at];
        if let Some(id) = id.filter(|_| pending.id.is_empty() && !pending.begun) {
            pending.id.push_str(&id);
        }
        if let Some(signature) = call.signature().filter(|_| pending.signature.is_empty()) {
            pending.signature = signature;
        }
        let (name, arguments) = match (&call.function, &call.custom) {
            (_, Some(custom)) => {
                let input = custom.input.and_then(text_of).unwrap_or_default();
                (custom.name, Cow::Owned(pending.free_text(&input)))
            }
            (Some(function), None) => (function.name, function.arguments()),
            (None, None) => return Ok(()),
        };
        let name = name.and_then(text_of).unwrap_or_default();
        if !name.is_empty() && name != pending.name && (!pending.begun || pending.name.is_empty()) {
            pending.name.push_str(&name);
        }
        self.arguments(at, arguments, sink)
    }

    /// More arguments of a call.
    fn arguments(
        &mut self,
        at: usize,
        arguments: Cow<'_, str>,
        sink: &mut dyn EventSink,
    ) -> Result<(), StreamError> {
        let pending = &mut self.calls[at];
        if arguments.is_empty() || pending.done {
            return self.promote(sink);
        }
        pending.begun = true;
        let was_closed = pending.shape.is_closed();
        pending.shape.read(&arguments);
        if self.open != Open::Call(at) {
            pending.held.push_str(&arguments);
            self.hold(arguments.len())?;
        } else if !was_closed {
            sink.event(StreamEvent::Delta { index: self.blocks - 1, delta: Delta::ToolArgs(arguments) })?;
            if self.calls[at].shape.is_closed() && !self.later.is_empty() {
                self.close(sink)?;
            }
        }
        self.promote(sink)
    }

    /// No more input of the last call comes, if it is one of a tool that takes free text.
    pub(super) fn close_custom(&mut self, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        let Some(at) = self.calls.len().checked_sub(1) else { return Ok(()) };
        let call = &self.calls[at];
        if !call.custom || !call.begun || call.shape.is_closed() {
            return Ok(());
        }
        self.arguments(at, Cow::Borrowed("\"}"), sink)
    }

    /// Opens the next call in order when nothing is in its way.
    pub(super) fn promote(&mut self, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        loop {
            let Some(next) = self
                .calls
                .iter()
                .enumerate()
                .position(|(at, call)| !call.done && self.open != Open::Call(at))
            else {
                return Ok(());
            };
            if !self.calls[next].begun || self.calls[next].name.is_empty() {
                return Ok(());
            }
            if let Open::Call(at) = self.open
                && !self.calls[at].shape.is_closed()
            {
                return Ok(());
            }
            self.open_call(next, sink)?;
        }
    }

    pub(super) fn open_call(&mut self, at: usize, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        self.close(sink)?;
        let call = &mut self.calls[at];
        if call.id.is_empty() {
            call.id = ids::invented_call_id(&self.id, at, &call.name);
        }
        let (id, name, held) = (call.id.clone(), call.name.clone(), std::mem::take(&mut call.held));
        let signature = std::mem::take(&mut call.signature);
        // Some say it twice.
        if !signature.is_empty() && !self.signatures.contains(&signature) {
            self.open_block(Open::Thinking, BlockHead::Thinking { item: None }, sink)?;
            self.sign(signature, sink)?;
        }
        self.held_bytes = self.held_bytes.saturating_sub(held.len());
        let block = BlockHead::ToolCall { id: Cow::Owned(id), name: Cow::Owned(name) };
        self.open_block(Open::Call(at), block, sink)?;
        if held.is_empty() {
            return Ok(());
        }
        sink.event(StreamEvent::Delta { index: self.blocks - 1, delta: Delta::ToolArgs(Cow::Owned(held)) })
    }
}

impl PendingCall {
    /// A piece of the input of a tool that takes free text, as a piece of the arguments of a function.
    fn free_text(&mut self, input: &str) -> String {
        let lead = if std::mem::replace(&mut self.custom, true) { "" } else { "{\"input\":\"" };
        let mut out = BytesMut::with_capacity(input.len() + 16);
        out.extend_from_slice(lead.as_bytes());
        json_out::escaped(&mut out, input);
        String::from_utf8_lossy(&out).into_owned()
    }
}
