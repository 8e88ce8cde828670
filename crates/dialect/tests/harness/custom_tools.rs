//! Tools whose input is free text, in Chat Completions.

use omniroute_dialect::{Caps, Echo, ir::BlockKind};
use serde_json::{Value, json};

use crate::support::{chunks, dialect, echo, events, named, pipe, run, translate};

const PATCH: &str = "*** Begin Patch\n\"q\" é\n*** End Patch";

fn with_custom_tool() -> Echo {
    Echo { custom_tools: ["apply_patch".to_owned()].into(), ..echo() }
}

/// A stream of Messages with a call of a tool by this name.
fn call_of(name: &str, arguments: &Value) -> String {
    let text = arguments.to_string();
    // The cut is between two characters of the text, wherever they are.
    let (one, two) = text.split_at(12);
    let delta = |text: &str| json!({"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": text}});
    named(&[
        json!({"type": "message_start", "message": {"id": "msg_1", "model": "m", "usage": {"input_tokens": 1}}}),
        json!({"type": "content_block_start", "index": 0,
            "content_block": {"type": "tool_use", "id": "toolu_1", "name": name, "input": {}}}),
        delta(one),
        delta(two),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 1}}),
        json!({"type": "message_stop"}),
    ])
}

#[test]
fn f22_a_call_of_a_free_text_tool_is_answered_in_kind() {
    for (arguments, input) in
        [(json!({"input": PATCH}), PATCH), (json!({"patch": "only a patch"}), "only a patch")]
    {
        let whole = json!({"id": "msg_1", "content": [
            {"type": "tool_use", "id": "toolu_1", "name": "apply_patch", "input": arguments},
            {"type": "tool_use", "id": "toolu_2", "name": "now", "input": {"input": "x"}}], "stop_reason": "tool_use"});
        let response = dialect("anthropic").decode_response(&whole.to_string().into()).unwrap();
        let body = dialect("openai").encode_response(&response, &with_custom_tool()).body;
        let body: Value = serde_json::from_slice(&body).unwrap();
        let calls = &body["choices"][0]["message"]["tool_calls"];
        assert_eq!(
            calls[0],
            json!({"id": "toolu_1", "type": "custom", "custom": {"name": "apply_patch", "input": input}})
        );
        assert_eq!(calls[1]["function"]["arguments"], "{\"input\":\"x\"}", "other tools are functions");

        let stream = call_of("apply_patch", &arguments);
        let (out, _) =
            run(pipe(dialect("anthropic"), dialect("openai"), with_custom_tool()), [stream.as_bytes()]);
        let deltas: Vec<Value> = events(&out)
            .iter()
            .filter_map(|event| event["choices"][0]["delta"]["tool_calls"].get(0).cloned())
            .collect();
        assert_eq!(
            deltas,
            [
                json!({"index": 0, "id": "toolu_1", "type": "custom", "custom": {"name": "apply_patch", "input": ""}}),
                json!({"index": 0, "custom": {"input": input}}),
            ]
        );
    }
}

#[test]
fn a_free_text_call_of_an_upstream_becomes_a_call_of_a_function() {
    let custom =
        |index: u32, custom: Value| json!({"tool_calls": [{"index": index, "id": null, "custom": custom}]});
    let stream = chunks(&[
        json!({"tool_calls": [{"index": 0, "id": "c1", "type": "custom", "custom": {"name": "apply_patch", "input": ""}}]}),
        custom(0, json!({"input": &PATCH[..10]})),
        custom(0, json!({"input": &PATCH[10..]})),
        json!({"tool_calls": [{"index": 1, "id": "c2", "type": "function",
            "function": {"name": "now", "arguments": "{}"}}]}),
        json!({"tool_calls": [{"index": 2, "id": "c3", "type": "custom", "custom": {"name": "empty", "input": ""}}]}),
        json!({"finish": "tool_calls"}),
    ]) + "data: [DONE]\n\n";
    let whole = json!({"choices": [{"message": {"content": null, "tool_calls": [
        {"id": "c1", "type": "custom", "custom": {"name": "apply_patch", "input": PATCH}},
        {"id": "c2", "type": "function", "function": {"name": "now", "arguments": "{}"}},
        {"id": "c3", "type": "custom", "custom": {"name": "empty", "input": ""}}]}, "finish_reason": "tool_calls"}]});
    let mut collector = omniroute_dialect::stream::StreamCollector::new(dialect("openai"));
    collector.push(stream.as_bytes()).unwrap();
    let whole = dialect("openai").decode_response(&whole.to_string().into()).unwrap();
    for response in [collector.finish().unwrap(), whole] {
        let calls: Vec<(String, Value)> = response
            .blocks
            .iter()
            .map(|block| match &block.kind {
                BlockKind::ToolCall(call) => {
                    (call.name.clone(), serde_json::from_str(&call.arguments).unwrap())
                }
                other => panic!("{other:?}"),
            })
            .collect();
        let expected =
            [("apply_patch", json!({"input": PATCH})), ("now", json!({})), ("empty", json!({"input": ""}))];
        assert_eq!(calls, expected.map(|(name, arguments)| (name.to_owned(), arguments)));
    }
}

#[test]
fn a_free_text_call_that_was_cut_off_is_not_closed() {
    let stream = chunks(&[
        json!({"tool_calls": [{"index": 0, "id": "c1", "custom": {"name": "apply_patch", "input": "*** Beg"}}]}),
        json!({"finish": "length"}),
    ]);
    let (out, _) = run(pipe(dialect("openai"), dialect("ollama"), echo()), [stream.as_bytes()]);
    assert!(!out.contains("apply_patch") && out.contains("\"done_reason\":\"length\""), "{out}");
}

#[test]
fn the_history_of_free_text_calls_goes_where_it_is_taken() {
    let body = json!({"model": "m", "messages": [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": null, "tool_calls": [
            {"id": "c1", "type": "custom", "custom": {"name": "apply_patch", "input": PATCH}}]},
        {"role": "tool", "tool_call_id": "c1", "content": "done"}],
        "tools": [{"type": "custom", "custom": {"name": "apply_patch", "format": {"type": "text"}}}]});
    let (same, _) = translate("openai", "openai", &body, &Caps::permissive()).unwrap();
    assert_eq!(same["messages"], body["messages"]);
    let (other, _) = translate("openai", "anthropic", &body, &Caps::permissive()).unwrap();
    assert_eq!(other["messages"][1]["content"][0]["input"], json!({"input": PATCH}));
    assert_eq!(other["tools"][0]["input_schema"]["required"], json!(["input"]));
}
