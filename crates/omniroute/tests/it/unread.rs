//! Answers that are ready before the request's body has come: what becomes of the body and of the connection.

use crate::client::Call;
use crate::gateway::Gateway;
use crate::world::chat;

/// Long enough to come in several reads.
const LENGTH: usize = 300_000;

/// A form whose first field is refused.
fn form() -> Call {
    let field = "--B\r\ncontent-disposition: form-data; name=\"response_format\"\r\n\r\nxml\r\n";
    let file = "--B\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\n";
    let body = format!("{field}{file}{}\r\n--B--\r\n", "a".repeat(LENGTH));
    Call::post("/v1/audio/transcriptions", body).header("content-type", "multipart/form-data; boundary=B")
}

#[tokio::test]
async fn the_connection_goes_on_when_the_rest_has_come() {
    let gateway = Gateway::start().await;
    let long = || vec![b' '; LENGTH];
    let chunked = format!("{LENGTH:x}\r\n{}\r\n0\r\n\r\n", " ".repeat(LENGTH));
    let mut line = gateway.line().await;
    for (call, status) in [
        (form(), 400),
        (Call::post("/v1/nothing", long()), 404),
        (Call::post("/v1/nothing", chunked).header("transfer-encoding", "chunked"), 404),
        (Call::post("/v1/chat/completions", long()).header("content-encoding", "rot13"), 400),
        (Call::post("/api/keys", long()), 401),
    ] {
        let bytes = call.bytes();
        let (begun, rest) = bytes.split_at(bytes.len() - LENGTH + 1000);
        line.write(begun).await;
        let early = line.answer(false).await;
        assert_eq!(early.status, status, "{}", early.text());
        assert_eq!(early.header("connection"), None);
        line.write(rest).await;
        let next = line.call(&chat("sim/echo")).await;
        assert_eq!(next.status, 200, "after {status}: {}", next.text());
    }
}

#[tokio::test]
async fn the_answer_says_when_the_connection_does_not_go_on() {
    let gateway = Gateway::start().await;
    let held_back =
        |path: &str| Call::new("POST", path).header("content-length", "300").header("expect", "100-continue");
    for call in [
        // More is left than is thrown away.
        Call::new("POST", "/v1/nothing").header("content-length", "3000000"),
        Call::new("POST", "/v1/chat/completions").header("content-length", "9000000000"),
        // Nobody will ask for it.
        held_back("/v1/nothing"),
        held_back("/v1/audio/transcriptions"),
        held_back("/api/keys"),
    ] {
        let mut line = gateway.line().await;
        line.write(&call.bytes()).await;
        let answer = line.answer(false).await;
        assert!((400..500).contains(&answer.status), "{}", answer.text());
        assert_eq!(answer.header("connection"), Some("close"), "{call:?}");
    }
    // Who is asked for the body, and sends it, keeps the connection.
    let mut line = gateway.line().await;
    let body = br#"{"model":"sim/echo","messages":[{"role":"user","content":"hi"}]}"#;
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {}\r\nexpect: 100-continue\r\n\r\n",
        body.len()
    );
    line.write(head.as_bytes()).await;
    assert_eq!(line.head().await.status, 100);
    line.write(body).await;
    let answer = line.answer(false).await;
    assert_eq!((answer.status, answer.header("connection")), (200, None), "{}", answer.text());
    assert_eq!(line.call(&chat("sim/echo")).await.status, 200);
}
