//! Requests are held back before an upstream has to refuse them: a state machine over (now, what is asked) for each account.
//!
//! Two kinds of limits. *Ceilings* are the operator's and hold for the account: requests per minute (a token bucket), a least
//! time between two, a most at once. *Learned* ones are the vendor's own numbers, model by model, as vendors count.
//!
//! Who cannot go now may join the queue. It is first in, first out: nobody overtakes a request for the same model, nor one
//! that could go. A request whose model has nothing left does not hold up those for other models.

mod bucket;
mod gate;
mod learned;

use std::collections::{HashMap, VecDeque};
use std::task::Waker;

use omniroute_provider::allowance::Allowances;
use smallvec::SmallVec;

use bucket::Bucket;
pub use gate::{Gate, GateView, Heard};
pub use learned::{LearnedLimits, LearnedWindow};

/// Most models whose limits are kept for an account; the one heard of longest ago makes room.
const MAX_MODELS: usize = 64;

/// What the operator allows of an account. 0 = no limit of ours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rules {
    /// Requests within any minute.
    pub per_minute: u32,
    /// Least milliseconds between the starts of two.
    pub spacing_ms: u32,
    /// Requests at once.
    pub at_once: u32,
    /// How many may wait.
    pub max_depth: u32,
    /// How long one may wait, in milliseconds.
    pub max_wait_ms: u32,
}

impl Rules {
    /// Whether the operator sets no ceiling; what the vendor says still counts.
    pub const fn are_open(&self) -> bool {
        self.per_minute == 0 && self.spacing_ms == 0 && self.at_once == 0
    }
}

/// A request for a model of so many tokens, by estimate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask<'a> {
    /// The upstream's name of the model.
    pub model: &'a str,
    /// Tokens of the prompt.
    pub tokens: u64,
}

/// Why a request cannot go now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// When to ask again, in epoch milliseconds; `None` when that depends on other requests.
    pub until: Option<i64>,
}

/// A place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

#[derive(Debug, Clone)]
struct Waiter {
    ticket: Ticket,
    model: Box<str>,
    tokens: u64,
    waker: Option<Waker>,
}

/// Those who should ask again.
pub(crate) type Wakers = SmallVec<[Waker; 2]>;

/// The limits of one account, and who waits for it.
#[derive(Debug, Clone, Default)]
pub struct Limiter {
    bucket: Bucket,
    last_start: Option<i64>,
    running: u32,
    learned: HashMap<Box<str>, LearnedLimits>,
    queue: VecDeque<Waiter>,
    next_ticket: u64,
    started: u64,
}

impl Limiter {
    /// A copy that goes its own way. Those who wait are counted there, but it is not there that they are waked.
    fn apart(&self) -> Self {
        let mut copy = self.clone();
        copy.queue.iter_mut().for_each(|waiter| waiter.waker = None);
        copy
    }

    /// Starts a request that does not wait yet, if nothing is in its way and nobody who waits would be overtaken.
    pub fn start(&mut self, rules: &Rules, ask: Ask<'_>, now_ms: i64) -> Result<(), Held> {
        self.check(rules, ask, None, now_ms)?;
        self.note_start(rules, ask, now_ms);
        Ok(())
    }

    /// Queues a request up; `None` when as many wait already as may.
    pub fn join(&mut self, rules: &Rules, ask: Ask<'_>) -> Option<Ticket> {
        if self.queue.len() >= rules.max_depth as usize {
            return None;
        }
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        self.queue.push_back(Waiter { ticket, model: ask.model.into(), tokens: ask.tokens, waker: None });
        Some(ticket)
    }

    /// Starts a request that waits, if it is its turn. Else `waker` is told when to ask again, if `until` does not say so.
    pub fn start_waiting(
        &mut self,
        rules: &Rules,
        ticket: Ticket,
        waker: &Waker,
        now_ms: i64,
    ) -> Result<Wakers, Held> {
        let place = self.queue.partition_point(|waiter| waiter.ticket < ticket);
        let Some(waiter) = self.queue.get(place).filter(|waiter| waiter.ticket == ticket) else {
            // It left, which only its owner can do.
            return Err(Held { until: None });
        };
        let (model, tokens) = (waiter.model.clone(), waiter.tokens);
        let ask = Ask { model: &model, tokens };
        match self.check(rules, ask, Some(place), now_ms) {
            Ok(()) => {
                self.queue.remove(place);
                self.note_start(rules, ask, now_ms);
                Ok(self.foremost())
            }
            Err(held) => {
                if let Some(waiter) = self.queue.get_mut(place) {
                    match &mut waiter.waker {
                        Some(known) => known.clone_from(waker),
                        none => *none = Some(waker.clone()),
                    }
                }
                Err(held)
            }
        }
    }

    /// A request that waits gives up.
    pub fn leave(&mut self, ticket: Ticket) -> Wakers {
        self.queue.retain(|waiter| waiter.ticket != ticket);
        self.foremost()
    }

    /// A request that was started is over.
    pub fn finish(&mut self) -> Wakers {
        self.running = self.running.saturating_sub(1);
        self.foremost()
    }

    /// Takes over what an answer said is left.
    pub fn learn(&mut self, model: &str, said: &Allowances, now_ms: i64) -> Wakers {
        if !self.learned.contains_key(model) {
            self.make_room(now_ms);
            self.learned.insert(model.into(), LearnedLimits::default());
        }
        if let Some(learned) = self.learned.get_mut(model) {
            learned.learn(said, now_ms);
        }
        self.foremost()
    }

    /// Takes over what an earlier process had learned.
    pub fn restore(&mut self, model: &str, learned: LearnedLimits, now_ms: i64) {
        self.make_room(now_ms);
        self.learned.entry(model.into()).or_insert(learned);
    }

    /// What was learned of a model.
    pub fn learned(&self, model: &str) -> Option<&LearnedLimits> {
        self.learned.get(model)
    }

    /// Whether anything learned still counts, or somebody waits: then starts have to go through here.
    pub fn is_armed(&self, now_ms: i64) -> bool {
        !self.queue.is_empty() || self.learned.values().any(|learned| learned.counts(now_ms))
    }

    /// Forgets what was learned; those who wait ask again.
    pub fn forget(&mut self) -> Wakers {
        self.learned.clear();
        self.foremost()
    }

    /// Whether the request may go. `place` is its place in the queue, if it has one.
    fn check(&self, rules: &Rules, ask: Ask<'_>, place: Option<usize>, now_ms: i64) -> Result<(), Held> {
        let own = self.learned.get(ask.model).and_then(|learned| learned.hold(ask.tokens, now_ms));
        let shared = self.ceiling(rules, now_ms);
        let ahead = self.queue.iter().take(place.unwrap_or(usize::MAX));
        let is_behind = ahead.into_iter().any(|waiter| {
            *waiter.model == *ask.model
                || self
                    .learned
                    .get(&waiter.model)
                    .is_none_or(|learned| learned.hold(waiter.tokens, now_ms).is_none())
        });
        if is_behind || shared == Some(None) {
            return Err(Held { until: None });
        }
        let until = own.max(shared.flatten());
        if until.is_some() { Err(Held { until }) } else { Ok(()) }
    }

    /// What the ceilings hold it back for: `Some(None)` until another request is over.
    fn ceiling(&self, rules: &Rules, now_ms: i64) -> Option<Option<i64>> {
        if rules.at_once > 0 && self.running >= rules.at_once {
            return Some(None);
        }
        let spaced = self.last_start.and_then(|last| after_pause(last, i64::from(rules.spacing_ms), now_ms));
        let filled = self.bucket.next(rules.per_minute, now_ms).filter(|next| *next > now_ms);
        spaced.max(filled).map(Some)
    }

    fn note_start(&mut self, rules: &Rules, ask: Ask<'_>, now_ms: i64) {
        self.bucket.take(rules.per_minute, now_ms);
        self.last_start = Some(now_ms);
        self.running += 1;
        self.started += 1;
        if let Some(learned) = self.learned.get_mut(ask.model) {
            learned.started(ask.tokens, now_ms);
        }
    }

    /// Those who may be next: the first waiter of each model.
    fn foremost(&mut self) -> Wakers {
        let mut wakers = Wakers::new();
        for place in 0..self.queue.len() {
            let is_first =
                self.queue.iter().take(place).all(|before| before.model != self.queue[place].model);
            if is_first && let Some(waker) = self.queue[place].waker.take() {
                wakers.push(waker);
            }
        }
        wakers
    }

    fn make_room(&mut self, now_ms: i64) {
        if self.learned.len() < MAX_MODELS {
            return;
        }
        self.learned.retain(|_, learned| learned.counts(now_ms));
        if self.learned.len() >= MAX_MODELS
            && let Some(oldest) = self
                .learned
                .iter()
                .min_by_key(|(_, learned)| learned.heard_at)
                .map(|(model, _)| model.clone())
        {
            self.learned.remove(&oldest);
        }
    }
}

/// When the next request may start that follows one at `last` with so many milliseconds in between; `None` = at once. Never more
/// than twice as long as that from now: one from further ahead was before the clock was set back.
fn after_pause(last: i64, pause_ms: i64, now_ms: i64) -> Option<i64> {
    let is_from_later = last > now_ms.saturating_add(pause_ms);
    Some(last.saturating_add(pause_ms)).filter(|next| *next > now_ms && pause_ms > 0 && !is_from_later)
}
