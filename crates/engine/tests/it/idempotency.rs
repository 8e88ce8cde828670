//! Requests that are sent again.

#![allow(clippy::disallowed_methods, reason = "clients of a test are tasks of their own")]

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt as _;
use omniroute_dialect::Dialect as _;
use omniroute_dialect::openai::OpenAi;

use crate::world::{ASK, ASK_STREAM, END, Got, KEY, World, answer, chunk, refusal, stream};

const ONCE: &[(&str, &str)] = &[("idempotency-key", "one")];

/// Sends the same request several times at once.
async fn at_once(world: &Arc<World>, body: &'static str, times: usize) -> Vec<Got> {
    let asked: Vec<_> = (0..times)
        .map(|_| {
            let world = world.clone();
            tokio::spawn(async move { world.send(&OpenAi, body, ONCE).await })
        })
        .collect();
    let mut got = Vec::new();
    for one in asked {
        got.push(one.await.unwrap());
    }
    got
}

#[tokio::test(start_paused = true)]
async fn two_at_once_cost_one_call() {
    let world = Arc::new(World::new());
    world.transport.answer(answer("hello").after(Duration::from_secs(3)));
    let got = at_once(&world, ASK, 2).await;
    assert_eq!(world.transport.sent().len(), 1);
    assert_eq!(got[0].body, got[1].body, "the same bytes, the same id");
    let repeated: Vec<_> = got.iter().map(|one| one.header("x-omniroute-idempotent")).collect();
    assert_eq!(repeated, ["", "true"]);
    assert_ne!(got[0].header("x-request-id"), got[1].header("x-request-id"));
    let rows = world.recorded.rows.lock().unwrap().clone();
    let tokens: Vec<_> = rows.iter().map(|row| row.usage.output_total).collect();
    assert_eq!(tokens.iter().flatten().count(), 1, "used once, counted once: {tokens:?}");
    assert!(rows.iter().all(|row| row.status == 200));
    assert!(rows.iter().any(|row| row.attempts.is_empty() && row.cost_nano == Some(0)));
    let mut chosen: Vec<_> = rows
        .iter()
        .map(|row| {
            let decision = row.decision.as_ref().expect("it is written down where it leads");
            (decision.via, decision.candidates(OpenAi.id()).len())
        })
        .collect();
    chosen.sort();
    assert_eq!(chosen, [(Some("direct"), 0), (Some("direct"), 2)], "for the repetition nobody is chosen");
}

#[tokio::test(start_paused = true)]
async fn the_answer_is_repeated_for_five_seconds_after_it_was_given() {
    let world = World::new();
    for text in ["first", "second"] {
        world.transport.answer(answer(text).after(Duration::from_secs(20)));
    }
    let first = world.send(&OpenAi, ASK, ONCE).await;
    tokio::time::advance(Duration::from_millis(4_999)).await;
    assert_eq!(world.send(&OpenAi, ASK, ONCE).await.body, first.body);
    tokio::time::advance(Duration::from_millis(101)).await;
    let later = world.send(&OpenAi, ASK, ONCE).await;
    assert!(later.body.contains("second") && later.header("x-omniroute-idempotent").is_empty());
    assert_eq!(world.transport.sent().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_differs_is_another_request() {
    let key = format!("Bearer {KEY}");
    let other_body = ASK.replace("hi", "ho");
    let cases: [(&str, Vec<(&str, &str)>); 4] = [
        (&other_body, vec![("idempotency-key", "one")]),
        (ASK, vec![("idempotency-key", "two")]),
        (ASK, vec![("idempotency-key", "one"), ("authorization", &key)]),
        (ASK, vec![]),
    ];
    for (body, headers) in cases {
        let world = World::new();
        world.transport.answer(answer("first")).answer(answer("second"));
        world.send(&OpenAi, ASK, ONCE).await;
        let other = world.send(&OpenAi, body, &headers).await;
        assert!(other.body.contains("second"), "{headers:?}: {}", other.body);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_id_is_a_key_too() {
    let world = World::new();
    world.transport.answer(answer("first")).answer(answer("second"));
    let sent = [("x-request-id", "req-1")];
    let first = world.send(&OpenAi, ASK, &sent).await;
    assert_eq!(world.send(&OpenAi, ASK, &sent).await.body, first.body);
    let long = "x".repeat(129);
    let unfit = [("x-request-id", long.as_str())];
    assert!(world.send(&OpenAi, ASK, &unfit).await.body.contains("second"));
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_too_long_is_refused() {
    let world = World::new();
    let long = "k".repeat(256);
    let got = world.send(&OpenAi, ASK, &[("idempotency-key", &long)]).await;
    assert_eq!(got.status, 400);
    assert!(got.body.contains("at most 255 characters"), "{}", got.body);
    assert_eq!(world.row().status, 400);
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_may_pass_is_nobody_elses() {
    let world = Arc::new(World::with(|entities| entities.settings.request_retry = 0, |_| {}));
    for _ in 0..2 {
        world.transport.answer(refusal(500, "server_error", "no").after(Duration::from_secs(1)));
    }
    let got = at_once(&world, ASK, 1).await;
    assert!(got[0].status >= 500);
    tokio::time::advance(Duration::from_secs(60)).await;
    world.transport.answer(answer("now"));
    let again = world.send(&OpenAi, ASK, ONCE).await;
    assert!(again.body.contains("now") && again.header("x-omniroute-idempotent").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_will_not_pass_is_given_to_who_waits_but_not_kept() {
    let world = Arc::new(World::new());
    world.transport.answer(refusal(400, "invalid_request_error", "wrong").after(Duration::from_secs(1)));
    let got = at_once(&world, ASK, 2).await;
    assert!(got.iter().all(|one| one.status == 400 && one.body.contains("wrong")));
    assert_eq!(world.transport.sent().len(), 1);
    world.transport.answer(answer("fine"));
    assert_eq!(world.send(&OpenAi, ASK, ONCE).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_shared_from_its_beginning_and_repeated() {
    let world = Arc::new(World::new());
    let slow = stream()
        .send(chunk("one"))
        .pause(Duration::from_secs(2))
        .send(chunk("two"))
        .pause(Duration::from_secs(2))
        .send(END);
    world.transport.answer(slow);
    let first = world.respond(&OpenAi, ASK_STREAM, ONCE).await;
    let late = {
        let world = world.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(3)).await;
            world.send(&OpenAi, ASK_STREAM, ONCE).await
        })
    };
    assert_eq!((world.engine.shared_answers(), world.engine.repeatable_answers()), (1, 1));
    let body = first.into_body().collect().await.unwrap().to_bytes();
    let late = late.await.unwrap();
    assert_eq!(
        (world.engine.shared_answers(), world.engine.repeatable_answers()),
        (0, 1),
        "it can be repeated"
    );
    assert_eq!(late.body.as_bytes(), body, "{}", late.body);
    assert!(late.body.contains("one") && late.body.ends_with("data: [DONE]\n\n"));
    assert_eq!(late.header("content-type"), "text/event-stream; charset=utf-8");
    let replay = world.send(&OpenAi, ASK_STREAM, ONCE).await;
    assert_eq!((replay.body.as_bytes(), replay.header("x-omniroute-idempotent")), (&*body, "true"));
    assert_eq!(world.transport.sent().len(), 1);
    let rows = world.recorded.rows.lock().unwrap();
    assert_eq!(rows.iter().filter(|row| row.usage.output_total.is_some()).count(), 1);
    assert!(rows.len() == 3 && rows.iter().all(|row| row.status == 200), "{rows:?}");
}

#[tokio::test(start_paused = true)]
async fn a_shared_stream_goes_on_when_its_first_client_leaves_and_ends_with_the_last() {
    let world = Arc::new(World::new());
    world
        .transport
        .answer(stream().send(chunk("one")).pause(Duration::from_secs(2)).send(chunk("two")).hang());
    let mut first = world.respond(&OpenAi, ASK_STREAM, ONCE).await.into_body();
    let mut second = world.respond(&OpenAi, ASK_STREAM, ONCE).await.into_body();
    assert!(first.frame().await.is_some() && second.frame().await.is_some());
    drop(first);
    let frame = second.frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(String::from_utf8_lossy(&frame).contains("two"));
    assert_eq!(world.transport.cancelled(), 0);
    drop(second);
    assert_eq!(world.transport.cancelled(), 1);
    let statuses: Vec<_> = world.recorded.rows.lock().unwrap().iter().map(|row| row.status).collect();
    assert_eq!(statuses, [499, 499]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_broke_off_is_not_repeated() {
    let world = World::new();
    world.transport.answer(stream().send(chunk("par")).abort()).answer(stream().send(chunk("all")).send(END));
    assert!(world.send(&OpenAi, ASK_STREAM, ONCE).await.body.contains("\"error\""));
    tokio::time::advance(Duration::from_secs(4)).await;
    let again = world.send(&OpenAi, ASK_STREAM, ONCE).await;
    assert!(
        again.body.contains("all") && again.header("x-omniroute-idempotent").is_empty(),
        "{}",
        again.body
    );
}

#[tokio::test(start_paused = true)]
async fn who_waits_goes_on_alone_when_the_first_client_leaves() {
    let world = Arc::new(World::new());
    world.transport.answer(answer("lost").after(Duration::from_secs(9))).answer(answer("kept"));
    let waiting = {
        let world = world.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            world.send(&OpenAi, ASK, ONCE).await
        })
    };
    let first = tokio::time::timeout(Duration::from_secs(2), world.send(&OpenAi, ASK, ONCE)).await;
    assert!(first.is_err());
    let got = waiting.await.unwrap();
    assert!(got.body.contains("kept") && got.header("x-omniroute-idempotent").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_long_stream_reaches_everybody_who_is_there_and_nobody_later() {
    let world = Arc::new(World::new());
    let text = "x".repeat(100_000);
    let mut long = stream();
    for _ in 0..30 {
        long = long.send(chunk(&text)).pause(Duration::from_millis(10));
    }
    world.transport.answer(long.send(END)).answer(stream().send(chunk("anew")).send(END));
    let got = at_once(&world, ASK_STREAM, 2).await;
    assert_eq!(world.transport.sent().len(), 1);
    assert!(got[0].body == got[1].body && got[0].body.len() > 3_000_000);
    assert!(world.send(&OpenAi, ASK_STREAM, ONCE).await.body.contains("anew"));
}

#[tokio::test(start_paused = true)]
async fn a_window_of_nothing_switches_it_off() {
    let world = World::with(|entities| entities.settings.idempotency_window_ms = 0, |_| {});
    world.transport.answer(answer("first")).answer(answer("second"));
    world.send(&OpenAi, ASK, ONCE).await;
    assert!(world.send(&OpenAi, ASK, ONCE).await.body.contains("second"));
}

#[tokio::test(start_paused = true)]
async fn answers_are_forgotten_when_they_are_too_old_or_somebody_says_so() {
    let world = World::new();
    world.transport.answer(answer("first")).answer(answer("second"));
    world.send(&OpenAi, ASK, ONCE).await;
    assert_eq!(world.engine.repeatable_answers(), 1);
    tokio::time::advance(Duration::from_secs(6)).await;
    world.engine.sweep();
    assert_eq!((world.engine.repeatable_answers(), world.engine.forget_answers()), (0, 0));
    world.send(&OpenAi, ASK, ONCE).await;
    assert_eq!(world.engine.forget_answers(), 1);
    world.transport.answer(answer("third"));
    assert!(world.send(&OpenAi, ASK, ONCE).await.body.contains("third"));
}
