//! The behaviour of a provider: defaults over its [`ProviderSpec`], so that most providers are only data.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderMap, StatusCode, Uri};
use omniroute_dialect::{DialectId, ir::UpstreamError};

use crate::{Failure, ProviderSpec, QuotaApi, endpoint, service::Service, spec::ResilienceProfile};

/// What a connection gives its provider to build an endpoint from.
#[derive(Clone, Default)]
pub struct ConnectionInput<'a> {
    /// The decrypted key.
    pub api_key: Option<&'a str>,
    /// Replaces the spec's base URL.
    pub base_url: Option<&'a str>,
    /// Values for `{name}` in URLs and headers.
    pub vars: BTreeMap<String, String>,
    /// Headers to add or replace.
    pub extra_headers: BTreeMap<String, String>,
    /// Forces one of the provider's dialects, by id or long name.
    pub dialect: Option<&'a str>,
}

/// Where and how a connection is called in one dialect; ready to use, built once per configuration change.
#[derive(Clone)]
pub struct Endpoint {
    /// The dialect spoken there.
    pub dialect: DialectId,
    /// URL of the chat operation; `None` when it depends on the model (then `template` is set).
    pub chat: Option<Uri>,
    /// URL of the chat operation when streaming, where it differs from `chat`.
    pub chat_stream: Option<Uri>,
    /// URL template with `{model}` for chat and for streaming, where the model is in the path.
    pub template: Option<(String, String)>,
    /// URL of the model list, if there is one.
    pub models: Option<Uri>,
    /// Every header of a request, credential included (marked sensitive).
    pub headers: HeaderMap,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint")
            .field("dialect", &self.dialect)
            .field("chat", &self.chat)
            .finish_non_exhaustive()
    }
}

/// Why a connection cannot be called as it is configured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// A variable of the URL has no value.
    #[error("`{0}` is not set; put it into providerSpecificData")]
    MissingVariable(String),
    /// The provider needs a key.
    #[error("an API key is needed")]
    MissingKey,
    /// A URL does not parse.
    #[error("`{url}` is not a valid URL: {reason}")]
    BadUrl {
        /// The URL as it came out.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A header does not parse.
    #[error("header `{0}` has an invalid name or value")]
    BadHeader(String),
    /// The scheme or dialect is not built yet.
    #[error("{0}")]
    Unsupported(String),
}

/// One upstream vendor.
pub trait Provider: Send + Sync {
    /// Its data.
    fn spec(&self) -> &ProviderSpec;

    /// Builds the endpoints of a connection, the preferred one first.
    fn endpoints(&self, input: &ConnectionInput<'_>) -> Result<Vec<Endpoint>, EndpointError>;

    /// What a connection can be asked for beside chat; empty where that is nothing.
    fn services(&self, input: &ConnectionInput<'_>) -> Result<Vec<Service>, EndpointError> {
        endpoint::services(self.spec(), input)
    }

    /// How the vendor is asked what is left; `None` where it cannot be.
    fn quota_api(&self, input: &ConnectionInput<'_>) -> Result<Option<Arc<QuotaApi>>, EndpointError> {
        endpoint::quota::build(self.spec(), input)
    }

    /// Judges an upstream's error. `now_ms` is UTC, for upstreams that name a time instead of a duration.
    fn classify(&self, error: UpstreamError, status: StatusCode, headers: &HeaderMap, now_ms: i64)
    -> Failure;

    /// Which durations its failures get.
    fn resilience_profile(&self) -> ResilienceProfile {
        self.spec().resilience_profile
    }
}
