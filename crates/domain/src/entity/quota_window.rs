//! A window of an account's plan, as the operator writes it down.

use serde::{Deserialize, Serialize};

/// Most windows of an account.
pub const MAX_QUOTA_WINDOWS: usize = 8;

/// How much an account may be used within a window of time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct QuotaWindow {
    /// `1h` to `24h`, `daily`, `weekly` or `monthly`.
    pub window: String,
    /// Most requests that are answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<u64>,
    /// Most tokens, of prompts and answers together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// One of the times at which the vendor counts anew, RFC 3339. Without it hours begin with the first request, and the
    /// others as the calendar has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resets_at: Option<String>,
}
