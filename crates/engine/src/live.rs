//! The one pointer to the configuration, and the mutable state that outlives its changes.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use omniroute_domain::{
    budget::Spending, handoff::Handoffs, health::HealthMap, learned::Learned, session::Sessions,
    snapshot::Snapshot,
};

use crate::chronicle;
use crate::notices::Notices;
use crate::ports::Recorder;

/// What a running gateway believes. A request loads the snapshot once and keeps it to its end.
#[derive(Debug)]
pub struct Live {
    snapshot: ArcSwap<Snapshot>,
    /// Cooldowns and locks by connection; survive a change of configuration.
    pub health: HealthMap,
    /// What upstreams have refused.
    pub learned: Learned,
    /// Conversations and the accounts they stay with.
    pub sessions: Sessions,
    /// What they take with them to another account.
    pub handoffs: Handoffs,
    /// What was spent, and what running requests hold.
    pub spending: Spending,
    /// What operators are to be told of elsewhere.
    pub notices: Notices,
}

impl Live {
    /// Starts with this configuration.
    pub fn new(snapshot: Snapshot, health: HealthMap) -> Self {
        Self {
            snapshot: ArcSwap::from_pointee(snapshot),
            health,
            learned: Learned::default(),
            sessions: Sessions::default(),
            handoffs: Handoffs::default(),
            spending: Spending::default(),
            notices: Notices::default(),
        }
    }

    /// The configuration in force.
    pub fn load(&self) -> Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    /// Puts a new configuration in force. Cannot fail: whatever can go wrong went wrong while building it. What is known of
    /// accounts follows their keys; the locks among that are written where they hold now.
    pub fn swap(&self, snapshot: Snapshot, recorder: &dyn Recorder) {
        chronicle::moved(recorder, snapshot.follow_keys(&self.load()));
        self.health.retain(|id| snapshot.needs_health(id));
        self.health.retain_rotations(|id| snapshot.provider(id).is_some());
        self.health.retain_breakers(|name| snapshot.has_breaker(name));
        self.health.retain_combos(|id| snapshot.has_combo(id));
        self.snapshot.store(Arc::new(snapshot));
    }
}
