//! The members of a combo's `config` that tune the strategy `auto`.

use std::collections::BTreeMap;

use omniroute_domain::entity::{AutoWeights, BudgetFallback, ModePack, RouterStrategy};
use omniroute_domain::routing::auto::Factor;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::config::ConfigView;
use crate::validation::Problems;

/// Largest cap of a request, in USD.
const MAX_CAP: f64 = 1_000_000.0;

/// Weights of factors of `auto`, by the factor's name.
#[derive(Deserialize, Serialize, ToSchema, Clone)]
#[serde(transparent)]
pub(crate) struct WeightsView(BTreeMap<String, f64>);

impl From<AutoWeights> for WeightsView {
    fn from(weights: AutoWeights) -> Self {
        let named = |factor: Factor| Some((factor.name().to_owned(), weights.of(factor)?));
        Self(Factor::ALL.into_iter().filter_map(named).collect())
    }
}

impl From<WeightsView> for AutoWeights {
    fn from(view: WeightsView) -> Self {
        let mut weights = Self::default();
        // Names that are none were refused before.
        for (name, weight) in view.0 {
            if let Some(factor) = Factor::by_name(&name) {
                weights.set(factor, weight.into());
            }
        }
        weights
    }
}

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident = $domain:ident { $($(#[$attribute:meta])* $variant:ident,)+ })+) => {
        $(
            $(#[$doc])*
            #[derive(Deserialize, Serialize, ToSchema, Clone, Copy)]
            #[serde(rename_all = "kebab-case")]
            pub(crate) enum $name {
                $($(#[$attribute])* $variant,)+
            }

            impl From<$domain> for $name {
                fn from(value: $domain) -> Self {
                    match value {
                        $($domain::$variant => Self::$variant,)+
                    }
                }
            }

            impl From<$name> for $domain {
                fn from(value: $name) -> Self {
                    match value {
                        $($name::$variant => Self::$variant,)+
                    }
                }
            }
        )+
    };
}

words! {
    /// Weights that belong together.
    Pack = ModePack {
        ShipFast,
        CostSaver,
        QualityFirst,
        OfflineFriendly,
        Reliable,
    }
    /// What becomes of a request that is too expensive everywhere.
    Fallback = BudgetFallback {
        Cheapest,
        Strict,
    }
    /// By what `auto` chooses.
    Router = RouterStrategy {
        Rules,
        #[serde(alias = "eco")]
        Cost,
        #[serde(alias = "fast")]
        Latency,
        Lkgp,
        Sla,
    }
}

/// Notes what is out of bounds.
pub(super) fn check(config: &ConfigView, field: &str, problems: &mut Problems) {
    if let Some(WeightsView(weights)) = &config.weights {
        for (name, weight) in weights {
            let field = format!("{field}.weights.{name}");
            if Factor::by_name(name).is_none() {
                let known = Factor::ALL.map(Factor::name).join(", ");
                problems.add(&field, format!("is no factor; there are {known}"));
            }
            problems.range(&field, Some(*weight), &(0.0..=1.0));
        }
        if weights.len() == Factor::ALL.len() && weights.values().all(|weight| *weight <= 0.0) {
            problems.add(&format!("{field}.weights"), "must not all be 0");
        }
    }
    problems.range(&format!("{field}.explorationRate"), config.exploration_rate, &(0.0..=1.0));
    problems.range(&format!("{field}.budgetCap"), config.budget_cap, &(0.0..=MAX_CAP));
    problems.range(&format!("{field}.slaP95Ms"), config.sla_p95_ms, &(1..=3_600_000));
    if matches!(config.router_strategy, Some(Router::Sla)) && config.sla_p95_ms.is_none() {
        problems.add(&format!("{field}.slaP95Ms"), "is required with `routerStrategy: sla`");
    }
}
