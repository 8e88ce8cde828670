//! `/api/cache`, and the settings about it.

use http::Method;
use omniroute_domain::likeness::Guard;
use omniroute_engine::ports::Memory;
use omniroute_engine::{CacheCounts, SimilarityReport};
use serde_json::json;

use crate::app::{START, TestApp, remote};

#[tokio::test]
async fn the_cache_is_shown_and_cleared() {
    let app = TestApp::new().await;
    let view = app.get("/api/cache").await.expect(200).json();
    let mut semantic = view["semanticCache"].clone();
    semantic.as_object_mut().unwrap().remove("similarity");
    assert_eq!(
        semantic,
        json!({"memorySize": 0, "memoryMaxSize": 500, "dbSize": 0, "dbFailures": 0, "dbLate": 0, "hitRate": 0.0, "hits": 0, "misses": 0,
               "tokensSaved": 0, "costSaved": 0.0})
    );
    assert_eq!(view["idempotency"], json!({"activeKeys": 3, "windowMs": 5_000}));
    assert_eq!(view["config"]["semanticCacheEnabled"], true);
    assert_eq!(view["promptCache"]["totalRequests"], 0);

    let counts = CacheCounts {
        in_memory: 2,
        hits: 3,
        misses: 1,
        tokens_saved: 50,
        nano_saved: 7_000_000,
        shelf_failures: 4,
        shelf_late: 5,
    };
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
    assert!(metrics.contains("omniroute_cache_db_failures_total 4\n"), "{metrics}");

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

#[tokio::test]
async fn what_similar_questions_got_is_shown() {
    let app = TestApp::new().await;
    let view = app.get("/api/cache").await.expect(200).json();
    let similarity = &view["semanticCache"]["similarity"];
    assert_eq!(similarity["falseHitRate"], json!(null), "nothing was compared");
    let report = SimilarityReport {
        entries: 4,
        lookups: 10,
        hits: 3,
        would_have_served: 2,
        sampled: 2,
        guarded: vec![(Guard::Numbers, 5)],
        agreed: 3,
        disagreed: 1,
        ..SimilarityReport::default()
    };
    *app.answers.similarity.lock().unwrap() = report;
    let view = app.get("/api/cache").await.expect(200).json();
    let similarity = &view["semanticCache"]["similarity"];
    for (name, value) in [
        ("mode", json!("off")),
        ("model", json!(null)),
        ("threshold", json!(0.97)),
        ("entries", json!(4)),
        ("dbEntries", json!(0)),
        ("hits", json!(3)),
        ("guarded", json!({"numbers": 5})),
        ("falseHitRate", json!(0.25)),
        ("recent", json!([])),
    ] {
        assert_eq!(similarity[name], value, "{name}");
    }
    let metrics = app.get("/metrics").await.expect(200).body;
    for line in [
        "similar_hits_total 3",
        "similar_guarded_total 5",
        "similar_disagreed_total 1",
        "similar_questions 4",
    ] {
        assert!(metrics.contains(&format!("omniroute_cache_{line}\n")), "{line}: {metrics}");
    }
}

#[tokio::test]
async fn similarity_is_set_for_all_and_for_a_key() {
    let app = TestApp::new().await;
    let connection = json!({"provider": "openai", "name": "main", "apiKey": "sk-test-1234567890"});
    app.post("/api/providers", connection).await.expect(201);
    let set = |similarity: serde_json::Value| json!({ "semanticCacheSimilarity": similarity });
    let patch = json!({"mode": "shadow", "model": "openai/text-embedding-3-small", "threshold": 0.95, "sampleRate": 0.5,
        "timeoutMs": 300, "maxEntriesPerKey": 50, "maxChars": 200});
    let settings = app.patch("/api/settings", set(patch.clone())).await.expect(200).json();
    assert_eq!(settings["semanticCacheSimilarity"], patch);
    let settings = app.patch("/api/settings", set(json!({"mode": "enabled"}))).await.expect(200).json();
    assert_eq!(
        settings["semanticCacheSimilarity"]["model"], "openai/text-embedding-3-small",
        "absent members stay"
    );
    let live = app.live.load();
    assert_eq!(live.settings.semantic_cache_similarity.max_entries_per_key, 50);

    for (wrong, field, says) in [
        (json!({"model": "nobody/embed"}), "model", "nobody"),
        (json!({"model": "openai/gpt-4o"}), "model", "`openai/gpt-4o` is no model for embeddings"),
        (json!({"model": null}), "model", "is needed for this mode"),
        (json!({"threshold": 0.2}), "threshold", "0.5"),
        (json!({"sampleRate": 1.5}), "sampleRate", "1"),
        (json!({"timeoutMs": 1}), "timeoutMs", "10"),
        (json!({"maxEntriesPerKey": 0}), "maxEntriesPerKey", "1"),
        (json!({"maxChars": 0}), "maxChars", "1"),
    ] {
        let refused = app.patch("/api/settings", set(wrong.clone())).await.expect(400);
        assert_eq!(refused.fields(), [format!("semanticCacheSimilarity.{field}")], "{wrong}");
        assert!(refused.body.contains(says), "{wrong}: {}", refused.body);
    }
    app.patch("/api/settings", set(json!({"mode": "off", "model": null}))).await.expect(200);

    let own = json!({"mode": "enabled", "threshold": 0.99});
    let refused = app.post("/api/keys", json!({"name": "dev", "similarity": own})).await.expect(400);
    assert_eq!(refused.fields(), ["similarity.mode"], "there is no model that it could ask");
    assert!(refused.body.contains("semanticCacheSimilarity.model"), "{}", refused.body);
    let model = json!({"model": "openai/text-embedding-3-small"});
    app.patch("/api/settings", set(model)).await.expect(200);
    let made = app.post("/api/keys", json!({"name": "dev", "similarity": own})).await.expect(201).json();
    let path = format!("/api/keys/{}", made["id"].as_str().unwrap());
    assert_eq!(app.get(&path).await.expect(200).json()["similarity"], own);
    let refused = app.patch(&path, json!({"similarity": {"threshold": 2.0}})).await.expect(400);
    assert_eq!(refused.fields(), ["similarity.threshold"]);
    app.patch(&path, json!({"similarity": null})).await.expect(200);
    assert_eq!(app.get(&path).await.expect(200).json()["similarity"], json!(null));
}
