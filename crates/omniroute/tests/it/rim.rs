//! Paths, methods, CORS, request ids, and HTTP itself: client-facing rules that hold before anybody reads a body.

use serde_json::json;

use crate::client::Call;
use crate::gateway::{Gateway, Start};
use crate::world::{chat, messages, stream};

#[tokio::test]
async fn aliases_of_a_path_reach_the_same_handler() {
    let gateway = Gateway::start().await;
    let body =
        json!({"model": "sim/echo", "max_tokens": 9, "messages": [{"role": "user", "content": "hi there"}]});
    for (route, answer) in
        [("/chat/completions", "/choices/0/message/content"), ("/messages", "/content/0/text")]
    {
        for form in ["/v1{}", "/v1{}/", "/api/v1{}", "/v1/v1{}", "/api/v1/v1{}"] {
            let path = form.replace("{}", route);
            let response = gateway.call(&Call::post(&path, body.to_string())).await;
            assert_eq!(response.status, 200, "{path}: {}", response.text());
            assert!(response.at(answer).contains("hi there"), "{path}: {}", response.text());
        }
    }
    let models = gateway.call(&Call::get("/v1/models")).await;
    for path in ["/v1/models/", "/api/v1/models", "/v1/v1/models"] {
        assert_eq!(gateway.call(&Call::get(path)).await.body, models.body, "{path}");
    }
}

#[tokio::test]
async fn unknown_paths_and_methods_are_json_in_the_dialect_of_the_path() {
    let gateway = Gateway::start().await;
    for (method, path, status, pointer, expected) in [
        ("GET", "/v1/nothing", 404, "/error/code", "not_found"),
        ("POST", "/v1/nothing", 404, "/error/code", "not_found"),
        ("GET", "/v1", 404, "/error/code", "not_found"),
        ("POST", "/v1/messages/nothing", 404, "/error/type", "not_found_error"),
        ("GET", "/api/nothing", 404, "/error/code", "NOT_FOUND"),
        ("GET", "/v1/chat/completions", 405, "/error/code", "method_not_allowed"),
        ("DELETE", "/v1/messages", 405, "/error/type", "invalid_request_error"),
        ("POST", "/v1/models", 405, "/error/code", "method_not_allowed"),
        ("POST", "/api/monitoring/health", 405, "/error/code", "METHOD_NOT_ALLOWED"),
    ] {
        let response = gateway.call(&Call::new(method, path)).await;
        assert_eq!(response.status, status, "{method} {path}");
        assert_eq!(response.at(pointer), expected, "{method} {path}");
        assert_eq!(response.header("content-type"), Some("application/json"), "{method} {path}");
        assert_eq!(response.header("allow").is_some(), status == 405, "{method} {path}");
        assert!(response.header("x-request-id").is_some(), "{method} {path}");
    }
    let response = gateway.call(&Call::get("/v1/nothing")).await.json();
    let members: Vec<_> = response["error"].as_object().unwrap().keys().cloned().collect();
    for name in ["message", "type", "param", "code"] {
        assert!(members.iter().any(|member| member == name), "{name} is missing in {response}");
    }
}

#[tokio::test]
async fn browsers_are_told_what_they_may() {
    let gateway = Gateway::start().await;
    let ask = Call::new("OPTIONS", "/v1/chat/completions")
        .header("origin", "https://app.example")
        .header("access-control-request-method", "POST");
    let response = gateway.call(&ask).await;
    assert_eq!(response.status, 204);
    assert_eq!(response.header("access-control-allow-origin"), Some("*"));
    assert_eq!(response.header("access-control-allow-methods"), Some("POST, OPTIONS"));
    let allowed = response.header("access-control-allow-headers").unwrap();
    for name in ["*", "Authorization", "X-Api-Key", "Anthropic-Version", "X-OmniRoute-No-Cache"] {
        assert!(allowed.split(", ").any(|known| known == name), "{name} in {allowed}");
    }
    assert!(response.header("x-request-id").is_some());
    // Errors too can be read by the page, and so can the headers it wants to know.
    for response in [gateway.call(&chat("no/such")).await, gateway.call(&chat("sim/echo")).await] {
        assert_eq!(response.header("access-control-allow-origin"), Some("*"));
        let exposed = response.header("access-control-expose-headers").unwrap().to_ascii_lowercase();
        for name in ["x-request-id", "retry-after", "request-id", "x-omniroute-provider"] {
            assert!(exposed.split(", ").any(|known| known == name), "{name} in {exposed}");
        }
    }
    // Management routes never allow everybody.
    let response =
        gateway.call(&Call::new("OPTIONS", "/api/keys").header("origin", "https://a.example")).await;
    assert_eq!(response.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn cors_origins_limit_who_may_read_answers() {
    let start = Start::new().env("CORS_ORIGINS", "https://good.example, https://fine.example");
    let gateway = start.run().await;
    for (origin, allowed) in [("https://fine.example", true), ("https://bad.example", false)] {
        for method in ["OPTIONS", "POST"] {
            let call = chat("sim/echo").method(method).header("origin", origin);
            let response = gateway.call(&call).await;
            assert_eq!(response.header("access-control-allow-origin"), allowed.then_some(origin), "{method}");
            assert!(response.header("vary").is_some_and(|vary| vary.contains("Origin")), "{method}");
        }
        let response = gateway.call(&chat("sim/echo").header("origin", origin)).await;
        assert_eq!(response.status, if allowed { 200 } else { 403 }, "{}", response.text());
        if !allowed {
            assert_eq!(response.at("/error/code"), "origin_not_allowed");
        }
    }
    let response = gateway.call(&Call::get("/api/init").header("origin", "https://good.example")).await;
    assert_eq!(response.header("access-control-allow-origin"), Some("https://good.example"));
}

#[tokio::test]
async fn foreign_pages_and_rebound_names_spend_nobodys_accounts() {
    let gateway = Gateway::start().await;
    for (name, value, status) in [
        ("origin", "https://evil.example", 403),
        ("origin", "null", 403),
        ("host", "evil.example", 403),
        ("origin", "http://localhost:3000", 200),
        ("host", "localhost:20128", 200),
    ] {
        let response = gateway.call(&chat("sim/echo").header(name, value)).await;
        assert_eq!(response.status, status, "{name}: {value}: {}", response.text());
        if status == 403 {
            assert_eq!(response.at("/error/code"), "origin_not_allowed");
        }
    }
}

#[tokio::test]
async fn request_ids_are_kept_or_made_and_told() {
    let gateway = Gateway::start().await;
    let own = "my-id_1.2:3";
    for call in [
        chat("sim/echo"),
        stream("sim/echo"),
        chat("no/such"),
        Call::get("/v1/models"),
        Call::get("/api/init"),
        Call::get("/"),
        Call::get("/healthz"),
    ] {
        let response = gateway.call(&call.clone().header("x-request-id", own)).await;
        assert_eq!(response.header("x-request-id"), Some(own));
        for bad in ["has space", "", &"x".repeat(129), "semi;colon"] {
            let response = gateway.call(&call.clone().header("x-request-id", bad)).await;
            let id = response.header("x-request-id").unwrap();
            let made = id.strip_prefix("req_").unwrap_or_else(|| panic!("{id} for {bad}"));
            assert!(made.len() == 24 && made.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{id}");
        }
    }
    // The Anthropic SDK reads another header, and the id in the error.
    let response = gateway.call(&messages("sim/echo").header("x-request-id", own)).await;
    assert_eq!((response.status, response.header("request-id")), (200, Some(own)));
    let response = gateway.call(&messages("no/such").header("x-request-id", own)).await;
    assert_eq!(response.header("request-id"), Some(own));
    assert_eq!(response.at("/request_id"), own);
}

#[tokio::test]
async fn probes_of_the_root_are_answered() {
    let gateway = Gateway::start().await;
    let page = gateway.call(&Call::get("/")).await;
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").unwrap().starts_with("text/html"));
    assert!(page.text().contains("OmniRoute"));
    for path in ["/", "/v1/models", "/healthz"] {
        let whole = gateway.call(&Call::get(path)).await;
        let mut line = gateway.line().await;
        let head = line.call(&Call::new("HEAD", path)).await;
        assert_eq!(head.status, 200, "{path}");
        assert_eq!(head.header("content-length"), whole.header("content-length"), "{path}");
        // No body was sent: what comes next on the same connection is the next answer.
        assert_eq!(line.call(&Call::get("/healthz")).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn http_1_0_clients_get_answers_without_chunks() {
    let gateway = Gateway::start().await;
    for (call, mark) in [(chat("sim/echo"), "chat.completion"), (stream("sim/echo"), "data: [DONE]")] {
        let bytes = String::from_utf8(call.bytes()).unwrap().replacen("HTTP/1.1", "HTTP/1.0", 1);
        let mut line = gateway.line().await;
        line.write(bytes.as_bytes()).await;
        let response = line.answer(false).await;
        assert_eq!((response.status, response.header("transfer-encoding")), (200, None));
        assert!(response.text().contains(mark), "{}", response.text());
        assert!(line.is_closed().await);
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let gateway = Gateway::start().await;
    let mut bytes = Vec::new();
    for word in ["alpha", "beta", "gamma"] {
        let body = json!({"model": "sim/echo", "messages": [{"role": "user", "content": word}]});
        bytes.extend(Call::post("/v1/chat/completions", body.to_string()).bytes());
    }
    let mut line = gateway.line().await;
    line.write(&bytes).await;
    for word in ["alpha", "beta", "gamma"] {
        let response = line.answer(false).await;
        assert!(response.at("/choices/0/message/content").contains(word), "{}", response.text());
    }
}

#[tokio::test]
async fn clients_that_wait_for_100_continue_get_it() {
    let gateway = Gateway::start().await;
    let whole = chat("sim/echo").header("expect", "100-continue").bytes();
    let head_end = whole.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    let mut line = gateway.line().await;
    line.write(&whole[..head_end]).await;
    assert_eq!(line.head().await.status, 100);
    line.write(&whole[head_end..]).await;
    assert_eq!(line.answer(false).await.status, 200);
}
