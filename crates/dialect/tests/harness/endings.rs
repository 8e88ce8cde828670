//! How answers end: cut off, withheld, broken off or refused, and what they are said to have used.

use omniroute_dialect::{
    Dialect, Head,
    ir::{FinishReason, Usage},
    registry::DIALECTS,
};
use serde_json::{Value, json};

use crate::support::{chunks, dialect, echo, events, named, pipe, run, stream};

/// A whole answer of each dialect in which a filter left nothing.
fn withheld() -> [(&'static str, Value); 4] {
    [
        (
            "openai",
            json!({"id": "c", "choices": [{"index": 0, "message": {"role": "assistant", "content": null},
                "finish_reason": "content_filter"}]}),
        ),
        (
            "responses",
            json!({"id": "resp_1", "status": "incomplete", "output": [],
                "incomplete_details": {"reason": "content_filter"}}),
        ),
        ("anthropic", json!({"id": "msg_1", "type": "message", "content": [], "stop_reason": "refusal"})),
        ("gemini", json!({"promptFeedback": {"blockReason": "SAFETY"}})),
    ]
}

#[test]
fn what_a_filter_left_nothing_of_is_an_answer() {
    for (upstream, body) in withheld() {
        let upstream = dialect(upstream);
        let body = body.to_string().into();
        let answer = upstream.decode_response(&body).unwrap();
        assert_eq!(answer.finish, Some(FinishReason::ContentFilter), "{}", upstream.id());
        assert!(answer.is_meaningful(), "{}", upstream.id());
        assert!(upstream.relay_response(&body, &echo()).unwrap().meaningful, "{}", upstream.id());
        for (client, place, word) in [
            ("openai", "/choices/0/finish_reason", "content_filter"),
            ("responses", "/incomplete_details/reason", "content_filter"),
            ("anthropic", "/stop_reason", "refusal"),
            ("gemini", "/candidates/0/finishReason", "SAFETY"),
            ("ollama", "/done_reason", "stop"),
        ] {
            let written = dialect(client).encode_response(&answer, &echo()).body;
            let written: Value = serde_json::from_slice(&written).unwrap();
            assert_eq!(
                written.pointer(place),
                Some(&json!(word)),
                "{} to {client}: {written}",
                upstream.id()
            );
        }
    }
}

#[test]
fn a_blocked_prompt_is_no_text_of_an_answer() {
    let gemini = dialect("gemini");
    let blocked = json!({"promptFeedback": {"blockReason": "SAFETY", "blockReasonMessage": "No."},
        "usageMetadata": {"promptTokenCount": 4, "totalTokenCount": 4}});
    let answer = gemini.decode_response(&blocked.to_string().into()).unwrap();
    let written = |client: &str| -> Value {
        serde_json::from_slice(&dialect(client).encode_response(&answer, &echo()).body).unwrap()
    };
    let message = written("anthropic");
    assert_eq!((&message["content"], &message["stop_reason"]), (&json!([]), &json!("refusal")));
    assert!(message["stop_details"]["explanation"].as_str().unwrap().contains("No."), "{message}");
    assert_eq!(
        (&message["usage"]["input_tokens"], &message["usage"]["output_tokens"]),
        (&json!(4), &json!(0))
    );
    let completion = &written("openai")["choices"][0]["message"];
    assert_eq!(completion["content"], Value::Null);
    assert!(completion["refusal"].as_str().unwrap().contains("No."), "{completion}");
    assert!(written("ollama")["message"]["content"].as_str().unwrap().contains("No."));
    assert_eq!(written("responses")["output"][0]["content"][0]["type"], "refusal");

    let stream = format!("data: {blocked}\n\n");
    let (out, _) = run(pipe(gemini, dialect("anthropic"), echo()), [stream.as_bytes()]);
    assert!(!out.contains("content_block_start") && out.contains("message_stop"), "{out}");
    assert!(out.contains(r#""stop_reason":"refusal""#) && out.contains("No."), "{out}");
    assert!(out.contains(r#""input_tokens":4"#), "{out}");
}

/// A whole answer of each dialect that says nothing of tokens.
fn uncounted() -> [(&'static str, Value); 5] {
    [
        (
            "openai",
            json!({"id": "c", "choices": [{"message": {"content": "12345"}, "finish_reason": "stop"}], "usage": null}),
        ),
        (
            "responses",
            json!({"id": "resp_1", "status": "completed", "output": [{"type": "message", "role": "assistant",
                "content": [{"type": "output_text", "text": "12345"}]}]}),
        ),
        (
            "anthropic",
            json!({"id": "msg_1", "content": [{"type": "text", "text": "12345"}], "stop_reason": "end_turn"}),
        ),
        (
            "gemini",
            json!({"candidates": [{"content": {"parts": [{"text": "12345"}]}, "finishReason": "STOP"}],
                "usageMetadata": {}}),
        ),
        ("ollama", json!({"message": {"content": "12345"}, "done": true, "done_reason": "stop"})),
    ]
}

#[test]
fn usage_is_supplied_where_an_upstream_does_not_count() {
    let estimate = Usage { input_uncached: Some(42), output_total: Some(2), ..Usage::default() };
    for (id, body) in uncounted() {
        let own = dialect(id);
        let body = body.to_string().into();
        let relayed = own.relay_response(&body, &echo()).unwrap();
        assert!(relayed.meaningful && !relayed.usage.is_known(), "{id}");
        let supplied = own.supply_usage(&relayed.body.to_bytes(), &estimate).to_bytes();
        let read = own.decode_response(&supplied).unwrap();
        assert_eq!((read.usage.input_total(), read.usage.output_total), (Some(42), Some(2)), "{id}");
        assert_eq!(
            own.supply_usage(&supplied, &Usage::default()).to_bytes(),
            supplied,
            "what is there stays"
        );

        // For clients of other dialects the writers estimate.
        let answer = own.decode_response(&body).unwrap();
        assert_eq!(answer.output_bytes(), 5);
        for client in DIALECTS {
            let written = client.encode_response(&answer, &echo()).body;
            let read = client.decode_response(&written).unwrap().usage;
            assert_eq!(
                (read.input_total(), read.output_total),
                (Some(42), Some(2)),
                "{id} to {}",
                client.id()
            );
        }
    }
    let queued = json!({"id": "resp_1", "status": "queued", "output": [], "usage": null}).to_string();
    let untouched = dialect("responses").supply_usage(&queued.clone().into(), &estimate).to_bytes();
    assert_eq!(untouched, queued, "what has not begun has used nothing");
}

/// A stream of Messages with a call of which the output limit left its name.
fn cut_off_call(stop_reason: &str, more: &[Value]) -> String {
    let mut sent = vec![
        json!({"type": "message_start", "message": {"id": "msg_1", "model": "m", "usage": {"input_tokens": 1}}}),
        json!({"type": "content_block_start", "index": 0,
            "content_block": {"type": "tool_use", "id": "toolu_1", "name": "wipe", "input": {}}}),
        json!({"type": "content_block_stop", "index": 0}),
    ];
    sent.extend_from_slice(more);
    sent.push(json!({"type": "message_delta", "delta": {"stop_reason": stop_reason}, "usage": {"output_tokens": 9}}));
    sent.push(json!({"type": "message_stop"}));
    named(&sent)
}

#[test]
fn a_call_without_arguments_is_none_where_the_limit_cut_the_answer_off() {
    let block = |block: Value| json!({"type": "content_block_start", "index": 1, "content_block": block});
    let text =
        [block(json!({"type": "text", "text": "x"})), json!({"type": "content_block_stop", "index": 1})];
    for (reason, more, is_call) in [
        ("max_tokens", &[][..], false),
        ("model_context_window_exceeded", &[][..], false),
        ("tool_use", &[][..], true),
        ("max_tokens", &text[..], true),
    ] {
        let input = cut_off_call(reason, more);
        for (client, whole_call) in [
            ("openai", r#""function":{"arguments":"{}"}"#),
            ("responses", r#""arguments":"{}","status":"completed""#),
            ("gemini", r#""name":"wipe","args":{}"#),
            ("ollama", r#""name":"wipe","arguments":{}"#),
        ] {
            let (out, watch) = stream("anthropic", client, &input);
            assert!(watch.complete);
            assert_eq!(out.contains(whole_call), is_call, "{client} at {reason}: {out}");
        }
    }
    // Where a call's arguments are a text, a whole call without any has an empty object.
    let call =
        json!({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "wipe", "arguments": ""}}]});
    for (reason, is_call) in [("length", false), ("tool_calls", true)] {
        let input =
            chunks(&[json!({"content": "x"}), call.clone(), json!({"finish": reason})]) + "data: [DONE]\n\n";
        for client in DIALECTS.iter().filter(|client| client.id().as_str() != "openai") {
            let (out, _) = stream("openai", client.id().as_str(), &input);
            assert_eq!(out.contains("wipe"), is_call, "{} at {reason}: {out}", client.id());
        }
    }
}

/// What each dialect says first, more of it, and how it says that it failed.
fn failures(from: &str) -> (String, String) {
    let lines = |documents: &[Value]| documents.iter().map(|one| format!("{one}\n")).collect::<String>();
    let data =
        |documents: &[Value]| documents.iter().map(|one| format!("data: {one}\n\n")).collect::<String>();
    match from {
        "openai" => (
            chunks(&[json!({"content": "par"})]),
            data(&[json!({"error": {"message": "busy", "code": 429}})]),
        ),
        "responses" => (
            named(&[
                json!({"type": "response.created", "response": {"id": "resp_1", "output": []}}),
                json!({"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "par"}),
            ]),
            named(&[json!({"type": "error", "code": "rate_limit_exceeded", "message": "busy"})]),
        ),
        "anthropic" => (
            named(&[
                json!({"type": "message_start", "message": {"id": "msg_1", "usage": {"input_tokens": 1}}}),
                json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
                json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "par"}}),
            ]),
            named(&[json!({"type": "error", "error": {"type": "rate_limit_error", "message": "busy"}})]),
        ),
        "gemini" => (
            data(&[json!({"candidates": [{"content": {"parts": [{"text": "par"}]}}]})]),
            data(&[json!({"error": {"code": 429, "message": "busy", "status": "RESOURCE_EXHAUSTED"}})]),
        ),
        "ollama" => (
            lines(&[json!({"message": {"content": "par"}, "done": false})]),
            lines(&[json!({"error": "busy", "status": 429})]),
        ),
        other => panic!("how does {other} fail?"),
    }
}

/// Nothing of a proper end in any dialect.
fn assert_no_end(out: &str, pair: &str) {
    for end in
        ["[DONE]", "message_stop", "response.completed", "response.incomplete", "\"STOP\"", "\"done\":true"]
    {
        assert!(!out.contains(end), "{pair}: {out}");
    }
}

#[test]
fn no_end_is_made_up_between_any_two_dialects() {
    for upstream in DIALECTS.iter().copied() {
        let (said, failure) = failures(upstream.id().as_str());
        for client in DIALECTS.iter().copied() {
            let pair = format!("{} to {}", upstream.id(), client.id());
            let through = |input: &str| run(pipe(upstream, client, echo()), [input.as_bytes()]);
            let (out, watch) = through(&said);
            assert!(out.contains("par") && !watch.complete, "{pair}: {out}");
            assert_no_end(&out, &pair);
            let error = watch.error.unwrap();
            assert_eq!((error.status, error.code.as_deref()), (Some(502), Some("upstream_stream_truncated")));

            let (out, watch) = through(&format!("{said}{failure}"));
            assert!(out.contains("par") && !out.contains("busy"), "{pair}: {out}");
            assert_no_end(&out, &pair);
            let error = watch.error.unwrap();
            assert_eq!((error.status, error.message.as_str()), (Some(429), "busy"), "{pair}");

            let (out, watch) = through(&failure);
            assert_eq!((out.as_str(), watch.meaningful), ("", false), "{pair}");
            assert_eq!(watch.error.unwrap().message, "busy", "{pair}");
        }
    }
}

#[test]
fn what_was_written_to_a_cache_for_an_hour_is_told_once_to_clients_of_all_dialects() {
    let input = named(&[
        json!({"type": "message_start", "message": {"id": "msg_1", "model": "m", "usage": {"input_tokens": 3,
            "cache_read_input_tokens": 0, "cache_creation_input_tokens": 100,
            "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 100}, "output_tokens": 1}}}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x"}}),
        json!({"type": "content_block_stop", "index": 0}),
        // Here the vendor does not tell how long it stays.
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"input_tokens": 3,
            "cache_read_input_tokens": 0, "cache_creation_input_tokens": 100, "output_tokens": 7}}),
        json!({"type": "message_stop"}),
    ]);
    for (client, place) in [
        ("openai", "/usage/prompt_tokens"),
        ("responses", "/response/usage/input_tokens"),
        ("gemini", "/usageMetadata/promptTokenCount"),
        ("ollama", "/prompt_eval_count"),
    ] {
        let (out, watch) = stream("anthropic", client, &input);
        assert_eq!((watch.usage.cache_write, watch.usage.cache_write_1h), (Some(0), Some(100)), "{client}");
        let documents = match client {
            "ollama" => out.lines().map(|line| serde_json::from_str(line).unwrap()).collect(),
            _ => events(&out),
        };
        let told: Vec<&Value> = documents.iter().filter_map(|event| event.pointer(place)).collect();
        assert_eq!(told, [103], "{client}: {out}");
    }
    let (_, watch) = stream("anthropic", "anthropic", &input);
    assert_eq!(watch.usage.input_total(), Some(103));
}

#[test]
fn whoever_only_counts_need_not_name_a_model() {
    let headers = http::HeaderMap::new();
    let head = Head { headers: &headers, path: "", query: None };
    for (id, body) in [
        ("anthropic", r#"{"messages":[{"role":"user","content":"hi"}]}"#),
        ("responses", r#"{"input":"hi"}"#),
    ] {
        let own: &dyn Dialect = dialect(id);
        assert_eq!(own.decode_count(head, &body.into()).unwrap().model, "", "{id}");
        assert!(own.decode_request(head, &body.into()).is_err(), "{id}");
    }
}
