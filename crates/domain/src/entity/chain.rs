//! Other providers for a model, and other meanings of names of models.

use serde::{Deserialize, Serialize};

/// Most chains.
pub const MAX_CHAINS: usize = 2_000;
/// Most links of a chain.
pub const MAX_LINKS: usize = 32;
/// Most mappings.
pub const MAX_MAPPINGS: usize = 2_000;

/// Where a model is asked for when its provider is out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FallbackChain {
    /// The model, as clients ask for it or as the provider knows it.
    pub model: String,
    /// Who else has it.
    pub links: Vec<ChainLink>,
}

/// A provider that stands in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChainLink {
    /// Id or prefix.
    pub provider: String,
    /// The lower, the earlier.
    #[serde(default)]
    pub priority: i64,
    /// Whether it is asked.
    #[serde(default = "yes")]
    pub enabled: bool,
}

const fn yes() -> bool {
    true
}

/// Names of models that mean a combo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelComboMapping {
    /// Row id.
    pub id: String,
    /// A pattern over names of models.
    pub pattern: String,
    /// The combo.
    pub combo_id: super::ComboId,
    /// The lower, the earlier.
    pub priority: i64,
    /// Whether it counts.
    pub enabled: bool,
    /// For people.
    pub description: Option<String>,
    /// Creation.
    pub created_at: i64,
    /// Last change.
    pub updated_at: i64,
}
