//! What speech costs where it is sold by tokens or by the second.

use http_body_util::BodyExt as _;
use omniroute_domain::entity::{ApiKeyId, Budget, Entities};
use omniroute_domain::price::PriceRow;
use omniroute_testkit::Answer;

use crate::transcription::begin;
use crate::world::World;

const NODE: &str = "openai-compatible-chat-1";
const ASK: &str = r#"{"model":"up/m","input":"Twelve marks","voice":"alloy","response_format":"mp3"}"#;

fn world(row: PriceRow, limit_nano: Option<i64>) -> World {
    let change = |entities: &mut Entities| {
        entities.prices.user.entry(NODE.into()).or_default().insert("m".into(), row);
        let budget = Budget::unlimited(Some(ApiKeyId::from("k1")));
        entities.budgets.push(Budget { total_nano: limit_nano, ..budget });
    };
    World::with(change, |_| {})
}

/// A second of sound in frames of 128 kbit/s, 44.1 kHz, but for a few samples.
fn mp3() -> Answer {
    let mut frame = b"\xff\xfb\x90\x64".to_vec();
    frame.resize(417, 0);
    Answer::new(200, "audio/mpeg").send(frame.repeat(38))
}

fn events() -> Answer {
    Answer::sse(&[
        "data: {\"type\":\"speech.audio.delta\",\"audio\":\"UklGRg==\"}\n\n",
        "data: {\"type\":\"speech.audio.done\",\"usage\":{\"input_tokens\":3,\"output_tokens\":20}}\n\n",
    ])
}

async fn speak(world: &World, body: &str, answer: Answer) -> (u16, String, bool) {
    world.transport.answer(answer);
    let ctx = begin(world, &[("authorization", "Bearer sk-omni-test")]);
    let response = world.engine.speech(ctx, body.to_owned().into()).await;
    let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    let cost = header("x-omniroute-response-cost").unwrap_or_default();
    let is_estimated = header("x-omniroute-usage").as_deref() == Some("estimated");
    let status = response.status().as_u16();
    response.into_body().collect().await.unwrap();
    (status, cost, is_estimated)
}

#[tokio::test(start_paused = true)]
async fn tokens_that_are_told_are_billed() {
    let row = PriceRow {
        input: Some(1.0),
        output: Some(5.0),
        audio_output: Some(10.0),
        per_second_out: Some(1.0),
        ..PriceRow::default()
    };
    let world = world(row, None);
    assert_eq!(speak(&world, ASK, events()).await, (200, "0.000203".to_owned(), false));
    let row = world.row();
    assert_eq!((row.usage.audio_output, row.usage_estimated), (Some(20), false));
}

#[tokio::test(start_paused = true)]
async fn tokens_that_are_not_told_are_estimated_by_the_sound() {
    let row = PriceRow { input: Some(1.0), audio_output: Some(10.0), ..PriceRow::default() };
    let world = world(row, None);
    // 3 tokens of text, 993 ms, 25 tokens of sound.
    assert_eq!(speak(&world, ASK, mp3()).await, (200, "0.000253".to_owned(), true));
    let row = world.row();
    assert_eq!(row.units.as_ref().map(|units| (units.millis_out, units.characters)), Some((993, 12)));
    assert!(row.bills[0].estimated);
    // What cannot be measured lasts as long as such a text does: 800 ms.
    let noise = Answer::new(200, "audio/x-unheard-of").send(&b"noise"[..]);
    assert_eq!(speak(&world, ASK, noise).await, (200, "0.000203".to_owned(), true));
}

#[tokio::test(start_paused = true)]
async fn a_price_of_seconds_is_for_the_length_of_the_sound() {
    let world = world(PriceRow { per_second_out: Some(0.001), ..PriceRow::default() }, None);
    assert_eq!(speak(&world, ASK, mp3()).await, (200, "0.000993".to_owned(), false));
    let pcm = ASK.replace("mp3", "pcm");
    let samples = || Answer::new(200, "audio/pcm").send(vec![0; 96_000]);
    assert_eq!(speak(&world, &pcm, samples()).await, (200, "0.002".to_owned(), false));
    let noise = Answer::new(200, "audio/x-unheard-of").send(&b"noise"[..]);
    assert_eq!(speak(&world, ASK, noise).await, (200, "0.0008".to_owned(), true));
}

#[tokio::test(start_paused = true)]
async fn what_it_may_cost_is_held_before_anybody_is_asked() {
    // 3 tokens of text and 20 of sound come to 20,300 nano-USD.
    let row = PriceRow { input: Some(0.1), audio_output: Some(1.0), ..PriceRow::default() };
    for (limit, status) in [(20_299, 429), (20_300, 200)] {
        let world = world(row.clone(), Some(limit));
        assert_eq!(speak(&world, ASK, events()).await.0, status, "{limit}");
        assert_eq!(world.transport.sent().len(), usize::from(status == 200));
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_price_nobody_knows() {
    let world = world(PriceRow::default(), None);
    assert_eq!(speak(&world, ASK, mp3()).await, (200, "unknown".to_owned(), false));
}
