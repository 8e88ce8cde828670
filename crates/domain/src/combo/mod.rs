//! Combos as requests see them: one name, several targets, an order for each request.
//!
//! [`plan`] is pure: a snapshot, what is known of the request, what traffic found out, a time and random bits give one list
//! of targets, and the reason for each step that is not on it. Whether an account of a target can serve is found out when its
//! turn comes.

mod auto;
mod condition;
mod memory;
mod plan;
mod pool;
mod template;
mod traits;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

pub use condition::{Condition, ConditionError};
pub use memory::{ComboMark, ComboMemory};
pub use plan::{LeftOut, Place, Plan, Planned, RequestFacts, Rule, manner, needs_content, plan};
pub use pool::{MAX_POOL, Pool};
pub use template::{TemplateError, check as check_template, render};
pub use traits::Traits;

use crate::entity::{ComboConfig, ComboId, Goal};
use crate::resolve::{self, ResolveError, Target};
use crate::routing::{Stats, Strategy, Tuning};
use crate::snapshot::Snapshot;
use crate::transform::ComboRules;

/// How deep combos may stand within each other; the outermost counts.
pub const MAX_DEPTH: usize = 3;

/// A combo, ready to be asked.
pub struct ComboState {
    /// Its id.
    pub id: ComboId,
    /// What clients ask for.
    pub name: Arc<str>,
    /// The order of its steps.
    pub strategy: &'static dyn Strategy,
    /// How `auto` decides; `None` with any other strategy.
    pub auto: Option<Box<Tuning>>,
    /// Its steps, as the operator put them; shared by all that have every model for their steps.
    pub steps: Arc<Vec<StepState>>,
    /// How it is carried out.
    pub policy: Policy,
    /// What it changes in requests.
    pub rules: ComboRules,
    /// Left out of lists of models.
    pub is_hidden: bool,
    /// Its place among the combos.
    pub sort_order: i64,
    /// What traffic found out; survives a change of configuration.
    pub memory: Arc<ComboMemory>,
}

impl ComboState {
    /// Every model that it may lead to, whatever the request.
    pub fn targets(&self, snapshot: &Snapshot) -> Vec<Arc<Target>> {
        let mut targets = Vec::new();
        self.collect(snapshot, 1, &mut targets);
        targets
    }

    fn collect(&self, snapshot: &Snapshot, depth: usize, into: &mut Vec<Arc<Target>>) {
        for step in self.steps.iter() {
            match &step.goal {
                Goal::Model { .. } => into.extend(step.target(snapshot).into_iter().flatten().cloned()),
                Goal::ComboRef { combo_name } => {
                    if let Some(inner) = snapshot.combo(combo_name).filter(|_| depth < MAX_DEPTH) {
                        inner.collect(snapshot, depth + 1, into);
                    }
                }
            }
        }
    }

    /// The target that a request of which nothing is known would be sent to; takes nobody's turn.
    pub fn first_target(self: &Arc<Self>, snapshot: &Snapshot, now_ms: i64) -> Option<Arc<Target>> {
        let plan = plan(snapshot, self, &RequestFacts::default(), now_ms, 0, false);
        plan.targets.into_iter().next().map(|planned| planned.target)
    }
}

/// A step, ready to be tried.
pub struct StepState {
    /// Unique within its combo.
    pub id: Arc<str>,
    /// Its share.
    pub weight: u32,
    /// Which requests it is for.
    pub condition: Option<Condition>,
    /// Where it leads.
    pub goal: Goal,
    /// What it makes, in a pipeline, of the answer before it.
    pub template: Option<Arc<str>>,
    /// What traffic found out.
    pub stats: Arc<Stats>,
    target: OnceLock<Result<Arc<Target>, ResolveError>>,
    traits: OnceLock<Traits>,
}

impl std::fmt::Debug for ComboState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ComboState").field("name", &self.name).finish_non_exhaustive()
    }
}

impl StepState {
    pub(crate) const fn new(
        id: Arc<str>,
        weight: u32,
        condition: Option<Condition>,
        goal: Goal,
        template: Option<Arc<str>>,
        stats: Arc<Stats>,
    ) -> Self {
        Self {
            id,
            weight,
            condition,
            goal,
            template,
            stats,
            target: OnceLock::new(),
            traits: OnceLock::new(),
        }
    }

    /// A step to a target that is known already.
    pub(crate) fn to(target: Arc<Target>, stats: Arc<Stats>) -> Self {
        let name = target.full_name();
        let goal = Goal::Model { model: name.clone(), connection_id: None };
        Self { target: OnceLock::from(Ok(target)), ..Self::new(name.into(), 0, None, goal, None, stats) }
    }

    /// What is known of the model it leads to. Found once per snapshot.
    pub fn traits(&self, snapshot: &Snapshot, target: &Target) -> &Traits {
        self.traits.get_or_init(|| Traits::of(snapshot, target))
    }

    /// The target of a step that leads to a model. Found once per snapshot, the one that the step belongs to.
    pub fn target(&self, snapshot: &Snapshot) -> Option<&Result<Arc<Target>, ResolveError>> {
        let Goal::Model { model, connection_id } = &self.goal else { return None };
        Some(self.target.get_or_init(|| {
            let mut target = resolve::model(snapshot, model)?;
            if let Some(id) = connection_id {
                let own = target.provider.connections.iter().find(|own| own.id.as_str() == id);
                // Another provider's account, or one that is gone: nobody else may stand in for it.
                let name = own
                    .map(|own| own.name.to_string())
                    .ok_or_else(|| ResolveError::NoCredentials { provider: target.provider.id.clone() })?;
                target.connection_name = Some(name);
            }
            Ok(Arc::new(target))
        }))
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
}

impl Default for Policy {
    fn default() -> Self {
        Self::of(ComboConfig::default())
    }
}

impl Policy {
    /// The policy of a configuration that the defaults of the operator lie under already.
    pub fn of(config: ComboConfig) -> Self {
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
        }
    }
}
