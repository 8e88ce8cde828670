//! What the operator adds to and takes from requests: thinking, system text, tools.

use serde::{Deserialize, Serialize};

/// How much requests reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ThinkingSettings {
    /// What is done about it.
    pub mode: ThinkingMode,
    /// Tokens, for the mode `custom`; 0 = no thinking.
    pub custom_budget: u32,
    /// Where the mode `adaptive` begins.
    pub effort_level: ThinkingLevel,
}

impl Default for ThinkingSettings {
    fn default() -> Self {
        Self { mode: ThinkingMode::Passthrough, custom_budget: 10_240, effort_level: ThinkingLevel::Medium }
    }
}

/// What is done about thinking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ThinkingMode {
    /// As the client says.
    Passthrough,
    /// As the model does by itself.
    Auto,
    /// So many tokens.
    Custom,
    /// More for longer conversations.
    Adaptive,
}

/// Where `adaptive` begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ThinkingLevel {
    /// No thinking.
    None,
    /// Little.
    Low,
    /// Some.
    Medium,
    /// Much.
    High,
    /// Very much.
    XHigh,
}

/// System text around that of the client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SystemPromptSettings {
    /// Whether it is added.
    pub enabled: bool,
    /// Before the client's.
    pub prefix_prompt: String,
    /// Behind it.
    pub suffix_prompt: String,
    /// Most characters of each.
    pub max_chars: u32,
}

impl Default for SystemPromptSettings {
    fn default() -> Self {
        Self { enabled: false, prefix_prompt: String::new(), suffix_prompt: String::new(), max_chars: 50_000 }
    }
}

/// What a combo changes in the requests that it passes on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ComboTransforms {
    /// Takes the place of the client's system text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_message: Option<String>,
    /// Only tools whose names match are passed on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_filter_regex: Option<String>,
    /// Labels that an account must have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub required_tags: Vec<String>,
    /// Comes before the setting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thinking_budget: Option<ThinkingSettings>,
}
