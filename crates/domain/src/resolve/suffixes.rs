//! What a name says beside the model: how much to reason, and whether the long context is wanted.

use omniroute_dialect::ir::ReasoningAmount;

/// What a name says beside the model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Suffixes {
    /// How much to reason (`gpt-5(high)`).
    pub effort: Option<ReasoningAmount>,
    /// Whether the variant with a context of a million tokens is wanted (`claude-sonnet-4-5[1m]`).
    pub extended_context: bool,
}

impl Suffixes {
    /// Takes over what a name says that this one leads to; what was said before counts.
    pub fn complete(&mut self, inner: Self) {
        self.effort = self.effort.take().or(inner.effort);
        self.extended_context |= inner.extended_context;
    }
}

/// What a name says beside the model.
pub fn suffixes(requested: &str) -> Suffixes {
    without_suffixes(requested.trim()).1
}

/// A name without what it says beside the model.
pub fn bare_name(requested: &str) -> &str {
    without_suffixes(requested.trim()).0
}

/// The name alone, and what stands behind it. Parentheses around anything but a level of effort belong to the name.
pub(super) fn without_suffixes(name: &str) -> (&str, Suffixes) {
    let (mut name, mut suffixes) = (name, Suffixes::default());
    for _ in 0..2 {
        if let Some(rest) = name.strip_suffix("[1m]").filter(|_| !suffixes.extended_context) {
            (name, suffixes.extended_context) = (rest, true);
        } else if let Some((rest, word)) = name.strip_suffix(')').and_then(|name| name.rsplit_once('('))
            && suffixes.effort.is_none()
            && !rest.is_empty()
            && word.starts_with(|first: char| first.is_ascii_alphabetic())
            && let Some(effort @ (ReasoningAmount::Off | ReasoningAmount::Effort(_))) =
                ReasoningAmount::of_word(word)
        {
            (name, suffixes.effort) = (rest, Some(effort));
        }
    }
    (name, suffixes)
}
