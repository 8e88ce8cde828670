//! What would become of a request: which targets would be asked, in which order, and what keeps each other one back. Nothing
//! is sent, counted or reserved, and nobody's turn is taken.

use std::sync::Arc;

use bytes::Bytes;
use omniroute_dialect::DialectId;
use omniroute_domain::combo::{self, ComboState, LeftOut, Planned};
use omniroute_domain::entity::ConnectionId;
use omniroute_domain::health::{Blocked, Hold};
use omniroute_domain::policy::Observed;
use omniroute_domain::resolve::{Route, Target};
use omniroute_domain::routing::{Manner, Score, auto};
use omniroute_domain::snapshot::ConnectionState;
use omniroute_provider::ProviderId;

use crate::admit;
use crate::attempt::{self, Layout, NoPlace, Trying};
use crate::barred::Barred;
use crate::ctx::RequestCtx;
use crate::error::GatewayError;
use crate::fallback;
use crate::kept;
use crate::policy;
use crate::resolve::{self, Obstacle};
use crate::serve::Engine;
use crate::session;
use crate::task::{self, Asked};
use crate::time::millis;

/// Said of a target that the key does not lead to.
pub(crate) const NOT_THEIRS: &str = "the key may not use this model";

/// Said of a target that a budget has no room for.
pub(crate) const UNPAID: &str = "the budget has no room for it";

/// What would become of a request.
#[derive(Debug)]
pub struct Preview {
    /// The model as the client wrote it.
    pub requested_model: String,
    /// How it was found: `combo`, `auto`, `alias`, `direct` or `bare`; `None` when it was not.
    pub via: Option<&'static str>,
    /// The combo's name.
    pub combo: Option<Arc<str>>,
    /// The strategy that orders the targets, or the accounts where there is one target.
    pub strategy: Option<&'static str>,
    /// The policies that applied, in order.
    pub policies: Vec<Arc<str>>,
    /// What policies that only observe would have done.
    pub observed: Vec<Observed>,
    /// What it would become because a budget has no room for it (`daily free-only`).
    pub budget: Option<String>,
    /// Those that would be asked, in order; then those that would not.
    pub candidates: Vec<PreviewedCandidate>,
    /// The random bits of the decision, by which it can be made again.
    pub seed: u64,
    /// What the request is about, where `auto` had to know.
    pub task: Option<&'static str>,
    /// What the client would get when nobody can be asked.
    pub error: Option<GatewayError>,
    /// When this was so, in epoch milliseconds.
    pub decided_at: i64,
}

/// An account for a target, or a step of a combo that leads to none.
#[derive(Debug)]
pub struct PreviewedCandidate {
    /// Provider id; `None` where the step leads to none.
    pub provider: Option<ProviderId>,
    /// The model as the provider knows it, or what the step says.
    pub model: Arc<str>,
    /// The account.
    pub connection: Option<(ConnectionId, Arc<str>)>,
    /// Dialect in which it would be asked.
    pub dialect: Option<&'static str>,
    /// Why it would not be asked.
    pub skip: Option<Skip>,
    /// What the request would cost there, in billionths of a US dollar; `None` = unknown.
    pub cost_nano: Option<i64>,
    /// What speaks for it, where `auto` chose.
    pub score: Option<Score>,
    /// When its target is asked, counted from 1: targets with the same number start together.
    pub wave: Option<usize>,
}

/// Why a candidate would not be asked, with the reason as text or as a look at one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skip<T = String> {
    /// `cooldown`, `model_lock`, `breaker`, `inactive`, `concurrency`, `rate_limit`, `key`, `policy`, `width`, `excluded`,
    /// `condition`, `capability`, `nesting`, `budget`.
    pub rule: &'static str,
    /// In words.
    pub reason: T,
    /// When it ends, in epoch milliseconds; `None` = nobody knows.
    pub until: Option<i64>,
}

impl Skip {
    /// Without a copy.
    pub(crate) fn as_ref(&self) -> Skip<&str> {
        Skip { rule: self.rule, reason: &self.reason, until: self.until }
    }
}

impl Engine {
    /// Says what would become of a request. An error is for what is no request at all; what the gateway would refuse is in
    /// the preview.
    pub async fn preview(&self, mut ctx: Box<RequestCtx>, body: Bytes) -> Result<Preview, GatewayError> {
        ctx.set_body(body);
        ctx.envelope = Some(ctx.dialect().envelope(ctx.head(), &ctx.body)?);
        ctx.session = session::peek(&ctx);
        self.foresee(&mut ctx).await
    }

    /// The same of a request that is not for chat.
    pub async fn preview_task(
        &self,
        mut ctx: Box<RequestCtx>,
        body: Bytes,
        asked: Asked,
    ) -> Result<Preview, GatewayError> {
        task::look_at(&mut ctx, &body, asked)?;
        self.foresee(&mut ctx).await
    }

    async fn foresee(&self, ctx: &mut RequestCtx) -> Result<Preview, GatewayError> {
        let mut preview = Preview {
            requested_model: ctx.envelope()?.model.to_string(),
            via: None,
            combo: None,
            strategy: None,
            policies: Vec::new(),
            observed: Vec::new(),
            budget: None,
            candidates: Vec::new(),
            seed: ctx.seed,
            task: None,
            error: None,
            decided_at: ctx.started_ms,
        };
        let identified = admit::would_identify(ctx);
        let route = if ctx.task.is_some() { task::route(ctx) } else { resolve::route(ctx) };
        preview.policies.extend(ctx.steering.iter().flat_map(|steering| steering.applied.iter().cloned()));
        ctx.try_out_money();
        let entered = match &route {
            Err(_) => Ok(()),
            Ok(route) => enter(ctx, route).await,
        };
        match route {
            Err(error) => {
                if let Some(barred) = ctx.barred.take() {
                    preview.of_nobody(ctx, &barred);
                }
                preview.error = Some(error);
            }
            Ok(Route::Target(target)) => preview.direct(ctx, target).await?,
            Ok(Route::Combo(combo)) => preview.of_combo(ctx, &combo).await?,
        }
        if let Err(error) = identified.and(entered) {
            preview.refuse(error);
        }
        preview.observed = ctx.steering.take().map(|steering| steering.observed).unwrap_or_default();
        preview.budget = ctx.money.thrift.as_ref().map(ToString::to_string);
        Ok(preview)
    }
}

/// What a request has to pass between its route and its first target; the account that it is bound to is found on the way.
pub(crate) async fn enter(ctx: &mut RequestCtx, route: &Route) -> Result<(), GatewayError> {
    // Only a conversation is one, or goes on from an answer that is kept.
    if ctx.task.is_none() {
        let conversation = session::would_enter(ctx);
        let bound = kept::pin(ctx, route).await;
        conversation.and(bound)?;
    }
    admit::would_reserve(ctx).await
}

impl Preview {
    /// Nobody is asked, and this is what the client gets.
    fn refuse(&mut self, error: GatewayError) {
        let until = error.retry_after.map(|wait| self.decided_at.saturating_add(millis(wait)));
        for candidate in self.candidates.iter_mut().filter(|candidate| candidate.skip.is_none()) {
            candidate.skip = Some(Skip { rule: "key", reason: error.message.clone(), until });
            candidate.wave = None;
        }
        self.error = Some(error);
    }

    /// A request that does not get to where it leads.
    fn of_nobody(&mut self, ctx: &RequestCtx, barred: &Barred) {
        let Barred::From { route, skip } = barred else { return };
        match route {
            Route::Target(target) => self.led_to_target(target),
            Route::Combo(combo) => self.led_to_combo(combo),
        }
        for target in barred.targets(ctx) {
            let cost = policy::cost_nano(ctx, &target);
            let accounts = target.provider.connections.iter();
            self.candidates.extend(accounts.map(|account| PreviewedCandidate {
                skip: Some(skip.clone()),
                ..candidate(ctx, &target, account, cost)
            }));
        }
    }

    fn led_to_target(&mut self, target: &Target) {
        self.via = Some(target.via.as_str());
        self.strategy = Some(target.provider.rule.strategy.name());
    }

    fn led_to_combo(&mut self, combo: &ComboState) {
        self.via = Some(if auto::is_virtual(combo.id.as_str()) { "auto" } else { "combo" });
        self.combo = Some(combo.name.clone());
        self.strategy = Some(combo.strategy.name());
    }

    /// A request that leads to one target, and to those that stand in for it.
    async fn direct(&mut self, ctx: &mut RequestCtx, target: Arc<Target>) -> Result<(), GatewayError> {
        self.led_to_target(&target);
        let mut targets = fallback::others(ctx, &target);
        targets.insert(0, target);
        let mut unpaid = Vec::new();
        if let Err(error) = ctx.hold_for(targets.iter().map(|target| &**target), 1, ctx.engine.clock.now_ms())
        {
            if !ctx.keeps_free()
                && let Some(cheaper) = ctx.downgrade()
            {
                return self.of_combo(ctx, &cheaper).await;
            }
            self.error = match ctx.keeps_free() && targets.iter().any(|target| ctx.is_free(target)) {
                true => ctx.go_free().err(),
                false => Some(error),
            };
            let is_asked = |target: &Arc<Target>| self.error.is_none() && ctx.is_free(target);
            (targets, unpaid) = targets.into_iter().partition(is_asked);
        }
        let mut later = Vec::new();
        for target in &targets {
            let (mut tried, mut skipped) =
                judged(ctx, target, policy::cost_nano(ctx, target), &mut self.policies);
            self.candidates.append(&mut tried);
            later.append(&mut skipped);
        }
        for target in &unpaid {
            let (mut tried, mut skipped) =
                judged(ctx, target, policy::cost_nano(ctx, target), &mut self.policies);
            keep_back(&mut tried, &mut skipped, "budget", UNPAID);
            later.append(&mut skipped);
        }
        self.candidates.append(&mut later);
        if self.error.is_none() {
            self.error = attempt::of_chain(ctx, &targets);
        }
        Ok(())
    }

    /// A request that leads to a combo, or to another one where a budget has no room for it.
    async fn of_combo(&mut self, ctx: &mut RequestCtx, combo: &Arc<ComboState>) -> Result<(), GatewayError> {
        let mut combo = combo.clone();
        let mut layout = match attempt::lay_out(ctx, &combo, false, None).await {
            Ok(layout) => layout,
            // None of the targets can do what is asked.
            Err(error) if ctx.task.is_some() => {
                self.error = Some(error);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if layout.refusal.is_some()
            && let Some(cheaper) = ctx.downgrade()
        {
            layout = attempt::lay_out(ctx, &cheaper, false, None).await?;
            combo = cheaper;
        }
        self.led_to_combo(&combo);
        self.task = layout.plan.task.map(auto::Task::as_str);
        self.list(ctx, &combo, layout).await
    }

    /// The accounts of a combo's targets: those that would be asked, in order, and the others.
    async fn list(
        &mut self,
        ctx: &mut RequestCtx,
        combo: &Arc<ComboState>,
        layout: Layout,
    ) -> Result<(), GatewayError> {
        let Layout { plan, targets, denied, unpaid, manner, refusal, .. } = layout;
        let is_refused = refusal.is_some();
        let mut reached = usize::MAX;
        self.error = match refusal {
            Some(error) => Some(error),
            None => {
                let without = (plan.over_cap, &*plan.left_out);
                let vain = attempt::of_plan(ctx, combo, targets.list(), manner, without).await?;
                vain.map(|vain| {
                    reached = vain.reached;
                    vain.error
                })
            }
        };
        let mut later = Vec::new();
        for (place, planned) in targets.list().iter().enumerate() {
            let (mut tried, mut skipped) = self.planned(ctx, planned);
            let wave = combo::wave(combo, manner, place);
            tried.iter_mut().for_each(|candidate| candidate.wave = wave);
            if is_refused {
                keep_back(&mut tried, &mut skipped, "budget", UNPAID);
            } else if place >= reached {
                keep_back(&mut tried, &mut skipped, "inactive", "the pipeline does not get that far");
            } else if wave.is_none() {
                keep_back(&mut tried, &mut skipped, "width", "a fusion asks the first fusionWidth targets");
            }
            self.candidates.append(&mut tried);
            later.append(&mut skipped);
        }
        let kept_back = denied.iter().map(|planned| (planned, "key", NOT_THEIRS));
        for (planned, rule, reason) in kept_back.chain(unpaid.iter().map(|it| (it, "budget", UNPAID))) {
            let (mut tried, mut skipped) = self.planned(ctx, planned);
            keep_back(&mut tried, &mut skipped, rule, reason);
            later.append(&mut skipped);
        }
        ctx.trying = None;
        let first = targets.list().first().filter(|_| manner == Manner::Fusion && !is_refused);
        if let Some(Ok(judge)) =
            first.and_then(|first| combo::judge(&ctx.snapshot, combo, Some(&first.target)))
        {
            let cost = policy::cost_nano(ctx, &judge);
            let (mut tried, mut skipped) = judged(ctx, &judge, cost, &mut self.policies);
            if !admit::may_use_in(ctx, combo, &judge) {
                keep_back(&mut tried, &mut skipped, "key", NOT_THEIRS);
            } else if !ctx.is_payable(&judge) {
                keep_back(&mut tried, &mut skipped, "budget", UNPAID);
            }
            tried.iter_mut().for_each(|candidate| candidate.wave = Some(2));
            self.candidates.append(&mut tried);
            later.append(&mut skipped);
        }
        self.candidates.append(&mut later);
        self.candidates.extend(plan.left_out.into_iter().map(step));
        Ok(())
    }

    fn planned(
        &mut self,
        ctx: &mut RequestCtx,
        planned: &Planned,
    ) -> (Vec<PreviewedCandidate>, Vec<PreviewedCandidate>) {
        ctx.trying = Some(Trying::previewed(planned, ctx.started));
        let (mut tried, mut skipped) = judged(ctx, &planned.target, planned.cost_nano, &mut self.policies);
        for candidate in tried.iter_mut().chain(&mut skipped) {
            candidate.score = planned.score.as_deref().copied();
        }
        (tried, skipped)
    }
}

/// The accounts of a target as the policies leave them: those that would be asked, in order, and the others.
fn judged(
    ctx: &mut RequestCtx,
    target: &Target,
    cost_nano: Option<i64>,
    applied: &mut Vec<Arc<str>>,
) -> (Vec<PreviewedCandidate>, Vec<PreviewedCandidate>) {
    let verdict = policy::of_target(ctx, ctx.requested(), target);
    policy::add_new(applied, verdict.applied.iter().cloned());
    let denial = verdict.denial.as_ref().map(|denial| denial.reason.clone());
    if !ctx.snapshot.policies.is_empty() {
        let steering = ctx.steering.get_or_insert_default();
        Observed::add_new(&mut steering.observed, &verdict.observed);
        steering.verdict = verdict;
    }
    let (mut tried, mut skipped) = accounts(ctx, target, cost_nano);
    if let Some(reason) = denial {
        keep_back(&mut tried, &mut skipped, "policy", &reason);
    }
    (tried, skipped)
}

/// Why none of a target's accounts would be asked, in the words for the first of them.
pub(crate) fn why_not(ctx: &mut RequestCtx, target: &Target) -> Option<Skip> {
    let (_, skipped) = judged(ctx, target, None, &mut Vec::new());
    skipped.into_iter().find_map(|candidate| candidate.skip)
}

/// None of a target's accounts is asked, and this is why.
fn keep_back(
    tried: &mut Vec<PreviewedCandidate>,
    skipped: &mut Vec<PreviewedCandidate>,
    rule: &'static str,
    reason: &str,
) {
    skipped.append(tried);
    for candidate in skipped {
        candidate.skip = Some(Skip { rule, reason: reason.to_owned(), until: None });
    }
}

/// The accounts of a target: those that would be asked, in order, and the others.
fn accounts(
    ctx: &RequestCtx,
    target: &Target,
    cost_nano: Option<i64>,
) -> (Vec<PreviewedCandidate>, Vec<PreviewedCandidate>) {
    let now_ms = ctx.started_ms;
    let (mut tried, mut skipped) = (Vec::new(), Vec::new());
    for connection in attempt::foreseen(ctx, target, now_ms) {
        let mut candidate = candidate(ctx, target, connection, cost_nano);
        let skip = attempt::no_place(ctx, target, connection, now_ms).map(|why| match why {
            NoPlace::Busy => Skip {
                rule: "concurrency",
                reason: "as many requests are running as the account may have at once".to_owned(),
                until: None,
            },
            NoPlace::Held(until) => Skip {
                rule: "rate_limit",
                reason: "it is held to its rate limit; asked when no other account can go at once".to_owned(),
                until,
            },
        });
        let is_tried = skip.is_none();
        candidate.skip = skip;
        if is_tried { &mut tried } else { &mut skipped }.push(candidate);
    }
    for connection in &target.provider.connections {
        if let Some(obstacle) = resolve::obstacle(ctx, target, connection, now_ms) {
            let skip = Some(told(&obstacle));
            skipped.push(PreviewedCandidate { skip, ..candidate(ctx, target, connection, cost_nano) });
        }
    }
    (tried, skipped)
}

fn candidate(
    ctx: &RequestCtx,
    target: &Target,
    connection: &ConnectionState,
    cost_nano: Option<i64>,
) -> PreviewedCandidate {
    PreviewedCandidate {
        provider: Some(target.provider.id.clone()),
        model: target.model.clone(),
        connection: Some((connection.id.clone(), connection.name.clone())),
        dialect: match ctx.ability() {
            None => dialect(target, connection, ctx.dialect().id(), ctx.started_ms),
            Some(ability) => {
                connection.service(ability).and_then(|service| Some(service.dialect.chat_dialect()?.as_str()))
            }
        },
        skip: None,
        cost_nano,
        score: None,
        wave: None,
    }
}

/// The dialect in which an account would be asked.
pub(crate) fn dialect(
    target: &Target,
    connection: &ConnectionState,
    client: DialectId,
    now_ms: i64,
) -> Option<&'static str> {
    let only = target.provider.only_dialect(&target.model);
    connection.endpoint_for(client, only, now_ms).map(|endpoint| endpoint.dialect.as_str())
}

pub(crate) fn told(obstacle: &Obstacle) -> Skip {
    let plain = |rule, reason: &str| Skip { rule, reason: reason.to_owned(), until: None };
    match obstacle {
        Obstacle::Other => plain("excluded", "another account was named"),
        Obstacle::Denied => plain("key", "the key may not use this account"),
        Obstacle::Excluded => plain("excluded", "the account is kept from this model"),
        Obstacle::Untagged => plain("policy", "the account lacks a label that a policy or the combo wants"),
        Obstacle::Blocked(Blocked { reason, until, hold }) => {
            let rule = match (until, hold) {
                (None, _) => "inactive",
                (Some(_), Hold::Model) => "model_lock",
                (Some(_), Hold::Connection) => "cooldown",
                (Some(_), Hold::Provider) => "breaker",
            };
            Skip { rule, reason: reason.as_str().to_owned(), until: *until }
        }
    }
}

/// A step that leads to no target for this request.
fn step(left: LeftOut) -> PreviewedCandidate {
    let LeftOut { step: _, goal, target, cost_nano, rule, reason, until } = left;
    PreviewedCandidate {
        provider: target.as_ref().map(|target| target.provider.id.clone()),
        model: target.map_or_else(|| goal.into(), |target| target.model.clone()),
        connection: None,
        dialect: None,
        skip: Some(Skip { rule: rule.as_str(), reason, until }),
        cost_nano,
        score: None,
        wave: None,
    }
}
