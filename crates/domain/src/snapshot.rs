//! What a request needs of the configuration, indexed for it. Built whole by a pure function, then swapped whole.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use ipnet::IpNet;
use omniroute_dialect::{DialectId, ir::UpstreamError, registry as dialects};
use omniroute_provider::{
    Endpoint, Provider, ProviderId, ProviderSpec, caps, catalog::Catalog, choose, provider::ConnectionInput,
    registry, scrub::without_credentials, spec::ResilienceProfile,
};
use quick_cache::{Equivalent, sync::Cache};
use secrecy::ExposeSecret as _;

use crate::entity::{
    ApiKey, ApiKeyId, Connection, ConnectionId, CustomModel, Entities, KeyHash, Node, RuntimeSettings, Scope,
};
use crate::health::{ConnectionHealth, HealthMap, Profile};
use crate::limit::Meter;
use crate::pattern::Pattern;
use crate::price::{self, Overrides, Quote};
use crate::routing::{self, Strategy};

type Map<K, V> = HashMap<K, V, RandomState>;

/// The whole configuration as requests see it.
pub struct Snapshot {
    /// Revision of the rows it was built from.
    pub revision: u64,
    /// Settings.
    pub settings: RuntimeSettings,
    /// The order in which accounts are tried.
    pub strategy: &'static dyn Strategy,
    /// What could not be used and why; the rest works without it.
    pub problems: Vec<SnapshotProblem>,
    catalog: &'static Catalog,
    providers: Map<ProviderId, Arc<ProviderState>>,
    prefixes: Map<String, ProviderId>,
    keys: Map<[u8; 32], Arc<Caller>>,
    models: Map<String, Vec<ProviderId>>,
    connections: Map<ConnectionId, Arc<ConnectionState>>,
    /// Prices that were asked for; bounded, since model names are the clients' choice.
    quotes: Cache<(ProviderId, String), Option<Arc<Quote>>>,
}

/// Most prices remembered by a snapshot.
const MAX_QUOTES: usize = 4_096;

/// A provider and its accounts.
pub struct ProviderState {
    /// Its id.
    pub id: ProviderId,
    /// The canonical model prefix.
    pub alias: String,
    /// Its behaviour.
    pub provider: Arc<dyn Provider>,
    /// Active accounts in order of priority.
    pub connections: Vec<Arc<ConnectionState>>,
    /// Models of the catalogue or of the data file, then those the operator added.
    pub models: Vec<ListedModel>,
    /// Whether it is the operator's own endpoint.
    pub is_node: bool,
    /// Models that are served in one dialect only, under every name, and the dialect's long name. Sorted.
    bound_models: Vec<(String, &'static str)>,
}

impl ProviderState {
    /// Long name of the only dialect in which the provider serves the model, if it is bound to one.
    pub fn only_dialect(&self, model: &str) -> Option<&'static str> {
        let place = self.bound_models.binary_search_by(|(name, _)| name.as_str().cmp(model)).ok()?;
        Some(self.bound_models[place].1)
    }
}

/// A model of a provider.
#[derive(Debug, Clone)]
pub struct ListedModel {
    /// The id the provider knows.
    pub id: String,
    /// Name for people.
    pub name: Option<String>,
    /// Whether the operator added it.
    pub custom: bool,
    /// `chat`, `embedding`, …
    pub mode: String,
    /// Tokens of context.
    pub context_window: Option<u64>,
    /// Most tokens of output.
    pub max_output: Option<u64>,
}

/// An account, ready to be called.
pub struct ConnectionState {
    /// Its id.
    pub id: ConnectionId,
    /// Its name.
    pub name: String,
    /// Its provider.
    pub provider: ProviderId,
    /// Where it is called, the preferred dialect first; never empty.
    pub endpoints: Vec<Endpoint>,
    /// Whether private and loopback addresses may be called.
    pub allow_private: bool,
    /// Most requests at once.
    pub max_concurrent: Option<u32>,
    /// The model a test uses.
    pub default_model: Option<String>,
    /// Cooldowns and locks.
    pub health: Arc<ConnectionHealth>,
    /// Their durations.
    pub profile: Profile,
    excluded_models: Vec<Pattern>,
}

/// A client that identified itself.
pub struct Caller {
    /// The key's id.
    pub id: ApiKeyId,
    /// The key's name.
    pub name: String,
    /// Whether it may be used at all.
    pub is_active: bool,
    /// End of validity.
    pub expires_at: Option<i64>,
    /// Whether bodies stay out of the logs.
    pub no_log: bool,
    /// Every request as if it asked for strict translation.
    pub strict: bool,
    /// Rights beyond calling models.
    pub scopes: Vec<Scope>,
    /// Limits to reserve against, in the order in which they are checked.
    pub limits: Vec<(Meter, u64)>,
    allowed_models: Vec<Pattern>,
    denied_models: Vec<Pattern>,
    allowed_connections: Vec<String>,
    allowed_endpoints: Vec<String>,
    networks: Vec<IpNet>,
}

/// A row that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotProblem {
    /// `connection`, `node`, `api key`, `setting`.
    pub entity: &'static str,
    /// Its id.
    pub id: String,
    /// Why, and what to do.
    pub message: String,
}

impl Snapshot {
    /// Builds the configuration. A row that cannot be used is left out and named in `problems`.
    pub fn build(
        entities: &Entities,
        catalog: &'static Catalog,
        health: &HealthMap,
        options: &BuildOptions,
    ) -> Self {
        Builder::new(entities, catalog, health, options).build()
    }

    /// The catalogue it was built over.
    pub fn catalog(&self) -> &'static Catalog {
        self.catalog
    }

    /// What a target can do.
    pub fn caps(&self, provider: &ProviderState, model: &str) -> omniroute_dialect::Caps {
        caps::caps_of(provider.provider.spec(), model, self.catalog.model(&provider.id, model))
    }

    /// The price of a model; looked up once.
    pub fn quote(&self, provider: &ProviderId, model: &str) -> Option<Arc<Quote>> {
        if let Some(known) = self.quotes.get(&QuoteKey(provider, model)) {
            return known;
        }
        let quote = price::quote(&Overrides::default(), self.catalog, provider, model).map(Arc::new);
        self.quotes.insert((provider.clone(), model.to_owned()), quote.clone());
        quote
    }

    /// Providers of the catalogue that know a model, usable or not.
    pub fn catalog_providers_of(&self, model: &str) -> Vec<ProviderId> {
        let knows = |spec: &&Arc<ProviderSpec>| {
            spec.id.as_str() != registry::SIM
                && (spec.models.iter().any(|name| name == model)
                    || self.catalog.model(&spec.id, model).is_some())
        };
        self.catalog.providers().iter().filter(knows).map(|spec| spec.id.clone()).collect()
    }

    /// The client with this key.
    pub fn caller(&self, hash: KeyHash) -> Option<&Arc<Caller>> {
        self.keys.get(&hash.0)
    }

    /// A provider that has at least one usable account, or needs none.
    pub fn provider(&self, id: &ProviderId) -> Option<&Arc<ProviderState>> {
        self.providers.get(id)
    }

    /// Every usable provider, by id.
    pub fn providers(&self) -> Vec<&Arc<ProviderState>> {
        let mut all: Vec<_> = self.providers.values().collect();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }

    /// The provider that a model prefix means, usable or not.
    pub fn by_prefix(&self, prefix: &str) -> Option<&ProviderId> {
        self.prefixes.get(prefix)
    }

    /// Every accepted prefix.
    pub fn prefixes(&self) -> impl Iterator<Item = &str> {
        self.prefixes.keys().map(String::as_str)
    }

    /// The usable providers that list a model of this name.
    pub fn providers_of_model(&self, model: &str) -> &[ProviderId] {
        self.models.get(model).map_or(&[], Vec::as_slice)
    }

    /// Every listed model of usable providers.
    pub fn model_names(&self) -> impl Iterator<Item = &str> {
        self.models.keys().map(String::as_str)
    }

    /// An active account.
    pub fn connection(&self, id: &ConnectionId) -> Option<&Arc<ConnectionState>> {
        self.connections.get(id)
    }

    /// Whether the account is active.
    pub fn has_connection(&self, id: &ConnectionId) -> bool {
        self.connections.contains_key(id)
    }

    /// How many accounts are active; the simulator has none.
    pub fn connection_count(&self) -> usize {
        self.connections.values().filter(|connection| connection.provider.as_str() != registry::SIM).count()
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot")
            .field("revision", &self.revision)
            .field("providers", &self.providers.len())
            .field("keys", &self.keys.len())
            .finish_non_exhaustive()
    }
}

impl ConnectionState {
    /// The endpoint for a client's dialect: one that speaks it natively, else the preferred one. An alternative that
    /// turned out not to be there is passed over for a while. `only` is the one dialect a model is served in;
    /// `None` comes back where the account has no endpoint of it.
    pub fn endpoint_for(&self, client: DialectId, only: Option<&str>, now_ms: i64) -> Option<&Endpoint> {
        if let Some(only) = only {
            let only = dialects::by_name(only)?.id();
            return self.endpoints.iter().find(|endpoint| endpoint.dialect == only);
        }
        let preferred = self.endpoints.first()?;
        let chosen = choose(&self.endpoints, client)?;
        let is_missing =
            chosen.dialect != preferred.dialect && self.health.is_dialect_missing(chosen.dialect, now_ms);
        Some(if is_missing { preferred } else { chosen })
    }

    /// Takes the account's credentials out of what an upstream said.
    pub fn conceal(&self, error: &mut UpstreamError) {
        for headers in self.endpoints.iter().map(|endpoint| &endpoint.headers) {
            error.message = without_credentials(std::mem::take(&mut error.message), headers);
            error.code = error.code.take().map(|code| without_credentials(code, headers));
            error.param = error.param.take().map(|param| without_credentials(param, headers));
        }
    }

    /// Whether the operator keeps this model off this account.
    pub fn excludes(&self, model: &str) -> bool {
        self.excluded_models.iter().any(|pattern| pattern.matches(model))
    }
}

impl Caller {
    fn new(key: &ApiKey, problems: &mut Vec<SnapshotProblem>) -> Self {
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
        let broken = networks.len() != key.ip_allowlist.len();
        let limits = [
            (Meter::RequestsPerMinute, key.max_requests_per_minute.map(u64::from)),
            (Meter::RequestsPerDay, key.max_requests_per_day.map(u64::from)),
            (Meter::TokensPerMinute, key.max_tokens_per_minute),
            (Meter::Concurrency, key.max_concurrent.map(u64::from)),
        ];
        Self {
            id: key.id.clone(),
            name: key.name.clone(),
            is_active: key.is_active && key.revoked_at.is_none() && !broken,
            expires_at: key.expires_at,
            no_log: key.no_log,
            strict: key.strict,
            scopes: key.scopes.clone(),
            limits: limits.into_iter().filter_map(|(meter, limit)| Some((meter, limit?))).collect(),
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

/// A borrowed key of the quotes; hashes like the owned one.
#[derive(Hash)]
struct QuoteKey<'a>(&'a ProviderId, &'a str);

impl Equivalent<(ProviderId, String)> for QuoteKey<'_> {
    fn equivalent(&self, key: &(ProviderId, String)) -> bool {
        *self.0 == key.0 && *self.1 == key.1
    }
}

/// What the process start decided about building.
#[derive(Debug, Clone, Default)]
pub struct BuildOptions {
    /// Every connection may call private addresses.
    pub allow_private: bool,
    /// Accounts beside those of the rows.
    pub connections: Vec<Connection>,
    /// Comes before the setting `logRetentionDays`.
    pub log_retention_days: Option<u32>,
    /// Comes before the setting `callLogMaxEntries`.
    pub call_log_max_entries: Option<u32>,
}

/// An address, a network, or nothing.
pub fn parse_network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse().ok().map(|ip: std::net::IpAddr| IpNet::from(ip.to_canonical())))
}

/// What a connection would be as an endpoint list; used to check a row before it is saved.
pub fn endpoints_of(
    provider: &dyn Provider,
    connection: &Connection,
) -> Result<Vec<Endpoint>, omniroute_provider::EndpointError> {
    let input = ConnectionInput {
        api_key: connection.api_key.as_ref().map(|key| key.expose_secret()),
        base_url: connection.options.base_url.as_deref(),
        vars: connection.options.vars.clone(),
        extra_headers: connection.options.extra_headers.clone(),
        dialect: connection.options.dialect.as_deref(),
    };
    provider.endpoints(&input)
}

struct Builder<'a> {
    entities: &'a Entities,
    catalog: &'static Catalog,
    health: &'a HealthMap,
    options: &'a BuildOptions,
    problems: Vec<SnapshotProblem>,
}

impl<'a> Builder<'a> {
    fn new(
        entities: &'a Entities,
        catalog: &'static Catalog,
        health: &'a HealthMap,
        options: &'a BuildOptions,
    ) -> Self {
        Self { entities, catalog, health, options, problems: Vec::new() }
    }

    fn build(mut self) -> Snapshot {
        let mut prefixes = Map::default();
        for spec in self.catalog.providers() {
            for prefix in
                [spec.id.as_str(), &spec.alias].into_iter().chain(spec.aliases.iter().map(String::as_str))
            {
                prefixes.insert(prefix.to_owned(), spec.id.clone());
            }
        }
        for node in &self.entities.nodes {
            if prefixes.contains_key(&node.prefix) {
                self.problem(
                    "node",
                    node.id.as_str(),
                    format!("prefix `{}` is taken; choose another", node.prefix),
                );
                continue;
            }
            prefixes.insert(node.prefix.clone(), node.id.clone());
            prefixes.insert(node.id.to_string(), node.id.clone());
        }
        let providers = self.providers();
        let mut models: Map<String, Vec<ProviderId>> = Map::default();
        let mut connections = Map::default();
        for state in providers.values() {
            for connection in &state.connections {
                connections.insert(connection.id.clone(), connection.clone());
            }
            if state.id.as_str() == registry::SIM {
                continue; // Never chosen for a bare name.
            }
            for model in &state.models {
                models.entry(model.id.clone()).or_default().push(state.id.clone());
            }
            for row in self.catalog.models_of(&state.id) {
                for alias in &row.aliases {
                    let owners = models.entry(alias.clone()).or_default();
                    if !owners.contains(&state.id) {
                        owners.push(state.id.clone());
                    }
                }
            }
        }
        for owners in models.values_mut() {
            owners.sort();
            owners.dedup();
        }
        // Revoked ones too: whoever sends one is refused, also where no key is needed.
        let keys = self
            .entities
            .api_keys
            .iter()
            .map(|key| (key.hash.0, Arc::new(Caller::new(key, &mut self.problems))))
            .collect();
        let mut settings = self.entities.settings.clone();
        settings.log_retention_days = self.options.log_retention_days.unwrap_or(settings.log_retention_days);
        settings.call_log_max_entries =
            self.options.call_log_max_entries.unwrap_or(settings.call_log_max_entries);
        let strategy = routing::by_name(&settings.fallback_strategy).unwrap_or_else(|| {
            self.problem(
                "setting",
                "fallbackStrategy",
                format!("`{}` is unknown; using `{}`", settings.fallback_strategy, routing::default().name()),
            );
            routing::default()
        });
        Snapshot {
            revision: self.entities.revision,
            settings,
            strategy,
            problems: self.problems,
            catalog: self.catalog,
            providers,
            prefixes,
            keys,
            models,
            connections,
            quotes: Cache::new(MAX_QUOTES),
        }
    }

    fn providers(&mut self) -> Map<ProviderId, Arc<ProviderState>> {
        let mut by_provider: Map<ProviderId, Vec<&Connection>> = Map::default();
        let connections = self.entities.connections.iter().chain(&self.options.connections);
        for connection in connections.filter(|connection| connection.is_active) {
            by_provider.entry(connection.provider.clone()).or_default().push(connection);
        }
        let mut providers = Map::default();
        for (id, mut rows) in by_provider {
            if self.entities.settings.blocked_providers.iter().any(|blocked| blocked == id.as_str()) {
                continue;
            }
            let node = self.entities.nodes.iter().find(|node| node.id == id);
            let Some(spec) = self.spec(&id, node) else {
                for row in rows {
                    let message = format!(
                        "provider `{id}` is in neither the catalogue nor the nodes; delete the connection"
                    );
                    self.problem("connection", row.id.as_str(), message);
                }
                continue;
            };
            rows.sort_by(|a, b| (a.priority, a.created_at, &a.id).cmp(&(b.priority, b.created_at, &b.id)));
            let provider = registry::provider_for(spec.clone());
            let connections: Vec<_> =
                rows.into_iter().filter_map(|row| self.connection(&*provider, node, row)).collect();
            if connections.is_empty() {
                continue;
            }
            let models = self.models(&id, &spec.models);
            let bound_models = self.bound_models(&id);
            let state = ProviderState {
                bound_models,
                id: id.clone(),
                alias: spec.alias.clone(),
                provider,
                connections,
                models,
                is_node: node.is_some(),
            };
            providers.insert(id, Arc::new(state));
        }
        if let Some(simulator) = self.simulator() {
            providers.insert(simulator.id.clone(), Arc::new(simulator));
        }
        providers
    }

    fn spec(&self, id: &ProviderId, node: Option<&Node>) -> Option<Arc<ProviderSpec>> {
        match node {
            Some(node) => Some(Arc::new(registry::spec_from_node(&node.to_spec()?))),
            None => self.catalog.provider(id.as_str()).cloned(),
        }
    }

    fn connection(
        &mut self,
        provider: &dyn Provider,
        node: Option<&Node>,
        row: &Connection,
    ) -> Option<Arc<ConnectionState>> {
        let endpoints = match endpoints_of(provider, row) {
            Ok(endpoints) => endpoints,
            Err(error) => {
                self.problem("connection", row.id.as_str(), error.to_string());
                return None;
            }
        };
        let ships_private = provider.resilience_profile() == ResilienceProfile::Local
            && node.is_none()
            && row.options.base_url.is_none();
        Some(Arc::new(ConnectionState {
            id: row.id.clone(),
            name: row.name.clone(),
            provider: row.provider.clone(),
            endpoints,
            allow_private: self.options.allow_private
                || ships_private
                || row.options.allow_private
                || node.is_some_and(|node| node.allow_private),
            max_concurrent: row.max_concurrent,
            default_model: row.default_model.clone(),
            health: self.health.of(&row.id, &row.status),
            profile: Profile::of(provider.resilience_profile()),
            excluded_models: row.options.excluded_models.iter().map(|text| Pattern::new(text)).collect(),
        }))
    }

    fn models(&self, id: &ProviderId, listed: &[String]) -> Vec<ListedModel> {
        let mut models: Vec<ListedModel> = Vec::new();
        let custom: Vec<&CustomModel> =
            self.entities.custom_models.iter().filter(|model| model.provider == *id).collect();
        let rows = self.catalog.models_of(id);
        let names = listed.iter().map(String::as_str).chain(rows.iter().map(|row| row.model.as_str()));
        for name in names {
            if models.iter().any(|model| model.id == name) || custom.iter().any(|model| model.id == name) {
                continue;
            }
            let row = self.catalog.model(id, name);
            models.push(ListedModel {
                id: name.to_owned(),
                name: None,
                custom: false,
                mode: row.map_or_else(|| "chat".to_owned(), |row| row.mode.clone()),
                context_window: row.and_then(|row| row.context_window),
                max_output: row.and_then(|row| row.max_output),
            });
        }
        models.extend(custom.into_iter().filter(|model| !model.is_hidden).map(|model| {
            ListedModel {
                id: model.id.clone(),
                name: Some(model.name.clone()),
                custom: true,
                mode: if model.only_dialect().is_some() {
                    "responses"
                } else if model.supported_endpoints.iter().any(|endpoint| endpoint == "chat") {
                    "chat"
                } else {
                    "other"
                }
                .to_owned(),
                context_window: model.context_window,
                max_output: model.max_output,
            }
        }));
        models
    }

    fn bound_models(&self, id: &ProviderId) -> Vec<(String, &'static str)> {
        let custom: Vec<&CustomModel> =
            self.entities.custom_models.iter().filter(|model| model.provider == *id).collect();
        let own = custom.iter().filter_map(|model| Some((model.id.clone(), model.only_dialect()?)));
        let listed = self.catalog.models_of(id).iter().filter_map(|row| Some((row, row.only_dialect()?)));
        let listed = listed.flat_map(|(row, only)| {
            let names = std::iter::once(&row.model).chain(&row.aliases);
            names.map(move |name| (name.clone(), only))
        });
        // What the operator says of a model comes before what the catalogue says.
        let listed = listed.filter(|(name, _)| custom.iter().all(|model| model.id != *name));
        let mut bound: Vec<_> = own.chain(listed).collect();
        bound.sort();
        bound.dedup_by(|a, b| a.0 == b.0);
        bound
    }

    /// The simulator needs no row: it is there from the first start.
    fn simulator(&self) -> Option<ProviderState> {
        let spec = self.catalog.provider(registry::SIM)?.clone();
        let provider = registry::provider_for(spec.clone());
        let id = ConnectionId::from("sim");
        let endpoints = provider.endpoints(&ConnectionInput::default()).ok()?;
        let connection = ConnectionState {
            id: id.clone(),
            name: "simulator".into(),
            provider: spec.id.clone(),
            endpoints,
            allow_private: false,
            max_concurrent: None,
            default_model: spec.models.first().cloned(),
            health: self.health.of(&id, &crate::entity::ConnectionStatus::default()),
            profile: Profile::of(ResilienceProfile::Local),
            excluded_models: Vec::new(),
        };
        Some(ProviderState {
            id: spec.id.clone(),
            alias: spec.alias.clone(),
            models: self.models(&spec.id, &spec.models),
            provider,
            connections: vec![Arc::new(connection)],
            is_node: false,
            bound_models: Vec::new(),
        })
    }

    fn problem(&mut self, entity: &'static str, id: &str, message: String) {
        self.problems.push(SnapshotProblem { entity, id: id.to_owned(), message });
    }
}
