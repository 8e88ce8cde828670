//! Combos and aliases: what is written is in force at once, and what makes no sense is refused.

mod members;
mod nesting;
mod probed;
mod versions;

use http::Method;
use serde_json::{Value, json};

use crate::app::TestApp;

async fn with_provider() -> TestApp {
    let app = TestApp::new().await;
    let body = json!({"provider":"openai","name":"work","apiKey":"sk-work-1234567890"});
    app.post("/api/providers", body).await.expect(201);
    app
}

async fn make(app: &TestApp, body: Value) -> Value {
    app.post("/api/combos", body).await.expect(201).json()
}

#[tokio::test]
async fn a_combo_from_its_beginning_to_its_end() {
    let app = with_provider().await;
    make(&app, json!({"name":"cheap","models":["openai/gpt-5.4-mini"]})).await;
    let combo = make(
        &app,
        json!({"name":"coding","strategy":"fallback","models":["openai/gpt-5.6", "cheap"],
        "config":{"maxRetries":0},"colour":"red"}),
    )
    .await;
    assert_eq!((&combo["strategy"], &combo["sortOrder"]), (&json!("priority"), &json!(2)));
    assert_eq!(combo["models"][0]["id"], "coding-model-1-openai-gpt-5-6");
    assert_eq!(combo["models"][0]["model"], "openai/gpt-5.6");
    assert_eq!(
        (&combo["models"][1]["kind"], &combo["models"][1]["comboName"]),
        (&json!("combo-ref"), &json!("cheap"))
    );
    assert_eq!(combo["config"], json!({"maxRetries":0}));
    let id = combo["id"].as_str().expect("id").to_owned();
    let path = format!("/api/combos/{id}");
    let snapshot = app.live.load().clone();
    let state = snapshot.combo("coding").expect("in force before the answer");
    assert_eq!(state.targets(&snapshot).len(), 2);

    let metrics = app.get("/api/combos/metrics?combo=coding").await.expect(200).json();
    assert_eq!(metrics["metrics"]["coding"]["totalRequests"], 0);
    assert_eq!(
        metrics["metrics"]["coding"]["byTarget"]["coding-model-1-openai-gpt-5-6"]["lastStatus"],
        Value::Null
    );
    app.get("/api/combos/metrics?combo=nobody").await.expect(404);
    state.steps[0].stats.begin();
    state.steps[0].stats.end(Some(120), 1_795_392_000_000);
    let metrics = app.get("/api/combos/metrics?combo=coding").await.expect(200).json();
    let target = &metrics["metrics"]["coding"]["byTarget"]["coding-model-1-openai-gpt-5-6"];
    assert_eq!((&target["avgLatencyMs"], &target["successRate"]), (&json!(120.0), &json!(100.0)), "{target}");
    app.delete("/api/combos/metrics?combo=coding").await.expect(200);
    assert_eq!(state.steps[0].stats.totals().requests, 0);

    // A new name is the name everywhere.
    let cheap = app.get("/api/combos").await.json()["combos"][0]["id"].as_str().expect("id").to_owned();
    app.put("/api/models/alias", json!({"alias":"fast","model":"cheap"})).await.expect(200);
    app.patch(&format!("/api/combos/{cheap}"), json!({"name":"frugal"})).await.expect(200);
    let combo = app.get(&path).await.expect(200).json();
    assert_eq!(combo["models"][1]["comboName"], "frugal");
    assert_eq!(app.get("/api/models/alias").await.json()["aliases"]["fast"], "frugal");

    let order = app.put("/api/combos/reorder", json!({"ids":[id]})).await.expect(200).json();
    assert_eq!(order["combos"][0]["name"], "coding");
    app.patch(&path, json!({"isActive":false})).await.expect(200);
    assert!(app.live.load().combo("coding").is_none());
    assert_eq!(app.get(&path).await.json()["config"]["maxRetries"], 0, "absent leaves");
    app.delete(&path).await.expect(200);
    app.delete(&path).await.expect(404);
    app.get(&path).await.expect(404);
}

#[tokio::test]
async fn counts_begin_anew_when_they_are_cleared_or_wanted_again() {
    let app = with_provider().await;
    make(&app, json!({"name":"any","strategy":"auto","models":[]})).await;
    let state = |name: &str| app.live.load().combo(name).expect("in force").clone();
    let count = |name: &str| {
        let state = state(name);
        state.memory.stats.note(Some(5), 1_795_392_000_000);
        state.steps[0].stats.note(Some(5), 1_795_392_000_000);
    };
    let counted = |name: &str| {
        let state = state(name);
        [state.memory.stats.totals().requests, state.steps[0].stats.totals().requests]
    };
    count("any");
    count("auto/fast");
    assert_eq!((counted("any"), counted("auto/fast")), ([1, 2], [1, 2]), "they share the counts of models");
    app.delete("/api/combos/metrics?combo=any").await.expect(200);
    assert_eq!((counted("any"), counted("auto/fast")), ([0, 0], [1, 0]));
    app.delete("/api/combos/metrics").await.expect(200);
    assert_eq!(counted("auto/fast"), [0, 0]);

    let quiet = json!({"name":"quiet","models":["openai/gpt-5.6"],"config":{"trackMetrics":false}});
    let path = format!("/api/combos/{}", make(&app, quiet).await["id"].as_str().expect("id"));
    count("quiet");
    app.patch(&path, json!({"isHidden":true})).await.expect(200);
    assert_eq!(counted("quiet"), [1, 1]);
    app.patch(&path, json!({"config":{}})).await.expect(200);
    assert_eq!(counted("quiet"), [0, 0], "what was not to be counted");
}

#[tokio::test]
async fn wrong_combos_are_refused_with_the_member() {
    let app = with_provider().await;
    make(&app, json!({"name":"taken","models":["openai/gpt-5.6"]})).await;
    let many: Vec<_> = (0..129).map(|_| "openai/gpt-5.6").collect();
    for (body, status, field) in [
        (json!({"models":["a/b"]}), 400, "name"),
        (json!({"name":"x"}), 400, "models"),
        (json!({"name":"x","models":[]}), 400, "models"),
        (json!({"name":"x","models":many}), 400, "models"),
        (json!({"name":"with space","models":["a/b"]}), 400, "name"),
        (json!({"name":"auto/fast","models":["a/b"]}), 400, "name"),
        (json!({"name":"combo/x","models":["a/b"]}), 400, "name"),
        (json!({"name":"a//b","models":["a/b"]}), 400, "name"),
        (json!({"name":"TAKEN","models":["a/b"]}), 409, "name"),
        (json!({"name":"x","strategy":"best","models":["a/b"]}), 400, "strategy"),
        (json!({"name":"x","models":[{"kind":"combo-ref","model":"a/b"}]}), 400, "models[0].kind"),
        (json!({"name":"x","models":[{"label":"nothing"}]}), 400, "models[0]"),
        (json!({"name":"x","models":[{"comboName":"gone"}]}), 400, "models[0].comboName"),
        (
            json!({"name":"x","models":[{"model":"a/b","id":"1"},{"model":"a/c","id":"1"}]}),
            400,
            "models[1].id",
        ),
        (json!({"name":"x","models":[{"model":"a/b","when":{"hours":"8-9"}}]}), 400, "models[0].when"),
        (json!({"name":"x","models":[{"model":"a/b","weight":2_000_000}]}), 400, "models[0].weight"),
        (json!({"name":"x","models":["a/b"],"config":{"maxRetries":11}}), 400, "config.maxRetries"),
        (json!({"name":"x","models":["a/b"],"config":{"timeoutMs":1}}), 400, "config.timeoutMs"),
        (
            json!({"name":"x","models":["a/b"],"config":{"explorationRate":1.5}}),
            400,
            "config.explorationRate",
        ),
        (json!({"name":"x","models":["a/b"],"config":{"budgetCap":-1}}), 400, "config.budgetCap"),
        (json!({"name":"x","models":["a/b"],"config":{"weights":{"luck":0.5}}}), 400, "config.weights.luck"),
        (
            json!({"name":"x","models":["a/b"],"config":{"weights":{"health":2}}}),
            400,
            "config.weights.health",
        ),
        (json!({"name":"x","models":["a/b"],"config":{"routerStrategy":"sla"}}), 400, "config.slaP95Ms"),
        (json!({"name":"x","models":["x"]}), 422, "models"),
        (json!({"name":"x","models":["a/b"],"config":{"raceWidth":9}}), 400, "config.raceWidth"),
        (json!({"name":"x","models":["a/b"],"config":{"fusionWidth":0}}), 400, "config.fusionWidth"),
        (json!({"name":"x","models":["a/b"],"config":{"hedgeDelayMs":0}}), 400, "config.hedgeDelayMs"),
        (json!({"name":"x","models":["a/b"],"config":{"judgeModel":" "}}), 400, "config.judgeModel"),
        (
            json!({"name":"x","models":["a/b"],"config":{"handoffThreshold":0.95}}),
            400,
            "config.handoffThreshold",
        ),
        (
            json!({"name":"x","models":["a/b"],"config":{"handoffThreshold":-0.1}}),
            400,
            "config.handoffThreshold",
        ),
        (
            json!({"name":"x","models":["a/b"],"config":{"handoffProviders":[""]}}),
            400,
            "config.handoffProviders[0]",
        ),
        (
            json!({"name":"x","models":["a/b"],"config":{"handoffProviders":["openai","nobody"]}}),
            400,
            "config.handoffProviders[1]",
        ),
        (
            json!({"name":"x","models":["a/b"],"config":{"maxMessagesForSummary":0}}),
            400,
            "config.maxMessagesForSummary",
        ),
        (
            json!({"name":"x","models":["a/b"],"config":{"concurrencyPerModel":0}}),
            400,
            "config.concurrencyPerModel",
        ),
        (json!({"name":"x","models":["a/b"],"config":{"maxComboDepth":9}}), 400, "config.maxComboDepth"),
        (
            json!({"name":"x","models":["a/b"],"config":{"responseValidation":{"mustMatch":"("}}}),
            422,
            "config.responseValidation.mustMatch",
        ),
        (
            json!({"name":"x","models":["a/b"],"config":{"responseValidation":{"jsonSchema":{"type":7}}}}),
            422,
            "config.responseValidation.jsonSchema",
        ),
        (
            json!({"name":"x","models":["a/b",{"model":"a/c","template":"{{output}}"}]}),
            400,
            "models[1].template",
        ),
        (
            json!({"name":"x","strategy":"pipeline","models":[{"model":"a/c","template":"{{output}}"}]}),
            400,
            "models[0].template",
        ),
        (
            json!({"name":"x","strategy":"pipeline","models":["a/b",{"model":"a/c","template":"{{date}}"}]}),
            400,
            "models[1].template",
        ),
    ] {
        let answer = app.post("/api/combos", body.clone()).await.expect(status);
        let details = answer.json()["error"]["details"].clone();
        assert_eq!(details[0]["field"], field, "{body}: {details}");
    }
    assert_eq!(app.get("/api/combos").await.json()["combos"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn combos_whose_entries_answer_together_keep_what_belongs_to_them() {
    let app = with_provider().await;
    let steps = json!(["openai/gpt-5.6", {"model":"openai/gpt-5.4-mini","template":"Check: {{output}}"}]);
    let chain = make(&app, json!({"name":"chain","strategy":"pipeline","models":steps})).await;
    assert_eq!(chain["models"][1]["template"], "Check: {{output}}");
    let path = format!("/api/combos/{}", chain["id"].as_str().expect("id"));
    // Its template would be ignored by another strategy.
    app.patch(&path, json!({"strategy":"priority"})).await.expect(400);
    let answer = app.post("/api/combos", json!({"name":"outer","models":["chain"]})).await.expect(422);
    assert!(answer.body.contains("is a pipeline"), "{}", answer.body);

    let inner = make(&app, json!({"name":"inner","models":["openai/gpt-5.6"]})).await;
    make(&app, json!({"name":"around","models":["inner"]})).await;
    let path = format!("/api/combos/{}", inner["id"].as_str().expect("id"));
    app.patch(&path, json!({"strategy":"fusion"})).await.expect(422);

    let config = json!({"fusionWidth":2,"judgeModel":"openai/gpt-5.6"});
    let panel =
        make(&app, json!({"name":"panel","strategy":"fusion","models":["openai/gpt-5.6"],"config":config}))
            .await;
    assert_eq!(panel["config"], config);
    let snapshot = app.live.load().clone();
    let policy = &snapshot.combo("panel").expect("in force").policy;
    assert_eq!((policy.fusion_width, policy.judge_model.as_deref()), (2, Some("openai/gpt-5.6")));
}

#[tokio::test]
async fn a_combo_hands_conversations_over_as_it_says() {
    let app = with_provider().await;
    let config = json!({
        "handoffThreshold":0.7,"handoffModel":"openai/gpt-5.4-mini","handoffProviders":["openai"],
        "maxMessagesForSummary":12,"handoffAlways":true
    });
    let relay = make(
        &app,
        json!({"name":"relay","strategy":"context-relay","models":["openai/gpt-5.6"],"config":config}),
    )
    .await;
    assert_eq!((&relay["config"], &relay["strategy"]), (&config, &json!("context-relay")));
    let unknown = json!({"comboDefaults":{"handoffProviders":["nobody"]}});
    let refused = app.patch("/api/settings/combo-defaults", unknown).await.expect(400);
    assert_eq!(refused.fields(), ["comboDefaults.handoffProviders[0]"]);
    let defaults = json!({"comboDefaults":{"maxMessagesForSummary":7}});
    app.patch("/api/settings/combo-defaults", defaults).await.expect(200);
    make(&app, json!({"name":"usual","strategy":"context-relay","models":["openai/gpt-5.6"]})).await;
    let snapshot = app.live.load().clone();
    let rules = |name: &str| snapshot.combo(name).expect("in force").policy.handoff.clone();
    let own = rules("relay");
    assert_eq!((own.threshold.get(), own.model.as_deref()), (0.7, Some("openai/gpt-5.4-mini")));
    assert_eq!((&*own.providers, own.turns, own.is_always), (&["openai".to_owned()][..], 12, true));
    let usual = rules("usual");
    assert_eq!((usual.threshold.get(), usual.model, usual.turns, usual.is_always), (0.85, None, 7, false));
}

#[tokio::test]
async fn null_takes_all_defaults_of_combos_back() {
    let app = with_provider().await;
    let path = "/api/settings/combo-defaults";
    let fresh = app.get(path).await.expect(200).json();
    let set = json!({"comboDefaults":{"strategy":"random","maxRetries":3},"providerOverrides":{"openai":{"maxRetries":0}}});
    let set = app.patch(path, set).await.expect(200).json();
    assert_eq!(set["own"], json!({"strategy":"random","maxRetries":3}));
    let back = app.patch(path, json!({"comboDefaults":null})).await.expect(200).json();
    assert_eq!((&back["own"], &back["comboDefaults"]), (&json!({}), &fresh["comboDefaults"]));
    assert_eq!(back["providerOverrides"]["openai"]["maxRetries"], 0, "the other stays");
    let back = app.patch(path, json!({"providerOverrides":null})).await.expect(200).json();
    assert_eq!(back, fresh);
}

#[tokio::test]
async fn the_defaults_of_combos_are_merged() {
    let app = with_provider().await;
    let path = "/api/settings/combo-defaults";
    app.patch(path, json!({"comboDefaults":{"maxRetries":3}})).await.expect(200);
    let after = app.patch(path, json!({"comboDefaults":{"timeoutMs":5_000}})).await.expect(200).json();
    assert_eq!(after["own"], json!({"maxRetries":3,"timeoutMs":5_000}));
    assert_eq!(
        (&after["comboDefaults"]["maxRetries"], &after["builtIn"]["maxRetries"]),
        (&json!(3), &json!(1))
    );
    make(&app, json!({"name":"c","models":["openai/gpt-5.6"]})).await;
    assert_eq!(app.live.load().combo("c").expect("there").policy.max_retries, 3);
    app.patch(path, json!({"comboDefaults":{"maxRetries":99}})).await.expect(400);
    // The strategy of those that are made without one.
    let changed = json!({"comboDefaults":{"strategy":"round-robin"}});
    let changed = app.patch(path, changed).await.expect(200).json();
    assert_eq!(changed["own"], json!({"strategy":"round-robin","maxRetries":3,"timeoutMs":5_000}));
    let made = make(&app, json!({"name":"d","models":["openai/gpt-5.6"]})).await;
    assert_eq!(made["strategy"], "round-robin");
    let changed = app.patch(path, json!({"comboDefaults":{"strategy":"fallback"}})).await.expect(200).json();
    assert_eq!(changed["own"]["strategy"], "priority", "by its own name");
    let own = make(&app, json!({"name":"e","strategy":"random","models":["openai/gpt-5.6"]})).await;
    assert_eq!(own["strategy"], "random");
    let wrong = app.patch(path, json!({"comboDefaults":{"strategy":"luck"}})).await.expect(400);
    assert_eq!(wrong.fields(), ["comboDefaults.strategy"]);
    let gone = app.patch(path, json!({"comboDefaults":{"strategy":null}})).await.expect(200).json();
    assert_eq!(gone["own"], json!({"maxRetries":3,"timeoutMs":5_000}));
    assert_eq!(gone["comboDefaults"]["strategy"], "priority");
    let set = json!({"comboDefaults":{"judgeModel":"openai/gpt-5.6","weights":{"health":0.5}}});
    let set = app.patch(path, set).await.expect(200).json();
    assert_eq!(set["comboDefaults"]["judgeModel"], "openai/gpt-5.6");
    let back = json!({"comboDefaults":{"judgeModel":null,"weights":null,"hedging":null}});
    let back = app.patch(path, back).await.expect(200).json();
    assert_eq!(back["own"], json!({"maxRetries":3,"timeoutMs":5_000}), "null takes it back");
    let sla = json!({"comboDefaults":{"routerStrategy":"sla","slaP95Ms":4_000}});
    app.patch(path, sla).await.expect(200);
    let refused = app.patch(path, json!({"comboDefaults":{"slaP95Ms":null}})).await.expect(400);
    assert_eq!(refused.fields(), ["comboDefaults.slaP95Ms"], "the strategy needs it");
    app.patch(path, json!({"comboDefaults":{"slaP95Ms":null,"routerStrategy":null}})).await.expect(200);

    // A provider's own, by any of its names; what is null goes away.
    let overrides = json!({"oai":{"maxRetries":1,"queueDepth":5},"anthropic":{"hedging":true}});
    let after = app.patch(path, json!({"providerOverrides":overrides})).await.expect(200).json();
    let stored = json!({"openai":{"maxRetries":1,"queueDepth":5},"anthropic":{"hedging":true}});
    assert_eq!(after["providerOverrides"], stored);
    let snapshot = app.live.load().clone();
    let combo = snapshot.combo("c").expect("there");
    let policy = combo.policy_of(&combo.targets(&snapshot)[0]);
    assert_eq!((policy.max_retries, policy.queue.depth, policy.timeout.as_secs()), (1, 5, 5));
    app.patch(path, json!({"providerOverrides":{"anthropic":null}})).await.expect(200);
    assert_eq!(
        app.get(path).await.json()["providerOverrides"],
        json!({"openai":{"maxRetries":1,"queueDepth":5}})
    );
    for (body, field) in [
        (json!({"nobody":{}}), "providerOverrides.nobody"),
        (json!({"openai":{"timeoutMs":5_000}}), "providerOverrides.openai.timeoutMs"),
        (json!({"openai":{"budgetCap":1.0}}), "providerOverrides.openai.budgetCap"),
        (json!({"openai":{"maxRetries":99}}), "providerOverrides.openai.maxRetries"),
    ] {
        let answer = app.patch(path, json!({"providerOverrides":body})).await.expect(400).json();
        assert_eq!(answer["error"]["details"][0]["field"], field, "{answer}");
    }
}

#[tokio::test]
async fn aliases_are_set_listed_and_deleted() {
    let app = with_provider().await;
    make(&app, json!({"name":"best","models":["openai/gpt-5.6"]})).await;
    let path = "/api/models/alias";
    for method in [Method::POST, Method::PUT] {
        let body = json!({"alias":"fast","model":"openai/gpt-5.4-mini"});
        let set = match method {
            Method::POST => app.post(path, body).await,
            _ => app.put(path, body).await,
        };
        assert_eq!(
            set.expect(200).json(),
            json!({"success":true,"alias":"fast","model":"openai/gpt-5.4-mini"})
        );
    }
    app.post(path, json!({"alias":"claude-*","model":"openrouter/anthropic/claude-*"})).await.expect(200);
    app.post(path, json!({"alias":"hop","model":"fast"})).await.expect(200);
    for (alias, model, status) in [
        ("best", "openai/gpt-5.6", 409),
        ("auto", "openai/gpt-5.6", 409),
        ("auto/fast", "openai/gpt-5.6", 409),
        ("two", "hop", 422),
        ("fast", "hop", 422),
        ("self", "self", 422),
        ("two", "hop(high)", 422),
        ("fast", "hop[1m]", 422),
        ("with space", "openai/x", 400),
        ("plain", "openai/*", 400),
        ("x*", "a*/b*", 400),
        ("x", "", 400),
    ] {
        app.post(path, json!({"alias":alias,"model":model})).await.expect(status);
    }
    let all = app.get(path).await.expect(200).json();
    assert_eq!(
        all,
        json!({"aliases":{"fast":"openai/gpt-5.4-mini","hop":"fast","claude-*":"openrouter/anthropic/claude-*"}})
    );
    assert_eq!(app.live.load().aliases.meaning("claude-x").as_deref(), Some("openrouter/anthropic/claude-x"));
    app.delete("/api/models/alias?alias=hop").await.expect(200);
    app.delete("/api/models/alias?alias=hop").await.expect(404);
}

#[tokio::test]
async fn what_would_become_of_a_request_is_told() {
    let app = TestApp::new().await;
    let path = "/api/route/explain";
    // The body arrives as it was written, numbers and all.
    let text =
        r#"{"path":"/v1/chat/completions","body":{"model":"a/b","n":1.50},"headers":{"x-session-id":"1"}}"#;
    let told =
        app.as_manager(Method::POST, path).text(text).header("content-type", "application/json").send().await;
    let told = told.expect(200).json();
    assert_eq!(told["requestedModel"], r#"{"model":"a/b","n":1.50}"#);
    assert_eq!(
        told["candidates"],
        json!([{"order":1,"provider":"openai","model":"gpt-5.6","connectionId":"c1","connectionName":"work",
            "dialect":"openai","action":"skip","rule":"cooldown","reason":"rate_limit",
            "until":"2027-01-15T08:00:01.000Z","estimatedCostUsd":0.0015, "score": null, "wave": null}])
    );
    app.post(path, json!({"path":"/nowhere","body":{}})).await.expect(400);
    // What no database keeps a client may send nevertheless, and nothing of a question is kept.
    let body = json!({"model":"a/b","messages":[{"role":"user","content":"a\u{0}b"}]});
    let told = app.post(path, json!({"path":"/v1/chat/completions","body":body})).await.expect(200).json();
    assert_eq!(told["requestedModel"], body.to_string());
    let form = json!([{"name":"prompt","value":"a\u{0}b"}]);
    app.post(path, json!({"path":"/v1/images/edits","form":form})).await.expect(200);
    // Whether a request has a body is known where it goes to.
    let told = app.post(path, json!({"method":"get","path":"/v1/x"})).await.expect(200).json();
    assert_eq!(told["requestedModel"], "");
    app.post(path, json!({"method":"no method","path":"/v1/x"})).await.expect(400);
    app.post(path, json!({"path":"/v1/x","body":{},"headers":{"bad name":"1"}})).await.expect(400);
}

#[tokio::test]
async fn requests_that_are_played_get_the_model_of_their_combo() {
    let app = with_provider().await;
    let path = "/api/combos/simulate";
    let combo = make(&app, json!({"name":"coding","models":["openai/gpt-5.6"]})).await;
    let told = app.post(path, json!({"combo":"coding"})).await.expect(200).json();
    assert_eq!((&told["requests"], &told["expectedFailures"]), (&json!(1_000), &json!(1_000.0)));
    assert_eq!(
        (&told["failurePath"][0]["rule"], &told["cost"]["unpricedCalls"]),
        (&json!("cooldown"), &json!(0.0))
    );
    app.post(path, json!({"combo":"combo/coding"})).await.expect(200);
    let of = |path: &str| json!({"combo":"coding","request":{"path":path,"body":{"n":1.50,"zz":"a\u{0}b"}}});
    app.post(path, of("/v1/chat/completions")).await.expect(200);
    for (other, status, word) in [
        ("/nowhere", 400, "request.path"),
        ("/busy", 503, "another simulation"),
        ("/elsewhere", 422, "`openai/gpt-5.6`"),
        ("/broken", 500, "INTERNAL"),
    ] {
        let answer = app.post(path, of(other)).await.expect(status);
        assert!(answer.body.contains(word), "{}", answer.body);
    }
    let path_of = format!("/api/combos/{}", combo["id"].as_str().expect("id"));
    app.patch(&path_of, json!({"isActive":false})).await.expect(200);
    let answer = app.post(path, json!({"combo":"coding"})).await.expect(409);
    assert!(answer.body.contains("switch it on to simulate it"), "{}", answer.body);
}

#[tokio::test]
async fn auto_is_tuned_and_needs_no_entries() {
    let app = with_provider().await;
    let config = json!({
        "weights": {"health": 0.5, "cacheAffinity": 0.1}, "modePack": "cost-saver", "explorationRate": 0.0,
        "budgetCap": 0.25, "budgetFallback": "strict", "routerStrategy": "sla", "slaP95Ms": 4_000
    });
    let combo = make(&app, json!({"name":"any","strategy":"auto","models":[],"config":config})).await;
    assert_eq!((&combo["strategy"], &combo["config"]), (&json!("auto"), &config));
    let path = format!("/api/combos/{}", combo["id"].as_str().expect("id"));
    assert_eq!(app.get(&path).await.json()["config"], config, "stored and read again");
    let snapshot = app.live.load().clone();
    let state = snapshot.combo("any").expect("in force");
    assert!(state.steps.len() > 3, "every model of the provider is a candidate");
    let tuning = state.auto.as_ref().expect("tuned");
    assert_eq!((tuning.cap_nano, tuning.sla_p95_ms), (250_000_000, Some(4_000)));

    // Other strategies have nothing to choose from then.
    let answer = app.patch(&path, json!({"strategy":"priority"})).await.expect(400);
    assert_eq!(answer.json()["error"]["details"][0]["field"], "strategy");
    app.patch(&path, json!({"strategy":"priority","models":["openai/gpt-5.6"]})).await.expect(200);

    let inner = make(&app, json!({"name":"outer","models":["openai/gpt-5.6", "auto/cheap"]})).await;
    assert_eq!(inner["models"][1]["comboName"], "auto/cheap", "a variant is a combo like any other");
    let wrong = json!({"name":"y","strategy":"auto","models":[],"config":{"modePack":"best"}});
    app.post("/api/combos", wrong).await.expect(400);
}

#[tokio::test]
async fn models_that_sum_up_or_judge_must_be_somebodys() {
    let app = TestApp::new().await;
    let draft = |config: Value| json!({"name": "c", "models": ["sim/echo"], "config": config});
    for (member, name) in [
        ("handoffModel", "nobody/x"),
        ("handoffModel", "no-such-model-anywhere"),
        ("judgeModel", "nobody/x"),
        ("judgeModel", "auto"),
    ] {
        let mut config = json!({});
        config[member] = json!(name);
        let refused = app.post("/api/combos", draft(config.clone())).await.expect(400);
        assert_eq!(refused.fields(), [format!("config.{member}")], "{name}");
        assert!(refused.body.contains(name), "{}", refused.body);
        let defaults = app.patch("/api/settings/combo-defaults", json!({"comboDefaults": config})).await;
        assert_eq!(defaults.expect(400).fields(), [format!("comboDefaults.{member}")], "{name}");
    }
    // An account for it may come later; an empty text is none.
    let config = json!({"handoffModel": "openai/gpt-5.4-mini", "judgeModel": "sim/lorem"});
    app.post("/api/combos", draft(config)).await.expect(201);
    let config = json!({"name": "d", "models": ["sim/echo"], "config": {"handoffModel": ""}});
    app.post("/api/combos", config).await.expect(201);
}

#[tokio::test]
async fn hours_of_an_entry_may_have_a_time_zone() {
    let app = TestApp::new().await;
    let draft = |when: Value| json!({"name": "c", "models": [{"model": "sim/echo", "when": when}]});
    for when in [json!({"hours": "08:00-18:00", "tz": "Mars/Base"}), json!({"tz": "Europe/Berlin"})] {
        assert_eq!(app.post("/api/combos", draft(when)).await.expect(400).fields(), ["models[0].when"]);
    }
    let when = json!({"hours": "08:00-18:00", "tz": "Europe/Berlin"});
    let made = app.post("/api/combos", draft(when.clone())).await.expect(201).json();
    assert_eq!(made["models"][0]["when"], when);
}
