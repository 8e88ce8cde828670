//! Carriers: signatures of one dialect in the slots of another, so that clients bring them back.
//!
//! `omr1.<base64url of a JSON object>.<8 hexadecimal digits>`. The object says who made the signature and who can
//! read it; the digits are the beginning of an HMAC, so that only what this gateway wrote is believed.

use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use bytes::BytesMut;
use hmac::{Hmac, KeyInit as _, Mac as _};
use omniroute_wire::json_out::Object;
use sha2::Sha256;

use crate::{DialectId, ir::Signature, json_in::Fields, registry};

/// How a carrier begins.
pub(crate) const MARK: &str = "omr1.";
/// How a carrier begins where it is written as base64 of its bytes; three of the five characters, whatever follows.
pub(crate) const ENCODED_MARK: &str = "b21yMS";
/// What a string begins with that is a carrier.
pub(crate) const MARKS: &[&str] = &[MARK, ENCODED_MARK];

/// Whether there are carriers where a scan for [`MARKS`] found these.
pub(crate) const fn has_carriers(found: u32) -> bool {
    found & ((1 << MARKS.len()) - 1) != 0
}

/// The key that carriers are authenticated with.
#[derive(Clone)]
pub struct Seal {
    key: [u8; 32],
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seal")
    }
}

/// What was carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The signature of a thinking block.
    Signature,
    /// Reasoning that only its maker can read.
    Redacted,
    /// Nothing but that the text beside it is the maker's.
    Text,
}

/// A carrier that was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Opened {
    pub(crate) kind: Kind,
    pub(crate) origin: DialectId,
    pub(crate) signature: Signature,
}

impl Kind {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Signature => "sig",
            Self::Redacted => "redacted",
            Self::Text => "text",
        }
    }
}

impl Seal {
    /// With this key. Carriers can be read by whoever has the same one.
    pub const fn new(key: [u8; 32]) -> Self {
        Self { key }
    }

    /// Writes a carrier.
    pub(crate) fn close(&self, kind: Kind, origin: DialectId, signature: &Signature) -> String {
        let mut json = BytesMut::with_capacity(signature.data.len() + 96);
        let mut object = Object::begin(&mut json);
        object.str("o", origin.as_str());
        object.opt_str("p", signature.family.as_deref()).opt_str("a", signature.account.as_deref());
        object.str("k", kind.word()).opt_str("i", signature.item.as_deref()).str("d", &signature.data);
        object.end();
        let body = BASE64_URL_SAFE_NO_PAD.encode(&json);
        let tag = self.tag(&body);
        format!("{MARK}{body}.{tag}")
    }

    /// Reads a carrier, in its own form or as base64 of it; `None` for anything else, also for forgeries.
    pub(crate) fn open(&self, text: &str) -> Option<Opened> {
        let decoded;
        let text = if text.starts_with(ENCODED_MARK) {
            decoded = String::from_utf8(BASE64_STANDARD.decode(text).ok()?).ok()?;
            decoded.as_str()
        } else {
            text
        };
        let (body, tag) = text.strip_prefix(MARK)?.split_once('.')?;
        if self.tag(body) != tag {
            return None;
        }
        let json = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(body).ok()?).ok()?;
        let fields = Fields::lenient(&json, "").ok()?;
        let text = |name: &str| fields.str(name).ok().flatten().map(std::borrow::Cow::into_owned);
        let kind = match text("k")?.as_str() {
            "sig" => Kind::Signature,
            "redacted" => Kind::Redacted,
            "text" => Kind::Text,
            _ => return None,
        };
        let signature =
            Signature { data: text("d")?, item: text("i"), family: text("p"), account: text("a") };
        Some(Opened { kind, origin: registry::by_name(&text("o")?)?.id(), signature })
    }

    fn tag(&self, body: &str) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("a key of any length will do");
        mac.update(body.as_bytes());
        let bytes = mac.finalize().into_bytes();
        bytes[..4].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The same for carriers in their own form alone.
pub(crate) fn is_bare_carrier(text: &str) -> bool {
    text.starts_with(MARK)
}

/// Whether a text is, or pretends to be, a carrier.
pub(crate) fn is_carrier(text: &str) -> bool {
    MARKS.iter().any(|mark| text.starts_with(mark))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::anthropic;

    fn signature() -> Signature {
        Signature {
            data: "Eu\"YB+/=".to_owned(),
            item: Some("rs_1".to_owned()),
            family: Some("claude".to_owned()),
            account: None,
        }
    }

    #[test]
    fn what_was_closed_is_opened() {
        let seal = Seal::new([7; 32]);
        for kind in [Kind::Signature, Kind::Redacted, Kind::Text] {
            let text = seal.close(kind, anthropic::ID, &signature());
            let opened = Opened { kind, origin: anthropic::ID, signature: signature() };
            assert_eq!(seal.open(&text), Some(opened.clone()));
            assert_eq!(seal.open(&BASE64_STANDARD.encode(&text)), Some(opened));
            assert!(is_carrier(&text) && is_carrier(&BASE64_STANDARD.encode(&text)));
        }
    }

    #[test]
    fn forgeries_and_other_texts_are_not_opened() {
        let seal = Seal::new([7; 32]);
        let text = seal.close(Kind::Signature, anthropic::ID, &signature());
        assert_eq!(Seal::new([8; 32]).open(&text), None);
        for at in MARK.len()..text.len() {
            let mut forged = text.clone().into_bytes();
            forged[at] = if forged[at] == b'0' { b'1' } else { b'0' };
            assert_eq!(seal.open(&String::from_utf8(forged).unwrap()), None, "byte {at}");
        }
        for other in ["", "omr1.", "omr1.x.y", "EuYBCkQ", "b21yMS4", "omr1..00000000"] {
            assert_eq!(seal.open(other), None, "{other}");
        }
    }
}
