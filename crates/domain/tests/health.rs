//! What failures put out of use, and for how long.

use std::sync::Arc;
use std::time::Duration;

use omniroute_dialect::{Dialect as _, anthropic::Anthropic, openai::OpenAi};
use omniroute_domain::entity::{ConnectionId, ConnectionStatus, TestStatus};
use omniroute_domain::health::{ConnectionHealth, HealthMap, Hold, Profile};
use omniroute_provider::spec::ResilienceProfile;
use omniroute_provider::{Failure, FailureKind, Retry, Scope};

const NOW: i64 = 1_795_392_000_000;

fn fresh() -> (Arc<ConnectionHealth>, Profile) {
    let health = HealthMap::default().of(&ConnectionId::from("c"), &ConnectionStatus::default());
    (health, Profile::of(ResilienceProfile::Apikey))
}

fn failure(kind: FailureKind, scope: Scope) -> Failure {
    Failure { kind, scope, retry: Retry::Elsewhere, ..Failure::timeout("x") }
}

/// Until when a model is out of use after failures at these times.
fn ends(kind: FailureKind, scope: Scope, times: &[i64]) -> Vec<Option<i64>> {
    let (health, profile) = fresh();
    let failure = failure(kind, scope);
    let end = |at: &i64| {
        health.failed("m", &failure, &profile, NOW + at, 0.0);
        health.check("m", NOW + at).err().and_then(|blocked| blocked.until).map(|until| until - NOW)
    };
    times.iter().map(end).collect()
}

#[test]
fn durations_grow_only_when_the_last_one_had_ended() {
    use FailureKind::{ModelMissing, QuotaSpent, RateLimited, Unavailable};
    let model = Scope::ConnectionModel;
    // At once again: the second failure belongs to the first.
    assert_eq!(ends(RateLimited, model, &[0, 10, 2_000]), [Some(1_000), Some(1_010), Some(4_000)]);
    assert_eq!(ends(Unavailable, model, &[0, 5_000, 20_000]), [Some(3_000), Some(11_000), Some(32_000)]);
    assert_eq!(ends(ModelMissing, model, &[0, 200_000]), [Some(120_000), Some(800_000)]);
    assert_eq!(ends(QuotaSpent, Scope::Connection, &[0]), [Some(3_600_000)]);
    assert_eq!(ends(FailureKind::BadRequest, Scope::Request, &[0]), [None]);
    // The cap: five doublings of a second for this profile, and never more than half an hour.
    let often: Vec<i64> = (0..12).map(|n| n * 3_600_000).collect();
    let last = ends(RateLimited, model, &often).pop().flatten();
    assert_eq!(last, Some(11 * 3_600_000 + 32_000));
}

/// Who waits for a clock to come round again that was two hours ahead waits two hours longer than anybody asked for.
#[test]
fn a_clock_that_is_set_back_does_not_lengthen_locks_and_cooldowns() {
    const BACK: i64 = NOW - 7_200_000;
    for scope in [Scope::ConnectionModel, Scope::Connection] {
        let (health, profile) = fresh();
        let mut limited = failure(FailureKind::RateLimited, scope);
        limited.retry_after = Some(Duration::from_secs(3));
        health.failed("m", &limited, &profile, NOW, 0.0);
        assert!(health.check("m", NOW).is_err());
        assert!(health.check("m", NOW - 1_000).is_err(), "another process's clock may be a little behind");
        assert!(health.check("m", BACK).is_ok(), "{scope:?}");
        assert!(health.locks(BACK).is_empty() && health.status(BACK).rate_limited_until.is_none());
        // What happens then counts from then, without a word of the upstream too.
        let unsaid = failure(FailureKind::Unavailable, scope);
        health.failed("m", &unsaid, &profile, BACK, 0.0);
        let until = health.check("m", BACK).unwrap_err().until.unwrap();
        assert!((BACK..BACK + 600_000).contains(&until), "{scope:?}: {}", until - BACK);
        // After a restart.
        let kept = HealthMap::default().of(&ConnectionId::from("d"), &health.status(BACK));
        health.locks(BACK).into_iter().for_each(|lock| kept.restore_lock(lock));
        assert!(kept.check("m", BACK).is_err() && kept.check("m", BACK - 7_200_000).is_ok(), "{scope:?}");
    }
}

#[test]
fn the_upstreams_own_word_counts_shorter_or_longer() {
    let (health, profile) = fresh();
    for (seconds, capped) in [(600, 600_000), (1, 1_000), (7_200, 1_800_000)] {
        let mut failure = failure(FailureKind::RateLimited, Scope::ConnectionModel);
        failure.retry_after = Some(Duration::from_secs(seconds));
        health.failed("m", &failure, &profile, NOW, 1.0);
        assert_eq!(health.check("m", NOW).unwrap_err().until, Some(NOW + capped), "{seconds} s");
    }
}

#[test]
fn a_lock_concerns_one_model_and_a_cooldown_all() {
    let (health, profile) = fresh();
    health.failed("m", &failure(FailureKind::RateLimited, Scope::ConnectionModel), &profile, NOW, 0.0);
    assert!(health.check("m", NOW).unwrap_err().hold == Hold::Model);
    assert!(health.check("other", NOW).is_ok());
    health.failed("m", &failure(FailureKind::AuthRejected, Scope::Connection), &profile, NOW, 0.0);
    assert_eq!(health.check("other", NOW).unwrap_err().reason, FailureKind::AuthRejected);
    assert!(health.check("other", NOW + 120_001).is_ok());
    health.succeeded("m", NOW + 121_000);
    assert!(health.locks(NOW + 121_000).is_empty() && health.check("m", NOW + 121_000).is_ok());
}

#[test]
fn a_closed_account_stays_out_until_somebody_acts() {
    let (health, profile) = fresh();
    let status = health.failed("m", &failure(FailureKind::Banned, Scope::Connection), &profile, NOW, 0.0);
    assert_eq!(status.status.unwrap().test_status, TestStatus::Banned);
    assert_eq!(health.check("m", NOW + 10_i64.pow(11)).unwrap_err().until, None);
    health.clear(ConnectionStatus::default());
    assert!(health.check("m", NOW).is_ok());
}

#[test]
fn three_refused_credentials_in_a_row_are_an_error() {
    let (health, profile) = fresh();
    let refused = failure(FailureKind::AuthRejected, Scope::Connection);
    let statuses = [0, 1, 2]
        .map(|n| health.failed("m", &refused, &profile, NOW + n * 200_000, 0.0).status.unwrap().test_status);
    assert_eq!(statuses, [TestStatus::Unknown, TestStatus::Unknown, TestStatus::Error]);
}

#[test]
fn locks_are_bounded() {
    let (health, profile) = fresh();
    for n in 0..2_000 {
        health.failed(
            &format!("m{n}"),
            &failure(FailureKind::Unavailable, Scope::ConnectionModel),
            &profile,
            NOW + n,
            0.0,
        );
    }
    assert_eq!(health.locks(NOW).len(), 256);
}

#[test]
fn a_dialect_that_is_not_served_is_passed_over_until_its_time_or_until_somebody_acts() {
    let (health, _) = fresh();
    health.dialect_is_missing(Anthropic.id(), NOW + 1_000);
    assert!(health.is_dialect_missing(Anthropic.id(), NOW));
    assert!(!health.is_dialect_missing(OpenAi.id(), NOW));
    assert!(!health.is_dialect_missing(Anthropic.id(), NOW + 1_000));
    health.clear(ConnectionStatus::default());
    assert!(!health.is_dialect_missing(Anthropic.id(), NOW));
}

#[test]
fn places_are_given_back() {
    let (health, _) = fresh();
    let first = health.enter(Some(1));
    assert!(first.is_some() && health.enter(Some(1)).is_none());
    drop(first);
    assert!(health.enter(Some(1)).is_some());
    assert_eq!(health.in_flight(), 0);
}
