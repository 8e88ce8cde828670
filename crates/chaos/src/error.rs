//! What can be wrong with a scenario.

use std::fmt;

/// A scenario that cannot be carried out: where, why, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ScenarioError {
    /// The line, counted from 1, where it is known.
    pub line: Option<usize>,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for ScenarioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl ScenarioError {
    /// Wrong at a place of the text, given in bytes.
    pub(crate) fn at(text: &str, offset: Option<usize>, message: impl Into<String>) -> Self {
        let line = offset.map(|offset| {
            let end = text.floor_char_boundary(offset.min(text.len()));
            text[..end].matches('\n').count() + 1
        });
        Self { line, message: message.into() }
    }

    /// Wrong as a whole.
    pub(crate) fn whole(message: impl Into<String>) -> Self {
        Self { line: None, message: message.into() }
    }
}
