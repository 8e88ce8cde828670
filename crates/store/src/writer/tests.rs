//! A database that has no room.

use omniroute_dialect::ir::Usage;
use omniroute_engine::ports::RowId;

use tokio::time::sleep;

use super::*;
use crate::options::{Location, StoreOptions};
use crate::pool::Pool;
use crate::usage::Period;

const NOW: i64 = 1_767_323_045_678;

fn row(number: usize) -> RequestRow {
    RequestRow {
        id: RowId::new(NOW, [0; 10]),
        request_id: format!("req_{number}").into(),
        method: http::Method::POST,
        path: "/v1/chat/completions".into(),
        request_type: "chat",
        status: 200,
        requested_model: "m".into(),
        model: "m".into(),
        provider: Some("p".into()),
        connection: None,
        connection_name: None,
        api_key: None,
        api_key_name: None,
        client_dialect: omniroute_dialect::registry::DIALECTS[0].id(),
        upstream_dialect: None,
        stream: false,
        duration_ms: 1,
        ttft_ms: None,
        overhead_us: 1,
        units: None,
        usage: Usage::default(),
        usage_estimated: false,
        cost_nano: None,
        price_source: None,
        price_version: None,
        source: "upstream",
        similarity: None,
        combo: None,
        combo_step: None,
        is_fallback: false,
        bills: vec![],
        attempts: vec![],
        error: Some("x".repeat(1500)),
        error_code: None,
        losses: vec![],
        decision: None,
        bodies: omniroute_engine::bodies::BodyNote::Off,
    }
}

/// The limit on pages gives the same error as a disk without room.
#[tokio::test]
async fn a_full_disk_delays_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let location = Location::Sqlite { data_dir: dir.path().to_owned() };
    let options = StoreOptions { location, encryption_key: None, previous_key: None };
    let store = Store::open(options).await.unwrap();
    let Pool::Sqlite { write, .. } = store.pool() else { panic!("SQLite") };
    sqlx::query("PRAGMA max_page_count = 1").execute(write).await.unwrap();
    let cancel = CancellationToken::new();
    let options = WriterOptions { flush_interval: Duration::from_millis(1), ..WriterOptions::default() };
    let (recorder, handle) = Writer::start(store.clone(), options, &TaskTracker::new(), cancel);
    for number in 0..500 {
        recorder.record(row(number));
    }
    let failed = async {
        while recorder.stats().flush_failures == 0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), failed).await.unwrap();
    assert_eq!(recorder.stats().written_rows, 0);
    let full = store.meta().jwt_secret().await;
    assert!(full.is_ok() || full.unwrap_err().to_string().contains("the disk is full"));

    sqlx::query("PRAGMA max_page_count = 1000000").execute(write).await.unwrap();
    handle.flush().await;
    let stats = recorder.stats();
    assert_eq!((stats.written_rows, stats.shed_rows, stats.queued), (500, 0, 0));
    let history = store.usage().history(Period::All, NOW).await.unwrap();
    assert_eq!(history.total.requests, 500);
}

/// As after a commit that went through and whose acknowledgement was lost.
#[tokio::test]
async fn a_batch_of_the_same_number_is_written_once() {
    let dir = tempfile::tempdir().unwrap();
    let location = Location::Sqlite { data_dir: dir.path().to_owned() };
    let options = StoreOptions { location, encryption_key: None, previous_key: None };
    let store = Store::open(options).await.unwrap();
    let (statements, mut names, mut mark) = (Statements::new(store.pool()), Names::default(), Mark::first());
    let mut batch = Batch::default();
    batch.totals.add(&row(0));
    batch.rows.push(row(0));
    sql::write(&store, &statements, &mut names, &batch, &mut mark).await.unwrap();
    mark.again();
    sql::write(&store, &statements, &mut names, &batch, &mut mark).await.unwrap();
    assert_eq!(store.usage().history(Period::All, NOW).await.unwrap().total.requests, 1);
    assert_eq!(store.call_logs().lines(10).await.unwrap().len(), 1);
    sql::write(&store, &statements, &mut names, &batch, &mut mark).await.unwrap();
    assert_eq!(store.usage().history(Period::All, NOW).await.unwrap().total.requests, 2);
}
