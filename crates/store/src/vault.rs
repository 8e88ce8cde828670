//! Secrets at rest: `enc:v2:<key id>:<base64url of nonce, ciphertext and tag>`, XChaCha20-Poly1305.
//!
//! The place of a value (`table.column.row id`) is authenticated with it, so that values cannot be swapped between
//! rows. From the master key three are derived: one encrypts, one makes fingerprints by which equal credentials are
//! found without decrypting any, one makes the key's public id.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use hkdf::Hkdf;
use hmac::{Hmac, Mac as _};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::error::StoreError;
use crate::text::{from_hex, random, to_hex};

const PREFIX: &str = "enc:v2:";
const NONCE_LEN: usize = 24;
/// What `key_check` in `db_meta` decrypts to, and where it stands.
const CHECK_TEXT: &str = "omniroute";
const CHECK_PLACE: &str = "db_meta.value.key_check";
/// Shorter passphrases are refused.
const MIN_PASSPHRASE: usize = 12;

/// Whether secrets can be read and written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cryptography {
    /// Yes.
    Ok,
    /// Yes, but stored ones still are encrypted with the previous key.
    RotationPending,
    /// No: there is no key, or not the one that the stored secrets were encrypted with.
    MissingOrInvalid {
        /// In words.
        reason: String,
    },
}

/// 32 bytes that everything else is derived from.
#[derive(Clone)]
pub(crate) struct MasterKey(Zeroizing<[u8; 32]>);

impl MasterKey {
    /// A new one.
    pub(crate) fn generate() -> Self {
        Self(Zeroizing::new(random()))
    }

    /// As kept in `secret.key`.
    pub(crate) fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(to_hex(&self.0[..]))
    }

    /// 32 bytes written in hexadecimal or base64.
    pub(crate) fn from_random(text: &str) -> Option<Self> {
        let text = text.trim();
        let bytes = Zeroizing::new(
            if text.len() == 64 { from_hex(text) } else { None }
                .or_else(|| STANDARD.decode(text).ok())
                .or_else(|| STANDARD_NO_PAD.decode(text).ok())
                .or_else(|| URL_SAFE.decode(text).ok())
                .or_else(|| URL_SAFE_NO_PAD.decode(text).ok())?,
        );
        let key: [u8; 32] = bytes.as_slice().try_into().ok()?;
        Some(Self(Zeroizing::new(key)))
    }

    /// Stretched from something a person thought of. Takes tens of milliseconds; call it where blocking is fine.
    pub(crate) fn from_passphrase(text: &str, salt: &[u8]) -> Result<Self, StoreError> {
        if text.chars().count() < MIN_PASSPHRASE {
            return Err(StoreError::EncryptionKey(format!(
                "give 32 random bytes in hexadecimal or base64, or a passphrase of at least {MIN_PASSPHRASE} characters"
            )));
        }
        let mut key = Zeroizing::new([0; 32]);
        argon2::Argon2::default().hash_password_into(text.as_bytes(), salt, &mut key[..]).map_err(
            |error| StoreError::EncryptionKey(format!("the passphrase cannot be stretched: {error}")),
        )?;
        Ok(Self(key))
    }
}

/// Encrypts, decrypts and recognises secrets.
pub(crate) struct Vault {
    current: Option<Keys>,
    previous: Option<Keys>,
    status: Cryptography,
}

impl Vault {
    /// A vault that reads nothing.
    pub(crate) fn closed(reason: impl Into<String>) -> Self {
        Self {
            current: None,
            previous: None,
            status: Cryptography::MissingOrInvalid { reason: reason.into() },
        }
    }

    /// A vault with a key, judged by the stored check value. Without one, any key is good.
    pub(crate) fn new(
        current: &MasterKey,
        previous: Option<&MasterKey>,
        salt: &[u8],
        key_check: Option<&str>,
    ) -> Result<Self, StoreError> {
        let current = Keys::derive(current, salt)?;
        let previous = previous.map(|key| Keys::derive(key, salt)).transpose()?;
        let checks = |keys: &Keys| {
            key_check.is_none_or(|check| {
                keys.open(CHECK_PLACE, check).is_ok_and(|text| text.expose_secret() == CHECK_TEXT)
            })
        };
        let status = if checks(&current) {
            Cryptography::Ok
        } else if previous.as_ref().is_some_and(checks) {
            Cryptography::RotationPending
        } else {
            Cryptography::MissingOrInvalid {
                reason:
                    "the encryption key is not the one that the stored secrets were encrypted with; give the \
                         right one, or this one as the current and the old one as the previous key"
                        .into(),
            }
        };
        Ok(Self { current: Some(current), previous, status })
    }

    /// The same vault, once nothing is left that the previous key encrypted.
    pub(crate) fn rotated(vault: &Self) -> Self {
        Self { current: vault.current.clone(), previous: None, status: Cryptography::Ok }
    }

    /// Whether secrets can be read and written.
    pub(crate) fn status(&self) -> &Cryptography {
        &self.status
    }

    /// The value by which the key is recognised at the next start.
    pub(crate) fn key_check(&self) -> Result<String, StoreError> {
        self.seal(CHECK_PLACE, CHECK_TEXT)
    }

    /// Encrypts a value for its place.
    pub(crate) fn seal(&self, place: &str, text: &str) -> Result<String, StoreError> {
        self.writing()?.seal(place, text)
    }

    /// Decrypts the value of a place.
    pub(crate) fn open(&self, place: &str, stored: &str) -> Result<SecretString, VaultError> {
        let id = stored.strip_prefix(PREFIX).and_then(|rest| rest.split_once(':')).ok_or(VaultError::Form)?.0;
        [&self.current, &self.previous]
            .into_iter()
            .flatten()
            .find(|keys| keys.id == id)
            .ok_or(VaultError::OtherKey)?
            .open(place, stored)
    }

    /// Equal for equal secrets, and tells nothing else about them.
    pub(crate) fn fingerprint(&self, text: &str) -> Result<String, StoreError> {
        Ok(self.writing()?.fingerprint(text))
    }

    /// Whether a value is encrypted, by whatever key.
    pub(crate) fn is_sealed(stored: &str) -> bool {
        stored.starts_with(PREFIX)
    }

    /// Whether the current key encrypted a value.
    pub(crate) fn is_current(&self, stored: &str) -> bool {
        self.current.as_ref().is_some_and(|keys| {
            stored
                .strip_prefix(PREFIX)
                .and_then(|rest| rest.split_once(':'))
                .is_some_and(|(id, _)| id == keys.id)
        })
    }

    fn writing(&self) -> Result<&Keys, StoreError> {
        match (&self.status, &self.current) {
            (Cryptography::Ok | Cryptography::RotationPending, Some(keys)) => Ok(keys),
            (Cryptography::MissingOrInvalid { reason }, _) => Err(StoreError::Cryptography(reason.clone())),
            (Cryptography::Ok | Cryptography::RotationPending, None) => {
                Err(StoreError::Cryptography("there is no encryption key".into()))
            }
        }
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").field("status", &self.status).finish_non_exhaustive()
    }
}

/// Why a value cannot be decrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum VaultError {
    #[error("it is not in an encrypted form this version knows")]
    Form,
    #[error("it was encrypted with another key")]
    OtherKey,
    #[error("it was damaged or moved from another row")]
    Damaged,
}

#[derive(Clone)]
struct Keys {
    id: String,
    cipher: XChaCha20Poly1305,
    fingerprint: Zeroizing<[u8; 32]>,
}

impl Keys {
    fn derive(master: &MasterKey, salt: &[u8]) -> Result<Self, StoreError> {
        let hkdf = Hkdf::<Sha256>::new(Some(salt), &master.0[..]);
        let expand = |purpose: &str, out: &mut [u8]| {
            hkdf.expand(purpose.as_bytes(), out)
                .map_err(|_| StoreError::EncryptionKey("keys cannot be derived from it".into()))
        };
        let mut encryption = Zeroizing::new([0; 32]);
        let mut fingerprint = Zeroizing::new([0; 32]);
        let mut id = [0; 4];
        expand("omniroute encryption v2", &mut encryption[..])?;
        expand("omniroute fingerprint v2", &mut fingerprint[..])?;
        expand("omniroute key id v2", &mut id)?;
        let cipher = XChaCha20Poly1305::new_from_slice(&encryption[..])
            .map_err(|_| StoreError::EncryptionKey("keys cannot be derived from it".into()))?;
        Ok(Self { id: to_hex(&id), cipher, fingerprint })
    }

    fn seal(&self, place: &str, text: &str) -> Result<String, StoreError> {
        let nonce = random::<NONCE_LEN>();
        let sealed = self
            .cipher
            .encrypt(&XNonce::from(nonce), Payload { msg: text.as_bytes(), aad: place.as_bytes() })
            .map_err(|_| StoreError::Cryptography("the value is too long".into()))?;
        let mut bytes = Vec::with_capacity(NONCE_LEN + sealed.len());
        bytes.extend_from_slice(&nonce);
        bytes.extend_from_slice(&sealed);
        Ok(format!("{PREFIX}{}:{}", self.id, URL_SAFE_NO_PAD.encode(bytes)))
    }

    fn open(&self, place: &str, stored: &str) -> Result<SecretString, VaultError> {
        let (id, data) =
            stored.strip_prefix(PREFIX).and_then(|rest| rest.split_once(':')).ok_or(VaultError::Form)?;
        if id != self.id {
            return Err(VaultError::OtherKey);
        }
        let bytes = URL_SAFE_NO_PAD.decode(data).map_err(|_| VaultError::Form)?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE_LEN>().ok_or(VaultError::Form)?;
        let text = self
            .cipher
            .decrypt(&XNonce::from(*nonce), Payload { msg: sealed, aad: place.as_bytes() })
            .map_err(|_| VaultError::Damaged)?;
        String::from_utf8(text).map(SecretString::from).map_err(|_| VaultError::Damaged)
    }

    fn fingerprint(&self, text: &str) -> String {
        // HMAC takes keys of any length.
        let Ok(mut mac) = <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(&self.fingerprint[..]) else {
            return String::new();
        };
        mac.update(text.as_bytes());
        to_hex(&mac.finalize().into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn vault(key: u8) -> Vault {
        Vault::new(&MasterKey(Zeroizing::new([key; 32])), None, b"salt", None).unwrap()
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens_only_in_its_place(text in ".{0,200}", place in "[a-z.]{1,30}", other in "[a-z.]{1,30}") {
            let vault = vault(1);
            let sealed = vault.seal(&place, &text).unwrap();
            let opened = vault.open(&place, &sealed).unwrap();
            prop_assert_eq!(opened.expose_secret(), &text);
            if other != place {
                prop_assert!(matches!(vault.open(&other, &sealed), Err(VaultError::Damaged)));
            }
            prop_assert!(!sealed.contains(&text) || text.len() < 4);
        }

        #[test]
        fn any_flipped_byte_is_noticed(text in ".{1,40}", at in 0usize..500) {
            let vault = vault(1);
            let mut sealed = vault.seal("t.c.1", &text).unwrap().into_bytes();
            let at = at % sealed.len();
            sealed[at] = if sealed[at] == b'A' { b'B' } else { b'A' };
            prop_assert!(vault.open("t.c.1", std::str::from_utf8(&sealed).unwrap()).is_err());
        }

        #[test]
        fn no_text_makes_it_fail_otherwise(stored in ".{0,100}") {
            prop_assert!(vault(1).open("t.c.1", &stored).is_err());
            let stored = format!("enc:v2:{stored}");
            prop_assert!(vault(1).open("t.c.1", &stored).is_err());
        }
    }

    #[test]
    fn the_same_text_never_looks_the_same_but_has_one_fingerprint() {
        let vault = vault(1);
        assert_ne!(vault.seal("p", "sk-1").unwrap(), vault.seal("p", "sk-1").unwrap());
        assert_eq!(vault.fingerprint("sk-1").unwrap(), vault.fingerprint("sk-1").unwrap());
        assert_ne!(vault.fingerprint("sk-1").unwrap(), vault.fingerprint("sk-2").unwrap());
        assert_ne!(vault.fingerprint("sk-1").unwrap(), super::tests::vault(2).fingerprint("sk-1").unwrap());
    }

    #[test]
    fn a_wrong_key_is_recognised_and_a_previous_one_reads() {
        let (old, new) = (MasterKey(Zeroizing::new([1; 32])), MasterKey(Zeroizing::new([2; 32])));
        let before = Vault::new(&old, None, b"salt", None).unwrap();
        let check = before.key_check().unwrap();
        let sealed = before.seal("p", "secret").unwrap();

        let wrong = Vault::new(&new, None, b"salt", Some(&check)).unwrap();
        assert!(matches!(wrong.status(), Cryptography::MissingOrInvalid { .. }));
        assert!(matches!(wrong.seal("p", "x"), Err(StoreError::Cryptography(_))));
        assert_eq!(wrong.open("p", &sealed).err(), Some(VaultError::OtherKey));

        let both = Vault::new(&new, Some(&old), b"salt", Some(&check)).unwrap();
        assert_eq!(*both.status(), Cryptography::RotationPending);
        assert_eq!(both.open("p", &sealed).unwrap().expose_secret(), "secret");
        assert!(!both.is_current(&sealed));
        assert!(both.is_current(&both.seal("p", "secret").unwrap()));
    }

    #[test]
    fn keys_are_read_in_the_usual_forms() {
        let key = MasterKey(Zeroizing::new([0xfb; 32]));
        for text in [
            key.to_text().to_string(),
            STANDARD.encode(&key.0[..]),
            URL_SAFE_NO_PAD.encode(&key.0[..]) + "\n",
        ] {
            assert_eq!(*MasterKey::from_random(&text).unwrap().0, *key.0, "{text}");
        }
        assert!(MasterKey::from_random("correct horse battery staple").is_none());
        assert!(MasterKey::from_passphrase("short", b"saltsaltsaltsalt").is_err());
        let stretched =
            MasterKey::from_passphrase("correct horse battery staple", b"saltsaltsaltsalt").unwrap();
        assert_ne!(*stretched.0, *key.0);
    }
}
