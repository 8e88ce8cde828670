//! Looking at a request the way a strict provider does: every complaint names the field, in the vendor's words.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use serde_json::{Map, Value};

use crate::{frame::Event, refusal::Refusal};

/// How a vendor complains.
pub(crate) trait Wording: Sync {
    /// The path of an element of an array.
    fn element(&self, path: &str, index: usize) -> String {
        format!("{path}[{index}]")
    }

    /// The path of a member of an object.
    fn member(&self, path: &str, key: &str) -> String {
        if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
    }

    /// Another spelling under which a member may stand.
    fn alias(&self, _key: &str) -> Option<String> {
        None
    }

    /// The object at `path` has a member that nobody knows.
    fn unknown(&self, path: &str, key: &str) -> Refusal;

    /// A member is missing.
    fn missing(&self, path: &str) -> Refusal {
        Refusal::field(path, "missing_required_parameter", format!("'{path}' is required"))
    }

    /// A value is not of the right type.
    fn mistyped(&self, path: &str, expected: Type, found: &Value) -> Refusal {
        let place = if path.is_empty() { "the body" } else { path };
        let message = format!("{place} must be {}, not {}", expected.words(), Type::of(found));
        Refusal::field(path, "invalid_type", message)
    }

    /// A value is of the right type but not acceptable.
    fn wrong(&self, path: &str, message: &str) -> Refusal;

    /// There is no key.
    fn no_key(&self) -> Refusal;

    /// The key is not one.
    fn bad_key(&self) -> Refusal {
        Refusal::status(401, "this API key is not correct")
    }

    /// The key has asked too often.
    fn limited(&self) -> Refusal {
        let refusal = Refusal::status(429, "this API key has reached its rate limit, try again in 2s");
        Refusal { retry: Some(Duration::from_secs(2)), ..refusal }
    }

    /// The account has no money.
    fn broke(&self) -> Refusal;

    /// There is no such model.
    fn no_model(&self, name: &str, reason: &str) -> Refusal {
        let refusal = Refusal::status(404, format!("there is no model '{name}': {reason}"));
        Refusal { param: Some("model".to_owned()), ..refusal }
    }

    /// The prompt has more tokens than the model takes.
    fn too_long(&self, found: u64, limit: u64) -> Refusal;

    /// The error document.
    fn document(&self, refusal: &Refusal, request_id: &str) -> Bytes;

    /// The error as an event of a stream.
    fn event(&self, refusal: &Refusal, request_id: &str) -> Event {
        Event { name: None, data: self.document(refusal, request_id), content: false }
    }

    /// Headers that say when to try again.
    fn retry(&self, after: Duration, headers: &mut HeaderMap) {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(millis(after).div_ceil(1000)));
    }
}

/// Whole milliseconds.
pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A type of JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    Object,
    Array,
    String,
    Bool,
    Integer,
    Number,
}

impl Type {
    /// The type as a sentence has it.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Object => "an object",
            Self::Array => "an array",
            Self::String => "a string",
            Self::Bool => "a boolean",
            Self::Integer => "a whole number",
            Self::Number => "a number",
        }
    }

    /// What a value is instead.
    pub(crate) fn of(value: &Value) -> &'static str {
        match value {
            Value::Null => "null",
            Value::Bool(_) => Self::Bool.words(),
            Value::Number(_) => Self::Number.words(),
            Value::String(_) => Self::String.words(),
            Value::Array(_) => Self::Array.words(),
            Value::Object(_) => Self::Object.words(),
        }
    }
}

/// A value and where it stands.
#[derive(Clone)]
pub(crate) struct At<'a> {
    pub(crate) value: &'a Value,
    pub(crate) path: String,
    wording: &'static dyn Wording,
}

impl<'a> At<'a> {
    /// The request itself.
    pub(crate) fn root(value: &'a Value, wording: &'static dyn Wording) -> Self {
        Self { value, path: String::new(), wording }
    }

    /// The members of an object.
    pub(crate) fn object(&self) -> Result<&'a Map<String, Value>, Refusal> {
        self.value.as_object().ok_or_else(|| self.mistyped(Type::Object))
    }

    /// An object with no other members than these.
    pub(crate) fn known(&self, keys: &[&[&str]]) -> Result<(), Refusal> {
        let members = self.object()?;
        for name in members.keys() {
            if keys.iter().any(|list| list.contains(&name.as_str())) {
                continue;
            }
            let mut known = keys.iter().flat_map(|list| list.iter());
            match known.find(|key| self.wording.alias(key).is_some_and(|alias| alias == *name)) {
                None => return Err(self.wording.unknown(&self.path, name)),
                Some(key) if members.contains_key(*key) => {
                    return Err(self.wrong(&format!("'{key}' and '{name}' are the same, give it once")));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// A member that is neither absent nor null.
    pub(crate) fn get(&self, key: &str) -> Option<At<'a>> {
        let there = |name: &str| self.value.get(name).filter(|value| !value.is_null());
        let value = there(key).or_else(|| there(&self.wording.alias(key)?))?;
        Some(self.at(value, self.wording.member(&self.path, key)))
    }

    /// A member of a map, whose names mean nothing.
    pub(crate) fn verbatim(&self, name: &str) -> At<'a> {
        let value = self.value.get(name).unwrap_or(&Value::Null);
        self.at(value, format!("{}.{name}", self.path))
    }

    /// A member that must be there.
    pub(crate) fn need(&self, key: &str) -> Result<At<'a>, Refusal> {
        self.get(key).ok_or_else(|| self.wording.missing(&self.wording.member(&self.path, key)))
    }

    /// A string.
    pub(crate) fn str(&self) -> Result<&'a str, Refusal> {
        self.value.as_str().ok_or_else(|| self.mistyped(Type::String))
    }

    /// A string that is not empty.
    pub(crate) fn text(&self) -> Result<&'a str, Refusal> {
        match self.str()? {
            "" => Err(self.wrong("must not be empty")),
            text => Ok(text),
        }
    }

    /// One of these strings.
    pub(crate) fn one_of(&self, allowed: &[&str]) -> Result<&'a str, Refusal> {
        let text = self.str()?;
        if allowed.contains(&text) {
            Ok(text)
        } else {
            Err(self.wrong(&format!("'{text}' is not one of {}", allowed.join(", "))))
        }
    }

    /// A boolean.
    pub(crate) fn bool(&self) -> Result<bool, Refusal> {
        self.value.as_bool().ok_or_else(|| self.mistyped(Type::Bool))
    }

    /// A whole number of at least `min`.
    pub(crate) fn integer(&self, min: u64) -> Result<u64, Refusal> {
        match self.value.as_u64() {
            Some(number) if number >= min => Ok(number),
            _ if self.value.is_number() => {
                Err(self.wrong(&format!("must be a whole number of at least {min}")))
            }
            _ => Err(self.mistyped(Type::Integer)),
        }
    }

    /// A number between two others.
    pub(crate) fn number(&self, min: f64, max: f64) -> Result<f64, Refusal> {
        match self.value.as_f64() {
            Some(number) if (min..=max).contains(&number) => Ok(number),
            Some(_) => Err(self.wrong(&format!("must be from {min} to {max}"))),
            None => Err(self.mistyped(Type::Number)),
        }
    }

    /// The elements of an array.
    pub(crate) fn array(&self) -> Result<Vec<At<'a>>, Refusal> {
        let elements = self.value.as_array().ok_or_else(|| self.mistyped(Type::Array))?;
        Ok(elements
            .iter()
            .enumerate()
            .map(|(index, value)| self.at(value, self.wording.element(&self.path, index)))
            .collect())
    }

    /// An array with at least one element.
    pub(crate) fn list(&self) -> Result<Vec<At<'a>>, Refusal> {
        let elements = self.array()?;
        if elements.is_empty() { Err(self.wrong("must have at least one element")) } else { Ok(elements) }
    }

    /// A name as tools have it.
    pub(crate) fn name(&self, longest: usize) -> Result<&'a str, Refusal> {
        let name = self.text()?;
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if name.len() <= longest && name.bytes().all(fits) {
            Ok(name)
        } else {
            Err(self.wrong(&format!("must have 1 to {longest} letters, digits, '_' or '-'")))
        }
    }

    /// The value is of the right type but not acceptable.
    pub(crate) fn wrong(&self, message: &str) -> Refusal {
        self.wording.wrong(&self.path, message)
    }

    /// The value is not of that type.
    pub(crate) fn mistyped(&self, expected: Type) -> Refusal {
        self.wording.mistyped(&self.path, expected, self.value)
    }

    fn at(&self, value: &'a Value, path: String) -> At<'a> {
        At { value, path, wording: self.wording }
    }
}
