//! What requests are held to, conversations, and accounts with several keys.

use std::time::Duration;

use http::Method;
use omniroute_domain::entity::{ConnectionId, ConnectionStatus, TestStatus};
use omniroute_domain::handoff::{Brief, Handoff, HandoffKey, KEPT_MS};
use omniroute_domain::session::SessionKey;
use omniroute_engine::ports::Memory;
use omniroute_provider::ProviderId;
use omniroute_provider::allowance::{Allowance, Allowances};
use omniroute_store::AuditQuery;
use serde_json::{Value, json};

use crate::app::{START, TestApp};

async fn add(app: &TestApp, body: Value) -> Value {
    app.post("/api/providers", body).await.expect(201).json()["connection"].clone()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().expect("a text")
}

#[tokio::test]
async fn limits_are_shown_and_switched_by_account() {
    let app = TestApp::new().await;
    let row = add(&app, json!({"provider":"groq","name":"work","apiKey":"gsk_1234567890abcdef"})).await;
    let id = text(&row, "id").to_owned();
    let seen = app.get("/api/rate-limits").await.expect(200).json();
    let account = &seen["connections"][0];
    assert_eq!((account["enabled"].clone(), account["active"].clone()), (json!(true), json!(false)));
    assert_eq!((account["limit"].clone(), account["queued"].clone()), (Value::Null, json!(0)));
    assert_eq!(seen["overview"][format!("groq:{id}")], json!({"queued":0,"running":0,"executing":0}));

    let requests = Allowance { limit: Some(60), remaining: 3, reset: Some(Duration::from_secs(30)) };
    let said = Allowances { requests: Some(requests), ..Allowances::default() };
    let connection_id = ConnectionId::from(id.as_str());
    let state = app.live.load().connection(&connection_id).expect("it is on").clone();
    state.health.gate.learn("llama", &said, START);
    let seen = app.get("/api/rate-limits").await.expect(200).json();
    let account = &seen["connections"][0];
    assert_eq!((account["limit"].clone(), account["remaining"].clone()), (json!(60), json!(3)));
    assert!(
        account["resetAt"].is_string() && account["models"]["llama"]["lastUpdated"] == START,
        "{account}"
    );
    let health = app.get("/api/monitoring/health").await.expect(200).json();
    assert_eq!(health["learnedLimits"][format!("groq:{id}")]["remaining"], 3);

    let off = json!({"connectionId":id,"enabled":false});
    let answer = app.post("/api/rate-limit", off.clone()).await.expect(200).json();
    assert_eq!(answer, json!({"success":true,"connectionId":id,"enabled":false}));
    assert!(app.live.load().connection(&connection_id).expect("it is on").limits.is_none(), "in force");
    let seen = app.get("/api/rate-limit").await.expect(200).json();
    assert_eq!(seen["connections"][0]["enabled"], false);
    assert_eq!(
        seen["defaults"],
        json!({"requestsPerMinute":0,"minTimeBetweenRequests":0,"concurrentRequests":0})
    );
    assert_eq!(seen["enabledByDefault"], json!({"apikey":true,"oauth":false}));
    app.post("/api/rate-limit", json!({"connectionId":"nobody","enabled":true})).await.expect(404);
    app.request(Method::GET, "/api/rate-limits").send().await.expect(401);
}

/// Eight at once, of different members and over two routes.
#[tokio::test]
async fn no_change_of_an_account_is_lost() {
    let app = TestApp::new().await;
    let row = add(&app, json!({"provider":"groq","name":"old","apiKey":"gsk_1234567890abcdef"})).await;
    let path = format!("/api/providers/{}", text(&row, "id"));
    let patches = [
        json!({"name":"new"}),
        json!({"tags":["a"]}),
        json!({"defaultModel":"m"}),
        json!({"maxConcurrent":7}),
        json!({"group":"g"}),
        json!({"providerSpecificData":{"weight":3}}),
        json!({"providerSpecificData":{"baseUrl":"https://93.184.215.14/v1"}}),
    ];
    let patches = patches.into_iter().map(|patch| app.patch(&path, patch));
    let switch = app.post("/api/rate-limit", json!({"connectionId":text(&row, "id"),"enabled":true}));
    let (answers, switched) = futures_util::join!(futures_util::future::join_all(patches), switch);
    answers.into_iter().chain([switched]).for_each(|answer| drop(answer.expect(200)));
    let row = app.get(&path).await.expect(200).json()["connection"].clone();
    assert_eq!((&row["name"], &row["tags"], &row["group"]), (&json!("new"), &json!(["a"]), &json!("g")));
    assert_eq!((&row["defaultModel"], &row["maxConcurrent"]), (&json!("m"), &json!(7)));
    assert_eq!(row["rateLimitProtection"], true);
    let options = &row["providerSpecificData"];
    assert_eq!((&options["weight"], &options["limiter"]), (&json!(3), &json!(true)));
    assert_eq!(options["baseUrl"], "https://93.184.215.14/v1");
}

/// A private URL and its permission: whoever comes second is told, whichever that is.
#[tokio::test]
async fn two_changes_make_no_url_that_neither_may() {
    let app = TestApp::new().await;
    let url = |host: &str| json!({"providerSpecificData":{"baseUrl":format!("https://{host}/v1")}});
    let body = json!({"provider":"groq","name":"x","apiKey":"gsk_1234567890abcdef",
        "providerSpecificData":{"allowPrivate":true,"baseUrl":"https://93.184.215.14/v1"}});
    let row = add(&app, body).await;
    let path = format!("/api/providers/{}", text(&row, "id"));
    let forbid = json!({"providerSpecificData":{"allowPrivate":false}});
    let answers = futures_util::join!(app.patch(&path, url("10.0.0.1")), app.patch(&path, forbid));
    let mut statuses = [answers.0.status.as_u16(), answers.1.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 400]);
}

#[tokio::test]
async fn what_holds_for_all_is_changed_member_by_member() {
    let app = TestApp::new().await;
    let changed =
        app.put("/api/rate-limit", json!({"defaults":{"requestsPerMinute":90}})).await.expect(200).json();
    assert_eq!(changed["defaults"]["requestsPerMinute"], 90);
    let changed = app
        .put("/api/rate-limit", json!({"defaults":{"minTimeBetweenRequests":50}}))
        .await
        .expect(200)
        .json();
    let expected = json!({"requestsPerMinute":90,"minTimeBetweenRequests":50,"concurrentRequests":0});
    assert_eq!(changed["defaults"], expected);
    assert_eq!(app.live.load().settings.resilience.request_queue.requests_per_minute, 90, "in force");
    let refused =
        app.put("/api/rate-limit", json!({"defaults":{"concurrentRequests":100_001}})).await.expect(400);
    assert_eq!(refused.fields(), ["defaults.concurrentRequests"]);
    let unknown = app.put("/api/rate-limit", json!({"defaults":{"speed":1}})).await.expect(200);
    assert_eq!(unknown.header("x-ignored-fields").as_deref(), Some("defaults.speed"));
    app.put("/api/rate-limit", json!({"defaults":{"requestsPerMinute":-1}})).await.expect(400);
}

#[tokio::test]
async fn conversations_are_listed_and_ended() {
    let app = TestApp::new().await;
    let (provider, account) = (ProviderId::from("groq"), ConnectionId::from("c1"));
    for (tenant, id, at) in [("-", "ext:a", 10), ("k1", "ext:a", 20), ("k1", "b", 30)] {
        let key = SessionKey::new(tenant, id);
        app.live.sessions.enter(&key, 0, 1_800_000, START + at).expect("no limit");
        if id != "b" {
            app.live.sessions.pin(&key, &provider, &account, START + at);
        }
    }
    app.pass(Duration::from_secs(1));
    let seen = app.get("/api/sessions").await.expect(200).json();
    assert_eq!((seen["count"].clone(), seen["byApiKey"].clone()), (json!(3), json!({"-":1,"k1":2})));
    let latest = json!({
        "sessionId":"b","createdAt":START + 30,"lastActive":START + 30,"requestCount":1,"connectionId":null,
        "ageMs":970,"idleMs":970,"apiKeyId":"k1","handoffs":[],
    });
    assert_eq!(seen["sessions"][0], latest);
    assert_eq!(
        (&seen["sessions"][2]["apiKeyId"], &seen["sessions"][2]["connectionId"]),
        (&Value::Null, &json!("c1"))
    );
    let health = app.get("/api/monitoring/health").await.expect(200).json();
    assert_eq!(
        (&health["sessions"]["activeCount"], &health["sessions"]["stickyBoundCount"]),
        (&json!(3), &json!(2))
    );

    let gone = app.delete("/api/sessions?sessionId=ext:a").await.expect(200).json();
    assert_eq!(gone, json!({"success":true,"unpinned":2}));
    let told = app.rows.memories();
    assert!(
        told.iter().all(|memory| matches!(memory, Memory::Unpinned(key) if key.id() == "ext:a")),
        "{told:?}"
    );
    assert_eq!(told.len(), 2, "the database hears of it");
    assert_eq!(app.get("/api/sessions").await.expect(200).json()["count"], 1);
    app.delete("/api/sessions?sessionId=ext:a").await.expect(404);
    app.delete("/api/sessions").await.expect(400);
}

#[tokio::test]
async fn further_keys_are_counted_and_never_shown() {
    let app = TestApp::new().await;
    let body = json!({"provider":"groq","name":"work","apiKey":"gsk_first_1234567890","providerSpecificData":{
        "apiKeys":["gsk_pool_1234567890","gsk_first_1234567890","gsk_pool_0987654321"],"weight":3,"discount":0.2,
    }});
    let row = add(&app, body).await;
    assert_eq!((row["apiKeyCount"].clone(), row["hasApiKey"].clone()), (json!(3), json!(true)));
    assert_eq!(row["providerSpecificData"], json!({"weight":3,"discount":0.2}));
    let path = format!("/api/providers/{}", text(&row, "id"));
    let shown = app.get(&path).await.expect(200).json();
    assert!(!shown.to_string().contains("gsk_pool"), "{shown}");
    let id = ConnectionId::from(text(&row, "id"));
    let keys = app.live.load().connection(&id).expect("it is on").pool.len();
    assert_eq!(keys, 3);
    let kept = app.patch(&path, json!({"name":"other"})).await.expect(200).json();
    assert_eq!(kept["connection"]["apiKeyCount"], 3, "kept by what does not speak of them");
    let gone = app.patch(&path, json!({"providerSpecificData":{"apiKeys":null}})).await.expect(200).json();
    assert_eq!(gone["connection"]["apiKeyCount"], 1);
    for (data, field) in [
        (json!({"apiKeys":["with space"]}), "providerSpecificData.apiKeys[0]"),
        (json!({"apiKeys":"one"}), "providerSpecificData.apiKeys"),
        (json!({"weight":-1}), "providerSpecificData.weight"),
        (json!({"discount":1.5}), "providerSpecificData.discount"),
        (json!({"limiter":"yes"}), "providerSpecificData.limiter"),
    ] {
        let refused = app.patch(&path, json!({"providerSpecificData":data})).await.expect(400);
        assert_eq!(refused.fields(), [field]);
    }
}

#[tokio::test]
async fn a_conversation_shows_the_summaries_it_takes_with_it() {
    let app = TestApp::new().await;
    let key = HandoffKey { session: SessionKey::new("k1", "ext:a"), combo: "thread".into() };
    app.live.sessions.enter(&key.session, 0, 1_800_000, START).expect("no limit");
    let handoff = Handoff {
        from: "c1".into(),
        brief: Brief { summary: "sentinel-text".into(), ..Brief::default() },
        turns: 12,
        opening: 7,
        model: "up/m".into(),
        threshold_percent: 85,
        made_at: START + 5,
        expires_at: START + 5 + KEPT_MS,
    };
    let make = |handoff| {
        let handoffs = &app.live.handoffs;
        assert!(handoffs.begin(&key, &ConnectionId::from("c1"), START + 5));
        assert!(handoffs.made(&key, handoff, START + 5));
    };
    make(handoff.clone());
    let seen = app.get("/api/sessions").await.expect(200).json();
    let shown = json!([{
        "combo":"thread","fromConnectionId":"c1","model":"up/m","messageCount":12,
        "generatedAt":START + 5,"expiresAt":START + 5 + KEPT_MS,
    }]);
    assert_eq!(seen["sessions"][0]["handoffs"], shown);
    assert_eq!(seen["handoffs"], json!({"made":1,"told":0,"failed":0,"skipped":0}));
    assert!(!seen.to_string().contains("sentinel"), "what was said is not shown");
    app.delete("/api/sessions?sessionId=ext:a").await.expect(200);
    assert_eq!(app.live.handoffs.find(&key, START + 6), None, "it ends with its conversation");
    make(handoff);
    let ended = app.delete("/api/sessions?sessionId=ext:a").await.expect(200).json();
    assert_eq!(ended["unpinned"], 1, "of a conversation that is over already");
    assert_eq!(app.live.handoffs.find(&key, START + 6), None);
    app.delete("/api/sessions?sessionId=ext:a").await.expect(404);
}

#[tokio::test]
async fn an_account_that_is_there_is_changed_as_by_a_patch() {
    let app = TestApp::new().await;
    let draft = |members: Value| {
        let mut body = json!({"provider":"groq","name":"work"});
        body.as_object_mut().expect("an object").extend(members.as_object().cloned().expect("an object"));
        body
    };
    let made = app.post("/api/providers", draft(json!({"apiKey":"gsk_first_1234567890"}))).await.expect(201);
    let id = ConnectionId::from(made.json()["connection"]["id"].as_str().expect("id"));
    let banned = ConnectionStatus { test_status: TestStatus::Banned, ..ConnectionStatus::default() };
    app.store.connections().set_status(&id, &banned).await.expect("written");
    let again = "/api/providers?upsert=true";
    let changed = app.post(again, draft(json!({"clearError":true,"priority":1}))).await.expect(201).json();
    assert_eq!(
        (&changed["connection"]["id"], &changed["connection"]["testStatus"]),
        (&json!(id.as_str()), &json!("unknown"))
    );
    let stored = app.store.connections().get(&id).await.expect("read").expect("there");
    assert_eq!(stored.status.test_status, TestStatus::Unknown);
    let query =
        AuditQuery { action: Some("provider.connection.*".into()), limit: 9, ..AuditQuery::default() };
    let (events, _) = app.store.audit().list(&query).await.expect("read");
    let told: Vec<_> = events.iter().map(|record| record.event.action.as_str()).collect();
    assert_eq!(told, ["provider.connection.update", "provider.connection.create"]);
}

#[tokio::test]
async fn characters_that_no_database_keeps_are_refused() {
    let app = TestApp::new().await;
    let body = json!({"provider":"groq","name":"work","apiKey":"gsk_first_1234567890"});
    let made = app.post("/api/providers", body).await.expect(201).json();
    let path = format!("/api/providers/{}", made["connection"]["id"].as_str().expect("id"));
    for (text, field) in [("a\u{0}b", "body"), ("a\u{1b}b", "group")] {
        let refused = app.patch(&path, json!({"group":text})).await.expect(400);
        assert_eq!(refused.json()["error"]["details"][0]["field"], field, "{}", refused.body);
    }
    app.patch(&path, json!({"group":"a \\u0000 of four digits"})).await.expect(200);
    app.post("/api/fallback/chains", json!({"model":"a\u{0}","chain":["groq"]})).await.expect(400);
    let refused = app.get("/api/providers/%00").await.expect(404);
    assert_eq!(refused.json()["error"]["message"], "Path not found", "no row is looked for");
    app.delete("/api/models/alias?alias=%00").await.expect(400);
}
