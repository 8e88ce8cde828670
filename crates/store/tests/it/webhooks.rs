//! Webhooks as rows: what they are told of, their secrets, and what became of telling them.

use omniroute_store::{StoreError, Webhook};
use secrecy::{ExposeSecret as _, SecretString};

use crate::fixture::{Fixture, NOW, stories};
use crate::put;

stories!(webhooks_come_back_as_they_were, a_secret_is_replaced_and_the_old_one_is_good_for_a_while);

fn webhook(id: &str) -> Webhook {
    Webhook {
        id: id.into(),
        url: "https://example.com/hook".into(),
        events: vec!["budget.warning".into(), "account.out".into()],
        description: Some("to the team".into()),
        enabled: true,
        created_at: NOW,
        updated_at: NOW,
        ..Webhook::default()
    }
}

async fn secrets(fixture: &Fixture, id: &str, now_ms: i64) -> Vec<String> {
    let secrets = fixture.store.webhooks().secrets(id, now_ms).await.unwrap();
    secrets.iter().map(|secret| secret.expose_secret().to_owned()).collect()
}

async fn webhooks_come_back_as_they_were(fixture: Fixture) {
    let webhooks = fixture.store.webhooks();
    let (first, mut second) = (webhook("w1"), webhook("w2"));
    webhooks.insert(&first, &SecretString::from("whsec_1"), 9).await.unwrap();
    webhooks.insert(&second, &SecretString::from("whsec_2"), 9).await.unwrap();
    webhooks.note("w2", Some(503), Some("it answered 503"), NOW + 1).await.unwrap();
    (second.events, second.enabled, second.allow_private) = (vec!["breaker.opened".into()], false, true);
    put::webhook(&fixture.store, &second).await.unwrap();
    let unknown = put::webhook(&fixture.store, &webhook("w3")).await;
    assert!(matches!(unknown, Err(StoreError::NotFound { .. })));
    // What became of telling it is not the operator's to change.
    (second.last_status, second.last_error) = (Some(503), Some("it answered 503".into()));
    second.last_attempt_at = Some(NOW + 1);
    assert_eq!(webhooks.list().await.unwrap(), [first.clone(), second.clone()]);
    webhooks.note("w2", Some(204), None, NOW + 2).await.unwrap();
    (second.last_status, second.last_error) = (Some(204), None);
    (second.last_attempt_at, second.last_delivered_at) = (Some(NOW + 2), Some(NOW + 2));
    assert_eq!(fixture.again().await.webhooks().get("w2").await.unwrap(), Some(second));
    webhooks.note("w2", None, Some("no answer"), NOW + 3).await.unwrap();
    let told = webhooks.get("w2").await.unwrap().unwrap();
    assert_eq!((told.last_status, told.last_delivered_at), (None, Some(NOW + 2)));
    webhooks.switch_off("w1", NOW + 4).await.unwrap();
    assert!(!webhooks.get("w1").await.unwrap().unwrap().enabled);
    assert!(webhooks.delete("w1").await.unwrap() && !webhooks.delete("w1").await.unwrap());
    assert!(matches!(webhooks.secrets("w1", NOW).await, Err(StoreError::NotFound { .. })));
}

async fn a_secret_is_replaced_and_the_old_one_is_good_for_a_while(fixture: Fixture) {
    let webhooks = fixture.store.webhooks();
    webhooks.insert(&webhook("w1"), &SecretString::from("whsec_1"), 9).await.unwrap();
    assert_eq!(secrets(&fixture, "w1", NOW).await, ["whsec_1"]);
    webhooks.rotate("w1", &SecretString::from("whsec_2"), NOW + 100, NOW).await.unwrap();
    assert_eq!(secrets(&fixture, "w1", NOW + 99).await, ["whsec_2", "whsec_1"]);
    assert_eq!(secrets(&fixture, "w1", NOW + 100).await, ["whsec_2"]);
    let nobody = webhooks.rotate("w9", &SecretString::from("whsec_9"), NOW, NOW).await;
    assert!(matches!(nobody, Err(StoreError::NotFound { .. })));
}
