//! What vendors left of their quotas, from time to time.

use omniroute_domain::entity::{QuotaWindow, RuntimeSettings};
use omniroute_domain::health::HealthMap;
use omniroute_domain::limiter::{LearnedLimits, LearnedWindow};
use omniroute_domain::snapshot::{BuildOptions, Snapshot};
use omniroute_engine::ports::{Memory, QuotaRow, Recorder as _, RequestRow};
use omniroute_provider::catalog::catalog;
use omniroute_provider::quota_api::{Amount, ToldQuota};
use omniroute_store::WriterOptions;

use crate::fixture::{DAY, Fixture, HOUR, NOW, connection, request, stories, writer};

stories!(
    snapshots_come_back_newest_first_and_go_in_time,
    what_was_used_of_a_plan_is_known_after_a_restart,
    a_window_that_was_written_down_goes_on_where_it_began,
    what_vendors_say_when_they_are_asked_is_kept_with_all_its_digits,
);

fn row(account: &str, remaining: u64, at: i64) -> QuotaRow {
    let window = LearnedWindow { limit: Some(200), remaining, until: at + 60_000, spacing_ms: 0 };
    let plenty = LearnedWindow { limit: Some(1_000), remaining: 900, ..window };
    QuotaRow {
        provider: "openai".into(),
        connection: account.into(),
        model: Some("m\0".into()),
        limits: Some(LearnedLimits {
            requests: Some(plenty),
            tokens: Some(window),
            ..LearnedLimits::default()
        }),
        plan: None,
        told: None,
        until: Some(at + 60_000),
        at,
    }
}

async fn what_vendors_say_when_they_are_asked_is_kept_with_all_its_digits(fixture: Fixture) {
    let amount = Amount::parse;
    let purse = ToldQuota {
        name: "balance".into(),
        used: None,
        total: None,
        remaining: amount("49.588940000000000001"),
        unit: "usd".into(),
        reset_at: None,
    };
    let key = ToldQuota {
        name: "key".into(),
        used: amount("60.5"),
        total: amount("100"),
        remaining: amount("39.5"),
        ..purse.clone()
    };
    let (recorder, handle) = writer(&fixture.store, WriterOptions::default());
    let cases = [
        (purse.clone(), None, false),
        (key, Some(39.5), false),
        (ToldQuota { remaining: amount("0"), ..purse.clone() }, Some(0.0), true),
        // A key without a limit.
        (ToldQuota { remaining: None, ..purse.clone() }, None, false),
    ];
    for (at, (told, ..)) in cases.iter().enumerate() {
        recorder.remember(Memory::Quota(QuotaRow {
            model: None,
            limits: None,
            told: Some(Box::new(told.clone())),
            until: told.reset_at,
            ..row("c1", 0, NOW + i64::try_from(at).unwrap())
        }));
    }
    handle.flush().await;
    let rows = fixture.store.quota_snapshots().list(Some("c1"), 10).await.unwrap();
    assert_eq!(rows.len(), cases.len());
    for ((told, percent, is_spent), row) in cases.iter().zip(rows.iter().rev()) {
        assert_eq!(row.window_key, format!("provider:{}", told.name));
        assert_eq!((row.remaining_percentage, row.is_exhausted), (*percent, *is_spent), "{told:?}");
        let figures = row.told().unwrap();
        assert_eq!(figures.remaining.as_deref().and_then(Amount::parse), told.remaining);
        assert_eq!(figures.unit, "usd");
    }
    assert_eq!(rows[3].told().unwrap().remaining.as_deref(), Some("49.588940000000000001"));
}

/// Two hours ago a window of five was opened, while one of the day before is over.
async fn what_was_used_of_a_plan_is_known_after_a_restart(fixture: Fixture) {
    let window = |window: &str, resets_at: Option<&str>| QuotaWindow {
        window: window.into(),
        requests: Some(100),
        tokens: Some(1_000),
        resets_at: resets_at.map(str::to_owned),
    };
    let store = &fixture.store;
    let mut account = connection("c1", "openai", "first", Some("sk"));
    account.options.quota_windows = vec![
        window("5h", None),
        window("daily", None),
        window("weekly", None),
        window("monthly", Some("2025-06-01T20:00:30Z")),
    ];
    store.connections().insert(&account).await.unwrap();
    let (recorder, handle) = writer(store, WriterOptions::default());
    recorder.record(request("a", NOW - 10 * HOUR));
    for name in ["b", "c", "d"] {
        recorder.record(request(name, NOW - 2 * HOUR));
    }
    // Not of the account, and one that failed.
    recorder.record(RequestRow { connection: Some("c2".into()), ..request("e", NOW - HOUR) });
    recorder.record(RequestRow {
        status: 502,
        error: Some("no".into()),
        usage: Default::default(),
        ..request("f", NOW - HOUR)
    });
    handle.flush().await;

    let loaded = store.load().await.unwrap();
    assert_eq!(loaded.entities.connections[0].options.quota_windows, account.options.quota_windows);
    let health = HealthMap::default();
    let snapshot = Snapshot::build(&loaded.entities, catalog(), &health, &BuildOptions::default());
    assert!(snapshot.has_plans && snapshot.problems.is_empty(), "{:?}", snapshot.problems);
    store.plan_uses().recall(&snapshot, NOW).await.unwrap();
    let state = snapshot.connection(&"c1".into()).unwrap();
    let standings = state.health.plan.standings(&state.plan, NOW);
    let told: Vec<_> = standings.iter().map(|it| (&*it.name, it.limit, it.used)).collect();
    let expected = [
        ("5h", "requests", 3),
        ("5h", "tokens", 66),
        ("daily", "requests", 3),
        ("daily", "tokens", 66),
        ("weekly", "requests", 4),
        ("weekly", "tokens", 88),
        // It began within a minute of the evening before.
        ("monthly", "requests", 3),
        ("monthly", "tokens", 66),
    ];
    assert_eq!(told, expected);
    let opened = NOW - 2 * HOUR;
    assert_eq!(standings[0].until, Some(opened - opened.rem_euclid(60_000) + 5 * HOUR));

    // What is left of one is kept for the history.
    recorder.remember(Memory::Quota(QuotaRow {
        model: None,
        limits: None,
        plan: Some(("5h".into(), 0.97)),
        ..row("c1", 0, NOW)
    }));
    handle.flush().await;
    let rows = store.quota_snapshots().list(Some("c1"), 1).await.unwrap();
    assert_eq!((rows[0].window_key.as_str(), rows[0].is_exhausted), ("plan:5h", false));
    assert!((rows[0].remaining_percentage.unwrap() - 97.0).abs() < 1e-9);
}

/// Somebody is asked twice an hour for days, so no silence tells when a window began.
async fn a_window_that_was_written_down_goes_on_where_it_began(fixture: Fixture) {
    const STEP: i64 = HOUR / 2;
    let store = &fixture.store;
    let mut account = connection("c1", "openai", "first", Some("sk"));
    let window = |hours: i64| QuotaWindow {
        window: format!("{hours}h"),
        requests: Some(1_000),
        ..QuotaWindow::default()
    };
    account.options.quota_windows = [1, 2, 5, 12, 24].map(window).to_vec();
    store.connections().insert(&account).await.unwrap();
    let (recorder, handle) = writer(store, WriterOptions::default());
    for number in 0..160 {
        recorder.record(request(&format!("{number}"), NOW - number * STEP));
    }
    let note = |window: &'static str, at: i64, until: i64| {
        recorder.remember(Memory::Quota(QuotaRow {
            model: None,
            limits: None,
            plan: Some((window.into(), 0.5)),
            until: Some(until),
            ..row("c1", 0, at)
        }));
    };
    // The one of five hours began 4 h ago, 8 requests and one; the one before it is over, and others are not it.
    note("5h", NOW - 9 * HOUR, NOW - 4 * HOUR);
    note("5h", NOW - 4 * HOUR, NOW + HOUR);
    note("12h", NOW - 2 * HOUR, NOW + 7 * HOUR);
    note("24h", NOW - 3 * HOUR, NOW - 1);
    // It was of a day once, and cannot end so late.
    note("2h", NOW - HOUR, NOW + 20 * HOUR);
    handle.flush().await;

    let loaded = store.load().await.unwrap();
    let health = HealthMap::default();
    let snapshot = Snapshot::build(&loaded.entities, catalog(), &health, &BuildOptions::default());
    store.plan_uses().recall(&snapshot, NOW).await.unwrap();
    let state = snapshot.connection(&"c1".into()).unwrap();
    let standings = state.health.plan.standings(&state.plan, NOW);
    let told: Vec<_> = standings.iter().map(|it| (&*it.name, it.used)).collect();
    // Of those that nobody knows about half is over.
    assert_eq!(told, [("1h", 2), ("2h", 3), ("5h", 9), ("12h", 11), ("24h", 25)]);
    assert_eq!((standings[2].until, standings[3].until), (Some(NOW + HOUR), Some(NOW + 7 * HOUR)));
}

async fn snapshots_come_back_newest_first_and_go_in_time(fixture: Fixture) {
    let store = &fixture.store;
    store.connections().insert(&connection("c1", "openai", "first", Some("sk"))).await.unwrap();
    let (recorder, handle) = writer(store, WriterOptions::default());
    recorder.remember(Memory::Quota(row("c1", 50, NOW - 100 * DAY)));
    recorder.remember(Memory::Quota(row("c1", 25, NOW)));
    recorder.remember(Memory::Quota(row("c2", 0, NOW + 1)));
    recorder.remember(Memory::Quota(QuotaRow {
        model: None,
        limits: None,
        until: None,
        ..row("c1", 0, NOW + 2)
    }));
    handle.flush().await;
    let listed = |account: Option<&'static str>| async move {
        let rows = store.quota_snapshots().list(account, 10).await.unwrap();
        rows.into_iter()
            .map(|row| {
                (row.window_key, row.remaining_percentage.unwrap(), row.is_exhausted, row.next_reset_at)
            })
            .collect::<Vec<_>>()
    };
    let key = |name: &str| format!("m\u{fffd}:{name}");
    let expected = [
        ("account".to_owned(), 0.0, true, None),
        (key("tokens"), 0.0, true, Some(NOW + 60_001)),
        (key("tokens"), 12.5, false, Some(NOW + 60_000)),
        (key("tokens"), 25.0, false, Some(NOW - 100 * DAY + 60_000)),
    ];
    assert_eq!(listed(None).await, expected);
    assert_eq!(listed(Some("c2")).await.len(), 1);
    store.prune(NOW, &RuntimeSettings::default()).await.unwrap();
    assert_eq!(listed(None).await, expected[..3], "old ones go");
    store.connections().delete(&"c1".into()).await.unwrap();
    assert_eq!(listed(None).await.len(), 1, "those of an account go with it");
}
