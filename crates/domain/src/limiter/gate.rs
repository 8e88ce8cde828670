//! A limiter that many requests share. Nothing is locked while there is nothing to hold anybody back by.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use omniroute_provider::allowance::Allowances;

use super::{Ask, Held, LearnedLimits, Limiter, Rules, Ticket, Wakers};

/// With this share left or less, an account is asked after those that have more.
const LOW: f64 = 0.10;
/// What the operator's requests are counted in.
const MINUTE_MS: i64 = 60_000;
/// How often a change that says little is stored.
const STORE_EVERY_MS: i64 = 60_000;

/// The limiter of an account, shared.
#[derive(Debug, Default)]
pub struct Gate {
    /// Whether a start has to look at what was learned, or at those who wait.
    is_armed: AtomicBool,
    /// Until when the vendor has little left for any model, in epoch milliseconds.
    low_until: AtomicI64,
    limiter: Mutex<Limiter>,
}

/// What a gate shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GateView {
    /// Requests that wait.
    pub queued: usize,
    /// Requests that were held to the limits and run.
    pub running: u32,
    /// Requests that were held to the limits, since the start.
    pub started: u64,
    /// What was learned, model by model, the scarcest first.
    pub learned: Vec<(String, LearnedLimits)>,
    /// Until when the scarcest model is not asked, in epoch milliseconds.
    pub paused_until: Option<i64>,
}

/// What is to be kept of what an answer said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// All that is known of the model's limits now.
    pub limits: LearnedLimits,
    /// Whether it is to be told that little is left.
    pub is_low: bool,
    /// Whether what is left is to be written down for the history.
    pub is_noted: bool,
}

impl Gate {
    /// A copy that goes its own way.
    pub(crate) fn apart(&self) -> Self {
        let limiter = self.limiter();
        Self {
            is_armed: AtomicBool::new(self.is_armed.load(Ordering::Acquire)),
            low_until: AtomicI64::new(self.low_until.load(Ordering::Acquire)),
            limiter: Mutex::new(limiter.apart()),
        }
    }

    /// Starts a request, if nothing is in its way. `Ok(true)` has to be followed by [`Gate::finish`].
    pub fn start(&self, rules: &Rules, ask: Ask<'_>, now_ms: i64) -> Result<bool, Held> {
        if rules.are_open() && !self.is_armed.load(Ordering::Acquire) {
            return Ok(false);
        }
        let mut limiter = self.limiter();
        let started = limiter.start(rules, ask, now_ms);
        self.is_armed.store(limiter.is_armed(now_ms), Ordering::Release);
        started.map(|()| true)
    }

    /// Whether a request would be held back; nothing is started.
    pub fn held(&self, rules: &Rules, ask: Ask<'_>, now_ms: i64) -> Option<Held> {
        if rules.are_open() && !self.is_armed.load(Ordering::Acquire) {
            return None;
        }
        self.limiter().check(rules, ask, None, now_ms).err()
    }

    /// Whether one more request may wait.
    pub fn has_room(&self, rules: &Rules) -> bool {
        self.limiter().queue.len() < rules.max_depth as usize
    }

    /// Queues a request up; `None` when as many wait already as may.
    pub fn join(&self, rules: &Rules, ask: Ask<'_>) -> Option<Ticket> {
        let mut limiter = self.limiter();
        let ticket = limiter.join(rules, ask);
        self.is_armed.store(true, Ordering::Release);
        ticket
    }

    /// Starts a request that waits, if it is its turn. Else see [`Limiter::start_waiting`].
    pub fn start_waiting(
        &self,
        rules: &Rules,
        ticket: Ticket,
        waker: &Waker,
        now_ms: i64,
    ) -> Result<(), Held> {
        let wakers = self.limiter().start_waiting(rules, ticket, waker, now_ms)?;
        wake(wakers);
        Ok(())
    }

    /// A request that waits gives up.
    pub fn leave(&self, ticket: Ticket) {
        let wakers = self.limiter().leave(ticket);
        wake(wakers);
    }

    /// A request that was started is over.
    pub fn finish(&self) {
        let wakers = self.limiter().finish();
        wake(wakers);
    }

    /// Takes over what an answer said is left. Gives what is to be kept over a restart, where that changed enough.
    pub fn learn(&self, model: &str, said: &Allowances, now_ms: i64) -> Option<Heard> {
        if said.is_empty() {
            return None;
        }
        let (wakers, changed) = {
            let mut limiter = self.limiter();
            let before = limiter.learned(model).cloned();
            let wakers = limiter.learn(model, said, now_ms);
            self.is_armed.store(true, Ordering::Release);
            let after = limiter.learned(model);
            self.note_low(after, now_ms);
            (wakers, after.and_then(|after| heard(before.as_ref(), after, now_ms)))
        };
        wake(wakers);
        changed
    }

    /// Takes over what an earlier process had learned.
    pub fn restore(&self, model: &str, learned: LearnedLimits, now_ms: i64) {
        self.note_low(Some(&learned), now_ms);
        self.limiter().restore(model, learned, now_ms);
        self.is_armed.store(true, Ordering::Release);
    }

    /// Forgets what was learned.
    pub fn forget(&self) {
        self.low_until.store(0, Ordering::Relaxed);
        let wakers = self.limiter().forget();
        wake(wakers);
    }

    /// What was learned there is known here from now on, and there no more.
    pub(crate) fn take_over(&self, from: &Self) {
        let (learned, low_until) =
            (std::mem::take(&mut from.limiter().learned), from.low_until.load(Ordering::Relaxed));
        from.forget();
        self.forget();
        self.limiter().learned = learned;
        self.low_until.store(low_until, Ordering::Relaxed);
        self.is_armed.store(true, Ordering::Release);
    }

    /// What is left for a model of what the vendor allows, between 0 and 1, and when it counts anew; `None` where it did
    /// not say.
    pub fn left(&self, model: &str, now_ms: i64) -> Option<(f64, i64)> {
        if !self.is_armed.load(Ordering::Acquire) {
            return None;
        }
        self.limiter().learned(model)?.left(now_ms)
    }

    /// The same, or what is left of the operator's requests per minute if that is less: those are counted here, whether or
    /// not the vendor says anything.
    pub fn headroom(&self, rules: Option<&Rules>, model: &str, now_ms: i64) -> Option<(f64, i64)> {
        let told = self.left(model, now_ms);
        let Some(rules) = rules.filter(|rules| rules.per_minute > 0) else { return told };
        let own = self.limiter().bucket.left(rules.per_minute, now_ms);
        let own = own.map(|left| (left, now_ms.saturating_add(MINUTE_MS)));
        [told, own].into_iter().flatten().min_by(|one, other| one.0.total_cmp(&other.0))
    }

    /// Whether the vendor said of late that little is left for a model.
    pub fn is_low(&self, model: &str, now_ms: i64) -> bool {
        self.low_until.load(Ordering::Relaxed) > now_ms
            && self.left(model, now_ms).is_some_and(|(left, _)| left <= LOW)
    }

    fn note_low(&self, learned: Option<&LearnedLimits>, now_ms: i64) {
        let Some((left, until)) = learned.and_then(|learned| learned.left(now_ms)) else { return };
        if left <= LOW {
            self.low_until.fetch_max(until, Ordering::Relaxed);
        }
    }

    /// What there is to show.
    pub fn view(&self, now_ms: i64) -> GateView {
        let limiter = self.limiter();
        let mut learned: Vec<_> = limiter
            .learned
            .iter()
            .filter(|(_, learned)| learned.counts(now_ms))
            .map(|(model, learned)| (model.to_string(), learned.clone()))
            .collect();
        learned.sort_by(|(a, one), (b, other)| {
            let left = |learned: &LearnedLimits| learned.requests.map_or(u64::MAX, |window| window.remaining);
            (left(one), a).cmp(&(left(other), b))
        });
        let paused_until = learned.iter().filter_map(|(_, learned)| learned.hold(1, now_ms)).max();
        let (queued, running, started) = (limiter.queue.len(), limiter.running, limiter.started);
        GateView { queued, running, started, learned, paused_until }
    }

    fn limiter(&self) -> MutexGuard<'_, Limiter> {
        self.limiter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wake(wakers: Wakers) {
    wakers.into_iter().for_each(Waker::wake);
}

/// What is to be kept, if it is worth it.
fn heard(before: Option<&LearnedLimits>, after: &LearnedLimits, now_ms: i64) -> Option<Heard> {
    let marks = before.map_or((0, 0), |before| (before.alerted_at, before.noted_at));
    let (is_low, is_noted) = (after.alerted_at != marks.0, after.noted_at != marks.1);
    let is_worth_it = is_low || is_noted || is_worth_storing(before, after, now_ms);
    is_worth_it.then(|| Heard { limits: after.clone(), is_low, is_noted })
}

/// Whether the database should hear of it: a limit changed, something ran out or came back, or a while has passed.
fn is_worth_storing(before: Option<&LearnedLimits>, after: &LearnedLimits, now_ms: i64) -> bool {
    let Some(before) = before else { return true };
    let facts = |learned: &LearnedLimits| {
        let windows = [learned.requests, learned.tokens, learned.output];
        (
            windows.map(|window| window.and_then(|window| window.limit)),
            windows.map(|it| it.map(|it| it.remaining == 0)),
        )
    };
    facts(before) != facts(after) || now_ms / STORE_EVERY_MS != before.heard_at / STORE_EVERY_MS
}
