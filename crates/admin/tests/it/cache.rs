//! `/api/cache`, and the settings about it.

use http::Method;
use omniroute_engine::CacheCounts;
use omniroute_engine::ports::Memory;
use serde_json::json;

use crate::app::{START, TestApp, remote};

#[tokio::test]
async fn the_cache_is_shown_and_cleared() {
    let app = TestApp::new().await;
    let view = app.get("/api/cache").await.expect(200).json();
    assert_eq!(
        view["semanticCache"],
        json!({"memorySize": 0, "memoryMaxSize": 500, "dbSize": 0, "hitRate": 0.0, "hits": 0, "misses": 0,
               "tokensSaved": 0, "costSaved": 0.0})
    );
    assert_eq!(view["idempotency"], json!({"activeKeys": 3, "windowMs": 5_000}));
    assert_eq!(view["config"]["semanticCacheEnabled"], true);
    assert_eq!(view["promptCache"]["totalRequests"], 0);

    let counts = CacheCounts { in_memory: 2, hits: 3, misses: 1, tokens_saved: 50, nano_saved: 7_000_000 };
    *app.answers.counts.lock().unwrap() = counts;
    let view = app.get("/api/cache/stats").await.expect(200).json();
    let semantic = &view["semanticCache"];
    assert_eq!((&semantic["hitRate"], &semantic["costSaved"]), (&json!(0.75), &json!(0.007)));

    let cleared = app.delete("/api/cache").await.expect(200).json();
    assert_eq!(cleared, json!({"success": true, "cleared": {"semantic": 2, "idempotency": 3}}));
    let cleared = app.delete("/api/cache?model=up%2Fm&signature=_.aa").await.expect(200).json();
    assert_eq!(cleared["cleared"]["idempotency"], 0, "answers that are sent again have no model");
    let wanted = [(None, None), (Some("up/m".to_owned()), Some("_.aa".to_owned()))];
    assert_eq!(*app.answers.cleared.lock().unwrap(), wanted);
    let [model, signature] = ["up/m", "_.aa"].map(|text| Some(text.to_owned()));
    assert_eq!(
        app.rows.memories(),
        [
            Memory::AnswersCleared { model: None, signature: None, until: START },
            Memory::AnswersCleared { model, signature, until: START },
        ]
    );
    let metrics = app.get("/metrics").await.expect(200).body;
    assert!(metrics.contains("omniroute_cache_hits_total 3\n"), "{metrics}");

    app.request(Method::DELETE, "/api/cache").from(remote()).send().await.expect(401);
}

#[tokio::test]
async fn it_is_set_for_all_and_for_a_key() {
    let app = TestApp::new().await;
    let patch =
        json!({"semanticCacheEnabled": false, "semanticCacheTtlMs": 60_000, "semanticCacheMaxSize": 7});
    let settings = app.patch("/api/settings", patch.clone()).await.expect(200).json();
    for (name, value) in patch.as_object().unwrap() {
        assert_eq!(settings[name], *value, "{name}");
    }
    let live = app.live.load();
    assert_eq!((live.settings.semantic_cache_enabled, live.settings.semantic_cache_max_size), (false, 7));
    let wrong = json!({"semanticCacheTtlMs": 10, "semanticCacheMaxSize": 1_000_000});
    let refused = app.patch("/api/settings", wrong).await.expect(400);
    assert_eq!(refused.fields(), ["semanticCacheTtlMs", "semanticCacheMaxSize"]);

    let made = app.post("/api/keys", json!({"name": "dev", "noCache": true})).await.expect(201).json();
    let path = format!("/api/keys/{}", made["id"].as_str().unwrap());
    assert_eq!(app.get(&path).await.expect(200).json()["noCache"], true);
    app.patch(&path, json!({"noCache": false})).await.expect(200);
    assert_eq!(app.get(&path).await.expect(200).json()["noCache"], false);
}
