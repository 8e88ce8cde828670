//! How an operator tunes the strategy `auto`: members of a combo's `config`. And numbers with a point, which need some care.

use serde::de::Error as _;
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::routing::auto::{FACTORS, Factor};

/// A number as JSON knows them: never `NaN`, so that it is equal to itself.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Number(f64);

impl Number {
    /// The number; `None` for what JSON cannot say.
    pub fn new(value: f64) -> Option<Self> {
        value.is_finite().then_some(Self(value))
    }

    /// As it is calculated with.
    pub const fn get(self) -> f64 {
        self.0
    }
}

impl From<Number> for f64 {
    fn from(number: Number) -> Self {
        number.0
    }
}

/// What is no number is 0; JSON has none of those.
impl From<f64> for Number {
    fn from(value: f64) -> Self {
        Self::new(value).unwrap_or(Self(0.0))
    }
}

// There is no `NaN` among them.
impl Eq for Number {}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(f64::deserialize(deserializer)?).ok_or_else(|| D::Error::custom("must be a finite number"))
    }
}

/// Weights for some of the factors; the others keep theirs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AutoWeights([Option<Number>; FACTORS]);

impl AutoWeights {
    /// The weight of a factor, if it has one of its own.
    pub fn of(&self, factor: Factor) -> Option<f64> {
        self.0[factor as usize].map(Number::get)
    }

    /// Sets the weight of a factor.
    pub fn set(&mut self, factor: Factor, weight: Number) {
        self.0[factor as usize] = Some(weight);
    }
}

impl Serialize for AutoWeights {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for factor in Factor::ALL {
            if let Some(weight) = self.of(factor) {
                map.serialize_entry(factor.name(), &weight)?;
            }
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for AutoWeights {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let map = std::collections::BTreeMap::<String, Number>::deserialize(deserializer)?;
        let mut weights = Self::default();
        for (name, weight) in map {
            let factor = Factor::by_name(&name)
                .ok_or_else(|| D::Error::custom(format!("`{name}` is no factor of `auto`")))?;
            weights.set(factor, weight);
        }
        Ok(weights)
    }
}

/// Weights that belong together under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModePack {
    /// Latency and health count most.
    ShipFast,
    /// The price counts most.
    CostSaver,
    /// What the model is good at counts most.
    QualityFirst,
    /// What is left of the accounts' quotas counts most.
    OfflineFriendly,
    /// Health and steadiness count most.
    Reliable,
}

/// What becomes of a request that is too expensive everywhere.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BudgetFallback {
    /// The cheapest serves it.
    #[default]
    Cheapest,
    /// It is refused.
    Strict,
}

/// By what `auto` chooses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RouterStrategy {
    /// By all factors.
    #[default]
    Rules,
    /// By the cost of the request.
    #[serde(alias = "eco")]
    Cost,
    /// By latency, and a little by reliability.
    #[serde(alias = "fast")]
    Latency,
    /// The last that answered, then by all factors.
    Lkgp,
    /// The cheapest of those that are fast enough.
    Sla,
}
