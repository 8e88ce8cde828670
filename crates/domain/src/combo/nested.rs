//! What a combo leads to, over the combos within it. Of those that are led to more than once each is gone through once: how often
//! they are come across grows with every level.

use std::sync::Arc;

use smallvec::SmallVec;

use super::ComboState;
use crate::entity::{ComboId, Goal};
use crate::resolve::Target;
use crate::snapshot::Snapshot;

/// Combos that were gone through, and how deep others might stand within each then.
type Seen<'a> = SmallVec<[(&'a ComboId, usize); 4]>;

impl ComboState {
    /// Every model that it may lead to, whatever the request.
    pub fn targets(&self, snapshot: &Snapshot) -> Vec<Arc<Target>> {
        let mut targets = Vec::new();
        self.collect(snapshot, self.policy.max_depth, &mut Seen::new(), &mut targets);
        targets
    }

    fn collect<'a>(
        &'a self,
        snapshot: &'a Snapshot,
        depth: usize,
        seen: &mut Seen<'a>,
        into: &mut Vec<Arc<Target>>,
    ) {
        if !is_news(seen, self, depth) {
            return;
        }
        for step in self.steps.iter() {
            match &step.goal {
                Goal::Model { .. } => into.extend(step.target(snapshot).into_iter().flatten().cloned()),
                Goal::ComboRef { combo_name } => {
                    if let Some(inner) = snapshot.combo(combo_name).filter(|_| depth > 1) {
                        inner.collect(snapshot, depth - 1, seen, into);
                    }
                }
            }
        }
    }

    /// The combo and those it leads to.
    pub fn visit<'a>(&'a self, snapshot: &'a Snapshot, see: &mut dyn FnMut(&'a Self)) {
        fn go<'a>(
            combo: &'a ComboState,
            snapshot: &'a Snapshot,
            depth: usize,
            seen: &mut Seen<'a>,
            see: &mut dyn FnMut(&'a ComboState),
        ) {
            if !is_news(seen, combo, depth) {
                return;
            }
            see(combo);
            for step in combo.steps.iter() {
                if let Goal::ComboRef { combo_name } = &step.goal
                    && depth > 1
                    && let Some(inner) = snapshot.combo(combo_name)
                {
                    go(inner, snapshot, depth - 1, seen, see);
                }
            }
        }
        go(self, snapshot, self.policy.max_depth, &mut Seen::new(), see);
    }
}

/// Whether a combo was not gone through yet, or not so deep.
fn is_news<'a>(seen: &mut Seen<'a>, combo: &'a ComboState, depth: usize) -> bool {
    match seen.iter_mut().find(|(id, _)| *id == &combo.id) {
        Some((_, before)) if *before >= depth => return false,
        Some((_, before)) => *before = depth,
        None => seen.push((&combo.id, depth)),
    }
    true
}
