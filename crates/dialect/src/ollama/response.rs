//! Whole answers.

use bytes::{Bytes, BytesMut};
use omniroute_wire::json_out::Object;

use super::{
    ID, Ollama,
    wire::{self, Line, Times, write_end, write_stamp},
};
use crate::{
    DecodeError, Echo, Encoded, arguments, error_text,
    ir::{
        self, Block, BlockKind, ChatResponse, FinishReason, Image, Logprob, LossAction, MediaSource,
        ToolCall, Usage,
    },
    json_in::last_wins,
    logprobs, media,
    stream::StreamCollector,
};

/// Reads a whole upstream answer; also one that was sent as a stream.
pub(super) fn decode(body: &Bytes) -> Result<ChatResponse, DecodeError> {
    let text = text(body)?;
    let repaired;
    let line: Line<'_> = match serde_json::from_str(text) {
        Ok(line) => line,
        Err(_) if is_stream(text) => return collect(body),
        Err(_) => {
            repaired = last_wins(text);
            serde_json::from_str(&repaired).map_err(|error| unreadable(&error.to_string()))?
        }
    };
    let Some(message) = line.said() else {
        let error = line.is_error().then(|| error_text::read_value(text).message);
        return Err(unreadable(error.as_deref().unwrap_or("it has no message")));
    };
    let mut response =
        ChatResponse { model: line.model().into_owned(), usage: line.usage(), ..ChatResponse::default() };
    if let Some(text) = message.thought() {
        let kind = BlockKind::Thinking { text: text.into_owned(), signature: None, origin: ID };
        response.blocks.push(kind.into());
    }
    if let Some(text) = message.text() {
        let kind = BlockKind::Text(text.into_owned());
        response.blocks.push(Block { logprobs: line.logprobs(), ..Block::from(kind) });
    }
    for data in message.pictures() {
        let media_type = media::sniffed(&data).unwrap_or(PICTURE).to_owned();
        let source = MediaSource::Base64 { media_type, data: data.into_owned() };
        response.blocks.push(BlockKind::Image(Image { source, detail: None }).into());
    }
    let calls = message.calls();
    for (n, raw) in calls.iter().enumerate() {
        let Some(call) = wire::call(raw, n, &line.stamp()) else { return Err(nameless()) };
        response.blocks.push(BlockKind::ToolCall(call).into());
    }
    response.finish = Some(wire::finish_reason(&line.reason(), !calls.is_empty()));
    Ok(response)
}

/// Writes a whole answer for a client.
pub(super) fn encode(response: &ChatResponse, echo: &Echo) -> Encoded {
    let mut losses = Vec::new();
    let mut out = BytesMut::with_capacity(512);
    let mut whole = Object::begin(&mut out);
    whole.str("model", &echo.model);
    let stamp = whole.key("created_at");
    stamp.extend_from_slice(b"\"");
    write_stamp(stamp, echo, echo.answered_after.unwrap_or_default());
    stamp.extend_from_slice(b"\"");

    let said = Said::of(response, &mut losses);
    let thinking = Some(said.thinking.as_str()).filter(|text| !text.is_empty());
    if echo.legacy {
        whole.str("response", &said.text).opt_str("thinking", thinking);
        if !said.calls.is_empty() {
            losses.push(ir::loss("tool_calls", LossAction::Dropped));
        }
    } else {
        let mut message = whole.object("message");
        message.str("role", "assistant").str("content", &said.text).opt_str("thinking", thinking);
        if !said.calls.is_empty() {
            wire::write_calls(message.key("tool_calls"), 0, said.calls.iter().copied());
        }
        message.end();
    }
    if !said.tokens.is_empty() {
        logprobs::write_list(whole.key("logprobs"), &said.tokens);
    }
    let finish = response.finish.unwrap_or(FinishReason::Stop);
    let times =
        Times { asked: echo.asked_after, first: echo.begun_after, end: echo.answered_after, whole: true };
    let (prompt, output) = counts(&response.usage, echo, said.bytes());
    write_end(&mut whole, finish, &times, prompt, output);
    whole.end();
    Encoded { body: out.freeze(), losses }
}

/// Tokens of prompt and answer; what the upstream did not tell is estimated.
pub(super) fn counts(usage: &Usage, echo: &Echo, bytes: u64) -> (u64, u64) {
    let prompt = usage.input_total().unwrap_or(echo.estimated_input_tokens);
    (prompt, usage.output_total.unwrap_or_else(|| bytes.div_ceil(4)))
}

/// The type of a picture that does not tell.
pub(super) const PICTURE: &str = "image/png";

/// That a call cannot be told to a client.
fn nameless() -> DecodeError {
    let message = "the upstream sent a tool call without a name".to_owned();
    DecodeError { code: "invalid_tool_call", param: None, message }
}

/// That an answer cannot be read, and why.
pub(super) fn unreadable(why: &str) -> DecodeError {
    DecodeError { code: "bad_gateway", param: None, message: error_text::malformed(why).message }
}

/// What a message says, in the one order that it has.
struct Said<'a> {
    text: String,
    thinking: String,
    calls: Vec<&'a ToolCall>,
    tokens: Vec<Logprob>,
}

impl<'a> Said<'a> {
    fn of(response: &'a ChatResponse, losses: &mut Vec<ir::Loss>) -> Self {
        let mut said =
            Self { text: String::new(), thinking: String::new(), calls: Vec::new(), tokens: Vec::new() };
        let cut_off = response.finish.is_some_and(FinishReason::is_cut_off);
        for (at, block) in response.blocks.iter().enumerate() {
            said.take(block, at, cut_off, losses);
        }
        said
    }

    fn take(&mut self, block: &'a Block, at: usize, cut_off: bool, losses: &mut Vec<ir::Loss>) {
        let path = format!("content[{at}]");
        if !block.citations.is_empty() {
            losses.push(ir::loss(format!("{path}.citations"), LossAction::Dropped));
        }
        self.tokens.extend_from_slice(&block.logprobs);
        match &block.kind {
            BlockKind::Text(more) | BlockKind::Refusal(more) => {
                if !self.calls.is_empty() {
                    losses.push(ir::quiet(path, LossAction::Mapped));
                }
                self.text.push_str(more);
            }
            BlockKind::Thinking { text, signature, .. } => {
                self.thinking.push_str(text);
                if signature.is_some() {
                    losses.push(ir::quiet(path, LossAction::Dropped));
                }
            }
            BlockKind::ToolCall(call) if cut_off && !arguments::is_complete(&call.arguments) => {
                losses.push(ir::loss(path, LossAction::Dropped));
            }
            BlockKind::ToolCall(call) => {
                if arguments::object(&call.arguments).changed {
                    losses.push(ir::quiet(path, LossAction::Mapped));
                }
                self.calls.push(call);
            }
            BlockKind::Image(Image { source: MediaSource::Base64 { media_type, data }, .. }) => {
                losses.push(ir::loss(path, LossAction::Mapped));
                self.text.push_str(&media::as_markdown(media_type, data));
            }
            BlockKind::RedactedThinking { .. }
            | BlockKind::WebSearch(_)
            | BlockKind::Image(_)
            | BlockKind::File(_)
            | BlockKind::Audio { .. }
            | BlockKind::ToolResult(_)
            | BlockKind::Opaque { .. } => losses.push(ir::quiet(path, LossAction::Dropped)),
        }
    }

    fn bytes(&self) -> u64 {
        let calls: usize = self.calls.iter().map(|call| call.name.len() + call.arguments.len()).sum();
        (self.text.len() + self.thinking.len() + calls) as u64
    }
}

fn text(body: &[u8]) -> Result<&str, DecodeError> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let text = std::str::from_utf8(body).map_err(|_| unreadable("it is not UTF-8"))?.trim();
    if error_text::is_html(text) {
        return Err(DecodeError { code: "bad_gateway", param: None, message: error_text::html(200).message });
    }
    if text.is_empty() { Err(unreadable("it is empty")) } else { Ok(text) }
}

/// Whether it is several lines of which the first is a document of its own.
pub(super) fn is_stream(text: &str) -> bool {
    text.split_once('\n').is_some_and(|(first, _)| serde_json::from_str::<Line<'_>>(first).is_ok())
}

/// The answer that a whole stream amounts to.
pub(super) fn collect(body: &[u8]) -> Result<ChatResponse, DecodeError> {
    let mut collector = StreamCollector::new(&Ollama);
    collector.push(body).map_err(|error| unreadable(&error.to_string()))?;
    collector.finish().map_err(|error| unreadable(&error.message))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn read(body: &str) -> Result<ChatResponse, DecodeError> {
        decode(&Bytes::copy_from_slice(body.as_bytes()))
    }

    fn written(response: &ChatResponse, echo: &Echo) -> String {
        String::from_utf8(encode(response, echo).body.to_vec()).unwrap()
    }

    #[test]
    fn tool_calls_tell_why_the_answer_ended_and_have_ids() {
        let response = read(
            r#"{"model":"m","created_at":"t","message":{"role":"assistant","content":"","tool_calls":[
                {"function":{"name":"f","arguments":{"x":1}}},{"id":"c","function":{"name":"g","arguments":{}}}]},
                "done":true,"done_reason":"stop","eval_count":3}"#,
        )
        .unwrap();
        assert_eq!(response.finish, Some(FinishReason::ToolUse));
        assert_eq!((response.usage.output_total, response.usage.input_total()), (Some(3), None));
        let calls: Vec<_> = response
            .blocks
            .iter()
            .map(|block| match &block.kind {
                BlockKind::ToolCall(call) => (call.id.as_str(), call.arguments.as_str()),
                other => panic!("{other:?}"),
            })
            .collect();
        assert!(calls[0].0.starts_with("call_0_") && calls[0].1 == r#"{"x":1}"#, "{calls:?}");
        assert_eq!(calls[1], ("c", "{}"));
    }

    #[test]
    fn what_is_no_answer_is_named() {
        for (body, words) in [
            ("", "it is empty"),
            ("<!doctype html><html></html>", "upstream returned HTML (status 200)"),
            ("{}", "no message"),
            (r#"{"error":"busy"}"#, "busy"),
            ("nonsense", "cannot be read"),
            (r#"{"message":{"tool_calls":[{"function":{"arguments":{}}}]}}"#, "without a name"),
            ("{\"message\":{\"content\":\"x\"}}\n{\"message\":{\"content\":\"y\"}}\n", "closed the stream"),
        ] {
            let message = read(body).unwrap_err().message;
            assert!(message.contains(words), "{body}: {message}");
        }
    }

    #[test]
    fn a_stream_in_place_of_an_answer_is_put_together() {
        let response = read(
            "{\"message\":{\"content\":\"a\"},\"done\":false}\n{\"message\":{\"content\":\"b\"},\"done\":true,\"done_reason\":\"length\"}\n",
        )
        .unwrap();
        assert!(matches!(&response.blocks[0].kind, BlockKind::Text(text) if text == "ab"));
        assert_eq!(response.finish, Some(FinishReason::Length));
    }

    #[test]
    fn the_last_of_repeated_members_counts() {
        let response = read(r#"{"message":{"content":"a","content":"b"},"done":true}"#).unwrap();
        assert!(matches!(&response.blocks[0].kind, BlockKind::Text(text) if text == "b"));
    }

    #[test]
    fn times_are_told_when_they_were_measured_and_counts_always() {
        let response = ChatResponse {
            blocks: vec![BlockKind::Text("12345".into()).into()],
            finish: Some(FinishReason::ContextWindow),
            ..ChatResponse::default()
        };
        let echo = Echo {
            model: "a/b".into(),
            created: 1_700_000_000,
            created_millis: 250,
            estimated_input_tokens: 7,
            ..Echo::default()
        };
        let head = r#"{"model":"a/b","created_at":"2023-11-14T22:13:2"#;
        let message =
            r#""message":{"role":"assistant","content":"12345"},"done":true,"done_reason":"length","#;
        assert_eq!(
            written(&response, &echo),
            format!("{head}0.250Z\",{message}\"prompt_eval_count\":7,\"eval_count\":2}}")
        );
        let measured = Echo {
            asked_after: Some(Duration::from_millis(20)),
            begun_after: Some(Duration::from_millis(1400)),
            answered_after: Some(Duration::from_millis(1500)),
            ..echo
        };
        assert_eq!(
            written(&response, &measured),
            format!(
                "{head}1.750Z\",{message}\"total_duration\":1500000000,\"load_duration\":20000000,\
                 \"prompt_eval_count\":7,\"prompt_eval_duration\":1380000000,\"eval_count\":2,\
                 \"eval_duration\":1480000000}}"
            )
        );
    }

    #[test]
    fn an_unfinished_call_of_a_cut_answer_is_dropped() {
        let call =
            |arguments: &str| ToolCall { id: "a".into(), name: "f".into(), arguments: arguments.into() };
        let mut response = ChatResponse {
            blocks: vec![BlockKind::ToolCall(call("{\"x\":")).into(), BlockKind::ToolCall(call("")).into()],
            finish: Some(FinishReason::Length),
            ..ChatResponse::default()
        };
        let encoded = encode(&response, &Echo::default());
        assert_eq!(encoded.losses, [ir::loss("content[0]", LossAction::Dropped)]);
        assert!(
            written(&response, &Echo::default())
                .contains(r#""tool_calls":[{"id":"a","function":{"index":0,"name":"f","arguments":{}}}]"#)
        );
        response.finish = Some(FinishReason::ToolUse);
        assert!(written(&response, &Echo::default()).contains(r#""arguments":{"x":null}"#));
    }
}
