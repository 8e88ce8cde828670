//! How much the model shall think.

use crate::{
    Caps, effort,
    ir::{ChatRequest, Effort, Loss, LossAction, ReasoningAmount, Word, loss, quiet},
};

/// Members of `thinkingConfig`. Level and budget exclude each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Thinking {
    pub(super) include: Option<bool>,
    pub(super) amount: Option<Amount>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Amount {
    Level(Effort),
    Budget(u64),
    /// As the model sees fit.
    Dynamic,
}

/// What a client of this dialect asked for, as it did.
pub(super) fn native(request: &ChatRequest) -> Thinking {
    let amount = match &request.reasoning.amount {
        ReasoningAmount::Default => None,
        ReasoningAmount::Off => Some(Amount::Budget(0)),
        ReasoningAmount::Effort(effort) | ReasoningAmount::Adaptive(Some(effort)) => {
            Some(Amount::Level(*effort))
        }
        ReasoningAmount::Budget(tokens) => Some(Amount::Budget(*tokens)),
        ReasoningAmount::Adaptive(None) => Some(Amount::Dynamic),
    };
    Thinking { include: request.reasoning.show, amount }
}

/// What was asked, as far as the model can.
pub(super) fn translated(request: &ChatRequest, caps: &Caps, losses: &mut Vec<Loss>) -> Thinking {
    let asked = &request.reasoning.amount;
    let path = request.word(Word::Reasoning);
    let wanted = match asked {
        ReasoningAmount::Default | ReasoningAmount::Adaptive(None) => None,
        ReasoningAmount::Off | ReasoningAmount::Budget(0) => Some(Amount::Budget(0)),
        ReasoningAmount::Effort(effort) | ReasoningAmount::Adaptive(Some(effort)) => {
            Some(Amount::Level(*effort))
        }
        ReasoningAmount::Budget(tokens) => Some(Amount::Budget(*tokens)),
    };
    let off = wanted == Some(Amount::Budget(0));
    if !caps.reasoning {
        if wanted.is_some() && !off {
            losses.push(loss(path, LossAction::Dropped));
        }
        return Thinking::default();
    }
    if *asked == ReasoningAmount::Adaptive(None) {
        // It is what these models do when nothing is said; not all take a word for it.
        losses.push(quiet(path, LossAction::Dropped));
    }
    let amount = wanted.map(|wanted| {
        let amount =
            if caps.gemini.thinking_levels.is_empty() { budget(wanted, caps) } else { level(wanted, caps) };
        if off && amount != wanted {
            // Not thinking is what the model cannot do.
            losses.push(loss(path, LossAction::Clamped));
        } else if amount != wanted {
            losses.push(quiet(path, LossAction::Mapped));
        }
        amount
    });
    // Who asks for an amount wants to see what it gives; who leaves it to the model has to say so.
    let include = request.reasoning.show.or((wanted.is_some() && !off).then_some(true)).filter(|_| !off);
    Thinking { include, amount }
}

/// The nearest level that the model has, rather the higher one.
fn level(wanted: Amount, caps: &Caps) -> Amount {
    let levels = caps.gemini.thinking_levels;
    let effort = match wanted {
        Amount::Budget(0) if caps.gemini.thinking_off && !levels.contains(&Effort::Minimal) => return wanted,
        Amount::Budget(0) => Effort::Minimal,
        Amount::Budget(tokens) => effort::of_budget(tokens),
        Amount::Level(effort) => effort,
        Amount::Dynamic => return wanted,
    };
    let higher = levels.iter().copied().find(|level| *level >= effort);
    Amount::Level(higher.or_else(|| levels.last().copied()).unwrap_or(effort))
}

/// The tokens that a level amounts to, within what the model takes.
fn budget(wanted: Amount, caps: &Caps) -> Amount {
    let (least, most) = caps.gemini.thinking_budget;
    let tokens = match wanted {
        Amount::Budget(0) if caps.gemini.thinking_off => return wanted,
        Amount::Budget(tokens) => tokens,
        Amount::Level(effort) => match effort {
            Effort::Minimal => 512,
            Effort::Low => 4096,
            Effort::Medium => 12_288,
            Effort::High => 24_576,
            Effort::XHigh | Effort::Max => most,
        },
        Amount::Dynamic => return wanted,
    };
    Amount::Budget(tokens.clamp(least.min(most), most))
}

/// A level in the format's word.
pub(super) fn level_word(effort: Effort) -> &'static str {
    match effort {
        Effort::Minimal => "MINIMAL",
        Effort::Low => "LOW",
        Effort::Medium => "MEDIUM",
        Effort::High => "HIGH",
        Effort::XHigh | Effort::Max => "XHIGH",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{GeminiCaps, ir::Reasoning};

    #[test]
    fn amounts_become_what_the_model_takes() {
        use Effort::{High, Low, Max, Medium, Minimal, XHigh};
        let flash_25 = GeminiCaps { thinking_budget: (0, 24_576), ..GeminiCaps::permissive() };
        let pro_25 =
            GeminiCaps { thinking_budget: (128, 32_768), thinking_off: false, ..GeminiCaps::permissive() };
        let flash_3 =
            GeminiCaps { thinking_levels: &[Minimal, Low, Medium, High], ..GeminiCaps::permissive() };
        let pro_3 =
            GeminiCaps { thinking_levels: &[Low, High], thinking_off: false, ..GeminiCaps::permissive() };
        let budget = |tokens| Some(Amount::Budget(tokens));
        let level = |effort| Some(Amount::Level(effort));
        for (asked, expected) in [
            (ReasoningAmount::Default, [None; 4]),
            (ReasoningAmount::Adaptive(None), [None; 4]),
            (ReasoningAmount::Off, [budget(0), budget(128), level(Minimal), level(Low)]),
            (ReasoningAmount::Effort(Minimal), [budget(512), budget(512), level(Minimal), level(Low)]),
            (ReasoningAmount::Effort(Low), [budget(4096), budget(4096), level(Low), level(Low)]),
            (ReasoningAmount::Effort(Medium), [budget(12_288), budget(12_288), level(Medium), level(High)]),
            (ReasoningAmount::Effort(High), [budget(24_576), budget(24_576), level(High), level(High)]),
            (ReasoningAmount::Effort(XHigh), [budget(24_576), budget(32_768), level(High), level(High)]),
            (ReasoningAmount::Effort(Max), [budget(24_576), budget(32_768), level(High), level(High)]),
            (ReasoningAmount::Budget(31_999), [budget(24_576), budget(31_999), level(High), level(High)]),
            (ReasoningAmount::Budget(5), [budget(5), budget(128), level(Minimal), level(Low)]),
        ] {
            for (gemini, expected) in [&flash_25, &pro_25, &flash_3, &pro_3].into_iter().zip(expected) {
                let request = ChatRequest {
                    reasoning: Reasoning { amount: asked.clone(), show: None },
                    ..ChatRequest::default()
                };
                let caps = Caps { gemini: gemini.clone(), ..Caps::permissive() };
                let mut losses = Vec::new();
                let found = translated(&request, &caps, &mut losses);
                assert_eq!(found.amount, expected, "{asked:?}");
                let told = losses.iter().any(|loss| !loss.silent);
                let off = asked == ReasoningAmount::Off;
                assert_eq!(told, off && expected != budget(0), "{asked:?}");
                let silent = matches!(asked, ReasoningAmount::Default | ReasoningAmount::Adaptive(None));
                assert_eq!(found.include, (!off && !silent).then_some(true), "{asked:?}");
            }
        }
    }
}
