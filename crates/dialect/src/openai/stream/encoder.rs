//! Writing the events of an answer as chunks.

use bytes::BytesMut;
use omniroute_wire::{
    json_out::{self, Array, Object},
    sse::DEFAULT_FRAME_LIMIT,
};

use super::super::{annotations::Annotations, error, wire};
use crate::{
    Echo, arguments, ids,
    ir::{Citation, FinishReason, Loss, LossAction, PublicError, Usage},
    logprobs, media, shape,
    stream::{BlockHead, Delta, StreamEncoder, StreamError, StreamEvent, StreamLosses},
};

/// Writes the chunks of one answer.
#[derive(Debug)]
pub(in crate::openai) struct Encoder {
    echo: Echo,
    id: String,
    tier: Option<String>,
    /// Everything before the delta of a chunk.
    head: BytesMut,
    calls: u64,
    block: Block,
    arguments_seen: bool,
    /// Whether the last call ended without arguments: they are an empty object, unless the answer was cut off there.
    owes_arguments: bool,
    /// Thinking blocks with a signature, as the elements of a JSON list.
    signed: Vec<String>,
    thinking: String,
    signature: Option<String>,
    /// The last thinking block, if it was signed and nothing followed it yet.
    last: Option<(String, String)>,
    /// The arguments of a call whose tool takes free text, which is written when it is complete.
    free_text: String,
    annotations: Annotations,
    /// The log probabilities of the text that comes next, as the elements of a list.
    tokens: BytesMut,
    usage: Usage,
    written_bytes: u64,
    losses: StreamLosses,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    Nothing,
    Text,
    Refusal,
    Thinking,
    Call,
    /// A call whose tool takes free text.
    Custom,
    /// A further call for a client that only takes one.
    Hidden,
}

impl Encoder {
    pub(in crate::openai) fn new(echo: Echo) -> Self {
        Self {
            echo,
            id: String::new(),
            tier: None,
            head: BytesMut::new(),
            calls: 0,
            block: Block::Nothing,
            arguments_seen: false,
            owes_arguments: false,
            signed: Vec::new(),
            thinking: String::new(),
            signature: None,
            last: None,
            free_text: String::new(),
            annotations: Annotations::default(),
            tokens: BytesMut::new(),
            usage: Usage::default(),
            written_bytes: 0,
            losses: StreamLosses::default(),
        }
    }

    fn start(&mut self, id: &str, out: &mut BytesMut) {
        self.id = ids::answer_id("chatcmpl-", id, &self.echo.request_id);
        self.write_head();
        self.delta(out, |out| out.extend_from_slice(b"\"role\":\"assistant\",\"content\":\"\""));
    }

    fn write_head(&mut self) {
        self.head.clear();
        self.head.reserve(192);
        self.head.extend_from_slice(b"data: ");
        let mut object = Object::begin(&mut self.head);
        object.str("id", &self.id);
        object.str("object", "chat.completion.chunk").i64("created", self.echo.created);
        object.str("model", &self.echo.model).opt_str("service_tier", self.tier.as_deref());
        // The object is closed by whoever writes the rest of a chunk.
        object.key("choices");
    }

    /// Writes a chunk whose delta has these members.
    fn delta(&self, out: &mut BytesMut, members: impl FnOnce(&mut BytesMut)) {
        out.extend_from_slice(&self.head);
        out.extend_from_slice(b"[{\"index\":0,\"delta\":{");
        members(out);
        out.extend_from_slice(b"},\"finish_reason\":null}]");
        self.close(out);
    }

    fn close(&self, out: &mut BytesMut) {
        let rest: &[u8] = if self.echo.include_usage { b",\"usage\":null}\n\n" } else { b"}\n\n" };
        out.extend_from_slice(rest);
    }

    fn text_delta(&mut self, name: &str, text: &str, out: &mut BytesMut) {
        if text.is_empty() {
            return;
        }
        self.written_bytes += text.len() as u64;
        out.extend_from_slice(&self.head);
        out.extend_from_slice(b"[{\"index\":0,\"delta\":{\"");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
        json_out::string(out, text);
        out.extend_from_slice(b"}");
        self.rest(out);
    }

    /// Writes what stands behind the delta of a chunk of text.
    fn rest(&mut self, out: &mut BytesMut) {
        if !self.tokens.is_empty() {
            out.extend_from_slice(b",\"logprobs\":");
            wire::write_logprobs(out, &self.tokens);
            self.tokens.clear();
        }
        out.extend_from_slice(b",\"finish_reason\":null}]");
        self.close(out);
    }

    /// Writes log probabilities for which no text comes any more.
    fn flush_tokens(&mut self, out: &mut BytesMut) {
        if !self.tokens.is_empty() {
            out.extend_from_slice(&self.head);
            out.extend_from_slice(b"[{\"index\":0,\"delta\":{}");
            self.rest(out);
        }
    }

    /// A source that is not on the web has no place here.
    fn citation(&mut self, index: u32, citation: &Citation) {
        if !self.annotations.add(citation) {
            self.losses.block(index, ".citations", LossAction::Dropped);
        }
    }

    fn call_start(&mut self, id: &str, name: &str, out: &mut BytesMut) {
        let signature = self.signature_for_call();
        if self.echo.legacy {
            if self.calls > 0 {
                self.block = Block::Hidden;
                self.losses.answer("tool_calls", LossAction::Dropped);
                return;
            }
            self.delta(out, |out| {
                out.extend_from_slice(b"\"function_call\":");
                let mut function = Object::begin(out);
                function.str("name", name).str("arguments", "");
                function.end();
            });
        } else {
            let index = self.calls;
            let custom = self.echo.custom_tools.iter().any(|known| known == name);
            if custom {
                self.block = Block::Custom;
            }
            let (kind, text) = if custom { ("custom", "input") } else { ("function", "arguments") };
            self.delta(out, |out| {
                out.extend_from_slice(b"\"tool_calls\":");
                let mut calls = Array::begin(out);
                let mut call = calls.object();
                call.u64("index", index).str("id", &ids::tool_call_id(id)).str("type", kind);
                let mut tool = call.object(kind);
                tool.str("name", name).str(text, "");
                tool.end();
                if let Some(signature) = &signature {
                    wire::write_signature(&mut call, signature);
                }
                call.end();
                calls.end();
            });
        }
        self.calls += 1;
    }

    /// The signature that stands before a call goes with it. What else was thought stays where thinking is.
    fn signature_for_call(&mut self) -> Option<String> {
        let (thinking, signature) = self.last.take()?;
        let goes = !self.echo.legacy && goes_with_call(&thinking, &signature);
        if !goes || !thinking.is_empty() {
            self.signed.push(thinking_block(&thinking, &signature));
        }
        goes.then_some(signature)
    }

    /// Something other than a call follows the last thinking block.
    fn settle_thinking(&mut self) {
        if let Some((thinking, signature)) = self.last.take() {
            self.signed.push(thinking_block(&thinking, &signature));
        }
    }

    fn custom_input(&mut self, out: &mut BytesMut) {
        let held = std::mem::take(&mut self.free_text);
        let text = arguments::free_text(&held);
        if text.is_empty() {
            return;
        }
        self.written_bytes += text.len() as u64;
        let index = self.calls.saturating_sub(1);
        self.delta(out, |out| {
            out.extend_from_slice(b"\"tool_calls\":[{\"index\":");
            json_out::u64(out, index);
            out.extend_from_slice(b",\"custom\":{\"input\":");
            json_out::string(out, &text);
            out.extend_from_slice(b"}}]");
        });
    }

    fn arguments(&mut self, text: &str, out: &mut BytesMut) {
        if text.is_empty() {
            return;
        }
        self.arguments_seen = true;
        self.written_bytes += text.len() as u64;
        let index = self.calls.saturating_sub(1);
        let legacy = self.echo.legacy;
        self.delta(out, |out| {
            if legacy {
                out.extend_from_slice(b"\"function_call\":{\"arguments\":");
                json_out::string(out, text);
                out.extend_from_slice(b"}");
            } else {
                out.extend_from_slice(b"\"tool_calls\":[{\"index\":");
                json_out::u64(out, index);
                out.extend_from_slice(b",\"function\":{\"arguments\":");
                json_out::string(out, text);
                out.extend_from_slice(b"}}]");
            }
        });
    }

    fn block_stop(&mut self, out: &mut BytesMut) {
        match std::mem::replace(&mut self.block, Block::Nothing) {
            Block::Call => self.owes_arguments = !self.arguments_seen,
            Block::Custom => self.custom_input(out),
            Block::Text => {
                self.flush_tokens(out);
                self.annotations.end();
            }
            Block::Thinking => {
                let thinking = std::mem::take(&mut self.thinking);
                self.last = self.signature.take().map(|signature| (thinking, signature));
            }
            _ => {}
        }
    }

    /// Gives a call without arguments its empty object.
    fn settle_arguments(&mut self, out: &mut BytesMut) {
        if std::mem::take(&mut self.owes_arguments) {
            self.arguments("{}", out);
        }
    }

    fn finish(&mut self, reason: FinishReason, out: &mut BytesMut) {
        if !reason.is_cut_off() {
            self.settle_arguments(out);
        }
        self.settle_thinking();
        if !self.signed.is_empty() {
            let signed = std::mem::take(&mut self.signed);
            self.delta(out, |out| {
                out.extend_from_slice(b"\"thinking_blocks\":");
                let mut list = Array::begin(out);
                signed.iter().for_each(|block| {
                    list.raw(block);
                });
                list.end();
            });
        }
        if !self.annotations.is_empty() {
            let annotations = std::mem::take(&mut self.annotations);
            self.delta(out, |out| {
                out.extend_from_slice(b"\"annotations\":");
                annotations.write(out);
            });
        }
        out.extend_from_slice(&self.head);
        out.extend_from_slice(b"[{\"index\":0,\"delta\":{},\"finish_reason\":");
        json_out::string(out, wire::finish_word(reason, self.echo.legacy));
        out.extend_from_slice(b"}]");
        self.close(out);
        if self.echo.include_usage {
            out.extend_from_slice(&self.head);
            out.extend_from_slice(b"[],\"usage\":");
            let usage = wire::known_or_estimated(self.usage, &self.echo, self.written_bytes);
            wire::write_usage(out, &usage);
            out.extend_from_slice(b"}\n\n");
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }
}

impl StreamEncoder for Encoder {
    fn event(&mut self, event: StreamEvent<'_>, out: &mut BytesMut) -> Result<(), StreamError> {
        match event {
            StreamEvent::Start { id, .. } => self.start(&id, out),
            StreamEvent::BlockStart { index, block } => {
                self.settle_arguments(out);
                self.arguments_seen = false;
                if !matches!(block, BlockHead::ToolCall { .. }) {
                    self.settle_thinking();
                }
                match block {
                    BlockHead::Text => {
                        if self.calls > 0 {
                            // There is one text, and it stands before the calls.
                            self.losses.quiet_block(index, "", LossAction::Mapped);
                        }
                        self.annotations.begin();
                        self.block = Block::Text;
                    }
                    BlockHead::Refusal => self.block = Block::Refusal,
                    BlockHead::Thinking { .. } => self.block = Block::Thinking,
                    // What was found is told by the citations of the text.
                    BlockHead::WebSearch(_) => {
                        self.losses.quiet_block(index, "", LossAction::Dropped);
                        self.block = Block::Nothing;
                    }
                    BlockHead::Image { media_type, data } => {
                        self.block = Block::Nothing;
                        self.losses.block(index, "", LossAction::Mapped);
                        let picture = media::as_markdown(&media_type, &data);
                        self.annotations.text(&picture);
                        self.text_delta("content", &picture, out);
                    }
                    BlockHead::RedactedThinking { data } => {
                        self.block = Block::Nothing;
                        self.signed.push(redacted_block(&data));
                    }
                    BlockHead::ToolCall { id, name } => {
                        self.block = Block::Call;
                        self.call_start(&id, &name, out);
                    }
                }
            }
            StreamEvent::Delta { index, delta } => match (self.block, delta) {
                (Block::Text, Delta::Text(text)) => {
                    self.annotations.text(&text);
                    self.text_delta("content", &text, out);
                }
                (Block::Text, Delta::Logprobs(tokens)) => logprobs::hold(&mut self.tokens, &tokens)?,
                (Block::Text, Delta::Citation(citation)) => self.citation(index, &citation),
                (Block::Refusal, Delta::Text(text)) => self.text_delta("refusal", &text, out),
                (Block::Thinking, Delta::Thinking(text)) => {
                    self.thinking.push_str(&text);
                    self.text_delta("reasoning_content", &text, out);
                }
                (Block::Thinking, Delta::Signature(text)) => self.signature = Some(text.into_owned()),
                (Block::Call, Delta::ToolArgs(text)) => self.arguments(&text, out),
                (Block::Custom, Delta::ToolArgs(text)) => {
                    if self.free_text.len() + text.len() > DEFAULT_FRAME_LIMIT {
                        return Err(StreamError::Protocol("the input of a tool exceeds 16 MiB".to_owned()));
                    }
                    self.free_text.push_str(&text);
                }
                _ => {}
            },
            StreamEvent::BlockStop { .. } => self.block_stop(out),
            StreamEvent::Usage(usage) => self.usage.update(&usage),
            // As OpenAI does, all chunks from here on tell it.
            StreamEvent::ServiceTier(tier) => {
                self.tier = Some(tier.into_owned());
                self.write_head();
            }
            StreamEvent::Finish { reason, .. } => self.finish(reason, out),
            StreamEvent::Error(_) | StreamEvent::Ping => {}
        }
        Ok(())
    }

    fn fail(&mut self, error: &PublicError, out: &mut BytesMut) {
        out.extend_from_slice(&error::encode_stream(error));
    }

    fn take_losses(&mut self) -> Vec<Loss> {
        self.losses.take()
    }
}

/// Whether the signature of a thinking block that stands before a call is written with the call: one that has no text
/// of its own (Google signs calls like this), and one that is wrapped, which clients that know nothing of thinking
/// blocks bring back from there.
pub(in crate::openai) fn goes_with_call(thinking: &str, signature: &str) -> bool {
    thinking.is_empty() || shape::is_carrier(signature)
}

/// A signed thinking block as JSON.
pub(in crate::openai) fn thinking_block(thinking: &str, signature: &str) -> String {
    let mut out = BytesMut::new();
    let mut object = Object::begin(&mut out);
    object.str("type", "thinking").str("thinking", thinking).str("signature", signature);
    object.end();
    String::from_utf8_lossy(&out).into_owned()
}

/// An opaque thinking block as JSON.
pub(in crate::openai) fn redacted_block(data: &str) -> String {
    let mut out = BytesMut::new();
    let mut object = Object::begin(&mut out);
    object.str("type", "redacted_thinking").str("data", data);
    object.end();
    String::from_utf8_lossy(&out).into_owned()
}
