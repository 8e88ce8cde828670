//! What a request needs of the configuration, indexed for it. Built whole by a pure function, then swapped whole.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use omniroute_dialect::{DialectId, ir::UpstreamError, registry as dialects};
use omniroute_provider::{
    Capability, Endpoint, EndpointError, Provider, ProviderId, ProviderSpec, QuotaApi, Service, caps,
    catalog::Catalog, choose, provider::ConnectionInput, registry, scrub::without_credentials,
};
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{Equivalent, UnitWeighter};
use secrecy::{ExposeSecret as _, SecretString};

use crate::alias::Aliases;
use crate::breaker::{Breaker, BreakerPolicy, Pass, Shut, Transition};
use crate::budget::Budgets;
use crate::combo::ComboState;
use crate::entity::{
    ApiKeyId, ComboId, Connection, ConnectionId, CustomModel, Discount, Entities, KeyHash, PoolKey,
    RuntimeSettings,
};
use crate::fallback::Chains;
use crate::health::{Blocked, ConnectionHealth, HealthMap, Hold, Profile};
use crate::limiter;
use crate::mapping::Mappings;
use crate::pattern::Pattern;
use crate::plan::PlanWindow;
use crate::policy::Policies;
use crate::price::{PriceBook, Quote};
use crate::rotation::{Rotation, Rule};
use crate::routing::auto::{AccountTier, is_virtual};
use crate::transform::SystemText;

mod build;
mod caller;
mod credentials;
mod idle;
mod listed;
mod pool;
mod profile;
mod quota;
mod rules;

use build::Builder;
pub use caller::{Caller, parse_network};
pub use idle::{IdleAccount, Idleness};
pub use listed::ListedModel;
pub use pool::{Moved, MovedLock};

type Map<K, V> = HashMap<K, V, RandomState>;

/// The whole configuration as requests see it.
pub struct Snapshot {
    /// Revision of the rows it was built from.
    pub revision: u64,
    /// Settings.
    pub settings: RuntimeSettings,
    /// What could not be used and why; the rest works without it.
    pub problems: Vec<SnapshotProblem>,
    catalog: &'static Catalog,
    providers: Map<ProviderId, Arc<ProviderState>>,
    prefixes: Map<String, ProviderId>,
    keys: Map<[u8; 32], Arc<Caller>>,
    models: Map<String, Vec<ProviderId>>,
    /// Other names for models and combos.
    pub aliases: Aliases,
    combos: Map<Arc<str>, Arc<ComboState>>,
    mappings: Mappings,
    /// What the operator forbids, limits or prefers.
    pub policies: Policies,
    /// Who else has a model.
    pub chains: Chains,
    /// System text around that of clients.
    pub system_text: Option<SystemText>,
    /// `auto` and its variants, which there are without rows.
    auto: Map<Arc<str>, Arc<ComboState>>,
    connections: Map<ConnectionId, Arc<ConnectionState>>,
    /// Accounts that are not among them, by provider.
    idle: Map<ProviderId, Arc<[IdleAccount]>>,
    /// What those hold.
    idle_credentials: Vec<SecretString>,
    /// Whether any account has a plan that is counted here.
    pub has_plans: bool,
    /// What keys, or everybody together, may spend.
    pub budgets: Budgets,
    /// Prices that are not of the catalogue.
    pub prices: PriceBook,
    /// Prices that were asked for; bounded, since model names are the clients' choice.
    quotes: Quotes,
}

/// Prices by provider and model.
type Quotes = Cache<(ProviderId, String), Option<Arc<Quote>>, UnitWeighter, RandomState>;

/// Most prices remembered by a snapshot.
const MAX_QUOTES: usize = 4_096;

/// A snapshot's prices before anybody asked for one.
fn no_quotes() -> Quotes {
    let (most, weighter) = (MAX_QUOTES as u64, UnitWeighter);
    Cache::with(MAX_QUOTES, most, weighter, RandomState::default(), DefaultLifecycle::default())
}

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
    /// Its other accounts, which nobody asks.
    pub idle: Arc<[IdleAccount]>,
    /// Models of the catalogue or of the data file, then those the operator added.
    pub models: Vec<ListedModel>,
    /// The order in which its accounts are tried.
    pub rule: Rule,
    /// Whose turn it is among them.
    pub rotation: Arc<Rotation>,
    /// Whether it is the operator's own endpoint.
    pub is_node: bool,
    /// What the operator says of models.
    own_models: Vec<CustomModel>,
    /// Models that are served in one dialect only, under every name, and the dialect's long name. Sorted.
    bound_models: Vec<(String, &'static str)>,
}

impl ProviderState {
    /// What people call it: the prefix of an endpoint of their own, whose id nobody chose; the id of any other.
    pub fn called(&self) -> &str {
        if self.is_node { &self.alias } else { self.id.as_str() }
    }

    /// Whether the operator hides a model: it is in no list and no combo, but can be asked for.
    pub fn hides(&self, model: &str) -> bool {
        self.own_models.iter().any(|own| own.is_hidden && own.id == model)
    }

    /// Those.
    pub fn hidden_models(&self) -> impl Iterator<Item = &str> {
        self.own_models.iter().filter(|own| own.is_hidden).map(|own| own.id.as_str())
    }

    /// Whether any of its accounts can be asked for what is not chat.
    pub fn offers(&self, capability: Capability) -> bool {
        self.connections.iter().any(|connection| connection.service(capability).is_some())
    }

    /// Long name of the only dialect in which the provider serves the model, if it is bound to one.
    pub fn only_dialect(&self, model: &str) -> Option<&'static str> {
        let place = self.bound_models.binary_search_by(|(name, _)| name.as_str().cmp(model)).ok()?;
        Some(self.bound_models[place].1)
    }
}

/// An account, ready to be called.
#[derive(Clone)]
pub struct ConnectionState {
    /// Its id.
    pub id: ConnectionId,
    /// Its name.
    pub name: Arc<str>,
    /// Its provider.
    pub provider: ProviderId,
    /// Where it is called, the preferred dialect first; empty for an account that is not there for chat.
    pub endpoints: Vec<Endpoint>,
    /// What it can be asked for beside chat.
    pub services: Arc<[Service]>,
    /// Whether private and loopback addresses may be called.
    pub allow_private: bool,
    /// Most requests at once.
    pub max_concurrent: Option<u32>,
    /// What requests are held to; `None` = they are not held back.
    pub limits: Option<limiter::Rules>,
    /// What its plan allows, where the operator says so.
    pub plan: Arc<[PlanWindow]>,
    /// How its vendor is asked what is left of it, where it can be.
    pub quota_api: Option<Arc<QuotaApi>>,
    /// Its share where accounts are chosen by weight.
    pub weight: u32,
    /// What it pays less than the list price.
    pub discount: Discount,
    /// The model a test uses.
    pub default_model: Option<String>,
    /// Cooldowns and locks.
    pub health: Arc<ConnectionHealth>,
    /// Their durations.
    pub profile: Arc<Profile>,
    /// Whether the provider is asked at all at this account's address; shared with the others there.
    pub breaker: Arc<Breaker>,
    /// When the breaker opens; `None` = it is not asked.
    pub breaker_policy: Option<BreakerPolicy>,
    /// Its keys, where it has several: each an account of its own but for the places that they share.
    pub pool: Vec<Arc<ConnectionState>>,
    /// The account that this is one of the keys of.
    pub part_of: Option<Arc<ConnectionHealth>>,
    /// Which one of them it is.
    pub key: Option<PoolKey>,
    /// Under which its state is kept: its id, for one of several keys with what tells that from the others.
    state_id: ConnectionId,
    /// Under which the state of the account's first key is kept where it has several; `None` where it has none.
    first_key: Option<ConnectionId>,
    /// The plan it is on, as far as its labels say.
    pub tier: AccountTier,
    excluded_models: Vec<Pattern>,
    tags: Vec<String>,
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
        let mut caps =
            caps::caps_of(provider.provider.spec(), model, self.catalog.model(&provider.id, model));
        if let Some(own) = provider.own_models.iter().find(|own| own.id == model) {
            own.adjust(&mut caps);
        }
        caps.auto_cache &= self.settings.auto_cache;
        caps
    }

    /// What a model is for, where somebody said so: the operator, or the catalogue.
    pub fn mode_of(&self, provider: &ProviderState, model: &str) -> Option<&str> {
        let own = provider.own_models.iter().find(|own| own.id == model);
        match own {
            Some(own) => Some(own.mode()),
            None => self.catalog.model(&provider.id, model).map(|row| row.mode.as_str()),
        }
    }

    /// The length of a model's vectors, as far as the catalogue knows it.
    pub fn dimensions_of(&self, provider: &ProviderId, model: &str) -> Option<u64> {
        self.catalog.model(provider, model)?.dimensions
    }

    /// The price of a model; looked up once.
    pub fn quote(&self, provider: &ProviderId, model: &str) -> Option<Arc<Quote>> {
        if let Some(known) = self.quotes.get(&QuoteKey(provider, model)) {
            return known;
        }
        let quote = self.prices.quote(self.catalog, provider, model).map(Arc::new);
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

    /// All keys that can be used.
    pub fn callers(&self) -> impl Iterator<Item = &Arc<Caller>> {
        self.keys.values()
    }

    /// The client whose key has this id.
    pub fn caller_by_id(&self, id: &ApiKeyId) -> Option<&Arc<Caller>> {
        self.keys.values().find(|caller| caller.id == *id)
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

    /// What people call a provider, usable or not: the prefix of an endpoint of their own, whose id nobody chose; the id of any
    /// other.
    pub fn called<'a>(&'a self, id: &'a ProviderId) -> &'a str {
        if !registry::is_node_id(id.as_str()) {
            return id.as_str();
        }
        let mut names =
            self.prefixes.iter().filter(|(prefix, of)| *of == id && prefix.as_str() != id.as_str());
        names.next().map_or(id.as_str(), |(prefix, _)| prefix)
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

    /// The combo of this name; `auto` and its variants are combos too.
    pub fn combo(&self, name: &str) -> Option<&Arc<ComboState>> {
        self.combos.get(name).or_else(|| self.auto.get(name))
    }

    /// `auto` and its variants, by name.
    pub fn auto_variants(&self) -> Vec<&Arc<ComboState>> {
        let mut all: Vec<_> = self.auto.values().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Whether a combo chooses among every model, whose counts are shared by all that do.
    pub fn chooses_from_pool(&self, combo: &ComboState) -> bool {
        self.auto.values().next().is_some_and(|variant| Arc::ptr_eq(&variant.steps, &combo.steps))
    }

    /// Every combo that the operator made, in the operator's order.
    pub fn combos(&self) -> Vec<&Arc<ComboState>> {
        let mut all: Vec<_> = self.combos.values().collect();
        all.sort_by(|a, b| (a.sort_order, &a.name).cmp(&(b.sort_order, &b.name)));
        all
    }

    /// The combo that a name of a model means by the operator's mappings.
    pub fn mapped(&self, name: &str) -> Option<&Arc<ComboState>> {
        self.mappings.combos(name).find_map(|id| self.combos.values().find(|combo| combo.id == *id))
    }

    /// The names of all combos that are to be seen.
    pub fn combo_names(&self) -> impl Iterator<Item = &str> {
        self.combos.values().filter(|combo| !combo.is_hidden).map(|combo| &*combo.name)
    }

    /// Whether there is a combo with this id.
    pub fn has_combo(&self, id: &ComboId) -> bool {
        is_virtual(id.as_str()) || self.combos.values().any(|combo| combo.id == *id)
    }

    /// An active account.
    pub fn connection(&self, id: &ConnectionId) -> Option<&Arc<ConnectionState>> {
        self.connections.get(id)
    }

    /// Whether the account is active.
    pub fn has_connection(&self, id: &ConnectionId) -> bool {
        self.connections.contains_key(id)
    }

    /// An active account, or one of its keys, by the id under which its state is kept.
    pub fn state(&self, id: &ConnectionId) -> Option<&Arc<ConnectionState>> {
        let Some((account, _)) = id.key_parts() else { return self.connection(id) };
        let account = self.connections.get(&ConnectionId::from(account))?;
        account.pool.iter().find(|key| key.state_id == *id)
    }

    /// Whether what is known of this account, or of this one of its keys, is still of use.
    pub fn needs_health(&self, id: &ConnectionId) -> bool {
        self.state(id).is_some()
    }

    /// Every active account, in no order.
    pub fn connections(&self) -> impl Iterator<Item = &Arc<ConnectionState>> {
        self.connections.values()
    }

    /// The breakers that are asked, by name.
    pub fn breakers(&self) -> Vec<&Arc<Breaker>> {
        let asked = self.connections.values().filter(|connection| connection.breaker_policy.is_some());
        let mut all: Vec<_> = asked.map(|connection| &connection.breaker).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all.dedup_by(|a, b| Arc::ptr_eq(a, b));
        all
    }

    /// Whether any account stands behind this breaker.
    pub fn has_breaker(&self, name: &str) -> bool {
        self.connections.values().any(|connection| *connection.breaker.name == *name)
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
        let of_services = self.services.first().map(|service| &*service.headers);
        for headers in self.endpoints.iter().map(|endpoint| &endpoint.headers).chain(of_services) {
            error.message = without_credentials(std::mem::take(&mut error.message), headers);
            error.code = error.code.take().map(|code| without_credentials(code, headers));
            error.param = error.param.take().map(|param| without_credentials(param, headers));
        }
    }

    /// How it is asked for what is not chat; `None` where it cannot be.
    pub fn service(&self, capability: Capability) -> Option<&Service> {
        self.services.iter().find(|service| service.capability == capability)
    }

    /// Whether it has all of these tags.
    pub fn has_tags<'a>(&self, wanted: impl IntoIterator<Item = &'a str>) -> bool {
        wanted.into_iter().all(|wanted| self.tags.iter().any(|tag| tag.eq_ignore_ascii_case(wanted)))
    }

    /// Leave to ask the provider for a model, and what that changed.
    pub fn admit(&self, model: &str, now_ms: i64) -> Result<(Pass, Option<Transition>), Shut> {
        match self.breaker_policy {
            Some(_) => self.breaker.admit(model, now_ms),
            None => Ok((Pass::free(), None)),
        }
    }

    /// Whether the account may serve the model now: no cooldown, no lock, and the provider is asked. Of several things that
    /// are in the way the one that ends last is told.
    pub fn check(&self, model: &str, now_ms: i64) -> Result<(), Blocked> {
        let account = self.check_account(model, now_ms);
        let shut = self.breaker_policy.map(|_| self.breaker.check(model, now_ms));
        let Some(Err(Shut { until, cause })) = shut else {
            return account;
        };
        match account {
            Err(blocked) if blocked.until.is_none_or(|end| end > until) => Err(blocked),
            Ok(()) | Err(_) => Err(Blocked { reason: cause, until: Some(until), hold: Hold::Provider }),
        }
    }

    /// The same of the account alone, whatever its provider is like.
    pub fn check_account(&self, model: &str, now_ms: i64) -> Result<(), Blocked> {
        self.check_plan(self.check_keys(model, now_ms), now_ms)
    }

    /// Whether the operator keeps this model off this account.
    pub fn excludes(&self, model: &str) -> bool {
        self.excluded_models.iter().any(|pattern| pattern.matches(model))
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
    /// Client keys of which no bodies are kept whatever their rows say, by id.
    pub no_log_keys: Vec<String>,
    /// Comes before the setting `semanticCacheTtlMs`.
    pub semantic_cache_ttl_ms: Option<u32>,
    /// Comes before the setting `semanticCacheMaxSize`.
    pub semantic_cache_max_size: Option<u32>,
}

/// What a connection would be as an endpoint list; used to check a row before it is saved. Empty for one that is not
/// there for chat.
pub fn endpoints_of(
    provider: &dyn Provider,
    connection: &Connection,
) -> Result<Vec<Endpoint>, EndpointError> {
    reach_of(provider, connection).map(|(endpoints, _)| endpoints)
}

/// What a connection would be: its endpoints for chat, and its services beside it. Not both are empty.
pub fn reach_of(
    provider: &dyn Provider,
    connection: &Connection,
) -> Result<(Vec<Endpoint>, Vec<Service>), EndpointError> {
    let input = input_of(connection);
    let services = provider.services(&input);
    match (provider.endpoints(&input), services) {
        (Err(EndpointError::Unsupported(_)), Ok(services)) if !services.is_empty() => {
            Ok((Vec::new(), services))
        }
        (endpoints, services) => Ok((endpoints?, services?)),
    }
}

/// How its vendor would be asked what is left of a connection.
fn quota_api_of(
    provider: &dyn Provider,
    connection: &Connection,
) -> Result<Option<Arc<QuotaApi>>, EndpointError> {
    provider.quota_api(&input_of(connection))
}

fn input_of(connection: &Connection) -> ConnectionInput<'_> {
    ConnectionInput {
        api_key: connection.api_key.as_ref().map(|key| key.expose_secret()),
        base_url: connection.options.base_url.as_deref(),
        vars: connection.options.vars.clone(),
        extra_headers: connection.options.extra_headers.clone(),
        dialect: connection.options.dialect.as_deref(),
    }
}
