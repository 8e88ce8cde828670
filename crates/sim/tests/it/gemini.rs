//! `generateContent`: shapes of answers, and what is refused.

use super::*;

async fn generate(model: &str, more: Value) -> Answer {
    ask(call(Dialect::Gemini, model, false).with(more)).await
}

fn user(text: &str) -> Value {
    json!({"role": "user", "parts": [{"text": text}]})
}

fn functions() -> Value {
    json!([{"functionDeclarations": [{"name": "weather"}, {"name": "now"}]}])
}

fn responses(names: &[&str]) -> Value {
    let parts: Vec<Value> = names
        .iter()
        .map(|name| json!({"functionResponse": {"name": name, "response": {"output": format!("{name}!")}}}))
        .collect();
    json!({"role": "user", "parts": parts})
}

#[tokio::test]
async fn streams_are_events_or_one_array() {
    let sse = ask(call(Dialect::Gemini, "chunks-3", true)).await;
    let text = sse.raw();
    assert!(text.lines().all(|line| line.is_empty() || line.starts_with("data: {")), "{text}");
    let mut call = call(Dialect::Gemini, "chunks-3", true);
    call.path = "/v1beta/models/chunks-3:streamGenerateContent".to_owned();
    let array = ask(call.clone()).await;
    assert_eq!(array.header("content-type"), Some("application/json; charset=UTF-8"));
    assert_eq!(array.json().as_array().unwrap().len(), sse.events().len());
    let finished: Vec<Value> = sse
        .events()
        .into_iter()
        .filter(|event| event["candidates"][0].get("finishReason").is_some())
        .collect();
    assert_eq!(finished.len(), 1);
    assert_eq!(finished[0]["usageMetadata"]["totalTokenCount"], 12 + 5);
    assert_eq!(finished[0]["candidates"][0]["content"], json!({"parts": [{"text": ""}], "role": "model"}));

    // Errors are elements too.
    let refused = ask(call.clone().with(json!({"nonsense": 1}))).await;
    assert_eq!((refused.status, &refused.json()[0]["error"]["status"]), (400, &json!("INVALID_ARGUMENT")));
    call.path = "/v1beta/models/error-after-1:streamGenerateContent".to_owned();
    let broken = ask(call.clone()).await.json();
    assert!(broken[1]["error"]["message"].is_string(), "{broken}");
    call.path = "/v1beta/models/huge-1m:streamGenerateContent".to_owned();
    assert!(ask(call).await.json().as_array().unwrap().len() > 1000);
}

#[tokio::test]
async fn keys_may_stand_in_the_query() {
    let call = call(Dialect::Gemini, "echo", true);
    for (query, status) in [("&key=k%2D1", 200), ("", 403), ("&key=sk-bad", 400)] {
        let request =
            Request::post(format!("{}{query}", call.path)).header("content-type", "application/json");
        let answer =
            send(&simulator(), Dialect::Gemini, request.body(Bytes::from(call.body.to_string())).unwrap())
                .await;
        assert_eq!(answer.status, status, "{query}");
        if status == 400 {
            assert_eq!(answer.json()["error"]["details"][0]["reason"], "API_KEY_INVALID");
        }
    }
}

#[tokio::test]
async fn signed_calls_must_come_back_as_they_were() {
    let asked = json!({"tools": functions()});
    let first = generate("reasoning-tools-2", asked.clone()).await.json();
    let model = first["candidates"][0]["content"].clone();
    let parts = model["parts"].as_array().unwrap();
    assert!(parts[0]["thought"] == true && parts[1]["thoughtSignature"].is_string());
    assert!(parts[2].get("thoughtSignature").is_none());
    let signature = parts[1]["thoughtSignature"].as_str().unwrap();

    let back = |edit: &dyn Fn(&mut Value)| {
        let mut turn = model.clone();
        edit(&mut turn["parts"]);
        json!({"tools": functions(), "contents": [user("x"), turn, responses(&["weather", "now"])]})
    };
    let url_safe = signature.replace('+', "-").replace('/', "_");
    for (edit, problem) in [
        (&(|_: &mut Value| {}) as &dyn Fn(&mut Value), None),
        (&|parts| parts[1]["thoughtSignature"] = json!(url_safe), None),
        (
            &|parts| {
                parts.as_array_mut().unwrap().remove(0);
            },
            None,
        ),
        (&|parts| parts[1]["thoughtSignature"] = json!("skip_thought_signature_validator"), None),
        (&|parts| parts[1]["thoughtSignature"] = json!("c2tpcF90aG91Z2h0X3NpZ25hdHVyZV92YWxpZGF0b3I="), None),
        (&|parts| parts[1]["thoughtSignature"] = Value::Null, Some("missing a thought_signature")),
        (&|parts| parts[1]["thoughtSignature"] = json!("aGVsbG8="), Some("Thought signature is not valid")),
        (&|parts| parts[1]["thoughtSignature"] = json!("***"), Some("Base64 decoding failed")),
        (
            &|parts| parts[1]["functionCall"]["args"] = json!({"other": 1}),
            Some("Thought signature is not valid"),
        ),
        (
            &|parts| {
                let signature = parts[1].as_object_mut().unwrap().remove("thoughtSignature").unwrap();
                parts[2]["thoughtSignature"] = signature;
            },
            Some("Thought signature is not valid"),
        ),
    ] {
        let body = back(edit);
        let answer = generate("reasoning-tools-2", body.clone()).await;
        match problem {
            None => assert_eq!(answer.said().text, "The tool said: weather!\nnow!", "{body}"),
            Some(problem) => {
                assert_eq!(answer.status, 400, "{body}");
                assert!(answer.message().contains(problem), "{}", answer.message());
            }
        }
    }
    // A model that does not think gives none out and wants none.
    let unsigned = back(&|parts| parts[1]["thoughtSignature"] = Value::Null);
    assert_eq!(generate("tools-2", unsigned.clone()).await.status, 200);
    // What is over is over: only the turn since the last text of the user counts.
    let mut later = unsigned;
    later["contents"]
        .as_array_mut()
        .unwrap()
        .extend([json!({"role": "model", "parts": [{"text": "done"}]}), user("next")]);
    assert_eq!(generate("reasoning", later).await.status, 200);
}

#[tokio::test]
async fn texts_are_signed_at_their_end() {
    let events = ask(call(Dialect::Gemini, "reasoning", true)).await.events();
    let part = events.last().unwrap()["candidates"][0]["content"]["parts"][0].clone();
    assert_eq!(part["text"], "");
    let turn = |part: &Value| json!({"contents": [user("x"), {"role": "model", "parts": [{"text": "y"}, part]}, user("z")]});
    assert_eq!(generate("reasoning", turn(&part)).await.status, 200);
    let mut other = part;
    other["thoughtSignature"] = json!("aGVsbG8=");
    assert!(generate("reasoning", turn(&other)).await.message().contains("Thought signature is not valid"));
}

#[tokio::test]
async fn blocked_prompts_have_no_candidates() {
    let blocked = generate("blocked", json!({})).await.json();
    assert_eq!(blocked["promptFeedback"]["blockReason"], "PROHIBITED_CONTENT");
    assert!(blocked.get("candidates").is_none());
    let filtered = generate("filtered", json!({})).await.json();
    assert_eq!(filtered["candidates"][0]["safetyRatings"][0]["blocked"], true);
}

#[tokio::test]
async fn tokens_of_contents_are_counted() {
    let count = |body: Value| async {
        let path = "/v1beta/models/echo:countTokens".to_owned();
        ask(Call { dialect: Dialect::Gemini, path, body }).await
    };
    let contents = json!([user(SAID)]);
    assert_eq!(count(json!({"contents": contents})).await.json()["totalTokens"], 12);
    let whole = json!({"generateContentRequest": {"model": "models/echo", "contents": contents,
        "systemInstruction": {"parts": [{"text": "four"}]}}});
    assert_eq!(count(whole.clone()).await.json()["totalTokens"], 13);
    for (body, part) in [
        (json!({"contents": contents, "tools": []}), "Unknown name \"tools\""),
        (json!({}), "contents is not specified"),
        (with(whole, json!({"contents": contents})), "mutually exclusive"),
        (json!({"generateContentRequest": {"contents": contents}}), "generate_content_request.model"),
    ] {
        let answer = count(body.clone()).await;
        assert!(answer.status == 400 && answer.message().contains(part), "{body}: {}", answer.raw());
    }
}

#[tokio::test]
async fn calls_are_forced_and_filtered() {
    let config =
        |config: Value| json!({"tools": functions(), "toolConfig": {"functionCallingConfig": config}});
    for (model, mode, names) in [
        ("echo", json!({"mode": "ANY"}), vec!["weather"]),
        ("echo", json!({"mode": "ANY", "allowedFunctionNames": ["now"]}), vec!["now"]),
        ("tools-2", json!({"mode": "VALIDATED"}), vec!["weather", "now"]),
        ("tools-2", json!({"mode": "none"}), vec![]),
        ("echo", json!({"mode": "AUTO"}), vec![]),
    ] {
        let said = generate(model, config(mode.clone())).await.said();
        let found: Vec<&str> = said.calls.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(found, names, "{mode}");
    }
    let several = generate("echo", json!({"generationConfig": {"candidateCount": 2}})).await.json();
    assert_eq!(several["candidates"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn what_the_vendor_would_refuse_is_refused_by_name() {
    let model = |parts: Value| json!({"role": "model", "parts": parts});
    let fc = |name: &str| json!({"functionCall": {"name": name, "args": {}}});
    let contents = |list: Value| json!({"contents": list});
    let tool =
        |schema: Value| json!({"tools": [{"functionDeclarations": [{"name": "f", "parameters": schema}]}]});
    let object = |property: Value| tool(json!({"type": "OBJECT", "properties": {"p": property}}));
    for (more, part) in [
        (json!({"stream_options": {}}), "Unknown name \"stream_options\": Cannot find field."),
        (
            json!({"generationConfig": {"max_tokens": 1}}),
            "Unknown name \"max_tokens\" at 'generation_config'",
        ),
        (
            contents(json!([{"role": "user", "parts": [{"text": "x", "cache": 1}]}])),
            "Unknown name \"cache\" at 'contents[0].parts[0]'",
        ),
        (contents(json!([{"role": "user", "content": "x"}])), "Unknown name \"content\" at 'contents[0]'"),
        (json!({"tool_config": {}, "toolConfig": {}}), "are the same, give it once"),
        (contents(json!([])), "contents is not specified"),
        (contents(json!("x")), "Invalid value at 'contents'"),
        (contents(json!([{"role": "assistant", "parts": [{"text": "x"}]}])), "valid role: user, model"),
        (contents(json!([{"role": "user", "parts": []}])), "contents.parts must not be empty"),
        (contents(json!([{"role": "user", "parts": [{}]}])), "oneof field 'data'"),
        (contents(json!([{"role": "user", "parts": [{"text": "x", "inlineData": {}}]}])), "already set"),
        (
            contents(json!([{"role": "user", "parts": [{"text": 1}]}])),
            "Invalid value at 'contents[0].parts[0].text' (TYPE_STRING), 1",
        ),
        (
            contents(
                json!([{"role": "user", "parts": [{"inlineData": {"mimeType": "image/gif", "data": "aGk="}}]}]),
            ),
            "Unsupported MIME type: image/gif",
        ),
        (
            contents(
                json!([{"role": "user", "parts": [{"inlineData": {"mimeType": "image/png", "data": "data:image/png;base64,aGk="}}]}]),
            ),
            "Base64 decoding failed",
        ),
        (contents(json!([user("x"), model(json!([{"text": "y"}]))])), "end with a user role"),
        (
            contents(json!([user("x"), model(json!([fc("f")])), user("y")])),
            "number of function response parts",
        ),
        (
            contents(json!([user("x"), model(json!([fc("f"), fc("g")])), responses(&["f"])])),
            "number of function response parts",
        ),
        (
            contents(json!([user("x"), model(json!([fc("f"), fc("g")])), responses(&["g", "f"])])),
            "answers 'g' where 'f' was called",
        ),
        (contents(json!([user("x"), model(json!([fc("f")]))])), "end with a user role"),
        (contents(json!([user("x"), responses(&["f"])])), "immediately after a function call turn"),
        (
            contents(json!([model(json!([fc("f")])), responses(&["f"])])),
            "function call turn comes immediately after a user turn",
        ),
        (
            contents(json!([
                user("x"),
                model(json!([{"text": "a"}])),
                model(json!([fc("f")])),
                responses(&["f"])
            ])),
            "function call turn comes immediately after a user turn",
        ),
        (
            contents(json!([
                user("x"),
                model(json!([{"functionCall": {"name": "f", "args": "{}"}}])),
                responses(&["f"])
            ])),
            "function_call.args",
        ),
        (
            contents(
                json!([user("x"), model(json!([fc("f")])), {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": "x"}}]}]),
            ),
            "function_response.response",
        ),
        (contents(json!([{"role": "user", "parts": [fc("f")]}])), "is not for the role 'user'"),
        (
            contents(
                json!([user("x"), model(json!([{"functionCall": {"name": "f", "id": "1"}}])), {"role": "user", "parts": [{"functionResponse": {"name": "f", "id": "2", "response": {}}}]}]),
            ),
            "the call has '1'",
        ),
        (json!({"systemInstruction": "x"}), "Invalid value at 'system_instruction'"),
        (json!({"system_instruction": {"parts": []}}), "system_instruction.parts"),
        (json!({"generationConfig": {"temperature": 3}}), "generation_config.temperature"),
        (json!({"generationConfig": {"stopSequences": ["a", "b", "c", "d", "e", "f"]}}), "at most 5"),
        (
            json!({"generationConfig": {"thinkingConfig": {"thinkingBudget": 5, "thinkingLevel": "LOW"}}}),
            "only set only one of",
        ),
        (json!({"generationConfig": {"responseSchema": {"type": "STRING"}}}), "response_mime_type"),
        (json!({"safetySettings": [{"category": "X", "threshold": "OFF"}]}), "safety_settings[0].category"),
        (json!({"cachedContent": "cachedContents/1"}), "CachedContent not found"),
        (json!({"tools": [{}]}), "tool_type"),
        (json!({"tools": [{"function": {}}]}), "Unknown name \"function\" at 'tools[0]'"),
        (json!({"tools": [{"functionDeclarations": [{"name": "1x"}]}]}), "Invalid function name"),
        (
            json!({"tools": [{"functionDeclarations": [{"name": "x"}, {"name": "x"}]}]}),
            "Duplicate function declaration",
        ),
        (json!({"toolConfig": {"functionCallingConfig": {"mode": "ANY"}}}), "without function_declarations"),
        (
            json!({"tools": functions(), "toolConfig": {"functionCallingConfig": {"mode": "AUTO", "allowedFunctionNames": ["now"]}}}),
            "only when function calling mode is ANY",
        ),
        (
            json!({"tools": functions(), "toolConfig": {"functionCallingConfig": {"mode": "SOME"}}}),
            "FunctionCallingConfig.Mode",
        ),
        (tool(json!({"type": "object", "properties": {}})), "should be non-empty for OBJECT type"),
        (
            object(json!({"type": "string", "additionalProperties": false})),
            "Unknown name \"additionalProperties\" at 'tools[0].function_declarations[0].parameters.properties.p'",
        ),
        (object(json!({"$ref": "#/$defs/x"})), "Unknown name \"$ref\""),
        (object(json!({"const": 1})), "Unknown name \"const\""),
        (object(json!({"type": "string", "enum": [1, 2]})), "(TYPE_STRING), 1"),
        (object(json!({"type": "integer", "enum": ["1"]})), "only allowed for STRING type"),
        (object(json!({"type": ["string", "null"]})), "cannot start list"),
        (object(json!({"type": "array"})), "items: missing field"),
        (object(json!({"type": "string", "format": "email"})), "are supported for STRING type"),
        (
            tool(json!({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["b"]})),
            "required[0]: property is not defined",
        ),
        (object(json!({"description": "x"})), "type is not specified"),
    ] {
        let answer = generate("echo", more.clone()).await;
        let message = answer.message();
        assert!(message.contains(part), "{more}: {message}");
        assert!(answer.status == 400 || part.starts_with("CachedContent"), "{more}");
        assert_eq!(answer.json()["error"]["code"], answer.status);
    }
}

#[tokio::test]
async fn schemas_may_say_what_their_kind_knows() {
    let own = json!({"type": "OBJECT", "properties": {
        "title": {"type": "string", "nullable": true, "enum": ["a"], "format": "enum"},
        "pattern": {"anyOf": [{"type": "NUMBER", "minimum": -1.5}, {"type": "array", "items": {"type": "integer", "format": "int64"}}]}},
        "required": ["title"], "propertyOrdering": ["pattern", "title"]});
    let json = json!({"$defs": {"x": {"enum": [1, 2]}}, "type": "object", "additionalProperties": false,
        "properties": {"x": {"$ref": "#/$defs/x"}, "y": {"type": ["string", "null"]}}});
    let unheeded = json!({"type": "object", "properties": {"x": {"type": "string", "pattern": "a"}}});
    let tools = |name: &str, schema: &Value| {
        let mut function = json!({"name": "f"});
        function[name] = schema.clone();
        json!({"tools": [{"functionDeclarations": [function]}]})
    };
    for (model, tools, status) in [
        ("echo-strict", tools("parameters", &own), 200),
        ("echo-strict", tools("parameters_json_schema", &json), 200),
        ("echo", tools("parametersJsonSchema", &unheeded), 200),
        ("echo-strict", tools("parametersJsonSchema", &unheeded), 400),
        ("echo", tools("parameters", &json), 400),
    ] {
        let answer = generate(model, tools.clone()).await;
        assert_eq!(answer.status, status, "{model} {tools}: {}", answer.raw());
    }
}
