//! Messages: shapes of answers, and what is refused.

use super::*;

fn tools() -> Value {
    json!([
        {"name": "weather", "input_schema": {"type": "object",
            "properties": {"city": {"type": "string"}}, "required": ["city"]}},
        {"name": "now", "input_schema": {"type": "object"}}
    ])
}

async fn messages(model: &str, more: Value) -> Answer {
    ask(call(Dialect::Messages, model, false).with(more)).await
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().filter_map(|event| event["type"].as_str()).collect()
}

#[tokio::test]
async fn streams_have_the_vendors_order() {
    let answer = messages("reasoning-chunks-2", json!({"stream": true})).await;
    for block in answer.raw().split_terminator("\n\n") {
        let name = block.lines().next().unwrap().strip_prefix("event: ").unwrap();
        assert!(block.contains(&format!("\"type\":\"{name}\"")), "{block}");
    }
    let events = answer.events();
    let order: Vec<&str> = kinds(&events);
    assert_eq!(order[..3], ["message_start", "content_block_start", "ping"]);
    assert_eq!(
        order[order.len() - 6..],
        [
            "content_block_start",
            "content_block_delta",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop"
        ]
    );
    let start = &events[0]["message"];
    assert_eq!(
        (&start["content"], &start["stop_reason"], &start["usage"]["output_tokens"]),
        (&json!([]), &Value::Null, &json!(1))
    );
    let signature = events.iter().find(|event| event["delta"]["type"] == "signature_delta").unwrap();
    assert!(!signature["delta"]["signature"].as_str().unwrap().is_empty());
    let delta = &events[events.len() - 2];
    assert_eq!(delta["delta"], json!({"stop_reason": "end_turn", "stop_sequence": null}));
    assert!(delta["usage"]["output_tokens"].as_u64().unwrap() > 1);
}

#[tokio::test]
async fn usage_comes_as_scripted() {
    let whole = messages("echo-cached", json!({})).await.json();
    assert_eq!(
        (&whole["usage"]["input_tokens"], &whole["usage"]["cache_read_input_tokens"]),
        (&json!(6), &json!(6))
    );
    let never = messages("nousage", json!({"stream": true})).await;
    assert!(!never.raw().contains("\"usage\""));
    let early = messages("usage-early", json!({"stream": true})).await.events();
    assert_eq!(early[0]["message"]["usage"]["output_tokens"], 9);
    assert!(early[early.len() - 2].get("usage").is_none());
}

#[tokio::test]
async fn a_speed_needs_its_beta_and_is_told() {
    let fast = call(Dialect::Messages, "echo", false).with(json!({"speed": "fast"}));
    let refused = ask(fast.clone()).await;
    assert!(refused.status == 400 && refused.raw().contains("speed: Extra inputs"), "{}", refused.raw());
    let request = Request::post(fast.path)
        .header("content-type", "application/json")
        .header("x-api-key", "k")
        .header("anthropic-version", "2023-06-01")
        .header("anthropic-beta", "fast-mode-2026-02-01");
    let request = request.body(Bytes::from(fast.body.to_string())).unwrap();
    let told = send(&simulator(), Dialect::Messages, request).await.json();
    assert_eq!(told["usage"]["speed"], "fast");
}

#[tokio::test]
async fn tools_are_called_and_their_results_quoted() {
    let whole = messages("tools-2", json!({"tools": tools()})).await.json();
    assert_eq!(whole["stop_reason"], "tool_use");
    let calls = whole["content"].as_array().unwrap();
    assert_eq!((&calls[0]["name"], &calls[0]["input"]), (&json!("weather"), &json!({"city": "sample"})));
    assert_eq!((&calls[1]["name"], &calls[1]["input"]), (&json!("now"), &json!({})));

    let events = messages("tools-2", json!({"tools": tools(), "stream": true})).await.events();
    let arguments = |index: u64| -> String {
        let of = events.iter().filter(|event| event["index"] == index);
        of.filter_map(|event| event["delta"]["partial_json"].as_str()).collect()
    };
    assert_eq!((arguments(0), arguments(1)), (r#"{"city":"sample"}"#.to_owned(), "{}".to_owned()));
    let silent = messages("tools-noargs", json!({"tools": tools(), "stream": true})).await.events();
    assert!(!kinds(&silent).contains(&"content_block_delta"));

    let answered = json!({"tools": tools(), "messages": [
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": calls},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": calls[0]["id"], "content": "rain"},
            {"type": "tool_result", "tool_use_id": calls[1]["id"], "content": [{"type": "text", "text": "noon"}]},
            {"type": "text", "text": "go on"}]}]});
    let text = messages("tools", answered).await.json();
    assert_eq!(text["content"][0]["text"], "The tool said: rain\nnoon");
}

#[tokio::test]
async fn thoughts_come_back_with_their_signature_only() {
    let first = messages("reasoning", json!({})).await.json();
    let back = |content: &Value| {
        json!({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": content},
            {"role": "user", "content": "b"}]})
    };
    assert_eq!(messages("echo", back(&first["content"])).await.status, 200);
    let mut forged = first["content"].clone();
    forged[0]["signature"] = json!("elsewhere");
    let refused = messages("echo", back(&forged)).await;
    assert!(
        refused.raw().contains("messages.1.content.0: Invalid `signature` in `thinking` block"),
        "{}",
        refused.raw()
    );
}

#[tokio::test]
async fn thoughts_that_led_to_calls_are_wanted_back() {
    let thinking =
        json!({"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 2000, "tools": tools()});
    for model in ["reasoning-tools", "hidden-tools", "redacted-tools"] {
        let first = messages(model, thinking.clone()).await.json()["content"].clone();
        let kind = if model.starts_with("redacted") { "redacted_thinking" } else { "thinking" };
        assert_eq!((&first[0]["type"], &first[1]["type"]), (&json!(kind), &json!("tool_use")), "{model}");
        let back = |content: &Value| {
            let result = json!({"type": "tool_result", "tool_use_id": first[1]["id"], "content": "rain"});
            with(
                thinking.clone(),
                json!({"messages": [{"role": "user", "content": "a"},
                {"role": "assistant", "content": content}, {"role": "user", "content": [result]}]}),
            )
        };
        let answer = messages(model, back(&first)).await;
        let text = answer.json()["content"].as_array().unwrap().last().unwrap()["text"].clone();
        assert_eq!(text, "The tool said: rain", "{model}");

        let without = back(&json!([first[1]]));
        let refused = messages(model, without.clone()).await;
        let expected =
            "messages.1.content.0.type: Expected `thinking` or `redacted_thinking`, but found `tool_use`.";
        assert!(refused.status == 400 && refused.message().starts_with(expected), "{}", refused.raw());
        // A model that has no thoughts cannot want them, and one that is not asked for a budget does not.
        assert_eq!(messages("tools", without.clone()).await.status, 200);
        let adaptive = with(without, json!({"thinking": {"type": "adaptive"}}));
        assert_eq!(messages(model, adaptive).await.status, 200);

        let mut altered = first.clone();
        let field = if kind == "thinking" { "thinking" } else { "data" };
        altered[0][field] = json!(format!("{}x", first[0][field].as_str().unwrap()));
        let refused = messages(model, back(&altered)).await;
        let expected =
            if kind == "thinking" { "Invalid `signature` in `thinking` block" } else { "Invalid `data`" };
        assert!(refused.message().contains(expected), "{}", refused.raw());
        let last = back(&json!([first[1], first[0]]));
        assert!(
            messages(model, last).await.message().contains("final block in an assistant message cannot be")
        );
    }
}

#[tokio::test]
async fn limits_stops_images_and_counts() {
    let cut = messages("echo", json!({"max_tokens": 2})).await.json();
    assert_eq!((&cut["stop_reason"], &cut["content"][0]["text"]), (&json!("max_tokens"), &json!("What is ")));
    let warm = messages("echo", json!({"max_tokens": 0})).await.json();
    assert_eq!((&warm["stop_reason"], &warm["content"]), (&json!("max_tokens"), &json!([])));
    let stopped = messages("echo", json!({"stop_sequences": ["up", "is"]})).await.json();
    assert_eq!((&stopped["stop_reason"], &stopped["stop_sequence"]), (&json!("stop_sequence"), &json!("is")));
    let image =
        json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}});
    let seen = messages("image", json!({"messages": [{"role": "user", "content": [image]}]})).await.json();
    assert_eq!(seen["content"][0]["text"], "I see 1 image.");
    let body = json!({"model": "echo", "messages": [{"role": "user", "content": "What is up with the weather today?"}]});
    let count = Call { dialect: Dialect::Messages, path: "/v1/messages/count_tokens".to_owned(), body };
    assert_eq!(ask(count.clone()).await.json(), json!({"input_tokens": 12}));
    assert_eq!(ask(count.with(json!({"max_tokens": 1}))).await.status, 400);
}

#[tokio::test]
async fn what_the_vendor_would_refuse_is_refused_by_name() {
    let user = json!({"role": "user", "content": "x"});
    let call = json!({"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "now", "input": {}}]});
    let result = json!({"type": "tool_result", "tool_use_id": "t1", "content": "x"});
    let text = json!({"type": "text", "text": "x"});
    let marked = json!({"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}});
    for (more, part) in [
        (json!({"n": 1}), "n: "),
        (json!({"stop": ["x"]}), "stop: "),
        (json!({"max_tokens": null}), "max_tokens: "),
        (json!({"max_tokens": "1"}), "max_tokens"),
        (json!({"messages": []}), "messages: "),
        (json!({"messages": [{"role": "assistant", "content": "x"}]}), "messages.0.role: "),
        (json!({"messages": [user, {"role": "system", "content": "x"}]}), "messages.1.role: "),
        (json!({"messages": [{"role": "tool", "content": "x"}]}), "messages.0.role: "),
        (json!({"messages": [{"role": "user", "content": ""}]}), "messages.0.content: "),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "text", "text": ""}]}]}),
            "messages.0.content.0.text: ",
        ),
        (json!({"messages": [{"role": "user", "content": "x", "name": "y"}]}), "messages.0.name: "),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
            "messages.0.content.0.type: ",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "image", "source":
            {"type": "base64", "media_type": "image/bmp", "data": "x"}}]}]}),
            "messages.0.content.0.source.media_type: ",
        ),
        (json!({"messages": [user, call]}), "t1"),
        (json!({"messages": [user, call, user]}), "messages.2: "),
        (json!({"messages": [user, {"role": "user", "content": [result]}]}), "messages.1.content: "),
        (
            json!({"messages": [user, call, {"role": "user", "content": [text, result]}]}),
            "messages.2.content.1: ",
        ),
        (
            json!({"messages": [user, call, {"role": "user", "content": [result, result]}]}),
            "messages.2.content.1.tool_use_id: ",
        ),
        (json!({"messages": [user, {"role": "assistant", "content": "x "}]}), "messages.1.content: "),
        (
            json!({"messages": [{"role": "user", "content": [marked, marked, marked, marked, marked]}]}),
            "cache_control",
        ),
        (
            json!({"system": [{"type": "text", "text": "x", "cache_control": {"type": "forever"}}]}),
            "system.0.cache_control.type: ",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "text", "text": " \n"}]}]}),
            "messages.0.content.0.text: text content blocks must contain non-whitespace text",
        ),
        (
            json!({"tools": [{"name": "x", "input_schema": {"type": "object", "anyOf": []}}]}),
            "tools.0.input_schema: ",
        ),
        (
            json!({"output_config": {"format": {"type": "json_schema", "schema": {"type": "array",
                "items": {"type": "object"}}}}}),
            "output_config.format.schema.items: ",
        ),
        (json!({"temperature": 1.5}), "temperature: "),
        (json!({"thinking": {"type": "enabled"}}), "thinking.budget_tokens: "),
        (json!({"thinking": {"type": "enabled", "budget_tokens": 1024}}), "thinking.budget_tokens: "),
        (json!({"thinking": {"type": "adaptive"}, "temperature": 0.5}), "temperature: "),
        (json!({"tools": [{"name": "x"}]}), "tools.0.input_schema: "),
        (json!({"tools": [{"type": "function", "function": {}}]}), "tools.0.name: "),
        (json!({"tools": [{"name": "x", "input_schema": {}}]}), "tools.0.input_schema: "),
        (json!({"tool_choice": {"type": "auto"}}), "tool_choice: "),
        (json!({"tools": tools(), "tool_choice": {"type": "tool", "name": "z"}}), "tool_choice.name: "),
        (json!({"tools": tools(), "tool_choice": "auto"}), "tool_choice"),
        (json!({"metadata": {"a": "b"}}), "metadata.a: "),
        (json!({"stop_sequences": [" "]}), "stop_sequences.0: "),
    ] {
        let answer = messages("echo", more.clone()).await;
        assert_eq!(answer.status, 400, "{more}: {}", answer.raw());
        let body = answer.json();
        assert_eq!(
            (&body["type"], &body["error"]["type"]),
            (&json!("error"), &json!("invalid_request_error"))
        );
        let message = body["error"]["message"].as_str().unwrap();
        assert!(message.contains(part), "{more}: {message}");
    }
}

#[tokio::test]
async fn headers_matter() {
    let body = call(Dialect::Messages, "echo", false).body;
    for (version, status) in
        [(None, 400), (Some("2020-01-01"), 400), (Some("2023-06-01"), 200), (Some("2026-10-21"), 200)]
    {
        let mut request =
            Request::post("/v1/messages").header("content-type", "application/json").header("x-api-key", "k");
        if let Some(version) = version {
            request = request.header("anthropic-version", version);
        }
        let answer =
            send(&simulator(), Dialect::Messages, request.body(Bytes::from(body.to_string())).unwrap()).await;
        assert_eq!(answer.status, status);
        assert!(answer.header("request-id").is_some() || status == 400);
    }
    let system = with(
        body,
        json!({"messages": [{"role": "user", "content": "x"}, {"role": "system", "content": "y"}]}),
    );
    let request = Request::post("/v1/messages?beta=true")
        .header("content-type", "application/json")
        .header("authorization", "Bearer k")
        .header("anthropic-version", "2023-06-01")
        .header("anthropic-beta", "a-1,mid-conversation-system-2026-04-07");
    let answer =
        send(&simulator(), Dialect::Messages, request.body(Bytes::from(system.to_string())).unwrap()).await;
    assert_eq!(answer.status, 200, "{}", answer.raw());
}
