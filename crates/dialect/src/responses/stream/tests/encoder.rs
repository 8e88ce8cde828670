//! Clients' streams.

use super::*;

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
        ("{\"x\":", FinishReason::ContextWindow, false),
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
