//! Pictures that are changed: files go to each upstream in the form that it takes.

use std::sync::Arc;

use bytes::Bytes;
use omniroute_dialect::images::EditFields;
use omniroute_engine::spool::Spool;
use omniroute_engine::task::{EditForm, Upload};
use omniroute_testkit::Answer;

use crate::images::{begin, here, read, sent, with_vendors};
use crate::world::{Got, World, combo, refusal};

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";
const PATH: &str = "/v1/images/edits";

async fn upload(file: &[u8]) -> Upload {
    let mut spool = Spool::new();
    spool.push(file).await.unwrap();
    let file = Arc::new(spool.finish().await.unwrap());
    let content_type = Some("application/octet-stream".to_owned());
    Upload { file, filename: "a.png".to_owned(), content_type, seconds: None }
}

async fn form(fields: &[(&str, &str)], pictures: &[&[u8]], mask: Option<&[u8]>) -> EditForm {
    let mut members = EditFields::default();
    for (name, value) in fields {
        members.add(name, value).unwrap();
    }
    let mut form = EditForm { request: members.finish().unwrap(), pictures: Vec::new(), mask: None };
    for picture in pictures {
        form.pictures.push(upload(picture).await);
    }
    if let Some(mask) = mask {
        form.mask = Some(upload(mask).await);
    }
    form
}

async fn edit(world: &World, form: EditForm, headers: &[(&str, &str)]) -> Got {
    match begin(world, PATH, headers) {
        Ok(ctx) => read(world.engine.edit_form(ctx, form).await).await,
        Err(refused) => read(*refused).await,
    }
}

async fn edit_model(world: &World, model: &str) -> Got {
    edit(world, form(&[("model", model), ("prompt", "a hat")], &[PNG], None).await, &[]).await
}

async fn edit_named(world: &World, body: &str) -> Got {
    match begin(world, PATH, &[]) {
        Ok(ctx) => read(world.engine.edit_named(ctx, Bytes::copy_from_slice(body.as_bytes())).await).await,
        Err(refused) => read(*refused).await,
    }
}

#[tokio::test(start_paused = true)]
async fn forms_go_on_with_every_file_to_the_second_account_too() {
    let world = World::new();
    world.transport.answer(refusal(429, "rate_limit", "slow down")).answer(here());
    let fields = [("model", "up/gpt-image-1"), ("prompt", "a hat"), ("style", "vivid"), ("n", "2")];
    let got = edit(&world, form(&fields, &[PNG, b"\xff\xd8\xff\xe0"], Some(PNG)).await, &[]).await;
    assert_eq!((got.status, got.header("x-omniroute-attempts")), (200, "2"), "{}", got.body);
    assert_eq!(got.header("x-omniroute-dropped"), "style");
    for at in 0..2 {
        let call = &world.transport.sent()[at];
        assert_eq!(call.uri.to_string(), "https://upstream.example/v1/images/edits");
        let content_type = call.headers["content-type"].to_str().unwrap();
        let boundary = content_type.strip_prefix("multipart/form-data; boundary=").unwrap();
        let text = String::from_utf8_lossy(&call.body).into_owned();
        assert_eq!(text.matches(&format!("--{boundary}")).count(), 7, "{text}");
        for part in [
            "name=\"model\"\r\n\r\ngpt-image-1\r\n",
            "name=\"prompt\"\r\n\r\na hat\r\n",
            "name=\"n\"\r\n\r\n2\r\n",
            "name=\"image[]\"; filename=\"a.png\"\r\nContent-Type: image/png\r\n\r\n",
            "name=\"image[]\"; filename=\"a.png\"\r\nContent-Type: image/jpeg\r\n\r\n",
            "name=\"mask\"; filename=\"a.png\"\r\nContent-Type: image/png\r\n\r\n",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert_eq!(call.body.windows(PNG.len()).filter(|window| *window == PNG).count(), 2);
    }
    let row = world.row();
    assert_eq!((row.request_type, row.units.map(|units| units.images)), ("image", Some(1)));
}

#[tokio::test(start_paused = true)]
async fn those_without_forms_get_the_pictures_in_their_document() {
    let data = "data:image/png;base64,iVBORw0KGgo=";
    let world = World::with(with_vendors, |_| {});
    world.transport.answer(here());
    let fields = [("model", "xai/grok"), ("prompt", "a hat"), ("size", "1024x1024")];
    let got = edit(&world, form(&fields, &[PNG], Some(PNG)).await, &[]).await;
    assert_eq!((got.status, got.header("x-omniroute-dropped")), (200, "size"), "{}", got.body);
    assert!(world.transport.sent()[0].uri.path().ends_with("/images/edits"));
    let expected = format!(
        r#"{{"model":"grok","prompt":"a hat","image":{{"url":"{data}"}},"mask":{{"url":"{data}"}}}}"#
    );
    assert_eq!(sent(&world, 0), expected);

    let answer = r#"{"candidates":[{"content":{"parts":[{"inlineData":{"mimeType":"image/png","data":"QQ=="}}]},"finishReason":"STOP"}]}"#;
    world.transport.answer(Answer::json(200, answer));
    let fields = [("model", "gem/gemini-3-pro-image"), ("prompt", "a hat")];
    let got = edit(&world, form(&fields, &[PNG], Some(PNG)).await, &[]).await;
    assert_eq!((got.status, got.header("x-omniroute-dropped")), (200, "mask"), "{}", got.body);
    assert!(world.transport.sent()[1].uri.path().ends_with(":generateContent"));
    assert!(sent(&world, 1).contains(r#"{"inlineData":{"mimeType":"image/png","data":"iVBORw0KGgo="}}"#));
    let strict = [("x-omniroute-strict", "true")];
    let got = edit(&world, form(&fields, &[PNG], Some(PNG)).await, &strict).await;
    assert!(got.status == 400 && got.body.contains("mask"), "{}", got.body);

    // 20 MiB are what is put into a document.
    let large = [PNG, &vec![0; 21 << 20]].concat();
    let got = edit(&world, form(&fields, &[&large], None).await, &[]).await;
    assert!(got.status == 400 && got.body.contains("20 MiB"), "{}", got.body);
}

#[tokio::test(start_paused = true)]
async fn documents_that_name_pictures() {
    let world = World::with(with_vendors, |_| {});
    world.transport.answer(here());
    let named = |model: &str, more: &str| {
        format!(
            r#"{{"model":"{model}","prompt":"a hat","images":[{{"image_url":"https://a.example/b.png"}}]{more}}}"#
        )
    };
    let body = named("openai/gpt-image-1.5", r#","future":1"#);
    assert_eq!(edit_named(&world, &body).await.status, 200);
    assert_eq!(sent(&world, 0), body.replace("openai/", ""));

    world.transport.answer(here());
    assert_eq!(edit_named(&world, &named("xai/grok", "")).await.status, 200);
    assert_eq!(
        sent(&world, 1),
        r#"{"model":"grok","prompt":"a hat","image":{"url":"https://a.example/b.png"}}"#
    );

    // xAI's words become OpenAI's, so that the one can stand in for the other.
    let world = World::with(
        |entities| {
            with_vendors(entities);
            entities.combos.push(combo("edit", &["xai/grok", "openai/gpt-image-1.5"]));
        },
        |_| {},
    );
    world.transport.answer(refusal(500, "server_error", "no")).answer(here());
    let body =
        r#"{"model":"edit","prompt":"a hat","image":{"url":"https://a.example/b.png","type":"image_url"}}"#;
    let got = edit_named(&world, body).await;
    assert_eq!((got.status, got.header("x-omniroute-attempts")), (200, "2"), "{}", got.body);
    assert_eq!(
        sent(&world, 1),
        r#"{"model":"gpt-image-1.5","prompt":"a hat","images":[{"image_url":"https://a.example/b.png"}]}"#
    );
    // xAI bills the pictures that are given too, and says what it billed.
    let world = World::with(with_vendors, |_| {});
    world.transport.answer(Answer::json(
        200,
        r#"{"data":[{"url":"https://imgen.x.ai/1.jpg"}],"usage":{"cost_in_usd_ticks":220000000}}"#,
    ));
    let got = edit_named(&world, &named("xai/grok", "")).await;
    assert_eq!((got.status, got.header("x-omniroute-response-cost")), (200, "0.022"), "{}", got.body);

    // Who takes no addresses gets what is there.
    let world = World::with(with_vendors, |_| {});
    let file = Answer::new(200, "image/png").send(PNG);
    let answer =
        r#"{"candidates":[{"content":{"parts":[{"inlineData":{"mimeType":"image/png","data":"QQ=="}}]}}]}"#;
    world.transport.answer(file).answer(Answer::json(200, answer));
    assert_eq!(edit_named(&world, &named("gem/g", "")).await.status, 200);
    assert!(sent(&world, 1).contains("iVBORw0KGgo="));
    world.transport.answer(Answer::new(404, "text/plain").send("no"));
    let got = edit_named(&world, &named("gem/g", "").replace("b.png", "gone.png")).await;
    assert!(got.status == 400 && got.body.contains("images[0]"), "{}", got.body);

    let calls = world.transport.sent().len();
    for (body, says) in [
        (r#"{"model":"openai/gpt-image-1.5","prompt":"a"}"#, "images"),
        (r#"{"model":"xai/grok","prompt":"a","images":[{"file_id":"f"}]}"#, "file_id"),
        (r#"{"model":"openai/gpt-image-1.5","images":[{"file_id":"f"}]}"#, "prompt"),
    ] {
        let got = edit_named(&world, body).await;
        assert!(got.status == 400 && got.body.contains(says), "{}", got.body);
    }
    assert_eq!(world.transport.sent().len(), calls);
}

#[tokio::test(start_paused = true)]
async fn who_changes_no_pictures_is_not_asked() {
    let world = World::with(
        |entities| {
            with_vendors(entities);
            entities.combos.push(combo("edit", &["together/m", "openai/m"]));
        },
        |_| {},
    );
    let got = edit_model(&world, "together/black-forest-labs/FLUX.1-schnell").await;
    assert_eq!((got.status, world.transport.sent().len()), (400, 0), "{}", got.body);
    assert!(got.body.contains("unsupported_operation") && got.body.contains("`openai`"), "{}", got.body);
    assert!(!got.body.contains("`nebius`"), "{}", got.body);
    world.transport.answer(here());
    assert_eq!(edit_model(&world, "edit").await.status, 200);
    assert_eq!(world.transport.sent()[0].uri.host(), Some("api.openai.com"));

    let fields = [("model", "up/m"), ("prompt", "a")];
    for file in [&b"hello"[..], b""] {
        let got = edit(&world, form(&fields, &[file], None).await, &[]).await;
        assert!(got.status == 400 && got.body.contains("unsupported_content"), "{}", got.body);
    }
}

#[tokio::test(start_paused = true)]
async fn a_repeated_form_is_answered_once_and_another_picture_is_another_form() {
    let world = World::new();
    world.transport.answer(here()).answer(here());
    let fields = [("model", "up/m"), ("prompt", "a")];
    let key = [("idempotency-key", "once")];
    let first = edit(&world, form(&fields, &[PNG], None).await, &key).await;
    let again = edit(&world, form(&fields, &[PNG], None).await, &key).await;
    assert_eq!((again.header("x-omniroute-idempotent"), &again.body), ("true", &first.body));
    assert_eq!(world.transport.sent().len(), 1);
    let other = edit(&world, form(&fields, &[PNG], Some(PNG)).await, &key).await;
    assert!(other.status != 200 || other.header("x-omniroute-idempotent").is_empty(), "{}", other.body);
}
