//! The same model elsewhere, when the provider of a direct request is out.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use omniroute_provider::catalog::Catalog;

use crate::entity::FallbackChain;
use crate::resolve::{KnownPrice, Suffixes, Target, Via};
use crate::snapshot::{ProviderState, Snapshot};

/// Providers by model, in the order in which they stand in.
#[derive(Debug, Default)]
pub struct Chains(HashMap<String, Vec<String>, RandomState>);

impl Chains {
    /// From the operator's rows; links that are off are left out.
    pub fn new<'a>(rows: impl IntoIterator<Item = &'a FallbackChain>) -> Self {
        let chain = |row: &FallbackChain| {
            let mut links: Vec<_> = row.links.iter().filter(|link| link.enabled).collect();
            links.sort_by_key(|link| link.priority);
            (row.model.clone(), links.into_iter().map(|link| link.provider.clone()).collect())
        };
        Self(rows.into_iter().map(chain).collect())
    }

    /// Whether there are none, as for most operators.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Who else has a model that goes by any of these names.
    fn providers(&self, names: &[&str]) -> &[String] {
        names.iter().find_map(|name| self.0.get(*name)).map_or(&[], Vec::as_slice)
    }
}

/// Where else a model may be asked for, in the operator's order. `names` are those it goes by, `but` the provider that
/// was asked already.
pub fn targets(snapshot: &Snapshot, names: &[&str], model: &str, but: Option<&ProviderState>) -> Vec<Target> {
    let providers = snapshot.chains.providers(names);
    let states = providers.iter().filter_map(|name| snapshot.provider(snapshot.by_prefix(name)?));
    let mut targets: Vec<Target> = Vec::new();
    for provider in states {
        let is_asked = but.is_some_and(|but| but.id == provider.id)
            || targets.iter().any(|target| target.provider.id == provider.id);
        if !is_asked {
            targets.push(Target {
                model: name_at(snapshot.catalog(), provider, model).into(),
                provider: provider.clone(),
                connection_name: None,
                via: Via::Fallback,
                suffixes: Suffixes::default(),
                price: KnownPrice::default(),
            });
        }
    }
    targets
}

/// A model's name at another provider: the same, or the one that shares an alias with it.
fn name_at(catalog: &Catalog, provider: &ProviderState, model: &str) -> String {
    let is_listed = |name: &str| provider.models.iter().any(|listed| listed.id == name);
    if is_listed(model) {
        return model.to_owned();
    }
    if let Some(row) = catalog.model(&provider.id, model) {
        return row.model.clone();
    }
    // Gateways put the vendor in front: `openai/gpt-5.6` is `gpt-5.6`.
    let bare = |name: &str| name.rsplit('/').next().unwrap_or(name).to_ascii_lowercase();
    let wanted = bare(model);
    let others = provider.models.iter().map(|listed| listed.id.as_str());
    let rows = catalog.models_of(&provider.id);
    let is_same = |name: &&str| {
        bare(name) == wanted
            || rows
                .iter()
                .any(|row| row.model == **name && row.aliases.iter().any(|alias| bare(alias) == wanted))
    };
    let same = others.clone().find(is_same).map(str::to_owned);
    same.or_else(|| shared(catalog, provider, &wanted)).unwrap_or_else(|| model.to_owned())
}

/// The provider's name for a model that some other row lists as another name of it.
fn shared(catalog: &Catalog, provider: &ProviderState, wanted: &str) -> Option<String> {
    let same = |name: &str| name.rsplit('/').next().unwrap_or(name).eq_ignore_ascii_case(wanted);
    let mut names = Vec::new();
    for spec in catalog.providers() {
        for row in catalog.models_of(&spec.id) {
            if same(&row.model) || row.aliases.iter().any(|alias| same(alias)) {
                names.push(row.model.as_str());
                names.extend(row.aliases.iter().map(String::as_str));
            }
        }
    }
    names.into_iter().find_map(|name| {
        let is_listed = provider.models.iter().any(|listed| listed.id == name);
        let row = catalog.model(&provider.id, name).map(|row| row.model.clone());
        row.or_else(|| is_listed.then(|| name.to_owned()))
    })
}
