//! How much the model shall think.

use super::{
    conversation::Conversation,
    encode::{Choice, DEFAULT_MAX_TOKENS, Knobs, Thinking},
};
use crate::{
    Caps, ReasoningOff,
    anthropic::wire::BlockOut,
    effort,
    ir::{ChatRequest, Effort, Loss, LossAction, ReasoningAmount, Word, loss, quiet},
};

/// Smallest thinking budget.
const MIN_BUDGET: u64 = 1024;

/// Decides about thinking: what was asked, as far as the model can and the rest of the request lets it.
pub(super) fn thinking(
    request: &ChatRequest,
    caps: &Caps,
    conversation: &Conversation<'_>,
    knobs: &mut Knobs<'_>,
    losses: &mut Vec<Loss>,
) {
    let amount = &request.reasoning.amount;
    let asked =
        !matches!(amount, ReasoningAmount::Default | ReasoningAmount::Off | ReasoningAmount::Budget(0));
    let path = request.word(Word::Reasoning);
    let give_up = |losses: &mut Vec<Loss>| losses.push(loss(path, LossAction::Dropped));
    if !caps.reasoning {
        if asked {
            give_up(losses);
        }
        return;
    }
    // A forced call and thinking exclude each other; models that think by themselves must be told not to.
    let forced = knobs.tool_choice.is_some_and(Choice::is_forced);
    let always_thinks = caps.reasoning_off == ReasoningOff::Least;
    if (forced || conversation.prefilled) && !always_thinks {
        if asked {
            give_up(losses);
        }
        if caps.adaptive_thinking || asked {
            (knobs.thinking, knobs.effort) = off(caps);
        }
        return;
    }
    let max_tokens = knobs.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS);
    match amount {
        ReasoningAmount::Default => {
            if knobs.show == Some(true) {
                // There is nothing to be shown.
                losses.push(quiet(request.word(Word::Show), LossAction::Dropped));
            }
        }
        ReasoningAmount::Off | ReasoningAmount::Budget(0) => {
            (knobs.thinking, knobs.effort) = off(caps);
            match caps.reasoning_off {
                ReasoningOff::Word => {}
                ReasoningOff::BetweenTools => losses.push(quiet(path, LossAction::Mapped)),
                // Not thinking is what the model cannot do.
                ReasoningOff::Least => losses.push(loss(path, LossAction::Clamped)),
            }
        }
        _ if caps.adaptive_thinking => {
            // Beside a forced call it is better not to speak of thinking at all; how much is asked for is another word.
            knobs.thinking = if forced { Thinking::Unsaid } else { Thinking::Adaptive };
            let (word, exact) = adaptive_word(amount, caps);
            if !exact {
                losses.push(quiet(path, LossAction::Clamped));
            } else if matches!(amount, ReasoningAmount::Budget(_)) {
                losses.push(quiet(path, LossAction::Mapped));
            }
            knobs.effort = word;
            if knobs.show.is_none() && word.is_some() {
                knobs.show = Some(true);
            }
        }
        _ => {
            if *amount == ReasoningAmount::Adaptive(None) {
                losses.push(quiet(path, LossAction::Mapped));
            }
            let wanted = wanted_budget(amount, caps);
            let budget = budget_within(wanted, max_tokens);
            let Some(budget) = budget.filter(|_| !continues_unsigned(conversation)) else {
                (knobs.thinking, knobs.effort) = off(caps);
                give_up(losses);
                return;
            };
            if budget != wanted {
                losses.push(quiet(path, LossAction::Clamped));
            }
            knobs.thinking = Thinking::Enabled { budget };
            // The member is new; models with budgets show their thinking by themselves.
            knobs.show = None;
        }
    }
}

/// How a model is told not to think, and with which effort where it cannot help it.
pub(in crate::anthropic) fn off(caps: &Caps) -> (Thinking, Option<&'static str>) {
    match caps.reasoning_off {
        ReasoningOff::Word => (Thinking::Disabled, None),
        ReasoningOff::BetweenTools => (Thinking::BetweenTools, None),
        ReasoningOff::Least => {
            (Thinking::Unsaid, Some(effort_word(effort::nearest(Effort::Minimal, caps.efforts))))
        }
    }
}

/// The word for an amount at a model that thinks adaptively, and whether it says just that.
pub(in crate::anthropic) fn adaptive_word(
    amount: &ReasoningAmount,
    caps: &Caps,
) -> (Option<&'static str>, bool) {
    let wanted = match amount {
        ReasoningAmount::Effort(effort) | ReasoningAmount::Adaptive(Some(effort)) => Some(*effort),
        ReasoningAmount::Budget(budget) => Some(effort::of_budget(*budget)),
        ReasoningAmount::Default | ReasoningAmount::Off | ReasoningAmount::Adaptive(None) => None,
    };
    let word = wanted.map(|wanted| effort_word(effort::nearest(wanted, caps.efforts)));
    (word, wanted.map(Effort::word) == word)
}

/// The budget that an amount comes to at a model that takes one.
pub(in crate::anthropic) fn wanted_budget(amount: &ReasoningAmount, caps: &Caps) -> u64 {
    match amount {
        ReasoningAmount::Budget(budget) => *budget,
        ReasoningAmount::Effort(effort) | ReasoningAmount::Adaptive(Some(effort)) => budget_of(*effort, caps),
        ReasoningAmount::Adaptive(None) => budget_of(Effort::Medium, caps),
        ReasoningAmount::Default | ReasoningAmount::Off => 0,
    }
}

/// A budget within the limit of the answer, which thinking counts towards; `None` where there is no room for any.
pub(in crate::anthropic) fn budget_within(wanted: u64, max_tokens: u64) -> Option<u64> {
    Some(wanted.max(MIN_BUDGET).min(max_tokens.saturating_sub(1))).filter(|budget| *budget >= MIN_BUDGET)
}

/// Whether the model is to go on behind tool results without its own reasoning of before, which it refuses to
/// do while thinking with a budget.
fn continues_unsigned(conversation: &Conversation<'_>) -> bool {
    let [.., before, last] = conversation.messages.as_slice() else { return false };
    let has_results = matches!(last.content.first(), Some(BlockOut::ToolResult { .. }));
    let has_reasoning =
        matches!(before.content.first(), Some(BlockOut::Thinking { .. } | BlockOut::RedactedThinking { .. }));
    has_results && !has_reasoning
}

/// A level in the format's word.
pub(super) const fn effort_word(effort: Effort) -> &'static str {
    match effort {
        Effort::Minimal => Effort::Low.word(),
        other => other.word(),
    }
}

fn budget_of(effort: Effort, caps: &Caps) -> u64 {
    effort::budget(effort).unwrap_or_else(|| caps.max_output_tokens.unwrap_or(u64::MAX))
}
