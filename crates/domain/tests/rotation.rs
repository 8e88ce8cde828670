//! Which account leads, one request after the other and many at once.

mod fixture;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fixture::{connection, snapshot};
use omniroute_domain::entity::{Connection, ConnectionOptions, Discount, ProviderStrategy};
use omniroute_domain::health::InFlight;
use omniroute_domain::rotation::Occasion;
use omniroute_domain::snapshot::{ConnectionState, ProviderState};
use omniroute_provider::ProviderId;

const NOW: i64 = 1_800_000_000_000;

/// A node's accounts `a`, `b` and `c` under a strategy, each changed as wanted.
fn provider(strategy: &str, sticky: u32, change: impl Fn(&mut Connection)) -> Arc<ProviderState> {
    let snapshot = snapshot(|entities| {
        entities.connections.retain(|row| row.provider.as_str() != "n1");
        for (place, name) in ["a", "b", "c"].into_iter().enumerate() {
            let mut row = connection("n1", name);
            row.priority = i64::try_from(place).expect("few") + 1;
            change(&mut row);
            entities.connections.push(row);
        }
        let own = ProviderStrategy {
            fallback_strategy: Some(strategy.into()),
            sticky_round_robin_limit: Some(sticky),
        };
        entities.settings.provider_strategies.insert("one".into(), own);
    });
    assert_eq!(snapshot.problems, []);
    snapshot.provider(&ProviderId::from("n1")).expect("it has accounts").clone()
}

fn choose(provider: &ProviderState, among: &[Arc<ConnectionState>], random: u64) -> Option<(char, InFlight)> {
    let enter = |account: &Arc<ConnectionState>| account.health.enter(account.max_concurrent);
    let occasion = Occasion { now_ms: NOW, random, model: "m", prefix: 0 };
    let chosen = provider.rotation.choose(provider.rule, among, occasion, enter);
    let (place, taken) = chosen.first?;
    Some((among[place].name.chars().next().expect("named"), taken))
}

/// Who leads so many requests of which each is over before the next.
fn leaders(provider: &ProviderState, count: usize) -> String {
    (0..count)
        .map(|n| {
            choose(provider, &provider.connections, (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))
                .expect("room")
                .0
        })
        .collect()
}

#[test]
fn round_robin_stays_and_then_takes_the_one_whose_turn_is_longest_ago() {
    let provider = provider("round-robin", 2, |_| {});
    assert_eq!(leaders(&provider, 8), "aabbccaa");
    // While `b` cannot serve the others share, and when it is back it is next.
    let without: Vec<_> = provider.connections.iter().filter(|it| &*it.name != "b").cloned().collect();
    let seen: String = (0..5).map(|_| choose(&provider, &without, 0).expect("room").0).collect();
    assert_eq!(seen, "ccaac");
    assert_eq!(leaders(&provider, 5), "cbbaa");
    assert_eq!(provider.rotation.in_row(&provider.connections[0].id), 2);
}

#[test]
fn every_name_of_the_settings_orders_accounts() {
    let shares = |weight, discount: f64| ConnectionOptions {
        weight: Some(weight),
        discount: Some(Discount::try_from(discount).expect("a share")),
        ..ConnectionOptions::default()
    };
    let priced = |row: &mut Connection| {
        row.options = match row.name.as_str() {
            "a" => shares(0, 0.0),
            "b" => shares(3, 0.2),
            _ => shares(1, 0.5),
        };
    };
    assert_eq!(leaders(&provider("fill-first", 1, priced), 3), "aaa");
    assert_eq!(leaders(&provider("cost-optimized", 1, priced), 3), "ccc");
    for strategy in ["random", "strict-random", "p2c", "least-used", "weighted"] {
        let mut counts = BTreeMap::new();
        for leader in leaders(&provider(strategy, 1, priced), 3_000).chars() {
            *counts.entry(leader).or_insert(0) += 1;
        }
        let of = |name| counts.get(&name).copied().unwrap_or(0);
        match strategy {
            "weighted" => assert!(of('a') == 0 && (2_150..2_350).contains(&of('b')), "{counts:?}"),
            "strict-random" => assert!(counts.values().all(|count| *count == 1_000), "{counts:?}"),
            // Nothing is noted here of what ended, so that all are equally used.
            "least-used" => assert_eq!(of('a'), 3_000),
            _ => assert!(counts.values().all(|count| (850..1_150).contains(count)), "{strategy}: {counts:?}"),
        }
    }
}

#[test]
fn of_two_the_account_in_better_standing_leads() {
    let provider = provider("p2c", 1, |row| {
        if row.name == "a" {
            row.status.backoff_level = 3;
            row.status.last_error = Some("was refused".into());
        }
    });
    assert!(!leaders(&provider, 500).contains('a'), "whoever is drawn beside it is better");
    let standing: Vec<_> = provider.connections.iter().map(|it| it.health.standing(NOW)).collect();
    assert_eq!(standing, [50.0, 100.0, 100.0]);
}

#[test]
fn two_hundred_and_fifty_six_at_once_share_the_accounts_and_nobody_is_counted_twice() {
    for strategy in ["least-used", "round-robin", "strict-random"] {
        let provider = provider(strategy, 1, |row| row.max_concurrent = Some(100));
        let refused = AtomicU64::new(0);
        let barrier = std::sync::Barrier::new(256);
        let held: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..256)
                .map(|n| {
                    let (provider, barrier, refused) = (&provider, &barrier, &refused);
                    scope.spawn(move || {
                        barrier.wait();
                        let chosen = choose(provider, &provider.connections, n);
                        refused.fetch_add(u64::from(chosen.is_none()), Ordering::Relaxed);
                        chosen
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("it ends")).collect()
        });
        let running: Vec<_> = provider.connections.iter().map(|it| it.health.in_flight()).collect();
        assert_eq!(running.iter().sum::<u32>(), 256, "{strategy}");
        assert_eq!(refused.load(Ordering::Relaxed), 0);
        let (least, most) = (running.iter().min().expect("three"), running.iter().max().expect("three"));
        assert!(most - least <= 1, "{strategy}: {running:?}");
        drop(held);
        assert!(provider.connections.iter().all(|it| it.health.in_flight() == 0));
    }
}

#[test]
fn a_full_account_gives_its_turn_to_the_next() {
    let provider = provider("fill-first", 1, |row| row.max_concurrent = Some(1));
    let held: Vec<_> = (0..3).map(|_| choose(&provider, &provider.connections, 0).expect("room")).collect();
    assert_eq!(held.iter().map(|(name, _)| *name).collect::<String>(), "abc");
    assert!(choose(&provider, &provider.connections, 0).is_none());
}

#[test]
fn turns_go_on_where_they_were_after_a_restart() {
    let before = provider("round-robin", 2, |_| {});
    assert_eq!(leaders(&before, 3), "aab");
    let mark = before.rotation.mark(&before.connections);
    let text = serde_json::to_string(&mark).expect("JSON");
    let after = provider("round-robin", 2, |_| {});
    after.rotation.restore(&serde_json::from_str(&text).expect("the same"), &after.connections);
    assert_eq!(after.rotation.mark(&after.connections), mark);
    assert_eq!(leaders(&after, 4), "bcca");
    assert_eq!(leaders(&provider("round-robin", 2, |_| {}), 4), "aabb", "without it they begin anew");
    let deck = provider("strict-random", 1, |_| {});
    leaders(&deck, 4);
    let other = provider("strict-random", 1, |_| {});
    other.rotation.restore(&deck.rotation.mark(&deck.connections), &other.connections);
    assert_eq!(leaders(&deck, 6), leaders(&other, 6));
}
