//! Several targets of a combo at once: races and hedged requests. Who wins, what becomes of the others, and that all of it is
//! on record.

use std::time::Duration;

use http_body_util::BodyExt as _;
use omniroute_dialect::openai::OpenAi;
use omniroute_domain::entity::Combo;
use omniroute_testkit::Answer;

use crate::combos::{ASK, ASK_STREAM, totals, tried, world};
use crate::world::{END, World, answer, chunk, refusal, stream};

fn race(change: impl FnOnce(&mut Combo)) -> World {
    world(|best| {
        best.strategy = "race".into();
        change(best);
    })
}

fn hedged(change: impl FnOnce(&mut Combo)) -> World {
    world(|best| {
        best.config.hedging = Some(true);
        best.config.hedge_delay_ms = Some(500);
        change(best);
    })
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// What became of each attempt: its target, its status, its failure.
fn became(world: &World) -> Vec<(String, Option<u16>, Option<&'static str>)> {
    let failures = world.row().attempts.into_iter().map(|attempt| attempt.failure);
    tried(world).into_iter().zip(failures).map(|((name, status), failure)| (name, status, failure)).collect()
}

/// Nothing is left running: no place of an account, no step.
fn is_quiet(world: &World) -> bool {
    let live = world.engine.live.load();
    let best = live.combo("best").unwrap();
    best.memory.stats.in_flight() == 0
        && best.steps.iter().all(|step| step.stats.in_flight() == 0)
        && best.targets(&live).iter().all(|target| {
            target.provider.connections.iter().all(|connection| connection.health.in_flight() == 0)
        })
}

#[tokio::test(start_paused = true)]
async fn the_faster_of_two_answers_and_the_other_is_cancelled_and_on_record() {
    let world = race(|_| {});
    world.transport.answer(answer("slow").after(ms(900))).answer(answer("quick").after(ms(300)));
    let got = world.chat(ASK).await;
    assert!(got.status == 200 && got.body.contains("quick"), "{}", got.body);
    assert_eq!(world.elapsed(), ms(300));
    assert_eq!(became(&world), [("a".into(), None, Some("cancelled")), ("b".into(), Some(200), None)]);
    assert_eq!(world.row().attempts[0].duration_ms, 300);
    assert_eq!(got.header("x-omniroute-provider"), "openai-compatible-chat-b");
    assert_eq!(got.header("x-omniroute-attempts"), "2");
    assert_eq!((totals(&world, 0), totals(&world, 1), totals(&world, 2)), ((0, 0), (1, 1), (0, 0)));
    assert_eq!((world.transport.cancelled(), world.transport.sent().len()), (1, 2));
    assert!(is_quiet(&world));
}

#[tokio::test(start_paused = true)]
async fn a_stream_wins_with_its_first_content_and_is_told_to_its_end() {
    let world = race(|best| best.config.race_width = Some(3));
    world
        .transport
        .answer(stream().send(": hello\n\n").pause(ms(800)).send(chunk("late")).send(END))
        .answer(
            stream().pause(ms(200)).send(chunk("first")).pause(ms(5_000)).send(chunk(" and last")).send(END),
        )
        .answer(stream().pause(ms(400)).send(chunk("second")).send(END));
    let got = world.chat(ASK_STREAM).await;
    assert!(got.body.contains("first") && got.body.contains(" and last"), "{}", got.body);
    assert!(
        !got.body.contains("late") && !got.body.contains("second") && got.body.ends_with("data: [DONE]\n\n")
    );
    let row = world.row();
    // Three of the winner's own count, and the prompts of two that told nothing.
    let prompts = 3 + 2 * (ASK_STREAM.len() as u64 / 4);
    assert_eq!((row.status, row.usage.input_total(), row.usage.output_total), (200, Some(prompts), Some(2)));
    let names: Vec<_> = became(&world).into_iter().map(|(name, _, failure)| (name, failure)).collect();
    assert_eq!(names.last(), Some(&("b".to_owned(), None)), "who answered is last");
    assert!(names[..2].iter().all(|(_, failure)| *failure == Some("cancelled")), "{names:?}");
    assert!(is_quiet(&world) && world.transport.cancelled() == 2);
}

#[tokio::test(start_paused = true)]
async fn what_a_loser_had_used_is_added_up() {
    let world = race(|_| {});
    let told = r#"data: {"id":"x","object":"chat.completion.chunk","created":1,"model":"m","choices":[],"usage":{"prompt_tokens":40,"completion_tokens":0,"total_tokens":40}}"#;
    world
        .transport
        .answer(stream().send(format!("{told}\n\n")).pause(ms(900)).send(chunk("late")).send(END))
        .answer(stream().pause(ms(300)).send(chunk("won")).send(END));
    let got = world.chat(ASK_STREAM).await;
    assert!(got.body.contains("won"), "{}", got.body);
    let row = world.row();
    assert_eq!(row.attempts[0].usage.input_total(), Some(40));
    assert_eq!((row.usage.input_total(), row.usage.output_total), (Some(43), Some(2)));
}

#[tokio::test(start_paused = true)]
async fn when_those_of_the_race_fail_the_rest_is_asked_in_order() {
    let world = race(|_| {});
    world
        .transport
        .answer(refusal(500, "server_error", "broken").after(ms(200)))
        .answer(refusal(503, "server_error", "full").after(ms(100)))
        .answer(answer("from c"));
    assert_eq!(world.chat(ASK).await.status, 200);
    let expected = [
        ("b".to_owned(), Some(503), Some("capacity")),
        ("a".to_owned(), Some(500), Some("transient")),
        ("c".to_owned(), Some(200), None),
    ];
    assert_eq!(became(&world), expected, "in the order in which they ended");
    assert_eq!(world.elapsed(), ms(200));

    let world = race(|_| {});
    // Those that pass by themselves are waited for, once.
    for status in [500, 503, 404, 500, 503] {
        world.transport.answer(refusal(status, "server_error", "broken"));
    }
    let got = world.chat(ASK).await;
    assert!(got.status == 503 && got.body.contains("all 3 targets of combo `best` failed"), "{}", got.body);
    assert_eq!(got.body.matches(r#""reason":"#).count(), world.transport.sent().len(), "{}", got.body);
}

#[tokio::test(start_paused = true)]
async fn what_the_request_is_to_blame_for_ends_a_race_at_once() {
    let world = race(|_| {});
    world
        .transport
        .answer(answer("never heard").after(ms(900)))
        .answer(refusal(400, "invalid_request_error", "messages must not be empty").after(ms(100)));
    let got = world.chat(ASK).await;
    assert_eq!((got.status, world.elapsed()), (400, ms(100)), "{}", got.body);
    assert!(is_quiet(&world) && world.transport.sent().len() == 2);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_away_ends_all_of_them() {
    for body in [ASK, ASK_STREAM] {
        let world = race(|best| best.config.race_width = Some(3));
        for _ in 0..3 {
            world.transport.answer(answer("too late").after(ms(60_000)));
        }
        let left = tokio::time::timeout(ms(100), world.chat(body)).await;
        assert!(left.is_err(), "the client left first");
        let row = world.row();
        assert_eq!((row.status, row.attempts.len()), (499, 3));
        assert!(row.attempts.iter().all(|it| it.failure == Some("client_abort") && it.duration_ms == 100));
        assert!(is_quiet(&world) && world.transport.cancelled() == 3);
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_away_while_the_winner_speaks_is_noted_on_the_winner() {
    let world = race(|_| {});
    world
        .transport
        .answer(answer("slow").after(ms(900)))
        .answer(stream().send(chunk("so far")).pause(ms(60_000)).send(END));
    let response = world.respond(&OpenAi, ASK_STREAM, &[]).await;
    let mut body = response.into_body();
    assert!(body.frame().await.is_some());
    drop(body);
    assert_eq!(
        became(&world),
        [("a".into(), None, Some("cancelled")), ("b".into(), Some(200), Some("client_abort"))]
    );
    assert!(is_quiet(&world));
}

#[tokio::test(start_paused = true)]
async fn each_of_a_race_has_its_own_translation() {
    let world = world(|best| {
        best.strategy = "race".into();
        best.steps.truncate(2);
        best.steps[0].goal =
            omniroute_domain::entity::Goal::Model { model: "anth/m".into(), connection_id: None };
    });
    world.transport.answer(answer("slow").after(ms(900))).answer(answer("quick"));
    let got = world
        .messages(r#"{"model":"best","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}"#)
        .await;
    assert!(got.body.contains(r#""type":"message""#) && got.body.contains("quick"), "{}", got.body);
    let sent = world.transport.sent();
    assert!(sent[0].uri.path().ends_with("/messages") && sent[1].uri.path().ends_with("/chat/completions"));
}

#[tokio::test(start_paused = true)]
async fn a_silent_target_gets_company_and_the_first_to_speak_wins() {
    let world = hedged(|_| {});
    world.transport.answer(answer("slow").after(ms(5_000))).answer(answer("hedge").after(ms(200)));
    let got = world.chat(ASK).await;
    assert!(got.body.contains("hedge"), "{}", got.body);
    assert_eq!(world.elapsed(), ms(700), "half a second of patience, then two tenths");
    assert_eq!(became(&world), [("a".into(), None, Some("cancelled")), ("b".into(), Some(200), None)]);
    assert!(is_quiet(&world));

    // The first one may win still.
    let world = hedged(|_| {});
    world.transport.answer(answer("slow").after(ms(600))).answer(answer("hedge").after(ms(200)));
    let got = world.chat(ASK).await;
    assert!(got.body.contains("slow") && world.elapsed() == ms(600), "{}", got.body);
    assert_eq!(became(&world), [("b".into(), None, Some("cancelled")), ("a".into(), Some(200), None)]);
}

#[tokio::test(start_paused = true)]
async fn no_more_than_two_run_at_once_and_a_failure_makes_room() {
    let world = hedged(|_| {});
    world
        .transport
        .answer(answer("slow").after(ms(9_000)))
        .answer(refusal(500, "server_error", "broken").after(ms(2_000)))
        .answer(answer("third").after(ms(100)));
    let got = world.chat(ASK).await;
    assert!(got.body.contains("third"), "{}", got.body);
    assert_eq!(world.elapsed(), ms(2_600), "the third waits for a place");
}

#[tokio::test(start_paused = true)]
async fn a_failure_needs_no_patience_and_an_answer_that_has_begun_is_not_overtaken() {
    let world = hedged(|_| {});
    world.transport.answer(refusal(500, "server_error", "broken").after(ms(100))).answer(answer("b"));
    assert_eq!((world.chat(ASK).await.status, world.elapsed()), (200, ms(100)));

    let world = hedged(|_| {});
    world.transport.answer(
        stream().pause(ms(300)).send(": on my way\n\n").pause(ms(4_000)).send(chunk("here")).send(END),
    );
    let got = world.chat(ASK_STREAM).await;
    assert!(got.body.contains("here"), "{}", got.body);
    assert_eq!(world.transport.sent().len(), 1);

    // Without hedging nobody else is asked.
    let world = self::world(|_| {});
    world.transport.answer(Answer::json(200, "{}").after(ms(1)));
    world.transport.answer(answer("slow").after(ms(50_000)));
    assert_eq!(world.chat(ASK).await.status, 200);
    assert_eq!(world.transport.sent().len(), 2);
}
