//! How requests were routed: what is kept of it, and that it can be decided again.

use omniroute_dialect::{Dialect as _, openai::OpenAi};
use omniroute_domain::combo::{self, RequestFacts};
use omniroute_domain::entity::{Combo, ComboConfig, Entities, NodeType, Number, Step};
use omniroute_domain::price::PriceRow;
use omniroute_engine::EngineOptions;
use omniroute_engine::decision::{Decision, RecordedCandidate};

use crate::world::{ASK, World, answer, connection, node, refusal};

/// A combo `c` of five targets, each with an account of its own.
fn world(strategy: &str) -> World {
    let add = |entities: &mut Entities| {
        let mut steps = Vec::new();
        for (place, prefix) in ["a", "b", "c", "d", "e"].iter().enumerate() {
            let node = node(&format!("openai-compatible-chat-{prefix}"), NodeType::OpenaiCompatible, prefix);
            entities.connections.push(connection(&format!("of-{prefix}"), &node.id, "only", 1));
            entities.nodes.push(node);
            steps.push(Step {
                weight: 10 * (1 + u32::try_from(place).unwrap()),
                ..Step::to_model(*prefix, format!("{prefix}/m"))
            });
        }
        entities.combos.push(Combo {
            config: ComboConfig {
                max_retries: Some(0),
                exploration_rate: Number::new(0.5),
                ..ComboConfig::default()
            },
            ..Combo::new("1", "c", strategy, steps, 0)
        });
    };
    World::with(add, |_: &mut EngineOptions| {})
}

#[tokio::test(start_paused = true)]
async fn every_decision_can_be_made_again_from_its_record() {
    let ask = r#"{"model":"c","messages":[{"role":"user","content":"hi"}]}"#;
    for strategy in omniroute_domain::routing::STRATEGIES {
        for round in 0..3 {
            let world = world(strategy.name());
            // Some draws before, so that the seeds differ.
            for _ in 0..round {
                world.preview(ask).await;
            }
            for _ in 0..5 {
                world.transport.answer(answer("hello"));
            }
            assert_eq!(world.chat(ask).await.status, 200, "{}", strategy.name());
            let decision = world.row().decision.expect("it is written down");
            assert_eq!((decision.via, decision.strategy), (Some("combo"), Some(strategy.name())));

            // A process that knows what the other one knew, asked for the same with the same bits at the same time.
            let again = self::world(strategy.name());
            let live = again.engine.live.load().clone();
            let state = live.combo("c").unwrap();
            for _ in 0..decision.turn {
                state.memory.take_turn();
            }
            let facts = RequestFacts { input_tokens: ask.len() as u64 / 4, ..RequestFacts::default() };
            let plan = combo::plan(&live, state, &facts, decision.decided_at, decision.seed, true);
            let planned: Vec<_> =
                plan.targets.list().iter().map(|it| it.target.provider.id.as_str()).collect();
            let mut candidates = decision.candidates(OpenAi.id());
            if strategy.name() == "fusion" {
                // Its judge is no part of the order.
                candidates.retain(|it| it.wave != Some(2));
            }
            let recorded: Vec<_> = candidates.iter().filter_map(|it| it.provider).collect();
            assert_eq!(recorded, planned, "{}", strategy.name());
            for (one, other) in candidates.iter().zip(plan.targets.list().iter()) {
                assert_eq!(one.score, other.score.as_deref(), "{}", strategy.name());
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_record_names_accounts_in_order_and_what_kept_the_others_back() {
    let world = World::new();
    world.transport.answer(refusal(429, "rate_limit_error", "slow down").header("retry-after", "40"));
    world.transport.answer(answer("from the second"));
    assert_eq!(world.chat(ASK).await.status, 200);
    let first = world.row().decision.unwrap();
    assert_eq!((first.via, first.strategy), (Some("direct"), Some("fill-first")));
    let names = |decision: &Decision| -> Vec<_> {
        let told = |it: RecordedCandidate<'_>| {
            (it.connection.unwrap().1.to_owned(), it.skip.map(|skip| (skip.rule, skip.until)))
        };
        decision.candidates(OpenAi.id()).into_iter().map(told).collect()
    };
    assert_eq!(names(&first), [("first".into(), None), ("second".into(), None)]);

    // The limited account is held back now, as the explanation says too.
    let told = world.preview(ASK).await;
    world.transport.answer(answer("from the second"));
    assert_eq!(world.chat(ASK).await.status, 200);
    let second = names(&world.row().decision.unwrap());
    assert_eq!(second[0], ("second".into(), None));
    assert!(matches!(second[1], (ref name, Some(("model_lock", Some(_)))) if name == "first"), "{second:?}");
    let told = told
        .candidates
        .into_iter()
        .map(|it| (it.connection.unwrap().1.to_string(), it.skip.map(|skip| (skip.rule, skip.until))));
    assert_eq!(second, told.collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn the_record_of_one_target_has_what_it_was_to_cost() {
    let price = |entities: &mut Entities| {
        let row = PriceRow { input: Some(3.0), output: Some(15.0), ..PriceRow::default() };
        for node in &entities.nodes {
            entities.prices.user.entry(node.id.clone()).or_default().insert("m".into(), row.clone());
        }
    };
    let world = World::with(price, |_| {});
    let foreseen: Vec<_> = world.preview(ASK).await.candidates.iter().map(|it| it.cost_nano).collect();
    assert!(
        foreseen.len() == 2 && foreseen.iter().all(|cost| cost.is_some_and(|nano| nano > 0)),
        "{foreseen:?}"
    );
    world.transport.answer(answer("hello"));
    assert_eq!(world.chat(ASK).await.status, 200);
    let decision = world.row().decision.unwrap();
    let recorded: Vec<_> = decision.candidates(OpenAi.id()).iter().map(|it| it.cost_nano).collect();
    assert_eq!(recorded, foreseen);
    assert_eq!(decision.costs().collect::<Vec<_>>(), foreseen[..1], "one target, however many accounts");
}

#[tokio::test(start_paused = true)]
async fn only_the_share_that_is_wanted_is_kept() {
    let sampled = |rate: f64| async move {
        let world = World::with(
            |entities| entities.settings.routing_decision_sample_rate = Number::from(rate),
            |_: &mut EngineOptions| {},
        );
        let mut kept = 0;
        for _ in 0..400 {
            world.transport.answer(answer("hello"));
            world.chat(ASK).await;
            kept += usize::from(world.row().decision.is_some());
        }
        kept
    };
    assert_eq!((sampled(0.0).await, sampled(1.0).await), (0, 400));
    let quarter = sampled(0.25).await;
    assert!((65..135).contains(&quarter), "four standard deviations: {quarter}");
}

#[tokio::test(start_paused = true)]
async fn the_record_of_a_fusion_has_its_targets_and_its_judge() {
    let ask = r#"{"model":"c","messages":[{"role":"user","content":"hi"}]}"#;
    for judge in [None, Some("up/judge")] {
        let world = World::with(
            |entities| {
                crate::combos::add_best(entities, |best| {
                    best.name = "c".into();
                    best.strategy = "fusion".into();
                    best.config.judge_model = judge.map(str::to_owned);
                });
            },
            |_: &mut EngineOptions| {},
        );
        for text in ["one", "two", "three", "the reply"] {
            world.transport.answer(answer(text));
        }
        assert_eq!(world.chat(ask).await.status, 200);
        let decision = world.row().decision.unwrap();
        let candidates = decision.candidates(OpenAi.id());
        let told: Vec<_> = candidates
            .iter()
            .map(|it| (it.model, it.connection.is_some(), it.wave))
            .filter(|(_, has_account, _)| *has_account)
            .collect();
        let mut expected = vec![("m", true, Some(1)); 3];
        match judge {
            // Both accounts of its provider.
            Some(_) => expected.extend([("judge", true, Some(2)); 2]),
            // The first target is asked once more.
            None => expected.push(("m", true, Some(2))),
        }
        assert_eq!(told, expected, "{judge:?}");
        assert_eq!(candidates.len(), expected.len());
    }
}

#[tokio::test(start_paused = true)]
async fn the_record_of_a_race_has_the_accounts_of_all_that_ran() {
    let world = world("race");
    world.transport.answer(answer("slow").after(std::time::Duration::from_secs(1))).answer(answer("quick"));
    let ask = r#"{"model":"c","messages":[{"role":"user","content":"hi"}]}"#;
    assert_eq!(world.chat(ask).await.status, 200);
    let decision = world.row().decision.unwrap();
    let candidates = decision.candidates(OpenAi.id());
    let with_account = candidates.iter().filter(|it| it.connection.is_some()).count();
    assert_eq!((candidates.len(), with_account), (5, 2));
}
