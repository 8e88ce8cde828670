//! Whole examples: a request or a stream and what must become of it, written out.

use omniroute_dialect::{
    Caps,
    ir::{BlockKind, Signature, Usage},
    shape::{Seal, Shape, strip_carriers},
    stream::{StreamCollector, Transcoder},
};
use serde_json::{Value, json};

use crate::support::{chunks, decode, dialect, echo, events, named, run, stream, told, translate};

const PNG: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII=";

#[test]
fn v1_a_messages_request_becomes_a_chat_request() {
    let body = json!({
        "model": "cx/gpt-5", "max_tokens": 900,
        "system": [
            {"type": "text", "text": "x-anthropic-billing-header: cch=1;"},
            {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        "tools": [{"name": "shot", "input_schema": {"type": "object", "properties": {}}}],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": true}, "top_k": 5, "stop_sequences": ["END"],
        "messages": [
            {"role": "user", "content": "go"},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "t", "signature": "NATIVE"},
                {"type": "tool_use", "id": "toolu_1", "name": "shot", "input": {}},
                {"type": "tool_use", "id": "toolu_2", "name": "shot", "input": {"n": 2}}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "toolu_2", "content": "two", "is_error": true},
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": [
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}]},
                {"type": "text", "text": "now?"}]}]
    });
    let caps = Caps { max_completion_tokens: true, developer_role: true, ..Caps::permissive() };
    let (out, losses) = translate("anthropic", "openai", &body, &caps).unwrap();
    assert_eq!(
        out,
        json!({
            "model": "up", "max_completion_tokens": 900, "stop": ["END"],
            "tool_choice": "required", "parallel_tool_calls": false,
            "tools": [{"type": "function", "function": {
                "name": "shot", "parameters": {"type": "object", "properties": {}}}}],
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "go"},
                {"role": "assistant", "content": null, "tool_calls": [
                    {"id": "toolu_1", "type": "function", "function": {"name": "shot", "arguments": "{}"}},
                    {"id": "toolu_2", "type": "function", "function": {"name": "shot", "arguments": "{\"n\":2}"}}]},
                {"role": "tool", "tool_call_id": "toolu_1", "content": "[image attached below: toolu_1#1]"},
                {"role": "tool", "tool_call_id": "toolu_2", "content": "Error: two"},
                {"role": "user", "content": [
                    {"type": "text", "text": "toolu_1#1:"},
                    {"type": "image_url", "image_url": {"url": format!("data:image/png;base64,{PNG}")}},
                    {"type": "text", "text": "now?"}]}]
        })
    );
    assert_eq!(told(&losses), ["top_k"]);
}

#[test]
fn v2_a_chat_stream_becomes_a_messages_stream() {
    let call = |index: u32, id: &str, name: &str| json!({"tool_calls": [{"index": index, "id": id, "function": {"name": name, "arguments": ""}}]});
    let input = chunks(&[
        json!({"role": "assistant", "content": ""}),
        json!({"content": "Hi"}),
        call(0, "a", "f"),
        json!({"tool_calls": [{"index": 0, "function": {"arguments": "{\"x\":1}"}}]}),
        call(1, "b", "g"),
        json!({"finish": "tool_calls"}),
        json!({"choices": [], "usage": {"prompt_tokens": 100, "completion_tokens": 20,
            "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 10}}}),
    ]) + "data: [DONE]\n\n";
    let (out, watch) = stream("openai", "anthropic", &input);
    let mut seen = events(&out);
    seen.retain(|event| event["type"] != "ping");
    let start = seen.remove(0);
    assert_eq!(start["type"], "message_start");
    assert_eq!(start["message"]["usage"]["input_tokens"], 42);
    assert_eq!(start["message"]["model"], "asked/model");
    let end = seen.split_off(seen.len() - 2);
    assert_eq!(
        Value::from(seen),
        json!([
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}},
            {"type": "content_block_stop", "index": 0},
            {"type": "content_block_start", "index": 1,
             "content_block": {"type": "tool_use", "id": "a", "name": "f", "input": {}}},
            {"type": "content_block_delta", "index": 1,
             "delta": {"type": "input_json_delta", "partial_json": "{\"x\":1}"}},
            {"type": "content_block_stop", "index": 1},
            {"type": "content_block_start", "index": 2,
             "content_block": {"type": "tool_use", "id": "b", "name": "g", "input": {}}},
            {"type": "content_block_stop", "index": 2},
        ])
    );
    assert_eq!(end[0]["delta"]["stop_reason"], "tool_use");
    let usage = &end[0]["usage"];
    assert_eq!(
        [&usage["input_tokens"], &usage["cache_read_input_tokens"], &usage["cache_creation_input_tokens"]],
        [30, 60, 10]
    );
    assert_eq!(usage["output_tokens"], 20);
    assert_eq!(end[1], json!({"type": "message_stop"}));
    assert!(watch.complete);
}

#[test]
fn v3_a_messages_stream_becomes_a_chat_stream() {
    let block = |index: u32, block: Value| json!({"type": "content_block_start", "index": index, "content_block": block});
    let delta =
        |index: u32, delta: Value| json!({"type": "content_block_delta", "index": index, "delta": delta});
    let stop = |index: u32| json!({"type": "content_block_stop", "index": index});
    let input = named(&[
        json!({"type": "message_start", "message": {"id": "msg_1", "type": "message", "role": "assistant",
            "model": "claude", "content": [], "stop_reason": null, "usage": {"input_tokens": 30,
            "cache_read_input_tokens": 60, "cache_creation_input_tokens": 10, "output_tokens": 1}}}),
        block(0, json!({"type": "thinking", "thinking": "", "signature": ""})),
        delta(0, json!({"type": "thinking_delta", "thinking": "abc"})),
        delta(0, json!({"type": "signature_delta", "signature": "S"})),
        stop(0),
        block(1, json!({"type": "text", "text": ""})),
        delta(1, json!({"type": "text_delta", "text": "Hi"})),
        stop(1),
        block(2, json!({"type": "tool_use", "id": "toolu_9", "name": "now", "input": {}})),
        stop(2),
        json!({"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": null},
            "usage": {"output_tokens": 25, "output_tokens_details": {"thinking_tokens": 12}}}),
        json!({"type": "message_stop"}),
    ]);
    let (out, _) = stream("anthropic", "openai", &input);
    let seen = events(&out);
    let deltas: Vec<&Value> = seen.iter().filter_map(|event| event["choices"].get(0)).collect();
    let expected = [
        json!({"role": "assistant", "content": ""}),
        json!({"reasoning_content": "abc"}),
        json!({"content": "Hi"}),
        json!({"tool_calls": [{"index": 0, "id": "toolu_9", "type": "function",
            "function": {"name": "now", "arguments": ""}}]}),
        json!({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}),
        json!({"thinking_blocks": [{"type": "thinking", "thinking": "abc", "signature": "S"}]}),
        json!({}),
    ];
    assert_eq!(deltas.len(), expected.len());
    for (at, (choice, delta)) in deltas.iter().zip(&expected).enumerate() {
        assert_eq!(&choice["delta"], delta);
        let finish = if at + 1 == expected.len() { json!("tool_calls") } else { Value::Null };
        assert_eq!(choice["finish_reason"], finish);
    }
    let usage = &seen[seen.len() - 2];
    assert_eq!(usage["choices"], json!([]));
    assert_eq!(
        usage["usage"],
        json!({"prompt_tokens": 100, "completion_tokens": 25, "total_tokens": 125,
            "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 10},
            "completion_tokens_details": {"reasoning_tokens": 12}})
    );
    assert_eq!(seen.last().unwrap(), "[DONE]");
}

#[test]
fn v4_a_signature_of_gemini_goes_through_other_clients_and_back() {
    let chunk =
        |candidate: Value| format!("data: {}\n\n", json!({"candidates": [candidate], "responseId": "r"}));
    let parts = |parts: Value| json!({"content": {"parts": parts, "role": "model"}, "index": 0});
    let mut last = parts(json!([{"text": ""}]));
    last["finishReason"] = json!("STOP");
    let end = json!({"candidates": [last], "usageMetadata":
        {"promptTokenCount": 10, "candidatesTokenCount": 5, "thoughtsTokenCount": 7, "totalTokenCount": 22}});
    let input = chunk(parts(json!([{"text": "plan", "thought": true}])))
        + &chunk(parts(json!([
            {"functionCall": {"name": "f", "args": {"a": 1}}, "thoughtSignature": "U0lH"},
            {"functionCall": {"name": "g", "args": {}}}])))
        + &format!("data: {end}\n\n");
    let mut collector = StreamCollector::new(dialect("gemini"));
    collector.push(input.as_bytes()).unwrap();
    let response = collector.finish().unwrap();
    assert_eq!(response.usage.output_total, Some(12));

    // The client brings everything back, with two results.
    let written = dialect("anthropic").encode_response(&response, &echo()).body;
    let written: Value = serde_json::from_slice(&written).unwrap();
    let content = written["content"].as_array().unwrap();
    assert_eq!(content[0], json!({"type": "thinking", "thinking": "plan", "signature": "U0lH"}));
    assert_eq!((&content[1]["name"], &content[2]["name"]), (&json!("f"), &json!("g")));
    assert_eq!(written["stop_reason"], "tool_use");
    let result = |at: usize, text: &str| json!({"type": "tool_result", "tool_use_id": content[at]["id"], "content": text});
    let body = json!({"model": "m", "max_tokens": 9, "messages": [
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": content},
        {"role": "user", "content": [result(2, "two"), result(1, "one")]}]});
    let mut request = decode(dialect("anthropic"), &body.to_string()).unwrap();
    // Whose signature it is, the gateway knows by the carrier around it.
    for block in request.turns.iter_mut().flat_map(|turn| &mut turn.blocks) {
        if let BlockKind::Thinking { origin, .. } = &mut block.kind {
            *origin = dialect("gemini").id();
        }
    }
    let strict = Caps {
        gemini: omniroute_dialect::GeminiCaps {
            signed_calls: true,
            ..omniroute_dialect::GeminiCaps::permissive()
        },
        ..Caps::permissive()
    };
    let expected = |signature: &str| {
        let answer = |name: &str, text: &str| json!({"functionResponse": {"name": name, "response": {"output": text}}});
        json!([
            {"role": "user", "parts": [{"text": "go"}]},
            {"role": "model", "parts": [
                {"functionCall": {"name": "f", "args": {"a": 1}}, "thoughtSignature": signature},
                {"functionCall": {"name": "g", "args": {}}}]},
            {"role": "user", "parts": [answer("f", "one"), answer("g", "two")]}])
    };
    let again = dialect("gemini").encode_request(&request, &strict).unwrap().body;
    let again: Value = serde_json::from_slice(&again).unwrap();
    assert_eq!(again["contents"], expected("U0lH"));

    // Nothing came back but the calls.
    request.turns[1].blocks.remove(0);
    let again = dialect("gemini").encode_request(&request, &strict).unwrap().body;
    let again: Value = serde_json::from_slice(&again).unwrap();
    assert_eq!(again["contents"], expected("skip_thought_signature_validator"));
}

#[test]
fn v5_a_responses_stream_whose_arguments_come_only_when_done_becomes_a_chat_stream() {
    let call = |arguments: &str| json!({"type": "function_call", "id": "fc_1", "call_id": "call_7", "name": "f", "arguments": arguments});
    let input = named(&[
        json!({"type": "response.created", "response": {"id": "resp_1", "model": "up", "output": []}}),
        json!({"type": "response.output_item.added", "output_index": 0, "item": {"type": "reasoning", "id": "rs_1", "summary": []}}),
        json!({"type": "response.output_item.done", "output_index": 0,
            "item": {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"}}),
        json!({"type": "response.output_item.added", "output_index": 1, "item": call("")}),
        json!({"type": "response.function_call_arguments.done", "output_index": 1, "arguments": "{\"q\":2}"}),
        json!({"type": "response.output_item.done", "output_index": 1, "item": call("{\"q\":2}")}),
        json!({"type": "response.completed", "response": {"id": "resp_1", "status": "completed",
            "usage": {"input_tokens": 8, "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": 4, "output_tokens_details": {"reasoning_tokens": 2}}}}),
    ]);
    let (out, watch) = stream("responses", "openai", &input);
    let seen = events(&out);
    let deltas: Vec<&Value> = seen.iter().filter_map(|event| event["choices"].get(0)).collect();
    let calls = deltas.iter().map(|choice| choice["delta"]["tool_calls"].clone());
    let mut calls: Vec<Value> = calls.filter(Value::is_array).collect();
    assert_eq!(deltas[0]["delta"], json!({"role": "assistant", "content": ""}));
    assert_eq!(calls[0][0]["extra_content"]["google"]["thought_signature"], "gAAA");
    calls[0][0].as_object_mut().unwrap().remove("extra_content");
    assert_eq!(
        calls,
        [
            json!([{"index": 0, "id": "call_7", "type": "function", "function": {"name": "f", "arguments": ""}}]),
            json!([{"index": 0, "function": {"arguments": "{\"q\":2}"}}]),
        ]
    );
    assert_eq!(deltas.last().unwrap()["finish_reason"], "tool_calls");
    let usage = &seen[seen.len() - 2]["usage"];
    assert_eq!((&usage["prompt_tokens"], &usage["completion_tokens"]), (&json!(8), &json!(4)));
    assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 0);
    assert_eq!(usage["completion_tokens_details"]["reasoning_tokens"], 2);
    assert!(watch.complete);

    // The next turn, with what was kept of the reasoning put back.
    let mut request = decode(
        dialect("openai"),
        &json!({"model": "m", "tools": [{"type": "function", "function": {"name": "f"}}], "messages": [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": null, "tool_calls": [
                {"id": "call_7", "type": "function", "function": {"name": "f", "arguments": "{\"q\":2}"}}]},
            {"role": "tool", "tool_call_id": "call_7", "content": "r"}]})
        .to_string(),
    )
    .unwrap();
    let signature = Signature {
        data: "gAAA".to_owned(),
        item: Some("rs_1".to_owned()),
        account: Some("one".to_owned()),
        family: None,
    };
    let kept = BlockKind::Thinking {
        text: String::new(),
        signature: Some(signature),
        origin: dialect("responses").id(),
    };
    request.turns[1].blocks.insert(0, kept.into());
    for (account, expected) in [("one", 1), ("two", 0)] {
        request.reader.account = Some(account.to_owned());
        let body = dialect("responses").encode_request(&request, &Caps::permissive()).unwrap().body;
        let body: Value = serde_json::from_slice(&body).unwrap();
        let input = body["input"].as_array().unwrap();
        let place = input.iter().position(|item| item["call_id"] == "call_7").unwrap();
        assert_eq!(place, 1 + expected);
        if expected == 1 {
            assert_eq!(
                input[1],
                json!({"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"})
            );
        }
    }
}

#[test]
fn v6_usage_goes_over_and_comes_back() {
    let whole = json!({"id": "c", "choices": [{"message": {"content": "x"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120,
            "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 10}}});
    let read = |dialect_id: &str, body: &Value| {
        dialect(dialect_id).decode_response(&body.to_string().into()).unwrap()
    };
    let response = read("openai", &whole);
    let known = Usage {
        input_uncached: Some(30),
        cache_read: Some(60),
        cache_write: Some(10),
        output_total: Some(20),
        ..Usage::default()
    };
    assert_eq!(response.usage, known);
    let written = dialect("anthropic").encode_response(&response, &echo()).body;
    let written: Value = serde_json::from_slice(&written).unwrap();
    assert_eq!(written["usage"]["input_tokens"], 30);
    assert_eq!(read("anthropic", &written).usage, known);
    let back = dialect("openai").encode_response(&read("anthropic", &written), &echo()).body;
    let back: Value = serde_json::from_slice(&back).unwrap();
    assert_eq!(back["usage"], whole["usage"]);

    let gemini = dialect("gemini").encode_response(&response, &echo()).body;
    let gemini: Value = serde_json::from_slice(&gemini).unwrap();
    assert_eq!(
        gemini["usageMetadata"],
        json!({"promptTokenCount": 100, "cachedContentTokenCount": 60, "candidatesTokenCount": 20, "totalTokenCount": 120})
    );

    let responses = dialect("responses").encode_response(&response, &echo()).body;
    let responses: Value = serde_json::from_slice(&responses).unwrap();
    assert_eq!(
        (&responses["usage"]["input_tokens"], &responses["usage"]["output_tokens"]),
        (&json!(100), &json!(20))
    );
    assert_eq!(read("responses", &responses).usage, Usage { reasoning: Some(0), ..known });

    let mut partial = whole;
    partial["usage"]["prompt_tokens_details"] = json!({"cached_tokens": 60});
    let written = dialect("anthropic").encode_response(&read("openai", &partial), &echo()).body;
    let written: Value = serde_json::from_slice(&written).unwrap();
    assert_eq!(written["usage"]["input_tokens"], 40);
    assert_eq!(written["usage"]["cache_creation_input_tokens"], Value::Null);
}

#[test]
fn v9_a_stream_that_breaks_off_is_an_error() {
    let input = chunks(&[json!({"content": "par"})]);
    for client in ["openai", "anthropic", "responses"] {
        let (out, watch) = stream("openai", client, &input);
        assert!(out.contains("par") && !out.contains("message_stop") && !out.contains("[DONE]"));
        assert!(!out.contains("response.completed"));
        let error = watch.error.unwrap();
        assert_eq!((error.status, error.code.as_deref()), (Some(502), Some("upstream_stream_truncated")));
    }
    let mut collector = StreamCollector::new(dialect("openai"));
    collector.push(input.as_bytes()).unwrap();
    assert_eq!(collector.finish().unwrap_err().status, Some(502));
}

#[test]
fn v10_a_late_system_message_stays_late() {
    let body = json!({"model": "m", "messages": [
        {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
        {"role": "system", "content": "S2"}, {"role": "user", "content": "q"}]});
    for support in [false, true] {
        let caps = Caps { mid_conversation_system: support, ..Caps::permissive() };
        let (out, losses) = translate("openai", "anthropic", &body, &caps).unwrap();
        let messages = out["messages"].as_array().unwrap();
        assert_eq!(
            messages.last().unwrap()["content"],
            json!([{"type": "text", "text": "<system-reminder>S2</system-reminder>"}, {"type": "text", "text": "q"}])
        );
        assert_eq!(out.get("system"), None);
        assert_eq!(told(&losses), ["messages[2].role"]);
    }
    let last = json!({"model": "m", "messages": [{"role": "user", "content": "q"}, {"role": "system", "content": "S2"}]});
    let with = Caps { mid_conversation_system: true, ..Caps::permissive() };
    let (out, losses) = translate("openai", "anthropic", &last, &with).unwrap();
    assert_eq!(out["messages"][1]["role"], "system");
    assert!(told(&losses).is_empty());
    let (out, _) = translate("openai", "anthropic", &last, &Caps::permissive()).unwrap();
    assert_eq!(
        out["messages"],
        json!([{"role": "user", "content": [
            {"type": "text", "text": "q"}, {"type": "text", "text": "<system-reminder>S2</system-reminder>"}]}])
    );
}

#[test]
fn signed_thinking_comes_back_to_its_origin_through_a_chat_client() {
    let body = json!({"model": "m", "messages": [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": null,
         "thinking_blocks": [{"type": "thinking", "thinking": "abc", "signature": "S"}],
         "tool_calls": [{"id": "toolu_9", "type": "function", "function": {"name": "now", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "toolu_9", "content": "12:00"}],
        "tools": [{"type": "function", "function": {"name": "now"}}]});
    let (out, _) = translate("openai", "anthropic", &body, &Caps::permissive()).unwrap();
    assert_eq!(
        out["messages"][1]["content"][0],
        json!({"type": "thinking", "thinking": "abc", "signature": "S"})
    );
    let response = dialect("openai")
        .decode_response(
            &json!({"choices": [{"message": {"content": "x", "reasoning_content": "r"}}]}).to_string().into(),
        )
        .unwrap();
    assert!(matches!(&response.blocks[0].kind, BlockKind::Thinking { text, .. } if text == "r"));
}

#[test]
fn v7_what_another_dialects_model_signed_is_taken_out_and_all_else_keeps_its_bytes() {
    let seal = Seal::new([3; 32]);
    let answer = json!({"candidates": [{"content": {"parts": [{"functionCall": {"name": "f", "args": {}}, "thoughtSignature": "U0lH"}],
        "role": "model"}, "finishReason": "STOP"}]});
    let request = decode(
        dialect("anthropic"),
        r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"a"}]}"#,
    )
    .unwrap();
    let (_, mut shape) =
        Shape::of(&request, dialect("anthropic"), dialect("gemini"), &Caps::permissive(), Some(&seal));
    let mut response = dialect("gemini").decode_response(&answer.to_string().into()).unwrap();
    shape.response(&mut response);
    let shown = dialect("anthropic").encode_response(&response, &echo()).body;
    let shown: Value = serde_json::from_slice(&shown).unwrap();
    let (carried, call) = (shown["content"][0].to_string(), shown["content"][1].to_string());
    assert!(carried.contains("omr1."), "{carried}");
    let body = |blocks: &str| {
        format!(
            r#"{{"model":"m", "max_tokens":9.0,"messages":[{{"role":"assistant","content":[{blocks} ]}}]}}"#
        )
    };
    let own = r#"{"type":"thinking","thinking":"","signature":"EqQB"}"#;
    let stripped = strip_carriers(&body(&format!("{carried},{own} ,{call}")).into());
    assert_eq!(stripped, body(&format!("{own} ,{call}")));
}

#[test]
fn v8_a_stop_sequence_is_looked_out_for_where_the_upstream_has_none() {
    let (client, upstream) = (dialect("openai"), dialect("responses"));
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "a"}], "stop": ["</a>"]});
    let request = decode(client, &body.to_string()).unwrap();
    let (_, shape) = Shape::of(&request, client, upstream, &Caps::permissive(), None);
    let delta = |text: &str| json!({"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": text});
    let input = named(&[delta("foo<"), delta("/a"), delta(">bar"), delta("never")]);
    let pipe = Transcoder::new(upstream, client, echo(), shape);
    let (out, watch) = run(Box::new(pipe), [input.as_bytes()]);
    let events = events(&out);
    let text: String =
        events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(text, "foo");
    assert!(events.iter().any(|event| event["choices"][0]["finish_reason"] == "stop"), "{out}");
    assert!(watch.complete && out.ends_with("data: [DONE]\n\n"), "{out}");
}
