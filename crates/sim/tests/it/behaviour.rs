//! What the words of a model's name do.

use std::time::Duration;

use http_body_util::BodyExt as _;

use super::*;

const SAID: &str = "What is up with the weather today?";

#[tokio::test]
async fn echo_answers_what_was_said_whole_and_as_a_stream() {
    for path in BOTH {
        let whole = ask(&simulator(), path, &body(path, "echo", false)).await;
        let text = if path == CHAT { "/choices/0/message/content" } else { "/content/0/text" };
        assert_eq!((whole.status, whole.json().pointer(text).unwrap()), (200, &json!(SAID)), "{path}");
        assert_eq!(whole.json()["model"], "echo");
        let stream = ask(&simulator(), path, &body(path, "echo", true)).await;
        assert_eq!(stream.streamed(), SAID, "{path}");
        assert!(stream.header("content-type").unwrap().starts_with("text/event-stream"));
    }
}

#[tokio::test]
async fn chunks_are_frames_of_their_own() {
    for path in BOTH {
        let stream = ask(&simulator(), path, &body(path, "chunks-100", true)).await;
        let pieces = stream.frames.iter().filter(|frame| {
            let text = String::from_utf8_lossy(frame);
            text.contains("text_delta") || (text.contains("\"content\":\"") && !text.contains("\"role\""))
        });
        assert_eq!(pieces.count(), 100, "{path}");
        let sized = ask(&simulator(), path, &body(path, "size-1k-chunks-8", true)).await;
        assert_eq!(sized.streamed().len(), 1024, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn pauses_are_where_they_should_be() {
    let ms = Duration::from_millis;
    for path in BOTH {
        for (model, stream, head, first, end) in [
            ("delay-250ms", false, 250, 250, 250),
            ("delay-250ms-ttft-1s", true, 250, 1250, 1250),
            ("ttft-500ms", true, 0, 500, 500),
            ("chunks-5-slow-50ms", true, 0, 0, 200),
        ] {
            let answer = ask(&simulator(), path, &body(path, model, stream)).await;
            // Timers fire up to a millisecond late, once per pause.
            for (found, expected) in
                [(answer.head_after, head), (answer.first_after, first), (answer.end_after, end)]
            {
                assert!(found >= ms(expected) && found <= ms(expected + 8), "{path} {model}: {found:?}");
            }
        }
        let dripped = ask(&simulator(), path, &body(path, "size-1k-slow-10ms", false)).await;
        assert_eq!(dripped.frames.len(), 16);
        assert!(dripped.end_after >= ms(150) && dripped.json().is_object(), "{:?}", dripped.end_after);
    }
}

#[tokio::test]
async fn refusals_have_the_vendors_shape() {
    for (status, openai, anthropic) in [
        (400, "invalid_request_error", "invalid_request_error"),
        (401, "invalid_request_error", "authentication_error"),
        (403, "invalid_request_error", "permission_error"),
        (429, "requests", "rate_limit_error"),
        (500, "server_error", "api_error"),
        (529, "server_error", "overloaded_error"),
    ] {
        for (path, expected) in [(CHAT, openai), (MESSAGES, anthropic)] {
            let answer = ask(&simulator(), path, &body(path, &format!("error-{status}"), true)).await;
            assert_eq!(answer.status, status);
            assert_eq!(answer.json()["error"]["type"], expected, "{path} {status}");
            assert!(answer.json()["error"]["message"].is_string());
        }
    }
    let limited = ask(&simulator(), CHAT, &body(CHAT, "error-429-retry-1500ms", false)).await;
    assert_eq!((limited.header("retry-after"), limited.header("retry-after-ms")), (Some("2"), Some("1500")));
    assert_eq!(limited.json()["error"]["code"], "rate_limit_exceeded");
}

#[tokio::test]
async fn the_first_requests_of_a_key_fail() {
    let simulator = simulator();
    for path in BOTH {
        let body = body(path, "fail-first-2-error-429-retry-1s", false);
        let mut seen = Vec::new();
        for key in ["sk-a", "sk-b", "sk-a", "sk-a", "sk-b", "sk-b"] {
            seen.push(ask_with(&simulator, path, &body, &format!("{key}{path}")).await.status);
        }
        assert_eq!(seen, [429, 429, 429, 200, 429, 200], "{path}");
    }
    let plain = ask(&simulator, CHAT, &body(CHAT, "fail-first-1", false)).await;
    assert_eq!(plain.status, 503);
}

#[tokio::test(start_paused = true)]
async fn hanging_answers_do_not_end() {
    for path in BOTH {
        let simulator = simulator();
        let hour = Duration::from_secs(3600);
        for stream in [false, true] {
            let body = body(path, "hang", stream);
            assert!(tokio::time::timeout(hour, ask(&simulator, path, &body)).await.is_err());
        }
        // A stalled stream has begun.
        let body = body(path, "stall-2", true);
        let request = Request::post(path)
            .header("content-type", "application/json")
            .header("authorization", "Bearer k")
            .header("anthropic-version", "2023-06-01");
        let response = simulator.respond(request.body(Bytes::from(body.to_string())).unwrap()).await;
        let mut stream = response.into_body();
        let mut text = String::new();
        while let Ok(frame) = tokio::time::timeout(hour, stream.frame()).await {
            text.push_str(&String::from_utf8_lossy(&frame.unwrap().unwrap().into_data().unwrap()));
        }
        assert!(text.contains("What ") && text.contains("is ") && !text.contains("up "), "{path}");
    }
}

#[tokio::test]
async fn streams_break_where_the_script_says() {
    for path in BOTH {
        for (model, text) in [("cut-3", "What is up "), ("cut-0", ""), ("cut-99", SAID), ("empty-cut-1", "")]
        {
            let stream = ask(&simulator(), path, &body(path, model, true)).await;
            assert!(stream.broken, "{path} {model}");
            assert_eq!(stream.streamed(), text, "{path} {model}");
        }
        let whole = ask(&simulator(), path, &body(path, "cut-1", false)).await;
        assert!(whole.broken && serde_json::from_slice::<Value>(&whole.bytes()).is_err());

        let error = ask(&simulator(), path, &body(path, "error-after-2", true)).await;
        assert_eq!(error.streamed(), "What is ");
        let last = error.events().pop().unwrap();
        assert!(last["error"]["message"].is_string() && !error.broken, "{path}: {last}");
    }
}

#[tokio::test]
async fn malformed_answers_are_malformed_in_one_place() {
    for path in BOTH {
        let stream = ask(&simulator(), path, &body(path, "malformed-2", true)).await;
        assert_eq!(
            stream.events().iter().filter(|event| event.is_string()).count(),
            if path == CHAT { 2 } else { 1 }
        );
        assert_eq!(stream.streamed(), SAID.replace("is ", ""), "{path}");
        let whole = ask(&simulator(), path, &body(path, "malformed-1", false)).await;
        assert!(serde_json::from_slice::<Value>(&whole.bytes()).is_err() && whole.status == 200);
    }
}

#[tokio::test]
async fn errors_hide_in_good_answers() {
    for path in BOTH {
        for (model, stream) in [
            ("error-in-200", false),
            ("error-in-200", true),
            ("error-first-event", false),
            ("error-after-1", false),
        ] {
            let answer = ask(&simulator(), path, &body(path, model, stream)).await;
            assert_eq!(answer.status, 200);
            assert!(answer.json()["error"]["message"].is_string(), "{path} {model}");
        }
        let first = ask(&simulator(), path, &body(path, "error-first-event-error-429", true)).await;
        assert_eq!(first.events().len(), 1);
        assert!(first.events()[0]["error"]["message"].as_str().unwrap().contains("429"));
    }
}

#[tokio::test]
async fn other_things_than_answers() {
    for path in BOTH {
        let page = ask(&simulator(), path, &body(path, "html-error-503", false)).await;
        assert_eq!((page.status, page.header("content-type")), (503, Some("text/html; charset=utf-8")));
        assert!(page.text().starts_with("<!DOCTYPE html>"));
        let garbage = ask(&simulator(), path, &body(path, "garbage", true)).await;
        assert_eq!((garbage.status, garbage.bytes().len()), (200, 4096));
        assert!(std::str::from_utf8(&garbage.bytes()).is_err());
        let blank = ask(&simulator(), path, &body(path, "blank", false)).await;
        assert_eq!((blank.status, blank.bytes().len()), (200, 0));

        let empty = ask(&simulator(), path, &body(path, "empty", false)).await.json();
        match path {
            CHAT => assert_eq!(
                (&empty["choices"][0]["message"]["content"], &empty["usage"]["completion_tokens"]),
                (&json!(""), &json!(0))
            ),
            _ => assert_eq!((&empty["content"], &empty["usage"]["output_tokens"]), (&json!([]), &json!(0))),
        }
        let whole = ask(&simulator(), path, &body(path, "echo-whole", true)).await;
        assert!(whole.json().is_object());
        let stream = ask(&simulator(), path, &body(path, "echo-stream-crlf", false)).await;
        assert_eq!(stream.streamed(), SAID);
        assert!(stream.text().contains("\r\n\r\n") && !stream.text().replace("\r\n", "").contains('\n'));
    }
}

#[tokio::test]
async fn huge_answers_are_made_while_they_are_sent() {
    for path in BOTH {
        let whole = ask(&simulator(), path, &body(path, "huge-3m", false)).await;
        assert!(whole.frames.iter().all(|frame| frame.len() <= 32 << 10));
        let text = if path == CHAT { "/choices/0/message/content" } else { "/content/0/text" };
        assert_eq!(whole.json().pointer(text).unwrap().as_str().unwrap().len(), 3 << 20);
        let stream = ask(&simulator(), path, &body(path, "huge-3m", true)).await;
        assert!(stream.bytes().len() > 3 << 20);
        assert!(stream.events().iter().all(|event| event.is_object() || event == "[DONE]"));
    }
}

#[tokio::test]
async fn keys_decide_too() {
    for path in BOTH {
        let body = body(path, "echo", false);
        for (key, status, code) in [
            ("", 401, json!("invalid_api_key")),
            ("sk-bad-1", 401, json!("invalid_api_key")),
            ("sk-limited-1", 429, json!("rate_limit_exceeded")),
            ("sk-broke-1", if path == CHAT { 429 } else { 400 }, json!("insufficient_quota")),
        ] {
            let answer = ask_with(&simulator(), path, &body, key).await;
            assert_eq!(answer.status, status, "{path} {key}");
            if path == CHAT {
                assert_eq!(answer.json()["error"]["code"], code);
            }
            assert_eq!(answer.headers.contains_key("retry-after"), key.starts_with("sk-limited"));
        }
        assert_eq!(ask_with(&Simulator::new(Access::Open), path, &body, "").await.status, 200);
    }
}

#[tokio::test]
async fn paths_and_methods_are_checked() {
    for (method, path, status) in [
        ("GET", CHAT, 405),
        ("POST", "/v1/models", 405),
        ("POST", "/v1/v1/chat/completions", 404),
        ("POST", "/any/v1/chat/completions", 200),
        ("POST", "/a/b/v1/chat/completions", 404),
        ("POST", "/chat/completions", 404),
        ("GET", "/v1/models", 200),
        ("GET", "/v1/models/lorem", 200),
        ("GET", "/v1/models/gpt", 404),
    ] {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", "Bearer k")
            .header("content-type", "application/json");
        let body = if method == "POST" { body(CHAT, "echo", false).to_string() } else { String::new() };
        let answer = send(&simulator(), request.body(Bytes::from(body)).unwrap()).await;
        assert_eq!(answer.status, status, "{method} {path}");
        assert_eq!(answer.headers.contains_key("allow"), status == 405);
    }
    let list = |version: bool| async move {
        let mut request = Request::get("/v1/models").header("authorization", "Bearer k");
        if version {
            request = request.header("anthropic-version", "2023-06-01");
        }
        send(&simulator(), request.body(Bytes::new()).unwrap()).await.json()
    };
    assert_eq!(list(false).await["data"][0]["object"], "model");
    assert_eq!(list(true).await["data"][0]["type"], "model");
}

#[tokio::test]
async fn models_are_unknown_by_name_and_prompts_too_long_by_count() {
    for path in BOTH {
        let unknown = ask(&simulator(), path, &body(path, "gpt-4o", false)).await;
        assert_eq!(unknown.status, 404);
        assert!(unknown.json()["error"]["message"].as_str().unwrap().contains("gpt-4o"));
        let long = ask(&simulator(), path, &body(path, "echo-window-5", false)).await;
        assert_eq!(long.status, 400);
        let message = long.json()["error"]["message"].as_str().unwrap().to_owned();
        if path == CHAT {
            assert_eq!(long.json()["error"]["code"], "context_length_exceeded");
        } else {
            assert!(message.starts_with("prompt is too long"));
        }
    }
}
