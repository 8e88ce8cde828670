//! Rights of a client key that are kept together: combos, times, choices made for it.

use serde::{Deserialize, Serialize};

use super::{KeySimilarity, ThinkingSettings};

/// Rights of a client key beside its lists and limits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KeyRights {
    /// Patterns of combos it may use; empty means all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_combos: Vec<String>,
    /// When it may be used; absent = always.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_schedule: Option<AccessSchedule>,
    /// Whether a name that several providers have is settled for it, rather than refused.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub auto_resolve: bool,
    /// Whether its requests neither get kept answers nor leave any.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub no_cache: bool,
    /// Whether a question of it that is close to another one gets that one's answer; comes before the setting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub similarity: Option<KeySimilarity>,
    /// Comes before the setting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thinking_budget: Option<ThinkingSettings>,
}

/// When a key may be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessSchedule {
    /// Whether it counts.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Time of day: `08:00`.
    pub from: String,
    /// Time of day; over midnight too.
    pub until: String,
    /// 1 is Monday, 7 is Sunday; empty means every day.
    #[serde(default)]
    pub days: Vec<u8>,
    /// Time zone of both; absent = UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tz: Option<String>,
}

const fn yes() -> bool {
    true
}
