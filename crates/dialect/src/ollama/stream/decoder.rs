//! Reading an upstream's lines as events. Tool calls come whole, each is a block of its own.

use std::borrow::Cow;

use omniroute_wire::sse::Frame;

use super::super::{
    response::PICTURE,
    wire::{self, Line, Message},
};
use crate::{
    error_text,
    ir::{UpstreamError, Usage},
    json_in::last_wins,
    media,
    stream::{BlockHead, Delta, EventSink, StreamDecoder, StreamError, StreamEvent, truncated},
};

/// More calls than this in one answer are taken for a fault.
const MAX_CALLS: usize = 1024;

/// Reads the lines of one answer.
#[derive(Debug, Default)]
pub(in crate::ollama) struct Decoder {
    started: bool,
    over: bool,
    blocks: u32,
    calls: usize,
    open: Open,
    usage: Usage,
}

/// The open block.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Open {
    #[default]
    Nothing,
    Text,
    Thinking,
}

impl StreamDecoder for Decoder {
    fn frame(&mut self, frame: Frame<'_>, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        let data = frame.data.strip_prefix(b"\xef\xbb\xbf").unwrap_or(frame.data).trim_ascii();
        if self.over || data.first() != Some(&b'{') {
            return Ok(());
        }
        let Ok(text) = std::str::from_utf8(data) else {
            return self.fail(error_text::malformed("a line of the stream is not UTF-8"), sink);
        };
        if let Ok(line) = serde_json::from_str(text) {
            return self.line(&line, text, sink);
        }
        let repaired = last_wins(text);
        match serde_json::from_str(&repaired) {
            Ok(line) => self.line(&line, text, sink),
            Err(_) => self.fail(error_text::malformed("a line of the stream is not valid JSON"), sink),
        }
    }

    fn finish(&mut self, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        if self.over { Ok(()) } else { self.fail(truncated(), sink) }
    }
}

impl Decoder {
    fn line(&mut self, line: &Line<'_>, text: &str, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        if line.is_error() {
            return self.fail(error_text::read_value(text), sink);
        }
        let said = line.said();
        if said.is_none() && !line.is_done() {
            return Ok(());
        }
        if !std::mem::replace(&mut self.started, true) {
            // The format has no id of an answer.
            sink.event(StreamEvent::Start { id: Cow::Borrowed(""), model: line.model() })?;
        }
        if let Some(message) = &said {
            self.message(message, line, sink)?;
        }
        self.usage.update(&line.usage());
        if line.is_done() && !self.over {
            self.end(line, sink)?;
        }
        Ok(())
    }

    fn message(
        &mut self,
        message: &Message<'_>,
        line: &Line<'_>,
        sink: &mut dyn EventSink,
    ) -> Result<(), StreamError> {
        if let Some(text) = message.thought() {
            self.open(Open::Thinking, sink)?;
            sink.event(StreamEvent::Delta { index: self.blocks - 1, delta: Delta::Thinking(text) })?;
        }
        let text = message.text();
        if text.is_some() {
            self.open(Open::Text, sink)?;
        }
        let tokens = line.logprobs();
        if self.open == Open::Text && !tokens.is_empty() {
            let delta = Delta::Logprobs(Cow::Owned(tokens));
            sink.event(StreamEvent::Delta { index: self.blocks - 1, delta })?;
        }
        if let Some(text) = text {
            sink.event(StreamEvent::Delta { index: self.blocks - 1, delta: Delta::Text(text) })?;
        }
        for data in message.pictures() {
            self.close(sink)?;
            let media_type = Cow::Borrowed(media::sniffed(&data).unwrap_or(PICTURE));
            self.whole(BlockHead::Image { media_type, data }, None, sink)?;
        }
        if message.tool_calls.is_none() {
            return Ok(());
        }
        for raw in message.calls() {
            if self.calls == MAX_CALLS {
                return Err(StreamError::Protocol(format!("more than {MAX_CALLS} tool calls in one answer")));
            }
            let Some(call) = wire::call(raw, self.calls, &line.stamp()) else {
                return self.fail(nameless(), sink);
            };
            self.calls += 1;
            self.close(sink)?;
            let head = BlockHead::ToolCall { id: Cow::Owned(call.id), name: Cow::Owned(call.name) };
            let arguments = Some(call.arguments).filter(|text| text != "{}");
            self.whole(head, arguments.map(|text| Delta::ToolArgs(Cow::Owned(text))), sink)?;
        }
        Ok(())
    }

    fn open(&mut self, kind: Open, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        if self.open == kind {
            return Ok(());
        }
        self.close(sink)?;
        self.open = kind;
        self.blocks += 1;
        let block = if kind == Open::Thinking { BlockHead::Thinking { item: None } } else { BlockHead::Text };
        sink.event(StreamEvent::BlockStart { index: self.blocks - 1, block })
    }

    fn close(&mut self, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        if std::mem::take(&mut self.open) == Open::Nothing {
            return Ok(());
        }
        sink.event(StreamEvent::BlockStop { index: self.blocks - 1 })
    }

    /// A block that is complete at once.
    fn whole(
        &mut self,
        block: BlockHead<'_>,
        delta: Option<Delta<'_>>,
        sink: &mut dyn EventSink,
    ) -> Result<(), StreamError> {
        let index = self.blocks;
        self.blocks += 1;
        sink.event(StreamEvent::BlockStart { index, block })?;
        if let Some(delta) = delta {
            sink.event(StreamEvent::Delta { index, delta })?;
        }
        sink.event(StreamEvent::BlockStop { index })
    }

    fn end(&mut self, line: &Line<'_>, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        self.close(sink)?;
        if self.usage.is_known() {
            sink.event(StreamEvent::Usage(self.usage))?;
        }
        self.over = true;
        let reason = wire::finish_reason(&line.reason(), self.calls > 0);
        sink.event(StreamEvent::Finish { reason, stop_sequence: None })
    }

    fn fail(&mut self, error: UpstreamError, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        self.over = true;
        sink.event(StreamEvent::Error(error))
    }
}

fn nameless() -> UpstreamError {
    UpstreamError {
        status: Some(502),
        code: Some("invalid_tool_call".to_owned()),
        message: "the upstream sent a tool call without a name".to_owned(),
        ..UpstreamError::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::{GrammarCheck, Lines};

    fn decode(lines: &[&str]) -> Vec<String> {
        let mut decoder = Decoder::default();
        let mut check = GrammarCheck::new(Lines::default());
        for line in lines {
            decoder.frame(Frame { event: None, data: line.as_bytes() }, &mut check).unwrap();
        }
        decoder.finish(&mut check).unwrap();
        check.finish().unwrap().0
    }

    const END: &str = r#"{"message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","prompt_eval_count":3,"eval_count":2}"#;

    #[test]
    fn thinking_text_and_calls_are_blocks_in_order() {
        let events = decode(&[
            r#"{"model":"m","message":{"content":"","thinking":"hm"},"done":false}"#,
            r#"{"model":"m","message":{"content":"","thinking":"m"},"done":false}"#,
            r#"{"model":"m","message":{"content":"a\n"},"done":false}"#,
            r#"{"model":"m","message":{"content":"","tool_calls":[{"id":"x","function":{"name":"f","arguments":{"q":"ü"}}},{"id":"y","function":{"name":"g","arguments":{}}}]},"done":false}"#,
            r#"{"model":"m","message":{"content":"b"},"done":false}"#,
            END,
            r#"{"message":{"content":"after the end"},"done":false}"#,
        ]);
        assert_eq!(
            events,
            [
                "start  m",
                "0 Thinking",
                "0 ~ hm",
                "0 ~ m",
                "0 stop",
                "1 Text",
                "1 + a\n",
                "1 stop",
                "2 call x f",
                "2 args {\"q\":\"ü\"}",
                "2 stop",
                "3 call y g",
                "3 stop",
                "4 Text",
                "4 + b",
                "4 stop",
                "usage Some(3) Some(2)",
                "finish ToolUse None"
            ]
        );
    }

    #[test]
    fn f2_parallel_calls_with_one_index_are_told_apart() {
        let call = |name: &str| {
            format!(
                r#"{{"created_at":"t","message":{{"tool_calls":[{{"function":{{"index":0,"name":"{name}","arguments":{{}}}}}}]}},"done":false}}"#
            )
        };
        let events = decode(&[&call("f"), &call("f"), END]);
        let calls: Vec<_> = events.iter().filter(|event| event.contains(" call ")).collect();
        assert_eq!(calls.len(), 2);
        assert_ne!(calls[0], calls[1], "ids differ");
    }

    #[test]
    fn counts_count_wherever_they_are_told() {
        let early = r#"{"message":{"content":"a"},"done":false,"prompt_eval_count":3,"eval_count":1}"#;
        let end = r#"{"message":{"content":""},"done":true,"done_reason":"stop"}"#;
        assert!(decode(&[early, end]).contains(&"usage Some(3) Some(1)".to_owned()));
        assert!(decode(&[early, END]).contains(&"usage Some(3) Some(2)".to_owned()));
    }

    #[test]
    fn the_end_is_never_made_up() {
        let text = r#"{"message":{"content":"a"},"done":false}"#;
        let last = |lines: &[&str]| decode(lines).pop().unwrap();
        assert_eq!(last(&[text]), "error Some(502) upstream_stream_truncated");
        assert_eq!(last(&[]), "error Some(502) upstream_stream_truncated");
        assert_eq!(last(&[text, "<p>", "[1]", r#"{"x":1}"#, END]), "finish Stop None");
        assert_eq!(last(&[text, r#"{"error":"gone"}"#, END]), "error None gone");
        assert_eq!(last(&[text, r#"{"message":"#]), "error Some(502) bad_gateway");
        assert_eq!(
            last(&[r#"{"message":{"tool_calls":[{"function":{"arguments":{}}}]},"done":true}"#]),
            "error Some(502) invalid_tool_call"
        );
        let length = r#"{"message":{"content":"a","content":"b"},"done":true,"done_reason":"length"}"#;
        assert_eq!(decode(&[length]), ["start  ", "0 Text", "0 + b", "0 stop", "finish Length None"]);
    }
}
