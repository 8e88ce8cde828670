//! What traffic found out, as a copy that goes its own way: for requests that are only played.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::{ConnectionHealth, HealthMap};
use crate::timeline::Timeline;

impl HealthMap {
    /// A copy of all of it but the timeline. What is noted in one of the two is not known to the other.
    pub fn apart(&self) -> Self {
        Self {
            connections: each(&self.connections, ConnectionHealth::apart),
            combos: each(&self.combos, |memory| memory.apart()),
            rotations: each(&self.rotations, |rotation| rotation.apart()),
            breakers: each(&self.breakers, |breaker| breaker.apart()),
            timeline: Timeline::default(),
        }
    }
}

fn each<K: Clone + Eq + Hash, V>(
    states: &Mutex<HashMap<K, Arc<V>>>,
    apart: impl Fn(&V) -> V,
) -> Mutex<HashMap<K, Arc<V>>> {
    let states = states.lock().unwrap_or_else(PoisonError::into_inner);
    Mutex::new(states.iter().map(|(id, state)| (id.clone(), Arc::new(apart(state)))).collect())
}

impl ConnectionHealth {
    fn apart(&self) -> Self {
        let yes = |flag: &AtomicBool| AtomicBool::new(flag.load(Ordering::Acquire));
        let count = |count: &AtomicU32| AtomicU32::new(count.load(Ordering::Acquire));
        let turn = |turn: &AtomicU64| AtomicU64::new(turn.load(Ordering::Acquire));
        // Held until the flags are read: they say what is in it.
        let detail = self.detail();
        Self {
            cooldown_until: AtomicI64::new(self.cooldown_until.load(Ordering::Acquire)),
            cooldown_level: count(&self.cooldown_level),
            auth_failures: count(&self.auth_failures),
            terminal: yes(&self.terminal),
            has_error: yes(&self.has_error),
            in_flight: count(&self.in_flight),
            last_led: turn(&self.last_led),
            key_turn: turn(&self.key_turn),
            stats: self.stats.apart(),
            gate: self.gate.apart(),
            plan: self.plan.apart(),
            vendor: self.vendor.apart(),
            has_locks: yes(&self.has_locks),
            has_missing_dialects: yes(&self.has_missing_dialects),
            detail: Mutex::new(detail.clone()),
        }
    }
}
