//! Webhooks: who is told of what, how messages are signed, and what becomes of those that do not arrive.

use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::Method;
use omniroute_admin::Courier;
use omniroute_domain::budget::{Event, EventKind as BudgetKind, Window};
use omniroute_domain::entity::{ApiKeyId, ConnectionId, ConnectionStatus};
use omniroute_domain::timeline::{EventKind, HealthEvent};
use omniroute_provider::{Failure, FailureKind, Scope};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::app::{START, TestApp, remote};

const URL: &str = "https://93.184.216.34/hook";

async fn add(app: &TestApp, events: Value) -> (String, String) {
    let made = app.post("/api/webhooks", json!({"url": URL, "events": events})).await.expect(201).json();
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    (text(&made["webhook"]["id"]), text(&made["secret"]))
}

/// A courier that does not wait long.
#[allow(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
async fn start(app: &TestApp) {
    let (store, live) = (app.store.clone(), app.live.clone());
    let courier = Courier::new(store, live, app.upstream.clone(), app.clock.clone(), false);
    tokio::spawn(courier.in_haste([Duration::from_millis(5); 3], Duration::from_millis(10)).run());
    // It has looked at the accounts when it waits for the first time.
    tokio::task::yield_now().await;
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let waits = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(20), waits).await;
    assert!(in_time.is_ok(), "not in time: {what}");
}

fn warning() -> Event {
    let kind = BudgetKind::Warning { spent_nano: 8_200_000_000, limit_nano: 10_000_000_000 };
    Event { key: Some(ApiKeyId::from("k1")), window: Window::Daily, kind, at_ms: START }
}

/// Types and data of the messages that were sent.
fn sent(app: &TestApp) -> Vec<(String, Value)> {
    let bodies = app.upstream.bodies.lock().expect("lock");
    let messages = bodies.iter().map(|body| serde_json::from_slice::<Value>(body).expect("JSON"));
    messages
        .map(|message| (message["type"].as_str().expect("type").to_owned(), message["data"].clone()))
        .collect()
}

#[tokio::test]
async fn webhooks_are_made_shown_changed_and_deleted() {
    let app = TestApp::new().await;
    app.request(Method::GET, "/api/webhooks").from(remote()).send().await.expect(401);
    for (body, code) in [
        (json!({}), 400),
        (json!({"url": "ftp://example.com"}), 400),
        (json!({"url": "http://127.0.0.1:9/hook"}), 400),
        (json!({"url": URL, "events": []}), 400),
        (json!({"url": URL, "events": ["budget.warning", "nonsense"]}), 400),
        (json!({"url": URL, "description": "d".repeat(501)}), 400),
        (json!({"url": "http://169.254.169.254/", "allowPrivate": true}), 400),
    ] {
        app.post("/api/webhooks", body).await.expect(code);
    }
    let (id, secret) = add(&app, json!(["budget.warning", "account.out", "account.out"])).await;
    assert!(secret.starts_with("whsec_"), "{secret}");
    let list = app.get("/api/webhooks").await.expect(200);
    assert!(!list.body.contains(&secret[6..]), "it is shown once");
    let list = list.json();
    assert_eq!(list["availableEvents"].as_array().map(Vec::len), Some(6));
    assert_eq!(list["delivery"], json!({"waiting": 0, "delivered": 0, "failed": 0, "dropped": 0}));
    let shown = &list["webhooks"][0];
    assert_eq!(
        (&shown["events"], &shown["enabled"]),
        (&json!(["account.out", "budget.warning"]), &json!(true))
    );
    assert_eq!((&shown["lastStatus"], &shown["lastDeliveredAt"]), (&Value::Null, &Value::Null));
    let path = format!("/api/webhooks/{id}");
    let patch = json!({"enabled": false, "description": "to the team", "events": ["*"]});
    let changed = app.as_manager(Method::PATCH, &path).json(&patch).send().await.expect(200).json();
    assert_eq!(
        (&changed["webhook"]["enabled"], &changed["webhook"]["events"]),
        (&json!(false), &json!(["*"]))
    );
    assert_eq!(app.get(&path).await.expect(200).json()["webhook"]["url"], URL);
    let private = json!({"url": "http://127.0.0.1:9/hook"});
    app.as_manager(Method::PATCH, &path).json(&private).send().await.expect(400);
    let private = json!({"url": "http://127.0.0.1:9/hook", "allowPrivate": true});
    app.as_manager(Method::PATCH, &path).json(&private).send().await.expect(200);
    // What lets it call such an address is not taken away while it does.
    app.as_manager(Method::PATCH, &path).json(&json!({"allowPrivate": false})).send().await.expect(400);
    app.delete(&path).await.expect(200);
    for answer in
        [app.delete(&path).await, app.get(&path).await, app.post(&format!("{path}/test"), json!({})).await]
    {
        answer.expect(404);
    }
    app.post(&format!("{path}/rotate"), json!({})).await.expect(404);
}

#[tokio::test]
async fn a_test_is_signed_with_every_good_secret() {
    let app = TestApp::new().await;
    let (id, old) = add(&app, json!(["*"])).await;
    app.upstream.answer(204, "");
    let test = format!("/api/webhooks/{id}/test");
    let answer = app.post(&test, json!({})).await.expect(200).json();
    assert_eq!(answer, json!({"success": true, "status": 204, "error": null}));
    let rotated = app.post(&format!("/api/webhooks/{id}/rotate"), json!({})).await.expect(200).json();
    let new = rotated["secret"].as_str().expect("secret").to_owned();
    assert_ne!(new, old);
    app.upstream.answer(200, "thanks");
    app.post(&test, json!({})).await.expect(200);
    app.clock.0.fetch_add(24 * 3_600 * 1_000, Ordering::SeqCst);
    app.upstream.answer(200, "thanks");
    app.post(&test, json!({})).await.expect(200);
    let sign = |secret: &str, id: &str, at: &str, body: &[u8]| {
        let key = STANDARD.decode(secret.trim_start_matches("whsec_")).expect("base64");
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("a key");
        mac.update(&[id.as_bytes(), b".", at.as_bytes(), b".", body].concat());
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    };
    let (asked, bodies) =
        (app.upstream.asked.lock().expect("lock"), app.upstream.bodies.lock().expect("lock"));
    let good = [vec![&old], vec![&new, &old], vec![&new]];
    for (((url, headers), body), good) in asked.iter().zip(bodies.iter()).zip(good) {
        assert_eq!(url, &format!("POST {URL}"));
        let header = |name: &str| headers[name].to_str().expect("text").to_owned();
        let (id, at) = (header("webhook-id"), header("webhook-timestamp"));
        let wanted: Vec<_> = good.iter().map(|secret| sign(secret, &id, &at, body)).collect();
        assert_eq!(header("webhook-signature"), wanted.join(" "));
        let message: Value = serde_json::from_slice(body).expect("JSON");
        assert_eq!((&message["id"], &message["type"]), (&json!(id), &json!("webhook.test")));
        assert!(message["createdAt"].as_str().is_some_and(|at| at.ends_with('Z')));
    }
}

#[tokio::test]
async fn a_test_that_does_not_arrive_says_why() {
    let app = TestApp::new().await;
    let (id, _) = add(&app, json!(["*"])).await;
    let test = format!("/api/webhooks/{id}/test");
    for (status, error) in [
        (Some(302), "it answered 302; it is not followed, give the address it leads to"),
        (Some(500), "it answered 500"),
        (None, "cannot connect to upstream.test: refused"),
    ] {
        if let Some(status) = status {
            app.upstream.answer(status, "");
        }
        let answer = app.post(&test, json!({})).await.expect(200).json();
        assert_eq!(answer, json!({"success": false, "status": status, "error": error}));
        let shown = app.get(&format!("/api/webhooks/{id}")).await.expect(200).json();
        assert_eq!(
            (&shown["webhook"]["lastStatus"], &shown["webhook"]["lastError"]),
            (&json!(status), &json!(error))
        );
    }
}

#[tokio::test]
async fn who_wants_to_know_is_told_and_tried_again() {
    let app = TestApp::new().await;
    let (id, _) = add(&app, json!(["budget.warning"])).await;
    add(&app, json!(["breaker.opened"])).await;
    for status in [500, 429, 200] {
        app.upstream.answer(status, "");
    }
    start(&app).await;
    app.live.notices.budget(&warning());
    until("it arrives", async || app.live.notices.delivered.load(Ordering::Relaxed) == 1).await;
    let data = json!({"scope": "key", "apiKeyId": "k1", "apiKeyName": null, "window": "daily", "spentUsd": 8.2, "limitUsd": 10.0});
    assert_eq!(
        sent(&app),
        vec![("budget.warning".to_owned(), data); 3],
        "the same thing, and to nobody else"
    );
    let ids: Vec<_> = app
        .upstream
        .asked
        .lock()
        .expect("lock")
        .iter()
        .map(|(_, headers)| headers["webhook-id"].clone())
        .collect();
    assert!(ids[0] == ids[1] && ids[1] == ids[2], "by its id it is known again: {ids:?}");
    let shown = app.get(&format!("/api/webhooks/{id}")).await.expect(200).json()["webhook"].clone();
    assert_eq!((&shown["lastStatus"], &shown["lastError"]), (&json!(200), &Value::Null));
    assert!(shown["lastDeliveredAt"].is_string());
    // After four tries it is given up; the scripted upstream has no answers left.
    app.live.notices.budget(&warning());
    until("it is given up", async || app.live.notices.failed.load(Ordering::Relaxed) == 1).await;
    assert_eq!(sent(&app).len(), 3 + 4);
    // What goes on is told in the list.
    let list = app.get("/api/webhooks").await.expect(200).json();
    assert_eq!(list["delivery"], json!({"waiting": 0, "delivered": 1, "failed": 1, "dropped": 0}));
    // Whoever says that it is gone is not asked again.
    app.upstream.answer(410, "");
    app.live.notices.budget(&warning());
    until("it is switched off", async || {
        app.get(&format!("/api/webhooks/{id}")).await.json()["webhook"]["enabled"] == false
    })
    .await;
    assert_eq!(sent(&app).len(), 8);
}

#[tokio::test]
async fn many_who_want_to_know_of_much_are_all_told() {
    // More at once than the database has readers.
    let (who, what) = (4, 4);
    let app = TestApp::new().await;
    for _ in 0..who {
        add(&app, json!(["*"])).await;
    }
    for _ in 0..who * what {
        app.upstream.answer(200, "");
    }
    start(&app).await;
    for _ in 0..what {
        app.live.notices.budget(&warning());
    }
    until("all arrive", async || app.live.notices.delivered.load(Ordering::Relaxed) == who * what).await;
    assert_eq!(app.live.notices.dropped.load(Ordering::Relaxed), 0);
}

fn breaker(from: &'static str, to: &'static str) -> HealthEvent {
    HealthEvent {
        at: START,
        kind: EventKind::Breaker,
        provider: "openai".into(),
        breaker: Some("openai".into()),
        connection: None,
        key: None,
        model: None,
        from,
        to,
        cause: "timeout",
        until: Some(START + 30_000),
    }
}

#[tokio::test]
async fn breakers_are_told_when_they_open_and_close() {
    let app = TestApp::new().await;
    add(&app, json!(["breaker.opened", "breaker.closed"])).await;
    for _ in 0..9 {
        app.upstream.answer(200, "");
    }
    start(&app).await;
    for (from, to) in [
        ("CLOSED", "DEGRADED"),
        ("DEGRADED", "CLOSED"),
        ("CLOSED", "OPEN"),
        ("OPEN", "HALF_OPEN"),
        ("HALF_OPEN", "OPEN"),
        ("HALF_OPEN", "CLOSED"),
    ] {
        app.live.notices.health(&breaker(from, to));
    }
    until("all arrive", async || app.live.notices.delivered.load(Ordering::Relaxed) == 3).await;
    let mut kinds: Vec<_> = sent(&app).into_iter().map(|(kind, _)| kind).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["breaker.closed", "breaker.opened", "breaker.opened"]);
    let data = sent(&app).into_iter().find(|(kind, _)| kind == "breaker.opened").expect("one").1;
    assert_eq!((&data["provider"], &data["until"]), (&json!("openai"), &json!("2027-01-15T08:00:30.000Z")));
}

#[tokio::test]
async fn an_account_that_is_out_is_told_once_and_when_it_is_back() {
    let app = TestApp::new().await;
    let body = json!({"provider":"openai","name":"work","apiKey":"sk-work-1234567890"});
    app.post("/api/providers", body).await.expect(201);
    add(&app, json!(["account.out", "account.back"])).await;
    for _ in 0..9 {
        app.upstream.answer(200, "");
    }
    start(&app).await;
    let account = app.live.load().provider(&"openai".into()).expect("there").connections[0].clone();
    let event = |cause: &'static str| HealthEvent {
        kind: EventKind::Cooldown,
        breaker: None,
        connection: Some(ConnectionId::from(account.id.as_str())),
        key: None,
        cause,
        ..breaker("available", "cooldown")
    };
    let fail = |kind| {
        let failure = Failure { kind, scope: Scope::Connection, ..Failure::timeout("no") };
        account.health.failed("gpt-4o", &failure, &account.profile, START, 0.0);
    };
    // Too many requests for a moment: nothing that anybody has to be told.
    fail(FailureKind::RateLimited);
    app.live.notices.health(&event("rate_limit"));
    account.health.clear(ConnectionStatus::default());
    fail(FailureKind::QuotaSpent);
    app.live.notices.health(&event("quota_exhausted"));
    app.live.notices.health(&event("quota_exhausted"));
    until("it is out", async || sent(&app).len() == 1).await;
    account.health.clear(ConnectionStatus::default());
    until("it is back", async || sent(&app).len() == 2).await;
    // And again.
    fail(FailureKind::AuthRejected);
    app.live.notices.health(&event("auth"));
    until("it is out again", async || sent(&app).len() == 3).await;
    // The pause after a rejected key ends by itself; that does not make the key good.
    app.clock.0.fetch_add(3_600_000, Ordering::SeqCst);
    assert!(account.check("", START + 3_600_000).is_ok());
    tokio::time::sleep(Duration::from_millis(50)).await;
    app.clock.0.fetch_add(3_600_000, Ordering::SeqCst);
    account.health.succeeded("gpt-4o", START + 7_200_000);
    until("it answers", async || sent(&app).len() == 4).await;
    let told = sent(&app);
    let kinds: Vec<_> = told.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(kinds, ["account.out", "account.back", "account.out", "account.back"]);
    let last: Value = serde_json::from_slice(&app.upstream.bodies.lock().expect("lock")[3]).expect("JSON");
    assert_eq!(
        last["createdAt"], "2027-01-15T10:00:00.000Z",
        "when it answered, not when the pause was over"
    );
    let causes: Vec<_> = told.iter().map(|(_, data)| data["cause"].as_str().expect("cause")).collect();
    assert_eq!(causes, ["quota_exhausted", "recovered", "auth", "recovered"]);
    assert_eq!((&told[0].1["connectionName"], &told[0].1["provider"]), (&json!("work"), &json!("openai")));
}
