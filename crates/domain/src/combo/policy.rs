//! How a combo is carried out, with everything decided that its configuration leaves open.

use std::sync::Arc;
use std::time::Duration;

use omniroute_provider::ProviderId;

use super::{MAX_DEPTH, USUAL_DEPTH, Validation, ValidationError};
use crate::entity::{BudgetFallback, ComboConfig, Number, RouterStrategy, RuntimeSettings};
use crate::routing::auto;

/// How a combo is carried out where nobody says anything: the only place where that is written down. What is `None` has no
/// value of its own: no rules for answers, the weights of `auto` as they are with its pack.
pub fn built_in() -> ComboConfig {
    ComboConfig {
        max_retries: Some(1),
        retry_delay_ms: Some(2_000),
        fallback_delay_ms: Some(0),
        failover_before_retry: Some(true),
        max_set_retries: Some(0),
        set_retry_delay_ms: Some(2_000),
        target_timeout_ms: Some(120_000),
        timeout_ms: Some(600_000),
        stop_on_content_filter: Some(true),
        sticky_requests: Some(1),
        hedging: Some(false),
        hedge_delay_ms: Some(500),
        race_width: Some(2),
        fusion_width: Some(3),
        judge_model: None,
        handoff_threshold: Some(Number::from(0.85)),
        handoff_model: Some(String::new()),
        handoff_providers: Some(Vec::new()),
        max_messages_for_summary: Some(30),
        handoff_always: Some(false),
        weights: None,
        mode_pack: None,
        exploration_rate: Some(Number::from(auto::EXPLORATION)),
        budget_cap: Some(Number::from(auto::DEFAULT_CAP_USD)),
        budget_fallback: Some(BudgetFallback::default()),
        router_strategy: Some(RouterStrategy::default()),
        sla_p95_ms: None,
        concurrency_per_model: Some(3),
        queue_timeout_ms: Some(30_000),
        queue_depth: Some(20),
        max_combo_depth: Some(USUAL_DEPTH),
        track_metrics: Some(true),
        response_validation: None,
    }
}

/// How a combo is carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Further tries of a target after a passing failure.
    pub max_retries: u32,
    /// Pause before such a try.
    pub retry_delay: Duration,
    /// Pause before the next target.
    pub fallback_delay: Duration,
    /// Whether all targets are tried once before any is tried again.
    pub failover_before_retry: bool,
    /// How often the whole list is gone through again.
    pub max_set_retries: u32,
    /// Pause before that.
    pub set_retry_delay: Duration,
    /// How long a target may take to its first content while another is left.
    pub target_timeout: Duration,
    /// How long all may take together to the first content.
    pub timeout: Duration,
    /// Whether a refusal for its content ends the request.
    pub stop_on_content_filter: bool,
    /// Requests that stay with one start before round-robin moves on.
    pub sticky_requests: u32,
    /// How long a target may be silent before the next one is asked too; `None` = the next one has to wait.
    pub hedge_delay: Option<Duration>,
    /// How many targets a race begins with.
    pub race_width: usize,
    /// How many targets of a fusion answer.
    pub fusion_width: usize,
    /// The model that makes a reply of their answers; `None` = the first of them.
    pub judge_model: Option<Arc<str>>,
    /// When and how conversations are handed over, for strategies that do so.
    pub handoff: HandoffRules,
    /// Places of each target, for strategies that go round.
    pub queue: QueueLimits,
    /// How deep combos may stand within this one; itself counts.
    pub max_depth: usize,
    /// Whether requests are counted.
    pub tracks_metrics: bool,
    /// What a whole answer must be like so that it counts as one.
    pub validation: Option<Arc<Validation>>,
}

/// How many requests a target takes at once, and how many more may wait for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueLimits {
    /// At once.
    pub places: u32,
    /// In the queue.
    pub depth: usize,
    /// For how long.
    pub patience: Duration,
}

/// When a summary of a conversation is made, and when it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandoffRules {
    /// How much of an account must be used, as a share.
    pub threshold: Number,
    /// Who makes it; `None` = who answered.
    pub model: Option<Arc<str>>,
    /// Only at these providers, by id, alias or prefix; empty = at all.
    pub providers: Arc<[String]>,
    /// How many turns are summed up, the latest.
    pub turns: usize,
    /// Whether it is told also to requests that bring everything.
    pub is_always: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self::of(ComboConfig::default(), &mut Vec::new())
    }
}

impl Policy {
    /// The policy of a combo, and those where a target's provider makes a difference. What the combo says itself counts most.
    pub fn all_of(
        own: &ComboConfig,
        settings: &RuntimeSettings,
        problems: &mut Vec<ValidationError>,
    ) -> (Self, Vec<(ProviderId, Self)>) {
        let policy = Self::of(own.clone().over(settings.combo_defaults.clone()), problems);
        let overrides = settings.provider_overrides.iter().map(|(provider, config)| {
            let config = own.clone().over(config.clone()).over(settings.combo_defaults.clone());
            (ProviderId::from(provider.as_str()), Self::of(config, problems))
        });
        let overrides = overrides.collect();
        problems.dedup();
        (policy, overrides)
    }

    /// The policy of a configuration that the defaults of the operator lie under already. Rules for answers that make no
    /// sense are left out.
    pub fn of(config: ComboConfig, problems: &mut Vec<ValidationError>) -> Self {
        let config = config.over(built_in());
        let validation = config.response_validation.map(Validation::new).transpose();
        let validation = validation.unwrap_or_else(|error| {
            problems.push(error);
            None
        });
        // What nobody said is built in, so that no member is absent here.
        let count = |value: Option<u32>| value.unwrap_or_default();
        let ms = |value: Option<u32>| Duration::from_millis(u64::from(count(value)));
        let is = |value: Option<bool>| value.unwrap_or_default();
        Self {
            max_retries: count(config.max_retries),
            retry_delay: ms(config.retry_delay_ms),
            fallback_delay: ms(config.fallback_delay_ms),
            failover_before_retry: is(config.failover_before_retry),
            max_set_retries: count(config.max_set_retries),
            set_retry_delay: ms(config.set_retry_delay_ms),
            target_timeout: ms(config.target_timeout_ms),
            timeout: ms(config.timeout_ms),
            stop_on_content_filter: is(config.stop_on_content_filter),
            sticky_requests: count(config.sticky_requests).max(1),
            hedge_delay: is(config.hedging).then(|| ms(config.hedge_delay_ms)),
            race_width: count(config.race_width).max(1) as usize,
            fusion_width: count(config.fusion_width).max(1) as usize,
            judge_model: config.judge_model.map(Arc::from),
            handoff: HandoffRules {
                threshold: config.handoff_threshold.unwrap_or_else(|| 0.0.into()),
                model: config.handoff_model.filter(|name| !name.is_empty()).map(Arc::from),
                providers: config.handoff_providers.unwrap_or_default().into(),
                turns: count(config.max_messages_for_summary).max(1) as usize,
                is_always: is(config.handoff_always),
            },
            queue: QueueLimits {
                places: count(config.concurrency_per_model).max(1),
                depth: count(config.queue_depth) as usize,
                patience: ms(config.queue_timeout_ms),
            },
            max_depth: count(config.max_combo_depth).clamp(1, MAX_DEPTH) as usize,
            tracks_metrics: is(config.track_metrics),
            validation: validation.map(Arc::new),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_to_be_built_in_is_what_a_combo_without_words_does() {
        let policy = Policy::default();
        let shown = built_in();
        let ms = |value: Option<u32>| Duration::from_millis(u64::from(value.expect("has one")));
        assert_eq!(policy, Policy::of(shown.clone(), &mut Vec::new()));
        assert_eq!(
            (policy.max_retries, policy.retry_delay, policy.target_timeout, policy.timeout),
            (1, Duration::from_secs(2), Duration::from_secs(120), Duration::from_secs(600))
        );
        assert_eq!((ms(shown.timeout_ms), policy.handoff.threshold.get()), (policy.timeout, 0.85));
        assert_eq!(auto::Tuning::of(&shown), auto::Tuning::default());
        let hedged = ComboConfig { hedging: Some(true), ..ComboConfig::default() };
        assert_eq!(Policy::of(hedged, &mut Vec::new()).hedge_delay, Some(ms(shown.hedge_delay_ms)));
    }
}
