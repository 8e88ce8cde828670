//! A change of the settings, in either shape or in both. Unknown members are refused: a typing error here would leave the
//! gateway with other thresholds than the operator believes.

use std::ops::RangeInclusive;

use omniroute_domain::entity::{ProfileChoice, RuntimeSettings};
use omniroute_provider::spec::ResilienceProfile;
use serde::Deserialize;
use serde::de::IgnoredAny;
use utoipa::ToSchema;

use super::super::present;
use crate::validation::Problems;

/// A day in milliseconds.
const DAY_MS: i64 = 86_400_000;
const DURATION: RangeInclusive<i64> = 0..=DAY_MS;
const THRESHOLD: RangeInclusive<i64> = 1..=10_000;
const STEPS: RangeInclusive<i64> = 0..=20;
const COUNT: RangeInclusive<i64> = 0..=1_000_000;
/// Most statuses that lock a model.
const MAX_CODES: usize = 200;

/// What is to change; absent members stay.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ResiliencePatch {
    profiles: Option<ByProfile<ProfilePatch>>,
    defaults: Option<StaticCeilingsPatch>,
    request_queue: Option<RequestQueuePatch>,
    connection_cooldown: Option<ByProfile<CooldownPatch>>,
    provider_breaker: Option<ByProfile<ThresholdsPatch>>,
    wait_for_cooldown: Option<WaitPatch>,
    model_lockout: Option<LockoutPatch>,
    /// Shown by GET; nothing is done with it.
    #[serde(rename = "ok")]
    #[schema(value_type = Option<bool>)]
    _ok: Option<IgnoredAny>,
    /// Shown by GET; nothing is done with it.
    #[serde(rename = "circuitBreakers")]
    #[schema(value_type = Option<Vec<Object>>)]
    _circuit_breakers: Option<IgnoredAny>,
    /// Shown by GET; nothing is done with it.
    #[serde(rename = "rateLimitStatus")]
    #[schema(value_type = Option<Object>)]
    _rate_limit_status: Option<IgnoredAny>,
}

/// By kind of connection; null = back to the defaults.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, bound = "T: Deserialize<'de>")]
struct ByProfile<T> {
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<T>)]
    oauth: Option<Option<T>>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<T>)]
    apikey: Option<Option<T>>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<T>)]
    local: Option<Option<T>>,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ProfilePatch {
    transient_cooldown: Option<i64>,
    rate_limit_cooldown: Option<i64>,
    max_backoff_level: Option<i64>,
    circuit_breaker_threshold: Option<i64>,
    circuit_breaker_reset: Option<i64>,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct StaticCeilingsPatch {
    requests_per_minute: Option<i64>,
    min_time_between_requests: Option<i64>,
    concurrent_requests: Option<i64>,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RequestQueuePatch {
    auto_enable_api_key_providers: Option<bool>,
    requests_per_minute: Option<i64>,
    min_time_between_requests_ms: Option<i64>,
    concurrent_requests: Option<i64>,
    max_wait_ms: Option<i64>,
    max_queue_depth: Option<i64>,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CooldownPatch {
    base_cooldown_ms: Option<i64>,
    use_upstream_retry_hints: Option<bool>,
    max_backoff_steps: Option<i64>,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ThresholdsPatch {
    failure_threshold: Option<i64>,
    degradation_threshold: Option<i64>,
    reset_timeout_ms: Option<i64>,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WaitPatch {
    enabled: Option<bool>,
    max_retries: Option<i64>,
    max_retry_wait_sec: Option<i64>,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LockoutPatch {
    enabled: Option<bool>,
    error_codes: Option<Vec<u16>>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<i64>)]
    base_cooldown_ms: Option<Option<i64>>,
    max_cooldown_ms: Option<i64>,
    max_backoff_steps: Option<i64>,
    use_exponential_backoff: Option<bool>,
}

impl ResiliencePatch {
    /// Puts what is given over the settings; what cannot be is told.
    pub(super) fn merge(&self, settings: &mut RuntimeSettings, problems: &mut Problems) {
        self.merge_profiles(settings, problems);
        self.merge_queue(settings, problems);
        if let Some(wait) = &self.wait_for_cooldown {
            put(&mut settings.resilience.wait_for_cooldown, wait.enabled);
            let field = |name| format!("waitForCooldown.{name}");
            number(&mut settings.request_retry, &field("maxRetries"), wait.max_retries, 0..=10, problems);
            let most = &mut settings.max_retry_interval_sec;
            number(most, &field("maxRetryWaitSec"), wait.max_retry_wait_sec, 0..=600, problems);
        }
        if let Some(lockout) = &self.model_lockout {
            lockout.merge(settings, problems);
        }
    }

    fn merge_profiles(&self, settings: &mut RuntimeSettings, problems: &mut Problems) {
        let is_explicit = self.profiles.is_none();
        let choices = &mut settings.resilience.profiles;
        for (kind, name) in [
            (ResilienceProfile::Oauth, "oauth"),
            (ResilienceProfile::Apikey, "apikey"),
            (ResilienceProfile::Local, "local"),
        ] {
            let current = choices.values(kind);
            let choice = match kind {
                ResilienceProfile::Oauth => &mut choices.oauth,
                ResilienceProfile::Apikey => &mut choices.apikey,
                ResilienceProfile::Local => &mut choices.local,
            };
            let profile = of(self.profiles.as_ref(), kind);
            let cooldown = of(self.connection_cooldown.as_ref(), kind);
            let breaker = of(self.provider_breaker.as_ref(), kind);
            forget(choice, profile, cooldown, breaker);
            let (profile, cooldown, breaker) = (given(profile), given(cooldown), given(breaker));
            let mut both = |target: &mut Option<u32>,
                            current: u32,
                            range: RangeInclusive<i64>,
                            by_profile: (&str, Option<i64>),
                            by_mechanism: (&str, Option<i64>)| {
                let by_profile = (format!("profiles.{name}.{}", by_profile.0), by_profile.1);
                let by_mechanism = (by_mechanism.0.replace('*', name), by_mechanism.1);
                if let Some(value) = one_of(current, &range, by_profile, by_mechanism, is_explicit, problems)
                {
                    *target = Some(value);
                }
            };
            both(
                &mut choice.transient_cooldown_ms,
                current.transient_cooldown_ms,
                DURATION,
                ("transientCooldown", profile.and_then(|it| it.transient_cooldown)),
                ("connectionCooldown.*.baseCooldownMs", cooldown.and_then(|it| it.base_cooldown_ms)),
            );
            both(
                &mut choice.rate_limit_cooldown_ms,
                current.rate_limit_cooldown_ms,
                DURATION,
                ("rateLimitCooldown", profile.and_then(|it| it.rate_limit_cooldown)),
                ("", None),
            );
            both(
                &mut choice.max_backoff_level,
                current.max_backoff_level,
                STEPS,
                ("maxBackoffLevel", profile.and_then(|it| it.max_backoff_level)),
                ("connectionCooldown.*.maxBackoffSteps", cooldown.and_then(|it| it.max_backoff_steps)),
            );
            both(
                &mut choice.failure_threshold,
                current.failure_threshold,
                THRESHOLD,
                ("circuitBreakerThreshold", profile.and_then(|it| it.circuit_breaker_threshold)),
                ("providerBreaker.*.failureThreshold", breaker.and_then(|it| it.failure_threshold)),
            );
            both(
                &mut choice.degradation_threshold,
                current.degradation_threshold,
                THRESHOLD,
                ("", None),
                ("providerBreaker.*.degradationThreshold", breaker.and_then(|it| it.degradation_threshold)),
            );
            both(
                &mut choice.reset_timeout_ms,
                current.reset_timeout_ms,
                DURATION,
                ("circuitBreakerReset", profile.and_then(|it| it.circuit_breaker_reset)),
                ("providerBreaker.*.resetTimeoutMs", breaker.and_then(|it| it.reset_timeout_ms)),
            );
            if let Some(hints) = cooldown.and_then(|it| it.use_upstream_retry_hints)
                && hints != current.use_upstream_retry_hints
            {
                choice.use_upstream_retry_hints = Some(hints);
            }
        }
    }

    fn merge_queue(&self, settings: &mut RuntimeSettings, problems: &mut Problems) {
        let queue = &mut settings.resilience.request_queue;
        let (old, new) = (self.defaults.as_ref(), self.request_queue.as_ref());
        let mut both = |target: &mut u32, range: RangeInclusive<i64>, (a, old), (b, new)| {
            let (a, b): (&str, &str) = (a, b);
            let (a, b) = ((format!("defaults.{a}"), old), (format!("requestQueue.{b}"), new));
            if let Some(value) = one_of(*target, &range, a, b, false, problems) {
                *target = value;
            }
        };
        both(
            &mut queue.requests_per_minute,
            COUNT,
            ("requestsPerMinute", old.and_then(|it| it.requests_per_minute)),
            ("requestsPerMinute", new.and_then(|it| it.requests_per_minute)),
        );
        both(
            &mut queue.min_time_between_requests_ms,
            DURATION,
            ("minTimeBetweenRequests", old.and_then(|it| it.min_time_between_requests)),
            ("minTimeBetweenRequestsMs", new.and_then(|it| it.min_time_between_requests_ms)),
        );
        both(
            &mut queue.concurrent_requests,
            COUNT,
            ("concurrentRequests", old.and_then(|it| it.concurrent_requests)),
            ("concurrentRequests", new.and_then(|it| it.concurrent_requests)),
        );
        let Some(new) = new else { return };
        put(&mut queue.auto_enable_api_key_providers, new.auto_enable_api_key_providers);
        number(&mut queue.max_wait_ms, "requestQueue.maxWaitMs", new.max_wait_ms, 0..=600_000, problems);
        let depth = &mut queue.max_queue_depth;
        number(depth, "requestQueue.maxQueueDepth", new.max_queue_depth, 0..=100_000, problems);
    }
}

impl LockoutPatch {
    fn merge(&self, settings: &mut RuntimeSettings, problems: &mut Problems) {
        let lockout = &mut settings.resilience.model_lockout;
        put(&mut lockout.enabled, self.enabled);
        put(&mut lockout.use_exponential_backoff, self.use_exponential_backoff);
        if let Some(codes) = &self.error_codes {
            if codes.len() > MAX_CODES || codes.iter().any(|code| !(400..=599).contains(code)) {
                problems.add("modelLockout.errorCodes", "must be at most 200 statuses of 400 to 599");
            }
            lockout.error_codes.clone_from(codes);
            lockout.error_codes.sort_unstable();
            lockout.error_codes.dedup();
        }
        match self.base_cooldown_ms {
            Some(Some(base)) => {
                let mut value = 0;
                number(&mut value, "modelLockout.baseCooldownMs", Some(base), 1..=DAY_MS, problems);
                lockout.base_cooldown_ms = Some(value);
            }
            Some(None) => lockout.base_cooldown_ms = None,
            None => {}
        }
        let (most, steps) = (&mut lockout.max_cooldown_ms, &mut lockout.max_backoff_steps);
        number(most, "modelLockout.maxCooldownMs", self.max_cooldown_ms, 1..=DAY_MS, problems);
        number(steps, "modelLockout.maxBackoffSteps", self.max_backoff_steps, STEPS, problems);
    }
}

/// What a patch says of a kind of connection; the inner `None` = back to the defaults.
fn of<T>(patch: Option<&ByProfile<T>>, kind: ResilienceProfile) -> Option<Option<&T>> {
    let patch = patch?;
    let said = match kind {
        ResilienceProfile::Oauth => &patch.oauth,
        ResilienceProfile::Apikey => &patch.apikey,
        ResilienceProfile::Local => &patch.local,
    };
    said.as_ref().map(Option::as_ref)
}

fn given<T>(said: Option<Option<&T>>) -> Option<&T> {
    said.flatten()
}

/// Null = what was chosen is forgotten.
fn forget<A, B, C>(
    choice: &mut ProfileChoice,
    profile: Option<Option<&A>>,
    cooldown: Option<Option<&B>>,
    breaker: Option<Option<&C>>,
) {
    if matches!(profile, Some(None)) {
        *choice = ProfileChoice::default();
    }
    if matches!(cooldown, Some(None)) {
        choice.transient_cooldown_ms = None;
        choice.max_backoff_level = None;
        choice.use_upstream_retry_hints = None;
    }
    if matches!(breaker, Some(None)) {
        choice.failure_threshold = None;
        choice.degradation_threshold = None;
        choice.reset_timeout_ms = None;
    }
}

/// The value of a member that has two names. Where both are given, as by a client that sends back all it got, the one
/// counts that is not what is in force; two new ones must be equal. What comes back as it was is no choice, unless
/// `is_explicit`: then nothing but this view was sent.
fn one_of(
    current: u32,
    range: &RangeInclusive<i64>,
    (first_name, first): (String, Option<i64>),
    (second_name, second): (String, Option<i64>),
    is_explicit: bool,
    problems: &mut Problems,
) -> Option<u32> {
    let mut check = |name: &str, value: Option<i64>| -> Option<u32> {
        let value = value?;
        if !range.contains(&value) {
            problems.add(name, format!("must be {} to {}", range.start(), range.end()));
            return None;
        }
        u32::try_from(value).ok()
    };
    match (check(&first_name, first), check(&second_name, second)) {
        (None, second) => second.filter(|second| is_explicit || *second != current),
        (Some(first), None) => (first != current).then_some(first),
        (Some(first), Some(second)) if first == second || second == current => {
            (first != current).then_some(first)
        }
        (Some(first), Some(second)) if first == current => Some(second),
        (Some(first), Some(second)) => {
            problems.add(
                &second_name,
                format!(
                    "is {second}, but `{first_name}`, which means the same, is {first}; send one of them"
                ),
            );
            None
        }
    }
}

fn put<T>(target: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *target = value;
    }
}

fn number(
    target: &mut u32,
    field: &str,
    value: Option<i64>,
    range: RangeInclusive<i64>,
    problems: &mut Problems,
) {
    problems.range(field, value, &range);
    if let Some(value) = value.and_then(|value| u32::try_from(value).ok()) {
        *target = value;
    }
}
