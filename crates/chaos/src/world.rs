//! The engine as the gateway builds it, but for what reaches outside: time, network, database.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use omniroute_dialect::shape::Seal;
use omniroute_domain::entity::ConnectionId;
use omniroute_domain::health::HealthMap;
use omniroute_domain::snapshot::{BuildOptions, Snapshot};
use omniroute_engine::memory::{MemoryCache, MemoryCounters, NoShelf};
use omniroute_engine::ports::Clock as _;
use omniroute_engine::serve::Ports;
use omniroute_engine::telemetry::Telemetry;
use omniroute_engine::{Engine, EngineOptions, KeyPolicy, Live};

use crate::clock::VirtualClock;
use crate::error::ScenarioError;
use crate::scenario::Scenario;
use crate::setup::{KeySetup, PhaseSetup, Setup};
use crate::tally::Tally;
use crate::traffic::Ask;
use crate::upstream::{ScriptedTransport, Upstreams};

/// Most bytes of each of the engine's caches.
const CACHE_BYTES: u64 = 1 << 20;

/// Everything that takes part in a run.
pub(crate) struct World {
    pub(crate) engine: Arc<Engine>,
    pub(crate) upstreams: Arc<Upstreams>,
    pub(crate) clock: Arc<VirtualClock>,
    pub(crate) tally: Arc<Tally>,
    pub(crate) asks: Vec<Ask>,
    pub(crate) accounts: Vec<AccountFacts>,
    pub(crate) keys: Vec<KeySetup>,
    pub(crate) phases: Vec<PhaseSetup>,
    pub(crate) round_ms: u64,
    /// What of the configuration takes no part, and why.
    pub(crate) notes: Vec<String>,
}

/// What the report says of an account beside counts.
pub(crate) struct AccountFacts {
    pub(crate) name: String,
    pub(crate) id: ConnectionId,
    pub(crate) max_concurrent: Option<u32>,
}

impl World {
    /// Puts it together. Time has to stand still already.
    pub(crate) fn new(
        scenario: &Scenario,
        text: &str,
        setup: Setup,
        is_own: bool,
        seed: u64,
    ) -> Result<Self, ScenarioError> {
        let Setup { catalog, entities, accounts, keys, phases, round_ms } = setup;
        let clock = Arc::new(VirtualClock::new());
        let health = HealthMap::default();
        let snapshot = Snapshot::build(&entities, catalog, &health, &BuildOptions::default());
        let notes: Vec<String> = snapshot
            .problems
            .iter()
            .map(|problem| format!("{} `{}`: {}", problem.entity, problem.id, problem.message))
            .collect();
        if is_own && !notes.is_empty() {
            return Err(ScenarioError::whole(notes.join("; ")));
        }
        // What the configuration cannot use has no upstream either.
        let mut marks: HashMap<ConnectionId, usize> = HashMap::new();
        let (mut facts, mut scripted) = (Vec::new(), Vec::new());
        for account in accounts {
            let Some(connection) = snapshot.connection(&account.id) else { continue };
            marks.insert(account.id.clone(), facts.len());
            scripted.push((account.mark, connection.clone(), account.script));
            facts.push(AccountFacts {
                name: account.name,
                id: account.id,
                max_concurrent: account.max_concurrent,
            });
        }
        let asks = Ask::all(scenario, text, &snapshot, &marks, &keys)?;
        let upstreams = Arc::new(Upstreams::new(scripted, clock.clone()));
        let key_places = keys.iter().enumerate().map(|(place, key)| (key.id.clone(), place)).collect();
        let reaches = asks.iter().map(|ask| ask.reach.clone()).collect();
        let tally =
            Arc::new(Tally::new(upstreams.clone(), clock.clone(), marks, key_places, reaches, phases.len()));
        let transport =
            Arc::new(ScriptedTransport { upstreams: upstreams.clone(), snapshot: OnceLock::new() });
        let ports = Ports {
            transport: transport.clone(),
            counters: Arc::new(MemoryCounters::default()),
            recorder: tally.clone(),
            reasoning: Arc::new(MemoryCache::new(CACHE_BYTES)),
            owners: Arc::new(MemoryCache::new(CACHE_BYTES)),
            media: Arc::new(MemoryCache::new(CACHE_BYTES)),
            shelf: Arc::new(NoShelf),
            seal: Seal::new([7; 32]),
            clock: clock.clone(),
        };
        let live = Arc::new(Live::new(snapshot, health));
        // Set once, here: nothing was sent yet.
        let _ = transport.snapshot.set(live.load().clone());
        let telemetry = Arc::new(Telemetry::new(clock.now_ms()));
        let engine = Arc::new(Engine::new(live, ports, telemetry, options(scenario), seed));
        Ok(Self { engine, upstreams, clock, tally, asks, accounts: facts, keys, phases, round_ms, notes })
    }

    /// Where the report has an account, by its name or id.
    pub(crate) fn place(&self, name: &str) -> Option<usize> {
        self.accounts.iter().position(|account| account.name == name || account.id.as_str() == name)
    }
}

fn options(scenario: &Scenario) -> EngineOptions {
    let mut options = EngineOptions { key_policy: KeyPolicy::OptionalOnLoopback, ..EngineOptions::default() };
    if let Some(ms) = scenario.limits.first_byte_timeout_ms {
        options.first_byte_timeout = Duration::from_millis(ms);
    }
    if let Some(ms) = scenario.limits.stream_idle_timeout_ms {
        options.stream_idle_timeout = Duration::from_millis(ms);
    }
    options.fetch_media = false;
    options
}
