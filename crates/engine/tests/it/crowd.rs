//! Counters under 256 threads at once: nothing is counted twice, nothing is lost, no limit is exceeded even for a moment.

use std::sync::Barrier;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use omniroute_domain::combo::ComboMemory;
use omniroute_domain::entity::{ApiKeyId, ConnectionId, ConnectionStatus};
use omniroute_domain::health::HealthMap;
use omniroute_domain::limit::Meter;
use omniroute_domain::routing::Stats;
use omniroute_engine::memory::MemoryCounters;
use omniroute_engine::ports::{Charge, Counters as _, Reserving, Verdict};

const THREADS: u64 = 256;
const ROUNDS: u64 = 50;
const NOW: i64 = 1_795_392_000_000;

/// Everybody does the same thing at the same time, so many times.
fn crowd(rounds: u64, act: impl Fn(u64) + Sync) {
    let ready = Barrier::new(THREADS as usize);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (ready, act) = (&ready, &act);
            scope.spawn(move || {
                ready.wait();
                (0..rounds).for_each(|round| act(thread * rounds + round));
            });
        }
    });
}

fn charge(key: &str, meter: Meter, limit: u64, amount: i64) -> Charge {
    Charge { key: ApiKeyId::from(key), meter, limit, amount }
}

fn is_taken(reserving: &Reserving<'_>) -> bool {
    matches!(reserving, Reserving::Ready(Verdict { exceeded: None, .. }))
}

#[test]
fn the_limits_of_a_key_hold_at_every_moment() {
    const PLACES: i64 = 17;
    const A_DAY: u64 = 5_000;
    let counters = MemoryCounters::default();
    let (running, granted, peak) = (AtomicI64::new(0), AtomicU64::new(0), AtomicI64::new(0));
    let charges = |key: &str| {
        [
            charge(key, Meter::RequestsPerDay, A_DAY, 1),
            charge(key, Meter::TokensPerMinute, u64::MAX >> 1, 100),
            charge(key, Meter::Concurrency, PLACES.unsigned_abs(), 1),
        ]
    };
    crowd(ROUNDS, |turn| {
        // Another key in between, which must not disturb.
        let key = if turn % 3 == 0 { "other" } else { "k" };
        if !is_taken(&counters.reserve(&charges(key), NOW)) {
            return;
        }
        if key == "k" {
            granted.fetch_add(1, Ordering::SeqCst);
            peak.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::yield_now();
            running.fetch_sub(1, Ordering::SeqCst);
        }
        let back = [charge(key, Meter::TokensPerMinute, 0, -40), charge(key, Meter::Concurrency, 0, -1)];
        counters.settle(&back, NOW);
    });
    let granted = granted.into_inner();
    assert!(peak.into_inner() <= PLACES);
    assert!((1..=A_DAY).contains(&granted), "{granted}");
    // All places are free again, and not one more.
    let all = charge("k", Meter::Concurrency, PLACES.unsigned_abs(), PLACES);
    assert!(is_taken(&counters.reserve(std::slice::from_ref(&all), NOW)));
    assert!(!is_taken(&counters.reserve(&[charge("k", Meter::Concurrency, PLACES.unsigned_abs(), 1)], NOW)));
    // Exactly the granted requests count: refused ones gave everything back.
    let left = i64::try_from(A_DAY - granted).unwrap();
    let day = |amount| [charge("k", Meter::RequestsPerDay, A_DAY, amount)];
    assert!(left == 0 || is_taken(&counters.reserve(&day(left), NOW)));
    assert!(!is_taken(&counters.reserve(&day(1), NOW)));
    // And their tokens, as they were settled.
    let used = granted * 60;
    let tokens = |limit: u64, amount| [charge("k", Meter::TokensPerMinute, limit, amount)];
    assert!(!is_taken(&counters.reserve(&tokens(used, 1), NOW)));
    assert!(is_taken(&counters.reserve(&tokens(used + 1, 1), NOW)));
}

#[test]
fn places_at_an_account_are_neither_doubled_nor_lost() {
    const PLACES: u32 = 9;
    let health = HealthMap::default().of(&ConnectionId::from("c"), &ConnectionStatus::default());
    let (running, peak, entered) = (AtomicI64::new(0), AtomicI64::new(0), AtomicU64::new(0));
    crowd(ROUNDS, |_| {
        let Some(place) = health.enter(Some(PLACES)) else { return };
        entered.fetch_add(1, Ordering::SeqCst);
        peak.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        std::thread::yield_now();
        running.fetch_sub(1, Ordering::SeqCst);
        drop(place);
    });
    assert!(peak.into_inner() <= i64::from(PLACES) && entered.into_inner() > 0);
    assert_eq!(health.in_flight(), 0);
    let held: Vec<_> = (0..PLACES).map(|_| health.enter(Some(PLACES))).collect();
    assert!(held.iter().all(Option::is_some) && health.enter(Some(PLACES)).is_none());
}

#[test]
fn counts_of_steps_add_up() {
    let stats = Stats::default();
    crowd(ROUNDS, |turn| {
        stats.begin();
        match turn % 4 {
            0 => stats.cancel(),
            1 => stats.end(None, NOW),
            _ => stats.end(Some(10), NOW),
        }
    });
    let all = THREADS * ROUNDS;
    let totals = stats.totals();
    assert_eq!((totals.requests, totals.successes, totals.latency_ms), (all * 3 / 4, all / 2, all / 2 * 10));
    assert_eq!((stats.in_flight(), stats.uses(NOW)), (0, all * 3 / 4));
}

#[test]
fn everybody_has_a_turn_of_their_own() {
    let memory = ComboMemory::default();
    let seen: Vec<AtomicU64> = (0..THREADS * ROUNDS).map(|_| AtomicU64::new(0)).collect();
    crowd(ROUNDS, |_| {
        seen[usize::try_from(memory.take_turn()).unwrap()].fetch_add(1, Ordering::Relaxed);
    });
    assert!(seen.iter().all(|turn| turn.load(Ordering::Relaxed) == 1));
}
