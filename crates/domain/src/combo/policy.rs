//! How a combo is carried out, with everything decided that its configuration leaves open.

use std::sync::Arc;
use std::time::Duration;

use omniroute_provider::ProviderId;

use super::{MAX_DEPTH, USUAL_DEPTH, Validation, ValidationError};
use crate::entity::{ComboConfig, Number, RuntimeSettings};

/// How much of an account must be used before a summary is made where nobody says.
const USUAL_THRESHOLD: f64 = 0.85;

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
        let validation = config.response_validation.map(Validation::new).transpose();
        let validation = validation.unwrap_or_else(|error| {
            problems.push(error);
            None
        });
        let ms =
            |value: Option<u32>, otherwise: u32| Duration::from_millis(u64::from(value.unwrap_or(otherwise)));
        Self {
            max_retries: config.max_retries.unwrap_or(1),
            retry_delay: ms(config.retry_delay_ms, 2_000),
            fallback_delay: ms(config.fallback_delay_ms, 0),
            failover_before_retry: config.failover_before_retry.unwrap_or(true),
            max_set_retries: config.max_set_retries.unwrap_or(0),
            set_retry_delay: ms(config.set_retry_delay_ms, 2_000),
            target_timeout: ms(config.target_timeout_ms, 120_000),
            timeout: ms(config.timeout_ms, 600_000),
            stop_on_content_filter: config.stop_on_content_filter.unwrap_or(true),
            sticky_requests: config.sticky_requests.unwrap_or(1).max(1),
            hedge_delay: config.hedging.unwrap_or(false).then(|| ms(config.hedge_delay_ms, 500)),
            race_width: config.race_width.unwrap_or(2).max(1) as usize,
            fusion_width: config.fusion_width.unwrap_or(3).max(1) as usize,
            judge_model: config.judge_model.map(Arc::from),
            handoff: HandoffRules {
                threshold: config.handoff_threshold.unwrap_or_else(|| USUAL_THRESHOLD.into()),
                model: config.handoff_model.filter(|name| !name.is_empty()).map(Arc::from),
                providers: config.handoff_providers.unwrap_or_default().into(),
                turns: config.max_messages_for_summary.unwrap_or(30).max(1) as usize,
                is_always: config.handoff_always.unwrap_or(false),
            },
            queue: QueueLimits {
                places: config.concurrency_per_model.unwrap_or(3).max(1),
                depth: config.queue_depth.unwrap_or(20) as usize,
                patience: ms(config.queue_timeout_ms, 30_000),
            },
            max_depth: config.max_combo_depth.unwrap_or(USUAL_DEPTH).clamp(1, MAX_DEPTH) as usize,
            tracks_metrics: config.track_metrics.unwrap_or(true),
            validation: validation.map(Arc::new),
        }
    }
}
