//! A step of a combo whose target is being asked, and what its counts are told of it.

use std::time::{Duration, Instant};

use omniroute_domain::combo::{ComboState, Place, Planned};
use omniroute_domain::resolve::Suffixes;
use smallvec::SmallVec;

use crate::ctx::RequestCtx;
use crate::gate::GatePlace;

/// A step whose target is being asked; tells its counts how it ended.
pub(crate) struct Trying {
    /// The steps that lead to it; empty once it is over.
    path: SmallVec<[Place; 1]>,
    since: Instant,
    is_counted: bool,
    #[allow(dead_code, reason = "held for its Drop")]
    places: Places,
}

/// Places at the steps that lead to a target, as far as they are limited.
pub(super) type Places = SmallVec<[GatePlace; 1]>;

impl Trying {
    /// The combos that lead to the target, the innermost first.
    pub(crate) fn combos(&self) -> impl Iterator<Item = &ComboState> {
        self.path.iter().rev().map(|place| &*place.combo)
    }

    /// What the entries on the way to the target say of all that they lead to, the outermost first.
    pub(crate) fn suffixes(&self) -> impl Iterator<Item = &Suffixes> {
        self.path.iter().map(|place| &place.step().suffixes)
    }

    /// Without anything being counted.
    pub(crate) fn previewed(planned: &Planned, since: Instant) -> Self {
        Self { path: planned.path.clone(), since, is_counted: false, places: Places::new() }
    }

    pub(super) fn begin(planned: &Planned, since: Instant, places: Places) -> Self {
        for place in counted(&planned.path) {
            place.step().stats.begin();
        }
        Self { path: planned.path.clone(), since, is_counted: true, places }
    }

    /// The steps that lead to the target.
    pub(super) fn path(&self) -> SmallVec<[Place; 1]> {
        self.path.clone()
    }

    fn end(&mut self, latency: Option<Duration>, now_ms: i64) {
        let path = std::mem::take(&mut self.path);
        let latency = latency.map(|latency| u64::try_from(latency.as_millis()).unwrap_or(u64::MAX));
        for place in counted(&path) {
            place.step().stats.end(latency, now_ms);
        }
        for place in &path {
            match latency {
                Some(_) => place.combo.memory.answered(&place.step().id, now_ms),
                None => place.combo.memory.failed(&place.step().id),
            }
        }
    }
}

/// The steps whose combos count their requests.
pub(super) fn counted(path: &[Place]) -> impl Iterator<Item = &Place> {
    path.iter().filter(|place| place.combo.policy.tracks_metrics)
}

/// A target that was only played answered or failed: what the order of the next plan depends on is told.
pub(super) fn played(path: &[Place], is_good: bool, now_ms: i64) {
    for place in counted(path) {
        place.step().stats.play(is_good, now_ms);
    }
    for place in path {
        match is_good {
            true => place.combo.memory.answered(&place.step().id, now_ms),
            false => place.combo.memory.failed(&place.step().id),
        }
    }
}

impl Drop for Trying {
    fn drop(&mut self) {
        if self.is_counted {
            counted(&self.path).for_each(|place| place.step().stats.cancel());
        }
    }
}

impl RequestCtx {
    /// The target that is being asked, if it belongs to a combo, answered.
    pub(crate) fn step_answered(&mut self) {
        let Some(mut trying) = self.trying.take() else { return };
        let first = self.outcome.first_event.unwrap_or_else(|| self.engine.clock.instant());
        let now_ms = self.engine.clock.now_ms();
        self.combo_answered_at(&trying.path, now_ms);
        trying.end(Some(first.saturating_duration_since(trying.since)), now_ms);
    }

    /// It failed.
    pub(crate) fn step_failed(&mut self) {
        let Some(mut trying) = self.trying.take() else { return };
        trying.end(None, self.engine.clock.now_ms());
    }
}
