//! Changes of the configuration while traffic is written, and by several processes: none waits for another in a circle, and none
//! is undone.

use omniroute_domain::entity::{Connection, ConnectionId, ConnectionStatus, RuntimeSettings};
use omniroute_engine::ports::Recorder as _;
use omniroute_store::{Location, Store, StoreError, StoreOptions, Webhook, WriterOptions};
use secrecy::{ExposeSecret as _, SecretString};

use crate::fixture::{Fixture, NOW, api_key, connection, stories, writer};
use crate::opening::meddle;

stories!(
    accounts_are_moved_while_their_statuses_are_written,
    a_secret_that_is_rotated_meanwhile_stays,
    changes_follow_each_other_whatever_a_server_is_set_to,
    a_change_that_gives_way_may_be_tried_again,
);

/// The last account is moved to the first place and back: each time all rows of the provider change.
async fn accounts_are_moved_while_their_statuses_are_written(fixture: Fixture) {
    const COUNT: usize = 12;
    let ids: Vec<ConnectionId> = (0..COUNT).map(|number| format!("c{number:02}").as_str().into()).collect();
    for id in &ids {
        let (name, key) = (id.as_str(), format!("sk-{id}"));
        fixture.store.connections().insert(&connection(name, "openai", name, Some(&key))).await.unwrap();
    }
    let (recorder, handle) = writer(&fixture.again().await, WriterOptions::default());
    let moves = async {
        for round in 0..30 {
            let set = |row: &mut Connection| {
                row.priority = if round % 2 == 0 { 1 } else { COUNT as i64 };
                Ok::<_, StoreError>(())
            };
            let moved = fixture.store.connections().change(&ids[COUNT - 1], set).await;
            moved.expect("nobody waits for ever").unwrap();
        }
    };
    let writes = async {
        for round in 0..60 {
            for id in &ids {
                let status = ConnectionStatus { backoff_level: round, ..ConnectionStatus::default() };
                recorder.connection_status(id, status);
            }
            handle.flush().await;
        }
    };
    futures_util::join!(moves, writes);
    assert_eq!(recorder.stats().flush_failures, 0);
    let row = fixture.store.connections().get(&ids[0]).await.unwrap().unwrap();
    assert_eq!(row.status.backoff_level, 59);
}

/// A process encrypts all secrets with another key while one that runs gives webhooks other secrets, in the other direction.
async fn a_secret_that_is_rotated_meanwhile_stays(fixture: Fixture) {
    const COUNT: usize = 40;
    // SQLite lets one write at a time.
    let Location::Postgres { .. } = fixture.options.location else { return };
    let previous_key = fixture.options.encryption_key.clone();
    let options = StoreOptions {
        encryption_key: Some("another passphrase".into()),
        previous_key,
        ..fixture.options.clone()
    };
    let store = Store::open(options).await.unwrap();
    let id = |number: usize| format!("w{number:02}");
    for number in 0..COUNT {
        let webhook = Webhook { id: id(number), ..Webhook::default() };
        fixture.store.webhooks().insert(&webhook, &SecretString::from("whsec_before"), COUNT).await.unwrap();
    }
    let rotate = async {
        for number in (0..COUNT).rev() {
            let secret = SecretString::from("whsec_after");
            fixture.store.webhooks().rotate(&id(number), &secret, NOW, NOW).await.unwrap();
        }
    };
    let (encrypted, ()) = futures_util::join!(store.rotate_encryption_key(), rotate);
    encrypted.unwrap();
    for number in 0..COUNT {
        // One that is rotated later than it was encrypted has the key of the process that did it.
        let secrets = match store.webhooks().secrets(&id(number), NOW + 1).await {
            Err(StoreError::Cryptography(_)) => fixture.store.webhooks().secrets(&id(number), NOW + 1).await,
            read => read,
        };
        assert_eq!(secrets.unwrap()[0].expose_secret(), "whsec_after", "{}", id(number));
    }
}

/// Where transactions are serializable unless they say otherwise, one that waited would be refused.
async fn changes_follow_each_other_whatever_a_server_is_set_to(fixture: Fixture) {
    let Location::Postgres { url } = &fixture.options.location else { return };
    let url = format!("{}&options[default_transaction_isolation]=serializable", url.expose_secret());
    let location = Location::Postgres { url: url.into() };
    let store = Store::open(StoreOptions { location, ..fixture.options.clone() }).await.unwrap();
    let changes = (0..24).map(|number| {
        let store = &store;
        async move {
            let add = |settings: &mut RuntimeSettings| {
                settings.blocked_providers.push(format!("p{number}"));
                Ok::<_, StoreError>(())
            };
            store.settings().change(add).await.unwrap().unwrap();
        }
    });
    futures_util::future::join_all(changes).await;
    assert_eq!(store.settings().get().await.unwrap().blocked_providers.len(), 24);
}

async fn a_change_that_gives_way_may_be_tried_again(fixture: Fixture) {
    // SQLite lets one write at a time.
    let Location::Postgres { .. } = fixture.options.location else { return };
    let trigger = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
         'BEGIN RAISE EXCEPTION USING ERRCODE = NEW.name; END';
         CREATE TRIGGER refuse BEFORE INSERT ON api_keys FOR EACH ROW EXECUTE FUNCTION refuse()";
    meddle(&fixture, trigger).await;
    for (state, gives_way) in [("40001", true), ("40P01", true), ("55P03", true), ("23514", false)] {
        let mut key = api_key(state, state);
        key.name = state.into();
        let refused = fixture.store.api_keys().insert(&key).await.unwrap_err();
        assert_eq!(matches!(refused, StoreError::Busy { .. }), gives_way, "{state}: {refused}");
        assert_eq!(refused.is_transient(), gives_way, "{state}: {refused}");
    }
}
