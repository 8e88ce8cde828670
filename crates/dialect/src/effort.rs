//! Levels of effort and budgets of tokens: what one amounts to in the other. The numbers are a choice, not a standard.

use crate::ir::Effort;

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
