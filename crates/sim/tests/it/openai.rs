//! Chat Completions: shapes of answers, and what is refused.

use super::*;

fn tools() -> Value {
    json!([
        {"type": "function", "function": {"name": "weather", "parameters": {"type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city"]}}},
        {"type": "function", "function": {"name": "now"}}
    ])
}

async fn chat(model: &str, more: Value) -> Answer {
    ask(call(Dialect::Chat, model, false).with(more)).await
}

#[tokio::test]
async fn usage_in_streams_only_when_asked_for() {
    let options = json!({"stream": true, "stream_options": {"include_usage": true}});
    let plain = chat("echo", json!({"stream": true})).await;
    assert!(plain.events().iter().all(|event| event.get("usage").is_none()));
    assert_eq!(plain.events().last().unwrap(), "[DONE]");
    let asked = chat("echo", options.clone()).await.events();
    let usage = &asked[asked.len() - 2];
    assert_eq!((&usage["choices"], &usage["usage"]["completion_tokens"]), (&json!([]), &json!(9)));
    assert!(
        asked[..asked.len() - 2].iter().all(|event| event["usage"].is_null() && event.get("usage").is_some())
    );
    let never = chat("nousage", options.clone()).await;
    assert!(!never.raw().contains("\"usage\""));
    let early = chat("usage-early", json!({"stream": true})).await.events();
    let usage = early.iter().position(|event| event.get("usage").is_some_and(Value::is_object)).unwrap();
    let finish = early.iter().position(|event| event["choices"][0]["finish_reason"] == "stop").unwrap();
    assert!(usage < finish);
    let cached = chat("echo-cached", json!({})).await.json();
    assert_eq!(cached["usage"]["prompt_tokens"], 12);
    assert_eq!(cached["usage"]["prompt_tokens_details"]["cached_tokens"], 6);
}

#[tokio::test]
async fn every_chunk_has_one_identity_and_one_finish() {
    let events = chat("reasoning", json!({"stream": true})).await.events();
    let chunks: Vec<&Value> = events.iter().filter(|event| event.is_object()).collect();
    assert!(
        chunks
            .iter()
            .all(|chunk| chunk["id"] == chunks[0]["id"] && chunk["object"] == "chat.completion.chunk")
    );
    assert_eq!(
        chunks[0]["choices"][0]["delta"],
        json!({"role": "assistant", "content": "", "refusal": null})
    );
    assert_eq!(chunks.iter().filter(|chunk| chunk["choices"][0]["finish_reason"].is_string()).count(), 1);
    let thoughts =
        chunks.iter().filter(|chunk| chunk["choices"][0]["delta"]["reasoning_content"].is_string());
    assert!(thoughts.count() > 3);
    let whole = chat("reasoning", json!({})).await.json();
    assert!(whole["choices"][0]["message"]["reasoning_content"].is_string());
    assert!(whole["usage"]["completion_tokens_details"]["reasoning_tokens"].as_u64().unwrap() > 0);
}

#[tokio::test]
async fn tools_are_called_and_their_results_quoted() {
    let whole = chat("tools-2", json!({"tools": tools()})).await.json();
    let choice = &whole["choices"][0];
    assert_eq!(
        (&choice["finish_reason"], &choice["message"]["content"]),
        (&json!("tool_calls"), &Value::Null)
    );
    let calls = choice["message"]["tool_calls"].as_array().unwrap();
    assert_eq!(calls[0]["function"], json!({"name": "weather", "arguments": r#"{"city":"sample"}"#}));
    assert_eq!(calls[1]["function"], json!({"name": "now", "arguments": "{}"}));
    assert_ne!(calls[0]["id"], calls[1]["id"]);

    let events = chat("tools-2", json!({"tools": tools(), "stream": true})).await.events();
    let (mut heads, mut arguments) = (Vec::new(), vec![String::new(); 2]);
    for call in events.iter().filter_map(|event| event.pointer("/choices/0/delta/tool_calls/0")) {
        let index = usize::try_from(call["index"].as_u64().unwrap()).unwrap();
        arguments[index].push_str(call["function"]["arguments"].as_str().unwrap());
        if call.get("id").is_some() {
            heads.push((index, call["type"].clone(), call["function"]["name"].clone()));
        }
    }
    assert_eq!(arguments, [r#"{"city":"sample"}"#, "{}"]);
    assert_eq!(heads, [(0, json!("function"), json!("weather")), (1, json!("function"), json!("now"))]);
    let none = chat("tools-noargs", json!({"tools": tools()})).await.json();
    assert_eq!(none["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"], "");

    let answered = json!({"tools": tools(), "messages": [
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": null, "tool_calls": calls},
        {"role": "tool", "tool_call_id": calls[1]["id"], "content": "noon"},
        {"role": "tool", "tool_call_id": calls[0]["id"], "content": [{"type": "text", "text": "rain"}]}]});
    let text = chat("tools", answered).await.json();
    assert_eq!(text["choices"][0]["message"]["content"], "The tool said: noon\nrain");
    assert_eq!(text["choices"][0]["finish_reason"], "stop");
    let forced = json!({"tools": tools(), "tool_choice": {"type": "function", "function": {"name": "now"}}});
    let forced = chat("echo", forced).await.json();
    assert_eq!(forced["choices"][0]["message"]["tool_calls"][0]["function"]["name"], "now");
}

#[tokio::test]
async fn thoughts_are_wanted_back_where_the_script_says() {
    let asked = json!({"tools": tools()});
    let first = chat("reasoning-tools-replay", asked.clone()).await.json()["choices"][0]["message"].clone();
    let mut turn = json!({"role": "assistant", "content": null, "tool_calls": first["tool_calls"],
        "reasoning_content": first["reasoning_content"]});
    let back = |turn: &Value| {
        let result = json!({"role": "tool", "tool_call_id": turn["tool_calls"][0]["id"], "content": "rain"});
        with(asked.clone(), json!({"messages": [{"role": "user", "content": "a"}, turn, result]}))
    };
    assert_eq!(chat("reasoning-tools-replay", back(&turn)).await.status, 200);
    turn.as_object_mut().unwrap().remove("reasoning_content");
    let missing = chat("reasoning-tools-replay", back(&turn)).await;
    assert_eq!(
        (missing.status, &missing.json()["error"]["param"]),
        (400, &json!("messages[1].reasoning_content"))
    );
    // Only the turn that is not over yet counts.
    let mut later = back(&turn);
    later["messages"].as_array_mut().unwrap().push(json!({"role": "user", "content": "next"}));
    assert_eq!(chat("reasoning-replay", later).await.status, 200);
}

#[tokio::test]
async fn subsets_of_tools_are_kept_to() {
    let allowed = json!({"tools": tools(), "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "required",
        "tools": [{"type": "function", "function": {"name": "now"}}]}}});
    assert_eq!(chat("tools-2", allowed).await.said().calls, vec![("now".to_owned(), "{}".to_owned()); 2]);
}

#[tokio::test]
async fn usage_stands_in_odd_places() {
    for (model, chunks) in [("usage-finish", 1), ("usage-early", 1), ("usage-every", 9)] {
        let events = chat(model, json!({"stream": true})).await.events();
        let with_usage: Vec<&Value> =
            events.iter().filter(|event| event.get("usage").is_some_and(Value::is_object)).collect();
        assert_eq!(with_usage.len(), chunks, "{model}");
        let last = with_usage.last().unwrap();
        assert_eq!(last["usage"]["completion_tokens"], 9, "{model}");
        assert_eq!(last["choices"] == json!([]), model == "usage-early", "{model}");
    }
}

#[tokio::test]
async fn limits_formats_images_and_several_answers() {
    let cut = chat("echo", json!({"max_completion_tokens": 2})).await.json();
    assert_eq!(cut["choices"][0]["finish_reason"], "length");
    assert_eq!(cut["choices"][0]["message"]["content"], "What is ");
    let stopped = chat("echo", json!({"stop": " up"})).await.json();
    assert_eq!(stopped["choices"][0]["message"]["content"], "What is");
    let format = json!({"response_format": {"type": "json_schema", "json_schema": {"name": "x",
        "schema": {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}}}});
    let format = chat("echo", format).await.json();
    assert_eq!(format["choices"][0]["message"]["content"], r#"{"a":true}"#);
    let image = |url: &str| json!({"type": "image_url", "image_url": {"url": url}});
    let images = json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "look"},
        image("https://example.com/a.png"), image("data:image/png;base64,aGk=")]}]});
    let seen = chat("image", images).await.json();
    assert_eq!(seen["choices"][0]["message"]["content"], "I see 2 images.");
    let several = chat("echo", json!({"n": 3})).await.json();
    assert_eq!(several["choices"].as_array().unwrap().len(), 3);
    assert_eq!(several["usage"]["completion_tokens"], 27);
}

#[tokio::test]
async fn what_the_vendor_would_refuse_is_refused_by_name() {
    let user = json!({"role": "user", "content": "x"});
    let call = json!({"role": "assistant", "content": null, "tool_calls": [
        {"id": "c1", "type": "function", "function": {"name": "now", "arguments": "{}"}}]});
    let result = json!({"role": "tool", "tool_call_id": "c1", "content": "x"});
    for (more, param) in [
        (json!({"foo": 1}), "foo"),
        (json!({"system": "x"}), "system"),
        (json!({"model": null}), "model"),
        (json!({"messages": []}), "messages"),
        (json!({"messages": "x"}), "messages"),
        (json!({"messages": [{"role": "bot", "content": "x"}]}), "messages[0].role"),
        (json!({"messages": [{"role": "user"}]}), "messages[0].content"),
        (
            json!({"messages": [{"role": "user", "content": "x", "cache_control": {}}]}),
            "messages[0].cache_control",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "text"}]}]}),
            "messages[0].content[0].text",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "image"}]}]}),
            "messages[0].content[0].type",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}),
            "messages[0].content[0].image_url.url",
        ),
        (json!({"messages": [user, {"role": "assistant"}]}), "messages[1].content"),
        (
            json!({"messages": [user, {"role": "assistant", "content": null, "tool_calls": []}]}),
            "messages[1].tool_calls",
        ),
        (json!({"messages": [user, call]}), "messages"),
        (json!({"messages": [user, call, user]}), "messages[2]"),
        (json!({"messages": [user, call, result, result]}), "messages[3].tool_call_id"),
        (json!({"messages": [user, result]}), "messages[1].tool_call_id"),
        (
            json!({"messages": [user, {"role": "assistant", "content": "", "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "now", "arguments": {}}}]}]}),
            "messages[1].tool_calls[0].function.arguments",
        ),
        (json!({"temperature": 3}), "temperature"),
        (json!({"temperature": "1"}), "temperature"),
        (json!({"max_tokens": 0}), "max_tokens"),
        (json!({"max_tokens": 1, "max_completion_tokens": 1}), "max_tokens"),
        (json!({"stream_options": {"include_usage": true}}), "stream_options"),
        (json!({"stream": "yes"}), "stream"),
        (json!({"n": 0}), "n"),
        (json!({"stop": ["a", "b", "c", "d", "e"]}), "stop"),
        (json!({"tool_choice": "auto"}), "tool_choice"),
        (json!({"parallel_tool_calls": true}), "parallel_tool_calls"),
        (json!({"tools": []}), "tools"),
        (json!({"tools": [tools()[1], tools()[1]]}), "tools[1]"),
        (
            json!({"messages": [user, {"role": "assistant", "reasoning_content": "hm", "content": "y"}, user]}),
            "messages[1].reasoning_content",
        ),
        (
            json!({"messages": [user, {"role": "assistant", "content": null, "tool_calls": [
                {"id": "c".repeat(65), "type": "function", "function": {"name": "now", "arguments": "{}"}}]}]}),
            "messages[1].tool_calls[0].id",
        ),
        (json!({"tools": [{"name": "x"}]}), "tools[0].type"),
        (json!({"tools": [{"type": "function", "function": {"name": "a b"}}]}), "tools[0].function.name"),
        (
            json!({"tools": tools(), "tool_choice": {"type": "function", "function": {"name": "z"}}}),
            "tool_choice.function.name",
        ),
        (
            json!({"tools": [{"type": "function", "function": {"name": "f", "strict": true,
                "parameters": {"type": "object", "properties": {}}}}]}),
            "tools[0].function.parameters",
        ),
        (
            json!({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "strict": true,
                "schema": {"type": "object", "properties": {}}}}}),
            "response_format.json_schema.schema",
        ),
        (json!({"reasoning_effort": "huge"}), "reasoning_effort"),
        (json!({"response_format": {"type": "xml"}}), "response_format.type"),
        (json!({"metadata": {"a": 1}}), "metadata.a"),
        (json!({"top_logprobs": 2}), "top_logprobs"),
    ] {
        let answer = chat("echo", more.clone()).await;
        assert_eq!(answer.status, 400, "{more}: {}", answer.raw());
        let error = answer.json()["error"].clone();
        assert_eq!(error["param"], param, "{more}: {error}");
        assert!(error["code"].is_string() && error["type"] == "invalid_request_error");
    }
    assert_eq!(
        chat("echo", json!({"messages": [user, call, result], "user": "u", "seed": 1})).await.status,
        200
    );
}

#[tokio::test]
async fn bodies_that_are_not_json_objects() {
    for (content_type, text, part) in [
        ("application/json", "{", "not JSON"),
        ("application/json", "[]", "JSON object"),
        ("text/plain", "{}", "content type"),
    ] {
        let request = Request::post("/v1/chat/completions")
            .header("authorization", "Bearer k")
            .header("content-type", content_type);
        let answer = send(&simulator(), Dialect::Chat, request.body(Bytes::from(text)).unwrap()).await;
        assert_eq!(answer.status, 400);
        assert!(answer.json()["error"]["message"].as_str().unwrap().contains(part));
    }
}
