//! Prints JSON for people to edit: order and number text as they were, short values on one line.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

const WIDTH: usize = 110;

/// The members of an object in their order.
pub(crate) struct Members(pub(crate) Vec<(String, Box<RawValue>)>);

impl Members {
    /// The text of a member's value.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, raw)| raw.get())
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Members;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Visit)
    }
}

/// Appends `raw`, indented.
pub(crate) fn print(raw: &str, indent: usize, out: &mut String) -> serde_json::Result<()> {
    let line = one_line(raw);
    let pad = " ".repeat(indent + 2);
    if indent > 0 && out.len() - out.rfind('\n').map_or(0, |at| at + 1) + line.len() < WIDTH {
        out.push_str(&line);
    } else if line.starts_with('{') && line != "{}" {
        let members: Members = serde_json::from_str(raw)?;
        out.push('{');
        for (at, (key, value)) in members.0.iter().enumerate() {
            out.push_str(if at == 0 { "\n" } else { ",\n" });
            out.push_str(&pad);
            out.push_str(&serde_json::to_string(key)?);
            out.push_str(": ");
            print(value.get(), indent + 2, out)?;
        }
        out.push('\n');
        out.push_str(&pad[2..]);
        out.push('}');
    } else if line.starts_with('[') && line != "[]" {
        let items: Vec<Box<RawValue>> = serde_json::from_str(raw)?;
        out.push('[');
        for (at, value) in items.iter().enumerate() {
            out.push_str(if at == 0 { "\n" } else { ",\n" });
            out.push_str(&pad);
            print(value.get(), indent + 2, out)?;
        }
        out.push('\n');
        out.push_str(&pad[2..]);
        out.push(']');
    } else {
        out.push_str(&line);
    }
    Ok(())
}

fn one_line(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len() + 16);
    let (mut in_string, mut escaped) = (false, false);
    for c in raw.chars() {
        if in_string {
            out.push(c);
            in_string = escaped || c != '"';
            escaped = !escaped && c == '\\';
        } else if c == '"' {
            in_string = true;
            out.push(c);
        } else if c == ',' || c == ':' {
            out.push(c);
            out.push(' ');
        } else if !c.is_whitespace() {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_numbers_survive() {
        let raw = r#"{"b":1.50,"a":{"x":"1, 2: \"3\"","y":[]},"c":[]}"#;
        let mut out = String::new();
        print(raw, 0, &mut out).unwrap();
        assert_eq!(
            out,
            "{\n  \"b\": 1.50,\n  \"a\": {\"x\": \"1, 2: \\\"3\\\"\", \"y\": []},\n  \"c\": []\n}"
        );
    }
}
