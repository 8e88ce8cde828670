//! Writing the events of an answer as lines.

use std::time::Duration;

use bytes::BytesMut;
use omniroute_wire::{
    json_out::{self, Object},
    ndjson::escape_line_ends,
    sse::DEFAULT_FRAME_LIMIT,
};

use super::super::{
    error,
    response::counts,
    wire::{self, Times, write_end, write_stamp},
};
use crate::{
    Echo, arguments,
    ir::{FinishReason, Loss, LossAction, PublicError, ToolCall, Usage},
    logprobs, media,
    stream::{BlockHead, Delta, StreamEncoder, StreamError, StreamEvent, StreamLosses},
};

/// Writes the lines of one answer.
#[derive(Debug)]
pub(in crate::ollama) struct Encoder {
    echo: Echo,
    /// Everything before the time stamp of a line.
    head: Vec<u8>,
    block: Block,
    /// The open call, and one that ended without whole arguments: what becomes of it is decided by what follows.
    call: Option<(u32, ToolCall)>,
    unfinished: Option<(u32, ToolCall)>,
    calls: u64,
    held_bytes: usize,
    written_bytes: u64,
    usage: Usage,
    /// The log probabilities of the text that comes next, as the elements of a list.
    tokens: BytesMut,
    now: Option<Duration>,
    first: Option<Duration>,
    losses: StreamLosses,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    Nothing,
    Text,
    Thinking,
}

impl Encoder {
    /// For an answer to this request.
    pub(in crate::ollama) fn new(echo: Echo) -> Self {
        let mut head = BytesMut::with_capacity(96);
        let mut object = Object::begin(&mut head);
        object.str("model", &echo.model);
        // The object is closed by whoever writes the rest of a line.
        object.key("created_at").extend_from_slice(b"\"");
        Self {
            echo,
            head: head.to_vec(),
            block: Block::Nothing,
            call: None,
            unfinished: None,
            calls: 0,
            held_bytes: 0,
            written_bytes: 0,
            usage: Usage::default(),
            tokens: BytesMut::new(),
            now: None,
            first: None,
            losses: StreamLosses::default(),
        }
    }

    fn begin(&self, out: &mut BytesMut) {
        out.extend_from_slice(&self.head);
        write_stamp(out, &self.echo, self.now.unwrap_or_default());
        out.extend_from_slice(match self.echo.legacy {
            true => b"\",\"response\":",
            false => b"\",\"message\":{\"role\":\"assistant\",\"content\":",
        });
    }

    /// Ends what [`Self::begin`] began.
    fn close(&self, out: &mut BytesMut) {
        out.extend_from_slice(if self.echo.legacy { b"," } else { b"}," });
    }

    fn text(&mut self, kind: Block, text: &str, out: &mut BytesMut) {
        if text.is_empty() {
            return;
        }
        self.note_first();
        self.written_bytes += text.len() as u64;
        self.begin(out);
        if kind == Block::Thinking {
            out.extend_from_slice(b"\"\",\"thinking\":");
        }
        json_out::string(out, text);
        self.close(out);
        self.write_tokens(out);
        out.extend_from_slice(b"\"done\":false}\n");
    }

    /// Writes the log probabilities that wait, and a comma behind them.
    fn write_tokens(&mut self, out: &mut BytesMut) {
        if !self.tokens.is_empty() {
            out.extend_from_slice(b"\"logprobs\":[");
            out.extend_from_slice(&self.tokens);
            out.extend_from_slice(b"],");
            self.tokens.clear();
        }
    }

    fn note_first(&mut self) {
        if self.first.is_none() {
            self.first = self.now;
        }
    }

    fn write_call(&mut self, index: u32, call: &ToolCall, out: &mut BytesMut) {
        if self.echo.legacy {
            self.losses.answer("tool_calls", LossAction::Dropped);
            return;
        }
        if arguments::object(&call.arguments).changed {
            self.losses.quiet_block(index, "", LossAction::Mapped);
        }
        self.written_bytes += (call.name.len() + call.arguments.len()) as u64;
        self.begin(out);
        out.extend_from_slice(b"\"\",\"tool_calls\":");
        wire::write_calls(out, self.calls, std::iter::once(call));
        self.calls += 1;
        out.extend_from_slice(b"},\"done\":false}\n");
    }

    fn arguments(&mut self, text: &str) -> Result<(), StreamError> {
        let Some((_, call)) = &mut self.call else { return Ok(()) };
        self.held_bytes += text.len();
        if self.held_bytes > DEFAULT_FRAME_LIMIT {
            return Err(StreamError::Protocol("the arguments of a tool call exceed 16 MiB".to_owned()));
        }
        call.arguments.push_str(text);
        Ok(())
    }

    fn block_stop(&mut self, out: &mut BytesMut) {
        self.block = Block::Nothing;
        let Some((index, call)) = self.call.take() else { return };
        self.held_bytes = self.held_bytes.saturating_sub(call.arguments.len());
        if !call.arguments.trim().is_empty() && arguments::is_complete(&call.arguments) {
            self.write_call(index, &call, out);
        } else {
            self.unfinished = Some((index, call));
        }
    }

    /// The answer goes on, so the last call was not cut off.
    fn settle_call(&mut self, out: &mut BytesMut) {
        if let Some((index, call)) = self.unfinished.take() {
            self.write_call(index, &call, out);
        }
    }

    fn finish(&mut self, reason: FinishReason, out: &mut BytesMut) {
        // A call that the output limit cut off would be run with half of its arguments.
        if let Some((index, _)) = self.unfinished.take_if(|_| reason.is_cut_off()) {
            self.losses.block(index, "", LossAction::Dropped);
        }
        self.settle_call(out);
        self.begin(out);
        out.extend_from_slice(b"\"\"");
        self.close(out);
        self.write_tokens(out);
        let mut end = BytesMut::with_capacity(192);
        let mut object = Object::begin(&mut end);
        let times = Times { asked: self.echo.asked_after, first: self.first, end: self.now, whole: false };
        let (prompt, output) = counts(&self.usage, &self.echo, self.written_bytes);
        write_end(&mut object, reason, &times, prompt, output);
        object.end();
        out.extend_from_slice(&end[1..]);
        out.extend_from_slice(b"\n");
    }
}

impl StreamEncoder for Encoder {
    fn event(&mut self, event: StreamEvent<'_>, out: &mut BytesMut) -> Result<(), StreamError> {
        let start = out.len();
        if matches!(event, StreamEvent::BlockStart { .. }) {
            self.settle_call(out);
        }
        match event {
            StreamEvent::BlockStart { index, block } => match block {
                BlockHead::Text | BlockHead::Refusal => {
                    if self.calls > 0 {
                        // There is one text, and it stands before the calls.
                        self.losses.quiet_block(index, "", LossAction::Mapped);
                    }
                    self.block = Block::Text;
                }
                BlockHead::Thinking { .. } => self.block = Block::Thinking,
                BlockHead::ToolCall { id, name } => {
                    self.note_first();
                    let (id, name) = (id.into_owned(), name.into_owned());
                    self.call = Some((index, ToolCall { id, name, arguments: String::new() }));
                }
                BlockHead::Image { media_type, data } => {
                    self.losses.block(index, "", LossAction::Mapped);
                    self.text(Block::Text, &media::as_markdown(&media_type, &data), out);
                }
                // The format has no place for them.
                BlockHead::RedactedThinking { .. } | BlockHead::WebSearch(_) => {
                    self.losses.quiet_block(index, "", LossAction::Dropped);
                    self.note_first();
                }
            },
            StreamEvent::Delta { index, delta } => match (self.block, delta) {
                (kind @ Block::Text, Delta::Text(text)) | (kind @ Block::Thinking, Delta::Thinking(text)) => {
                    self.text(kind, &text, out);
                }
                (Block::Text, Delta::Logprobs(tokens)) => logprobs::hold(&mut self.tokens, &tokens)?,
                (_, Delta::ToolArgs(text)) => self.arguments(&text)?,
                (_, Delta::Signature(_)) => self.losses.quiet_block(index, "", LossAction::Dropped),
                (_, Delta::Citation(_)) => {
                    self.losses.block(index, ".citations", LossAction::Dropped);
                }
                _ => {}
            },
            StreamEvent::BlockStop { .. } => self.block_stop(out),
            StreamEvent::Usage(usage) => self.usage.update(&usage),
            StreamEvent::Finish { reason, .. } => self.finish(reason, out),
            // There is no place for a tier. Whether the client sees an error is decided outside of the stream.
            StreamEvent::Start { .. }
            | StreamEvent::ServiceTier(_)
            | StreamEvent::Error(_)
            | StreamEvent::Ping => {}
        }
        escape_line_ends(out, start);
        Ok(())
    }

    fn fail(&mut self, error: &PublicError, out: &mut BytesMut) {
        out.extend_from_slice(&error::encode_in_stream(error));
    }

    fn take_losses(&mut self) -> Vec<Loss> {
        self.losses.take()
    }

    fn time_passed(&mut self, since_arrival: Duration) {
        self.now = Some(since_arrival);
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    fn echo() -> Echo {
        Echo {
            model: "asked".into(),
            created: 60,
            estimated_input_tokens: 9,
            asked_after: Some(Duration::from_millis(10)),
            ..Echo::default()
        }
    }

    fn text(text: &str) -> [StreamEvent<'_>; 3] {
        let delta = Delta::Text(Cow::Borrowed(text));
        [
            StreamEvent::BlockStart { index: 0, block: BlockHead::Text },
            StreamEvent::Delta { index: 0, delta },
            StreamEvent::BlockStop { index: 0 },
        ]
    }

    fn call<'a>(name: &'a str, pieces: &[&'a str]) -> Vec<StreamEvent<'a>> {
        let head = BlockHead::ToolCall { id: Cow::Borrowed("id.1"), name: Cow::Borrowed(name) };
        let mut events = vec![StreamEvent::BlockStart { index: 0, block: head }];
        events.extend(
            pieces
                .iter()
                .map(|piece| StreamEvent::Delta { index: 0, delta: Delta::ToolArgs(Cow::Borrowed(piece)) }),
        );
        events.push(StreamEvent::BlockStop { index: 0 });
        events
    }

    fn finish(reason: FinishReason) -> StreamEvent<'static> {
        StreamEvent::Finish { reason, stop_sequence: None }
    }

    fn written<'a>(events: impl IntoIterator<Item = StreamEvent<'a>>) -> String {
        let mut encoder = Encoder::new(echo());
        let mut out = BytesMut::new();
        for event in events {
            encoder.event(event, &mut out).unwrap();
        }
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn every_line_is_a_document_and_one_is_the_last() {
        let out = written(
            text("a\nb\u{2028}c").into_iter().chain(call("f", &[])).chain([finish(FinishReason::ToolUse)]),
        );
        let lines: Vec<serde_json::Value> =
            out.lines().map(|line| serde_json::from_str(line).expect("a document")).collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines.iter().filter(|line| line["done"] == true).count(), 1);
        assert_eq!(lines[0]["message"]["content"], "a\nb\u{2028}c");
        assert!(!out.contains('\u{2028}'), "Ollama's client for Python would end the line there");
        let call = &lines[1]["message"]["tool_calls"][0];
        assert_eq!(call["function"]["arguments"], serde_json::json!({}));
        assert_eq!(lines[2]["done_reason"], "stop");
        assert!(out.ends_with('\n') && !out.contains("\n\n"));
    }

    #[test]
    fn calls_are_whole_and_half_ones_of_a_cut_answer_are_left_out() {
        let events = |reason| {
            call("f", &["{\"x\"", ":1}"]).into_iter().chain(call("g", &["{\"y\":"])).chain([finish(reason)])
        };
        let out = written(events(FinishReason::Length));
        assert!(out.contains(r#""function":{"index":0,"name":"f","arguments":{"x":1}}"#), "{out}");
        assert!(!out.contains("\"g\"") && out.contains(r#""done_reason":"length""#), "{out}");
        let out = written(events(FinishReason::ToolUse));
        assert!(out.contains(r#""function":{"index":1,"name":"g","arguments":{"y":null}}"#), "{out}");
    }

    #[test]
    fn times_are_those_that_passed() {
        let mut encoder = Encoder::new(echo());
        let mut out = BytesMut::new();
        let mut pass = |encoder: &mut Encoder, millis: u64, event: StreamEvent<'_>| {
            encoder.time_passed(Duration::from_millis(millis));
            encoder.event(event, &mut out).unwrap();
        };
        for (millis, event) in [200, 210, 220].into_iter().zip(text("hello")) {
            pass(&mut encoder, millis, event);
        }
        pass(&mut encoder, 1000, finish(FinishReason::Stop));
        assert_eq!(
            out,
            "{\"model\":\"asked\",\"created_at\":\"1970-01-01T00:01:00.210Z\",\"message\":{\"role\":\"assistant\",\
             \"content\":\"hello\"},\"done\":false}\n\
             {\"model\":\"asked\",\"created_at\":\"1970-01-01T00:01:01.000Z\",\"message\":{\"role\":\"assistant\",\
             \"content\":\"\"},\"done\":true,\"done_reason\":\"stop\",\"total_duration\":1000000000,\
             \"load_duration\":10000000,\"prompt_eval_count\":9,\"prompt_eval_duration\":200000000,\
             \"eval_count\":2,\"eval_duration\":790000000}\n"
        );
    }

    #[test]
    fn arguments_without_end_are_given_up() {
        let mut encoder = Encoder::new(echo());
        let mut out = BytesMut::new();
        for event in call("f", &[]).into_iter().take(1) {
            encoder.event(event, &mut out).unwrap();
        }
        let piece = "x".repeat(1 << 20);
        let fed = (0..17).try_for_each(|_| {
            let delta = Delta::ToolArgs(Cow::Borrowed(piece.as_str()));
            encoder.event(StreamEvent::Delta { index: 0, delta }, &mut out)
        });
        assert!(matches!(fed, Err(StreamError::Protocol(_))));
    }
}
