//! Failed calls that are paid for, where the budget is nearly used up: money is held again when there is another call to make.

use std::time::Duration;

use omniroute_dialect::openai::OpenAi;
use omniroute_domain::entity::{ChainLink, Combo, Entities, FallbackChain};
use omniroute_testkit::Answer;

use crate::combos::add_best;
use crate::spending::{ASK, BEARER, held_by_one, standing, world_of};
use crate::world::{answer, connection, refusal};

/// By so much an answer without anything in it costs less than is held for one: two tokens.
const UNSAID: i64 = 4_000_000;

/// What a request for a model comes to where the budget has room for so many `calls` at once, and for so many `empty` answers beside
/// them: the status, the number of calls, and the body.
async fn asked(
    model: &str,
    (calls, empty): (i64, i64),
    answers: Vec<Answer>,
    change: impl FnOnce(&mut Entities),
) -> (u16, usize, String) {
    let one = held_by_one().await;
    let limit = calls * one + empty * (one - UNSAID);
    let world = world_of(limit, change);
    for answer in answers {
        world.transport.answer(answer);
    }
    let got = world.send(&OpenAi, &ASK.replace("best", model), &[BEARER]).await;
    let standing = standing(&world);
    assert!(standing.total_nano <= limit && standing.held_nano == 0, "{standing:?} of {limit}");
    let is_refused = got.body.contains("budget_exceeded");
    assert_eq!(got.header("x-omniroute-budget-limit").is_empty(), !is_refused, "{}", got.body);
    let (sent, row) = (world.transport.sent().len(), world.row());
    assert_eq!((row.attempts.len(), row.status), (sent, got.status));
    if is_refused {
        assert_eq!(got.body.matches(r#""reason":"#).count(), sent, "what was tried: {}", got.body);
    }
    (got.status, sent, got.body)
}

fn empty(count: usize) -> Vec<Answer> {
    let nothing = r#"{"id":"x","object":"chat.completion","choices":[]}"#;
    (0..count).map(|_| Answer::json(200, nothing)).collect()
}

fn told(what: &str, got: &(u16, usize, String), status: u16, calls: usize, code: &str) {
    let (had, sent, body) = got;
    assert_eq!((*had, *sent), (status, calls), "{what}: {body}");
    assert!(body.contains(&format!(r#""code":"{code}""#)), "{what}: {body}");
}

fn best(change: impl FnOnce(&mut Combo)) -> impl FnOnce(&mut Entities) {
    |entities| add_best(entities, change)
}

fn alone(entities: &mut Entities) {
    entities.connections.retain(|account| account.name != "second");
}

#[tokio::test(start_paused = true)]
async fn the_last_failure_tells_its_own_error() {
    let got = asked("up/m", (1, 0), empty(1), alone).await;
    told("one account", &got, 502, 1, "empty_response");
    let got = asked("up/m", (1, 1), empty(2), |_| {}).await;
    told("two accounts", &got, 502, 2, "empty_response");
    let got = asked("best", (1, 2), empty(3), best(|_| {})).await;
    told("three targets", &got, 502, 3, "empty_response");
    let got = asked("best", (2, 0), empty(2), best(|best| race(best, 2))).await;
    told("two at once", &got, 502, 2, "empty_response");
}

#[tokio::test(start_paused = true)]
async fn where_another_is_there_the_budget_is_why_it_is_not_asked() {
    let got = asked("up/m", (1, 0), empty(1), |_| {}).await;
    told("two accounts", &got, 429, 1, "budget_exceeded");
    for asked_in_vain in 1..3 {
        let room = (1, i64::try_from(asked_in_vain).unwrap() - 1);
        let got = asked("best", room, empty(asked_in_vain), best(|_| {})).await;
        told("three targets", &got, 429, asked_in_vain, "budget_exceeded");
    }
    let again = |best: &mut Combo| {
        race(best, 2);
        best.config.max_set_retries = Some(1);
        // Their accounts have cooled down by then.
        best.config.set_retry_delay_ms = Some(10_000);
    };
    // Neither of the two that are asked again is so while the other's first answer is not held for.
    for owed in 0..2 {
        let got = asked("best", (2, owed), empty(2), best(again)).await;
        told("two at once", &got, 429, 2, "budget_exceeded");
    }
    let got = asked("best", (2, 2), [empty(3), vec![answer("yes")]].concat(), best(again)).await;
    assert_eq!((got.0, got.1), (200, 4), "{}", got.2);
}

#[tokio::test(start_paused = true)]
async fn the_budget_is_why_whatever_an_upstream_says_beside_it() {
    // Nothing is held for the second account of `a`, whose first answer had nothing in it; `b` answers later.
    let another_of_a = |entities: &mut Entities| {
        add_best(entities, |best| race(best, 2));
        let first = entities.connections.iter().find(|account| account.id.as_str() == "of-a").unwrap();
        let another = connection("of-a-2", &first.provider.clone(), "another", 2);
        entities.connections.push(another);
    };
    for status in [429, 500] {
        let late = refusal(status, "its_own_words", "not now").after(Duration::from_secs(1));
        let answers = [empty(1), vec![late]].concat();
        let got = asked("best", (2, 0), answers, another_of_a).await;
        told("two at once", &got, 429, 2, "budget_exceeded");
        assert!(got.2.contains("daily budget used"), "{}", got.2);
    }
}

#[tokio::test(start_paused = true)]
async fn so_it_is_with_who_stands_in() {
    let chain = |entities: &mut Entities| {
        add_best(entities, |_| {});
        alone(entities);
        let links =
            ["a", "b"].map(|provider| ChainLink { provider: provider.into(), priority: 1, enabled: true });
        entities.fallback_chains.push(FallbackChain { model: "m".into(), links: links.into() });
    };
    for asked_in_vain in 1..3 {
        let room = (1, i64::try_from(asked_in_vain).unwrap() - 1);
        let got = asked("up/m", room, empty(asked_in_vain), chain).await;
        told("a chain", &got, 429, asked_in_vain, "budget_exceeded");
    }
    let got = asked("up/m", (1, 2), empty(3), chain).await;
    told("a chain", &got, 502, 3, "empty_response");
}

#[tokio::test(start_paused = true)]
async fn the_judge_of_a_fusion_is_paid_from_the_beginning() {
    let answers = [empty(1), vec![answer("one"), answer("two"), answer("the reply")]].concat();
    let fusion = |best: &mut Combo| {
        best.strategy = "fusion".into();
        best.config.judge_model = Some("up/m".into());
    };
    let got = asked("best", (4, 0), answers, best(fusion)).await;
    assert_eq!((got.0, got.1), (200, 4), "{}", got.2);
    assert!(got.2.contains("the reply"), "{}", got.2);
}

/// As many as that are asked at once, and no more.
fn race(best: &mut Combo, width: usize) {
    best.strategy = "race".into();
    best.steps.truncate(width);
}
