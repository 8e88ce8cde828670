//! The settings in both shapes: by profile, and by mechanism. Two views of the same stored values.

use omniroute_domain::entity::{ProfileValues, RequestQueueSettings, RuntimeSettings};
use omniroute_provider::spec::ResilienceProfile;
use serde::Serialize;
use utoipa::ToSchema;

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Values {
    /// By kind of connection.
    profiles: ByProfile<ProfileView>,
    /// Static ceilings of every connection; 0 = none.
    defaults: CeilingsView,
    request_queue: RequestQueueView,
    connection_cooldown: ByProfile<CooldownView>,
    provider_breaker: ByProfile<ThresholdsView>,
    wait_for_cooldown: WaitView,
    model_lockout: LockoutView,
}

/// One value for each kind of connection.
#[derive(Serialize, ToSchema)]
pub(crate) struct ByProfile<T> {
    /// Subscriptions behind OAuth.
    oauth: T,
    /// Metered keys.
    apikey: T,
    /// The operator's own machines.
    local: T,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ProfileView {
    /// First cooldown after a passing failure, in milliseconds.
    transient_cooldown: u32,
    /// First cooldown after a rate limit, in milliseconds; 0 = one second.
    rate_limit_cooldown: u32,
    /// How often a cooldown doubles.
    max_backoff_level: u32,
    /// Failures after which a provider is not asked for a while.
    circuit_breaker_threshold: u32,
    /// How long it is not asked, in milliseconds.
    circuit_breaker_reset: u32,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CeilingsView {
    requests_per_minute: u32,
    /// In milliseconds.
    min_time_between_requests: u32,
    concurrent_requests: u32,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RequestQueueView {
    auto_enable_api_key_providers: bool,
    requests_per_minute: u32,
    min_time_between_requests_ms: u32,
    concurrent_requests: u32,
    max_wait_ms: u32,
    max_queue_depth: u32,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CooldownView {
    base_cooldown_ms: u32,
    use_upstream_retry_hints: bool,
    max_backoff_steps: u32,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ThresholdsView {
    failure_threshold: u32,
    degradation_threshold: u32,
    reset_timeout_ms: u32,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WaitView {
    enabled: bool,
    /// The setting `requestRetry`.
    max_retries: u32,
    /// The setting `maxRetryIntervalSec`.
    max_retry_wait_sec: u32,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LockoutView {
    enabled: bool,
    /// Statuses for which the other members count.
    error_codes: Vec<u16>,
    /// Null = the duration of the failure's class.
    base_cooldown_ms: Option<u32>,
    max_cooldown_ms: u32,
    max_backoff_steps: u32,
    use_exponential_backoff: bool,
}

impl Values {
    pub(super) fn of(settings: &RuntimeSettings) -> Self {
        let resilience = &settings.resilience;
        let queue = &resilience.request_queue;
        let lockout = &resilience.model_lockout;
        let each = |kind| resilience.profiles.values(kind);
        Self {
            profiles: ByProfile::of(|kind| ProfileView::of(each(kind))),
            defaults: CeilingsView {
                requests_per_minute: queue.requests_per_minute,
                min_time_between_requests: queue.min_time_between_requests_ms,
                concurrent_requests: queue.concurrent_requests,
            },
            request_queue: RequestQueueView::of(*queue),
            connection_cooldown: ByProfile::of(|kind| {
                let values = each(kind);
                CooldownView {
                    base_cooldown_ms: values.transient_cooldown_ms,
                    use_upstream_retry_hints: values.use_upstream_retry_hints,
                    max_backoff_steps: values.max_backoff_level,
                }
            }),
            provider_breaker: ByProfile::of(|kind| {
                let values = each(kind);
                ThresholdsView {
                    failure_threshold: values.failure_threshold,
                    degradation_threshold: values.degradation_threshold,
                    reset_timeout_ms: values.reset_timeout_ms,
                }
            }),
            wait_for_cooldown: WaitView {
                enabled: resilience.wait_for_cooldown,
                max_retries: settings.request_retry,
                max_retry_wait_sec: settings.max_retry_interval_sec,
            },
            model_lockout: LockoutView {
                enabled: lockout.enabled,
                error_codes: lockout.error_codes.clone(),
                base_cooldown_ms: lockout.base_cooldown_ms,
                max_cooldown_ms: lockout.max_cooldown_ms,
                max_backoff_steps: lockout.max_backoff_steps,
                use_exponential_backoff: lockout.use_exponential_backoff,
            },
        }
    }
}

impl<T> ByProfile<T> {
    fn of(value: impl Fn(ResilienceProfile) -> T) -> Self {
        Self {
            oauth: value(ResilienceProfile::Oauth),
            apikey: value(ResilienceProfile::Apikey),
            local: value(ResilienceProfile::Local),
        }
    }
}

impl ProfileView {
    fn of(values: ProfileValues) -> Self {
        Self {
            transient_cooldown: values.transient_cooldown_ms,
            rate_limit_cooldown: values.rate_limit_cooldown_ms,
            max_backoff_level: values.max_backoff_level,
            circuit_breaker_threshold: values.failure_threshold,
            circuit_breaker_reset: values.reset_timeout_ms,
        }
    }
}

impl RequestQueueView {
    fn of(queue: RequestQueueSettings) -> Self {
        Self {
            auto_enable_api_key_providers: queue.auto_enable_api_key_providers,
            requests_per_minute: queue.requests_per_minute,
            min_time_between_requests_ms: queue.min_time_between_requests_ms,
            concurrent_requests: queue.concurrent_requests,
            max_wait_ms: queue.max_wait_ms,
            max_queue_depth: queue.max_queue_depth,
        }
    }
}
