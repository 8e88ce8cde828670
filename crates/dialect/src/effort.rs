//! Levels of effort and budgets of tokens: what one amounts to in the other. The numbers are a choice, not a standard.

use crate::ir::{Effort, ReasoningAmount};

/// The words that clients may use, for errors.
pub(crate) const WORDS: &str = "`none`, `minimal`, `low`, `medium`, `high`, `xhigh` or `max`";

/// The level that a number of tokens amounts to.
pub(crate) fn of_budget(tokens: u64) -> Effort {
    match tokens {
        0..=1024 => Effort::Minimal,
        1025..=6144 => Effort::Low,
        6145..=16_384 => Effort::Medium,
        16_385..=28_672 => Effort::High,
        28_673..=49_152 => Effort::XHigh,
        _ => Effort::Max,
    }
}

/// The number of tokens that a level amounts to; `None` for as many as there are.
pub(crate) fn budget(effort: Effort) -> Option<u64> {
    match effort {
        Effort::Minimal => Some(1024),
        Effort::Low => Some(4096),
        Effort::Medium => Some(10_240),
        Effort::High => Some(24_576),
        Effort::XHigh => Some(32_768),
        Effort::Max => None,
    }
}

/// The one of a model's levels that comes nearest: the one that was asked for, else the highest below it, else the lowest.
pub(crate) fn nearest(wanted: Effort, levels: &[Effort]) -> Effort {
    let below = levels.iter().rev().find(|level| **level <= wanted);
    below.or_else(|| levels.first()).copied().unwrap_or(wanted)
}

/// The level with this name.
pub(crate) fn of_word(word: &str) -> Option<Effort> {
    Some(match word {
        "minimal" => Effort::Minimal,
        "low" => Effort::Low,
        "medium" => Effort::Medium,
        "high" => Effort::High,
        "xhigh" => Effort::XHigh,
        "max" => Effort::Max,
        _ => return None,
    })
}

impl Effort {
    /// The level in the words of OpenAI's and Anthropic's dialects.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Minimal => "minimal",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::XHigh => "xhigh",
            Self::Max => "max",
        }
    }

    /// The number of tokens that the level amounts to; `None` for as many as there are.
    pub fn budget(self) -> Option<u64> {
        budget(self)
    }
}

impl ReasoningAmount {
    /// What an operator's or a client's word asks for: a level, `off`, `default`, `adaptive`, or a number of tokens.
    pub fn of_word(word: &str) -> Option<Self> {
        let word = word.trim().to_ascii_lowercase();
        Some(match word.as_str() {
            "off" | "none" => Self::Off,
            "default" | "auto" => Self::Default,
            "adaptive" => Self::Adaptive(None),
            word => match (of_word(word), word.parse()) {
                (Some(effort), _) => Self::Effort(effort),
                (None, Ok(0)) => Self::Off,
                (None, Ok(tokens)) => Self::Budget(tokens),
                (None, Err(_)) => return None,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_that_a_model_lacks_have_a_nearest() {
        use Effort::{High, Low, Max, Medium, Minimal, XHigh};
        for (levels, expected) in [
            (&[Minimal, Low, Medium, High][..], [Minimal, Low, Medium, High, High, High]),
            (&[Low, Medium, High], [Low, Low, Medium, High, High, High]),
            (&[Low, Medium, High, Max], [Low, Low, Medium, High, High, Max]),
            (&[Low, Medium, High, XHigh], [Low, Low, Medium, High, XHigh, XHigh]),
            (&[High], [High; 6]),
            (&[], [Minimal, Low, Medium, High, XHigh, Max]),
        ] {
            let found = [Minimal, Low, Medium, High, XHigh, Max].map(|wanted| nearest(wanted, levels));
            assert_eq!(found, expected, "{levels:?}");
        }
    }

    #[test]
    fn words_for_amounts() {
        for (word, amount) in [
            ("off", Some(ReasoningAmount::Off)),
            ("None", Some(ReasoningAmount::Off)),
            (" high ", Some(ReasoningAmount::Effort(Effort::High))),
            ("adaptive", Some(ReasoningAmount::Adaptive(None))),
            ("default", Some(ReasoningAmount::Default)),
            ("4096", Some(ReasoningAmount::Budget(4_096))),
            ("0", Some(ReasoningAmount::Off)),
            ("loud", None),
            ("-1", None),
        ] {
            assert_eq!(ReasoningAmount::of_word(word), amount, "{word}");
        }
    }
}
