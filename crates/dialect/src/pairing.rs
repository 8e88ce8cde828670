//! Which result answers which call, where a request came in another dialect: results may stand late, split, in another
//! order or without an id.

use std::collections::{HashMap, HashSet};

use crate::{
    EncodeError,
    ir::{Block, BlockKind, Role, ToolResult, Turn},
};

/// A block's place: turn and block.
pub(crate) type Place = (usize, usize);

/// What a tool answered, and where.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer<'a> {
    pub(crate) place: Place,
    pub(crate) turn: &'a Turn,
    pub(crate) block: &'a Block,
    pub(crate) result: &'a ToolResult,
}

impl Answer<'_> {
    /// Where it stood in the client's request.
    pub(crate) fn path(&self) -> String {
        format!("{}.content[{}]", self.turn.path, self.place.1)
    }
}

/// Results that name the same call, in their order.
#[derive(Debug, Default)]
struct Waiting<'a> {
    answers: Vec<Answer<'a>>,
    /// For each that is claimed a later one, from where to look on: a request may have thousands under one id.
    onward: HashMap<usize, usize>,
}

impl<'a> Waiting<'a> {
    /// The place of the first that nobody claimed, from `at` on.
    fn free(&mut self, mut at: usize) -> usize {
        while let Some(&next) = self.onward.get(&at) {
            let further = self.onward.get(&next).copied().unwrap_or(next);
            self.onward.insert(at, further);
            at = further;
        }
        at
    }

    /// The first that nobody claimed.
    fn first(&mut self) -> Option<&Answer<'a>> {
        let at = self.free(0);
        self.answers.get(at)
    }

    /// Claims the first that stands behind a turn, and not behind `until`.
    fn take(&mut self, turn: usize, until: usize) -> Option<Answer<'a>> {
        let behind = self.answers.partition_point(|answer| answer.place.0 <= turn);
        let at = self.free(behind);
        let answer = *self.answers.get(at).filter(|answer| answer.place.0 <= until)?;
        self.onward.insert(at, at + 1);
        Some(answer)
    }
}

/// What tools answered, until calls claim it.
#[derive(Debug, Default)]
pub(crate) struct Answers<'a> {
    waiting: HashMap<&'a str, Waiting<'a>>,
    claimed: HashSet<Place>,
}

impl<'a> Answers<'a> {
    /// All results of a conversation.
    pub(crate) fn of(turns: &'a [Turn]) -> Self {
        let mut answers = Self::default();
        for (at, turn) in turns.iter().enumerate() {
            for (n, block) in turn.blocks.iter().enumerate() {
                if let BlockKind::ToolResult(result) = &block.kind {
                    let answer = Answer { place: (at, n), turn, block, result };
                    answers.waiting.entry(&result.call_id).or_default().answers.push(answer);
                }
            }
        }
        answers
    }

    /// The results of calls, given as id and turn, in the order of the calls. Each has the first one behind it that names
    /// it. Those without an id answer calls without a result as long as they stand before the model's next turn: up to
    /// `until`.
    pub(crate) fn claim_all(&mut self, calls: &[(&str, usize)], until: usize) -> Vec<Option<Answer<'a>>> {
        let named: Vec<_> = calls.iter().map(|(id, turn)| self.claim(id, *turn)).collect();
        let both = calls.iter().zip(named);
        both.map(|((_, turn), found)| found.or_else(|| self.take("", *turn, until))).collect()
    }

    /// The first result behind `turn` that names the call.
    pub(crate) fn claim(&mut self, id: &str, turn: usize) -> Option<Answer<'a>> {
        if id.is_empty() { None } else { self.take(id, turn, usize::MAX) }
    }

    fn take(&mut self, id: &str, turn: usize, until: usize) -> Option<Answer<'a>> {
        let answer = self.waiting.get_mut(id)?.take(turn, until)?;
        self.claimed.insert(answer.place);
        Some(answer)
    }

    /// Whether the result at this place answers a call.
    pub(crate) fn is_claimed(&self, place: Place) -> bool {
        self.claimed.contains(&place)
    }
}

/// All calls with their results, for dialects that write a result where they write its call.
#[derive(Debug, Default)]
pub(crate) struct Pairing {
    answers: HashMap<Place, Place>,
    claimed: HashSet<Place>,
}

impl Pairing {
    /// Pairs calls and results. A result that names no call, and for which there is none, is refused.
    pub(crate) fn of(turns: &[Turn]) -> Result<Self, EncodeError> {
        let mut answers = Answers::of(turns);
        if answers.waiting.is_empty() {
            return Ok(Self::default());
        }
        let mut pairs = HashMap::new();
        let mut at = 0;
        while at < turns.len() {
            let first = at;
            while turns.get(at).is_some_and(|turn| turn.role == Role::Assistant) {
                at += 1;
            }
            let mut places = Vec::new();
            let mut calls = Vec::new();
            for (turn, spoken) in turns.iter().enumerate().take(at).skip(first) {
                for (n, block) in spoken.blocks.iter().enumerate() {
                    if let BlockKind::ToolCall(call) = &block.kind {
                        places.push((turn, n));
                        calls.push((call.id.as_str(), turn));
                    }
                }
            }
            if !calls.is_empty() {
                let next = turns[at..].iter().position(|turn| turn.role == Role::Assistant);
                let until = next.map_or(turns.len(), |next| at + next);
                let found = answers.claim_all(&calls, until);
                pairs.extend(
                    places.into_iter().zip(found).filter_map(|(call, found)| Some((call, found?.place))),
                );
            }
            at += 1;
        }
        match answers.waiting.get_mut("").and_then(Waiting::first) {
            Some(stranger) => Err(nameless(stranger.path())),
            None => Ok(Self { answers: pairs, claimed: answers.claimed }),
        }
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

/// That a result belongs to nothing.
pub(crate) fn nameless(path: String) -> EncodeError {
    let message = "a tool result names no call and there is none it could belong to".to_owned();
    EncodeError { code: "unpaired_tool_call", param: Some(path), message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::ToolCall;

    /// Who spoke, and what in words.
    type Spoken<'a> = (Role, &'a [&'a str]);
    /// A call and its result.
    type Pair = (Place, Place);

    /// Turns from words: `c1` a call with this id, `r1` a result of it, `c` and `r` without an id, `t` a text.
    fn turns(words: &[Spoken<'_>]) -> Vec<Turn> {
        let block = |word: &&str| {
            let id = word[1..].to_owned();
            Block::from(match &word[..1] {
                "c" => BlockKind::ToolCall(ToolCall { id, name: "f".to_owned(), arguments: "{}".to_owned() }),
                "r" => BlockKind::ToolResult(ToolResult { call_id: id, blocks: Vec::new(), is_error: false }),
                _ => BlockKind::Text(id),
            })
        };
        let turns = words.iter().enumerate().map(|(at, (role, words))| Turn {
            role: *role,
            blocks: words.iter().map(block).collect(),
            name: None,
            path: format!("messages[{at}]"),
        });
        turns.collect()
    }

    #[test]
    fn calls_find_their_results() {
        use Role::{Assistant as A, User as U};
        let cases: [(&[Spoken<'_>], &[Pair]); 9] = [
            (&[(A, &["c1", "c2"]), (U, &["r2", "r1"])], &[((0, 0), (1, 1)), ((0, 1), (1, 0))]),
            // Late, and behind other words.
            (&[(A, &["c1"]), (U, &["t"]), (A, &["t"]), (U, &["r1"])], &[((0, 0), (3, 0))]),
            // One id twice: each call has the next one.
            (
                &[(A, &["c1"]), (U, &["r1"]), (A, &["c1"]), (U, &["r1"])],
                &[((0, 0), (1, 0)), ((2, 0), (3, 0))],
            ),
            // A result before its call answers nothing.
            (&[(U, &["r1"]), (A, &["c1"]), (U, &["t"])], &[]),
            // Without an id by order, after those that name theirs.
            (&[(A, &["c1", "c2"]), (U, &["r", "r1"])], &[((0, 0), (1, 1)), ((0, 1), (1, 0))]),
            (&[(A, &["c"]), (A, &["c"]), (U, &["r", "r"])], &[((0, 0), (2, 0)), ((1, 0), (2, 1))]),
            // Those in front stay where they are.
            (
                &[(U, &["r1", "r1"]), (A, &["c1", "c1"]), (U, &["r1", "r1"])],
                &[((1, 0), (2, 0)), ((1, 1), (2, 1))],
            ),
            // One that comes too late for the first call is there for the next.
            (
                &[(A, &["c"]), (U, &["t"]), (A, &["c", "c"]), (U, &["r", "r"])],
                &[((2, 0), (3, 0)), ((2, 1), (3, 1))],
            ),
            (&[(U, &["t"])], &[]),
        ];
        for (words, expected) in cases {
            let turns = turns(words);
            let pairing = Pairing::of(&turns).unwrap();
            for (at, turn) in turns.iter().enumerate() {
                for n in 0..turn.blocks.len() {
                    let pair = expected.iter().find(|(call, _)| *call == (at, n));
                    assert_eq!(pairing.answer((at, n)), pair.map(|(_, result)| *result), "{words:?}");
                    let claimed = expected.iter().any(|(_, result)| *result == (at, n));
                    assert_eq!(pairing.is_claimed((at, n)), claimed, "{words:?}");
                }
            }
        }
    }

    #[test]
    fn many_calls_of_one_id_pass_over_as_many_results() {
        use Role::{Assistant as A, User as U};
        const MANY: usize = 200_000;
        let (calls, results) = (vec!["c1"; MANY], vec!["r1"; MANY]);
        let turns = turns(&[(U, &results), (A, &calls), (U, &results)]);
        let pairing = Pairing::of(&turns).unwrap();
        for n in [0, 1, MANY - 1] {
            assert_eq!(pairing.answer((1, n)), Some((2, n)));
            assert!(!pairing.is_claimed((0, n)) && pairing.is_claimed((2, n)));
        }
    }

    #[test]
    fn a_result_that_belongs_to_nothing_is_refused() {
        use Role::{Assistant as A, User as U};
        for words in [
            &[(U, &["r"][..])][..],
            &[(A, &["c1"]), (U, &["r1", "r"])],
            // The model went on before it came.
            &[(A, &["c1"]), (U, &["t"]), (A, &["t"]), (U, &["r"])],
        ] {
            let error = Pairing::of(&turns(words)).unwrap_err();
            assert_eq!(error.code, "unpaired_tool_call", "{words:?}");
            assert!(error.param.is_some_and(|param| param.starts_with("messages[")), "{words:?}");
        }
    }
}
