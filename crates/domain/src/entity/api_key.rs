//! A client's key.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{ApiKeyId, KeyRights};

/// SHA-256 of a key's text. Keys have 256 random bits, so a slow hash would add nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash(pub [u8; 32]);

impl KeyHash {
    /// The hash of a key as the client sent it.
    pub fn of(key: &str) -> Self {
        Self(Sha256::digest(key.as_bytes()).into())
    }

    /// As stored: lower-case hexadecimal.
    pub fn to_hex(self) -> String {
        use std::fmt::Write as _;
        self.0.iter().fold(String::with_capacity(64), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    /// From lower- or upper-case hexadecimal.
    pub fn from_hex(text: &str) -> Option<Self> {
        if text.len() != 64 || !text.is_ascii() {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl std::fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyHash(..)")
    }
}

/// A client's key and what it may do. Empty lists restrict nothing.
#[derive(Debug, Clone)]
pub struct ApiKey {
    /// Row id.
    pub id: ApiKeyId,
    /// Name for people.
    pub name: String,
    /// Hash of the key.
    pub hash: KeyHash,
    /// What is shown instead of the key: first and last characters.
    pub masked: String,
    /// Whether it may be used.
    pub is_active: bool,
    /// Whether its request and response bodies are kept out of the logs.
    pub no_log: bool,
    /// Patterns of models it may use.
    pub allowed_models: Vec<String>,
    /// Patterns of models it may not use.
    pub denied_models: Vec<String>,
    /// Connections it may use.
    pub allowed_connections: Vec<String>,
    /// Endpoints it may call (`chat`, `messages`, `models`, …).
    pub allowed_endpoints: Vec<String>,
    /// What else it may do.
    pub scopes: Vec<Scope>,
    /// Addresses and networks it may be used from.
    pub ip_allowlist: Vec<String>,
    /// Requests per minute.
    pub max_requests_per_minute: Option<u32>,
    /// Requests per day (UTC).
    pub max_requests_per_day: Option<u32>,
    /// Tokens per minute, prompt and output together.
    pub max_tokens_per_minute: Option<u64>,
    /// Requests at once.
    pub max_concurrent: Option<u32>,
    /// Conversations at once; 0 = as many as it likes.
    pub max_sessions: u32,
    /// Every request as if it asked for strict translation.
    pub strict: bool,
    /// Combos, times, choices made for it.
    pub rights: KeyRights,
    /// End of validity.
    pub expires_at: Option<i64>,
    /// When it was revoked.
    pub revoked_at: Option<i64>,
    /// Last use, to within a flush of the log.
    pub last_used_at: Option<i64>,
    /// Creation.
    pub created_at: i64,
}

/// Rights beyond calling models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// The management API.
    Manage,
    /// Synchronisation with a peer.
    Sync,
    /// `/metrics`.
    Metrics,
}
