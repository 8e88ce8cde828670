//! How failures are answered: cooldowns, locks, breakers, queues. A part of the settings.
//!
//! Only what the operator chose is stored; the rest follows the defaults here, also those of a later version. The
//! management API shows the same values in two shapes (profiles, and by mechanism).
//!
//! Two values of the same kind are members of [`super::RuntimeSettings`] itself, because `/api/settings` has them too:
//! `request_retry` and `max_retry_interval_sec`, how often and how long a request waits for a cooldown.

use omniroute_provider::spec::ResilienceProfile;
use serde::{Deserialize, Serialize};

/// How failures are answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResilienceSettings {
    /// Durations and thresholds by kind of connection, where they differ from the defaults.
    pub profiles: ProfileChoices,
    /// How requests are held back before the upstream has to refuse them.
    pub request_queue: RequestQueueSettings,
    /// Whether a request waits when every account is cooling down, as often and as long as the settings say.
    pub wait_for_cooldown: bool,
    /// Locks of a model on one account.
    pub model_lockout: ModelLockoutSettings,
}

impl Default for ResilienceSettings {
    fn default() -> Self {
        Self {
            profiles: ProfileChoices::default(),
            request_queue: RequestQueueSettings::default(),
            wait_for_cooldown: true,
            model_lockout: ModelLockoutSettings::default(),
        }
    }
}

/// What the operator chose, by kind of connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProfileChoices {
    /// Subscriptions behind OAuth.
    pub oauth: ProfileChoice,
    /// Metered keys.
    pub apikey: ProfileChoice,
    /// The operator's own machines.
    pub local: ProfileChoice,
}

/// What the operator chose for one kind of connection; `None` = the default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProfileChoice {
    /// First cooldown after a passing failure, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transient_cooldown_ms: Option<u32>,
    /// First cooldown after a rate limit, in milliseconds; 0 = one second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit_cooldown_ms: Option<u32>,
    /// How often a cooldown doubles.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_backoff_level: Option<u32>,
    /// Whether the upstream's own word on when to come back counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_upstream_retry_hints: Option<bool>,
    /// Failures after which a provider is not asked for a while.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_threshold: Option<u32>,
    /// Failures after which it is shown as degraded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub degradation_threshold: Option<u32>,
    /// How long it is not asked, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reset_timeout_ms: Option<u32>,
}

/// The values in force for one kind of connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProfileValues {
    /// First cooldown after a passing failure, in milliseconds.
    pub transient_cooldown_ms: u32,
    /// First cooldown after a rate limit, in milliseconds; 0 = one second.
    pub rate_limit_cooldown_ms: u32,
    /// How often a cooldown doubles.
    pub max_backoff_level: u32,
    /// Whether the upstream's own word on when to come back counts.
    pub use_upstream_retry_hints: bool,
    /// Failures after which a provider is not asked for a while.
    pub failure_threshold: u32,
    /// Failures after which it is shown as degraded.
    pub degradation_threshold: u32,
    /// How long it is not asked, in milliseconds.
    pub reset_timeout_ms: u32,
}

/// How requests are held back before the upstream has to refuse them. 0 = no limit of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RequestQueueSettings {
    /// Whether connections with a key are held back unless they say otherwise.
    pub auto_enable_api_key_providers: bool,
    /// Most requests per minute and connection.
    pub requests_per_minute: u32,
    /// Least time between two requests of a connection, in milliseconds.
    pub min_time_between_requests_ms: u32,
    /// Most requests of a connection at once.
    pub concurrent_requests: u32,
    /// How long a request waits for its turn, in milliseconds.
    pub max_wait_ms: u32,
    /// How many requests of a connection wait.
    pub max_queue_depth: u32,
}

impl Default for RequestQueueSettings {
    fn default() -> Self {
        Self {
            auto_enable_api_key_providers: true,
            requests_per_minute: 0,
            min_time_between_requests_ms: 0,
            concurrent_requests: 0,
            max_wait_ms: 15_000,
            max_queue_depth: 100,
        }
    }
}

/// Locks of a model on one account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ModelLockoutSettings {
    /// Whether models are locked at all.
    pub enabled: bool,
    /// Statuses for which the members below count; other failures keep the durations of their class.
    pub error_codes: Vec<u16>,
    /// First duration in milliseconds; `None` = that of the failure's class.
    pub base_cooldown_ms: Option<u32>,
    /// The longest, in milliseconds.
    pub max_cooldown_ms: u32,
    /// How often it doubles.
    pub max_backoff_steps: u32,
    /// Whether it doubles.
    pub use_exponential_backoff: bool,
}

impl Default for ModelLockoutSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            error_codes: vec![403, 404, 429, 502, 503, 504],
            base_cooldown_ms: None,
            max_cooldown_ms: 1_800_000,
            max_backoff_steps: 10,
            use_exponential_backoff: true,
        }
    }
}

impl ProfileChoices {
    /// What was chosen for a kind of connection.
    pub const fn of(&self, profile: ResilienceProfile) -> &ProfileChoice {
        match profile {
            ResilienceProfile::Oauth => &self.oauth,
            ResilienceProfile::Apikey => &self.apikey,
            ResilienceProfile::Local => &self.local,
        }
    }

    /// The values in force for a kind of connection.
    pub fn values(&self, profile: ResilienceProfile) -> ProfileValues {
        let (chosen, default) = (self.of(profile), ProfileValues::default_of(profile));
        ProfileValues {
            transient_cooldown_ms: chosen.transient_cooldown_ms.unwrap_or(default.transient_cooldown_ms),
            rate_limit_cooldown_ms: chosen.rate_limit_cooldown_ms.unwrap_or(default.rate_limit_cooldown_ms),
            max_backoff_level: chosen.max_backoff_level.unwrap_or(default.max_backoff_level),
            use_upstream_retry_hints: chosen
                .use_upstream_retry_hints
                .unwrap_or(default.use_upstream_retry_hints),
            failure_threshold: chosen.failure_threshold.unwrap_or(default.failure_threshold),
            degradation_threshold: chosen.degradation_threshold.unwrap_or(default.degradation_threshold),
            reset_timeout_ms: chosen.reset_timeout_ms.unwrap_or(default.reset_timeout_ms),
        }
    }
}

impl ProfileChoice {
    /// Whether the operator said anything about the breaker.
    pub const fn names_breaker(&self) -> bool {
        self.failure_threshold.is_some()
            || self.degradation_threshold.is_some()
            || self.reset_timeout_ms.is_some()
    }
}

impl ProfileValues {
    /// The values of a kind of connection when nobody chose any.
    pub const fn default_of(profile: ResilienceProfile) -> Self {
        match profile {
            ResilienceProfile::Oauth => Self {
                transient_cooldown_ms: 5_000,
                rate_limit_cooldown_ms: 60_000,
                max_backoff_level: 8,
                use_upstream_retry_hints: true,
                failure_threshold: 8,
                degradation_threshold: 5,
                reset_timeout_ms: 60_000,
            },
            ResilienceProfile::Apikey => Self {
                transient_cooldown_ms: 3_000,
                rate_limit_cooldown_ms: 0,
                max_backoff_level: 5,
                use_upstream_retry_hints: true,
                failure_threshold: 12,
                degradation_threshold: 7,
                reset_timeout_ms: 30_000,
            },
            ResilienceProfile::Local => Self {
                transient_cooldown_ms: 2_000,
                rate_limit_cooldown_ms: 5_000,
                max_backoff_level: 3,
                use_upstream_retry_hints: true,
                failure_threshold: 2,
                degradation_threshold: 2,
                reset_timeout_ms: 15_000,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_chosen_is_stored_and_the_rest_follows_the_defaults() {
        let mut settings = ResilienceSettings::default();
        settings.profiles.oauth.failure_threshold = Some(3);
        let text = serde_json::to_string(&settings.profiles).expect("it is plain data");
        assert_eq!(text, r#"{"oauth":{"failureThreshold":3},"apikey":{},"local":{}}"#);
        let read: ResilienceSettings =
            serde_json::from_str(&format!(r#"{{"profiles":{text},"modelLockout":{{"baseCooldownMs":5}}}}"#))
                .expect("members may be absent");
        let oauth = read.profiles.values(ResilienceProfile::Oauth);
        assert_eq!((oauth.failure_threshold, oauth.degradation_threshold), (3, 5));
        assert_eq!(read.model_lockout.error_codes, ModelLockoutSettings::default().error_codes);
        assert_eq!(read.request_queue.max_wait_ms, 15_000);
        assert!(read.profiles.oauth.names_breaker() && !read.profiles.local.names_breaker());
    }
}
