//! The requests that are running. Slots and their texts are used again, so noting a request allocates nothing in the
//! steady state.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::metrics::gauge::Gauge;

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
}

#[derive(Debug, Default)]
pub(super) struct Active {
    slots: Mutex<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    requests: Vec<(bool, ActiveRequest)>,
    free: Vec<usize>,
}

/// A request is running until this is dropped.
#[derive(Debug)]
pub struct Running {
    active: Arc<Active>,
    slot: usize,
    in_flight: Gauge,
}

impl Running {
    /// Where the request goes now.
    pub fn routed(&self, provider: &str, connection: &str) {
        let mut slots = self.active.slots();
        if let Some((_, request)) = slots.requests.get_mut(self.slot) {
            write_over(&mut request.provider, provider);
            write_over(&mut request.connection, connection);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.in_flight.dec();
        let mut slots = self.active.slots();
        if let Some((is_running, _)) = slots.requests.get_mut(self.slot) {
            *is_running = false;
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
            slots.requests.push((false, ActiveRequest::default()));
            slots.requests.len() - 1
        });
        let (is_running, request) = &mut slots.requests[slot];
        *is_running = true;
        write_over(&mut request.id, id);
        write_over(&mut request.model, model);
        request.provider.clear();
        request.connection.clear();
        request.started_ms = started_ms;
        request.stream = stream;
        drop(slots);
        Running { active: this.clone(), slot, in_flight }
    }

    pub(super) fn list(&self) -> Vec<ActiveRequest> {
        let slots = self.slots();
        let running = slots.requests.iter().filter(|(is_running, _)| *is_running);
        let mut requests: Vec<_> = running.map(|(_, request)| request.clone()).collect();
        requests.sort_by_key(|request| request.started_ms);
        requests
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
