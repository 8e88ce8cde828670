//! Anthropic Messages.

/// The dialect.
#[derive(Debug)]
pub struct Anthropic;
