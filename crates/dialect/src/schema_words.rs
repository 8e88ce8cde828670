//! JSON schemas without the keywords that a target refuses. The walk goes by the place of a schema, not by names: a
//! property may be called `pattern`.

use serde_json::value::RawValue;

use crate::json_in::{self, Members};

/// How deep schemas are followed; deeper ones stay as they are.
const MAX_DEPTH: usize = 64;

/// The schema without the words, if any of them is in it, and whether it says less now: what identifies a schema says
/// nothing.
pub(crate) fn without(schema: &RawValue, words: &[&str]) -> Option<(String, bool)> {
    if words.is_empty() {
        return None;
    }
    let mut walk =
        Walk { words, out: String::with_capacity(schema.get().len()), changed: false, less: false };
    walk.schema(schema.get(), MAX_DEPTH);
    walk.changed.then_some((walk.out, walk.less))
}

struct Walk<'w> {
    words: &'w [&'w str],
    out: String,
    changed: bool,
    less: bool,
}

impl Walk<'_> {
    fn schema(&mut self, text: &str, depth: usize) {
        let members = if depth > 0 && text.starts_with('{') { serde_json::from_str(text).ok() } else { None };
        let Some(Members(members)) = members else { return self.out.push_str(text) };
        self.out.push('{');
        let mut first = true;
        for (key, raw) in &members {
            if self.words.contains(&&**key) {
                self.changed = true;
                self.less |= !key.starts_with('$');
                continue;
            }
            self.key(key, std::mem::take(&mut first));
            match &**key {
                "properties" | "$defs" | "definitions" | "patternProperties" => {
                    self.map(raw.get(), depth - 1)
                }
                "items" | "prefixItems" | "anyOf" | "oneOf" | "allOf" | "not" | "additionalProperties" => {
                    self.any(raw, depth - 1);
                }
                _ => self.out.push_str(raw.get()),
            }
        }
        self.out.push('}');
    }

    fn map(&mut self, text: &str, depth: usize) {
        let Ok(Members(members)) = serde_json::from_str::<Members<'_>>(text) else {
            return self.out.push_str(text);
        };
        self.out.push('{');
        for (at, (key, raw)) in members.iter().enumerate() {
            self.key(key, at == 0);
            self.schema(raw.get(), depth);
        }
        self.out.push('}');
    }

    fn any(&mut self, raw: &RawValue, depth: usize) {
        let Some(items) = json_in::list_of(raw) else { return self.schema(raw.get(), depth) };
        self.out.push('[');
        for (at, item) in items.into_iter().enumerate() {
            if at > 0 {
                self.out.push(',');
            }
            self.schema(item.get(), depth);
        }
        self.out.push(']');
    }

    fn key(&mut self, key: &str, first: bool) {
        if !first {
            self.out.push(',');
        }
        self.out.push_str(&serde_json::to_string(key).expect("a string is always written"));
        self.out.push(':');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_go_and_properties_of_their_names_stay() {
        for (given, expected) in [
            (r#"{"type":"object","properties":{"pattern":{"type":"string"}}}"#, None),
            (
                r#"{"$schema":"s","type":"object","properties":{"a":{"$id":"b"}}}"#,
                Some((r#"{"type":"object","properties":{"a":{}}}"#, false)),
            ),
            (
                r#"{"properties":{"pattern":{"pattern":"é","type":"string"}},"items":[{"pattern":"x"}],"anyOf":[{"not":{"pattern":"y"}}]}"#,
                Some((
                    r#"{"properties":{"pattern":{"type":"string"}},"items":[{}],"anyOf":[{"not":{}}]}"#,
                    true,
                )),
            ),
            (r#"{"enum":[{"pattern":1}],"default":{"$id":2}}"#, None),
            ("true", None),
        ] {
            let raw: Box<RawValue> = serde_json::from_str(given).expect("valid JSON");
            let found = without(&raw, &["$id", "$schema", "pattern"]);
            assert_eq!(found.as_ref().map(|(text, less)| (text.as_str(), *less)), expected, "{given}");
        }
        let deep = format!("{}{{\"pattern\":1}}{}", r#"{"items":"#.repeat(500), "}".repeat(500));
        let raw: Result<Box<RawValue>, _> = serde_json::from_str(&deep);
        if let Ok(raw) = raw {
            assert!(without(&raw, &["pattern"]).is_none(), "what lies too deep stays");
        }
    }
}
