//! Clients that leave: the upstream call ends within a second, the place is free, and the log says 499.

use std::time::{Duration, Instant};

use omniroute_testkit::Answer;
use serde_json::json;

use crate::client::Call;
use crate::gateway::Gateway;
use crate::world::{COMPLETION, EVENTS, World, add_key, chat, stream};

const LIMIT: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_client_that_leaves_takes_the_upstream_call_with_it() {
    let world = World::start().await;
    let mut left = 0;
    for (call, answer, waits_for) in [
        // Before the upstream has said anything, streamed or not.
        (chat("up/m"), Answer::json(200, COMPLETION).after(Duration::from_secs(60)), None),
        (stream("up/m"), Answer::sse(&EVENTS).after(Duration::from_secs(60)), None),
        // Within an answer that is read whole.
        (chat("up/m"), Answer::json(200, "{").hang(), None),
        // In mid-stream.
        (stream("up/m"), Answer::sse(&EVENTS[..1]).hang(), Some("one")),
    ] {
        world.upstream.answer(answer);
        let mut line = world.gateway.line().await;
        line.write(&call.bytes()).await;
        left += 1;
        world.upstream.request(left).await;
        if let Some(text) = waits_for {
            line.head().await;
            line.read_until(text).await;
        }
        let began = Instant::now();
        drop(line);
        world.upstream.hung_up(left).await;
        assert!(began.elapsed() < LIMIT, "{:?}", began.elapsed());
    }
    let rows = world.gateway.logged(left).await;
    for row in &rows {
        assert_eq!(row["status"], 499, "{row}");
        assert_eq!(row["provider"], world.node.as_str(), "{row}");
    }
    // Leaving says nothing about the account.
    assert_eq!(world.chat("up/m").await.status, 200);
}

#[tokio::test]
async fn what_was_used_before_leaving_is_counted() {
    let world = World::start().await;
    world.upstream.answer(Answer::sse(&EVENTS[..2]).hang());
    let mut line = world.gateway.line().await;
    line.write(&stream("up/m").bytes()).await;
    line.head().await;
    line.read_until("two").await;
    drop(line);
    world.upstream.hung_up(1).await;
    let row = &world.gateway.logged(1).await[0];
    assert_eq!((&row["status"], &row["estimated"]), (&json!(499), &json!(true)));
    assert!(row["tokens"]["out"].as_i64().unwrap() > 0, "{row}");
}

#[tokio::test]
async fn a_place_that_a_client_held_is_free_when_it_has_left() {
    let world = World::start().await;
    let key = add_key(&world.gateway, json!({"maxConcurrent": 1})).await;
    world.upstream.answer(Answer::sse(&EVENTS[..1]).hang());
    let mut line = world.gateway.line().await;
    line.write(&stream("up/m").bearer(&key).bytes()).await;
    line.head().await;
    line.read_until("one").await;
    let response = world.gateway.call(&chat("up/m").bearer(&key)).await;
    assert_eq!(response.status, 429, "{}", response.text());
    drop(line);
    world.upstream.hung_up(1).await;
    let began = Instant::now();
    while world.gateway.call(&chat("up/m").bearer(&key)).await.status != 200 {
        assert!(began.elapsed() < LIMIT);
    }
}

#[tokio::test]
async fn slow_senders_hold_nobody_up() {
    let gateway = Gateway::start().await;
    let mut slow = Vec::new();
    for _ in 0..200 {
        let mut line = gateway.line().await;
        line.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nx-slow: ").await;
        slow.push(line);
    }
    for _ in 0..5 {
        assert_eq!(gateway.call(&chat("sim/echo")).await.status, 200);
    }
    assert_eq!(gateway.call(&Call::get("/healthz")).await.status, 200);
}
