//! Changes that others make at the same time, and keys that have come to their end.

use omniroute_domain::entity::{
    ApiKey, ApiKeyId, Budget, KeyHash, Policy, PolicyActions, PolicyConditions, PolicyKind, RuntimeSettings,
};
use omniroute_store::{Store, StoreError, Successor};

use crate::fixture::{DAY, Fixture, NOW, api_key, stories};

stories!(
    no_change_of_settings_is_lost,
    settings_that_are_refused_stay,
    no_change_of_a_key_is_lost,
    what_is_revoked_stays_revoked,
    a_key_that_takes_a_place_has_what_held_for_the_other,
);

async fn no_change_of_settings_is_lost(fixture: Fixture) {
    let stores = [fixture.store.clone(), fixture.again().await];
    let changes = (0..24).map(|number| {
        let store = stores[number % 2].clone();
        async move {
            let add = |settings: &mut RuntimeSettings| {
                settings.blocked_providers.push(format!("p{number}"));
                Ok::<_, StoreError>(())
            };
            let change = store.settings().change(add).await.unwrap().unwrap();
            assert_eq!(change.after.blocked_providers.len(), change.before.blocked_providers.len() + 1);
        }
    });
    futures_util::future::join_all(changes).await;
    assert_eq!(stores[0].settings().get().await.unwrap().blocked_providers.len(), 24);
}

async fn settings_that_are_refused_stay(fixture: Fixture) {
    let (settings, revision) = (fixture.store.settings(), fixture.store.revision().await.unwrap());
    let refuse = |settings: &mut RuntimeSettings| {
        settings.require_login = false;
        Err("no")
    };
    assert_eq!(settings.change(refuse).await.unwrap().unwrap_err(), "no");
    let same = settings.change(|_| Ok::<_, ()>(())).await.unwrap().unwrap();
    assert!(!same.is_any());
    assert_eq!(settings.get().await.unwrap(), RuntimeSettings::default());
    assert_eq!(fixture.store.revision().await.unwrap(), revision);
}

async fn no_change_of_a_key_is_lost(fixture: Fixture) {
    fixture.store.api_keys().insert(&api_key("k1", "sk-1")).await.unwrap();
    let changes = (0..12).map(|number| {
        let store = fixture.store.clone();
        async move {
            let add = |key: &mut ApiKey| {
                key.denied_models.push(format!("m{number}"));
                Ok::<_, StoreError>(())
            };
            store.api_keys().change(&"k1".into(), add).await.unwrap().unwrap();
        }
    });
    futures_util::future::join_all(changes).await;
    let key = fixture.store.api_keys().get(&"k1".into()).await.unwrap().unwrap();
    assert_eq!(key.denied_models.len(), 12);
}

async fn what_is_revoked_stays_revoked(fixture: Fixture) {
    let (store, keys) = (&fixture.store, fixture.store.api_keys());
    keys.insert(&api_key("k1", "sk-1")).await.unwrap();
    store.budgets().put(&[budget("k1")]).await.unwrap();
    store.policies().put(&policy("p1", "k1")).await.unwrap();
    assert!(keys.revoke(&"k1".into(), NOW).await.unwrap());
    let revive = |key: &mut ApiKey| {
        (key.is_active, key.revoked_at) = (true, None);
        Ok::<_, StoreError>(())
    };
    let refused = keys.change(&"k1".into(), revive).await;
    assert!(matches!(refused, Err(StoreError::Conflict { .. })), "{refused:?}");
    for keeps_until in [None, Some(NOW + DAY)] {
        let refused = replace(store, "k1", "k2", keeps_until).await;
        assert!(matches!(refused, Err(StoreError::Conflict { .. })), "{refused:?}");
    }
    let nobody = replace(store, "k9", "k2", None).await;
    assert!(matches!(nobody, Err(StoreError::NotFound { .. })), "{nobody:?}");
    let key = keys.get(&"k1".into()).await.unwrap().unwrap();
    assert_eq!((key.is_active, key.revoked_at), (false, Some(NOW)));
    assert_eq!(keys.list(true, 10, 0).await.unwrap().1, 1);
    assert_eq!(store.budgets().list().await.unwrap(), [budget("k1")]);
    assert_eq!(store.policies().list().await.unwrap(), [policy("p1", "k1")]);

    // What a key says of its end is not what ends it.
    keys.insert(&api_key("k2", "sk-2")).await.unwrap();
    let end = |key: &mut ApiKey| {
        key.revoked_at = Some(NOW);
        Ok::<_, StoreError>(())
    };
    keys.change(&"k2".into(), end).await.unwrap().unwrap();
    assert_eq!(keys.get(&"k2".into()).await.unwrap().unwrap().revoked_at, None);
}

async fn a_key_that_takes_a_place_has_what_held_for_the_other(fixture: Fixture) {
    let (store, keys) = (&fixture.store, fixture.store.api_keys());
    keys.insert(&api_key("k1", "sk-1")).await.unwrap();
    store.budgets().put(&[budget("k1")]).await.unwrap();
    store.policies().put(&policy("p1", "k1")).await.unwrap();
    store.policies().put(&policy("p2", "other")).await.unwrap();
    let key = async |id: &str| keys.get(&id.into()).await.unwrap().unwrap();
    let named = async || {
        let policies = store.policies().list().await.unwrap();
        let mut named: Vec<_> =
            policies.into_iter().map(|policy| (policy.id, policy.conditions.api_key_id.unwrap())).collect();
        named.sort();
        named
    };
    let pair = |policy: &str, key: &str| (policy.to_owned(), key.to_owned());

    let second = replace(store, "k1", "k2", Some(NOW + 60_000)).await.unwrap();
    assert_eq!((second.hash, second.created_at, second.max_sessions), (KeyHash::of("k2"), NOW, 7));
    assert_eq!(second.expires_at, Some(NOW + DAY), "it is the old one whose end comes sooner");
    assert_eq!((key("k1").await.expires_at, key("k1").await.revoked_at), (Some(NOW + 60_000), None));
    let both = [pair("made 1", "k2"), pair("p1", "k1"), pair("p2", "other")];
    assert_eq!(named().await, both);
    assert_eq!(store.budgets().list().await.unwrap(), [budget("k1"), budget("k2")]);

    replace(store, "k2", "k3", None).await.unwrap();
    let ended = key("k2").await;
    assert_eq!((ended.is_active, ended.revoked_at), (false, Some(NOW)));
    assert_eq!(named().await, [pair("made 1", "k3"), pair("p1", "k1"), pair("p2", "other")]);
    assert_eq!(store.budgets().get(Some(&"k3".into())).await.unwrap(), Some(budget("k3")));
    assert!(key("k3").await.is_active);
}

async fn replace(
    store: &Store,
    old: &str,
    new: &str,
    keeps_until: Option<i64>,
) -> Result<ApiKey, StoreError> {
    let successor = Successor { id: new.into(), hash: KeyHash::of(new), masked: "sk-omni-****".into() };
    let mut made = 0;
    let policy_id = || {
        made += 1;
        format!("made {made}")
    };
    store.api_keys().replace(&ApiKeyId::from(old), successor, keeps_until, NOW, policy_id).await
}

fn budget(key: &str) -> Budget {
    Budget { daily_nano: Some(5), ..Budget::unlimited(Some(key.into())) }
}

fn policy(id: &str, key: &str) -> Policy {
    Policy {
        id: id.into(),
        name: id.into(),
        kind: PolicyKind::Access,
        enabled: true,
        priority: 1,
        conditions: PolicyConditions { api_key_id: Some(key.into()), ..PolicyConditions::default() },
        actions: PolicyActions { block_model: vec!["gpt-*".into()], ..PolicyActions::default() },
        created_at: NOW,
        updated_at: NOW,
    }
}
