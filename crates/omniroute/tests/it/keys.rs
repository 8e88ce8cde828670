//! Who may call what: client keys, their limits, accounts that cool down, and names that are echoed.

use std::time::Duration;

use omniroute_testkit::Answer;
use serde_json::json;

use crate::client::Call;
use crate::gateway::Start;
use crate::world::{COMPLETION, EVENTS, World, add_connection, add_key, chat, messages, stream};

#[tokio::test]
async fn required_keys_are_required_everywhere() {
    let world = World::of(Start::new().env("REQUIRE_API_KEY", "true")).await;
    let key = add_key(&world.gateway, json!({})).await;
    for call in [
        chat("up/m"),
        stream("up/m"),
        messages("up/m"),
        Call::get("/v1/models"),
        Call::get("/v1/models/up/m"),
    ] {
        for bad in [
            call.clone(),
            call.clone().bearer("sk-omni-unknown"),
            call.clone().header("x-api-key", "nonsense"),
        ] {
            let response = world.gateway.call(&bad).await;
            assert_eq!(response.status, 401, "{}", response.text());
            assert_eq!(response.at("/error/type"), "authentication_error");
        }
    }
    for call in [
        chat("up/m").bearer(&key),
        chat("up/m").header("authorization", &format!("bearer   {key} ")),
        chat("up/m").header("x-api-key", &key),
        chat("up/m").header("x-goog-api-key", &key),
        // Both at once, and only the second is known.
        messages("up/m").bearer("sk-ant-oat-unknown").header("x-api-key", &key),
    ] {
        let response = world.gateway.call(&call).await;
        assert_eq!(response.status, 200, "{}", response.text());
    }
    // A key in the query is for other paths only.
    let response = world.gateway.call(&Call::get(&format!("/v1/models?key={key}"))).await;
    assert_eq!(response.status, 401);
    let preflight = Call::new("OPTIONS", "/v1/chat/completions").header("origin", "https://a.example");
    assert_eq!(world.gateway.call(&preflight).await.status, 204);
}

#[tokio::test]
async fn on_this_machine_any_key_will_do_unless_it_was_switched_off() {
    let world = World::start().await;
    assert_eq!(world.gateway.call(&chat("up/m").bearer("anything")).await.status, 200);
    let made = world.gateway.set("POST", "/api/keys", &json!({"name": "k"})).await;
    let (key, id) = (made["key"].as_str().unwrap(), made["id"].as_str().unwrap());
    assert_eq!(world.gateway.call(&chat("up/m").bearer(key)).await.status, 200);
    world.gateway.set("PATCH", &format!("/api/keys/{id}"), &json!({"isActive": false})).await;
    let response = world.gateway.call(&chat("up/m").bearer(key)).await;
    assert_eq!(response.status, 401, "{}", response.text());
    world.gateway.set("PATCH", &format!("/api/keys/{id}"), &json!({"isActive": true})).await;
    assert_eq!(world.gateway.call(&chat("up/m").bearer(key)).await.status, 200);
    world.gateway.set("DELETE", &format!("/api/keys/{id}"), &serde_json::Value::Null).await;
    assert_eq!(world.gateway.call(&chat("up/m").bearer(key)).await.status, 401);
}

#[tokio::test]
async fn limits_of_a_key_hold() {
    let world = World::start().await;
    for (limits, status, code) in [
        (json!({"allowedModels": ["other/*"]}), 403, "model_not_allowed"),
        (json!({"deniedModels": ["up/m"]}), 403, "model_not_allowed"),
        (json!({"allowedEndpoints": ["embeddings"]}), 403, "forbidden"),
        (json!({"ipAllowlist": ["10.0.0.0/8"]}), 403, "forbidden"),
    ] {
        let key = add_key(&world.gateway, limits.clone()).await;
        let response = world.gateway.call(&chat("up/m").bearer(&key)).await;
        assert_eq!(
            (response.status, response.at("/error/code")),
            (status, code.to_owned()),
            "{limits}: {}",
            response.text()
        );
    }
    let key =
        add_key(&world.gateway, json!({"allowedModels": ["up/*"], "ipAllowlist": ["127.0.0.0/8"]})).await;
    assert_eq!(world.gateway.call(&chat("up/m").bearer(&key)).await.status, 200);
    let soon = jiff::Timestamp::now() + Duration::from_millis(700);
    let key = add_key(&world.gateway, json!({"expiresAt": soon.to_string()})).await;
    assert_eq!(world.gateway.call(&chat("up/m").bearer(&key)).await.status, 200);
    let began = std::time::Instant::now();
    while world.gateway.call(&chat("up/m").bearer(&key)).await.status != 401 {
        assert!(began.elapsed() < crate::client::PATIENCE);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let key = add_key(&world.gateway, json!({"maxRequestsPerMinute": 2})).await;
    let mut statuses = Vec::new();
    for _ in 0..4 {
        let response = world.gateway.call(&chat("up/m").bearer(&key)).await;
        if response.status == 429 {
            assert_eq!(response.at("/error/code"), "rate_limit_exceeded");
            let seconds: u64 = response.header("retry-after").unwrap().parse().unwrap();
            assert!((1..=60).contains(&seconds), "{seconds}");
            assert!(response.header("retry-after-ms").is_some());
        }
        statuses.push(response.status);
    }
    assert_eq!(statuses, [200, 200, 429, 429]);
}

#[tokio::test]
async fn counts_of_tokens_are_requests_like_others() {
    let world = World::start().await;
    let count = |model: &str, key: &str| {
        let body = json!({"model": model, "messages": [{"role": "user", "content": "hello"}]});
        Call::post("/v1/messages/count_tokens", body.to_string()).header("x-api-key", key)
    };
    let key = add_key(&world.gateway, json!({"maxRequestsPerMinute": 2, "maxTokensPerMinute": 1})).await;
    for status in [200, 200, 429] {
        let response = world.gateway.call(&count("up/m", &key)).await;
        assert_eq!(response.status, status, "{}", response.text());
    }
    let policy = json!({"name": "no up", "type": "access", "actions": {"block_model": ["up/*"]}});
    world.gateway.set("POST", "/api/policies", &policy).await;
    let key = add_key(&world.gateway, json!({})).await;
    let response = world.gateway.call(&count("up/m", &key)).await;
    assert_eq!((response.status, response.at("/error/type")), (403, "permission_error".to_owned()));
    let google = r#"{"contents":[{"parts":[{"text":"hi"}]}]}"#;
    let call = Call::post("/v1beta/models/up/m:countTokens", google.to_owned()).bearer(&key);
    let response = world.gateway.call(&call).await;
    assert_eq!((response.status, response.at("/error/status")), (403, "PERMISSION_DENIED".to_owned()));
}

#[tokio::test]
async fn a_cooling_account_is_passed_over_also_in_streams() {
    let world = World::start().await;
    let second = add_connection(&world.gateway, &world.node, "second", "sk-second-account-key").await;
    let slow_down = || {
        Answer::json(429, r#"{"error":{"message":"slow down","type":"rate_limit_error"}}"#)
            .header("retry-after", "60")
    };
    world.upstream.answer(slow_down()).answer(Answer::sse(&EVENTS));
    let response = world.gateway.call(&stream("up/m")).await;
    assert_eq!((response.status, response.header("x-omniroute-attempts")), (200, Some("2")));
    assert!(response.text().contains("data: [DONE]"));
    let keys: Vec<_> = world
        .upstream
        .requests()
        .iter()
        .map(|sent| sent.header("authorization").unwrap().to_owned())
        .collect();
    assert_eq!(
        keys,
        [format!("Bearer {}", crate::world::UPSTREAM_KEY), "Bearer sk-second-account-key".to_owned()]
    );
    // While the first cools down, nobody asks it.
    world.upstream.answer(Answer::sse(&EVENTS)).answer(Answer::json(200, COMPLETION));
    for call in [stream("up/m"), chat("up/m")] {
        let response = world.gateway.call(&call).await;
        assert_eq!((response.status, response.header("x-omniroute-attempts")), (200, Some("1")));
    }
    let row = &world.gateway.logged(3).await[0];
    assert_eq!(row["connectionId"], second.as_str());
    // Both are cooling down: said at once, with the time of the earlier one.
    world.upstream.answer(slow_down());
    for call in [chat("up/m"), messages("up/m")] {
        let response = world.gateway.call(&call).await;
        assert_eq!(response.status, 429, "{}", response.text());
        let seconds: u64 = response.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=60).contains(&seconds));
    }
    assert_eq!(world.upstream.requests().len(), 5);
}

#[tokio::test]
async fn the_name_that_was_asked_for_is_echoed() {
    let world = World::start().await;
    world
        .upstream
        .answer(Answer::json(200, COMPLETION))
        .answer(Answer::sse(&EVENTS))
        .answer(Answer::json(200, COMPLETION));
    let response = world.chat("up/my/model").await;
    assert_eq!(response.at("/model"), "up/my/model");
    assert_eq!(response.header("x-omniroute-model"), Some("my/model"));
    assert_eq!(response.header("x-omniroute-provider"), Some(world.node.as_str()));
    let response = world.gateway.call(&stream("up/m")).await;
    let text = response.text();
    assert_eq!(text.matches("\"model\":\"up/m\"").count(), 3, "{text}");
    assert_eq!(response.header("content-type"), Some("text/event-stream; charset=utf-8"));
    assert_eq!(response.header("cache-control"), Some("no-cache, no-transform"));
    assert_eq!(response.header("x-accel-buffering"), Some("no"));
    let response = world.gateway.call(&messages("up/m")).await;
    assert_eq!(response.at("/model"), "up/m");
    let bodies: Vec<_> = world
        .upstream
        .requests()
        .iter()
        .map(|sent| String::from_utf8_lossy(&sent.body).into_owned())
        .collect();
    assert!(
        bodies[0].contains("\"model\":\"my/model\"") && bodies[1].contains("\"model\":\"m\""),
        "{bodies:?}"
    );
    // We always ask for the usage; the client that did not is not told.
    assert!(bodies[1].contains("include_usage") && !text.contains("\"usage\""), "{} {text}", bodies[1]);
}

#[tokio::test]
async fn the_provider_route_pins_the_provider() {
    let world = World::start().await;
    for (provider, model, status, code) in [
        ("up", "m", 200, ""),
        ("up", "up/m", 200, ""),
        ("up", "Qwen/Qwen3", 200, ""),
        (world.node.as_str(), "m", 200, ""),
        ("sim", "echo", 200, ""),
        ("up", "openai/gpt-4o", 400, "provider_mismatch"),
        ("nobody", "m", 400, "unknown_provider"),
    ] {
        let path = format!("/v1/providers/{provider}/chat/completions");
        let body = json!({"model": model, "messages": [{"role": "user", "content": "x"}]});
        let response = world.gateway.call(&Call::post(&path, body.to_string())).await;
        assert_eq!(response.status, status, "{provider} {model}: {}", response.text());
        if status != 200 {
            assert_eq!(response.at("/error/code"), code, "{provider} {model}");
        }
    }
    let sent: Vec<_> = world
        .upstream
        .requests()
        .iter()
        .map(|sent| serde_json::from_slice::<serde_json::Value>(&sent.body).unwrap()["model"].clone())
        .collect();
    assert_eq!(sent, ["m", "m", "Qwen/Qwen3", "m"]);
    let body = json!({"messages": [{"role": "user", "content": "x"}]});
    let response =
        world.gateway.call(&Call::post("/v1/providers/up/chat/completions", body.to_string())).await;
    assert_eq!((response.status, response.at("/error/code")), (400, "missing_required_parameter".to_owned()));
}

#[tokio::test]
async fn failures_of_upstreams_keep_their_meaning() {
    let world = World::start().await;
    for (upstream, body, status, kind, code) in [
        (401, r#"{"error":{"message":"bad key","code":"invalid_api_key"}}"#, 502, "", "upstream_auth_failed"),
        (
            400,
            r#"{"error":{"message":"too long","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}"#,
            400,
            "invalid_request_error",
            "context_length_exceeded",
        ),
        (429, r#"{"error":{"message":"slow down"}}"#, 429, "rate_limit_error", "rate_limit_exceeded"),
        (500, "boom", 500, "", ""),
        (503, r#"{"error":{"message":"busy"}}"#, 503, "", ""),
    ] {
        world.upstream.answer(Answer::json(upstream, body));
        let response = world.chat("up/m").await;
        assert_eq!(response.status, status, "{upstream}: {}", response.text());
        if !kind.is_empty() {
            assert_eq!(response.at("/error/type"), kind, "{upstream}: {}", response.text());
        }
        if !code.is_empty() {
            assert_eq!(response.at("/error/code"), code, "{upstream}: {}", response.text());
        }
        world.recover().await;
    }
    // An account that answers in time after a first that hangs too long would be another subject; a slow one is just slow.
    world.upstream.answer(Answer::json(200, COMPLETION).after(Duration::from_millis(300)));
    assert_eq!(world.chat("up/m").await.status, 200);
}
