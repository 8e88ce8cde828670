//! How the next requests of a combo would be spread over its targets, and what becomes of them where targets fail as often as they
//! did of late. Nothing is sent, and the state that the orders depend on is a copy: turns are taken in it, and nobody else's.

use std::sync::Arc;

use bytes::Bytes;
use omniroute_domain::combo::ComboState;
use omniroute_domain::resolve::Route;
use omniroute_domain::routing::Manner;
use omniroute_provider::ProviderId;

use crate::admit;
pub use crate::attempt::Row;
use crate::attempt::{self, Layout, Rows};
use crate::ctx::RequestCtx;
use crate::error::GatewayError;
use crate::money::Money;
use crate::policy;
use crate::preview;
use crate::resolve;
use crate::serve::Engine;
use crate::task::{self, Asked};

/// What is to be played.
#[derive(Debug, Clone)]
pub struct RehearsalAsk {
    /// The combo's name.
    pub combo: String,
    /// How many requests.
    pub requests: u32,
    /// The random bits of the first; the others count on from there.
    pub seed: u64,
}

/// What came of it.
#[derive(Debug)]
pub struct Rehearsal {
    /// The combo, or the one to which a budget sends its requests.
    pub combo: Arc<str>,
    /// Its strategy.
    pub strategy: &'static str,
    /// How its targets are asked: `one-by-one`, `race`, `fusion` or `pipeline`.
    pub manner: &'static str,
    /// What becomes of requests because a budget has no room for them.
    pub budget: Option<String>,
    /// Requests that were played; fewer than were wanted where it took too long.
    pub requests: u32,
    /// Those of them for which nobody would be asked: for want of a right, of money, or of an account that could be.
    pub refused: u32,
    /// What those would get, where that is not for the accounts' sake.
    pub error: Option<GatewayError>,
    /// Requests that would get an answer, as far as is to be expected.
    pub answered: f64,
    /// The targets, in the order in which they came up.
    pub targets: Vec<Row>,
    /// Who would make replies of several answers.
    pub judge: Option<Judge>,
    /// Tokens of prompt, by estimate.
    pub input_tokens: u64,
    /// When all of this would be, in epoch milliseconds.
    pub decided_at: i64,
}

/// Who would make replies of several answers.
#[derive(Debug)]
pub struct Judge {
    /// Provider id.
    pub provider: ProviderId,
    /// The model as the provider knows it.
    pub model: Arc<str>,
    /// How often it would be called, as far as is to be expected.
    pub calls: f64,
    /// What a call costs, in billionths of a US dollar, the answers that it reads left out; `None` = unknown.
    pub cost_nano: Option<i64>,
}

/// Why nothing was played.
#[derive(Debug)]
pub enum RehearsalError {
    /// What is to be sent is no request.
    Request(GatewayError),
    /// It leads there, and not to the combo.
    Elsewhere(String),
    /// There is no such combo in force.
    NoCombo,
}

impl From<GatewayError> for RehearsalError {
    fn from(error: GatewayError) -> Self {
        Self::Request(error)
    }
}

impl Engine {
    /// Plays requests, all at the moment at which `ctx` began, in the state of its snapshot: that has to be a copy. Ends early when
    /// `is_over` says so.
    pub async fn rehearse(
        &self,
        mut ctx: Box<RequestCtx>,
        (body, asked): (Bytes, Option<Asked>),
        ask: &RehearsalAsk,
        is_over: &(dyn Fn() -> bool + Sync),
    ) -> Result<Rehearsal, RehearsalError> {
        let ctx = &mut *ctx;
        match asked {
            Some(asked) => task::look_at(ctx, &body, asked)?,
            None => {
                ctx.set_body(body);
                let envelope = ctx.dialect().envelope(ctx.head(), &ctx.body).map_err(GatewayError::from)?;
                ctx.envelope = Some(envelope);
            }
        }
        let wanted = ctx.snapshot.combo(&ask.combo).cloned().ok_or(RehearsalError::NoCombo)?;
        let mut told = Rehearsal {
            combo: wanted.name.clone(),
            strategy: wanted.strategy.name(),
            manner: manner_name(wanted.strategy.manner()),
            budget: None,
            requests: 0,
            refused: 0,
            error: None,
            answered: 0.0,
            targets: Vec::new(),
            judge: None,
            input_tokens: ctx.estimated_input_tokens(),
            decided_at: ctx.started_ms,
        };
        let identified = admit::would_identify(ctx);
        let route = if ctx.task.is_some() { task::route(ctx) } else { resolve::route(ctx) };
        let entered = match &route {
            Err(_) => Ok(()),
            Ok(Route::Target(target)) => return Err(RehearsalError::Elsewhere(target.full_name())),
            Ok(Route::Combo(combo)) if combo.id != wanted.id => {
                return Err(RehearsalError::Elsewhere(combo.name.to_string()));
            }
            Ok(route) => preview::enter(ctx, route).await,
        };
        if let Err(error) = identified.and(route).and(entered) {
            // Each of them, for the same reason.
            told.requests = ask.requests;
            told.refused = ask.requests;
            told.error = Some(error);
            return Ok(told);
        }
        let (mut rows, before) = (Rows::default(), ctx.steering.clone());
        while told.requests < ask.requests && !is_over() {
            ctx.seed = ask.seed.wrapping_add(u64::from(told.requests));
            ctx.steering.clone_from(&before);
            ctx.combo = Some(wanted.name.clone());
            ctx.money = Money::default();
            ctx.try_out_money();
            if let Some(error) = play_one(ctx, &wanted, &mut rows, &mut told).await? {
                told.refused += 1;
                told.error.get_or_insert(error);
            }
            told.requests += 1;
        }
        told.targets = rows.list;
        Ok(told)
    }
}

/// Plays one request; gives why nobody would be asked for it. An error is for what is no request at all.
async fn play_one(
    ctx: &mut RequestCtx,
    wanted: &Arc<ComboState>,
    rows: &mut Rows,
    told: &mut Rehearsal,
) -> Result<Option<GatewayError>, GatewayError> {
    let (mut combo, at) = (wanted.clone(), Some(ctx.started_ms));
    let mut layout = match attempt::lay_out(ctx, &combo, true, at).await {
        Ok(layout) => layout,
        // None of the targets can do what is asked.
        Err(error) if ctx.task.is_some() => return Ok(Some(error)),
        Err(error) => return Err(error),
    };
    if layout.refusal.is_some()
        && let Some(cheaper) = ctx.downgrade()
    {
        layout = attempt::lay_out(ctx, &cheaper, true, at).await?;
        combo = cheaper;
    }
    let Layout { plan, targets, manner, refusal, .. } = layout;
    told.budget = ctx.money.thrift.as_ref().map(ToString::to_string);
    (told.combo, told.strategy, told.manner) =
        (combo.name.clone(), combo.strategy.name(), manner_name(manner));
    if refusal.is_some() {
        return Ok(refusal);
    }
    if targets.is_empty() {
        return Ok(Some(attempt::no_targets(&combo, plan.over_cap, &plan.left_out)));
    }
    let outcome = match attempt::play(ctx, &combo, targets.list(), manner, &plan.left_out, rows).await {
        Ok(outcome) => outcome,
        Err(error) => return Ok(Some(error)),
    };
    told.refused += u32::from(!outcome.is_asked);
    told.answered += outcome.answered;
    if let Some((target, share)) = outcome.judged {
        let judge = told.judge.get_or_insert_with(|| Judge {
            provider: target.provider.id.clone(),
            model: target.model.clone(),
            calls: 0.0,
            cost_nano: policy::cost_nano(ctx, &target),
        });
        judge.calls += share;
    }
    Ok(None)
}

const fn manner_name(manner: Manner) -> &'static str {
    match manner {
        Manner::OneByOne => "one-by-one",
        Manner::Race => "race",
        Manner::Fusion => "fusion",
        Manner::Pipeline => "pipeline",
    }
}
