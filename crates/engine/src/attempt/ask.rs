//! One target of a combo, asked as often as its combo allows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use omniroute_dialect::ir::ErrorKind;
use omniroute_domain::combo::{ComboState, Place, Planned, QueueLimits};
use omniroute_provider::FailureKind;

use super::Attempted;
use super::accounts::{self, Failed, MOST, Patience};
use super::trying::{Places, Trying};
use crate::ctx::RequestCtx;
use crate::error::GatewayError;
use crate::gate::Busy;

/// The longest pause for the sake of one target's cooldown.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// How long and how often a target may be asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// What it is by the clock, where it is asked at once.
    pub(super) now: Option<Instant>,
    /// How often, with pauses in between.
    pub(super) tries: u32,
    /// How long it may take each time to its first content; `None` = as long as the combo may.
    pub(super) timeout: Option<Duration>,
    /// Until when the combo may take to its first content.
    pub(super) deadline: Instant,
    /// Upstream calls that the combo has left.
    pub(super) calls: usize,
    /// Whether it may stand in an account's queue: there is nobody else to go on to.
    pub(super) queues: bool,
    /// Whether the plan begins with it, alone or with others.
    pub(super) is_first: bool,
    /// Whether the answer may be the client's, so that it must be what the combo asks of one.
    pub(super) is_reply: bool,
}

/// Asks a target, and again as long as its failures are passing ones.
pub(super) async fn ask(
    ctx: &mut RequestCtx,
    combo: &Arc<ComboState>,
    planned: &Planned,
    mut bounds: Bounds,
) -> Result<Attempted, Failed> {
    let most = ctx.attempts.len() + bounds.calls;
    let mut tries = bounds.tries;
    loop {
        let failed = match ask_once(ctx, combo, planned, &bounds).await {
            Ok(answer) => return Ok(answer),
            Err(failed) => failed,
        };
        bounds.now = None;
        tries = tries.saturating_sub(1);
        let may_go_on = tries > 0 && ctx.attempts.len() < most;
        if !may_go_on
            || !sit_out(ctx, &failed, combo.policy_of(&planned.target).retry_delay, bounds.deadline).await
        {
            return Err(failed);
        }
    }
}

async fn ask_once(
    ctx: &mut RequestCtx,
    combo: &ComboState,
    planned: &Planned,
    bounds: &Bounds,
) -> Result<Attempted, Failed> {
    let places = places(ctx, planned, bounds.deadline).await?;
    ctx.validation = combo.policy_of(&planned.target).validation.clone().filter(|_| bounds.is_reply);
    // Where there is a queue, time may have passed in it.
    let now = bounds.now.filter(|_| places.is_empty()).unwrap_or_else(|| ctx.engine.clock.instant());
    let limit = bounds.timeout.map_or(bounds.deadline, |timeout| bounds.deadline.min(now + timeout));
    ctx.deadline = Some(limit);
    ctx.step = planned.path.last().map(|place| place.step().id.clone());
    ctx.trying = Some(Trying::begin(planned, now, places));
    if let Some(tally) = &ctx.tally {
        tally.begin(planned, now);
    }
    let calls_before = ctx.attempts.len();
    let result = accounts::run(ctx, &planned.target, Patience::none(bounds.queues)).await;
    if let Some(tally) = &ctx.tally {
        tally.asked(planned, ctx.attempts.len() - calls_before, bounds.is_first, result.is_ok());
    }
    match result {
        Ok(answer) => {
            if matches!(answer, Attempted::Whole(_)) {
                ctx.step_answered();
            }
            Ok(answer)
        }
        Err(failed) => {
            if ctx.attempts.len() > calls_before {
                ctx.step_failed();
            } else {
                // Nobody was called, which says nothing about the target.
                ctx.trying = None;
            }
            Err(failed)
        }
    }
}

/// Takes a place at each step on the way to a target that has a limited number, in the order from the outside inwards.
async fn places(ctx: &mut RequestCtx, planned: &Planned, deadline: Instant) -> Result<Places, Failed> {
    let mut places = Places::new();
    for place in planned.path.iter().filter(|place| place.combo.strategy.queues()) {
        let began = ctx.engine.clock.instant();
        let (step, limits) = (place.step(), place.combo.policy_of(&planned.target).queue);
        let patience = limits.patience.saturating_sub(ctx.waited);
        let left = deadline.saturating_duration_since(began).min(patience);
        let entered = ctx.engine.gates.enter(&step.stats, &limits, left).await;
        ctx.has_waited_since(began);
        match entered {
            Ok(taken) => places.push(taken),
            Err(why) => return Err(busy(place, &limits, why)),
        }
    }
    Ok(places)
}

/// Nobody was called: the next target is asked, and if there is none, the client may come back soon.
fn busy(place: &Place, limits: &QueueLimits, why: Busy) -> Failed {
    let (id, combo, QueueLimits { places, depth, .. }) = (&place.step().id, &place.combo.name, limits);
    let why = match why {
        Busy::Full => format!("{depth} more wait already"),
        Busy::Late => "no place was free in time".to_owned(),
    };
    let message = format!(
        "step `{id}` of combo `{combo}` has its {places} requests at once and {why}; try again shortly, or raise concurrencyPerModel"
    );
    let error = GatewayError::new(ErrorKind::RateLimited, "rate_limit_queue_full", message)
        .retry_after(Some(Duration::from_secs(1)));
    Failed::uncalled(error)
}

/// Waits before a target that failed in passing is asked again; `false` where it should not be.
pub(super) async fn sit_out(
    ctx: &mut RequestCtx,
    failed: &Failed,
    delay: Duration,
    deadline: Instant,
) -> bool {
    let is_passing = failed.last.as_deref().is_some_and(|failure| {
        matches!(
            failure.kind,
            FailureKind::RateLimited
                | FailureKind::Overloaded
                | FailureKind::Unavailable
                | FailureKind::Timeout
                | FailureKind::Connect
                | FailureKind::Empty
                | FailureKind::InvalidResponse
                | FailureKind::Protocol
                | FailureKind::Unknown
        )
    });
    // What the upstream asked for counts, shorter or longer than our own delay.
    let asked = failed.last.as_deref().and_then(|failure| failure.retry_after).unwrap_or(delay);
    let pause = failed.wait.map_or(asked, |wait| wait.max(asked));
    let left = deadline.saturating_duration_since(ctx.engine.clock.instant());
    let longest = LONGEST_PAUSE.min(MOST.saturating_sub(ctx.waited));
    if !is_passing || pause > longest || pause >= left {
        return false;
    }
    ctx.pause(pause).await;
    true
}
