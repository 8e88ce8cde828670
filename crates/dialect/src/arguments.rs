//! Arguments of tool calls: JSON text in some dialects, an object in others.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::json_in::{self, Fields};

/// How far nested brackets are closed when the end of the text is missing.
const MAX_DEPTH: usize = 64;

/// Arguments as an object.
pub(crate) struct Arguments<'a> {
    /// The object.
    pub(crate) object: Cow<'a, RawValue>,
    /// Whether the text was something else and had to be wrapped or repaired.
    pub(crate) changed: bool,
}

/// Reads the text of arguments as an object: nothing and `null` are no arguments, another value is wrapped in
/// `value`, and what is not JSON is repaired or, failing that, kept as text in `_raw`.
pub(crate) fn object(text: &str) -> Arguments<'_> {
    let trimmed = text.trim();
    if trimmed.is_empty() || trimmed == "null" {
        return Arguments { object: Cow::Owned(raw("{}".to_owned())), changed: false };
    }
    if let Ok(value) = serde_json::from_str::<&RawValue>(trimmed) {
        if json_in::is_object(value) {
            return Arguments { object: Cow::Borrowed(value), changed: false };
        }
        let inner = json_in::str_of(value);
        if let Some(object) = inner.and_then(|inner| parsed_object(inner.trim())) {
            return Arguments { object: Cow::Owned(object), changed: true };
        }
        return Arguments {
            object: Cow::Owned(raw(format!("{{\"value\":{}}}", value.get()))),
            changed: true,
        };
    }
    let object = repaired(trimmed).unwrap_or_else(|| {
        let quoted = serde_json::to_string(text).expect("a string is always written");
        raw(format!("{{\"_raw\":{quoted}}}"))
    });
    Arguments { object: Cow::Owned(object), changed: true }
}

/// Whether the text is a complete JSON object, or nothing at all.
pub(crate) fn is_complete(text: &str) -> bool {
    let trimmed = text.trim();
    trimmed.is_empty() || trimmed == "null" || parsed_object(trimmed).is_some()
}

/// The input of a tool that takes free text as the arguments of a function that takes it as `input`.
pub(crate) fn of_free_text(input: &str) -> String {
    let quoted = serde_json::to_string(input).expect("a string is always written");
    format!("{{\"input\":{quoted}}}")
}

/// The free text in the arguments of such a function. Models also call it `patch`, or write nothing but the text.
pub(crate) fn free_text(arguments: &str) -> Cow<'_, str> {
    let trimmed = arguments.trim();
    if trimmed.is_empty() || trimmed == "{}" {
        return Cow::Borrowed("");
    }
    let repaired_object;
    let value = match serde_json::from_str::<&RawValue>(trimmed) {
        Ok(value) => value,
        Err(_) => match repaired(trimmed) {
            Some(object) => {
                repaired_object = object;
                &*repaired_object
            }
            None => return Cow::Borrowed(arguments),
        },
    };
    if let Some(text) = json_in::str_of(value) {
        return Cow::Owned(text.into_owned());
    }
    let fields = Fields::lenient(value.get(), "").ok();
    let text = fields.and_then(|fields| {
        ["input", "patch"].into_iter().find_map(|name| fields.raw(name).and_then(json_in::str_of))
    });
    text.map_or(Cow::Borrowed(arguments), |text| Cow::Owned(text.into_owned()))
}

/// Whether JSON text that comes in pieces is a complete object or list.
#[derive(Debug, Default)]
pub(crate) struct Shape {
    depth: u32,
    in_string: bool,
    escaped: bool,
    closed: bool,
}

impl Shape {
    /// Takes a piece.
    pub(crate) fn read(&mut self, text: &str) {
        for byte in text.bytes() {
            if self.in_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth = self.depth.saturating_add(1),
                b'}' | b']' if self.depth > 0 => {
                    self.depth -= 1;
                    self.closed |= self.depth == 0;
                }
                _ => {}
            }
        }
    }

    /// Whether it was complete at some point.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }
}

fn raw(text: String) -> Box<RawValue> {
    RawValue::from_string(text).expect("composed of valid JSON")
}

fn parsed_object(text: &str) -> Option<Box<RawValue>> {
    serde_json::from_str::<Box<RawValue>>(text).ok().filter(|value| json_in::is_object(value))
}

/// Takes off a code fence, drops commas before a closing bracket and closes what is open at the end.
fn repaired(text: &str) -> Option<Box<RawValue>> {
    let text = without_fence(text);
    if let Some(object) = parsed_object(text) {
        return Some(object);
    }
    let mut out = String::with_capacity(text.len() + 8);
    let mut open = Vec::new();
    let mut in_string = false;
    let mut escaped = false;
    for c in text.chars() {
        if in_string {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => in_string = false,
                _ => {}
            }
        } else {
            match c {
                '"' => in_string = true,
                '{' => open.push('}'),
                '[' => open.push(']'),
                '}' | ']' => {
                    drop_trailing_comma(&mut out);
                    if open.pop() != Some(c) {
                        return None;
                    }
                }
                _ => {}
            }
            if open.len() > MAX_DEPTH {
                return None;
            }
        }
        out.push(c);
    }
    if in_string {
        if escaped {
            out.pop();
        }
        out.push('"');
    }
    drop_trailing_comma(&mut out);
    if out.trim_end().ends_with(':') {
        out.push_str("null");
    }
    while let Some(close) = open.pop() {
        out.push(close);
    }
    parsed_object(&out)
}

fn drop_trailing_comma(out: &mut String) {
    let end = out.trim_end().len();
    if out[..end].ends_with(',') {
        out.truncate(end - 1);
    }
}

fn without_fence(text: &str) -> &str {
    let Some(inner) = text.strip_prefix("```") else { return text };
    let inner = inner.strip_prefix("json").unwrap_or(inner);
    inner.trim().strip_suffix("```").unwrap_or(inner).trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_becomes_an_object() {
        for (given, expected, changed) in [
            ("", "{}", false),
            (" null ", "{}", false),
            (r#"{"b":1.0,"a":2}"#, r#"{"b":1.0,"a":2}"#, false),
            ("7", r#"{"value":7}"#, true),
            ("[1]", r#"{"value":[1]}"#, true),
            (r#""{\"x\":1}""#, r#"{"x":1}"#, true),
            (r#""hi""#, r#"{"value":"hi"}"#, true),
            ("```json\n{\"x\":1}\n```", r#"{"x":1}"#, true),
            (r#"{"x":[1,2,],}"#, r#"{"x":[1,2]}"#, true),
            (r#"{"x":{"y":"abc"#, r#"{"x":{"y":"abc"}}"#, true),
            (r#"{"x":"#, r#"{"x":null}"#, true),
            ("not json", r#"{"_raw":"not json"}"#, true),
            (r#"{"x":1]"#, r#"{"_raw":"{\"x\":1]"}"#, true),
        ] {
            let arguments = object(given);
            assert_eq!((arguments.object.get(), arguments.changed), (expected, changed), "{given}");
        }
    }

    #[test]
    fn free_text_is_found_wherever_the_model_put_it() {
        for (given, expected) in [
            (r#"{"input":"a\nb"}"#, "a\nb"),
            (r#"{"patch":"p"}"#, "p"),
            (r#""bare""#, "bare"),
            ("*** Begin Patch", "*** Begin Patch"),
            (r#"{"input":"cut"#, "cut"),
            (r#"{"other":"x"}"#, r#"{"other":"x"}"#),
            ("{}", ""),
            ("", ""),
        ] {
            assert_eq!(free_text(given), expected, "{given}");
        }
        assert_eq!(free_text(&of_free_text("\"q\"\u{1}")), "\"q\"\u{1}");
    }
}
