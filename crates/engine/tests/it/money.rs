//! What requests hold, cost and are refused for; and what clients are told of it.

use std::time::Duration;

use http_body_util::BodyExt as _;
use omniroute_dialect::anthropic::Anthropic;
use omniroute_dialect::openai::OpenAi;
use omniroute_domain::budget::{EventKind, Window};
use omniroute_domain::entity::{ApiKey, ApiKeyId, Budget, ComboConfig, Entities};
use omniroute_domain::price::PriceRow;

use crate::combos::{self, add_best};
use crate::world::{ASK, ASK_STREAM, END, Got, World, answer, chunk, refusal, stream};

const BEARER: (&str, &str) = ("authorization", "Bearer sk-omni-test");
const NODE: &str = "openai-compatible-chat-1";

/// 3 tokens of prompt and 2 of answer at these prices: 3·1000 + 2·2000 = 7000, so 0.007 USD.
const COST: i64 = 7_000_000;

fn price(entities: &mut Entities) {
    let row = PriceRow { input: Some(1_000.0), output: Some(2_000.0), ..PriceRow::default() };
    entities.prices.user.entry(NODE.into()).or_default().insert("m".into(), row);
}

/// A world whose model has a price, and whose key has a budget.
fn world(change: impl FnOnce(&mut Budget)) -> World {
    World::with(
        |entities| {
            price(entities);
            entities.settings.request_retry = 0;
            let mut budget = Budget::unlimited(Some(ApiKeyId::from("k1")));
            change(&mut budget);
            entities.budgets.push(budget);
        },
        |_| {},
    )
}

async fn ask(world: &World) -> Got {
    world.transport.answer(answer("ok"));
    world.send(&OpenAi, &ASK.replace("}]}", "}],\"max_tokens\":2}"), &[BEARER]).await
}

fn spent(world: &World) -> (i64, i64) {
    let live = &world.engine.live;
    let now_ms = world.engine.clock.now_ms();
    let standing = live.spending.standing(&live.load().budgets, Some(&ApiKeyId::from("k1")), now_ms);
    (standing.total_nano, standing.held_nano)
}

#[tokio::test]
async fn whole_answers_tell_what_they_cost() {
    let world = world(|_| {});
    let got = ask(&world).await;
    assert_eq!((got.status, got.header("x-omniroute-response-cost")), (200, "0.007"));
    let row = world.row();
    assert_eq!((row.cost_nano, row.bills.len()), (Some(COST), 1));
    let bill = &row.bills[0];
    assert_eq!((bill.attempt, bill.amount_nano, bill.price_source), (1, Some(COST), Some("user")));
    assert_eq!(bill.price_version, row.price_version);
    assert_eq!(spent(&world), (COST, 0));

    let unpriced = World::new();
    unpriced.transport.answer(answer("ok"));
    let got = unpriced.chat(ASK).await;
    assert_eq!(got.header("x-omniroute-response-cost"), "unknown");
    assert_eq!((unpriced.row().cost_nano, unpriced.row().bills[0].amount_nano), (None, None));
}

#[tokio::test]
async fn what_does_not_fit_is_refused_and_says_until_when() {
    // An estimate of the prompt, and two tokens of answer.
    let world = world(|budget| budget.daily_nano = Some(40_000_000));
    let mut served = 0;
    let refused = loop {
        let got = ask(&world).await;
        if got.status != 200 {
            break got;
        }
        served += 1;
        assert!(served < 20, "nothing was ever refused");
    };
    assert_eq!(refused.status, 429);
    assert!(refused.body.contains(r#""code":"budget_exceeded""#), "{}", refused.body);
    assert!(refused.body.contains("rate_limit_error"), "{}", refused.body);
    let used = format!("daily budget used: ${:.4} of $0.0400", f64::from(served) * 0.007);
    assert!(refused.body.contains(&used), "{used}: {}", refused.body);
    assert_eq!(refused.header("x-omniroute-budget-limit"), "0.04");
    assert_eq!(refused.header("x-omniroute-budget-reset"), "2026-11-24T00:00:00.000Z");
    // The tests begin at midnight.
    assert_eq!(refused.header("retry-after"), "86400");
    assert_eq!(spent(&world), (i64::from(served) * COST, 0), "and nothing stays held");
    assert_eq!(world.transport.sent().len(), served as usize, "nobody was called");
    assert_eq!(world.row().bills, []);
    let kinds: Vec<_> = world.recorded.events.lock().unwrap().iter().map(|event| event.window).collect();
    assert!(kinds.iter().all(|window| *window == Window::Daily), "{kinds:?}");
    let again = world
        .send(
            &Anthropic,
            r#"{"model":"up/m","max_tokens":2000,"messages":[{"role":"user","content":"hi"}]}"#,
            &[BEARER],
        )
        .await;
    assert!(again.status == 429 && again.body.contains("rate_limit_error"), "{}", again.body);
    let exceeded = world.recorded.events.lock().unwrap();
    let exceeded = exceeded.iter().filter(|event| matches!(event.kind, EventKind::Exceeded { .. })).count();
    assert_eq!(exceeded, 1, "told once in a window");
}

#[tokio::test]
async fn a_warning_is_given_once_and_a_soft_limit_refuses_nothing() {
    let world = world(|budget| {
        budget.weekly_nano = Some(14_000_000);
        budget.hard_stop = false;
    });
    let mut warnings = Vec::new();
    for _ in 0..4 {
        let got = ask(&world).await;
        assert_eq!(got.status, 200, "{}", got.body);
        warnings.push(got.header("x-omniroute-budget-warning").to_owned());
    }
    assert_eq!(warnings, ["", "weekly 100%", "", ""]);
}

#[tokio::test]
async fn failures_cost_nothing_and_hold_nothing() {
    for (status, kind) in [(500, "server_error"), (400, "invalid_request_error")] {
        let world = world(|budget| budget.daily_nano = Some(10_000_000_000));
        world.transport.answer(refusal(status, kind, "no"));
        world.transport.answer(refusal(status, kind, "no"));
        let got = world.send(&OpenAi, ASK, &[BEARER]).await;
        assert_ne!(got.status, 200);
        assert_eq!((world.row().bills.len(), world.row().cost_nano), (0, Some(0)));
        assert_eq!(spent(&world), (0, 0));
    }
}

#[tokio::test]
async fn a_stream_is_settled_at_its_end_and_when_it_is_cut() {
    let world = world(|budget| budget.daily_nano = Some(10_000_000_000));
    world.transport.answer(stream().send(chunk("one")).send(END));
    let got = world.send(&OpenAi, ASK_STREAM, &[BEARER]).await;
    assert_eq!((got.status, got.header("x-omniroute-response-cost")), (200, ""));
    assert_eq!(spent(&world), (COST, 0));

    // The client reads one piece and goes away: what was produced is estimated, and billed.
    world.transport.answer(stream().send(chunk("one")).hang());
    let mut response = world.respond(&OpenAi, ASK_STREAM, &[BEARER]).await;
    assert!(spent(&world).1 > 0, "held while it runs");
    response.body_mut().frame().await.unwrap().unwrap();
    drop(response);
    let row = world.row();
    assert_eq!((row.status, row.bills.len()), (499, 1));
    let (total, held) = spent(&world);
    assert_eq!((total, held), (COST + row.cost_nano.unwrap(), 0));
    assert!(row.bills[0].estimated && row.cost_nano > Some(0));
}

#[tokio::test(start_paused = true)]
async fn what_one_provider_hedges_is_held_for_two() {
    let held = |hedging: Option<&'static str>| async move {
        let world = World::with(
            |entities| {
                add_best(entities, |_| {});
                for node in entities.nodes.iter().filter(|node| node.id.as_str() != NODE) {
                    let row = PriceRow { input: Some(1_000.0), output: Some(2_000.0), ..PriceRow::default() };
                    entities.prices.user.entry(node.id.clone()).or_default().insert("m".into(), row);
                }
                if let Some(provider) = hedging {
                    let hedges = ComboConfig { hedging: Some(true), ..ComboConfig::default() };
                    entities.settings.provider_overrides.insert(provider.into(), hedges);
                }
                let budget = Budget::unlimited(Some(ApiKeyId::from("k1")));
                entities.budgets.push(Budget { daily_nano: Some(10_000_000_000_000), ..budget });
            },
            |_| {},
        );
        world.transport.answer(stream().send(chunk("one")).hang());
        let response = world.respond(&OpenAi, combos::ASK_STREAM, &[BEARER]).await;
        let held = spent(&world).1;
        drop(response);
        assert_eq!(spent(&world).1, 0, "given back");
        held
    };
    let plain = held(None).await;
    assert!(plain > 0, "held while it runs");
    assert_eq!(held(Some("openai-compatible-chat-b")).await, 2 * plain);
    assert_eq!(held(Some(NODE)).await, plain, "a provider that the combo does not lead to");
}

#[tokio::test]
async fn models_without_a_price_may_be_refused() {
    let world = world(|budget| budget.block_unpriced = true);
    let got = world.send(&OpenAi, &ASK.replace("up/m", "up/unpriced"), &[BEARER]).await;
    assert_eq!(got.status, 403);
    assert!(got.body.contains("unpriced_model"), "{}", got.body);
    assert_eq!(ask(&world).await.status, 200);
}

#[tokio::test]
async fn many_at_once_never_spend_more_than_there_is() {
    // Each may have 1024 tokens of answer, which is a little more than two dollars.
    const LIMIT: i64 = 8_000_000_000;
    let world = world(|budget| budget.daily_nano = Some(LIMIT));
    for _ in 0..64 {
        world.transport.answer(answer("ok").after(Duration::from_secs(1)));
    }
    let asks = (0..64).map(|_| world.send(&OpenAi, ASK, &[BEARER]));
    let got = futures_util::future::join_all(asks).await;
    let served = got.iter().filter(|got| got.status == 200).count();
    assert!(got.iter().all(|got| got.status == 200 || got.body.contains("budget_exceeded")));
    let (total, held) = spent(&world);
    assert_eq!((total, held), (i64::try_from(served).unwrap() * COST, 0));
    assert_eq!(served, 3, "what three may cost is held, and what a fourth may is not there");
    assert!(total <= LIMIT);
    world.transport.answer(answer("ok"));
    assert_eq!(world.send(&OpenAi, ASK, &[BEARER]).await.status, 200, "what was held is given back");
}

#[tokio::test]
async fn what_is_left_of_a_keys_limits_is_told() {
    let limited = |change: fn(&mut ApiKey)| World::with(|entities| change(&mut entities.api_keys[0]), |_| {});
    let world = limited(|key| {
        key.max_requests_per_minute = Some(3);
        key.max_requests_per_day = Some(2);
        key.max_tokens_per_minute = Some(1_000);
    });
    world.transport.answer(answer("ok"));
    let got = world.send(&OpenAi, ASK, &[BEARER]).await;
    assert_eq!(got.header("x-ratelimit-limit-requests"), "2");
    assert_eq!(got.header("x-ratelimit-remaining-requests"), "1");
    assert_eq!(got.header("x-ratelimit-reset-requests"), "24h0m0s");
    assert_eq!(got.header("x-ratelimit-limit-tokens"), "1000");
    let left: u64 = got.header("x-ratelimit-remaining-tokens").parse().unwrap();
    assert!((900..1_000).contains(&left), "{left}");
    assert_eq!(got.header("anthropic-ratelimit-requests-limit"), "");

    // A request that cannot be read does not count, and is told too; so is a refused one.
    let bad = world.send(&OpenAi, "{", &[BEARER]).await;
    assert_eq!((bad.status, bad.header("x-ratelimit-remaining-requests")), (400, "1"));
    let claude = r#"{"model":"up/m","max_tokens":5,"messages":[{"role":"user","content":"hi"}]}"#;
    world.transport.answer(answer("ok"));
    let got = world.send(&Anthropic, claude, &[BEARER]).await;
    assert_eq!(got.status, 200, "{}", got.body);
    assert_eq!(got.header("anthropic-ratelimit-requests-limit"), "2");
    assert_eq!(got.header("anthropic-ratelimit-requests-remaining"), "0");
    let reset = got.header("anthropic-ratelimit-requests-reset");
    assert!(reset.starts_with("2026-11-24T00:00:00"), "{reset}");
    assert_eq!(got.header("anthropic-ratelimit-tokens-limit"), "1000");
    let refused = world.send(&OpenAi, ASK, &[BEARER]).await;
    assert_eq!((refused.status, refused.header("x-ratelimit-remaining-requests")), (429, "0"));
    let unlimited = World::new();
    unlimited.transport.answer(answer("ok"));
    assert_eq!(unlimited.send(&OpenAi, ASK, &[BEARER]).await.header("x-ratelimit-limit-requests"), "");
}
