//! What a request is about, as far as its outside tells, and how large a model it wants.

use serde::{Deserialize, Serialize};

use crate::combo::RequestFacts;

/// Kinds of requests that models are good or bad at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Writing and changing programs.
    Code,
    /// Thinking something through.
    Reasoning,
    /// A short question.
    Simple,
    /// Anything else.
    Medium,
    /// Looking at pictures.
    Vision,
}

impl Task {
    /// Up to so many tokens of prompt a request is a short question.
    const SHORT: u64 = 500;

    /// The name in records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Code => "code",
            Self::Reasoning => "reasoning",
            Self::Simple => "simple",
            Self::Medium => "medium",
            Self::Vision => "vision",
        }
    }

    /// What a request is about.
    pub const fn of(facts: &RequestFacts) -> Self {
        if facts.has_images {
            Self::Vision
        } else if facts.has_code || facts.has_tools {
            Self::Code
        } else if facts.wants_reasoning {
            Self::Reasoning
        } else if facts.input_tokens <= Self::SHORT {
            Self::Simple
        } else {
            Self::Medium
        }
    }
}

/// How much a request asks of a model: 0 = nothing, 100 = everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Difficulty(u8);

impl Default for Difficulty {
    fn default() -> Self {
        Self(50)
    }
}

impl Difficulty {
    /// By the length of the prompt and by what is asked for.
    pub const fn of(facts: &RequestFacts) -> Self {
        let length = match facts.input_tokens {
            0..=200 => 10,
            201..=1_000 => 20,
            1_001..=4_000 => 35,
            4_001..=16_000 => 50,
            16_001..=64_000 => 65,
            _ => 80,
        };
        let asked = 10 * (facts.has_tools as u8)
            + 10 * (facts.has_images as u8)
            + 10 * (facts.wants_json_schema as u8)
            + 15 * (facts.has_code as u8)
            + 25 * (facts.wants_reasoning as u8);
        let sum = length + asked;
        Self(if sum > 100 { 100 } else { sum })
    }

    /// Between 0 and 1.
    pub fn share(self) -> f64 {
        f64::from(self.0) / 100.0
    }

    /// The size of models that it wants.
    pub const fn tier(self) -> Tier {
        match self.0 {
            0..=33 => Tier::Economy,
            34..=66 => Tier::Standard,
            _ => Tier::Premium,
        }
    }
}

/// How large a model is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// Small and cheap.
    Economy,
    /// In between.
    #[default]
    Standard,
    /// The best that there is.
    Premium,
}

impl Tier {
    /// By the blended price per million tokens, where nothing else is known.
    pub fn by_price(usd: f64) -> Self {
        if usd < 1.0 {
            Self::Economy
        } else if usd < 6.0 {
            Self::Standard
        } else {
            Self::Premium
        }
    }

    /// How many sizes lie between.
    pub const fn distance(self, other: Self) -> u8 {
        (self as u8).abs_diff(other as u8)
    }
}

/// The plan that an account is on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum AccountTier {
    /// Pays nothing.
    Free,
    /// What is assumed.
    #[default]
    Standard,
    /// Pays for more.
    Pro,
    /// Pays for the most.
    Ultra,
}

impl AccountTier {
    /// From the labels of a connection: the first of `tier:free`, `tier:standard`, `tier:pro`, `tier:ultra`.
    pub fn of(tags: &[String]) -> Self {
        let named = |tag: &String| match tag.strip_prefix("tier:")? {
            "free" => Some(Self::Free),
            "standard" => Some(Self::Standard),
            "pro" => Some(Self::Pro),
            "ultra" => Some(Self::Ultra),
            _ => None,
        };
        tags.iter().find_map(named).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_request_is_about() {
        let facts = RequestFacts { input_tokens: 100, ..RequestFacts::default() };
        let cases = [
            (facts, Task::Simple, Tier::Economy),
            (RequestFacts { input_tokens: 5_000, ..facts }, Task::Medium, Tier::Standard),
            (RequestFacts { input_tokens: 100_000, ..facts }, Task::Medium, Tier::Premium),
            (RequestFacts { has_tools: true, has_images: true, ..facts }, Task::Vision, Tier::Economy),
            (RequestFacts { has_code: true, has_tools: true, ..facts }, Task::Code, Tier::Standard),
            (RequestFacts { wants_reasoning: true, ..facts }, Task::Reasoning, Tier::Standard),
        ];
        for (facts, task, tier) in cases {
            assert_eq!((Task::of(&facts), Difficulty::of(&facts).tier()), (task, tier), "{facts:?}");
        }
        let all = RequestFacts {
            input_tokens: u64::MAX,
            has_tools: true,
            has_images: true,
            wants_json_schema: true,
            has_code: true,
            wants_reasoning: true,
            ..facts
        };
        assert!((Difficulty::of(&all).share() - 1.0).abs() < f64::EPSILON);
    }

    #[test]
    fn plans_are_read_from_labels() {
        let of =
            |tags: &[&str]| AccountTier::of(&tags.iter().map(|tag| (*tag).to_owned()).collect::<Vec<_>>());
        assert_eq!(of(&[]), AccountTier::Standard);
        assert_eq!(of(&["team", "tier:ultra"]), AccountTier::Ultra);
        assert_eq!(of(&["tier:gold", "tier:free"]), AccountTier::Free);
    }
}
