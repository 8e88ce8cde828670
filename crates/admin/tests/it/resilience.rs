//! How failures are answered: both shapes of the settings, what failures led to, and its end by the operator.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use omniroute_domain::snapshot::ConnectionState;
use omniroute_provider::{Failure, FailureKind, Scope};
use serde_json::{Value, json};

use crate::app::{START, TestApp};

/// An application with one account at OpenAI.
async fn with_account() -> (TestApp, Arc<ConnectionState>) {
    let app = TestApp::new().await;
    let body = json!({"provider":"openai","name":"work","apiKey":"sk-work-1234567890"});
    app.post("/api/providers", body).await.expect(201);
    let account = account(&app);
    (app, account)
}

fn account(app: &TestApp) -> Arc<ConnectionState> {
    app.live.load().provider(&"openai".into()).expect("it has an account").connections[0].clone()
}

fn failure(kind: FailureKind, scope: Scope) -> Failure {
    Failure { kind, scope, ..Failure::timeout("it did not answer") }
}

/// Opens the breaker, locks a model and puts the account on cooldown.
fn break_everything(account: &ConnectionState) {
    let policy = account.breaker_policy.expect("an account with a key has one");
    // Of two models, so that it is the provider's.
    for (n, model) in (0..12).zip(["gpt-5.6", "m"].into_iter().cycle()) {
        let (pass, _) = account.admit(model, START).expect("closed so far");
        pass.failed(
            &failure(FailureKind::Timeout, Scope::ConnectionModel),
            model,
            &account.id,
            &policy,
            START + n * 200,
        );
    }
    let fail = |scope| {
        account.health.failed(
            "gpt-5.6",
            &failure(FailureKind::RateLimited, scope),
            &account.profile,
            START,
            0.0,
        );
    };
    fail(Scope::ConnectionModel);
    fail(Scope::Connection);
}

#[tokio::test]
async fn both_views_show_and_change_the_same_values() {
    let app = TestApp::new().await;
    let shown = app.get("/api/resilience").await.expect(200).json();
    assert_eq!(
        shown["profiles"]["oauth"],
        json!({"transientCooldown":5000,"rateLimitCooldown":60000,"maxBackoffLevel":8,
            "circuitBreakerThreshold":8,"circuitBreakerReset":60000})
    );
    assert_eq!(
        shown["providerBreaker"]["apikey"],
        json!({"failureThreshold":12,"degradationThreshold":7,"resetTimeoutMs":30000})
    );
    assert_eq!(shown["waitForCooldown"], json!({"enabled":true,"maxRetries":1,"maxRetryWaitSec":30}));
    assert_eq!(shown["modelLockout"]["baseCooldownMs"], Value::Null);

    // The older view.
    let changed = app
        .put(
            "/api/resilience",
            json!({"profiles":{"apikey":{"circuitBreakerThreshold":4}},
            "defaults":{"requestsPerMinute":60}}),
        )
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&changed["ok"], &changed["profiles"]["apikey"]["transientCooldown"]),
        (&json!(true), &json!(3000))
    );
    assert_eq!(changed["providerBreaker"]["apikey"]["failureThreshold"], 4);
    assert_eq!(changed["requestQueue"]["requestsPerMinute"], 60);
    // The newer one, and what `/api/settings` has too.
    app.patch("/api/resilience", json!({"connectionCooldown":{"local":{"baseCooldownMs":700,"maxBackoffSteps":1}},
        "waitForCooldown":{"enabled":false,"maxRetries":3},"modelLockout":{"errorCodes":[503,429,429],"baseCooldownMs":9000},
        "requestQueue":{"maxWaitMs":1,"autoEnableApiKeyProviders":false}}))
        .await
        .expect(200);
    let shown = app.get("/api/resilience").await.expect(200).json();
    assert_eq!(shown["profiles"]["local"]["transientCooldown"], 700);
    assert_eq!(shown["profiles"]["local"]["maxBackoffLevel"], 1);
    assert_eq!(shown["modelLockout"]["errorCodes"], json!([429, 503]));
    assert_eq!(shown["requestQueue"]["maxWaitMs"], 1);
    assert_eq!(app.get("/api/settings").await.json()["requestRetry"], 3);
    app.patch("/api/settings", json!({"maxRetryIntervalSec":7})).await.expect(200);
    assert_eq!(app.get("/api/resilience").await.json()["waitForCooldown"]["maxRetryWaitSec"], 7);
    {
        let live = app.live.load();
        let resilience = &live.settings.resilience;
        assert!(!resilience.wait_for_cooldown && !resilience.request_queue.auto_enable_api_key_providers);
    }

    // All of it sent back changes nothing; one member changed in one of the views does.
    let mut all = app.get("/api/resilience").await.json();
    let before = app.store.settings().get().await.expect("settings");
    app.put("/api/resilience", all.clone()).await.expect(200);
    assert_eq!(app.store.settings().get().await.expect("settings"), before);
    all["profiles"]["oauth"]["circuitBreakerReset"] = json!(1000);
    let changed = app.put("/api/resilience", all).await.expect(200).json();
    assert_eq!(changed["providerBreaker"]["oauth"]["resetTimeoutMs"], 1000);
    // Null takes back what was chosen.
    let null = json!({"providerBreaker":{"apikey":null,"oauth":null},"modelLockout":{"baseCooldownMs":null}});
    let changed = app.patch("/api/resilience", null).await.expect(200).json();
    assert_eq!(changed["profiles"]["apikey"]["circuitBreakerThreshold"], 12);
    assert_eq!(changed["modelLockout"]["baseCooldownMs"], Value::Null);
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_with_the_member() {
    let app = TestApp::new().await;
    for (body, field) in [
        (json!({"profiles":{"apikey":{"transientCooldown":-1}}}), "profiles.apikey.transientCooldown"),
        (
            json!({"profiles":{"apikey":{"circuitBreakerThreshold":0}}}),
            "profiles.apikey.circuitBreakerThreshold",
        ),
        (
            json!({"providerBreaker":{"oauth":{"failureThreshold":0}}}),
            "providerBreaker.oauth.failureThreshold",
        ),
        (
            json!({"providerBreaker":{"oauth":{"degradationThreshold":0}}}),
            "providerBreaker.oauth.degradationThreshold",
        ),
        (
            json!({"connectionCooldown":{"local":{"maxBackoffSteps":99}}}),
            "connectionCooldown.local.maxBackoffSteps",
        ),
        (json!({"requestQueue":{"maxQueueDepth":-1}}), "requestQueue.maxQueueDepth"),
        (json!({"defaults":{"concurrentRequests":-1}}), "defaults.concurrentRequests"),
        (json!({"waitForCooldown":{"maxRetries":11}}), "waitForCooldown.maxRetries"),
        (json!({"modelLockout":{"errorCodes":[200]}}), "modelLockout.errorCodes"),
        (json!({"modelLockout":{"baseCooldownMs":0}}), "modelLockout.baseCooldownMs"),
        (json!({"profiles":{"business":{}}}), "profiles.business"),
        (json!({"profiles":{"oauth":{"cooldown":1}}}), "profiles.oauth.cooldown"),
        (json!({"requestQueue":{"maxWait":1}}), "requestQueue.maxWait"),
        (json!({"modelLockouts":{}}), "modelLockouts"),
        (
            json!({"profiles":{"oauth":{"transientCooldown":1}},"connectionCooldown":{"oauth":{"baseCooldownMs":2}}}),
            "connectionCooldown.oauth.baseCooldownMs",
        ),
    ] {
        let answer = app.put("/api/resilience", body.clone()).await.expect(400);
        assert_eq!(answer.fields(), [field], "{body}: {}", answer.body);
    }
    assert_eq!(
        app.post("/api/resilience/reset", json!({"scope":"everything"})).await.expect(400).fields(),
        ["scope"]
    );
    app.post("/api/resilience/reset", json!({"provider":"nobody"})).await.expect(404);
    assert_eq!(app.get("/api/resilience/timeline?kind=x").await.expect(400).fields(), ["kind"]);
    assert_eq!(app.get("/api/models/availability?status=x").await.expect(400).fields(), ["status"]);
}

#[tokio::test]
async fn what_failures_led_to_is_shown_and_ended() {
    let (app, account) = with_account().await;
    let shown = app.get("/api/resilience").await.expect(200).json();
    assert_eq!(shown["circuitBreakers"][0]["state"], "CLOSED");
    break_everything(&account);
    app.pass(Duration::from_secs(3));

    let shown = app.get("/api/resilience").await.expect(200).json();
    let breaker = &shown["circuitBreakers"][0];
    assert_eq!(
        (&breaker["name"], &breaker["state"], &breaker["cause"]),
        (&json!("openai"), &json!("OPEN"), &json!("timeout"))
    );
    assert_eq!(
        (&breaker["failureCount"], &breaker["retryAfterMs"]),
        (&json!(12), &json!(30_000 + 11 * 200 - 3_000))
    );
    let health = app.get("/api/monitoring/health").await.expect(200).json();
    assert_eq!(health["status"], "degraded");
    assert_eq!(health["circuitBreakers"], json!({"open":1,"halfOpen":0,"closed":0,"total":1}));
    assert_eq!(health["providerHealth"]["openai"]["state"], "OPEN");
    assert_eq!(health["providerBreakers"][0]["failureCount"], 12);
    let models = app.get("/api/models/availability?provider=openai&model=gpt-5.6").await.expect(200).json();
    let entry = &models["models"][0];
    assert_eq!((&entry["status"], &entry["reason"]), (&json!("circuit_open"), &json!("timeout")));
    assert_eq!(entry["blocked"][0]["kind"], "breaker");
    assert_eq!(models["unavailableCount"], 1);
    let asked =
        app.post("/api/models/availability", json!({"model":"openai/gpt-5.6"})).await.expect(200).json();
    assert_eq!((&asked["available"], &asked["resolved"]["via"]), (&json!(false), &json!("direct")));

    let reset = app.post("/api/resilience/reset", json!({})).await.expect(200).json();
    assert_eq!(reset, json!({"ok":true,"resetCount":1,"message":"Reset 1 circuit breaker(s)"}));
    let asked = app.post("/api/models/availability", json!({"model":"openai/gpt-5.6"})).await.json();
    assert_eq!(asked["status"], "available", "lock and cooldown of a second are over: {asked}");

    // Once more, one after the other.
    app.pass(Duration::from_secs(3_600));
    let now = START + 3_603_000;
    let fail = |scope| {
        let failure = Failure {
            retry_after: Some(Duration::from_secs(60)),
            ..failure(FailureKind::RateLimited, scope)
        };
        account.health.failed("gpt-5.6", &failure, &account.profile, now, 0.0);
    };
    fail(Scope::ConnectionModel);
    let list = app.get("/api/resilience/model-cooldowns").await.expect(200).json();
    assert_eq!((&list["count"], &list["modelCooldowns"][0]["remainingMs"]), (&json!(1), &json!(60_000)));
    let locked = app.get("/api/models/availability?provider=openai&status=locked").await.json();
    assert_eq!(
        (&locked["models"][0]["model"], &locked["models"][0]["retryAfterMs"]),
        (&json!("gpt-5.6"), &json!(60_000))
    );
    let body = json!({"provider":"openai","connection":"work","model":"gpt-5.6"});
    let call = || app.as_manager(Method::DELETE, "/api/resilience/model-cooldowns");
    assert_eq!(call().json(&body).send().await.expect(200).json(), json!({"ok":true,"cleared":1}));
    call().json(&json!({"provider":"openai","connection":"nobody"})).send().await.expect(404);
    fail(Scope::Connection);
    let cooling = app.get("/api/models/availability?provider=openai&status=cooldown").await.json();
    assert!(cooling["unavailableCount"].as_u64() > Some(1), "all models of the account: {cooling}");
    let clear = json!({"action":"clearCooldown","provider":"openai","model":"gpt-5.6"});
    assert_eq!(
        app.post("/api/models/availability", clear).await.expect(200).json(),
        json!({"ok":true,"cleared":1})
    );
    fail(Scope::Connection);
    fail(Scope::ConnectionModel);
    let all = app
        .post("/api/resilience/reset", json!({"scope":"all","provider":"openai"}))
        .await
        .expect(200)
        .json();
    assert_eq!(all["message"], "Reset 0 circuit breaker(s), 1 cooldown(s), 1 model lock(s)");
    let deleted = app.delete("/api/monitoring/health").await.expect(200).json();
    assert_eq!(deleted, json!({"success":true,"reset":0}));

    let events = app.get("/api/resilience/timeline?provider=openai").await.expect(200).json();
    let told: Vec<_> = events["events"]
        .as_array()
        .expect("list")
        .iter()
        .map(|event| format!("{} {} {}", event["kind"], event["to"], event["cause"]).replace('"', ""))
        .collect();
    assert_eq!(
        told,
        [
            "breaker CLOSED operator",
            "lock available operator",
            "cooldown available operator",
            "cooldown available operator",
            "lock available operator"
        ],
        "what the test itself broke went past the engine"
    );
}

#[tokio::test]
async fn what_one_process_is_asked_to_end_is_ended_in_the_others() {
    let (app, _) = with_account().await;
    let other = app.another().await;
    let there = || other.load().provider(&"openai".into()).expect("it has an account").connections[0].clone();
    // Breaker, cooldown, lock.
    let held = || {
        let account = there();
        (
            account.breaker.record(START).failure_count > 0,
            account.health.status(START).rate_limited_until.is_some(),
            !account.health.locks(START).is_empty(),
        )
    };
    let model = json!({"provider":"openai","model":"gpt-5.6"});
    let cases = [
        (Method::POST, "/api/resilience/reset", json!({"provider":"openai"}), (false, true, true)),
        (Method::POST, "/api/resilience/reset", json!({"scope":"cooldowns"}), (true, false, true)),
        (Method::POST, "/api/resilience/reset", json!({"scope":"lockouts"}), (true, true, false)),
        (Method::POST, "/api/resilience/reset", json!({"scope":"all"}), (false, false, false)),
        (Method::DELETE, "/api/resilience/model-cooldowns", model.clone(), (true, true, false)),
        (
            Method::DELETE,
            "/api/resilience/model-cooldowns",
            json!({"provider":"openai","connection":"work"}),
            (true, true, false),
        ),
        (Method::DELETE, "/api/models/availability", model, (true, false, false)),
        (Method::DELETE, "/api/monitoring/health", json!({}), (false, true, true)),
    ];
    for (method, path, body, left) in cases {
        there().breaker.reset(START);
        break_everything(&there());
        assert_eq!(held(), (true, true, true));
        let answer = app.as_manager(method, path).json(&body).send().await.expect(200).json();
        let count = [&answer["cleared"], &answer["resetCount"], &answer["reset"]];
        assert!(count.contains(&&json!(0)), "nothing in the process that is asked: {answer}");
        app.catch_up(&other).await;
        assert_eq!(held(), left, "{path} {body}");
    }
    // What is kept for the others has a limit.
    let long = json!({"action":"clearCooldown","provider":"openai","model":"m".repeat(257)});
    assert_eq!(app.post("/api/models/availability", long).await.expect(400).fields(), ["model"]);
}

#[tokio::test]
async fn models_without_accounts_and_combos_are_told_apart() {
    let (app, _) = with_account().await;
    app.post("/api/combos", json!({"name":"best","models":["openai/gpt-5.6"]})).await.expect(201);
    let asked = app.post("/api/models/availability", json!({"model":"best"})).await.expect(200).json();
    assert_eq!((&asked["combo"], &asked["available"]), (&json!(true), &json!(true)));
    assert_eq!(asked["targets"][0]["status"], "available");
    let asked = app.post("/api/models/availability", json!({"model":"groq/x"})).await.expect(200).json();
    assert_eq!((&asked["status"], &asked["available"]), (&json!("no_connection"), &json!(false)));
    let entries = json!(["openai/gpt-5.6", {"model":"openai/gpt-5.4-mini","when":{"hasTools":true}},
        "groq/x", {"model":"nobody-has-this","when":{"hasTools":true}}]);
    app.post("/api/combos", json!({"name":"mixed","models":entries})).await.expect(201);
    let asked = app.post("/api/models/availability", json!({"model":"mixed"})).await.expect(200).json();
    let targets = asked["targets"].as_array().expect("list");
    let told: Vec<_> = targets
        .iter()
        .map(|it| {
            format!("{} {} {} {}", it["provider"], it["model"], it["status"], it["availableConnections"])
        })
        .map(|text| text.replace('"', ""))
        .collect();
    assert_eq!(
        told,
        [
            "openai gpt-5.6 available 1",
            "openai gpt-5.4-mini available 1",
            "groq x no_connection 0",
            " nobody-has-this no_connection 0"
        ]
    );
    assert_eq!(targets[0].get("leftOut"), None);
    assert!(targets[1]["leftOut"].is_string(), "{asked}");
    for (target, why) in targets[2..].iter().zip(["no active connection", "not found"]) {
        assert!(target["reason"].as_str().is_some_and(|reason| reason.contains(why)), "{target}");
    }
    app.post("/api/models/availability", json!({"model":"nobody-has-this"})).await.expect(404);
    let id = app.get("/api/providers").await.json()["connections"][0]["id"].as_str().expect("id").to_owned();
    app.patch(&format!("/api/providers/{id}"), json!({"isActive":false})).await.expect(200);
    let off = app.get("/api/models/availability?provider=openai").await.expect(200).json();
    assert_eq!(off["models"][0]["status"], "disabled");
}

#[tokio::test]
async fn what_is_unknown_is_told_and_what_is_no_json_is_called_so() {
    let (app, _) = with_account().await;
    let reset = "/api/resilience/reset";
    let answer = app.post(reset, json!({"scope":"all","zz":1})).await.expect(200);
    assert_eq!(answer.header("x-ignored-fields").as_deref(), Some("zz"));
    let locks = app.as_manager(Method::DELETE, "/api/resilience/model-cooldowns");
    let answer = locks.json(&json!({"provider":"openai","zz":1})).send().await.expect(200);
    assert_eq!(answer.header("x-ignored-fields").as_deref(), Some("zz"));
    let answer = app.patch("/api/rate-limit", json!({"defaults":{"concurrentRequests":5,"zz":1}})).await;
    assert_eq!(answer.expect(200).header("x-ignored-fields").as_deref(), Some("defaults.zz"));
    // Whatever is wrong with it before it breaks off.
    for broken in [r#"{"scope":"al"#, r#"{"scope":"everything""#, r#"{"zz":1,"scope":7,"#] {
        let refused = app.as_manager(Method::POST, reset).text(broken).send().await.expect(400);
        assert_eq!(refused.code(), "BAD_JSON", "{broken}: {}", refused.body);
    }
    let wrong = app.post(reset, json!({"scope":"everything"})).await.expect(400);
    assert_eq!((wrong.code(), wrong.fields()), ("VALIDATION".into(), vec!["scope".to_owned()]));
}

/// Model, status and how many accounts, of a list.
fn listed(answer: &Value) -> Vec<(String, String, u64)> {
    let entries = answer["models"].as_array().expect("list").iter();
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    entries
        .map(|it| (text(&it["model"]), text(&it["status"]), it["connections"].as_u64().expect("count")))
        .collect()
}

#[tokio::test]
async fn models_that_are_hidden_or_have_no_account_are_listed_as_what_they_are() {
    let (app, _) = with_account().await;
    for (provider, model, hidden) in
        [("openai", "ft:mine", false), ("openai", "ft:kept", true), ("groq", "mine", true)]
    {
        let body = json!({"provider": provider, "modelId": model});
        app.post("/api/provider-models", body).await.expect(200);
        let patch = json!({"provider": provider, "modelId": model, "isHidden": hidden});
        app.patch("/api/provider-models", patch).await.expect(200);
    }
    let list =
        async |query: &str| app.get(&format!("/api/models/availability{query}")).await.expect(200).json();
    let of = |model: &str, status: &str, count: u64| vec![(model.to_owned(), status.to_owned(), count)];
    // A hidden one can still be asked for.
    let hidden = list("?model=ft:kept").await;
    assert_eq!(listed(&hidden), of("ft:kept", "disabled", 1));
    assert!(hidden["models"][0]["reason"].as_str().is_some_and(|reason| reason.starts_with("hidden")));
    assert_eq!(
        (&hidden["models"][0]["availableConnections"], &hidden["unavailableCount"]),
        (&json!(1), &json!(0))
    );
    let asked =
        app.post("/api/models/availability", json!({"model":"openai/ft:kept"})).await.expect(200).json();
    assert_eq!((&asked["status"], &asked["reason"]), (&json!("disabled"), &hidden["models"][0]["reason"]));
    assert_eq!(listed(&list("?model=ft:mine").await), of("ft:mine", "available", 1));
    // Of a combo's entries too.
    app.post("/api/combos", json!({"name":"best","models":["openai/ft:kept","openai/ft:mine"]}))
        .await
        .expect(201);
    let asked = app.post("/api/models/availability", json!({"model":"best"})).await.expect(200).json();
    assert_eq!(
        asked["targets"].as_array().expect("list").iter().map(|it| &it["status"]).collect::<Vec<_>>(),
        ["available", "disabled"]
    );

    // The catalogue is not told of unasked.
    let all = list("").await;
    assert!(listed(&all).iter().all(|(_, status, _)| status != "no_connection"));
    assert_eq!(all["total"], json!(listed(&all).len()));
    let groq = list("?provider=groq").await;
    assert!(listed(&groq).len() > 2, "{groq}");
    assert!(listed(&groq).contains(&("mine".to_owned(), "no_connection".to_owned(), 0)));
    assert!(listed(&groq).iter().all(|(_, status, _)| status == "no_connection"));
    assert_eq!(groq["unavailableCount"], groq["total"]);
    let idle = list("?status=no_connection").await;
    assert!(idle["total"].as_u64() > groq["total"].as_u64());
    assert_eq!(idle["nextCursor"], Value::Null, "all, where no page is asked for");

    // By pages it is the same.
    let mut paged = Vec::new();
    let mut next = Some("0".to_owned());
    while let Some(offset) = next {
        let page = list(&format!("?status=no_connection&limit=150&offset={offset}")).await;
        assert_eq!((&page["total"], &page["unavailableCount"]), (&idle["total"], &idle["unavailableCount"]));
        paged.extend(listed(&page));
        next = page["nextCursor"].as_str().map(str::to_owned);
    }
    assert_eq!(paged, listed(&idle));
    assert_eq!(app.get("/api/models/availability?limit=501").await.expect(400).fields(), ["limit"]);

    // An account that is switched off is there, and the operator brings it back.
    let body = json!({"provider":"groq","name":"spare","apiKey":"gsk-1234567890","isActive":false});
    app.post("/api/providers", body).await.expect(201);
    let off = list("").await;
    assert!(listed(&off).contains(&("mine".to_owned(), "disabled".to_owned(), 1)));
    let asked = app.post("/api/models/availability", json!({"model":"groq/mine"})).await.expect(200).json();
    assert_eq!((&asked["status"], &asked["connections"]), (&json!("disabled"), &json!(1)));
}
