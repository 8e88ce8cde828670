//! What `auto` has to know of the steps of a combo, and what a limit of cost does to their order.

use super::StepState;
use super::plan::{Ordered, RequestFacts};
use crate::entity::BudgetFallback;
use crate::routing::Choice;
use crate::routing::auto::{AccountTier, Difficulty, Signals, Task, Tuning, decide};
use crate::snapshot::Snapshot;

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
    signals.health = if signals.accounts > 0 { 1.0 } else { 0.0 };
    // The account that has most left serves; one that says nothing may have all of it.
    let left: Vec<_> =
        able().filter_map(|connection| connection.health.gate.left(&target.model, now_ms)).collect();
    if left.len() == usize::from(signals.accounts) {
        signals.quota = left.iter().map(|(share, _)| *share).max_by(f64::total_cmp);
        signals.reset_ms = left.iter().map(|(_, until)| until - now_ms).min();
    }
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

/// Where a step stands for this beginning of a prompt: the same beginning prefers the same step, and a step that goes takes
/// no other's beginnings along.
fn rendezvous(prefix: u64, step: &str) -> f64 {
    let mut hash = prefix ^ 0xcbf2_9ce4_8422_2325;
    for byte in step.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    #[allow(clippy::cast_precision_loss, reason = "53 bits are what an `f64` holds")]
    let share = ((hash ^ (hash >> 32)) >> 11) as f64 / (1_u64 << 53) as f64;
    share
}
