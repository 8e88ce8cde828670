//! How a name comes to where it leads is told by what leads it there, step by step.

use serde_json::{Value, json};

use crate::app::TestApp;

const PATH: &str = "/api/models/availability";

async fn app() -> TestApp {
    let app = TestApp::new().await;
    for provider in ["openai", "groq", "openrouter"] {
        let body = json!({"provider":provider,"name":"work","apiKey":format!("sk-{provider}-1234567890")});
        app.post("/api/providers", body).await.expect(201);
    }
    for (alias, model) in [
        ("fast", "quick(high)"),
        ("quick", "openai/gpt-5.6"),
        ("claude-*", "best"),
        ("lost", "nowhere/at-all"),
    ] {
        app.put("/api/models/alias", json!({"alias":alias,"model":model})).await.expect(200);
    }
    let best = json!({"name":"best","models":["openai/gpt-5.6"]});
    let best = app.post("/api/combos", best).await.expect(201).json();
    let mapping = json!({"pattern":"gemini-*","comboId":best["id"],"priority":1});
    app.post("/api/model-combo-mappings", mapping).await.expect(201);
    app
}

/// Each step as its rule, the name before and what it became.
fn steps(told: &Value) -> Vec<(String, String, Option<String>)> {
    let text = |step: &Value, member: &str| step[member].as_str().map(str::to_owned);
    let list = told["steps"].as_array().unwrap_or_else(|| panic!("no steps in {told}"));
    list.iter()
        .map(|step| (text(step, "rule").expect("rule"), text(step, "from").expect("from"), text(step, "to")))
        .collect()
}

fn made(list: &[(&str, &str, &str)]) -> Vec<(String, String, Option<String>)> {
    list.iter()
        .map(|(rule, from, to)| ((*rule).to_owned(), (*from).to_owned(), Some((*to).to_owned())))
        .collect()
}

#[tokio::test]
async fn the_steps_are_told_where_they_are_asked_for() {
    let app = app().await;
    let asked = async |model: &str| app.post(PATH, json!({"model":model,"explain":true})).await;
    for (model, expected) in [
        ("openai/gpt-5.6", &[("prefix", "openai/gpt-5.6", "openai/gpt-5.6")][..]),
        (
            "openai/gpt-5.6@work",
            &[
                ("prefix", "openai/gpt-5.6@work", "openai/gpt-5.6@work"),
                ("account", "gpt-5.6@work", "gpt-5.6"),
            ],
        ),
        (
            "fast[1m]",
            &[
                ("suffix", "fast[1m]", "fast"),
                ("alias", "fast", "quick(high)"),
                ("suffix", "quick(high)", "quick"),
                ("alias", "quick", "openai/gpt-5.6"),
                ("prefix", "openai/gpt-5.6", "openai/gpt-5.6"),
            ],
        ),
        ("combo/best", &[("combo", "combo/best", "best")]),
        ("claude-9", &[("pattern", "claude-9", "best"), ("combo", "best", "best")]),
        ("gemini-9", &[("mapping", "gemini-9", "best")]),
        ("gpt-5.6", &[("bare", "gpt-5.6", "openai/gpt-5.6")]),
    ] {
        let told = asked(model).await.expect(200).json();
        assert_eq!(steps(&told), made(expected), "{model}: {told}");
        // The answer is the same, and the steps are not told to who does not ask.
        let mut plain = app.post(PATH, json!({"model":model})).await.expect(200).json();
        assert_eq!(plain["steps"], Value::Null);
        plain["steps"] = told["steps"].clone();
        assert_eq!(plain, told);
    }
    let bare = asked("gpt-5.6").await.expect(200).json();
    assert!(bare["steps"][0]["why"].as_str().is_some_and(|why| why.contains("lists it")), "{bare}");
    // A provider without an account is known all the same.
    let told = asked("anthropic/claude-x").await.expect(200).json();
    assert_eq!(steps(&told), made(&[("prefix", "anthropic/claude-x", "anthropic/claude-x")]));
}

#[tokio::test]
async fn a_name_that_leads_nowhere_says_how_far_it_came() {
    let app = app().await;
    let answer = app.post(PATH, json!({"model":"lost(high)","explain":true})).await.expect(404).json();
    let details = answer["error"]["details"].as_array().expect("list");
    let told: Vec<_> = details
        .iter()
        .map(|it| (it["field"].as_str().expect("text"), it["message"].as_str().expect("text")))
        .collect();
    assert_eq!(told[0], ("steps[0]", "suffix: `lost(high)` → `lost` (it says how much to reason)"));
    assert_eq!(told[1], ("steps[1]", "alias: `lost` → `nowhere/at-all`"));
    assert_eq!((told.len(), told[2].0), (3, "steps[2]"));
    assert!(told[2].1.starts_with("bare: `nowhere/at-all` (no provider here lists it"), "{told:?}");
    let answer = app.post(PATH, json!({"model":"lost(high)"})).await.expect(404).json();
    assert_eq!(answer["error"]["details"], Value::Null, "{answer}");
}
