//! Accounts with several keys, where accounts are chosen: the best of their keys counts.

mod fixture;

use std::sync::Arc;
use std::time::Duration;

use fixture::{connection, snapshot};
use omniroute_domain::entity::{
    Connection, ConnectionId, ConnectionStatus, KeyPool, ProviderStrategy, TestStatus,
};
use omniroute_domain::rotation::Occasion;
use omniroute_domain::snapshot::{ConnectionState, ProviderState};
use omniroute_provider::allowance::{Allowance, Allowances};
use omniroute_provider::{Failure, FailureKind, ProviderId, Scope};

const NOW: i64 = 1_800_000_000_000;
const MODEL: &str = "m";

fn pool(name: &str, keys: &[&str]) -> Connection {
    let mut row = connection("n1", name);
    row.options.api_keys = KeyPool(keys.iter().map(|key| (*key).into()).collect());
    row
}

/// A node's accounts `a`, with the keys `a-key`, `b-key` and `c-key`, and `z` with one key.
fn provider(strategy: &str, change: impl FnOnce(&mut Connection)) -> Arc<ProviderState> {
    let snapshot = snapshot(|entities| {
        entities.connections.retain(|row| row.provider.as_str() != "n1");
        let mut several = pool("a", &["b-key", "c-key"]);
        change(&mut several);
        entities.connections.extend([several, Connection { priority: 2, ..connection("n1", "z") }]);
        let own =
            ProviderStrategy { fallback_strategy: Some(strategy.into()), sticky_round_robin_limit: None };
        entities.settings.provider_strategies.insert("one".into(), own);
    });
    assert_eq!(snapshot.problems, []);
    snapshot.provider(&ProviderId::from("n1")).expect("it has accounts").clone()
}

fn leader(provider: &ProviderState) -> &str {
    let occasion = Occasion { now_ms: NOW, random: 0, model: MODEL, prefix: 0 };
    let order = provider.rotation.preview(provider.rule, &provider.connections, occasion);
    &provider.connections[usize::from(order[0])].name
}

fn says(state: &ConnectionState, remaining: u64) {
    let requests = Allowance { limit: Some(100), remaining, reset: Some(Duration::from_secs(60)) };
    let said = Allowances { requests: Some(requests), ..Allowances::default() };
    state.health.gate.learn(MODEL, &said, NOW);
}

fn is_refused(state: &ConnectionState) {
    let failure = Failure { kind: FailureKind::Banned, scope: Scope::Connection, ..Failure::timeout("gone") };
    state.health.failed(MODEL, &failure, &state.profile, NOW, 0.0);
}

fn left(account: &ConnectionState) -> Option<u64> {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "hundredths")]
    account.quota(MODEL, NOW).map(|quota| (quota.left * 100.0).round() as u64)
}

#[test]
fn what_is_left_is_what_the_best_key_has_left() {
    let provider = provider("headroom", |_| {});
    let [several, single] = &provider.connections[..] else { panic!("two accounts") };
    says(&several.pool[0], 20);
    says(&several.pool[1], 60);
    assert_eq!(left(several), None, "the third says nothing and may have all of it");
    says(&several.pool[2], 5);
    says(single, 50);
    assert_eq!((left(several), left(single)), (Some(60), Some(50)));
    assert_eq!(several.rest(MODEL, NOW), Some(0.6));
    assert_eq!(leader(&provider), "a");
    is_refused(&several.pool[1]);
    assert_eq!(left(several), Some(20), "a key that is out counts no more");
    assert_eq!(leader(&provider), "z");
}

#[test]
fn an_account_has_little_left_when_each_of_its_keys_has() {
    let provider = provider("priority", |_| {});
    let [several, _] = &provider.connections[..] else { panic!("two accounts") };
    says(&several.pool[0], 4);
    says(&several.pool[1], 4);
    assert!(!several.is_low(MODEL, NOW));
    let first = |_| several.keys(MODEL, NOW)[0].key.as_ref().expect("a key").place;
    assert_eq!([0; 4].map(first), [3; 4], "what has little left is saved");
    assert_eq!(leader(&provider), "a");
    says(&several.pool[2], 4);
    assert!(several.is_low(MODEL, NOW));
    assert_eq!(leader(&provider), "z");
}

#[test]
fn the_standing_of_an_account_is_that_of_its_best_key() {
    let provider = provider("priority", |_| {});
    let [several, single] = &provider.connections[..] else { panic!("two accounts") };
    let full = single.standing(MODEL, NOW);
    for key in &several.pool[..2] {
        is_refused(key);
    }
    assert!((several.standing(MODEL, NOW) - full).abs() < f64::EPSILON);
    is_refused(&several.pool[2]);
    assert!(several.standing(MODEL, NOW) < full);
}

#[test]
fn a_key_is_as_it_was_left_wherever_it_stands() {
    let banned = ConnectionStatus { test_status: TestStatus::Banned, ..ConnectionStatus::default() };
    let remember = |keys: &[&str]| {
        let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
        let banned = banned.clone();
        provider("priority", move |row| {
            row.options.api_keys = KeyPool(keys.into_iter().map(Into::into).collect());
            row.key_statuses.insert(ConnectionId::of_key(&row.id, "c-key"), banned);
        })
    };
    for (keys, place) in [(&["b-key", "c-key"][..], 3), (&["c-key", "b-key"], 2)] {
        let provider = remember(keys);
        let pool = &provider.connections[0].pool;
        let out: Vec<_> = pool.iter().filter(|key| key.health.check(MODEL, NOW).is_err()).collect();
        let [out] = &out[..] else { panic!("one of them") };
        assert_eq!(out.key.as_ref().expect("a key").place, place);
        assert!(
            !format!("{:?} {:?}", out.key, out.state_id()).contains("c-key"),
            "it says nothing of the key"
        );
    }
}
