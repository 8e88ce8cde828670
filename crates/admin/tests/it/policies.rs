//! What the operator forbids, limits or prefers.

use omniroute_domain::entity::{Policy, PolicyActions, PolicyConditions, PolicyKind, PolicyMode};
use serde_json::{Value, json};

use crate::app::TestApp;

async fn make(app: &TestApp, body: Value) -> Value {
    app.post("/api/policies", body).await.expect(201).json()["policy"].clone()
}

fn night() -> Value {
    json!({
        "name": "no giants at night", "type": "access", "priority": 10,
        "conditions": {"hour_range": "20:00-06:00"}, "actions": {"block_model": ["*opus*"]},
    })
}

#[tokio::test]
async fn a_policy_is_made_changed_listed_and_deleted() {
    let app = TestApp::new().await;
    let made = make(&app, night()).await;
    assert_eq!(
        (&made["type"], &made["enabled"], &made["priority"]),
        (&json!("access"), &json!(true), &json!(10))
    );
    let id = made["id"].as_str().expect("id").to_owned();
    let usual =
        make(&app, json!({"name": "eu", "type": "routing", "actions": {"prefer_provider": ["mistral"]}}))
            .await;
    assert_eq!(usual["priority"], 100);

    // What is not sent stays; conditions and actions are replaced whole.
    let path = format!("/api/policies?id={id}");
    let changed =
        app.put(&path, json!({"enabled": false, "conditions": {"endpoint": "chat"}})).await.expect(200);
    let changed = changed.json()["policy"].clone();
    assert_eq!((&changed["name"], &changed["enabled"]), (&made["name"], &json!(false)));
    assert_eq!(
        (&changed["conditions"], &changed["actions"]),
        (&json!({"endpoint": "chat"}), &json!({"block_model": ["*opus*"]}))
    );
    let listed = app.get("/api/policies").await.expect(200).json();
    assert_eq!(listed["policies"].as_array().map(Vec::len), Some(2));
    assert_eq!((&listed["lockedIdentifiers"], &listed["circuitBreakers"]), (&json!([]), &json!([])));
    app.delete(&path).await.expect(200);
    app.delete(&path).await.expect(404);
    app.put(&path, json!({"enabled": true})).await.expect(404);
    assert_eq!(app.get("/api/policies").await.json()["policies"].as_array().map(Vec::len), Some(1));
    let audit = app.store.audit();
    for action in ["policy.created", "policy.updated", "policy.deleted"] {
        let query =
            omniroute_store::AuditQuery { action: Some(action.into()), limit: 9, ..Default::default() };
        assert!(audit.list(&query).await.expect("reads").1 > 0, "{action}");
    }
}

#[tokio::test]
async fn a_policy_may_only_observe_until_it_is_trusted() {
    let app = TestApp::new().await;
    let mut body = json!({"name": "no giants", "type": "access", "mode": "observe", "actions": {"block_model": ["*opus*"]}});
    let made = make(&app, body.clone()).await;
    assert_eq!(made["mode"], "observe");
    let ask = async || {
        let body = json!({"model": "anthropic/claude-opus-5-5"});
        app.post("/api/policies/evaluate", body).await.expect(200).json()
    };
    let told = ask().await;
    assert_eq!((&told["allowed"], &told["appliedPolicies"]), (&json!(true), &json!([])));
    assert_eq!(told["observed"][0]["policy"], "no giants");
    let effect = told["observed"][0]["effect"].as_str().expect("text");
    assert!(effect.starts_with("would have been denied: "), "{effect}");
    // Then it is carried out, and stays so when something else of it is changed.
    let path = format!("/api/policies?id={}", made["id"].as_str().expect("id"));
    app.put(&path, json!({"mode": "enforce"})).await.expect(200);
    let changed = app.put(&path, json!({"priority": 7})).await.expect(200).json();
    assert_eq!(changed["policy"]["mode"], "enforce");
    let told = ask().await;
    assert_eq!((&told["allowed"], &told["observed"]), (&json!(false), &json!([])));
    body["mode"] = json!("guess");
    assert_eq!(app.post("/api/policies", body).await.expect(400).fields(), ["mode"]);
}

#[tokio::test]
async fn wrong_policies_say_what_is_wrong() {
    let app = TestApp::new().await;
    for (member, value, field) in [
        ("name", json!(""), "name"),
        ("type", json!("other"), "type"),
        ("priority", json!(9_000_000), "priority"),
        ("conditions", json!({"hour_range": "25:00-26:00"}), "conditions.hour_range"),
        ("conditions", json!({"endpoint": ""}), "conditions.endpoint"),
        ("actions", json!({}), "actions"),
        ("actions", json!({"prefer_provider": ["openai"]}), "actions"),
        ("actions", json!({"block_model": ["x"], "max_cost_usd": -1}), "actions.max_cost_usd"),
        ("actions", json!({"block_model": ["x"], "max_tokens": 0}), "actions.max_tokens"),
    ] {
        let mut body = night();
        body[member] = value;
        let fields = app.post("/api/policies", body.clone()).await.expect(400).fields();
        assert!(fields.contains(&field.to_owned()), "{body}: {fields:?}");
    }
    for (condition, value, told) in [
        ("endpoint", "chats", "there are chat, embeddings, models"),
        ("api_key_id", "nobody", "GET /api/keys"),
    ] {
        let mut body = night();
        body["conditions"] = json!({condition: value});
        let refused = app.post("/api/policies", body).await.expect(400);
        assert_eq!(refused.fields(), [format!("conditions.{condition}")], "it would be for nobody");
        assert!(refused.body.contains(value) && refused.body.contains(told), "{}", refused.body);
    }
    let question = json!({"model": "sim/lorem", "endpoint": "chats"});
    assert_eq!(app.post("/api/policies/evaluate", question).await.expect(400).fields(), ["endpoint"]);
    let mut unknown = night();
    unknown["conditions"] = json!({"model": "x"});
    let refused = app.post("/api/policies", unknown).await.expect(400);
    assert_eq!(refused.fields(), ["conditions.model"], "without it the policy would be for every request");
    assert!(refused.body.contains("model_pattern"), "{}", refused.body);
    assert_eq!(app.post("/api/policies", json!({})).await.expect(400).fields(), ["name", "type"]);
    assert_eq!(
        app.post("/api/policies", json!({"action": "unlock"})).await.expect(400).fields(),
        ["identifier"]
    );
    assert_eq!(app.get("/api/policies").await.json()["policies"], json!([]), "none of it was kept");
}

#[tokio::test]
async fn what_a_policy_named_before_may_stay() {
    let app = TestApp::new().await;
    let gone = PolicyConditions { api_key_id: Some("gone".into()), ..PolicyConditions::default() };
    let policy = Policy {
        id: "p1".into(),
        name: "of a key that is gone".into(),
        kind: PolicyKind::Access,
        enabled: true,
        mode: PolicyMode::Enforce,
        priority: 1,
        conditions: gone,
        actions: PolicyActions { block_model: vec!["x".into()], ..PolicyActions::default() },
        created_at: 0,
        updated_at: 0,
    };
    app.store.policies().insert(&policy, 9).await.expect("stored");
    let of = |key: &str| json!({"conditions": {"api_key_id": key, "endpoint": "chat"}});
    let changed = app.put("/api/policies?id=p1", of("gone")).await.expect(200).json();
    assert_eq!(changed["policy"]["conditions"]["endpoint"], "chat");
    assert_eq!(
        app.put("/api/policies?id=p1", of("other")).await.expect(400).fields(),
        ["conditions.api_key_id"]
    );
}

#[tokio::test]
async fn what_policies_would_say_can_be_asked() {
    let app = TestApp::new().await;
    let key = app.post("/api/keys", json!({"name": "dev"})).await.expect(201).json()["id"].clone();
    make(&app, json!({"name": "blocked", "type": "access", "actions": {"block_model": ["sim/lorem"]}})).await;
    make(
        &app,
        json!({"name": "short", "type": "budget", "conditions": {"api_key_id": key}, "actions": {"max_tokens": 50}}),
    )
    .await;
    let ask = async |body: Value| app.post("/api/policies/evaluate", body).await.expect(200).json();
    let refused = ask(json!({"model": "sim/lorem"})).await;
    assert_eq!((&refused["allowed"], &refused["phase"]), (&json!(false), &json!("access")));
    assert_eq!(refused["appliedPolicies"], json!(["blocked"]));
    assert!(
        refused["reason"].as_str().is_some_and(|reason| reason.contains("blocked by policy")),
        "{refused}"
    );
    let allowed = ask(json!({"model": "sim/echo", "apiKeyId": key})).await;
    assert_eq!(
        (&allowed["allowed"], &allowed["maxTokens"], &allowed["phase"]),
        (&json!(true), &json!(50), &json!("passed"))
    );
    assert_eq!(ask(json!({"model": "sim/echo"})).await["maxTokens"], Value::Null, "it is for one key");
    let nobody = json!({"model": "sim/echo", "apiKeyId": "nobody"});
    assert_eq!(app.post("/api/policies/evaluate", nobody).await.expect(400).fields(), ["apiKeyId"]);
    // Of a combo every target is judged.
    app.post("/api/combos", json!({"name": "both", "models": ["sim/lorem", "sim/echo"]})).await.expect(201);
    let combo = ask(json!({"model": "both"})).await;
    let told = |row: &Value| (row["model"].clone(), row["allowed"].clone());
    assert_eq!(combo["allowed"], json!(true));
    let targets: Vec<_> = combo["targets"].as_array().expect("list").iter().map(told).collect();
    assert_eq!(targets, [(json!("sim/lorem"), json!(false)), (json!("sim/echo"), json!(true))]);
}

#[tokio::test]
async fn limits_of_cost_are_judged_where_tokens_are_given() {
    let app = TestApp::new().await;
    app.post("/api/providers", json!({"provider": "openai", "name": "work", "apiKey": "sk-1"}))
        .await
        .expect(201);
    let cheap = json!({"name": "cheap", "type": "budget", "actions": {"max_cost_usd": 0.01}});
    make(&app, cheap).await;
    let ask = async |tokens: Value| {
        let mut body = json!({"model": "openai/gpt-4o"});
        body.as_object_mut().expect("object").extend(tokens.as_object().expect("object").clone());
        app.post("/api/policies/evaluate", body).await.expect(200).json()
    };
    let dear = ask(json!({"inputTokens": 100_000, "outputTokens": 100})).await;
    assert_eq!((&dear["allowed"], &dear["phase"]), (&json!(false), &json!("budget")), "{dear}");
    for tokens in
        [json!({}), json!({"inputTokens": 100_000}), json!({"inputTokens": 100, "outputTokens": 10})]
    {
        assert_eq!(ask(tokens.clone()).await["allowed"], true, "{tokens}");
    }
}

#[tokio::test]
async fn policies_are_in_force_at_once_and_show_breakers() {
    let app = TestApp::new().await;
    make(&app, json!({"name": "blocked", "type": "access", "actions": {"block_model": ["sim/lorem"]}})).await;
    assert!(!app.live.load().policies.is_empty());
    let body = json!({"provider": "openai", "name": "work", "apiKey": "sk-1"});
    app.post("/api/providers", body).await.expect(201);
    let listed = app.get("/api/policies").await.expect(200).json();
    let breaker = &listed["circuitBreakers"][0];
    assert_eq!((&breaker["provider"], &breaker["state"]), (&json!("openai"), &json!("CLOSED")), "{listed}");
}

#[tokio::test]
async fn what_is_no_action_is_told() {
    let app = TestApp::new().await;
    let mut body = night();
    body["actions"]["blok_model"] = json!(["x"]);
    let answer = app.post("/api/policies", body).await.expect(201);
    assert_eq!(answer.header("x-ignored-fields").as_deref(), Some("actions.blok_model"));
    let mut nothing = night();
    nothing["actions"] = json!({"blok_model": ["x"]});
    let refused = app.post("/api/policies", nothing).await.expect(400);
    assert_eq!(refused.fields(), ["actions"], "nothing is left of it");
    assert_eq!(refused.header("x-ignored-fields").as_deref(), Some("actions.blok_model"));
}

#[tokio::test]
async fn a_key_that_is_rotated_does_not_bring_policies_beyond_their_number() {
    let app = TestApp::new().await;
    let key = app.post("/api/keys", json!({"name": "dev"})).await.expect(201).json()["id"].clone();
    let rotate = format!("/api/keys/{}/rotate", key.as_str().expect("id"));
    let short = |name: String| json!({"name": name, "type": "budget", "conditions": {"api_key_id": key}, "actions": {"max_tokens": 50}});
    let made = make(&app, short("0".into())).await;
    let mut policy = app.store.policies().list().await.expect("read").remove(0);
    let most = omniroute_domain::entity::MAX_POLICIES;
    for number in 1..most {
        policy.id = format!("p{number}");
        app.store.policies().insert(&policy, most).await.expect("room");
    }
    let refused = app.post(&rotate, json!({"graceSeconds": 60})).await.expect(409);
    assert!(refused.body.contains("graceSeconds"), "{}", refused.body);
    assert_eq!(app.get("/api/keys").await.json()["total"], 1, "no key was made");
    app.post(&rotate, json!({})).await.expect(201);
    let policies = app.store.policies().list().await.expect("read");
    assert_eq!(policies.len(), most);
    let id = made["id"].as_str().expect("id");
    let moved = policies.iter().find(|policy| policy.id == id).expect("there");
    assert_ne!(moved.conditions.api_key_id.as_deref(), key.as_str());
}
