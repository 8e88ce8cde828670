//! What vendors say is left when they are asked, and what the order of accounts makes of it.

use std::sync::Arc;
use std::time::Duration;

use omniroute_domain::entity::QuotaCheckSettings;
use omniroute_domain::snapshot::ConnectionState;
use omniroute_domain::timeline::EventKind;
use omniroute_domain::vendor_quota::Known;
use omniroute_engine::ports::{Memory, TransportError};
use omniroute_engine::quota_look::Looker;
use omniroute_provider::FailureKind;
use omniroute_testkit::Answer;

use crate::world::{World, answer, connection, refusal};

const ASK: &str = r#"{"model":"openrouter/m","messages":[{"role":"user","content":"hi"}]}"#;
const DAY_SECS: u64 = 86_400;

/// Accounts of these ids and names at a vendor that can be asked.
fn world(accounts: &'static [(&'static str, &'static str)], checks: QuotaCheckSettings) -> World {
    World::with(
        |entities| {
            let row = |(place, (id, name)): (usize, &(&str, &str))| {
                connection(id, &"openrouter".into(), name, i64::try_from(place).unwrap())
            };
            entities.connections = accounts.iter().enumerate().map(row).collect();
            entities.nodes.clear();
            entities.settings.quota_checks = checks;
        },
        |_| {},
    )
}

fn two() -> World {
    world(&[("a", "first"), ("b", "second")], QuotaCheckSettings::default())
}

fn account(world: &World, id: &str) -> Arc<ConnectionState> {
    world.engine.live.load().connection(&id.into()).expect("active").clone()
}

async fn look(world: &World, id: &str) -> Known {
    let engine = &world.engine;
    let looker = Looker {
        live: &engine.live,
        transport: &*engine.transport,
        recorder: &*engine.recorder,
        clock: &*engine.clock,
    };
    looker.look(&account(world, id), 0.0).await.expect("can be asked")
}

/// Vendors are asked in the background.
#[allow(clippy::disallowed_methods, reason = "it goes on beside the test, which ends it")]
fn watch(world: &World) -> tokio::task::JoinHandle<()> {
    let engine = world.engine.clone();
    tokio::spawn(async move { engine.watch_quotas().await })
}

/// The vendor says that so much of a hundred dollars a day is left, and that ordinary keys may not see the purse.
fn leaves(world: &World, left: &str) {
    let body = format!(
        r#"{{"data":{{"label":"k","limit":100,"limit_remaining":{left},"limit_reset":"daily","usage":250.5}}}}"#
    );
    let no_right = r#"{"error":{"code":403,"message":"Only management keys can perform this operation"}}"#;
    world.transport.answer(Answer::json(200, body)).answer(Answer::json(403, no_right));
}

async fn served(world: &World) -> String {
    world.transport.answer(answer("ok"));
    let got = world.chat(ASK).await;
    assert_eq!(got.status, 200, "{}", got.body);
    world.row().connection_name.unwrap().to_string()
}

fn told(world: &World) -> Vec<(&'static str, &'static str, &'static str)> {
    let events = world.engine.live.health.timeline.latest(99, |event| event.kind == EventKind::Quota);
    events.into_iter().map(|event| (event.from, event.to, event.cause)).collect()
}

#[tokio::test(start_paused = true)]
async fn who_has_little_is_saved_and_who_has_nothing_is_left_alone_until_there_is_more() {
    let world = two();
    assert_eq!(served(&world).await, "first");
    leaves(&world, "10");
    let known = look(&world, "a").await;
    assert_eq!(known.error, None, "that ordinary keys may not see the purse is no failure");
    assert_eq!(known.reading.unwrap().quotas.len(), 1);
    assert_eq!(served(&world).await, "second", "a tenth is left");
    let asked = world.transport.sent();
    assert_eq!(asked[1].uri, "https://openrouter.ai/api/v1/key");
    assert_eq!(asked[1].headers["authorization"], "Bearer upstream-key-of-first");

    tokio::time::advance(Duration::from_secs(60)).await;
    leaves(&world, "-0.25");
    look(&world, "a").await;
    let blocked = account(&world, "a").check("m", world.engine.clock.now_ms()).unwrap_err();
    let midnight = world.engine.clock.now_ms() + i64::try_from(DAY_SECS - 60).unwrap() * 1_000;
    assert_eq!((blocked.reason, blocked.until), (FailureKind::QuotaSpent, Some(midnight)));
    assert_eq!(served(&world).await, "second");
    leaves(&world, "0");
    look(&world, "b").await;
    let got = world.chat(ASK).await;
    assert_eq!((got.status, got.header("retry-after")), (429, "86340"), "{}", got.body);
    assert!(got.body.contains("quota_exhausted"), "{}", got.body);

    tokio::time::advance(Duration::from_secs(60)).await;
    leaves(&world, "80");
    look(&world, "a").await;
    assert_eq!(served(&world).await, "first", "somebody raised the limit");
    let expected = [
        ("available", "low", "provider"),
        ("low", "exhausted", "provider"),
        ("available", "exhausted", "provider"),
        ("exhausted", "available", "provider"),
    ];
    assert_eq!(told(&world), expected);
    tokio::time::advance(Duration::from_secs(DAY_SECS)).await;
    assert!(account(&world, "b").check("m", world.engine.clock.now_ms()).is_ok(), "a new day");
}

#[tokio::test(start_paused = true)]
async fn strategies_that_look_at_quotas_see_the_share() {
    let world = World::with(
        |entities| {
            let row = |id: &str, at| connection(id, &"openrouter".into(), id, at);
            entities.connections = vec![row("a", 1), row("b", 2)];
            entities.nodes.clear();
            entities.settings.fallback_strategy = "headroom".into();
        },
        |_| {},
    );
    leaves(&world, "40");
    look(&world, "a").await;
    leaves(&world, "60");
    look(&world, "b").await;
    assert_eq!(served(&world).await, "b");
    tokio::time::advance(Duration::from_secs(60)).await;
    leaves(&world, "30");
    look(&world, "b").await;
    assert_eq!(served(&world).await, "a");
}

#[tokio::test(start_paused = true)]
async fn a_vendor_that_does_not_answer_well_changes_nothing_and_is_told() {
    let world = world(&[("a", "first")], QuotaCheckSettings::default());
    leaves(&world, "0");
    look(&world, "a").await;
    let cases: [(Answer, &str); 6] = [
        (refusal(500, "server_error", "broken for upstream-key-of-first"), "status 500: broken for"),
        (Answer::json(401, "{}"), "status 401"),
        (Answer::json(302, "").header("location", "https://elsewhere.example"), "status 302"),
        (Answer::json(200, r#"{"data":{}}"#), "has not the shape that the vendor documents"),
        (Answer::json(200, vec![b' '; 65 * 1024]), "more than 64 KiB"),
        (Answer::json(200, "{}").after(Duration::from_secs(11)), "no answer within 10 s"),
    ];
    for (bad, expected) in cases {
        tokio::time::advance(Duration::from_secs(60)).await;
        world.transport.answer(bad);
        let known = look(&world, "a").await;
        let error = known.error.unwrap();
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains("upstream-key-of-first"), "{error}");
        assert!(known.reading.is_some(), "what was told before is shown");
    }
    let gone = TransportError::Connect { host: "openrouter.ai".into(), reason: "refused".into() };
    tokio::time::advance(Duration::from_secs(60)).await;
    world.transport.fail(Duration::ZERO, gone);
    assert!(look(&world, "a").await.error.unwrap().contains("refused"));
    assert!(account(&world, "a").check("m", world.engine.clock.now_ms()).is_err(), "and holds");
    assert_eq!(told(&world).len(), 1);

    // The limit of the key is known, and something is wrong with the purse.
    tokio::time::advance(Duration::from_secs(60)).await;
    let body = r#"{"data":{"limit":null,"limit_remaining":null,"usage":1}}"#;
    world.transport.answer(Answer::json(200, body)).answer(Answer::json(500, "{}"));
    let known = look(&world, "a").await;
    assert!(known.error.unwrap().contains("status 500"));
    assert!(account(&world, "a").check("m", world.engine.clock.now_ms()).is_ok());
}

#[tokio::test(start_paused = true)]
async fn vendors_are_asked_now_and_then_and_after_a_refusal_for_want_of_quota() {
    let world = world(&[("a", "first")], QuotaCheckSettings::default());
    let watching = watch(&world);
    let minutes = async |minutes: u64| tokio::time::sleep(Duration::from_secs(60 * minutes)).await;
    let sent = || world.transport.sent().len();
    leaves(&world, "90");
    minutes(1).await;
    assert_eq!(sent(), 2, "at the start");
    minutes(61).await;
    assert_eq!(sent(), 2);
    leaves(&world, "80");
    minutes(16).await;
    assert_eq!(sent(), 4, "70 minutes later, a tenth earlier or later");
    let rows = || {
        let memories = world.recorded.memories.lock().unwrap();
        memories.iter().filter(|it| matches!(it, Memory::Quota(row) if row.told.is_some())).count()
    };
    assert_eq!(rows(), 2);

    world.transport.answer(refusal(429, "insufficient_quota", "You exceeded your current quota"));
    leaves(&world, "0");
    assert_eq!(world.chat(ASK).await.status, 429);
    minutes(1).await;
    assert_eq!((sent(), rows()), (7, 3), "the vendor knows more");
    minutes(61).await;
    assert_eq!(sent(), 7);
    watching.abort();
}

#[tokio::test(start_paused = true)]
async fn nobody_is_asked_in_the_background_where_the_operator_does_not_want_that() {
    let off = QuotaCheckSettings { enabled: false, ..QuotaCheckSettings::default() };
    let world = world(&[("a", "first")], off);
    let watching = watch(&world);
    tokio::time::sleep(Duration::from_secs(DAY_SECS)).await;
    assert!(world.transport.sent().is_empty());
    watching.abort();
    leaves(&world, "5");
    assert!(look(&world, "a").await.reading.is_some(), "people may ask");
}
