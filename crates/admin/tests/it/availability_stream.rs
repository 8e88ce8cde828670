//! Who follows which models can be asked is told what there is, and then each change, also those that time makes.

use std::time::Duration;

use axum::body::Body;
use http::{Method, Request, Response, header};
use http_body_util::BodyExt as _;
use omniroute_admin::Peer;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::app::{TOKEN, TestApp, local};

const PATH: &str = "/api/models/availability/stream";

/// An answer that goes on.
struct Stream(Body);

async fn open(app: &TestApp, query: &str) -> Response<Body> {
    let request = Request::builder().method(Method::GET).uri(format!("{PATH}{query}"));
    let request =
        request.header(header::HOST, "localhost:20128").header("authorization", format!("Bearer {TOKEN}"));
    let mut request = request.body(Body::empty()).expect("request");
    request.extensions_mut().insert(Peer(local()));
    app.router.clone().oneshot(request).await.expect("infallible")
}

impl Stream {
    async fn of(app: &TestApp, query: &str) -> Self {
        let response = open(app, query).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
        Self(response.into_body())
    }

    /// The next piece; `None` at the end.
    async fn piece(&mut self) -> Option<String> {
        let next = tokio::time::timeout(Duration::from_secs(60), self.0.frame()).await.expect("in time")?;
        let bytes = next.expect("bytes").into_data().expect("data");
        Some(String::from_utf8(bytes.to_vec()).expect("text"))
    }

    /// The events of the next piece that has any.
    async fn events(&mut self) -> Vec<(String, Value)> {
        loop {
            let text = self.piece().await.expect("more");
            let events: Vec<_> = text.split("\n\n").filter_map(event).collect();
            if !events.is_empty() {
                return events;
            }
        }
    }

    async fn one(&mut self) -> (String, Value) {
        let mut events = self.events().await;
        assert_eq!(events.len(), 1, "{events:?}");
        events.remove(0)
    }
}

fn event(text: &str) -> Option<(String, Value)> {
    let name = text.lines().find_map(|line| line.strip_prefix("event: "))?;
    let data = text.lines().find_map(|line| line.strip_prefix("data: "))?;
    Some((name.to_owned(), serde_json::from_str(data).expect("JSON")))
}

async fn app() -> (TestApp, String) {
    let app = TestApp::new().await;
    let account = json!({"provider":"openai","name":"work","apiKey":"sk-work-1234567890"});
    let account = app.post("/api/providers", account).await.expect(201).json();
    let id = account["connection"]["id"].as_str().or(account["id"].as_str()).expect("id").to_owned();
    (app, id)
}

fn cool_down(app: &TestApp, id: &str, seconds: i64) {
    use omniroute_domain::entity::{ConnectionId, ConnectionStatus};
    let until = app.clock.0.load(std::sync::atomic::Ordering::SeqCst) + seconds * 1_000;
    let state = app.live.load().connection(&ConnectionId::from(id)).expect("there").clone();
    state.health.clear(ConnectionStatus { rate_limited_until: Some(until), ..ConnectionStatus::default() });
}

#[tokio::test]
async fn what_there_is_comes_first_and_then_each_change() {
    let (app, id) = app().await;
    let query = "?provider=openai&model=gpt-5.6";
    let mut stream = Stream::of(&app, query).await;
    let listed = app.get(&format!("/api/models/availability{query}")).await.expect(200).json();
    // From here on the database is not asked: a clock that stands goes on by itself while somebody waits for that.
    tokio::time::pause();
    let (name, told) = stream.one().await;
    assert_eq!((name.as_str(), &told["models"], &told["total"]), ("snapshot", &listed["models"], &json!(1)));
    assert_eq!(told["models"][0]["status"], "available");

    cool_down(&app, &id, 30);
    let (name, told) = stream.one().await;
    assert_eq!(name, "change");
    assert_eq!(
        (&told["status"], &told["previousStatus"]),
        (&json!("cooldown"), &json!("available")),
        "{told}"
    );
    assert_eq!((&told["model"], &told["retryAfterMs"]), (&json!("gpt-5.6"), &json!(30_000)));
    // Nobody does anything: time ends it.
    app.pass(Duration::from_secs(31));
    let (name, told) = stream.one().await;
    assert_eq!(
        (name.as_str(), &told["status"], &told["previousStatus"]),
        ("change", &json!("available"), &json!("cooldown"))
    );
    // In silence it is still there.
    assert_eq!(stream.piece().await.as_deref(), Some(": keep-alive\n\n"));

    // Who reads late is told how it is, and not each thing that it was.
    cool_down(&app, &id, 5);
    tokio::time::advance(Duration::from_secs(2)).await;
    app.pass(Duration::from_secs(6));
    app.console.close();
    assert_eq!(stream.piece().await, None, "it ends with the process");
}

#[tokio::test]
async fn a_state_is_followed_into_and_out_of_and_models_come_and_go() {
    let (app, id) = app().await;
    let mut stream = Stream::of(&app, "?provider=openai&status=cooldown").await;
    tokio::time::pause();
    let (_, told) = stream.one().await;
    assert_eq!(told["models"], json!([]));
    cool_down(&app, &id, 30);
    let events = stream.events().await;
    assert!(
        events.len() > 1
            && events.iter().all(|(name, told)| name == "change" && told["status"] == "cooldown")
    );
    app.pass(Duration::from_secs(31));
    let events = stream.events().await;
    assert!(
        events.iter().all(|(_, told)| told["previousStatus"] == "cooldown" && told["status"] == "available")
    );
    drop(stream);

    tokio::time::resume();
    let mut stream = Stream::of(&app, "?provider=groq&model=mine").await;
    assert_eq!(stream.one().await.1["total"], 0);
    let groq = json!({"provider":"groq","name":"work","apiKey":"gsk-work-1234567890"});
    app.post("/api/providers", groq).await.expect(201);
    app.post("/api/provider-models", json!({"provider":"groq","modelId":"mine"})).await.expect(200);
    let (name, told) = stream.one().await;
    assert_eq!(
        (name.as_str(), &told["previousStatus"], &told["status"]),
        ("change", &Value::Null, &json!("available"))
    );
    app.delete("/api/provider-models?provider=groq&model=mine").await.expect(200);
    let (name, told) = stream.one().await;
    assert_eq!(
        (name.as_str(), &told["model"], &told["previousStatus"]),
        ("gone", &json!("mine"), &json!("available"))
    );
}

#[tokio::test]
async fn readers_are_bounded_and_filters_are_checked() {
    let (app, _) = app().await;
    app.get(&format!("{PATH}?status=x")).await.expect(400);
    app.get(&format!("{PATH}?provider=nobody")).await.expect(404);
    let mut streams = Vec::new();
    for _ in 0..16 {
        streams.push(Stream::of(&app, "").await);
    }
    let refused = open(&app, "").await;
    assert_eq!((refused.status().as_u16(), refused.headers()["retry-after"].to_str().unwrap()), (503, "10"));
    streams.pop();
    let mut stream = Stream::of(&app, "").await;
    let (_, told) = stream.one().await;
    let listed = app.get("/api/models/availability").await.expect(200).json();
    assert_eq!((&told["models"], &told["total"]), (&listed["models"], &listed["total"]));
}
