//! What requests leave behind is written: in batches, through failures, and before the end.

use std::borrow::Cow;
use std::time::Duration;

use omniroute_dialect::ir::{Loss, LossAction};
use omniroute_domain::entity::{ConnectionStatus, RuntimeSettings, TestStatus};
use omniroute_engine::ports::Recorder as _;
use omniroute_store::{
    AttemptDetail, CallLogQuery, Location, LoggedLoss, Period, RecorderStats, WriterOptions,
};

use crate::fixture::{
    DAY, Fixture, HOUR, NOW, api_key, attempt, connection, request, row_id, stories, writer,
};

stories!(
    a_request_is_logged_as_it_was,
    the_log_is_filtered_and_paged,
    rows_are_shed_but_totals_are_not,
    a_full_batch_does_not_wait,
    closing_writes_what_is_left,
    a_refused_row_does_not_stop_the_others,
    statuses_and_last_uses_are_written,
    two_writers_never_wait_in_a_circle,
    the_log_is_bounded,
);

/// Writes only when asked, or at the end.
pub(crate) const SLOW: WriterOptions = WriterOptions {
    queue_rows: 8192,
    flush_rows: usize::MAX,
    flush_interval: Duration::from_secs(3600),
    batch_rows: 1024,
    memory_bytes: 1 << 20,
    question_bytes: 1 << 20,
};

fn all() -> CallLogQuery {
    CallLogQuery { limit: 1000, ..CallLogQuery::default() }
}

/// Two processes add to the same rows at once, each in its own order of time.
async fn two_writers_never_wait_in_a_circle(fixture: Fixture) {
    const KEYS: i64 = 40;
    const ROUNDS: i64 = 12;
    let other = fixture.again().await;
    let names: Vec<String> = (0..KEYS).map(|number| format!("c{number}")).collect();
    for name in &names {
        let account = connection(name, "openai", name, None);
        fixture.store.connections().insert(&account).await.unwrap();
    }
    let start = NOW - NOW.rem_euclid(DAY);
    let writers = [writer(&fixture.store, SLOW), writer(&other, SLOW)];
    for round in 0..ROUNDS {
        for (side, (recorder, _)) in writers.iter().enumerate() {
            for step in 0..KEYS {
                let key = if side == 0 { step } else { KEYS - 1 - step };
                let mut row = request(&format!("{side}{key}"), start + round * HOUR + step * 60_000);
                row.model = format!("m{key}").into();
                row.connection = Some(names[usize::try_from(key).unwrap()].as_str().into());
                row.request_type = ["chat", "embedding", "image"][usize::try_from(key % 3).unwrap()];
                recorder.record(row);
                if key % 2 == i64::try_from(side).unwrap() {
                    let status = ConnectionStatus { last_tested: Some(NOW), ..ConnectionStatus::default() };
                    recorder.connection_status(&names[usize::try_from(key).unwrap()].as_str().into(), status);
                }
            }
        }
        tokio::join!(writers[0].1.flush(), writers[1].1.flush());
    }
    for (recorder, _) in &writers {
        assert_eq!(recorder.stats().flush_failures, 0);
    }
    let history = fixture.store.usage().history(Period::All, NOW).await.unwrap();
    assert_eq!(history.total.requests, 2 * KEYS * ROUNDS);
}

async fn a_request_is_logged_as_it_was(fixture: Fixture) {
    let (recorder, handle) = writer(&fixture.store, SLOW);
    let mut row = request("r1", NOW);
    row.attempts = vec![attempt("c0", Some(429), Some("rate_limit")), attempt("c1", Some(200), None)];
    row.losses = vec![Loss { path: Cow::Borrowed("top_k"), action: LossAction::Dropped, silent: false }];
    recorder.record(row.clone());
    let mut failed = request("r2", NOW + 1);
    failed.provider = None;
    failed.connection = None;
    failed.connection_name = None;
    failed.api_key = None;
    failed.api_key_name = None;
    failed.model = "".into();
    failed.upstream_dialect = None;
    failed.status = 404;
    failed.usage = omniroute_dialect::ir::Usage::default();
    failed.cost_nano = None;
    failed.error = Some("no such model\0".into());
    failed.error_code = Some("model_not_found".into());
    recorder.record(failed);
    handle.flush().await;

    let get = async |name, timestamp_ms| {
        fixture.store.call_logs().get(&row_id(name, timestamp_ms).to_string()).await.unwrap()
    };
    let log = get("r1", NOW).await.unwrap();
    assert_eq!(log.id, row.id.to_string());
    assert_eq!((log.timestamp, log.status, log.stream), (NOW, 200, true));
    assert_eq!((log.requested_model.as_str(), log.model.as_str()), ("fast", "gpt-4o"));
    assert_eq!((log.source_format.as_str(), log.target_format.as_deref()), ("openai", Some("anthropic")));
    assert_eq!((log.tokens_in, log.tokens_out, log.tokens_cache_read), (Some(15), Some(7), Some(5)));
    assert_eq!((log.tokens_cache_creation, log.tokens_reasoning), (None, Some(2)));
    assert_eq!(log.service_tier.as_deref(), Some("flex"));
    assert_eq!((log.cost_nano, log.price_source.as_deref()), (Some(1_500), Some("catalog")));
    assert_eq!((log.attempts, log.attempt_details.len()), (2, 2));
    let detail = |connection: &str, status, failure: Option<&str>| AttemptDetail {
        provider: "openai".into(),
        model: "gpt-4o".into(),
        connection_id: connection.into(),
        connection_name: format!("name of {connection}"),
        status: Some(status),
        failure: failure.map(str::to_owned),
        message: failure.map(|class| format!("it was {class}")),
        duration_ms: 30,
    };
    assert_eq!(log.attempt_details, [detail("c0", 429, Some("rate_limit")), detail("c1", 200, None)]);
    assert_eq!(log.losses, [LoggedLoss { path: "top_k".into(), class: "dropped".into() }]);
    assert_eq!((log.account.as_deref(), log.api_key_name.as_deref()), (Some("work"), Some("dev")));

    let log = get("r2", NOW + 1).await.unwrap();
    assert_eq!((log.provider, log.tokens_in, log.cost_nano), (None, None, None));
    assert_eq!(log.error.as_deref(), Some("no such model\u{fffd}"));
    assert!(get("r3", NOW).await.is_none() && get("r1", NOW + 1).await.is_none());
    assert!(fixture.store.call_logs().get("r1").await.unwrap().is_none());

    let lines = fixture.store.call_logs().lines(10).await.unwrap();
    assert_eq!(lines.iter().map(|line| line.model.as_str()).collect::<Vec<_>>(), ["fast", "gpt-4o"]);
    let total = fixture.store.usage().history(Period::All, NOW + 2).await.unwrap().total;
    assert_eq!((total.requests, total.errors), (1, 0), "only what reached a provider is usage");
    assert_eq!(recorder.stats(), RecorderStats { written_rows: 2, ..RecorderStats::default() });
}

async fn the_log_is_filtered_and_paged(fixture: Fixture) {
    let (recorder, handle) = writer(&fixture.store, SLOW);
    for number in 0..10_i64 {
        let mut row = request(&format!("r{number}"), NOW + number);
        if number % 2 == 0 {
            row.provider = Some("anthropic".into());
            row.model = "claude-5".into();
            row.connection = Some("c2".into());
        }
        if number == 3 {
            row.status = 502;
            row.error = Some("100% Broken_pipe".into());
            row.api_key = Some("k2".into());
        }
        recorder.record(row);
    }
    handle.flush().await;
    let ids = async |query: CallLogQuery| {
        let (rows, total) = fixture.store.call_logs().list(&query).await.unwrap();
        let names: Vec<_> = rows.iter().map(|row| row.request_id.trim_start_matches("req_")).collect();
        (names.join(" "), total)
    };
    let text = |text: &str| Some(text.to_owned());
    for (query, expected, total) in [
        (CallLogQuery { limit: 2, offset: 1, ..all() }, "r8 r7", 10),
        (CallLogQuery { status: Some(502), ..all() }, "r3", 1),
        (CallLogQuery { errors_only: true, ..all() }, "r3", 1),
        (CallLogQuery { provider: text("anthropic"), limit: 1, ..all() }, "r8", 5),
        (CallLogQuery { model: text("claude-5"), limit: 1, ..all() }, "r8", 5),
        (CallLogQuery { model: text("fast"), limit: 1, ..all() }, "r9", 10),
        (CallLogQuery { api_key: text("k2"), ..all() }, "r3", 1),
        (CallLogQuery { connection: text("c2"), limit: 1, ..all() }, "r8", 5),
        (CallLogQuery { q: text("broken_PIPE"), ..all() }, "r3", 1),
        (CallLogQuery { q: text("0% b"), ..all() }, "r3", 1),
        (CallLogQuery { q: text("%"), ..all() }, "r3", 1),
        (CallLogQuery { q: text("nowhere"), ..all() }, "", 0),
        (CallLogQuery { since: Some(NOW + 2), until: Some(NOW + 4), ..all() }, "r3 r2", 2),
    ] {
        assert_eq!(ids(query.clone()).await, (expected.to_owned(), total), "{query:?}");
    }
}

async fn rows_are_shed_but_totals_are_not(fixture: Fixture) {
    let (recorder, handle) = writer(&fixture.store, WriterOptions { queue_rows: 10, ..SLOW });
    // Nothing is drained while this task does not wait.
    for number in 0..1000_i64 {
        recorder.record(request(&format!("r{number:04}"), NOW));
    }
    let stats = recorder.stats();
    assert_eq!((stats.queued, stats.shed_rows), (10, 990));
    handle.flush().await;
    let stats = recorder.stats();
    assert_eq!((stats.queued, stats.written_rows, stats.flush_failures), (0, 10, 0));
    let history = fixture.store.usage().history(Period::All, NOW).await.unwrap();
    assert_eq!(history.total.requests, 1000);
    assert_eq!(history.total.prompt_tokens, 15_000);
    assert_eq!(history.total.cost_nano, 1_500_000);
    assert_eq!(fixture.store.call_logs().list(&all()).await.unwrap().1, 10);
}

async fn a_full_batch_does_not_wait(fixture: Fixture) {
    let (recorder, _handle) = writer(&fixture.store, WriterOptions { flush_rows: 50, ..SLOW });
    for number in 0..70 {
        recorder.record(request(&format!("r{number}"), NOW));
    }
    let written = async {
        while recorder.stats().written_rows < 70 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), written).await.expect("written without being asked");
}

async fn closing_writes_what_is_left(fixture: Fixture) {
    let (recorder, handle) = writer(&fixture.store, WriterOptions { batch_rows: 100, ..SLOW });
    for number in 0..2500 {
        recorder.record(request(&format!("r{number}"), NOW));
    }
    handle.close().await;
    assert_eq!(recorder.stats(), RecorderStats { written_rows: 2500, ..RecorderStats::default() });
    recorder.record(request("late", NOW));
    assert_eq!(recorder.stats().shed_rows, 1, "after the end nothing is taken, and that is told");
    handle.flush().await;
    fixture.store.close().await;
    let history = fixture.again().await.usage().history(Period::All, NOW).await.unwrap();
    assert_eq!(history.total.requests, 2500);
}

async fn a_refused_row_does_not_stop_the_others(fixture: Fixture) {
    refuse_rows_of_the_status(&fixture, 418).await;
    let (recorder, handle) = writer(&fixture.store, SLOW);
    for number in 0..20 {
        let mut row = request(&format!("r{number}"), NOW);
        row.status = if number == 7 { 418 } else { 200 };
        recorder.record(row);
    }
    handle.flush().await;
    let stats = recorder.stats();
    assert_eq!((stats.written_rows, stats.shed_rows), (19, 1));
    assert!(stats.flush_failures >= 1);
    assert_eq!(fixture.store.usage().history(Period::All, NOW).await.unwrap().total.requests, 20);
    assert_eq!(fixture.store.call_logs().list(&all()).await.unwrap().1, 19);
}

/// Another program put a rule on the table.
pub(crate) async fn refuse_rows_of_the_status(fixture: &Fixture, status: i64) {
    use sqlx::{Connection as _, Executor as _};
    match &fixture.options.location {
        Location::Sqlite { data_dir } => {
            let options = sqlx::sqlite::SqliteConnectOptions::new().filename(data_dir.join("storage.sqlite"));
            let mut other = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
            let rule = format!(
                "CREATE TRIGGER refuse BEFORE INSERT ON call_logs WHEN NEW.status = {status}
                 BEGIN SELECT RAISE(ABORT, 'refused'); END"
            );
            other.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(rule))).await.unwrap();
            other.close().await.unwrap();
        }
        Location::Postgres { url } => {
            let mut other =
                sqlx::PgConnection::connect(secrecy::ExposeSecret::expose_secret(url)).await.unwrap();
            let rule = format!("ALTER TABLE call_logs ADD CONSTRAINT refuse CHECK (status <> {status})");
            other.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(rule))).await.unwrap();
            other.close().await.unwrap();
        }
    }
}

async fn statuses_and_last_uses_are_written(fixture: Fixture) {
    let store = &fixture.store;
    store.connections().insert(&connection("c1", "openai", "work", None)).await.unwrap();
    store.api_keys().insert(&api_key("k1", "sk-1")).await.unwrap();
    let revision = store.revision().await.unwrap();
    let (recorder, handle) = writer(store, SLOW);
    let status = |level| ConnectionStatus {
        test_status: TestStatus::Unavailable,
        backoff_level: level,
        rate_limited_until: Some(NOW + level),
        ..ConnectionStatus::default()
    };
    recorder.connection_status(&"c1".into(), status(1));
    recorder.connection_status(&"c1".into(), status(2));
    recorder.connection_status(&"gone".into(), status(3));
    recorder.record(request("r1", NOW + 7));
    recorder.record(request("r2", NOW + 5));
    handle.flush().await;
    let stored = store.connections().get(&"c1".into()).await.unwrap().unwrap().status;
    assert_eq!((stored.backoff_level, stored.rate_limited_until), (2, Some(NOW + 2)));
    assert_eq!(stored.last_used_at, Some(NOW + 7));
    assert_eq!(store.api_keys().get(&"k1".into()).await.unwrap().unwrap().last_used_at, Some(NOW + 7));
    assert_eq!(store.revision().await.unwrap(), revision, "traffic is no change of the configuration");
    // A status alone is written too.
    recorder.connection_status(&"c1".into(), status(4));
    handle.flush().await;
    assert_eq!(store.connections().get(&"c1".into()).await.unwrap().unwrap().status.backoff_level, 4);
}

async fn the_log_is_bounded(fixture: Fixture) {
    let (recorder, handle) = writer(&fixture.store, SLOW);
    for number in 0..30_i64 {
        recorder.record(request(&format!("new{number:02}"), NOW - number));
        recorder.record(request(&format!("old{number:02}"), NOW - 10 * DAY));
    }
    handle.flush().await;
    let settings =
        RuntimeSettings { log_retention_days: 5, call_log_max_entries: 12, ..RuntimeSettings::default() };
    let pruned = fixture.store.prune(NOW, &settings).await.unwrap();
    assert_eq!(
        (pruned.call_logs, pruned.usage_sums),
        (48, 2),
        "the old requests were all of one minute and kind"
    );
    let (rows, total) = fixture.store.call_logs().list(&all()).await.unwrap();
    assert_eq!((total, rows[11].request_id.as_str()), (12, "req_new11"));
    assert_eq!(fixture.store.usage().history(Period::All, NOW).await.unwrap().total.requests, 60);
    for number in 0..9 {
        recorder.record(request(&format!("alike{number}"), NOW + 1));
    }
    handle.flush().await;
    let deleted = async |most| {
        let settings = RuntimeSettings { call_log_max_entries: most, ..RuntimeSettings::default() };
        fixture.store.prune_full_logs(NOW, &settings).await.unwrap()
    };
    assert_eq!(deleted(48).await, 0, "rows are numbered from the oldest that is left");
    assert_eq!(deleted(5).await, 16, "also of those that came at the same moment");
    assert_eq!(fixture.store.call_logs().list(&all()).await.unwrap().1, 5);
    assert_eq!(deleted(5).await, 0);
}

/// A database that cannot be written for a while: somebody else holds it.
#[tokio::test]
async fn a_failing_database_delays_and_loses_nothing() {
    let fixture = Fixture::sqlite().await;
    let store = &fixture.store;
    let (recorder, handle) =
        writer(store, WriterOptions { flush_interval: Duration::from_millis(10), ..SLOW });
    let blocker = hold_the_write_lock(&fixture).await;
    for number in 0..300 {
        recorder.record(request(&format!("r{number}"), NOW));
    }
    // The busy timeout has to pass once.
    let failed = async {
        while recorder.stats().flush_failures == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), failed).await.expect("a failure is noticed");
    assert_eq!(recorder.stats().written_rows, 0);
    drop(blocker);
    handle.flush().await;
    assert_eq!(recorder.stats().written_rows, 300);
    assert_eq!(recorder.stats().shed_rows, 0);
    assert_eq!(store.usage().history(Period::All, NOW).await.unwrap().total.requests, 300);
}

async fn hold_the_write_lock(fixture: &Fixture) -> sqlx::SqliteConnection {
    use sqlx::{Connection as _, Executor as _};
    let Location::Sqlite { data_dir } = &fixture.options.location else { panic!("SQLite only") };
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(data_dir.join("storage.sqlite"));
    let mut other = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    other
}
