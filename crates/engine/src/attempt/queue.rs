//! Waiting for an account that is held to its limits. The request waits in its own task: whoever goes away leaves the queue, and
//! nothing is left behind.

use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use omniroute_domain::health::{ConnectionHealth, InFlight};
use omniroute_domain::limiter::{Ask, Held, Rules, Ticket};
use omniroute_domain::snapshot::ConnectionState;
use tokio::time::{Instant, sleep, timeout};

use crate::ports::Clock;

/// Waits for its turn, for so long at most. `None` when there was no room or not enough time.
pub(super) async fn wait(
    connection: &ConnectionState,
    rules: &Rules,
    ask: Ask<'_>,
    limit: Duration,
    clock: &dyn Clock,
) -> Option<InFlight> {
    let health = &connection.health;
    let mut queued = Queued { health, ticket: Some(health.gate.join(rules, ask)?) };
    timeout(limit, queued.turn(rules, clock)).await.ok()?;
    match connection.account().enter(connection.max_concurrent) {
        Some(place) => Some(place.held_by(health)),
        None => {
            health.gate.finish();
            None
        }
    }
}

/// A place in the queue; given up when dropped.
struct Queued<'a> {
    health: &'a Arc<ConnectionHealth>,
    ticket: Option<Ticket>,
}

impl Queued<'_> {
    async fn turn(&mut self, rules: &Rules, clock: &dyn Clock) {
        let Some(ticket) = self.ticket else { return };
        let mut timer = pin!(sleep(Duration::ZERO));
        poll_fn(|context| {
            loop {
                let now_ms = clock.now_ms();
                let until = match self.health.gate.start_waiting(rules, ticket, context.waker(), now_ms) {
                    Ok(()) => {
                        self.ticket = None;
                        return Poll::Ready(());
                    }
                    // Another request wakes this one.
                    Err(Held { until: None }) => return Poll::Pending,
                    Err(Held { until: Some(until) }) => until,
                };
                let pause = u64::try_from(until.saturating_sub(now_ms)).unwrap_or(0).max(1);
                timer.as_mut().reset(Instant::now() + Duration::from_millis(pause));
                if timer.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await;
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.health.gate.leave(ticket);
        }
    }
}
