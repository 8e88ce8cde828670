//! What is paid for beside the answer that the client gets: rejected answers, calls that lost, and what an upstream says that it
//! billed.

use std::time::Duration;

use omniroute_dialect::ollama::Ollama;
use omniroute_dialect::openai::OpenAi;
use omniroute_domain::budget::Standing;
use omniroute_domain::entity::{ApiKeyId, Budget, Combo, ComboConfig, Entities, ResponseValidation};
use omniroute_domain::price::PriceRow;
use omniroute_provider::ProviderId;
use omniroute_testkit::Answer;

use crate::combos::add_best;
use crate::world::{World, answer, connection};

pub(crate) const BEARER: (&str, &str) = ("authorization", "Bearer sk-omni-test");
pub(crate) const ASK: &str =
    r#"{"model":"best","messages":[{"role":"user","content":"hi"}],"max_tokens":2,"temperature":0}"#;
/// 3 tokens of prompt and 2 of answer.
const COST: i64 = 7_000_000;

/// The combo `best` with prices, and a key that may spend so much in a day.
fn world(daily_nano: i64, change: impl FnOnce(&mut Combo)) -> World {
    world_of(daily_nano, |entities| add_best(entities, change))
}

/// The same with other entities than the combo.
pub(crate) fn world_of(daily_nano: i64, change: impl FnOnce(&mut Entities)) -> World {
    World::with(
        |entities| {
            change(entities);
            price(entities);
            entities.settings.request_retry = 0;
            let budget = Budget::unlimited(Some(ApiKeyId::from("k1")));
            entities.budgets.push(Budget { daily_nano: Some(daily_nano), ..budget });
        },
        |_| {},
    )
}

fn price(entities: &mut Entities) {
    for node in &entities.nodes {
        let row = PriceRow { input: Some(1_000.0), output: Some(2_000.0), ..PriceRow::default() };
        entities.prices.user.entry(node.id.clone()).or_default().insert("m".into(), row);
    }
}

pub(crate) fn standing(world: &World) -> Standing {
    let live = &world.engine.live;
    let now_ms = world.engine.clock.now_ms();
    live.spending.standing(&live.load().budgets, Some(&ApiKeyId::from("k1")), now_ms)
}

/// What one request holds: its money that is not there any more while it runs.
pub(crate) async fn held_by_one() -> i64 {
    let world = world(i64::MAX, |_| {});
    world.transport.answer(answer("ok").after(Duration::from_secs(1)));
    let running = world.send(&OpenAi, ASK, &[BEARER]);
    tokio::pin!(running);
    tokio::select! {
        _ = &mut running => unreachable!("the upstream takes a second"),
        () = tokio::time::sleep(Duration::from_millis(500)) => {}
    }
    let held = standing(&world).held_nano;
    running.await;
    held
}

fn rejects_all(best: &mut Combo) {
    let rules: ResponseValidation = serde_json::from_str(r#"{"mustMatch":"never said"}"#).unwrap();
    best.config = ComboConfig {
        response_validation: Some(rules),
        max_retries: Some(10),
        retry_delay_ms: Some(1),
        ..ComboConfig::default()
    };
}

#[tokio::test(start_paused = true)]
async fn rejected_answers_never_overshoot_a_budget() {
    let one = held_by_one().await;
    assert!(one >= COST, "{one}");
    for (strategy, room) in [("priority", 3), ("priority", 5), ("fill-first", 3), ("race", 4)] {
        // Room for as many rejected answers and the call that is to follow them.
        let limit = one + (room - 1) * COST;
        let world = world(limit, |best| {
            rejects_all(best);
            best.strategy = strategy.into();
        });
        for _ in 0..40 {
            world.transport.answer(answer("something else"));
        }
        let got = world.send(&OpenAi, ASK, &[BEARER]).await;
        assert_eq!(got.status, 429, "{strategy}: {}", got.body);
        assert!(got.body.contains("budget_exceeded"), "{strategy}: {}", got.body);
        assert!(!got.header("x-omniroute-budget-limit").is_empty() && !got.header("retry-after").is_empty());
        let standing = standing(&world);
        assert!(standing.total_nano <= limit && standing.held_nano == 0, "{strategy}: {standing:?}");
        let calls = i64::try_from(world.transport.sent().len()).unwrap();
        assert_eq!(standing.total_nano, calls * COST, "all are paid for");
        if strategy != "race" {
            assert_eq!(calls, room, "{strategy}: as many as there is room for");
            assert!(got.body.contains("invalid_response"), "it is told what was tried: {}", got.body);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_leg_that_may_not_ask_again_does_not_stop_the_other() {
    let one = held_by_one().await;
    // Two start at once; there is room for them and not for what follows a rejected answer.
    let world = world(2 * one + COST / 2, |best| {
        let rules: ResponseValidation = serde_json::from_str(r#"{"mustMatch":"good"}"#).unwrap();
        best.config.response_validation = Some(rules);
        best.strategy = "race".into();
    });
    world.transport.answer(answer("bad")).answer(answer("good").after(Duration::from_secs(1)));
    let got = world.send(&OpenAi, ASK, &[BEARER]).await;
    assert!(got.status == 200 && got.body.contains("good"), "{}", got.body);
    assert_eq!(got.header("x-omniroute-budget-limit"), "", "nothing was refused");
    assert_eq!((standing(&world).total_nano, standing(&world).held_nano), (2 * COST, 0));
}

#[tokio::test(start_paused = true)]
async fn who_lost_before_it_said_anything_is_in_the_ledger_by_estimate() {
    let world = world(i64::MAX, |best| best.strategy = "race".into());
    world.transport.answer(answer("slow").after(Duration::from_secs(2)));
    world.transport.answer(answer("quick").after(Duration::from_millis(100)));
    let got = world.send(&OpenAi, ASK, &[BEARER]).await;
    assert_eq!(got.status, 200);
    let row = world.row();
    assert_eq!((row.bills.len(), row.attempts[0].failure), (2, Some("cancelled")));
    let (lost, won) = (&row.bills[0], &row.bills[1]);
    assert!(lost.estimated && lost.usage.output_total.is_none(), "{lost:?}");
    assert!(lost.amount_nano > Some(0), "its prompt was read");
    assert!(!won.estimated && won.amount_nano == Some(COST));
    assert_eq!(row.cost_nano, Some(COST + lost.amount_nano.unwrap()));
    assert_eq!(Some(standing(&world).total_nano), row.cost_nano);
    assert_eq!(row.usage.output_total, Some(2), "the client's answer is counted as it was");
}

/// A gateway that says what it bills, and an endpoint of the operator's that says so too.
fn resold() -> World {
    World::with(
        |entities| {
            price(entities);
            let openrouter = ProviderId::from("openrouter");
            entities.connections.push(connection("or", &openrouter, "resold", 1));
            entities.budgets.push(Budget::unlimited(Some(ApiKeyId::from("k1"))));
        },
        |_| {},
    )
}

const USAGE: &str =
    r#""usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5,"cost":0.0123,"is_byok":false}"#;

#[tokio::test(start_paused = true)]
async fn what_an_upstream_says_that_it_billed_is_the_cost() {
    let whole = || {
        Answer::json(
            200,
            format!(
                r#"{{"id":"x","object":"chat.completion","created":1,"model":"m","choices":[{{"index":0,"message":{{"role":"assistant","content":"hi"}},"finish_reason":"stop"}}],{USAGE}}}"#
            ),
        )
    };
    let stream = || {
        let chunk = |rest: &str| {
            format!(
                "data: {{\"id\":\"x\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",{rest}}}\n\n"
            )
        };
        let text = chunk(r#""choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":null}]"#);
        let stop = chunk(r#""choices":[{"index":0,"delta":{},"finish_reason":"stop"}]"#);
        let last = chunk(&format!(r#""choices":[],{USAGE}"#));
        Answer::new(200, "text/event-stream").send(format!("{text}{stop}{last}data: [DONE]\n\n"))
    };
    let openai = |model: &str, stream: bool| {
        format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"hi"}}],"stream":{stream}}}"#)
    };
    for is_stream in [false, true] {
        for is_same_dialect in [true, false] {
            let world = resold();
            world.transport.answer(if is_stream { stream() } else { whole() });
            let ask = openai("openrouter/some/model", is_stream);
            let got = match is_same_dialect {
                true => world.send(&OpenAi, &ask, &[BEARER]).await,
                false => world.send(&Ollama, &ask, &[BEARER]).await,
            };
            assert_eq!(got.status, 200, "{}", got.body);
            let row = world.row();
            let bill = &row.bills[0];
            let told = (row.cost_nano, bill.price_source, bill.price_version.clone(), row.price_source);
            assert_eq!(told, (Some(12_300_000), Some("upstream"), None, Some("upstream")));
            assert_eq!(standing(&world).total_nano, 12_300_000, "{is_stream} {is_same_dialect}");
        }
        // Of anybody else the number may be in any currency.
        let world = resold();
        world.transport.answer(if is_stream { stream() } else { whole() });
        assert_eq!(world.send(&OpenAi, &openai("up/m", is_stream), &[BEARER]).await.status, 200);
        assert_eq!((world.row().cost_nano, world.row().price_source), (Some(COST), Some("user")));
    }
}
