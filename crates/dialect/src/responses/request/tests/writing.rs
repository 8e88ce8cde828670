//! Requests for upstreams.

use super::*;

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
            "tool",
        ),
    ] {
        let request = read(&body).unwrap();
        for target in crate::registry::DIALECTS.iter().filter(|target| target.id() != super::super::super::ID)
        {
            let error = target.encode_request(&request, &Caps::permissive()).unwrap_err();
            assert!(error.code.starts_with(code), "{body} to {}: {error:?}", target.id());
            assert!(error.param.as_deref().is_some_and(|found| found.starts_with(param)), "{error:?}");
        }
        assert!(encode(&request, &Caps::permissive()).is_ok(), "at home it is sent: {body}");
    }
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
                    origin: super::super::super::ID,
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
