//! Clients' requests.

use super::*;

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
    let custom = crate::tool_list::custom_names(&request);
    assert!(custom.contains("n__g") && custom.contains("late"));
    let choice = ToolChoice::Allowed { required: true, names: vec!["n__f".to_owned()] };
    assert_eq!(request.tool_choice, Some(choice));
    assert!(
        matches!(&request.turns[1].blocks[0].kind, BlockKind::ToolCall(call) if call.name == "n__f"),
        "{:?}",
        request.turns
    );
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
