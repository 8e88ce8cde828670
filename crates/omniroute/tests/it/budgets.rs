//! Money through the whole program: requests at once against a budget, and what is known of it after a restart.

use serde_json::{Value, json};

use crate::client::Call;
use crate::gateway::Start;
use crate::world::{World, add_key};

/// What one request costs in billionths: the upstream counts 5 tokens of prompt and 2 of answer.
const COST: f64 = 0.007;

fn ask(key: &str) -> Call {
    let body = json!({"model": "up/m", "max_tokens": 2, "messages": [{"role": "user", "content": "hello"}]});
    Call::post("/v1/chat/completions", body.to_string()).bearer(key)
}

#[tokio::test]
async fn requests_at_once_never_spend_more_than_the_budget() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::of(Start::new().data_dir(folder.path())).await;
    let gateway = &world.gateway;
    let prices = json!({"up": {"m": {"input": 1_000, "output": 1_000}}});
    gateway.set("PATCH", "/api/pricing", &prices).await;
    let key = add_key(gateway, json!({})).await;
    let keys = gateway.set("GET", "/api/keys", &Value::Null).await;
    let id = keys["keys"][0]["id"].as_str().unwrap().to_owned();
    // Ten requests' worth.
    gateway.set("POST", "/api/usage/budget", &json!({"apiKeyId": id, "dailyLimitUsd": 10.0 * COST})).await;
    let path = format!("/api/usage/budget?apiKeyId={id}");

    let calls = (0..40).map(|_| async { gateway.call(&ask(&key)).await });
    let answers = futures_util::future::join_all(calls).await;
    let served = answers.iter().filter(|answer| answer.status == 200).count();
    assert!((1..=10).contains(&served), "{served} of at most 10");
    for answer in &answers {
        if answer.status == 200 {
            assert_eq!(answer.header("x-omniroute-response-cost"), Some("0.007"));
        } else {
            assert_eq!(answer.status, 429, "{}", answer.text());
            assert_eq!(answer.at("/error/code"), "budget_exceeded");
            assert_eq!(answer.header("x-omniroute-budget-limit"), Some("0.07"));
            assert!(answer.header("retry-after").is_some_and(|wait| wait.parse::<u64>().unwrap() <= 86_400));
        }
    }
    let status = gateway.set("GET", &path, &Value::Null).await;
    #[allow(clippy::cast_precision_loss, reason = "ten at most")]
    let want = served as f64 * COST;
    assert!((status["dailyTotal"].as_f64().unwrap() - want).abs() < 1e-9, "{status}");
    assert_eq!((&status["held"], &status["totalEntries"]), (&json!(0.0), &json!(served)));

    // The log, the sums and the ledger say the same, and a process that starts now believes it.
    gateway.logged(40).await;
    let history = gateway.set("GET", "/api/usage/history", &Value::Null).await;
    assert!((history["totalCost"].as_f64().unwrap() - want).abs() < 1e-9, "{history}");
    let World { mut gateway, upstream, .. } = world;
    gateway.signal("TERM");
    gateway.ended().await;
    let again = Start::new().data_dir(folder.path()).run().await;
    let after = again.set("GET", &path, &Value::Null).await;
    for member in ["dailyTotal", "monthlyTotal", "allTimeTotal", "totalEntries", "budget", "budgetCheck"] {
        assert_eq!(after[member], status[member], "{member}");
    }
    // What is left is spent to the last request that fits, and no further.
    let mut more = 0;
    while again.call(&ask(&key)).await.status == 200 {
        more += 1;
        assert!(served + more <= 10, "more than there was");
    }
    drop(upstream);
}

#[tokio::test]
async fn requests_of_the_day_count_on_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::of(Start::new().data_dir(folder.path())).await;
    let key = add_key(&world.gateway, json!({"maxRequestsPerDay": 5})).await;
    let free = add_key(&world.gateway, json!({})).await;
    for _ in 0..3 {
        assert_eq!(world.gateway.call(&ask(&key)).await.status, 200);
    }
    assert_eq!(world.gateway.call(&ask(&free)).await.status, 200);
    let World { mut gateway, upstream, .. } = world;
    gateway.signal("TERM");
    assert!(gateway.ended().await.success(), "{}", gateway.log());

    let again = Start::new().data_dir(folder.path()).run().await;
    let answer = again.call(&ask(&key)).await;
    assert_eq!((answer.status, answer.header("x-ratelimit-remaining-requests")), (200, Some("1")));
    assert_eq!(again.call(&ask(&key)).await.status, 200);
    let refused = again.call(&ask(&key)).await;
    assert_eq!((refused.status, refused.at("/error/code").as_str()), (429, "rate_limit_exceeded"));
    assert!(refused.text().contains("5 requests per day"), "{}", refused.text());
    assert_eq!(again.call(&ask(&free)).await.status, 200);
    drop(upstream);
}
