//! What has to be changed in the history of a request that stays in the dialect.

use bytes::{Bytes, BytesMut};
use omniroute_wire::{envelope, json_out, splice::Splice};
use serde_json::value::RawValue;

/// Writes `system` for `developer`, which many servers refuse; all else stays as it came.
pub(super) fn plain_roles(body: &Bytes) -> Splice {
    let mut splice = Splice::new(body.clone());
    for message in messages(body) {
        let message = message.get();
        let begin = message.as_ptr() as usize - body.as_ptr() as usize;
        // One that cannot be read is for the upstream to judge.
        let _ = envelope::scan_str(message, &mut |member| {
            if member.key == "role" && member.raw == "\"developer\"" {
                let span = member.span;
                splice.replace(begin + span.start..begin + span.end, Bytes::from_static(b"\"system\""));
            }
        });
    }
    splice
}

/// The messages of a request.
fn messages(body: &[u8]) -> Vec<&RawValue> {
    let mut list = None;
    let scanned = envelope::scan(body, &mut |member| {
        if member.key == "messages" {
            list = Some(member.span);
        }
    });
    let list = list.filter(|_| scanned.is_ok());
    list.and_then(|span| serde_json::from_slice(&body[span]).ok()).unwrap_or_default()
}

/// Writes `reasoning_content` into the assistant's messages with calls that have none; all else stays as it came.
pub(super) fn return_reasoning(body: &Bytes, thoughts: &dyn Fn(usize) -> String) -> Splice {
    let mut splice = Splice::new(body.clone());
    for (at, message) in messages(body).into_iter().enumerate() {
        let message = message.get();
        let begin = message.as_ptr() as usize - body.as_ptr() as usize;
        if let Some(place) = missing(message) {
            let mut text = BytesMut::new();
            json_out::string(&mut text, &thoughts(at));
            match place {
                Missing::Behind(end) => {
                    let mut member = BytesMut::from(&b",\"reasoning_content\":"[..]);
                    member.extend_from_slice(&text);
                    splice.replace(begin + end..begin + end, member.freeze());
                }
                Missing::Null(span) => splice.replace(begin + span.start..begin + span.end, text.freeze()),
            }
        }
    }
    splice
}

/// Where the reasoning belongs that a message does not have.
enum Missing {
    /// Behind the last member.
    Behind(usize),
    /// In place of a null.
    Null(std::ops::Range<usize>),
}

fn missing(message: &str) -> Option<Missing> {
    let (mut is_assistant, mut has_calls, mut has_reasoning, mut null) = (false, false, false, None);
    let extent = envelope::scan_str(message, &mut |member| match &*member.key {
        "role" => is_assistant = member.raw == "\"assistant\"",
        "tool_calls" => {
            has_calls = member.raw.strip_prefix('[').is_some_and(|rest| !rest.trim_start().starts_with(']'));
        }
        "reasoning_content" if member.raw == "null" => null = Some(member.span),
        "reasoning_content" => has_reasoning = true,
        _ => {}
    });
    let extent = extent.ok().filter(|_| is_assistant && has_calls && !has_reasoning)?;
    Some(null.map_or(Missing::Behind(extent.end), Missing::Null))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_that_few_know_becomes_one_that_all_do() {
        let body = r#"{"model":"developer", "messages":[{"content":"\"role\":\"developer\"","role" : "developer"},{"role":"user","content":[{"type":"text","text":"developer"}]},
            {"role":"developer","content":"b","x":1.0}]}"#;
        let expected = body
            .replace(r#""role" : "developer""#, r#""role" : "system""#)
            .replace(r#"{"role":"developer""#, r#"{"role":"system""#);
        let out = plain_roles(&Bytes::copy_from_slice(body.as_bytes())).to_bytes();
        assert_eq!(String::from_utf8_lossy(&out), expected);
        for body in [
            r#"{"messages":"developer"}"#,
            r#"{"messages":[7,{"role":["developer"]}]}"#,
            "{\"developer\"",
            "[]",
        ] {
            assert!(plain_roles(&Bytes::copy_from_slice(body.as_bytes())).is_untouched(), "{body}");
        }
    }

    #[test]
    fn only_calls_without_reasoning_get_some() {
        let calls = r#""tool_calls":[{"id":"c"}]"#;
        for (message, expected) in [
            (
                format!(r#"{{"role":"assistant", {calls} }}"#),
                format!(r#"{{"role":"assistant", {calls},"reasoning_content":"no \"1\"" }}"#),
            ),
            (
                format!(r#"{{"reasoning_content":null,{calls},"role":"assistant"}}"#),
                format!(r#"{{"reasoning_content":"no \"1\"",{calls},"role":"assistant"}}"#),
            ),
            (format!(r#"{{"role":"assistant",{calls},"reasoning_content":""}}"#), String::new()),
            (format!(r#"{{"role":"user",{calls}}}"#), String::new()),
            (r#"{"role":"assistant","tool_calls":[ ]}"#.to_owned(), String::new()),
            (r#"{"role":"assistant","content":"tool_calls"}"#.to_owned(), String::new()),
            ("7".to_owned(), String::new()),
        ] {
            let body =
                |message: &str| format!(r#"{{"a":1.0, "messages": [{{"role":"user"}} , {message}],"b":[]}}"#);
            let given = Bytes::from(body(&message));
            let out = return_reasoning(&given, &|at| format!("no \"{at}\"")).to_bytes();
            let expected = if expected.is_empty() { &message } else { &expected };
            assert_eq!(String::from_utf8_lossy(&out), body(expected));
        }
        for body in ["[]", "{\"messages\":3}", "{", "{}"] {
            let given = Bytes::from_static(body.as_bytes());
            assert!(return_reasoning(&given, &|_| String::new()).is_untouched(), "{body}");
        }
    }
}
