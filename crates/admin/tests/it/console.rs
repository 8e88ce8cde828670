//! The log of the process over HTTP.

use http::Method;
use omniroute_admin::{LogLevel, LogLine};
use serde_json::json;

use crate::app::{START, TestApp, remote};

fn say(app: &TestApp, level: LogLevel, message: &str) {
    app.console.push(LogLine {
        time_ms: START,
        level,
        target: "omniroute_engine::record",
        message: message.to_owned(),
        fields: vec![("status", json!(200))],
        is_cut: false,
    });
}

#[tokio::test]
async fn the_latest_lines_are_shown_by_level() {
    let app = TestApp::new().await;
    for path in ["/api/logs/console", "/api/logs/stream"] {
        app.request(Method::GET, path).from(remote()).send().await.expect(401);
    }
    say(&app, LogLevel::Info, "request");
    say(&app, LogLevel::Warn, "breaker opened");
    say(&app, LogLevel::Debug, "connection ended");
    let all = app.get("/api/logs/console").await.expect(200).json();
    assert_eq!((&all["count"], &all["lines"][2]["level"]), (&json!(3), &json!("debug")));
    let warnings = app.get("/api/logs/console?level=WARN").await.expect(200).json();
    let line = json!({
        "id": format!("{START:x}-1"), "time": "2027-01-15T08:00:00.000Z", "level": "warn",
        "target": "omniroute_engine::record", "message": "breaker opened", "fields": {"status": 200},
    });
    assert_eq!(warnings, json!({"lines": [line], "count": 1}));
    let last = app.get("/api/logs/console?level=info&limit=1").await.expect(200).json();
    assert_eq!(last["lines"][0]["message"], "breaker opened");
    for query in ["level=loud", "limit=0", "limit=2001", "limit=many"] {
        app.get(&format!("/api/logs/console?{query}")).await.expect(400);
    }
    app.get("/api/logs/stream?level=loud").await.expect(400);
}

#[tokio::test]
async fn new_lines_are_streamed_from_where_a_reader_was() {
    let app = TestApp::new().await;
    for message in ["one", "two", "three"] {
        say(&app, LogLevel::Info, message);
    }
    app.console.close();
    let last = format!("{START:x}-0");
    let answer = app.request(Method::GET, "/api/logs/stream?level=info").bearer(crate::app::TOKEN);
    let answer = answer.header("last-event-id", &last).send().await.expect(200);
    assert_eq!(answer.headers["content-type"], "text/event-stream; charset=utf-8");
    for (name, value) in [("cache-control", "no-store"), ("x-accel-buffering", "no")] {
        assert_eq!(answer.headers[name], value);
    }
    let ids: Vec<_> = answer.body.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
    assert_eq!(ids, [format!("{START:x}-1"), format!("{START:x}-2")], "{}", answer.body);
    // Without an id it begins with what is new.
    let answer = app.get("/api/logs/stream").await.expect(200);
    assert_eq!(answer.body, "retry: 3000\n\n");
}
