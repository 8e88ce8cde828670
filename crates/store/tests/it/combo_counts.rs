//! What of combos is counted again after a restart, and what is not.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use omniroute_domain::combo::{ComboState, Place};
use omniroute_domain::entity::{Combo, Step};
use omniroute_domain::health::HealthMap;
use omniroute_domain::snapshot::{BuildOptions, Snapshot};
use omniroute_engine::Live;
use omniroute_engine::ports::{AttemptRow, COUNT, Recorder as _, RequestRow};
use omniroute_provider::catalog::catalog;
use omniroute_store::{Store, WriterOptions};

use crate::fixture::{
    self, Fixture, NOW, Remembered, attempt, connection, process, request, stories, writer,
};
use crate::put;

stories!(
    what_one_process_clears_all_clear_once,
    counts_begin_where_they_were_cleared,
    who_chooses_among_all_shares_counts,
    what_is_not_tracked_is_not_counted,
    fallbacks_are_those_that_were_counted_while_they_happened,
    counts_of_tokens_take_no_place
);

fn combo(name: &str, strategy: &str, models: &[&str]) -> Combo {
    let step = |model: &&str| Step::to_model(format!("{name}-{model}"), *model);
    Combo::new(format!("id-{name}"), name, strategy, models.iter().map(step).collect(), NOW)
}

async fn with(store: &Store, combos: Vec<Combo>) -> Snapshot {
    store.connections().insert(&connection("c1", "openai", "work", Some("sk-1"))).await.unwrap();
    for combo in combos {
        put::new_combo(store, combo).await.unwrap();
    }
    snapshot(store).await
}

/// As a process has it that has just begun.
async fn snapshot(store: &Store) -> Snapshot {
    let health = HealthMap::default();
    Snapshot::build(&store.entities().await.unwrap(), catalog(), &health, &BuildOptions::default())
}

/// Requests that the first step of each combo answered.
async fn answered(store: &Store, asked: &[(&Arc<ComboState>, &str, i64)]) {
    let (recorder, handle) = writer(store, WriterOptions::default());
    for (combo, name, timestamp_ms) in asked {
        let path = [Place { combo: Arc::clone(combo), step: 0 }].into_iter().collect();
        let attempts = vec![AttemptRow { path, ..attempt("c1", Some(200), None) }];
        let combo = Some(combo.name.clone());
        recorder.record(RequestRow { combo, attempts, ..request(name, *timestamp_ms) });
    }
    handle.close().await;
}

/// Requests of a combo and of its first step, as they are counted again.
async fn counted(store: &Store, combo: &str) -> [u64; 2] {
    let snapshot = snapshot(store).await;
    store.combo_memories().recall(&snapshot).await.unwrap();
    let combo = snapshot.combo(combo).unwrap();
    [combo.memory.stats.totals().requests, combo.steps[0].stats.totals().requests]
}

/// Two processes on one database.
async fn what_one_process_clears_all_clear_once(fixture: Fixture) {
    let (here, there) = (&fixture.store, &fixture.again().await);
    let models = ["openai/gpt-5.6"];
    let combos =
        [combo("best", "priority", &models), combo("kept", "priority", &models), combo("any", "auto", &[])];
    with(here, combos.into()).await;
    let processes = [process(here).await, process(there).await];
    let reload =
        async |store: &Store, live: &Live| fixture::reload(store, live, &Remembered::default()).await;
    let count = |live: &Live, name: &str| {
        let combo = Arc::clone(live.load().combo(name).unwrap());
        combo.memory.stats.note(Some(5), NOW);
        combo.memory.fallbacks.fetch_add(1, Ordering::Relaxed);
        combo.steps[0].stats.note(Some(5), NOW);
    };
    let counted = |live: &Live, name: &str| {
        let combo = Arc::clone(live.load().combo(name).unwrap());
        let fallbacks = combo.memory.fallbacks.load(Ordering::Relaxed);
        [combo.memory.stats.totals().requests, fallbacks, combo.steps[0].stats.totals().requests]
    };
    let known = there.revision().await.unwrap();
    for live in &processes {
        ["best", "kept", "any"].iter().for_each(|name| count(live, name));
    }
    for round in 0..2 {
        // Both times at the same time.
        here.combo_memories().clear(&["id-best".into(), "id-any".into()], true, NOW).await.unwrap();
        assert!(there.revision().await.unwrap() > known + round, "the other process notices");
        for (store, live) in [here, there].into_iter().zip(&processes) {
            reload(store, live).await;
            assert_eq!((counted(live, "best"), counted(live, "any")), ([0; 3], [0; 3]), "{round}");
            assert_eq!(counted(live, "kept"), [1; 3]);
            count(live, "best");
            count(live, "any");
            reload(store, live).await;
            assert_eq!((counted(live, "best"), counted(live, "any")), ([1; 3], [1; 3]), "once each time");
        }
    }
    // Nor does it clear what a process counts from the log when it begins.
    let late = process(there).await;
    count(&late, "best");
    reload(there, &late).await;
    assert_eq!(counted(&late, "best"), [1; 3]);
}

async fn counts_begin_where_they_were_cleared(fixture: Fixture) {
    let store = &fixture.store;
    let models = ["openai/gpt-5.6"];
    let combos = ["best", "other"].map(|name| combo(name, "priority", &models));
    let snapshot = with(store, combos.into()).await;
    let (best, other) = (snapshot.combo("best").unwrap(), snapshot.combo("other").unwrap());
    answered(store, &[(best, "a", NOW), (best, "b", NOW + 5), (other, "c", NOW)]).await;
    assert_eq!((counted(store, "best").await, counted(store, "other").await), ([2, 2], [1, 1]));
    store.combo_memories().clear(std::slice::from_ref(&best.id), false, NOW + 1).await.unwrap();
    assert_eq!((counted(store, "best").await, counted(store, "other").await), ([1, 1], [1, 1]));
    store.combo_memories().clear(std::slice::from_ref(&best.id), false, NOW + 5).await.unwrap();
    assert_eq!(counted(store, "best").await, [0, 0]);
    // Nothing is kept of a combo that is gone.
    assert!(store.combos().delete(&best.id, |_| Ok::<_, ()>(())).await.unwrap().unwrap());
    put::new_combo(store, combo("best", "priority", &models)).await.unwrap();
    assert_eq!(counted(store, "best").await, [2, 2]);
}

async fn who_chooses_among_all_shares_counts(fixture: Fixture) {
    let store = &fixture.store;
    let snapshot = with(store, vec![combo("any", "auto", &[])]).await;
    let (any, fast) = (snapshot.combo("any").unwrap(), snapshot.combo("auto/fast").unwrap());
    answered(store, &[(any, "a", NOW), (fast, "b", NOW)]).await;
    assert_eq!((counted(store, "any").await, counted(store, "auto/fast").await), ([1, 2], [1, 2]));
    assert!(snapshot.chooses_from_pool(any) && snapshot.chooses_from_pool(fast));
    store.combo_memories().clear(std::slice::from_ref(&any.id), true, NOW).await.unwrap();
    assert_eq!((counted(store, "any").await, counted(store, "auto/fast").await), ([0, 0], [1, 0]));
}

async fn what_is_not_tracked_is_not_counted(fixture: Fixture) {
    let store = &fixture.store;
    let mut quiet = combo("quiet", "priority", &["openai/gpt-5.6"]);
    quiet.config.track_metrics = Some(false);
    let snapshot = with(store, vec![quiet]).await;
    answered(store, &[(snapshot.combo("quiet").unwrap(), "a", NOW)]).await;
    assert_eq!(counted(store, "quiet").await, [0, 0]);
}

/// Which of these are fallbacks cannot be seen from their attempts: a locked target is not called, and the losers of a race are.
async fn fallbacks_are_those_that_were_counted_while_they_happened(fixture: Fixture) {
    let store = &fixture.store;
    let snapshot = with(store, vec![combo("best", "race", &["openai/gpt-5.6"])]).await;
    let best = snapshot.combo("best").unwrap();
    let path: smallvec::SmallVec<_> = [Place { combo: Arc::clone(best), step: 0 }].into_iter().collect();
    let made = |failures: &[Option<&'static str>]| -> Vec<AttemptRow> {
        let one = |failure: &Option<&'static str>| attempt("c1", failure.is_none().then_some(200), *failure);
        failures.iter().map(|failure| AttemptRow { path: path.clone(), ..one(failure) }).collect()
    };
    let (recorder, handle) = writer(store, WriterOptions::default());
    let cases = [
        ("once", false, made(&[None])),
        ("locked", true, made(&[None])),
        ("beaten", false, made(&[Some("cancelled"), None])),
        ("failed", true, made(&[Some("transient"), None])),
    ];
    for (place, (name, is_fallback, attempts)) in (0..).zip(cases) {
        let combo = Some(best.name.clone());
        recorder.record(RequestRow { combo, is_fallback, attempts, ..request(name, NOW + place) });
    }
    handle.close().await;
    let snapshot = self::snapshot(store).await;
    store.combo_memories().recall(&snapshot).await.unwrap();
    let memory = &snapshot.combo("best").unwrap().memory;
    assert_eq!((memory.stats.totals().requests, memory.fallbacks.load(Ordering::Relaxed)), (4, 2));
}

async fn counts_of_tokens_take_no_place(fixture: Fixture) {
    let store = &fixture.store;
    let known = with(store, vec![combo("best", "priority", &["openai/gpt-5.6"])]).await;
    let best = known.combo("best").unwrap();
    answered(store, &[(best, "r1", NOW)]).await;
    let (recorder, handle) = writer(store, WriterOptions::default());
    let attempts = vec![attempt("c1", Some(200), None)];
    let combo = Some(best.name.clone());
    recorder.record(RequestRow { combo, attempts, request_type: COUNT, ..request("r2", NOW + 1) });
    handle.close().await;
    assert_eq!(store.combo_memories().recall(&snapshot(store).await).await.unwrap(), 1);
    assert_eq!(counted(store, "best").await, [1, 1]);
}
