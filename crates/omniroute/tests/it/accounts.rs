//! What is known of accounts outlives the process: their limits, and the conversations that stay with them.

use omniroute_testkit::Answer;
use serde_json::{Value, json};

use crate::gateway::Start;
use crate::world::{COMPLETION, UPSTREAM_KEY, World, add_connection, chat};

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

/// Each of the refusals ends a key: its account was closed, or has no credit left.
#[tokio::test]
async fn keys_that_are_out_are_not_asked_after_a_restart_until_the_operator_says_so() {
    const SECOND: &str = "sk-upstream-second-sentinel";
    const THIRD: &str = "sk-upstream-third-sentinel";
    let folder = tempfile::tempdir().unwrap();
    let world = World::of(Start::new().data_dir(folder.path())).await;
    let World { mut gateway, upstream, connection, .. } = world;
    let path = format!("/api/providers/{connection}");
    let keys = json!({"providerSpecificData": {"apiKeys": [SECOND, THIRD]}});
    gateway.set("PATCH", &path, &keys).await;
    let banned = json!({"error": {"message": "account disabled", "code": "account_disabled"}});
    let spent = json!({"error": {"message": "insufficient credits", "code": "insufficient_quota"}});
    upstream.answer(Answer::json(401, banned.to_string())).answer(Answer::json(402, spent.to_string()));
    let asked = || {
        let requests = upstream.requests();
        let of_chat = requests.iter().filter(|request| request.target.ends_with("/chat/completions"));
        let key = |text: &str| text.trim_start_matches("Bearer ").to_owned();
        of_chat.map(|request| key(request.header("authorization").unwrap())).collect::<Vec<_>>()
    };
    let response = gateway.call(&chat("up/m")).await;
    assert_eq!((response.status, response.header("x-omniroute-attempts")), (200, Some("3")));
    assert_eq!(asked(), [UPSTREAM_KEY, SECOND, THIRD]);

    let states = |row: &Value| {
        let keys = row["connection"]["keys"].as_array().unwrap().clone();
        keys.iter().map(|key| key["testStatus"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let row = gateway.set("GET", &path, &Value::Null).await;
    assert_eq!(states(&row)[..2], ["banned", "credits_exhausted"], "{row}");
    let resilience = gateway.set("GET", "/api/resilience", &Value::Null).await;
    let paused = resilience["rateLimitStatus"].as_object().unwrap();
    assert_eq!(paused.len(), 2, "{resilience}");
    assert!(paused.values().all(|it| it["key"]["maskedKey"].is_string()), "{resilience}");
    assert!(!format!("{row}{resilience}").contains("sentinel"), "no secret is shown");
    gateway.signal("TERM");
    assert!(gateway.ended().await.success(), "{}", gateway.log());

    let gateway = Start::new().data_dir(folder.path()).run().await;
    let row = gateway.set("GET", &path, &Value::Null).await;
    assert_eq!(states(&row)[..2], ["banned", "credits_exhausted"], "{row}");
    for _ in 0..3 {
        assert_eq!(gateway.call(&chat("up/m")).await.status, 200);
    }
    assert_eq!(asked()[3..], [THIRD; 3], "those that are out are not asked");
    gateway.set("PATCH", &path, &json!({"clearError": true})).await;
    for _ in 0..3 {
        assert_eq!(gateway.call(&chat("up/m")).await.status, 200);
    }
    let mut again = asked()[6..].to_vec();
    again.sort();
    assert_eq!(again, [SECOND, UPSTREAM_KEY, THIRD].map(str::to_owned), "all of them take turns again");
    let row = gateway.set("GET", &path, &Value::Null).await;
    assert!(states(&row).iter().all(|state| state != "banned"), "{row}");
}
