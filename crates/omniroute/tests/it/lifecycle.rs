//! Ends and new beginnings: orderly, by the operator, and by `kill -9` in the middle of everything.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use omniroute_testkit::{Answer, ScriptedUpstream};
use serde_json::{Value, json};
use sqlx::Connection as _;

use crate::client::{Call, Line, PATIENCE};
use crate::gateway::{MANAGEMENT_TOKEN, Start, free_port};
use crate::world::{COMPLETION, EVENTS, World, add_connection, add_key, add_node, chat, stream};

/// A stream whose second half comes a little later.
fn slow_stream() -> Answer {
    let answer = Answer::sse(&EVENTS[..1]).pause(Duration::from_millis(700));
    EVENTS[1..].iter().fold(answer, |answer, event| answer.send(*event))
}

/// A client that is in the middle of a stream.
async fn begin_stream(world: &World) -> Line {
    world.upstream.answer(slow_stream());
    let mut line = world.gateway.line().await;
    line.write(&stream("up/m").bytes()).await;
    assert_eq!(line.head().await.status, 200);
    line.read_until("one").await;
    line
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill_under_load() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let start = || Start::new().data_dir(&data_dir).env("LOG_LEVEL", "warn");
    let gateway = start().run().await;
    let upstream = ScriptedUpstream::start().await;
    upstream.always(Answer::json(200, COMPLETION));
    let node = add_node(&gateway, "up", &upstream.url("/v1")).await;
    add_connection(&gateway, &node, "first", "sk-upstream-of-the-kill-test").await;
    let key = add_key(&gateway, json!({})).await;

    // Requests, and changes of the configuration, until the end comes.
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut load = Vec::new();
    for worker in 0..4 {
        let (stop, done, address, key) = (stop.clone(), done.clone(), gateway.address, key.clone());
        load.push(tokio::spawn(async move {
            let mut line = Line::open(address).await;
            let call = if worker == 0 { chat("sim/echo") } else { chat("up/m") }.bearer(&key);
            while !stop.load(Ordering::Relaxed) {
                if !line.write(&call.bytes()).await {
                    break;
                }
                let Some(head) = line.try_head().await else { break };
                line.rest().await;
                assert_eq!(head.status, 200);
                done.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    let mut saved = Vec::new();
    let began = Instant::now();
    let mut early = 0;
    while began.elapsed() < Duration::from_millis(2_500) {
        let name = format!("key {}", saved.len());
        let made = gateway.manage("POST", "/api/keys", &json!({"name": name})).await;
        assert_eq!(made.status, 201, "{}", made.text());
        saved.push(made.at("/id"));
        if began.elapsed() < Duration::from_millis(1_000) {
            early = done.load(Ordering::Relaxed);
        }
    }
    gateway.kill().await;
    stop.store(true, Ordering::Relaxed);
    for worker in load {
        worker.await.unwrap();
    }
    assert!(early > 0 && !saved.is_empty());

    let file = data_dir.join("storage.sqlite");
    let url = format!("sqlite://{}", file.display());
    let mut database = sqlx::SqliteConnection::connect(&url).await.unwrap();
    let verdict: String =
        sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&mut database).await.unwrap();
    assert_eq!(verdict, "ok");
    database.close().await.unwrap();

    let gateway = start().run().await;
    let keys = gateway.set("GET", "/api/keys?limit=500", &Value::Null).await;
    let kept: Vec<_> =
        keys["keys"].as_array().unwrap().iter().map(|key| key["id"].as_str().unwrap()).collect();
    let total = usize::try_from(keys["total"].as_u64().unwrap()).unwrap();
    assert!(total > saved.len(), "{total} of {}", saved.len());
    assert!(saved.iter().take(400).all(|id| kept.len() >= 500 || kept.contains(&id.as_str())));
    // The credential can still be read, and the key still be used.
    let response = gateway.call(&chat("up/m").bearer(&key)).await;
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(
        upstream.requests().last().unwrap().header("authorization"),
        Some("Bearer sk-upstream-of-the-kill-test")
    );
    // What was older than the flush interval when the end came is in the totals and in the log.
    let history = gateway.set("GET", "/api/usage/history?period=24h", &Value::Null).await;
    let counted = history["totalRequests"].as_u64().unwrap_or_else(|| panic!("{history}"));
    assert!(counted >= early as u64, "{counted} of {early}");
    let rows = gateway.manage("GET", "/api/usage/call-logs?limit=1", &Value::Null).await;
    let logged: u64 = rows.header("x-total-count").unwrap().parse().unwrap();
    assert!(logged >= early as u64, "{logged} of {early}");
}

#[tokio::test]
async fn sigterm_lets_a_running_stream_finish() {
    let mut world = World::start().await;
    let mut line = begin_stream(&world).await;
    world.gateway.signal("TERM");
    let text = line.rest().await;
    assert!(text.contains("two") && text.contains("data: [DONE]"), "{text}");
    assert!(world.gateway.ended().await.success(), "{}", world.gateway.log());
    assert!(tokio::net::TcpStream::connect(world.gateway.address).await.is_err());
}

#[tokio::test]
async fn what_was_served_is_written_before_an_orderly_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::of(Start::new().data_dir(folder.path())).await;
    for _ in 0..3 {
        assert_eq!(world.chat("up/m").await.status, 200);
    }
    world.gateway.signal("INT");
    assert!(world.gateway.ended().await.success());
    let gateway = Start::new().data_dir(folder.path()).run().await;
    assert_eq!(gateway.logged(3).await.len(), 3);
    let history = gateway.set("GET", "/api/usage/history", &Value::Null).await;
    assert_eq!(history["totalRequests"], 3, "{history}");
}

#[tokio::test]
async fn streams_that_last_too_long_do_not_keep_the_process() {
    let mut world = World::of(Start::new().env("SHUTDOWN_TIMEOUT_MS", "300")).await;
    world.upstream.answer(Answer::sse(&EVENTS[..1]).hang());
    let mut line = world.gateway.line().await;
    line.write(&stream("up/m").bytes()).await;
    line.head().await;
    line.read_until("one").await;
    let began = Instant::now();
    world.gateway.signal("TERM");
    world.gateway.ended().await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test]
async fn idle_connections_do_not_delay_the_end() {
    let mut world = World::start().await;
    let mut idle = world.gateway.line().await;
    idle.call(&Call::get("/healthz")).await;
    let _never_used = world.gateway.line().await;
    let began = Instant::now();
    world.gateway.signal("TERM");
    assert!(world.gateway.ended().await.success());
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[tokio::test]
async fn restart_lets_a_stream_finish_and_then_serves_anew() {
    let port = free_port();
    let world = World::of(Start::new().port(port)).await;
    let mut line = begin_stream(&world).await;
    let started =
        world.gateway.set("GET", "/api/monitoring/health", &Value::Null).await["uptime"].as_f64().unwrap();
    let response = world.gateway.manage("POST", "/api/restart", &Value::Null).await;
    assert_eq!((response.status, response.at("/status")), (202, "restarting".to_owned()));
    let text = line.rest().await;
    assert!(text.contains("two") && text.contains("data: [DONE]"), "{text}");
    world.gateway.says("a second greeting", |text| text.matches("Try it").count() == 2).await;
    let health = world.gateway.set("GET", "/api/monitoring/health", &Value::Null).await;
    assert!(health["uptime"].as_f64().unwrap() < started + 1.0, "{health}");
    assert_eq!(world.gateway.call(&Call::get("/healthz")).await.status, 200);
    assert_eq!(world.chat("up/m").await.status, 200, "the configuration is as it was");
    assert_eq!(world.gateway.logged(2).await.len(), 2);
}

#[tokio::test]
async fn under_a_supervisor_restart_ends_with_its_sign() {
    let mut world = World::of(Start::new().env("OMNIROUTE_SUPERVISED", "true")).await;
    assert_eq!(world.gateway.manage("POST", "/api/restart", &Value::Null).await.status, 202);
    assert_eq!(world.gateway.ended().await.code(), Some(75));
}

#[tokio::test]
async fn shutdown_ends_with_success() {
    let mut world = World::start().await;
    let response = world.gateway.call(&Call::post("/api/shutdown", "")).await;
    assert_eq!(response.status, 401);
    let mut line = begin_stream(&world).await;
    let response = world.gateway.manage("POST", "/api/shutdown", &Value::Null).await;
    assert_eq!(response.status, 202);
    assert!(line.rest().await.contains("data: [DONE]"));
    assert!(world.gateway.ended().await.success());
}

#[tokio::test]
async fn a_port_in_use_is_one_clear_line() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let began = Instant::now();
    let (status, log) = Start::new().port(port).fail().await;
    assert!(!status.success() && began.elapsed() < PATIENCE);
    let line = crate::storage::last_words(&log);
    assert!(line.contains(&port.to_string()) && line.contains("another"), "{log}");
}

#[tokio::test]
async fn listening_beyond_this_machine_needs_a_password() {
    let start = |password: Option<&str>| {
        let start = Start::new().env("HOST", "0.0.0.0");
        match password {
            Some(password) => start.env("INITIAL_PASSWORD", password),
            None => start,
        }
    };
    for (password, word) in [(None, "INITIAL_PASSWORD"), (Some("CHANGEME"), "INITIAL_PASSWORD")] {
        let (status, log) = start(password).fail().await;
        assert!(!status.success());
        assert!(crate::storage::last_words(&log).contains(word), "{log}");
    }
    let gateway = start(Some("correct horse battery")).run().await;
    let call = Call::get("/api/settings").bearer(MANAGEMENT_TOKEN);
    assert_eq!(gateway.call(&call).await.status, 200);
}

#[tokio::test]
async fn a_conversation_goes_on_after_a_restart_with_the_reasoning_behind_its_calls() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::of(Start::new().data_dir(folder.path())).await;
    let called = json!({"id": "x", "model": "m", "choices": [{"index": 0, "finish_reason": "tool_calls", "message": {
        "role": "assistant", "content": null, "reasoning_content": "the plan",
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}}]});
    world.upstream.answer(Answer::json(200, called.to_string()));
    let ask = |turns: &[Value]| {
        let body = json!({"model": "up/m", "max_tokens": 64, "messages": turns,
            "tools": [{"name": "f", "input_schema": {"type": "object"}}]});
        Call::post("/v1/messages", body.to_string())
    };
    let mut turns = vec![json!({"role": "user", "content": "go"})];
    assert_eq!(world.gateway.call(&ask(&turns)).await.status, 200);
    world.gateway.signal("TERM");
    assert!(world.gateway.ended().await.success(), "{}", world.gateway.log());

    // The client brings back the call, and nothing of what led to it.
    turns.push(json!({"role": "assistant", "content": [
        {"type": "tool_use", "id": "c1", "name": "f", "input": {}}]}));
    turns.push(json!({"role": "user", "content": [
        {"type": "tool_result", "tool_use_id": "c1", "content": "4"}]}));
    let gateway = Start::new().data_dir(folder.path()).run().await;
    let missing =
        r#"{"error":{"message":"Missing `reasoning_content` field","type":"invalid_request_error"}}"#;
    world.upstream.answer(Answer::json(400, missing));
    let response = gateway.call(&ask(&turns)).await;
    assert_eq!(response.status, 200, "{}", response.text());
    let sent = world.upstream.requests();
    let [.., refused, last] = sent.as_slice() else { panic!("{} requests", sent.len()) };
    let body = |request: &omniroute_testkit::Captured| String::from_utf8(request.body.to_vec()).unwrap();
    assert!(!body(refused).contains("the plan"), "{}", body(refused));
    assert!(body(last).contains(r#""reasoning_content":"the plan""#), "{}", body(last));
}

#[tokio::test]
async fn an_open_breaker_and_a_locked_model_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let mut gateway = Start::new().data_dir(&data_dir).run().await;
    let (ill, busy) = (ScriptedUpstream::start().await, ScriptedUpstream::start().await);
    ill.always(Answer::json(500, r#"{"error":{"message":"out of order"}}"#));
    busy.always(Answer::json(429, r#"{"error":{"message":"slow down"}}"#).header("retry-after", "900"));
    let node = add_node(&gateway, "ill", &ill.url("/v1")).await;
    add_connection(&gateway, &node, "first", "sk-upstream-1").await;
    add_connection(&gateway, &node, "second", "sk-upstream-2").await;
    let node = add_node(&gateway, "busy", &busy.url("/v1")).await;
    add_connection(&gateway, &node, "only", "sk-upstream-3").await;
    let settings = json!({"waitForCooldown": {"enabled": false},
        "providerBreaker": {"local": {"failureThreshold": 2, "resetTimeoutMs": 900_000}}});
    gateway.set("PATCH", "/api/resilience", &settings).await;

    assert_eq!(gateway.call(&chat("ill/m")).await.status, 500);
    assert_eq!(gateway.call(&chat("busy/m")).await.status, 429);
    let asked = (ill.requests().len(), busy.requests().len());
    gateway.signal("TERM");
    gateway.ended().await;

    let gateway = Start::new().data_dir(&data_dir).run().await;
    let refused = gateway.call(&chat("ill/m")).await;
    assert_eq!((refused.status, refused.header("x-omniroute-provider-breaker")), (503, Some("open")));
    assert_eq!(refused.at("/error/code"), "provider_circuit_open");
    let refused = gateway.call(&chat("busy/m")).await;
    assert_eq!(refused.status, 429, "{}", refused.text());
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((600..=900).contains(&wait), "{wait}");
    assert_eq!((ill.requests().len(), busy.requests().len()), asked, "nobody is asked again");
    // The operator may have it otherwise.
    gateway.set("POST", "/api/resilience/reset", &json!({"scope": "all"})).await;
    assert_eq!(gateway.call(&chat("busy/m")).await.status, 429);
    assert_eq!(busy.requests().len(), asked.1 + 1);
}
