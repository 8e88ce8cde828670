//! Pictures that can be watched while they are painted.

use std::time::Duration;

use http_body_util::BodyExt as _;
use omniroute_domain::price::PriceRow;
use omniroute_testkit::Answer;

use crate::images::{PNG, ask, here, respond, sent};
use crate::world::{World, refusal};

const ASK: &str = r#"{"model":"up/gpt-image-1","prompt":"a cat","stream":true,"partial_images":2}"#;
const NODE: &str = "openai-compatible-chat-1";

fn event(kind: &str, more: &str) -> String {
    let name = format!("image_generation.{kind}");
    format!("event: {name}\ndata: {{\"type\":\"{name}\",\"b64_json\":\"{PNG}\"{more}}}\n\n")
}

fn sketch() -> String {
    event("partial_image", ",\"partial_image_index\":0")
}

fn done() -> String {
    event("completed", ",\"usage\":{\"input_tokens\":10,\"output_tokens\":500,\"total_tokens\":510}")
}

fn stream() -> Answer {
    Answer::new(200, "text/event-stream")
}

#[tokio::test(start_paused = true)]
async fn events_come_as_the_upstream_sends_them() {
    let world = World::with(
        |entities| {
            let row = PriceRow { image: Some(0.04), ..PriceRow::default() };
            entities.prices.user.entry(NODE.into()).or_default().insert("gpt-image-1".into(), row);
        },
        |_| {},
    );
    let pause = Duration::from_secs(3);
    world.transport.answer(stream().send(sketch()).pause(pause).send(sketch()).pause(pause).send(done()));
    let response = respond(&world, ASK, &[]).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
    assert_eq!(world.elapsed(), Duration::ZERO, "the head goes out with the first event");
    let mut body = response.into_body();
    for (at, expected) in [(0, sketch()), (3, sketch()), (6, done())] {
        let bytes = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!((world.elapsed().as_secs(), bytes.as_ref()), (at, expected.as_bytes()));
    }
    assert!(body.frame().await.is_none());
    drop(body);
    assert_eq!(sent(&world, 0), ASK.replace("up/", ""));
    let row = world.row();
    assert_eq!((row.status, row.request_type), (200, "image"));
    assert_eq!(row.usage.output_total, Some(500));
    assert_eq!((row.units.map(|units| units.images), row.cost_nano), (Some(1), Some(40_000_000)));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_takes_its_call_with_it() {
    let world = World::new();
    world.transport.answer(stream().send(sketch()).hang());
    let mut body = respond(&world, ASK, &[]).await.into_body();
    body.frame().await.unwrap().unwrap();
    drop(body);
    assert_eq!(world.transport.cancelled(), 1);
    let row = world.row();
    assert_eq!((row.status, row.units.map(|units| units.images)), (499, Some(0)));
    assert_eq!(row.usage.output_total, None, "nothing is made up");
}

#[tokio::test(start_paused = true)]
async fn until_the_first_event_another_account_can_be_asked() {
    let error = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"server_error\",\"message\":\"no\"}}\n\n";
    let world = World::with(|entities| entities.settings.request_retry = 0, |_| {});
    world.transport.answer(refusal(500, "server_error", "no")).answer(stream().send(error));
    let got = ask(&world, ASK, &[]).await;
    assert_eq!(got.header("x-omniroute-attempts"), "2", "{}", got.body);
    assert!(got.status >= 500 && got.header("content-type") == "application/json", "{}", got.body);

    let world = World::new();
    world.transport.answer(stream().send(error)).answer(stream().send(done()));
    let got = ask(&world, ASK, &[]).await;
    assert_eq!((got.status, got.header("x-omniroute-attempts"), &*got.body), (200, "2", &*done()));
}

#[tokio::test(start_paused = true)]
async fn later_it_is_told_in_the_stream() {
    for (rest, says) in [
        (
            Some("event: error\ndata: {\"error\":{\"message\":\"broke\",\"code\":\"server_error\"}}\n\n"),
            "broke",
        ),
        (None, "upstream_stream_truncated"),
    ] {
        let world = World::new();
        let begun = stream().send(sketch());
        world.transport.answer(match rest {
            Some(rest) => begun.send(rest),
            None => begun,
        });
        let got = ask(&world, ASK, &[]).await;
        assert!(got.status == 200 && got.body.starts_with(&sketch()), "{}", got.body);
        let last = got.body.strip_prefix(&sketch()).unwrap();
        assert!(last.starts_with("data: {\"error\":") && last.contains(says), "{last}");
        assert!(world.row().status >= 500);
    }
}

#[tokio::test(start_paused = true)]
async fn who_answers_whole_or_cannot_be_watched_is_told_as_a_stream() {
    let world = World::new();
    world.transport.answer(here()).answer(here());
    let got = ask(&world, ASK, &[]).await;
    assert!(got.body.starts_with("event: image_generation.completed\ndata: {"), "{}", got.body);
    assert!(got.header("content-type").starts_with("text/event-stream"));
    let got = ask(&world, &ASK.replace("gpt-image-1", "flux"), &[]).await;
    assert!(got.body.starts_with("event: image_generation.completed\ndata: {"), "{}", got.body);
    assert_eq!(sent(&world, 1), r#"{"model":"flux","prompt":"a cat"}"#);
    assert_eq!(world.row().units.map(|units| units.images), Some(1));
}

#[tokio::test(start_paused = true)]
async fn silence_before_the_first_event_is_filled() {
    let world = World::new();
    world.transport.answer(stream().pause(Duration::from_secs(40)).send(done()));
    let got = ask(&world, ASK, &[]).await;
    assert!(got.status == 200 && got.body.starts_with(':') && got.body.ends_with(&done()), "{}", got.body);
}
