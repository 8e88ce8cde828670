//! Answers for whoever asks for the same outlive the process: encrypted, for their tenant alone, bounded by time and bytes.

use std::sync::Arc;

use bytes::Bytes;
use omniroute_dialect::registry;
use omniroute_domain::entity::RuntimeSettings;
use omniroute_engine::ports::{
    AnswerRow, BillRow, KeptAnswer, Memory, Recorder as _, RequestRow, Shelf as _,
};
use omniroute_store::{CallLogQuery, Store, WriterOptions};

use crate::fixture::{Fixture, NOW, api_key, request, stories, writer};

stories!(
    an_answer_is_found_after_a_restart,
    it_ends_to_the_millisecond_and_is_swept,
    it_goes_with_its_key,
    it_is_deleted_by_model_by_signature_or_all,
    what_waits_to_be_written_is_deleted_too,
    a_new_encryption_key_forgets_it,
    what_was_saved_is_in_the_ledger_and_in_no_balance,
);

fn row(signature: &str, body: &str) -> AnswerRow {
    AnswerRow {
        signature: signature.into(),
        tenant: signature.split('.').next().unwrap().into(),
        answer: Arc::new(KeptAnswer {
            asked: "up/m".into(),
            provider: "openai".into(),
            model: "gpt-4o".into(),
            dialect: registry::by_name("openai").unwrap().id(),
            tokens: 5,
            cost_nano: Some(7),
            body: Bytes::copy_from_slice(body.as_bytes()),
        }),
        created_at: NOW,
        expires_at: NOW + 1_000,
    }
}

async fn remember(store: &Store, memories: Vec<Memory>) {
    let (recorder, handle) = writer(store, WriterOptions::default());
    for memory in memories {
        recorder.remember(memory);
    }
    handle.close().await;
    assert_eq!(recorder.stats().shed_memories, 0);
}

async fn an_answer_is_found_after_a_restart(fixture: Fixture) {
    let first = row("_.aa", r#"{"text":"Grüße"}"#);
    let used = Memory::AnswerUsed { signature: "_.aa".into(), times: 3 };
    remember(&fixture.store, vec![Memory::Answer(first.clone()), Memory::Answer(row("k1.aa", "{}")), used])
        .await;
    fixture.store.close().await;
    assert!(fixture.store.find("_.aa", NOW).await.is_err(), "a database that is gone does not say: nothing");
    let again = fixture.again().await;
    assert_eq!(again.find("_.aa", NOW).await.unwrap(), Some(first));
    assert_eq!(again.find("_.bb", NOW).await.unwrap(), None);
    assert_eq!(again.answers().count(NOW).await.unwrap(), 2);
    // The newest answer is the answer.
    let other = AnswerRow { created_at: NOW + 1, ..row("_.aa", "{}") };
    remember(&again, vec![Memory::Answer(other.clone())]).await;
    assert_eq!(again.find("_.aa", NOW).await.unwrap(), Some(other));
}

async fn it_ends_to_the_millisecond_and_is_swept(fixture: Fixture) {
    let store = &fixture.store;
    remember(store, vec![Memory::Answer(row("_.aa", "{}"))]).await;
    assert!(store.find("_.aa", NOW + 999).await.unwrap().is_some());
    assert!(store.find("_.aa", NOW + 1_000).await.unwrap().is_none());
    assert_eq!(store.answers().count(NOW + 1_000).await.unwrap(), 0);
    assert_eq!(store.prune_answers(NOW + 999).await.unwrap(), 0);
    assert_eq!(store.prune_answers(NOW + 1_000).await.unwrap(), 1);
    assert!(store.find("_.aa", NOW).await.unwrap().is_none());
    store.prune(NOW, &RuntimeSettings::default()).await.unwrap();
}

async fn it_goes_with_its_key(fixture: Fixture) {
    let store = &fixture.store;
    store.api_keys().insert(&api_key("k1", "sk-1")).await.unwrap();
    remember(store, ["_.aa", "k1.aa"].map(|one| Memory::Answer(row(one, "{}"))).into()).await;
    store.api_keys().revoke(&"k1".into(), NOW).await.unwrap();
    assert!(
        store.find("_.aa", NOW).await.unwrap().is_some() && store.find("k1.aa", NOW).await.unwrap().is_none()
    );
}

async fn it_is_deleted_by_model_by_signature_or_all(fixture: Fixture) {
    let (store, answers) = (&fixture.store, fixture.store.answers());
    let mut other = row("_.cc", "{}");
    other.answer = Arc::new(KeptAnswer { asked: "up/n".into(), ..KeptAnswer::clone(&other.answer) });
    let rows = vec![row("_.aa", "{}"), row("_.bb", "{}"), other];
    remember(store, rows.into_iter().map(Memory::Answer).collect()).await;
    for (model, signature, gone) in
        [(Some("up/n"), None, 1), (Some("up/n"), Some("_.aa"), 0), (None, Some("_.aa"), 1), (None, None, 1)]
    {
        assert_eq!(answers.clear(model, signature, NOW).await.unwrap(), gone, "{model:?} {signature:?}");
    }
    assert_eq!(answers.count(NOW).await.unwrap(), 0);
}

async fn what_waits_to_be_written_is_deleted_too(fixture: Fixture) {
    let store = &fixture.store;
    let later = AnswerRow { created_at: NOW + 1, ..row("_.bb", "{}") };
    let cleared = Memory::AnswersCleared { model: None, signature: None, until: NOW };
    remember(store, vec![Memory::Answer(row("_.aa", "{}")), cleared, Memory::Answer(later)]).await;
    assert!(
        store.find("_.aa", NOW).await.unwrap().is_none() && store.find("_.bb", NOW).await.unwrap().is_some()
    );
}

async fn a_new_encryption_key_forgets_it(fixture: Fixture) {
    let store = &fixture.store;
    remember(store, vec![Memory::Answer(row("_.aa", "{}"))]).await;
    store.rotate_encryption_key().await.unwrap();
    assert_eq!(store.answers().count(NOW).await.unwrap(), 0);
}

async fn what_was_saved_is_in_the_ledger_and_in_no_balance(fixture: Fixture) {
    let (recorder, handle) = writer(&fixture.store, WriterOptions::default());
    let bill = |amount_nano, is_saved| BillRow {
        attempt: 1,
        provider: "openai".into(),
        model: "gpt-4o".into(),
        usage: request("x", NOW).usage,
        units: None,
        estimated: false,
        amount_nano,
        price_source: None,
        price_version: None,
        settled_ms: NOW,
        is_saved,
    };
    recorder.record(RequestRow { bills: vec![bill(Some(5), false)], ..request("paid", NOW) });
    recorder.record(RequestRow {
        bills: vec![bill(Some(7), true)],
        cost_nano: Some(0),
        source: "semantic",
        ..request("saved", NOW)
    });
    handle.close().await;
    let rows = fixture.store.ledger().list(10).await.unwrap();
    let mut kinds: Vec<_> = rows.iter().map(|row| (&*row.kind, row.amount_nano)).collect();
    kinds.sort();
    assert_eq!(kinds, [("saved", Some(7)), ("settle", Some(5))]);
    let sums = fixture.store.ledger().sums(&Default::default(), NOW).await.unwrap();
    assert!(sums.iter().all(|(_, sums)| (sums.total_nano, sums.entries) == (5, 1)), "{sums:?}");
    let (logs, _) =
        fixture.store.call_logs().list(&CallLogQuery { limit: 10, ..Default::default() }).await.unwrap();
    let mut saved: Vec<_> = logs.iter().map(|log| (&*log.cache_source, log.saved_nano)).collect();
    saved.sort();
    assert_eq!(saved, [("semantic", Some(7)), ("upstream", None)]);
}
