//! Requests that are refused for where they lead: who would have been asked, and why nobody is, is told beforehand and
//! afterwards, the same.

use omniroute_dialect::Dialect as _;
use omniroute_dialect::openai::OpenAi;
use omniroute_domain::entity::{
    ChainLink, Combo, Entities, FallbackChain, Policy, PolicyActions, PolicyConditions, PolicyMode,
};
use omniroute_engine::preview::Preview;
use omniroute_testkit::Answer;

use crate::policies::{everywhere, policy};
use crate::world::{ASK, KEY, World, answer, combo, connection};

/// Account, rule and reason.
type Told = Vec<(String, &'static str, String)>;

fn of_preview(preview: Preview) -> Told {
    let told = preview.candidates.into_iter().map(|it| {
        let skip = it.skip.expect("nobody is asked");
        (it.connection.unwrap().0.to_string(), skip.rule, skip.reason)
    });
    told.collect()
}

fn of_record(world: &World) -> Told {
    let decision = world.row().decision.expect("it is written down");
    let candidates = decision.candidates(OpenAi.id());
    let told = candidates.into_iter().map(|it| {
        let skip = it.skip.expect("nobody is asked");
        (it.connection.unwrap().0.to_owned(), skip.rule, skip.reason.to_owned())
    });
    told.collect()
}

/// Asks with the key, before that what would become of it; both say the same.
async fn refused(world: &World, model: &str) -> (Preview, Told) {
    let ask = ASK.replace("up/m", model);
    let preview = world.foresee(&ask, &[], true).await;
    let expected = of_preview(world.foresee(&ask, &[], true).await);
    let got = world.send(&OpenAi, &ask, &[("authorization", &format!("Bearer {KEY}"))]).await;
    let error = preview.error.as_ref().expect("it is refused");
    assert_eq!(error.kind.status(), got.status, "{model}: {}", got.body);
    assert_eq!(of_record(world), expected, "{model}");
    let decision = world.row().decision.unwrap();
    let found = (decision.via, decision.strategy, decision.combo.as_ref().map(|combo| combo.name.clone()));
    assert_eq!(found, (preview.via, preview.strategy, preview.combo.clone()), "{model}");
    assert_eq!(decision.policies, preview.policies, "{model}");
    (preview, expected)
}

fn told(accounts: &[&str], rule: &'static str, reason: &str) -> Told {
    accounts.iter().map(|id| ((*id).to_owned(), rule, reason.to_owned())).collect()
}

#[tokio::test(start_paused = true)]
async fn what_a_policy_forbids_is_told_with_who_would_be_asked() {
    let block = |what: &str| PolicyActions { block_model: vec![what.into()], ..Default::default() };
    let at = |provider: &str| PolicyConditions { provider: Some(provider.into()), ..Default::default() };
    let world = World::with(
        |entities| {
            entities.policies = vec![
                everywhere("names", block("anth/m")),
                policy("targets", at("up"), block("m")),
                everywhere("combos", block("best")),
            ];
            entities.combos.push(combo("best", &["up/m", "gem/m"]));
            entities.aliases.push(("quick".into(), "best".into()));
            let links = vec![ChainLink { provider: "gem".into(), priority: 1, enabled: true }];
            entities.fallback_chains.push(FallbackChain { model: "up/m".into(), links });
        },
        |_| {},
    );
    let (preview, found) = refused(&world, "anth/m").await;
    assert_eq!(found, told(&["c3"], "policy", "Model \"anth/m\" blocked by policy \"names\""));
    assert_eq!((preview.via, preview.policies.as_slice()), (Some("direct"), &["names".into()][..]));
    // Both accounts, and who stands in.
    let (preview, found) = refused(&world, "up/m").await;
    assert_eq!(found, told(&["c1", "c2", "c4"], "policy", "Model \"m\" blocked by policy \"targets\""));
    assert_eq!(preview.policies, ["targets".into()]);
    for name in ["best", "quick"] {
        let (preview, found) = refused(&world, name).await;
        assert_eq!(found, told(&["c1", "c2", "c4"], "policy", "Model \"best\" blocked by policy \"combos\""));
        assert_eq!((preview.via, preview.combo.as_deref()), (Some("combo"), Some("best")));
    }
    assert_eq!(world.transport.sent().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_a_key_may_not_use_is_told_with_who_would_be_asked() {
    let restricted = |entities: &mut Entities| {
        entities.api_keys[0].allowed_models = vec!["gem/*".into()];
        entities.combos.push(combo("best", &["up/m", "anth/m"]));
        entities.api_keys[0].rights.allowed_combos = vec!["other".into()];
    };
    let world = World::with(restricted, |_| {});
    let (preview, found) = refused(&world, "up/m").await;
    assert_eq!(found, told(&["c1", "c2"], "key", "This API key may not use the model `up/m`"));
    assert!(preview.policies.is_empty());
    let (_, found) = refused(&world, "best").await;
    assert_eq!(found, told(&["c1", "c2", "c3"], "key", "This API key may not use the combo `best`"));
    assert_eq!(world.transport.sent().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_leads_nowhere_is_told_as_such() {
    let block = PolicyActions { block_model: vec!["gone/*".into()], ..Default::default() };
    let world = World::with(|entities| entities.policies.push(everywhere("none gone", block)), |_| {});
    let no_policy: &[std::sync::Arc<str>] = &[];
    for (model, status, policies) in [
        ("nowhere/m", 400, no_policy),
        ("nothing-of-that-name", 404, no_policy),
        ("gone/m", 403, &["none gone".into()]),
    ] {
        let (preview, found) = refused(&world, model).await;
        assert_eq!(preview.error.map(|error| error.kind.status()), Some(status), "{model}");
        assert_eq!((preview.via, preview.strategy, &*preview.policies), (None, None, policies), "{model}");
        assert_eq!(found, [], "{model}");
    }
    // What would have been refused all the same is told too.
    let watched = World::with(
        |entities| {
            let block = PolicyActions { block_model: vec!["gone/*".into()], ..Default::default() };
            let mode = PolicyMode::Observe;
            entities.policies.push(Policy { mode, ..everywhere("none gone", block) });
        },
        |_| {},
    );
    let (preview, _) = refused(&watched, "gone/m").await;
    assert_eq!(preview.error.map(|error| error.kind.status()), Some(400));
    let observed = watched.row().decision.unwrap().observed;
    assert_eq!((observed.len(), &observed), (1, &preview.observed));
    // So is one that is refused for what it says beside its model.
    let got = world.send(&OpenAi, ASK, &[("x-omniroute-thinking", "loud")]).await;
    assert_eq!((got.status, world.row().decision.unwrap().via), (400, None), "{}", got.body);
}

#[tokio::test(start_paused = true)]
async fn what_a_key_has_no_room_for_is_told_with_who_would_be_asked() {
    let world = World::with(|entities| entities.api_keys[0].max_requests_per_minute = Some(1), |_| {});
    world.transport.answer(answer("yes"));
    let got = world.send(&OpenAi, ASK, &[("authorization", &format!("Bearer {KEY}"))]).await;
    assert_eq!(got.status, 200);
    let (preview, found) = refused(&world, "up/m").await;
    let reason = preview.error.unwrap().message.clone();
    assert_eq!(found, told(&["c1", "c2"], "key", &reason));
    let decision = world.row().decision.unwrap();
    let until: Vec<_> = decision.candidates(OpenAi.id()).iter().map(|it| it.skip.unwrap().until).collect();
    assert_eq!(
        until,
        preview.candidates.iter().map(|it| it.skip.as_ref().unwrap().until).collect::<Vec<_>>()
    );
    assert!(until[0].is_some(), "when there is room again");
}

#[tokio::test(start_paused = true)]
async fn a_target_of_a_combo_that_a_policy_forbids_is_recorded_as_it_is_explained() {
    let block = PolicyActions { block_model: vec!["up/*".into()], ..Default::default() };
    let world = World::with(
        |entities| {
            entities.policies.push(everywhere("no up", block));
            entities.combos.push(combo("best", &["up/m", "anth/m"]));
        },
        |_| {},
    );
    let ask = ASK.replace("up/m", "best");
    let preview = world.preview(&ask).await;
    let explained: Vec<_> = preview.candidates.iter().map(|it| it.skip.as_ref().map(|it| it.rule)).collect();
    world.transport.answer(Answer::json(
        200,
        r#"{"id":"x","type":"message","role":"assistant","model":"m","content":[{"type":"text","text":"yes"}],"stop_reason":"end_turn","usage":{"input_tokens":1,"output_tokens":1}}"#,
    ));
    assert_eq!(world.chat(&ask).await.status, 200);
    let decision = world.row().decision.unwrap();
    let recorded: Vec<_> =
        decision.candidates(OpenAi.id()).iter().map(|it| it.skip.map(|it| it.rule)).collect();
    assert_eq!(explained, [None, Some("policy"), Some("policy")]);
    assert_eq!(recorded, explained);
}

#[tokio::test(start_paused = true)]
async fn what_a_policy_would_do_that_only_observes_is_told_and_not_done() {
    let block = PolicyActions { block_model: vec!["up/*".into()], ..Default::default() };
    let clamp = PolicyActions { max_tokens: Some(5), ..Default::default() };
    let observes = |policy: Policy| Policy { mode: PolicyMode::Observe, ..policy };
    let world = World::with(
        |entities| {
            entities.policies =
                vec![observes(everywhere("no up", block)), observes(everywhere("short", clamp))];
            entities.combos.push(combo("best", &["up/m"]));
        },
        |_| {},
    );
    let told = |observed: &[omniroute_domain::policy::Observed]| -> Vec<(String, String)> {
        observed.iter().map(|it| (it.policy.to_string(), it.effect.clone())).collect()
    };
    for model in ["up/m", "best"] {
        let ask = ASK.replace("up/m", model);
        let preview = world.preview(&ask).await;
        assert!(preview.error.is_none(), "{model}: {:?}", preview.error);
        assert!(preview.candidates.iter().all(|it| it.skip.is_none()) && preview.policies.is_empty());
        let expected = told(&preview.observed);
        let denied = (
            "no up".to_owned(),
            "would have been denied: Model \"up/m\" blocked by policy \"no up\"".to_owned(),
        );
        assert!(expected.contains(&denied), "{model}: {expected:?}");
        assert!(expected.iter().any(|(policy, effect)| policy == "short" && effect.contains("5 tokens")));

        world.transport.answer(answer("yes"));
        assert_eq!(world.chat(&ask).await.status, 200, "{model}");
        let sent = world.transport.sent().pop().unwrap().body;
        assert!(!String::from_utf8_lossy(&sent).contains("max_tokens"), "{model}: nothing is limited");
        let decision = world.row().decision.unwrap();
        assert_eq!(told(&decision.observed), expected, "{model}");
        assert!(decision.policies.is_empty());
    }
    let metrics = world.engine.telemetry.metrics(&[]);
    let line = "omniroute_policies_observed_total 4";
    assert!(
        metrics.lines().any(|found| found == line),
        "two policies of two requests, no question counts:\n{metrics}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_was_observed_before_a_refusal_is_told_with_it() {
    let block = || PolicyActions { block_model: vec!["up/*".into()], ..Default::default() };
    let tried = Policy { mode: PolicyMode::Observe, priority: 0, ..everywhere("tried", block()) };
    let world = World::with(|entities| entities.policies = vec![tried, everywhere("no up", block())], |_| {});
    let (preview, _) = refused(&world, "up/m").await;
    assert_eq!(preview.observed.iter().map(|it| &*it.policy).collect::<Vec<_>>(), ["tried"]);
    assert_eq!(world.row().decision.unwrap().observed, preview.observed);
}

#[tokio::test(start_paused = true)]
async fn what_policies_say_of_targets_that_are_asked_together_is_recorded() {
    let block = PolicyActions { block_model: vec!["up/*".into()], ..Default::default() };
    let clamp = PolicyActions { max_tokens: Some(5), ..Default::default() };
    let at = |provider: &str| PolicyConditions { provider: Some(provider.into()), ..Default::default() };
    let no_up = Policy { mode: PolicyMode::Observe, ..everywhere("no up", block) };
    let world = World::with(
        |entities| {
            entities.policies = vec![no_up, policy("short", at("up"), clamp)];
            let race = combo("best", &["up/m", "up/n"]);
            entities.combos.push(Combo { strategy: "race".into(), ..race });
        },
        |_| {},
    );
    let ask = ASK.replace("up/m", "best");
    let preview = world.preview(&ask).await;
    assert_eq!((preview.observed.len(), &*preview.policies), (2, &["short".into()][..]));
    for _ in 0..2 {
        world.transport.answer(answer("yes"));
    }
    assert_eq!(world.chat(&ask).await.status, 200);
    let decision = world.row().decision.unwrap();
    // The one that lost may not have been looked at yet.
    assert!(!decision.observed.is_empty(), "of the one that won at least");
    assert!(decision.observed.iter().all(|it| preview.observed.contains(it)), "{:?}", decision.observed);
    assert_eq!(decision.policies, preview.policies);
}

/// A client that goes on asking for what it may not have costs no more than a record keeps.
#[tokio::test(start_paused = true)]
async fn a_refusal_is_remembered_of_so_many_accounts() {
    let add = |entities: &mut Entities| {
        let node = entities.nodes[0].id.clone();
        let more =
            (0..200).map(|place| connection(&format!("more-{place}"), &node, &format!("more-{place}"), 9));
        entities.connections.extend(more);
        let block = PolicyActions { block_model: vec!["up/m".into()], ..Default::default() };
        entities.policies = vec![everywhere("closed", block)];
    };
    let world = World::with(add, |_| {});
    assert_eq!(world.chat(ASK).await.status, 403);
    assert_eq!(of_record(&world).len(), 160);
}
