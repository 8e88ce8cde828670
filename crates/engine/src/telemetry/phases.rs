//! The parts of a request's time.

use std::time::{Duration, Instant};

use super::window::Sample;

/// A part of a request's time. In the order in which they come; not every request has all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// From the arrival: who asks, and whether they may.
    Validate,
    /// The body arrives and is read.
    Parse,
    /// What the model's name means, and which conversation it belongs to.
    Resolve,
    /// Somebody may have had the answer already.
    Cache,
    /// Limits and budgets.
    Policy,
    /// Which account is asked, and waiting for one.
    Queue,
    /// From the first call to the head of the answer: everything that was tried in between.
    Connect,
    /// From the head to the first content.
    FirstByte,
    /// From the first content to the last.
    Stream,
    /// What remains to be counted.
    Finalize,
}

/// How many there are.
pub(super) const PHASES: usize = Phase::ALL.len();

impl Phase {
    /// Every phase, in order.
    pub const ALL: [Self; 10] = [
        Self::Validate,
        Self::Parse,
        Self::Resolve,
        Self::Cache,
        Self::Policy,
        Self::Queue,
        Self::Connect,
        Self::FirstByte,
        Self::Stream,
        Self::Finalize,
    ];

    /// The name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Validate => "validate",
            Self::Parse => "parse",
            Self::Resolve => "resolve",
            Self::Cache => "cache",
            Self::Policy => "policy",
            Self::Queue => "queue",
            Self::Connect => "connect",
            Self::FirstByte => "firstByte",
            Self::Stream => "stream",
            Self::Finalize => "finalize",
        }
    }
}

/// When a request's phases were over.
#[derive(Debug, Clone, Copy, Default)]
pub struct Phases {
    /// In microseconds since the arrival, and one more; 0 = that phase was not gone through.
    ends: [u32; PHASES],
}

impl Phases {
    /// A phase is over, so long after the arrival. The last time counts.
    pub fn end(&mut self, phase: Phase, since_arrival: Duration) {
        let micros = u32::try_from(since_arrival.as_micros()).unwrap_or(u32::MAX);
        self.ends[phase as usize] = micros.saturating_add(1);
    }

    /// A phase that was over at that moment, if it ever was.
    pub fn end_at(&mut self, phase: Phase, at: Option<Instant>, arrival: Instant) {
        if let Some(at) = at {
            self.end(phase, at.saturating_duration_since(arrival));
        }
    }

    /// How long each took, in microseconds.
    pub fn durations(&self) -> [Option<u64>; PHASES] {
        let mut before = 1;
        self.ends.map(|end| {
            let took = (end != 0).then(|| u64::from(end.saturating_sub(before)));
            before = end.max(before);
            took
        })
    }

    pub(super) fn sample(&self) -> Sample<PHASES> {
        Sample { is_error: false, values: self.durations() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_begins_where_the_one_before_it_ended() {
        let mut phases = Phases::default();
        let micros = Duration::from_micros;
        phases.end(Phase::Parse, micros(30));
        phases.end(Phase::Validate, micros(10));
        // A second look at the cache.
        phases.end(Phase::Cache, micros(40));
        phases.end(Phase::Cache, micros(45));
        phases.end(Phase::Connect, micros(1_045));
        let durations = phases.durations();
        let took = |phase: Phase| durations[phase as usize];
        assert_eq!(took(Phase::Validate), Some(10));
        assert_eq!(took(Phase::Parse), Some(20));
        assert_eq!(took(Phase::Resolve), None, "it was not gone through");
        assert_eq!(took(Phase::Cache), Some(15));
        assert_eq!(took(Phase::Connect), Some(1_000));
        assert_eq!(took(Phase::Finalize), None);
        // What was over at once took no time, and was gone through all the same.
        let mut at_once = Phases::default();
        at_once.end(Phase::Validate, micros(0));
        assert_eq!(at_once.durations()[Phase::Validate as usize], Some(0));
    }

    #[test]
    fn the_names_are_in_order() {
        for (place, phase) in Phase::ALL.iter().enumerate() {
            assert_eq!(*phase as usize, place);
        }
    }
}
