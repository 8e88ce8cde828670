//! The tier in which an answer was served. The form has OpenAI's words for it (`default`, `priority`, `flex`, …); a word
//! that nobody knows goes from one dialect to the other as it is.

use std::borrow::Cow;

use crate::stream::{EventSink, StreamError, StreamEvent};

/// Longest word. Writers may repeat it with every event.
const MAX: usize = 64;

/// Whether it is a word for a tier.
pub(crate) fn is_word(word: &str) -> bool {
    !word.is_empty() && word.len() <= MAX
}

/// What was told of the tier so far.
#[derive(Debug, Default)]
pub(crate) struct Told(String);

impl Told {
    /// Tells it if it is news.
    pub(crate) fn tell(&mut self, word: &str, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        if !is_word(word) || self.0 == word {
            return Ok(());
        }
        word.clone_into(&mut self.0);
        sink.event(StreamEvent::ServiceTier(Cow::Borrowed(word)))
    }
}
