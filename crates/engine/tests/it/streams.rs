//! Streams past the commit point.

use std::time::Duration;

use http_body_util::BodyExt as _;
use omniroute_dialect::openai::OpenAi;

use crate::world::{ASK_STREAM, END, World, chunk, stream};

#[tokio::test(start_paused = true)]
async fn a_stream_comes_through_with_the_asked_name() {
    let world = World::new();
    world.transport.answer(stream().send(chunk("Hel")).send(chunk("lo")).send(END));
    let got = world.chat(ASK_STREAM).await;
    assert_eq!(got.header("content-type"), "text/event-stream; charset=utf-8");
    assert_eq!(got.header("x-accel-buffering"), "no");
    assert!(got.body.contains("\"model\":\"up/m\"") && !got.body.contains("\"model\":\"m\""), "{}", got.body);
    assert!(!got.body.contains("\"usage\":{"), "usage was not asked for: {}", got.body);
    let row = world.row();
    assert_eq!((row.status, row.usage.input_total(), row.usage.output_total), (200, Some(3), Some(2)));
    assert!(row.ttft_ms.is_some());
    let sent = String::from_utf8(world.transport.sent()[0].body.to_vec()).unwrap();
    assert!(sent.contains("\"include_usage\":true") && sent.contains("\"model\":\"m\""), "{sent}");
}

#[tokio::test(start_paused = true)]
async fn a_break_after_the_first_event_is_told_in_the_stream() {
    let cut = stream().send(chunk("par")).abort();
    let error = stream()
        .send(chunk("par"))
        .send("data: {\"error\":{\"message\":\"gone\",\"type\":\"server_error\"}}\n\n");
    for bad in [cut, stream().send(chunk("par")), error] {
        let world = World::new();
        world.transport.answer(bad);
        let got = world.chat(ASK_STREAM).await;
        assert_eq!(got.status, 200);
        assert!(got.body.contains("par") && got.body.contains("data: {\"error\":"), "{}", got.body);
        assert!(!got.body.contains("[DONE]"), "an end was made up: {}", got.body);
        let row = world.row();
        assert!(row.status >= 500 && row.error.is_some(), "{row:?}");
        assert_eq!(world.transport.sent().len(), 1, "nothing is tried again after bytes were sent");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_hangs_up_ends_the_call() {
    let world = World::new();
    world.transport.answer(stream().send(chunk("one")).hang());
    let mut body = world.respond(&OpenAi, ASK_STREAM, &[]).await.into_body();
    assert!(body.frame().await.is_some());
    drop(body);
    assert_eq!(world.transport.cancelled(), 1);
    let row = world.row();
    assert_eq!(row.status, 499);
    assert_eq!(row.attempts[0].failure, Some("client_abort"));
    assert!(
        row.usage_estimated && row.usage.output_total == Some(1),
        "what was seen is told: {:?}",
        row.usage
    );
    assert_eq!(world.recorded.statuses.lock().unwrap().len(), 0, "the account is not to blame");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_hangs_up_before_the_answer_ends_the_call_too() {
    let world = World::new();
    world.transport.answer(stream().after(Duration::from_secs(500)));
    let asked = tokio::time::timeout(Duration::from_secs(1), world.chat(ASK_STREAM)).await;
    assert!(asked.is_err());
    assert_eq!(world.transport.cancelled(), 1);
    assert_eq!(world.row().status, 499);
}

#[tokio::test(start_paused = true)]
async fn silence_is_filled_with_keep_alives_and_limited() {
    let world = World::with(|_| {}, |options| options.stream_idle_timeout = Duration::from_secs(100));
    world.transport.answer(stream().send(chunk("one")).hang());
    let got = world.chat(ASK_STREAM).await;
    let keep_alives = got.body.matches(": keep-alive\n\n").count();
    assert_eq!(keep_alives, 6, "one each fifteen seconds: {}", got.body);
    assert!(got.body.contains("data: {\"error\":"), "{}", got.body);
    assert_eq!(world.elapsed(), Duration::from_secs(100));
    assert_eq!(world.row().status, 504);
}

#[tokio::test(start_paused = true)]
async fn after_fifteen_seconds_the_head_goes_out_and_attempts_go_on() {
    let world = World::new();
    world
        .transport
        .answer(crate::world::refusal(500, "server_error", "no").after(Duration::from_secs(40)))
        .answer(stream().send(chunk("late")).send(END));
    let response = world.respond(&OpenAi, ASK_STREAM, &[]).await;
    assert_eq!(world.elapsed(), Duration::from_secs(15));
    assert!(response.headers().get("x-omniroute-attempts").is_none(), "nobody knows yet");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let body = String::from_utf8(body.to_vec()).unwrap();
    assert!(body.starts_with(": keep-alive\n\n") && body.contains("late"), "{body}");
    assert_eq!(world.row().attempts.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn when_even_then_nobody_answers_the_error_is_in_the_stream() {
    let world = World::new();
    for _ in 0..2 {
        let late =
            crate::world::refusal(400, "invalid_request_error", "wrong").after(Duration::from_secs(20));
        world.transport.answer(late);
    }
    let got = world.chat(ASK_STREAM).await;
    assert_eq!(got.status, 200);
    assert!(got.body.contains("data: {\"error\":{\"message\":\"[up/m] wrong\""), "{}", got.body);
    assert_eq!(world.row().status, 400);
}

const PROGRESS: &[(&str, &str)] = &[("x-omniroute-progress", "true")];

#[tokio::test(start_paused = true)]
async fn progress_is_told_every_two_seconds_and_before_the_end() {
    let world = World::new();
    let slow = stream().send(chunk("12345678")).pause(Duration::from_secs(5)).send(chunk("abcd")).send(END);
    world.transport.answer(slow);
    let got = world.send(&OpenAi, ASK_STREAM, PROGRESS).await;
    assert_eq!(got.header("x-omniroute-progress"), "enabled");
    let reports: Vec<&str> =
        got.body.split("\n\n").filter_map(|event| event.strip_prefix("event: progress\ndata: ")).collect();
    assert_eq!(
        reports,
        [
            r#"{"object":"omniroute.progress","choices":[],"tokens_generated":2,"elapsed_ms":2000}"#,
            r#"{"object":"omniroute.progress","choices":[],"tokens_generated":2,"elapsed_ms":4000}"#,
            r#"{"object":"omniroute.progress","choices":[],"tokens_generated":3,"elapsed_ms":5000,"done":true}"#,
        ]
    );
    assert!(
        got.body.starts_with("data: {\"id\"") && got.body.ends_with("\"done\":true}\n\ndata: [DONE]\n\n")
    );
}

#[tokio::test(start_paused = true)]
async fn progress_is_told_within_a_stream_that_never_rests() {
    let world = World::new();
    let mut busy = stream();
    for _ in 0..50 {
        busy = busy.send(chunk("tick")).pause(Duration::from_millis(100));
    }
    world.transport.answer(busy.send(END));
    let got = world.send(&OpenAi, ASK_STREAM, PROGRESS).await;
    assert_eq!(got.body.matches("event: progress\n").count(), 3, "{}", got.body);
    assert_eq!(got.body.matches("\"tick\"").count(), 50);
}

#[tokio::test(start_paused = true)]
async fn progress_is_kept_from_clients_that_do_not_ask_or_would_not_survive_it() {
    use omniroute_dialect::{anthropic::Anthropic, ollama::Ollama, responses::Responses};
    const INPUT: &str = r#"{"model":"up/m","input":"hi","stream":true}"#;
    const MESSAGES: &str =
        r#"{"model":"up/m","max_tokens":9,"messages":[{"role":"user","content":"hi"}],"stream":true}"#;
    let cases: [(&'static dyn omniroute_dialect::Dialect, &str, &str, bool); 6] = [
        (&OpenAi, ASK_STREAM, "false", false),
        (&Ollama, ASK_STREAM, "true", false),
        (&Responses, INPUT, "true", false),
        (&Responses, INPUT, "force", true),
        (&Anthropic, MESSAGES, "YES", true),
        (&OpenAi, ASK_STREAM, "force", true),
    ];
    for (dialect, ask, wish, is_told) in cases {
        let world = World::new();
        world.transport.answer(stream().send(chunk("a")).pause(Duration::from_secs(3)).send(END));
        let got = world.send(dialect, ask, &[("x-omniroute-progress", wish)]).await;
        let told = got.body.matches("event: progress\n").count();
        assert_eq!(told, if is_told { 2 } else { 0 }, "{} {wish}: {}", dialect.id(), got.body);
        assert_eq!(got.header("x-omniroute-progress"), if is_told { "enabled" } else { "" });
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_off_tells_no_last_progress() {
    let world = World::new();
    world.transport.answer(stream().send(chunk("par")).pause(Duration::from_secs(3)).abort());
    let got = world.send(&OpenAi, ASK_STREAM, PROGRESS).await;
    assert!(got.body.contains("event: progress") && !got.body.contains("\"done\""), "{}", got.body);
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_forgets_to_close_ends_with_its_reason() {
    let finish = r#"data: {"id":"c1","model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
    let usage = r#"data: {"id":"c1","model":"m","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":4,"total_tokens":13}}"#;
    let ask = r#"{"model":"up/m","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"hi"}]}"#;
    let late = stream()
        .send(chunk("Hi"))
        .send(format!("{finish}\n\n"))
        .pause(Duration::from_millis(1_900))
        .send(format!("{usage}\n\n"))
        .hang();
    let never = stream().send(chunk("Hi")).send(format!("{finish}\n\n")).hang();
    for (upstream, seconds, output) in [(late, 3.9, 4), (never, 2.0, 1)] {
        let world = World::new();
        world.transport.answer(upstream);
        let got = world.messages(ask).await;
        assert!(got.body.contains("\"stop_reason\":\"end_turn\""), "{}", got.body);
        assert!(got.body.ends_with("data: {\"type\":\"message_stop\"}\n\n"), "{}", got.body);
        assert_eq!((world.row().status, world.row().usage.output_total), (200, Some(output)));
        let waited = world.elapsed().as_secs_f64();
        assert!((seconds..seconds + 0.1).contains(&waited), "{waited}");
    }
    // One that has not said why it ended is waited for.
    let world = World::new();
    world.transport.answer(stream().send(chunk("Hi")).pause(Duration::from_secs(5)).send(END));
    assert!(world.messages(ask).await.body.contains("message_stop"));
}

#[tokio::test(start_paused = true)]
async fn within_its_dialect_too_unless_other_answers_go_on() {
    let finish = "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
    let begun = tokio::time::Instant::now();
    let world = World::new();
    world.transport.answer(stream().send(chunk("Hello")).send(finish).hang());
    let got = world.chat(ASK_STREAM).await;
    assert!(got.body.ends_with("data: [DONE]\n\n"), "{}", got.body);
    assert_eq!(begun.elapsed().as_secs(), 2);
    assert_eq!(world.row().status, 200);
    // Of two answers the first is at its end: the second is waited for.
    let world = World::new();
    let second = chunk("Later").replace("\"index\":0", "\"index\":1");
    let pause = Duration::from_secs(5);
    world.transport.answer(stream().send(chunk("Hello")).send(finish).pause(pause).send(second).send(END));
    let got = world.chat(&ASK_STREAM.replace("\"model\"", "\"n\":2,\"model\"")).await;
    assert!(got.body.contains("Later") && got.body.ends_with("data: [DONE]\n\n"), "{}", got.body);
}
