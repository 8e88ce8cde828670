//! Taking carriers out of a body that stays in its dialect: everything else keeps its bytes.

use std::ops::Range;

use bytes::Bytes;
use omniroute_wire::{members, splice::Splice};
use serde_json::value::RawValue;

use super::carrier::{MARKS, is_carrier};
use crate::json_in::{Members, str_of};

/// How deep carriers are looked for.
const MAX_DEPTH: usize = 12;
/// Members whose value goes alone: what they sign stays. With any other, the object goes whose member it is.
const ALONE: &[&str] = &["thoughtSignature", "thought_signature"];

/// A body without carriers. An object that was nothing but one is taken out of its list.
pub fn strip_carriers(body: &Bytes) -> Bytes {
    let Ok(text) = std::str::from_utf8(body) else { return body.clone() };
    let mut cuts = Vec::new();
    let Ok(whole) = serde_json::from_str::<&RawValue>(text) else { return body.clone() };
    value(text, whole.get(), 0, &mut cuts);
    let mut splice = Splice::new(body.clone());
    for cut in cuts {
        splice.replace(cut, Bytes::new());
    }
    splice.to_bytes()
}

/// Collects cuts within a value; true when the object that it is has to go as a whole.
fn value(body: &str, raw: &str, depth: usize, cuts: &mut Vec<Range<usize>>) -> bool {
    if depth > MAX_DEPTH || !may_hold_carriers(raw.as_bytes()) {
        return false;
    }
    let from = raw.as_ptr() as usize - body.as_ptr() as usize;
    if raw.starts_with('[') {
        let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(raw) else { return false };
        list(body, &items, depth, cuts);
    } else if raw.starts_with('{') {
        let Ok(Members(found)) = serde_json::from_str::<Members<'_>>(raw) else { return false };
        for (name, member) in &found {
            if !str_of(member).is_some_and(|text| is_carrier(&text)) {
                value(body, member.get(), depth + 1, cuts);
            } else if ALONE.contains(&&**name) {
                cuts.extend(members::removals(raw.as_bytes(), from, &mut |key| key == name));
            } else {
                return true;
            }
        }
    }
    false
}

fn may_hold_carriers(text: &[u8]) -> bool {
    MARKS.iter().any(|mark| memchr::memmem::find(text, mark.as_bytes()).is_some())
}

fn list(body: &str, items: &[&RawValue], depth: usize, cuts: &mut Vec<Range<usize>>) {
    let span = |item: &RawValue| {
        let start = item.get().as_ptr() as usize - body.as_ptr() as usize;
        start..start + item.get().len()
    };
    // Where the last item that stays ends; where a run of items at the head begins that do not.
    let mut end = None;
    let mut leading = None;
    for item in items {
        let at = span(item);
        if !value(body, item.get(), depth + 1, cuts) {
            if let Some(start) = leading.take() {
                cuts.push(start..at.start);
            }
            end = Some(at.end);
        } else if let Some(end) = end.filter(|_| leading.is_none()) {
            cuts.push(end..at.end);
        } else {
            leading.get_or_insert(at.start);
        }
        if end.is_some() && leading.is_none() {
            end = Some(at.end);
        }
    }
    if let (Some(start), Some(last)) = (leading, items.last()) {
        cuts.push(start..span(last).end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ir::Signature,
        openai,
        shape::{Seal, carrier::Kind},
    };

    #[test]
    fn only_carriers_go() {
        let seal = Seal::new([1; 32]);
        let carrier = seal.close(Kind::Signature, openai::ID, &Signature::from("U0lH".to_owned()));
        for (body, expected) in [
            (
                r#"{"m":[{"role":"assistant","content":[{"type":"thinking","thinking":"x","signature":"@"}, {"type":"tool_use","id":1.0}]}]}"#,
                r#"{"m":[{"role":"assistant","content":[{"type":"tool_use","id":1.0}]}]}"#,
            ),
            (r#"{"c":[{"t":1},{"s":"@"},{"s":"@"} ,{"t":2}]}"#, r#"{"c":[{"t":1} ,{"t":2}]}"#),
            (r#"{"c":[{"t":1},{"s":"@"}]}"#, r#"{"c":[{"t":1}]}"#),
            (r#"{"c":[{"s":"@"},{"s":"@"}]}"#, r#"{"c":[]}"#),
            (
                r#"{"parts":[{"functionCall":{"name":"f"},"thoughtSignature":"@"},{"thought_signature":"@","text":"a"}]}"#,
                r#"{"parts":[{"functionCall":{"name":"f"}},{"text":"a"}]}"#,
            ),
            (r#"{"c":[{"thinking":"","signature":"native"}],"t":"omr1 is a word"}"#, ""),
        ] {
            let given = body.replace('@', &carrier);
            let expected = if expected.is_empty() { given.as_str() } else { expected };
            assert_eq!(strip_carriers(&Bytes::from(given.clone())), expected, "{body}");
        }
    }
}
