//! What models thought outlives the process: encrypted, for its tenant alone, bounded.

use bytes::Bytes;
use omniroute_domain::entity::RuntimeSettings;
use omniroute_domain::handoff::{Brief, Handoff, HandoffKey, KEPT_MS, MAX_HANDOFFS};
use omniroute_domain::session::SessionKey;
use omniroute_engine::ports::{HandoffRow, Memory, OwnerRow, ReasoningRow, Recorder as _, Unfinished};
use omniroute_store::{Location, Recalled, Store, StoreOptions, WriterOptions};

use crate::fixture::{DAY, Fixture, NOW, api_key, connection, stories, writer};

stories!(
    reasoning_is_there_after_a_restart,
    reasoning_ends_with_its_time_and_its_key,
    too_much_reasoning_is_shed_and_counted,
    the_table_is_trimmed_while_it_is_written,
    reasoning_survives_a_new_encryption_key,
    owners_are_known_after_a_restart,
    summaries_go_with_their_conversations,
    there_are_no_more_summaries_than_may_be,
);

fn row(tenant: &str, key: &str, parts: &str, created_at: i64) -> ReasoningRow {
    ReasoningRow {
        tenant: tenant.into(),
        key: key.into(),
        parts: Bytes::copy_from_slice(parts.as_bytes()),
        created_at,
        expires_at: created_at + 7 * DAY,
    }
}

async fn write(store: &Store, rows: &[ReasoningRow]) {
    let (recorder, handle) = writer(store, WriterOptions::default());
    for row in rows {
        recorder.remember(Memory::Reasoning(row.clone()));
    }
    handle.close().await;
    let stats = recorder.stats();
    assert_eq!((stats.written_memories, stats.shed_memories), (rows.len() as u64, 0));
}

async fn recalled(store: &Store, now_ms: i64, max_bytes: usize) -> (Vec<ReasoningRow>, Recalled) {
    let mut rows = Vec::new();
    let counts = store.reasoning_memory().recall(now_ms, max_bytes, |row| rows.push(row)).await.unwrap();
    assert_eq!(counts.rows, rows.len() as u64);
    (rows, counts)
}

async fn reasoning_is_there_after_a_restart(fixture: Fixture) {
    let old = row("-", "call:a", "[old]", NOW);
    let new = row("-", "call:a", "[\"nÿ\"]", NOW + 1);
    let other = row("k1", "call:a", "[other]", NOW + 2);
    write(&fixture.store, &[old, new.clone(), other.clone()]).await;
    fixture.store.close().await;
    let again = fixture.again().await;
    // The newest first, the latest of a key alone.
    assert_eq!(recalled(&again, NOW, usize::MAX).await.0, [other.clone(), new]);
    assert_eq!(recalled(&again, NOW, 300).await.0, [other], "no more than there is room for");
}

async fn reasoning_ends_with_its_time_and_its_key(fixture: Fixture) {
    let store = &fixture.store;
    store.api_keys().insert(&api_key("k1", "sk-1")).await.unwrap();
    let rows = [row("-", "call:a", "[]", NOW), row("k1", "call:b", "[]", NOW + DAY)];
    write(store, &rows).await;
    let later = NOW + 7 * DAY;
    assert_eq!(recalled(store, later, usize::MAX).await.0, rows[1..]);
    assert_eq!(recalled(store, NOW, usize::MAX).await.0.len(), 2, "what has ended is still there");
    store.prune(later, &RuntimeSettings::default()).await.unwrap();
    assert_eq!(recalled(store, NOW, usize::MAX).await.0, rows[1..], "until the house is kept");
    store.api_keys().revoke(&"k1".into(), NOW).await.unwrap();
    assert_eq!(recalled(store, NOW, usize::MAX).await.0, []);
}

async fn too_much_reasoning_is_shed_and_counted(fixture: Fixture) {
    let (recorder, handle) = writer(&fixture.store, WriterOptions::default());
    let text = "x".repeat(1 << 20);
    // The writer runs on this thread, so that all of them wait at once.
    for number in 0..12 {
        recorder.remember(Memory::Reasoning(row("-", &format!("call:{number}"), &text, NOW)));
    }
    handle.flush().await;
    let stats = recorder.stats();
    assert_eq!((stats.written_memories, stats.shed_memories), (7, 5));
    // There is room again.
    recorder.remember(Memory::Reasoning(row("-", "call:again", &text, NOW)));
    handle.close().await;
    recorder.remember(Memory::Reasoning(row("-", "call:late", &text, NOW)));
    let stats = recorder.stats();
    assert_eq!((stats.written_memories, stats.shed_memories), (8, 6), "after the end nothing is taken");
}

async fn the_table_is_trimmed_while_it_is_written(fixture: Fixture) {
    let options = WriterOptions { memory_bytes: 64 * 1024, ..WriterOptions::default() };
    let (recorder, handle) = writer(&fixture.store, options);
    let text = "x".repeat(1024);
    for number in 0..90_i64 {
        recorder.remember(Memory::Reasoning(row("-", &format!("call:{number}"), &text, NOW + number)));
        handle.flush().await;
    }
    let (rows, _) = recalled(&fixture.store, NOW, usize::MAX).await;
    // 64 kB as they are stored, and what was written since.
    assert!((37..46).contains(&rows.len()), "{} rows", rows.len());
    assert_eq!(rows[0].key, "call:89");
    assert_eq!(rows[rows.len() - 1].key, format!("call:{}", 90 - rows.len()), "the oldest went");
}

async fn reasoning_survives_a_new_encryption_key(fixture: Fixture) {
    let Location::Sqlite { .. } = fixture.options.location else { return };
    let data_dir = tempfile::tempdir().unwrap();
    let open = async |key: &str, previous: Option<&str>| {
        let location = Location::Sqlite { data_dir: data_dir.path().to_owned() };
        let (encryption_key, previous_key) = (Some(key.into()), previous.map(Into::into));
        Store::open(StoreOptions { location, encryption_key, previous_key }).await.unwrap()
    };
    let (old, new) = ("the passphrase until now", "the passphrase from now on");
    let store = open(old, None).await;
    let rows = [row("k1", "call:b", "[\"sentinel-5e1f\"]", NOW + 1), row("-", "call:a", "[1]", NOW)];
    write(&store, &rows).await;
    store.close().await;

    let store = open(new, Some(old)).await;
    assert_eq!(recalled(&store, NOW, usize::MAX).await.0, rows);
    store.rotate_encryption_key().await.unwrap();
    store.close().await;
    let store = open(new, None).await;
    assert_eq!(recalled(&store, NOW, usize::MAX).await.0, rows);
    store.close().await;
    for entry in std::fs::read_dir(data_dir.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(13).any(|window| window == b"sentinel-5e1f"), "in the clear");
    }

    // With another key nothing is read, nothing is written, and both are told.
    let store = open("not the right passphrase", None).await;
    assert_eq!(recalled(&store, NOW, usize::MAX).await.1, Recalled { rows: 0, unreadable: 2 });
    let (recorder, handle) = writer(&store, WriterOptions::default());
    recorder.remember(Memory::Reasoning(row("-", "call:c", "[]", NOW)));
    handle.close().await;
    assert_eq!((recorder.stats().written_memories, recorder.stats().shed_memories), (0, 1));
}

async fn owners_are_known_after_a_restart(fixture: Fixture) {
    let store = &fixture.store;
    store.api_keys().insert(&api_key("k1", "sk-1")).await.unwrap();
    store.connections().insert(&connection("c1", "openai", "work", None)).await.unwrap();
    let owner = |id: &str, tenant: &str, account: &str, expires_at| OwnerRow {
        response_id: id.into(),
        tenant: tenant.into(),
        connection: account.into(),
        asked: format!("asked of {account}"),
        model: "m".into(),
        unfinished: None,
        expires_at,
    };
    let unfinished = Some(Unfinished { input: 7, output: 0 });
    let mut rows = [
        OwnerRow { unfinished, ..owner("resp_1", "k1", "c2", NOW + 4) },
        // Another client of another upstream may have the same one.
        owner("resp_1", "-", "c2", NOW + 3),
        owner("resp_2", "-", "c1", NOW + 2),
        owner("resp_3", "-", "c2", NOW + 1),
    ];
    let (recorder, handle) = writer(store, WriterOptions::default());
    recorder.remember(Memory::Owner(owner("resp_1", "k1", "c1", NOW)));
    recorder.remember(Memory::Owner(OwnerRow { unfinished, ..owner("resp_2", "-", "c1", NOW) }));
    for row in &rows {
        recorder.remember(Memory::Owner(row.clone()));
    }
    handle.close().await;
    assert_eq!(recorder.stats().written_memories, 6);
    let again = fixture.again().await;
    let recalled = async |now_ms| {
        let mut found = Vec::new();
        again.response_owners().recall(now_ms, |row| found.push(row)).await.unwrap();
        found
    };
    assert_eq!(recalled(NOW).await, rows);
    assert_eq!(recalled(NOW + 1).await, rows[..3], "what has ended is not recalled");
    let owners = again.response_owners();
    for (id, expected) in [("resp_1", true), ("resp_1", false), ("resp_2", false), ("resp_0", false)] {
        assert_eq!(owners.claim("k1", id).await.unwrap(), expected, "{id}");
    }
    rows[0].unfinished = None;
    assert_eq!(recalled(NOW).await, rows, "it is billed once");
    again.prune(NOW + 1, &RuntimeSettings::default()).await.unwrap();
    assert_eq!(recalled(NOW - 1).await, rows[..3], "and then deleted");
    again.connections().delete(&"c1".into()).await.unwrap();
    assert_eq!(recalled(NOW).await, rows[..2]);
    again.api_keys().revoke(&"k1".into(), NOW).await.unwrap();
    assert_eq!(recalled(NOW).await, rows[1..2]);
}

fn summary(tenant: &str, session: &str, made_at: i64) -> HandoffRow {
    HandoffRow {
        key: HandoffKey { session: SessionKey::new(tenant, session), combo: "best".into() },
        handoff: Handoff {
            from: "c1".into(),
            brief: Brief {
                summary: "sentinel-77ab".into(),
                key_decisions: vec!["left".into()],
                ..Brief::default()
            },
            turns: 7,
            opening: u64::MAX,
            model: "up/m".into(),
            threshold_percent: 85,
            made_at,
            expires_at: made_at + KEPT_MS,
        },
    }
}

async fn remember(store: &Store, memories: impl IntoIterator<Item = Memory>) {
    let (recorder, handle) = writer(store, WriterOptions::default());
    memories.into_iter().for_each(|memory| recorder.remember(memory));
    handle.close().await;
    assert_eq!(recorder.stats().shed_memories, 0);
}

async fn summaries(store: &Store, now_ms: i64) -> Vec<HandoffRow> {
    let mut rows = Vec::new();
    store.context_handoffs().recall(now_ms, |row| rows.push(row)).await.unwrap();
    rows
}

async fn summaries_go_with_their_conversations(fixture: Fixture) {
    let store = &fixture.store;
    store.api_keys().insert(&api_key("k1", "sk-1")).await.unwrap();
    let (old, new) = (summary("-", "a", NOW), summary("-", "a", NOW + 1));
    let (own, told) = (summary("k1", "ext:x", NOW + 2), summary("-", "b", NOW));
    let gone = Memory::HandoffGone(told.key.clone());
    let made = [old, new.clone(), own.clone(), told].map(|row| Memory::Handoff(Box::new(row)));
    remember(store, made.into_iter().chain([gone])).await;
    assert_eq!(
        summaries(store, NOW).await,
        [own.clone(), new.clone()],
        "the latest of each, the newest first"
    );
    assert_eq!(summaries(store, NOW + 1 + KEPT_MS).await, [own]);
    let rows = store.rotate_encryption_key().await;
    assert!(rows.is_ok(), "{rows:?}");
    store.api_keys().revoke(&"k1".into(), NOW).await.unwrap();
    assert_eq!(summaries(store, NOW).await, [new], "a key takes what it said with it");
    store.prune(NOW + 2 * KEPT_MS, &RuntimeSettings::default()).await.unwrap();
    assert_eq!(summaries(store, NOW).await, [], "and so does time");
}

async fn there_are_no_more_summaries_than_may_be(fixture: Fixture) {
    let many = i64::try_from(MAX_HANDOFFS).unwrap() + 5;
    let rows = (0..many).map(|n| Memory::Handoff(Box::new(summary("-", &n.to_string(), NOW + n))));
    remember(&fixture.store, rows).await;
    fixture.store.prune(NOW + many, &RuntimeSettings::default()).await.unwrap();
    let rows = summaries(&fixture.store, NOW + many).await;
    assert_eq!(rows.len(), MAX_HANDOFFS);
    assert_eq!(rows.last().unwrap().key.session.id(), "5", "the oldest went");
}
