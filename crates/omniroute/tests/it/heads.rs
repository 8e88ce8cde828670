//! Heads that the server does not take: every refusal is an answer like any other, and nobody else notices.

use crate::client::{Call, Response};
use crate::gateway::{Gateway, Start, free_port};
use crate::world::{chat, stream};

/// Whose errors a path is answered with.
#[derive(Debug, Clone, Copy)]
enum Shape {
    OpenAi,
    Anthropic,
    Management,
}

/// A head that is refused, and with what.
struct Refused {
    head: String,
    status: u16,
    code: &'static str,
    words: &'static str,
}

impl Refused {
    fn new(head: String, status: u16, code: &'static str, words: &'static str) -> Self {
        Self { head, status, code, words }
    }

    /// All of them for one path.
    fn all(method: &str, path: &str) -> Vec<Self> {
        let many: String = (0..10_000).map(|number| format!("x-{number}: y\r\n")).collect();
        let with = |headers: &str| format!("{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{headers}\r\n");
        let line =
            |target: &str, version: &str| format!("{method} {target} {version}\r\nhost: 127.0.0.1\r\n\r\n");
        let long = |length| "y".repeat(length);
        vec![
            Self::new(with(&many), 431, "headers_too_large", "100 headers"),
            Self::new(with(&format!("x: {}\r\n", long(1 << 20))), 431, "headers_too_large", "262144 bytes"),
            Self::new(line(&format!("{path}?q={}", long(100_000)), "HTTP/1.1"), 414, "uri_too_long", "65534"),
            Self::new(line(path, "HTTP/3.0"), 400, "bad_request", "version"),
            Self::new(line(path, ""), 400, "bad_request", "version"),
            Self::new(line(&format!("{path}?\x07"), "HTTP/1.1"), 400, "bad_request", "URI"),
            Self::new(with("no colon here\r\n"), 400, "bad_request", "header"),
            Self::new(with("content-length: many\r\n"), 400, "bad_request", "content-length"),
            Self::new(with("transfer-encoding: gzip\r\n"), 400, "bad_request", "transfer-encoding"),
        ]
    }

    fn assert(&self, response: &Response, shape: Shape) {
        let start: String = self.head.chars().take(80).collect();
        let text = response.text();
        assert_eq!(response.status, self.status, "{start}: {text}");
        assert_eq!(response.header("content-type"), Some("application/json"), "{start}");
        assert_eq!(response.header("content-length"), Some(text.len().to_string().as_str()), "{start}");
        assert_eq!(response.header("connection"), Some("close"), "{start}");
        assert!(response.header("date").unwrap().ends_with(" GMT"), "{start}");
        let id = response.header("x-request-id").unwrap();
        assert!(id.starts_with("req_"), "{start}: {id}");
        assert!(response.at("/error/message").contains(self.words), "{start}: {text}");
        let type_of_error = if self.status == 408 { "timeout_error" } else { "invalid_request_error" };
        assert_eq!(response.at("/error/type"), type_of_error, "{start}: {text}");
        match shape {
            Shape::OpenAi => assert_eq!(response.at("/error/code"), self.code, "{start}: {text}"),
            Shape::Anthropic => {
                assert_eq!((response.at("/type"), response.at("/request_id")), ("error".into(), id.into()));
            }
            Shape::Management => {
                let code = if self.status == 400 { "VALIDATION" } else { "TOO_LARGE" };
                assert_eq!((response.at("/error/code"), response.at("/requestId")), (code.into(), id.into()));
            }
        }
        let is_for_browsers = response.header("access-control-allow-origin").is_some();
        assert_eq!(is_for_browsers, !matches!(shape, Shape::Management), "{start}");
    }
}

#[tokio::test]
async fn refused_heads_are_answered_in_the_dialect_of_their_path() {
    let gateway = Gateway::start().await;
    let before = gateway.rss_mib();
    for (method, path, shape) in [
        ("POST", "/v1/chat/completions", Shape::OpenAi),
        ("GET", "/api/v1/models", Shape::OpenAi),
        ("GET", "/v1/nothing", Shape::OpenAi),
        ("POST", "/v1/messages", Shape::Anthropic),
        ("GET", "http://127.0.0.1/v1/v1/messages/nothing", Shape::Anthropic),
        ("DELETE", "/api/keys/1", Shape::Management),
        ("GET", "/nothing", Shape::Management),
        ("GET", "/", Shape::Management),
    ] {
        for refused in Refused::all(method, path) {
            // The first request of a connection, and a later one that has nothing to do with those before.
            for is_first in [true, false] {
                let mut line = gateway.line().await;
                if !is_first {
                    assert_eq!(line.call(&Call::get("/api/init")).await.status, 200);
                    assert_eq!(line.call(&chat("sim/echo")).await.status, 200);
                }
                assert!(line.write(refused.head.as_bytes()).await, "the rest of a head is read");
                refused.assert(&line.answer(false).await, shape);
                assert!(line.is_closed().await);
            }
        }
        assert_eq!(gateway.call(&chat("sim/echo")).await.status, 200);
    }
    let grown = gateway.rss_mib().saturating_sub(before);
    assert!(grown < 100, "{grown} MiB more");
}

#[tokio::test]
async fn what_is_no_request_at_all_is_told_so() {
    let api_port = free_port();
    let gateway = Start::new().env("API_PORT", api_port.to_string()).run().await;
    let garbage = [
        "\x01\x02\x03 hello\r\n\r\n",
        "hello world\r\n\r\n",
        "GET\r\n\r\n",
        "{\"model\":\"sim/echo\"}\r\n\r\n",
    ];
    let tls = "\x16\x03\x01\x02\x00\x01\x00\x01\x7c\x03\x03";
    for (head, words) in garbage.map(|head| (head, "HTTP/1.1")).into_iter().chain([(tls, "https://")]) {
        let refused = Refused::new(head.to_owned(), 400, "bad_request", words);
        // Where there are client routes only, errors are in a client's dialect.
        let clients = std::net::SocketAddr::new(gateway.address.ip(), api_port);
        for (address, shape) in [(gateway.address, Shape::Management), (clients, Shape::OpenAi)] {
            let mut line = crate::client::Line::open(address).await;
            line.write(head.as_bytes()).await;
            refused.assert(&line.answer(false).await, shape);
        }
    }
}

#[tokio::test]
async fn refused_heads_are_on_record() {
    let gateway = Gateway::start().await;
    for path in ["/v1/messages", "/v1/models"] {
        for refused in Refused::all("POST", path) {
            let mut line = gateway.line().await;
            line.write(refused.head.as_bytes()).await;
            line.answer(false).await;
        }
    }
    let mut expected: Vec<_> =
        Refused::all("POST", "/v1/messages").iter().map(|refused| u64::from(refused.status)).collect();
    // Only calls of models have rows.
    let rows = gateway.logged(expected.len()).await;
    assert!(rows.iter().all(|row| row["path"] == "/v1/messages"), "{rows:?}");
    let mut statuses: Vec<_> = rows.iter().map(|row| row["status"].as_u64().unwrap()).collect();
    statuses.sort_unstable();
    expected.sort_unstable();
    assert_eq!(statuses, expected);
    let told = |log: &str| log.lines().filter(|line| line.contains("head refused")).count();
    gateway.logs("the other heads", |log| told(log) >= expected.len()).await;
    assert_eq!(told(&gateway.log()), expected.len(), "{}", gateway.log());
}

#[tokio::test]
async fn the_limits_of_a_head_are_the_ones_that_are_told() {
    let gateway = Gateway::start().await;
    let headers = |count: usize| {
        // One of them is `host`.
        (1..count).fold(Call::get("/v1/models"), |call, number| call.header(&format!("x-{number}"), "y"))
    };
    let target = |length: usize| {
        let path = "/v1/models?q=";
        Call::get(&format!("{path}{}", "y".repeat(length - path.len())))
    };
    for (call, status) in [
        (headers(100), 200),
        (headers(101), 431),
        (target(65_534), 200),
        (target(65_535), 414),
        (Call::get("/v1/models").header("cookie", &"c".repeat(250_000)), 200),
        (Call::get("/v1/models").header("cookie", &"c".repeat(270_000)), 431),
    ] {
        assert_eq!(gateway.call(&call).await.status, status);
    }
}

#[tokio::test]
async fn endless_heads_disturb_nobody_and_cost_little() {
    let gateway = Gateway::start().await;
    let before = gateway.rss_mib();
    let mut lines = Vec::new();
    for _ in 0..100 {
        let mut line = gateway.line().await;
        line.write(format!("GET /v1/models HTTP/1.1\r\nx-long: {}", "y".repeat(250_000)).as_bytes()).await;
        lines.push(line);
    }
    for call in [chat("sim/echo"), stream("sim/echo"), Call::get("/api/init")] {
        assert_eq!(gateway.call(&call).await.status, 200);
    }
    let grown = gateway.rss_mib().saturating_sub(before);
    // A head of 256 KiB may cost its double while the buffer grows.
    assert!(grown < 80, "{grown} MiB more");
    for line in &mut lines {
        line.write(&[b'y'; 100_000]).await;
        assert_eq!(line.answer(false).await.status, 431);
    }
    assert_eq!(gateway.call(&chat("sim/echo")).await.status, 200);
}

#[tokio::test]
async fn answers_to_head_have_no_body() {
    let gateway = Gateway::start().await;
    for path in [
        "/",
        "/v1",
        "/v1/models",
        "/v1/messages",
        "/v1/messages/nothing",
        "/api/init",
        "/api/keys",
        "/nothing",
    ] {
        let get = gateway.call(&Call::get(path)).await;
        let mut line = gateway.line().await;
        for query in ["", "?beta=true"] {
            let head = line.call(&Call::new("HEAD", &format!("{path}{query}"))).await;
            assert_eq!(
                (head.status, head.header("content-type")),
                (get.status, get.header("content-type")),
                "{path}"
            );
            assert!(head.header("x-request-id").is_some(), "{path}");
        }
        // What comes next on the same connection is the next answer.
        assert_eq!(line.call(&Call::get("/healthz")).await.status, 200, "{path}");
        for refused in Refused::all("HEAD", path) {
            let mut line = gateway.line().await;
            line.write(refused.head.as_bytes()).await;
            let response = line.answer(true).await;
            assert_eq!(response.status, refused.status, "{path}");
            assert_ne!(response.header("content-length"), Some("0"), "{path}");
            assert!(line.is_closed().await, "{path}");
        }
    }
}

#[tokio::test]
async fn an_empty_line_after_a_body_holds_nothing_back() {
    let gateway = Gateway::start().await;
    let mut line = gateway.line().await;
    for call in [chat("sim/echo"), stream("sim/echo"), chat("sim/echo")] {
        let mut bytes = call.bytes();
        bytes.extend(b"\r\n");
        line.write(&bytes).await;
        let response = line.answer(false).await;
        assert_eq!(response.status, 200);
        assert!(response.text().contains("hello"), "{}", response.text());
    }
}
