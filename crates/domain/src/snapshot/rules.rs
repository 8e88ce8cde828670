//! What holds for accounts by the settings: in which order those of each provider are tried, and what they are held to.

use omniroute_provider::ProviderId;

use super::Map;
use super::build::Builder;
use crate::entity::{Connection, RuntimeSettings};
use crate::limiter;
use crate::rotation::Rule;
use crate::routing::{self, Strategy};

/// What requests of an account are held to. Subscriptions are let alone unless the operator says so; a choice for the single
/// account comes before all.
pub(super) fn limits_of(row: &Connection, settings: &RuntimeSettings) -> Option<limiter::Rules> {
    let queue = &settings.resilience.request_queue;
    row.is_held_to_limits(queue.auto_enable_api_key_providers).then_some(limiter::Rules {
        per_minute: queue.requests_per_minute,
        spacing_ms: queue.min_time_between_requests_ms,
        at_once: queue.concurrent_requests,
        max_depth: queue.max_queue_depth,
        max_wait_ms: queue.max_wait_ms,
    })
}

/// The rules of a configuration.
pub(super) struct Rules {
    /// Where nothing else is said.
    pub(super) all: Rule,
    some: Map<ProviderId, Rule>,
}

impl Rules {
    /// The rule of a provider.
    pub(super) fn of(&self, provider: &ProviderId) -> Rule {
        self.some.get(provider).copied().unwrap_or(self.all)
    }
}

impl Builder<'_> {
    /// Reads the rules; names that nobody knows are told and left out.
    pub(super) fn rules(&mut self, settings: &RuntimeSettings, prefixes: &Map<String, ProviderId>) -> Rules {
        let strategy = self.strategy("fallbackStrategy", &settings.fallback_strategy, routing::default());
        let all = Rule { strategy, sticky: settings.sticky_round_robin_limit };
        let mut some = Map::default();
        for (name, own) in &settings.provider_strategies {
            let field = format!("providerStrategies.{name}");
            let Some(provider) = prefixes.get(name) else {
                self.problem("setting", &field, "is neither a provider nor a node; remove it".to_owned());
                continue;
            };
            let strategy = match &own.fallback_strategy {
                Some(name) => self.strategy(&field, name, all.strategy),
                None => all.strategy,
            };
            let sticky = own.sticky_round_robin_limit.unwrap_or(all.sticky);
            some.insert(provider.clone(), Rule { strategy, sticky });
        }
        Rules { all, some }
    }

    fn strategy(&mut self, field: &str, name: &str, instead: &'static dyn Strategy) -> &'static dyn Strategy {
        routing::for_accounts(name).unwrap_or_else(|| {
            let message = format!("`{name}` is unknown; using `{}`", instead.name());
            self.problem("setting", field, message);
            instead
        })
    }
}
