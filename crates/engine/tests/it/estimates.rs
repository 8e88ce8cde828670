//! What is believed of a prompt that nobody counted: the same for money, limits, policies and combos.

use omniroute_dialect::openai::OpenAi;
use omniroute_domain::entity::{Entities, Policy, PolicyActions, PolicyConditions, PolicyKind, When};
use omniroute_domain::price::PriceRow;
use omniroute_testkit::Answer;

use crate::world::{Got, World, answer, combo, key};

const BEARER: &[(&str, &str)] = &[("authorization", "Bearer sk-omni-test")];
/// A picture of so much base64 would be 100,000 tokens by its bytes.
const LARGE: usize = 400_000;

fn asked(model: &str, content: &str) -> String {
    format!(r#"{{"model":"{model}","max_tokens":1,"messages":[{{"role":"user","content":{content}}}]}}"#)
}

fn picture() -> String {
    let data = "iVBO/+9x".repeat(LARGE / 8);
    format!(
        r#"[{{"type":"text","text":"what is it?"}},{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{data}"}}}}]"#
    )
}

fn words() -> String {
    format!("\"{}\"", "word ".repeat(LARGE / 5))
}

async fn chat(world: &World, model: &str, content: &str) -> Got {
    world.send(&OpenAi, &asked(model, content), BEARER).await
}

fn with(change: impl FnOnce(&mut Entities)) -> World {
    World::with(change, |options| options.fetch_media = false)
}

#[tokio::test(start_paused = true)]
async fn a_picture_is_not_billed_by_its_base64() {
    let world = World::new();
    let uncounted = r#"{"id":"x","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"a cat"},"finish_reason":"stop"}]}"#;
    world.transport.answer(Answer::json(200, uncounted)).answer(Answer::json(200, uncounted));
    let got = chat(&world, "up/m", &picture()).await;
    assert_eq!(got.header("x-omniroute-usage"), "estimated");
    let input = world.row().usage.input_total().unwrap();
    assert!((2_000..2_300).contains(&input), "{input}");
    assert_eq!(chat(&world, "up/m", &words()).await.status, 200);
    assert!(world.row().usage.input_total().unwrap() >= 100_000, "words are what they are");
}

#[tokio::test(start_paused = true)]
async fn a_picture_does_not_use_up_a_keys_tokens() {
    let world = with(|entities| {
        entities.api_keys = vec![key()];
        entities.api_keys[0].max_tokens_per_minute = Some(10_000);
    });
    world.transport.answer(answer("a cat"));
    let got = chat(&world, "up/m", &picture()).await;
    assert_eq!(got.status, 200, "{}", got.body);
    let got = chat(&world, "up/m", &words()).await;
    assert_eq!(got.status, 429, "{}", got.body);
}

#[tokio::test(start_paused = true)]
async fn a_picture_is_not_too_dear_for_a_policy() {
    let world = with(|entities| {
        // A tenth of a dollar is 10,000 tokens.
        let row = PriceRow { input: Some(10.0), output: Some(10.0), ..PriceRow::default() };
        entities.prices.user.entry("openai-compatible-chat-1".into()).or_default().insert("m".into(), row);
        entities.policies.push(Policy {
            id: "cheap".into(),
            name: "cheap".into(),
            kind: PolicyKind::Budget,
            enabled: true,
            mode: Default::default(),
            priority: 1,
            conditions: PolicyConditions::default(),
            actions: PolicyActions { max_cost_usd: Some(0.1), ..Default::default() },
            created_at: 0,
            updated_at: 0,
        });
    });
    world.transport.answer(answer("a cat"));
    let got = chat(&world, "up/m", &picture()).await;
    assert_eq!(got.status, 200, "{}", got.body);
    let got = chat(&world, "up/m", &words()).await;
    assert!(got.status == 403 && got.body.contains("policy_denied"), "{}", got.body);
}

#[tokio::test(start_paused = true)]
async fn a_picture_fits_where_its_tokens_do() {
    let world = with(|entities| {
        let mut best = combo("best", &["up/m"]);
        best.steps[0].when = Some(When { max_tokens: Some(10_000), ..When::default() });
        entities.combos.push(best);
    });
    world.transport.answer(answer("a cat"));
    let got = chat(&world, "best", &picture()).await;
    assert_eq!(got.status, 200, "{}", got.body);
    assert_eq!(chat(&world, "best", &words()).await.status, 503);
}
