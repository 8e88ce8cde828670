//! Tests of connections against a scripted upstream.

use serde_json::{Value, json};

use crate::app::TestApp;

const MODELS: &str = r#"{"object":"list","data":[{"id":"gpt-4o","owned_by":"openai"},{"id":"gpt-4o-mini"}]}"#;

async fn connection(app: &TestApp) -> String {
    let body = json!({"provider":"openai","name":"work","apiKey":"sk-work-1234567890"});
    let row = app.post("/api/providers", body).await.expect(201).json();
    format!("/api/providers/{}", row["connection"]["id"].as_str().expect("id"))
}

#[tokio::test]
async fn outcomes_and_what_they_mean() {
    for (status, body, valid, diagnosis, test_status) in [
        (200, MODELS, true, "ok", "active"),
        (
            401,
            r#"{"error":{"message":"Incorrect API key","code":"invalid_api_key"}}"#,
            false,
            "upstream_auth_error",
            "error",
        ),
        (429, r#"{"error":{"message":"Rate limit reached"}}"#, true, "upstream_rate_limited", "active"),
        (503, "<html>down</html>", false, "upstream_unavailable", "unavailable"),
        (0, "", false, "network_error", "unavailable"),
    ] {
        let app = TestApp::new().await;
        let path = connection(&app).await;
        if status > 0 {
            app.upstream.answer(status, body);
        }
        let result = app.post(&format!("{path}/test"), json!({})).await.expect(200).json();
        assert_eq!(result["valid"], valid, "{status}: {result}");
        assert_eq!(result["diagnosis"]["type"], diagnosis, "{status}: {result}");
        assert_eq!(result["error"].is_null(), valid, "{status}: {result}");
        assert_eq!(result["warning"].is_string(), valid && status != 200, "{status}: {result}");
        let row = app.get(&path).await.json()["connection"].clone();
        assert_eq!(row["testStatus"], test_status, "{status}");
        assert!(row["lastTested"].is_string());
        assert_eq!(row["errorCode"], if status == 200 || status == 0 { Value::Null } else { json!(status) });
        let logged = app.rows.0.lock().expect("lock");
        let expected = if status == 0 { 502 } else { status };
        assert_eq!((logged[0].status, &*logged[0].model), (expected, "connection-test"), "{status}");
    }
}

#[tokio::test]
async fn a_chat_is_tried_where_no_list_is() {
    let app = TestApp::new().await;
    let path = connection(&app).await;
    app.upstream.answer(404, "{}");
    app.upstream.answer(200, r#"{"id":"x","choices":[]}"#);
    let result = app.post(&format!("{path}/test"), json!({})).await.expect(200).json();
    assert_eq!(result["valid"], true, "{result}");
    let urls = app.upstream.urls();
    assert_eq!(urls.len(), 2, "{urls:?}");
    assert!(urls[0].starts_with("GET ") && urls[0].ends_with("/models"), "{urls:?}");
    assert!(urls[1].starts_with("POST ") && urls[1].ends_with("/chat/completions"), "{urls:?}");
    // A named model is asked at once.
    app.upstream.answer(200, r#"{"id":"x","choices":[]}"#);
    app.post(&format!("{path}/test"), json!({"model":"gpt-4o"})).await.expect(200);
    assert_eq!(app.upstream.urls().len(), 3);
    // One that is served in one dialect only, in that one.
    let only = json!({"provider":"openai","modelId":"deep","apiFormat":"responses"});
    app.post("/api/provider-models", only).await.expect(200);
    app.upstream.answer(200, r#"{"id":"x","object":"response","status":"completed","output":[]}"#);
    app.post(&format!("{path}/test"), json!({"model":"deep"})).await.expect(200);
    assert!(app.upstream.urls()[3].ends_with("/responses"), "{:?}", app.upstream.urls());
    // And where there is no such endpoint, not at all, as with clients' requests.
    let body = json!({"provider":"mistral","name":"other","apiKey":"sk-work-1234567890"});
    let row = app.post("/api/providers", body).await.expect(201).json();
    let only = json!({"provider":"mistral","modelId":"deep","apiFormat":"responses"});
    app.post("/api/provider-models", only).await.expect(200);
    let path = format!("/api/providers/{}/test", row["connection"]["id"].as_str().expect("id"));
    let result = app.post(&path, json!({"model":"deep"})).await.expect(200).json();
    assert_eq!(
        (&result["valid"], &result["diagnosis"]["type"]),
        (&json!(false), &json!("unsupported")),
        "{result}"
    );
    assert_eq!(app.upstream.urls().len(), 4);
}

#[tokio::test]
async fn accounts_that_are_not_there_for_chat_are_asked_what_they_can_be_asked() {
    for (provider, header, value, called) in [
        (
            "deepgram",
            "authorization",
            "Token sk-media-1234567890",
            "GET https://api.deepgram.com/v1/projects",
        ),
        (
            "assemblyai",
            "authorization",
            "sk-media-1234567890",
            "GET https://api.assemblyai.com/v2/transcript?limit=1",
        ),
        (
            "recraft",
            "authorization",
            "Bearer sk-media-1234567890",
            "GET https://external.api.recraft.ai/v1/users/me",
        ),
        (
            "voyage",
            "authorization",
            "Bearer sk-media-1234567890",
            "POST https://api.voyageai.com/v1/embeddings",
        ),
    ] {
        let app = TestApp::new().await;
        let body = json!({"provider":provider,"name":"media","apiKey":"sk-media-1234567890"});
        let row = app.post("/api/providers", body).await.expect(201).json();
        let path = format!("/api/providers/{}", row["connection"]["id"].as_str().expect("id"));
        for (status, answer, valid, diagnosis) in [
            (200, "{}", true, "ok"),
            (
                401,
                r#"{"error":"Authentication error, API token missing/invalid"}"#,
                false,
                "upstream_auth_error",
            ),
            (429, r#"{"error":"Too many requests"}"#, true, "upstream_rate_limited"),
        ] {
            app.upstream.answer(status, answer);
            let result = app.post(&format!("{path}/test"), json!({})).await.expect(200).json();
            assert_eq!(
                (&result["valid"], &result["diagnosis"]["type"]),
                (&json!(valid), &json!(diagnosis)),
                "{result}"
            );
            assert_eq!(result["statusCode"], status);
        }
        assert_eq!(app.upstream.urls(), [called; 3]);
        let sent = app.upstream.asked.lock().expect("lock")[0].1.clone();
        assert_eq!(sent[header], value);
        let row = app.get(&path).await.json()["connection"].clone();
        assert!(row["lastTested"].is_string(), "{row}");
        assert_eq!(app.rows.0.lock().expect("lock").len(), 3, "tests are in the log");

        app.upstream.answer(200, "{}");
        let body = json!({"provider":provider,"apiKey":"sk-media-1234567890"});
        let result = app.post("/api/providers/validate", body).await.expect(200).json();
        assert_eq!(
            (&result["valid"], &result["method"]),
            (&json!(true), &json!("service_probe")),
            "{result}"
        );
    }
    // A model that costs more than a word is not asked, and that is said.
    let app = TestApp::new().await;
    let body = json!({"provider":"deepgram","name":"media","apiKey":"sk-media-1234567890"});
    let row = app.post("/api/providers", body).await.expect(201).json();
    let path = format!("/api/providers/{}/test", row["connection"]["id"].as_str().expect("id"));
    let result = app.post(&path, json!({"model":"nova-3"})).await.expect(200).json();
    assert_eq!(
        (&result["valid"], &result["diagnosis"]["type"]),
        (&json!(false), &json!("unsupported")),
        "{result}"
    );
    assert!(result["error"].as_str().is_some_and(|error| error.contains("leave `model` out")), "{result}");
    assert!(app.upstream.urls().is_empty());
}

#[tokio::test]
async fn lists_of_models_are_kept_for_a_while() {
    let app = TestApp::new().await;
    let path = format!("{}/models", connection(&app).await);
    app.upstream.answer(200, MODELS);
    for source in ["api", "cache"] {
        let list = app.get(&path).await.expect(200).json();
        assert_eq!((&list["source"], &list["models"][0]["id"]), (&json!(source), &json!("gpt-4o")));
    }
    app.upstream.answer(200, r#"{"data":[{"id":"new"}]}"#);
    let list = app.get(&format!("{path}?refresh=true")).await.expect(200).json();
    assert_eq!((&list["source"], &list["models"][0]["id"]), (&json!("api"), &json!("new")));
    app.pass(std::time::Duration::from_secs(601));
    let list = app.get(&path).await.expect(200).json();
    assert_eq!(list["source"], "local_catalog");
    assert!(list["warning"].as_str().is_some_and(|warning| warning.contains("refused")), "{list}");
    assert!(list["models"].as_array().is_some_and(|models| models.len() > 5));
}

#[tokio::test]
async fn keys_are_checked_before_they_are_saved() {
    let app = TestApp::new().await;
    let body = json!({"provider":"openai","apiKey":"sk-some-1234567890"});
    app.upstream.answer(200, MODELS);
    let result = app.post("/api/providers/validate", body.clone()).await.expect(200).json();
    assert_eq!(result, json!({"valid":true,"error":null,"warning":null,"method":"models_endpoint"}));
    let sent = app.upstream.asked.lock().expect("lock")[0].1.clone();
    assert_eq!(sent["authorization"], "Bearer sk-some-1234567890");
    app.upstream.answer(401, "{}");
    let result = app.post("/api/providers/validate", body).await.expect(200).json();
    assert_eq!((&result["valid"], &result["error"]), (&json!(false), &json!("Invalid API key")));
    let blocked = json!({"provider":"openai","apiKey":"k","baseUrl":"http://10.0.0.1/v1"});
    assert_eq!(app.post("/api/providers/validate", blocked).await.expect(400).code(), "URL_BLOCKED");
    assert!(app.get("/api/providers").await.json()["connections"].as_array().is_some_and(Vec::is_empty));
}

#[tokio::test]
async fn a_node_is_checked_and_the_missing_version_found() {
    let app = TestApp::new().await;
    app.upstream.answer(404, "not here");
    app.upstream.answer(200, MODELS);
    let body = json!({"baseUrl":"http://127.0.0.1:8080","allowPrivate":true});
    let result = app.post("/api/provider-nodes/validate", body).await.expect(200).json();
    assert_eq!(result["valid"], false);
    assert!(
        result["error"].as_str().is_some_and(|error| error.contains("http://127.0.0.1:8080/v1")),
        "{result}"
    );
    app.upstream.answer(200, MODELS);
    let body = json!({"baseUrl":"http://127.0.0.1:8080/v1","allowPrivate":true});
    let result = app.post("/api/provider-nodes/validate", body).await.expect(200).json();
    assert_eq!(result, json!({"valid":true,"error":null,"method":"models_endpoint","models":2}));
}

#[tokio::test]
async fn several_at_once() {
    let app = TestApp::new().await;
    connection(&app).await;
    let other = json!({"provider":"groq","name":"other","apiKey":"gsk-1234567890"});
    app.post("/api/providers", other).await.expect(201);
    app.upstream.answer(200, MODELS);
    app.upstream.answer(200, MODELS);
    let result = app.post("/api/providers/test-batch", json!({"mode":"all"})).await.expect(200).json();
    assert_eq!(result["summary"], json!({"total":2,"passed":2,"failed":0}));
    app.upstream.answer(200, MODELS);
    let one = json!({"mode":"provider","providerId":"groq"});
    let result = app.post("/api/providers/test-batch", one).await.expect(200).json();
    assert_eq!(result["results"][0]["provider"], "groq");
    assert_eq!(
        app.post("/api/providers/test-batch", json!({"mode":"provider"})).await.expect(400).fields(),
        ["providerId"]
    );
}

#[tokio::test]
async fn an_endless_answer_is_cut() {
    let app = TestApp::new().await;
    let path = connection(&app).await;
    app.upstream.answer(200, &"x".repeat(2 << 20));
    let result = app.post(&format!("{path}/test"), json!({})).await.expect(200).json();
    assert_eq!(result["valid"], false);
}
