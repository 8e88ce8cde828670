use std::time::Duration;

use omniroute_dialect::{ir::Usage, registry::DIALECTS};
use omniroute_provider::ProviderId;

use super::*;
use crate::ports::{AttemptRow, RowId};

const NOW: i64 = 1_800_000_000_000;

fn row(provider: &str, model: &str, status: u16, duration_ms: i64) -> RequestRow {
    RequestRow {
        id: RowId::new(NOW, [0; 10]),
        request_id: "req_1".into(),
        method: http::Method::POST,
        path: "/v1/chat/completions".into(),
        request_type: "chat",
        status,
        requested_model: model.into(),
        model: model.into(),
        provider: Some(ProviderId::from(provider)),
        connection: None,
        connection_name: None,
        api_key: None,
        api_key_name: None,
        client_dialect: DIALECTS[0].id(),
        upstream_dialect: None,
        stream: true,
        duration_ms,
        ttft_ms: Some(duration_ms / 10),
        overhead_us: 150,
        units: None,
        usage: Usage { input_uncached: Some(10), output_total: Some(90), ..Usage::default() },
        usage_estimated: false,
        cost_nano: None,
        price_source: None,
        price_version: None,
        source: "upstream",
        similarity: None,
        combo: None,
        combo_step: None,
        is_fallback: false,
        bills: vec![],
        attempts: Vec::new(),
        error: None,
        error_code: None,
        losses: Vec::new(),
        decision: None,
        bodies: crate::bodies::BodyNote::Off,
    }
}

fn attempt(failure: Option<&'static str>) -> AttemptRow {
    AttemptRow {
        provider: ProviderId::from("a"),
        model: "m".into(),
        connection: "c".into(),
        connection_name: "c".into(),
        path: Default::default(),
        status: Some(200),
        failure,
        message: None,
        duration_ms: 1,
        units: None,
        usage: Usage::default(),
        is_unheard: false,
        cost_nano: None,
    }
}

#[test]
fn windows_forget_at_their_own_pace() {
    let telemetry = Telemetry::new(NOW);
    telemetry.observe(&row("a", "m", 200, 1_000), &Phases::default(), NOW);
    let minute = 60_000;
    for (later, five, hour, day) in [
        (0, 1, 1, 1),
        (4 * minute, 1, 1, 1),
        (6 * minute, 0, 1, 1),
        (61 * minute, 0, 0, 1),
        (25 * 60 * minute, 0, 0, 0),
    ] {
        let count = |window| telemetry.summary(window, NOW + later).total.count;
        assert_eq!(
            (count(Window::FiveMinutes), count(Window::Hour), count(Window::Day)),
            (five, hour, day),
            "{later}"
        );
    }
}

#[test]
fn slots_are_used_again() {
    let telemetry = Telemetry::new(NOW);
    for minute in 0..100 {
        telemetry.observe(&row("a", "m", 200, 1_000), &Phases::default(), NOW + minute * 60_000);
    }
    let summary = telemetry.summary(Window::FiveMinutes, NOW + 99 * 60_000);
    assert_eq!(summary.total.count, 5);
    assert_eq!(summary.requests_since_start, 100);
}

#[test]
fn a_summary_tells_providers_models_errors_and_speed_apart() {
    let telemetry = Telemetry::new(NOW);
    for _ in 0..3 {
        telemetry.observe(&row("a", "m", 200, 1_000), &Phases::default(), NOW);
    }
    telemetry.observe(&row("a", "n", 500, 1_000), &Phases::default(), NOW);
    telemetry.observe(&row("b", "m", 499, 10), &Phases::default(), NOW);
    let summary = telemetry.summary(Window::Hour, NOW);
    assert_eq!(summary.total.count, 5);
    assert_eq!(summary.total.errors, 1, "a client that went away is no error");
    assert!((summary.providers["a"].error_rate() - 0.25).abs() < 1e-9);
    assert_eq!(summary.models.keys().collect::<Vec<_>>(), ["a/m", "a/n", "b/m"]);
    assert_eq!(summary.models["a/m"].tokens_per_second.p50, 101, "90 tokens in 900 ms, to the bucket");
    assert_eq!(summary.overhead_us.count, 5);
}

#[test]
fn many_models_and_providers_end_in_one_bucket() {
    let telemetry = Telemetry::new(NOW);
    for number in 0..MAX_MODELS + 50 {
        telemetry.observe(&row("a", &format!("m{number}"), 200, 10), &Phases::default(), NOW);
    }
    for number in 0..MAX_PROVIDERS + 50 {
        telemetry.observe(&row(&format!("p{number}"), "m", 200, 10), &Phases::default(), NOW);
    }
    let summary = telemetry.summary(Window::Day, NOW);
    assert_eq!(summary.models["a/other"].count, 50);
    assert_eq!(summary.providers[OTHER].count, 51);
    assert_eq!(summary.providers.len(), MAX_PROVIDERS + 1);
}

#[test]
fn running_requests_are_listed_until_they_end() {
    let telemetry = Telemetry::new(NOW);
    let first = telemetry.begin("req_1", "m", true, NOW);
    let second = telemetry.begin("req_2", "n", false, NOW + 1);
    first.routed("a", "c1");
    let active = telemetry.active();
    assert_eq!(active.iter().map(|request| request.id.as_str()).collect::<Vec<_>>(), ["req_1", "req_2"]);
    assert_eq!((active[0].provider.as_str(), active[0].connection.as_str()), ("a", "c1"));
    drop(first);
    assert_eq!(telemetry.in_flight(), 1);
    let third = telemetry.begin("req_3", "n", false, NOW + 2);
    assert_eq!(telemetry.active()[1].provider, "", "a used slot remembers nothing");
    drop((second, third));
    assert!(telemetry.active().is_empty());
}

#[test]
fn the_exposition_is_openmetrics_text() {
    let telemetry = Telemetry::new(NOW);
    let mut with_fallback = row("a", "m", 200, 1_000);
    with_fallback.attempts = vec![attempt(Some("rate_limit")), attempt(None)];
    telemetry.observe(&with_fallback, &Phases::default(), NOW);
    let _running = telemetry.begin("req_2", "n", false, NOW);
    let shed = Extra { name: "log_rows_shed", help: "Log rows dropped", kind: ExtraKind::Counter, value: 7 };
    let text = telemetry.metrics(&[shed]);
    for line in [
        r#"omniroute_requests_total{provider="a",status="2xx"} 1"#,
        r#"omniroute_tokens_total{provider="a",type="output"} 90"#,
        "omniroute_attempts_total 2",
        "omniroute_failed_attempts_total 1",
        "omniroute_fallbacks_total 1",
        "omniroute_requests_in_flight 1",
        "omniroute_log_rows_shed_total 7",
        r#"omniroute_request_duration_seconds_count{provider="a"} 1"#,
    ] {
        assert!(text.lines().any(|found| found == line), "no line {line:?} in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn every_phase_is_measured_by_itself() {
    let telemetry = Telemetry::new(NOW);
    for millis in [10, 20, 30] {
        let mut phases = Phases::default();
        phases.end(Phase::Parse, Duration::from_millis(1));
        phases.end(Phase::Connect, Duration::from_millis(1 + millis));
        telemetry.observe(&row("a", "m", 200, 1_000), &phases, NOW);
    }
    let told = telemetry.summary(Window::FiveMinutes, NOW + 1).phases_us;
    assert_eq!(told.iter().map(|(phase, _)| phase.as_str()).collect::<Vec<_>>(), ["parse", "connect"]);
    let connect = told[1].1;
    assert_eq!(connect.count, 3);
    assert!((19_400..=20_600).contains(&connect.p50), "{connect:?}");
    assert!(telemetry.summary(Window::FiveMinutes, NOW + 6 * 60_000).phases_us.is_empty());
}

#[test]
fn a_minute_counts_once_in_every_window_while_it_runs_and_after() {
    let telemetry = Telemetry::new(NOW);
    let counts = |now: i64| {
        [Window::FiveMinutes, Window::Hour, Window::Day]
            .map(|window| telemetry.summary(window, now).total.count)
    };
    for minute in 0..3 {
        let now = NOW + minute * 60_000;
        telemetry.observe(&row("a", "m", 200, 1_000), &Phases::default(), now);
        telemetry.observe(&row("a", "m", 200, 1_000), &Phases::default(), now);
        assert_eq!(counts(now), [2 * (u64::try_from(minute).unwrap() + 1); 3]);
    }
    // Nobody asks any more.
    assert_eq!(counts(NOW + 4 * 60_000), [6; 3]);
    assert_eq!(counts(NOW + 5 * 60_000)[0], 4);
    assert_eq!(counts(NOW + 7 * 60_000), [0, 6, 6]);
    assert_eq!(counts(NOW + 3 * 3_600_000), [0, 0, 6]);
}
