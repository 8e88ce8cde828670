//! Signatures in the manner of the Standard Webhooks specification: HMAC-SHA256 over id, time and body, in base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::Sha256;

/// How secrets begin.
const PREFIX: &str = "whsec_";

/// A new secret: 256 random bits.
pub(crate) fn new_secret() -> SecretString {
    SecretString::from(format!("{PREFIX}{}", STANDARD.encode(rand::random::<[u8; 32]>())))
}

/// The value of `webhook-signature`: one signature for each secret that is good at the moment, the newest first.
pub(super) fn signature(secrets: &[SecretString], id: &str, timestamp: i64, body: &[u8]) -> String {
    let signed = secrets.iter().filter_map(|secret| {
        let text = secret.expose_secret();
        let key = STANDARD.decode(text.strip_prefix(PREFIX).unwrap_or(text)).ok()?;
        // HMAC takes keys of any length.
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).ok()?;
        mac.update(format!("{id}.{timestamp}.").as_bytes());
        mac.update(body);
        Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
    });
    signed.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_of_the_specifications_example() {
        // https://github.com/standard-webhooks/standard-webhooks, the test of its libraries; read 2026-11-27.
        let secret = SecretString::from("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let got =
            signature(&[secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(got, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn secrets_are_never_the_same_and_each_signs() {
        let (one, two) = (new_secret(), new_secret());
        assert_ne!(one.expose_secret(), two.expose_secret());
        assert_eq!(STANDARD.decode(&one.expose_secret()[PREFIX.len()..]).map(|key| key.len()), Ok(32));
        let both = signature(&[one.clone(), two.clone()], "evt_1", 1, b"{}");
        let alone = [one, two].map(|secret| signature(&[secret], "evt_1", 1, b"{}"));
        assert_eq!(both, alone.join(" "));
    }
}
