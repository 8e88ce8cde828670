//! Images that a client names by their address, for an upstream that does not fetch them.

use omniroute_engine::ports::TransportError;
use omniroute_testkit::Answer;
use std::time::Duration;

use crate::world::World;

const ASK: &str = r#"{"model":"gem/gemini-3-pro","messages":[{"role":"user","content":[{"type":"text","text":"what is it?"},{"type":"image_url","image_url":{"url":"https://images.example/cat.png"}}]}]}"#;

fn picture() -> Answer {
    Answer::new(200, "image/png").send(&b"\x89PNG\r\n\x1a\n1234"[..])
}

fn cat() -> Answer {
    Answer::json(
        200,
        r#"{"candidates":[{"content":{"role":"model","parts":[{"text":"a cat"}]},"finishReason":"STOP","index":0}],"usageMetadata":{"promptTokenCount":3,"candidatesTokenCount":2,"totalTokenCount":5}}"#,
    )
}

#[tokio::test(start_paused = true)]
async fn an_image_is_fetched_once_and_sent_along() {
    let world = World::new();
    let moved = Answer::new(302, "text/plain").header("location", "/moved.png");
    world.transport.answer(moved).answer(picture()).answer(cat()).answer(cat());
    let got = world.chat(ASK).await;
    assert_eq!(got.status, 200, "{}", got.body);
    let sent = world.transport.sent();
    assert_eq!(
        (sent[0].method.as_str(), sent[1].uri.to_string().as_str()),
        ("GET", "https://images.example/moved.png")
    );
    assert!(sent[0].headers.get("authorization").is_none(), "the fetch carries nobody's key");
    let body = String::from_utf8(sent[2].body.to_vec()).unwrap();
    assert!(body.contains(r#""inlineData":{"mimeType":"image/png","data":"iVBORw0KGgoxMjM0"}"#), "{body}");
    assert_eq!(world.chat(ASK).await.status, 200);
    assert_eq!(world.transport.sent().len(), 4, "the second request finds it kept");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_fetched_is_a_clear_refusal() {
    let html = Answer::new(200, "text/html").send("<html>");
    let missing = Answer::new(404, "text/plain").send("no");
    for (answer, words) in [(html, "neither an image nor a PDF"), (missing, "status 404")] {
        let world = World::new();
        world.transport.answer(answer);
        let got = world.chat(ASK).await;
        assert_eq!(got.status, 400, "{}", got.body);
        assert!(got.body.contains("unsupported_content") && got.body.contains(words), "{}", got.body);
        assert!(got.body.contains("messages[0].content[1]"), "{}", got.body);
        assert_eq!(world.transport.sent().len(), 1, "no upstream was asked");
    }
    let world = World::new();
    let unreachable = TransportError::Connect { host: "images.example".into(), reason: "refused".into() };
    world.transport.fail(Duration::ZERO, unreachable);
    let got = world.chat(ASK).await;
    assert!(got.status == 400 && got.body.contains("cannot be reached"), "{}", got.body);
}

#[tokio::test(start_paused = true)]
async fn an_operator_may_forbid_it() {
    let world = World::with(|_| {}, |options| options.fetch_media = false);
    let got = world.chat(ASK).await;
    assert!(got.status == 400 && got.body.contains("does not fetch"), "{}", got.body);
    assert_eq!(world.transport.sent().len(), 0);
}
