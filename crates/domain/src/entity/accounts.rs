//! What the operator says of accounts and of how they are chosen.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

/// How the accounts of one provider are chosen, where that differs from what holds for all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProviderStrategy {
    /// A name of `routing::STRATEGIES`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback_strategy: Option<String>,
    /// Requests on one account before round-robin moves on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sticky_round_robin_limit: Option<u32>,
}

/// By provider: id, alias, or prefix of a node.
pub type ProviderStrategies = BTreeMap<String, ProviderStrategy>;

/// Further keys of an account, used in turn with its first one. Never written with the rest of the options.
#[derive(Debug, Clone, Default)]
pub struct KeyPool(pub Vec<SecretString>);

impl KeyPool {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All keys of an account whose first one this is, each once.
    pub fn with(&self, first: Option<&SecretString>) -> Vec<SecretString> {
        let mut all: Vec<SecretString> = Vec::with_capacity(self.0.len() + 1);
        for key in first.into_iter().chain(&self.0) {
            if !all.iter().any(|other| other.expose_secret() == key.expose_secret()) {
                all.push(key.clone());
            }
        }
        all
    }
}

impl PartialEq for KeyPool {
    fn eq(&self, other: &Self) -> bool {
        self.0.iter().map(|key| key.expose_secret()).eq(other.0.iter().map(|key| key.expose_secret()))
    }
}

impl Eq for KeyPool {}

/// The share by which an account pays less than the list price, between 0 and 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Discount {
    millionths: u32,
}

impl Discount {
    /// What is left of a price of one, in billionths.
    pub fn left_nano(self) -> i64 {
        i64::from(1_000_000 - self.millionths.min(1_000_000)) * 1_000
    }
}

impl TryFrom<f64> for Discount {
    type Error = &'static str;

    fn try_from(share: f64) -> Result<Self, Self::Error> {
        if !(0.0..=1.0).contains(&share) {
            return Err("a discount is a share between 0 and 1");
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it lies between 0 and 1")]
        let millionths = (share * 1_000_000.0).round() as u32;
        Ok(Self { millionths })
    }
}

impl From<Discount> for f64 {
    fn from(discount: Discount) -> Self {
        Self::from(discount.millionths) / 1_000_000.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_discount_is_a_share_and_reads_back_as_written() {
        for (share, left) in [(0.0, 1_000_000_000), (0.15, 850_000_000), (1.0, 0)] {
            let discount = Discount::try_from(share).expect("a share");
            assert_eq!(discount.left_nano(), left);
            assert!((f64::from(discount) - share).abs() < f64::EPSILON);
        }
        for wrong in [-0.1, 1.5, f64::NAN] {
            assert!(Discount::try_from(wrong).is_err(), "{wrong}");
        }
    }
}
