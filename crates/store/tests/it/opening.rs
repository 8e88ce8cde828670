//! Opening a database: fast, together with others, and with clear words when it cannot be.

use std::path::Path;

use omniroute_domain::entity::RuntimeSettings;
use omniroute_store::{Location, Store, StoreError, StoreOptions, WriterOptions};
use sqlx::{Connection as _, Executor as _};

use crate::fixture::{Fixture, NOW, connection, put_settings, request, stories, writer};
use crate::put;

stories!(a_newer_schema_is_refused, a_changed_step_is_refused, bad_rows_are_named_and_left_out);

fn at(data_dir: &Path) -> StoreOptions {
    StoreOptions {
        location: Location::Sqlite { data_dir: data_dir.to_owned() },
        encryption_key: None,
        previous_key: None,
    }
}

/// What another program does to the database.
pub(crate) async fn meddle(fixture: &Fixture, sql: &'static str) {
    try_to_meddle(fixture, sql).await.unwrap();
}

/// The same, where it may be refused.
pub(crate) async fn try_to_meddle(fixture: &Fixture, sql: &'static str) -> Result<(), sqlx::Error> {
    match &fixture.options.location {
        Location::Sqlite { data_dir } => {
            let options = sqlx::sqlite::SqliteConnectOptions::new().filename(data_dir.join("storage.sqlite"));
            let mut other = sqlx::SqliteConnection::connect_with(&options).await?;
            other.execute(sqlx::raw_sql(sql)).await?;
            other.close().await
        }
        Location::Postgres { url } => {
            let mut other = sqlx::PgConnection::connect(secrecy::ExposeSecret::expose_secret(url)).await?;
            other.execute(sqlx::raw_sql(sql)).await?;
            other.close().await
        }
    }
}

async fn a_newer_schema_is_refused(fixture: Fixture) {
    fixture.store.close().await;
    meddle(&fixture, "INSERT INTO _omniroute_migrations VALUES (999, '0999_future', 0, 'x')").await;
    match Store::open(fixture.options.clone()).await {
        Err(error @ StoreError::TooNew { found: 999, .. }) => {
            assert!(error.to_string().contains("schema 999"));
        }
        other => panic!("{other:?}"),
    }
}

async fn a_changed_step_is_refused(fixture: Fixture) {
    fixture.store.close().await;
    meddle(&fixture, "UPDATE _omniroute_migrations SET checksum = 'x'").await;
    assert!(matches!(Store::open(fixture.options.clone()).await, Err(StoreError::Schema(_))));
}

async fn bad_rows_are_named_and_left_out(fixture: Fixture) {
    let store = &fixture.store;
    for id in ["c1", "c2", "c3", "c4"] {
        store.connections().insert(&connection(id, "openai", id, None)).await.unwrap();
    }
    store.api_keys().insert(&crate::fixture::api_key("k1", "a")).await.unwrap();
    put::model(store, &crate::fixture::model("openai", "m")).await;
    put_settings(store, &RuntimeSettings { require_login: false, ..RuntimeSettings::default() }).await;
    meddle(
        &fixture,
        "UPDATE provider_connections SET auth_type = 'palm-reading' WHERE id = 'c1';
         UPDATE provider_connections SET provider_specific_data = '[' WHERE id = 'c2';
         UPDATE provider_connections SET api_key = 'sk-in-the-clear' WHERE id = 'c3';
         UPDATE api_keys SET allowed_models = 'all of them';
         UPDATE key_value SET value = '{' WHERE namespace = 'customModels';
         UPDATE key_value SET value = '7' WHERE namespace = 'settings'",
    )
    .await;
    let loaded = store.load().await.unwrap();
    let ids: Vec<_> = loaded.entities.connections.iter().map(|row| row.id.as_str()).collect();
    assert_eq!(ids, ["c3", "c4"]);
    assert!(loaded.entities.connections[0].api_key.is_none(), "what is not encrypted is not believed");
    assert!(loaded.entities.api_keys.is_empty(), "a key is never made wider by a row that cannot be read");
    assert_eq!(loaded.entities.settings, RuntimeSettings::default());
    let mut problems: Vec<_> =
        loaded.problems.iter().map(|problem| format!("{} {}", problem.table, problem.id)).collect();
    problems.sort();
    assert_eq!(
        problems,
        [
            "api_keys k1",
            "key_value customModels.openai",
            "key_value settings.runtime",
            "provider_connections c1",
            "provider_connections c2",
            "provider_connections c3",
        ]
    );
    assert!(matches!(store.connections().get(&"c1".into()).await, Err(StoreError::Damaged(_))));
}

#[tokio::test]
async fn what_cannot_be_opened_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let error = Store::open(at(&file.join("data"))).await.unwrap_err();
    assert!(matches!(error, StoreError::DataDir { .. }), "{error:?}");
    assert!(error.to_string().contains("DATA_DIR"), "{error}");

    let corrupt = dir.path().join("corrupt");
    std::fs::create_dir(&corrupt).unwrap();
    std::fs::write(corrupt.join("storage.sqlite"), "This is a letter to my aunt.".repeat(200)).unwrap();
    let error = Store::open(at(&corrupt)).await.unwrap_err();
    assert!(matches!(error, StoreError::NotADatabase { path: Some(_), .. }), "{error:?}");
    assert!(error.to_string().contains("corrupt/storage.sqlite is not a usable SQLite database"), "{error}");

    let occupied = dir.path().join("occupied");
    std::fs::create_dir_all(occupied.join("storage.sqlite")).unwrap();
    let error = Store::open(at(&occupied)).await.unwrap_err();
    assert!(matches!(error, StoreError::ReadOnly { path: Some(_) }), "{error:?}");

    let nowhere = StoreOptions {
        location: Location::Postgres { url: "postgres://nobody:hunter2@127.0.0.1:1/x".into() },
        ..at(dir.path())
    };
    let error = Store::open(nowhere).await.unwrap_err();
    assert!(matches!(error, StoreError::Unreachable(_)), "{error:?}");
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

#[cfg(unix)]
#[tokio::test]
async fn a_read_only_directory_says_so() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o555)).unwrap();
    if std::fs::write(dir.path().join("probe"), "").is_ok() {
        // The superuser writes everywhere.
        return;
    }
    let error = Store::open(at(dir.path())).await.unwrap_err();
    assert!(matches!(error, StoreError::ReadOnly { .. }), "{error:?}");
    assert!(error.to_string().contains("read-only"), "{error}");
}

#[tokio::test]
async fn many_open_the_same_new_directory_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let opened = futures_util::future::join_all((0..6).map(|_| Store::open(at(dir.path())))).await;
    let stores: Vec<Store> = opened.into_iter().map(Result::unwrap).collect();
    let first = stores[0].meta().machine_id().await.unwrap();
    for (number, store) in stores.iter().enumerate() {
        assert_eq!(store.meta().machine_id().await.unwrap(), first);
        assert_eq!(store.cryptography(), omniroute_store::Cryptography::Ok);
        let name = format!("c{number}");
        store.connections().insert(&connection(&name, "openai", &name, Some(&name))).await.unwrap();
    }
    for store in &stores {
        let connections = store.entities().await.unwrap().connections;
        assert_eq!(connections.len(), 6);
        assert!(connections.iter().all(|connection| connection.api_key.is_some()));
    }
}

/// What a killed process leaves: the files as they are, the journal not yet merged.
#[tokio::test]
async fn a_killed_process_leaves_what_was_flushed() {
    let fixture = Fixture::sqlite().await;
    let store = &fixture.store;
    store.connections().insert(&connection("c1", "openai", "work", Some("sk-1"))).await.unwrap();
    let (recorder, handle) = writer(store, WriterOptions::default());
    for number in 0..250 {
        omniroute_engine::ports::Recorder::record(&*recorder, request(&number.to_string(), NOW));
    }
    handle.flush().await;
    let Location::Sqlite { data_dir } = &fixture.options.location else { panic!("SQLite") };
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(data_dir).unwrap() {
        let entry = entry.unwrap();
        // The shared-memory index is rebuilt from the journal.
        if !entry.file_name().to_string_lossy().ends_with("-shm") {
            std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
    }
    let after = Store::open(at(copy.path())).await.unwrap();
    assert!(after.entities().await.unwrap().connections[0].api_key.is_some());
    let total = after.usage().history(omniroute_store::Period::All, NOW).await.unwrap().total;
    assert_eq!(total.requests, 250);
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(copy.path().join("storage.sqlite"));
    let mut other = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    let verdict: String = sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&mut other).await.unwrap();
    assert_eq!(verdict, "ok");
}
