//! What failures taught outlives the process: breakers and locks, as long as they are of use.

use omniroute_domain::breaker::{BreakerRecord, BreakerState};
use omniroute_domain::entity::RuntimeSettings;
use omniroute_domain::health::ModelLock;
use omniroute_engine::ports::{LockRow, Memory, Recorder as _};
use omniroute_provider::FailureKind;
use omniroute_store::{Store, WriterOptions};

use crate::fixture::{DAY, Fixture, NOW, connection, stories, writer};

stories!(breakers_and_locks_are_there_after_a_restart, what_has_ended_is_deleted);

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
