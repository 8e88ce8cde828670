//! An explanation says what a real request then gets: the same error, word for word, or none.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use omniroute_dialect::embeddings::Form;
use omniroute_dialect::openai::OpenAi;
use omniroute_domain::entity::{
    ApiKey, Combo, Entities, Policy, PolicyActions, PolicyConditions, PolicyKind, TestStatus, When,
};
use omniroute_engine::preview::Preview;
use omniroute_engine::task::Asked;
use omniroute_engine::{Arrival, EngineOptions};
use serde_json::Value;

use crate::world::{ASK, Got, KEY, World, answer, combo, refusal};

type Change = fn(&mut Entities);

fn world(change: Change) -> World {
    World::with(change, |_: &mut EngineOptions| {})
}

fn of_key(entities: &mut Entities, change: impl Fn(&mut ApiKey)) {
    entities.api_keys.iter_mut().for_each(change);
}

fn best(models: &[&str], change: impl Fn(&mut Combo)) -> Combo {
    let mut best = combo("best", models);
    change(&mut best);
    best
}

const BEST: &str = r#"{"model":"best","messages":[{"role":"user","content":"hi"}]}"#;

/// What is foreseen with the key, then asked with it; both have to be alike. Gives status and code.
async fn alike(world: &World, body: &str, headers: &[(&str, &str)]) -> (u16, String) {
    let foreseen = world.foresee(body, headers, true).await;
    let key = format!("Bearer {KEY}");
    let mut all = vec![("authorization", key.as_str())];
    all.extend(headers);
    let before = world.transport.sent().len();
    let got = world.send(&OpenAi, body, &all).await;
    compared(world, foreseen, &got, before)
}

fn compared(world: &World, foreseen: Preview, got: &Got, before: usize) -> (u16, String) {
    let said: Value = serde_json::from_str(&got.body).unwrap();
    let Some(error) = foreseen.error else {
        assert_eq!(got.status, 200, "nothing was foreseen: {}", got.body);
        assert!(
            foreseen
                .candidates
                .iter()
                .any(|candidate| candidate.skip.is_none() || world.elapsed() > Duration::ZERO)
        );
        return (200, String::new());
    };
    assert_eq!(world.transport.sent().len(), before, "somebody was called: {}", got.body);
    assert_eq!(got.status, error.kind.status(), "{} and {}", error.message, got.body);
    assert_eq!(said["error"]["message"].as_str(), Some(error.message.as_str()), "{}", got.body);
    let code = error.code.as_deref().map(str::to_owned).unwrap_or_default();
    assert_eq!(said["error"]["code"].as_str(), Some(code.as_str()), "{}", got.body);
    let tried: Vec<_> = foreseen.candidates.iter().filter(|candidate| candidate.skip.is_none()).collect();
    assert!(tried.is_empty(), "{tried:?}");
    (got.status, code)
}

/// A configuration, what happened before, the request, and what becomes of it.
struct Case {
    name: &'static str,
    change: Change,
    /// Answers to requests for it that come before.
    before: &'static [(u16, Option<&'static str>)],
    body: &'static str,
    becomes: (u16, &'static str),
}

const SLOW_DOWN: (u16, Option<&str>) = (429, Some("120"));
const SHORTLY: (u16, Option<&str>) = (429, Some("20"));
const OK: (u16, Option<&str>) = (200, None);

const CASES: &[Case] = &[
    Case { name: "nothing is in the way", change: |_| {}, before: &[], body: ASK, becomes: (200, "") },
    Case {
        name: "requests per minute",
        change: |entities| of_key(entities, |key| key.max_requests_per_minute = Some(1)),
        before: &[OK],
        body: ASK,
        becomes: (429, "rate_limit_exceeded"),
    },
    Case {
        name: "requests per day",
        change: |entities| of_key(entities, |key| key.max_requests_per_day = Some(2)),
        before: &[OK, OK],
        body: ASK,
        becomes: (429, "rate_limit_exceeded"),
    },
    Case {
        name: "tokens per minute",
        change: |entities| of_key(entities, |key| key.max_tokens_per_minute = Some(3)),
        before: &[],
        body: ASK,
        becomes: (429, "rate_limit_exceeded"),
    },
    Case {
        name: "a limit that has room is not used up by looking",
        change: |entities| of_key(entities, |key| key.max_requests_per_minute = Some(2)),
        before: &[OK],
        body: ASK,
        becomes: (200, ""),
    },
    Case {
        name: "a key that is off",
        change: |entities| of_key(entities, |key| key.is_active = false),
        before: &[],
        body: ASK,
        becomes: (401, "invalid_api_key"),
    },
    Case {
        name: "a key that has ended",
        change: |entities| of_key(entities, |key| key.expires_at = Some(1)),
        before: &[],
        body: ASK,
        becomes: (401, "invalid_api_key"),
    },
    Case {
        name: "another endpoint",
        change: |entities| of_key(entities, |key| key.allowed_endpoints = vec!["embeddings".into()]),
        before: &[],
        body: ASK,
        becomes: (403, "forbidden"),
    },
    Case {
        name: "every account cools down",
        change: |_| {},
        before: &[SLOW_DOWN, SLOW_DOWN],
        body: ASK,
        becomes: (429, "rate_limit_exceeded"),
    },
    Case {
        name: "one that is free soon is waited for",
        change: |_| {},
        before: &[(429, Some("20")), (429, Some("25")), (429, Some("20"))],
        body: ASK,
        becomes: (200, ""),
    },
    Case {
        name: "only the operator can help",
        change: |entities| {
            entities.connections.iter_mut().for_each(|row| row.status.test_status = TestStatus::Banned);
        },
        before: &[],
        body: ASK,
        becomes: (503, "all_accounts_inactive"),
    },
    Case {
        name: "the key may use no account",
        change: |entities| of_key(entities, |key| key.allowed_connections = vec!["c3".into()]),
        before: &[],
        body: ASK,
        becomes: (400, "no_credentials"),
    },
    Case {
        name: "a combo whose conditions do not hold",
        change: |entities| {
            let when = When { has_tools: Some(true), ..When::default() };
            entities.combos.push(best(&["up/m"], |best| best.steps[0].when = Some(when.clone())));
        },
        before: &[],
        body: BEST,
        becomes: (503, "no_targets"),
    },
    Case {
        name: "a combo of models that nobody has",
        change: |entities| entities.combos.push(best(&["nobody/m"], |_| {})),
        before: &[],
        body: BEST,
        becomes: (503, "no_targets"),
    },
    Case {
        name: "a combo whose targets are denied",
        change: |entities| {
            entities.combos.push(best(&["up/m"], |_| {}));
            of_key(entities, |key| key.denied_models = vec!["up/*".into()]);
        },
        before: &[],
        body: BEST,
        becomes: (403, "model_not_allowed"),
    },
    Case {
        name: "a combo whose targets all cool down",
        change: |entities| entities.combos.push(best(&["up/m", "up/other"], |_| {})),
        before: &[SLOW_DOWN, SLOW_DOWN, SLOW_DOWN, SLOW_DOWN],
        body: BEST,
        becomes: (429, "rate_limit_exceeded"),
    },
    Case {
        name: "a combo that waits for the first of them",
        change: |entities| entities.combos.push(best(&["up/m"], |_| {})),
        before: &[SHORTLY, SHORTLY, SHORTLY, SHORTLY],
        body: BEST,
        becomes: (200, ""),
    },
    Case {
        name: "a combo that goes through its list again",
        change: |entities| {
            entities.settings.resilience.wait_for_cooldown = false;
            entities.combos.push(best(&["up/m"], |best| {
                (best.config.max_set_retries, best.config.set_retry_delay_ms) = (Some(1), Some(30_000));
            }));
        },
        before: &[SHORTLY, SHORTLY, SHORTLY, SHORTLY],
        body: BEST,
        becomes: (200, ""),
    },
    Case {
        name: "a policy refuses every target",
        change: |entities| {
            entities.combos.push(best(&["up/m", "up/other"], |_| {}));
            entities.policies.push(Policy {
                id: "1".into(),
                name: "no up".into(),
                kind: PolicyKind::Access,
                enabled: true,
                mode: Default::default(),
                priority: 1,
                conditions: PolicyConditions::default(),
                actions: PolicyActions { block_model: vec!["up/*".into()], ..PolicyActions::default() },
                created_at: 0,
                updated_at: 0,
            });
        },
        before: &[],
        body: BEST,
        becomes: (403, "policy_denied"),
    },
    Case {
        name: "a fusion that nobody answers",
        change: |entities| {
            entities.combos.push(best(&["up/m", "up/other"], |best| best.strategy = "fusion".into()));
        },
        before: &[SLOW_DOWN, SLOW_DOWN, SLOW_DOWN, SLOW_DOWN],
        body: BEST,
        becomes: (429, "rate_limit_exceeded"),
    },
    Case {
        name: "a pipeline that lacks a step",
        change: |entities| {
            entities.combos.push(best(&["up/m", "nobody/m"], |best| best.strategy = "pipeline".into()));
        },
        before: &[],
        body: BEST,
        becomes: (503, "no_targets"),
    },
    Case {
        name: "a pipeline whose step cools down",
        change: |entities| {
            entities.combos.push(best(&["up/m", "up/other"], |best| best.strategy = "pipeline".into()));
        },
        before: &[SLOW_DOWN, SLOW_DOWN],
        body: BEST,
        becomes: (429, "rate_limit_exceeded"),
    },
];

#[tokio::test(start_paused = true)]
async fn what_is_foreseen_comes_true() {
    for case in CASES {
        let world = world(case.change);
        for (status, retry) in case.before {
            world.transport.answer(match (status, retry) {
                (200, _) => answer("before"),
                (_, retry) => refusal(*status, "rate_limit_error", "slow down")
                    .header("retry-after", retry.unwrap_or("1")),
            });
        }
        if !case.before.is_empty() {
            let key = format!("Bearer {KEY}");
            let counted = case.before.iter().filter(|(status, _)| *status == 200).count().max(1);
            for _ in 0..counted {
                world.send(&OpenAi, case.body, &[("authorization", &key)]).await;
            }
        }
        world.transport.answer(answer("now")).answer(answer("and then"));
        let (status, code) = alike(&world, case.body, &[]).await;
        assert_eq!((status, code.as_str()), case.becomes, "{}", case.name);
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_conversations_is_foreseen() {
    let world = world(|entities| of_key(entities, |key| key.max_sessions = 1));
    world.transport.answer(answer("one")).answer(answer("still one"));
    assert_eq!(alike(&world, ASK, &[("x-session-id", "one")]).await.0, 200);
    let refused = alike(&world, ASK, &[("x-session-id", "two")]).await;
    assert_eq!(refused, (429, "rate_limit_exceeded".to_owned()));
    assert_eq!(alike(&world, ASK, &[("x-session-id", "one")]).await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn accounts_that_are_full_or_held_are_foreseen() {
    // Two minutes are not worth a wait in a queue.
    let world = world(|entities| entities.connections.retain(|row| row.id.as_str() != "c2"));
    let told = answer("ok")
        .header("x-ratelimit-limit-requests", "100")
        .header("x-ratelimit-remaining-requests", "0")
        .header("x-ratelimit-reset-requests", "2m");
    world.transport.answer(told);
    assert_eq!(world.chat(ASK).await.status, 200);
    assert_eq!(alike(&world, ASK, &[]).await, (429, "rate_limit_queue_full".to_owned()));

    let world = self::world(|entities| {
        entities.connections.retain(|row| row.id.as_str() != "c2");
        entities.connections.iter_mut().for_each(|row| row.max_concurrent = Some(1));
    });
    world.transport.answer(answer("slow").after(Duration::from_secs(30)));
    let meanwhile = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        alike(&world, ASK, &[]).await
    };
    let running = world.chat(ASK);
    let (running, refused) = tokio::join!(running, meanwhile);
    assert_eq!((running.status, refused), (200, (429, "rate_limit_exceeded".to_owned())));
}

/// The same of a request for vectors.
async fn alike_for_vectors(world: &World, model: &str) -> (u16, String) {
    let body = format!(r#"{{"model":"{model}","input":["a","b"]}}"#);
    let ctx = world.engine.begin(Arrival {
        peer: SocketAddr::from(([127, 0, 0, 1], 50_000)),
        method: Method::POST,
        path: "/v1/embeddings".into(),
        query: None,
        headers: HeaderMap::new(),
        dialect: &OpenAi,
        endpoint: "embeddings",
        provider: None,
        is_logged: false,
    });
    let asked = Asked::Embeddings { form: Form::OpenAi, model: None };
    let foreseen = world.engine.preview_task(ctx, Bytes::from(body.clone()), asked).await.unwrap();
    let before = world.transport.sent().len();
    let got = crate::embeddings::ask(world, &body, &[]).await;
    compared(world, foreseen, &got, before)
}

#[tokio::test(start_paused = true)]
async fn what_is_not_chat_is_foreseen_too() {
    let world = world(|entities| {
        entities.combos.push(best(&["anth/m", "anth/n"], |_| {}));
        entities.combos.push(Combo {
            id: "2".into(),
            name: "mixed".into(),
            ..best(&["up/m", "up/n"], |_| {})
        });
    });
    let refused = |status, code: &str| (status, code.to_owned());
    assert_eq!(alike_for_vectors(&world, "anth/m").await, refused(400, "unsupported_operation"));
    assert_eq!(alike_for_vectors(&world, "best").await, refused(400, "unsupported_operation"));
    assert_eq!(alike_for_vectors(&world, "mixed").await, refused(400, "invalid_model"));
    for _ in 0..2 {
        world.transport.answer(refusal(429, "rate_limit_error", "slow down").header("retry-after", "120"));
    }
    assert_eq!(crate::embeddings::ask(&world, r#"{"model":"up/m","input":"a"}"#, &[]).await.status, 429);
    assert_eq!(alike_for_vectors(&world, "up/m").await, refused(429, "rate_limit_exceeded"));
    world.transport.answer(omniroute_testkit::Answer::json(
        200,
        r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[1.0]},{"object":"embedding","index":1,"embedding":[2.0]}],"model":"n","usage":{"prompt_tokens":4,"total_tokens":4}}"#.to_owned(),
    ));
    assert_eq!(alike_for_vectors(&world, "up/n").await.0, 200);
}
