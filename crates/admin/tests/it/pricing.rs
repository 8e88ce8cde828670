//! Prices that operators set, and lists of prices that they take over.

use http::Method;
use serde_json::{Value, json};

use crate::app::TestApp;

async fn price(app: &TestApp, provider: &str, model: &str) -> Value {
    app.get("/api/pricing").await.expect(200).json()[provider][model].clone()
}

/// What is said in a row.
fn said(row: &Value) -> Value {
    let members = row.as_object().expect("row").iter().filter(|(_, value)| !value.is_null());
    Value::Object(members.map(|(name, value)| (name.clone(), value.clone())).collect())
}

#[tokio::test]
async fn prices_are_set_at_once_and_come_back_after_a_restart() {
    let app = TestApp::new().await;
    let built_in = price(&app, "openai", "gpt-4o").await;
    let set =
        app.patch("/api/pricing", json!({"openai":{"gpt-4o":{"input":7,"cached_read":0}}})).await.expect(200);
    let row = set.json()["openai"]["gpt-4o"].clone();
    assert_eq!(said(&row), json!({"input":7.0,"cached":0.0,"source":"user"}));
    for name in
        ["output", "reasoning", "cache_creation", "cache_creation_1h", "image", "per_request", "tiers"]
    {
        assert_eq!(row.get(name), Some(&Value::Null), "what there is no price of is null: {name}");
    }
    let now = price(&app, "openai", "gpt-4o").await;
    assert_eq!((&now["input"], &now["cached"], &now["source"]), (&json!(7.0), &json!(0.0), &json!("user")));
    assert_eq!(now["output"], built_in["output"], "what is not set stays built in");
    let quote = app.live.load().quote(&"openai".into(), "gpt-4o").expect("priced");
    assert_eq!((quote.row.input, quote.row.cached, quote.source.as_str()), (Some(7.0), Some(0.0), "user"));

    // A second change merges; null takes back; where a price comes from may be sent along.
    for method in [Method::PUT, Method::POST] {
        let body = json!({"openai":{"gpt-4o":{"cached":null,"output":9,"source":"user"}}});
        let answer = app.as_manager(method, "/api/pricing").json(&body).send().await.expect(200);
        let row = answer.json()["openai"]["gpt-4o"].clone();
        assert_eq!(said(&row), json!({"input":7.0,"output":9.0,"source":"user"}));
        assert_eq!(answer.header("x-ignored-fields").as_deref(), Some("openai.gpt-4o.source"));
    }
    let stored = app.store.entities().await.expect("entities").prices;
    assert_eq!(stored, app.live.load().prices, "what a restart would read");

    // Others are reset with it, and alone.
    app.patch("/api/pricing", json!({"anthropic":{"x":{"input":1,"output":1},"y":{"input":2}}}))
        .await
        .expect(200);
    app.delete("/api/pricing?provider=anthropic&model=y").await.expect(200);
    assert_eq!(
        app.get("/api/pricing?source=user").await.json()["anthropic"].as_object().map(|rows| rows.len()),
        Some(1)
    );
    let table = app.delete("/api/pricing?provider=openai").await.expect(200).json();
    assert_eq!(table["openai"]["gpt-4o"], built_in);
    app.delete("/api/pricing").await.expect(200);
    assert_eq!(app.get("/api/pricing?source=user").await.json(), json!({}));
    assert_eq!(app.delete("/api/pricing?model=x").await.expect(400).fields(), ["provider"]);
    assert_eq!(app.delete("/api/pricing?provider=nobody").await.expect(400).fields(), ["provider"]);
}

#[tokio::test]
async fn every_name_of_a_provider_means_the_same_prices() {
    let app = TestApp::new().await;
    let node = json!({"name":"mine","prefix":"mine","baseUrl":"https://models.example/v1"});
    let id = app.post("/api/provider-nodes", node).await.expect(201).json()["node"]["id"].clone();
    let id = id.as_str().expect("id");
    app.patch("/api/pricing", json!({"mine":{"m":{"input":1,"output":2}}})).await.expect(200);
    app.patch("/api/pricing", json!({id:{"m":{"output":3}}})).await.expect(200);
    let user = app.get("/api/pricing?source=user").await.expect(200).json();
    assert_eq!(said(&user["mine"]["m"]), json!({"input":1.0,"output":3.0,"source":"user"}));
    let list = app.get("/api/pricing?source=user&format=list").await.expect(200).json();
    assert_eq!(list["prices"][0]["provider"], id);
    let quote = app.live.load().quote(&id.into(), "m").expect("priced");
    assert_eq!((quote.row.input, quote.row.output), (Some(1.0), Some(3.0)));
    // Prices of all other models of a provider.
    app.patch("/api/pricing", json!({"mine":{"*":{"input":0,"output":0}}})).await.expect(200);
    assert_eq!(app.live.load().quote(&id.into(), "another").expect("priced").row.input, Some(0.0));
}

#[tokio::test]
async fn wrong_prices_are_refused_and_nothing_of_them_is_kept() {
    let app = TestApp::new().await;
    for (body, field) in [
        (json!({"nobody":{"x":{"input":1}}}), "nobody"),
        (json!({"openai":{"x":{"input":-1}}}), "openai.x"),
        (json!({"openai":{"x":{"input":"1"}}}), "openai.x.input"),
        (json!({"openai":{"x":{"tiers":[{"above_tokens":2,"input":"1"}]}}}), "openai.x.tiers[0].input"),
        (json!({"openai":{" x":{"input":1}}}), "openai. x"),
        (
            json!({"openai":{"good":{"input":1},"x":{"tiers":[{"above_tokens":2},{"above_tokens":1}]}}}),
            "openai.x",
        ),
    ] {
        assert_eq!(app.patch("/api/pricing", body.clone()).await.expect(400).fields(), [field], "{body}");
    }
    assert_eq!(app.get("/api/pricing?source=user").await.json(), json!({}));
}

#[tokio::test]
async fn a_list_is_taken_over_below_what_the_operator_set() {
    let app = TestApp::new().await;
    let list = json!({
        "sample_spec": {"litellm_provider": "one of https://…", "input_cost_per_token": 0},
        "gpt-next": {"litellm_provider": "openai", "input_cost_per_token": 1.5e-7, "output_cost_per_token": 6e-7,
            "cache_read_input_token_cost": 7.5e-8, "input_cost_per_token_above_200k_tokens": 3e-7},
        "together_ai/meta-llama/Next": {"litellm_provider": "together_ai", "input_cost_per_token": 2e-7},
        "vertex_ai/gemini-next": {"litellm_provider": "vertex_ai-language-models", "input_cost_per_token": 2e-7},
        "gpt-tiers": {"litellm_provider": "openai", "input_cost_per_token": 2e-7, "output_cost_per_token": 4e-7,
            "cache_read_input_token_cost": 2e-8, "input_cost_per_token_flex": 1e-7, "output_cost_per_token_flex": 2e-7,
            "cache_read_input_token_cost_flex": 2e-8, "input_cost_per_token_priority": 4e-7,
            "output_cost_per_token_priority": 6e-7},
        "whatever/x": {"litellm_provider": "whatever", "input_cost_per_token": 2e-7},
        "no-price": {"litellm_provider": "openai", "max_tokens": 5},
    });
    let ask = json!({"source":"file","models":list});
    let first = app.post("/api/pricing/sync", ask.clone()).await.expect(200).json();
    assert_eq!(
        (&first["added"], &first["updated"], &first["skipped"]),
        (&json!(4), &json!(0), &json!(3)),
        "{first}"
    );
    assert_eq!(first["unknownProviders"].as_array().map(Vec::len), Some(2), "{first}");
    let again = app.post("/api/pricing/sync", ask).await.expect(200).json();
    assert_eq!((&again["added"], &again["unchanged"]), (&json!(0), &json!(4)));
    let next = price(&app, "openai", "gpt-next").await;
    assert_eq!(
        said(&next),
        json!({"input":0.15,"output":0.6,"cached":0.075,"tiers":[{"above_tokens":200_000,"input":0.3}],"source":"synced"})
    );
    // Where prompts and answers rise by different factors there is none.
    assert_eq!(
        said(&price(&app, "openai", "gpt-tiers").await),
        json!({"input":0.2,"output":0.4,"cached":0.02,"flex":0.5,"flex_cached":1.0,"source":"synced"})
    );
    assert_eq!(price(&app, "together", "meta-llama/Next").await["input"], 0.2);
    assert_eq!(price(&app, "vertex", "gemini-next").await["input"], 0.2);
    app.patch("/api/pricing", json!({"openai":{"gpt-next":{"input":9}}})).await.expect(200);
    let quote = app.live.load().quote(&"openai".into(), "gpt-next").expect("priced");
    assert_eq!((quote.row.input, quote.row.output, quote.source.as_str()), (Some(9.0), Some(0.6), "user"));
    assert_eq!(app.post("/api/pricing/sync", json!({"source":"url"})).await.expect(400).fields(), ["source"]);
    assert_eq!(
        app.post("/api/pricing/sync", json!({"source":"file"})).await.expect(400).fields(),
        ["models"]
    );
}

#[tokio::test]
async fn what_so_many_tokens_would_cost() {
    let app = TestApp::new().await;
    let prices = json!({"input":1000,"output":2000,"cached":100,"reasoning":3000});
    app.patch("/api/pricing", json!({"openai":{"dear":prices}})).await.expect(200);
    let tokens = json!({"input":100,"cacheRead":40,"output":50,"reasoning":10});
    let ask = json!({"model":"openai/dear","tokens":tokens});
    let estimate = app.post("/api/pricing/estimate", ask).await.expect(200).json();
    assert_eq!(estimate["cost"], 0.174, "{estimate}");
    assert_eq!(
        estimate["breakdown"],
        json!({"input":0.06,"cacheRead":0.004,"output":0.08,"reasoning":0.03,"requests":0.0})
    );
    assert_eq!((&estimate["provider"], &estimate["priceSource"]), (&json!("openai"), &json!("user")));
    let ask = json!({"model":"openai/unheard-of","tokens":{"input":1}});
    let unknown = app.post("/api/pricing/estimate", ask).await.expect(200).json();
    assert_eq!((&unknown["cost"], &unknown["priceVersion"]), (&Value::Null, &Value::Null));
    for (ask, field) in [
        (json!({"model":"nobody/x","tokens":{}}), "model"),
        (json!({"model":"openai/dear","tokens":{"input":1,"cacheRead":2}}), "tokens.input"),
        (json!({"model":"openai/dear","tokens":{"output":1,"reasoning":2}}), "tokens.output"),
    ] {
        assert_eq!(
            app.post("/api/pricing/estimate", ask.clone()).await.expect(400).fields(),
            [field],
            "{ask}"
        );
    }
}

#[tokio::test]
async fn members_that_are_no_prices_are_told() {
    let app = TestApp::new().await;
    let row = json!({"input":1,"inptu":2,"tiers":[{"above_tokens":9,"zz":1}]});
    let answer = app.patch("/api/pricing", json!({"openai":{"x":row}})).await.expect(200);
    assert_eq!(answer.header("x-ignored-fields").as_deref(), Some("openai.x.inptu,openai.x.tiers[0].zz"));
    let row = answer.json()["openai"]["x"].clone();
    assert_eq!(said(&row), json!({"input":1.0,"tiers":[{"above_tokens":9}],"source":"user"}));
}

#[tokio::test]
async fn prices_go_with_the_endpoint_they_are_for() {
    let app = TestApp::new().await;
    let node = json!({"name":"mine","prefix":"mine","baseUrl":"https://models.example/v1"});
    let id = app.post("/api/provider-nodes", node).await.expect(201).json()["node"]["id"].clone();
    app.patch("/api/pricing", json!({"mine":{"m":{"input":1}},"openai":{"x":{"input":2}}})).await.expect(200);
    app.delete(&format!("/api/provider-nodes/{}", id.as_str().expect("id"))).await.expect(200);
    let left = app.get("/api/pricing?source=user").await.expect(200).json();
    assert_eq!(
        left.as_object().map(|table| table.keys().collect::<Vec<_>>()),
        Some(vec![&"openai".to_owned()])
    );
    assert_eq!(app.live.load().prices.user.len(), 1, "in force at once");
}
