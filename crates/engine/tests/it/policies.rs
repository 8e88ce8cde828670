//! What the operator says of requests: policies, chains, thinking, system text, tools; and what the rights of keys say.

use bytes::Bytes;
use omniroute_dialect::{anthropic::Anthropic, openai::OpenAi};
use omniroute_domain::entity::{
    AccessSchedule, ChainLink, Combo, ComboId, ComboTransforms, Entities, FallbackChain, ModelComboMapping,
    Policy, PolicyActions, PolicyConditions, PolicyKind, SystemPromptSettings, ThinkingMode,
    ThinkingSettings,
};
use omniroute_testkit::Answer;

use crate::world::{ASK, KEY, World, answer, combo, refusal};

pub(crate) fn policy(name: &str, conditions: PolicyConditions, actions: PolicyActions) -> Policy {
    let kind = match () {
        () if !actions.block_model.is_empty() => PolicyKind::Access,
        () if actions.max_tokens.is_some() || actions.max_cost_usd.is_some() => PolicyKind::Budget,
        () => PolicyKind::Routing,
    };
    Policy {
        id: name.into(),
        name: name.into(),
        kind,
        enabled: true,
        mode: Default::default(),
        priority: 1,
        conditions,
        actions,
        created_at: 0,
        updated_at: 0,
    }
}

pub(crate) fn everywhere(name: &str, actions: PolicyActions) -> Policy {
    policy(name, PolicyConditions::default(), actions)
}

fn world(change: impl FnOnce(&mut Entities)) -> World {
    World::with(change, |_| {})
}

fn body(world: &World, at: usize) -> String {
    String::from_utf8(world.transport.sent()[at].body.to_vec()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_blocked_model_is_refused_in_the_clients_dialect() {
    let block = PolicyActions { block_model: vec!["up/*".into()], ..Default::default() };
    let world = world(|entities| entities.policies.push(everywhere("no up", block)));
    let got = world.chat(ASK).await;
    assert_eq!(got.status, 403);
    assert!(got.body.contains("policy_denied"), "{}", got.body);
    assert!(got.body.contains(r#"Model \"up/m\" blocked by policy \"no up\""#), "{}", got.body);
    let ask = r#"{"model":"up/m","max_tokens":5,"messages":[{"role":"user","content":"hi"}]}"#;
    let got = world.messages(ask).await;
    assert!(got.status == 403 && got.body.contains(r#""type":"permission_error""#), "{}", got.body);
    assert_eq!(world.transport.sent().len(), 0);
    let preview = world.preview(ASK).await;
    assert_eq!(preview.error.map(|error| error.kind.status()), Some(403));
}

#[tokio::test(start_paused = true)]
async fn a_blocked_combo_is_refused_by_whatever_name_it_is_asked_for() {
    let block = PolicyActions { block_model: vec!["best".into()], ..Default::default() };
    let world = world(|entities| {
        entities.policies.push(everywhere("not best", block));
        entities.combos.push(combo("best", &["up/m"]));
        entities.aliases.push(("quick".into(), "best".into()));
    });
    for name in ["best", "combo/best", " best ", "quick"] {
        let got = world.chat(&ASK.replace("up/m", name)).await;
        assert!(got.status == 403 && got.body.contains("policy_denied"), "{name}: {}", got.body);
    }
    assert_eq!(world.transport.sent().len(), 0);
    world.transport.answer(answer("yes"));
    assert_eq!(world.chat(ASK).await.status, 200, "its model is not blocked");
}

#[tokio::test(start_paused = true)]
async fn a_combo_passes_over_what_is_blocked() {
    let block = PolicyActions { block_model: vec!["up/*".into()], ..Default::default() };
    let world = world(|entities| {
        entities.policies.push(everywhere("no up", block));
        entities.combos.push(combo("best", &["up/m", "anth/m"]));
    });
    world.transport.answer(Answer::json(
        200,
        r#"{"id":"x","type":"message","role":"assistant","model":"m","content":[{"type":"text","text":"yes"}],"stop_reason":"end_turn","usage":{"input_tokens":1,"output_tokens":1}}"#,
    ));
    let got = world.chat(&ASK.replace("up/m", "best")).await;
    assert_eq!(got.status, 200, "{}", got.body);
    let preview = world.preview(&ASK.replace("up/m", "best")).await;
    let skipped: Vec<_> =
        preview.candidates.iter().filter_map(|one| one.skip.as_ref().map(|skip| skip.rule)).collect();
    assert_eq!(skipped, ["policy", "policy"], "both accounts of the blocked node");
    assert_eq!(preview.policies.iter().map(|name| &**name).collect::<Vec<_>>(), ["no up"]);
}

#[tokio::test(start_paused = true)]
async fn policies_clamp_rewrite_and_want_labels() {
    let world = world(|entities| {
        entities.policies = vec![
            everywhere("short", PolicyActions { max_tokens: Some(50), ..Default::default() }),
            policy(
                "moved",
                PolicyConditions { model_pattern: Some("old".into()), ..Default::default() },
                PolicyActions { rewrite_model: Some("up/m".into()), ..Default::default() },
            ),
            everywhere("eu", PolicyActions { require_tags: vec!["EU".into()], ..Default::default() }),
        ];
        entities.connections[1].tags = vec!["eu".into()];
        entities.aliases = vec![("old".into(), "anth/m".into())];
    });
    world.transport.answer(answer("yes"));
    let ask = r#"{"model":"old", "max_tokens" : 900, "messages":[{"role":"user","content":"h\u00ef"}] }"#;
    let got = world.chat(ask).await;
    assert_eq!(got.status, 200, "{}", got.body);
    assert!(
        got.body.contains(r#""model":"old""#),
        "the client hears the name that it asked for: {}",
        got.body
    );
    assert_eq!(
        body(&world, 0),
        r#"{"model":"m", "max_tokens" : 50, "messages":[{"role":"user","content":"h\u00ef"}] }"#
    );
    assert_eq!(world.row().connection_name.as_deref(), Some("second"), "the account with the label");
}

#[tokio::test(start_paused = true)]
async fn a_name_that_leads_nowhere_is_another_by_a_policy() {
    let of = |name: &str, pattern: &str, to: &str| {
        let conditions = PolicyConditions { model_pattern: Some(pattern.into()), ..Default::default() };
        policy(name, conditions, PolicyActions { rewrite_model: Some(to.into()), ..Default::default() })
    };
    let world = world(|entities| {
        entities.policies = vec![
            of("moved", "retired-*", "up/m"),
            of("combined", "pair", "best"),
            of("in vain", "lost/*", "nowhere/m"),
        ];
        entities.combos.push(combo("best", &["up/m"]));
    });
    for (model, via, policy) in [("retired-1(high)", "direct", "moved"), ("pair", "combo", "combined")] {
        let ask = ASK.replace("up/m", model);
        let preview = world.preview(&ask).await;
        assert_eq!((preview.via, &*preview.policies), (Some(via), &[policy.into()][..]), "{model}");
        world.transport.answer(answer("yes"));
        let got = world.chat(&ask).await;
        assert!(got.status == 200 && got.body.contains(&format!(r#""model":"{model}""#)), "{}", got.body);
        assert_eq!(world.row().decision.unwrap().policies, preview.policies);
    }
    // The error is of the name that it leads to.
    let got = world.chat(&ASK.replace("up/m", "lost/m")).await;
    assert!(got.status == 400 && got.body.contains("`nowhere` is not a provider prefix"), "{}", got.body);
    assert_eq!(world.row().decision.unwrap().policies, ["in vain".into()]);
    assert_eq!(world.chat(&ASK.replace("up/m", "kept/m")).await.status, 400);
}

#[tokio::test(start_paused = true)]
async fn what_policies_said_of_every_target_that_had_its_turn_is_recorded() {
    let of = |name: &str, model: &str, actions| {
        policy(name, PolicyConditions { model_pattern: Some(model.into()), ..Default::default() }, actions)
    };
    let short = |max_tokens| PolicyActions { max_tokens: Some(max_tokens), ..Default::default() };
    let world = world(|entities| {
        let block = PolicyActions { block_model: vec!["up/k".into()], ..Default::default() };
        entities.policies = vec![
            of("no k", "up/k", block),
            of("short m", "up/m", short(60)),
            of("short n", "up/n", short(50)),
            of("short o", "up/o", short(40)),
        ];
        entities.combos.push(combo("best", &["up/k", "up/m", "up/n", "up/o"]));
    });
    world.transport.answer(refusal(400, "invalid_request_error", "images are not supported"));
    world.transport.answer(answer("yes"));
    let ask = ASK.replace("up/m", "best");
    let preview = world.preview(&ask).await;
    assert_eq!(preview.policies, ["no k", "short m", "short n", "short o"].map(Into::into));
    let got = world.chat(&ask).await;
    assert_eq!((got.status, world.transport.sent().len()), (200, 2), "{}", got.body);
    assert!(body(&world, 0).contains(r#""max_tokens":60"#), "{}", body(&world, 0));
    assert!(body(&world, 1).contains(r#""max_tokens":50"#), "{}", body(&world, 1));
    assert_eq!(world.row().decision.unwrap().policies, ["no k", "short m", "short n"].map(Into::into));
}

#[tokio::test(start_paused = true)]
async fn a_chain_stands_in_when_the_provider_is_out() {
    let link = |provider: &str, priority| ChainLink { provider: provider.into(), priority, enabled: true };
    let world = world(|entities| {
        entities.fallback_chains.push(FallbackChain {
            model: "up/m".into(),
            links: vec![link("gem", 2), link("up", 0), link("anth", 1)],
        });
        entities.settings.request_retry = 0;
    });
    for _ in 0..2 {
        world.transport.answer(refusal(503, "server_error", "down"));
    }
    world.transport.answer(Answer::json(
        200,
        r#"{"id":"x","type":"message","role":"assistant","model":"m","content":[{"type":"text","text":"yes"}],"stop_reason":"end_turn","usage":{"input_tokens":1,"output_tokens":1}}"#,
    ));
    let got = world.chat(ASK).await;
    assert_eq!((got.status, got.header("x-omniroute-attempts")), (200, "3"), "{}", got.body);
    assert_eq!(got.header("x-omniroute-provider"), "anthropic-compatible-1");
    assert!(got.body.contains(r#""model":"up/m""#), "{}", got.body);
}

#[tokio::test(start_paused = true)]
async fn what_the_request_is_to_blame_for_is_not_asked_elsewhere() {
    let world = world(|entities| {
        let links = vec![ChainLink { provider: "anth".into(), priority: 1, enabled: true }];
        entities.fallback_chains.push(FallbackChain { model: "m".into(), links });
    });
    world.transport.answer(refusal(400, "invalid_request_error", "messages: too odd"));
    let got = world.chat(ASK).await;
    assert_eq!((got.status, world.transport.sent().len()), (400, 1), "{}", got.body);
}

#[tokio::test(start_paused = true)]
async fn system_text_and_thinking_are_edits_of_the_bytes() {
    let world = world(|entities| {
        entities.settings.system_prompt = SystemPromptSettings {
            enabled: true,
            prefix_prompt: "Today is {{date}}, you are {{model}}.".into(),
            ..Default::default()
        };
        entities.settings.thinking_budget =
            ThinkingSettings { mode: ThinkingMode::Custom, custom_budget: 5_000, ..Default::default() };
    });
    world.transport.answer(answer("yes"));
    let ask = r#"{"model":"up/m","reasoning_effort":"high","messages":[{"role":"system","content":"own"},{"role":"user","content":"h\u00ef"}],"seed":1e0}"#;
    assert_eq!(world.chat(ask).await.status, 200);
    assert_eq!(
        body(&world, 0),
        r#"{"model":"m","messages":[{"role":"system","content":"Today is 2026-11-23, you are up/m.\n\nown"},{"role":"user","content":"h\u00ef"}],"seed":1e0,"reasoning_effort":"low"}"#
    );
    // The client's header comes before the setting, in every dialect.
    world.transport.answer(answer("yes"));
    let got = world.send(&OpenAi, ASK, &[("x-omniroute-thinking", "high")]).await;
    assert!(got.status == 200 && body(&world, 1).contains(r#""reasoning_effort":"high""#));
    world.transport.answer(answer("yes"));
    let ask =
        r#"{"model":"up/m","max_tokens":9000,"system":"own","messages":[{"role":"user","content":"hi"}]}"#;
    let got = world.send(&Anthropic, ask, &[("x-omniroute-thinking", "off")]).await;
    assert_eq!(got.status, 200, "{}", got.body);
    assert!(body(&world, 2).contains("you are up/m."), "translated: {}", body(&world, 2));
    assert!(!body(&world, 2).contains("reasoning_effort"), "{}", body(&world, 2));
    let got = world.send(&OpenAi, ASK, &[("x-omniroute-thinking", "loud")]).await;
    assert!(got.status == 400 && got.body.contains("X-OmniRoute-Thinking"), "{}", got.body);
}

#[tokio::test(start_paused = true)]
async fn a_combo_has_its_own_system_text_tools_and_labels() {
    let world = world(|entities| {
        let mut best = combo("best", &["up/m"]);
        best.transforms = ComboTransforms {
            system_message: Some("Speak as {{model}}.".into()),
            tool_filter_regex: Some("^read_".into()),
            required_tags: vec!["eu".into()],
            thinking_budget: None,
        };
        entities.combos.push(best);
        entities.connections[1].tags = vec!["eu".into()];
    });
    world.transport.answer(answer("yes"));
    let ask = r#"{"model":"best","messages":[{"role":"system","content":"own"},{"role":"user","content":"hi"}],"tools":[{"type":"function","function":{"name":"read_file"}},{"type":"function","function":{"name":"rm"}}]}"#;
    let got = world.chat(ask).await;
    assert_eq!(got.status, 200, "{}", got.body);
    assert_eq!(
        body(&world, 0),
        r#"{"model":"m","messages":[{"role":"system","content":"Speak as best."},{"role":"user","content":"hi"}],"tools":[{"type":"function","function":{"name":"read_file"}}]}"#
    );
    assert_eq!(world.row().connection_name.as_deref(), Some("second"));
}

#[tokio::test(start_paused = true)]
async fn suffixes_and_mappings_are_understood() {
    let world = world(|entities| {
        entities.combos.push(combo("best", &["up/m"]));
        entities.combo_mappings.push(ModelComboMapping {
            id: "1".into(),
            pattern: "gpt-*".into(),
            combo_id: entities.combos[0].id.clone(),
            priority: 1,
            enabled: true,
            description: None,
            created_at: 0,
            updated_at: 0,
        });
    });
    for _ in 0..3 {
        world.transport.answer(answer("yes"));
    }
    let got = world.chat(&ASK.replace("up/m", "gpt-unheard-of(low)")).await;
    assert_eq!((got.status, got.header("x-omniroute-combo")), (200, "best"), "{}", got.body);
    assert!(body(&world, 0).contains(r#""reasoning_effort":"low""#));
    let ask =
        r#"{"model":"up/m(low)","reasoning_effort":"high","messages":[{"role":"user","content":"hi"}]}"#;
    assert_eq!(world.chat(ask).await.status, 200);
    assert!(body(&world, 1).contains(r#""reasoning_effort":"high""#), "the body comes before the name");
    assert_eq!(world.chat(&ASK.replace("up/m", "up/m(beta)")).await.status, 200);
    assert!(body(&world, 2).contains(r#""model":"m(beta)""#), "other parentheses belong to the name");
}

#[tokio::test(start_paused = true)]
async fn keys_have_hours_and_combos() {
    let schedule = |from: &str, until: &str| AccessSchedule {
        enabled: true,
        from: from.into(),
        until: until.into(),
        days: Vec::new(),
        tz: None,
    };
    let authorization = format!("Bearer {KEY}");
    let with_key = [("authorization", authorization.as_str())];
    // The world's clock begins at midnight.
    let late =
        world(|entities| entities.api_keys[0].rights.access_schedule = Some(schedule("08:00", "18:00")));
    let got = late.send(&OpenAi, ASK, &with_key).await;
    assert!(got.status == 403 && got.body.contains("accessSchedule"), "{}", got.body);

    let world = world(|entities| {
        entities.api_keys[0].rights.access_schedule = Some(schedule("22:00", "06:00"));
        entities.api_keys[0].rights.allowed_combos = vec!["go*".into()];
        entities.api_keys[0].allowed_models = vec!["nothing".into()];
        entities.combos.push(combo("good", &["up/m"]));
        entities.combos.push(combo("bad", &["up/m"]));
    });
    world.transport.answer(answer("yes"));
    assert_eq!(world.send(&OpenAi, &ASK.replace("up/m", "good"), &with_key).await.status, 200);
    for model in ["bad", "up/m"] {
        let got = world.send(&OpenAi, &ASK.replace("up/m", model), &with_key).await;
        assert!(got.status == 403 && got.body.contains("model_not_allowed"), "{model}: {}", got.body);
    }
}

#[tokio::test(start_paused = true)]
async fn a_longer_context_is_asked_for_where_that_has_to_be_said() {
    let world = world(|entities| {
        entities.aliases.push(("long".into(), "anth/m[1m]".into()));
        entities.combos.push(combo("best", &["anth/m[1m]"]));
        for (name, entry) in [("plain", "anth/m"), ("wide", "plain[1m]")] {
            entities.combos.push(Combo { id: ComboId::from(name.to_owned()), ..combo(name, &[entry]) });
        }
    });
    let whole = r#"{"id":"x","type":"message","role":"assistant","model":"m","content":[{"type":"text","text":"yes"}],"stop_reason":"end_turn","usage":{"input_tokens":1,"output_tokens":1}}"#;
    let asked = [("anth/m[1m]", true), ("anth/m", false), ("long", true), ("best", true)];
    for (model, expected) in asked.into_iter().chain([("plain", false), ("wide", true)]) {
        world.transport.answer(Answer::json(200, Bytes::from_static(whole.as_bytes())));
        let ask =
            format!(r#"{{"model":"{model}","max_tokens":5,"messages":[{{"role":"user","content":"hi"}}]}}"#);
        assert_eq!(world.messages(&ask).await.status, 200);
        let call = world.transport.sent().pop().unwrap();
        assert_eq!(call.headers.contains_key("anthropic-beta"), expected, "{model}");
    }
}

#[tokio::test(start_paused = true)]
async fn aliases_entries_and_policies_may_say_how_much_to_reason() {
    let world = world(|entities| {
        entities.combos.push(combo("best", &["up/m(low)", "up/other"]));
        for (at, (name, entry)) in
            [("outer", "best(high)"), ("outermost", "combo/outer(medium)")].iter().enumerate()
        {
            let id = ComboId::from(format!("outer-{at}"));
            entities.combos.push(Combo { id, ..combo(name, &[entry]) });
        }
        entities.aliases =
            [("smart", "up/m(high)"), ("team", "best(high)"), ("old", "anth/m"), ("far", "near")]
                .into_iter()
                .chain([("near", "up/m(high)")])
                .map(|(name, target)| (name.into(), target.into()))
                .collect();
        let moved = PolicyConditions { model_pattern: Some("old*".into()), ..Default::default() };
        let to = PolicyActions { rewrite_model: Some("up/m(medium)".into()), ..Default::default() };
        entities.policies = vec![policy("moved", moved, to)];
    });
    for (model, said) in [
        ("smart", "high"),
        ("smart(low)", "low"),
        ("far", "high"),
        ("best", "low"),
        ("best(high)", "high"),
        // The alias is nearer to the client than the combo's entry.
        ("team", "high"),
        ("team(medium)", "medium"),
        ("old", "medium"),
        ("old(high)", "high"),
        // So is the entry that names a combo to those within it, and the outer one of two.
        ("outer", "high"),
        ("outer(minimal)", "minimal"),
        ("outermost", "medium"),
    ] {
        world.transport.answer(answer("yes"));
        assert_eq!(world.chat(&ASK.replace("up/m", model)).await.status, 200, "{model}");
        let sent = world.transport.sent().pop().unwrap().body;
        let sent = String::from_utf8(sent.to_vec()).unwrap();
        assert!(sent.contains(&format!(r#""reasoning_effort":"{said}""#)), "{model}: {sent}");
        assert!(sent.contains(r#""model":"m""#), "{model}: {sent}");
    }
    for model in ["smart", "best", "team", "old", "outer"] {
        world.transport.answer(answer("yes"));
        let ask = ASK.replace("up/m", model).replace("}]}", "}],\"reasoning_effort\":\"minimal\"}");
        assert_eq!(world.chat(&ask).await.status, 200, "{model}");
        let sent = world.transport.sent().pop().unwrap().body;
        let sent = String::from_utf8(sent.to_vec()).unwrap();
        assert!(sent.contains(r#""reasoning_effort":"minimal""#), "the body comes first, {model}: {sent}");
    }
}
