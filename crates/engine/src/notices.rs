//! What operators want to be told of elsewhere: budgets that come to their end, breakers, accounts. Whoever notices it leaves a
//! notice and goes on; one task takes them and tells.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use omniroute_domain::budget;
use omniroute_domain::timeline::{EventKind, HealthEvent};
use tokio::sync::mpsc;

/// Most notices that wait to be taken; what comes when there are more is counted and lost.
const MOST: usize = 1_024;

/// Something to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The state of an account or a provider changed.
    Health(HealthEvent),
    /// Something happened to a budget.
    Budget(budget::Event),
}

/// Notices on their way, and what became of those that were told.
#[derive(Debug)]
pub struct Notices {
    sender: mpsc::Sender<Notice>,
    receiver: Mutex<Option<mpsc::Receiver<Notice>>>,
    /// Told and taken.
    pub delivered: AtomicU64,
    /// Given up after the last try.
    pub failed: AtomicU64,
    /// Lost, because too many were waiting.
    pub dropped: AtomicU64,
    /// Waiting for their first or another try.
    pub waiting: AtomicU64,
}

impl Default for Notices {
    fn default() -> Self {
        let (sender, receiver) = mpsc::channel(MOST);
        Self {
            sender,
            receiver: Mutex::new(Some(receiver)),
            delivered: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
        }
    }
}

impl Notices {
    /// An account, a model on one or a breaker changed. Locks of models come and go by the minute; nobody is told of them.
    pub fn health(&self, event: &HealthEvent) {
        match event.kind {
            EventKind::Breaker | EventKind::Cooldown | EventKind::Quota => {
                self.leave(Notice::Health(event.clone()));
            }
            EventKind::Lock => {}
        }
    }

    /// Something happened to a budget.
    pub fn budget(&self, event: &budget::Event) {
        self.leave(Notice::Budget(event.clone()));
    }

    /// Where they come out; once.
    pub fn take(&self) -> Option<mpsc::Receiver<Notice>> {
        self.receiver.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn leave(&self, notice: Notice) {
        if self.sender.try_send(notice).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}
