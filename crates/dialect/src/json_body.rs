//! A client's JSON body whose members are passed on one by one: what nobody here knows stays as it is.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use omniroute_wire::json_out::Object;
use serde_json::value::RawValue;

use crate::DecodeError;
use crate::json_in::{self, Fields};

/// The members in order.
#[derive(Debug, Clone)]
pub(crate) struct JsonBody(Vec<(String, Box<RawValue>)>);

impl JsonBody {
    /// Reads a body whose members must not repeat.
    pub(crate) fn read(body: &[u8]) -> Result<Self, DecodeError> {
        let text = json_in::text(body)?;
        let fields = Fields::strict(&text, "")?;
        Ok(Self(fields.unlisted(&[]).map(|(name, raw)| (name.to_owned(), raw.to_owned())).collect()))
    }

    /// A body of these members, which came in another form.
    pub(crate) fn of(members: Vec<(String, Box<RawValue>)>) -> Self {
        Self(members)
    }

    /// All members.
    pub(crate) fn members(&self) -> impl Iterator<Item = (&str, &RawValue)> {
        self.0.iter().map(|(name, raw)| (name.as_str(), &**raw))
    }

    /// The value of a member.
    pub(crate) fn get(&self, name: &str) -> Option<&RawValue> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, raw)| &**raw)
    }

    /// A string.
    pub(crate) fn str(&self, name: &str) -> Result<Option<String>, DecodeError> {
        let wrong = || json_in::wrong_type(name, "a string");
        self.get(name).map(|raw| json_in::str_of(raw).map(Cow::into_owned).ok_or_else(wrong)).transpose()
    }

    /// A string that says something.
    pub(crate) fn need_str(&self, name: &str) -> Result<String, DecodeError> {
        let text = self.str(name)?.ok_or_else(|| json_in::missing(name))?;
        if text.trim().is_empty() {
            return Err(json_in::wrong_value(name, "a text that is not blank"));
        }
        Ok(text)
    }

    /// A whole number within limits.
    pub(crate) fn count(
        &self,
        name: &str,
        limits: std::ops::RangeInclusive<u64>,
    ) -> Result<Option<u64>, DecodeError> {
        let Some(raw) = self.get(name) else { return Ok(None) };
        let expected = format!("a whole number from {} to {}", limits.start(), limits.end());
        let count = json_in::count_of(raw).ok_or_else(|| json_in::wrong_type(name, &expected))?;
        if limits.contains(&count) { Ok(Some(count)) } else { Err(json_in::wrong_value(name, &expected)) }
    }

    /// A boolean.
    pub(crate) fn bool(&self, name: &str) -> Result<Option<bool>, DecodeError> {
        match self.get(name).map(RawValue::get) {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(_) => Err(json_in::wrong_type(name, "a boolean")),
        }
    }

    /// The members as fields of a form, some of them changed: strings are their text, all else is its JSON.
    pub(crate) fn fields(
        &self,
        change: impl Fn(&str, &RawValue) -> Change,
        added: &[(&str, &str)],
    ) -> Vec<(String, String)> {
        let text =
            |raw: &RawValue| json_in::str_of(raw).map_or_else(|| raw.get().to_owned(), Cow::into_owned);
        let kept = self.0.iter().filter_map(|(name, raw)| {
            let value = match change(name, raw) {
                Change::Keep => text(raw),
                Change::Leave => return None,
                Change::Str(value) | Change::Raw(value) => value,
            };
            Some((name.clone(), value))
        });
        let added = added.iter().map(|(name, json)| ((*name).to_owned(), (*json).to_owned()));
        kept.chain(added).collect()
    }

    /// The body with some members changed: each is written as `change` says.
    pub(crate) fn write(&self, change: impl Fn(&str, &RawValue) -> Change, added: &[(&str, &str)]) -> Bytes {
        let size: usize = self.0.iter().map(|(name, raw)| name.len() + raw.get().len() + 4).sum();
        let mut out = BytesMut::with_capacity(size + 64);
        let mut object = Object::begin(&mut out);
        for (name, raw) in &self.0 {
            match change(name, raw) {
                Change::Keep => object.raw(name, raw.get()),
                Change::Leave => continue,
                Change::Str(text) => object.str(name, &text),
                Change::Raw(json) => object.raw(name, &json),
            };
        }
        for (name, json) in added {
            object.raw(name, json);
        }
        object.end();
        out.freeze()
    }
}

/// What becomes of a member.
pub(crate) enum Change {
    /// Nothing.
    Keep,
    /// It is left out.
    Leave,
    /// This text stands there.
    Str(String),
    /// This JSON stands there.
    Raw(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_changed_stays_as_it_is() {
        let body =
            JsonBody::read(b"{\"model\":\"a/b\",\"n\":1.0,\"x\":{\"y\":1e-9},\"gone\":1,\"null\":null}")
                .unwrap();
        let written = body.write(
            |name, _| match name {
                "model" => Change::Str("b".into()),
                "gone" => Change::Leave,
                _ => Change::Keep,
            },
            &[("width", "5")],
        );
        assert_eq!(&written[..], br#"{"model":"b","n":1.0,"x":{"y":1e-9},"width":5}"#);
        assert_eq!(body.count("n", 1..=10).unwrap(), Some(1));
        let fields = body.fields(|name, _| if name == "gone" { Change::Leave } else { Change::Keep }, &[]);
        let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(fields, [("model", "a/b"), ("n", "1.0"), ("x", "{\"y\":1e-9}")]);
    }

    #[test]
    fn wrong_bodies_are_refused() {
        for (body, code) in [
            (&b"[]"[..], "invalid_type"),
            (b"{", "invalid_json"),
            (br#"{"model":1,"model":2}"#, "invalid_json"),
            (b"\xff", "invalid_json"),
        ] {
            assert_eq!(JsonBody::read(body).unwrap_err().code, code);
        }
        let body = JsonBody::read(br#"{"n":0,"t":" ","b":1}"#).unwrap();
        assert_eq!(body.count("n", 1..=4).unwrap_err().message, "`n` must be a whole number from 1 to 4");
        assert_eq!(body.need_str("t").unwrap_err().code, "invalid_value");
        assert_eq!(body.need_str("u").unwrap_err().code, "missing_required_parameter");
        assert_eq!(body.bool("b").unwrap_err().code, "invalid_type");
    }
}
