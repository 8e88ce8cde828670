//! What an operator changes in a request that stays in the dialect.

use bytes::Bytes;

use crate::{
    Caps, ReasoningOff, effort,
    ir::ReasoningAmount,
    rewrite::{
        ReasoningEdit, Rewrite, SystemEdit,
        body::{self, number, put, take, take_within, text, value, within, within_object},
    },
};

/// Makes the changes.
pub(super) fn rewrite(body: &Bytes, rewrite: &Rewrite, caps: &Caps) -> Bytes {
    let mut body = body.clone();
    if rewrite.keeps_tool.is_some() {
        body = tools(&body, rewrite);
    }
    if !rewrite.system.is_empty() {
        body = system(&body, &rewrite.system);
    }
    if let Some(most) = rewrite.max_output_tokens
        && number(&body, "max_output_tokens").is_none_or(|asked| asked > most)
    {
        body = put(&body, "max_output_tokens", most.to_string().as_bytes());
    }
    match &rewrite.reasoning {
        None => body,
        Some(ReasoningEdit::Strip) => take(&body, &["reasoning"]),
        Some(ReasoningEdit::Set(amount)) => match word(amount, caps) {
            Some(word) => {
                within_object(&body, "reasoning", |inner| put(inner, "effort", &body::quoted(word)))
            }
            None => take_within(&body, "reasoning", &["effort"]),
        },
    }
}

/// An amount in the format's word; `None` where nothing is said.
fn word(amount: &ReasoningAmount, caps: &Caps) -> Option<&'static str> {
    Some(match amount {
        ReasoningAmount::Default | ReasoningAmount::Adaptive(None) => return None,
        // Only models that are known to reason are known to take the word.
        ReasoningAmount::Off | ReasoningAmount::Budget(0) if caps.max_completion_tokens => {
            match caps.reasoning_off {
                // Not reasoning is what the model cannot do.
                ReasoningOff::Least => caps.efforts.first()?.word(),
                ReasoningOff::Word | ReasoningOff::BetweenTools => "none",
            }
        }
        ReasoningAmount::Off | ReasoningAmount::Budget(0) => return None,
        ReasoningAmount::Effort(effort) | ReasoningAmount::Adaptive(Some(effort)) => effort.word(),
        ReasoningAmount::Budget(tokens) => effort::nearest(effort::of_budget(*tokens), caps.efforts).word(),
    })
}

/// The system text is `instructions`; messages of the system that lead the input go when it is replaced.
fn system(body: &Bytes, edit: &SystemEdit) -> Bytes {
    if edit.replace.is_some() {
        let mut leads = true;
        let rest = within(body, "input", |list| {
            if list.first() != Some(&b'[') {
                return list.clone();
            }
            body::retain(list, |item| {
                leads &= matches!(text(item, "role").as_deref(), Some("system" | "developer"));
                !leads
            })
        });
        return put(&rest, "instructions", &body::quoted(&edit.alone()));
    }
    if value(body, "instructions").is_some() {
        return within(body, "instructions", |own| body::around(own, edit, Some("input_text")));
    }
    put(body, "instructions", &body::quoted(&edit.alone()))
}

fn tools(body: &Bytes, rewrite: &Rewrite) -> Bytes {
    let edited =
        within(body, "tools", |tools| body::retain(tools, |tool| rewrite.keeps(&body::name(tool, &[]))));
    let Some(left) = value(&edited, "tools") else { return edited };
    if body::items(left.as_bytes()).is_empty() {
        return take(&edited, &["tools", "tool_choice", "parallel_tool_calls"]);
    }
    let is_gone = value(&edited, "tool_choice").is_some_and(|choice| {
        let choice = choice.as_bytes();
        if choice.first() != Some(&b'{') {
            return false;
        }
        match value(choice, "tools") {
            Some(listed) => {
                let listed = listed.as_bytes();
                body::items(listed).into_iter().any(|span| !rewrite.keeps(&body::name(&listed[span], &[])))
            }
            None => !rewrite.keeps(&body::name(choice, &[])),
        }
    });
    if is_gone { take(&edited, &["tool_choice"]) } else { edited }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::ir::Effort;

    #[test]
    fn only_what_is_meant_changes() {
        let set = |amount| Rewrite { reasoning: Some(ReasoningEdit::Set(amount)), ..Rewrite::default() };
        let system = |before: Option<&str>, replace: Option<&str>| Rewrite {
            system: SystemEdit {
                before: before.map(str::to_owned),
                replace: replace.map(str::to_owned),
                after: None,
            },
            ..Rewrite::default()
        };
        let caps = Caps { max_completion_tokens: true, ..Caps::permissive() };
        for (change, given, expected) in [
            (
                set(ReasoningAmount::Effort(Effort::Low)),
                r#"{"input":"x","reasoning":{"effort":"high", "summary":"auto"}}"#,
                r#"{"input":"x","reasoning":{"effort":"low", "summary":"auto"}}"#,
            ),
            (set(ReasoningAmount::Budget(5_000)), "{}", r#"{"reasoning":{"effort":"low"}}"#),
            (set(ReasoningAmount::Off), r#"{"a":1.0}"#, r#"{"a":1.0,"reasoning":{"effort":"none"}}"#),
            (set(ReasoningAmount::Adaptive(None)), r#"{"reasoning":{"effort":"low"}}"#, "{}"),
            (
                Rewrite { reasoning: Some(ReasoningEdit::Strip), ..Rewrite::default() },
                r#"{"reasoning":null,"b":[ ]}"#,
                r#"{"b":[ ]}"#,
            ),
            (system(Some("B"), None), r#"{"input":"x"}"#, r#"{"input":"x","instructions":"B"}"#),
            (
                system(Some("B"), None),
                r#"{"instructions":"own\u0021","input":"x"}"#,
                r#"{"instructions":"B\n\nown\u0021","input":"x"}"#,
            ),
            (
                system(None, Some("ours")),
                r#"{"instructions":"own","input":[{"role":"developer","content":"a"}, {"role":"user","content":"b"}]}"#,
                r#"{"instructions":"ours","input":[{"role":"user","content":"b"}]}"#,
            ),
            (
                Rewrite { max_output_tokens: Some(10), ..Rewrite::default() },
                r#"{"max_output_tokens" : 99}"#,
                r#"{"max_output_tokens" : 10}"#,
            ),
            (
                Rewrite { keeps_tool: Some(Arc::new(|name| name != "f")), ..Rewrite::default() },
                r#"{"tools":[{"type":"function","name":"f"},{"type":"web_search"}],"tool_choice":{"type":"function","name":"f"}}"#,
                r#"{"tools":[{"type":"web_search"}]}"#,
            ),
        ] {
            let out = rewrite(&Bytes::copy_from_slice(given.as_bytes()), &change, &caps);
            assert_eq!(String::from_utf8_lossy(&out), expected, "{given}");
        }
    }
}
