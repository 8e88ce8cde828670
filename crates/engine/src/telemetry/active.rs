//! The requests that are running. Slots and their texts are used again, so noting a request allocates nothing in the
//! steady state.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::metrics::gauge::Gauge;

use super::pulse::Pulse;

/// A running request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ActiveRequest {
    /// The gateway's id of the request.
    pub id: String,
    /// The model that was asked for.
    pub model: String,
    /// The provider it went to; empty before the first attempt.
    pub provider: String,
    /// The connection it went to; empty before the first attempt.
    pub connection: String,
    /// Arrival.
    pub started_ms: i64,
    /// Whether the client asked for a stream.
    pub stream: bool,
    /// How many tokens of it have come; counted by its length before the upstream tells.
    pub tokens: u64,
}

#[derive(Debug, Default)]
pub(super) struct Active {
    slots: Mutex<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    requests: Vec<Slot>,
    free: Vec<usize>,
}

#[derive(Debug, Default)]
struct Slot {
    is_running: bool,
    request: ActiveRequest,
    pulse: Arc<Pulse>,
}

/// A request is running until this is dropped.
#[derive(Debug)]
pub struct Running {
    active: Arc<Active>,
    slot: usize,
    in_flight: Gauge,
    pulse: Arc<Pulse>,
}

impl Running {
    /// Where the request goes now.
    pub fn routed(&self, provider: &str, connection: &str) {
        let mut slots = self.active.slots();
        if let Some(Slot { request, .. }) = slots.requests.get_mut(self.slot) {
            write_over(&mut request.provider, provider);
            write_over(&mut request.connection, connection);
        }
    }

    /// What is told of it while it runs.
    pub(crate) fn pulse(&self) -> &Arc<Pulse> {
        &self.pulse
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.in_flight.dec();
        self.pulse.rest();
        let mut slots = self.active.slots();
        if let Some(slot) = slots.requests.get_mut(self.slot) {
            slot.is_running = false;
        }
        slots.free.push(self.slot);
    }
}

impl Active {
    pub(super) fn begin(
        this: &Arc<Self>,
        id: &str,
        model: &str,
        stream: bool,
        started_ms: i64,
        in_flight: Gauge,
    ) -> Running {
        let mut slots = this.slots();
        let slot = slots.free.pop().unwrap_or_else(|| {
            slots.requests.push(Slot::default());
            slots.requests.len() - 1
        });
        let Slot { is_running, request, pulse } = &mut slots.requests[slot];
        *is_running = true;
        write_over(&mut request.id, id);
        write_over(&mut request.model, model);
        request.provider.clear();
        request.connection.clear();
        request.started_ms = started_ms;
        request.stream = stream;
        pulse.reset();
        let pulse = pulse.clone();
        drop(slots);
        Running { active: this.clone(), slot, in_flight, pulse }
    }

    pub(super) fn list(&self) -> Vec<ActiveRequest> {
        let slots = self.slots();
        let running = slots.requests.iter().filter(|slot| slot.is_running);
        let mut requests: Vec<_> = running
            .map(|slot| ActiveRequest { tokens: slot.pulse.tokens(), ..slot.request.clone() })
            .collect();
        requests.sort_by_key(|request| request.started_ms);
        requests
    }

    /// Tells those with this id, which clients may choose and use twice, to end. How many they are.
    pub(super) fn cancel(&self, id: &str) -> usize {
        let slots = self.slots();
        let meant = slots.requests.iter().filter(|slot| slot.is_running && slot.request.id == id);
        meant.map(|slot| slot.pulse.cancel()).count()
    }

    pub(super) fn count(&self) -> usize {
        let slots = self.slots();
        slots.requests.len() - slots.free.len()
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write_over(text: &mut String, with: &str) {
    text.clear();
    text.push_str(with);
}
