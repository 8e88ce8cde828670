//! What the input of a tool must look like that takes free text. OpenAI's two dialects have the same words for it in two
//! shapes: a grammar stands in a member of its own in Chat Completions, and beside the type in Responses. The form has it as
//! Responses does.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::json_in::{Fields, str_of};

const GRAMMAR: &str = "grammar";

/// The shape of Responses.
pub(crate) fn flat(raw: &RawValue) -> Cow<'_, RawValue> {
    let Some(format) = of_grammar(raw) else { return Cow::Borrowed(raw) };
    let Some(grammar) = format.object_or_none(GRAMMAR) else { return Cow::Borrowed(raw) };
    let mut members = vec![format!("\"type\":\"{GRAMMAR}\"")];
    members.extend(grammar.unlisted(&["type"]).map(written));
    members.extend(format.unlisted(&["type", GRAMMAR]).map(written));
    object(&members)
}

/// The shape of Chat Completions.
pub(crate) fn nested(raw: &RawValue) -> Cow<'_, RawValue> {
    let Some(format) = of_grammar(raw).filter(|format| format.raw(GRAMMAR).is_none()) else {
        return Cow::Borrowed(raw);
    };
    let inner: Vec<String> = format.unlisted(&["type"]).map(written).collect();
    object(&[format!("\"type\":\"{GRAMMAR}\""), format!("\"{GRAMMAR}\":{{{}}}", inner.join(","))])
}

fn of_grammar(raw: &RawValue) -> Option<Fields<'_>> {
    let format = Fields::lenient(raw.get(), "").ok()?;
    (format.raw("type").and_then(str_of)? == GRAMMAR).then_some(format)
}

fn written((name, raw): (&str, &RawValue)) -> String {
    format!("{}:{}", serde_json::to_string(name).expect("a string is always written"), raw.get())
}

fn object(members: &[String]) -> Cow<'static, RawValue> {
    let text = format!("{{{}}}", members.join(","));
    Cow::Owned(RawValue::from_string(text).expect("composed of valid JSON"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grammar_has_two_shapes_and_all_else_one() {
        let raw = |text: &str| RawValue::from_string(text.to_owned()).expect("valid JSON");
        let chat = r#"{"type":"grammar","grammar":{"syntax":"lark","definition":"start: \"é\""}}"#;
        let responses = r#"{"type":"grammar","syntax":"lark","definition":"start: \"é\""}"#;
        for (given, in_chat, in_responses) in [
            (chat, chat, responses),
            (responses, chat, responses),
            (r#"{"type":"text"}"#, r#"{"type":"text"}"#, r#"{"type":"text"}"#),
            ("7", "7", "7"),
        ] {
            let given = raw(given);
            assert_eq!((nested(&given).get(), flat(&given).get()), (in_chat, in_responses));
        }
    }
}
