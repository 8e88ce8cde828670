//! Undoes needless escapes. JSON may write any character as `\u002B`, and some encoders do so with those that HTML or JavaScript
//! would take for their own. What is looked for in a text would not be found in that form.

/// The text with each ASCII character that can be seen as itself, or as its short escape (`\"`, `\\`): in documents, and in
/// documents within strings of others. They mean the same as before. `None` where there is no such escape.
pub(super) fn unescaped(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut out: Option<String> = None;
    let mut done = 0;
    for (at, _) in text.match_indices("u00") {
        let slashes = bytes[done..at].iter().rev().take_while(|byte| **byte == b'\\').count();
        // Each level of strings within strings doubles what stands before an escape: the last ones belong to it, those
        // before stand for backslashes of the text.
        let own = slashes & slashes.wrapping_neg();
        let Some(letter) = letter_of(bytes, at).filter(|_| own > 0) else { continue };
        let out = out.get_or_insert_default();
        out.push_str(&text[done..at - own]);
        let escape = if matches!(letter, '"' | '\\') { 2 * own - 1 } else { 0 };
        out.extend(std::iter::repeat_n('\\', escape));
        out.push(letter);
        done = at + "u0000".len();
    }
    out.map(|mut out| {
        out.push_str(&text[done..]);
        out
    })
}

/// The character of the escape whose `u00` is here, if it can be seen.
fn letter_of(bytes: &[u8], at: usize) -> Option<char> {
    let digit = |place: usize| char::from(*bytes.get(at + place)?).to_digit(16);
    let code = u8::try_from(digit(3)? * 16 + digit(4)?).ok()?;
    code.is_ascii_graphic().then(|| char::from(code))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn characters_stand_for_themselves_in_documents_and_in_documents_within_strings() {
        for (text, want) in [
            (r#"{"a":"x\u002By\u002b\u002F"}"#, r#"{"a":"x+y+/"}"#),
            (r#"{"a":"\u0022\u0026\u003c\u003E\u0027\u005C"}"#, r#"{"a":"\"&<>'\\"}"#),
            (r#"{"a":"\u005cu002B"}"#, r#"{"a":"\\u002B"}"#),
            (r#"{"a":"\\\u002B"}"#, r#"{"a":"\\+"}"#),
            (r#"{"a":"{\u0022b\u0022:\u0022c\\u002Bd\\u0022\u0022}"}"#, r#"{"a":"{\"b\":\"c+d\\\"\"}"}"#),
            (r#"{"a":"{\"b\":\"\\u005C\"}"}"#, r#"{"a":"{\"b\":\"\\\\\"}"}"#),
        ] {
            let out = unescaped(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(out, want);
            serde_json::from_str::<Value>(&out).unwrap_or_else(|error| panic!("{error}: {out}"));
        }
    }

    #[test]
    fn what_is_no_such_escape_stays() {
        for text in [
            "",
            "u002B",
            r"\u00e9 \u000a \u0020",
            r"\u0",
            r"\u00",
            r"\u002",
            r"\u00zz",
            "a \\ u00",
            "é\\u00é",
        ] {
            assert_eq!(unescaped(text), None, "{text}");
        }
    }

    proptest::proptest! {
        /// A string of a document is undone as the text that it holds is, and the document stays one.
        #[test]
        fn each_level_is_undone_alike(
            parts in proptest::collection::vec(
                proptest::sample::select(vec!["\\", "\\", "u00", "u002B", "u0022", "u005c", "\"", "é", "a"]),
                0..30,
            ),
        ) {
            let text = parts.concat();
            let within = serde_json::to_string(&text).unwrap();
            let within = unescaped(&within).unwrap_or(within);
            let read: String = serde_json::from_str(&within).unwrap();
            proptest::prop_assert_eq!(read, unescaped(&text).unwrap_or(text));
        }
    }
}
