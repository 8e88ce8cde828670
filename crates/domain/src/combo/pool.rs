//! Every model that `auto` may choose from where no entries say which, and the combos that there are without a row.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::{Arc, OnceLock};

use omniroute_provider::{ProviderId, registry};

use super::{ComboState, Policy, StepState};
use crate::entity::{ComboConfig, ComboId};
use crate::health::HealthMap;
use crate::resolve::{KnownPrice, Suffixes, Target, Via};
use crate::routing::auto::{POOL, Tuning, variant_names, variant_tuning};
use crate::routing::by_name;
use crate::snapshot::ProviderState;
use crate::transform::ComboRules;

/// Most models of a pool. Each provider gives one before any gives a second, so none is left out for another's length.
pub const MAX_POOL: usize = 128;

/// The models of all active accounts.
pub struct Pool {
    /// As steps of a combo; their counts are shared by all that use them.
    pub steps: Arc<Vec<StepState>>,
}

impl Pool {
    /// The pool of these providers. Of an account that names its model that one, else what the provider lists.
    pub fn new<S: BuildHasher>(
        providers: &HashMap<ProviderId, Arc<ProviderState>, S>,
        health: &HealthMap,
    ) -> Self {
        let mut providers: Vec<_> =
            providers.values().filter(|provider| provider.id.as_str() != registry::SIM).collect();
        providers.sort_by(|a, b| a.id.cmp(&b.id));
        let lists: Vec<Vec<String>> = providers.iter().map(|provider| models(provider)).collect();
        let longest = lists.iter().map(Vec::len).max().unwrap_or(0);
        let pairs = || {
            (0..longest).flat_map(|row| providers.iter().zip(&lists).map(move |(p, list)| (p, list.get(row))))
        };
        let targets: Vec<Arc<Target>> = pairs()
            .filter_map(|(provider, model)| {
                Some(Arc::new(Target {
                    provider: Arc::clone(provider),
                    model: model?.as_str().into(),
                    connection_name: None,
                    via: Via::Direct,
                    suffixes: Suffixes::default(),
                    price: KnownPrice::default(),
                }))
            })
            .take(MAX_POOL)
            .collect();
        let ids: Vec<Arc<str>> = targets.iter().map(|target| target.full_name().into()).collect();
        let stats = health.combo(&ComboId::from(POOL)).steps(&ids);
        let steps = targets.into_iter().zip(stats).map(|(target, stats)| StepState::to(target, stats));
        Self { steps: Arc::new(steps.collect()) }
    }

    /// `auto` and its variants over this pool.
    pub(crate) fn variants<S: BuildHasher + Default>(
        &self,
        defaults: &ComboConfig,
        (policy, overrides): &(Policy, Vec<(ProviderId, Policy)>),
        health: &HealthMap,
    ) -> HashMap<Arc<str>, Arc<ComboState>, S> {
        let Some(strategy) = by_name("auto") else { return HashMap::default() };
        let base = Tuning::of(defaults);
        let state = |name: String| {
            let id = ComboId::from(name.as_str());
            let tuning = variant_tuning(&name, &base)?;
            let name: Arc<str> = name.into();
            let state = ComboState {
                needs: OnceLock::new(),
                memory: health.combo(&id),
                id,
                name: name.clone(),
                strategy,
                auto: Some(Box::new(tuning)),
                steps: self.steps.clone(),
                rules: ComboRules::default(),
                policy: policy.clone(),
                overrides: overrides.clone(),
                is_hidden: false,
                sort_order: i64::MAX,
                updated_at: 0,
            };
            Some((name, Arc::new(state)))
        };
        variant_names().into_iter().filter_map(state).collect()
    }
}

/// The models of a provider that are for chat, by the wish of its accounts.
fn models(provider: &ProviderState) -> Vec<String> {
    let mut models: Vec<String> = Vec::new();
    let mut push = |model: &str| {
        if !models.iter().any(|known| known == model) {
            models.push(model.to_owned());
        }
    };
    provider.connections.iter().filter_map(|own| own.default_model.as_deref()).for_each(&mut push);
    if provider.connections.iter().any(|own| own.default_model.is_none()) {
        let listed =
            provider.models.iter().filter(|model| matches!(model.mode.as_str(), "chat" | "responses"));
        listed.for_each(|model| push(&model.id));
    }
    models
}
