//! Places of the steps of a combo, for strategies that go round: so many requests at once on each, some more in a queue, and
//! for the rest the next step.
//!
//! Who leaves the queue, because its client went away or its patience ended, leaves no trace. A step that nobody uses takes
//! no memory.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use omniroute_domain::combo::QueueLimits;
use omniroute_domain::routing::Stats;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// The gates of all steps that are in use.
#[derive(Default)]
pub(crate) struct Gates(Mutex<HashMap<usize, Gate>>);

/// The gate of one step.
struct Gate {
    running: u32,
    places: u32,
    /// In the order in which they came.
    waiting: VecDeque<oneshot::Sender<GatePlace>>,
    #[allow(dead_code, reason = "held so that nothing else has its address while the gate is in use")]
    stats: Arc<Stats>,
}

/// A place at a step; given to the next in the queue when it is dropped.
pub(crate) struct GatePlace {
    gates: Arc<Gates>,
    step: usize,
    is_taken: bool,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Busy {
    /// As many wait as may.
    Full,
    /// None was free in time.
    Late,
}

impl Gates {
    /// Takes a place at the step with these counts, and waits for one if need be.
    pub(crate) async fn enter(
        self: &Arc<Self>,
        stats: &Arc<Stats>,
        limits: &QueueLimits,
        patience: Duration,
    ) -> Result<GatePlace, Busy> {
        let step = Arc::as_ptr(stats) as usize;
        let waiting = {
            let mut gates = self.lock();
            let gate = gates.entry(step).or_insert_with(|| Gate {
                running: 0,
                places: limits.places,
                waiting: VecDeque::new(),
                stats: stats.clone(),
            });
            gate.places = limits.places;
            gate.waiting.retain(|waiter| !waiter.is_closed());
            if gate.running < gate.places && gate.waiting.is_empty() {
                gate.running += 1;
                return Ok(GatePlace { gates: self.clone(), step, is_taken: true });
            }
            if gate.waiting.len() >= limits.depth {
                stats.turned_away();
                return Err(Busy::Full);
            }
            let (sender, receiver) = oneshot::channel();
            gate.waiting.push_back(sender);
            receiver
        };
        let _in_queue = InQueue::new(stats);
        match timeout(patience.min(limits.patience), waiting).await {
            Ok(Ok(place)) => Ok(place),
            // The sender is only ever dropped with the gate, which its waiters keep.
            Ok(Err(_)) | Err(_) => {
                stats.turned_away();
                Err(Busy::Late)
            }
        }
    }

    /// A place is free: the first who still waits gets it.
    fn leave(self: &Arc<Self>, step: usize) {
        loop {
            let next = {
                let mut gates = self.lock();
                let Some(gate) = gates.get_mut(&step) else { return };
                gate.running = gate.running.saturating_sub(1);
                let next = (gate.running < gate.places).then(|| gate.waiting.pop_front()).flatten();
                match &next {
                    Some(_) => gate.running += 1,
                    None if gate.running == 0 && gate.waiting.is_empty() => {
                        gates.remove(&step);
                    }
                    None => {}
                }
                next
            };
            let Some(next) = next else { return };
            // Sent outside of the lock: a place that nobody takes any more comes back here.
            match next.send(GatePlace { gates: self.clone(), step, is_taken: true }) {
                Ok(()) => return,
                Err(mut refused) => refused.is_taken = false,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<usize, Gate>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for GatePlace {
    fn drop(&mut self) {
        if self.is_taken {
            self.gates.leave(self.step);
        }
    }
}

/// Counted among those who wait, as long as this lives.
struct InQueue<'a>(&'a Stats);

impl<'a> InQueue<'a> {
    fn new(stats: &'a Stats) -> Self {
        stats.wait();
        Self(stats)
    }
}

impl Drop for InQueue<'_> {
    fn drop(&mut self) {
        self.0.waited();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::future::join_all;
    use futures_util::poll;

    use super::*;

    const LIMITS: QueueLimits = QueueLimits { places: 1, depth: 2, patience: Duration::from_secs(30) };

    fn gates() -> (Arc<Gates>, Arc<Stats>) {
        Default::default()
    }

    #[tokio::test(start_paused = true)]
    async fn who_came_first_goes_first_and_who_left_is_passed_over() {
        let (gates, stats) = gates();
        let first = gates.enter(&stats, &LIMITS, LIMITS.patience).await.ok();
        let mut third = pin!(gates.enter(&stats, &LIMITS, LIMITS.patience));
        {
            let mut second = pin!(gates.enter(&stats, &LIMITS, LIMITS.patience));
            assert!(poll!(second.as_mut()).is_pending() && poll!(third.as_mut()).is_pending());
            assert_eq!(stats.queued(), 2);
            let fourth = gates.enter(&stats, &LIMITS, LIMITS.patience).await;
            assert_eq!(fourth.err(), Some(Busy::Full));
        }
        assert_eq!(stats.queued(), 1, "the second went away");
        drop(first);
        assert!(third.await.is_ok());
        assert!(gates.lock().is_empty(), "a step that nobody uses takes no memory");
        assert_eq!((stats.queued(), stats.turned_away_total()), (0, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn patience_ends() {
        let (gates, stats) = gates();
        let first = gates.enter(&stats, &LIMITS, LIMITS.patience).await;
        let began = tokio::time::Instant::now();
        let late = gates.enter(&stats, &LIMITS, Duration::from_secs(5)).await;
        assert_eq!((late.err(), began.elapsed()), (Some(Busy::Late), Duration::from_secs(5)));
        drop(first);
        assert!(gates.enter(&stats, &LIMITS, LIMITS.patience).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn never_more_at_once_than_there_are_places() {
        let (gates, stats) = gates();
        let limits = QueueLimits { places: 3, depth: 256, patience: Duration::from_secs(600) };
        let running = Mutex::new((0_u32, 0_u32));
        let requests = (0..200_u64).map(|number| {
            let (gates, stats, running) = (&gates, &stats, &running);
            async move {
                tokio::time::sleep(Duration::from_millis(number % 7)).await;
                let place = gates.enter(stats, &limits, limits.patience).await;
                assert!(place.is_ok());
                {
                    let mut now = running.lock().unwrap_or_else(PoisonError::into_inner);
                    now.0 += 1;
                    now.1 = now.1.max(now.0);
                }
                tokio::time::sleep(Duration::from_millis(1 + number % 5)).await;
                running.lock().unwrap_or_else(PoisonError::into_inner).0 -= 1;
                drop(place);
            }
        });
        join_all(requests).await;
        assert_eq!(running.lock().unwrap_or_else(PoisonError::into_inner).1, 3);
        assert!(gates.lock().is_empty() && stats.queued() == 0);
    }
}
