//! Every class of failure: how it is recognised, what it puts out of use and for how long, and who may be asked instead.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use omniroute_dialect::ir::UpstreamError;
use omniroute_domain::entity::{ConnectionId, ConnectionStatus, ResilienceSettings, TestStatus};
use omniroute_domain::health::{HealthMap, Hold, Profile};
use omniroute_provider::spec::ResilienceProfile;
use omniroute_provider::{Failure, FailureKind, Retry, catalog::catalog, registry::provider_for};

/// 2026-11-23 00:00 UTC, four in the afternoon of the day before in California.
const NOW: i64 = 1_795_392_000_000;
const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;

/// What a provider says.
struct Said {
    provider: &'static str,
    status: u16,
    code: Option<&'static str>,
    message: &'static str,
    header: Option<(&'static str, &'static str)>,
}

fn said(status: u16, code: Option<&'static str>, message: &'static str) -> Said {
    Said { provider: "openai", status, code, message, header: None }
}

impl Said {
    fn by(self, provider: &'static str) -> Self {
        Self { provider, ..self }
    }

    fn with(self, name: &'static str, value: &'static str) -> Self {
        Self { header: Some((name, value)), ..self }
    }

    fn judged(&self) -> Failure {
        let spec = catalog().provider(self.provider).expect("it is in the catalogue").clone();
        let error = UpstreamError {
            status: Some(self.status),
            kind: None,
            code: self.code.map(str::to_owned),
            param: None,
            message: self.message.to_owned(),
            retry_after: None,
        };
        let mut headers = HeaderMap::new();
        if let Some((name, value)) = self.header {
            headers.insert(name, value.parse().expect("a header"));
        }
        let status = StatusCode::from_u16(self.status).expect("a status");
        provider_for(spec).classify(error, status, &headers, NOW)
    }
}

/// What a failure puts out of use, and until when.
fn effect(failure: &Failure, profile: &Profile) -> (Option<Hold>, Option<i64>, TestStatus) {
    let health = HealthMap::default().of(&ConnectionId::from("c"), &ConnectionStatus::default());
    health.failed("m", failure, profile, NOW, 0.0);
    let blocked = health.check("m", NOW).err();
    let until = blocked.and_then(|blocked| blocked.until).map(|until| until - NOW);
    (blocked.map(|blocked| blocked.hold), until, health.status(NOW).test_status)
}

#[test]
fn each_class_puts_out_of_use_what_it_should_for_as_long_as_it_should() {
    use FailureKind as Kind;
    use Hold::{Connection, Model};
    use Retry::{Elsewhere, Never, OtherModel};
    let unknown = TestStatus::Unknown;
    #[rustfmt::skip]
    let cases = [
        (said(429, None, "slow down"), Kind::RateLimited, Elsewhere, Some(Model), Some(SECOND), unknown),
        (said(429, None, "slow down").with("retry-after", "20"), Kind::RateLimited, Elsewhere, Some(Model), Some(20 * SECOND), unknown),
        (said(429, None, "try again in 1.2s"), Kind::RateLimited, Elsewhere, Some(Model), Some(1_200), unknown),
        (said(429, None, "slow").with("retry-after", "86400"), Kind::RateLimited, Elsewhere, Some(Model), Some(30 * MINUTE), unknown),
        (said(429, Some("insufficient_quota"), "exceeded"), Kind::QuotaSpent, Elsewhere, Some(Connection), Some(HOUR), unknown),
        (said(402, None, "payment required"), Kind::QuotaSpent, Elsewhere, Some(Connection), Some(HOUR), unknown),
        (said(402, None, "Insufficient credits"), Kind::QuotaSpent, Elsewhere, Some(Connection), None, TestStatus::CreditsExhausted),
        (said(400, None, "Your credit balance is too low"), Kind::QuotaSpent, Elsewhere, Some(Connection), None, TestStatus::CreditsExhausted),
        (said(429, None, "limit of requests per day").by("gemini"), Kind::QuotaSpent, Elsewhere, Some(Connection), Some(8 * HOUR), unknown),
        (said(429, None, "limit of requests per day").by("groq"), Kind::QuotaSpent, Elsewhere, Some(Connection), Some(24 * HOUR), unknown),
        (said(401, None, "no"), Kind::AuthRejected, Elsewhere, Some(Connection), Some(2 * MINUTE), unknown),
        (said(403, None, "not allowed for this model"), Kind::Forbidden, Elsewhere, Some(Model), Some(2 * MINUTE), unknown),
        (said(403, Some("unsupported_country_region_territory"), "no"), Kind::Forbidden, Elsewhere, Some(Connection), Some(2 * MINUTE), unknown),
        (said(403, None, "your account has been suspended"), Kind::Banned, Elsewhere, Some(Connection), None, TestStatus::Banned),
        (said(404, Some("model_not_found"), "no"), Kind::ModelMissing, Elsewhere, Some(Model), Some(2 * MINUTE), unknown),
        (said(503, None, "no"), Kind::Overloaded, Elsewhere, Some(Model), Some(SECOND), unknown),
        (said(529, None, "no"), Kind::Overloaded, Elsewhere, Some(Model), Some(SECOND), unknown),
        (said(408, None, "no"), Kind::Unavailable, Elsewhere, Some(Model), Some(3 * SECOND), unknown),
        (said(500, None, "no"), Kind::Unavailable, Elsewhere, Some(Model), Some(3 * SECOND), unknown),
        (said(502, None, "no"), Kind::Unavailable, Elsewhere, Some(Model), Some(3 * SECOND), unknown),
        (said(504, None, "no"), Kind::Unavailable, Elsewhere, Some(Model), Some(3 * SECOND), unknown),
        (said(403, None, "Request not allowed"), Kind::NotAllowed, Elsewhere, Some(Model), Some(5 * SECOND), unknown),
        (said(400, Some("context_length_exceeded"), "no"), Kind::ContextTooLong, OtherModel, None, None, unknown),
        (said(413, None, "no"), Kind::ContextTooLong, OtherModel, None, None, unknown),
        (said(400, Some("content_policy_violation"), "no"), Kind::Refused, OtherModel, None, None, unknown),
        (said(400, None, "the word overloaded in a message"), Kind::BadRequest, Never, None, None, unknown),
        (said(409, None, "no"), Kind::BadRequest, Never, None, None, unknown),
        (said(415, None, "no"), Kind::BadRequest, Never, None, None, unknown),
        (said(422, None, "capacity"), Kind::BadRequest, Never, None, None, unknown),
        (said(499, None, "no"), Kind::ClientAbort, Never, None, None, unknown),
        (said(418, None, "no"), Kind::Unknown, Elsewhere, Some(Model), Some(3 * SECOND), unknown),
    ];
    let profile = Profile::of(ResilienceProfile::Apikey);
    for (said, kind, retry, hold, until, status) in cases {
        let what = format!("{} {} {:?} {}", said.provider, said.status, said.code, said.message);
        let failure = said.judged();
        assert_eq!((failure.kind, failure.retry), (kind, retry), "{what}");
        assert_eq!(effect(&failure, &profile), (hold, until, status), "{what}");
    }
}

#[test]
fn what_never_reached_anybody_is_judged_like_a_passing_failure() {
    let profile = Profile::of(ResilienceProfile::Oauth);
    for failure in [Failure::timeout("x"), Failure::connect("x"), Failure::protocol("x"), Failure::empty()] {
        assert_eq!(effect(&failure, &profile), (Some(Hold::Model), Some(5 * SECOND), TestStatus::Unknown));
    }
    let abort = Failure::client_abort();
    assert_eq!(effect(&abort, &profile), (None, None, TestStatus::Unknown));
}

#[test]
fn the_operators_durations_count() {
    let mut settings = ResilienceSettings::default();
    settings.profiles.apikey.transient_cooldown_ms = Some(7_000);
    settings.profiles.apikey.rate_limit_cooldown_ms = Some(9_000);
    settings.model_lockout.error_codes = vec![404, 429];
    settings.model_lockout.base_cooldown_ms = Some(40_000);
    settings.model_lockout.max_cooldown_ms = 100_000;
    let (ill, limited, missing) =
        (said(500, None, "no").judged(), said(429, None, "no").judged(), said(404, None, "no").judged());
    let hinted = said(429, None, "no").with("retry-after", "200").judged();
    let profile = |settings: &ResilienceSettings| Profile::new(settings, ResilienceProfile::Apikey);
    let lock = |settings: &ResilienceSettings, failure: &Failure, level| {
        profile(settings).lock_ms(failure, level, 0.0)
    };
    assert_eq!(lock(&settings, &ill, 0), Some(7_000), "its status is not listed");
    assert_eq!(lock(&settings, &ill, 1), Some(14_000));
    assert_eq!(lock(&settings, &limited, 0), Some(40_000));
    assert_eq!(lock(&settings, &limited, 1), Some(80_000));
    assert_eq!(lock(&settings, &limited, 2), Some(100_000), "the longest");
    assert_eq!(lock(&settings, &hinted, 5), Some(200_000), "the upstream's word");
    settings.profiles.apikey.use_upstream_retry_hints = Some(false);
    assert_eq!(lock(&settings, &hinted, 0), Some(40_000), "does not count");
    settings.model_lockout.use_exponential_backoff = false;
    assert_eq!(lock(&settings, &limited, 5), Some(40_000));
    settings.model_lockout.base_cooldown_ms = None;
    assert_eq!(lock(&settings, &limited, 0), Some(9_000));
    assert_eq!(lock(&settings, &missing, 0), Some(100_000), "two minutes are too long");
    settings.model_lockout.enabled = false;
    assert_eq!(lock(&settings, &missing, 0), None);
    assert_eq!(profile(&settings).cooldown_ms(&limited, 0, 0.0), 9_000);
}

#[test]
fn a_success_takes_back_what_failures_did() {
    let health = HealthMap::default().of(&ConnectionId::from("c"), &ConnectionStatus::default());
    let profile = Profile::of(ResilienceProfile::Apikey);
    let ill = said(500, None, "no").judged();
    let mut now = NOW;
    for _ in 0..4 {
        now += 10 * MINUTE;
        health.failed("m", &ill, &profile, now, 0.0);
    }
    assert_eq!(health.locks(now)[0].failure_count, 4);
    let recovery = health.succeeded("m", now + 1);
    assert!(recovery.was_locked);
    let status = recovery.status.expect("there was an error to forget");
    assert_eq!((status.test_status, status.last_error), (TestStatus::Active, None));
    assert!(health.check("m", now + 1).is_ok());
    // Half of four are left; the next failure is the third.
    health.failed("m", &ill, &profile, now + 2, 0.0);
    assert_eq!(health.locks(now + 2)[0].failure_count, 3);
    for _ in 0..3 {
        health.succeeded("m", now + 3);
    }
    health.failed("m", &ill, &profile, now + 4, 0.0);
    assert_eq!(health.locks(now + 4)[0].failure_count, 1, "nothing was left");
}

#[test]
fn an_error_of_an_earlier_process_is_forgotten_with_the_first_answer() {
    let remembered = ConnectionStatus {
        test_status: TestStatus::Error,
        last_error: Some("bad key".into()),
        ..ConnectionStatus::default()
    };
    let health = HealthMap::default().of(&ConnectionId::from("c"), &remembered);
    let status = health.succeeded("m", NOW).status.expect("it changed");
    assert_eq!((status.test_status, status.last_error), (TestStatus::Active, None));
    assert_eq!(health.succeeded("m", NOW), Default::default(), "nothing is left to change");
}

#[test]
fn the_answer_to_an_earlier_question_does_not_bring_a_closed_account_back() {
    let health = HealthMap::default().of(&ConnectionId::from("c"), &ConnectionStatus::default());
    let profile = Profile::of(ResilienceProfile::Apikey);
    health.failed("m", &said(403, None, "your account has been suspended").judged(), &profile, NOW, 0.0);
    assert_eq!(health.succeeded("m", NOW + 1).status, None);
    assert_eq!(health.status(NOW).test_status, TestStatus::Banned);
    assert_eq!(health.check("m", NOW + 24 * HOUR).unwrap_err().until, None);
}

#[test]
fn a_hint_is_never_outlasted() {
    // The second failure comes without a hint while a longer lock is in force, the third with a shorter one.
    let health = HealthMap::default().of(&ConnectionId::from("c"), &ConnectionStatus::default());
    let profile = Profile::of(ResilienceProfile::Apikey);
    let hint = |seconds| Failure {
        retry_after: Some(Duration::from_secs(seconds)),
        ..said(429, None, "no").judged()
    };
    health.failed("m", &hint(600), &profile, NOW, 1.0);
    health.failed("m", &said(429, None, "no").judged(), &profile, NOW + 1, 1.0);
    assert_eq!(health.check("m", NOW + 1).unwrap_err().until, Some(NOW + 600 * SECOND));
    health.failed("m", &hint(5), &profile, NOW + 2, 1.0);
    assert_eq!(health.check("m", NOW + 2).unwrap_err().until, Some(NOW + 2 + 5 * SECOND));
}
