//! JSON Schema as a schema of the vendor's own kind: references are followed, what has other words is said in them,
//! what has none is left out or told in the description.

use std::{borrow::Cow, collections::HashSet};

use serde_json::value::RawValue;

use super::{
    Change, MAX_DEPTH,
    node::{Kind, Node},
    references::References,
};
use crate::json_in::{Members, count_of, list_of, str_of};

/// How often one reference is followed within itself.
const MAX_RECURSION: usize = 5;
/// Most schemas that are read, references followed; so many come of no honest request.
const MAX_SCHEMAS: usize = 5_000;

/// Reads a schema.
pub(super) fn reduce(raw: &RawValue) -> (Node, Change) {
    let mut reducer = Reducer {
        references: References::of(raw.get()),
        change: Change::None,
        left: MAX_SCHEMAS,
        following: Vec::new(),
    };
    let node = reducer.node(raw.get(), MAX_DEPTH);
    // It is always said in other words.
    (node, reducer.change.max(Change::Form))
}

struct Reducer<'a> {
    references: References<'a>,
    change: Change,
    /// How many more schemas are read.
    left: usize,
    /// The references that are being followed.
    following: Vec<String>,
}

/// The members of a schema.
struct Found<'a>(Members<'a>);

impl<'a> Found<'a> {
    fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.0.iter().rev().find(|(key, _)| key == name).map(|(_, raw)| *raw)
    }

    fn text(&self, name: &str) -> Option<String> {
        self.get(name).and_then(str_of).map(Cow::into_owned)
    }

    fn number(&self, name: &str) -> Option<&'a str> {
        let text = self.get(name)?.get();
        text.starts_with(|c: char| c == '-' || c.is_ascii_digit()).then_some(text)
    }

    fn names(&self, name: &str) -> Vec<String> {
        let items = self.get(name).and_then(list_of).unwrap_or_default();
        items.into_iter().filter_map(str_of).map(Cow::into_owned).collect()
    }
}

impl<'a> Reducer<'a> {
    fn lossy(&mut self) {
        self.change = Change::Meaning;
    }

    fn node(&mut self, text: &'a str, depth: usize) -> Node {
        if depth == 0 || self.left == 0 {
            self.lossy();
            return Node::of(Kind::Object);
        }
        self.left -= 1;
        let Ok(members) = serde_json::from_str::<Members<'a>>(text) else {
            // `true`: anything.
            return Node::default();
        };
        let found = Found(members);
        let mut node = self.of_kinds(&found, depth - 1);
        if let Some(reference) = found.text("$ref") {
            let target = self.follow(reference, depth - 1);
            node.merge(target);
        }
        for part in found.get("allOf").and_then(list_of).unwrap_or_default() {
            let part = self.node(part.get(), depth - 1);
            node.merge(part);
        }
        for name in ["anyOf", "oneOf"] {
            self.alternatives(found.get(name), &mut node, depth - 1);
        }
        node
    }

    fn follow(&mut self, reference: String, depth: usize) -> Node {
        let depth_here = self.following.iter().filter(|known| **known == reference).count();
        let target = if depth_here < MAX_RECURSION { self.references.resolve(&reference) } else { None };
        let Some(target) = target else {
            self.lossy();
            return Node::of(Kind::Object);
        };
        self.following.push(reference);
        let node = self.node(target, depth);
        self.following.pop();
        node
    }

    fn alternatives(&mut self, raw: Option<&'a RawValue>, node: &mut Node, depth: usize) {
        let branches = raw.and_then(list_of).unwrap_or_default();
        let mut branches: Vec<Node> = branches.into_iter().map(|one| self.node(one.get(), depth)).collect();
        let before = branches.len();
        branches.retain(|branch| branch.kind != Some(Kind::Null));
        node.nullable |= branches.len() < before;
        if branches.len() == 1 {
            node.merge(branches.remove(0));
        } else if branches.is_empty() {
        } else if !node.properties.is_empty() || !node.any_of.is_empty() || branches.iter().any(is_untyped) {
            // Beside alternatives nothing else can be said.
            self.lossy();
            node.merge_any(branches);
        } else if branches.iter().all(is_choice) {
            // Several constants: one list of values.
            node.kind = Some(Kind::String);
            node.values.extend(branches.into_iter().flat_map(|branch| branch.values));
        } else {
            node.kind = None;
            node.any_of = branches;
        }
    }

    /// What is said with words of the schema itself.
    fn of_kinds(&mut self, found: &Found<'a>, depth: usize) -> Node {
        let mut kinds = match found.get("type") {
            None => Vec::new(),
            Some(raw) => match list_of(raw) {
                Some(items) => items.into_iter().filter_map(kind_of).collect(),
                None => kind_of(raw).into_iter().collect(),
            },
        };
        let nullable = kinds.len() > 1 && kinds.contains(&Kind::Null);
        if nullable {
            kinds.retain(|kind| *kind != Kind::Null);
        }
        let mut node = match kinds.as_slice() {
            [] => self.of_kind(found, inferred(found), depth),
            [kind] => self.of_kind(found, Some(*kind), depth),
            several => {
                let any_of = several.iter().map(|kind| self.of_kind(found, Some(*kind), depth)).collect();
                Node { any_of, ..Node::default() }
            }
        };
        node.nullable |= nullable || found.get("nullable").is_some_and(|raw| raw.get() == "true");
        node.title = found.text("title");
        let mut description = found.text("description").unwrap_or_default();
        if !node.description.is_empty() {
            if !description.is_empty() {
                description.push(' ');
            }
            description.push_str(&node.description);
        }
        node.description = description;
        node
    }

    fn of_kind(&mut self, found: &Found<'a>, kind: Option<Kind>, depth: usize) -> Node {
        let mut node = Node { kind, ..Node::default() };
        values(found, &mut node);
        node.format = found.text("format");
        for name in ["minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"] {
            if let Some(count) = found.get(name).and_then(count_of) {
                node.bounds.push((name, count.to_string()));
            }
        }
        if let Some(pattern) = found.get("pattern").filter(|raw| raw.get().starts_with('"')) {
            node.bounds.push(("pattern", pattern.get().to_owned()));
        }
        range(found, &mut node);
        if kind == Some(Kind::Object) {
            let properties =
                found.get("properties").and_then(|raw| serde_json::from_str::<Members<'a>>(raw.get()).ok());
            for (name, raw) in properties.map(|Members(members)| members).unwrap_or_default() {
                let schema = self.node(raw.get(), depth);
                node.properties.push((name.into_owned(), schema));
            }
        }
        // Also without properties of its own: parts of the schema may bring them.
        node.required = found.names("required");
        node.ordering = found.names("propertyOrdering");
        if kind == Some(Kind::Array) {
            node.items = self.items(found, depth).map(Box::new);
        }
        node
    }

    /// The schema of all elements; of a tuple any of its elements'.
    fn items(&mut self, found: &Found<'a>, depth: usize) -> Option<Node> {
        let tuple = found.get("prefixItems").or_else(|| found.get("items")).and_then(list_of);
        let Some(tuple) = tuple else {
            let items = found.get("items").filter(|raw| raw.get().starts_with('{'))?;
            return Some(self.node(items.get(), depth));
        };
        let mut nodes: Vec<Node> = Vec::new();
        let mut known = HashSet::new();
        for item in tuple {
            let node = self.node(item.get(), depth);
            if known.insert(node.to_text()) {
                nodes.push(node);
            }
        }
        match nodes.len() {
            0 | 1 => nodes.pop(),
            _ => {
                self.lossy();
                Some(Node { any_of: nodes, ..Node::default() })
            }
        }
    }
}

fn kind_of(raw: &RawValue) -> Option<Kind> {
    str_of(raw).and_then(|word| Kind::of_word(&word.to_ascii_lowercase()))
}

/// What a schema without a type is about.
fn inferred(found: &Found<'_>) -> Option<Kind> {
    let has = |names: &[&str]| names.iter().any(|name| found.get(name).is_some());
    let first = found.get("const").or_else(|| found.get("enum").and_then(list_of)?.first().copied());
    if has(&["properties", "additionalProperties", "patternProperties"]) {
        Some(Kind::Object)
    } else if has(&["items", "prefixItems"]) {
        Some(Kind::Array)
    } else {
        Some(match first?.get().as_bytes().first()? {
            b'"' => Kind::String,
            b't' | b'f' => Kind::Boolean,
            b'-' | b'0'..=b'9' => Kind::Number,
            b'n' if found.get("const").is_some() => Kind::Null,
            _ => return None,
        })
    }
}

/// Values are strings; others are told in the description.
fn values(found: &Found<'_>, node: &mut Node) {
    let listed = match found.get("const") {
        Some(constant) => vec![constant],
        None => found.get("enum").and_then(list_of).unwrap_or_default(),
    };
    let count = listed.len();
    let listed: Vec<&RawValue> = listed.into_iter().filter(|raw| raw.get() != "null").collect();
    node.nullable |= listed.len() < count && node.kind != Some(Kind::Null);
    if listed.is_empty() {
        return;
    }
    if node.kind == Some(Kind::String) {
        // The vendor refuses an empty value.
        let texts =
            listed.iter().map(|raw| str_of(raw).map_or_else(|| raw.get().to_owned(), Cow::into_owned));
        node.values = texts.filter(|text| !text.is_empty()).collect();
    } else {
        let texts: Vec<&str> = listed.iter().map(|raw| raw.get()).collect();
        node.describe(&format!("Allowed values: {}.", texts.join(", ")));
    }
}

/// Bounds of numbers. Exclusive ones become inclusive for whole numbers and words for others.
fn range(found: &Found<'_>, node: &mut Node) {
    for (name, exclusive, step, words) in [
        ("minimum", "exclusiveMinimum", 1_i64, "Greater than"),
        ("maximum", "exclusiveMaximum", -1, "Less than"),
    ] {
        // An older form says by a boolean that the bound itself is excluded.
        let older = found.get(exclusive).is_some_and(|raw| raw.get() == "true");
        let inclusive = found.number(name);
        let excluded = if older { inclusive } else { found.number(exclusive) };
        if let (Some(bound), false) = (inclusive, older) {
            node.bounds.push((name, bound.to_owned()));
            continue;
        }
        let Some(excluded) = excluded else { continue };
        let whole = excluded.parse::<i64>().ok().and_then(|bound| bound.checked_add(step));
        match whole.filter(|_| node.kind == Some(Kind::Integer)) {
            Some(bound) => node.bounds.push((name, bound.to_string())),
            None => node.describe(&format!("{words} {excluded}.")),
        }
    }
}

/// Whether an alternative says nothing about the kind of the value.
fn is_untyped(node: &Node) -> bool {
    node.kind.is_none() && node.any_of.is_empty()
}

/// Whether an alternative is a list of values and no more.
fn is_choice(node: &Node) -> bool {
    node.kind == Some(Kind::String) && !node.values.is_empty() && node.description.is_empty()
}
