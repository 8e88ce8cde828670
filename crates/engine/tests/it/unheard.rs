//! Calls that are given up before anything was heard of their answer, or come to nothing without a refusal: what an upstream may
//! bill of them is in the ledger, the log, the key's limits and the account's plan, and what it cannot bill is not.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use omniroute_dialect::{Dialect, anthropic::Anthropic, openai::OpenAi};
use omniroute_domain::entity::{ApiKeyId, Budget, ConnectionId, Entities, QuotaWindow};
use omniroute_domain::price::PriceRow;
use omniroute_engine::ports::{RequestRow, TransportError};
use omniroute_testkit::Answer;

use crate::combos::{self, add_best};
use crate::embeddings;
use crate::world::{ASK, ASK_STREAM, END, World, answer, chunk, refusal, stream};

const BEARER: (&str, &str) = ("authorization", "Bearer sk-omni-test");
const CLAUDE: &str =
    r#"{"model":"anth/m","max_tokens":99,"stream":true,"messages":[{"role":"user","content":"hi"}]}"#;
const NEVER: Duration = Duration::from_secs(9_000);
const TOKEN_NANO: i64 = 1_000_000;

/// A world whose models have prices and whose accounts have plans; the key has a budget and a limit of tokens.
fn world(change: impl FnOnce(&mut Entities)) -> World {
    with_budget(i64::MAX / 2, change)
}

fn with_budget(daily_nano: i64, change: impl FnOnce(&mut Entities)) -> World {
    World::with(
        |entities| {
            change(entities);
            let row = PriceRow { input: Some(1_000.0), output: Some(2_000.0), ..PriceRow::default() };
            for node in &entities.nodes {
                entities.prices.user.entry(node.id.clone()).or_default().insert("m".into(), row.clone());
            }
            let window =
                QuotaWindow { window: "5h".into(), tokens: Some(1_000_000), ..QuotaWindow::default() };
            for account in &mut entities.connections {
                account.options.quota_windows = vec![window.clone()];
            }
            let budget = Budget::unlimited(Some(ApiKeyId::from("k1")));
            entities.budgets.push(Budget { daily_nano: Some(daily_nano), ..budget });
            entities.api_keys[0].max_tokens_per_minute = Some(1_000_000);
            entities.settings.request_retry = 0;
        },
        |options| {
            options.first_byte_timeout = Duration::from_secs(10);
            options.stream_idle_timeout = Duration::from_secs(20);
        },
    )
}

/// The same with one account, so that a failure is the client's.
fn alone() -> World {
    world(|entities| entities.connections.truncate(1))
}

fn unreachable() -> TransportError {
    TransportError::ConnectTimeout { host: "upstream.example".into(), limit_ms: 30_000 }
}

fn broken() -> TransportError {
    TransportError::Broken { host: "upstream.example".into(), reason: "reset".into() }
}

/// The client waits for a second.
async fn leaves(world: &World, dialect: &'static dyn Dialect, body: &str) -> RequestRow {
    let asks = async {
        let response = world.respond(dialect, body, &[BEARER]).await;
        response.into_body().collect().await
    };
    let left = tokio::time::timeout(Duration::from_secs(1), asks).await;
    assert!(left.is_err(), "the client left first");
    let row = world.row();
    assert_eq!((row.status, row.attempts.iter().any(|attempt| attempt.failure.is_none())), (499, false));
    row
}

/// What was spent, what is still held, and the tokens that the key has used of its limit.
async fn spent(world: &World) -> (i64, i64, i64) {
    let live = &world.engine.live;
    let now_ms = world.engine.clock.now_ms();
    let standing = live.spending.standing(&live.load().budgets, Some(&ApiKeyId::from("k1")), now_ms);
    // A request of no cost tells what is left.
    world.transport.answer(refusal(400, "invalid_request_error", "no"));
    let got = world.send(&OpenAi, ASK, &[BEARER]).await;
    let left: i64 = got.header("x-ratelimit-remaining-tokens").parse().unwrap();
    // What this one holds itself.
    let own = i64::try_from(ASK.len() / 4).unwrap();
    (standing.total_nano, standing.held_nano, 1_000_000 - left - own)
}

/// Tokens that are used of the plan of an account.
fn planned(world: &World, account: &ConnectionId) -> u64 {
    let live = world.engine.live.load();
    let account = live.connection(account).unwrap();
    account.health.plan.standings(&account.plan, world.engine.clock.now_ms())[0].used
}

/// Every part of the record says the same: the prompt by estimate, and nothing else.
async fn assert_prompt_is_billed(world: &World, row: &RequestRow, body: &str) {
    let tokens = body.len() as u64 / 4;
    let nano = i64::try_from(tokens).unwrap() * TOKEN_NANO;
    let [bill] = &*row.bills else { panic!("one bill: {:?}", row.bills) };
    assert_eq!((bill.usage.input_total(), bill.usage.output_total), (Some(tokens), None));
    assert_eq!((bill.amount_nano, bill.estimated), (Some(nano), true));
    assert_eq!((row.usage, row.usage_estimated, row.cost_nano), (bill.usage, true, Some(nano)));
    let last = row.attempts.last().unwrap();
    assert_eq!((last.usage, last.is_estimated(), last.cost_nano), (bill.usage, true, Some(nano)));
    assert_eq!(planned(world, &last.connection), tokens);
    assert_eq!(spent(world).await, (nano, 0, i64::try_from(tokens).unwrap()));
}

async fn assert_nothing_is_billed(world: &World, row: &RequestRow) {
    assert_eq!((&*row.bills, row.cost_nano), (&[][..], Some(0)));
    assert_eq!((row.usage.is_known(), row.usage_estimated), (false, false));
    assert_eq!(spent(world).await, (0, 0, 0));
}

fn start(input: u64) -> String {
    format!(
        "event: message_start\ndata: {{\"type\":\"message_start\",\"message\":{{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"m\",\"content\":[],\"stop_reason\":null,\"usage\":{{\"input_tokens\":{input},\"output_tokens\":1}}}}}}\n\n"
    )
}

#[tokio::test(start_paused = true)]
async fn who_leaves_before_the_head_is_billed_the_prompt() {
    for (dialect, body) in
        [(&OpenAi as &'static dyn Dialect, ASK), (&OpenAi, ASK_STREAM), (&Anthropic, CLAUDE)]
    {
        let world = world(|_| {});
        world.transport.answer(stream().after(NEVER));
        let row = leaves(&world, dialect, body).await;
        assert_eq!(world.transport.cancelled(), 1);
        assert_prompt_is_billed(&world, &row, body).await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_leaves_before_the_first_content_is_billed_the_prompt() {
    let role = chunk("").replace(r#""content":"""#, r#""role":"assistant""#);
    for silent in [stream().hang(), stream().send(": wait\n\n").hang(), stream().send(role).hang()] {
        let world = world(|_| {});
        world.transport.answer(silent);
        let row = leaves(&world, &OpenAi, ASK_STREAM).await;
        assert_prompt_is_billed(&world, &row, ASK_STREAM).await;
    }
    // Half a document says nothing yet.
    let world = world(|_| {});
    world.transport.answer(Answer::json(200, r#"{"id":"#).hang());
    let row = leaves(&world, &OpenAi, ASK).await;
    assert_prompt_is_billed(&world, &row, ASK).await;
}

#[tokio::test(start_paused = true)]
async fn what_the_upstream_told_of_the_prompt_holds() {
    let world = world(|_| {});
    world.transport.answer(stream().send(start(40)).hang());
    let row = leaves(&world, &Anthropic, CLAUDE).await;
    let [bill] = &*row.bills else { panic!("one bill: {:?}", row.bills) };
    assert_eq!((bill.usage.input_total(), bill.usage.output_total), (Some(40), Some(1)));
    assert_eq!((bill.amount_nano, bill.estimated, row.usage), (Some(42 * TOKEN_NANO), false, bill.usage));

    // A zero is none of a prompt.
    world.transport.answer(stream().send(start(0)).hang());
    let row = leaves(&world, &Anthropic, CLAUDE).await;
    let tokens = CLAUDE.len() as u64 / 4;
    assert_eq!((row.usage.input_total(), row.usage.output_total), (Some(tokens), Some(1)));
    assert!(row.bills[0].estimated && row.usage_estimated);
}

#[tokio::test(start_paused = true)]
async fn who_leaves_before_there_is_a_connection_is_billed_nothing() {
    for body in [ASK, ASK_STREAM] {
        let world = world(|_| {});
        world.transport.fail(NEVER, unreachable());
        let row = leaves(&world, &OpenAi, body).await;
        assert_eq!(row.attempts.len(), 1);
        assert_nothing_is_billed(&world, &row).await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_leaves_while_a_refusal_is_read_is_billed_nothing() {
    let world = world(|_| {});
    world.transport.answer(Answer::json(529, r#"{"error":"#).hang());
    let row = leaves(&world, &OpenAi, ASK_STREAM).await;
    assert_nothing_is_billed(&world, &row).await;
}

#[tokio::test(start_paused = true)]
async fn what_failed_before_is_not_taken_for_the_call_that_is_left() {
    let world = world(|_| {});
    world.transport.answer(refusal(500, "server_error", "no")).answer(stream().after(NEVER));
    let row = leaves(&world, &OpenAi, ASK_STREAM).await;
    assert_eq!((row.attempts.len(), row.bills[0].attempt), (2, 2));
    assert_prompt_is_billed(&world, &row, ASK_STREAM).await;

    // The first one was sent, the second never.
    let world = self::world(|_| {});
    world.transport.answer(refusal(500, "server_error", "no")).fail(NEVER, unreachable());
    let row = leaves(&world, &OpenAi, ASK_STREAM).await;
    assert_eq!(row.attempts.len(), 2);
    assert_nothing_is_billed(&world, &row).await;
}

#[tokio::test(start_paused = true)]
async fn what_an_operator_ends_is_billed_alike() {
    let world = world(|_| {});
    world.transport.answer(stream().after(NEVER));
    let telemetry = &world.engine.telemetry;
    let ends = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        telemetry.active().iter().map(|request| telemetry.cancel(&request.id)).sum::<usize>()
    };
    let (_, ended) = tokio::join!(world.send(&OpenAi, ASK_STREAM, &[BEARER]), ends);
    let row = world.row();
    assert_eq!((ended, row.attempts[0].failure), (1, Some("operator_abort")));
    assert_prompt_is_billed(&world, &row, ASK_STREAM).await;
}

fn race() -> World {
    world(|entities| {
        add_best(entities, |best| {
            best.strategy = "race".into();
            best.config.race_width = Some(3);
        });
    })
}

#[tokio::test(start_paused = true)]
async fn each_of_a_race_that_is_left_is_billed_what_it_was_sent() {
    let world = race();
    world.transport.answer(answer("late").after(NEVER)).fail(NEVER, unreachable()).answer(stream().hang());
    let row = leaves(&world, &OpenAi, combos::ASK_STREAM).await;
    let tokens = combos::ASK_STREAM.len() as u64 / 4;
    let nano = i64::try_from(tokens).unwrap() * TOKEN_NANO;
    let billed: Vec<_> = row.bills.iter().map(|bill| (bill.amount_nano, bill.estimated)).collect();
    assert_eq!((row.attempts.len(), billed), (3, vec![(Some(nano), true); 2]));
    assert_eq!((row.usage.input_total(), row.cost_nano), (Some(2 * tokens), Some(2 * nano)));
    assert!(row.usage_estimated);
    assert_eq!(spent(&world).await, (2 * nano, 0, 2 * i64::try_from(tokens).unwrap()));
}

#[tokio::test(start_paused = true)]
async fn losers_are_billed_what_they_were_sent_and_the_winner_what_it_told() {
    let world = race();
    world
        .transport
        .answer(answer("late").after(NEVER))
        .fail(NEVER, unreachable())
        .answer(stream().pause(Duration::from_millis(300)).send(chunk("won")).send(END));
    let got = world.send(&OpenAi, combos::ASK_STREAM, &[BEARER]).await;
    assert!(got.body.contains("won"), "{}", got.body);
    let row = world.row();
    let tokens = combos::ASK_STREAM.len() as u64 / 4;
    let nano = i64::try_from(tokens).unwrap() * TOKEN_NANO;
    let billed: Vec<_> = row.bills.iter().map(|bill| (bill.amount_nano, bill.estimated)).collect();
    assert_eq!(billed, [(Some(nano), true), (Some(7 * TOKEN_NANO), false)]);
    assert_eq!((row.usage.input_total(), row.usage.output_total), (Some(tokens + 3), Some(2)));
    assert!(row.usage_estimated && row.attempts.iter().filter(|attempt| attempt.is_estimated()).count() == 1);
    assert_eq!(spent(&world).await.0, nano + 7 * TOKEN_NANO);
}

#[tokio::test(start_paused = true)]
async fn what_a_task_that_is_left_costs_is_unknown_if_it_was_sent() {
    const EMBED: &str = r#"{"model":"up/m","input":["a","b"]}"#;
    let left = |world: World| async move {
        let asked =
            tokio::time::timeout(Duration::from_secs(1), embeddings::ask(&world, EMBED, &[BEARER])).await;
        assert!(asked.is_err(), "the client left first");
        let row = world.row();
        (row.bills.iter().map(|bill| bill.amount_nano).collect::<Vec<_>>(), row.cost_nano)
    };
    let world = self::world(|_| {});
    world.transport.answer(Answer::json(200, Bytes::from_static(b"{}")).after(NEVER));
    assert_eq!(left(world).await, (vec![None], None));
    let world = self::world(|_| {});
    world.transport.fail(NEVER, unreachable());
    assert_eq!(left(world).await, (vec![], Some(0)));
}

#[tokio::test(start_paused = true)]
async fn what_the_gateway_gives_up_is_billed_the_prompt() {
    let nothing = r#"{"id":"x","object":"chat.completion","choices":[]}"#;
    for (what, body, said, status, failure) in [
        ("no head", ASK, Ok(answer("late").after(NEVER)), 504, "timeout"),
        ("no head", ASK_STREAM, Ok(stream().after(NEVER)), 504, "timeout"),
        ("no content", ASK_STREAM, Ok(stream().hang()), 504, "timeout"),
        ("half a document", ASK, Ok(Answer::json(200, r#"{"id":"#).hang()), 504, "timeout"),
        ("broken before the head", ASK, Err(broken()), 502, "network_error"),
        ("broken before the content", ASK_STREAM, Ok(stream().send(": wait\n\n").abort()), 502, "protocol"),
        ("no document", ASK, Ok(Answer::json(200, "so")), 502, "protocol"),
        ("nothing in it", ASK_STREAM, Ok(stream().send("data: [DONE]\n\n")), 502, "empty_response"),
        ("nothing in it", ASK, Ok(Answer::json(200, nothing)), 502, "empty_response"),
    ] {
        let world = alone();
        match said {
            Ok(answer) => world.transport.answer(answer),
            Err(error) => world.transport.fail(Duration::from_secs(1), error),
        };
        let got = world.send(&OpenAi, body, &[BEARER]).await;
        let row = world.row();
        assert_eq!((row.status, row.attempts[0].failure), (status, Some(failure)), "{what}: {}", got.body);
        assert_prompt_is_billed(&world, &row, body).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_never_left_or_was_refused_is_billed_nothing() {
    let refusal_in_stream = r#"data: {"error":{"message":"no","type":"server_error","code":"overloaded"}}"#;
    let world = alone();
    world.transport.fail(Duration::ZERO, unreachable());
    world.send(&OpenAi, ASK, &[BEARER]).await;
    assert_nothing_is_billed(&world, &world.row()).await;

    for (body, said) in [
        (ASK, refusal(504, "timeout", "the model took too long")),
        (ASK_STREAM, stream().send(format!("{refusal_in_stream}\n\n"))),
        (ASK, Answer::json(200, r#"{"error":{"message":"no","type":"server_error"}}"#)),
    ] {
        let world = alone();
        world.transport.answer(said);
        world.send(&OpenAi, body, &[BEARER]).await;
        assert_eq!(world.row().attempts.len(), 1);
        assert_nothing_is_billed(&world, &world.row()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_target_that_takes_too_long_is_billed_beside_the_one_that_answers() {
    let world = world(|entities| add_best(entities, |best| best.config.target_timeout_ms = Some(5_000)));
    let prompt = combos::ASK.len() as u64 / 4;
    let nano = i64::try_from(prompt).unwrap() * TOKEN_NANO;
    world
        .transport
        .answer(answer("late").after(NEVER))
        .fail(Duration::ZERO, unreachable())
        .answer(answer("ok"));
    let got = world.send(&OpenAi, combos::ASK, &[BEARER]).await;
    assert_eq!((got.status, got.header("x-omniroute-attempts")), (200, "3"));
    let row = world.row();
    let billed: Vec<_> =
        row.bills.iter().map(|bill| (bill.attempt, bill.amount_nano, bill.estimated)).collect();
    assert_eq!(billed, [(1, Some(nano), true), (3, Some(7 * TOKEN_NANO), false)]);
    assert_eq!((row.usage.input_total(), row.usage.output_total), (Some(prompt + 3), Some(2)));
    assert_eq!((row.usage_estimated, row.cost_nano), (true, Some(nano + 7 * TOKEN_NANO)));
    assert_eq!(got.header("x-omniroute-response-cost"), format!("{}", (nano + 7 * TOKEN_NANO) as f64 / 1e9));
    assert_eq!(spent(&world).await, (nano + 7 * TOKEN_NANO, 0, i64::try_from(prompt).unwrap() + 5));
}

#[tokio::test(start_paused = true)]
async fn what_was_given_up_stays_held_beside_the_next_call() {
    let prompt = i64::try_from(combos::ASK.len() / 4).unwrap() * TOKEN_NANO;
    let one = prompt + 1_024 * 2 * TOKEN_NANO;
    for (room, calls, status) in [(one + 2 * prompt, 3, 200), (one + prompt, 2, 429)] {
        let world = with_budget(room, |entities| add_best(entities, |_| {}));
        world
            .transport
            .answer(answer("late").after(NEVER))
            .fail(Duration::ZERO, broken())
            .answer(answer("ok"));
        let got = world.send(&OpenAi, combos::ASK, &[BEARER]).await;
        assert_eq!((got.status, world.transport.sent().len()), (status, calls), "{}", got.body);
        let spent = spent(&world).await;
        assert_eq!((spent.0, spent.1), (2 * prompt + if status == 200 { 7 * TOKEN_NANO } else { 0 }, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_task_that_is_given_up_costs_is_unknown() {
    const EMBED: &str = r#"{"model":"up/m","input":["a","b"]}"#;
    let world = self::world(|_| {});
    world.transport.answer(Answer::json(200, "{}").after(NEVER)).fail(Duration::ZERO, unreachable());
    embeddings::ask(&world, EMBED, &[BEARER]).await;
    let row = world.row();
    assert_eq!((row.attempts.len(), row.bills.len(), row.bills[0].attempt), (2, 1, 1));
    assert_eq!((row.bills[0].amount_nano, row.bills[0].estimated, row.cost_nano), (None, false, None));
    assert!(!row.usage_estimated && !row.usage.is_known());
}
