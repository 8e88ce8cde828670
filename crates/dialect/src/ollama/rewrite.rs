//! What an operator changes in a request that stays in the dialect.

use bytes::Bytes;

use super::request::think_word;
use crate::{
    Caps, effort,
    ir::ReasoningAmount,
    rewrite::{
        ReasoningEdit, Rewrite,
        body::{self, number, put, take, value, within, within_object},
    },
};

/// Makes the changes.
pub(super) fn rewrite(body: &Bytes, rewrite: &Rewrite, _caps: &Caps) -> Bytes {
    let mut body = body.clone();
    if rewrite.keeps_tool.is_some() {
        body = within(&body, "tools", |tools| {
            body::retain(tools, |tool| rewrite.keeps(&body::name(tool, &["function"])))
        });
        if value(&body, "tools").is_some_and(|tools| body::items(tools.as_bytes()).is_empty()) {
            body = take(&body, &["tools"]);
        }
    }
    let edit = &rewrite.system;
    let is_chat = value(&body, "messages").is_some_and(|list| list.starts_with('['));
    if !edit.is_empty() && is_chat {
        body = within(&body, "messages", |list| body::system_message(list, edit));
    }
    if !edit.is_empty() && (!is_chat || value(&body, "prompt").is_some()) {
        // A completion has its own member for it. Which of the two is asked for, the path tells: what the other one reads
        // is ignored there, and so a body that could be both is edited in both places.
        body = match value(&body, "system").filter(|_| edit.replace.is_none()) {
            Some(_) => within(&body, "system", |own| body::around(own, edit, None)),
            None => put(&body, "system", &body::quoted(&edit.alone())),
        };
    }
    if let Some(most) = rewrite.max_output_tokens {
        body = within_object(&body, "options", |options| {
            // A negative number stands for no limit.
            match number(options, "num_predict") {
                Some(asked) if asked <= most => options.clone(),
                _ => put(options, "num_predict", most.to_string().as_bytes()),
            }
        });
    }
    match &rewrite.reasoning {
        None => body,
        Some(ReasoningEdit::Strip) => take(&body, &["think"]),
        Some(ReasoningEdit::Set(amount)) => match amount {
            ReasoningAmount::Default => take(&body, &["think"]),
            ReasoningAmount::Off | ReasoningAmount::Budget(0) => put(&body, "think", b"false"),
            ReasoningAmount::Adaptive(None) => put(&body, "think", b"true"),
            ReasoningAmount::Effort(level) | ReasoningAmount::Adaptive(Some(level)) => {
                put(&body, "think", &body::quoted(think_word(*level).0))
            }
            ReasoningAmount::Budget(tokens) => {
                put(&body, "think", &body::quoted(think_word(effort::of_budget(*tokens)).0))
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{ir::Effort, rewrite::SystemEdit};

    #[test]
    fn only_what_is_meant_changes() {
        let set = |amount| Rewrite { reasoning: Some(ReasoningEdit::Set(amount)), ..Rewrite::default() };
        let limit = |most| Rewrite { max_output_tokens: Some(most), ..Rewrite::default() };
        for (change, given, expected) in [
            (
                set(ReasoningAmount::Effort(Effort::High)),
                r#"{"think":true, "a":1e2}"#,
                r#"{"think":"high", "a":1e2}"#,
            ),
            (set(ReasoningAmount::Off), r#"{"a":1}"#, r#"{"a":1,"think":false}"#),
            (set(ReasoningAmount::Budget(20_000)), "{}", r#"{"think":"high"}"#),
            (
                Rewrite { reasoning: Some(ReasoningEdit::Strip), ..Rewrite::default() },
                r#"{"think":"low","b":2}"#,
                r#"{"b":2}"#,
            ),
            (
                limit(10),
                r#"{"options":{"num_predict":-1,"top_k":5}}"#,
                r#"{"options":{"num_predict":10,"top_k":5}}"#,
            ),
            (limit(10), r#"{"options":{"num_predict":3}}"#, r#"{"options":{"num_predict":3}}"#),
            (limit(10), "{}", r#"{"options":{"num_predict":10}}"#),
            (
                Rewrite {
                    system: SystemEdit { after: Some("A".into()), ..SystemEdit::default() },
                    ..Rewrite::default()
                },
                r#"{"messages":[{"role":"system","content":"own"}, {"role":"user","content":"x"}]}"#,
                r#"{"messages":[{"role":"system","content":"own\n\nA"}, {"role":"user","content":"x"}]}"#,
            ),
            (
                Rewrite {
                    system: SystemEdit { after: Some("A".into()), ..SystemEdit::default() },
                    ..Rewrite::default()
                },
                r#"{"prompt":"x","system":"own"}"#,
                r#"{"prompt":"x","system":"own\n\nA"}"#,
            ),
            (
                Rewrite {
                    system: SystemEdit { after: Some("A".into()), ..SystemEdit::default() },
                    ..Rewrite::default()
                },
                r#"{"prompt":"x"}"#,
                r#"{"prompt":"x","system":"A"}"#,
            ),
            (
                Rewrite {
                    system: SystemEdit { after: Some("A".into()), ..SystemEdit::default() },
                    ..Rewrite::default()
                },
                r#"{"prompt":"x","messages":[]}"#,
                r#"{"prompt":"x","messages":[{"role":"system","content":"A"}],"system":"A"}"#,
            ),
            (
                Rewrite {
                    system: SystemEdit { after: Some("A".into()), ..SystemEdit::default() },
                    ..Rewrite::default()
                },
                r#"{"prompt":"x","messages":7,"system":"own"}"#,
                r#"{"prompt":"x","messages":7,"system":"own\n\nA"}"#,
            ),
            (
                Rewrite { keeps_tool: Some(Arc::new(|name| name == "g")), ..Rewrite::default() },
                r#"{"tools":[{"type":"function","function":{"name":"f"}},{"type":"function","function":{"name":"g"}}]}"#,
                r#"{"tools":[{"type":"function","function":{"name":"g"}}]}"#,
            ),
        ] {
            let out = rewrite(&Bytes::copy_from_slice(given.as_bytes()), &change, &Caps::permissive());
            assert_eq!(String::from_utf8_lossy(&out), expected, "{given}");
        }
    }
}
