//! Vendors of pictures with formats of their own.

use std::time::Duration;

use http::Method;
use omniroute_domain::entity::Entities;
use omniroute_provider::ProviderId;
use omniroute_testkit::Answer;

use crate::images::{PNG, ask, sent};
use crate::world::{World, connection};

fn world() -> World {
    let add = |entities: &mut Entities| {
        let vendors = ["fal", "black-forest-labs", "replicate", "stability", "hyperbolic", "openrouter"];
        for (at, vendor) in vendors.into_iter().enumerate() {
            entities.connections.push(connection(&format!("p{at}"), &ProviderId::from(vendor), vendor, 1));
        }
    };
    World::with(add, |_| {})
}

fn json(text: &str) -> Answer {
    Answer::json(200, text.to_owned())
}

#[tokio::test(start_paused = true)]
async fn pictures_of_one_call() {
    let world = world();
    world.transport.answer(json(
        r#"{"images":[{"url":"https://v3.fal.media/1.png"},{"url":"https://v3.fal.media/2.png"}]}"#,
    ));
    let got =
        ask(&world, r#"{"model":"fal/fal-ai/flux/schnell","prompt":"p","n":2,"size":"512x512"}"#, &[]).await;
    assert!(got.status == 200 && got.body.contains(r#""url":"https://v3.fal.media/2.png""#), "{}", got.body);
    let call = &world.transport.sent()[0];
    assert_eq!(call.uri.to_string(), "https://fal.run/fal-ai/flux/schnell");
    assert_eq!(call.headers["authorization"], "Key upstream-key-of-fal");
    assert_eq!(sent(&world, 0), r#"{"prompt":"p","num_images":2,"image_size":{"width":512,"height":512}}"#);
    assert_eq!(world.row().units.map(|units| units.images), Some(2));

    // Two calls, since it paints one at a time; the pictures are here and wanted as addresses.
    let world = self::world();
    for _ in 0..2 {
        world.transport.answer(json(&format!(r#"{{"images":[{{"index":0,"image":"{PNG}"}}]}}"#)));
    }
    let body = r#"{"model":"hyperbolic/SDXL1.0-base","prompt":"p","n":2,"response_format":"url"}"#;
    let got = ask(&world, body, &[]).await;
    assert_eq!(got.body.matches("data:image/png;base64,").count(), 2, "{}", got.body);
    assert_eq!(sent(&world, 1), r#"{"model_name":"SDXL1.0-base","prompt":"p","width":1024,"height":1024}"#);

    let world = self::world();
    world.transport.answer(json(&format!(r#"{{"image":"{PNG}","finish_reason":"SUCCESS","seed":1}}"#)));
    let got = ask(&world, r#"{"model":"stability/sd3.5-large","prompt":"p"}"#, &[]).await;
    assert!(got.status == 200 && got.body.contains(PNG), "{}", got.body);
    let call = &world.transport.sent()[0];
    assert!(call.uri.path().ends_with("/stable-image/generate/sd3"), "{}", call.uri);
    assert_eq!(call.headers["accept"], "application/json");
    assert!(call.headers["content-type"].to_str().unwrap().starts_with("multipart/form-data; boundary="));
    assert!(sent(&world, 0).contains("name=\"model\"\r\n\r\nsd3.5-large\r\n"));

    let world = self::world();
    world.transport.answer(json(&format!(
        r#"{{"created":1,"data":[{{"b64_json":"{PNG}","media_type":"image/png"}}],"usage":{{"cost":0.04}}}}"#
    )));
    let got = ask(
        &world,
        r#"{"model":"openrouter/google/gemini-3.1-flash-image","prompt":"p","response_format":"b64_json"}"#,
        &[],
    )
    .await;
    assert_eq!((got.status, got.header("x-omniroute-response-cost")), (200, "0.04"), "{}", got.body);
    assert_eq!(world.transport.sent()[0].uri.to_string(), "https://openrouter.ai/api/v1/images");
    assert_eq!(sent(&world, 0), r#"{"model":"google/gemini-3.1-flash-image","prompt":"p"}"#);
}

#[tokio::test(start_paused = true)]
async fn an_order_is_asked_for_until_it_is_carried_out() {
    let world = world();
    let pending = || json(r#"{"id":"x","status":"Pending","result":null}"#);
    world
        .transport
        .answer(json(r#"{"id":"x","polling_url":"https://api.us1.bfl.ai/v1/get_result?id=x"}"#))
        .answer(pending())
        .answer(json(r#"{"id":"x","status":"Ready","result":{"sample":"https://delivery.bfl.ai/1.jpg"}}"#));
    let got = ask(&world, r#"{"model":"bfl/flux-2-pro","prompt":"p"}"#, &[]).await;
    assert!(got.status == 200 && got.body.contains("https://delivery.bfl.ai/1.jpg"), "{}", got.body);
    assert_eq!(world.elapsed(), Duration::from_secs(2));
    let calls = world.transport.sent();
    assert_eq!(calls.len(), 3);
    assert_eq!(
        (&calls[0].method, calls[0].uri.to_string().as_str()),
        (&Method::POST, "https://api.bfl.ai/v1/flux-2-pro")
    );
    assert_eq!(
        (&calls[2].method, calls[2].uri.to_string().as_str()),
        (&Method::GET, "https://api.us1.bfl.ai/v1/get_result?id=x")
    );
    assert_eq!(calls[2].headers["x-key"], "upstream-key-of-black-forest-labs");
    assert_eq!(world.row().attempts.len(), 1);

    let world = self::world();
    world
        .transport
        .answer(json(r#"{"id":"x","status":"succeeded","output":["https://replicate.delivery/1.webp"]}"#));
    let got = ask(&world, r#"{"model":"replicate/black-forest-labs/flux-1.1-pro","prompt":"p"}"#, &[]).await;
    assert!(got.status == 200 && got.body.contains("replicate.delivery"), "{}", got.body);
    let call = &world.transport.sent()[0];
    assert_eq!(
        call.uri.to_string(),
        "https://api.replicate.com/v1/models/black-forest-labs/flux-1.1-pro/predictions"
    );
    assert_eq!(call.headers["prefer"], "wait");

    let world = self::world();
    world
        .transport
        .answer(json(r#"{"id":"x","status":"succeeded","output":"https://replicate.delivery/1.png"}"#));
    assert_eq!(ask(&world, r#"{"model":"replicate/a/b:v1","prompt":"p"}"#, &[]).await.status, 200);
    assert_eq!(world.transport.sent()[0].uri.to_string(), "https://api.replicate.com/v1/predictions");
    assert_eq!(sent(&world, 0), r#"{"version":"v1","input":{"prompt":"p"}}"#);
}

#[tokio::test(start_paused = true)]
async fn what_comes_to_nothing_says_why() {
    let order = || json(r#"{"id":"x","polling_url":"https://api.bfl.ai/v1/get_result?id=x"}"#);
    // It is not to be.
    let world = world();
    world.transport.answer(order()).answer(json(r#"{"id":"x","status":"Content Moderated"}"#));
    let got = ask(&world, r#"{"model":"bfl/flux-2-pro","prompt":"p"}"#, &[]).await;
    assert!(got.status == 502 && got.body.contains("Content Moderated"), "{} {}", got.status, got.body);
    // So is an order that failed: nobody else is asked for it, and the account stays as well as it was.
    let world = World::with(
        |entities| {
            for (at, id) in ["r0", "r1"].into_iter().enumerate() {
                let at = i64::try_from(at).unwrap();
                entities.connections.push(connection(id, &"replicate".into(), id, at));
            }
        },
        |_| {},
    );
    world
        .transport
        .answer(json(r#"{"id":"x","status":"failed","output":null,"error":"NSFW content detected"}"#));
    let got = ask(&world, r#"{"model":"replicate/black-forest-labs/flux-1.1-pro","prompt":"p"}"#, &[]).await;
    assert!(got.status == 502 && got.body.contains("NSFW content detected"), "{} {}", got.status, got.body);
    assert_eq!(world.transport.sent().len(), 1, "another account would fail as well");
    let state = world.engine.live.load().connection(&"r0".into()).unwrap().clone();
    assert!(state.check("black-forest-labs/flux-1.1-pro", world.engine.clock.now_ms()).is_ok());
    // What says nothing of an order is the vendor's own failure, and another account is asked.
    world
        .transport
        .answer(json(r#"{"error":{"message":"overloaded"}}"#))
        .answer(json(r#"{"id":"x","status":"succeeded","output":"https://replicate.delivery/1.png"}"#));
    let got = ask(&world, r#"{"model":"replicate/black-forest-labs/flux-1.1-pro","prompt":"p"}"#, &[]).await;
    assert_eq!((got.status, world.transport.sent().len()), (200, 3), "{}", got.body);
    // Its key is sent to no stranger.
    let world = self::world();
    world.transport.answer(json(r#"{"id":"x","polling_url":"https://elsewhere.example/x"}"#));
    let got = ask(&world, r#"{"model":"bfl/flux-2-pro","prompt":"p"}"#, &[]).await;
    assert_eq!((got.status, world.transport.sent().len()), (502, 1), "{}", got.body);
    // It takes too long.
    let world = self::world();
    world.transport.answer(order());
    for _ in 0..180 {
        world.transport.answer(json(r#"{"id":"x","status":"Pending"}"#));
    }
    let got = ask(&world, r#"{"model":"bfl/flux-2-pro","prompt":"p"}"#, &[]).await;
    assert_eq!((got.status, world.elapsed()), (504, Duration::from_secs(180)), "{}", got.body);
    // Its answers take too long.
    let world = self::world();
    world.transport.answer(order().after(Duration::from_secs(100)));
    world.transport.answer(json(r#"{"id":"x","status":"Pending"}"#).pause(Duration::from_secs(100)));
    let got = ask(&world, r#"{"model":"bfl/flux-2-pro","prompt":"p"}"#, &[]).await;
    assert_eq!((got.status, world.elapsed()), (504, Duration::from_secs(180)), "{}", got.body);
    // What it does not take is refused before it is asked.
    let world = self::world();
    for body in [
        r#"{"model":"fal/fal-ai/flux/schnell","prompt":"p","size":"large"}"#,
        r#"{"model":"fal/fal-ai/../x","prompt":"p"}"#,
    ] {
        let got = ask(&world, body, &[]).await;
        assert_eq!((got.status, world.transport.sent().len()), (400, 0), "{}", got.body);
    }
}
