//! The log of a running gateway over HTTP: lines as they come, and an end with the process.

use serde_json::Value;

use crate::client::Call;
use crate::gateway::{MANAGEMENT_TOKEN, Start};
use crate::world::chat;

#[tokio::test]
async fn the_log_is_read_along_until_the_process_ends() {
    let mut gateway = Start::new().run().await;
    let mut line = gateway.line().await;
    line.write(&Call::get("/api/logs/stream?level=info").bearer(MANAGEMENT_TOKEN).bytes()).await;
    let head = line.head().await;
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream; charset=utf-8")));
    line.read_until("retry: 3000").await;
    assert_eq!(gateway.call(&chat("sim/echo").header("x-request-id", "told-of")).await.status, 200);
    let told = line.read_until("told-of").await;
    let id = told.lines().find_map(|line| line.strip_prefix("id: ")).unwrap().to_owned();
    // What was said meanwhile is there for who comes again.
    drop(line);
    gateway.call(&chat("sim/echo").header("x-request-id", "meanwhile")).await;
    let mut line = gateway.line().await;
    let again = Call::get("/api/logs/stream").bearer(MANAGEMENT_TOKEN).header("last-event-id", &id);
    line.write(&again.bytes()).await;
    line.head().await;
    assert!(line.read_until("meanwhile").await.contains("\"message\":\"request\""));
    let tail = gateway.manage("GET", "/api/logs/console?level=info", &Value::Null).await.json();
    let lines = tail["lines"].as_array().unwrap();
    assert!(lines.iter().any(|line| line["message"] == "listening"), "{tail}");
    assert_eq!(lines[lines.len() - 1]["message"], "request");
    assert_eq!(lines[lines.len() - 1]["fields"]["request_id"], "meanwhile");
    // A reader does not keep the process from its end.
    let began = std::time::Instant::now();
    gateway.signal("TERM");
    let ending = gateway.ended();
    let (rest, _) = tokio::join!(line.rest(), ending);
    assert!(began.elapsed() < std::time::Duration::from_secs(5), "{rest}");
}
