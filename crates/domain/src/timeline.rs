//! What changed in the state of accounts, models and providers, for whoever has to find out later what happened.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use omniroute_provider::ProviderId;

use crate::entity::ConnectionId;

/// Most events kept; the oldest go first.
const MAX_EVENTS: usize = 2_000;

/// The latest events, in memory only.
#[derive(Debug, Default)]
pub struct Timeline(Mutex<VecDeque<HealthEvent>>);

/// Something changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthEvent {
    /// When, in epoch milliseconds.
    pub at: i64,
    /// What kind of thing changed.
    pub kind: EventKind,
    /// The provider.
    pub provider: ProviderId,
    /// The breaker's name, where it is one.
    pub breaker: Option<Arc<str>>,
    /// The account, where it is one or a model on one.
    pub connection: Option<ConnectionId>,
    /// The id of the state of one of its keys, where it has several.
    pub key: Option<ConnectionId>,
    /// The model, where it is one.
    pub model: Option<String>,
    /// What it was before.
    pub from: &'static str,
    /// What it is from then on.
    pub to: &'static str,
    /// Why: a class of failure, `probe`, `answered`, `operator`.
    pub cause: &'static str,
    /// When it ends by itself.
    pub until: Option<i64>,
}

/// What kind of thing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// The breaker of a provider.
    Breaker,
    /// An account as a whole.
    Cooldown,
    /// A model on an account.
    Lock,
    /// What is left of a quota.
    Quota,
}

impl EventKind {
    /// The word shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Breaker => "breaker",
            Self::Cooldown => "cooldown",
            Self::Lock => "lock",
            Self::Quota => "quota",
        }
    }
}

impl Timeline {
    /// Adds an event.
    pub fn add(&self, event: HealthEvent) {
        let mut events = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if events.len() >= MAX_EVENTS {
            events.pop_front();
        }
        events.push_back(event);
    }

    /// The latest events that are wanted, oldest first, at most so many.
    pub fn latest(&self, most: usize, wanted: impl Fn(&HealthEvent) -> bool) -> Vec<HealthEvent> {
        let events = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut chosen: Vec<_> =
            events.iter().rev().filter(|event| wanted(event)).take(most).cloned().collect();
        chosen.reverse();
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_events_make_room() {
        let timeline = Timeline::default();
        for at in 0..2_500 {
            timeline.add(HealthEvent {
                at,
                kind: EventKind::Breaker,
                provider: "p".into(),
                breaker: Some("p".into()),
                connection: None,
                key: None,
                model: None,
                from: "CLOSED",
                to: "OPEN",
                cause: "transient",
                until: None,
            });
        }
        assert_eq!(timeline.latest(usize::MAX, |_| true).len(), MAX_EVENTS);
        let times: Vec<i64> =
            timeline.latest(2, |event| event.at % 2 == 0).iter().map(|event| event.at).collect();
        assert_eq!(times, [2_496, 2_498]);
    }
}
