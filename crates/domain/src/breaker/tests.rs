use proptest::prelude::*;

use super::*;

const NOW: i64 = 1_795_392_000_000;
const POLICY: BreakerPolicy =
    BreakerPolicy { failure_threshold: 5, degradation_threshold: 3, reset_timeout_ms: 30_000 };

fn breaker() -> Arc<Breaker> {
    Arc::new(Breaker::new("p".into(), "p".into()))
}

fn failure(kind: FailureKind, status: Option<u16>) -> Failure {
    let mut failure = Failure { kind, ..Failure::timeout("x") };
    failure.upstream.status = status;
    failure
}

fn down() -> Failure {
    failure(FailureKind::Unavailable, Some(500))
}

/// A call that fails at a time; `None` when nobody may pass.
fn fail(breaker: &Arc<Breaker>, at: i64) -> Option<Option<Transition>> {
    let (pass, _) = breaker.admit("m", NOW + at).ok()?;
    Some(pass.failed(&down(), "m", &"c".into(), &POLICY, NOW + at))
}

fn state(breaker: &Breaker, at: i64) -> &'static str {
    breaker.record(NOW + at).state.as_str()
}

/// Opens it with the last failure at 4 s.
fn opened() -> Arc<Breaker> {
    let breaker = breaker();
    for n in 0..5 {
        fail(&breaker, n * 1_000);
    }
    assert_eq!(state(&breaker, 4_000), "OPEN");
    breaker
}

#[test]
fn failures_degrade_then_open_and_successes_take_them_back() {
    let breaker = breaker();
    let states: Vec<_> = (0..4)
        .map(|n| {
            fail(&breaker, n * 1_000);
            state(&breaker, n * 1_000)
        })
        .collect();
    assert_eq!(states, ["CLOSED", "CLOSED", "DEGRADED", "DEGRADED"]);
    assert_eq!(breaker.state("m", NOW + 4_000), BreakerState::Degraded);
    let (pass, _) = breaker.admit("m", NOW + 5_000).expect("degraded lets through");
    assert_eq!(pass.answered("m", NOW + 5_000), None, "three are still as many as make it degraded");
    let (pass, _) = breaker.admit("m", NOW + 5_001).expect("degraded lets through");
    let closed = pass.answered("m", NOW + 5_001).expect("two are fewer");
    assert_eq!(
        (closed.from, closed.to, closed.cause),
        (BreakerState::Degraded, BreakerState::Closed, "answered")
    );
    fail(&breaker, 6_000);
    fail(&breaker, 7_000);
    let opened = fail(&breaker, 8_000).flatten().expect("the fifth");
    assert_eq!(
        (opened.to, opened.cause, opened.until),
        (BreakerState::Open, "transient", Some(NOW + 38_000))
    );
    let shut = breaker.check("m", NOW + 8_001).unwrap_err();
    assert_eq!((shut.until, shut.cause), (NOW + 38_000, FailureKind::Unavailable));
}

#[test]
fn one_probe_at_a_time_decides() {
    let breaker = opened();
    assert_eq!(breaker.state("m", NOW + 33_999), BreakerState::Open);
    assert_eq!(breaker.state("m", NOW + 34_000), BreakerState::HalfOpen, "the next request is a probe");
    assert!(breaker.admit("m", NOW + 33_999).is_err());
    let (probe, turned) = breaker.admit("m", NOW + 34_000).expect("the pause is over");
    assert_eq!(turned.expect("it turned").to, BreakerState::HalfOpen);
    let shut = breaker.admit("m", NOW + 34_001).expect_err("a second probe");
    assert_eq!(shut.until, NOW + 35_001);
    let closed = probe.answered("m", NOW + 34_500).expect("the probe decides");
    assert_eq!(closed.to, BreakerState::Closed);
    assert_eq!(breaker.record(NOW + 34_500).failure_count, 0);
}

#[test]
fn a_probe_whose_client_went_away_frees_its_place() {
    let breaker = opened();
    drop(breaker.admit("m", NOW + 34_000).expect("a probe"));
    assert_eq!(state(&breaker, 34_000), "HALF_OPEN");
    // Nor does an outcome that says nothing about the provider keep it.
    let (probe, _) = breaker.admit("m", NOW + 34_001).expect("the next probe");
    let limited = failure(FailureKind::RateLimited, Some(429));
    assert_eq!(probe.failed(&limited, "m", &"c".into(), &POLICY, NOW + 34_002), None);
    assert!(breaker.admit("m", NOW + 34_003).is_ok());
}

#[test]
fn the_pause_doubles_after_three_failed_probes_and_not_beyond_sixteen_times() {
    let breaker = opened();
    let mut at = 34_000;
    let mut pauses = Vec::new();
    for _ in 0..9 {
        let until = fail(&breaker, at).flatten().expect("the probe failed").until.expect("it is open");
        pauses.push((until - NOW - at) / 30_000);
        at = until - NOW;
    }
    assert_eq!(pauses, [1, 1, 2, 4, 8, 16, 16, 16, 16]);
    let (probe, _) = breaker.admit("m", NOW + at).expect("a probe");
    probe.answered("m", NOW + at);
    for n in 0..5 {
        fail(&breaker, at + n * 1_000);
    }
    assert_eq!(breaker.record(NOW + at + 4_000).span_ms, 30_000, "an answer begins anew");
}

#[test]
fn an_outage_counts_once_for_each_connection_that_it_cuts_off() {
    let breaker = breaker();
    for at in [0, 10, 99] {
        for connection in ["a", "b"] {
            let (pass, _) = breaker.admit("m", NOW + at).expect("closed");
            pass.failed(&down(), "m", &connection.into(), &POLICY, NOW + at);
        }
    }
    assert_eq!(breaker.record(NOW).failure_count, 2);
    let (pass, _) = breaker.admit("m", NOW + 100).expect("closed");
    pass.failed(&down(), "m", &"a".into(), &POLICY, NOW + 100);
    assert_eq!(breaker.record(NOW).failure_count, 3);
}

#[test]
fn only_what_the_upstream_itself_does_wrong_counts() {
    let cases = [
        (FailureKind::Unavailable, Some(408), true),
        (FailureKind::Unavailable, Some(500), true),
        (FailureKind::Unavailable, Some(502), true),
        (FailureKind::Overloaded, Some(503), true),
        (FailureKind::Overloaded, Some(529), true),
        (FailureKind::Timeout, Some(504), true),
        (FailureKind::Connect, Some(502), true),
        (FailureKind::Protocol, Some(502), true),
        (FailureKind::AuthRejected, Some(401), false),
        (FailureKind::QuotaSpent, Some(402), false),
        (FailureKind::Forbidden, Some(403), false),
        (FailureKind::ModelMissing, Some(404), false),
        (FailureKind::RateLimited, Some(429), false),
        (FailureKind::RateLimited, Some(503), false),
        (FailureKind::Overloaded, Some(429), false),
        (FailureKind::Unavailable, Some(403), false),
        (FailureKind::Unknown, Some(418), false),
        (FailureKind::Unknown, Some(599), true),
        (FailureKind::BadRequest, Some(400), false),
        (FailureKind::ContextTooLong, Some(500), false),
        (FailureKind::AddressBlocked, Some(502), false),
        (FailureKind::ClientAbort, Some(499), false),
        (FailureKind::Empty, Some(502), false),
    ];
    for (kind, status, expected) in cases {
        assert_eq!(counts(&failure(kind, status)), expected, "{kind:?} {status:?}");
    }
}

#[test]
fn what_an_earlier_process_knew_goes_on() {
    let record = opened().record(NOW + 4_000);
    let later = breaker();
    later.restore(&record, NOW + 10_000);
    assert_eq!(later.check("m", NOW + 10_000).unwrap_err().until, NOW + 34_000);
    assert!(later.admit("m", NOW + 34_000).is_ok());
    // Probed when the process ended: it is probed again.
    let half = BreakerRecord { state: BreakerState::HalfOpen, open_until: None, ..record.clone() };
    let probed = breaker();
    probed.restore(&half, NOW + 40_000);
    assert!(probed.admit("m", NOW + 40_000).is_ok() && probed.admit("m", NOW + 40_000).is_ok());
    // A clock that was wrong does not make it wait longer than the pause.
    let strange = BreakerRecord { open_until: Some(i64::MAX), ..record };
    let wrong = breaker();
    wrong.restore(&strange, NOW);
    assert_eq!(wrong.check("m", NOW).unwrap_err().until, NOW + 30_000);
}

#[test]
fn a_clock_that_is_set_back_does_not_lengthen_the_pause() {
    let breaker = opened();
    let shut = breaker.check("m", NOW - 3_600_000).unwrap_err();
    assert_eq!(shut.until, NOW - 3_600_000 + 30_000);
}

#[test]
fn the_operator_closes_it() {
    let breaker = opened();
    let closed = breaker.reset(NOW + 5_000).expect("it was open");
    assert_eq!((closed.to, closed.cause), (BreakerState::Closed, "operator"));
    assert!(breaker.check("m", NOW + 5_000).is_ok());
    assert_eq!(breaker.reset(NOW + 5_001), None);
}

/// A call for a model that fails; whether it was let through.
fn fail_with(breaker: &Arc<Breaker>, model: &str, failure: &Failure, at: i64) -> bool {
    let Ok((pass, _)) = breaker.admit(model, NOW + at) else { return false };
    pass.failed(failure, model, &"c".into(), &POLICY, NOW + at);
    true
}

fn succeed_with(breaker: &Arc<Breaker>, model: &str, at: i64) {
    let (pass, _) = breaker.admit(model, NOW + at).expect("it is let through");
    pass.answered(model, NOW + at);
}

fn shut_for(breaker: &Breaker, at: i64) -> Option<String> {
    breaker.record(NOW + at).model.map(|model| model.to_string())
}

#[test]
fn one_model_that_fails_is_shut_out_alone() {
    let breaker = opened();
    assert_eq!(shut_for(&breaker, 4_000).as_deref(), Some("m"));
    assert_eq!(breaker.state("other", NOW + 4_000), BreakerState::Closed);
    assert!(breaker.check("other", NOW + 4_000).is_ok());
    // Others that fail now and then do not change that, nor does what they answer open it for `m`.
    for at in [5_000, 6_000] {
        assert!(fail_with(&breaker, "other", &down(), at));
    }
    succeed_with(&breaker, "other", 7_000);
    assert_eq!((state(&breaker, 7_000), breaker.record(NOW).failure_count), ("OPEN", 6));
    assert!(breaker.check("m", NOW + 7_000).is_err() && breaker.check("other", NOW + 7_000).is_ok());
    // The end of the pause is for `m` to probe; whoever else comes is no probe.
    let (another, turned) = breaker.admit("other", NOW + 34_000).expect("not concerned");
    let (probe, probing) = breaker.admit("m", NOW + 34_000).expect("the probe");
    assert_eq!((turned, probing.and_then(|turned| turned.model).as_deref()), (None, Some("m")));
    another.answered("other", NOW + 34_001);
    assert_eq!((state(&breaker, 34_001), shut_for(&breaker, 34_001).as_deref()), ("HALF_OPEN", Some("m")));
    assert!(breaker.admit("m", NOW + 34_002).is_err());
    let closed = probe.answered("m", NOW + 34_003).expect("the probe decides");
    assert_eq!((closed.to, closed.model.as_deref()), (BreakerState::Closed, Some("m")));
    assert_eq!((shut_for(&breaker, 34_003), breaker.record(NOW).failure_count), (None, 0));
}

#[test]
fn several_models_that_fail_are_the_upstream() {
    // At once, or when one is shut out already: three of others are half of five.
    let mixed = breaker();
    for (at, model) in [(0, "m"), (1_000, "a"), (2_000, "m"), (3_000, "b"), (4_000, "a")] {
        assert!(fail_with(&mixed, model, &down(), at));
    }
    let later = opened();
    for (at, model) in [(5_000, "a"), (6_000, "b"), (7_000, "a")] {
        assert!(fail_with(&later, model, &down(), at));
    }
    for (breaker, until) in [(mixed, 34_000), (later, 37_000)] {
        assert_eq!(shut_for(&breaker, 7_000), None);
        for model in ["m", "a", "c"] {
            assert_eq!(breaker.check(model, NOW + 7_000).unwrap_err().until, NOW + until, "{model}");
        }
    }
}

#[test]
fn who_cannot_be_reached_fails_with_every_model() {
    let breaker = breaker();
    let connect = failure(FailureKind::Connect, Some(502));
    for at in [0, 1_000] {
        fail_with(&breaker, "m", &down(), at);
    }
    for at in [2_000, 3_000, 4_000] {
        fail_with(&breaker, "m", &connect, at);
    }
    assert_eq!((state(&breaker, 4_000), shut_for(&breaker, 4_000)), ("OPEN", None));
    assert!(breaker.check("other", NOW + 5_000).is_err());
}

#[test]
fn a_model_that_answers_takes_back_failures_of_its_own() {
    let breaker = breaker();
    for at in [0, 1_000, 2_000] {
        fail_with(&breaker, "m", &down(), at);
        succeed_with(&breaker, "other", at + 500);
    }
    assert_eq!((state(&breaker, 3_000), breaker.record(NOW).failure_count), ("DEGRADED", 3));
    succeed_with(&breaker, "m", 3_000);
    assert_eq!((state(&breaker, 3_000), breaker.record(NOW).failure_count), ("CLOSED", 2));
    // What is nobody's in particular anybody takes back.
    fail_with(&breaker, "m", &failure(FailureKind::Connect, Some(502)), 4_000);
    succeed_with(&breaker, "other", 4_500);
    assert_eq!(breaker.record(NOW).failure_count, 2);
}

#[test]
fn of_which_models_failures_were_is_known_in_the_next_process() {
    let before = opened();
    fail_with(&before, "other", &down(), 5_000);
    let after = breaker();
    after.restore(&before.record(NOW + 5_000), NOW + 6_000);
    assert!(after.check("m", NOW + 6_000).is_err() && after.check("other", NOW + 6_000).is_ok());
    for at in [7_000, 8_000] {
        assert!(fail_with(&after, "other", &down(), at));
    }
    assert!(after.check("other", NOW + 8_000).is_err(), "the third");
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Answer,
    Fail,
    Refuse,
    Abort,
    Wait(i64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => Just(Step::Answer),
        3 => Just(Step::Fail),
        1 => Just(Step::Refuse),
        1 => Just(Step::Abort),
        2 => (1_i64..600_000).prop_map(Step::Wait),
    ]
}

proptest! {
    /// Whatever happens, it can be asked again within sixteen pauses, the end of a pause never moves back while time goes on,
    /// and a closed one has fewer failures than open it.
    #[test]
    fn it_is_never_stuck(steps in prop::collection::vec(step(), 0..200)) {
        let breaker = breaker();
        let mut now = NOW;
        let mut last_until = 0;
        for step in steps {
            match step {
                Step::Wait(ms) => now += ms,
                Step::Answer | Step::Fail | Step::Refuse | Step::Abort => {
                    let Ok((pass, _)) = breaker.admit("m", now) else { continue };
                    match step {
                        Step::Answer => _ = pass.answered("m", now),
                        Step::Fail => _ = pass.failed(&down(), "m", &"c".into(), &POLICY, now),
                        Step::Refuse => {
                            let refused = failure(FailureKind::RateLimited, Some(429));
                            _ = pass.failed(&refused, "m", &"c".into(), &POLICY, now);
                        }
                        Step::Abort | Step::Wait(_) => drop(pass),
                    }
                }
            }
            let record = breaker.record(now);
            if let Some(until) = record.open_until {
                prop_assert!(until >= last_until && until - now <= 16 * POLICY.reset_timeout_ms);
                last_until = until;
            }
            match record.state {
                BreakerState::Closed => prop_assert!(record.failure_count < POLICY.degradation_threshold),
                BreakerState::Degraded => prop_assert!(record.failure_count < POLICY.failure_threshold),
                BreakerState::Open | BreakerState::HalfOpen => {}
            }
            prop_assert!(breaker.check("m", now + 16 * POLICY.reset_timeout_ms).is_ok());
        }
    }
}
