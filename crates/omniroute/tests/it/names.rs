//! What names say beside a model, over aliases, combos and policies; and where aliases lead in the end.

use serde_json::{Value, json};

use crate::world::{World, chat};

async fn alias(world: &World, alias: &str, model: &str) {
    world.gateway.set("PUT", "/api/models/alias", &json!({"alias": alias, "model": model})).await;
}

/// What the upstream is sent for a name.
async fn sent(world: &World, model: &str) -> Value {
    let before = world.upstream.requests().len();
    let got = world.gateway.call(&chat(model)).await;
    assert_eq!(got.status, 200, "{model}: {}", got.text());
    serde_json::from_slice(&world.upstream.requests()[before].body).unwrap()
}

#[tokio::test]
async fn suffixes_work_wherever_a_model_is_named() {
    let world = World::start().await;
    alias(&world, "smart", "up/m(high)").await;
    world.gateway.set("POST", "/api/combos", &json!({"name": "team", "models": ["up/m(low)"]})).await;
    let policy = json!({"name": "moved", "type": "routing", "conditions": {"model_pattern": "old"},
        "actions": {"rewrite_model": "up/m(medium)"}});
    world.gateway.set("POST", "/api/policies", &policy).await;
    alias(&world, "old", "up/m").await;
    for (model, effort) in
        [("smart", "high"), ("smart(low)", "low"), ("team", "low"), ("team(high)", "high"), ("old", "medium")]
    {
        let body = sent(&world, model).await;
        assert_eq!((&body["model"], &body["reasoning_effort"]), (&json!("m"), &json!(effort)), "{model}");
    }
}

#[tokio::test]
async fn patterns_lead_to_patterns_but_never_in_a_circle() {
    let world = World::start().await;
    alias(&world, "a-*", "b-*").await;
    alias(&world, "b-*", "up/*").await;
    alias(&world, "up-1", "down-1").await;
    alias(&world, "down-*", "up-*").await;
    assert_eq!(sent(&world, "a-x").await["model"], "x");
    let got = world.gateway.call(&chat("up-1")).await;
    assert_eq!((got.status, got.at("/error/code").as_str()), (400, "invalid_model"));
    assert!(got.text().contains("up-1 → down-1 → up-1"), "{}", got.text());
}
