//! What is known of the single keys of an account outlives the process, and belongs to the key and not to its place.

use omniroute_domain::entity::{
    Connection, ConnectionId, ConnectionStatus, KeyPool, RuntimeSettings, TestStatus,
};
use omniroute_domain::health::{HealthMap, ModelLock};
use omniroute_domain::snapshot::{BuildOptions, Snapshot};
use omniroute_engine::Live;
use omniroute_engine::ports::{LockRow, Memory, Recorder as _};
use omniroute_provider::FailureKind;
use omniroute_provider::catalog::catalog;
use omniroute_store::{Store, WriterOptions};

use crate::accounts::limits;
use crate::fixture::{Fixture, NOW, Remembered, connection, process, reload, stories, writer};
use crate::put;

stories!(
    states_of_keys_are_there_after_a_restart,
    a_state_follows_its_key,
    what_is_known_of_an_only_key_is_known_of_the_account,
    locks_of_models_follow_an_only_key,
    learned_limits_follow_an_only_key,
    what_was_known_of_models_goes_with_the_key,
    a_key_that_is_named_twice_is_an_only_key,
    what_a_process_knows_follows_the_key_in_every_process,
    what_one_process_clears_all_forget_once,
    states_of_nobody_are_deleted,
);

const ACCOUNT: &str = "c1";

fn account(first: &str, others: &[&str]) -> Connection {
    let mut row = connection(ACCOUNT, "openai", "work", Some(first));
    row.options.api_keys = pool(others);
    row
}

fn pool(keys: &[&str]) -> KeyPool {
    KeyPool(keys.iter().map(|key| (*key).into()).collect())
}

fn id(key: &str) -> ConnectionId {
    ConnectionId::of_key(&ACCOUNT.into(), key)
}

fn banned() -> ConnectionStatus {
    ConnectionStatus {
        test_status: TestStatus::Banned,
        last_error: Some("account disabled".into()),
        last_error_at: Some(NOW),
        last_error_type: Some("banned".into()),
        last_error_source: Some("upstream".into()),
        error_code: Some(401),
        last_used_at: Some(NOW),
        ..ConnectionStatus::default()
    }
}

fn cooling() -> ConnectionStatus {
    ConnectionStatus {
        rate_limited_until: Some(NOW + 1_000),
        backoff_level: 2,
        ..ConnectionStatus::default()
    }
}

async fn write(store: &Store, statuses: &[(ConnectionId, ConnectionStatus)]) {
    let (recorder, handle) = writer(store, WriterOptions::default());
    for (id, status) in statuses {
        recorder.connection_status(id, status.clone());
    }
    handle.close().await;
}

async fn known(store: &Store) -> Vec<(ConnectionId, ConnectionStatus)> {
    let row = store.connections().get(&ACCOUNT.into()).await.unwrap().unwrap();
    let listed = store.connections().list(&Default::default()).await.unwrap();
    assert_eq!(listed[0].key_statuses, row.key_statuses);
    assert_eq!(store.load().await.unwrap().entities.connections[0].key_statuses, row.key_statuses);
    row.key_statuses.into_iter().collect()
}

async fn states_of_keys_are_there_after_a_restart(fixture: Fixture) {
    fixture.store.connections().insert(&account("k-first", &["k-second", "k-third"])).await.unwrap();
    let nobody = ConnectionId::from_parts("gone", "0011223344556677");
    let written = [(id("k-first"), banned()), (id("k-second"), cooling()), (nobody, banned())];
    write(&fixture.store, &written).await;

    let store = fixture.again().await;
    let entities = store.load().await.unwrap().entities;
    let health = HealthMap::default();
    let snapshot = Snapshot::build(&entities, catalog(), &health, &BuildOptions::default());
    let state = snapshot.connection(&ACCOUNT.into()).expect("it is on");
    let blocked = |place: usize, now_ms| state.pool[place].health.check("m", now_ms).err().map(|it| it.until);
    assert_eq!([0, 1, 2].map(|place| blocked(place, NOW)), [Some(None), Some(Some(NOW + 1_000)), None]);
    assert_eq!(blocked(1, NOW + 1_001), None);
    assert_eq!(state.check("m", NOW), Ok(()), "the third key serves");
    assert_eq!(state.pool[0].health.status(NOW), banned());

    // A key that answers again leaves nothing behind.
    let answered = ConnectionStatus {
        test_status: TestStatus::Active,
        last_used_at: Some(NOW),
        ..ConnectionStatus::default()
    };
    write(&store, &[(id("k-second"), answered)]).await;
    assert_eq!(known(&store).await, [(id("k-first"), banned())]);
    store.connections().clear_errors(&ACCOUNT.into(), &ConnectionStatus::default()).await.unwrap();
    assert_eq!(known(&store).await, []);
}

async fn a_state_follows_its_key(fixture: Fixture) {
    let connections = fixture.store.connections();
    connections.insert(&account("k-first", &["k-second", "k-third"])).await.unwrap();
    write(&fixture.store, &[(id("k-second"), banned()), (id("k-third"), cooling())]).await;
    let stored = put::connection(&fixture.store, &account("k-first", &["k-third", "k-new", "k-second"]))
        .await
        .unwrap();
    let place = |key: &str| stored.pool_keys().iter().find(|it| it.state_id == id(key)).map(|it| it.place);
    assert_eq!((place("k-third"), place("k-second"), place("k-gone")), (Some(2), Some(4), None));
    assert_eq!(stored.key_statuses.get(&id("k-second")), Some(&banned()));
    let stored = put::connection(&fixture.store, &account("k-first", &["k-third", "k-new"])).await.unwrap();
    assert_eq!(stored.key_statuses.into_iter().collect::<Vec<_>>(), [(id("k-third"), cooling())]);
    // Another first key is another credential: everything begins anew.
    let stored = put::connection(&fixture.store, &account("k-other", &["k-third"])).await.unwrap();
    assert!(stored.key_statuses.is_empty());
    write(&fixture.store, &[(id("k-third"), banned())]).await;
    assert!(connections.delete(&ACCOUNT.into()).await.unwrap());
    connections.insert(&account("k-other", &["k-third"])).await.unwrap();
    assert_eq!(known(&fixture.store).await, [], "they went with the account");
}

async fn what_is_known_of_an_only_key_is_known_of_the_account(fixture: Fixture) {
    let connections = fixture.store.connections();
    connections.insert(&account("k-first", &[])).await.unwrap();
    write(&fixture.store, &[(ACCOUNT.into(), banned())]).await;
    let stored = put::connection(&fixture.store, &account("k-first", &["k-second"])).await.unwrap();
    assert_eq!(stored.status.test_status, TestStatus::Unknown);
    assert_eq!(known(&fixture.store).await, [(id("k-first"), banned())]);
    let stored = put::connection(&fixture.store, &account("k-first", &[])).await.unwrap();
    assert_eq!((stored.status.test_status, stored.key_statuses.len()), (TestStatus::Banned, 0));
}

async fn locks_of_models_follow_an_only_key(fixture: Fixture) {
    let connections = fixture.store.connections();
    connections.insert(&account("k-first", &[])).await.unwrap();
    let lock = |holder: &ConnectionId, model: &str| LockRow {
        provider: "openai".into(),
        connection: holder.clone(),
        lock: ModelLock {
            model: model.to_owned(),
            reason: FailureKind::RateLimited,
            until: NOW + 1_000,
            failure_count: 1,
            locked_at: NOW,
        },
    };
    let (recorder, handle) = writer(&fixture.store, WriterOptions::default());
    let (whole, first) = (ConnectionId::from(ACCOUNT), id("k-first"));
    recorder.remember(Memory::Lock(lock(&whole, "m1")));
    recorder.remember(Memory::Lock(lock(&"c2".into(), "m1")));
    // What was left when the key was one of several before.
    recorder.remember(Memory::Lock(lock(&first, "m0")));
    handle.close().await;
    let known = async || {
        let mut found = Vec::new();
        fixture.store.resilience().locks(NOW, |row| found.push(row)).await.unwrap();
        found.retain(|row| row.connection.as_str() != "c2");
        found
    };
    put::connection(&fixture.store, &account("k-first", &["k-second"])).await.unwrap();
    assert_eq!(known().await, [lock(&first, "m1")]);
    put::connection(&fixture.store, &account("k-first", &["k-second", "k-third"])).await.unwrap();
    assert_eq!(known().await, [lock(&first, "m1")]);
    put::connection(&fixture.store, &account("k-first", &[])).await.unwrap();
    assert_eq!(known().await, [lock(&whole, "m1")]);
    let mut others = 0;
    fixture.store.resilience().locks(NOW, |_| others += 1).await.unwrap();
    assert_eq!(others, 2, "another account's stays");
}

async fn learned_limits_follow_an_only_key(fixture: Fixture) {
    let connections = fixture.store.connections();
    connections.insert(&account("k-first", &[])).await.unwrap();
    let (whole, first) = (ConnectionId::from(ACCOUNT), id("k-first"));
    let told = |holder: &ConnectionId, model: &str| limits(holder.as_str(), model, 3, NOW);
    let (recorder, handle) = writer(&fixture.store, WriterOptions::default());
    // The last is what was left when the key was one of several before.
    for row in [told(&whole, "m1"), told(&"c2".into(), "m1"), told(&first, "m0")] {
        recorder.remember(Memory::Limits(row));
    }
    handle.close().await;
    let known = async || {
        let mut found = Vec::new();
        fixture.store.learned_limits().recall(NOW, |row| found.push(row)).await.unwrap();
        found.sort_by_key(|row| row.connection.as_str() == "c2");
        found
    };
    let other = told(&"c2".into(), "m1");
    put::connection(&fixture.store, &account("k-first", &["k-second"])).await.unwrap();
    assert_eq!(known().await, [told(&first, "m1"), other.clone()]);
    put::connection(&fixture.store, &account("k-first", &["k-second", "k-third"])).await.unwrap();
    assert_eq!(known().await, [told(&first, "m1"), other.clone()]);
    put::connection(&fixture.store, &account("k-first", &[])).await.unwrap();
    assert_eq!(known().await, [told(&whole, "m1"), other]);
}

async fn what_was_known_of_models_goes_with_the_key(fixture: Fixture) {
    fixture.store.connections().insert(&account("k-first", &["k-second"])).await.unwrap();
    let (recorder, handle) = writer(&fixture.store, WriterOptions::default());
    for holder in [ConnectionId::from(ACCOUNT), id("k-first"), id("k-second"), "c2".into()] {
        recorder.remember(Memory::Limits(limits(holder.as_str(), "m", 3, NOW)));
        let (model, reason) = ("m".to_owned(), FailureKind::RateLimited);
        let lock = ModelLock { model, reason, until: NOW + 1_000, failure_count: 1, locked_at: NOW };
        recorder.remember(Memory::Lock(LockRow { provider: "openai".into(), connection: holder, lock }));
    }
    handle.close().await;
    put::connection(&fixture.store, &account("k-other", &["k-second"])).await.unwrap();
    let mut found = Vec::new();
    fixture.store.learned_limits().recall(NOW, |row| found.push(row.connection)).await.unwrap();
    fixture.store.resilience().locks(NOW, |row| found.push(row.connection)).await.unwrap();
    assert_eq!(found, [ConnectionId::from("c2"), "c2".into()]);
}

async fn a_key_that_is_named_twice_is_an_only_key(fixture: Fixture) {
    fixture.store.connections().insert(&account("k-first", &["k-first"])).await.unwrap();
    write(&fixture.store, &[(ACCOUNT.into(), banned())]).await;
    let stored = put::connection(&fixture.store, &account("k-first", &["k-second"])).await.unwrap();
    assert_eq!(stored.status.test_status, TestStatus::Unknown);
    assert_eq!(known(&fixture.store).await, [(id("k-first"), banned())]);
    let stored = put::connection(&fixture.store, &account("k-first", &["k-first"])).await.unwrap();
    assert_eq!((stored.status.test_status, stored.key_statuses.len()), (TestStatus::Banned, 0));
}

/// Of the model `m`, for a second.
fn lock() -> ModelLock {
    ModelLock {
        model: "m".to_owned(),
        reason: FailureKind::RateLimited,
        until: NOW + 1_000,
        failure_count: 2,
        locked_at: NOW,
    }
}

/// Another process than the one that changes the account.
async fn what_a_process_knows_follows_the_key_in_every_process(fixture: Fixture) {
    let store = fixture.again().await;
    fixture.store.connections().insert(&account("k-first", &[])).await.unwrap();
    let (live, recorder) = (process(&store).await, Remembered::default());
    let state = || live.load().connection(&ACCOUNT.into()).unwrap().clone();
    let lock = lock();
    let status = ConnectionStatus { last_error: Some("slow down".into()), ..ConnectionStatus::default() };
    state().health.clear(status.clone());
    state().health.restore_lock(lock.clone());
    let (whole, first) = (ConnectionId::from(ACCOUNT), id("k-first"));
    let written = || {
        let memories = std::mem::take(&mut *recorder.0.lock().unwrap());
        let words = memories.into_iter().map(|memory| match memory {
            Memory::Unlock { connection, model } => (connection, model, false),
            Memory::Lock(row) => (row.connection, row.lock.model, true),
            other => panic!("{other:?}"),
        });
        words.collect::<Vec<_>>()
    };
    let change = async |row: Connection| {
        put::connection(&fixture.store, &row).await.unwrap();
        reload(&store, &live, &recorder).await;
    };

    change(account("k-first", &["k-second"])).await;
    let several = state();
    assert_eq!(several.health.locks(NOW), []);
    assert_eq!(several.health.status(NOW).last_error, None);
    assert_eq!(several.pool[0].health.locks(NOW), std::slice::from_ref(&lock));
    assert_eq!(several.pool[0].health.status(NOW), status);
    assert_eq!(several.check("m", NOW), Ok(()), "the second serves");
    assert_eq!(written(), [(whole.clone(), "m".to_owned(), false), (first.clone(), "m".to_owned(), true)]);

    change(account("k-first", &["k-second", "k-third"])).await;
    assert_eq!((state().pool[0].health.locks(NOW).len(), written().len()), (1, 0), "it has several still");

    change(account("k-first", &[])).await;
    assert_eq!((state().health.locks(NOW), state().health.status(NOW)), (vec![lock], status));
    assert_eq!(written(), [(first, "m".to_owned(), false), (whole.clone(), "m".to_owned(), true)]);

    change(account("k-other", &["k-third"])).await;
    assert_eq!(state().pool[0].check("m", NOW), Ok(()), "nothing is known of another key");
    assert_eq!((state().health.locks(NOW), state().health.status(NOW).last_error), (vec![], None));
    assert_eq!(written(), [(whole, "m".to_owned(), false)]);
}

async fn states_of_nobody_are_deleted(fixture: Fixture) {
    let connections = fixture.store.connections();
    connections.insert(&account("k-first", &["k-second"])).await.unwrap();
    // A request that ends after its key was taken out.
    write(&fixture.store, &[(id("k-gone"), banned()), (id("k-second"), banned())]).await;
    assert_eq!(known(&fixture.store).await.len(), 2);
    fixture.store.prune(NOW, &RuntimeSettings::default()).await.unwrap();
    assert_eq!(known(&fixture.store).await, [(id("k-second"), banned())]);
}

/// The operator ends in one process what several hold against an account and its keys.
async fn what_one_process_clears_all_forget_once(fixture: Fixture) {
    let (here, there) = (&fixture.store, &fixture.again().await);
    here.connections().insert(&account("k-first", &["k-second"])).await.unwrap();
    write(here, &[(ACCOUNT.into(), banned()), (id("k-first"), banned()), (id("k-second"), banned())]).await;
    let processes = [process(here).await, process(there).await];
    let state = |live: &Live| live.load().connection(&ACCOUNT.into()).unwrap().clone();
    let lock = lock();
    for round in 0..2 {
        for live in &processes {
            state(live).pool[0].health.restore_lock(lock.clone());
            assert!(state(live).check("m", NOW).is_err(), "{round}: all of its keys are banned");
        }
        let known = there.revision().await.unwrap();
        assert!(
            here.connections().clear_errors(&ACCOUNT.into(), &ConnectionStatus::default()).await.unwrap()
        );
        assert!(there.revision().await.unwrap() > known, "the other process notices");
        assert!(here.connections().get(&ACCOUNT.into()).await.unwrap().unwrap().key_statuses.is_empty());
        // Another one was just about to write what it knew before.
        write(there, &[(ACCOUNT.into(), banned())]).await;
        for (store, live) in [here, there].into_iter().zip(&processes) {
            let recorder = Remembered::default();
            reload(store, live, &recorder).await;
            assert_eq!(state(live).check("m", NOW), Ok(()), "{round}");
            let told = recorder.0.lock().unwrap().len();
            assert_eq!(told, 1, "the lock goes from the database too");
            // What is found out later holds, whatever else is changed.
            for key in &state(live).pool {
                key.health.clear(banned());
            }
            state(live).health.clear(banned());
            here.settings().change(|_| Ok::<_, ()>(())).await.unwrap().unwrap();
            reload(store, live, &recorder).await;
            assert!(state(live).check("m", NOW).is_err(), "{round}: once each time");
        }
    }
    assert!(!here.connections().clear_errors(&"nobody".into(), &ConnectionStatus::default()).await.unwrap());
    // Who begins later knows what was stored by then, and has nothing to end.
    let late = process(here).await;
    state(&late).health.clear(banned());
    here.settings().change(|_| Ok::<_, ()>(())).await.unwrap().unwrap();
    reload(here, &late, &Remembered::default()).await;
    assert!(state(&late).health.check("m", NOW).is_err());
}
