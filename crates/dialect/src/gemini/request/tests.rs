//! Requests read and written.

use bytes::Bytes;
use http::HeaderMap;
use serde_json::{Value, json};

use super::*;
use crate::{
    Caps, DecodeError, Dialect as _, EncodeError, GeminiCaps, Head, anthropic,
    ir::{BlockKind, ChatRequest, LossAction, ReasoningAmount, ToolChoice},
    openai,
};

fn read(body: &Value) -> Result<ChatRequest, DecodeError> {
    let headers = HeaderMap::new();
    let head = Head { headers: &headers, path: "/v1beta/models/gc/x:generateContent", query: None };
    decode(head, &Bytes::from(body.to_string()))
}

fn with(members: &Value) -> Value {
    let mut body = json!({"contents": [{"parts": [{"text": "a"}]}]});
    for (name, value) in members.as_object().expect("an object") {
        body[name] = value.clone();
    }
    body
}

/// A request of Chat Completions as one of this dialect, and what the client is told of.
fn from_chat(body: &Value, caps: &Caps) -> Result<(Value, Vec<String>), EncodeError> {
    let headers = HeaderMap::new();
    let head = Head { headers: &headers, path: "", query: None };
    let mut given = body.clone();
    given["model"] = json!("m");
    let request = openai::OpenAi.decode_request(head, &Bytes::from(given.to_string())).expect("readable");
    written(&request, caps)
}

fn from_messages(body: &Value, caps: &Caps) -> Result<(Value, Vec<String>), EncodeError> {
    let headers = HeaderMap::new();
    let head = Head { headers: &headers, path: "", query: None };
    let mut given = body.clone();
    given["model"] = json!("m");
    given["max_tokens"] = json!(100);
    let request =
        anthropic::Anthropic.decode_request(head, &Bytes::from(given.to_string())).expect("readable");
    written(&request, caps)
}

fn written(request: &ChatRequest, caps: &Caps) -> Result<(Value, Vec<String>), EncodeError> {
    let encoded = encode(request, caps)?;
    let told = encoded.losses.iter().filter(|loss| !loss.silent).map(|loss| loss.path.to_string()).collect();
    Ok((serde_json::from_slice(&encoded.body).expect("JSON"), told))
}

fn caps(gemini: GeminiCaps) -> Caps {
    Caps { gemini, ..Caps::permissive() }
}

#[test]
fn wrong_requests_are_refused_by_name() {
    for (body, code, param) in [
        (
            json!({"contents": [{"role": "owner", "parts": [{"text": "a"}]}]}),
            "invalid_value",
            "contents[0].role",
        ),
        (json!({"contents": [{"parts": [{"text": 1}]}]}), "invalid_type", "contents[0].parts[0].text"),
        (json!({"contents": [{"parts": [{}]}]}), "invalid_value", "contents[0].parts[0]"),
        (
            json!({"contents": [{"parts": [{"text": "a", "functionCall": {"name": "f"}}]}]}),
            "invalid_value",
            "contents[0].parts[0]",
        ),
        (
            json!({"contents": [{"parts": [{"functionCall": {"args": {}}}]}]}),
            "missing_required_parameter",
            "contents[0].parts[0].functionCall.name",
        ),
        (
            json!({"contents": [{"parts": [{"inlineData": {"data": "AA"}}]}]}),
            "missing_required_parameter",
            "contents[0].parts[0].inlineData.mimeType",
        ),
        (
            with(&json!({"generationConfig": {"temperature": "1"}})),
            "invalid_type",
            "generationConfig.temperature",
        ),
        (
            with(
                &json!({"generationConfig": {"thinkingConfig": {"thinkingBudget": 1, "thinkingLevel": "LOW"}}}),
            ),
            "invalid_value",
            "generationConfig.thinkingConfig.thinkingBudget",
        ),
        (
            with(&json!({"generationConfig": {"responseMimeType": "text/x.enum"}})),
            "invalid_value",
            "generationConfig.responseMimeType",
        ),
        (
            with(&json!({"toolConfig": {"functionCallingConfig": {"mode": "SOMETIMES"}}})),
            "invalid_value",
            "toolConfig.functionCallingConfig.mode",
        ),
        (
            with(
                &json!({"tools": [{"functionDeclarations": [{"name": "f", "parameters": {}, "parametersJsonSchema": {}}]}]}),
            ),
            "invalid_value",
            "tools[0].functionDeclarations[0].parameters",
        ),
        (json!({"contents": [], "contents_": 1}), "invalid_value", "contents"),
    ] {
        let error = read(&body).expect_err("wrong");
        assert_eq!((error.code, error.param.as_deref()), (code, Some(param)), "{body}");
    }
}

#[test]
fn results_without_ids_find_their_calls() {
    let call = |name: &str| json!({"functionCall": {"name": name}});
    let result =
        |name: &str, text: &str| json!({"functionResponse": {"name": name, "response": {"output": text}}});
    let request = read(&json!({"contents": [
        {"role": "user", "parts": [{"text": "a"}]},
        {"role": "model", "parts": [call("f"), call("g"), call("f")]},
        {"role": "function", "parts": [result("g", "1"), result("f", "2"), result("f", "3")]}]}))
    .expect("readable");
    let mut ids = Vec::new();
    for turn in &request.turns {
        for block in &turn.blocks {
            match &block.kind {
                BlockKind::ToolCall(call) => ids.push(call.id.clone()),
                BlockKind::ToolResult(result) => ids.push(result.call_id.clone()),
                _ => {}
            }
        }
    }
    let [f, g, f2, first, second, third] = ids.as_slice() else { panic!("{ids:?}") };
    assert_eq!([first, second, third], [g, f, f2]);
    assert_ne!(f, f2);
    // Ids that were invented while reading are not written.
    let (body, _) = written(&request, &Caps::permissive()).expect("written");
    assert_eq!(body["contents"][1]["parts"][0], json!({"functionCall": {"name": "f", "args": {}}}));
    assert_eq!(body["contents"][2]["parts"][0]["functionResponse"].get("id"), None);
}

#[test]
fn an_id_that_only_the_result_has_finds_the_call_by_name() {
    // Gemini CLI gives ids of its own to calls that came without.
    let request = read(&json!({"contents": [
        {"role": "model", "parts": [{"functionCall": {"name": "f"}}]},
        {"role": "user", "parts": [{"functionResponse": {"id": "f_1", "name": "f", "response": {"error": "no"}}}]}]}))
    .expect("readable");
    let (BlockKind::ToolCall(call), BlockKind::ToolResult(result)) =
        (&request.turns[0].blocks[0].kind, &request.turns[1].blocks[0].kind)
    else {
        panic!("a call and a result")
    };
    assert!(call.id == result.call_id && result.is_error);
}

#[test]
fn what_a_function_said_is_read_in_all_its_forms() {
    for (response, text, is_error) in [
        (json!({"output": "a"}), "a", false),
        (json!({"result": {"x": 1}}), r#"{"x":1}"#, false),
        (json!({"error": "no"}), "no", true),
        (json!({"error": "no", "code": 1}), r#"{"error":"no","code":1}"#, false),
        (json!({"temperature": 20}), r#"{"temperature":20}"#, false),
        (json!({}), "", false),
    ] {
        let request = read(&json!({"contents": [{"parts": [
            {"functionResponse": {"id": "c", "name": "f", "response": response}}]}]}))
        .expect("readable");
        let BlockKind::ToolResult(result) = &request.turns[0].blocks[0].kind else { panic!("a result") };
        let found = result.blocks.first().map_or("", |block| match &block.kind {
            BlockKind::Text(text) => text,
            other => panic!("{other:?}"),
        });
        assert_eq!((found.len(), result.is_error), (text.len(), is_error), "{response}");
    }
}

#[test]
fn choices_and_amounts_are_read() {
    let choice = |config: Value| {
        read(&with(&json!({"toolConfig": {"functionCallingConfig": config}}))).expect("readable").tool_choice
    };
    assert_eq!(choice(json!({"mode": "ANY"})), Some(ToolChoice::Required));
    assert_eq!(
        choice(json!({"mode": "ANY", "allowedFunctionNames": ["f"]})),
        Some(ToolChoice::Named("f".into()))
    );
    let both = vec!["f".to_owned(), "g".to_owned()];
    assert_eq!(
        choice(json!({"mode": "VALIDATED", "allowedFunctionNames": ["f", "g"]})),
        Some(ToolChoice::Allowed { required: false, names: both })
    );
    assert_eq!(choice(json!({"mode": "VALIDATED"})), Some(ToolChoice::Auto));
    assert_eq!(choice(json!({})), None);
    let amount = |config: Value| {
        read(&with(&json!({"generationConfig": {"thinkingConfig": config}})))
            .expect("readable")
            .reasoning
            .amount
    };
    assert_eq!(amount(json!({"thinkingBudget": -1})), ReasoningAmount::Adaptive(None));
    assert_eq!(amount(json!({"thinkingBudget": 0})), ReasoningAmount::Off);
    assert_eq!(amount(json!({"thinkingBudget": 8192})), ReasoningAmount::Budget(8192));
    assert_eq!(
        amount(json!({"thinking_level": "minimal"})),
        ReasoningAmount::Effort(crate::ir::Effort::Minimal)
    );
    assert_eq!(amount(json!({"includeThoughts": true})), ReasoningAmount::Default);
}

#[test]
fn media_are_told_apart() {
    let kind = |part: Value| {
        let request = read(&json!({"contents": [{"parts": [part]}]})).expect("readable");
        match &request.turns[0].blocks[0].kind {
            BlockKind::Image(image) => format!("image {:?} {:?}", image.source, image.detail),
            BlockKind::File(file) => format!("file {:?}", file.name),
            BlockKind::Audio { data, format } => format!("audio {format} {data}"),
            BlockKind::Opaque { .. } => "opaque".to_owned(),
            other => panic!("{other:?}"),
        }
    };
    let blob = |media_type: &str| json!({"inlineData": {"mimeType": media_type, "data": "_-8="}});
    assert!(kind(blob("image/png")).contains("/+8="), "the usual alphabet");
    assert_eq!(kind(blob("audio/mpeg")), "audio mp3 /+8=");
    assert_eq!(kind(blob("application/pdf")), "file None");
    assert_eq!(kind(blob("video/mp4")), "opaque");
    for (uri, expected) in [
        ("https://example.com/a.png", "image Url(\"https://example.com/a.png\") None"),
        ("https://generativelanguage.googleapis.com/v1beta/files/x", "opaque"),
        ("gs://b/a.png", "opaque"),
    ] {
        assert_eq!(kind(json!({"fileData": {"fileUri": uri, "mimeType": "image/png"}})), expected);
    }
}

#[test]
fn a_signature_that_is_lost_is_replaced_on_the_first_call_of_each_step() {
    let call = |id: &str| json!({"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}});
    let result = |id: &str| json!({"role": "tool", "tool_call_id": id, "content": "ok"});
    let body = json!({"messages": [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": null, "tool_calls": [call("c1"), call("c2")]},
        result("c1"), result("c2"),
        {"role": "assistant", "content": "And now:", "tool_calls": [call("c3")]},
        result("c3")], "tools": [{"type": "function", "function": {"name": "f"}}]});
    let signed = |body: &Value| {
        let mut found = Vec::new();
        for content in body["contents"].as_array().expect("a list") {
            for part in content["parts"].as_array().expect("a list") {
                if part.get("functionCall").is_some() {
                    found.push(part["thoughtSignature"].as_str().map(str::to_owned));
                }
            }
        }
        found
    };
    let strict = caps(GeminiCaps { signed_calls: true, ..GeminiCaps::permissive() });
    let skip = Some("skip_thought_signature_validator".to_owned());
    assert_eq!(signed(&from_chat(&body, &strict).expect("written").0), [skip.clone(), None, skip]);
    assert_eq!(signed(&from_chat(&body, &Caps::permissive()).expect("written").0), [None, None, None]);
}

#[test]
fn results_with_pictures_go_where_the_model_takes_them() {
    const PNG: &str =
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII=";
    let image =
        json!({"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": PNG}});
    let body = json!({"messages": [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "shot", "input": {}}]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "done"}, image]},
            {"type": "text", "text": "now?"}]}],
        "tools": [{"name": "shot", "input_schema": {"type": "object"}}]});
    let (new, _) = from_messages(&body, &Caps::permissive()).expect("written");
    assert_eq!(
        new["contents"].as_array().expect("a list")[2..],
        [
            json!({"role": "user", "parts": [{"functionResponse": {"name": "shot", "response": {"output": "done"},
                "parts": [{"inlineData": {"mimeType": "image/png", "data": PNG}}]}}]}),
            json!({"role": "user", "parts": [{"text": "now?"}]}),
        ]
    );
    let old = caps(GeminiCaps { multimodal_results: false, ..GeminiCaps::permissive() });
    let (old, _) = from_messages(&body, &old).expect("written");
    assert_eq!(
        old["contents"].as_array().expect("a list")[2..],
        [
            json!({"role": "user", "parts": [{"functionResponse": {"name": "shot",
                "response": {"output": "done\n[attached below: toolu_1#1]"}}}]}),
            json!({"role": "user", "parts": [{"text": "toolu_1#1:"}, {"inlineData": {"mimeType": "image/png", "data": PNG}},
                {"text": "now?"}]}),
        ]
    );
}

#[test]
fn models_without_a_system_instruction_get_it_as_text() {
    let gemma = caps(GeminiCaps { system: false, ..GeminiCaps::permissive() });
    let body = json!({"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "a"}]});
    let (out, told) = from_chat(&body, &gemma).expect("written");
    assert_eq!(out, json!({"contents": [{"role": "user", "parts": [{"text": "S"}, {"text": "a"}]}]}));
    assert_eq!(told, ["system"]);
}

#[test]
fn a_schema_beside_functions_becomes_a_note_where_they_exclude_each_other() {
    let body = json!({"messages": [{"role": "user", "content": "a"}],
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}});
    let (out, told) = from_chat(&body, &Caps::permissive()).expect("written");
    assert_eq!(out["generationConfig"]["responseJsonSchema"], json!({"type": "object"}));
    assert!(told.is_empty());
    let old = caps(GeminiCaps { schema_with_tools: false, ..GeminiCaps::permissive() });
    let (out, told) = from_chat(&body, &old).expect("written");
    assert_eq!(out.get("generationConfig"), None);
    assert!(out["systemInstruction"]["parts"][0]["text"].as_str().expect("a note").contains("JSON schema"));
    assert_eq!(told, ["response_format"]);
}

#[test]
fn f34_a_search_stays_a_search_and_functions_come_first() {
    let chat = |tools: Value| json!({"messages": [{"role": "user", "content": "a"}], "tools": tools});
    let search =
        read(&with(&json!({"tools": [{"googleSearch": {"excludeDomains": ["x"]}}]}))).expect("readable");
    let mut foreign = search;
    foreign.extras.origin = None;
    let (out, _) = written(&foreign, &Caps::permissive()).expect("written");
    assert_eq!(out["tools"], json!([{"googleSearch": {"excludeDomains": ["x"]}}]));

    let mut both = foreign.clone();
    let function =
        from_chat(&chat(json!([{"type": "function", "function": {"name": "f"}}])), &Caps::permissive());
    assert!(function.is_ok());
    both.tools.extend(
        read(&with(&json!({"tools": [{"functionDeclarations": [{"name": "f"}]}]}))).expect("readable").tools,
    );
    let (out, told) = written(&both, &Caps::permissive()).expect("written");
    assert_eq!(out["tools"], json!([{"functionDeclarations": [{"name": "f"}]}]));
    assert_eq!(told, ["tools[0]"]);

    foreign.tool_choice = Some(ToolChoice::WebSearch);
    assert_eq!(written(&foreign, &Caps::permissive()).expect_err("refused").code, "unsupported_tool_choice");
}

#[test]
fn f38_tools_and_choices_go_over() {
    let tools = json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "object",
        "properties": {"a": {"type": "string"}}}, "strict": true}}]);
    let body = |choice: Value| json!({"messages": [{"role": "user", "content": "a"}], "tools": tools, "tool_choice": choice});
    for (choice, expected) in [
        (json!("auto"), json!({"mode": "VALIDATED"})),
        (json!("none"), json!({"mode": "NONE"})),
        (json!("required"), json!({"mode": "ANY"})),
        (
            json!({"type": "function", "function": {"name": "f"}}),
            json!({"mode": "ANY", "allowedFunctionNames": ["f"]}),
        ),
        (
            json!({"type": "allowed_tools", "allowed_tools": {"mode": "auto",
                "tools": [{"type": "function", "function": {"name": "f"}}]}}),
            json!({"mode": "VALIDATED", "allowedFunctionNames": ["f"]}),
        ),
    ] {
        let (out, told) = from_chat(&body(choice), &Caps::permissive()).expect("written");
        assert_eq!(out["toolConfig"]["functionCallingConfig"], expected);
        assert!(told.is_empty(), "{told:?}");
    }
    let unknown = json!({"messages": [{"role": "user", "content": "a"}], "tool_choice": {"type": "tool", "name": "g"},
        "tools": [{"name": "f", "input_schema": {"type": "object"}}]});
    assert_eq!(from_messages(&unknown, &Caps::permissive()).expect_err("refused").code, "invalid_value");
    let own = caps(GeminiCaps { json_schema: false, ..GeminiCaps::permissive() });
    let (out, _) = from_chat(&body(json!("auto")), &own).expect("written");
    assert_eq!(
        out["tools"][0]["functionDeclarations"][0],
        json!({"name": "f", "parameters": {"type": "OBJECT", "properties": {"a": {"type": "STRING"}}}})
    );
}

#[test]
fn numbers_and_limits_are_fitted() {
    let body = json!({"messages": [{"role": "user", "content": "a"}], "temperature": 0.70, "top_p": 0.9,
        "frequency_penalty": 0, "presence_penalty": 0.5, "seed": 7, "max_tokens": 99999, "n": 1,
        "stop": ["1", " ", "2", "3", "4", "5", "6"], "service_tier": "priority", "user": "u", "verbosity": "low"});
    let most = Caps { max_output_tokens: Some(8192), ..Caps::permissive() };
    let (out, told) = from_chat(&body, &most).expect("written");
    assert_eq!(
        out["generationConfig"],
        json!({"temperature": 0.7, "topP": 0.9, "seed": 7, "presencePenalty": 0.5, "maxOutputTokens": 8192,
            "stopSequences": ["1", "2", "3", "4", "5"]})
    );
    assert_eq!(out["serviceTier"], "priority");
    assert_eq!(told, ["stop", "user", "verbosity"]);
    let newest = caps(GeminiCaps { penalties: false, ..GeminiCaps::permissive() });
    assert!(from_chat(&body, &newest).expect("written").1.contains(&"presence_penalty".to_owned()));
    for (member, value, code) in [
        ("n", json!(2), "unsupported_parameter"),
        ("logit_bias", json!({"1": 1}), "unsupported_parameter"),
        ("modalities", json!(["text", "audio"]), "unsupported_content"),
        (
            "messages",
            json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]),
            "unsupported_prefill",
        ),
    ] {
        let mut body = json!({"messages": [{"role": "user", "content": "a"}]});
        body[member] = value;
        assert_eq!(from_chat(&body, &Caps::permissive()).expect_err(member).code, code);
    }
}

#[test]
fn a_history_that_begins_or_ends_oddly_is_completed() {
    let (out, told) = from_chat(
        &json!({"messages": [{"role": "assistant", "content": "b"}, {"role": "user", "content": "a"}]}),
        &Caps::permissive(),
    )
    .expect("written");
    assert_eq!(out["contents"][0], json!({"role": "user", "parts": [{"text": "(conversation resumed)"}]}));
    assert_eq!(told, ["messages"]);
    let (out, _) = from_chat(&json!({"messages": [{"role": "system", "content": "S"}]}), &Caps::permissive())
        .expect("written");
    assert_eq!(out["contents"], json!([{"role": "user", "parts": [{"text": "Continue."}]}]));
}

#[test]
fn what_only_the_vendor_can_make_is_refused_elsewhere() {
    for (members, code) in [
        (json!({"cachedContent": "cachedContents/x"}), "unsupported_parameter"),
        (json!({"generationConfig": {"responseModalities": ["AUDIO"]}}), "unsupported_content"),
    ] {
        let request = read(&with(&members)).expect("readable");
        for other in [&openai::OpenAi as &dyn crate::Dialect, &anthropic::Anthropic, &crate::ollama::Ollama] {
            let error = other.encode_request(&request, &Caps::permissive()).expect_err("refused");
            assert_eq!(error.code, code, "{}", other.id());
        }
    }
    let video = json!({"contents": [{"parts": [{"inlineData": {"mimeType": "video/mp4", "data": "AA=="}}]}]});
    let request = read(&video).expect("readable");
    for other in [&openai::OpenAi as &dyn crate::Dialect, &anthropic::Anthropic, &crate::ollama::Ollama] {
        let error = other.encode_request(&request, &Caps::permissive()).expect_err("refused");
        assert_eq!(error.code, "unsupported_content", "{}", other.id());
    }
}

#[test]
fn losses_name_members_of_the_client() {
    let request =
        read(&with(&json!({"tools": [{"functionDeclarations": [{"name": "f", "behavior": "BLOCKING"}]}],
        "safetySettings": [], "generationConfig": {"speechConfig": {}}})))
        .expect("readable");
    let encoded = openai::OpenAi.encode_request(&request, &Caps::permissive()).expect("written");
    let dropped: Vec<_> = encoded
        .losses
        .iter()
        .filter(|loss| loss.action == LossAction::Dropped)
        .map(|loss| &*loss.path)
        .collect();
    let behavior = "tools[0].functionDeclarations[0].behavior";
    assert_eq!(dropped, [behavior, "safetySettings", "generationConfig.speechConfig"]);
}

#[test]
fn how_closely_to_look_is_told_where_nobody_can_be_told() {
    let resolution = json!({"level": "MEDIA_RESOLUTION_LOW"});
    let part = |mut part: Value| {
        part["mediaResolution"] = resolution.clone();
        part
    };
    let picture = json!({"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}});
    let mut closer = part(picture.clone());
    closer["mediaResolution"]["level"] = json!("MEDIA_RESOLUTION_MEDIUM");
    for (part, lost) in [
        (part(picture), None),
        (closer, Some("contents[0].parts[0].mediaResolution.level")),
        (part(json!({"text": "a"})), Some("contents[0].parts[0].mediaResolution")),
        (
            part(json!({"inlineData": {"mimeType": "application/pdf", "data": "JVBERi0xLjQK"}})),
            Some("contents[0].parts[0].mediaResolution"),
        ),
        (
            part(json!({"inlineData": {"mimeType": "audio/wav", "data": "UklGRg=="}})),
            Some("contents[0].parts[0].mediaResolution"),
        ),
    ] {
        let request = read(&json!({"contents": [{"parts": [part.clone()]}]})).expect("readable");
        let losses: Vec<_> = request.losses.iter().map(|loss| &*loss.path).collect();
        assert_eq!(losses, lost.into_iter().collect::<Vec<_>>(), "{part}");
    }
}

#[test]
fn fixtures_hold_to_what_any_request_must() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/gemini");
    let mut seen = 0;
    for case in std::fs::read_dir(folder).expect("fixtures") {
        if let Ok(body) = std::fs::read(case.expect("a folder").path().join("request.json")) {
            crate::fuzz::request(&super::super::Gemini, &body);
            seen += 1;
        }
    }
    assert!(seen >= 7);
}

proptest::proptest! {
    #[test]
    fn any_request_is_written_as_it_is_read(
        contents in proptest::collection::vec((0..4_usize, proptest::collection::vec(0..17_usize, 0..4)), 1..6),
        knobs in proptest::collection::btree_set(0..9_usize, 0..4),
    ) {
        let kinds = [
            r#"{"text":"a"}"#, r#"{"text":" "}"#, r#"{"text":""}"#, r#"{"text":"t","thought":true}"#,
            r#"{"text":"a","thoughtSignature":"U0lH"}"#, r#"{"text":"","thought_signature":"U0lH"}"#,
            r#"{"text":"t","thought":true,"thoughtSignature":"U0lH"}"#, r#"{"thoughtSignature":"b21yMS54Lnk="}"#,
            r#"{"functionCall":{"name":"f"}}"#, r#"{"functionCall":{"id":"1","name":"g","args":{"a":1}},"thoughtSignature":"U0lH"}"#,
            r#"{"functionResponse":{"name":"f","response":{"output":[1,{"a":1,"a":2}]}}}"#,
            r#"{"functionResponse":{"id":"1","name":"g","response":{"error":"no"},"parts":[{"inlineData":{"mimeType":"image/png","data":"iVBORw0KGgo="}}]}}"#,
            r#"{"inlineData":{"mimeType":"image/png","data":"iVBORw0KGgo="},"mediaResolution":{"level":"MEDIA_RESOLUTION_HIGH"}}"#,
            r#"{"inline_data":{"mime_type":"audio/wav","data":"UklG"}}"#, r#"{"fileData":{"fileUri":"gs://b/x","mimeType":"video/mp4"}}"#,
            r#"{"executableCode":{"code":"1"},"thoughtSignature":"U0lH"}"#, r#"{"text":"\ud83d"}"#,
        ];
        let more = [
            r#""tools":[{"functionDeclarations":[{"name":"f","parameters":{"type":"OBJECT","properties":{"a":{"type":"STRING"}}}},{"name":"f"}]}]"#,
            r#""tool_config":{"functionCallingConfig":{"mode":"ANY"}}"#, r#""systemInstruction":"s""#,
            r#""generationConfig":{"thinkingConfig":{"thinkingBudget":-1},"topK":1,"responseMimeType":"application/json"}"#,
            r#""generation_config":{"thinkingConfig":{"thinkingLevel":"HIGH"},"responseSchema":{"type":"ARRAY"},"x":[]}"#,
            r#""labels":{"a":"b"}"#, r#""tools":[{"googleSearch":{}},{"codeExecution":{}}]"#, r#""unheard":null"#,
            r#""toolConfig":{"retrievalConfig":{},"functionCallingConfig":{"mode":"NONE"}}"#,
        ];
        let roles = [r#""role":"user","#, r#""role":"model","#, r#""role":"function","#, ""];
        let contents: Vec<_> = contents
            .iter()
            .map(|(role, parts)| {
                let parts: Vec<_> = parts.iter().map(|kind| kinds[*kind]).collect();
                format!(r#"{{{}"parts":[{}]}}"#, roles[*role], parts.join(","))
            })
            .collect();
        let mut body = format!(r#"{{"contents":[{}]"#, contents.join(","));
        for knob in knobs {
            body.push(',');
            body.push_str(more[knob]);
        }
        body.push('}');
        crate::fuzz::request(&super::super::Gemini, body.as_bytes());
    }
}
