//! Other names for models and combos. A name with `*` or `?` is a pattern; the first `*` of what it stands for is replaced by
//! what the first `*` of the pattern matched.

use std::borrow::Cow;
use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::pattern::Pattern;

/// Most aliases.
pub const MAX_ALIASES: usize = 2_000;
/// Longest alias, in bytes.
pub const MAX_ALIAS_LENGTH: usize = 128;

/// Every alias, ready to be looked up.
#[derive(Debug, Default)]
pub struct Aliases {
    exact: HashMap<String, String, RandomState>,
    /// The most specific first.
    patterns: Vec<(Pattern, String)>,
}

impl Aliases {
    /// From pairs of a name and what it stands for, the oldest first: of patterns that are equally specific, that one counts.
    pub fn new<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut aliases = Self::default();
        let mut patterns = Vec::new();
        for (name, target) in pairs {
            if is_pattern(name) {
                patterns.push((specificity(name), Pattern::new(name), target.to_owned()));
            } else {
                aliases.exact.insert(name.to_owned(), target.to_owned());
            }
        }
        patterns.sort_by(|(a, ..), (b, ..)| b.cmp(a));
        aliases.patterns = patterns.into_iter().map(|(_, pattern, target)| (pattern, target)).collect();
        aliases
    }

    /// What a name stands for.
    pub fn meaning(&self, name: &str) -> Option<Cow<'_, str>> {
        if let Some(target) = self.exact.get(name) {
            return Some(Cow::Borrowed(target));
        }
        self.patterns.iter().find_map(|(pattern, target)| {
            let matched = pattern.first_run(name)?;
            Some(expanded(target, matched))
        })
    }

    /// What the most specific pattern makes of a name, of those that fit none of the names before it.
    pub fn pattern_after(&self, name: &str, before: &[String]) -> Option<String> {
        self.patterns.iter().find_map(|(pattern, target)| {
            let matched = pattern.first_run(name)?;
            let is_news = !before.iter().any(|earlier| pattern.matches(earlier));
            is_news.then(|| expanded(target, matched).into_owned())
        })
    }

    /// What a name stands for by itself, patterns aside.
    pub fn exact(&self, name: &str) -> Option<&str> {
        self.exact.get(name).map(String::as_str)
    }

    /// The names that are no patterns.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.exact.keys().map(String::as_str)
    }
}

/// What a pattern stands for, with what its first `*` matched.
fn expanded<'a>(target: &'a str, matched: &str) -> Cow<'a, str> {
    match target.split_once('*') {
        Some((before, after)) => Cow::Owned(format!("{before}{matched}{after}")),
        None => Cow::Borrowed(target),
    }
}

/// Whether a name is a pattern.
pub fn is_pattern(name: &str) -> bool {
    name.contains(['*', '?'])
}

/// More is more specific: a longer beginning without wildcards, then more letters, then fewer wildcards.
pub(crate) fn specificity(pattern: &str) -> (usize, usize, isize) {
    let wildcards = pattern.bytes().filter(|byte| matches!(byte, b'*' | b'?')).count();
    let prefix = pattern.find(['*', '?']).unwrap_or(pattern.len());
    (prefix, pattern.len() - wildcards, -isize::try_from(wildcards).unwrap_or(isize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_pattern_counts() {
        let aliases = Aliases::new([
            ("*", "sim/echo"),
            ("claude-*", "openrouter/anthropic/claude-*"),
            ("claude-haiku-*", "cheap"),
            ("claude-haiku-4", "exact"),
            ("gpt-?-mini", "small/model"),
            ("*/free/*", "free-of-*"),
        ]);
        for (name, expected) in [
            ("claude-haiku-4", "exact"),
            ("claude-haiku-5", "cheap"),
            ("claude-opus-5", "openrouter/anthropic/claude-opus-5"),
            ("Claude-Opus-5", "openrouter/anthropic/claude-Opus-5"),
            ("gpt-5-mini", "small/model"),
            ("some/free/thing", "free-of-some"),
            ("whatever", "sim/echo"),
        ] {
            assert_eq!(aliases.meaning(name).as_deref(), Some(expected), "{name}");
        }
        assert_eq!(aliases.exact("claude-opus-5"), None);
    }

    #[test]
    fn without_aliases_every_name_is_its_own() {
        assert_eq!(Aliases::default().meaning("gpt-5"), None);
    }
}
