//! Settings that are changed while the gateway runs. Those of the process start are in the binary.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    BudgetSettings, CallBodySettings, ComboConfig, Number, ProviderStrategies, QuotaCheckSettings,
    ResilienceSettings, SimilaritySettings, SystemPromptSettings, ThinkingSettings,
};

/// `/api/settings`. Absent members have their defaults; the stored form is this struct as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RuntimeSettings {
    /// Whether the management API needs a sign-in from loopback too.
    pub require_login: bool,
    /// In which order the accounts of a provider are tried; a name of `routing::STRATEGIES`.
    pub fallback_strategy: String,
    /// The strategy of combos that are made without one; a name of `routing::STRATEGIES`.
    pub combo_strategy: Option<String>,
    /// How combos are carried out, where they say nothing else.
    pub combo_defaults: ComboConfig,
    /// How much requests reason.
    pub thinking_budget: ThinkingSettings,
    /// System text around that of clients.
    pub system_prompt: SystemPromptSettings,
    /// Where targets of one provider differ from that, by the provider's id.
    pub provider_overrides: BTreeMap<String, ComboConfig>,
    /// Requests on one account before round-robin moves on.
    pub sticky_round_robin_limit: u32,
    /// The same two, where they differ for a provider.
    pub provider_strategies: ProviderStrategies,
    /// How long a conversation that is silent stays with its account, in milliseconds; 0 = not at all.
    pub session_affinity_ttl_ms: u64,
    /// Providers in order of preference, for bare model names that several have.
    pub provider_order: Vec<String>,
    /// Providers that are never used.
    pub blocked_providers: Vec<String>,
    /// How often a request waits for a cooldown to end when every account is cooling down.
    pub request_retry: u32,
    /// Longest such wait, in seconds.
    pub max_retry_interval_sec: u32,
    /// How failures are answered.
    pub resilience: ResilienceSettings,
    /// What keeps silent OpenAI streams alive.
    pub sse_keepalive: SseKeepalive,
    /// Whether upstreams that cache nothing unasked are asked to, where a client of another dialect could not.
    pub auto_cache: bool,
    /// Whether a model that does not exist any more is asked for by the name of the one that came after it.
    pub legacy_model_aliases: bool,
    /// Whether requests that ask for the same answer get the one that was given before.
    pub semantic_cache_enabled: bool,
    /// How long an answer is kept for them, in milliseconds.
    pub semantic_cache_ttl_ms: u32,
    /// Most answers kept in memory.
    pub semantic_cache_max_size: u32,
    /// Whether those that ask nearly the same get it too.
    pub semantic_cache_similarity: SimilaritySettings,
    /// How long after an answer the same request gets the same answer, in milliseconds; 0 = never.
    pub idempotency_window_ms: u32,
    /// Limit of management request bodies, in megabytes.
    pub max_body_size_mb: u32,
    /// Where people reach this gateway, for redirects and the host check.
    pub public_url: Option<String>,
    /// Days until log rows are deleted.
    pub log_retention_days: u32,
    /// Most rows in the request log.
    pub call_log_max_entries: u32,
    /// Bodies in the request log.
    pub call_log_bodies: CallBodySettings,
    /// Share of the requests whose routing is written down, between 0 and 1.
    pub routing_decision_sample_rate: Number,
    /// Name of this instance, for people.
    pub instance_name: Option<String>,
    /// How budgets count.
    pub budgets: BudgetSettings,
    /// How often vendors are asked what is left.
    pub quota_checks: QuotaCheckSettings,
}

impl Default for RuntimeSettings {
    fn default() -> Self {
        Self {
            require_login: true,
            fallback_strategy: "fill-first".into(),
            combo_strategy: None,
            combo_defaults: ComboConfig::default(),
            thinking_budget: ThinkingSettings::default(),
            system_prompt: SystemPromptSettings::default(),
            provider_overrides: BTreeMap::new(),
            sticky_round_robin_limit: 3,
            provider_strategies: ProviderStrategies::new(),
            session_affinity_ttl_ms: 30 * 60 * 1_000,
            provider_order: Vec::new(),
            blocked_providers: Vec::new(),
            request_retry: 1,
            max_retry_interval_sec: 30,
            resilience: ResilienceSettings::default(),
            sse_keepalive: SseKeepalive::Comment,
            auto_cache: true,
            legacy_model_aliases: true,
            semantic_cache_enabled: true,
            semantic_cache_ttl_ms: 1_800_000,
            semantic_cache_max_size: 500,
            semantic_cache_similarity: SimilaritySettings::default(),
            idempotency_window_ms: 5_000,
            max_body_size_mb: 10,
            public_url: None,
            log_retention_days: 90,
            call_log_max_entries: 100_000,
            call_log_bodies: CallBodySettings::default(),
            routing_decision_sample_rate: Number::from(1.0),
            instance_name: None,
            budgets: BudgetSettings::default(),
            quota_checks: QuotaCheckSettings::default(),
        }
    }
}

/// What keeps silent OpenAI streams alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SseKeepalive {
    /// A comment line.
    Comment,
    /// A chunk without choices, for clients that read every line as JSON.
    Chunk,
    /// Nothing.
    Off,
}
