//! Signatures of reasoning on their way through clients of Chat Completions.

use omniroute_dialect::{Caps, ir::BlockKind, stream::StreamCollector};
use serde_json::{Value, json};

use crate::support::{chunks, decode, dialect, echo, events, named, stream, translate};

/// What a client of Chat Completions gets of an answer of Messages, whole and put together from a stream.
fn both(content: &[Value]) -> [Value; 2] {
    let whole = json!({"id": "msg_1", "content": content, "stop_reason": "tool_use"});
    let response = dialect("anthropic").decode_response(&whole.to_string().into()).unwrap();
    let body = dialect("openai").encode_response(&response, &echo()).body;
    let body: Value = serde_json::from_slice(&body).unwrap();

    let mut input = vec![
        json!({"type": "message_start", "message": {"id": "msg_1", "model": "m", "usage": {"input_tokens": 1}}}),
    ];
    for (index, block) in content.iter().enumerate() {
        let delta = |delta: Value| json!({"type": "content_block_delta", "index": index, "delta": delta});
        let (start, deltas) = if block["type"] == "thinking" {
            let text = delta(json!({"type": "thinking_delta", "thinking": block["thinking"]}));
            let signature = delta(json!({"type": "signature_delta", "signature": block["signature"]}));
            (json!({"type": "thinking", "thinking": "", "signature": ""}), vec![text, signature])
        } else if block["type"] == "text" {
            (
                json!({"type": "text", "text": ""}),
                vec![delta(json!({"type": "text_delta", "text": block["text"]}))],
            )
        } else {
            (block.clone(), Vec::new())
        };
        input.push(json!({"type": "content_block_start", "index": index, "content_block": start}));
        input.extend(deltas);
        input.push(json!({"type": "content_block_stop", "index": index}));
    }
    input.push(
        json!({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 1}}),
    );
    input.push(json!({"type": "message_stop"}));
    let (out, _) = stream("anthropic", "openai", &named(&input));
    let mut message = json!({"tool_calls": []});
    for event in events(&out) {
        let delta = &event["choices"][0]["delta"];
        if let Some(call) = delta["tool_calls"].get(0).filter(|call| call["id"].is_string()) {
            message["tool_calls"].as_array_mut().unwrap().push(call.clone());
        }
        if delta["thinking_blocks"].is_array() {
            message["thinking_blocks"] = delta["thinking_blocks"].clone();
        }
    }
    [body["choices"][0]["message"].clone(), message]
}

fn thinking(text: &str, signature: &str) -> Value {
    json!({"type": "thinking", "thinking": text, "signature": signature})
}

fn tool_use(id: &str) -> Value {
    json!({"type": "tool_use", "id": id, "name": "f", "input": {}})
}

#[test]
fn a_signature_before_a_call_goes_with_the_call() {
    let signed = |call: &Value| call["extra_content"]["google"]["thought_signature"].clone();
    for message in
        both(&[thinking("", "SIG"), tool_use("t1"), tool_use("t2"), thinking("", "S2"), tool_use("t3")])
    {
        let calls = message["tool_calls"].as_array().unwrap();
        let signatures: Vec<_> = calls.iter().map(signed).collect();
        assert_eq!(signatures, [json!("SIG"), Value::Null, json!("S2")]);
        assert_eq!(message.get("thinking_blocks"), None);
    }
    // What is wrapped goes both ways: some clients keep the one, some the other.
    for message in both(&[thinking("plan", "omr1.x.y"), tool_use("t1")]) {
        assert_eq!(signed(&message["tool_calls"][0]), "omr1.x.y");
        assert_eq!(message["thinking_blocks"], json!([thinking("plan", "omr1.x.y")]));
    }
    // What Anthropic signed has a place of its own.
    for message in both(&[thinking("plan", "NATIVE"), tool_use("t1")]) {
        assert_eq!(signed(&message["tool_calls"][0]), Value::Null);
        assert_eq!(message["thinking_blocks"], json!([thinking("plan", "NATIVE")]));
    }
    for message in both(&[thinking("", "SIG"), json!({"type": "text", "text": "x"}), tool_use("t1")]) {
        assert_eq!(signed(&message["tool_calls"][0]), Value::Null);
        assert_eq!(message["thinking_blocks"], json!([thinking("", "SIG")]));
    }
}

#[test]
fn a_signature_of_a_call_comes_back_before_the_call_and_once() {
    let call = |id: &str, signature: &str| {
        json!({"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"},
            "extra_content": {"google": {"thought_signature": signature}}})
    };
    let body = json!({"model": "m", "messages": [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": null,
         "thinking_blocks": [thinking("plan", "omr1.a")],
         "tool_calls": [call("c1", "omr1.a"), call("c2", "U0lH")]},
        {"role": "tool", "tool_call_id": "c1", "content": "1"},
        {"role": "tool", "tool_call_id": "c2", "content": "2"}],
        "tools": [{"type": "function", "function": {"name": "f"}}]});
    let request = decode(dialect("openai"), &body.to_string()).unwrap();
    let blocks: Vec<String> = request.turns[1]
        .blocks
        .iter()
        .map(|block| match &block.kind {
            BlockKind::Thinking { text, signature, origin } => {
                format!("{origin} {text} {}", signature.as_ref().unwrap().data)
            }
            BlockKind::ToolCall(call) => call.id.clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(blocks, ["anthropic plan omr1.a", "c1", "gemini  U0lH", "c2"]);
    let (same, _) = translate("openai", "openai", &body, &Caps::permissive()).unwrap();
    assert_eq!(same["messages"][1]["tool_calls"][1], call("c2", "U0lH"));
}

#[test]
fn f16_an_upstream_that_signs_calls_gets_its_signatures_back() {
    let signed = json!({"index": 0, "id": "c1", "function": {"name": "f", "arguments": "{}"},
        "extra_content": {"google": {"thought_signature": "U0lH"}}});
    let whole = json!({"choices": [{"message": {"tool_calls": [signed]}, "finish_reason": "tool_calls"}]});
    let mut collector = StreamCollector::new(dialect("openai"));
    let input = chunks(&[json!({"tool_calls": [signed]}), json!({"finish": "tool_calls"})]);
    collector.push(input.as_bytes()).unwrap();
    let whole = dialect("openai").decode_response(&whole.to_string().into()).unwrap();
    for response in [collector.finish().unwrap(), whole] {
        let [thinking, call] = response.blocks.as_slice() else { panic!("{:?}", response.blocks) };
        assert!(matches!(&call.kind, BlockKind::ToolCall(call) if call.id == "c1"));
        assert!(matches!(&thinking.kind,
            BlockKind::Thinking { signature: Some(signature), .. } if signature.data == "U0lH"));
        // Come back in the history of a client of another dialect, it is written where it was.
        let mut request = decode(
            dialect("anthropic"),
            r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"a"},{"role":"assistant","content":[]},
                {"role":"user","content":[{"type":"tool_result","tool_use_id":"c1","content":"1"}]}]}"#,
        )
        .unwrap();
        request.turns[1].blocks = response.blocks.clone();
        let body = dialect("openai").encode_request(&request, &Caps::permissive()).unwrap().body;
        let body: Value = serde_json::from_slice(&body).unwrap();
        let call = &body["messages"][1]["tool_calls"][0];
        assert_eq!(call["extra_content"]["google"]["thought_signature"], "U0lH");
    }
}

#[test]
fn f40_reasoning_behind_calls_goes_back_to_those_who_want_it() {
    let mut request = decode(
        dialect("anthropic"),
        r#"{"model":"m","max_tokens":9,"messages":[
            {"role":"user","content":"a"},
            {"role":"assistant","content":[{"type":"tool_use","id":"t1","name":"f","input":{}}]},
            {"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":"1"}]},
            {"role":"assistant","content":[{"type":"tool_use","id":"t2","name":"f","input":{}}]},
            {"role":"user","content":[{"type":"tool_result","tool_use_id":"t2","content":"2"}]},
            {"role":"assistant","content":"so"},
            {"role":"user","content":"b"}]}"#,
    )
    .unwrap();
    // What was remembered of two of the turns.
    for turn in [1, 5] {
        let text = "because".to_owned();
        let kind = BlockKind::Thinking { text, signature: None, origin: dialect("openai").id() };
        request.turns[turn].blocks.insert(0, kind.into());
    }
    let reasoning = |caps: &Caps| -> Vec<Value> {
        let body = dialect("openai").encode_request(&request, caps).unwrap().body;
        let body: Value = serde_json::from_slice(&body).unwrap();
        let messages = body["messages"].as_array().unwrap();
        let said = messages.iter().filter(|message| message["role"] == "assistant");
        said.map(|message| message["reasoning_content"].clone()).collect()
    };
    let wants = Caps { reasoning_in_history: true, ..Caps::permissive() };
    assert_eq!(reasoning(&wants), [json!("because"), json!(""), Value::Null]);
    assert_eq!(reasoning(&Caps::permissive()), [Value::Null, Value::Null, Value::Null]);
}
