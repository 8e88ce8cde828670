//! Requests of clients of the dialect, and requests for upstreams of it.

use bytes::Bytes;
use http::HeaderMap;
use serde_json::{Value, json};

use super::{decode, encode, opaque_as_text};
use crate::{
    Caps, DecodeError, EncodeError, Head,
    ir::{
        BlockKind, ChatRequest, Effort, Loss, MediaSource, OutputFormat, ReasoningAmount, Role, Signature,
        ToolCall, ToolChoice, ToolKind, ToolResult, Turn,
    },
    openai,
};

fn read(body: &Value) -> Result<ChatRequest, DecodeError> {
    let headers = HeaderMap::new();
    let head = Head { headers: &headers, path: "", query: None };
    decode(head, &Bytes::from(body.to_string()))
}

fn with(member: &str, value: Value) -> Value {
    let mut body = json!({"model": "m", "input": "hi"});
    body[member] = value;
    body
}

fn written(request: &ChatRequest, caps: &Caps) -> Result<(Value, Vec<Loss>), EncodeError> {
    let encoded = encode(request, caps)?;
    Ok((serde_json::from_slice(&encoded.body).unwrap(), encoded.losses))
}

/// The paths of what the client is told of.
fn told(losses: &[Loss]) -> Vec<&str> {
    losses.iter().filter(|loss| !loss.silent).map(|loss| &*loss.path).collect()
}

/// A request of a stranger.
fn foreign(turns: Vec<Turn>) -> ChatRequest {
    ChatRequest { model: "up".to_owned(), turns, ..ChatRequest::default() }
}

fn turn(role: Role, kinds: Vec<BlockKind>) -> Turn {
    let blocks = kinds.into_iter().map(Into::into).collect();
    Turn { role, blocks, name: None, path: "messages[0]".to_owned() }
}

fn user(text: &str) -> Turn {
    turn(Role::User, vec![BlockKind::Text(text.to_owned())])
}

fn call(id: &str, name: &str, arguments: &str) -> BlockKind {
    BlockKind::ToolCall(ToolCall {
        id: id.to_owned(),
        name: name.to_owned(),
        arguments: arguments.to_owned(),
    })
}

fn result(call_id: &str, text: &str, is_error: bool) -> BlockKind {
    let blocks = if text.is_empty() { Vec::new() } else { vec![BlockKind::Text(text.to_owned()).into()] };
    BlockKind::ToolResult(ToolResult { call_id: call_id.to_owned(), blocks, is_error })
}

#[test]
fn what_is_no_request_is_named() {
    for (body, code, param) in [
        (json!({"model": "m"}), "missing_required_parameter", "input"),
        (with("input", json!([])), "invalid_value", "input"),
        (with("input", json!(1)), "invalid_type", "input"),
        (with("input", json!([{"content": "x"}])), "missing_required_parameter", "input[0].type"),
        (with("input", json!([{"role": "robot", "content": "x"}])), "invalid_value", "input[0].role"),
        (
            with("input", json!([{"role": "user", "content": [{"type": "picture"}]}])),
            "invalid_value",
            "input[0].content[0].type",
        ),
        (
            with(
                "input",
                json!([{"role": "user", "content": [{"type": "input_image", "image_url": "ftp://x"}]}]),
            ),
            "invalid_value",
            "input[0].content[0].image_url",
        ),
        (
            with("input", json!([{"type": "function_call", "name": "f", "arguments": "{}"}])),
            "missing_required_parameter",
            "input[0].call_id",
        ),
        (
            with("input", json!([{"type": "function_call_output", "output": "x"}])),
            "unpaired_tool_call",
            "input[0].call_id",
        ),
        (with("tools", json!([{"type": "function", "name": " "}])), "invalid_value", "tools[0].name"),
        (
            with("tools", json!([{"type": "function", "name": "f", "parameters": true}])),
            "invalid_tool_schema",
            "tools[0].parameters",
        ),
        (
            with(
                "tools",
                json!([{"type": "function", "name": "n__f"}, {"type": "namespace", "name": "n", "tools": [{"type": "function", "name": "f"}]}]),
            ),
            "invalid_value",
            "tools[1].tools[0].name",
        ),
        (with("tool_choice", json!({"type": "function", "name": "g"})), "invalid_value", "tool_choice"),
        (with("tool_choice", json!("perhaps")), "invalid_value", "tool_choice"),
        (with("reasoning", json!({"effort": "extreme"})), "invalid_value", "reasoning.effort"),
        (
            with("text", json!({"format": {"type": "json_schema"}})),
            "missing_required_parameter",
            "text.format.schema",
        ),
        (with("metadata", json!("x")), "invalid_type", "metadata"),
    ] {
        let error = read(&body).unwrap_err();
        assert_eq!((error.code, error.param.as_deref()), (code, Some(param)), "{body}");
    }
}

#[test]
fn what_the_model_said_in_a_row_is_one_turn() {
    let request = read(&with(
        "input",
        json!([
            {"role": "developer", "content": "D"},
            {"role": "user", "content": "q"},
            {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}], "content": null, "encrypted_content": "E"},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "a"}]},
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{ \"x\":1 }"},
            {"type": "custom_tool_call", "call_id": "c2", "name": "p", "input": "t"},
            {"type": "custom_tool_call_output", "call_id": "c2", "output": "2"},
            {"type": "function_call_output", "output": [{"type": "input_text", "text": "1"}]},
            {"role": "assistant", "content": "b"},
            {"role": "assistant", "content": "c"},
            {"role": "system", "content": "S"}
        ]),
    ))
    .unwrap();
    let shape: Vec<_> =
        request.turns.iter().map(|turn| (turn.role, turn.blocks.len(), turn.path.as_str())).collect();
    assert_eq!(
        shape,
        [
            (Role::User, 1, "input[1]"),
            (Role::Assistant, 4, "input[2]"),
            (Role::User, 2, "input[6]"),
            (Role::Assistant, 1, "input[8]"),
            (Role::Assistant, 1, "input[9]"),
            (Role::System, 1, "input[10]"),
        ]
    );
    assert!(matches!(&request.system[0].kind, BlockKind::Text(text) if text == "D"));
    let said = &request.turns[1].blocks;
    let signature = Signature { data: "E".to_owned(), item: Some("rs_1".to_owned()), ..Signature::default() };
    assert!(
        matches!(&said[0].kind, BlockKind::Thinking { text, signature: Some(found), .. } if text == "hm" && *found == signature)
    );
    assert!(matches!(&said[2].kind, BlockKind::ToolCall(call) if call.arguments == "{ \"x\":1 }"));
    assert!(matches!(&said[3].kind, BlockKind::ToolCall(call) if call.arguments == "{\"input\":\"t\"}"));
    let answers: Vec<_> = request.turns[2]
        .blocks
        .iter()
        .map(|block| match &block.kind {
            BlockKind::ToolResult(result) => result.call_id.as_str(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(answers, ["c2", "c1"], "a result without an id answers the oldest open call");
}

#[test]
fn members_have_their_places_in_the_form() {
    let request = read(&json!({
        "model": "m", "input": "q", "instructions": "I", "max_output_tokens": 9, "temperature": 0.5,
        "reasoning": {"effort": "xhigh", "summary": "detailed"}, "text": {"format": {"type": "json_object"}, "verbosity": "low"},
        "metadata": {"a": "b"}, "store": true, "user": "u", "safety_identifier": "s", "prompt_cache_key": "k",
        "truncation": "disabled", "background": false, "include": [], "client_metadata": {}, "max_tool_calls": 1,
        "tool_choice": {"type": "web_search_preview"}, "tools": [{"type": "web_search_preview"}]}))
    .unwrap();
    assert_eq!(request.sampling.temperature.as_ref().unwrap().get(), "0.5");
    assert_eq!(request.reasoning.amount, ReasoningAmount::Effort(Effort::XHigh));
    assert_eq!(request.reasoning.show, Some(true));
    assert!(matches!(request.output_format, OutputFormat::JsonObject));
    assert_eq!((request.verbosity.as_deref(), request.store), (Some("low"), Some(true)));
    assert_eq!(request.metadata.as_ref().unwrap().get(), r#"{"a":"b"}"#);
    assert!(request.user_is_safety_id && request.user.as_deref() == Some("s"));
    assert_eq!(request.tool_choice, Some(ToolChoice::WebSearch));
    let extras: Vec<_> = request.extras.members.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(extras, ["user", "max_tool_calls"], "what means nothing is not kept");
    assert_eq!(read(&with("reasoning", json!({}))).unwrap().reasoning.show, Some(false));
}

#[test]
fn f21_strict_is_never_left_to_the_default() {
    let closed = json!({"type": "object", "properties": {}, "additionalProperties": false});
    let open = json!({"type": "object", "properties": {"pages": {"type": "string"}}});
    for (entry, expected) in [
        (json!({"parameters": closed}), true),
        (json!({"parameters": open}), false),
        (json!({"parameters": open, "strict": true}), true),
        (json!({"parameters": closed, "strict": false}), false),
        (json!({}), false),
    ] {
        let mut tool = json!({"type": "function", "name": "f"});
        tool.as_object_mut().unwrap().extend(entry.as_object().unwrap().clone());
        let request = read(&with("tools", json!([tool]))).unwrap();
        let ToolKind::Function { strict, .. } = &request.tools[0].kind else { panic!() };
        assert_eq!(*strict, Some(expected), "{entry}");
    }
    // Towards an upstream it is always said, and only where it can be kept.
    for (schema, strict, expected, losses) in [
        (&open, None, false, &[][..]),
        (&open, Some(true), false, &["tools[0].strict"][..]),
        (&closed, Some(true), true, &[][..]),
    ] {
        let mut request = foreign(vec![user("q")]);
        request.tools.push(crate::ir::Tool {
            kind: ToolKind::Function {
                name: "f".to_owned(),
                description: None,
                schema: Some(serde_json::value::to_raw_value(schema).unwrap()),
                strict,
            },
            cache_mark: None,
            extras: Vec::new(),
            path: String::new(),
        });
        let (body, found) = written(&request, &Caps::permissive()).unwrap();
        assert_eq!((body["tools"][0]["strict"].as_bool(), told(&found)), (Some(expected), losses.to_vec()));
    }
}

#[test]
fn tools_in_namespaces_and_in_the_conversation_become_plain() {
    let request = read(&json!({
        "model": "m",
        "input": [
            {"type": "additional_tools", "role": "developer", "tools": [{"type": "custom", "name": "late"}]},
            {"role": "user", "content": "q"},
            {"type": "function_call", "call_id": "c", "namespace": "n", "name": "f", "arguments": "{}"}],
        "tools": [{"type": "namespace", "name": "n", "description": "All of them.", "tools": [
            {"type": "function", "name": "f", "description": "One."}, {"type": "custom", "name": "g"}]}],
        "tool_choice": {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "f", "namespace": "n"}]}}))
    .unwrap();
    let names: Vec<_> = request.tools.iter().map(|tool| tool.name().unwrap()).collect();
    assert_eq!(names, ["n__f", "n__g", "late"]);
    assert!(
        matches!(&request.tools[0].kind, ToolKind::Function { description: Some(text), .. } if text == "All of them.\n\nOne.")
    );
    assert!(request.is_custom_tool("n__g") && request.is_custom_tool("late"));
    let choice = ToolChoice::Allowed { required: true, names: vec!["n__f".to_owned()] };
    assert_eq!(request.tool_choice, Some(choice));
    assert!(
        matches!(&request.turns[1].blocks[0].kind, BlockKind::ToolCall(call) if call.name == "n__f"),
        "{:?}",
        request.turns
    );
}

#[test]
fn what_is_stored_at_the_vendor_is_refused_elsewhere() {
    for (body, code, param) in [
        (with("previous_response_id", json!("resp_1")), "unsupported_parameter", "previous_response_id"),
        (with("conversation", json!({"id": "conv_1"})), "unsupported_parameter", "conversation"),
        (with("prompt", json!({"id": "pmpt_1"})), "unsupported_parameter", "prompt"),
        (with("background", json!(true)), "unsupported_parameter", "background"),
        (
            with(
                "input",
                json!([{"role": "user", "content": "x"}, {"type": "item_reference", "id": "msg_1"}, {"role": "user", "content": "y"}]),
            ),
            // Which of the two depends on what the writer comes upon first.
            "unsupported_",
            "input[1]",
        ),
        (
            with(
                "input",
                json!([{"role": "user", "content": "x"}, {"type": "compaction", "encrypted_content": "E"}, {"role": "user", "content": "y"}]),
            ),
            // Which of the two depends on what the writer comes upon first.
            "unsupported_",
            "input[1]",
        ),
        (
            with(
                "input",
                json!([{"role": "user", "content": [{"type": "input_image", "file_id": "file_1"}]}]),
            ),
            "unsupported_content",
            "input[0]",
        ),
        (
            {
                let mut body =
                    with("tools", json!([{"type": "file_search"}, {"type": "function", "name": "f"}]));
                body["tool_choice"] = json!({"type": "file_search"});
                body
            },
            "unsupported_tool",
            "tool_choice",
        ),
    ] {
        let request = read(&body).unwrap();
        for target in crate::registry::DIALECTS.iter().filter(|target| target.id() != super::super::ID) {
            let error = target.encode_request(&request, &Caps::permissive()).unwrap_err();
            assert!(error.code.starts_with(code), "{body} to {}: {error:?}", target.id());
            assert!(error.param.as_deref().is_some_and(|found| found.starts_with(param)), "{error:?}");
        }
        assert!(encode(&request, &Caps::permissive()).is_ok(), "at home it is sent: {body}");
    }
}

#[test]
fn items_that_others_do_not_have_are_told_in_words() {
    for (item, text) in [
        (
            json!({"type": "shell_call", "action": {"commands": ["ls"]}}),
            Some("[shell call: {\"commands\":[\"ls\"]}]"),
        ),
        (json!({"type": "shell_call_output", "output": "a.txt"}), Some("[shell call output: a.txt]")),
        (
            json!({"type": "image_generation_call", "result": "iVBO"}),
            Some("[image generation call: image generated]"),
        ),
        (json!({"type": "compaction", "encrypted_content": "E"}), None),
        (json!({"type": "mcp_list_tools", "tools": []}), Some("[mcp list tools]")),
        (json!({"type": "mcp_approval_response", "approve": true}), Some("[mcp approval response: true]")),
    ] {
        let raw = serde_json::value::to_raw_value(&item).unwrap();
        assert_eq!(opaque_as_text(&raw).as_deref(), text, "{item}");
    }
    let body = with(
        "input",
        json!([{"role": "user", "content": "x"}, {"type": "shell_call", "call_id": "c", "action": {}},
            {"type": "shell_call_output", "call_id": "c", "output": "done"}, {"role": "user", "content": "y"}]),
    );
    let request = read(&body).unwrap();
    let roles: Vec<_> = request.turns.iter().map(|turn| turn.role).collect();
    assert_eq!(roles, [Role::User, Role::Assistant, Role::User, Role::User]);
    let (home, _) = written(&request, &Caps::permissive()).unwrap();
    assert_eq!(home["input"][1]["type"], "shell_call", "{home}");
}

#[test]
fn a_request_of_a_stranger_becomes_items() {
    let mut request = foreign(vec![
        user("q"),
        turn(
            Role::Assistant,
            vec![
                BlockKind::Thinking {
                    text: "mine".to_owned(),
                    signature: Some(Signature {
                        data: "E".to_owned(),
                        item: Some("rs_1".to_owned()),
                        ..Signature::default()
                    }),
                    origin: super::super::ID,
                },
                BlockKind::Thinking {
                    text: "theirs".to_owned(),
                    signature: Some("S".to_owned().into()),
                    origin: crate::anthropic::ID,
                },
                BlockKind::Text("a".to_owned()),
                call("c1", "f", ""),
                call("c2", "f", "{\"x\":1}"),
            ],
        ),
        turn(Role::System, vec![BlockKind::Text("late".to_owned())]),
        turn(
            Role::User,
            vec![result("c2", "no", true), result("c1", "", false), result("c9", "lost", false)],
        ),
    ]);
    request.system.push(BlockKind::Text("x-anthropic-billing-header: cch=1;".to_owned()).into());
    request.system.push(BlockKind::Text("S".to_owned()).into());
    request.stop.push("END".to_owned());
    let (body, losses) = written(&request, &Caps::permissive()).unwrap();
    assert_eq!(
        body,
        json!({
            "model": "up", "instructions": "S", "store": false, "include": ["reasoning.encrypted_content"],
            "input": [
                {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "q"}]},
                {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "mine"}], "encrypted_content": "E"},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "a"}]},
                {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
                {"type": "function_call", "call_id": "c2", "name": "f", "arguments": "{\"x\":1}"},
                {"type": "function_call_output", "call_id": "c1", "output": "(no output)"},
                {"type": "function_call_output", "call_id": "c2", "output": "Error: no"},
                {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "late"}]},
                {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "[tool result c9] lost"}]}]
        })
    );
    assert_eq!(told(&losses), ["messages[0]"]);
    assert!(losses.iter().any(|loss| loss.path == "stop" && loss.silent), "the gateway stops itself");
}

#[test]
fn a_call_without_a_result_gets_one_unless_it_is_the_last() {
    let said = turn(Role::Assistant, vec![call("c1", "f", "{}")]);
    let (body, losses) =
        written(&foreign(vec![user("q"), said.clone(), user("and?")]), &Caps::permissive()).unwrap();
    assert_eq!(body["input"][2]["output"], "Error: tool call was not executed");
    assert_eq!(told(&losses), ["messages[0]"]);
    let error = written(&foreign(vec![user("q"), said]), &Caps::permissive()).unwrap_err();
    assert_eq!(error.code, "unpaired_tool_call");
    let prefill = turn(Role::Assistant, vec![BlockKind::Text("pre".to_owned())]);
    let error = written(&foreign(vec![user("q"), prefill.clone()]), &Caps::permissive()).unwrap_err();
    assert_eq!(error.code, "unsupported_prefill");
    let caps = Caps { prefill: true, ..Caps::permissive() };
    assert!(written(&foreign(vec![user("q"), prefill]), &caps).is_ok());
}

#[test]
fn f20_long_call_ids_are_shortened_alike_for_call_and_result() {
    let long = "functions.f:0/".repeat(9);
    let request = foreign(vec![
        user("q"),
        turn(Role::Assistant, vec![call(&long, "f", "{}")]),
        turn(Role::User, vec![result(&long, "r", false)]),
    ]);
    let (body, _) = written(&request, &Caps::permissive()).unwrap();
    let id = body["input"][1]["call_id"].as_str().unwrap();
    assert!(id.len() <= 64);
    assert_eq!(body["input"][2]["call_id"], id);
}

#[test]
fn free_text_tools_are_offered_as_such_where_they_are_known() {
    let mut request = foreign(vec![
        user("q"),
        turn(Role::Assistant, vec![call("c", "patch", "{\"input\":\"t\"}")]),
        turn(Role::User, vec![result("c", "ok", false)]),
    ]);
    request.tools.push(crate::ir::Tool {
        kind: ToolKind::Custom { name: "patch".to_owned(), description: None, format: None },
        cache_mark: None,
        extras: Vec::new(),
        path: String::new(),
    });
    request.tool_choice = Some(ToolChoice::Named("patch".to_owned()));
    let caps = Caps { custom_tools: true, ..Caps::permissive() };
    let (body, _) = written(&request, &caps).unwrap();
    assert_eq!(body["tools"][0], json!({"type": "custom", "name": "patch"}));
    assert_eq!(body["tool_choice"], json!({"type": "custom", "name": "patch"}));
    assert_eq!(
        body["input"][1],
        json!({"type": "custom_tool_call", "call_id": "c", "name": "patch", "input": "t"})
    );
    assert_eq!(body["input"][2]["type"], "custom_tool_call_output");
    let (body, _) = written(&request, &Caps::permissive()).unwrap();
    assert_eq!(body["tools"][0]["type"], "function");
    assert_eq!(body["input"][1]["arguments"], "{\"input\":\"t\"}");
}

#[test]
fn what_the_dialect_has_no_word_for_is_told_or_refused() {
    let asked = |member: &str, value: Value| {
        let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "a"}]});
        body[member] = value;
        let headers = HeaderMap::new();
        let head = Head { headers: &headers, path: "", query: None };
        let mut request =
            crate::Dialect::decode_request(&openai::OpenAi, head, &Bytes::from(body.to_string())).unwrap();
        request.model = "up".to_owned();
        written(&request, &Caps::permissive())
    };
    for (member, value, expected) in [
        ("seed", json!(7), &["seed"][..]),
        ("presence_penalty", json!(0.5), &["presence_penalty"][..]),
        ("presence_penalty", json!(0.0), &[][..]),
        ("n", json!(1), &[][..]),
        ("logit_bias", json!({}), &[][..]),
        ("top_k", json!(4), &["top_k"][..]),
        ("prediction", json!({"type": "content", "content": "x"}), &["prediction"][..]),
        ("prompt_cache_retention", json!("24h"), &[][..]),
    ] {
        let (_, losses) = asked(member, value.clone()).unwrap();
        assert_eq!(told(&losses), expected, "{member}: {value}");
    }
    for (member, value, code) in [
        ("n", json!(2), "unsupported_parameter"),
        ("logit_bias", json!({"1": 2}), "unsupported_parameter"),
        ("modalities", json!(["audio"]), "unsupported_content"),
        (
            "messages",
            json!([{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "A", "format": "wav"}}]}]),
            "unsupported_content",
        ),
    ] {
        assert_eq!(asked(member, value).unwrap_err().code, code, "{member}");
    }
    let (body, _) = asked("prompt_cache_retention", json!("24h")).unwrap();
    assert_eq!(body["prompt_cache_retention"], "24h");
    let (body, losses) = asked("max_completion_tokens", json!(3)).unwrap();
    assert_eq!(body["max_output_tokens"], 16, "the least that upstreams take: {losses:?}");
}

#[test]
fn members_of_the_vendors_two_dialects_go_over_and_back() {
    let chat = json!({"model": "m", "messages": [{"role": "user", "content": "a"}], "metadata": {"k": "v"},
        "store": true, "verbosity": "high", "safety_identifier": "s", "user": "u", "service_tier": "priority",
        "prompt_cache_key": "p", "reasoning_effort": "xhigh", "max_completion_tokens": 99});
    let headers = HeaderMap::new();
    let head = || Head { headers: &headers, path: "", query: None };
    let mut request =
        crate::Dialect::decode_request(&openai::OpenAi, head(), &Bytes::from(chat.to_string())).unwrap();
    request.model = "m".to_owned();
    let (body, losses) = written(&request, &Caps::permissive()).unwrap();
    assert_eq!(body["text"]["verbosity"], "high");
    assert_eq!((&body["metadata"], &body["store"]), (&chat["metadata"], &json!(true)));
    assert_eq!((&body["safety_identifier"], &body["user"]), (&json!("s"), &json!("u")));
    assert_eq!(body["reasoning"], json!({"effort": "xhigh", "summary": "auto"}));
    assert!(told(&losses).is_empty(), "{losses:?}");
    let request = decode(head(), &Bytes::from(body.to_string())).unwrap();
    let caps = Caps { max_completion_tokens: true, ..Caps::permissive() };
    let back = crate::Dialect::encode_request(&openai::OpenAi, &request, &caps).unwrap();
    let back: Value = serde_json::from_slice(&back.body).unwrap();
    for name in [
        "metadata",
        "store",
        "verbosity",
        "safety_identifier",
        "service_tier",
        "prompt_cache_key",
        "max_completion_tokens",
    ] {
        assert_eq!(back[name], chat[name], "{name}");
    }
}

#[test]
fn files_and_pictures_have_their_forms() {
    let request = read(&with(
        "input",
        json!([{"role": "user", "content": [
            {"type": "input_file", "file_url": "https://a/b.pdf"},
            {"type": "input_file", "filename": "t.txt", "file_data": "data:text/plain;base64,aGk="},
            {"type": "input_image", "image_url": "data:image/png;base64,iVBO", "detail": "low"}]}]),
    ))
    .unwrap();
    let blocks = &request.turns[0].blocks;
    assert!(matches!(&blocks[0].kind, BlockKind::File(file) if matches!(&file.source, MediaSource::Url(_))));
    let mut elsewhere = request.clone();
    elsewhere.extras.origin = Some(openai::ID);
    let (body, _) = written(&elsewhere, &Caps::permissive()).unwrap();
    assert_eq!(
        body["input"][0]["content"],
        json!([
            {"type": "input_file", "file_url": "https://a/b.pdf"},
            {"type": "input_text", "text": "<document name=\"t.txt\">\nhi\n</document>"},
            {"type": "input_image", "image_url": "data:image/png;base64,iVBO", "detail": "low"}])
    );
    let blind = Caps { vision: false, ..Caps::permissive() };
    assert_eq!(written(&elsewhere, &blind).unwrap_err().code, "unsupported_content");
}

proptest::proptest! {
    #[test]
    fn requests_of_any_shape_are_written_and_read_again(
        items in proptest::collection::vec(proptest::sample::select(vec![
            r#"{"role":"user","content":"a"}"#, r#"{"role":"user","content":""}"#,
            r#"{"role":"developer","content":"S"}"#, r#"{"role":"assistant","content":[]}"#,
            r#"{"type":"message","role":"assistant","content":[{"type":"output_text","text":"b"},{"type":"refusal","refusal":"r"}]}"#,
            r#"{"type":"reasoning","id":"rs","summary":[{"type":"summary_text","text":"t"}],"encrypted_content":"E"}"#,
            r#"{"type":"reasoning","summary":[]}"#,
            r#"{"type":"function_call","call_id":"c","name":"f","arguments":"{\"x\":"}"#,
            r#"{"type":"function_call","call_id":"","name":" ","arguments":""}"#,
            r#"{"type":"function_call_output","call_id":"c","output":"o"}"#,
            r#"{"type":"function_call_output","call_id":"d","output":[{"type":"input_image","image_url":"https://a/b"}]}"#,
            r#"{"type":"custom_tool_call","call_id":"e","name":"p","input":"i"}"#,
            r#"{"type":"custom_tool_call_output","output":""}"#,
            r#"{"type":"web_search_call","id":"ws","action":{"type":"open_page","url":"u"}}"#,
            r#"{"type":"shell_call","call_id":"s","action":{}}"#, r#"{"type":"shell_call_output","output":"o"}"#,
            r#"{"type":"additional_tools","tools":[{"type":"function","name":"late"}]}"#, r#"{"id":"msg_1"}"#,
        ]), 0..8),
        tools in proptest::sample::select(vec![
            "[]", r#"[{"type":"function","name":"f"},{"type":"custom","name":"p"}]"#,
            r#"[{"type":"namespace","name":"n","tools":[{"type":"function","name":"f"}]},{"type":"web_search"}]"#,
            r#"[{"type":"file_search"}]"#,
        ]),
    ) {
        let body = format!(r#"{{"model":"m","input":[{}],"tools":{tools}}}"#, items.join(","));
        crate::fuzz::request(&super::super::Responses, body.as_bytes());
    }
}

#[test]
fn members_without_a_place_are_noted() {
    let request = read(&with(
        "input",
        json!([
            {"role": "user", "content": [{"type": "input_text", "text": "x", "mood": "glad"}], "phase": null},
            {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": "{}", "status": "completed", "caller": "me"},
            {"type": "function_call_output", "call_id": "c", "output": "y", "took": 3},
        ]),
    ));
    let losses: Vec<_> =
        request.unwrap().losses.iter().map(|loss| (loss.path.to_string(), loss.silent)).collect();
    // What an earlier answer had is not missed.
    let noted = [("input[0].content[0].mood", false), ("input[1].caller", true), ("input[2].took", false)];
    assert_eq!(losses, noted.map(|(path, silent)| (path.to_owned(), silent)));
}
