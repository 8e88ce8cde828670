//! Credentials are encrypted, and a wrong key reads nothing and destroys nothing.

use std::collections::BTreeMap;

use omniroute_domain::entity::{Connection, TestStatus};
use omniroute_store::{Cryptography, Location, Store, StoreError, StoreOptions};
use secrecy::ExposeSecret as _;

use crate::fixture::{Fixture, connection, stories};
use crate::put;

stories!(
    a_wrong_key_reads_nothing_and_destroys_nothing,
    the_key_can_be_replaced,
    values_cannot_be_swapped_between_rows,
    headers_are_encrypted_each_for_its_account_and_name,
    headers_in_the_clear_are_encrypted_when_the_store_is_opened,
    a_wrong_key_reads_no_header_and_destroys_none,
    headers_survive_a_new_encryption_key,
);

fn with_key(fixture: &Fixture, key: &str, previous: Option<&str>) -> StoreOptions {
    StoreOptions {
        location: fixture.options.location.clone(),
        encryption_key: Some(key.into()),
        previous_key: previous.map(Into::into),
    }
}

async fn a_wrong_key_reads_nothing_and_destroys_nothing(fixture: Fixture) {
    let secret = fixture.store.meta().jwt_secret().await.unwrap();
    fixture.store.connections().insert(&connection("c1", "openai", "work", Some("sk-secret"))).await.unwrap();
    fixture.store.close().await;

    let wrong = Store::open(with_key(&fixture, "not the right passphrase", None)).await.unwrap();
    assert!(matches!(wrong.cryptography(), Cryptography::MissingOrInvalid { .. }));
    let loaded = wrong.load().await.unwrap();
    assert_eq!(loaded.problems.len(), 1);
    let mut broken = loaded.entities.connections[0].clone();
    assert!(broken.api_key.is_none());
    assert_eq!(broken.status.test_status, TestStatus::Error);
    assert!(broken.status.last_error.as_deref().unwrap().starts_with("cannot decrypt"));
    assert_ne!(wrong.meta().jwt_secret().await.unwrap().expose_secret(), secret.expose_secret());
    let refused = wrong.connections().insert(&connection("c2", "openai", "new", Some("sk-new"))).await;
    assert!(matches!(refused, Err(StoreError::Cryptography(_))));
    wrong.connections().insert(&connection("c3", "openai", "keyless", None)).await.unwrap();
    broken.name = "renamed".into();
    put::connection(&wrong, &broken).await.unwrap();
    assert!(matches!(wrong.rotate_encryption_key().await, Err(StoreError::Cryptography(_))));
    wrong.close().await;

    let right = fixture.again().await;
    assert_eq!(right.cryptography(), Cryptography::Ok);
    let kept = right.connections().get(&"c1".into()).await.unwrap().unwrap();
    assert_eq!((kept.name.as_str(), kept.api_key.unwrap().expose_secret()), ("renamed", "sk-secret"));
    assert_eq!(kept.status.test_status, TestStatus::Unknown);
    assert_eq!(right.meta().jwt_secret().await.unwrap().expose_secret(), secret.expose_secret());
}

async fn the_key_can_be_replaced(fixture: Fixture) {
    let Location::Sqlite { .. } = fixture.options.location else { return };
    let old = "the passphrase until now";
    let data_dir = tempfile::tempdir().unwrap();
    let location = Location::Sqlite { data_dir: data_dir.path().to_owned() };
    let options = |key: &str, previous: Option<&str>| StoreOptions {
        location: location.clone(),
        ..with_key(&fixture, key, previous)
    };
    let store = Store::open(options(old, None)).await.unwrap();
    let secret = store.meta().jwt_secret().await.unwrap();
    store.connections().insert(&connection("c1", "openai", "work", Some("sk-1"))).await.unwrap();
    store.close().await;

    let new = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    let store = Store::open(options(new, Some(old))).await.unwrap();
    assert_eq!(store.cryptography(), Cryptography::RotationPending);
    assert_eq!(
        store.entities().await.unwrap().connections[0].api_key.as_ref().unwrap().expose_secret(),
        "sk-1"
    );
    assert_eq!(store.rotate_encryption_key().await.unwrap(), 2);
    assert_eq!(store.cryptography(), Cryptography::Ok);
    assert_eq!(store.rotate_encryption_key().await.unwrap(), 0);
    let duplicate = store.connections().insert(&connection("c2", "openai", "again", Some("sk-1"))).await;
    assert!(matches!(duplicate, Err(StoreError::Conflict { field: "apiKey", .. })));
    store.close().await;

    let store = Store::open(options(new, None)).await.unwrap();
    assert_eq!(store.cryptography(), Cryptography::Ok);
    assert_eq!(
        store.entities().await.unwrap().connections[0].api_key.as_ref().unwrap().expose_secret(),
        "sk-1"
    );
    assert_eq!(store.meta().jwt_secret().await.unwrap().expose_secret(), secret.expose_secret());
}

async fn values_cannot_be_swapped_between_rows(fixture: Fixture) {
    let connections = fixture.store.connections();
    connections.insert(&connection("c1", "openai", "a", Some("sk-1"))).await.unwrap();
    connections.insert(&connection("c2", "openai", "b", Some("sk-2"))).await.unwrap();
    let swap = "UPDATE provider_connections SET api_key =
                (SELECT api_key FROM provider_connections WHERE id = 'c2') WHERE id = 'c1'";
    beside(&fixture, swap).await;
    let moved = connections.get(&"c1".into()).await.unwrap().unwrap();
    assert!(moved.api_key.is_none());
    assert!(moved.status.last_error.unwrap().contains("moved from another row"));
    assert!(connections.get(&"c2".into()).await.unwrap().unwrap().api_key.is_some());
}

/// A header that is a credential.
const HEADER: &str = "header-sentinel-51bd07";

fn with_header(id: &str) -> Connection {
    let mut row = connection(id, "openai", id, None);
    row.options.extra_headers.insert("x-gate".into(), HEADER.into());
    row.options.extra_headers.insert("x-tenant".into(), "enc:v2:is what it begins with".into());
    row
}

/// A statement of somebody else.
async fn beside(fixture: &Fixture, sql: &str) {
    use sqlx::{Connection as _, Executor as _};
    let sql = sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned()));
    match &fixture.options.location {
        Location::Sqlite { data_dir } => {
            let options = sqlx::sqlite::SqliteConnectOptions::new().filename(data_dir.join("storage.sqlite"));
            let mut db = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
            db.execute(sql).await.unwrap();
            db.close().await.unwrap();
        }
        Location::Postgres { url } => {
            let mut db = sqlx::PgConnection::connect(url.expose_secret()).await.unwrap();
            db.execute(sql).await.unwrap();
            db.close().await.unwrap();
        }
    }
}

/// The options of an account as they are stored.
async fn stored_options(fixture: &Fixture, id: &str) -> String {
    use sqlx::Connection as _;
    let sql = "SELECT provider_specific_data FROM provider_connections WHERE id = $1";
    match &fixture.options.location {
        Location::Sqlite { data_dir } => {
            let options = sqlx::sqlite::SqliteConnectOptions::new().filename(data_dir.join("storage.sqlite"));
            let mut db = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
            sqlx::query_scalar(sql).bind(id).fetch_one(&mut db).await.unwrap()
        }
        Location::Postgres { url } => {
            let mut db = sqlx::PgConnection::connect(url.expose_secret()).await.unwrap();
            sqlx::query_scalar(sql).bind(id).fetch_one(&mut db).await.unwrap()
        }
    }
}

/// Stores the headers of an account as older versions did.
async fn in_the_clear(fixture: &Fixture, id: &str) {
    let text =
        format!(r#"{{"extraHeaders":{{"x-gate":"{HEADER}","x-other":"b"}},"region":"eu","new":[1.5]}}"#);
    let sql = format!("UPDATE provider_connections SET provider_specific_data = '{text}' WHERE id = '{id}'");
    beside(fixture, &sql).await;
}

async fn headers(store: &Store, id: &str) -> BTreeMap<String, String> {
    store.connections().get(&id.into()).await.unwrap().unwrap().options.extra_headers
}

fn holds(fixture: &Fixture, needle: &str) -> bool {
    let Location::Sqlite { data_dir } = &fixture.options.location else { return false };
    let files =
        std::fs::read_dir(data_dir).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap());
    files.into_iter().any(|bytes| bytes.windows(needle.len()).any(|window| window == needle.as_bytes()))
}

async fn headers_are_encrypted_each_for_its_account_and_name(fixture: Fixture) {
    let connections = fixture.store.connections();
    for id in ["c1", "c2"] {
        let row = with_header(id);
        let stored = connections.insert(&row).await.unwrap();
        assert_eq!(stored.options, row.options);
    }
    let before = stored_options(&fixture, "c1").await;
    assert!(!before.contains(HEADER) && !before.contains("begins with"), "{before}");
    assert!(before.contains(r#""x-gate":"enc:v2:"#), "{before}");

    // What stays the same keeps its ciphertext, what is taken away is gone.
    let mut row = with_header("c1");
    row.options.extra_headers.insert("x-tenant".into(), "another".into());
    row.options.extra_headers.insert("x-more".into(), String::new());
    assert_eq!(put::connection(&fixture.store, &row).await.unwrap().options, row.options);
    let sealed = |text: &str, name: &str| {
        let options: serde_json::Value = serde_json::from_str(text).unwrap();
        options["extraHeaders"][name].clone()
    };
    let after = stored_options(&fixture, "c1").await;
    assert_eq!(sealed(&after, "x-gate"), sealed(&before, "x-gate"));
    assert_ne!(sealed(&after, "x-tenant"), sealed(&before, "x-tenant"));
    row.options.extra_headers.clear();
    put::connection(&fixture.store, &row).await.unwrap();
    assert!(!stored_options(&fixture, "c1").await.contains("extraHeaders"));

    // A value belongs to its account and its name.
    let other = stored_options(&fixture, "c2").await;
    for text in [other.clone(), other.replace("x-gate", "x-gate-2").replace("x-tenant", "x-gate")] {
        let id = if text == other { "c1" } else { "c2" };
        beside(
            &fixture,
            &format!("UPDATE provider_connections SET provider_specific_data = '{text}' WHERE id = '{id}'"),
        )
        .await;
        let moved = connections.get(&id.into()).await.unwrap().unwrap();
        assert!(moved.options.extra_headers.is_empty(), "{id}");
        let error = moved.status.last_error.unwrap();
        assert!(error.starts_with("cannot decrypt") && error.contains("`x-gate`"), "{error}");
    }
}

async fn headers_in_the_clear_are_encrypted_when_the_store_is_opened(fixture: Fixture) {
    // As many as it takes to leave remains in the file of SQLite.
    for at in 1..=40 {
        let id = format!("c{at}");
        fixture.store.connections().insert(&connection(&id, "openai", &id, None)).await.unwrap();
        in_the_clear(&fixture, &id).await;
    }
    // Until then they are read as they are.
    let expected: BTreeMap<_, _> = [("x-gate", HEADER), ("x-other", "b")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    let known = r#"UPDATE provider_connections
        SET provider_specific_data = replace(provider_specific_data, ',"new":[1.5]', '') WHERE id = 'c1'"#;
    beside(&fixture, known).await;
    assert_eq!(headers(&fixture.store, "c1").await, expected);
    fixture.store.close().await;
    assert!(holds(&fixture, HEADER) || !matches!(fixture.options.location, Location::Sqlite { .. }));

    // By two at once.
    let (one, other) = tokio::join!(fixture.again(), fixture.again());
    for id in ["c1", "c2"] {
        let text = stored_options(&fixture, id).await;
        assert!(!text.contains(HEADER) && text.contains(r#""region":"eu""#), "{text}");
        assert_eq!(
            text.contains(r#""new":[1.5]"#),
            id == "c2",
            "what this version does not know stays: {text}"
        );
    }
    assert_eq!(headers(&one, "c1").await, expected);
    assert_eq!(headers(&other, "c1").await, expected);
    let once = stored_options(&fixture, "c1").await;
    one.close().await;
    other.close().await;
    assert!(!holds(&fixture, HEADER), "nor in what is free in the file");

    let again = fixture.again().await;
    assert_eq!(stored_options(&fixture, "c1").await, once, "nothing is left to be done");
    assert_eq!(headers(&again, "c1").await, expected);
}

async fn a_wrong_key_reads_no_header_and_destroys_none(fixture: Fixture) {
    fixture.store.connections().insert(&with_header("c1")).await.unwrap();
    fixture.store.connections().insert(&connection("c2", "openai", "c2", None)).await.unwrap();
    fixture.store.close().await;
    let plain = r#"UPDATE provider_connections SET provider_specific_data = '{"extraHeaders":{"x-gate":"plain"}}' WHERE id = 'c2'"#;
    beside(&fixture, plain).await;

    let wrong = Store::open(with_key(&fixture, "not the right passphrase", None)).await.unwrap();
    let loaded = wrong.load().await.unwrap();
    assert_eq!(loaded.problems.len(), 1);
    let mut broken = loaded.entities.connections.into_iter().find(|row| row.id.as_str() == "c1").unwrap();
    assert!(broken.options.extra_headers.is_empty());
    assert_eq!(broken.status.test_status, TestStatus::Error);
    assert_eq!(broken.status.last_error_type.as_deref(), Some("credentials"));
    broken.name = "renamed".into();
    put::connection(&wrong, &broken).await.unwrap();
    broken.options.extra_headers.insert("x-new".into(), "a".into());
    for refused in
        [put::connection(&wrong, &broken).await, wrong.connections().insert(&with_header("c3")).await]
    {
        assert!(matches!(refused, Err(StoreError::Cryptography(_))), "{refused:?}");
    }
    // What is in the clear stays so for want of a key, and can be used.
    let mut plain = wrong.connections().get(&"c2".into()).await.unwrap().unwrap();
    assert_eq!(plain.options.extra_headers["x-gate"], "plain");
    plain.name = "also renamed".into();
    put::connection(&wrong, &plain).await.unwrap();
    wrong.close().await;

    let right = fixture.again().await;
    let kept = right.connections().get(&"c1".into()).await.unwrap().unwrap();
    assert_eq!((kept.name.as_str(), &kept.options), ("renamed", &with_header("c1").options));
    assert_eq!(kept.status.test_status, TestStatus::Unknown);
    let plain = stored_options(&fixture, "c2").await;
    assert!(plain.contains("enc:v2:") && headers(&right, "c2").await["x-gate"] == "plain", "{plain}");
}

async fn headers_survive_a_new_encryption_key(fixture: Fixture) {
    let Location::Sqlite { .. } = fixture.options.location else { return };
    let folder = tempfile::tempdir().unwrap();
    let location = Location::Sqlite { data_dir: folder.path().to_owned() };
    let open = async |key: &str, previous: Option<&str>| {
        let options = StoreOptions { location: location.clone(), ..with_key(&fixture, key, previous) };
        Store::open(options).await.unwrap()
    };
    let (old, new) = ("the passphrase until now", "the passphrase from now on");
    let store = open(old, None).await;
    store.connections().insert(&with_header("c1")).await.unwrap();
    store.close().await;
    let store = open(new, Some(old)).await;
    let expected = with_header("c1").options.extra_headers;
    assert_eq!(headers(&store, "c1").await, expected);
    assert_eq!(store.rotate_encryption_key().await.unwrap(), 2, "both headers");
    assert_eq!(store.rotate_encryption_key().await.unwrap(), 0);
    store.close().await;
    let store = open(new, None).await;
    assert_eq!(headers(&store, "c1").await, expected);
}

#[tokio::test]
async fn the_file_never_holds_a_secret_in_the_clear() {
    let fixture = Fixture::sqlite().await;
    let secret = "sk-sentinel-8f3a9c";
    fixture.store.connections().insert(&connection("c1", "openai", "work", Some(secret))).await.unwrap();
    fixture.store.connections().insert(&with_header("c2")).await.unwrap();
    let jwt = fixture.store.meta().jwt_secret().await.unwrap();
    let Location::Sqlite { data_dir } = &fixture.options.location else { panic!("SQLite") };
    fixture.store.close().await;
    for entry in std::fs::read_dir(data_dir).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        for needle in [secret, HEADER, jwt.expose_secret()] {
            assert!(!bytes.windows(needle.len()).any(|window| window == needle.as_bytes()));
        }
    }
}

#[cfg(unix)]
#[tokio::test]
async fn the_data_directory_is_for_this_user_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let fixture = Fixture::sqlite().await;
    let Location::Sqlite { data_dir } = &fixture.options.location else { panic!("SQLite") };
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(data_dir), 0o700);
    assert_eq!(mode(&data_dir.join("secret.key")), 0o600);
    let files: Vec<_> =
        std::fs::read_dir(data_dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(files.iter().all(|name| !name.to_string_lossy().starts_with(".secret")), "{files:?}");
}

#[tokio::test]
async fn a_lost_key_is_noticed_and_not_replaced() {
    let fixture = Fixture::sqlite().await;
    fixture.store.close().await;
    let Location::Sqlite { data_dir } = &fixture.options.location else { panic!("SQLite") };
    let file = data_dir.join("secret.key");
    let key = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    let store = fixture.again().await;
    let Cryptography::MissingOrInvalid { reason } = store.cryptography() else { panic!("no key") };
    assert!(reason.contains("secret.key is missing"), "{reason}");
    assert!(!file.exists());
    store.close().await;
    std::fs::write(&file, "rubbish").unwrap();
    assert!(matches!(fixture.again().await.cryptography(), Cryptography::MissingOrInvalid { .. }));
    std::fs::write(&file, key).unwrap();
    assert_eq!(fixture.again().await.cryptography(), Cryptography::Ok);
}
