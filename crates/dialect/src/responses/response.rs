//! Whole answers: read and written as streams that say everything at once.

use bytes::{Bytes, BytesMut};

use super::{
    ID, Responses,
    stream::{Decoder, Encoder},
    wire,
};
use crate::{
    DecodeError, Echo, Encoded, arguments, error_text,
    ir::{BlockKind, ChatResponse, FinishReason, Loss, LossAction, loss, quiet},
    json_in::{self, Fields},
    stream::{Collector, EventSink, StreamCollector, StreamEncoder as _, StreamError, StreamEvent, replay},
};

/// Reads a whole upstream answer; also one that was sent as a stream.
pub(super) fn decode(body: &Bytes) -> Result<ChatResponse, DecodeError> {
    if is_stream(body) {
        return collect(body);
    }
    let text = text(body)?;
    let fields = Fields::lenient(&text, "").map_err(|error| unreadable(&error.message))?;
    if fields.raw("output").is_none() && wire::text(&fields, "status").is_none() {
        let error = error_text::error_in_success(body);
        return Err(unreadable(error.as_ref().map_or("it has no output", |error| &error.message)));
    }
    let mut collector = Collector::new(ID);
    let read = Decoder::default().whole(&text, &mut collector);
    read.map_err(|error| unreadable(&error.to_string()))?;
    collector.into_response().map_err(|error| unreadable(&error.message))
}

/// Writes a whole answer for a client.
pub(super) fn encode(response: &ChatResponse, echo: &Echo) -> Encoded {
    let mut writer = Writer { encoder: Encoder::new(echo.clone()), told: BytesMut::new(), finish: None };
    let written = replay(response, &mut writer);
    let mut losses = losses(response, echo);
    if written.is_err() {
        // Longer than any client reads: what was written until then is given.
        losses.push(loss("output", LossAction::Clamped));
    }
    let finish = match writer.finish {
        Some(finish) => finish,
        None => FinishReason::Length,
    };
    Encoded { body: writer.encoder.response(finish).freeze(), losses }
}

/// Whether a body that should be JSON is a stream of events.
pub(super) fn is_stream(body: &[u8]) -> bool {
    let start = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii_start();
    [&b"data:"[..], b"event:", b":"].iter().any(|lead| start.starts_with(lead))
}

/// The answer that a whole stream amounts to.
pub(super) fn collect(body: &[u8]) -> Result<ChatResponse, DecodeError> {
    let mut collector = StreamCollector::new(&Responses);
    collector.push(body).map_err(|error| unreadable(&error.to_string()))?;
    collector.finish().map_err(|error| unreadable(&error.message))
}

/// That an answer cannot be read, and why.
pub(super) fn unreadable(why: &str) -> DecodeError {
    DecodeError { code: "bad_gateway", param: None, message: error_text::malformed(why).message }
}

fn text(body: &[u8]) -> Result<std::borrow::Cow<'_, str>, DecodeError> {
    let text = json_in::text(body).map_err(|_| unreadable("it is not UTF-8"))?;
    if error_text::is_html(&text) {
        return Err(DecodeError { code: "bad_gateway", param: None, message: error_text::html(200).message });
    }
    if text.trim().is_empty() { Err(unreadable("it is empty")) } else { Ok(text) }
}

/// What the dialect has no place for.
fn losses(response: &ChatResponse, echo: &Echo) -> Vec<Loss> {
    let mut losses = Vec::new();
    let cut_off = response.finish.is_some_and(FinishReason::is_cut_off);
    for (at, block) in response.blocks.iter().enumerate() {
        let path = || format!("content[{at}]");
        match &block.kind {
            BlockKind::ToolCall(call)
                if cut_off
                    && !echo.custom_tools.contains(&call.name)
                    && (call.arguments.trim().is_empty() || !arguments::is_complete(&call.arguments)) =>
            {
                losses.push(loss(path(), LossAction::Dropped));
            }
            BlockKind::Image(_) => losses.push(loss(path(), LossAction::Dropped)),
            BlockKind::File(_)
            | BlockKind::Audio { .. }
            | BlockKind::ToolResult(_)
            | BlockKind::Opaque { .. } => losses.push(quiet(path(), LossAction::Dropped)),
            BlockKind::Text(_)
            | BlockKind::Thinking { .. }
            | BlockKind::RedactedThinking { .. }
            | BlockKind::ToolCall(_)
            | BlockKind::Refusal(_)
            | BlockKind::WebSearch(_) => {}
        }
        let elsewhere = block.citations.iter().filter(|one| one.url.is_none());
        let foreign = elsewhere.filter(|one| one.native.as_ref().is_none_or(|native| native.origin != ID));
        if foreign.count() > 0 {
            losses.push(loss(format!("content[{at}].citations"), LossAction::Dropped));
        }
    }
    losses
}

struct Writer {
    encoder: Encoder,
    /// The events, which nobody reads.
    told: BytesMut,
    finish: Option<FinishReason>,
}

impl EventSink for Writer {
    fn event(&mut self, event: StreamEvent<'_>) -> Result<(), StreamError> {
        if let StreamEvent::Finish { reason, .. } = &event {
            self.finish = Some(*reason);
        }
        self.told.clear();
        self.encoder.event(event, &mut self.told)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(json: &Value) -> Result<ChatResponse, DecodeError> {
        decode(&json.to_string().into())
    }

    fn message(text: &str) -> Value {
        json!({"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
            "content": [{"type": "output_text", "text": text, "annotations": []}]})
    }

    #[test]
    fn calls_tell_why_the_answer_ended() {
        let response = read(&json!({"id": "resp_1", "status": "completed", "output": [
            {"type": "function_call", "id": "fc_1", "call_id": "a", "name": "f", "arguments": ""},
            {"type": "function_call", "id": "fc_2", "call_id": "", "name": "g", "arguments": {"x": 1}},
            {"type": "custom_tool_call", "id": "ctc_1", "call_id": "c", "name": "patch", "input": "a\"b"}]}))
        .unwrap();
        assert_eq!(response.finish, Some(FinishReason::ToolUse));
        let calls: Vec<_> = response
            .blocks
            .iter()
            .map(|block| match &block.kind {
                BlockKind::ToolCall(call) => (call.id.as_str(), call.name.as_str(), call.arguments.as_str()),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(
            calls,
            [("a", "f", "{}"), ("fc_2", "g", "{\"x\":1}"), ("c", "patch", "{\"input\":\"a\\\"b\"}")]
        );
    }

    #[test]
    fn a_call_that_was_cut_off_is_left_out() {
        let response = read(&json!({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"},
            "output": [message("x"),
                {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{\"x\":", "status": "incomplete"}]}))
        .unwrap();
        assert_eq!((response.finish, response.blocks.len()), (Some(FinishReason::Length), 1));
    }

    #[test]
    fn what_is_no_answer_is_named() {
        for (body, words) in [
            ("", "it is empty"),
            ("<!doctype html><html></html>", "upstream returned HTML (status 200)"),
            ("{}", "no output"),
            (r#"{"error":{"message":"busy"}}"#, "busy"),
            (r#"{"status":"failed","error":{"code":"server_error","message":"broke"},"output":[]}"#, "broke"),
            (
                r#"{"status":"completed","output":[{"type":"function_call","arguments":"{}"}]}"#,
                "without a name",
            ),
            ("nonsense", "cannot be read"),
            ("data: {\"type\":\"response.output_text.delta\",\"delta\":\"x\"}\n\n", "closed the stream"),
        ] {
            let message = decode(&Bytes::copy_from_slice(body.as_bytes())).unwrap_err().message;
            assert!(message.contains(words), "{body}: {message}");
        }
    }

    #[test]
    fn items_are_written_in_the_order_in_which_they_came() {
        let response =
            read(&json!({"id": "resp_0123456789012345678901234", "status": "completed", "output": [
            {"type": "reasoning", "id": "rs_9", "summary": [{"type": "summary_text", "text": "a"},
                {"type": "summary_text", "text": "b"}], "encrypted_content": "E"},
            message("hi"),
            {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "f", "arguments": "{ }"}],
            "usage": {"input_tokens": 3, "output_tokens": 2}}))
            .unwrap();
        let body = encode(&response, &Echo::default()).body;
        let value: Value = serde_json::from_slice(&body).unwrap();
        let output = value["output"].as_array().unwrap();
        assert_eq!(
            output[0],
            json!({"type": "reasoning", "id": "rs_9", "summary": [{"type": "summary_text", "text": "a\n\nb"}],
                "encrypted_content": "E"})
        );
        assert_eq!(output[1]["content"][0]["text"], "hi");
        assert_eq!((&output[2]["call_id"], &output[2]["arguments"]), (&json!("call_1"), &json!("{ }")));
        assert_eq!(value["usage"]["total_tokens"], 5);
        let ids: Vec<_> = output.iter().map(|item| item["id"].as_str().unwrap().len()).collect();
        assert!(ids.iter().all(|length| *length <= 64));
    }
}
