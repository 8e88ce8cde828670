//! How requests were routed, as it is told later.

use omniroute_domain::entity::{RuntimeSettings, Step};
use omniroute_store::{CallLogQuery, Location, LoggedDecision};
use sqlx::Connection as _;

use crate::crowd::{Crowd, ask, entities, one};
use crate::fixture::{Fixture, NOW, stories};

stories!(
    decisions_are_told_by_name_after_a_restart_and_until_they_are_old,
    the_same_order_is_kept_once_whatever_it_costs,
);

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
    entities.combos[0].steps.push(Step::to_model("odd", "nobody/o\0dd"));
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

/// What is kept of the decisions, and how many lists there are.
async fn kept(fixture: &Fixture) -> (Vec<String>, i64) {
    let Location::Sqlite { data_dir } = &fixture.options.location else { return Default::default() };
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(data_dir.join("storage.sqlite"));
    let mut other = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    let texts = sqlx::query_scalar("SELECT factors_json FROM routing_decisions ORDER BY seq");
    let lists = sqlx::query_scalar("SELECT COUNT(*) FROM routing_names WHERE list IS NOT NULL");
    (texts.fetch_all(&mut other).await.unwrap(), lists.fetch_one(&mut other).await.unwrap())
}

async fn the_same_order_is_kept_once_whatever_it_costs(fixture: Fixture) {
    let mut entities = entities();
    // Of the last target nobody knows the cost.
    entities.prices.user.remove("openai-compatible-chat-c");
    // One that is switched off is told of in the list too.
    let mut off = entities.connections[0].clone();
    (off.id, off.name, off.is_active) = ("off".into(), "off".into(), false);
    entities.connections.push(off);
    for key in &entities.api_keys {
        fixture.store.api_keys().insert(key).await.unwrap();
    }
    let dearer = ask("priority", false).replace("hello there", &"hello there ".repeat(40));
    let asked =
        [ask("priority", false), dearer, ask("priority", false), ask("a/m", false), ask("a/m", false)];
    let crowd = Crowd::new(&fixture, &entities, false);
    for body in &asked {
        assert_eq!(one(&crowd.engine, 0, body.clone()).await.status, 200);
        crowd.handle.flush().await;
    }
    crowd.handle.close().await;
    let mut decisions = told(&fixture).await;
    decisions.sort_by_key(|decision| (decision.combo.is_none(), decision.turn));
    let [cheap, dear, again, direct, other] = &*decisions else { panic!("{decisions:?}") };
    let told = |decision: &LoggedDecision| -> Vec<(Option<String>, Option<usize>, bool)> {
        for it in &decision.candidates {
            let rule = (it.connection_name.as_deref() == Some("off")).then_some("inactive");
            assert_eq!(it.rule.as_deref(), rule, "{it:?}");
        }
        let it = decision.candidates.iter();
        it.map(|it| (it.connection_name.clone(), it.wave, it.cost_nano.is_some())).collect()
    };
    let account = |name: &str, wave, has_cost| (Some(name.to_owned()), wave, has_cost);
    let of_combo = [
        account("a0", Some(1), true),
        account("a1", Some(1), true),
        (None, Some(2), true),
        (None, Some(3), false),
        account("off", None, true),
    ];
    assert_eq!([cheap, dear, again].map(told), [of_combo.clone(), of_combo.clone(), of_combo]);
    let cost = |decision: &LoggedDecision| decision.candidates[2].cost_nano.unwrap();
    assert!(cost(dear) > cost(cheap) && cost(cheap) == cost(again));
    assert!(
        [cheap, dear, again]
            .iter()
            .all(|it| it.via.as_deref() == Some("combo") && it.strategy.as_deref() == Some("priority"))
    );
    assert_eq!([cheap, dear, again].map(|it| it.turn), [0, 1, 2].map(Some));
    let of_target = [account("a0", None, true), account("a1", None, true), account("off", None, true)];
    let is_alike = |decision: &LoggedDecision| {
        let costs: Vec<_> = decision
            .candidates
            .iter()
            .filter(|it| it.provider.as_deref().is_some_and(|id| id.ends_with("-a")))
            .map(|it| it.cost_nano)
            .collect();
        costs.len() == 3 && costs.iter().all(|cost| *cost == costs[0])
    };
    assert!(decisions.iter().all(is_alike), "each costs what its target does: {decisions:?}");
    assert_eq!([direct, other].map(told), [of_target.clone(), of_target]);
    assert!(direct.via.as_deref() == Some("direct") && direct.seed != other.seed);
    let (texts, lists) = kept(&fixture).await;
    if !texts.is_empty() {
        // Whether it is worth a list is known from the second time on.
        let by_list = texts.iter().map(|text| text.starts_with(r#"{"list":"#));
        assert_eq!(by_list.collect::<Vec<_>>(), [false, true, true, false, true], "{texts:?}");
        assert_eq!(lists, 2, "one of the combo, one of the model");
    }
}
