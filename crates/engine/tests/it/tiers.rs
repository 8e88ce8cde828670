//! What answers cost that were served in another tier than the usual one, what is held for requests that want it, and what
//! calls cost that came to no answer in it.

use std::time::Duration;

use omniroute_dialect::Dialect;
use omniroute_dialect::anthropic::Anthropic;
use omniroute_dialect::ir::Tier;
use omniroute_dialect::openai::OpenAi;
use omniroute_dialect::responses::Responses;
use omniroute_domain::entity::{ApiKeyId, Budget, Entities};
use omniroute_domain::price::PriceRow;
use omniroute_testkit::Answer;

use crate::combos::add_best;
use crate::world::{ASK, ASK_STREAM, END, World, chunk, stream};

const BEARER: (&str, &str) = ("authorization", "Bearer sk-omni-test");
const NODE: &str = "openai-compatible-chat-1";

/// 3 tokens of prompt and 2 of answer come to 0.007 USD, to half of that in the slower tier.
fn world(change: impl FnOnce(&mut PriceRow, &mut Budget)) -> World {
    let entities = |entities: &mut Entities| {
        let mut row =
            PriceRow { input: Some(1_000.0), output: Some(2_000.0), flex: Some(0.5), ..PriceRow::default() };
        let mut budget = Budget::unlimited(Some(ApiKeyId::from("k1")));
        change(&mut row, &mut budget);
        entities.prices.user.entry(NODE.into()).or_default().insert("m".into(), row);
        entities.budgets.push(budget);
        entities.settings.request_retry = 0;
    };
    World::with(entities, |_| {})
}

fn answer(tier: &str) -> Answer {
    let body = r#"{"id":"x","object":"chat.completion","created":1,"model":"m","service_tier":"TIER","choices":[{"index":0,"message":{"role":"assistant","content":"ok"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}"#;
    Answer::json(200, body.replace("TIER", tier))
}

fn asking(tier: &str) -> String {
    ASK.replace("}]}", &format!("}}],\"max_tokens\":2,\"service_tier\":\"{tier}\"}}"))
}

#[tokio::test]
async fn the_tier_that_the_answer_tells_counts() {
    let world = world(|_, _| {});
    for (asked, told, cost, tier) in [
        ("flex", "flex", "0.0035", Tier::Flex),
        ("flex", "default", "0.007", Tier::Standard),
        ("auto", "priority", "unknown", Tier::Priority),
        ("default", "unheard-of", "unknown", Tier::Other),
        // Bedrock's, which is paid in advance; where it is full the answer says `default`.
        ("reserved", "reserved", "unknown", Tier::Other),
        ("reserved", "default", "0.007", Tier::Standard),
    ] {
        world.transport.answer(answer(told));
        let got = world.send(&OpenAi, &asking(asked), &[BEARER]).await;
        assert_eq!((got.status, got.header("x-omniroute-response-cost")), (200, cost), "{asked} {told}");
        let row = world.row();
        assert_eq!((row.usage.tier, row.bills[0].usage.tier), (Some(tier), Some(tier)), "{asked} {told}");
    }
}

#[tokio::test]
async fn streams_and_other_dialects_tell_it_too() {
    let world = world(|_, _| {});
    let tiered = |text: &str| text.replace("\"model\":\"m\"", "\"model\":\"m\",\"service_tier\":\"flex\"");
    let half = Some(3_500_000);
    world.transport.answer(stream().send(tiered(&chunk("o"))).send(chunk("k")).send(END));
    world.chat(ASK_STREAM).await;
    assert_eq!((world.row().usage.tier, world.row().cost_nano), (Some(Tier::Flex), half));

    let body = r#"{"model":"up/m","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}"#;
    world.transport.answer(answer("flex"));
    world.send(&Anthropic, body, &[]).await;
    assert_eq!((world.row().usage.tier, world.row().cost_nano), (Some(Tier::Flex), half));
    let body = body.replace("}]}", "}],\"stream\":true}");
    world.transport.answer(stream().send(tiered(&chunk("ok"))).send(END));
    world.send(&Anthropic, &body, &[]).await;
    assert_eq!((world.row().usage.tier, world.row().cost_nano), (Some(Tier::Flex), half));
    world.transport.answer(answer("flex"));
    world.send(&Responses, r#"{"model":"up/m","input":"hi","service_tier":"flex"}"#, &[]).await;
    assert_eq!((world.row().usage.tier, world.row().cost_nano), (Some(Tier::Flex), half));
}

#[tokio::test]
async fn the_dearer_tier_is_held_for() {
    let held = async |tier: &str| {
        let world = world(|row, budget| {
            row.priority = Some(4.0);
            budget.total_nano = Some(100_000_000_000);
        });
        world.transport.answer(stream().send(chunk("one")).hang());
        let body = asking(tier).replace("}]", "}],\"stream\":true");
        let response = world.respond(&OpenAi, &body, &[BEARER]).await;
        let live = &world.engine.live;
        let now_ms = world.engine.clock.now_ms();
        let standing = live.spending.standing(&live.load().budgets, Some(&ApiKeyId::from("k1")), now_ms);
        drop(response);
        standing.held_nano
    };
    let usual = held("default").await;
    assert!(usual > 0);
    // A field less or a letter more changes the estimate of the prompt.
    let share = held("priority").await as f64 / usual as f64;
    assert!((3.5..4.5).contains(&share), "{share}");
    let share = held("flex").await as f64 / usual as f64;
    assert!((0.8..1.2).contains(&share), "{share}");
}

#[tokio::test]
async fn a_tier_without_a_price_is_refused_where_that_is_wanted() {
    let world = world(|_, budget| budget.block_unpriced = true);
    let got = world.send(&OpenAi, &asking("priority"), &[BEARER]).await;
    assert_eq!(got.status, 403);
    assert!(got.body.contains("unpriced_model") && got.body.contains("`priority`"), "{}", got.body);
    world.transport.answer(answer("flex"));
    assert_eq!(world.send(&OpenAi, &asking("flex"), &[BEARER]).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_prompt_by_estimate_is_one_of_the_tier_that_was_asked_for() {
    let role = |tier: &str| {
        let role = chunk("").replace(r#""content":"""#, r#""role":"assistant""#);
        role.replace(r#""model":"m""#, &format!(r#""model":"m","service_tier":"{tier}""#))
    };
    for (asked, said, factor, tier) in [
        ("flex", stream().hang(), Some(0.5), Some(Tier::Flex)),
        ("priority", stream().hang(), None, Some(Tier::Priority)),
        ("default", stream().hang(), Some(1.0), None),
        ("flex", stream().send(role("default")).hang(), Some(1.0), Some(Tier::Standard)),
        ("flex", stream().send(role("auto")).hang(), Some(0.5), Some(Tier::Flex)),
        ("default", stream().send(role("flex")).hang(), Some(0.5), Some(Tier::Flex)),
    ] {
        let world = world(|_, _| {});
        let body = asking(asked).replace("}]", "}],\"stream\":true");
        let prompt = (body.len() / 4) as f64 * 1e6;
        world.transport.answer(said);
        let asks = world.send(&OpenAi, &body, &[BEARER]);
        assert!(tokio::time::timeout(Duration::from_secs(1), asks).await.is_err(), "the client left first");
        let row = world.row();
        let cost = factor.map(|factor| (prompt * factor) as i64);
        assert_eq!((row.cost_nano, row.bills[0].amount_nano), (cost, cost), "{asked}");
        assert_eq!((row.bills[0].usage.tier, row.usage.tier), (tier, tier), "{asked}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_tier_that_was_not_sent_is_not_billed() {
    // Another dialect has no word for it, or the model takes none: it is learned from its refusal.
    let fast = r#"{"model":"up/m","max_tokens":9,"stream":true,"speed":"fast","messages":[{"role":"user","content":"hi"}]}"#;
    let flex = asking("flex").replace("}]", "}],\"stream\":true");
    let refused = Answer::json(
        400,
        r#"{"error":{"message":"Unsupported parameter: 'service_tier' is not supported with this model.","type":"invalid_request_error","param":"service_tier","code":"unsupported_parameter"}}"#,
    );
    let cases: [(&'static dyn Dialect, &str, Option<Answer>); 2] =
        [(&Anthropic, fast, None), (&OpenAi, &flex, Some(refused))];
    for (dialect, body, refused) in cases {
        for is_heard in [false, true] {
            let world = world(|_, _| {});
            let said = if is_heard { stream().send(chunk("one")).abort() } else { stream().hang() };
            let answers: Vec<_> = refused.clone().into_iter().chain([said]).collect();
            let calls = answers.len();
            for answer in answers {
                world.transport.answer(answer);
            }
            let asks = world.send(dialect, body, &[BEARER]);
            let left = tokio::time::timeout(Duration::from_secs(1), asks).await;
            assert_eq!(left.is_ok(), is_heard, "who hears nothing leaves");
            let sent = world.transport.sent();
            assert_eq!(sent.len(), calls);
            let last = String::from_utf8_lossy(&sent[calls - 1].body).into_owned();
            assert!(!last.contains("flex") && !last.contains("fast"), "{last}");
            let row = world.row();
            let cost = (body.len() as i64 / 4 + if is_heard { 2 } else { 0 }) * 1_000_000;
            assert_eq!((row.usage.tier, row.cost_nano), (None, Some(cost)), "{body} {is_heard}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn so_it_is_with_the_one_of_several_at_once_that_answered() {
    let entities = |entities: &mut Entities| {
        add_best(entities, |best| best.strategy = "race".into());
        let row =
            PriceRow { input: Some(1_000.0), output: Some(2_000.0), flex: Some(0.5), ..PriceRow::default() };
        for node in &entities.nodes {
            entities.prices.user.entry(node.id.clone()).or_default().insert("m".into(), row.clone());
        }
    };
    let world = World::with(entities, |_| {});
    let body = asking("flex").replace("}]", "}],\"stream\":true").replace("up/m", "best");
    let said =
        stream().pause(Duration::from_millis(100)).send(chunk("one")).pause(Duration::from_secs(2)).abort();
    world.transport.answer(said).answer(stream().pause(Duration::from_secs(1)).send(chunk("late")));
    world.send(&OpenAi, &body, &[BEARER]).await;
    let row = world.row();
    let tiers: Vec<_> = row.bills.iter().map(|bill| bill.usage.tier).collect();
    assert_eq!(tiers, [Some(Tier::Flex), Some(Tier::Flex)], "the loser's, and the winner's");
}

#[tokio::test(start_paused = true)]
async fn the_log_has_the_tier_of_the_one_that_answered() {
    let world = world(|_, _| {});
    world.transport.answer(answer("flex").after(Duration::from_secs(9_000))).answer(answer("default"));
    world.send(&OpenAi, &asking("flex"), &[BEARER]).await;
    let row = world.row();
    let tiers: Vec<_> = row.bills.iter().map(|bill| bill.usage.tier).collect();
    assert_eq!(tiers, [Some(Tier::Flex), Some(Tier::Standard)]);
    assert_eq!(row.usage.tier, Some(Tier::Standard));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_is_one_of_the_tier_that_was_asked_for() {
    for (told, tier) in [("", Tier::Flex), (r#","service_tier":"default""#, Tier::Standard)] {
        let world = world(|_, _| {});
        let body = asking("flex").replace("}]", "}],\"stream\":true");
        let said = chunk("one").replace(r#""model":"m""#, &format!(r#""model":"m"{told}"#));
        world.transport.answer(stream().send(said).abort());
        world.send(&OpenAi, &body, &[BEARER]).await;
        let row = world.row();
        let usual = (body.len() as i64 / 4 + 2) * 1_000_000;
        let cost = if tier == Tier::Flex { usual / 2 } else { usual };
        assert_eq!((row.usage.tier, row.cost_nano), (Some(tier), Some(cost)), "{told}");
    }
}
