//! Looking at a request the way a strict provider does: every complaint names the field.

use serde_json::{Map, Value};

use crate::{Vendor, refusal::Refusal};

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct At<'a> {
    pub(crate) value: &'a Value,
    pub(crate) path: String,
    vendor: Vendor,
}

impl<'a> At<'a> {
    /// The request itself.
    pub(crate) fn root(value: &'a Value, vendor: Vendor) -> Self {
        Self { value, path: String::new(), vendor }
    }

    /// The members of an object.
    pub(crate) fn object(&self) -> Result<&'a Map<String, Value>, Refusal> {
        self.value.as_object().ok_or_else(|| self.mistyped("an object"))
    }

    /// An object with no other members than these.
    pub(crate) fn known(&self, keys: &[&[&str]]) -> Result<(), Refusal> {
        let unknown = self.object()?.keys().find(|key| !keys.iter().any(|list| list.contains(&key.as_str())));
        match unknown {
            None => Ok(()),
            Some(key) => {
                let path = self.join(key);
                Err(match self.vendor {
                    Vendor::OpenAi => {
                        Refusal::field(&path, "unknown_parameter", format!("there is no parameter '{path}'"))
                    }
                    Vendor::Anthropic => {
                        Refusal::field(&path, "invalid_request", "extra fields are not permitted")
                    }
                })
            }
        }
    }

    /// A member that is neither absent nor null.
    pub(crate) fn get(&self, key: &str) -> Option<At<'a>> {
        let value = self.value.get(key).filter(|value| !value.is_null())?;
        Some(At { value, path: self.join(key), vendor: self.vendor })
    }

    /// A member that must be there.
    pub(crate) fn need(&self, key: &str) -> Result<At<'a>, Refusal> {
        self.get(key).ok_or_else(|| {
            let path = self.join(key);
            Refusal::field(&path, "missing_required_parameter", format!("'{path}' is required"))
        })
    }

    /// A string.
    pub(crate) fn str(&self) -> Result<&'a str, Refusal> {
        self.value.as_str().ok_or_else(|| self.mistyped("a string"))
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
        self.value.as_bool().ok_or_else(|| self.mistyped("a boolean"))
    }

    /// A whole number of at least `min`.
    pub(crate) fn integer(&self, min: u64) -> Result<u64, Refusal> {
        match self.value.as_u64() {
            Some(number) if number >= min => Ok(number),
            _ if self.value.is_number() => {
                Err(self.wrong(&format!("must be a whole number of at least {min}")))
            }
            _ => Err(self.mistyped("a whole number")),
        }
    }

    /// A number between two others.
    pub(crate) fn number(&self, min: f64, max: f64) -> Result<f64, Refusal> {
        match self.value.as_f64() {
            Some(number) if (min..=max).contains(&number) => Ok(number),
            Some(_) => Err(self.wrong(&format!("must be from {min} to {max}"))),
            None => Err(self.mistyped("a number")),
        }
    }

    /// The elements of an array.
    pub(crate) fn array(&self) -> Result<Vec<At<'a>>, Refusal> {
        let elements = self.value.as_array().ok_or_else(|| self.mistyped("an array"))?;
        Ok(elements
            .iter()
            .enumerate()
            .map(|(index, value)| {
                let path = match self.vendor {
                    Vendor::OpenAi => format!("{}[{index}]", self.path),
                    Vendor::Anthropic => format!("{}.{index}", self.path),
                };
                At { value, path, vendor: self.vendor }
            })
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
        let message = match self.vendor {
            Vendor::OpenAi => format!("'{}': {message}", self.path),
            Vendor::Anthropic => message.to_owned(),
        };
        Refusal::field(&self.path, "invalid_value", message)
    }

    fn mistyped(&self, expected: &str) -> Refusal {
        let found = match self.value {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Array(_) => "an array",
            Value::Object(_) => "an object",
        };
        let place = if self.path.is_empty() { "the body" } else { &self.path };
        Refusal::field(&self.path, "invalid_type", format!("{place} must be {expected}, not {found}"))
    }

    fn join(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}
