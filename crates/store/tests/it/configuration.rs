//! What the operator configures comes back as it was written.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use omniroute_domain::entity::{
    ApiKey, Budget, Combo, ComboConfig, ConnectionId, ConnectionStatus, Goal, KeyHash, OnExceeded, Policy,
    PolicyActions, PolicyConditions, PolicyKind, RuntimeSettings, SseKeepalive, Step, TestStatus, When,
};
use omniroute_store::{AuditEvent, AuditQuery, ConnectionFilter, Lockout, StoreError};
use secrecy::ExposeSecret as _;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::fixture::{
    DAY, Fixture, NOW, Remembered, api_key, connection, model, node, put_settings, stories,
};
use crate::put;

stories!(
    everything_comes_back_after_a_restart,
    connections_keep_their_order,
    combos_keep_their_order_and_their_references,
    aliases_come_back,
    duplicates_are_refused_with_the_field,
    a_changed_credential_forgets_the_old_state,
    deleting_a_node_takes_its_rows_along,
    revoked_keys_are_listed_only_on_request,
    every_change_counts_and_nothing_else_does,
    the_password_has_versions,
    sessions_and_lockouts_survive_a_restart,
    the_audit_log_is_filtered_and_paged,
    old_rows_are_pruned,
    two_processes_see_each_other,
);

async fn everything_comes_back_after_a_restart(fixture: Fixture) {
    let store = &fixture.store;
    let settings = RuntimeSettings {
        require_login: false,
        fallback_strategy: "round-robin".into(),
        provider_order: vec!["openai".into()],
        sse_keepalive: SseKeepalive::Chunk,
        auto_cache: false,
        idempotency_window_ms: 0,
        public_url: Some("https://gateway.example.org".into()),
        ..RuntimeSettings::default()
    };
    put_settings(store, &settings).await;
    store.nodes().insert(&node("openai-compatible-chat-1", "local")).await.unwrap();
    put::model(store, &model("openai", "gpt-x")).await;
    put::model(store, &model("openai", "gpt-y")).await;
    put::model(store, &model("openai-compatible-chat-1", "gemma")).await;
    store.api_keys().insert(&api_key("k1", "sk-1")).await.unwrap();
    let stored =
        store.connections().insert(&connection("c1", "openai", "work", Some("sk-secret"))).await.unwrap();
    assert_eq!(stored.priority, 1);
    store.connections().insert(&connection("c2", "openai", "free", None)).await.unwrap();
    store.close().await;

    let entities = fixture.again().await.entities().await.unwrap();
    assert_eq!(entities.settings, settings);
    assert_eq!(entities.nodes, [node("openai-compatible-chat-1", "local")]);
    let mut models =
        vec![model("openai", "gpt-x"), model("openai", "gpt-y"), model("openai-compatible-chat-1", "gemma")];
    models.sort_by_key(|model| model.id.clone());
    let mut found = entities.custom_models;
    found.sort_by_key(|model| model.id.clone());
    assert_eq!(found, models);
    let key = &entities.api_keys[0];
    assert_eq!(format!("{key:?}"), format!("{:?}", api_key("k1", "sk-1")));
    assert_eq!(key.hash, KeyHash::of("sk-1"));
    let [first, second] = &entities.connections[..] else { panic!("two connections") };
    let expected = connection("c1", "openai", "work", Some("sk-secret"));
    assert_eq!(first.api_key.as_ref().unwrap().expose_secret(), "sk-secret");
    assert_eq!(first.options, expected.options);
    assert_eq!((&first.tags, first.max_concurrent, &first.group), (&expected.tags, Some(4), &expected.group));
    assert!(second.api_key.is_none());
    assert!(entities.revision > 7);
}

pub(crate) fn combo(id: &str, name: &str, models: &[&str]) -> Combo {
    let step = |model: &&str| {
        let goal = match model.strip_prefix("combo:") {
            Some(inner) => Goal::ComboRef { combo_name: inner.into() },
            None => Goal::Model { model: (*model).into(), connection_id: Some("c1".into()) },
        };
        let when = When { has_tools: Some(true), ..When::default() };
        Step {
            weight: 7,
            label: Some("x".into()),
            when: Some(when),
            template: Some("{{output}}".into()),
            ..Step::new(format!("{name}-{model}"), goal)
        }
    };
    Combo {
        config: ComboConfig { max_retries: Some(3), ..ComboConfig::default() },
        is_hidden: true,
        is_active: false,
        ..Combo::new(id, name, "weighted", models.iter().map(step).collect(), NOW)
    }
}

async fn combos_keep_their_order_and_their_references(fixture: Fixture) {
    let combos = fixture.store.combos();
    let mut inner = put::new_combo(&fixture.store, combo("1", "Inner", &["a/b"])).await.unwrap();
    let outer = combo("2", "outer", &["combo:Inner", "c/d"]);
    let outer = put::new_combo(&fixture.store, outer).await.unwrap();
    assert_eq!((inner.sort_order, outer.sort_order), (1, 2));
    let taken = put::new_combo(&fixture.store, combo("3", "INNER", &["x/y"])).await;
    assert!(matches!(taken, Err(StoreError::Conflict { field: "name", .. })));
    put::alias(&fixture.store, "i", "Inner", NOW).await;
    put::alias(&fixture.store, "deep", "combo/Inner(high)", NOW + 1).await;
    let mut key = api_key("k1", "sk-k1");
    key.allowed_models = vec!["Inner".into(), "combo/Inner".into(), "Inner*".into()];
    key.denied_models = vec!["inner".into(), "combo/INNER".into(), "d".into()];
    key.rights.allowed_combos = vec!["outer".into(), "inner".into()];
    fixture.store.api_keys().insert(&key).await.unwrap();
    let budget = Budget {
        daily_nano: Some(1),
        on_exceeded: OnExceeded::Downgrade("Inner".into()),
        ..Budget::unlimited(None)
    };
    put::budgets(&fixture.store, &[budget]).await;
    let policy = Policy {
        id: "p1".into(),
        name: "all to one".into(),
        kind: PolicyKind::Routing,
        enabled: true,
        mode: Default::default(),
        priority: 1,
        conditions: PolicyConditions { model_pattern: Some("inner".into()), ..PolicyConditions::default() },
        actions: PolicyActions {
            rewrite_model: Some("combo/Inner[1m]".into()),
            block_model: vec!["inner".into(), "Core".into(), "combo/inner".into()],
            ..PolicyActions::default()
        },
        created_at: NOW,
        updated_at: NOW,
    };
    fixture.store.policies().insert(&policy, 9).await.unwrap();
    let mut settings = RuntimeSettings::default();
    settings.semantic_cache_similarity.model = Some("Inner".into());
    put_settings(&fixture.store, &settings).await;

    inner.name = "core".into();
    put::combo(&fixture.store, &inner).await.unwrap();
    combos.reorder(&["2".into(), "nobody".into()], NOW + 1).await.unwrap();
    fixture.store.close().await;
    let again = fixture.again().await;
    let entities = again.entities().await.unwrap();
    let [first, second] = &entities.combos[..] else { panic!("two combos") };
    assert_eq!((&*first.name, &*second.name), ("outer", "core"));
    assert_eq!(second.steps, inner.steps);
    assert_eq!(
        (second.config.clone(), second.is_hidden, second.is_active),
        (inner.config.clone(), true, false)
    );
    assert_eq!(first.steps[0].goal, Goal::ComboRef { combo_name: "core".into() });
    assert_eq!(first.steps[1], outer.steps[1]);
    let named = |alias: &str, model: &str| (alias.to_owned(), model.to_owned());
    assert_eq!(entities.aliases, [named("i", "core"), named("deep", "combo/core(high)")]);
    let key = &entities.api_keys[0];
    // The old name may be a model's as well.
    assert_eq!(key.allowed_models, ["Inner", "combo/Inner", "Inner*", "core", "combo/core"]);
    assert_eq!(key.denied_models, ["inner", "combo/INNER", "d", "core", "combo/core"]);
    assert_eq!(key.rights.allowed_combos, ["outer", "core"]);
    assert_eq!(entities.budgets[0].on_exceeded, OnExceeded::Downgrade("core".into()));
    let Policy { conditions, actions, .. } = &entities.policies[0];
    assert_eq!(conditions.model_pattern.as_deref(), Some("core"));
    assert_eq!(actions.rewrite_model.as_deref(), Some("combo/core[1m]"));
    assert_eq!(actions.block_model, ["inner", "Core", "combo/inner", "combo/core"], "each once");
    assert_eq!(entities.settings.semantic_cache_similarity.model.as_deref(), Some("core"));

    let delete = async || again.combos().delete(&"1".into(), |_| Ok::<_, ()>(())).await.unwrap();
    assert_eq!((delete().await, delete().await), (Ok(true), Ok(false)));
}

async fn aliases_come_back(fixture: Fixture) {
    let aliases = fixture.store.aliases();
    let before = fixture.store.revision().await.unwrap();
    put::alias(&fixture.store, "fast", "openai/x", NOW).await;
    put::alias(&fixture.store, "a*", "b*", NOW + 1).await;
    put::alias(&fixture.store, "fast", "openai/y", NOW + 2).await;
    let mut all = [("a*".to_owned(), "b*".to_owned()), ("fast".to_owned(), "openai/y".to_owned())];
    assert_eq!(aliases.list().await.unwrap(), all);
    all.reverse();
    assert_eq!(
        fixture.store.entities().await.unwrap().aliases,
        all,
        "the oldest first, as old as it was first"
    );
    let delete = async |answer: Result<(), &'static str>| aliases.delete("fast", |_| answer).await.unwrap();
    assert_eq!(delete(Err("no")).await, Err("no"));
    assert_eq!(aliases.list().await.unwrap().len(), 2);
    assert_eq!((delete(Ok(())).await, delete(Ok(())).await), (Ok(true), Ok(false)));
    assert!(fixture.store.revision().await.unwrap() >= before + 4);
}

async fn connections_keep_their_order(fixture: Fixture) {
    let connections = fixture.store.connections();
    let order = async || {
        let all = connections.list(&ConnectionFilter::default()).await.unwrap();
        assert!(all.iter().zip(1..).all(|(connection, place)| connection.priority == place));
        all.iter().map(|connection| connection.id.as_str().to_owned()).collect::<String>()
    };
    for id in ["a", "b", "c"] {
        connections.insert(&connection(id, "openai", id, None)).await.unwrap();
    }
    assert_eq!(order().await, "abc");
    let mut first = connection("d", "openai", "d", None);
    first.priority = 1;
    connections.insert(&first).await.unwrap();
    assert_eq!(order().await, "dabc");
    let mut moved = connections.get(&"d".into()).await.unwrap().unwrap();
    moved.priority = 3;
    assert_eq!(put::connection(&fixture.store, &moved).await.unwrap().priority, 3);
    assert_eq!(order().await, "abdc");
    assert!(connections.delete(&"a".into()).await.unwrap());
    assert!(!connections.delete(&"a".into()).await.unwrap());
    assert_eq!(order().await, "bdc");

    let mut off = connections.get(&"c".into()).await.unwrap().unwrap();
    off.is_active = false;
    put::connection(&fixture.store, &off).await.unwrap();
    let filter = ConnectionFilter { provider: Some("openai".into()), active: Some(true) };
    assert_eq!(connections.list(&filter).await.unwrap().len(), 2);
    let filter = ConnectionFilter { provider: Some("anthropic".into()), active: None };
    assert!(connections.list(&filter).await.unwrap().is_empty());
}

async fn duplicates_are_refused_with_the_field(fixture: Fixture) {
    fn field<T>(result: Result<T, StoreError>) -> &'static str {
        match result.map(drop).unwrap_err() {
            StoreError::Conflict { field, message } => {
                assert!(!message.contains("sk-1"), "{message}");
                field
            }
            other => panic!("{other}"),
        }
    }
    let store = &fixture.store;
    let connections = store.connections();
    connections.insert(&connection("c1", "openai", "work", Some("sk-1"))).await.unwrap();
    connections.insert(&connection("c2", "anthropic", "work", Some("sk-1"))).await.unwrap();
    connections.insert(&connection("c3", "openai", "other", Some("sk-2"))).await.unwrap();
    let revision = store.revision().await.unwrap();
    let insert = async |name, key| connections.insert(&connection("c4", "openai", name, key)).await;
    assert_eq!(field(insert("work", Some("sk-3")).await), "name");
    assert_eq!(field(insert("new", Some("sk-1")).await), "apiKey");
    assert_eq!(field(insert("work", Some("sk-2")).await), "name");
    let mut renamed = connections.get(&"c3".into()).await.unwrap().unwrap();
    renamed.name = "work".into();
    assert_eq!(field(put::connection(&fixture.store, &renamed).await), "name");
    let mut moved = connections.get(&"c3".into()).await.unwrap().unwrap();
    moved.provider = "anthropic".into();
    assert_eq!(field(put::connection(&fixture.store, &moved).await), "provider");

    store.nodes().insert(&node("n1", "local")).await.unwrap();
    assert_eq!(field(store.nodes().insert(&node("n2", "local")).await), "prefix");
    store.api_keys().insert(&api_key("k1", "sk-a")).await.unwrap();
    assert_eq!(field(store.api_keys().insert(&api_key("k2", "sk-a")).await), "key");
    assert_eq!(store.revision().await.unwrap(), revision + 2, "refused changes do not count");

    let missing = connection("nobody", "openai", "x", None);
    assert!(matches!(put::connection(&fixture.store, &missing).await, Err(StoreError::NotFound { .. })));
    assert!(matches!(put::node(store, &node("n9", "x")).await, Err(StoreError::NotFound { .. })));
    let unknown = store.api_keys().change(&"k9".into(), |_| Ok::<_, ()>(())).await;
    assert!(matches!(unknown, Err(StoreError::NotFound { .. })));
}

async fn a_changed_credential_forgets_the_old_state(fixture: Fixture) {
    let connections = fixture.store.connections();
    connections.insert(&connection("c1", "openai", "work", Some("sk-1"))).await.unwrap();
    let status = ConnectionStatus {
        test_status: TestStatus::Expired,
        last_tested: Some(NOW),
        last_used_at: Some(NOW),
        last_error: Some("401".into()),
        last_error_at: Some(NOW),
        last_error_type: Some("auth".into()),
        last_error_source: Some("upstream".into()),
        error_code: Some(401),
        backoff_level: 3,
        rate_limited_until: Some(NOW + 1),
        consecutive_use_count: 2,
    };
    assert!(connections.set_status(&"c1".into(), &status).await.unwrap());
    assert!(!connections.set_status(&"nobody".into(), &status).await.unwrap());
    let mut stored = connections.get(&"c1".into()).await.unwrap().unwrap();
    assert_eq!(stored.status, status);
    stored.name = "renamed".into();
    stored.status = ConnectionStatus::default();
    let stored = put::connection(&fixture.store, &stored).await.unwrap();
    assert_eq!(stored.status, status, "the operator's edit does not touch what traffic found out");

    let mut changed = stored.clone();
    changed.api_key = Some("sk-2".into());
    let changed = put::connection(&fixture.store, &changed).await.unwrap();
    assert_eq!(changed.status.test_status, TestStatus::Unknown);
    assert_eq!((changed.status.last_error, changed.status.rate_limited_until), (None, None));
    assert_eq!((changed.status.last_used_at, changed.status.last_tested), (Some(NOW), None));
    assert_eq!(changed.api_key.unwrap().expose_secret(), "sk-2");
}

async fn deleting_a_node_takes_its_rows_along(fixture: Fixture) {
    let store = &fixture.store;
    store.nodes().insert(&node("n1", "local")).await.unwrap();
    store.nodes().insert(&node("n2", "other")).await.unwrap();
    for provider in ["n1", "n2"] {
        store.connections().insert(&connection(provider, provider, "x", None)).await.unwrap();
        put::model(store, &model(provider, "m")).await;
    }
    let mut changed = node("n2", "renamed");
    changed.allow_private = false;
    put::node(store, &changed).await.unwrap();
    for provider in ["n1", "n2"] {
        let mut row = connection(provider, provider, "x", Some("sk-1"));
        row.options.api_keys.0.push("sk-2".into());
        put::connection(store, &row).await.unwrap();
        let status = ConnectionStatus { test_status: TestStatus::Banned, ..ConnectionStatus::default() };
        store.key_states().set(&ConnectionId::of_key(&provider.into(), "sk-2"), &status).await.unwrap();
    }
    assert!(store.nodes().delete(&"n1".into()).await.unwrap());
    assert!(!store.nodes().delete(&"n1".into()).await.unwrap());
    let entities = store.entities().await.unwrap();
    assert_eq!(entities.nodes, [changed]);
    assert_eq!(entities.connections.len(), 1);
    assert_eq!(entities.custom_models.len(), 1);
    // Another account of the same id, with the same keys, is another one.
    store.nodes().insert(&node("n1", "local")).await.unwrap();
    let mut row = connection("n1", "n1", "x", Some("sk-1"));
    row.options.api_keys.0.push("sk-2".into());
    let stored = store.connections().insert(&row).await.unwrap();
    assert!(stored.key_statuses.is_empty(), "what was known went with the node");
    let kept = store.connections().get(&"n2".into()).await.unwrap().unwrap();
    assert_eq!(kept.key_statuses.len(), 1);
    assert!(store.nodes().delete(&"n1".into()).await.unwrap());
    assert_eq!(store.custom_models().list(Some(&"n1".into())).await.unwrap(), []);
    assert!(!store.custom_models().delete(&"n2".into(), "nothing").await.unwrap());
    assert!(store.custom_models().delete(&"n2".into(), "m").await.unwrap());
    assert_eq!(store.custom_models().list(None).await.unwrap(), []);
    assert!(store.nodes().get(&"n1".into()).await.unwrap().is_none());
}

async fn revoked_keys_are_listed_only_on_request(fixture: Fixture) {
    let keys = fixture.store.api_keys();
    for (number, id) in ["k1", "k2", "k3"].into_iter().enumerate() {
        let mut key = api_key(id, id);
        key.created_at += i64::try_from(number).unwrap();
        keys.insert(&key).await.unwrap();
    }
    assert!(keys.revoke(&"k2".into(), NOW).await.unwrap());
    assert!(!keys.revoke(&"k2".into(), NOW + 1).await.unwrap());
    let ids = async |revoked, limit, offset| {
        let (page, total) = keys.list(revoked, limit, offset).await.unwrap();
        (page.iter().map(|key| key.id.as_str().to_owned()).collect::<Vec<_>>().join(" "), total)
    };
    assert_eq!(ids(false, 10, 0).await, ("k3 k1".into(), 2));
    assert_eq!(ids(true, 2, 1).await, ("k2 k1".into(), 3));
    let revoked = keys.get(&"k2".into()).await.unwrap().unwrap();
    assert_eq!((revoked.revoked_at, revoked.is_active), (Some(NOW), false));
    // Requests must know it to refuse it.
    assert_eq!(fixture.store.entities().await.unwrap().api_keys.len(), 3);

    let renew = |key: &mut ApiKey| {
        key.hash = KeyHash::of("new");
        key.max_concurrent = None;
        Ok::<_, ()>(())
    };
    keys.change(&"k1".into(), renew).await.unwrap().unwrap();
    let rotated = keys.get(&"k1".into()).await.unwrap().unwrap();
    assert_eq!((rotated.hash, rotated.max_concurrent), (KeyHash::of("new"), None));
}

async fn every_change_counts_and_nothing_else_does(fixture: Fixture) {
    let store = &fixture.store;
    let mut known = store.revision().await.unwrap();
    store.connections().insert(&connection("c1", "openai", "work", None)).await.unwrap();
    let settings = RuntimeSettings { require_login: false, ..RuntimeSettings::default() };
    put_settings(store, &settings).await;
    put_settings(store, &settings).await;
    put::model(store, &model("openai", "m")).await;
    known += 3;
    assert_eq!(store.revision().await.unwrap(), known);
    store.connections().set_status(&"c1".into(), &ConnectionStatus::default()).await.unwrap();
    store.audit().append(&AuditEvent::default()).await.unwrap();
    store.revoked_tokens().insert("jti", NOW).await.unwrap();
    store.connections().delete(&"nobody".into()).await.unwrap();
    assert_eq!(store.revision().await.unwrap(), known);
    assert_eq!(store.entities().await.unwrap().revision, known);
}

async fn the_password_has_versions(fixture: Fixture) {
    let settings = fixture.store.settings();
    assert_eq!(settings.password_hash().await.unwrap(), None);
    assert_eq!(settings.set_password_hash("first").await.unwrap(), 1);
    assert_eq!(settings.set_password_hash("second").await.unwrap(), 2);
    assert!(settings.rehash_password("second", "second anew").await.unwrap());
    assert!(!settings.rehash_password("second", "late").await.unwrap());
    let stored = settings.password_hash().await.unwrap().unwrap();
    assert_eq!((stored.hash.as_str(), stored.version), ("second anew", 2));
    assert_eq!(settings.get().await.unwrap(), RuntimeSettings::default());
}

async fn sessions_and_lockouts_survive_a_restart(fixture: Fixture) {
    let store = &fixture.store;
    let secret = store.meta().jwt_secret().await.unwrap();
    let machine = store.meta().machine_id().await.unwrap();
    assert_eq!((machine.len(), secret.expose_secret().len()), (16, 64));
    store.revoked_tokens().insert("a", NOW + 1).await.unwrap();
    store.revoked_tokens().insert("a", NOW + 1).await.unwrap();
    store.revoked_tokens().insert("b", NOW - 1).await.unwrap();
    let lockout = Lockout { identifier: "10.0.0.1".into(), attempts: vec![1, 2, 3], locked_until: Some(NOW) };
    store.lockouts().save(&lockout).await.unwrap();
    store.lockouts().save(&lockout).await.unwrap();

    let store = fixture.again().await;
    assert_eq!(store.meta().jwt_secret().await.unwrap().expose_secret(), secret.expose_secret());
    assert_eq!(store.meta().machine_id().await.unwrap(), machine);
    assert_eq!(store.lockouts().load("10.0.0.1").await.unwrap(), Some(lockout));
    store.lockouts().clear("10.0.0.1").await.unwrap();
    assert_eq!(store.lockouts().load("10.0.0.1").await.unwrap(), None);
    let valid = store.revoked_tokens().load(NOW).await.unwrap();
    assert_eq!(valid.iter().map(|token| token.jti.as_str()).collect::<Vec<_>>(), ["a"]);
    assert_eq!(store.revoked_tokens().purge(NOW).await.unwrap(), 1);
    assert!(store.revoked_tokens().contains("a").await.unwrap());
    assert!(!store.revoked_tokens().contains("b").await.unwrap());
}

async fn the_audit_log_is_filtered_and_paged(fixture: Fixture) {
    let audit = fixture.store.audit();
    for (number, action) in ["auth.login.failed", "auth.login.success", "authXlogin.x", "settings.updated"]
        .into_iter()
        .enumerate()
    {
        let event = AuditEvent {
            timestamp: NOW + i64::try_from(number).unwrap(),
            action: action.into(),
            actor: "admin".into(),
            status: "success".into(),
            details: Some("{}".into()),
            ip_address: Some("::1".into()),
            ..AuditEvent::default()
        };
        audit.append(&event).await.unwrap();
    }
    let actions = async |query: AuditQuery| {
        let (rows, total) = audit.list(&query).await.unwrap();
        (rows.into_iter().map(|row| row.event.action).collect::<Vec<_>>(), total)
    };
    let query = |action: &str| AuditQuery { action: Some(action.into()), limit: 10, ..AuditQuery::default() };
    assert_eq!(
        actions(query("auth.*")).await,
        (vec!["auth.login.success".into(), "auth.login.failed".into()], 2)
    );
    assert_eq!(actions(query("settings.updated")).await.1, 1);
    let page = AuditQuery { limit: 1, offset: 1, since: Some(NOW + 1), ..AuditQuery::default() };
    assert_eq!(actions(page).await, (vec!["authXlogin.x".into()], 3));
}

async fn old_rows_are_pruned(fixture: Fixture) {
    let store = &fixture.store;
    for (age, action) in [(10 * DAY, "old"), (DAY, "new")] {
        let event = AuditEvent { timestamp: NOW - age, action: action.into(), ..AuditEvent::default() };
        store.audit().append(&event).await.unwrap();
    }
    store.revoked_tokens().insert("old", NOW - 1).await.unwrap();
    let lockout = Lockout { identifier: "x".into(), attempts: vec![NOW - 2 * DAY], locked_until: None };
    store.lockouts().save(&lockout).await.unwrap();
    let settings = RuntimeSettings { log_retention_days: 3, ..RuntimeSettings::default() };
    let pruned = store.prune(NOW, &settings).await.unwrap();
    assert_eq!((pruned.audit_events, pruned.other), (1, 2));
    assert_eq!(store.prune(NOW, &settings).await.unwrap(), omniroute_store::Pruned::default());
}

async fn two_processes_see_each_other(fixture: Fixture) {
    let other = fixture.again().await;
    let known = other.entities().await.unwrap().revision;
    // Changed after the rows were read and before anybody listened.
    put::model(&fixture.store, &model("openai", "early")).await;
    let (tracker, cancel) = (TaskTracker::new(), CancellationToken::new());
    let heard = Arc::new(Notify::new());
    let (teller, calls) = (Arc::clone(&heard), AtomicU32::new(0));
    tracker.spawn(omniroute_store::watch(other.clone(), known, cancel.clone(), move || {
        // The first time fails.
        let could = calls.fetch_add(1, Ordering::Relaxed) > 0;
        if could {
            teller.notify_one();
        }
        async move { could }
    }));
    let hears = async || {
        tokio::time::timeout(Duration::from_secs(20), heard.notified())
            .await
            .expect("the other process hears of it");
    };
    hears().await;
    put::model(&fixture.store, &model("openai", "late")).await;
    hears().await;
    assert_eq!(other.custom_models().list(None).await.unwrap().len(), 2);
    cancel.cancel();
    tracker.close();
    tracker.wait().await;
}

#[tokio::test]
async fn a_change_is_in_force_after_a_reload() {
    use omniroute_domain::health::HealthMap;
    use omniroute_domain::snapshot::{BuildOptions, Snapshot};
    let fixture = Fixture::sqlite().await;
    let store = &fixture.store;
    let (catalog, options) = (
        omniroute_provider::catalog::catalog(),
        BuildOptions { allow_private: true, ..BuildOptions::default() },
    );
    let health = HealthMap::default();
    let snapshot = Snapshot::build(&store.entities().await.unwrap(), catalog, &health, &options);
    let live = omniroute_engine::Live::new(snapshot, health);
    let key = KeyHash::of("sk-1");
    assert!(live.load().caller(key).is_none());
    store.api_keys().insert(&api_key("k1", "sk-1")).await.unwrap();
    store.connections().insert(&connection("c1", "openai", "work", Some("sk-x"))).await.unwrap();
    let revision =
        omniroute_store::reload(store, &live, catalog, &options, &Remembered::default(), NOW).await.unwrap();
    assert_eq!(live.load().revision, revision);
    assert!(live.load().caller(key).is_some());
    assert!(live.load().has_connection(&"c1".into()));
    store.api_keys().revoke(&"k1".into(), NOW).await.unwrap();
    omniroute_store::reload(store, &live, catalog, &options, &Remembered::default(), NOW).await.unwrap();
    assert!(!live.load().caller(key).unwrap().is_active);
}
