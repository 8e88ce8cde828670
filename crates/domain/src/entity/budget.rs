//! What a key, or everybody together, may spend.

use serde::{Deserialize, Serialize};

use super::ApiKeyId;

/// A budget. Money is in billionths of a US dollar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    /// Whose; `None` = everybody together.
    pub key: Option<ApiKeyId>,
    /// Most in a day.
    pub daily_nano: Option<i64>,
    /// Most in a week, from Monday.
    pub weekly_nano: Option<i64>,
    /// Most in a month.
    pub monthly_nano: Option<i64>,
    /// Most ever.
    pub total_nano: Option<i64>,
    /// From which share of a limit on there is a warning, in thousandths.
    pub warning_permille: u16,
    /// The window that is shown first.
    pub reset_interval: Interval,
    /// When windows begin, in minutes after midnight.
    pub reset_minute: u16,
    /// Whether requests over a limit are refused; else there is only a warning.
    pub hard_stop: bool,
    /// Whether models without a price are refused; else they count nothing.
    pub block_unpriced: bool,
    /// What becomes of requests that it has no room for.
    pub on_exceeded: OnExceeded,
}

impl Budget {
    /// A budget without a limit.
    pub const fn unlimited(key: Option<ApiKeyId>) -> Self {
        Self {
            key,
            daily_nano: None,
            weekly_nano: None,
            monthly_nano: None,
            total_nano: None,
            warning_permille: 800,
            reset_interval: Interval::Daily,
            reset_minute: 0,
            hard_stop: true,
            block_unpriced: false,
            on_exceeded: OnExceeded::Block,
        }
    }
}

/// What becomes of requests that a budget has no room for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OnExceeded {
    /// They are refused.
    Block,
    /// They go to the combo of this name, as far as there is room for that one.
    Downgrade(String),
    /// They go to those of their targets that are known to cost nothing.
    FreeOnly,
}

impl OnExceeded {
    const DOWNGRADE: &str = "downgrade:";

    /// From the words in rows and API fields.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "block" => Some(Self::Block),
            "free-only" => Some(Self::FreeOnly),
            _ => {
                let combo = text.strip_prefix(Self::DOWNGRADE)?.trim();
                (!combo.is_empty()).then(|| Self::Downgrade(combo.to_owned()))
            }
        }
    }
}

impl std::fmt::Display for OnExceeded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Block => f.write_str("block"),
            Self::Downgrade(combo) => write!(f, "{}{combo}", Self::DOWNGRADE),
            Self::FreeOnly => f.write_str("free-only"),
        }
    }
}

/// A window that repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Interval {
    /// A day.
    Daily,
    /// A week, from Monday.
    Weekly,
    /// A month, from its first day.
    Monthly,
}

impl Interval {
    /// The word in rows and API fields.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
        }
    }

    /// From that word.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Daily, Self::Weekly, Self::Monthly].into_iter().find(|interval| interval.as_str() == text)
    }
}

/// How budgets count, for all of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BudgetSettings {
    /// The time zone in which days, weeks and months begin.
    pub tz: String,
}

impl Default for BudgetSettings {
    fn default() -> Self {
        Self { tz: "UTC".into() }
    }
}
