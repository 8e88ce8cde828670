//! Refusals that the gateway understands, reasoning that it keeps, and addresses that it fetches.

use omniroute_dialect::{anthropic::Anthropic, openai::OpenAi};
use omniroute_engine::ports::{Memory, ReasoningRow};
use omniroute_testkit::Answer;

use crate::world::{ASK, KEY, NOW_MS, World, answer, refusal};

fn sent(world: &World, at: usize) -> String {
    String::from_utf8(world.transport.sent()[at].body.to_vec()).unwrap()
}

/// A whole answer of the Anthropic upstream with this content.
fn message(content: &str, stop_reason: &str) -> Answer {
    Answer::json(
        200,
        format!(
            r#"{{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[{content}],"stop_reason":"{stop_reason}","stop_sequence":null,"usage":{{"input_tokens":3,"output_tokens":2}}}}"#
        ),
    )
}

const THOUGHT_CALL: &str = r#"{"type":"thinking","thinking":"plan","signature":"SIG+/="},{"type":"tool_use","id":"toolu_1","name":"f","input":{"a":1}}"#;
const TOOLS: &str = r#""tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}]"#;

#[tokio::test(start_paused = true)]
async fn a_refused_parameter_is_left_out_and_remembered() {
    let world = World::new();
    let ask = ASK.replace("\"model\"", "\"temperature\":0.5,\"model\"");
    world.transport.answer(Answer::json(
        400,
        r#"{"error":{"message":"Unsupported value: 'temperature' does not support 0.5 with this model.","type":"invalid_request_error","param":"temperature","code":"unsupported_value"}}"#,
    ));
    world.transport.answer(answer("Hello")).answer(answer("again")).answer(answer("well"));
    let got = world.chat(&ask).await;
    assert_eq!((got.status, got.header("x-omniroute-attempts")), (200, "2"), "{}", got.body);
    assert!(sent(&world, 0).contains("temperature"));
    assert_eq!(sent(&world, 1), ASK.replace("up/m", "m"));
    // The next request does not try it again.
    let got = world.chat(&ask).await;
    assert_eq!((got.status, got.header("x-omniroute-attempts")), (200, "1"));
    assert!(!sent(&world, 2).contains("temperature"));
    assert_eq!(got.header("x-omniroute-dropped"), "temperature", "the client is told");
    let strict = world.send(&OpenAi, &ask, &[("x-omniroute-strict", "true")]).await;
    assert!(strict.status == 400 && strict.body.contains("temperature"), "{}", strict.body);
    assert_eq!(world.engine.live.learned.lessons(0).len(), 1);
    // Both accounts are well: it was nobody's fault.
    assert_eq!(world.chat(ASK).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_renamed_limit_is_sent_under_its_new_name() {
    let world = World::new();
    let ask = ASK.replace("\"model\"", "\"max_tokens\":7,\"model\"");
    world.transport.answer(refusal(
        400,
        "invalid_request_error",
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
    ));
    world.transport.answer(answer("Hello"));
    assert_eq!(world.chat(&ask).await.status, 200);
    assert!(sent(&world, 1).contains(r#""max_completion_tokens":7"#), "{}", sent(&world, 1));
}

#[tokio::test(start_paused = true)]
async fn long_descriptions_are_cut_for_those_who_refuse_them() {
    let world = World::new();
    let long = "x".repeat(1_100);
    let tools = TOOLS.replace("\"name\"", &format!("\"description\":\"{long}\",\"name\""));
    let ask = ASK.replace("\"model\"", &format!("{tools},\"model\""));
    world.transport.answer(refusal(
        400,
        "invalid_request_error",
        "Invalid 'tools[0].function.description': string too long. Expected a string with maximum length 1024, but got a string with length 1100 instead.",
    ));
    world.transport.answer(answer("Hello")).answer(answer("again"));
    assert_eq!(world.chat(&ask).await.status, 200);
    assert!(sent(&world, 0).contains(&long));
    let cut = format!("\"{}…\"", "x".repeat(1_023));
    assert_eq!(
        sent(&world, 1),
        sent(&world, 0).replace(&format!("\"{long}\""), &cut),
        "nothing else changes"
    );
    // Another time it is known, and told.
    let got = world.chat(&ask).await;
    assert_eq!((got.status, got.header("x-omniroute-dropped")), (200, "tools.description"));
}

#[tokio::test(start_paused = true)]
async fn system_messages_become_one_for_those_who_take_no_more() {
    let world = World::new();
    let ask = r#"{"model":"up/m","messages":[{"role":"user","content":"a"},{"role":"system","content":"be brief"},{"role":"user","content":"b"}]}"#;
    world.transport.answer(refusal(400, "BadRequestError", "System message must be at the beginning."));
    world.transport.answer(answer("Hello")).answer(answer("again"));
    assert_eq!(world.chat(ask).await.status, 200);
    let merged = r#"{"model":"m","messages":[{"role":"system","content":"be brief"},{"role":"user","content":"a"},{"role":"user","content":"b"}]}"#;
    assert_eq!(sent(&world, 1), merged);
    // From another dialect too: the fact is about what is sent.
    let got = world.send(&Anthropic, &ask.replace("\"model\"", "\"max_tokens\":9,\"model\""), &[]).await;
    assert_eq!(got.status, 200, "{}", got.body);
    assert!(
        sent(&world, 2).contains(r#""messages":[{"role":"system","content":"be brief"},"#),
        "{}",
        sent(&world, 2)
    );
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_stays_is_told_once_it_was_tried() {
    let world = World::new();
    for _ in 0..2 {
        world.transport.answer(refusal(400, "invalid_request_error", "Unknown parameter: 'foo_bar'."));
    }
    let got = world.chat(ASK).await;
    assert_eq!((got.status, world.transport.sent().len()), (400, 2), "{}", got.body);
    assert!(got.body.contains("foo_bar"));
}

#[tokio::test(start_paused = true)]
async fn thoughts_that_a_client_drops_are_put_back() {
    let world = World::new();
    world
        .transport
        .answer(message(THOUGHT_CALL, "tool_use"))
        .answer(message(r#"{"type":"text","text":"done"}"#, "end_turn"));
    let ask = format!(r#"{{"model":"anth/m","messages":[{{"role":"user","content":"go"}}],{TOOLS}}}"#);
    let got = world.chat(&ask).await;
    assert!(got.body.contains(r#""signature":"SIG+/=""#), "{}", got.body);
    // Only ids come back, as most clients do it.
    assert_eq!(world.chat(&next_turn()).await.status, 200);
    let body = sent(&world, 1);
    assert!(
        body.contains(r#"{"type":"thinking","thinking":"plan","signature":"SIG+/="},{"type":"tool_use""#),
        "{body}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_model_that_misses_its_reasoning_gets_it_back_from_then_on() {
    let world = World::new();
    let called = r#"{"id":"x","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":null,"reasoning_content":"plan","tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{}"}}]},"finish_reason":"tool_calls"}],"usage":{"prompt_tokens":3,"completion_tokens":2}}"#;
    world
        .transport
        .answer(Answer::json(200, called))
        .answer(refusal(400, "invalid_request_error", "Missing `reasoning_content` field in messages[1]"))
        .answer(answer("done"))
        .answer(answer("done"));
    let tools = r#""tools":[{"name":"f","input_schema":{"type":"object"}}]"#;
    let user = r#"{"role":"user","content":"go"}"#;
    let ask = format!(r#"{{"model":"up/m","max_tokens":64,"messages":[{user}],{tools}}}"#);
    assert_eq!(world.messages(&ask).await.status, 200);
    let next = format!(
        r#"{{"model":"up/m","max_tokens":64,"messages":[{user},{{"role":"assistant","content":[{{"type":"tool_use","id":"c1","name":"f","input":{{}}}}]}},{{"role":"user","content":[{{"type":"tool_result","tool_use_id":"c1","content":"4"}}]}}],{tools}}}"#
    );
    for attempts in ["2", "1"] {
        let got = world.messages(&next).await;
        assert_eq!((got.status, got.header("x-omniroute-attempts")), (200, attempts), "{}", got.body);
    }
    assert!(!sent(&world, 1).contains("reasoning_content"), "{}", sent(&world, 1));
    for at in [2, 3] {
        assert!(sent(&world, at).contains(r#""reasoning_content":"plan""#), "{}", sent(&world, at));
    }
}

#[tokio::test(start_paused = true)]
async fn thoughts_of_one_dialect_do_not_reach_another() {
    let world = World::new();
    world.transport.answer(Answer::json(
        200,
        r#"{"id":"x","model":"m","choices":[{"index":0,"message":{"role":"assistant","reasoning_content":"hm","content":"Hello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2}}"#,
    ));
    let got = world
        .messages(r#"{"model":"up/m","max_tokens":64,"messages":[{"role":"user","content":"hi"}]}"#)
        .await;
    let carrier = got.body.split(r#""signature":""#).nth(1).unwrap().split('"').next().unwrap();
    assert!(carrier.starts_with("omr1."), "{}", got.body);
    // The client goes on with the other provider, and gives back what it got.
    world.transport.answer(message(r#"{"type":"text","text":"done"}"#, "end_turn"));
    let next = format!(
        r#"{{"model":"anth/m","max_tokens":64,"messages":[{{"role":"user","content":"hi"}},{{"role":"assistant","content":[{{"type":"thinking","thinking":"hm","signature":"{carrier}"}},{{"type":"text","text":"Hello"}}]}},{{"role":"user","content":"go on"}}]}}"#
    );
    assert_eq!(world.messages(&next).await.status, 200);
    assert_eq!(
        sent(&world, 1),
        r#"{"model":"m","max_tokens":64,"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":[{"type":"text","text":"Hello"}]},{"role":"user","content":"go on"}]}"#
    );
}

#[tokio::test(start_paused = true)]
async fn refused_signatures_are_left_out_and_it_is_tried_once_more() {
    let world = World::new();
    world.transport.answer(Answer::json(
        400,
        r#"{"type":"error","error":{"type":"invalid_request_error","message":"messages.1.content.0: Invalid `signature` in `thinking` block"}}"#,
    ));
    world.transport.answer(message(r#"{"type":"text","text":"done"}"#, "end_turn"));
    let ask = r#"{"model":"anth/m","max_tokens":64,"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":[{"type":"thinking","thinking":"x","signature":"OLD"},{"type":"text","text":"Hello"}]},{"role":"user","content":"go on"}]}"#;
    let got = world.send(&Anthropic, ask, &[]).await;
    assert_eq!((got.status, got.header("x-omniroute-attempts")), (200, "2"), "{}", got.body);
    assert!(sent(&world, 0).contains("OLD") && !sent(&world, 1).contains("OLD"), "{}", sent(&world, 1));
    assert!(sent(&world, 1).contains("Hello"));
}

/// The next turn of a client that brings ids back and nothing else.
fn next_turn() -> String {
    format!(
        r#"{{"model":"anth/m","messages":[{{"role":"user","content":"go"}},{{"role":"assistant","content":null,"tool_calls":[{{"id":"toolu_1","type":"function","function":{{"name":"f","arguments":"{{\"a\":1}}"}}}}]}},{{"role":"tool","tool_call_id":"toolu_1","content":"4"}}],{TOOLS}}}"#
    )
}

async fn think(world: &World, headers: &[(&str, &str)]) {
    world.transport.answer(message(THOUGHT_CALL, "tool_use"));
    let ask = format!(r#"{{"model":"anth/m","messages":[{{"role":"user","content":"go"}}],{TOOLS}}}"#);
    assert_eq!(world.send(&OpenAi, &ask, headers).await.status, 200);
}

/// What the upstream is sent of the next turn by a process that was given these memories.
async fn sent_after_restart(memories: Vec<Memory>, headers: &[(&str, &str)]) -> String {
    let world = World::new();
    for memory in memories {
        world.engine.restore(memory);
    }
    world.transport.answer(message(r#"{"type":"text","text":"done"}"#, "end_turn"));
    assert_eq!(world.send(&OpenAi, &next_turn(), headers).await.status, 200);
    sent(&world, 0)
}

#[tokio::test(start_paused = true)]
async fn a_restart_does_not_lose_the_reasoning_behind_calls() {
    let world = World::new();
    think(&world, &[]).await;
    let memories = std::mem::take(&mut *world.recorded.memories.lock().unwrap());
    assert_eq!(memories.len(), 2, "by the call and by what was said: {memories:?}");
    let signed = r#"{"type":"thinking","thinking":"plan","signature":"SIG+/="}"#;
    assert!(!sent_after_restart(Vec::new(), &[]).await.contains("SIG"), "the test must be able to fail");
    assert!(sent_after_restart(memories.clone(), &[]).await.contains(signed));
    // Nobody is reminded of what somebody else's model thought.
    let key = format!("Bearer {KEY}");
    let other = sent_after_restart(memories.clone(), &[("authorization", &key)]).await;
    assert!(!other.contains("SIG"), "{other}");
    // What is older than a week is not recalled.
    let old = memories.into_iter().map(|memory| match memory {
        Memory::Reasoning(row) => Memory::Reasoning(ReasoningRow { expires_at: NOW_MS, ..row }),
        other => panic!("{other:?}"),
    });
    assert!(!sent_after_restart(old.collect(), &[]).await.contains("SIG"));
}

#[tokio::test(start_paused = true)]
async fn what_a_key_without_log_thought_stays_in_memory() {
    for (no_log, kept) in [(false, 2), (true, 0)] {
        let world = World::with(|entities| entities.api_keys[0].no_log = no_log, |_| {});
        let key = format!("Bearer {KEY}");
        think(&world, &[("authorization", &key)]).await;
        assert_eq!(world.recorded.memories.lock().unwrap().len(), kept);
        world.transport.answer(message(r#"{"type":"text","text":"done"}"#, "end_turn"));
        assert_eq!(world.send(&OpenAi, &next_turn(), &[("authorization", &key)]).await.status, 200);
        assert!(sent(&world, 1).contains("SIG"), "while the process lives");
    }
}

/// An answer of the OpenAI upstream that thought and called.
fn thought_call(plan: &str, id: &str) -> Answer {
    Answer::json(
        200,
        format!(
            r#"{{"id":"x","model":"m","choices":[{{"index":0,"message":{{"role":"assistant","content":null,"reasoning_content":"{plan}","tool_calls":[{{"id":"{id}","type":"function","function":{{"name":"f_{id}","arguments":"{{}}"}}}}]}},"finish_reason":"tool_calls"}}],"usage":{{"prompt_tokens":3,"completion_tokens":2}}}}"#
        ),
    )
}

#[tokio::test(start_paused = true)]
async fn within_one_dialect_missing_reasoning_is_put_into_the_bytes() {
    let world = World::new();
    let turn = |id: &str| {
        format!(
            r#"{{"role":"assistant", "content":null,"tool_calls":[{{"id":"{id}","type":"function","function":{{"name":"f_{id}","arguments":"{{}}"}}}}]}},{{"role":"tool","tool_call_id":"{id}","content":"4"}}"#
        )
    };
    let ask = |turns: &[String], stream: &str| {
        let user = r#"{"role":"user","content":"go"}"#.to_owned();
        let turns: Vec<String> = std::iter::once(user).chain(turns.iter().cloned()).collect();
        format!(r#"{{"model":"up/m", "seed":1.0,{stream}"messages":[{}],{TOOLS}}}"#, turns.join(","))
    };
    let expected = |turns: &[(&str, &str)]| {
        let turns: Vec<String> = turns
            .iter()
            .map(|(id, plan)| {
                turn(id).replacen("}]},", &format!(r#"}}],"reasoning_content":"{plan}"}},"#), 1)
            })
            .collect();
        ask(&turns, "").replace("up/m", "m")
    };
    // Nobody knew that it would be missed: the first thought is lost, and its place is filled.
    world
        .transport
        .answer(thought_call("plan a", "a"))
        .answer(refusal(400, "invalid_request_error", "Missing `reasoning_content` field in messages[1]"))
        .answer(thought_call("plan b", "b"));
    assert_eq!(world.chat(&ask(&[], "")).await.status, 200);
    let got = world.chat(&ask(&[turn("a")], "")).await;
    assert_eq!((got.status, got.header("x-omniroute-attempts")), (200, "2"), "{}", got.body);
    assert_eq!(sent(&world, 1), ask(&[turn("a")], "").replace("up/m", "m"), "not before it is known");
    assert_eq!(sent(&world, 2), expected(&[("a", "")]));
    // From then on it is noted, in streams too.
    let delta = |delta: &str, finish: &str| {
        format!(
            "data: {{\"id\":\"x\",\"model\":\"m\",\"choices\":[{{\"index\":0,\"delta\":{delta},\"finish_reason\":{finish}}}]}}\n\n"
        )
    };
    world.transport.answer(
        crate::world::stream()
            .send(delta(r#"{"role":"assistant","reasoning_content":"plan "}"#, "null"))
            .send(delta(r#"{"reasoning_content":"c"}"#, "null"))
            .send(delta(
                r#"{"tool_calls":[{"index":0,"id":"c","type":"function","function":{"name":"f_c","arguments":"{}"}}]}"#,
                "null",
            ))
            .send(delta("{}", "\"tool_calls\""))
            .send("data: [DONE]\n\n"),
    );
    let got = world.chat(&ask(&[turn("a"), turn("b")], r#""stream":true,"#)).await;
    assert!(got.status == 200 && got.body.contains("plan "), "{}", got.body);
    assert!(sent(&world, 3).contains(r#""reasoning_content":"plan b""#), "{}", sent(&world, 3));
    world.transport.answer(answer("done"));
    assert_eq!(world.chat(&ask(&[turn("a"), turn("b"), turn("c")], "")).await.status, 200);
    assert_eq!(sent(&world, 4), expected(&[("a", ""), ("b", "plan b"), ("c", "plan c")]));
}
