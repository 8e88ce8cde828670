//! How often vendors are asked what is left of an account.

use serde::{Deserialize, Serialize};

/// Asking vendors that have an API for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QuotaCheckSettings {
    /// Whether they are asked unless a person wants to know.
    pub enabled: bool,
    /// Minutes from one time to the next.
    pub interval_min: u32,
}

impl Default for QuotaCheckSettings {
    fn default() -> Self {
        Self { enabled: true, interval_min: 70 }
    }
}

impl QuotaCheckSettings {
    /// From one time to the next, in milliseconds, a tenth earlier or later. `jitter` is in -1.0..=1.0.
    pub fn pause_ms(self, jitter: f64) -> i64 {
        let minutes = f64::from(self.interval_min.max(1));
        #[allow(clippy::cast_possible_truncation, reason = "at most some days")]
        let pause = (minutes * 60_000.0 * jitter.mul_add(0.1, 1.0)) as i64;
        pause
    }
}
