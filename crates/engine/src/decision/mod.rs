//! How a request was routed, as far as it was known on the way. Collected by sharing what is there anyway; put into words by
//! whoever writes it down, behind the request's back.

mod candidate;
mod taken;

use std::mem;
use std::sync::Arc;

use omniroute_dialect::DialectId;
use omniroute_domain::combo::{self, ComboState, LeftOut, Planned, Targets};
use omniroute_domain::policy::Observed;
use omniroute_domain::resolve::Target;
use omniroute_domain::routing::Manner;
use omniroute_domain::routing::auto::{Task, is_virtual};
use omniroute_domain::snapshot::{ConnectionState, ProviderState};
use smallvec::SmallVec;

pub use candidate::{RecordedCandidate, Whose};

use crate::barred::Unserved;
use crate::ctx::RequestCtx;
use crate::policy::{self, Steering};
use crate::preview::{self, Skip};

/// Most targets whose accounts are remembered.
const MAX_WEIGHED: usize = 32;
/// Most accounts that are remembered of targets that are not asked; a record keeps no more.
const MAX_PASSED_OVER: usize = 160;

/// What was decided about a request. The same configuration, state, time, turn and seed decide the same again.
#[derive(Clone)]
pub struct Decision {
    /// How the model was found: `combo`, `auto`, `alias`, `direct` or `bare`; `None` if it was not.
    pub via: Option<&'static str>,
    /// What ordered the targets, or the accounts where there is one target; `None` if the model was not found.
    pub strategy: Option<&'static str>,
    /// The combo that was asked for.
    pub combo: Option<Arc<ComboState>>,
    /// The random bits.
    pub seed: u64,
    /// The turn that the combo took.
    pub turn: u64,
    /// What the request was about, where `auto` had to know.
    pub task: Option<Task>,
    /// The names of the policies that applied to the name and to the targets whose turn came, in order.
    pub policies: Vec<Arc<str>>,
    /// What policies that only observe would have done.
    pub observed: Vec<Observed>,
    /// What the request became because a budget had no room for it (`daily free-only`).
    pub budget: Option<String>,
    /// The account whose conversation was taken over with a summary.
    pub handoff: Option<String>,
    /// When, in epoch milliseconds.
    pub decided_at: i64,
    planned: Arc<Targets>,
    manner: Manner,
    left_out: Arc<[LeftOut]>,
    denied: Vec<Planned>,
    unpaid: Vec<Planned>,
    weighed: SmallVec<[Weighed; 1]>,
    /// The judge of a fusion, which may be one of its targets too.
    judge: Option<Box<Weighed>>,
    is_judging: bool,
    /// Those that stand in for the one target, with what the request would cost there.
    others: Vec<(Arc<Target>, Option<i64>)>,
    unserved: Vec<Unserved>,
}

/// The accounts of a target when its turn came.
#[derive(Clone)]
struct Weighed {
    target: Arc<Target>,
    /// In the order in which they were to be asked, by their places among the provider's.
    able: SmallVec<[u16; 16]>,
    unable: Vec<(Arc<ConnectionState>, Skip)>,
    /// What the request was to cost there, where no combo planned it; `None` = unknown.
    cost_nano: Option<i64>,
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
    fn direct(ctx: &RequestCtx, target: &Target, now_ms: i64) -> Self {
        let strategy = target.provider.rule.strategy.name();
        Self { via: Some(target.via.as_str()), strategy: Some(strategy), ..Self::lost(ctx, now_ms) }
    }

    /// For a request that leads to a combo; without a plan.
    fn of_combo(ctx: &RequestCtx, combo: &Arc<ComboState>, now_ms: i64) -> Self {
        let via = if is_virtual(combo.id.as_str()) { "auto" } else { "combo" };
        let strategy = Some(combo.strategy.name());
        Self { via: Some(via), strategy, combo: Some(combo.clone()), ..Self::lost(ctx, now_ms) }
    }

    /// For a request that leads nowhere.
    fn lost(ctx: &RequestCtx, now_ms: i64) -> Self {
        Self {
            via: None,
            strategy: None,
            combo: None,
            seed: ctx.seed,
            turn: 0,
            task: None,
            policies: Vec::new(),
            observed: Vec::new(),
            budget: None,
            handoff: None,
            decided_at: now_ms,
            planned: Arc::default(),
            manner: Manner::OneByOne,
            left_out: Arc::default(),
            denied: Vec::new(),
            unpaid: Vec::new(),
            weighed: SmallVec::new(),
            judge: None,
            is_judging: false,
            others: Vec::new(),
            unserved: ctx.instead_of.clone(),
        }
    }

    /// Whether a target is told of whose turn comes: only the first time counts.
    fn wants(&self, target: &Arc<Target>) -> bool {
        match self.is_judging {
            true => self.judge.is_none(),
            false => {
                let is_it = |weighed: &Weighed| Arc::ptr_eq(&weighed.target, target);
                !self.weighed.iter().any(is_it) && self.weighed.len() < MAX_WEIGHED
            }
        }
    }

    fn note(&mut self, weighed: Weighed) {
        match self.is_judging {
            true => self.judge = Some(Box::new(weighed)),
            false => self.weighed.push(weighed),
        }
    }

    /// None of a target's accounts is asked, and this is why.
    fn pass_over(&mut self, target: &Arc<Target>, skip: &Skip, cost_nano: Option<i64>, at: i64) {
        if self.wants(target) {
            let known: usize = self.weighed.iter().map(|weighed| weighed.unable.len()).sum();
            let accounts = target.provider.connections.iter().take(MAX_PASSED_OVER.saturating_sub(known));
            let unable = accounts.map(|account| (account.clone(), skip.clone())).collect();
            let (target, able) = (target.clone(), SmallVec::new());
            self.note(Weighed { target, able, unable, cost_nano, at });
        }
    }

    /// What a branch of the request writes its accounts into.
    pub(crate) fn part(&self) -> Box<Self> {
        Box::new(Self {
            policies: Vec::new(),
            observed: Vec::new(),
            budget: None,
            handoff: None,
            planned: Arc::default(),
            left_out: Arc::default(),
            denied: Vec::new(),
            unpaid: Vec::new(),
            weighed: SmallVec::new(),
            judge: None,
            is_judging: false,
            others: Vec::new(),
            unserved: Vec::new(),
            ..self.clone()
        })
    }

    /// Takes over what the policies said of the request or of a branch.
    pub(crate) fn steered(&mut self, steering: &mut Steering) {
        policy::add_new(&mut self.policies, mem::take(&mut steering.applied));
        policy::add_new(&mut self.policies, mem::take(&mut steering.verdict.applied));
        Observed::add_new(&mut self.observed, &mem::take(&mut steering.observed));
    }

    /// Takes over what a branch wrote.
    pub(crate) fn absorb(&mut self, part: &mut Self) {
        let (applied, observed) = (mem::take(&mut part.policies), mem::take(&mut part.observed));
        self.steered(&mut Steering { applied, observed, ..Steering::default() });
        for weighed in part.weighed.drain(..) {
            let is_known = self.weighed.iter().any(|known| Arc::ptr_eq(&known.target, &weighed.target));
            if !is_known && self.weighed.len() < MAX_WEIGHED {
                self.weighed.push(weighed);
            }
        }
    }

    /// Those that were to be asked in order, then those that were not. A target whose turn never came stands there without an
    /// account.
    pub fn candidates(&self, client: DialectId) -> Vec<RecordedCandidate<'_>> {
        let mut all = Vec::new();
        self.visit(client, |candidate| all.push(candidate));
        all
    }

    /// Whether all there is to be said of the candidates is who they are, when each is asked and what it would cost, as
    /// with nearly all requests. If so, appends what tells their order from any other to `key`, and gives what keeps the
    /// places of which that speaks from being others' meanwhile. Costs are no part of it.
    pub fn shape(&self, client: DialectId, key: &mut Vec<u8>) -> Option<Pin<'_>> {
        let has_more = self.task.is_some()
            || self.budget.is_some()
            || self.handoff.is_some()
            || !(self.policies.is_empty() && self.denied.is_empty() && self.unpaid.is_empty())
            || !(self.observed.is_empty() && self.left_out.is_empty())
            || self.weighed.len() > 1
            || self.judge.is_some()
            || !(self.unserved.is_empty() && self.others.is_empty())
            || self.planned.are_scored();
        let weighed = self.weighed.first();
        if has_more || weighed.is_some_and(|weighed| !weighed.unable.is_empty()) {
            return None;
        }
        fn place(key: &mut Vec<u8>, address: usize) {
            key.extend_from_slice(&address.to_le_bytes());
        }
        place(key, self.planned.len());
        let pin = match (&self.combo, weighed) {
            (Some(combo), _) => {
                place(key, Arc::as_ptr(combo).addr());
                self.planned.mark(key);
                let is_it = |weighed: &Weighed| {
                    self.planned.each().position(|target| Arc::ptr_eq(target, &weighed.target))
                };
                place(key, weighed.map_or(Some(usize::MAX), is_it)?);
                Pin::Combo(combo)
            }
            (None, Some(Weighed { target, .. })) => {
                place(key, Arc::as_ptr(&target.provider).addr());
                key.extend_from_slice(target.model.as_bytes());
                Pin::Provider(&target.provider)
            }
            (None, None) => return None,
        };
        // Nothing of this can stand in a model's name.
        key.extend_from_slice(&[0xff, self.manner as u8]);
        for word in [self.via, self.strategy] {
            key.extend_from_slice(word.unwrap_or_default().as_bytes());
            key.push(0xff);
        }
        if let Some(weighed) = weighed {
            let only = weighed.target.provider.only_dialect(&weighed.target.model);
            for (place, account) in weighed.accounts() {
                key.extend_from_slice(&place.to_le_bytes());
                let endpoint = account.endpoint_for(client, only, weighed.at);
                let dialect = endpoint.map_or(0, |endpoint| endpoint.dialect.as_str().as_ptr().addr());
                key.extend_from_slice(&dialect.to_le_bytes());
            }
        }
        Some(pin)
    }

    /// What the request was to cost at each target, in order.
    pub fn costs(&self) -> impl Iterator<Item = Option<i64>> {
        let of_one = self.only().map(|weighed| weighed.cost_nano);
        self.planned.costs().chain(of_one)
    }

    /// The one target of a request that leads to no combo.
    fn only(&self) -> Option<&Weighed> {
        self.weighed.first().filter(|_| self.combo.is_none())
    }

    /// How many candidates each target is, in order, where a decision has a [shape](Self::shape).
    pub fn counts(&self) -> impl Iterator<Item = usize> {
        let weighed = self.weighed.first();
        let of_each = self.planned.each().map(move |target| match weighed {
            Some(weighed) if Arc::ptr_eq(&weighed.target, target) => weighed.able.len(),
            _ => 1,
        });
        of_each.chain(self.only().map(|weighed| weighed.able.len()))
    }

    /// The same one by one.
    pub fn visit<'a>(&'a self, client: DialectId, mut see: impl FnMut(RecordedCandidate<'a>)) {
        self.visit_part(client, Part::Tried, &mut see);
        for (target, cost_nano) in &self.others {
            if !self.weighed.iter().any(|weighed| Arc::ptr_eq(&weighed.target, target)) {
                see(RecordedCandidate { cost_nano: *cost_nano, ..RecordedCandidate::at(target) });
            }
        }
        if self.manner == Manner::Fusion || self.weighed.iter().any(Weighed::has_skipped) {
            self.visit_part(client, Part::Skipped, &mut see);
        }
        let skip = |rule, reason| Some(Skip { rule, reason, until: None });
        let denied = skip("key", preview::NOT_THEIRS);
        let unpaid = skip("budget", preview::UNPAID);
        self.denied.iter().for_each(|planned| see(RecordedCandidate::of(planned, denied)));
        self.unpaid.iter().for_each(|planned| see(RecordedCandidate::of(planned, unpaid)));
        for left in self.left_out.iter() {
            let target = left.target.as_deref();
            let model = target.map_or(&left.goal[..], |target| &target.model);
            for account in left.idle.iter() {
                see(RecordedCandidate {
                    cost_nano: left.cost_nano,
                    ..RecordedCandidate::idle(model, account)
                });
            }
            if !left.idle.is_empty() {
                continue;
            }
            see(RecordedCandidate {
                whose: target.map(|target| Whose::Provider(&target.provider)),
                provider: target.map(|target| target.provider.id.as_str()),
                model,
                skip: Some(Skip { rule: left.rule.as_str(), reason: &left.reason, until: left.until }),
                cost_nano: left.cost_nano,
                ..RecordedCandidate::default()
            });
        }
        for Unserved { model, accounts } in &self.unserved {
            accounts.iter().for_each(|idle| see(RecordedCandidate::idle(model, idle)));
        }
    }

    /// The place of the target whose accounts stand behind the [counted](Self::counts) candidates; `None` where it has no
    /// others than those.
    pub fn rest(&self) -> Option<usize> {
        let weighed = self.weighed.first().filter(|weighed| weighed.has_skipped())?;
        self.planned
            .each()
            .position(|target| Arc::ptr_eq(target, &weighed.target))
            .or(Some(self.planned.len()))
    }

    /// Accounts that were to be asked, and targets whose turn never came; or accounts that were not.
    fn visit_part<'a>(&'a self, client: DialectId, part: Part, see: &mut impl FnMut(RecordedCandidate<'a>)) {
        let Some(combo) = &self.combo else {
            return self.weighed.iter().for_each(|weighed| weighed.tell(client, None, None, part, see));
        };
        for (place, planned) in self.planned.list().iter().enumerate() {
            let wave = combo::wave(combo, self.manner, place);
            match self.weighed.iter().find(|weighed| Arc::ptr_eq(&weighed.target, &planned.target)) {
                Some(weighed) => weighed.tell(client, Some(planned), wave, part, see),
                None if (part == Part::Tried) == wave.is_some() => {
                    let skip = Skip { rule: "width", reason: preview::BEYOND, until: None };
                    let skip = Some(skip).filter(|_| wave.is_none());
                    see(RecordedCandidate { wave, ..RecordedCandidate::of(planned, skip) });
                }
                None => {}
            }
        }
        // What a request would have led to that is not let through was not planned.
        let is_planned = |weighed: &&Weighed| {
            self.planned.list().iter().any(|it| Arc::ptr_eq(&it.target, &weighed.target))
        };
        for weighed in self.weighed.iter().filter(|it| !is_planned(it)) {
            weighed.tell(client, None, None, part, see);
        }
        // Once the others had answered.
        if let Some(judge) = &self.judge {
            judge.tell(client, None, Some(2), part, see);
        }
    }
}

/// What the places in a [shape](Decision::shape) belong to.
#[derive(Clone, Copy)]
pub enum Pin<'a> {
    /// A combo, and with it all that its steps lead to.
    Combo(&'a Arc<ComboState>),
    /// A provider.
    Provider(&'a Arc<ProviderState>),
}

/// Which of the candidates.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Those that were to be asked.
    Tried,
    /// Accounts that were not.
    Skipped,
}

impl Weighed {
    /// Whether its provider has others than were to be asked.
    fn has_skipped(&self) -> bool {
        !self.unable.is_empty() || !self.target.provider.idle.is_empty()
    }

    /// Those that were to be asked, with their places among the provider's.
    fn accounts(&self) -> impl Iterator<Item = (u16, &Arc<ConnectionState>)> {
        let connections = &self.target.provider.connections;
        self.able.iter().filter_map(|place| Some((*place, connections.get(usize::from(*place))?)))
    }

    /// The accounts as candidates: those that were to be asked, or those that were not, who have no wave.
    fn tell<'a>(
        &'a self,
        client: DialectId,
        planned: Option<&'a Planned>,
        wave: Option<usize>,
        part: Part,
        see: &mut impl FnMut(RecordedCandidate<'a>),
    ) {
        let only = self.target.provider.only_dialect(&self.target.model);
        let told = |account: &'a Arc<ConnectionState>| RecordedCandidate {
            whose: Some(Whose::Account(account)),
            provider: Some(self.target.provider.id.as_str()),
            model: &self.target.model,
            connection: Some((account.id.as_str(), &account.name)),
            dialect: account.endpoint_for(client, only, self.at).map(|endpoint| endpoint.dialect.as_str()),
            cost_nano: planned.map_or(self.cost_nano, |planned| planned.cost_nano),
            score: planned.and_then(|planned| planned.score.as_deref()),
            ..RecordedCandidate::default()
        };
        match part {
            Part::Tried => {
                self.accounts().for_each(|(_, account)| see(RecordedCandidate { wave, ..told(account) }));
            }
            Part::Skipped => {
                for (account, skip) in &self.unable {
                    see(RecordedCandidate { skip: Some(skip.as_ref()), ..told(account) });
                }
                let Target { provider, model, .. } = &*self.target;
                for account in provider.idle.iter().take(MAX_PASSED_OVER) {
                    see(RecordedCandidate {
                        cost_nano: planned.map_or(self.cost_nano, |planned| planned.cost_nano),
                        score: planned.and_then(|planned| planned.score.as_deref()),
                        ..RecordedCandidate::idle(model, account)
                    });
                }
            }
        }
    }
}

/// Where each of these accounts stands among all of its provider's.
fn places(of: &[&Arc<ConnectionState>], among: &[Arc<ConnectionState>]) -> SmallVec<[u16; 16]> {
    let mut guess = 0;
    let place = |account: &&Arc<ConnectionState>| {
        let is_it = |other: &Arc<ConnectionState>| Arc::ptr_eq(other, account);
        // They mostly stand in the same order.
        let place = match among.get(guess).is_some_and(is_it) {
            true => guess,
            false => among.iter().position(is_it)?,
        };
        guess = place + 1;
        u16::try_from(place).ok()
    };
    of.iter().filter_map(place).collect()
}
