//! How close a question must be to one that was answered before, so that it gets the same answer.

use serde::{Deserialize, Serialize};

use super::Number;

/// The tier of the answer cache that goes by similarity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SimilaritySettings {
    /// What it does.
    pub mode: SimilarityMode,
    /// The model that turns questions into vectors.
    pub model: Option<String>,
    /// Least similarity, up to 1.
    pub threshold: Number,
    /// Share of the answers it would give for which somebody is asked all the same, between 0 and 1.
    pub sample_rate: Number,
    /// How long a request waits for its vector, in milliseconds.
    pub timeout_ms: u32,
    /// Most questions of one key that are remembered.
    pub max_entries_per_key: u32,
    /// Longest question, in characters.
    pub max_chars: u32,
}

impl Default for SimilaritySettings {
    fn default() -> Self {
        Self {
            mode: SimilarityMode::Off,
            model: None,
            threshold: Number::from(0.97),
            sample_rate: Number::from(0.02),
            timeout_ms: 1_000,
            max_entries_per_key: 10_000,
            max_chars: 1_000,
        }
    }
}

/// What is done with questions that are close to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SimilarityMode {
    /// Nothing.
    Off,
    /// Somebody is asked; what would have been given is told, and compared with the answer.
    Shadow,
    /// They get the kept answer.
    Enabled,
}

impl SimilarityMode {
    /// Whether a kept answer is given. `chance` is between 0 and 1.
    pub fn serves(self, sample_rate: Number, chance: f64) -> bool {
        match self {
            Self::Off | Self::Shadow => false,
            Self::Enabled => chance >= sample_rate.get(),
        }
    }

    /// The word in API fields.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Shadow => "shadow",
            Self::Enabled => "enabled",
        }
    }
}

/// What a key does otherwise; absent members are as the settings say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KeySimilarity {
    /// What is done with its questions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<SimilarityMode>,
    /// Least similarity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<Number>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_enabled_tier_serves_and_samples_its_share() {
        let rate = Number::from(0.25);
        assert!(!SimilarityMode::Off.serves(rate, 0.9) && !SimilarityMode::Shadow.serves(rate, 0.9));
        assert!(SimilarityMode::Enabled.serves(rate, 0.25) && !SimilarityMode::Enabled.serves(rate, 0.24));
        assert!(SimilarityMode::Enabled.serves(Number::from(0.0), 0.0));
        assert!(!SimilarityMode::Enabled.serves(Number::from(1.0), 0.999));
    }

    #[test]
    fn what_was_stored_before_there_was_such_a_thing_is_read() {
        let settings: SimilaritySettings = serde_json::from_str("{}").unwrap();
        assert_eq!((settings.mode, settings.threshold.get()), (SimilarityMode::Off, 0.97));
    }
}
