//! Members of what is sent of combos: what they are without, and what is told of those that are wrong or unknown.

use serde_json::{Value, json};

use super::{make, with_provider};

#[tokio::test]
async fn the_defaults_of_combos_are_shown_as_they_are_in_force() {
    let app = with_provider().await;
    let path = "/api/settings/combo-defaults";
    let fresh = app.get(path).await.expect(200).json();
    assert_eq!((&fresh["own"], &fresh["providerOverrides"]), (&json!({}), &json!({})));
    assert_eq!(fresh["comboDefaults"], fresh["builtIn"]);
    let told = json!({
        "strategy":"priority","maxRetries":1,"retryDelayMs":2_000,"fallbackDelayMs":0,"failoverBeforeRetry":true,
        "maxSetRetries":0,"setRetryDelayMs":2_000,"targetTimeoutMs":120_000,"timeoutMs":600_000,
        "stopOnContentFilter":true,"stickyRequests":1,"hedging":false,"hedgeDelayMs":500,"raceWidth":2,"fusionWidth":3,
        "judgeModel":null,"handoffThreshold":0.85,"handoffModel":"","handoffProviders":[],"maxMessagesForSummary":30,
        "handoffAlways":false,"weights":null,"modePack":null,"explorationRate":0.05,"budgetCap":1_000.0,
        "budgetFallback":"cheapest","routerStrategy":"rules","slaP95Ms":null,"concurrencyPerModel":3,
        "queueTimeoutMs":30_000,"queueDepth":20,"maxComboDepth":3,"trackMetrics":true,"responseValidation":null
    });
    assert_eq!(fresh["comboDefaults"], told);

    // All of it with one change in it is one choice, and null takes that back.
    let mut all = fresh.clone();
    all["comboDefaults"]["queueDepth"] = json!(7);
    let changed = app.put(path, all).await.expect(200);
    assert_eq!(changed.header("x-ignored-fields").as_deref(), Some("builtIn,own"));
    let changed = changed.json();
    assert_eq!(
        (&changed["own"], &changed["comboDefaults"]["queueDepth"]),
        (&json!({"queueDepth":7}), &json!(7))
    );
    let stored = app.store.settings().get().await.expect("settings").combo_defaults;
    assert_eq!(stored.queue_depth, Some(7));
    assert_eq!(stored.max_retries, None, "what is built in is not written down");
    let back = app.patch(path, json!({"comboDefaults":{"queueDepth":null}})).await.expect(200).json();
    assert_eq!(back, fresh);
    // To what was built in it can be set back as well, and is a choice then.
    app.patch(path, json!({"comboDefaults":{"queueDepth":7}})).await.expect(200);
    let set = app.patch(path, json!({"comboDefaults":{"queueDepth":20}})).await.expect(200).json();
    assert_eq!(set["own"], json!({"queueDepth":20}));

    let sent =
        json!({"comboDefaults":{"maxRetires":3,"hedging":true},"providerOverrides":{"openai":{"zz":1}}});
    let answer = app.patch(path, sent).await.expect(200);
    assert_eq!(
        answer.header("x-ignored-fields").as_deref(),
        Some("comboDefaults.maxRetires,providerOverrides.openai.zz")
    );
    assert_eq!(answer.json()["own"]["hedging"], true);
    let wrong = app.patch(path, json!({"comboDefaults":{"hedging":"yes"}})).await.expect(400);
    assert_eq!(wrong.fields(), ["comboDefaults.hedging"]);
}

#[tokio::test]
async fn what_is_wrong_within_an_entry_is_told_with_its_place() {
    let app = with_provider().await;
    let draft = |entry: Value| json!({"name":"c","models":["openai/gpt-5.6", entry]});
    for (entry, field, word) in [
        (json!({"model":"openai/gpt-5.4-mini","wen":{}}), "models[1].wen", "connectionId"),
        (json!({"model":"openai/gpt-5.4-mini","when":{"foo":1}}), "models[1].when.foo", "minTokens"),
        (json!({"model":"openai/gpt-5.4-mini","weight":"much"}), "models[1].weight", "expected u32"),
        (json!({"model":"openai/gpt-5.4-mini","when":{"stream":1}}), "models[1].when.stream", "boolean"),
        (json!(7), "models[1]", "a text or an object"),
    ] {
        let refused = app.post("/api/combos", draft(entry.clone())).await.expect(400);
        assert_eq!(refused.fields(), [field], "{entry}: {}", refused.body);
        assert!(refused.body.contains(word), "{}", refused.body);
    }
    let path =
        format!("/api/combos/{}", make(&app, draft(json!("sim/echo"))).await["id"].as_str().expect("id"));
    let refused =
        app.patch(&path, json!({"models":[{"model":"sim/echo","when":{"foo":1}}]})).await.expect(400);
    assert_eq!(refused.fields(), ["models[0].when.foo"]);
    let rules = json!({"config":{"responseValidation":{"mustMtach":"x"}}});
    assert_eq!(app.patch(&path, rules).await.expect(400).fields(), ["config.responseValidation.mustMtach"]);
    let answer = app.patch(&path, json!({"config":{"zz":1,"maxRetries":2}})).await.expect(200);
    assert_eq!(answer.header("x-ignored-fields").as_deref(), Some("config.zz"));
    let chain = json!({"model":"gpt-5.6","chain":["openai",{"provider":"openai","zz":1}]});
    let answer = app.post("/api/fallback/chains", chain).await;
    assert_eq!(answer.header("x-ignored-fields").as_deref(), Some("chain[1].zz"), "{}", answer.body);
}

#[tokio::test]
async fn what_cannot_be_compiled_is_well_formed_all_the_same() {
    let app = with_provider().await;
    let config = json!({"responseValidation":{"mustMatch":"("}});
    let refused = app.post("/api/combos", json!({"name":"c","models":["sim/echo"],"config":config})).await;
    assert_eq!(refused.expect(422).code(), "UNPROCESSABLE");
    let defaults = json!({"comboDefaults":{"responseValidation":{"mustNotMatch":"["}}});
    let refused = app.patch("/api/settings/combo-defaults", defaults).await.expect(422);
    assert_eq!(refused.fields(), ["comboDefaults.responseValidation.mustNotMatch"]);
    let both = json!({"name":"c","models":["sim/echo"],"toolFilterRegex":"(","config":config});
    let refused = app.post("/api/combos", both).await.expect(422);
    assert_eq!(refused.fields(), ["config.responseValidation.mustMatch", "toolFilterRegex"]);
    // With something else that is not even as it must be, all of it is told.
    let worse = json!({"name":"c d","models":["sim/echo"],"toolFilterRegex":"("});
    let refused = app.post("/api/combos", worse).await.expect(400);
    assert_eq!(refused.fields(), ["name", "toolFilterRegex"]);
}

#[tokio::test]
async fn a_combo_has_one_place_in_the_order() {
    let app = with_provider().await;
    let mut ids = Vec::new();
    for name in ["a", "b"] {
        ids.push(make(&app, json!({"name":name,"models":["sim/echo"]})).await["id"].clone());
    }
    let twice = json!({"ids":[ids[1], ids[0], ids[1], "nobody"]});
    let refused = app.put("/api/combos/reorder", twice).await.expect(400);
    assert_eq!(refused.fields(), ["ids[2]", "ids[3]"]);
    assert!(refused.body.contains(ids[1].as_str().expect("id")), "{}", refused.body);
    assert_eq!(app.get("/api/combos").await.json()["combos"][0]["name"], "a", "nothing was moved");
}
