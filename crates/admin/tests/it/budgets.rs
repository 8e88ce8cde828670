//! What keys may spend.

use std::task::{Context, Poll};
use std::time::Duration;

use omniroute_domain::budget::Window;
use omniroute_domain::entity::ApiKeyId;
use omniroute_store::AuditQuery;
use serde_json::{Value, json};

use crate::app::{START, TestApp};

async fn key(app: &TestApp, name: &str) -> String {
    let made = app.post("/api/keys", json!({"name": name})).await.expect(201).json();
    made["id"].as_str().expect("id").to_owned()
}

/// As a request of the key would.
fn spend(app: &TestApp, id: &str, nano: i64) {
    let snapshot = app.live.load();
    let mut events = Default::default();
    let key = ApiKeyId::from(id);
    let hold = app.live.spending.hold(&snapshot.budgets, Some(&key), 0, START, &mut events);
    hold.expect("fits").settle(nano, 1, START, &mut events);
}

#[tokio::test]
async fn both_spellings_give_the_same_budget() {
    let app = TestApp::new().await;
    let (one, other) = (key(&app, "one").await, key(&app, "other").await);
    app.post("/api/usage/budget", json!({"keyId": one, "limit": 10, "period": "weekly"})).await.expect(200);
    let body = json!({"apiKeyId": other, "weeklyLimitUsd": 10, "resetInterval": "weekly"});
    let set = app.put("/api/usage/budget", body).await.expect(200).json();
    assert_eq!((&set["success"], &set["apiKeyId"]), (&json!(true), &json!(other)));
    let show = async |id: &str| app.get(&format!("/api/usage/budget?apiKeyId={id}")).await.expect(200).json();
    let (mut first, mut second) = (show(&one).await, show(&other).await);
    for status in [&mut first, &mut second] {
        status["apiKeyId"] = Value::Null;
        status["keyName"] = Value::Null;
        status["budget"]["apiKeyId"] = Value::Null;
    }
    assert_eq!(first, second);
    assert_eq!((&first["activeLimitUsd"], &first["resetInterval"]), (&json!(10.0), &json!("weekly")));
    let by_old_name = app.get(&format!("/api/usage/budget?keyId={one}")).await.expect(200).json();
    assert_eq!(by_old_name["keyName"], "one");
}

#[tokio::test]
async fn defect_12_what_is_not_sent_stays_and_every_window_is_shown() {
    let app = TestApp::new().await;
    let id = key(&app, "dev").await;
    let body = json!({"apiKeyId": id, "dailyLimitUsd": 1, "monthlyLimitUsd": 20, "totalLimitUsd": 100, "warningThreshold": 0.5});
    app.post("/api/usage/budget", body).await.expect(200);
    let changed =
        app.post("/api/usage/budget", json!({"apiKeyId": id, "weeklyLimitUsd": 5, "totalLimitUsd": null}));
    let budget = changed.await.expect(200).json()["budget"].clone();
    let want = json!({
        "apiKeyId": id, "dailyLimitUsd": 1.0, "weeklyLimitUsd": 5.0, "monthlyLimitUsd": 20.0, "totalLimitUsd": null,
        "warningThreshold": 0.5, "resetInterval": "daily", "resetTime": "00:00", "hardStop": true,
        "blockUnpriced": false, "onExceeded": "block",
    });
    assert_eq!(budget, want);
    assert_eq!(app.get(&format!("/api/keys/{id}")).await.expect(200).json()["budget"], want);
    assert_eq!(app.get("/api/keys").await.expect(200).json()["keys"][0]["budget"], want);

    spend(&app, &id, 600_000_000);
    let status = app.get(&format!("/api/usage/budget?apiKeyId={id}")).await.expect(200).json();
    for (name, value) in [
        ("dailyTotal", json!(0.6)),
        ("weeklyTotal", json!(0.6)),
        ("monthlyTotal", json!(0.6)),
        ("totalCostPeriod", json!(0.6)),
        ("totalEntries", json!(1)),
        ("activeLimitUsd", json!(1.0)),
        (
            "budgetCheck",
            json!({"allowed":true,"reason":null,"warningReached":true,"remaining":0.4,"periodUsed":0.6}),
        ),
    ] {
        assert_eq!(status[name], value, "{name}");
    }
    let day = app.live.load().budgets.calendar.span(Window::Daily, START);
    assert_eq!(
        (&status["periodStartAt"], &status["nextResetAt"]),
        (&json!(day.start_ms), &json!(day.end_ms))
    );
    spend(&app, &id, 600_000_000);
    let status = app.get(&format!("/api/usage/budget?apiKeyId={id}")).await.expect(200).json();
    assert_eq!(status["budgetCheck"]["allowed"], false, "{status}");
    assert_eq!(status["budgetCheck"]["reason"], "daily budget used: $1.20 of $1.00");

    app.delete(&format!("/api/usage/budget?apiKeyId={id}")).await.expect(200);
    assert_eq!(app.get(&format!("/api/keys/{id}")).await.expect(200).json()["budget"], Value::Null);
    app.delete(&format!("/api/usage/budget?apiKeyId={id}")).await.expect(404);
}

#[tokio::test]
async fn everybody_together_has_one_and_several_are_set_at_once() {
    let app = TestApp::new().await;
    let id = key(&app, "dev").await;
    let all = json!({"budgets":[{"apiKeyId":"*","monthlyLimitUsd":100},{"apiKeyId":id,"dailyLimitUsd":2}]});
    let set = app.post("/api/usage/budget", all).await.expect(200).json();
    assert_eq!(set["budgets"].as_array().map(Vec::len), Some(2), "{set}");
    let listed = app.get("/api/usage/budget").await.expect(200).json();
    let ids: Vec<_> =
        listed["budgets"].as_array().expect("list").iter().map(|one| one["apiKeyId"].clone()).collect();
    assert_eq!(ids, [json!("*"), json!(id)]);
    let wrong = json!({"budgets":[{"apiKeyId":id,"dailyLimitUsd":9},{"apiKeyId":"*","dailyLimitUsd":-1}]});
    assert_eq!(app.post("/api/usage/budget", wrong).await.expect(400).fields(), ["budgets[1].dailyLimitUsd"]);
    let kept = app.get(&format!("/api/usage/budget?apiKeyId={id}")).await.expect(200).json();
    assert_eq!(kept["budget"]["dailyLimitUsd"], 2.0, "all or none");

    // What holds for the key holds for the one after it, and for both while both may be used.
    let policy = |name: &str| json!({"name":name,"type":"access","conditions":{"api_key_id":id},"actions":{"block_model":["x"]}});
    app.post("/api/policies", policy("own")).await.expect(201);
    let of_key = async |key: &str| {
        let listed = app.get("/api/policies").await.expect(200).json();
        let policies = listed["policies"].as_array().expect("list").clone();
        policies.iter().filter(|policy| policy["conditions"]["api_key_id"] == key).count()
    };
    let rotated =
        app.post(&format!("/api/keys/{id}/rotate"), json!({"graceSeconds":60})).await.expect(201).json();
    let rotated = rotated["id"].as_str().expect("id");
    assert_eq!((of_key(&id).await, of_key(rotated).await), (1, 1));
    let last = app.post(&format!("/api/keys/{rotated}/rotate"), json!({})).await.expect(201).json();
    assert_eq!((of_key(rotated).await, of_key(last["id"].as_str().expect("id")).await), (0, 1));
    assert_eq!(
        app.get(&format!("/api/keys/{rotated}")).await.expect(200).json()["budget"]["dailyLimitUsd"],
        2.0
    );
}

#[tokio::test]
async fn wrong_budgets_say_what_is_wrong() {
    let app = TestApp::new().await;
    let id = key(&app, "dev").await;
    for (member, value, field) in [
        ("dailyLimitUsd", json!(-1), "dailyLimitUsd"),
        ("limit", json!(1e300), "limit"),
        ("period", json!("hourly"), "period"),
        ("resetInterval", json!("yearly"), "resetInterval"),
        ("resetTime", json!("24:00"), "resetTime"),
        ("resetTime", json!("7:5"), "resetTime"),
        ("warningThreshold", json!(0), "warningThreshold"),
        ("warningThreshold", json!(1.5), "warningThreshold"),
        ("onExceeded", json!("downgrade:cheap"), "onExceeded"),
        ("onExceeded", json!("downgrade:"), "onExceeded"),
        ("onExceeded", json!("retry"), "onExceeded"),
    ] {
        let body = json!({"apiKeyId": id, member: value});
        let fields = app.post("/api/usage/budget", body.clone()).await.expect(400).fields();
        assert!(fields.contains(&field.to_owned()), "{body}: {fields:?}");
    }
    assert_eq!(app.post("/api/usage/budget", json!({"limit": 1})).await.expect(400).fields(), ["apiKeyId"]);
    app.post("/api/usage/budget", json!({"apiKeyId": "nobody", "limit": 1})).await.expect(404);
    app.get("/api/usage/budget?apiKeyId=nobody").await.expect(404);
    assert_eq!(
        app.patch("/api/settings", json!({"budgets":{"tz":"Mars/Olympus"}})).await.expect(400).fields(),
        ["budgets.tz"]
    );
}

#[tokio::test]
async fn a_budget_says_what_becomes_of_requests_over_it() {
    let app = TestApp::new().await;
    let id = key(&app, "dev").await;
    app.post("/api/combos", json!({"name": "cheap", "models": ["sim/echo"]})).await.expect(201);
    for way in ["free-only", "downgrade:cheap", "downgrade:auto", "block"] {
        let body = json!({"apiKeyId": id, "dailyLimitUsd": 1, "onExceeded": way});
        let set = app.post("/api/usage/budget", body).await.expect(200).json();
        assert_eq!(set["budget"]["onExceeded"], way);
        let kept =
            app.post("/api/usage/budget", json!({"apiKeyId": id, "dailyLimitUsd": 2})).await.expect(200);
        assert_eq!(kept.json()["budget"]["onExceeded"], way, "what is not sent stays");
    }
}

#[tokio::test]
async fn windows_begin_in_the_operators_time_zone() {
    let app = TestApp::new().await;
    let id = key(&app, "dev").await;
    spend(&app, &id, 1_000_000_000);
    app.patch("/api/settings", json!({"budgets":{"tz":"America/New_York"}})).await.expect(200);
    app.post("/api/usage/budget", json!({"apiKeyId": id, "limit": 3, "resetTime": "06:30"}))
        .await
        .expect(200);
    let status = app.get(&format!("/api/usage/budget?apiKeyId={id}")).await.expect(200).json();
    // Half past six in the east of America, in winter.
    let start = status["periodStartAt"].as_i64().expect("time");
    assert_eq!((start - (6 * 60 + 30 + 5 * 60) * 60_000).rem_euclid(86_400_000), 0, "{status}");
    assert_eq!(status["dailyTotal"], 1.0, "what was spent a moment ago is in the running window");
    assert_eq!(app.get("/api/settings").await.json()["budgets"]["tz"], "America/New_York");
}

#[tokio::test]
async fn a_tiny_limit_is_one() {
    let app = TestApp::new().await;
    let id = key(&app, "dev").await;
    let body = json!({"apiKeyId": id, "dailyLimitUsd": 1e-10, "limit": 1e-12, "period": "weekly"});
    let budget = app.post("/api/usage/budget", body).await.expect(200).json()["budget"].clone();
    assert_eq!((&budget["dailyLimitUsd"], &budget["weeklyLimitUsd"]), (&json!(1e-9), &json!(1e-9)));
    let none = json!({"apiKeyId": id, "dailyLimitUsd": 0});
    let budget = app.post("/api/usage/budget", none).await.expect(200).json()["budget"].clone();
    assert_eq!(budget["dailyLimitUsd"], Value::Null);
}

/// The client is gone as soon as the budget is in the database.
#[tokio::test]
async fn what_is_written_is_told_though_the_client_hangs_up() {
    let app = TestApp::new().await;
    let id = key(&app, "dev").await;
    {
        let mut call = std::pin::pin!(app.post("/api/usage/budget", json!({"apiKeyId": id, "limit": 1})));
        while app.store.budgets().list().await.expect("read").is_empty() {
            let poll = |context: &mut Context<'_>| Poll::Ready(call.as_mut().poll(context).is_pending());
            assert!(std::future::poll_fn(poll).await, "it has more to do");
        }
    }
    let is_told = async {
        let query = AuditQuery { action: Some("budget.set".into()), limit: 1, ..AuditQuery::default() };
        while app.store.audit().list(&query).await.expect("read").0.is_empty() {}
    };
    tokio::time::timeout(Duration::from_secs(10), is_told).await.expect("it is in the audit log");
    assert!(app.live.load().budgets.of(Some(&ApiKeyId::from(id.as_str()))).is_some(), "it is in force");
}
