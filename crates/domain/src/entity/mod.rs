//! Rows as the operator wrote them. One file per entity; every timestamp is UTC in milliseconds since the epoch.

mod accounts;
mod api_key;
mod auto;
mod budget;
mod call_bodies;
mod chain;
mod combo;
mod connection;
mod custom_model;
mod id;
mod key_rights;
mod node;
mod policy;
mod pool_key;
mod quota_checks;
mod quota_window;
mod reset;
mod resilience;
mod settings;
mod similarity;
mod transforms;

pub use accounts::{Discount, KeyPool, ProviderStrategies, ProviderStrategy};
pub use api_key::{ApiKey, KeyHash, Scope};
pub use auto::{AutoWeights, BudgetFallback, ModePack, Number, RouterStrategy};
pub use budget::{Budget, BudgetSettings, Interval, OnExceeded};
pub use call_bodies::{CallBodySettings, KeepBodies};
pub use chain::{ChainLink, FallbackChain, MAX_CHAINS, MAX_LINKS, MAX_MAPPINGS, ModelComboMapping};
pub use combo::{Combo, ComboConfig, CountsCleared, Goal, MAX_STEPS, ResponseValidation, Step, When};
pub use connection::{AuthType, Connection, ConnectionOptions, ConnectionStatus, TestStatus};
pub use custom_model::CustomModel;
pub use id::{ApiKeyId, ComboId, ConnectionId};
pub use key_rights::{AccessSchedule, KeyRights};
pub use node::{Node, NodeType};
pub use policy::{MAX_POLICIES, Policy, PolicyActions, PolicyConditions, PolicyKind, PolicyMode};
pub use pool_key::{PoolKey, key_parts};
pub use quota_checks::QuotaCheckSettings;
pub use quota_window::{MAX_QUOTA_WINDOWS, QuotaWindow};
pub use reset::Reset;
pub use resilience::{
    ModelLockoutSettings, ProfileChoice, ProfileChoices, ProfileValues, RequestQueueSettings,
    ResilienceSettings,
};
pub use settings::{RuntimeSettings, SseKeepalive};
pub use similarity::{KeySimilarity, SimilarityMode, SimilaritySettings};
pub use transforms::{ComboTransforms, SystemPromptSettings, ThinkingLevel, ThinkingMode, ThinkingSettings};

use crate::price::PriceBook;

/// Everything the snapshot is built from.
#[derive(Debug, Clone, Default)]
pub struct Entities {
    /// Increases with every change of any of the rows.
    pub revision: u64,
    /// Accounts.
    pub connections: Vec<Connection>,
    /// User-defined endpoints.
    pub nodes: Vec<Node>,
    /// Models the operator added to providers.
    pub custom_models: Vec<CustomModel>,
    /// Client keys, revoked ones left out.
    pub api_keys: Vec<ApiKey>,
    /// Names for several targets.
    pub combos: Vec<Combo>,
    /// Combos whose counts were cleared, and when; under `routing::auto::POOL` those that all share that choose among every
    /// model.
    pub counts_cleared: Vec<(ComboId, CountsCleared)>,
    /// Other names for models and combos, each with what it stands for, the oldest first; `*` and `?` make a pattern of it.
    pub aliases: Vec<(String, String)>,
    /// What keys, or everybody together, may spend.
    pub budgets: Vec<Budget>,
    /// Prices that are not of the catalogue.
    pub prices: PriceBook,
    /// What the operator forbids, limits or prefers.
    pub policies: Vec<Policy>,
    /// Who else has a model.
    pub fallback_chains: Vec<FallbackChain>,
    /// Names of models that mean a combo.
    pub combo_mappings: Vec<ModelComboMapping>,
    /// Settings.
    pub settings: RuntimeSettings,
}
