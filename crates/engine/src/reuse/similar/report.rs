//! What the tier did, for people.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use omniroute_domain::likeness::Guard;

use crate::ctx::RequestCtx;

/// Most pairs that are kept for people to look at.
const MAX_PAIRS: usize = 50;
/// Longest text of a pair, in characters.
const MAX_TEXT: usize = 300;

/// What the tier of similar questions did since the process started, or since the cache was cleared.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SimilarityReport {
    /// Questions that can be found.
    pub entries: u64,
    /// Questions that were looked for.
    pub lookups: u64,
    /// Those that got the answer of another one.
    pub hits: u64,
    /// Those that would have, but somebody was asked: in the mode `shadow`, or as a sample.
    pub would_have_served: u64,
    /// Those of them that were samples of the mode `enabled`.
    pub sampled: u64,
    /// Questions whose vector was not to be had: the model failed or took too long.
    pub failures: u64,
    /// Questions that are too long.
    pub too_long: u64,
    /// Close questions that were kept apart, by the rule.
    pub guarded: Vec<(Guard, u64)>,
    /// Answers that were compared with the kept ones, and said the same.
    pub agreed: u64,
    /// Those that said something else.
    pub disagreed: u64,
    /// Those that could not be compared.
    pub undecided: u64,
    /// The latest pairs, the newest first.
    pub recent: Vec<Pair>,
}

/// Two questions that are close.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    /// When, in epoch milliseconds.
    pub at_ms: i64,
    /// The key that asked; `None` = nobody's.
    pub api_key: Option<String>,
    /// How close they are.
    pub similarity: f64,
    /// What became of it.
    pub outcome: PairOutcome,
    /// What was asked; `None` for keys of which nothing is logged.
    pub question: Option<String>,
    /// What had been asked before; the same.
    pub kept_question: Option<String>,
    /// Whether the answers said the same; `None` where that is not known.
    pub agrees: Option<bool>,
    number: u64,
}

/// What became of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PairOutcome {
    /// The kept answer was given.
    Served,
    /// It would have been, but the mode is `shadow`.
    Shadow,
    /// It would have been, but somebody was asked to see whether it is right.
    Sampled,
    /// A rule kept them apart.
    Guarded(Guard),
}

impl PairOutcome {
    /// The word in API fields.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Served => "served",
            Self::Shadow => "shadow",
            Self::Sampled => "sampled",
            Self::Guarded(_) => "guarded",
        }
    }
}

/// What is counted.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) lookups: AtomicU64,
    pub(super) failures: AtomicU64,
    pub(super) too_long: AtomicU64,
    hits: AtomicU64,
    would_have_served: AtomicU64,
    sampled: AtomicU64,
    agreed: AtomicU64,
    disagreed: AtomicU64,
    undecided: AtomicU64,
    guarded: [AtomicU64; Guard::ALL.len()],
    pairs: Mutex<Pairs>,
}

#[derive(Default)]
struct Pairs {
    latest: VecDeque<Pair>,
    next: u64,
}

impl Counts {
    /// Counts a pair and shows it for a while; by the number it is named later.
    pub(super) fn note(
        &self,
        ctx: &RequestCtx,
        (kept, asked): (&str, &str),
        similarity: f64,
        outcome: PairOutcome,
    ) -> u64 {
        let counters: &[&AtomicU64] = match outcome {
            PairOutcome::Served => &[&self.hits],
            PairOutcome::Shadow => &[&self.would_have_served],
            PairOutcome::Sampled => &[&self.would_have_served, &self.sampled],
            PairOutcome::Guarded(guard) => &[&self.guarded[guard as usize]],
        };
        for counter in counters {
            add(counter);
        }
        let is_shown = ctx.caller.as_ref().is_none_or(|caller| !caller.no_log);
        let shown = |text: &str| is_shown.then(|| text.chars().take(MAX_TEXT).collect());
        let mut pairs = self.pairs();
        let number = pairs.next;
        pairs.next += 1;
        pairs.latest.truncate(MAX_PAIRS - 1);
        pairs.latest.push_front(Pair {
            at_ms: ctx.engine.clock.now_ms(),
            api_key: ctx.caller.as_ref().map(|caller| caller.id.to_string()),
            similarity,
            outcome,
            question: shown(asked),
            kept_question: shown(kept),
            agrees: None,
            number,
        });
        number
    }

    /// The answers of a pair were compared, if they could be.
    pub(super) fn compared(&self, number: u64, agrees: Option<bool>) {
        add(match agrees {
            Some(true) => &self.agreed,
            Some(false) => &self.disagreed,
            None => &self.undecided,
        });
        if let Some(pair) = self.pairs().latest.iter_mut().find(|pair| pair.number == number) {
            pair.agrees = agrees;
        }
    }

    pub(super) fn clear(&self) {
        let all = [
            &self.lookups,
            &self.failures,
            &self.too_long,
            &self.hits,
            &self.would_have_served,
            &self.sampled,
            &self.agreed,
            &self.disagreed,
            &self.undecided,
        ];
        for counter in all.into_iter().chain(&self.guarded) {
            counter.store(0, Ordering::Relaxed);
        }
        self.pairs().latest.clear();
    }

    pub(super) fn report(&self, entries: usize) -> SimilarityReport {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let guarded = Guard::ALL.into_iter().zip(&self.guarded).map(|(guard, count)| (guard, read(count)));
        SimilarityReport {
            entries: entries as u64,
            lookups: read(&self.lookups),
            hits: read(&self.hits),
            would_have_served: read(&self.would_have_served),
            sampled: read(&self.sampled),
            failures: read(&self.failures),
            too_long: read(&self.too_long),
            guarded: guarded.collect(),
            agreed: read(&self.agreed),
            disagreed: read(&self.disagreed),
            undecided: read(&self.undecided),
            recent: self.pairs().latest.iter().cloned().collect(),
        }
    }

    fn pairs(&self) -> MutexGuard<'_, Pairs> {
        self.pairs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
