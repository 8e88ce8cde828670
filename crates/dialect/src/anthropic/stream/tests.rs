use bytes::{Bytes, BytesMut};
use omniroute_wire::sse::Frame;

use super::*;
use crate::{
    Dialect as _, Echo,
    anthropic::Anthropic,
    ir::{FinishReason, Usage},
    shape::Shape,
    stream::{
        BlockHead, Delta, GrammarCheck, Lines, StreamCollector, StreamDecoder as _, StreamEncoder as _,
        StreamEvent, StreamPipe as _, Transcoder,
    },
};

fn events(frames: &[&str]) -> Vec<String> {
    let mut decoder = Decoder::default();
    let mut sink = GrammarCheck::new(Lines::default());
    for data in frames {
        decoder.frame(Frame { event: None, data: data.as_bytes() }, &mut sink).expect("readable");
    }
    decoder.finish(&mut sink).expect("readable");
    sink.finish().expect("ended").0
}

const START: &str = r#"{"type":"message_start","message":{"id":"msg_1","model":"m"}}"#;
const TEXT_0: &str = r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#;
const DELTA_0: &str = r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a"}}"#;
const STOP_0: &str = r#"{"type":"content_block_stop","index":0}"#;
const CALL_1: &str = r#"{"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"t1","name":"f","input":{}}}"#;
const ARGS_1: &str = r#"{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{\"x\":1}"}}"#;
const STOP_1: &str = r#"{"type":"content_block_stop","index":1}"#;
const FINISH: &str = r#"{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":3}}"#;
const END: &str = r#"{"type":"message_stop"}"#;

#[test]
fn a_stream_becomes_events() {
    let thinking = r#"{"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}"#;
    let found = events(&[
        r#"{"type":"message_start","message":{"id":"msg_1","model":"m","usage":{"input_tokens":30,"cache_read_input_tokens":60,"output_tokens":1}}}"#,
        thinking,
        r#"{"type":"ping"}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"abc"}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"S"}}"#,
        STOP_0,
        CALL_1,
        r#"{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":""}}"#,
        STOP_1,
        FINISH,
        END,
        DELTA_0,
    ]);
    assert_eq!(
        found,
        [
            "start msg_1 m",
            "usage Some(90) Some(1)",
            "0 Thinking",
            "ping",
            "0 ~ abc",
            "0 signed S",
            "0 stop",
            "1 call t1 f",
            "1 stop",
            "usage Some(90) Some(3)",
            "finish ToolUse None",
        ]
    );
}

#[test]
fn interleaved_blocks_come_one_after_the_other() {
    let found = events(&[START, TEXT_0, CALL_1, ARGS_1, DELTA_0, STOP_1, DELTA_0, STOP_0, FINISH, END]);
    assert_eq!(
        found,
        [
            "start msg_1 m",
            "0 Text",
            "0 + a",
            "0 + a",
            "0 stop",
            "1 call t1 f",
            "1 args {\"x\":1}",
            "1 stop",
            "usage None Some(3)",
            "finish ToolUse None",
        ]
    );
    // The same without any stops.
    let found = events(&[START, TEXT_0, DELTA_0, CALL_1, ARGS_1, END]);
    assert_eq!(found.last().map(String::as_str), Some("finish ToolUse None"));
    assert!(found.contains(&"1 args {\"x\":1}".to_owned()));
}

#[test]
fn what_compatible_upstreams_leave_out_or_add() {
    for (frames, expected) in [
        // No starts at all.
        (
            &[DELTA_0, FINISH][..],
            &["start  ", "0 Text", "0 + a", "usage None Some(3)", "0 stop", "finish Stop None"][..],
        ),
        // Arguments in the start only, and no id.
        (
            &[
                START,
                r#"{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","name":"f","input":{"q": 2}}}"#,
                STOP_0,
                END,
            ],
            &["0 args {\"q\":2}", "0 stop", "finish ToolUse None"],
        ),
        // A block that only this dialect has, and indices that go on behind it.
        (
            &[
                START,
                r#"{"type":"content_block_start","index":0,"content_block":{"type":"server_tool_use","id":"s","name":"web_search","input":{}}}"#,
                r#"{"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":"{}"}}"#,
                STOP_0,
                r#"{"type":"content_block_start","index":1,"content_block":{"type":"text","text":"b"}}"#,
                STOP_1,
                END,
            ],
            &["start msg_1 m", "0 Text", "0 + b", "0 stop", "finish Stop None"],
        ),
        // Half a character, a repeated member, a second start, an unknown event.
        (
            &[
                START,
                START,
                r#"{"type":"moon"}"#,
                TEXT_0,
                r#"{"type":"content_block_delta","index":9,"index":0,"delta":{"type":"text_delta","text":"\ud83d"}}"#,
                STOP_0,
                END,
            ],
            &["start msg_1 m", "0 Text", "0 + \u{fffd}", "0 stop", "finish Stop None"],
        ),
        // A refusal with its reason.
        (
            &[
                START,
                r#"{"type":"message_delta","delta":{"stop_reason":"refusal","stop_details":{"type":"refusal","explanation":"No."}}}"#,
                END,
            ],
            &["0 Refusal", "0 + No.", "0 stop", "finish ContentFilter None"],
        ),
    ] {
        let found = events(frames);
        assert_eq!(&found[found.len() - expected.len()..], expected);
    }
}

#[test]
fn streams_that_fail_say_so() {
    for (frames, expected) in [
        (&[][..], "error Some(502) upstream_stream_truncated"),
        (&[START, TEXT_0, DELTA_0], "error Some(502) upstream_stream_truncated"),
        (
            &[START, r#"{"type":"error","error":{"type":"overloaded_error","message":"busy"}}"#],
            "error Some(529) busy",
        ),
        (&[r#"{"error":{"message":"no"}}"#], "error None no"),
        (&[START, r#"{"type":"content_block_delta","#], "error Some(502) bad_gateway"),
        (
            &[
                START,
                r#"{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"t"}}"#,
            ],
            "error Some(502) invalid_tool_call",
        ),
    ] {
        assert_eq!(events(frames).last().map(String::as_str), Some(expected));
    }
    assert_eq!(events(&[START, "<html>", FINISH]).last().map(String::as_str), Some("finish Stop None"));
}

#[test]
fn recorded_streams_add_up_to_their_whole_answers() {
    for (stream, whole) in [
        (
            &include_bytes!("../../../fixtures/anthropic/tools/stream.sse")[..],
            &include_bytes!("../../../fixtures/anthropic/tools/response.json")[..],
        ),
        (
            include_bytes!("../../../fixtures/anthropic/plain/stream.sse"),
            include_bytes!("../../../fixtures/anthropic/plain/response.json"),
        ),
    ] {
        let mut collector = StreamCollector::new(&Anthropic);
        for piece in stream.chunks(5) {
            collector.push(piece).expect("readable");
        }
        let collected = collector.finish().expect("complete");
        let decoded = Anthropic.decode_response(&Bytes::from_static(whole)).expect("readable");
        assert_eq!(format!("{collected:?}"), format!("{decoded:?}"));
    }
}

fn written(events: &[StreamEvent<'_>]) -> String {
    let echo = Echo {
        model: "asked".into(),
        request_id: "req_1".into(),
        estimated_input_tokens: 40,
        ..Echo::default()
    };
    let mut encoder = Encoder::new(echo);
    let mut out = BytesMut::new();
    for event in events {
        encoder.event(event.clone(), &mut out).expect("writable");
    }
    String::from_utf8(out.to_vec()).expect("UTF-8")
}

fn start() -> StreamEvent<'static> {
    StreamEvent::Start { id: "chatcmpl-0123456789abcdef01234567".into(), model: "up".into() }
}

#[test]
fn events_become_a_stream() {
    let delta = |index, delta| StreamEvent::Delta { index, delta };
    let usage = Usage {
        input_uncached: Some(30),
        cache_read: Some(60),
        cache_write: Some(10),
        output_total: Some(20),
        ..Usage::default()
    };
    let text = written(&[
        start(),
        StreamEvent::BlockStart { index: 0, block: BlockHead::Thinking { item: None } },
        delta(0, Delta::Thinking("t".into())),
        StreamEvent::BlockStop { index: 0 },
        StreamEvent::BlockStart { index: 1, block: BlockHead::Text },
        StreamEvent::BlockStop { index: 1 },
        StreamEvent::BlockStart { index: 2, block: BlockHead::Text },
        delta(2, Delta::Text("Hi\n\"".into())),
        StreamEvent::BlockStop { index: 2 },
        StreamEvent::BlockStart {
            index: 3,
            block: BlockHead::ToolCall { id: "a b".into(), name: "f".into() },
        },
        StreamEvent::BlockStop { index: 3 },
        StreamEvent::Usage(usage),
        StreamEvent::Finish { reason: FinishReason::ToolUse, stop_sequence: None },
    ]);
    insta::assert_snapshot!(text);
}

#[test]
fn a_wrapped_signature_without_a_text_is_a_redacted_block() {
    let block = |index: u32, deltas: &[Delta<'static>]| {
        let head = BlockHead::Thinking { item: None };
        let mut events = vec![StreamEvent::BlockStart { index, block: head }];
        events.extend(deltas.iter().cloned().map(|delta| StreamEvent::Delta { index, delta }));
        events.push(StreamEvent::BlockStop { index });
        events
    };
    let mut events = vec![start()];
    events.extend(block(0, &[Delta::Signature("omr1.a".into())]));
    events.extend(block(1, &[Delta::Thinking("t".into()), Delta::Signature("omr1.b".into())]));
    let out = written(&events);
    let redacted = r#"{"type":"content_block_start","index":0,"content_block":{"type":"redacted_thinking","data":"omr1.a"}}"#;
    assert!(out.contains(redacted), "{out}");
    assert_eq!(
        (out.matches("signature_delta").count(), out.matches("content_block_stop\"").count()),
        (1, 2),
        "{out}"
    );
}

#[test]
fn usage_that_is_known_at_the_start_stands_there() {
    let usage = Usage { input_uncached: Some(3), cache_read: Some(0), ..Usage::default() };
    let text = written(&[start(), StreamEvent::Usage(usage)]);
    let expected = r#""usage":{"input_tokens":3,"cache_creation_input_tokens":null,"cache_read_input_tokens":0,"output_tokens":1}"#;
    assert!(text.contains(expected), "{text}");
}

#[test]
fn unknown_usage_is_estimated() {
    let text = written(&[
        start(),
        StreamEvent::BlockStart { index: 0, block: BlockHead::Refusal },
        StreamEvent::Delta { index: 0, delta: Delta::Text("12345".into()) },
        StreamEvent::BlockStop { index: 0 },
        StreamEvent::Finish { reason: FinishReason::ContentFilter, stop_sequence: Some("x".into()) },
    ]);
    assert!(text.contains(r#""usage":{"input_tokens":40,"#), "{text}");
    assert!(text.contains(r#""stop_reason":"refusal","stop_sequence":"x","stop_details":{"#), "{text}");
    assert!(text.contains(r#""usage":{"output_tokens":2}"#), "{text}");
}

#[test]
fn a_long_explanation_has_an_end_and_no_hole() {
    let text = |text: String| StreamEvent::Delta { index: 0, delta: Delta::Text(text.into()) };
    let told = written(&[
        start(),
        StreamEvent::BlockStart { index: 0, block: BlockHead::Refusal },
        text("n".repeat(4090)),
        text("cannot help with".to_owned()),
        text("you".to_owned()),
        StreamEvent::BlockStop { index: 0 },
        StreamEvent::Finish { reason: FinishReason::ContentFilter, stop_sequence: None },
    ]);
    let (_, explanation) = told.rsplit_once(r#""explanation":""#).expect("told");
    assert!(explanation.starts_with(&format!("{}\"", "n".repeat(4090))), "{explanation}");
}

#[test]
fn a_stream_translated_into_its_own_dialect_says_the_same() {
    let start = r#"{"type":"message_start","message":{"usage":{"input_tokens":1}}}"#;
    let frames = [start, TEXT_0, DELTA_0, STOP_0, CALL_1, ARGS_1, STOP_1, FINISH, END];
    let stream: String = frames.iter().map(|data| format!("data: {data}\n\n")).collect();
    let once = |stream: &str| {
        let echo = Echo { model: "m".into(), ..Echo::default() };
        let mut pipe = Transcoder::new(&Anthropic, &Anthropic, echo, Shape::none(&Anthropic));
        let mut out = BytesMut::new();
        pipe.push(stream.as_bytes(), &mut out).expect("readable");
        pipe.finish(&mut out).expect("readable");
        assert!(pipe.watch().complete);
        String::from_utf8(out.to_vec()).expect("UTF-8")
    };
    let first = once(&stream);
    assert_eq!(once(&first).replace(PING, ""), first.replace(PING, ""));
}

const PING: &str = "event: ping\ndata: {\"type\":\"ping\"}\n\n";

proptest::proptest! {
    #[test]
    fn any_order_of_events_keeps_to_the_grammar(picks in proptest::collection::vec(0_usize..12, 0..24)) {
        let all = [
            START, TEXT_0, DELTA_0, STOP_0, CALL_1, ARGS_1, STOP_1, FINISH, END,
            r#"{"type":"error","error":{"message":"x"}}"#, "{", r#"{"type":"content_block_stop"}"#,
        ];
        let stream: String = picks.iter().map(|pick| format!("data: {}\n\n", all[*pick])).collect();
        crate::fuzz::stream(&super::super::Anthropic, stream.as_bytes());
    }

    #[test]
    fn any_bytes_are_survived(data in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        crate::fuzz::stream(&super::super::Anthropic, &data);
    }
}
