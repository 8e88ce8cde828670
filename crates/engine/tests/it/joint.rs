//! Combos whose targets make one answer together: fusions and pipelines, for clients of several dialects, whole and streamed.

use std::time::Duration;

use omniroute_dialect::{Dialect as _, openai::OpenAi};
use omniroute_domain::entity::{Combo, Goal, PolicyActions};
use omniroute_engine::preview::Preview;
use omniroute_testkit::Answer;

use crate::combos::{ASK, ASK_STREAM, totals, tried, world};
use crate::world::{END, KEY, World, answer, chunk, refusal, stream};

fn fusion(change: impl FnOnce(&mut Combo)) -> World {
    world(|best| {
        best.strategy = "fusion".into();
        change(best);
    })
}

fn pipeline(change: impl FnOnce(&mut Combo)) -> World {
    world(|best| {
        best.strategy = "pipeline".into();
        change(best);
    })
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// What a call said to the upstream last.
fn last_message(world: &World, call: usize) -> serde_json::Value {
    let sent = &world.transport.sent()[call];
    let body: serde_json::Value = serde_json::from_slice(&sent.body).unwrap();
    body["messages"].as_array().unwrap().last().unwrap().clone()
}

fn body(world: &World, call: usize) -> serde_json::Value {
    serde_json::from_slice(&world.transport.sent()[call].body).unwrap()
}

/// An answer of an upstream that speaks Anthropic's dialect.
fn said(text: &str) -> Answer {
    Answer::json(
        200,
        format!(
            r#"{{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[{{"type":"text","text":"{text}"}}],"stop_reason":"end_turn","stop_sequence":null,"usage":{{"input_tokens":10,"output_tokens":4}}}}"#
        ),
    )
}

#[tokio::test(start_paused = true)]
async fn a_judge_writes_the_reply_from_all_answers() {
    let world = fusion(|best| best.config.judge_model = Some("up/judge".into()));
    world
        .transport
        .answer(answer("one").after(ms(300)))
        .answer(answer("two").after(ms(200)))
        .answer(answer("three").after(ms(100)))
        .answer(answer("the reply"));
    let got = world.chat(ASK).await;
    assert!(got.body.contains("the reply") && got.body.contains(r#""model":"best""#), "{}", got.body);
    assert_eq!(world.elapsed(), ms(300), "they answer at once");
    assert_eq!(got.header("x-omniroute-model"), "judge");
    let told = last_message(&world, 3).to_string();
    let places: Vec<_> =
        ["hi", "[1]\\none", "[2]\\ntwo", "[3]\\nthree"].iter().map(|it| told.find(it)).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "in the order of the list: {told}");
    let row = world.row();
    assert_eq!((row.attempts.len(), row.usage.input_total(), row.usage.output_total), (4, Some(12), Some(8)));
    assert_eq!((totals(&world, 0), totals(&world, 2)), ((1, 1), (1, 1)));
}

#[tokio::test(start_paused = true)]
async fn only_the_judge_speaks_to_a_streaming_client() {
    let world = fusion(|best| best.config.fusion_width = Some(2));
    world
        .transport
        .answer(answer("one"))
        .answer(answer("two"))
        .answer(stream().send(chunk("the ")).pause(ms(100)).send(chunk("reply")).send(END));
    let got = world.chat(ASK_STREAM).await;
    assert!(got.body.contains("the ") && got.body.ends_with("data: [DONE]\n\n"), "{}", got.body);
    assert!(!got.body.contains("one") && !got.body.contains("two"), "{}", got.body);
    let streams: Vec<_> =
        (0..3).map(|call| body(&world, call)["stream"].as_bool().unwrap_or(false)).collect();
    assert_eq!(streams, [false, false, true]);
    assert_eq!(tried(&world)[2].0, "a", "the first entry is the judge of those that name none");
}

#[tokio::test(start_paused = true)]
async fn a_claude_client_gets_a_fusion_of_two_dialects() {
    for stream_wanted in [false, true] {
        let world = fusion(|best| {
            best.steps.truncate(2);
            best.steps[1].goal = Goal::Model { model: "anth/m".into(), connection_id: None };
        });
        world.transport.answer(answer("one")).answer(said("two"));
        if stream_wanted {
            world.transport.answer(stream().send(chunk("the reply")).send(END));
        } else {
            world.transport.answer(answer("the reply"));
        }
        let ask = format!(
            r#"{{"model":"best","max_tokens":9,"system":"be brief","messages":[{{"role":"user","content":"hi"}}],"stream":{stream_wanted}}}"#
        );
        let got = world.messages(&ask).await;
        assert!(got.status == 200 && got.body.contains("the reply"), "{}", got.body);
        assert!(stream_wanted == got.body.contains("event: message_stop"), "{}", got.body);
        let sent = world.transport.sent();
        assert!(
            sent[1].uri.path().ends_with("/messages") && sent[2].uri.path().ends_with("/chat/completions")
        );
        assert!(body(&world, 1)["system"].to_string().contains("be brief"));
        let told = last_message(&world, 2).to_string();
        assert!(told.contains("[1]\\none") && told.contains("[2]\\ntwo"), "{told}");
        assert_eq!(world.row().usage.output_total, Some(8), "of all three together");
    }
}

#[tokio::test(start_paused = true)]
async fn who_fails_is_left_out_and_a_single_answer_is_the_reply() {
    for ask in [ASK, ASK_STREAM] {
        let world = fusion(|_| {});
        world
            .transport
            .answer(refusal(500, "server_error", "broken"))
            .answer(answer("alone").after(ms(50)))
            .answer(refusal(429, "rate_limit_error", "slow down").after(ms(90)));
        let got = world.chat(ask).await;
        assert!(got.status == 200 && got.body.contains("alone"), "{}", got.body);
        assert_eq!(got.body.ends_with("data: [DONE]\n\n"), ask == ASK_STREAM, "{}", got.body);
        assert_eq!(got.header("x-omniroute-provider"), "openai-compatible-chat-b");
        assert_eq!(world.transport.sent().len(), 3, "nobody has to judge");
        let row = world.row();
        assert_eq!((row.status, row.attempts.last().unwrap().failure), (200, None));
        assert_eq!((row.usage.input_total(), row.usage.output_total), (Some(3), Some(2)));
        assert_eq!((totals(&world, 0), totals(&world, 1)), ((1, 0), (1, 1)));
    }
}

#[tokio::test(start_paused = true)]
async fn when_nobody_answers_the_fusion_failed() {
    let world = fusion(|_| {});
    for status in [500, 503, 429] {
        world.transport.answer(refusal(status, "server_error", "broken"));
    }
    let got = world.chat(ASK).await;
    assert_eq!(got.status, 429, "{}", got.body);
    assert_eq!(got.body.matches(r#""reason":"#).count(), 3, "{}", got.body);
    // With retries those that failed in passing are asked once more.
    let world = fusion(|best| {
        best.config.max_retries = Some(1);
        best.steps.truncate(2);
    });
    world
        .transport
        .answer(refusal(500, "server_error", "broken"))
        .answer(refusal(400, "invalid_request_error", "no"))
        .answer(answer("at last"));
    assert!(world.chat(ASK).await.body.contains("at last"));
}

#[tokio::test(start_paused = true)]
async fn a_judge_that_fails_leaves_the_first_answer() {
    for ask in [ASK, ASK_STREAM] {
        let world = fusion(|best| {
            best.steps.truncate(2);
            best.config.judge_model = Some("up/judge".into());
        });
        world.transport.answer(answer("one")).answer(answer("two"));
        for _ in 0..2 {
            world.transport.answer(refusal(500, "server_error", "broken"));
        }
        let got = world.chat(ask).await;
        assert!(got.body.contains("one") && !got.body.contains("two"), "{}", got.body);
        assert_eq!(got.header("x-omniroute-provider"), "openai-compatible-chat-a");
        let row = world.row();
        assert_eq!((row.attempts.len(), row.provider.unwrap().as_str()), (4, "openai-compatible-chat-a"));
    }
    // A judge that the key may not use is not asked at all.
    let world = World::with(
        |entities| {
            crate::combos::add_best(entities, |best| {
                best.strategy = "fusion".into();
                best.steps.truncate(2);
                best.config.judge_model = Some("up/judge".into());
            });
            entities.api_keys[0].denied_models = vec!["up/*".into()];
        },
        |_| {},
    );
    world.transport.answer(answer("one")).answer(answer("two"));
    let got = world.send(&OpenAi, ASK, &[("authorization", &format!("Bearer {KEY}"))]).await;
    assert!(got.body.contains("one") && world.transport.sent().len() == 2, "{}", got.body);
}

#[tokio::test(start_paused = true)]
async fn a_fusion_with_tools_is_asked_one_after_the_other() {
    let world = fusion(|_| {});
    world.transport.answer(refusal(500, "server_error", "broken")).answer(answer("b"));
    let tools = r#","tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}]}"#;
    let got = world.chat(&ASK.replace("]}", &format!("]{tools}"))).await;
    assert_eq!((got.status, tried(&world).len()), (200, 2), "{}", got.body);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_a_fusion_ends_its_calls() {
    let world = fusion(|_| {});
    world.transport.answer(answer("early"));
    for _ in 0..2 {
        world.transport.answer(answer("late").after(ms(60_000)));
    }
    assert!(tokio::time::timeout(ms(100), world.chat(ASK)).await.is_err());
    let row = world.row();
    assert_eq!((row.status, row.attempts.len(), world.transport.cancelled()), (499, 3, 2));
    assert_eq!(row.usage.output_total, Some(2), "what was answered was used");
}

#[tokio::test(start_paused = true)]
async fn each_step_works_on_the_answer_before() {
    let world = pipeline(|best| {
        best.steps[1].template = Some("Check `{{output}}` for: {{input}}".into());
    });
    world.transport.answer(answer("draft")).answer(answer("checked")).answer(answer("final"));
    let ask = r#"{"model":"best","messages":[{"role":"system","content":"be brief"},{"role":"user","content":"hi"},{"role":"assistant","content":"yes?"},{"role":"user","content":"go on"}],"temperature":0.5}"#;
    let got = world.chat(ask).await;
    assert!(got.body.contains("final") && got.body.contains(r#""model":"best""#), "{}", got.body);
    let said: Vec<_> = (0..3).map(|call| last_message(&world, call)["content"].clone()).collect();
    assert_eq!(said, ["go on", "Check `draft` for: go on", "checked"]);
    for call in 0..3 {
        let body = body(&world, call);
        assert_eq!((body["messages"].as_array().unwrap().len(), &body["temperature"]), (4, &0.5.into()));
    }
    let row = world.row();
    assert_eq!((row.usage.input_total(), row.attempts.len()), (Some(9), 3));
    assert_eq!(got.header("x-omniroute-provider"), "openai-compatible-chat-c");
}

#[tokio::test(start_paused = true)]
async fn only_the_last_step_is_streamed_in_any_dialect() {
    let world = pipeline(|best| {
        best.steps.truncate(2);
        best.steps[0].goal = Goal::Model { model: "anth/m".into(), connection_id: None };
    });
    world
        .transport
        .answer(said("draft"))
        .answer(stream().send(chunk("fin")).pause(ms(10)).send(chunk("al")).send(END));
    let got = world
        .messages(
            r#"{"model":"best","max_tokens":9,"messages":[{"role":"user","content":"hi"}],"stream":true}"#,
        )
        .await;
    assert!(got.body.contains("fin") && got.body.contains("event: message_stop"), "{}", got.body);
    assert!(!got.body.contains("draft"), "{}", got.body);
    assert_eq!(last_message(&world, 1)["content"], "draft");
    assert!(!body(&world, 0)["stream"].as_bool().unwrap_or(false));
}

#[tokio::test(start_paused = true)]
async fn what_a_policy_prefers_does_not_turn_a_pipeline_round() {
    let world = World::with(
        |entities| {
            crate::combos::add_best(entities, |best| best.strategy = "pipeline".into());
            let prefer = PolicyActions { prefer_provider: vec!["c".into()], ..Default::default() };
            entities.policies.push(crate::policies::everywhere("c first", prefer));
        },
        |_| {},
    );
    world.transport.answer(answer("draft")).answer(answer("better")).answer(answer("fin"));
    assert_eq!(world.chat(ASK).await.status, 200);
    let asked: Vec<_> = tried(&world).into_iter().map(|(provider, _)| provider).collect();
    assert_eq!(asked, ["a", "b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn a_step_that_fails_fails_the_request() {
    let world = pipeline(|_| {});
    world.transport.answer(answer("draft")).answer(refusal(500, "server_error", "broken"));
    let got = world.chat(ASK).await;
    assert_eq!((got.status, world.transport.sent().len()), (500, 2), "{}", got.body);
    assert!(got.body.contains("step `b` of pipeline `best` failed"), "{}", got.body);

    // A step that has no target is not passed over in silence.
    let world = pipeline(|best| {
        best.steps[1].goal = Goal::Model { model: "deepseek/deepseek-chat".into(), connection_id: None };
    });
    let got = world.chat(ASK).await;
    assert_eq!((got.status, world.transport.sent().len()), (503, 0));
    assert!(got.body.contains("step `b` of pipeline `best` has no target"), "{}", got.body);
}

#[tokio::test(start_paused = true)]
async fn answers_to_tool_calls_belong_to_the_last_step() {
    let world = pipeline(|_| {});
    world.transport.answer(answer("done"));
    let ask = r#"{"model":"best","messages":[{"role":"user","content":"hi"},{"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"c1","content":"42"}],"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}]}"#;
    let got = world.chat(ask).await;
    assert_eq!((got.status, tried(&world)), (200, vec![("c".into(), Some(200))]), "{}", got.body);
    assert!(body(&world, 0)["messages"].to_string().contains("42"), "as it stands");
}

#[tokio::test(start_paused = true)]
async fn a_preview_tells_who_starts_together() {
    let name = |provider: &str| provider.replace("openai-compatible-chat-", "");
    let waves = |preview: Preview| {
        let candidates = preview.candidates.into_iter();
        candidates.map(|it| (name(it.provider.unwrap().as_str()), it.wave)).collect::<Vec<_>>()
    };
    let told = |name: &str, wave| (name.to_owned(), wave);
    let race = world(|best| best.strategy = "race".into());
    let expected = [told("a", Some(1)), told("b", Some(1)), told("c", Some(2))];
    assert_eq!(waves(race.preview(ASK).await), expected);
    race.transport.answer(answer("from a")).answer(answer("from b"));
    assert_eq!(race.chat(ASK).await.status, 200);
    let record = race.row().decision.expect("it is written down");
    let recorded = record.candidates(OpenAi.id()).into_iter().map(|it| (name(it.provider.unwrap()), it.wave));
    assert_eq!(recorded.collect::<Vec<_>>(), expected, "and so does the record");
    let fusion = fusion(|best| best.config.fusion_width = Some(2));
    let preview = fusion.preview(ASK).await;
    assert_eq!(preview.candidates[3].skip.as_ref().map(|skip| skip.rule), Some("width"));
    let expected = [told("a", Some(1)), told("b", Some(1)), told("a", Some(2)), told("c", None)];
    assert_eq!(waves(preview), expected, "a is the judge");
    for text in ["from a", "from b", "the reply"] {
        fusion.transport.answer(answer(text));
    }
    assert_eq!(fusion.chat(ASK).await.status, 200);
    let record = fusion.row().decision.expect("it is written down");
    let candidates = record.candidates(OpenAi.id());
    let recorded = candidates.iter().map(|it| (name(it.provider.unwrap()), it.wave));
    assert_eq!(recorded.collect::<Vec<_>>(), expected, "in the record too");
    assert_eq!(candidates[3].skip.map(|skip| skip.rule), Some("width"));
    assert!(candidates[..3].iter().all(|it| it.skip.is_none() && it.connection.is_some()));
    let pipeline = pipeline(|_| {});
    let expected = [told("a", Some(1)), told("b", Some(2)), told("c", Some(3))];
    assert_eq!(waves(pipeline.preview(ASK).await), expected);
}
