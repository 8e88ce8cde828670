//! What clients of Responses count on, and what upstreams of it get wrong.

use omniroute_dialect::{Caps, Echo, registry::DIALECTS};
use serde_json::{Value, json};

use crate::support::{dialect, echo, events, named, pipe, recorded, run, stream, told, translate};

/// Puts a stream together as the official client libraries do: by the places of items and parts. Fails where they do.
fn accumulate(stream: &str, name: &str) -> Value {
    let mut response = Value::Null;
    let mut finished = Vec::new();
    for (at, frame) in stream.split_terminator("\n\n").enumerate() {
        let (event, data) = frame.strip_prefix("event: ").unwrap().split_once("\ndata: ").unwrap();
        let data: Value = serde_json::from_str(data).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!((data["type"].as_str(), &data["sequence_number"]), (Some(event), &json!(at)), "{name}");
        if event == "response.created" {
            response = data["response"].clone();
            assert_eq!(response["output"], json!([]), "{name}: items are added to this list");
            continue;
        }
        let place = usize::try_from(data["output_index"].as_u64().unwrap_or(0)).unwrap();
        let part = usize::try_from(data["content_index"].as_u64().unwrap_or(0)).unwrap();
        let output = response["output"].as_array_mut().unwrap();
        match event.trim_start_matches("response.") {
            "output_item.added" => {
                assert_eq!(place, output.len(), "{name}: places follow each other");
                output.push(data["item"].clone());
            }
            "content_part.added" => {
                let content = output[place]["content"].as_array_mut().unwrap();
                assert_eq!(part, content.len());
                content.push(data["part"].clone());
            }
            "output_text.delta" => {
                append(&mut output[place]["content"][part]["text"], &data["delta"]);
                if let Some(tokens) = data["logprobs"].as_array().filter(|tokens| !tokens.is_empty()) {
                    let list = output[place]["content"][part]["logprobs"].as_array_mut().unwrap();
                    list.extend(tokens.iter().cloned());
                }
            }
            "refusal.delta" => append(&mut output[place]["content"][part]["refusal"], &data["delta"]),
            "output_text.annotation.added" => {
                let list = output[place]["content"][part]["annotations"].as_array_mut().unwrap();
                list.push(data["annotation"].clone());
            }
            "reasoning_summary_part.added" => {
                output[place]["summary"].as_array_mut().unwrap().push(data["part"].clone());
            }
            "reasoning_summary_text.delta" => {
                let index = usize::try_from(data["summary_index"].as_u64().unwrap()).unwrap();
                append(&mut output[place]["summary"][index]["text"], &data["delta"]);
            }
            "function_call_arguments.delta" => append(&mut output[place]["arguments"], &data["delta"]),
            "custom_tool_call_input.delta" => append(&mut output[place]["input"], &data["delta"]),
            "output_item.done" => {
                let item = &data["item"];
                assert_eq!(output[place]["id"], item["id"], "{name}");
                for member in ["content", "summary", "arguments", "input"] {
                    assert_eq!(output[place][member], item[member], "{name}: the pieces are the whole");
                }
                finished.push(item.clone());
            }
            "completed" | "incomplete" => {
                assert_eq!(data["response"]["output"], Value::from(finished.clone()), "{name}");
                assert!(data["response"]["usage"]["total_tokens"].is_u64(), "{name}");
                return data["response"].clone();
            }
            _ => {}
        }
    }
    panic!("{name}: no end");
}

fn append(text: &mut Value, piece: &Value) {
    *text = format!("{}{}", text.as_str().unwrap_or_default(), piece.as_str().unwrap()).into();
}

#[test]
fn f23_every_stream_is_put_together_by_its_clients() {
    for fixture in recorded() {
        let (out, _) = run(pipe(fixture.dialect, dialect("responses"), echo()), [&fixture.body[..]]);
        let response = accumulate(&out, &fixture.name());
        assert_eq!(response["model"], "asked/model");
        // The whole answer says the same.
        let collected = dialect("responses").decode_response(&response.to_string().into()).unwrap();
        assert!(collected.is_meaningful());
    }
}

#[test]
fn f7_arguments_that_come_only_when_they_are_done_reach_every_client() {
    let call = |arguments: &str| json!({"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": arguments});
    let input = named(&[
        json!({"type": "response.output_item.added", "output_index": 0, "item": call("")}),
        json!({"type": "response.output_item.done", "output_index": 0, "item": call("{\"deep\":[1.0]}")}),
        json!({"type": "response.completed", "response": {"id": "resp_1", "status": "completed", "output": []}}),
    ]);
    for client in DIALECTS.iter().filter(|client| client.id().as_str() != "responses") {
        let (out, watch) = stream("responses", client.id().as_str(), &input);
        assert!(watch.complete && out.contains("deep"), "{}: {out}", client.id());
    }
}

#[test]
fn an_error_before_and_within_an_answer() {
    let failed = json!({"type": "response.failed", "response": {"status": "failed",
        "error": {"code": "rate_limit_exceeded", "message": "busy"}}});
    for client in DIALECTS {
        let (out, watch) = stream("responses", client.id().as_str(), &named(std::slice::from_ref(&failed)));
        let error = watch.error.unwrap();
        assert_eq!((out.as_str(), error.status, error.message.as_str()), ("", Some(429), "busy"));
        assert!(!watch.meaningful);
    }
}

#[test]
fn f34_a_search_stays_a_search_in_both_directions() {
    let caps = Caps { web_search: true, ..Caps::permissive() };
    let body = json!({"model": "m", "input": "q", "tools": [{"type": "web_search",
        "filters": {"allowed_domains": ["a.example"]}, "user_location": {"type": "approximate", "city": "Bern"}}],
        "tool_choice": {"type": "web_search"}});
    let (out, _) = translate("responses", "anthropic", &body, &caps).unwrap();
    assert_eq!(
        (&out["tools"][0]["type"], &out["tools"][0]["allowed_domains"]),
        (&json!("web_search_20250305"), &json!(["a.example"]))
    );
    assert_eq!(out["tool_choice"], json!({"type": "tool", "name": "web_search"}));
    let (out, _) = translate(
        "responses",
        "gemini",
        &json!({"model": "m", "input": "q", "tools": [{"type": "web_search"}]}),
        &caps,
    )
    .unwrap();
    assert!(out["tools"][0]["googleSearch"].is_object(), "{out}");

    let search = json!({"type": "web_search_20250305", "name": "web_search", "max_uses": 2, "blocked_domains": ["b.example"],
        "user_location": {"type": "approximate", "city": "Bern"}});
    let body = json!({"model": "m", "max_tokens": 99, "messages": [{"role": "user", "content": "a"}], "tools": [search],
        "tool_choice": {"type": "tool", "name": "web_search"}});
    let (out, losses) = translate("anthropic", "responses", &body, &Caps::permissive()).unwrap();
    assert_eq!(
        out["tools"],
        json!([{"type": "web_search", "user_location": {"type": "approximate", "city": "Bern"}}])
    );
    assert_eq!(out["tool_choice"], json!({"type": "web_search"}));
    assert_eq!(told(&losses), ["tools[0].blocked_domains", "tools[0].max_uses"]);
}

#[test]
fn tools_of_namespaces_go_out_flat_and_come_back() {
    let body = json!({"model": "m", "input": "q", "stream": true, "tools": [
        {"type": "namespace", "name": "agents", "description": "d", "tools": [{"type": "function", "name": "spawn"}]}]});
    let (out, _) = translate("responses", "openai", &body, &Caps::permissive()).unwrap();
    assert_eq!(out["tools"][0]["function"]["name"], "agents__spawn");
    let chunk = json!({"choices": [{"index": 0, "delta": {"tool_calls": [
        {"index": 0, "id": "c", "function": {"name": "agents__spawn", "arguments": "{}"}}]}, "finish_reason": "tool_calls"}]});
    let echo = Echo { request: body.to_string().into(), ..echo() };
    let input = format!("data: {chunk}\n\ndata: [DONE]\n\n");
    let (out, _) = run(pipe(dialect("openai"), dialect("responses"), echo), [input.as_bytes()]);
    let seen = events(&out);
    let done = seen.iter().find(|event| event["type"] == "response.output_item.done").unwrap();
    assert_eq!((&done["item"]["namespace"], &done["item"]["name"]), (&json!("agents"), &json!("spawn")));
    assert_eq!(seen[0]["response"]["tools"], body["tools"], "the answer repeats what was asked");
}

#[test]
fn a_request_for_a_kept_answer_is_not_turned_into_another() {
    let headers = http::HeaderMap::new();
    let head = omniroute_dialect::Head { headers: &headers, path: "", query: None };
    let responses = dialect("responses");
    for (body, expected) in [
        (json!({"model": "m", "input": "q"}), json!(false)),
        (json!({"model": "m", "input": "q", "store": false}), json!(false)),
        (json!({"model": "m", "input": "q", "store": true}), json!(true)),
        (json!({"model": "m", "previous_response_id": "resp_1", "store": true}), json!(true)),
    ] {
        let bytes = bytes::Bytes::from(body.to_string());
        let envelope = responses.envelope(head, &bytes).unwrap();
        let edited = responses.edit_request(&bytes, &envelope, "up").to_bytes();
        let edited: Value = serde_json::from_slice(&edited).unwrap();
        assert_eq!((&edited["store"], &edited["model"]), (&expected, &json!("up")));
    }
}
