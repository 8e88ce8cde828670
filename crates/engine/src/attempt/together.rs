//! Several targets of a combo at once: those of a race start together, a hedged one when the one before it keeps silent. The
//! first that has something for the client wins, and the others are dropped, which cancels their calls.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;

use super::accounts::Failed;
use super::ask::ask;
use super::targets::Course;
use super::{Attempted, rows};
use crate::branch::Heard;
use crate::ctx::RequestCtx;
use crate::error::GatewayError;

/// Most calls at once where hedging starts them.
pub(super) const MOST_HEDGED: usize = 2;

/// Which targets of a plan run at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heat {
    /// How many start at once.
    pub(super) together: usize,
    /// Behind the last one that may take part.
    pub(super) end: usize,
    /// Whether the next one starts beside one that is silent for too long.
    pub(super) hedges: bool,
}

/// A target that is being asked beside others.
type Leg = BoxFuture<'static, (usize, Box<RequestCtx>, Result<Attempted, Failed>)>;

impl Course {
    /// Asks the targets from `first` on as the heat says. `None` when all that were asked failed.
    pub(super) async fn heat(
        &mut self,
        ctx: &mut RequestCtx,
        first: usize,
        heat: Heat,
    ) -> Result<Option<Attempted>, GatewayError> {
        let mut legs: FuturesUnordered<Leg> = FuturesUnordered::new();
        let mut heard: Vec<(usize, Heard)> = Vec::new();
        let mut next = first;
        ctx.decide(false);
        while next < heat.end.min(first + heat.together) {
            legs.push(self.leg(ctx, next, Duration::ZERO, &mut heard));
            next += 1;
        }
        let mut due = self.hedge_due(heat, next - 1, Duration::ZERO);
        loop {
            let may_start = next < heat.end && legs.len() < MOST_HEDGED && !self.is_over(ctx);
            tokio::select! {
                biased;
                done = legs.next() => match done {
                    None => return Ok(None),
                    Some((_, branch, Ok(answer))) => {
                        ctx.decide(true);
                        drop(legs);
                        ctx.adopt(branch);
                        return Ok(Some(answer));
                    }
                    Some((place, branch, Err(mut failed))) => {
                        let is_shared = self.is_shared(&branch, place, &failed);
                        drop(branch);
                        ctx.gather();
                        if is_shared {
                            failed.error.attempts = rows::notes(ctx);
                            return Err(failed.error);
                        }
                        self.failures.note(place, failed);
                        heard.retain(|(other, _)| *other != place);
                        if heat.hedges && legs.is_empty() && may_start {
                            let pause = self.policy(next).fallback_delay.min(self.left(ctx));
                            legs.push(self.leg(ctx, next, pause, &mut heard));
                            next += 1;
                            due = self.hedge_due(heat, next - 1, pause);
                        } else if heat.hedges {
                            due = due.or_else(|| Some(tokio::time::Instant::now()));
                        }
                    }
                },
                () = sleep_until(due), if due.is_some() && may_start => {
                    due = None;
                    // Who has begun to answer is not overtaken.
                    if !heard.iter().any(|(_, heard)| heard.is_set()) {
                        legs.push(self.leg(ctx, next, Duration::ZERO, &mut heard));
                        next += 1;
                        due = self.hedge_due(heat, next - 1, Duration::ZERO);
                    }
                }
            }
        }
    }

    /// When the patience with the target at `place` ends, which starts after a pause; `None` = never.
    fn hedge_due(&self, heat: Heat, place: usize, pause: Duration) -> Option<tokio::time::Instant> {
        let patience = self.policy(place).hedge_delay.filter(|_| heat.hedges)?;
        Some(tokio::time::Instant::now() + pause + patience)
    }

    /// One target, asked in a branch of the request after a pause.
    fn leg(
        &self,
        ctx: &mut RequestCtx,
        place: usize,
        pause: Duration,
        heard: &mut Vec<(usize, Heard)>,
    ) -> Leg {
        let (combo, planned) = (self.combo.clone(), self.targets.at(place));
        let bounds = self.bounds(ctx, place);
        let mut branch = ctx.branch();
        heard.push((place, branch.heard()));
        Box::pin(async move {
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            let result = ask(&mut branch, &combo, &planned, bounds).await;
            (place, branch, result)
        })
    }
}

async fn sleep_until(due: Option<tokio::time::Instant>) {
    if let Some(due) = due {
        tokio::time::sleep_until(due).await;
    }
}
