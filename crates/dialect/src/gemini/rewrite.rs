//! What an operator changes in a request that stays in the dialect. Names may be written in either of two ways.

use bytes::{Bytes, BytesMut};
use omniroute_wire::{
    envelope::{as_bool, as_str, scan},
    json_out::Object,
    splice::Splice,
};

use super::request::thinking_config;
use crate::{
    Caps,
    rewrite::{
        ReasoningEdit, Rewrite, SystemEdit,
        body::{self, known, number, put, take, take_within, value, within, within_object},
    },
};

const SYSTEM: [&str; 2] = ["systemInstruction", "system_instruction"];
const CONFIG: [&str; 2] = ["generationConfig", "generation_config"];
const THINKING: [&str; 2] = ["thinkingConfig", "thinking_config"];
const LIMIT: [&str; 2] = ["maxOutputTokens", "max_output_tokens"];
const FUNCTIONS: [&str; 2] = ["functionDeclarations", "function_declarations"];
const TOOL_CONFIG: [&str; 2] = ["toolConfig", "tool_config"];

/// The name under which the object has a member, or would get it.
fn name_in<'n>(object: &[u8], names: &[&'n str; 2]) -> &'n str {
    known(object, names).unwrap_or(names[0])
}

/// Makes the changes.
pub(super) fn rewrite(body: &Bytes, rewrite: &Rewrite, caps: &Caps) -> Bytes {
    let mut body = body.clone();
    if rewrite.keeps_tool.is_some() {
        body = tools(&body, rewrite);
    }
    if !rewrite.system.is_empty() {
        body = system(&body, &rewrite.system, caps);
    }
    let config = name_in(&body, &CONFIG);
    if let Some(most) = rewrite.max_output_tokens {
        body = within_object(&body, config, |config| {
            let name = name_in(config, &LIMIT);
            match number(config, name) {
                Some(asked) if asked <= most => config.clone(),
                _ => put(config, name, most.to_string().as_bytes()),
            }
        });
    }
    match &rewrite.reasoning {
        None => body,
        Some(ReasoningEdit::Strip) => take_within(&body, config, &THINKING),
        Some(ReasoningEdit::Set(amount)) => match thinking_config(amount, shown(&body, config), caps) {
            None => take_within(&body, config, &THINKING),
            Some(thinking) => within_object(&body, config, |config| {
                let name = name_in(config, &THINKING);
                put(config, name, &thinking)
            }),
        },
    }
}

/// Whether the client wants to see what the model thinks, if it says.
fn shown(body: &[u8], config: &str) -> Option<bool> {
    let config = value(body, config)?.as_bytes();
    let thinking = value(config, name_in(config, &THINKING))?.as_bytes();
    as_bool(value(thinking, name_in(thinking, &["includeThoughts", "include_thoughts"]))?)
}

fn system(body: &Bytes, edit: &SystemEdit, caps: &Caps) -> Bytes {
    let name = name_in(body, &SYSTEM);
    if !caps.gemini.system {
        // Such models get it as the first words of the conversation.
        let body = if edit.replace.is_some() { take(body, &SYSTEM) } else { body.clone() };
        let content = content(Some("user"), &edit.alone());
        return within(&body, "contents", |list| body::push_front(list, &content));
    }
    if edit.replace.is_some() || value(body, name).is_none() {
        return put(body, name, &content(None, &edit.alone()));
    }
    within(body, name, |own| {
        if own.first() == Some(&b'{') && value(own, "parts").is_some() {
            within(own, "parts", |parts| match parts.first() {
                // One part may stand without its list.
                Some(b'{') => body::around(&listed(parts), edit, None),
                _ => body::around(parts, edit, None),
            })
        } else {
            body::around(own, edit, None)
        }
    })
}

fn listed(part: &Bytes) -> Bytes {
    let mut list = BytesMut::from(&b"["[..]);
    list.extend_from_slice(part);
    list.extend_from_slice(b"]");
    list.freeze()
}

fn content(role: Option<&str>, text: &str) -> Bytes {
    let mut out = BytesMut::new();
    let mut content = Object::begin(&mut out);
    content.opt_str("role", role);
    let mut parts = content.array("parts");
    let mut part = parts.object();
    part.str("text", text);
    part.end();
    parts.end();
    content.end();
    out.freeze()
}

/// Functions are kept by their names, other tools by the name of their member.
fn tools(body: &Bytes, rewrite: &Rewrite) -> Bytes {
    let entry = |entry: &Bytes| {
        let mut edited = entry.clone();
        for functions in FUNCTIONS {
            edited = within(&edited, functions, |list| {
                body::retain(list, |function| rewrite.keeps(&body::name(function, &[])))
            });
            if value(&edited, functions).is_some_and(|list| body::items(list.as_bytes()).is_empty()) {
                edited = take(&edited, &[functions]);
            }
        }
        let mut others = Vec::new();
        let scanned = scan(&edited, &mut |member| {
            if !FUNCTIONS.contains(&&*member.key) && !rewrite.keeps(&member.key) {
                others.push(member.key.into_owned());
            }
        });
        if scanned.is_ok() {
            let others: Vec<&str> = others.iter().map(String::as_str).collect();
            edited = take(&edited, &others);
        }
        edited
    };
    let is_empty =
        |entry: &[u8]| entry.strip_prefix(b"{").is_some_and(|rest| rest.trim_ascii_start() == b"}");
    let mut edited = within(body, "tools", |list| match list.first() {
        Some(b'{') => entry(list),
        _ => {
            let mut edits = Splice::new(list.clone());
            for span in body::items(list) {
                edits.replace(span.clone(), entry(&list.slice(span)));
            }
            let edited = edits.to_bytes();
            if edited == *list { edited } else { body::retain(&edited, |entry| !is_empty(entry)) }
        }
    });
    let is_gone = value(&edited, "tools").is_some_and(|tools| {
        is_empty(tools.as_bytes()) || (tools.starts_with('[') && body::items(tools.as_bytes()).is_empty())
    });
    if is_gone {
        return take(&edited, &["tools", TOOL_CONFIG[0], TOOL_CONFIG[1]]);
    }
    for config in TOOL_CONFIG {
        for calling in ["functionCallingConfig", "function_calling_config"] {
            for names in ["allowedFunctionNames", "allowed_function_names"] {
                edited = within(&edited, config, |config| {
                    within(config, calling, |calling| {
                        within(calling, names, |list| {
                            body::retain(list, |name| {
                                let name = std::str::from_utf8(name).ok().and_then(as_str);
                                name.is_some_and(|name| rewrite.keeps(&name))
                            })
                        })
                    })
                });
            }
        }
    }
    edited
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        GeminiCaps,
        ir::{Effort, ReasoningAmount},
    };

    #[test]
    fn only_what_is_meant_changes() {
        let set = |amount| Rewrite { reasoning: Some(ReasoningEdit::Set(amount)), ..Rewrite::default() };
        let system = |before: Option<&str>, replace: Option<&str>| Rewrite {
            system: SystemEdit {
                before: before.map(str::to_owned),
                replace: replace.map(str::to_owned),
                after: Some("A".into()),
            },
            ..Rewrite::default()
        };
        let levels = Caps {
            gemini: GeminiCaps { thinking_levels: &[Effort::Low, Effort::High], ..GeminiCaps::permissive() },
            ..Caps::permissive()
        };
        let without =
            Caps { gemini: GeminiCaps { system: false, ..GeminiCaps::permissive() }, ..Caps::permissive() };
        let budgets = Caps::permissive();
        for (change, caps, given, expected) in [
            (
                set(ReasoningAmount::Budget(500)),
                &budgets,
                r#"{"contents":[ ],"generation_config":{"thinking_config":{"thinking_budget":9,"include_thoughts":false}, "topK":5}}"#,
                r#"{"contents":[ ],"generation_config":{"thinking_config":{"includeThoughts":false,"thinkingBudget":500}, "topK":5}}"#,
            ),
            (
                set(ReasoningAmount::Effort(Effort::Medium)),
                &levels,
                "{}",
                r#"{"generationConfig":{"thinkingConfig":{"thinkingLevel":"HIGH"}}}"#,
            ),
            (
                set(ReasoningAmount::Off),
                &budgets,
                "{}",
                r#"{"generationConfig":{"thinkingConfig":{"thinkingBudget":0}}}"#,
            ),
            (
                Rewrite { reasoning: Some(ReasoningEdit::Strip), ..Rewrite::default() },
                &budgets,
                r#"{"a":1,"generationConfig":{"thinkingConfig":{"thinkingBudget":0}}}"#,
                r#"{"a":1}"#,
            ),
            (
                system(Some("B"), None),
                &budgets,
                r#"{"system_instruction":{"parts":[ {"text":"own"}]},"contents":[]}"#,
                r#"{"system_instruction":{"parts":[ {"text":"B"},{"text":"own"},{"text":"A"}]},"contents":[]}"#,
            ),
            (
                system(Some("B"), None),
                &budgets,
                r#"{"contents":[]}"#,
                r#"{"contents":[],"systemInstruction":{"parts":[{"text":"B\n\nA"}]}}"#,
            ),
            (
                system(None, Some("ours")),
                &budgets,
                r#"{"systemInstruction":{"parts":[{"text":"own"}]}}"#,
                r#"{"systemInstruction":{"parts":[{"text":"ours\n\nA"}]}}"#,
            ),
            (
                system(Some("B"), None),
                &without,
                r#"{"contents":[{"role":"user","parts":[]}]}"#,
                r#"{"contents":[{"role":"user","parts":[{"text":"B\n\nA"}]},{"role":"user","parts":[]}]}"#,
            ),
            (
                Rewrite { max_output_tokens: Some(7), ..Rewrite::default() },
                &budgets,
                r#"{"generationConfig":{"maxOutputTokens":70,"seed":1.0}}"#,
                r#"{"generationConfig":{"maxOutputTokens":7,"seed":1.0}}"#,
            ),
            (
                Rewrite { keeps_tool: Some(Arc::new(|name| name == "f")), ..Rewrite::default() },
                &budgets,
                r#"{"tools":[{"functionDeclarations":[{"name":"f"}, {"name":"g"}]},{"googleSearch":{}}],"toolConfig":{"functionCallingConfig":{"allowedFunctionNames":["g","f"]}}}"#,
                r#"{"tools":[{"functionDeclarations":[{"name":"f"}]}],"toolConfig":{"functionCallingConfig":{"allowedFunctionNames":["f"]}}}"#,
            ),
            (
                Rewrite { keeps_tool: Some(Arc::new(|_| false)), ..Rewrite::default() },
                &budgets,
                r#"{"a":1,"tools":[{"functionDeclarations":[{"name":"f"}]}],"toolConfig":{}}"#,
                r#"{"a":1}"#,
            ),
        ] {
            let out = rewrite(&Bytes::copy_from_slice(given.as_bytes()), &change, caps);
            assert_eq!(String::from_utf8_lossy(&out), expected, "{given}");
        }
    }
}
