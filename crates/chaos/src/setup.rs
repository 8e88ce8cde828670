//! From a scenario to everything a run needs: rows, upstreams, requests. Whatever cannot be is found here, before anything runs.

use std::collections::HashMap;

use omniroute_domain::entity::{
    ApiKey, ApiKeyId, Combo as ComboRow, ComboId, Connection, ConnectionId, ConnectionStatus, Entities, Goal,
    KeyHash, Step,
};
use omniroute_domain::routing;
use omniroute_provider::ProviderId;
use omniroute_provider::catalog::{Catalog, catalog};
use toml::Spanned;

use crate::clock::START_MS;
use crate::error::ScenarioError;
use crate::money;
use crate::random::Random;
use crate::scenario::{Expect, FaultKind, Key, Latency, Scenario, Upstream};
use crate::upstream::{Habits, MARK, Script, Trouble};

/// Most accounts of a scenario.
const MAX_ACCOUNTS: usize = 1_000;
/// Longest phase.
const MAX_SECONDS: u64 = 30 * 86_400;
/// Most requests of a run.
pub(crate) const MAX_REQUESTS: u64 = 1_000_000_000;

/// The configuration of an operator, over which a scenario is played.
pub struct Base {
    /// The rows.
    pub entities: Entities,
    /// The catalogue, with what the operator added to it.
    pub catalog: &'static Catalog,
}

/// Everything a run needs.
pub(crate) struct Setup {
    pub(crate) catalog: &'static Catalog,
    pub(crate) entities: Entities,
    pub(crate) accounts: Vec<AccountSetup>,
    pub(crate) keys: Vec<KeySetup>,
    pub(crate) phases: Vec<PhaseSetup>,
    /// Length of all phases together.
    pub(crate) round_ms: u64,
}

/// An account and its upstream.
pub(crate) struct AccountSetup {
    /// As the report calls it.
    pub(crate) name: String,
    pub(crate) id: ConnectionId,
    /// What its calls carry.
    pub(crate) mark: usize,
    pub(crate) max_concurrent: Option<u32>,
    pub(crate) script: Script,
}

/// A key that clients may use.
pub(crate) struct KeySetup {
    pub(crate) name: String,
    pub(crate) id: ApiKeyId,
    /// What they send.
    pub(crate) text: String,
    pub(crate) requests_per_day: Option<u32>,
    pub(crate) max_concurrent: Option<u32>,
}

/// A phase.
pub(crate) struct PhaseSetup {
    pub(crate) name: String,
    pub(crate) from_ms: u64,
    pub(crate) to_ms: u64,
    pub(crate) per_second: f64,
    pub(crate) expect: Expect,
}

/// A scenario's text with its places, for errors.
struct Builder<'a> {
    scenario: &'a Scenario,
    text: &'a str,
}

impl Setup {
    /// Puts a scenario together, over an operator's configuration where there is one.
    pub(crate) fn new(
        scenario: &Scenario,
        text: &str,
        base: Option<Base>,
        seed: u64,
    ) -> Result<Self, ScenarioError> {
        let builder = Builder { scenario, text };
        let has_base = base.is_some();
        if has_base {
            builder.check_no_accounts_are_made()?;
        }
        let Base { mut entities, catalog } =
            base.unwrap_or_else(|| Base { entities: Entities::default(), catalog: catalog() });
        if !has_base {
            entities.connections = builder.connections()?;
        }
        entities.connections.retain(|connection| connection.is_active);
        if entities.connections.is_empty() {
            return Err(ScenarioError::whole(match has_base {
                true => {
                    "the configuration has no active connection; add one, or give the scenario accounts of its own"
                }
                false => {
                    "the scenario has no [[account]]; add one, or run it over a configuration with --data-dir"
                }
            }));
        }
        if entities.connections.len() > MAX_ACCOUNTS {
            return Err(ScenarioError::whole(format!(
                "{} accounts are more than the {MAX_ACCOUNTS} that a run takes",
                entities.connections.len()
            )));
        }
        for (mark, connection) in entities.connections.iter_mut().enumerate() {
            prepare(connection, mark);
        }
        builder.combos(&mut entities)?;
        let keys = builder.keys(&mut entities)?;
        money::budgets(scenario, &mut entities);
        entities.settings = scenario.settings_over(entities.settings, text)?;
        let phases = builder.phases()?;
        let round_ms = phases.last().map_or(0, |phase| phase.to_ms);
        let names = Names::of(&entities.connections);
        let accounts = builder.accounts(&entities, &names, &phases, round_ms, seed)?;
        for expect in phases.iter().map(|phase| &phase.expect).chain([&scenario.expect]) {
            builder.check_expectations(expect, &names)?;
        }
        Ok(Self { catalog, entities, accounts, keys, phases, round_ms })
    }
}

/// Marks an account, and lets it begin as if nothing had ever happened, unless only its operator could end that.
fn prepare(connection: &mut Connection, mark: usize) {
    connection.options.extra_headers.insert(MARK.to_owned(), mark.to_string());
    if connection.api_key.is_none() {
        connection.api_key = Some("stand-in".into());
    }
    let test_status = connection.status.test_status;
    connection.status = ConnectionStatus::default();
    if test_status.is_terminal() {
        connection.status.test_status = test_status;
    }
}

/// The accounts by every name that a scenario may call them.
struct Names {
    labels: Vec<String>,
    by_name: HashMap<String, Vec<usize>>,
}

impl Names {
    fn of(connections: &[Connection]) -> Self {
        let mut by_name: HashMap<String, Vec<usize>> = HashMap::new();
        let mut labels = Vec::with_capacity(connections.len());
        for (mark, connection) in connections.iter().enumerate() {
            let label = format!("{}/{}", connection.provider, connection.name);
            let mut names = vec![connection.name.clone(), connection.id.to_string(), label.clone()];
            names.sort();
            names.dedup();
            for name in names {
                by_name.entry(name).or_default().push(mark);
            }
            labels.push(label);
        }
        // The name alone is enough where it is nobody else's.
        for (mark, connection) in connections.iter().enumerate() {
            if by_name.get(&connection.name).is_some_and(|marks| marks.len() == 1) {
                labels[mark].clone_from(&connection.name);
            }
        }
        Self { labels, by_name }
    }

    fn find(&self, name: &str) -> Result<usize, String> {
        match self.by_name.get(name).map(Vec::as_slice) {
            Some([mark]) => Ok(*mark),
            Some(marks) => {
                Err(format!("`{name}` is the name of {} accounts; write `provider/name`", marks.len()))
            }
            None => Err(format!("there is no account `{name}`; there are: {}", self.labels.join(", "))),
        }
    }
}

impl Builder<'_> {
    fn wrong<T, R>(&self, at: &Spanned<T>, message: impl Into<String>) -> Result<R, ScenarioError> {
        Err(ScenarioError::at(self.text, Some(at.span().start), message))
    }

    /// Over an operator's configuration accounts are named, not made.
    fn check_no_accounts_are_made(&self) -> Result<(), ScenarioError> {
        for account in &self.scenario.accounts {
            let is_made = account.provider.is_some()
                || account.priority.is_some()
                || account.max_concurrent.is_some()
                || !account.excluded_models.is_empty();
            if is_made {
                return self.wrong(
                    &account.name,
                    "over a configuration an [[account]] has a `name` and an `upstream` only; the rest is the configuration's",
                );
            }
        }
        Ok(())
    }

    fn connections(&self) -> Result<Vec<Connection>, ScenarioError> {
        let mut connections: Vec<Connection> = Vec::new();
        for (at, account) in self.scenario.accounts.iter().enumerate() {
            let name = account.name.get_ref();
            let Some(provider) = &account.provider else {
                return self.wrong(
                    &account.name,
                    format!("the account `{name}` needs a `provider` of the catalogue, such as \"openai\""),
                );
            };
            if catalog().provider(provider.get_ref()).is_none() {
                return self
                    .wrong(provider, format!("`{}` is no provider of the catalogue", provider.get_ref()));
            }
            if connections.iter().any(|other| other.name == *name) {
                return self.wrong(&account.name, format!("there are two accounts `{name}`"));
            }
            let priority = account.priority.unwrap_or(i64::try_from(at).unwrap_or(i64::MAX) + 1);
            let mut row = connection(name, provider.get_ref(), priority);
            row.max_concurrent = account.max_concurrent;
            row.options.excluded_models.clone_from(&account.excluded_models);
            connections.push(row);
        }
        Ok(connections)
    }

    fn combos(&self, entities: &mut Entities) -> Result<(), ScenarioError> {
        for combo in &self.scenario.combos {
            if routing::by_name(combo.strategy.get_ref()).is_none() {
                let known: Vec<&str> = routing::STRATEGIES.iter().map(|strategy| strategy.name()).collect();
                return self.wrong(
                    &combo.strategy,
                    format!("`{}` is no strategy; there are: {}", combo.strategy.get_ref(), known.join(", ")),
                );
            }
            if let Some(weights) = combo.weights.as_ref().filter(|it| it.get_ref().len() != combo.steps.len())
            {
                return self.wrong(
                    weights,
                    format!("{} weights for {} steps", weights.get_ref().len(), combo.steps.len()),
                );
            }
            let steps = combo.steps.iter().enumerate().map(|(at, step)| {
                let goal = match step.get_ref().strip_prefix("combo:") {
                    Some(name) => Goal::ComboRef { combo_name: name.to_owned() },
                    None => Goal::Model { model: step.get_ref().clone(), connection_id: None },
                };
                let weight = combo.weights.as_ref().map_or(0, |weights| weights.get_ref()[at]);
                Step { id: format!("s{}", at + 1), goal, weight, label: None, when: None, template: None }
            });
            let row = ComboRow {
                id: ComboId::from(format!("chaos-{}", combo.name)),
                name: combo.name.clone(),
                strategy: combo.strategy.get_ref().clone(),
                steps: steps.collect(),
                config: combo.config.clone(),
                transforms: Default::default(),
                is_hidden: false,
                is_active: true,
                sort_order: 0,
                created_at: 0,
                updated_at: 0,
            };
            entities.combos.retain(|other| other.name != row.name);
            entities.combos.push(row);
        }
        Ok(())
    }

    /// Keys of the scenario, and those of the configuration under a text that is known here.
    fn keys(&self, entities: &mut Entities) -> Result<Vec<KeySetup>, ScenarioError> {
        for (at, key) in self.scenario.keys.iter().enumerate() {
            let name = key.name.get_ref();
            if self.scenario.keys[..at].iter().any(|other| other.name.get_ref() == name) {
                return self.wrong(&key.name, format!("there are two keys `{name}`"));
            }
            entities.api_keys.retain(|other| other.name != *name);
            entities.api_keys.push(api_key(key));
        }
        let mut keys = Vec::with_capacity(entities.api_keys.len());
        for (at, key) in entities.api_keys.iter_mut().enumerate() {
            let text = format!("sk-chaos-{at}");
            key.hash = KeyHash::of(&text);
            // Clients of a run have no address.
            key.ip_allowlist.clear();
            keys.push(KeySetup {
                name: key.name.clone(),
                id: key.id.clone(),
                text,
                requests_per_day: key.max_requests_per_day,
                max_concurrent: key.max_concurrent,
            });
        }
        Ok(keys)
    }

    fn phases(&self) -> Result<Vec<PhaseSetup>, ScenarioError> {
        let mut phases = Vec::with_capacity(self.scenario.phases.len());
        let mut from_ms = 0;
        for phase in &self.scenario.phases {
            let (seconds, rate) = (*phase.seconds.get_ref(), *phase.rate.get_ref());
            if !(1..=MAX_SECONDS).contains(&seconds) {
                return self.wrong(&phase.seconds, format!("a phase lasts 1 to {MAX_SECONDS} seconds"));
            }
            if !(rate > 0.0 && rate <= 100_000.0) {
                return self.wrong(&phase.rate, "the rate is above 0 and at most 100000 requests per second");
            }
            let to_ms = from_ms + seconds * 1_000;
            phases.push(PhaseSetup {
                name: phase.name.clone(),
                from_ms,
                to_ms,
                per_second: rate,
                expect: phase.expect.clone(),
            });
            from_ms = to_ms;
        }
        if phases.is_empty() {
            return Err(ScenarioError::whole("the scenario has no [[phase]]"));
        }
        Ok(phases)
    }

    fn accounts(
        &self,
        entities: &Entities,
        names: &Names,
        phases: &[PhaseSetup],
        round_ms: u64,
        seed: u64,
    ) -> Result<Vec<AccountSetup>, ScenarioError> {
        let mut behaviours: Vec<Option<&Upstream>> = vec![None; entities.connections.len()];
        for account in &self.scenario.accounts {
            let mark = names.find(account.name.get_ref());
            let mark = mark.or_else(|message| self.wrong(&account.name, message))?;
            behaviours[mark] = Some(&account.upstream);
        }
        let mut troubles: Vec<Vec<Trouble>> = vec![Vec::new(); entities.connections.len()];
        for (phase, setup) in self.scenario.phases.iter().zip(phases) {
            for fault in &phase.faults {
                let length = (setup.to_ms - setup.from_ms) / 1_000;
                let to = fault.to.as_ref().map_or(length, |to| *to.get_ref());
                if let Some(at) =
                    fault.to.as_ref().filter(|to| *to.get_ref() > length || *to.get_ref() <= fault.from)
                {
                    return self.wrong(
                        at,
                        format!("`to` is after `from` ({}) and within the phase ({length} s)", fault.from),
                    );
                }
                let trouble = Trouble {
                    kind: fault.kind,
                    from_ms: setup.from_ms + fault.from * 1_000,
                    to_ms: setup.from_ms + to * 1_000,
                    share: fault.share,
                    status: status_of(fault.kind, fault.status),
                    retry_after_ms: fault.retry_after_ms,
                    factor: fault.factor.unwrap_or(10.0),
                };
                for name in &fault.accounts {
                    if name.get_ref() == "*" {
                        troubles.iter_mut().for_each(|list| list.push(trouble.clone()));
                        continue;
                    }
                    let mark = names.find(name.get_ref()).or_else(|message| self.wrong(name, message))?;
                    troubles[mark].push(trouble.clone());
                }
                if !(0.0..=1.0).contains(&fault.share) {
                    let Some(name) = fault.accounts.first() else { continue };
                    return self.wrong(name, "the `share` of a fault is between 0 and 1");
                }
            }
        }
        let rows = entities.connections.iter().zip(troubles).zip(behaviours).enumerate();
        Ok(rows
            .map(|(mark, ((row, troubles), behaviour))| {
                let habits = habits(behaviour, &self.scenario.upstream);
                let random = Random::new(seed, 1_000 + mark as u64);
                AccountSetup {
                    name: names.labels[mark].clone(),
                    id: row.id.clone(),
                    mark,
                    max_concurrent: row.max_concurrent,
                    script: Script::new(habits, troubles, round_ms, random),
                }
            })
            .collect())
    }

    fn check_expectations(&self, expect: &Expect, names: &Names) -> Result<(), ScenarioError> {
        for name in expect.shares.iter().flatten().map(|(name, _)| name) {
            names.find(name).map_err(|message| ScenarioError::whole(format!("expect.shares: {message}")))?;
        }
        let sum: f64 = expect.shares.iter().flatten().map(|(_, weight)| *weight).sum();
        if expect.shares.is_some() && sum <= 0.0 {
            return Err(ScenarioError::whole("expect.shares: at least one weight is above 0"));
        }
        if expect.within.is_some() && expect.shares.is_none() {
            return Err(ScenarioError::whole("expect.within means nothing without expect.shares"));
        }
        Ok(())
    }
}

/// The status of a fault that has none of its own.
fn status_of(kind: FaultKind, given: Option<u16>) -> u16 {
    given.unwrap_or(match kind {
        FaultKind::RateLimit | FaultKind::Quota => 429,
        FaultKind::WrongKey => 401,
        FaultKind::Outage
        | FaultKind::Unreachable
        | FaultKind::Hang
        | FaultKind::Slow
        | FaultKind::Empty
        | FaultKind::CutBefore
        | FaultKind::CutAfter => 503,
    })
}

fn habits(own: Option<&Upstream>, general: &Upstream) -> Habits {
    let own = own.cloned().unwrap_or_default();
    let latency = own.latency.or(general.latency).unwrap_or(Latency { p50: 400, p99: 2_000 });
    Habits {
        latency,
        rest: own.rest.or(general.rest).unwrap_or(latency),
        output_tokens: own.output_tokens.or(general.output_tokens).unwrap_or([20, 300]),
        rate: own.rate.or(general.rate),
        quota: own.quota.or(general.quota).filter(|quota| quota.every_s > 0),
    }
}

fn connection(name: &str, provider: &str, priority: i64) -> Connection {
    Connection {
        priority,
        ..Connection::new(
            ConnectionId::from(format!("chaos-{name}")),
            ProviderId::from(provider),
            name,
            START_MS,
        )
    }
}

/// The id of a key of the scenario.
pub(crate) fn key_id(name: &str) -> ApiKeyId {
    ApiKeyId::from(format!("chaos-{name}"))
}

fn api_key(key: &Key) -> ApiKey {
    ApiKey {
        id: key_id(key.name.get_ref()),
        name: key.name.get_ref().clone(),
        hash: KeyHash([0; 32]),
        masked: String::new(),
        is_active: true,
        no_log: false,
        allowed_models: key.models.clone(),
        denied_models: Vec::new(),
        allowed_connections: Vec::new(),
        allowed_endpoints: Vec::new(),
        scopes: Vec::new(),
        ip_allowlist: Vec::new(),
        max_requests_per_minute: key.requests_per_minute,
        max_requests_per_day: key.requests_per_day,
        max_tokens_per_minute: key.tokens_per_minute,
        max_concurrent: key.max_concurrent,
        max_sessions: 0,
        strict: false,
        rights: Default::default(),
        expires_at: None,
        revoked_at: None,
        last_used_at: None,
        created_at: START_MS,
    }
}
