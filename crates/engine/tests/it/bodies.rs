//! Which requests leave what was said in them, and what they leave.

use http_body_util::BodyExt as _;
use omniroute_dialect::openai::OpenAi;
use omniroute_domain::entity::KeepBodies;
use omniroute_engine::EngineOptions;
use omniroute_engine::bodies::{BodyNote, Copied, RequestBodies};
use omniroute_engine::serve::KeyPolicy;

use crate::world::{ASK, ASK_STREAM, END, KEY, World, answer, chunk, refusal, stream};
use crate::{combos, embeddings, images};

const MINE: &[(&str, &str)] = &[("authorization", "Bearer sk-omni-test")];

fn keeping(keep: KeepBodies, pipeline: bool) -> World {
    keeping_with(keep, pipeline, false, |_| {})
}

fn keeping_with(
    keep: KeepBodies,
    pipeline: bool,
    no_log: bool,
    tune: impl FnOnce(&mut EngineOptions),
) -> World {
    World::with(
        |entities| {
            entities.settings.call_log_bodies.keep = keep;
            entities.settings.call_log_bodies.pipeline = pipeline;
            entities.settings.request_retry = 0;
            entities.api_keys[0].no_log = no_log;
        },
        tune,
    )
}

fn last(world: &World) -> RequestBodies {
    world.recorded.bodies.lock().unwrap().pop().expect("nothing was kept")
}

fn kept(world: &World) -> usize {
    world.recorded.bodies.lock().unwrap().len()
}

fn text(body: &Copied) -> String {
    String::from_utf8(body.to_bytes().to_vec()).unwrap()
}

fn note(request: bool, response: bool, pipeline: bool) -> BodyNote {
    BodyNote::Kept { at: "here".into(), request, response, pipeline }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_kept_unless_that_is_wanted() {
    let world = World::new();
    world.transport.answer(answer("hello"));
    world.chat(ASK).await;
    assert_eq!((kept(&world), world.row().bodies), (0, BodyNote::Off));
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_and_got_is_kept_of_all() {
    let world = keeping(KeepBodies::All, false);
    world.transport.answer(answer("hello"));
    let got = world.send(&OpenAi, ASK, MINE).await;
    let bodies = last(&world);
    assert_eq!((text(&bodies.request), text(&bodies.response)), (ASK.to_owned(), got.body));
    assert!(bodies.call.is_none());
    assert_eq!(bodies.id, world.row().id);
    assert_eq!(bodies.headers["authorization"], format!("Bearer {KEY}"));
    assert_eq!((bodies.summary.status, &*bodies.summary.requested_model), (200, "up/m"));
    assert_eq!(world.row().bodies, note(true, true, false));
}

#[tokio::test(start_paused = true)]
async fn of_failures_alone_those_are_kept() {
    let world = keeping(KeepBodies::Failures, false);
    world.transport.answer(answer("hello"));
    world.chat(ASK).await;
    assert_eq!((kept(&world), world.row().bodies), (0, BodyNote::Succeeded));

    world.transport.answer(refusal(400, "invalid_request_error", "no such thing"));
    let got = world.chat(ASK).await;
    assert_eq!(got.status, 400);
    assert_eq!((text(&last(&world).response), world.row().bodies), (got.body, note(true, true, false)));

    // Before anybody was called: nonsense, and a model that is not there.
    for body in ["{nonsense", r#"{"model":"nobody/m","messages":[]}"#] {
        let got = world.chat(body).await;
        let bodies = last(&world);
        assert!((400..500).contains(&got.status), "{}", got.body);
        assert_eq!((text(&bodies.request), text(&bodies.response)), (body.to_owned(), got.body));
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_kept_as_the_text_that_was_sent() {
    let world = keeping(KeepBodies::All, true);
    world.transport.answer(stream().send(chunk("so ")).send(chunk("far")).send(END));
    let got = world.chat(ASK_STREAM).await;
    let bodies = last(&world);
    assert_eq!(text(&bodies.response), got.body);
    let call = bodies.call.unwrap();
    assert!(text(&call.response).ends_with(END) && text(&call.response).contains("far"));
    assert_eq!(world.row().bodies, note(true, true, true));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_off_is_a_failure_with_its_last_words() {
    let world = keeping(KeepBodies::Failures, false);
    world.transport.answer(stream().send(chunk("so far")).abort());
    let got = world.chat(ASK_STREAM).await;
    let bodies = last(&world);
    assert!(got.body.contains("so far") && got.body.contains("error"), "{}", got.body);
    assert_eq!(text(&bodies.response), got.body);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_away_leaves_what_it_got() {
    let world = keeping(KeepBodies::Failures, true);
    world.transport.answer(stream().send(chunk("so far")).hang());
    let mut body = world.respond(&OpenAi, ASK_STREAM, &[]).await.into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    drop(body);
    let bodies = last(&world);
    assert_eq!((bodies.summary.status, bodies.response.to_bytes()), (499, first));
    assert!(text(&bodies.call.unwrap().response).contains("so far"));
}

#[tokio::test(start_paused = true)]
async fn of_several_calls_the_last_is_kept() {
    let world = keeping(KeepBodies::All, true);
    world.transport.answer(refusal(429, "rate_limit_error", "slow down")).answer(answer("from the second"));
    world.chat(ASK).await;
    let call = last(&world).call.unwrap();
    assert_eq!(call.headers["authorization"], "Bearer upstream-key-of-second");
    assert!(call.headers["authorization"].is_sensitive());
    assert_eq!(call.uri.path(), "/v1/chat/completions");
    assert!(text(&call.request).contains("\"model\":\"m\""), "{}", text(&call.request));
    assert!(text(&call.response).contains("from the second"));
    assert_eq!(call.head.unwrap().0, 200);

    // And of one that failed its words.
    let world = keeping(KeepBodies::All, true);
    world.transport.answer(refusal(400, "invalid_request_error", "no such thing"));
    world.chat(ASK).await;
    let call = last(&world).call.unwrap();
    assert!(text(&call.response).contains("no such thing"));
    assert_eq!(call.head.unwrap().0, 400);
}

#[tokio::test(start_paused = true)]
async fn of_a_race_the_winners_call_is_kept() {
    let world = World::with(
        |entities| {
            entities.settings.call_log_bodies.keep = KeepBodies::All;
            entities.settings.call_log_bodies.pipeline = true;
            combos::add_best(entities, |best| best.strategy = "race".into());
        },
        |_| {},
    );
    let after = std::time::Duration::from_millis;
    world.transport.answer(answer("slow").after(after(900))).answer(answer("quick").after(after(300)));
    world.chat(combos::ASK).await;
    let bodies = last(&world);
    assert!(text(&bodies.response).contains("quick"));
    assert!(text(&bodies.call.unwrap().response).contains("quick"));
    assert_eq!(kept(&world), 0, "a branch is no request");
}

#[tokio::test(start_paused = true)]
async fn of_a_race_that_nobody_wins_the_last_call_is_kept() {
    let world = World::with(
        |entities| {
            entities.settings.call_log_bodies.keep = KeepBodies::Failures;
            entities.settings.call_log_bodies.pipeline = true;
            entities.settings.request_retry = 0;
            combos::add_best(entities, |best| {
                best.strategy = "race".into();
                best.config.race_width = Some(3);
            });
        },
        |_| {},
    );
    for (who, ms) in [("a", 300), ("b", 100), ("c", 200)] {
        let refused = refusal(500, "server_error", &format!("{who} is broken"));
        world.transport.answer(refused.after(std::time::Duration::from_millis(ms)));
    }
    assert!(world.chat(combos::ASK).await.status >= 500);
    let bodies = last(&world);
    let account = bodies.summary.connection.as_ref().map(|id| id.as_str());
    assert_eq!((account, bodies.summary.attempts), (Some("of-a"), 3));
    let heard = text(&bodies.call.unwrap().response);
    assert!(heard.contains("a is broken"), "{heard}");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_kept_whatever_was_asked_for() {
    let world = keeping(KeepBodies::Failures, false);
    let wrong = r#"{"model":"up/m","input":5,"prompt":5}"#;
    let begin =
        || images::begin(&world, "/v1/images/generations", MINE).unwrap_or_else(|_| panic!("it is known"));
    assert_eq!(embeddings::ask(&world, wrong, MINE).await.status, 400);
    assert_eq!(text(&last(&world).request), wrong);
    assert_eq!(images::ask(&world, wrong, MINE).await.status, 400);
    assert_eq!(text(&last(&world).request), wrong);
    assert_eq!(images::read(world.engine.edit_named(begin(), wrong.into()).await).await.status, 400);
    assert_eq!(text(&last(&world).request), wrong);
    assert_eq!(images::read(world.engine.speech(begin(), wrong.into()).await).await.status, 400);
    assert_eq!(text(&last(&world).request), wrong);
    assert_eq!(world.row().bodies, note(true, true, false));
}

#[tokio::test(start_paused = true)]
async fn of_a_form_no_mark_is_kept_however_its_type_is_written() {
    let world = keeping(KeepBodies::All, false);
    for kind in ["multipart/form-data; boundary=x", " Multipart/Form-Data; boundary=x"] {
        let headers = [MINE[0], ("content-type", kind), ("content-length", "1234")];
        world.transport.answer(answer("hello"));
        world.send(&OpenAi, ASK, &headers).await;
        let request = last(&world).request;
        assert_eq!((request.length(), request.held()), (1_234, 0), "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_keeps_nothing_keeps_nothing() {
    let world = keeping_with(KeepBodies::All, true, true, |_| {});
    world.transport.answer(answer("hello"));
    world.send(&OpenAi, ASK, MINE).await;
    assert_eq!((kept(&world), world.row().bodies), (0, BodyNote::NoLog));
}

#[tokio::test(start_paused = true)]
async fn who_did_not_say_who_it_is_leaves_nothing() {
    let required = |options: &mut EngineOptions| options.key_policy = KeyPolicy::Required;
    let world = keeping_with(KeepBodies::All, true, false, required);
    for headers in [&[][..], &[("authorization", "Bearer sk-omni-other")]] {
        assert_eq!(world.send(&OpenAi, ASK, headers).await.status, 401);
        assert_eq!((kept(&world), world.row().bodies), (0, BodyNote::Unknown));
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_off_is_known_all_the_same() {
    for (no_log, expected) in [(false, note(false, true, false)), (true, BodyNote::NoLog)] {
        let world = World::with(
            |entities| {
                entities.settings.call_log_bodies.keep = KeepBodies::Failures;
                entities.api_keys[0].is_active = false;
                entities.api_keys[0].no_log = no_log;
            },
            |_| {},
        );
        assert_eq!(world.send(&OpenAi, ASK, MINE).await.status, 401);
        assert_eq!(world.row().bodies, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn without_room_the_row_says_so() {
    let world = keeping(KeepBodies::All, false);
    *world.recorded.has_no_room.lock().unwrap() = true;
    world.transport.answer(answer("hello"));
    world.chat(ASK).await;
    assert_eq!(world.row().bodies, BodyNote::Shed);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_repeated_is_kept_of_both_requests() {
    let world = keeping(KeepBodies::All, false);
    let once = &[("idempotency-key", "one")];
    world.transport.answer(stream().send(chunk("hello")).send(END));
    let first = world.send(&OpenAi, ASK_STREAM, once).await;
    let again = world.send(&OpenAi, ASK_STREAM, once).await;
    assert_eq!((again.header("x-omniroute-idempotent"), &first.body), ("true", &again.body));
    assert_eq!((text(&last(&world).response), text(&last(&world).response)), (again.body, first.body));
}
