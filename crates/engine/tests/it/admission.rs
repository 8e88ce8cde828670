//! Who may ask for what.

use omniroute_dialect::openai::OpenAi;
use omniroute_domain::entity::{ApiKey, ConnectionId, CustomModel, NodeType};
use omniroute_engine::{EngineOptions, KeyPolicy};

use crate::world::{ASK, KEY, NOW_MS, World, answer, combo, connection, node};

fn world(change: impl FnOnce(&mut ApiKey)) -> World {
    World::with(|entities| change(&mut entities.api_keys[0]), |_| {})
}

fn required(options: &mut EngineOptions) {
    options.key_policy = KeyPolicy::Required;
}

async fn ask(world: &World, headers: &[(&str, &str)]) -> (u16, String) {
    world.transport.answer(answer("ok"));
    let got = world.send(&OpenAi, ASK, headers).await;
    (got.status, got.body)
}

const BEARER: (&str, &str) = ("authorization", "Bearer sk-omni-test");

#[tokio::test]
async fn keys_are_found_where_sdks_put_them() {
    let world = World::with(|_| {}, required);
    for headers in [
        vec![BEARER],
        vec![("authorization", "bearer   sk-omni-test ")],
        vec![("x-api-key", KEY)],
        vec![("x-goog-api-key", KEY)],
        vec![("authorization", "Bearer something-else"), ("x-api-key", KEY)],
    ] {
        assert_eq!(ask(&world, &headers).await.0, 200, "{headers:?}");
        assert_eq!(world.row().api_key_name.as_deref(), Some("dev"));
    }
    for headers in
        [vec![], vec![("authorization", "Bearer nope")], vec![("authorization", "Basic sk-omni-test")]]
    {
        let (status, body) = ask(&world, &headers).await;
        assert_eq!(status, 401, "{headers:?}");
        assert!(body.contains("invalid_api_key"), "{body}");
    }
}

#[tokio::test]
async fn on_this_machine_any_key_will_do_but_a_known_one_counts() {
    let world = world(|key| key.is_active = false);
    assert_eq!(ask(&world, &[]).await.0, 200);
    assert_eq!(ask(&world, &[("authorization", "Bearer anything")]).await.0, 200);
    assert_eq!(ask(&world, &[BEARER]).await.0, 401, "the operator switched it off");
}

#[tokio::test]
async fn what_a_proxy_on_this_machine_forwards_is_not_local() {
    let world = World::new();
    for header in ["x-forwarded-for", "forwarded"] {
        assert_eq!(ask(&world, &[(header, "203.0.113.7")]).await.0, 401, "{header}");
        assert_eq!(ask(&world, &[(header, "203.0.113.7"), BEARER]).await.0, 200, "{header}");
    }
}

#[tokio::test]
async fn a_name_of_megabytes_leaves_a_short_row() {
    let world = World::new();
    let ask = ASK.replace("up/m", &format!("up/\\n{}", "m".repeat(1 << 20)));
    let got = world.chat(&ask).await;
    assert_eq!(got.status, 400);
    assert!(got.body.contains("invalid_model"), "{}", got.body);
    let logged = world.row().requested_model;
    assert!(logged.len() < 1_024 && logged.starts_with("up/\u{fffd}m"), "{logged}");
}

#[tokio::test]
async fn a_key_has_its_limits() {
    let expired = world(|key| key.expires_at = Some(NOW_MS - 1));
    assert_eq!(ask(&expired, &[BEARER]).await.0, 401);
    let elsewhere = world(|key| key.ip_allowlist = vec!["10.0.0.0/8".into()]);
    assert_eq!(ask(&elsewhere, &[BEARER]).await.0, 403);
    let here = world(|key| key.ip_allowlist = vec!["127.0.0.1".into()]);
    assert_eq!(ask(&here, &[BEARER]).await.0, 200);
    let other = world(|key| key.allowed_endpoints = vec!["models".into()]);
    assert_eq!(ask(&other, &[BEARER]).await.0, 403);
    let second = world(|key| key.allowed_connections = vec![ConnectionId::from("c2").to_string()]);
    assert_eq!(ask(&second, &[BEARER]).await.0, 200);
    assert_eq!(second.row().connection_name.as_deref(), Some("second"));
}

#[tokio::test]
async fn models_are_allowed_by_any_of_their_names() {
    for (allowed, denied, status) in [
        (vec!["up/*"], vec![], 200),
        (vec!["m"], vec![], 200),
        (vec!["openai-compatible-chat-1/m"], vec![], 200),
        (vec!["anth/*"], vec![], 403),
        (vec![], vec!["*/m"], 403),
        (vec!["up/*"], vec!["m"], 403),
    ] {
        let world = world(|key| {
            key.allowed_models = allowed.iter().map(ToString::to_string).collect();
            key.denied_models = denied.iter().map(ToString::to_string).collect();
        });
        let (got, body) = ask(&world, &[BEARER]).await;
        assert_eq!(got, status, "{allowed:?} {denied:?}");
        assert!(status == 200 || body.contains("model_not_allowed"), "{body}");
    }
}

#[tokio::test]
async fn a_combo_is_allowed_and_denied_by_what_the_client_calls_it_too() {
    for (asked, allowed, denied, status) in [
        ("fast", vec!["fast"], vec![], 200),
        ("fast", vec!["best"], vec![], 200),
        ("best", vec!["combo/best"], vec![], 200),
        ("fast", vec!["up/*"], vec![], 200),
        ("best", vec!["fast"], vec![], 403),
        ("fast", vec!["other"], vec![], 403),
        ("fast", vec![], vec!["fast"], 403),
        ("best", vec![], vec!["fast"], 200),
        ("fast", vec![], vec!["combo/best"], 403),
        ("best", vec!["best"], vec!["up/m"], 403),
    ] {
        let own = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        let world = World::with(
            |entities| {
                entities.combos.push(combo("best", &["up/m"]));
                entities.aliases.push(("fast".into(), "best".into()));
                let key = &mut entities.api_keys[0];
                (key.allowed_models, key.denied_models) = (own(&allowed), own(&denied));
            },
            |_| {},
        );
        world.transport.answer(answer("ok"));
        let got = world.send(&OpenAi, &ASK.replace("up/m", asked), &[BEARER]).await;
        assert_eq!(got.status, status, "{asked} {allowed:?} {denied:?}: {}", got.body);
        assert!(status == 200 || got.body.contains("model_not_allowed"), "{}", got.body);
    }
}

#[tokio::test]
async fn of_several_providers_of_a_bare_name_those_count_that_the_key_may_use() {
    let ask_for = async |change: &dyn Fn(&mut ApiKey)| {
        let world = World::with(
            |entities| {
                let mut other = node("openai-compatible-chat-2", NodeType::OpenaiCompatible, "down");
                other.created_at = 1;
                entities.connections.push(connection("d1", &other.id, "only", 1));
                for provider in ["openai-compatible-chat-1", "openai-compatible-chat-2"] {
                    entities.custom_models.push(CustomModel {
                        provider: provider.into(),
                        id: "same".into(),
                        name: "same".into(),
                        source: "manual".into(),
                        api_format: "chat-completions".into(),
                        supported_endpoints: vec!["chat".into()],
                        is_hidden: false,
                        context_window: None,
                        max_output: None,
                        caps: Default::default(),
                    });
                }
                entities.nodes.push(other);
                change(&mut entities.api_keys[0]);
            },
            |_| {},
        );
        world.transport.answer(answer("ok"));
        let got = world.send(&OpenAi, &ASK.replace("up/m", "same"), &[BEARER]).await;
        (got.status, got.header("x-omniroute-provider").replace("openai-compatible-chat-", ""), got.body)
    };
    let (status, _, body) = ask_for(&|_| {}).await;
    assert!(status == 400 && body.contains("ambiguous_model"), "{body}");
    let by_account = |key: &mut ApiKey| key.allowed_connections = vec!["d1".into()];
    let by_model = |key: &mut ApiKey| key.allowed_models = vec!["down/*".into()];
    let by_denial = |key: &mut ApiKey| key.denied_models = vec!["up/*".into()];
    for change in [&by_account as &dyn Fn(&mut ApiKey), &by_model, &by_denial] {
        let (status, provider, body) = ask_for(change).await;
        assert_eq!((status, provider.as_str()), (200, "2"), "{body}");
    }
}

#[tokio::test(start_paused = true)]
async fn targets_without_an_account_for_the_key_are_not_among_those_of_a_combo() {
    let world = World::with(
        |entities| {
            entities.combos.push(combo("best", &["up/m", "anth/m"]));
            entities.api_keys[0].allowed_connections = vec!["c1".into()];
        },
        |_| {},
    );
    // The only one of them is the last one, and has the time of the last one.
    world.transport.answer(answer("late").after(std::time::Duration::from_secs(150)));
    let got = world.send(&OpenAi, &ASK.replace("up/m", "best"), &[BEARER]).await;
    assert_eq!(got.status, 200, "{}", got.body);
    let preview = world.foresee(&ASK.replace("up/m", "best"), &[], true).await;
    let skipped: Vec<_> =
        preview.candidates.iter().filter_map(|it| it.skip.as_ref()).map(|it| it.rule).collect();
    assert!(skipped.contains(&"inactive"), "{skipped:?}");
    // Where it is so of all, the client is told of the accounts.
    let world = World::with(
        |entities| {
            entities.combos.push(combo("best", &["anth/m"]));
            entities.api_keys[0].allowed_connections = vec!["c1".into()];
        },
        |_| {},
    );
    let got = world.send(&OpenAi, &ASK.replace("up/m", "best"), &[BEARER]).await;
    assert!(got.status == 400 && got.body.contains("no_credentials"), "{} {}", got.status, got.body);
}

#[tokio::test]
async fn requests_per_minute_are_counted_and_the_wait_is_told() {
    let world = world(|key| key.max_requests_per_minute = Some(2));
    for _ in 0..2 {
        assert_eq!(ask(&world, &[BEARER]).await.0, 200);
    }
    let got = world.send(&OpenAi, ASK, &[BEARER]).await;
    assert_eq!(got.status, 429);
    assert!(got.body.contains("2 requests per minute"), "{}", got.body);
    assert!(got.header("retry-after").parse::<u64>().unwrap() <= 60);
    assert_eq!(world.transport.sent().len(), 2);
}

#[tokio::test]
async fn tokens_are_settled_by_what_the_upstream_counted() {
    // The body is guessed at about 16 tokens, the upstream counts 5.
    let world = world(|key| key.max_tokens_per_minute = Some(24));
    for _ in 0..2 {
        assert_eq!(ask(&world, &[BEARER]).await.0, 200, "5 of 24 each time");
    }
    assert_eq!(ask(&world, &[BEARER]).await.0, 429, "10 used, 16 more guessed");
}

#[tokio::test]
async fn web_pages_of_others_may_not_spend_a_local_users_accounts() {
    let world = World::with(|_| {}, |options| options.cors_origins = vec!["https://app.example".into()]);
    for (headers, status) in [
        (vec![("origin", "https://evil.example")], 403),
        (vec![("origin", "null")], 403),
        (vec![("origin", "https://app.example")], 200),
        (vec![("origin", "http://localhost:3000")], 200),
        (vec![("host", "rebound.example:20128")], 403),
        (vec![("host", "localhost:20128")], 200),
        (vec![("host", "127.0.0.1:20128")], 200),
        (vec![("host", "[::1]:20128")], 200),
        (vec![("origin", "https://evil.example"), BEARER], 200),
    ] {
        assert_eq!(ask(&world, &headers).await.0, status, "{headers:?}");
    }
}

#[tokio::test]
async fn unknown_names_are_explained() {
    let world = World::new();
    for (model, status, code) in [
        ("nobody/m", 400, "unknown_provider"),
        ("openai/gpt-4o", 400, "no_credentials"),
        ("no-such-model", 404, "model_not_found"),
        ("gpt-4o", 404, "model_not_found"),
        ("up/", 400, "invalid_model"),
        ("../x", 400, "invalid_model"),
    ] {
        let got = world.chat(&ASK.replace("up/m", model)).await;
        assert_eq!(got.status, status, "{model}: {}", got.body);
        assert!(got.body.contains(code), "{model}: {}", got.body);
    }
}

#[tokio::test]
async fn bad_bodies_are_400_and_say_where() {
    let world = World::new();
    for (body, code) in [
        ("", "invalid_json"),
        ("{", "invalid_json"),
        ("[]", "invalid_json"),
        ("{\"model\":\"up/m\"}", "missing_required_parameter"),
        ("{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}", "missing_required_parameter"),
        ("{\"model\":1,\"messages\":[]}", "invalid_type"),
        ("{\"model\":\"up/m\",\"messages\":{}}", "invalid_type"),
        (
            "{\"model\":\"up/m\",\"model\":\"up/x\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}",
            "invalid_json",
        ),
        (
            "{\"model\":\"up/m\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"stream\":\"yes\"}",
            "invalid_type",
        ),
    ] {
        let got = world.chat(body).await;
        assert_eq!(got.status, 400, "{body}");
        assert!(got.body.contains(code), "{body}: {}", got.body);
        assert_eq!(world.transport.sent().len(), 0);
    }
}
