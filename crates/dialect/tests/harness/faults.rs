//! Faults that gateways are known for, each as a test that would fail with it.

use bytes::Bytes;
use http::{HeaderMap, header::ACCEPT};
use omniroute_dialect::{Caps, Head, ir::BlockKind};
use serde_json::{Value, json};

use crate::support::{
    chunks, decode, dialect, echo, events, fixture, named, pipe, run, stream, told, translate,
};

fn tool_delta(index: u32, id: Option<&str>, name: Option<&str>, arguments: &str) -> Value {
    json!({"tool_calls": [{"index": index, "id": id, "function": {"name": name, "arguments": arguments}}]})
}

fn message_start() -> Value {
    json!({"type": "message_start", "message": {"id": "msg_1", "type": "message", "role": "assistant", "model": "m",
        "content": [], "stop_reason": null, "usage": {"input_tokens": 5, "output_tokens": 1}}})
}

fn tool_use(index: u32, id: &str, arguments: &[&str]) -> Vec<Value> {
    let mut events = vec![json!({"type": "content_block_start", "index": index,
        "content_block": {"type": "tool_use", "id": id, "name": "f", "input": {}}})];
    events.extend(arguments.iter().map(|text| {
        json!({"type": "content_block_delta", "index": index,
            "delta": {"type": "input_json_delta", "partial_json": text}})
    }));
    events.push(json!({"type": "content_block_stop", "index": index}));
    events
}

fn message_end(reason: &str) -> Vec<Value> {
    vec![
        json!({"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": null},
            "usage": {"output_tokens": 9}}),
        json!({"type": "message_stop"}),
    ]
}

/// The calls that a Messages client puts together: id, name, arguments.
fn messages_calls(out: &str) -> Vec<(String, String, String)> {
    let mut calls: Vec<(String, String, String)> = Vec::new();
    let mut open = None;
    for event in events(out) {
        match event["type"].as_str() {
            Some("content_block_start") => {
                assert_eq!(open, None, "one block at a time");
                open = event["index"].as_u64();
                let block = &event["content_block"];
                if block["type"] == "tool_use" {
                    assert_eq!(block["input"], json!({}), "the start of a call has an input");
                    let text = |name: &str| block[name].as_str().unwrap().to_owned();
                    calls.push((text("id"), text("name"), String::new()));
                }
            }
            Some("content_block_delta") => {
                assert_eq!(open, event["index"].as_u64(), "deltas belong to the open block");
                if let Some(text) = event["delta"]["partial_json"].as_str() {
                    calls.last_mut().unwrap().2.push_str(text);
                }
            }
            Some("content_block_stop") => assert_eq!(open.take(), event["index"].as_u64()),
            _ => {}
        }
    }
    calls
}

#[test]
fn f1_parallel_calls_have_indices_of_their_own() {
    let mut input = vec![message_start()];
    input.extend(tool_use(0, "toolu_1", &["{\"x\":", "1}"]));
    input.extend(tool_use(1, "toolu_2", &["{}"]));
    input.extend(message_end("tool_use"));
    let (out, _) = stream("anthropic", "openai", &named(&input));
    let mut indices = Vec::new();
    for event in events(&out) {
        if let Some(call) = event["choices"][0]["delta"]["tool_calls"].get(0) {
            indices.push((call["index"].as_u64().unwrap(), call["id"].as_str().map(str::to_owned)));
        }
    }
    assert_eq!(
        indices,
        [(0, Some("toolu_1".to_owned())), (0, None), (0, None), (1, Some("toolu_2".to_owned())), (1, None)]
    );
}

#[test]
fn f2_f3_parallel_and_interleaved_calls_become_blocks_one_after_the_other() {
    let same_index = chunks(&[
        tool_delta(0, Some("a"), Some("f"), "{\"x\":1}"),
        tool_delta(0, Some("b"), Some("g"), "{\"y\":2}"),
        json!({"finish": "tool_calls"}),
    ]);
    let interleaved = chunks(&[
        tool_delta(0, Some("a"), Some("f"), "{\"x\":"),
        tool_delta(1, Some("b"), Some("g"), "{\"y\":"),
        tool_delta(0, None, None, "1}"),
        tool_delta(1, None, None, "2}"),
        json!({"finish": "tool_calls"}),
    ]);
    for input in [same_index, interleaved] {
        let (out, _) = stream("openai", "anthropic", &input);
        let expected = [("a", "f", "{\"x\":1}"), ("b", "g", "{\"y\":2}")];
        assert_eq!(
            messages_calls(&out),
            expected.map(|(id, name, text)| (id.into(), name.into(), text.into()))
        );
    }
}

#[test]
fn f4_f6_an_id_on_every_piece_is_one_call_and_a_late_name_is_waited_for() {
    let input = chunks(&[
        tool_delta(0, Some("a"), Some(""), ""),
        tool_delta(0, Some("a"), Some("f"), ""),
        tool_delta(0, Some("a"), Some("f"), "{"),
        tool_delta(0, Some("a"), Some("f"), "}"),
        json!({"finish": "tool_calls"}),
    ]);
    let (out, _) = stream("openai", "anthropic", &input);
    assert_eq!(messages_calls(&out), [("a".into(), "f".into(), "{}".into())]);
}

#[test]
fn f8_a_call_without_arguments_has_an_empty_object_and_empty_strings_stay() {
    let mut input = vec![message_start()];
    input.extend(tool_use(0, "toolu_1", &[]));
    input.extend(tool_use(1, "toolu_2", &["{\"pages\":\"\"}"]));
    input.extend(message_end("tool_use"));
    let (out, _) = stream("anthropic", "openai", &named(&input));
    let mut arguments = [String::new(), String::new()];
    for event in events(&out) {
        if let Some(call) = event["choices"][0]["delta"]["tool_calls"].get(0) {
            let index = usize::try_from(call["index"].as_u64().unwrap()).unwrap();
            arguments[index].push_str(call["function"]["arguments"].as_str().unwrap());
        }
    }
    assert_eq!(arguments, ["{}", "{\"pages\":\"\"}"]);
}

#[test]
fn f9_an_empty_list_of_calls_is_nothing() {
    let input = chunks(&[
        json!({"content": "a", "tool_calls": []}),
        json!({"content": "b", "tool_calls": null}),
        json!({"finish": "stop"}),
    ]);
    let (out, _) = stream("openai", "anthropic", &input);
    assert!(messages_calls(&out).is_empty() && !out.contains("input_json_delta"));
}

#[test]
fn f10_f11_usage_behind_the_finish_counts_and_input_is_never_zero() {
    let input = chunks(&[
        json!({"content": "a"}),
        json!({"finish": "stop"}),
        json!({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}),
    ]);
    let (out, watch) = stream("openai", "anthropic", &input);
    assert_eq!((watch.usage.input_total(), watch.usage.output_total), (Some(7), Some(3)));
    let seen = events(&out);
    assert_eq!(seen[0]["message"]["usage"]["input_tokens"], 42);
    let delta = seen.iter().find(|event| event["type"] == "message_delta").unwrap();
    assert_eq!((&delta["usage"]["input_tokens"], &delta["usage"]["output_tokens"]), (&json!(7), &json!(3)));
}

#[test]
fn f12_f14_a_reported_zero_stays_and_cache_tokens_count_once() {
    let body = json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "m",
        "content": [{"type": "text", "text": "x"}], "stop_reason": "end_turn", "stop_sequence": null,
        "usage": {"input_tokens": 10, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 5, "output_tokens": 2}});
    let response = dialect("anthropic").decode_response(&body.to_string().into()).unwrap();
    let out = dialect("openai").encode_response(&response, &echo()).body;
    let out: Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(
        out["usage"],
        json!({"prompt_tokens": 15, "completion_tokens": 2, "total_tokens": 17,
            "prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 5}})
    );
}

#[test]
fn f13_the_usage_chunk_has_no_choices_and_comes_only_when_asked_for() {
    let mut input = vec![message_start()];
    input.extend(message_end("end_turn"));
    let input = named(&input);
    let (out, _) = stream("anthropic", "openai", &input);
    let seen = events(&out);
    let with_usage: Vec<_> = seen.iter().filter(|event| event["usage"].is_object()).collect();
    assert_eq!(with_usage.len(), 1);
    assert_eq!(with_usage[0]["choices"], json!([]));
    let mut echo = echo();
    echo.include_usage = false;
    let (out, _) = run(pipe(dialect("anthropic"), dialect("openai"), echo), [input.as_bytes()]);
    assert!(!out.contains("usage"));
}

#[test]
fn f24_results_follow_their_calls_in_order() {
    let body = json!({"model": "m", "max_tokens": 9, "messages": [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": [
            {"type": "tool_use", "id": "t1", "name": "f", "input": {}},
            {"type": "tool_use", "id": "t2", "name": "f", "input": {}},
            {"type": "tool_use", "id": "t3", "name": "f", "input": {}}]},
        {"role": "user", "content": [
            {"type": "text", "text": "wait"}, {"type": "tool_result", "tool_use_id": "t2", "content": "2"}]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "t1", "content": "1"},
            {"type": "tool_result", "tool_use_id": "t9", "content": "9"}]}],
        "tools": [{"name": "f", "input_schema": {"type": "object"}}]});
    let (out, losses) = translate("anthropic", "openai", &body, &Caps::permissive()).unwrap();
    let short: Vec<String> = out["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| {
            let text = |name: &str| message[name].as_str().unwrap_or("-").to_owned();
            format!("{} {} {}", text("role"), text("tool_call_id"), text("content"))
        })
        .collect();
    assert_eq!(
        short,
        [
            "user - a",
            "assistant - -",
            "tool t1 1",
            "tool t2 2",
            "tool t3 Error: tool call was not executed",
            "user - wait",
            "user - [tool result t9] 9",
        ]
    );
    assert_eq!(told(&losses).len(), 2, "{losses:?}");

    let body = json!({"model": "m", "messages": [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": null, "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
            {"id": "c2", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "c2", "content": "2"},
        {"role": "user", "content": "and"},
        {"role": "tool", "tool_call_id": "c1", "content": "1"}],
        "tools": [{"type": "function", "function": {"name": "f"}}]});
    let (out, _) = translate("openai", "anthropic", &body, &Caps::permissive()).unwrap();
    let content = out["messages"][2]["content"].as_array().unwrap();
    assert_eq!((&content[0]["tool_use_id"], &content[1]["tool_use_id"]), (&json!("c1"), &json!("c2")));
    assert_eq!(content[2]["text"], "and");
}

#[test]
fn a_call_without_a_result_at_the_end_is_refused() {
    let body = json!({"model": "m", "max_tokens": 9, "messages": [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "f", "input": {}}]}],
        "tools": [{"name": "f", "input_schema": {"type": "object"}}]});
    let error = translate("anthropic", "openai", &body, &Caps::permissive()).unwrap_err();
    assert_eq!((error.code, error.param.as_deref()), ("unpaired_tool_call", Some("messages[1]")));
}

#[test]
fn f26_characters_survive_any_cut() {
    let body = fixture("openai", "plain", "stream.sse");
    let (out, _) = run(pipe(dialect("openai"), dialect("anthropic"), echo()), body.chunks(1));
    assert!(out.contains('👋') && !out.contains('\u{fffd}'));
}

#[test]
fn f30_system_text_is_neither_hoisted_nor_first_in_the_conversation() {
    let body = json!({"model": "m", "max_tokens": 9, "system": "S1", "messages": [
        {"role": "user", "content": "a"}, {"role": "system", "content": "S2"}, {"role": "user", "content": "b"}]});
    let (out, _) = translate("anthropic", "openai", &body, &Caps::permissive()).unwrap();
    let roles: Vec<_> = out["messages"].as_array().unwrap().iter().map(|message| &message["role"]).collect();
    assert_eq!(roles, ["system", "user", "system", "user"]);
}

#[test]
fn f36_streams_are_asked_for_explicitly() {
    let chat =
        Bytes::from_static(br#"{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"a"}]}"#);
    for id in ["openai", "anthropic"] {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, "text/event-stream, application/json".parse().unwrap());
        let head = Head { headers: &headers, path: "", query: None };
        assert!(!dialect(id).envelope(head, &chat).unwrap().stream);
    }
}

#[test]
fn f37_chat_streams_have_no_fields_but_data() {
    for case in ["plain", "tools", "reasoning", "refusal"] {
        let body = fixture("openai", case, "stream.sse");
        let (out, _) = run(pipe(dialect("openai"), dialect("openai"), echo()), [&body[..]]);
        assert!(out.lines().all(|line| line.is_empty() || line.starts_with("data:")), "{out}");
    }
    let body = fixture("anthropic", "tools", "stream.sse");
    let (out, _) = run(pipe(dialect("anthropic"), dialect("openai"), echo()), [&body[..]]);
    assert!(out.lines().all(|line| line.is_empty() || line.starts_with("data:")), "{out}");
}

#[test]
fn f39_blank_text_is_left_out_where_it_is_refused() {
    let body = json!({"model": "m", "messages": [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "", "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}}]},
        {"role": "tool", "tool_call_id": "c1", "content": ""},
        {"role": "user", "content": " "}],
        "tools": [{"type": "function", "function": {"name": "f"}}]});
    let (out, _) = translate("openai", "anthropic", &body, &Caps::permissive()).unwrap();
    let blocks = out["messages"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|message| message["content"].as_array().cloned().unwrap_or_default());
    for block in blocks {
        assert_ne!(block["text"].as_str().map(str::trim), Some(""), "{out}");
    }
    assert_eq!(out["messages"][1]["content"][0]["input"], json!({}));
}

#[test]
fn f32_an_error_in_a_stream_is_noted_and_not_written() {
    let chat = chunks(&[json!({"error": {"message": "busy", "code": 429}})]);
    let messages =
        named(&[json!({"type": "error", "error": {"type": "overloaded_error", "message": "busy"}})]);
    for (upstream, input) in [("openai", chat), ("anthropic", messages)] {
        for client in ["openai", "anthropic"] {
            let (out, watch) = stream(upstream, client, &input);
            assert_eq!((out.as_str(), watch.meaningful), ("", false));
            assert_eq!(watch.error.unwrap().message, "busy");
        }
    }
}

#[test]
fn what_would_change_the_meaning_is_refused() {
    let with = |member: &str, value: Value| {
        let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "a"}]});
        body[member] = value;
        body
    };
    for (body, code, param) in [
        (with("n", json!(2)), "unsupported_parameter", "n"),
        (with("logprobs", json!(true)), "unsupported_parameter", "logprobs"),
        (with("logit_bias", json!({"50256": -100})), "unsupported_parameter", "logit_bias"),
        (
            with(
                "messages",
                json!([{"role": "user", "content": [
                {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}]}]),
            ),
            "unsupported_content",
            "messages[0]",
        ),
        (
            with(
                "messages",
                json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": "pre"}]),
            ),
            "unsupported_prefill",
            "messages[1]",
        ),
    ] {
        let error = translate("openai", "anthropic", &body, &Caps::permissive()).unwrap_err();
        assert_eq!(error.code, code, "{error:?}");
        assert!(error.param.as_deref().is_some_and(|found| found.starts_with(param)), "{error:?}");
    }
    let blind = Caps { vision: false, pdf: false, ..Caps::permissive() };
    let image = json!({"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}});
    let body = json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": [image]}]});
    let error = translate("anthropic", "openai", &body, &blind).unwrap_err();
    let param = Some("messages[0].content[0]");
    assert_eq!((error.code, error.param.as_deref()), ("unsupported_content", param));
}

#[test]
fn f5_streams_beside_each_other_share_nothing() {
    let inputs = [
        chunks(&[tool_delta(0, Some("a"), Some("f"), "{\"x\":1}"), json!({"finish": "tool_calls"})]),
        chunks(&[json!({"content": "b"}), json!({"finish": "stop"})]),
    ];
    let alone = inputs.each_ref().map(|input| stream("openai", "anthropic", input).0);
    let mut pipes = [(); 2].map(|()| pipe(dialect("openai"), dialect("anthropic"), echo()));
    let mut outs = [(); 2].map(|()| bytes::BytesMut::new());
    let longest = inputs.iter().map(String::len).max().unwrap();
    for at in 0..longest {
        for ((pipe, out), input) in pipes.iter_mut().zip(&mut outs).zip(&inputs) {
            if let Some(byte) = input.as_bytes().get(at..=at) {
                pipe.push(byte, out).unwrap();
            }
        }
    }
    for (((mut pipe, mut out), alone), input) in pipes.into_iter().zip(outs).zip(alone).zip(&inputs) {
        pipe.finish(&mut out).unwrap();
        assert_eq!(std::str::from_utf8(&out).unwrap(), alone, "{input}");
    }
}

#[test]
fn f15_thoughts_of_gemini_are_among_the_tokens_of_the_answer() {
    let answer = json!({"candidates": [{"content": {"parts": [{"text": "a"}], "role": "model"}, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": 5, "thoughtsTokenCount": 7, "totalTokenCount": 22}});
    let response = dialect("gemini").decode_response(&answer.to_string().into()).unwrap();
    for (client, place) in [
        ("openai", "/usage/completion_tokens"),
        ("responses", "/usage/output_tokens"),
        ("anthropic", "/usage/output_tokens"),
        ("ollama", "/eval_count"),
    ] {
        let body = dialect(client).encode_response(&response, &echo()).body;
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body.pointer(place), Some(&json!(12)), "{client}: {body}");
    }
}

#[test]
fn f19_encrypted_reasoning_goes_to_no_other_account() {
    let body = json!({"model": "m", "input": [{"role": "user", "content": "a"},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "b"}]});
    for (account, sent) in [("mine", true), ("another", false)] {
        let mut request = decode(dialect("responses"), &body.to_string()).unwrap();
        for block in request.turns.iter_mut().flat_map(|turn| &mut turn.blocks) {
            if let BlockKind::Thinking { signature: Some(signature), .. } = &mut block.kind {
                signature.account = Some("mine".to_owned());
            }
        }
        request.reader.account = Some(account.to_owned());
        let out = dialect("responses").encode_request(&request, &Caps::permissive()).unwrap().body;
        let out = std::str::from_utf8(&out).unwrap();
        assert_eq!(out.contains("gAAA"), sent, "{account}: {out}");
        assert!(out.contains("function_call_output"), "{out}");
    }
}

/// The names of tests in a folder's sources that begin with the number of a fault.
fn numbered_tests(folder: &std::path::Path, found: &mut std::collections::BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            numbered_tests(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let names = text.lines().filter_map(|line| line.trim_start().strip_prefix("fn f"));
            let numbered = names.filter(|rest| rest.starts_with(|first: char| first.is_ascii_digit()));
            found.extend(numbered.map(|rest| format!("f{}", rest.split('(').next().unwrap_or_default())));
        }
    }
}

#[test]
fn the_list_of_faults_names_the_tests_that_there_are() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut there = std::collections::BTreeSet::new();
    for folder in ["src", "tests"] {
        numbered_tests(&root.join(folder), &mut there);
    }
    let list = std::fs::read_to_string(root.join("tests/faults.md")).unwrap();
    let mut listed = std::collections::BTreeSet::new();
    let rows = list.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| |"));
    for (at, row) in rows.enumerate() {
        let [number, _, tests] = row.trim_matches('|').splitn(3, '|').collect::<Vec<_>>()[..] else {
            panic!("not a row of three: {row}");
        };
        assert_eq!(number.trim().parse(), Ok(at + 1), "{row}");
        let names = tests.split('`').filter(|name| name.starts_with('f')).map(str::to_owned);
        let before = listed.len();
        listed.extend(names.clone());
        assert!(names.clone().count() > 0 && names.clone().all(|name| there.contains(&name)), "{row}");
        // Some tests are about two faults.
        assert!(
            listed.len() > before || names.into_iter().all(|name| name.matches("_f").count() > 0),
            "{row}"
        );
    }
    assert_eq!(listed, there, "the tests, and the list in tests/faults.md");
}
