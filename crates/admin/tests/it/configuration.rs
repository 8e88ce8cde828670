//! Connections, nodes, models, keys and settings: what is written is in force at once, and what is wrong is told.

use std::time::Duration;

use http::Method;
use omniroute_domain::entity::{ConnectionId, KeyHash};
use serde_json::{Value, json};

use omniroute_admin::AdminSettings;
use omniroute_store::ConnectionFilter;

use crate::app::{TestApp, settings};

fn id_of(value: &Value) -> String {
    value["id"].as_str().expect("id").to_owned()
}

async fn add(app: &TestApp, body: Value) -> Value {
    app.post("/api/providers", body).await.expect(201).json()["connection"].clone()
}

#[tokio::test]
async fn a_connection_from_its_beginning_to_its_end() {
    let app = TestApp::new().await;
    let row = add(&app, json!({"provider":"openai","name":"work","apiKey":"sk-work-1234567890"})).await;
    assert_eq!(row["maskedKey"], "sk-w****7890");
    assert_eq!(row["hasApiKey"], true);
    assert_eq!(row["priority"], 1);
    assert_eq!(row["testStatus"], "unknown");
    let id = ConnectionId::from(id_of(&row));
    assert!(app.live.load().connection(&id).is_some(), "in force before the answer");

    let path = format!("/api/providers/{id}");
    let second = add(&app, json!({"provider":"openai","name":"home","apiKey":"sk-home-1234567890"})).await;
    assert_eq!(second["priority"], 2);
    let patch = json!({"name":"office","tags":["a"],"maxConcurrent":4,"defaultModel":"gpt-4o","priority":2});
    let changed = app.patch(&path, patch).await.expect(200).json()["connection"].clone();
    assert_eq!((&changed["name"], &changed["priority"]), (&json!("office"), &json!(2)));
    assert_eq!(changed["maxConcurrent"], 4);
    let cleared = app.patch(&path, json!({"maxConcurrent":null})).await.expect(200).json();
    assert_eq!(cleared["connection"]["maxConcurrent"], Value::Null, "null clears");
    assert_eq!(cleared["connection"]["defaultModel"], "gpt-4o", "absent leaves");
    let list = app.get("/api/providers?provider=openai").await.expect(200).json();
    let names: Vec<_> =
        list["connections"].as_array().expect("list").iter().map(|row| row["name"].clone()).collect();
    assert_eq!(names, ["home", "office"]);
    app.patch(&path, json!({"isActive":false})).await.expect(200);
    assert!(app.live.load().connection(&id).is_none());
    assert_eq!(
        app.get("/api/providers?active=true").await.json()["connections"].as_array().map(Vec::len),
        Some(1)
    );
    assert_eq!(app.delete(&path).await.expect(200).json()["message"], "Connection deleted");
    app.delete(&path).await.expect(404);
    app.get(&path).await.expect(404);
}

#[tokio::test]
async fn connections_of_the_environment_are_used_but_not_changed() {
    let app = TestApp::new().await;
    add(&app, json!({"provider":"openai","name":"work","apiKey":"sk-work-1234567890"})).await;
    let mut row = app.store.connections().list(&ConnectionFilter::default()).await.expect("rows").remove(0);
    (row.id, row.provider, row.name) = ("env:groq".into(), "groq".into(), "GROQ_API_KEY".into());
    row.api_key = Some("gsk-of-the-environment".to_owned().into());
    let app = TestApp::with(AdminSettings { environment: [row].into(), ..settings() }).await;
    add(&app, json!({"provider":"openai","name":"work","apiKey":"sk-work-1234567890"})).await;
    assert!(app.live.load().connection(&"env:groq".into()).is_some(), "in force");

    let list = app.get("/api/providers").await.expect(200);
    assert!(!list.body.contains("gsk-of-the"), "{}", list.body);
    let list = list.json();
    let names: Vec<_> = list["connections"].as_array().expect("list").iter().map(|row| &row["id"]).collect();
    assert_eq!((names.len(), names[0]), (2, &json!("env:groq")));
    let path = "/api/providers/env:groq";
    assert_eq!(app.get(path).await.expect(200).json()["connection"]["name"], "GROQ_API_KEY");
    for answer in [app.patch(path, json!({"isActive":false})).await, app.delete(path).await] {
        let answer = answer.expect(409);
        assert!(answer.body.contains("GROQ_API_KEY"), "{}", answer.body);
        assert_eq!(answer.code(), "CONFLICT");
    }
    app.upstream.answer(200, r#"{"data":[{"id":"m"}]}"#);
    let tested = app.post(&format!("{path}/test"), json!({})).await.expect(200).json();
    assert_eq!(tested["valid"], true, "{tested}");
    let catalog = app.get("/api/providers/catalog").await.expect(200).json();
    let groq = catalog["providers"].as_array().expect("list").iter().find(|entry| entry["id"] == "groq");
    assert_eq!(groq.expect("there")["configured"], 1);
}

#[tokio::test]
async fn wrong_connections_are_refused_with_the_member() {
    let app = TestApp::new().await;
    add(&app, json!({"provider":"openai","name":"work","apiKey":"sk-work-1234567890"})).await;
    for (body, status, code, field) in [
        (json!({"provider":"nobody","name":"a","apiKey":"k"}), 400, "VALIDATION", "provider"),
        (json!({"name":"a","apiKey":"k"}), 400, "VALIDATION", "provider"),
        (json!({"provider":"sim","name":"a"}), 400, "VALIDATION", "provider"),
        (json!({"provider":"openai","apiKey":"k"}), 400, "VALIDATION", "name"),
        (json!({"provider":"openai","name":"a"}), 400, "VALIDATION", "apiKey"),
        (json!({"provider":"openai","name":"a","apiKey":"two words"}), 400, "VALIDATION", "apiKey"),
        (json!({"provider":"openai","name":"a","apiKey":"k","priority":0}), 400, "VALIDATION", "priority"),
        (
            json!({"provider":"openai","name":"a","apiKey":"k","providerSpecificData":{"baseUrl":7}}),
            400,
            "VALIDATION",
            "providerSpecificData.baseUrl",
        ),
        (
            json!({"provider":"openai","name":"a","apiKey":"k","providerSpecificData":{"baseUrl":"http://10.0.0.1/v1"}}),
            400,
            "URL_BLOCKED",
            "providerSpecificData.baseUrl",
        ),
        (
            json!({"provider":"openai","name":"a","apiKey":"k",
                "providerSpecificData":{"baseUrl":"http://169.254.169.254/v1","allowPrivate":true}}),
            400,
            "URL_BLOCKED",
            "providerSpecificData.baseUrl",
        ),
        (
            json!({"provider":"openai","name":"a","apiKey":"k","providerSpecificData":{"extraHeaders":{"b d":"x"}}}),
            400,
            "VALIDATION",
            "providerSpecificData.extraHeaders.b d",
        ),
        (json!({"provider":"openai","name":"work","apiKey":"sk-other-1234567890"}), 409, "CONFLICT", "name"),
        (json!({"provider":"openai","name":"b","apiKey":"sk-work-1234567890"}), 409, "CONFLICT", "apiKey"),
    ] {
        let answer = app.post("/api/providers", body.clone()).await.expect(status);
        assert_eq!(answer.code(), code, "{body}");
        assert_eq!(answer.fields(), [field], "{body}");
    }
    let same = json!({"provider":"openai","name":"work","apiKey":"sk-newer-1234567890"});
    let row = app.post("/api/providers?upsert=true", same).await.expect(201).json();
    assert_eq!(row["connection"]["maskedKey"], "sk-n****7890");
    assert_eq!(app.get("/api/providers").await.json()["connections"].as_array().map(Vec::len), Some(1));
    let private = json!({"provider":"openai","name":"local","apiKey":"k2",
        "providerSpecificData":{"baseUrl":"http://127.0.0.1:9/v1","allowPrivate":true,"colour":3}});
    let answer = app.post("/api/providers", private).await.expect(201);
    assert_eq!(answer.header("x-ignored-fields").as_deref(), Some("providerSpecificData.colour"));
}

#[tokio::test]
async fn a_new_key_makes_a_connection_usable_again() {
    let app = TestApp::new().await;
    let row = add(&app, json!({"provider":"openai","name":"work","apiKey":"sk-work-1234567890"})).await;
    let path = format!("/api/providers/{}", id_of(&row));
    app.upstream.answer(401, r#"{"error":{"message":"Incorrect API key","code":"invalid_api_key"}}"#);
    app.post(&format!("{path}/test"), json!({})).await.expect(200);
    assert_eq!(app.get(&path).await.json()["connection"]["testStatus"], "error");
    app.patch(&path, json!({"apiKey":"sk-fresh-1234567890"})).await.expect(200);
    let fresh = app.get(&path).await.json()["connection"].clone();
    assert_eq!((&fresh["testStatus"], &fresh["lastError"]), (&json!("unknown"), &Value::Null));
}

#[tokio::test]
async fn providers_without_a_key() {
    let app = TestApp::new().await;
    let row = add(&app, json!({"provider":"llamacpp","name":"here"})).await;
    assert_eq!(
        (&row["authType"], &row["hasApiKey"], &row["maskedKey"]),
        (&json!("none"), &json!(false), &Value::Null)
    );
}

#[tokio::test]
async fn a_node_and_its_connection() {
    let app = TestApp::new().await;
    let draft = json!({"name":"Mine","prefix":"mine","baseUrl":"http://127.0.0.1:8080/v1/chat/completions/"});
    assert_eq!(app.post("/api/provider-nodes", draft.clone()).await.expect(400).code(), "URL_BLOCKED");
    let mut allowed = draft;
    allowed["allowPrivate"] = json!(true);
    let node = app.post("/api/provider-nodes", allowed.clone()).await.expect(201).json()["node"].clone();
    assert_eq!(node["baseUrl"], "http://127.0.0.1:8080/v1");
    assert!(id_of(&node).starts_with("openai-compatible-chat-"));
    assert_eq!(app.post("/api/provider-nodes", allowed).await.expect(409).code(), "CONFLICT");
    for prefix in ["openai", "sim", "auto"] {
        let taken = json!({"name":"x","prefix":prefix,"baseUrl":"https://93.184.216.34/v1"});
        assert_eq!(app.post("/api/provider-nodes", taken).await.expect(409).code(), "CONFLICT", "{prefix}");
    }
    let bad = json!({"name":"x","prefix":"Not OK","baseUrl":"https://93.184.216.34/v1"});
    assert_eq!(app.post("/api/provider-nodes", bad).await.expect(400).fields(), ["prefix"]);
    let bad = json!({"name":"x","prefix":"ok","baseUrl":"https://93.184.216.34/v1","type":"smtp"});
    assert_eq!(app.post("/api/provider-nodes", bad).await.expect(400).fields(), ["type"]);

    let connection = add(&app, json!({"provider":"mine","name":"only"})).await;
    assert_eq!(connection["provider"], node["id"], "the prefix means the node");
    let model = json!({"provider":"mine","modelId":"gemma","contextWindow":8192,"caps":{"vision":true}});
    app.post("/api/provider-models", model).await.expect(200);
    // Whether or not its connection is switched on.
    for is_on in [true, false] {
        let path = format!("/api/providers/{}", id_of(&connection));
        app.patch(&path, json!({"isActive": is_on})).await.expect(200);
        let catalog = app.get("/api/models/catalog").await.expect(200).json()["catalog"].clone();
        assert_eq!(
            (catalog.as_object().map(serde_json::Map::len), &catalog["mine"]["active"]),
            (Some(1), &json!(is_on))
        );
        let models = catalog["mine"]["models"].as_array().expect("list");
        assert_eq!(
            (models.len(), &models[0]["id"], &models[0]["contextWindow"]),
            (1, &json!("gemma"), &json!(8192))
        );
        assert_eq!(models[0]["caps"], json!({"vision": true}));
    }

    let path = format!("/api/provider-nodes/{}", id_of(&node));
    app.patch(&path, json!({"prefix":"ours"})).await.expect(200);
    assert!(app.live.load().by_prefix("ours").is_some());
    assert!(app.live.load().by_prefix("mine").is_none());
    app.delete(&path).await.expect(200);
    app.get(&format!("/api/providers/{}", id_of(&connection))).await.expect(404);
    assert_eq!(app.get("/api/provider-models").await.json(), json!({"models":{}}));
}

#[tokio::test]
async fn what_is_added_to_a_node_while_it_is_deleted_does_not_stay() {
    let app = TestApp::new().await;
    let mut refused = 0;
    // Until one is deleted just after it was looked up.
    for round in 0..500 {
        if refused > 0 && round > 12 {
            break;
        }
        let node = json!({"name":"n","prefix":"mine","baseUrl":"http://127.0.0.1:9/v1","allowPrivate":true});
        let node = app.post("/api/provider-nodes", node).await.expect(201).json()["node"].clone();
        let path = format!("/api/provider-nodes/{}", id_of(&node));
        let late = async {
            for _ in 0..round % 12 {
                tokio::task::yield_now().await;
            }
            app.delete(&path).await.expect(200)
        };
        let (account, model) =
            (json!({"provider":"mine","name":"x"}), json!({"provider":"mine","modelId":"m"}));
        let (_, account, model) =
            tokio::join!(late, app.post("/api/providers", account), app.post("/api/provider-models", model));
        for answer in [account, model] {
            if !answer.status.is_success() {
                // 404 where it was saved, and went with its node before it was told.
                let told = (answer.status.as_u16(), answer.fields());
                assert!(
                    told == (400, vec!["provider".to_owned()]) || told.0 == 404,
                    "{told:?}: {}",
                    answer.json()
                );
                refused += u32::from(answer.json().to_string().contains("has just been deleted"));
            }
        }
        assert_eq!(app.get("/api/providers").await.json(), json!({"connections":[]}));
        assert_eq!(app.get("/api/provider-models").await.json(), json!({"models":{}}));
    }
    assert_ne!(refused, 0, "what was looked up is asked for again");
}

#[tokio::test]
async fn custom_models() {
    let app = TestApp::new().await;
    let model = json!({"provider":"openai","modelId":"ft:gpt-4o:me","modelName":"Mine"});
    let stored = app.post("/api/provider-models", model).await.expect(200).json()["model"].clone();
    assert_eq!((&stored["source"], &stored["apiFormat"]), (&json!("manual"), &json!("chat-completions")));
    let patch = json!({"provider":"openai","modelId":"ft:gpt-4o:me","isHidden":true});
    let hidden = app.patch("/api/provider-models", patch).await.expect(200).json()["model"].clone();
    assert_eq!((&hidden["isHidden"], &hidden["name"]), (&json!(true), &json!("Mine")));
    app.patch("/api/provider-models", json!({"provider":"openai","modelId":"none"})).await.expect(404);
    let bad = json!({"provider":"openai","modelId":"x","apiFormat":"morse"});
    assert_eq!(app.post("/api/provider-models", bad).await.expect(400).fields(), ["apiFormat"]);
    let list = app.get("/api/provider-models?provider=openai").await.json();
    assert_eq!(list["models"].as_array().map(Vec::len), Some(1));
    let path = "/api/provider-models?provider=openai&model=ft:gpt-4o:me";
    assert_eq!(app.delete(path).await.expect(200).json(), json!({"removed":true}));
    assert_eq!(app.delete(path).await.expect(200).json(), json!({"removed":false}));
    assert_eq!(app.delete("/api/provider-models?provider=openai").await.expect(400).fields(), ["model"]);
}

#[tokio::test]
async fn a_key_names_what_is_there() {
    let app = TestApp::new().await;
    let account = json!({"provider":"openai","name":"work","apiKey":"sk-work-1234567890","isActive":false});
    let account = app.post("/api/providers", account).await.expect(201).json()["connection"]["id"].clone();
    app.post("/api/combos", json!({"name":"Coding","models":["sim/echo"],"isActive":false}))
        .await
        .expect(201);
    let draft = json!({
        "name":"dev","allowedEndpoints":["chat","embeddings"],"allowedConnections":[account],
        "allowedCombos":["coding","auto/fast","team-*","x?"]
    });
    let made = app.post("/api/keys", draft).await.expect(201).json();
    let path = format!("/api/keys/{}", id_of(&made));
    let wrong = json!({
        "name":"dev","allowedEndpoints":["chat","chta"],"allowedConnections":["nobody"],
        "allowedCombos":["coding","codign"]
    });
    let fields = ["allowedEndpoints[1]", "allowedCombos[1]", "allowedConnections[0]"];
    let refused = app.post("/api/keys", wrong.clone()).await.expect(400);
    assert_eq!(refused.fields(), fields);
    for word in ["chta", "embeddings", "codign", "nobody"] {
        assert!(refused.body.contains(word), "{word}: {}", refused.body);
    }
    assert_eq!(app.patch(&path, wrong).await.expect(400).fields(), fields);
    // What was there when it was written may stay when it is gone, so that it restricts what it did.
    app.delete(&format!("/api/providers/{}", account.as_str().expect("id"))).await.expect(200);
    app.patch(&path, json!({"allowedConnections":[account],"noLog":true})).await.expect(200);
    app.patch(&path, json!({"allowedConnections":[account, "other"]})).await.expect(400);
    app.patch(&path, json!({"allowedConnections":[],"allowedCombos":[],"allowedEndpoints":[]}))
        .await
        .expect(200);
    assert_eq!(
        app.patch(&path, json!({"allowedConnections":[account]})).await.expect(400).fields(),
        ["allowedConnections[0]"]
    );
}

#[tokio::test]
async fn a_key_is_shown_once_and_changed_rotated_and_revoked() {
    let app = TestApp::new().await;
    let made =
        app.post("/api/keys", json!({"label":"dev","allowedModels":["openai/*"]})).await.expect(201).json();
    let key = made["key"].as_str().expect("key").to_owned();
    assert!(key.starts_with("sk-omni-") && key.len() == 8 + 43, "{key}");
    assert!(app.live.load().caller(KeyHash::of(&key)).is_some(), "in force before the answer");
    let path = format!("/api/keys/{}", id_of(&made));
    let shown = app.get(&path).await.expect(200).json();
    assert_eq!(shown["key"], format!("sk-omni-****{}", &key[key.len() - 4..]));
    assert_eq!(shown["allowedModels"], json!(["openai/*"]));
    let changed = app.patch(&path, json!({"maxRequestsPerMinute":10,"strict":true})).await.expect(200).json();
    assert_eq!(changed["key"]["maxRequestsPerMinute"], 10);
    let mut members: Vec<_> = changed.as_object().expect("object").keys().map(String::as_str).collect();
    members.sort_unstable();
    assert_eq!(members, ["key", "maxRequestsPerMinute", "message", "strict"], "what changed is told");
    for (threshold, mode) in
        [(json!(0.9), json!("off")), (Value::Null, json!("off")), (json!(0.8), Value::Null)]
    {
        let patch = json!({"similarity": {"mode": mode}, "similarityThreshold": threshold});
        let shown = app.patch(&path, patch).await.expect(200).json()["key"].clone();
        assert_eq!(
            (&shown["similarityThreshold"], &shown["similarity"]["threshold"]),
            (&threshold, &threshold)
        );
        assert_eq!(shown["similarity"]["mode"], mode);
    }
    let shown =
        app.patch(&path, json!({"similarityThreshold": null})).await.expect(200).json()["key"].clone();
    assert_eq!(
        (&shown["similarityThreshold"], &shown["similarity"]),
        (&Value::Null, &Value::Null),
        "nothing is left to say"
    );
    app.patch(&path, json!({"similarityThreshold": 3})).await.expect(400);
    assert_eq!(app.get(&format!("{path}/reveal")).await.expect(410).code(), "GONE");

    let rotate = app.post(&format!("{path}/rotate"), json!({"graceSeconds":60})).await.expect(201).json();
    let newer = rotate["key"].as_str().expect("key").to_owned();
    let (old, new) = (KeyHash::of(&key), KeyHash::of(&newer));
    let expires = |hash| app.live.load().caller(hash).map(|caller| caller.expires_at);
    assert_eq!(expires(old), Some(Some(crate::app::START + 60_000)));
    assert_eq!(expires(new), Some(None));
    let copy = app.get(&format!("/api/keys/{}", id_of(&rotate))).await.json();
    assert_eq!((&copy["maxRequestsPerMinute"], &copy["strict"]), (&json!(10), &json!(true)));
    app.as_manager(Method::POST, &format!("/api/keys/{}/rotate", id_of(&rotate))).send().await.expect(201);
    let is_active = |hash| app.live.load().caller(hash).is_some_and(|caller| caller.is_active);
    assert!(!is_active(new), "without grace the old one ends at once");

    app.delete(&path).await.expect(200);
    assert!(!is_active(old));
    app.delete(&path).await.expect(404);
    app.patch(&path, json!({"name":"again"})).await.expect(409);
    assert_eq!(app.get("/api/keys").await.json()["total"], 1);
    let all = app.get("/api/keys?revoked=true").await.json();
    assert_eq!(all["total"], 3);
    assert_eq!(all["allowKeyReveal"], false);
}

#[tokio::test]
async fn lists_come_in_pages() {
    let app = TestApp::new().await;
    for name in ["a", "b", "c"] {
        app.post("/api/keys", json!({"name": name})).await.expect(201);
        app.pass(Duration::from_millis(1));
    }
    let first = app.get("/api/keys?limit=2").await.json();
    assert_eq!((first["keys"].as_array().map(Vec::len), &first["total"]), (Some(2), &json!(3)));
    let cursor = first["nextCursor"].as_str().expect("cursor");
    let second = app.get(&format!("/api/keys?limit=2&cursor={cursor}")).await.json();
    assert_eq!((second["keys"].as_array().map(Vec::len), &second["nextCursor"]), (Some(1), &Value::Null));
}

#[tokio::test]
async fn settings_merge() {
    let app = TestApp::new().await;
    let shown = app.get("/api/settings").await.expect(200).json();
    for (key, value) in [
        ("requireLogin", json!(true)),
        ("fallbackStrategy", json!("fill-first")),
        ("hasPassword", json!(true)),
        ("cloudConfigured", json!(false)),
        ("version", json!("1.2.3")),
        ("runtimePorts", json!({"main":20128,"api":null,"dashboard":null})),
    ] {
        assert_eq!(shown[key], value, "{key}");
    }
    let patch = json!({"fallbackStrategy":"round-robin","publicUrl":"https://gw.example","blockedProviders":["groq"]});
    let put = app.as_manager(Method::PUT, "/api/settings").json(&patch).send().await.expect(200).json();
    assert_eq!((&put["fallbackStrategy"], &put["requestRetry"]), (&json!("round-robin"), &json!(1)));
    assert_eq!(app.live.load().settings.fallback_strategy, "round-robin", "in force before the answer");
    let cleared = app.patch("/api/settings", json!({"publicUrl":null})).await.expect(200).json();
    assert_eq!(cleared["publicUrl"], Value::Null);
    let own = json!({"groq":{"fallbackStrategy":"weighted"},"openai":{"stickyRoundRobinLimit":7}});
    app.patch("/api/settings", json!({"providerStrategies":own})).await.expect(200);
    let merged =
        app.patch("/api/settings", json!({"providerStrategies":{"openai":null}})).await.expect(200).json();
    assert_eq!(merged["providerStrategies"], json!({"groq":{"fallbackStrategy":"weighted"}}));
    assert_eq!(merged["sessionAffinityTtlMs"], 1_800_000);
    for (patch, field) in [
        (json!({"fallbackStrategy":"telepathy"}), "fallbackStrategy"),
        (json!({"providerStrategies":{"nobody":{}}}), "providerStrategies.nobody"),
        (
            json!({"providerStrategies":{"groq":{"fallbackStrategy":"x"}}}),
            "providerStrategies.groq.fallbackStrategy",
        ),
        (
            json!({"providerStrategies":{"groq":{"stickyRoundRobinLimit":0}}}),
            "providerStrategies.groq.stickyRoundRobinLimit",
        ),
        (json!({"sessionAffinityTtlMs":86_400_001}), "sessionAffinityTtlMs"),
        (json!({"stickyRoundRobinLimit":0}), "stickyRoundRobinLimit"),
        (json!({"requestRetry":"1"}), "requestRetry"),
        (json!({"blockedProviders":["nobody"]}), "blockedProviders[0]"),
        (json!({"publicUrl":"gw.example"}), "publicUrl"),
        (json!({"sseKeepalive":"drum"}), "sseKeepalive"),
        (json!({"autoCache":"yes"}), "autoCache"),
        (json!({"newPassword":"password"}), "newPassword"),
    ] {
        let answer = app.patch("/api/settings", patch.clone()).await.expect(400);
        assert_eq!(answer.fields(), [field], "{patch}");
    }
}

#[tokio::test]
async fn changes_at_the_same_time_lose_nothing() {
    let app = TestApp::new().await;
    let id = id_of(&app.post("/api/keys", json!({"name":"k"})).await.expect(201).json());
    let path = format!("/api/keys/{id}");
    let _ = tokio::join!(
        app.patch("/api/settings", json!({"requestRetry":7})),
        app.patch("/api/resilience", json!({"profiles":{"apikey":{"circuitBreakerThreshold":4}}})),
        app.put("/api/rate-limit", json!({"defaults":{"requestsPerMinute":77}})),
        app.put("/api/settings/thinking-budget", json!({"customBudget":2048})),
        app.put("/api/settings/system-prompt", json!({"maxChars":99})),
        app.patch("/api/settings/combo-defaults", json!({"comboDefaults":{"strategy":"random"}})),
        app.put("/api/settings/require-login", json!({"requireLogin":false})),
        app.patch(&path, json!({"maxRequestsPerMinute":10})),
        app.patch(&path, json!({"maxConcurrent":3})),
        app.patch(&path, json!({"noLog":true})),
    );
    let stored = app.store.settings().get().await.expect("settings");
    let queue = stored.resilience.request_queue;
    assert_eq!((stored.request_retry, queue.requests_per_minute), (7, 77));
    assert_eq!((stored.thinking_budget.custom_budget, stored.system_prompt.max_chars), (2_048, 99));
    assert_eq!((stored.combo_strategy.as_deref(), stored.require_login), (Some("random"), false));
    assert_eq!(app.live.load().settings, stored, "in force as it is stored");
    let key = app.get(&path).await.expect(200).json();
    assert_eq!(
        (&key["maxRequestsPerMinute"], &key["maxConcurrent"], &key["noLog"]),
        (&json!(10), &json!(3), &json!(true))
    );
}

#[tokio::test]
async fn a_key_that_is_revoked_while_it_is_changed_stays_so() {
    for order in 0..2 {
        let app = TestApp::new().await;
        let made = app.post("/api/keys", json!({"name":"k"})).await.expect(201).json();
        let hash = KeyHash::of(made["key"].as_str().expect("key"));
        let path = format!("/api/keys/{}", id_of(&made));
        let rotate = format!("{path}/rotate");
        let (change, renew) =
            (json!({"isActive":true,"maxConcurrent":3}), json!({"graceSeconds": 60 * order}));
        let (changed, deleted, rotated) =
            tokio::join!(app.patch(&path, change), app.delete(&path), app.post(&rotate, renew));
        assert!([200, 409].contains(&changed.status.as_u16()), "{}", changed.status);
        assert!([201, 409].contains(&rotated.status.as_u16()), "{}", rotated.status);
        // Without grace, it may have been the other one that ended it.
        assert!([200, 404].contains(&deleted.status.as_u16()), "{}", deleted.status);
        let key = app.get(&path).await.expect(200).json();
        assert!(key["isActive"] == false && key["revokedAt"].is_string(), "{key}");
        assert!(app.live.load().caller(hash).is_some_and(|caller| !caller.is_active));
        assert_eq!(app.post(&rotate, json!({})).await.expect(409).code(), "CONFLICT");
        assert_eq!(app.patch(&path, json!({"isActive":true})).await.expect(409).code(), "CONFLICT");
        let all = if rotated.status == 201 { 2 } else { 1 };
        assert_eq!(
            app.get("/api/keys?revoked=true").await.json()["total"],
            all,
            "no key of a refused change"
        );
    }
}

#[tokio::test]
async fn every_change_is_in_the_audit_log() {
    let app = TestApp::new().await;
    let row = add(&app, json!({"provider":"openai","name":"work","apiKey":"sk-work-1234567890"})).await;
    app.delete(&format!("/api/providers/{}", id_of(&row))).await.expect(200);
    app.patch("/api/settings", json!({"requestRetry":5})).await.expect(200);
    app.patch("/api/settings", json!({"requestRetry":5})).await.expect(200);
    app.post("/api/keys", json!({"name":"k"})).await.expect(201);
    let query = omniroute_store::AuditQuery { limit: 10, ..Default::default() };
    let (events, _) = app.store.audit().list(&query).await.expect("lists");
    let actions: Vec<_> = events.iter().rev().map(|record| record.event.action.as_str()).collect();
    let expected =
        ["provider.connection.create", "provider.connection.delete", "settings.update", "apikey.create"];
    assert_eq!(actions, expected, "a change that changes nothing is none");
    assert!(events.iter().all(|record| record.event.actor == "management-token"));
}
