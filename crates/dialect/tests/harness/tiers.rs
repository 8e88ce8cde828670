//! The tier in which an answer was served, and what else streams tell beside their text or have no word for.

use bytes::BytesMut;
use omniroute_dialect::{
    ir::LossAction,
    shape::Shape,
    stream::{StreamPipe as _, Transcoder},
};
use serde_json::{Value, json};

use crate::support::{dialect, echo, events, named, stream};

/// Chunks of an upstream that tells this tier in each of them.
fn chat(tiers: [Value; 3]) -> String {
    let deltas = [json!({"content": "a"}), json!({"content": "b"}), json!({})];
    let chunks = deltas.into_iter().zip(tiers).zip([None, None, Some("stop")]);
    let lines = chunks.map(|((delta, tier), finish)| {
        let choice = json!({"index": 0, "delta": delta, "finish_reason": finish});
        format!("data: {}\n\n", json!({"id": "c", "model": "m", "service_tier": tier, "choices": [choice]}))
    });
    lines.chain(["data: [DONE]\n\n".to_owned()]).collect()
}

fn messages(usage: &Value) -> String {
    named(&[
        json!({"type": "message_start", "message": {"id": "msg_1", "model": "m", "usage": usage}}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a"}}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}}),
        json!({"type": "message_stop"}),
    ])
}

fn responses(begun: &str, done: &Value) -> String {
    let body = |status: &str, tier: Value| {
        json!({"id": "resp_1", "model": "m", "status": status, "service_tier": tier, "output": [
            {"type": "message", "id": "msg_1", "content": [{"type": "output_text", "text": "a"}]}]})
    };
    named(&[
        json!({"type": "response.created", "response": body("in_progress", json!(begun))}),
        json!({"type": "response.completed", "response": body("completed", done.clone())}),
    ])
}

/// The tiers that a client is told, event by event.
fn told(out: &str) -> Vec<Value> {
    let places =
        ["/service_tier", "/response/service_tier", "/message/usage/service_tier", "/usage/service_tier"];
    let of = |event: &Value| places.iter().find_map(|place| event.pointer(place)).cloned();
    events(out).iter().filter(|event| !event.is_string()).filter_map(of).collect()
}

#[test]
fn a_tier_is_told_as_soon_as_it_is_known() {
    let usual = chat([json!("default"), json!("default"), json!("default")]);
    let late = chat([Value::Null, json!("scale"), json!("scale")]);
    let anthropic = messages(&json!({"input_tokens": 3, "output_tokens": 1, "service_tier": "standard"}));
    for (upstream, client, input, expected) in [
        // In the start of the message, once, since nothing is written before.
        ("openai", "anthropic", &usual, json!(["standard"])),
        // At the end if it was not known before; words that nobody knows go as they are.
        ("openai", "anthropic", &late, json!(["scale"])),
        ("openai", "responses", &usual, json!(["default"])),
        ("anthropic", "responses", &anthropic, json!(["default"])),
        // In all chunks but the first: text, the end and the usage.
        ("anthropic", "openai", &anthropic, json!(["default", "default", "default"])),
        // What was asked for is not what became of it.
        ("responses", "openai", &responses("auto", &json!("priority")), json!(["priority", "priority"])),
        ("responses", "anthropic", &responses("auto", &json!("flex")), json!(["standard"])),
        ("responses", "openai", &responses("flex", &json!("flex")), json!(["flex", "flex", "flex"])),
    ] {
        let (out, _) = stream(upstream, client, input);
        assert_eq!(json!(told(&out)), expected, "{upstream} to {client}: {out}");
    }
}

#[test]
fn what_is_no_word_for_a_tier_is_none() {
    let long = "x".repeat(65);
    for tier in [json!(""), json!(long), json!({"a": 1}), json!(7)] {
        for client in ["anthropic", "responses"] {
            let (out, _) = stream("openai", client, &chat([tier.clone(), tier.clone(), tier.clone()]));
            assert!(!out.contains("service_tier"), "{tier}: {out}");
        }
    }
}

#[test]
fn clients_that_asked_for_a_tier_are_told_which_one_it_became() {
    let request = json!({"model": "m", "input": "a", "service_tier": "priority"}).to_string();
    let written = |input: &str| {
        let echo = omniroute_dialect::Echo { request: request.clone().into(), ..echo() };
        let shape = Shape::none(dialect("openai"));
        let mut pipe = Transcoder::new(dialect("openai"), dialect("responses"), echo, shape);
        let mut out = BytesMut::new();
        pipe.push(input.as_bytes(), &mut out).unwrap();
        pipe.finish(&mut out).unwrap();
        told(std::str::from_utf8(&out).unwrap())
    };
    let default = || json!("default");
    assert_eq!(written(&chat([default(), default(), default()])), ["priority", "priority", "default"]);
    assert_eq!(written(&chat([(); 3].map(|()| Value::Null))), ["priority", "priority", "priority"]);
}

#[test]
fn what_a_stream_loses_is_recorded_once_under_the_path_of_a_whole_answer() {
    let text = |at: u64| {
        [
            json!({"type": "content_block_start", "index": at, "content_block": {"type": "text", "text": "a"}}),
            json!({"type": "content_block_stop", "index": at}),
        ]
    };
    let block = |at: u64, block: Value| {
        [
            json!({"type": "content_block_start", "index": at, "content_block": block}),
            json!({"type": "content_block_stop", "index": at}),
        ]
    };
    let mut input = vec![json!({"type": "message_start", "message": {"id": "msg_1", "model": "m"}})];
    input.extend(block(0, json!({"type": "tool_use", "id": "t", "name": "f", "input": {}})));
    input.push(text(1)[0].clone());
    for _ in 0..3 {
        input.push(json!({"type": "content_block_delta", "index": 1, "delta": {"type": "citations_delta",
            "citation": {"type": "char_location", "cited_text": "x", "document_index": 0}}}));
    }
    input.push(text(1)[1].clone());
    input.extend(block(2, json!({"type": "container_upload", "file_id": "f"})));
    input.push(json!({"type": "message_delta", "delta": {"stop_reason": "tool_use"}}));
    input.push(json!({"type": "message_stop"}));
    let mut pipe =
        Transcoder::new(dialect("anthropic"), dialect("openai"), echo(), Shape::none(dialect("anthropic")));
    let mut out = BytesMut::new();
    pipe.push(named(&input).as_bytes(), &mut out).unwrap();
    pipe.finish(&mut out).unwrap();
    let lost = pipe.take_losses();
    let mut lost: Vec<_> = lost.iter().map(|loss| (&*loss.path, loss.action)).collect();
    lost.sort_unstable();
    assert_eq!(
        lost,
        [
            ("content[1]", LossAction::Mapped),
            ("content[1].citations", LossAction::Dropped),
            ("content[2]", LossAction::Dropped)
        ]
    );
    assert!(pipe.take_losses().is_empty());
}

#[test]
fn log_probabilities_of_a_text_that_waits_for_a_call_are_recorded_as_lost() {
    let choice = |delta: Value, logprobs: Value, finish: Value| {
        let choice = json!({"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish});
        format!("data: {}\n\n", json!({"id": "c", "model": "m", "choices": [choice]}))
    };
    let tokens = json!({"content": [{"token": "x", "logprob": -0.5, "bytes": [120], "top_logprobs": []}]});
    let call = |arguments: &str| json!({"tool_calls": [{"index": 0, "id": "t", "function": {"name": "f", "arguments": arguments}}]});
    for (arguments, expected) in [("{\"a\":", &["logprobs"][..]), ("{}", &[])] {
        let input = [
            choice(call(arguments), Value::Null, Value::Null),
            choice(json!({"content": "x"}), tokens.clone(), json!("tool_calls")),
        ];
        let upstream = dialect("openai");
        let mut pipe = Transcoder::new(upstream, dialect("responses"), echo(), Shape::none(upstream));
        let mut out = BytesMut::new();
        pipe.push(input.concat().as_bytes(), &mut out).unwrap();
        pipe.finish(&mut out).unwrap();
        let lost: Vec<_> = pipe.take_losses().into_iter().map(|loss| loss.path).collect();
        assert_eq!(lost, expected, "{arguments}");
    }
}
