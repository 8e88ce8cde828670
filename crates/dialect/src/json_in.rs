//! Reading JSON objects member by member, so that an error can name the member it is about and so that values
//! nobody computes with stay the text they were.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;
use smallvec::SmallVec;

use crate::{
    DecodeError,
    ir::{self, Loss, LossAction},
};

/// So many members are compared with each other rather than put into a table.
const FEW: usize = 32;

/// How deep [`last_wins`] looks; deeper values are kept as they are.
const REPAIR_DEPTH: usize = 32;

/// The members of an object in the order in which they were written.
#[derive(Debug)]
pub(crate) struct Members<'a>(pub(crate) SmallVec<[(Cow<'a, str>, &'a RawValue); 8]>);

#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = SmallVec::new();
                while let Some((Key(key), value)) = map.next_entry::<Key<'de>, &'de RawValue>()? {
                    members.push((key, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// The members of an object together with the place of the object in the request.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    path: String,
    members: Members<'a>,
    /// Whether members may be written `in_this_way` and are known as `inThisWay`.
    camel: bool,
}

impl<'a> Fields<'a> {
    /// Reads an object whose members must not repeat.
    pub(crate) fn strict(text: &'a str, path: impl Into<String>) -> Result<Self, DecodeError> {
        Self::lenient(text, path)?.without_repeats()
    }

    /// The same, where members may be written `in_this_way` and are known as `inThisWay`; so it is with the
    /// members of objects within.
    pub(crate) fn strict_camel(text: &'a str, path: impl Into<String>) -> Result<Self, DecodeError> {
        let mut fields = Self::lenient(text, path)?;
        fields.camel = true;
        for (key, _) in &mut fields.members.0 {
            if let Some(camel) = camel(key) {
                *key = Cow::Owned(camel);
            }
        }
        fields.without_repeats()
    }

    fn without_repeats(self) -> Result<Self, DecodeError> {
        let members = &self.members.0;
        let repeated = if members.len() <= FEW {
            let mut all = members.iter().enumerate();
            all.find(|(at, (key, _))| members[..*at].iter().any(|(other, _)| other == key)).map(|(at, _)| at)
        } else {
            let mut seen = HashSet::with_capacity(members.len());
            members.iter().position(|(key, _)| !seen.insert(&**key))
        };
        match repeated.and_then(|at| members.get(at)) {
            None => Ok(self),
            Some((key, _)) => {
                let param = self.path_of(key);
                Err(DecodeError {
                    code: "invalid_json",
                    message: format!("`{param}` is given more than once"),
                    param: Some(param),
                })
            }
        }
    }

    /// Reads an object; where a member repeats, the last one counts.
    pub(crate) fn lenient(text: &'a str, path: impl Into<String>) -> Result<Self, DecodeError> {
        let path = path.into();
        match serde_json::from_str(text) {
            Ok(members) => Ok(Self { path, members, camel: false }),
            Err(error) if error.is_data() => Err(wrong_type(path, "an object")),
            Err(error) => Err(DecodeError {
                code: "invalid_json",
                message: format!("the JSON is invalid near line {}, column {}", error.line(), error.column()),
                param: (!path.is_empty()).then_some(path),
            }),
        }
    }

    /// Where the object stands.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Where a member stands.
    pub(crate) fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// Members that are not listed and not `null`.
    pub(crate) fn unlisted<'s>(
        &'s self,
        known: &'s [&'s str],
    ) -> impl Iterator<Item = (&'s str, &'a RawValue)> + use<'s, 'a> {
        self.members
            .0
            .iter()
            .filter(move |(key, raw)| !known.contains(&&**key) && raw.get() != "null")
            .map(|(key, raw)| (&**key, *raw))
    }

    /// Tells the client of the members that are not listed: the canonical form has no place for them.
    pub(crate) fn tell_unlisted(&self, known: &[&str], losses: &mut Vec<Loss>) {
        for (name, _) in self.unlisted(known) {
            losses.push(ir::loss(self.path_of(name), LossAction::Dropped));
        }
    }

    /// Only records them: they are about caches, or came with an earlier answer and mean nothing in the history.
    pub(crate) fn note_unlisted(&self, known: &[&str], losses: &mut Vec<Loss>) {
        for (name, _) in self.unlisted(known) {
            losses.push(ir::quiet(self.path_of(name), LossAction::Dropped));
        }
    }

    /// The one or the other.
    pub(crate) fn unlisted_as(&self, known: &[&str], silent: bool, losses: &mut Vec<Loss>) {
        if silent { self.note_unlisted(known, losses) } else { self.tell_unlisted(known, losses) }
    }

    /// A member's text; `null` counts as absent.
    pub(crate) fn raw(&self, name: &str) -> Option<&'a RawValue> {
        let (_, raw) = self.members.0.iter().rev().find(|(key, _)| key == name)?;
        (raw.get() != "null").then_some(*raw)
    }

    /// A string.
    pub(crate) fn str(&self, name: &str) -> Result<Option<Cow<'a, str>>, DecodeError> {
        self.raw(name)
            .map(|raw| str_of(raw).ok_or_else(|| wrong_type(self.path_of(name), "a string")))
            .transpose()
    }

    /// A string that must be there.
    pub(crate) fn need_str(&self, name: &str) -> Result<Cow<'a, str>, DecodeError> {
        self.str(name)?.ok_or_else(|| self.missing(name))
    }

    /// A boolean.
    pub(crate) fn bool(&self, name: &str) -> Result<Option<bool>, DecodeError> {
        match self.raw(name).map(RawValue::get) {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(_) => Err(wrong_type(self.path_of(name), "a boolean")),
        }
    }

    /// A whole number from zero.
    pub(crate) fn count(&self, name: &str) -> Result<Option<u64>, DecodeError> {
        self.raw(name)
            .map(|raw| {
                count_of(raw).ok_or_else(|| wrong_type(self.path_of(name), "a whole number, zero or more"))
            })
            .transpose()
    }

    /// A number, kept as it was written.
    pub(crate) fn number(&self, name: &str) -> Result<Option<Box<RawValue>>, DecodeError> {
        match self.raw(name) {
            None => Ok(None),
            Some(raw) if raw.get().starts_with(|c: char| c == '-' || c.is_ascii_digit()) => {
                Ok(Some(raw.to_owned()))
            }
            Some(_) => Err(wrong_type(self.path_of(name), "a number")),
        }
    }

    /// A list.
    pub(crate) fn list(&self, name: &str) -> Result<Option<Vec<&'a RawValue>>, DecodeError> {
        self.raw(name)
            .map(|raw| list_of(raw).ok_or_else(|| wrong_type(self.path_of(name), "a list")))
            .transpose()
    }

    /// An object whose members must not repeat.
    pub(crate) fn object(&self, name: &str) -> Result<Option<Fields<'a>>, DecodeError> {
        let read = if self.camel { Fields::strict_camel } else { Fields::strict };
        self.raw(name).map(|raw| read(raw.get(), self.path_of(name))).transpose()
    }

    /// An object of which these members are read; the client is told of others.
    pub(crate) fn object_of(
        &self,
        name: &str,
        known: &[&str],
        losses: &mut Vec<Loss>,
    ) -> Result<Option<Fields<'a>>, DecodeError> {
        let object = self.object(name)?;
        if let Some(object) = &object {
            object.tell_unlisted(known, losses);
        }
        Ok(object)
    }

    /// An object; whatever else stands there counts as absent.
    pub(crate) fn object_or_none(&self, name: &str) -> Option<Fields<'a>> {
        Fields::lenient(self.raw(name)?.get(), self.path_of(name)).ok()
    }

    /// That a member is not there.
    pub(crate) fn missing(&self, name: &str) -> DecodeError {
        missing(self.path_of(name))
    }
}

/// `in_this_way` as `inThisWay`; `None` for names without an inner underscore.
pub(crate) fn camel(name: &str) -> Option<String> {
    if !name.trim_start_matches('_').contains('_') || name.ends_with('_') {
        return None;
    }
    let mut out = String::with_capacity(name.len());
    let mut raise = false;
    for c in name.chars() {
        match c {
            '_' if !out.is_empty() => raise = true,
            c if std::mem::take(&mut raise) => out.extend(c.to_uppercase()),
            c => out.push(c),
        }
    }
    Some(out)
}

/// That a member of the wrong type was found.
pub(crate) fn wrong_type(path: impl Into<String>, expected: &str) -> DecodeError {
    let path = path.into();
    let message = if path.is_empty() {
        format!("the body must be {expected}")
    } else {
        format!("`{path}` must be {expected}")
    };
    DecodeError { code: "invalid_type", message, param: (!path.is_empty()).then_some(path) }
}

/// That a member has a value that means nothing.
pub(crate) fn wrong_value(path: impl Into<String>, expected: &str) -> DecodeError {
    let path = path.into();
    DecodeError { code: "invalid_value", message: format!("`{path}` must be {expected}"), param: Some(path) }
}

/// That a member which must be there is not.
pub(crate) fn missing(path: impl Into<String>) -> DecodeError {
    let path = path.into();
    DecodeError {
        code: "missing_required_parameter",
        message: format!("`{path}` is required"),
        param: Some(path),
    }
}

/// The text of a body: UTF-8, without byte-order marks, lone surrogates replaced by U+FFFD.
pub(crate) fn text(mut body: &[u8]) -> Result<Cow<'_, str>, DecodeError> {
    // All of them: who reads this text may look for one again.
    while let Some(rest) = body.strip_prefix(b"\xef\xbb\xbf") {
        body = rest;
    }
    match std::str::from_utf8(body) {
        Ok(text) => Ok(without_lone_surrogates(text)),
        Err(error) => Err(DecodeError {
            code: "invalid_json",
            message: format!("the body is not valid UTF-8 at byte {}", error.valid_up_to()),
            param: None,
        }),
    }
}

/// A string value, unescaped.
pub(crate) fn str_of(raw: &RawValue) -> Option<Cow<'_, str>> {
    let inner = raw.get().strip_prefix('"')?.strip_suffix('"')?;
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str::<String>(&without_lone_surrogates(raw.get())).ok().map(Cow::Owned)
}

/// A whole number from zero, also when it is written with a fraction of zero.
pub(crate) fn count_of(raw: &RawValue) -> Option<u64> {
    let text = raw.get();
    text.parse().ok().or_else(|| {
        let number = text.parse::<f64>().ok()?;
        (number >= 0.0 && number.fract() == 0.0 && number < 9.0e15).then_some(number as u64)
    })
}

/// The elements of a list.
pub(crate) fn list_of(raw: &RawValue) -> Option<Vec<&RawValue>> {
    serde_json::from_str(raw.get()).ok()
}

/// Whether the value is an object.
pub(crate) fn is_object(raw: &RawValue) -> bool {
    raw.get().starts_with('{')
}

/// Replaces escapes of half a character, which no JSON reader further on has to accept, by U+FFFD.
pub(crate) fn without_lone_surrogates(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    if memchr::memmem::find(bytes, b"\\ud").is_none() && memchr::memmem::find(bytes, b"\\uD").is_none() {
        return Cow::Borrowed(text);
    }
    let unit = |at: usize| -> Option<u16> {
        let escape = bytes.get(at..at + 6)?;
        let digits = escape.strip_prefix(b"\\u")?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let mut lone = Vec::new();
    let mut at = 0;
    while let Some(found) = memchr::memchr(b'\\', &bytes[at..]) {
        at += found;
        match unit(at) {
            Some(0xd800..=0xdbff) if matches!(unit(at + 6), Some(0xdc00..=0xdfff)) => at += 12,
            Some(0xd800..=0xdfff) => {
                lone.push(at);
                at += 6;
            }
            Some(_) => at += 6,
            None => at = (at + 2).min(bytes.len()),
        }
    }
    if lone.is_empty() {
        return Cow::Borrowed(text);
    }
    let mut fixed = String::with_capacity(text.len());
    let mut position = 0;
    for at in lone {
        fixed.push_str(&text[position..at]);
        fixed.push_str("\\ufffd");
        position = at + 6;
    }
    fixed.push_str(&text[position..]);
    Cow::Owned(fixed)
}

/// The value without repeated members: the last one stays, at its place.
pub(crate) fn last_wins(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    write_last_wins(text.trim(), REPAIR_DEPTH, &mut out);
    out
}

fn write_last_wins(text: &str, depth: usize, out: &mut String) {
    if depth > 0
        && text.starts_with('{')
        && let Ok(Members(members)) = serde_json::from_str::<Members<'_>>(text)
    {
        out.push('{');
        let mut first = true;
        let last: HashMap<&str, usize> =
            members.iter().enumerate().map(|(at, (key, _))| (&**key, at)).collect();
        for (at, (key, raw)) in members.iter().enumerate() {
            if last.get(&**key) != Some(&at) {
                continue;
            }
            if !std::mem::take(&mut first) {
                out.push(',');
            }
            out.push_str(&serde_json::to_string(key).expect("a string is always written"));
            out.push(':');
            write_last_wins(raw.get(), depth - 1, out);
        }
        out.push('}');
        return;
    } else if depth > 0
        && text.starts_with('[')
        && let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(text)
    {
        out.push('[');
        for (at, item) in items.iter().enumerate() {
            if at > 0 {
                out.push(',');
            }
            write_last_wins(item.get(), depth - 1, out);
        }
        out.push(']');
        return;
    }
    out.push_str(text);
}

/// The same JSON without white space between its parts.
pub(crate) fn compact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
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
        } else if matches!(c, ' ' | '\n' | '\r' | '\t') {
            continue;
        } else if c == '"' {
            in_string = true;
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lone_surrogates_become_replacement_characters() {
        for (given, expected) in [
            (r#""a""#, r#""a""#),
            (r#""\ud83d\ude00""#, r#""\ud83d\ude00""#),
            (r#""\ud83d""#, r#""\ufffd""#),
            (r#""\uDE00x\uD83D""#, r#""\ufffdx\ufffd""#),
            (r#""\\ud83d""#, r#""\\ud83d""#),
            (r#""\ud83d\ud83d\ude00""#, r#""\ufffd\ud83d\ude00""#),
            (r#""\u00e9\ud8""#, r#""\u00e9\ud8""#),
        ] {
            assert_eq!(without_lone_surrogates(given), expected);
        }
    }

    #[test]
    fn the_last_of_repeated_members_stays() {
        assert_eq!(last_wins(r#"{"a":1,"b":[{"c":1,"c":2}],"a":3}"#), r#"{"b":[{"c":2}],"a":3}"#);
        let deep = format!("{}1{}", "[".repeat(5000), "]".repeat(5000));
        assert_eq!(last_wins(&deep), deep);
    }

    #[test]
    fn white_space_goes_and_text_stays() {
        assert_eq!(compact("{ \"a b\" : [ 1.0 , \"\\\" x\" ] }\n"), "{\"a b\":[1.0,\"\\\" x\"]}");
    }

    #[test]
    fn two_ways_to_write_a_name_are_one_name() {
        for (given, expected) in [
            ("in_this_way", Some("inThisWay")),
            ("max_2", Some("max2")),
            ("inThisWay", None),
            ("_private", None),
            ("last_", None),
            ("", None),
        ] {
            assert_eq!(camel(given).as_deref(), expected);
        }
        let fields = Fields::strict_camel(r#"{"in_this_way":{"a_b":1}}"#, "").expect("an object");
        let inner = fields.object("inThisWay").expect("an object").expect("there");
        assert_eq!(
            (inner.count("aB").expect("a number"), inner.path_of("aB")),
            (Some(1), "inThisWay.aB".into())
        );
        assert!(Fields::strict_camel(r#"{"a_b":1,"aB":2}"#, "").is_err());
    }

    #[test]
    fn objects_of_very_many_members_are_read_in_one_pass() {
        let many: Vec<String> = (0..200_000).map(|n| format!("\"m{n}\":{n}")).collect();
        let text = format!("{{{}}}", many.join(","));
        let fields = Fields::strict(&text, "").expect("an object");
        assert_eq!(fields.count("m199999").expect("a number"), Some(199_999));
        assert_eq!(last_wins(&text), text);
        let repeated = format!("{{{},\"m7\":1}}", many.join(","));
        let error = Fields::strict(&repeated, "").expect_err("repeated");
        assert_eq!(error.param.as_deref(), Some("m7"));
        assert!(last_wins(&repeated).ends_with(",\"m7\":1}"));
    }

    #[test]
    fn errors_name_the_member() {
        let fields = Fields::strict(r#"{"a":"x","b":1}"#, "messages[2]").expect("an object");
        assert_eq!(fields.bool("a").expect_err("a string").message, "`messages[2].a` must be a boolean");
        assert_eq!(fields.need_str("c").expect_err("absent").code, "missing_required_parameter");
        let repeated = Fields::strict(r#"{"a":1,"a":2}"#, "").expect_err("repeated");
        assert_eq!((repeated.code, repeated.param.as_deref()), ("invalid_json", Some("a")));
    }
}
