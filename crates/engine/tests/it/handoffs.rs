//! Conversations that change their account, in a combo whose strategy relays.

use std::sync::atomic::Ordering;
use std::time::Duration;

use omniroute_dialect::openai::OpenAi;
use omniroute_domain::entity::{ApiKeyId, Budget, ComboConfig, Entities};
use omniroute_domain::price::PriceRow;
use omniroute_engine::ports::{Memory, RequestRow};
use omniroute_testkit::Answer;
use serde_json::{Value, json};

use crate::world::{END, Got, KEY, World, answer, chunk, combo, refusal, stream};

const SUMMARY: &str = r#"{\"summary\":\"they plan a walk\",\"keyDecisions\":[\"to go left\"],\"taskProgress\":\"half\",\"activeEntities\":[\"Ada\"]}"#;

/// A combo `best` that hands conversations over between the two accounts of `up`.
fn configured(entities: &mut Entities, config: ComboConfig) {
    let mut best = combo("best", &["up/m"]);
    best.strategy = "context-relay".into();
    best.config = ComboConfig { max_retries: Some(0), ..config };
    entities.combos.push(best);
    entities.settings.session_affinity_ttl_ms = 1_800_000;
}

fn world(config: ComboConfig) -> World {
    World::with(|entities| configured(entities, config), |_| {})
}

/// An answer by an account that has so much left of a hundred.
fn left(answer: Answer, left: &str) -> Answer {
    answer
        .header("x-ratelimit-limit-requests", "100")
        .header("x-ratelimit-remaining-requests", left)
        .header("x-ratelimit-reset-requests", "3600s")
}

fn body(said: &[&str], is_stream: bool) -> String {
    let turns = said
        .iter()
        .enumerate()
        .map(|(at, said)| json!({"role": if at % 2 == 0 { "user" } else { "assistant" }, "content": said}));
    json!({"model": "best", "stream": is_stream, "messages": turns.collect::<Vec<_>>()}).to_string()
}

async fn say(world: &World, said: &[&str]) -> Got {
    send(world, &body(said, false), Some("s1")).await
}

/// What a client with a key sends, with the name of its conversation if it gives one.
async fn send(world: &World, body: &str, name: Option<&str>) -> Got {
    let key = format!("Bearer {KEY}");
    let headers = [("authorization", &*key), ("x-session-id", name.unwrap_or_default())];
    let got = world.send(&OpenAi, body, &headers[..1 + usize::from(name.is_some())]).await;
    settle().await;
    got
}

/// Lets calls end that nobody waits for.
async fn settle() {
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
}

/// The first account answers, is nearly used up, and the conversation is summed up.
async fn summed_up(world: &World) {
    world.transport.answer(left(answer("ok"), "12")).answer(answer(SUMMARY));
    assert_eq!(say(world, &["a walk?", "yes", "where to?"]).await.status, 200);
    assert_eq!((world.transport.left(), known(world)), (0, 1));
}

/// The first account refuses, so the second one answers; what it was sent.
async fn moved(world: &World, said: &[&str]) -> Value {
    world.transport.answer(refusal(429, "rate_limit_error", "slow").header("retry-after", "60"));
    world.transport.answer(answer("from the second"));
    assert_eq!(say(world, said).await.status, 200);
    let row = last(world, "chat");
    assert_eq!((row.connection_name.as_deref(), row.attempts.len()), (Some("second"), 2));
    let sent = world.transport.sent();
    let sent = &sent[sent.len() - 2..];
    assert!(!is_told(&serde_json::from_slice(&sent[0].body).unwrap()), "the first account knows");
    serde_json::from_slice(&sent[1].body).unwrap()
}

fn is_told(sent: &Value) -> bool {
    sent["messages"][0]["content"].as_str().is_some_and(|text| text.contains("<context_handoff>"))
}

fn known(world: &World) -> usize {
    world.engine.live.handoffs.list(world.engine.clock.now_ms()).len()
}

fn last(world: &World, request_type: &str) -> RequestRow {
    let rows = world.recorded.rows.lock().unwrap();
    rows.iter().rev().find(|row| row.request_type == request_type).cloned().expect("no such row")
}

fn memories(world: &World) -> (usize, usize) {
    let memories = world.recorded.memories.lock().unwrap();
    let count = |is_it: fn(&Memory) -> bool| memories.iter().filter(|memory| is_it(memory)).count();
    (
        count(|memory| matches!(memory, Memory::Handoff(_))),
        count(|memory| matches!(memory, Memory::HandoffGone(_))),
    )
}

#[tokio::test(start_paused = true)]
async fn the_next_account_is_told_what_the_request_no_longer_brings() {
    let world = world(ComboConfig::default());
    world.transport.answer(left(answer("ok"), "60"));
    say(&world, &["a walk?"]).await;
    assert_eq!((known(&world), world.transport.sent().len()), (0, 1), "more than enough is left");
    summed_up(&world).await;

    // The summary is a request of its own, for the same caller, and paid for.
    let row = last(&world, "handoff");
    assert_eq!((row.status, row.attempts.len(), row.combo.as_deref()), (200, 1, None));
    assert_eq!(&*row.request_id, format!("{}-handoff", last(&world, "chat").request_id));
    assert_eq!((row.bills.len(), row.usage.output_total), (1, Some(2)));
    let asked: Value = serde_json::from_slice(&world.transport.sent()[2].body).unwrap();
    assert_eq!(asked["model"], "m");
    let text = asked["messages"][1]["content"].as_str().unwrap();
    assert_eq!(
        text, "<conversation>\nUser: a walk?\nAssistant: yes\nUser: where to?\n</conversation>",
        "what the client said"
    );

    // No second one while there is one.
    world.transport.answer(left(answer("ok"), "11"));
    say(&world, &["a walk?", "yes", "where to?", "left", "fine"]).await;
    assert_eq!(world.transport.sent().len(), 4);

    let sent = moved(&world, &["and now?"]).await;
    let told = sent["messages"][0]["content"].as_str().unwrap();
    assert_eq!(sent["messages"][0]["role"], "system");
    for piece in ["they plan a walk", "Decided: to go left", "Progress: half", "Names: Ada"] {
        assert!(told.contains(piece), "{told}");
    }
    assert_eq!(sent["messages"][1]["content"], "and now?");
    assert_eq!(last(&world, "chat").decision.unwrap().handoff.as_deref(), Some("c1"), "the record says so");
    assert_eq!((known(&world), memories(&world)), (0, (1, 1)), "it is told once");
    world.transport.answer(answer("again"));
    say(&world, &["and then?"]).await;
    let sent = world.transport.sent();
    assert!(!is_told(&serde_json::from_slice(&sent[sent.len() - 1].body).unwrap()));
    let counts = &world.engine.live.handoffs.counts;
    assert_eq!((counts.made.load(Ordering::Relaxed), counts.told.load(Ordering::Relaxed)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn no_conversation_is_told_what_was_said_in_another() {
    let always = ComboConfig { handoff_always: Some(true), ..ComboConfig::default() };
    let plain = body(&["a walk?", "yes", "where to?"], false);
    let shared = plain.replace("\"model\"", "\"prompt_cache_key\":\"s1\",\"model\"");
    // They begin alike, or an application has one name for all its users: neither tells one from another.
    for body in [&plain, &shared] {
        let world = world(always.clone());
        for sent in 1..3 {
            world.transport.answer(left(answer("ok"), "12"));
            assert_eq!(send(&world, body, None).await.status, 200);
            assert_eq!((known(&world), world.transport.sent().len()), (0, sent));
        }
    }
    // Nor is it known whose it is without a key.
    let anybody = world(always.clone());
    anybody.transport.answer(left(answer("ok"), "12"));
    assert_eq!(anybody.send(&OpenAi, &plain, &[("x-session-id", "s1")]).await.status, 200);
    settle().await;
    assert_eq!((known(&anybody), anybody.transport.sent().len()), (0, 1));
    // Nobody hears that of a conversation with a name, not even under the same one in the body.
    let named = world(always);
    summed_up(&named).await;
    named.transport.answer(refusal(429, "rate_limit_error", "slow").header("retry-after", "60"));
    for (body, name) in [(&shared, None), (&plain, None), (&plain, Some("s2"))] {
        named.transport.answer(answer("from the second"));
        assert_eq!(send(&named, body, name).await.status, 200);
        assert_eq!(last(&named, "chat").connection_name.as_deref(), Some("second"));
        let sent = named.transport.sent();
        assert!(!is_told(&serde_json::from_slice(&sent[sent.len() - 1].body).unwrap()));
        assert_eq!(known(&named), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_summary_ends_with_its_conversation() {
    let world = world(ComboConfig::default());
    summed_up(&world).await;
    tokio::time::advance(Duration::from_secs(1_799)).await;
    assert_eq!(known(&world), 1);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(known(&world), 0);
    // One that is ended by hand takes with it what is being made.
    let ended = self::world(ComboConfig::default());
    ended.transport.answer(left(answer("ok"), "12")).answer(answer(SUMMARY).after(Duration::from_secs(9)));
    say(&ended, &["one"]).await;
    assert_eq!(ended.engine.live.handoffs.forget("ext:s1"), []);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!((last(&ended, "handoff").status, known(&ended), memories(&ended)), (200, 0, (1, 1)));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_brings_everything_is_left_alone_unless_it_is_to_be_told_always() {
    let whole = ["a walk?", "yes", "where to?", "left", "and now?"];
    let usual = world(ComboConfig::default());
    summed_up(&usual).await;
    assert!(!is_told(&moved(&usual, &whole).await));
    assert_eq!(
        (known(&usual), memories(&usual)),
        (0, (1, 1)),
        "the second account has heard more than it says"
    );
    assert_eq!(usual.engine.live.handoffs.counts.told.load(Ordering::Relaxed), 0);
    let always = world(ComboConfig { handoff_always: Some(true), ..ComboConfig::default() });
    summed_up(&always).await;
    assert!(is_told(&moved(&always, &whole).await));
    // The same length, but another beginning: a window that slides.
    let sliding = world(ComboConfig::default());
    summed_up(&sliding).await;
    assert!(is_told(&moved(&sliding, &["where to?", "left", "and now?"]).await));
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_summed_up_too_and_only_where_the_operator_wants_it() {
    let ask = |world: &World| {
        world.transport.answer(left(stream(), "12").send(chunk("ok")).send(END));
    };
    for (config, expected) in [
        (ComboConfig::default(), 1),
        (ComboConfig { handoff_threshold: Some(0.9.into()), ..ComboConfig::default() }, 0),
        (ComboConfig { handoff_providers: Some(vec!["up".into()]), ..ComboConfig::default() }, 1),
        (ComboConfig { handoff_providers: Some(vec!["anth".into()]), ..ComboConfig::default() }, 0),
        (ComboConfig { handoff_model: Some("up/small".into()), ..ComboConfig::default() }, 1),
    ] {
        let model = config.handoff_model.clone();
        let world = world(config);
        ask(&world);
        world.transport.answer(answer(SUMMARY));
        assert_eq!(send(&world, &body(&["hi"], true), Some("s1")).await.status, 200);
        assert_eq!(known(&world), expected, "{model:?}");
        if expected == 1 {
            let row = last(&world, "handoff");
            assert_eq!((&*row.model, row.stream), (if model.is_some() { "small" } else { "m" }, false));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_made_is_logged_and_not_tried_again_at_once() {
    let world = world(ComboConfig::default());
    world.transport.answer(left(answer("ok"), "12")).answer(refusal(400, "invalid_request_error", "no"));
    say(&world, &["one"]).await;
    let row = last(&world, "handoff");
    assert_eq!((row.status, known(&world)), (400, 0), "{:?}", row.error);
    world.transport.answer(left(answer("ok"), "11"));
    say(&world, &["one", "two", "three"]).await;
    assert_eq!(world.transport.sent().len(), 3, "not now");
    tokio::time::advance(Duration::from_secs(301)).await;
    world.transport.answer(left(answer("ok"), "10")).answer(answer("They plan a walk."));
    say(&world, &["one", "two", "three", "four", "five"]).await;
    assert_eq!(known(&world), 1, "an answer that is no object is a summary too");
    // One that takes too long is given up.
    let slow = self::world(ComboConfig::default());
    slow.transport.answer(left(answer("ok"), "12")).answer(answer(SUMMARY).after(Duration::from_secs(90)));
    say(&slow, &["one"]).await;
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!((slow.transport.cancelled(), known(&slow)), (1, 0));
    assert_eq!(slow.engine.live.handoffs.counts.failed.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn what_a_budget_has_left_is_for_clients() {
    let world = World::with(
        |entities| {
            configured(entities, ComboConfig::default());
            for node in &entities.nodes {
                let prices = entities.prices.user.entry(node.id.clone()).or_default();
                let row = PriceRow { input: Some(1_000.0), output: Some(1_000.0), ..PriceRow::default() };
                prices.insert("m".into(), row);
            }
            let budget = Budget::unlimited(Some(ApiKeyId::from("k1")));
            entities.budgets.push(Budget { daily_nano: Some(5_000_000_000), warning_permille: 1, ..budget });
        },
        |_| {},
    );
    let key = format!("Bearer {KEY}");
    let headers = [("x-session-id", "s1"), ("authorization", &*key)];
    for (turn, told) in [(1, "daily 0%"), (2, "")] {
        world.transport.answer(left(answer("ok"), "12"));
        let ask = body(&["one"], false).replace("\"model\"", "\"max_tokens\":10,\"model\"");
        let got = world.send(&OpenAi, &ask, &headers).await;
        assert_eq!((got.status, got.header("x-omniroute-budget-warning")), (200, told));
        settle().await;
        assert_eq!((known(&world), world.transport.sent().len()), (0, turn), "no summary was asked for");
    }
    // The first was refused the money; the second time nobody began.
    assert_eq!(last(&world, "handoff").error_code.as_deref(), Some("budget_exceeded"));
    let counts = &world.engine.live.handoffs.counts;
    assert_eq!((counts.failed.load(Ordering::Relaxed), counts.skipped.load(Ordering::Relaxed)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_summary_outlives_a_restart_but_for_keys_that_are_not_logged() {
    let before = world(ComboConfig::default());
    summed_up(&before).await;
    let after = before.restarted(|entities| configured(entities, ComboConfig::default()));
    for memory in before.recorded.memories.lock().unwrap().clone() {
        after.engine.restore(memory);
    }
    assert_eq!(known(&after), 1);
    assert!(is_told(&moved(&after, &["and now?"]).await));
    let later = before.restarted(|entities| configured(entities, ComboConfig::default()));
    for memory in after.recorded.memories.lock().unwrap().clone() {
        later.engine.restore(memory);
    }
    assert_eq!(known(&later), 0, "it was told");

    let private = World::with(
        |entities| {
            configured(entities, ComboConfig::default());
            entities.api_keys[0].no_log = true;
        },
        |_| {},
    );
    let key = format!("Bearer {KEY}");
    private.transport.answer(left(answer("ok"), "12")).answer(answer(SUMMARY));
    let headers = [("x-session-id", "s1"), ("authorization", &*key)];
    assert_eq!(private.send(&OpenAi, &body(&["one"], false), &headers).await.status, 200);
    settle().await;
    assert_eq!((known(&private), memories(&private).0), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn what_is_under_way_at_the_end_is_recorded() {
    let world = world(ComboConfig::default());
    world.transport.answer(left(answer("ok"), "12")).answer(answer(SUMMARY).after(Duration::from_secs(9)));
    say(&world, &["one"]).await;
    world.engine.end_asides().await;
    assert_eq!((last(&world, "handoff").status, known(&world)), (499, 0));
}
