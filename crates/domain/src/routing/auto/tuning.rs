//! How `auto` is tuned: the built-in weights, packs of them, and what the operator says.

use super::{FACTORS, Factor, Task, Tier};
use crate::entity::{BudgetFallback, ComboConfig, ModePack, Number, RouterStrategy};

/// Most that a request may be expected to cost unless the operator says otherwise, in US dollars.
pub const DEFAULT_CAP_USD: f64 = 1_000.0;
/// Share of requests that go to any candidate unless the operator says otherwise.
pub(crate) const EXPLORATION: f64 = 0.05;

/// What each factor counts; together 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weights([f64; FACTORS]);

/// In the order of [`Factor::ALL`].
const BUILT_IN: [f64; FACTORS] = [0.15, 0.20, 0.15, 0.12, 0.08, 0.05, 0.05, 0.05, 0.05, 0.05, 0.05, 0.0, 0.0];

impl Default for Weights {
    fn default() -> Self {
        Self(BUILT_IN).normal()
    }
}

impl Weights {
    /// The weights of a pack: what it names as it names it, the rest in proportion.
    pub fn of_pack(pack: ModePack) -> Self {
        let named: &[(Factor, f64)] = match pack {
            ModePack::ShipFast => &[(Factor::LatencyInv, 0.30), (Factor::Health, 0.25)],
            ModePack::CostSaver => &[(Factor::CostInv, 0.35)],
            ModePack::QualityFirst => &[(Factor::TaskFit, 0.35)],
            ModePack::OfflineFriendly => &[(Factor::Quota, 0.35)],
            ModePack::Reliable => &[(Factor::Health, 0.35), (Factor::Stability, 0.20)],
        };
        let own = |factor: Factor| named.iter().find(|(it, _)| *it == factor).map(|(_, weight)| *weight);
        let taken: f64 = named.iter().map(|(_, weight)| weight).sum();
        let left: f64 =
            Factor::ALL.iter().filter(|it| own(**it).is_none()).map(|it| BUILT_IN[*it as usize]).sum();
        let weights =
            Factor::ALL.map(|factor| own(factor).unwrap_or(BUILT_IN[factor as usize] * (1.0 - taken) / left));
        Self(weights).normal()
    }

    /// What a factor counts.
    pub const fn of(&self, factor: Factor) -> f64 {
        self.0[factor as usize]
    }

    /// Together 1. Weights that are all nothing are as built in.
    fn normal(self) -> Self {
        let weights = self.0.map(|weight| if weight.is_finite() { weight.max(0.0) } else { 0.0 });
        let sum: f64 = weights.iter().sum();
        if sum > 0.0 { Self(weights.map(|weight| weight / sum)) } else { Self(BUILT_IN).normal() }
    }
}

/// What a variant of `auto` asks of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Takes images.
    Vision,
    /// Takes images and sound.
    Multimodal,
    /// Can reason.
    Reasoning,
    /// Costs nothing.
    Free,
    /// Is one of the best.
    Premium,
}

impl Need {
    /// What a model that does not have it is told to lack.
    pub const fn lack(self) -> &'static str {
        match self {
            Self::Vision => "the model takes no images",
            Self::Multimodal => "the model takes no images, or no sound",
            Self::Reasoning => "the model does not reason",
            Self::Free => "the model is not known to be free",
            Self::Premium => "the model is not one of the largest",
        }
    }
}

/// How a combo's `auto` decides.
#[derive(Debug, Clone, PartialEq)]
pub struct Tuning {
    /// What the factors count.
    pub weights: Weights,
    /// Share of requests that go to any candidate, between 0 and 1.
    pub exploration: f64,
    /// By what it chooses.
    pub router: RouterStrategy,
    /// Most that a request may be expected to cost, in billionths of a US dollar.
    pub cap_nano: i64,
    /// What becomes of a request that is too expensive everywhere.
    pub fallback: BudgetFallback,
    /// The latency that 95 of 100 answers are to keep, in milliseconds.
    pub sla_p95_ms: Option<u32>,
    /// What every request is taken to be about.
    pub task: Option<Task>,
    /// How large a model every request is taken to want.
    pub tier: Option<Tier>,
    /// What models must have, as long as one has it.
    pub needs: Vec<Need>,
}

impl Default for Tuning {
    fn default() -> Self {
        Self::of(&ComboConfig::default())
    }
}

impl Tuning {
    /// The tuning of a configuration that the defaults of the operator lie under already.
    pub fn of(config: &ComboConfig) -> Self {
        let mut weights = config.mode_pack.map_or_else(Weights::default, Weights::of_pack);
        if let Some(own) = config.weights {
            for factor in Factor::ALL {
                if let Some(weight) = own.of(factor) {
                    weights.0[factor as usize] = weight;
                }
            }
            weights = weights.normal();
        }
        Self {
            weights,
            exploration: config.exploration_rate.map_or(EXPLORATION, Number::get).clamp(0.0, 1.0),
            router: config.router_strategy.unwrap_or_default(),
            cap_nano: nano(config.budget_cap.map_or(DEFAULT_CAP_USD, Number::get)),
            fallback: config.budget_fallback.unwrap_or_default(),
            sla_p95_ms: config.sla_p95_ms,
            task: None,
            tier: None,
            needs: Vec::new(),
        }
    }
}

fn nano(usd: f64) -> i64 {
    // Beyond i64 (nine billion dollars) the cast saturates.
    (usd.max(0.0) * 1e9).round() as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entity::AutoWeights;

    fn sum(weights: &Weights) -> f64 {
        Factor::ALL.iter().map(|factor| weights.of(*factor)).sum()
    }

    #[test]
    fn weights_are_one_together_in_every_pack() {
        let packs = [
            (ModePack::ShipFast, Factor::LatencyInv, 0.30),
            (ModePack::ShipFast, Factor::Health, 0.25),
            (ModePack::CostSaver, Factor::CostInv, 0.35),
            (ModePack::QualityFirst, Factor::TaskFit, 0.35),
            (ModePack::OfflineFriendly, Factor::Quota, 0.35),
            (ModePack::Reliable, Factor::Stability, 0.20),
        ];
        for (pack, factor, weight) in packs {
            let weights = Weights::of_pack(pack);
            assert!((sum(&weights) - 1.0).abs() < 1e-9, "{pack:?}");
            assert!((weights.of(factor) - weight).abs() < 1e-9, "{pack:?} {factor:?} {weights:?}");
        }
        let built_in = Weights::default();
        assert!((sum(&built_in) - 1.0).abs() < 1e-9);
        assert!((built_in.of(Factor::Health) - 0.20).abs() < 1e-9, "{built_in:?}");
    }

    #[test]
    fn own_weights_lie_over_the_pack_and_are_brought_to_one() {
        let mut own = AutoWeights::default();
        own.set(Factor::CacheAffinity, Number::new(1.0).unwrap());
        let config = ComboConfig {
            mode_pack: Some(ModePack::CostSaver),
            weights: Some(own),
            ..ComboConfig::default()
        };
        let weights = Tuning::of(&config).weights;
        assert!((sum(&weights) - 1.0).abs() < 1e-9);
        assert!((weights.of(Factor::CacheAffinity) - 0.5).abs() < 1e-9);
        assert!((weights.of(Factor::CostInv) - 0.175).abs() < 1e-9);

        let mut nothing = AutoWeights::default();
        Factor::ALL.into_iter().for_each(|factor| nothing.set(factor, Number::new(0.0).unwrap()));
        let config = ComboConfig { weights: Some(nothing), ..ComboConfig::default() };
        assert_eq!(Tuning::of(&config).weights, Weights::default());
    }
}
