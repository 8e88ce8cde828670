//! What combos know outlives the process: whose turn it is, who answered last, how often each was asked. And how each request
//! was routed can be read afterwards.

use serde_json::{Value, json};

use crate::client::Call;
use crate::gateway::{Gateway, MANAGEMENT_TOKEN, Start};
use crate::world::chat;

async fn combo(gateway: &Gateway, name: &str, strategy: &str, config: Value) -> String {
    let models = ["sim/echo", "sim/lorem", "sim/size-9"];
    let body = json!({"name": name, "strategy": strategy, "models": models, "config": config});
    gateway.set("POST", "/api/combos", &body).await["id"].as_str().unwrap().to_owned()
}

/// Who answers the next request.
async fn served_by(gateway: &Gateway, model: &str) -> String {
    let answer = gateway.call(&chat(model)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.header("x-omniroute-model").unwrap().to_owned()
}

async fn in_turn(gateway: &Gateway, model: &str, count: usize) -> Vec<String> {
    let mut served = Vec::new();
    for _ in 0..count {
        served.push(served_by(gateway, model).await);
    }
    served
}

async fn metrics(gateway: &Gateway, combo: &str) -> Value {
    let answer = gateway.set("GET", &format!("/api/combos/metrics?combo={combo}"), &Value::Null).await;
    answer["metrics"][combo].clone()
}

#[tokio::test]
async fn combos_go_on_after_a_restart_where_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let mut gateway = Start::new().data_dir(folder.path()).run().await;
    combo(&gateway, "turns", "round-robin", json!({})).await;
    combo(&gateway, "deck", "strict-random", json!({})).await;
    combo(&gateway, "last", "lkgp", json!({"maxRetries": 0})).await;
    assert_eq!(in_turn(&gateway, "turns", 2).await, ["echo", "lorem"]);
    let mut dealt = in_turn(&gateway, "deck", 2).await;
    assert_eq!(served_by(&gateway, "last").await, "echo");
    let spare =
        json!({"name": "spare", "models": ["sim/error-503", "sim/echo"], "config": {"maxRetries": 0}});
    gateway.set("POST", "/api/combos", &spare).await;
    assert_eq!(served_by(&gateway, "spare").await, "echo");
    let fell_back = metrics(&gateway, "spare").await;
    let counts = ["totalRequests", "totalSuccesses", "totalFailures", "totalFallbacks"];
    assert_eq!(
        counts.map(|name| fell_back[name].clone()),
        [1, 1, 0, 1].map(Value::from),
        "one request, two targets"
    );
    let before = metrics(&gateway, "turns").await;
    assert_eq!((&before["totalRequests"], &before["totalSuccesses"]), (&json!(2), &json!(2)));

    gateway.signal("TERM");
    gateway.ended().await;
    let gateway = Start::new().data_dir(folder.path()).run().await;
    assert_eq!(in_turn(&gateway, "turns", 2).await, ["size-9", "echo"], "the turn is kept");
    let counted_again = metrics(&gateway, "spare").await;
    assert_eq!(counts.map(|name| &counted_again[name]), counts.map(|name| &fell_back[name]), "counted again");
    dealt.extend(in_turn(&gateway, "deck", 1).await);
    dealt.sort();
    assert_eq!(dealt, ["echo", "lorem", "size-9"], "the deck goes on: each once before any again");
    let after = metrics(&gateway, "turns").await;
    assert_eq!((&after["totalRequests"], &after["totalSuccesses"]), (&json!(4), &json!(4)), "{after}");
    assert_eq!(after["byModel"]["sim/echo"]["requests"], 2, "{after}");
    // The order changes, but who answered last leads.
    let list = gateway.set("GET", "/api/combos", &Value::Null).await;
    let last = list["combos"].as_array().unwrap().iter().find(|combo| combo["name"] == "last").unwrap();
    let mut models = last["models"].as_array().unwrap().clone();
    models.reverse();
    for entry in &mut models {
        // Shown, but not to be sent for what it is not.
        entry.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    }
    let path = format!("/api/combos/{}", last["id"].as_str().unwrap());
    gateway.set("PATCH", &path, &json!({"models": models})).await;
    assert_eq!(served_by(&gateway, "last").await, "echo");
}

/// The same whenever it is asked: how long something took is measured in other places of a request.
fn without_latencies(metrics: &Value) -> Value {
    let mut told = metrics.clone();
    let entries = [&["byModel", "byTarget"][..], &[]].concat();
    let strip = |counts: &mut Value| {
        let counts = counts.as_object_mut().unwrap();
        for name in ["totalLatencyMs", "avgLatencyMs", "lastUsedAt"] {
            assert!(counts.remove(name).is_some(), "{name}");
        }
    };
    for part in entries {
        told[part].as_object_mut().unwrap().values_mut().for_each(strip);
    }
    strip(&mut told);
    told
}

fn number(metrics: &Value, name: &str) -> i64 {
    metrics[name].as_i64().unwrap_or_else(|| panic!("{name} in {metrics}"))
}

/// When a combo was used last, in milliseconds of the day.
fn last_used(metrics: &Value) -> i64 {
    let text = metrics["lastUsedAt"].as_str().unwrap();
    let clock = text.split_once('T').unwrap().1.trim_end_matches('Z');
    let parts: Vec<i64> = clock.split([':', '.']).map(|part| part.parse().unwrap()).collect();
    let [hours, minutes, seconds, ms] = parts[..] else { panic!("{text}") };
    ((hours * 60 + minutes) * 60 + seconds) * 1_000 + ms
}

#[tokio::test]
async fn a_restart_changes_no_figure_of_a_combo() {
    let folder = tempfile::tempdir().unwrap();
    let mut gateway = Start::new().data_dir(folder.path()).run().await;
    let combos = [
        // The first request locks the first target; those behind it pass it over.
        ("locked", "priority", json!(["sim/error-404", "sim/echo"])),
        ("plain", "priority", json!(["sim/echo", "sim/lorem"])),
        ("vain", "priority", json!(["sim/error-400", "sim/error-403"])),
        ("race", "race", json!(["sim/echo", "sim/ttft-900ms"])),
        ("fusion", "fusion", json!(["sim/echo", "sim/lorem"])),
        ("broken", "priority", json!(["sim/cut-2", "sim/echo"])),
    ];
    for (name, strategy, models) in &combos {
        let config = json!({"maxRetries": 0});
        let body = json!({"name": name, "strategy": strategy, "models": models, "config": config});
        gateway.set("POST", "/api/combos", &body).await;
    }
    for _ in 0..4 {
        for (name, ..) in &combos {
            let stream = *name == "broken";
            let body =
                json!({"model": name, "stream": stream, "messages": [{"role": "user", "content": "hi"}]});
            gateway.call(&Call::post("/v1/chat/completions", body.to_string())).await;
        }
    }
    gateway.logged(4 * combos.len()).await;
    let mut before = Vec::new();
    for (name, ..) in &combos {
        before.push(metrics(&gateway, name).await);
    }
    let fallbacks: Vec<i64> = before.iter().map(|it| number(it, "totalFallbacks")).collect();
    assert_eq!(fallbacks[..4], [4, 0, 0, 0], "passed over is fallen back, beaten is not: {before:#?}");
    gateway.signal("TERM");
    gateway.ended().await;

    let gateway = Start::new().data_dir(folder.path()).run().await;
    for ((name, ..), before) in combos.iter().zip(&before) {
        let after = metrics(&gateway, name).await;
        assert_eq!(without_latencies(&after), without_latencies(before), "{name}");
        let apart = (last_used(&after) - last_used(before)).rem_euclid(86_400_000);
        assert!(!(51..86_399_950).contains(&apart), "{name}: used last {apart} ms apart");
        let apart = number(&after, "totalLatencyMs") - number(before, "totalLatencyMs");
        assert!(apart.abs() <= 200, "{name}: latencies are {apart} ms apart\n{before:#}\n{after:#}");
    }
}

#[tokio::test]
async fn the_version_of_a_combo_that_was_read_is_good_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut gateway = Start::new().data_dir(folder.path()).run().await;
    let path = format!("/api/combos/{}", combo(&gateway, "best", "priority", json!({})).await);
    let read = gateway.manage("GET", &path, &Value::Null).await.header("etag").unwrap().to_owned();
    gateway.signal("TERM");
    gateway.ended().await;
    let gateway = Start::new().data_dir(folder.path()).run().await;
    let call = Call::post(&path, r#"{"isHidden":true}"#).method("PATCH").bearer(MANAGEMENT_TOKEN);
    let call = call.header("if-match", &read);
    let changed = gateway.call(&call).await;
    assert_eq!(changed.status, 200, "{}", changed.text());
    let refused = gateway.call(&call).await;
    assert_eq!((refused.status, refused.at("/error/code").as_str()), (409, "CONFLICT"), "{}", refused.text());
    let current = changed.header("etag").unwrap();
    assert!(refused.at("/error/message").contains(current), "{}", refused.text());
}

#[tokio::test]
async fn counts_that_were_cleared_or_not_wanted_do_not_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut gateway = Start::new().data_dir(folder.path()).run().await;
    combo(&gateway, "best", "priority", json!({})).await;
    combo(&gateway, "kept", "priority", json!({})).await;
    combo(&gateway, "quiet", "priority", json!({"trackMetrics": false})).await;
    for name in ["best", "kept", "quiet"] {
        assert_eq!(served_by(&gateway, name).await, "echo");
    }
    gateway.logged(3).await;
    gateway.set("DELETE", "/api/combos/metrics?combo=best", &Value::Null).await;
    let expected = [("best", 0), ("kept", 1), ("quiet", 0)];
    for (name, requests) in expected {
        assert_eq!(metrics(&gateway, name).await["totalRequests"], requests, "{name}");
    }
    gateway.signal("TERM");
    gateway.ended().await;
    let gateway = Start::new().data_dir(folder.path()).run().await;
    for (name, requests) in expected {
        let counted = metrics(&gateway, name).await;
        assert_eq!(counted["totalRequests"], requests, "{name}: {counted}");
        assert_eq!(counted["byModel"]["sim/echo"]["requests"], requests, "{name}: {counted}");
    }
}

/// The record of the only request.
async fn record(gateway: &Gateway) -> Value {
    let rows = gateway.logged(1).await;
    let path = format!("/api/usage/call-logs/{}", rows[0]["id"].as_str().unwrap());
    gateway.set("GET", &path, &Value::Null).await
}

#[tokio::test]
async fn how_a_request_was_routed_is_in_its_log() {
    let gateway = Start::new().run().await;
    combo(&gateway, "mixed", "priority", json!({"maxRetries": 0})).await;
    let ask = json!({"model": "mixed", "messages": [{"role": "user", "content": "hello"}]});
    assert_eq!(gateway.call(&Call::post("/v1/chat/completions", ask.to_string())).await.status, 200);
    let row = record(&gateway).await;
    assert_eq!((&row["comboName"], &row["comboStepId"]), (&json!("mixed"), &json!("mixed-model-1-sim-echo")));
    let route = &row["route"];
    assert_eq!(
        (&route["via"], &route["combo"], &route["strategy"]),
        (&json!("combo"), &json!("mixed"), &json!("priority"))
    );
    let candidates = route["candidates"].as_array().unwrap();
    let models: Vec<_> = candidates.iter().map(|it| it["model"].as_str().unwrap()).collect();
    assert_eq!(models, ["echo", "lorem", "size-9"]);
    assert_eq!((&candidates[0]["connectionId"], &candidates[0]["action"]), (&json!("sim"), &json!("try")));
    assert_eq!(candidates[1]["connectionId"], Value::Null, "its turn never came");
    assert_eq!(route["attempts"].as_array().map(Vec::len), Some(1));
    assert!(route["seed"].as_str().unwrap().parse::<u64>().is_ok());

    // The explanation of the same request says the same of the order.
    let question = json!({"path": "/v1/chat/completions", "body": ask});
    let told = gateway.set("POST", "/api/route/explain", &question).await;
    for member in ["via", "combo", "strategy", "requestedModel"] {
        assert_eq!(told[member], route[member], "{member}");
    }

    // Nothing is written down that is not wanted.
    let other = Start::new().run().await;
    other.set("PATCH", "/api/settings", &json!({"routingDecisionSampleRate": 0.0})).await;
    assert_eq!(other.call(&chat("sim/echo")).await.status, 200);
    let row = record(&other).await;
    assert_eq!((&row["route"]["via"], &row["comboName"]), (&Value::Null, &Value::Null), "{row}");
    assert_eq!(row["route"]["attempts"].as_array().map(Vec::len), Some(1));
}
