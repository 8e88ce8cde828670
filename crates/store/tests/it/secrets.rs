//! Credentials are encrypted, and a wrong key reads nothing and destroys nothing.

use omniroute_domain::entity::TestStatus;
use omniroute_store::{Cryptography, Location, Store, StoreError, StoreOptions};
use secrecy::ExposeSecret as _;

use crate::fixture::{Fixture, connection, stories};

stories!(
    a_wrong_key_reads_nothing_and_destroys_nothing,
    the_key_can_be_replaced,
    values_cannot_be_swapped_between_rows,
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
    wrong.connections().update(&broken).await.unwrap();
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
    use sqlx::{Connection as _, Executor as _};
    let connections = fixture.store.connections();
    connections.insert(&connection("c1", "openai", "a", Some("sk-1"))).await.unwrap();
    connections.insert(&connection("c2", "openai", "b", Some("sk-2"))).await.unwrap();
    let swap = "UPDATE provider_connections SET api_key =
                (SELECT api_key FROM provider_connections WHERE id = 'c2') WHERE id = 'c1'";
    match &fixture.options.location {
        Location::Sqlite { data_dir } => {
            let options = sqlx::sqlite::SqliteConnectOptions::new().filename(data_dir.join("storage.sqlite"));
            sqlx::SqliteConnection::connect_with(&options).await.unwrap().execute(swap).await.unwrap();
        }
        Location::Postgres { url } => {
            sqlx::PgConnection::connect(url.expose_secret()).await.unwrap().execute(swap).await.unwrap();
        }
    }
    let moved = connections.get(&"c1".into()).await.unwrap().unwrap();
    assert!(moved.api_key.is_none());
    assert!(moved.status.last_error.unwrap().contains("moved from another row"));
    assert!(connections.get(&"c2".into()).await.unwrap().unwrap().api_key.is_some());
}

#[tokio::test]
async fn the_file_never_holds_a_secret_in_the_clear() {
    let fixture = Fixture::sqlite().await;
    let secret = "sk-sentinel-8f3a9c";
    fixture.store.connections().insert(&connection("c1", "openai", "work", Some(secret))).await.unwrap();
    let jwt = fixture.store.meta().jwt_secret().await.unwrap();
    let Location::Sqlite { data_dir } = &fixture.options.location else { panic!("SQLite") };
    fixture.store.close().await;
    for entry in std::fs::read_dir(data_dir).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        for needle in [secret, jwt.expose_secret()] {
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
