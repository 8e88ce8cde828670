//! Pictures: asked for as each upstream wants it, answered as the client wants it.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, Response};
use http_body_util::BodyExt as _;
use omniroute_dialect::openai::OpenAi;
use omniroute_domain::entity::Entities;
use omniroute_domain::price::PriceRow;
use omniroute_engine::{Arrival, RequestCtx};
use omniroute_provider::ProviderId;
use omniroute_testkit::Answer;
use serde_json::Value;

use crate::world::{Got, World, combo, connection, refusal};

const NODE: &str = "openai-compatible-chat-1";
pub(crate) const PNG: &str = "iVBORw0KGgo=";

pub(crate) async fn ask(world: &World, body: &str, headers: &[(&str, &str)]) -> Got {
    read(respond(world, body, headers).await).await
}

pub(crate) async fn read(response: Response<omniroute_engine::Answer>) -> Got {
    let (head, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let body = String::from_utf8(bytes.to_vec()).unwrap();
    Got { status: head.status.as_u16(), headers: head.headers, body }
}

/// The head of an answer, and its body as it comes.
pub(crate) async fn respond(
    world: &World,
    body: &str,
    headers: &[(&str, &str)],
) -> Response<omniroute_engine::Answer> {
    match begin(world, "/v1/images/generations", headers) {
        Ok(ctx) => world.engine.images(ctx, Bytes::copy_from_slice(body.as_bytes())).await,
        Err(refused) => *refused,
    }
}

/// A request whose caller is known, or its refusal.
pub(crate) fn begin(
    world: &World,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<Box<RequestCtx>, Box<Response<omniroute_engine::Answer>>> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.insert(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    let arrival = Arrival {
        peer: SocketAddr::from(([127, 0, 0, 1], 50_000)),
        method: Method::POST,
        path: path.into(),
        query: None,
        headers: map,
        dialect: &OpenAi,
        endpoint: "images",
        provider: None,
        is_logged: true,
    };
    let mut ctx = world.engine.begin(arrival);
    match world.engine.identify(&mut ctx) {
        Ok(()) => Ok(ctx),
        Err(error) => Err(Box::new(world.engine.refuse(ctx, &error))),
    }
}

/// Accounts at providers of the catalogue.
pub(crate) fn with_vendors(entities: &mut Entities) {
    for (at, vendor) in ["openai", "together", "xai", "nebius"].into_iter().enumerate() {
        entities.connections.push(connection(&format!("v{at}"), &ProviderId::from(vendor), vendor, 1));
    }
}

pub(crate) fn here() -> Answer {
    Answer::json(200, format!(r#"{{"created":5,"data":[{{"b64_json":"{PNG}"}}]}}"#))
}

fn there(url: &str) -> Answer {
    Answer::json(200, format!(r#"{{"created":5,"data":[{{"url":"{url}","revised_prompt":"r"}}]}}"#))
}

pub(crate) fn sent(world: &World, at: usize) -> String {
    String::from_utf8(world.transport.sent()[at].body.to_vec()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn pictures_are_passed_on_billed_and_logged() {
    let price = |entities: &mut Entities| {
        let row = PriceRow { image: Some(0.04), ..PriceRow::default() };
        entities.prices.user.entry(NODE.into()).or_default().insert("m".into(), row);
    };
    let world = World::with(price, |_| {});
    world.transport.answer(here());
    let got = ask(&world, r#"{"model":"up/m","prompt":"a cat","seed":1}"#, &[]).await;
    assert_eq!(
        (got.status, got.body.as_str()),
        (200, format!(r#"{{"created":5,"data":[{{"b64_json":"{PNG}"}}]}}"#).as_str())
    );
    assert_eq!(got.header("x-omniroute-response-cost"), "0.04");
    assert_eq!(world.transport.sent()[0].uri.to_string(), "https://upstream.example/v1/images/generations");
    assert_eq!(sent(&world, 0), r#"{"model":"m","prompt":"a cat","seed":1}"#);
    let row = world.row();
    assert_eq!((row.request_type, row.cost_nano), ("image", Some(40_000_000)));
    assert_eq!(row.units.map(|units| units.images), Some(1));
}

#[tokio::test(start_paused = true)]
async fn each_upstream_is_asked_as_it_wants_to_be() {
    for (model, more, expected) in [
        (
            "together/black-forest-labs/FLUX.1-schnell",
            r#","size":"1024x768","response_format":"b64_json""#,
            r#"{"model":"black-forest-labs/FLUX.1-schnell","prompt":"p","response_format":"base64","width":1024,"height":768}"#,
        ),
        (
            "xai/grok-2-image-1212",
            r#","size":"1024x768","quality":"hd""#,
            r#"{"model":"grok-2-image-1212","prompt":"p"}"#,
        ),
        (
            "openai/gpt-image-1.5",
            r#","response_format":"b64_json""#,
            r#"{"model":"gpt-image-1.5","prompt":"p"}"#,
        ),
    ] {
        let world = World::with(with_vendors, |_| {});
        world.transport.answer(here());
        let got = ask(&world, &format!(r#"{{"model":"{model}","prompt":"p"{more}}}"#), &[]).await;
        assert_eq!(got.status, 200, "{}", got.body);
        assert_eq!(sent(&world, 0), expected);
        if model.starts_with("xai") {
            assert_eq!(got.header("x-omniroute-dropped"), "size,quality");
        }
    }
    let world = World::with(with_vendors, |_| {});
    let got = ask(&world, r#"{"model":"together/x","prompt":"p","size":"huge"}"#, &[]).await;
    assert_eq!((got.status, world.transport.sent().len()), (400, 0), "{}", got.body);
    let strict = [("x-omniroute-strict", "true")];
    let got = ask(&world, r#"{"model":"xai/x","prompt":"p","size":"1024x1024"}"#, &strict).await;
    assert!(got.status == 400 && got.body.contains("unsupported_parameter"), "{}", got.body);
}

#[tokio::test(start_paused = true)]
async fn several_pictures_take_several_calls_where_a_model_paints_one() {
    let world = World::with(with_vendors, |_| {});
    world.transport.answer(there("https://a.example/1")).answer(there("https://a.example/2"));
    let got = ask(&world, r#"{"model":"openai/dall-e-3","prompt":"p","n":2}"#, &[]).await;
    assert_eq!(got.status, 200, "{}", got.body);
    let value: Value = serde_json::from_str(&got.body).unwrap();
    assert_eq!(value["data"][1]["url"], "https://a.example/2");
    assert_eq!(sent(&world, 1), r#"{"model":"dall-e-3","prompt":"p","n":1}"#);
    assert_eq!((world.row().units.map(|units| units.images), world.row().attempts.len()), (Some(2), 1));
}

#[tokio::test(start_paused = true)]
async fn pictures_come_as_they_are_wanted() {
    let world = World::new();
    world.transport.answer(here());
    let got = ask(&world, r#"{"model":"up/m","prompt":"p","response_format":"url"}"#, &[]).await;
    assert!(got.body.contains(&format!(r#""url":"data:image/png;base64,{PNG}""#)), "{}", got.body);

    let file = Answer::new(200, "image/png").send(&b"\x89PNG\r\n\x1a\n"[..]);
    world.transport.answer(there("https://pictures.example/1.png")).answer(file);
    let got = ask(&world, r#"{"model":"up/m","prompt":"p","response_format":"b64_json"}"#, &[]).await;
    assert!(got.body.contains(&format!(r#""b64_json":"{PNG}","revised_prompt":"r""#)), "{}", got.body);
    assert_eq!(world.transport.sent()[2].uri.to_string(), "https://pictures.example/1.png");
    assert!(world.transport.sent()[2].headers.get("authorization").is_none(), "it carries nobody's key");

    world.transport.answer(here());
    let got = ask(&world, r#"{"model":"up/m","prompt":"p","stream":true,"partial_images":2}"#, &[]).await;
    assert!(got.header("content-type").starts_with("text/event-stream"));
    assert!(got.body.starts_with("event: image_generation.completed\ndata: {"), "{}", got.body);
    assert!(!sent(&world, 3).contains("stream"));
}

#[tokio::test(start_paused = true)]
async fn gemini_paints_in_a_conversation() {
    let world = World::new();
    let answer = format!(
        r#"{{"candidates":[{{"content":{{"parts":[{{"text":"here"}},{{"inlineData":{{"mimeType":"image/png","data":"{PNG}"}}}}]}},"finishReason":"STOP"}}],"usageMetadata":{{"promptTokenCount":3,"candidatesTokenCount":1290,"totalTokenCount":1293}}}}"#
    );
    world.transport.answer(Answer::json(200, answer));
    let got = ask(&world, r#"{"model":"gem/gemini-3-pro-image","prompt":"p","size":"1024x1792"}"#, &[]).await;
    assert_eq!(got.status, 200, "{}", got.body);
    assert!(got.body.contains(&format!(r#"{{"b64_json":"{PNG}","revised_prompt":"here"}}"#)), "{}", got.body);
    assert!(got.body.contains(r#""output_tokens":1290"#), "{}", got.body);
    assert!(world.transport.sent()[0].uri.path().ends_with("/models/gemini-3-pro-image:generateContent"));
    assert!(sent(&world, 0).contains(r#""aspectRatio":"9:16""#));

    world.transport.answer(Answer::json(200, r#"{"promptFeedback":{"blockReason":"SAFETY"}}"#));
    let got = ask(&world, r#"{"model":"gem/gemini-3-pro-image","prompt":"p"}"#, &[]).await;
    assert!(got.status == 502 && got.body.contains("SAFETY"), "{} {}", got.status, got.body);
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_pictures_is_a_failure() {
    let world = World::new();
    world.transport.answer(Answer::json(200, r#"{"created":1,"data":[]}"#)).answer(here());
    let got = ask(&world, r#"{"model":"up/m","prompt":"p"}"#, &[]).await;
    assert_eq!((got.status, got.header("x-omniroute-attempts")), (200, "2"), "{}", got.body);
    let nothing = || Answer::json(200, r#"{"data":[]}"#);
    world.transport.answer(nothing()).answer(nothing());
    assert_eq!(ask(&world, r#"{"model":"up/m","prompt":"p"}"#, &[]).await.status, 502);
}

#[tokio::test(start_paused = true)]
async fn a_retired_model_is_followed_by_its_successor_once() {
    let gone = || refusal(404, "model_not_found", "The model `dall-e-3` does not exist");
    let world = World::with(with_vendors, |_| {});
    world.transport.answer(gone()).answer(here());
    let body = r#"{"model":"openai/dall-e-3","prompt":"p","size":"1792x1024","quality":"hd"}"#;
    let got = ask(&world, body, &[]).await;
    assert_eq!(got.status, 200, "{}", got.body);
    assert_eq!(
        sent(&world, 1),
        r#"{"model":"gpt-image-1.5","prompt":"p","size":"1536x1024","quality":"high"}"#
    );
    assert_eq!(&*world.row().attempts[0].model, "gpt-image-1.5", "it is billed as what it is");

    let world = World::with(
        |entities| {
            with_vendors(entities);
            entities.settings.legacy_model_aliases = false;
        },
        |_| {},
    );
    world.transport.answer(gone());
    assert_eq!(ask(&world, body, &[]).await.status, 404);
}

#[tokio::test(start_paused = true)]
async fn pictures_that_moved_are_asked_for_at_the_second_address() {
    let world = World::with(with_vendors, |_| {});
    world.transport.answer(refusal(410, "gone", "moved")).answer(here());
    let got = ask(&world, r#"{"model":"nebius/black-forest-labs/flux-schnell","prompt":"p"}"#, &[]).await;
    assert_eq!(got.status, 200, "{}", got.body);
    let hosts: Vec<_> =
        world.transport.sent().iter().map(|sent| sent.uri.host().unwrap().to_owned()).collect();
    assert_eq!(hosts, ["api.tokenfactory.nebius.com", "api.studio.nebius.com"]);
}

#[tokio::test(start_paused = true)]
async fn failures_are_the_next_ones_chance_and_repetitions_get_the_same() {
    let world = World::with(|entities| entities.combos.push(combo("paint", &["anth/m", "up/m"])), |_| {});
    world.transport.answer(refusal(429, "rate_limit", "slow down")).answer(here());
    let body = r#"{"model":"up/m","prompt":"p"}"#;
    let headers = [("idempotency-key", "once")];
    let got = ask(&world, body, &headers).await;
    assert_eq!((got.status, got.header("x-omniroute-attempts")), (200, "2"), "{}", got.body);
    let again = ask(&world, body, &headers).await;
    assert_eq!((again.header("x-omniroute-idempotent"), &again.body), ("true", &got.body));
    assert_eq!(world.transport.sent().len(), 2);

    // In a combo those who cannot paint are passed over.
    world.transport.answer(here());
    let got = ask(&world, r#"{"model":"paint","prompt":"p"}"#, &[]).await;
    let row = world.row();
    assert_eq!((got.status, row.attempts.len()), (200, 1), "{}", got.body);
    let decision = row.decision.unwrap();
    let candidates = decision.candidates(omniroute_dialect::Dialect::id(&OpenAi));
    let skipped: Vec<_> = candidates.iter().filter_map(|it| Some((it.model, it.skip?.rule))).collect();
    assert_eq!(skipped, [("m", "model_lock"), ("m", "capability")]);

    let world = World::new();
    world.transport.answer(here().after(Duration::from_secs(200))).answer(here());
    let late = ask(&world, r#"{"model":"up/m","prompt":"late"}"#, &[]).await;
    assert_eq!(late.status, 200, "{}", late.body);
    assert_eq!(world.row().attempts[0].failure, Some("timeout"), "180 s are enough");
}
