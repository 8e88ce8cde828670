//! What an operator changes in a request that stays in the dialect.

use bytes::{Bytes, BytesMut};
use omniroute_wire::json_out::Object;

use super::request::{Thinking, adaptive_word, budget_within, off, wanted_budget};
use crate::{
    Caps, ReasoningOff,
    ir::ReasoningAmount,
    rewrite::{
        ReasoningEdit, Rewrite,
        body::{self, number, put, take, take_within, text, value, within, within_object},
    },
};

/// Makes the changes.
pub(super) fn rewrite(body: &Bytes, rewrite: &Rewrite, caps: &Caps) -> Bytes {
    let mut body = body.clone();
    if rewrite.keeps_tool.is_some() {
        body = tools(&body, rewrite);
    }
    let edit = &rewrite.system;
    if edit.replace.is_some() || (!edit.is_empty() && value(&body, "system").is_none()) {
        body = put(&body, "system", &body::quoted(&edit.alone()));
    } else if !edit.is_empty() {
        // Blocks of the client keep their cache marks; what comes behind them is a block of its own.
        body = within(&body, "system", |own| body::around(own, edit, Some("text")));
    }
    let mut amount = match &rewrite.reasoning {
        Some(ReasoningEdit::Set(amount)) => Some(amount.clone()),
        Some(ReasoningEdit::Strip) | None => None,
    };
    if let Some(most) = rewrite.max_output_tokens
        && number(&body, "max_tokens").is_none_or(|asked| asked > most)
    {
        body = put(&body, "max_tokens", most.to_string().as_bytes());
        // A budget of the client's that is larger than the answer may be would be refused.
        let budget = value(&body, "thinking").and_then(|own| number(own.as_bytes(), "budget_tokens"));
        if rewrite.reasoning.is_none() {
            amount = budget.filter(|budget| *budget >= most).map(ReasoningAmount::Budget);
        }
    }
    match amount {
        Some(amount) => think(&body, &amount, caps),
        None if rewrite.reasoning.is_some() => strip(&body),
        None => body,
    }
}

fn strip(body: &Bytes) -> Bytes {
    take_within(&take(body, &["thinking"]), "output_config", &["effort"])
}

/// Asks for an amount of thinking, as far as the model and the rest of the request allow.
fn think(body: &Bytes, amount: &ReasoningAmount, caps: &Caps) -> Bytes {
    let stripped = strip(body);
    let without = || match off(caps) {
        (Thinking::BetweenTools, effort) => ("between_tools", None, effort),
        // It thinks whatever it is told; only how much can be said.
        (Thinking::Unsaid | Thinking::Adaptive | Thinking::Enabled { .. }, effort) => {
            ("adaptive", None, effort)
        }
        (Thinking::Disabled, effort) => ("disabled", None, effort),
    };
    let (kind, budget, effort) = match amount {
        ReasoningAmount::Default => return stripped,
        ReasoningAmount::Off | ReasoningAmount::Budget(0) => without(),
        // A model that always thinks does so beside a forced call as well. How much is all that is said then.
        _ if caps.reasoning_off == ReasoningOff::Least && is_forced(body) => {
            let own = value(body, "thinking").and_then(|own| text(own.as_bytes(), "type"));
            let kept = if own.as_deref() == Some("adaptive") { body } else { &stripped };
            return with_effort(kept, adaptive_word(amount, caps).0);
        }
        // A forced call, or an answer that has begun, and thinking exclude each other.
        _ if is_forced(body) || is_prefilled(body) => without(),
        _ if caps.adaptive_thinking => ("adaptive", None, adaptive_word(amount, caps).0),
        _ => {
            let most = number(body, "max_tokens").unwrap_or(0);
            let budget = budget_within(wanted_budget(amount, caps), most);
            match budget.filter(|_| !continues_unsigned(body)) {
                Some(budget) => ("enabled", Some(budget), None),
                None => without(),
            }
        }
    };
    let thinks = matches!(kind, "adaptive" | "enabled");
    let display = value(body, "thinking").and_then(|own| text(own.as_bytes(), "display"));
    let mut out = BytesMut::new();
    let mut thinking = Object::begin(&mut out);
    thinking.str("type", kind).opt_u64("budget_tokens", budget);
    thinking.opt_str("display", display.as_deref().filter(|_| thinks));
    thinking.end();
    let edited = with_effort(&put(&stripped, "thinking", &out), effort);
    if thinks { without_sampling(&edited) } else { edited }
}

fn with_effort(body: &Bytes, effort: Option<&str>) -> Bytes {
    match effort {
        Some(effort) => {
            within_object(body, "output_config", |config| put(config, "effort", &body::quoted(effort)))
        }
        None => body.clone(),
    }
}

/// Takes out how tokens are picked, as far as a model that thinks refuses to be told.
fn without_sampling(body: &Bytes) -> Bytes {
    let float = |name| value(body, name).and_then(|raw| raw.parse::<f64>().ok());
    let mut names = vec!["top_k"];
    names.extend(float("temperature").filter(|value| *value != 1.0).map(|_| "temperature"));
    names.extend(float("top_p").filter(|value| *value < 0.95).map(|_| "top_p"));
    take(body, &names)
}

fn is_forced(body: &[u8]) -> bool {
    let kind = value(body, "tool_choice").and_then(|choice| text(choice.as_bytes(), "type"));
    matches!(kind.as_deref(), Some("any" | "tool"))
}

fn is_prefilled(body: &[u8]) -> bool {
    last_messages(body).1.is_some_and(|last| text(last, "role").as_deref() == Some("assistant"))
}

/// Whether the model is to go on behind tool results without its own thinking of before, which it refuses to do while
/// thinking with a budget.
fn continues_unsigned(body: &[u8]) -> bool {
    let (Some(before), Some(last)) = last_messages(body) else { return false };
    let first = |message| {
        let content = value(message, "content")?.as_bytes();
        let span = body::items(content).into_iter().next()?;
        text(&content[span], "type")
    };
    first(last).as_deref() == Some("tool_result")
        && !matches!(first(before).as_deref(), Some("thinking" | "redacted_thinking"))
}

/// The last message but one, and the last.
fn last_messages(body: &[u8]) -> (Option<&[u8]>, Option<&[u8]>) {
    let Some(list) = value(body, "messages").map(str::as_bytes) else { return (None, None) };
    let mut spans = body::items(list).into_iter().rev();
    let last = spans.next().map(|span| &list[span]);
    (spans.next().map(|span| &list[span]), last)
}

fn tools(body: &Bytes, rewrite: &Rewrite) -> Bytes {
    let edited =
        within(body, "tools", |tools| body::retain(tools, |tool| rewrite.keeps(&body::name(tool, &[]))));
    let Some(left) = value(&edited, "tools") else { return edited };
    if body::items(left.as_bytes()).is_empty() {
        return take(&edited, &["tools", "tool_choice"]);
    }
    let chosen = value(&edited, "tool_choice").and_then(|choice| text(choice.as_bytes(), "name"));
    if chosen.is_some_and(|name| !rewrite.keeps(&name)) { take(&edited, &["tool_choice"]) } else { edited }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{ir::Effort, rewrite::SystemEdit};

    #[test]
    fn thinking_follows_the_rules_of_the_model() {
        let set = |amount| Rewrite { reasoning: Some(ReasoningEdit::Set(amount)), ..Rewrite::default() };
        let strip = || Rewrite { reasoning: Some(ReasoningEdit::Strip), ..Rewrite::default() };
        let old = Caps::permissive();
        let new = Caps { adaptive_thinking: true, ..Caps::permissive() };
        let between = Caps { reasoning_off: ReasoningOff::BetweenTools, ..new.clone() };
        let always = Caps { reasoning_off: ReasoningOff::Least, ..new.clone() };
        let medium = || ReasoningAmount::Effort(Effort::Medium);
        for (change, caps, given, expected) in [
            (
                set(medium()),
                &old,
                r#"{"max_tokens":20000,"temperature":0.2,"top_k":4,"top_p":0.99,"messages":[{"role":"user","content":"é"}]}"#,
                r#"{"max_tokens":20000,"top_p":0.99,"messages":[{"role":"user","content":"é"}],"thinking":{"type":"enabled","budget_tokens":10240}}"#,
            ),
            // The client's limit stays, the budget shrinks.
            (
                set(medium()),
                &old,
                r#"{"max_tokens":2000,"thinking":{"type":"enabled","budget_tokens":1024}}"#,
                r#"{"max_tokens":2000,"thinking":{"type":"enabled","budget_tokens":1999}}"#,
            ),
            (
                set(medium()),
                &old,
                r#"{"max_tokens":1000}"#,
                r#"{"max_tokens":1000,"thinking":{"type":"disabled"}}"#,
            ),
            (
                set(medium()),
                &new,
                r#"{"max_tokens":1000,"temperature":1,"output_config":{"format":{}}}"#,
                r#"{"max_tokens":1000,"temperature":1,"output_config":{"format":{},"effort":"medium"},"thinking":{"type":"adaptive"}}"#,
            ),
            (
                set(ReasoningAmount::Off),
                &old,
                r#"{"max_tokens":9,"temperature":0.5}"#,
                r#"{"max_tokens":9,"temperature":0.5,"thinking":{"type":"disabled"}}"#,
            ),
            (
                set(ReasoningAmount::Off),
                &between,
                r#"{"max_tokens":9}"#,
                r#"{"max_tokens":9,"thinking":{"type":"between_tools"}}"#,
            ),
            (
                set(ReasoningAmount::Off),
                &always,
                r#"{"max_tokens":9}"#,
                r#"{"max_tokens":9,"thinking":{"type":"adaptive"},"output_config":{"effort":"low"}}"#,
            ),
            (
                set(medium()),
                &new,
                r#"{"max_tokens":9,"tool_choice":{"type":"any"}}"#,
                r#"{"max_tokens":9,"tool_choice":{"type":"any"},"thinking":{"type":"disabled"}}"#,
            ),
            (
                set(medium()),
                &always,
                r#"{"max_tokens":9,"tool_choice":{"type":"any"}}"#,
                r#"{"max_tokens":9,"tool_choice":{"type":"any"},"output_config":{"effort":"medium"}}"#,
            ),
            (
                set(medium()),
                &always,
                r#"{"max_tokens":9,"tool_choice":{"type":"any"},"thinking":{"type":"adaptive","display":"summarized"},"output_config":{"effort":"low"}}"#,
                r#"{"max_tokens":9,"tool_choice":{"type":"any"},"thinking":{"type":"adaptive","display":"summarized"},"output_config":{"effort":"medium"}}"#,
            ),
            (
                set(medium()),
                &old,
                r#"{"max_tokens":9000,"messages":[{"role":"assistant","content":[{"type":"tool_use"}]},{"role":"user","content":[{"type":"tool_result"}]}]}"#,
                r#"{"max_tokens":9000,"messages":[{"role":"assistant","content":[{"type":"tool_use"}]},{"role":"user","content":[{"type":"tool_result"}]}],"thinking":{"type":"disabled"}}"#,
            ),
            (
                strip(),
                &old,
                r#"{"thinking":{"type":"enabled","budget_tokens":2000},"output_config":{"effort":"low"},"max_tokens" : 5}"#,
                r#"{"max_tokens" : 5}"#,
            ),
            // A limit of the operator's pulls the client's budget with it.
            (
                Rewrite { max_output_tokens: Some(3_000), ..Rewrite::default() },
                &old,
                r#"{"max_tokens":9000,"thinking":{"type":"enabled","budget_tokens":8000}}"#,
                r#"{"max_tokens":3000,"thinking":{"type":"enabled","budget_tokens":2999}}"#,
            ),
        ] {
            let out = rewrite(&Bytes::copy_from_slice(given.as_bytes()), &change, caps);
            assert_eq!(String::from_utf8_lossy(&out), expected, "{given}");
        }
    }

    #[test]
    fn system_text_and_tools_change_alone() {
        let around = Rewrite {
            system: SystemEdit { before: Some("B".into()), after: Some("A".into()), replace: None },
            ..Rewrite::default()
        };
        let replace = Rewrite {
            system: SystemEdit { replace: Some("ours".into()), after: Some("A".into()), before: None },
            ..Rewrite::default()
        };
        let filter = Rewrite {
            keeps_tool: Some(Arc::new(|name| name == "web_search" || name == "f")),
            ..Rewrite::default()
        };
        for (change, given, expected) in [
            (&around, r#"{"a":1e9}"#, r#"{"a":1e9,"system":"B\n\nA"}"#),
            (&around, r#"{"system":"own \"x\"", "b":2}"#, r#"{"system":"B\n\nown \"x\"\n\nA", "b":2}"#),
            (
                &around,
                r#"{"system":[{"type":"text","text":"own","cache_control":{"type":"ephemeral"}} ]}"#,
                r#"{"system":[{"type":"text","text":"B"},{"type":"text","text":"own","cache_control":{"type":"ephemeral"}},{"type":"text","text":"A"} ]}"#,
            ),
            (&replace, r#"{"system":[{"type":"text","text":"own"}]}"#, r#"{"system":"ours\n\nA"}"#),
            (
                &filter,
                r#"{"tools":[{"name":"g"}, {"name":"f"},{"type":"web_search_20250305","name":"web_search"}],"tool_choice":{"type":"tool","name":"g"}}"#,
                r#"{"tools":[{"name":"f"},{"type":"web_search_20250305","name":"web_search"}]}"#,
            ),
            (&filter, r#"{"tools":[{"name":"g"}],"tool_choice":{"type":"auto"},"m":1}"#, r#"{"m":1}"#),
        ] {
            let out = rewrite(&Bytes::copy_from_slice(given.as_bytes()), change, &Caps::permissive());
            assert_eq!(String::from_utf8_lossy(&out), expected, "{given}");
        }
    }
}
