//! What `auto` has to know of the steps of a combo, and what a limit of cost does to their order.

use omniroute_provider::ProviderId;

use super::StepState;
use super::plan::{Ordered, RequestFacts};
use crate::breaker::BreakerState;
use crate::entity::BudgetFallback;
use crate::resolve::Target;
use crate::routing::auto::{AccountTier, Difficulty, Signals, Task, Tuning, decide};
use crate::routing::{Choice, Quota, rendezvous};
use crate::snapshot::{ConnectionState, Snapshot};

/// Said of a step that costs too much.
pub(super) const TOO_DEAR: &str = "the request would cost more there than budgetCap";
/// Said of a step that failed too often.
pub(super) const EXCLUDED: &str = "it failed three times in a row within the last five minutes";

/// What is known of a step.
pub(super) fn signals(
    snapshot: &Snapshot,
    step: &StepState,
    facts: &RequestFacts,
    task: Task,
    now_ms: i64,
) -> Signals {
    let spread = step.stats.spread();
    let mut signals = Signals {
        p95_ms: spread.map(|spread| spread.p95_ms),
        deviation_ms: spread.map(|spread| spread.deviation_ms),
        is_excluded: step.stats.excluded_until(now_ms).is_some(),
        ..Signals::default()
    };
    let Some(Ok(target)) = step.target(snapshot) else { return signals };
    let traits = step.traits(snapshot, target);
    let able = || {
        target
            .provider
            .connections
            .iter()
            .filter(|connection| connection.check(&target.model, now_ms).is_ok())
    };
    signals.accounts = u16::try_from(able().count()).unwrap_or(u16::MAX);
    signals.health = able().map(|connection| health(connection, &target.model, now_ms)).fold(0.0, f64::max);
    if let Some(quota) = quota(target, now_ms) {
        (signals.quota, signals.reset_ms) = (Some(quota.left), Some(quota.reset_ms));
    }
    signals.served_before =
        (facts.served_by != 0).then(|| provider_mark(&target.provider.id) == facts.served_by);
    let plans = target.provider.connections.iter().map(|connection| connection.tier);
    signals.account = plans.max().unwrap_or(AccountTier::Standard);
    signals.price = traits.price;
    signals.fitness = traits.fitness.at(task);
    signals.tier = traits.tier;
    signals.room = traits.caps.context_window.map(|window| {
        let needed = facts.input_tokens.saturating_add(facts.max_output.unwrap_or(0));
        #[allow(clippy::cast_precision_loss, reason = "a share")]
        let taken = needed as f64 / window.max(1) as f64;
        1.0 - taken
    });
    if facts.prefix != 0 {
        signals.cache = rendezvous(facts.prefix, &step.id);
    }
    signals
}

/// How far the provider behind an account that may serve is to be trusted.
fn health(connection: &ConnectionState, model: &str, now_ms: i64) -> f64 {
    match connection.breaker_policy.map(|_| connection.breaker.state(model, now_ms)) {
        None | Some(BreakerState::Closed) => 1.0,
        Some(BreakerState::Degraded) => 0.75,
        Some(BreakerState::HalfOpen) => 0.5,
        Some(BreakerState::Open) => 0.0,
    }
}

/// What is left at a target: of its accounts the one that has most serves, and what is left is lost when the first of them
/// begins anew. One that says nothing may have all of it.
pub(super) fn quota(target: &Target, now_ms: i64) -> Option<Quota> {
    let able = target.provider.connections.iter();
    let mut able = able.filter(|connection| connection.check(&target.model, now_ms).is_ok()).peekable();
    able.peek()?;
    let none = Quota { left: 0.0, reset_ms: i64::MAX, loss_per_ms: 0.0 };
    able.try_fold(none, |best, connection| {
        let own = connection.quota(&target.model, now_ms)?;
        Some(Quota {
            left: best.left.max(own.left),
            reset_ms: best.reset_ms.min(own.reset_ms),
            loss_per_ms: best.loss_per_ms.max(own.loss_per_ms),
        })
    })
}

/// Stands for a provider in what is known of a request; never 0.
pub fn provider_mark(id: &ProviderId) -> u64 {
    let mark = id.as_str().bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    mark.max(1)
}

/// The order of the steps, and those that cost too much. Where all do, either the cheapest leads or nobody is left.
pub(super) fn order(choice: &Choice<'_>, tuning: &Tuning, facts: &RequestFacts) -> Ordered {
    let decision = decide(choice, tuning, Difficulty::of(facts));
    let mut ordered = Ordered { order: decision.order, scores: decision.scores, ..Ordered::default() };
    let costs = choice.candidates.iter().map(|candidate| candidate.cost_nano);
    let too_dear = costs.enumerate().filter(|(_, cost)| cost.is_some_and(|cost| cost > tuning.cap_nano));
    ordered.too_dear.extend(too_dear.map(|(place, _)| place));
    if ordered.too_dear.len() == choice.candidates.len() && tuning.fallback == BudgetFallback::Cheapest {
        ordered.too_dear.clear();
        ordered.order.sort_by_key(|place| choice.candidates[usize::from(*place)].cost_nano);
    }
    ordered
}
