//! What the words of a model's name do, in every dialect.

use std::time::Duration;

use http_body_util::BodyExt as _;

use super::*;
use dialects::{Chat, Gemini, Messages, Ollama, Responses};

#[tokio::test]
async fn echo_answers_what_was_said_whole_and_as_a_stream() {
    for dialect in ALL {
        let whole = ask(call(dialect, "echo", false)).await;
        assert_eq!((whole.status, whole.said().text.as_str()), (200, SAID), "{dialect:?}");
        let model = if dialect == Gemini { "modelVersion" } else { "model" };
        assert_eq!(whole.json()[model], "echo");
        let stream = ask(call(dialect, "echo", true)).await;
        assert_eq!(stream.streamed(), whole.said(), "{dialect:?}");
        assert_eq!(stream.header("content-type"), Some(dialects::stream_type(dialect)));
    }
}

#[tokio::test]
async fn chunks_are_frames_of_their_own() {
    for dialect in ALL {
        let stream = ask(call(dialect, "chunks-100", true)).await;
        let words: Vec<String> =
            stream.events().iter().filter_map(|event| dialects::piece(dialect, event)).collect();
        assert_eq!(words.len(), 100, "{dialect:?}");
        assert!(stream.frames.len() >= 100);
        let sized = ask(call(dialect, "size-1k-chunks-8", true)).await;
        assert_eq!(sized.streamed().text.len(), 1024, "{dialect:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn pauses_are_where_they_should_be() {
    let ms = Duration::from_millis;
    for dialect in ALL {
        for (model, stream, head, first, end) in [
            ("delay-250ms", false, 250, 250, 250),
            ("delay-250ms-ttft-1s", true, 250, 1250, 1250),
            ("ttft-500ms", true, 0, 500, 500),
            ("ttft-500ms", false, 0, 500, 500),
            ("cut-1-delay-250ms-ttft-500ms", false, 250, 750, 750),
            ("chunks-5-slow-50ms", true, 0, 0, 200),
        ] {
            let answer = ask(call(dialect, model, stream)).await;
            // Timers fire up to a millisecond late, once per pause.
            for (found, expected) in
                [(answer.head_after, head), (answer.first_after, first), (answer.end_after, end)]
            {
                assert!(found >= ms(expected) && found <= ms(expected + 8), "{dialect:?} {model}: {found:?}");
            }
        }
        let dripped = ask(call(dialect, "size-1k-slow-10ms", false)).await;
        assert!((14..=16).contains(&dripped.frames.len()), "{}", dripped.frames.len());
        assert!(dripped.end_after >= ms(130) && dripped.json().is_object(), "{:?}", dripped.end_after);
    }
}

#[tokio::test]
async fn refusals_have_the_vendors_shape() {
    for dialect in ALL {
        for status in [400, 401, 403, 429, 500, 529] {
            let answer = ask(call(dialect, &format!("error-{status}"), true)).await;
            assert_eq!(answer.status, status);
            assert_eq!(answer.header("content-type"), Some("application/json"));
            let kind = answer.json().pointer(dialects::error_kind(dialect)).cloned().unwrap_or_default();
            assert_eq!(kind, dialects::kind_of(dialect, status), "{dialect:?} {status}");
            assert!(answer.message().contains(&status.to_string()));
        }
        let limited = ask(call(dialect, "error-429-retry-1500ms", false)).await;
        let hints = (limited.header("retry-after"), limited.header("retry-after-ms"));
        match dialect {
            Chat | Responses => assert_eq!(hints, (Some("2"), Some("1500"))),
            Messages | Ollama => assert_eq!(hints, (Some("2"), None)),
            Gemini => {
                assert_eq!(hints, (None, None));
                assert!(limited.raw().contains(r#""retryDelay":"1.5s""#));
            }
        }
    }
}

#[tokio::test]
async fn the_first_requests_of_a_key_fail() {
    let simulator = simulator();
    for dialect in ALL {
        let call = call(dialect, "fail-first-2-error-429-retry-1s", false);
        let mut seen = Vec::new();
        for key in ["sk-a", "sk-b", "sk-a", "sk-a", "sk-b", "sk-b"] {
            seen.push(call.send(&simulator, &format!("{key}{dialect:?}")).await.status);
        }
        assert_eq!(seen, [429, 429, 429, 200, 429, 200], "{dialect:?}");
        let plain =
            self::call(dialect, "fail-first-1", false).send(&simulator, &format!("{dialect:?}")).await;
        assert_eq!(plain.status, 503);
    }
}

#[tokio::test(start_paused = true)]
async fn hanging_answers_do_not_end() {
    for dialect in ALL {
        let hour = Duration::from_secs(3600);
        for stream in [false, true] {
            assert!(tokio::time::timeout(hour, ask(call(dialect, "hang", stream))).await.is_err());
        }
        // A stalled stream has begun.
        let response = simulator().respond(call(dialect, "stall-2", true).request("k")).await;
        let mut stream = response.into_body();
        let mut text = String::new();
        while let Ok(frame) = tokio::time::timeout(hour, stream.frame()).await {
            text.push_str(&String::from_utf8_lossy(&frame.unwrap().unwrap().into_data().unwrap()));
        }
        assert!(text.contains("What ") && text.contains("is ") && !text.contains("up "), "{dialect:?}");
    }
}

#[tokio::test]
async fn streams_break_where_the_script_says() {
    for dialect in ALL {
        for (model, text) in [("cut-3", "What is up "), ("cut-0", ""), ("cut-99", SAID), ("empty-cut-1", "")]
        {
            let stream = ask(call(dialect, model, true)).await;
            assert!(stream.broken, "{dialect:?} {model}");
            assert_eq!(stream.streamed().text, text, "{dialect:?} {model}");
        }
        let whole = ask(call(dialect, "cut-1", false)).await;
        assert!(whole.broken && serde_json::from_slice::<Value>(&whole.bytes()).is_err());

        let ended = ask(call(dialect, "end-2", true)).await;
        assert!(!ended.broken, "{dialect:?}");
        assert_eq!((ended.streamed().text.as_str(), ended.streamed().finish), ("What is ", None));
        let half = ask(call(dialect, "end-2", false)).await;
        assert!(!half.broken && serde_json::from_slice::<Value>(&half.bytes()).is_err());

        let error = ask(call(dialect, "error-after-2-error-429", true)).await;
        assert_eq!((error.streamed().text.as_str(), error.streamed().finish), ("What is ", None));
        let last = error.events().pop().unwrap();
        let message = dialects::error_in(&last).unwrap_or_else(|| panic!("{dialect:?}: {last}"));
        assert!(message.contains("429") && !error.broken, "{dialect:?}: {last}");
    }
}

#[tokio::test]
async fn malformed_answers_are_malformed_in_one_place() {
    for dialect in ALL {
        let stream = ask(call(dialect, "malformed-2", true)).await;
        let strange: Vec<Value> =
            stream.events().into_iter().filter(|event| event.is_string() && event != "[DONE]").collect();
        assert_eq!(strange.len(), 1, "{dialect:?}: {strange:?}");
        assert_eq!(stream.streamed().text, SAID.replace("is ", ""), "{dialect:?}");
        let whole = ask(call(dialect, "malformed-1", false)).await;
        assert!(serde_json::from_slice::<Value>(&whole.bytes()).is_err() && whole.status == 200);
    }
}

#[tokio::test]
async fn errors_hide_in_good_answers() {
    for dialect in ALL {
        for (model, stream) in [
            ("error-in-200", false),
            ("error-in-200", true),
            ("error-first-event", false),
            ("error-after-1", false),
        ] {
            let answer = ask(call(dialect, model, stream)).await;
            assert_eq!(answer.status, 200);
            assert!(answer.message().contains("500"), "{dialect:?} {model}");
        }
        let first = ask(call(dialect, "error-first-event-error-429", true)).await;
        assert_eq!(first.events().len(), 1);
        assert!(dialects::error_in(&first.events()[0]).unwrap().contains("429"), "{dialect:?}");
    }
}

#[tokio::test]
async fn other_things_than_answers() {
    for dialect in ALL {
        let page = ask(call(dialect, "html-error-503", false)).await;
        assert_eq!((page.status, page.header("content-type")), (503, Some("text/html; charset=utf-8")));
        assert!(page.raw().starts_with("<!DOCTYPE html>"));
        let garbage = ask(call(dialect, "garbage", true)).await;
        assert_eq!((garbage.status, garbage.bytes().len()), (200, 4096));
        assert!(std::str::from_utf8(&garbage.bytes()).is_err());
        let blank = ask(call(dialect, "blank", false)).await;
        assert_eq!((blank.status, blank.bytes().len()), (200, 0));

        let empty = ask(call(dialect, "empty", false)).await;
        assert_eq!((empty.said().text.as_str(), dialects::tokens(&empty.json()).output), ("", Some(0)));
        let whole = ask(call(dialect, "echo-whole", true)).await;
        assert!(whole.json().is_object());
        let stream = ask(call(dialect, "echo-stream", false)).await;
        assert_eq!(stream.streamed().text, SAID);
    }
}

#[tokio::test]
async fn huge_answers_are_made_while_they_are_sent() {
    for dialect in ALL {
        let whole = ask(call(dialect, "huge-3m", false)).await;
        assert!(whole.frames.iter().all(|frame| frame.len() <= 32 << 10));
        assert_eq!(whole.said().text.len(), 3 << 20, "{dialect:?}");
        let instead = ask(call(dialect, "huge-1k-tools", false).with_tools()).await.said();
        assert_eq!((instead.text.len(), instead.calls.len()), (1024, 0), "{dialect:?}");
        let stream = ask(call(dialect, "huge-3m", true)).await;
        assert!(stream.bytes().len() > 3 << 20);
        assert!(stream.events().iter().all(|event| event.is_object() || event == "[DONE]"));
    }
}

#[tokio::test]
async fn keys_decide_too() {
    for dialect in ALL {
        let call = call(dialect, "echo", false);
        for (key, of_chat, of_messages, of_gemini, of_ollama) in [
            ("", 401, 401, 403, 200),
            ("sk-bad-1", 401, 401, 400, 401),
            ("sk-limited-1", 429, 429, 429, 429),
            ("sk-broke-1", 429, 400, 429, 429),
        ] {
            let answer = call.send(&simulator(), key).await;
            let expected = match dialect {
                Chat | Responses => of_chat,
                Messages => of_messages,
                Gemini => of_gemini,
                Ollama => of_ollama,
            };
            assert_eq!(answer.status, expected, "{dialect:?} {key}");
            if expected == 429 && dialect == Gemini {
                assert_eq!(answer.raw().contains("PerDay"), key.starts_with("sk-broke"));
                assert_eq!(answer.raw().contains(r#""retryDelay":"2s""#), key.starts_with("sk-limited"));
            } else {
                assert_eq!(answer.headers.contains_key("retry-after"), key.starts_with("sk-limited"));
            }
        }
        assert_eq!(call.send(&Simulator::new(Access::Open), "").await.status, 200);
        for stream in [false, true] {
            let cut = self::call(dialect, "echo", stream).send(&simulator(), "sk-cut-1").await;
            assert!(cut.broken, "{dialect:?} {stream}");
            assert!(!stream || cut.streamed().text.is_empty(), "{dialect:?}");
        }
    }
    let broke = call(Chat, "echo", false).send(&simulator(), "sk-broke").await.json();
    assert_eq!(
        (&broke["error"]["code"], &broke["error"]["type"]),
        (&json!("insufficient_quota"), &json!("insufficient_quota"))
    );
}

#[tokio::test]
async fn paths_and_methods_are_checked() {
    for (method, path, status) in [
        ("GET", "/v1/chat/completions", 405),
        ("POST", "/v1/models", 405),
        ("POST", "/v1/other", 404),
        ("POST", "/a/v1/chat/completions", 200),
        ("POST", "/a/b/v1/chat/completions", 404),
        ("POST", "/chat/completions", 404),
        ("GET", "/v1/models", 200),
        ("GET", "/v1/models/lorem", 200),
        ("GET", "/v1/models/gpt", 404),
        ("POST", "/v1/responses", 400),
        ("GET", "/v1/responses", 405),
        ("POST", "/v1/api/chat", 200),
        ("POST", "/a/api/chat", 200),
        ("POST", "/api/generate", 200),
        ("GET", "/api/generate", 405),
        ("POST", "/api/pull", 404),
        ("GET", "/api/tags", 200),
        ("GET", "/api/version", 200),
        ("POST", "/api/show", 200),
        ("GET", "/api/show", 405),
        ("GET", "/v1beta/models", 200),
        ("GET", "/v1beta/models/chunks-2%2Cslow-1s", 200),
        ("GET", "/v1beta/models/gpt", 404),
        ("POST", "/v1beta/models/echo", 405),
        ("POST", "/v1beta/models/echo:dance", 404),
        ("GET", "/v1beta/models/echo:generateContent", 405),
    ] {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", "Bearer k")
            .header("content-type", "application/json");
        let body = if method == "POST" { call(Chat, "echo", false).body.to_string() } else { String::new() };
        let answer = send(&simulator(), Chat, request.body(Bytes::from(body)).unwrap()).await;
        assert_eq!(answer.status, status, "{method} {path}");
        assert_eq!(answer.headers.contains_key("allow"), status == 405);
    }
    for (path, header, pointer, name) in [
        ("/v1/models", "authorization", "/data/0/object", "model"),
        ("/v1/models", "anthropic-version", "/data/0/type", "model"),
        ("/v1/models", "x-goog-api-key", "/models/0/name", "models/echo"),
        ("/v1beta/models", "authorization", "/models/0/name", "models/echo"),
        ("/v1/models/lorem", "x-goog-api-key", "/name", "models/lorem"),
    ] {
        let request = Request::get(path).header("authorization", "Bearer k").header(header, "Bearer k");
        let list = send(&simulator(), Chat, request.body(Bytes::new()).unwrap()).await.json();
        assert_eq!(list.pointer(pointer), Some(&json!(name)), "{path} {header}: {list}");
    }
}

#[tokio::test]
async fn models_are_unknown_by_name_and_prompts_too_long_by_count() {
    for dialect in ALL {
        let unknown = ask(call(dialect, "gpt-4o", false)).await;
        assert_eq!(unknown.status, 404);
        assert!(unknown.message().contains("gpt-4o"));
        let long = ask(call(dialect, "echo-window-5", false)).await;
        assert_eq!(long.status, 400);
        match dialect {
            Chat | Responses => assert_eq!(long.json()["error"]["code"], "context_length_exceeded"),
            Messages => assert!(long.message().starts_with("prompt is too long")),
            Ollama => assert!(long.message().contains("context length is 5")),
            Gemini => assert!(long.message().starts_with("The input token count (12) exceeds")),
        }
    }
}

#[tokio::test]
async fn benchmarks_are_answered_unread() {
    for dialect in ALL {
        for (model, length) in [("bench-size-1k", 1024), ("bench-chunks-3", 18)] {
            let whole = ask(call(dialect, model, false)).await;
            assert_eq!(whole.said().text.len(), length, "{dialect:?} {model}");
            let stream = ask(call(dialect, model, true)).await;
            assert_eq!(stream.streamed(), whole.said(), "{dialect:?} {model}");
        }
    }
}
