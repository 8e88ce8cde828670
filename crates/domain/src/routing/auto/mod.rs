//! `auto`: every candidate gets a score of what is known about it, and the best leads.
//!
//! A score is the sum of thirteen [factors](Factor), each between 0 and 1, times their weights. [`decide`] is a function of what
//! the caller found out: the same candidates, turn and random bits give the same order, and every factor can be shown to
//! whoever asks why.

mod factors;
mod fitness;
mod task;
mod tuning;
mod variants;

use super::shuffle::Draw;
use super::{Candidate, Choice, Order, Strategy, Wants, to_index};
use crate::entity::RouterStrategy;

pub use factors::{FACTORS, Factor, Score};
pub use fitness::{Fitness, fitness_of};
pub use task::{AccountTier, Difficulty, Task, Tier};
pub(crate) use tuning::EXPLORATION;
pub use tuning::{DEFAULT_CAP_USD, Need, Tuning, Weights};
pub use variants::{POOL, is_virtual, names as variant_names, tuning as variant_tuning};

/// Scores that differ by no more than this are equal.
const EQUAL: f64 = 1e-4;
/// Weight of latency for those that choose by it; the rest is reliability.
const LATENCY_SHARE: f64 = 0.7;

/// What only `auto` looks at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Signals {
    /// What is left of the accounts' quotas, between 0 and 1.
    pub quota: Option<f64>,
    /// 1 = works, 0 = cannot serve.
    pub health: f64,
    /// Blended price of the model in US dollars per million tokens.
    pub price: Option<f64>,
    /// 95 of 100 answers did not take longer, in milliseconds.
    pub p95_ms: Option<f64>,
    /// Standard deviation of the latencies, in milliseconds.
    pub deviation_ms: Option<f64>,
    /// How good the model is at the task, between 0 and 1.
    pub fitness: f64,
    /// How large a model it is.
    pub tier: Tier,
    /// The best of its accounts.
    pub account: AccountTier,
    /// Until the accounts' quota begins anew, in milliseconds.
    pub reset_ms: Option<i64>,
    /// Whether the conversation was served by it before; `None` = there was none.
    pub served_before: Option<bool>,
    /// Share of the context window that the request leaves free.
    pub room: Option<f64>,
    /// Accounts that could serve.
    pub accounts: u16,
    /// Where it stands among those that may have the beginning of the prompt in their cache, between 0 and 1.
    pub cache: f64,
    /// Whether it failed so often in a row that it is left alone.
    pub is_excluded: bool,
}

impl Default for Signals {
    fn default() -> Self {
        Self {
            quota: None,
            health: 1.0,
            price: None,
            p95_ms: None,
            deviation_ms: None,
            fitness: 0.5,
            tier: Tier::Standard,
            account: AccountTier::Standard,
            reset_ms: None,
            served_before: None,
            room: None,
            accounts: 1,
            cache: 0.5,
            is_excluded: false,
        }
    }
}

/// What `auto` decided.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The candidates, best first.
    pub order: Order,
    /// The score of each candidate, by its place among them.
    pub scores: Vec<Score>,
    /// Whether the first was drawn by chance.
    pub is_exploring: bool,
    /// Whether more than half of the candidates are excluded.
    pub is_incident: bool,
}

/// The strategy.
pub(super) struct Auto;

impl Strategy for Auto {
    fn name(&self) -> &'static str {
        "auto"
    }

    fn describe(&self) -> &'static str {
        "the best by health, price, latency, fitness for the task and more, each weighted"
    }

    fn wants(&self) -> Wants {
        Wants {
            turns: false,
            stats: true,
            health: true,
            cost: true,
            context: true,
            last_good: true,
            signals: true,
            ..Wants::default()
        }
    }

    fn orders_accounts(&self) -> bool {
        false
    }

    fn order(&self, choice: &Choice<'_>) -> Order {
        decide(choice, &Tuning::default(), Difficulty::default()).order
    }
}

/// Scores the candidates and puts them in order.
pub fn decide(choice: &Choice<'_>, tuning: &Tuning, difficulty: Difficulty) -> Decision {
    let candidates = choice.candidates;
    let unknown;
    let signals = match choice.signals {
        [] => {
            unknown = vec![Signals::default(); candidates.len()];
            &unknown
        }
        known => known,
    };
    let scores = factors::scores(candidates, signals, tuning, difficulty);
    let merits = merits(candidates, &scores, tuning);
    let known = candidates.iter().zip(signals);
    let ranks: Vec<Rank> = known.map(|(candidate, signals)| rank(candidate, signals, tuning)).collect();
    let mut order: Order = (0..candidates.len()).map(to_index).collect();
    order.sort_by(|a, b| {
        let (a, b) = (usize::from(*a), usize::from(*b));
        ranks[a].cmp(&ranks[b]).then(merits[b].total_cmp(&merits[a]))
    });
    let excluded = ranks.iter().filter(|rank| **rank == Rank::Excluded).count();
    let is_incident = excluded * 2 > candidates.len();
    let ready = ranks.iter().filter(|rank| **rank == Rank::Ready).count();
    rotate_best(&mut order, &merits, ready, choice.turn);
    if tuning.router == RouterStrategy::Lkgp {
        let last =
            order[..ready].iter().position(|place| candidates[usize::from(*place)].is_last_good).unwrap_or(0);
        lead(&mut order, last);
    }
    let mut draw = Draw::new(choice.random);
    let is_exploring = !is_incident && ready > 1 && draw.unit() < tuning.exploration;
    if is_exploring {
        let drawn = usize::try_from(draw.below(ready as u64)).unwrap_or(0);
        lead(&mut order, drawn);
    }
    Decision { order, scores, is_exploring, is_incident }
}

/// What comes before any score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Ready,
    /// Slower than promised.
    Late,
    /// No account can serve now.
    Blocked,
    /// Failed too often of late.
    Excluded,
}

fn rank(candidate: &Candidate, signals: &Signals, tuning: &Tuning) -> Rank {
    if signals.is_excluded {
        return Rank::Excluded;
    }
    if candidate.is_blocked {
        return Rank::Blocked;
    }
    let is_late = tuning.router == RouterStrategy::Sla
        && signals.p95_ms.zip(tuning.sla_p95_ms).is_some_and(|(p95, target)| p95 > f64::from(target));
    if is_late { Rank::Late } else { Rank::Ready }
}

/// By what the candidates are sorted, best highest.
fn merits(candidates: &[Candidate], scores: &[Score], tuning: &Tuning) -> Vec<f64> {
    let each = |merit: &dyn Fn(&Candidate, &Score) -> f64| {
        candidates.iter().zip(scores).map(|(candidate, score)| merit(candidate, score)).collect()
    };
    match tuning.router {
        RouterStrategy::Rules | RouterStrategy::Lkgp => each(&|_, score| score.total),
        RouterStrategy::Cost | RouterStrategy::Sla => {
            let cheapest = candidates.iter().filter_map(|candidate| candidate.cost_nano).min().unwrap_or(0);
            #[allow(clippy::cast_precision_loss, reason = "a ratio")]
            let merit = |cost: i64| (cheapest.max(0) as f64 + 1.0) / (cost.max(0) as f64 + 1.0);
            each(&|candidate, _| candidate.cost_nano.map_or(0.0, merit))
        }
        RouterStrategy::Latency => each(&|candidate, score| {
            let reliability = candidate.success_rate.clamp(0.0, 1.0);
            LATENCY_SHARE * score.of(Factor::LatencyInv) + (1.0 - LATENCY_SHARE) * reliability
        }),
    }
}

/// Those that are as good as the best take turns.
fn rotate_best(order: &mut Order, merits: &[f64], ready: usize, turn: u64) {
    let Some(best) = order.first().map(|place| merits[usize::from(*place)]) else { return };
    let equal =
        order[..ready].iter().take_while(|place| merits[usize::from(**place)] >= best - EQUAL).count();
    if equal > 1 {
        let steps = usize::try_from(turn % equal as u64).unwrap_or(0);
        order[..equal].rotate_left(steps);
    }
}

/// Puts the one at `place` before the others.
fn lead(order: &mut Order, place: usize) {
    if place < order.len() {
        order[..=place].rotate_right(1);
    }
}

#[cfg(test)]
mod tests;
