//! How much a target shall reason: each vendor of the dialect has its own knob.

use omniroute_wire::json_out::Object;

use crate::{
    Caps, ReasoningKnob, ReasoningOff, effort,
    ir::{self, ChatRequest, Effort, Loss, LossAction, ReasoningAmount, ToolChoice, Word},
};

/// Writes what was asked for. `native` requests came in this dialect and keep its own word.
pub(in crate::openai) fn write(
    request: &ChatRequest,
    caps: &Caps,
    native: bool,
    body: &mut Object<'_>,
    losses: &mut Vec<Loss>,
) {
    let path = request.word(Word::Reasoning);
    let knob = if native { ReasoningKnob::Effort } else { caps.reasoning_knob };
    let mut amount = &request.reasoning.amount;
    let asked =
        !matches!(amount, ReasoningAmount::Default | ReasoningAmount::Off | ReasoningAmount::Budget(0));
    if !native && !caps.reasoning {
        if *amount != ReasoningAmount::Default {
            losses.push(Loss { silent: !asked, ..ir::loss(path, LossAction::Dropped) });
        }
        return;
    }
    let show = request.word(Word::Show);
    if request.reasoning.show == Some(true)
        && !native
        && show != path
        && matches!(amount, ReasoningAmount::Default | ReasoningAmount::Adaptive(None))
    {
        // Only who asks for an amount also asks to see it.
        losses.push(ir::quiet(show, LossAction::Dropped));
    }
    // Such models refuse to be made to call a tool while they think, which some do unless told otherwise.
    if matches!(knob, ReasoningKnob::ThinkingType | ReasoningKnob::EnableThinking) && is_forced(request) {
        if asked {
            losses.push(ir::loss(path, LossAction::Dropped));
        }
        amount = &ReasoningAmount::Off;
    }
    let level = match amount {
        ReasoningAmount::Default => return,
        ReasoningAmount::Off | ReasoningAmount::Budget(0) => None,
        ReasoningAmount::Adaptive(level) => Some(*level),
        ReasoningAmount::Effort(level) => Some(Some(*level)),
        ReasoningAmount::Budget(tokens) => Some(Some(effort::of_budget(*tokens))),
    };
    let budget = match amount {
        ReasoningAmount::Budget(tokens) if *tokens > 0 => Some(*tokens),
        _ => None,
    };
    match knob {
        ReasoningKnob::Effort => {
            let (word, loss) = effort_out(level, native, caps, path);
            body.opt_str("reasoning_effort", word);
            losses.extend(loss);
            return;
        }
        ReasoningKnob::ThinkingType => {
            let mut thinking = body.object("thinking");
            thinking.str("type", if level.is_some() { "enabled" } else { "disabled" });
            thinking.end();
        }
        ReasoningKnob::EnableThinking => {
            body.bool("enable_thinking", level.is_some());
            body.opt_u64("thinking_budget", budget.or_else(|| effort::budget(level??)));
        }
        ReasoningKnob::Reasoning => {
            let mut reasoning = body.object("reasoning");
            match (level, budget) {
                (None, _) => reasoning.str("effort", "none"),
                (Some(_), Some(tokens)) => reasoning.u64("max_tokens", tokens),
                (Some(None), None) => reasoning.bool("enabled", true),
                (Some(Some(level)), None) => {
                    reasoning.str("effort", effort::nearest(level, caps.efforts).word())
                }
            };
            if request.reasoning.show == Some(false) && level.is_some() {
                reasoning.bool("exclude", true);
            }
            reasoning.end();
        }
        ReasoningKnob::TemplateSwitch => {
            let mut arguments = body.object("chat_template_kwargs");
            arguments.bool("enable_thinking", level.is_some());
            arguments.end();
        }
    }
    if !native {
        losses.push(ir::quiet(path, LossAction::Mapped));
    }
}

fn is_forced(request: &ChatRequest) -> bool {
    let forces = matches!(
        request.tool_choice,
        Some(ToolChoice::Required | ToolChoice::Named(_) | ToolChoice::Allowed { required: true, .. })
    );
    forces && !request.tools.is_empty()
}

/// The word for an amount, and what it is other than what was asked for.
fn effort_out(
    level: Option<Option<Effort>>,
    native: bool,
    caps: &Caps,
    path: &'static str,
) -> (Option<&'static str>, Option<Loss>) {
    match level {
        Some(Some(level)) if native => (Some(level.word()), None),
        Some(Some(level)) => {
            let nearest = effort::nearest(level, caps.efforts);
            let action = if nearest == level { LossAction::Mapped } else { LossAction::Clamped };
            (Some(nearest.word()), Some(ir::quiet(path, action)))
        }
        // As the model does by itself.
        Some(None) => (None, (!native).then(|| ir::quiet(path, LossAction::Dropped))),
        None if native => (Some("none"), None),
        // Only models that are known to reason are known to take the word.
        None if !caps.max_completion_tokens => (None, Some(ir::quiet(path, LossAction::Dropped))),
        None => match caps.reasoning_off {
            ReasoningOff::Word | ReasoningOff::BetweenTools => {
                (Some("none"), Some(ir::quiet(path, LossAction::Mapped)))
            }
            // Not reasoning is what the model cannot do.
            ReasoningOff::Least => {
                let least = caps.efforts.first().map(|level| level.word());
                (least, Some(ir::loss(path, LossAction::Clamped)))
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::ir::{Tool, ToolKind};

    fn said(request: &ChatRequest, caps: &Caps, native: bool) -> (String, Vec<String>) {
        let mut out = BytesMut::new();
        let mut losses = Vec::new();
        let mut body = Object::begin(&mut out);
        write(request, caps, native, &mut body, &mut losses);
        body.end();
        let told = losses.iter().filter(|loss| !loss.silent).map(|loss| loss.path.to_string()).collect();
        (String::from_utf8(out.to_vec()).unwrap(), told)
    }

    fn asking(amount: ReasoningAmount) -> ChatRequest {
        let mut request = ChatRequest::default();
        request.reasoning.amount = amount;
        request
    }

    #[test]
    fn every_vendor_has_its_knob() {
        let high = || ReasoningAmount::Effort(Effort::High);
        for (knob, amount, expected) in [
            (ReasoningKnob::Effort, high(), r#"{"reasoning_effort":"high"}"#),
            (ReasoningKnob::Effort, ReasoningAmount::Effort(Effort::Max), r#"{"reasoning_effort":"high"}"#),
            (
                ReasoningKnob::Effort,
                ReasoningAmount::Effort(Effort::Minimal),
                r#"{"reasoning_effort":"minimal"}"#,
            ),
            (ReasoningKnob::Effort, ReasoningAmount::Adaptive(None), "{}"),
            (ReasoningKnob::Effort, ReasoningAmount::Off, "{}"),
            (ReasoningKnob::ThinkingType, high(), r#"{"thinking":{"type":"enabled"}}"#),
            (ReasoningKnob::ThinkingType, ReasoningAmount::Off, r#"{"thinking":{"type":"disabled"}}"#),
            (ReasoningKnob::ThinkingType, ReasoningAmount::Default, "{}"),
            (ReasoningKnob::EnableThinking, high(), r#"{"enable_thinking":true,"thinking_budget":24576}"#),
            (
                ReasoningKnob::EnableThinking,
                ReasoningAmount::Budget(5000),
                r#"{"enable_thinking":true,"thinking_budget":5000}"#,
            ),
            (ReasoningKnob::EnableThinking, ReasoningAmount::Budget(0), r#"{"enable_thinking":false}"#),
            (ReasoningKnob::EnableThinking, ReasoningAmount::Adaptive(None), r#"{"enable_thinking":true}"#),
            (ReasoningKnob::Reasoning, high(), r#"{"reasoning":{"effort":"high"}}"#),
            (ReasoningKnob::Reasoning, ReasoningAmount::Budget(5000), r#"{"reasoning":{"max_tokens":5000}}"#),
            (ReasoningKnob::Reasoning, ReasoningAmount::Adaptive(None), r#"{"reasoning":{"enabled":true}}"#),
            (ReasoningKnob::Reasoning, ReasoningAmount::Off, r#"{"reasoning":{"effort":"none"}}"#),
            (ReasoningKnob::TemplateSwitch, high(), r#"{"chat_template_kwargs":{"enable_thinking":true}}"#),
            (
                ReasoningKnob::TemplateSwitch,
                ReasoningAmount::Off,
                r#"{"chat_template_kwargs":{"enable_thinking":false}}"#,
            ),
        ] {
            let caps = Caps { reasoning_knob: knob, ..Caps::permissive() };
            assert_eq!(
                said(&asking(amount.clone()), &caps, false),
                (expected.to_owned(), vec![]),
                "{amount:?}"
            );
            let dumb = Caps { reasoning: false, ..caps };
            assert_eq!(said(&asking(amount), &dumb, false).0, "{}");
        }
        let caps = Caps { reasoning_knob: ReasoningKnob::ThinkingType, ..Caps::permissive() };
        let own = said(&asking(ReasoningAmount::Effort(Effort::XHigh)), &caps, true);
        assert_eq!(own.0, r#"{"reasoning_effort":"xhigh"}"#, "a client of the dialect keeps its word");
    }

    #[test]
    fn models_are_asked_in_the_words_that_they_have() {
        use Effort::{High, Low, Max, Medium, Minimal, XHigh};
        let known = Caps { max_completion_tokens: true, ..Caps::permissive() };
        let newest = Caps { efforts: &[Low, Medium, High, XHigh, Max], ..known.clone() };
        let first = Caps { reasoning_off: ReasoningOff::Least, ..known.clone() };
        let oldest = Caps { efforts: &[Low, Medium, High], ..first.clone() };
        for (caps, amount, word, told) in [
            (&newest, ReasoningAmount::Off, "none", false),
            (&newest, ReasoningAmount::Effort(Minimal), "low", false),
            (&newest, ReasoningAmount::Effort(XHigh), "xhigh", false),
            (&newest, ReasoningAmount::Effort(Max), "max", false),
            (&newest, ReasoningAmount::Budget(40_000), "xhigh", false),
            (&first, ReasoningAmount::Off, "minimal", true),
            (&first, ReasoningAmount::Budget(0), "minimal", true),
            (&first, ReasoningAmount::Effort(Minimal), "minimal", false),
            (&first, ReasoningAmount::Effort(Max), "high", false),
            (&oldest, ReasoningAmount::Off, "low", true),
            (&oldest, ReasoningAmount::Effort(Minimal), "low", false),
        ] {
            let (body, losses) = said(&asking(amount.clone()), caps, false);
            assert_eq!(body, format!(r#"{{"reasoning_effort":"{word}"}}"#), "{amount:?}");
            assert_eq!(!losses.is_empty(), told, "{amount:?}");
        }
    }

    #[test]
    fn f31_a_forced_call_and_thinking_exclude_each_other() {
        let kind = ToolKind::Function { name: "f".into(), description: None, schema: None, strict: None };
        let mut request = asking(ReasoningAmount::Effort(Effort::Low));
        request.tools.push(Tool::at("tools[0]", kind));
        request.tool_choice = Some(ToolChoice::Required);
        let caps = |knob| Caps { reasoning_knob: knob, ..Caps::permissive() };
        for (knob, expected, told) in [
            (ReasoningKnob::ThinkingType, r#"{"thinking":{"type":"disabled"}}"#, true),
            (ReasoningKnob::EnableThinking, r#"{"enable_thinking":false}"#, true),
            (ReasoningKnob::Effort, r#"{"reasoning_effort":"low"}"#, false),
        ] {
            let (body, losses) = said(&request, &caps(knob), false);
            assert_eq!((body.as_str(), !losses.is_empty()), (expected, told));
        }
        request.reasoning.amount = ReasoningAmount::Default;
        let (body, losses) = said(&request, &caps(ReasoningKnob::ThinkingType), false);
        assert_eq!((body.as_str(), losses.len()), (r#"{"thinking":{"type":"disabled"}}"#, 0));
    }
}
