//! What failures taught outlives the process: breakers and locks, as long as they are of use.

use omniroute_domain::breaker::{BreakerRecord, BreakerState};
use omniroute_domain::entity::{ConnectionStatus, Reset, RuntimeSettings};
use omniroute_domain::health::ModelLock;
use omniroute_engine::Live;
use omniroute_engine::ports::{LockRow, Memory, Recorder as _};
use omniroute_provider::FailureKind;
use omniroute_store::{Store, WriterOptions};

use crate::fixture::{DAY, Fixture, NOW, Remembered, connection, process, reload, stories, writer};

stories!(
    breakers_and_locks_are_there_after_a_restart,
    what_has_ended_is_deleted,
    what_an_operator_ends_all_processes_end_once,
    the_latest_of_what_operators_ended_is_kept,
);

fn breaker(name: &str, state: BreakerState, changed_at: i64) -> BreakerRecord {
    BreakerRecord {
        name: name.into(),
        state,
        failure_count: 12,
        last_failure: Some(changed_at),
        cause: Some(FailureKind::Timeout),
        open_until: (state == BreakerState::Open).then_some(changed_at + 30_000),
        span_ms: 30_000,
        failed_probes: 2,
        model: (state == BreakerState::Open).then(|| "m1".into()),
        of_models: vec![("m1".into(), 11), ("m2".into(), 1)],
        changed_at,
    }
}

fn lock(connection: &str, model: &str, until: i64) -> LockRow {
    let lock = ModelLock {
        model: model.into(),
        reason: FailureKind::RateLimited,
        until,
        failure_count: 3,
        locked_at: NOW,
    };
    LockRow { provider: "openai".into(), connection: connection.into(), lock }
}

async fn write(store: &Store, memories: Vec<Memory>) {
    let count = memories.len() as u64;
    let (recorder, handle) = writer(store, WriterOptions::default());
    for memory in memories {
        recorder.remember(memory);
    }
    handle.close().await;
    assert_eq!(recorder.stats().written_memories, count);
}

async fn breakers(store: &Store) -> Vec<BreakerRecord> {
    let mut found = Vec::new();
    store.resilience().breakers(|record| found.push(record)).await.unwrap();
    found
}

async fn locks(store: &Store, now_ms: i64) -> Vec<LockRow> {
    let mut found = Vec::new();
    store.resilience().locks(now_ms, |row| found.push(row)).await.unwrap();
    found
}

async fn breakers_and_locks_are_there_after_a_restart(fixture: Fixture) {
    let open = breaker("openai", BreakerState::Open, NOW + 2);
    let degraded = breaker("groq", BreakerState::Degraded, NOW + 1);
    let unlock = Memory::Unlock { connection: "c1".into(), model: "m2".into() };
    write(
        &fixture.store,
        vec![
            Memory::Breaker(breaker("openai", BreakerState::Degraded, NOW)),
            Memory::Breaker(open.clone()),
            Memory::Breaker(degraded.clone()),
            Memory::Breaker(breaker("mistral", BreakerState::Open, NOW)),
            Memory::Breaker(breaker("mistral", BreakerState::Closed, NOW + 1)),
            Memory::Lock(lock("c1", "m2", NOW + 50)),
            Memory::Lock(lock("c1", "m1", NOW + 10)),
            Memory::Lock(lock("c1", "m1", NOW + 20)),
            unlock,
            Memory::Lock(lock("c2", "m1", NOW + 30)),
        ],
    )
    .await;
    // What comes late does not take back what is newer.
    write(&fixture.store, vec![Memory::Breaker(breaker("openai", BreakerState::Closed, NOW))]).await;
    fixture.store.close().await;
    let again = fixture.again().await;
    assert_eq!(breakers(&again).await, [open, degraded]);
    assert_eq!(locks(&again, NOW).await, [lock("c2", "m1", NOW + 30), lock("c1", "m1", NOW + 20)]);
    assert_eq!(locks(&again, NOW + 20).await, [lock("c2", "m1", NOW + 30)], "what has ended is dropped");
}

async fn what_has_ended_is_deleted(fixture: Fixture) {
    let store = &fixture.store;
    store.connections().insert(&connection("c1", "openai", "work", None)).await.unwrap();
    write(
        store,
        vec![
            Memory::Breaker(breaker("old", BreakerState::Open, NOW)),
            Memory::Breaker(breaker("new", BreakerState::Open, NOW + 6 * DAY)),
            Memory::Lock(lock("c1", "m1", NOW + 8 * DAY)),
            Memory::Lock(lock("c2", "m1", NOW + 8 * DAY)),
            Memory::Lock(lock("c2", "m2", NOW + DAY)),
        ],
    )
    .await;
    store.prune(NOW + 7 * DAY, &RuntimeSettings::default()).await.unwrap();
    assert_eq!(breakers(store).await, [breaker("new", BreakerState::Open, NOW + 6 * DAY)]);
    assert_eq!(locks(store, NOW).await.len(), 2);
    store.connections().delete(&"c1".into()).await.unwrap();
    assert_eq!(locks(store, NOW).await, [lock("c2", "m1", NOW + 8 * DAY)], "it goes with its account");
}

/// Two accounts of which everything is known that can be reset.
async fn add_two(store: &Store) {
    for (id, provider) in [("c1", "openai"), ("c2", "groq")] {
        let mut row = connection(id, provider, "work", Some("sk-of-it"));
        // At the vendor's own address, so that it has a breaker.
        row.options.base_url = None;
        store.connections().insert(&row).await.unwrap();
    }
}

fn hold_everything_back(live: &Live) {
    for account in live.load().connections().filter(|account| account.provider.as_str() != "sim") {
        account.breaker.restore(&breaker(&account.breaker.name, BreakerState::Open, NOW), NOW);
        let cooling = ConnectionStatus { rate_limited_until: Some(NOW + DAY), ..ConnectionStatus::default() };
        account.health.clear(cooling);
        for model in ["m1", "m2"] {
            account.health.restore_lock(lock(account.id.as_str(), model, NOW + DAY).lock);
        }
    }
}

/// What keeps the accounts back, each a word.
fn held_back(live: &Live) -> Vec<String> {
    let mut told = Vec::new();
    for account in live.load().connections() {
        let is_open = account.breaker.record(NOW).state != BreakerState::Closed;
        told.extend(is_open.then(|| format!("{} breaker", account.id)));
        let is_cooling = account.health.status(NOW).rate_limited_until.is_some();
        told.extend(is_cooling.then(|| format!("{} cooldown", account.id)));
        told.extend(account.health.locks(NOW).iter().map(|lock| format!("{} {}", account.id, lock.model)));
    }
    told.sort_unstable();
    told
}

async fn what_an_operator_ends_all_processes_end_once(fixture: Fixture) {
    let (here, there) = (&fixture.store, &fixture.again().await);
    add_two(here).await;
    let everything =
        ["c1 breaker", "c1 cooldown", "c1 m1", "c1 m2", "c2 breaker", "c2 cooldown", "c2 m1", "c2 m2"];
    let locks = |provider: Option<&str>, connection: Option<&str>, model: Option<&str>| Reset::Locks {
        provider: provider.map(Into::into),
        connection: connection.map(Into::into),
        model: model.map(Into::into),
    };
    let cases: [(&[Reset], &[&str]); 6] = [
        (&[Reset::Breakers { provider: None }], &["c1 breaker", "c2 breaker"]),
        (&[Reset::Breakers { provider: Some("groq".into()) }], &["c2 breaker"]),
        (&[locks(Some("openai"), Some("c1"), Some("m2"))], &["c1 m2"]),
        (&[locks(None, None, Some("m1"))], &["c1 m1", "c2 m1"]),
        (
            &[locks(Some("openai"), None, Some("m1")), Reset::Cooldowns { provider: Some("openai".into()) }],
            &["c1 cooldown", "c1 m1"],
        ),
        (
            &[
                Reset::Breakers { provider: None },
                Reset::Cooldowns { provider: None },
                locks(None, None, None),
            ],
            &everything,
        ),
    ];
    let processes = [process(here).await, process(there).await];
    for (resets, ended) in cases {
        let left: Vec<_> = everything.iter().filter(|word| !ended.contains(word)).copied().collect();
        let known = there.revision().await.unwrap();
        processes.iter().for_each(hold_everything_back);
        here.states_cleared().announce(resets).await.unwrap();
        assert!(there.revision().await.unwrap() > known, "the other process notices");
        for (store, live) in [here, there].into_iter().zip(&processes) {
            assert_eq!(held_back(live), everything, "not before it is heard of");
            let recorder = Remembered::default();
            reload(store, live, &recorder).await;
            assert_eq!(held_back(live), left, "{resets:?}");
            let gone =
                recorder.0.lock().unwrap().iter().filter(|it| matches!(it, Memory::Unlock { .. })).count();
            let locks = ended.iter().filter(|word| word.ends_with("m1") || word.ends_with("m2")).count();
            assert_eq!(gone, locks, "{resets:?}: they go from the database too");
            // What is found out later holds, whatever else is changed.
            hold_everything_back(live);
            here.settings().change(|_| Ok::<_, ()>(())).await.unwrap().unwrap();
            reload(store, live, &recorder).await;
            assert_eq!(held_back(live), everything, "{resets:?}: once each time");
        }
    }
    // Who begins later knows what was stored by then, and has nothing to end.
    let late = process(there).await;
    hold_everything_back(&late);
    reload(there, &late, &Remembered::default()).await;
    assert_eq!(held_back(&late), everything);
}

async fn the_latest_of_what_operators_ended_is_kept(fixture: Fixture) {
    let store = &fixture.store;
    add_two(store).await;
    let live = process(store).await;
    hold_everything_back(&live);
    let of = |provider: &str| [Reset::Breakers { provider: Some(provider.into()) }];
    store.states_cleared().announce(&of("openai")).await.unwrap();
    store.states_cleared().announce(&of("groq")).await.unwrap();
    for _ in 0..999 {
        store.states_cleared().announce(&of("nobody")).await.unwrap();
    }
    reload(store, &live, &Remembered::default()).await;
    let is_open = |id: &str| held_back(&live).contains(&format!("{id} breaker"));
    assert_eq!((is_open("c1"), is_open("c2")), (true, false), "a thousand are kept");
}
