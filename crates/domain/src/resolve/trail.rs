//! The steps from a name to where it leads, for people who wonder about them. Requests note none, which costs nothing.

use super::Suffixes;
use crate::routing::auto::is_virtual;

/// A step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrailStep {
    /// `suffix` (what the name says beside the model is taken off), `alias`, `pattern` (an alias with `*`), `mapping` (a pattern
    /// that means a combo), `combo`, `prefix` (a provider's), `bare` (a name without one), `account` (`model@account`) or
    /// `renamed` (the provider's name for it is another one now).
    pub rule: &'static str,
    /// The name before.
    pub from: String,
    /// What it became; `None` = nothing came of it.
    pub to: Option<String>,
    /// Why, in words.
    pub why: Option<String>,
}

/// Who takes note of steps.
pub trait Trail {
    /// A step was made.
    fn note(&mut self, step: impl FnOnce() -> TrailStep);

    /// What a name says beside the model was taken off.
    fn split_off(&mut self, before: &str, after: &str, suffixes: &Suffixes) {
        if before == after {
            return;
        }
        self.note(|| {
            let effort = suffixes.effort.as_ref().map(|_| "how much to reason");
            let context = suffixes.extended_context.then_some("the context of a million tokens");
            let said: Vec<&str> = effort.into_iter().chain(context).collect();
            TrailStep::new("suffix", before, after).because(format!("it says {}", said.join(" and ")))
        });
    }
}

/// Nobody does.
impl Trail for () {
    fn note(&mut self, _: impl FnOnce() -> TrailStep) {}
}

impl Trail for Vec<TrailStep> {
    fn note(&mut self, step: impl FnOnce() -> TrailStep) {
        self.push(step());
    }
}

impl TrailStep {
    pub(super) fn new(rule: &'static str, from: &str, to: &str) -> Self {
        let why = (rule == "combo" && is_virtual(to)).then(|| "it is there without being made".to_owned());
        Self { rule, from: from.to_owned(), to: Some(to.to_owned()), why }
    }

    pub(super) fn of_alias(is_exact: bool, from: &str, to: &str) -> Self {
        Self::new(if is_exact { "alias" } else { "pattern" }, from, to)
    }

    /// It came to nothing.
    pub(super) fn vain(rule: &'static str, from: &str, why: &str) -> Self {
        Self { rule, from: from.to_owned(), to: None, why: Some(why.to_owned()) }
    }

    pub(super) fn because(self, why: String) -> Self {
        Self { why: Some(why), ..self }
    }
}

impl std::fmt::Display for TrailStep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: `{}`", self.rule, self.from)?;
        if let Some(to) = &self.to {
            write!(f, " → `{to}`")?;
        }
        match &self.why {
            Some(why) => write!(f, " ({why})"),
            None => Ok(()),
        }
    }
}
