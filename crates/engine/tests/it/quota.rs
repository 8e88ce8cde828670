//! What vendors say is left, and what the order of accounts makes of it; prompts that stay where they are cached.

use std::collections::BTreeSet;
use std::time::Duration;

use omniroute_domain::entity::{ComboConfig, Number, QuotaWindow};
use omniroute_domain::routing::auto::Factor;
use omniroute_domain::timeline::EventKind;
use omniroute_engine::ports::{Memory, QuotaRow};

use crate::combos::add_best;
use crate::world::{ASK, World, answer, refusal};

fn world(strategy: &'static str) -> World {
    World::with(|entities| entities.settings.fallback_strategy = strategy.into(), |_| {})
}

/// Asks, and is answered with so much left of a hundred requests for a minute; who answered.
async fn asked(world: &World, body: &str, left: &str) -> String {
    let told = answer("ok")
        .header("x-ratelimit-limit-requests", "100")
        .header("x-ratelimit-remaining-requests", left)
        .header("x-ratelimit-reset-requests", "60s");
    world.transport.answer(told);
    let got = world.chat(body).await;
    assert_eq!(got.status, 200, "{}", got.body);
    world.row().connection_name.unwrap().to_string()
}

#[tokio::test(start_paused = true)]
async fn who_has_little_left_is_saved_while_others_have_more() {
    let world = world("fill-first");
    assert_eq!(asked(&world, ASK, "9").await, "first");
    assert_eq!(asked(&world, ASK, "60").await, "second", "a tenth or less is left");
    assert_eq!(asked(&world, ASK, "8").await, "second");
    assert_eq!(
        asked(&world, ASK, "60").await,
        "first",
        "neither has more than a tenth: the list counts again"
    );
    tokio::time::advance(Duration::from_secs(61)).await;
    assert_eq!(asked(&world, ASK, "90").await, "first", "the vendor counts anew");
}

#[tokio::test(start_paused = true)]
async fn headroom_follows_what_is_left() {
    let world = world("headroom");
    assert_eq!(asked(&world, ASK, "70").await, "first");
    assert_eq!(asked(&world, ASK, "90").await, "second", "it said nothing yet, and may have all");
    assert_eq!(asked(&world, ASK, "60").await, "second");
    assert_eq!(asked(&world, ASK, "55").await, "first");
}

#[tokio::test(start_paused = true)]
async fn the_same_beginning_goes_to_the_same_account() {
    let world = world("cache-optimized");
    let ask = |system: usize, said: &str| {
        format!(
            r#"{{"model":"up/m","messages":[{{"role":"system","content":"application {system}"}},{{"role":"user","content":"{said}"}}]}}"#
        )
    };
    let mut seen = BTreeSet::new();
    for system in 0..12 {
        let account = asked(&world, &ask(system, "hello"), "90").await;
        assert_eq!(asked(&world, &ask(system, "something else"), "90").await, account);
        seen.insert(account);
    }
    assert_eq!(seen.len(), 2, "each has some of them");
}

#[tokio::test(start_paused = true)]
async fn what_a_combo_caches_follows_the_beginning_too() {
    let world =
        World::with(|entities| add_best(entities, |best| best.strategy = "cache-optimized".into()), |_| {});
    let mut seen = BTreeSet::new();
    for system in 0..16 {
        let ask = |said: &str| {
            format!(
                r#"{{"model":"best","messages":[{{"role":"system","content":"{system}"}},{{"role":"user","content":"{said}"}}]}}"#
            )
        };
        world.transport.answer(answer("ok")).answer(answer("ok"));
        world.chat(&ask("one")).await;
        let target = world.row().provider.unwrap();
        world.chat(&ask("two")).await;
        assert_eq!(world.row().provider.unwrap(), target);
        seen.insert(target);
    }
    assert_eq!(seen.len(), 3, "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn an_explanation_and_auto_know_where_the_conversation_was() {
    let world = World::with(
        |entities| {
            entities.settings.session_affinity_ttl_ms = 1_800_000;
            add_best(entities, |best| {
                best.strategy = "auto".into();
                best.config = ComboConfig { exploration_rate: Number::new(0.0), ..ComboConfig::default() };
            });
        },
        |_| {},
    );
    // The first account fails, so the conversation stays with the second one.
    world.transport.answer(refusal(429, "rate_limit_error", "slow down")).answer(answer("ok"));
    assert_eq!(world.chat(ASK).await.status, 200);
    tokio::time::advance(Duration::from_secs(300)).await;
    let names = |preview: &omniroute_engine::preview::Preview| {
        let names = preview.candidates.iter().filter_map(|candidate| candidate.connection.as_ref());
        names.map(|(_, name)| name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(&world.preview(ASK).await), ["second", "first"]);
    assert_eq!(names(&world.preview(&ASK.replace("hi", "another")).await), ["first", "second"]);

    let ask = ASK.replace("up/m", "best");
    world.transport.answer(answer("ok"));
    assert_eq!(world.chat(&ask).await.status, 200);
    let served = world.row().provider.unwrap().to_string();
    let preview = world.preview(&ask).await;
    let affinity: Vec<_> = preview
        .candidates
        .iter()
        .map(|it| {
            (it.provider.as_ref().unwrap().as_str() == served, it.score.unwrap().of(Factor::ContextAffinity))
        })
        .collect();
    assert_eq!(affinity.len(), 3);
    assert!(
        affinity.iter().all(|(was_there, value)| *value == if *was_there { 1.0 } else { 0.5 }),
        "{affinity:?}"
    );
}

fn noted(world: &World) -> Vec<QuotaRow> {
    let memories = world.recorded.memories.lock().unwrap();
    let rows = memories.iter().filter_map(|memory| match memory {
        Memory::Quota(row) => Some(row.clone()),
        _ => None,
    });
    rows.collect()
}

#[tokio::test(start_paused = true)]
async fn what_is_left_is_noted_once_in_a_while_and_told_when_it_is_little() {
    let world = World::with(|entities| entities.connections.retain(|row| row.id.as_str() != "c2"), |_| {});
    let told = || {
        let timeline = &world.engine.live.health.timeline;
        let quota = timeline.latest(99, |event| event.kind == EventKind::Quota);
        quota.into_iter().map(|event| (event.to, event.model.unwrap())).collect::<Vec<_>>()
    };
    for left in ["90", "80", "50"] {
        asked(&world, ASK, left).await;
    }
    assert_eq!((noted(&world).len(), told().len()), (1, 0), "the first, and none for a while");
    tokio::time::advance(Duration::from_secs(61)).await;
    for left in ["20", "19", "15"] {
        asked(&world, ASK, left).await;
        tokio::time::advance(Duration::from_secs(5)).await;
    }
    assert_eq!(told(), [("low", "m".to_owned())], "once");
    asked(&world, ASK, "0").await;
    let rows = noted(&world);
    assert_eq!(rows.len(), 2, "it ran out");
    let left = rows[1].limits.as_ref().unwrap().left(rows[1].at).unwrap();
    assert_eq!((left.0, Some(left.1)), (0.0, rows[1].until));
    tokio::time::advance(Duration::from_secs(71 * 60)).await;
    asked(&world, ASK, "10").await;
    assert_eq!((noted(&world).len(), told().len()), (3, 2), "after an hour it is told and noted anew");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_for_want_of_quota_is_noted_for_the_account() {
    let world = World::new();
    world.transport.answer(refusal(429, "insufficient_quota", "You exceeded your current quota"));
    world.transport.answer(answer("by the second"));
    assert_eq!(world.chat(ASK).await.status, 200);
    let rows = noted(&world);
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!((rows[0].connection.as_str(), &rows[0].model, &rows[0].limits), ("c1", &None, &None));
    assert!(rows[0].until.is_some());
}

/// A window of a plan; how much of it is used, and by whom.
fn plan(world: &World, id: &str) -> Vec<(String, &'static str, u64)> {
    let live = world.engine.live.load();
    let account = live.connection(&id.into()).unwrap();
    let standings = account.health.plan.standings(&account.plan, world.engine.clock.now_ms());
    standings.into_iter().map(|it| (it.name.to_string(), it.limit, it.used)).collect()
}

fn with_plan(strategy: &'static str, windows: &'static [(&'static str, u64)]) -> World {
    World::with(
        |entities| {
            entities.settings.fallback_strategy = strategy.into();
            for row in entities.connections.iter_mut().filter(|row| row.id.as_str() == "c1") {
                let window = |&(window, requests): &(&str, u64)| QuotaWindow {
                    window: window.into(),
                    requests: Some(requests),
                    tokens: Some(1_000),
                    resets_at: None,
                };
                row.options.quota_windows = windows.iter().map(window).collect();
            }
        },
        |_| {},
    )
}

async fn plainly_asked(world: &World) -> String {
    world.transport.answer(answer("ok"));
    assert_eq!(world.chat(ASK).await.status, 200);
    world.row().connection_name.unwrap().to_string()
}

#[tokio::test(start_paused = true)]
async fn a_plan_is_counted_by_what_was_answered_and_ends_when_it_is_used_up() {
    let world = with_plan("fill-first", &[("5h", 10), ("weekly", 40)]);
    for number in 1..=9 {
        assert_eq!(plainly_asked(&world).await, "first", "request {number}");
    }
    let used =
        [("5h", "requests", 9), ("5h", "tokens", 45), ("weekly", "requests", 9), ("weekly", "tokens", 45)];
    assert_eq!(plan(&world, "c1"), used.map(|(name, limit, used)| (name.to_owned(), limit, used)));
    assert_eq!(plainly_asked(&world).await, "second", "a tenth is left, and others have more");
    // What fails uses nothing.
    let live = world.engine.live.load().clone();
    let second = live.connection(&"c2".into()).unwrap();
    world.transport.answer(refusal(429, "rate_limit_error", "slow down").header("retry-after", "60"));
    world.transport.answer(answer("by the first"));
    world.chat(ASK).await;
    assert_eq!(world.row().connection_name.as_deref(), Some("first"));
    assert_eq!(plan(&world, "c1")[0].2, 10);
    // Now nothing is left, and the other one rests.
    assert!(second.check("m", world.engine.clock.now_ms()).is_err());
    let preview = world.preview(ASK).await;
    let rules: Vec<_> =
        preview.candidates.iter().filter_map(|it| it.skip.as_ref()).map(|skip| skip.rule).collect();
    assert_eq!(rules, ["cooldown", "model_lock"]);
    tokio::time::advance(Duration::from_secs(61)).await;
    assert_eq!(plainly_asked(&world).await, "second");
    tokio::time::advance(Duration::from_secs(5 * 3_600)).await;
    assert_eq!(plainly_asked(&world).await, "first", "a new window");
    assert_eq!(plan(&world, "c1")[0].2, 1);
    assert_eq!(plan(&world, "c1")[2].2, 11);

    let timeline = &world.engine.live.health.timeline;
    let told = timeline.latest(99, |event| event.kind == EventKind::Quota);
    let told: Vec<_> = told.iter().map(|event| (event.to, event.cause)).collect();
    assert_eq!(told, [("low", "plan"), ("exhausted", "plan")], "once each");
    let rows: Vec<_> = noted(&world).into_iter().filter_map(|row| row.plan).collect();
    assert!(rows.contains(&("5h".into(), 0.0)), "{rows:?}");
}

#[tokio::test(start_paused = true)]
async fn when_every_plan_is_used_up_the_client_is_told_when_to_come_back() {
    let world = World::with(
        |entities| {
            for row in &mut entities.connections {
                let window = QuotaWindow { window: "1h".into(), requests: Some(1), ..QuotaWindow::default() };
                row.options.quota_windows = vec![window];
            }
        },
        |_| {},
    );
    assert_eq!(plainly_asked(&world).await, "first");
    assert_eq!(plainly_asked(&world).await, "second");
    let got = world.chat(ASK).await;
    assert_eq!((got.status, got.header("retry-after")), (429, "3600"), "{}", got.body);
    assert!(got.body.contains("quota_exhausted"), "{}", got.body);
}

#[tokio::test(start_paused = true)]
async fn headroom_and_reset_aware_go_by_plans() {
    let world = with_plan("headroom", &[("5h", 4)]);
    // The second says nothing and may have all; the first one has a share.
    assert_eq!(plainly_asked(&world).await, "first", "nothing is used of either");
    assert_eq!(plainly_asked(&world).await, "second");
    let world = with_plan("reset-aware", &[("5h", 100)]);
    assert_eq!(plainly_asked(&world).await, "first", "who may lose something comes before who says nothing");
    for _ in 0..89 {
        assert_eq!(plainly_asked(&world).await, "first");
    }
    assert_eq!(plainly_asked(&world).await, "second", "less than a tenth is saved");
}
