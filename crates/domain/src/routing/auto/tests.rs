use proptest::prelude::{Strategy as _, any, prop_assert, prop_assert_eq, proptest};

use super::*;
use crate::entity::{ComboConfig, ModePack};

/// A candidate, and what `auto` looks at of it.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Known {
    candidate: Candidate,
    signals: Signals,
}

fn decided(known: &[Known], turn: u64, random: u64, tuning: &Tuning) -> Decision {
    let candidates: Vec<Candidate> = known.iter().map(|known| known.candidate).collect();
    let signals: Vec<Signals> = known.iter().map(|known| known.signals).collect();
    let (candidates, signals) = (&*candidates, &*signals);
    let choice = Choice { candidates, signals, turn, sticky: 1, random, seed: 1, leader: None };
    decide(&choice, tuning, Difficulty::default())
}

/// No chance, so that the order is that of the scores.
fn sober() -> Tuning {
    Tuning { exploration: 0.0, ..Tuning::default() }
}

fn first(known: &[Known], tuning: &Tuning) -> usize {
    usize::from(decided(known, 0, 0, tuning).order[0])
}

fn candidate(change: impl FnOnce(&mut Known)) -> Known {
    let candidate = Candidate { success_rate: 0.5, ..Candidate::default() };
    let mut known = Known { candidate, signals: Signals::default() };
    change(&mut known);
    known
}

/// Any floating point number, those that are none among them.
fn wild() -> impl proptest::strategy::Strategy<Value = f64> {
    any::<f64>()
}

fn signals() -> impl proptest::strategy::Strategy<Value = Signals> {
    (
        proptest::option::of(wild()),
        wild(),
        proptest::option::of(wild()),
        proptest::option::of(wild()),
        proptest::option::of(wild()),
        wild(),
        proptest::option::of(any::<i64>()),
        any::<u16>(),
        any::<bool>(),
    )
        .prop_map(
            |(quota, health, price, p95_ms, deviation_ms, fitness, reset_ms, accounts, is_excluded)| {
                Signals {
                    quota,
                    health,
                    price,
                    p95_ms,
                    deviation_ms,
                    fitness,
                    reset_ms,
                    accounts,
                    is_excluded,
                    room: quota,
                    cache: fitness,
                    ..Signals::default()
                }
            },
        )
}

proptest! {
    #[test]
    fn whatever_is_found_out_all_are_in_the_order_and_all_factors_within_bounds(
        signals in proptest::collection::vec(signals(), 0..30),
        turn: u64,
        random: u64,
        router in proptest::sample::select(vec![
            RouterStrategy::Rules, RouterStrategy::Cost, RouterStrategy::Latency, RouterStrategy::Lkgp, RouterStrategy::Sla,
        ]),
    ) {
        let candidates: Vec<_> =
            signals.into_iter().map(|signals| candidate(|it| it.signals = signals)).collect();
        let tuning = Tuning { router, sla_p95_ms: Some(1_000), ..Tuning::default() };
        let decision = decided(&candidates, turn, random, &tuning);
        let mut order = decision.order.to_vec();
        order.sort_unstable();
        prop_assert_eq!(order, (0..u16::try_from(candidates.len()).unwrap()).collect::<Vec<_>>());
        for score in &decision.scores {
            prop_assert!((0.0..=1.0 + 1e-9).contains(&score.total), "{score:?}");
            for (factor, value) in score.factors() {
                prop_assert!((0.0..=1.0).contains(&value), "{factor:?} is {value}");
            }
        }
        let last = decision.order.last().map(|place| candidates[usize::from(*place)].signals.is_excluded);
        let excluded = candidates.iter().filter(|candidate| candidate.signals.is_excluded).count();
        prop_assert!(excluded == 0 || last == Some(true), "the excluded come last");
    }

    #[test]
    fn the_place_in_the_list_is_no_merit(seed in 0_u64..1_000, count in 2_usize..12) {
        // Distinct prices and latencies: the same candidates in another order give the same winner.
        let candidates: Vec<_> = (0..count)
            .map(|place| candidate(|it| {
                it.signals.price = Some(1.0 + place as f64);
                it.signals.p95_ms = Some(100.0 * (1 + (place * 7) % count) as f64);
            }))
            .collect();
        let best = candidates[first(&candidates, &sober())];
        let mut turned = candidates;
        turned.rotate_left(usize::try_from(seed).unwrap() % count);
        prop_assert_eq!(turned[first(&turned, &sober())], best);
    }
}

/// The example of the documentation, worked by hand.
#[test]
fn a_score_is_the_weighted_sum_of_its_factors() {
    let swift = candidate(|it| {
        it.signals = Signals {
            price: Some(2.0),
            p95_ms: Some(1_000.0),
            deviation_ms: Some(100.0),
            fitness: 0.9,
            tier: Tier::Standard,
            accounts: 3,
            ..Signals::default()
        };
    });
    let frugal = candidate(|it| {
        it.candidate.load = 0.5;
        it.signals = Signals {
            price: Some(0.5),
            p95_ms: Some(2_000.0),
            deviation_ms: Some(400.0),
            fitness: 0.6,
            tier: Tier::Economy,
            account: AccountTier::Free,
            ..Signals::default()
        };
    });
    let candidates = [swift, frugal];
    let decision = decided(&candidates, 0, 0, &sober());
    // quota, health, costInv, latencyInv, taskFit, stability, tierPriority, tierAffinity, specificityMatch, contextAffinity,
    // connectionDensity; the other two weigh nothing. The weights are together 1.
    let by_hand = |factors: [f64; 11]| {
        let weights = [0.15, 0.20, 0.15, 0.12, 0.08, 0.05, 0.05, 0.05, 0.05, 0.05, 0.05];
        factors.iter().zip(weights).map(|(factor, weight)| factor * weight).sum::<f64>()
    };
    let swift = by_hand([1.0, 1.0, 0.0, 0.5, 0.9, 0.75, 0.8 * 0.33, 1.0, 1.0, 0.5, 0.2]);
    let frugal = by_hand([0.75, 1.0, 0.75, 0.0, 0.6, 0.0, 0.0, 0.7, 1.0 - 0.35, 0.5, 0.0]);
    assert!((decision.scores[0].total - swift).abs() < 1e-9, "{} {swift}", decision.scores[0].total);
    assert!((decision.scores[1].total - frugal).abs() < 1e-9, "{} {frugal}", decision.scores[1].total);
    assert_eq!(decision.order.as_slice(), [0, 1]);
    let config = ComboConfig { mode_pack: Some(ModePack::CostSaver), ..ComboConfig::default() };
    assert_eq!(
        first(&candidates, &Tuning { exploration: 0.0, ..Tuning::of(&config) }),
        1,
        "the cheap one leads"
    );
}

#[test]
fn equal_ones_take_turns_and_no_one_starves() {
    let candidates = [candidate(|_| {}); 3];
    let mut seen = [0; 3];
    for turn in 0..9 {
        let decision = decided(&candidates, turn, turn, &sober());
        seen[usize::from(decision.order[0])] += 1;
    }
    assert_eq!(seen, [3, 3, 3]);
    let mut better = candidates;
    better[1].signals.fitness = 0.6;
    assert!((0..9).all(|turn| { decided(&better, turn, turn, &sober()).order[0] == 1 }));
}

#[test]
fn some_requests_explore_and_none_during_an_incident() {
    let mut candidates = [candidate(|_| {}); 4];
    candidates[0].signals.fitness = 1.0;
    let tuning = Tuning { exploration: 0.2, ..Tuning::default() };
    let draws =
        |count: u64| (0..count).map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17));
    let mut seen = [0_i32; 4];
    for random in draws(10_000) {
        seen[usize::from(decided(&candidates, 0, random, &tuning).order[0])] += 1;
    }
    // A fifth explores, and a quarter of that meets the best: four standard deviations are 143.
    assert!((seen[0] - 8_500).abs() < 143, "{seen:?}");
    for count in &seen[1..] {
        assert!((count - 500).abs() < 90, "{seen:?}");
    }
    for candidate in &mut candidates[..3] {
        candidate.signals.is_excluded = true;
    }
    for random in draws(500) {
        let decision = decided(&candidates, 0, random, &tuning);
        assert!(decision.is_incident && !decision.is_exploring);
        assert_eq!(decision.order[0], 3, "the one that is left");
    }
}

#[test]
fn routers_choose_by_what_they_are_named_after() {
    let mut candidates = [candidate(|_| {}); 3];
    candidates[0].candidate.cost_nano = Some(3_000);
    candidates[0].signals.p95_ms = Some(100.0);
    candidates[1].candidate.cost_nano = Some(1_000);
    candidates[1].signals.p95_ms = Some(5_000.0);
    candidates[2].candidate.is_last_good = true;
    let with = |router| Tuning { router, sla_p95_ms: Some(1_000), ..sober() };
    let order = |router| decided(&candidates, 0, 0, &with(router)).order.to_vec();
    assert_eq!(order(RouterStrategy::Cost), [1, 0, 2], "without a price last");
    assert_eq!(first(&candidates, &with(RouterStrategy::Latency)), 0);
    assert_eq!(first(&candidates, &with(RouterStrategy::Lkgp)), 2);
    assert_eq!(order(RouterStrategy::Sla), [0, 2, 1], "the slow one last though it is cheapest");
    let mut flaky = candidates;
    flaky[0].candidate.success_rate = 0.0;
    flaky[1].signals.p95_ms = Some(110.0);
    flaky[1].candidate.success_rate = 1.0;
    flaky[2].signals.p95_ms = Some(1_000.0);
    assert_eq!(first(&flaky, &with(RouterStrategy::Latency)), 1, "reliability counts too");
}

#[test]
fn who_cannot_serve_comes_after_who_can() {
    let mut candidates = [candidate(|_| {}); 3];
    candidates[0].candidate.is_blocked = true;
    candidates[0].signals.fitness = 1.0;
    candidates[1].signals.is_excluded = true;
    candidates[1].signals.fitness = 1.0;
    let order = decided(&candidates, 0, 0, &sober()).order;
    assert_eq!(order.as_slice(), [2, 0, 1]);
}
