//! Whether two questions whose vectors are close may really have the same answer.
//!
//! A model of sentences hears what a text is about. What turns its meaning round (a number, a `not`, two words that have
//! changed places) it hardly hears: `Convert euros to dollars` and `Convert dollars to euros` have a similarity of 0.996.
//! So texts that it finds close are compared here word by word, by rules that know nothing of meaning and are strict: they
//! would rather keep two paraphrases apart than take one question for another. They are not proof; they are tried against
//! a set of pairs with a real model, whose figures are in `docs/cache.md`.

mod marks;
mod measures;
mod text;
mod words;

#[cfg(test)]
mod tests;

use text::{Text, Word};

/// Why two texts are kept apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Guard {
    /// Another script or language.
    Language,
    /// One says much more than the other.
    Length,
    /// Numbers, units, dates: others, or in another order.
    Numbers,
    /// What is quoted, code, addresses, identifiers, operators.
    Quoted,
    /// One denies what the other does not.
    Negation,
    /// One says the opposite of a word of the other: before and after, enable and disable.
    Opposites,
    /// All, some, only, always: one says it, the other does not.
    Quantity,
    /// When, where, who, why: they ask for different things.
    Question,
    /// A name that the other does not have.
    Names,
    /// The same words the other way round.
    Order,
    /// Long texts that differ in a word of weight: a vector does not tell what a single word of many is.
    Words,
}

impl Guard {
    /// All of them, in the order in which they are asked.
    pub const ALL: [Self; 11] = [
        Self::Language,
        Self::Length,
        Self::Numbers,
        Self::Quoted,
        Self::Negation,
        Self::Opposites,
        Self::Quantity,
        Self::Question,
        Self::Names,
        Self::Order,
        Self::Words,
    ];

    /// The word in API fields.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Language => "language",
            Self::Length => "length",
            Self::Numbers => "numbers",
            Self::Quoted => "quoted",
            Self::Negation => "negation",
            Self::Opposites => "opposites",
            Self::Quantity => "quantity",
            Self::Question => "question",
            Self::Names => "names",
            Self::Order => "order",
            Self::Words => "words",
        }
    }

    /// Whether it keeps these texts apart.
    fn parts(self, one: &Text, other: &Text) -> bool {
        match self {
            Self::Language => one.scripts != other.scripts || one.is_of_other_language(other),
            Self::Length => is_much_longer(one, other) || is_much_longer(other, one),
            Self::Numbers => one.measures != other.measures,
            Self::Quoted => one.marks != other.marks,
            Self::Negation => one.negations() != other.negations(),
            Self::Opposites => are_opposed(one, other),
            Self::Quantity => one.kinds(words::QUANTITIES) != other.kinds(words::QUANTITIES),
            Self::Question => one.kinds(words::QUESTIONS) != other.kinds(words::QUESTIONS),
            Self::Names => has_own_name(one, other) || has_own_name(other, one),
            Self::Order => one.shared_with(other) != other.shared_with(one),
            Self::Words => is_long(one) && is_long(other) && one.lacks_of(other) && other.lacks_of(one),
        }
    }
}

/// The first reason why two texts may not have the same answer; `None` where none is seen.
pub fn guard(one: &str, other: &str) -> Option<Guard> {
    if one == other {
        return None;
    }
    let (one, other) = (Text::read(one), Text::read(other));
    Guard::ALL.into_iter().find(|guard| guard.parts(&one, &other))
}

/// The part of [`guard`] that answers can be held to: whether they state the same numbers, and deny as often.
pub fn states_the_same(one: &str, other: &str) -> bool {
    let (one, other) = (Text::read(one), Text::read(other));
    one.measures == other.measures && one.negations() == other.negations()
}

/// From how many words of weight on a text is long.
const LONG: usize = 12;

fn is_long(text: &Text) -> bool {
    text.words.iter().filter(|word| word.is_weighty).count() >= LONG
}

/// A sentence may take a few words more to ask the same.
fn is_much_longer(one: &Text, other: &Text) -> bool {
    const SLACK: usize = 4;
    one.words.len() > 2 * other.words.len() + SLACK
}

/// Whether a word of one has its opposite in the other, where neither has both.
fn are_opposed(one: &Text, other: &Text) -> bool {
    let alone = |text: &'_ Text, rest: &Text| -> Vec<String> {
        let only = text.words.iter().filter(|word| !rest.has_stem(&word.stem));
        only.map(|word| word.stem.clone()).collect()
    };
    let (mine, theirs) = (alone(one, other), alone(other, one));
    mine.iter().any(|word| theirs.iter().any(|their| words::are_opposites(word, their)))
}

fn has_own_name(one: &Text, other: &Text) -> bool {
    let is_missing =
        |word: &&Word| word.is_name && !other.words.iter().any(|theirs| theirs.lower == word.lower);
    one.words.iter().any(|word| is_missing(&word))
}
