//! Requests that are only played are spread as real ones are then, and leave nothing behind.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use http::{HeaderMap, Method};
use omniroute_dialect::openai::OpenAi;
use omniroute_domain::combo::ComboState;
use omniroute_domain::entity::Entities;
use omniroute_domain::snapshot::{BuildOptions, Snapshot};
use omniroute_engine::rehearsal::{Rehearsal, RehearsalAsk};
use omniroute_engine::{Arrival, EngineOptions};
use omniroute_provider::catalog::catalog;

use crate::world::{World, answer, combo, refusal};

const BEST: &str = r#"{"model":"best","messages":[{"role":"user","content":"hi"}]}"#;

fn configured(strategy: &'static str) -> impl Fn(&mut Entities) {
    move |entities| {
        let mut best = combo("best", &["up/a", "up/b", "up/c"]);
        strategy.clone_into(&mut best.strategy);
        best.config.sticky_requests = Some(2);
        entities.combos.push(best);
        entities.settings.fallback_strategy = "round-robin".into();
        entities.settings.sticky_round_robin_limit = 1;
    }
}

/// What comes of so many, in a copy of the world's state; it goes on as long as `goes_on` says so.
async fn played(
    world: &World,
    change: impl Fn(&mut Entities),
    requests: u32,
    goes_on: &(dyn Fn() -> bool + Sync),
) -> Rehearsal {
    let arrival = Arrival {
        peer: SocketAddr::from(([127, 0, 0, 1], 50_000)),
        method: Method::POST,
        path: "/v1/test".into(),
        query: None,
        headers: HeaderMap::new(),
        dialect: &OpenAi,
        endpoint: "chat",
        provider: None,
        is_logged: false,
    };
    let mut ctx = world.engine.begin(arrival);
    let health = world.engine.live.health.apart();
    let entities = World::entities(change);
    ctx.snapshot = Arc::new(Snapshot::build(&entities, catalog(), &health, &BuildOptions::default()));
    let ask = RehearsalAsk { combo: "best".into(), requests, seed: 1 };
    let body = Bytes::from_static(BEST.as_bytes());
    world.engine.rehearse(ctx, (body, None), &ask, &|| !goes_on()).await.unwrap()
}

fn best(world: &World) -> Arc<ComboState> {
    world.engine.live.load().combo("best").unwrap().clone()
}

fn firsts(told: &Rehearsal) -> BTreeMap<String, u32> {
    told.targets.iter().map(|row| (row.target.1.to_string(), row.first)).collect()
}

/// How often each account led.
fn accounts(told: &Rehearsal) -> BTreeMap<String, u32> {
    let mut led = BTreeMap::new();
    for (id, _, count) in told.targets.iter().flat_map(|row| &row.accounts) {
        *led.entry(id.to_string()).or_default() += count;
    }
    led
}

#[tokio::test(start_paused = true)]
async fn they_go_where_real_ones_go_then() {
    for strategy in ["round-robin", "least-used", "priority", "strict-random", "last-known-good"] {
        let change = configured(strategy);
        let world = World::with(&change, |_: &mut EngineOptions| {});
        for number in 0..3 {
            world.transport.answer(answer("ok"));
            assert_eq!(world.chat(BEST).await.status, 200, "{strategy} {number}");
        }
        let sent = world.transport.sent().len();
        let told = played(&world, &change, 30, &|| true).await;
        assert_eq!(world.transport.sent().len(), sent, "{strategy}: something was sent");
        let before: Vec<u64> = best(&world).steps.iter().map(|step| step.stats.totals().requests).collect();
        assert_eq!(before.iter().sum::<u64>(), 3, "{strategy}: something was counted");
        for _ in 0..30 {
            world.transport.answer(answer("ok"));
            assert_eq!(world.chat(BEST).await.status, 200);
        }
        let real: Vec<u64> = best(&world).steps.iter().map(|step| step.stats.totals().requests).collect();
        let real = ["a", "b", "c"].iter().zip(real.iter().zip(&before));
        let real: BTreeMap<String, u32> = real
            .map(|(model, (now, before))| ((*model).to_owned(), u32::try_from(now - before).unwrap()))
            .collect();
        assert_eq!(firsts(&told), real, "{strategy}");
        let led = |id: &str| accounts(&told).get(id).copied().unwrap_or(0);
        assert!(led("c1").abs_diff(led("c2")) <= 1, "accounts take turns too: {:?}", accounts(&told));
    }
}

#[tokio::test(start_paused = true)]
async fn it_ends_early_where_nobody_waits_for_it_and_says_how_far_it_came() {
    let change = configured("priority");
    let world = World::with(&change, |_: &mut EngineOptions| {});
    let left = AtomicU32::new(25);
    let told = played(&world, &change, 10_000, &|| left.fetch_sub(1, Ordering::Relaxed) > 0).await;
    assert_eq!((told.requests, told.refused), (25, 0));
    assert!((told.answered - 25.0).abs() < 1e-9);
    assert_eq!(firsts(&told)["a"], 25);
}

#[tokio::test(start_paused = true)]
async fn who_answered_last_is_drawn_by_how_often_it_answers() {
    let change = configured("last-known-good");
    let world = World::with(&change, |_: &mut EngineOptions| {});
    // The first is refused as a request that only it cannot do, twice, and answers twice: nothing is locked for that.
    for _ in 0..2 {
        world.transport.answer(refusal(400, "invalid_request_error", "this model does not support that"));
        world.transport.answer(answer("ok"));
        assert_eq!(world.chat(BEST).await.status, 200);
        best(&world).memory.failed(&best(&world).steps[1].id);
        world.transport.answer(answer("ok"));
        assert_eq!(world.chat(BEST).await.status, 200);
    }
    let first = best(&world).steps[0].stats.measured(world.engine.clock.now_ms()).unwrap();
    assert_eq!((first.requests, first.successes), (4, 2));
    let told = played(&world, &change, 1_000, &|| true).await;
    let firsts = firsts(&told);
    // It leads until it fails; who answered in its place leads from then on, and never fails.
    assert!(firsts["a"] < 20 && firsts["b"] > 980 && firsts["c"] == 0, "{firsts:?}");
    let a = &told.targets[0];
    assert!((a.answers - f64::from(a.first) / 2.0).abs() < 1e-9, "{a:?}");
    assert!((told.answered - 1_000.0).abs() < 1e-9);
    let last = best(&world).memory.last_good(world.engine.clock.now_ms());
    assert_eq!(last, Some(best(&world).steps[0].id.clone()), "the world's own is as it was");
}
