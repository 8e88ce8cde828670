//! Responses: shapes of answers, and what is refused.

use super::*;

async fn respond(model: &str, more: Value) -> Answer {
    ask(call(Dialect::Responses, model, false).with(more)).await
}

fn tools() -> Value {
    json!([{"type": "function", "name": "weather"}, {"type": "custom", "name": "patch"}])
}

fn user(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

fn output(call: &Value, text: &str) -> Value {
    let kind = format!("{}_output", call["type"].as_str().unwrap());
    json!({"type": kind, "call_id": call["call_id"], "output": text})
}

/// The names of events without what they have in common.
fn names(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["type"].as_str().unwrap().trim_start_matches("response.")).collect()
}

#[tokio::test]
async fn streams_tell_the_life_of_every_item() {
    let more = json!({"stream": true, "include": ["reasoning.encrypted_content"]});
    let answer = respond("reasoning-chunks-2", more).await;
    for block in answer.raw().split_terminator("\n\n") {
        let name = block.lines().next().unwrap().strip_prefix("event: ").unwrap();
        assert!(block.contains(&format!("\"type\":\"{name}\"")), "{block}");
    }
    let events = answer.events();
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], number, "{event}");
    }
    let mut order = names(&events);
    order.dedup();
    assert_eq!(
        order,
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
            "output_text.done",
            "content_part.done",
            "output_item.done",
            "completed",
        ]
    );
    let done: Vec<&Value> =
        events.iter().filter(|event| event["type"] == "response.output_item.done").collect();
    let last = &events.last().unwrap()["response"];
    for (index, event) in done.iter().enumerate() {
        assert_eq!((&event["output_index"], &event["item"]), (&json!(index), &last["output"][index]));
    }
    assert!(last["output"][0]["encrypted_content"].is_string());
    assert_eq!(
        (&events[0]["response"]["status"], &events[0]["response"]["output"]),
        (&json!("in_progress"), &json!([]))
    );
    assert_eq!(last["usage"]["total_tokens"], 12 + 20 + 3);
    let plain = respond("reasoning", json!({})).await.json();
    assert!(plain["output"][0].get("encrypted_content").is_none());
}

#[tokio::test]
async fn the_answer_repeats_the_request() {
    let sent = json!({"instructions": "Be brief.", "tools": tools(), "tool_choice": "none", "temperature": 0.5,
        "metadata": {"a": "b"}, "store": false, "text": {"format": {"type": "text"}, "verbosity": "low"},
        "reasoning": {"effort": "low"}, "parallel_tool_calls": false, "max_output_tokens": 99});
    let answer = respond("echo", sent.clone()).await.json();
    for (name, value) in sent.as_object().unwrap() {
        assert_eq!(&answer[name], value, "{name}");
    }
    let plain = respond("echo", json!({})).await.json();
    assert_eq!((&plain["store"], &plain["truncation"]), (&json!(true), &json!("disabled")));
    for name in ["error", "incomplete_details", "instructions", "previous_response_id", "user"] {
        assert!(plain.get(name).is_some_and(Value::is_null), "{name}");
    }
}

#[tokio::test]
async fn custom_tools_are_called_with_text() {
    let answer = respond("tool-patch", json!({"tools": tools()})).await.json();
    let item = &answer["output"][0];
    assert_eq!((&item["type"], &item["input"]), (&json!("custom_tool_call"), &json!("sample")));
    let events = respond("tool-patch", json!({"tools": tools(), "stream": true})).await.events();
    assert!(names(&events).contains(&"custom_tool_call_input.delta"));
    let back = json!({"tools": tools(), "input": [user("x"), item, output(item, "patched")]});
    assert_eq!(respond("tool-patch", back).await.said().text, "The tool said: patched");
}

#[tokio::test]
async fn fragments_of_parallel_calls_take_turns() {
    let call = |model: &str| call(Dialect::Responses, model, true).with_tools();
    let indexes = |events: &[Value]| -> Vec<u64> {
        let deltas = events.iter().filter(|event| event["type"] == "response.function_call_arguments.delta");
        deltas.map(|event| event["output_index"].as_u64().unwrap()).collect()
    };
    let turns = indexes(&ask(call("tools-2-interleaved-fragments-2")).await.events());
    assert_eq!(turns, [0, 1, 0, 1]);
    let rows = indexes(&ask(call("tools-2-fragments-2")).await.events());
    assert_eq!(rows, [0, 0, 1, 1]);
}

#[tokio::test]
async fn reasoning_comes_back_as_it_was_or_not_at_all() {
    let asked = json!({"tools": tools(), "include": ["reasoning.encrypted_content"], "store": false});
    let first = respond("reasoning-tools-2", asked.clone()).await.json()["output"].clone();
    let items = first.as_array().unwrap().clone();
    let back = |store: bool, edit: &dyn Fn(&mut Vec<Value>)| {
        let mut input = vec![user("x")];
        input.extend(items.clone());
        input.extend([output(&items[2], "two"), output(&items[1], "one")]);
        edit(&mut input);
        with(asked.clone(), json!({"input": input, "store": store}))
    };
    for (store, edit, problem) in [
        (false, &(|_: &mut Vec<Value>| {}) as &dyn Fn(&mut Vec<Value>), None),
        (false, &|input| input[1]["content"] = Value::Null, None),
        (
            false,
            &|input| {
                input.remove(1);
            },
            None,
        ),
        (true, &|input| input[1]["encrypted_content"] = Value::Null, None),
        (
            true,
            &|input| {
                input.remove(1);
            },
            Some((400, "without its required 'reasoning' item: 'rs_")),
        ),
        (false, &|input| input[1]["encrypted_content"] = Value::Null, Some((404, "Items are not persisted"))),
        (false, &|input| input[1]["id"] = json!("rs_other"), Some((400, "item_id did not match"))),
        (
            false,
            &|input| input[1]["encrypted_content"] = json!("gAAA"),
            Some((400, "could not be decrypted")),
        ),
        (false, &|input| input[1]["id"] = json!("msg_1"), Some((400, "begins with 'rs'"))),
        (
            false,
            &|input| {
                let item = input.remove(1);
                input.push(item);
            },
            Some((400, "without its required following item")),
        ),
        (
            false,
            &|input| {
                let item = input.remove(1);
                input.insert(3, item);
            },
            Some((400, "without its required following item")),
        ),
    ] {
        let body = back(store, edit);
        let answer = respond("reasoning", body.clone()).await;
        match problem {
            None => assert_eq!(answer.said().text, "The tool said: two\none", "{body}"),
            Some((status, part)) => {
                assert_eq!(answer.status, status, "{body}: {}", answer.raw());
                assert!(answer.message().contains(part), "{body}: {}", answer.message());
            }
        }
    }
    let lost: &dyn Fn(&mut Vec<Value>) = &|input| {
        input.remove(1);
    };
    let earlier: &dyn Fn(&mut Vec<Value>) = &|input| {
        lost(input);
        input.push(user("y"));
    };
    for (edit, fits) in [(&|_: &mut Vec<Value>| {} as _, true), (lost, false), (earlier, true)]
        as [(&dyn Fn(&mut Vec<Value>), bool); 3]
    {
        let answer = respond("reasoning-replay", back(false, edit)).await;
        assert_eq!(answer.status == 200, fits, "{}", answer.raw());
        assert!(fits || answer.message().contains("without its required 'reasoning' item"));
    }
    let invalid =
        respond("echo", back(false, &|input| input[1]["encrypted_content"] = json!("x"))).await.json();
    assert_eq!(invalid["error"]["code"], "invalid_encrypted_content");
}

#[tokio::test]
async fn failures_inside_have_an_event_of_their_own() {
    let failed = respond("error-after-2-error-429", json!({"stream": true})).await.events();
    let last = failed.last().unwrap();
    assert_eq!(
        (&last["type"], &last["sequence_number"]),
        (&json!("response.failed"), &json!(failed.len() - 1))
    );
    assert_eq!(last["response"]["status"], "failed");
    assert_eq!(last["response"]["error"]["code"], "rate_limit_exceeded");
    let first = respond("error-first-event", json!({"stream": true})).await.events();
    assert_eq!((&first[0]["type"], &first[0]["code"]), (&json!("error"), &json!("server_error")));
}

#[tokio::test]
async fn tokens_of_an_input_are_counted() {
    let count = |body: Value| async {
        ask(Call { dialect: Dialect::Responses, path: "/v1/responses/input_tokens".to_owned(), body }).await
    };
    let counted = count(json!({"model": "echo", "input": SAID, "instructions": "four"})).await.json();
    assert_eq!(counted, json!({"object": "response.input_tokens", "input_tokens": 13}));
    assert_eq!(count(json!({"model": "echo", "input": SAID, "stream": true})).await.status, 400);
}

#[tokio::test]
async fn what_the_vendor_would_refuse_is_refused_by_name() {
    let call = json!({"type": "function_call", "call_id": "c1", "name": "now", "arguments": "{}"});
    let result = json!({"type": "function_call_output", "call_id": "c1", "output": "x"});
    let long = "x".repeat(65);
    let tool = |more: Value| json!({"tools": [with(json!({"type": "function", "name": "f"}), more)]});
    for (more, param) in [
        (json!({"foo": 1}), "foo"),
        (json!({"messages": []}), "messages"),
        (json!({"stop": "x"}), "stop"),
        (json!({"n": 1}), "n"),
        (json!({"max_tokens": 100}), "max_tokens"),
        (json!({"input": null}), "input"),
        (json!({"input": []}), "input"),
        (json!({"input": [{}]}), "input[0].type"),
        (json!({"input": [{"type": "dance"}]}), "input[0].type"),
        (json!({"input": [{"role": "tool", "content": "x"}]}), "input[0].role"),
        (
            json!({"input": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]}),
            "input[0].content[0].type",
        ),
        (
            json!({"input": [{"role": "assistant", "content": [{"type": "input_text", "text": "x"}]}]}),
            "input[0].content[0].type",
        ),
        (
            json!({"input": [{"role": "user", "content": [{"type": "input_text", "text": "x", "cache_control": {}}]}]}),
            "input[0].content[0].cache_control",
        ),
        (
            json!({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": {"url": "x"}}]}]}),
            "input[0].content[0].image_url",
        ),
        (json!({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}), "input[0].content[0]"),
        (json!({"input": [{"role": "user", "content": "x", "id": "item_1"}]}), "input[0].id"),
        (json!({"input": [user("x"), call]}), "input"),
        (json!({"input": [user("x"), result]}), "input"),
        (json!({"input": [user("x"), call, call, result]}), "input[2].call_id"),
        (
            json!({"input": [user("x"), with(call.clone(), json!({"call_id": long})), result]}),
            "input[1].call_id",
        ),
        (
            json!({"input": [user("x"), with(call.clone(), json!({"arguments": {}})), result]}),
            "input[1].arguments",
        ),
        (json!({"input": [user("x"), with(call.clone(), json!({"id": "call_1"})), result]}), "input[1].id"),
        (json!({"input": [user("x"), call, with(result.clone(), json!({"output": 1}))]}), "input[2].output"),
        (json!({"previous_response_id": "resp_1"}), "previous_response_id"),
        (json!({"conversation": {"id": "conv_1"}}), "conversation"),
        (json!({"background": true}), "background"),
        (json!({"max_output_tokens": 15}), "max_output_tokens"),
        (json!({"temperature": 3}), "temperature"),
        (json!({"include": ["everything"]}), "include[0]"),
        (json!({"stream_options": {}}), "stream_options"),
        (json!({"stream": true, "stream_options": {"include_usage": true}}), "stream_options.include_usage"),
        (json!({"reasoning": {"effort": "huge"}}), "reasoning.effort"),
        (json!({"reasoning": {"max_tokens": 1}}), "reasoning.max_tokens"),
        (json!({"text": {"format": {"type": "json_schema", "json_schema": {}}}}), "text.format.json_schema"),
        (
            json!({"text": {"format": {"type": "json_schema", "name": "x", "strict": true, "schema": {"type": "object"}}}}),
            "text.format.schema",
        ),
        (json!({"tools": [{"type": "function", "function": {"name": "f"}}]}), "tools[0].function"),
        (json!({"tools": [{"type": "bash_20250124", "name": "bash"}]}), "tools[0].type"),
        (tool(json!({"name": "a b"})), "tools[0].name"),
        (tool(json!({"parameters": {"type": "string"}})), "tools[0].parameters"),
        (
            tool(
                json!({"strict": true, "parameters": {"type": "object", "properties": {"a": {}}, "additionalProperties": false}}),
            ),
            "tools[0].parameters",
        ),
        (json!({"tool_choice": "required"}), "tool_choice"),
        (json!({"tools": tools(), "tool_choice": {"type": "function", "name": "z"}}), "tool_choice.name"),
        (
            json!({"tools": tools(), "tool_choice": {"type": "function", "function": {"name": "weather"}}}),
            "tool_choice.name",
        ),
    ] {
        let answer = respond("echo", more.clone()).await;
        assert_eq!(answer.status, 400, "{more}: {}", answer.raw());
        let error = answer.json()["error"].clone();
        assert_eq!(error["param"], param, "{more}: {error}");
        assert_eq!(error["type"], "invalid_request_error");
    }
}

#[tokio::test]
async fn what_command_line_clients_send_is_taken() {
    let sent = json!({"input": [
            {"type": "message", "id": "msg_1", "role": "developer", "content": [{"type": "input_text", "text": "a"}]},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "b"}]},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "c"}]}],
        "tools": [
            {"type": "function", "name": "exec_command", "strict": false, "parameters": {"type": "object", "properties": {}}},
            {"type": "namespace", "name": "ns", "description": "d", "tools": [{"type": "function", "name": "inner"}]},
            {"type": "web_search", "external_web_access": true}],
        "tool_choice": "auto", "parallel_tool_calls": true, "reasoning": {"summary": "auto"}, "store": false,
        "stream": true, "include": ["reasoning.encrypted_content"], "prompt_cache_key": "k", "client_metadata": {"a": "b"}});
    let answer = respond("echo", sent).await;
    assert_eq!((answer.status, answer.streamed().text.as_str()), (200, "c"), "{}", answer.raw());
}
