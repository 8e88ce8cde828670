//! The places of running requests.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::ConnectionHealth;

/// Counts a running request; gives its place back when dropped.
#[derive(Debug)]
pub struct InFlight {
    pub(super) health: Arc<ConnectionHealth>,
    /// Whose limiter counts it too.
    pub(super) held_by: Option<Arc<ConnectionHealth>>,
}

impl InFlight {
    /// This limiter counts it too.
    pub fn held_by(mut self, health: &Arc<ConnectionHealth>) -> Self {
        self.held_by = Some(health.clone());
        self
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.health.in_flight.fetch_sub(1, Ordering::AcqRel);
        if let Some(holder) = &self.held_by {
            holder.gate.finish();
        }
    }
}
