//! How dialects say things: the files beside this one.

use std::{collections::BTreeMap, fs, path::PathBuf};

use serde_json::{Map, Value};

use super::pattern::holds;

/// An image of one pixel, the beginnings of a PDF file, a sound and a film.
pub(super) const DATA: [(&str, &str); 4] = [
    ("$PNG", "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="),
    ("$PDF", "JVBERi0xLjQK"),
    ("$WAV", "UklGRiQAAABXQVZF"),
    ("$MP4", "AAAAGGZ0eXBtcDQy"),
];

/// A row of the document.
pub(super) struct Feature {
    pub(super) is_answer: bool,
    pub(super) group: String,
    pub(super) name: String,
    pub(super) label: String,
    /// What is not obvious.
    pub(super) note: Option<String>,
}

impl Feature {
    /// All of them, in the order of the document.
    pub(super) fn all() -> Vec<Self> {
        let file = read("features");
        let mut all = Vec::new();
        for (part, is_answer) in [("requests", false), ("answers", true)] {
            for group in file[part].as_array().unwrap() {
                for row in group["rows"].as_array().unwrap() {
                    let text = |at: usize| row[at].as_str().map(str::to_owned);
                    all.push(Self {
                        is_answer,
                        group: group["group"].as_str().unwrap().to_owned(),
                        name: text(0).unwrap(),
                        label: text(1).unwrap(),
                        note: text(2),
                    });
                }
            }
        }
        all
    }
}

/// Features that a dialect's file names and the document does not.
pub(super) fn unknown(features: &[Feature], words: &[Words]) -> Vec<String> {
    let mut faults = Vec::new();
    for one in words {
        for (list, is_answer) in [(&one.requests, false), (&one.answers, true)] {
            let known = |name: &String| {
                features.iter().any(|feature| feature.is_answer == is_answer && feature.name == *name)
            };
            let strange = list.keys().filter(|name| !known(name) && !name.starts_with('_'));
            faults.extend(strange.map(|name| format!("{}.json: no row for `{name}`", one.dialect)));
        }
    }
    faults
}

/// How a dialect says things.
pub(super) struct Words {
    pub(super) dialect: String,
    pub(super) title: String,
    /// A request with nothing special.
    pub(super) base: Value,
    pub(super) requests: BTreeMap<String, Word>,
    pub(super) answers: BTreeMap<String, Word>,
}

/// How it says one of them.
pub(super) struct Word {
    /// Members that say it; `None` where the dialect cannot.
    body: Option<Value>,
    /// What this one needs: another feature, or an entry with `_` before its name, which is no row.
    with: Option<String>,
    /// What proves that a body has it in the dialect's own word.
    pub(super) own: Vec<Value>,
    /// What proves that a body says it in other words.
    pub(super) other: Vec<Value>,
    /// What a request without the feature has and one with it must not have, where leaving out is how it is said.
    pub(super) without: Vec<Value>,
}

impl Words {
    pub(super) fn read(dialect: &str) -> Self {
        let file = read(dialect);
        let words = |name: &str| {
            let list = file[name].as_object().unwrap();
            list.iter().map(|(feature, word)| (feature.clone(), Word::read(word))).collect()
        };
        Self {
            dialect: dialect.to_owned(),
            title: file["title"].as_str().unwrap().to_owned(),
            base: file["base"].clone(),
            requests: words("requests"),
            answers: words("answers"),
        }
    }

    /// A request without the feature but with what it needs, and one with it.
    pub(super) fn request(&self, word: &Word) -> Option<(Value, Value)> {
        let body = word.body.as_ref()?;
        let mut before = self.base.clone();
        self.add_needed(word, &mut before);
        let mut with = before.clone();
        merge(&mut with, body);
        Some((before, with))
    }

    fn add_needed(&self, word: &Word, body: &mut Value) {
        if let Some(needed) = word.with.as_ref().map(|name| &self.requests[name]) {
            self.add_needed(needed, body);
            merge(body, needed.body.as_ref().expect("what is needed can be said"));
        }
    }

    /// A whole answer with the feature. All are made of the plain one.
    pub(super) fn answer(&self, word: &Word) -> Option<Value> {
        let mut body = self.usual_answer(word);
        merge(&mut body, word.body.as_ref()?);
        Some(body)
    }

    /// Whether the dialect has a word of its own for a feature of answers.
    pub(super) fn can_answer(&self, feature: &str) -> bool {
        self.answers.get(feature).is_some_and(|word| word.body.is_some())
    }

    /// An answer without the feature but with what it needs.
    pub(super) fn usual_answer(&self, word: &Word) -> Value {
        let mut body = self.answers["_plain"].body.clone().unwrap();
        if let Some(needed) = word.with.as_ref().and_then(|needed| self.answers[needed].body.as_ref()) {
            merge(&mut body, needed);
        }
        body
    }
}

impl Word {
    /// Whether a request says it in other words, which `plain` without the feature does not.
    pub(super) fn is_said_otherwise(&self, body: &Value, plain: &Value) -> bool {
        let left_out = |pattern: &Value| {
            let pattern = std::slice::from_ref(pattern);
            holds(plain, pattern) && !holds(body, pattern)
        };
        (holds(body, &self.other) || (self.other.is_empty() && !self.without.is_empty()))
            && self.without.iter().all(left_out)
    }

    fn read(word: &Value) -> Self {
        let list = |name: &str| word[name].as_array().cloned().unwrap_or_default();
        Self {
            body: word.get("body").cloned(),
            with: word["with"].as_str().map(str::to_owned),
            own: list("own"),
            other: list("other"),
            without: list("without"),
        }
    }
}

fn merge(into: &mut Value, members: &Value) {
    let into: &mut Map<String, Value> = into.as_object_mut().unwrap();
    into.extend(members.as_object().unwrap().clone());
}

fn read(name: &str) -> Value {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/harness/fidelity");
    let path = folder.join(format!("{name}.json"));
    let mut text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    for (name, data) in DATA {
        text = text.replace(name, data);
    }
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
