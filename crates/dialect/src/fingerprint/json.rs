//! JSON without regard to how it is written: no spaces, members in the order of their names, numbers and strings in one
//! form. What a number says is kept to its last digit.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::value::RawValue;

/// What stands deeper is taken as it is written.
const MAX_DEPTH: usize = 32;
/// So many digits survive the way through a floating-point number.
const SAFE_DIGITS: usize = 15;

/// The one form of a JSON text; what is no JSON stays as it is.
pub(super) fn canonical(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    match serde_json::from_str::<&RawValue>(text) {
        Ok(raw) => write(raw.get(), 0, &mut out),
        Err(_) => out.push_str(text),
    }
    out
}

fn write(raw: &str, depth: usize, out: &mut String) {
    let is_written = depth < MAX_DEPTH
        && match raw.as_bytes().first() {
            Some(b'{') => write_object(raw, depth, out),
            Some(b'[') => write_list(raw, depth, out),
            Some(b'"') => write_string(raw, out),
            Some(b'-' | b'0'..=b'9') => {
                write_number(raw, out);
                true
            }
            _ => false,
        };
    if !is_written {
        out.push_str(raw);
    }
}

/// Of members with the same name the last one counts.
fn write_object(raw: &str, depth: usize, out: &mut String) -> bool {
    let Ok(members) = serde_json::from_str::<BTreeMap<String, &RawValue>>(raw) else { return false };
    for (at, (name, value)) in members.iter().enumerate() {
        out.push(if at == 0 { '{' } else { ',' });
        quote(name, out);
        out.push(':');
        write(value.get(), depth + 1, out);
    }
    out.push_str(if members.is_empty() { "{}" } else { "}" });
    true
}

fn write_list(raw: &str, depth: usize, out: &mut String) -> bool {
    let Ok(elements) = serde_json::from_str::<Vec<&RawValue>>(raw) else { return false };
    for (at, element) in elements.iter().enumerate() {
        out.push(if at == 0 { '[' } else { ',' });
        write(element.get(), depth + 1, out);
    }
    out.push_str(if elements.is_empty() { "[]" } else { "]" });
    true
}

/// Halves of surrogates have no other form.
fn write_string(raw: &str, out: &mut String) -> bool {
    let Ok(text) = serde_json::from_str::<String>(raw) else { return false };
    quote(&text, out);
    true
}

fn quote(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            control if control < ' ' => {
                // Writing to a `String` cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(control));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

fn write_number(raw: &str, out: &mut String) {
    let digits =
        raw.bytes().take_while(|byte| !matches!(byte, b'e' | b'E')).filter(u8::is_ascii_digit).count();
    match raw.parse::<f64>() {
        Ok(0.0) if digits <= SAFE_DIGITS => out.push('0'),
        Ok(number) if digits <= SAFE_DIGITS && number.is_finite() && number != 0.0 => {
            let _ = write!(out, "{number}");
        }
        _ => out.push_str(raw),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_the_same_is_written_the_same() {
        for (text, expected) in [
            (r#" { "b" : [ 1.0 , 2e0, -0 ] , "a" : null }"#, r#"{"a":null,"b":[1,2,0]}"#),
            (r#"{"a":1,"a":2}"#, r#"{"a":2}"#),
            (r#""\u0061\/\n""#, "\"a/\\u000a\""),
            ("0.50", "0.5"),
            ("5E-1", "0.5"),
            ("[]", "[]"),
            ("{ }", "{}"),
            // Numbers with more digits than a floating-point number has stay apart.
            ("12345678901234567890123", "12345678901234567890123"),
            ("12345678901234567890124", "12345678901234567890124"),
            // No JSON, or none that has another form.
            ("{oops", "{oops"),
            (r#""\ud83d""#, r#""\ud83d""#),
        ] {
            assert_eq!(canonical(text), expected, "{text}");
        }
    }

    #[test]
    fn deep_json_is_no_danger() {
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(canonical(&deep).len() <= deep.len());
    }
}
