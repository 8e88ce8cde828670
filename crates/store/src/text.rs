//! Small conversions between values and their stored text.

use std::sync::Arc;

use bytes::BytesMut;
use omniroute_wire::json_out::Object;
use rand::Rng as _;
use serde::{Serialize, de::DeserializeOwned};

use crate::error::StoreError;

/// Lower-case hexadecimal.
pub(crate) fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// From hexadecimal of either case.
pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

/// Bytes that nobody can guess.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::rng().fill_bytes(&mut bytes);
    bytes
}

/// A value as JSON text.
pub(crate) fn to_json<T: Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Damaged(format!("value is not JSON: {error}")))
}

/// Counts by their names as a JSON object; `None` where there are none.
pub(crate) fn named<'a>(counts: impl Iterator<Item = (&'a str, u64)>) -> Option<String> {
    /// Bytes of the commonest ones.
    const USUAL: usize = 64;
    let mut counts = counts.peekable();
    counts.peek()?;
    let mut out = BytesMut::with_capacity(USUAL);
    let mut object = Object::begin(&mut out);
    for (name, count) in counts {
        object.i64(name, signed(count));
    }
    object.end();
    String::from_utf8(out.into()).ok()
}

/// A value from JSON text; the message names the column.
pub(crate) fn from_json<T: DeserializeOwned>(column: &str, text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| format!("{column} does not hold what it should: {error}"))
}

/// The same text when it is short and without NUL, as nearly all are; else as [`clip`] makes it.
pub(crate) fn clip_shared(text: &Arc<str>, limit: usize) -> Arc<str> {
    if text.len() <= limit && !text.contains('\0') { Arc::clone(text) } else { clip(text, limit).into() }
}

/// At most `limit` bytes, cut at a character, without the NUL that Postgres refuses.
pub(crate) fn clip(text: &str, limit: usize) -> String {
    let text = &text[..text.floor_char_boundary(limit)];
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text.to_owned() }
}

/// A count as the databases store it.
pub(crate) fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_round_trips() {
        let bytes = random::<32>();
        assert_eq!(from_hex(&to_hex(&bytes)).as_deref(), Some(&bytes[..]));
        assert_eq!(from_hex("0g"), None);
        assert_eq!(from_hex("abc"), None);
        assert_eq!(from_hex("ä1"), None);
    }

    #[test]
    fn long_text_is_cut_at_a_character() {
        assert_eq!(clip("aé", 2), "a");
        assert_eq!(clip("a\0b", 9), "a\u{fffd}b");
    }
}
