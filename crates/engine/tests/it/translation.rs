//! Clients and upstreams of different dialects.

use omniroute_dialect::{anthropic::Anthropic, ir::LossAction, ollama::Ollama, openai::OpenAi};
use omniroute_domain::entity::NodeType;
use omniroute_provider::ProviderId;
use omniroute_testkit::{Answer, sse};

use crate::world::{END, World, answer, chunk, connection, node, stream};

const MESSAGES: &str =
    r#"{"model":"up/m","max_tokens":64,"messages":[{"role":"user","content":"hi"}],"top_k":5}"#;

#[tokio::test(start_paused = true)]
async fn an_anthropic_client_meets_an_openai_upstream() {
    let world = World::new();
    world.transport.answer(answer("Hello"));
    let got = world.messages(MESSAGES).await;
    assert_eq!(got.status, 200, "{}", got.body);
    assert!(
        got.body.contains("\"type\":\"message\"") && got.body.contains("\"text\":\"Hello\""),
        "{}",
        got.body
    );
    assert!(
        got.body.contains("\"model\":\"up/m\"") && got.body.contains("\"input_tokens\":3"),
        "{}",
        got.body
    );
    assert_eq!(got.header("request-id"), got.header("x-request-id"));
    assert_eq!(got.header("x-omniroute-dropped"), "top_k");
    assert!(
        got.header("x-omniroute-fidelity").contains("dropped=1"),
        "{}",
        got.header("x-omniroute-fidelity")
    );
    let sent = String::from_utf8(world.transport.sent()[0].body.to_vec()).unwrap();
    assert!(sent.contains("\"messages\"") && !sent.contains("top_k"), "{sent}");
    assert_eq!(world.row().losses.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn in_a_stream_too() {
    let world = World::new();
    world.transport.answer(stream().send(chunk("Hel")).send(chunk("lo")).send(END));
    let got = world.messages(&MESSAGES.replace("\"top_k\":5", "\"stream\":true")).await;
    let events: Vec<_> =
        sse::events(got.body.as_bytes()).into_iter().filter_map(|event| event.name).collect();
    assert_eq!(events.first().map(String::as_str), Some("message_start"), "{}", got.body);
    assert_eq!(events.last().map(String::as_str), Some("message_stop"), "{}", got.body);
    assert!(got.body.contains("\"text\":\"Hel\"") && got.body.contains("\"text\":\"lo\""), "{}", got.body);
}

#[tokio::test(start_paused = true)]
async fn what_a_stream_loses_is_in_its_row() {
    let search = r#"{"type":"server_tool_use","id":"srvtoolu_1","name":"web_search","input":{"query":"q"}}"#;
    let found = r#"{"type":"web_search_tool_result","tool_use_id":"srvtoolu_1","content":[]}"#;
    let code = r#"{"type":"code_execution_tool_result","tool_use_id":"srvtoolu_2","content":{}}"#;
    let mut beginning = r#"data: {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","content":[],"model":"m","usage":{"input_tokens":3,"output_tokens":1}}}"#.to_owned();
    for (at, block) in [search, found, code, r#"{"type":"text","text":"Hello"}"#].into_iter().enumerate() {
        beginning.push_str(&format!(
            "\n\ndata: {{\"type\":\"content_block_start\",\"index\":{at},\"content_block\":{block}}}\n\n\
             data: {{\"type\":\"content_block_stop\",\"index\":{at}}}"
        ));
    }
    beginning.push_str("\n\n");
    let end = "data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":2}}\n\n\
               data: {\"type\":\"message_stop\"}\n\n";
    // One that breaks off loses the same until then.
    for end in [end, ""] {
        let world = World::new();
        world.transport.answer(stream().send(beginning.clone()).send(end));
        let body = r#"{"model":"anth/m","stream":true,"messages":[{"role":"user","content":"hi"}]}"#;
        let got = world.chat(body).await;
        assert!(got.body.contains("\"content\":\"Hello\""), "{}", got.body);
        let row = world.row();
        let lost: Vec<_> = row.losses.iter().map(|loss| (loss.path.as_ref(), loss.action)).collect();
        assert!(lost.contains(&("content[2]", LossAction::Dropped)), "{lost:?}");
        assert!(lost.contains(&("content[0]", LossAction::Dropped)), "{lost:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_openai_client_meets_an_anthropic_upstream() {
    let world = World::new();
    world.transport.answer(Answer::json(
        200,
        r#"{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[{"type":"text","text":"Hello"}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":3,"output_tokens":2}}"#,
    ));
    let got = world.chat(r#"{"model":"anth/m","messages":[{"role":"user","content":"hi"}]}"#).await;
    assert_eq!(got.status, 200, "{}", got.body);
    assert!(
        got.body.contains("\"content\":\"Hello\"") && got.body.contains("\"model\":\"anth/m\""),
        "{}",
        got.body
    );
    let sent = &world.transport.sent()[0];
    assert_eq!(sent.headers.get("x-api-key").unwrap(), "upstream-key-of-only");
    assert!(sent.headers.get("anthropic-version").is_some());
    assert_eq!(sent.uri.path(), "/v1/messages");
}

#[tokio::test(start_paused = true)]
async fn the_fast_tier_is_a_speed_with_a_header_and_a_price_of_its_own() {
    for (model, fast) in [("claude-opus-5-5", true), ("claude-sonnet-5-5", false)] {
        let provider = ProviderId::from("anthropic");
        let claude = connection("c9", &provider, "claude", 1);
        let world = World::with(|entities| entities.connections.push(claude), |_| {});
        let speed = if fast { r#","speed":"fast""# } else { "" };
        world.transport.answer(Answer::json(
            200,
            format!(
                r#"{{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[{{"type":"text","text":"Hello"}}],"stop_reason":"end_turn","stop_sequence":null,"usage":{{"input_tokens":1000,"output_tokens":1000{speed}}}}}"#
            ),
        ));
        let body = format!(
            r#"{{"model":"anthropic/{model}","service_tier":"fast","messages":[{{"role":"user","content":"hi"}}]}}"#
        );
        let got = world.chat(&body).await;
        assert_eq!(got.status, 200, "{}", got.body);
        let sent = &world.transport.sent()[0];
        let asked = String::from_utf8(sent.body.to_vec()).unwrap();
        assert_eq!(asked.contains(r#""speed":"fast""#), fast, "{asked}");
        let betas = sent.headers.get("anthropic-beta").map_or("", |value| value.to_str().unwrap());
        assert_eq!(betas.contains("fast-mode-2026-02-01"), fast, "{betas}");
        assert_eq!(asked.contains(r#""service_tier":"auto""#), !fast, "{asked}");
        assert!(got.header("x-omniroute-fidelity").contains("mapped=1"), "a tier of another name");
        assert_eq!(got.body.contains(r#""service_tier":"fast""#), fast, "{}", got.body);
        // 1000 tokens at 4 and 1000 at 20 USD per million, twice.
        assert_eq!(world.row().cost_nano == Some(48_000_000), fast, "{:?}", world.row().cost_nano);
    }
}

#[tokio::test(start_paused = true)]
async fn strict_clients_are_refused_what_would_be_lost() {
    let world = World::new();
    let got = world.send(&Anthropic, MESSAGES, &[("x-omniroute-strict", "true")]).await;
    assert_eq!(got.status, 400, "{}", got.body);
    assert!(got.body.contains("top_k"), "{}", got.body);
    assert_eq!(world.transport.sent().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn so_are_those_whose_key_is_strict() {
    let world = World::with(|entities| entities.api_keys[0].strict = true, |_| {});
    let bearer = ("authorization", "Bearer sk-omni-test");
    let got = world.send(&Anthropic, MESSAGES, &[bearer]).await;
    assert!(got.status == 400 && got.body.contains("top_k"), "{}", got.body);
    assert_eq!(world.transport.sent().len(), 0);
    // What is only recorded refuses nothing.
    world.transport.answer(answer("Hello"));
    let got = world.send(&Anthropic, &MESSAGES.replace(",\"top_k\":5", ""), &[bearer]).await;
    assert_eq!(got.status, 200, "{}", got.body);
}

#[tokio::test(start_paused = true)]
async fn errors_come_in_the_clients_dialect() {
    let world = World::new();
    world.transport.answer(crate::world::refusal(400, "invalid_request_error", "no good"));
    let got = world.messages(MESSAGES).await;
    assert_eq!(got.status, 400);
    assert!(got.body.starts_with("{\"type\":\"error\",\"error\":{"), "{}", got.body);
    assert!(got.body.contains("[up/m] no good"), "{}", got.body);
    world.transport.answer(Answer::json(
        529,
        r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#,
    ));
    world.transport.answer(Answer::json(
        529,
        r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#,
    ));
    let got =
        world.send(&OpenAi, r#"{"model":"anth/m","messages":[{"role":"user","content":"hi"}]}"#, &[]).await;
    assert_eq!(got.status, 503, "{}", got.body);
    assert!(got.body.contains("\"param\":null"), "{}", got.body);
}

#[tokio::test(start_paused = true)]
async fn statuses_of_upstreams_are_kept_or_said_in_the_next_word() {
    let too_large = r#"{"error":{"type":"request_too_large","message":"Request exceeds the maximum size"}}"#;
    let too_long = r#"{"error":{"type":"tokens","code":"rate_limit_exceeded","message":"Request too large for model m"}}"#;
    let plain = "<html><body>no</body></html>";
    for (status, body, to_openai, to_anthropic, code) in [
        (413, too_large, 413, 413, "request_too_large"),
        (413, plain, 413, 413, "request_too_large"),
        (413, too_long, 400, 400, "context_length_exceeded"),
        (422, plain, 422, 422, "bad_request"),
        (500, plain, 500, 500, "internal_server_error"),
        (521, plain, 502, 502, "bad_gateway"),
        (524, plain, 504, 504, "gateway_timeout"),
        (529, plain, 503, 529, "service_unavailable"),
    ] {
        let world = World::new();
        (0..6).for_each(|_| _ = world.transport.answer(Answer::json(status, body)));
        let got = world.chat(r#"{"model":"up/m","messages":[{"role":"user","content":"hi"}]}"#).await;
        assert_eq!(got.status, to_openai, "{status} {body}: {}", got.body);
        assert!(got.body.contains(code), "{status} {body}: {}", got.body);
        let world = World::new();
        (0..6).for_each(|_| _ = world.transport.answer(Answer::json(status, body)));
        assert_eq!(world.messages(MESSAGES).await.status, to_anthropic, "{status} {body}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_within_a_success_keeps_its_status() {
    let world = World::new();
    world.transport.answer(Answer::json(
        200,
        r#"{"error":{"message":"too fast","type":"rate_limit_error","code":429}}"#,
    ));
    world.transport.answer(answer("Hello"));
    assert_eq!(world.messages(MESSAGES).await.status, 200);
    assert_eq!(world.row().attempts[0].failure, Some("rate_limit"));
}

#[tokio::test(start_paused = true)]
async fn long_prompts_are_marked_for_the_cache_as_the_operator_wants_it() {
    let mark = r#""cache_control":{"type":"ephemeral"}"#;
    let ask = |dialect_members: &str, text: &str| {
        format!(
            r#"{{"model":"anthropic/claude-opus-4-6",{dialect_members}"messages":[{{"role":"user","content":"{text}"}}]}}"#
        )
    };
    let long = "a long prompt ".repeat(2_000);
    for (auto_cache, marked) in [(true, true), (false, false)] {
        let world = World::with(
            |entities| {
                entities.connections.push(connection("a1", &"anthropic".into(), "vendor", 1));
                entities.settings.auto_cache = auto_cache;
            },
            |_| {},
        );
        let answer = || {
            omniroute_testkit::Answer::json(
                200,
                r#"{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[{"type":"text","text":"x"}],"stop_reason":"end_turn","usage":{"input_tokens":1,"output_tokens":1}}"#,
            )
        };
        for _ in 0..3 {
            world.transport.answer(answer());
        }
        assert_eq!(world.chat(&ask("", &long)).await.status, 200);
        assert_eq!(world.chat(&ask("", "a short one")).await.status, 200);
        assert_eq!(world.messages(&ask(r#""max_tokens":9,"#, &long)).await.status, 200);
        let sent = world.transport.sent();
        let has_mark = |at: usize| contains(&sent[at].body, mark.as_bytes());
        assert_eq!([has_mark(0), has_mark(1), has_mark(2)], [marked, false, false], "autoCache {auto_cache}");
    }
}

fn contains(body: &[u8], wanted: &[u8]) -> bool {
    body.windows(wanted.len()).any(|window| window == wanted)
}

#[tokio::test(start_paused = true)]
async fn a_role_that_only_the_vendors_own_servers_know_is_renamed_for_others() {
    let world = World::new();
    world.transport.answer(answer("Hello"));
    let body = r#"{"model":"up/m", "messages":[{"role":"developer","content":"Be brief."},{"role":"user","content":"developer"}],"top_p":1.0}"#;
    assert_eq!(world.chat(body).await.status, 200);
    let sent = String::from_utf8(world.transport.sent()[0].body.to_vec()).unwrap();
    assert_eq!(sent, body.replace("up/m", "m").replace(r#""role":"developer""#, r#""role":"system""#));
}

#[tokio::test(start_paused = true)]
async fn a_body_of_the_vendors_other_dialect_is_answered_in_the_one_of_its_path() {
    let body = r#"{"model":"up/m","instructions":"Be brief.","input":[{"role":"user","content":[{"type":"input_text","text":"hi"}]}]"#;
    let world = World::new();
    world.transport.answer(answer("Hello"));
    let got = world.chat(&format!("{body}}}")).await;
    assert!(got.status == 200 && got.body.contains(r#""object":"chat.completion""#), "{}", got.body);
    let sent: serde_json::Value = serde_json::from_slice(&world.transport.sent()[0].body).unwrap();
    assert_eq!(
        sent["messages"],
        serde_json::json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}])
    );
    world.transport.answer(stream().send(chunk("Hel")).send(END));
    let got = world.chat(&format!(r#"{body},"stream":true}}"#)).await;
    assert!(got.body.ends_with("data: [DONE]\n\n") && got.body.contains("Hel"), "{}", got.body);
    // Upstreams of other dialects too.
    world.transport.answer(Answer::json(
        200,
        r#"{"id":"msg_1","content":[{"type":"text","text":"Hi"}],"stop_reason":"end_turn","usage":{"input_tokens":3,"output_tokens":2}}"#,
    ));
    let got = world.chat(&format!("{}}}", body.replace("up/m", "anth/m"))).await;
    assert!(got.body.contains(r#""content":"Hi""#), "{}", got.body);
    let named = format!(r#"{body},"previous_response_id":"resp_1"}}"#);
    let got = world.chat(&named).await;
    assert!(got.status == 400 && got.body.contains("/v1/responses"), "{}", got.body);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_only_warms_a_cache_is_for_upstreams_of_its_dialect() {
    let ask = |model: &str, more: &str| {
        format!(r#"{{"model":"{model}","max_tokens":0,"messages":[{{"role":"user","content":"hi"}}]{more}}}"#)
    };
    let world = World::new();
    let got = world.messages(&ask("up/m", "")).await;
    assert!(got.status == 200 && got.body.contains(r#""content":[]"#), "{}", got.body);
    assert!(
        got.body.contains(r#""output_tokens":0"#) && got.body.contains(r#""model":"up/m""#),
        "{}",
        got.body
    );
    let got = world.messages(&ask("up/m", r#","stream":true"#)).await;
    assert!(
        got.body.starts_with("event: message_start") && got.body.contains("message_stop"),
        "{}",
        got.body
    );
    assert_eq!(world.transport.sent().len(), 0, "nobody was asked");
    world.transport.answer(Answer::json(
        200,
        r#"{"id":"msg_1","content":[],"stop_reason":"max_tokens","usage":{"input_tokens":3,"output_tokens":0}}"#,
    ));
    let got = world.messages(&ask("anth/m", "")).await;
    assert!(got.status == 200 && got.body.contains("max_tokens"), "{}", got.body);
    assert_eq!(world.transport.sent().len(), 1, "the vendor warms its cache");
}

#[tokio::test(start_paused = true)]
async fn a_tag_that_ollamas_clients_add_is_no_part_of_a_name() {
    let world = World::new();
    for (model, upstream) in [("up/m:latest", "m"), ("up/m:8b", "m:8b")] {
        world.transport.answer(answer("Hello"));
        let body =
            format!(r#"{{"model":"{model}","stream":false,"messages":[{{"role":"user","content":"hi"}}]}}"#);
        let got = world.send(&Ollama, &body, &[]).await;
        assert!(got.status == 200 && got.body.contains(&format!(r#""model":"{model}""#)), "{}", got.body);
        let sent: serde_json::Value =
            serde_json::from_slice(&world.transport.sent().pop().unwrap().body).unwrap();
        assert_eq!(sent["model"], upstream);
    }
}

#[tokio::test(start_paused = true)]
async fn completions_of_ollama_meet_its_own_servers_and_others() {
    let world = World::with(
        |entities| {
            let own = node("ollama-compatible-1", NodeType::OllamaCompatible, "own");
            entities.connections.push(connection("c5", &own.id, "llama", 1));
            entities.nodes.push(own);
        },
        |_| {},
    );
    // What only completions have goes with them, to the path where they are taken.
    let body = r#"{"model":"own/m", "prompt":"fn a() {","suffix":"}","raw":true,"stream":false}"#;
    world.transport.answer(Answer::json(200, r#"{"model":"m","response":" 1 ","done":true,"eval_count":2}"#));
    let got = world.send_to(&Ollama, "/api/generate", body).await;
    assert_eq!(got.body, r#"{"model":"own/m","response":" 1 ","done":true,"eval_count":2}"#);
    let sent = world.transport.sent().pop().unwrap();
    assert!(sent.uri.path().ends_with("/api/generate"), "{}", sent.uri);
    assert_eq!(sent.body, body.replace("own/m", "m"));
    assert_eq!(world.row().usage.output_total, Some(2));
    // Chats stay where they were.
    let chat = r#"{"model":"own/m","messages":[{"role":"user","content":"a"}],"stream":false}"#;
    world.transport.answer(Answer::json(
        200,
        r#"{"model":"m","message":{"role":"assistant","content":"b"},"done":true}"#,
    ));
    assert_eq!(world.send_to(&Ollama, "/api/chat", chat).await.status, 200);
    assert!(world.transport.sent()[1].uri.path().ends_with("/api/chat"));
    // Others are asked to chat.
    world.transport.answer(answer("Hello"));
    let body = r#"{"model":"up/m","prompt":"hi","system":"Be brief.","stream":false}"#;
    let got = world.send_to(&Ollama, "/api/generate", body).await;
    assert!(got.body.contains(r#""response":"Hello","done":true"#), "{}", got.body);
    let sent: serde_json::Value = serde_json::from_slice(&world.transport.sent()[2].body).unwrap();
    assert_eq!(sent["messages"][0]["content"], "Be brief.");
    assert_eq!(sent["messages"][1]["content"], "hi");
    world.transport.answer(stream().send(chunk("Hel")).send(chunk("lo")).send(END));
    let got = world.send_to(&Ollama, "/api/generate", r#"{"model":"up/m","prompt":"hi"}"#).await;
    assert!(
        got.body.contains(r#""response":"Hel","done":false"#) && !got.body.contains("message"),
        "{}",
        got.body
    );
    // What they have no place for is not left out in silence.
    let body = r#"{"model":"up/m","prompt":"fn a() {","suffix":"}","stream":false}"#;
    let got = world.send_to(&Ollama, "/api/generate", body).await;
    assert!(got.status == 400 && got.body.contains("suffix"), "{}", got.body);
    assert_eq!(world.transport.sent().len(), 4);
}
