//! Signatures of thoughts: what the vendors give out with them and want back untouched.
//!
//! They are no secrets. A signature holds the answer's number and a checksum over what it belongs to, so one that comes
//! from somewhere else, that was altered, or that stands beside something else than before is found out.

use base64::{
    Engine as _, alphabet, engine::DecodePaddingMode, engine::GeneralPurposeConfig,
    engine::general_purpose::GeneralPurpose,
};

use crate::stage::Ids;

/// All signatures begin like this; in base64 it is `c2ltdWxhdG9y`.
const MAGIC: &[u8] = b"simulator";
/// Clients write what was bytes to them in either alphabet, with or without padding.
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// What a signature is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Anthropic: thoughts with their text.
    Thinking = 1,
    /// Anthropic: thoughts that nobody may read.
    Redacted = 2,
    /// Gemini: a function call.
    Call = 3,
    /// Gemini: something else that was said.
    Said = 4,
    /// Responses: a `reasoning` item.
    Reasoning = 5,
}

/// A signature for something that consists of these parts.
pub(crate) fn issue(kind: Kind, ids: Ids, bound: &[&str]) -> String {
    let mut bytes = MAGIC.to_vec();
    bytes.push(kind as u8);
    bytes.extend_from_slice(&ids.0.to_be_bytes());
    bytes.extend_from_slice(&checksum(kind, ids.0, bound).to_be_bytes());
    // 27 bytes: no padding.
    bytes.push(b'.');
    STANDARD.encode(bytes)
}

/// Whether the signature was issued for exactly this.
pub(crate) fn holds(signature: &str, kind: Kind, bound: &[&str]) -> bool {
    let Some(bytes) = decode(signature) else { return false };
    let Some([found, rest @ ..]) = bytes.strip_prefix(MAGIC) else { return false };
    let (Some((id, rest)), true) = (rest.split_first_chunk::<8>(), *found == kind as u8) else {
        return false;
    };
    let Some((sum, b".")) = rest.split_first_chunk::<8>() else { return false };
    u64::from_be_bytes(*sum) == checksum(kind, u64::from_be_bytes(*id), bound)
}

/// Whether this was issued here, for whatever it was.
pub(crate) fn ours(signature: &str) -> bool {
    decode(signature).is_some_and(|bytes| bytes.starts_with(MAGIC))
}

/// The bytes of base64 in either alphabet.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).or_else(|_| URL_SAFE.decode(text)).ok()
}

/// FNV-1a, each part with an end of its own.
fn checksum(kind: Kind, id: u64, bound: &[&str]) -> u64 {
    let mut sum = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |byte: u8| sum = (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    add(kind as u8);
    id.to_be_bytes().into_iter().for_each(&mut add);
    for part in bound {
        part.bytes().for_each(&mut add);
        // No text has this byte.
        add(0xff);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_hold_for_what_they_were_issued_for_only() {
        let signature = issue(Kind::Thinking, Ids(7), &["ab", "c"]);
        assert!(signature.starts_with("c2ltdWxhdG9y"));
        let url_safe = signature.replace('+', "-").replace('/', "_");
        let other_id = issue(Kind::Thinking, Ids(8), &["ab", "c"]);
        let (head, _) = signature.split_at(signature.len() - 4);
        let (_, tail) = other_id.split_at(other_id.len() - 4);
        let spliced = format!("{head}{tail}");
        for (text, kind, bound, expected) in [
            (signature.as_str(), Kind::Thinking, ["ab", "c"], true),
            (&url_safe, Kind::Thinking, ["ab", "c"], true),
            (&signature, Kind::Redacted, ["ab", "c"], false),
            (&signature, Kind::Thinking, ["a", "bc"], false),
            (&signature, Kind::Thinking, ["ab", "d"], false),
            (&signature[..20], Kind::Thinking, ["ab", "c"], false),
            (&spliced, Kind::Thinking, ["ab", "c"], false),
            ("elsewhere", Kind::Thinking, ["ab", "c"], false),
            ("", Kind::Thinking, ["ab", "c"], false),
        ] {
            assert_eq!(holds(text, kind, &bound), expected, "{text} {bound:?}");
        }
    }
}
