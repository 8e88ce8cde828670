//! From a combo to the list of targets for one request.

use std::sync::Arc;

use smallvec::{SmallVec, smallvec};

use super::left_out::{LeftOut, Rule};
use super::needs::needs;
use super::targets::Costs;
use super::{ComboState, MAX_ENTRIES, Policy, StepState, Targets, auto};
use crate::entity::Goal;
use crate::price;
use crate::resolve::{self, ResolveError, Target};
use crate::routing::auto::{Need, Task};
use crate::routing::{
    Candidate, Choice, Manner, Order, Score, Signals, Wants, first_places, rendezvous, to_index,
};
use crate::snapshot::Snapshot;

/// What is known of a request before anybody is asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequestFacts {
    /// Tokens of prompt, by estimate.
    pub input_tokens: u64,
    /// Most tokens of answer that the client wants.
    pub max_output: Option<u64>,
    /// Whether it offers tools.
    pub has_tools: bool,
    /// Whether it holds images.
    pub has_images: bool,
    /// Whether it wants an answer that follows a JSON Schema.
    pub wants_json_schema: bool,
    /// Whether it asks for a stream.
    pub stream: bool,
    /// Whether it names what one account keeps, so that its content is not all in the request.
    pub is_bound: bool,
    /// Whether there is a piece of a program in it.
    pub has_code: bool,
    /// Whether it asks for reasoning.
    pub wants_reasoning: bool,
    /// Stands for the beginning of the prompt, which upstreams may have in their caches; 0 = unknown.
    pub prefix: u64,
    /// The [mark](super::provider_mark) of the provider that the conversation was with last; 0 = none.
    pub served_by: u64,
}

/// Tokens of answer that a price is estimated for while none is known.
const USUAL_OUTPUT: u64 = 1_024;

/// The targets of a request, in order.
#[derive(Clone, Default)]
pub struct Plan {
    /// Those to be tried.
    pub targets: Targets,
    /// Those that are not, and why.
    pub left_out: Vec<LeftOut>,
    /// Those that the request's key may not use.
    pub denied: Vec<Planned>,
    /// How they are asked.
    pub manner: Manner,
    /// What the request is about, where `auto` had to know.
    pub task: Option<Task>,
    /// The turn that the outermost combo took.
    pub turn: u64,
    /// The most that the request may cost, in billionths of a US dollar, where that left nobody.
    pub over_cap: Option<i64>,
}

/// A target to be tried.
#[derive(Clone)]
pub struct Planned {
    /// The steps that lead to it, the outermost combo's first; never empty.
    pub path: SmallVec<[Place; 1]>,
    /// Where it leads.
    pub target: Arc<Target>,
    /// What the request would cost there, in billionths of a US dollar; `None` = unknown.
    pub cost_nano: Option<i64>,
    /// What speaks for it, where `auto` chose.
    pub score: Option<Box<Score>>,
}

/// A step of a combo.
#[derive(Debug, Clone)]
pub struct Place {
    /// The combo.
    pub combo: Arc<ComboState>,
    /// The step's place in it.
    pub step: usize,
}

impl Place {
    /// The step.
    pub fn step(&self) -> &StepState {
        &self.combo.steps[self.step]
    }
}

/// Says something of a target for one request.
pub type OfTarget<'a, T> = &'a dyn Fn(&Target) -> Option<T>;

/// What a request is kept from that another one is not, and what it costs where it is no conversation.
#[derive(Clone, Copy, Default)]
pub struct Special<'a> {
    /// What keeps it from a target.
    pub bars: Option<OfTarget<'a, Bar>>,
    /// What it would cost there, in billionths of a US dollar; `None` = unknown.
    pub cost: Option<OfTarget<'a, i64>>,
}

/// What keeps a request from a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bar {
    /// Its key may not use it.
    Key,
    /// The target cannot do what is asked; in words.
    Unable(String),
    /// None of its accounts is for such a request. Where that is so of all targets, they are asked.
    Closed,
}

const CLOSED: &str =
    "the provider has no account for this request: its key, its labels or what it names leave none";

/// Plans a request. `random` are 64 random bits, `take_turn` whether it counts as a request for strategies that take turns
/// (an explanation does not).
pub fn plan(
    snapshot: &Snapshot,
    combo: &Arc<ComboState>,
    facts: &RequestFacts,
    now_ms: i64,
    random: u64,
    take_turn: bool,
) -> Plan {
    plan_for(snapshot, combo, facts, Special::default(), now_ms, random, take_turn)
}

/// Plans a request for which there is more to be known.
pub fn plan_for(
    snapshot: &Snapshot,
    combo: &Arc<ComboState>,
    facts: &RequestFacts,
    special: Special<'_>,
    now_ms: i64,
    random: u64,
    take_turn: bool,
) -> Plan {
    let mut planner = Planner {
        snapshot,
        facts,
        special,
        now_ms,
        random,
        take_turn,
        max_depth: combo.policy.max_depth,
        above: SmallVec::new(),
        plan: Plan { manner: manner(combo, facts), ..Plan::default() },
        entries: 0,
        targets: Vec::new(),
        incapable: Vec::new(),
    };
    if let Some(targets) = planner.all_steps(combo) {
        return Plan { targets, ..planner.plan };
    }
    planner.expand(combo);
    let Planner { mut plan, mut targets, incapable, .. } = planner;
    // What a model can do is not known for certain: before nobody is asked, those are. But what costs too much stays too dear.
    if targets.is_empty() && plan.over_cap.is_none() {
        targets.extend(incapable.into_iter().map(|(planned, _)| planned));
    } else {
        plan.left_out.extend(incapable.into_iter().map(|(_, left_out)| left_out));
    }
    Plan { targets: targets.into(), ..plan }
}

/// How the targets are asked for this request. Tools are for the client to run, and what a vendor keeps cannot be sent
/// to others: such requests need one target.
fn manner(combo: &ComboState, facts: &RequestFacts) -> Manner {
    match combo.strategy.manner() {
        Manner::Fusion if facts.has_tools || facts.is_bound => Manner::OneByOne,
        other => other,
    }
}

/// When the target at `place` of a plan is asked, counted from 1: those with the same number start together. `None` = never.
pub fn wave(combo: &ComboState, manner: Manner, place: usize) -> Option<usize> {
    let Policy { race_width, fusion_width, .. } = combo.policy;
    match manner {
        Manner::OneByOne | Manner::Pipeline => Some(place + 1),
        Manner::Race => Some((place + 2).saturating_sub(race_width).max(1)),
        Manner::Fusion => (place < fusion_width).then_some(1),
    }
}

/// Who makes a reply of the answers of a fusion: the judge that the combo names, else its first target that may be asked.
pub fn judge(
    snapshot: &Snapshot,
    combo: &ComboState,
    first: Option<&Arc<Target>>,
) -> Option<Result<Arc<Target>, ResolveError>> {
    match &combo.policy.judge_model {
        Some(name) => Some(resolve::model(snapshot, name).map(Arc::new)),
        None => first.map(|first| Ok(first.clone())),
    }
}

/// The steps of a combo that can be asked, in order, by their places among those.
#[derive(Default)]
pub(super) struct Ordered {
    pub(super) order: Order,
    /// What speaks for each step, where the strategy says it.
    pub(super) scores: Vec<Score>,
    /// Those that cost more than the request may.
    pub(super) too_dear: SmallVec<[usize; 8]>,
}

/// What keeps a step from being a target.
enum Hindrance {
    /// It leads nowhere.
    Certain(Rule, String),
    /// What its model is said to lack, or its accounts; not for certain.
    Lack(Rule, &'static str),
    /// It is not for the request's key.
    Denied,
}

struct Planner<'a> {
    snapshot: &'a Snapshot,
    facts: &'a RequestFacts,
    special: Special<'a>,
    now_ms: i64,
    random: u64,
    take_turn: bool,
    /// As the outermost combo says.
    max_depth: usize,
    /// The combos around the one that is being expanded.
    above: SmallVec<[Place; 1]>,
    /// Those of all combos that were expanded.
    entries: usize,
    /// All but its targets.
    plan: Plan,
    targets: Vec<Planned>,
    incapable: Vec<(Planned, LeftOut)>,
}

impl Planner<'_> {
    /// All steps of the outermost combo, where each is a model that suits the request. `None` where they have to be looked at
    /// one by one.
    fn all_steps(&mut self, combo: &Arc<ComboState>) -> Option<Targets> {
        let common = needs(self.snapshot, combo).common.as_ref();
        let common = common.filter(|common| self.special.bars.is_none() && self.facts.suits(common))?;
        let Ordered { order, .. } = self.order(combo, &first_places(combo.steps.len()));
        let places = order.iter().map(|place| usize::from(*place));
        let costs: Costs = match &common.rates {
            Some(rates) if self.special.cost.is_none() => {
                let input = self.facts.input_tokens;
                places.map(|place| rates[place].nano(input, self.output_of(&combo.steps[place]))).collect()
            }
            _ => places.map(|place| self.cost(&combo.steps[place], &common.targets[place])).collect(),
        };
        Some(Targets::of_steps(combo, common, order, costs))
    }

    fn expand(&mut self, combo: &Arc<ComboState>) {
        self.entries += combo.steps.len().max(1);
        // Whoever cannot be asked has no share, no turn and no place in a draw. Where that is everybody, what models can do is
        // not held against them.
        let (mut able, mut hindered) = (Order::new(), Vec::new());
        let common = needs(self.snapshot, combo).common.as_ref().filter(|_| self.special.bars.is_none());
        if !common.is_some_and(|common| self.facts.suits(common)) {
            for (place, step) in combo.steps.iter().enumerate() {
                match self.hindrance(combo, step) {
                    None => able.push(to_index(place)),
                    Some(hindrance) => hindered.push((place, hindrance)),
                }
            }
        }
        if able.is_empty() {
            able = first_places(combo.steps.len());
        }
        let Ordered { order, scores, too_dear } = self.order(combo, &able);
        self.targets.reserve(order.len());
        // One way into the combo, on which only the step changes: a combo is counted as seldom as it can be.
        let depth = self.above.len();
        self.above.push(Place { combo: combo.clone(), step: 0 });
        for candidate in order.into_iter().map(usize::from) {
            let place = usize::from(able[candidate]);
            if too_dear.contains(&candidate) {
                self.leave_out(&combo.steps[place], Rule::Budget, auto::TOO_DEAR.to_owned());
                continue;
            }
            self.above[depth].step = place;
            // Only where everybody is.
            let hindrance = hindered.iter().position(|(other, _)| *other == place);
            let hindrance = hindrance.map(|at| hindered.remove(at).1);
            self.step(combo, place, scores.get(candidate).copied(), hindrance);
        }
        for (place, hindrance) in hindered {
            self.above[depth].step = place;
            self.step(combo, place, None, Some(hindrance));
        }
        self.above.pop();
    }

    /// What keeps a step from being a target for this request.
    fn hindrance(&self, combo: &ComboState, step: &StepState) -> Option<Hindrance> {
        let refused =
            step.condition.as_ref().and_then(|condition| condition.refuses(self.facts, self.now_ms));
        if let Some(reason) = refused {
            return Some(Hindrance::Certain(Rule::Condition, reason.to_owned()));
        }
        match &step.goal {
            Goal::ComboRef { combo_name } => {
                let Some(inner) = self.snapshot.combo(combo_name) else {
                    let reason = format!("there is no combo `{combo_name}`");
                    return Some(Hindrance::Certain(Rule::Inactive, reason));
                };
                let is_around = |outer: &Place| outer.combo.id == inner.id;
                if self.above.len() + 1 >= self.max_depth
                    || inner.id == combo.id
                    || self.above.iter().any(is_around)
                {
                    let reason = format!("combos may stand {} deep, and not in a circle", self.max_depth);
                    return Some(Hindrance::Certain(Rule::Nesting, reason));
                }
                inner.strategy.manner().is_joint().then(|| {
                    let name = inner.strategy.name();
                    let reason = format!("a {name} answers as one and is no entry of another combo");
                    Hindrance::Certain(Rule::Nesting, reason)
                })
            }
            Goal::Model { .. } => match step.target(self.snapshot)? {
                Ok(target) => {
                    match self.special.bars.and_then(|bars| bars(target)) {
                        Some(Bar::Key) => return Some(Hindrance::Denied),
                        Some(Bar::Unable(reason)) => {
                            return Some(Hindrance::Certain(Rule::Capability, reason));
                        }
                        Some(Bar::Closed) => return Some(Hindrance::Lack(Rule::Inactive, CLOSED)),
                        None => {}
                    }
                    // A pipeline needs each of its steps; what a model can do is not known for certain.
                    let outermost = self.above.first().map_or(combo, |outermost| &outermost.combo);
                    let needs_all = outermost.strategy.manner() == Manner::Pipeline;
                    let needs = combo.auto.as_ref().map_or(&[][..], |tuning| &tuning.needs);
                    self.lacks(step, target, needs)
                        .filter(|_| !needs_all)
                        .map(|lack| Hindrance::Lack(Rule::Capability, lack))
                }
                Err(error) => Some(Hindrance::Certain(Rule::Inactive, error.to_string())),
            },
        }
    }

    /// The order of those steps that are at these places.
    fn order(&mut self, combo: &ComboState, able: &[u16]) -> Ordered {
        let wants = combo.strategy.wants();
        let last_good = wants.last_good.then(|| combo.memory.last_good(self.now_ms)).flatten();
        let task = combo.auto.as_ref().map(|tuning| tuning.task.unwrap_or(Task::of(self.facts)));
        let nothing = Candidate { success_rate: 0.5, ..Candidate::default() };
        let mut candidates: SmallVec<[Candidate; 8]> = smallvec![nothing; able.len()];
        let steps = || able.iter().map(|place| &combo.steps[usize::from(*place)]);
        let is_of_target = wants.is_of_target();
        for (candidate, step) in candidates.iter_mut().zip(steps()) {
            self.look_at(step, wants, candidate);
            if is_of_target {
                self.look_at_target(step, wants, candidate);
            }
        }
        if let Some(last) = last_good {
            let is_it = steps().map(|step| *step.id == *last);
            candidates.iter_mut().zip(is_it).for_each(|(candidate, is_it)| candidate.is_last_good = is_it);
        }
        let signals: Vec<Signals> = match task {
            Some(task) => steps()
                .map(|step| auto::signals(self.snapshot, step, self.facts, task, self.now_ms))
                .collect(),
            None => Vec::new(),
        };
        let turn = if self.take_turn { combo.memory.take_turn() } else { combo.memory.next_turn() };
        if self.above.is_empty() {
            (self.plan.turn, self.plan.task) = (turn, task);
        }
        let choice = Choice {
            candidates: &candidates,
            signals: &signals,
            turn,
            sticky: combo.policy.sticky_requests,
            random: self.random,
            seed: needs(self.snapshot, combo).seed,
            leader: None,
        };
        let Some(tuning) = &combo.auto else {
            return Ordered { order: combo.strategy.order(&choice), ..Ordered::default() };
        };
        let ordered = auto::order(&choice, tuning, self.facts);
        if !candidates.is_empty() && ordered.too_dear.len() == candidates.len() {
            self.plan.over_cap = Some(tuning.cap_nano);
        }
        ordered
    }

    /// Finds out what is wanted of a step.
    fn look_at(&self, step: &StepState, wants: Wants, candidate: &mut Candidate) {
        candidate.weight = step.weight;
        if wants.uses {
            candidate.uses = step.stats.uses(self.now_ms);
        }
        if wants.stats {
            candidate.success_rate = step.stats.success_rate(self.now_ms);
            candidate.latency_ms = step.stats.latency_ms();
        }
    }

    /// The same of where it leads.
    fn look_at_target(&self, step: &StepState, wants: Wants, candidate: &mut Candidate) {
        let Some(Ok(target)) = step.target(self.snapshot) else { return };
        if wants.stats {
            candidate.load = load(target);
        }
        if wants.health {
            candidate.is_blocked = target
                .provider
                .connections
                .iter()
                .all(|connection| connection.check(&target.model, self.now_ms).is_err());
        }
        if wants.cost {
            candidate.cost_nano = self.cost(step, target);
        }
        if wants.quota {
            candidate.quota = auto::quota(target, self.now_ms);
        }
        if wants.affinity && self.facts.prefix != 0 {
            candidate.affinity = rendezvous(self.facts.prefix, &step.id);
        }
        if wants.context {
            candidate.context_window = step.traits(self.snapshot, target).caps.context_window;
        }
    }

    fn step(&mut self, combo: &ComboState, place: usize, score: Option<Score>, hindrance: Option<Hindrance>) {
        let step = &combo.steps[place];
        let (lack, is_denied) = match hindrance {
            Some(Hindrance::Certain(rule, reason)) => return self.leave_out(step, rule, reason),
            Some(Hindrance::Lack(rule, reason)) => (Some((rule, reason)), false),
            Some(Hindrance::Denied) => (None, true),
            None => (None, false),
        };
        match &step.goal {
            Goal::ComboRef { combo_name } => {
                if self.entries >= MAX_ENTRIES {
                    let reason =
                        format!("a combo may have {MAX_ENTRIES} entries with those of the combos within it");
                    self.leave_out(step, Rule::Nesting, reason);
                } else if let Some(inner) = self.snapshot.combo(combo_name).cloned() {
                    self.expand(&inner);
                }
            }
            Goal::Model { .. } => {
                let Some(Ok(target)) = step.target(self.snapshot) else { return };
                let planned = Planned {
                    path: self.path(),
                    target: target.clone(),
                    cost_nano: self.cost(step, target),
                    score: score.map(Box::new),
                };
                let is_excluded = combo.auto.is_some() && step.stats.excluded_until(self.now_ms).is_some();
                if is_denied {
                    return self.plan.denied.push(planned);
                }
                match lack.or_else(|| is_excluded.then_some((Rule::Excluded, auto::EXCLUDED))) {
                    None => self.targets.push(planned),
                    Some((rule, reason)) => {
                        let left = self.left_out(step, rule, reason.to_owned());
                        self.incapable.push((planned, left));
                    }
                }
            }
        }
    }

    /// The way to the step that is being looked at.
    fn path(&self) -> SmallVec<[Place; 1]> {
        match &*self.above {
            // As nearly always; a slice is copied by a loop.
            [only] => smallvec![only.clone()],
            all => all.into(),
        }
    }

    fn leave_out(&mut self, step: &StepState, rule: Rule, reason: String) {
        let left = self.left_out(step, rule, reason);
        self.plan.left_out.push(left);
    }

    fn left_out(&self, step: &StepState, rule: Rule, reason: String) -> LeftOut {
        let goal = match &step.goal {
            Goal::Model { model, .. } => model.clone(),
            Goal::ComboRef { combo_name } => combo_name.clone(),
        };
        let (target, idle) = match step.target(self.snapshot) {
            Some(Ok(target)) => (Some(target.clone()), Arc::default()),
            Some(Err(error)) if rule == Rule::Inactive => (None, self.snapshot.idle_for(error)),
            Some(Err(_)) | None => (None, Arc::default()),
        };
        let cost_nano = target.as_ref().and_then(|target| self.cost(step, target));
        let until = step.stats.excluded_until(self.now_ms).filter(|_| rule == Rule::Excluded);
        LeftOut { step: step.id.clone(), goal, target, idle, cost_nano, rule, reason, until }
    }

    /// What the model lacks for this request.
    fn lacks(&self, step: &StepState, target: &Target, needs: &[Need]) -> Option<&'static str> {
        let traits = step.traits(self.snapshot, target);
        let (caps, facts) = (&traits.caps, self.facts);
        let needed = facts.needed_tokens();
        if facts.has_tools && !caps.tools {
            Some("the model takes no tools")
        } else if facts.has_images && !caps.vision {
            Some("the model takes no images")
        } else if facts.wants_json_schema && !caps.json_schema {
            Some("the model does not follow a JSON Schema")
        } else if caps.context_window.is_some_and(|window| needed > window) {
            Some("the conversation does not fit the model's context")
        } else {
            needs.iter().find(|need| !traits.has(**need)).map(|need| need.lack())
        }
    }

    /// What the request costs at a step.
    fn cost(&self, step: &StepState, target: &Target) -> Option<i64> {
        if let Some(cost) = self.special.cost {
            return cost(target);
        }
        let quote = target.quote(self.snapshot)?;
        price::text_nano(&quote.price, self.facts.input_tokens, self.output_of(step))
    }

    /// As many tokens of answer as the step's usually have, if the client lets it.
    fn output_of(&self, step: &StepState) -> u64 {
        let usual = step.stats.output_tokens().unwrap_or(USUAL_OUTPUT);
        self.facts.max_output.unwrap_or(usual).min(usual)
    }
}

/// Running requests of the target's accounts, for each that may run at once.
fn load(target: &Target) -> f64 {
    let (mut running, mut places) = (0, 0);
    for connection in &target.provider.connections {
        if let Some(most) = connection.max_concurrent {
            running += connection.health.in_flight();
            places += most;
        }
    }
    if places == 0 { 0.0 } else { f64::from(running) / f64::from(places) }
}
