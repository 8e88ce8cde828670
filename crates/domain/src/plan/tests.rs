use super::*;

fn ms(text: &str) -> i64 {
    text.parse::<Timestamp>().unwrap().as_millisecond()
}

fn window(window: &str, requests: Option<u64>, tokens: Option<u64>, resets_at: Option<&str>) -> PlanWindow {
    let row =
        QuotaWindow { window: window.into(), requests, tokens, resets_at: resets_at.map(str::to_owned) };
    PlanWindow::new(&row, &Calendar::default()).unwrap()
}

#[test]
fn windows_begin_where_the_vendor_counts_anew() {
    let cases = [
        // A Thursday.
        ("daily", None, "2026-11-26T17:00:00Z", "2026-11-26T00:00:00Z", "2026-11-27T00:00:00Z"),
        ("weekly", None, "2026-11-26T17:00:00Z", "2026-11-23T00:00:00Z", "2026-11-30T00:00:00Z"),
        ("monthly", None, "2026-11-26T17:00:00Z", "2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z"),
        ("5h", None, "2026-11-26T17:00:00Z", "2026-11-26T17:00:00Z", "2026-11-26T22:00:00Z"),
        (
            "5h",
            Some("2026-01-01T01:00:00Z"),
            "2026-01-01T12:00:00Z",
            "2026-01-01T11:00:00Z",
            "2026-01-01T16:00:00Z",
        ),
        // A reset of the future says as much as one of the past.
        (
            "weekly",
            Some("2026-12-01T08:30:00Z"),
            "2026-11-26T17:00:00Z",
            "2026-11-24T08:30:00Z",
            "2026-12-01T08:30:00Z",
        ),
        (
            "monthly",
            Some("2026-01-31T08:00:00Z"),
            "2026-02-28T07:59:59Z",
            "2026-01-31T08:00:00Z",
            "2026-02-28T08:00:00Z",
        ),
        (
            "monthly",
            Some("2026-01-31T08:00:00Z"),
            "2026-03-30T00:00:00Z",
            "2026-02-28T08:00:00Z",
            "2026-03-31T08:00:00Z",
        ),
        (
            "monthly",
            Some("2026-11-15T00:00:00Z"),
            "2025-12-20T00:00:00Z",
            "2025-12-15T00:00:00Z",
            "2026-01-15T00:00:00Z",
        ),
    ];
    for (name, resets_at, now, start, end) in cases {
        let span = window(name, Some(1), None, resets_at).span(ms(now));
        assert_eq!((span.start_ms, span.end_ms), (ms(start), ms(end)), "{name} {resets_at:?} {now}");
    }
}

#[test]
fn what_makes_no_sense_is_said() {
    let made = |window: &str, requests, resets_at: Option<&str>| {
        let resets_at = resets_at.map(str::to_owned);
        let row = QuotaWindow { window: window.into(), requests, tokens: None, resets_at };
        PlanWindow::new(&row, &Calendar::default()).map(drop)
    };
    for text in ["", "h", "0h", "25h", "+5h", "5 h", "hourly", "yearly", "99999999999999999999h"] {
        assert_eq!(made(text, Some(1), None), Err(PlanError::Length(text.into())));
    }
    assert_eq!(made("5h", None, None), Err(PlanError::Nothing));
    assert_eq!(made("5h", Some(0), None), Err(PlanError::Nothing));
    assert_eq!(made("5h", Some(1), Some("Monday")), Err(PlanError::Reset("Monday".into())));
    assert_eq!(made("24h", Some(1), Some("2026-01-31T08:00:00+02:00")), Ok(()));
}

#[test]
fn hours_begin_with_a_request_and_all_windows_count() {
    let windows = [window("5h", Some(4), None, None), window("daily", None, Some(1_000), None)];
    let used = PlanUse::default();
    let start = ms("2026-11-26T08:17:00Z");
    let left = |now| used.left(&windows, now).unwrap();
    assert_eq!((left(start).share, used.spent_until(&windows, start)), (1.0, None));
    for _ in 0..2 {
        used.add(&windows, 100, start);
    }
    assert_eq!((left(start).share, left(start).until), (0.5, start + 5 * HOUR_MS), "half of the requests");
    used.add(&windows, 700, start + HOUR_MS);
    assert!((left(start).share - 0.1).abs() < 1e-9, "a tenth of the tokens");
    assert_eq!(left(start).until, ms("2026-11-27T00:00:00Z"));
    used.add(&windows, 0, start + HOUR_MS);
    assert_eq!(used.spent_until(&windows, start + HOUR_MS), Some(start + 5 * HOUR_MS));
    // It is over, and the next one has not begun.
    let later = start + 6 * HOUR_MS;
    assert_eq!(used.spent_until(&windows, later), None);
    let standings = used.standings(&windows, later);
    let told: Vec<_> = standings.iter().map(|it| (&*it.name, it.limit, it.total, it.used)).collect();
    assert_eq!(told, [("5h", "requests", 4, 0), ("daily", "tokens", 1_000, 900)]);
    assert_eq!((standings[0].until, standings[1].until), (None, Some(ms("2026-11-27T00:00:00Z"))));
    used.add(&windows, 200, later);
    assert_eq!(used.spent_until(&windows, later), Some(ms("2026-11-27T00:00:00Z")), "more than all is none");
}

#[test]
fn little_and_nothing_are_told_once_in_a_window() {
    let windows = [window("1h", Some(10), None, None)];
    let used = PlanUse::default();
    let add = |now: i64| -> Vec<(bool, f64)> {
        used.add(&windows, 0, now).into_iter().map(|turn| (turn.is_told, turn.share)).collect()
    };
    let start = ms("2026-11-26T08:00:00Z");
    assert_eq!(add(start), [(false, 0.9)], "written down");
    let told: Vec<_> = (1..12).flat_map(|minute| add(start + minute * 60_000)).collect();
    assert_eq!(told, [(true, 0.2), (true, 0.0)]);
    assert_eq!(add(start + 2 * HOUR_MS), [(false, 0.9)], "a new window");
    assert_eq!(add(start + 3 * HOUR_MS), [(false, 0.9)], "so that after a restart it is known when it began");
    assert!(add(start + 3 * HOUR_MS + 1).is_empty());
}

#[test]
fn requests_count_when_they_came_and_by_the_plan_of_then() {
    let (session, day, week) = (
        window("5h", Some(10), None, None),
        window("daily", Some(10), None, None),
        window("weekly", Some(10), None, None),
    );
    let all = [session.clone(), day, week];
    let used = PlanUse::default();
    let midnight = ms("2026-11-26T00:00:00Z");
    used.add(&all, 0, midnight + 1);
    // One that came before midnight does not bring the day back, and one that knows less of the plan takes nothing out of it.
    used.add(&all, 0, midnight - 1);
    used.add(&[session], 0, midnight + 2);
    used.add(&all, 0, midnight + 3);
    let told: Vec<_> = used.standings(&all, midnight + 4).iter().map(|it| (it.used, it.until)).collect();
    let ends = [midnight + 1 + 5 * HOUR_MS, midnight + DAY_MS, ms("2026-11-30T00:00:00Z")];
    assert_eq!(told, [(4, Some(ends[0])), (3, Some(ends[1])), (3, Some(ends[2]))]);
}

#[test]
fn a_restart_takes_over_what_was_used() {
    let windows = [window("5h", Some(10), None, None), window("weekly", Some(100), None, None)];
    let used = PlanUse::default();
    let now = ms("2026-11-26T12:00:00Z");
    used.add(&windows, 5, now);
    let opened = Span { start_ms: now - HOUR_MS, end_ms: now + 4 * HOUR_MS };
    used.restore(&windows[0], opened, 8, 80, now);
    used.restore(&windows[1], windows[1].span(now), 30, 90, now);
    // Over long ago.
    used.restore(&windows[0], Span { start_ms: 0, end_ms: 1 }, 1_000, 0, now);
    let told: Vec<_> = used.standings(&windows, now).iter().map(|it| (it.used, it.until)).collect();
    assert_eq!(told, [(8, Some(now + 4 * HOUR_MS)), (30, Some(ms("2026-11-30T00:00:00Z")))]);
    // What is known already is not counted down.
    used.restore(&windows[1], windows[1].span(now), 3, 3, now);
    assert_eq!(used.standings(&windows, now)[1].used, 30);
}

#[test]
fn what_is_lost_soonest_weighs_by_session_and_week() {
    let now = ms("2026-11-26T12:00:00Z");
    let at = |window: PlanWindow, start_ms: i64, used: u64| {
        let plan = PlanUse::default();
        let span = window.span(start_ms);
        plan.restore(&window, span, used, 0, now);
        plan.left(&[window], now).unwrap().loss_per_ms * SESSION_MS
    };
    // Half is left, and half of its time: an even pace. With a tenth of its time five times that is lost.
    let session = || window("5h", Some(100), None, None);
    assert!((at(session(), now - 5 * HOUR_MS / 2, 50) - 1.0).abs() < 1e-9);
    assert!((at(session(), now - 9 * HOUR_MS / 2, 50) - 5.0).abs() < 1e-9);
    // A week counts nearly twice as much as a session.
    let both = [session(), window("weekly", Some(100), None, Some("2026-11-30T00:00:00Z"))];
    let plan = PlanUse::default();
    plan.restore(&both[0], both[0].span(now - 5 * HOUR_MS / 2), 50, 0, now);
    plan.restore(&both[1], both[1].span(now), 50, 0, now);
    // Half of it is left, and half of the week.
    let week = 0.5 * 7.0 * 24.0 / 84.0;
    let loss = plan.left(&both, now).unwrap().loss_per_ms * SESSION_MS;
    assert!((loss - (0.35 + 0.65 * week)).abs() < 1e-9, "{loss}");
}
