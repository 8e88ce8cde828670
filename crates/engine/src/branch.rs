//! Several upstream calls for one request at once. Each has a context of its own, made by [`RequestCtx::branch`]: it may
//! fail, change its canonical form and count its attempts without regard to the others.
//!
//! All that happens is in the record of the one request: a branch that is dropped, because it failed, lost or was cut off
//! by a client that went away, leaves its attempts with the request. One that won is [adopted](RequestCtx::adopt), and
//! the request goes on as if it had been the only one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use omniroute_dialect::ir::Loss;
use smallvec::SmallVec;

use crate::attempt::Rewrite;
use crate::bodies::LeftCall;
use crate::ctx::{AnswerSource, Outcome, RequestCtx};
use crate::decision::Decision;
use crate::money::Money;
use crate::ports::AttemptRow;
use crate::time::millis;

/// Class of an attempt that was broken off because another one had answered.
pub(crate) const CANCELLED: &str = "cancelled";

/// Whether a context is a whole request or one of its branches.
#[derive(Default)]
pub(crate) enum Kinship {
    /// A request that has had no branches so far.
    #[default]
    Alone,
    /// A request, and what its branches leave behind.
    Request(Arc<Estate>),
    /// A branch of a request.
    Branch(Branch),
}

/// What makes a context a branch.
pub(crate) struct Branch {
    estate: Arc<Estate>,
    heard: Heard,
}

/// Whether an upstream has sent anything of an answer yet, for whoever waits with the next one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heard(Arc<AtomicBool>);

impl Heard {
    /// Whether it has.
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What branches that are gone leave to their request.
#[derive(Default)]
pub(crate) struct Estate {
    /// Somebody else has answered: who is dropped now has lost.
    is_decided: AtomicBool,
    /// What the request owed when it made a branch; whoever calls next holds money for it.
    owed_nano: Mutex<i64>,
    left: Mutex<Left>,
}

#[derive(Default)]
struct Left {
    attempts: Vec<AttemptRow>,
    is_estimated: bool,
    waited: Duration,
    sent: Option<Instant>,
    /// Of calls whose answers went into another one.
    losses: Vec<Loss>,
    /// What they held beside what was held for them, and why they went no further.
    money: Money,
    /// The accounts of the targets that they asked.
    decision: Option<Box<Decision>>,
    /// What the one that ended last said to an upstream, and heard.
    call: LeftCall,
}

impl RequestCtx {
    /// A context for one of several calls at once. It begins where the request stands.
    pub(crate) fn branch(&mut self) -> Box<Self> {
        let estate = match &self.kinship {
            Kinship::Request(estate) => estate.clone(),
            Kinship::Branch(branch) => branch.estate.clone(),
            Kinship::Alone => {
                let estate = Arc::<Estate>::default();
                self.kinship = Kinship::Request(estate.clone());
                estate
            }
        };
        {
            let mut owed = estate.owed();
            *owed = owed.saturating_add(self.money.take_owed());
        }
        Box::new(Self {
            engine: self.engine.clone(),
            arrival: self.arrival.clone(),
            request_id: self.request_id.clone(),
            started: self.started,
            started_ms: self.started_ms,
            snapshot: self.snapshot.clone(),
            caller: self.caller.clone(),
            body: self.body.clone(),
            weight: self.weight.clone(),
            envelope: self.envelope.clone(),
            canonical: self.canonical.clone(),
            pinned: self.pinned.clone(),
            session: self.session.clone(),
            required_tags: self.required_tags.clone(),
            without_reasoning: self.without_reasoning,
            returns_reasoning: self.returns_reasoning,
            repairs: self.repairs,
            about: self.about.clone(),
            is_count: self.is_count,
            instead_of: Vec::new(),
            // The limits of the key are charged and settled once, by the request.
            charges: SmallVec::new(),
            standings: SmallVec::new(),
            money: self.money.lent(),
            attempts: Vec::new(),
            upstream_dialect: None,
            losses: self.losses.clone(),
            outcome: Outcome::default(),
            phases: self.phases,
            source: AnswerSource::Upstream,
            reuse: None,
            similarity: None,
            target: None,
            combo: self.combo.clone(),
            step: None,
            seed: self.seed,
            // The decision is the request's; what is found out of accounts goes into it later.
            decision: self.decision.as_ref().map(|decision| decision.part()),
            trying: None,
            barred: None,
            tally: self.tally.clone(),
            steering: self.steering.clone(),
            waited: self.waited,
            deadline: self.deadline,
            running: None,
            rewrite: self.rewrite,
            added_bytes: self.added_bytes,
            validation: self.validation.clone(),
            material: None,
            taken: None,
            // Tasks make one call at a time.
            task: None,
            performing: None,
            copies: self.branch_copies(),
            kinship: Kinship::Branch(Branch { estate, heard: Heard::default() }),
        })
    }

    /// Goes on with what a branch has reached. The others have to be dropped before, so that the attempt that answered
    /// is the last one.
    pub(crate) fn adopt(&mut self, mut branch: Box<Self>) {
        self.gather();
        self.money.inherit(std::mem::take(&mut branch.money));
        self.absorb(branch.part_of_decision());
        self.inherit_call(branch.copies.take());
        self.attempts.append(&mut branch.attempts);
        self.canonical = branch.canonical.take();
        self.without_reasoning = branch.without_reasoning;
        self.returns_reasoning = branch.returns_reasoning;
        self.repairs = branch.repairs;
        self.upstream_dialect = branch.upstream_dialect;
        self.losses = std::mem::take(&mut branch.losses);
        self.target = branch.target.take();
        self.step = branch.step.take();
        self.trying = branch.trying.take();
        self.taken = branch.taken.take();
        let theirs = std::mem::take(&mut branch.outcome);
        let mine = &mut self.outcome;
        mine.usage = theirs.usage;
        mine.usage_estimated |= theirs.usage_estimated;
        mine.first_event = theirs.first_event;
        mine.head = theirs.head;
        mine.calling = theirs.calling;
        mine.departure = theirs.departure;
        mine.tier = theirs.tier;
        mine.sent = earlier(mine.sent, theirs.sent);
        if let (Some(running), Some(last)) = (&self.running, self.attempts.last()) {
            running.routed(last.provider.as_str(), last.connection.as_str());
        }
    }

    /// What a branch has to say of the decision, with what the policies said of its targets.
    fn part_of_decision(&mut self) -> Option<Box<Decision>> {
        let mut part = self.decision.take()?;
        if let Some(steering) = &mut self.steering {
            part.steered(steering);
        }
        Some(part)
    }

    fn absorb(&mut self, branch: Option<Box<Decision>>) {
        if let (Some(mine), Some(mut theirs)) = (&mut self.decision, branch) {
            mine.absorb(&mut theirs);
        }
    }

    /// What the request shares with its branches, if it has had any.
    pub(crate) fn estate(&self) -> Option<Arc<Estate>> {
        match &self.kinship {
            Kinship::Alone => None,
            Kinship::Request(estate) => Some(estate.clone()),
            Kinship::Branch(branch) => Some(branch.estate.clone()),
        }
    }

    /// Who is still calling for this request has lost from now on.
    pub(crate) fn decide(&self, is_decided: bool) {
        if let Kinship::Request(estate) = &self.kinship {
            estate.is_decided.store(is_decided, Ordering::Relaxed);
        }
    }

    /// Takes over the attempts of branches that are gone.
    pub(crate) fn gather(&mut self) {
        let Kinship::Request(estate) = &self.kinship else { return };
        let left = std::mem::take(&mut *estate.left());
        self.attempts.extend(left.attempts);
        self.outcome.usage_estimated |= left.is_estimated;
        self.waited = self.waited.max(left.waited);
        self.outcome.sent = earlier(self.outcome.sent, left.sent);
        self.money.inherit(left.money);
        self.absorb(left.decision);
        // Branches are gathered before the request's own next call, so theirs is the later one.
        self.inherit_call(left.call);
        let new: Vec<Loss> = left.losses.into_iter().filter(|loss| !self.losses.contains(loss)).collect();
        self.note_losses(new);
    }

    /// Leaves what happened in a branch to its request; `false` when this is no branch.
    pub(crate) fn bequeath(&mut self) -> bool {
        if !self.is_branch() {
            return false;
        }
        self.note_unheard();
        let decision = self.part_of_decision();
        let Kinship::Branch(branch) = &self.kinship else { return false };
        let outcome = std::mem::take(&mut self.outcome);
        if let (Some(since), Some(last)) = (outcome.calling, self.attempts.last_mut()) {
            last.duration_ms = millis(self.engine.clock.instant().saturating_duration_since(since));
            last.usage = outcome.usage;
            if branch.estate.is_decided.load(Ordering::Relaxed) {
                last.failure = Some(CANCELLED);
            }
        }
        let mut left = branch.estate.left();
        left.attempts.append(&mut self.attempts);
        left.is_estimated |= outcome.usage_estimated;
        left.waited = left.waited.max(self.waited);
        left.sent = earlier(left.sent, outcome.sent);
        left.money.inherit(std::mem::take(&mut self.money));
        if self.has_copied_call() {
            left.call = self.copies.take();
        }
        if let Some(mut mine) = decision {
            match &mut left.decision {
                Some(others) => others.absorb(&mut mine),
                None => left.decision = Some(mine),
            }
        }
        if self.rewrite == Some(Rewrite::Material) {
            left.losses.append(&mut self.losses);
        }
        true
    }

    /// Whether this is one of several calls at once.
    pub(crate) fn is_branch(&self) -> bool {
        matches!(self.kinship, Kinship::Branch(_))
    }

    /// An upstream began to answer.
    pub(crate) fn note_heard(&self) {
        if let Kinship::Branch(branch) = &self.kinship {
            branch.heard.0.store(true, Ordering::Relaxed);
        }
    }

    /// What tells whether the upstream of a branch has begun to answer.
    pub(crate) fn heard(&self) -> Heard {
        match &self.kinship {
            Kinship::Branch(branch) => branch.heard.clone(),
            Kinship::Alone | Kinship::Request(_) => Heard::default(),
        }
    }
}

impl Estate {
    /// What is owed by all together. Locked before any purse.
    pub(crate) fn owed(&self) -> MutexGuard<'_, i64> {
        self.owed_nano.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn left(&self) -> MutexGuard<'_, Left> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
