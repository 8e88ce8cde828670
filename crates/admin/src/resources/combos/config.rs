//! How combos are carried out, as it is sent and shown: the `config` of one, and what holds for those that say nothing.

use omniroute_domain::combo::{self, MAX_DEPTH, Validation};
use omniroute_domain::entity::{ComboConfig, ResponseValidation};
use omniroute_domain::resolve::{self, MAX_MODEL_LENGTH, ResolveError};
use omniroute_domain::snapshot::Snapshot;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::auto::{self, Fallback, Pack, Router, WeightsView};
use crate::resources::present;
use crate::state::Admin;
use crate::validation::Problems;

/// Most that may be used of an account before a summary is made.
const MAX_THRESHOLD: f64 = 0.94;
/// Most providers whose conversations are handed over.
const MAX_PROVIDERS: usize = 100;
/// Most targets that are asked at once.
const MAX_WIDTH: u32 = 8;

macro_rules! config {
    ($($(#[$doc:meta])* $name:ident: $kind:ty,)+) => {
        /// How a combo is carried out. What is absent or null is as in the defaults.
        #[derive(Deserialize, Serialize, ToSchema, Default, Clone)]
        #[serde(rename_all = "camelCase", default)]
        pub(crate) struct ConfigView {
            $($(#[$doc])* #[serde(skip_serializing_if = "Option::is_none")] pub(super) $name: Option<$kind>,)+
        }

        /// How combos are carried out that say nothing else. What is null has no value: nothing is asked of answers, a
        /// model is found by the strategy, weights are those of the pack.
        #[derive(Serialize, ToSchema)]
        #[serde(rename_all = "camelCase")]
        pub(super) struct ComboDefaultValues {
            /// The strategy of combos that are made without one.
            pub(super) strategy: String,
            $($(#[$doc])* $name: Option<$kind>,)+
        }

        impl ComboDefaultValues {
            #[allow(clippy::useless_conversion, reason = "most members are the same on both sides")]
            pub(super) fn new(strategy: String, config: ComboConfig) -> Self {
                Self { strategy, $($name: config.$name.map(Into::into),)+ }
            }
        }

        /// What changes in how combos are carried out: null takes back what was said, what is absent stays, and so does what
        /// is as it is in force.
        #[derive(Deserialize, ToSchema)]
        #[serde(rename_all = "camelCase")]
        pub(super) struct ComboDefaultValuesPatch {
            /// The strategy of combos that are made without one from now on; null = `priority`.
            #[serde(default, deserialize_with = "present")]
            #[schema(value_type = Option<String>)]
            pub(super) strategy: Option<Option<String>>,
            $(
                $(#[$doc])*
                #[serde(default, deserialize_with = "present")]
                #[schema(value_type = Option<$kind>)]
                $name: Option<Option<$kind>>,
            )+
        }

        impl ComboDefaultValuesPatch {
            /// What is said anew.
            pub(super) fn said(&self) -> ConfigView {
                ConfigView { $($name: self.$name.clone().flatten(),)+ }
            }

            /// What the operator says with it. Who sends back all that is shown chooses what is another there, and not all of it.
            #[allow(clippy::useless_conversion, reason = "most members are the same on both sides")]
            pub(super) fn over(self, mut own: ComboConfig) -> ComboConfig {
                let shown = own.clone().over(combo::built_in());
                $(if let Some(said) = self.$name { choose(&mut own.$name, said.map(Into::into), &shown.$name); })+
                own
            }
        }

        impl From<ComboConfig> for ConfigView {
            #[allow(clippy::useless_conversion, reason = "most members are the same on both sides")]
            fn from(config: ComboConfig) -> Self {
                Self { $($name: config.$name.map(Into::into),)+ }
            }
        }

        impl From<ConfigView> for ComboConfig {
            #[allow(clippy::useless_conversion, reason = "most members are the same on both sides")]
            fn from(config: ConfigView) -> Self {
                Self { $($name: config.$name.map(Into::into),)+ }
            }
        }
    };
}

/// Takes what was said of a member, unless it is what is in force.
pub(super) fn choose<T: PartialEq>(own: &mut Option<T>, said: Option<T>, in_force: &Option<T>) {
    if said != *in_force {
        *own = said;
    }
}

config! {
    /// Further tries of a target after a passing failure (1).
    max_retries: u32,
    /// Pause before such a try (2,000).
    retry_delay_ms: u32,
    /// Pause before the next target (0).
    fallback_delay_ms: u32,
    /// Whether all targets are tried once before any is tried again (true).
    failover_before_retry: bool,
    /// How often the whole list is gone through again (0).
    max_set_retries: u32,
    /// Pause before that (2,000).
    set_retry_delay_ms: u32,
    /// How long a target may take to its first content while another is left (120,000).
    target_timeout_ms: u32,
    /// How long all may take together to the first content (600,000).
    timeout_ms: u32,
    /// Whether a refusal for its content ends the request (true).
    stop_on_content_filter: bool,
    /// Requests that stay with one start before round-robin moves on (1).
    sticky_requests: u32,
    /// Whether the next target is asked too when one is silent for a while (false).
    hedging: bool,
    /// For how long (500).
    hedge_delay_ms: u32,
    /// How many targets a `race` begins with (2).
    race_width: u32,
    /// How many targets of a `fusion` answer (3).
    fusion_width: u32,
    /// The model that makes a reply of their answers; the first of them where there is none.
    judge_model: String,
    /// For `context-relay`: how much of an account must be used before a summary is made, 0 to 0.94 (0.85).
    handoff_threshold: f64,
    /// For `context-relay`: the model that makes it; the one that answered where there is none.
    handoff_model: String,
    /// For `context-relay`: only for conversations at these providers; at all where there are none.
    handoff_providers: Vec<String>,
    /// For `context-relay`: how many messages are summed up, the latest (30).
    max_messages_for_summary: u32,
    /// For `context-relay`: whether the next account is told also where the request brings everything (false).
    handoff_always: bool,
    /// For `auto`: weights of factors, instead of those of the pack; brought to 1 together.
    weights: WeightsView,
    /// For `auto`: weights that belong together.
    mode_pack: Pack,
    /// For `auto`: share of requests that go to any candidate, 0 to 1 (0.05).
    exploration_rate: f64,
    /// For `auto`: most that a request may be expected to cost, in USD (1,000).
    budget_cap: f64,
    /// For `auto`: what becomes of a request that is too expensive everywhere, `cheapest` (default) or `strict`.
    budget_fallback: Fallback,
    /// For `auto`: by what it chooses, `rules` (default), `cost`, `latency`, `lkgp` or `sla`.
    router_strategy: Router,
    /// For `auto` with `sla`: the latency that 95 of 100 answers keep, in milliseconds.
    sla_p95_ms: u32,
    /// Most requests at once on each target, for `round-robin` (3).
    concurrency_per_model: u32,
    /// How long a request may wait for a place there (30,000).
    queue_timeout_ms: u32,
    /// How many may wait (20).
    queue_depth: u32,
    /// How deep combos may stand within each other; the outermost counts (3).
    max_combo_depth: u32,
    /// Whether requests are counted (true).
    track_metrics: bool,
    /// What a whole answer must be like so that it counts as one.
    response_validation: ValidationView,
}

/// What an answer must be like: all that is given must hold for its text. A member that is not known is refused: a rule with
/// a typing error in its name would hold for every answer.
#[derive(Deserialize, Serialize, ToSchema, Default, Clone)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct ValidationView {
    /// At least this many characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    min_chars: Option<u32>,
    /// A regular expression that must match some of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    must_match: Option<String>,
    /// One that must not.
    #[serde(skip_serializing_if = "Option::is_none")]
    must_not_match: Option<String>,
    /// It is JSON that follows this schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    json_schema: Option<serde_json::Value>,
}

impl From<ValidationView> for ResponseValidation {
    fn from(view: ValidationView) -> Self {
        let ValidationView { min_chars, must_match, must_not_match, json_schema } = view;
        Self { min_chars, must_match, must_not_match, json_schema }
    }
}

impl From<ResponseValidation> for ValidationView {
    fn from(rules: ResponseValidation) -> Self {
        let ResponseValidation { min_chars, must_match, must_not_match, json_schema } = rules;
        Self { min_chars, must_match, must_not_match, json_schema }
    }
}

impl ConfigView {
    /// Notes what is out of bounds.
    pub(crate) fn check(&self, field: &str, problems: &mut Problems) {
        let mut range =
            |name: &str, value, allowed| problems.range(&format!("{field}.{name}"), value, &allowed);
        range("maxRetries", self.max_retries, 0..=10);
        range("retryDelayMs", self.retry_delay_ms, 0..=60_000);
        range("fallbackDelayMs", self.fallback_delay_ms, 0..=60_000);
        range("maxSetRetries", self.max_set_retries, 0..=5);
        range("setRetryDelayMs", self.set_retry_delay_ms, 0..=60_000);
        range("targetTimeoutMs", self.target_timeout_ms, 100..=3_600_000);
        range("timeoutMs", self.timeout_ms, 100..=3_600_000);
        range("stickyRequests", self.sticky_requests, 1..=1_000);
        range("hedgeDelayMs", self.hedge_delay_ms, 1..=60_000);
        range("raceWidth", self.race_width, 1..=MAX_WIDTH);
        range("fusionWidth", self.fusion_width, 1..=MAX_WIDTH);
        range("concurrencyPerModel", self.concurrency_per_model, 1..=10_000);
        range("queueTimeoutMs", self.queue_timeout_ms, 0..=600_000);
        range("queueDepth", self.queue_depth, 0..=10_000);
        range("maxComboDepth", self.max_combo_depth, 1..=MAX_DEPTH);
        if let Some(rules) = &self.response_validation {
            problems.range(
                &format!("{field}.responseValidation.minChars"),
                rules.min_chars,
                &(1..=1_000_000),
            );
            if let Err(error) = Validation::new(rules.clone().into()) {
                problems.impossible(&format!("{field}.responseValidation.{}", error.member), error.reason);
            }
        }
        if let Some(model) = &self.judge_model
            && (model.trim().is_empty() || model.len() > MAX_MODEL_LENGTH)
        {
            problems.add(&format!("{field}.judgeModel"), "must have 1 to 256 bytes");
        }
        self.check_handoff(field, problems);
        auto::check(self, field, problems);
    }

    fn check_handoff(&self, field: &str, problems: &mut Problems) {
        if self.handoff_threshold.is_some_and(|share| !(0.0..=MAX_THRESHOLD).contains(&share)) {
            let message = format!("must be 0 to {MAX_THRESHOLD}: from 0.95 on it is too late for a summary");
            problems.add(&format!("{field}.handoffThreshold"), message);
        }
        // An empty text is as good as none.
        if self.handoff_model.as_ref().is_some_and(|model| model.len() > MAX_MODEL_LENGTH) {
            problems.add(&format!("{field}.handoffModel"), "must have 256 bytes at most");
        }
        if let Some(providers) = &self.handoff_providers {
            problems.list(&format!("{field}.handoffProviders"), providers, MAX_PROVIDERS);
        }
        problems.range(&format!("{field}.maxMessagesForSummary"), self.max_messages_for_summary, &(1..=200));
    }

    /// Notes names of models and providers that nobody bears.
    pub(super) fn check_names(&self, field: &str, admin: &Admin, problems: &mut Problems) {
        let snapshot = admin.live.load();
        // An empty text is as good as none.
        let handoff = self.handoff_model.as_ref().filter(|name| !name.is_empty());
        for (member, name) in [("judgeModel", self.judge_model.as_ref()), ("handoffModel", handoff)] {
            if let Some(why) = name.and_then(|name| no_model(&snapshot, name)) {
                problems.add(&format!("{field}.{member}"), why);
            }
        }
        for (at, name) in self.handoff_providers.iter().flatten().enumerate() {
            if snapshot.by_prefix(name).is_none() && admin.catalog.provider(name).is_none() {
                let message = format!("`{name}` is neither a provider nor a node");
                problems.add(&format!("{field}.handoffProviders[{at}]"), message);
            }
        }
    }

    /// Notes what concerns the whole combo, and cannot be different for the targets of one provider.
    pub(crate) fn check_override(&self, field: &str, problems: &mut Problems) {
        self.check(field, problems);
        let of_all = [
            ("failoverBeforeRetry", self.failover_before_retry.is_some()),
            ("maxSetRetries", self.max_set_retries.is_some()),
            ("setRetryDelayMs", self.set_retry_delay_ms.is_some()),
            ("timeoutMs", self.timeout_ms.is_some()),
            ("stickyRequests", self.sticky_requests.is_some()),
            ("raceWidth", self.race_width.is_some()),
            ("fusionWidth", self.fusion_width.is_some()),
            ("judgeModel", self.judge_model.is_some()),
            ("handoffThreshold", self.handoff_threshold.is_some()),
            ("handoffModel", self.handoff_model.is_some()),
            ("handoffProviders", self.handoff_providers.is_some()),
            ("maxMessagesForSummary", self.max_messages_for_summary.is_some()),
            ("handoffAlways", self.handoff_always.is_some()),
            ("maxComboDepth", self.max_combo_depth.is_some()),
            ("trackMetrics", self.track_metrics.is_some()),
            ("weights", self.weights.is_some()),
            ("modePack", self.mode_pack.is_some()),
            ("explorationRate", self.exploration_rate.is_some()),
            ("budgetCap", self.budget_cap.is_some()),
            ("budgetFallback", self.budget_fallback.is_some()),
            ("routerStrategy", self.router_strategy.is_some()),
            ("slaP95Ms", self.sla_p95_ms.is_some()),
        ];
        for (name, _) in of_all.iter().filter(|(_, is_given)| *is_given) {
            problems.add(
                &format!("{field}.{name}"),
                "concerns the whole combo; set it there or in comboDefaults",
            );
        }
    }
}

/// Why a name can be no model's. One whose provider has no account yet may become one.
fn no_model(snapshot: &Snapshot, name: &str) -> Option<String> {
    if snapshot.combo(name).is_some() || name.starts_with("combo/") {
        return Some(format!("`{name}` is a combo; it must be a model"));
    }
    match resolve::model(snapshot, name) {
        Ok(_) | Err(ResolveError::NoCredentials { .. }) => None,
        Err(ResolveError::NotFound { inactive, .. }) if !inactive.is_empty() => None,
        Err(error) => Some(format!("`{name}` is nobody's model: {error}")),
    }
}
