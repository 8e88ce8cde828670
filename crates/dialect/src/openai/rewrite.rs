//! What an operator changes in a request that stays in the dialect.

use bytes::{Bytes, BytesMut};
use omniroute_wire::{envelope, json_out::Object};

use super::request::write_reasoning;
use crate::{
    Caps,
    ir::{ChatRequest, Tool, ToolChoice, ToolKind},
    rewrite::{
        ReasoningEdit, Rewrite,
        body::{self, known, number, put, take, take_within, value, within},
    },
};

/// Members that say how much to reason, in the words of all vendors of the dialect.
pub(super) const REASONING: [&str; 5] =
    ["reasoning_effort", "thinking", "reasoning", "enable_thinking", "thinking_budget"];
/// The same in an object that leaves it to the model's template.
const TEMPLATE: (&str, &str) = ("chat_template_kwargs", "enable_thinking");
/// Where the name of a tool stands.
const NAMED_IN: [&str; 2] = ["function", "custom"];

/// Makes the changes.
pub(super) fn rewrite(body: &Bytes, rewrite: &Rewrite, caps: &Caps) -> Bytes {
    let mut body = body.clone();
    if rewrite.keeps_tool.is_some() {
        body = tools(&body, rewrite);
    }
    if !rewrite.system.is_empty() {
        body = within(&body, "messages", |list| body::system_message(list, &rewrite.system));
    }
    if let Some(most) = rewrite.max_output_tokens {
        body = limit(&body, most, caps);
    }
    match &rewrite.reasoning {
        None => body,
        Some(ReasoningEdit::Strip) => strip(&body),
        Some(ReasoningEdit::Set(amount)) => {
            let mut request = ChatRequest::default();
            request.reasoning.amount = amount.clone();
            if is_forced(&body) {
                request.tool_choice = Some(ToolChoice::Required);
                request.tools.push(any_tool());
            }
            add(&strip(&body), &request, caps)
        }
    }
}

fn strip(body: &Bytes) -> Bytes {
    take_within(&take(body, &REASONING), TEMPLATE.0, &[TEMPLATE.1])
}

/// Adds what the vendor calls the amount.
fn add(body: &Bytes, request: &ChatRequest, caps: &Caps) -> Bytes {
    let mut out = BytesMut::new();
    let mut object = Object::begin(&mut out);
    write_reasoning(request, caps, false, &mut object, &mut Vec::new());
    object.end();
    let mut edited = body.clone();
    let scanned = envelope::scan(&out, &mut |member| {
        let is_template = member.key == TEMPLATE.0 && value(&edited, TEMPLATE.0).is_some();
        edited = if is_template {
            let switch = value(member.raw.as_bytes(), TEMPLATE.1).unwrap_or("true");
            within(&edited, TEMPLATE.0, |inner| put(inner, TEMPLATE.1, switch.as_bytes()))
        } else {
            put(&edited, &member.key, member.raw.as_bytes())
        };
    });
    debug_assert!(scanned.is_ok(), "what is written here is an object");
    edited
}

/// Whether a call must come, which some models only do while they do not think.
fn is_forced(body: &[u8]) -> bool {
    let forces = value(body, "tool_choice").is_some_and(|choice| {
        choice == "\"required\"" || (choice.starts_with('{') && !choice.contains("\"auto\""))
    });
    forces && value(body, "tools").is_some_and(|tools| !body::items(tools.as_bytes()).is_empty())
}

fn any_tool() -> Tool {
    let kind = ToolKind::Function { name: String::new(), description: None, schema: None, strict: None };
    Tool::at("", kind)
}

fn limit(body: &Bytes, most: u64, caps: &Caps) -> Bytes {
    const NAMES: [&str; 2] = ["max_completion_tokens", "max_tokens"];
    let mut edited = body.clone();
    let mut is_said = false;
    for name in NAMES {
        let Some(asked) = number(&edited, name) else { continue };
        is_said = true;
        if asked > most {
            edited = put(&edited, name, most.to_string().as_bytes());
        }
    }
    if is_said {
        return edited;
    }
    let name = known(body, &NAMES).unwrap_or(NAMES[usize::from(!caps.max_completion_tokens)]);
    put(body, name, most.to_string().as_bytes())
}

fn tools(body: &Bytes, rewrite: &Rewrite) -> Bytes {
    let mut edited = body.clone();
    for (list, choice) in [("tools", "tool_choice"), ("functions", "function_call")] {
        edited = within(&edited, list, |tools| {
            body::retain(tools, |tool| rewrite.keeps(&body::name(tool, &NAMED_IN)))
        });
        let Some(left) = value(&edited, list) else { continue };
        if body::items(left.as_bytes()).is_empty() {
            edited = take(&edited, &[list, choice, "parallel_tool_calls"]);
        } else if value(&edited, choice).is_some_and(|choice| names_other(choice, rewrite)) {
            edited = take(&edited, &[choice]);
        }
    }
    edited
}

/// Whether a choice names a tool that is not there any more.
fn names_other(choice: &str, rewrite: &Rewrite) -> bool {
    let choice = choice.as_bytes();
    if choice.first() != Some(&b'{') {
        return false;
    }
    let listed = value(choice, "allowed_tools").and_then(|allowed| value(allowed.as_bytes(), "tools"));
    if let Some(listed) = listed.or_else(|| value(choice, "tools")) {
        let listed = listed.as_bytes();
        let is_gone = |span| !rewrite.keeps(&body::name(&listed[span], &NAMED_IN));
        return body::items(listed).into_iter().any(is_gone);
    }
    !rewrite.keeps(&body::name(choice, &NAMED_IN))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        ReasoningKnob,
        ir::{Effort, ReasoningAmount},
        rewrite::SystemEdit,
    };

    fn done(given: &str, change: &Rewrite, caps: &Caps) -> String {
        let out = rewrite(&Bytes::copy_from_slice(given.as_bytes()), change, caps);
        String::from_utf8(out.to_vec()).unwrap()
    }

    fn amount(amount: ReasoningAmount) -> Rewrite {
        Rewrite { reasoning: Some(ReasoningEdit::Set(amount)), ..Rewrite::default() }
    }

    #[test]
    fn reasoning_is_said_in_the_vendors_word() {
        let knob = |reasoning_knob| Caps { reasoning_knob, ..Caps::permissive() };
        let high = || amount(ReasoningAmount::Effort(Effort::High));
        let off = || amount(ReasoningAmount::Off);
        let strip = || Rewrite { reasoning: Some(ReasoningEdit::Strip), ..Rewrite::default() };
        for (change, knob, given, expected) in [
            (
                high(),
                knob(ReasoningKnob::Effort),
                r#"{"temperature":0.70, "reasoning_effort":"low","messages":[ ]}"#,
                r#"{"temperature":0.70,"messages":[ ],"reasoning_effort":"high"}"#,
            ),
            (off(), knob(ReasoningKnob::Effort), r#"{"a":1e9,"reasoning_effort":"low"}"#, r#"{"a":1e9}"#),
            (
                off(),
                Caps { max_completion_tokens: true, ..Caps::permissive() },
                r#"{"a":1}"#,
                r#"{"a":1,"reasoning_effort":"none"}"#,
            ),
            (high(), knob(ReasoningKnob::ThinkingType), "{}", r#"{"thinking":{"type":"enabled"}}"#),
            (
                amount(ReasoningAmount::Budget(5_000)),
                knob(ReasoningKnob::EnableThinking),
                r#"{"enable_thinking":false,"x":"ä"}"#,
                r#"{"x":"ä","enable_thinking":true,"thinking_budget":5000}"#,
            ),
            (
                high(),
                knob(ReasoningKnob::TemplateSwitch),
                r#"{"chat_template_kwargs":{"other":1}}"#,
                r#"{"chat_template_kwargs":{"other":1,"enable_thinking":true}}"#,
            ),
            (
                high(),
                knob(ReasoningKnob::ThinkingType),
                r#"{"tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":"required"}"#,
                r#"{"tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":"required","thinking":{"type":"disabled"}}"#,
            ),
            (
                strip(),
                knob(ReasoningKnob::Effort),
                r#"{"reasoning":{"effort":"high"},"m":1,"thinking":{"type":"enabled"},"chat_template_kwargs":{"enable_thinking":true}}"#,
                r#"{"m":1}"#,
            ),
        ] {
            assert_eq!(done(given, &change, &knob), expected, "{given}");
        }
    }

    #[test]
    fn the_rest_keeps_its_bytes() {
        let change = Rewrite {
            system: SystemEdit { before: Some("B".into()), after: Some("A".into()), replace: None },
            max_output_tokens: Some(50),
            keeps_tool: Some(Arc::new(|name| name.starts_with("read"))),
            ..Rewrite::default()
        };
        let replace = Rewrite {
            system: SystemEdit { replace: Some("ours".into()), ..SystemEdit::default() },
            ..Rewrite::default()
        };
        let caps = Caps::permissive();
        for (change, given, expected) in [
            (
                &change,
                r#"{ "messages" : [ {"role":"user","content":"h\u00ef"} ], "max_tokens": 1000 }"#,
                r#"{ "messages" : [ {"role":"system","content":"B\n\nA"},{"role":"user","content":"h\u00ef"} ], "max_tokens": 50 }"#,
            ),
            (
                &change,
                r#"{"messages":[{"role":"user","content":"x"},{"role":"developer","content":"own"}],"max_completion_tokens":7}"#,
                r#"{"messages":[{"role":"user","content":"x"},{"role":"developer","content":"B\n\nown\n\nA"}],"max_completion_tokens":7}"#,
            ),
            (
                &change,
                r#"{"messages":[{"role":"system","content":[{"type":"text","text":"own"}]}],"max_tokens":null}"#,
                r#"{"messages":[{"role":"system","content":[{"type":"text","text":"B"},{"type":"text","text":"own"},{"type":"text","text":"A"}]}],"max_tokens":50}"#,
            ),
            (
                &change,
                r#"{"messages":[],"tools":[{"type":"function","function":{"name":"read"}}, {"type":"function","function":{"name":"write"}},{"type":"custom","custom":{"name":"read2"}},{"type":"web_search"}],"tool_choice":{"type":"function","function":{"name":"write"}},"max_tokens":5}"#,
                r#"{"messages":[{"role":"system","content":"B\n\nA"}],"tools":[{"type":"function","function":{"name":"read"}},{"type":"custom","custom":{"name":"read2"}}],"max_tokens":5}"#,
            ),
            (
                &change,
                r#"{"functions":[{"name":"write"}],"function_call":"auto","max_tokens":5}"#,
                r#"{"max_tokens":5}"#,
            ),
            (
                &replace,
                r#"{"messages":[{"role":"system","content":"a"},{"role":"developer","content":"b"},{"role":"user","content":"x"},{"role":"system","content":"mid"}]}"#,
                r#"{"messages":[{"role":"system","content":"ours"},{"role":"user","content":"x"},{"role":"system","content":"mid"}]}"#,
            ),
        ] {
            assert_eq!(done(given, change, &caps), expected, "{given}");
        }
        assert_eq!(
            done(r#"{"messages":3}"#, &replace, &caps),
            r#"{"messages":3}"#,
            "what makes no sense is for the upstream to judge"
        );
    }
}
