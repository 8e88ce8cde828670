//! Combos as requests see them: one name, several targets, an order for each request.
//!
//! [`plan`] is pure: a snapshot, what is known of the request, what traffic found out, a time and random bits give one list
//! of targets, and the reason for each step that is not on it. Whether an account of a target can serve is found out when its
//! turn comes.

mod auto;
mod condition;
mod left_out;
mod memory;
mod needs;
mod nested;
mod plan;
mod policy;
mod pool;
mod targets;
mod template;
mod traits;
mod validation;

use std::sync::{Arc, OnceLock};

pub use auto::provider_mark;
pub use condition::{Condition, ConditionError};
pub use left_out::{LeftOut, Rule};
pub use memory::{ComboMark, ComboMemory};
pub(crate) use needs::Needs;
pub use needs::{needs_content, needs_prefix};
pub use plan::{Bar, OfTarget, Place, Plan, Planned, RequestFacts, Special, judge, plan, plan_for, wave};
pub use policy::{HandoffRules, Policy, QueueLimits, built_in};
pub use pool::{MAX_POOL, Pool};
pub use targets::Targets;
pub use template::{TemplateError, check as check_template, render};
pub use traits::Traits;
pub use validation::{Validation, ValidationError};

use omniroute_provider::ProviderId;

use crate::entity::{ComboId, Goal};
use crate::resolve::{self, ResolveError, Suffixes, Target};
use crate::routing::{Stats, Strategy, Tuning};
use crate::snapshot::Snapshot;
use crate::transform::ComboRules;

/// How deep combos may stand within each other unless one says otherwise; the outermost counts.
pub const USUAL_DEPTH: u32 = 3;
/// How deep they may stand at most, whatever one says.
pub const MAX_DEPTH: u32 = 8;
/// How many entries a combo may have with those of the combos within it, each as often as it is led to.
pub const MAX_ENTRIES: usize = 1_024;

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
    /// How targets of some providers are asked, where that differs.
    pub overrides: Vec<(ProviderId, Policy)>,
    /// What it changes in requests.
    pub rules: ComboRules,
    /// Left out of lists of models.
    pub is_hidden: bool,
    /// Its place among the combos.
    pub sort_order: i64,
    /// When the operator last changed it.
    pub updated_at: i64,
    /// What traffic found out; survives a change of configuration.
    pub memory: Arc<ComboMemory>,
    /// What a plan depends on. Found once per snapshot.
    pub(crate) needs: OnceLock<Needs>,
}

impl ComboState {
    /// How a target is asked.
    pub fn policy_of(&self, target: &Target) -> &Policy {
        let own = self.overrides.iter().find(|(provider, _)| *provider == target.provider.id);
        own.map_or(&self.policy, |(_, policy)| policy)
    }

    /// How these targets are asked, each way at least once.
    pub fn policies<'a>(
        &'a self,
        targets: impl ExactSizeIterator<Item = &'a Arc<Target>>,
    ) -> impl Iterator<Item = &'a Policy> {
        let differing = if self.overrides.is_empty() { 1 } else { targets.len() };
        targets.take(differing).map(|target| self.policy_of(target))
    }

    /// Whether there is any target beside which another one may be asked before it failed.
    pub fn may_hedge(&self) -> bool {
        let others = self.overrides.iter().map(|(_, policy)| policy);
        std::iter::once(&self.policy).chain(others).any(|policy| policy.hedge_delay.is_some())
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
    /// What it says of all that it leads to, where that is another combo.
    pub suffixes: Suffixes,
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
            suffixes: Suffixes { effort: None, extended_context: false },
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
            if target.provider.hides(&target.model) {
                return Err(ResolveError::Hidden { model: target.full_name() });
            }
            if let Some(id) = connection_id {
                let own = target.provider.connections.iter().find(|own| own.id.as_str() == id);
                // Another provider's account, one that is gone, or one that nobody asks: nobody else may stand in for it.
                let idle = || target.provider.idle.iter().find(|own| own.id.as_str() == id);
                let name = own
                    .map(|own| own.name.to_string())
                    .ok_or_else(|| ResolveError::NoAccount { account: idle().cloned().map(Box::new) })?;
                target.connection_name = Some(name);
            }
            Ok(Arc::new(target))
        }))
    }
}
