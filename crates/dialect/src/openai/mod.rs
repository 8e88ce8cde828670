//! OpenAI Chat Completions.

/// The dialect.
#[derive(Debug)]
pub struct OpenAi;
