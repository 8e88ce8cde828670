//! Accounts that nobody asks, because they are switched off or cannot be used: an explanation and a record name them and say why.

use omniroute_dialect::Dialect as _;
use omniroute_dialect::openai::OpenAi;
use omniroute_domain::entity::{ChainLink, Combo, ComboConfig, Entities, FallbackChain, Goal, Step};
use omniroute_engine::preview::Preview;

use crate::world::{ASK, World, answer, combo, connection, refusal};

/// Account, rule and reason; no reason for those that are asked.
type Told = Vec<(Option<String>, Option<(&'static str, String)>)>;

fn of_preview(preview: &Preview) -> Told {
    let told = preview.candidates.iter().map(|it| {
        let skip = it.skip.as_ref().map(|skip| (skip.rule, skip.reason.clone()));
        (it.connection.as_ref().map(|(id, _)| id.to_string()), skip)
    });
    told.collect()
}

fn of_record(world: &World) -> Told {
    let decision = world.row().decision.expect("it is written down");
    let candidates = decision.candidates(OpenAi.id());
    let told = candidates.into_iter().map(|it| {
        let skip = it.skip.map(|skip| (skip.rule, skip.reason.to_owned()));
        (it.connection.map(|(id, _)| id.to_owned()), skip)
    });
    told.collect()
}

fn off(id: &str) -> (Option<String>, Option<(&'static str, String)>) {
    (Some(id.to_owned()), Some(("inactive", "the account is switched off".to_owned())))
}

fn asked(id: &str) -> (Option<String>, Option<(&'static str, String)>) {
    (Some(id.to_owned()), None)
}

fn switch_off(entities: &mut Entities, ids: &[&str]) {
    let named = |id: &str| ids.contains(&id);
    entities.connections.iter_mut().filter(|it| named(it.id.as_str())).for_each(|it| it.is_active = false);
}

/// Asks, and before that what would become of it; both say the same.
async fn both(world: &World, model: &str) -> (Preview, Told) {
    let ask = ASK.replace("up/m", model);
    let preview = world.preview(&ask).await;
    world.transport.answer(answer("hi"));
    let got = world.chat(&ask).await;
    let status = preview.error.as_ref().map_or(200, |error| error.kind.status());
    assert_eq!(got.status, status, "{model}: {}", got.body);
    let told = of_preview(&preview);
    assert_eq!(of_record(world), told, "{model}");
    (preview, told)
}

#[tokio::test(start_paused = true)]
async fn an_account_that_is_switched_off_is_told_of_behind_the_others() {
    let world = World::with(
        |entities| {
            entities.connections.push(connection("c0", &entities.nodes[0].id.clone(), "old", 0));
            switch_off(entities, &["c0", "c1"]);
            entities.combos.push(combo("best", &["up/m"]));
        },
        |_| {},
    );
    let expected = [asked("c2"), off("c0"), off("c1")];
    for model in ["up/m", "best"] {
        let (preview, told) = both(&world, model).await;
        assert_eq!(told, expected, "{model}");
        let idle = &preview.candidates[1];
        assert_eq!((&*idle.model, idle.dialect, idle.wave), ("m", None, None), "{model}");
        assert_eq!(idle.provider.as_ref().unwrap().as_str(), "openai-compatible-chat-1");
    }
    // It is one of those that the client could name; nobody else is asked in its place.
    let mut pinned = World::entities(|entities| switch_off(entities, &["c1"]));
    pinned.api_keys[0].allowed_connections = vec!["c1".into(), "c2".into()];
    let world = World::with(|entities| *entities = pinned, |_| {});
    let ask = ASK.replace("up/m", "up/m@first");
    let preview = world.foresee(&ask, &[], true).await;
    let other = ("excluded", "another account was named".to_owned());
    assert_eq!(of_preview(&preview), [(Some("c2".into()), Some(other)), off("c1")]);
    assert_eq!(preview.error.unwrap().code.as_deref(), Some("no_credentials"));
}

#[tokio::test(start_paused = true)]
async fn where_all_are_switched_off_they_are_told_of_too() {
    let world = World::with(|entities| switch_off(entities, &["c1", "c2", "c3"]), |_| {});
    let (preview, told) = both(&world, "up/m").await;
    assert_eq!(told, [off("c1"), off("c2")]);
    assert_eq!((preview.via, preview.error.unwrap().code.as_deref()), (None, Some("no_credentials")));
    assert_eq!(&*preview.candidates[0].model, "m");
    // Of a bare name all providers that have it.
    let world = World::with(
        |entities| {
            for (id, provider) in [("o1", "openai"), ("a1", "azure"), ("x1", "anthropic")] {
                entities.connections.push(connection(id, &provider.into(), id, 1));
            }
            switch_off(entities, &["o1", "a1", "x1"]);
        },
        |_| {},
    );
    let (preview, told) = both(&world, "gpt-5.6").await;
    let mut told: Vec<_> = told.into_iter().collect();
    told.sort();
    assert_eq!(told, [off("a1"), off("o1")]);
    assert_eq!(preview.error.unwrap().kind.status(), 404);
    // Who stands in is asked, and those are not told of: they are not where the request leads.
    assert_eq!(both(&world, "nobody-has-this").await.1, []);
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_is_blocked_says_so() {
    let world = World::with(
        |entities| {
            entities.settings.blocked_providers = vec!["anth".into()];
        },
        |_| {},
    );
    let (_, told) = both(&world, "anth/m").await;
    let blocked = ("inactive", "its provider is one of `blockedProviders`".to_owned());
    assert_eq!(told, [(Some("c3".into()), Some(blocked))]);
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_names_such_an_account_says_which() {
    let step = |id: &str, account: &str| Step {
        goal: Goal::Model { model: "up/m".into(), connection_id: Some(account.into()) },
        ..Step::to_model(id, "up/m")
    };
    let world = World::with(
        |entities| {
            switch_off(entities, &["c1"]);
            let steps = vec![step("off", "c1"), step("gone", "c9"), step("on", "c2")];
            let config = ComboConfig { max_retries: Some(0), ..ComboConfig::default() };
            entities.combos.push(Combo { config, ..Combo::new("1", "named", "priority", steps, 0) });
        },
        |_| {},
    );
    let (_, told) = both(&world, "named").await;
    let gone = "the account that the entry names is none of its provider's; see /api/providers".to_owned();
    let expected = [asked("c2"), off("c1"), off("c1"), (None, Some(("inactive", gone)))];
    assert_eq!(told, expected);
    // Clients hear neither names nor what is set up wrong.
    let world = World::with(
        |entities| {
            switch_off(entities, &["c1"]);
            entities.combos.push(Combo::new("1", "named", "priority", vec![step("off", "c1")], 0));
        },
        |_| {},
    );
    let (preview, told) = both(&world, "named").await;
    assert_eq!(told, [off("c1")]);
    let message = preview.error.unwrap().message.clone();
    let why = "the account that the entry names is switched off; see /api/providers";
    assert!(message.contains(why) && !message.contains("first"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn an_entry_for_want_of_accounts_names_them() {
    let world = World::with(
        |entities| {
            switch_off(entities, &["c1", "c2"]);
            entities.combos.push(combo("best", &["up/m", "anth/m", "nowhere/m"]));
        },
        |_| {},
    );
    let preview = world.preview(&ASK.replace("up/m", "best")).await;
    let told = of_preview(&preview);
    assert_eq!(told[..3], [asked("c3"), off("c1"), off("c2")]);
    assert!(told[3].0.is_none() && told[3].1.as_ref().is_some_and(|(rule, _)| *rule == "inactive"));
    let idle = &preview.candidates[1];
    assert_eq!(
        (&*idle.model, idle.provider.as_ref().unwrap().as_str()),
        ("up/m", "openai-compatible-chat-1")
    );
    world.transport.answer(refusal(400, "invalid_request_error", "no"));
    world.chat(&ASK.replace("up/m", "best")).await;
    assert_eq!(of_record(&world), told);
}

#[tokio::test(start_paused = true)]
async fn whom_another_provider_stands_in_for_is_told_of() {
    let chain = |entities: &mut Entities| {
        let link =
            |provider: &str, priority| ChainLink { provider: provider.into(), priority, enabled: true };
        let links = vec![link("gem", 1), link("anth", 2)];
        entities.fallback_chains.push(FallbackChain { model: "up/m".into(), links });
    };
    let world = World::with(
        |entities| {
            switch_off(entities, &["c1", "c2"]);
            chain(entities);
        },
        |_| {},
    );
    let told = of_preview(&world.preview(ASK).await);
    assert_eq!(told[told.len() - 2..], [off("c1"), off("c2")]);
    assert_eq!(told[0], asked("c4"));
    world.transport.answer(refusal(400, "invalid_request_error", "no"));
    world.chat(ASK).await;
    let recorded = of_record(&world);
    assert_eq!(recorded[0], asked("c4"));
    assert_eq!(recorded[recorded.len() - 2..], [off("c1"), off("c2")]);
    // Those whose turn never came stand in the record as of a combo: without an account.
    let world = World::with(chain, |_| {});
    world.transport.answer(answer("hi"));
    assert_eq!(world.chat(ASK).await.status, 200);
    assert_eq!(of_record(&world), [asked("c1"), asked("c2"), (None, None), (None, None)]);
    let decision = world.row().decision.unwrap();
    let models: Vec<_> =
        decision.candidates(OpenAi.id()).iter().filter_map(|it| it.provider).map(str::to_owned).collect();
    assert_eq!(models[2..], ["gemini-compatible-1", "anthropic-compatible-1"]);
}
