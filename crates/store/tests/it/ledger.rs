//! The ledger is what was spent: whatever the writer goes through, and after a restart.

use std::time::Duration;

use omniroute_domain::budget::spending::Events;
use omniroute_domain::budget::{Budgets, Calendar, Event, EventKind, Spending, Sums, Window};
use omniroute_domain::entity::{ApiKeyId, Budget, Interval, OnExceeded, RuntimeSettings};
use omniroute_domain::price::PriceRow;
use omniroute_engine::ports::{BillRow, Recorder as _, RequestRow};
use omniroute_store::{AuditQuery, Period, WriterOptions};

use crate::fixture::{
    DAY, Fixture, NOW, Remembered, api_key, process, put_settings, reload, request, stories, writer,
};
use crate::opening::try_to_meddle;
use crate::put;

stories!(
    every_bill_is_a_row,
    no_row_is_ever_changed,
    its_sums_are_what_was_spent,
    moved_windows_are_counted_anew_in_every_process,
    changed_budgets_tell_anew_in_every_process,
    money_is_not_shed_with_rows,
    old_days_are_folded_and_the_sums_stay,
    two_that_fold_at_once_count_nothing_twice,
    budgets_and_prices_come_back,
    what_happened_to_budgets_is_written_down,
);

fn bill(amount_nano: Option<i64>, settled_ms: i64) -> BillRow {
    BillRow {
        attempt: 1,
        provider: "openai".into(),
        model: "gpt-4o".into(),
        units: None,
        usage: request("x", NOW).usage,
        estimated: false,
        amount_nano,
        price_source: amount_nano.map(|_| "user"),
        price_version: amount_nano.map(|_| "abc".into()),
        settled_ms,
        is_saved: false,
    }
}

fn paid(name: &str, amount_nano: Option<i64>, settled_ms: i64) -> RequestRow {
    let bills = vec![bill(amount_nano, settled_ms)];
    RequestRow { cost_nano: amount_nano, bills, ..request(name, settled_ms) }
}

fn key() -> ApiKeyId {
    ApiKeyId::from("k1")
}

async fn add_key(fixture: &Fixture) {
    fixture.store.api_keys().insert(&api_key("k1", "sk-1")).await.unwrap();
}

async fn no_row_is_ever_changed(fixture: Fixture) {
    let (recorder, handle) = writer(&fixture.store, WriterOptions::default());
    recorder.record(paid("r1", Some(1_500), NOW));
    handle.close().await;
    let before = sums(&fixture, Some(&key())).await;
    for sql in [
        "UPDATE cost_ledger SET amount_nano = 0",
        "UPDATE cost_ledger SET api_key_id = NULL WHERE attempt = 1",
    ] {
        let refused = try_to_meddle(&fixture, sql).await.unwrap_err().to_string();
        assert!(refused.contains("never changed"), "{sql}: {refused}");
    }
    assert_eq!(sums(&fixture, Some(&key())).await, before);
    assert_ne!(before, Sums::default());
}

async fn sums(fixture: &Fixture, key: Option<&ApiKeyId>) -> Sums {
    let all = fixture.store.ledger().sums(&Calendar::default(), NOW).await.unwrap();
    all.into_iter().find(|(other, _)| other.as_ref() == key).map(|(_, sums)| sums).unwrap_or_default()
}

async fn every_bill_is_a_row(fixture: Fixture) {
    let (recorder, handle) = writer(&fixture.store, WriterOptions::default());
    let mut row = paid("r1", Some(5), NOW);
    row.bills.push(BillRow { attempt: 2, ..bill(None, NOW) });
    recorder.record(row);
    handle.flush().await;
    let rows = fixture.store.ledger().list(10).await.unwrap();
    let shown: Vec<_> = rows.iter().map(|row| (row.attempt, row.amount_nano, row.kind.as_str())).collect();
    assert_eq!(shown, [(2, None, "settle"), (1, Some(5), "settle")]);
    let row = &rows[1];
    assert_eq!((row.request_id.as_str(), row.api_key_id.as_deref()), ("req_r1", Some("k1")));
    assert_eq!((row.price_source.as_deref(), row.price_version.as_deref()), (Some("user"), Some("abc")));
    assert_eq!(
        row.tokens.as_deref(),
        Some(r#"{"input":15,"cacheRead":5,"output":7,"reasoning":2,"serviceTier":"flex"}"#)
    );
    assert_eq!((rows[0].price_source.as_deref(), row.timestamp), (None, NOW));
}

async fn its_sums_are_what_was_spent(fixture: Fixture) {
    let (recorder, handle) = writer(&fixture.store, WriterOptions::default());
    // A Friday: the day, the week since Monday, the month since Thursday, the year before.
    for (number, (age, nano)) in
        [(0, 1), (3_600_000, 10), (DAY, 100), (2 * DAY, 1_000), (30 * DAY, 10_000)].into_iter().enumerate()
    {
        recorder.record(paid(&number.to_string(), Some(nano), NOW - age));
    }
    recorder.record(paid("null", None, NOW));
    let mut anonymous = paid("anon", Some(500_000), NOW);
    anonymous.api_key = None;
    recorder.record(anonymous);
    handle.flush().await;
    let own = Sums { entries: 6, total_nano: 11_111, windows_nano: [11, 1_111, 111] };
    assert_eq!(sums(&fixture, Some(&key())).await, own);
    let all = Sums { entries: 7, total_nano: 511_111, windows_nano: [500_011, 501_111, 500_111] };
    assert_eq!(sums(&fixture, None).await, all);
    let history = fixture.store.usage().history(Period::All, NOW + 1).await.unwrap();
    assert_eq!((history.total.cost_nano, history.total.unpriced), (511_111, 1), "the summaries agree");

    // What a process that starts now believes; the budget of the key begins its days at three.
    let store = fixture.again().await;
    let mut budget = Budget::unlimited(Some(key()));
    budget.reset_minute = 3 * 60;
    let budgets = Budgets::new(&[budget], Calendar::default());
    let spending = Spending::default();
    store.ledger().restore(&spending, &budgets, NOW).await.unwrap();
    let standing = spending.standing(&budgets, Some(&key()), NOW);
    assert_eq!((standing.total_nano, standing.spent(Window::Daily), standing.entries), (11_111, 1, 6));
    assert_eq!(spending.standing(&budgets, None, NOW).spent(Window::Daily), 500_011);
}

async fn moved_windows_are_counted_anew_in_every_process(fixture: Fixture) {
    add_key(&fixture).await;
    let (recorder, handle) = writer(&fixture.store, WriterOptions::default());
    // Ten to three, three in the morning, and four minutes past that is now.
    for (name, nano, at) in [("a", 1, NOW - 15 * 60_000), ("b", 10, NOW - 4 * 60_000)] {
        recorder.record(paid(name, Some(nano), at));
    }
    handle.flush().await;
    let store = fixture.again().await;
    let live = process(&store).await;
    let snapshot = live.load().clone();
    store.ledger().restore(&live.spending, &snapshot.budgets, NOW).await.unwrap();
    let take_over = async || {
        reload(&store, &live, &Remembered::default()).await;
        let snapshot = live.load().clone();
        [Some(key()), None]
            .map(|key| live.spending.standing(&snapshot.budgets, key.as_ref(), NOW).spent(Window::Daily))
    };
    assert_eq!(take_over().await, [11, 11]);
    let of_key = Budget { reset_minute: 3 * 60, ..Budget::unlimited(Some(key())) };
    put::budgets(&fixture.store, &[of_key]).await;
    assert_eq!(take_over().await, [10, 11]);
    assert!(fixture.store.budgets().delete(Some(&key())).await.unwrap());
    assert_eq!(take_over().await, [11, 11]);
    let mut settings = RuntimeSettings::default();
    // Three o'clock there is midnight here.
    settings.budgets.tz = "America/Sao_Paulo".into();
    put_settings(&fixture.store, &settings).await;
    assert_eq!(take_over().await, [10, 10]);
}

async fn changed_budgets_tell_anew_in_every_process(fixture: Fixture) {
    add_key(&fixture).await;
    let of_key = |daily| Budget { daily_nano: Some(daily), ..Budget::unlimited(Some(key())) };
    let of_all = Budget { daily_nano: Some(100), ..Budget::unlimited(None) };
    put::budgets(&fixture.store, &[of_key(100), of_all]).await;
    let store = fixture.again().await;
    let live = process(&store).await;
    // What one more is told of: a key's budget, and everybody's.
    let told = |nano| {
        let mut events = Events::new();
        live.spending.open(&live.load().budgets, Some(&key())).settle(nano, 1, NOW, &mut events);
        events.into_iter().map(|event| event.key).collect::<Vec<_>>()
    };
    assert_eq!(told(90), [Some(key()), None]);
    assert_eq!(told(1), []);
    put_settings(&fixture.store, &RuntimeSettings::default()).await;
    reload(&store, &live, &Remembered::default()).await;
    assert_eq!(told(1), [], "something else was changed");
    put::budgets(&fixture.store, &[of_key(101)]).await;
    reload(&store, &live, &Remembered::default()).await;
    assert_eq!(told(1), [Some(key())], "only that one");
    assert_eq!(told(1), []);
}

async fn money_is_not_shed_with_rows(fixture: Fixture) {
    let options = WriterOptions {
        queue_rows: 4,
        flush_rows: usize::MAX,
        flush_interval: Duration::from_secs(3_600),
        ..WriterOptions::default()
    };
    let (recorder, handle) = writer(&fixture.store, options);
    for number in 0..50_i64 {
        recorder.record(paid(&number.to_string(), (number % 5 != 0).then_some(number), NOW));
    }
    handle.flush().await;
    assert!(recorder.stats().shed_rows > 0);
    let want: i64 = (0..50).filter(|number| number % 5 != 0).sum();
    let found = sums(&fixture, Some(&key())).await;
    assert_eq!((found.total_nano, found.entries), (want, 50));
    assert!(fixture.store.ledger().list(100).await.unwrap().len() < 50, "several in one row");
}

async fn old_days_are_folded_and_the_sums_stay(fixture: Fixture) {
    let (recorder, handle) = writer(&fixture.store, WriterOptions::default());
    for number in 0..40_i64 {
        let age = if number < 10 { number * DAY } else { (100 + number % 3) * DAY };
        recorder.record(paid(&number.to_string(), (number % 4 != 0).then_some(number), NOW - age));
    }
    handle.flush().await;
    let before = (sums(&fixture, Some(&key())).await, sums(&fixture, None).await);
    for _ in 0..2 {
        fixture.store.prune(NOW, &RuntimeSettings::default()).await.unwrap();
        let after = (sums(&fixture, Some(&key())).await, sums(&fixture, None).await);
        assert_eq!(after, before);
        assert_eq!(fixture.store.ledger().list(100).await.unwrap().len(), 10 + 3);
    }
}

async fn two_that_fold_at_once_count_nothing_twice(fixture: Fixture) {
    const DAYS: i64 = 60;
    let (recorder, handle) = writer(&fixture.store, WriterOptions::default());
    for number in 0..2 * DAYS {
        recorder.record(paid(&number.to_string(), Some(1), NOW - (100 + number % DAYS) * DAY));
    }
    handle.flush().await;
    let (other, settings) = (fixture.again().await, RuntimeSettings::default());
    let (first, second) =
        futures_util::join!(fixture.store.prune(NOW, &settings), other.prune(NOW, &settings));
    first.unwrap();
    second.unwrap();
    let found = sums(&fixture, Some(&key())).await;
    assert_eq!((found.total_nano, found.entries), (2 * DAYS, 2 * DAYS));
    assert_eq!(fixture.store.ledger().list(1_000).await.unwrap().len() as i64, DAYS);
}

async fn budgets_and_prices_come_back(fixture: Fixture) {
    add_key(&fixture).await;
    let store = &fixture.store;
    let everybody = Budget { monthly_nano: Some(7), ..Budget::unlimited(None) };
    let of_key = Budget {
        daily_nano: Some(1),
        weekly_nano: Some(2),
        total_nano: Some(i64::MAX),
        warning_permille: 500,
        reset_interval: Interval::Weekly,
        reset_minute: 1_439,
        hard_stop: false,
        block_unpriced: true,
        on_exceeded: OnExceeded::Downgrade("a combo".into()),
        ..Budget::unlimited(Some(key()))
    };
    put::budgets(store, &[of_key.clone(), everybody.clone()]).await;
    let row = PriceRow { input: Some(0.0375), output: Some(0.0), ..PriceRow::default() };
    let prices = store.prices();
    let set = prices.change(|book| {
        book.user.entry("openai".into()).or_default().insert("m".into(), row.clone());
        book.synced.entry("groq".into()).or_default().insert("n".into(), row.clone());
        Ok::<_, ()>(())
    });
    set.await.unwrap().unwrap();
    let refused = prices.change(|book| {
        book.user.clear();
        Err::<(), _>("no")
    });
    assert_eq!(refused.await.unwrap(), Err("no"));
    let entities = fixture.again().await.entities().await.unwrap();
    assert_eq!(entities.budgets, [everybody, of_key.clone()]);
    assert_eq!(entities.prices.user[&omniroute_provider::ProviderId::from("openai")]["m"], row);
    assert_eq!(entities.prices.synced[&omniroute_provider::ProviderId::from("groq")]["n"], row);
    assert!(store.budgets().delete(None).await.unwrap());
    assert!(!store.budgets().delete(None).await.unwrap());
    assert_eq!(store.budgets().list().await.unwrap(), [of_key]);
}

async fn what_happened_to_budgets_is_written_down(fixture: Fixture) {
    let (recorder, handle) = writer(&fixture.store, WriterOptions::default());
    let calendar = Calendar::default();
    let event = |key: Option<ApiKeyId>, kind| Event { key, window: Window::Daily, kind, at_ms: NOW };
    let (spent_nano, limit_nano) = (82_000_000, 100_000_000);
    recorder.budget(event(Some(key()), EventKind::Warning { spent_nano, limit_nano }));
    recorder.budget(event(None, EventKind::Exceeded { spent_nano, limit_nano }));
    let (old, new) = (calendar.span(Window::Daily, NOW - DAY), calendar.span(Window::Daily, NOW));
    recorder.budget(event(Some(key()), EventKind::Reset { spent_nano, old, new }));
    handle.flush().await;
    let query = AuditQuery { action: Some("budget.*".into()), limit: 10, ..AuditQuery::default() };
    let (events, _) = fixture.store.audit().list(&query).await.unwrap();
    let mut shown: Vec<_> = events
        .iter()
        .map(|record| {
            let event = &record.event;
            (event.action.as_str(), event.target.as_deref().unwrap(), event.details.as_deref().unwrap())
        })
        .collect();
    shown.sort_unstable();
    assert_eq!(
        shown,
        [
            ("budget.exceeded", "*", r#"{"note":"daily: $0.0820 of $0.1000"}"#),
            ("budget.reset", "k1", r#"{"note":"daily: $0.0820 were spent"}"#),
            ("budget.warning", "k1", r#"{"note":"daily: $0.0820 of $0.1000"}"#),
        ]
    );
    let resets = fixture.store.budgets().resets(10).await.unwrap();
    assert_eq!(resets, [("k1".to_owned(), "daily".to_owned(), spent_nano, NOW)]);
}
