//! Which result answers which call.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::ir::{BlockKind, Turn};

/// A block's place: turn and block.
pub(crate) type Place = (usize, usize);

/// Calls and their results, wherever in the later conversation the results stand.
#[derive(Debug, Default)]
pub(crate) struct Pairing {
    answers: HashMap<Place, Place>,
    claimed: HashSet<Place>,
}

impl Pairing {
    /// Pairs each call with the first result of its id that follows it and answers no earlier call.
    pub(crate) fn of(turns: &[Turn]) -> Self {
        let mut waiting: HashMap<&str, VecDeque<Place>> = HashMap::new();
        for (at, turn) in turns.iter().enumerate() {
            for (n, block) in turn.blocks.iter().enumerate() {
                if let BlockKind::ToolResult(result) = &block.kind {
                    waiting.entry(&result.call_id).or_default().push_back((at, n));
                }
            }
        }
        let mut pairing = Self::default();
        for (at, turn) in turns.iter().enumerate() {
            for (n, block) in turn.blocks.iter().enumerate() {
                let BlockKind::ToolCall(call) = &block.kind else { continue };
                let Some(results) = waiting.get_mut(call.id.as_str()) else { continue };
                while results.front().is_some_and(|(turn, _)| *turn <= at) {
                    results.pop_front();
                }
                if let Some(place) = results.pop_front() {
                    pairing.answers.insert((at, n), place);
                    pairing.claimed.insert(place);
                }
            }
        }
        pairing
    }

    /// The result of the call at this place.
    pub(crate) fn answer(&self, call: Place) -> Option<Place> {
        self.answers.get(&call).copied()
    }

    /// Whether the result at this place answers a call.
    pub(crate) fn is_claimed(&self, result: Place) -> bool {
        self.claimed.contains(&result)
    }
}
