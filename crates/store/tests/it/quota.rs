//! What vendors left of their quotas, from time to time.

use omniroute_domain::entity::RuntimeSettings;
use omniroute_domain::limiter::{LearnedLimits, LearnedWindow};
use omniroute_engine::ports::{Memory, QuotaRow, Recorder as _};
use omniroute_store::WriterOptions;

use crate::fixture::{DAY, Fixture, NOW, connection, stories, writer};

stories!(snapshots_come_back_newest_first_and_go_in_time);

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
        until: Some(at + 60_000),
        at,
    }
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
            .map(|row| (row.window_key, row.remaining_percentage, row.is_exhausted, row.next_reset_at))
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
