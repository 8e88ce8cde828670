//! A client's stream.

use bytes::BytesMut;
use omniroute_wire::json_out::{self, Object};

use super::MESSAGE_STOP;
use crate::{
    Echo,
    anthropic::{
        error,
        response::{estimated_tokens, says_nothing, write_stop_details},
        search,
        wire::{self, stop_reason, write_input_usage, write_output_details},
    },
    ids::{answer_id, tool_call_id},
    ir::{Citation, FinishReason, Loss, LossAction, PublicError, Usage, WebSearch},
    shape,
    stream::{BlockHead, Delta, StreamEncoder, StreamError, StreamEvent, StreamLosses},
};

/// Writes a client's stream.
#[derive(Debug)]
pub(in crate::anthropic) struct Encoder {
    echo: Echo,
    /// The start that is not yet written: usage that follows at once belongs into it.
    start: Option<String>,
    index: u32,
    open: Option<OpenOut>,
    pinged: bool,
    usage: Usage,
    /// The tier, until it is told.
    tier: Option<String>,
    /// What the model, or the vendor, said instead of an answer, as far as it is an explanation.
    refusal: Option<String>,
    in_refusal: bool,
    /// Whether a piece of the explanation did not fit: what follows it is left out too, so that there is no hole.
    explained: bool,
    output_bytes: u64,
    losses: StreamLosses,
}

/// The longest explanation of a refusal that is told beside its text, in bytes.
const LONGEST_EXPLANATION: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OpenOut {
    /// A block whose start is written with its first piece, so that there are no empty ones.
    TextToCome,
    ThinkingToCome,
    /// Why there is no answer, which is said in its place at the end.
    Withheld,
    Text,
    Thinking {
        signed: bool,
    },
    Other,
}

impl Encoder {
    /// For an answer to this request.
    pub(in crate::anthropic) fn new(echo: Echo) -> Self {
        Self {
            echo,
            start: None,
            index: 0,
            open: None,
            pinged: false,
            usage: Usage::default(),
            tier: None,
            refusal: None,
            in_refusal: false,
            explained: false,
            output_bytes: 0,
            losses: StreamLosses::default(),
        }
    }
}

impl StreamEncoder for Encoder {
    fn event(&mut self, event: StreamEvent<'_>, out: &mut BytesMut) -> Result<(), StreamError> {
        match event {
            StreamEvent::Start { id, .. } => {
                self.start = Some(answer_id("msg_", &id, &self.echo.request_id));
            }
            StreamEvent::Usage(usage) => {
                self.usage.update(&usage);
                self.write_start(out);
            }
            StreamEvent::ServiceTier(tier) => {
                if tier == wire::FLEX {
                    self.losses.quiet_answer("service_tier", LossAction::Mapped);
                }
                self.tier = Some(tier.into_owned());
            }
            StreamEvent::BlockStart { index, block } => {
                self.write_start(out);
                self.block_start(index, &block, out);
            }
            StreamEvent::Delta { index, delta } => self.delta(index, &delta, out),
            StreamEvent::BlockStop { .. } => self.block_stop(out),
            StreamEvent::Finish { reason, stop_sequence } => {
                self.write_start(out);
                self.finish(reason, stop_sequence.as_deref(), out);
            }
            StreamEvent::Ping => out.extend_from_slice(wire::PING),
            // Whether the client sees an error is decided outside of the stream.
            StreamEvent::Error(_) => {}
        }
        Ok(())
    }

    fn fail(&mut self, error: &PublicError, out: &mut BytesMut) {
        out.extend_from_slice(&error::encode_in_stream(error));
    }

    fn take_losses(&mut self) -> Vec<Loss> {
        self.losses.take()
    }
}

impl Encoder {
    fn write_start(&mut self, out: &mut BytesMut) {
        let Some(id) = self.start.take() else { return };
        out.extend_from_slice(b"event: message_start\ndata: ");
        let mut object = Object::begin(out);
        object.str("type", "message_start");
        let mut message = object.object("message");
        message.str("id", &id).str("type", "message").str("role", "assistant");
        message.str("model", &self.echo.model).raw("content", "[]");
        message.raw("stop_reason", "null").raw("stop_sequence", "null");
        let mut usage = message.object("usage");
        usage.u64("input_tokens", self.usage.input_uncached.unwrap_or(self.echo.estimated_input_tokens));
        write_input_usage(&mut usage, &self.usage);
        usage.u64("output_tokens", self.usage.output_total.unwrap_or(1));
        wire::write_tier(&mut usage, self.tier.take().as_deref());
        usage.end();
        message.end();
        object.end();
        out.extend_from_slice(b"\n\n");
    }

    fn block_start(&mut self, index: u32, block: &BlockHead<'_>, out: &mut BytesMut) {
        self.open = Some(match block {
            BlockHead::Text => OpenOut::TextToCome,
            BlockHead::Refusal => {
                self.refusal.get_or_insert_default();
                self.in_refusal = true;
                if says_nothing(&self.usage) { OpenOut::Withheld } else { OpenOut::TextToCome }
            }
            BlockHead::Thinking { .. } => OpenOut::ThinkingToCome,
            BlockHead::WebSearch(search) => {
                self.search(search, out);
                OpenOut::Other
            }
            BlockHead::Image { .. } => {
                self.losses.block(index, "", LossAction::Dropped);
                self.write_block_start(out, |object| {
                    object.str("type", "text").str("text", "[image omitted]");
                });
                OpenOut::Text
            }
            BlockHead::RedactedThinking { data } => {
                self.write_block_start(out, |object| {
                    object.str("type", "redacted_thinking").str("data", data);
                });
                OpenOut::Other
            }
            BlockHead::ToolCall { id, name } => {
                self.output_bytes += name.len() as u64;
                self.write_block_start(out, |object| {
                    object.str("type", "tool_use").str("id", &tool_call_id(id));
                    object.str("name", name).raw("input", "{}");
                });
                OpenOut::Other
            }
        });
    }

    fn write_block_start(&mut self, out: &mut BytesMut, write: impl FnOnce(&mut Object<'_>)) {
        let mut block = BytesMut::with_capacity(128);
        let mut object = Object::begin(&mut block);
        write(&mut object);
        object.end();
        self.write_raw_block_start(&String::from_utf8_lossy(&block), out);
    }

    fn write_raw_block_start(&mut self, block: &str, out: &mut BytesMut) {
        out.extend_from_slice(
            b"event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":",
        );
        json_out::u64(out, u64::from(self.index));
        out.extend_from_slice(b",\"content_block\":");
        out.extend_from_slice(block.as_bytes());
        out.extend_from_slice(b"}\n\n");
        if !std::mem::replace(&mut self.pinged, true) {
            out.extend_from_slice(wire::PING);
        }
    }

    fn delta(&mut self, index: u32, delta: &Delta<'_>, out: &mut BytesMut) {
        let (kind, member, text): (_, _, &str) = match delta {
            Delta::Text(text) => ("text_delta", "text", text),
            Delta::Thinking(text) => ("thinking_delta", "thinking", text),
            Delta::Signature(text) => ("signature_delta", "signature", text),
            Delta::ToolArgs(text) => ("input_json_delta", "partial_json", text),
            Delta::Citation(citation) => {
                self.citation(index, citation, out);
                return;
            }
            // The dialect has none, and so no client of it asks for them.
            Delta::Logprobs(_) => return,
        };
        if text.is_empty() {
            return;
        }
        let is_signature = matches!(delta, Delta::Signature(_));
        if self.in_refusal
            && !self.explained
            && let Some(refusal) = &mut self.refusal
        {
            self.explained = refusal.len() + text.len() > LONGEST_EXPLANATION;
            if !self.explained {
                refusal.push_str(text);
            }
        }
        match self.open {
            Some(OpenOut::Withheld) => return,
            Some(OpenOut::TextToCome) => {
                self.write_block_start(out, |object| {
                    object.str("type", "text").str("text", "");
                });
                self.open = Some(OpenOut::Text);
            }
            // Nobody but us can read it: the dialect has a block for that.
            Some(OpenOut::ThinkingToCome) if is_signature && shape::is_carrier(text) => {
                self.write_block_start(out, |object| {
                    object.str("type", "redacted_thinking").str("data", text);
                });
                self.open = Some(OpenOut::Other);
                return;
            }
            Some(OpenOut::ThinkingToCome) => {
                self.write_block_start(out, |object| {
                    object.str("type", "thinking").str("thinking", "").str("signature", "");
                });
                self.open = Some(OpenOut::Thinking { signed: is_signature });
            }
            Some(OpenOut::Thinking { signed }) => {
                self.open = Some(OpenOut::Thinking { signed: signed || is_signature });
            }
            Some(OpenOut::Text | OpenOut::Other) | None => {}
        }
        if !is_signature {
            self.output_bytes += text.len() as u64;
        }
        self.write_delta(kind, member, text, out);
    }

    /// Both blocks of a search; the second stays open.
    fn search(&mut self, search: &WebSearch, out: &mut BytesMut) {
        let [question, found] = search::client_blocks(search, &self.echo.request_id, self.index as usize);
        self.write_raw_block_start(&question, out);
        self.write_block_stop(out);
        self.write_raw_block_start(&found, out);
    }

    fn citation(&mut self, index: u32, citation: &Citation, out: &mut BytesMut) {
        // A source of no text has no place.
        let Some(citation) = search::citation_out(citation).filter(|_| self.open == Some(OpenOut::Text))
        else {
            self.losses.block(index, ".citations", LossAction::Dropped);
            return;
        };
        out.extend_from_slice(
            b"event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":",
        );
        json_out::u64(out, u64::from(self.index));
        out.extend_from_slice(b",\"delta\":{\"type\":\"citations_delta\",\"citation\":");
        out.extend_from_slice(citation.as_bytes());
        out.extend_from_slice(b"}}\n\n");
    }

    fn write_delta(&self, kind: &str, member: &str, text: &str, out: &mut BytesMut) {
        out.reserve(text.len() + 160);
        out.extend_from_slice(
            b"event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":",
        );
        json_out::u64(out, u64::from(self.index));
        out.extend_from_slice(b",\"delta\":{\"type\":\"");
        out.extend_from_slice(kind.as_bytes());
        out.extend_from_slice(b"\",\"");
        out.extend_from_slice(member.as_bytes());
        out.extend_from_slice(b"\":");
        json_out::string(out, text);
        out.extend_from_slice(b"}}\n\n");
    }

    fn block_stop(&mut self, out: &mut BytesMut) {
        self.in_refusal = false;
        match self.open.take() {
            None | Some(OpenOut::TextToCome | OpenOut::ThinkingToCome | OpenOut::Withheld) => return,
            // Clients of the dialect fail on a thinking block without a signature, so there is always one.
            Some(OpenOut::Thinking { signed: false }) => {
                self.write_delta("signature_delta", "signature", "", out);
            }
            Some(OpenOut::Text | OpenOut::Thinking { signed: true } | OpenOut::Other) => {}
        }
        self.write_block_stop(out);
    }

    fn write_block_stop(&mut self, out: &mut BytesMut) {
        out.extend_from_slice(
            b"event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":",
        );
        json_out::u64(out, u64::from(self.index));
        out.extend_from_slice(b"}\n\n");
        self.index += 1;
    }

    fn finish(&mut self, reason: FinishReason, stop_sequence: Option<&str>, out: &mut BytesMut) {
        out.extend_from_slice(b"event: message_delta\ndata: ");
        let mut object = Object::begin(out);
        object.str("type", "message_delta");
        let mut delta = object.object("delta");
        delta.str("stop_reason", stop_reason(reason)).str_or_null("stop_sequence", stop_sequence);
        if reason == FinishReason::ContentFilter {
            write_stop_details(&mut delta, self.refusal.as_deref().filter(|text| !text.is_empty()));
        }
        delta.end();
        let mut usage = object.object("usage");
        usage.opt_u64("input_tokens", self.usage.input_uncached);
        if self.usage.input_uncached.is_some() {
            write_input_usage(&mut usage, &self.usage);
        }
        let output = self.usage.output_total.unwrap_or_else(|| estimated_tokens(self.output_bytes));
        usage.u64("output_tokens", output);
        write_output_details(&mut usage, &self.usage);
        // One that was known too late for the start.
        wire::write_tier(&mut usage, self.tier.take().as_deref());
        usage.end();
        object.end();
        out.extend_from_slice(b"\n\n");
        out.extend_from_slice(MESSAGE_STOP);
    }
}
