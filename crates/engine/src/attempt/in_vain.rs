//! What a client is told when a combo came to nothing.

use std::time::Duration;

use omniroute_dialect::ir::ErrorKind;
use omniroute_domain::combo::{ComboState, LeftOut};

use super::accounts::Failed;
use crate::circuit;
use crate::error::GatewayError;
use crate::explain;

/// The error when all targets failed: the one that says most. `None` where none of them was asked. Where a budget kept the request
/// from being asked further, it is that, in its own words: what upstreams said was no reason to end.
pub(super) fn all_failed(
    combo: &ComboState,
    mut failures: Vec<Failed>,
    told: impl FnOnce(&str) -> String,
) -> Option<GatewayError> {
    if let Some(at) = failures.iter().position(|failed| failed.is_spent) {
        return Some(failures.swap_remove(at).error);
    }
    let earliest: Option<Duration> = failures.iter().filter_map(|failed| failed.wait).min();
    if !failures.is_empty() && failures.iter().all(|failed| failed.is_open) {
        return Some(circuit::all_open(&combo.name, earliest));
    }
    let rank = |failed: &Failed| match failed.error.kind.status() {
        429 => 4,
        503 => 3,
        500.. => 2,
        _ => 1,
    };
    let highest = failures.iter().map(rank).max().unwrap_or(0);
    // What an upstream said is told before what kept another from being asked.
    let is_told = failures.iter().any(|failed| rank(failed) == highest && failed.last.is_some());
    let says_most = |failed: &Failed| rank(failed) == highest && (failed.last.is_some() || !is_told);
    let mut alike = failures.into_iter().filter(says_most);
    // What the request is to blame for is told of the first, what passes of the last.
    let chosen = if highest == 1 { alike.next() } else { alike.next_back() };
    let Failed { mut error, .. } = chosen?;
    error.message = told(&error.message);
    if highest > 1 {
        error.retry_after = earliest.or(error.retry_after);
    }
    error.recovers_in = earliest;
    Some(error)
}

/// What is told of the failure that says most.
pub(super) fn told_of_all(count: usize, combo: &str, error: &str) -> String {
    format!("all {count} targets of combo `{combo}` failed: {error}")
}

/// The same where time, or the calls that a request may make, ended before its targets did.
pub(super) fn told_of_some(asked: usize, count: usize, combo: &str, error: &str) -> String {
    format!(
        "{asked} of the {count} targets of combo `{combo}` failed, and there was no time or call left for more: {error}"
    )
}

/// The error when there is no target to ask.
pub(crate) fn no_targets(combo: &ComboState, over_cap: Option<i64>, left_out: &[LeftOut]) -> GatewayError {
    let name = &combo.name;
    if let Some(cap) = over_cap {
        return explain::too_dear(name, cap);
    }
    if combo.steps.is_empty() {
        let message = format!("`{name}` has no model to choose from; add a connection under /api/providers");
        return GatewayError::new(ErrorKind::Unavailable, "no_targets", message);
    }
    // No other reason is left.
    if left_out.is_empty() {
        let message = format!("This API key may use none of the models of combo `{name}`");
        return GatewayError::new(ErrorKind::Permission, "model_not_allowed", message).param("model");
    }
    let reasons: Vec<_> =
        left_out.iter().take(5).map(|left| format!("`{}`: {}", left.goal, left.reason)).collect();
    let why = reasons.join("; ");
    let message = format!("combo `{name}` has no target for this request ({why}); see /api/combos");
    GatewayError::new(ErrorKind::Unavailable, "no_targets", message)
}
