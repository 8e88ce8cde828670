//! Streams in and out.

use bytes::BytesMut;
use omniroute_wire::sse::Frame;
use serde_json::{Value, json};

use super::*;
use crate::{
    Echo, Framing,
    ir::{ErrorKind, FinishReason, PublicError, UpstreamError, Usage},
    stream::{BlockHead, Delta, Lines, StreamDecoder as _, StreamEncoder as _, StreamEvent},
};

fn decoded(chunks: &[Value]) -> Vec<String> {
    let mut decoder = Decoder::default();
    let mut lines = Lines::default();
    for chunk in chunks {
        let data = chunk.to_string();
        decoder.frame(Frame { event: None, data: data.as_bytes() }, &mut lines).expect("readable");
    }
    decoder.finish(&mut lines).expect("readable");
    lines.0
}

fn parts(parts: &Value) -> Value {
    json!({"candidates": [{"content": {"parts": parts, "role": "model"}}], "responseId": "r"})
}

fn end(reason: &str) -> Value {
    json!({"candidates": [{"content": {"parts": [{"text": ""}]}, "finishReason": reason}]})
}

#[test]
fn f16_a_signature_stays_with_its_part() {
    let call = |signature: Value| json!({"functionCall": {"id": "c", "name": "f", "args": {}}, "thoughtSignature": signature});
    for (given, expected) in [
        // With the thoughts before it, in a block of its own otherwise, never mixed with other text.
        (
            json!([{"text": "plan", "thought": true}, call(json!("S"))]),
            "0 Thinking|0 ~ plan|0 signed S|0 stop|1 call c f|1 stop",
        ),
        (
            json!([{"text": "a"}, call(json!("S"))]),
            "0 Text|0 + a|0 stop|1 Thinking|1 signed S|1 stop|2 call c f|2 stop",
        ),
        (
            json!([{"text": "a"}, {"text": "b", "thoughtSignature": "S"}, {"text": "c"}]),
            "0 Text|0 + a|0 stop|1 Thinking|1 signed S|1 stop|2 Text|2 + b|2 stop|3 Text|3 + c|3 stop",
        ),
        (
            json!([{"text": "a"}, {"text": "", "thoughtSignature": "S"}]),
            "0 Text|0 + a|0 stop|1 Thinking|1 signed S|1 stop",
        ),
        (
            json!([{"text": "t", "thought": true, "thoughtSignature": "S"}, {"text": "a"}]),
            "0 Thinking|0 ~ t|0 signed S|0 stop|1 Text|1 + a|1 stop",
        ),
        (
            json!([call(json!("S")), call(json!("")), call(Value::Null)]),
            "0 Thinking|0 signed S|0 stop|1 call c f|1 stop|2 call c f|2 stop|3 call c f|3 stop",
        ),
        (json!([{"thoughtSignature": "S"}]), "0 Thinking|0 signed S|0 stop"),
    ] {
        let lines = decoded(&[parts(&given), end("STOP")]);
        let blocks: Vec<_> = lines[1..lines.len() - 1].to_vec();
        assert_eq!(blocks.join("|"), expected, "{given}");
    }
}

#[test]
fn f28_a_call_means_that_tools_are_to_be_run_whatever_the_reason_says() {
    let call = parts(&json!([{"functionCall": {"name": "f", "args": {"x": 1}}}]));
    let lines = decoded(&[call.clone(), end("STOP")]);
    assert_eq!(lines.last().map(String::as_str), Some("finish ToolUse None"));
    assert!(lines[1].starts_with("0 call call_0_") && lines[2] == "0 args {\"x\":1}");
    assert_eq!(
        decoded(&[call.clone(), end("MAX_TOKENS")]).last().map(String::as_str),
        Some("finish Length None")
    );
    // Two without ids are two.
    let lines = decoded(&[call.clone(), call, end("STOP")]);
    assert_ne!(lines[1].split(' ').nth(2), lines[4].split(' ').nth(2));
}

#[test]
fn ends_are_told_apart() {
    for (reason, expected) in [
        ("STOP", "finish Stop None"),
        ("MAX_TOKENS", "finish Length None"),
        ("SAFETY", "finish ContentFilter None"),
        ("RECITATION", "finish ContentFilter None"),
        ("LANGUAGE", "finish Stop None"),
        ("SOMETHING_NEW", "finish Stop None"),
        ("MALFORMED_FUNCTION_CALL", "error Some(502) malformed_tool_call"),
        ("MISSING_THOUGHT_SIGNATURE", "error Some(502) malformed_tool_call"),
        ("FINISH_REASON_UNSPECIFIED", "error Some(502) upstream_stream_truncated"),
    ] {
        let lines = decoded(&[parts(&json!([{"text": "a"}])), end(reason)]);
        assert_eq!(lines.last().map(String::as_str), Some(expected));
    }
    // Some say it with every piece: only the end of the stream ends an answer.
    let every = json!({"candidates": [{"content": {"parts": [{"text": "a"}]}, "finishReason": "STOP"}]});
    assert_eq!(
        decoded(&[every.clone(), every]),
        ["start  ", "0 Text", "0 + a", "0 + a", "0 stop", "finish Stop None"]
    );
    let late = json!({"error": {"code": 500, "message": "x"}});
    assert_eq!(decoded(&[end("STOP"), late.clone()]).last().map(String::as_str), Some("finish Stop None"));
    assert_eq!(decoded(&[late]), ["error Some(500) x"]);
    assert_eq!(decoded(&[]), ["error Some(502) upstream_stream_truncated"]);
    assert_eq!(
        decoded(&[json!({"responseId": "r", "modelVersion": "m"}), end("STOP")]),
        ["ping", "start  ", "finish Stop None"]
    );
}

#[test]
fn a_blocked_prompt_is_a_refusal() {
    let blocked = json!({"promptFeedback": {"blockReason": "SAFETY", "blockReasonMessage": "No."},
        "usageMetadata": {"promptTokenCount": 3, "totalTokenCount": 3}});
    let lines = decoded(&[blocked]);
    assert_eq!(
        lines,
        [
            "start  ",
            "usage Some(3) Some(0)",
            "0 Refusal",
            "0 + The prompt was blocked: SAFETY. No.",
            "0 stop",
            "finish ContentFilter None"
        ]
    );
}

#[test]
fn only_the_first_alternative_is_read() {
    let other = json!({"candidates": [{"index": 1, "content": {"parts": [{"text": "b"}]}, "finishReason": "STOP"},
        {"content": {"parts": [{"text": "a"}]}, "finishReason": "STOP"}]});
    assert_eq!(decoded(&[other]), ["start  ", "0 Text", "0 + a", "0 stop", "finish Stop None"]);
}

#[test]
fn nameless_and_too_many_calls_are_failures() {
    let lines = decoded(&[parts(&json!([{"functionCall": {"args": {}}}]))]);
    assert_eq!(lines.last().map(String::as_str), Some("error Some(502) invalid_tool_call"));
    let many: Vec<Value> = (0..1025).map(|_| json!({"functionCall": {"name": "f"}})).collect();
    let lines = decoded(&[parts(&json!(many)), end("STOP")]);
    assert_eq!(lines.last().map(String::as_str), Some("error Some(502) bad_gateway"));
}

#[test]
fn half_characters_and_repeated_members_are_read() {
    let mut decoder = Decoder::default();
    let mut lines = Lines::default();
    for data in [
        r#"{"candidates":[{"content":{"parts":[{"text":"a\ud83d"}]}}],"responseId":"x","responseId":"r"}"#,
        "[DONE]",
        "null",
    ] {
        decoder.frame(Frame { event: None, data: data.as_bytes() }, &mut lines).expect("readable");
    }
    assert_eq!(lines.0, ["start r ", "0 Text", "0 + a\u{fffd}"]);
    decoder.frame(Frame { event: None, data: b"{\"candidates\":7}" }, &mut lines).expect("readable");
    assert_eq!(lines.0.last().map(String::as_str), Some("error Some(502) bad_gateway"));
}

fn encoded(events: Vec<StreamEvent<'_>>, framing: Framing) -> String {
    let echo =
        Echo { model: "gc/x".into(), framing: Some(framing), estimated_input_tokens: 9, ..Echo::default() };
    let mut encoder = Encoder::new(echo);
    let mut out = BytesMut::new();
    for event in events {
        encoder.event(event, &mut out).expect("written");
    }
    String::from_utf8(out.to_vec()).expect("UTF-8")
}

fn events() -> Vec<StreamEvent<'static>> {
    let start = |index, block| StreamEvent::BlockStart { index, block };
    let delta = |index, delta| StreamEvent::Delta { index, delta };
    let stop = |index| StreamEvent::BlockStop { index };
    vec![
        StreamEvent::Start { id: "chatcmpl-0123456789abcdef01234567".into(), model: "up".into() },
        start(0, BlockHead::Thinking { item: None }),
        delta(0, Delta::Thinking("plan".into())),
        delta(0, Delta::Signature("omr1.x.y".into())),
        stop(0),
        start(1, BlockHead::ToolCall { id: "c1".into(), name: "f".into() }),
        delta(1, Delta::ToolArgs("{\"a\"".into())),
        delta(1, Delta::ToolArgs(":1}".into())),
        stop(1),
        start(2, BlockHead::RedactedThinking { data: "omr1.z".into() }),
        stop(2),
        start(3, BlockHead::Text),
        delta(3, Delta::Text("Hi ".into())),
        delta(3, Delta::Text("\"you\"".into())),
        stop(3),
        start(4, BlockHead::ToolCall { id: "c2".into(), name: "g".into() }),
        delta(4, Delta::ToolArgs("{\"cut\":1".into())),
        stop(4),
        StreamEvent::Ping,
        StreamEvent::Error(UpstreamError::default()),
    ]
}

#[test]
fn a_client_gets_whole_parts() {
    let mut given = events();
    given.push(StreamEvent::Usage(Usage { output_total: Some(12), reasoning: Some(7), ..Usage::default() }));
    given.push(StreamEvent::Finish { reason: FinishReason::Length, stop_sequence: None });
    let out = encoded(given, Framing::Sse);
    let chunks: Vec<Value> = out
        .split_terminator("\n\n")
        .map(|frame| serde_json::from_str(frame.strip_prefix("data: ").expect("data")).expect("JSON"))
        .collect();
    let seen: Vec<&Value> = chunks.iter().map(|chunk| &chunk["candidates"][0]["content"]["parts"]).collect();
    assert_eq!(
        seen,
        [
            &json!([{"text": "plan", "thought": true}]),
            &json!([{"functionCall": {"id": "c1", "name": "f", "args": {"a": 1}}, "thoughtSignature": "b21yMS54Lnk="}]),
            &json!([{"text": "Hi ", "thoughtSignature": "b21yMS56"}]),
            &json!([{"text": "\"you\""}]),
            // The call that was cut off is left out.
            &json!([{"text": ""}]),
        ]
    );
    for (at, chunk) in chunks.iter().enumerate() {
        assert_eq!((&chunk["modelVersion"], &chunk["candidates"][0]["index"]), (&json!("gc/x"), &json!(0)));
        assert_eq!(chunk["responseId"], "0123456789abcdef01234567");
        assert_eq!(chunk["candidates"][0]["content"]["role"], "model");
        let last = at + 1 == chunks.len();
        assert_eq!(chunk["candidates"][0].get("finishReason"), last.then_some(&json!("MAX_TOKENS")));
        assert_eq!(chunk.get("usageMetadata").is_some(), last);
    }
    assert_eq!(
        chunks[4]["usageMetadata"],
        json!({"promptTokenCount": 9, "candidatesTokenCount": 5, "thoughtsTokenCount": 7, "totalTokenCount": 21})
    );
}

#[test]
fn an_unfinished_call_of_an_answer_that_went_on_is_repaired() {
    let mut given = events();
    given.push(StreamEvent::Finish { reason: FinishReason::ToolUse, stop_sequence: None });
    assert!(encoded(given, Framing::Sse).contains(r#""name":"g","args":{"cut":1}"#));
}

#[test]
fn a_list_is_one_document_at_any_end() {
    let error = PublicError {
        kind: ErrorKind::Overloaded,
        code: None,
        message: "busy".into(),
        param: None,
        request_id: String::new(),
        attempts: Vec::new(),
        retry_at: None,
    };
    let finish = || StreamEvent::Finish { reason: FinishReason::Stop, stop_sequence: None };
    let mut whole = events();
    whole.push(finish());
    let out = encoded(whole, Framing::JsonList);
    assert!(out.starts_with("[{") && out.ends_with("}\n]") && out.contains("}\n,{"), "{out}");
    let list: Vec<Value> = serde_json::from_str(&out).expect("a list");
    assert_eq!(list.len(), 6);

    for given in [Vec::new(), events()] {
        let echo = Echo { framing: Some(Framing::JsonList), ..Echo::default() };
        let mut encoder = Encoder::new(echo);
        let mut out = BytesMut::new();
        for event in given {
            encoder.event(event, &mut out).expect("written");
        }
        encoder.fail(&error, &mut out);
        let list: Vec<Value> = serde_json::from_slice(&out).expect("a list");
        assert_eq!(list.last().expect("an error")["error"]["status"], "UNAVAILABLE");
    }
    let mut out = BytesMut::new();
    Frames::new(Framing::Sse).error(&mut out, &error);
    assert!(out.starts_with(b"data: {\"error\":{\"code\":503,"), "`error` comes first");
}

#[test]
fn a_word_comes_whole_and_without_quotes() {
    let request = bytes::Bytes::from_static(br#"{"generationConfig":{"responseMimeType":"text/x.enum"}}"#);
    let mut encoder = Encoder::new(Echo { request, ..Echo::default() });
    let mut out = BytesMut::new();
    let text = |text: &'static str| StreamEvent::Delta { index: 0, delta: Delta::Text(text.into()) };
    for event in [
        StreamEvent::Start { id: "".into(), model: "".into() },
        StreamEvent::BlockStart { index: 0, block: BlockHead::Text },
        text("\"re"),
        text("d\""),
        StreamEvent::BlockStop { index: 0 },
    ] {
        encoder.event(event, &mut out).expect("written");
    }
    let out = String::from_utf8_lossy(&out);
    assert!(out.contains(r#"[{"text":"red"}]"#) && out.matches("data: ").count() == 1, "{out}");
}
