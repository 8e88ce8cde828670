//! What goes over between dialects whose words for it differ: a row for each, with what the target gets and what the client
//! is told of.

use omniroute_dialect::Caps;
use serde_json::{Value, json};

use crate::support::{full_caps, told, translate};

/// A request of a dialect that says nothing but "a", with these members besides.
fn asking(dialect: &str, more: &Value) -> Value {
    let mut body = match dialect {
        "openai" => json!({"model": "m", "messages": [{"role": "user", "content": "a"}]}),
        "responses" => json!({"model": "m", "input": "a"}),
        "anthropic" => {
            json!({"model": "m", "max_tokens": 99, "messages": [{"role": "user", "content": "a"}]})
        }
        "gemini" => json!({"contents": [{"role": "user", "parts": [{"text": "a"}]}]}),
        _ => json!({"model": "m", "messages": [{"role": "user", "content": "a"}]}),
    };
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

/// One row: from, what is asked for, to, where the target has it, what it has there, and what the client is told.
type Row = (&'static str, Value, &'static str, &'static str, Value, &'static [&'static str]);

#[track_caller]
fn check(rows: &[Row], caps: &Caps) {
    for (from, asked, to, place, expected, named) in rows {
        let (sent, losses) = translate(from, to, &asking(from, asked), caps).unwrap();
        let found = sent.pointer(place).unwrap_or(&Value::Null);
        assert_eq!(
            (found, told(&losses)),
            (expected, named.to_vec()),
            "{from} to {to}: {asked}: {sent} {losses:?}"
        );
    }
}

#[test]
fn tiers() {
    let all = |word: &str| json!({"service_tier": word});
    let google = |word: &str| json!({"serviceTier": word});
    check(
        &[
            ("gemini", google("STANDARD"), "responses", "/service_tier", json!("default"), &[]),
            ("gemini", google("STANDARD"), "openai", "/service_tier", json!("default"), &[]),
            ("gemini", google("FLEX"), "responses", "/service_tier", json!("flex"), &[]),
            ("gemini", google("PRIORITY"), "anthropic", "/service_tier", json!("auto"), &[]),
            ("anthropic", all("standard_only"), "responses", "/service_tier", json!("default"), &[]),
            ("anthropic", all("standard_only"), "gemini", "/serviceTier", json!("standard"), &[]),
            ("openai", all("flex"), "anthropic", "/service_tier", json!("standard_only"), &[]),
            ("openai", all("fast"), "anthropic", "/speed", json!("fast"), &[]),
            ("openai", all("scale"), "anthropic", "/service_tier", Value::Null, &["service_tier"]),
            ("openai", all("scale"), "responses", "/service_tier", json!("scale"), &[]),
        ],
        &full_caps(),
    );
}

#[test]
fn tools_that_take_free_text_have_their_grammar_where_it_belongs() {
    let grammar = json!({"syntax": "lark", "definition": "start: /a+/"});
    let chat = json!({"tools": [{"type": "custom", "custom": {"name": "p", "format": {"type": "grammar", "grammar": grammar}}}]});
    let flat = json!({"type": "grammar", "syntax": "lark", "definition": "start: /a+/"});
    let responses = json!({"tools": [{"type": "custom", "name": "p", "format": flat}]});
    let text = json!({"type": "text"});
    check(
        &[
            ("openai", chat.clone(), "responses", "/tools/0/format", flat.clone(), &[]),
            (
                "responses",
                responses.clone(),
                "openai",
                "/tools/0/custom/format/grammar",
                grammar.clone(),
                &[],
            ),
            ("openai", chat, "openai", "/tools/0/custom/format/grammar", grammar, &[]),
            ("responses", responses, "responses", "/tools/0/format", flat, &[]),
            (
                "openai",
                json!({"tools": [{"type": "custom", "custom": {"name": "p", "format": text}}]}),
                "responses",
                "/tools/0/format",
                text,
                &[],
            ),
        ],
        &full_caps(),
    );
    // Codex says so of a function where its model knows no other tools.
    let function = json!({"tools": [{"type": "function", "name": "apply_patch",
        "description": "This is a FREEFORM tool.", "parameters": {"type": "object", "properties": {}}}]});
    check(
        &[
            ("responses", function.clone(), "openai", "/tools/0/type", json!("custom"), &[]),
            ("responses", function, "anthropic", "/tools/0/input_schema/required/0", json!("input"), &[]),
        ],
        &full_caps(),
    );
}

#[test]
fn what_must_be_obeyed_is_said_where_it_can_be() {
    let closed = json!({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": false});
    let open =
        json!({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": false});
    let mut odd = closed.clone();
    odd["properties"]["a"] = json!({"type": "array", "items": {"type": "string"}, "uniqueItems": true});
    let tool = |schema: &Value| json!({"tools": [{"name": "f", "input_schema": schema, "strict": true}]});
    let format =
        |schema: &Value| json!({"output_config": {"format": {"type": "json_schema", "schema": schema}}});
    let strict = "/response_format/json_schema/strict";
    check(
        &[
            ("anthropic", tool(&closed), "openai", "/tools/0/function/strict", json!(true), &[]),
            (
                "anthropic",
                tool(&open),
                "openai",
                "/tools/0/function/strict",
                json!(false),
                &["tools[0].strict"],
            ),
            ("anthropic", tool(&open), "responses", "/tools/0/strict", json!(false), &["tools[0].strict"]),
            (
                "anthropic",
                tool(&closed),
                "gemini",
                "/toolConfig/functionCallingConfig/mode",
                json!("VALIDATED"),
                &[],
            ),
            (
                "anthropic",
                tool(&closed),
                "ollama",
                "/tools/0/function/strict",
                Value::Null,
                &["tools[0].strict"],
            ),
            // Messages holds every answer to its schema.
            ("anthropic", format(&closed), "openai", strict, json!(true), &[]),
            ("anthropic", format(&closed), "responses", "/text/format/strict", json!(true), &[]),
            ("anthropic", format(&open), "openai", strict, json!(false), &[]),
            ("anthropic", format(&open), "responses", "/text/format/strict", json!(false), &[]),
            // The vendor refuses some words where an answer must obey, which nobody has asked for here.
            ("anthropic", format(&odd), "openai", strict, json!(false), &[]),
            ("anthropic", format(&odd), "responses", "/text/format/strict", json!(false), &[]),
        ],
        &full_caps(),
    );
    let unknown = Caps { developer_role: false, ..full_caps() };
    check(&[("anthropic", format(&closed), "openai", strict, Value::Null, &[])], &unknown);
}

#[test]
fn schemas_leave_out_the_words_that_the_target_refuses() {
    let schema = json!({"$schema": "s", "type": "object", "properties": {"a": {"type": "string", "pattern": "a"}}, "additionalProperties": false});
    let plain = json!({"type": "object", "properties": {"a": {"type": "string", "pattern": "a"}}, "additionalProperties": false});
    let short =
        json!({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": false});
    let tool = json!({"tools": [{"name": "f", "input_schema": schema}]});
    let format = json!({"output_config": {"format": {"type": "json_schema", "schema": schema}}});
    let strict = Caps {
        schema_without: &["$schema"],
        answer_schema_without: &["$schema", "pattern"],
        developer_role: false,
        ..full_caps()
    };
    let place = "/response_format/json_schema/schema";
    check(
        &[
            ("anthropic", tool.clone(), "openai", "/tools/0/function/parameters", plain, &[]),
            ("anthropic", format.clone(), "openai", place, short, &["output_config.format.schema"]),
        ],
        &strict,
    );
    check(
        &[
            ("anthropic", tool, "openai", "/tools/0/function/parameters", schema.clone(), &[]),
            ("anthropic", format, "openai", place, schema, &[]),
        ],
        &full_caps(),
    );
}

#[test]
fn what_becomes_of_a_tool_is_told_in_the_words_of_the_client() {
    let schema = json!({"type": "object", "properties": {"a": {"type": "string", "minLength": 3}},
        "anyOf": [{"required": ["a"]}]});
    let chat = json!({"tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}]});
    let own = json!({"tools": [{"type": "function", "name": "f", "parameters": schema, "strict": false}]});
    let kind = json!("object");
    let place = "/tools/0/input_schema/type";
    check(
        &[
            ("openai", chat, "anthropic", place, kind.clone(), &["tools[0].function.parameters"]),
            ("responses", own, "anthropic", place, kind, &["tools[0].parameters"]),
        ],
        &full_caps(),
    );
    let strict = json!({"tools": [{"type": "function", "function": {"name": "f", "strict": true, "parameters": {"type": "object"}}}]});
    check(
        &[(
            "openai",
            strict,
            "ollama",
            "/tools/0/function/strict",
            Value::Null,
            &["tools[0].function.strict"],
        )],
        &full_caps(),
    );
}

#[test]
fn numbers_stay_where_they_are_taken() {
    check(
        &[
            (
                "ollama",
                json!({"options": {"temperature": 2.5}}),
                "openai",
                "/temperature",
                json!(2),
                &["options.temperature"],
            ),
            (
                "ollama",
                json!({"options": {"temperature": 2.5}}),
                "responses",
                "/temperature",
                json!(2),
                &["options.temperature"],
            ),
            ("ollama", json!({"options": {"temperature": 1.5}}), "openai", "/temperature", json!(1.5), &[]),
            (
                "openai",
                json!({"seed": 5_000_000_000_u64}),
                "gemini",
                "/generationConfig/seed",
                json!(705_032_704),
                &[],
            ),
            (
                "openai",
                json!({"seed": 18_000_000_000_000_000_007_u64}),
                "gemini",
                "/generationConfig/seed",
                json!(18_000_000_000_000_000_007_u64 & 0x7fff_ffff),
                &[],
            ),
            ("openai", json!({"seed": -7}), "gemini", "/generationConfig/seed", json!(-7), &[]),
            ("anthropic", json!({"top_k": 5}), "responses", "/top_k", Value::Null, &["top_k"]),
            ("openai", json!({"temperature": 0.5, "top_p": 0.5}), "anthropic", "/top_p", json!(0.5), &[]),
        ],
        &full_caps(),
    );
    let takes_top_k = Caps { top_k: true, ..full_caps() };
    check(
        &[
            ("anthropic", json!({"top_k": 5}), "responses", "/top_k", json!(5), &[]),
            ("anthropic", json!({"top_k": 5}), "openai", "/top_k", json!(5), &[]),
        ],
        &takes_top_k,
    );
    // Models that reason take the others while they rest.
    let reasons = Caps { sampling: false, sampling_at_rest: true, ..full_caps() };
    let rests = json!({"temperature": 0.5, "reasoning_effort": "none"});
    check(
        &[
            ("openai", rests, "responses", "/temperature", json!(0.5), &[]),
            (
                "anthropic",
                json!({"temperature": 0.5, "thinking": {"type": "disabled"}}),
                "openai",
                "/temperature",
                json!(0.5),
                &[],
            ),
            (
                "openai",
                json!({"temperature": 0.5}),
                "responses",
                "/temperature",
                Value::Null,
                &["temperature"],
            ),
        ],
        &reasons,
    );
    let rests = Caps { rests_by_default: true, ..reasons };
    let warm = json!({"temperature": 0.5});
    let thinks = json!({"temperature": 0.5, "reasoning_effort": "low"});
    check(
        &[
            ("anthropic", warm.clone(), "openai", "/temperature", json!(0.5), &[]),
            ("openai", warm, "responses", "/temperature", json!(0.5), &[]),
            ("openai", thinks, "responses", "/temperature", Value::Null, &["temperature"]),
        ],
        &rests,
    );
}

#[test]
fn pictures_are_looked_at_as_closely_as_all_of_them_are() {
    let contents = json!([{"parts": [{"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}}]}]);
    let seen = |level: &str| json!({"contents": contents, "generationConfig": {"mediaResolution": level}});
    let low = seen("MEDIA_RESOLUTION_LOW");
    check(
        &[
            ("gemini", low.clone(), "openai", "/messages/0/content/0/image_url/detail", json!("low"), &[]),
            ("gemini", low.clone(), "responses", "/input/0/content/0/detail", json!("low"), &[]),
            (
                "gemini",
                low.clone(),
                "anthropic",
                "/messages/0/content/0/detail",
                Value::Null,
                &["contents[0].parts[0].mediaResolution"],
            ),
            (
                "gemini",
                low.clone(),
                "gemini",
                "/generationConfig/mediaResolution",
                json!("MEDIA_RESOLUTION_LOW"),
                &[],
            ),
            ("gemini", low, "gemini", "/contents/0/parts/0/mediaResolution", Value::Null, &[]),
            (
                "gemini",
                seen("MEDIA_RESOLUTION_MEDIUM"),
                "openai",
                "/messages/0/content/0/image_url/detail",
                Value::Null,
                &["generationConfig.mediaResolution"],
            ),
            (
                "gemini",
                seen("MEDIA_RESOLUTION_ULTRA_HIGH"),
                "openai",
                "/messages/0/content/0/image_url/detail",
                Value::Null,
                &["generationConfig.mediaResolution"],
            ),
            (
                "gemini",
                seen("media_resolution_high"),
                "openai",
                "/messages/0/content/0/image_url/detail",
                json!("high"),
                &[],
            ),
        ],
        &full_caps(),
    );
    let picture =
        json!({"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo=", "detail": "high"});
    let input = json!({"input": [{"role": "user", "content": [picture]}]});
    check(
        &[(
            "responses",
            input,
            "anthropic",
            "/messages/0/content/0/detail",
            Value::Null,
            &["input[0].content[0].detail"],
        )],
        &full_caps(),
    );
}

#[test]
fn what_says_nothing_or_the_same_is_not_told() {
    let examples =
        json!({"tools": [{"name": "f", "input_schema": {"type": "object"}, "input_examples": [{"a": 1}]}]});
    check(
        &[
            ("openai", json!({"modalities": ["text"]}), "anthropic", "/modalities", Value::Null, &[]),
            (
                "gemini",
                json!({"generationConfig": {"responseModalities": ["TEXT"]}}),
                "openai",
                "/modalities",
                Value::Null,
                &[],
            ),
            (
                "anthropic",
                json!({"thinking": {"type": "between_tools"}}),
                "responses",
                "/reasoning/effort",
                json!("none"),
                &[],
            ),
            ("anthropic", examples.clone(), "ollama", "/tools/0/function/name", json!("f"), &[]),
            ("anthropic", examples.clone(), "responses", "/tools/0/name", json!("f"), &[]),
            (
                "anthropic",
                examples.clone(),
                "gemini",
                "/tools/0/functionDeclarations/0/name",
                json!("f"),
                &[],
            ),
            ("anthropic", examples, "openai", "/tools/0/function/name", json!("f"), &[]),
        ],
        &full_caps(),
    );
}

#[test]
fn who_asks_is_told_to_be_left_out() {
    let user = json!({"metadata": {"user_id": "u"}});
    let hash = "0bfe935e70c321c7ca3afc75ce0d0ca2f98b5422e008bb31c00c6d7f1f1c0ad6";
    check(
        &[
            ("anthropic", user.clone(), "openai", "/safety_identifier", json!(hash), &[]),
            ("anthropic", user.clone(), "responses", "/safety_identifier", json!(hash), &[]),
            ("anthropic", user.clone(), "gemini", "/labels", Value::Null, &["metadata.user_id"]),
            ("anthropic", user.clone(), "ollama", "/user", Value::Null, &["metadata.user_id"]),
            ("openai", json!({"user": "u"}), "anthropic", "/metadata/user_id", json!("u"), &[]),
            ("openai", json!({"user": "u"}), "gemini", "/labels", Value::Null, &["user"]),
        ],
        &full_caps(),
    );
    let unknown = Caps { developer_role: false, ..full_caps() };
    check(
        &[("anthropic", user, "openai", "/safety_identifier", Value::Null, &["metadata.user_id"])],
        &unknown,
    );
}

#[test]
fn names_that_have_no_place_are_told() {
    let messages = json!({"messages": [
        {"role": "system", "content": "s", "name": "chief"}, {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b", "name": "helper"}, {"role": "user", "content": "c"}]});
    let both: &[&str] = &["messages[0].name", "messages[2].name"];
    check(
        &[
            ("openai", messages.clone(), "openai", "/messages/0/name", json!("chief"), &[]),
            ("openai", messages.clone(), "anthropic", "/system", json!("s"), both),
            ("openai", messages.clone(), "gemini", "/systemInstruction/parts/0/text", json!("s"), both),
            ("openai", messages.clone(), "responses", "/input/0/role", json!("developer"), both),
            ("openai", messages, "ollama", "/messages/0/content", json!("s"), both),
        ],
        &full_caps(),
    );
}

#[test]
fn a_call_without_a_name_goes_with_its_result() {
    let call = json!({"id": "c", "type": "function", "function": {"name": " ", "arguments": "{}"}});
    let messages = json!({"messages": [
        {"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "lost"}, {"role": "user", "content": "c"}]});
    for to in ["responses", "anthropic", "gemini", "ollama"] {
        let (sent, losses) = translate("openai", to, &asking("openai", &messages), &full_caps()).unwrap();
        assert!(!sent.to_string().contains("lost") && told(&losses).len() == 1, "{to}: {sent} {losses:?}");
    }
}

#[test]
fn results_keep_what_is_in_them_beside_text() {
    let sound = json!({"inlineData": {"mimeType": "audio/wav", "data": "UklGRg=="}});
    let contents = |part: Value| {
        json!({"contents": [
            {"role": "user", "parts": [{"text": "a"}]},
            {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {}}}]},
            {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"output": "r"}, "parts": [part]}}]}],
            "tools": [{"functionDeclarations": [{"name": "f"}]}]})
    };
    let (sent, losses) = translate("gemini", "openai", &contents(sound), &full_caps()).unwrap();
    let parts = &sent["messages"][3]["content"];
    assert_eq!(parts[1]["input_audio"], json!({"data": "UklGRg==", "format": "wav"}), "{sent}");
    assert!(told(&losses).is_empty(), "{losses:?}");
    let film = json!({"inlineData": {"mimeType": "video/mp4", "data": "AA=="}});
    for to in ["openai", "responses", "anthropic", "ollama"] {
        let error = translate("gemini", to, &contents(film.clone()), &full_caps()).unwrap_err();
        assert_eq!(error.code, "unsupported_content", "{to}: {error:?}");
    }
    // A text file is text, also where nothing else is in the result.
    let file = json!({"inlineData": {"mimeType": "text/plain", "data": "aGVsbG8=", "displayName": "a.txt"}});
    for (to, place) in [
        ("openai", "/messages/3/content/1/text"),
        ("responses", "/input/2/output"),
        ("anthropic", "/messages/2/content/0/content/1/source/data"),
        ("ollama", "/messages/2/content"),
    ] {
        let (sent, _) = translate("gemini", to, &contents(file.clone()), &full_caps()).unwrap();
        let text = sent.pointer(place).and_then(Value::as_str).unwrap_or_default();
        assert!(text.contains("hello"), "{to}: {sent}");
    }
}

#[test]
fn searches_leave_out_what_they_were_told_to() {
    let search = json!({"tools": [{"type": "web_search_20250305", "name": "web_search", "blocked_domains": ["a.example"]}]});
    let google = json!({"tools": [{"googleSearch": {"excludeDomains": ["a.example"]}}]});
    check(
        &[
            (
                "anthropic",
                search.clone(),
                "gemini",
                "/tools/0/googleSearch",
                json!({}),
                &["tools[0].blocked_domains"],
            ),
            ("gemini", google, "anthropic", "/tools/0/blocked_domains/0", json!("a.example"), &[]),
            (
                "anthropic",
                search.clone(),
                "responses",
                "/tools/0/filters",
                Value::Null,
                &["tools[0].blocked_domains"],
            ),
        ],
        &full_caps(),
    );
    let mut knows_the_word = full_caps();
    knows_the_word.gemini.excluded_domains = true;
    let place = "/tools/0/googleSearch/excludeDomains/0";
    check(&[("anthropic", search, "gemini", place, json!("a.example"), &[])], &knows_the_word);
}

#[test]
fn the_beginning_of_an_answer_is_marked_where_it_has_to_be() {
    let messages =
        json!({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]});
    let marked = Caps { prefix_mark: true, ..full_caps() };
    check(&[("anthropic", messages.clone(), "openai", "/messages/1/prefix", json!(true), &[])], &marked);
    check(&[("anthropic", messages, "openai", "/messages/1/prefix", Value::Null, &[])], &full_caps());
}

#[test]
fn reasoning_that_a_vendor_wrote_in_details_is_read() {
    let details = json!([{"type": "reasoning.text", "text": "because", "signature": "S"}]);
    let call = json!({"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}});
    let messages = json!({"messages": [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": null, "reasoning_details": details, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "r"}]});
    let (same, losses) = translate("openai", "openai", &asking("openai", &messages), &full_caps()).unwrap();
    assert_eq!(same["messages"][1]["reasoning_content"], "because", "{same}");
    assert!(
        losses.iter().any(|loss| loss.path == "messages[1].reasoning_details" && loss.silent),
        "{losses:?}"
    );
}

#[test]
fn names_beside_a_choice_that_takes_none_are_told() {
    let chosen = json!({"tools": [{"functionDeclarations": [{"name": "f"}]}],
        "toolConfig": {"functionCallingConfig": {"mode": "AUTO", "allowedFunctionNames": ["f"]}}});
    let path: &[&str] = &["toolConfig.functionCallingConfig.allowedFunctionNames"];
    check(&[("gemini", chosen, "openai", "/tool_choice", json!("auto"), path)], &full_caps());
}

#[test]
fn tens_of_thousands_of_tools_calls_and_names_are_written_in_one_pass() {
    const MANY: usize = 40_000;
    let messages: Vec<Value> = std::iter::once(json!({"role": "user", "content": "a"}))
        .chain((0..MANY).map(|n| {
            json!({"role": "assistant", "content": null, "tool_calls": [
                {"id": format!("c{n}"), "type": "custom", "custom": {"name": format!("t {n}"), "input": "x"}}]})
        }))
        .chain((0..MANY).map(|n| json!({"role": "tool", "tool_call_id": format!("c{n}"), "content": "r"})))
        .collect();
    let tools: Vec<Value> =
        (0..MANY).map(|n| json!({"type": "custom", "custom": {"name": format!("t {n}")}})).collect();
    let allowed: Vec<Value> =
        (0..MANY).map(|n| json!({"type": "custom", "custom": {"name": format!("t {n}")}})).collect();
    let choice = json!({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": allowed}});
    let body = json!({"model": "m", "messages": messages, "tools": tools, "tool_choice": choice});
    let from = crate::support::dialect("openai");
    let request = crate::support::decode(from, &body.to_string()).unwrap();
    for to in omniroute_dialect::registry::DIALECTS.iter().copied() {
        let (request, _) = omniroute_dialect::shape::Shape::of(&request, from, to, &full_caps(), None);
        let sent = to.encode_request(&request, &full_caps()).unwrap();
        assert!(sent.body.len() > MANY * 20, "{}", to.id());
    }
}
