//! Whose turn it is among accounts, over a restart.

use std::collections::HashMap;
use std::sync::Arc;

use omniroute_domain::entity::RuntimeSettings;
use omniroute_domain::health::HealthMap;
use omniroute_domain::rotation::Occasion;
use omniroute_domain::snapshot::{BuildOptions, Snapshot};
use omniroute_provider::{ProviderId, catalog::catalog};
use omniroute_store::Store;

use crate::fixture::{Fixture, NOW, connection, put_settings, stories};

stories!(turns_of_accounts_outlive_a_restart);

async fn snapshot(store: &Store) -> Snapshot {
    let health = HealthMap::default();
    Snapshot::build(&store.entities().await.unwrap(), catalog(), &health, &BuildOptions::default())
}

/// Who leads so many requests.
fn leaders(snapshot: &Snapshot, count: usize) -> Vec<String> {
    let provider = snapshot.provider(&ProviderId::from("openai")).unwrap();
    let occasion = Occasion { now_ms: NOW, random: 1, model: "m", prefix: 0 };
    let lead = |_| {
        let chosen = provider
            .rotation
            .choose(provider.rule, &provider.connections, occasion, |it| Some(Arc::clone(it)));
        chosen.first.unwrap().1.id.to_string()
    };
    (0..count).map(lead).collect()
}

async fn turns_of_accounts_outlive_a_restart(fixture: Fixture) {
    let store = &fixture.store;
    for id in ["c1", "c2", "c3"] {
        store.connections().insert(&connection(id, "openai", id, Some(&format!("sk-{id}")))).await.unwrap();
    }
    store.connections().insert(&connection("g1", "groq", "alone", Some("gsk"))).await.unwrap();
    let settings = RuntimeSettings {
        fallback_strategy: "round-robin".into(),
        sticky_round_robin_limit: 1,
        ..RuntimeSettings::default()
    };
    put_settings(store, &settings).await;
    let before = snapshot(store).await;
    let mut known = HashMap::new();
    store.rotation_memories().keep(&before, &mut known).await.unwrap();
    assert!(known.is_empty(), "nothing happened yet");
    let seen = leaders(&before, 4);
    store.rotation_memories().keep(&before, &mut known).await.unwrap();
    assert_eq!(known.len(), 1, "one account has no turns");
    let after = snapshot(&fixture.again().await).await;
    store.rotation_memories().recall(&after).await.unwrap();
    assert_eq!(leaders(&after, 1), [seen[1].clone()], "the fifth, and not the first again: {seen:?}");
}
