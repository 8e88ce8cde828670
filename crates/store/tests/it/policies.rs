//! Policies as rows, and what they refused in the audit log.

use omniroute_domain::entity::{Policy, PolicyActions, PolicyConditions, PolicyKind, PolicyMode};
use omniroute_engine::ports::{Recorder as _, RequestRow};
use omniroute_store::{AuditQuery, WriterOptions};

use crate::fixture::{Fixture, NOW, request, stories, writer};
use crate::put;

stories!(policies_come_back_as_they_were, what_a_policy_refuses_is_audited_once_a_minute);

fn policy(id: &str, name: &str) -> Policy {
    Policy {
        id: id.into(),
        name: name.into(),
        kind: PolicyKind::Access,
        enabled: true,
        mode: Default::default(),
        priority: -3,
        conditions: PolicyConditions {
            model_pattern: Some("*opus*".into()),
            hour_range: Some("20:00-06:00".into()),
            ..PolicyConditions::default()
        },
        actions: PolicyActions { block_model: vec!["*opus*".into()], ..PolicyActions::default() },
        created_at: NOW,
        updated_at: NOW,
    }
}

async fn policies_come_back_as_they_were(fixture: Fixture) {
    let store = &fixture.store;
    let before = store.revision().await.unwrap();
    let (mut night, mut day) = (policy("p1", "night"), policy("p2", "day"));
    night.mode = PolicyMode::Observe;
    store.policies().insert(&night, 9).await.unwrap();
    store.policies().insert(&day, 9).await.unwrap();
    assert!(store.revision().await.unwrap() > before, "other processes notice");
    // Changed it is not there twice.
    day.enabled = false;
    day.kind = PolicyKind::Budget;
    day.actions = PolicyActions { max_cost_usd: Some(0.25), max_tokens: Some(9), ..PolicyActions::default() };
    put::policy(store, &day).await.unwrap();
    let mut listed = store.policies().list().await.unwrap();
    listed.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(listed, [night.clone(), day]);
    assert_eq!(fixture.again().await.entities().await.unwrap().policies.len(), 2);
    assert!(store.policies().delete("p2").await.unwrap());
    assert!(!store.policies().delete("p2").await.unwrap());
    assert_eq!(store.policies().list().await.unwrap(), [night]);
}

fn refused(name: &str, at: i64, reason: &str) -> RequestRow {
    let mut row = request(name, at);
    row.status = 403;
    row.error = Some(reason.into());
    row.error_code = Some("policy_denied".into());
    row
}

async fn what_a_policy_refuses_is_audited_once_a_minute(fixture: Fixture) {
    let (recorder, handle) = writer(&fixture.store, WriterOptions::default());
    let reason = "Model \"opus\" blocked by policy \"night\"";
    let minute = NOW - NOW.rem_euclid(60_000);
    for at in 0..5 {
        recorder.record(refused(&format!("same{at}"), minute + at, reason));
    }
    recorder.record(refused("other", minute + 10, "Model \"o3\" blocked by policy \"night\""));
    recorder.record(refused("later", minute + 60_000, reason));
    let mut elsewhere = refused("else", minute + 60_001, "something else is wrong");
    elsewhere.error_code = Some("model_not_found".into());
    recorder.record(elsewhere);
    handle.flush().await;
    let query = AuditQuery { action: Some("policy.denied".into()), limit: 50, ..AuditQuery::default() };
    let (told, _) = fixture.store.audit().list(&query).await.unwrap();
    let told: Vec<_> = told
        .into_iter()
        .map(|record| (record.event.request_id.unwrap(), record.event.actor, record.event.status))
        .collect();
    let of = |id: &str| (format!("req_{id}"), "key:dev".to_owned(), "failure".to_owned());
    assert_eq!(told, [of("later"), of("other"), of("same0")]);

    // Somebody who tries thousands of names does not fill the log.
    for at in 0..600_i64 {
        recorder.record(refused(&format!("f{at}"), minute + 120_000 + at, &format!("no {at}")));
    }
    handle.flush().await;
    let (_, total) = fixture.store.audit().list(&query).await.unwrap();
    assert_eq!(total, 3 + 256);
}
