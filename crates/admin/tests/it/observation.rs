//! Health, telemetry, metrics, usage, logs, prices, and ending the process.

use std::sync::atomic::Ordering;
use std::time::Duration;

use http::Method;
use omniroute_dialect::{ir::Usage, registry::DIALECTS};
use omniroute_domain::learned::Fact;
use omniroute_engine::ports::{RequestRow, RowId};
use omniroute_engine::telemetry::{Phase, Phases};
use omniroute_provider::ProviderId;
use omniroute_store::AuditQuery;
use serde_json::{Value, json};

use crate::app::{START, TestApp, remote};

pub(crate) fn row() -> RequestRow {
    RequestRow {
        id: RowId::new(START, [1; 10]),
        request_id: "req_1".into(),
        method: http::Method::POST,
        path: "/v1/chat/completions".into(),
        request_type: "chat",
        status: 200,
        requested_model: "gpt-4o".into(),
        model: "gpt-4o".into(),
        provider: Some(ProviderId::from("openai")),
        connection: None,
        connection_name: None,
        api_key: None,
        api_key_name: None,
        client_dialect: DIALECTS[0].id(),
        upstream_dialect: None,
        stream: false,
        duration_ms: 800,
        ttft_ms: Some(100),
        overhead_us: 250,
        units: None,
        usage: Usage { input_uncached: Some(10), output_total: Some(70), ..Usage::default() },
        usage_estimated: false,
        cost_nano: Some(1_230_000),
        price_source: None,
        price_version: None,
        source: "upstream",
        similarity: None,
        combo: None,
        combo_step: None,
        is_fallback: false,
        bills: vec![],
        attempts: Vec::new(),
        error: None,
        error_code: None,
        losses: Vec::new(),
        decision: None,
        bodies: omniroute_engine::bodies::BodyNote::Off,
    }
}

#[tokio::test]
async fn health_tells_managers_more() {
    let app = TestApp::new().await;
    let health = app.request(Method::GET, "/api/monitoring/health").send().await.expect(200).json();
    let members: Vec<_> = health.as_object().expect("object").keys().cloned().collect();
    assert_eq!(members, ["status", "uptime", "version"]);
    let health = app.get("/api/monitoring/health").await.expect(200).json();
    let disk = |name: &str| health["disk"][name].as_u64().expect("a number");
    let is_full = disk("freeBytes") * 20 < disk("totalBytes");
    let status = if is_full { "degraded" } else { "healthy" };
    assert_eq!((&health["status"], &health["database"]["ok"]), (&json!(status), &json!(true)));
    assert_eq!(health["dedup"]["inflightRequests"], 0);
    assert!(health["database"]["sizeBytes"].as_u64().is_some_and(|bytes| bytes > 1_000), "{health}");
    assert!(
        health["database"]["walBytes"].is_u64() && health["database"]["schemaVersion"].as_u64() >= Some(1)
    );
    assert_eq!(health["cryptography"]["status"], "ok");
    assert!(health["providerSummary"]["catalogCount"].as_u64().is_some_and(|count| count > 100));
    assert!(health["system"]["memoryUsage"]["rss"].as_u64().is_some_and(|rss| rss > 1_000_000));
    app.request(Method::GET, "/healthz").from(remote()).send().await.expect(200);
    app.request(Method::GET, "/readyz").from(remote()).send().await.expect(200);
}

#[tokio::test]
async fn without_a_database_it_is_unhealthy_but_answers() {
    let app = TestApp::new().await;
    app.store.close().await;
    assert_eq!(app.get("/api/monitoring/health").await.expect(503).json()["status"], "unhealthy");
    app.request(Method::GET, "/readyz").send().await.expect(503);
    app.request(Method::GET, "/healthz").send().await.expect(200);
}

#[tokio::test]
async fn telemetry_and_metrics() {
    let app = TestApp::new().await;
    let mut phases = Phases::default();
    phases.end(Phase::Parse, Duration::from_micros(250));
    phases.end(Phase::Connect, Duration::from_micros(40_250));
    app.telemetry.observe(&row(), &phases, START);
    let summary = app.get("/api/telemetry/summary?window=5m").await.expect(200).json();
    assert_eq!((&summary["count"], &summary["totalRequests"]), (&json!(1), &json!(1)));
    assert_eq!(summary["providers"]["openai"]["tokensPerSecond"]["p50"], 101);
    assert_eq!(summary["models"]["openai/gpt-4o"]["count"], 1);
    assert_eq!(summary["sessions"], json!({"activeCount":0,"stickyBoundCount":0,"top":[]}));
    let parts = summary["phaseBreakdown"].as_object().expect("an object");
    assert_eq!(parts.keys().collect::<Vec<_>>(), ["connect", "gateway", "parse"]);
    assert_eq!((&parts["parse"]["count"], &parts["parse"]["avg"]), (&json!(1), &json!(0.25)));
    assert_eq!(parts["connect"]["avg"], json!(40.0));
    assert_eq!(app.get("/api/telemetry/summary?window=1y").await.expect(400).fields(), ["window"]);

    let metrics = app.request(Method::GET, "/metrics").send().await.expect(200);
    assert!(
        metrics.header("content-type").is_some_and(|kind| kind.starts_with("application/openmetrics-text"))
    );
    assert!(metrics.body.contains(r#"omniroute_requests_total{provider="openai",status="2xx"} 1"#));
    assert!(metrics.body.contains("omniroute_log_rows_shed_total 0"));
    app.request(Method::GET, "/metrics").from(remote()).send().await.expect(401);
    let key = app.post("/api/keys", json!({"name":"p","scopes":["metrics"]})).await.expect(201).json();
    let key = key["key"].as_str().expect("key");
    app.request(Method::GET, "/metrics").from(remote()).bearer(key).send().await.expect(200);
    app.request(Method::GET, "/api/settings").from(remote()).bearer(key).send().await.expect(403);
}

#[tokio::test]
async fn what_was_learned_is_shown_and_forgotten() {
    let app = TestApp::new().await;
    let fact = Fact::Without("temperature".to_owned());
    assert!(app.live.learned.learn(&"openai".into(), "o9", fact, START));
    assert!(app.live.learned.learn(&"openai".into(), "o8", Fact::NoPrefill, START));
    let lessons = app.get("/api/models/learned?provider=openai&model=o9").await.expect(200).json();
    let expected = json!([{"provider": "openai", "model": "o9", "connectionId": null, "fact": "without",
        "parameter": "temperature", "message": "does not take `temperature`",
        "until": lessons["learned"][0]["until"]}]);
    assert_eq!(lessons["learned"], expected);
    assert!(lessons["learned"][0]["until"].as_str().is_some_and(|until| until.ends_with('Z')));
    app.request(Method::DELETE, "/api/models/learned").from(remote()).send().await.expect(401);
    let answer = app.delete("/api/models/learned?provider=nobody").await.expect(200).json();
    assert_eq!(answer, json!({"cleared": 0}));
    let answer = app.delete("/api/models/learned?model=o9").await.expect(200).json();
    assert_eq!(answer, json!({"cleared": 1}));
    let answer = app.delete("/api/models/learned").await.expect(200).json();
    assert_eq!(answer, json!({"cleared": 1}));
    assert_eq!(app.get("/api/models/learned").await.expect(200).json(), json!({"learned": []}));
}

#[tokio::test]
async fn running_requests_are_shown() {
    let app = TestApp::new().await;
    let running = app.telemetry.begin("req_9", "gpt-4o", true, START - 500);
    running.routed("openai", "conn");
    let active = app.get("/api/logs/active").await.expect(200).json();
    let request = &active["activeRequests"][0];
    assert_eq!((&active["count"], &request["elapsedMs"]), (&json!(1), &json!(500)));
    assert_eq!((&request["stream"], &request["tokensSoFar"]), (&json!(true), &json!(0)));
    let history = app.get("/api/usage/history").await.expect(200).json();
    assert_eq!(history["pending"]["byModel"]["gpt-4o (openai)"], 1);
    assert_eq!(history["pending"]["byAccount"]["conn"], 1);
}

#[tokio::test]
async fn running_requests_are_cancelled_by_their_id() {
    let app = TestApp::new().await;
    let path = "/api/logs/active/req_9";
    app.request(Method::DELETE, path).from(remote()).send().await.expect(401);
    let answer = app.delete(path).await.expect(404).json();
    assert!(answer["error"]["message"].as_str().is_some_and(|text| text.contains("`req_9`")), "{answer}");
    // A client's own id, twice.
    let running = [(); 2].map(|()| app.telemetry.begin("req_9", "gpt-4o", true, START));
    let other = app.telemetry.begin("req_8", "gpt-4o", true, START);
    let answer = app.delete(path).await.expect(200).json();
    assert_eq!(answer, json!({"success": true, "id": "req_9", "cancelled": 2}));
    drop(running);
    app.delete(path).await.expect(404);
    let query = AuditQuery { action: Some("request.cancel".into()), limit: 10, ..AuditQuery::default() };
    let (events, _) = app.store.audit().list(&query).await.expect("lists");
    assert_eq!(events.iter().map(|it| it.event.target.as_deref()).collect::<Vec<_>>(), [Some("req_9")]);
    drop(other);
}

#[tokio::test]
async fn accounts_that_had_the_same_name_are_counted_apart() {
    let app = TestApp::new().await;
    let (tracker, cancel) =
        (tokio_util::task::TaskTracker::new(), tokio_util::sync::CancellationToken::new());
    let options = omniroute_store::WriterOptions::default();
    let (recorder, handle) = omniroute_store::Writer::start(app.store.clone(), options, &tracker, cancel);
    for (number, id) in [(1, "0189aaaa-gone"), (2, "0289bbbb-new"), (3, "0289bbbb-new")] {
        let mut row = row();
        row.id = RowId::new(START, [number; 10]);
        (row.connection, row.connection_name) = (Some(id.into()), Some("work".into()));
        omniroute_engine::ports::Recorder::record(recorder.as_ref(), row);
    }
    handle.close().await;
    let history = app.get("/api/usage/history").await.expect(200).json();
    let accounts = history["byAccount"].as_object().expect("accounts");
    let names: Vec<_> = accounts.keys().collect();
    assert_eq!(names, ["gpt-4o (openai - work #0189aaaa)", "gpt-4o (openai - work #0289bbbb)"]);
    let sums: Vec<_> = accounts.values().map(|one| (&one["connectionId"], &one["requests"])).collect();
    assert_eq!(sums, [(&json!("0189aaaa-gone"), &json!(1)), (&json!("0289bbbb-new"), &json!(2))]);
}

#[tokio::test]
async fn usage_and_logs_of_written_requests() {
    let app = TestApp::new().await;
    let (tracker, cancel) =
        (tokio_util::task::TaskTracker::new(), tokio_util::sync::CancellationToken::new());
    let options = omniroute_store::WriterOptions::default();
    let (recorder, handle) = omniroute_store::Writer::start(app.store.clone(), options, &tracker, cancel);
    let body = json!({"provider":"openai","name":"work","apiKey":"sk-work-1234567890"});
    let connection = app.post("/api/providers", body).await.expect(201).json();
    let id = connection["connection"]["id"].as_str().expect("id").to_owned();
    let mut failed = row();
    (failed.id, failed.status, failed.cost_nano) = (RowId::new(START, [2; 10]), 500, None);
    let mut first = row();
    (first.connection, first.connection_name) = (Some(id.as_str().into()), Some("work".into()));
    let mut picture = row();
    (picture.id, picture.request_type) = (RowId::new(START, [3; 10]), "image");
    picture.units = Some(Box::new(omniroute_domain::price::Units {
        images: 2,
        ..omniroute_domain::price::Units::REQUEST
    }));
    (picture.connection, picture.cost_nano) = (None, Some(0));
    for row in [first, failed, picture] {
        omniroute_engine::ports::Recorder::record(recorder.as_ref(), row);
    }
    handle.close().await;

    let history = app.get("/api/usage/history?period=24h").await.expect(200).json();
    assert_eq!((&history["totalRequests"], &history["totalUnpriced"]), (&json!(3), &json!(1)));
    let kinds = &history["byRequestType"];
    assert_eq!((&kinds["chat"]["requests"], &kinds["image"]["requests"]), (&json!(2), &json!(1)), "{kinds}");
    assert_eq!((&kinds["chat"]["units"], &kinds["image"]["units"]), (&json!({}), &json!({"images":2})));
    assert!(kinds["image"]["lastUsed"].is_string() && kinds["chat"]["cost"].is_number());
    assert!((history["totalCost"].as_f64().expect("number") - 0.00123).abs() < 1e-12);
    assert_eq!(history["byModel"]["gpt-4o (openai)"]["rawModel"], "gpt-4o");
    assert_eq!(history["last10Minutes"].as_array().map(Vec::len), Some(10));
    assert_eq!(app.get("/api/usage/history?period=1y").await.expect(400).fields(), ["period"]);

    let logs = app.get("/api/usage/call-logs").await.expect(200);
    assert_eq!(logs.header("x-total-count").as_deref(), Some("3"));
    assert_eq!(logs.json().as_array().map(Vec::len), Some(3));
    let errors = app.get("/api/usage/call-logs?status=error").await.expect(200).json();
    assert_eq!((errors.as_array().map(Vec::len), &errors[0]["cost"]), (Some(1), &Value::Null));
    let one = app.get(&format!("/api/usage/call-logs/{}", row().id)).await.expect(200).json();
    assert_eq!((&one["tokens"]["in"], &one["account"]), (&json!(10), &json!("work")));
    app.get("/api/usage/call-logs/none").await.expect(404);
    let bad = app.get("/api/usage/call-logs?since=yesterday&status=x").await.expect(400);
    assert_eq!(bad.fields(), ["since", "status"]);
    let lines = app.get("/api/usage/logs?limit=10").await.expect(200).json();
    assert!(
        lines
            .as_array()
            .expect("list")
            .contains(&json!("2027-01-15T08:00:00.000Z | gpt-4o | OPENAI | work | 10 | 70 | 200")),
        "{lines}"
    );
    let rows = app.get("/api/usage/request-logs?format=json&limit=1").await.expect(200).json();
    assert_eq!((&rows["total"], &rows["nextCursor"]), (&json!(3), &json!("1")));
    let own = app.get(&format!("/api/usage/{id}")).await.expect(200).json();
    assert_eq!((&own["local"]["requests24h"], &own["local"]["tokens24h"]), (&json!(1), &json!(80)));
    app.get("/api/usage/none").await.expect(404);
}

#[tokio::test]
async fn catalogues_and_prices() {
    let app = TestApp::new().await;
    let catalog = app.get("/api/providers/catalog").await.expect(200).json();
    assert!(catalog["providers"].as_array().is_some_and(|list| list.len() > 100));
    assert_eq!(app.get("/api/models/catalog").await.expect(200).json()["catalog"], json!({}));
    let all =
        app.get("/api/models/catalog?all=true&provider=openai&type=chat&q=gpt-4o").await.expect(200).json();
    let model = &all["catalog"]["openai"]["models"][0];
    assert_eq!(
        (&model["type"], &all["catalog"]["openai"]["active"]),
        (&json!("chat"), &json!(false)),
        "{all}"
    );
    // What has no price is known by its name, whether or not its provider is in use.
    let types = async || {
        let all =
            app.get("/api/models/catalog?all=true&provider=cloudflare&q=bge-m3").await.expect(200).json();
        let (_, provider) = all["catalog"].as_object().expect("object").iter().next().expect("cloudflare");
        (provider["active"].clone(), provider["models"][0]["type"].clone())
    };
    assert_eq!(types().await, (json!(false), json!("embedding")));
    let data = json!({"account_id":"a1"});
    let body =
        json!({"provider":"cloudflare","name":"w","apiKey":"cf-1234567890","providerSpecificData":data});
    app.post("/api/providers", body).await.expect(201);
    assert_eq!(types().await, (json!(true), json!("embedding")));
    assert_eq!(app.get("/api/models/catalog?type=smell").await.expect(400).fields(), ["type"]);
    let prices = app.get("/api/pricing").await.expect(200).json();
    assert!(prices["openai"]["gpt-4o"]["input"].is_number(), "{}", prices["openai"]);
    assert_eq!(prices["openai"]["gpt-4o"]["source"], "default");
    assert_eq!(app.get("/api/pricing/defaults").await.expect(200).json(), prices);
    assert_eq!(app.get("/api/pricing?source=user").await.expect(200).json(), json!({}));
    let list = app.get("/api/pricing?format=list").await.expect(200).json();
    assert!(list["prices"].as_array().is_some_and(|list| list.len() > 300));
    let models = app.get("/api/pricing/models").await.expect(200).json();
    assert_eq!(models["openai"]["authType"], "api_key");
}

#[tokio::test]
async fn the_process_is_ended_from_its_own_machine() {
    let app = TestApp::new().await;
    let restart = |peer| app.as_manager(Method::POST, "/api/restart").from(peer).send();
    assert_eq!(restart(remote()).await.expect(403).code(), "FORBIDDEN");
    assert_eq!(restart(crate::app::local()).await.expect(202).json(), json!({"status":"restarting"}));
    let answer = app.as_manager(Method::POST, "/api/shutdown").send().await.expect(202).json();
    assert_eq!(answer, json!({"status":"shutting down"}));
    let count = |counter: &std::sync::atomic::AtomicUsize| counter.load(Ordering::SeqCst);
    assert_eq!((count(&app.lifecycle.restarts), count(&app.lifecycle.shutdowns)), (1, 1));
}
