//! Counters agree with what was recorded, whatever the period.

use omniroute_dialect::ir::Usage;
use omniroute_domain::price::Units;
use omniroute_engine::ports::Recorder as _;
use omniroute_store::{CallLogQuery, Period, UsageCounters, WriterOptions};

use crate::fixture::{DAY, Fixture, HOUR, NOW, attempt, request, stories, writer};

stories!(
    counters_are_split_by_everything_that_is_asked_for,
    what_several_accounts_made_for_a_request_is_each_ones_own,
    periods_are_exact_to_the_millisecond,
    minutes_are_counted_oldest_first,
    sums_continue_after_a_restart,
    requests_of_the_day_are_counted_by_key,
    kinds_of_requests_are_counted_with_what_they_are_billed_by,
);

async fn counters_are_split_by_everything_that_is_asked_for(fixture: Fixture) {
    let (recorder, handle) = writer(&fixture.store, WriterOptions::default());
    recorder.record(request("r1", NOW));
    let mut renamed = request("r2", NOW + 1);
    renamed.connection_name = Some("work, renamed".into());
    renamed.cost_nano = None;
    renamed.attempts = vec![attempt("c0", Some(500), Some("server")), attempt("c1", Some(200), None)];
    recorder.record(renamed);
    let mut failed = request("r3", NOW + 2);
    failed.status = 502;
    failed.error = Some("bad gateway".into());
    failed.usage = Usage::default();
    failed.cost_nano = Some(0);
    failed.provider = Some("anthropic".into());
    failed.model = "claude-5".into();
    failed.connection = Some("c2".into());
    failed.connection_name = Some("other".into());
    failed.api_key = None;
    failed.api_key_name = None;
    recorder.record(failed);
    handle.flush().await;

    for period in [Period::All, Period::Hour, Period::Month] {
        let history = fixture.store.usage().history(period, NOW + 10).await.unwrap();
        let expected = UsageCounters {
            requests: 3,
            errors: 1,
            prompt_tokens: 30,
            completion_tokens: 14,
            cached_tokens: 10,
            cache_creation_tokens: 0,
            reasoning_tokens: 4,
            estimated: 0,
            cost_nano: 1_500,
            unpriced: 1,
            latency_sum_ms: 300,
            last_used_at: NOW + 2,
        };
        assert_eq!(history.total, expected, "{period:?}");
        let providers: Vec<_> =
            history.by_provider.iter().map(|row| (row.provider.as_str(), row.counters.requests)).collect();
        assert_eq!(providers, [("anthropic", 1), ("openai", 2)]);
        let models: Vec<_> =
            history.by_model.iter().map(|row| (row.model.as_str(), row.provider.as_str())).collect();
        assert_eq!(models, [("claude-5", "anthropic"), ("gpt-4o", "openai")]);
        let accounts: Vec<_> = history
            .by_account
            .iter()
            .map(|row| (row.connection_id.as_str(), row.account_name.as_str(), row.counters.errors))
            .collect();
        assert_eq!(accounts, [("c2", "other", 1), ("c1", "work, renamed", 0)], "{period:?}");
        let keys: Vec<_> =
            history.by_api_key.iter().map(|row| (row.api_key_id.as_str(), row.counters.requests)).collect();
        assert_eq!(keys, [("k1", 2)]);
    }
}

async fn what_several_accounts_made_for_a_request_is_each_ones_own(fixture: Fixture) {
    let (recorder, handle) = writer(&fixture.store, WriterOptions::default());
    // The whole is 15 tokens of prompt and 7 of answer for 1,500; another provider made 4 and 5 of them for 400.
    let mut fused = request("r1", NOW);
    let mut first = attempt("c0", Some(200), None);
    (first.provider, first.model) = ("anthropic".into(), "claude-5".into());
    first.usage = Usage { input_uncached: Some(4), output_total: Some(5), ..Usage::default() };
    first.cost_nano = Some(400);
    fused.attempts = vec![first, attempt("c9", Some(500), Some("server")), attempt("c1", Some(200), None)];
    recorder.record(fused);
    handle.flush().await;
    let history = fixture.store.usage().history(Period::All, NOW + 10).await.unwrap();
    let told = |counters: &UsageCounters| {
        (counters.requests, counters.prompt_tokens, counters.completion_tokens, counters.cost_nano)
    };
    assert_eq!(told(&history.total), (1, 15, 7, 1_500));
    let by_provider: Vec<_> =
        history.by_provider.iter().map(|row| (row.provider.as_str(), told(&row.counters))).collect();
    assert_eq!(by_provider, [("anthropic", (0, 4, 5, 400)), ("openai", (1, 11, 2, 1_100))]);
    let accounts: Vec<_> = history
        .by_account
        .iter()
        .map(|row| (row.connection_id.as_str(), row.account_name.as_str()))
        .collect();
    assert_eq!(accounts.len(), 2, "who failed made nothing: {accounts:?}");
    let of_account = fixture.store.usage().by_connection(&"c0".into(), NOW + 1).await.unwrap();
    assert_eq!(told(&of_account.last_day), (0, 4, 5, 400));
    let by_key: Vec<_> = history.by_api_key.iter().map(|row| told(&row.counters)).collect();
    assert_eq!(by_key, [(1, 15, 7, 1_500)]);
}

async fn periods_are_exact_to_the_millisecond(fixture: Fixture) {
    let (recorder, handle) = writer(&fixture.store, WriterOptions::default());
    let periods = [
        (Period::Hour, HOUR),
        (Period::Day, DAY),
        (Period::Week, 7 * DAY),
        (Period::Month, 30 * DAY),
        (Period::Quarter, 90 * DAY),
    ];
    for (number, (_, length)) in periods.into_iter().enumerate() {
        for (at, name) in [(NOW - length - 1, "before"), (NOW - length, "at"), (NOW - length + 1, "after")] {
            recorder.record(request(&format!("{number}{name}"), at));
        }
    }
    handle.flush().await;
    for (number, (period, _)) in periods.into_iter().enumerate() {
        let history = fixture.store.usage().history(period, NOW).await.unwrap();
        let expected = i64::try_from(number).unwrap() * 3 + 2;
        assert_eq!(history.total.requests, expected, "{period:?}");
    }
    let of_connection = fixture.store.usage().by_connection(&"c1".into(), NOW).await.unwrap();
    assert_eq!((of_connection.last_day.requests, of_connection.last_month.requests), (5, 11));
    assert_eq!(of_connection.last_month.cost_nano, 11 * 1_500);
    let nobody = fixture.store.usage().by_connection(&"c9".into(), NOW).await.unwrap();
    assert_eq!(nobody, omniroute_store::ConnectionUsage::default());
}

async fn minutes_are_counted_oldest_first(fixture: Fixture) {
    let (recorder, handle) = writer(&fixture.store, WriterOptions::default());
    let minute = NOW - NOW.rem_euclid(60_000);
    for (number, at) in
        [minute, minute + 1, minute - 1, minute - 9 * 60_000, minute - 9 * 60_000 - 1].into_iter().enumerate()
    {
        recorder.record(request(&number.to_string(), at));
    }
    handle.flush().await;
    let minutes = fixture.store.usage().last_ten_minutes(NOW).await.unwrap();
    assert_eq!(minutes.map(|minute| minute.requests), [1, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
    assert_eq!(minutes[9].prompt_tokens, 30);
}

async fn sums_continue_after_a_restart(fixture: Fixture) {
    for round in 1..=3_i64 {
        let store = fixture.again().await;
        let (recorder, handle) = writer(&store, WriterOptions::default());
        for number in 0..40 {
            recorder.record(request(&format!("{round}-{number}"), NOW));
        }
        handle.close().await;
        let total = store.usage().history(Period::All, NOW).await.unwrap().total;
        assert_eq!((total.requests, total.cost_nano), (40 * round, 60_000 * round));
        store.close().await;
    }
}

async fn requests_of_the_day_are_counted_by_key(fixture: Fixture) {
    let (recorder, handle) = writer(&fixture.store, WriterOptions::default());
    let midnight = NOW - NOW.rem_euclid(DAY);
    let mut other = request("r4", NOW);
    other.api_key = Some("k2".into());
    let mut nobody = request("r5", NOW);
    nobody.api_key = None;
    let mut refused = request("r6", NOW);
    refused.provider = None;
    for row in
        [request("r1", midnight - 1), request("r2", midnight), request("r3", NOW), other, nobody, refused]
    {
        recorder.record(row);
    }
    handle.flush().await;
    let today = fixture.again().await.usage().requests_today(NOW).await.unwrap();
    assert_eq!(today, [("k1".into(), 2), ("k2".into(), 1)]);
    assert_eq!(fixture.store.usage().requests_today(NOW + DAY).await.unwrap(), []);
}

async fn kinds_of_requests_are_counted_with_what_they_are_billed_by(fixture: Fixture) {
    let (recorder, handle) = writer(&fixture.store, WriterOptions::default());
    let of = |id: &str, at, kind, units: Units| {
        let mut row = request(id, at);
        row.request_type = kind;
        row.units = Some(Box::new(units));
        row
    };
    let images = |images| Units { images, ..Units::REQUEST };
    recorder.record(request("r1", NOW));
    recorder.record(of("r2", NOW + 1, "image", images(2)));
    let mut failed = of("r3", NOW + 2, "image", images(1));
    failed.status = 502;
    failed.cost_nano = None;
    recorder.record(failed);
    recorder.record(of("r4", NOW + 3, "audio-stt", Units { millis_in: 2_500, ..Units::REQUEST }));
    recorder.record(of("r5", NOW + 4, "audio-tts", Units { characters: 40, ..Units::REQUEST }));
    recorder.record(of("r6", NOW + 5, "embedding", Units::REQUEST));
    // Within the minute that an hour begins in, and just before it.
    recorder.record(of("r7", NOW - HOUR, "image", images(10)));
    recorder.record(of("r8", NOW - HOUR + 1, "image", images(10)));
    recorder.record(of("r9", NOW - HOUR - 1, "image", images(100)));
    // A day, and more than a month ago.
    recorder.record(of("r10", NOW - DAY - 7, "image", images(1_000)));
    recorder.record(of("r11", NOW - 40 * DAY, "image", images(10_000)));
    let mut nowhere = of("r12", NOW + 6, "image", images(7));
    nowhere.provider = None;
    recorder.record(nowhere);
    handle.flush().await;

    let usage = fixture.store.usage();
    for (period, requests, images) in
        [(Period::Hour, 4, 23), (Period::Day, 5, 123), (Period::Month, 6, 1_123), (Period::All, 7, 11_123)]
    {
        let kinds = usage.by_kind(period, NOW).await.unwrap();
        let image = &kinds["image"];
        assert_eq!((image.counters.requests, image.units["images"]), (requests, images), "{period:?}");
        assert_eq!((image.counters.errors, image.counters.unpriced), (1, 1));
        let total = usage.history(period, NOW).await.unwrap().total;
        assert_eq!(kinds.values().map(|kind| kind.counters.requests).sum::<i64>(), total.requests);
        assert_eq!(kinds.values().map(|kind| kind.counters.cost_nano).sum::<i64>(), total.cost_nano);
    }
    let kinds = usage.by_kind(Period::Hour, NOW).await.unwrap();
    let names: Vec<_> = kinds.keys().map(String::as_str).collect();
    assert_eq!(names, ["audio-stt", "audio-tts", "chat", "embedding", "image"]);
    assert_eq!((kinds["audio-stt"].units["millisIn"], kinds["audio-tts"].units["characters"]), (2_500, 40));
    assert!(kinds["chat"].units.is_empty() && kinds["embedding"].units.is_empty());

    let query = CallLogQuery { limit: 20, ..CallLogQuery::default() };
    let (logged, _) = fixture.store.call_logs().list(&query).await.unwrap();
    let row = logged.iter().find(|row| row.timestamp == NOW + 1).unwrap();
    assert_eq!((row.request_type.as_str(), row.units["images"]), ("image", 2));
}
