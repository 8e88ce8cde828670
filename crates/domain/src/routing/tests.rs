use proptest::prelude::{Strategy as _, any, prop_assert_eq, prop_assert_ne, proptest};

use super::*;

fn candidate() -> impl proptest::strategy::Strategy<Value = Candidate> {
    (
        0_u32..200,
        0_u64..1_000,
        0.0..=1.0_f64,
        proptest::option::of(0.0..90_000.0_f64),
        any::<bool>(),
        proptest::option::of(0_i64..1_000_000_000),
        proptest::option::of(1_000_u64..2_000_000),
        any::<bool>(),
    )
        .prop_map(
            |(
                weight,
                uses,
                success_rate,
                latency_ms,
                is_blocked,
                cost_nano,
                context_window,
                is_last_good,
            )| {
                let load = success_rate;
                Candidate {
                    weight,
                    uses,
                    success_rate,
                    latency_ms,
                    load,
                    is_blocked,
                    cost_nano,
                    context_window,
                    is_last_good,
                    quota: latency_ms.map(|latency| Quota::told(success_rate, latency as i64)),
                    affinity: success_rate,
                    ..Candidate::default()
                }
            },
        )
}

fn signals_of(candidate: &Candidate) -> Signals {
    Signals {
        p95_ms: candidate.latency_ms.map(|latency| latency * 2.0),
        price: candidate.cost_nano.map(|cost| cost as f64 / 1e7),
        is_excluded: candidate.uses.is_multiple_of(7),
        ..Signals::default()
    }
}

fn choice(candidates: &[Candidate], turn: u64, random: u64) -> Choice<'_> {
    Choice { candidates, signals: &[], turn, sticky: 1, random, seed: 42, leader: None }
}

fn first(name: &str, choice: &Choice<'_>) -> usize {
    usize::from(by_name(name).unwrap().order(choice)[0])
}

/// Random numbers as a caller would draw them.
fn draws(count: u64) -> impl Iterator<Item = u64> {
    (0..count).map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17))
}

proptest! {
    #[test]
    fn every_strategy_yields_a_permutation(
        candidates in proptest::collection::vec(candidate(), 0..40),
        turn: u64,
        sticky in 0_u32..5,
        random: u64,
        seed: u64,
    ) {
        let signals: Vec<Signals> = candidates.iter().map(signals_of).collect();
        let (candidates, signals) = (&*candidates, &*signals);
        let choice = Choice { candidates, signals, turn, sticky, random, seed, leader: None };
        for strategy in STRATEGIES {
            let mut order = strategy.order(&choice).to_vec();
            prop_assert_eq!(&order, &strategy.order(&choice).to_vec(), "{} is not deterministic", strategy.name());
            order.sort_unstable();
            let all: Vec<u16> = (0..u16::try_from(candidates.len()).unwrap()).collect();
            prop_assert_eq!(order, all, "{}", strategy.name());
        }
    }

    #[test]
    fn sorting_strategies_put_the_best_first(candidates in proptest::collection::vec(candidate(), 1..20)) {
        let choice = choice(&candidates, 0, 0);
        let best = |name: &str| candidates[first(name, &choice)];
        let least = candidates.iter().map(|candidate| candidate.uses).min().unwrap();
        prop_assert_eq!(best("least-used").uses, least);
        let cheapest = candidates.iter().filter_map(|candidate| candidate.cost_nano).min();
        prop_assert_eq!(best("cost-optimized").cost_nano, cheapest);
        let largest = candidates.iter().filter_map(|candidate| candidate.context_window).max();
        prop_assert_eq!(best("context-optimized").context_window, largest);
        let share = |candidate: &Candidate| candidate.quota.map_or(1.0, |quota| quota.left);
        let most = candidates.iter().map(share).fold(0.0, f64::max);
        prop_assert_eq!(share(&best("headroom")), most);
        let nearest = candidates.iter().map(|candidate| candidate.affinity).fold(0.0, f64::max);
        prop_assert_eq!(best("cache-optimized").affinity, nearest);
        // Whoever has little left leads only where nobody has more, or says nothing.
        let is_guarded = |candidate: &Candidate| candidate.quota.is_some_and(|quota| quota.left < 0.1);
        prop_assert_eq!(is_guarded(&best("reset-aware")), candidates.iter().all(is_guarded));
        let has_last_good = candidates.iter().any(|candidate| candidate.is_last_good);
        prop_assert_eq!(best("lkgp").is_last_good, has_last_good);
    }

    #[test]
    fn a_deck_deals_each_once_and_never_one_twice_in_a_row(count in 2_usize..12, seed: u64, deck in 0_u64..1_000) {
        let candidates = vec![Candidate::default(); count];
        let deal = |turn: u64| {
            let choice = Choice { seed, ..choice(&candidates, turn, 0) };
            first("strict-random", &choice)
        };
        let start = deck * count as u64;
        let mut dealt: Vec<_> = (start..start + count as u64).map(deal).collect();
        let next = deal(start + count as u64);
        prop_assert_ne!(*dealt.last().unwrap(), next);
        dealt.sort_unstable();
        prop_assert_eq!(dealt, (0..count).collect::<Vec<_>>());
    }
}

#[test]
fn names_and_aliases_belong_to_one_strategy_each() {
    let mut names: Vec<_> = STRATEGIES
        .iter()
        .flat_map(|strategy| std::iter::once(strategy.name()).chain(strategy.aliases().iter().copied()))
        .collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
    assert_eq!(by_name("fallback").unwrap().name(), "priority");
    assert!(by_name("auto-magic").is_none());
}

#[test]
fn priority_and_fill_first_keep_the_order() {
    let candidates = [Candidate::default(); 3];
    for name in ["priority", "fill-first"] {
        assert_eq!(by_name(name).unwrap().order(&choice(&candidates, 7, 99)).as_slice(), [0, 1, 2]);
    }
    assert!(by_name("fill-first").unwrap().is_loyal() && !by_name("priority").unwrap().is_loyal());
}

#[test]
fn round_robin_gives_each_its_turns() {
    let candidates = [Candidate::default(); 3];
    let firsts: Vec<_> = (0..9)
        .map(|turn| first("round-robin", &Choice { sticky: 2, ..choice(&candidates, turn, 0) }))
        .collect();
    assert_eq!(firsts, [0, 0, 1, 1, 2, 2, 0, 0, 1]);
}

#[test]
fn random_starts_everywhere_alike() {
    let candidates = [Candidate::default(); 4];
    let mut seen = [0; 4];
    for random in draws(4_000) {
        seen[first("random", &choice(&candidates, 0, random))] += 1;
    }
    assert!(seen.iter().all(|count| (850..1_150).contains(count)), "{seen:?}");
}

#[test]
fn weights_are_shares_and_a_weight_of_nothing_is_for_falling_back_only() {
    let candidates = [70, 20, 0, 10].map(|weight| Candidate { weight, ..Candidate::default() });
    let mut seen = [0; 4];
    for random in draws(10_000) {
        let order = by_name("weighted").unwrap().order(&choice(&candidates, 0, random));
        seen[usize::from(order[0])] += 1;
        assert_eq!(order[3], 2, "weight 0 comes last");
    }
    for (count, expected) in seen.iter().zip([7_000, 2_000, 0, 1_000]) {
        // Four standard deviations of the largest share.
        assert!(i32::abs(count - expected) < 185, "{seen:?}");
    }
    let equal = [Candidate::default(); 2];
    let ones = draws(2_000).filter(|random| first("weighted", &choice(&equal, 0, *random)) == 1).count();
    assert!((900..1_100).contains(&ones), "{ones}");
}

#[test]
fn of_two_the_better_one_leads_and_the_worst_never_does() {
    let good = Candidate { success_rate: 0.9, latency_ms: Some(100.0), ..Candidate::default() };
    let slow = Candidate { latency_ms: Some(1_000.0), ..good };
    let blocked = Candidate { is_blocked: true, ..slow };
    let candidates = [blocked, slow, good];
    let mut seen = [0; 3];
    for random in draws(3_000) {
        seen[first("p2c", &choice(&candidates, 0, random))] += 1;
    }
    assert_eq!(seen[0], 0, "whoever is drawn beside it is better");
    assert!((800..1_200).contains(&seen[1]), "{seen:?}");
    assert!((1_800..2_200).contains(&seen[2]), "{seen:?}");
}

#[test]
fn without_a_last_good_one_the_order_stays() {
    let candidates = [Candidate::default(), Candidate { is_last_good: true, ..Candidate::default() }];
    assert_eq!(by_name("lkgp").unwrap().order(&choice(&candidates, 0, 0)).as_slice(), [1, 0]);
    assert_eq!(by_name("lkgp").unwrap().order(&choice(&candidates[..1], 0, 0)).as_slice(), [0]);
}

/// Who leads when all candidates are alike.
#[derive(Clone, Copy)]
enum Leads {
    /// Always the first.
    First,
    /// Each as often as any other, to one.
    Each,
    /// Each as often as any other, by chance.
    Chance,
}

/// What is promised of every strategy.
const PROMISES: [(&str, Leads); 19] = [
    ("context-relay", Leads::First),
    ("priority", Leads::First),
    ("fill-first", Leads::First),
    ("round-robin", Leads::Each),
    ("weighted", Leads::Chance),
    ("random", Leads::Chance),
    ("strict-random", Leads::Each),
    ("least-used", Leads::Each),
    ("cost-optimized", Leads::First),
    ("p2c", Leads::Chance),
    ("lkgp", Leads::First),
    ("context-optimized", Leads::First),
    ("cache-optimized", Leads::First),
    ("headroom", Leads::First),
    ("reset-aware", Leads::First),
    ("race", Leads::First),
    ("fusion", Leads::First),
    ("pipeline", Leads::First),
    // Equal ones take turns, and some requests explore.
    ("auto", Leads::Chance),
];

#[test]
fn no_strategy_starves_anybody_it_promises_a_turn() {
    for strategy in STRATEGIES {
        let promised = PROMISES.iter().find(|(name, _)| *name == strategy.name());
        let (name, leads) = promised.unwrap_or_else(|| panic!("what does {} promise?", strategy.name()));
        let mut candidates = [Candidate { weight: 25, ..Candidate::default() }; 4];
        let mut seen = [0_i32; 4];
        for (turn, random) in (0..).zip(draws(4_000)) {
            let leader = first(name, &choice(&candidates, turn, random));
            seen[leader] += 1;
            candidates[leader].uses += 1;
        }
        match leads {
            Leads::First => assert_eq!(seen, [4_000, 0, 0, 0], "{name}"),
            Leads::Each => assert_eq!(seen, [1_000; 4], "{name}"),
            // Four standard deviations of a quarter of 4,000.
            Leads::Chance => {
                assert!(seen.iter().all(|count| (count - 1_000).abs() < 110), "{name}: {seen:?}");
            }
        }
    }
}

fn quota(left: f64, reset_ms: i64) -> Candidate {
    Candidate { quota: Some(Quota::told(left, reset_ms)), ..Candidate::default() }
}

#[test]
fn what_would_be_lost_first_is_used_first() {
    const HOUR: i64 = 3_600_000;
    let unknown = Candidate::default();
    let order =
        |candidates: &[Candidate]| by_name("reset-aware").unwrap().order(&choice(candidates, 0, 0)).to_vec();
    // 0.9 in five hours, 0.5 in one, little in a minute, unknown.
    assert_eq!(order(&[quota(0.9, 5 * HOUR), quota(0.5, HOUR), quota(0.05, 60_000), unknown]), [1, 0, 3, 2]);
    // Within five of a hundred the list counts.
    assert_eq!(order(&[quota(0.96, HOUR), quota(1.0, HOUR), quota(0.9, HOUR)]), [0, 1, 2]);
    // Of those that have little left whoever has more.
    assert_eq!(order(&[quota(0.01, HOUR), quota(0.08, HOUR)]), [1, 0]);
    assert_eq!(by_name("reset-window").unwrap().name(), "reset-aware");
}

#[test]
fn who_has_most_left_leads_and_silence_may_be_plenty() {
    let order =
        |candidates: &[Candidate]| by_name("headroom").unwrap().order(&choice(candidates, 0, 0)).to_vec();
    assert_eq!(order(&[quota(0.4, 1), quota(0.7, 1), Candidate::default(), quota(0.2, 1)]), [2, 1, 0, 3]);
}

#[test]
fn a_beginning_stays_where_it_is_when_another_place_goes() {
    let places = ["a", "b", "c", "d"];
    let order = |prefix: u64, places: &[&str]| {
        let of = |place: &&str| Candidate { affinity: rendezvous(prefix, place), ..Candidate::default() };
        let candidates: Vec<_> = places.iter().map(of).collect();
        places[first("cache-optimized", &choice(&candidates, 0, 0))].to_owned()
    };
    let mut seen = std::collections::BTreeMap::<String, u32>::new();
    for prefix in draws(2_000) {
        let before = order(prefix, &places);
        if before != "d" {
            assert_eq!(order(prefix, &places[..3]), before, "only those of the one that goes move");
        }
        *seen.entry(before).or_default() += 1;
    }
    assert!(seen.values().all(|count| (380..620).contains(count)), "all have their share: {seen:?}");
}
