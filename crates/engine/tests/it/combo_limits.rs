//! What a combo asks of answers, how many requests its steps take at once, and where one provider's targets differ.

use std::time::Duration;

use omniroute_domain::entity::{ComboConfig, ResponseValidation};

use crate::combos::{ASK, ASK_STREAM, add_best, totals, tried, world};
use crate::world::{END, World, answer, chunk, refusal, stream};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn rules(rules: &str) -> Option<ResponseValidation> {
    serde_json::from_str(rules).unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_fails_the_rules_gives_way_and_is_paid_for() {
    let world = world(|best| best.config.response_validation = rules(r#"{"mustMatch":"good"}"#));
    world.transport.answer(answer("bad")).answer(answer("a good one"));
    let got = world.chat(ASK).await;
    assert!(got.body.contains("a good one"), "{}", got.body);
    let row = world.row();
    assert_eq!((row.attempts[0].failure, row.attempts[0].status), (Some("invalid_response"), Some(502)));
    assert_eq!(row.usage.output_total, Some(4), "both were made");
    assert_eq!((totals(&world, 0), totals(&world, 1)), ((1, 0), (1, 1)));
    // It says nothing about the account: the same one is asked next time.
    world.transport.answer(answer("good at once"));
    world.chat(ASK).await;
    assert_eq!(tried(&world), [("a".into(), Some(200))]);
}

#[tokio::test(start_paused = true)]
async fn rules_hold_across_dialects_and_for_whole_answers_alone() {
    let schema = r#"{"jsonSchema":{"type":"object","required":["a"]}}"#;
    let world = world(|best| best.config.response_validation = rules(schema));
    world.transport.answer(answer("no json")).answer(answer(r#"{\"a\":1}"#));
    let ask = r#"{"model":"best","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}"#;
    let got = world.messages(ask).await;
    assert!(got.status == 200 && tried(&world).len() == 2, "{}", got.body);

    world.transport.answer(stream().send(chunk("no json")).send(END));
    assert_eq!(world.chat(ASK_STREAM).await.status, 200);

    let calls = omniroute_testkit::Answer::json(
        200,
        r#"{"id":"x","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":null,"tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]},"finish_reason":"tool_calls"}]}"#,
    );
    world.transport.answer(calls);
    assert_eq!(world.chat(ASK).await.status, 200, "a call is for the client to go on with");
}

#[tokio::test(start_paused = true)]
async fn when_no_answer_follows_the_rules_the_client_is_told() {
    let world = world(|best| {
        best.config.response_validation = rules(r#"{"minChars":100}"#);
        best.steps.truncate(2);
    });
    world.transport.answer(answer("short")).answer(answer("short too"));
    let got = world.chat(ASK).await;
    assert_eq!(got.status, 502, "{}", got.body);
    assert!(got.body.contains("invalid_response") && got.body.contains("must have 100"), "{}", got.body);
}

#[tokio::test(start_paused = true)]
async fn a_fusion_leaves_out_what_breaks_the_rules() {
    let world = world(|best| {
        best.strategy = "fusion".into();
        best.config.response_validation = rules(r#"{"mustNotMatch":"bad"}"#);
    });
    world.transport.answer(answer("bad")).answer(answer("fine")).answer(answer("bad too"));
    let got = world.chat(ASK).await;
    assert!(got.body.contains("fine") && world.transport.sent().len() == 3, "{}", got.body);
}

fn going_round(change: impl FnOnce(&mut ComboConfig)) -> World {
    world(|best| {
        best.strategy = "round-robin".into();
        best.config.concurrency_per_model = Some(1);
        change(&mut best.config);
        best.steps.truncate(2);
    })
}

#[tokio::test(start_paused = true)]
async fn a_full_step_gives_way_to_the_next_and_then_requests_wait() {
    let world = going_round(|config| config.queue_depth = Some(0));
    for text in ["one", "two"] {
        world.transport.answer(answer(text).after(ms(1_000)));
    }
    let (first, second, third) = tokio::join!(world.chat(ASK), world.chat(ASK), world.chat(ASK));
    assert_eq!((first.status, second.status), (200, 200));
    assert!(third.status == 429 && third.body.contains("rate_limit_queue_full"), "{}", third.body);
    assert_eq!(third.header("retry-after"), "1");
    let live = world.engine.live.load();
    let turned_away: u64 =
        live.combo("best").unwrap().steps.iter().map(|it| it.stats.turned_away_total()).sum();
    assert_eq!(turned_away, 2, "at either step");

    let world = going_round(|config| config.queue_timeout_ms = Some(5_000));
    for text in ["one", "two", "three"] {
        world.transport.answer(answer(text).after(ms(1_000)));
    }
    let (first, second, third) = tokio::join!(world.chat(ASK), world.chat(ASK), world.chat(ASK));
    assert_eq!((first.status, second.status, third.status), (200, 200, 200));
    assert_eq!(world.elapsed(), ms(2_000), "the third had to wait for one of the others");
    assert_eq!(world.row().overhead_us, 1_000_000);
}

#[tokio::test(start_paused = true)]
async fn who_waits_too_long_goes_on_to_the_next_step() {
    let world = going_round(|config| config.queue_timeout_ms = Some(300));
    world
        .transport
        .answer(answer("slow").after(ms(9_000)))
        .answer(answer("quick").after(ms(100)))
        .answer(answer("b"));
    let third = async {
        tokio::time::sleep(ms(150)).await;
        world.chat(ASK).await
    };
    let (first, second, third) = tokio::join!(world.chat(ASK), world.chat(ASK), third);
    assert!(first.body.contains("slow") && second.body.contains("quick"), "{}", second.body);
    assert!(third.body.contains('b'), "{}", third.body);
    assert_eq!(third.header("x-omniroute-provider"), "openai-compatible-chat-b");
}

#[tokio::test(start_paused = true)]
async fn a_place_is_held_until_the_stream_ends_and_freed_when_the_client_leaves() {
    let world = going_round(|config| config.queue_timeout_ms = Some(60_000));
    for _ in 0..2 {
        world.transport.answer(stream().send(chunk("so far")).pause(ms(30_000)).send(END));
    }
    world.transport.answer(answer("next"));
    let leaving = async {
        // The first two take all places; both leave after a second.
        let both = async { tokio::join!(world.chat(ASK_STREAM), world.chat(ASK_STREAM)) };
        assert!(tokio::time::timeout(ms(1_000), Box::pin(both)).await.is_err());
    };
    let waiting = async {
        tokio::time::sleep(ms(10)).await;
        world.chat(ASK).await
    };
    let ((), waited) = tokio::join!(leaving, waiting);
    assert_eq!((waited.status, world.elapsed()), (200, ms(1_000)), "{}", waited.body);
}

#[tokio::test(start_paused = true)]
async fn a_provider_can_be_set_apart_and_the_combo_counts_more() {
    let with = |own: Option<u32>| {
        World::with(
            |entities| {
                add_best(entities, |best| {
                    best.config.target_timeout_ms = own;
                    best.config.max_retries = None;
                    best.config.retry_delay_ms = Some(100);
                });
                let of_a = ComboConfig {
                    target_timeout_ms: Some(1_000),
                    max_retries: Some(0),
                    ..ComboConfig::default()
                };
                let id = entities.nodes.iter().find(|node| node.prefix == "a").unwrap().id.to_string();
                entities.settings.provider_overrides.insert(id, of_a);
                entities.settings.combo_defaults.target_timeout_ms = Some(3_000);
            },
            |_| {},
        )
    };
    let world = with(None);
    for _ in 0..2 {
        world.transport.answer(answer("late").after(ms(60_000)));
    }
    world.transport.answer(refusal(500, "server_error", "broken")).answer(answer("b again"));
    let got = world.chat(ASK).await;
    assert!(got.body.contains("b again"), "{}", got.body);
    let waits: Vec<_> = world.row().attempts.iter().map(|attempt| attempt.duration_ms).collect();
    assert_eq!(waits, [1_000, 3_000, 0, 0], "a has a second and no second try");
    assert_eq!(tried(&world)[3].0, "b");

    let world = with(Some(2_000));
    world.transport.answer(answer("late").after(ms(60_000))).answer(answer("b"));
    world.chat(ASK).await;
    assert_eq!(world.row().attempts[0].duration_ms, 2_000);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_to_be_counted_is_not() {
    let world = world(|best| best.config.track_metrics = Some(false));
    world.transport.answer(refusal(500, "server_error", "broken")).answer(answer("b"));
    assert_eq!(world.chat(ASK).await.status, 200);
    assert_eq!((totals(&world, 0), totals(&world, 1)), ((0, 0), (0, 0)));
    let live = world.engine.live.load();
    let memory = &live.combo("best").unwrap().memory;
    assert_eq!(memory.fallbacks.load(std::sync::atomic::Ordering::Relaxed), 0);
}
