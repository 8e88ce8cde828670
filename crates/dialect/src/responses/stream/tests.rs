//! Events as upstreams send them, and what they are; and what clients are told.

use std::borrow::Cow;

use bytes::BytesMut;
use omniroute_wire::sse::Frame;
use serde_json::{Value, json};

use super::{Decoder, Encoder};
use crate::{
    Echo,
    ir::{ErrorKind, FinishReason, PublicError, Usage},
    stream::{BlockHead, Delta, GrammarCheck, Lines, StreamDecoder as _, StreamEncoder as _, StreamEvent},
};

fn decode(events: &[Value]) -> Vec<String> {
    let mut decoder = Decoder::default();
    let mut check = GrammarCheck::new(Lines::default());
    for event in events {
        decoder.frame(Frame { event: None, data: event.to_string().as_bytes() }, &mut check).unwrap();
    }
    decoder.finish(&mut check).unwrap();
    check.finish().unwrap().0
}

fn about(name: &str, index: u64, item: Value) -> Value {
    let mut event = json!({"type": name, "output_index": index});
    event["item"] = item;
    event
}

fn added(index: u64, item: Value) -> Value {
    about("response.output_item.added", index, item)
}

fn done(index: u64, item: Value) -> Value {
    about("response.output_item.done", index, item)
}

fn call(id: &str, call_id: &str, name: &str, arguments: &str) -> Value {
    json!({"type": "function_call", "id": id, "call_id": call_id, "name": name, "arguments": arguments})
}

fn message(id: &str, text: &str) -> Value {
    json!({"type": "message", "id": id, "role": "assistant",
        "content": [{"type": "output_text", "text": text, "annotations": []}]})
}

fn text_delta(index: u64, id: &str, text: &str) -> Value {
    json!({"type": "response.output_text.delta", "output_index": index, "item_id": id, "content_index": 0,
        "delta": text})
}

fn arguments_delta(index: u64, text: &str) -> Value {
    json!({"type": "response.function_call_arguments.delta", "output_index": index, "item_id": "x", "delta": text})
}

fn completed(output: Value) -> Value {
    let mut event = json!({"type": "response.completed", "response": {"id": "resp_1", "status": "completed",
        "usage": {"input_tokens": 3, "output_tokens": 2}}});
    event["response"]["output"] = output;
    event
}

#[test]
fn arguments_that_come_only_when_they_are_done_are_not_lost() {
    for events in [
        vec![
            added(0, call("fc_1", "a", "f", "")),
            json!({"type": "response.function_call_arguments.done", "output_index": 0, "arguments": "{\"q\":2}"}),
            done(0, call("fc_1", "a", "f", "{\"q\":2}")),
            completed(json!([])),
        ],
        vec![
            added(0, call("fc_1", "a", "f", "")),
            done(0, call("fc_1", "a", "f", "{\"q\":2}")),
            completed(json!([])),
        ],
        vec![completed(json!([call("fc_1", "a", "f", "{\"q\":2}")]))],
        vec![added(0, call("fc_1", "a", "f", "")), completed(json!([call("fc_1", "a", "f", "{\"q\":2}")]))],
    ] {
        let lines = decode(&events);
        let expected =
            ["0 call a f", "0 args {\"q\":2}", "0 stop", "usage Some(3) Some(2)", "finish ToolUse None"];
        assert_eq!(lines[1..], expected, "{events:?}");
    }
}

#[test]
fn only_what_is_missing_is_supplied() {
    let lines = decode(&[
        text_delta(0, "m", "Hel"),
        json!({"type": "response.output_text.done", "output_index": 0, "content_index": 0, "text": "Hello"}),
        done(0, message("m", "Hello!")),
        added(1, call("fc", "a", "f", "")),
        arguments_delta(1, "{\"x\":"),
        done(1, call("fc", "a", "f", "{\"x\":1}")),
        completed(json!([message("m", "Hello!"), call("fc", "a", "f", "{\"x\":1}")])),
    ]);
    let expected = [
        "start  ",
        "0 Text",
        "0 + Hel",
        "0 + lo",
        "0 + !",
        "0 stop",
        "1 call a f",
        "1 args {\"x\":",
        "1 args 1}",
        "1 stop",
        "usage Some(3) Some(2)",
        "finish ToolUse None",
    ];
    assert_eq!(lines, expected);
    // Written in another way at the end, it is still the same call.
    let lines = decode(&[
        added(0, call("fc", "a", "f", "")),
        arguments_delta(0, "{ \"x\": 1 }"),
        done(0, call("fc", "a", "f", "{\"x\":1,\"padding\":\"\"}")),
        completed(json!([])),
    ]);
    assert_eq!(lines[2..4], ["0 args { \"x\": 1 }", "0 stop"]);
}

#[test]
fn ids_that_are_empty_or_change_do_not_matter() {
    let lines = decode(&[
        added(0, json!({"type": "message", "id": "", "role": "assistant", "content": []})),
        text_delta(0, "a", "one"),
        text_delta(0, "b", " two"),
        done(0, message("c", "one two")),
        added(1, call("", "call_1", "f", "")),
        arguments_delta(1, "{}"),
        completed(json!([message("d", "one two"), call("e", "call_1", "f", "{}")])),
    ]);
    assert_eq!(
        lines[1..8],
        ["0 Text", "0 + one", "0 +  two", "0 stop", "1 call call_1 f", "1 args {}", "1 stop"]
    );
}

#[test]
fn items_that_all_have_one_place_are_told_apart() {
    let lines = decode(&[
        added(0, json!({"type": "reasoning", "id": "rs_1", "summary": []})),
        json!({"type": "response.reasoning_summary_text.delta", "output_index": 0, "summary_index": 0, "delta": "hm"}),
        done(
            0,
            json!({"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]}),
        ),
        added(0, call("fc_1", "a", "f", "")),
        arguments_delta(0, "{}"),
        done(0, call("fc_1", "a", "f", "{}")),
        added(0, call("fc_2", "b", "f", "")),
        arguments_delta(0, "{\"n\":2}"),
        done(0, call("fc_2", "b", "f", "{\"n\":2}")),
        completed(json!([
            {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]},
            call("fc_1", "a", "f", "{}"),
            call("fc_2", "b", "f", "{\"n\":2}")])),
    ]);
    let expected = [
        "0 Thinking rs_1",
        "0 ~ hm",
        "0 stop",
        "1 call a f",
        "1 args {}",
        "1 stop",
        "2 call b f",
        "2 args {\"n\":2}",
        "2 stop",
    ];
    assert_eq!(lines[1..10], expected);
}

#[test]
fn interleaved_items_come_out_one_after_the_other() {
    let lines = decode(&[
        added(0, call("fc_1", "a", "f", "")),
        added(1, call("fc_2", "b", "g", "")),
        arguments_delta(0, "{\"x\":"),
        arguments_delta(1, "{\"y\":"),
        text_delta(2, "m", "mid"),
        arguments_delta(1, "2}"),
        text_delta(2, "m", "dle"),
        arguments_delta(0, "1}"),
        done(1, call("fc_2", "b", "g", "{\"y\":2}")),
        done(0, call("fc_1", "a", "f", "{\"x\":1}")),
        done(2, message("m", "middle")),
        completed(json!([])),
    ]);
    let expected = [
        "0 call a f",
        "0 args {\"x\":",
        "0 args 1}",
        "0 stop",
        "1 call b g",
        "1 args {\"y\":2}",
        "1 stop",
        "2 Text",
        "2 + middle",
        "2 stop",
    ];
    assert_eq!(lines[1..11], expected);
}

#[test]
fn a_name_that_comes_late_is_waited_for_and_one_that_never_comes_is_an_error() {
    let lines = decode(&[
        added(0, call("fc_1", "a", "", "")),
        arguments_delta(0, "{}"),
        done(0, call("fc_1", "a", "f", "{}")),
        completed(json!([])),
    ]);
    assert_eq!(lines[1..4], ["0 call a f", "0 args {}", "0 stop"]);
    for events in [
        vec![added(0, call("fc_1", "a", "", "")), arguments_delta(0, "{}"), completed(json!([]))],
        vec![
            added(0, call("fc_1", "a", " ", "")),
            done(0, call("fc_1", "a", "", "{}")),
            completed(json!([])),
        ],
    ] {
        assert_eq!(decode(&events).last().unwrap(), "error Some(502) invalid_tool_call");
    }
}

#[test]
fn reasoning_shows_its_summary_or_else_its_text() {
    let part = |index: u64, text: &str| json!({"type": "response.reasoning_summary_text.delta", "output_index": 0, "summary_index": index, "delta": text});
    let raw = json!({"type": "response.reasoning_text.delta", "output_index": 0, "content_index": 0, "delta": "raw"});
    let item = |encrypted: &str| {
        json!({"type": "reasoning", "id": "rs_1", "encrypted_content": encrypted, "content": [{"type": "reasoning_text", "text": "raw"}],
            "summary": [{"type": "summary_text", "text": "a b"}, {"type": "summary_text", "text": "c"}]})
    };
    let lines = decode(&[
        added(0, item("first")),
        part(0, "a"),
        raw.clone(),
        part(0, " b"),
        part(1, "c"),
        done(0, item("last")),
        completed(json!([item("last")])),
    ]);
    assert_eq!(lines[1..7], ["0 Thinking rs_1", "0 ~ a", "0 ~  b", "0 ~ \n\nc", "0 signed last", "0 stop"]);
    let mut bare = item("");
    bare["summary"] = json!([]);
    let lines = decode(&[added(0, bare.clone()), raw, done(0, bare), completed(json!([]))]);
    assert_eq!(lines[1..4], ["0 Thinking rs_1", "0 ~ raw", "0 stop"]);
    let empty = json!({"type": "reasoning", "id": "rs_1", "summary": []});
    let lines = decode(&[added(0, empty.clone()), done(0, empty), completed(json!([]))]);
    assert_eq!(lines[1], "usage Some(3) Some(2)", "nothing said is no block");
}

#[test]
fn free_text_becomes_arguments() {
    let item = |input: &str| json!({"type": "custom_tool_call", "id": "ctc_1", "call_id": "a", "name": "p", "input": input});
    let delta = |text: &str| json!({"type": "response.custom_tool_call_input.delta", "output_index": 0, "delta": text});
    let lines = decode(&[
        added(0, item("")),
        delta("say \"hi\""),
        delta("\n{"),
        done(0, item("say \"hi\"\n{!")),
        completed(json!([])),
    ]);
    let pieces: Vec<_> = lines.iter().filter_map(|line| line.strip_prefix("0 args ")).collect();
    assert_eq!(pieces.concat(), "{\"input\":\"say \\\"hi\\\"\\n{!\"}");
    let lines = decode(&[completed(json!([item("")]))]);
    assert_eq!(lines[1..4], ["0 call a p", "0 args {\"input\":\"", "0 args \"}"]);
}

#[test]
fn a_call_that_was_cut_off_before_it_was_told_of_is_left_out() {
    let cut = json!({"type": "response.incomplete", "response": {"status": "incomplete",
        "incomplete_details": {"reason": "max_output_tokens"},
        "output": [message("m", "x"), call("fc", "a", "f", "{\"x\":")]}});
    let lines = decode(&[cut]);
    assert_eq!(lines[1..], ["0 Text", "0 + x", "0 stop", "finish Length None"]);
}

#[test]
fn searches_and_sources_are_told() {
    let source =
        json!({"type": "url_citation", "url": "https://a", "title": "A", "start_index": 0, "end_index": 2});
    let mut said = message("m", "hi");
    said["content"][0]["annotations"] = json!([source]);
    let lines = decode(&[
        done(0, json!({"type": "web_search_call", "id": "ws_1", "action": {"type": "search", "query": "q"}})),
        text_delta(1, "m", "hi"),
        json!({"type": "response.output_text.annotation.added", "output_index": 1, "content_index": 0, "annotation": source}),
        done(1, said.clone()),
        completed(json!([])),
    ]);
    let expected =
        ["0 search [\"q\"] []", "0 stop", "1 Text", "1 + hi", "1 cites Some(\"https://a\")", "1 stop"];
    assert_eq!(lines[1..7], expected);
    assert_eq!(
        decode(&[completed(json!([said]))])[1..5].join("|"),
        "0 Text|0 + hi|0 cites Some(\"https://a\")|0 stop"
    );
}

#[test]
fn failures_are_errors_with_their_code() {
    for (event, expected) in [
        (
            json!({"type": "response.failed", "response": {"status": "failed", "error": {"code": "rate_limit_exceeded", "message": "slow"}}}),
            "error Some(429) rate_limit_exceeded",
        ),
        (
            json!({"type": "response.failed", "response": {"output": []}}),
            "error Some(502) the answer failed at the upstream, which does not say why",
        ),
        (
            json!({"type": "error", "code": "server_error", "message": "broke"}),
            "error Some(500) server_error",
        ),
        (json!({"type": "error", "error": {"code": "x", "message": "broke"}}), "error None x"),
        (json!({"error": {"message": "broke", "code": 503}}), "error Some(503) 503"),
        (json!({"type": "response.completed"}), "error Some(502) bad_gateway"),
    ] {
        assert_eq!(decode(&[text_delta(0, "m", "x"), event]).last().unwrap(), expected);
    }
    assert_eq!(
        decode(&[text_delta(0, "m", "x"), json!({"type": "response.output_item.done"})]).last().unwrap(),
        "error Some(502) upstream_stream_truncated"
    );
}

#[test]
fn nothing_follows_an_error_at_the_end() {
    let lines = decode(&[
        text_delta(0, "m", "open"),
        completed(json!([message("m", "open"), call("fc", "a", "", "{}")])),
    ]);
    assert_eq!(lines[1..], ["0 Text", "0 + open", "0 stop", "error Some(502) invalid_tool_call"]);
    let lines =
        decode(&[added(0, call("fc", "a", "", "")), text_delta(1, "m", "open"), completed(json!([]))]);
    assert_eq!(lines.last().unwrap(), "error Some(502) invalid_tool_call");
}

#[test]
fn unknown_events_and_an_empty_end_are_fine() {
    let lines = decode(&[
        json!({"type": "response.created", "response": {"id": "resp_1", "model": "m"}}),
        json!({"type": "response.something.new", "delta": "x"}),
        json!({"type": "keepalive", "sequence_number": 1}),
        added(0, json!({"type": "mcp_list_tools", "id": "mcp_1"})),
        done(0, json!({"type": "mcp_list_tools", "id": "mcp_1", "tools": []})),
        text_delta(1, "m", "hi"),
        completed(json!([])),
        text_delta(1, "m", "late"),
    ]);
    assert_eq!(
        lines,
        ["start resp_1 m", "0 Text", "0 + hi", "0 stop", "usage Some(3) Some(2)", "finish Stop None"]
    );
}

/// What a client gets of these events, as (name, data).
fn encode(echo: Echo, events: Vec<StreamEvent<'_>>) -> Vec<(String, Value)> {
    let mut encoder = Encoder::new(echo);
    let mut out = BytesMut::new();
    for event in events {
        encoder.event(event, &mut out).unwrap();
    }
    told(&out)
}

fn told(out: &[u8]) -> Vec<(String, Value)> {
    let text = std::str::from_utf8(out).unwrap();
    let told: Vec<_> = text
        .split_terminator("\n\n")
        .map(|frame| {
            let (name, data) = frame.strip_prefix("event: ").unwrap().split_once("\ndata: ").unwrap();
            let value: Value = serde_json::from_str(data).unwrap();
            assert_eq!(value["type"], name);
            (name.to_owned(), value)
        })
        .collect();
    for (at, (_, value)) in told.iter().enumerate() {
        assert_eq!(value["sequence_number"], at, "numbers without gaps");
    }
    let dones = told.iter().filter(|(name, _)| name == "response.output_item.done");
    for (at, (_, value)) in dones.clone().enumerate() {
        assert_eq!(value["output_index"], at, "places increase over all items");
    }
    if let Some((name, last)) = told.last()
        && (name == "response.completed" || name == "response.incomplete")
    {
        let items: Vec<&Value> = dones.map(|(_, value)| &value["item"]).collect();
        assert_eq!(last["response"]["output"].as_array().unwrap().iter().collect::<Vec<_>>(), items);
        assert!(last["response"]["usage"]["total_tokens"].is_u64());
    }
    told
}

fn start() -> StreamEvent<'static> {
    StreamEvent::Start { id: Cow::Borrowed("msg_1"), model: Cow::Borrowed("up") }
}

fn block<'a>(index: u32, block: BlockHead<'a>, deltas: Vec<Delta<'a>>) -> Vec<StreamEvent<'a>> {
    let mut events = vec![StreamEvent::BlockStart { index, block }];
    events.extend(deltas.into_iter().map(|delta| StreamEvent::Delta { index, delta }));
    events.push(StreamEvent::BlockStop { index });
    events
}

fn tool_call(index: u32, name: &'static str, arguments: &'static str) -> Vec<StreamEvent<'static>> {
    let head = BlockHead::ToolCall { id: Cow::Borrowed("toolu_1"), name: Cow::Borrowed(name) };
    block(index, head, vec![Delta::ToolArgs(Cow::Borrowed(arguments))])
}

fn finish(reason: FinishReason) -> StreamEvent<'static> {
    StreamEvent::Finish { reason, stop_sequence: None }
}

fn names(told: &[(String, Value)]) -> Vec<&str> {
    told.iter().map(|(name, _)| name.trim_start_matches("response.")).collect()
}

#[test]
fn every_item_has_its_whole_life() {
    let mut events = vec![start()];
    events.extend(block(
        0,
        BlockHead::Thinking { item: None },
        vec![Delta::Thinking("hm".into()), Delta::Signature("S".into())],
    ));
    events.extend(block(1, BlockHead::Text, vec![Delta::Text("a".into()), Delta::Text("b".into())]));
    events.extend(block(2, BlockHead::Text, vec![Delta::Text("c".into())]));
    events.extend(tool_call(3, "f", "{\"x\":1}"));
    events.push(StreamEvent::Usage(Usage {
        input_uncached: Some(5),
        output_total: Some(7),
        ..Usage::default()
    }));
    events.push(finish(FinishReason::ToolUse));
    let told = encode(Echo::default(), events);
    assert_eq!(
        names(&told),
        [
            "created",
            "in_progress",
            "output_item.added",
            "reasoning_summary_part.added",
            "reasoning_summary_text.delta",
            "reasoning_summary_text.done",
            "reasoning_summary_part.done",
            "output_item.done",
            "output_item.added",
            "content_part.added",
            "output_text.delta",
            "output_text.delta",
            "output_text.done",
            "content_part.done",
            "content_part.added",
            "output_text.delta",
            "output_text.done",
            "content_part.done",
            "output_item.done",
            "output_item.added",
            "function_call_arguments.delta",
            "function_call_arguments.done",
            "output_item.done",
            "completed",
        ]
    );
    let reasoning = &told[7].1["item"];
    assert_eq!(reasoning["summary"], json!([{"type": "summary_text", "text": "hm"}]));
    assert_eq!(reasoning["encrypted_content"], "S");
    assert!(reasoning["id"].as_str().unwrap().starts_with("rs_"));
    assert_eq!(told[14].1["content_index"], 1);
    assert_eq!(told[12].1["text"], "ab");
    assert_eq!(told[0].1["response"]["output"], json!([]), "clients add to this list");
    let call = &told[22].1["item"];
    assert_eq!((&call["call_id"], &call["arguments"]), (&json!("toolu_1"), &json!("{\"x\":1}")));
    let usage = &told[23].1["response"]["usage"];
    assert_eq!((&usage["input_tokens"], &usage["total_tokens"]), (&json!(5), &json!(12)));
}

#[test]
fn encrypted_reasoning_is_given_only_to_those_who_can_use_it() {
    let events = || {
        let mut events = vec![start()];
        events.extend(block(0, BlockHead::RedactedThinking { data: "R".into() }, Vec::new()));
        events.push(finish(FinishReason::Stop));
        events
    };
    for (request, given) in [
        (r#"{"input":"x"}"#, true),
        (r#"{"input":"x","store":false}"#, true),
        (r#"{"input":"x","store":true,"include":["reasoning.encrypted_content"]}"#, true),
        (r#"{"input":"x","store":true}"#, false),
    ] {
        let echo = Echo { request: request.into(), ..Echo::default() };
        let told = encode(echo, events());
        assert_eq!(
            told.iter().any(|(_, value)| value["item"]["encrypted_content"] == "R"),
            given,
            "{request}"
        );
    }
}

#[test]
fn f22_a_tool_that_takes_free_text_gets_it() {
    let echo = Echo { custom_tools: vec!["apply_patch".to_owned()].into(), ..Echo::default() };
    let mut events = vec![start()];
    events.extend(tool_call(0, "apply_patch", "{\"input\":\"*** Begin \\\"Patch\\\"\"}"));
    events.push(finish(FinishReason::ToolUse));
    let told = encode(echo, events);
    assert_eq!(
        names(&told)[2..6],
        [
            "output_item.added",
            "custom_tool_call_input.delta",
            "custom_tool_call_input.done",
            "output_item.done"
        ]
    );
    assert_eq!(told[3].1["delta"], "*** Begin \"Patch\"");
    let item = &told[5].1["item"];
    assert_eq!((&item["type"], &item["input"]), (&json!("custom_tool_call"), &json!("*** Begin \"Patch\"")));
    assert!(item["id"].as_str().unwrap().starts_with("ctc_") && item.get("arguments").is_none());
}

#[test]
fn a_tool_of_a_namespace_is_named_as_the_client_knows_it() {
    let request = r#"{"input":[{"type":"additional_tools","role":"developer","tools":[{"type":"namespace","name":"late","tools":[{"type":"function","name":"g"}]}]}],
        "tools":[{"type":"namespace","name":"agents","tools":[{"type":"function","name":"spawn"}]}]}"#;
    let echo = Echo { request: request.into(), ..Echo::default() };
    for (name, namespace, own) in [
        ("agents__spawn", json!("agents"), "spawn"),
        ("late__g", json!("late"), "g"),
        ("plain__h", Value::Null, "plain__h"),
    ] {
        let mut events = vec![start()];
        events.extend(tool_call(0, name, "{}"));
        events.push(finish(FinishReason::ToolUse));
        let told = encode(echo.clone(), events);
        for at in [2, 5] {
            let item = &told[at].1["item"];
            assert_eq!((item["name"].as_str(), &item["namespace"]), (Some(own), &namespace));
        }
    }
}

#[test]
fn a_call_that_was_cut_off_is_not_given_to_be_run() {
    for (arguments, reason, kept) in [
        ("{\"x\":", FinishReason::Length, false),
        ("{\"x\":", FinishReason::ToolUse, true),
        ("{\"x\":1}", FinishReason::Length, true),
    ] {
        let mut events = vec![start()];
        events.extend(tool_call(0, "f", arguments));
        events.push(finish(reason));
        let told = encode(Echo::default(), events);
        let items = told.last().unwrap().1["response"]["output"].as_array().unwrap().len();
        assert_eq!(items, usize::from(kept), "{arguments} {reason:?}");
    }
}

#[test]
fn empty_blocks_are_not_told_of_and_a_call_without_arguments_has_an_object() {
    let mut events = vec![start()];
    events.extend(block(0, BlockHead::Text, vec![Delta::Text("".into())]));
    events.extend(block(1, BlockHead::Thinking { item: None }, Vec::new()));
    events.extend(tool_call(2, "f", ""));
    events.push(finish(FinishReason::ToolUse));
    let told = encode(Echo { estimated_input_tokens: 9, ..Echo::default() }, events);
    assert_eq!(
        names(&told)[2..],
        [
            "output_item.added",
            "function_call_arguments.delta",
            "function_call_arguments.done",
            "output_item.done",
            "completed"
        ]
    );
    assert_eq!(told[5].1["item"]["arguments"], "{}");
    assert_eq!(told[6].1["response"]["usage"]["input_tokens"], 9, "estimated");
}

#[test]
fn an_error_ends_the_answer_with_what_was_done() {
    let error = PublicError {
        kind: ErrorKind::Overloaded,
        code: None,
        message: "busy".to_owned(),
        param: None,
        request_id: "r".to_owned(),
        attempts: Vec::new(),
        retry_at: None,
    };
    let mut encoder = Encoder::new(Echo::default());
    let mut out = BytesMut::new();
    encoder.fail(&error, &mut out);
    assert_eq!(names(&told(&out)), ["error"]);

    let mut encoder = Encoder::new(Echo::default());
    out.clear();
    let mut events = vec![start()];
    events.extend(tool_call(0, "f", "{}"));
    events.extend(block(1, BlockHead::Text, vec![Delta::Text("half".into())]));
    for event in events {
        encoder.event(event, &mut out).unwrap();
    }
    encoder.fail(&error, &mut out);
    let told = told(&out);
    let (name, last) = told.last().unwrap();
    assert_eq!(name, "response.failed");
    assert_eq!(last["response"]["status"], "failed");
    assert_eq!(last["response"]["error"], json!({"code": "server_error", "message": "busy"}));
    assert_eq!(last["response"]["output"].as_array().unwrap().len(), 1);
}
