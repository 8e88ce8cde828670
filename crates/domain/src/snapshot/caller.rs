//! A client that identified itself, and what its key allows.

use std::sync::Arc;

use ipnet::IpNet;

use super::SnapshotProblem;
use crate::entity::{ApiKey, ApiKeyId, ConnectionId, KeySimilarity, Scope, ThinkingSettings};
use crate::hours::Schedule;
use crate::limit::Meter;
use crate::pattern::Pattern;

/// A client that identified itself.
pub struct Caller {
    /// The key's id.
    pub id: ApiKeyId,
    /// The key's name.
    pub name: Arc<str>,
    /// Whether it may be used at all.
    pub is_active: bool,
    /// End of validity.
    pub expires_at: Option<i64>,
    /// Whether bodies stay out of the logs.
    pub no_log: bool,
    /// Conversations at once; 0 = as many as it likes.
    pub max_sessions: u32,
    /// Every request as if it asked for strict translation.
    pub strict: bool,
    /// Rights beyond calling models.
    pub scopes: Vec<Scope>,
    /// Limits to reserve against, in the order in which they are checked.
    pub limits: Vec<(Meter, u64)>,
    /// Whether a name that several providers have is settled for it, rather than refused.
    pub auto_resolve: bool,
    /// Whether its requests neither get kept answers nor leave any.
    pub no_cache: bool,
    /// Whether its questions get the answers of others that are close; what is absent is as the settings say.
    pub similarity: KeySimilarity,
    /// How much its requests reason; `None` = as the settings say.
    pub thinking: Option<ThinkingSettings>,
    allowed_combos: Vec<Pattern>,
    schedule: Option<Schedule>,
    allowed_models: Vec<Pattern>,
    denied_models: Vec<Pattern>,
    allowed_connections: Vec<String>,
    allowed_endpoints: Vec<String>,
    networks: Vec<IpNet>,
}

impl Caller {
    pub(super) fn new(key: &ApiKey, problems: &mut Vec<SnapshotProblem>) -> Self {
        let mut networks = Vec::new();
        for entry in &key.ip_allowlist {
            match parse_network(entry) {
                Some(network) => networks.push(network),
                None => problems.push(SnapshotProblem {
                    entity: "api key",
                    id: key.id.to_string(),
                    message: format!(
                        "`{entry}` in ipAllowlist is neither an address nor a network; the key is off"
                    ),
                }),
            }
        }
        let schedule = key.rights.access_schedule.as_ref().filter(|schedule| schedule.enabled);
        let schedule = schedule.map(Schedule::new).transpose();
        if let Err(error) = &schedule {
            let message = format!("accessSchedule: {error}; the key is off");
            problems.push(SnapshotProblem { entity: "api key", id: key.id.to_string(), message });
        }
        let broken = networks.len() != key.ip_allowlist.len() || schedule.is_err();
        let limits = [
            (Meter::RequestsPerMinute, key.max_requests_per_minute.map(u64::from)),
            (Meter::RequestsPerDay, key.max_requests_per_day.map(u64::from)),
            (Meter::TokensPerMinute, key.max_tokens_per_minute),
            (Meter::Concurrency, key.max_concurrent.map(u64::from)),
        ];
        Self {
            id: key.id.clone(),
            name: key.name.as_str().into(),
            is_active: key.is_active && key.revoked_at.is_none() && !broken,
            expires_at: key.expires_at,
            no_log: key.no_log,
            max_sessions: key.max_sessions,
            strict: key.strict,
            scopes: key.scopes.clone(),
            limits: limits.into_iter().filter_map(|(meter, limit)| Some((meter, limit?))).collect(),
            auto_resolve: key.rights.auto_resolve,
            no_cache: key.rights.no_cache,
            similarity: key.rights.similarity.unwrap_or_default(),
            thinking: key.rights.thinking_budget,
            allowed_combos: key.rights.allowed_combos.iter().map(|text| Pattern::new(text)).collect(),
            schedule: schedule.ok().flatten(),
            allowed_models: key.allowed_models.iter().map(|text| Pattern::new(text)).collect(),
            denied_models: key.denied_models.iter().map(|text| Pattern::new(text)).collect(),
            allowed_connections: key.allowed_connections.clone(),
            allowed_endpoints: key.allowed_endpoints.clone(),
            networks,
        }
    }

    /// Whether the key may be used from this address.
    pub fn allows_address(&self, address: std::net::IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.is_empty() || self.networks.iter().any(|network| network.contains(&address))
    }

    /// Whether the key may call this endpoint (`chat`, `messages`, `models`, …).
    pub fn allows_endpoint(&self, endpoint: &str) -> bool {
        self.allowed_endpoints.is_empty() || self.allowed_endpoints.iter().any(|allowed| allowed == endpoint)
    }

    /// Whether the key may use this account.
    pub fn allows_connection(&self, id: &ConnectionId) -> bool {
        self.allowed_connections.is_empty()
            || self.allowed_connections.iter().any(|allowed| allowed == id.as_str())
    }

    /// Whether the key may use a model, by any of its names: as requested, or resolved to `provider/model`.
    pub fn allows_model(&self, names: &[&str]) -> bool {
        let hit = |patterns: &[Pattern]| patterns.iter().any(|p| names.iter().any(|name| p.matches(name)));
        !hit(&self.denied_models) && (self.allowed_models.is_empty() || hit(&self.allowed_models))
    }

    /// Whether the key may be used at this time.
    pub fn allows_time(&self, now_ms: i64) -> bool {
        self.schedule.as_ref().is_none_or(|schedule| schedule.allows(now_ms))
    }

    /// Whether the key may ask for a combo of this name, as far as combos are named.
    pub fn allows_combo(&self, name: &str) -> bool {
        self.allowed_combos.is_empty() || self.lists_combo(name)
    }

    /// Whether the key names this combo among those it may use; what it leads to is allowed then as well, unless it is
    /// denied by name.
    pub fn lists_combo(&self, name: &str) -> bool {
        self.allowed_combos.iter().any(|pattern| pattern.matches(name))
    }

    /// Whether a model is denied by any of its names.
    pub fn denies_model(&self, names: &[&str]) -> bool {
        self.denied_models.iter().any(|pattern| names.iter().any(|name| pattern.matches(name)))
    }

    /// Whether the key restricts connections at all.
    pub fn restricts_connections(&self) -> bool {
        !self.allowed_connections.is_empty()
    }

    /// Whether the key restricts models at all.
    pub fn restricts_models(&self) -> bool {
        !self.allowed_models.is_empty() || !self.denied_models.is_empty()
    }

    /// Whether the key has a right.
    pub fn has_scope(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }
}

/// An address, a network, or nothing.
pub fn parse_network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse().ok().map(|ip: std::net::IpAddr| IpNet::from(ip.to_canonical())))
}
