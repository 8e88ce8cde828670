//! Combos: which target answers, what the client sees when some fail, and what is counted.

use std::time::Duration;

use omniroute_domain::entity::{Combo, ComboConfig, Entities, Goal, NodeType, PolicyActions, Step};
use omniroute_engine::EngineOptions;
use omniroute_testkit::Answer;

use crate::policies;
use crate::world::{END, KEY, NOW_MS, World, answer, chunk, combo, connection, node, refusal, stream};

pub(crate) const ASK: &str = r#"{"model":"best","messages":[{"role":"user","content":"hi"}]}"#;
pub(crate) const ASK_STREAM: &str =
    r#"{"model":"best","messages":[{"role":"user","content":"hi"}],"stream":true}"#;

/// A combo `best` of three targets, `a/m`, `b/m` and `c/m`, each with one account.
pub(crate) fn world(change: impl FnOnce(&mut Combo)) -> World {
    World::with(|entities| add_best(entities, change), |_: &mut EngineOptions| {})
}

pub(crate) fn add_best(entities: &mut Entities, change: impl FnOnce(&mut Combo)) {
    let mut models = Vec::new();
    for prefix in ["a", "b", "c"] {
        let node = node(&format!("openai-compatible-chat-{prefix}"), NodeType::OpenaiCompatible, prefix);
        entities.connections.push(connection(&format!("of-{prefix}"), &node.id, "only", 1));
        entities.nodes.push(node);
        models.push(format!("{prefix}/m"));
    }
    let mut best = combo("best", &[&models[0], &models[1], &models[2]]);
    change(&mut best);
    entities.combos.push(best);
}

pub(crate) fn tried(world: &World) -> Vec<(String, Option<u16>)> {
    world
        .row()
        .attempts
        .iter()
        .map(|attempt| (attempt.provider.to_string(), attempt.status))
        .map(short)
        .collect()
}

fn short((provider, status): (String, Option<u16>)) -> (String, Option<u16>) {
    (provider.replace("openai-compatible-chat-", ""), status)
}

pub(crate) fn totals(world: &World, step: usize) -> (u64, u64) {
    let live = world.engine.live.load();
    let totals = live.combo("best").unwrap().steps[step].stats.totals();
    (totals.requests, totals.successes)
}

#[tokio::test(start_paused = true)]
async fn a_failing_target_gives_way_to_the_next_and_both_are_counted() {
    let world = world(|_| {});
    world.transport.answer(refusal(500, "server_error", "broken")).answer(answer("from b"));
    let got = world.chat(ASK).await;
    assert_eq!(got.status, 200);
    assert!(got.body.contains(r#""model":"best""#), "the asked name is echoed: {}", got.body);
    assert_eq!(got.header("x-omniroute-combo"), "best");
    assert_eq!(got.header("x-omniroute-provider"), "openai-compatible-chat-b");
    assert_eq!((got.header("x-omniroute-model"), got.header("x-omniroute-attempts")), ("m", "2"));
    assert_eq!(tried(&world), [("a".into(), Some(500)), ("b".into(), Some(200))]);
    assert_eq!((totals(&world, 0), totals(&world, 1), totals(&world, 2)), ((1, 0), (1, 1), (0, 0)));
    let live = world.engine.live.load();
    let memory = &live.combo("best").unwrap().memory;
    assert_eq!(memory.fallbacks.load(std::sync::atomic::Ordering::Relaxed), 1);
    assert_eq!(memory.stats.in_flight(), 0, "nothing is left running");
    assert_eq!(asked(&world, "best"), (1, 1), "it is one request, whoever answers");
}

/// Requests of a combo, and those that went well.
pub(crate) fn asked(world: &World, combo: &str) -> (u64, u64) {
    let live = world.engine.live.load();
    let totals = live.combo(combo).unwrap().memory.stats.totals();
    (totals.requests, totals.successes)
}

#[tokio::test(start_paused = true)]
async fn a_combo_within_another_is_counted_by_what_its_own_targets_did() {
    let world = World::with(
        |entities| {
            add_best(entities, |best| best.steps.truncate(2));
            let mut outer = combo("outer", &["best", "c/m"]);
            outer.id = omniroute_domain::entity::ComboId::from("2");
            outer.steps[0].goal = Goal::ComboRef { combo_name: "best".into() };
            entities.combos.push(outer);
        },
        |_: &mut EngineOptions| {},
    );
    let broken = || refusal(500, "server_error", "broken");
    let chunks = |text: &str| stream().send(chunk(text));
    // Both targets of the inner one fail, and the outer one's own answers.
    world.transport.answer(broken()).answer(broken()).answer(answer("from c"));
    assert_eq!(world.chat(&ASK.replace("best", "outer")).await.status, 200);
    assert_eq!((asked(&world, "outer"), asked(&world, "best")), ((1, 1), (1, 0)));
    // They cool down now: the inner one is not asked.
    world.transport.answer(chunks("from c").send(END));
    assert_eq!(world.chat(&ASK_STREAM.replace("best", "outer")).await.status, 200);
    assert_eq!((asked(&world, "outer"), asked(&world, "best")), ((2, 2), (1, 0)));
    tokio::time::sleep(Duration::from_secs(60)).await;
    world.transport.answer(chunks("from a").send(END));
    assert_eq!(world.chat(&ASK_STREAM.replace("best", "outer")).await.status, 200);
    assert_eq!((asked(&world, "outer"), asked(&world, "best")), ((3, 3), (2, 1)));
    // A stream that breaks is no answer.
    world.transport.answer(chunks("from a"));
    world.chat(&ASK_STREAM.replace("best", "outer")).await;
    assert_eq!((asked(&world, "outer"), asked(&world, "best")), ((4, 3), (3, 1)));
    let live = world.engine.live.load();
    let running = ["outer", "best"].map(|name| live.combo(name).unwrap().memory.stats.in_flight());
    assert_eq!(running, [0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_before_its_first_content_gives_way_too() {
    let world = world(|_| {});
    world
        .transport
        .answer(refusal(429, "rate_limit_error", "slow down"))
        .answer(stream().send(": hello\n\n").abort())
        .answer(stream().send(chunk("from c")).send(END));
    let got = world.chat(ASK_STREAM).await;
    assert_eq!(got.status, 200);
    assert!(got.body.contains("from c") && got.body.ends_with("data: [DONE]\n\n"), "{}", got.body);
    assert_eq!(tried(&world).len(), 3);
    assert_eq!((totals(&world, 0), totals(&world, 1), totals(&world, 2)), ((1, 0), (1, 0), (1, 1)));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_later_is_a_failure_of_its_target() {
    let world = world(|_| {});
    world.transport.answer(stream().send(chunk("so far")).abort());
    let got = world.chat(ASK_STREAM).await;
    assert!(got.body.contains("so far") && got.body.contains("upstream_stream_truncated"), "{}", got.body);
    assert_eq!(totals(&world, 0), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn one_failing_model_does_not_take_its_account_from_the_next_target() {
    // Both targets on the account of `a`.
    let world = world(|best| {
        best.steps.truncate(2);
        best.steps[1].goal = Goal::Model { model: "a/other".into(), connection_id: None };
    });
    world.transport.answer(refusal(500, "server_error", "broken")).answer(answer("from the other"));
    assert_eq!(world.chat(ASK).await.status, 200);
    assert_eq!(tried(&world), [("a".into(), Some(500)), ("a".into(), Some(200))]);
}

#[tokio::test(start_paused = true)]
async fn when_all_fail_the_error_says_most_and_lists_each() {
    let world = World::with(
        |entities| {
            add_best(entities, |_| {});
            entities.settings.request_retry = 0;
        },
        |_: &mut EngineOptions| {},
    );
    world
        .transport
        .answer(refusal(500, "server_error", "broken"))
        .answer(refusal(429, "rate_limit_error", "slow down").header("retry-after", "40"))
        .answer(refusal(404, "invalid_request_error", "no such model"));
    let got = world.chat(ASK).await;
    assert_eq!(got.status, 429, "{}", got.body);
    assert!(got.body.contains("all 3 targets of combo `best` failed"), "{}", got.body);
    assert_eq!(got.body.matches(r#""reason":"#).count(), 3, "{}", got.body);
    let seconds: u64 = got.header("retry-after").parse().unwrap();
    assert!(seconds <= 4, "the first comes back after its three seconds, not after forty: {seconds}");

    // With patience the first is waited for, though the last one does not come back by itself.
    let patient = self::world(|_| {});
    patient
        .transport
        .answer(refusal(500, "server_error", "broken"))
        .answer(refusal(429, "rate_limit_error", "slow down").header("retry-after", "40"))
        .answer(refusal(404, "invalid_request_error", "no such model"))
        .answer(answer("after all"));
    assert_eq!(patient.chat(ASK).await.status, 200);
    assert!((2..=4).contains(&patient.elapsed().as_secs()), "{:?}", patient.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_the_request_itself_is_to_blame_for_ends_it() {
    let world = world(|_| {});
    world.transport.answer(refusal(400, "invalid_request_error", "messages must not be empty"));
    let got = world.chat(ASK).await;
    assert_eq!((got.status, tried(&world).len()), (400, 1));
    assert!(got.body.contains("messages must not be empty"), "{}", got.body);
    let got = world.chat(r#"{"model":"best","messages":[{"role"#).await;
    assert_eq!((got.status, world.transport.sent().len()), (400, 1), "nobody is asked");
}

#[tokio::test(start_paused = true)]
async fn what_only_one_target_refuses_is_asked_of_the_next() {
    let world = world(|best| best.config.max_retries = Some(0));
    let too_long = Answer::json(
        400,
        r#"{"error":{"message":"maximum context length is 8192 tokens","type":"invalid_request_error","code":"context_length_exceeded"}}"#,
    );
    world.transport.answer(too_long).answer(answer("fits"));
    assert_eq!(world.chat(ASK).await.status, 200);

    // What one refuses says more than what kept another from being asked.
    let world = World::with(
        |entities| {
            add_best(entities, |best| best.steps.truncate(2));
            let block = PolicyActions { block_model: vec!["a/*".into()], ..Default::default() };
            entities.policies.push(policies::everywhere("no a", block));
        },
        |_: &mut EngineOptions| {},
    );
    world.transport.answer(refusal(400, "invalid_request_error", "b: images are not supported"));
    let got = world.chat(ASK).await;
    assert!(got.status == 400 && got.body.contains("b: images"), "{} {}", got.status, got.body);

    let world = self::world(|_| {});
    for word in ["first", "second", "third"] {
        world.transport.answer(refusal(
            400,
            "invalid_request_error",
            &format!("{word}: images are not supported"),
        ));
    }
    let got = world.chat(ASK).await;
    assert_eq!((got.status, tried(&world).len()), (400, 3));
    assert!(got.body.contains("first: images"), "the first refusal is told: {}", got.body);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_for_content_ends_the_request_unless_the_combo_says_otherwise() {
    let refused = || refusal(400, "content_policy_violation", "content_policy: not that");
    let strict = world(|_| {});
    strict.transport.answer(refused());
    assert_eq!((strict.chat(ASK).await.status, strict.transport.sent().len()), (400, 1));
    let lax = world(|best| best.config.stop_on_content_filter = Some(false));
    lax.transport.answer(refused()).answer(answer("fine"));
    assert_eq!(lax.chat(ASK).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_target_that_takes_too_long_is_left_while_another_is_left() {
    let world = world(|best| {
        best.config.target_timeout_ms = Some(5_000);
        best.steps.truncate(2);
    });
    world.transport.answer(answer("late").after(Duration::from_secs(60))).answer(answer("in time"));
    assert_eq!(world.chat(ASK).await.status, 200);
    assert_eq!(world.elapsed().as_secs(), 5);
    assert_eq!(world.row().attempts[0].failure, Some("timeout"));
    // The last one has all the time there is.
    let world = self::world(|best| {
        best.config.target_timeout_ms = Some(5_000);
        best.steps.truncate(1);
    });
    world.transport.answer(answer("late").after(Duration::from_secs(60)));
    assert_eq!((world.chat(ASK).await.status, world.elapsed().as_secs()), (200, 60));
}

#[tokio::test(start_paused = true)]
async fn all_together_have_one_deadline() {
    let world = world(|best| {
        best.config.timeout_ms = Some(7_000);
        best.config.target_timeout_ms = Some(5_000);
    });
    for _ in 0..3 {
        world.transport.answer(answer("late").after(Duration::from_secs(60)));
    }
    let got = world.chat(ASK).await;
    assert_eq!((got.status, tried(&world).len()), (504, 2), "{}", got.body);
    assert_eq!(world.elapsed().as_secs(), 7);
}

#[tokio::test(start_paused = true)]
async fn targets_that_no_call_was_left_for_did_not_fail() {
    let world = world(|best| {
        let first = best.steps[0].clone();
        best.steps = (0..70)
            .map(|place| {
                let goal = Goal::Model { model: format!("a/m{place}"), connection_id: None };
                Step { id: format!("s{place}"), goal, ..first.clone() }
            })
            .collect();
        best.config.max_retries = Some(0);
    });
    for _ in 0..64 {
        world.transport.answer(refusal(400, "invalid_request_error", "unsupported parameter"));
    }
    let got = world.chat(ASK).await;
    assert_eq!(world.transport.sent().len(), 64, "{}", got.body);
    assert!(got.body.contains("64 of the 70 targets of combo `best` failed"), "{}", got.body);
}

#[tokio::test(start_paused = true)]
async fn passing_failures_are_tried_again_after_all_had_their_chance() {
    let world = world(|best| {
        best.config =
            ComboConfig { max_retries: Some(1), retry_delay_ms: Some(100), ..ComboConfig::default() };
        best.steps.truncate(2);
    });
    world
        .transport
        .answer(refusal(500, "server_error", "broken"))
        .answer(refusal(503, "server_error", "overloaded"))
        .answer(answer("second try of a"));
    assert_eq!(world.chat(ASK).await.status, 200);
    assert_eq!(
        tried(&world),
        [("a".into(), Some(500)), ("b".into(), Some(503)), ("a".into(), Some(200))],
        "b waits shorter, but a comes first"
    );
    assert!(world.elapsed() < Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn fill_first_stays_loyal_in_a_passing_failure() {
    let world = world(|best| {
        best.strategy = "fill-first".into();
        best.config = ComboConfig { max_retries: Some(1), ..ComboConfig::default() };
    });
    world.transport.answer(refusal(500, "server_error", "broken")).answer(answer("again"));
    assert_eq!(world.chat(ASK).await.status, 200);
    assert_eq!(tried(&world), [("a".into(), Some(500)), ("a".into(), Some(200))]);
}

#[tokio::test(start_paused = true)]
async fn between_tries_the_upstreams_own_pause_counts_shorter_or_longer() {
    for (asked, seconds) in [(Some("1"), 1..2), (Some("6"), 6..7), (None, 4..5)] {
        let world = world(|best| {
            best.strategy = "fill-first".into();
            best.config =
                ComboConfig { max_retries: Some(1), retry_delay_ms: Some(4_000), ..ComboConfig::default() };
            best.steps.truncate(1);
        });
        let mut refused = refusal(503, "server_error", "busy");
        if let Some(asked) = asked {
            refused = refused.header("retry-after", asked);
        }
        world.transport.answer(refused).answer(answer("again"));
        assert_eq!(world.chat(ASK).await.status, 200);
        assert!(seconds.contains(&world.elapsed().as_secs()), "{asked:?}: {:?}", world.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn round_robin_goes_round_and_the_last_good_one_sticks() {
    let world = world(|best| best.strategy = "round-robin".into());
    for _ in 0..4 {
        world.transport.answer(answer("ok"));
        world.chat(ASK).await;
    }
    let firsts: Vec<_> = (0..3).map(|step| totals(&world, step).0).collect();
    assert_eq!(firsts, [2, 1, 1]);

    let world = self::world(|best| best.strategy = "lkgp".into());
    world
        .transport
        .answer(refusal(500, "server_error", "broken"))
        .answer(answer("b"))
        .answer(answer("b again"));
    world.chat(ASK).await;
    world.chat(ASK).await;
    assert_eq!(tried(&world), [("b".into(), Some(200))]);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_may_not_use_a_target_does_not_reach_it_through_a_combo() {
    let world = World::with(
        |entities| {
            add_best(entities, |_| {});
            entities.api_keys[0].denied_models = vec!["a/*".into(), "b/*".into()];
        },
        |_| {},
    );
    world.transport.answer(answer("from c"));
    let got = world
        .send(&omniroute_dialect::openai::OpenAi, ASK, &[("authorization", &format!("Bearer {KEY}"))])
        .await;
    assert_eq!((got.status, tried(&world)), (200, vec![("c".into(), Some(200))]));

    let world = World::with(
        |entities| {
            add_best(entities, |_| {});
            entities.api_keys[0].denied_models = vec!["*".into()];
        },
        |_| {},
    );
    let got = world
        .send(&omniroute_dialect::openai::OpenAi, ASK, &[("authorization", &format!("Bearer {KEY}"))])
        .await;
    assert_eq!((got.status, world.transport.sent().len()), (403, 0), "{}", got.body);
    assert!(got.body.contains("model_not_allowed"), "nobody tries that again: {}", got.body);
}

#[tokio::test(start_paused = true)]
async fn a_key_without_an_account_at_one_target_is_served_by_the_next() {
    let world = World::with(
        |entities| {
            add_best(entities, |_| {});
            entities.api_keys[0].allowed_connections = vec!["of-b".into()];
        },
        |_| {},
    );
    world.transport.answer(answer("from b"));
    let key = [("authorization", &*format!("Bearer {KEY}"))];
    let got = world.send(&omniroute_dialect::openai::OpenAi, ASK, &key).await;
    assert_eq!((got.status, tried(&world)), (200, vec![("b".into(), Some(200))]), "{}", got.body);
}

#[tokio::test(start_paused = true)]
async fn a_combo_that_leads_nowhere_says_why() {
    let world = world(|best| {
        best.steps.truncate(1);
        best.steps[0].goal = Goal::Model { model: "deepseek/deepseek-chat".into(), connection_id: None };
    });
    let got = world.chat(ASK).await;
    assert_eq!(got.status, 503);
    assert!(got.body.contains("no_targets") && got.body.contains("no active connection"), "{}", got.body);
}

#[tokio::test(start_paused = true)]
async fn a_preview_says_who_would_be_asked_and_who_not_and_changes_nothing() {
    let world = world(|best| best.strategy = "round-robin".into());
    world.transport.answer(refusal(429, "rate_limit_error", "slow down").header("retry-after", "40"));
    world.transport.answer(answer("from b"));
    world.chat(ASK).await;
    let told = |preview: omniroute_engine::preview::Preview| {
        let candidates = preview.candidates.into_iter();
        candidates
            .map(|it| (it.provider.unwrap().as_str().replace("openai-compatible-chat-", ""), it.skip))
            .map(|(name, skip)| (name, skip.map(|skip| (skip.rule, skip.until.map(|until| until - NOW_MS)))))
            .collect::<Vec<_>>()
    };
    for _ in 0..2 {
        let preview = world.preview(ASK).await;
        assert_eq!((preview.via, preview.combo.as_deref()), (Some("combo"), Some("best")));
        assert_eq!(preview.strategy, Some("round-robin"));
        let expected = [
            ("b".to_owned(), None),
            ("c".to_owned(), None),
            ("a".to_owned(), Some(("model_lock", Some(40_000)))),
        ];
        assert_eq!(told(preview), expected, "looking twice shows the same");
    }
    world.transport.answer(answer("from b"));
    world.chat(ASK).await;
    assert_eq!(tried(&world), [("b".into(), Some(200))], "as was foretold");
    let rows = world.recorded.rows.lock().unwrap().len();
    assert_eq!((rows, world.transport.sent().len()), (2, 3), "nothing was sent or logged for it");

    let unknown = world.preview(&ASK.replace("best", "nobody/x")).await;
    assert_eq!(unknown.error.unwrap().code.as_deref(), Some("unknown_provider"));
    let direct = world.preview(&ASK.replace("best", "up/m")).await;
    assert_eq!((direct.via, direct.candidates.len()), (Some("direct"), 2));
}
