//! What would become of a request if it came now: whether somebody can be called, or is worth waiting for, and what the client
//! would be told if not. By the same rules as the loops that do ask; nothing is taken and nobody's turn.

use std::sync::Arc;

use omniroute_domain::combo::{ComboState, LeftOut, Planned};
use omniroute_domain::resolve::Target;
use omniroute_domain::routing::Manner;

use super::accounts::{Failed, Left, Patience, Stuck, nobody_left};
use super::pipeline::stages;
use super::round::{self, Held, NoPlace, foreseen, no_place};
use super::{Trying, in_vain, inner};
use crate::ctx::RequestCtx;
use crate::error::GatewayError;
use crate::policy;

/// What a client would be told of a target, and of those that stand in for it; `None` where somebody would be called.
pub(crate) fn of_chain(ctx: &mut RequestCtx, targets: &[Arc<Target>]) -> Option<GatewayError> {
    let mut first = None;
    for (place, target) in targets.iter().enumerate() {
        // Only the last one is worth waiting for.
        let is_last = place + 1 == targets.len();
        let patience = if is_last { Patience::of(ctx) } else { Patience::none(false) };
        let failed = of_target(ctx, target, patience)?;
        first.get_or_insert(failed.error);
    }
    first
}

/// How a combo comes to nothing.
pub(crate) struct Vain {
    /// What the client would be told.
    pub(crate) error: GatewayError,
    /// How many of the targets are looked at before.
    pub(crate) reached: usize,
}

/// The same of the targets of a combo.
pub(crate) async fn of_plan(
    ctx: &mut RequestCtx,
    combo: &ComboState,
    targets: &[Planned],
    manner: Manner,
    (over_cap, left_out): (Option<i64>, &[LeftOut]),
) -> Result<Option<Vain>, GatewayError> {
    let all = |error| Vain { error, reached: targets.len() };
    if targets.is_empty() {
        return Ok(Some(all(in_vain::no_targets(combo, over_cap, left_out))));
    }
    let error = match manner {
        Manner::Pipeline => return of_stages(ctx, combo, targets, left_out).await,
        Manner::Fusion => {
            let width = combo.policy.fusion_width.min(targets.len());
            let failures = of_all(ctx, &targets[..width], |_| true);
            failures.and_then(|failures| told(combo, failures, width))
        }
        Manner::OneByOne | Manner::Race => of_list(ctx, combo, targets),
    };
    Ok(error.map(all))
}

fn of_list(ctx: &mut RequestCtx, combo: &ComboState, targets: &[Planned]) -> Option<GatewayError> {
    let failures = of_all(ctx, targets, |place| place + 1 == targets.len())?;
    let policy = &combo.policy;
    let coming = || failures.iter().filter(|failed| !failed.is_open);
    // One who is free when the list is gone through again, or is waited for.
    let soon = coming().filter_map(|failed| failed.wait).min();
    let comes_in_time = soon.is_some_and(|wait| wait <= policy.set_retry_delay * policy.max_set_retries);
    let pause = coming().filter_map(|failed| failed.pause).min();
    let is_waited_for =
        pause.is_some_and(|pause| pause < policy.timeout && Patience::of(ctx).allows(pause, ctx.waited));
    if comes_in_time || is_waited_for { None } else { told(combo, failures, targets.len()) }
}

async fn of_stages(
    ctx: &mut RequestCtx,
    combo: &ComboState,
    targets: &[Planned],
    left_out: &[LeftOut],
) -> Result<Option<Vain>, GatewayError> {
    let stages = match stages(combo, targets, left_out) {
        Ok(stages) => stages,
        Err(error) => return Ok(Some(Vain { error, reached: 0 })),
    };
    // The result of a tool call is for the last one alone.
    let skipped = match inner::last_words(ctx.canonical().await?) {
        Some(_) => 0,
        None => stages.len().saturating_sub(1),
    };
    for stage in stages.iter().skip(skipped) {
        let own = &targets[stage.targets.clone()];
        if let Some(failures) = of_all(ctx, own, |place| place + 1 == own.len()) {
            let name = stage.name(combo);
            let error = in_vain::all_failed(combo, failures, |error| format!("{name} failed: {error}"));
            return Ok(error.map(|error| Vain { error, reached: stage.targets.end }));
        }
    }
    Ok(None)
}

fn told(combo: &ComboState, failures: Vec<Failed>, count: usize) -> Option<GatewayError> {
    in_vain::all_failed(combo, failures, |error| in_vain::told_of_all(count, &combo.name, error))
}

/// Why each of the targets would come to nothing; `None` where one would not. `queues` says at whose accounts a request waits.
fn of_all(ctx: &mut RequestCtx, targets: &[Planned], queues: impl Fn(usize) -> bool) -> Option<Vec<Failed>> {
    let mut failures = Vec::with_capacity(targets.len());
    for (place, planned) in targets.iter().enumerate() {
        ctx.trying = Some(Trying::previewed(planned, ctx.started));
        let failed = of_target(ctx, &planned.target, Patience::none(queues(place)));
        ctx.trying = None;
        failures.push(failed?);
    }
    Some(failures)
}

fn of_target(ctx: &mut RequestCtx, target: &Target, patience: Patience) -> Option<Failed> {
    if let Err(error) = policy::steer(ctx, target) {
        return Some(Failed::uncalled(error));
    }
    let now_ms = ctx.engine.clock.now_ms();
    let (mut is_busy, mut held) = (false, Held::new());
    for connection in foreseen(ctx, target, now_ms) {
        match no_place(ctx, target, connection, now_ms)? {
            NoPlace::Busy => is_busy = true,
            NoPlace::Held(until) => held.push((connection.clone(), until)),
        }
    }
    if patience.queues && held.iter().any(|one| round::would_queue(one, now_ms)) {
        return None;
    }
    let stuck = Stuck { held: round::first_free(&held, now_ms), is_busy };
    match nobody_left(ctx, target, &mut None, stuck, &patience, true) {
        Left::Wait(_) => None,
        Left::Nothing(failed) => Some(failed),
    }
}
