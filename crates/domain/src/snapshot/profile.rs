//! Which durations a connection gets, and which breaker it stands behind.

use std::sync::Arc;

use omniroute_provider::{Endpoint, ProviderSpec, address, spec::ResilienceProfile};

use crate::breaker::BreakerPolicy;
use crate::entity::{AuthType, ResilienceSettings};
use crate::health::Profile;

/// The profiles of the settings, made once and shared by all connections.
pub(super) struct Profiles {
    oauth: Arc<Profile>,
    apikey: Arc<Profile>,
    local: Arc<Profile>,
    is_local_breaker_chosen: bool,
}

impl Profiles {
    pub(super) fn new(settings: &ResilienceSettings) -> Self {
        let profile = |kind| Arc::new(Profile::new(settings, kind));
        Self {
            oauth: profile(ResilienceProfile::Oauth),
            apikey: profile(ResilienceProfile::Apikey),
            local: profile(ResilienceProfile::Local),
            is_local_breaker_chosen: settings.profiles.local.names_breaker(),
        }
    }

    pub(super) fn of(&self, kind: ResilienceProfile) -> Arc<Profile> {
        match kind {
            ResilienceProfile::Oauth => self.oauth.clone(),
            ResilienceProfile::Apikey => self.apikey.clone(),
            ResilienceProfile::Local => self.local.clone(),
        }
    }

    /// When the breaker opens. A machine of one's own that has only one address has nothing to be kept from, and
    /// nothing to go to instead: it is always asked, unless the operator chose otherwise.
    pub(super) fn breaker(&self, kind: ResilienceProfile, is_alone: bool) -> Option<BreakerPolicy> {
        let is_off = kind == ResilienceProfile::Local && is_alone && !self.is_local_breaker_chosen;
        (!is_off).then(|| self.of(kind).breaker())
    }
}

/// Which durations a connection gets.
pub(super) fn kind(
    provider: ResilienceProfile,
    auth_type: AuthType,
    endpoints: &[Endpoint],
) -> ResilienceProfile {
    let is_local = || {
        let uri = endpoints.first().and_then(|endpoint| endpoint.chat_uri("m", false).ok());
        uri.is_some_and(|uri| address::is_local_host(&uri))
    };
    if auth_type == AuthType::Oauth {
        ResilienceProfile::Oauth
    } else if provider == ResilienceProfile::Local || is_local() {
        ResilienceProfile::Local
    } else {
        ResilienceProfile::Apikey
    }
}

/// The name of the breaker that stands for where a connection leads: the provider's id, with the address behind it where
/// that is the connection's own. Without user names, passwords and queries.
pub(super) fn breaker_name(spec: &ProviderSpec, base_url: Option<&str>, endpoints: &[Endpoint]) -> String {
    let id = &spec.id;
    if base_url.is_none() && !spec.base_url.contains('{') {
        return id.to_string();
    }
    let Some(uri) = endpoints.first().and_then(|endpoint| endpoint.chat_uri("m", false).ok()) else {
        return id.to_string();
    };
    let host = uri.host().unwrap_or_default().to_ascii_lowercase();
    let port = uri.port().map_or_else(String::new, |port| format!(":{port}"));
    let path = base_url.and_then(|url| url.split_once("://")?.1.split_once('/')).map_or("", |(_, path)| path);
    let path = path.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/');
    let slash = if path.is_empty() { "" } else { "/" };
    format!("{id}@{host}{port}{slash}{path}")
}
