//! What a provider is, as data: the contents of the files in `catalog/`, and of a user-defined node.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A provider's id: `openai`, or `openai-compatible-chat-<uuid>` for a user-defined node. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ProviderId(Arc<str>);

impl ProviderId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for ProviderId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl From<&str> for ProviderId {
    fn from(id: &str) -> Self {
        Self(id.into())
    }
}

impl From<String> for ProviderId {
    fn from(id: String) -> Self {
        Self(id.into())
    }
}

impl From<&ProviderId> for Arc<str> {
    fn from(id: &ProviderId) -> Self {
        Self::clone(&id.0)
    }
}

impl fmt::Display for ProviderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ProviderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One provider.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderSpec {
    /// Unique id.
    pub id: ProviderId,
    /// Name for people.
    pub name: String,
    /// The canonical model prefix, shown in lists.
    pub alias: String,
    /// Other accepted prefixes.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Where it belongs in lists.
    pub category: Category,
    /// Base of all paths. `{name}` is filled from the connection's variables.
    pub base_url: String,
    /// Long name of the dialect it is spoken to in.
    pub dialect: String,
    /// Other dialects it speaks natively.
    #[serde(default)]
    pub alt_dialects: Vec<AltDialect>,
    /// How it is authenticated to.
    pub auth: Auth,
    /// Headers of every request; values may hold `{name}`.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Variables of URLs and headers, with their defaults; an empty default must be set by the connection.
    #[serde(default)]
    pub vars: BTreeMap<String, String>,
    /// Paths by operation (`chat`, `models`, …), below `base_url` or absolute.
    #[serde(default)]
    pub paths: BTreeMap<String, String>,
    /// What it offers (`chat`, `embeddings`, `list_models`, …).
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// Which set of rate-limit headers it sends.
    #[serde(default)]
    pub rate_limit_headers: RateLimitHeaders,
    /// Which durations its failures get.
    #[serde(default)]
    pub resilience_profile: ResilienceProfile,
    /// Models to list before the provider was asked.
    #[serde(default)]
    pub models: Vec<String>,
    /// Whether its answers say in US dollars what was billed for them (`usage.cost`).
    #[serde(default)]
    pub reports_cost: bool,
    /// Names that models had or are written with elsewhere, and the ones they have.
    #[serde(default)]
    pub legacy_models: BTreeMap<String, String>,
    /// For people.
    #[serde(default)]
    pub notes: Option<String>,
    /// How sure the data is.
    #[serde(default)]
    pub confidence: Confidence,
}

impl ProviderSpec {
    /// The name that the provider has for a model now.
    pub fn current_name<'a>(&'a self, model: &'a str) -> &'a str {
        self.legacy_models.get(model).map_or(model, String::as_str)
    }
}

/// A dialect beside the primary one.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AltDialect {
    /// Long name.
    pub dialect: String,
    /// Base of its path.
    pub base_url: String,
    /// Whether it is used without being named by the connection.
    #[serde(default = "yes")]
    pub auto: bool,
}

fn yes() -> bool {
    true
}

/// How a provider is authenticated to.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// The scheme.
    pub kind: AuthKind,
    /// The header that carries the credential.
    pub header: Option<String>,
    /// What stands before the credential in the header.
    pub prefix: Option<String>,
    /// The environment variable that people keep the credential in.
    pub env: Option<String>,
    /// The OAuth definition, where third parties may use one.
    pub oauth: Option<String>,
}

/// Schemes of authentication.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthKind {
    /// A key in a header.
    ApiKey,
    /// A key in a header, or none.
    ApiKeyOptional,
    /// None needed; a key that is given is sent as Bearer.
    None,
    /// AWS request signing, or a Bedrock key as Bearer.
    AwsSigv4,
    /// A Google service account or OAuth refresh token.
    Gcp,
    /// OAuth client credentials.
    ClientCredentials,
    /// IBM's token exchange.
    IbmIam,
}

/// Where a provider belongs in lists, in the order of lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Category {
    /// Makers of leading models.
    Frontier,
    /// Makers serving one region.
    Regional,
    /// Hosts of open models.
    Inference,
    /// Resellers of several providers.
    Gateway,
    /// Large clouds.
    Cloud,
    /// Speech, images, embeddings.
    Media,
    /// On the operator's own machines.
    Local,
    /// Defined by the operator.
    Custom,
}

/// Sets of rate-limit headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RateLimitHeaders {
    /// `x-ratelimit-*-requests` and `-tokens`.
    Openai,
    /// `anthropic-ratelimit-*`.
    Anthropic,
    /// `x-ratelimit-*` or `ratelimit-*`.
    Generic,
    /// Those of Fireworks.
    Fireworks,
    /// In the body's error details.
    Google,
    /// Only `retry-after`.
    #[default]
    None,
}

/// Sets of durations for failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResilienceProfile {
    /// Subscriptions behind OAuth.
    Oauth,
    /// Metered keys.
    #[default]
    Apikey,
    /// The operator's own machines.
    Local,
}

/// How sure an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Confidence {
    /// Public documentation, or two sources that agree.
    High,
    /// One source.
    #[default]
    Medium,
    /// Check before use.
    Low,
}
