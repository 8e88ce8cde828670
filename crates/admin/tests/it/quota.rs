//! What vendors leave of their quotas, and models that no money is left for.

use std::time::Duration;

use omniroute_engine::ports::{Memory, Recorder as _, RowId};
use omniroute_provider::allowance::{Allowance, Allowances};
use omniroute_store::{Writer, WriterOptions};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app::{START, TestApp};
use crate::observation::row;

async fn account(app: &TestApp, provider: &str, name: &str) -> String {
    let body = json!({"provider": provider, "name": name, "apiKey": format!("sk-{name}")});
    let made = app.post("/api/providers", body).await.expect(201).json();
    let id = made["connection"]["id"].as_str().or_else(|| made["id"].as_str());
    id.expect("id").to_owned()
}

fn hear(app: &TestApp, id: &str, model: &str, remaining: u64) {
    let said = Allowance { limit: Some(200), remaining, reset: Some(Duration::from_secs(90)) };
    let said = Allowances { requests: Some(said), ..Allowances::default() };
    let snapshot = app.live.load();
    let state = snapshot.connection(&id.into()).expect("active");
    state.health.gate.learn(model, &said, START);
}

#[tokio::test]
async fn what_is_left_is_shown_of_the_scarcest_and_of_all() {
    let app = TestApp::new().await;
    let (work, home) = (account(&app, "openai", "work").await, account(&app, "groq", "home").await);
    hear(&app, &work, "gpt-5.6", 150);
    hear(&app, &work, "gpt-5.4-mini", 10);
    let all = app.get("/api/usage/quota").await.expect(200).json();
    assert_eq!(all["meta"]["totalProviders"], 2);
    let one = app.get(&format!("/api/usage/quota?connectionId={work}")).await.expect(200).json();
    let shown = &one["providers"][0];
    assert_eq!(
        (&shown["name"], &shown["provider"], &shown["connectionId"]),
        (&json!("work"), &json!("openai"), &json!(work))
    );
    assert_eq!(
        (&shown["quotaUsed"], &shown["quotaTotal"], &shown["percentRemaining"]),
        (&json!(190), &json!(200), &json!(5.0))
    );
    assert_eq!(
        (&shown["isLow"], &shown["isExhausted"], &shown["tokenStatus"]),
        (&json!(true), &json!(false), &json!("unknown"))
    );
    assert!(shown["resetAt"].is_string());
    assert_eq!(shown["windows"].as_array().map(Vec::len), Some(2));
    let silent = app.get("/api/usage/quota?provider=groq").await.expect(200).json();
    assert_eq!(silent["providers"][0]["connectionId"], json!(home));
    assert_eq!((&silent["providers"][0]["quotaTotal"], &silent["history"]), (&Value::Null, &Value::Null));
    let history = app.get("/api/usage/quota?history=5").await.expect(200).json();
    assert_eq!(history["history"], json!([]));
    assert_eq!(app.get("/api/usage/quota?history=5000").await.expect(400).fields(), ["history"]);
    app.get("/api/usage/quota?provider=nobody").await.expect(404);
}

#[tokio::test]
async fn models_that_no_money_is_left_for_are_over_budget() {
    let app = TestApp::new().await;
    account(&app, "openai", "work").await;
    app.patch("/api/pricing", json!({"openai": {"gpt-5.4-mini": {"input": 0, "output": 0, "cached": 0}}}))
        .await
        .expect(200);
    app.post("/api/usage/budget", json!({"apiKeyId": "*", "dailyLimitUsd": 1})).await.expect(200);
    let status = async |model: &str| {
        let path = "/api/models/availability?provider=openai";
        let listed = app.get(path).await.expect(200).json();
        let entry = listed["models"].as_array().expect("list").iter().find(|entry| entry["model"] == model);
        entry.expect("listed").clone()
    };
    assert_eq!(status("gpt-5.6").await["status"], "available");
    let snapshot = app.live.load().clone();
    let mut events = Default::default();
    let hold = app.live.spending.hold(&snapshot.budgets, None, 0, START, &mut events);
    hold.expect("fits").settle(2_000_000_000, 1, START, &mut events);
    let spent = status("gpt-5.6").await;
    assert_eq!((&spent["status"], &spent["reason"]), (&json!("over_budget"), &json!("budget_exceeded")));
    assert!(spent["until"].is_string() && spent["availableConnections"] == 0, "{spent}");
    assert_eq!(status("gpt-5.4-mini").await["status"], "over_budget", "the budget blocks all");
    let asked =
        app.post("/api/models/availability", json!({"model": "openai/gpt-5.6"})).await.expect(200).json();
    assert_eq!((&asked["status"], &asked["available"]), (&json!("over_budget"), &json!(false)));
    app.post("/api/usage/budget", json!({"apiKeyId": "*", "onExceeded": "free-only"})).await.expect(200);
    assert_eq!(status("gpt-5.4-mini").await["status"], "available", "it costs nothing");
    assert_eq!(status("gpt-5.6").await["status"], "over_budget");
    let listed = app.get("/api/models/availability?status=over_budget").await.expect(200).json();
    assert!(listed["models"].as_array().is_some_and(|models| !models.is_empty()));
}

#[tokio::test]
async fn a_plan_is_set_checked_and_shown() {
    let app = TestApp::new().await;
    let id = account(&app, "openai", "work").await;
    let path = format!("/api/providers/{id}");
    let with = |windows: Value| json!({"providerSpecificData": {"quotaWindows": windows}});
    let plan = json!([{"window": "5h", "requests": 10}, {"window": "weekly", "tokens": 1000, "resetsAt": "2026-01-01T08:00:00Z"}]);
    app.patch(&path, with(plan.clone())).await.expect(200);
    let shown = app.get(&path).await.expect(200).json();
    assert_eq!(shown["connection"]["providerSpecificData"]["quotaWindows"], plan);
    let snapshot = app.live.load().clone();
    let state = snapshot.connection(&id.as_str().into()).expect("active");
    state.health.plan.add(&state.plan, 900, START);
    let one = app.get(&format!("/api/usage/quota?connectionId={id}")).await.expect(200).json();
    let shown = &one["providers"][0];
    assert_eq!(
        (&shown["quotaUsed"], &shown["quotaTotal"], &shown["percentRemaining"], &shown["isLow"]),
        (&json!(900), &json!(1000), &json!(10.0), &json!(true)),
    );
    let windows = shown["windows"].as_array().expect("list");
    let told: Vec<_> = windows
        .iter()
        .map(|it| {
            (it["source"].as_str(), it["window"].as_str(), it["limit"].as_str(), it["remaining"].as_u64())
        })
        .collect();
    let row = |window, limit, left| (Some("plan"), Some(window), Some(limit), Some(left));
    assert_eq!(told, [row("5h", "requests", 9), row("weekly", "tokens", 100)]);
    assert!(windows.iter().all(|it| it["model"].is_null() && it["resetAt"].is_string()));

    let usage = app.get(&format!("/api/usage/{id}")).await.expect(200).json();
    assert_eq!(
        usage["quotas"][1],
        json!({"name": "weekly:tokens", "used": 900, "total": 1000, "remaining": 100, "remainingPct": 10.0,
            "unit": "tokens", "resetAt": windows[1]["resetAt"], "source": "local"})
    );

    let field = "providerSpecificData.quotaWindows";
    for (windows, at) in [
        (json!("5h"), ""),
        (json!([{"window": "hourly", "requests": 1}]), "[0]"),
        (json!([{"window": "5h"}]), "[0]"),
        (json!([{"window": "5h", "requests": 0}]), "[0]"),
        (json!([{"window": "5h", "requests": -1}]), "[0]"),
        (json!([{"window": "5h", "requests": 1, "dollars": 1}]), "[0]"),
        (json!([{"window": "5h", "requests": 1}, {"window": "5h", "tokens": 1}]), "[1]"),
        (json!([{"window": "weekly", "requests": 1, "resetsAt": "Monday"}]), "[0]"),
    ] {
        let refused = app.patch(&path, with(windows.clone())).await.expect(400);
        assert_eq!(refused.fields(), [format!("{field}{at}")], "{windows}");
    }
    let many: Vec<_> = (1..=9).map(|hours| json!({"window": format!("{hours}h"), "requests": 1})).collect();
    assert_eq!(app.patch(&path, with(json!(many))).await.expect(400).fields(), [field]);
    app.patch(&path, with(Value::Null)).await.expect(200);
    let shown = app.get(&path).await.expect(200).json();
    assert!(shown["connection"]["providerSpecificData"].get("quotaWindows").is_none(), "{shown}");
}

#[tokio::test]
async fn a_window_that_is_new_counts_what_was_used_before_and_others_stay() {
    const HOUR: i64 = 3_600_000;
    let app = TestApp::new().await;
    let id = account(&app, "openai", "work").await;
    let path = format!("/api/providers/{id}");
    let plan = async |windows: &[&str]| {
        let windows: Vec<_> =
            windows.iter().map(|window| json!({"window": window, "requests": 100})).collect();
        let body = json!({"providerSpecificData": {"quotaWindows": windows}});
        app.patch(&path, body).await.expect(200);
        let snapshot = app.live.load().clone();
        snapshot.connection(&id.as_str().into()).expect("active").clone()
    };
    let state = plan(&["5h"]).await;
    state.health.plan.add(&state.plan, 0, START - HOUR);
    // The log has more, of a window that began before.
    let (tracker, cancel) = (TaskTracker::new(), CancellationToken::new());
    let (recorder, handle) = Writer::start(app.store.clone(), WriterOptions::default(), &tracker, cancel);
    for number in 1..=3 {
        let mut row = row();
        row.id = RowId::new(START - 2 * HOUR, [number; 10]);
        row.connection = Some(id.as_str().into());
        recorder.record(row);
    }
    handle.close().await;
    let state = plan(&["12h", "5h", "weekly"]).await;
    let standings = state.health.plan.standings(&state.plan, START);
    let told: Vec<_> = standings.iter().map(|it| (&*it.name, it.used)).collect();
    assert_eq!(told, [("12h", 3), ("5h", 1), ("weekly", 3)]);
    assert_eq!(standings[1].until, Some(START + 4 * HOUR));
}

const KEY: &str = r#"{"data":{"label":"k","limit":20,"limit_remaining":1.5,"limit_reset":"daily","usage":40.25,"is_free_tier":true}}"#;
const NO_RIGHT: &str =
    r#"{"error":{"code":403,"message":"Only management keys can perform this operation"}}"#;

#[tokio::test]
async fn the_provider_is_asked_what_is_left_and_not_again_within_a_minute() {
    let app = TestApp::new().await;
    let id = account(&app, "openrouter", "work").await;
    app.upstream.answer(200, KEY);
    app.upstream.answer(403, NO_RIGHT);
    let path = format!("/api/usage/{id}");
    let usage = app.get(&path).await.expect(200).json();
    assert_eq!(
        app.upstream.urls(),
        ["GET https://openrouter.ai/api/v1/key", "GET https://openrouter.ai/api/v1/credits"]
    );
    // START is 08:00 on a Friday.
    let quotas = json!([{"name": "key", "used": 18.5, "total": 20, "remaining": 1.5, "remainingPct": 7.5, "unit": "usd",
        "resetAt": "2027-01-16T00:00:00.000Z", "source": "provider"}]);
    assert_eq!((&usage["quotas"], &usage["error"], &usage["plan"]), (&quotas, &Value::Null, &json!("free")));
    assert!(usage["local"]["requests24h"].is_number());
    app.get(&path).await.expect(200);
    assert_eq!(app.upstream.urls().len(), 2, "what was said a moment ago is still true");

    let one = app.get(&format!("/api/usage/quota?connectionId={id}")).await.expect(200).json();
    let shown = &one["providers"][0];
    assert_eq!(
        (&shown["quotaUsed"], &shown["quotaTotal"], &shown["percentRemaining"], &shown["isLow"]),
        (&json!(18.5), &json!(20), &json!(7.5), &json!(true))
    );
    assert_eq!(
        shown["windows"][0],
        json!({"source": "provider", "model": null, "window": "key", "limit": "usd", "total": 20, "remaining": 1.5,
            "percentRemaining": 7.5, "resetAt": "2027-01-16T00:00:00.000Z"})
    );
    let noted =
        app.rows.memories().into_iter().filter(|it| matches!(it, Memory::Quota(row) if row.told.is_some()));
    assert_eq!(noted.count(), 1);

    // A minute later the provider is down: the rest is told all the same.
    app.pass(Duration::from_secs(60));
    app.upstream.answer(502, r#"{"error":{"message":"bad gateway for sk-work"}}"#);
    let usage = app.get(&path).await.expect(200).json();
    let error = usage["error"].as_str().expect("a reason");
    assert!(error.starts_with("status 502: bad gateway") && !error.contains("sk-work"), "{error}");
    assert_eq!(usage["quotas"], quotas);
    assert_eq!(usage["fetchedAt"], "2027-01-15T08:00:00.000Z", "that is when it was said");
}

#[tokio::test]
async fn money_has_all_its_digits_and_none_of_it_ends_the_account() {
    let app = TestApp::new().await;
    let id = account(&app, "deepseek", "work").await;
    let purse = |available: bool, cny: &str, usd: &str| {
        format!(
            r#"{{"is_available":{available},"balance_infos":[{{"currency":"CNY","total_balance":"{cny}"}},{{"currency":"USD","total_balance":"{usd}"}}]}}"#
        )
    };
    app.upstream.answer(200, &purse(true, "0.00", "110.07"));
    let usage = app.get(&format!("/api/usage/{id}")).await.expect(200).json();
    let told: Vec<_> =
        usage["quotas"].as_array().expect("list").iter().map(|it| (&it["name"], &it["remaining"])).collect();
    assert_eq!(told, [(&json!("balance:cny"), &json!(0)), (&json!("balance:usd"), &json!(110.07))]);
    let quota = &usage["quotas"][1];
    assert!(
        ["used", "total", "remainingPct", "resetAt"].iter().all(|name| quota[*name].is_null()),
        "{quota}"
    );
    let left = async || {
        let one = app.get(&format!("/api/usage/quota?connectionId={id}")).await.expect(200).json();
        let shown = &one["providers"][0];
        (shown["isExhausted"].clone(), shown["resetAt"].is_string(), shown["percentRemaining"].clone())
    };
    assert_eq!(left().await, (json!(false), false, Value::Null));
    app.pass(Duration::from_secs(60));
    app.upstream.answer(200, &purse(false, "0.00", "0.00"));
    app.get(&format!("/api/usage/{id}")).await.expect(200);
    assert_eq!(left().await, (json!(true), true, Value::Null));
    // A test that goes well says otherwise.
    app.upstream.answer(200, r#"{"data":[{"id":"m"}]}"#);
    app.post(&format!("/api/providers/{id}/test"), json!({})).await.expect(200);
    assert_eq!(left().await, (json!(false), false, Value::Null));
}

#[tokio::test]
async fn what_was_said_is_forgotten_with_the_account_that_it_was_said_of() {
    let app = TestApp::new().await;
    let id = account(&app, "openrouter", "work").await;
    let monthly = r#"{"data":{"limit":20,"limit_remaining":0,"limit_reset":"monthly","usage":40.25}}"#;
    app.upstream.answer(200, monthly);
    app.upstream.answer(403, NO_RIGHT);
    app.get(&format!("/api/usage/{id}")).await.expect(200);
    let path = format!("/api/providers/{id}");
    let exhausted = async || {
        let one = app.get(&format!("/api/usage/quota?connectionId={id}")).await.expect(200).json();
        one["providers"][0]["isExhausted"].clone()
    };
    app.patch(&path, json!({"name": "other"})).await.expect(200);
    assert_eq!(exhausted().await, json!(true), "a name is no account");
    let elsewhere = json!({"providerSpecificData": {"baseUrl": "https://eu.openrouter.ai/api/v1"}});
    app.patch(&path, elsewhere).await.expect(200);
    assert_eq!(exhausted().await, json!(false));
    app.upstream.answer(200, KEY);
    app.upstream.answer(403, NO_RIGHT);
    app.get(&format!("/api/usage/{id}")).await.expect(200);
    assert_eq!(app.upstream.urls()[2], "GET https://eu.openrouter.ai/api/v1/key", "it is asked at once");
    // A relay is not asked.
    let relay = json!({"providerSpecificData": {"baseUrl": "https://relay.example/api/v1"}});
    app.patch(&path, relay).await.expect(200);
    let usage = app.get(&format!("/api/usage/{id}")).await.expect(200).json();
    assert_eq!((app.upstream.urls().len(), &usage["quotas"]), (4, &json!([])));
}

#[tokio::test]
async fn an_empty_purse_leaves_the_models_that_are_free() {
    let app = TestApp::new().await;
    let id = account(&app, "siliconflow", "work").await;
    app.upstream.answer(200, r#"{"code":20000,"data":{"totalBalance":"0.00"}}"#);
    app.get(&format!("/api/usage/{id}")).await.expect(200);
    let one = app.get(&format!("/api/usage/quota?connectionId={id}")).await.expect(200).json();
    let shown = &one["providers"][0];
    assert_eq!((&shown["isExhausted"], &shown["isLow"]), (&json!(false), &json!(true)), "{shown}");
    let snapshot = app.live.load().clone();
    let state = snapshot.connection(&id.as_str().into()).expect("active");
    assert!(state.check("Qwen/Qwen3-8B", START).is_ok());
}

#[tokio::test]
async fn who_has_no_such_api_is_not_asked_and_how_often_is_a_setting() {
    let app = TestApp::new().await;
    let id = account(&app, "openai", "work").await;
    let usage = app.get(&format!("/api/usage/{id}")).await.expect(200).json();
    assert_eq!((&usage["quotas"], &usage["error"]), (&json!([]), &Value::Null));
    assert!(app.upstream.urls().is_empty());
    let settings = app.get("/api/settings").await.expect(200).json();
    assert_eq!(settings["quotaChecks"], json!({"enabled": true, "intervalMin": 70}));
    let changed =
        app.patch("/api/settings", json!({"quotaChecks": {"enabled": false}})).await.expect(200).json();
    assert_eq!(changed["quotaChecks"], json!({"enabled": false, "intervalMin": 70}));
    for minutes in [4, 1441] {
        let refused =
            app.patch("/api/settings", json!({"quotaChecks": {"intervalMin": minutes}})).await.expect(400);
        assert_eq!(refused.fields(), ["quotaChecks.intervalMin"]);
    }
    assert!(!app.live.load().settings.quota_checks.enabled);
}
