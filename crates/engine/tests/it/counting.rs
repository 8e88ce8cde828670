//! Counts of tokens go the way of a conversation: to nobody who would not get it.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method};
use http_body_util::BodyExt as _;
use omniroute_dialect::{Dialect, anthropic::Anthropic, gemini::Gemini};
use omniroute_domain::entity::{ApiKey, Entities, Policy, PolicyActions, PolicyConditions, PolicyKind};
use omniroute_domain::price::PriceRow;
use omniroute_engine::Arrival;
use omniroute_testkit::Answer;

use crate::world::{Got, World, combo, refusal};

const BEARER: (&str, &str) = ("authorization", "Bearer sk-omni-test");

async fn send(
    world: &World,
    (dialect, path): (&'static dyn Dialect, &str),
    body: &str,
    headers: &[(&str, &str)],
) -> Got {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.insert(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    let arrival = Arrival {
        peer: SocketAddr::from(([127, 0, 0, 1], 50_000)),
        method: Method::POST,
        path: path.into(),
        query: None,
        headers: map,
        dialect,
        endpoint: "messages",
        provider: None,
        is_logged: false,
    };
    let mut ctx = world.engine.begin(arrival);
    let response = match world.engine.identify(&mut ctx) {
        Ok(()) => world.engine.count(ctx, Bytes::copy_from_slice(body.as_bytes())).await,
        Err(error) => world.engine.refuse(ctx, &error),
    };
    let (head, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let body = String::from_utf8(bytes.to_vec()).unwrap();
    Got { status: head.status.as_u16(), headers: head.headers, body }
}

async fn count(world: &World, model: &str) -> Got {
    let body = format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"hello there"}}]}}"#);
    send(world, (&Anthropic, "/v1/messages/count_tokens"), &body, &[BEARER]).await
}

fn counted() -> Answer {
    Answer::json(200, r#"{"input_tokens":4242}"#)
}

/// Whether the upstream was asked, which counts otherwise than the gateway.
async fn is_asked(world: &World, model: &str) -> bool {
    let before = world.transport.sent().len();
    world.transport.answer(counted());
    let got = count(world, model).await;
    assert_eq!(got.status, 200, "{}", got.body);
    let asked = got.body.contains("4242");
    assert_eq!(world.transport.sent().len() - before, usize::from(asked));
    assert!(asked || got.body == r#"{"input_tokens":7}"#, "{}", got.body);
    asked
}

async fn assert_refused(world: &World, model: &str, code: &str) {
    let got = count(world, model).await;
    assert_eq!(got.status, 403, "{model}: {}", got.body);
    assert!(got.body.contains(r#""type":"permission_error""#) && got.body.contains(code), "{}", got.body);
    assert_eq!(world.transport.sent().len(), 0, "nobody got the prompt");
}

fn policy(actions: PolicyActions) -> Policy {
    let kind = if actions.block_model.is_empty() { PolicyKind::Routing } else { PolicyKind::Access };
    let kind = if actions.max_cost_usd.is_some() { PolicyKind::Budget } else { kind };
    Policy {
        id: "p".into(),
        name: "rule".into(),
        kind,
        enabled: true,
        mode: Default::default(),
        priority: 1,
        conditions: PolicyConditions::default(),
        actions,
        created_at: 0,
        updated_at: 0,
    }
}

fn world(change: impl FnOnce(&mut Entities)) -> World {
    World::with(change, |_| {})
}

fn limited(change: impl FnOnce(&mut ApiKey)) -> World {
    world(|entities| change(&mut entities.api_keys[0]))
}

#[tokio::test(start_paused = true)]
async fn the_upstream_counts_where_it_can_and_an_estimate_helps_where_not() {
    let world = world(|entities| entities.combos.push(combo("best", &["anth/m", "up/m"])));
    assert!(is_asked(&world, "anth/m").await);
    let sent = &world.transport.sent()[0];
    assert!(sent.uri.path().ends_with("/messages/count_tokens"), "{}", sent.uri);
    assert!(String::from_utf8_lossy(&sent.body).contains(r#""model":"m""#));
    assert!(is_asked(&world, "best").await, "its first model");
    for model in ["up/m", "nobody/knows", ""] {
        let got = count(&world, model).await;
        assert_eq!((got.status, &*got.body), (200, r#"{"input_tokens":7}"#), "{model}");
    }
    assert_eq!(world.transport.sent().len(), 2);
    world.transport.answer(refusal(500, "api_error", "no"));
    assert_eq!(count(&world, "anth/m").await.body, r#"{"input_tokens":7}"#);
}

#[tokio::test(start_paused = true)]
async fn what_a_policy_refuses_is_not_counted_either() {
    let block = |model: &str| policy(PolicyActions { block_model: vec![model.into()], ..Default::default() });
    let first = world(|entities| {
        entities.policies.push(block("anth/*"));
        entities.combos.push(combo("best", &["anth/m"]));
        entities.aliases.push(("quick".into(), "anth/m".into()));
    });
    for model in ["anth/m", "quick", "best"] {
        assert_refused(&first, model, "policy").await;
    }
    let body = r#"{"contents":[{"parts":[{"text":"hi"}]}]}"#;
    let path = "/v1beta/models/anth/m:countTokens";
    let got = send(&first, (&Gemini, path), body, &[BEARER]).await;
    assert!(got.status == 403 && got.body.contains("PERMISSION_DENIED"), "{}", got.body);

    let by_name = world(|entities| {
        entities.policies.push(block("best"));
        entities.combos.push(combo("best", &["anth/m"]));
    });
    assert_refused(&by_name, "best", "policy").await;
    assert!(is_asked(&by_name, "anth/m").await);

    let passed = world(|entities| {
        entities.policies.push(block("anth/*"));
        entities.combos.push(combo("best", &["anth/m", "up/m"]));
    });
    assert!(
        !is_asked(&passed, "best").await,
        "what is blocked is passed over, and who is left does not count"
    );
}

#[tokio::test(start_paused = true)]
async fn the_price_of_an_answer_refuses_no_count() {
    let dear = |input, output| {
        world(|entities| {
            let row = PriceRow { input: Some(input), output: Some(output), ..PriceRow::default() };
            let node = entities.prices.user.entry("anthropic-compatible-1".into()).or_default();
            node.insert("m".into(), row);
            let cheap = PolicyActions { max_cost_usd: Some(0.01), ..Default::default() };
            entities.policies.push(policy(cheap));
        })
    };
    assert!(is_asked(&dear(1.0, 1_000.0), "anth/m").await);
    assert_refused(&dear(1_000.0, 1.0), "anth/m", "policy").await;
}

#[tokio::test(start_paused = true)]
async fn labels_keep_the_prompt_from_accounts() {
    let tagged = |tags: &[&str]| {
        let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
        world(|entities| {
            let eu = PolicyActions { require_tags: vec!["eu".into()], ..Default::default() };
            entities.policies.push(policy(eu));
            entities.connections[2].tags = tags;
            entities.combos.push(combo("best", &["anth/m"]));
        })
    };
    for model in ["anth/m", "best"] {
        assert!(!is_asked(&tagged(&[]), model).await, "{model}");
        assert!(is_asked(&tagged(&["eu"]), model).await, "{model}");
    }
    let of_combo = |tags: Vec<String>| {
        world(|entities| {
            entities.connections[2].tags = tags;
            let mut best = combo("best", &["anth/m"]);
            best.transforms.required_tags = vec!["eu".into()];
            entities.combos.push(best);
        })
    };
    assert!(!is_asked(&of_combo(Vec::new()), "best").await);
    assert!(is_asked(&of_combo(vec!["eu".into()]), "best").await);
}

#[tokio::test(start_paused = true)]
async fn rights_of_keys_hold() {
    let only = |combos: &str, models: &str| {
        world(|entities| {
            entities.combos = vec![combo("best", &["anth/m"])];
            let key = &mut entities.api_keys[0];
            key.rights.allowed_combos =
                Some(combos.to_owned()).filter(|it| !it.is_empty()).into_iter().collect();
            key.allowed_models = Some(models.to_owned()).filter(|it| !it.is_empty()).into_iter().collect();
        })
    };
    assert_refused(&only("go*", ""), "best", "may not use the combo").await;
    assert_refused(&only("", "up/*"), "best", "may").await;
    assert_refused(&only("", "up/*"), "anth/m", "may not use the model").await;
    assert!(is_asked(&only("best", "up/*"), "best").await, "a combo that is named brings its models");
    assert!(is_asked(&only("", "anth/*"), "best").await);
}

#[tokio::test(start_paused = true)]
async fn a_count_is_a_request_of_its_key_and_no_tokens() {
    let few = limited(|key| {
        key.max_requests_per_minute = Some(2);
        key.max_concurrent = Some(1);
        key.max_tokens_per_minute = Some(1);
    });
    assert!(is_asked(&few, "anth/m").await);
    assert_eq!(count(&few, "nobody/knows").await.header("anthropic-ratelimit-requests-remaining"), "0");
    let got = count(&few, "anth/m").await;
    assert!(got.status == 429 && got.body.contains("rate_limit_error"), "{}", got.body);
    assert_eq!(few.transport.sent().len(), 1);
    tokio::time::sleep(Duration::from_secs(130)).await;
    assert_eq!(count(&few, "up/m").await.status, 200);

    let tokens = limited(|key| key.max_tokens_per_minute = Some(1));
    for _ in 0..3 {
        assert_eq!(count(&tokens, "up/m").await.status, 200);
    }
    let ask = r#"{"model":"up/m","max_tokens":1,"messages":[{"role":"user","content":"hi"}]}"#;
    assert_eq!(tokens.send(&Anthropic, ask, &[BEARER]).await.status, 429, "others use them");
}
