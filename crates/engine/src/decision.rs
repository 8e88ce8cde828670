//! How a request was routed, as far as it was known on the way. Collected by sharing what is there anyway; put into words by
//! whoever writes it down, behind the request's back.

use std::sync::Arc;

use omniroute_dialect::DialectId;
use omniroute_domain::combo::{self, ComboState, LeftOut, Plan, Planned};
use omniroute_domain::resolve::Target;
use omniroute_domain::routing::Manner;
use omniroute_domain::routing::auto::{Task, is_virtual};
use omniroute_domain::snapshot::ConnectionState;
use smallvec::SmallVec;

use crate::ctx::RequestCtx;
use crate::preview::{self, PreviewedCandidate, Skip};
use crate::resolve;

/// Most targets whose accounts are remembered.
const MAX_WEIGHED: usize = 32;

/// What was decided about a request. The same configuration, state, time, turn and seed decide the same again.
#[derive(Clone)]
pub struct Decision {
    /// How the model was found: `combo`, `auto`, `alias`, `direct` or `bare`.
    pub via: &'static str,
    /// What ordered the targets, or the accounts where there is one target.
    pub strategy: &'static str,
    /// The combo that was asked for.
    pub combo: Option<Arc<ComboState>>,
    /// The random bits.
    pub seed: u64,
    /// The turn that the combo took.
    pub turn: u64,
    /// What the request was about, where `auto` had to know.
    pub task: Option<Task>,
    /// The names of the policies that applied, in order.
    pub policies: Vec<Arc<str>>,
    /// What the request became because a budget had no room for it (`daily free-only`).
    pub budget: Option<String>,
    /// The account whose conversation was taken over with a summary.
    pub handoff: Option<String>,
    /// When, in epoch milliseconds.
    pub decided_at: i64,
    planned: Arc<[Planned]>,
    manner: Manner,
    left_out: Arc<[LeftOut]>,
    denied: Vec<Planned>,
    unpaid: Vec<Planned>,
    weighed: SmallVec<[Weighed; 1]>,
}

/// The accounts of a target when its turn came.
#[derive(Clone)]
struct Weighed {
    target: Arc<Target>,
    /// In the order in which they were to be asked.
    able: SmallVec<[Arc<ConnectionState>; 2]>,
    unable: Vec<(Arc<ConnectionState>, Skip)>,
    at: i64,
}

impl std::fmt::Debug for Decision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decision")
            .field("via", &self.via)
            .field("strategy", &self.strategy)
            .field("seed", &self.seed)
            .field("turn", &self.turn)
            .field("planned", &self.planned.len())
            .finish_non_exhaustive()
    }
}

impl Decision {
    /// For a request with one target.
    fn direct(ctx: &RequestCtx, target: &Target) -> Self {
        Self {
            via: target.via.as_str(),
            strategy: target.provider.rule.strategy.name(),
            combo: None,
            seed: ctx.seed,
            turn: 0,
            task: None,
            policies: Vec::new(),
            budget: None,
            handoff: None,
            decided_at: ctx.engine.clock.now_ms(),
            planned: Arc::default(),
            manner: Manner::OneByOne,
            left_out: Arc::default(),
            denied: Vec::new(),
            unpaid: Vec::new(),
            weighed: SmallVec::new(),
        }
    }

    /// What a branch of the request writes its accounts into.
    pub(crate) fn part(&self) -> Box<Self> {
        Box::new(Self {
            policies: Vec::new(),
            budget: None,
            handoff: None,
            planned: Arc::default(),
            left_out: Arc::default(),
            denied: Vec::new(),
            unpaid: Vec::new(),
            weighed: SmallVec::new(),
            ..self.clone()
        })
    }

    /// Takes over what a branch wrote.
    pub(crate) fn absorb(&mut self, part: &mut Self) {
        for weighed in part.weighed.drain(..) {
            let is_known = self.weighed.iter().any(|known| Arc::ptr_eq(&known.target, &weighed.target));
            if !is_known && self.weighed.len() < MAX_WEIGHED {
                self.weighed.push(weighed);
            }
        }
    }

    /// The model that answered, or was asked last, and the score it had.
    pub fn score_of(&self, provider: &str, model: &str) -> Option<f64> {
        let is_it = |target: &Target| target.provider.id.as_str() == provider && *target.model == *model;
        let planned = self.planned.iter().find(|planned| is_it(&planned.target))?;
        planned.score.map(|score| score.total)
    }

    /// In words: those that were to be asked in order, then those that were not. A target whose turn never came stands
    /// there without an account.
    pub fn candidates(&self, client: DialectId) -> Vec<PreviewedCandidate> {
        let (mut tried, mut skipped) = (Vec::new(), Vec::new());
        let mut tell = |weighed: &Weighed, planned: Option<&Planned>, tried: &mut Vec<_>| {
            let told = |connection: &Arc<ConnectionState>, skip: Option<Skip>| PreviewedCandidate {
                provider: Some(weighed.target.provider.id.clone()),
                model: weighed.target.model.clone(),
                connection: Some((connection.id.clone(), connection.name.clone())),
                dialect: preview::dialect(&weighed.target, connection, client, weighed.at),
                skip,
                cost_nano: planned.and_then(|planned| planned.cost_nano),
                score: planned.and_then(|planned| planned.score),
                wave: None,
            };
            tried.extend(weighed.able.iter().map(|connection| told(connection, None)));
            skipped
                .extend(weighed.unable.iter().map(|(connection, skip)| told(connection, Some(skip.clone()))));
        };
        if self.combo.is_none() {
            self.weighed.iter().for_each(|weighed| tell(weighed, None, &mut tried));
        }
        for (place, planned) in self.planned.iter().enumerate() {
            let before = tried.len();
            match self.weighed.iter().find(|weighed| Arc::ptr_eq(&weighed.target, &planned.target)) {
                Some(weighed) => tell(weighed, Some(planned), &mut tried),
                None => tried.push(without_account(planned, None)),
            }
            let wave = self.combo.as_ref().and_then(|combo| combo::wave(combo, self.manner, place));
            tried[before..].iter_mut().for_each(|candidate| candidate.wave = wave);
        }
        // Who was asked and is none of the combo's: the judge of a fusion, once the others had answered.
        let is_planned =
            |weighed: &&Weighed| self.planned.iter().any(|it| Arc::ptr_eq(&it.target, &weighed.target));
        for judge in self.weighed.iter().filter(|it| self.combo.is_some() && !is_planned(it)) {
            let before = tried.len();
            tell(judge, None, &mut tried);
            let wave = (self.manner == Manner::Fusion).then_some(2);
            tried[before..].iter_mut().for_each(|candidate| candidate.wave = wave);
        }
        let denied = |planned| {
            let reason = "the key may not use this model".to_owned();
            without_account(planned, Some(Skip { rule: "key", reason, until: None }))
        };
        let unpaid = |planned| {
            let skip = Skip { rule: "budget", reason: preview::UNPAID.to_owned(), until: None };
            without_account(planned, Some(skip))
        };
        skipped.extend(self.denied.iter().map(denied));
        skipped.extend(self.unpaid.iter().map(unpaid));
        skipped.extend(self.left_out.iter().cloned().map(preview::step));
        tried.append(&mut skipped);
        tried
    }
}

fn without_account(planned: &Planned, skip: Option<Skip>) -> PreviewedCandidate {
    PreviewedCandidate {
        provider: Some(planned.target.provider.id.clone()),
        model: planned.target.model.clone(),
        connection: None,
        dialect: None,
        skip,
        cost_nano: planned.cost_nano,
        score: planned.score,
        wave: None,
    }
}

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

    /// One target was found.
    pub(crate) fn decided(&mut self, target: &Target) {
        if self.is_sampled() {
            self.decision = Some(Box::new(Decision::direct(self, target)));
        }
    }

    /// A combo made a plan.
    pub(crate) fn planned(
        &mut self,
        combo: &Arc<ComboState>,
        plan: &Plan,
        planned: &Arc<[Planned]>,
        left_out: &Arc<[LeftOut]>,
        (denied, unpaid): (Vec<Planned>, Vec<Planned>),
        now_ms: i64,
    ) {
        if !self.is_sampled() {
            return;
        }
        self.decision = Some(Box::new(Decision {
            via: if is_virtual(combo.id.as_str()) { "auto" } else { "combo" },
            strategy: combo.strategy.name(),
            combo: Some(combo.clone()),
            seed: self.seed,
            turn: plan.turn,
            task: plan.task,
            policies: Vec::new(),
            budget: None,
            handoff: None,
            decided_at: now_ms,
            planned: planned.clone(),
            manner: plan.manner,
            left_out: left_out.clone(),
            denied,
            unpaid,
            weighed: SmallVec::new(),
        }));
    }

    /// A target's turn came, and these of its accounts are to be asked. Only the first time counts.
    pub(crate) fn weighed(&mut self, target: &Arc<Target>, able: &[Arc<ConnectionState>], now_ms: i64) {
        let Some(mut decision) = self.decision.take() else { return };
        let is_known = decision.weighed.iter().any(|weighed| Arc::ptr_eq(&weighed.target, target));
        if !is_known && decision.weighed.len() < MAX_WEIGHED {
            let mut unable = Vec::new();
            if able.len() < target.provider.connections.len() {
                for connection in &target.provider.connections {
                    if let Some(obstacle) = resolve::obstacle(self, target, connection, now_ms) {
                        unable.push((connection.clone(), preview::told(&obstacle)));
                    }
                }
            }
            decision.weighed.push(Weighed {
                target: target.clone(),
                able: able.iter().cloned().collect(),
                unable,
                at: now_ms,
            });
        }
        self.decision = Some(decision);
    }
}
