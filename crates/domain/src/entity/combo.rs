//! A combo: one name for several targets, and how to choose among them.

use serde::{Deserialize, Serialize};

use super::{AutoWeights, BudgetFallback, ComboId, ComboTransforms, ModePack, Number, RouterStrategy};

/// Most steps of a combo.
pub const MAX_STEPS: usize = 128;

/// One name for several targets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Combo {
    /// Row id.
    pub id: ComboId,
    /// What clients ask for. Unique without regard to case.
    pub name: String,
    /// In which order the steps are tried; a name of `routing::STRATEGIES`.
    pub strategy: String,
    /// The targets, in the operator's order.
    pub steps: Vec<Step>,
    /// Where it differs from the defaults.
    pub config: ComboConfig,
    /// What it changes in requests.
    pub transforms: ComboTransforms,
    /// Left out of lists of models; it can still be asked for.
    pub is_hidden: bool,
    /// Whether it can be asked for.
    pub is_active: bool,
    /// Its place among the combos.
    pub sort_order: i64,
    /// Creation.
    pub created_at: i64,
    /// Last change.
    pub updated_at: i64,
}

impl Combo {
    /// One that is on and listed, made at `now_ms`, with everything as by default.
    pub fn new(
        id: impl Into<ComboId>,
        name: impl Into<String>,
        strategy: impl Into<String>,
        steps: Vec<Step>,
        now_ms: i64,
    ) -> Self {
        Self {
            id: id.into(),
            name: name.into(),
            strategy: strategy.into(),
            steps,
            config: ComboConfig::default(),
            transforms: ComboTransforms::default(),
            is_hidden: false,
            is_active: true,
            sort_order: 0,
            created_at: now_ms,
            updated_at: now_ms,
        }
    }
}

/// When the counts of a combo were cleared last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountsCleared {
    /// What came until then does not count.
    pub at: i64,
    /// The revision of the configuration that says so, by which two at the same time are apart.
    pub revision: u64,
}

/// A target of a combo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Unique within the combo; what is counted is counted under it.
    pub id: String,
    /// Where it leads.
    #[serde(flatten)]
    pub goal: Goal,
    /// Its share, for strategies that weigh.
    #[serde(default)]
    pub weight: u32,
    /// Name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Which requests it is for; absent = all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<When>,
    /// What a step of a pipeline makes of the answer of the one before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
}

impl Step {
    /// One for all requests that leads there, without a weight.
    pub fn new(id: impl Into<String>, goal: Goal) -> Self {
        Self { id: id.into(), goal, weight: 0, label: None, when: None, template: None }
    }

    /// The same to a model with any of its accounts.
    pub fn to_model(id: impl Into<String>, model: impl Into<String>) -> Self {
        Self::new(id, Goal::Model { model: model.into(), connection_id: None })
    }
}

/// Where a step leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum Goal {
    /// To a model.
    Model {
        /// As a client would ask for it.
        model: String,
        /// The only account to be used.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        connection_id: Option<String>,
    },
    /// To the steps of another combo, in its own order.
    ComboRef {
        /// Its name.
        combo_name: String,
    },
}

/// Which requests a step is for: all that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct When {
    /// At least this many tokens of prompt, by estimate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_tokens: Option<u64>,
    /// At most this many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u64>,
    /// Whether the request offers tools.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub has_tools: Option<bool>,
    /// Whether it holds images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub has_images: Option<bool>,
    /// Whether it asks for a stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    /// Time of day, `08:00-18:00`; over midnight too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hours: Option<String>,
    /// The time zone of `hours`; UTC where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tz: Option<String>,
}

/// How a combo is carried out. Absent members are those of the defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ComboConfig {
    /// Further tries of a target after a passing failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_retries: Option<u32>,
    /// Pause before such a try, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_delay_ms: Option<u32>,
    /// Pause before the next target, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback_delay_ms: Option<u32>,
    /// Whether all targets are tried once before any is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failover_before_retry: Option<bool>,
    /// How often the whole list is gone through again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_set_retries: Option<u32>,
    /// Pause before that, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set_retry_delay_ms: Option<u32>,
    /// How long a target may take to its first content while another is left, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_timeout_ms: Option<u32>,
    /// How long all may take together to the first content, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u32>,
    /// Whether a refusal for its content ends the request; else the next target is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_on_content_filter: Option<bool>,
    /// Requests that stay with one start before round-robin moves on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sticky_requests: Option<u32>,
    /// Whether the next target is asked too when one is silent for a while.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hedging: Option<bool>,
    /// For how long, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hedge_delay_ms: Option<u32>,
    /// How many targets a race begins with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub race_width: Option<u32>,
    /// How many targets of a fusion answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fusion_width: Option<u32>,
    /// The model that makes a reply of their answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub judge_model: Option<String>,
    /// For `context-relay`: how much of an account must be used before a summary is made, as a share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handoff_threshold: Option<Number>,
    /// For `context-relay`: the model that makes it; absent = the one that answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handoff_model: Option<String>,
    /// For `context-relay`: only for conversations at these providers; absent or empty = at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handoff_providers: Option<Vec<String>>,
    /// For `context-relay`: how many messages are summed up, the latest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_messages_for_summary: Option<u32>,
    /// For `context-relay`: whether the next account is told also where the request brings everything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handoff_always: Option<bool>,
    /// For `auto`: weights of factors, instead of those of the pack.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<AutoWeights>,
    /// For `auto`: weights that belong together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode_pack: Option<ModePack>,
    /// For `auto`: share of requests that go to any candidate, to find out about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exploration_rate: Option<Number>,
    /// For `auto`: most that a request may be expected to cost, in US dollars.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget_cap: Option<Number>,
    /// For `auto`: what becomes of a request that is too expensive everywhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget_fallback: Option<BudgetFallback>,
    /// For `auto`: by what it chooses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub router_strategy: Option<RouterStrategy>,
    /// For `auto` with `sla`: the latency that 95 of 100 answers keep, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sla_p95_ms: Option<u32>,
    /// Most requests at once on each target, for strategies that go round.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency_per_model: Option<u32>,
    /// How long a request may wait for a place there, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_timeout_ms: Option<u32>,
    /// How many may wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_depth: Option<u32>,
    /// How deep combos may stand within each other; the outermost counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_combo_depth: Option<u32>,
    /// Whether requests are counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub track_metrics: Option<bool>,
    /// What a whole answer must be like so that it counts as one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_validation: Option<ResponseValidation>,
}

/// What an answer must be like: all that is given must hold for its text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ResponseValidation {
    /// At least this many characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_chars: Option<u32>,
    /// A pattern that must occur.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub must_match: Option<String>,
    /// A pattern that must not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub must_not_match: Option<String>,
    /// The text is JSON that follows this schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub json_schema: Option<serde_json::Value>,
}

impl ComboConfig {
    /// What is given here, else what `base` says.
    #[must_use]
    pub fn over(self, base: Self) -> Self {
        Self {
            max_retries: self.max_retries.or(base.max_retries),
            retry_delay_ms: self.retry_delay_ms.or(base.retry_delay_ms),
            fallback_delay_ms: self.fallback_delay_ms.or(base.fallback_delay_ms),
            failover_before_retry: self.failover_before_retry.or(base.failover_before_retry),
            max_set_retries: self.max_set_retries.or(base.max_set_retries),
            set_retry_delay_ms: self.set_retry_delay_ms.or(base.set_retry_delay_ms),
            target_timeout_ms: self.target_timeout_ms.or(base.target_timeout_ms),
            timeout_ms: self.timeout_ms.or(base.timeout_ms),
            stop_on_content_filter: self.stop_on_content_filter.or(base.stop_on_content_filter),
            sticky_requests: self.sticky_requests.or(base.sticky_requests),
            hedging: self.hedging.or(base.hedging),
            hedge_delay_ms: self.hedge_delay_ms.or(base.hedge_delay_ms),
            race_width: self.race_width.or(base.race_width),
            fusion_width: self.fusion_width.or(base.fusion_width),
            judge_model: self.judge_model.or(base.judge_model),
            handoff_threshold: self.handoff_threshold.or(base.handoff_threshold),
            handoff_model: self.handoff_model.or(base.handoff_model),
            handoff_providers: self.handoff_providers.or(base.handoff_providers),
            max_messages_for_summary: self.max_messages_for_summary.or(base.max_messages_for_summary),
            handoff_always: self.handoff_always.or(base.handoff_always),
            weights: self.weights.or(base.weights),
            mode_pack: self.mode_pack.or(base.mode_pack),
            exploration_rate: self.exploration_rate.or(base.exploration_rate),
            budget_cap: self.budget_cap.or(base.budget_cap),
            budget_fallback: self.budget_fallback.or(base.budget_fallback),
            router_strategy: self.router_strategy.or(base.router_strategy),
            sla_p95_ms: self.sla_p95_ms.or(base.sla_p95_ms),
            concurrency_per_model: self.concurrency_per_model.or(base.concurrency_per_model),
            queue_timeout_ms: self.queue_timeout_ms.or(base.queue_timeout_ms),
            queue_depth: self.queue_depth.or(base.queue_depth),
            max_combo_depth: self.max_combo_depth.or(base.max_combo_depth),
            track_metrics: self.track_metrics.or(base.track_metrics),
            response_validation: self.response_validation.or(base.response_validation),
        }
    }
}
