//! What would become of requests that are forms or change pictures, without sending them.

use serde_json::{Value, json};

use crate::client::Call;
use crate::gateway::{Gateway, Start};

const TRANSCRIPTS: &str = "/v1/audio/transcriptions";
const EDITS: &str = "/v1/images/edits";

/// A gateway with accounts whose keys nobody knows: nothing is sent.
async fn gateway() -> Gateway {
    let gateway = Start::new().run().await;
    for provider in ["openai", "deepgram", "anthropic"] {
        let account = json!({"provider": provider, "name": provider, "apiKey": "sk-nobodys"});
        gateway.set("POST", "/api/providers", &account).await;
    }
    gateway
}

async fn explain(gateway: &Gateway, question: Value) -> Value {
    gateway.set("POST", "/api/route/explain", &question).await
}

/// Which accounts are asked, in order, and what that costs.
fn tried(told: &Value) -> Vec<(&str, Option<f64>)> {
    let candidates = told["candidates"].as_array().unwrap().iter().filter(|it| it["action"] == "try");
    candidates.map(|it| (it["provider"].as_str().unwrap(), it["estimatedCostUsd"].as_f64())).collect()
}

fn recording(model: &str, file: &Value) -> Value {
    let mut field = json!({"name": "file", "filename": "talk.mp3", "contentType": "audio/mpeg"});
    field.as_object_mut().unwrap().extend(file.as_object().unwrap().clone());
    json!({"path": TRANSCRIPTS, "form": [{"name": "model", "value": model}, field]})
}

#[tokio::test]
async fn a_recording_that_is_only_spoken_of_is_routed_and_priced() {
    let gateway = gateway().await;
    gateway.set("PATCH", "/api/pricing", &json!({"openai": {"whisper-1": {"per_second_in": 0.0001}}})).await;
    let combo =
        json!({"name": "scribe", "strategy": "priority", "models": ["openai/whisper-1", "deepgram/nova-3"]});
    gateway.set("POST", "/api/combos", &combo).await;

    let told =
        explain(&gateway, recording("openai/whisper-1", &json!({"bytes": 320_000, "seconds": 60.0}))).await;
    assert_eq!(told["requestedModel"], "openai/whisper-1");
    assert_eq!(tried(&told), [("openai", Some(0.006))], "{told}");
    // Without it as long as so many bytes usually are.
    let told = explain(&gateway, recording("openai/whisper-1", &json!({"bytes": 320_000}))).await;
    assert_eq!(tried(&told), [("openai", Some(0.002))], "{told}");
    let told = explain(&gateway, recording("scribe", &json!({"bytes": 320_000, "seconds": 60}))).await;
    let providers: Vec<&str> = tried(&told).iter().map(|(provider, _)| *provider).collect();
    assert_eq!((providers, &told["combo"]), (vec!["openai", "deepgram"], &json!("scribe")));
    assert_eq!(tried(&told)[0].1, Some(0.006), "what a recording costs, in a combo too: {told}");

    // Deepgram writes down what is said, and translates nothing.
    let mut question = recording("scribe", &json!({"bytes": 1_000}));
    question["path"] = json!("/v1/audio/translations");
    let told = explain(&gateway, question).await;
    assert_eq!(tried(&told).iter().map(|(provider, _)| *provider).collect::<Vec<_>>(), ["openai"], "{told}");
    let skipped = told["candidates"].as_array().unwrap().iter().find(|it| it["action"] == "skip").unwrap();
    assert_eq!(skipped["rule"], "capability", "{told}");
    let told = explain(&gateway, recording("anthropic/claude-opus-4-8", &json!({"bytes": 9}))).await;
    assert_eq!((tried(&told), told["error"]["status"].clone()), (vec![], json!(400)), "{told}");

    // A minute costs more than the key has left.
    let key = gateway.set("POST", "/api/keys", &json!({"name": "poor"})).await["id"].clone();
    let budget = json!({"apiKeyId": key, "dailyLimitUsd": 0.003});
    gateway.set("POST", "/api/usage/budget", &budget).await;
    for (seconds, code) in [(10, Value::Null), (60, json!("budget_exceeded"))] {
        let mut question = recording("openai/whisper-1", &json!({"bytes": 9, "seconds": seconds}));
        question["apiKeyId"] = key.clone();
        let told = explain(&gateway, question).await;
        assert_eq!(told["error"]["code"], code, "{told}");
    }
}

#[tokio::test]
async fn pictures_that_are_to_be_changed_are_explained_in_both_forms() {
    let gateway = gateway().await;
    let combo = json!({"name": "brush", "strategy": "priority", "models": ["anthropic/claude-opus-4-8", "openai/gpt-image-1"]});
    gateway.set("POST", "/api/combos", &combo).await;
    let picture = json!({"name": "image[]", "filename": "a.png", "contentType": "image/png", "bytes": 1_000});
    let words =
        |model: &str| [json!({"name": "model", "value": model}), json!({"name": "prompt", "value": "a hat"})];
    for model in ["brush", "openai/gpt-image-1"] {
        let mut form = words(model).to_vec();
        form.extend([picture.clone(), picture.clone()]);
        let told = explain(&gateway, json!({"path": EDITS, "form": form})).await;
        assert_eq!(
            tried(&told).iter().map(|(provider, _)| *provider).collect::<Vec<_>>(),
            ["openai"],
            "{told}"
        );
        let body = json!({"model": model, "prompt": "a hat", "images": [{"image_url": "https://example.com/a.png"}]});
        let told = explain(&gateway, json!({"path": EDITS, "body": body})).await;
        assert_eq!(
            tried(&told).iter().map(|(provider, _)| *provider).collect::<Vec<_>>(),
            ["openai"],
            "{told}"
        );
    }
}

/// An order by chance can be asked for again, and is the one of the request that had the bits.
#[tokio::test]
async fn the_bits_of_a_decision_make_it_again() {
    let gateway = gateway().await;
    let models = ["sim/echo", "sim/lorem", "sim/size-9", "sim/size-8", "sim/size-7"];
    gateway.set("POST", "/api/combos", &json!({"name": "any", "strategy": "random", "models": models})).await;
    let body = json!({"model": "any", "messages": [{"role": "user", "content": "hello"}]});
    let mut question = json!({"path": "/v1/chat/completions", "body": body});
    let order = |told: &Value| -> Vec<String> {
        let candidates = told["candidates"].as_array().unwrap();
        candidates.iter().map(|it| it["model"].as_str().unwrap().to_owned()).collect()
    };
    for _ in 0..4 {
        assert_eq!(gateway.call(&Call::post("/v1/chat/completions", body.to_string())).await.status, 200);
    }
    for row in gateway.logged(4).await {
        let path = format!("/api/usage/call-logs/{}", row["id"].as_str().unwrap());
        let route = gateway.manage("GET", &path, &Value::Null).await.json()["route"].clone();
        question["seed"] = route["seed"].clone();
        let told = explain(&gateway, question.clone()).await;
        assert_eq!(order(&told), order(&route));
        assert_eq!(told["seed"], route["seed"]);
    }
    for seed in ["-1", "+5", "", " 5", "18446744073709551616"] {
        question["seed"] = json!(seed);
        let wrong = gateway.manage("POST", "/api/route/explain", &question).await;
        assert_eq!(wrong.status, 400, "{seed:?}");
        assert!(wrong.text().contains("seed") && wrong.text().contains("digits"), "{}", wrong.text());
    }
}

/// What is told beforehand of a request that leads nowhere is what its record says.
#[tokio::test]
async fn a_name_that_leads_nowhere_is_recorded_as_it_is_explained() {
    let gateway = gateway().await;
    for (model, status) in [("nix/m", 400), ("no-such-model", 404)] {
        let body = json!({"model": model, "messages": [{"role": "user", "content": "hello"}]});
        let got = gateway.call(&Call::post("/v1/chat/completions", body.to_string())).await;
        assert_eq!(got.status, status, "{}", got.text());
        let row = gateway.logged(1).await.remove(0);
        let path = format!("/api/usage/call-logs/{}", row["id"].as_str().unwrap());
        let mut route = gateway.manage("GET", &path, &Value::Null).await.json()["route"].clone();
        let question = json!({"path": "/v1/chat/completions", "body": body, "seed": route["seed"]});
        let mut told = explain(&gateway, question).await;
        assert_eq!(told["error"]["status"], status, "{told}");
        assert_eq!(route["attempts"], json!([]));
        route.as_object_mut().unwrap().remove("attempts");
        for record in [&mut route, &mut told] {
            record.as_object_mut().unwrap().remove("decidedAt").unwrap();
        }
        assert_eq!(route, told);
        gateway.set("DELETE", "/api/usage/logs?before=2999-01-01T00:00:00Z", &Value::Null).await;
    }
}

#[tokio::test]
async fn what_reaches_one_account_or_nobody_is_recorded_as_it_is_explained() {
    let gateway = gateway().await;
    let spare = json!({"provider": "openai", "name": "spare", "apiKey": "sk-another", "isActive": false});
    gateway.set("POST", "/api/providers", &spare).await;
    let models = ["openai/text-embedding-3-small", "openai/text-embedding-3-large"];
    let pair = ["sim/echo", "sim/lorem"];
    for combo in [
        json!({"name": "mixed", "models": models}),
        json!({"name": "pair", "models": pair}),
        json!({"name": "best", "models": pair, "strategy": "auto"}),
        json!({"name": "barred", "models": pair}),
    ] {
        gateway.set("POST", "/api/combos", &combo).await;
    }
    let barred = json!({"name": "no", "type": "access", "actions": {"block_model": ["barred"]}});
    gateway.set("POST", "/api/policies", &barred).await;
    let messages = json!([{"role": "user", "content": "hello there"}]);
    let contents = json!({"contents": [{"parts": [{"text": "hello there"}]}]});
    for (path, body, kind, status) in [
        ("/v1/messages/count_tokens", json!({"model": "sim/echo", "messages": messages}), "count", 200),
        ("/v1/messages/count_tokens", json!({"model": "pair", "messages": messages}), "count", 200),
        ("/v1/messages/count_tokens", json!({"model": "nobody/knows", "messages": messages}), "count", 200),
        ("/v1/responses/input_tokens", json!({"model": "pair", "input": "hello there"}), "count", 200),
        ("/v1beta/models/sim/echo:countTokens", contents, "count", 200),
        ("/v1/messages/count_tokens", json!({"model": "best", "messages": messages}), "count", 200),
        ("/v1/messages/count_tokens", json!({"model": "barred", "messages": messages}), "count", 403),
        ("/v1/chat/completions", json!({"model": "barred", "messages": messages}), "chat", 403),
        ("/v1/embeddings", json!({"model": "mixed", "input": "hello there"}), "embedding", 400),
    ] {
        let got = gateway.call(&Call::post(path, body.to_string())).await;
        assert_eq!(got.status, status, "{path} {}", got.text());
        let row = gateway.logged(1).await.remove(0);
        assert_eq!((&row["requestType"], &row["path"]), (&json!(kind), &json!(path)));
        let log = format!("/api/usage/call-logs/{}", row["id"].as_str().unwrap());
        let mut route = gateway.manage("GET", &log, &Value::Null).await.json()["route"].clone();
        assert_eq!(route["attempts"], json!([]), "{path}");
        route.as_object_mut().unwrap().remove("attempts");
        let question = json!({"path": path, "body": body, "seed": route["seed"]});
        let mut told = explain(&gateway, question).await;
        let candidates = told["candidates"].as_array().unwrap();
        let is_skipped = candidates.iter().all(|it| it["action"] == "skip");
        assert!(
            is_skipped
                && candidates.is_empty() == body["model"].as_str().is_some_and(|it| it.starts_with("nobody")),
            "{told}"
        );
        for record in [&mut route, &mut told] {
            record.as_object_mut().unwrap().remove("decidedAt").unwrap();
            record.as_object_mut().unwrap().remove("estimatedTokens").unwrap();
        }
        assert_eq!(route, told, "{path} {body}");
        gateway.set("DELETE", "/api/usage/logs?before=2999-01-01T00:00:00Z", &Value::Null).await;
    }
}

#[tokio::test]
async fn questions_about_what_is_no_request_say_where() {
    let gateway = gateway().await;
    let file = json!({"name": "file", "bytes": 10});
    let model = json!({"name": "model", "value": "openai/whisper-1"});
    let picture = json!({"name": "image", "bytes": 10, "contentType": "image/png"});
    let document = json!({"model": "a/b", "messages": []});
    let cases = [
        (json!({"path": TRANSCRIPTS}), "form"),
        (json!({"path": TRANSCRIPTS, "body": {}, "form": []}), "form"),
        (json!({"path": TRANSCRIPTS, "body": {}}), "body"),
        (json!({"path": TRANSCRIPTS, "form": [model]}), "form"),
        (json!({"path": TRANSCRIPTS, "form": [file]}), "form"),
        (json!({"path": TRANSCRIPTS, "form": [model, file, file]}), "form[2]"),
        (json!({"path": TRANSCRIPTS, "form": [model, model, file]}), "form[1]"),
        (json!({"path": TRANSCRIPTS, "form": [model, picture]}), "form[1]"),
        (json!({"path": TRANSCRIPTS, "form": [model, {"name": "file", "value": "x"}]}), "form[1]"),
        (json!({"path": TRANSCRIPTS, "form": [{"name": "model"}]}), "form[0].value"),
        (
            json!({"path": TRANSCRIPTS, "form": [{"name": "model", "value": "x", "bytes": 1}]}),
            "form[0].bytes",
        ),
        (
            json!({"path": TRANSCRIPTS, "form": [{"name": "model", "value": "x", "seconds": 1}]}),
            "form[0].seconds",
        ),
        (
            json!({"path": TRANSCRIPTS, "form": [{"name": "file", "bytes": 1, "seconds": -1}]}),
            "form[0].seconds",
        ),
        (json!({"path": TRANSCRIPTS, "form": [model, {"name": "file", "bytes": 600_000_000}]}), "form[1]"),
        (
            json!({"path": TRANSCRIPTS, "form": [model, {"name": "language", "value": "no language"}, file]}),
            "form[1]",
        ),
        (json!({"path": EDITS, "form": [model, {"name": "prompt", "value": "x"}]}), "form"),
        (json!({"path": "/v1/chat/completions", "form": [model]}), "form"),
        (json!({"path": "/v1/models", "body": document}), "method"),
        (json!({"path": "/v1/messages/count_tokens", "form": [model]}), "form"),
        (json!({"path": "/v1/messages/count_tokens"}), "body"),
        (json!({"path": "/v1/chat/completions"}), "body"),
        (json!({"method": "GET", "path": "/v1/chat/completions"}), "method"),
        (json!({"method": "GET", "path": "/v1/models"}), "path"),
        (json!({"method": "no method", "path": "/v1/responses/resp_1"}), "method"),
        (json!({"path": "/v1/responses/resp_1"}), "method"),
        (json!({"method": "DELETE", "path": "/v1/responses/resp_1", "form": [model]}), "form"),
    ];
    for (question, field) in cases {
        let answer = gateway.manage("POST", "/api/route/explain", &question).await;
        assert_eq!(answer.status, 400, "{question} {}", answer.text());
        assert_eq!(answer.json()["error"]["details"][0]["field"], field, "{question} {}", answer.text());
    }
}

#[tokio::test]
async fn counts_of_tokens_and_kept_answers_are_explained() {
    let gateway = gateway().await;
    let spare = json!({"provider": "anthropic", "name": "spare", "apiKey": "sk-another", "isActive": false});
    gateway.set("POST", "/api/providers", &spare).await;
    let document = json!({"model": "anthropic/claude-sonnet-5-5", "messages": [{"role": "user", "content": "hello there"}]});
    for path in ["/v1/messages/count_tokens", "/v1/messages/count_tokens?beta=true"] {
        let told = explain(&gateway, json!({"path": path, "body": document})).await;
        assert_eq!(tried(&told), [("anthropic", Some(0.0))], "{told}");
        let spare = &told["candidates"][1];
        assert_eq!(
            (&spare["connectionName"], &spare["rule"]),
            (&json!("spare"), &json!("inactive")),
            "{told}"
        );
        assert_eq!((&told["error"], &told["via"]), (&Value::Null, &json!("direct")), "{told}");
        assert!(told["estimatedTokens"].as_u64().is_some_and(|tokens| tokens > 0), "{told}");
    }
    // OpenAI counts in another dialect, and nobody has to be asked for an estimate.
    let elsewhere = json!({"model": "openai/gpt-5.6", "messages": document["messages"]});
    let told = explain(&gateway, json!({"path": "/v1/messages/count_tokens", "body": elsewhere})).await;
    assert_eq!((tried(&told), &told["candidates"][0]["rule"]), (vec![], &json!("capability")), "{told}");
    assert_eq!(told["error"], Value::Null);
    for (path, body) in [
        (
            "/v1beta/models/anthropic/claude-sonnet-5-5:countTokens",
            json!({"contents": [{"parts": [{"text": "hi"}]}]}),
        ),
        ("/v1/responses/input_tokens", json!({"model": "openai/gpt-5.6", "input": "hi"})),
    ] {
        let told = explain(&gateway, json!({"path": path, "body": body})).await;
        assert_eq!(
            (&told["error"], told["estimatedTokens"].is_u64()),
            (&Value::Null, true),
            "{path}: {told}"
        );
    }
    // What nobody made is not there; with which key it was made is for whoever asks to say.
    for (method, path) in [
        ("GET", "/v1/responses/resp_1"),
        ("delete", "/v1/responses/resp_1"),
        ("POST", "/v1/responses/resp_1/cancel"),
        ("GET", "/v1/responses/resp_1/input_items?limit=2"),
    ] {
        let told = explain(&gateway, json!({"method": method, "path": path})).await;
        assert_eq!(
            (&told["error"]["status"], &told["candidates"]),
            (&json!(404), &json!([])),
            "{path}: {told}"
        );
    }
}

#[tokio::test]
async fn paths_are_read_as_those_of_clients_are() {
    let gateway = Start::new().run().await;
    let body = json!({"contents": [{"parts": [{"text": "hi"}]}]});
    for path in ["/v1beta/models/sim/echo:generateContent", "/v1beta/models/sim%2Fecho%3AgenerateContent"] {
        let told = explain(&gateway, json!({"path": path, "body": body})).await;
        assert_eq!((&told["requestedModel"], tried(&told).len()), (&json!("sim/echo"), 1), "{path}: {told}");
    }
}
