//! Entries of combos that are asked whether they answer.

use serde_json::{Value, json};

use super::{make, with_provider};
use crate::app::TestApp;

#[tokio::test]
async fn every_entry_of_a_combo_is_tested_and_nothing_is_held_against_it() {
    let app = with_provider().await;
    make(
        &app,
        json!({"name":"both","models":["openai/gpt-5.6","openai/gpt-5.4-mini","deepseek/deepseek-chat"]}),
    )
    .await;
    app.upstream.answer(500, r#"{"error":{"message":"broken"}}"#);
    app.upstream.answer(
        200,
        r#"{"id":"x","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}]}"#,
    );
    let tested = app.post("/api/combos/test", json!({"comboName":"both"})).await.expect(200).json();
    let statuses: Vec<_> =
        tested["results"].as_array().expect("list").iter().map(|row| &row["status"]).collect();
    assert_eq!(statuses, ["error", "ok", "skipped"], "{tested}");
    assert_eq!(tested["resolvedBy"], "openai/gpt-5.4-mini");
    let snapshot = app.live.load().clone();
    let connection = &snapshot.combo("both").expect("there").targets(&snapshot)[0].provider.connections[0];
    assert!(connection.health.check("gpt-5.6", 0).is_ok(), "a test leaves no lock");
    app.post("/api/combos/test", json!({"comboName":"nobody"})).await.expect(404);
    app.post("/api/combos/test", json!({"comboName":"both","message":" "})).await.expect(400);
    assert_eq!(tested["results"][1]["responseText"], "hi");
    assert_eq!(questions(&app), ["Reply with the one word: ready"; 2]);
}

/// What models were asked.
fn questions(app: &TestApp) -> Vec<String> {
    let bodies = app.upstream.bodies.lock().expect("lock");
    let asked = bodies.iter().map(|body| serde_json::from_slice::<Value>(body).expect("JSON"));
    asked.map(|body| body["messages"][0]["content"].as_str().expect("text").to_owned()).collect()
}

#[tokio::test]
async fn entries_are_tested_whatever_their_conditions_and_with_the_operators_words() {
    let app = with_provider().await;
    let night = json!({"model":"openai/gpt-5.4-mini","when":{"hasTools":true}});
    let made = make(&app, json!({"name":"night","models":["openai/gpt-5.6", night]})).await;
    for text in ["one", "two"] {
        app.upstream.answer(
            200,
            &format!(r#"{{"id":"x","object":"chat.completion","created":1,"model":"m","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}"}},"finish_reason":"stop"}}]}}"#),
        );
    }
    let question = json!({"comboName":"night","message":"are you there?"});
    let tested = app.post("/api/combos/test", question.clone()).await.expect(200).json();
    let shown: Vec<_> = tested["results"]
        .as_array()
        .expect("list")
        .iter()
        .map(|row| (row["status"].as_str(), row["responseText"].as_str(), row["leftOut"].is_string()))
        .collect();
    assert_eq!(shown, [(Some("ok"), Some("one"), false), (Some("ok"), Some("two"), true)], "{tested}");
    assert_eq!(questions(&app), ["are you there?"; 2]);
    app.patch(&format!("/api/combos/{}", made["id"].as_str().expect("id")), json!({"isActive":false}))
        .await
        .expect(200);
    let off = app.post("/api/combos/test", question).await.expect(409).json();
    assert!(off.to_string().contains("switched off"), "{off}");
}

#[tokio::test]
async fn the_account_that_is_tested_is_one_that_traffic_would_go_to() {
    let app = TestApp::new().await;
    let account = async |name: &str, more: Value| {
        let mut body = json!({"provider":"openai","name":name,"apiKey":format!("sk-{name}-1234567890")});
        body.as_object_mut().expect("object").extend(more.as_object().expect("object").clone());
        app.post("/api/providers", body).await.expect(201).json()["connection"]["id"]
            .as_str()
            .expect("id")
            .to_owned()
    };
    account("closed", json!({"tags":["eu"],"providerSpecificData":{"excludedModels":["gpt-5.6"]}})).await;
    account("untagged", json!({})).await;
    let eu = account("eu", json!({"tags":["eu"]})).await;
    let chat = r#"{"id":"x","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}]}"#;
    let night = json!({"model":"openai/gpt-5.4-mini","connectionId":eu,"when":{"hasTools":true}});
    let inner = json!({"name":"inner","models":["openai/gpt-5.6"],"requiredTags":["eu"]});
    make(&app, inner).await;
    let within = json!({"comboName":"inner","when":{"hasImages":true}});
    make(&app, json!({"name":"best","models":["inner", night, within]})).await;
    (0..3).for_each(|_| app.upstream.answer(200, chat));
    let test = async |name: &str| {
        app.post("/api/combos/test", json!({"comboName":name})).await.expect(200).json()["results"].clone()
    };
    let results = test("best").await;
    let told: Vec<_> = results
        .as_array()
        .expect("list")
        .iter()
        .map(|it| (it["status"].as_str(), it["connectionId"].as_str(), it["leftOut"].is_string()))
        .collect();
    let ok = |left_out| (Some("ok"), Some(&*eu), left_out);
    assert_eq!(told, [ok(false), ok(true), ok(true)], "{results}");

    // A model that is served in one dialect alone is asked in that.
    make(&app, json!({"name":"pro","models":["openai/gpt-5.4-pro"]})).await;
    app.upstream.answer(
        200,
        r#"{"id":"resp_1","object":"response","created_at":1,"status":"completed","model":"m","output":[{"type":"message","id":"msg_1","role":"assistant","status":"completed","content":[{"type":"output_text","text":"hi","annotations":[]}]}]}"#,
    );
    let results = test("pro").await;
    assert_eq!(
        (&results[0]["status"], &results[0]["responseText"]),
        (&json!("ok"), &json!("hi")),
        "{results}"
    );
    assert!(app.upstream.urls().last().expect("asked").ends_with("/responses"), "{:?}", app.upstream.urls());

    // Who is closed for the moment is asked after those that are open, and who is closed for good not at all.
    make(&app, json!({"name":"us","models":["openai/gpt-5.6"],"requiredTags":["us"]})).await;
    let results = test("us").await;
    assert!(results[0]["error"].as_str().expect("told").contains("requiredTags"), "{results}");
    assert_eq!((&results[0]["connectionId"], app.upstream.urls().len()), (&Value::Null, 4));
}
