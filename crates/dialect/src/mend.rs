//! What can be changed in a request for an upstream that refused it for its form, and not for what it says.

use bytes::{Bytes, BytesMut};
use omniroute_wire::{elements::elements, envelope, json_out, splice::Splice};

/// A change of form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mend {
    /// Descriptions of tools are cut to so many characters.
    ShortDescriptions(usize),
    /// All that the system says is said in one message, the first.
    OneSystemMessage,
}

/// Cuts the descriptions of the tools in a body. `nested` names the member of a tool that the description is in, where
/// there is one.
pub(crate) fn short_descriptions(body: &Bytes, nested: Option<&str>, most: usize) -> Splice {
    let mut splice = Splice::new(body.clone());
    let Some(tools) = member(body, "tools") else { return splice };
    for tool in elements(tools) {
        let object = match nested {
            Some(name) => match member(tool.as_bytes(), name) {
                Some(object) => object,
                None => continue,
            },
            None => tool,
        };
        let Some(raw) = member(object.as_bytes(), "description") else { continue };
        let Some(text) = envelope::as_str(raw) else { continue };
        if let Some(cut) = cut(&text, most) {
            let mut written = BytesMut::new();
            json_out::string(&mut written, &cut);
            let start = offset(body, raw);
            splice.replace(start..start + raw.len(), written.freeze());
        }
    }
    splice
}

/// The text with an ellipsis at its end, if it has more characters than it may have.
fn cut(text: &str, most: usize) -> Option<String> {
    let (last, _) = text.char_indices().nth(most.saturating_sub(1))?;
    text.char_indices().nth(most)?;
    Some(format!("{}…", &text[..last]))
}

/// The text of a member's value.
pub(crate) fn member<'a>(object: &'a [u8], name: &str) -> Option<&'a str> {
    let mut found = None;
    let scanned = envelope::scan(object, &mut |member| {
        if member.key == name {
            found = Some(member.raw);
        }
    });
    found.filter(|_| scanned.is_ok())
}

/// Where a part of a body begins.
pub(crate) fn offset(body: &[u8], part: &str) -> usize {
    part.as_ptr() as usize - body.as_ptr() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shortened(body: &str, nested: Option<&str>, most: usize) -> String {
        let splice = short_descriptions(&Bytes::copy_from_slice(body.as_bytes()), nested, most);
        String::from_utf8(splice.to_bytes().to_vec()).unwrap()
    }

    #[test]
    fn long_descriptions_are_cut_and_all_else_keeps_its_bytes() {
        let body = r#"{"a":1.0, "tools": [{"type":"function","function":{"description" : "\u00e4bcdef","x":"abcdef"}} , {"description":"abcdef"},{"function":{"description":"abcde"}}],"b":[]}"#;
        let nested = body.replace(r#""\u00e4bcdef""#, r#""äbcd…""#);
        assert_eq!(shortened(body, Some("function"), 5), nested);
        let flat = body.replace(r#"{"description":"abcdef"}"#, r#"{"description":"abcd…"}"#);
        assert_eq!(shortened(body, None, 5), flat);
        assert_eq!(shortened(body, None, 6), body);
    }

    #[test]
    fn what_cannot_be_read_stays() {
        for body in
            [r#"{"tools":7}"#, r#"{"tools":[7,{"description":["abcdef"]}]}"#, "{\"tools\"", "[]", "{}"]
        {
            assert_eq!(shortened(body, None, 2), body);
            assert_eq!(shortened(body, Some("function"), 2), body);
        }
    }

    #[test]
    fn cuts_count_characters() {
        for (text, most, expected) in [
            ("漢字かな", 4, None),
            ("漢字かな", 3, Some("漢字…")),
            ("ab", 1, Some("…")),
            ("a", 1, None),
            ("", 1, None),
        ] {
            assert_eq!(cut(text, most).as_deref(), expected, "{text} {most}");
        }
    }
}
