//! What upstreams send: garbage, nothing, without end. Every failure is a clear error in the caller's dialect, memory
//! stays bounded, and nobody else notices.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use omniroute_testkit::{Answer, ScriptedUpstream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::gateway::Start;
use crate::world::{COMPLETION, EVENTS, World, add_connection, add_node, chat, messages, stream};

const HTML: &str = "<!DOCTYPE html><html><body><h1>Just a moment...</h1></body></html>";

fn impatient() -> Start {
    Start::new().env("FETCH_TIMEOUT_MS", "400").env("STREAM_IDLE_TIMEOUT_MS", "400")
}

#[tokio::test]
async fn bad_answers_become_clear_errors() {
    let world = World::of(impatient()).await;
    let many: String = (0..10_000).map(|number| format!("x-{number}: y\r\n")).collect();
    for (name, answer, status, words) in [
        ("garbage", Answer::raw("\x16\x03\x01 this is no HTTP at all\r\n\r\n"), 502, ""),
        ("nothing", Answer::raw(""), 502, ""),
        ("half a head", Answer::raw("HTTP/1.1 200 OK\r\ncontent-ty"), 502, ""),
        ("10,000 headers", Answer::raw(format!("HTTP/1.1 200 OK\r\n{many}\r\n{COMPLETION}")), 502, ""),
        ("HTML with 200", Answer::new(200, "text/html").send(HTML), 502, "HTML"),
        ("HTML with 503", Answer::new(503, "text/html").send(HTML), 503, "HTML (status 503)"),
        ("an empty body", Answer::json(200, ""), 502, "empty"),
        ("white space", Answer::json(200, " \n"), 502, ""),
        ("half a document", Answer::json(200, &COMPLETION[..COMPLETION.len() / 2]), 502, ""),
        ("another kind of document", Answer::json(200, "[1,2,3]"), 502, ""),
        ("a document without an answer", Answer::json(200, "{}"), 502, ""),
        (
            "an error with 200",
            Answer::json(200, r#"{"error":{"message":"out of cheese","type":"server_error"}}"#),
            502,
            "cheese",
        ),
        ("an answer cut by a reset", Answer::json(200, &COMPLETION[..40]).abort(), 502, ""),
        ("an answer that stops", Answer::json(200, &COMPLETION[..40]).hang(), 504, "silent"),
        ("a hang", Answer::json(200, COMPLETION).after(Duration::from_secs(60)), 504, "0.4 s"),
        (
            "a length that is too long",
            Answer::raw(format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{COMPLETION}",
                COMPLETION.len() + 9
            )),
            502,
            "",
        ),
        (
            "a length that is too short",
            Answer::raw(format!("HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{COMPLETION}")),
            502,
            "",
        ),
        (
            "chunks that are none",
            Answer::raw(format!(
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{COMPLETION}\r\n"
            )),
            502,
            "",
        ),
        ("a redirect", Answer::json(302, "").header("location", "http://127.0.0.1:9/"), 502, "302"),
        ("a permanent redirect", Answer::json(308, "").header("location", "/v2"), 502, "308"),
    ] {
        let before = world.upstream.requests().len();
        world.upstream.answer(answer.clone()).answer(answer.clone());
        let good = tokio::spawn(echo(world.gateway.address));
        let response = world.chat("up/m").await;
        assert_eq!(response.status, status, "{name}: {}", response.text());
        assert!(response.at("/error/message").contains(words), "{name}: {}", response.text());
        assert_eq!(response.at("/error/omniroute/attempts/0/provider"), world.node, "{name}");
        assert!(!response.text().contains('<'), "{name}: {}", response.text());
        world.recover().await;
        let response = world.gateway.call(&messages("up/m")).await;
        assert_eq!((response.status, response.at("/type")), (status, "error".to_owned()), "{name}");
        world.recover().await;
        assert_eq!(good.await.unwrap(), 200, "{name}");
        assert_eq!(
            world.upstream.requests().len(),
            before + 2,
            "{name}: each is one call, redirects are not followed"
        );
    }
    assert_eq!(world.chat("up/m").await.status, 200);
}

/// Another client's request, and its status.
async fn echo(address: SocketAddr) -> u16 {
    crate::client::Line::open(address).await.call(&chat("sim/echo")).await.status
}

#[tokio::test]
async fn bad_streams_fail_before_the_first_event_with_a_status() {
    let world = World::of(impatient()).await;
    for (name, answer, status) in [
        ("nothing in it", Answer::sse(&[]), 502),
        ("only the end", Answer::sse(&["data: [DONE]\n\n"]), 502),
        ("comments only", Answer::sse(&[": hello\n\n"]), 502),
        ("no JSON", Answer::sse(&["data: what?\n\n"]), 502),
        ("HTML", Answer::new(200, "text/html").send(HTML), 502),
        (
            "an error",
            Answer::sse(&[
                "data: {\"error\":{\"message\":\"slow down\",\"type\":\"rate_limit_error\",\"code\":429}}\n\n",
            ]),
            429,
        ),
        ("silence", Answer::sse(&[": hello\n\n"]).hang(), 504),
        ("a reset", Answer::sse(&[": hello\n\n"]).abort(), 502),
    ] {
        world.upstream.answer(answer);
        let response = world.gateway.call(&stream("up/m")).await;
        assert_eq!(response.status, status, "{name}: {}", response.text());
        assert_eq!(response.header("content-type"), Some("application/json"), "{name}");
        world.recover().await;
    }
}

#[tokio::test]
async fn streams_that_break_end_with_an_error_and_no_end_mark() {
    let world = World::of(impatient()).await;
    for (name, answer, words) in [
        (
            "a reset",
            Answer::sse(&EVENTS[..2]).pause(Duration::from_millis(20)).abort(),
            "upstream_stream_truncated",
        ),
        ("an early end", Answer::sse(&EVENTS[..2]), "upstream_stream_truncated"),
        ("silence", Answer::sse(&EVENTS[..2]).hang(), "silent"),
        (
            "an error",
            Answer::sse(&[EVENTS[0], "data: {\"error\":{\"message\":\"out of cheese\"}}\n\n"]),
            "cheese",
        ),
        ("no JSON", Answer::sse(&[EVENTS[0], "data: {\"id\":\n\n"]), "cannot be read"),
    ] {
        world.upstream.answer(answer.clone()).answer(answer);
        let began = Instant::now();
        let response = world.gateway.call(&stream("up/m")).await;
        let text = response.text();
        assert!(began.elapsed() < Duration::from_secs(5), "{name}: {:?}", began.elapsed());
        assert_eq!(response.status, 200, "{name}: {text}");
        assert!(text.contains("\"one\"") && text.contains("\"error\""), "{name}: {text}");
        assert!(text.contains(words) && !text.contains("[DONE]"), "{name}: {text}");
        world.recover().await;
        let body = String::from_utf8(messages("up/m").bytes())
            .unwrap()
            .replace("\"max_tokens\":50", "\"max_tokens\":5,\"stream\":true");
        let body = body.split_once("\r\n\r\n").unwrap().1.to_owned();
        let response = world.gateway.call(&crate::client::Call::post("/v1/messages", body)).await;
        let text = response.text();
        assert!(text.contains("event: error") && !text.contains("message_stop"), "{name}: {text}");
        world.recover().await;
    }
    let rows = world.gateway.logged(10).await;
    assert!(rows.iter().all(|row| row["status"] != 200), "{rows:?}");
}

#[tokio::test]
async fn headers_of_upstreams_stay_inside() {
    let world = World::start().await;
    let leaky = [
        ("set-cookie", "a=b"),
        ("server", "cloudflare"),
        ("cf-ray", "1"),
        ("x-ratelimit-remaining-requests", "1"),
        ("openai-organization", "org-1"),
        ("anthropic-organization-id", "org-2"),
    ];
    let dress =
        |answer: Answer| leaky.iter().fold(answer, |answer, (name, value)| answer.header(name, value));
    world.upstream.answer(dress(Answer::json(200, COMPLETION))).answer(dress(Answer::sse(&EVENTS)));
    for call in [chat("up/m"), stream("up/m")] {
        let response = world.gateway.call(&call).await;
        assert_eq!(response.status, 200);
        for (name, _) in leaky {
            assert_eq!(response.header(name), None, "{name}");
        }
    }
}

/// An upstream that answers every request with `head` and then `piece` as long as somebody reads.
async fn endless(head: &'static str, piece: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 4096];
                let _ = socket.read(&mut request).await;
                let block = piece.repeat((256 * 1024 / piece.len()).max(1));
                let mut written = socket.write_all(head.as_bytes()).await;
                while written.is_ok() {
                    written = socket.write_all(&block).await;
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn answers_without_end_are_cut_in_bounded_memory() {
    let world = World::start().await;
    let idle = world.gateway.rss_mib();
    let ok = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n";
    let sse = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
    let bad = "HTTP/1.1 500 No\r\ncontent-type: text/plain\r\n\r\n";
    for (number, (head, piece, is_stream, status)) in [
        (ok, b"{\"a\":0,".as_slice(), false, 502),
        (bad, b"no ".as_slice(), false, 500),
        ("HTTP/1.1 200 OK\r\nx-long: ", b"y".as_slice(), false, 502),
        // A line without an end, and lines that say nothing.
        (sse, b"data: {\"x\":\"y\",".as_slice(), true, 502),
        (sse, b": nothing\n\n".as_slice(), true, 502),
    ]
    .into_iter()
    .enumerate()
    {
        let prefix = format!("flood{number}");
        let address = endless(head, piece).await;
        let node = add_node(&world.gateway, &prefix, &format!("http://{address}/v1")).await;
        add_connection(&world.gateway, &node, "flood", "sk-flood-flood-flood").await;
        let model = format!("{prefix}/m");
        let call = if is_stream { stream(&model) } else { chat(&model) };
        let good = tokio::spawn(echo(world.gateway.address));
        let response = world.gateway.call(&call).await;
        assert_eq!(response.status, status, "{number}: {}", response.text());
        assert!(response.body.len() < 64 * 1024, "{number}");
        assert_eq!(good.await.unwrap(), 200);
    }
    let grown = world.gateway.rss_mib().saturating_sub(idle);
    assert!(grown < 250, "{grown} MiB more");
    assert_eq!(world.chat("up/m").await.status, 200);
}

#[tokio::test]
async fn a_slow_reader_holds_back_the_upstream_and_not_the_memory() {
    let world = World::start().await;
    let idle = world.gateway.rss_mib();
    let sse = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
    let address = endless(sse, EVENTS[1].as_bytes()).await;
    let node = add_node(&world.gateway, "flood", &format!("http://{address}/v1")).await;
    add_connection(&world.gateway, &node, "flood", "sk-flood-flood-flood").await;
    let mut line = world.gateway.line().await;
    line.write(&stream("flood/m").bytes()).await;
    assert_eq!(line.head().await.status, 200);
    // Nothing is read while others are served.
    for _ in 0..20 {
        assert_eq!(world.chat("up/m").await.status, 200);
    }
    let grown = world.gateway.rss_mib().saturating_sub(idle);
    assert!(grown < 60, "{grown} MiB more");
    drop(line);
}

#[tokio::test]
async fn an_upstream_that_says_continue_first_is_understood() {
    let world = World::start().await;
    let length = COMPLETION.len();
    let text = format!(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{COMPLETION}"
    );
    world.upstream.answer(Answer::raw(text));
    let response = world.chat("up/m").await;
    assert_eq!(response.status, 200, "{}", response.text());
    // That connection was closed behind the answer; the next request takes another and fails nobody.
    assert_eq!(world.chat("up/m").await.status, 200);
}

#[tokio::test]
async fn an_upstream_that_is_not_there_is_a_502() {
    let world = World::start().await;
    let gone = ScriptedUpstream::start().await.url("/v1");
    let node = add_node(&world.gateway, "gone", &gone).await;
    add_connection(&world.gateway, &node, "gone", "sk-gone-gone-gone").await;
    let response = world.chat("gone/m").await;
    assert_eq!(
        (response.status, response.at("/error/code")),
        (502, "network_error".to_owned()),
        "{}",
        response.text()
    );
}
