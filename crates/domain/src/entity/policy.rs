//! A policy: what the operator forbids, limits or prefers, and for which requests.

use serde::{Deserialize, Serialize};

/// Most policies.
pub const MAX_POLICIES: usize = 500;

/// One policy.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Row id.
    pub id: String,
    /// Name for people; clients that are refused are told it.
    pub name: String,
    /// What it is about.
    pub kind: PolicyKind,
    /// Whether it counts.
    pub enabled: bool,
    /// Whether it is carried out, or only noted what it would do.
    pub mode: PolicyMode,
    /// The lower, the earlier.
    pub priority: i64,
    /// Which requests it is for.
    pub conditions: PolicyConditions,
    /// What it does to them.
    pub actions: PolicyActions,
    /// Creation.
    pub created_at: i64,
    /// Last change.
    pub updated_at: i64,
}

/// What a policy is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PolicyKind {
    /// Who serves a request.
    Routing,
    /// What may be asked for.
    Access,
    /// What it may cost.
    Budget,
}

impl PolicyKind {
    /// The word stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Routing => "routing",
            Self::Access => "access",
            Self::Budget => "budget",
        }
    }

    /// The kind with this name.
    pub fn of_word(word: &str) -> Option<Self> {
        [Self::Routing, Self::Access, Self::Budget].into_iter().find(|kind| kind.as_str() == word)
    }
}

/// What becomes of what a policy says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PolicyMode {
    /// It is done.
    #[default]
    Enforce,
    /// It is noted beside the request, which goes on as if there were no such policy.
    Observe,
}

impl PolicyMode {
    /// The word stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Observe => "observe",
        }
    }

    /// The mode with this name.
    pub fn of_word(word: &str) -> Option<Self> {
        [Self::Enforce, Self::Observe].into_iter().find(|mode| mode.as_str() == word)
    }
}

/// Which requests a policy is for: all that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyConditions {
    /// A pattern over the requested name and `provider/model`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_pattern: Option<String>,
    /// The client's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_key_id: Option<String>,
    /// Id or prefix of the provider that would be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// `chat`, `messages`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Time of day, UTC: `08:00-18:00`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hour_range: Option<String>,
}

/// What a policy does.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyActions {
    /// Providers to ask first, where there is a choice.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prefer_provider: Vec<String>,
    /// Patterns of models that are refused.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub block_model: Vec<String>,
    /// Most tokens of answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u64>,
    /// Most that a request may cost, by estimate, in US dollars.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_cost_usd: Option<f64>,
    /// The model that is asked for instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rewrite_model: Option<String>,
    /// Labels that an account must have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub require_tags: Vec<String>,
}
