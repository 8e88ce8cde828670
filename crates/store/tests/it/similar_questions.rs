//! Questions that others may be close to outlive the process: encrypted, for their tenant alone, bounded in number.

use bytes::Bytes;
use omniroute_domain::entity::RuntimeSettings;
use omniroute_engine::ports::{Memory, QuestionRow, Recorder as _, RequestRow};
use omniroute_store::{CallLogQuery, QuestionMark, Store, WriterOptions};

use crate::fixture::{Fixture, NOW, api_key, request, stories, writer};

stories!(
    a_question_is_found_after_a_restart,
    what_others_write_is_read_once,
    it_expires_and_the_oldest_of_a_key_go,
    the_oldest_go_while_others_are_written,
    it_goes_with_its_key,
    it_is_deleted_with_its_answer,
    a_new_encryption_key_forgets_it,
    the_log_says_how_close_it_was,
);

fn row(signature: &str, created_at: i64) -> QuestionRow {
    QuestionRow {
        signature: signature.into(),
        tenant: signature.split('.').next().unwrap().into(),
        bucket: [7; 32],
        asked: "up/m".into(),
        text: "Grüße,\nwie geht's?".into(),
        vector: Bytes::copy_from_slice(&[0, 0, 128, 63, 0, 0, 0, 0]),
        created_at,
        expires_at: created_at + 1_000_000,
    }
}

async fn remember(store: &Store, rows: Vec<Memory>) {
    let (recorder, handle) = writer(store, WriterOptions::default());
    for row in rows {
        recorder.remember(row);
    }
    handle.close().await;
    assert_eq!(recorder.stats().shed_memories, 0);
}

async fn read(store: &Store, mark: &mut QuestionMark, now_ms: i64) -> Vec<QuestionRow> {
    let mut rows = Vec::new();
    store.similar_questions().since(mark, now_ms, |row| rows.push(row)).await.unwrap();
    rows
}

async fn all(store: &Store) -> Vec<String> {
    let rows = read(store, &mut QuestionMark::default(), NOW).await;
    rows.into_iter().map(|row| row.signature).collect()
}

async fn a_question_is_found_after_a_restart(fixture: Fixture) {
    let rows = vec![row("_.aa", NOW), row("k1.aa", NOW + 1)];
    remember(&fixture.store, rows.iter().cloned().map(Memory::Question).collect()).await;
    fixture.store.close().await;
    let again = fixture.again().await;
    assert_eq!(read(&again, &mut QuestionMark::default(), NOW).await, rows);
    assert_eq!(again.similar_questions().count(NOW).await.unwrap(), 2);
    // The newest is the question.
    let newer = QuestionRow { text: "other".into(), ..row("_.aa", NOW + 2) };
    remember(&again, vec![Memory::Question(newer.clone())]).await;
    assert_eq!(read(&again, &mut QuestionMark::default(), NOW).await, [rows[1].clone(), newer]);
}

async fn what_others_write_is_read_once(fixture: Fixture) {
    let (store, mut mark) = (&fixture.store, QuestionMark::default());
    remember(store, vec![Memory::Question(row("_.aa", NOW))]).await;
    assert_eq!(read(store, &mut mark, NOW).await.len(), 1);
    assert!(read(store, &mut mark, NOW).await.is_empty());
    // One of a process whose clock is behind, or that wrote late.
    let rows = [row("_.bb", NOW - 20_000), row("_.cc", NOW + 5)];
    remember(store, rows.iter().cloned().map(Memory::Question).collect()).await;
    assert_eq!(read(store, &mut mark, NOW).await, rows);
    assert!(read(store, &mut mark, NOW).await.is_empty());
}

async fn it_expires_and_the_oldest_of_a_key_go(fixture: Fixture) {
    let store = &fixture.store;
    let mut rows: Vec<_> = (0..5).map(|at| row(&format!("k1.{at}"), NOW + at)).collect();
    rows.push(row("k2.0", NOW - 10));
    rows.push(QuestionRow { expires_at: NOW + 1, ..row("k2.1", NOW) });
    remember(store, rows.into_iter().map(Memory::Question).collect()).await;
    assert_eq!(store.prune_answers(NOW + 1).await.unwrap(), 1);
    let mut settings = RuntimeSettings::default();
    settings.semantic_cache_similarity.max_entries_per_key = 2;
    store.prune(NOW, &settings).await.unwrap();
    assert_eq!(all(store).await, ["k2.0", "k1.3", "k1.4"]);
    let late = read(store, &mut QuestionMark::default(), NOW + 1_000_003).await;
    assert_eq!(late.len(), 1, "what has ended is not read");
}

async fn the_oldest_go_while_others_are_written(fixture: Fixture) {
    let options =
        WriterOptions { memory_bytes: 8 * 1024, question_bytes: 16 * 1024, ..WriterOptions::default() };
    let (recorder, handle) = writer(&fixture.store, options);
    for number in 0..60 {
        let text = "x".repeat(1024);
        recorder
            .remember(Memory::Question(QuestionRow { text, ..row(&format!("_.{number}"), NOW + number) }));
        handle.flush().await;
    }
    let left = all(&fixture.store).await;
    // 16 kB as they are stored, and what was written since.
    assert!((8..14).contains(&left.len()), "{} rows", left.len());
    assert_eq!(left.last().unwrap(), "_.59");
}

async fn it_goes_with_its_key(fixture: Fixture) {
    let store = &fixture.store;
    store.api_keys().insert(&api_key("k1", "sk-1")).await.unwrap();
    remember(store, ["_.aa", "k1.aa"].map(|one| Memory::Question(row(one, NOW))).into()).await;
    store.api_keys().revoke(&"k1".into(), NOW).await.unwrap();
    assert_eq!(all(store).await, ["_.aa"]);
}

async fn it_is_deleted_with_its_answer(fixture: Fixture) {
    let store = &fixture.store;
    let other = QuestionRow { asked: "up/n".into(), ..row("_.cc", NOW) };
    let rows = vec![row("_.aa", NOW), row("_.bb", NOW), other];
    remember(store, rows.into_iter().map(Memory::Question).collect()).await;
    let questions = store.similar_questions();
    for (model, signature, gone) in
        [(Some("up/n"), None, 1), (Some("up/n"), Some("_.aa"), 0), (None, Some("_.aa"), 1), (None, None, 1)]
    {
        assert_eq!(questions.clear(model, signature, NOW).await.unwrap(), gone, "{model:?} {signature:?}");
    }
    // Those that wait to be written go too; later ones stay.
    let cleared = Memory::AnswersCleared { model: None, signature: None, until: NOW };
    let rows = vec![Memory::Question(row("_.aa", NOW)), cleared, Memory::Question(row("_.bb", NOW + 1))];
    remember(store, rows).await;
    assert_eq!(all(store).await, ["_.bb"]);
}

async fn a_new_encryption_key_forgets_it(fixture: Fixture) {
    let store = &fixture.store;
    remember(store, vec![Memory::Question(row("_.aa", NOW))]).await;
    store.rotate_encryption_key().await.unwrap();
    assert_eq!(store.similar_questions().count(NOW).await.unwrap(), 0);
}

async fn the_log_says_how_close_it_was(fixture: Fixture) {
    let (recorder, handle) = writer(&fixture.store, WriterOptions::default());
    recorder.record(RequestRow { source: "similar", similarity: Some(0.9848), ..request("close", NOW) });
    recorder.record(request("plain", NOW));
    handle.close().await;
    let query = CallLogQuery { limit: 10, ..Default::default() };
    let (logs, _) = fixture.store.call_logs().list(&query).await.unwrap();
    let mut said: Vec<_> = logs.iter().map(|log| (&*log.cache_source, log.similarity)).collect();
    said.sort_by_key(|(source, _)| *source);
    assert_eq!(said, [("similar", Some(0.9848)), ("upstream", None)]);
}
