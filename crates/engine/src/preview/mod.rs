//! What would become of a request: which targets would be asked, in which order, and what keeps each other one back. Nothing
//! is sent, counted or reserved, and nobody's turn is taken.

mod accounts;

use std::sync::Arc;

use bytes::Bytes;
use omniroute_domain::combo::{self, ComboState, Plan, Planned};
use omniroute_domain::entity::ConnectionId;
use omniroute_domain::policy::Observed;
use omniroute_domain::resolve::{Route, Target};
use omniroute_domain::routing::{Manner, Score, auto};
use omniroute_provider::ProviderId;

use accounts::{Accounts, idle_candidate, step};
pub(crate) use accounts::{told, why_not};

use crate::admit;
use crate::attempt::{self, Layout, Trying};
use crate::barred::{Barred, Unserved};
use crate::ctx::RequestCtx;
use crate::error::GatewayError;
use crate::fallback;
use crate::kept;
use crate::policy;
use crate::resolve;
use crate::serve::Engine;
use crate::session;
use crate::task::{self, Asked};
use crate::time::millis;
use crate::turn::{COST_NANO, Turn};

/// Said of a target that the key does not lead to.
pub(crate) const NOT_THEIRS: &str = "the key may not use this model";

/// Said of a fusion's targets that are not asked.
pub(crate) const BEYOND: &str = "a fusion asks the first fusionWidth targets";

/// Said of a target that a budget has no room for.
pub(crate) const UNPAID: &str = "the budget has no room for it";

/// The rule that keeps accounts back until somebody changes something.
pub(crate) const IDLE: &str = "inactive";

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
    /// What the gateway itself takes the prompt for, in tokens, where they are to be counted: the answer if nobody is asked, or
    /// whoever is does not answer.
    pub estimated_tokens: Option<u64>,
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
    /// One that ends nobody knows when.
    pub(crate) fn plain(rule: &'static str, reason: impl Into<String>) -> Self {
        Self { rule, reason: reason.into(), until: None }
    }

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

    /// The same of one about an answer that a vendor keeps.
    pub async fn preview_kept(&self, mut ctx: Box<RequestCtx>, id: &str) -> Preview {
        attempt::preview_about(&mut ctx, id).await
    }

    async fn foresee(&self, ctx: &mut RequestCtx) -> Result<Preview, GatewayError> {
        let mut preview = Preview::of(ctx, ctx.envelope()?.model.to_string());
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
                preview.of_barred(ctx);
                preview.error = Some(error);
            }
            Ok(Route::Target(target)) => preview.direct(ctx, target).await?,
            Ok(Route::Combo(combo)) => preview.of_combo(ctx, &combo).await?,
        }
        preview.finish(ctx, identified.and(entered));
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
    /// Of a request of which nothing is known yet but the model.
    pub(crate) fn of(ctx: &RequestCtx, requested_model: String) -> Self {
        Self {
            requested_model,
            via: None,
            combo: None,
            strategy: None,
            policies: Vec::new(),
            observed: Vec::new(),
            budget: None,
            candidates: Vec::new(),
            seed: ctx.seed,
            task: None,
            estimated_tokens: None,
            error: None,
            decided_at: ctx.started_ms,
        }
    }

    /// Nothing more will be known; an error is what keeps the request from whoever would be asked.
    pub(crate) fn finish(&mut self, ctx: &mut RequestCtx, entered: Result<(), GatewayError>) {
        self.add_unserved(&ctx.instead_of);
        if let Err(error) = entered {
            self.refuse(error);
        }
        if let Some(steering) = ctx.steering.take() {
            policy::add_new(&mut self.policies, steering.applied.into_iter().chain(steering.verdict.applied));
            self.observed = steering.observed;
        }
        self.budget = ctx.money.thrift.as_ref().map(ToString::to_string);
    }

    /// A request that gets to nobody, if this is one.
    pub(crate) fn of_barred(&mut self, ctx: &mut RequestCtx) {
        if let Some(barred) = ctx.barred.take() {
            self.of_nobody(ctx, &barred);
        }
    }

    /// A call that one account gets or nobody. With the combo that it leads to, and its plan: a turn for each target.
    pub(crate) fn of_turns(
        &mut self,
        ctx: &RequestCtx,
        turns: Vec<Turn>,
        combo: Option<(Arc<ComboState>, Plan)>,
    ) {
        match (&combo, turns.first()) {
            (Some((combo, _)), _) => self.led_to_combo(combo),
            (None, Some(turn)) => self.led_to_target(&turn.target),
            (None, None) => {}
        }
        let is_combo = combo.is_some();
        let plan = combo.map(|(_, plan)| plan).unwrap_or_default();
        self.task = plan.task.map(auto::Task::as_str);
        let mut later = Vec::new();
        for (place, turn) in turns.into_iter().enumerate() {
            let mut accounts = Accounts::standing(ctx, turn, Some(COST_NANO));
            let wave = is_combo.then_some(place + 1);
            accounts.tried.iter_mut().for_each(|candidate| candidate.wave = wave);
            let score = plan.targets.list().get(place).and_then(|planned| planned.score.as_deref().copied());
            accounts.each().for_each(|candidate| candidate.score = score);
            self.add(accounts, &mut later);
        }
        for planned in &plan.denied {
            let skip = Skip::plain("key", NOT_THEIRS);
            self.add(Accounts::barred(ctx, &planned.target, planned.cost_nano, &skip), &mut later);
        }
        self.candidates.append(&mut later);
        self.candidates.extend(plan.left_out.into_iter().flat_map(step));
    }

    /// Nobody is asked, and this is what the client gets.
    fn refuse(&mut self, error: GatewayError) {
        let until = error.retry_after.map(|wait| self.decided_at.saturating_add(millis(wait)));
        for candidate in self.candidates.iter_mut().filter(|candidate| candidate.skip.is_none()) {
            candidate.skip = Some(Skip { rule: "key", reason: error.message.clone(), until });
            candidate.wave = None;
        }
        self.error = Some(error);
    }

    fn add_unserved(&mut self, unserved: &[Unserved]) {
        for Unserved { model, accounts } in unserved {
            self.candidates.extend(accounts.iter().map(|idle| idle_candidate(model, idle, None)));
        }
    }

    /// A request that does not get to where it leads, or leads nowhere.
    fn of_nobody(&mut self, ctx: &RequestCtx, barred: &Barred) {
        let (route, skip) = match barred {
            Barred::From { route, skip } => (route, skip),
            Barred::Lost(unserved) => {
                return self.add_unserved(unserved);
            }
        };
        match route {
            Route::Target(target) => self.led_to_target(target),
            Route::Combo(combo) => self.led_to_combo(combo),
        }
        for target in barred.targets(ctx) {
            let accounts = Accounts::barred(ctx, &target, ctx.cost_at(&target), skip);
            let Accounts { tried: _, skipped, idle } = accounts;
            self.candidates.extend(skipped.into_iter().chain(idle));
        }
    }

    /// Takes over the accounts of a target: those that would be asked now, the others `later`.
    fn add(&mut self, accounts: Accounts, later: &mut Vec<PreviewedCandidate>) {
        let Accounts { tried, skipped, idle } = accounts;
        self.candidates.extend(tried);
        later.extend(skipped.into_iter().chain(idle));
    }

    /// The accounts of a target.
    fn judge(&mut self, ctx: &mut RequestCtx, target: &Target) -> Accounts {
        let cost_nano = policy::cost_nano(ctx, target);
        Accounts::judged(ctx, target, cost_nano, &mut self.policies)
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
            let accounts = self.judge(ctx, target);
            self.add(accounts, &mut later);
        }
        for target in &unpaid {
            let mut accounts = self.judge(ctx, target);
            accounts.keep_back("budget", UNPAID);
            self.add(accounts, &mut later);
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
                ctx.bar(Route::Combo(combo), "capability", &error);
                self.of_barred(ctx);
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
            let mut accounts = self.planned(ctx, planned);
            let wave = combo::wave(combo, manner, place);
            accounts.tried.iter_mut().for_each(|candidate| candidate.wave = wave);
            if is_refused {
                accounts.keep_back("budget", UNPAID);
            } else if place >= reached {
                accounts.keep_back(IDLE, "the pipeline does not get that far");
            } else if wave.is_none() {
                accounts.keep_back("width", BEYOND);
            }
            self.add(accounts, &mut later);
        }
        let kept_back = denied.iter().map(|planned| (planned, "key", NOT_THEIRS));
        for (planned, rule, reason) in kept_back.chain(unpaid.iter().map(|it| (it, "budget", UNPAID))) {
            let mut accounts = self.planned(ctx, planned);
            accounts.keep_back(rule, reason);
            self.add(accounts, &mut later);
        }
        ctx.trying = None;
        let first = targets.list().first().filter(|_| manner == Manner::Fusion && !is_refused);
        if let Some(Ok(judge)) =
            first.and_then(|first| combo::judge(&ctx.snapshot, combo, Some(&first.target)))
        {
            let mut accounts = self.judge(ctx, &judge);
            if !admit::may_use_in(ctx, combo, &judge) {
                accounts.keep_back("key", NOT_THEIRS);
            } else if !ctx.is_payable(&judge) {
                accounts.keep_back("budget", UNPAID);
            }
            accounts.tried.iter_mut().for_each(|candidate| candidate.wave = Some(2));
            self.add(accounts, &mut later);
        }
        self.candidates.append(&mut later);
        self.candidates.extend(plan.left_out.into_iter().flat_map(step));
        Ok(())
    }

    fn planned(&mut self, ctx: &mut RequestCtx, planned: &Planned) -> Accounts {
        ctx.trying = Some(Trying::previewed(planned, ctx.started));
        let mut accounts = Accounts::judged(ctx, &planned.target, planned.cost_nano, &mut self.policies);
        accounts.each().for_each(|candidate| candidate.score = planned.score.as_deref().copied());
        accounts
    }
}
