//! What traffic found out about a combo: whose turn it is, who answered last, counts of each step.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::entity::CountsCleared;
use crate::routing::Stats;

/// How long the last that answered is believed to answer again, in milliseconds.
const LAST_GOOD_MS: i64 = 24 * 3_600 * 1_000;

/// State of one combo by its id.
#[derive(Debug, Default)]
pub struct ComboMemory {
    /// Its requests, however many of its targets were tried for each.
    pub stats: Stats,
    /// Those that were answered, but not by the plan's first choice or not by the first call.
    pub fallbacks: AtomicU64,
    turn: AtomicU64,
    last_good: Mutex<Option<(Arc<str>, i64)>>,
    steps: Mutex<HashMap<Arc<str>, Arc<Stats>>>,
    cleared: Mutex<Option<CountsCleared>>,
}

/// What of a combo's memory outlives the process as it is; counts are made again from the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ComboMark {
    /// The number of the next request.
    pub turn: u64,
    /// The step that answered last, and when.
    pub last_good: Option<(Arc<str>, i64)>,
}

impl ComboMemory {
    /// A copy that goes its own way, with the counts of its steps.
    pub(crate) fn apart(&self) -> Self {
        let steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        let steps = steps.iter().map(|(id, stats)| (id.clone(), Arc::new(stats.apart()))).collect();
        let last_good = self.last_good.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let cleared = *self.cleared.lock().unwrap_or_else(PoisonError::into_inner);
        Self {
            stats: self.stats.apart(),
            fallbacks: AtomicU64::new(self.fallbacks.load(Ordering::Relaxed)),
            turn: AtomicU64::new(self.next_turn()),
            last_good: Mutex::new(last_good),
            steps: Mutex::new(steps),
            cleared: Mutex::new(cleared),
        }
    }

    /// What is to be kept.
    pub fn mark(&self) -> ComboMark {
        let last_good = self.last_good.lock().unwrap_or_else(PoisonError::into_inner).clone();
        ComboMark { turn: self.next_turn(), last_good }
    }

    /// Takes over what was kept.
    pub fn restore(&self, mark: &ComboMark) {
        self.turn.store(mark.turn, Ordering::Relaxed);
        self.last_good.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&mark.last_good);
    }

    /// Counts from nothing again, also its steps, once each time that the counts were cleared: by this process or another.
    pub fn begin_counts(&self, cleared: CountsCleared) {
        let before = self.cleared.lock().unwrap_or_else(PoisonError::into_inner).replace(cleared);
        if before == Some(cleared) {
            return;
        }
        self.stats.clear();
        self.fallbacks.store(0, Ordering::Relaxed);
        for stats in self.steps.lock().unwrap_or_else(PoisonError::into_inner).values() {
            stats.clear();
        }
    }

    /// The number of this request.
    pub fn take_turn(&self) -> u64 {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    /// The number that the next request would get.
    pub fn next_turn(&self) -> u64 {
        self.turn.load(Ordering::Relaxed)
    }

    /// The step that answered last.
    pub fn last_good(&self, now_ms: i64) -> Option<Arc<str>> {
        let last = self.last_good.lock().unwrap_or_else(PoisonError::into_inner).clone();
        last.filter(|(_, at)| now_ms.saturating_sub(*at) < LAST_GOOD_MS).map(|(step, _)| step)
    }

    /// A step answered.
    pub fn answered(&self, step: &Arc<str>, now_ms: i64) {
        *self.last_good.lock().unwrap_or_else(PoisonError::into_inner) = Some((step.clone(), now_ms));
    }

    /// A step failed: it is no longer the last that answered.
    pub fn failed(&self, step: &str) {
        let mut last = self.last_good.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_ref().is_some_and(|(good, _)| **good == *step) {
            *last = None;
        }
    }

    /// The counts of these steps; those of steps that are gone are forgotten.
    pub(crate) fn steps(&self, ids: &[Arc<str>]) -> Vec<Arc<Stats>> {
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        steps.retain(|id, _| ids.contains(id));
        ids.iter().map(|id| steps.entry(id.clone()).or_default().clone()).collect()
    }
}
