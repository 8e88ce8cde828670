//! Collects what is wrong with a draft, so that all of it is told at once.

use std::fmt::Display;
use std::ops::RangeInclusive;

use crate::error::{AdminResult, Detail, invalid, unprocessable_all};

/// What is wrong so far.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    wrong: Vec<Detail>,
    impossible: Vec<Detail>,
}

impl Problems {
    /// A member is not as it must be.
    pub(crate) fn add(&mut self, field: &str, message: impl Into<String>) {
        self.wrong.push(Detail { field: field.to_owned(), message: message.into() });
    }

    /// A member is well formed, but nothing can be made of it: a regular expression that does not compile.
    pub(crate) fn impossible(&mut self, field: &str, message: impl Into<String>) {
        self.impossible.push(Detail { field: field.to_owned(), message: message.into() });
    }

    /// A text of a length in characters, which may have several lines.
    pub(crate) fn length(&mut self, field: &str, text: &str, allowed: RangeInclusive<usize>) {
        if text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
            self.add(field, "must not contain control characters");
        } else if !allowed.contains(&text.chars().count()) {
            self.add(field, format!("must have {} to {} characters", allowed.start(), allowed.end()));
        }
    }

    /// A name for people: some characters, none of them invisible.
    pub(crate) fn name(&mut self, field: &str, text: &str) {
        if text.trim().is_empty() {
            self.add(field, "must not be empty");
        } else if text.chars().any(char::is_control) {
            self.add(field, "must not contain control characters");
        } else {
            self.length(field, text, 1..=100);
        }
    }

    /// A number within bounds, if there is one.
    pub(crate) fn range<T: PartialOrd + Display>(
        &mut self,
        field: &str,
        value: Option<T>,
        allowed: &RangeInclusive<T>,
    ) {
        if value.is_some_and(|value| !allowed.contains(&value)) {
            self.add(field, format!("must be {} to {}", allowed.start(), allowed.end()));
        }
    }

    /// A list of short texts.
    pub(crate) fn list(&mut self, field: &str, entries: &[String], most: usize) {
        if entries.len() > most {
            self.add(field, format!("must have at most {most} entries"));
        }
        for (at, entry) in entries.iter().enumerate().take(most) {
            if entry.trim().is_empty() || entry.len() > 256 || entry.chars().any(char::is_control) {
                self.add(&format!("{field}[{at}]"), "must have 1 to 256 printable characters");
            }
        }
    }

    /// Ends with everything that is wrong, if anything is.
    pub(crate) fn done(mut self) -> AdminResult<()> {
        if self.wrong.is_empty() && self.impossible.is_empty() {
            Ok(())
        } else if self.wrong.is_empty() {
            Err(unprocessable_all(self.impossible))
        } else {
            self.wrong.append(&mut self.impossible);
            Err(invalid(self.wrong))
        }
    }
}
