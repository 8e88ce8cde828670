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
    /// How long one may be silent before the next one starts beside it; `None` = none does.
    pub(super) hedge: Option<Duration>,
}

/// A target that is being asked beside others.
type Leg = BoxFuture<'static, (usize, RequestCtx, Result<Attempted, Failed>)>;

impl Course {
    /// Asks the targets from `first` on as the heat says. `None` when all that were asked failed.
    pub(super) async fn heat(
        &mut self,
        ctx: &mut RequestCtx,
        first: usize,
        heat: Heat,
        tries: u32,
    ) -> Result<Option<Attempted>, GatewayError> {
        let mut legs: FuturesUnordered<Leg> = FuturesUnordered::new();
        let mut heard: Vec<(usize, Heard)> = Vec::new();
        let mut next = first;
        ctx.decide(false);
        while next < heat.end.min(first + heat.together) {
            legs.push(self.leg(ctx, next, tries, Duration::ZERO, &mut heard));
            next += 1;
        }
        let mut due = heat.hedge.map(|pause| tokio::time::Instant::now() + pause);
        loop {
            let may_start = next < heat.end && legs.len() < MOST_HEDGED && !self.is_over(ctx);
            tokio::select! {
                biased;
                done = legs.next() => match done {
                    None => return Ok(None),
                    Some((place, branch, Ok(answer))) => {
                        ctx.decide(true);
                        drop(legs);
                        ctx.adopt(branch);
                        self.note_fallback(ctx, place);
                        return Ok(Some(answer));
                    }
                    Some((place, branch, Err(mut failed))) => {
                        let is_shared = self.is_shared(&branch, &failed);
                        drop(branch);
                        ctx.gather();
                        if is_shared {
                            failed.error.attempts = rows::notes(ctx);
                            return Err(failed.error);
                        }
                        self.failures[place] = Some(failed);
                        heard.retain(|(other, _)| *other != place);
                        if heat.hedge.is_some() && legs.is_empty() && may_start {
                            let pause = self.combo.policy.fallback_delay.min(self.left(ctx));
                            legs.push(self.leg(ctx, next, tries, pause, &mut heard));
                            next += 1;
                            due = heat.hedge.map(|patience| tokio::time::Instant::now() + pause + patience);
                        } else if heat.hedge.is_some() {
                            due = due.or_else(|| Some(tokio::time::Instant::now()));
                        }
                    }
                },
                () = sleep_until(due), if due.is_some() && may_start => {
                    due = None;
                    // Who has begun to answer is not overtaken.
                    if !heard.iter().any(|(_, heard)| heard.is_set()) {
                        legs.push(self.leg(ctx, next, tries, Duration::ZERO, &mut heard));
                        next += 1;
                        due = heat.hedge.map(|pause| tokio::time::Instant::now() + pause);
                    }
                }
            }
        }
    }

    /// One target, asked in a branch of the request after a pause.
    fn leg(
        &self,
        ctx: &mut RequestCtx,
        place: usize,
        tries: u32,
        pause: Duration,
        heard: &mut Vec<(usize, Heard)>,
    ) -> Leg {
        let (combo, planned) = (self.combo.clone(), self.targets[place].clone());
        let bounds = self.bounds(ctx, place, tries);
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
