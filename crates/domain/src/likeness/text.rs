//! A text taken apart for comparison.

use unicode_script::{Script, UnicodeScript as _};

use super::{marks, measures, words};

/// What of a text is compared.
pub(super) struct Text {
    pub(super) words: Vec<Word>,
    /// Numbers, units and dates, in their order.
    pub(super) measures: Vec<String>,
    /// Quotations, code, addresses, identifiers and operators, in their order.
    pub(super) marks: Vec<String>,
    /// The scripts of its letters, each once.
    pub(super) scripts: Vec<Script>,
    /// The language, where its small words tell.
    language: Option<usize>,
    /// Signs of negation in scripts that put no spaces between words.
    signs: usize,
}

/// A word.
pub(super) struct Word {
    /// In small letters, without a possessive.
    pub(super) lower: String,
    /// Without its ending.
    pub(super) stem: String,
    /// Written like a name, in a place where other words are not.
    pub(super) is_name: bool,
    /// Whether it says what a text is about, and does not only hold it together.
    pub(super) is_weighty: bool,
}

impl Text {
    pub(super) fn read(text: &str) -> Self {
        let words = split(text);
        let mut scripts: Vec<Script> = Vec::new();
        for letter in text.chars().filter(|letter| letter.is_alphabetic()) {
            let script = letter.script();
            if !matches!(script, Script::Common | Script::Inherited) && !scripts.contains(&script) {
                scripts.push(script);
            }
        }
        scripts.sort_unstable_by_key(|script| script.short_name());
        Self {
            measures: measures::of(text),
            marks: marks::of(text),
            language: words::language_of(words.iter().map(|word| &*word.lower)),
            signs: words::NEGATION_SIGNS.iter().map(|sign| text.matches(sign).count()).sum(),
            scripts,
            words,
        }
    }

    pub(super) fn is_of_other_language(&self, other: &Self) -> bool {
        matches!((self.language, other.language), (Some(mine), Some(theirs)) if mine != theirs)
    }

    /// How often something is denied.
    pub(super) fn negations(&self) -> usize {
        self.signs + self.words.iter().filter(|word| words::denies(&word.lower)).count()
    }

    /// Which of these kinds of words there are.
    pub(super) fn kinds(&self, kinds: &[&[&str]]) -> Vec<usize> {
        let has = |kind: &&[&str]| self.words.iter().any(|word| kind.contains(&&*word.lower));
        kinds.iter().enumerate().filter(|(_, kind)| has(kind)).map(|(at, _)| at).collect()
    }

    pub(super) fn has_stem(&self, stem: &str) -> bool {
        self.words.iter().any(|word| word.stem == stem)
    }

    /// Whether the other has a word of weight that this one has not.
    pub(super) fn lacks_of(&self, other: &Self) -> bool {
        other.words.iter().any(|word| word.is_weighty && !self.has_stem(&word.stem))
    }

    /// The words of weight that both have once, as they stand here.
    pub(super) fn shared_with(&self, other: &Self) -> Vec<&str> {
        let is_single =
            |text: &Self, stem: &str| text.words.iter().filter(|word| word.stem == stem).count() == 1;
        let shared = self
            .words
            .iter()
            .filter(|word| word.is_weighty && is_single(self, &word.stem) && is_single(other, &word.stem));
        shared.map(|word| &*word.stem).collect()
    }
}

/// The words of a text. `don't` is `do` and `not`.
fn split(text: &str) -> Vec<Word> {
    let mut found = Vec::new();
    let mut begins = true;
    let mut rest = text;
    while let Some(at) = rest.find(char::is_alphanumeric) {
        let between = &rest[..at];
        // A sentence, a line or a quotation begins.
        begins |= between.chars().any(|char| {
            matches!(char, '.' | '!' | '?' | ':' | ';' | '\n' | '"' | '“' | '„' | '«' | '¿' | '¡' | '(')
        });
        let tail = &rest[at..];
        let end = tail
            .char_indices()
            .find(|(at, char)| !is_part(tail, *at, *char))
            .map_or(tail.len(), |(at, _)| at);
        let (raw, after) = tail.split_at(end);
        push(raw, begins, &mut found);
        begins = false;
        rest = after;
    }
    found
}

/// Letters and digits; an apostrophe within a word.
fn is_part(text: &str, at: usize, char: char) -> bool {
    let is_apostrophe = matches!(char, '\'' | '’');
    let next = || text[at + char.len_utf8()..].chars().next();
    // Combining marks belong to the letter before them.
    let is_mark = !char.is_ascii() && char.script() == Script::Inherited;
    char.is_alphanumeric() || is_mark || (is_apostrophe && next().is_some_and(char::is_alphabetic))
}

fn push(raw: &str, begins: bool, found: &mut Vec<Word>) {
    let lower = raw.to_lowercase().replace('’', "'");
    let (word, denied) = match &*lower {
        "cannot" | "can't" => ("can", true),
        "won't" => ("will", true),
        "shan't" => ("shall", true),
        other => match other.strip_suffix("n't") {
            Some(verb) => (verb, true),
            None => (other, false),
        },
    };
    // Possessives, and what is left of `is`, `will`, `are`.
    let word = ["'s", "'ll", "'re", "'ve", "'d", "'m"]
        .iter()
        .find_map(|ending| word.strip_suffix(ending))
        .unwrap_or(word);
    let has_capital = raw.chars().next().is_some_and(char::is_uppercase);
    let is_shouted = raw.chars().filter(|char| char.is_alphabetic()).count() > 1
        && raw.chars().all(|char| !char.is_lowercase());
    let is_weighty = !words::is_small(word);
    let is_name = has_capital
        && word != "i"
        && (is_shouted || if begins { is_weighty && !words::opens(word) } else { !words::is_small(word) });
    found.push(Word { lower: word.to_owned(), stem: words::stem(word), is_name, is_weighty });
    if denied {
        let not = "not".to_owned();
        found.push(Word { stem: not.clone(), lower: not, is_name: false, is_weighty: false });
    }
}
