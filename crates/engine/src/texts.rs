//! The texts of an answer's head, in one piece of memory.

use std::fmt::{self, Write as _};

use bytes::BytesMut;
use http::HeaderValue;

/// Room for those of most answers.
const USUAL: usize = 320;

/// Makes values of headers. They share their memory; each on its own would be an allocation.
pub(crate) struct Texts(BytesMut);

impl Texts {
    /// With room for those of most answers.
    pub(crate) fn new() -> Self {
        Self(BytesMut::with_capacity(USUAL))
    }

    /// A text; `None` where it does not fit a header.
    pub(crate) fn text(&mut self, text: &str) -> Option<HeaderValue> {
        self.0.extend_from_slice(text.as_bytes());
        self.take()
    }

    /// What is written out as a text.
    pub(crate) fn shown(&mut self, what: impl fmt::Display) -> Option<HeaderValue> {
        // Only a `Display` can fail, and then it is left out like a text that does not fit.
        let written = write!(self.0, "{what}");
        self.take().filter(|_| written.is_ok())
    }

    fn take(&mut self) -> Option<HeaderValue> {
        HeaderValue::from_maybe_shared(self.0.split().freeze()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_apart_and_those_that_do_not_fit_are_left_out() {
        let mut texts = Texts::new();
        let long = "x".repeat(2 * USUAL);
        let made = [
            texts.text("a b"),
            texts.shown(42),
            texts.text("two\nlines"),
            texts.text(&long),
            texts.shown(format_args!("{}m{}s", 1, 2)),
        ];
        let shown = made.map(|value| value.and_then(|value| value.to_str().map(str::to_owned).ok()));
        let expected = [Some("a b"), Some("42"), None, Some(long.as_str()), Some("1m2s")];
        assert_eq!(shown, expected.map(|text| text.map(str::to_owned)));
    }
}
