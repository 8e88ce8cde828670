//! Providers that are out of order, and what must not make them look so.

use std::time::Duration;

use omniroute_domain::breaker::BreakerState;
use omniroute_domain::entity::Entities;
use omniroute_domain::timeline::EventKind;
use omniroute_engine::ports::{Memory, TransportError};
use omniroute_testkit::Answer;

use crate::combos;
use crate::world::{ASK, ASK_STREAM, NOW_MS, World, answer, chunk, combo, refusal, stream};

const UP: &str = "openai-compatible-chat-1";

/// Three failures open a breaker, for half a minute.
fn touchy(entities: &mut Entities) {
    let chosen = &mut entities.settings.resilience.profiles.apikey;
    chosen.failure_threshold = Some(3);
    chosen.degradation_threshold = Some(2);
    entities.settings.request_retry = 0;
}

fn world() -> World {
    World::with(touchy, |_| {})
}

/// State and number of failures of the breaker of `up`.
fn breaker(world: &World) -> (BreakerState, u32) {
    let live = world.engine.live.load();
    let provider = live.provider(&UP.into()).unwrap();
    let record = provider.connections[0].breaker.record(world.engine.clock.now_ms());
    (record.state, record.failure_count)
}

/// Breaks `up` with three failures; half a second later the locks that they left are the only ones in force.
async fn broken() -> World {
    let world = world();
    world.transport.answer(refusal(500, "server_error", "a")).answer(refusal(500, "server_error", "b"));
    assert_eq!(world.chat(ASK).await.status, 500);
    assert_eq!(breaker(&world), (BreakerState::Degraded, 2));
    tokio::time::advance(Duration::from_secs(5)).await;
    world.transport.answer(refusal(502, "server_error", "c"));
    assert_eq!(world.chat(ASK).await.status, 502, "the second account is not asked any more");
    assert_eq!((breaker(&world), world.transport.sent().len()), ((BreakerState::Open, 3), 3));
    world
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_is_out_of_order_is_not_asked_until_one_probe_answers() {
    let world = broken().await;
    let got = world.chat(ASK).await;
    assert_eq!((got.status, got.header("x-omniroute-provider-breaker")), (503, "open"));
    assert_eq!(got.header("retry-after"), "30");
    assert!(got.body.contains("provider_circuit_open") && got.body.contains("up/m"), "{}", got.body);
    assert!(got.body.contains("`up` has failed too often") && !got.body.contains(UP), "{}", got.body);
    // Of another model of the same provider nothing is known that speaks against it.
    world.transport.answer(answer("another"));
    let other = world.chat(&ASK.replace("up/m", "up/other")).await;
    assert_eq!((other.status, world.transport.sent().len()), (200, 4));
    let got = world.chat(ASK).await;
    assert_eq!((got.status, world.transport.sent().len()), (503, 4), "which says nothing of the first one");

    tokio::time::advance(Duration::from_secs(31)).await;
    world.transport.answer(answer("back"));
    let got = world.chat(ASK).await;
    assert_eq!((got.status, got.header("x-omniroute-provider-breaker")), (200, ""));
    assert_eq!(breaker(&world), (BreakerState::Closed, 0));

    let events = world.engine.live.health.timeline.latest(10, |event| event.kind == EventKind::Breaker);
    let told: Vec<_> = events.iter().map(|event| (event.from, event.to, event.cause)).collect();
    assert_eq!(
        told,
        [
            ("CLOSED", "DEGRADED", "transient"),
            ("DEGRADED", "OPEN", "transient"),
            ("OPEN", "HALF_OPEN", "probe"),
            ("HALF_OPEN", "CLOSED", "answered"),
        ]
    );
    assert_eq!(events[1].until, Some(NOW_MS + 35_000));
    let memories = world.recorded.memories.lock().unwrap();
    let written = memories.iter().filter(|memory| matches!(memory, Memory::Breaker(_))).count();
    assert_eq!(written, 4, "each change is kept for the time after a restart, and nothing else");
}

#[tokio::test(start_paused = true)]
async fn a_probe_whose_client_goes_away_leaves_its_place_to_the_next() {
    let world = broken().await;
    tokio::time::advance(Duration::from_secs(31)).await;
    world.transport.answer(answer("too late").after(Duration::from_secs(60)));
    let gone = tokio::time::timeout(Duration::from_secs(1), world.chat(ASK)).await;
    assert!(gone.is_err() && world.transport.cancelled() == 1);
    assert_eq!(breaker(&world).0, BreakerState::HalfOpen);
    world.transport.answer(answer("back"));
    assert_eq!(world.chat(ASK).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn while_a_probe_is_under_way_nobody_else_asks() {
    let world = broken().await;
    tokio::time::advance(Duration::from_secs(31)).await;
    world.transport.answer(answer("slow").after(Duration::from_secs(5)));
    let (probe, other) = tokio::join!(world.chat(ASK), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        world.chat(ASK).await
    });
    assert_eq!((probe.status, other.status), (200, 503));
    assert_eq!(other.header("retry-after"), "1");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_off_counts_and_a_probe_is_over_at_its_first_content() {
    let world = broken().await;
    tokio::time::advance(Duration::from_secs(31)).await;
    world.transport.answer(stream().send(chunk("one")).pause(Duration::from_secs(2)).abort());
    let got = world.send(&omniroute_dialect::openai::OpenAi, ASK_STREAM, &[]).await;
    assert!(got.body.contains("one") && got.body.contains("upstream_stream_truncated"), "{}", got.body);
    assert_eq!(breaker(&world), (BreakerState::Closed, 1));
}

#[tokio::test(start_paused = true)]
async fn a_combo_passes_over_targets_whose_provider_is_out_of_order() {
    let world = World::with(
        |entities| {
            combos::add_best(entities, |_| {});
            touchy(entities);
            entities.settings.resilience.profiles.apikey.failure_threshold = Some(1);
        },
        |_| {},
    );
    world.transport.answer(refusal(500, "server_error", "no")).answer(answer("from b"));
    assert_eq!(world.chat(combos::ASK).await.status, 200);
    tokio::time::advance(Duration::from_secs(10)).await;
    world.transport.answer(answer("from b again"));
    assert_eq!(world.chat(combos::ASK).await.status, 200);
    assert_eq!(combos::tried(&world), [("b".to_owned(), Some(200))]);

    for text in ["b", "c"] {
        world.transport.answer(refusal(503, "server_error", text));
    }
    assert_eq!(world.chat(combos::ASK).await.status, 503);
    let sent = world.transport.sent().len();
    tokio::time::advance(Duration::from_secs(10)).await;
    let got = world.chat(combos::ASK).await;
    assert_eq!((got.status, got.header("x-omniroute-provider-breaker")), (503, "open"));
    assert!(got.body.contains("all_circuits_open") && got.body.contains("best"), "{}", got.body);
    assert_eq!(got.header("retry-after"), "10", "the first of them opened twenty seconds ago");
    assert_eq!(world.transport.sent().len(), sent);
}

#[tokio::test(start_paused = true)]
async fn an_explanation_names_the_breaker_and_when_it_ends() {
    let world = broken().await;
    let preview = world.preview(ASK).await;
    let skips: Vec<_> = preview
        .candidates
        .iter()
        .map(|candidate| candidate.skip.as_ref().map(|skip| (skip.rule, &*skip.reason, skip.until)))
        .collect();
    assert_eq!(skips, [Some(("breaker", "transient", Some(NOW_MS + 35_000))); 2]);
}

#[tokio::test(start_paused = true)]
async fn an_own_machine_with_one_address_is_always_asked() {
    let local = |entities: &mut Entities| {
        touchy(entities);
        entities.nodes[0].base_url = "http://127.0.0.1:9/v1".into();
        entities.nodes[0].allow_private = true;
        entities.connections.retain(|connection| connection.id.as_str() != "c2");
    };
    let chosen = |entities: &mut Entities| {
        local(entities);
        entities.settings.resilience.profiles.local.failure_threshold = Some(2);
    };
    for (change, expected) in [(&local as &dyn Fn(&mut Entities), 500), (&chosen, 503)] {
        let world = World::with(change, |_| {});
        for _ in 0..3 {
            world.transport.answer(refusal(500, "server_error", "no"));
        }
        let mut last = 0;
        for _ in 0..3 {
            last = world.chat(ASK).await.status;
            tokio::time::advance(Duration::from_secs(12)).await;
        }
        assert_eq!(last, expected);
    }
}

/// A client of the original found its providers shut after it had been refused by the gateway itself.
#[tokio::test(start_paused = true)]
async fn local_refusals_and_refusals_of_accounts_never_open_a_breaker() {
    let world = world();
    for (status, kind) in [
        (429, "rate_limit_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (402, "insufficient_quota"),
        (400, "invalid_request_error"),
    ] {
        for _ in 0..4 {
            world.transport.answer(refusal(status, kind, "no")).answer(refusal(status, kind, "no"));
            world.chat(ASK).await;
            // Everybody is cooling down now: these are refused here.
            for _ in 0..5 {
                if status != 400 {
                    world.chat(ASK).await;
                }
            }
            tokio::time::advance(Duration::from_secs(4_000)).await;
            while world.transport.left() > 0 {
                world.chat(ASK).await;
                tokio::time::advance(Duration::from_secs(4_000)).await;
            }
        }
        assert_eq!(breaker(&world), (BreakerState::Closed, 0), "{status}");
    }
    // Clients that go away, addresses that may not be called.
    for _ in 0..5 {
        world.transport.answer(answer("late").after(Duration::from_secs(60)));
        assert!(tokio::time::timeout(Duration::from_secs(1), world.chat(ASK)).await.is_err());
    }
    for _ in 0..6 {
        for _ in 0..2 {
            let blocked = omniroute_provider::address::verdict([127, 0, 0, 1].into(), false).unwrap_err();
            world.transport.fail(Duration::ZERO, TransportError::AddressBlocked(blocked));
        }
        world.chat(ASK).await;
        tokio::time::advance(Duration::from_secs(200)).await;
    }
    assert_eq!(breaker(&world), (BreakerState::Closed, 0));
}

/// Two models of one account behind one name.
fn two_models(entities: &mut Entities) {
    entities.connections.retain(|connection| connection.id.as_str() != "c2");
    entities.settings.request_retry = 0;
    entities.combos.push(combo("best", &["up/large", "up/small"]));
}

/// In the original one 500 of a model put the account on cooldown, so that the next target of the combo, another model of the
/// same account, was refused with the first one's words.
#[tokio::test(start_paused = true)]
async fn a_model_that_fails_does_not_keep_the_next_target_from_the_same_account() {
    for status in [500, 502, 503, 429, 404, 403] {
        let world = World::with(two_models, |_| {});
        world.transport.answer(refusal(status, "x", "the large one is ill")).answer(answer("small"));
        let got = world.chat(combos::ASK).await;
        assert_eq!((got.status, got.header("x-omniroute-model")), (200, "small"), "{status}");
        // While the large one is locked, a failure of the small one is told as its own.
        world.transport.answer(refusal(500, "server_error", "the small one is ill"));
        let got = world.chat(&ASK.replace("up/m", "up/small")).await;
        assert!(got.body.contains("[up/small]") && !got.body.contains("large"), "{}", got.body);
        let got = world.chat(&ASK.replace("up/m", "up/small")).await;
        assert!(got.body.contains("up/small") && !got.body.contains("large"), "{}", got.body);
    }
}

/// The original let requests wait for minutes on a twenty-second hint and then said 502.
#[tokio::test(start_paused = true)]
async fn a_request_waits_for_cooldowns_no_longer_than_it_may_and_then_says_when() {
    for (hint, expected) in [("20", 200), ("31", 429)] {
        let world = World::new();
        for _ in 0..2 {
            world.transport.answer(refusal(429, "rate_limit_error", "no").header("retry-after", hint));
        }
        world.transport.answer(answer("after the pause"));
        let got = world.chat(ASK).await;
        assert_eq!(got.status, expected, "{}", got.body);
        if expected == 429 {
            assert_eq!((got.header("retry-after"), world.elapsed()), ("31", Duration::ZERO));
        } else {
            assert!(world.elapsed() < Duration::from_secs(21));
        }
    }
    // Again and again: one deadline for all waits of a request.
    let world = World::with(|entities| entities.settings.request_retry = 10, |_| {});
    for _ in 0..20 {
        world.transport.answer(refusal(429, "rate_limit_error", "no").header("retry-after", "12"));
    }
    let got = world.chat(ASK).await;
    assert_eq!((got.status, got.header("retry-after")), (429, "12"));
    assert!(world.elapsed() <= Duration::from_secs(30), "{:?}", world.elapsed());
    // And not at all where the operator says so.
    let world = World::with(|entities| entities.settings.resilience.wait_for_cooldown = false, |_| {});
    for _ in 0..2 {
        world.transport.answer(refusal(429, "rate_limit_error", "no").header("retry-after", "2"));
    }
    assert_eq!((world.chat(ASK).await.status, world.elapsed()), (429, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn what_a_process_learned_holds_in_the_next_one() {
    let before = broken().await;
    before.transport.answer(Answer::json(429, "{}").header("retry-after", "600"));
    let anthropic = ASK.replace("up/m", "anth/m");
    before.chat(&anthropic).await;
    let after = world();
    tokio::time::advance(Duration::from_secs(1)).await;
    for memory in before.recorded.memories.lock().unwrap().drain(..) {
        after.engine.restore(memory);
    }
    let got = after.chat(ASK).await;
    assert_eq!((got.status, got.header("x-omniroute-provider-breaker")), (503, "open"));
    let got = after.chat(&anthropic).await;
    assert_eq!(got.status, 429, "{}", got.body);
    assert_eq!(after.transport.sent().len(), 0);
}

/// The breaker opens while the combo asks for the model that fails, with both accounts of a provider that is allowed two failures.
#[tokio::test(start_paused = true)]
async fn a_model_that_opens_the_breaker_leaves_the_next_one_of_the_provider_its_turn() {
    let two = |entities: &mut Entities| {
        touchy(entities);
        entities.settings.resilience.profiles.apikey.failure_threshold = Some(2);
        entities.combos.push(combo("best", &["up/bad", "up/good"]));
    };
    let world = World::with(two, |_| {});
    for _ in 0..2 {
        world.transport.answer(refusal(500, "server_error", "bad"));
    }
    for place in 0..3 {
        world.transport.answer(answer("good"));
        let got = world.chat(&ASK.replace("up/m", "best")).await;
        assert_eq!((got.status, world.elapsed()), (200, Duration::ZERO), "{}", got.body);
        assert_eq!((breaker(&world), world.transport.sent().len()), ((BreakerState::Open, 2), 3 + place));
    }
}

/// Three failures, and the request is over: it is not for it to wait until the breaker closes.
#[tokio::test(start_paused = true)]
async fn a_request_that_opens_the_breaker_does_not_wait_for_it() {
    let two = |entities: &mut Entities| {
        touchy(entities);
        entities.settings.request_retry = 3;
        entities.settings.resilience.profiles.apikey.failure_threshold = Some(2);
        entities.combos.push(combo("best", &["up/m"]));
    };
    for model in ["up/m", "best"] {
        let world = World::with(two, |_| {});
        for _ in 0..2 {
            world.transport.answer(refusal(500, "server_error", "bad"));
        }
        let got = world.chat(&ASK.replace("up/m", model)).await;
        assert_eq!((got.status, world.transport.sent().len()), (500, 2), "{}", got.body);
        assert!(world.elapsed() < Duration::from_secs(5), "{model}: {:?}", world.elapsed());
    }
}
