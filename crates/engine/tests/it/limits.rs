//! Requests that are held back before the upstream has to refuse them, and how long they wait.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use omniroute_domain::entity::{ConnectionId, Entities};
use omniroute_engine::ports::Memory;
use omniroute_testkit::Answer;

use crate::world::{ASK, World, answer, refusal};

/// One account at `up`, and these ceilings.
fn alone(change: impl FnOnce(&mut Entities)) -> World {
    World::with(
        |entities| {
            entities.connections.retain(|row| row.id != ConnectionId::from("c2"));
            change(entities);
        },
        |_| {},
    )
}

fn with_limits(remaining: u64, limit: u64, reset: &str) -> Answer {
    answer("ok")
        .header("x-ratelimit-limit-requests", &limit.to_string())
        .header("x-ratelimit-remaining-requests", &remaining.to_string())
        .header("x-ratelimit-reset-requests", reset)
}

#[tokio::test(start_paused = true)]
async fn what_the_vendor_says_is_left_is_what_is_asked_until_it_counts_anew() {
    let world = alone(|_| {});
    world.transport.answer(with_limits(1, 100, "8s"));
    world.chat(ASK).await;
    world.transport.answer(answer("the last one"));
    assert_eq!(world.chat(ASK).await.status, 200);
    assert_eq!(world.elapsed(), Duration::ZERO, "one was left");
    world.transport.answer(answer("anew"));
    assert_eq!(world.chat(ASK).await.status, 200);
    assert_eq!(world.elapsed().as_secs(), 8);
    assert_eq!(world.transport.sent().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn another_account_is_asked_rather_than_waited_for() {
    let world = World::new();
    world.transport.answer(with_limits(0, 100, "8s"));
    world.chat(ASK).await;
    world.transport.answer(answer("by the second"));
    assert_eq!(world.chat(ASK).await.status, 200);
    assert_eq!(world.row().connection_name.as_deref(), Some("second"));
    assert_eq!(world.elapsed(), Duration::ZERO);
    let preview = world.preview(ASK).await;
    let rules: Vec<_> = preview.candidates.iter().map(|it| it.skip.as_ref().map(|skip| skip.rule)).collect();
    assert_eq!(rules, [None, Some("rate_limit")]);
    // What is known concerns the model that it was said of.
    world.transport.answer(answer("another model"));
    world.chat(&ASK.replace("up/m", "up/other")).await;
    assert_eq!(world.row().connection_name.as_deref(), Some("first"));
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_minutes() {
    let world = alone(|_| {});
    world.transport.answer(with_limits(0, 100, "2m"));
    world.chat(ASK).await;
    let got = world.chat(ASK).await;
    assert_eq!((got.status, world.elapsed()), (429, Duration::ZERO), "two minutes are not worth a wait");
    assert_eq!(got.header("retry-after"), "120");
    assert!(got.body.contains("rate_limit_queue_full") && got.body.contains("retry_at"), "{}", got.body);
    assert_eq!(world.transport.sent().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_waits_of_a_request_do_not_add_up() {
    for (retry_after, status, seconds) in [("17", 200, 29), ("20", 429, 12)] {
        let world = alone(|_| {});
        world.transport.answer(with_limits(0, 100, "12s"));
        world.chat(ASK).await;
        let limited = refusal(429, "rate_limit_exceeded", "slow down").header("retry-after", retry_after);
        world.transport.answer(limited).answer(answer("after all"));
        let got = world.chat(ASK).await;
        assert_eq!((got.status, world.elapsed().as_secs()), (status, seconds), "{}", got.body);
    }
}

#[tokio::test(start_paused = true)]
async fn who_comes_back_soon_is_waited_for_whatever_the_others_say() {
    let limited = || refusal(429, "rate_limit_exceeded", "slow down").header("retry-after", "2");
    let refused = || refusal(401, "invalid_request_error", "Incorrect API key");
    for answers in [[limited(), refused()], [refused(), limited()]] {
        let world = World::new();
        for answer in answers {
            world.transport.answer(answer);
        }
        world.transport.answer(answer("after all"));
        let got = world.chat(ASK).await;
        assert_eq!((got.status, world.elapsed().as_secs()), (200, 2), "{}", got.body);
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_in_the_queue_is_bounded_and_that_of_the_answer_is_not() {
    let world = alone(|entities| entities.settings.resilience.request_queue.concurrent_requests = 1);
    world.transport.answer(answer("slow").after(Duration::from_secs(40)));
    let (slow, waiting) = tokio::join!(world.chat(ASK), world.chat(ASK));
    assert_eq!((slow.status, waiting.status), (200, 429), "{}", waiting.body);
    assert!(waiting.body.contains("rate_limit_queue_full"));
    assert_eq!(world.elapsed().as_secs(), 40, "the running one was not cut");
    let waited = world.recorded.rows.lock().unwrap()[0].duration_ms;
    assert_eq!(waited / 1_000, 15);
}

#[tokio::test(start_paused = true)]
async fn a_change_of_the_account_takes_nobody_out_of_its_queue() {
    fn one_at_once(entities: &mut Entities) {
        entities.settings.resilience.request_queue.concurrent_requests = 1;
    }
    for is_gone in [false, true] {
        let world = alone(one_at_once);
        world.transport.answer(answer("slow").after(Duration::from_secs(10))).answer(answer("waited"));
        let changes = async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            world.reconfigure(|entities| {
                one_at_once(entities);
                entities.connections.retain(|row| row.id != ConnectionId::from("c2"));
                entities.connections[0].name = "renamed".into();
                entities.connections[0].is_active = !is_gone;
            });
        };
        let (slow, waited, ()) = tokio::join!(world.chat(ASK), world.chat(ASK), changes);
        assert_eq!((slow.status, waited.status), (200, 200), "{}", waited.body);
        assert!(waited.body.contains("waited") && world.elapsed().as_secs() == 10, "{}", waited.body);
        if is_gone {
            assert_eq!(world.chat(ASK).await.status, 400, "it is out of use for those that come later");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_go_in_the_order_in_which_they_came() {
    let world = Arc::new(alone(|entities| {
        entities.settings.resilience.request_queue.min_time_between_requests_ms = 100;
    }));
    for _ in 0..20 {
        world.transport.answer(answer("ok"));
    }
    let asked = (0..20).map(|n| {
        let world = world.clone();
        async move { world.chat(&ASK.replace("hi", &format!("number {n:02}"))).await.status }
    });
    let statuses = join_all(asked).await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    let order: Vec<String> = world
        .transport
        .sent()
        .iter()
        .map(|sent| String::from_utf8_lossy(&sent.body).split("number ").nth(1).unwrap()[..2].to_owned())
        .collect();
    let expected: Vec<String> = (0..20).map(|n| format!("{n:02}")).collect();
    assert_eq!(order, expected);
    let took = world.elapsed().as_millis();
    assert!((1_900..1_950).contains(&took), "{took} ms");
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_at_once_and_says_when_to_come_back() {
    let world = Arc::new(alone(|entities| {
        let queue = &mut entities.settings.resilience.request_queue;
        (queue.concurrent_requests, queue.max_queue_depth) = (1, 2);
    }));
    for _ in 0..3 {
        world.transport.answer(answer("ok").after(Duration::from_secs(1)));
    }
    let asked = (0..5).map(|_| {
        let world = world.clone();
        async move {
            let got = world.chat(ASK).await;
            (got.status, world.elapsed().as_secs(), got.header("retry-after").to_owned())
        }
    });
    let mut got = join_all(asked).await;
    got.sort();
    let kept = |at| (200, at, String::new());
    let refused = (429, 0, "1".to_owned());
    assert_eq!(got, [kept(1), kept(2), kept(3), refused.clone(), refused]);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_away_leaves_the_queue() {
    let world = alone(|entities| {
        let queue = &mut entities.settings.resilience.request_queue;
        (queue.concurrent_requests, queue.max_queue_depth) = (1, 1);
    });
    world.transport.answer(answer("first").after(Duration::from_secs(5)));
    world.transport.answer(answer("third"));
    let snapshot = world.engine.live.load();
    let gate = &snapshot.connection(&ConnectionId::from("c1")).unwrap().health.gate;
    let others = async {
        let gone = tokio::time::timeout(Duration::from_secs(2), world.chat(ASK)).await;
        assert!(gone.is_err(), "it waits");
        assert_eq!(gate.view(0).queued, 0, "its place is free");
        world.chat(ASK).await
    };
    let (running, third) = tokio::join!(world.chat(ASK), others);
    assert_eq!((running.status, third.status, world.elapsed().as_secs()), (200, 200, 5));
    let status = world.recorded.rows.lock().unwrap()[0].status;
    assert_eq!(status, 499, "who went away is in the log");
    assert_eq!((gate.view(0).queued, gate.view(0).running), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_place_is_given_back_when_the_call_fails() {
    let world = alone(|entities| {
        entities.settings.resilience.request_queue.concurrent_requests = 1;
        entities.settings.request_retry = 0;
    });
    for _ in 0..3 {
        world.transport.answer(refusal(400, "invalid_request_error", "no"));
        assert_eq!(world.chat(ASK).await.status, 400);
    }
    let snapshot = world.engine.live.load();
    let connection = snapshot.connection(&ConnectionId::from("c1")).unwrap();
    assert_eq!((connection.health.gate.view(0).running, connection.health.in_flight()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn an_account_that_is_let_alone_is_never_held_back() {
    let world = alone(|entities| {
        for row in &mut entities.connections {
            row.options.limiter = Some(false);
        }
    });
    world.transport.answer(with_limits(0, 100, "8s"));
    world.chat(ASK).await;
    world.transport.answer(answer("at once"));
    assert_eq!((world.chat(ASK).await.status, world.elapsed()), (200, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_failure_teaches_too_and_what_was_learned_outlives_the_process() {
    let world = alone(|entities| entities.settings.request_retry = 0);
    let refused = refusal(429, "rate_limit_error", "slow down")
        .header("retry-after", "3")
        .header("x-ratelimit-limit-requests", "100")
        .header("x-ratelimit-remaining-requests", "0")
        .header("x-ratelimit-reset-requests", "10s");
    world.transport.answer(refused);
    assert_eq!(world.chat(ASK).await.status, 429);
    let memories = world.recorded.memories.lock().unwrap().clone();
    let is_taught = |memory: &Memory| matches!(memory, Memory::Limits(row) if row.model == "m");
    assert!(memories.iter().any(is_taught), "{memories:?}");

    let after = alone(|_| {});
    for memory in memories {
        after.engine.restore(memory);
    }
    after.transport.answer(answer("ok"));
    assert_eq!(after.chat(ASK).await.status, 200);
    assert_eq!(after.elapsed().as_secs(), 10, "it waited as the process before would have");
}

#[tokio::test(start_paused = true)]
async fn two_hundred_and_fifty_six_at_once_keep_to_the_limit() {
    let world = Arc::new(alone(|entities| {
        let queue = &mut entities.settings.resilience.request_queue;
        (queue.concurrent_requests, queue.max_queue_depth, queue.max_wait_ms) = (8, 1_000, 600_000);
    }));
    for _ in 0..256 {
        world.transport.answer(answer("ok").after(Duration::from_secs(1)));
    }
    let asked = (0..256).map(|_| {
        let world = world.clone();
        async move { world.chat(ASK).await.status }
    });
    let statuses = join_all(asked).await;
    assert!(statuses.iter().all(|status| *status == 200));
    assert_eq!(world.elapsed().as_secs(), 32, "eight at a time, one second each");
}
