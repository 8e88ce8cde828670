//! Faults of gateways in the requests that they write, each as a test that would fail with it, and what is refused.

use http::HeaderMap;
use omniroute_dialect::{
    Caps, fingerprint,
    ir::{BlockKind, LossAction},
};
use serde_json::{Value, json};

use crate::support::{decode, dialect, told, translate};

/// A request of Messages with these messages.
fn messages(messages: &Value) -> Value {
    json!({"model": "m", "max_tokens": 9, "messages": messages,
        "tools": [{"name": "f", "input_schema": {"type": "object"}}]})
}

/// The same of Chat Completions.
fn chat(messages: &Value) -> Value {
    json!({"model": "m", "messages": messages, "tools": [{"type": "function", "function": {"name": "f"}}]})
}

#[test]
fn f17_thinking_that_is_nothing_but_a_signature_stays() {
    let thinking = json!({"type": "thinking", "thinking": "", "signature": "S"});
    let redacted = json!({"type": "redacted_thinking", "data": "D"});
    let call = json!({"type": "tool_use", "id": "t1", "name": "f", "input": {}});
    let body = messages(&json!([
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": [thinking, redacted, call]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "1"}]}]));
    let (same, _) = translate("anthropic", "anthropic", &body, &Caps::permissive()).unwrap();
    assert_eq!(same["messages"][1]["content"], json!([thinking, redacted, call]));
    // Also when it comes back in the slots of another dialect.
    let body = chat(&json!([
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": null, "thinking_blocks": [thinking, redacted], "tool_calls": [
            {"id": "t1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "t1", "content": "1"}]));
    let (out, _) = translate("openai", "anthropic", &body, &Caps::permissive()).unwrap();
    assert_eq!(out["messages"][1]["content"], json!([thinking, redacted, call]));
}

#[test]
fn f18_a_signature_of_another_vendor_is_not_sent() {
    let body = chat(&json!([
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": null, "tool_calls": [
            {"id": "t1", "type": "function", "function": {"name": "f", "arguments": "{}"},
             "extra_content": {"google": {"thought_signature": "U0lH"}}}]},
        {"role": "tool", "tool_call_id": "t1", "content": "1"}]));
    let (out, losses) = translate("openai", "anthropic", &body, &Caps::permissive()).unwrap();
    assert!(!out.to_string().contains("U0lH"), "{out}");
    assert!(told(&losses).is_empty() && losses.iter().any(|loss| loss.path == "messages[1].content[0]"));

    let request = decode(dialect("openai"), &body.to_string()).unwrap();
    let mut foreign = request.clone();
    foreign.extras.origin = Some(dialect("anthropic").id());
    let out = dialect("openai").encode_request(&foreign, &Caps::permissive()).unwrap().body;
    assert!(!String::from_utf8_lossy(&out).contains("U0lH"), "another vendor of the dialect did not make it");
    assert!(request.turns[1].blocks.iter().any(|block| matches!(block.kind, BlockKind::Thinking { .. })));
}

#[test]
fn f20_long_and_odd_ids_of_calls_fit_and_stay_together() {
    let long = format!("toolu_{}", "x".repeat(70));
    for id in [long.as_str(), "functions.f:0", "call|fc_1"] {
        let body = messages(&json!([
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": id, "name": "f", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": id, "content": "1"}]}]));
        let (out, _) = translate("anthropic", "openai", &body, &Caps::permissive()).unwrap();
        let sent = out["messages"][1]["tool_calls"][0]["id"].as_str().unwrap();
        assert!(
            sent.len() <= 64 && sent.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b)),
            "{sent}"
        );
        assert_eq!(out["messages"][2]["tool_call_id"], sent);
    }
}

#[test]
fn f25_pictures_in_results_are_kept() {
    let image = json!({"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}});
    let body = messages(&json!([
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "f", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": [image]}]}]));
    let (out, _) = translate("anthropic", "openai", &body, &Caps::permissive()).unwrap();
    assert_eq!(out["messages"][2]["content"], "[image attached below: t1#1]");
    assert_eq!(out["messages"][3]["content"][1]["image_url"]["url"], "https://example.com/a.png");
}

#[test]
fn f29_new_models_get_neither_sampling_nor_budgets_nor_a_beginning_of_their_answer() {
    let new = Caps { adaptive_thinking: true, sampling: false, prefill: false, ..Caps::permissive() };
    let mut body = chat(&json!([{"role": "user", "content": "a"}]));
    body["temperature"] = json!(0.5);
    body["top_p"] = json!(0.5);
    body["reasoning_effort"] = json!("high");
    let (out, losses) = translate("openai", "anthropic", &body, &new).unwrap();
    assert_eq!((out.get("temperature"), out.get("top_p")), (None, None));
    assert_eq!(out["thinking"]["type"], "adaptive");
    assert_eq!(out["output_config"]["effort"], "high");
    assert_eq!(told(&losses), ["temperature", "top_p"]);
    let prefilled = chat(&json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]));
    assert_eq!(translate("openai", "anthropic", &prefilled, &new).unwrap_err().code, "unsupported_prefill");
    let old = Caps { prefill: true, ..Caps::permissive() };
    assert!(translate("openai", "anthropic", &prefilled, &old).is_ok());
}

#[test]
fn f33_nothing_that_changes_with_every_call_comes_before_the_conversation() {
    let body = |nonce: u32| {
        json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "a"}], "system": [
            {"type": "text", "text": format!("x-anthropic-billing-header: cch={nonce};")},
            {"type": "text", "text": "Be brief."}]})
    };
    for target in ["openai", "ollama"] {
        let sent = |nonce| translate("anthropic", target, &body(nonce), &Caps::permissive()).unwrap().0;
        assert_eq!(sent(1), sent(2));
    }
    let keyed =
        json!({"model": "m", "messages": [{"role": "user", "content": "a"}], "prompt_cache_key": "k"});
    let (same, _) = translate("openai", "openai", &keyed, &Caps::permissive()).unwrap();
    assert_eq!(same["prompt_cache_key"], "k");
}

#[test]
fn f35_betas_are_one_header_with_each_once() {
    let mut from = HeaderMap::new();
    from.append("anthropic-beta", "a,b".parse().unwrap());
    from.append("anthropic-beta", "c".parse().unwrap());
    from.insert("anthropic-version", "2023-06-01".parse().unwrap());
    let mut to = HeaderMap::new();
    to.insert("anthropic-beta", "b,d".parse().unwrap());
    to.insert("anthropic-version", "2023-06-01".parse().unwrap());
    let anthropic = dialect("anthropic");
    anthropic.forward_headers(anthropic.id(), &from, &mut to);
    assert_eq!(to.get_all("anthropic-beta").iter().collect::<Vec<_>>(), ["a,b,c,d"]);
    assert_eq!(to.get_all("anthropic-version").iter().collect::<Vec<_>>(), ["2023-06-01"]);
}

#[test]
fn f42_whatever_may_change_an_answer_keeps_questions_apart() {
    let base = json!({"model": "m", "temperature": 0, "messages": [{"role": "user", "content": "a"}]});
    let with = |member: &str, value: Value| {
        let mut body = base.clone();
        body[member] = value;
        body
    };
    let of = |body: &Value, target: &str, owner: &str| {
        fingerprint(&decode(dialect("openai"), &body.to_string()).unwrap(), target, &[owner])
    };
    let function = |name: &str| json!([{"type": "function", "function": {"name": name}}]);
    let mut seen = vec![of(&base, "p/m", "one"), of(&base, "p/n", "one"), of(&base, "p/m", "two")];
    for (member, value) in [
        ("messages", json!([{"role": "user", "content": "b"}])),
        ("messages", json!([{"role": "system", "content": "s"}, {"role": "user", "content": "a"}])),
        ("messages", json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])),
        ("tools", function("f")),
        ("tools", function("g")),
        ("seed", json!(1)),
        ("max_tokens", json!(9)),
        ("response_format", json!({"type": "json_object"})),
        ("reasoning_effort", json!("high")),
        ("something_new", json!(true)),
    ] {
        seen.push(of(&with(member, value.clone()), "p/m", "one"));
    }
    assert!(seen.iter().all(Option::is_some));
    let apart: std::collections::BTreeSet<_> = seen.iter().collect();
    assert_eq!(apart.len(), seen.len());
    // What the form does not have may mean anything to the upstream.
    for odd in [
        json!([{"role": "user", "content": [{"type": "text", "text": "a", "something_new": 1}]}]),
        json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "prefix": true}]),
    ] {
        assert_eq!(of(&with("messages", odd.clone()), "p/m", "one"), None, "{odd}");
    }
}

#[test]
fn reasoning_that_is_left_to_the_model_is_recorded() {
    let body = |thinking: Value| {
        let mut body = messages(&json!([{"role": "user", "content": "a"}]));
        body["max_tokens"] = json!(99);
        body["thinking"] = thinking;
        body
    };
    let adaptive = body(json!({"type": "adaptive", "display": "summarized"}));
    for (to, lost) in [
        ("openai", vec!["thinking.display", "thinking"]),
        ("responses", vec!["thinking"]),
        ("gemini", vec!["thinking"]),
        ("ollama", vec![]),
    ] {
        let (out, losses) = translate("anthropic", to, &adaptive, &Caps::permissive()).unwrap();
        let paths: Vec<&str> = losses.iter().map(|loss| &*loss.path).collect();
        assert_eq!(paths, lost, "{to}: {out}");
        assert!(told(&losses).is_empty(), "it is what the models do by themselves");
    }
    let shown = json!({"contents": [{"parts": [{"text": "a"}]}],
        "generationConfig": {"thinkingConfig": {"includeThoughts": true}}});
    for to in ["openai", "anthropic", "ollama"] {
        let (out, losses) = translate("gemini", to, &shown, &Caps::permissive()).unwrap();
        let show = "generationConfig.thinkingConfig.includeThoughts";
        assert!(losses.iter().any(|loss| loss.path == show && loss.silent), "{to}: {out} {losses:?}");
    }
}

#[test]
fn losses_are_named_as_the_client_names_its_members() {
    let ollama = json!({"model": "m", "messages": [{"role": "user", "content": "a"}],
        "options": {"top_k": 5, "seed": 7, "temperature": 1.5}});
    let (_, losses) = translate("ollama", "anthropic", &ollama, &Caps::permissive()).unwrap();
    assert_eq!(told(&losses), ["options.temperature", "options.seed"]);
    let (_, losses) = translate("ollama", "openai", &ollama, &Caps::permissive()).unwrap();
    assert_eq!(told(&losses), ["options.top_k"]);
    let gemini =
        json!({"contents": [{"parts": [{"text": "a"}]}], "generationConfig": {"topK": 5, "seed": 7}});
    let (_, losses) = translate("gemini", "responses", &gemini, &Caps::permissive()).unwrap();
    assert_eq!(told(&losses), ["generationConfig.topK", "generationConfig.seed"]);
}

#[test]
fn stop_sequences_that_the_gateway_looks_after_are_not_said_to_be_dropped() {
    let mut body = messages(&json!([{"role": "user", "content": "a"}]));
    body["stop_sequences"] = json!(["s1", "s2", "s3", "s4", "s5"]);
    let caps = Caps { developer_role: true, ..Caps::permissive() };
    let (out, losses) = translate("anthropic", "openai", &body, &caps).unwrap();
    assert_eq!(out["stop"], json!(["s1", "s2", "s3", "s4"]));
    assert!(told(&losses).is_empty(), "{losses:?}");
    assert!(losses.iter().any(|loss| loss.path == "stop_sequences" && loss.action == LossAction::Mapped));
}

#[test]
fn the_phases_of_messages_are_kept_where_they_are_known_and_no_loss_elsewhere() {
    let body = json!({"model": "m", "input": [{"role": "user", "content": "a"},
        {"type": "message", "role": "assistant", "phase": "commentary", "content": [{"type": "output_text", "text": "I look."}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "b"},
        {"type": "message", "role": "assistant", "phase": "final_answer", "content": [{"type": "output_text", "text": "So."}]},
        {"role": "user", "content": "d"}]});
    let (out, losses) = translate("responses", "responses", &body, &Caps::permissive()).unwrap();
    let phases: Vec<_> = out["input"].as_array().unwrap().iter().map(|item| item.get("phase")).collect();
    let (first, last) = (json!("commentary"), json!("final_answer"));
    assert_eq!(phases, [None, Some(&first), None, None, Some(&last), None]);
    assert!(losses.is_empty(), "{losses:?}");
    for target in ["openai", "anthropic", "gemini", "ollama"] {
        let (out, losses) = translate("responses", target, &body, &Caps::permissive()).unwrap();
        assert!(!out.to_string().contains("final_answer"));
        assert!(told(&losses).iter().all(|path| !path.contains("phase")), "{target}: {losses:?}");
        let recorded = losses.iter().filter(|loss| loss.path.ends_with(".phase") && loss.silent);
        assert_eq!(recorded.count(), 2, "{target}: {losses:?}");
    }
}

#[test]
fn requests_that_cannot_be_carried_are_refused() {
    let user = json!([{"role": "user", "content": "a"}]);
    let with = |mut body: Value, member: &str, value: Value| {
        body[member] = value;
        body
    };
    let pdf = json!({"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0xLjQK"}});
    let no_pdf = Caps { pdf: false, ..Caps::permissive() };
    let open = Caps::permissive();
    let server = json!([{"type": "computer_20250124", "name": "computer"}]);
    for (from, to, body, caps, code, param) in [
        (
            "anthropic",
            "openai",
            with(messages(&user), "tools", json!([{"name": "f", "input_schema": "x"}])),
            &open,
            "invalid_tool_schema",
            "tools[0]",
        ),
        (
            "openai",
            "anthropic",
            with(
                chat(&user),
                "tools",
                json!([{"type": "function", "function": {"name": "f",
            "parameters": {"type": "string"}}}]),
            ),
            &open,
            "invalid_tool_schema",
            "tools[0]",
        ),
        (
            "anthropic",
            "openai",
            with(messages(&user), "tool_choice", json!({"type": "tool", "name": "g"})),
            &open,
            "invalid_value",
            "tool_choice",
        ),
        (
            "anthropic",
            "openai",
            with(messages(&user), "tools", server),
            &open,
            "unsupported_tool",
            "tools[0]",
        ),
        (
            "anthropic",
            "openai",
            messages(&json!([{"role": "user", "content": [pdf]}])),
            &no_pdf,
            "unsupported_content",
            "messages[0].content[0]",
        ),
        (
            "openai",
            "anthropic",
            with(chat(&user), "modalities", json!(["text", "audio"])),
            &open,
            "unsupported_content",
            "modalities",
        ),
        (
            "anthropic",
            "openai",
            with(messages(&user), "container", json!("c")),
            &open,
            "unsupported_parameter",
            "container",
        ),
        (
            "gemini",
            "responses",
            json!({"contents": [{"parts": [{"inlineData": {"mimeType": "video/mp4", "data": "AA=="}}]}]}),
            &open,
            "unsupported_content",
            "contents[0].parts[0]",
        ),
        (
            "gemini",
            "responses",
            json!({"contents": [{"parts": [{"text": "a"}]}], "generationConfig": {"candidateCount": 2}}),
            &open,
            "unsupported_parameter",
            "generationConfig.candidateCount",
        ),
    ] {
        let error = translate(from, to, &body, caps).unwrap_err();
        assert_eq!((error.code, error.param.as_deref()), (code, Some(param)), "{error:?}");
    }
    for (id, body, code) in [
        ("openai", json!([{"role": "tool", "content": "1"}]), "unpaired_tool_call"),
        ("openai", json!([{"role": "robot", "content": "1"}]), "invalid_value"),
        ("openai", json!([{"role": "user", "content": [{"type": "hologram"}]}]), "invalid_value"),
        ("anthropic", json!([{"role": "robot", "content": "1"}]), "invalid_value"),
    ] {
        let body = json!({"model": "m", "max_tokens": 9, "messages": body});
        assert_eq!(decode(dialect(id), &body.to_string()).unwrap_err().code, code, "{body}");
    }
    let format = json!({"model": "m", "messages": user, "response_format": {"type": "json_schema"}});
    let error = decode(dialect("openai"), &format.to_string()).unwrap_err();
    assert_eq!((error.code, error.param.as_deref()), ("missing_required_parameter", Some("response_format")));
}
