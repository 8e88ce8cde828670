//! JSON Schema as far as the vendor heeds it.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet, hash_map::Entry},
};

use serde_json::value::RawValue;

use super::{
    Change, MAX_DEPTH, Written,
    references::References,
    text::{Object, quoted},
};
use crate::json_in::{Members, list_of};

/// What is heeded and is no schema itself.
const HEEDED: &[&str] = &[
    "$id",
    "$anchor",
    "format",
    "title",
    "description",
    "enum",
    "minItems",
    "maxItems",
    "minimum",
    "maximum",
    "required",
    "propertyOrdering",
];
/// Most schemas that are written; so many come of no honest request.
const MAX_SCHEMAS: usize = 20_000;
/// Most lists of parts of one schema that are looked into.
const MAX_LISTS: usize = 1_000;

/// Keeps what is heeded, and says in heeded words what can be said in them.
pub(super) fn filter(raw: &RawValue) -> Written<'_> {
    let mut filter =
        Filter { references: References::of(raw.get()), change: Change::None, left: MAX_SCHEMAS };
    let mut out = String::with_capacity(raw.get().len());
    filter.write(raw.get(), MAX_DEPTH, &mut out);
    let text = if filter.change == Change::None { Cow::Borrowed(raw.get()) } else { Cow::Owned(out) };
    Written { text, change: filter.change }
}

struct Filter<'a> {
    references: References<'a>,
    change: Change,
    /// How many more schemas are written.
    left: usize,
}

/// The members of a schema, with those that parts of it added.
type Found<'t> = Vec<(Cow<'t, str>, Cow<'t, str>)>;

impl Filter<'_> {
    fn changed(&mut self, change: Change) {
        self.change = self.change.max(change);
    }

    fn write(&mut self, text: &str, depth: usize, out: &mut String) {
        let members = if depth > 0 && self.left > 0 { serde_json::from_str(text).ok() } else { None };
        let Some(Members(members)) = members else {
            // `true` allows anything, and so does a schema that says nothing.
            match text {
                "{}" => {}
                "true" => self.changed(Change::Form),
                _ => self.changed(Change::Meaning),
            }
            out.push_str("{}");
            return;
        };
        self.left -= 1;
        let mut found: Found<'_> =
            members.iter().map(|(key, raw)| (key.clone(), Cow::Borrowed(raw.get()))).collect();
        self.flatten(&mut found, depth);
        self.write_members(&found, depth - 1, out);
    }

    fn write_members(&mut self, found: &Found<'_>, depth: usize, out: &mut String) {
        let get = |name: &str| found.iter().find(|(key, _)| key == name).map(|(_, text)| &**text);
        // A schema may have any number of members, one of them any number of times.
        let [has_defs, has_enum, has_minimum, has_maximum] =
            ["$defs", "enum", "minimum", "maximum"].map(|name| get(name).is_some());
        let nullable = get("nullable") == Some("true");
        let whole = get("type").is_some_and(|kind| kind.contains("\"integer\""));
        let mut object = Object::begin(out);
        for (key, text) in found {
            match &**key {
                "type" if nullable && text.starts_with('"') => {
                    object.raw("type", &format!("[{text},\"null\"]"));
                }
                "type" => object.raw("type", text),
                "$ref" => object.raw("$ref", &self.reference(text)),
                "definitions" if !has_defs => {
                    self.changed(Change::Form);
                    self.write_map(text, depth, object.key("$defs"));
                }
                "properties" | "$defs" => self.write_map(text, depth, object.key(key)),
                "items" if text.starts_with('[') => {
                    self.changed(Change::Form);
                    self.write_list(text, depth, object.key("prefixItems"));
                }
                "additionalProperties" if matches!(&**text, "true" | "false") => object.raw(key, text),
                "items" | "additionalProperties" => self.write(text, depth, object.key(key)),
                "anyOf" | "oneOf" | "prefixItems" => self.write_list(text, depth, object.key(key)),
                "const" if !has_enum => {
                    self.changed(Change::Form);
                    object.raw("enum", &format!("[{text}]"));
                }
                "exclusiveMinimum" | "exclusiveMaximum" if whole => {
                    self.changed(Change::Form);
                    let (name, step, has) = match &**key {
                        "exclusiveMinimum" => ("minimum", 1, has_minimum),
                        _ => ("maximum", -1, has_maximum),
                    };
                    if let Some(bound) = text.parse::<i64>().ok().and_then(|bound| bound.checked_add(step))
                        && !has
                    {
                        object.raw(name, &bound.to_string());
                    }
                }
                name if HEEDED.contains(&name) => object.raw(name, text),
                _ => self.changed(Change::Form),
            }
        }
        object.end();
    }

    /// The older place of definitions is renamed, and with it what refers to them.
    fn reference<'t>(&mut self, text: &'t str) -> Cow<'t, str> {
        let target = serde_json::from_str::<Cow<'_, str>>(text).unwrap_or_default();
        match target.strip_prefix("#/definitions/") {
            Some(name) => {
                self.changed(Change::Form);
                Cow::Owned(quoted(&format!("#/$defs/{name}")))
            }
            None => Cow::Borrowed(text),
        }
    }

    fn write_map(&mut self, text: &str, depth: usize, out: &mut String) {
        let Ok(Members(members)) = serde_json::from_str::<Members<'_>>(text) else {
            self.changed(Change::Meaning);
            out.push_str("{}");
            return;
        };
        let mut object = Object::begin(out);
        for (key, raw) in &members {
            self.write(raw.get(), depth, object.key(key));
        }
        object.end();
    }

    fn write_list(&mut self, text: &str, depth: usize, out: &mut String) {
        let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(text) else {
            self.changed(Change::Meaning);
            out.push_str("[]");
            return;
        };
        out.push('[');
        for (at, item) in items.into_iter().enumerate() {
            if at > 0 {
                out.push(',');
            }
            self.write(item.get(), depth, out);
        }
        out.push(']');
    }

    /// Takes the parts of `allOf` into the schema itself.
    fn flatten(&mut self, found: &mut Found<'_>, mut rounds: usize) {
        for list in 0.. {
            let Some(at) = found.iter().position(|(key, _)| key == "allOf") else { return };
            if list == MAX_LISTS {
                self.changed(Change::Meaning);
                return;
            }
            self.changed(Change::Form);
            let (_, parts) = found.remove(at);
            let parts: Vec<&RawValue> = serde_json::from_str(&parts).unwrap_or_default();
            let alone =
                parts.len() == 1 && !found.iter().any(|(key, _)| key == "properties" || key == "$ref");
            for part in parts {
                if rounds == 0 {
                    self.changed(Change::Meaning);
                    return;
                }
                rounds -= 1;
                self.take_in(part.get(), alone, found);
            }
        }
    }

    fn take_in(&mut self, part: &str, alone: bool, found: &mut Found<'_>) {
        let Ok(Members(members)) = serde_json::from_str::<Members<'_>>(part) else { return };
        let mut places: HashMap<String, usize> = HashMap::with_capacity(found.len());
        for (at, (key, _)) in found.iter().enumerate() {
            places.entry(key.to_string()).or_insert(at);
        }
        for (key, raw) in &members {
            let next = found.len();
            let place = match places.entry(key.to_string()) {
                Entry::Occupied(place) => Some(*place.get()),
                Entry::Vacant(_) if key == "$ref" && !alone => None,
                Entry::Vacant(place) => {
                    place.insert(next);
                    None
                }
            };
            let slot = place.and_then(|at| found.get_mut(at)).map(|(_, text)| text);
            match (&**key, slot) {
                ("$ref", None) if alone => found.push((key.to_string().into(), raw.get().to_owned().into())),
                ("$ref", _) => {
                    let target = serde_json::from_str::<Cow<'_, str>>(raw.get()).unwrap_or_default();
                    match self.references.resolve(&target) {
                        // One that refers to itself goes on in the next round, until there are no more.
                        Some(target) => {
                            found.push(("allOf".into(), format!("[{target}]").into()));
                        }
                        None => self.changed(Change::Meaning),
                    }
                }
                ("properties", Some(text)) => *text = joined(text, raw.get()).into(),
                ("required", Some(text)) => *text = united(text, raw).into(),
                (_, None) => found.push((key.to_string().into(), raw.get().to_owned().into())),
                (_, Some(_)) => {}
            }
        }
    }
}

/// Two maps as one; the first says what a name is.
fn joined(one: &str, other: &str) -> String {
    let (Ok(Members(first)), Ok(Members(second))) = (serde_json::from_str(one), serde_json::from_str(other))
    else {
        return one.to_owned();
    };
    let mut out = String::with_capacity(one.len() + other.len());
    let mut object = Object::begin(&mut out);
    let known: HashSet<&str> = first.iter().map(|(key, _)| &**key).collect();
    for (at, (key, raw)) in first.iter().chain(&second).enumerate() {
        if at < first.len() || !known.contains(&**key) {
            object.raw(key, raw.get());
        }
    }
    object.end();
    out
}

/// Two lists as one, without what is in both.
fn united(one: &str, other: &RawValue) -> String {
    let mut items: Vec<&str> = Vec::new();
    let mut known: HashSet<&str> = HashSet::new();
    let first: Vec<&RawValue> = serde_json::from_str(one).unwrap_or_default();
    for item in first.into_iter().chain(list_of(other).unwrap_or_default()) {
        if known.insert(item.get()) {
            items.push(item.get());
        }
    }
    format!("[{}]", items.join(","))
}
