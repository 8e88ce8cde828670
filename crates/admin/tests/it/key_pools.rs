//! Accounts with several keys: each key is shown with what is known of it, and what is ended for the account is for its keys.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use omniroute_domain::entity::{ConnectionId, ConnectionStatus, TestStatus};
use omniroute_domain::health::ModelLock;
use omniroute_domain::limiter::{LearnedLimits, LearnedWindow};
use omniroute_domain::snapshot::ConnectionState;
use omniroute_engine::ports::Memory;
use omniroute_provider::allowance::{Allowance, Allowances};
use omniroute_provider::{Failure, FailureKind, Scope};
use serde_json::{Value, json};

use crate::app::{START, TestApp};

const MODEL: &str = "llama-3.3-70b-versatile";

/// An application with an account at Groq that has three keys.
async fn with_pool() -> (TestApp, Arc<ConnectionState>) {
    let app = TestApp::new().await;
    let body = json!({"provider":"groq","name":"work","apiKey":"gsk_first_1234567890","providerSpecificData":{
        "apiKeys":["gsk_second_123456789","gsk_third_0987654321"],
    }});
    app.post("/api/providers", body).await.expect(201);
    let account = account(&app);
    (app, account)
}

/// The same with one key.
async fn with_one() -> (TestApp, Arc<ConnectionState>) {
    let app = TestApp::new().await;
    let body = json!({"provider":"groq","name":"work","apiKey":"gsk_first_1234567890"});
    app.post("/api/providers", body).await.expect(201);
    let account = account(&app);
    (app, account)
}

/// A change of the keys that an account has beside its first.
fn further(keys: &Value) -> Value {
    json!({"providerSpecificData":{"apiKeys":keys}})
}

fn account(app: &TestApp) -> Arc<ConnectionState> {
    app.live.load().provider(&"groq".into()).expect("it has an account").connections[0].clone()
}

fn fail(key: &ConnectionState, kind: FailureKind, scope: Scope) -> ConnectionStatus {
    let failure = Failure { kind, scope, ..Failure::timeout("so it is") };
    let damage = key.health.failed(MODEL, &failure, &key.profile, START, 0.0);
    damage.status.expect("it is stored")
}

fn is_blocked(account: &ConnectionState) -> [bool; 3] {
    [0, 1, 2].map(|place| account.pool[place].health.check(MODEL, START).is_err())
}

/// The first is banned, on the second the model is locked.
fn break_two(account: &ConnectionState) {
    fail(&account.pool[0], FailureKind::Banned, Scope::Connection);
    fail(&account.pool[1], FailureKind::RateLimited, Scope::ConnectionModel);
    assert_eq!(is_blocked(account), [true, true, false]);
}

#[tokio::test]
async fn each_key_is_shown_with_its_state_and_without_its_secret() {
    let (app, account) = with_pool().await;
    break_two(&account);
    let id = account.id.as_str();
    let (first, second) = (account.pool[0].state_id().as_str(), account.pool[1].state_id().as_str());
    let row = app.get(&format!("/api/providers/{id}")).await.expect(200).json()["connection"].clone();
    let shown: Vec<_> = row["keys"].as_array().expect("keys").iter().collect();
    let told: Vec<_> =
        shown.iter().map(|key| (&key["place"], &key["maskedKey"], &key["testStatus"])).collect();
    assert_eq!(
        json!(told),
        json!([
            [1, "gsk_****7890", "banned"],
            [2, "gsk_****6789", "unknown"],
            [3, "gsk_****4321", "unknown"]
        ])
    );
    assert_eq!((&shown[0]["id"], &shown[0]["lastErrorType"]), (&json!(first), &json!("banned")));
    assert_eq!(row["testStatus"], "unknown", "a key is left");

    let resilience = app.get("/api/resilience").await.expect(200).json();
    let paused = &resilience["rateLimitStatus"][format!("groq:{first}")];
    assert_eq!((&paused["key"]["place"], &paused["backoffLevel"]), (&json!(1), &json!(0)));
    let locks = app.get("/api/resilience/model-cooldowns").await.expect(200).json();
    let lock = &locks["modelCooldowns"][0];
    assert_eq!(
        (&locks["count"], &lock["connectionId"], &lock["key"]["id"], &lock["model"]),
        (&json!(1), &json!(id), &json!(second), &json!(MODEL))
    );
    let health = app.get("/api/monitoring/health").await.expect(200).json();
    assert_eq!(health["lockouts"][0]["key"]["maskedKey"], "gsk_****6789");
    assert!(health["rateLimitStatus"][format!("groq:{first}")].is_object());
    let path = format!("/api/models/availability?provider=groq&model={MODEL}");
    let model = app.get(&path).await.expect(200).json()["models"][0].clone();
    assert_eq!((&model["status"], &model["availableConnections"]), (&json!("available"), &json!(1)));
    let blocked: Vec<_> = model["blocked"].as_array().expect("list").iter().collect();
    let blocked: Vec<_> = blocked.iter().map(|it| json!([it["key"]["place"], it["kind"]])).collect();
    assert_eq!(json!(blocked), json!([[1, "inactive"], [2, "lock"]]));

    fail(&account.pool[1], FailureKind::QuotaSpent, Scope::Connection);
    fail(&account.pool[2], FailureKind::Banned, Scope::Connection);
    let row = app.get(&format!("/api/providers/{id}")).await.expect(200).json()["connection"].clone();
    assert_eq!(
        (&row["lastErrorType"], &row["rateLimitedUntil"]),
        (&json!("quota_exhausted"), &row["keys"][1]["rateLimitedUntil"]),
        "none is left; told is the one that is back first"
    );
    for text in [row, resilience, locks, health, model] {
        assert!(!text.to_string().contains("gsk_second"), "{text}");
    }
}

#[tokio::test]
async fn limits_of_keys_are_shown_and_the_best_one_is_the_account() {
    let (app, account) = with_pool().await;
    for (place, remaining) in [(0, 3), (1, 40), (2, 20)] {
        let requests = Allowance { limit: Some(60), remaining, reset: Some(Duration::from_secs(30)) };
        let said = Allowances { requests: Some(requests), ..Allowances::default() };
        account.pool[place].health.gate.learn(MODEL, &said, START);
    }
    let seen = app.get("/api/rate-limits").await.expect(200).json()["connections"][0].clone();
    assert_eq!((&seen["limit"], &seen["remaining"]), (&json!(60), &json!(40)));
    let keys: Vec<_> = seen["keys"].as_array().expect("keys").iter().collect();
    let keys: Vec<_> = keys.iter().map(|it| json!([it["key"]["place"], it["remaining"]])).collect();
    assert_eq!(json!(keys), json!([[1, 3], [2, 40], [3, 20]]));
    let settings = app.get("/api/rate-limit").await.expect(200).json();
    assert_eq!(settings["connections"][0]["keys"][0]["models"][MODEL]["remaining"], 3);
    let health = app.get("/api/monitoring/health").await.expect(200).json();
    let known = &health["learnedLimits"][format!("groq:{}", account.pool[2].state_id())];
    assert_eq!(known["remaining"], 20);
    let quota = app.get("/api/usage/quota").await.expect(200).json()["providers"][0].clone();
    assert_eq!((&quota["percentRemaining"], &quota["isLow"]), (&json!(66.7), &json!(false)));
    let windows: Vec<_> = quota["windows"].as_array().expect("windows").iter().collect();
    let windows: Vec<_> = windows.iter().map(|it| json!([it["key"]["place"], it["remaining"]])).collect();
    assert_eq!(json!(windows), json!([[1, 3], [2, 40], [3, 20]]));
}

#[tokio::test]
async fn what_is_ended_for_the_account_is_ended_for_its_keys() {
    let (app, account) = with_pool().await;
    let cool = |place: usize| fail(&account.pool[place], FailureKind::AuthRejected, Scope::Connection);
    let lock = |place: usize| fail(&account.pool[place], FailureKind::RateLimited, Scope::ConnectionModel);

    cool(0);
    lock(1);
    lock(2);
    let reset = app.post("/api/resilience/reset", json!({"scope":"cooldowns"})).await.expect(200).json();
    assert_eq!((&reset["resetCount"], is_blocked(&account)), (&json!(1), [false, true, true]));
    let reset = app.post("/api/resilience/reset", json!({"scope":"lockouts"})).await.expect(200).json();
    assert_eq!((&reset["resetCount"], is_blocked(&account)), (&json!(2), [false; 3]));

    lock(0);
    let draft = json!({"provider":"groq","connection":"work","model":MODEL});
    let call = app.as_manager(Method::DELETE, "/api/resilience/model-cooldowns").json(&draft);
    let gone = call.send().await.expect(200).json();
    assert_eq!((&gone["cleared"], is_blocked(&account)), (&json!(1), [false; 3]));

    cool(1);
    lock(2);
    let draft = json!({"action":"clearCooldown","provider":"groq","model":MODEL});
    let gone = app.post("/api/models/availability", draft).await.expect(200).json();
    assert_eq!((&gone["cleared"], is_blocked(&account)), (&json!(2), [false; 3]));

    let path = format!("/api/providers/{}", account.id);
    for change in [json!({"clearError":true}), json!({"apiKey":"gsk_other_1234567890"})] {
        let account = self::account(&app);
        break_two(&account);
        app.patch(&path, change).await.expect(200);
        assert_eq!(is_blocked(&self::account(&app)), [false; 3]);
    }
}

#[tokio::test]
async fn stored_states_are_shown_of_accounts_that_are_off_and_cleared() {
    let (app, account) = with_pool().await;
    let status = ConnectionStatus { test_status: TestStatus::Banned, ..ConnectionStatus::default() };
    app.store.key_states().set(account.pool[1].state_id(), &status).await.expect("written");
    let path = format!("/api/providers/{}", account.id);
    let row = app.patch(&path, json!({"isActive":false})).await.expect(200).json()["connection"].clone();
    assert_eq!(row["keys"][1]["testStatus"], "banned");
    // It is on again: as it was left.
    app.patch(&path, json!({"isActive":true})).await.expect(200);
    assert_eq!(is_blocked(&self::account(&app)), [false, true, false]);
    // Its place is another one now.
    let data = json!({"apiKeys":["gsk_third_0987654321","gsk_new_12345678901","gsk_second_123456789"]});
    let row = app.patch(&path, json!({"providerSpecificData":data})).await.expect(200).json();
    let keys = row["connection"]["keys"].as_array().expect("keys").clone();
    let states: Vec<_> = keys.iter().map(|key| key["testStatus"].as_str().expect("a word")).collect();
    assert_eq!(states, ["unknown", "unknown", "unknown", "banned"]);
    app.patch(&path, json!({"isActive":false})).await.expect(200);
    let row = app.patch(&path, json!({"clearError":true})).await.expect(200).json();
    assert_eq!(row["connection"]["keys"][3]["testStatus"], "unknown");
    let stored = app.store.connections().get(&ConnectionId::from(account.id.as_str())).await.expect("read");
    assert!(stored.expect("it is there").key_statuses.is_empty());
}

#[tokio::test]
async fn an_account_that_gets_further_keys_gives_its_state_to_the_first() {
    let (app, before) = with_one().await;
    let status = fail(&before, FailureKind::Banned, Scope::Connection);
    app.store.connections().set_status(&before.id, &status).await.expect("written");
    let path = format!("/api/providers/{}", before.id);
    app.patch(&path, further(&json!(["gsk_second_123456789"]))).await.expect(200);
    let several = account(&app);
    assert_eq!(several.check(MODEL, START), Ok(()), "the second serves");
    assert!(several.pool[0].health.check(MODEL, START).is_err() && several.keys(MODEL, START).len() == 1);
    app.patch(&path, further(&Value::Null)).await.expect(200);
    assert!(account(&app).check(MODEL, START).is_err());
}

#[tokio::test]
async fn limits_that_the_vendor_told_follow_the_first_key() {
    let (app, before) = with_one().await;
    let window = LearnedWindow { limit: Some(100), remaining: 3, until: START + 60_000, spacing_ms: 0 };
    let told = LearnedLimits { requests: Some(window), heard_at: START, ..LearnedLimits::default() };
    before.health.gate.restore(MODEL, told.clone(), START);
    let path = format!("/api/providers/{}", before.id);
    let known = |state: &ConnectionState| state.health.gate.view(START).learned;
    let is_known = [(MODEL.to_owned(), told)];

    app.patch(&path, further(&json!(["gsk_second_123456789"]))).await.expect(200);
    let several = account(&app);
    assert_eq!(known(&several.pool[0]), is_known);
    assert_eq!((known(&several), known(&several.pool[1])), (vec![], vec![]));

    app.patch(&path, further(&Value::Null)).await.expect(200);
    assert_eq!(known(&account(&app)), is_known);
}

#[tokio::test]
async fn locks_of_models_follow_the_first_key() {
    let (app, before) = with_one().await;
    let failure = Failure { kind: FailureKind::RateLimited, ..Failure::timeout("so it is") };
    let failure = Failure { scope: Scope::ConnectionModel, ..failure };
    before.health.failed(MODEL, &failure, &before.profile, START, 0.0);
    let locks = before.health.locks(START);
    assert_eq!(locks.len(), 1);
    let path = format!("/api/providers/{}", before.id);
    // What was written of locks by now: whose, and whether it is one.
    let written = || {
        let words = app.rows.memories().into_iter().filter_map(|memory| match memory {
            Memory::Lock(row) if row.lock == locks[0] => Some((row.connection, true)),
            Memory::Unlock { connection, model } if model == MODEL => Some((connection, false)),
            _ => None,
        });
        words.collect::<Vec<_>>()
    };

    app.patch(&path, further(&json!(["gsk_second_123456789"]))).await.expect(200);
    let several = account(&app);
    let first = several.pool[0].state_id().clone();
    assert_eq!((several.pool[0].health.locks(START), several.health.locks(START)), (locks.clone(), vec![]));
    assert!(several.pool[1].health.check(MODEL, START).is_ok(), "the second serves");
    assert_eq!(several.check(MODEL, START), Ok(()));
    assert_eq!(written(), [(before.id.clone(), false), (first.clone(), true)]);

    app.patch(&path, further(&Value::Null)).await.expect(200);
    let alone = account(&app);
    assert_eq!(alone.health.locks(START), locks);
    assert!(alone.check(MODEL, START).is_err() && alone.check("another", START).is_ok());
    assert_eq!(written()[2..], [(first, false), (before.id.clone(), true)]);
}

#[tokio::test]
async fn a_good_test_clears_all_keys_and_a_bad_one_blames_the_first() {
    let (app, account) = with_pool().await;
    let path = format!("/api/providers/{}", account.id);
    break_two(&account);
    app.upstream.answer(200, r#"{"object":"list","data":[{"id":"llama"}]}"#);
    let result = app.post(&format!("{path}/test"), json!({})).await.expect(200).json();
    assert_eq!((&result["valid"], is_blocked(&account)), (&json!(true), [false; 3]));

    // What only another process knows is over as well.
    let other = app.another().await;
    let there = || other.load().provider(&"groq".into()).expect("it has an account").connections[0].clone();
    there().pool[2].health.restore_lock(ModelLock {
        model: MODEL.into(),
        reason: FailureKind::RateLimited,
        until: START + 60_000,
        failure_count: 1,
        locked_at: START,
    });
    app.upstream.answer(200, r#"{"object":"list","data":[{"id":"llama"}]}"#);
    app.post(&format!("{path}/test"), json!({})).await.expect(200);
    assert_eq!(is_blocked(&there()), [false, false, true], "not before it is heard of");
    app.catch_up(&other).await;
    assert_eq!(is_blocked(&there()), [false; 3]);

    app.pass(Duration::from_secs(1));
    app.upstream.answer(401, r#"{"error":{"message":"this account is disabled","code":"account_disabled"}}"#);
    let result = app.post(&format!("{path}/test"), json!({})).await.expect(200).json();
    assert_eq!(result["valid"], false);
    let row = app.get(&path).await.expect(200).json()["connection"].clone();
    assert_eq!((&row["testStatus"], &row["keys"][0]["testStatus"]), (&json!("error"), &json!("banned")));
    app.patch(&path, json!({"isActive":false})).await.expect(200);
    app.patch(&path, json!({"isActive":true})).await.expect(200);
    assert_eq!(is_blocked(&self::account(&app)), [true, false, false], "the others serve");
    assert_eq!(self::account(&app).check(MODEL, START), Ok(()));
}
