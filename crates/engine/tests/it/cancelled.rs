//! Requests that an operator ends: wherever they wait, their calls end, their clients are told, and nothing is left.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt as _;
use omniroute_dialect::registry::DIALECTS;
use omniroute_dialect::{Dialect, anthropic::Anthropic, openai::OpenAi, responses::Responses};
use omniroute_domain::entity::ConnectionId;
use omniroute_testkit::Answer;

use crate::combos;
use crate::embeddings;
use crate::world::{ASK, ASK_STREAM, END, Got, World, answer, chunk, refusal, stream};

const ONCE: &[(&str, &str)] = &[("idempotency-key", "one")];

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Cancels every request that is running.
fn cancel(world: &World) -> usize {
    let telemetry = &world.engine.telemetry;
    telemetry.active().iter().map(|request| telemetry.cancel(&request.id)).sum()
}

/// Cancels the request after so many seconds; what its client got then.
async fn cancelled_after(world: &World, wait: u64, request: impl Future<Output = Got>) -> Got {
    let ends = async {
        tokio::time::sleep(secs(wait)).await;
        assert_eq!(cancel(world), 1);
    };
    let (got, ()) = tokio::join!(request, ends);
    assert_eq!(world.elapsed(), secs(wait), "it ends at once");
    got
}

/// What is left of a request that was ended: a row that says so, and nothing else.
fn assert_ended(world: &World, attempts: &[&str]) {
    let row = world.row();
    assert_eq!((row.status, row.error_code.as_deref()), (499, Some("request_cancelled")), "{row:?}");
    assert!(row.error.as_deref().is_some_and(|error| error.contains("operator")), "{row:?}");
    let failures: Vec<_> = row.attempts.iter().map(|attempt| attempt.failure.unwrap_or("ok")).collect();
    assert_eq!(failures, attempts);
    assert_eq!((world.engine.telemetry.in_flight(), world.engine.telemetry.active().len()), (0, 0));
    let live = world.engine.live.load();
    for id in ["c1", "c2", "c3", "c4"] {
        let connection = live.connection(&ConnectionId::from(id));
        assert!(connection.is_none_or(|connection| connection.health.in_flight() == 0));
    }
}

#[tokio::test(start_paused = true)]
async fn before_the_answer_every_dialect_gets_an_error_that_is_not_repeated() {
    for dialect in DIALECTS.iter().copied().filter(|dialect| dialect.id().as_str() != "bedrock") {
        let body = match dialect.id().as_str() {
            "responses" => r#"{"model":"up/m","input":"hi"}"#,
            "ollama" => r#"{"model":"up/m","stream":false,"messages":[{"role":"user","content":"hi"}]}"#,
            "anthropic" => r#"{"model":"up/m","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}"#,
            "openai" => ASK,
            // The model is in the path; what is asked of it is another test's subject.
            _ => continue,
        };
        let world = World::new();
        world.transport.answer(answer("too late").after(secs(60)));
        let got = cancelled_after(&world, 3, world.send(dialect, body, &[])).await;
        assert_eq!((got.status, got.header("x-should-retry")), (499, "false"), "{}", got.body);
        assert!(got.body.contains("an operator of the gateway cancelled this request"), "{}", got.body);
        assert_eq!(world.transport.cancelled(), 1, "the upstream call is dropped");
        assert_ended(&world, &["operator_abort"]);
        assert_eq!(world.recorded.statuses.lock().unwrap().len(), 0, "the account is not to blame");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_with_the_error_of_its_dialect_and_what_was_used_is_told() {
    let cases: [(&'static dyn Dialect, &str, &str, &str); 3] = [
        (&OpenAi, ASK_STREAM, "data: {\"error\":{\"message\":", "[DONE]"),
        (
            &Anthropic,
            r#"{"model":"up/m","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"hi"}]}"#,
            "event: error\n",
            "message_stop",
        ),
        (
            &Responses,
            r#"{"model":"up/m","stream":true,"input":"hi"}"#,
            "event: response.failed\n",
            "response.completed",
        ),
    ];
    for (dialect, body, error, end) in cases {
        let world = World::new();
        world.transport.answer(stream().send(chunk("par")).send(chunk("tly")).hang());
        let got = cancelled_after(&world, 3, world.send(dialect, body, &[])).await;
        assert_eq!(got.status, 200);
        assert!(got.body.contains("par") && got.body.contains(error), "{}", got.body);
        assert!(got.body.contains("an operator of the gateway cancelled"), "{}", got.body);
        assert!(!got.body.contains(end), "an end was made up: {}", got.body);
        assert_eq!(world.transport.cancelled(), 1);
        assert_ended(&world, &["operator_abort"]);
        let row = world.row();
        assert!(row.usage_estimated && row.usage.output_total == Some(2), "{:?}", row.usage);
    }
}

#[tokio::test(start_paused = true)]
async fn how_far_a_stream_has_come_is_told_while_it_runs() {
    let world = World::new();
    let text = "a text of forty characters, or just so..";
    world.transport.answer(stream().send(chunk(text)).pause(secs(5)).send(chunk(text)).hang());
    let look = async {
        let mut seen = Vec::new();
        for _ in 0..2 {
            tokio::time::sleep(secs(4)).await;
            seen.push(world.engine.telemetry.active()[0].tokens);
        }
        cancel(&world);
        seen
    };
    let (_, seen) = tokio::join!(world.chat(ASK_STREAM), look);
    assert_eq!(seen, [10, 20]);
    // The next one in its place begins at nothing, and is not cancelled.
    world.transport.answer(stream().send(chunk("x")).send(END));
    assert!(world.chat(ASK_STREAM).await.body.ends_with("data: [DONE]\n\n"));
    assert_eq!(world.row().status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_head_went_out_early_gets_the_error_in_it() {
    let world = World::new();
    world.transport.answer(stream().after(secs(60)));
    let got = cancelled_after(&world, 20, world.chat(ASK_STREAM)).await;
    assert_eq!(got.status, 200);
    assert!(got.body.starts_with(": keep-alive\n\ndata: {\"error\":"), "{}", got.body);
    assert_ended(&world, &["operator_abort"]);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_place_or_a_cooldown_is_ended_too() {
    // For an account that rests.
    let world = World::new();
    for _ in 0..2 {
        world.transport.answer(refusal(429, "rate_limit_error", "no").header("retry-after", "12"));
    }
    let got = cancelled_after(&world, 5, world.chat(ASK)).await;
    assert_eq!(got.status, 499, "{}", got.body);
    assert_ended(&world, &["rate_limit", "rate_limit"]);

    // For a place in a limiter's queue.
    let world = World::with(
        |entities| {
            entities.connections.retain(|row| row.id != ConnectionId::from("c2"));
            entities.settings.resilience.request_queue.concurrent_requests = 1;
        },
        |_| {},
    );
    world.transport.answer(answer("first").after(secs(9)));
    let others = async {
        tokio::time::sleep(secs(1)).await;
        let waits = world.send(&OpenAi, ASK, &[("x-request-id", "second")]);
        let ends = async {
            tokio::time::sleep(secs(1)).await;
            assert_eq!(world.engine.telemetry.cancel("second"), 1);
        };
        let (got, ()) = tokio::join!(waits, ends);
        assert_eq!((got.status, world.elapsed()), (499, secs(2)), "{}", got.body);
        let live = world.engine.live.load();
        let gate = &live.connection(&ConnectionId::from("c1")).unwrap().health.gate;
        assert_eq!((gate.view(0).queued, gate.view(0).running), (0, 1), "its place is free");
    };
    let (first, ()) = tokio::join!(world.chat(ASK), others);
    assert_eq!(first.status, 200, "the other one goes on");
}

#[tokio::test(start_paused = true)]
async fn all_calls_of_a_race_end_and_their_rows_say_so() {
    for body in [combos::ASK, combos::ASK_STREAM] {
        let world = combos::world(|best| {
            best.strategy = "race".into();
            best.config.race_width = Some(3);
        });
        for _ in 0..3 {
            world.transport.answer(answer("too late").after(secs(60)));
        }
        let got = cancelled_after(&world, 2, world.chat(body)).await;
        assert_eq!(got.status, 499, "{}", got.body);
        assert_eq!(world.transport.cancelled(), 3);
        assert_ended(&world, &["operator_abort"; 3]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_is_ended_and_stays_what_it_was_in_the_log() {
    let world = World::new();
    world.transport.answer(Answer::json(200, "{}").after(secs(60)));
    let ask = embeddings::ask(&world, r#"{"model":"up/m","input":"a"}"#, &[]);
    let got = cancelled_after(&world, 2, ask).await;
    assert_eq!(got.status, 499, "{}", got.body);
    assert_ended(&world, &["operator_abort"]);
    assert_eq!(world.row().request_type, "embedding");
    // The same holds where a client hangs up.
    world.transport.answer(Answer::json(200, "{}").after(secs(60)));
    let left = embeddings::ask(&world, r#"{"model":"up/m","input":"a"}"#, &[]);
    assert!(tokio::time::timeout(secs(1), left).await.is_err());
    assert_eq!((world.row().status, world.row().request_type), (499, "embedding"));
    assert_eq!(world.row().error.as_deref(), Some("the client closed the connection"));
}

#[tokio::test(start_paused = true)]
async fn who_shares_an_answer_is_ended_alone_and_the_answer_goes_on() {
    // While it waits for the head.
    let world = Arc::new(World::new());
    world.transport.answer(answer("shared").after(secs(9)));
    let second = [ONCE[0], ("x-request-id", "second")];
    let ends = async {
        tokio::time::sleep(secs(2)).await;
        assert_eq!(world.engine.telemetry.cancel("second"), 1);
    };
    let (first, waits, ()) =
        tokio::join!(world.send(&OpenAi, ASK, ONCE), world.send(&OpenAi, ASK, &second), ends);
    assert_eq!((first.status, waits.status), (200, 499), "{}", waits.body);
    // And within the answer.
    let slow = stream().send(chunk("one")).pause(secs(9)).send(chunk("two")).send(END);
    world.transport.answer(slow);
    let first = world.respond(&OpenAi, ASK_STREAM, ONCE).await.into_body();
    let mut shared = world.respond(&OpenAi, ASK_STREAM, &second).await.into_body();
    assert!(shared.frame().await.is_some());
    let ends = async {
        tokio::time::sleep(secs(2)).await;
        assert_eq!(world.engine.telemetry.cancel("second"), 1);
    };
    let (rest, whole, ()) = tokio::join!(shared.collect(), first.collect(), ends);
    let rest = rest.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&rest).starts_with("data: {\"error\":"), "{rest:?}");
    assert!(String::from_utf8_lossy(&whole.unwrap().to_bytes()).ends_with("data: [DONE]\n\n"));
    let rows = world.recorded.rows.lock().unwrap();
    let mut ends: Vec<_> = rows[2..].iter().map(|row| (row.status, row.error_code.as_deref())).collect();
    ends.sort_unstable();
    assert_eq!(ends, [(200, None), (499, Some("request_cancelled"))]);
}

#[tokio::test(start_paused = true)]
async fn the_first_of_those_who_share_an_answer_is_ended_alone_too() {
    let world = Arc::new(World::new());
    world.transport.answer(answer("for the first").after(secs(9))).answer(answer("for the second"));
    let (one, two) = ([ONCE[0], ("x-request-id", "first")], [ONCE[0], ("x-request-id", "second")]);
    let ends = async {
        tokio::time::sleep(secs(2)).await;
        assert_eq!(world.engine.telemetry.cancel("first"), 1);
    };
    let (first, second, ()) =
        tokio::join!(world.send(&OpenAi, ASK, &one), world.send(&OpenAi, ASK, &two), ends);
    assert_eq!((first.status, second.status), (499, 200), "{}", second.body);
    assert!(second.body.contains("for the second"), "{}", second.body);
    assert_eq!(world.transport.sent().len(), 2, "nobody else was cancelled: another asks");
}

#[tokio::test(start_paused = true)]
async fn all_requests_with_an_id_are_meant_and_no_other() {
    let world = World::new();
    assert_eq!(world.engine.telemetry.cancel("nobody"), 0);
    for _ in 0..3 {
        world.transport.answer(answer("late").after(secs(9)));
    }
    // Not repetitions of each other: they ask for different things.
    let asks = [ASK.to_owned(), ASK.replace("hi", "ho"), ASK.replace("hi", "hum")];
    let send = |at: usize, id: &'static str| {
        let (world, body) = (&world, &asks[at]);
        async move { world.send(&OpenAi, body, &[("x-request-id", id)]).await.status }
    };
    let ends = async {
        tokio::time::sleep(secs(1)).await;
        world.engine.telemetry.cancel("same")
    };
    let got = tokio::join!(send(0, "same"), send(1, "same"), send(2, "other"), ends);
    assert_eq!(got, (499, 499, 200, 2));
    assert_eq!(world.engine.telemetry.cancel("same"), 0, "they are gone");
}
