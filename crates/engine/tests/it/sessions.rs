//! Conversations that stay with their account.

use std::time::Duration;

use omniroute_dialect::{Dialect, anthropic::Anthropic, openai::OpenAi};
use omniroute_domain::entity::Entities;
use omniroute_engine::ports::Memory;

use crate::world::{ASK, Got, KEY, World, answer, refusal};

fn world(change: impl FnOnce(&mut Entities)) -> World {
    World::with(
        |entities| {
            entities.settings.session_affinity_ttl_ms = 1_800_000;
            entities.settings.fallback_strategy = "round-robin".into();
            entities.settings.sticky_round_robin_limit = 1;
            change(entities);
        },
        |_| {},
    )
}

/// One turn of a conversation that began with `opening`; the account that answered.
async fn turn(world: &World, opening: &str, headers: &[(&str, &str)]) -> (String, Got) {
    world.transport.answer(answer("ok"));
    let got = world.send(&OpenAi, &ASK.replace("hi", opening), headers).await;
    assert_eq!(got.status, 200, "{}", got.body);
    (world.row().connection_name.unwrap().to_string(), got)
}

#[tokio::test(start_paused = true)]
async fn a_conversation_stays_with_its_account_and_others_go_round() {
    let world = world(|_| {});
    let (first, got) = turn(&world, "one", &[]).await;
    let id = got.header("x-omniroute-session-id").to_owned();
    assert_eq!(id.len(), 16, "{id}");
    let (second, _) = turn(&world, "two", &[]).await;
    assert_ne!(first, second, "round-robin");
    for _ in 0..3 {
        let (again, got) = turn(&world, "one", &[]).await;
        assert_eq!((again, got.header("x-omniroute-session-id")), (first.clone(), &*id));
    }
    assert_eq!(turn(&world, "three", &[]).await.0, first, "whoever stays takes nobody's turn");
    // Silent for half an hour: it is another conversation now.
    tokio::time::advance(Duration::from_secs(1_800)).await;
    assert_eq!(turn(&world, "one", &[]).await.0, second);
}

#[tokio::test(start_paused = true)]
async fn the_clients_name_for_it_comes_first_and_belongs_to_its_key() {
    let world = world(|_| {});
    let key = format!("Bearer {KEY}");
    let named = [("x-session-id", "abc"), ("x-omniroute-session", "mine"), ("thread-id", "x")];
    let (account, got) = turn(&world, "one", &named).await;
    assert_eq!(got.header("x-omniroute-session-id"), "ext:mine");
    assert_eq!(turn(&world, "something else", &named).await.0, account);
    let with_key = [("x-omniroute-session", "mine"), ("authorization", &*key)];
    assert_ne!(turn(&world, "one", &with_key).await.0, account, "another key, another conversation");
    let body = ASK.replace("\"messages\"", "\"prompt_cache_key\":\"k\",\"messages\"");
    world.transport.answer(answer("ok"));
    let got = world.send(&OpenAi, &body, &[]).await;
    assert_eq!(got.header("x-omniroute-session-id"), "ext:k");
}

#[tokio::test(start_paused = true)]
async fn an_account_that_cannot_serve_is_left_and_the_next_one_stayed_with() {
    let world = world(|_| {});
    let (first, _) = turn(&world, "one", &[]).await;
    world.transport.answer(refusal(429, "rate_limit_error", "slow").header("retry-after", "20"));
    let (second, _) = turn(&world, "one", &[]).await;
    assert_ne!(first, second);
    tokio::time::advance(Duration::from_secs(30)).await;
    assert_eq!(turn(&world, "one", &[]).await.0, second, "it does not go back");
}

#[tokio::test(start_paused = true)]
async fn a_short_hold_is_waited_out_for_the_sake_of_the_vendors_cache() {
    let world = world(|entities| {
        entities.settings.resilience.request_queue.min_time_between_requests_ms = 400;
    });
    let (first, _) = turn(&world, "one", &[]).await;
    assert_eq!(turn(&world, "one", &[]).await.0, first);
    assert_eq!(world.elapsed().as_millis() / 100, 4);
}

#[tokio::test(start_paused = true)]
async fn with_one_account_nothing_is_looked_at() {
    let world = world(|_| {});
    world.transport.answer(omniroute_testkit::Answer::json(
        200,
        r#"{"id":"x","type":"message","role":"assistant","model":"m","content":[{"type":"text","text":"ok"}],"stop_reason":"end_turn","usage":{"input_tokens":1,"output_tokens":1}}"#,
    ));
    let ask = r#"{"model":"anth/m","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}"#;
    let got = world.send(&Anthropic as &dyn Dialect, ask, &[]).await;
    assert_eq!((got.status, got.header("x-omniroute-session-id")), (200, ""));
    assert!(world.engine.live.sessions.list(1_800_000, world.engine.clock.now_ms()).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_key_has_as_many_conversations_as_it_may_have() {
    let world = world(|entities| entities.api_keys[0].max_sessions = 2);
    let key = format!("Bearer {KEY}");
    let headers = [("authorization", &*key)];
    turn(&world, "one", &headers).await;
    turn(&world, "two", &headers).await;
    let refused = world.send(&OpenAi, &ASK.replace("hi", "three"), &headers).await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, "1800"), "{}", refused.body);
    assert!(refused.body.contains("2 conversations at once"), "{}", refused.body);
    turn(&world, "two", &headers).await;
    turn(&world, "three", &[]).await;
}

#[tokio::test(start_paused = true)]
async fn a_conversation_finds_its_account_after_a_restart() {
    let before = world(|_| {});
    turn(&before, "one", &[]).await;
    let (account, _) = turn(&before, "two", &[]).await;
    assert_eq!(account, "second");
    let memories = before.recorded.memories.lock().unwrap().clone();
    let after = world(|_| {});
    for memory in memories {
        assert!(matches!(memory, Memory::Pinned(_)), "{memory:?}");
        after.engine.restore(memory);
    }
    assert_eq!(turn(&after, "two", &[]).await.0, "second");
    assert_eq!(turn(&after, "one", &[]).await.0, "first");
}
