//! An account at a provider.

use std::collections::BTreeMap;

use omniroute_provider::ProviderId;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::{ConnectionId, Discount, KeyPool, QuotaWindow};

/// One account or key at one provider.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Row id.
    pub id: ConnectionId,
    /// A catalogue id or a node's id.
    pub provider: ProviderId,
    /// How it authenticates.
    pub auth_type: AuthType,
    /// Name for people, unique within the provider.
    pub name: String,
    /// A longer name.
    pub display_name: Option<String>,
    /// The account's e-mail.
    pub email: Option<String>,
    /// Order within the provider, 1 first. 0 until it has a place.
    pub priority: i64,
    /// Order across providers.
    pub global_priority: Option<i64>,
    /// Whether it may be used.
    pub is_active: bool,
    /// The credential, decrypted.
    pub api_key: Option<SecretString>,
    /// Provider-specific values.
    pub options: ConnectionOptions,
    /// The model a test uses.
    pub default_model: Option<String>,
    /// Hold back by learned limits.
    pub rate_limit_protection: bool,
    /// Most requests at once.
    pub max_concurrent: Option<u32>,
    /// Seconds between health checks.
    pub health_check_interval: Option<i64>,
    /// A group for people.
    pub group: Option<String>,
    /// Labels that policies match.
    pub tags: Vec<String>,
    /// When the credential ends.
    pub expires_at: Option<i64>,
    /// What is known of its state; written by tests and by traffic.
    pub status: ConnectionStatus,
    /// The same of its keys, where it has several, by the ids of their states. Where nothing is to be told, there is nothing.
    pub key_statuses: BTreeMap<ConnectionId, ConnectionStatus>,
    /// Creation.
    pub created_at: i64,
    /// Last change by the operator.
    pub updated_at: i64,
}

impl Connection {
    /// One that asks with a key, which is still to be set. It comes last where it is stored.
    pub fn new(id: ConnectionId, provider: ProviderId, name: impl Into<String>, now_ms: i64) -> Self {
        Self {
            id,
            provider,
            auth_type: AuthType::Apikey,
            name: name.into(),
            display_name: None,
            email: None,
            priority: 0,
            global_priority: None,
            is_active: true,
            api_key: None,
            options: ConnectionOptions::default(),
            default_model: None,
            rate_limit_protection: false,
            max_concurrent: None,
            health_check_interval: None,
            group: None,
            tags: Vec::new(),
            expires_at: None,
            status: ConnectionStatus::default(),
            key_statuses: BTreeMap::new(),
            created_at: now_ms,
            updated_at: now_ms,
        }
    }

    /// Whether its requests are held back by limits: as chosen for it, else as its kind is.
    pub fn is_held_to_limits(&self, with_keys: bool) -> bool {
        let by_kind = self.rate_limit_protection || (self.auth_type != AuthType::Oauth && with_keys);
        self.options.limiter.unwrap_or(by_kind)
    }
}

/// What tests and traffic found out about a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnectionStatus {
    /// The verdict.
    pub test_status: TestStatus,
    /// Last test.
    pub last_tested: Option<i64>,
    /// Last request.
    pub last_used_at: Option<i64>,
    /// Last error in words, scrubbed.
    pub last_error: Option<String>,
    /// When.
    pub last_error_at: Option<i64>,
    /// Its class (`rate_limit`, `auth`, …).
    pub last_error_type: Option<String>,
    /// `upstream`, `local` or `oauth`.
    pub last_error_source: Option<String>,
    /// Its HTTP status.
    pub error_code: Option<i64>,
    /// How often in a row it had to cool down.
    pub backoff_level: i64,
    /// End of the cooldown.
    pub rate_limited_until: Option<i64>,
    /// Requests in a row on this account (round-robin).
    pub consecutive_use_count: i64,
}

impl ConnectionStatus {
    /// The same of an account that nothing is held against.
    pub fn without_errors(&self) -> Self {
        let is_good = matches!(self.test_status, TestStatus::Unknown | TestStatus::Active);
        Self {
            test_status: if is_good { self.test_status } else { TestStatus::Unknown },
            last_tested: self.last_tested,
            last_used_at: self.last_used_at,
            consecutive_use_count: self.consecutive_use_count,
            ..Self::default()
        }
    }
}

/// How a connection authenticates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthType {
    /// With a key.
    Apikey,
    /// With OAuth tokens.
    Oauth,
    /// Not at all.
    None,
    /// With AWS credentials.
    Aws,
    /// With Google credentials.
    Gcp,
}

/// The verdict of the last test or of traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TestStatus {
    /// Not tried yet.
    #[default]
    Unknown,
    /// Works.
    Active,
    /// Was refused repeatedly.
    Error,
    /// Could not be reached.
    Unavailable,
    /// The credential has ended. Terminal.
    Expired,
    /// The account is closed. Terminal.
    Banned,
    /// No credit left. Terminal.
    CreditsExhausted,
}

impl TestStatus {
    /// Whether only new credentials, a good test or the operator can bring the account back.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Expired | Self::Banned | Self::CreditsExhausted)
    }

    /// The word stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Active => "active",
            Self::Error => "error",
            Self::Unavailable => "unavailable",
            Self::Expired => "expired",
            Self::Banned => "banned",
            Self::CreditsExhausted => "credits_exhausted",
        }
    }
}

/// `providerSpecificData`: what only some providers need.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionOptions {
    /// Replaces the provider's base URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_url: Option<String>,
    /// Whether private and loopback addresses may be called.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_private: bool,
    /// Forces one of the provider's dialects, by id or long name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dialect: Option<String>,
    /// Headers to add or replace.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extra_headers: BTreeMap<String, String>,
    /// Models this account does not serve; `*` matches any run of characters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub excluded_models: Vec<String>,
    /// Further keys of the account. They are kept apart from the rest, encrypted.
    #[serde(skip)]
    pub api_keys: KeyPool,
    /// Whether its requests are held back by limits; where nothing is said, as its kind is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limiter: Option<bool>,
    /// Its share where accounts are chosen by weight; 1 where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// What it pays less than the list price, where the cheapest account is chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discount: Option<Discount>,
    /// What its plan allows, where the vendor does not say so itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quota_windows: Vec<QuotaWindow>,
    /// Everything else: values of the provider's URL and header variables (`region`, `resource`, …).
    #[serde(flatten)]
    pub vars: BTreeMap<String, String>,
}
