//! What becomes of requests that a budget has no room for.

use omniroute_dialect::openai::OpenAi;
use omniroute_domain::budget::Window;
use omniroute_domain::budget::spending::EventKind;
use omniroute_domain::entity::{ApiKeyId, Budget, Entities, OnExceeded};
use omniroute_domain::price::PriceRow;
use omniroute_engine::Arrival;
use omniroute_testkit::Answer;

use crate::combos::add_best;
use crate::world::{END, Got, World, answer, chunk, combo, stream};
use crate::{embeddings, images};

const BEARER: (&str, &str) = ("authorization", "Bearer sk-omni-test");

/// Models `m` of `a`, `b`, `c` and `up` cost money, `free` costs nothing anywhere, `odd` has no price. The key has spent
/// all that it may.
fn world(way: &str, change: impl FnOnce(&mut Entities)) -> World {
    let world = World::with(
        |entities| {
            add_best(entities, |_| {});
            entities.combos[0].id = "best".into();
            let mut cheap = combo("cheap", &["a/m", "b/free", "b/odd"]);
            cheap.id = "cheap".into();
            entities.combos.push(cheap);
            for node in &entities.nodes {
                let prices = entities.prices.user.entry(node.id.clone()).or_default();
                let row =
                    |price: f64| PriceRow { input: Some(price), output: Some(price), ..PriceRow::default() };
                prices.insert("m".into(), row(1_000.0));
                prices.insert("free".into(), row(0.0));
            }
            let on_exceeded = OnExceeded::parse(way).unwrap();
            let budget = Budget::unlimited(Some(ApiKeyId::from("k1")));
            entities.budgets.push(Budget { daily_nano: Some(1_000), on_exceeded, ..budget });
            change(entities);
        },
        |_| {},
    );
    let live = &world.engine.live;
    let (budgets, key) = (&live.load().budgets, ApiKeyId::from("k1"));
    let mut events = Default::default();
    let now_ms = world.engine.clock.now_ms();
    let mut spent = live.spending.hold(budgets, Some(&key), 0, now_ms, &mut events).unwrap();
    spent.settle(5_000, 1, now_ms, &mut events);
    world
}

async fn ask(world: &World, model: &str) -> Got {
    let body = format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"hi"}}]}}"#);
    world.send(&OpenAi, &body, &[BEARER]).await
}

const ACTION: &str = "x-omniroute-budget-action";

#[tokio::test(start_paused = true)]
async fn with_block_nothing_goes_through_not_even_what_is_free() {
    let world = world("block", |_| {});
    for model in ["up/m", "up/free", "best", "cheap"] {
        let got = ask(&world, model).await;
        assert!(got.status == 429 && got.body.contains("budget_exceeded"), "{model}: {}", got.body);
        assert_eq!(got.header(ACTION), "");
    }
    assert_eq!(world.transport.sent().len(), 0);
    // Why nobody was asked can be read afterwards.
    let decision = world.row().decision.expect("it is written down");
    let rules: Vec<_> = decision
        .candidates(omniroute_dialect::Dialect::id(&OpenAi))
        .iter()
        .map(|it| it.skip.map(|skip| skip.rule))
        .collect();
    assert_eq!((decision.via, rules), (Some("combo"), vec![Some("budget"); 3]));
}

#[tokio::test(start_paused = true)]
async fn the_judge_of_a_fusion_is_held_money_for() {
    let dear = |entities: &mut Entities| {
        entities.budgets[0].daily_nano = Some(10_000_000_000);
        entities.combos[1].strategy = "fusion".into();
        entities.combos[1].config.judge_model = Some("up/judge".into());
        let prices = entities.prices.user.get_mut("openai-compatible-chat-1").unwrap();
        let dear = PriceRow { input: Some(900_000.0), output: Some(900_000.0), ..PriceRow::default() };
        prices.insert("judge".into(), dear);
    };
    let got = ask(&world("block", dear), "cheap").await;
    assert!(got.status == 429 && got.body.contains("budget_exceeded"), "{}", got.body);
}

#[tokio::test(start_paused = true)]
async fn free_only_leaves_what_is_known_to_cost_nothing() {
    let world = world("free-only", |_| {});
    for model in ["up/m", "up/odd", "best"] {
        let got = ask(&world, model).await;
        assert_eq!(got.status, 429, "{model} costs money, or nobody knows: {}", got.body);
    }
    world.transport.answer(answer("for nothing"));
    let got = ask(&world, "up/free").await;
    assert_eq!((got.status, got.header(ACTION)), (200, "daily free-only"));
    assert_eq!(got.header("x-omniroute-budget-limit"), "", "it was not refused");
    // Of a combo those that cost nothing are asked and no others.
    world.transport.answer(answer("for nothing"));
    let got = ask(&world, "cheap").await;
    assert_eq!(
        (got.status, got.header("x-omniroute-model"), got.header(ACTION)),
        (200, "free", "daily free-only")
    );
    let row = world.row();
    assert_eq!((row.cost_nano, row.attempts.len()), (Some(0), 1));
    assert_eq!(row.decision.unwrap().budget.as_deref(), Some("daily free-only"), "the record says so");
    assert_eq!(world.transport.sent().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_downgrade_leads_to_the_combo_as_far_as_there_is_room() {
    let world = world("downgrade:cheap", |_| {});
    for (model, stream_too) in [("up/m", true), ("best", false)] {
        world.transport.answer(answer("for nothing"));
        let got = ask(&world, model).await;
        assert_eq!(got.status, 200, "{}", got.body);
        assert!(got.body.contains(&format!("\"model\":\"{model}\"")), "the asked name stays: {}", got.body);
        let told = ["x-omniroute-combo", "x-omniroute-model", ACTION].map(|name| got.header(name).to_owned());
        assert_eq!(told, ["cheap", "free", "daily downgrade:cheap free-only"]);
        if stream_too {
            world.transport.answer(stream().send(chunk("free")).send(END));
            let body = format!(
                r#"{{"model":"{model}","messages":[{{"role":"user","content":"hi"}}],"stream":true}}"#
            );
            let got = world.send(&OpenAi, &body, &[BEARER]).await;
            assert_eq!((got.status, got.header(ACTION)), (200, "daily downgrade:cheap free-only"));
        }
    }
    // A model that costs nothing, asked for by its name, goes where the operator sends it: it was refused as well.
    world.transport.answer(answer("for nothing"));
    assert_eq!(ask(&world, "up/free").await.header("x-omniroute-combo"), "cheap");
}

#[tokio::test(start_paused = true)]
async fn a_cheaper_combo_that_fits_is_asked_in_full() {
    let world = world("downgrade:cheap", |entities| {
        // Room for the cheap model of the combo, and none for the dear one.
        entities.budgets[0].daily_nano = Some(10_000_000_000);
        let prices = entities.prices.user.get_mut("openai-compatible-chat-1").unwrap();
        let dear = PriceRow { input: Some(900_000.0), output: Some(900_000.0), ..PriceRow::default() };
        prices.insert("m".into(), dear);
    });
    world.transport.answer(answer("cheap"));
    let got = ask(&world, "up/m").await;
    assert_eq!((got.status, got.header(ACTION)), (200, "daily downgrade:cheap"), "{}", got.body);
    assert_eq!(world.row().attempts[0].provider.as_str(), "openai-compatible-chat-a");
}

#[tokio::test(start_paused = true)]
async fn a_downgrade_never_goes_round_in_circles_and_respects_rights() {
    // The combo it leads to has nothing for nothing.
    let circle = world("downgrade:best", |_| {});
    for model in ["best", "up/m", "cheap"] {
        assert_eq!(ask(&circle, model).await.status, 429, "{model}");
    }
    assert_eq!(circle.transport.sent().len(), 0);
    // The key may not use the combo.
    let denied = world("downgrade:cheap", |entities| {
        entities.api_keys[0].rights.allowed_combos = vec!["best".into()];
    });
    assert_eq!(ask(&denied, "up/m").await.status, 429);
    // The combo is gone.
    let gone = world("downgrade:gone", |_| {});
    assert_eq!(ask(&gone, "up/m").await.status, 429);
    // Everybody's budget refuses what costs nothing too.
    let all = world("free-only", |entities| {
        entities.budgets.push(Budget { daily_nano: Some(1_000), ..Budget::unlimited(None) });
    });
    assert_eq!(ask(&all, "up/free").await.status, 429);
}

/// What an explanation says of a request: its error, what becomes of it, and who would be asked.
#[tokio::test(start_paused = true)]
async fn pictures_go_to_a_combo_that_can_paint_and_vectors_stay() {
    let paint = |models: &'static [&'static str]| {
        world("downgrade:paint", move |entities| {
            let mut paint = combo("paint", models);
            paint.id = "paint".into();
            entities.combos.push(paint);
        })
    };
    let world = paint(&["anth/m", "b/free"]);
    let picture = format!(r#"{{"created":1,"data":[{{"b64_json":"{}"}}]}}"#, images::PNG);
    world.transport.answer(Answer::json(200, picture));
    let got = images::ask(&world, r#"{"model":"up/m","prompt":"p"}"#, &[BEARER]).await;
    assert_eq!((got.status, got.header(ACTION)), (200, "daily downgrade:paint free-only"), "{}", got.body);
    assert_eq!(world.row().attempts[0].provider.as_str(), "openai-compatible-chat-b");
    let got = embeddings::ask(&world, r#"{"model":"up/m","input":"p"}"#, &[BEARER]).await;
    assert!(got.status == 429 && got.body.contains("budget_exceeded"), "{}", got.body);
    // Nobody in it can.
    let got = images::ask(&paint(&["anth/m"]), r#"{"model":"up/m","prompt":"p"}"#, &[BEARER]).await;
    assert!(got.status == 429 && got.body.contains("budget_exceeded"), "{}", got.body);
}

async fn explained(world: &World, model: &str) -> (Option<String>, Option<String>, Vec<String>) {
    let mut ctx = world.engine.begin(Arrival {
        peer: ([127, 0, 0, 1], 50_000).into(),
        method: http::Method::POST,
        path: "/v1/test".into(),
        query: None,
        headers: [(http::header::AUTHORIZATION, BEARER.1.parse().unwrap())].into_iter().collect(),
        dialect: &OpenAi,
        endpoint: "chat",
        provider: None,
        is_logged: false,
    });
    world.engine.identify(&mut ctx).unwrap();
    let body = format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"hi"}}]}}"#);
    let preview = world.engine.preview(ctx, body.into()).await.unwrap();
    let tried = preview.candidates.iter().filter(|candidate| candidate.skip.is_none());
    let tried = tried.map(|it| format!("{}/{}", it.provider.as_ref().unwrap(), it.model)).collect();
    let code = preview.error.and_then(|error| error.code.as_deref().map(str::to_owned));
    (code, preview.budget, tried)
}

#[tokio::test(start_paused = true)]
async fn an_explanation_foresees_what_becomes_of_a_request_and_changes_nothing() {
    let unpriced = |entities: &mut Entities| entities.budgets[0].block_unpriced = true;
    let worlds: [fn(&mut Entities); 3] = [
        |_| {},
        |entities| entities.budgets.push(Budget { daily_nano: Some(1_000), ..Budget::unlimited(None) }),
        |entities| entities.api_keys[0].rights.allowed_combos = vec!["best".into()],
    ];
    let mut seen = std::collections::BTreeSet::new();
    for way in ["block", "free-only", "downgrade:cheap", "downgrade:best", "downgrade:gone"] {
        for change in worlds.iter().copied().chain([unpriced as fn(&mut Entities)]) {
            for model in ["up/m", "up/free", "up/odd", "best", "cheap"] {
                let world = world(way, change);
                let (events, standing) = (world.recorded.events.lock().unwrap().len(), held(&world));
                let (code, budget, tried) = explained(&world, model).await;
                assert_eq!(explained(&world, model).await, (code.clone(), budget.clone(), tried.clone()));
                assert_eq!(world.recorded.events.lock().unwrap().len(), events, "nothing is told");
                assert_eq!(held(&world), standing, "nothing is held");
                if code.is_none() {
                    world.transport.answer(answer("ok"));
                }
                let got = ask(&world, model).await;
                let row = world.row();
                assert_eq!(row.error_code, code, "{way} {model}: {}", got.body);
                let action = budget.clone().unwrap_or_default();
                assert_eq!(got.header(ACTION), action, "{way} {model}");
                let Some(decision) = row.decision.filter(|_| code.is_none()) else {
                    assert!(tried.is_empty() && got.status >= 400, "{way} {model}: {tried:?}");
                    seen.insert(format!("{way} {}", code.unwrap()));
                    continue;
                };
                // What was to be asked, as it was written down, is what was foreseen.
                let candidates = decision.candidates(row.client_dialect);
                let mut planned: Vec<_> = candidates
                    .iter()
                    .filter(|candidate| candidate.skip.is_none())
                    .map(|it| format!("{}/{}", it.provider.unwrap(), it.model))
                    .collect();
                planned.dedup();
                let mut foreseen = tried.clone();
                foreseen.dedup();
                assert_eq!(planned, foreseen, "{way} {model}");
                assert_eq!(decision.budget, budget);
                seen.insert(format!("{way} {action}"));
            }
        }
    }
    let expected = [
        "block budget_exceeded",
        "downgrade:best budget_exceeded",
        "downgrade:cheap budget_exceeded",
        "downgrade:cheap daily downgrade:cheap free-only",
        "downgrade:gone budget_exceeded",
        "free-only budget_exceeded",
        "free-only daily free-only",
    ];
    for expected in expected {
        assert!(seen.contains(expected), "{expected}: {seen:?}");
    }
}

fn held(world: &World) -> i64 {
    let live = &world.engine.live;
    live.spending.standing(&live.load().budgets, None, world.engine.clock.now_ms()).held_nano
}

#[tokio::test(start_paused = true)]
async fn who_looks_at_a_budget_does_not_swallow_its_reset() {
    let world = world("block", |_| {});
    let live = &world.engine.live;
    let key = ApiKeyId::from("k1");
    tokio::time::advance(std::time::Duration::from_secs(86_400)).await;
    let look = || {
        let now_ms = world.engine.clock.now_ms();
        live.spending.standing(&live.load().budgets, Some(&key), now_ms).spent(Window::Daily)
    };
    assert_eq!((look(), look()), (0, 0), "a new day");
    explained(&world, "up/m").await;
    let got = ask(&world, "up/m").await;
    assert_eq!(got.status, 429, "a single request is too dear: {}", got.body);
    let events = world.recorded.events.lock().unwrap();
    let resets: Vec<_> =
        events.iter().filter(|event| matches!(event.kind, EventKind::Reset { .. })).collect();
    assert_eq!(resets.len(), 1, "{events:?}");
    assert!(matches!(resets[0].kind, EventKind::Reset { spent_nano: 5_000, .. }));
}
