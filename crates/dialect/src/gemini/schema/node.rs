//! A schema of the vendor's own kind.

use std::collections::HashSet;

use super::{
    Change,
    text::{Object, quoted},
};

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    String,
    Number,
    Integer,
    Boolean,
    Array,
    Object,
    Null,
}

impl Kind {
    pub(super) fn of_word(word: &str) -> Option<Self> {
        Some(match word {
            "string" => Self::String,
            "number" => Self::Number,
            "integer" => Self::Integer,
            "boolean" => Self::Boolean,
            "array" => Self::Array,
            "object" => Self::Object,
            "null" => Self::Null,
            _ => return None,
        })
    }

    const fn word(self) -> &'static str {
        match self {
            Self::String => "STRING",
            Self::Number => "NUMBER",
            Self::Integer => "INTEGER",
            Self::Boolean => "BOOLEAN",
            Self::Array => "ARRAY",
            Self::Object => "OBJECT",
            Self::Null => "NULL",
        }
    }
}

/// A schema.
#[derive(Debug, Clone, Default)]
pub(super) struct Node {
    pub(super) kind: Option<Kind>,
    pub(super) nullable: bool,
    pub(super) title: Option<String>,
    pub(super) description: String,
    pub(super) format: Option<String>,
    pub(super) values: Vec<String>,
    pub(super) properties: Vec<(String, Self)>,
    pub(super) required: Vec<String>,
    pub(super) ordering: Vec<String>,
    pub(super) items: Option<Box<Self>>,
    pub(super) any_of: Vec<Self>,
    /// Names and JSON of bounds.
    pub(super) bounds: Vec<(&'static str, String)>,
}

impl Node {
    /// A schema of this kind that says no more.
    pub(super) fn of(kind: Kind) -> Self {
        Self { kind: Some(kind), ..Self::default() }
    }

    /// Whether it is an object about whose members nothing is said.
    pub(super) fn is_empty_object(&self) -> bool {
        self.kind == Some(Kind::Object) && self.properties.is_empty()
    }

    /// Adds a sentence to the description.
    pub(super) fn describe(&mut self, sentence: &str) {
        if !self.description.is_empty() {
            self.description.push(' ');
        }
        self.description.push_str(sentence);
    }

    /// Takes in what another schema says of the same value.
    pub(super) fn merge(&mut self, other: Self) {
        self.kind = self.kind.or(other.kind);
        self.nullable |= other.nullable;
        self.title = self.title.take().or(other.title);
        if self.description.is_empty() {
            self.description = other.description;
        }
        self.format = self.format.take().or(other.format);
        if self.values.is_empty() {
            self.values = other.values;
        }
        for (name, schema) in other.properties {
            match self.properties.iter_mut().find(|(known, _)| *known == name) {
                Some((_, known)) => known.merge(schema),
                None => self.properties.push((name, schema)),
            }
        }
        // What is named twice is written once.
        self.required.extend(other.required);
        if self.ordering.is_empty() {
            self.ordering = other.ordering;
        }
        self.items = self.items.take().or(other.items);
        if self.any_of.is_empty() {
            self.any_of = other.any_of;
        }
        for (name, bound) in other.bounds {
            if !self.bounds.iter().any(|(known, _)| *known == name) {
                self.bounds.push((name, bound));
            }
        }
    }

    /// One object out of alternatives: all properties, of which those are required that every alternative requires.
    pub(super) fn merge_any(&mut self, branches: Vec<Self>) {
        let mut common: Option<Vec<String>> = None;
        for mut branch in branches {
            let required = std::mem::take(&mut branch.required);
            common = Some(match common {
                None => required,
                Some(before) => {
                    let required: HashSet<String> = required.into_iter().collect();
                    before.into_iter().filter(|name| required.contains(name)).collect()
                }
            });
            self.merge(branch);
        }
        self.required.extend(common.unwrap_or_default());
    }

    /// Makes it the schema of a function's arguments; false when it does not describe an object.
    pub(super) fn as_arguments(&mut self, change: &mut Change) -> bool {
        if !self.any_of.is_empty() {
            *change = Change::Meaning;
            let branches = std::mem::take(&mut self.any_of);
            self.merge_any(branches);
        }
        self.nullable = false;
        *self.kind.get_or_insert(Kind::Object) == Kind::Object
    }

    /// The schema as JSON.
    pub(super) fn to_text(&self) -> String {
        let mut out = String::with_capacity(256);
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) {
        let mut object = Object::begin(out);
        // The vendor wants a type everywhere; text can hold anything.
        let kind = match self.kind {
            None if !self.any_of.is_empty() => None,
            None => Some(Kind::String),
            kind => kind,
        };
        if let Some(kind) = kind {
            object.raw("type", &quoted(kind.word()));
        }
        let texts = [("title", self.title.as_deref()), ("description", Some(self.description.as_str()))];
        for (name, text) in texts {
            if let Some(text) = text.filter(|text| !text.is_empty()) {
                object.raw(name, &quoted(text));
            }
        }
        if self.nullable {
            object.raw("nullable", "true");
        }
        if !self.any_of.is_empty() {
            write_list(object.key("anyOf"), self.any_of.iter(), |out, branch| branch.write(out));
            object.end();
            return;
        }
        if let Some(format) = self.format.as_deref().filter(|format| takes_format(kind, format)) {
            object.raw("format", &quoted(format));
        }
        if !self.values.is_empty() && kind == Some(Kind::String) {
            write_list(object.key("enum"), self.values.iter(), |out, value| out.push_str(&quoted(value)));
        }
        if kind == Some(Kind::Object) && !self.properties.is_empty() {
            let mut properties = Object::begin(object.key("properties"));
            for (name, schema) in &self.properties {
                schema.write(properties.key(name));
            }
            properties.end();
            for (name, names) in [("required", &self.required), ("propertyOrdering", &self.ordering)] {
                let mut left: HashSet<&str> = self.properties.iter().map(|(name, _)| name.as_str()).collect();
                let known: Vec<&String> = names.iter().filter(|name| left.remove(name.as_str())).collect();
                if !known.is_empty() {
                    write_list(object.key(name), known.into_iter(), |out, name| out.push_str(&quoted(name)));
                }
            }
        }
        if kind == Some(Kind::Array) {
            match &self.items {
                Some(items) => items.write(object.key("items")),
                None => object.raw("items", r#"{"type":"STRING"}"#),
            }
        }
        for (name, bound) in self.bounds.iter().filter(|(name, _)| takes_bound(kind, name)) {
            object.raw(name, bound);
        }
        object.end();
    }
}

fn takes_format(kind: Option<Kind>, format: &str) -> bool {
    match kind {
        Some(Kind::String) => matches!(format, "date-time" | "enum"),
        Some(Kind::Integer) => matches!(format, "int32" | "int64"),
        Some(Kind::Number) => matches!(format, "float" | "double"),
        _ => false,
    }
}

fn takes_bound(kind: Option<Kind>, name: &str) -> bool {
    match kind {
        Some(Kind::String) => matches!(name, "minLength" | "maxLength" | "pattern"),
        Some(Kind::Number | Kind::Integer) => matches!(name, "minimum" | "maximum"),
        Some(Kind::Array) => matches!(name, "minItems" | "maxItems"),
        Some(Kind::Object) => matches!(name, "minProperties" | "maxProperties"),
        _ => false,
    }
}

fn write_list<T>(out: &mut String, items: impl Iterator<Item = T>, mut write: impl FnMut(&mut String, T)) {
    out.push('[');
    for (at, item) in items.enumerate() {
        if at > 0 {
            out.push(',');
        }
        write(out, item);
    }
    out.push(']');
}
