//! The factors of a score. Each is between 0 and 1; what is not known is worth a half, so that the unknown gets its chance.

use super::{AccountTier, Difficulty, Signals, Tier, Tuning};
use crate::routing::Candidate;

/// How many there are.
pub const FACTORS: usize = 13;
/// What is not known.
const UNKNOWN: f64 = 0.5;
/// The longest period of a quota, in milliseconds: thirty days.
const LONGEST_PERIOD_MS: f64 = 2_592_000_000.0;

macro_rules! factors {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)+) => {
        /// Something that speaks for a candidate.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Factor {
            $($(#[$doc])* $variant,)+
        }

        impl Factor {
            /// Every factor, in the order of the table in the documentation.
            pub const ALL: [Self; FACTORS] = [$(Self::$variant,)+];

            /// The name in configurations and explanations.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// The factor of this name.
            pub fn by_name(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }
    };
}

factors! {
    /// What is left of the accounts' quotas.
    Quota = "quota",
    /// Whether it works.
    Health = "health",
    /// How cheap the model is beside the dearest.
    CostInv = "costInv",
    /// How quick it is beside the slowest.
    LatencyInv = "latencyInv",
    /// How good the model is at the task.
    TaskFit = "taskFit",
    /// How even its latencies are beside the most uneven.
    Stability = "stability",
    /// The plan of its accounts, and how soon their quota begins anew.
    TierPriority = "tierPriority",
    /// Whether the model is as large as the request wants.
    TierAffinity = "tierAffinity",
    /// How near the request's difficulty is to the model's size.
    SpecificityMatch = "specificityMatch",
    /// Whether the conversation was here before, else how much room its context window has.
    ContextAffinity = "contextAffinity",
    /// How many accounts could serve.
    ConnectionDensity = "connectionDensity",
    /// Whether the prompt's beginning is likely to be in its cache.
    CacheAffinity = "cacheAffinity",
    /// How soon the accounts' quota begins anew.
    ResetWindowAffinity = "resetWindowAffinity",
}

/// A candidate's score and what it is made of.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Score {
    /// The sum of the factors times their weights.
    pub total: f64,
    factors: [f32; FACTORS],
}

impl Score {
    /// The value of a factor.
    pub fn of(&self, factor: Factor) -> f64 {
        f64::from(self.factors[factor as usize])
    }

    /// Every factor with its value.
    pub fn factors(&self) -> impl Iterator<Item = (Factor, f64)> {
        Factor::ALL.into_iter().map(|factor| (factor, self.of(factor)))
    }
}

/// The largest values among the candidates, which the others are measured by.
struct Largest {
    price: f64,
    p95_ms: f64,
    deviation_ms: f64,
}

/// The score of each candidate.
pub(super) fn scores(
    candidates: &[Candidate],
    signals: &[Signals],
    tuning: &Tuning,
    difficulty: Difficulty,
) -> Vec<Score> {
    let largest = |value: fn(&Signals) -> Option<f64>| signals.iter().filter_map(value).fold(0.0, f64::max);
    let largest = Largest {
        price: largest(|signals| signals.price),
        p95_ms: largest(|signals| signals.p95_ms),
        deviation_ms: largest(|signals| signals.deviation_ms),
    };
    let known = candidates.iter().zip(signals);
    known.map(|(candidate, signals)| score(candidate, signals, &largest, tuning, difficulty)).collect()
}

fn score(
    candidate: &Candidate,
    signals: &Signals,
    largest: &Largest,
    tuning: &Tuning,
    difficulty: Difficulty,
) -> Score {
    let wanted = tuning.tier.unwrap_or(difficulty.tier());
    let value = |factor: Factor| match factor {
        Factor::Quota => signals.quota.unwrap_or(1.0 - UNKNOWN * candidate.load.clamp(0.0, 1.0)),
        Factor::Health => signals.health,
        Factor::CostInv => inverse(signals.price, largest.price),
        Factor::LatencyInv => inverse(signals.p95_ms, largest.p95_ms),
        Factor::TaskFit => signals.fitness,
        Factor::Stability => inverse(signals.deviation_ms, largest.deviation_ms),
        Factor::TierPriority => 0.8 * account(signals.account) + 0.2 * soon(signals.reset_ms).unwrap_or(0.0),
        Factor::TierAffinity => match signals.tier.distance(wanted) {
            0 => 1.0,
            1 => 0.7,
            _ => 0.3,
        },
        Factor::SpecificityMatch => 1.0 - (difficulty.share() - centre(signals.tier)).abs(),
        Factor::ContextAffinity => match signals.served_before {
            Some(true) => 1.0,
            Some(false) => UNKNOWN,
            None => signals.room.unwrap_or(UNKNOWN),
        },
        Factor::ConnectionDensity => f64::from(signals.accounts.saturating_sub(1)) / 10.0,
        Factor::CacheAffinity => signals.cache,
        Factor::ResetWindowAffinity => soon(signals.reset_ms).unwrap_or(UNKNOWN),
    };
    let mut score = Score::default();
    for factor in Factor::ALL {
        let value = value(factor);
        // Whatever a caller found out, nothing leaves its bounds; what is no number is unknown.
        let value = if value.is_nan() { UNKNOWN } else { value.clamp(0.0, 1.0) };
        score.total += value * tuning.weights.of(factor);
        #[allow(clippy::cast_possible_truncation, reason = "for showing")]
        let shown = value as f32;
        score.factors[factor as usize] = shown;
    }
    score
}

/// 1 for nothing, 0 for the largest. Where the largest is nothing all are alike.
fn inverse(value: Option<f64>, largest: f64) -> f64 {
    match value {
        None => UNKNOWN,
        Some(_) if largest <= 0.0 => 1.0,
        Some(value) => 1.0 - value / largest,
    }
}

const fn account(tier: AccountTier) -> f64 {
    match tier {
        AccountTier::Ultra => 1.0,
        AccountTier::Pro => 0.67,
        AccountTier::Standard => 0.33,
        AccountTier::Free => 0.0,
    }
}

/// The difficulty that a size of models is made for.
const fn centre(tier: Tier) -> f64 {
    match tier {
        Tier::Economy => 0.15,
        Tier::Standard => 0.5,
        Tier::Premium => 0.85,
    }
}

fn soon(reset_ms: Option<i64>) -> Option<f64> {
    #[allow(clippy::cast_precision_loss, reason = "a share of thirty days")]
    let share = reset_ms.map(|ms| ms.max(0) as f64 / LONGEST_PERIOD_MS);
    share.map(|share| 1.0 - share.min(1.0))
}
