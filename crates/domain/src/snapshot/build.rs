//! From rows to a snapshot. A row that cannot be used is left out and named; the rest works without it.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use omniroute_provider::{
    Provider, ProviderId, ProviderSpec, capability::mode_by_name, catalog::Catalog,
    provider::ConnectionInput, registry, spec::ResilienceProfile,
};
use secrecy::ExposeSecret as _;

use super::credentials;
use super::idle::{self, IdleAccount, Idleness};
use super::profile::{self, Profiles};
use super::rules::{Rules, limits_of};
use super::{
    BuildOptions, Caller, ConnectionState, ListedModel, Map, ProviderState, Snapshot, SnapshotProblem,
    no_quotes, quota_api_of, reach_of,
};
use crate::alias::Aliases;
use crate::budget::{Budgets, Calendar};
use crate::combo::{ComboState, Condition, Policy, Pool, StepState};
use crate::entity::{
    Combo, ComboConfig, Connection, ConnectionId, CustomModel, Discount, Entities, Goal, MAX_QUOTA_WINDOWS,
    Node,
};
use crate::fallback::Chains;
use crate::health::HealthMap;
use crate::mapping::Mappings;
use crate::pattern::Pattern;
use crate::plan::PlanWindow;
use crate::policy::Policies;
use crate::resolve::{self, Suffixes};
use crate::routing::auto::{AccountTier, variant_names};
use crate::routing::{self, Tuning};
use crate::transform::{ComboRules, SystemText};

/// Those that can be asked.
type Providers = Map<ProviderId, Arc<ProviderState>>;
/// Those that cannot, by provider.
type IdleAccounts = Map<ProviderId, Arc<[IdleAccount]>>;

pub(super) struct Builder<'a> {
    entities: &'a Entities,
    catalog: &'static Catalog,
    pub(super) health: &'a HealthMap,
    options: &'a BuildOptions,
    profiles: Profiles,
    problems: Vec<SnapshotProblem>,
}

impl<'a> Builder<'a> {
    pub(super) fn new(
        entities: &'a Entities,
        catalog: &'static Catalog,
        health: &'a HealthMap,
        options: &'a BuildOptions,
    ) -> Self {
        let profiles = Profiles::new(&entities.settings.resilience);
        Self { entities, catalog, health, options, profiles, problems: Vec::new() }
    }

    pub(super) fn build(mut self) -> Snapshot {
        for (combo, cleared) in &self.entities.counts_cleared {
            self.health.combo(combo).begin_counts(*cleared);
        }
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
        let rules = self.rules(&self.entities.settings, &prefixes);
        let blocked = &self.entities.settings.blocked_providers;
        let blocked: Vec<_> = blocked.iter().filter_map(|name| prefixes.get(name)).cloned().collect();
        let (providers, idle_accounts) = self.providers(&rules, &blocked);
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
            .map(|key| {
                let mut caller = Caller::new(key, &mut self.problems);
                caller.no_log |= self.options.no_log_keys.iter().any(|id| id == caller.id.as_str());
                (key.hash.0, Arc::new(caller))
            })
            .collect();
        let mut settings = self.entities.settings.clone();
        settings.log_retention_days = self.options.log_retention_days.unwrap_or(settings.log_retention_days);
        settings.call_log_max_entries =
            self.options.call_log_max_entries.unwrap_or(settings.call_log_max_entries);
        settings.semantic_cache_ttl_ms =
            self.options.semantic_cache_ttl_ms.unwrap_or(settings.semantic_cache_ttl_ms);
        settings.semantic_cache_max_size =
            self.options.semantic_cache_max_size.unwrap_or(settings.semantic_cache_max_size);
        let aliases =
            Aliases::new(self.entities.aliases.iter().map(|(name, target)| (name.as_str(), target.as_str())));
        let pool = Pool::new(&providers, self.health);
        let combos = self.combos(&pool, &aliases);
        let policies = self.policies_of(&ComboConfig::default(), "setting", "comboDefaults");
        let auto = pool.variants(&self.entities.settings.combo_defaults, &policies, self.health);
        let calendar = Calendar::in_zone(&settings.budgets.tz).unwrap_or_else(|| {
            let message = format!("`{}` is no time zone; budgets count in UTC", settings.budgets.tz);
            self.problem("setting", "budgets.tz", message);
            Calendar::default()
        });
        let mut problems = Vec::new();
        let policies = Policies::new(&self.entities.policies, &mut |id, message| {
            problems.push(SnapshotProblem { entity: "policy", id: id.to_owned(), message });
        });
        self.problems.append(&mut problems);
        let system_text = SystemText::new(&settings.system_prompt).unwrap_or_else(|error| {
            self.problem("setting", "systemPrompt", format!("is off: {error}"));
            None
        });
        let rows = self.entities.connections.iter().chain(&self.options.connections);
        let idle = rows.filter(|row| !connections.contains_key(&row.id));
        Snapshot {
            idle: idle_accounts,
            idle_credentials: idle.flat_map(credentials::held).collect(),
            revision: self.entities.revision,
            aliases,
            combos,
            mappings: Mappings::new(&self.entities.combo_mappings),
            policies,
            chains: Chains::new(&self.entities.fallback_chains),
            system_text,
            auto,
            settings,
            problems: self.problems,
            catalog: self.catalog,
            providers,
            prefixes,
            keys,
            models,
            has_plans: connections.values().any(|connection| !connection.plan.is_empty()),
            connections,
            budgets: Budgets::new(&self.entities.budgets, calendar),
            prices: self.entities.prices.clone(),
            quotes: no_quotes(),
        }
    }

    fn combos(&mut self, pool: &Pool, aliases: &Aliases) -> Map<Arc<str>, Arc<ComboState>> {
        let mut combos = Map::default();
        let entities = self.entities;
        let active = || entities.combos.iter().filter(|row| row.is_active);
        let mut names: BTreeSet<String> = variant_names().into_iter().collect();
        names.extend(active().map(|row| row.name.clone()));
        for row in active() {
            let led_to = |model: &str| {
                let combo = resolve::combo_meant(aliases, model, |name| names.contains(name));
                combo.filter(|_| !resolve::is_own_name(model, &row.name))
            };
            let state = self.combo(row, pool, &led_to);
            combos.insert(state.name.clone(), Arc::new(state));
        }
        combos
    }

    /// `led_to` says which combo a name of a model means.
    fn combo(
        &mut self,
        row: &Combo,
        pool: &Pool,
        led_to: &dyn Fn(&str) -> Option<(String, Suffixes)>,
    ) -> ComboState {
        let id = row.id.as_str();
        let strategy = routing::by_name(&row.strategy).unwrap_or_else(|| {
            let instead = routing::combo_default();
            self.problem(
                "combo",
                id,
                format!("strategy `{}` is unknown; using `{}`", row.strategy, instead.name()),
            );
            instead
        });
        let memory = self.health.combo(&row.id);
        let (policy, overrides) = self.policies_of(&row.config, "combo", id);
        let mut steps = Vec::with_capacity(row.steps.len());
        let ids: Vec<Arc<str>> = row.steps.iter().map(|step| step.id.as_str().into()).collect();
        for ((step, step_id), stats) in row.steps.iter().zip(&ids).zip(memory.steps(&ids)) {
            let condition = match step.when.as_ref().map(Condition::new).transpose() {
                Ok(condition) => condition,
                Err(error) => {
                    self.problem("combo", id, format!("step `{step_id}` is off: {error}"));
                    continue;
                }
            };
            let template = step.template.as_deref().map(Arc::from);
            let meant = match &step.goal {
                Goal::Model { model, connection_id: None } => led_to(model),
                Goal::Model { .. } | Goal::ComboRef { .. } => None,
            };
            let (goal, suffixes) = match meant {
                Some((combo_name, suffixes)) => (Goal::ComboRef { combo_name }, suffixes),
                None => (step.goal.clone(), Suffixes::default()),
            };
            let mut state = StepState::new(step_id.clone(), step.weight, condition, goal, template, stats);
            state.suffixes = suffixes;
            steps.push(state);
        }
        let rules = ComboRules::new(&row.transforms).unwrap_or_else(|error| {
            self.problem("combo", id, format!("changes nothing in requests: {error}"));
            ComboRules::default()
        });
        let config = row.config.clone().over(self.entities.settings.combo_defaults.clone());
        let auto = strategy.wants().signals.then(|| Box::new(Tuning::of(&config)));
        // Without entries of its own it chooses among all models.
        let steps = if steps.is_empty() && auto.is_some() { pool.steps.clone() } else { Arc::new(steps) };
        ComboState {
            needs: OnceLock::new(),
            id: row.id.clone(),
            name: row.name.as_str().into(),
            strategy,
            auto,
            steps,
            rules,
            policy,
            overrides,
            is_hidden: row.is_hidden,
            sort_order: row.sort_order,
            updated_at: row.updated_at,
            memory,
        }
    }

    /// How a combo is carried out, and how where a target's provider makes a difference.
    fn policies_of(
        &mut self,
        own: &ComboConfig,
        entity: &'static str,
        id: &str,
    ) -> (Policy, Vec<(ProviderId, Policy)>) {
        let mut wrong = Vec::new();
        let policies = Policy::all_of(own, &self.entities.settings, &mut wrong);
        for error in wrong {
            self.problem(entity, id, format!("answers are not checked: responseValidation.{error}"));
        }
        policies
    }

    /// The providers that can be asked, and the accounts of any that cannot.
    fn providers(&mut self, rules: &Rules, blocked: &[ProviderId]) -> (Providers, IdleAccounts) {
        let mut rows: Vec<_> = self.entities.connections.iter().chain(&self.options.connections).collect();
        rows.sort_by(|a, b| (a.priority, a.created_at, &a.id).cmp(&(b.priority, b.created_at, &b.id)));
        let mut by_provider: Map<ProviderId, Vec<&Connection>> = Map::default();
        let mut idle: Map<ProviderId, Vec<IdleAccount>> = Map::default();
        for row in rows {
            match row.is_active {
                true => by_provider.entry(row.provider.clone()).or_default().push(row),
                false => {
                    let account = IdleAccount::of(row, Idleness::SwitchedOff);
                    idle.entry(row.provider.clone()).or_default().push(account);
                }
            }
        }
        let mut providers = Map::default();
        for (id, rows) in by_provider {
            let mut leave = |row: &Connection, why: Idleness| {
                idle.entry(id.clone()).or_default().push(IdleAccount::of(row, why));
            };
            if blocked.contains(&id) {
                rows.iter().for_each(|row| leave(row, Idleness::Blocked));
                continue;
            }
            let node = self.entities.nodes.iter().find(|node| node.id == id);
            let Some(spec) = self.spec(&id, node) else {
                for row in rows {
                    let message = format!(
                        "provider `{id}` is in neither the catalogue nor the nodes; delete the connection"
                    );
                    self.problem("connection", row.id.as_str(), message.clone());
                    leave(row, Idleness::Unusable(message.into()));
                }
                continue;
            };
            let provider = registry::provider_for(spec.clone());
            let is_alone = rows.len() == 1;
            let mut connections = Vec::with_capacity(rows.len());
            for row in rows {
                match self.connection(&*provider, node, row, is_alone) {
                    Ok(connection) => connections.push(connection),
                    Err(why) => {
                        self.problem("connection", row.id.as_str(), why.clone());
                        leave(row, Idleness::Unusable(why.into()));
                    }
                }
            }
            if connections.is_empty() {
                continue;
            }
            let models = self.models(&id, &spec.models);
            let bound_models = self.bound_models(&id);
            let state = ProviderState {
                bound_models,
                own_models: self
                    .entities
                    .custom_models
                    .iter()
                    .filter(|model| model.provider == id)
                    .cloned()
                    .collect(),
                id: id.clone(),
                alias: spec.alias.clone(),
                provider,
                rule: rules.of(&id),
                rotation: self.health.rotation(&id),
                connections,
                idle: Arc::default(),
                models,
                is_node: node.is_some(),
            };
            providers.insert(id, state);
        }
        if let Some(simulator) = self.simulator(rules) {
            providers.insert(simulator.id.clone(), simulator);
        }
        let idle = idle::shared(idle);
        let with_idle = |(id, mut state): (ProviderId, ProviderState)| {
            state.idle = idle.get(&id).cloned().unwrap_or_default();
            (id, Arc::new(state))
        };
        (providers.into_iter().map(with_idle).collect(), idle)
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
        is_alone: bool,
    ) -> Result<Arc<ConnectionState>, String> {
        let (endpoints, services) = reach_of(provider, row).map_err(|error| error.to_string())?;
        // Where it can be used it is used, whether or not its vendor can be asked.
        let quota_api = quota_api_of(provider, row).unwrap_or_else(|error| {
            let message = format!("its provider cannot be asked what is left: {error}");
            self.problem("connection", row.id.as_str(), message);
            None
        });
        let ships_private = provider.resilience_profile() == ResilienceProfile::Local
            && node.is_none()
            && row.options.base_url.is_none();
        let health = self.health.of(&row.id, &row.status);
        health.vendor.belongs_to(quota_api.as_ref());
        let base_url = row.options.base_url.as_deref();
        let kind = profile::kind(provider.resilience_profile(), row.auth_type, &endpoints);
        let profile = self.profiles.of(kind);
        let breaker = profile::breaker_name(provider.spec(), base_url, &endpoints);
        let state = ConnectionState {
            id: row.id.clone(),
            name: row.name.as_str().into(),
            provider: row.provider.clone(),
            endpoints,
            services: services.into(),
            allow_private: self.options.allow_private
                || ships_private
                || row.options.allow_private
                || node.is_some_and(|node| node.allow_private),
            max_concurrent: row.max_concurrent,
            limits: limits_of(row, &self.entities.settings),
            plan: self.plan(row),
            quota_api,
            weight: row.options.weight.unwrap_or(1),
            discount: row.options.discount.unwrap_or_default(),
            tags: row.tags.clone(),
            default_model: row.default_model.clone(),
            health,
            breaker: self.health.breaker(&breaker, &row.provider),
            breaker_policy: self.profiles.breaker(kind, is_alone),
            profile,
            pool: Vec::new(),
            part_of: None,
            key: None,
            state_id: row.id.clone(),
            first_key: row.api_key.as_ref().map(|key| ConnectionId::of_key(&row.id, key.expose_secret())),
            tier: AccountTier::of(&row.tags),
            excluded_models: row.options.excluded_models.iter().map(|text| Pattern::new(text)).collect(),
        };
        Ok(Arc::new(self.pooled(provider, row, state)))
    }

    /// What the account's plan allows, by the calendar of the budgets. A window that makes no sense is told and left out.
    fn plan(&mut self, row: &Connection) -> Arc<[PlanWindow]> {
        if row.options.quota_windows.is_empty() {
            return Arc::default();
        }
        let calendar = Calendar::in_zone(&self.entities.settings.budgets.tz).unwrap_or_default();
        let mut windows = Vec::with_capacity(row.options.quota_windows.len());
        for window in row.options.quota_windows.iter().take(MAX_QUOTA_WINDOWS) {
            match PlanWindow::new(window, &calendar) {
                Ok(window) => windows.push(window),
                Err(error) => {
                    self.problem("connection", row.id.as_str(), format!("a quota window is off: {error}"));
                }
            }
        }
        windows.into()
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
                mode: row.map_or_else(|| mode_by_name(name), |row| &row.mode).to_owned(),
                context_window: row.and_then(|row| row.context_window),
                max_output: row.and_then(|row| row.max_output),
            });
        }
        models.extend(custom.into_iter().filter(|model| !model.is_hidden).map(ListedModel::of));
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
    fn simulator(&self, rules: &Rules) -> Option<ProviderState> {
        let spec = self.catalog.provider(registry::SIM)?.clone();
        let provider = registry::provider_for(spec.clone());
        let id = ConnectionId::from("sim");
        let endpoints = provider.endpoints(&ConnectionInput::default()).ok()?;
        let services = provider.services(&ConnectionInput::default()).ok()?;
        let connection = ConnectionState {
            id: id.clone(),
            name: "simulator".into(),
            provider: spec.id.clone(),
            endpoints,
            services: services.into(),
            allow_private: false,
            max_concurrent: None,
            limits: None,
            plan: Arc::default(),
            quota_api: None,
            weight: 1,
            discount: Discount::default(),
            default_model: spec.models.first().cloned(),
            health: self.health.of(&id, &crate::entity::ConnectionStatus::default()),
            breaker: self.health.breaker(spec.id.as_str(), &spec.id),
            breaker_policy: self.profiles.breaker(ResilienceProfile::Local, true),
            profile: self.profiles.of(ResilienceProfile::Local),
            pool: Vec::new(),
            part_of: None,
            key: None,
            state_id: id.clone(),
            first_key: None,
            tier: AccountTier::default(),
            excluded_models: Vec::new(),
            tags: Vec::new(),
        };
        Some(ProviderState {
            id: spec.id.clone(),
            alias: spec.alias.clone(),
            models: self.models(&spec.id, &spec.models),
            provider,
            connections: vec![Arc::new(connection)],
            idle: Arc::default(),
            rule: rules.all,
            rotation: self.health.rotation(&spec.id),
            is_node: false,
            bound_models: Vec::new(),
            own_models: Vec::new(),
        })
    }

    pub(super) fn problem(&mut self, entity: &'static str, id: &str, message: String) {
        self.problems.push(SnapshotProblem { entity, id: id.to_owned(), message });
    }
}
