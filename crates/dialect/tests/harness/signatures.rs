//! Signatures of reasoning on their way through clients of Chat Completions.

use bytes::BytesMut;
use omniroute_dialect::{
    Caps,
    ir::{BlockKind, ChatRequest},
    shape::{Seal, Shape, open_carriers},
    stream::{StreamCollector, StreamPipe as _, Transcoder},
};
use serde_json::{Value, json};

use crate::support::{chunks, decode, dialect, echo, events, named, run, stream, translate};

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

/// What proxies in front of Claude send: the text under two names, the signature in a piece of its own.
fn proxied() -> [Value; 2] {
    let message = json!({"role": "assistant", "content": null, "reasoning_content": "plan",
        "thinking_blocks": [thinking("plan", "SIG"), {"type": "redacted_thinking", "data": "SECRET"}],
        "tool_calls": [{"id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}}]});
    let pieces = chunks(&[
        json!({"role": "assistant", "content": "", "reasoning_content": "pl", "thinking_blocks": [thinking("pl", "")]}),
        json!({"reasoning_content": "an", "thinking_blocks": [{"type": "thinking", "thinking": "an", "signature": null}]}),
        json!({"reasoning_content": "", "thinking_blocks": [thinking("", "SIG")]}),
        json!({"thinking_blocks": [{"type": "redacted_thinking", "data": "SECRET"}]}),
        json!({"tool_calls": [{"index": 0, "id": "t", "function": {"name": "f", "arguments": "{}"}}]}),
        json!({"finish": "tool_calls"}),
    ]);
    [json!({"choices": [{"message": message, "finish_reason": "tool_calls"}]}), json!(pieces)]
}

#[test]
fn what_proxies_have_in_thinking_blocks_comes_back_to_them() {
    let (upstream, client, seal) = (dialect("openai"), dialect("anthropic"), Seal::new([1; 32]));
    let [whole, pieces] = proxied();
    let shape = || {
        let request = ChatRequest::default();
        Shape::of(&request, client, upstream, &Caps::permissive(), Some(&seal)).1
    };
    let mut response = upstream.decode_response(&whole.to_string().into()).unwrap();
    shape().response(&mut response);
    let whole = client.encode_response(&response, &echo()).body;
    let pipe = Transcoder::new(upstream, client, echo(), shape());
    let (out, _) = run(Box::new(pipe), [pieces.as_str().unwrap().as_bytes()]);
    let mut collector = StreamCollector::new(client);
    collector.push(out.as_bytes()).unwrap();
    let streamed = client.encode_response(&collector.finish().unwrap(), &echo()).body;
    for answer in [whole, streamed] {
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        let kinds: Vec<_> = answer["content"].as_array().unwrap().iter().map(|one| &one["type"]).collect();
        assert_eq!(kinds, ["thinking", "redacted_thinking", "tool_use"], "{answer}");
        assert_eq!(answer["content"][0]["thinking"], "plan", "once");
        let next = json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "a"},
            {"role": "assistant", "content": answer["content"]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "b"}]}]});
        let mut request = decode(client, &next.to_string()).unwrap();
        open_carriers(&mut request, &seal);
        let body = upstream.encode_request(&request, &Caps::permissive()).unwrap().body;
        let body: Value = serde_json::from_slice(&body).unwrap();
        let expected = json!([thinking("plan", "SIG"), {"type": "redacted_thinking", "data": "SECRET"}]);
        assert_eq!(body["messages"][1]["thinking_blocks"], expected, "{body}");
    }
}

#[test]
fn thinking_that_only_stands_in_blocks_is_read() {
    let input = chunks(&[
        json!({"thinking_blocks": [thinking("pl", "")]}),
        json!({"thinking_blocks": [thinking("an", ""), thinking("", "SIG")]}),
        json!({"content": "x"}),
        json!({"thinking_blocks": [thinking("more", "S2")]}),
        json!({"finish": "stop"}),
    ]);
    let (out, _) = stream("openai", "anthropic", &input);
    let events = events(&out);
    let said =
        |name: &str| events.iter().filter_map(|event| event["delta"][name].as_str()).collect::<Vec<_>>();
    assert_eq!((said("thinking"), said("signature")), (vec!["pl", "an", "more"], vec!["SIG", "S2"]), "{out}");
}

#[test]
fn a_signature_that_comes_when_its_text_is_closed_has_a_block_of_its_own() {
    let late = |before: Value| {
        let input = chunks(&[
            json!({"reasoning_content": "plan"}),
            before,
            json!({"thinking_blocks": [thinking("plan", "LATE")]}),
            json!({"tool_calls": [{"index": 0, "id": "t", "function": {"name": "f", "arguments": "{}"}}]}),
            json!({"finish": "stop"}),
        ]);
        let (upstream, client) = (dialect("openai"), dialect("anthropic"));
        let mut pipe = Transcoder::new(upstream, client, echo(), Shape::none(upstream));
        let mut out = BytesMut::new();
        pipe.push(input.as_bytes(), &mut out).unwrap();
        pipe.finish(&mut out).unwrap();
        let out = String::from_utf8(out.to_vec()).unwrap();
        assert_eq!(out.matches("plan").count(), 1, "{out}");
        (out.contains("LATE"), pipe.take_losses().into_iter().map(|loss| loss.path).collect::<Vec<_>>())
    };
    assert_eq!(late(json!({"content": "x"})), (true, Vec::new()));
    // In the middle of a call there is no place for it.
    let call =
        json!({"tool_calls": [{"index": 0, "id": "t", "function": {"name": "f", "arguments": "{\"a\":"}}]});
    assert_eq!(late(call), (false, vec!["thinking_blocks".into()]));
}
