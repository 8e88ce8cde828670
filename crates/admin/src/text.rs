//! Times, masks and ids as the API shows them.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use rand::distr::{Alphanumeric, SampleString as _};

/// RFC 3339 with milliseconds, UTC.
pub(crate) fn iso(ms: i64) -> String {
    Timestamp::from_millisecond(ms)
        .unwrap_or(Timestamp::UNIX_EPOCH)
        .strftime("%Y-%m-%dT%H:%M:%S.%3fZ")
        .to_string()
}

/// Milliseconds of an RFC 3339 text.
pub(crate) fn parse_iso(text: &str) -> Option<i64> {
    text.parse::<Timestamp>().ok().map(Timestamp::as_millisecond)
}

/// First and last characters of a secret.
pub(crate) fn mask(secret: &str) -> String {
    let chars: Vec<char> = secret.chars().collect();
    if chars.len() < 12 {
        return "****".to_owned();
    }
    let part = |range: &[char]| range.iter().collect::<String>();
    format!("{}****{}", part(&chars[..4]), part(&chars[chars.len() - 4..]))
}

/// Headers as they are to be stored: a value that came back as it was shown stays what it was.
pub(crate) fn unmasked(
    mut sent: BTreeMap<String, String>,
    stored: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    for (name, value) in &mut sent {
        if let Some(old) = stored.get(name)
            && *value == mask(old)
        {
            value.clone_from(old);
        }
    }
    sent
}

/// Whether a client's own request id can be kept.
pub(crate) fn is_request_id(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'-'))
}

/// A fresh request id.
pub(crate) fn request_id() -> String {
    format!("req_{}", Alphanumeric.sample_string(&mut rand::rng(), 24))
}

/// 256 random bits in base64url.
pub(crate) fn random_secret() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
}

/// Nano-dollars as dollars.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn usd(nano: i64) -> f64 {
    nano as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_round_trip_with_milliseconds() {
        for (ms, text) in [(0, "1970-01-01T00:00:00.000Z"), (1_771_060_211_123, "2026-02-14T09:10:11.123Z")] {
            assert_eq!(iso(ms), text);
            assert_eq!(parse_iso(text), Some(ms));
        }
        assert_eq!(parse_iso("yesterday"), None);
    }

    #[test]
    fn masks_show_too_little_to_guess() {
        for (secret, masked) in [
            ("sk-work-1234567890", "sk-w****7890"),
            ("short", "****"),
            ("", "****"),
            ("ääääääääääääää", "ääää****ääää"),
        ] {
            assert_eq!(mask(secret), masked);
        }
    }

    #[test]
    fn what_comes_back_as_it_was_shown_stays() {
        let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let stored = map(&[("x-key", "secret-1234567890"), ("x-short", "abc")]);
        let sent = map(&[("x-key", "secr****7890"), ("x-short", "****"), ("x-new", "****")]);
        let kept = map(&[("x-key", "secret-1234567890"), ("x-short", "abc"), ("x-new", "****")]);
        assert_eq!(unmasked(sent, &stored), kept);
        let changed = map(&[("x-key", "another")]);
        assert_eq!(unmasked(changed.clone(), &stored), changed);
    }

    #[test]
    fn own_request_ids_are_plain() {
        assert!(is_request_id("trace-1.a:b_c"));
        for bad in ["", "a b", "a\nb", &"x".repeat(129)] {
            assert!(!is_request_id(bad), "{bad:?}");
        }
        assert!(is_request_id(&request_id()));
    }
}
