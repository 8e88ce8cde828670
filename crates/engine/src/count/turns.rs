//! Who is asked to count: the first target that somebody may serve, on the first of its accounts that can. Others would count by
//! another model.

use std::sync::Arc;

use omniroute_domain::combo::{self, Bar, ComboState, LeftOut, Plan, Planned, Special};
use omniroute_domain::resolve::{Route, Target};
use omniroute_domain::routing::Manner;
use omniroute_domain::snapshot::ConnectionState;

use super::ask::counting_uri;
use crate::admit;
use crate::attempt::{self, Trying};
use crate::ctx::RequestCtx;
use crate::error::GatewayError;
use crate::policy;
use crate::preview::{Skip, told};
use crate::resolve;
use crate::turn::{COST_NANO, Turn};

const ONE_COUNTS: &str = "one account is asked to count";
const FIRST_COUNTS: &str = "tokens are counted for the first target that can serve the request";
const CANNOT: &str = "it does not count tokens in the client's dialect; the gateway estimates them";

/// The targets of a count, in order.
pub(crate) struct Course {
    pub(crate) turns: Vec<Turn>,
    /// The account that is asked, of which target.
    asked: Option<(Arc<Target>, Arc<ConnectionState>)>,
    /// Why nobody may be asked.
    pub(crate) refusal: Option<GatewayError>,
    /// The combo that they are of, and its plan.
    pub(crate) combo: Option<(Arc<ComboState>, Plan)>,
}

/// Whom a request asks, unless its key's limits have no room for it; written down. An error where nobody may be asked.
pub(super) async fn take(
    ctx: &mut RequestCtx,
    route: &Route,
    reserved: Result<(), GatewayError>,
) -> Result<Option<(Arc<Target>, Arc<ConnectionState>)>, GatewayError> {
    let now_ms = ctx.engine.clock.now_ms();
    let Course { mut turns, asked, refusal, combo } = match lay_out(ctx, route).await {
        Ok(course) => course,
        Err(error) => {
            let error = reserved.err().unwrap_or(error);
            ctx.bar(route.clone(), "key", &error);
            return Err(error);
        }
    };
    match (combo, route) {
        (Some((combo, mut plan)), _) => {
            let targets = Arc::new(std::mem::take(&mut plan.targets));
            let left_out: Arc<[LeftOut]> = std::mem::take(&mut plan.left_out).into();
            let denied = std::mem::take(&mut plan.denied);
            ctx.planned(&combo, &plan, &targets, &left_out, (denied, Vec::new()), now_ms);
        }
        (None, Route::Target(target)) => ctx.decided(target, now_ms),
        (None, Route::Combo(_)) => {}
    }
    if let Err(error) = &reserved {
        turns.iter_mut().for_each(|turn| turn.refuse(error, ctx.started_ms));
    }
    turns.iter().for_each(|turn| ctx.stood(turn, now_ms));
    reserved.and(refusal.map_or(Ok(asked), Err))
}

/// Finds out whom a request would ask, and why nobody else. Nobody's turn is taken.
pub(super) async fn lay_out(ctx: &mut RequestCtx, route: &Route) -> Result<Course, GatewayError> {
    let (targets, combo) = match route {
        Route::Target(target) => (vec![(target.clone(), None)], None),
        Route::Combo(combo) => {
            let plan = planned(ctx, combo).await?;
            let list = plan.targets.list().iter();
            let targets = list.map(|planned| (planned.target.clone(), Some(planned.clone())));
            (targets.collect(), Some((combo.clone(), plan)))
        }
    };
    let mut course = Course { turns: Vec::with_capacity(targets.len()), asked: None, refusal: None, combo };
    let (mut denial, mut may_any, mut is_served) = (None, false, false);
    for (target, planned) in targets {
        if is_served {
            course.turns.push(Turn::passed(&target, "width", FIRST_COUNTS));
            continue;
        }
        ctx.trying = planned.as_ref().map(|planned| Trying::previewed(planned, ctx.started));
        let turn = match policy::steer(ctx, &target) {
            Ok(()) => {
                may_any = true;
                let turn;
                (turn, is_served) = course.stand(ctx, &target);
                turn
            }
            Err(error) => {
                let turn = Turn::passed(&target, "policy", &error.message);
                denial = denial.or(Some(error));
                turn
            }
        };
        course.turns.push(turn);
    }
    ctx.trying = None;
    course.refusal = denial.filter(|_| !may_any);
    Ok(course)
}

impl Course {
    /// The target whose turn it is, and whether any of its accounts may serve the request.
    fn stand(&mut self, ctx: &RequestCtx, target: &Arc<Target>) -> (Turn, bool) {
        let now_ms = ctx.engine.clock.now_ms();
        let mut is_served = false;
        let turn = Turn::with(target, |connection| {
            if let Some(obstacle) = resolve::obstacle(ctx, target, connection, now_ms) {
                return Some(told(&obstacle));
            }
            is_served = true;
            if self.asked.is_some() {
                return Some(Skip::plain("width", ONE_COUNTS));
            }
            if counting_uri(ctx, target, connection).is_none() {
                return Some(Skip::plain("capability", CANNOT));
            }
            self.asked = Some((target.clone(), connection.clone()));
            None
        });
        (turn, is_served)
    }
}

/// The targets of a combo that the key may use, in order. Nobody's turn is taken.
async fn planned(ctx: &mut RequestCtx, combo: &Arc<ComboState>) -> Result<Plan, GatewayError> {
    let facts = attempt::facts(ctx, combo).await?;
    let bars = |target: &Target| (!admit::may_use_in(ctx, combo, target)).then_some(Bar::Key);
    let special = Special { bars: Some(&bars), cost: None };
    let now_ms = ctx.engine.clock.now_ms();
    let mut plan = combo::plan_for(&ctx.snapshot, combo, &facts, special, now_ms, ctx.seed, false);
    if plan.targets.is_empty() && !plan.denied.is_empty() && plan.left_out.is_empty() {
        return Err(attempt::no_targets(combo, plan.over_cap, &plan.left_out));
    }
    policy::prefer_planned(ctx, &mut plan.targets);
    plan.manner = Manner::OneByOne;
    let is_for_nothing = |planned: &mut Planned| planned.cost_nano = Some(COST_NANO);
    plan.targets.edit(|list| list.iter_mut().for_each(is_for_nothing));
    plan.denied.iter_mut().for_each(is_for_nothing);
    plan.left_out.iter_mut().for_each(|left| left.cost_nano = Some(COST_NANO));
    Ok(plan)
}
