//! What is known of accounts outlives the process: their limits, and the conversations that stay with them.

use omniroute_testkit::Answer;
use serde_json::{Value, json};

use crate::gateway::Start;
use crate::world::{COMPLETION, World, add_connection, chat};

#[tokio::test]
async fn limits_and_conversations_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::of(Start::new().data_dir(folder.path())).await;
    let second = add_connection(&world.gateway, &world.node, "second", "sk-upstream-second").await;
    let settings = json!({"fallbackStrategy": "round-robin", "stickyRoundRobinLimit": 1});
    world.gateway.set("PATCH", "/api/settings", &settings).await;
    world.upstream.always(
        Answer::json(200, COMPLETION)
            .header("x-ratelimit-limit-requests", "500")
            .header("x-ratelimit-remaining-requests", "499")
            .header("x-ratelimit-reset-requests", "10m"),
    );
    let turn = |session: &str| chat("up/m").header("x-session-id", session);
    let asked = |world: &World| {
        let requests = world.upstream.requests();
        requests.last().unwrap().header("authorization").unwrap().to_owned()
    };
    assert_eq!(world.gateway.call(&turn("one")).await.status, 200);
    let response = world.gateway.call(&turn("two")).await;
    assert_eq!(response.header("x-omniroute-session-id"), Some("ext:two"));
    let account = asked(&world);
    world.gateway.signal("TERM");
    assert!(world.gateway.ended().await.success(), "{}", world.gateway.log());

    let gateway = Start::new().data_dir(folder.path()).run().await;
    let sessions = gateway.set("GET", "/api/sessions", &Value::Null).await;
    assert_eq!(sessions["count"], 2, "{sessions}");
    let limits = gateway.set("GET", "/api/rate-limits", &Value::Null).await;
    let known: Vec<_> = limits["connections"].as_array().unwrap().iter().map(|one| &one["limit"]).collect();
    assert_eq!(known, [500, 500], "{limits}");
    // `one` had the first account and `two` the second; without its memory a new process would begin with the first.
    for _ in 0..3 {
        assert_eq!(gateway.call(&turn("two")).await.status, 200);
        assert_eq!(asked(&world), account);
    }
    let gone = gateway.set("DELETE", "/api/sessions?sessionId=ext:two", &Value::Null).await;
    assert_eq!(gone["unpinned"], 1);
    gateway.set("DELETE", &format!("/api/providers/{second}"), &Value::Null).await;
    let limits = gateway.set("GET", "/api/rate-limits", &Value::Null).await;
    assert_eq!(limits["connections"].as_array().unwrap().len(), 1);
}
