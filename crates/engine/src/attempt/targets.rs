//! The targets of a combo in the order of its plan, until one answers or none is left.

use std::cell::RefCell;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use omniroute_domain::combo::{self, Bar, ComboState, LeftOut, Plan, Planned, Policy, Special, Targets};
use omniroute_domain::resolve::{Route, Target};
use omniroute_domain::routing::Manner;
use omniroute_domain::snapshot::Caller;
use omniroute_provider::{FailureKind, Retry};

use super::accounts::{self, Failed, Patience};
use super::ask::{Bounds, ask, sit_out};
use super::facts::facts;
use super::failures::Failures;
use super::in_vain;
use super::together::{Heat, MOST_HEDGED};
use super::{Attempted, Tally, rows};
use crate::admit;
use crate::ctx::RequestCtx;
use crate::error::GatewayError;
use crate::fallback;
use crate::policy::{self, Steering};
use crate::preview;
use crate::session;
use crate::task;

/// Most upstream calls for one request, all targets together.
pub(super) const MAX_CALLS: usize = 64;

/// Tries whatever the request leads to until somebody answers.
pub(crate) async fn run(ctx: &mut RequestCtx, route: &Route) -> Result<Attempted, GatewayError> {
    match route {
        Route::Target(target) => {
            let others = fallback::others(ctx, target);
            let now_ms = ctx.engine.clock.now_ms();
            let held =
                ctx.hold_for(std::iter::once(target).chain(&others).map(|target| &**target), 1, now_ms);
            ctx.decided(target, now_ms);
            if let Err(error) = held {
                // Boxed because it is seldom.
                return Box::pin(spare(ctx, std::iter::once(target).chain(&others), error)).await;
            }
            if others.is_empty() {
                let patience = Patience::of(ctx);
                return accounts::run(ctx, target, patience).await.map_err(|failed| failed.error);
            }
            Box::pin(chain(ctx, target, &others)).await
        }
        Route::Combo(combo) => {
            let mut course = match Course::begin(ctx, combo).await {
                Ok(course) => course,
                Err(error) => Box::pin(cheaper(ctx, error)).await?,
            };
            let result = course.run(ctx).await;
            ctx.deadline = None;
            result
        }
    }
}

/// Asks what costs nothing of these, or another combo, as the budget says that has no room for them.
async fn spare(
    ctx: &mut RequestCtx,
    targets: impl Iterator<Item = &Arc<Target>>,
    error: GatewayError,
) -> Result<Attempted, GatewayError> {
    let not_paid = |ctx: &mut RequestCtx, targets: &[Arc<Target>]| {
        targets.iter().for_each(|target| ctx.passed_over(target, "budget", preview::UNPAID));
    };
    let (free, unpaid): (Vec<_>, Vec<_>) =
        targets.cloned().partition(|target| ctx.keeps_free() && ctx.is_free(target));
    let Some((first, others)) = free.split_first() else {
        not_paid(ctx, &unpaid);
        if ctx.keeps_free() {
            return Err(error);
        }
        let mut course = cheaper(ctx, error).await?;
        let result = course.run(ctx).await;
        ctx.deadline = None;
        return result;
    };
    if let Err(error) = ctx.go_free() {
        not_paid(ctx, &free);
        not_paid(ctx, &unpaid);
        return Err(error);
    }
    ctx.decided(first, ctx.engine.clock.now_ms());
    not_paid(ctx, &unpaid);
    chain(ctx, first, others).await
}

/// The combo that the budget names for requests that it has no room for.
async fn cheaper(ctx: &mut RequestCtx, error: GatewayError) -> Result<Course, GatewayError> {
    match ctx.downgrade() {
        Some(combo) => Course::begin(ctx, &combo).await,
        None => Err(error),
    }
}

/// Asks a model's own provider, then those that stand in for it, until one answers.
async fn chain(
    ctx: &mut RequestCtx,
    target: &Arc<Target>,
    others: &[Arc<Target>],
) -> Result<Attempted, GatewayError> {
    ctx.stood_in(others);
    let mut error = match accounts::run(ctx, target, Patience::none(false)).await {
        Ok(answer) => return Ok(answer),
        Err(failed) if fallback::is_out(&failed) && !ctx.is_spent() => failed.error,
        Err(failed) => return Err(failed.error),
    };
    for (place, other) in others.iter().enumerate() {
        // Only the last one is worth waiting for.
        let patience = if place + 1 == others.len() { Patience::of(ctx) } else { Patience::none(false) };
        match accounts::run(ctx, other, patience).await {
            Ok(answer) => return Ok(answer),
            // What keeps the others from being asked is not what the provider said.
            Err(failed) if ctx.is_spent() => return Err(failed.error),
            Err(failed) if fallback::is_out(&failed) => {}
            Err(_) => break,
        }
    }
    // Of all that went wrong the client is told what its own provider said.
    error.attempts = rows::notes(ctx);
    Err(error)
}

/// How many targets of a combo may be paid for, at once or one after the other. The judge of a fusion is one more.
fn paid(combo: &ComboState, manner: Manner, targets: &Targets) -> usize {
    let policy = &combo.policy;
    let hedges = |policy: &Policy| policy.hedge_delay.is_some();
    let beside =
        if combo.may_hedge() && combo.policies(targets.each()).any(hedges) { MOST_HEDGED } else { 1 };
    match manner {
        Manner::OneByOne => beside,
        // Those behind the first ones of a race are hedged like any others.
        Manner::Race => policy.race_width.max(beside),
        Manner::Fusion => policy.fusion_width,
        Manner::Pipeline => usize::MAX,
    }
}

/// What a combo comes to for one request.
pub(crate) struct Layout {
    /// The plan, without its targets.
    pub(crate) plan: Plan,
    /// Those that are asked, in order.
    pub(crate) targets: Targets,
    /// Those that the key may not use.
    pub(crate) denied: Vec<Planned>,
    /// Those that a budget has no room for, while it has for others.
    pub(crate) unpaid: Vec<Planned>,
    /// How they are asked.
    pub(crate) manner: Manner,
    /// When, in epoch milliseconds.
    pub(crate) decided_at: i64,
    /// Why nobody is asked.
    pub(crate) refusal: Option<GatewayError>,
}

/// Finds out what a combo comes to, and holds the money for it: now, or at the time at which it is played.
pub(crate) async fn lay_out(
    ctx: &mut RequestCtx,
    combo: &Arc<ComboState>,
    takes_turn: bool,
    played_at: Option<i64>,
) -> Result<Layout, GatewayError> {
    let facts = facts(ctx, combo).await?;
    let decided_at = played_at.unwrap_or_else(|| ctx.engine.clock.now_ms());
    let unable = RefCell::new(None);
    let bars = |target: &Target| bar(ctx, combo, target, &unable);
    let cost = |target: &Target| policy::cost_nano(ctx, target);
    let special =
        Special { bars: is_picky(ctx, combo).then_some(&bars), cost: ctx.task.as_ref().map(|_| &cost as _) };
    let (snapshot, seed) = (&ctx.snapshot, ctx.seed);
    let mut plan = combo::plan_for(snapshot, combo, &facts, special, decided_at, seed, takes_turn);
    let (mut targets, denied) = (mem::take(&mut plan.targets), mem::take(&mut plan.denied));
    if let Some(error) = unable.into_inner().filter(|_| targets.is_empty()) {
        return Err(error);
    }
    task::check_mix(ctx, combo)?;
    // The steps of a pipeline build on each other.
    if plan.manner != Manner::Pipeline {
        policy::prefer_planned(ctx, &mut targets);
    }
    // What is asked of several at once is a conversation.
    let manner = if ctx.task.is_some() { Manner::OneByOne } else { plan.manner };
    let (unpaid, refusal) = match afford(ctx, combo, &mut targets, manner, decided_at) {
        Ok(unpaid) => (unpaid, None),
        Err(error) => (Vec::new(), Some(error)),
    };
    Ok(Layout { plan, targets, denied, unpaid, manner, decided_at, refusal })
}

/// Whether there may be targets that are not for this request.
fn is_picky(ctx: &RequestCtx, combo: &ComboState) -> bool {
    let is_restricted = |caller: &Arc<Caller>| caller.restricts_models() || caller.restricts_connections();
    let has_tags = |steering: &Steering| !steering.verdict.required_tags.is_empty();
    ctx.task.is_some()
        || ctx.pinned.is_some()
        || ctx.caller.as_ref().is_some_and(is_restricted)
        || !ctx.required_tags.is_empty()
        || !combo.rules.tags.is_empty()
        || ctx.steering.as_deref().is_some_and(has_tags)
}

/// What keeps the request from a target: the rights of its key, or that the target cannot do what is asked. The first such
/// error is noted.
fn bar(
    ctx: &RequestCtx,
    combo: &ComboState,
    target: &Target,
    unable: &RefCell<Option<GatewayError>>,
) -> Option<Bar> {
    if !admit::may_use_in(ctx, combo, target) {
        return Some(Bar::Key);
    }
    let is_pipeline = combo.strategy.manner() == Manner::Pipeline;
    if !is_pipeline && !admit::has_account(ctx, combo, target) {
        return Some(Bar::Closed);
    }
    let error = task::able(ctx, target).err()?;
    let reason = error.message.clone();
    unable.borrow_mut().get_or_insert(error);
    Some(Bar::Unable(reason))
}

/// Holds money for the targets, or for those of them that cost nothing; gives those that are not asked for want of it.
fn afford(
    ctx: &mut RequestCtx,
    combo: &ComboState,
    targets: &mut Targets,
    manner: Manner,
    now_ms: i64,
) -> Result<Vec<Planned>, GatewayError> {
    let mut unpaid = ctx.keep_priced(targets)?;
    let mut held = ctx.hold_for_plan(targets, paid(combo, manner, targets), now_ms);
    if manner == Manner::Fusion {
        let first = targets.each().next();
        held = held.and_then(|()| match combo::judge(&ctx.snapshot, combo, first) {
            Some(Ok(judge)) => ctx.hold_for(std::iter::once(&*judge), 1, now_ms),
            // Who is not there costs nothing.
            _ => Ok(()),
        });
    }
    if let Err(error) = held {
        unpaid.append(&mut ctx.keep_free(targets, error)?);
    }
    Ok(unpaid)
}

/// A combo being carried out for one request.
pub(super) struct Course {
    pub(super) combo: Arc<ComboState>,
    pub(super) targets: Arc<Targets>,
    /// How they are asked, this request.
    manner: Manner,
    /// Whether one call at a time is made, however long it takes.
    is_alone: bool,
    pub(super) left_out: Arc<[LeftOut]>,
    /// What the request may cost at most, where that left nobody.
    over_cap: Option<i64>,
    /// When its targets were known.
    began: Instant,
    pub(super) deadline: Instant,
    pub(super) failures: Failures,
    calls_before: usize,
}

impl Course {
    async fn begin(ctx: &mut RequestCtx, combo: &Arc<ComboState>) -> Result<Self, GatewayError> {
        if combo.auto.is_some() && ctx.task.is_none() {
            session::find(ctx)?;
        }
        let Layout { mut plan, targets, denied, unpaid, manner, decided_at, refusal } =
            match lay_out(ctx, combo, true, None).await {
                Ok(layout) => layout,
                Err(error) => {
                    if ctx.task.is_some() {
                        ctx.bar(Route::Combo(combo.clone()), "capability", &error);
                    }
                    return Err(error);
                }
            };
        if let Some(error) = refusal {
            // Why nobody is asked can be read afterwards.
            let left_out = Arc::from(mem::take(&mut plan.left_out));
            ctx.planned(combo, &plan, &Arc::default(), &left_out, (denied, targets.into_list()), decided_at);
            return Err(error);
        }
        let (is_alone, began) = (ctx.task.is_some(), ctx.engine.clock.instant());
        let targets = Arc::new(targets);
        let left_out = match mem::take(&mut plan.left_out) {
            nobody if nobody.is_empty() => Arc::default(),
            somebody => Arc::from(somebody),
        };
        ctx.planned(combo, &plan, &targets, &left_out, (denied, unpaid), decided_at);
        Ok(Self {
            failures: Failures::default(),
            combo: combo.clone(),
            manner,
            is_alone,
            targets,
            left_out,
            over_cap: plan.over_cap,
            began,
            deadline: began + combo.policy.timeout,
            calls_before: ctx.attempts.len(),
        })
    }

    async fn run(&mut self, ctx: &mut RequestCtx) -> Result<Attempted, GatewayError> {
        ctx.tally = Some(Arc::new(Tally::new(&self.combo, self.manner)));
        let result = self.go_through(ctx).await;
        match &result {
            // Counted at its end.
            Ok(Attempted::Stream(_)) => {}
            Ok(Attempted::Whole(_)) => ctx.combo_answered(),
            Err(_) => ctx.combo_failed(),
        }
        result
    }

    async fn go_through(&mut self, ctx: &mut RequestCtx) -> Result<Attempted, GatewayError> {
        if self.targets.is_empty() {
            return Err(self.nobody());
        }
        match self.manner {
            Manner::Fusion => return Box::pin(self.fuse(ctx)).await,
            Manner::Pipeline => return Box::pin(self.pipe(ctx)).await,
            Manner::OneByOne | Manner::Race => {}
        }
        let (combo, targets) = (self.combo.clone(), self.targets.clone());
        let policy = &combo.policy;
        let retries = combo.policies(targets.each()).map(|policy| policy.max_retries);
        let passes = if self.is_deep() { 1 } else { 1 + retries.max().unwrap_or(0) };
        let mut patience = Patience::of(ctx);
        let mut sets_left = policy.max_set_retries;
        // What it is by the clock: the first target is asked at once.
        let mut now = Some(self.began);
        loop {
            for pass in 0..passes {
                let mut place = 0;
                while place < self.targets.len() {
                    if pass > 0 && (pass > self.policy(place).max_retries || !self.sit_out(ctx, place).await)
                    {
                        place += 1;
                        continue;
                    }
                    let pause = self.policy(place).fallback_delay;
                    if pass == 0 && place > 0 && !pause.is_zero() {
                        ctx.pause(pause.min(self.left(ctx))).await;
                    }
                    let now = now.take().unwrap_or_else(|| ctx.engine.clock.instant());
                    if self.is_over_at(ctx, now) {
                        return Err(self.failed(ctx));
                    }
                    let heat = self.heat_of(pass, place);
                    let answer = match heat {
                        // Boxed so that requests that ask one after the other do not carry the room that this needs.
                        Some(heat) => Box::pin(self.heat(ctx, place, heat)).await?,
                        None => self.try_one(ctx, place, now).await?,
                    };
                    if let Some(answer) = answer {
                        return Ok(answer);
                    }
                    place = heat.map_or(place + 1, |heat| heat.end);
                }
            }
            if sets_left > 0 {
                sets_left -= 1;
                ctx.pause(policy.set_retry_delay.min(self.left(ctx))).await;
                continue;
            }
            // Who comes back by itself, and soon, is waited for.
            let coming = self.failures.iter().filter(|failed| !failed.is_open);
            let pause =
                coming.filter_map(|failed| failed.pause).min().filter(|pause| *pause < self.left(ctx));
            if self.is_over(ctx) || !patience.sit_out(ctx, pause).await {
                return Err(self.failed(ctx));
            }
        }
    }

    /// Which targets run at once from `place` on; `None` where it is asked alone. Who is tried again is alone.
    fn heat_of(&self, pass: u32, place: usize) -> Option<Heat> {
        let count = self.targets.len();
        if pass > 0 || place + 1 >= count || self.is_alone {
            return None;
        }
        let width = self.combo.policy.race_width;
        if self.manner == Manner::Race && place == 0 && width > 1 {
            return Some(Heat { together: width, end: count.min(width), hedges: false });
        }
        if !self.combo.may_hedge() {
            return None;
        }
        let mut policies = self.combo.policies(self.targets.each().skip(place));
        let hedges = policies.any(|policy| policy.hedge_delay.is_some());
        hedges.then_some(Heat { together: 1, end: count, hedges })
    }

    /// Asks one target. `None` when the next one may be asked.
    async fn try_one(
        &mut self,
        ctx: &mut RequestCtx,
        place: usize,
        now: Instant,
    ) -> Result<Option<Attempted>, GatewayError> {
        let bounds = Bounds { now: Some(now), ..self.bounds(ctx, place) };
        let planned = self.targets.at(place);
        let failed = match ask(ctx, &self.combo, &planned, bounds).await {
            Ok(answer) => return Ok(Some(answer)),
            Err(failed) => failed,
        };
        if ctx.is_spent() || self.is_shared(ctx, place, &failed) {
            return Err(failed.error);
        }
        self.failures.note(place, failed);
        Ok(None)
    }

    /// How long and how often the target at `place` may be asked.
    pub(super) fn bounds(&self, ctx: &RequestCtx, place: usize) -> Bounds {
        let is_last = place + 1 == self.targets.len();
        let policy = self.policy(place);
        Bounds {
            now: None,
            tries: if self.is_deep() { 1 + policy.max_retries } else { 1 },
            timeout: (!is_last).then_some(policy.target_timeout),
            deadline: self.deadline,
            calls: (self.calls_before + MAX_CALLS).saturating_sub(ctx.attempts.len()),
            queues: is_last,
            is_first: combo::wave(&self.combo, self.manner, place) == Some(1),
            is_reply: true,
        }
    }

    /// How the target at `place` is asked.
    pub(super) fn policy(&self, place: usize) -> &Policy {
        self.combo.policy_of(self.targets.target(place))
    }

    /// Whether a target is tried again at once: a loyal strategy leaves one only when it cannot serve.
    fn is_deep(&self) -> bool {
        self.combo.strategy.is_loyal() || !self.combo.policy.failover_before_retry
    }

    /// Whether every other target would refuse the request too.
    pub(super) fn is_shared(&self, ctx: &RequestCtx, place: usize, failed: &Failed) -> bool {
        match failed.last.as_deref() {
            // A request that cannot be read is nobody's; one that cannot be written for this target may fit another.
            None => failed.is_request && ctx.canonical.is_none(),
            Some(failure) => match failure.kind {
                FailureKind::Refused => self.policy(place).stop_on_content_filter,
                _ if failure.retry != Retry::Never => false,
                _ => !is_about_target(failure),
            },
        }
    }

    /// Waits before a target that failed in passing is tried again.
    async fn sit_out(&self, ctx: &mut RequestCtx, place: usize) -> bool {
        match self.failures.of(place) {
            Some(failed) => sit_out(ctx, failed, self.policy(place).retry_delay, self.deadline).await,
            None => false,
        }
    }

    pub(super) fn left(&self, ctx: &RequestCtx) -> Duration {
        self.deadline.saturating_duration_since(ctx.engine.clock.instant())
    }

    pub(super) fn is_over(&self, ctx: &RequestCtx) -> bool {
        self.is_over_at(ctx, ctx.engine.clock.instant())
    }

    fn is_over_at(&self, ctx: &RequestCtx, now: Instant) -> bool {
        now >= self.deadline || ctx.attempts.len() >= self.calls_before + MAX_CALLS || ctx.is_spent()
    }

    /// The error when all targets failed: the one that says most, with every attempt.
    pub(super) fn failed(&mut self, ctx: &RequestCtx) -> GatewayError {
        let (count, asked, name) =
            (self.targets.len(), self.failures.iter().count(), self.combo.name.clone());
        self.failed_as(ctx, |error| match asked < count {
            true => in_vain::told_of_some(asked, count, &name, error),
            false => in_vain::told_of_all(count, &name, error),
        })
    }

    /// The same, told in other words.
    pub(super) fn failed_as(&mut self, ctx: &RequestCtx, told: impl FnOnce(&str) -> String) -> GatewayError {
        let Some(mut error) = in_vain::all_failed(&self.combo, self.failures.take_all(), told) else {
            return self.nobody();
        };
        error.attempts = rows::notes(ctx);
        error
    }

    /// The error when there is no target to ask.
    pub(super) fn nobody(&self) -> GatewayError {
        in_vain::no_targets(&self.combo, self.over_cap, &self.left_out)
    }
}

/// Whether a refusal of the request concerns what only this target lacks.
fn is_about_target(failure: &omniroute_provider::Failure) -> bool {
    const WORDS: [&str; 7] = [
        "unsupported",
        "not support",
        "unknown parameter",
        "unrecognized",
        "not allowed for this model",
        "unknown name",
        "extra inputs",
    ];
    let names = |text: &str| {
        let text = text.to_ascii_lowercase();
        WORDS.iter().any(|word| text.contains(word))
    };
    failure.kind == FailureKind::BadRequest
        && (failure.upstream.param.is_some()
            || failure.upstream.code.as_deref().is_some_and(names)
            || names(&failure.upstream.message))
}
