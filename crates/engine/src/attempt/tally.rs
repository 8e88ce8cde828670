//! A request in the counts of the combo that it asks, and of those within that one: once in each, however many of their
//! targets are tried. And whether the answer fell to another target than the combo's first choice.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use omniroute_domain::combo::{ComboState, Place, Planned};
use omniroute_domain::routing::Manner;
use smallvec::SmallVec;

use super::Rewrite;
use super::trying::counted;
use crate::ctx::RequestCtx;
use crate::time::millis;

/// The counts that a request is in. Dropped before it is known how the request ended, they are told nothing of it.
pub(crate) struct Tally {
    /// The combo that the request asks.
    asked: Arc<ComboState>,
    /// Whether one answer is looked for among its targets. Where several go into the client's there is no falling back.
    may_fall_back: bool,
    /// Whether an answer from now on is not what the combo's first choice brought at once.
    has_fallen_back: AtomicBool,
    entries: Mutex<SmallVec<[Entry; 1]>>,
}

struct Entry {
    combo: Arc<ComboState>,
    since: Instant,
    /// How many of its targets are to be called now.
    asking: u32,
    /// Whether one of them was called.
    is_called: bool,
    /// Whether one of them has answered.
    has_answered: bool,
}

impl Tally {
    pub(super) fn new(asked: &Arc<ComboState>, manner: Manner) -> Self {
        Self {
            asked: asked.clone(),
            may_fall_back: matches!(manner, Manner::OneByOne | Manner::Race),
            has_fallen_back: AtomicBool::new(false),
            entries: Mutex::default(),
        }
    }

    /// A target is asked.
    pub(super) fn begin(&self, planned: &Planned, since: Instant) {
        let mut entries = self.lock();
        for place in counted(&planned.path) {
            match entries.iter_mut().find(|entry| Arc::ptr_eq(&entry.combo, &place.combo)) {
                Some(entry) => entry.asking += 1,
                None => {
                    place.combo.memory.stats.begin();
                    let combo = place.combo.clone();
                    entries.push(Entry { combo, since, asking: 1, is_called: false, has_answered: false });
                }
            }
        }
    }

    /// It was called so many times, or none of its accounts could be, which says nothing about its combos. `is_first` if the
    /// plan begins with it.
    pub(super) fn asked(&self, planned: &Planned, calls: usize, is_first: bool, has_answered: bool) {
        // One that could not be called is told of by who answers in its place.
        let falls_back = if has_answered { !is_first || calls > 1 } else { calls > 0 };
        self.has_fallen_back.fetch_or(falls_back, Ordering::Relaxed);
        let is_called = calls > 0;
        self.lock().retain(|entry| {
            if !leads_to(&entry.combo, &planned.path) {
                return true;
            }
            entry.asking = entry.asking.saturating_sub(1);
            entry.is_called |= is_called;
            let stays = entry.is_called || entry.asking > 0;
            if !stays {
                entry.combo.memory.stats.cancel();
            }
            stays
        });
    }

    /// The target at the end of a path answered.
    fn answered(&self, path: &[Place]) {
        for entry in self.lock().iter_mut() {
            entry.has_answered |= leads_to(&entry.combo, path);
        }
    }

    /// The request got its answer, whose content began at `first`, from the target at the end of a path; or none.
    fn end(&self, first: Option<Instant>, path: &[Place], now_ms: i64) {
        for entry in std::mem::take(&mut *self.lock()) {
            let is_asked = Arc::ptr_eq(&entry.combo, &self.asked);
            let first = first.filter(|_| is_asked || entry.has_answered || leads_to(&entry.combo, path));
            let latency = first.map(|first| millis(first.saturating_duration_since(entry.since)));
            let latency = latency.map(|latency| u64::try_from(latency).unwrap_or(0));
            entry.combo.memory.stats.end(latency, now_ms);
            if is_asked && latency.is_some() && self.has_fallen_back() {
                entry.combo.memory.fallbacks.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Whether the answer, if there is one, is a fallback.
    pub(crate) fn has_fallen_back(&self) -> bool {
        self.may_fall_back && self.has_fallen_back.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, SmallVec<[Entry; 1]>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn leads_to(combo: &Arc<ComboState>, path: &[Place]) -> bool {
    path.iter().any(|place| Arc::ptr_eq(&place.combo, combo))
}

impl Drop for Tally {
    fn drop(&mut self) {
        for entry in self.entries.get_mut().unwrap_or_else(PoisonError::into_inner) {
            entry.combo.memory.stats.cancel();
        }
    }
}

impl RequestCtx {
    /// The client got its answer. What is only material for one says nothing yet.
    pub(crate) fn combo_answered(&self) {
        if self.tally.as_ref().is_some_and(|tally| !tally.lock().is_empty()) {
            self.combo_answered_at(&[], self.engine.clock.now_ms());
        }
    }

    /// The same, where the target at the end of a path answered.
    pub(super) fn combo_answered_at(&self, path: &[Place], now_ms: i64) {
        let Some(tally) = &self.tally else { return };
        if self.rewrite == Some(Rewrite::Material) {
            return tally.answered(path);
        }
        let first = self.outcome.first_event.unwrap_or_else(|| self.engine.clock.instant());
        tally.end(Some(first), path, now_ms);
    }

    /// It got none, or not all of it.
    pub(crate) fn combo_failed(&self) {
        if let Some(tally) = &self.tally {
            tally.end(None, &[], self.engine.clock.now_ms());
        }
    }
}
