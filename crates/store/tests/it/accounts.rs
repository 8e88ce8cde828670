//! What is remembered of accounts: learned limits, the conversations that stay with them, and their further keys.

use omniroute_domain::entity::{KeyPool, RuntimeSettings};
use omniroute_domain::limiter::{LearnedLimits, LearnedWindow};
use omniroute_domain::session::{Affinity, SessionKey};
use omniroute_engine::ports::{LimitsRow, Memory, Recorder as _};
use omniroute_store::{Location, Store, StoreOptions, WriterOptions};
use secrecy::ExposeSecret as _;

use crate::fixture::{DAY, Fixture, NOW, api_key, connection, stories, writer};
use crate::put;

stories!(
    learned_limits_are_there_for_a_day,
    conversations_find_their_accounts_again,
    further_keys_are_encrypted_and_survive_a_new_encryption_key,
);

async fn write(store: &Store, memories: Vec<Memory>) {
    let (recorder, handle) = writer(store, WriterOptions::default());
    let count = memories.len() as u64;
    memories.into_iter().for_each(|memory| recorder.remember(memory));
    handle.close().await;
    assert_eq!((recorder.stats().written_memories, recorder.stats().shed_memories), (count, 0));
}

pub(crate) fn limits(account: &str, model: &str, remaining: u64, updated_at: i64) -> LimitsRow {
    let window = LearnedWindow { limit: Some(100), remaining, until: NOW + DAY, spacing_ms: 590 };
    let limits = LearnedLimits { requests: Some(window), ..LearnedLimits::default() };
    LimitsRow { connection: account.into(), model: model.into(), limits, updated_at }
}

async fn learned_limits_are_there_for_a_day(fixture: Fixture) {
    let store = &fixture.store;
    store.connections().insert(&connection("c1", "openai", "work", None)).await.unwrap();
    let rows = [limits("c1", "a", 3, NOW + 2), limits("c2", "a", 4, NOW + 1)];
    let mut memories = vec![Memory::Limits(limits("c1", "a", 9, NOW))];
    memories.extend(rows.iter().cloned().map(Memory::Limits));
    write(store, memories).await;
    let again = fixture.again().await;
    let recalled = async |now_ms| {
        let mut found = Vec::new();
        again.learned_limits().recall(now_ms, |row| found.push(row)).await.unwrap();
        found
    };
    assert_eq!(recalled(NOW + 3).await, rows, "the latest of each");
    assert_eq!(recalled(NOW + 1 + DAY).await, rows[..1], "a day, and no longer");
    again.prune(NOW + 1 + DAY, &RuntimeSettings::default()).await.unwrap();
    assert_eq!(recalled(NOW).await, rows[..1]);
    again.connections().delete(&"c1".into()).await.unwrap();
    assert_eq!(recalled(NOW).await, []);
}

async fn conversations_find_their_accounts_again(fixture: Fixture) {
    let store = &fixture.store;
    store.api_keys().insert(&api_key("k1", "sk-1")).await.unwrap();
    store.connections().insert(&connection("c1", "openai", "work", None)).await.unwrap();
    let row = |tenant: &str, session: &str, account: &str, last_seen_at| Affinity {
        tenant: tenant.into(),
        session: session.into(),
        provider: "openai".into(),
        connection: account.into(),
        created_at: NOW,
        last_seen_at,
    };
    let kept =
        [row("k1", "ext:a", "c2", NOW + 1), row("-", "ext:a", "c2", NOW + 2), row("-", "b", "c1", NOW + 3)];
    let mut memories = vec![
        Memory::Pinned(row("k1", "ext:a", "c1", NOW)),
        Memory::Pinned(row("-", "ended", "c1", NOW)),
        Memory::Unpinned(SessionKey::new("-", "ended")),
    ];
    memories.extend(kept.iter().cloned().map(Memory::Pinned));
    write(store, memories).await;
    let again = fixture.again().await;
    let recalled = async |since_ms| {
        let mut found = Vec::new();
        again.session_affinity().recall(since_ms, |row| found.push(row)).await.unwrap();
        found
    };
    assert_eq!(recalled(NOW - 1).await, kept, "those silent for longest first");
    assert_eq!(recalled(NOW + 2).await, kept[2..]);
    again.prune(NOW + 1 + DAY, &RuntimeSettings::default()).await.unwrap();
    assert_eq!(recalled(0).await, kept[1..], "a day of silence is enough");
    again.connections().delete(&"c1".into()).await.unwrap();
    assert_eq!(recalled(0).await, kept[1..2]);
    write(&again, vec![Memory::Pinned(row("k1", "c", "c2", NOW))]).await;
    again.api_keys().revoke(&"k1".into(), NOW).await.unwrap();
    assert_eq!(recalled(0).await, kept[1..2]);
}

async fn further_keys_are_encrypted_and_survive_a_new_encryption_key(fixture: Fixture) {
    let Location::Sqlite { .. } = fixture.options.location else { return };
    let folder = tempfile::tempdir().unwrap();
    let open = async |key: &str, previous: Option<&str>| {
        let location = Location::Sqlite { data_dir: folder.path().to_owned() };
        let (encryption_key, previous_key) = (Some(key.into()), previous.map(Into::into));
        Store::open(StoreOptions { location, encryption_key, previous_key }).await.unwrap()
    };
    let pool = async |store: &Store| {
        let row = store.connections().get(&"c1".into()).await.unwrap().unwrap();
        let keys = row.options.api_keys.0;
        keys.iter().map(|key| key.expose_secret().to_owned()).collect::<Vec<_>>()
    };
    let keys = ["sk-pool-one", "sk-pool-two"];
    let mut row = connection("c1", "openai", "work", Some("sk-first"));
    row.options.api_keys = KeyPool(keys.iter().map(|key| (*key).into()).collect());
    let store = open("the passphrase until now", None).await;
    let stored = store.connections().insert(&row).await.unwrap();
    assert_eq!(stored.options.api_keys, row.options.api_keys);
    assert!(!serde_json::to_string(&stored.options).unwrap().contains("sk-pool"), "never among the options");
    assert!(!format!("{stored:?}").contains("sk-pool"), "never in a log");
    store.close().await;
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap_or_default();
        assert!(!bytes.windows(7).any(|window| window == b"sk-pool"), "never in the clear");
    }

    // Who cannot read them destroys nothing.
    let wrong = open("another passphrase", None).await;
    let mut broken = wrong.load().await.unwrap().entities.connections.remove(0);
    assert!(broken.options.api_keys.is_empty());
    broken.name = "renamed".into();
    put::connection(&wrong, &broken).await.unwrap();
    wrong.close().await;

    let store = open("the new passphrase", Some("the passphrase until now")).await;
    assert_eq!(pool(&store).await, keys);
    assert_eq!(store.rotate_encryption_key().await.unwrap(), 2, "the first key and the further ones");
    store.close().await;
    let store = open("the new passphrase", None).await;
    assert_eq!(pool(&store).await, keys);
    row.options.api_keys = KeyPool::default();
    put::connection(&store, &row).await.unwrap();
    assert!(pool(&store).await.is_empty(), "taken away");
}
