//! The strategy `auto`: what it chooses, what it refuses, and what it says of that.

use omniroute_dialect::{Dialect as _, openai::OpenAi};
use omniroute_domain::entity::{Combo, ComboConfig, Entities, Number, Step};
use omniroute_engine::EngineOptions;

use crate::world::{World, answer};

const ASK: &str = r#"{"model":"auto","messages":[{"role":"user","content":"hi"}]}"#;

/// Each account names a model.
fn named(entities: &mut Entities) {
    for connection in &mut entities.connections {
        connection.default_model = Some(format!("m-{}", connection.id));
    }
}

fn world() -> World {
    World::with(named, |_: &mut EngineOptions| {})
}

/// A combo `picky` with the strategy `auto` over models with prices.
fn picky(config: ComboConfig) -> World {
    let add = move |entities: &mut Entities| {
        let node = entities.nodes[0].id.clone();
        entities.connections.push(crate::world::connection("oa", &"openai".into(), "own", 1));
        assert_ne!(node.as_str(), "openai");
        let steps = [("large", "openai/gpt-5.6"), ("small", "openai/gpt-5.4-mini")];
        let steps = steps.map(|(id, model)| Step::to_model(id, model)).to_vec();
        entities.combos.push(Combo {
            config: ComboConfig { exploration_rate: Number::new(0.0), max_retries: Some(0), ..config },
            ..Combo::new("1", "picky", "auto", steps, 0)
        });
    };
    World::with(add, |_: &mut EngineOptions| {})
}

#[tokio::test(start_paused = true)]
async fn auto_chooses_among_the_models_of_all_accounts() {
    let world = world();
    let shown = world.preview(ASK).await;
    assert_eq!(
        (shown.via, shown.combo.as_deref(), shown.strategy),
        (Some("auto"), Some("auto"), Some("auto"))
    );
    assert_eq!(shown.task, Some("simple"));
    let mut models: Vec<_> = shown.candidates.iter().map(|candidate| &*candidate.model).collect();
    models.sort();
    models.dedup();
    assert_eq!(models, ["m-c1", "m-c2", "m-c3", "m-c4"]);
    for candidate in &shown.candidates {
        let score = candidate.score.expect("every candidate says what speaks for it");
        assert!(score.total > 0.3 && score.factors().count() == 13, "{score:?}");
    }
    world.transport.answer(answer("hello"));
    let got = world.chat(r#"{"model":"auto/coding:fast","messages":[{"role":"user","content":"hi"}]}"#).await;
    // Which of the equal models is a matter of turns; two of them speak another dialect than the answer.
    assert_eq!(got.header("x-omniroute-combo"), "auto/coding:fast");
    assert!(got.header("x-omniroute-model").starts_with("m-c"), "{:?}", got.headers);

    let got = world.chat(r#"{"model":"auto/coder","messages":[{"role":"user","content":"hi"}]}"#).await;
    assert_eq!(got.status, 404);
    assert!(got.body.contains("did you mean `auto/coding`"), "{}", got.body);
}

#[tokio::test(start_paused = true)]
async fn without_any_model_auto_says_so() {
    let world = World::new();
    let got = world.chat(ASK).await;
    assert_eq!(got.status, 503);
    assert!(got.body.contains("no_targets") && got.body.contains("/api/providers"), "{}", got.body);
}

#[tokio::test(start_paused = true)]
async fn the_last_that_answered_leads() {
    let world = world();
    let live = world.engine.live.load();
    let combo = live.combo("auto").unwrap();
    for step in combo.steps.iter() {
        combo.memory.answered(&step.id, world.engine.clock.now_ms());
        let mut leads = 0;
        for _ in 0..100 {
            leads += usize::from(
                *world.preview(ASK).await.candidates[0].model == *step.id.split('/').nth(1).unwrap(),
            );
        }
        assert!((85..100).contains(&leads), "all but one in twenty, which explore: {leads}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_may_cost_only_so_much() {
    let cap = |usd: f64, strict: bool| ComboConfig {
        budget_cap: Number::new(usd),
        budget_fallback: strict.then_some(omniroute_domain::entity::BudgetFallback::Strict),
        ..ComboConfig::default()
    };
    let ask = r#"{"model":"picky","messages":[{"role":"user","content":"hi"}]}"#;
    let shown = picky(ComboConfig::default()).preview(ask).await;
    let cost = |model: &str| {
        let candidate = shown.candidates.iter().find(|candidate| *candidate.model == *model).unwrap();
        candidate.cost_nano.unwrap() as f64 / 1e9
    };
    let (large, small) = (cost("gpt-5.6"), cost("gpt-5.4-mini"));
    assert!(small < large);

    let between = picky(cap((small + large) / 2.0, true)).preview(ask).await;
    let tried: Vec<_> =
        between.candidates.iter().filter(|it| it.skip.is_none()).map(|it| &*it.model).collect();
    assert_eq!(tried, ["gpt-5.4-mini"]);
    let skip = between.candidates.iter().find_map(|it| it.skip.as_ref()).unwrap();
    assert_eq!(skip.rule, "budget");

    let world = picky(cap(small / 2.0, false));
    world.transport.answer(answer("hello"));
    assert_eq!(world.chat(ask).await.header("x-omniroute-model"), "gpt-5.4-mini", "the cheapest after all");

    let world = picky(cap(small / 2.0, true));
    assert_eq!(world.preview(ask).await.error.unwrap().code.as_deref(), Some("cost_cap_exceeded"));
    let got = world.chat(ask).await;
    assert_eq!((got.status, world.transport.sent().len()), (402, 0), "nobody is asked");
    assert!(got.body.contains("cost_cap_exceeded") && got.body.contains("budgetCap"), "{}", got.body);
}

#[tokio::test(start_paused = true)]
async fn who_fails_three_times_in_a_row_is_left_alone_for_five_minutes() {
    let world = picky(ComboConfig::default());
    let ask = r#"{"model":"picky","messages":[{"role":"user","content":"hi"}]}"#;
    let live = world.engine.live.load();
    let steps = &live.combo("picky").unwrap().steps;
    let now = world.engine.clock.now_ms();
    for _ in 0..3 {
        steps[0].stats.note(None, now);
    }
    let shown = world.preview(ask).await;
    let left = shown.candidates.iter().find(|it| it.skip.is_some()).unwrap();
    assert_eq!(
        (left.provider.as_ref().map(ToString::to_string).as_deref(), &*left.model),
        (Some("openai"), "gpt-5.6")
    );
    let skip = left.skip.as_ref().unwrap();
    assert_eq!((skip.rule, skip.until), ("excluded", Some(now + 300_000)));
    assert!(left.cost_nano.is_some(), "it is told what it would cost: {left:?}");
    // The record has the same.
    world.transport.answer(answer("hello"));
    assert_eq!(world.chat(ask).await.status, 200);
    let decision = world.row().decision.unwrap();
    let recorded = decision.candidates(OpenAi.id()).into_iter().find(|it| it.skip.is_some()).unwrap();
    assert_eq!(
        (recorded.provider, recorded.model, recorded.cost_nano),
        (Some("openai"), "gpt-5.6", left.cost_nano)
    );
    assert_eq!(recorded.skip.unwrap().until, skip.until);
    tokio::time::advance(std::time::Duration::from_secs(301)).await;
    let shown = world.preview(ask).await;
    assert!(shown.candidates.iter().all(|it| it.skip.is_none()), "{shown:?}");
    // Before nobody is asked, all are.
    let now = world.engine.clock.now_ms();
    for step in steps.iter() {
        (0..3).for_each(|_| step.stats.note(None, now));
    }
    assert_eq!(world.preview(ask).await.candidates.iter().filter(|it| it.skip.is_none()).count(), 2);
}
