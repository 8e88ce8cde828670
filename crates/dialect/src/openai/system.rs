//! One system message, the first, for servers that take no other.

use bytes::{Bytes, BytesMut};
use omniroute_wire::{elements::elements, envelope, json_out, splice::Splice};
use serde_json::value::RawValue;

use crate::mend::{member, offset};

/// Says what all system messages say in one message before the others. A body that has just that already, and one that
/// cannot be read, stay as they are.
pub(super) fn one_message(body: &Bytes) -> Splice {
    let mut splice = Splice::new(body.clone());
    let Some(list) = member(body, "messages") else { return splice };
    let messages: Vec<&str> = elements(list).collect();
    let system: Vec<usize> = (0..messages.len()).filter(|at| is_system(messages[*at])).collect();
    if system.is_empty() || system == [0] {
        return splice;
    }
    let mut text = String::new();
    for at in &system {
        let Some(said) = words(messages[*at]) else { return splice };
        if !text.is_empty() && !said.is_empty() {
            text.push_str("\n\n");
        }
        text.push_str(&said);
    }
    let mut written = BytesMut::from(&br#"[{"role":"system","content":"#[..]);
    json_out::string(&mut written, &text);
    written.extend_from_slice(b"}");
    for at in (0..messages.len()).filter(|at| !system.contains(at)) {
        written.extend_from_slice(b",");
        written.extend_from_slice(messages[at].as_bytes());
    }
    written.extend_from_slice(b"]");
    let start = offset(body, list);
    splice.replace(start..start + list.len(), written.freeze());
    splice
}

fn is_system(message: &str) -> bool {
    matches!(member(message.as_bytes(), "role"), Some("\"system\"" | "\"developer\""))
}

/// The text of a message, or the texts of its parts; `None` where there is anything else.
fn words(message: &str) -> Option<String> {
    let content = member(message.as_bytes(), "content")?;
    if let Some(text) = envelope::as_str(content) {
        return Some(text.into_owned());
    }
    let parts: Vec<&RawValue> = serde_json::from_str(content).ok()?;
    let texts = parts.into_iter().map(|part| envelope::as_str(member(part.get().as_bytes(), "text")?));
    Some(texts.collect::<Option<Vec<_>>>()?.join("\n\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mended(body: &str) -> String {
        let splice = one_message(&Bytes::copy_from_slice(body.as_bytes()));
        String::from_utf8(splice.to_bytes().to_vec()).unwrap()
    }

    #[test]
    fn all_system_text_comes_first() {
        let body = r#"{"model":"m","messages":[{"role":"system","content":"a \"1\""},{"role":"user","content":1.0},
            {"content":[{"type":"text","text":"b"},{"type":"text","text":"c"}],"role":"developer"}],"x":[]}"#;
        let expected = r#"{"model":"m","messages":[{"role":"system","content":"a \"1\"\n\nb\n\nc"},{"role":"user","content":1.0}],"x":[]}"#;
        assert_eq!(mended(body), expected);
        let late = r#"{"messages":[{"role":"user","content":"u"},{"role":"system","content":"s"}]}"#;
        let first = r#"{"messages":[{"role":"system","content":"s"},{"role":"user","content":"u"}]}"#;
        assert_eq!(mended(late), first);
    }

    #[test]
    fn what_needs_nothing_or_cannot_be_read_stays() {
        for body in [
            r#"{"messages":[{"role":"system","content":[{"type":"text","text":"b"}]},{"role":"user","content":"u"}]}"#,
            r#"{"messages":[{"role":"user","content":"\"role\":\"system\""}]}"#,
            r#"{"messages":[{"role":"user","content":"u"},{"role":"system","content":[{"type":"image_url"}]}]}"#,
            r#"{"messages":[{"role":"user"},{"role":"system"}]}"#,
            r#"{"messages":7}"#,
            "{}",
            "[]",
            "{",
        ] {
            assert_eq!(mended(body), body);
        }
    }
}
