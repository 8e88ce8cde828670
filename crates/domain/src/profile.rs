//! How long a failure keeps an account or a model out of use: the durations of one kind of connection.

use omniroute_provider::{Failure, FailureKind, spec::ResilienceProfile};

use crate::breaker::BreakerPolicy;
use crate::entity::{ModelLockoutSettings, ProfileValues, ResilienceSettings};

const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
/// The longest that an upstream may ask to be left alone, but for quotas.
const LONGEST_HINT: i64 = 30 * MINUTE;
/// The longest for quotas.
const LONGEST_QUOTA_HINT: i64 = 24 * HOUR;

/// Durations of one kind of connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    values: ProfileValues,
    lockout: ModelLockoutSettings,
}

impl Profile {
    /// The profile of a kind of connection when the operator chose nothing.
    pub fn of(kind: ResilienceProfile) -> Self {
        Self::new(&ResilienceSettings::default(), kind)
    }

    /// The profile of a kind of connection.
    pub fn new(settings: &ResilienceSettings, kind: ResilienceProfile) -> Self {
        Self { values: settings.profiles.values(kind), lockout: settings.model_lockout.clone() }
    }

    /// When the provider's breaker opens, and for how long.
    pub fn breaker(&self) -> BreakerPolicy {
        BreakerPolicy {
            failure_threshold: self.values.failure_threshold.max(1),
            degradation_threshold: self.values.degradation_threshold.max(1),
            reset_timeout_ms: i64::from(self.values.reset_timeout_ms),
        }
    }

    /// How long the upstream itself wants to be left alone, if its word counts.
    pub fn hint_ms(&self, failure: &Failure) -> Option<i64> {
        let hint = failure.retry_after.filter(|_| self.values.use_upstream_retry_hints)?;
        let cap = if failure.kind == FailureKind::QuotaSpent { LONGEST_QUOTA_HINT } else { LONGEST_HINT };
        Some(i64::try_from(hint.as_millis()).unwrap_or(i64::MAX).clamp(1, cap))
    }

    /// How long a failure keeps a model out of use on an account; `None` where models are not locked. An upstream's own
    /// hint wins, shorter or longer. `level` counts the failures in a row, from 0.
    pub fn lock_ms(&self, failure: &Failure, level: u32, jitter: f64) -> Option<i64> {
        let lockout = &self.lockout;
        if !lockout.enabled {
            return None;
        }
        let is_listed = failure.upstream.status.is_some_and(|status| lockout.error_codes.contains(&status));
        if !is_listed || self.hint_ms(failure).is_some() {
            return Some(self.cooldown_ms(failure, level, jitter));
        }
        let level = if lockout.use_exponential_backoff { level.min(lockout.max_backoff_steps) } else { 0 };
        let cap = i64::from(lockout.max_cooldown_ms);
        Some(match lockout.base_cooldown_ms {
            Some(base) => moved(doubled(i64::from(base), level, cap), jitter).min(cap),
            None => self.cooldown_ms(failure, level, jitter).min(cap),
        })
    }

    /// How long a failure keeps an account out of use. An upstream's own hint wins, shorter or longer.
    pub fn cooldown_ms(&self, failure: &Failure, level: u32, jitter: f64) -> i64 {
        if let Some(hint) = self.hint_ms(failure) {
            return hint;
        }
        let values = &self.values;
        let level = level.min(values.max_backoff_level);
        let rate_limit = match values.rate_limit_cooldown_ms {
            0 => SECOND,
            chosen => i64::from(chosen),
        };
        let (base, cap) = match failure.kind {
            FailureKind::RateLimited => (rate_limit, 30 * MINUTE),
            FailureKind::Overloaded => (rate_limit, 2 * MINUTE),
            FailureKind::QuotaSpent => return HOUR,
            FailureKind::AuthRejected | FailureKind::Forbidden | FailureKind::Banned => return 2 * MINUTE,
            FailureKind::ModelMissing => return if level == 0 { 2 * MINUTE } else { 10 * MINUTE },
            FailureKind::NotAllowed => return 5 * SECOND,
            FailureKind::AddressBlocked => return 30 * SECOND,
            FailureKind::Unavailable
            | FailureKind::Timeout
            | FailureKind::Connect
            | FailureKind::Empty
            | FailureKind::Protocol
            | FailureKind::Unknown => (i64::from(values.transient_cooldown_ms), 2 * MINUTE),
            FailureKind::ContextTooLong
            | FailureKind::Refused
            | FailureKind::BadRequest
            | FailureKind::InvalidResponse
            | FailureKind::ClientAbort => {
                return 0;
            }
        };
        moved(doubled(base, level, cap), jitter).min(cap)
    }
}

/// `base` doubled `level` times, but not beyond `cap`.
fn doubled(base: i64, level: u32, cap: i64) -> i64 {
    base.saturating_mul(1 << level.min(20)).min(cap)
}

/// Moved by up to a tenth, so that what failed together does not come back together.
fn moved(plain: i64, jitter: f64) -> i64 {
    #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
    let moved = (plain as f64 * (1.0 + jitter.clamp(-1.0, 1.0) / 10.0)) as i64;
    moved.max(1)
}
