//! What clients send: encoded, odd, broken, too much. Every mistake is named in the dialect of the path.

use async_compression::tokio::write::{BrotliEncoder, GzipEncoder, ZlibEncoder, ZstdEncoder};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use crate::client::{Call, Response};
use crate::gateway::{Gateway, Start};
use crate::world::{World, chat, messages};

/// Packs with the encoding of that name.
async fn pack(encoding: &str, bytes: &[u8]) -> Vec<u8> {
    macro_rules! with {
        ($encoder:ident) => {{
            let mut encoder = $encoder::new(Vec::new());
            encoder.write_all(bytes).await.unwrap();
            encoder.shutdown().await.unwrap();
            encoder.into_inner()
        }};
    }
    match encoding {
        "gzip" => with!(GzipEncoder),
        "br" => with!(BrotliEncoder),
        "zstd" => with!(ZstdEncoder),
        "deflate" => with!(ZlibEncoder),
        other => panic!("{other}"),
    }
}

fn post(body: impl Into<Vec<u8>>) -> Call {
    Call::post("/v1/chat/completions", body)
}

/// The error's code, and what its message must mention.
fn assert_error(response: &Response, status: u16, code: &str, words: &str) {
    assert_eq!(response.status, status, "{}", response.text());
    assert_eq!(response.at("/error/code"), code, "{}", response.text());
    assert!(response.at("/error/message").contains(words), "`{words}` in {}", response.text());
}

#[tokio::test]
async fn encoded_bodies_reach_the_upstream_decoded() {
    let world = World::start().await;
    let body = br#"{"model":"up/m","messages":[{"role":"user","content":"packed"}]}"#;
    let mut count = 0;
    for encoding in ["gzip", "br", "zstd", "deflate"] {
        let call = post(pack(encoding, body).await).header("content-encoding", encoding);
        let response = world.gateway.call(&call).await;
        assert_eq!(response.status, 200, "{encoding}: {}", response.text());
        count += 1;
        let sent = world.upstream.request(count).await;
        assert_eq!(sent.header("content-encoding"), None);
        assert_eq!(String::from_utf8_lossy(&sent.body), String::from_utf8_lossy(body).replace("up/m", "m"));
    }
    let twice = pack("gzip", &pack("br", body).await).await;
    let call = post(twice).header("content-encoding", "br, gzip");
    assert_eq!(world.gateway.call(&call).await.status, 200);
}

#[tokio::test]
async fn bodies_that_are_not_what_they_say_are_refused() {
    let gateway = Gateway::start().await;
    for encoding in ["gzip", "br", "zstd", "deflate", "rot13"] {
        let call = post("{\"model\":\"sim/echo\"}").header("content-encoding", encoding);
        assert_error(&gateway.call(&call).await, 400, "bad_request", "Content-Encoding");
    }
    let mut cut = pack("gzip", &[b'a'; 5_000]).await;
    cut.truncate(cut.len() / 2);
    let response = gateway.call(&post(cut).header("content-encoding", "gzip")).await;
    assert_error(&response, 400, "bad_request", "Content-Encoding");
}

#[tokio::test]
async fn a_bomb_is_defused_at_the_limit() {
    let gateway = Gateway::start().await;
    let before = gateway.rss_mib();
    for (encoding, mib) in [("gzip", 200), ("zstd", 200), ("deflate", 60)] {
        let bomb = pack(encoding, &vec![b' '; mib << 20]).await;
        assert!(bomb.len() < 1 << 20);
        let response = gateway.call(&post(bomb).header("content-encoding", encoding)).await;
        assert_error(&response, 413, "request_too_large", "MAX_BODY_SIZE_BYTES");
    }
    let grown = gateway.rss_mib().saturating_sub(before);
    assert!(grown < 250, "{grown} MiB more");
}

#[tokio::test]
async fn bodies_over_the_limit_are_refused_in_the_dialect_of_the_path() {
    let gateway = Start::new().env("MAX_BODY_SIZE_BYTES", "2000").run().await;
    let large = json!({"model": "sim/echo", "max_tokens": 5, "messages": [{"role": "user", "content": "x".repeat(3000)}]});
    let chunked = |path: &str| {
        let body = large.to_string();
        let framed = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
        Call::post(path, framed).header("transfer-encoding", "chunked")
    };
    for call in [post(large.to_string()), chunked("/v1/chat/completions")] {
        assert_error(&gateway.call(&call).await, 413, "request_too_large", "2000");
    }
    for call in [Call::post("/v1/messages", large.to_string()), chunked("/v1/messages")] {
        let response = gateway.call(&call).await;
        assert_eq!((response.status, response.at("/type")), (413, "error".to_owned()));
        assert_eq!(response.at("/error/type"), "request_too_large");
    }
    // Told before anything is sent, and read no further than politeness asks.
    let mut line = gateway.line().await;
    line.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 9000000000\r\nexpect: 100-continue\r\n\r\n").await;
    line.write(&vec![b'x'; 1 << 20]).await;
    let mut head = line.head().await;
    if head.status == 100 {
        head = line.head().await;
    }
    assert_eq!(head.status, 413);
    assert_eq!(gateway.call(&chat("sim/echo")).await.status, 200);
}

#[tokio::test]
async fn the_body_limit_of_management_routes_is_their_own() {
    let gateway = Gateway::start().await;
    let large = json!({"name": "x".repeat(11 << 20)});
    let response = gateway.manage("POST", "/api/keys", &large).await;
    assert_eq!((response.status, response.at("/error/code")), (413, "TOO_LARGE".to_owned()));
}

#[tokio::test]
async fn same_dialect_bodies_are_passed_on_byte_for_byte() {
    let world = World::start().await;
    for (count, (sent, expected)) in [
        // Numbers keep their text, members their order, and unknown members their place.
        (
            r#"{"z":1e-9,"seed":18446744073709551615,"temperature":1.0,"model":"up/m","a":{"b":[0.1000,-0,1E5]},"messages":[{"content":"\u0041\/","role":"user"}],"z2":null}"#,
            r#"{"z":1e-9,"seed":18446744073709551615,"temperature":1.0,"model":"m","a":{"b":[0.1000,-0,1E5]},"messages":[{"content":"\u0041\/","role":"user"}],"z2":null}"#,
        ),
        // White space too; no upstream takes a byte-order mark.
        (
            "\u{feff} {\n\t\"model\" : \"up/m\" ,\r\n \"messages\":[ {\"role\":\"user\",\"content\":\"häß 😀\"} ] }\n",
            " {\n\t\"model\" : \"m\" ,\r\n \"messages\":[ {\"role\":\"user\",\"content\":\"häß 😀\"} ] }\n",
        ),
        // Half a character pair would be refused by upstreams.
        (
            r#"{"model":"up/m","messages":[{"role":"user","content":"a\ud83d b\ude00 c\ud83d\ude00"}]}"#,
            "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"a\u{fffd} b\u{fffd} c\\ud83d\\ude00\"}]}",
        ),
        // Repeated members deep inside are the upstream's to judge.
        (
            r#"{"model":"up/m","messages":[{"role":"user","content":"x","content":"y"}]}"#,
            r#"{"model":"m","messages":[{"role":"user","content":"x","content":"y"}]}"#,
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let response = world.gateway.call(&post(sent)).await;
        assert_eq!(response.status, 200, "{sent}: {}", response.text());
        let got = world.upstream.request(count + 1).await;
        let got = String::from_utf8(got.body.to_vec()).unwrap();
        let normal = |text: &str| text.replace("\\ufffd", "\u{fffd}").replace("\\uFFFD", "\u{fffd}");
        assert_eq!(normal(&got), expected);
    }
}

#[tokio::test]
async fn mistakes_in_bodies_are_named() {
    let gateway = Gateway::start().await;
    let messages = r#""messages":[{"role":"user","content":"x"}]"#;
    for (body, code, words) in [
        ("".to_owned(), "invalid_json", "0"),
        ("hello".to_owned(), "invalid_json", "0"),
        ("[1,2]".to_owned(), "invalid_json", "object"),
        ("null".to_owned(), "invalid_json", "object"),
        (r#"{"model":"sim/echo""#.to_owned(), "invalid_json", "byte 1"),
        (r#"{"model":"sim/echo",}"#.to_owned(), "invalid_json", "byte 20"),
        (format!(r#"{{"model":"sim/echo",{messages}}} secret"#), "invalid_json", "byte 6"),
        (format!(r#"{{"model":"a","model":"sim/echo",{messages}}}"#), "invalid_json", "model"),
        (
            format!(r#"{{"model":"sim/echo","stream":true,"stream":false,{messages}}}"#),
            "invalid_json",
            "stream",
        ),
        (format!("{{{messages}}}"), "missing_required_parameter", "model"),
        (format!(r#"{{"model":5,{messages}}}"#), "invalid_type", "model"),
        (format!(r#"{{"model":"",{messages}}}"#), "invalid_value", "model"),
        (format!(r#"{{"model":"sim/echo","stream":"yes",{messages}}}"#), "invalid_type", "stream"),
        (r#"{"model":"sim/echo"}"#.to_owned(), "missing_required_parameter", "messages"),
        (r#"{"model":"sim/echo","messages":"x"}"#.to_owned(), "invalid_type", "messages"),
        (r#"{"model":"sim/echo","messages":[]}"#.to_owned(), "invalid_value", "messages"),
        (format!(r#"{{"model":"a\u0000b",{messages}}}"#), "invalid_model", "model"),
        (format!(r#"{{"model":"sim/../../etc",{messages}}}"#), "invalid_model", "model"),
        (format!(r#"{{"model":"{}",{messages}}}"#, "x".repeat(300)), "invalid_model", "model"),
    ] {
        let response = gateway.call(&post(body.clone())).await;
        assert_eq!(response.status, 400, "{body}: {}", response.text());
        assert_eq!(response.at("/error/type"), "invalid_request_error");
        assert_eq!(response.at("/error/code"), code, "{body}: {}", response.text());
        assert!(response.at("/error/message").contains(words), "{body}: {}", response.text());
        assert!(!response.text().contains("secret") && response.header("x-should-retry") == Some("false"));
        // The same in the other dialect.
        let response = gateway.call(&Call::post("/v1/messages", body.clone())).await;
        assert_eq!(response.status, 400, "{body}: {}", response.text());
        assert_eq!(
            (response.at("/type"), response.at("/error/type")),
            ("error".into(), "invalid_request_error".into())
        );
    }
    for at in [0_usize, 20, 60] {
        let mut body =
            format!(r#"{{"model":"sim/echo",{messages}, "padding":"{}"}}"#, "x".repeat(60)).into_bytes();
        body[at] = 0xff;
        let response = gateway.call(&post(body)).await;
        assert_error(&response, 400, "invalid_json", &format!("byte {at}"));
    }
    let deep = format!(r#"{{"model":"sim/echo","messages":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(gateway.call(&post(deep.clone())).await.status, 400);
    assert_eq!(gateway.call(&Call::post("/v1/messages", deep)).await.status, 400);
    assert_eq!(gateway.call(&chat("sim/echo")).await.status, 200);
}

#[tokio::test]
async fn unknown_names_are_named() {
    let world = World::start().await;
    for (model, status, code) in [
        ("nobody/gpt", 400, "unknown_provider"),
        ("nobody-makes-this", 404, "model_not_found"),
        ("openai/gpt-4o", 400, "no_credentials"),
    ] {
        let response = world.chat(model).await;
        assert_error(&response, status, code, model.split('/').next().unwrap());
        let response = world.gateway.call(&messages(model)).await;
        assert_eq!(response.status, status);
        assert_eq!(response.at("/type"), "error");
    }
    assert!(world.upstream.requests().is_empty());
}

#[tokio::test]
async fn a_body_cut_half_way_costs_nobody_anything() {
    let world = World::start().await;
    let whole = chat("up/m").bytes();
    for close_at_once in [false, true] {
        let mut line = world.gateway.line().await;
        line.write(&whole[..whole.len() - 10]).await;
        if close_at_once {
            drop(line);
        } else {
            line.finish().await;
            // Whoever stops writing may still be reading.
            if let Some(head) = line.try_head().await {
                assert_eq!(head.status, 400);
            }
        }
    }
    // Bad framing of a chunked body.
    for framing in ["zz\r\nhello\r\n0\r\n\r\n", "5\r\nhelloXX0\r\n\r\n", "ffffffffffffffffff\r\n"] {
        let call = Call::post("/v1/chat/completions", framing).header("transfer-encoding", "chunked");
        let mut line = world.gateway.line().await;
        line.write(&call.bytes()).await;
        if let Some(head) = line.try_head().await {
            assert_eq!(head.status, 400, "{framing}");
        }
    }
    assert_eq!(world.chat("up/m").await.status, 200);
    assert_eq!(world.upstream.requests().len(), 1);
}
