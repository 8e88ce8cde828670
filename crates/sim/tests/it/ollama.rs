//! Ollama's chat: shapes of answers, and what is refused.

use super::*;

async fn chat(model: &str, more: Value) -> Answer {
    ask(call(Dialect::Ollama, model, false).with(more)).await
}

fn user(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

fn calls(names: &[&str]) -> Value {
    let calls: Vec<Value> =
        names.iter().map(|name| json!({"function": {"name": name, "arguments": {}}})).collect();
    json!({"role": "assistant", "content": "", "tool_calls": calls})
}

fn result(name: &str, text: &str) -> Value {
    json!({"role": "tool", "tool_name": name, "content": text})
}

#[tokio::test]
async fn streams_are_lines_and_the_last_one_counts() {
    let mut unsaid = call(Dialect::Ollama, "reasoning", true);
    unsaid.body.as_object_mut().unwrap().remove("stream");
    let answer = ask(unsaid).await;
    let text = answer.raw();
    assert!(text.ends_with('\n') && text.split_terminator('\n').all(|line| line.starts_with('{')), "{text}");
    let lines = answer.events();
    let (last, others) = lines.split_last().unwrap();
    assert!(others.iter().all(|line| line["done"] == false && line.get("done_reason").is_none()));
    assert_eq!(
        (&last["done"], &last["done_reason"], &last["message"]["content"]),
        (&json!(true), &json!("stop"), &json!(""))
    );
    for name in [
        "total_duration",
        "load_duration",
        "prompt_eval_count",
        "prompt_eval_duration",
        "eval_count",
        "eval_duration",
    ] {
        assert!(last[name].as_u64().is_some_and(|number| number > 0), "{name}: {last}");
    }
    assert!(
        lines.iter().all(|line| line["message"]["role"] == "assistant" && line["created_at"].is_string())
    );
    let calls = ask(call(Dialect::Ollama, "tools-2", true).with_tools()).await.events();
    let whole =
        |line: &&Value| line["message"]["tool_calls"].as_array().is_some_and(|calls| calls.len() == 1);
    assert_eq!(calls.iter().filter(whole).count(), 2);
    assert_eq!(calls[0]["message"]["tool_calls"][0]["function"]["arguments"], json!({"city": "sample"}));
}

#[tokio::test]
async fn models_are_shown_and_loaded() {
    let get = |path: &'static str| async move {
        send(&simulator(), Dialect::Ollama, Request::get(path).body(Bytes::new()).unwrap()).await.json()
    };
    let first = &get("/api/tags").await["models"][0];
    assert_eq!((&first["name"], &first["details"]["family"]), (&json!("echo:latest"), &json!("simulator")));
    assert!(get("/api/version").await["version"].is_string());
    let show = |body: Value| async {
        ask(Call { dialect: Dialect::Ollama, path: "/api/show".to_owned(), body }).await
    };
    let shown = show(json!({"model": "echo:latest"})).await.json();
    assert!(shown["capabilities"].as_array().unwrap().contains(&json!("tools")), "{shown}");
    assert_eq!(show(json!({"name": "echo"})).await.status, 200);
    assert_eq!((show(json!({"model": "gpt"})).await.status, show(json!({})).await.status), (404, 400));

    assert_eq!(chat("echo:latest", json!({})).await.json()["model"], "echo:latest");
    for (more, reason) in [
        (json!({"messages": []}), "load"),
        (json!({"messages": null, "keep_alive": 0}), "unload"),
        (json!({"messages": [], "keep_alive": "5m"}), "load"),
    ] {
        let loaded = chat("echo", more.clone()).await.json();
        assert_eq!((&loaded["done"], &loaded["done_reason"]), (&json!(true), &json!(reason)), "{more}");
        assert!(loaded.get("eval_count").is_none());
    }
}

#[tokio::test]
async fn results_belong_to_the_calls_before_them() {
    let back = json!({"messages": [user("x"), calls(&["weather", "now"]), result("now", "noon"), result("weather", "rain")]});
    assert_eq!(chat("tools", back).await.said().text, "The tool said: noon\nrain");
    let with_ids = json!({"messages": [user("x"),
        {"role": "assistant", "thinking": "hm", "tool_calls": [{"id": "1", "function": {"name": "now", "arguments": {}}}]},
        {"role": "tool", "tool_call_id": "1", "content": "noon"}]});
    assert_eq!(chat("tools", with_ids).await.said().text, "The tool said: noon");
    let nameless = json!({"messages": [user("x"), calls(&["weather", "now"]),
        {"role": "tool", "content": "rain"}, {"role": "tool", "content": "noon"}]});
    assert_eq!(chat("tools", nameless.clone()).await.said().text, "The tool said: rain\nnoon");
    assert!(chat("tools-strict", nameless).await.message().contains("messages[2]: tool_name ''"));
}

#[tokio::test]
async fn what_the_vendor_would_not_take_is_refused_by_name() {
    let messages = |list: Value| json!({"messages": list});
    for (more, part) in [
        (json!({"model": ""}), "model"),
        (json!({"model": null}), "model is required"),
        (json!({"messages": "x"}), "cannot unmarshal string into Go struct field ChatRequest.messages"),
        (messages(json!([{"content": "x"}])), "messages[0].role is required"),
        (messages(json!([{"role": "developer", "content": "x"}])), "invalid role \"developer\""),
        (
            messages(json!([{"role": "user", "content": [{"type": "text", "text": "x"}]}])),
            "cannot unmarshal array into Go struct field ChatRequest.messages[0].content",
        ),
        (
            messages(json!([{"role": "user", "content": "x", "images": ["data:image/png;base64,aGk="]}])),
            "messages[0].images[0]: illegal base64",
        ),
        (
            messages(
                json!([user("x"), {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}]),
            ),
            "cannot unmarshal string into Go struct field ChatRequest.messages[1].tool_calls[0].function.arguments",
        ),
        (messages(json!([user("x"), calls(&["f"]), result("g", "y")])), "tool_name 'g'"),
        (messages(json!([user("x"), {"role": "tool", "content": "y"}])), "tool_name ''"),
        (messages(json!([user("x"), calls(&["f"]), result("f", "y"), result("f", "z")])), "tool_name 'f'"),
        (messages(json!([user("x"), result("f", "y")])), "tool_name 'f'"),
        (messages(json!([user("x"), calls(&["f"]), user("y")])), "the call of 'f' has no result"),
        (messages(json!([user("x"), calls(&["f"])])), "the call of 'f' has no result"),
        (messages(json!([user("x"), {"role": "assistant"}])), "says nothing"),
        (json!({"stream": "yes"}), "ChatRequest.stream"),
        (json!({"think": "hard"}), "invalid think value"),
        (json!({"format": "xml"}), "invalid format"),
        (json!({"keep_alive": "soon"}), "invalid duration"),
        (json!({"options": {"temperature": "1"}}), "option \"temperature\" must be of type float32"),
        (json!({"options": {"num_predict": 1.5}}), "option \"num_predict\" must be of type integer"),
        (json!({"options": {"stop": "x"}}), "option \"stop\" must be of type array"),
        (json!({"tools": [{"name": "f"}]}), "tools[0].type is required"),
        (json!({"tools": [{"type": "custom", "custom": {}}]}), "only 'function' is"),
        (
            json!({"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "array"}}}]}),
            "must be a schema of type 'object'",
        ),
        (json!({"top_logprobs": 21}), "top_logprobs"),
    ] {
        let answer = chat("echo", more.clone()).await;
        assert_eq!(answer.status, 400, "{more}: {}", answer.raw());
        assert!(answer.message().contains(part), "{more}: {}", answer.message());
    }
}

#[tokio::test]
async fn what_is_not_known_is_read_over_unless_the_model_is_strict() {
    for (more, field) in [
        (json!({"temperature": 1}), "temperature"),
        (json!({"tool_choice": "auto"}), "tool_choice"),
        (json!({"options": {"max_tokens": 1}}), "options.max_tokens"),
        (json!({"messages": [with(user("x"), json!({"name": "n"}))]}), "messages[0].name"),
        (
            json!({"tools": [{"type": "function", "function": {"name": "f", "strict": true}}]}),
            "tools[0].function.strict",
        ),
    ] {
        assert_eq!(chat("echo", more.clone()).await.status, 200, "{more}");
        let refused = chat("echo-strict", more.clone()).await;
        assert_eq!(refused.message(), format!("json: unknown field \"{field}\""), "{more}");
    }
    let request = call(Dialect::Ollama, "echo", false);
    let untyped = Request::post(&request.path).body(Bytes::from(request.body.to_string())).unwrap();
    assert_eq!(send(&simulator(), Dialect::Ollama, untyped).await.status, 200);
}

async fn generate(model: &str, more: Value) -> Answer {
    let mut asked = call(Dialect::Ollama, model, false);
    asked.path = asked.path.replace("/api/chat", "/api/generate");
    asked.body.as_object_mut().unwrap().remove("messages");
    ask(asked.with(more)).await
}

#[tokio::test]
async fn texts_are_completed() {
    let answer =
        generate("reasoning", json!({"prompt": "once", "suffix": "end", "think": true})).await.json();
    assert_eq!((&answer["response"], &answer["done"]), (&json!("once<FILL>end"), &json!(true)));
    assert!(answer["thinking"].is_string() && answer.get("message").is_none(), "{answer}");
    let lines = generate("echo", json!({"prompt": "one two", "stream": true})).await.events();
    let text: String = lines.iter().map(|line| line["response"].as_str().unwrap()).collect();
    assert_eq!((text.as_str(), &lines.last().unwrap()["done_reason"]), ("one two", &json!("stop")));
    for (asked, reason) in [(json!({}), "load"), (json!({"prompt": "", "keep_alive": 0}), "unload")] {
        let answer = generate("echo", asked).await.json();
        assert_eq!((&answer["done_reason"], &answer["response"]), (&json!(reason), &json!("")));
    }
    for (asked, part) in [
        (json!({"prompt": ["x"]}), "prompt"),
        (json!({"prompt": "x", "raw": true, "system": "s"}), "raw mode does not support"),
        (json!({"prompt": "x", "images": ["?"]}), "illegal base64"),
    ] {
        let answer = generate("echo", asked.clone()).await;
        assert_eq!(answer.status, 400, "{asked}: {}", answer.raw());
        assert!(answer.message().contains(part), "{asked}: {}", answer.message());
    }
    let refused = generate("echo-strict", json!({"prompt": "x", "messages": []})).await;
    assert_eq!(refused.message(), "json: unknown field \"messages\"");
}
