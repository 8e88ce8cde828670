//! Looking at a database that belongs to a gateway: everything but secrets, and nothing changes.

use omniroute_store::{Location, Store, StoreError};

use crate::fixture::{Fixture, api_key, connection, stories};

stories!(what_is_looked_at_stays_as_it_is);

async fn what_is_looked_at_stays_as_it_is(fixture: Fixture) {
    fixture
        .store
        .connections()
        .insert(&connection("c1", "openai", "first", Some("sk-secret")))
        .await
        .unwrap();
    fixture.store.api_keys().insert(&api_key("k1", "a")).await.unwrap();
    let revision = fixture.store.revision().await.unwrap();
    // The gateway may be running or not.
    for is_running in [true, false] {
        if !is_running {
            fixture.store.close().await;
        }
        let loaded = Store::look(&fixture.options.location).await.unwrap();
        assert_eq!(loaded.entities.revision, revision);
        assert_eq!(loaded.problems, []);
        let connection = &loaded.entities.connections[0];
        assert_eq!((connection.id.as_str(), connection.api_key.is_none()), ("c1", true));
        assert_eq!(loaded.entities.api_keys.len(), 1);
    }
    let after = fixture.again().await;
    assert_eq!(after.revision().await.unwrap(), revision);
    assert!(after.load().await.unwrap().entities.connections[0].api_key.is_some());
}

#[tokio::test]
async fn a_folder_without_a_database_stays_without() {
    let folder = tempfile::tempdir().unwrap();
    let location = Location::Sqlite { data_dir: folder.path().to_owned() };
    assert!(matches!(Store::look(&location).await, Err(StoreError::DataDir { .. })));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
