//! Ids: kept where the target takes them, otherwise replaced in a way that gives the same result each time.

use std::borrow::Cow;

use sha2::{Digest as _, Sha256};

/// Longest id of a tool call that every dialect takes.
const MAX_CALL_ID: usize = 64;

/// The id of a tool call as every dialect takes it. One id always becomes the same other id, so that call and
/// result stay together.
pub(crate) fn tool_call_id(id: &str) -> Cow<'_, str> {
    if !id.is_empty() && id.len() <= MAX_CALL_ID && id.bytes().all(is_plain) {
        return Cow::Borrowed(id);
    }
    let kept: String = id.bytes().filter(|byte| is_plain(*byte)).take(39).map(char::from).collect();
    let kept = if kept.is_empty() { "call".to_owned() } else { kept };
    Cow::Owned(format!("{kept}_{:016x}", hash(&[id])))
}

/// An id for a tool call that came without: the `n`th of an answer.
pub(crate) fn invented_call_id(answer: &str, n: usize, name: &str) -> String {
    format!("call_{n}_{:016x}", hash(&[answer, name]))
}

/// Whether the id was invented here for a call that came without.
pub(crate) fn is_invented(id: &str) -> bool {
    let Some((n, hash)) = id.strip_prefix("call_").and_then(|rest| rest.split_once('_')) else {
        return false;
    };
    !n.is_empty()
        && n.bytes().all(|byte| byte.is_ascii_digit())
        && hash.len() == 16
        && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The id of an answer in a dialect that wants `prefix`: the upstream's own random part behind it.
pub(crate) fn answer_id(prefix: &str, upstream: &str, request_id: &str) -> String {
    let random = match upstream.find(['-', '_']) {
        Some(end) if end < 12 && upstream[..end].bytes().all(|byte| byte.is_ascii_lowercase()) => {
            &upstream[end + 1..]
        }
        _ => upstream,
    };
    let mut id = String::with_capacity(prefix.len() + 40);
    id.push_str(prefix);
    id.extend(random.bytes().filter(|byte| is_plain(*byte)).take(64).map(char::from));
    if id.len() < prefix.len() + 24 {
        let salt = [hash(&[upstream, request_id]), hash(&[request_id, upstream, "."])];
        let fill = format!("{:016x}{:016x}", salt[0], salt[1]);
        id.push_str(&fill[..(prefix.len() + 24 - id.len()).min(fill.len())]);
    }
    id
}

/// The id of the `n`th item of an answer in a dialect that wants `prefix` and takes at most 64 characters.
pub(crate) fn item_id(prefix: &str, answer: &str, n: u64) -> String {
    let mut first = Hash::default();
    first.add(answer.as_bytes());
    first.add(&n.to_le_bytes());
    let mut second = first.clone();
    second.add(prefix.as_bytes());
    format!("{prefix}{:016x}{:016x}", first.value(), second.value())
}

/// An id of somebody that does not tell who it is.
pub(crate) fn sha256_hex(id: &str) -> String {
    Sha256::digest(id.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

/// A text as 16 hexadecimal digits.
pub(crate) fn hash_hex(text: &str) -> String {
    format!("{:016x}", hash(&[text]))
}

/// FNV-1a over bytes that come in pieces.
#[derive(Debug, Clone)]
pub(crate) struct Hash(u64);

impl Default for Hash {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hash {
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    pub(crate) fn value(&self) -> u64 {
        self.0
    }
}

/// The hash of the parts and their borders.
fn hash(parts: &[&str]) -> u64 {
    let mut hash = Hash::default();
    for part in parts {
        hash.add(part.as_bytes());
        hash.add(&[0xff]);
    }
    hash.value()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn call_ids_that_fit_are_kept_and_others_do_not_collide() {
        assert_eq!(tool_call_id("toolu_01-x"), "toolu_01-x");
        let long = "a".repeat(70);
        let (one, two) = (tool_call_id(&long).into_owned(), tool_call_id(&long[1..]).into_owned());
        assert_ne!(one, two);
        assert_eq!(one, tool_call_id(&long));
        for id in [one.as_str(), &tool_call_id("functions.f:0"), &tool_call_id("")] {
            assert_eq!(tool_call_id(id), id, "must fit");
        }
    }

    #[test]
    fn invented_ids_are_known_again() {
        assert!(is_invented(&invented_call_id("answer", 12, "f")));
        for id in ["call_1", "call_abc_0123456789abcdef", "call_1_0123", "toolu_1", ""] {
            assert!(!is_invented(id), "{id}");
        }
    }

    #[test]
    fn answers_keep_the_random_part_of_the_upstream() {
        assert_eq!(
            answer_id("msg_", "chatcmpl-0123456789abcdef01234567", "r"),
            "msg_0123456789abcdef01234567"
        );
        let invented = answer_id("chatcmpl-", "", "request-1");
        assert_eq!(invented.len(), "chatcmpl-".len() + 24);
        assert_eq!(invented, answer_id("chatcmpl-", "", "request-1"));
        assert_ne!(invented, answer_id("chatcmpl-", "", "request-2"));
        assert!(answer_id("chatcmpl-", "msg_01AB", "r").starts_with("chatcmpl-01AB"));
    }
}
