//! Combos whose next requests are only played: how they would be spread, what they would cost, who stands in for whom.

use serde_json::{Value, json};

use crate::client::Call;
use crate::gateway::Gateway;

const PATH: &str = "/api/combos/simulate";

async fn combo(gateway: &Gateway, name: &str, strategy: &str, models: &[&str], config: Value) {
    let combo = json!({"name": name, "strategy": strategy, "models": models, "config": config});
    gateway.set("POST", "/api/combos", &combo).await;
}

async fn simulate(gateway: &Gateway, question: Value) -> Value {
    gateway.set("POST", PATH, &question).await
}

async fn ask(gateway: &Gateway, model: &str) -> u16 {
    let body = json!({"model": model, "messages": [{"role": "user", "content": "hello"}]});
    gateway.call(&Call::post("/v1/chat/completions", body.to_string())).await.status
}

/// What locks a model is ended, what was counted of it stays.
async fn unlock(gateway: &Gateway, model: &str) {
    gateway.set("DELETE", "/api/models/availability", &json!({"provider": "sim", "model": model})).await;
}

fn target<'a>(told: &'a Value, model: &str) -> &'a Value {
    let targets = told["targets"].as_array().unwrap();
    targets.iter().find(|it| it["model"] == model).unwrap_or_else(|| panic!("no {model} in {told}"))
}

/// Which accounts, and targets, the next request would go to.
async fn next(gateway: &Gateway, combo: &str) -> Value {
    let body = json!({"model": combo, "messages": [{"role": "user", "content": "Hello"}]});
    let question = json!({"path": "/v1/chat/completions", "body": body, "seed": "1"});
    let mut told = gateway.set("POST", "/api/route/explain", &question).await;
    told["decidedAt"] = Value::Null;
    told
}

#[tokio::test]
async fn turns_are_taken_in_a_copy_and_shares_are_those_of_the_strategy() {
    let gateway = Gateway::start().await;
    let models = ["sim/echo", "sim/lorem", "sim/size-9"];
    for strategy in ["round-robin", "least-used", "priority", "random", "strict-random"] {
        combo(&gateway, strategy, strategy, &models, json!({"stickyRoundRobinLimit": 1})).await;
    }
    let heavy = json!({"name": "heavy", "strategy": "weighted",
        "models": [{"model": "sim/echo", "weight": 3}, {"model": "sim/lorem", "weight": 1}]});
    gateway.set("POST", "/api/combos", &heavy).await;
    // One request was served: it is the second one's turn.
    assert_eq!(ask(&gateway, "round-robin").await, 200);
    gateway.logged(1).await;
    let mut before = Vec::new();
    for name in ["round-robin", "least-used", "heavy"] {
        before.push(next(&gateway, name).await);
    }
    let metrics = gateway.set("GET", "/api/combos/metrics", &Value::Null).await;

    let shares = |told: &Value| -> Vec<u64> {
        models.iter().map(|model| target(told, &model[4..])["firstChoice"].as_u64().unwrap()).collect()
    };
    for (name, expected) in
        [("round-robin", [300, 300, 300]), ("least-used", [300, 300, 300]), ("priority", [900, 0, 0])]
    {
        let told = simulate(&gateway, json!({"combo": name, "requests": 900, "seed": 5})).await;
        assert_eq!(shares(&told), expected, "{name}: {told}");
        assert_eq!((&told["requests"], &told["truncated"]), (&json!(900), &json!(false)));
        assert_eq!((&told["expectedAnswers"], &told["expectedFailures"]), (&json!(900.0), &json!(0.0)));
        assert_eq!((&told["strategy"], &told["manner"]), (&json!(name), &json!("one-by-one")));
    }
    let told = simulate(&gateway, json!({"combo": "round-robin", "requests": 1})).await;
    assert_eq!(shares(&told), [0, 1, 0], "the turn is the one of the gateway: {told}");
    assert_eq!(told["failurePath"][0]["model"], "lorem");
    let question = json!({"combo": "random", "requests": 3_000, "seed": 5});
    let told = simulate(&gateway, question.clone()).await;
    let drawn = shares(&told);
    assert!(drawn.iter().all(|share| (900..1_100).contains(share)), "{drawn:?}");
    let again = simulate(&gateway, question).await;
    assert_eq!(again["targets"], told["targets"], "the same bits, the same spread");
    let other = simulate(&gateway, json!({"combo": "random", "requests": 3_000, "seed": 6_000})).await;
    assert_ne!(shares(&other), drawn);
    let told = simulate(&gateway, json!({"combo": "strict-random", "requests": 3_000})).await;
    assert_eq!(shares(&told), [1_000; 3], "each once before any comes again");
    let told = simulate(&gateway, json!({"combo": "heavy", "requests": 4_000, "seed": 5})).await;
    let share = target(&told, "echo")["firstChoiceShare"].as_f64().unwrap();
    assert!((0.72..0.78).contains(&share), "{told}");

    // Nothing of all that is known to the gateway.
    for (name, before) in ["round-robin", "least-used", "heavy"].iter().zip(before) {
        assert_eq!(next(&gateway, name).await, before, "{name}");
    }
    assert_eq!(gateway.set("GET", "/api/combos/metrics", &Value::Null).await, metrics);
    assert_eq!(gateway.logged(1).await.len(), 1, "nothing was sent");
}

#[tokio::test]
async fn who_fails_is_stood_in_for_as_often_as_it_failed_of_late() {
    let gateway = Gateway::start().await;
    let models = ["sim/fail-first-2", "sim/lorem", "sim/size-9"];
    combo(&gateway, "pair", "priority", &models, json!({"maxRetries": 0})).await;
    let prices = json!({"sim": {"fail-first-2": {"input": 1.0, "output": 2.0}, "lorem": {"input": 3.0, "output": 3.0}}});
    gateway.set("PATCH", "/api/pricing", &prices).await;
    for _ in 0..4 {
        assert_eq!(ask(&gateway, "pair").await, 200);
        unlock(&gateway, "fail-first-2").await;
    }
    gateway.logged(4).await;
    let question = json!({"combo": "pair", "requests": 1_000, "seed": 1});
    let told = simulate(&gateway, question.clone()).await;
    let (first, second, third) =
        (target(&told, "fail-first-2"), target(&told, "lorem"), target(&told, "size-9"));
    let half = json!({"requests": 4, "successes": 2, "successRate": 50.0, "over": "hour"});
    assert_eq!((&first["measured"], &first["firstChoice"]), (&half, &json!(1_000)), "{told}");
    assert_eq!(first["expectedAnswers"], 500.0);
    // The second answered each time that it was asked.
    assert_eq!(second["measured"]["successRate"], 100.0, "{told}");
    assert_eq!((&second["firstChoice"], &second["expectedFallbacks"]), (&json!(0), &json!(500.0)), "{told}");
    assert_eq!((&second["expectedAnswers"], &third["expectedAsked"]), (&json!(500.0), &json!(0.0)));
    assert_eq!(third["measured"], Value::Null, "never asked");
    assert_eq!(told["expectedAnswers"], 1_000.0);
    // Half of the answers at the one's price, half at the other's.
    let cost = |target: &Value, member: &str| target[member].as_f64().unwrap();
    let total = 500.0 * (cost(first, "estimatedCostUsd") + cost(second, "estimatedCostUsd"));
    assert!((told["cost"]["expectedTotalUsd"].as_f64().unwrap() - total).abs() < 1e-6, "{told}");
    assert!((cost(first, "expectedCostUsd") - 500.0 * cost(first, "estimatedCostUsd")).abs() < 1e-6);
    assert!(cost(first, "estimatedCostUsd") > 0.0);
    let drawn = second["connections"][0]["requests"].as_u64().unwrap();
    assert!((420..580).contains(&drawn), "what was drawn is near to what was to be expected: {told}");

    // A price that nobody knows is no price of 0.
    gateway.set("DELETE", "/api/pricing?provider=sim&model=lorem", &Value::Null).await;
    let told = simulate(&gateway, question.clone()).await;
    assert_eq!(target(&told, "lorem")["expectedCostUsd"], Value::Null, "{told}");
    assert_eq!(told["cost"]["expectedTotalUsd"], Value::Null);
    assert_eq!(told["cost"]["expectedPerRequestUsd"], Value::Null);
    assert_eq!(told["cost"]["unpricedCalls"], 500.0);
    assert!(told["cost"]["knownTotalUsd"].as_f64().unwrap() > 0.0);

    // Who is locked is passed over, and it is told until when.
    combo(&gateway, "bad", "priority", &["sim/error-429-retry-50s", "sim/lorem"], json!({"maxRetries": 0}))
        .await;
    assert_eq!(ask(&gateway, "bad").await, 200);
    let told = simulate(&gateway, json!({"combo": "bad", "requests": 10})).await;
    let (locked, instead) = (target(&told, "error-429-retry-50s"), target(&told, "lorem"));
    assert_eq!(locked["skipped"]["requests"], 10, "{told}");
    assert!(locked["skipped"]["until"].is_string() && locked["skipped"]["rule"].is_string(), "{told}");
    assert_eq!((&instead["firstChoice"], &instead["expectedFallbacks"]), (&json!(10), &json!(0.0)));
    let path: Vec<_> = told["failurePath"].as_array().unwrap().iter().map(|it| &it["action"]).collect();
    assert_eq!(path, ["try", "skip"], "{told}");
    assert_eq!(told["failurePath"][1]["until"], locked["skipped"]["until"]);
}

#[tokio::test]
async fn those_that_start_together_are_all_asked() {
    let gateway = Gateway::start().await;
    let models = ["sim/fail-first-1", "sim/lorem", "sim/size-9"];
    for (name, config) in [
        ("race", json!({"raceWidth": 2, "maxRetries": 0})),
        ("fusion", json!({"fusionWidth": 2, "judgeModel": "sim/size-9", "maxRetries": 0})),
        ("pipeline", json!({"maxRetries": 0})),
    ] {
        combo(&gateway, name, name, &models, config).await;
    }
    let first = |told: &Value| -> Vec<u64> {
        models.iter().map(|model| target(told, &model[4..])["firstChoice"].as_u64().unwrap()).collect()
    };
    let told = simulate(&gateway, json!({"combo": "race", "requests": 100})).await;
    assert_eq!((&told["manner"], first(&told)), (&json!("race"), vec![100, 100, 0]), "{told}");
    assert_eq!(told["expectedAnswers"], 100.0);
    let told = simulate(&gateway, json!({"combo": "fusion", "requests": 100})).await;
    assert_eq!((&told["manner"], first(&told)[..2].to_vec()), (&json!("fusion"), vec![100, 100]), "{told}");
    assert_eq!((&told["judge"]["model"], &told["judge"]["expectedAsked"]), (&json!("size-9"), &json!(100.0)));
    let told = simulate(&gateway, json!({"combo": "pipeline", "requests": 100})).await;
    assert_eq!((&told["manner"], first(&told)), (&json!("pipeline"), vec![100, 0, 0]), "{told}");
    assert_eq!(target(&told, "size-9")["expectedAsked"], 100.0);
    assert_eq!(target(&told, "size-9")["expectedFallbacks"], 0.0, "it is its turn, and nobody failed");

    // Its first step fails: so does the pipeline, and nobody after it is asked. A fusion of which one answers has no judge.
    for _ in 0..2 {
        ask(&gateway, "pipeline").await;
        ask(&gateway, "fusion").await;
        unlock(&gateway, "fail-first-1").await;
    }
    gateway.logged(4).await;
    let metrics = gateway.set("GET", "/api/combos/metrics?combo=pipeline", &Value::Null).await;
    let told = simulate(&gateway, json!({"combo": "pipeline", "requests": 100})).await;
    let measured = &target(&told, "fail-first-1")["measured"];
    let by_target = metrics["metrics"]["pipeline"]["byTarget"].as_object().unwrap();
    let counted = by_target.iter().find(|(id, _)| id.contains("fail-first-1")).unwrap().1;
    assert_eq!(measured["requests"], counted["requests"], "{told}");
    let rate = measured["successRate"].as_f64().unwrap();
    assert!(rate < 100.0, "{told}");
    assert_eq!(told["expectedAnswers"], rate, "{told}");
    assert_eq!(target(&told, "size-9")["expectedAsked"], rate);
}

#[tokio::test]
async fn what_cannot_be_played_is_told_with_its_place() {
    let gateway = Gateway::start().await;
    combo(&gateway, "pair", "priority", &["sim/echo", "sim/lorem"], json!({})).await;
    let body = json!({"messages": [{"role": "user", "content": "hello"}]});
    let of = |body: Value| json!({"combo": "pair", "request": {"path": "/v1/messages", "body": body}});
    for (question, status, word) in [
        (json!({"combo": "nobody"}), 404, "Combo"),
        (json!({"combo": "pair", "requests": 0}), 400, "requests"),
        (json!({"combo": "pair", "requests": 10_001}), 400, "requests"),
        (json!({"combo": "pair", "seed": 9_007_199_254_740_992_u64}), 400, "seed"),
        (json!({"combo": "pair", "seed": "x"}), 400, "seed"),
        (json!({"combo": "pair", "apiKeyId": "nobody"}), 400, "apiKeyId"),
        (json!({"combo": "pair", "request": {"path": "/nowhere", "body": body}}), 400, "request.path"),
        (of(json!([])), 400, "request.body"),
        (of(json!({"model": "pair"})), 400, "request.body"),
        (
            of(json!({"model": "sim/echo", "max_tokens": 5, "messages": body["messages"]})),
            422,
            "request.body.model",
        ),
    ] {
        let answer = gateway.manage("POST", PATH, &question).await;
        assert_eq!(answer.status, status, "{question}: {}", answer.text());
        assert!(answer.text().contains(word), "{question}: {}", answer.text());
    }
    let mut known = json!({"model": "pair", "max_tokens": 5, "colour": "red"});
    known["messages"] = body["messages"].clone();
    let mut question = of(known);
    question["colour"] = json!("red");
    let answer = gateway.manage("POST", PATH, &question).await;
    assert_eq!(
        (answer.status, answer.header("x-ignored-fields")),
        (200, Some("colour")),
        "{}",
        answer.text()
    );

    // A key that may not use the combo: nobody is asked, and that is why.
    let key = json!({"name": "poor", "allowedModels": ["sim/size-9"]});
    let key = gateway.set("POST", "/api/keys", &key).await["id"].clone();
    let told = simulate(&gateway, json!({"combo": "pair", "requests": 7, "apiKeyId": key})).await;
    assert_eq!((&told["refused"], &told["error"]["status"]), (&json!(7), &json!(403)), "{told}");
    assert_eq!(told["targets"], json!([]));
    assert!(told["failurePath"].as_array().unwrap().iter().all(|it| it["rule"] == "key"), "{told}");

    // Two at a time are one too many; whoever goes away makes room.
    combo(&gateway, "many", "random", &["sim/echo"; 1], json!({})).await;
    let question = json!({"combo": "many", "requests": 10_000});
    let (one, other) =
        tokio::join!(gateway.manage("POST", PATH, &question), gateway.manage("POST", PATH, &question));
    let mut statuses = [one.status, other.status];
    statuses.sort_unstable();
    assert!(matches!(statuses, [200, 200 | 503]), "{statuses:?}");
    assert_eq!(simulate(&gateway, question).await["requests"], 10_000);
}
