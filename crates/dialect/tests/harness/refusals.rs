//! What is refused rather than left out, because the answer would mean something else: a test for each.

use omniroute_dialect::Caps;
use serde_json::{Value, json};

use crate::support::{decode, dialect, translate};

/// A request of Chat Completions, with these members besides.
fn chat(more: Value) -> Value {
    merged(json!({"model": "m", "messages": [{"role": "user", "content": "a"}]}), more)
}

/// The same of Responses.
fn responses(more: Value) -> Value {
    merged(json!({"model": "m", "input": "a"}), more)
}

/// The same of Messages.
fn messages(more: Value) -> Value {
    merged(json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "a"}]}), more)
}

/// The same of Gemini.
fn gemini(more: Value) -> Value {
    merged(json!({"contents": [{"role": "user", "parts": [{"text": "a"}]}]}), more)
}

fn merged(mut body: Value, more: Value) -> Value {
    let (Value::Object(body_members), Value::Object(more)) = (&mut body, more) else { panic!("no objects") };
    body_members.extend(more);
    body
}

/// Tries each request on each target.
#[track_caller]
fn refused(client: &str, targets: &[&str], body: &Value, code: &str, param: &str) {
    refused_by(client, targets, body, &Caps::permissive(), code, param);
}

#[track_caller]
fn refused_by(client: &str, targets: &[&str], body: &Value, caps: &Caps, code: &str, param: &str) {
    for target in targets {
        let error = translate(client, target, body, caps)
            .map(|(out, _)| panic!("{client} to {target} is not refused: {out}"))
            .unwrap_err();
        assert_eq!(
            (error.code, error.param.as_deref()),
            (code, Some(param)),
            "{client} to {target}: {error:?}"
        );
        assert!(error.message.len() > 10, "{error:?}");
    }
}

/// A user's message with one part.
fn part(part: Value) -> Value {
    let content = vec![part];
    json!({"messages": [{"role": "user", "content": content}]})
}

#[test]
fn several_answers_where_there_is_one() {
    let code = "unsupported_parameter";
    refused("openai", &["responses", "anthropic", "gemini", "ollama"], &chat(json!({"n": 2})), code, "n");
    let body = gemini(json!({"generationConfig": {"candidateCount": 2}}));
    let param = "generationConfig.candidateCount";
    refused("gemini", &["responses", "anthropic", "ollama"], &body, code, param);
    assert!(translate("gemini", "openai", &body, &Caps::permissive()).unwrap().0["n"] == 2);
}

#[test]
fn log_probabilities_where_there_are_none() {
    let code = "unsupported_parameter";
    refused("openai", &["anthropic"], &chat(json!({"logprobs": true})), code, "logprobs");
    let body = gemini(json!({"generationConfig": {"responseLogprobs": true}}));
    refused("gemini", &["anthropic"], &body, code, "generationConfig.responseLogprobs");
}

#[test]
fn a_bias_of_tokens_where_there_is_none() {
    let others = &["responses", "anthropic", "gemini", "ollama"];
    let body = chat(json!({"logit_bias": {"50256": -100}}));
    refused("openai", others, &body, "unsupported_parameter", "logit_bias");
    for target in others {
        let empty = chat(json!({"logit_bias": {}}));
        assert!(translate("openai", target, &empty, &Caps::permissive()).is_ok(), "{target}");
    }
}

#[test]
fn sound_and_film_where_they_are_not_taken() {
    let code = "unsupported_content";
    let sound = chat(part(json!({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}})));
    refused("openai", &["responses", "anthropic", "ollama"], &sound, code, "messages[0].content[0]");
    let deaf = Caps { audio_input: false, ..Caps::permissive() };
    refused_by("openai", &["gemini"], &sound, &deaf, code, "messages[0].content[0]");
    let sung = gemini(
        json!({"contents": [{"role": "user", "parts": [{"inlineData": {"mimeType": "audio/ogg", "data": "AA=="}}]}]}),
    );
    let first_hand = Caps { developer_role: true, ..Caps::permissive() };
    refused_by("gemini", &["openai"], &sung, &first_hand, code, "contents[0].parts[0]");
    let film = gemini(
        json!({"contents": [{"role": "user", "parts": [{"text": "a"}, {"inlineData": {"mimeType": "video/mp4", "data": "AA=="}}]}]}),
    );
    refused("gemini", &["openai", "responses", "anthropic", "ollama"], &film, code, "contents[0].parts[1]");
    let spoken = chat(json!({"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}}));
    refused("openai", &["responses", "anthropic", "gemini", "ollama"], &spoken, code, "modalities");
}

#[test]
fn pictures_and_documents_for_a_model_without_eyes() {
    let blind = Caps { vision: false, pdf: false, ..Caps::permissive() };
    let png = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUg==";
    let picture = chat(part(json!({"type": "image_url", "image_url": {"url": png}})));
    let pdf = "data:application/pdf;base64,JVBERi0xLjQK";
    let paper = chat(part(json!({"type": "file", "file": {"file_data": pdf, "filename": "a.pdf"}})));
    for body in [&picture, &paper] {
        let targets = &["responses", "anthropic", "gemini", "ollama"];
        refused_by("openai", targets, body, &blind, "unsupported_content", "messages[0].content[0]");
    }
    // Kinds that they cannot look at, whatever their label says.
    let tiff = "data:image/png;base64,SUkqAAgAAAA=";
    let picture = chat(part(json!({"type": "image_url", "image_url": {"url": tiff}})));
    let place = "messages[0].content[0]";
    refused(
        "openai",
        &["responses", "anthropic", "gemini", "ollama"],
        &picture,
        "unsupported_content",
        place,
    );
    let drawn = responses(json!({"input": [{"role": "user", "content": [
        {"type": "input_image", "image_url": "data:image/svg+xml;base64,AAAA"}
    ]}]}));
    refused(
        "responses",
        &["openai", "anthropic", "gemini"],
        &drawn,
        "unsupported_content",
        "input[0].content[0]",
    );
    let picture =
        messages(part(json!({"type": "image", "source": {"type": "url", "url": "https://a.example/a.png"}})));
    refused_by("anthropic", &["openai"], &picture, &blind, "unsupported_content", "messages[0].content[0]");
}

#[test]
fn names_that_only_their_provider_knows() {
    let code = "unsupported_parameter";
    let others = &["openai", "anthropic", "gemini", "ollama"];
    for (member, value) in [
        ("previous_response_id", json!("resp_1")),
        ("conversation", json!({"id": "conv_1"})),
        ("prompt", json!({"id": "pmpt_1"})),
    ] {
        refused("responses", others, &responses(json!({member: value})), code, member);
    }
    let item = responses(json!({"input": [{"type": "item_reference", "id": "msg_1"}]}));
    refused("responses", others, &item, code, "input[0]");
    let container = messages(json!({"container": "c"}));
    refused("anthropic", &["openai", "responses", "gemini", "ollama"], &container, code, "container");
    let cache = gemini(json!({"cachedContent": "cachedContents/1"}));
    refused("gemini", &["openai", "responses", "anthropic", "ollama"], &cache, code, "cachedContent");
    // Files are parts, so they are named as such.
    let file = chat(part(json!({"type": "file", "file": {"file_id": "file-1"}})));
    let place = "messages[0].content[0]";
    refused("openai", &["responses", "anthropic", "gemini", "ollama"], &file, "unsupported_content", place);
    let file = messages(part(json!({"type": "document", "source": {"type": "file", "file_id": "file_1"}})));
    refused("anthropic", &["openai", "responses", "gemini", "ollama"], &file, "unsupported_content", place);
    let stores = responses(json!({"tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}]}));
    refused("responses", others, &stores, "unsupported_tool", "tools[0]");
}

#[test]
fn an_answer_in_the_background_where_there_is_none() {
    let others = &["openai", "anthropic", "gemini", "ollama"];
    let body = responses(json!({"background": true}));
    refused("responses", others, &body, "unsupported_parameter", "background");
    for target in others {
        let body = responses(json!({"background": false}));
        assert!(translate("responses", target, &body, &Caps::permissive()).is_ok(), "{target}");
    }
}

#[test]
fn tools_of_a_vendor_that_nobody_else_has() {
    let code = "unsupported_tool";
    for (kind, members) in [
        ("computer_use_preview", json!({"environment": "browser"})),
        ("mcp", json!({"server_label": "s", "server_url": "https://a.example"})),
        ("file_search", json!({"vector_store_ids": ["vs_1"]})),
    ] {
        let tool = merged(json!({"type": kind}), members);
        let body = responses(json!({"tools": [tool]}));
        refused("responses", &["openai", "anthropic", "gemini", "ollama"], &body, code, "tools[0]");
    }
    let computer = json!({"type": "computer_20250124", "name": "computer", "display_width_px": 9, "display_height_px": 9});
    let alone = messages(json!({"tools": [computer]}));
    refused("anthropic", &["openai", "responses", "gemini", "ollama"], &alone, code, "tools[0]");
    let function = json!({"name": "f", "input_schema": {"type": "object"}});
    let forced =
        messages(json!({"tools": [function, computer], "tool_choice": {"type": "tool", "name": "computer"}}));
    refused("anthropic", &["openai", "responses", "gemini", "ollama"], &forced, code, "tools[1]");
    // Beside others, too: without it the answer would be another one.
    let both = messages(json!({"tools": [function, computer]}));
    refused("anthropic", &["openai", "responses", "gemini", "ollama"], &both, code, "tools[1]");
    let own = json!({"type": "function", "name": "f", "parameters": {"type": "object"}});
    for kind in ["mcp", "file_search", "code_interpreter", "image_generation", "tool_search", "local_shell"] {
        let body = responses(json!({"tools": [own, {"type": kind}]}));
        refused("responses", &["openai", "anthropic", "gemini", "ollama"], &body, code, "tools[1]");
    }
    let body = gemini(json!({"tools": [{"functionDeclarations": [{"name": "f"}]}, {"codeExecution": {}}]}));
    refused("gemini", &["openai", "responses", "anthropic", "ollama"], &body, code, "tools[1].codeExecution");
    let servers =
        messages(json!({"mcp_servers": [{"type": "url", "url": "https://a.example", "name": "s"}]}));
    refused("anthropic", &["openai", "responses", "gemini", "ollama"], &servers, code, "mcp_servers");
    // A search among tools is not missed where all of them are there, nor one of the web that agents always list.
    for spare in [
        json!({"type": "tool_search_tool_bm25_20251119", "name": "tool_search_tool_bm25"}),
        json!({"type": "web_search_20250305", "name": "web_search"}),
    ] {
        let body = messages(json!({"tools": [function, spare]}));
        assert!(translate("anthropic", "ollama", &body, &Caps::permissive()).is_ok(), "{spare}");
    }
    let search = json!({"type": "web_search_20250305", "name": "web_search"});
    refused("anthropic", &["ollama"], &messages(json!({"tools": [search]})), code, "tools[0]");
}

#[test]
fn a_call_that_must_come_where_none_can_be_demanded() {
    let tool = |name: &str| json!({"type": "function", "function": {"name": name, "parameters": {"type": "object"}}});
    let body = chat(json!({"tools": [tool("f"), tool("g")], "tool_choice": "required"}));
    refused("openai", &["ollama"], &body, "unsupported_tool_choice", "tool_choice");
    // With one tool it is the same as its name, of which the client is told what becomes.
    let tool = |name: &str| json!({"name": name, "input_schema": {"type": "object"}});
    let body = messages(json!({"tools": [tool("f"), tool("g")], "tool_choice": {"type": "any"}}));
    refused("anthropic", &["ollama"], &body, "unsupported_tool_choice", "tool_choice");
}

#[test]
fn a_choice_of_a_tool_that_is_not_there() {
    let function = json!({"type": "function", "function": {"name": "f"}});
    let named = json!({"type": "function", "function": {"name": "g"}});
    let body = chat(json!({"tools": [function], "tool_choice": named}));
    let error = decode(dialect("openai"), &body.to_string()).unwrap_err();
    assert_eq!((error.code, error.param.as_deref()), ("invalid_value", Some("tool_choice")));
    let body = messages(
        json!({"tools": [{"name": "f", "input_schema": {"type": "object"}}], "tool_choice": {"type": "tool", "name": "g"}}),
    );
    refused("anthropic", &["openai", "responses", "gemini", "ollama"], &body, "invalid_value", "tool_choice");
}

#[test]
fn a_beginning_of_the_answer_for_a_model_that_does_not_go_on_from_it() {
    let said = json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]);
    let body = chat(json!({"messages": said}));
    let targets = &["responses", "anthropic", "gemini", "ollama"];
    refused("openai", targets, &body, "unsupported_prefill", "messages[1]");
    refused(
        "anthropic",
        &["openai"],
        &messages(json!({"messages": said})),
        "unsupported_prefill",
        "messages[1]",
    );
    // One with nothing in it is no beginning.
    let empty = json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": ""}]);
    for target in targets {
        let body = chat(json!({"messages": empty}));
        assert!(translate("openai", target, &body, &Caps::permissive()).is_ok(), "{target}");
    }
}

#[test]
fn a_schema_of_a_tool_that_is_none() {
    let code = "invalid_tool_schema";
    for schema in [json!("x"), json!(["object"]), json!(7)] {
        let body = messages(json!({"tools": [{"name": "f", "input_schema": schema}]}));
        refused("anthropic", &["openai", "responses", "gemini", "ollama"], &body, code, "tools[0]");
    }
    let body = chat(
        json!({"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "string"}}}]}),
    );
    refused("openai", &["anthropic"], &body, code, "tools[0]");
    let body = chat(json!({"tools": [{"type": "function", "function": {"name": "f", "parameters": "x"}}]}));
    let error = decode(dialect("openai"), &body.to_string()).unwrap_err();
    assert_eq!((error.code, error.param.as_deref()), (code, Some("tools[0].function.parameters")));
}

#[test]
fn a_call_that_waits_and_a_result_of_no_call() {
    let call = json!({"role": "assistant", "content": null, "tool_calls": [
        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]});
    let waiting = chat(json!({"messages": [{"role": "user", "content": "a"}, call],
        "tools": [{"type": "function", "function": {"name": "f"}}]}));
    for target in ["responses", "anthropic", "gemini", "ollama"] {
        let error = translate("openai", target, &waiting, &Caps::permissive()).unwrap_err();
        let param = error.param.as_deref().unwrap_or_default();
        assert!(
            error.code == "unpaired_tool_call" && param.starts_with("messages[1]"),
            "{target}: {error:?}"
        );
    }
    let lone = chat(json!({"messages": [{"role": "tool", "content": "1"}]}));
    let error = decode(dialect("openai"), &lone.to_string()).unwrap_err();
    assert_eq!(
        (error.code, error.param.as_deref()),
        ("unpaired_tool_call", Some("messages[0].tool_call_id"))
    );
}

#[test]
fn roles_and_parts_that_nobody_knows() {
    for (client, body, param) in [
        ("openai", chat(json!({"messages": [{"role": "robot", "content": "a"}]})), "messages[0].role"),
        ("openai", chat(part(json!({"type": "hologram"}))), "messages[0].content[0].type"),
        ("anthropic", messages(json!({"messages": [{"role": "robot", "content": "a"}]})), "messages[0].role"),
        ("responses", responses(json!({"input": [{"role": "robot", "content": "a"}]})), "input[0].role"),
        (
            "responses",
            responses(json!({"input": [{"role": "user", "content": [{"type": "hologram"}]}]})),
            "input[0].content[0].type",
        ),
        (
            "gemini",
            gemini(json!({"contents": [{"role": "robot", "parts": [{"text": "a"}]}]})),
            "contents[0].role",
        ),
        ("ollama", chat(json!({"messages": [{"role": "robot", "content": "a"}]})), "messages[0].role"),
    ] {
        let error = decode(dialect(client), &body.to_string()).unwrap_err();
        assert_eq!(
            (error.code, error.param.as_deref()),
            ("invalid_value", Some(param)),
            "{client}: {error:?}"
        );
    }
}

#[test]
fn a_form_of_the_answer_without_its_schema() {
    let body = chat(json!({"response_format": {"type": "json_schema"}}));
    let error = decode(dialect("openai"), &body.to_string()).unwrap_err();
    assert_eq!((error.code, error.param.as_deref()), ("missing_required_parameter", Some("response_format")));
    let body = responses(json!({"text": {"format": {"type": "json_schema", "name": "n"}}}));
    let error = decode(dialect("responses"), &body.to_string()).unwrap_err();
    assert_eq!(error.code, "missing_required_parameter", "{error:?}");
}

#[test]
fn a_small_budget_is_not_refused() {
    let body = messages(json!({"thinking": {"type": "enabled", "budget_tokens": 100}}));
    let (same, losses) = translate("anthropic", "anthropic", &body, &Caps::permissive()).unwrap();
    assert_eq!(same["thinking"]["budget_tokens"], 100, "{losses:?}");
    for target in ["openai", "responses", "gemini", "ollama"] {
        assert!(translate("anthropic", target, &body, &Caps::permissive()).is_ok(), "{target}");
    }
    let body = gemini(
        json!({"generationConfig": {"maxOutputTokens": 4096, "thinkingConfig": {"thinkingBudget": 100}}}),
    );
    let (out, _) = translate("gemini", "anthropic", &body, &Caps::permissive()).unwrap();
    assert_eq!(out["thinking"]["budget_tokens"], 1024);
}
