//! What a request may cost and what it did cost: the money it holds while it runs, its bills, and what the client is told
//! of them.
//!
//! Every way to an upstream leads through [`RequestCtx::hold_for`]: a call without a hold is refused as a bug. The hold
//! ends when the request is dropped, whatever became of it.

mod debts;

use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};
use omniroute_dialect::ir::{ErrorKind, Tier, Usage};
use omniroute_domain::budget::spending::Events;
use omniroute_domain::budget::{Decimal, Event, EventKind, Exceeded, Hold, Window, dollars};
use omniroute_domain::combo::{Planned, Targets};
use omniroute_domain::entity::ApiKeyId;
use omniroute_domain::price::{self, Price, PriceSource, Units};
use omniroute_domain::resolve::Target;
use omniroute_provider::ProviderId;
use smallvec::SmallVec;

use crate::ctx::{AnswerSource, RequestCtx};
use crate::error::{GatewayError, rfc3339};
use crate::plan;
use crate::ports::BillRow;
use crate::texts::Texts;
use crate::thrift::Thrift;

/// The most tokens of answer that are held money for; whoever asks for more is billed for more, but waits for nobody.
const HELD_OUTPUT: u64 = 1_024;

const LIMIT: HeaderName = HeaderName::from_static("x-omniroute-budget-limit");
const USED: HeaderName = HeaderName::from_static("x-omniroute-budget-used");
const RESET: HeaderName = HeaderName::from_static("x-omniroute-budget-reset");
const WARNING: HeaderName = HeaderName::from_static("x-omniroute-budget-warning");
const ACTION: HeaderName = HeaderName::from_static("x-omniroute-budget-action");
const COST: HeaderName = HeaderName::from_static("x-omniroute-response-cost");

/// The money of a request.
#[derive(Debug, Default)]
pub(crate) struct Money {
    hold: Option<Hold>,
    /// What calls cost that came to nothing, as long as nothing is held for another one beside them.
    owed_nano: i64,
    bills: Vec<BillRow>,
    is_settled: bool,
    /// Whether the bill is for an answer that an earlier request ordered.
    is_late: bool,
    /// The vendor's id of an answer that is billed further when it is finished.
    later: Option<Box<str>>,
    /// Why the request was refused.
    exceeded: Option<Box<Exceeded>>,
    /// What the request became, where there was no room for what was asked.
    pub(crate) thrift: Option<Box<Thrift>>,
}

impl Money {
    /// What a branch of the request begins with: it spends what its request holds, and may hold more.
    pub(crate) fn lent(&self) -> Self {
        Self { hold: self.hold.as_ref().map(Hold::part), thrift: self.thrift.clone(), ..Self::default() }
    }

    /// Takes over what a branch holds, and why it went no further.
    pub(crate) fn inherit(&mut self, branch: Self) {
        match (&mut self.hold, branch.hold) {
            (Some(mine), Some(theirs)) => mine.absorb(theirs),
            (mine @ None, theirs) => *mine = theirs,
            (Some(_), None) => {}
        }
        self.owed_nano = self.owed_nano.saturating_add(branch.owed_nano);
        if self.exceeded.is_none() {
            self.exceeded = branch.exceeded;
        }
        if self.later.is_none() {
            self.later = branch.later;
        }
    }

    /// There is another way for the request.
    pub(crate) fn forgive(&mut self) {
        self.exceeded = None;
    }

    /// The limit that the request did not fit below.
    pub(crate) fn exceeded(&self) -> Option<&Exceeded> {
        self.exceeded.as_deref()
    }
}

/// What an answer costs, and by which price.
struct Priced {
    amount_nano: Option<i64>,
    source: Option<PriceSource>,
    version: Option<Arc<str>>,
}

impl RequestCtx {
    /// Holds money for calls of these targets, on top of what is held already: for the dearest, or for the `at_once`
    /// dearest where several are paid for. Refused where a budget has not that much left.
    pub(crate) fn hold_for<'a>(
        &mut self,
        targets: impl Iterator<Item = &'a Target>,
        at_once: usize,
        now_ms: i64,
    ) -> Result<(), GatewayError> {
        self.hold_estimated(now_ms, |ctx| ctx.estimated_cost(targets, at_once))
    }

    /// The same for the targets of a plan.
    pub(crate) fn hold_for_plan(
        &mut self,
        targets: &Targets,
        at_once: usize,
        now_ms: i64,
    ) -> Result<(), GatewayError> {
        self.hold_estimated(now_ms, |ctx| {
            if at_once <= 1
                && ctx.task.is_none()
                && ctx.asked_tier() == Tier::Standard
                && let Some(cost) = targets.dearest(ctx.estimated_input_tokens(), ctx.held_output())
            {
                return Ok(cost);
            }
            ctx.estimated_cost(targets.each().map(|target| &**target), at_once)
        })
    }

    fn hold_estimated(
        &mut self,
        now_ms: i64,
        estimated: impl FnOnce(&Self) -> Result<i64, GatewayError>,
    ) -> Result<(), GatewayError> {
        let mut events = Events::new();
        let known = self.money.hold.take();
        let is_known = known.is_some();
        let mut hold = known.unwrap_or_else(|| {
            let key = self.caller.as_ref().map(|caller| &caller.id);
            self.engine.live.spending.open(&self.snapshot.budgets, key)
        });
        let estimate = if hold.is_limited() { estimated(self) } else { Ok(0) };
        let held = estimate.map(|estimate| (estimate, hold.raise(estimate, now_ms, &mut events)));
        // Whoever was let in nowhere holds nothing.
        if is_known || matches!(held, Ok((_, Ok(())))) {
            self.money.hold = Some(hold);
        }
        self.tell(events);
        let (estimate, held) = held?;
        held.map_err(|exceeded| self.too_dear(exceeded, estimate, now_ms))
    }

    /// Lets the request go on without money, for calls that cost nothing.
    pub(crate) fn hold_nothing(&mut self) -> Result<(), GatewayError> {
        let snapshot = self.snapshot.clone();
        let (key, now_ms) = (self.caller.as_ref().map(|caller| &caller.id), self.engine.clock.now_ms());
        let mut events = Events::new();
        let held = match &mut self.money.hold {
            // What may be held already stays.
            Some(hold) => hold.raise_free(now_ms, &mut events),
            None => {
                let free = self.engine.live.spending.hold_free(&snapshot.budgets, key, now_ms, &mut events);
                free.map(|free| self.money.hold = Some(free))
            }
        };
        self.tell(events);
        held.map_err(|exceeded| self.too_dear(exceeded, 0, now_ms))
    }

    /// Has what this request only reads billed to it. No budget refuses that: it is spent.
    pub(crate) fn bill_late(&mut self) {
        let key = self.caller.as_ref().map(|caller| &caller.id);
        let open = || self.engine.live.spending.open(&self.snapshot.budgets, key);
        self.money.hold.get_or_insert_with(open);
        self.money.is_late = true;
    }

    /// Whether there was something to bill of what this request only reads.
    pub(crate) fn is_billed_late(&self) -> bool {
        self.money.is_late
    }

    /// Leaves what this request reads to another process to bill.
    pub(crate) fn bill_nothing_late(&mut self) {
        self.money.is_late = false;
    }

    /// What is held beyond the bill stays held, for the rest of an answer that is not finished.
    pub(crate) fn bill_rest_later(&mut self, id: &str) {
        self.money.later = Some(id.into());
    }

    /// Whether a budget has no room for another call of this request.
    pub(crate) fn is_spent(&self) -> bool {
        self.money.exceeded.is_some()
    }

    /// Finds out what the budgets would say, and leaves them as they are.
    pub(crate) fn try_out_money(&mut self) {
        let key = self.caller.as_ref().map(|caller| &caller.id);
        self.money.hold = Some(self.engine.live.spending.trial(&self.snapshot.budgets, key));
    }

    /// Leaves out what a budget refuses for want of a price; gives what that is.
    pub(crate) fn keep_priced(&self, targets: &mut Targets) -> Result<Vec<Planned>, GatewayError> {
        if !self.refuses_unpriced() {
            return Ok(Vec::new());
        }
        let is_priced = |target: &Target, cost: Option<i64>| match self.task.is_some() {
            true => self.is_payable(target),
            false => cost.is_some() && self.knows_asked_tier(target),
        };
        let count =
            targets.each().zip(targets.costs()).filter(|(target, cost)| is_priced(target, *cost)).count();
        if count == targets.len() {
            return Ok(Vec::new());
        }
        if let Some(first) = targets.each().next().filter(|_| count == 0) {
            return Err(self.unpriced(first));
        }
        let is_unpriced = |planned: &mut Planned| !is_priced(&planned.target, planned.cost_nano);
        Ok(targets.edit(|list| list.extract_if(.., is_unpriced).collect()))
    }

    /// Whether it is known what the model costs in the tier that is asked for.
    fn knows_asked_tier(&self, target: &Target) -> bool {
        self.asked_tier() == Tier::Standard
            || target.quote(&self.snapshot).is_some_and(|quote| quote.price.knows(self.asked_tier()))
    }

    /// The tier in which the client wants its answer.
    pub(crate) fn asked_tier(&self) -> Tier {
        self.envelope.as_ref().map_or(Tier::Standard, |envelope| envelope.spans.tier)
    }

    /// Whether the budgets let the model be asked beside those that money is held for.
    pub(crate) fn is_payable(&self, target: &Target) -> bool {
        if self.money.thrift.as_ref().is_some_and(|thrift| thrift.is_free_only) {
            return self.is_free(target);
        }
        let one = Usage { input_uncached: Some(1), output_total: Some(1), ..Usage::default() };
        let (usage, units) = self.task_estimate().unwrap_or((one, Units::REQUEST));
        let quote = || target.quote(&self.snapshot);
        !self.refuses_unpriced()
            || self.knows_asked_tier(target)
                && quote().is_some_and(|quote| price::cost_nano_with(&quote.price, &usage, &units).is_some())
    }

    /// Whether the budgets would let in a request of its own for so much of a target. Nothing is held or told.
    pub(crate) fn could_pay(&self, target: &Target, usage: &Usage) -> bool {
        let key = self.caller.as_ref().map(|caller| &caller.id);
        let budgets = &self.snapshot.budgets;
        if budgets.of(key).is_none() && budgets.of(None).is_none() {
            return true;
        }
        let quote = target.quote(&self.snapshot);
        if quote.as_ref().is_some_and(|quote| quote.price.is_free()) {
            return true;
        }
        let cost = quote.and_then(|quote| price::cost_nano_with(&quote.price, usage, &Units::REQUEST));
        if cost.is_none() && self.refuses_unpriced() {
            return false;
        }
        let mut trial = self.engine.live.spending.trial(budgets, key);
        trial.raise(cost.unwrap_or(0), self.engine.clock.now_ms(), &mut Events::new()).is_ok()
    }

    /// Whether the model is known to cost nothing.
    pub(crate) fn is_free(&self, target: &Target) -> bool {
        let quote = target.quote(&self.snapshot);
        quote.is_some_and(|quote| quote.price.is_free())
    }

    /// Whether so much of a budget is spent that its owner was warned.
    pub(crate) fn is_warned(&self) -> bool {
        self.money.hold.as_ref().is_some_and(Hold::is_warned)
    }

    /// Whether money is held, if only for nothing.
    pub(crate) fn holds_money(&self) -> bool {
        self.money.hold.is_some()
    }

    /// Books the answer, gives back what was held and counts what was spent. Once; what comes later is nothing.
    pub(crate) fn settle_money(&mut self) {
        if std::mem::replace(&mut self.money.is_settled, true) {
            return;
        }
        self.book();
        let amount = self.money.bills.iter().filter_map(|bill| bill.amount_nano).fold(0, i64::saturating_add);
        let entries = i64::try_from(self.money.bills.len()).unwrap_or(i64::MAX);
        let now_ms =
            self.money.bills.last().map_or_else(|| self.engine.clock.now_ms(), |bill| bill.settled_ms);
        let mut events = Events::new();
        if let Some(hold) = &mut self.money.hold {
            let held = hold.held_nano();
            hold.settle(amount, entries, now_ms, &mut events);
            if let Some(id) = self.money.later.take() {
                let mut rest = hold.part();
                // Where another request was quicker, nothing is held for the rest.
                if rest.raise(held.saturating_sub(amount), now_ms, &mut events).is_ok() {
                    self.engine.awaited.hold(self.tenant(), &id, rest);
                }
            }
        }
        self.tell(events);
    }

    /// The call under way comes to nothing without a refusal: its limit of time ended, its connection broke, another one answered
    /// or the client went away. Where its upstream has the request and has told nothing of the prompt, it is taken to have read
    /// that. What a task comes to nobody can say.
    pub(crate) fn note_unheard(&mut self) {
        let is_there = self.outcome.calling.is_some() && self.outcome.departure.has_left();
        if !is_there || self.about.is_some() {
            return;
        }
        let is_told = match self.ability() {
            // No prompt is empty: a zero stands for what would have been told at the end.
            None => self.outcome.usage.input_total().unwrap_or(0) > 0,
            Some(_) => self.outcome.usage.is_known() || self.outcome.units.is_some(),
        };
        if is_told {
            return;
        }
        if self.ability().is_none() {
            self.outcome.usage = self.with_prompt(self.outcome.usage);
        }
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.is_unheard = true;
        }
    }

    /// What an answer that did not come to its end used, with the prompt by estimate: in the tier that its upstream was asked for,
    /// where the answer told none.
    pub(crate) fn with_prompt(&self, told: Usage) -> Usage {
        let asked = Some(self.outcome.tier).filter(|tier| *tier != Tier::Standard);
        Usage { input_uncached: Some(self.estimated_input_tokens()), tier: told.tier.or(asked), ..told }
    }

    /// A bill for every attempt that used something, or may have, whether or not its answer was of use.
    fn book(&mut self) {
        // What is read again was paid for before.
        let is_paid = self.about.is_some() && !self.money.is_late;
        if is_paid || matches!(self.source, AnswerSource::Repeated | AnswerSource::Cache) {
            return;
        }
        let (count, is_calling) = (self.attempts.len(), self.outcome.calling.is_some());
        let settled_ms = self.engine.clock.now_ms();
        self.money.bills.reserve_exact(count);
        let mut attempts = std::mem::take(&mut self.attempts);
        for (at, attempt) in attempts.iter_mut().enumerate() {
            let is_running = is_calling && at + 1 == count;
            let usage = if is_running { self.outcome.usage } else { attempt.usage };
            let units = if is_running { self.outcome.units.take() } else { attempt.units.take() };
            if !usage.is_known() && units.is_none() && !attempt.is_unheard {
                continue;
            }
            let Priced { amount_nano, source, version } =
                self.priced(&attempt.provider, &attempt.model, (&usage, units.as_deref()));
            attempt.cost_nano = amount_nano;
            plan::count(self, &attempt.connection, &usage, settled_ms);
            if let (Some(tokens), Some(place)) = (usage.output_total, attempt.path.last())
                && place.combo.policy.tracks_metrics
                && attempt.failure.is_none()
            {
                place.step().stats.note_output(tokens);
            }
            self.money.bills.push(BillRow {
                attempt: u32::try_from(at + 1).unwrap_or(u32::MAX),
                provider: attempt.provider.clone(),
                model: attempt.model.clone(),
                usage,
                units: units.clone(),
                estimated: self.outcome.usage_estimated || (attempt.is_unheard && usage.is_known()),
                amount_nano,
                price_source: source.map(PriceSource::as_str),
                price_version: version,
                settled_ms,
                is_saved: false,
            });
            attempt.units = units;
        }
        self.attempts = attempts;
    }

    /// What an answer costs: what the upstream says that it billed, where it says so in dollars, else by its price.
    fn priced(&self, provider: &ProviderId, model: &str, (usage, units): (&Usage, Option<&Units>)) -> Priced {
        if let Some(billed) = usage.billed_nano {
            let state = self.snapshot.provider(provider);
            if state.is_some_and(|state| state.provider.spec().reports_cost) {
                let (amount_nano, source) = (i64::try_from(billed).ok(), Some(PriceSource::Upstream));
                return Priced { amount_nano, source, version: None };
            }
        }
        match self.snapshot.quote(provider, model) {
            None => Priced { amount_nano: None, source: None, version: None },
            Some(quote) => Priced {
                amount_nano: price::cost_nano_with(&quote.price, usage, units.unwrap_or(&Units::REQUEST)),
                source: Some(quote.source),
                version: Some(quote.version.clone()),
            },
        }
    }

    /// What the request cost; `None` when some of it is not known. What nobody billed cost nothing.
    pub(crate) fn cost_nano(&self) -> Option<i64> {
        let bills = &self.money.bills;
        if matches!(self.source, AnswerSource::Cache) {
            return Some(0);
        }
        if bills.is_empty() && (self.attempts.is_empty() || self.about.is_some()) {
            return None;
        }
        bills.iter().try_fold(0_i64, |sum, bill| Some(sum.saturating_add(bill.amount_nano?)))
    }

    /// The bills, for the ledger.
    pub(crate) fn take_bills(&mut self) -> Vec<BillRow> {
        std::mem::take(&mut self.money.bills)
    }

    /// What an answer's head says of money; `is_good` when somebody answered.
    pub(crate) fn write_money(&self, is_good: bool, headers: &mut HeaderMap, texts: &mut Texts) {
        let mut insert = |name: HeaderName, value: Option<HeaderValue>| {
            if let Some(value) = value {
                headers.insert(name, value);
            }
        };
        if let Some(exceeded) = self.money.exceeded.as_ref().filter(|_| !is_good) {
            insert(LIMIT, texts.shown(Decimal(exceeded.limit_nano)));
            insert(USED, texts.shown(Decimal(exceeded.spent_nano)));
            if let Some(reset) = exceeded.reset_at_ms {
                insert(RESET, texts.text(&rfc3339(reset)));
            }
        }
        if let Some(thrift) = &self.money.thrift {
            insert(ACTION, texts.shown(thrift));
        }
        let notices = self.money.hold.as_ref().map(Hold::notices).unwrap_or_default();
        if !notices.is_empty() {
            let told = notices.iter().map(|notice| {
                let whose = if notice.is_everybodys { "all keys " } else { "" };
                format!("{whose}{} {}%", notice.window.as_str(), notice.percent)
            });
            insert(WARNING, texts.text(&told.collect::<Vec<_>>().join(", ")));
        }
        if self.money.is_settled {
            let cost = match self.cost_nano() {
                Some(cost) => texts.shown(Decimal(cost)),
                None => Some(HeaderValue::from_static("unknown")),
            };
            insert(COST, cost);
        }
    }

    /// What calls of these targets may cost: the prompt, and some of the answer.
    fn estimated_cost<'a>(
        &self,
        targets: impl Iterator<Item = &'a Target>,
        at_once: usize,
    ) -> Result<i64, GatewayError> {
        let task = self.task_estimate();
        let (tier, input, output) = match task {
            Some(_) => (Tier::Standard, 0, 0),
            None => {
                let envelope = self.envelope()?;
                (envelope.spans.tier, self.estimated_input_tokens(), self.held_output())
            }
        };
        let priced = |price: &Price| match &task {
            Some((usage, units)) => price::cost_nano_with(price, usage, units),
            None => price::text_nano_in(price, tier, input, output),
        };
        let cost_of = |target: &Target| {
            let quote = target.quote(&self.snapshot);
            match quote.and_then(|quote| priced(&quote.price)) {
                Some(cost) => Ok(cost),
                None if self.refuses_unpriced() => Err(self.unpriced(target)),
                // What has no price counts nothing, before the answer as after it; a tier without one may turn out to be
                // the usual one.
                None => {
                    Ok(quote.and_then(|quote| price::text_nano(&quote.price, input, output)).unwrap_or(0))
                }
            }
        };
        let mut targets = targets.map(cost_of);
        if at_once <= 1 {
            return targets.try_fold(0, |most: i64, cost| Ok(most.max(cost?)));
        }
        let mut costs = targets.collect::<Result<SmallVec<[i64; 8]>, _>>()?;
        costs.sort_unstable_by(|a, b| b.cmp(a));
        Ok(costs.into_iter().take(at_once).fold(0, i64::saturating_add))
    }

    /// As many tokens of answer as money is held for.
    fn held_output(&self) -> u64 {
        let asked = self.envelope.as_ref().and_then(|envelope| envelope.max_output_tokens);
        asked.unwrap_or(HELD_OUTPUT).min(HELD_OUTPUT)
    }

    /// The refusal of a model whose cost would be unknown.
    fn unpriced(&self, target: &Target) -> GatewayError {
        let name = target.full_name();
        match self.asked_tier().as_str().filter(|_| target.quote(&self.snapshot).is_some()) {
            Some(tier) if !self.knows_asked_tier(target) => {
                let message = format!(
                    "`{name}` has no price in the tier `{tier}`, and the budget refuses what has none (`blockUnpriced`); \
                     set one under /api/pricing, or ask for another tier"
                );
                GatewayError::new(ErrorKind::Permission, "unpriced_model", message).param("service_tier")
            }
            _ => unpriced(&name),
        }
    }

    fn refuses_unpriced(&self) -> bool {
        let budgets = &self.snapshot.budgets;
        budgets.refuse_unpriced(self.caller.as_ref().map(|caller| &caller.id))
    }

    fn tell(&self, events: Events) {
        for event in events {
            log(&event);
            self.engine.live.notices.budget(&event);
            self.engine.recorder.budget(event);
        }
    }

    fn too_dear(&mut self, exceeded: Exceeded, estimate: i64, now_ms: i64) -> GatewayError {
        let whose = if exceeded.key.is_some() { "" } else { " of all keys together" };
        let mut message = format!(
            "{} budget{whose} used: {} of {}",
            exceeded.window.as_str(),
            dollars(exceeded.spent_nano),
            dollars(exceeded.limit_nano)
        );
        if exceeded.spent_nano <= exceeded.limit_nano {
            message += &format!("; this request may cost {}", dollars(estimate));
            if exceeded.held_nano > 0 {
                message += &format!(", running ones {}", dollars(exceeded.held_nano));
            }
        }
        let wait = exceeded.reset_at_ms.map(|reset| {
            Duration::from_millis(u64::try_from(reset.saturating_sub(now_ms)).unwrap_or(0).max(1))
        });
        let mut error =
            GatewayError::new(ErrorKind::RateLimited, "budget_exceeded", message).retry_after(wait);
        // What is used up for ever does not come back by asking again.
        error.is_final = exceeded.window == Window::Total;
        self.money.exceeded = Some(Box::new(exceeded));
        error
    }
}

/// A line of the process log: a budget says each of these once in a window.
fn log(event: &Event) {
    let (key, window) = (event.key.as_ref().map_or("*", ApiKeyId::as_str), event.window.as_str());
    match &event.kind {
        EventKind::Warning { spent_nano, limit_nano } => {
            let (spent, limit) = (dollars(*spent_nano), dollars(*limit_nano));
            tracing::warn!(key, window, spent, limit, "a budget is nearly used up");
        }
        EventKind::Exceeded { spent_nano, limit_nano } => {
            let (spent, limit) = (dollars(*spent_nano), dollars(*limit_nano));
            tracing::warn!(key, window, spent, limit, "a budget has no room for a request");
        }
        EventKind::Reset { spent_nano, .. } => {
            tracing::info!(key, window, spent = dollars(*spent_nano), "a budget begins anew");
        }
    }
}

/// The error for a call that no money was held for.
pub(crate) fn nothing_held() -> GatewayError {
    let message = "an upstream was to be called without a look at the budgets; this is a bug of the gateway";
    GatewayError::new(ErrorKind::Internal, "internal_server_error", message)
}

fn unpriced(name: &str) -> GatewayError {
    let message = format!(
        "`{name}` has no price, and the budget refuses models without one (`blockUnpriced`); set one under /api/pricing"
    );
    GatewayError::new(ErrorKind::Permission, "unpriced_model", message).param("model")
}
