//! How much a request shall reason: what the client asked for, after the operator's word. Pure.

use omniroute_dialect::ir::{Effort, ReasoningAmount};

use crate::entity::{ThinkingLevel, ThinkingMode, ThinkingSettings};

/// Tokens of output that are left for the answer beside the thinking.
const RESERVE: u64 = 1_024;
/// Models whose name ends so think, also where the client says nothing of it.
const SUFFIX: &str = "-thinking";

/// What is known of a request.
#[derive(Debug, Clone, Default)]
pub struct Situation<'a> {
    /// The setting that counts: the key's, the combo's, or the general one.
    pub settings: ThinkingSettings,
    /// What the client's header says.
    pub header: Option<&'a ReasoningAmount>,
    /// What the name of the model says (`gpt-5(high)`).
    pub suffix: Option<&'a ReasoningAmount>,
    /// Whether the body says anything about it.
    pub is_asked: bool,
    /// Whether the model can reason.
    pub can_reason: bool,
    /// Most tokens that the model puts out.
    pub max_output: Option<u64>,
    /// The model as the provider knows it.
    pub model: &'a str,
    /// How the conversation is, for the mode `adaptive`.
    pub shape: ConversationShape,
}

/// What makes a request worth more thinking.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConversationShape {
    /// Contributions so far.
    pub messages: usize,
    /// Tools on offer.
    pub tools: usize,
    /// Characters of the user's last words.
    pub last_user_chars: usize,
}

/// What is to be done to the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Nothing.
    Keep,
    /// All that it says about thinking goes.
    Strip,
    /// It asks for this much.
    Set(ReasoningAmount),
}

/// Decides about thinking.
pub fn decide(situation: &Situation<'_>) -> Decision {
    let strip = if situation.is_asked { Decision::Strip } else { Decision::Keep };
    if !situation.can_reason {
        return strip;
    }
    if let Some(header) = situation.header {
        return if *header == ReasoningAmount::Default { strip } else { Decision::Set(header.clone()) };
    }
    let settings = situation.settings;
    match settings.mode {
        ThinkingMode::Auto => strip,
        ThinkingMode::Custom => Decision::Set(tokens(u64::from(settings.custom_budget), situation)),
        ThinkingMode::Adaptive => {
            let base = level(settings.effort_level).and_then(Effort::budget).unwrap_or(0);
            Decision::Set(tokens(base * weight(situation.shape) / 10, situation))
        }
        ThinkingMode::Passthrough if situation.is_asked => Decision::Keep,
        ThinkingMode::Passthrough => match situation.suffix {
            Some(suffix) => Decision::Set(suffix.clone()),
            None if situation.model.ends_with(SUFFIX) => {
                Decision::Set(tokens(u64::from(settings.custom_budget), situation))
            }
            None => Decision::Keep,
        },
    }
}

/// Tenths by which the budget is multiplied.
const fn weight(shape: ConversationShape) -> u64 {
    let mut weight = 10;
    if shape.messages > 10 {
        weight += 5;
    }
    if shape.tools > 3 {
        weight += 5;
    }
    if shape.last_user_chars > 2_000 {
        weight += 3;
    }
    weight
}

/// A budget within what the model can put out.
fn tokens(budget: u64, situation: &Situation<'_>) -> ReasoningAmount {
    let most = situation.max_output.map_or(u64::MAX, |most| most.saturating_sub(RESERVE));
    match budget.min(most) {
        0 => ReasoningAmount::Off,
        tokens => ReasoningAmount::Budget(tokens),
    }
}

const fn level(level: ThinkingLevel) -> Option<Effort> {
    match level {
        ThinkingLevel::None => None,
        ThinkingLevel::Low => Some(Effort::Low),
        ThinkingLevel::Medium => Some(Effort::Medium),
        ThinkingLevel::High => Some(Effort::High),
        ThinkingLevel::XHigh => Some(Effort::XHigh),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Decision::{Keep, Set, Strip};
    use ReasoningAmount::{Budget, Off};

    fn settings(mode: ThinkingMode) -> ThinkingSettings {
        ThinkingSettings { mode, custom_budget: 5_000, effort_level: ThinkingLevel::Low }
    }

    #[test]
    fn every_mode_with_and_without_a_wish() {
        use ThinkingMode::{Adaptive, Auto, Custom, Passthrough};
        let high = ReasoningAmount::Effort(Effort::High);
        for (mode, is_asked, suffix, model, expected) in [
            (Passthrough, true, None, "m", Keep),
            (Passthrough, false, None, "m", Keep),
            (Passthrough, false, Some(&high), "m", Set(high.clone())),
            (Passthrough, true, Some(&high), "m", Keep),
            (Passthrough, false, None, "m-thinking", Set(Budget(5_000))),
            (Passthrough, true, None, "m-thinking", Keep),
            (Auto, true, None, "m", Strip),
            (Auto, false, Some(&high), "m", Keep),
            (Custom, true, None, "m", Set(Budget(5_000))),
            (Custom, false, Some(&high), "m", Set(Budget(5_000))),
            (Adaptive, false, None, "m", Set(Budget(4_096))),
        ] {
            let situation = Situation {
                settings: settings(mode),
                suffix,
                is_asked,
                can_reason: true,
                model,
                ..Situation::default()
            };
            assert_eq!(decide(&situation), expected, "{mode:?} {is_asked} {suffix:?} {model}");
            let header = Situation { header: Some(&high), ..situation.clone() };
            assert_eq!(decide(&header), Set(high.clone()), "the header comes first");
            let by_itself = Situation { header: Some(&ReasoningAmount::Default), ..situation.clone() };
            assert_eq!(decide(&by_itself), if is_asked { Strip } else { Keep });
            let dumb = Situation { can_reason: false, ..header };
            assert_eq!(decide(&dumb), if is_asked { Strip } else { Keep }, "a model that cannot");
        }
    }

    #[test]
    fn budgets_grow_with_the_conversation_and_end_at_the_model() {
        let shape = |messages, tools, last_user_chars| ConversationShape { messages, tools, last_user_chars };
        for (shape, max_output, expected) in [
            (shape(10, 3, 2_000), None, Budget(4_096)),
            (shape(11, 0, 0), None, Budget(6_144)),
            (shape(11, 4, 0), None, Budget(8_192)),
            (shape(11, 4, 2_001), None, Budget(9_420)),
            (shape(11, 4, 2_001), Some(8_192), Budget(7_168)),
            (shape(0, 0, 0), Some(1_000), Off),
        ] {
            let situation = Situation {
                settings: settings(ThinkingMode::Adaptive),
                can_reason: true,
                max_output,
                shape,
                ..Situation::default()
            };
            assert_eq!(decide(&situation), Set(expected), "{shape:?}");
        }
        let off = ThinkingSettings { effort_level: ThinkingLevel::None, ..settings(ThinkingMode::Adaptive) };
        let none = Situation { settings: off, can_reason: true, ..Situation::default() };
        assert_eq!(decide(&none), Set(Off));
    }
}
