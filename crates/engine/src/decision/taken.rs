//! What a request notes of its decision on the way.

use std::sync::Arc;

use omniroute_domain::combo::{ComboState, LeftOut, Plan, Planned, Targets};
use omniroute_domain::resolve::{Route, Target};
use omniroute_domain::snapshot::ConnectionState;
use smallvec::SmallVec;

use super::{Decision, MAX_PASSED_OVER, MAX_WEIGHED, Weighed, places};
use crate::barred::Barred;
use crate::ctx::RequestCtx;
use crate::policy;
use crate::preview::{self, Skip};
use crate::resolve;
use crate::turn::{COST_NANO, Turn};

impl RequestCtx {
    /// Whether this request's decision is written down.
    fn is_sampled(&self) -> bool {
        let rate = self.snapshot.settings.routing_decision_sample_rate.get();
        // Of the upper bits; strategies draw from a mixture of all of them.
        #[allow(clippy::cast_precision_loss, reason = "53 bits are what an `f64` holds")]
        let share = (self.seed >> 11) as f64 / (1_u64 << 53) as f64;
        self.arrival.is_logged && share < rate
    }

    /// Random bits to order accounts by: others each time that they are gone through.
    pub(crate) fn draw(&self) -> u64 {
        self.seed.wrapping_add(self.attempts.len() as u64)
    }

    /// The request leads there, and has an answer already: nobody is chosen.
    pub(crate) fn led_to(&mut self, route: &Route) {
        if self.is_sampled() {
            let now_ms = self.started_ms;
            self.decision = Some(Box::new(match route {
                Route::Target(target) => Decision::direct(self, target, now_ms),
                Route::Combo(combo) => Decision::of_combo(self, combo, now_ms),
            }));
        }
    }

    /// One target was found.
    pub(crate) fn decided(&mut self, target: &Target, now_ms: i64) {
        if self.is_sampled() {
            self.decision = Some(Box::new(Decision::direct(self, target, now_ms)));
        }
    }

    /// A combo made a plan.
    pub(crate) fn planned(
        &mut self,
        combo: &Arc<ComboState>,
        plan: &Plan,
        planned: &Arc<Targets>,
        left_out: &Arc<[LeftOut]>,
        (denied, unpaid): (Vec<Planned>, Vec<Planned>),
        now_ms: i64,
    ) {
        if !self.is_sampled() {
            return;
        }
        self.decision = Some(Box::new(Decision {
            turn: plan.turn,
            task: plan.task,
            planned: planned.clone(),
            manner: plan.manner,
            left_out: left_out.clone(),
            denied,
            unpaid,
            ..Decision::of_combo(self, combo, now_ms)
        }));
    }

    /// The decision that nobody is asked, where that is why the request was refused.
    pub(crate) fn decided_against(&mut self) -> Option<Box<Decision>> {
        let barred = self.barred.take()?;
        if !self.is_sampled() {
            return None;
        }
        let (route, skip) = match &*barred {
            Barred::From { route, skip } => (route, skip),
            Barred::Lost(unserved) => {
                let unserved = unserved.clone();
                return Some(Box::new(Decision { unserved, ..Decision::lost(self, self.started_ms) }));
            }
        };
        let mut decision = match route {
            Route::Target(target) => Decision::direct(self, target, self.started_ms),
            Route::Combo(combo) => Decision::of_combo(self, combo, self.started_ms),
        };
        for target in &barred.targets(self) {
            decision.pass_over(target, skip, self.cost_at(target), self.started_ms);
        }
        Some(Box::new(decision))
    }

    /// A target is not asked, and this is why.
    pub(crate) fn passed_over(&mut self, target: &Arc<Target>, rule: &'static str, reason: &str) {
        let now_ms = self.engine.clock.now_ms();
        if self.decision.is_none() {
            return;
        }
        let (skip, cost_nano) = (Skip::plain(rule, reason), self.cost_at(target));
        if let Some(decision) = &mut self.decision {
            decision.pass_over(target, &skip, cost_nano, now_ms);
        }
    }

    /// From here on it is the judge of a fusion whose turn comes.
    pub(crate) fn judging(&mut self) {
        if let Some(decision) = &mut self.decision {
            decision.is_judging = true;
        }
    }

    /// Those stand in for the one target.
    pub(crate) fn stood_in(&mut self, others: &[Arc<Target>]) {
        if self.decision.is_none() {
            return;
        }
        let others = others.iter().take(MAX_WEIGHED);
        let others = others.map(|target| (target.clone(), policy::cost_nano(self, target))).collect();
        if let Some(decision) = &mut self.decision {
            decision.others = others;
        }
    }

    /// A target's turn came for a call that one of its accounts gets or nobody.
    pub(crate) fn stood(&mut self, turn: &Turn, at: i64) {
        let Some(decision) = self.decision.as_mut().filter(|it| it.weighed.len() < MAX_WEIGHED) else {
            return;
        };
        let Turn { target, accounts } = turn;
        let known: usize = decision.weighed.iter().map(|weighed| weighed.unable.len()).sum();
        let able = accounts.iter().filter(|(_, skip)| skip.is_none()).map(|(account, _)| account);
        let able: SmallVec<[_; 1]> = able.collect();
        let unable = accounts.iter().filter_map(|(account, skip)| Some((account.clone(), skip.clone()?)));
        decision.weighed.push(Weighed {
            target: target.clone(),
            able: places(&able, &target.provider.connections),
            unable: unable.take(MAX_PASSED_OVER.saturating_sub(known)).collect(),
            cost_nano: Some(COST_NANO),
            at,
        });
    }

    /// A target's turn came, and these of its accounts are to be asked. Only the first time counts.
    pub(crate) fn weighed(&mut self, target: &Arc<Target>, able: &[&Arc<ConnectionState>], now_ms: i64) {
        let Some(mut decision) = self.decision.take() else { return };
        if decision.wants(target) {
            let is_planned = decision.combo.is_some() && !decision.is_judging;
            let mut unable = Vec::new();
            if able.len() < target.provider.connections.len() {
                for connection in &target.provider.connections {
                    if let Some(obstacle) = resolve::obstacle(self, target, connection, now_ms) {
                        unable.push((connection.clone(), preview::told(&obstacle)));
                    }
                }
            }
            decision.note(Weighed {
                target: target.clone(),
                able: places(able, &target.provider.connections),
                unable,
                cost_nano: if is_planned { None } else { policy::cost_nano(self, target) },
                at: now_ms,
            });
        }
        self.decision = Some(decision);
    }
}
