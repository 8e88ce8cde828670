//! Accounts that fail, and what the client sees of it.

use std::time::Duration;

use omniroute_domain::entity::{Entities, TestStatus};
use omniroute_engine::ports::TransportError;
use omniroute_testkit::Answer;

use crate::world::{ASK, ASK_STREAM, END, World, answer, chunk, refusal, stream};

#[tokio::test(start_paused = true)]
async fn a_rate_limited_account_gives_way_to_the_next() {
    let world = World::new();
    world
        .transport
        .answer(refusal(429, "rate_limit_error", "slow down").header("retry-after", "20"))
        .answer(answer("ok"));
    let got = world.chat(ASK).await;
    assert_eq!((got.status, got.header("x-omniroute-attempts")), (200, "2"));
    let row = world.row();
    let tried: Vec<_> = row.attempts.iter().map(|a| (&*a.connection_name, a.status, a.failure)).collect();
    assert_eq!(tried, [("first", Some(429), Some("rate_limit")), ("second", Some(200), None)]);

    // Within the twenty seconds the first is not even tried.
    world.transport.answer(answer("again"));
    assert_eq!(world.chat(ASK).await.header("x-omniroute-attempts"), "1");
    assert_eq!(world.row().connection_name.as_deref(), Some("second"));

    // Afterwards it is.
    tokio::time::advance(Duration::from_secs(21)).await;
    world.transport.answer(answer("back"));
    world.chat(ASK).await;
    assert_eq!(world.row().connection_name.as_deref(), Some("first"));
}

#[tokio::test(start_paused = true)]
async fn a_limit_on_one_model_leaves_the_others_of_the_account_alone() {
    let world = World::new();
    world
        .transport
        .answer(refusal(429, "rate_limit_error", "slow down").header("retry-after", "20"))
        .answer(answer("ok"));
    world.chat(ASK).await;
    world.transport.answer(answer("other model"));
    world.chat(&ASK.replace("up/m", "up/other")).await;
    assert_eq!(world.row().connection_name.as_deref(), Some("first"));
}

#[tokio::test(start_paused = true)]
async fn everything_that_may_be_the_accounts_fault_falls_back() {
    for (status, kind) in [
        (401, "auth"),
        (402, "quota_exhausted"),
        (403, "forbidden"),
        (404, "not_found"),
        (408, "transient"),
        (429, "rate_limit"),
        (500, "transient"),
        (502, "transient"),
        (503, "capacity"),
        (504, "transient"),
        (529, "capacity"),
    ] {
        let world = World::new();
        world.transport.answer(refusal(status, "x", "no")).answer(answer("ok"));
        assert_eq!(world.chat(ASK).await.status, 200, "{status}");
        assert_eq!(world.row().attempts[0].failure, Some(kind), "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_clients_own_mistakes_do_not() {
    for status in [400, 422] {
        let world = World::new();
        world.transport.answer(refusal(status, "invalid_request_error", "temperature is wrong"));
        let got = world.chat(ASK).await;
        assert_eq!(got.status, status);
        assert!(got.body.contains("[up/m] temperature is wrong"), "{}", got.body);
        assert_eq!(got.header("x-should-retry"), "false");
        assert_eq!(world.transport.sent().len(), 1);
        assert_eq!(world.recorded.statuses.lock().unwrap().len(), 0, "the account is not to blame");
    }
}

#[tokio::test(start_paused = true)]
async fn a_model_that_nobody_knows_stays_missing_while_its_accounts_are_not_asked() {
    let world = World::new();
    for _ in 0..2 {
        world.transport.answer(refusal(404, "not_found_error", "no model m"));
    }
    assert_eq!(world.chat(ASK).await.status, 404);
    let again = world.chat(ASK).await;
    assert_eq!((again.status, world.transport.sent().len()), (404, 2), "{}", again.body);
    assert!(again.body.contains("model_not_found") && again.body.contains("up/m"), "{}", again.body);
}

#[tokio::test(start_paused = true)]
async fn a_refused_credential_of_ours_is_not_the_clients_401() {
    let world = World::new();
    for _ in 0..2 {
        world.transport.answer(refusal(401, "authentication_error", "bad key upstream-key-of-first"));
    }
    let got = world.chat(ASK).await;
    assert_eq!(got.status, 502);
    assert!(got.body.contains("upstream_auth_failed"), "{}", got.body);
    assert!(got.body.contains("\"attempts\""), "{}", got.body);
}

#[tokio::test(start_paused = true)]
async fn a_credential_that_the_upstream_repeats_goes_nowhere() {
    let world = World::new();
    for name in ["first", "second"] {
        let message = format!("no account for upstream-key-of-{name}, sorry");
        world.transport.answer(refusal(401, "authentication_error", &message));
    }
    let got = world.chat(ASK).await;
    assert_eq!(
        (got.header("x-omniroute-provider"), got.header("x-omniroute-model")),
        ("openai-compatible-chat-1", "m")
    );
    let statuses = format!("{:?}", world.recorded.statuses.lock().unwrap());
    let row = format!("{:?}", world.row());
    for text in [&got.body, &statuses, &row] {
        assert!(!text.contains("upstream-key-of"), "{text}");
    }
    assert!(statuses.contains("no account for [key], sorry"), "{statuses}");
}

/// The catalogue's DeepSeek speaks two dialects.
fn deepseek() -> World {
    World::with(
        |entities| {
            entities.connections[0].provider = "deepseek".into();
            entities.connections.truncate(1);
        },
        |_| {},
    )
}

#[tokio::test(start_paused = true)]
async fn an_alternative_that_is_not_there_is_passed_over_for_a_day() {
    const ASK: &str =
        r#"{"model":"deepseek/deepseek-chat","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}"#;
    let world = deepseek();
    let paths =
        || -> Vec<String> { world.transport.sent().iter().map(|sent| sent.uri.path().to_owned()).collect() };
    world
        .transport
        .answer(Answer::new(404, "text/html").send("<html>nothing here</html>"))
        .answer(answer("ok"));
    let got = world.messages(ASK).await;
    assert_eq!((got.status, got.header("x-omniroute-attempts")), (200, "2"), "{}", got.body);
    assert_eq!(paths(), ["/anthropic/v1/messages", "/v1/chat/completions"]);
    world.transport.answer(answer("ok"));
    assert_eq!(world.messages(ASK).await.header("x-omniroute-attempts"), "1");
    assert_eq!(paths()[2..], ["/v1/chat/completions"]);
    tokio::time::advance(Duration::from_secs(24 * 3_600 + 1)).await;
    world.transport.answer(refusal(404, "not_found_error", "no model deepseek-chat"));
    assert_eq!(world.messages(ASK).await.status, 404, "a missing model says nothing about the path");
    assert_eq!(paths()[3..], ["/anthropic/v1/messages"]);
}

#[tokio::test(start_paused = true)]
async fn models_that_are_served_in_one_dialect_alone_are_asked_in_it() {
    let world = World::with(
        |entities| {
            entities.connections[0].provider = "openai".into();
            entities.connections.truncate(1);
        },
        |_| {},
    );
    let spec = omniroute_provider::catalog::catalog().models_of(&"openai".into());
    let bound = spec.iter().find(|row| row.only_dialect().is_some()).expect("there is one").model.clone();
    world.transport.answer(Answer::json(
        200,
        r#"{"id":"resp_1","object":"response","status":"completed","model":"m","output":[{"type":"message","id":"msg_1","role":"assistant","status":"completed","content":[{"type":"output_text","text":"Hello","annotations":[]}]}],"usage":{"input_tokens":3,"output_tokens":2,"total_tokens":5}}"#,
    ));
    let got = world.chat(&ASK.replace("up/m", &format!("openai/{bound}"))).await;
    assert!(got.status == 200 && got.body.contains(r#""content":"Hello""#), "{}", got.body);
    assert_eq!(world.transport.sent()[0].uri.path(), "/v1/responses");
}

#[tokio::test(start_paused = true)]
async fn broken_connections_and_empty_or_senseless_answers_fall_back() {
    let broken = TransportError::Broken { host: "upstream.example".into(), reason: "reset".into() };
    let world = World::new();
    world.transport.fail(Duration::ZERO, broken).answer(answer("ok"));
    assert_eq!(world.chat(ASK).await.status, 200);
    for bad in [
        Answer::json(200, ""),
        Answer::json(200, "{}"),
        Answer::json(200, "null"),
        Answer::json(200, "<html>busy</html>"),
        Answer::json(200, r#"{"error":{"message":"overloaded","type":"server_error"}}"#),
        Answer::json(
            200,
            r#"{"choices":[{"index":0,"message":{"role":"assistant","content":""},"finish_reason":"stop"}]}"#,
        ),
        Answer::new(200, "application/json").send(r#"{"choices":[{"#).abort(),
    ] {
        let world = World::new();
        world.transport.answer(bad).answer(answer("ok"));
        let got = world.chat(ASK).await;
        assert_eq!(got.status, 200, "{}", got.body);
        assert_eq!(got.header("x-omniroute-attempts"), "2");
    }
}

#[tokio::test(start_paused = true)]
async fn an_endless_answer_is_cut_off() {
    let world = World::with(|_| {}, |options| options.max_answer_bytes = 10_000);
    let mut endless = Answer::new(200, "application/json");
    for _ in 0..20 {
        endless = endless.send(vec![b' '; 1_000]);
    }
    world.transport.answer(endless).answer(answer("ok"));
    assert_eq!(world.chat(ASK).await.status, 200);
    assert_eq!(world.row().attempts[0].failure, Some("protocol"));
}

#[tokio::test(start_paused = true)]
async fn a_short_cooldown_of_the_only_account_is_waited_for() {
    let world = World::with(|entities| entities.connections.retain(|c| c.name != "second"), |_| {});
    world
        .transport
        .answer(refusal(429, "rate_limit_error", "slow").header("retry-after", "3"))
        .answer(answer("ok"));
    let got = world.chat(ASK).await;
    assert_eq!((got.status, got.header("x-omniroute-attempts")), (200, "2"));
    assert!(
        (Duration::from_secs(3)..Duration::from_millis(3_200)).contains(&world.elapsed()),
        "{:?}",
        world.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_long_one_is_told_at_once() {
    let world = World::new();
    for wait in ["600", "300"] {
        world.transport.answer(refusal(429, "rate_limit_error", "slow").header("retry-after", wait));
    }
    let got = world.chat(ASK).await;
    assert_eq!((got.status, got.header("retry-after")), (429, "300"));
    assert_eq!(world.elapsed(), Duration::ZERO);
    assert!(got.body.contains("\"retry_at\":\"2026-11-23T00:05:00"), "{}", got.body);

    // The next request learns it without a call.
    let got = world.chat(ASK).await;
    assert_eq!(got.status, 429);
    assert_eq!(world.transport.sent().len(), 2);
}

/// A client is told when those come back whom it cannot ask now, also where it is no use to send the same again.
#[tokio::test(start_paused = true)]
async fn when_accounts_come_back_is_told_whatever_they_failed_with() {
    for (status, told) in [(500, 500), (502, 502), (401, 502), (402, 402), (404, 404)] {
        let world = World::with(
            |entities| {
                entities.settings.request_retry = 0;
                entities.connections.retain(|c| c.name != "second");
            },
            |_| {},
        );
        world.transport.answer(refusal(status, "some_error", "no"));
        let got = world.chat(ASK).await;
        assert_eq!(got.status, told, "{status}: {}", got.body);
        let error: serde_json::Value = serde_json::from_str(&got.body).unwrap();
        let details = &error["error"]["omniroute"];
        assert_eq!(details["attempts"][0]["status"], status, "{}", got.body);
        let until = details["retry_at"].as_str().unwrap_or_else(|| panic!("{status}: {}", got.body));
        assert!(until > "2026-11-23T00:00:00", "{status}: {until}");
        assert_eq!(world.row().error_code.as_deref(), error["error"]["code"].as_str(), "{status}");
        assert_eq!(got.header("retry-after"), "", "{status}: it is no advice to send the same again");
        if status == 404 {
            // Told from memory.
            let again = world.chat(ASK).await;
            let error: serde_json::Value = serde_json::from_str(&again.body).unwrap();
            assert_eq!((again.status, world.transport.sent().len()), (404, 1), "{}", again.body);
            assert_eq!(error["error"]["omniroute"]["retry_at"], details["retry_at"], "{}", again.body);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn attempts_in_words_name_an_endpoint_by_its_prefix() {
    let world = World::with(|entities| entities.settings.request_retry = 0, |_| {});
    for _ in 0..2 {
        world.transport.answer(refusal(500, "server_error", "broken"));
    }
    let got = world
        .messages(r#"{"model":"up/m","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}"#)
        .await;
    assert!(got.body.contains("(attempts: up/m 500"), "{}", got.body);
    assert!(!got.body.contains("openai-compatible"), "{}", got.body);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_of_the_operators_is_told_of_by_its_prefix() {
    type Change = fn(&mut Entities);
    let cases: [(Change, &str, &str); 3] = [
        (|entities| entities.connections.clear(), "no_credentials", "provider `up` has no active connection"),
        (
            |entities| {
                entities.connections.iter_mut().for_each(|row| row.status.test_status = TestStatus::Banned);
            },
            "all_accounts_inactive",
            "every account of `up` is out of service",
        ),
        (
            |entities| {
                entities
                    .connections
                    .iter_mut()
                    .for_each(|row| row.options.excluded_models = vec!["m".into()]);
            },
            "no_credentials",
            "no connection of `up` may serve `up/m`",
        ),
    ];
    for (change, code, said) in cases {
        let world = World::with(change, |_| {});
        for name in ["up/m", "openai-compatible-chat-1/m"] {
            let got = world.chat(&ASK.replace("up/m", name)).await;
            assert!(got.body.contains(code) && got.body.contains(said), "{name}: {}", got.body);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn silence_is_limited() {
    let limit = Duration::from_micros(9_699_964);
    let world = World::with(|_| {}, |options| options.first_byte_timeout = limit);
    for _ in 0..4 {
        world.transport.answer(answer("late").after(Duration::from_secs(60)));
    }
    let got = world.chat(ASK).await;
    assert_eq!(got.status, 504, "{}", got.body);
    assert!(got.body.contains("within 9.7 s"), "{}", got.body);
    assert_eq!(world.transport.cancelled(), world.transport.sent().len());
}

#[tokio::test(start_paused = true)]
async fn accounts_have_places() {
    let world = World::with(
        |entities| {
            entities.connections.retain(|c| c.name != "second");
            entities.connections[0].max_concurrent = Some(1);
        },
        |_| {},
    );
    world.transport.answer(answer("slow").after(Duration::from_secs(5)));
    let (first, second) = tokio::join!(world.chat(ASK), world.chat(ASK));
    assert_eq!((first.status, second.status), (200, 429));
    world.transport.answer(answer("free again"));
    assert_eq!(world.chat(ASK).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn streams_fall_back_until_the_first_meaningful_event() {
    let error = "data: {\"error\":{\"message\":\"overloaded\",\"type\":\"server_error\",\"code\":null}}\n\n";
    let role = "data: {\"id\":\"x\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]}\n\n";
    for bad in [
        stream().send(error),
        stream().send(role).send(error),
        stream().send(role).abort(),
        stream().send(role),
        stream(),
        refusal(500, "server_error", "no"),
    ] {
        let world = World::new();
        world.transport.answer(bad).answer(stream().send(chunk("fine")).send(END));
        let got = world.chat(ASK_STREAM).await;
        assert_eq!((got.status, got.header("x-omniroute-attempts")), (200, "2"));
        assert!(got.body.contains("fine") && got.body.ends_with("data: [DONE]\n\n"), "{}", got.body);
        assert!(!got.body.contains("overloaded"));
    }
}

#[tokio::test(start_paused = true)]
async fn what_does_not_pass_by_itself_is_not_waited_for() {
    let world = World::new();
    for _ in 0..2 {
        let spent = refusal(429, "insufficient_quota", "You exceeded your current quota");
        world.transport.answer(spent.header("retry-after", "20"));
    }
    assert_eq!(world.chat(ASK).await.status, 429);
    let before = tokio::time::Instant::now();
    let got = world.chat(ASK).await;
    assert_eq!((got.status, world.transport.sent().len()), (429, 2), "{}", got.body);
    assert!(before.elapsed() < Duration::from_secs(1), "{:?}", before.elapsed());
    assert_ne!(got.header("retry-after"), "", "when it comes back is told");
}
