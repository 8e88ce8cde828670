//! One target: its accounts in order, until one answers or none is left.

use std::sync::Arc;
use std::time::Duration;

use omniroute_domain::resolve::Target;
use omniroute_domain::snapshot::ConnectionState;
use omniroute_provider::{Failure, FailureKind, Retry};
use smallvec::SmallVec;

use super::round::Round;
use super::{Attempted, Fault, note_failure, once, rows};
use crate::circuit;
use crate::ctx::RequestCtx;
use crate::error::GatewayError;
use crate::explain;
use crate::policy;
use crate::session;

/// Most upstream calls for one target.
const MAX_CALLS: usize = 8;

/// The longest that a request waits in all, for whatever, where no setting allows more of the one thing that it waits for.
/// All waits are measured against how long it has waited already: they do not add up.
pub(super) const MOST: Duration = Duration::from_secs(30);

/// How long a request may wait for cooldowns to end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// How often.
    pub(super) waits: u32,
    /// How long it may have waited in all, for whatever.
    pub(super) most: Duration,
    /// Whether it may stand in an account's queue.
    pub(super) queues: bool,
}

impl Patience {
    /// As the operator set it.
    pub(super) fn of(ctx: &RequestCtx) -> Self {
        let settings = &ctx.snapshot.settings;
        if !settings.resilience.wait_for_cooldown {
            return Self::none(true);
        }
        Self {
            waits: settings.request_retry,
            most: Duration::from_secs(u64::from(settings.max_retry_interval_sec)),
            queues: true,
        }
    }

    /// None but for the accounts' queues, where there is nobody else to ask.
    pub(super) const fn none(is_last: bool) -> Self {
        Self { waits: 0, most: Duration::ZERO, queues: is_last }
    }

    /// Whether so long a pause is short enough for a request that has waited so long.
    pub(super) fn allows(&self, pause: Duration, waited: Duration) -> bool {
        self.waits > 0 && pause <= self.most.saturating_sub(waited)
    }

    /// Sleeps until something may be tried again, if that is soon enough.
    pub(super) async fn sit_out(&mut self, ctx: &mut RequestCtx, pause: Option<Duration>) -> bool {
        let Some(pause) = pause.filter(|pause| self.allows(*pause, ctx.waited)) else { return false };
        self.waits -= 1;
        ctx.pause(pause + Duration::from_millis(ctx.engine.random() % 50)).await;
        true
    }
}

/// Why a target came to nothing.
pub(crate) struct Failed {
    /// In words for the client.
    pub(crate) error: GatewayError,
    /// What the last account came to; `None` when none was called.
    pub(crate) last: Option<Box<Failure>>,
    /// How long until an account may be tried again; `None` when nobody knows.
    pub(crate) wait: Option<Duration>,
    /// The same where that is worth waiting for.
    pub(crate) pause: Option<Duration>,
    /// Whether the request itself could not be read or written.
    pub(crate) is_request: bool,
    /// Whether nobody was called because the provider's breaker is open.
    pub(crate) is_open: bool,
    /// Whether a budget had no room for another call.
    pub(crate) is_spent: bool,
}

impl Failed {
    /// Nobody was called, and nothing is known of when somebody can be.
    pub(super) const fn uncalled(error: GatewayError) -> Self {
        Self {
            error,
            last: None,
            wait: None,
            pause: None,
            is_request: false,
            is_open: false,
            is_spent: false,
        }
    }
}

impl From<GatewayError> for Failed {
    fn from(error: GatewayError) -> Self {
        Self { is_request: true, ..Self::uncalled(error) }
    }
}

/// Tries accounts until one answers or none is left.
pub(super) async fn run(
    ctx: &mut RequestCtx,
    target: &Arc<Target>,
    mut patience: Patience,
) -> Result<Attempted, Failed> {
    let most = ctx.attempts.len() + MAX_CALLS;
    let mut tried: SmallVec<[Arc<ConnectionState>; 4]> = SmallVec::new();
    let mut last: Option<Box<Failure>> = None;
    if target.provider.connections.len() > 1 && ctx.task.is_none() && !ctx.is_aside() {
        session::find(ctx)?;
    }
    ctx.target = Some(target.clone());
    if let Err(error) = policy::steer(ctx, target) {
        ctx.passed_over(target, "policy", &error.message);
        return Err(Failed::uncalled(error));
    }
    loop {
        let mut round = Round::begin(ctx, target, &tried);
        ctx.weighed(target, round.order(), round.began_ms());
        while ctx.attempts.len() < most && !ctx.is_late() {
            let mut next = None;
            if patience.queues && round.is_patient() {
                next = round.queue_up(ctx, target).await;
            }
            if next.is_none() {
                next = round.next(ctx, target, &tried);
            }
            if next.is_none() && patience.queues {
                next = round.queue_up(ctx, target).await;
            }
            let Some((connection, place)) = next else { break };
            let Some(pass) = circuit::admit(ctx, &connection, &target.model) else {
                tried.push(connection);
                continue;
            };
            if let Err(mut error) = ctx.hold_again() {
                error.attempts = rows::notes(ctx);
                return Err(Failed { is_spent: true, ..Failed::uncalled(error) });
            }
            let sent = ctx.engine.clock.instant();
            match once(ctx, target, &connection, place, sent).await {
                Ok(done) => {
                    circuit::answered(ctx, &connection, &target.model, pass);
                    return Ok(done);
                }
                Err(Fault::Request(error)) => return Err(error.into()),
                Err(Fault::Upstream(mut failure, status)) => {
                    connection.conceal(&mut failure.upstream);
                    circuit::failed(ctx, &connection, &target.model, pass, &failure);
                    note_failure(ctx, target, &connection, &failure, status, sent);
                    tried.push(connection);
                    ctx.owe();
                    if failure.retry != Retry::Elsewhere {
                        let error = explain::failure(ctx, target, &failure);
                        return Err(Failed { last: Some(failure), ..Failed::uncalled(error) });
                    }
                    last = Some(failure);
                }
            }
        }
        let may_call = ctx.attempts.len() < most && !ctx.is_late();
        match nobody_left(ctx, target, &mut last, round.stuck(ctx), &patience, may_call) {
            Left::Wait(pause) => patience.sit_out(ctx, Some(pause)).await,
            Left::Nothing(failed) => return Err(failed),
        };
        tried.clear();
    }
}

/// Why the accounts that are left cannot be called.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stuck {
    /// Some are held to their limits, the first of them for so long.
    pub(super) held: Option<Duration>,
    /// Some have as many requests as they may have at once.
    pub(super) is_busy: bool,
}

/// What is left of a target none of whose accounts can be called now.
pub(super) enum Left {
    /// One is worth so long a wait.
    Wait(Duration),
    /// It came to nothing, for this reason.
    Nothing(Failed),
}

/// What follows when no account of a target can be called any more.
pub(super) fn nobody_left(
    ctx: &RequestCtx,
    target: &Target,
    last: &mut Option<Box<Failure>>,
    stuck: Stuck,
    patience: &Patience,
    may_call: bool,
) -> Left {
    if last.is_none()
        && let Some(wait) = stuck.held
    {
        let error = explain::held(target, wait);
        return Left::Nothing(Failed { wait: Some(wait), pause: Some(wait), ..Failed::uncalled(error) });
    }
    let (wait, pause) = (explain::earliest(ctx, target), explain::coming(ctx, target));
    // An open breaker is not waited for: it is there so that nobody waits for a provider that is out of order.
    let is_open = circuit::is_open(ctx, target);
    let may_go_on = may_call && !is_open;
    if let Some(pause) = pause.filter(|pause| may_go_on && patience.allows(*pause, ctx.waited)) {
        return Left::Wait(pause);
    }
    let error = explain::exhausted(ctx, target, last.as_deref(), wait, stuck.is_busy);
    let pause = pause.filter(|_| !is_open);
    let is_open = is_open && last.is_none();
    Left::Nothing(Failed { last: last.take(), wait, pause, is_open, ..Failed::uncalled(error) })
}

/// Whether what went wrong may be over in a moment without anybody doing something about it.
pub(crate) const fn passes_by_itself(kind: FailureKind) -> bool {
    !matches!(
        kind,
        FailureKind::QuotaSpent
            | FailureKind::AuthRejected
            | FailureKind::Forbidden
            | FailureKind::Banned
            | FailureKind::ModelMissing
            | FailureKind::AddressBlocked
    )
}
