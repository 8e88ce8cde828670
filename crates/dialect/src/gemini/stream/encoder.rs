//! A client's stream.

use std::borrow::Cow;

use bytes::BytesMut;
use omniroute_wire::json_out::Object;
use omniroute_wire::sse::DEFAULT_FRAME_LIMIT;

use super::Frames;
use crate::{
    Echo, Framing, arguments,
    gemini::{
        grounding::{MAX_TEXT, Told},
        logprobs::{self, MAX_TOKENS},
        wire::{self, CallOut, PartOut, finish_word},
    },
    ids::answer_id,
    ir::{Citation, FinishReason, Logprob, Loss, LossAction, PublicError, Usage},
    stream::{BlockHead, Delta, StreamEncoder, StreamError, StreamEvent, StreamLosses},
};

/// Most sources of a block that wait for its end.
const MAX_CITATIONS: usize = 1024;

/// Writes a client's stream.
#[derive(Debug)]
pub(in crate::gemini) struct Encoder {
    echo: Echo,
    frames: Frames,
    /// What stands behind the candidates of every chunk: model and id.
    tail: Vec<u8>,
    block: Block,
    /// A signature that waits for the part it belongs to.
    signature: Option<String>,
    call: Option<Call>,
    usage: Usage,
    output_bytes: u64,
    told: Told,
    /// Bytes of text in the answer before the open block, and the text of that.
    said: usize,
    text: String,
    citations: Vec<Citation>,
    tokens: Vec<Logprob>,
    /// Whether the client wants a word instead of a JSON string: then text waits until it is whole.
    bare: bool,
    losses: StreamLosses,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    Nothing,
    Text,
    Thinking,
    Call,
}

/// A call that is not yet written: calls are written whole.
#[derive(Debug, Default)]
struct Call {
    index: u32,
    id: String,
    name: String,
    arguments: String,
}

impl Call {
    fn is_whole(&self) -> bool {
        !self.arguments.trim().is_empty() && arguments::is_complete(&self.arguments)
    }
}

impl Encoder {
    /// For an answer to this request.
    pub(in crate::gemini) fn new(echo: Echo) -> Self {
        Self {
            frames: Frames::new(echo.framing.unwrap_or(Framing::Sse)),
            bare: wire::wants_bare_word(&echo.request),
            echo,
            tail: Vec::new(),
            block: Block::Nothing,
            signature: None,
            call: None,
            usage: Usage::default(),
            output_bytes: 0,
            told: Told::default(),
            said: 0,
            text: String::new(),
            citations: Vec::new(),
            tokens: Vec::new(),
            losses: StreamLosses::default(),
        }
    }
}

impl StreamEncoder for Encoder {
    fn event(&mut self, event: StreamEvent<'_>, out: &mut BytesMut) -> Result<(), StreamError> {
        match event {
            StreamEvent::Start { id, .. } => self.start(&id),
            StreamEvent::Usage(usage) => self.usage.update(&usage),
            StreamEvent::BlockStart { index, block } => self.block_start(index, &block, out),
            StreamEvent::Delta { index, delta } => self.delta(index, &delta, out)?,
            StreamEvent::BlockStop { index } => self.block_stop(index, out),
            StreamEvent::Finish { reason, .. } => self.finish(reason, out),
            // Tiers are not told. Whether the client sees an error is decided outside of the stream.
            StreamEvent::ServiceTier(_) | StreamEvent::Ping | StreamEvent::Error(_) => {}
        }
        Ok(())
    }

    fn fail(&mut self, error: &PublicError, out: &mut BytesMut) {
        self.frames.error(out, error);
    }

    fn take_losses(&mut self) -> Vec<Loss> {
        self.losses.take()
    }
}

impl Encoder {
    fn start(&mut self, id: &str) {
        let mut tail = BytesMut::with_capacity(96);
        let mut object = Object::begin(&mut tail);
        object.str("modelVersion", &self.echo.model);
        object.str("responseId", &answer_id("", id, &self.echo.request_id));
        object.end();
        self.tail = tail.to_vec();
        if let Some(brace) = self.tail.first_mut() {
            *brace = b',';
        }
    }

    /// Writes a chunk with one part.
    fn part(&mut self, part: &PartOut<'_>, out: &mut BytesMut) {
        self.frames.begin(out);
        out.extend_from_slice(b"{\"candidates\":[{\"content\":{\"parts\":[");
        part.write(out);
        out.extend_from_slice(b"],\"role\":\"model\"},\"index\":0}]");
        out.extend_from_slice(&self.tail);
        self.frames.end(out);
    }

    fn block_start(&mut self, index: u32, block: &BlockHead<'_>, out: &mut BytesMut) {
        // A call whose end is missing is all that there is of it.
        self.write_call(out);
        self.block = match block {
            BlockHead::Text | BlockHead::Refusal => Block::Text,
            BlockHead::Thinking { .. } => Block::Thinking,
            BlockHead::RedactedThinking { data } => {
                self.sign(data, out);
                Block::Nothing
            }
            BlockHead::ToolCall { id, name } => {
                self.output_bytes += name.len() as u64;
                self.call = Some(Call {
                    index,
                    id: id.as_ref().to_owned(),
                    name: name.as_ref().to_owned(),
                    arguments: String::new(),
                });
                Block::Call
            }
            BlockHead::WebSearch(search) => {
                self.told.search(search);
                Block::Nothing
            }
            BlockHead::Image { media_type, data } => {
                self.flush_signature(out);
                let media_type = Cow::Borrowed(&**media_type);
                self.part(&PartOut::Blob { media_type, data, resolution: None }, out);
                Block::Nothing
            }
        };
    }

    fn delta(&mut self, index: u32, delta: &Delta<'_>, out: &mut BytesMut) -> Result<(), StreamError> {
        match (self.block, delta) {
            (Block::Text, Delta::Text(text)) if !text.is_empty() => {
                self.output_bytes += text.len() as u64;
                if self.text.len() + text.len() <= MAX_TEXT {
                    self.text.push_str(text);
                    if self.bare {
                        return Ok(());
                    }
                }
                let signature = self.signature.take();
                let signature = signature.as_deref().map(Cow::Borrowed);
                self.part(&PartOut::Text { text: Cow::Borrowed(text), signature }, out);
            }
            (Block::Text, Delta::Citation(citation)) if self.citations.len() < MAX_CITATIONS => {
                self.citations.push(citation.clone().into_owned());
            }
            (_, Delta::Citation(_)) => self.losses.block(index, ".citations", LossAction::Dropped),
            (Block::Text, Delta::Logprobs(tokens)) => {
                let room = MAX_TOKENS.saturating_sub(self.tokens.len());
                self.tokens.extend(tokens.iter().take(room).cloned());
            }
            (Block::Thinking, Delta::Thinking(text)) if !text.is_empty() => {
                self.output_bytes += text.len() as u64;
                self.part(&PartOut::Thought { text }, out);
            }
            (Block::Thinking, Delta::Signature(text)) => self.sign(text, out),
            (Block::Call, Delta::ToolArgs(text)) => {
                self.output_bytes += text.len() as u64;
                if let Some(call) = &mut self.call {
                    if call.arguments.len() + text.len() > DEFAULT_FRAME_LIMIT {
                        return Err(StreamError::FrameTooLarge { limit: DEFAULT_FRAME_LIMIT });
                    }
                    call.arguments.push_str(text);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn block_stop(&mut self, index: u32, out: &mut BytesMut) {
        match std::mem::replace(&mut self.block, Block::Nothing) {
            Block::Text => {
                if self.bare && !self.text.is_empty() {
                    let text = std::mem::take(&mut self.text);
                    let signature = self.signature.take().map(Cow::Owned);
                    self.part(&PartOut::Text { text: wire::bare_word(&text), signature }, out);
                }
                for citation in std::mem::take(&mut self.citations) {
                    if !self.told.citation(&citation, self.said, &self.text) {
                        self.losses.block(index, ".citations", LossAction::Dropped);
                    }
                }
                self.said += self.text.len();
                self.text.clear();
            }
            // One that broke off, or has no arguments yet, is only written if the answer goes on: it may have met the
            // output limit.
            Block::Call if self.call.as_ref().is_some_and(Call::is_whole) => self.write_call(out),
            Block::Call | Block::Thinking | Block::Nothing => {}
        }
    }

    fn write_call(&mut self, out: &mut BytesMut) {
        let Some(call) = self.call.take() else { return };
        let signature = self.signature.take();
        let args = arguments::object(&call.arguments);
        if args.changed {
            self.losses.quiet_block(call.index, ".args", LossAction::Mapped);
        }
        let part = PartOut::Call(CallOut {
            id: Some(Cow::Borrowed(&call.id)),
            name: &call.name,
            args: args.object,
            signature: signature.as_deref().map(Cow::Borrowed),
        });
        self.part(&part, out);
    }

    /// Keeps a signature for the part that follows.
    fn sign(&mut self, signature: &str, out: &mut BytesMut) {
        if signature.is_empty() {
            return;
        }
        self.flush_signature(out);
        self.signature = Some(signature.to_owned());
    }

    fn flush_signature(&mut self, out: &mut BytesMut) {
        if let Some(signature) = self.signature.take() {
            self.part(&PartOut::bare_signature(Cow::Owned(signature)), out);
        }
    }

    fn finish(&mut self, reason: FinishReason, out: &mut BytesMut) {
        if reason.is_cut_off()
            && let Some(call) = self.call.take()
        {
            self.losses.block(call.index, "", LossAction::Dropped);
        }
        self.write_call(out);
        let signature = self.signature.take();
        let last =
            PartOut::Text { text: Cow::Borrowed(""), signature: signature.as_deref().map(Cow::Borrowed) };
        self.frames.begin(out);
        let mut chunk = Object::begin(out);
        let mut candidates = chunk.array("candidates");
        let mut candidate = candidates.object();
        let mut content = candidate.object("content");
        wire::write_parts(content.array("parts"), &[last]);
        content.str("role", "model");
        content.end();
        candidate.str("finishReason", finish_word(reason)).u64("index", 0);
        self.told.write(&mut candidate);
        logprobs::write(&mut candidate, &self.tokens);
        candidate.end();
        candidates.end();
        let (input, output) = (self.echo.estimated_input_tokens, self.output_bytes.div_ceil(4));
        wire::write_usage(chunk.key("usageMetadata"), &self.usage, input, output);
        // The object is left open: the tail closes it.
        out.extend_from_slice(&self.tail);
        self.frames.end(out);
        self.frames.close(out);
    }
}
