//! Changes that others make at the same time, and keys that have come to their end.

use omniroute_domain::entity::{
    ApiKey, ApiKeyId, Budget, Combo, Connection, CustomModel, FallbackChain, KeyHash, ModelComboMapping,
    Node, Policy, PolicyActions, PolicyConditions, PolicyKind, RuntimeSettings,
};
use omniroute_domain::price::{PriceBook, PriceRow};
use omniroute_store::{Store, StoreError, Successor, Surroundings, Webhook};
use secrecy::ExposeSecret as _;

use crate::configuration::combo;
use crate::fixture::{DAY, Fixture, NOW, api_key, connection, model, node, stories};
use crate::put;

stories!(
    no_change_of_settings_is_lost,
    settings_that_are_refused_stay,
    no_change_of_a_key_is_lost,
    no_change_of_an_account_is_lost,
    no_change_of_anything_else_is_lost,
    a_change_that_is_refused_is_none,
    what_is_agreed_to_is_what_is_there,
    there_are_no_more_than_there_may_be,
    a_node_that_is_gone_gets_nothing,
    what_is_revoked_stays_revoked,
    a_key_that_is_gone_gets_no_budget,
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

/// Eight changes at once of different members, made by two processes in turn.
async fn no_change_of_an_account_is_lost(fixture: Fixture) {
    type Change = fn(&mut Connection);
    const CHANGES: [Change; 8] = [
        |row| row.name = "new".into(),
        |row| row.tags.push("a".into()),
        |row| row.is_active = false,
        |row| row.default_model = Some("m".into()),
        |row| row.api_key = Some("sk-2".into()),
        |row| row.options.limiter = Some(true),
        |row| drop(row.options.extra_headers.insert("x-a".into(), "secret".into())),
        |row| row.options.api_keys.0.push("sk-3".into()),
    ];
    fixture.store.connections().insert(&connection("c1", "openai", "old", Some("sk-1"))).await.unwrap();
    let stores = [fixture.store.clone(), fixture.again().await];
    let changes = CHANGES.iter().zip(stores.iter().cycle()).map(|(change, store)| async move {
        let make = |row: &mut Connection| {
            change(row);
            Ok::<_, StoreError>(())
        };
        store.connections().change(&"c1".into(), make).await.unwrap().unwrap();
    });
    futures_util::future::join_all(changes).await;
    let row = stores[1].connections().get(&"c1".into()).await.unwrap().unwrap();
    assert_eq!(
        (&*row.name, &*row.tags, row.is_active),
        ("new", &["eu".to_owned(), "a".to_owned()][..], false)
    );
    assert_eq!((row.default_model.as_deref(), row.options.limiter), (Some("m"), Some(true)));
    assert_eq!(row.options.extra_headers["x-a"], "secret");
    let keys = row.options.api_keys.with(row.api_key.as_ref());
    let keys: Vec<_> = keys.iter().map(|key| key.expose_secret()).collect();
    assert_eq!(keys, ["sk-2", "sk-3"]);
}

async fn no_change_of_anything_else_is_lost(fixture: Fixture) {
    const COUNT: usize = 6;
    let (first, second) = (&fixture.store, &fixture.again().await);
    first.nodes().insert(&node("n1", "local")).await.unwrap();
    first.policies().insert(&policy("p1", "k1"), 9).await.unwrap();
    put::new_combo(first, combo("1", "best", &["a/b"])).await.unwrap();
    put::model(first, &model("openai", "m")).await;
    let webhook = Webhook { id: "w1".into(), ..Webhook::default() };
    first.webhooks().insert(&webhook, &"whsec_1".into(), 9).await.unwrap();
    let mapping = mapping("m1");
    first.combo_mappings().insert(&mapping, 9).await.unwrap();
    let changes = (0..COUNT).map(|number| async move {
        let store = [first, second][number % 2];
        let word = || format!("w{number}");
        let add = |node: &mut Node| {
            node.headers.insert(word(), word());
            Ok::<_, ()>(())
        };
        store.nodes().change(&"n1".into(), add).await.unwrap().unwrap();
        let add = |policy: &mut Policy| {
            policy.actions.block_model.push(word());
            Ok::<_, ()>(())
        };
        store.policies().change("p1", add).await.unwrap().unwrap();
        let add = |combo: &mut Combo, _: &Surroundings| {
            combo.transforms.required_tags.push(word());
            Ok::<_, ()>(())
        };
        store.combos().change(&"1".into(), add).await.unwrap().unwrap();
        let add = |known: Option<CustomModel>| {
            let mut model = known.unwrap();
            model.supported_endpoints.push(word());
            Ok::<_, ()>(model)
        };
        store.custom_models().change(&"openai".into(), "m", add).await.unwrap().unwrap();
        let add = |webhook: &mut Webhook| {
            webhook.events.push(word());
            Ok::<_, ()>(())
        };
        store.webhooks().change("w1", add).await.unwrap().unwrap();
        let add = |mapping: &mut ModelComboMapping| {
            mapping.priority += 1;
            Ok::<_, ()>(())
        };
        store.combo_mappings().change("m1", add).await.unwrap().unwrap();
        let add = |stored: &[Budget]| {
            let spent = stored.first().and_then(|budget| budget.daily_nano).unwrap_or(0);
            Ok::<_, ()>(vec![Budget { daily_nano: Some(spent + 1), ..Budget::unlimited(None) }])
        };
        store.budgets().change(add).await.unwrap().unwrap();
    });
    futures_util::future::join_all(changes).await;
    let entities = second.entities().await.unwrap();
    assert_eq!(entities.nodes[0].headers.keys().filter(|name| name.starts_with('w')).count(), COUNT);
    assert_eq!(entities.policies[0].actions.block_model.len(), COUNT + 1);
    assert_eq!(entities.combos[0].transforms.required_tags.len(), COUNT);
    let endpoints = &entities.custom_models[0].supported_endpoints;
    assert_eq!(endpoints.iter().filter(|word| word.starts_with('w')).count(), COUNT);
    assert_eq!(entities.combo_mappings[0].priority, COUNT as i64);
    assert_eq!(entities.budgets[0].daily_nano, Some(COUNT as i64));
    assert_eq!(second.webhooks().get("w1").await.unwrap().unwrap().events.len(), COUNT);
}

async fn a_change_that_is_refused_is_none(fixture: Fixture) {
    let store = &fixture.store;
    let before = store.connections().insert(&connection("c1", "openai", "old", Some("sk-1"))).await.unwrap();
    store.nodes().insert(&node("n1", "local")).await.unwrap();
    put::new_combo(store, combo("1", "best", &["a/b"])).await.unwrap();
    let revision = store.revision().await.unwrap();
    let refuse = |row: &mut Connection| {
        row.name = "new".into();
        Err::<(), _>("no")
    };
    assert_eq!(store.connections().change(&"c1".into(), refuse).await.unwrap().unwrap_err(), "no");
    let refuse = |row: &mut Node| {
        row.name = "new".into();
        Err::<(), _>("no")
    };
    assert_eq!(store.nodes().change(&"n1".into(), refuse).await.unwrap().unwrap_err(), "no");
    let refuse = |row: &mut Combo, around: &Surroundings| {
        assert!(around.combos.is_empty());
        row.name = "new".into();
        Err::<(), _>("no")
    };
    assert_eq!(store.combos().change(&"1".into(), refuse).await.unwrap().unwrap_err(), "no");
    let seen = |combo: &Combo| Err(combo.name.clone());
    assert_eq!(store.combos().delete(&"1".into(), seen).await.unwrap(), Err("best".to_owned()));
    let mapping = ModelComboMapping {
        id: "m1".into(),
        pattern: "gpt-*".into(),
        combo_id: "gone".into(),
        priority: 0,
        enabled: true,
        description: None,
        created_at: NOW,
        updated_at: NOW,
    };
    let nowhere = store.combo_mappings().insert(&mapping, 10).await;
    assert!(matches!(nowhere, Err(StoreError::NotFound { what: "combo", .. })), "{nowhere:?}");
    let entities = store.entities().await.unwrap();
    assert_eq!(entities.revision, revision, "nobody has to look");
    assert_eq!((&*entities.connections[0].name, &*entities.combos[0].name), (&*before.name, "best"));
    assert_eq!(entities.nodes, [node("n1", "local")]);
}

/// Two that are fine alone, and not together: the second sees the first.
async fn what_is_agreed_to_is_what_is_there(fixture: Fixture) {
    let stores = [fixture.store.clone(), fixture.again().await];
    let set = async |store: &Store, alias: &'static str, model: &'static str| {
        let check = |around: &Surroundings| match around.aliases.is_empty() {
            true => Ok(()),
            false => Err("a circle"),
        };
        store.aliases().put((alias, model), NOW, check).await.unwrap()
    };
    let (one, other) = futures_util::join!(set(&stores[0], "a", "b"), set(&stores[1], "b", "a"));
    assert_eq!(u8::from(one.is_ok()) + u8::from(other.is_ok()), 1);
    assert_eq!(stores[0].aliases().list().await.unwrap().len(), 1);

    let make = async |store: &Store, id: &'static str| {
        let check = |_: &mut Combo, around: &Surroundings| match around.combos.is_empty() {
            true => Ok(()),
            false => Err("not alone"),
        };
        store.combos().insert(combo(id, id, &["a/b"]), check).await.unwrap()
    };
    let (one, other) = futures_util::join!(make(&stores[0], "one"), make(&stores[1], "other"));
    assert_eq!(u8::from(one.is_ok()) + u8::from(other.is_ok()), 1);
    assert_eq!(stores[0].combos().list().await.unwrap().len(), 1);

    // Each sees what belongs to the other, and the settings.
    let deep = |settings: &mut RuntimeSettings| {
        settings.combo_defaults.max_combo_depth = Some(7);
        Ok::<_, ()>(())
    };
    stores[0].settings().change(deep).await.unwrap().unwrap();
    let look = |around: &Surroundings| {
        Err::<(), _>((around.combos.len(), around.aliases.len(), around.combo_defaults.max_combo_depth))
    };
    let seen = stores[1].aliases().put(("c", "d"), NOW, look).await.unwrap();
    assert_eq!(seen, Err((1, 1, Some(7))));
    let seen =
        stores[1].combos().insert(combo("new", "new", &["a/b"]), |_, around| look(around)).await.unwrap();
    assert_eq!(seen.unwrap_err(), (1, 1, Some(7)));
}

/// Of two that want the last place one gets it.
async fn there_are_no_more_than_there_may_be(fixture: Fixture) {
    let stores = [fixture.store.clone(), fixture.again().await];
    put::new_combo(&stores[0], combo("1", "best", &["a/b"])).await.unwrap();
    let one_has_room = |what: &str, done: (Result<(), StoreError>, Result<(), StoreError>)| {
        let refusal = match done {
            (Ok(()), Err(refusal)) | (Err(refusal), Ok(())) => refusal,
            other => panic!("{what}: {other:?}"),
        };
        assert_eq!(refusal.to_string(), format!("there may be 1 {what}; delete one first"));
    };
    let add = async |store: &Store, id: &str| store.policies().insert(&policy(id, "k1"), 1).await;
    one_has_room("policies", futures_util::join!(add(&stores[0], "a"), add(&stores[1], "b")));
    let add = async |store: &Store, id: &str| store.combo_mappings().insert(&mapping(id), 1).await;
    one_has_room("mappings", futures_util::join!(add(&stores[0], "a"), add(&stores[1], "b")));
    let add = async |store: &Store, id: &str| {
        let webhook = Webhook { id: id.into(), ..Webhook::default() };
        store.webhooks().insert(&webhook, &"whsec_1".into(), 1).await
    };
    one_has_room("webhooks", futures_util::join!(add(&stores[0], "a"), add(&stores[1], "b")));
    let chain = |model: &str| FallbackChain { model: model.into(), links: Vec::new() };
    let add = async |store: &Store, model: &str| store.fallback_chains().put(&chain(model), 1).await;
    one_has_room("chains", futures_util::join!(add(&stores[0], "a"), add(&stores[1], "b")));
    let known = stores[0].fallback_chains().list().await.unwrap();
    add(&stores[1], &known[0].model).await.expect("what has one may get another");
    let entities = stores[0].entities().await.unwrap();
    assert_eq!((entities.policies.len(), entities.combo_mappings.len()), (1, 1));
}

async fn a_node_that_is_gone_gets_nothing(fixture: Fixture) {
    const NODE: &str = "openai-compatible-chat-1";
    let stores = [fixture.store.clone(), fixture.again().await];
    let account = async || stores[0].connections().insert(&connection("c1", NODE, "work", None)).await;
    let list = async || {
        let add = |_| Ok::<_, ()>(model(NODE, "m"));
        stores[0].custom_models().change(&NODE.into(), "m", add).await
    };
    let is_refused = |error: &StoreError| matches!(error, StoreError::NotFound { what: "node", .. });
    let price = async || {
        let set = |book: &mut PriceBook| {
            let row = PriceRow { input: Some(1.0), ..PriceRow::default() };
            book.user.entry(NODE.into()).or_default().insert("m".into(), row);
            Ok::<_, ()>(())
        };
        stores[0].prices().change(set).await
    };
    assert!(is_refused(&account().await.unwrap_err()));
    assert!(is_refused(&list().await.unwrap_err()));
    assert!(is_refused(&price().await.unwrap_err()));
    for _ in 0..8 {
        stores[0].nodes().insert(&node(NODE, "local")).await.unwrap();
        let nodes = stores[1].nodes();
        let node = NODE.into();
        let (deleted, account, list, price) =
            futures_util::join!(nodes.delete(&node), account(), list(), price());
        assert!(deleted.unwrap());
        assert!(account.is_ok() || is_refused(&account.unwrap_err()));
        assert!(list.is_ok() || is_refused(&list.unwrap_err()));
        assert!(price.is_ok() || is_refused(&price.unwrap_err()));
        let entities = stores[0].entities().await.unwrap();
        assert_eq!((entities.connections.len(), entities.custom_models.len()), (0, 0));
        assert_eq!(entities.prices, PriceBook::default());
    }
}

async fn what_is_revoked_stays_revoked(fixture: Fixture) {
    let (store, keys) = (&fixture.store, fixture.store.api_keys());
    keys.insert(&api_key("k1", "sk-1")).await.unwrap();
    put::budgets(store, &[budget("k1")]).await;
    store.policies().insert(&policy("p1", "k1"), 9).await.unwrap();
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

async fn a_key_that_is_gone_gets_no_budget(fixture: Fixture) {
    let (store, keys) = (&fixture.store, fixture.store.api_keys());
    for id in ["k1", "k2"] {
        keys.insert(&api_key(id, id)).await.unwrap();
    }
    assert!(keys.revoke(&"k2".into(), NOW).await.unwrap());
    for gone in ["k2", "never"] {
        let set = |_: &[Budget]| Ok::<_, ()>(vec![budget("k1"), budget(gone)]);
        let refused = store.budgets().change(set).await;
        assert!(matches!(refused, Err(StoreError::NotFound { what: "API key", .. })), "{refused:?}");
    }
    assert_eq!(store.budgets().list().await.unwrap(), [], "all or none");
}

async fn a_key_that_takes_a_place_has_what_held_for_the_other(fixture: Fixture) {
    let (store, keys) = (&fixture.store, fixture.store.api_keys());
    keys.insert(&api_key("k1", "sk-1")).await.unwrap();
    put::budgets(store, &[budget("k1")]).await;
    store.policies().insert(&policy("p1", "k1"), 9).await.unwrap();
    store.policies().insert(&policy("p2", "other"), 9).await.unwrap();
    // More than there may be, as earlier rotations may have brought: none is added for a key that none names.
    for number in 0..9 {
        store.policies().insert(&policy(&format!("more {number}"), "other"), 99).await.unwrap();
    }
    keys.insert(&api_key("plain", "sk-plain")).await.unwrap();
    replace(store, "plain", "plain 2", Some(NOW + 60_000)).await.unwrap();
    let full = replace(store, "k1", "k2", Some(NOW + 60_000)).await;
    assert!(matches!(full, Err(StoreError::NoRoom { what: "policies", .. })), "{full:?}");
    for number in 0..9 {
        assert!(store.policies().delete(&format!("more {number}")).await.unwrap());
    }
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
    store.api_keys().replace(&ApiKeyId::from(old), successor, keeps_until, NOW, policy_id, 10).await
}

fn mapping(id: &str) -> ModelComboMapping {
    ModelComboMapping {
        id: id.into(),
        pattern: format!("{id}-*"),
        combo_id: "1".into(),
        priority: 0,
        enabled: true,
        description: None,
        created_at: NOW,
        updated_at: NOW,
    }
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
        mode: Default::default(),
        priority: 1,
        conditions: PolicyConditions { api_key_id: Some(key.into()), ..PolicyConditions::default() },
        actions: PolicyActions { block_model: vec!["gpt-*".into()], ..PolicyActions::default() },
        created_at: NOW,
        updated_at: NOW,
    }
}
