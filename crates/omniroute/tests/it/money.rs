//! What answers cost whose bill is not that of a plain conversation, as clients and the log are told.

use omniroute_testkit::Answer;
use serde_json::{Value, json};

use crate::client::Call;
use crate::world::World;

async fn priced(row: Value) -> World {
    let world = World::start().await;
    world.gateway.set("PATCH", "/api/pricing", &json!({"up": {"m": row}})).await;
    world
}

#[tokio::test]
async fn speech_is_billed_by_the_tokens_of_its_sound() {
    let world = priced(json!({"input": 1, "audio_output": 10})).await;
    let body = json!({"model": "up/m", "input": "Twelve marks", "voice": "alloy", "response_format": "pcm"});
    let speak = || Call::post("/v1/audio/speech", body.to_string());
    // Two seconds of samples.
    world.upstream.answer(Answer::new(200, "audio/pcm").send(vec![0; 96_000]));
    let got = world.gateway.call(&speak()).await;
    assert_eq!(got.status, 200, "{}", got.text());
    assert_eq!(got.header("x-omniroute-response-cost"), Some("0.000503"));
    assert_eq!(got.header("x-omniroute-usage"), Some("estimated"));
    let told =
        "data: {\"type\":\"speech.audio.done\",\"usage\":{\"input_tokens\":3,\"output_tokens\":40}}\n\n";
    world.upstream.answer(Answer::sse(&[told]));
    let got = world.gateway.call(&speak()).await;
    assert_eq!(got.header("x-omniroute-response-cost"), Some("0.000403"));
    assert_eq!((got.header("x-omniroute-usage"), got.text().as_str()), (None, told));
    let logged = world.gateway.logged(2).await;
    let estimated: Vec<_> = logged.iter().map(|log| log["estimated"].as_bool().unwrap()).collect();
    assert!(estimated.contains(&true) && estimated.contains(&false), "{estimated:?}");
}

#[tokio::test]
async fn the_tier_of_an_answer_is_priced_and_logged() {
    let world = priced(json!({"input": 1_000, "output": 1_000, "flex": 0.5})).await;
    let whole = |tier: &str| {
        json!({"id": "x", "object": "chat.completion", "created": 1, "model": "m", "service_tier": tier,
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}})
    };
    for (told, cost) in [("default", "0.007"), ("flex", "0.0035"), ("priority", "unknown")] {
        world.upstream.answer(Answer::json(200, whole(told).to_string()));
        let body =
            json!({"model": "up/m", "service_tier": told, "messages": [{"role": "user", "content": "hi"}]});
        let got = world.gateway.call(&Call::post("/v1/chat/completions", body.to_string())).await;
        assert_eq!((got.status, got.header("x-omniroute-response-cost")), (200, Some(cost)), "{told}");
        assert_eq!(got.at("/service_tier"), told);
    }
    let logged = world.gateway.logged(3).await;
    let mut tiers: Vec<_> = logged.iter().map(|log| log["serviceTier"].as_str()).collect();
    tiers.sort_unstable();
    assert_eq!(tiers, [None, Some("flex"), Some("priority")]);
    let ask = json!({"model": "up/m", "tokens": {"input": 5, "output": 2, "serviceTier": "flex"}});
    let estimate = world.gateway.set("POST", "/api/pricing/estimate", &ask).await;
    assert_eq!(estimate["cost"], 0.0035);
}
