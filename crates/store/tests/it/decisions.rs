//! How requests were routed, as it is told later.

use omniroute_domain::entity::{Goal, RuntimeSettings, Step};
use omniroute_store::{CallLogQuery, LoggedDecision};

use crate::crowd::{Crowd, ask, entities, one};
use crate::fixture::{Fixture, NOW, stories};

stories!(decisions_are_told_by_name_after_a_restart_and_until_they_are_old);

const DAY: i64 = 24 * 60 * 60 * 1_000;

async fn told(fixture: &Fixture) -> Vec<LoggedDecision> {
    let query = CallLogQuery { limit: 10, ..CallLogQuery::default() };
    let (rows, _) = fixture.store.call_logs().list(&query).await.unwrap();
    let mut told = Vec::new();
    for row in rows {
        told.extend(fixture.store.routing_decisions().get(&row.id).await.unwrap());
    }
    told
}

async fn decisions_are_told_by_name_after_a_restart_and_until_they_are_old(fixture: Fixture) {
    let mut entities = entities();
    // A name that Postgres takes in no text.
    entities.combos[0].steps.push(Step {
        id: "odd".to_owned(),
        goal: Goal::Model { model: "nobody/o\0dd".to_owned(), connection_id: None },
        weight: 0,
        label: None,
        template: None,
        when: None,
    });
    for key in &entities.api_keys {
        fixture.store.api_keys().insert(key).await.unwrap();
    }
    for _process in 0..2 {
        let crowd = Crowd::new(&fixture, &entities, false);
        for _ in 0..2 {
            assert_eq!(one(&crowd.engine, 0, ask("priority", false)).await.status, 200);
        }
        crowd.handle.flush().await;
        let stats = crowd.recorder.stats();
        assert_eq!((stats.written_rows, stats.shed_rows, stats.flush_failures), (2, 0, 0));
        crowd.handle.close().await;
    }
    let decisions = told(&fixture).await;
    assert_eq!(decisions.len(), 4);
    for decision in &decisions {
        let candidates = decision.candidates.iter().map(|it| {
            let provider = it.provider.as_deref().map(|id| id.trim_start_matches("openai-compatible-chat-"));
            (provider, &*it.model, it.connection_name.as_deref(), it.wave, it.rule.as_deref())
        });
        assert_eq!(
            candidates.collect::<Vec<_>>(),
            [
                (Some("a"), "m", Some("a0"), Some(1), None),
                (Some("a"), "m", Some("a1"), Some(1), None),
                (Some("b"), "m", None, Some(2), None),
                (Some("c"), "m", None, Some(3), None),
                (None, "nobody/o\u{fffd}dd", None, None, Some("inactive")),
            ]
        );
        assert!(decision.candidates[..4].iter().all(|it| it.cost_nano.is_some()));
    }
    // As long as there are decisions, there are their names; then neither.
    let settings = RuntimeSettings { log_retention_days: 30, ..RuntimeSettings::default() };
    fixture.store.prune(NOW + 29 * DAY, &settings).await.unwrap();
    assert_eq!(told(&fixture).await, decisions);
    let gone = fixture.store.prune(NOW + 33 * DAY, &settings).await.unwrap();
    assert!(gone.other >= 4 + 2 * 5, "four decisions and two pages of five names: {gone:?}");
    assert_eq!(told(&fixture).await, []);
    assert_eq!(fixture.store.prune(NOW + 33 * DAY, &settings).await.unwrap().other, 0);
}
